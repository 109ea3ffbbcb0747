"""Effective resistances, Kirchhoff indices, chi: recorded values, pseudo-inverses, laws of networks, large graphs."""

import time

import networkx as nx
import numpy as np
import pytest
import references
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from adozoo import graphs, weights
from adozoo._grounded import GroundedLaplacian
from adozoo.resistance import (
    algebraic_connectivity,
    chi,
    edge_resistances,
    effective_resistance,
    kirchhoff_index,
    normalize_rates,
    rate_laplacian,
)

RECORDED = references.load("asynchronous_and_accelerated")


def laplacian(graph):
    """Plain numpy, D - A of the edge weights."""
    adjacency = nx.to_numpy_array(graph, nodelist=range(len(graph)))
    return np.diag(adjacency.sum(axis=1)) - adjacency


def resistances(matrix):
    inverse = np.linalg.pinv(matrix, hermitian=True)
    return np.diag(inverse)[:, None] + np.diag(inverse) - 2 * inverse


def weighted_graph(n, probability, seed):
    """A random connected graph: a random tree and further links, with rates over two orders of magnitude."""
    generator = np.random.default_rng(seed)
    graph = nx.gnp_random_graph(n, probability, seed)
    graph.add_edges_from((int(generator.integers(node)), node) for node in range(1, n))
    for _, _, data in graph.edges(data=True):
        data["weight"] = float(10 ** generator.uniform(-1, 1))
    return graphs.canonical(graph)


weighted_graphs = st.builds(weighted_graph, st.integers(2, 30), st.floats(0, 1), st.integers(0, 10**6))


@pytest.mark.parametrize("name", RECORDED["theory"]["chi_unit_edge_rates"])
def test_recorded_chi_at_unit_rates(name):
    family, n = name.split("_")
    sizes = (4, 4) if family in ("grid", "torus") else (int(n),)
    graph = graphs.FAMILIES[family](*sizes)
    recorded = RECORDED["theory"]["chi_unit_edge_rates"][name]
    assert chi(graph) == pytest.approx((recorded["chi1"], recorded["chi2"]), rel=1e-12)
    # With lambda_n = 1, chi_1 is the condition number of the gossip matrix.
    assert chi(normalize_rates(graph, "largest_eigenvalue")).chi_1 == pytest.approx(recorded["kappa"], rel=1e-12)


@pytest.mark.parametrize("item", RECORDED["theory"]["acid_gossip"], ids=lambda item: item["graph"])
def test_recorded_chi_at_one_communication_a_node(item):
    graph = graphs.FAMILIES[item["graph"]](item["n"])
    assert chi(normalize_rates(graph, "node_rate")) == pytest.approx((item["chi1"], item["chi2"]), rel=1e-12)


@pytest.mark.parametrize("name", RECORDED["acid"]["acid_constants"])
def test_recorded_constants_of_acid(name):
    """The authors' exponential graph links i with i +- 2^k, so that i and i + n/2 are linked twice."""
    family, n = name.split("_")
    n, graph = int(n), nx.Graph()
    hops = [1] if family == "cycle" else [2**k for k in range(n.bit_length() - 1)]
    for hop in hops:
        graph.add_edges_from(((i, (i + hop) % n) for i in range(n)), weight=2.0 if 2 * hop == n else 1.0)
    constants = chi(normalize_rates(graph, "node_rate"))
    recorded = RECORDED["acid"]["acid_constants"][name]
    assert constants == pytest.approx((recorded["chi1"], recorded["chi2"]), rel=1e-12)
    product = constants.chi_1 * constants.chi_2
    assert 1 / (2 * product**0.5) == pytest.approx(recorded["eta"], rel=1e-12)
    assert (constants.chi_1 / constants.chi_2) ** 0.5 / 2 == pytest.approx(recorded["alpha_tilde"], rel=1e-12)


@pytest.mark.parametrize("item", RECORDED["theory"]["dadao_second_moment"], ids=lambda item: item["graph"])
def test_recorded_rates_of_dadao(item):
    """DADAO runs at the total rate sqrt(2 chi_1 chi_2), chi taken at total rate 1; then 2 chi_1 chi_2 = 1."""
    graph = graphs.FAMILIES[item["graph"]](item["n"])
    unit = chi(normalize_rates(graph, "total_rate"))
    rate = (2 * unit.chi_1 * unit.chi_2) ** 0.5
    assert rate == pytest.approx(item["total_comm_rate"], rel=1e-12)
    scaled = chi(normalize_rates(graph, "total_rate", rate))
    assert scaled.chi_1 == pytest.approx(item["chi1_star"], rel=1e-12)
    assert 2 * scaled.chi_1 * scaled.chi_2 == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        *(("star:64", 63), ("complete:64", 44.5), ("ring:64", 647), ("path:64", 1284), ("grid:8x8", 240)),
        *(("hypercube:64", 77.8), ("barbell:32,0", 4091)),
    ],
)
def test_communications_that_dadao_needs(spec, expected):
    constants = chi(normalize_rates(graphs.parse(spec), "total_rate"))
    assert (2 * constants.chi_1 * constants.chi_2) ** 0.5 == pytest.approx(expected, rel=1.2e-3)


