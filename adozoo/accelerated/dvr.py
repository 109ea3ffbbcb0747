r"""DVR: dual-free decentralised variance reduction (Hendrikx, Bach, Massoulie, NeurIPS 2020).

Each node's objective is a mean of m components, f_i = (1/m) \sum_j F_ij, all of them \sigma-strongly convex; written as
f_i = (\sigma/2) ||x||^2 + \sum_j f_ij with f_ij = (F_ij - (\sigma/2) ||x||^2) / m. Block coordinate ascent on the dual,
a block being one component of each node or all edges together, with Bregman steps where a dual variable is \nabla
f_ij at a point z_ij, needs no gradient of a conjugate. A coin decides in each step:

    heads   \theta <- \theta - G \theta / L_G,
    tails   z_ij <- (1 - r_ij) z_ij + r_ij \theta_i,    \theta_i <- \theta_i - (\nabla f_ij(z_ij) - before) / \sigma

for one sampled j a node, G = I - W with its largest eigenvalue L_G, and r_ij = \sigma / (\sigma + L_ij), L_ij the
smoothness of f_ij. \theta_i = -(1/\sigma) \sum_j \nabla f_ij(z_ij) plus what was exchanged, which sums to zero over
nodes, so that z_ij = \theta_i = x* at any fixed point. Each step size is one over the smoothness of the dual in its
block: 1 + L_ij / \sigma relative to the divergence of f_ij^*, and L_G / \sigma over the edges. The paper's own step
sizes and probabilities, which its rate needs, are not reproduced.

`params` are the points z_ij where the next gradient is wanted, \nabla F_ij as it is; the answer, `adozoo.eval_params`,
is \theta.
"""

import functools
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_fixed
from adozoo._components import check_samples, component_table, pick, put, sampled_by, spread, with_samples
from adozoo._constants import by_smoothness, check_constants
from adozoo._gossip_matrix import extremes
from adozoo._optax import increment, transformation, zero_count
from adozoo.mixing import Mixing
from adozoo.nodes import register_eval_params
from adozoo.parts import named
from adozoo.samples import coins
from adozoo.zoo import Entry, register


class DvrState(NamedTuple):
    r"""\theta, like params; each component's point z_ij and \nabla F_ij there, leaves [n, components, ...]."""

    count: Int[Array, ""]
    primal: PyTree
    points: PyTree
    table: PyTree


@register_eval_params(DvrState)
def _(state: DvrState, params: PyTree) -> PyTree:
    del params
    return state.primal


