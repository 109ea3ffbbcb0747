r"""Stochastic gradient push, SGP: D-SGD over directed graphs by push-sum (Assran, Loizou, Ballas, Rabbat, ICML 2019).

Each node holds a biased numerator x_i and a push-sum weight w_i, from w_i = 1; the params are z_i = x_i / w_i, where
gradients are taken. With P column stochastic (sum_i P_ij = 1: what a node sends adds up to what it had),

    x <- P (x - \eta d(z)),    w <- P w,    z <- x / w        (overlap: x <- P x - \eta d(z)).

The sum of x over nodes is preserved, and w corrects for nodes that are heard more than others. Only w is kept in the
state: x = w z is recomputed. Over a doubly stochastic P all w stay 1 and this is D-SGD.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_mixing
from adozoo._optax import increment, transformation, zero_count
from adozoo.mixing import Mixing
from adozoo.nodes import node_count
from adozoo.parts import local_sgd_step, named
from adozoo.zoo import Entry, register


class PushState(NamedTuple):
    """w, the push-sum weights (their sum stays n), and the state of the local step."""

    count: Int[Array, ""]
    weight: Float[Array, " n"]
    local: PyTree


def stochastic_gradient_push(
    learning_rate: Any, mix: Mixing, momentum: Any = 0.0, nesterov: bool = False, overlap: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""SGP: decentralised SGD over directed, time-varying graphs whose nodes know only whom they send to.

    Update: u = -\eta d, the local (momentum) step at z; x <- P (w z + u), or P (w z) + u with `overlap`; w <- P w;
    z <- x / w.

    Sent: one vector and one number over each directed link and step; with `overlap` while the gradient is computed.

    Assumptions: P column stochastic, strongly connected over time, with positive diagonal. Not exact under
    heterogeneity with constant \eta.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, column or doubly stochastic: `adozoo.mixing(digraph)`, or a cycle of such.
      momentum: \beta in [0, 1), local to each node.
      nesterov: whether to use Nesterov's form.
      overlap: whether messages leave before the local step (OSGP).

    Returns:
      The transformation over stacked pytrees; params are the de-biased z.

    Raises:
      ValueError: at build time for a number out of range or a row-stochastic mixing.

    Example:
      >>> digraph = adozoo.graphs.directed_ring(3)
      >>> digraph.add_edge(0, 2)
      >>> tx = adozoo.stochastic_gradient_push(0.1, adozoo.mixing(digraph))
      >>> x = jnp.array([[0.0], [3.0], [6.0]])
      >>> params, state, _ = adozoo.simulate(tx, lambda x, step, key: 0 * x, x, steps=60)
      >>> params.ravel().round(
      ...     6
      ... )  # consensus on the average, although P is not doubly stochastic
      Array([3., 3., 3.], dtype=float64)
    """
    check_mixing("stochastic_gradient_push", mix, ("column", "doubly"))
    local = optax.chain(*local_sgd_step("stochastic_gradient_push", learning_rate, momentum, nesterov))

    def init(params: PyTree) -> PushState:
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        weight = jnp.ones_like(jax.tree.leaves(params)[0], dtype, (node_count(params),))  # one row a node, placed alike
        return PushState(zero_count(), weight, local.init(params))

    def update(grads: PyTree, state: PushState, params: PyTree) -> tuple[PyTree, PushState]:
        step, local_state = local.update(grads, state.local, params)
        numerator = _times(state.weight, params)
        numerator, weight = mix((numerator if overlap else _tree.add(numerator, step), state.weight), state.count)
        if overlap:
            numerator = _tree.add(numerator, step)
        updates = _tree.sub(_times(1 / weight, numerator), params)
        return updates, PushState(increment(state.count), weight, local_state)

    return named("stochastic_gradient_push", transformation(init, update))


def _times(weight: Float[Array, " n"], tree: PyTree) -> PyTree:
    """One number a node, times the node's params."""
    return jax.tree.map(lambda x: weight.astype(x.dtype).reshape((-1,) + (1,) * (x.ndim - 1)) * x, tree)


for _name, _title, _overlap in (("sgp", "Stochastic gradient push", False), ("sgp_overlap", "Overlap SGP", True)):
    register(
        Entry(
            _name,
            stochastic_gradient_push,
            "gossip",
            _title,
            "Assran, Loizou, Ballas, Rabbat, ICML 2019",
            frozenset({"symmetric", "doubly", "column", "varying"}),
            {"overlap": _overlap},
            linear=False,
            exact=False,
            scalars=1,
            overlaps=_overlap,
        )
    )
