r"""Graphs that change in every step: what SVL reaches, alone or with many rounds a step, and what nothing can beat.

The proofs are in `theory.bounds.svl`. Over graphs that change, two realisations of one recursion are different methods,
so that the lower bound is tried in the variables that each method really keeps: `REALIZATIONS` has its step on a mode
where all Hessians are x / \eta and W_t is the number w.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import sympy
from jaxtyping import Float

from theory.bounds._bound import Bound, Search
from theory.bounds._laplacians import Measured, Table, logarithmic, mean_free, tiled
from theory.bounds.svl import Multipliers, largest_sigma, multipliers
from theory.bounds.symbols import learning_rate, rounds, sigma, smoothness, strong_convexity

Entries = Float[np.ndarray, "..."]
Matrix = tuple[Entries | int, Entries | int, Entries | int, Entries | int]

REALIZATIONS: dict[str, Callable[[Entries, Entries, Entries], Matrix]] = {
    "diging": lambda w, x, gain: (w - x, -1, (w - 1) * x, w),
    "atc_tracking": lambda w, x, gain: (w * (1 - x), -w, (w - 1) * x, w),
    "aug_dgm": lambda w, x, gain: (w - w**2 * x, -(w**2), (w - 1) * x, w),
    "extra": lambda w, x, gain: (w - x, 1, (w - 1) / 2, 1),
    "nids": lambda w, x, gain: ((1 - x) * (1 + w) / 2, -(1 + w) / 2, (1 - x) * (1 - w) / 2, (1 + w) / 2),
    "exact_diffusion": lambda w, x, gain: ((1 - x) * (1 + w) / 2, -(1 + w) / 2, (1 - x) * (1 - w) / 2, (1 + w) / 2),
    "d2": lambda w, x, gain: (w * (1 - x), -w, (1 - w) * (1 - x), w),
    "svl": lambda w, x, gain: (w * (1 - x) - gain * (1 - w), gain, w - 1, 1),
}
"""(eigenvalue of W, step size times curvature, integral gain) -> the rows of a step's 2 x 2 matrix on the mode."""

LONGEST = 8
"""Graphs repeat after up to this many steps."""
SIZES, COORDINATES = (2, 3, 4, 6), 6
DIMENSION = 6 + 25 + 5 + COORDINATES


def step_map(method: str, w: Entries, x: Entries, gain: Entries) -> Float[np.ndarray, "... 2 2"]:
    """The step's matrix on a mode; arguments broadcast."""
    a, b, c, d = np.broadcast_arrays(*REALIZATIONS[method](w, x, gain))
    return np.stack([np.stack([a, b], -1), np.stack([c, d], -1)], -2)


def _radius(matrices: Float[np.ndarray, "... 2 2"]) -> Entries:
    half = (matrices[..., 0, 0] + matrices[..., 1, 1]) / 2
    product = matrices[..., 0, 0] * matrices[..., 1, 1] - matrices[..., 0, 1] * matrices[..., 1, 0]
    root = np.sqrt(half**2 - product + 0j)
    return np.maximum(np.abs(half + root), np.abs(half - root))


def _worst_rate(method: str, x: Float[np.ndarray, "m c"], largest: Entries, gain: Entries) -> Float[np.ndarray, " m"]:
    """The largest rate over constant graphs and all periodic sequences of the eigenvalues -sigma and sigma."""
    rate = np.abs(1 - x).max(1)
    constant = largest[:, None, None] * np.linspace(-1, 1, 9)
    rate = np.maximum(rate, _radius(step_map(method, constant, x[:, :, None], gain[:, None, None])).max((1, 2)))
    letters = step_map(method, largest[:, None, None] * np.array([-1.0, 1.0]), x[:, :, None], gain[:, None, None])
    words = letters
    for length in range(2, LONGEST + 1):
        words = (letters[:, :, :, None] @ words[:, :, None]).reshape(*x.shape, -1, 2, 2)
        rate = np.maximum(rate, _radius(words).max((1, 2)) ** (1 / length))
    return rate


