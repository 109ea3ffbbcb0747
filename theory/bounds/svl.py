r"""SVL, whose rate over time-varying graphs is known in closed form, alone and with many rounds a step.

With \eta = (1 - \rho) / \mu a node's step p = y - \eta g(y) lies in the sector [h - \rho, \rho] of y, where h = 1 +
\rho - \kappa (1 - \rho) >= 0. SVL is y = W x, s = w - (x - y), x <- p + \beta s, w <- s. On the disagreement take the
Lyapunov function q x^2 - 2 x w + w^2, a multiplier m for the sector and r for |y| <= \sigma |x|. Then

    q (p + \beta s)^2 - 2 (p + \beta s) s + s^2 - \rho^2 ((q - 1) x^2 + (s - y)^2)
        + m (p - (h - \rho) y)(\rho y - p) + r (\sigma^2 x^2 - y^2) <= 0

is needed. With \sigma^2 = \rho^2 (q - 1) / r it has no x, and its matrix in (p, s, y) has rank one and no positive
eigenvalue for

    q = (2 \rho^2 - h) / d,    m = 2 \rho^2 / e,    d = 2 \beta \rho^2 - h (1 - \rho^2),    e = d + \beta h,
    r = -\rho^2 (\beta + \rho - 1) (e + h \rho^2 + h \rho - 2 \rho^3 - 2 \rho^2) / ((\beta + \rho^2 - 1) e)

wherever q > 1, m > 0, r > 0 and (\beta + \rho^2 - 1) / d > 0. On the average,

    m (1 - h / (2 \rho)) (p^2 - \rho^2 y^2) + m (p - (h - \rho) y)(\rho y - p) = -m h (p - \rho y)^2 / (2 \rho) <= 0,

and the sectors of the nodes add up to those of average and disagreement, with one m. So the rate is \rho for all graphs
with ||W - J|| <= \sigma: Theorem 12 of the paper, derived anew. At h = 0 the best gain is \sqrt{1 - \rho^2}, with
\sigma^2 = (1 - \sqrt{1 - \rho^2}) / 2; since the sector only shrinks with h, that much is admitted for every h.
"""

import math
from typing import NamedTuple

import numpy as np
import sympy
from jaxtyping import Float
from numpy.polynomial import Polynomial
from scipy.optimize import root_scalar

from theory.bounds._bound import Bound, Search
from theory.bounds._laplacians import Measured, Table, logarithmic, mean_free, tiled
from theory.bounds.facts import derive
from theory.bounds.symbols import learning_rate, rounds, sigma, smoothness, strong_convexity, symbol

largest_sigma = symbol(
    "largest_sigma", r"\bar\sigma", "largest sigma for which SVL's step size and gain are certified", nonnegative=True
)

SIZES, COORDINATES = (2, 3, 4, 6), 6
Numbers = Float[np.ndarray, "..."]


class Multipliers(NamedTuple):
    r"""q, m, r of the proof and the largest \\sigma they admit; NaN where they prove nothing."""

    weight: Numbers
    sector: Numbers
    graph: Numbers
    sigma: Numbers


def multipliers(rate: Numbers, gain: Numbers, opening: Numbers) -> Multipliers:
    r"""The proof of SVL's rate.

    Args:
      rate: \rho.
      gain: \beta.
      opening: h = 1 + \rho - \kappa (1 - \rho), at least 0.

    Example:
      >>> found = theory.bounds.svl.multipliers(
      ...     np.array(0.8), np.array(0.6), np.array(0.0)
      ... )
      >>> round(float(found.sigma), 6), round(float(np.sqrt((1 - 0.6) / 2)), 6)
      (0.447214, 0.447214)
    """
    square = rate**2
    with np.errstate(all="ignore"):
        d = 2 * gain * square - opening * (1 - square)
        e = d + gain * opening
        q, m = (2 * square - opening) / d, 2 * square / e
        last = e + opening * (square + rate) - 2 * square * (rate + 1)
        r = -square * (gain + rate - 1) * last / ((gain + square - 1) * e)
        proved = (q > 1) & (m > 0) & (r > 0) & ((gain + square - 1) / d > 0) & (opening >= 0)
        largest = np.where(proved, np.sqrt(square * (q - 1) / r), np.nan)
    return Multipliers(q, m, r, largest)


def admitted(learning_rate: float, integral_gain: float, strong_convexity: float, smoothness: float) -> float:
    r"""The largest \sigma = ||W - J|| for which SVL is certified to have the rate 1 - \eta \mu; 0 if there is none.

    Args:
      learning_rate: \eta.
      integral_gain: \beta.
      strong_convexity: \mu.
      smoothness: L.

    Example:
      >>> round(theory.bounds.svl.admitted(2 / 1.1, 0.574959574576, 0.1, 1.0), 6)
      0.460999
    """
    rate = 1 - learning_rate * strong_convexity
    if rate <= 0:
        return 0.0
    opening = 1 + rate - smoothness / strong_convexity * (1 - rate)
    # Rounding at the largest step size, 2 / (mu + L), must not count as too large.
    opening = 0.0 if abs(opening) < 1e-12 else opening
    return float(np.nan_to_num(multipliers(np.array(rate), np.array(integral_gain), np.array(opening)).sigma))


