r"""GT-SAGA: gradient tracking on SAGA's variance-reduced gradients (Xin, Khan, Kar, IEEE TSP 2020).

Each node's objective is a mean of components, f_i = (1/m) \sum_j F_ij. In a step node i takes the gradient of one of
them, j, which it samples, and corrects it by a table of those that it took before,

    g_i = \nabla F_ij(x_i) - h_ij + (1/m) \sum_k h_ik,    h_ij <- \nabla F_ij(x_i),
    s^+ = W (s + g - g_before),                             x^+ = W (x - \eta s^+),

so that the noise vanishes as the table converges, and a constant step leads to the optimum linearly. The paper starts
from the gradients of all components at the start; here the table is zero unless it is given, and nodes learn their
components one by one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_mixing, check_number
from adozoo._components import check_samples, component_table, pick, put, sampled_by, with_samples
from adozoo._optax import increment, transformation, zero_count
from adozoo.mixing import Mixing
from adozoo.parts import adapt_then_combine, descent, named, track_gradients
from adozoo.zoo import Entry, register


class SagaState(NamedTuple):
    """The last gradient of each component, leaves [n, components, ...], and their mean over components, like params."""

    count: Int[Array, ""]
    table: PyTree
    mean: PyTree


def saga(mix: Mixing, stream: Any, table: PyTree | None = None) -> optax.GradientTransformationExtraArgs:
    """Correct gradients of sampled components by a table of earlier ones; local to each node.

    Args:
      mix: the mixing of the nodes, asked only which of them are here.
      stream: step -> [n] component indices, those that the gradients are of (`adozoo.samples`).
      table: gradients to start from, leaves [n, components, ...]; zeros by default.

    Example:
      >>> from adozoo.accelerated.gt_saga import saga
      >>> tx = saga(adozoo.exact_mean(1), adozoo.recorded_samples([[0], [1]]))
      >>> g = jnp.ones((1, 1))
      >>> first, state = tx.update(g, tx.init(g), g)
      >>> first.item(), tx.update(g, state, g)[0].item(), state.mean.item()
      (1.0, 1.5, 0.5)
    """

    def init(params: PyTree) -> SagaState:
        known = component_table("gt_saga", stream, mix, params, table)
        return SagaState(zero_count(), known, jax.tree.map(lambda rows: jnp.mean(rows, axis=1), known))

    def update(grads: PyTree, state: SagaState, params: PyTree | None = None, **extra: Any) -> tuple[PyTree, SagaState]:
        del params, extra
        indices = sampled_by(stream, mix, state.count)
        news = _tree.sub(grads, pick(state.table, indices))
        mean = _tree.axpy(1 / stream.components, news, state.mean)
        corrected = _tree.add(news, state.mean)
        return corrected, SagaState(increment(state.count), put(state.table, indices, grads), mean)

    return transformation(init, update)


def gt_saga(
    learning_rate: Any, mix: Mixing, samples: Any, table: PyTree | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient tracking with SAGA: exact with a constant step, from one component's gradient a node and step.

    Update: see above, with s = g_before = 0 at the start.

    Sent: two vectors over each link and step, in two rounds.

    Assumptions: W doubly stochastic, directed or not, connected (over time); gradients of the sampled components,
    `problem.sampled_gradient(samples)`.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, over n nodes.
      samples: step -> [n] component indices, `adozoo.samples` or `adozoo.recorded_samples`.
      table: gradients of all components at the start, leaves [n, components, ...]; zeros by default.

    Returns:
      The transformation over stacked pytrees; its state holds as many vectors a node as there are components.

    Raises:
      ValueError: at build time for a number out of range, samples for other nodes, or a mixing that is not doubly
        stochastic; in `init` for a table of another shape.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> problem = adozoo.problems.least_squares(
      ...     rng.normal(size=(4, 10, 2)), rng.normal(size=(4, 10)), l2=0.1
      ... )
      >>> samples = adozoo.samples(jax.random.key(0), n=4, components=10)
      >>> tx = adozoo.gt_saga(0.05, adozoo.mixing(adozoo.graphs.ring(4)), samples)
      >>> params, _, _ = adozoo.simulate(
      ...     tx, problem.sampled_gradient(samples), problem.init(), 2000
      ... )
      >>> bool(jnp.abs(params - problem.optimum[None]).max() < 1e-8)
      True

    References:
      Xin, Khan, Kar, Variance-reduced decentralized stochastic optimization with accelerated convergence, IEEE TSP
      2020; Defazio, Bach, Lacoste-Julien, SAGA, 2014.
    """
    check_mixing("gt_saga", mix)
    check_number("gt_saga", "learning_rate", learning_rate)
    check_samples("gt_saga", samples, mix)
    tracked = optax.chain(saga(mix, samples, table), track_gradients(mix, "atc"))
    return named("gt_saga", optax.chain(tracked, descent(learning_rate), adapt_then_combine(mix)))


register(
    Entry(
        "gt_saga",
        with_samples(gt_saga),
        "accelerated",
        "Gradient tracking with variance reduction (GT-SAGA)",
        "Xin, Khan, Kar, IEEE TSP 2020",
        frozenset({"symmetric", "doubly", "varying"}),
        {"components": 2, "period": 32},
        vectors=2,
        rounds=2,
        random=True,
    )
)
