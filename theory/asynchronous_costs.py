r"""What methods communicate: exchanges for every gradient, by graph, and complexities in symbols, side by side.

On a graph of |E| links with rates of 1 and gossip condition number \kappa = \lambda_n / \lambda_2 of its Laplacian, a
round in which every node takes a gradient comes with

- \sqrt{2 \chi_1 \chi_2} exchanges on each link in DADAO, on average: with these rates 2 \chi_1 \chi_2 = 1;
- as many in the decentralised continuized method, by when its errors have shrunk by exp(-\sqrt{\mu / L});
- \lfloor\sqrt\kappa\rfloor rounds over all links in MSDA (a Chebyshev polynomial of its gossip matrix);
- one round over all links in ADOM+, or \lceil\kappa \ln 2\rceil with multi-consensus, which makes the number of its
  gradients optimal.

On every connected graph the first is at most the third, and that at most the last. \kappa < 4 implies \lambda_2 >= 1:
else \lambda_n < 4, no degree exceeds \lambda_n - 1, and the paths and cycles with \kappa < 4 have \lambda_2 >= 1. Since
no link's resistance 2 \chi_2 exceeds 1, 2 \chi_1 \chi_2 <= 1 there. Elsewhere \lfloor\sqrt\kappa\rfloor >= (2/3)
\sqrt\kappa, and \lambda_n >= 3 >= (9/4) 2 \chi_2. The last is ln 2 > 1/2: \sqrt\kappa <= \kappa / 2 from 4 on.

References:
    Nabli, Oyallon, "DADAO: decoupled accelerated decentralized asynchronous optimization", ICML 2023, and its code.
    Nabli, Belilovsky, Oyallon, "A2CiD2: accelerating asynchronous communication in decentralized deep learning",
    NeurIPS 2023 (the table of times).
"""

import math
from typing import Any, NamedTuple

import sympy
from sympy import ceiling, floor, log, sqrt

from adozoo.resistance import LaplacianLike, chi, normalize_rates, rate_laplacian
from theory import bounds
from theory.asymptotics import graph_asymptotics
from theory.bounds.accelerated import gossip_condition
from theory.bounds.asynchronous import chi_1
from theory.bounds.symbols import accuracy, lambda_2, learning_rate, nodes, smoothness, strong_convexity
from theory.graph_symbols import FAMILIES, GraphSymbols, graph_symbols, n

ROUNDING = 1e-9
"""A condition number this close to a square, relatively, is one."""
dimension = sympy.Symbol("d", positive=True)
"""Of a grid of n^{1/d} nodes a side."""


class Communications(NamedTuple):
    """Exchanges on all links together that come with one gradient of every node; None where no formula is known."""

    dadao: Any
    continuized: Any
    msda: Any
    adom_plus: Any
    adom_plus_multi_consensus: Any


def communications_per_gradient_round(graph: LaplacianLike) -> Communications:
    r"""How many exchanges methods need for every round of gradients on a graph.

    DADAO and the continuized method: $\frac12 \mathrm{tr} L \sqrt{2 \chi_1 \chi_2}$, links in proportion to their
    rates. The synchronous ones use all links alike in every round.

    Args:
      graph: what `adozoo.resistance.rate_laplacian` accepts; rates only matter up to a factor.

    Returns:
      `Communications`.

    Raises:
      ValueError: what `rate_laplacian` refuses, or a single node.

    Example:
      >>> found = theory.communications_per_gradient_round(adozoo.graphs.star(300))
      >>> (
      ...     round(found.dadao, 9),
      ...     found.msda,
      ...     found.adom_plus,
      ...     found.adom_plus_multi_consensus,
      ... )
      (299.0, 5083, 299, 62192)
    """
    matrix = rate_laplacian(graph)
    if matrix.shape[0] < 2:
        raise ValueError("communications_per_gradient_round: graph needs two nodes or more, got 1; add some.")
    chi_1, chi_2 = chi(matrix)
    condition = chi(normalize_rates(matrix, "largest_eigenvalue")).chi_1
    edges = (matrix.nnz - matrix.shape[0]) // 2
    exchanges = float(matrix.trace()) / 2 * math.sqrt(2 * chi_1 * chi_2)
    return Communications(
        dadao=exchanges,
        continuized=exchanges,
        msda=edges * math.floor(math.sqrt(condition) * (1 + ROUNDING)),
        adom_plus=edges,
        adom_plus_multi_consensus=edges * math.ceil(condition * math.log(2)),
    )


