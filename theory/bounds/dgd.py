r"""Decentralised gradient descent and D-PSGD: rate, distance of the limit from the optimum, consensus, noise.

DGD, x <- W x - \eta g(x), is gradient descent with step 1 on \xi(x) = \eta \sum f_i(x_i) + x'(I - W) x / 2, whose
curvature lies in [\eta \mu, \eta L + 1 - \lambda_n]; so |W - \eta H| <= max(1 - \eta \mu, \eta L - \lambda_n), and
\xi never grows while \eta L <= 1 + \lambda_n. From a common start then f(x^t) <= f(x^0) in sum, and with |g|^2 <= 2 L
(f - min f), |g(x^t)| <= D = \sqrt{2 L \sum (f_i(x^0) - min f_i)}. Disagreement is -\eta \sum_s (W - J)^s g, at most
\eta D / (1 - \sigma). The average is gradient descent on f with an error of at most L / \sqrt{n} times the
disagreement in the gradient, which contracts by 1 - \eta \mu for \eta <= 2 / (\mu + L): a geometric series.
"""

import numpy as np
import sympy

from theory.bounds._bound import Bound, Search
from theory.bounds._dgd_runs import (
    DIMENSION,
    average_gradient,
    average_gradient_of,
    common_hessian,
    consensus,
    neighborhood,
)
from theory.bounds._laplacians import Measured, Table, logarithmic
from theory.bounds._quadratics import DIMENSION as QUADRATIC_DIMENSION
from theory.bounds._quadratics import Quadratics, quadratics
from theory.bounds.symbols import (
    dissimilarity,
    gradient_variance,
    initial_distance,
    initial_gap,
    lambda_n,
    learning_rate,
    nodes,
    sigma,
    smoothness,
    steps,
    strong_convexity,
    symbol,
)

gradient_bound = symbol("gradient_bound", "D", "sqrt(2 L sum_i (f_i(x^0) - min f_i)), from a common start x^0")

eta, mu, L = learning_rate, strong_convexity, smoothness


def _one_step(method: str) -> Search:
    """The norm of a step's matrix."""

    def measure(points: np.ndarray) -> Measured:
        collected = Table(len(points))
        for group in quadratics(points):
            limit = 1 + group.eigenvalues[:, -1] if method == "dsgd_cta" else 2.0
            step = group.step * limit / group.smoothness * (1 - 1e-9)
            measured = np.linalg.norm(step_matrix(method, group, step), 2, axis=(1, 2))
            collected.put(group.rows, measured, group.constants() | {"learning_rate": step})
        return collected.result()

    return Search(QUADRATIC_DIMENSION, measure)


def step_matrix(method: str, group: Quadratics, step: np.ndarray) -> np.ndarray:
    """W - eta H, or W (I - eta H), in the eigenbasis of W."""
    moved, identity = step[:, None, None] * group.hessian, np.eye(group.hessian.shape[1])
    if method == "dsgd_cta":
        return group.eigenvalues[:, :, None] * identity - moved
    return group.eigenvalues[:, :, None] * (identity - moved)


_GAP = 1 - sigma
_D2 = 1 - 18 * eta**2 * nodes * L**2 / _GAP**2
_D1 = sympy.Rational(1, 2) - 9 * eta**2 * L**2 * nodes / (_GAP**2 * _D2)
_DEVIATION = sympy.sqrt(gradient_variance)
_LEAST_STEPS = (
    4
    * L**4
    * nodes**5
    / (gradient_variance**3 * (initial_gap + L) ** 2)
    * (gradient_variance / (1 - sigma**2) + 9 * dissimilarity / _GAP**2) ** 2,
    72 * L**2 * nodes**2 / (gradient_variance * _GAP**2),
)
_GRADIENT = r"\frac1T\sum_{t<T} E\|\nabla f(\bar x^t)\|^2"
_LIAN = "Lian, Zhang, Zhang, Hsieh, Zhang, Liu, NeurIPS 2017"
_SYMMETRIC = "W symmetric, doubly stochastic, the same in every step"
_YUAN = "Yuan, Ling, Yin, SIAM J. Optim. 2016"
_NOISY = (_SYMMETRIC, "f_i L-smooth, perhaps not convex", "unbiased gradients of bounded variance", "a common start")

_NEEDED = sympy.lambdify([nodes, sigma, smoothness, gradient_variance, dissimilarity, initial_gap], _LEAST_STEPS)


