"""What low-rank methods share: tensors as matrices, orthonormal columns, products, and rounds that take turns."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SMALLEST_NORM = 1e-8
"""Columns are divided by their norm plus this, as in PowerSGD's published code: far shorter ones stay short."""
LARGEST_REMAINDER = 1e-5
"""The share of a column along its predecessors from which on they are taken out a second time."""
UNROLLED = 8
"""Up to so many columns Gram-Schmidt is unrolled."""
SMALLEST_REST = 1e-3
"""The share of a column that must outlive this: what is left of less is rounding, and becomes zero."""


def orthogonalize(matrix: Float[Array, "*batch a r"]) -> Float[Array, "*batch a r"]:
    r"""An orthonormal basis of the column space, by Gram-Schmidt from left to right.

    Column i, v_i = m_i - \sum_{j<i} p_j p_j' m_i, becomes p_i = v_i / (|v_i| + 1e-8), so that a column of zeros, or one
    that depends on its predecessors, stays (almost) zero and spoils nothing. What rounding leaves of v_i along its
    predecessors is taken out once more where it matters: P'P has no eigenvalue above 1, up to 1e-4.

    Few columns are unrolled: elementwise sums vectorise over nodes and edges. More of them, whose program takes
    long to compile, go to a QR decomposition, which completes dependent columns to an orthonormal basis.

    Args:
      matrix: [..., a, r], a tall matrix or a batch of them. 16-bit entries are computed with in 32 bits.

    Returns:
      P [..., a, r], in the dtype of `matrix`.

    Example:
      >>> orthogonalize = adozoo._orthogonal.orthogonalize
      >>> p = orthogonalize(
      ...     jnp.array([[3.0, 1.0, 0.0], [4.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
      ... )
      >>> (p.T @ p).round(6)
      Array([[1., 0., 0.],
             [0., 1., 0.],
             [0., 0., 0.]], dtype=float64)

    References:
      Vogels, Karimireddy and Jaggi, PowerSGD, NeurIPS 2019 (algorithm 1).
    """
    if matrix.shape[-1] > UNROLLED:
        wide = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
        return jnp.linalg.qr(wide)[0].astype(matrix.dtype)
    wide = jnp.moveaxis(matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32)), -1, 0)
    units: list[Array] = []  # v_i / |v_i|
    columns: list[Array] = []  # p_i
    for column in wide:
        column = _without(columns, column)
        if units:
            rest = _without(units, column)
            remainder, length, left = _norm(column - rest), _norm(column), _norm(rest)
            rest = jnp.where(left > SMALLEST_REST * length, rest, 0)
            column = jnp.where(remainder > LARGEST_REMAINDER * length, rest, column)
        norm = _norm(column)
        units.append(column / jnp.where(norm > 0, norm, 1))
        columns.append(column / (norm + SMALLEST_NORM))
    return jnp.stack(columns, axis=-1).astype(matrix.dtype)


def directions(factor: Float[Array, "*batch a r"]) -> Float[Array, "*batch a r"]:
    """`orthogonalize` at any scale: what it takes for zero is then rounding beside the largest entry of each matrix.

    Example:
      >>> adozoo._orthogonal.directions(jnp.array([[3e-20], [4e-20]])).round(6)
      Array([[0.6],
             [0.8]], dtype=float64)
    """
    largest = jnp.max(jnp.abs(factor), axis=(-2, -1), keepdims=True)
    return orthogonalize(factor / jnp.where(largest > 0, largest, 1) / SMALLEST_NORM)


def alive(factor: Float[Array, "*batch a r"], before: Float[Array, "*batch a r"]) -> Float[Array, "*batch a r"]:
    """The factor to start from next; a column of zeros would stay so for ever, and gives way to the one before."""
    return jnp.where(jnp.any(factor != 0, axis=-2, keepdims=True), factor, before)


def matrix_shape(like: Any, axis: int = 0) -> tuple[int, int]:
    """The rows and columns of `as_matrix(like, axis)`, by the shape of `like` alone."""
    rows = like.shape[axis]
    return rows, math.prod(like.shape) // rows if rows else 0


def as_matrix(tensor: Array, axis: int = 0) -> Float[Array, "a b"]:
    """A tensor of two or more dimensions as a matrix: `axis` counts its rows, all other axes its columns.

    Example:
      >>> adozoo._orthogonal.as_matrix(jnp.zeros((3, 3, 8, 16)), axis=-1).shape
      (16, 72)
    """
    return jnp.moveaxis(tensor, axis, 0).reshape(matrix_shape(tensor, axis))


def as_tensor(matrix: Float[Array, "a b"], like: Any, axis: int = 0) -> Array:
    """The tensor of the shape and dtype of `like` that `as_matrix` turns into this matrix."""
    moved = (like.shape[axis], *(size for place, size in enumerate(like.shape) if place != axis % len(like.shape)))
    return jnp.moveaxis(matrix.reshape(moved), 0, axis).astype(like.dtype)


def product(spec: str, x: Array, y: Array) -> Array:
    """`jnp.einsum` at full precision, summed in at least 32 bits, in the dtype of x."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.einsum(spec, x.astype(dtype), y.astype(dtype), precision=jax.lax.Precision.HIGHEST).astype(x.dtype)


def either(first: Any, left: Callable[[], Any], right: Callable[[], Any]) -> Any:
    """left() if `first` else right(), two arrays [rows, m, r]; padded to one m where `first` is traced."""
    if isinstance(first, bool):
        return left() if first else right()
    shapes = jax.tree.leaves((jax.eval_shape(left), jax.eval_shape(right)))
    length = max(shape.shape[1] for shape in shapes)

    def padded(way: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0))), way())

    return jax.lax.cond(first, padded(left), padded(right))


def pick(first: Any, x: Any, y: Any) -> Any:
    """x if `first` else y, where `first` may be traced."""
    return (x if first else y) if isinstance(first, bool) else jnp.where(first, x, y)


def rank_one_bits(params: Any, share: float) -> float:
    """The bits of one node's params if of each matrix [a, b] share (a + b) numbers go, and of all else everything."""
    leaves = jax.tree.leaves(params)
    numbers = [share * sum(matrix_shape(leaf)) if len(leaf.shape) >= 2 else math.prod(leaf.shape) for leaf in leaves]
    return sum(8.0 * leaf.dtype.itemsize * count for leaf, count in zip(leaves, numbers, strict=True))


def _norm(x: Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True))


def _without(directions: list[Array], column: Array) -> Array:
    """The column minus its parts along each of the directions, one after the other."""
    for direction in directions:
        column = column - jnp.sum(direction * column, axis=-1, keepdims=True) * direction
    return column
