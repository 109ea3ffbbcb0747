r"""PowerSGD: all-reduced SGD with gradients of low rank, by warm-started power iteration (Vogels et al., NeurIPS 2019).

All nodes hold the same Q [b, r] for every matrix-shaped tensor [a, b] of the gradient. With error feedback e_i (zero at
first), \Delta_i = g_i + e_i:

    P = orth((1/n) \sum_i \Delta_i Q),    Q_i = \Delta_i' P,    Q = (1/n) \sum_i Q_i,    \hat\Delta = P Q',
    e_i <- \Delta_i - P Q_i',

one subspace iteration a step on the average of all \Delta_i, whatever n: n nodes do what one node would do with the
average gradient. P and Q go through two all-reduces, one after the other. Tensors with fewer than two dimensions are
averaged exactly, and have no error. Weight decay and momentum come after the compression: they are `inner`, with
`post_momentum` for the paper's x <- x - \eta (d + m), which is not Nesterov's.

The authors' experiments divide columns by their norms plus 1e-8, which stops progress where gradients are small, and
let a gradient of zeros turn Q to zeros for ever; here P is orthonormal at any scale, and a column of zeros gives way to
the one before. They subtract the average \hat\Delta from each node's \Delta_i instead of P Q_i'; the params are the
same, since only the average error matters, but single errors random-walk. Their `powersgd` package is another method
(`variant="package"`): P and Q take turns, each on its own residual, so that s rounds add up to rank s r.

References: Vogels, Karimireddy, Jaggi, PowerSGD: practical low-rank gradient compression, algorithms 1 and 2.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_choice, check_mean, check_number
from adozoo._message import Sized
from adozoo._optax import increment, transformation, zero_count
from adozoo._orthogonal import (
    alive,
    as_matrix,
    as_tensor,
    directions,
    either,
    matrix_shape,
    pick,
    product,
    rank_one_bits,
)
from adozoo.mixing import Mixing, exact_mean
from adozoo.nodes import node_count
from adozoo.parts import MomentumState, named, stepping
from adozoo.schedules import check_key
from adozoo.zoo import Entry, register

VARIANTS = ("paper", "package")


class Factors(NamedTuple):
    """One tensor's factors, the same on all nodes: p [n, a, r], empty in the paper's variant, and q [n, b, r]."""

    p: Any
    q: Array


class PowerSGDState(NamedTuple):
    """Factors and errors of the tensors that are compressed, in the order of params' leaves."""

    count: Int[Array, ""]
    factors: tuple[Factors, ...]
    errors: tuple[Array, ...]  # [n, a, b], or empty without error feedback


