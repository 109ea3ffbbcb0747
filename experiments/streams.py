r"""Which samples each node takes at a step: pure functions of (key, step), so that any step can be asked for at once.

There is no iterator and no state: a run that is resumed at step t asks for step t, and lanes of a sweep are a `vmap`.
Node i holds m_i samples and takes them in the order of one permutation an epoch, drawn anew for each node and epoch. It
is evaluated only where it is needed, by the swap-or-not shuffle, which works for every m and keeps no table.

References:
  Hoang, Morris and Rogaway, An enciphering scheme based on a card shuffle, CRYPTO 2012.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt32

from adozoo.schedules import check_key

ROUNDS = 24
"""Rounds of the shuffle. A sample stays where it is with probability 1/2 a round, so that the law of one position is
uniform to 2^-24; the law of the orders of m = 2, 3, 4 or 5 samples is within 1e-5 of uniform in total variation."""

_GOLDEN = np.uint32(0x9E3779B9)  # 2^32 / golden ratio: its multiples are spread evenly
_OTHER = np.uint32(0x85EBCA6B)
_LARGEST = 2**24


def shuffled(key: Any, step: Any, sizes: Any, batch: int) -> Int[Array, "n batch"]:
    r"""The samples of step t without replacement: epoch after epoch, each a random order of the node's whole share.

    Sample b of step t is number q = t batch + b of node i's stream, so it is $\pi_{i,e}(q - e m_i)$ in epoch
    $e = \lfloor q / m_i \rfloor$: every epoch holds each sample once, and a batch may end one and begin the next. Round
    r of the shuffle $\pi$ pairs position x with $(K_r - x) \bmod m$ and exchanges the two on a pair's random bit.

    Args:
      key: a typed JAX key: the same key gives the same stream.
      step: t, an integer or traced, or one for each node, [n]; t batch must stay below 2^32.
      sizes: m_i, [n] integers in 1..2^24, or traced.
      batch: samples a node and step.

    Returns:
      [n, batch] positions, those of node i in 0..m_i - 1.

    Raises:
      ValueError: for an untyped key, sizes or a batch that are no positive integers, or a step that is out of range.

    Example:
      >>> stream = [shuffled(jax.random.key(0), t, np.array([4, 6]), 2) for t in range(6)]
      >>> first, second = np.concatenate(stream, axis=1)
      >>> sorted(first[:4].tolist()), sorted(second[6:].tolist())
      ([0, 1, 2, 3], [0, 1, 2, 3, 4, 5])
    """
    sizes = _check("shuffled", key, sizes, batch)
    if isinstance(step, int | np.integer) and not 0 <= step < 2**32 // batch:
        raise ValueError(f"shuffled: step must lie in 0..{2**32 // batch - 1} for batch {batch}, got {step}.")
    return _shuffled(key, jnp.asarray(step).astype(jnp.uint32), sizes, batch)


def replaced(key: Any, step: Any, sizes: Any, batch: int) -> Int[Array, "n batch"]:
    """The samples of a step with replacement: uniform and independent over steps, nodes and the batch.

    Args:
      key: a typed JAX key; step t uses fold_in(key, t).
      step: t, an integer or traced.
      sizes: samples of each node, [n] positive integers, or traced.
      batch: samples a node and step.

    Returns:
      [n, batch] positions, those of node i in 0..sizes_i - 1.

    Raises:
      ValueError: for an untyped key, or sizes or a batch that are no positive integers.

    Example:
      >>> replaced(jax.random.key(0), 3, np.array([1, 5]), 4)[0].tolist()
      [0, 0, 0, 0]
    """
    sizes = _check("replaced", key, sizes, batch).astype(jnp.int32)
    return _replaced(key, step, sizes, batch)


def table(parts: list[np.ndarray]) -> Int[np.ndarray, "n m"]:
    """The shares of a partition as one array, to look up which sample of the data set a node's position is.

    Args:
      parts: n index arrays, none empty.

    Returns:
      [n, m], m the size of the largest share; shorter rows go on from their beginning.

    Raises:
      ValueError: no parts, or an empty one.

    Example:
      >>> table([np.array([0, 3, 4]), np.array([1, 2])])
      array([[0, 3, 4],
             [1, 2, 1]], dtype=int32)
    """
    sizes = [len(part) for part in parts]
    if not sizes or min(sizes) == 0:
        raise ValueError(f"table: every node needs a sample, got shares of sizes {sizes}. Use fewer nodes.")
    return np.stack([np.resize(part, max(sizes)) for part in parts]).astype(np.int32)


def _check(name: str, key: Any, sizes: Any, batch: int) -> UInt32[Array, "n 1"]:
    check_key(name, key)
    if isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1:
        raise ValueError(f"{name}: batch must be a positive integer, got {batch!r}. Pass samples a node and step.")
    if not isinstance(sizes, jax.core.Tracer):
        known = np.asarray(sizes)
        if known.ndim != 1 or not np.issubdtype(known.dtype, np.integer) or not known.size:
            raise ValueError(f"{name}: sizes must be integers [n], got {known.dtype} of shape {known.shape}.")
        if known.min() < 1 or known.max() > _LARGEST:
            raise ValueError(f"{name}: sizes must lie in 1..{_LARGEST}, got {known.min()} to {known.max()}.")
    return jnp.asarray(sizes).astype(jnp.uint32)[:, None]


# Compiled as a whole, also where they are called outside of a compiled step.


@partial(jax.jit, static_argnames="batch")
def _shuffled(key: Any, step: Any, sizes: Any, batch: int) -> Int[Array, "n batch"]:
    count = jnp.broadcast_to(step, len(sizes))[:, None]
    number = count * np.uint32(batch) + jnp.arange(batch, dtype=jnp.uint32)[None]
    epoch = number // sizes
    # One word of 64 bits, in two halves, tells nodes and epochs apart: the halves alone would meet by chance.
    salt = jax.random.bits(key, (2,), jnp.uint32)
    node = jnp.arange(len(sizes), dtype=jnp.uint32)[:, None]
    turns = _mix(_mix(salt[0] + node * _GOLDEN) + epoch * _GOLDEN)
    coins = _mix(_mix(salt[1] ^ node * _GOLDEN) ^ epoch * _OTHER)
    return _swap_or_not(number % sizes, sizes, turns, coins).astype(jnp.int32)


@partial(jax.jit, static_argnames="batch")
def _replaced(key: Any, step: Any, sizes: Any, batch: int) -> Int[Array, "n batch"]:
    return jax.random.randint(jax.random.fold_in(key, step), (len(sizes), batch), 0, sizes, dtype=jnp.int32)


def _mix(word: Any) -> Any:
    """A one-to-one hash of 32 bits, of the multiply and xor-shift kind: all bits of the result depend on all of it."""
    word = (word ^ (word >> np.uint32(16))) * np.uint32(0x21F0AAAD)
    word = (word ^ (word >> np.uint32(15))) * np.uint32(0x735A2D97)
    return word ^ (word >> np.uint32(15))


def _swap_or_not(position: Any, size: Any, turns: Any, coins: Any) -> Any:
    scale = size.astype(jnp.float32) * np.float32(2**-24)

    def turn(number: Any, position: Any) -> Any:
        number = number.astype(jnp.uint32)
        word = _mix(turns + number * _GOLDEN)
        # 24 random bits times size, in floating point: no division, and no product that overflows.
        centre = jnp.minimum(((word >> np.uint32(8)).astype(jnp.float32) * scale).astype(jnp.uint32), size - 1)
        partner = jnp.where(centre >= position, centre - position, centre + size - position)
        coin = _mix(jnp.maximum(position, partner) ^ (coins + number * _OTHER)) >> np.uint32(31)
        return jnp.where(coin == 1, partner, position)

    # A loop and not its unrolled form: compiled in a tenth of the time, and no slower, since a round is one fused pass.
    return jax.lax.fori_loop(0, ROUNDS, turn, position)