class SvlParameters(NamedTuple):
    r"""SVL tuned to a class: its certified rate \rho, learning rate \eta and integral gain \beta."""

    rate: float
    learning_rate: float
    integral_gain: float


def tune(strong_convexity: float, smoothness: float, sigma: float) -> SvlParameters:
    r"""The step size and gain with which SVL has the best certified rate.

    The smallest \rho >= (\kappa - 1) / (\kappa + 1) whose best gain admits \sigma, by bisection.

    Args:
      strong_convexity: \mu of every f_i.
      smoothness: L of every f_i.
      sigma: ||W - J|| <= \sigma < 1 in every step.

    Returns:
      `SvlParameters(rate, learning_rate, integral_gain)`; up to \sigma^2 = (1 - \sqrt{1 - \rho^2}) / 2 the rate is that
      of gradient descent on one node.

    Raises:
      ValueError: for constants out of range.

    Example:
      >>> found = theory.bounds.svl.tune(0.1, 1.0, 0.6)
      >>> (
      ...     round(found.rate, 6),
      ...     round(found.learning_rate, 6),
      ...     round(found.integral_gain, 6),
      ... )
      (0.874191, 1.25809, 0.42245)

    References:
      Sundararajan, Van Scoy, Lessard, IEEE TCNS 2020, Theorem 12 and Algorithm 2.
    """
    if not 0 < strong_convexity <= smoothness < math.inf:
        raise ValueError(
            f"tune: need 0 < strong_convexity <= smoothness, got {strong_convexity!r} and {smoothness!r}. Pass the "
            "extreme curvatures of the f_i."
        )
    if not 0 <= sigma < 1:
        raise ValueError(
            f"tune: sigma must lie in [0, 1), got {sigma!r}. Pass ||W - J||, 1 - theory.spectral_gap(mix)."
        )
    ratio = smoothness / strong_convexity
    rate = (ratio - 1) / (ratio + 1)
    gain = math.sqrt(1 - rate**2)
    if sigma**2 > (1 - gain) / 2:
        rate = max(rate, sigma)  # no method is faster
        gap = 1 - rate
        while _best_gain(1 - gap, ratio)[1] < sigma:
            gap /= 2
            if gap < 1e-14:
                raise ValueError(f"tune: at sigma = {sigma!r} the rate is 1 to all digits. Mix several times a step.")
        if 1 - gap > rate:
            found = root_scalar(
                lambda rho: _best_gain(rho, ratio)[1] - sigma, bracket=(1 - 2 * gap, 1 - gap), xtol=1e-15
            )
            rate = found.root + 1e-12 * (1 - found.root)  # rounding must not take the proof away
        gain = _best_gain(rate, ratio)[0]
    return SvlParameters(rate, (1 - rate) / strong_convexity, gain)


def _best_gain(rate: float, ratio: float) -> tuple[float, float]:
    """(beta, sigma) with the largest sigma at a rate: a stationary point between the gains where sigma vanishes."""
    opening, square, b = max(1 + rate - ratio * (1 - rate), 0.0), rate**2, Polynomial([0.0, 1.0])
    d = 2 * square * b - opening * (1 - square)
    e = d + opening * b
    above = square * (b + square - 1) * (2 * b + opening - 2) * e
    below = (b + rate - 1) * d * (e + opening * (square + rate) - 2 * square * (rate + 1))
    roots = np.asarray((above.deriv() * below - above * below.deriv()).roots(), complex)
    first, last = sorted((1 - square, 1 - opening / 2))
    inside = roots.real[(np.abs(roots.imag) < 1e-4) & (roots.real > first) & (roots.real < last)]
    gains = np.append(inside, first + (last - first) * np.array([1e-6, 0.5, 1 - 1e-6]))
    found = np.nan_to_num(multipliers(np.full_like(gains, rate), gains, np.full_like(gains, opening)).sigma)
    best = int(found.argmax())
    return float(gains[best]), float(found[best])


