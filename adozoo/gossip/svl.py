r"""SVL, designed for time-varying graphs by Sundararajan, Van Scoy and Lessard (IEEE TCNS 2020).

In their template with \gamma = 1 + \beta and \delta = 1: the gradient is taken at y = W x, the mixed iterate, and an
integral state w sums the disagreement v = x - y = (I - W) x:

    x <- x + \beta w - \eta g(y) - (1 + \beta) v,    w <- w - v,    y <- W x   (the new x).

Params are y, where gradients are wanted; the sum of w over nodes stays 0.
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


class SvlState(NamedTuple):
    """x, the iterate before mixing, and w, minus the summed disagreement; both stacked like params."""

    count: Int[Array, ""]
    iterate: PyTree
    integral: PyTree


def svl(learning_rate: Any, mix: Mixing, integral_gain: Any = 0.5) -> optax.GradientTransformationExtraArgs:
    r"""SVL: exact first-order method with one mixing a step, with certified rates over time-varying graphs.

    Update, with \eta the learning rate and \beta the integral gain: v = x - y;
    x <- x + \beta w - \eta g - (1 + \beta) v;  w <- w - v;  y <- W x.

    Sent: one vector over each link and step.

    Assumptions: W doubly stochastic with \sigma = ||W - 11'/n|| < 1 at every step. `theory.bounds.svl.tune` gives the
    \eta and \beta with the best certified rate; for small \sigma these are \eta = (1 - \rho) / \mu and \beta =
    \sqrt{1 - \rho^2}, which reach the rate \rho = (\kappa - 1) / (\kappa + 1) of centralised gradient descent.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, over n nodes.
      integral_gain: \beta in (0, 1].

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time for a number out of range or a mixing that is not doubly stochastic.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((4, 1, 1)), jnp.arange(4.0)[:, None]
      ... )
      >>> tx = adozoo.svl(0.5, adozoo.mixing(adozoo.graphs.ring(4)))
      >>> params, _, _ = adozoo.simulate(tx, problem.gradient, problem.init(), steps=200)
      >>> params.ravel().round(6)
      Array([1.5, 1.5, 1.5, 1.5], dtype=float64)
    """
    check_mixing("svl", mix)
    check_number("svl", "learning_rate", learning_rate)
    check_number("svl", "integral_gain", integral_gain, 0, 1.0 + 1e-12)

    def init(params: PyTree) -> SvlState:
        return SvlState(zero_count(), params, _tree.zeros_like(params))

    def update(grads: PyTree, state: SvlState, params: PyTree) -> tuple[PyTree, SvlState]:
        step_size = _tree.schedule_value(learning_rate, state.count)
        disagreement = _tree.sub(state.iterate, params)
        iterate = _tree.axpy(-step_size, grads, params)  # x - v = y
        iterate = _tree.axpy(integral_gain, _tree.sub(state.integral, disagreement), iterate)
        integral = _tree.sub(state.integral, disagreement)
        updates = _tree.sub(mix(iterate, state.count), params)
        return updates, SvlState(increment(state.count), iterate, integral)

    return named("svl", transformation(init, update))


register(
    Entry(
        "svl",
        svl,
        "gossip",
        "SVL",
        "Sundararajan, Van Scoy, Lessard, IEEE TCNS 2020",
        frozenset({"symmetric", "doubly", "varying"}),
        {"integral_gain": 0.5},
        {"integral_gain": (0.1, 0.2, 0.4, 0.8)},
    )
)
