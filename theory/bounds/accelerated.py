r"""Accelerated methods for smooth strongly convex problems over a graph: SSDA, MSDA, APAPC, OPAPC, ADOM, ADOM+.

G is a positive semidefinite gossip matrix whose kernel is consensus, such as a Laplacian, and chi the ratio of its
largest to its smallest positive eigenvalue. Factors are of squared errors, per gradient on every node.

SSDA and MSDA, derived: they are Nesterov's method on the dual sum_i f_i^*, restricted to the range of G^{1/2}, where
it is lambda_max(G) / mu-smooth and lambda_min(G) / L-strongly convex. That method takes 1 - sqrt(q) off the gap of
function values, q = 1 / (kappa chi) (Nesterov, 2004, Theorem 2.2.3), and the gap bounds the squared error of the
primal iterate. A quadratic mode of curvature a in [q, 1] has roots of modulus at most (1 - sqrt(q)), its square is
what the search finds. For MSDA, the nonzero eigenvalues of the Chebyshev polynomial of G are 1 +- 2 c^K / (1 +
c^{2K}), c = (sqrt(chi) - 1) / (sqrt(chi) + 1).

The other rates are recalled. On quadratics none is violated, by a margin of at least two in the exponent: constants
that are wrong by less would pass.

References:
    Scaman et al., "Optimal algorithms for smooth and strongly convex distributed optimization in networks", ICML 2017.
    Kovalev, Salim, Richtarik, "Optimal and practical algorithms for smooth and strongly convex decentralized
    optimization", NeurIPS 2020.
    Kovalev, Shulgin, Richtarik, Rogozin, Gasnikov, "ADOM", ICML 2021.
    Kovalev, Gasanov, Gasnikov, Richtarik, "Lower bounds and optimal algorithms for smooth and strongly convex
    decentralized optimization over time-varying networks", NeurIPS 2021.
"""

from functools import partial

import sympy

from theory.bounds import _accelerated as steps_of
from theory.bounds._bound import Bound, Search
from theory.bounds.symbols import accuracy, rounds, smoothness, strong_convexity, symbol

gossip_condition = symbol(
    "gossip_condition", r"\chi", "largest over smallest positive eigenvalue of the gossip matrix, over all times"
)

root = sympy.sqrt(strong_convexity / smoothness)
chebyshev = (sympy.sqrt(gossip_condition) - 1) / (sympy.sqrt(gossip_condition) + 1)
SMOOTH = "every f_i mu-strongly convex and L-smooth"
QUADRATICS = "tried on quadratics with one coordinate a node"


def _rate(name: str, statement: str, expression: sympy.Expr, reference: str, evidence: str, graph: str) -> Bound:
    """A squared factor per step; the dual methods' names say which steps they take."""
    method = name.removesuffix("_rate")
    measure = steps_of.squared_rate if graph == "fixed graph" else steps_of.alternating_rate
    return Bound(
        name=name,
        statement=statement,
        quantity=r"\rho^2",
        expression=expression,
        reference=reference,
        evidence=evidence,
        rate=True,
        squared=True,
        of="nodes",
        assumptions=(SMOOTH, graph, QUADRATICS),
        search=Search(steps_of.DIMENSION, partial(measure, method=method)),
    )


def _complexity(name: str, statement: str, expression: sympy.Expr, reference: str) -> Bound:
    """How many of something a method takes to an accuracy."""
    return Bound(
        name=name,
        statement=statement,
        quantity=r"\#",
        expression=expression * sympy.log(1 / accuracy),
        reference=reference,
        evidence="recalled",
        kind="order",
        squared=True,
        assumptions=(SMOOTH,),
    )


SCAMAN = "Scaman et al., ICML 2017"
KOVALEV_2020 = "Kovalev, Salim, Richtarik, NeurIPS 2020"
ADOM = "Kovalev et al., ICML 2021"
ADOM_PLUS = "Kovalev et al., NeurIPS 2021"

BOUNDS = (
    _rate(
        "ssda_rate",
        "Nesterov's method on the dual, one round of gossip a gradient of the conjugates.",
        1 - root / sympy.sqrt(gossip_condition),
        f"{SCAMAN}, Algorithm 1, by Nesterov 2004, Theorem 2.2.3",
        "derived",
        "fixed graph",
    ),
    _rate(
        "msda_rate",
        "The same with a Chebyshev polynomial of K rounds for the gossip matrix; K = floor(sqrt(chi)) is optimal.",
        1 - root * (1 - chebyshev**rounds) / (1 + chebyshev**rounds),
        f"{SCAMAN}, Algorithm 2, by Nesterov 2004, Theorem 2.2.3",
        "derived",
        "fixed graph",
    ),
    _rate(
        "apapc_rate",
        "Primal, with gradients of the f_i; one round of gossip a gradient.",
        1 / (1 + sympy.Min(root / sympy.sqrt(gossip_condition), 1 / gossip_condition) / 4),
        f"{KOVALEV_2020}, Algorithm 2",
        "recalled",
        "fixed graph",
    ),
    _rate(
        "opapc_rate",
        "APAPC on a Chebyshev polynomial of ceil(sqrt(chi)) rounds; with the floor its spectrum leaves [11/15, 19/15].",
        1 / (1 + sympy.Min(2 * root, 1) / 16),
        f"{KOVALEV_2020}, Algorithm 3",
        "recalled",
        "fixed graph",
    ),
    _rate(
        "adom_rate",
        "Dual, over graphs that change.",
        1 - root / (7 * gossip_condition),
        f"{ADOM}, convergence theorem",
        "recalled",
        "graphs that change",
    ),
    _rate(
        "adom_plus_rate",
        "Primal, over graphs that change.",
        1 - root / (32 * gossip_condition),
        f"{ADOM_PLUS}, convergence theorem of ADOM+",
        "recalled",
        "graphs that change",
    ),
    _complexity(
        "accelerated_gradients", "Gradients per node of MSDA and OPAPC.", 1 / root, f"{SCAMAN}; {KOVALEV_2020}"
    ),
    _complexity(
        "accelerated_rounds",
        "Rounds of gossip of MSDA and OPAPC: optimal on a fixed graph.",
        sympy.sqrt(gossip_condition) / root,
        f"{SCAMAN}; {KOVALEV_2020}",
    ),
    _complexity(
        "adom_rounds",
        "Rounds of gossip of ADOM and ADOM+, with several rounds a gradient: optimal over graphs that change.",
        gossip_condition / root,
        f"{ADOM}; {ADOM_PLUS}",
    ),
)
