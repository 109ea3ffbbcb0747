r"""Consensus among eight workers on a ring, each of which begins with a matrix of its own.

A method runs with gradients of zero; what it sends is counted by watching it. All numbers are float32. W has weights
1/3, and gossip takes the diffusion rate that is best on this ring, 2 / ((1 - \lambda_2) + (1 - \lambda_n)) = 1.308.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_sample_images

import adozoo
import theory

N = 8
RING = adozoo.graphs.ring(N)
MIX = adozoo.mixing(RING)
SIDE, MODES, NOISE = 64, 6, 0.01
Factory = Callable[[Any, Any], Any]


def best_diffusion_rate(W: np.ndarray) -> float:
    r"""2 / ((1 - \lambda_2) + (1 - \lambda_n)), of I - rate (I - W) the one with the smallest norm on disagreements."""
    eigenvalues = np.sort(theory.eigenvalues(W))
    return float(2 / (2 - eigenvalues[-2] - eigenvalues[0]))


DIFFUSION_RATE = best_diffusion_rate(adozoo.weights.metropolis(RING))


def white_noise(seed: int) -> np.ndarray:
    """Independent normal entries, 100 x 100: all singular values of a difference are of one size."""
    return np.random.default_rng(seed).normal(size=(N, 100, 100))


def smooth_images(seed: int) -> np.ndarray:
    r"""Sums of 6 x 6 products of cosines with weights (k l)^{-3/2} N(0, 1), and a little noise, 64 x 64."""
    rng = np.random.default_rng(seed)
    k = np.arange(1, MODES + 1)
    cosines = np.cos(np.pi * np.outer(np.arange(SIDE) + 0.5, k) / SIDE)
    weights = rng.normal(size=(N, MODES, MODES)) * np.outer(k, k) ** -1.5
    return np.einsum("uk,nkl,vl->nuv", cosines, weights, cosines) + NOISE * rng.normal(size=(N, SIDE, SIDE))


def photographs(seed: int) -> np.ndarray:
    """Grey corners, 64 x 64, of the two photographs that come with scikit-learn, at a third of their size.

    The seed decides which worker has which.
    """
    corners = []
    for photograph in load_sample_images().images:
        rows, columns = (3 * (length // 3) for length in photograph.shape[:2])
        grey = photograph[:rows, :columns].mean(2).reshape(rows // 3, 3, columns // 3, 3).mean((1, 3))
        corners += [grey[v, u] for v in (slice(SIDE), slice(-SIDE, None)) for u in (slice(SIDE), slice(-SIDE, None))]
    images = np.random.default_rng(seed).permutation(np.array(corners))
    return (images - images.mean()) / images.std()


STARTS: dict[str, Callable[[int], np.ndarray]] = {
    "white noise": white_noise,
    "smooth images": smooth_images,
    "photographs": photographs,
}


class Run(NamedTuple):
    """The error after each step over that at the start, (1/n) sum_i |X_i - mean|^2, and a worker's bits in a step."""

    errors: np.ndarray  # [seed, step]
    bits: float


def disagreement(x: jax.Array) -> jax.Array:
    """(1/n) sum_i |X_i - mean|^2."""
    return jnp.mean(jnp.sum((x - x.mean(0, keepdims=True)) ** 2, (1, 2)))


def errors(tx: Any, x: jax.Array, steps: int) -> jax.Array:
    """The errors of a method without gradients; pure, for vmap over parameters of the method."""
    _, _, trace = adozoo.simulate(tx, lambda params, step, key: 0 * params, x, steps, metrics=disagreement)
    return trace / disagreement(x)


def start(data: str, seeds: Sequence[int]) -> jax.Array:
    """What the workers begin with, [seed, n, a, b]."""
    return jnp.asarray([STARTS[data](seed) for seed in seeds], jnp.float32)


def run(method: Factory, data: str, steps: int, seeds: Sequence[int] = (0,), mix: adozoo.Mixing = MIX) -> Run:
    """One method, (mix, key) -> transformation, from several starts and with as many keys."""
    x = start(data, seeds)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    bits = adozoo.channel.traffic(lambda mix: method(mix, jax.random.key(0)), mix, x[0]).bits_per_node
    lanes = jax.jit(jax.vmap(lambda x, key: errors(method(mix, key), x, steps)))
    return Run(np.asarray(lanes(x, keys)), bits)


def uncompressed(data: str, steps: int, seeds: Sequence[int] = (0,)) -> Run:
    """Gossip of the matrices themselves, at the best diffusion rate."""
    return run(lambda mix, key: adozoo.dsgd(1.0, mix), data, steps, seeds, adozoo.relaxed(MIX, DIFFUSION_RATE))


def power_gossip(rank: int = 1, rounds: int = 1, warm_start: bool = True) -> Factory:
    """PowerGossip at gossip's best diffusion rate: nothing is tuned."""
    options = {"rank": rank, "iterations": rounds, "warm_start": warm_start, "diffusion_rate": DIFFUSION_RATE}
    return lambda mix, key: adozoo.power_gossip(adozoo.descent(1.0), mix, key=key, **options)


def first_below(errors: np.ndarray, level: float) -> float:
    """The first step after which the error is below a level; infinity if it never is."""
    below = np.flatnonzero(errors < level)
    return float(below[0]) + 1 if len(below) else np.inf
