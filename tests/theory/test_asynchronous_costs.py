"""Exchanges for a round of gradients, and complexities side by side: known counts, closed forms, orders."""

import networkx as nx
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

import theory
from adozoo import graphs


def test_communications_of_sixty_four_nodes():
    """DADAO (to the digits known), MSDA, ADOM+ with multi-consensus."""
    known = {
        "star": (graphs.star(64), 63, 0, 504, 2835),
        "complete": (graphs.complete(64), 44.5, 1, 2016, 2016),
        "ring": (graphs.ring(64), 647, 0, 1280, 18432),
        "path": (graphs.path(64), 1284, 0, 2520, 72513),
        "grid": (graphs.grid(8, 8), 240, 0, 784, 4032),
        "hypercube": (graphs.hypercube(64), 77.8, 1, 384, 960),
        "barbell": (graphs.two_cliques(64), 4091, 0, 22839, 397200),
    }
    for graph, dadao, digits, msda, adom in known.values():
        found = theory.communications_per_gradient_round(graph)
        assert round(found.dadao, digits) == dadao
        assert (found.msda, found.adom_plus_multi_consensus) == (msda, adom)
        assert found.adom_plus == graph.number_of_edges()


def test_communications_of_the_star_of_three_hundred():
    """What the authors' notebook prints."""
    found = theory.communications_per_gradient_round(graphs.star(300))
    assert (found.adom_plus, found.adom_plus_multi_consensus, found.msda) == (299, 62192, 5083)
    assert (round(found.continuized, 9), round(found.dadao, 9)) == (299, 299)


@settings(max_examples=100)
@given(st.integers(2, 9), st.floats(0.1, 1.0), st.integers(0, 10**6), st.floats(0.01, 100.0))
def test_dadao_never_communicates_more(n, density, seed, rate):
    """With equal rates; rates themselves matter up to a factor only."""
    graph = nx.compose(nx.gnp_random_graph(n, density, seed), nx.random_labeled_tree(n, seed=seed))
    nx.set_edge_attributes(graph, rate, "weight")
    found = theory.communications_per_gradient_round(graph)
    assert found.dadao <= found.msda * (1 + 1e-9) <= found.adom_plus_multi_consensus * (1 + 2e-9)


def test_communications_in_symbols():
    for family, sizes in (("star", (9,)), ("ring", (10,)), ("path", (7,)), ("hypercube", (16,)), ("torus", (4, 4)),
                          ("grid", (3, 5)), ("complete", (6,)), ("complete_bipartite", (3, 5)), ("paley", (13,)),
                          ("balanced_binary_tree", (3,))):  # fmt: skip
        symbols = theory.communication_symbols(family, *sizes)
        numbers = theory.communications_per_gradient_round(graphs.FAMILIES[family](*sizes))
        for symbol, number in zip(symbols, numbers, strict=True):
            assert symbol is None or float(sympy.N(symbol, 30)) == pytest.approx(number, rel=1e-9)
    assert theory.communication_symbols("grid").dadao is None
    assert theory.communication_symbols("star").dadao == sympy.Symbol("n", positive=True) - 1


def test_orders_of_communications():
    n, d = sympy.symbols("n d", positive=True)
    known = {"star": (n, n ** sympy.Rational(3, 2), n**2), "ring": (n**2, n**2, n**3), "complete": (n, n**2, n**2),
             "path": (n**2, n**2, n**3), "d_grid": (n ** (1 + 1 / d), n ** (1 + 1 / d), n ** (1 + 2 / d))}  # fmt: skip
    for family, orders in known.items():
        found = theory.communication_orders(family)
        assert (found.dadao, found.msda, found.adom_plus_multi_consensus) == orders
    grid = theory.communication_orders("d_grid")
    assert [each.subs(d, 2) for each in grid] == list(theory.communication_orders("grid"))
    for family, size in (("ring", 500), ("path", 500), ("star", 500), ("complete", 100)):
        leading = theory.communication_asymptotics(family)
        exact = theory.communications_per_gradient_round(graphs.FAMILIES[family](size))
        for formula, number in zip(leading, exact, strict=True):
            assert float(formula.subs(n, size)) == pytest.approx(number, rel=0.03)
    assert theory.communication_table(asymptotic=False).count("\n") == 11


def test_complexities():
    """The table of times of the A2CiD2 paper, and gradients against rounds."""
    found, s = theory.complexities(), theory.bounds.symbols
    chi_1, chi_2 = theory.bounds.asynchronous.chi_1, theory.bounds.asynchronous.chi_2
    mu, L, noise, zeta, eps, n = (
        s.strong_convexity, s.smoothness, s.gradient_variance, s.heterogeneity, s.accuracy, s.nodes
    )  # fmt: skip
    gossip = (
        noise / (n * mu**2 * eps)
        + sympy.sqrt(L)
        * (chi_1 * sympy.sqrt(zeta) + sympy.sqrt(chi_1 * noise))
        / (mu ** sympy.Rational(3, 2) * sympy.sqrt(eps))
        + L / mu * chi_1
    )
    assert sympy.simplify(found["synchronous gossip"].time_strongly_convex - gossip) == 0
    baseline = (noise + chi_1 * zeta) / (mu**2 * eps) + L / mu * chi_1
    assert sympy.simplify(found["asynchronous baseline"].time_strongly_convex - baseline) == 0
    joint = sympy.sqrt(chi_1 * chi_2)
    for field in ("time_strongly_convex", "time_nonconvex"):
        replaced = getattr(found["asynchronous baseline"], field).subs(chi_1, joint)
        assert sympy.simplify(replaced - getattr(found["A2CiD2"], field)) == 0
    kappa, chi = L / mu, theory.bounds.accelerated.gossip_condition
    assert found["DADAO"] == (None, None, sympy.sqrt(kappa), joint * sympy.sqrt(kappa))
    assert found["MSDA, OPAPC"].rounds == sympy.sqrt(kappa * chi)
    assert found["ADOM+ with multi-consensus"].rounds == chi * sympy.sqrt(kappa)
    assert found["NIDS"].gradients == sympy.Max(kappa, 2 * chi)
    assert theory.complexity_table().count("\n| A2CiD2 |") == 1


def test_a_single_node_is_refused():
    with pytest.raises(ValueError, match="two nodes"):
        theory.communications_per_gradient_round(graphs.path(1))
