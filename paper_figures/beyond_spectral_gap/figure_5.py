"""Beyond Spectral Gap (extended), figure 5: covariance between workers in training against that of a random walk.

A network is trained by D-SGD (adapt-then-combine) up to a checkpoint. From there training is repeated many times for
100 steps with fresh samples; the covariance between the workers' parameters over the repetitions, averaged over
coordinates, is compared with that of the random walk z <- W (sqrt(decay) z + noise), with the decay fitted by least
squares. Both are scaled to mean variance 1.

Deviations: an MLP on digits in place of VGG-11 on CIFAR-10 (see _digits.py), one learning rate for all topologies, no
momentum; all coordinates instead of 1 %. The covariance is 0 at the checkpoint and has not settled after 100 steps in
the slowest directions, here as in the paper; the random walk's has. The published decays and n_W are for CIFAR-10 and
shown as context.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr

import adozoo
import theory
from experiments import figures
from paper_figures.beyond_spectral_gap import _digits

N, LEARNING_RATE, STEPS = 32, 0.1, 100
# Topology, label, and the published decay and n_W.
PUBLISHED = {
    "two_cliques:32": ("two cliques", 0.948, 17.8),
    "helical_torus:4x8": ("torus", 0.993, 29.4),
    "star:32": ("star", 0.986, 5.1),
    "social_network": ("social network", 0.992, 27.3),
    "ring:32": ("ring", 0.983, 13.9),
    "hypercube:32": ("hypercube", 0.997, 31.3),
    "heap_binary_tree:32": ("binary tree", 0.984, 12.3),
}
TOPOLOGIES = tuple(PUBLISHED)
LABELS = {name: label for name, (label, _, _) in PUBLISHED.items()}


@partial(jax.jit, static_argnames=("batch", "checkpoint", "repetitions"))
def worker_covariance(W: jax.Array, key: jax.Array, batch: int, checkpoint: int, repetitions: int) -> jax.Array:
    """Covariance [n, n] between the workers' parameters, over repetitions of 100 steps from one checkpoint."""
    digits = _digits.digits()
    tx, sampler = adozoo.dsgd(jnp.float32(LEARNING_RATE), adozoo.mixing(W)), _digits.sampler(digits, N, batch)
    initial, before, after = jax.random.split(key, 3)

    def train(params: dict, steps: int, key: jax.Array) -> dict:
        return adozoo.simulate(tx, sampler.gradient, params, steps, key, sample=sampler.sample)[0]

    def repeat(key: jax.Array) -> jax.Array:
        leaves = jax.tree.leaves(train(reached, STEPS, key))
        return jnp.concatenate([leaf.reshape(N, -1) for leaf in leaves], axis=1)

    reached = train(adozoo.replicate(_digits.initial(digits, initial), N), checkpoint, before)
    ends = jax.lax.map(repeat, jax.random.split(after, repetitions), batch_size=4)  # [repetition, worker, coordinate]
    ends = (ends - ends.mean(0, keepdims=True)).astype(float)
    return jnp.einsum("ric,rjc->ij", ends, ends) / ((repetitions - 1) * ends.shape[-1])


def scaled(covariance: np.ndarray) -> np.ndarray:
    """To mean variance 1."""
    return covariance * len(covariance) / np.trace(covariance)


def fit(covariance: np.ndarray, W: np.ndarray) -> tuple[float, float]:
    """The decay whose random walk over W has the nearest covariance, and the relative Frobenius error that remains."""

    def error(exponent: float) -> float:
        walk = scaled(theory.random_walk_covariance(W, -np.expm1(-exponent)))
        return float(np.linalg.norm(walk - covariance) / np.linalg.norm(covariance))

    found = minimize_scalar(error, bounds=(0.05, 14), method="bounded", options={"xatol": 1e-4})
    return float(-np.expm1(-found.x)), float(found.fun)