@given(weighted_graphs)
def test_against_the_pseudo_inverse(graph):
    matrix = laplacian(graph)
    n, expected = len(matrix), resistances(matrix)
    scale = expected.max()
    np.testing.assert_allclose(effective_resistance(graph), expected, rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(effective_resistance(matrix, n - 1), expected[n - 1], rtol=0, atol=1e-10 * scale)
    assert effective_resistance(graph, 0, n - 1) == pytest.approx(expected[0, n - 1], rel=1e-10)
    found = edge_resistances(sp.csr_array(matrix)).toarray()
    np.testing.assert_allclose(found, np.where(matrix < 0, expected, 0), rtol=0, atol=1e-10 * scale)
    assert kirchhoff_index(graph) == pytest.approx(expected.sum() / 2, rel=1e-10)
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert chi(graph).chi_1 == pytest.approx(1 / eigenvalues[1], rel=1e-10)
    assert chi(graph).chi_2 == pytest.approx(expected[matrix < 0].max() / 2, rel=1e-10)
    assert normalize_rates(graph, "largest_eigenvalue").diagonal() == pytest.approx(np.diag(matrix) / eigenvalues[-1])


@given(weighted_graphs, st.integers(0, 10**6))
def test_laws_of_electrical_networks(graph, seed):
    matrix, found, constants = rate_laplacian(graph), edge_resistances(graph), chi(graph)
    n = matrix.shape[0]
    # Foster's theorem; each share of spanning trees is at most 1.
    shares = -matrix.multiply(found).tocsr().data
    assert shares.sum() / 2 == pytest.approx(n - 1, rel=1e-10)
    assert shares.max() <= 1 + 1e-10
    assert (n - 1) / matrix.diagonal().sum() <= constants.chi_2 * (1 + 1e-10)
    assert constants.chi_2 <= constants.chi_1 * (1 + 1e-10)
    # Resistance is a metric, and falls with every further link (Rayleigh).
    table = effective_resistance(graph)
    assert (table[:, :, None] + table[None] >= table[:, None] - 1e-9 * table.max()).all()
    generator = np.random.default_rng(seed)
    i, j = generator.choice(n, 2, replace=False).tolist()
    richer = graph.copy()
    richer.add_edge(i, j, weight=graph.get_edge_data(i, j, {"weight": 0.0})["weight"] + 1.0)
    assert (effective_resistance(richer) <= table + 1e-9 * table.max()).all()
    assert effective_resistance(richer, i, j) == pytest.approx(1 / (1 / table[i, j] + 1), rel=1e-9)  # in parallel


@given(weighted_graphs, st.floats(1e-3, 1e3))
def test_normalised_rates(graph, rate):
    given_rates = -laplacian(graph)
    np.fill_diagonal(given_rates, 0)
    total = normalize_rates(graph, "total_rate", rate)
    assert total.diagonal().sum() / 2 == pytest.approx(rate)
    assert chi(total) == pytest.approx(np.array(chi(graph)) * given_rates.sum() / 2 / rate, rel=1e-9)
    degrees = given_rates.sum(axis=1)
    expected = rate * given_rates * (1 / degrees[:, None] + 1 / degrees) / 2
    node = normalize_rates(graph, "node_rate", rate)
    np.testing.assert_allclose(node.toarray() - np.diag(node.diagonal()), -expected, rtol=1e-9, atol=1e-12 * rate)
    assert node.diagonal().mean() == pytest.approx(rate)  # what a node takes part in, on average


def test_regular_graphs_give_each_node_the_same_rate():
    found = normalize_rates(graphs.torus(4, 5), "node_rate", 3.0).toarray()
    np.testing.assert_allclose(found, 3 * laplacian(graphs.torus(4, 5)) / 4, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("spec", ["barbell:8,0", "barbell:32,0"])
def test_barbell(spec):
    constants = chi(graphs.parse(spec))
    assert constants.chi_2 == pytest.approx(0.5, rel=1e-12)
    assert constants.chi_1 == pytest.approx({"barbell:8,0": 4.898, "barbell:32,0": 16.97}[spec], abs=5e-3)


LARGE = {
    "ring:10000": (1 / (4 * np.sin(np.pi / 10_000) ** 2), 9999 / 20_000, (1e12 - 1e4) / 12),
    "path:10000": (1 / (4 * np.sin(np.pi / 20_000) ** 2), 0.5, (1e12 - 1e4) / 6),
    "star:10000": (1.0, 0.5, 9999**2),
    "torus:100x100": (1 / (4 * np.sin(np.pi / 100) ** 2), 9999 / 40_000, None),
    "grid:100x100": (1 / (4 * np.sin(np.pi / 200) ** 2), None, None),
    "hypercube:1024": (0.5, 1023 / 10_240, None),
    "complete:400": (1 / 400, 1 / 400, 399),
}


@pytest.mark.parametrize("spec", LARGE)
def test_large_graphs_take_seconds(spec):
    graph = graphs.parse(spec)
    start = time.perf_counter()
    constants, index = chi(graph), kirchhoff_index(graph)
    assert time.perf_counter() - start < 10
    chi_1, chi_2, expected = LARGE[spec]
    assert constants.chi_1 == pytest.approx(chi_1, rel=1e-9)
    assert constants.chi_2 == pytest.approx(chi_2 or 8 / (3 * np.pi) - 0.5, rel=1e-10 if chi_2 else 1e-5)
    assert expected is None or index == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    "spec", ["random_regular:4,700,0", "erdos_renyi:400,0.05,1", "two_cliques:300", "binary_tree:500"]
)
def test_sparse_and_dense_agree(spec):
    graph = graphs.parse(spec)
    matrix = laplacian(graph)
    expected = resistances(matrix)
    np.testing.assert_allclose(edge_resistances(graph).toarray(), np.where(matrix < 0, expected, 0), rtol=0, atol=1e-9)
    assert algebraic_connectivity(graph) == pytest.approx(np.linalg.eigvalsh(matrix)[1], rel=1e-9)
    assert kirchhoff_index(graph) == pytest.approx(expected.sum() / 2, rel=1e-9)


def test_potentials_solve_the_network():
    graph = weighted_graph(40, 0.1, 3)
    matrix = rate_laplacian(graph)
    currents = np.random.default_rng(0).normal(size=40)
    currents -= currents.mean()
    for ground in (None, 0, 39):
        potentials = GroundedLaplacian(matrix, ground).potentials(currents)
        np.testing.assert_allclose(matrix @ potentials, currents, atol=1e-11)
        assert ground is None or potentials[ground] == 0


def test_a_mixing_matrix_is_read_through_its_laplacian():
    """I - W of float32 weights, with rounding errors where there is no link."""
    matrix = weights.metropolis(graphs.ring(8)).astype(np.float32)
    noisy = np.eye(8) - matrix + 1e-17 * np.eye(8)[::-1]
    assert edge_resistances(noisy).nnz == 16
    assert chi(noisy) == pytest.approx(3 * np.array(chi(graphs.ring(8))), rel=1e-6)


def test_one_node_and_links_of_rate_zero():
    assert chi(graphs.ring(1)) == (0, 0)
    assert kirchhoff_index(graphs.ring(1)) == 0
    assert effective_resistance(np.zeros((1, 1))).tolist() == [[0]]
    assert effective_resistance(graphs.ring(1), 0, 0) == 0
    graph = graphs.path(3)
    graph.add_edge(0, 2, weight=0.0)
    assert edge_resistances(graph).nnz == 4


def test_labels_of_the_user():
    graph = nx.Graph()
    graph.add_edge("b", "a", weight=4.0)
    graph.add_edge("a", "c", weight=2.0)
    np.testing.assert_allclose(effective_resistance(graph), [[0, 0.25, 0.75], [0.25, 0, 0.5], [0.75, 0.5, 0]])


NEGATIVE = np.array([[0.0, 1.0, -1.0], [1.0, 0.0, -1.0], [-1.0, -1.0, 2.0]])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: chi(graphs.disconnected(3)), r"expected a connected graph, got 3 components among 3 nodes.*one comp"),
        (lambda: chi(np.diag([1.0, 1.0])), r"rows that sum to zero, one is off by 1; .* I - W"),
        (lambda: chi(nx.to_numpy_array(graphs.ring(4))), r"rows that sum to zero"),
        (lambda: chi(np.array([[1.0, -1.0], [0.0, 0.0]])), r"expected a symmetric matrix, max \|L - L'\| is 1"),
        (lambda: chi(NEGATIVE), r"expected off-diagonal entries <= 0, got 1"),
        (lambda: chi(nx.Graph([(0, 1, {"weight": -1.0})])), r"edge weights \(rates\) >= 0, got -1"),
        (lambda: chi(np.full((2, 2), np.nan)), r"expected finite entries"),
        (lambda: chi(np.ones((2, 3))), r"expected shape \[n, n\], got \(2, 3\)"),
        (lambda: chi("ring"), r"cannot read str as a graph or an \[n, n\] matrix"),
        (lambda: chi(graphs.directed_ring(3)), r"expected an undirected graph, got a DiGraph of 3 nodes"),
        (lambda: effective_resistance(graphs.ring(3), 3), r"i: expected a node 0..2, got 3"),
        (lambda: effective_resistance(graphs.ring(3), 0, -1), r"j: expected a node 0..2, got -1"),
        (lambda: effective_resistance(graphs.ring(3), None, 1), r"i: expected a node, got None with j = 1"),
        (lambda: algebraic_connectivity(graphs.ring(1)), r"expected at least two nodes, got 1"),
        (lambda: normalize_rates(graphs.ring(3), "unit"), r'"total_rate", "node_rate" or "largest_eig.*got \'unit\''),
        (lambda: normalize_rates(graphs.ring(3), "node_rate", 0.0), r"rate: expected a positive number, got 0"),
    ],
)
def test_misuse_is_explained(use, message):
    with pytest.raises(ValueError, match=message):
        use()
