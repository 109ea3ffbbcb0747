r"""Random quantisation: every scalar is rounded up or down at random, so that it is right on average."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from adozoo._checks import check_choice
from adozoo.compression._compressor import Compressor, check_count, leafwise, or_whole, scalar_bits, wide


def qsgd(levels: int = 1, norm: str = "l2") -> Compressor:
    r"""Random rounding to s levels between zero and the norm of each tensor.

    Definition: C(v)_j = |v| sign(v_j) (l_j + B_j) / s, where x_j = s |v_j| / |v| = l_j + f_j with an integer l_j and
    f_j in [0, 1), and B_j is 1 with probability f_j, else 0. Unbiased, and
    E|C(v) - v|^2 = (|v| / s)^2 \sum_j f_j (1 - f_j).

    The largest loss over v of d entries: in the maximum norm, exactly (\sqrt{1 + (d - 1)/s^2} - 1) / 2. In the
    Euclidean norm exactly \sqrt{d}/s - 1 if d >= 4 s^2, where all |v_j| are equal; else at most d / (4 s^2), since
    f (1 - f) <= 1/4, with equality where all x_j can lie half-way between levels.

    Sent: the norm, in at least 32 bits, and for each scalar a sign and a level from {0, ..., s}, without entropy code.

    Args:
      levels: s.
      norm: "l2" or "max".

    Returns:
      The compressor of pytrees.

    Raises:
      ValueError: for levels that are not a positive integer, or another norm.

    Example:
      >>> q = adozoo.compression.qsgd(levels=3)
      >>> q.bits(jnp.zeros(10, jnp.float32)), q.loss(jnp.zeros(144))
      (62.0, 3.0)

    References:
      Alistarh, Grubic, Li, Tomioka and Vojnovic, QSGD, NeurIPS 2017.
    """
    check_count("qsgd", "levels", levels)
    check_choice("qsgd", "norm", norm, ("l2", "max"))
    dtype = next((d for d in (jnp.int8, jnp.int16) if levels <= jnp.iinfo(d).max), jnp.int32)

    def measured(x: Array) -> tuple[Array, Array]:
        """The norm, and where on the scale from 0 to s each scalar lies."""
        size = jnp.abs(wide(x))
        largest = jnp.max(size)
        unit = jnp.where(largest > 0, largest, 1)
        length = unit * jnp.sqrt(jnp.sum((size / unit) ** 2)) if norm == "l2" else largest
        return length, jnp.minimum(levels * (size / jnp.where(length > 0, length, 1)), levels)

    def compress(x: Array, key: Array) -> tuple[PyTree, Array]:
        key, own = jax.random.split(key)
        length, place = measured(x)
        up = jax.random.uniform(own, x.shape, place.dtype) < place - jnp.floor(place)
        level = jnp.floor(place).astype(dtype) + up.astype(dtype)
        return (length, jnp.where(x < 0, -level, level)), key

    def decompress(payload: PyTree, like: Any) -> Array:
        length, level = payload
        return (length * (level.astype(length.dtype) / levels)).astype(like.dtype)

    def loss(like: Any) -> float:
        d, squared = like.size, levels**2
        if norm == "max":
            return ((1 + (d - 1) / squared) ** 0.5 - 1) / 2
        return d**0.5 / levels - 1 if d >= 4 * squared else d / (4 * squared)

    def second_moment(x: Array) -> Array:
        length, place = measured(x)
        fraction = place - jnp.floor(place)
        return (length / levels) ** 2 * jnp.sum(fraction * (1 - fraction))

    return leafwise(
        or_whole(
            Compressor(
                init=lambda x, key: key,
                compress=compress,
                decompress=decompress,
                bits=lambda like: float(max(32, scalar_bits(like)) + like.size * (1 + levels.bit_length())),
                loss=loss,
                unbiased=True,
                second_moment=second_moment,
            ),
            whole=lambda like: like.size == 0,
        )
    )
