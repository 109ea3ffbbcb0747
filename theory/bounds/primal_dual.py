r"""Linear rates of the exact methods: EXTRA, NIDS, exact diffusion, D2 and gradient tracking.

All of them are the recursion of `theory.bounds._quadratics`, and one Lyapunov function bounds them all. With errors
measured from the fixed point, K = I - C and \Phi = K x - \eta (g(x) - g(x*)), where g(x) - g(x*) = H x for a symmetric
block-diagonal \mu I <= H <= L I, the step is z' = \Phi - B y, y' = y + B z'. Expanding,

    z''(I - B^2) z' + |y'|^2 = |\Phi|^2 + y'(I - B^2) y.

Let k be the smallest eigenvalue of K, 0 < K <= I. Then -q K <= K - \eta H <= (1 - \eta \mu) K with q = \eta L / k - 1,
so that N = K^{-1/2} (K - \eta H) K^{-1/2} has norm at most p = max(1 - \eta \mu, q), and (K - \eta H)^2 = K^{1/2} N K N
K^{1/2} <= p^2 K. Hence |\Phi|^2 <= p^2 x' K x = p^2 z' A K A z <= p^2 z'(I - B^2) z wherever A^2 K <= I - B^2, and

    V(z, y) = z'(I - B^2) z + |y|^2 shrinks by max(p^2, 1 - b^2) a step, b^2 the smallest eigenvalue of B^2 but 0.

A^2 K <= I - B^2 reads (1 + w)/2 <= (1 + w)/2 for EXTRA, (1 + w)^2/4 <= (1 + w)/2 for NIDS and exact diffusion, and
w^2 <= w (D2), w^2, w^3, w^4 <= 2 w - w^2 (DIGing, ATC tracking, AugDGM) on the eigenvalues w of W: these four need a
positive definite W.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy

from theory.bounds._bound import Bound, Search
from theory.bounds._laplacians import Measured, Table
from theory.bounds._quadratics import DIMENSION, Quadratics, lyapunov_factor, quadratics, radius, step_map
from theory.bounds.symbols import lambda_2, lambda_n, learning_rate, nodes, sigma, smoothness, strong_convexity

eta, mu, L = learning_rate, strong_convexity, smoothness
_STEP = r"V(z^{t+1}, y^{t+1}) / V(z^t, y^t)"
_RADIUS = r"\limsup_t \|x^t - x^*\|^{1/t}"
_CONSTANT = "W symmetric, doubly stochastic, connected, the same in every step"
_POSITIVE = "W positive definite (a lazy one is)"
_UNIFIED = (
    "the recursion: Alghunaim, Ryu, Yuan, Sayed, IEEE TAC 2021; the Lyapunov function and constants: derived here"
)


def _search(method: str, measured: Callable, limit: Callable[[Quadratics], Any], lowest: float = -0.999) -> Search:
    """Try a bound on one method, with step sizes up to a limit."""

    def measure(points: np.ndarray) -> Measured:
        collected = Table(len(points))
        for group in quadratics(points, lowest):
            step = group.step * limit(group)
            collected.put(group.rows, measured(method, group, step), group.constants() | {"learning_rate": step})
        return collected.result()

    return Search(DIMENSION, measure)


def _rate(method: str, group: Quadratics, step: np.ndarray) -> np.ndarray:
    return radius(step_map(method, group, step))


def _lyapunov(
    name: str, title: str, methods: tuple[str, ...], smallest: Any, dual: Any, positive: bool = False
) -> Bound:
    """The bound derived above, for one form; `smallest` is k and `dual` is 1 - b^2."""
    condition = eta * L < 2 * smallest
    return Bound(
        name=f"{name}_lyapunov",
        statement=f"{title} shrinks V = z'(I - B^2)z + |y|^2 in every step by at least this factor.",
        quantity=_STEP,
        expression=sympy.Max((1 - eta * mu) ** 2, (eta * L / smallest - 1) ** 2, dual),
        reference=_UNIFIED,
        evidence="derived",
        rate=True,
        squared=True,
        of="lyapunov",
        condition=sympy.And(condition, lambda_n > 0) if positive else condition,
        assumptions=(_CONSTANT, *((_POSITIVE,) if positive else ())),
        methods=methods,
        search=_search(
            name,
            lyapunov_factor,
            lambda group: 2 * _smallest(smallest, group) / group.smoothness * (1 - 1e-9),
            1e-3 if positive else -0.999,
        ),
    )


def _smallest(expression: Any, group: Quadratics) -> Any:
    """k on a group of instances."""
    return sympy.lambdify([lambda_n], expression)(group.eigenvalues[:, -1])


_HALF = (1 + lambda_2) / 2
_TRACKED = 1 - (1 - lambda_2) ** 2
_NEDIC = 1 + 4 * sympy.sqrt(nodes) * sympy.sqrt(L / mu)
_NEDIC_J = 3 * (L / mu) * _NEDIC


def _nedic_limit(group: Quadratics) -> np.ndarray:
    ratio = group.smoothness / group.strong_convexity
    factor = 3 * ratio * (1 + 4 * np.sqrt(group.nodes * ratio))
    return 1.5 * (1 - group.sigma) ** 2 / (group.strong_convexity * factor)


def _vanishing_steps(points: np.ndarray) -> Measured:
    """The smallest eigenvalue of W where D2 does not blow up as the step size tends to 0."""
    collected = Table(len(points))
    for group in quadratics(points):
        stable = radius(step_map("d2", group, np.zeros(len(group.rows)))) <= 1 + 1e-12
        collected.put(group.rows, np.where(stable, group.eigenvalues[:, -1], np.nan), {})
    return collected.result()


BOUNDS = (
    Bound(
        name="nids",
        statement="NIDS, and exact diffusion from a common start, shrink the squared weighted error by this factor.",
        quantity=_STEP,
        expression=sympy.Max(1 - (2 - eta * L) * mu * eta, 1 - (1 - lambda_2) / 2),
        reference="Li, Shi, Yan, IEEE TSP 2019, Theorem 2; with V here, |Phi|^2 <= (1 - (2 - eta L) mu eta) |x|^2 "
        "as gradients are cocoercive",
        evidence="derived",
        rate=True,
        squared=True,
        of="lyapunov",
        condition=eta * L < 2,
        assumptions=(_CONSTANT,),
        methods=("nids", "exact_diffusion"),
        search=_search("nids", lyapunov_factor, lambda group: 2 / group.smoothness * (1 - 1e-9)),
    ),
    _lyapunov("nids", "NIDS (or exact diffusion)", ("nids", "exact_diffusion"), sympy.Integer(1), _HALF),
    _lyapunov("extra", "EXTRA", ("extra",), (1 + lambda_n) / 2, _HALF),
    _lyapunov("d2", "D2", ("d2",), sympy.Integer(1), lambda_2, positive=True),
    _lyapunov("diging", "DIGing", ("diging",), lambda_n**2, _TRACKED, positive=True),
    _lyapunov("atc_tracking", "ATC gradient tracking", ("atc_tracking",), lambda_n, _TRACKED, positive=True),
    _lyapunov("aug_dgm", "AugDGM", ("aug_dgm",), sympy.Integer(1), _TRACKED, positive=True),
    Bound(
        name="extra_strongly_convex",
        statement="EXTRA converges linearly. (The paper only asks for strong convexity of f plus a penalty.)",
        quantity=_RADIUS,
        expression=sympy.Integer(1),
        reference="Shi, Ling, Wu, Yin, SIAM J. Optim. 2015, Theorem 3.7",
        evidence="recalled",
        condition=eta < mu * (1 + lambda_n) / L**2,
        assumptions=(_CONSTANT,),
        methods=("extra",),
        search=_search(
            "extra",
            _rate,
            lambda group: group.strong_convexity * (1 + group.eigenvalues[:, -1]) / group.smoothness**2 * (1 - 1e-9),
        ),
    ),
    Bound(
        name="extra_large_steps",
        statement="EXTRA does not diverge; with a common Hessian no larger step size is possible.",
        quantity=_RADIUS,
        expression=sympy.Integer(1),
        reference="Li, Yan, 2021 (EXTRA with large step sizes)",
        evidence="recalled",
        condition=eta * L < (5 + 3 * lambda_n) / 4,
        assumptions=(_CONSTANT,),
        methods=("extra",),
        search=_search(
            "extra", _rate, lambda group: (5 + 3 * group.eigenvalues[:, -1]) / (4 * group.smoothness) * (1 - 1e-9)
        ),
    ),
    Bound(
        name="diging",
        statement="DIGing over undirected graphs converges R-linearly at this rate.",
        quantity=_RADIUS,
        expression=sympy.Max(sympy.sqrt(1 - eta * mu / sympy.Rational(3, 2)), sympy.sqrt(2 * eta * L * _NEDIC) + sigma),
        reference="Nedic, Olshevsky, Shi, SIAM J. Optim. 2017, Theorem 3.14 with B = 1",
        evidence="checked",
        rate=True,
        condition=eta <= sympy.Rational(3, 2) * (1 - sigma) ** 2 / (mu * _NEDIC_J),
        assumptions=("W_t doubly stochastic with ||W_t - J|| <= sigma in every step",),
        methods=("diging",),
        search=_search("diging", _rate, _nedic_limit),
    ),
    Bound(
        name="d2_stability",
        statement="D2 is stable for small step sizes only if the smallest eigenvalue of W is above this.",
        quantity=r"\lambda_n",
        expression=sympy.Rational(-1, 3),
        reference="Tang, Lian, Yan, Zhang, Liu, ICML 2018, Assumption 1; here from z^2 - 2 w z + w at z = -1",
        evidence="derived",
        direction="lower",
        of="matrix",
        assumptions=("W symmetric, doubly stochastic; a common Hessian, or a step size that tends to 0",),
        methods=("d2",),
        search=Search(DIMENSION, _vanishing_steps),
    ),
)
