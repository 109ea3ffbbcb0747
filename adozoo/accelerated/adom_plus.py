r"""ADOM+, optimal over time-varying networks, with primal gradients (Kovalev et al., NeurIPS 2021).

With G_t x = (x - W_t x) / \lambda_{\max}, or a product of several of them, and \nu = \alpha = \mu / 2, one step is

    x_g = \tau_1 x + (1 - \tau_1) x_f,   y_g = \sigma_1 y + (1 - \sigma_1) y_f,   z_g = \sigma_1 z + (1 - \sigma_1) z_f,
    x^+ = x + \eta \alpha (x_g - x^+) - \eta (\nabla F(x_g) - \nu x_g - y^+),
    y^+ = y + \theta \beta (\nabla F(x_g) - \nu x_g - y^+) - \theta ((y_g + z_g) / \nu + x^+)   (both implicit; solved),
    x_f <- x_g + \tau_2 (x^+ - x),        y_f <- y_g + \sigma_2 (y^+ - y),
    u = (\gamma / \nu) (y_g + z_g) + m,   z <- z + \gamma \delta (z_g - z) - G u,    m <- u - G u,
    z_f <- z_g - \zeta G (y_g + z_g).

Params are x_g, where the gradient is wanted; the answer is x. Nothing that is sent depends on the step's gradient, so
that messages and gradients can be under way together.

The constants are those of the authors' code, which draws y and m at random at the start (here they start at 0), and
multiplies a step's matrices in the other order. The rate that goes with them was recalled from the paper, and holds
with a factor of two and more to spare wherever it was tried.

The mean of m over nodes grows for ever, by (\gamma / \nu) times the mean of y_g + z_g in a step. It has no influence,
since G m alone matters, but its rounding has: in double precision errors stay about 1e-10 after 10^4 steps.

References: Kovalev, Gasanov, Gasnikov, Richtarik, Lower bounds and optimal algorithms for smooth and strongly convex
decentralized optimization over time-varying networks, NeurIPS 2021.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_mixing, check_number
from adozoo._constants import by_smoothness, check_constants
from adozoo._gossip_matrix import CONNECTED, contraction, ends_by_step
from adozoo._optax import increment, transformation, zero_count
from adozoo.mixing import Mixing
from adozoo.nodes import register_eval_params
from adozoo.parts import named
from adozoo.polynomials import multi_consensus
from adozoo.relaxation import Relaxed
from adozoo.zoo import Entry, register


class AdomPlusState(NamedTuple):
    """x, the iterate and answer; the duals y, y_g, z, z_g; and m: all stacked like params. The sum of z stays 0."""

    count: Int[Array, ""]
    iterate: PyTree
    dual: PyTree
    dual_point: PyTree
    consensus: PyTree
    consensus_point: PyTree
    feedback: PyTree


@register_eval_params(AdomPlusState)
def _(state: AdomPlusState, params: PyTree) -> PyTree:
    return state.iterate


def adom_plus(
    mix: Mixing, strong_convexity: Any, smoothness: Any, rounds: int = 1, chi: Any = None
) -> optax.GradientTransformationExtraArgs:
    r"""ADOM+: O(\chi \sqrt\kappa \log(1/\epsilon)) gradients and messages over time-varying graphs, \kappa = L / \mu.

    Update: see the module. Constants, for \|x - G x\|^2 <= (1 - 1/\chi) \|x\|^2 on the nodes' disagreement:
    \tau_2 = \sqrt{\mu / L}, \tau_1 = 1 / (1/\tau_2 + 1/2), \sigma_2 = \tau_2 / (16 \chi), \sigma_1 = 1 / (1/\sigma_2 +
    1/2), \eta = 1 / (L \tau_2), \beta = 1 / (2L), \theta = \nu / (4 \sigma_2), \gamma = \nu / (14 \sigma_2 \chi^2),
    \delta = 1 / (17 L), \zeta = 1/2, \alpha = \nu = \mu / 2.

    With T rounds (multi-consensus) G = I - \prod (I - G_q) over the T matrices q = tT, ..., tT + T - 1. With T =
    \lceil \chi \ln 2 \rceil the product's \chi is 2 at most, and gradients are O(\sqrt\kappa \log(1/\epsilon)).

    Sent: 2 T vectors over each link and step, two at a time.

    Assumptions: W_t symmetric, doubly stochastic, and any T steps in a row that one step of the method goes through
    connect the nodes; every f_i \mu-strongly convex and L-smooth.

    Args:
      mix: the mixing, over n nodes: fixed, or a schedule with a period.
      strong_convexity: \mu, a number or a traced scalar.
      smoothness: L, a number, a traced scalar or a schedule step -> scalar.
      rounds: T.
      chi: \chi, by default the smallest number for which the inequality above holds at every step. The paper's
        experiments take the larger \lambda_{\max} / \lambda_{\min}^+ of one round, or 2 with multi-consensus.

    Returns:
      The transformation over stacked pytrees; params are x_g, `adozoo.eval_params` gives x.

    Raises:
      ValueError: at build time for numbers out of range, \mu > L, a mixing that is not symmetric and doubly stochastic,
        whose matrices are not known, or whose nodes T steps do not connect.

    Example:
      >>> problem = adozoo.problems.random_quadratic(6, 2, strong_convexity=0.1)
      >>> graphs = [adozoo.graphs.ring(6), adozoo.graphs.star(6)]
      >>> mix = adozoo.cycle([adozoo.mixing(graph) for graph in graphs])
      >>> tx = adozoo.adom_plus(mix, 0.1, 1.0, rounds=4)
      >>> _, _, trace = adozoo.simulate(
      ...     tx, problem.gradient, problem.init(), 3000, metrics=problem.metrics()
      ... )
      >>> bool(trace["distance"][-1] < 1e-8)
      True
    """
    check_mixing("adom_plus", mix, symmetric=True)
    check_constants("adom_plus", strong_convexity, smoothness)
    largest = max(high for _, high in ends_by_step("adom_plus", mix))
    consensus = multi_consensus(Relaxed(mix, 1 / largest), rounds)
    if chi is None:
        chi = _smallest_chi(consensus, rounds)
    check_number("adom_plus", "chi", chi, 1 - 1e-9, closed=True)

    def init(params: PyTree) -> AdomPlusState:
        return AdomPlusState(zero_count(), params, *[_tree.zeros_like(params) for _ in range(5)])

    def update(grads: PyTree, state: AdomPlusState, params: PyTree) -> tuple[PyTree, AdomPlusState]:
        L = _tree.schedule_value(smoothness, state.count)
        nu, tau, eta, sigma, sigma_1, theta, gamma = _constants(strong_convexity, L, chi)
        x, y, z = state.iterate, state.dual, state.consensus
        total = _tree.add(state.dual_point, state.consensus_point)

        slope = _tree.axpy(-nu, params, grads)
        pulled = _tree.axpy(-eta, slope, _tree.axpy(eta * nu, params, x))
        shrink, curve = 1 / (1 + eta * nu), theta / (2 * L)
        right = _tree.axpy(-theta * shrink, pulled, _tree.axpy(-theta / nu, total, _tree.axpy(curve, slope, y)))
        dual = _tree.scale(1 / (1 + curve + theta * eta * shrink), right)
        iterate = _tree.scale(shrink, _tree.axpy(eta, dual, pulled))
        point = _look_ahead(iterate, x, params, tau, 1 / (1 / tau + 0.5))
        dual_point = _look_ahead(dual, y, state.dual_point, sigma, sigma_1)

        fed = _tree.axpy(gamma / nu, total, state.feedback)
        feedback, shared = consensus((fed, total), state.count)
        drawn = _tree.axpy(gamma / (17 * L), _tree.sub(state.consensus_point, z), z)
        new = _tree.sub(drawn, _tree.sub(fed, feedback))
        agreed = _tree.axpy(-0.5, _tree.sub(total, shared), state.consensus_point)
        consensus_point = _tree.axpy(sigma_1, _tree.sub(new, agreed), agreed)
        after = (iterate, dual, dual_point, new, consensus_point, feedback)
        return _tree.sub(point, params), AdomPlusState(increment(state.count), *after)

    return named("adom_plus", transformation(init, update))


def _constants(strong_convexity: Any, L: Any, chi: Any) -> tuple[Any, ...]:
    r"""\nu, \tau_2, \eta, \sigma_2, \sigma_1, \theta, \gamma."""
    nu, tau = strong_convexity / 2, jnp.sqrt(strong_convexity / L)
    sigma = tau / (16 * chi)
    return nu, tau, 1 / (L * tau), sigma, 1 / (1 / sigma + 0.5), nu / (4 * sigma), nu / (14 * sigma * chi**2)


def _look_ahead(new: PyTree, old: PyTree, point: PyTree, step: Any, share: Any) -> PyTree:
    """The point at which Nesterov looks next: share * new + (1 - share) * (point + step * (new - old))."""
    fast = _tree.axpy(step, _tree.sub(new, old), point)
    return _tree.axpy(share, _tree.sub(new, fast), fast)


def _smallest_chi(consensus: Mixing, rounds: int) -> float:
    norm = contraction("adom_plus", consensus)
    if norm > 1 - CONNECTED:
        raise ValueError(
            f"adom_plus: the graphs of {rounds} step(s) of mix that one step goes through must connect its n = "
            f"{consensus.n} nodes, but do not always. Pass more rounds, or a schedule of connected graphs."
        )
    return 1 / (1 - norm**2)


for _name, _title, _rounds, _mixings in (
    ("adom_plus", "ADOM+", 1, {"symmetric"}),
    ("adom_plus_multi_consensus", "ADOM+ with multi-consensus (two rounds)", 2, {"symmetric", "varying"}),
):
    register(
        Entry(
            _name,
            by_smoothness(adom_plus),
            "accelerated",
            _title,
            "Kovalev, Gasanov, Gasnikov, Richtarik, NeurIPS 2021",
            frozenset(_mixings),
            {"strong_convexity": 0.3, "rounds": _rounds},
            {"strong_convexity": (0.01, 0.03, 0.1, 0.3)},
            preserves_mean=False,
            vectors=2 * _rounds,
            rounds=_rounds,
            fixed_graph=True,
            unbounded=frozenset({"strong_convexity"}),
            patience=6 - _rounds,
            drifts=True,
            overlaps=True,
        )
    )
