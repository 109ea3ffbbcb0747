r"""APAPC and OPAPC, accelerated proximal alternating predictor-corrector methods (Kovalev, Salim, Richtarik, 2020).

Nesterov's acceleration of a primal-dual method for min F(x) subject to G x = 0, with G = I - W:

    x_g = \tau x + (1 - \tau) x_f,
    h   = (x - \eta (\nabla F(x_g) - \mu x_g + y)) / (1 + \eta \mu),        y <- y + \theta G h,
    x^+ = (x - \eta (\nabla F(x_g) - \mu x_g + y)) / (1 + \eta \mu)   (the new y),
    x_f <- x_g + (2 \tau / (2 - \tau)) (x^+ - x).

Params are x_g, where the gradient is wanted; x and y are kept, and x_f follows from x_g. The method's answer is x.
OPAPC is APAPC over Chebyshev's polynomial of G, whose eigenvalues lie in [11/15, 19/15]; with \chi = \lambda_{\max} /
\lambda_{\min}^+ of G it needs \lceil\sqrt\chi\rceil rounds for that: with \lfloor\sqrt\chi\rfloor they reach beyond.

The step sizes below were recalled from the paper, and checked: the rates that were recalled with them hold, with a
factor of two and more to spare, in all examples that were tried. That is no proof that the constants are the paper's.

References: Kovalev, Salim, Richtarik, Optimal and practical algorithms for smooth and strongly convex decentralized
optimization, NeurIPS 2020.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_mixing, check_number
from adozoo._constants import by_smoothness, check_constants
from adozoo._gossip_matrix import extremes
from adozoo._optax import increment, transformation, zero_count
from adozoo.mixing import Mixing
from adozoo.nodes import register_eval_params
from adozoo.parts import named
from adozoo.polynomials import chebyshev, chebyshev_rounds, chebyshev_width
from adozoo.zoo import Entry, register

WIDTH = 4 / 15
"""Chebyshev's polynomial of enough rounds has its eigenvalues in 1 - WIDTH, 1 + WIDTH."""


class ApapcState(NamedTuple):
    """x, the iterate and answer, and y, the dual variable, stacked like params; the sum of y over nodes stays 0."""

    count: Int[Array, ""]
    iterate: PyTree
    dual: PyTree


@register_eval_params(ApapcState)
def _(state: ApapcState, params: PyTree) -> PyTree:
    return state.iterate


