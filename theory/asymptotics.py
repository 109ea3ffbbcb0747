"""Graph families of many nodes: the leading terms of what `theory.graph_symbols` knows exactly, and tables of both.

Most of them are limits of the closed forms. Three rest on arguments of their own:

- Balanced binary tree, lambda_2 ~ 1 / n: the eigenvector is odd under exchange of the root's subtrees, and the
  Laplacian on such a subtree of (n - 1) / 2 nodes, grounded at the root, has a positive inverse whose row sums are at
  most n - 1 - height, and n - O(log n) on average: an upper and a lower bound on the inverse's largest eigenvalue.
- Grid, gap ~ pi^2 / (5 n): Metropolis-Hastings weights are 1/5 inside and no less on the rim, so that the gap is at
  least lambda_2 / 5; lambda_2's cosine in the Rayleigh quotient shows that it is at most 1 + O(n^{-1/2}) times that.
- Grid, chi_2 -> 8 / (3 pi) - 1/2: that is the limit of half the resistance of a link at a corner, by reflection of the
  infinite lattice. That no other link has a larger one is not proved here; it was checked numerically up to 60 x 60.

References:
    Cserti, "Application of the lattice Green's function for calculating the resistance of an infinite network of
        resistors", 2000 (resistances of the infinite square lattice).
"""

from typing import Any

import sympy
from sympy import Rational, log, pi, sqrt

from theory import spectra
from theory.graph_symbols import FAMILIES, SCALARS, GraphSymbols, graph_symbols, n

_d = sympy.Symbol("d", integer=True, nonnegative=True)
# The leading terms for many nodes: edges, degree, lambda_2, lambda_n, chi_2, Kirchhoff index, resistance at distance d.
_LEADING: dict[str, tuple[Any, ...]] = {
    "complete": (n**2 / 2, n, n, n, 1 / n, n, 2 / n),
    "ring": (n, 2, 4 * pi**2 / n**2, 4, Rational(1, 2), n**3 / 12, _d),
    "path": (n, 2, pi**2 / n**2, 4, Rational(1, 2), n**3 / 6, _d),
    "star": (n, n, 1, n, Rational(1, 2), n**2, _d),
    "hypercube": (n * log(n, 2) / 2, log(n, 2), 2, 2 * log(n, 2), 1 / log(n, 2), n**2 / log(n, 2), 2 / log(n, 2)),
    "torus": (2 * n, 4, 4 * pi**2 / n, 8, Rational(1, 4), n**2 * log(n) / (4 * pi), None),
    "grid": (2 * n, 4, pi**2 / n, 8, 8 / (3 * pi) - Rational(1, 2), n**2 * log(n) / (4 * pi), None),
    "complete_bipartite": (n**2 / 4, n / 2, n / 2, n, 2 / n, 2 * n, 4 / n),
    "paley": (n**2 / 4, n / 2, n / 2, n / 2, 2 / n, 2 * n, 4 / n),
    "balanced_binary_tree": (n, 3, 1 / n, 3 + 2 * sqrt(2), Rational(1, 2), n**2 * log(n, 2), _d),
}
# Gaps that `spectra.symbolic_gap` does not have.
_LEADING_GAPS = {"grid": pi**2 / (5 * n), "balanced_binary_tree": 1 / (4 * n)}


def graph_asymptotics(family: str) -> GraphSymbols:
    """The leading terms of `graph_symbols(family)` for many nodes: the ratio to the exact value tends to 1.

    Resistances are those at a fixed distance, None on the torus and the grid (no function of the distance).

    Args:
        family: a family of `graph_symbols`.

    Returns:
        `GraphSymbols` of leading terms in n.

    Raises:
        ValueError: for an unknown family; the nearest known one is named.

    Example:
        >>> graph_asymptotics("path").chi_1, graph_asymptotics("grid").chi_2
        (n**2/pi**2, -1/2 + 8/(3*pi))
    """
    name = spectra.family_name(family, FAMILIES)
    *scalars, at_distance = map(sympy.sympify, _LEADING[name])
    gap = _LEADING_GAPS[name] if name in _LEADING_GAPS else spectra.symbolic_gap(name).asymptotic
    found = None if at_distance is None else sympy.Lambda(_d, at_distance)
    edges, degree, connectivity, radius, chi_2, kirchhoff = scalars
    return GraphSymbols(name, (n,), n, edges, degree, connectivity, radius, chi_2, kirchhoff, gap, found)


def graph_table(asymptotic: bool = False) -> str:
    """A table of all families as functions of the number of nodes, in Markdown; "-" where no closed form is known.

    Args:
        asymptotic: leading terms for many nodes instead of exact expressions.

    Returns:
        The table: one row a family.

    Example:
        >>> print(graph_table(asymptotic=True).splitlines()[3])
        | ring | 4*pi**2/n**2 | 4 | n**2/(4*pi**2) | 1/2 | n**3/12 | 4*pi**2/(3*n**2) | 3*n**2/(4*pi**2) |
    """
    names = SCALARS[3:]
    lines = [f"| family | {' | '.join(names)} |", "|" + " --- |" * (len(names) + 1)]
    for family in FAMILIES:
        symbols = graph_asymptotics(family) if asymptotic else graph_symbols(family)
        values = [getattr(symbols, name) for name in names]
        lines.append(f"| {family} | {' | '.join('-' if value is None else str(value) for value in values)} |")
    return "\n".join(lines)