def step_map(
    mixing: Float[np.ndarray, "m k k"], hessian: Float[np.ndarray, "m n n"], learning_rate: Numbers, gain: Numbers
) -> Float[np.ndarray, "m s s"]:
    """The map of (x, w) in one step, in a basis whose first vector is consensus; `mixing` is W without it."""
    m, n = hessian.shape[:2]
    spread = np.zeros((m, n, n))
    spread[:, 0, 0], spread[:, 1:, 1:] = 1, mixing
    wide = gain[:, None, None]
    moved = (np.eye(n) - learning_rate[:, None, None] * hessian) @ spread - wide * (np.eye(n) - spread)
    upper = np.concatenate([moved, np.broadcast_to(wide * np.eye(n)[:, 1:], (m, n, n - 1))], axis=2)
    lower = np.concatenate([(spread - np.eye(n))[:, 1:], np.broadcast_to(np.eye(n - 1), mixing.shape)], axis=2)
    return np.concatenate([upper, lower], axis=1)


def _class_member(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(an orthogonal matrix with some directions shrunk, shares of curvatures) for `size` nodes."""
    free = size - 1
    raw = 2 * points[:, COORDINATES : COORDINATES + free**2].reshape(-1, free, free) - 1 + 1e-3 * np.eye(free)
    shrunk = tiled(points[:, COORDINATES + 25 : COORDINATES + 30], free)
    return np.linalg.qr(raw)[0] * np.minimum(2 * shrunk, 1)[:, None, :], tiled(points[:, COORDINATES + 30 :], size)


DIMENSION = COORDINATES + 25 + 5 + COORDINATES


def _one_step(points: np.ndarray, many_rounds: bool) -> Measured:
    """The worst factor of the Lyapunov function in one step, over graphs and heterogeneous curvatures of the class."""
    collected, u = Table(len(points)), points
    kind = np.minimum((u[:, 0] * len(SIZES)).astype(int), len(SIZES) - 1)
    high, ratio = logarithmic(u[:, 1], 0.1, 10.0), logarithmic(u[:, 2], 1.01, 1e3)
    low = high / ratio
    fastest = (ratio - 1) / (ratio + 1)
    rate = fastest + (1 - fastest) * np.minimum(u[:, 3], 0.999)
    opening = np.where(u[:, 3] == 0, 0.0, np.maximum(1 + rate - ratio * (1 - rate), 0))
    count = 1.0 + np.round(4 * u[:, 5])
    if many_rounds:
        gain = np.sqrt(1 - rate**2)
        proof = multipliers(rate, gain, np.zeros_like(rate))
        largest, mean_weight = proof.sigma, proof.sector
    else:
        ends = 1 - rate**2, 1 - opening / 2
        gain = ends[0] + (ends[1] - ends[0]) * (1e-3 + 0.998 * u[:, 4])
        proof = multipliers(rate, gain, opening)
        largest, mean_weight, count = proof.sigma, proof.sector * (1 - opening / (2 * rate)), np.ones_like(rate)
    single = largest ** (1 / count) * np.where(u[:, 5] > 0.9, 0.5, 1 - 1e-12)
    for number, size in enumerate(SIZES):
        rows = np.flatnonzero((kind == number) & np.isfinite(largest))
        turned, share = _class_member(u[rows], size)
        # W^m of a symmetric W is any symmetric matrix of norm sigma^m; without symmetry the same holds for one round.
        mixing = turned * (single**count)[rows, None, None]
        basis = np.concatenate([np.full((size, 1), size**-0.5), mean_free(size)], axis=1)
        curvature = low[rows, None] + (high - low)[rows, None] * share
        hessian = np.einsum("ik,mi,il->mkl", basis, curvature, basis)
        step = step_map(mixing, hessian, (1 - rate[rows]) / low[rows], gain[rows])
        norm = np.zeros_like(step)
        weights = np.concatenate(
            [mean_weight[rows, None], np.repeat(proof.weight[rows, None], size - 1, 1), np.ones((len(rows), size - 1))],
            1,
        )
        norm[:] = weights[:, :, None] * np.eye(2 * size - 1)
        one = np.arange(1, size)
        norm[:, one, one + size - 1] = norm[:, one + size - 1, one] = -1
        root = np.linalg.cholesky(norm).transpose(0, 2, 1)
        factor = np.linalg.norm(root @ step @ np.linalg.inv(root), 2, axis=(1, 2))
        values = {
            "strong_convexity": low,
            "smoothness": high,
            "learning_rate": (1 - rate) / low,
            "sigma": single,
            "largest_sigma": largest,
            "rounds": count,
        }
        collected.put(rows, factor, {name: value[rows] for name, value in values.items()})
    return collected.result()


def _certified(points: np.ndarray) -> Measured:
    return _one_step(points, many_rounds=False)


def _multi_consensus(points: np.ndarray) -> Measured:
    return _one_step(points, many_rounds=True)


derive("largest_sigma", ("learning_rate", "integral_gain", "strong_convexity", "smoothness"), admitted)

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
        search=Search(DIMENSION, _certified),
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
        search=Search(DIMENSION, _multi_consensus),
    ),
)
