"""W1: DGD on a ring, l2-logistic regression, exact gradients, float64; the same iterates from three programs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import adozoo
from benchmarks import peers
from benchmarks.report import Result
from benchmarks.timing import Spread, cold, take_turns

X64 = True
STEPS = 1000
SAMPLES, DIM = 10, 20
L2, LEARNING_RATE = 0.1, 0.1


def data(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, m, d] whose mean differs between nodes, and labels in {0, 1} [n, m] from one noisy teacher.

    A node's labels are balanced: decent-bench refuses a node that has one class only.
    """
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, SAMPLES, DIM)) + 0.5 * rng.normal(size=(n, 1, DIM))
    scores = features @ rng.normal(size=DIM) + rng.normal(size=(n, SAMPLES))
    return features, (scores > np.median(scores, axis=1, keepdims=True)).astype(float)


def program(n: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    problem = adozoo.problems.logistic(*data(n), l2=L2)
    mix = adozoo.mixing(adozoo.graphs.ring(n))

    @jax.jit
    def dgd(problem: Any, x: Any, learning_rate: Any) -> Any:
        tx = adozoo.dsgd(learning_rate, mix, variant="cta")
        return adozoo.simulate(tx, problem.gradient, x, STEPS)[0]

    return dgd, (problem, problem.init(), jnp.asarray(LEARNING_RATE))


def in_numpy(features: np.ndarray, labels: np.ndarray, learning_rate: float) -> np.ndarray:
    """The same in numpy as one writes it down: no loop over nodes."""
    signs = 2 * labels - 1
    x = np.zeros((features.shape[0], features.shape[2]))
    for _ in range(STEPS):
        slopes = -signs / (1 + np.exp(signs * np.einsum("nmd,nd->nm", features, x)))
        gradient = np.einsum("nmd,nm->nd", features, slopes) / features.shape[1] + L2 * x
        x = (x + np.roll(x, 1, axis=0) + np.roll(x, -1, axis=0)) / 3 - learning_rate * gradient
    return x


def in_tuned_numpy(features: np.ndarray, labels: np.ndarray, learning_rate: float) -> np.ndarray:
    """The same with nothing allocated in the loop, constants folded into the data, and neighbours that are slices."""
    n, m, d = features.shape
    signed = -(2 * labels - 1)[:, :, None] * features  # grad of log(1 + exp(s)) at s = signed x is signed' sigmoid(s)
    pulled = np.ascontiguousarray(signed.transpose(0, 2, 1)) * (-learning_rate / m)
    padded = np.zeros((n + 2, d))  # the ring's ends are repeated
    x, left, right = padded[1:-1], padded[:-2], padded[2:]
    mixed, slopes, step = np.empty((n, d)), np.empty((n, m, 1)), np.empty((n, d, 1))
    for _ in range(STEPS):
        padded[0], padded[-1] = padded[-2], padded[1]
        np.add(left, right, out=mixed)
        np.add(mixed, x, out=mixed)
        np.multiply(mixed, 1 / 3, out=mixed)
        np.matmul(signed, x[:, :, None], out=slopes)
        np.negative(slopes, out=slopes)
        np.exp(slopes, out=slopes)
        np.add(slopes, 1.0, out=slopes)
        np.reciprocal(slopes, out=slopes)
        np.matmul(pulled, slopes, out=step)
        np.multiply(x, -learning_rate * L2, out=x)
        np.add(x, mixed, out=x)
        np.add(x, step[:, :, 0], out=x)
    return x.copy()


def run(quick: bool) -> Result:
    result = Result(
        "W1: DGD on a ring, logistic regression",
        f"`adozoo.dsgd(variant='cta')`, W = 1/3, {SAMPLES} samples a node, d = {DIM}, {STEPS} steps, float64. "
        f"{peers.DECENT_BENCH} (Python 3.13, in its own process) records one snapshot. The difference is the largest "
        "of any coordinate of any node from adozoo's last iterates.",
    )
    for n in (16, 64) if quick else (16, 64, 256):
        function, arguments = program(n)
        features, labels = data(n)
        contenders = {
            "adozoo": lambda: jax.block_until_ready(function(*arguments)),  # noqa: B023, called within this pass
            "numpy, vectorised": partial(in_numpy, features, labels, LEARNING_RATE),
            "numpy, vectorised and tuned by hand": partial(in_tuned_numpy, features, labels, LEARNING_RATE),
        }
        times = {who: Spread.of(seconds) for who, seconds in take_turns(contenders, 5 if quick else 21).items()}
        first = cold("w1_dgd", 1 if quick else 3, n=n)
        ours = np.asarray(function(*arguments))
        result.row(f"n = {n}", "adozoo", own := times.pop("adozoo"), first)
        for who, spread in times.items():
            speed, apart = spread.median / own.median, float(np.abs(contenders[who]() - ours).max())
            ratio = {"times adozoo, warm": speed, "times adozoo, cold": spread.median / first.total}
            result.row(f"n = {n}", who, spread, **ratio, difference=apart)
            result.target(f"n = {n}: against {who}, warm", speed, least=4)
        case = {"features": features, "labels": labels, "l2": L2, "learning_rate": LEARNING_RATE, "steps": STEPS}
        theirs = peers.decent_bench_dgd(1 if quick or n > 64 else 3, **case)
        warm = slow = None
        if theirs is None:
            result.row(f"n = {n}", f"{peers.DECENT_BENCH} ({peers.HOW_TO_GET})")
        else:
            spread, apart = Spread.of(theirs[0]), float(np.abs(theirs[1] - ours).max())
            warm, slow = spread.median / own.median, spread.median / first.total
            ratio = {"times adozoo, warm": warm, "times adozoo, cold": slow}
            result.row(f"n = {n}", peers.DECENT_BENCH, spread, **ratio, difference=apart)
        if n == 64:
            result.target(f"n = {n}: against {peers.DECENT_BENCH}, warm", warm, least=500)
            result.target(f"n = {n}: against {peers.DECENT_BENCH}, cold", slow, least=15)
    apart = max(row["difference"] for row in result.rows if "difference" in row)
    if apart > 1e-10:
        raise RuntimeError(f"W1: the programs' iterates differ by {apart:.3g}: they do not compute the same.")
    return result
