"""Graph families in symbols: closed forms against eigenvalues and pseudo-inverses, leading terms in the limit."""

import functools

import networkx as nx
import numpy as np
import pytest
import sympy

from adozoo import graphs, weights
from adozoo.resistance import edge_resistances, kirchhoff_index
from theory.asymptotics import graph_asymptotics, graph_table
from theory.graph_symbols import FAMILIES, SCALARS, graph_symbols, n
from theory.spectra import spectral_gap, symbolic_gap

CASES = [
    *(("complete", (size,)) for size in (2, 3, 7)),
    *(("ring", (size,)) for size in (3, 4, 9, 12)),
    *(("path", (size,)) for size in (3, 4, 11)),
    *(("star", (size,)) for size in (3, 4, 9)),
    *(("hypercube", (size,)) for size in (2, 4, 16)),
    *(("torus", sizes) for sizes in ((3, 3), (4, 4), (3, 5), (6, 4))),
    *(("grid", sizes) for sizes in ((3, 3), (3, 6), (5, 4))),
    *(("complete_bipartite", sizes) for sizes in ((1, 1), (1, 4), (2, 2), (3, 4), (5, 2), (4, 4))),
    *(("paley", (size,)) for size in (5, 13, 17)),
    *(("balanced_binary_tree", (size,)) for size in (2, 3, 4)),
]
IDS = [f"{family}:{'x'.join(map(str, sizes))}" for family, sizes in CASES]
WITHOUT = {"grid": {"chi_2", "gap", "relaxation_time"}}
"""Scalars that a family has no closed form of."""
SYMBOLIC = {
    "balanced_binary_tree": {"algebraic_connectivity", "laplacian_radius", "chi_1", "gap", "relaxation_time"},
    **WITHOUT,
}
"""The same as functions of n."""


def numeric(graph):
    """All scalars from dense linear algebra alone."""
    laplacian = nx.laplacian_matrix(graph).toarray().astype(float)
    eigenvalues = np.linalg.eigvalsh(laplacian)
    table = resistances(laplacian)
    gap = 1 - np.linalg.norm(weights.metropolis(graph) - 1 / len(graph), 2)
    return {
        "nodes": len(graph),
        "edges": graph.number_of_edges(),
        "degree": max(dict(graph.degree).values()),
        "algebraic_connectivity": eigenvalues[1],
        "laplacian_radius": eigenvalues[-1],
        "chi_1": 1 / eigenvalues[1],
        "chi_2": table[laplacian < 0].max() / 2,
        "kirchhoff_index": table.sum() / 2,
        "gap": gap,
        "relaxation_time": 1 / gap,
    }


def resistances(laplacian):
    inverse = np.linalg.pinv(laplacian, hermitian=True)
    return np.diag(inverse)[:, None] + np.diag(inverse) - 2 * inverse


@pytest.mark.parametrize(("family", "sizes"), CASES, ids=IDS)
def test_exact_values(family, sizes):
    found, expected = graph_symbols(family, *sizes), numeric(graphs.FAMILIES[family](*sizes))
    values = evaluated(family, sizes)
    assert set(values) == set(expected)
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, rel=1e-11), name
    assert {name for name in SCALARS if getattr(found, name) is None} == WITHOUT.get(family, set())


def compiled(law):
    """As a function of numbers: sums and integrals without sympy's search for closed forms."""
    return functools.cache(sympy.lambdify(law.variables, law.expr, "mpmath"))


@functools.cache
def evaluated(family, sizes):
    return graph_symbols(family, *sizes).evaluate()


def arguments(family, sizes, graph, i, j):
    """What the resistance of a family is a function of."""
    if family in ("torus", "grid"):
        (one, other), (two, further) = divmod(i, sizes[1]), divmod(j, sizes[1])
        return (abs(one - two), abs(other - further)) if family == "torus" else (one, other, two, further)
    distance = nx.shortest_path_length(graph, i, j)
    if family == "complete_bipartite":
        return distance, sizes[0] if i < sizes[0] else sizes[1]
    return (distance,)


