r"""ATOMO: a few atoms of a decomposition, drawn so that the result is unbiased and varies least.

A tensor is a sum of orthogonal atoms, v = \sum_i \sigma_i A_i: singular vectors, or single entries. Atom i is sent with
probability p_i and divided by it. The p_i \propto \sigma_i, cut at 1, that add up to s minimise the second moment.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from adozoo._checks import check_choice
from adozoo.compression._compressor import Compressor, check_count, leafwise, or_whole, scalar_bits, wide


def atomo(atoms: int, basis: str = "spectral", exact_count: bool = False) -> Compressor:
    r"""s random atoms of each tensor, with the probabilities of smallest variance.

    Definition: C(v) = \sum_i (b_i / p_i) \sigma_i A_i, where b_i is 1 with probability p_i = min(1, c \sigma_i), else
    0, and c is such that \sum_i p_i = s. Unbiased, and since atoms are orthogonal, whether the b_i depend on each other
    or not, E|C(v) - v|^2 = \sum_i \sigma_i^2 (1/p_i - 1). That is at most (m/s - 1) |v|^2 for m atoms, and just that
    for \sigma_1 = ... = \sigma_m.

    The b_i are independent, or exactly s of them are 1, by systematic sampling: those of the atoms that s points at
    distance one, with a random start, hit on a line along which each takes the length p_i, up to one rounding of s.
    ATOMO's published code draws independently until there are s. That changes the probabilities, and hence is biased.
    It also takes p_i = min(1, s \sigma_i / \sum_j \sigma_j), which may add up to less than s.

    Matrices of the spectral basis: a vector of even length d is [d/2, 2]; [a, b] and [a, b, 1, ...] are [a, b]; [a, b,
    ...] of c more entries is [a b / 2, 2 c] if a b is even, else [a b, c]. A vector of odd length goes whole.

    Sent: s (a + b + 1) numbers, or s values and indices of 32 bits. With independent b_i this is the expected number;
    the payload then has room for all atoms.

    Args:
      atoms: s; all atoms, where there are no more.
      basis: "spectral" (singular vectors) or "entries".
      exact_count: send exactly s atoms.

    Returns:
      The compressor of pytrees.

    Raises:
      ValueError: for a number of atoms that is not a positive integer, or another basis.

    Example:
      >>> few = adozoo.compression.atomo(2)
      >>> few.bits(jnp.zeros((8, 4), jnp.float32)), few.loss(jnp.zeros((8, 4)))
      (832.0, 1.0)
      >>> few.second_moment(jnp.diag(jnp.array([5.0, 2.0, 1.0, 0.5])))
      Array(7., dtype=float64)

    References:
      Wang et al., ATOMO, NeurIPS 2018.
    """
    check_count("atomo", "atoms", atoms)
    check_choice("atomo", "basis", basis, ("spectral", "entries"))
    spectral = basis == "spectral"

    def counts(like: Any) -> tuple[int, int]:
        """All atoms, and how many of them are sent."""
        every = min(_matrix_shape(like)) if spectral else like.size
        return every, min(atoms, every)

    def decomposed(x: Array) -> tuple[Float[Array, " m"], tuple[Array, ...]]:
        """Sizes in decreasing order, and the columns of singular vectors, or signed entries' places."""
        if spectral:
            u, sizes, v = jnp.linalg.svd(wide(x).reshape(_matrix_shape(x)), full_matrices=False)
            return sizes, (u, v.T)
        entries = jnp.abs(wide(x)).ravel()
        sizes, places = jax.lax.top_k(entries, entries.size)
        return sizes, (places.astype(jnp.int32), jnp.sign(jnp.ravel(x))[places])

    def compress(x: Array, key: Array) -> tuple[PyTree, Array]:
        key, own = jax.random.split(key)
        sizes, parts = decomposed(x)
        _, s = counts(x)
        probabilities = inclusion_probabilities(sizes, s)
        values = sizes / jnp.where(probabilities > 0, probabilities, 1)
        if exact_count:
            drawn = _systematic(own, probabilities, s)
            values, parts = values[drawn], tuple(part[..., drawn] for part in parts)
        else:
            values = jnp.where(_independent(own, probabilities), values, 0)
        if not spectral:
            places, signs = parts
            return ((values * signs).astype(x.dtype), places), key
        return tuple(part.astype(x.dtype) for part in (values, *parts)), key

    def decompress(payload: PyTree, like: Any) -> Array:
        values, *parts = payload
        if not spectral:
            return jnp.zeros(like.size, like.dtype).at[parts[0]].set(values).reshape(like.shape)
        u, v = map(wide, parts)
        return ((u * wide(values)[None]) @ v.T).reshape(like.shape).astype(like.dtype)

    def bits(like: Any) -> float:
        _, s = counts(like)
        scalar = scalar_bits(like)
        return float(s * (scalar * (sum(_matrix_shape(like)) + 1) if spectral else scalar + 32))

    def loss(like: Any) -> float:
        every, s = counts(like)
        return every / s - 1

    def second_moment(x: Array) -> Array:
        sizes, _ = decomposed(x)
        probabilities = inclusion_probabilities(sizes, counts(x)[1])
        return jnp.sum(sizes**2 * (1 / jnp.where(probabilities > 0, probabilities, 1) - 1))

    def whole(like: Any) -> bool:
        return like.size == 0 or (spectral and len(like.shape) < 2 and like.size % 2 == 1)

    return leafwise(
        or_whole(
            Compressor(
                init=lambda x, key: key,
                compress=compress,
                decompress=decompress,
                bits=bits,
                loss=loss,
                unbiased=True,
                second_moment=second_moment,
            ),
            whole,
        )
    )


