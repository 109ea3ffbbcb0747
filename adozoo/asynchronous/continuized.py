r"""Nesterov's acceleration in continuous time, with gradients at random times (Even et al., NeurIPS 2021).

One node alone: between gradients x and z flow towards each other, at a gradient both jump:

    dx = \eta (z - x) dt - \gamma g dN,        dz = \eta' (x - z) dt - \gamma' g dN,        g = \nabla f(x).

\mu-strongly convex: \eta = \eta' = \sqrt{\mu / L}, \gamma = 1 / L, \gamma' = 1 / \sqrt{\mu L}. Convex: \eta_t = 2 / t,
\eta' = 0, \gamma = 1 / L, \gamma'_t = t / (2 L). The flow is known, so that this is an ordinary method with random
coefficients: x moves by (1 - e^{-2 \eta t}) / 2 of the way to z, or x - z shrinks by (t / t')^2.

Over a graph the same is done on the dual problem, where a coordinate is a link: `continuized_dual`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_events, check_number
from adozoo._constants import by_smoothness, check_constants
from adozoo._optax import increment, transformation, zero_count
from adozoo.nodes import register_eval_params
from adozoo.parts import named
from adozoo.zoo import Entry, register


class ContinuizedState(NamedTuple):
    """z, stacked like params, and each node's time."""

    count: Int[Array, ""]
    z: PyTree
    time: Float[Array, " n"]


class ContinuizedDualState(NamedTuple):
    """z, stacked like params, and the last primal point that each node computed."""

    count: Int[Array, ""]
    z: PyTree
    primal: PyTree


@register_eval_params(ContinuizedDualState)
def _primal(state: ContinuizedDualState, params: PyTree) -> PyTree:
    return state.primal


def _drawn(rate: Any, pair: tuple[PyTree, PyTree], time: Any) -> tuple[PyTree, PyTree]:
    """Two vectors after they drew each other for some time."""
    far = (1 - jnp.exp(-2 * rate * time)) / 2

    def moved(a: Array, b: Array) -> Array:
        return a + _tree.rows(far, a) * (b - a)

    x, z = pair
    return jax.tree.map(moved, x, z), jax.tree.map(moved, z, x)


def continuized_nesterov(
    events: Any, smoothness: Any, strong_convexity: Any = 0.0
) -> optax.GradientTransformationExtraArgs:
    r"""Nesterov's method with gradients at random times, by each node on its own objective; nothing is sent.

    Update: see the module, with the strongly convex constants, or the convex ones where `strong_convexity` is 0.

    Theory: E[f(x_t) - f* + \mu |z_t - x*|^2 / 2] <= e^{-\sqrt{\mu / L} t} times the same at 0; without strong convexity
    E f(x_t) - f* <= 2 L |z_0 - x*|^2 / t^2. Poisson clocks of rate 1.

    Args:
      events: gradients; `adozoo.events.poisson(n, horizon)` for n nodes without links.
      smoothness: L > 0, a number or traced scalar.
      strong_convexity: \mu >= 0; a traced one counts as positive.

    Returns:
      The transformation over stacked pytrees; params are x, each node at the time of its next gradient.

    Raises:
      ValueError: at build time for constants out of range.

    Example:
      >>> events = adozoo.events.poisson(1, horizon=60.0, seed=1)
      >>> tx = adozoo.continuized_nesterov(events, smoothness=1.0, strong_convexity=0.1)
      >>> x = jnp.array([[1.0, 1.0]])
      >>> curvatures = jnp.array([[1.0, 0.1]])
      >>> x, _, _ = adozoo.simulate_events(tx, lambda x, *_: curvatures * x, x, events)
      >>> bool(jnp.abs(x).max() < 1e-2)
      True

    References:
      Even et al., "A continuized view on Nesterov acceleration for stochastic gradient descent and randomized gossip",
      NeurIPS 2021, theorem 2.
    """
    check_events("continuized_nesterov", events)
    check_number("continuized_nesterov", "smoothness", smoothness)
    check_number("continuized_nesterov", "strong_convexity", strong_convexity, closed=True)
    convex = isinstance(strong_convexity, int | float) and strong_convexity == 0

    def flow(pair: tuple[PyTree, PyTree], begin: Array, wait: Array) -> tuple[PyTree, PyTree]:
        if not convex:
            return _drawn((strong_convexity / smoothness) ** 0.5, pair, wait)
        end = begin + wait
        left = jnp.where(end > 0, begin / jnp.where(end > 0, end, 1), 1) ** 2
        x, z = pair
        return jax.tree.map(lambda a, b: b + _tree.rows(left, a) * (a - b), x, z), z

    def init(params: PyTree) -> ContinuizedState:
        events.check(params)
        time = _tree.placed_like(jnp.zeros(events.local_rows, jnp.result_type(float)), params)
        return ContinuizedState(zero_count(), params, time)

    def update(grads: PyTree, state: ContinuizedState, params: PyTree) -> tuple[PyTree, ContinuizedState]:
        takes = events.row(events.takes, state.count)
        far = state.time / (2 * smoothness) if convex else 1 / (strong_convexity * smoothness) ** 0.5
        far = jnp.where(takes, far, 0)
        near = jnp.where(takes, 1 / smoothness, 0)
        x = jax.tree.map(lambda a, g: a - _tree.rows(near, a) * g, params, grads)
        z = jax.tree.map(lambda a, g: a - _tree.rows(far, a) * g, state.z, grads)
        wait = events.row(events.wait, state.count + 1).astype(state.time.dtype)
        x, z = flow((x, z), state.time, wait)
        return _tree.sub(x, params), ContinuizedState(increment(state.count), z, state.time + wait)

    return named("continuized_nesterov", transformation(init, update))


