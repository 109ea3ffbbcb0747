"""The command line: quickstart, list, run, sweep, benchmark, report, resume, fetch.

Results go to a folder of their own below `outputs/`, named after the hash of the settings, so that the same command
finds what it left: finished, it is not run again; unfinished, it goes on from its last checkpoint.
"""

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro
import xarray as xr

from experiments.figures import ROOT
from experiments.settings import Run, from_configuration, nearest

OUTPUTS = Path("outputs")
Engine = Literal["here", "processes", "dask"]
_given: list[str] = []  # the words of the command that runs: of the resumed one, not of `resume`


@dataclass(frozen=True)
class Options:
    """How a single run is run.

    Attributes:
      out: folder; outputs/runs/HASH by default.
      loggers: besides the log in JSON lines, which is always written: tensorboard, wandb, trackio, mlflow.
      save_every: seconds between checkpoints.
      fresh: begin anew, whatever is in the folder.
      quiet: no progress bar.
      hosts: run over this many hosts (processes) by jax.distributed; each is started with the same command.
      coordinator: address:port of the first host; found by itself under SLURM.
      host: number of this one, from 0.
    """

    out: Path | None = None
    loggers: tuple[str, ...] = ()
    save_every: float = 60.0
    fresh: bool = False
    quiet: bool = False
    hosts: int = 1
    coordinator: str | None = None
    host: int | None = None


def run(settings: Annotated[Run, tyro.conf.arg(name="")], options: Annotated[Options, tyro.conf.arg(name="")]) -> None:
    """Run one method on one task, from its last checkpoint if there is one."""
    if options.hosts > 1:
        from experiments.engine import initialise_hosts

        initialise_hosts(options.coordinator, options.hosts, options.host)
    from experiments.store import content_hash

    folder = options.out or OUTPUTS / "runs" / content_hash(settings.configuration)
    _run(settings, options, folder)


def _run(settings: Run, options: Options, folder: Path) -> None:
    import shutil

    from experiments import logs, runs
    from experiments.checkpoints import Checkpoints

    result, record = folder / "result.nc", folder / "settings.json"
    first = jax.process_index() == 0  # of several hosts, one writes
    if options.fresh and first:
        shutil.rmtree(folder, ignore_errors=True)
    if record.exists() and json.loads(record.read_text()) != settings.configuration and not options.fresh:
        raise ValueError(f"out: {folder} holds another run. Choose another folder, or --fresh to begin anew in it.")
    if result.exists() and not options.fresh:
        print(f"finished before: {folder}")
        _show(xr.load_dataset(result, engine="h5netcdf"))
        return
    total = int(runs.prepare(settings).world.stops[-1])  # what does not fit is said before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    if first:
        record.write_text(json.dumps(settings.configuration, indent=1, sort_keys=True))
    logger = logs.open_loggers(options.loggers, folder, settings.configuration) if first else logs.Several([])
    bar = logs.progress(total, f"{settings.method} on {settings.task}", options.quiet or not first)

    def progress(steps: int) -> None:
        bar.update(steps)

    try:
        found = runs.execute([settings], Checkpoints(folder / "checkpoints"), logger, progress, options.save_every)
    finally:
        bar.close()
        logger.close()
    assert found is not None  # nothing asked it to stop early
    if not first:
        return
    temporary = result.with_suffix(".part")
    found[0].to_netcdf(temporary, engine="h5netcdf")
    temporary.replace(result)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    _show(found[0])
    print(f"written to {folder}")


def _show(data: xr.Dataset) -> None:
    """The table of a run's records."""
    columns = [
        name
        for name in ("steps", "bits", "seconds", "joules", "signal", "validation", "test", "worst", "ensemble")
        if name in data and bool(data[name].notnull().any())
    ]
    print("  ".join(f"{name:>11}" for name in columns))
    for record in range(data.sizes["record"]):
        print("  ".join(f"{float(data[name][record]):>11.5g}" for name in columns))
    print(f"{data.attrs['metric']} ({data.attrs['better']} is better); validation and test are of the mean model")
    if data.attrs["diverged"] >= 0:
        print(f"DIVERGED at step {data.attrs['diverged']}")


