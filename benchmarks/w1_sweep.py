"""W1-sweep: 32 step sizes x 8 seeds of W1 at n = 16 by vmap, as one program; a seed is an instance of the data."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import adozoo
from benchmarks import peers, w1_dgd
from benchmarks.report import Result
from benchmarks.timing import Spread, cold, take_turns

X64 = True
N, SEEDS = 16, 8
RATES = np.geomspace(0.01, 0.3, 32)


def program() -> tuple[Callable[..., Any], tuple[Any, ...]]:
    problems = [adozoo.problems.logistic(*w1_dgd.data(N, seed), l2=w1_dgd.L2) for seed in range(SEEDS)]
    # One pytree for all seeds: the constants are static, and the largest smoothness holds for each.
    constants = (w1_dgd.L2, max(problem.smoothness for problem in problems))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(replace(p, constants=constants) for p in problems))
    mix = adozoo.mixing(adozoo.graphs.ring(N))

    def dgd(problem: Any, x: Any, learning_rate: Any) -> Any:
        tx = adozoo.dsgd(learning_rate, mix, variant="cta")
        return adozoo.simulate(tx, problem.gradient, x, w1_dgd.STEPS)[0]

    over_rates = jax.vmap(dgd, (None, None, 0))
    return jax.jit(jax.vmap(over_rates, (0, None, None))), (stacked, problems[0].init(), jnp.asarray(RATES))


def in_numpy() -> np.ndarray:
    """The tuned program of W1, run by run."""
    return np.stack(
        [[w1_dgd.in_tuned_numpy(*w1_dgd.data(N, seed), rate) for rate in RATES] for seed in range(SEEDS)],
    )


def run(quick: bool) -> Result:
    runs = SEEDS * len(RATES)
    result = Result(
        "W1-sweep: 32 step sizes x 8 seeds of W1 in one program",
        f"n = {N}, {w1_dgd.STEPS} steps of each of {runs} runs, float64, two nested vmaps; a seed is an instance of "
        f"the data. "
        f"numpy runs them one after the other. {peers.DECENT_BENCH} is extrapolated: {runs} times one run of it.",
    )
    function, arguments = program()
    contenders = {"adozoo": lambda: jax.block_until_ready(function(*arguments)), "numpy": in_numpy}
    times = {who: Spread.of(seconds) for who, seconds in take_turns(contenders, 1 if quick else 5).items()}
    first = cold("w1_sweep", 1 if quick else 3)
    apart = float(np.abs(in_numpy() - np.asarray(function(*arguments))).max())
    result.row(f"{runs} runs", "adozoo", times["adozoo"], first)
    speed = times["numpy"].median / times["adozoo"].median
    ratio = {"times adozoo, warm": speed, "times adozoo, cold": times["numpy"].median / first.total}
    result.row(f"{runs} runs", "numpy, tuned by hand, a loop over runs", times["numpy"], **ratio, difference=apart)
    features, labels = w1_dgd.data(N)
    case = {"features": features, "labels": labels, "l2": w1_dgd.L2, "learning_rate": 0.1, "steps": w1_dgd.STEPS}
    theirs = peers.decent_bench_dgd(1 if quick else 5, **case)
    warm = None
    if theirs is None:
        result.row(f"{runs} runs", f"{peers.DECENT_BENCH} ({peers.HOW_TO_GET})")
    else:
        spread = Spread.of(theirs[0], runs)
        warm = spread.median / times["adozoo"].median
        ratio = {"times adozoo, warm": warm, "times adozoo, cold": spread.median / first.total}
        result.row(f"{runs} runs", f"{peers.DECENT_BENCH}, extrapolated", spread, **ratio)
    result.target(f"against {peers.DECENT_BENCH}, warm", warm, least=400)
    if apart > 1e-10:
        raise RuntimeError(f"W1-sweep: the programs' iterates differ by {apart:.3g}: they do not compute the same.")
    return result
