r"""RelaySGD on trees: what is exact of it on quadratics, and the orders of its convergence theorem.

Response, derived: \pi' W~ = \pi' for the left Perron vector of `theory.relay`, so that only gradients move \pi' Y, by
\pi_(0,j) = 1 / (n (1 + \bar\tau)) of them, and Y tends to 1 \pi' Y.

Rates, derived: where Hessians commute, each coordinate of their eigenbasis is a problem of its own. With a_j = 1 -
\gamma h_j in [0, 1] a step is a matrix without negative entries; its spectral radius is the root in (0, 1] of \lambda =
\rho(K_\lambda A), with K_\lambda = (\lambda^{-\tau_ij} / n) falling in \lambda and A = diag(a).

- From above: K_\lambda <= \lambda^{-\tau} 11' / n entry by entry, \tau the largest delay, and \rho(11' A / n) is the
  mean of a_j, so that \lambda^{1 + \tau} <= 1 - \gamma \bar h.
- From below, for a_j = a: \rho(K_\lambda) >= 1' K_\lambda 1 / n >= \lambda^{-\bar\tau} by Jensen's inequality, so that
  \lambda^{1 + \bar\tau} >= a. To first order in \gamma that is the small-step rate 1 - \gamma \mu / (1 + \bar\tau),
  which bounds nothing itself: with a common Hessian a path is faster, a star with one long arm is slower.

Disagreement of RelaySGD/Grad, derived: x_i - x_k = (\gamma / n) \sum_j (\tau_ij - \tau_kj) g_j at rest, and |\tau_ij -
\tau_kj| <= d_ik with or without overlap.

Reference:
  Vogels, He, Koloskova, Lin, Karimireddy, Stich, Jaggi, "RelaySum for decentralized deep learning on heterogeneous
  data", NeurIPS 2021.
"""

from functools import partial

import sympy

from theory.bounds import _relays as relays
from theory.bounds._bound import Bound, Search
from theory.bounds.symbols import (
    accuracy,
    gradient_variance,
    initial_distance,
    initial_gap,
    learning_rate,
    nodes,
    smoothness,
    strong_convexity,
    symbol,
)

mean_delay = symbol("mean_delay", r"\bar\tau", "mean of the delays of all pairs of nodes", nonnegative=True)
longest_delay = symbol("longest_delay", r"\tau_{\max}", "the largest delay between two nodes", nonnegative=True)
mean_curvature = symbol("mean_curvature", r"\bar\mu", "smallest eigenvalue of the mean Hessian", nonnegative=True)
hops = symbol("hops", "d_{ik}", "links between two nodes", nonnegative=True)
mean_gradient = symbol("mean_gradient", "G", "(1/n) sum_j |grad f_j(x_j)| at rest", nonnegative=True)
tree_constant = symbol("tree_constant", "C", "a constant of W-tilde, of its rho, delays and Perron vector")

RELAY = "Vogels, He, Koloskova, Lin, Karimireddy, Stich, Jaggi, NeurIPS 2021"
METHODS = ("relay_sgd", "relay_sgd_overlap")
_noise, _eps = sympy.sqrt(gradient_variance), accuracy
_GENERAL = ("a tree", "f_i L-smooth", "unbiased gradients of bounded variance", "no bound on how the f_i differ")


def _order(name: str, statement: str, expression: sympy.Expr, of: str, *assumptions: str) -> Bound:
    return Bound(
        name=name,
        statement=statement,
        quantity="T",
        expression=expression,
        reference=f"{RELAY}, Theorem I",
        evidence="recalled",
        kind="order",
        of=of,
        assumptions=(*_GENERAL, *assumptions),
        methods=METHODS,
    )


BOUNDS = (
    Bound(
        name="relay_response",
        statement="One gradient on one node moves all models of RelaySGD, in the end, by this share of it: learning "
        "rates have to be larger by 1 + the mean delay than with an exact average.",
        quantity=r"\lim_t |x_i^t - x^0| / |\eta g|",
        expression=1 / (nodes * (1 + mean_delay)),
        reference=f"{RELAY}, appendix (measured there); derived here",
        evidence="derived",
        direction="equal",
        assumptions=("a tree", "models before the start count as x^0"),
        methods=METHODS,
        search=Search(relays.RESPONSE_DIMENSION, relays.response),
    ),
    Bound(
        name="relay_sgd_rate",
        statement="RelaySGD on quadratics is no slower than gradient descent on their mean, one step of which takes as "
        "many steps as the longest way; how much the quadratics differ does not count.",
        quantity=r"\rho",
        expression=(1 - learning_rate * mean_curvature) ** (1 / (1 + longest_delay)),
        reference=f"derived here, for the method of {RELAY}",
        evidence="derived",
        rate=True,
        condition=sympy.Le(learning_rate * smoothness, 1),
        assumptions=("a tree", "quadratics", "Hessians that commute and are positive semidefinite"),
        methods=METHODS,
        search=Search(relays.RATE_DIMENSION, partial(relays.rates, common=False)),
    ),
    Bound(
        name="relay_sgd_rate_lower",
        statement="RelaySGD on quadratics with a common Hessian is no faster than gradient descent, one step of which "
        "takes 1 + the mean delay; for small learning rates it is as fast.",
        quantity=r"\rho",
        expression=(1 - learning_rate * strong_convexity) ** (1 / (1 + mean_delay)),
        reference=f"derived here, for the method of {RELAY}",
        evidence="derived",
        direction="lower",
        rate=True,
        condition=sympy.Le(learning_rate * smoothness, 1),
        assumptions=("a tree", "quadratics with a common Hessian"),
        search=Search(relays.RATE_DIMENSION, partial(relays.rates, common=True)),
    ),
    Bound(
        name="relay_sgd_grad_disagreement",
        statement="What RelaySGD/Grad leaves between two nodes grows with their distance, the learning rate and the "
        "gradients at rest, which only heterogeneity keeps from zero.",
        quantity=r"|x_i - x_k|",
        expression=learning_rate * hops * mean_gradient,
        reference=f"derived here, for the method of {RELAY}",
        evidence="derived",
        assumptions=("a tree", "gradients that have come to rest"),
        methods=("relay_sgd_grad",),
        search=Search(relays.DISAGREEMENT_DIMENSION, relays.disagreement),
    ),
    _order(
        "relay_sgd_convex",
        "Steps of RelaySGD on convex functions: as many as of mini-batch SGD in the leading term, whatever the tree.",
        initial_distance**2
        * (
            gradient_variance / (nodes * _eps**2)
            + tree_constant * sympy.sqrt(smoothness) * _noise / _eps ** sympy.Rational(3, 2)
            + tree_constant * smoothness / _eps
        ),
        "gap",
        "every f_i convex",
        "the average iterate",
    ),
    _order(
        "relay_sgd_strongly_convex",
        "Steps of RelaySGD on strongly convex functions, up to logarithms in the first two terms.",
        gradient_variance / (strong_convexity * nodes * _eps)
        + tree_constant * sympy.sqrt(smoothness) * _noise / (strong_convexity * sympy.sqrt(_eps))
        + tree_constant * smoothness / strong_convexity * sympy.log(1 / _eps),
        "gap",
        "every f_i strongly convex",
    ),
    _order(
        "relay_sgd_nonconvex",
        "Steps of RelaySGD to a mean squared gradient of epsilon.",
        smoothness
        * initial_gap
        * (
            gradient_variance / (nodes * _eps**2)
            + tree_constant * _noise / _eps ** sympy.Rational(3, 2)
            + tree_constant / _eps
        ),
        "gradient",
    ),
)
