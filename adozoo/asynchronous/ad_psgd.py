r"""AD-PSGD: asynchronous decentralised SGD with stale gradients (Lian, Zhang, Zhang, Liu, ICML 2018).

A node averages with one random neighbour, then applies a gradient that it began to compute some events ago:

    x_i, x_j <- (x_i + x_j) / 2,        x_i <- x_i + u(\nabla f_i(x_i^{stale})).

The events say how stale: `lag` counts the node's own events since it read x. In the original the graph is bipartite, so
that pairs waiting for each other cannot deadlock; events have no such trouble.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_events
from adozoo._optax import increment, transformation, zero_count
from adozoo.nodes import per_node, register_eval_params
from adozoo.parts import named, stepping
from adozoo.zoo import Entry, register


class AdPsgdState(NamedTuple):
    """x, and what it was after each of the node's last events (leaves [n, staleness + 1, ...], in turn)."""

    count: Int[Array, ""]
    current: PyTree
    history: PyTree
    seen: Int[Array, " n"]
    inner: PyTree


@register_eval_params(AdPsgdState)
def _current(state: AdPsgdState, params: PyTree) -> PyTree:
    return state.current


def ad_psgd(inner: optax.GradientTransformation, events: Any) -> optax.GradientTransformationExtraArgs:
    r"""AD-PSGD: pairs average at random times, and gradients are applied later than the params they were taken at.

    Update: an exchange sets x_i and x_j to their average; a gradient of node i moves x_i by what `inner` makes of
    \nabla f_i(x_i^{stale}), x_i^{stale} being x_i as many of i's events ago as the events' `lag` says.

    Sent: x, one vector each way in an exchange.

    Assumptions: L-smooth f_i, bounded staleness. Not exact under heterogeneity with a constant step size.

    Args:
      inner: what one node does alone: any optax transformation of one node's params, as in `adozoo.acid`.
      events: `adozoo.events.poisson(graph, horizon, stale=True)`, where a node begins a gradient when it has applied
        its last one; or recorded ones with `lags`. Without lags this is the baseline of A2CiD2.

    Returns:
      The transformation over stacked pytrees. Params are where the next gradient is taken; the answer is
      `adozoo.eval_params(state, params)`.

    Raises:
      ValueError: at build time for what are no events; at trace time for a wrong node axis.

    Example:
      >>> events = adozoo.events.recorded(
      ...     [(1, 0.5, 0, 1), (0, 0.5, 0, -1)], n=2, lags=[0, 1]
      ... )
      >>> tx = adozoo.ad_psgd(optax.sgd(0.5), events)
      >>> x = jnp.array([[0.0], [2.0]])
      >>> _, state, _ = adozoo.simulate_events(tx, lambda x, *_: x, x, events)
      >>> state.current.ravel()  # node 0's gradient was taken at 0
      Array([1., 1.], dtype=float64)

    References:
      Lian, Zhang, Zhang, Liu, "Asynchronous decentralized parallel stochastic gradient descent", ICML 2018.
    """
    check_events("ad_psgd", events)
    local, depth = per_node(inner), events.staleness + 1

    def write(history: PyTree, x: PyTree, seen: Array, flags: Array) -> PyTree:
        """Where flagged, x as what it was after `seen` events."""
        place = (jnp.arange(depth)[None] == (seen % depth)[:, None]) & flags[:, None]

        def one(past: Array, now: Array) -> Array:
            return jnp.where(place.reshape(place.shape + (1,) * (now.ndim - 1)), now[:, None], past)

        return jax.tree.map(one, history, x)

    def read(history: PyTree, number: Array) -> PyTree:
        """What x was after its `number`-th event."""

        def one(past: Array) -> Array:
            place = (number % depth).reshape((-1,) + (1,) * (past.ndim - 1))
            return jnp.take_along_axis(past, place, axis=1)[:, 0]

        return jax.tree.map(one, history)

    def encounter(rows: Any, waited: Any, others: Any, own: Any, other: Any) -> Any:
        x, history, seen = rows
        met = own != other
        x = _tree.half(x, others(x))
        seen = seen + met
        return x, write(history, x, seen, met), seen

    def init(params: PyTree) -> AdPsgdState:
        events.check(params)
        history = jax.tree.map(lambda x: jnp.repeat(x[:, None], depth, axis=1), params)
        seen = _tree.placed_like(jnp.zeros(events.local_rows, jnp.int32), params)
        return AdPsgdState(zero_count(), params, history, seen, _tree.placed_like(local.init(params), params))

    def update(grads: PyTree, state: AdPsgdState, params: PyTree) -> tuple[PyTree, AdPsgdState]:
        takes = events.row(events.takes, state.count)
        steps, inner_state = local.update(grads, state.inner, params)
        inner_state = _tree.where(takes, inner_state, state.inner)
        x = _tree.where(takes, _tree.add(state.current, steps), state.current)
        seen = state.seen + takes
        rows = x, write(state.history, x, seen, takes), seen
        x, history, seen = events.meet(state.count, rows, encounter)
        reads = events.row(events.takes, state.count + 1)
        point = _tree.where(reads, read(history, seen - events.row(events.lag, state.count + 1)), x)
        state = AdPsgdState(increment(state.count), x, history, seen, inner_state)
        return _tree.sub(point, params), state

    return named("ad_psgd", transformation(init, update))


register(
    Entry(
        "ad_psgd",
        stepping(ad_psgd, "events"),
        "asynchronous",
        "AD-PSGD",
        "Lian, Zhang, Zhang, Liu, ICML 2018",
        frozenset({"events"}),
        exact=False,
        preserves_mean=False,
        fixed_graph=True,
    )
)
