r"""Signs: one bit a scalar, with or without a scale for each tensor. Zero counts as positive: a bit has two values."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree, UInt8

from adozoo.compression._compressor import Compressor, scalar_bits, wide
from adozoo.compression._packing import pack, total_size, unpack

WORD = 32
"""The signs of the whole pytree are packed into words of so many bits, the last of which may be partly empty."""


def scaled_sign() -> Compressor:
    r"""The signs, times the mean absolute value of each tensor.

    Definition: C(v) = (|v|_1 / d) sign(v) for a tensor of d scalars, with sign(0) = 1. It loses |v|^2 - |v|_1^2 / d,
    which is at most 1 - 1/d of |v|^2, and just that for a single non-zero entry.

    Sent: the signs of all tensors as one vector of D bits, in words of 32 bits, and one number for each tensor.

    Returns:
      The compressor of pytrees.

    Example:
      >>> signs = adozoo.compression.scaled_sign()
      >>> payload, _ = signs.compress(jnp.array([1.0, -3.0, 2.0, 0.0]), ())
      >>> signs.decompress(payload, jnp.zeros(4)), signs.bits(jnp.zeros(4, jnp.float32))
      (Array([ 1.5, -1.5, 1.5, 1.5], dtype=float64), 64.0)

    References:
      Karimireddy, Rebjock, Stich and Jaggi, Error feedback fixes SignSGD, ICML 2019.
    """

    def compress(tree: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        scales = [jnp.sum(jnp.abs(wide(x))) / max(x.size, 1) for x in jax.tree.leaves(tree)]
        sent = tuple(scale.astype(x.dtype) for scale, x in zip(scales, jax.tree.leaves(tree), strict=True))
        return (_packed_signs(tree), sent), state

    def decompress(payload: PyTree, like: PyTree) -> PyTree:
        words, scales = payload
        signs = _signs(words, like)
        return jax.tree.map(lambda s, x: s * x, signs, jax.tree.unflatten(jax.tree.structure(like), scales))

    return Compressor(
        init=lambda tree, key: (),
        compress=compress,
        decompress=decompress,
        bits=lambda like: _sign_bits(like) + sum(map(scalar_bits, jax.tree.leaves(like))),
        loss=lambda like: max((1 - 1 / leaf.size for leaf in jax.tree.leaves(like) if leaf.size), default=0.0),
    )


def sign() -> Compressor:
    r"""The signs alone, for votes.

    Definition: C(v) = sign(v), with sign(0) = 1. There is no bound on what it loses. A vote among an even number of
    nodes can end in a tie: it is for the one who counts the votes to say what that means.

    Sent: the signs of all tensors as one vector of D bits, in words of 32 bits.

    Returns:
      The compressor of pytrees.

    Example:
      >>> signs = adozoo.compression.sign()
      >>> signs.decompress(
      ...     signs.compress(jnp.array([1.0, -3.0, 0.0]), ())[0], jnp.zeros(3)
      ... )
      Array([ 1., -1.,  1.], dtype=float64)

    References:
      Bernstein, Zhao, Azizzadenesheli and Anandkumar, signSGD with majority vote, ICLR 2019.
    """
    return Compressor(
        init=lambda tree, key: (),
        compress=lambda tree, state: (_packed_signs(tree), state),
        decompress=_signs,
        bits=_sign_bits,
    )


def _packed_signs(tree: PyTree) -> UInt8[Array, " bytes"]:
    positive = pack(jax.tree.map(lambda x: x >= 0, tree))
    return jnp.packbits(jnp.pad(positive, (0, -positive.size % WORD)))


def _signs(words: UInt8[Array, " bytes"], like: PyTree) -> PyTree:
    positive = unpack(jnp.unpackbits(words), like)
    return jax.tree.map(lambda bit: 2 * bit - 1, positive)


def _sign_bits(like: PyTree) -> float:
    return float(WORD * -(-total_size(like) // WORD))
