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
from jaxtyping import Float
from numpy.polynomial import Polynomial
from scipy.optimize import root_scalar

from theory.bounds.facts import derive
from theory.bounds.symbols import symbol

largest_sigma = symbol(
    "largest_sigma", r"\bar\sigma", "largest sigma for which SVL's step size and gain are certified", nonnegative=True
)

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


derive("largest_sigma", ("learning_rate", "integral_gain", "strong_convexity", "smoothness"), admitted)
