r"""RelaySGD (Vogels et al., NeurIPS 2021), figure 3: relaying over spanning trees of a social network.

32 workers on the Davis southern women graph (89 edges), random least squares with d = 10, zeta^2 = 0.1 and gradient
noise 0.1 in norm. D-SGD and D2 (in the form of exact diffusion) average over all edges, RelaySGD relays over a spanning
tree. Suboptimality of the mean against steps (left), and against vectors sent in the whole network (right). Learning
rates: D-SGD's is the largest with which it settles below 1e-5 without noise, divided by 1.1; D2 0.1; RelaySGD 0.3.

Deviations: the problem and the noise are drawn with our own generator; the paper's is one draw whose generator we do not
have, and only its order of magnitude is comparable. Lines are means over 20 noise draws (100 with --full), and for
RelaySGD also over the roots 0, 4, ..., 28 (all with --full); the paper shows one run of each.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr

import adozoo
from experiments import figures
from paper_figures.relaysgd import _quadratics

N, ZETA2, NOISE, DISTANCE = 32, 0.1, 0.1, 1.0
STEPS = 500
RATES = {"d2": 0.1, "relay": 0.3}
TARGET = 1e-5
TITLES = {"gossip": "D-SGD", "d2": "D2 (exact diffusion)", "relay": "RelaySGD, spanning trees"}
LOOKS = {"gossip": figures.method("dsgd"), "d2": figures.method("d2"), "relay": figures.method("relay_sgd")}
# One run of the authors' code each; RelaySGD on the tree with root 0.
AT = (100, 200, 300, 400)
PUBLISHED = {
    "gossip": (5.1e-3, 1.7e-4, 1.3e-5, 2.3e-5),
    "d2": (6.1e-4, 2.2e-5, 5.7e-6, 1.6e-5),
    "relay": (1.0e-3, 2.2e-5, 2.0e-5, 2.2e-5),
}
PUBLISHED_VECTORS = {"gossip": 178, "d2": 178, "relay": 62}
PUBLISHED_RATE = 0.07421875 / 1.1


def problem(seed: int) -> _quadratics.Problem:
    """Gaussian matrices, each divided by its largest singular value; the common optimum is at DISTANCE from 0."""
    rng = np.random.default_rng((seed, N))
    A = rng.normal(size=(N, _quadratics.DIM, _quadratics.DIM))
    A /= np.linalg.norm(A, ord=2, axis=(1, 2))[:, None, None]
    centers = rng.normal(size=(N, _quadratics.DIM))
    centers -= _quadratics.common_optimum(A, centers)
    pulls = np.einsum("nji,njk,nk->ni", A, A, centers)
    centers *= np.sqrt(ZETA2 / np.mean(np.sum(pulls**2, axis=1)))
    direction = rng.normal(size=_quadratics.DIM)
    optimum = DISTANCE * direction / np.linalg.norm(direction)
    return _quadratics.least_squares(A, np.einsum("nij,nj->ni", A, centers + optimum))


@functools.cache
def network() -> adozoo.Mixing:
    return adozoo.mixing(adozoo.graphs.social_network())


def gossip(rate: Any) -> optax.GradientTransformationExtraArgs:
    return adozoo.dsgd(rate, network())


def d2(rate: Any) -> optax.GradientTransformationExtraArgs:
    return adozoo.exact_diffusion(rate, network())


@functools.cache
def relay(root: int) -> _quadratics.Method:
    """RelaySGD on the spanning tree from a root."""
    tree = adozoo.exchange(adozoo.graphs.spanning_tree(adozoo.graphs.social_network(), root))
    return lambda rate: adozoo.relay_sgd(adozoo.descent(rate), tree)


def vectors(kind: str) -> float:
    """Vectors sent in the whole network in a step."""
    x = np.zeros((N, _quadratics.DIM))
    if kind == "relay":
        tree = adozoo.exchange(adozoo.graphs.spanning_tree(adozoo.graphs.social_network(), 0))
        return adozoo.channel.traffic(lambda links: adozoo.relay_sgd(adozoo.descent(0.1), links), tree, x).messages
    build = {"gossip": adozoo.dsgd, "d2": adozoo.exact_diffusion}[kind]
    return adozoo.channel.traffic(lambda mix: build(0.1, mix), network(), x).messages


def compute(full: bool) -> xr.Dataset:
    return measured(range(N) if full else range(0, N, 4), STEPS, draws=100 if full else 20)


def measured(roots: Sequence[int], steps: int, draws: int) -> xr.Dataset:
    """Mean suboptimality over noise draws of each curve; RelaySGD's has a line for each root."""
    least_squares = problem(seed=1)
    stack = _quadratics.stack([least_squares])
    _, rate = _quadratics.tune(gossip, stack, exact=False, max_steps=20_000, target=TARGET)
    used = {"gossip": float(rate[0]) / 1.1, **RATES}
    noise = np.random.default_rng(0).normal(
        scale=NOISE / np.sqrt(_quadratics.DIM), size=(draws, steps, N, _quadratics.DIM)
    )

    def line(method: _quadratics.Method, rate: float) -> tuple[np.ndarray, np.ndarray]:
        runs = jax.jit(jax.vmap(functools.partial(_quadratics.curve, method, least_squares, rate, steps)))(noise)
        return np.asarray(runs).mean(0), np.asarray(runs).std(0, ddof=1) / np.sqrt(draws)

    lines = {"gossip": line(gossip, used["gossip"]), "d2": line(d2, used["d2"])}
    relays = np.stack([line(relay(root), used["relay"])[0] for root in roots])
    delays = [max(0, adozoo_diameter(root) - 1) for root in roots]
    return xr.Dataset(
        {
            "error": (
                ("curve", "step"),
                np.stack([lines["gossip"][0], lines["d2"][0], relays.mean(0)]),
            ),
            "standard_error": (("fixed", "step"), np.stack([lines["gossip"][1], lines["d2"][1]])),
            "relay_error": (("root", "step"), relays),
            "delay": ("root", delays),
            "rate": ("curve", [used[kind] for kind in TITLES]),
            "vectors": ("curve", [vectors(kind) for kind in TITLES]),
        },
        {"curve": list(TITLES), "root": list(roots), "step": np.arange(steps + 1)},
        {"draws": draws},
    )
