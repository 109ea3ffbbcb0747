"""Sweeps: many runs, found finished or run as lanes of few programs, and gathered into one `xarray.Dataset`.

Each run is a cell of a `Store`, known by the hash of its settings. A sweep groups the missing cells that share a
program, pads each group to `lanes` (so that one compiled program serves all groups, and a cell's numbers do not depend
on who else was missing), and hands the groups to an engine. A group's cells enter the store together, when all of them
are done; a group that is killed midway goes on from its last checkpoint.
"""

import itertools
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from jax.extend.core import jaxprs_in_params

from experiments import engine, runs
from experiments.checkpoints import Checkpoints
from experiments.priors import Prior
from experiments.settings import Run, from_configuration
from experiments.store import Store, content_hash

LANES = 32
"""Lanes of a program at most; more do not make a CPU faster."""


@dataclass(frozen=True)
class Group:
    """The cells that one program computes at once: what an engine's job is. Plain data, to be sent to other machines.

    Attributes:
      cells: the settings of each. There may be more of them than lanes: then they are computed one batch after the
        other, so that the program is compiled once.
      lanes: how many are computed at once; batches are filled up to that.
      folder: of the store; checkpoints lie beside it.
      save_every: seconds between checkpoints.
    """

    cells: tuple[Mapping[str, Any], ...]
    lanes: int
    folder: str
    save_every: float = 60.0

    @property
    def name(self) -> str:
        """The hash of its cells."""
        return content_hash({"cells": list(self.cells), "lanes": self.lanes})

    @property
    def batches(self) -> "list[Group]":
        """Its batches, each a group."""
        starts = range(0, len(self.cells), self.lanes)
        return [replace(self, cells=self.cells[start : start + self.lanes]) for start in starts]


def work(group: Group) -> None:
    """Compute a group's cells and write them into the store, each batch from its checkpoint if there is one."""
    store = Store(group.folder)
    for batch in group.batches:
        wanted = [from_configuration(cell) for cell in batch.cells]
        if not store.missing([cell_hash(run) for run in wanted]):
            continue
        place = Path(group.folder) / "unfinished" / batch.name
        padded = [*wanted, *(wanted[-1:] * (batch.lanes - len(wanted)))]
        try:
            found = runs.execute(padded, Checkpoints(place), save_every=batch.save_every)
        except FileNotFoundError:
            if store.missing([cell_hash(run) for run in wanted]):
                raise
            continue  # another process was quicker, and has cleared the checkpoints away
        assert found is not None  # nothing asked it to stop early
        cells = {cell_hash(run): data for run, data in zip(wanted, found, strict=False)}
        store.write(cells, {cell_hash(run): run.configuration for run in wanted})
        shutil.rmtree(place, ignore_errors=True)


def cell_hash(run: Run) -> str:
    """The name of a run in the store."""
    return content_hash(run.configuration)


def plan(
    wanted: Sequence[Run], store: Store, lanes: int = LANES, together: bool = False, save_every: float = 60.0
) -> list[Group]:
    """The groups that compute what the store lacks: of `lanes` cells, or `together` of all cells that share a program.

    Batches are formed over all cells that are wanted, before those that are there are left out: so a sweep that was
    interrupted finds the batches, and the checkpoints, that it left.
    """
    programs: dict[str, list[Run]] = {}
    for run in _distinct(wanted):
        key = json.dumps([run.program.configuration, sorted(run.lane)], sort_keys=True)
        programs.setdefault(key, []).append(run)
    missing = set(store.missing([cell_hash(run) for run in wanted]))
    groups: list[Group] = []
    for members in programs.values():
        lacking = [cell_hash(run) in missing for run in members]
        if not any(lacking):
            continue
        size = 1 if members[0].devices > 1 else lanes_that_fit(members[0], lanes)
        size = size if together else min(size, len(members))  # else the next sweep's program would be another one
        batches = [slice(first, first + size) for first in range(0, len(members), size)]
        cells = [tuple(run.configuration for run in members[batch]) for batch in batches if any(lacking[batch])]
        made = Group((), size, str(store.folder), save_every)
        if together and all(len(batch) == size for batch in cells[:-1]):
            groups.append(replace(made, cells=tuple(itertools.chain(*cells))))
        else:
            groups += [replace(made, cells=batch) for batch in cells]
    return groups


