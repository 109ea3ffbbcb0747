"""The second largest modulus under each rule of weights: recorded values, closed forms, optimality."""

import networkx as nx
import numpy as np
import pytest
import references
import sympy
from hypothesis import given
from hypothesis import strategies as st

from adozoo import graphs
from theory.graph_symbols import n
from theory.optimal_weights import WeightModuli, symbolic_weight_moduli, weight_moduli

RECORDED = references.load("theory_checks")["weights"]
NAMES = {
    "path6": ("path", 6),
    "ring8": ("ring", 8),
    "ring7": ("ring", 7),
    "star6": ("star", 6),
    "hyper3": ("hypercube", 8),
    "K34": ("complete_bipartite", 3, 4),
    "grid33": ("grid", 3, 3),
    "tree3": ("balanced_binary_tree", 3),
}
RULES = ("maxdeg", "maxdeg_plus1", "mh", "best_constant", "fmmc", "fdla")


def test_all_recorded_graphs_are_tried():
    assert set(NAMES) == set(RECORDED)


@pytest.mark.parametrize("name", NAMES)
def test_recorded_moduli(name):
    family, *sizes = NAMES[name]
    expected = [RECORDED[name][rule] for rule in RULES]
    assert weight_moduli(graphs.FAMILIES[family](*sizes)) == pytest.approx(expected, abs=1e-6)
    found = symbolic_weight_moduli(family, *sizes)
    for value, number in zip(found, expected, strict=True):
        assert value is None or float(sympy.N(value)) == pytest.approx(number, abs=1e-8)
    unknown = {"grid33": {"metropolis", "fastest_nonnegative", "fastest"}, "tree3": {"fastest_nonnegative", "fastest"}}
    assert {field for field in WeightModuli._fields if getattr(found, field) is None} == unknown.get(name, set())


CASES = [
    *(("complete", 2), ("complete", 5), ("ring", 3), ("ring", 9), ("ring", 10), ("path", 3), ("path", 7), ("star", 3)),
    *(("hypercube", 16), ("torus", 3, 3), ("torus", 4, 4), ("torus", 3, 4), ("complete_bipartite", 1, 1)),
    *(("complete_bipartite", 3, 3), ("complete_bipartite", 2, 6), ("paley", 13)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: ",".join(map(str, case)))
def test_closed_forms(case):
    family, *sizes = case
    numbers = weight_moduli(graphs.FAMILIES[family](*sizes))
    found = symbolic_weight_moduli(family, *sizes)
    for field, value in found._asdict().items():
        solved = field.startswith("fastest")
        assert (value is None) == (solved and family == "torus" and sizes[0] != sizes[1])
        tolerance = 2e-7 if solved else 1e-12
        assert value is None or float(sympy.N(value, 20)) == pytest.approx(getattr(numbers, field), abs=tolerance), (
            field
        )


@pytest.mark.parametrize("size", [5, 12, 31])
def test_functions_of_n(size):
    for family in ("path", "ring", "star", "complete"):
        given_size, symbolic = symbolic_weight_moduli(family, size), symbolic_weight_moduli(family)
        for value, other in zip(symbolic, given_size, strict=True):
            assert float(value.subs(n, size)) == pytest.approx(float(other), abs=1e-12)
    assert symbolic_weight_moduli("path").fastest == sympy.cos(sympy.pi / n)


def test_best_constant_in_the_limit():
    """The best single weight of a ring shrinks the gap's distance from 1 as 1 - 2 pi^2 / n^2."""
    gap = 1 - symbolic_weight_moduli("ring", 1000).best_constant
    assert float(gap) * 1000**2 == pytest.approx(2 * np.pi**2, rel=1e-4)


@given(st.integers(2, 9), st.floats(0.3, 1), st.integers(0, 10**6))
def test_each_rule_beats_the_narrower_one(size, probability, seed):
    graph = graphs.canonical(nx.gnp_random_graph(size, probability, seed))
    if nx.is_connected(graph):
        found = weight_moduli(graph)
        slack = 1e-6
        assert found.fastest <= min(found.best_constant, found.fastest_nonnegative) + slack
        assert found.fastest_nonnegative <= min(found.metropolis, found.max_degree, found.inverse_degree) + slack
        assert found.best_constant <= min(found.max_degree, found.inverse_degree) + slack
        assert weight_moduli(graph, solve=False) == (*found[:4], None, None)


def test_multiplicities_count_in_the_degree():
    """The helical torus of two rows: five shares of 1/5, as the weights have them."""
    found = weight_moduli(graphs.helical_torus(2, 3), solve=False)
    laplacian = nx.laplacian_matrix(graphs.helical_torus(2, 3)).toarray()
    for share, value in ((1 / 5, found.max_degree), (1 / 4, found.inverse_degree)):
        assert value == pytest.approx(np.linalg.norm(np.eye(6) - share * laplacian - 1 / 6, 2), abs=1e-12)


def test_one_node():
    assert weight_moduli(graphs.ring(1)) == pytest.approx([0] * 6)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: weight_moduli(graphs.disconnected(3)), r"graph must be connected, got 3 components"),
        (lambda: weight_moduli(graphs.directed_ring(3)), r"graph must be undirected"),
        (lambda: symbolic_weight_moduli("two_cliques"), r"no closed form for 'two_cliques'"),
    ],
)
def test_misuse_is_explained(use, message):
    with pytest.raises(ValueError, match=message):
        use()
