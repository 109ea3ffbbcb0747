r"""SSDA and MSDA: Nesterov's method on the dual problem (Scaman, Bach, Bubeck, Lee, Massoulie, ICML 2017).

With G = I - W the dual of min_x \sum_i f_i(x) is to minimise \sum_i f_i^*(y_i) over y in the range of G. Each step of
Nesterov's method there, in the variables y = G^{1/2} \lambda that nodes can keep, is

    \theta_i = \nabla f_i^*(y_i),    v^+ = y - \eta G \theta,    y^+ = v^+ + \beta (v^+ - v).

`params` are the y_i, and `update` takes the \theta_i as its gradients: `problem.dual_gradient`. The answer,
`adozoo.eval_params`, is the last \theta; before the first step it is zero. With l, L_G the smallest positive and the
largest eigenvalue of G, \gamma = l / L_G and \kappa = L / \mu,

    \eta = \mu / L_G,    \beta = (\sqrt{\kappa} - \sqrt{\gamma}) / (\sqrt{\kappa} + \sqrt{\gamma})

shrinks the squared error by 1 - \sqrt{\gamma / \kappa} a step, up to a constant. MSDA puts Chebyshev's polynomial of
K = \lfloor 1 / \sqrt{\gamma} \rfloor rounds (`adozoo.chebyshev`) in the place of G: its positive eigenvalues lie in
[1 - w, 1 + w], and no method takes fewer gradients and rounds, in their order of magnitude. On some graphs that root is
an integer but for rounding (on the complete one it is 1): the floor is taken of 1e-12 more.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_fixed, check_number
from adozoo._constants import by_smoothness, check_constants
from adozoo._gossip_matrix import extremes
from adozoo._optax import increment, transformation, zero_count
from adozoo.mixing import Mixing
from adozoo.nodes import register_eval_params
from adozoo.parts import named
from adozoo.polynomials import chebyshev, chebyshev_width
from adozoo.zoo import Entry, register


class SsdaState(NamedTuple):
    r"""v, the dual point before its extrapolation, and \theta, the last primal points; stacked like params."""

    count: Int[Array, ""]
    moved: PyTree
    primal: PyTree


@register_eval_params(SsdaState)
def _(state: SsdaState, params: PyTree) -> PyTree:
    del params
    return state.primal


def ssda(
    mix: Mixing,
    strong_convexity: Any,
    smoothness: Any,
    step_size: Any = None,
    momentum: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Single-step dual accelerated method: one gradient of the conjugates and one round of gossip a step.

    Update: v^+ = y - \eta (\theta - W \theta);  y^+ = v^+ + \beta (v^+ - v), with \theta = \nabla f^*(y) and v^0 = y^0.

    Sent: one vector over each link and step, \theta.

    Assumptions: W symmetric and fixed; params that sum to zero over nodes when it starts, as zeros do. (Their sum s
    stays what it is: from another start the method minimises \sum_i f_i(x) - <s, x>.)

    Args:
      mix: the mixing, over n nodes.
      strong_convexity: \mu, which every f_i has.
      smoothness: L, of every f_i; a number, a traced scalar or a schedule step -> scalar.
      step_size: \eta, by default \mu / L_G.
      momentum: \beta, by default the theory's (see above).

    Returns:
      The transformation over stacked pytrees of dual variables.

    Raises:
      ValueError: at build time for a number out of range, \mu > L, or a mixing that is traced, not symmetric or not
        fixed.

    Example:
      >>> problem = adozoo.problems.random_quadratic(8, 2)
      >>> mix = adozoo.mixing(adozoo.graphs.ring(8))
      >>> tx = adozoo.ssda(mix, problem.strong_convexity, problem.smoothness)
      >>> dual, state, trace = adozoo.simulate(
      ...     tx,
      ...     problem.dual_gradient,
      ...     problem.init(),
      ...     300,
      ...     metrics=problem.metrics(),
      ...     every=300,
      ... )
      >>> bool(trace["distance"][-1] < 1e-10)
      True

    References:
      Scaman et al., 2017, algorithm 1; Nesterov, Introductory lectures on convex optimization, 2004, section 2.2.
    """
    check_fixed("ssda", mix)
    return _accelerated("ssda", mix, extremes("ssda", mix), strong_convexity, smoothness, step_size, momentum)