def power_sgd(
    inner: optax.GradientTransformation,
    rank: int = 2,
    key: Any = None,
    mean: Mixing | None = None,
    feedback: bool = True,
    warm_start: bool = True,
    variant: str = "paper",
    iterations: int = 1,
    minimum_compression: float | None = None,
    axis: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""All-reduce SGD whose gradients are compressed to low rank, with error feedback.

    Update: x_i <- x_i + u, with u what `inner` does with \hat\Delta, see above.

    Sent: for a matrix [a, b] an all-reduce of r a numbers, then one of r b; what is uncompressed goes with the first.
    In the package's variant r a and r b take turns.

    Assumptions: all nodes start at the same params.

    Args:
      inner: what becomes of the average gradient, over stacked params: `adozoo.descent(0.1)`, or
        `optax.chain(optax.add_decayed_weights(1e-4), adozoo.post_momentum(0.9), adozoo.descent(0.1))`.
      rank: r, the columns of P and Q; at most min(a, b) are used.
      key: a typed JAX key for the first Q (and all, without warm start); by default `jax.random.key(0)`.
      mean: the exact average, `adozoo.exact_mean(n)`, possibly placed on devices; by default over all nodes of params.
      feedback: whether errors are fed back.
      warm_start: whether Q is carried over, or drawn anew at each step (paper's variant only).
      variant: "paper" or "package".
      iterations: s, the rounds a step of the package's variant. With s r above min(a, b) late rounds look where
        nothing is left, and turn rounding into directions.
      minimum_compression: compress only tensors that this makes smaller by more than this factor; by default all with
        two dimensions or more in the paper's variant, and those above 2 in the package's.
      axis: which dimension of a tensor counts the rows of its matrix: 0, or -1 for the kernels of flax.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time if `mean` is not an exact average, for a rank or number of iterations that is no
        positive integer, an unknown variant, or options that the variant does not have.

    Example:
      >>> target = jax.random.normal(jax.random.key(1), (4, 6, 5))
      >>> tx = adozoo.power_sgd(adozoo.descent(0.2), rank=1)
      >>> x = jnp.zeros((4, 6, 5))
      >>> params, _, _ = adozoo.simulate(
      ...     tx, lambda x, step, key: x - target, x, steps=400
      ... )
      >>> bool(jnp.abs(params - target.mean(0, keepdims=True)).max() < 1e-6)
      True
    """
    check_choice("power_sgd", "variant", variant, VARIANTS)
    key = jax.random.key(0) if key is None else key
    check_key("power_sgd", key)
    for name, value in (("rank", rank), ("iterations", iterations)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"power_sgd: {name} must be a positive integer, got {value!r}.")
    if variant == "paper" and iterations != 1:
        raise ValueError(f"power_sgd: iterations={iterations} needs variant='package'; the paper's takes one a step.")
    if variant == "package" and not (warm_start and feedback):
        raise ValueError("power_sgd: variant='package' always has a warm start and error feedback. Leave them True.")
    if mean is not None:
        check_mean("power_sgd", mean, "adozoo.power_gossip")
    least = (2.0 if variant == "package" else 0.0) if minimum_compression is None else minimum_compression
    check_number("power_sgd", "minimum_compression", least, 0, closed=True)

    def compressed(leaf: Any) -> bool:
        """Whether a stacked leaf goes as two factors."""
        if leaf.ndim < 3:
            return False
        a, b = matrix_shape(jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), axis)
        share = 0.5 * iterations if variant == "package" else 1.0
        return a * b > least * share * min(rank, a, b) * (a + b)

    def draw(leaves: list[Any], count: Any) -> tuple[Factors, ...]:
        """Normal factors, the same for all nodes."""
        factors = []
        for place, leaf in enumerate(filter(compressed, leaves)):
            a, b = matrix_shape(jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), axis)
            r = min(rank, a, b)
            keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, count), place))
            p, q = (jax.random.normal(own, (m, r), leaf.dtype) for own, m in zip(keys, (a, b), strict=True))
            p, q = (jnp.broadcast_to(factor, (leaf.shape[0], *factor.shape)) for factor in (p, q))
            factors.append(Factors(p if variant == "package" else (), q))
        return tuple(factors)

    def init(params: PyTree) -> PowerSGDState:
        node_count(params)  # which raises where there is no node axis
        leaves = jax.tree.leaves(params)
        errors = tuple(jnp.zeros_like(m) for m in _matrices(filter(compressed, leaves), axis)) if feedback else ()
        return PowerSGDState(zero_count(), _tree.placed_like(draw(leaves, 0), params), errors)

    def update(
        grads: PyTree, state: PowerSGDState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, PowerSGDState]:
        del params, extra
        leaves, structure = jax.tree.flatten(grads)
        average = exact_mean(node_count(grads)) if mean is None else mean
        small = [leaf for leaf in leaves if not compressed(leaf)]
        deltas = _matrices(filter(compressed, leaves), axis)
        if feedback:
            deltas = _tree.add(deltas, list(state.errors))
        factors = state.factors if warm_start else draw(leaves, state.count)
        step = _package_step if variant == "package" else _paper_step
        small, averages, errors, factors = step(average, small, deltas, factors, state.count, iterations)
        exact, low_rank = iter(small), iter(averages)
        out = [
            jax.vmap(lambda m, leaf=leaf: as_tensor(m, leaf[0], axis))(next(low_rank))
            if compressed(leaf)
            else next(exact)
            for leaf in leaves
        ]
        kept = PowerSGDState(increment(state.count), factors, tuple(errors) if feedback else ())
        return jax.tree.unflatten(structure, out), kept

    aggregate = transformation(init, update)
    return named("power_sgd", optax.chain(aggregate, optax.with_extra_args_support(inner)))


def _paper_step(
    mean: Mixing, small: list[Array], deltas: list[Array], factors: tuple[Factors, ...], step: Any, iterations: int
) -> Any:
    """(exact averages, low-rank averages, errors, factors) of algorithm 1."""
    del iterations
    products = [product("nab,nbr->nar", delta, factor.q) for delta, factor in zip(deltas, factors, strict=True)]
    small, products = mean((small, products), step)
    left = [directions(one) for one in products]
    own = [product("nab,nar->nbr", delta, p) for delta, p in zip(deltas, left, strict=True)]
    right = mean(own, step, message=1)
    averages = [product("nar,nbr->nab", p, q) for p, q in zip(left, right, strict=True)]
    errors = [delta - product("nar,nbr->nab", p, q) for delta, p, q in zip(deltas, left, own, strict=True)]
    after = tuple(Factors((), alive(q, factor.q)) for q, factor in zip(right, factors, strict=True))
    return small, averages, errors, after


def _package_step(
    mean: Mixing, small: list[Array], deltas: list[Array], factors: tuple[Factors, ...], step: Any, iterations: int
) -> Any:
    """The same of the package: s half iterations in turns, each on what the ones before it have left over."""
    averages = [jnp.zeros_like(delta) for delta in deltas]
    for turn in range(iterations):
        even = turn % 2 == 0 if iterations % 2 == 0 else (step * iterations + turn) % 2 == 0
        asked = [_half(delta, factor, even) for delta, factor in zip(deltas, factors, strict=True)]
        bits = sum(_half_bits(delta, factor, even) for delta, factor in zip(deltas, factors, strict=True))
        message = Sized([answer for _, answer in asked], bits)
        if turn:
            heard = mean(message, step, message=turn).value
        else:
            small, heard = mean((small, message), step)
            heard = heard.value
        after = []
        for place, ((v, own), average) in enumerate(zip(asked, heard, strict=True)):
            a, b = deltas[place].shape[1:]

            found = [(pick(even, v, other)[:, :a], pick(even, other, v)[:, :b]) for other in (own, average)]
            deltas[place] = deltas[place] - product("nar,nbr->nab", *found[0])
            averages[place] = averages[place] + product("nar,nbr->nab", *found[1])
            p, q = found[1]
            after.append(Factors(alive(p, factors[place].p), alive(q, factors[place].q)))
        factors = tuple(after)
    return small, averages, deltas, factors


def _half(delta: Array, factor: Factors, even: Any) -> tuple[Array, Array]:
    """(v, M'v) with v = orth(P) in even rounds, (v, M v) with v = orth(Q) in odd ones; of one length if traced."""

    def left() -> tuple[Array, Array]:
        v = _orthonormal(factor.p)
        return v, product("nab,nar->nbr", delta, v)

    def right() -> tuple[Array, Array]:
        v = _orthonormal(factor.q)
        return v, product("nab,nbr->nar", delta, v)

    return either(even, left, right)


def _orthonormal(factor: Array) -> Array:
    """A full set of orthonormal columns, also where the factor has a lower rank, as residuals of late rounds have."""
    wide = factor.astype(jnp.promote_types(factor.dtype, jnp.float32))
    return jnp.linalg.qr(wide)[0].astype(factor.dtype)


def _half_bits(delta: Array, factor: Factors, even: Any) -> float:
    """Of what one tensor sends in a round; where its parity is traced, the average of two rounds."""
    a, b = delta.shape[1:]
    return (
        8.0 * delta.dtype.itemsize * factor.q.shape[2] * ((b if even else a) if isinstance(even, bool) else (a + b) / 2)
    )


def _matrices(leaves: Any, axis: int) -> list[Array]:
    """Stacked leaves as stacked matrices [n, a, b]."""
    return [jax.vmap(lambda x: as_matrix(x, axis))(leaf) for leaf in leaves]


def post_momentum(decay: Any) -> optax.GradientTransformationExtraArgs:
    r"""The momentum of PowerSGD's algorithm 2: m <- \lambda m + d, direction d + m (Nesterov's would be d + \lambda m).

    Args:
      decay: \lambda in [0, 1), a number or traced scalar.

    Example:
      >>> tx = adozoo.post_momentum(0.5)
      >>> d = jnp.ones((2, 1))
      >>> first, state = tx.update(d, tx.init(d))
      >>> tx.update(d, state)[0].ravel()
      Array([2.5, 2.5], dtype=float64)
    """
    check_number("post_momentum", "decay", decay, 0, 1, closed=True)

    def update(updates: PyTree, state: MomentumState, params: PyTree | None = None, **extra: Any) -> Any:
        del params, extra
        buffer = _tree.axpy(decay, state.momentum, updates)
        return _tree.add(updates, buffer), MomentumState(buffer)

    return transformation(lambda params: MomentumState(_tree.zeros_like(params)), update)


register(
    Entry(
        "power_sgd",
        stepping(power_sgd, "mean"),
        "averaging",
        "PowerSGD",
        "Vogels, Karimireddy, Jaggi, NeurIPS 2019",
        frozenset({"complete"}),
        {"rank": 1},
        linear=False,
        leafwise=True,
        rounds=2,
        bits=lambda params, n: rank_one_bits(params, 1.0),
        matrices=True,
        equal_start=True,
    )
)