def inclusion_probabilities(sizes: Float[Array, " m"], total: int) -> Float[Array, " m"]:
    r"""p_i = min(1, c \sigma_i) with \sum_i p_i = `total`, for sizes in decreasing order: water-filling.

    With the k largest ones at 1, c = (s - k) / \sum_{i > k} \sigma_i, and k is the least for which c \sigma_{k+1} <= 1.
    Where fewer than s sizes are positive, zeros share what is left.

    Example:
      >>> adozoo.compression.inclusion_probabilities(jnp.array([5.0, 2.0, 1.0, 0.5]), 2)
      Array([1.   , 0.571, 0.286, 0.143], dtype=float64)
    """
    m = sizes.shape[0]
    if total >= m:
        return jnp.ones_like(sizes)
    tails = jnp.cumsum(sizes[::-1])[::-1]  # the sum from each size on
    cut = jnp.arange(total + 1)
    k = jnp.argmax((total - cut) * sizes[: total + 1] <= tails[: total + 1])
    tail = tails[k]
    shares = jnp.where(tail > 0, sizes / jnp.where(tail > 0, tail, 1), 1 / (m - k))
    return jnp.where(jnp.arange(m) < k, 1, jnp.minimum(1, (total - k) * shares))


def _independent(key: Array, probabilities: Float[Array, " m"]) -> Bool[Array, " m"]:
    return jax.random.uniform(key, probabilities.shape, probabilities.dtype) < probabilities


def _systematic(key: Array, probabilities: Float[Array, " m"], total: int) -> Int[Array, " s"]:
    """`total` different indices, of which i is one with probability p_i."""
    start = jax.random.uniform(key, (), probabilities.dtype)
    ends = jnp.cumsum(probabilities).at[-1].set(total)
    hit = jnp.searchsorted(ends, start + jnp.arange(total, dtype=ends.dtype), side="right")
    return jnp.minimum(hit, probabilities.shape[0] - 1)


def _matrix_shape(like: Any) -> tuple[int, int]:
    """The matrix of ATOMO's published code; a vector is one of pairs, which may be all of its atoms."""
    if len(like.shape) < 2:
        return max(like.size // 2, 1), min(like.size, 2)
    a, b = like.shape[:2]
    more = like.size // (a * b)
    if more == 1:
        return a, b
    return (a * b // 2, 2 * more) if a * b % 2 == 0 else (a * b, more)
