"""The benchmark: tasks x methods x clusters, each pair tuned with the same number of trials under the same budget.

A suite is a TOML file (see `experiments/suites/`). For every task, method and cluster:

1. `trials` configurations are drawn from the method's priors (`experiments.priors`), with the same random numbers for
   all methods, and run with a budget of steps, bits, seconds or joules;
2. the configuration with the best validation value at any record is run again with `repeats` other seeds;
3. the report says how good each method is after k trials, in the mean and in rank, with intervals.

Methods are those of the registry, so that a newly registered one joins by itself. One that does not fit a task (a dual
method on a network) or a cluster is listed with the reason. What does fit, but only in another form, gets it: methods
on trees take a spanning tree of the cluster's graph, methods that demand more than lambda_n > -1 lazy weights, and
methods with exact averaging an all-reduce.
"""

import datetime
import functools
import json
import platform
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from adozoo import zoo
from experiments import methods, priors, runs, sweeps
from experiments.figures import revision
from experiments.settings import AXES, Run, from_configuration, nearest
from experiments.store import Store

SHIPPED = Path(__file__).parent / "suites"
METRICS = ("validation", "test", "worst")
_TABLES = {"title", "about", "budget", "run", "tasks", "clusters", "methods"}
_BUDGET = {"axis": "steps", "amount": 0.0, "trials": 8, "repeats": 3, "lanes": 4, "seed": 0}
Read = Callable[[str], xr.Dataset]
_METHODS = {"include": ["*"], "exclude": [], "families": []}


@dataclass(frozen=True)
class Suite:
    """A suite, as its file says.

    Attributes:
      title, about: for the report.
      tasks: settings of each task, by its name.
      clusters: settings of each cluster, by its name.
      methods: names.
      trials, repeats: how many configurations are tried, and how many seeds the best of them gets.
      lanes: how many runs a program computes at once.
      axis, amount: the budget of a run; an amount of 0 leaves it at the steps of its settings.
      seed: of the draws.
      run: settings that all runs share.
      text: the file.
    """

    title: str
    tasks: Mapping[str, Mapping[str, Any]]
    clusters: Mapping[str, Mapping[str, Any]]
    methods: Sequence[str]
    trials: int
    repeats: int
    lanes: int
    axis: str
    amount: float
    seed: int
    run: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    text: str = ""