def msda(
    mix: Mixing,
    strong_convexity: Any,
    smoothness: Any,
    rounds: int | None = None,
    step_size: Any = None,
    momentum: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Multi-step dual accelerated method: SSDA with K rounds of Chebyshev's polynomial a gradient.

    Update: that of `ssda` with P_K(G) for G, and 1 - w, 1 + w for its eigenvalues, w = 1 / T_K((L_G + l) / (L_G - l)).

    Sent: K vectors over each link and step, one after the other.

    Assumptions: those of `ssda`.

    Args:
      mix: the mixing, over n nodes.
      strong_convexity: \mu, which every f_i has.
      smoothness: L, of every f_i; a number, a traced scalar or a schedule step -> scalar.
      rounds: K, by default \lfloor \sqrt{L_G / l} \rfloor.
      step_size: \eta, by default \mu / (1 + w).
      momentum: \beta, by default that of `ssda` for these eigenvalues.

    Returns:
      The transformation over stacked pytrees of dual variables.

    Raises:
      ValueError: at build time for a number out of range, \mu > L, or a mixing that is traced, not symmetric or not
        fixed.

    Example:
      >>> problem = adozoo.problems.random_quadratic(16, 2)
      >>> mix = adozoo.mixing(adozoo.graphs.ring(16))
      >>> tx = adozoo.msda(mix, problem.strong_convexity, problem.smoothness)
      >>> dual, state, trace = adozoo.simulate(
      ...     tx,
      ...     problem.dual_gradient,
      ...     problem.init(),
      ...     120,
      ...     metrics=problem.metrics(),
      ...     every=120,
      ... )
      >>> bool(trace["distance"][-1] < 1e-10)
      True

    References:
      Scaman et al., 2017, algorithm 2.
    """
    check_fixed("msda", mix)
    smallest, largest = extremes("msda", mix)
    if rounds is None:
        rounds = math.floor(math.sqrt(largest / smallest) + 1e-12)
    width = chebyshev_width(smallest, largest, rounds)
    polynomial = chebyshev(mix, rounds, (smallest, largest))
    return _accelerated("msda", polynomial, (1 - width, 1 + width), strong_convexity, smoothness, step_size, momentum)


def _accelerated(
    name: str,
    mix: Mixing,
    eigenvalues: tuple[float, float],
    strong_convexity: Any,
    smoothness: Any,
    step_size: Any,
    momentum: Any,
) -> optax.GradientTransformationExtraArgs:
    """Nesterov's method on the dual over a mixing, with the extreme positive eigenvalues of I - W."""
    check_constants(name, strong_convexity, smoothness)
    if step_size is not None:
        check_number(name, "step_size", step_size)
    if momentum is not None:
        check_number(name, "momentum", momentum, 0, 1, closed=True)
    smallest, largest = eigenvalues
    size = strong_convexity / largest if step_size is None else step_size

    def extrapolation(count: Int[Array, ""]) -> Any:
        if momentum is not None:
            return momentum
        condition = _tree.schedule_value(smoothness, count) / strong_convexity
        root = jnp.sqrt(condition * (largest / smallest))
        return (root - 1) / (root + 1)

    def init(params: PyTree) -> SsdaState:
        return SsdaState(zero_count(), params, _tree.zeros_like(params))

    def update(grads: PyTree, state: SsdaState, params: PyTree) -> tuple[PyTree, SsdaState]:
        disagreement = _tree.sub(grads, mix(grads, state.count))
        moved = _tree.axpy(-jnp.asarray(size), disagreement, params)
        ahead = _tree.axpy(extrapolation(state.count), _tree.sub(moved, state.moved), moved)
        primal = optax.tree.cast_like(grads, params)
        return _tree.sub(ahead, params), SsdaState(increment(state.count), moved, primal)

    return named(name, transformation(init, update))


_PAPER = "Scaman, Bach, Bubeck, Lee, Massoulie, ICML 2017"
for _factory, _title, _options, _rounds in (
    (ssda, "Single-step dual accelerated method (SSDA)", {}, 1),
    (msda, "Multi-step dual accelerated method (MSDA)", {"rounds": 2}, 2),
):
    register(
        Entry(
            _factory.__name__,
            by_smoothness(_factory),
            "accelerated",
            _title,
            _PAPER,
            frozenset({"symmetric"}),
            {"strong_convexity": 0.3, **_options},
            {"strong_convexity": (0.01, 0.03, 0.1, 0.3)},
            vectors=_rounds,
            rounds=_rounds,
            fixed_graph=True,
            unbounded=frozenset({"strong_convexity"}),
            oracle="dual",
        )
    )