def communication_symbols(family: str, *sizes: sympy.Expr | int) -> Communications:
    """`communications_per_gradient_round` of a graph family with links of rate 1, in symbols.

    Args:
      family: a family of `theory.graph_symbols`.
      *sizes: as `theory.graph_symbols` takes them; none at all for functions of the number of nodes n.

    Returns:
      `Communications` of expressions.

    Raises:
      ValueError: for an unknown family (the nearest known one is named) or unsuitable sizes.

    Example:
      >>> found = theory.communication_symbols("complete")
      >>> found.dadao, found.msda
      (sqrt(2)*(n - 1)/2, n*(n - 1)/2)
      >>> theory.communication_symbols("star").adom_plus_multi_consensus
      (n - 1)*ceiling(n*log(2))
    """
    known = graph_symbols(family, *sizes)
    condition = _condition(known)
    if condition is None:
        return _communications(known, None, None)
    return _communications(known, floor(sqrt(condition)), ceiling(condition * log(2)))


def communication_asymptotics(family: str) -> Communications:
    """The leading terms for many nodes: the ratio to the exact numbers tends to 1.

    Args:
      family: a family of `theory.graph_symbols`.

    Returns:
      `Communications` of expressions in the number of nodes n.

    Raises:
      ValueError: for an unknown family; the nearest known one is named.

    Example:
      >>> theory.communication_asymptotics("ring").dadao
      n**2/(2*pi)
    """
    known = graph_asymptotics(family)
    condition = _condition(known)
    rounds, consensus = sqrt(condition), condition * log(2)
    if not condition.free_symbols:  # it stays bounded, so that rounding counts
        rounds, consensus = floor(rounds), ceiling(consensus)
    found = _communications(known, rounds, consensus)
    # Forced, as sympy does not know that log n is positive.
    return Communications(*(sympy.powsimp(sympy.powdenest(sympy.sympify(each), force=True)) for each in found))


def communication_orders(family: str) -> Communications:
    r"""Orders in the number of nodes; also of the "d_grid", for every dimension d.

    The grid of n^{1/d} nodes a side has order n links, \lambda_2 of order n^{-2/d}, \lambda_n of order 1, and \chi_2
    between Foster's (n - 1) / (2 |E|) and 1/2.

    Args:
      family: a family of `theory.graph_symbols`, or "d_grid".

    Returns:
      `Communications` of orders in n.

    Raises:
      ValueError: for an unknown family; the nearest known one is named.

    Example:
      >>> [
      ...     str(theory.communication_orders(family).msda)
      ...     for family in ("star", "complete", "d_grid")
      ... ]
      ['n**(3/2)', 'n**2', 'n**(1 + 1/d)']
    """
    if family == "d_grid":
        accelerated, plain = n ** (1 + 1 / dimension), n ** (1 + 2 / dimension)
        return Communications(accelerated, accelerated, accelerated, n, plain)
    leading = communication_asymptotics(family)
    return Communications(*(None if each is None else each.as_independent(n)[1] for each in leading))


def communication_table(asymptotic: bool = True) -> str:
    """A table of all families as functions of the number of nodes, in Markdown; "-" where no closed form is known.

    Args:
      asymptotic: leading terms for many nodes instead of exact expressions.

    Returns:
      The table: one row a family.

    Example:
      >>> print(theory.communication_table().splitlines()[5])
      | star | n | n | n**(3/2) | n | n**2*log(2) |
    """
    of_family = communication_asymptotics if asymptotic else communication_symbols
    rows = [(family, *of_family(family)) for family in FAMILIES]
    return _markdown(("family", *Communications._fields), rows)


class Complexity(NamedTuple):
    """Orders of what a method takes to an accuracy; None where nothing is known.

    Attributes:
      time_strongly_convex: times of one gradient a node, with gradient noise.
      time_nonconvex: the same to small average gradients.
      gradients: of a node, without noise, strongly convex.
      rounds: in which every link is used once; DADAO's are exchanges on each link of rate 1, on average.
    """

    time_strongly_convex: sympy.Expr | None = None
    time_nonconvex: sympy.Expr | None = None
    gradients: sympy.Expr | None = None
    rounds: sympy.Expr | None = None


