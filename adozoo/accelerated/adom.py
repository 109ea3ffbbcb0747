r"""ADOM: accelerated dual method over graphs that change (Kovalev, Shulgin, Richtarik, Rogozin, Gasnikov, ICML 2021).

Projected Nesterov on the dual, min \sum_i f_i^*(z_i) over z that sum to zero, where the projection is replaced by the
gossip matrix G_t = I - W_t of the step, and what it leaves is fed back in the next step, as compressed methods do:

    \theta_i = \nabla f_i^*(y_i),                        \Delta = \sigma G_t (m - a \theta),
    m^+ = m - a \theta - \Delta,                         z^+ = z + a b (y - z) + \Delta,
    y^+ = \tau z^+ + (1 - \tau) (y - c G_t \theta).

`params` are the y_i (z_g in the paper; its z_f needs no memory), `update` takes the \theta_i as its gradients, and the
answer, `adozoo.eval_params`, is the last \theta; before the first step it is zero. With l, L_G the smallest positive
and the largest eigenvalue of all G_t,

    a = 2 l \sqrt{\mu L} / (7 L_G),    b = 1 / (2 L),    c = \mu / L_G,    \sigma = 1 / L_G,
    \tau = (l / (7 L_G)) \sqrt{\mu / L}

for which the squared error shrinks by 1 - (l / (7 L_G)) \sqrt{\mu / L} a step: constants and rate are quoted from
memory, and no instance that was tried violates the rate. The mean of m over nodes, which no G_t lets through, runs away
by a times the mean of \theta each step. It has no influence, but for rounding that grows with it; as theory sees it,
there is a fixed point only where the optimum is zero.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_mixing
from adozoo._constants import by_smoothness, check_constants
from adozoo._gossip_matrix import extremes
from adozoo._optax import increment, transformation, zero_count
from adozoo.mixing import Mixing
from adozoo.nodes import register_eval_params
from adozoo.parts import named
from adozoo.zoo import Entry, register


class AdomState(NamedTuple):
    r"""z, what is fed back m, and \theta, the last primal points; stacked like params."""

    count: Int[Array, ""]
    average: PyTree
    feedback: PyTree
    primal: PyTree


@register_eval_params(AdomState)
def _(state: AdomState, params: PyTree) -> PyTree:
    del params
    return state.primal


def adom(mix: Mixing, strong_convexity: Any, smoothness: Any) -> optax.GradientTransformationExtraArgs:
    r"""Accelerated dual method over time-varying graphs: one gradient of the conjugates and one round of gossip a step.

    Update: see above; z^0 = y^0 and m^0 = 0.

    Sent: two vectors over each link and step, m - a \theta and \theta, in one round.

    Assumptions: every W_t symmetric, its graph connected; params that sum to zero over nodes when it starts, as zeros
    do. (Their sum s stays what it is: from another start the method minimises \sum_i f_i(x) - <s, x>.)

    Args:
      mix: the mixing, over n nodes, fixed or with a period.
      strong_convexity: \mu, which every f_i has.
      smoothness: L, of every f_i; a number, a traced scalar or a schedule step -> scalar.

    Returns:
      The transformation over stacked pytrees of dual variables.

    Raises:
      ValueError: at build time for a number out of range, \mu > L, or a mixing that is traced, not symmetric, without a
        period or disconnected at some step.

    Example:
      >>> problem = adozoo.problems.random_quadratic(6, 2, strong_convexity=0.5)
      >>> ring, star = (
      ...     adozoo.mixing(graph)
      ...     for graph in (adozoo.graphs.ring(6), adozoo.graphs.star(6))
      ... )
      >>> tx = adozoo.adom(adozoo.cycle([ring, star]), 0.5, 1.0)
      >>> dual, state, trace = adozoo.simulate(
      ...     tx,
      ...     problem.dual_gradient,
      ...     problem.init(),
      ...     2000,
      ...     metrics=problem.metrics(),
      ...     every=2000,
      ... )
      >>> bool(trace["distance"][-1] < 1e-10)
      True

    References:
      Kovalev et al., ADOM: accelerated decentralized optimization method for time-varying networks, ICML 2021.
    """
    check_mixing("adom", mix, symmetric=True)
    check_constants("adom", strong_convexity, smoothness)
    smallest, largest = extremes("adom", mix)

    def init(params: PyTree) -> AdomState:
        return AdomState(zero_count(), params, _tree.zeros_like(params), _tree.zeros_like(params))

    def update(grads: PyTree, state: AdomState, params: PyTree) -> tuple[PyTree, AdomState]:
        top = jnp.asarray(_tree.schedule_value(smoothness, state.count))
        share = smallest / (7 * largest)
        gain, coupling = 2 * share * jnp.sqrt(strong_convexity * top), share * jnp.sqrt(strong_convexity / top)
        owed = _tree.axpy(-gain, grads, state.feedback)
        heard, mixed = mix((owed, grads), state.count)
        sent = _tree.scale(1 / largest, _tree.sub(owed, heard))
        disagreement = _tree.sub(grads, mixed)
        drawn = _tree.axpy(gain / (2 * top), _tree.sub(params, state.average), state.average)
        average = _tree.add(drawn, sent)
        descended = _tree.axpy(-jnp.asarray(strong_convexity / largest), disagreement, params)
        ahead = _tree.axpy(coupling, _tree.sub(average, descended), descended)
        primal = optax.tree.cast_like(grads, params)
        return _tree.sub(ahead, params), AdomState(increment(state.count), average, _tree.sub(owed, sent), primal)

    return named("adom", transformation(init, update))


register(
    Entry(
        "adom",
        by_smoothness(adom),
        "accelerated",
        "Accelerated dual method for time-varying graphs (ADOM)",
        "Kovalev, Shulgin, Richtarik, Rogozin, Gasnikov, ICML 2021",
        frozenset({"symmetric"}),
        {"strong_convexity": 0.3},
        {"strong_convexity": (0.01, 0.03, 0.1, 0.3)},
        vectors=2,
        fixed_graph=True,
        unbounded=frozenset({"strong_convexity"}),
        oracle="dual",
        patience=4,
        drifts=True,
    )
)