def resume(folder: tyro.conf.Positional[Path], quiet: bool = False) -> None:
    """Go on with an unfinished run, sweep or benchmark, by the folder that it wrote to."""
    record, command = folder / "settings.json", folder / "command.json"
    if record.exists():
        _run(from_configuration(json.loads(record.read_text())), Options(quiet=quiet), folder)
    elif command.exists():
        main(json.loads(command.read_text()))
    else:
        raise ValueError(f"resume: {folder} holds no run, sweep or benchmark: there is no settings.json in it.")


def sweep(
    settings: Annotated[Run, tyro.conf.arg(name="")],
    over: tuple[str, ...] = (),
    trials: int = 0,
    seeds: int = 1,
    lanes: int = 32,
    engine: Engine = "here",
    workers: int = 2,
    address: str | None = None,
    out: Path | None = None,
) -> None:
    """Run a method with many settings, as lanes of few programs.

    Args:
      settings: those that all runs share.
      over: what differs: name=1,2,3 (values), name=log:LOW,HIGH,COUNT or name=linear:LOW,HIGH,COUNT (a grid), or with
        --trials name=log:LOW,HIGH or name=uniform:LOW,HIGH (random); none with --trials draws from the method's priors.
      trials: random search with this many draws; 0 for the grid.
      seeds: every combination is run with this many seeds.
      lanes: how many runs a program computes at once, at most.
      engine: here, processes or dask.
      workers: processes of the engine.
      address: of a dask scheduler; a local cluster without.
      out: folder; outputs/sweeps/HASH by default.
    """
    from experiments import runs, sweeps
    from experiments.search import cells
    from experiments.store import Store, content_hash

    wanted = cells(settings, over, trials, seeds)
    folder = out or OUTPUTS / "sweeps" / content_hash({"cells": [run.configuration for run in wanted]})
    for one in {run.program.command: run for run in wanted}.values():
        runs.prepare(one)
    _remember(folder)
    began = time.perf_counter()
    data = sweeps.sweep(
        wanted, Store(folder / "cells"), lanes=lanes, engine_name=engine, workers=workers, address=address
    )
    data.to_netcdf(folder / "sweep.nc", engine="h5netcdf")
    _best(data)
    print(f"{len(wanted)} runs, {time.perf_counter() - began:.1f} s; written to {folder / 'sweep.nc'}")


