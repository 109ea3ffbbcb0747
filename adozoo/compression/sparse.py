r"""Sparsifiers: a few entries of a tensor, the largest ones or random ones.

With k of d entries, the largest ones lose at most (1 - k/d) |v|^2, and random ones lose exactly that in expectation.
Random ones times d/k are unbiased, and lose (d/k - 1) |v|^2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from adozoo._orthogonal import matrix_shape
from adozoo.compression._compressor import Compressor, check_count, leafwise, or_whole, scalar_bits, wide
from adozoo.compression._packing import pack, total_size, unpack


def top_k(
    fraction: float | None = None, count: int | None = None, rank: int | None = None, index_bits: int = 32
) -> Compressor:
    r"""The k entries of each tensor that are largest in absolute value, and where they are.

    Definition: C(v)_j = v_j for the k largest |v_j|, else 0; of equal ones, the first. The loss is at most 1 - k/d, and
    just that for |v_1| = ... = |v_d|.

    Sent: k values and k indices, for each tensor of which k is not all; that one goes whole.

    Args:
      fraction: k = max(1, int(fraction d)) for a tensor of d scalars; in (0, 1].
      count: k itself, instead of a fraction.
      rank: k = r (a + b), what a rank-r approximation of the [a, b] matrix of the tensor takes, instead of a fraction;
        vectors go whole. The first axis counts the rows.
      index_bits: the bits of an index, 32 or 64.

    Returns:
      The compressor of pytrees.

    Raises:
      ValueError: unless exactly one of fraction, count and rank is given, in its range.

    Example:
      >>> top = adozoo.compression.top_k(fraction=0.5)
      >>> payload, _ = top.compress(jnp.array([1.0, -3.0, 2.0, 0.0]), ((),))
      >>> top.decompress(payload, jnp.zeros(4)).tolist(), top.loss(jnp.zeros(4))
      ([0.0, -3.0, 2.0, 0.0], 0.5)

    References:
      Stich, Cordonnier and Jaggi, Sparsified SGD with memory, NeurIPS 2018.
    """
    kept = _kept("top_k", fraction, count, rank)
    _check_index_bits("top_k", index_bits)

    def compress(x: Array, state: PyTree) -> tuple[PyTree, PyTree]:
        vector = jnp.ravel(x)
        places = jax.lax.top_k(jnp.abs(wide(vector)), kept(x))[1]
        return (vector[places], places), state

    return leafwise(
        or_whole(
            Compressor(
                init=lambda x, key: (),
                compress=compress,
                decompress=lambda payload, like: _scattered(payload, like.size).reshape(like.shape),
                bits=lambda like: float(kept(like) * (scalar_bits(like) + index_bits)),
                loss=lambda like: 1 - kept(like) / like.size,
            ),
            whole=lambda like: kept(like) == like.size,
        )
    )


def global_top_k(fraction: float | None = None, count: int | None = None, index_bits: int = 32) -> Compressor:
    r"""The k entries of the whole pytree that are largest in absolute value, and where they are.

    Definition: as `top_k`, over all tensors in one vector, in the dtype to which they promote; the loss is at most
    1 - k/D, for D scalars in all.

    Args:
      fraction: k = max(1, int(fraction D)); in (0, 1].
      count: k itself, instead of a fraction.
      index_bits: the bits of an index, 32 or 64. PowerSGD's published code counts 64 here, and 32 in each tensor.

    Returns:
      The compressor of pytrees.

    Raises:
      ValueError: unless exactly one of fraction and count is given, in its range.

    Example:
      >>> top = adozoo.compression.global_top_k(count=2)
      >>> payload, _ = top.compress(
      ...     {"b": jnp.array(3.0), "w": jnp.array([1.0, -2.0])}, ()
      ... )
      >>> top.decompress(payload, {"b": jnp.zeros(()), "w": jnp.zeros(2)})
      {'b': Array(3., dtype=float64), 'w': Array([ 0., -2.], dtype=float64)}
    """
    kept = _kept("global_top_k", fraction, count, None)
    _check_index_bits("global_top_k", index_bits)

    def flat(like: PyTree) -> jax.ShapeDtypeStruct:
        return jax.eval_shape(pack, like)

    def compress(tree: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        vector = pack(tree)
        places = jax.lax.top_k(jnp.abs(wide(vector)), kept(vector))[1]
        return (vector[places], places), state

    return or_whole(
        Compressor(
            init=lambda tree, key: (),
            compress=compress,
            decompress=lambda payload, like: unpack(_scattered(payload, total_size(like)), like),
            bits=lambda like: float(kept(flat(like)) * (scalar_bits(flat(like)) + index_bits)),
            loss=lambda like: 1 - kept(flat(like)) / total_size(like),
        ),
        whole=lambda like: kept(flat(like)) == total_size(like),
    )


def random_k(
    fraction: float | None = None,
    count: int | None = None,
    rank: int | None = None,
    scaled: bool = False,
    shared: bool = True,
    index_bits: int = 32,
) -> Compressor:
    r"""k random entries of each tensor, without replacement.

    Definition: C(v)_j = s v_j for j in a random set of k of the d places, else 0, where s = 1, or s = d/k if `scaled`.
    E|C(v) - v|^2 = (1 - k/d) |v|^2, or (d/k - 1) |v|^2 if scaled, which is unbiased.

    Sent: k values, and k indices unless all nodes draw the same places.

    Args:
      fraction: as in `top_k`.
      count: as in `top_k`.
      rank: as in `top_k`.
      scaled: multiply by d/k. Not for error feedback, which wants a contraction.
      shared: all nodes draw the same places, from one key. Then indices are free and payloads add up.
      index_bits: the bits of an index, 32 or 64.

    Returns:
      The compressor of pytrees.

    Raises:
      ValueError: unless exactly one of fraction, count and rank is given, in its range.

    Example:
      >>> few = adozoo.compression.random_k(count=2, scaled=True)
      >>> few.bits(jnp.zeros(10, jnp.float32)), few.loss(jnp.zeros(10))
      (64.0, 4.0)
    """
    kept = _kept("random_k", fraction, count, rank)
    _check_index_bits("random_k", index_bits)

    def draw(key: Array, like: Any) -> Array:
        scores, turn = jax.random.split(key)
        places = jax.lax.top_k(jax.random.uniform(scores, (like.size,), jnp.float32), kept(like))[1]
        # Of equal scores the first win: counted from a random place on, all places are equally likely all the same.
        return (places + jax.random.randint(turn, (), 0, like.size, dtype=jnp.int32)) % like.size

    return _random_entries(kept, draw, lambda places, like: places, scaled, shared, 0 if shared else index_bits)


def random_block(
    fraction: float | None = None, count: int | None = None, rank: int | None = None, scaled: bool = False
) -> Compressor:
    r"""A block of k consecutive entries of each tensor, cyclic, from a random place on that all nodes share.

    Definition: C(v)_j = s v_j for j = i, ..., i + k - 1 modulo d and a random i, else 0; s = 1, or d/k if `scaled`.
    Second moments are those of `random_k`; reading and writing is faster.

    Sent: k values.

    Args:
      fraction: as in `top_k`.
      count: as in `top_k`.
      rank: as in `top_k`.
      scaled: multiply by d/k, which makes it unbiased.

    Returns:
      The compressor of pytrees.

    Raises:
      ValueError: unless exactly one of fraction, count and rank is given, in its range.

    Example:
      >>> block = adozoo.compression.random_block(rank=1)
      >>> (
      ...     block.bits(jnp.zeros((5, 4), jnp.float32)),
      ...     block.bits(jnp.zeros(5, jnp.float32)),
      ... )
      (288.0, 160.0)
    """
    kept = _kept("random_block", fraction, count, rank)

    def draw(key: Array, like: Any) -> Array:
        return jax.random.randint(key, (), 0, like.size, dtype=jnp.int32)

    def spread(start: Array, like: Any) -> Array:
        return (start + jnp.arange(kept(like), dtype=jnp.int32)) % like.size

    return _random_entries(kept, draw, spread, scaled, shared=True, index_bits=0)


def _random_entries(
    kept: Callable[[Any], int],
    draw: Callable[[Array, Any], Array],
    spread: Callable[[Array, Any], Array],
    scaled: bool,
    shared: bool,
    index_bits: int,
) -> Compressor:
    """Entries at places = spread(draw(key, like), like), each of which has probability k/d."""

    def compress(x: Array, key: Array) -> tuple[PyTree, Array]:
        key, own = jax.random.split(key)
        drawn = draw(own, x)
        values = jnp.ravel(x)[spread(drawn, x)]
        return (values * (x.size / kept(x)) if scaled else values, drawn), key

    def decompress(payload: PyTree, like: Any) -> Array:
        values, drawn = payload
        return _scattered((values, spread(drawn, like)), like.size).reshape(like.shape)

    def loss(like: Any) -> float:
        return like.size / kept(like) - 1 if scaled else 1 - kept(like) / like.size

    return leafwise(
        or_whole(
            Compressor(
                init=lambda x, key: key,
                compress=compress,
                decompress=decompress,
                bits=lambda like: float(kept(like) * (scalar_bits(like) + index_bits)),
                loss=loss,
                unbiased=scaled,
                additive=shared,
                shared=shared,
                second_moment=lambda x: loss(x) * jnp.sum(wide(x) ** 2),
            ),
            whole=lambda like: kept(like) == like.size,
        )
    )


def _scattered(payload: PyTree, size: int) -> Array:
    values, places = payload
    return jnp.zeros(size, values.dtype).at[places].set(values)


def _kept(factory: str, fraction: float | None, count: int | None, rank: int | None) -> Callable[[Any], int]:
    """How many entries of a tensor are kept, by its shape."""
    given = {"fraction": fraction, "count": count, "rank": rank}
    if sum(value is not None for value in given.values()) != 1:
        raise ValueError(
            f"{factory}: pass exactly one of fraction, count and rank (where it takes one), got "
            + ", ".join(f"{name}={value!r}" for name, value in given.items())
            + ". They are ways to say how many entries are kept."
        )
    if fraction is not None:
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction <= 1:
            raise ValueError(
                f"{factory}: fraction must be a Python number in (0, 1], got {fraction!r}. "
                "Pass the share of entries to keep, such as 0.01; it cannot be traced."
            )
        return lambda like: min(max(1, int(fraction * like.size)), like.size)
    if count is not None:
        check_count(factory, "count", count)
        return lambda like: min(count, like.size)
    r: Any = rank
    check_count(factory, "rank", r)
    return lambda like: like.size if len(like.shape) < 2 else min(r * sum(matrix_shape(like)), like.size)


def _check_index_bits(factory: str, index_bits: int) -> None:
    if index_bits not in (32, 64):
        raise ValueError(f"{factory}: index_bits must be 32 or 64, got {index_bits!r}. Indices are int32 or int64.")
