r"""The named graph families in symbols: connectivity, effective resistances, Kirchhoff index, chi, spectral gap.

All links have rate 1. Lambda_2 and lambda_n are the second smallest and the largest eigenvalue of the Laplacian,

    chi_1 = 1 / lambda_2,   chi_2 = max R_ij / 2 over the links,   Kf = \sum_{i<j} R_ij = n \sum_{k>=2} 1 / lambda_k,

and the gap is that of Metropolis-Hastings weights, which on all families here but the grid are I - L / (1 + degree).
What the formulas rest on:

- Edge-transitive graphs: by Foster's theorem all links have R = (n - 1) / |E|. Trees: R is the distance, chi_2 = 1/2.
- Hypercube: R = 2^{-k} \sum_S (1 - chi_S) / |S| over its Fourier modes, 1 / |S| being an integral over u^{|S| - 1} and
  u = (1 - v) / (1 + v). Paley graph: R(2) from the potentials of a distance-regular graph (Biggs, 1993).
- Torus and grid: one of the two sums over Fourier modes is carried out (Wu, 2004); what remains has `rows` terms.
- Balanced binary tree: Kf counts, link by link, the pairs of nodes that it separates. lambda_2 is an algebraic number
  without a formula in n: `theory.laplacian_spectrum` has it for a given height.
- Grid: no closed form of chi_2 is known to us, and Metropolis-Hastings weights differ from link to link.

References:
    Klein, Randic, "Resistance distance", 1993. Foster, "The average impedance of an electrical network", 1949.
    Biggs, "Potential theory on distance-regular graphs", 1993.
    Wu, "Theory of resistor networks: the two-point resistance", 2004.
    Brouwer, Haemers, "Spectra of graphs", 2012.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sympy
from sympy import Max, Min, Rational, Sum, asinh, binomial, cos, cosh, coth, floor, log, pi, sin, sinh, sqrt

from adozoo import graphs, resistance, weights
from theory import spectra

n = sympy.Symbol("n", positive=True)
"""The number of nodes, as in `spectra.symbolic_gap`."""
_d, _x, _y = sympy.symbols("d x y", integer=True, nonnegative=True)
_s = sympy.Symbol("s", integer=True, positive=True)
_k, _v = sympy.Symbol("k", integer=True), sympy.Symbol("v", positive=True)  # of sums and integrals


@dataclass(frozen=True)
class GraphSymbols:
    """A graph family with links of rate 1, in symbols; None where no closed form is known.

    Sums and integrals are left as they are. For numbers, give `graph_symbols` the sizes rather than substitute them:
    the upper limit log_2(8) of a sum is then the integer 3.

    Attributes:
        family: its name.
        sizes: the sizes that everything else is a function of, as `theory.families()` says.
        nodes: number of nodes.
        edges: number of links.
        degree: the maximal degree.
        algebraic_connectivity: lambda_2, the second smallest eigenvalue of the Laplacian.
        laplacian_radius: lambda_n, the largest one.
        chi_2: half the largest effective resistance of a link.
        kirchhoff_index: sum of the effective resistances of all pairs.
        gap: absolute spectral gap of the Metropolis-Hastings matrix.
        resistance: effective resistance of two nodes, a function of their distance d; on the torus of their
            displacements (x, y) along rows and columns, x <= rows and y <= columns; on the grid of their coordinates
            (x_1, y_1, x_2, y_2); on K_{p,q} of (d, s), with s the size of the side that holds both if d = 2.
    """

    family: str
    sizes: tuple[sympy.Basic, ...]
    nodes: sympy.Expr
    edges: sympy.Expr
    degree: sympy.Expr
    algebraic_connectivity: sympy.Expr | None
    laplacian_radius: sympy.Expr | None
    chi_2: sympy.Expr | None
    kirchhoff_index: sympy.Expr | None
    gap: sympy.Expr | None
    resistance: sympy.Lambda | None

    @property
    def chi_1(self) -> sympy.Expr | None:
        """1 / lambda_2."""
        return None if self.algebraic_connectivity is None else 1 / self.algebraic_connectivity

    @property
    def relaxation_time(self) -> sympy.Expr | None:
        """1 / gap: steps of gossip with Metropolis-Hastings weights until the slowest mode has shrunk about e-fold."""
        return None if self.gap is None else 1 / self.gap

    def evaluate(self) -> dict[str, float]:
        """All scalars as numbers, computed on the graph itself where no closed form is known.

        Returns:
            Name of the attribute -> value.

        Raises:
            ValueError: if a size is still a symbol.

        Example:
            >>> values = graph_symbols("grid", 4, 4).evaluate()
            >>> round(values["chi_1"], 6), round(values["chi_2"], 6)
            (1.707107, 0.350446)
        """
        if any(size.free_symbols for size in self.sizes):
            raise ValueError(f"sizes: expected numbers, got {self.sizes}; use graph_symbols({self.family!r}, *numbers)")
        values = {name: getattr(self, name) for name in SCALARS}
        numbers = {name: _number(value) for name, value in values.items() if value is not None}
        if len(numbers) < len(SCALARS):
            graph = graphs.FAMILIES[self.family](*map(int, self.sizes))
            numbers.setdefault("chi_2", resistance.chi(graph).chi_2)
            numbers.setdefault("gap", spectra.spectral_gap(weights.metropolis(graph)))
            numbers.setdefault("relaxation_time", 1 / numbers["gap"])
        return {name: numbers[name] for name in SCALARS}


SCALARS = (
    *("nodes", "edges", "degree", "algebraic_connectivity", "laplacian_radius"),
    *("chi_1", "chi_2", "kirchhoff_index", "gap", "relaxation_time"),
)
_Fields = dict[str, Any]


def _number(expression: sympy.Expr) -> float:
    """The value, sums added term by term: sympy would look for closed forms of long ones."""

    def total(summand: sympy.Expr, limits: sympy.Tuple) -> sympy.Expr:
        index, low, high = limits
        return sympy.Add(*(sympy.N(summand.subs(index, value), 25) for value in range(int(low), int(high) + 1)))

    return float(sympy.N(expression.replace(Sum, total), 20))


def _by_distance(*values: Any) -> sympy.Lambda:
    """The function of the distance 0, 1, ... with these values, the last one from there on; 0 at distance 0."""
    *first, last = values
    pieces = [(value, sympy.Eq(_d, distance)) for distance, value in enumerate((0, *first))]
    return sympy.Lambda(_d, sympy.Piecewise(*pieces, (last, True)))


def _complete(n: Any) -> _Fields:
    return {
        "nodes": n,
        "edges": n * (n - 1) / 2,
        "degree": n - 1,
        "algebraic_connectivity": n,
        "laplacian_radius": n,
        "chi_2": 1 / n,
        "kirchhoff_index": n - 1,
        "resistance": _by_distance(2 / n),
    }


def _ring(n: Any) -> _Fields:
    return {
        "nodes": n,
        "edges": n,
        "degree": 2,
        "algebraic_connectivity": 2 - 2 * cos(2 * pi / n),
        "laplacian_radius": 2 - 2 * cos(2 * pi * floor(n / 2) / n),
        "chi_2": (n - 1) / (2 * n),
        "kirchhoff_index": (n**3 - n) / 12,
        "resistance": sympy.Lambda(_d, _d * (n - _d) / n),
    }


def _path(n: Any) -> _Fields:
    return {
        "nodes": n,
        "edges": n - 1,
        "degree": 2,
        "algebraic_connectivity": 2 - 2 * cos(pi / n),
        "laplacian_radius": 2 + 2 * cos(pi / n),
        "chi_2": Rational(1, 2),
        "kirchhoff_index": (n**3 - n) / 6,
        "resistance": sympy.Lambda(_d, _d),
    }


def _star(n: Any) -> _Fields:
    return {
        "nodes": n,
        "edges": n - 1,
        "degree": n - 1,
        "algebraic_connectivity": 1,
        "laplacian_radius": n,
        "chi_2": Rational(1, 2),
        "kirchhoff_index": (n - 1) ** 2,
        "resistance": sympy.Lambda(_d, _d),
    }


def _hypercube(n: Any) -> _Fields:
    k = log(n, 2)
    return {
        "nodes": n,
        "edges": n * k / 2,
        "degree": k,
        "algebraic_connectivity": 2,
        "laplacian_radius": 2 * k,
        "chi_2": (n - 1) / (n * k),
        "kirchhoff_index": n * Sum(binomial(k, _k) / (2 * _k), (_k, 1, k)),
        "resistance": sympy.Lambda(_d, 2 * sympy.Integral((1 - _v**_d) / ((1 - _v) * (1 + _v) ** (k + 1)), (_v, 0, 1))),
    }


def _torus(rows: Any, columns: Any) -> _Fields:
    n = rows * columns
    t = 2 * asinh(sin(pi * _k / rows))  # 2 cosh t - 2 is the eigenvalue of the k-th mode along the rows
    modes = (_k, 1, rows - 1)
    wave = cos(2 * pi * _k * _x / rows) * cosh((columns / 2 - _y) * t)
    found = sympy.Lambda(
        (_x, _y),
        _y * (columns - _y) / n + Sum((cosh(columns * t / 2) - wave) / (sinh(t) * sinh(columns * t / 2)), modes) / rows,
    )
    return {
        "nodes": n,
        "edges": 2 * n,
        "degree": 4,
        "algebraic_connectivity": 2 - 2 * cos(2 * pi / Max(rows, columns)),
        "laplacian_radius": sum(2 - 2 * cos(2 * pi * floor(size / 2) / size) for size in (rows, columns)),
        # Unevaluated: sympy would compare the two numerically, which is slow.
        "chi_2": (n - 1) / (4 * n) if rows == columns else Max(found(1, 0) / 2, found(0, 1) / 2, evaluate=False),
        "kirchhoff_index": n * ((columns**2 - 1) / 12 + columns / 2 * Sum(coth(columns * t / 2) / sinh(t), modes)),
        "resistance": found,
    }


def _grid(rows: Any, columns: Any) -> _Fields:
    n = rows * columns
    t = 2 * asinh(sin(pi * _k / (2 * rows)))
    modes = (_k, 1, rows - 1)
    half = Rational(1, 2)
    first, second = (sympy.symbols(names, integer=True, nonnegative=True) for names in ("x_1 y_1", "x_2 y_2"))

    def green(one: Any, other: Any) -> Any:
        """The k-th mode's share of the potential at one node, with a unit current into the other."""
        along = cos(pi * _k * (one[0] + half) / rows) * cos(pi * _k * (other[0] + half) / rows)
        across = cosh((columns - abs(one[1] - other[1])) * t) + cosh((columns - 1 - one[1] - other[1]) * t)
        return along * across / (2 * sinh(t) * sinh(columns * t))

    modal = green(first, first) + green(second, second) - 2 * green(first, second)
    return {
        "nodes": n,
        "edges": 2 * n - rows - columns,
        "degree": 4,
        "algebraic_connectivity": 2 - 2 * cos(pi / Max(rows, columns)),
        "laplacian_radius": 4 + 2 * cos(pi / rows) + 2 * cos(pi / columns),
        "kirchhoff_index": n
        * ((columns**2 - 1) / 6 + Sum(columns * coth(columns * t) / sinh(t) + 1 / sinh(t) ** 2, modes) / 2),
        "gap": None,
        "resistance": sympy.Lambda((*first, *second), abs(first[1] - second[1]) / rows + 2 / rows * Sum(modal, modes)),
    }