def continuized_dual(events: Any, strong_convexity: Any, smoothness: Any) -> optax.GradientTransformationExtraArgs:
    r"""Accelerated randomised gossip for optimisation: continuized Nesterov on the dual, a link at a time.

    Update: y and z relax towards each other at rate \eta = \sqrt{\mu / (2 \chi_1 \chi_2 L)}. When i and j meet, with
    G = \nabla f_i^*(y_i) - \nabla f_j^*(y_j) and R_ij their effective resistance,

        y_i <- y_i - \mu R_ij / (4 \chi_2) G,    z_i <- z_i - \sqrt{\mu L \chi_1 / \chi_2} / 2 G,

    and the opposite for j. These constants do not change when time is rescaled.

    Sent: \nabla f_i^*(y_i), one vector each way in an exchange. Every exchange costs both nodes a gradient.

    Assumptions: every f_i is \mu-strongly convex and L-smooth; y sums to zero over nodes, at the start (0, say) and
    whenever all are at one time. Exact.

    Args:
      events: `adozoo.events.poisson(graph, horizon, paired=True)`.
      strong_convexity: \mu > 0, a number or traced scalar.
      smoothness: L >= \mu, a number, a traced scalar or a schedule step -> L.

    Returns:
      The transformation over stacked pytrees: params are the dual points y, `grads` the gradients of the conjugates
      there (`problem.dual_gradient`); the answer is `adozoo.eval_params(state, params)`.

    Raises:
      ValueError: at build time for constants out of range, or events that are not paired or without a graph.

    Example:
      >>> problem = adozoo.problems.random_quadratic(4, 2, strong_convexity=0.5)
      >>> events = adozoo.events.poisson(
      ...     adozoo.graphs.ring(4), horizon=150.0, paired=True
      ... )
      >>> tx = adozoo.continuized_dual(events, strong_convexity=0.5, smoothness=1.0)
      >>> y, state, _ = adozoo.simulate_events(
      ...     tx, problem.dual_gradient, jnp.zeros((4, 2)), events
      ... )
      >>> bool(jnp.abs(state.primal - problem.optimum[None]).max() < 1e-6)
      True

    References:
      Even et al., NeurIPS 2021, section 5 and equation 63 (its factor 2 moved from one constant to the other, as in A.
      Nabli's code); Nabli and Oyallon, ICML 2023, its experiments.
    """
    check_events("continuized_dual", events, constants=True, paired=True)
    check_constants("continuized_dual", strong_convexity, smoothness)
    chi_1, chi_2, resistances = events.chi_1, events.chi_2, events.resistances

    def encounter(far: Any, rows: Any, waited: Any, others: Any, own: Any, other: Any) -> Any:
        y, z, primal = rows
        gap = _tree.sub(primal, others(primal))
        near = strong_convexity / (4 * chi_2) * jnp.asarray(resistances)[own, other]
        y = jax.tree.map(lambda a, g: a - _tree.rows(near, a) * g, y, gap)
        return y, _tree.axpy(-far, gap, z), primal

    def init(params: PyTree) -> ContinuizedDualState:
        events.check(params)
        return ContinuizedDualState(zero_count(), params, _tree.zeros_like(params))

    def update(grads: PyTree, state: ContinuizedDualState, params: PyTree) -> tuple[PyTree, ContinuizedDualState]:
        L = _tree.schedule_value(smoothness, state.count)
        far = (strong_convexity * L * chi_1 / chi_2) ** 0.5 / 2
        rate = (strong_convexity / (2 * L * chi_1 * chi_2)) ** 0.5
        takes = events.row(events.takes, state.count)
        rows = params, state.z, _tree.where(takes, grads, state.primal)
        y, z, primal = events.meet(state.count, rows, partial(encounter, far))
        y, z = _drawn(rate, (y, z), events.row(events.wait, state.count + 1))
        return _tree.sub(y, params), ContinuizedDualState(increment(state.count), z, primal)

    return named("continuized_dual", transformation(init, update))


register(
    Entry(
        "continuized_dual",
        by_smoothness(continuized_dual),
        "asynchronous",
        "Continuized accelerated gossip (dual)",
        "Even et al., NeurIPS 2021",
        frozenset({"paired events"}),
        {"strong_convexity": 0.3},
        preserves_mean=False,
        fixed_graph=True,
        unbounded=frozenset({"strong_convexity"}),
        oracle="dual",
        patience=3,
    )
)