def complexities() -> dict[str, Complexity]:
    r"""What methods take to an accuracy, in symbols, from the orders in `theory.bounds`; logarithms are dropped.

    Symbols are those of `theory.bounds`. Times of synchronous gossip are those of the unified theory with one local
    step and consensus rate 1 / \chi_1, in terms of E|\bar x - x*|^2, f - f* being \mu times as much; initial gaps are
    1.

    Returns:
      Method -> `Complexity`. Evidence is that of the entries, mostly recalled from the papers.

    Example:
      >>> found = theory.complexities()
      >>> found["DADAO"].gradients, found["DADAO"].rounds
      (sqrt(smoothness)/sqrt(strong_convexity), sqrt(chi_1)*sqrt(chi_2)*sqrt(smoothness)/sqrt(strong_convexity))
    """
    entry = bounds.entry
    gossip = {"local_steps": 1, "consensus_rate": 1 / chi_1, "variance_growth": 0, "dissimilarity_growth": 0}
    convex = {"accuracy": strong_convexity * accuracy}
    # NIDS with step 1 / L and W = I - L / lambda_n.
    nids = entry("nids").expression.subs({learning_rate: 1 / smoothness, lambda_2: 1 - 1 / gossip_condition})
    nids_steps = sympy.Max(*(1 / (1 - factor) for factor in nids.args))
    return {
        "synchronous gossip": Complexity(
            _order("unified_strongly_convex", convex | gossip), _order("unified_nonconvex", gossip)
        ),
        "AD-PSGD": Complexity(None, _order("ad_psgd_time_nonconvex")),
        "asynchronous baseline": Complexity(
            _order("asynchronous_baseline_time_strongly_convex"), _order("asynchronous_baseline_time_nonconvex")
        ),
        "A2CiD2": Complexity(_order("a2cid2_time_strongly_convex"), _order("a2cid2_time_nonconvex")),
        "NIDS": Complexity(None, None, nids_steps, nids_steps),
        "MSDA, OPAPC": Complexity(None, None, _order("accelerated_gradients"), _order("accelerated_rounds")),
        "ADOM+ with multi-consensus": Complexity(None, None, _order("accelerated_gradients"), _order("adom_rounds")),
        "DADAO": Complexity(
            None, None, _order("dadao_gradients") / nodes, _order("dadao_communications", {"rate_trace": 1})
        ),
    }


def complexity_table() -> str:
    """`complexities` in Markdown: one table of times with gradient noise, one of gradients and rounds without.

    Returns:
      Both tables, with an empty line between them.

    Example:
      >>> print(theory.complexity_table().splitlines()[7])
      | method | gradients | rounds |
    """
    found = complexities()
    tables = []
    for first, second in (("time_strongly_convex", "time_nonconvex"), ("gradients", "rounds")):
        rows = [(method, getattr(each, first), getattr(each, second)) for method, each in found.items()]
        known = [row for row in rows if row[1:] != (None, None)]
        tables.append(_markdown(("method", first, second), known))
    return "\n\n".join(tables)


def _condition(known: GraphSymbols) -> Any:
    """lambda_n / lambda_2, None without closed forms."""
    if known.algebraic_connectivity is None or known.laplacian_radius is None:
        return None
    return sympy.simplify(known.laplacian_radius / known.algebraic_connectivity)


def _communications(known: GraphSymbols, rounds: Any, consensus: Any) -> Communications:
    edges, chi_1, chi_2 = known.edges, known.chi_1, known.chi_2
    exchanges = None if chi_1 is None or chi_2 is None else sympy.simplify(edges * sqrt(2 * chi_1 * chi_2))
    return Communications(
        exchanges,
        exchanges,
        None if rounds is None else edges * rounds,
        edges,
        None if consensus is None else edges * consensus,
    )


def _order(name: str, substituted: dict[str, Any] | None = None) -> sympy.Expr:
    """An entry's expression with initial gaps of 1, without constant factors and logarithms."""
    expression = bounds.entry(name).expression
    by_name = {str(symbol): symbol for symbol in expression.free_symbols}
    given = {"initial_gap": 1, **(substituted or {})}
    values = {by_name[key]: value for key, value in given.items() if key in by_name}
    found = expression.subs(values, simultaneous=True)
    return found.replace(log, lambda *_: sympy.Integer(1))


def _markdown(header: tuple[str, ...], rows: Any) -> str:
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    lines += [f"| {' | '.join('-' if cell is None else str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)