def lanes_that_fit(run: Run, wanted: int, share: float = 0.25) -> int:
    """How many lanes fit into a share of this machine's memory, by an upper bound of what one needs.

    The bound adds up every intermediate result of one step's gradient, none of which is freed before the last, and
    six copies of the params. It asks for nothing to be compiled.
    """
    program = runs.prepare(run)
    numbers = {name: jax.ShapeDtypeStruct((1,), np.dtype("float32")) for name in run.lane}
    carry = jax.eval_shape(program.start, numbers, np.zeros(1, np.uint32))

    def gradient(data: Any, carry: Any, key: Any) -> Any:
        counts = np.zeros(run.nodes, np.int32)
        drawn = program.task.draw(data, key, counts)
        params, stats = (jax.tree.map(lambda x: x[0], tree) for tree in (carry.params, carry.stats))
        return program.task.gradient(data, params, stats, drawn, np.int32(0), key)

    key = jax.eval_shape(lambda: jax.random.key(0))
    traced = jax.make_jaxpr(gradient)(program.task.data, carry, key)
    held = sum(_bytes(leaf) for leaf in jax.tree.leaves(carry))
    need = 6 * held + sum(_bytes(value.aval) for equation in _equations(traced.jaxpr) for value in equation.outvars)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(np.clip(share * total // max(need, 1), 1, wanted))


def _bytes(shaped: Any) -> int:
    try:
        return math.prod(shaped.shape) * np.dtype(shaped.dtype).itemsize
    except TypeError:  # typed keys
        return 8 * math.prod(shaped.shape)


def _equations(jaxpr: Any) -> Any:
    for equation in jaxpr.eqns:
        inner = list(jaxprs_in_params(equation.params))
        if inner:
            for part in inner:
                yield from _equations(part)
        else:
            yield equation


def complete(
    wanted: Sequence[Run],
    store: Store,
    lanes: int = LANES,
    engine_name: str = "here",
    workers: int = 1,
    address: str | None = None,
    progress: Any = None,
    together: bool = False,
) -> None:
    """Run what of a sweep the store lacks.

    Args:
      wanted: the runs, each a cell.
      store: where finished cells are, and go.
      lanes: how many runs a program computes at once, at most.
      engine_name: "here", "processes" or "dask", see `experiments.engine`.
      workers: processes of an engine that has some.
      address: of a dask scheduler; a local cluster without.
      progress: called with the number of groups done.
      together: give all cells that share a program to one process, which compiles it once.

    Raises:
      ValueError: for settings that do not fit; before anything has run.
      Failures: where groups failed; those that did not are in the store.
    """
    jobs = [engine.Job(group.name, group) for group in plan(wanted, store, lanes, together)]
    engine.execute(jobs, work, engine=engine_name, workers=workers, address=address, progress=progress)


def sweep(wanted: Sequence[Run], store: Store, **options: Any) -> xr.Dataset:
    """`complete` a sweep, with its options, and `gather` it."""
    complete(wanted, store, **options)
    return gather(wanted, store)


def gather(wanted: Sequence[Run], store: Store) -> xr.Dataset:
    """The results of these runs as one dataset: a dimension for each setting in which they differ.

    Where the runs are not the full product of the values that occur, there is one dimension `cell` instead, along which
    these settings are coordinates. Shorter runs are filled up with nan.
    """
    wanted = _distinct(wanted)
    flat = [_flat(run) for run in wanted]
    differing = [
        name for name in sorted({name for row in flat for name in row}) if len({_key(r.get(name)) for r in flat}) > 1
    ]
    cells = [store.read(cell_hash(run)) for run in wanted]
    for cell, run in zip(cells, wanted, strict=True):
        cell["diverged"], cell["hash"] = cell.attrs["diverged"], cell_hash(run)
    values = {name: sorted({row.get(name) for row in flat}, key=_key) for name in differing}
    if math.prod(len(options) for options in values.values()) != len(wanted):
        joined = xr.concat(
            cells, "cell", combine_attrs="drop_conflicts", join="outer", coords="minimal", compat="equals"
        )
        return joined.assign_coords({name: ("cell", [_plain(row.get(name)) for row in flat]) for name in differing})
    placed = [
        cell.expand_dims({name: [_plain(row.get(name))] for name in differing})
        for cell, row in zip(cells, flat, strict=True)
    ]
    return xr.combine_by_coords(placed, combine_attrs="drop_conflicts", join="outer", coords="minimal", compat="equals")  # type: ignore[return-value]


def _flat(run: Run) -> dict[str, Any]:
    found = dict(run.configuration)
    return found | found.pop("hyperparameters")


def _key(value: Any) -> tuple[str, Any]:
    return (type(value).__name__, value if value is not None else 0)


def _plain(value: Any) -> Any:
    return "none" if value is None else value


def _distinct(wanted: Sequence[Run]) -> list[Run]:
    return list({cell_hash(run): run for run in wanted}.values())


def grid(base: Run, over: Mapping[str, Sequence[Any]]) -> list[Run]:
    """All combinations of these values; names that are no settings are hyper-parameters of the method.

    Example:
      >>> len(grid(Run(), {"learning_rate": [0.1, 0.2], "seed": [0, 1, 2]}))
      6
    """
    return [_with(base, dict(zip(over, values, strict=True))) for values in itertools.product(*over.values())]


def random(base: Run, priors: Mapping[str, Prior], trials: int, seed: int = 0) -> list[Run]:
    """`trials` independent draws from these priors."""
    rng = np.random.default_rng(seed)
    return [_with(base, {name: prior.draw(rng) for name, prior in priors.items()}) for _ in range(trials)]


def _with(base: Run, values: Mapping[str, Any]) -> Run:
    fields = {name: value for name, value in values.items() if name in Run.__dataclass_fields__}
    rest = {name: value for name, value in values.items() if name not in fields}
    return replace(base, **fields, hyperparameters={**base.hyperparameters, **rest})