def _complete_bipartite(p: Any, q: Any) -> _Fields:
    small, large = Min(p, q), Max(p, q)
    return {
        "nodes": p + q,
        "edges": p * q,
        "degree": large,
        "algebraic_connectivity": 2 if p == q == 1 else small,
        "laplacian_radius": p + q,
        "chi_2": (p + q - 1) / (2 * p * q),
        "kirchhoff_index": (p + q) * ((q - 1) / p + (p - 1) / q) + 1,
        "gap": 2 / (p + 1) if p == q else Min(small, large + 2 - small) / (large + 1),
        "resistance": sympy.Lambda((_d, _s), _by_distance((p + q - 1) / (p * q), 2 * _s / (p * q))(_d)),
    }


def _paley(q: Any) -> _Fields:
    return {
        "nodes": q,
        "edges": q * (q - 1) / 4,
        "degree": (q - 1) / 2,
        "algebraic_connectivity": (q - sqrt(q)) / 2,
        "laplacian_radius": (q + sqrt(q)) / 2,
        "chi_2": 2 / q,
        "kirchhoff_index": 2 * q,
        "gap": (q - sqrt(q)) / (q + 1),
        "resistance": _by_distance(4 / q, 4 * (q + 1) / (q * (q - 1))),
    }


def _balanced_binary_tree(height: Any) -> _Fields:
    power = 2 ** (height + 1)  # n + 1
    exact = spectra.laplacian_spectrum("balanced_binary_tree", int(height)) if height.is_Integer else None
    return {
        "nodes": power - 1,
        "edges": power - 2,
        "degree": 3,
        "algebraic_connectivity": exact and exact[1][0],
        "laplacian_radius": exact and exact[-1][0],
        "chi_2": Rational(1, 2),
        "kirchhoff_index": power * (power * (height - 2) + height + 4),
        "resistance": sympy.Lambda(_d, _d),
    }


