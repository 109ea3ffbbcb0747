r"""Low-rank approximations of tensors as matrices, M \in R^{a x b}: rows are one axis of the tensor, columns the rest.

Tensors of fewer than two dimensions go whole. The rank of each matrix is r = min(rank, a, b). All arithmetic is in at
least 32 bits, and what is sent is in the tensor's dtype.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from adozoo._orthogonal import alive, as_matrix, as_tensor, directions, matrix_shape
from adozoo.compression._compressor import Compressor, check_count, leafwise, or_whole, scalar_bits, wide


def low_rank(rank: int = 1, warm_start: bool = True, iterations: int = 1, axis: int = 0) -> Compressor:
    r"""Rank r by power iteration, from where the last message ended, or from a fresh Gaussian matrix.

    Definition: repeat P = orth(M Q), Q = M' P, then C(M) = P Q' = P P' M: a projection of M onto r directions. With a
    warm start, Q is the Q of the last message; where that is zero, the one before.

    The loss from a fresh Q is exactly 1 - r / min(a, b) in expectation, for any number of iterations, at a flat
    spectrum (singular directions are caught with probabilities that add up to r, larger ones with larger
    probabilities). From a warm start all may be lost, since M may be orthogonal to where Q looks.

    Sent: P [a, r] and Q [b, r].

    Args:
      rank: r.
      warm_start: keep Q between messages.
      iterations: power iterations a message.
      axis: the axis of a tensor that counts the rows: 0, or -1, which is the outputs of a flax kernel.

    Returns:
      The compressor of pytrees.

    Raises:
      ValueError: for a rank or iterations that are not positive integers, or another axis.

    Example:
      >>> low = adozoo.compression.low_rank(rank=1)
      >>> m = jnp.outer(jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0, 3.0]))
      >>> payload, _ = low.compress(m, low.init(m, jax.random.key(0)))
      >>> bool(jnp.allclose(low.decompress(payload, m), m)), low.bits(m)
      (True, 320.0)

    References:
      Vogels, Karimireddy and Jaggi, PowerSGD, NeurIPS 2019.
    """
    check_count("low_rank", "iterations", iterations)
    view = _View.checked("low_rank", rank, axis)

    def compress(x: Array, state: PyTree) -> tuple[PyTree, PyTree]:
        matrix, start = view.matrix(x), state
        if not warm_start:
            state, key = jax.random.split(state)
            start = view.gaussian(x, key, view.sizes(x)[1])
        p, q = start, start
        for _ in range(iterations):
            p = directions(matrix @ q)
            q = matrix.T @ p
        payload = (p.astype(x.dtype), q.astype(x.dtype))
        return payload, alive(q, start) if warm_start else state

    def loss(like: Any) -> float:
        return 1.0 if warm_start else view.best_loss(like)

    return view.leafwise(
        Compressor(
            init=lambda x, key: view.gaussian(x, key, view.sizes(x)[1]) if warm_start else key,
            compress=compress,
            decompress=view.product,
            bits=lambda like: view.bits(like, sum(view.sizes(like)[:2])),
            loss=loss,
        )
    )


def svd(rank: int = 1, folded: bool = True, axis: int = 0) -> Compressor:
    r"""The best approximation of rank r, by a singular value decomposition.

    Definition: C(M) = \sum_{i <= r} \sigma_i u_i v_i'. It loses \sum_{i > r} \sigma_i^2, at most 1 - r / min(a, b) of
    |M|^2, at a flat spectrum.

    Sent: \sigma_i u_i and v_i, r (a + b) numbers; or r (a + b + 1), if singular values are sent by themselves.

    Args:
      rank: r.
      folded: multiply singular values into the left vectors. PowerSGD's published code sends them by themselves.
      axis: as in `low_rank`.

    Returns:
      The compressor of pytrees.

    Raises:
      ValueError: for a rank that is not a positive integer, or another axis.

    Example:
      >>> best = adozoo.compression.svd(rank=1)
      >>> payload, _ = best.compress(jnp.diag(jnp.array([3.0, 1.0])), ((),))
      >>> best.decompress(payload, jnp.zeros((2, 2))).round(6)
      Array([[3., 0.],
             [0., 0.]], dtype=float64)
    """
    view = _View.checked("svd", rank, axis)

    def compress(x: Array, state: PyTree) -> tuple[PyTree, PyTree]:
        _, _, r = view.sizes(x)
        left, values, right = jnp.linalg.svd(view.matrix(x), full_matrices=False)
        u, v = left[:, :r], right[:r].T
        parts = (u * values[None, :r], v) if folded else (u, v, values[:r])
        return tuple(part.astype(x.dtype) for part in parts), state

    def decompress(payload: PyTree, like: Any) -> Array:
        u, v, *values = payload
        return view.product((wide(u) * wide(values[0])[None] if values else u, v), like)

    return view.leafwise(
        Compressor(
            init=lambda x, key: (),
            compress=compress,
            decompress=decompress,
            bits=lambda like: view.bits(like, sum(view.sizes(like)[:2]) + (not folded)),
            loss=view.best_loss,
        )
    )


def unbiased_low_rank(rank: int = 1, axis: int = 0) -> Compressor:
    r"""Rank r without bias: a random projection that all nodes share.

    Definition: C(M) = (M U) U' with independent entries of U [b, r] from N(0, 1/r), so that E[U U'] = I and
    E|C(M) - M|^2 = (b + 1)/r |M|^2, since E[(U U')^2] = (1 + (b + 1)/r) I.

    Sent: M U [a, r]; U is drawn from the shared key. A matrix of b <= r columns goes whole.

    Args:
      rank: r.
      axis: as in `low_rank`.

    Returns:
      The compressor of pytrees.

    Raises:
      ValueError: for a rank that is not a positive integer, or another axis.

    Example:
      >>> low = adozoo.compression.unbiased_low_rank(rank=2)
      >>> low.bits(jnp.zeros((5, 9), jnp.float32)), low.loss(jnp.zeros((5, 9)))
      (320.0, 5.0)
    """
    view = _View.checked("unbiased_low_rank", rank, axis)

    def directions(key: Array, like: Any) -> Array:
        _, columns, r = view.sizes(like)
        return view.gaussian(like, key, columns) * r**-0.5

    def compress(x: Array, key: Array) -> tuple[PyTree, Array]:
        key, drawn = jax.random.split(key)
        return ((view.matrix(x) @ directions(drawn, x)).astype(x.dtype), drawn), key

    def decompress(payload: PyTree, like: Any) -> Array:
        projected, drawn = payload
        return view.product((projected, directions(drawn, like)), like)

    def loss(like: Any) -> float:
        _, columns, r = view.sizes(like)
        return (columns + 1) / r

    return view.leafwise(
        or_whole(
            Compressor(
                init=lambda x, key: key,
                compress=compress,
                decompress=decompress,
                bits=lambda like: view.bits(like, view.sizes(like)[0]),
                loss=loss,
                unbiased=True,
                additive=True,
                shared=True,
                second_moment=lambda x: loss(x) * jnp.sum(wide(x) ** 2),
            ),
            whole=lambda like: view.sizes(like)[1] <= view.sizes(like)[2],
        )
    )


class HalfStep(NamedTuple):
    """P [a, r] and Q [b, r] of the last messages, and whether the next one looks along Q."""

    along_q: Bool[Array, ""]
    p: Float[Array, "a r"]
    q: Float[Array, "b r"]


def half_low_rank(rank: int = 1, axis: int = 0) -> Compressor:
    r"""Rank r by half a power iteration a message, which sends one factor; the receiver has the other one.

    Definition: in turns, D = orth(Q), P = M D, C(M) = P D', and D = orth(P), Q = M' D, C(M) = D Q'. The first Q is
    Gaussian, from a key that all nodes share. C is a projection; all may be lost, as from `low_rank`'s warm start.

    Sent: P or Q in turns, hence r (a + b) / 2 numbers on average, which is what `bits` counts. The payload holds D too,
    which the receiver computes from the messages before.

    Args:
      rank: r.
      axis: as in `low_rank`.

    Returns:
      The compressor of pytrees.

    Raises:
      ValueError: for a rank that is not a positive integer, or another axis.

    Example:
      >>> half = adozoo.compression.half_low_rank(rank=1)
      >>> m = jnp.outer(jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0, 3.0]))
      >>> _, state = half.compress(m, half.init(m, jax.random.key(0)))
      >>> payload, _ = half.compress(m, state)
      >>> bool(jnp.allclose(half.decompress(payload, m), m)), half.bits(m)
      (True, 160.0)
    """
    view = _View.checked("half_low_rank", rank, axis)

    def init(x: Any, key: Array) -> HalfStep:
        left, right = jax.random.split(key)
        rows, columns, _ = view.sizes(x)
        return HalfStep(jnp.array(True), view.gaussian(x, left, rows), view.gaussian(x, right, columns))

    def compress(x: Array, state: HalfStep) -> tuple[PyTree, HalfStep]:
        matrix = view.matrix(x)

        def along_q() -> tuple[PyTree, HalfStep]:
            known = directions(state.q)
            p = matrix @ known
            return (p, known), HalfStep(jnp.array(False), alive(p, state.p), state.q)

        def along_p() -> tuple[PyTree, HalfStep]:
            known = directions(state.p)
            q = matrix.T @ known
            return (known, q), HalfStep(jnp.array(True), state.p, alive(q, state.q))

        (p, q), state = jax.lax.cond(state.along_q, along_q, along_p)
        return (p.astype(x.dtype), q.astype(x.dtype)), state

    return view.leafwise(
        Compressor(
            init=init,
            compress=compress,
            decompress=view.product,
            bits=lambda like: view.bits(like, sum(view.sizes(like)[:2])) / 2,
            loss=lambda like: 1.0,
            shared=True,
        )
    )


class _View(NamedTuple):
    """Tensors as matrices of at most so many rows, columns and ranks."""

    rank: int
    axis: int

    @classmethod
    def checked(cls, factory: str, rank: int, axis: int) -> "_View":
        check_count(factory, "rank", rank)
        if axis not in (0, -1):
            raise ValueError(f"{factory}: axis must be 0 or -1 (the axis that counts the rows), got {axis!r}.")
        return cls(rank, axis)

    def sizes(self, like: Any) -> tuple[int, int, int]:
        """The rows, the columns and the rank."""
        rows, columns = matrix_shape(like, self.axis)
        return rows, columns, min(self.rank, rows, columns)

    def matrix(self, x: Array) -> Float[Array, "a b"]:
        return wide(as_matrix(x, self.axis))

    def product(self, payload: PyTree, like: Any) -> Array:
        """The tensor of P Q'."""
        p, q = payload
        return as_tensor(wide(p) @ wide(q).T, like, self.axis)

    def gaussian(self, like: Any, key: Array, length: int) -> Float[Array, "length r"]:
        dtype = jnp.promote_types(like.dtype, jnp.float32)
        return jax.random.normal(key, (length, self.sizes(like)[2]), dtype)

    def bits(self, like: Any, length: int) -> float:
        """The bits of r vectors of this length."""
        return float(scalar_bits(like) * self.sizes(like)[2] * length)

    def best_loss(self, like: Any) -> float:
        rows, columns, r = self.sizes(like)
        return 1 - r / min(rows, columns)

    def leafwise(self, tensor: Compressor) -> Compressor:
        """The compressor of pytrees; vectors, scalars and what is empty go whole."""
        return leafwise(or_whole(tensor, lambda like: len(like.shape) < 2 or like.size == 0))
