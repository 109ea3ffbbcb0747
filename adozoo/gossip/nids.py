r"""NIDS, network-independent step sizes (Li, Shi, Yan, IEEE TSP 2019, algorithm 1 with smooth objectives).

In primal-dual form, with e = \eta d the scaled dual variable and \tilde W = (I + W) / 2:

    h = x - \eta g - e,    e <- e + (h - W h) / 2,    x <- x - \eta g - e   (the new e).

The published method takes its first step without communication, x^1 = x^0 - \eta g^0; that is this recursion started at
x^0 - \eta g^0. From a common x^0 on, it has the iterates of exact diffusion; it differs from it in the realisation, in
which the dual variable is explicit.
"""

from typing import Any, NamedTuple

import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_mixing, check_number
from adozoo._optax import increment, transformation, zero_count
from adozoo.mixing import Mixing
from adozoo.parts import named
from adozoo.zoo import Entry, register


class NidsState(NamedTuple):
    """e, the dual variable times the step size, stacked like params; its sum over nodes stays 0."""

    count: Int[Array, ""]
    dual: PyTree


def nids(learning_rate: Any, mix: Mixing) -> optax.GradientTransformationExtraArgs:
    r"""NIDS: exact under any heterogeneity, and stable for \eta < 2 / L whatever the network.

    Update: h = x - \eta g - e;  e <- e + (h - W h) / 2;  x <- x - \eta g - e.

    Sent: one vector over each link and step.

    Assumptions: W symmetric, doubly stochastic, connected, constant; \eta constant (the dual is kept times \eta).

    Args:
      learning_rate: \eta, a number or a traced scalar; with a schedule the dual variable is not rescaled.
      mix: the mixing, over n nodes.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time for a number out of range or a mixing that is not symmetric and doubly stochastic.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((4, 1, 1)), jnp.arange(4.0)[:, None]
      ... )
      >>> tx = adozoo.nids(1.0, adozoo.mixing(adozoo.graphs.ring(4)))
      >>> params, _, _ = adozoo.simulate(tx, problem.gradient, problem.init(), steps=200)
      >>> params.ravel().round(6)
      Array([1.5, 1.5, 1.5, 1.5], dtype=float64)
    """
    check_mixing("nids", mix, symmetric=True)
    check_number("nids", "learning_rate", learning_rate)

    def init(params: PyTree) -> NidsState:
        return NidsState(zero_count(), _tree.zeros_like(params))

    def update(grads: PyTree, state: NidsState, params: PyTree) -> tuple[PyTree, NidsState]:
        step_size = _tree.schedule_value(learning_rate, state.count)
        local = _tree.scale(-step_size, grads)
        sent = _tree.sub(_tree.add(params, local), state.dual)
        dual = _tree.axpy(0.5, _tree.sub(sent, mix(sent, state.count)), state.dual)
        return _tree.sub(local, dual), NidsState(increment(state.count), dual)

    return named("nids", transformation(init, update))


register(Entry("nids", nids, "gossip", "NIDS", "Li, Shi, Yan, IEEE TSP 2019", frozenset({"symmetric"})))