# Name -> (function of the sizes, smallest size, the sizes of the graph of n nodes that stands for the family).
FAMILIES: dict[str, tuple[Callable[..., _Fields], int, tuple[Any, ...]]] = {
    "complete": (_complete, 2, (n,)),
    "ring": (_ring, 3, (n,)),
    "path": (_path, 3, (n,)),
    "star": (_star, 3, (n,)),
    "hypercube": (_hypercube, 2, (n,)),
    "torus": (_torus, 3, (sqrt(n), sqrt(n))),
    "grid": (_grid, 3, (sqrt(n), sqrt(n))),
    "complete_bipartite": (_complete_bipartite, 1, (n / 2, n / 2)),
    "paley": (_paley, 5, (n,)),
    "balanced_binary_tree": (_balanced_binary_tree, 2, (log(n + 1, 2) - 1,)),
}


def _checked(family: str, sizes: tuple[Any, ...]) -> tuple[sympy.Expr, ...]:
    _, low, standing = FAMILIES[family]
    given = tuple(map(sympy.sympify, sizes))
    numbers = [size for size in given if not size.free_symbols]
    if len(given) != len(standing) or any(not size.is_Integer or size < low for size in numbers):
        count = f"{len(standing)} whole number{'s' if len(standing) > 1 else ''}"
        raise ValueError(f"sizes: {family} takes {count} of at least {low}, or symbols; got {sizes}")
    if numbers and family in ("hypercube", "paley"):
        spectra.laplacian_spectrum(family, *map(int, numbers))  # refuses what is no power of two, or no prime
    return given


