r"""EXTRA, an exact first-order algorithm (Shi, Ling, Wu, Yin, SIAM J. Optim. 2015), with \tilde W = (I + W) / 2.

The published recursion, x^{t+2} = (I + W) x^{t+1} - \tilde W x^t - \eta (g^{t+1} - g^t) from x^1 = W x^0 - \eta g^0,
summed over time, with c^t = -\sum_{s<t} (\tilde W - W) x^s:

    x^{t+1} = W x^t - \eta g^t + c^t,    c^{t+1} = c^t + (W x^t - x^t) / 2.

Same iterates over a fixed W; one buffer instead of three, and no first step of its own. Over time-varying graphs the
two are different algorithms: certified rates hold for the form above.
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


class ExtraState(NamedTuple):
    """c, the accumulated disagreement, stacked like params; its sum over nodes stays 0."""

    count: Int[Array, ""]
    correction: PyTree


def extra(learning_rate: Any, mix: Mixing) -> optax.GradientTransformationExtraArgs:
    r"""EXTRA: D-SGD (combine-then-adapt) plus an integral of the disagreement, exact under any heterogeneity.

    Update: x <- W x - \eta g + c;  c <- c + (W x - x) / 2, both with the old x.

    Sent: one vector over each link and step.

    Assumptions: W symmetric, doubly stochastic, connected, constant. With a common Hessian a I the largest stable step
    is a \eta < (5 + 3 \lambda_n) / 4.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, over n nodes.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time for a number out of range or a mixing that is not symmetric and doubly stochastic.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((4, 1, 1)), jnp.arange(4.0)[:, None]
      ... )
      >>> tx = adozoo.extra(0.3, adozoo.mixing(adozoo.graphs.ring(4)))
      >>> params, _, _ = adozoo.simulate(tx, problem.gradient, problem.init(), steps=200)
      >>> params.ravel().round(6)
      Array([1.5, 1.5, 1.5, 1.5], dtype=float64)
    """
    check_mixing("extra", mix, symmetric=True)
    check_number("extra", "learning_rate", learning_rate)

    def init(params: PyTree) -> ExtraState:
        return ExtraState(zero_count(), _tree.zeros_like(params))

    def update(grads: PyTree, state: ExtraState, params: PyTree) -> tuple[PyTree, ExtraState]:
        step_size = _tree.schedule_value(learning_rate, state.count)
        disagreement = _tree.sub(mix(params, state.count), params)  # W x - x
        updates = _tree.add(_tree.axpy(-step_size, grads, disagreement), state.correction)
        correction = _tree.axpy(0.5, disagreement, state.correction)
        return updates, ExtraState(increment(state.count), correction)

    return named("extra", transformation(init, update))


register(
    Entry(
        "extra",
        extra,
        "gossip",
        "EXTRA",
        "Shi, Ling, Wu, Yin, SIAM J. Optim. 2015",
        frozenset({"symmetric"}),
        overlaps=True,
    )
)