@pytest.mark.parametrize(("family", "sizes"), CASES, ids=IDS)
def test_resistances_of_all_pairs(family, sizes):
    graph = graphs.FAMILIES[family](*sizes)
    table = resistances(nx.laplacian_matrix(graph).toarray().astype(float))
    law = compiled(graph_symbols(family, *sizes).resistance)
    for i, j in np.ndindex(table.shape):
        assert law(*arguments(family, sizes, graph, i, j)) == pytest.approx(table[i, j], rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_cases(family):
    assert sum(case[0] == family for case in CASES) >= 3


@pytest.mark.parametrize(
    ("family", "n_nodes", "sizes"),
    [
        *(("complete", 6, (6,)), ("ring", 7, (7,)), ("path", 8, (8,)), ("star", 5, (5,)), ("torus", 25, (5, 5))),
        *(("grid", 16, (4, 4)), ("complete_bipartite", 8, (4, 4)), ("paley", 13, (13,))),
    ],
)
def test_functions_of_n_agree_with_given_sizes(family, n_nodes, sizes):
    symbols, values = graph_symbols(family), graph_symbols(family, *sizes).evaluate()
    for name in set(SCALARS) - SYMBOLIC.get(family, set()):
        value = getattr(symbols, name).subs(n, n_nodes)
        assert float(sympy.N(value.doit(), 20)) == pytest.approx(values[name], rel=1e-12), name


def test_functions_of_n_where_n_is_an_exponential():
    for nodes in (4, 16, 64):
        values = graph_symbols("hypercube", nodes).evaluate()
        for name in set(SCALARS) - {"kirchhoff_index"}:
            assert float(getattr(graph_symbols("hypercube"), name).subs(n, nodes)) == pytest.approx(values[name])
    for height in (2, 4):
        values, symbols = (
            graph_symbols("balanced_binary_tree", height).evaluate(),
            graph_symbols("balanced_binary_tree"),
        )
        for name in ("nodes", "edges", "chi_2", "kirchhoff_index"):
            assert float(getattr(symbols, name).subs(n, values["nodes"])) == pytest.approx(values[name])


def test_symbols_of_the_user():
    rows, columns = sympy.symbols("rows columns", positive=True)
    assert graph_symbols("torus", rows, columns).nodes == rows * columns
    assert graph_symbols("complete_bipartite", 1, rows).kirchhoff_index.expand() == rows**2  # a star
    assert [name for name in SCALARS if getattr(graph_symbols("balanced_binary_tree"), name) is None] == [
        name for name in SCALARS if name in SYMBOLIC["balanced_binary_tree"]
    ]


def test_chi_scales_with_the_graph():
    """chi_2 <= chi_1, and Foster's lower bound, with equality on edge-transitive families."""
    for family, sizes in CASES:
        values = evaluated(family, sizes)
        least = (values["nodes"] - 1) / (2 * values["edges"])
        assert least * (1 - 1e-12) <= values["chi_2"] <= values["chi_1"] * (1 + 1e-12)
        transitive = family not in ("grid", "balanced_binary_tree") and not (family == "torus" and sizes[0] != sizes[1])
        assert (values["chi_2"] == pytest.approx(least, rel=1e-12)) == (transitive or family == "balanced_binary_tree")


@pytest.mark.parametrize("family", FAMILIES)
def test_gaps_agree_with_the_table_of_gaps(family):
    exact, leading = graph_symbols(family), graph_asymptotics(family)
    if exact.gap is not None:
        assert sympy.simplify(exact.gap - symbolic_gap(family).gap) == 0
        assert leading.gap == symbolic_gap(family).asymptotic


@pytest.mark.parametrize("family", FAMILIES)
def test_leading_terms_are_limits(family):
    """By sympy where it can, with n = m^2 for the sides of squares."""
    exact, leading = graph_symbols(family), graph_asymptotics(family)
    m = sympy.Symbol("m", positive=True)
    hard = {
        "hypercube": {"kirchhoff_index"},
        "torus": {"kirchhoff_index", "laplacian_radius"},
        "grid": {"kirchhoff_index"},
        "ring": {"laplacian_radius"},
        "balanced_binary_tree": {"kirchhoff_index"},
    }
    tried = set(SCALARS) - SYMBOLIC.get(family, set()) - hard.get(family, set())
    for name in tried:
        ratio = (getattr(exact, name) / getattr(leading, name)).subs(n, m**2)
        assert sympy.limit(ratio, m, sympy.oo) == 1, name


def test_leading_terms_that_only_numbers_show():
    for nodes in (1001, 1000):
        radius = graph_symbols("ring", nodes).laplacian_radius
        assert float(radius) == pytest.approx(float(graph_asymptotics("ring").laplacian_radius), rel=1e-5)
    assert float(graph_symbols("torus", 1001, 1001).laplacian_radius) == pytest.approx(8, rel=1e-5)
    index = graph_symbols("hypercube", 2**200).evaluate()["kirchhoff_index"]
    assert index / float(graph_asymptotics("hypercube").kirchhoff_index.subs(n, 2**200)) == pytest.approx(1, abs=0.01)
    exact, leading = (each("balanced_binary_tree").kirchhoff_index for each in (graph_symbols, graph_asymptotics))
    assert float((exact / leading).subs(n, 2**400)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("family", ["torus", "grid"])
def test_kirchhoff_index_of_the_lattice(family):
    """n^2 (log n / 4 pi + constant + o(1)): from side to side the logarithm is what grows."""
    per_pair = [kirchhoff_index(graphs.FAMILIES[family](side, side)) / side**4 for side in (16, 32, 64)]
    steps = np.diff(per_pair)
    expected = 2 * np.log(2) / (4 * np.pi)
    assert steps[1] == pytest.approx(expected, rel=2e-3 if family == "torus" else 5e-2)
    assert abs(steps[1] - expected) < abs(steps[0] - expected) / 1.5
    assert graph_asymptotics(family).kirchhoff_index == n**2 * sympy.log(n) / (4 * sympy.pi)


def test_corner_of_the_grid():
    """Its links have the largest resistance, which tends to 16 / (3 pi) - 1."""
    for side in [*range(2, 20), 30, 60]:
        found = edge_resistances(graphs.grid(side, side))
        assert found.data.max() == pytest.approx(found[0, 1], rel=1e-12)
    limit = float(graph_asymptotics("grid").chi_2)
    assert limit == pytest.approx(8 / (3 * np.pi) - 0.5)
    assert found[0, 1] / 2 == pytest.approx(limit, abs=1e-7)
    assert compiled(graph_symbols("grid", 60, 60).resistance)(0, 0, 0, 1) == pytest.approx(found[0, 1], rel=1e-12)


def test_gap_of_the_grid():
    leading = [float(graph_asymptotics("grid").gap.subs(n, side**2)) for side in (8, 16, 32)]
    exact = [spectral_gap(weights.metropolis(graphs.grid(side, side))) for side in (8, 16, 32)]
    excess = np.array(exact) / leading - 1
    assert (np.abs(excess[1:]) < 0.6 * np.abs(excess[:-1])).all()  # O(1 / side)
    assert abs(excess[-1]) < 0.03


def test_connectivity_of_the_tree():
    """n lambda_2 -> 1, between the bounds of row sums and their average."""
    for height in range(2, 8):
        values = graph_symbols("balanced_binary_tree", height).evaluate()
        size, subtree = values["nodes"], (values["nodes"] - 1) / 2
        average = size + 2 - 2 * height * (1 + 1 / subtree)
        assert 1 / (size - 1 - height) <= values["algebraic_connectivity"] <= 1 / average
        assert values["laplacian_radius"] < float(graph_asymptotics("balanced_binary_tree").laplacian_radius)
    assert values["laplacian_radius"] == pytest.approx(3 + 2 * 2**0.5, rel=0.05)
    assert values["algebraic_connectivity"] * size == pytest.approx(1, abs=0.06)


def test_resistance_at_a_fixed_distance():
    for family, nodes in {"ring": 10**6, "path": 9, "hypercube": 2**200, "paley": 1009, "complete": 50}.items():
        exact, leading = (each.resistance for each in (graph_symbols(family, nodes), graph_asymptotics(family)))
        for distance in (1,) if family == "complete" else (1, 2):
            expected = leading(sympy.Integer(distance)).subs(n, nodes)
            assert float(compiled(exact)(distance)) == pytest.approx(float(expected), rel=0.02)


def test_infinite_lattice():
    """Resistances 1/2 and 2/pi of the infinite square lattice, in the middle of a large grid."""
    law = compiled(graph_symbols("grid", 60, 60).resistance)
    assert law(30, 30, 30, 31) == pytest.approx(0.5, abs=1e-3)
    assert law(30, 30, 31, 31) == pytest.approx(2 / np.pi, abs=2e-3)


@pytest.mark.parametrize("asymptotic", [True, False])
def test_table(asymptotic):
    rows = [line.strip("| ").split(" | ") for line in graph_table(asymptotic).splitlines()]
    assert len({len(row) for row in rows[:1] + rows[2:]}) == 1
    assert [row[0] for row in rows[2:]] == list(FAMILIES)
    for row in rows[2:]:
        for name, cell in zip(rows[0][1:], row[1:], strict=True):
            symbols = graph_asymptotics(row[0]) if asymptotic else graph_symbols(row[0])
            assert cell == ("-" if getattr(symbols, name) is None else str(getattr(symbols, name)))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: graph_symbols("rings"), r"no closed form for 'rings', nearest is 'ring'"),
        (lambda: graph_asymptotics("two_cliques"), r"no closed form for 'two_cliques'"),
        (lambda: graph_symbols("ring", 2), r"ring takes 1 whole number of at least 3, or symbols; got \(2,\)"),
        (lambda: graph_symbols("torus", 4), r"torus takes 2 whole numbers of at least 3"),
        (lambda: graph_symbols("ring", sympy.Rational(9, 2)), r"ring takes 1 whole number"),
        (lambda: graph_symbols("hypercube", 6), r"hypercube needs a power of two"),
        (lambda: graph_symbols("paley", 7), r"paley needs a prime that is 1 modulo 4"),
        (lambda: graph_symbols("ring").evaluate(), r"sizes: expected numbers, got \(n,\); use graph_symbols\('ring'"),
    ],
)
def test_misuse_is_explained(use, message):
    with pytest.raises(ValueError, match=message):
        use()
