r"""The parts of which methods are composed: what a node does alone, and how nodes talk.

Each is an optax transformation over stacked pytrees, so that `optax.chain` composes them:

    optax.chain(adozoo.per_node(optax.adam(1e-3)), adozoo.adapt_then_combine(mix))

`descent` and `momentum` are optax's SGD in arithmetic that keeps every leaf's dtype when the step size is traced.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_choice, check_mixing, check_no_extra, check_number, require_params
from adozoo._optax import increment, transformation, zero_count
from adozoo.mixing import Mixing


class CountState(NamedTuple):
    """How many steps were taken; a communication object draws its time-varying weights by it."""

    count: Int[Array, ""]


class MomentumState(NamedTuple):
    """The momentum buffer m, stacked like params; never communicated."""

    momentum: PyTree


class TrackState(NamedTuple):
    """Tracking without the gradient's share, c = W s - g, stacked like params."""

    count: Int[Array, ""]
    tracker: PyTree


def momentum(decay: Any, nesterov: bool = False) -> optax.GradientTransformationExtraArgs:
    r"""Heavy-ball or Nesterov momentum, local to each node: m <- \beta m + g; direction m, or g + \beta m (Nesterov).

    Args:
      decay: \beta in [0, 1), a number or traced scalar.
      nesterov: whether to look ahead.

    Example:
      >>> tx = adozoo.momentum(0.5)
      >>> g = jnp.ones((2, 1))
      >>> _, state = tx.update(g, tx.init(g))
      >>> tx.update(g, state)[0].ravel()
      Array([1.5, 1.5], dtype=float64)
    """
    check_number("momentum", "decay", decay, 0, 1, closed=True)

    def init(params: PyTree) -> MomentumState:
        return MomentumState(_tree.zeros_like(params))

    def update(grads: PyTree, state: MomentumState, params: PyTree | None = None, **extra: Any) -> tuple[PyTree, Any]:
        del params, extra
        buffer = _tree.axpy(decay, state.momentum, grads)
        return (_tree.axpy(decay, buffer, grads) if nesterov else buffer), MomentumState(buffer)

    return transformation(init, update)


def descent(learning_rate: Any) -> optax.GradientTransformationExtraArgs:
    r"""u = -\eta g: the plain step, in each leaf's dtype. `learning_rate` is a number, a traced scalar or a schedule.

    Example:
      >>> tx = adozoo.descent(0.5)
      >>> g = jnp.ones((2, 1))
      >>> tx.update(g, tx.init(g))[0].ravel()
      Array([-0.5, -0.5], dtype=float64)
    """
    check_number("descent", "learning_rate", learning_rate)

    def init(params: PyTree) -> CountState:
        del params
        return CountState(zero_count())

    def update(
        grads: PyTree, state: CountState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, CountState]:
        del params, extra
        step_size = _tree.schedule_value(learning_rate, state.count)
        return _tree.scale(-jnp.asarray(step_size), grads), CountState(increment(state.count))

    return transformation(init, update)


def local_sgd_step(
    factory: str, learning_rate: Any, decay: Any = 0.0, nesterov: bool = False
) -> list[optax.GradientTransformationExtraArgs]:
    """What a node does alone in the named methods: [momentum,] descent. Without momentum no buffer is kept."""
    check_number(factory, "learning_rate", learning_rate)
    check_number(factory, "momentum", decay, 0, 1, closed=True)
    if isinstance(decay, int | float) and decay == 0:
        if nesterov:
            raise ValueError(f"{factory}: nesterov=True needs momentum in (0, 1), got momentum={decay!r}.")
        return [descent(learning_rate)]
    return [momentum(decay, nesterov), descent(learning_rate)]


def stepping(factory: Any, argument: str) -> Any:
    """The registry's form (learning_rate, mix, ...) of a factory whose first argument is what a node does alone.

    Args:
      factory: (inner, ..., argument, ...) -> transformation.
      argument: the name under which it takes the mixing.
    """

    @functools.wraps(factory)
    def build(learning_rate: Any, mix: Any, **options: Any) -> optax.GradientTransformationExtraArgs:
        return factory(descent(learning_rate), **{argument: mix}, **options)

    return build


def adapt_then_combine(mix: Mixing) -> optax.GradientTransformationExtraArgs:
    r"""Talk after the local step: x_i <- \sum_j W_ij (x_j + u_j), for updates u that the parts before it propose.

    Sent: one vector over each link and step. W must be row or doubly stochastic.

    Args:
      mix: the mixing, over n nodes.

    Returns:
      A transformation of updates; `update` needs `params`.

    Raises:
      ValueError: at build time for a mixing of the wrong kind, at trace time without params or with a wrong node axis.

    Example:
      >>> tx = adozoo.adapt_then_combine(adozoo.exact_mean(2))
      >>> x, u = jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [1.0]])
      >>> updates, state = tx.update(u, tx.init(x), x)
      >>> (x + updates).ravel()
      Array([2., 2.], dtype=float64)
    """
    check_mixing("adapt_then_combine", mix, ("doubly", "row"))

    def update(
        updates: PyTree, state: CountState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, CountState]:
        del extra
        require_params("adapt_then_combine", params)
        mixed = mix(_tree.add(params, updates), state.count)
        return _tree.sub(mixed, params), CountState(increment(state.count))

    return transformation(lambda params: CountState(zero_count()), update)


