"""Runs: a method on a task in a world, some lanes at once, evaluated as it goes, to be stopped and resumed anywhere.

A *lane* is one run; see `experiments.programs` for what lanes share, and why a run that was stopped and resumed equals
one that was not, bit for bit.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from experiments.checkpoints import Checkpoints
from experiments.logs import Logger
from experiments.programs import Carry, Program, prepare
from experiments.settings import AXES, Run

__all__ = ["Carry", "Position", "Program", "dataset", "execute", "prepare"]


class Position(NamedTuple):
    """All of an unfinished run: what a checkpoint holds. Leaves have a leading axis of lanes."""

    carry: Carry
    trace: dict[str, np.ndarray]  # [lanes, records, ...], nan where not reached


def execute(
    runs: Sequence[Run],
    checkpoints: Checkpoints | None = None,
    logger: Logger | None = None,
    progress: Callable[[int], None] | None = None,
    save_every: float = 60.0,
    stop_after: int | None = None,
) -> list[xr.Dataset] | None:
    """Run lanes of one program to their end, from their latest checkpoint if there is one.

    Args:
      runs: one or more, which differ in `Run.lane` and seed alone.
      checkpoints: where unfinished runs are kept.
      logger: told the metrics of the first lane at each record.
      progress: called with the number of steps just taken.
      save_every: seconds between two checkpoints.
      stop_after: stop after this many steps in all, with a checkpoint, as if interrupted; for tests and short budgets.

    Returns:
      For each run what `dataset` makes of it; None if stopped before the end.

    Raises:
      ValueError: for runs that do not share a program, settings that do not fit, or a checkpoint that cannot be read.
    """
    run = runs[0]
    if any(other.program != run.program or other.lane.keys() != run.lane.keys() for other in runs):
        raise ValueError("execute: lanes must agree in all but learning rate, real hyper-parameters and seed.")
    if run.devices > 1 and len(runs) > 1:
        raise ValueError(f"execute: one lane at a time over devices, got {len(runs)}. Run them one after the other.")
    program = prepare(run, len(runs))
    stops = program.world.stops
    numbers = {name: np.array([other.lane[name] for other in runs], program.real) for name in run.lane}
    seeds = np.array([other.seed for other in runs], np.uint32)
    carry = program.start(numbers, seeds)
    shapes = {name: leaf.shape[1:] for name, leaf in jax.eval_shape(program.evaluate, carry, program.task.data).items()}
    trace = {name: np.full((len(runs), len(stops), *shape), np.nan) for name, shape in {**shapes, "signal": ()}.items()}
    now, described = 0, {"runs": [other.configuration for other in runs]}
    if checkpoints is not None and (found := checkpoints.latest(Position(carry, trace), described)) is not None:
        now, (carry, trace) = found
        trace = {name: np.array(values) for name, values in trace.items()}
        if progress:
            progress(now)
    saved, total = time.monotonic(), int(stops[-1])
    while now < total:
        record = int(np.searchsorted(stops, now, side="right"))
        last = min(int(stops[record]), now + program.longest, total if stop_after is None else max(stop_after, now + 1))
        counts, factors = _schedule(program, now)
        carry = program.advance(carry, numbers, seeds, program.task.data, now, last, counts, factors)
        if progress:
            jax.block_until_ready(carry.diverged)
            progress(last - now)
        now = last
        if now == stops[record]:
            since = int(stops[record - 1]) if record else 0
            while record < len(stops) and stops[record] == now:  # records of which nothing lies between
                _record(program, carry, trace, record, now - since)
                record += 1
            carry = carry._replace(signal=jnp.zeros_like(carry.signal))
            if logger is not None:
                logger.log(_row(program, trace, record - 1), now)
        stopping = stop_after is not None and now >= stop_after and now < total
        if checkpoints is not None and (stopping or now == total or time.monotonic() - saved > save_every):
            checkpoints.save(now, Position(carry, trace), described)
            saved = time.monotonic()
        if stopping:
            return None
    diverged = np.atleast_1d(np.asarray(carry.diverged))
    return [dataset(program, other, trace, lane, int(diverged[lane])) for lane, other in enumerate(runs)]


def _schedule(program: Program, now: int) -> tuple[np.ndarray, np.ndarray]:
    """(how many gradients each node took before, what gradients are multiplied by) for the steps from `now` on."""
    run, steps = program.run, now + np.arange(program.longest)
    if program.world.takes is None:
        counts = np.repeat(steps[:, None], run.nodes, axis=1)
    else:
        counts = program.world.takes[np.minimum(steps, len(program.world.takes) - 1)]
    share = np.minimum(steps / program.world.stops[-1], 1.0)
    factors = {
        "constant": np.ones_like(share),
        "cosine": (1 + np.cos(np.pi * share)) / 2,
        "linear": 1 - share,
        "steps": 0.1 ** ((share >= 0.5).astype(int) + (share >= 0.75)),
    }[run.schedule]
    if run.warmup:
        factors = factors * np.minimum(1.0, (share + 1 / program.world.stops[-1]) / run.warmup)
    return counts.astype(np.int32), factors.astype(np.float32)


def _record(program: Program, carry: Carry, trace: dict[str, np.ndarray], record: int, steps: int) -> None:
    for name, value in program.evaluate(carry, program.task.data).items():
        trace[name][:, record] = np.asarray(value)
    trace["signal"][:, record] = np.asarray(carry.signal) / max(steps, 1)


def _row(program: Program, trace: dict[str, np.ndarray], record: int) -> dict[str, float]:
    found = {name: float(values[0, record]) for name, values in trace.items() if values.ndim == 2}
    costs = program.world.costs
    return found | {name: float(getattr(costs, name)[record]) for name in AXES}


def dataset(program: Program, run: Run, trace: dict[str, np.ndarray], lane: int, diverged: int) -> xr.Dataset:
    """One run's result: its metrics at each record, what it had cost by then, and how to run it again.

    Variables over `record`: steps, bits, seconds, joules (cumulative, over the whole network), validation, test and
    their losses (of the mean model), signal (mean over the steps since the last record of the training loss, or of the
    squared gradient norm for convex tasks), consensus_distance, and where all nodes are evaluated worst, ensemble and
    nodes (record, node). Attributes: `diverged`, the step at which it did, -1 if never; configuration, rerun, metric,
    better, and what is known of the data.
    """
    found = {
        name: (("record", "node") if values.ndim == 3 else ("record",), values[lane]) for name, values in trace.items()
    }
    for name in AXES:
        found[name] = (("record",), np.asarray(getattr(program.world.costs, name), np.float64))
    last = found["test"][1][-1]
    if diverged < 0 and not np.isfinite(last):
        diverged = int(program.world.stops[-1])
    attrs = {
        "configuration": json.dumps(run.configuration, sort_keys=True),
        "rerun": run.command,
        "metric": program.task.metric,
        "better": program.task.better,
        "diverged": diverged,
        "facts": json.dumps(program.task.facts, sort_keys=True),
    }
    return xr.Dataset(found, attrs=attrs)