def _tuned(points: np.ndarray) -> Measured:
    """The same at the corollary's step size, over a common Hessian, after as many steps as it asks for or more."""
    known = common_hessian(points)
    names = ("nodes", "sigma", "smoothness", "gradient_variance", "dissimilarity", "initial_gap")
    least = np.max(_NEEDED(*(known[name] for name in names)), axis=0)
    count = np.ceil(np.maximum(least, 1) * logarithmic(points[:, 7], 1.0, 1e6)) + 1
    step = 1 / (2 * known["smoothness"] + np.sqrt(known["gradient_variance"] * count / known["nodes"]))
    return average_gradient_of(known, step, count), known | {"steps": count}


BOUNDS = (
    Bound(
        name="dgd",
        statement="DGD contracts the distance to its fixed point, which is not the optimum, by this in every step.",
        quantity=r"\|x^{t+1} - x^\infty\| / \|x^t - x^\infty\|",
        expression=sympy.Max(1 - eta * mu, eta * L - lambda_n),
        reference=f"{_YUAN}: DGD is gradient descent on a penalised sum; the norm: derived here",
        evidence="derived",
        rate=True,
        condition=eta * L < 1 + lambda_n,
        assumptions=(_SYMMETRIC,),
        methods=("dsgd_cta",),
        search=_one_step("dsgd_cta"),
    ),
    Bound(
        name="dsgd_atc",
        statement="Adapt-then-combine D-SGD without noise contracts the distance to its fixed point by this.",
        quantity=r"\|x^{t+1} - x^\infty\| / \|x^t - x^\infty\|",
        expression=sympy.Max(1 - eta * mu, eta * L - 1),
        reference="|W| <= 1 and |I - eta H| <= max(1 - eta mu, eta L - 1)",
        evidence="derived",
        rate=True,
        condition=eta * L < 2,
        assumptions=("W doubly stochastic",),
        methods=("dsgd_atc",),
        search=_one_step("dsgd_atc"),
    ),
    Bound(
        name="dgd_consensus",
        statement="From a common start, the nodes of DGD never disagree by more than this.",
        quantity=r"\sup_t \|x^t - \bar x^t\|",
        expression=eta * gradient_bound / (1 - sigma),
        reference=f"{_YUAN}, Lemma 2",
        evidence="derived",
        condition=sympy.And(eta * L <= 1 + lambda_n, sigma < 1),
        assumptions=(_SYMMETRIC, "f_i convex", "a common start"),
        methods=("dsgd_cta",),
        search=Search(DIMENSION, consensus),
    ),
    Bound(
        name="dgd_neighborhood",
        statement="The average of DGD converges linearly to a neighbourhood of the optimum, of this size.",
        quantity=r"\|\bar x^T - x^*\|",
        expression=(1 - eta * mu) ** steps * initial_distance
        + L / mu * eta * gradient_bound / ((1 - sigma) * sympy.sqrt(nodes)),
        reference=f"{_YUAN}, Theorem 2 (O(eta D / (1 - sigma)), eta <= 1 / (mu + L) there); the constant: derived here",
        evidence="derived",
        of="mean",
        condition=sympy.And(eta * L <= 1 + lambda_n, eta * (mu + L) <= 2, sigma < 1),
        assumptions=(_SYMMETRIC, "a common start"),
        methods=("dsgd_cta",),
        search=Search(DIMENSION, neighborhood),
    ),
    Bound(
        name="dpsgd",
        statement="D-PSGD reaches a small gradient of the average objective at the average of the nodes.",
        quantity=_GRADIENT,
        expression=(
            initial_gap / (eta * steps)
            + eta * L * gradient_variance / (2 * nodes)
            + eta**2 * L**2 * nodes * gradient_variance / ((1 - sigma**2) * _D2)
            + 9 * eta**2 * L**2 * nodes * dissimilarity / (_GAP**2 * _D2)
        )
        / _D1,
        reference=f"{_LIAN}, Theorem 1, solved for the average gradient",
        evidence="recalled",
        squared=True,
        of="gradient",
        condition=sympy.And(eta * L <= 1, _D2 > 0, _D1 > 0),
        assumptions=_NOISY,
        methods=("dsgd_cta",),
        search=Search(DIMENSION, average_gradient),
    ),
    Bound(
        name="dpsgd_tuned",
        statement="D-PSGD with step size 1 / (2 L + sqrt(sigma_g^2 T / n)) converges as if there were no network.",
        quantity=_GRADIENT,
        expression=8 * initial_gap * L / steps + (8 * initial_gap + 4 * L) * _DEVIATION / sympy.sqrt(steps * nodes),
        reference=f"{_LIAN}, Corollary 2",
        evidence="recalled",
        squared=True,
        of="gradient",
        condition=sympy.And(*(steps >= least for least in _LEAST_STEPS)),
        assumptions=(*_NOISY, "step size 1 / (2 L + sqrt(sigma_g^2 T / n))"),
        methods=("dsgd_cta",),
        search=Search(8, _tuned),
    ),
)
