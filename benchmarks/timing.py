"""Timing: contenders that take turns, and first calls in processes of their own."""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[1]
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Spread:
    """Minimum, median and maximum of repeated measurements, in seconds."""

    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, seconds: list[float], share: float = 1.0) -> "Spread":
        """`share` turns the time of a call into that of one step of it, or that of a part into that of the whole."""
        return cls(min(seconds) * share, statistics.median(seconds) * share, max(seconds) * share)


def clock(run: Callable[[], Any]) -> float:
    """Seconds that one call takes; the call must wait for its own result."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def take_turns(contenders: Mapping[Name, Callable[[], Any]], repeats: int) -> dict[Name, list[float]]:
    """Seconds of `repeats` calls of each contender, in turns, after one call of each that is not counted."""
    for run in contenders.values():
        run()
    times: dict[Name, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            times[name].append(clock(run))
    return times


@dataclass(frozen=True)
class Cold:
    """A first call, taken apart where it is one compiled program; seconds, medians over processes."""

    total: float
    trace: float | None = None
    compile: float | None = None
    first_run: float | None = None


def cold(workload: str, repeats: int = 3, **case: Any) -> Cold:
    """Time the first call of `benchmarks.<workload>.program(**case)` in `repeats` fresh processes."""
    # A cache of compiled programs would make the first call the second one.
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    command = [sys.executable, "-m", "benchmarks.timing", workload, json.dumps(case)]
    calls = []
    for _ in range(repeats):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the first call of {workload} {case} failed:\n{done.stderr}")
        calls.append(json.loads(done.stdout))
    return Cold(*(statistics.median(parts) for parts in zip(*calls, strict=True)))


def _first_call(workload: str, case: dict[str, Any]) -> list[float]:
    import importlib

    import jax

    module = importlib.import_module(f"benchmarks.{workload}")
    with jax.enable_x64(module.X64):
        function, arguments = module.program(**case)
        jax.block_until_ready(arguments)
        if not hasattr(function, "lower"):  # it compiles as it goes, or not at all
            return [clock(lambda: function(*arguments))]
        times = [time.perf_counter()]
        lowered = function.lower(*arguments)
        times.append(time.perf_counter())
        compiled = lowered.compile()
        times.append(time.perf_counter())
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter())
    return [times[-1] - times[0], *(after - before for before, after in itertools.pairwise(times))]


if __name__ == "__main__":
    print(json.dumps(_first_call(sys.argv[1], json.loads(sys.argv[2]))))