def load(name: str) -> Suite:
    """Read a suite: one that ships, by its name, or a TOML file.

    Raises:
      ValueError: a file that is not there or no TOML, an unknown key, or settings that no run takes; in one line.

    Example:
      >>> load("convex").axis
      'steps'
    """
    path = Path(name)
    shipped = sorted(file.stem for file in SHIPPED.glob("*.toml"))
    if path.suffix != ".toml":
        if name not in shipped:
            raise nearest("suite", name, shipped)
        path = SHIPPED / f"{name}.toml"
    try:
        text = path.read_text()
        given = tomllib.loads(text)
    except FileNotFoundError:
        raise ValueError(f"suite: there is no file {path}. Those that ship are {', '.join(shipped)}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"suite: {path} is no TOML: {error}. Mend that line.") from None
    try:
        return _suite(given, text)
    except ValueError as error:
        raise ValueError(f"suite: {path}: {error}") from None


def _suite(given: Mapping[str, Any], text: str) -> Suite:
    for key in given:
        if key not in _TABLES:
            raise nearest("table", key, _TABLES)
    budget = _filled("budget", given.get("budget", {}), _BUDGET)
    chosen = _filled("methods", given.get("methods", {}), _METHODS)
    for name, least in (("trials", 1), ("repeats", 0), ("lanes", 1), ("seed", 0)):
        if isinstance(budget[name], bool) or not isinstance(budget[name], int) or budget[name] < least:
            raise ValueError(f"budget: {name} must be an integer of at least {least}, got {budget[name]!r}.")
    if budget["axis"] not in AXES:
        raise nearest("budget: axis", budget["axis"], AXES)
    shared = dict(given.get("run", {}))
    parts = {}
    for kind in ("tasks", "clusters"):
        rows = given.get(kind, [])
        if not isinstance(rows, list) or not rows:
            raise ValueError(f"[[{kind}]] is missing: a suite needs at least one.")
        parts[kind] = {str(row.get("name", row.get(kind[:-1], ""))): _without_name(row) for row in rows}
        if len(parts[kind]) != len(rows) or "" in parts[kind]:
            raise ValueError(f"[[{kind}]]: each needs a name of its own.")
    for task in parts["tasks"].values():
        for cluster in parts["clusters"].values():
            from_configuration({**shared, **task, **cluster})
    return Suite(
        str(given.get("title", "Benchmark")),
        parts["tasks"],
        parts["clusters"],
        _selected(chosen),
        budget["trials"],
        budget["repeats"],
        budget["lanes"],
        budget["axis"],
        float(budget["amount"]),
        budget["seed"],
        shared,
        str(given.get("about", "")),
        text,
    )


def _without_name(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "name"}


def _filled(table: str, given: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    for key in given:
        if key not in default:
            raise nearest(f"[{table}]", key, default)
    return {**default, **given}


def _selected(chosen: Mapping[str, Sequence[str]]) -> list[str]:
    """Names, "*" for all of the registry, and families, less those that are excluded."""
    known, registered = methods.entries(), zoo.entries()
    found: dict[str, None] = {}
    for name in chosen["include"]:
        if name == "*":
            found |= dict.fromkeys(registered)
        elif name in known:
            found[name] = None
        else:
            raise nearest("[methods] include", name, known)
    for family in chosen["families"]:
        if family not in zoo.FAMILIES:
            raise nearest("[methods] families", family, zoo.FAMILIES)
    for name in chosen["exclude"]:
        if name not in known:
            raise nearest("[methods] exclude", name, known)
    wanted = set(chosen["families"])
    return [name for name in found if name not in chosen["exclude"] and (not wanted or known[name].family in wanted)]


def fitted(run: Run) -> Run:
    """The run in the form that suits its method's demands on the mixing; see the module's docstring."""
    entry = run.entry
    if "tree" in entry.mixings and not run.graph.startswith("tree_of:"):
        run = replace(run, graph=f"tree_of:{run.graph}")
    if entry.smallest_eigenvalue > -1 and not run.weights.startswith("lazy"):
        run = replace(run, weights=f"lazy_{run.weights}")
    return run


def trials(suite: Suite, base: Run, smoothness: float | None) -> list[Run]:
    """The configurations of one method on one task: the k-th of all methods uses the same random numbers."""
    found = []
    scale = 1.0 if smoothness is None else smoothness
    tuned = priors.for_entry(base.entry, "deep" if smoothness is None else "convex")
    names = sorted(tuned, key=lambda name: (name != "learning_rate", name))
    for number in range(suite.trials):
        streams = [np.random.default_rng((suite.seed, number, place)) for place in range(len(names))]
        values = {name: tuned[name].draw(rng) for name, rng in zip(names, streams, strict=True)}
        rate = values.pop("learning_rate") / scale
        if "strong_convexity" in values:  # drawn in units of L
            values["strong_convexity"] *= scale
        found.append(replace(base, learning_rate=rate, hyperparameters={**base.hyperparameters, **values}))
    return found


def execute(
    suite: Suite,
    folder: Path,
    engine_name: str = "here",
    workers: int = 1,
    address: str | None = None,
    progress: Any = None,
    command: str = "",
) -> xr.Dataset:
    """Run a suite, or what is missing of it, and write `benchmark.nc` into its folder.

    Args:
      suite: see `load`.
      folder: of its store and results.
      engine_name, workers, address: see `sweeps.sweep`.
      progress: called with the number of groups done.
      command: the command line, for the report.

    Returns:
      The dataset that `experiments.report` reads. Dimensions task, method, cluster, trial, repeat, record.
    """
    store = Store(folder / "cells")
    bases, reasons, scales = {}, {}, {}
    for task, of_task in suite.tasks.items():
        for cluster, of_cluster in suite.clusters.items():
            for method in suite.methods:
                where = (task, method, cluster)
                base = from_configuration({**suite.run, **of_task, **of_cluster, "method": method})
                if suite.amount:
                    base = replace(base, stop_axis=suite.axis, stop_at=suite.amount)
                try:
                    base = fitted(base)
                    program = runs.prepare(base)
                except ValueError as error:
                    reasons[where] = str(error)
                    continue
                bases[where], problem = base, program.task.problem
                scales[where] = None if problem is None else problem.smoothness
    tried = {where: trials(suite, base, scales[where]) for where, base in bases.items()}
    settings: dict[str, Any] = {"lanes": suite.lanes, "together": True, "progress": progress}
    settings |= {"engine_name": engine_name, "workers": workers, "address": address}
    sweeps.complete([run for row in tried.values() for run in row], store, **settings)
    read = functools.cache(store.read)
    best = {where: _best(row, read) for where, row in tried.items()}
    repeated = {
        where: [replace(run, seed=1 + number) for number in range(suite.repeats)]
        for where, run in best.items()
        if run is not None
    }
    sweeps.complete([run for row in repeated.values() for run in row], store, **settings)
    data = _gathered(suite, tried, repeated, reasons, read)
    data.attrs |= {"command": command, "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    data.to_netcdf(folder / "benchmark.nc", engine="h5netcdf")
    return data


def _best(tried: Sequence[Run], read: Read) -> Run | None:
    """The configuration with the best validation value at any record; None if all diverged."""
    scores = []
    for run in tried:
        cell = read(sweeps.cell_hash(run))
        values = cell["validation"].values * (1 if cell.attrs["better"] == "max" else -1)
        scores.append(np.nanmax(values) if cell.attrs["diverged"] < 0 else -np.inf)
    return tried[int(np.argmax(scores))] if np.isfinite(max(scores)) else None


def _gathered(suite: Suite, tried: Any, repeated: Any, reasons: Any, read: Read) -> xr.Dataset:
    names = {"task": list(suite.tasks), "method": list(suite.methods), "cluster": list(suite.clusters)}
    records = max((run.records for row in tried.values() for run in row), default=1)
    shape = tuple(len(values) for values in names.values())
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for prefix, dimension, count, table in (
        ("", "trial", suite.trials, tried),
        ("final_", "repeat", suite.repeats, repeated),
    ):
        dims = (*names, dimension)
        numbers = {name: np.full((*shape, count, records), np.nan) for name in (*METRICS, *AXES)}
        texts = {name: np.full((*shape, count), "", object) for name in ("configuration", "cell", "rerun")}
        diverged = np.full((*shape, count), -1)
        for where, row in table.items():
            index = tuple(values.index(name) for values, name in zip(names.values(), where, strict=True))
            for number, run in enumerate(row):
                cell = read(sweeps.cell_hash(run))
                for name, array in numbers.items():
                    values = cell[name].values if name in cell else np.nan
                    array[(*index, number)][: cell.sizes["record"]] = values
                texts["configuration"][(*index, number)] = cell.attrs["configuration"]
                texts["rerun"][(*index, number)] = cell.attrs["rerun"]
                texts["cell"][(*index, number)] = sweeps.cell_hash(run)
                diverged[(*index, number)] = cell.attrs["diverged"]
        found |= {f"{prefix}{name}": ((*dims, "record"), array) for name, array in numbers.items()}
        found |= {f"{prefix}{name}": (dims, array.astype(str)) for name, array in texts.items()}
        found[f"{prefix}diverged"] = (dims, diverged)
    why = np.array(
        [[[reasons.get((t, m, c), "") for c in names["cluster"]] for m in names["method"]] for t in names["task"]]
    )
    found["reason"] = (tuple(names), why.astype(str))
    judged = {where[0]: read(sweeps.cell_hash(row[0])).attrs for where, row in tried.items()}
    coords: dict[str, Any] = dict(names)
    coords["metric"] = ("task", [str(judged.get(task, {}).get("metric", "")) for task in names["task"]])
    coords["better"] = ("task", [str(judged.get(task, {}).get("better", "min")) for task in names["task"]])
    return xr.Dataset(found, coords, _provenance(suite))


def _provenance(suite: Suite) -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in ("adozoo", "jax", "jaxlib", "optax", "flax", "numpy")}
    return {
        "title": suite.title,
        "about": suite.about,
        "suite": suite.text,
        "budget_axis": suite.axis,
        "budget": suite.amount,
        "versions": json.dumps({"python": platform.python_version(), **versions}),
        "git": revision(),
        "machine": f"{platform.system()} {platform.machine()}, {jax.device_count()} {jax.default_backend()} device",
    }
