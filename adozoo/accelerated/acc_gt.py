r"""Acc-GT, accelerated gradient tracking (Li and Lin, 2021; strongly convex objectives).

Nesterov's method in the form of three points, along a tracked estimate s of the average gradient. With
\theta = \sqrt{\mu \eta} / 2:

    y = \theta z + (1 - \theta) x,    s = W s + \nabla f(y) - \nabla f(y_previous),
    z <- (W ((\mu \eta / \theta) y + z) - (\eta / \theta) s) / (1 + \mu \eta / \theta),
    x <- \theta z + (1 - \theta) W x   (the new z),

from s^0 = \nabla f(y^0). Params are y, where the gradient is wanted; x, z and the tracker without the gradient's share,
c = W s - g, are kept (`adozoo.track_gradients`), so that all messages of a step leave in one round. The answer is x.

The step size must be small: on a ring of eight nodes with condition number 50 the method converges with \eta = 0.1 / L,
and diverges with 0.3 / L.

References: Li, Lin, Accelerated gradient tracking over time-varying graphs for decentralized optimization, 2021.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_mixing, check_number
from adozoo._optax import increment, transformation, zero_count
from adozoo.mixing import Mixing
from adozoo.nodes import register_eval_params
from adozoo.parts import named
from adozoo.zoo import Entry, register


class AccGtState(NamedTuple):
    """x, the iterate and answer; z, the sequence of long steps; c = W s - g, the tracker: all stacked like params."""

    count: Int[Array, ""]
    iterate: PyTree
    long: PyTree
    tracker: PyTree


@register_eval_params(AccGtState)
def _(state: AccGtState, params: PyTree) -> PyTree:
    return state.iterate


def acc_gt(learning_rate: Any, mix: Mixing, strong_convexity: Any) -> optax.GradientTransformationExtraArgs:
    r"""Accelerated gradient tracking: Nesterov's method along a tracked gradient, in single-loop form.

    Update: s = c + g;  z <- (W ((\mu \eta / \theta) y + z) - (\eta / \theta) s) / (1 + \mu \eta / \theta);
    x <- \theta z + (1 - \theta) W x;  y <- \theta z + (1 - \theta) x;  c <- W s - g, with \theta = \sqrt{\mu \eta} / 2.

    Sent: three vectors over each link and step, in one round.

    Assumptions: W doubly stochastic, perhaps time-varying (all messages of step t use W_t); every f_i \mu-strongly
    convex and L-smooth; \eta well below 1 / L.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, over n nodes.
      strong_convexity: \mu, a number or a traced scalar.

    Returns:
      The transformation over stacked pytrees; params are y, `adozoo.eval_params` gives x.

    Raises:
      ValueError: at build time for a number out of range or a mixing that is not doubly stochastic.

    Example:
      >>> problem = adozoo.problems.random_quadratic(8, 3, strong_convexity=0.02)
      >>> tx = adozoo.acc_gt(0.1, adozoo.mixing(adozoo.graphs.ring(8)), 0.02)
      >>> _, _, trace = adozoo.simulate(
      ...     tx, problem.gradient, problem.init(), 3000, metrics=problem.metrics()
      ... )
      >>> bool(trace["distance"][-1] < 1e-10)
      True
    """
    check_mixing("acc_gt", mix)
    check_number("acc_gt", "learning_rate", learning_rate)
    check_number("acc_gt", "strong_convexity", strong_convexity)

    def init(params: PyTree) -> AccGtState:
        return AccGtState(zero_count(), params, params, _tree.zeros_like(params))

    def update(grads: PyTree, state: AccGtState, params: PyTree) -> tuple[PyTree, AccGtState]:
        step_size = _tree.schedule_value(learning_rate, state.count)
        theta = jnp.sqrt(strong_convexity * step_size) / 2
        pull = strong_convexity * step_size / theta
        tracked = _tree.add(state.tracker, grads)
        messages = _tree.axpy(pull, params, state.long), state.iterate, tracked
        drawn, iterate, mixed = mix(messages, state.count)
        long = _tree.scale(1 / (1 + pull), _tree.axpy(-step_size / theta, tracked, drawn))
        iterate = _tree.axpy(theta, _tree.sub(long, iterate), iterate)
        point = _tree.axpy(theta, _tree.sub(long, iterate), iterate)
        state = AccGtState(increment(state.count), iterate, long, _tree.sub(mixed, grads))
        return _tree.sub(point, params), state

    return named("acc_gt", transformation(init, update))


register(
    Entry(
        "acc_gt",
        acc_gt,
        "accelerated",
        "Accelerated gradient tracking (Acc-GT)",
        "Li, Lin, 2021",
        frozenset({"symmetric", "doubly", "varying"}),
        {"strong_convexity": 0.3},
        {"strong_convexity": (0.01, 0.03, 0.1, 0.3)},
        vectors=3,
        unbounded=frozenset({"strong_convexity"}),
        patience=2,
        overlaps=True,
    )
)
