"""Reading mixing matrices: arrays, mixings and periodic schedules become validated float64 arrays.

The theory works in float64 whatever precision the mixing runs in, and takes anything that carries a matrix, so that
the object given to a method is also the object given to its theory.
"""

import inspect
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

# An [n, n] array, a mixing with `.matrix`, a schedule with `.matrices`, a [period, n, n] array, or a list of matrices.
# Not narrower: bad input has to reach `period_matrices`, whose ValueError says what was expected.
MixingLike: TypeAlias = Any
Scalar: TypeAlias = float | int | np.floating | np.integer

# Mixings may carry float32 weights, whose row sums are right to about 1e-7.
_TOLERANCE = 1e-5


def _raw(W: MixingLike) -> Any:
    # Looked up without evaluation: a schedule's `.matrix` is a property that raises.
    for name in ("matrices", "matrix"):
        if inspect.getattr_static(W, name, None) is not None:
            return getattr(W, name)
    return W


def period_matrices(W: MixingLike) -> Float[np.ndarray, "p n n"]:
    """The matrices of one period of a mixing, in float64: period 1 for a fixed matrix.

    Args:
        W: [n, n] array, mixing with `.matrix`, schedule with `.matrices`, [period, n, n] array, or a list of those.

    Returns:
        [period, n, n] float64 array; matrix t is applied at steps t, t + period, ...

    Raises:
        ValueError: when the matrices are not square, not doubly stochastic, or (with negative weights) of norm above 1.

    Example:
        >>> period_matrices([np.eye(2), np.full((2, 2), 0.5)]).shape
        (2, 2, 2)
    """
    raw = _raw(W)
    if isinstance(raw, list | tuple):
        raw = [_raw(item) for item in raw]
    try:
        matrices = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"W: cannot read {type(W).__name__} as [n, n] or [period, n, n]; pass arrays") from error
    if matrices.ndim == 2:
        matrices = matrices[None]
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or not matrices.size:
        raise ValueError(f"W: expected shape [n, n] or [period, n, n], got {matrices.shape}; pass square matrices")
    error = max(np.abs(matrices.sum(axis) - 1).max() for axis in (1, 2))
    if not error <= _TOLERANCE:
        raise ValueError(
            f"W: rows and columns must sum to 1, off by up to {error:.3g}; "
            "build a doubly stochastic matrix with adozoo.weights.metropolis(graph)"
        )
    # Without negative weights the norm of a doubly stochastic matrix is 1; the check costs more than the test.
    if matrices.min() < -_TOLERANCE and (norm := np.linalg.norm(matrices, 2, axis=(1, 2)).max()) > 1 + _TOLERANCE:
        raise ValueError(f"W: expected ||W||_2 <= 1, got {norm:.6g}: it amplifies; use adozoo.weights.best_constant")
    return matrices


def is_symmetric(matrix: Float[np.ndarray, "n n"]) -> bool:
    """Whether a matrix equals its transpose, up to the rounding of float32 weights.

    Example:
        >>> is_symmetric(np.eye(3))
        True
    """
    return bool(np.abs(matrix - matrix.T).max() <= _TOLERANCE)


def symmetric_matrix(W: MixingLike) -> Float[np.ndarray, "n n"]:
    """The one symmetric matrix of a mixing, in float64.

    Raises:
        ValueError: for a schedule of more than one matrix, or a matrix that is not symmetric.

    Example:
        >>> symmetric_matrix(np.full((2, 2), 0.5)).shape
        (2, 2)
    """
    matrices = period_matrices(W)
    if len(matrices) > 1:
        raise ValueError(f"W: expected one fixed matrix, got a schedule of period {len(matrices)}; pass W[t]")
    if not is_symmetric(matrices[0]):
        raise ValueError("W: expected a symmetric matrix, got W != W'; pass W' W, or (W + W') / 2")
    return (matrices[0] + matrices[0].T) / 2


def check_decay(decay: Scalar) -> float:
    """A variance decay as a Python float.

    Raises:
        ValueError: outside [0, 1).

    Example:
        >>> check_decay(0)
        0.0
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay: expected 0 <= decay < 1, got {decay}; the limit at 1 is n for a connected graph")
    return float(decay)
