r"""How many steps of gossip make a mixing matrix forget where it started, and the bounds from its spectral gap.

W is one fixed, doubly stochastic matrix, J = 11'/n what its powers tend to. Three distances after t steps:

- "total_variation": d(t) = \max_i \frac12 \sum_j |(W^t)_ij - 1/n|, the one of Markov chains;
- "l2": \max_i \sqrt{n \sum_j ((W^t)_ij - 1/n)^2}, the chi-square distance, at least twice the total variation;
- "operator": ||W^t - J||_2, the worst contraction of the consensus distance.

None of them grows with t, for W is a contraction in each norm. The mixing time is the first t at which the distance is
at most epsilon. For symmetric W with lambda_* = max_{k>=2} |lambda_k| the distances obey

    lambda_*^t / 2 <= d(t) <= \sqrt{n - 1} lambda_*^t / 2,     lambda_*^t <= l2(t) <= \sqrt{n - 1} lambda_*^t,

and operator(t) = lambda_*^t: below by an eigenvector of lambda_*, above by Cauchy-Schwarz. The relaxation time
1 / (1 - lambda_*) is the scale of all of them. In symbols, as a function of n, it is
`theory.graph_symbols(family).relaxation_time`.

References:
    Levin, Peres, Wilmer, "Markov chains and mixing times", 2009, chapters 4 and 12.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from theory.matrices import MixingLike, Scalar, period_matrices, symmetric_matrix
from theory.spectra import spectral_gap

_DISTANCES = ("total_variation", "l2", "operator")
# Distances and bounds are rounded: equality counts as reached.
_SLACK = 1e-12


def _deviation(W: MixingLike, distance: str, epsilon: Scalar) -> Float[np.ndarray, "n n"]:
    """W - J, after all arguments were checked."""
    if distance not in _DISTANCES:
        raise ValueError(f'distance: expected "total_variation", "l2" or "operator", got {distance!r}')
    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon: expected a positive number, got {epsilon}; 1/4 is customary")
    matrices = period_matrices(W)
    if len(matrices) > 1:
        raise ValueError(f"W: expected one fixed matrix, got a schedule of period {len(matrices)}; pass its product")
    if distance == "total_variation" and matrices[0].min() < -_SLACK:
        raise ValueError(
            f"W: total variation needs weights >= 0, got {matrices[0].min():.3g}; use adozoo.weights.metropolis, or "
            'distance="l2"'
        )
    return matrices[0] - 1 / len(matrices[0])


def _measure(deviation: Float[np.ndarray, "n n"], distance: str) -> float:
    if distance == "total_variation":
        return float(np.abs(deviation).sum(axis=1).max() / 2)
    if distance == "l2":
        return float(math.sqrt(len(deviation)) * np.linalg.norm(deviation, axis=1).max())
    return float(np.linalg.norm(deviation, 2))


def mixing_time(W: MixingLike, epsilon: Scalar = 0.25, distance: str = "total_variation") -> float:
    """The first number of steps after which W^t is within epsilon of exact averaging.

    min {t >= 0 : distance(W^t, J) <= epsilon}, found exactly, by repeated squaring and then bisection: O(n^3 log t).

    Args:
        W: [n, n] doubly stochastic matrix, symmetric or not, or a mixing with `.matrix`.
        epsilon: the distance to reach, positive.
        distance: "total_variation" (weights >= 0), "l2" or "operator", as defined at the top of this file.

    Returns:
        A whole number of steps; infinity if the powers of W do not tend to J (disconnected, or an eigenvalue -1).

    Raises:
        ValueError: for an unknown distance, an epsilon that is not positive, a schedule, a W that is not doubly
            stochastic, or negative weights with total variation.

    Example:
        >>> W = adozoo.weights.metropolis(adozoo.graphs.ring(16))
        >>> mixing_time(W), mixing_time(W, 1e-3, "operator")
        (18.0, 133.0)
    """
    deviation = _deviation(W, distance, epsilon)
    n, reached = len(deviation), epsilon * (1 + _SLACK)
    if _measure(np.eye(n) - 1 / n, distance) <= reached:
        return 0.0
    if np.abs(np.linalg.eigvals(deviation)).max() > 1 - 1e-13 * n:
        return math.inf
    powers = [deviation]  # (W - J)^(2^k) = W^(2^k) - J
    while _measure(powers[-1], distance) > reached:
        powers.append(powers[-1] @ powers[-1])
    steps, current = 0, None  # the largest t with a distance above epsilon, bit by bit
    for k in reversed(range(len(powers) - 1)):
        further = powers[k] if current is None else current @ powers[k]
        if _measure(further, distance) > reached:
            steps, current = steps + 2**k, further
    return float(steps + 1)


class MixingTimeBounds(NamedTuple):
    """What the spectral gap alone says of a mixing time, in whole steps."""

    lower: float
    upper: float


def mixing_time_bounds(W: MixingLike, epsilon: Scalar = 0.25, distance: str = "total_variation") -> MixingTimeBounds:
    r"""Lower and upper bound on the mixing time of a symmetric W, from its spectral gap and n.

    With $\lambda_*$ the largest modulus of an eigenvalue but the first, and c = 1/2 for total variation, otherwise 1:

    $$\frac{\ln(c / \epsilon)}{\ln(1 / \lambda_*)} \le t_{mix}(\epsilon) \le \left\lceil
      \frac{\ln(c \sqrt{n - 1} / \epsilon)}{\ln(1 / \lambda_*)} \right\rceil,$$

    without the square root for "operator", where both are equalities. Since ln(1 / lambda_*) lies between the gap and
    gap / (1 - gap), they imply the customary (t_rel - 1) ln(1 / 2 epsilon) <= t_mix <= t_rel ln(n / epsilon).

    Args:
        W: [n, n] symmetric doubly stochastic matrix, or a mixing with `.matrix`.
        epsilon: the distance to reach, positive.
        distance: as in `mixing_time`.

    Returns:
        `MixingTimeBounds(lower, upper)`; both infinite where W does not mix.

    Raises:
        ValueError: what `mixing_time` refuses, or a W that is not symmetric.

    Example:
        >>> W = adozoo.weights.metropolis(adozoo.graphs.ring(16))
        >>> mixing_time_bounds(W)
        MixingTimeBounds(lower=14.0, upper=40.0)

    References:
        Levin, Peres, Wilmer, 2009, theorems 12.3 and 12.4 (for general reversible chains).
    """
    n = len(_deviation(W, distance, epsilon))
    contraction = 1 - spectral_gap(symmetric_matrix(W))
    scale = (0.5 if distance == "total_variation" else 1.0) / float(epsilon)
    spread = 1.0 if distance == "operator" else math.sqrt(n - 1)

    def steps(factor: float) -> float:
        """The first t with factor * contraction^t <= 1."""
        if factor <= 1 + _SLACK:
            return 0.0
        if contraction <= _SLACK:
            return 1.0
        if contraction >= 1 - 1e-13 * n:
            return math.inf
        return float(math.ceil(math.log(factor) / -math.log(contraction) * (1 - _SLACK)))

    if n == 1:
        return MixingTimeBounds(0.0, 0.0)
    return MixingTimeBounds(steps(scale), steps(scale * spread))


def relaxation_time(W: MixingLike) -> float:
    """1 / gap of a symmetric mixing matrix: about as many steps shrink the slowest mode by a factor e.

    Args:
        W: [n, n] symmetric doubly stochastic matrix, or a mixing with `.matrix`.

    Returns:
        1 / (1 - max_{k>=2} |lambda_k|); infinity where W does not mix.

    Raises:
        ValueError: when W is a schedule, or not symmetric and doubly stochastic.

    Example:
        >>> round(relaxation_time(adozoo.weights.metropolis(adozoo.graphs.star(8))), 6)
        8.0
    """
    symmetric = symmetric_matrix(W)
    gap = spectral_gap(symmetric)
    return 1 / gap if gap > 1e-13 * len(symmetric) else math.inf