def dvr(
    mix: Mixing, strong_convexity: Any, smoothness: Any, samples: Any, coins: Any, table: PyTree | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Dual-free decentralised variance reduction: randomised steps, of one component's gradient a node or of gossip.

    Update: see above; z_ij = x^0 at the start. Where a step communicates, its gradients are not used; the first step
    that does not takes its gradients at x^0.

    Sent: one vector over each link in the steps whose coin shows heads, nothing in the others.

    Assumptions: W symmetric and fixed; gradients of the sampled components, `problem.sampled_gradient(samples)`.

    Args:
      mix: the mixing, over n nodes.
      strong_convexity: \sigma, which every component F_ij has.
      smoothness: of the components F_ij: a number, a traced scalar, a schedule step -> scalar, or one number a
        component, [n, components] (`problem.component_smoothness`).
      samples: step -> [n] component indices, `adozoo.samples` or `adozoo.recorded_samples`.
      coins: step -> whether the nodes communicate, `adozoo.coins` or `adozoo.recorded_coins`.
      table: gradients of all components at the start, leaves [n, components, ...]; zeros by default, as if the start
        were optimal for every component.

    Returns:
      The transformation over stacked pytrees; its state holds twice as many vectors a node as there are components.

    Raises:
      ValueError: at build time for a number out of range, \sigma > L, samples for other nodes, coins without
        probability, or a mixing that is traced, not symmetric or not fixed; in `init` for a table of another shape.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> problem = adozoo.problems.least_squares(
      ...     rng.normal(size=(4, 10, 2)), rng.normal(size=(4, 10)), l2=0.5
      ... )
      >>> samples = adozoo.samples(jax.random.key(0), n=4, components=10)
      >>> coins = adozoo.coins(jax.random.key(1), 0.3)
      >>> mix = adozoo.mixing(adozoo.graphs.ring(4))
      >>> tx = adozoo.dvr(mix, 0.5, problem.component_smoothness, samples, coins)
      >>> _, state, trace = adozoo.simulate(
      ...     tx,
      ...     problem.sampled_gradient(samples),
      ...     problem.init(),
      ...     4000,
      ...     metrics=problem.metrics(),
      ...     every=4000,
      ... )
      >>> bool(trace["distance"][-1] < 1e-8)
      True

    References:
      Hendrikx, Bach, Massoulie, Dual-free stochastic decentralized optimization with variance reduction, NeurIPS 2020.
    """
    check_fixed("dvr", mix)
    check_constants("dvr", strong_convexity, smoothness)
    check_samples("dvr", samples, mix)
    if not (callable(coins) and hasattr(coins, "probability")):
        raise ValueError(
            f"dvr: coins must say when to communicate, and with what `probability`, got {type(coins).__name__}. Use "
            "adozoo.coins(key, probability) or adozoo.recorded_coins(heads)."
        )
    _, largest = extremes("dvr", mix)
    share = 1 / samples.components
    counted = isinstance(coins.probability, Real)  # what counts messages needs a number
    gossip = mix.used_in(float(coins.probability)) if counted else mix

    def init(params: PyTree) -> DvrState:
        known = component_table("dvr", samples, mix, params, table)
        points = jax.tree.map(lambda x: spread(x, samples.components), params)
        slopes = jax.tree.map(lambda rows: jnp.mean(rows, axis=1), known)
        return DvrState(zero_count(), _tree.axpy(-1 / jnp.asarray(strong_convexity), slopes, params), points, known)

    def share_of_primal(smoothness: Any, indices: Int[Array, " rows"]) -> Array:
        """r_ij of the sampled components, one a node or one for all."""
        level = jnp.asarray(smoothness)
        level = pick(level[mix.own_nodes], indices) if level.ndim else level
        return strong_convexity / (strong_convexity + share * (level - strong_convexity))

    def talk(state: DvrState) -> PyTree:
        disagreement = _tree.sub(state.primal, gossip(state.primal, state.count))
        return _tree.axpy(-1 / largest, disagreement, state.primal)

    def update(grads: PyTree, state: DvrState, params: PyTree) -> tuple[PyTree, DvrState]:
        count, heads = state.count, coins(state.count)
        indices = sampled_by(samples, mix, count)
        point, slope = pick((state.points, state.table), indices)
        turned = _tree.axpy(-1 / jnp.asarray(strong_convexity), _tree.sub(grads, slope), _tree.sub(params, point))
        ascended = _tree.axpy(share, turned, state.primal)

        def choose(when: PyTree, otherwise: PyTree) -> PyTree:
            return jax.tree.map(lambda a, b: jnp.where(heads, a, b.astype(a.dtype)), when, otherwise)

        if mix.remembers:
            primal = choose(talk(state), ascended)
        else:
            primal = jax.lax.cond(heads, lambda: talk(state), lambda: ascended)
        points, known = put((state.points, state.table), indices, (choose(point, params), choose(slope, grads)))

        upcoming = sampled_by(samples, mix, count + 1)
        pull = share_of_primal(_tree.schedule_value(smoothness, count), upcoming)
        target = jax.tree.map(lambda z, x: z + _tree.rows(pull, z) * (x - z), pick(points, upcoming), primal)
        return _tree.sub(target, params), DvrState(increment(count), primal, points, known)

    return named("dvr", transformation(init, update))


@functools.wraps(dvr)
def _registered(
    learning_rate: Any, mix: Mixing, samples: Any, probability: Any, **options: Any
) -> optax.GradientTransformationExtraArgs:
    """Coins from key 4, with the period of the samples."""
    tossed = coins(jax.random.key(4), probability, samples.period)
    return by_smoothness(dvr)(learning_rate, mix, samples=samples, coins=tossed, **options)


register(
    Entry(
        "dvr",
        with_samples(_registered),
        "accelerated",
        "Dual-free decentralised variance reduction (DVR)",
        "Hendrikx, Bach, Massoulie, NeurIPS 2020",
        frozenset({"symmetric"}),
        {"strong_convexity": 0.3, "components": 2, "period": 32, "probability": 0.5},
        {"strong_convexity": (0.01, 0.03, 0.1, 0.3)},
        preserves_mean=False,
        vectors=0.5,
        random=True,
        fixed_graph=True,
        unbounded=frozenset({"strong_convexity"}),
        patience=2,
        overlaps=True,
    )
)
