r"""Optimal methods in the dual: SSDA and MSDA (Scaman, Bach, Bubeck, Lee, Massoulie, ICML 2017).

SSDA is Nesterov's accelerated gradient ascent on the dual: with a gossip matrix G, \gamma = \lambda_{n-1}(G) /
\lambda_1(G), step \mu / \lambda_1 and momentum (\sqrt\kappa - \sqrt\gamma) / (\sqrt\kappa + \sqrt\gamma). The dual
Hessian G^{1/2} H^{-1} G^{1/2} has its eigenvalues in [\lambda_{n-1} / L, \lambda_1 / \mu], of condition \kappa /
\gamma. On an eigenvalue of which the step makes q in [\gamma / \kappa, 1] the roots of z^2 - (1 + m)(1 - q) z + m (1
- q) are complex, since 4 m / (1 + m)^2 = 1 - \gamma / \kappa >= 1 - q, and |z|^2 = m (1 - q) <= (1 - \sqrt{\gamma /
\kappa})^2.

MSDA takes P_K(G) for G, K = floor(1 / \sqrt\gamma), with c = (1 - \sqrt\gamma) / (1 + \sqrt\gamma):

    P_K(x) = 1 - T_K(c_2 (1 - c_3 x)) / T_K(c_2), c_2 = (1 + \gamma) / (1 - \gamma), c_3 = 2 / (\lambda_1 (1 + \gamma)),

whose eigenvalues lie in [1 - r, 1 + r], r = 1 / T_K(c_2) = 2 c^K / (1 + c^{2K}): \sqrt{\gamma(P)} = (1 - c^K) / (1 +
c^K). Since c^K <= (K / (K + 2))^K <= 1/3, that is at least 1/2.
"""

import numpy as np
import sympy
from jaxtyping import Float

from theory.bounds._bound import Bound, Search
from theory.bounds._laplacians import Measured, Table, columns, laplacians, logarithmic, tiled
from theory.bounds.accelerated import gossip_condition
from theory.bounds.symbols import smoothness, strong_convexity

SIZES, COORDINATES = (2, 3, 4, 6), 6


def chebyshev(eigenvalues: Float[np.ndarray, "m n"], gap: Float[np.ndarray, " m"], count: int) -> np.ndarray:
    r"""P_K at the eigenvalues of a gossip matrix whose largest eigenvalue is 1.

    Args:
      eigenvalues: in [0, 1], [m, n].
      gap: \gamma < 1, [m].
      count: K.

    Returns:
      [m, n]; 0 at 0, and within 2 c^K / (1 + c^{2K}) of 1 on [\gamma, 1].

    Example:
      >>> theory.bounds.dual.chebyshev(
      ...     np.array([[0.0, 0.25, 1.0]]), np.array([0.25]), 2
      ... ).round(6).tolist()
      [[0.0, 0.780488, 0.780488]]
    """
    centre = ((1 + gap) / (1 - gap))[:, None]
    argument = centre * (1 - 2 * eigenvalues / (1 + gap)[:, None])
    before, now = np.ones_like(eigenvalues), argument
    last, scale = np.ones_like(centre), centre
    for _ in range(count - 1):
        before, now = now, 2 * argument * now - before
        last, scale = scale, 2 * centre * scale - last
    return 1 - now / scale