def combine_then_adapt(mix: Mixing) -> optax.GradientTransformationExtraArgs:
    r"""Talk while the local step is computed: x_i <- \sum_j W_ij x_j + u_i, for updates u taken at the old x.

    Sent: one vector over each link and step; communication can overlap the gradient. W must be row or doubly
    stochastic.

    Args:
      mix: the mixing, over n nodes.

    Example:
      >>> tx = adozoo.combine_then_adapt(adozoo.exact_mean(2))
      >>> x, u = jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [0.0]])
      >>> updates, state = tx.update(u, tx.init(x), x)
      >>> (x + updates).ravel()
      Array([2., 1.], dtype=float64)
    """
    check_mixing("combine_then_adapt", mix, ("doubly", "row"))

    def update(
        updates: PyTree, state: CountState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, CountState]:
        del extra
        require_params("combine_then_adapt", params)
        mixed = _tree.sub(mix(params, state.count), params)
        return _tree.add(mixed, updates), CountState(increment(state.count))

    return transformation(lambda params: CountState(zero_count()), update)


def track_gradients(mix: Mixing, variant: str = "cta") -> optax.GradientTransformationExtraArgs:
    r"""Replace each node's gradient by a running estimate s_i of the network's average gradient.

    With variant "cta" s^t = W s^{t-1} + g^t - g^{t-1}, with "atc" s^t = W (s^{t-1} + g^t - g^{t-1}), from s^{-1} =
    g^{-1} = 0. The mean of s is the mean of g at every step. One buffer is kept, c = W s - g ("cta") or c = s - g
    ("atc"): then s^t = c + g^t, and the message s^t can travel with the params' ("cta"), in one round.

    Sent: one vector over each link and step. W must be doubly stochastic for the mean to be tracked.

    Args:
      mix: the mixing, over n nodes.
      variant: "cta" (combine, then adapt) or "atc" (adapt, then combine).

    Example:
      >>> tx = adozoo.track_gradients(adozoo.exact_mean(2))
      >>> g = jnp.array([[0.0], [2.0]])
      >>> s, state = tx.update(g, tx.init(g), g)
      >>> tx.update(g, state, g)[0].ravel()
      Array([1., 1.], dtype=float64)

    References:
      Nedic, Olshevsky, Shi, Achieving geometric convergence (DIGing), 2017; Qu and Li, 2018.
    """
    check_mixing("track_gradients", mix)
    check_choice("track_gradients", "variant", variant, ("cta", "atc"))

    def init(params: PyTree) -> TrackState:
        return TrackState(zero_count(), _tree.zeros_like(params))

    def update(
        grads: PyTree, state: TrackState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, TrackState]:
        del params, extra
        tracked = _tree.add(state.tracker, grads)
        mixed = mix(tracked, state.count, message=1)
        sent = mixed if variant == "atc" else tracked
        return sent, TrackState(increment(state.count), _tree.sub(mixed, grads))

    return transformation(init, update)


def average_gradients(mean: Mixing) -> optax.GradientTransformationExtraArgs:
    r"""Replace each node's gradient by the exact average over nodes, g_i <- (1/n) \sum_j g_j: an all-reduce.

    Sent: 2 (n - 1) / n vectors a node and step, in a bandwidth-optimal all-reduce.

    Example:
      >>> tx = adozoo.average_gradients(adozoo.exact_mean(2))
      >>> g = jnp.array([[0.0], [2.0]])
      >>> tx.update(g, tx.init(g))[0].ravel()
      Array([1., 1.], dtype=float64)
    """
    check_mixing("average_gradients", mean)

    def update(
        grads: PyTree, state: CountState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, CountState]:
        del params, extra
        return mean(grads, state.count), CountState(increment(state.count))

    return transformation(lambda params: CountState(zero_count()), update)


def named(factory: str, tx: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """A complete method: `tx`, whose `update` refuses unknown extra arguments and missing params in its name."""

    def update(grads: PyTree, state: PyTree, params: PyTree | None = None, **extra: Any) -> tuple[PyTree, PyTree]:
        check_no_extra(factory, extra)
        require_params(factory, params)
        if jax.tree.structure(grads) != jax.tree.structure(params):
            raise ValueError(
                f"{factory}.update: grads and params must be pytrees of one structure, got "
                f"{jax.tree.structure(grads)} and {jax.tree.structure(params)}."
            )
        return tx.update(grads, state, params)

    return transformation(tx.init, update)