def _scan(points: np.ndarray) -> Measured:
    """The worst rate found of a random exact method, of any step size and gain."""
    collected, u = Table(len(points)), points
    kind = np.minimum((u[:, 0] * len(REALIZATIONS)).astype(int), len(REALIZATIONS) - 1)
    ratio, largest = logarithmic(u[:, 1], 1.0, 1e3), 0.999 * u[:, 2]
    step, gain = logarithmic(u[:, 3], 1e-3, 2.0), np.maximum(u[:, 4], 1e-3)
    x = step[:, None] * np.stack([1 / ratio, ratio**-0.5, np.ones_like(ratio)], axis=1)
    for number, method in enumerate(REALIZATIONS):
        rows = np.flatnonzero(kind == number)
        if len(rows):
            rate = _worst_rate(method, x[rows], largest[rows], gain[rows])
            known = {"strong_convexity": 1 / ratio[rows], "smoothness": np.ones(len(rows)), "sigma": largest[rows]}
            collected.put(rows, rate, known)
    return collected.result()


def svl_map(
    mixing: Float[np.ndarray, "m k k"], hessian: Float[np.ndarray, "m n n"], learning_rate: Entries, gain: Entries
) -> Float[np.ndarray, "m s s"]:
    """SVL's step in (x, w), in a basis whose first vector is consensus; `mixing` is W without it."""
    m, n = hessian.shape[:2]
    spread = np.zeros((m, n, n))
    spread[:, 0, 0], spread[:, 1:, 1:] = 1, mixing
    wide = gain[:, None, None]
    moved = (np.eye(n) - learning_rate[:, None, None] * hessian) @ spread - wide * (np.eye(n) - spread)
    upper = np.concatenate([moved, np.broadcast_to(wide * np.eye(n)[:, 1:], (m, n, n - 1))], axis=2)
    lower = np.concatenate([(spread - np.eye(n))[:, 1:], np.broadcast_to(np.eye(n - 1), mixing.shape)], axis=2)
    return np.concatenate([upper, lower], axis=1)


def _norm(average: Entries, weight: Entries, size: int) -> Float[np.ndarray, "m s s"]:
    """V = average |mean x|^2 + weight |x|^2 - 2 x'w + |w|^2, the last three of disagreement."""
    norm = np.broadcast_to(np.eye(2 * size - 1), (len(weight), 2 * size - 1, 2 * size - 1)).copy()
    norm[:, 0, 0] = average
    node = np.arange(1, size)
    norm[:, node, node] = weight[:, None]
    norm[:, node, node + size - 1] = norm[:, node + size - 1, node] = -1
    return norm


class _Tuned(NamedTuple):
    """SVL's hyper-parameters with their proof: of each point one class of objectives, rate and gain."""

    smoothness: Entries
    strong_convexity: Entries
    rate: Entries
    gain: Entries
    rounds: Entries
    average: Entries
    proof: Multipliers


def _tuned(points: Float[np.ndarray, "m 4"], several: bool) -> _Tuned:
    high, ratio = logarithmic(points[:, 0], 0.1, 10.0), logarithmic(points[:, 1], 1.01, 1e3)
    fastest = (ratio - 1) / (ratio + 1)
    rate = fastest + (1 - fastest) * np.minimum(points[:, 2], 0.999)
    if several:
        gain, count = np.sqrt(1 - rate**2), 1.0 + np.round(4 * points[:, 3])
        opening = np.zeros_like(rate)
    else:
        opening = np.where(points[:, 2] == 0, 0.0, np.maximum(1 + rate - ratio * (1 - rate), 0))
        share, count = 1e-3 + 0.998 * points[:, 3], np.ones_like(rate)
        gain = share * (1 - opening / 2) + (1 - share) * (1 - rate**2)
    proof = multipliers(rate, gain, opening)
    average = proof.sector * (1 - opening / (2 * rate))
    return _Tuned(high, high / ratio, rate, gain, count, average, proof)