def apapc(
    mix: Mixing,
    strong_convexity: Any,
    smoothness: Any,
    momentum: Any = None,
    step_size: Any = None,
    eigenvalues: tuple[Any, Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""APAPC: O((\sqrt{\kappa \chi} + \chi) \log(1/\epsilon)) gradients and messages, \kappa = L / \mu.

    Update: h = (x - \eta (g - \mu x_g + y)) / (1 + \eta \mu);  y <- y + \theta (h - W h);
    x <- (x - \eta (g - \mu x_g + y)) / (1 + \eta \mu) (the new y);  x_f <- x_g + (2 \tau / (2 - \tau)) (change of x);
    x_g <- \tau x + (1 - \tau) x_f. With \theta = 1 / (\eta \lambda_{\max}(I - W)) scaling I - W changes nothing.

    Sent: one vector over each link and step.

    Assumptions: W symmetric, doubly stochastic, connected, constant; every f_i \mu-strongly convex and L-smooth.

    Args:
      mix: the mixing, over n nodes.
      strong_convexity: \mu, a number or a traced scalar.
      smoothness: L, a number, a traced scalar or a schedule step -> scalar.
      momentum: \tau in (0, 1], by default min(1, \sqrt{\chi / \kappa} / 2).
      step_size: \eta, by default 1 / (4 \tau L).
      eigenvalues: the smallest positive and the largest eigenvalue of I - W, perhaps traced; by default they are
        computed when the factory is called, for which W must be known then.

    Returns:
      The transformation over stacked pytrees; params are x_g, `adozoo.eval_params` gives x.

    Raises:
      ValueError: at build time for numbers out of range, \mu > L, a mixing that is not symmetric and doubly stochastic,
        or one whose eigenvalues are not known.

    Example:
      >>> problem = adozoo.problems.random_quadratic(8, 3, strong_convexity=0.01)
      >>> tx = adozoo.apapc(adozoo.mixing(adozoo.graphs.ring(8)), 0.01, 1.0)
      >>> _, _, trace = adozoo.simulate(
      ...     tx, problem.gradient, problem.init(), 1000, metrics=problem.metrics()
      ... )
      >>> bool(trace["distance"][-1] < 1e-10)
      True
    """
    check_mixing("apapc", mix, symmetric=True)
    smallest, largest = extremes("apapc", mix) if eigenvalues is None else eigenvalues
    return _apapc("apapc", mix, strong_convexity, smoothness, largest, largest / smallest, momentum, step_size)


def opapc(
    mix: Mixing, strong_convexity: Any, smoothness: Any, rounds: int | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""OPAPC: optimal, with O(\sqrt\kappa \log(1/\epsilon)) gradients, O(\sqrt{\kappa \chi} \log(1/\epsilon)) messages.

    Update: that of `apapc` over `adozoo.chebyshev(mix, T)`, with \theta = 15 / (19 \eta), \eta = 1 / (4 \tau L) and
    \tau = min(1, \sqrt{19 / (15 \kappa)} / 2). With fewer rounds than \lceil\sqrt\chi\rceil the eigenvalues lie in a
    wider interval, [1 - w, 1 + w], and the constants are APAPC's for it.

    Sent: T vectors over each link and step, one after the other.

    Assumptions: W symmetric, doubly stochastic, connected, constant; every f_i \mu-strongly convex and L-smooth.

    Args:
      mix: the mixing, over n nodes.
      strong_convexity: \mu, a number or a traced scalar.
      smoothness: L, a number, a traced scalar or a schedule step -> scalar.
      rounds: T, by default \lceil\sqrt\chi\rceil.

    Returns:
      The transformation over stacked pytrees; params are x_g, `adozoo.eval_params` gives x.

    Raises:
      ValueError: as `apapc`, and for a number of rounds below 1.

    Example:
      >>> problem = adozoo.problems.random_quadratic(16, 3, strong_convexity=0.01)
      >>> tx = adozoo.opapc(adozoo.mixing(adozoo.graphs.ring(16)), 0.01, 1.0)
      >>> _, _, trace = adozoo.simulate(
      ...     tx, problem.gradient, problem.init(), 700, metrics=problem.metrics()
      ... )
      >>> bool(trace["distance"][-1] < 1e-10)
      True
    """
    check_mixing("opapc", mix, symmetric=True)
    ends = extremes("opapc", mix)
    enough = chebyshev_rounds(*ends)
    rounds = enough if rounds is None else rounds
    polynomial = chebyshev(mix, rounds, ends)
    if rounds >= enough:
        largest = chi = 1 + WIDTH
    else:
        width = chebyshev_width(*ends, rounds)
        largest, chi = 1 + width, (1 + width) / (1 - width)
    return _apapc("opapc", polynomial, strong_convexity, smoothness, largest, chi, None, None)


def _apapc(
    name: str,
    mix: Mixing,
    strong_convexity: Any,
    smoothness: Any,
    largest: Any,
    chi: Any,
    momentum: Any,
    step_size: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""The recursion, with \lambda_{\max} of I - W and the \chi by which \tau is chosen."""
    check_constants(name, strong_convexity, smoothness)
    if momentum is not None:
        check_number(name, "momentum", momentum, 0, 1 + 1e-12)
    if step_size is not None:
        check_number(name, "step_size", step_size)

    def init(params: PyTree) -> ApapcState:
        return ApapcState(zero_count(), params, _tree.zeros_like(params))

    def update(grads: PyTree, state: ApapcState, params: PyTree) -> tuple[PyTree, ApapcState]:
        L = _tree.schedule_value(smoothness, state.count)
        tau = jnp.minimum(1, jnp.sqrt(chi * strong_convexity / L) / 2) if momentum is None else momentum
        eta = 1 / (4 * tau * L) if step_size is None else step_size
        shrink = 1 / (1 + eta * strong_convexity)
        pulled = _tree.axpy(-eta, grads, _tree.axpy(eta * strong_convexity, params, state.iterate))
        predicted = _tree.scale(shrink, _tree.axpy(-eta, state.dual, pulled))
        dual = _tree.axpy(1 / (eta * largest), _tree.sub(predicted, mix(predicted, state.count)), state.dual)
        iterate = _tree.scale(shrink, _tree.axpy(-eta, dual, pulled))
        fast = _tree.axpy(2 * tau / (2 - tau), _tree.sub(iterate, state.iterate), params)
        point = _tree.axpy(tau, _tree.sub(iterate, fast), fast)
        return _tree.sub(point, params), ApapcState(increment(state.count), iterate, dual)

    return named(name, transformation(init, update))


register(
    Entry(
        "apapc",
        by_smoothness(apapc),
        "accelerated",
        "APAPC",
        "Kovalev, Salim, Richtarik, NeurIPS 2020",
        frozenset({"symmetric"}),
        {"strong_convexity": 0.3},
        {"strong_convexity": (0.01, 0.03, 0.1, 0.3)},
        fixed_graph=True,
        unbounded=frozenset({"strong_convexity"}),
    )
)
register(
    Entry(
        "opapc",
        by_smoothness(opapc),
        "accelerated",
        "OPAPC (two rounds)",
        "Kovalev, Salim, Richtarik, NeurIPS 2020",
        frozenset({"symmetric"}),
        {"strong_convexity": 0.3, "rounds": 2},
        {"strong_convexity": (0.01, 0.03, 0.1, 0.3)},
        vectors=2,
        rounds=2,
        fixed_graph=True,
        unbounded=frozenset({"strong_convexity"}),
    )
)