def rounds_of(gap: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    r"""K = floor(1 / \sqrt\gamma), where rounding does not count."""
    return np.floor(1 / np.sqrt(gap) + 1e-12)


def accelerated_rate(
    gossip: Float[np.ndarray, "m n n"],
    curvature: Float[np.ndarray, "m n"],
    strong_convexity: Float[np.ndarray, " m"],
    smoothness: Float[np.ndarray, " m"],
    polynomial: bool,
) -> Float[np.ndarray, " m"]:
    r"""The exact rate of SSDA, or of MSDA, on quadratics a_i (x - b_i)^2 / 2, from the dual Hessian's eigenvalues.

    Args:
      gossip: G, with the largest eigenvalue 1.
      curvature: a_i in [\mu, L].
      strong_convexity: \mu.
      smoothness: L.
      polynomial: whether P_K(G) takes the place of G (MSDA).

    Returns:
      The factor per step of the dual error.

    Example:
      >>> one = np.ones(1)
      >>> complete = np.eye(2)[None] - 0.5
      >>> theory.bounds.dual.accelerated_rate(
      ...     complete, np.array([[1.0, 4.0]]), one, 4 * one, False
      ... ).round(6)
      array([0.353553])
    """
    values, vectors = np.linalg.eigh(gossip)
    values[:, 0] = 0
    gap, ratio = values[:, 1].copy(), smoothness / strong_convexity
    largest, inner = np.ones_like(gap), gap
    if polynomial:
        count, even = rounds_of(gap), gap > 1 - 1e-9  # a complete graph: P_1(G) = G
        for rounds in np.unique(count[~even]):
            now = (count == rounds) & ~even
            values[now] = chebyshev(values[now], gap[now], int(rounds))
        contracted = ((1 - np.sqrt(gap)) / (1 + np.sqrt(gap))) ** count
        largest = (1 + contracted) ** 2 / (1 + contracted**2)
        inner = ((1 - contracted) / (1 + contracted)) ** 2
    root = np.einsum("mik,mk,mjk->mij", vectors, np.sqrt(np.maximum(values, 0)), vectors)
    dual = np.linalg.eigvalsh(root @ (root / curvature[:, :, None]))[:, 1:]
    q = np.clip(dual * (strong_convexity / largest)[:, None], 0, 1)
    momentum = (1 - np.sqrt(inner / ratio)) / (1 + np.sqrt(inner / ratio))
    half, product = (1 + momentum)[:, None] * (1 - q) / 2, momentum[:, None] * (1 - q)
    return np.abs(half + np.sqrt(half**2 - product + 0j)).max(1)


def _measured(points: np.ndarray, polynomial: bool) -> Measured:
    collected = Table(len(points))
    rest = points[:, columns(SIZES) :]
    for rows, laplacian in laplacians(points, SIZES, named=True):
        values = np.linalg.eigvalsh(laplacian)
        gap = np.minimum(values[:, 1] / values[:, -1], 1)
        kept = gap > 1e-3  # where MSDA takes at most 31 rounds
        rows, gap, u = rows[kept], gap[kept], rest[rows[kept]]
        gossip = laplacian[kept] / values[kept, -1, None, None]
        high, ratio = logarithmic(u[:, 0], 0.1, 10.0), logarithmic(u[:, 1], 1.5, 1e4)
        low = high / ratio
        curvature = low[:, None] + (high - low)[:, None] * tiled(u[:, 2:], laplacian.shape[1])
        rate = accelerated_rate(gossip, curvature, low, high, polynomial)
        collected.put(rows, rate, {"strong_convexity": low, "smoothness": high, "gossip_condition": 1 / gap})
    return collected.result()


def _ssda(points: np.ndarray) -> Measured:
    return _measured(points, polynomial=False)


def _msda(points: np.ndarray) -> Measured:
    return _measured(points, polynomial=True)


DIMENSION = columns(SIZES) + 2 + COORDINATES
# Where the two roots meet, rounding moves them by the root of its size.
_DOUBLE_ROOT = 1e-7
_CONDITION = smoothness / strong_convexity
_SCAMAN = "Scaman, Bach, Bubeck, Lee, Massoulie, ICML 2017"
_FIXED = "a fixed symmetric gossip matrix G >= 0 whose kernel is consensus"
_RADIUS = r"\limsup_t \|x^t - x^*\|^{1/t}"

BOUNDS = (
    Bound(
        name="ssda_quadratic",
        statement="On quadratics SSDA is twice as fast as over all strongly convex functions.",
        quantity=_RADIUS,
        expression=1 - 1 / sympy.sqrt(gossip_condition * _CONDITION),
        reference="Polyak, 1964, and Nesterov's method on quadratics; the roots above",
        evidence="derived",
        rate=True,
        assumptions=(_FIXED, "quadratics"),
        search=Search(DIMENSION, _ssda, _DOUBLE_ROOT),
    ),
    Bound(
        name="msda_quadratic",
        statement="On quadratics MSDA, floor(1 / sqrt(gamma)) rounds a step, is at most twice as slow as one node.",
        quantity=_RADIUS,
        expression=1 - sympy.sqrt(1 / _CONDITION) / 2,
        reference=f"{_SCAMAN}, Theorem 4; the roots and the polynomial above",
        evidence="derived",
        rate=True,
        assumptions=(_FIXED, "quadratics"),
        search=Search(DIMENSION, _msda, _DOUBLE_ROOT),
    ),
)