def _svl_step(several: bool) -> Search:
    """The worst factor of the Lyapunov function in one step, over graphs and heterogeneous curvatures of the class."""

    def measure(points: np.ndarray) -> Measured:
        collected = Table(len(points))
        tuned = _tuned(points[:, 1:5], several)
        proof, low = tuned.proof, tuned.strong_convexity
        single = proof.sigma ** (1 / tuned.rounds) * np.where(points[:, 5] > 0.8, 0.5, 1 - 1e-12)
        known = {
            "strong_convexity": low,
            "smoothness": tuned.smoothness,
            "learning_rate": (1 - tuned.rate) / low,
            "sigma": single,
            "largest_sigma": proof.sigma,
            "rounds": tuned.rounds,
        }
        kind = np.minimum((points[:, 0] * len(SIZES)).astype(int), len(SIZES) - 1)
        for number, size in enumerate(SIZES):
            rows, free = np.flatnonzero((kind == number) & np.isfinite(proof.sigma)), size - 1
            u = points[rows, 6:]
            raw = 2 * u[:, : free**2].reshape(-1, free, free) - 1 + 1e-3 * np.eye(free)
            shrunk = np.minimum(2 * tiled(u[:, 25:30], free), 1) * (single**tuned.rounds)[rows, None]
            mixing = np.linalg.qr(raw)[0] * shrunk[:, None, :]  # W^m: all that counts is its norm
            basis = np.concatenate([np.full((size, 1), size**-0.5), mean_free(size)], axis=1)
            curvature = low[rows, None] + (tuned.smoothness - low)[rows, None] * tiled(u[:, 30:], size)
            hessian = np.einsum("ik,mi,il->mkl", basis, curvature, basis)
            step = svl_map(mixing, hessian, known["learning_rate"][rows], tuned.gain[rows])
            root = np.linalg.cholesky(_norm(tuned.average[rows], proof.weight[rows], size)).transpose(0, 2, 1)
            factor = np.linalg.norm(root @ step @ np.linalg.inv(root), 2, axis=(1, 2))
            collected.put(rows, factor, {name: value[rows] for name, value in known.items()})
        return collected.result()

    return Search(DIMENSION, measure)


eta, mu, L = learning_rate, strong_convexity, smoothness
_RATE = 1 - eta * mu
_CLASS = "graphs may change in every step; each W_t is doubly stochastic with ||W_t - J|| <= sigma"
_TCNS = "Sundararajan, Van Scoy, Lessard, IEEE TCNS 2020"

BOUNDS = (
    Bound(
        name="svl",
        statement="SVL has this rate over all time-varying graphs up to the largest sigma that its step size and gain "
        "admit (theory.bounds.svl.admitted; tuned by theory.bounds.svl.tune).",
        quantity=r"\sqrt{V(x^{t+1}, w^{t+1}) / V(x^t, w^t)}",
        expression=_RATE,
        reference=f"{_TCNS}, Theorem 12 and Algorithm 2; the multipliers: derived here",
        evidence="derived",
        rate=True,
        of="lyapunov",
        condition=sympy.And(sigma <= largest_sigma, sigma < 1),
        assumptions=(_CLASS,),
        methods=("svl",),
        search=_svl_step(several=False),
    ),
    Bound(
        name="multi_consensus",
        statement="SVL with the gain sqrt(1 - rho^2), rho = 1 - eta mu, and m rounds of gossip per gradient has the "
        "rate rho: that of gradient descent on one node at eta = 2 / (mu + L).",
        quantity=r"\sqrt{V(x^{t+1}, w^{t+1}) / V(x^t, w^t)}",
        expression=_RATE,
        reference="Van Scoy, Lessard, NecSys 2019, Theorem 1",
        evidence="derived",
        rate=True,
        of="lyapunov",
        condition=sympy.And(
            sigma**rounds <= (sympy.sqrt(2 - eta * mu) - sympy.sqrt(eta * mu)) / 2, eta * (mu + L) <= 2
        ),
        assumptions=(_CLASS, "integral gain sqrt(1 - rho^2)"),
        search=_svl_step(several=True),
    ),
    Bound(
        name="time_varying_lower_bound",
        statement="No method has a smaller worst-case rate over graphs that change. It says nothing of one instance: "
        "over a constant graph with sigma near 1 some methods are faster than sigma.",
        quantity=r"\rho",
        expression=sympy.Max((L - mu) / (L + mu), sigma),
        reference=f"{_TCNS}, Proposition 8",
        evidence="checked",
        direction="lower",
        rate=True,
        of="worst case",
        assumptions=(_CLASS, "linear exact methods, one gradient and one round of communication a step"),
        search=Search(5, _scan),
    ),
)