def compute(full: bool) -> xr.Dataset:
    scale = {"batch": 16, "checkpoint": 600, "repetitions": 100} if full else {}
    scale = scale or {"batch": 4, "checkpoint": 300, "repetitions": 40}
    matrices = {name: adozoo.weights.metropolis(adozoo.graphs.parse(name)) for name in TOPOLOGIES}
    measured, walks, decays, errors = [], [], [], []
    for W in matrices.values():
        covariance = worker_covariance(jnp.asarray(W, jnp.float32), jax.random.key(0), **scale)
        measured.append(scaled(np.asarray(covariance)))
        fits = np.array([fit(measured[-1], other) for other in matrices.values()])
        decays.append(fits[:, 0])
        errors.append(fits[:, 1])
    for k, W in enumerate(matrices.values()):
        walks.append(scaled(theory.random_walk_covariance(W, decays[k][k])))
    own = np.diagonal(np.array(decays))
    return xr.Dataset(
        {
            "measured": (("topology", "worker", "other_worker"), np.array(measured)),
            "walk": (("topology", "worker", "other_worker"), np.array(walks)),
            "decay": (("topology", "walked"), np.array(decays)),
            "error": (("topology", "walked"), np.array(errors)),
            "neighbors": (
                "topology",
                [theory.effective_neighbors(W, decay) for W, decay in zip(matrices.values(), own, strict=True)],
            ),
        },
        {"topology": list(TOPOLOGIES), "walked": list(TOPOLOGIES)},
        scale,
    )


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axes = figures.panels(2, len(TOPOLOGIES), (1.55, 1.78))
    for name, column in zip(TOPOLOGIES, axes.T, strict=True):
        here = data.sel(topology=name)
        for axis, matrix in zip(column, (here.measured, here.walk), strict=True):
            image = axis.imshow(matrix, vmin=0, vmax=1, cmap="magma")
            axis.set(xticks=[], yticks=[])
            axis.grid(visible=False)
            axis.spines[:].set_visible(False)
        column[0].set_title(LABELS[name])
        column[1].set_xlabel(
            rf"$\gamma$ = {float(here.decay.sel(walked=name)):.3f}, $n_W$ = {float(here.neighbors):.1f}"
            f"\nerror {float(here.error.sel(walked=name)):.1%}",
            fontsize=7.5,
        )
    axes[0, 0].set_ylabel("trained network")
    axes[1, 0].set_ylabel("random walk, fitted")
    figure.colorbar(image, ax=axes, label="covariance / mean variance", shrink=0.7, pad=0.01, extend="max")
    return figure


def judge(data: xr.Dataset) -> list[figures.Claim]:
    apart = ~np.eye(N, dtype=bool)
    shape = {
        name: float(np.corrcoef(data.measured.sel(topology=name).values[apart], walk.values[apart])[0, 1])
        for name, walk in zip(TOPOLOGIES, data.walk, strict=True)
    }
    error = {name: float(data.error.sel(topology=name, walked=name)) for name in TOPOLOGIES}
    decay = {name: float(data.decay.sel(topology=name, walked=name)) for name in TOPOLOGIES}
    nearest = {name: TOPOLOGIES[int(data.error.sel(topology=name).values.argmin())] for name in TOPOLOGIES}
    runner_up = {name: float(np.sort(data.error.sel(topology=name).values)[1]) for name in TOPOLOGIES}
    neighbors = data.neighbors.values
    published = [n for _, _, n in PUBLISHED.values()]
    return [
        figures.Claim(
            "the workers' covariance in training is that of a random walk: relative error below 20 % on each topology "
            "(the limit is ours)",
            all(value < 0.2 for value in error.values()),
            {LABELS[name]: error[name] for name in TOPOLOGIES},
        ),
        figures.Claim(
            "the same without the variances: off-diagonal entries are correlated by 0.9 or more on each topology (the "
            "limit is ours; on a star they are nearly all equal, which leaves little but noise to correlate)",
            all(value >= 0.9 for value in shape.values()),
            {LABELS[name]: shape[name] for name in TOPOLOGIES},
        ),
        figures.Claim(
            "each measured covariance is nearer to the random walk on its own topology than on the six others",
            all(nearest[name] == name for name in TOPOLOGIES),
            {
                f"{LABELS[name]}: nearest, its error, the second error": (
                    LABELS[nearest[name]],
                    float(data.error.sel(topology=name).min()),
                    runner_up[name],
                )
                for name in TOPOLOGIES
            },
        ),
        figures.Claim(
            "fitted decays, and with them n_W, of CIFAR-10 with VGG-11",
            None,
            {f"{LABELS[name]}: decay, n_W": (decay[name], n) for name, n in zip(TOPOLOGIES, neighbors, strict=True)}
            | {"Spearman's correlation of n_W here and published": float(spearmanr(neighbors, published).statistic)},
            {f"{label}: decay, n_W": (rate, n) for label, rate, n in PUBLISHED.values()},
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
