r"""The spectral dimension of a graph: how the eigenvalues of a mixing matrix accumulate at 1.

The spectral measure of W counts eigenvalues, sigma((lambda, 1)) = #{k >= 2 : lambda_k > lambda} / n, the consensus
direction excluded. A graph has spectral dimension d_s with constant c_s if

    sigma((lambda, 1)) <= (1 - lambda)^{d_s / 2} / c_s     for all lambda in [0, 1].

A D-dimensional lattice has d_s = D. Together with d_s goes the largest constant c_s that makes the inequality true for
the matrix at hand, so that `theory.spectral_dimension_lower_bound` holds for it, whatever d_s is.

References:
    Vogels, Hendrikx, Jaggi, "Beyond spectral gap (extended)", 2023, Definition 3.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from theory.matrices import MixingLike, Scalar
from theory.spectra import eigenvalues


class SpectralDimension(NamedTuple):
    """A spectral dimension, the largest constant that is valid with it, and how well it was fitted.

    Attributes:
        dimension: d_s.
        constant: c_s; infinite where no eigenvalue but the first is positive.
        standard_error: of the fitted d_s, 0 where d_s was given.
        fitted: how many eigenvalues the fit used, 0 where d_s was given.
    """

    dimension: float
    constant: float
    standard_error: float
    fitted: int


def _spectrum(W: MixingLike | Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """All eigenvalues in descending order, the consensus direction first."""
    if getattr(W, "ndim", 2) != 1:
        return eigenvalues(W)
    values = np.sort(np.asarray(W, dtype=np.float64))[::-1]
    if not len(values) or not np.isfinite(values).all() or abs(values[0] - 1) > 1e-6 or values[-1] < -1 - 1e-6:
        raise ValueError(
            "W: as a vector it must hold the n eigenvalues of a mixing matrix, in [-1, 1] with 1 among them; of a "
            "Laplacian with eigenvalues l, pass 1 - l / (1 + maximal degree)"
        )
    return values


def _fit(missing: Float[np.ndarray, " k"], fraction: Scalar) -> tuple[float, float, int]:
    """d_s, its standard error and the number of eigenvalues used, from the slope of the counting function near 1.

    `missing` is 1 - lambda in ascending order, without the consensus direction. Of each level of equal eigenvalues the
    middle of the step counts, the consensus direction included: on rings that is as good as a power law.
    """
    # Levels are told apart to six digits: eigenvalues of a matrix of small gap are not known much better.
    levels, first, sizes = np.unique(np.round(missing / missing[0], 6), return_index=True, return_counts=True)
    if len(levels) < 3:
        raise ValueError(f"W: expected at least 3 distinct eigenvalues below 1, got {len(levels)}; give the dimension")
    used = max(3, int(np.sum(first + sizes <= fraction * len(missing))))
    counts = 1 + first + sizes / 2
    (slope, _), covariance = np.polyfit(
        np.log(levels[:used]), np.log(counts[:used]), 1, w=np.sqrt(sizes[:used]), cov=True
    )
    return 2 * float(slope), 2 * math.sqrt(covariance[0, 0]), int(sizes[:used].sum())


def spectral_dimension(
    W: MixingLike | Float[np.ndarray, " n"], dimension: Scalar | None = None, fraction: Scalar = 0.05
) -> SpectralDimension:
    r"""Estimate the spectral dimension d_s of a mixing, and the largest constant c_s that is valid with it.

    d_s / 2 is the slope of log #{k : lambda_k > lambda} against log (1 - lambda), by least squares over the eigenvalues
    nearest to 1. Then, for that d_s or a given one,

    $$c_s = \min_{k \ge 2, \lambda_k > 0} \frac{n (1 - \lambda_k)^{d_s / 2}}{\#\{j \ge 2 : \lambda_j \ge \lambda_k\}}$$

    is the largest constant with which sigma((lambda, 1)) <= (1 - lambda)^{d_s/2} / c_s on [0, 1]: the left side jumps
    at eigenvalues only. With it, `theory.spectral_dimension_lower_bound(n, d_s, c_s, decay)` is at most the effective
    number of neighbours of every W without negative eigenvalues.

    Args:
        W: [n, n] symmetric mixing matrix, a mixing with `.matrix`, or the vector [n] of its eigenvalues (for graphs too
            large for a matrix).
        dimension: d_s, if it is known: then only c_s is computed.
        fraction: which part of the eigenvalues, those nearest to 1, the slope is fitted to (three levels at least).
            Smaller is nearer to the definition's limit, and noisier; the standard error knows of the noise only.

    Returns:
        `SpectralDimension(dimension, constant, standard_error, fitted)`.

    Raises:
        ValueError: for a disconnected W, one that is not symmetric, a vector that is no mixing spectrum, a dimension or
            fraction that is not positive, or fewer than three distinct eigenvalues to fit to.

    Example:
        >>> modes = np.arange(1000)
        >>> ring = (1 + 2 * np.cos(2 * np.pi * modes / 1000)) / 3
        >>> found = spectral_dimension(ring)
        >>> round(found.dimension, 2), round(spectral_dimension(ring, 1).constant, 2)
        (1.0, 1.5)

    References:
        Extended paper, Definition 3 and eqs. (14), (15), (17).
    """
    values = _spectrum(W)
    n = len(values)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: expected 0 < fraction <= 1, got {fraction}; 0.05 takes the top twentieth")
    if dimension is not None and not 0 < dimension < math.inf:
        raise ValueError(f"dimension: expected a positive number, got {dimension}; a ring has 1, a torus 2")
    missing = 1 - values[1:]
    if n > 1 and missing[0] < 1e-14:
        raise ValueError("W: expected a connected graph, got a second eigenvalue of 1; pass one component")
    error, fitted = 0.0, 0
    if dimension is None:
        if n == 1:
            raise ValueError("W: expected at least 3 distinct eigenvalues below 1, got a single node; give dimension")
        dimension, error, fitted = _fit(missing, fraction)
    positive = missing[missing < 1 - 1e-12]  # an eigenvalue 0 may come out as a rounding error
    constants = n * positive ** (dimension / 2) / np.arange(1, len(positive) + 1)
    return SpectralDimension(float(dimension), float(constants.min(initial=math.inf)), error, fitted)