def _remember(folder: Path) -> None:
    """Note the command line, for `resume`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "command.json").write_text(json.dumps(_given))


def _best(data: xr.Dataset) -> None:
    import numpy as np

    last = data["validation"].max("record") if data.attrs["better"] == "max" else data["validation"].min("record")
    if not bool(last.notnull().any()):
        print("every run diverged")
        return
    values = last.values if data.attrs["better"] == "max" else -last.values
    where = np.unravel_index(np.nanargmax(values), last.shape)
    chosen = last[dict(zip(last.dims, where, strict=True))]
    named = ", ".join(f"{name} = {value.item()}" for name, value in chosen.coords.items())
    print(f"best validation {data.attrs['metric']}: {chosen.item():.5g} at {named or 'the only run'}")
    print(f"diverged: {int((data['diverged'] >= 0).sum())} of {data['diverged'].size}")


def benchmark(
    suite: tyro.conf.Positional[str],
    out: Path | None = None,
    engine: Engine = "processes",
    workers: int = 2,
    address: str | None = None,
    trials: int | None = None,
    repeats: int | None = None,
) -> None:
    """Tune and compare many methods under equal budgets, and write a report.

    Args:
      suite: convex, deep-small, or a TOML file.
      out: folder; outputs/benchmarks/SUITE by default. What is finished in it is not run again.
      engine: here, processes or dask.
      workers: processes of the engine.
      address: of a dask scheduler; a local cluster without.
      trials, repeats: instead of those of the suite.
    """
    from experiments import benchmark as bench
    from experiments import logs

    loaded = bench.load(suite)
    loaded = replace(
        loaded,
        trials=loaded.trials if trials is None else trials,
        repeats=loaded.repeats if repeats is None else repeats,
    )
    if loaded.trials < 1 or loaded.repeats < 0:
        raise ValueError(f"trials, repeats: expected at least 1 and 0, got {loaded.trials} and {loaded.repeats}.")
    folder = out or OUTPUTS / "benchmarks" / Path(suite).stem
    _remember(folder)
    command = f"python -m experiments {shlex.join(_given)}"
    bench.execute(loaded, folder, engine, workers, address, logs.count, command)
    report(folder)


def report(folder: tyro.conf.Positional[Path]) -> None:
    """Write the report of a benchmark again, from what is stored in its folder."""
    from experiments import report as reports

    path = folder / "benchmark.nc"
    if not path.exists():
        raise ValueError(f"report: there is no {path}. Run python -m experiments benchmark first.")
    written = reports.write(xr.load_dataset(path, engine="h5netcdf"), folder)
    for place in written:
        print(place)


def listed(what: tyro.conf.Positional[str] = "methods") -> None:
    """List what can be run.

    Args:
      what: methods, tasks, graphs, partitions, clusters, energies or suites.
    """
    kinds: dict[str, Callable[[], list[str]]] = {
        "methods": _methods,
        "tasks": _tasks,
        "graphs": _graphs,
        "partitions": _partitions,
        "clusters": _clusters,
        "energies": _energies,
        "suites": _suites,
    }
    if what not in kinds:
        raise nearest("list", what, kinds)
    print("\n".join(kinds[what]()))


def _methods() -> list[str]:
    from experiments import methods

    return [f"{name:28} {entry.family:13} {entry.title}" for name, entry in methods.entries().items()]


def _tasks() -> list[str]:
    from experiments import models, sources, tasks

    return ["DATA/MODEL, with DATA one of", *sources.names(), "", "and MODEL one of", *models.FAMILIES, *tasks.CONVEX]


def _graphs() -> list[str]:
    from adozoo import graphs
    from experiments import world

    return [*sorted(graphs.FAMILIES), "tree_of:GRAPH", "cycle:GRAPH;GRAPH", *world.SCHEDULES]


def _partitions() -> list[str]:
    from experiments import partition

    return list(partition.SCHEMES)


def _clusters() -> list[str]:
    from experiments.clusters import CLUSTERS

    return list(CLUSTERS)


def _energies() -> list[str]:
    from experiments import energy

    return [f"{name:12} {machine.source}" for name, machine in energy.MACHINES.items()]


def _suites() -> list[str]:
    from experiments import benchmark as bench

    return [f"{path.stem:12} {bench.load(path.stem).title}" for path in sorted(bench.SHIPPED.glob("*.toml"))]


def fetch(name: tyro.conf.Positional[str], folder: Path = Path("data")) -> None:
    """Download a data set that is not bundled: fashion_mnist or cifar10, with its checksum."""
    from experiments import sources

    sources.fetch(name, folder)


def commands() -> dict[str, Callable[..., Any]]:
    """The subcommands, by name."""
    from experiments import quickstart

    return {
        "quickstart": quickstart.main,
        "list": listed,
        "run": run,
        "sweep": sweep,
        "benchmark": benchmark,
        "report": report,
        "resume": resume,
        "fetch": fetch,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run a command line.

    Args:
      arguments: words; those of the process by default.

    Returns:
      The exit code: 0, 1 where jobs failed, 2 where something does not fit (argparse's own code for usage).
    """
    from experiments import engine

    _given[:] = sys.argv[1:] if arguments is None else arguments
    _keep_what_is_compiled()
    jax.config.update("jax_enable_x64", True)  # convex tasks; networks stay in the dtype of their data
    try:
        tyro.extras.subcommand_cli_from_dict(commands(), prog="python -m experiments", args=arguments)
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(f"error: {_line(error)}", file=sys.stderr)
        return 2
    except engine.Failures as error:
        print(f"error: {_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; python -m experiments resume goes on", file=sys.stderr)
        return 130
    return 0


def _keep_what_is_compiled() -> None:
    """Compiling is most of a short run: programs are kept on disk, for this process and those it starts."""
    kept = {
        "jax_compilation_cache_dir": str(ROOT / ".cache" / "jax"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    if not any(name.upper() in os.environ for name in kept):
        for name, value in kept.items():
            os.environ[name.upper()] = str(value)
            jax.config.update(name, value)


def _line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()