def graph_symbols(family: str, *sizes: sympy.Expr | int) -> GraphSymbols:
    """Connectivity, resistances, Kirchhoff index, chi and gap of a graph family, exact and in symbols.

    Without sizes, everything is a function of the number of nodes, the positive symbol "n": `torus` and `grid` are then
    the square ones, `complete_bipartite` the balanced one. With sizes, numbers or symbols, it is that graph.

    Args:
        family: complete, ring, path, star, hypercube, torus, grid, complete_bipartite, paley or balanced_binary_tree.
        *sizes: as `theory.families()` says, but two sides for torus and grid; at least 3 for ring, path, star, torus
            and grid, a height of at least 2 for the tree. None at all: symbols.

    Returns:
        `GraphSymbols`, with None where no closed form is known; its `evaluate()` gives numbers there as well.

    Raises:
        ValueError: for an unknown family (the nearest known one is named) or unsuitable sizes.

    Example:
        >>> ring = graph_symbols("ring")
        >>> ring.kirchhoff_index, ring.chi_2, ring.resistance(1)
        (n**3/12 - n/12, (n - 1)/(2*n), (n - 1)/n)
        >>> graph_symbols("hypercube", 8).resistance(3).doit()
        5/6
    """
    name = spectra.family_name(family, FAMILIES)
    build, _, standing = FAMILIES[name]
    given = _checked(name, sizes) if sizes else standing
    fields = build(*given)
    if "gap" not in fields:
        connectivity = fields["algebraic_connectivity"]
        fields["gap"] = None if connectivity is None else connectivity / (sympy.sympify(fields["degree"]) + 1)
    known = {key: value if value is None else sympy.sympify(value) for key, value in fields.items()}
    return GraphSymbols(family=name, sizes=given, **{"chi_2": None} | known)
