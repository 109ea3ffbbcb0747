"""adozoo.weights: recorded matrices and spectra, properties on random graphs, sparse = dense, eigenvalues, misuse."""

import sys
import time

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import references
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from adozoo import graphs, weights

AUTHORS = {
    "ring": graphs.ring,
    "torus": lambda shape: graphs.helical_torus(*shape),
    "hypercube": lambda n: graphs.hypercube(n),
    "star": graphs.star,
    "chain": graphs.path,
    "binary_tree": graphs.heap_binary_tree,
    "two_cliques": graphs.two_cliques,
    "tree_maxdeg3": lambda n: graphs.bounded_degree_tree(n, 3),
}
RECORDED = {
    f"{item['name']}-{item['n']}": item
    for item in references.load("beyond_spectral_gap")["gossip_matrices"]["items"]
    if item["name"] in AUTHORS
}


@pytest.mark.parametrize("item", RECORDED.values(), ids=RECORDED)
def test_metropolis_weights_of_the_authors(item):
    """Vogels, Hendrikx and Jaggi's gossip matrices, among them the helical torus of 2 rows."""
    graph = AUTHORS[item["name"]](item["n"])
    np.testing.assert_allclose(weights.metropolis(graph), np.array(item["W"][0]), rtol=0, atol=1e-12)


def test_all_recorded_topologies_are_tried():
    assert {item["name"] for item in RECORDED.values()} == set(AUTHORS)
    assert len(RECORDED) == 10


@pytest.mark.parametrize("name", ["uniring", "one_peer_exponential"])
def test_the_authors_directed_ring_points_the_other_way(name):
    """There node i hears i + 1, here i - 1; the first phase of the one-peer exponential graph is the same ring."""
    items = references.load("beyond_spectral_gap")["gossip_matrices"]["items"]
    (item,) = (item for item in items if item["name"] == name)
    np.testing.assert_allclose(weights.column_stochastic(graphs.directed_ring(4)).T, np.array(item["W"][0]), atol=1e-15)


def test_spectrum_of_the_product_torus():
    for item in references.load("beyond_spectral_gap")["product_torus"]["items"]:
        actual = np.linalg.eigvalsh(weights.metropolis(graphs.torus(*item["shape"])))
        np.testing.assert_allclose(actual, np.sort(item["eigenvalues"]), atol=1e-12)


def test_spectral_gap_of_the_social_network():
    matrix = weights.metropolis(graphs.social_network())
    assert 1 - slem(matrix) == pytest.approx(0.08210, abs=5e-6)


def slem(matrix):
    """||W - J||: the second largest modulus of an eigenvalue."""
    return np.linalg.norm(matrix - 1 / len(matrix), 2)


CASES = {
    "path6": graphs.path(6),
    "ring8": graphs.ring(8),
    "ring7": graphs.ring(7),
    "star6": graphs.star(6),
    "hyper3": graphs.hypercube(8),
    "K34": graphs.complete_bipartite(3, 4),
    "grid33": graphs.grid(3, 3),
    "tree3": graphs.balanced_binary_tree(3),
}
RULES = {
    "maxdeg_plus1": weights.max_degree,
    "mh": weights.metropolis,
    "best_constant": weights.best_constant,
    "fmmc": weights.fastest,
    "fdla": lambda graph: weights.fastest(graph, nonnegative=False),
}


@pytest.mark.parametrize("case", CASES)
def test_recorded_second_largest_moduli(case):
    recorded = references.load("theory_checks")["weights"][case]
    for rule, weigh in RULES.items():
        assert slem(weigh(CASES[case])) == pytest.approx(recorded[rule], abs=1e-6), rule


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_fastest_weights_are_clean(graph, nonnegative):
    matrix = weights.fastest(graph, nonnegative)
    np.testing.assert_allclose(matrix.sum(axis=0), 1, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(matrix, matrix.T)
    links = nx.to_numpy_array(graph) > 0
    assert (matrix[~links & ~np.eye(len(matrix), dtype=bool)] == 0).all()
    assert not nonnegative or matrix.min() >= 0


def test_fastest_path_is_the_theorem_of_boyd_et_al():
    for n in (2, 5, 9):
        assert slem(weights.fastest(graphs.path(n))) == pytest.approx(np.cos(np.pi / n), abs=1e-7)


def test_fastest_and_best_constant_on_one_node():
    assert weights.fastest(graphs.ring(1)) == weights.best_constant(graphs.ring(1)) == 1


def test_fastest_names_the_extra_that_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "clarabel", None)
    with pytest.raises(ImportError, match=r"pip install 'adozoo\[solvers\]'"):
        weights.fastest(graphs.ring(4))


random_graphs = st.builds(
    lambda n, p, seed: graphs.canonical(nx.gnp_random_graph(n, p, seed)),
    st.integers(1, 25),
    st.floats(0, 1),
    st.integers(0, 10**6),
)


@given(random_graphs)
def test_undirected_weights_are_symmetric_stochastic_and_non_negative(graph):
    for weigh in (weights.metropolis, weights.max_degree):
        matrix = weigh(graph)
        weights.check_mixing_matrix(matrix)
        np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-14)
        np.testing.assert_array_equal(matrix, matrix.T)
        assert matrix.min() >= 0
        assert np.abs(np.linalg.eigvalsh(matrix)).max() <= 1 + 1e-12
        assert (np.diag(matrix) > 0).all()
        assert weights.is_connected(matrix) == nx.is_connected(graph)
        np.testing.assert_array_equal(weigh(graph, sparse=True).toarray(), matrix)
        assert np.linalg.eigvalsh(weights.lazy(matrix)).min() >= -1e-12


@given(random_graphs, st.integers(0, 10**6))
def test_metropolis_weights_move_with_the_nodes(graph, seed):
    n = graph.number_of_nodes()
    order = np.random.default_rng(seed).permutation(n)
    moved = nx.relabel_nodes(graph, dict(enumerate(order.tolist())))
    expected = weights.metropolis(graph)
    np.testing.assert_allclose(weights.metropolis(moved)[np.ix_(order, order)], expected, atol=1e-15)


@given(st.integers(2, 20), st.floats(0, 1), st.integers(0, 10**6))
def test_sender_weights_preserve_the_sum(n, probability, seed):
    graph = graphs.canonical(nx.gnp_random_graph(n, probability, seed, directed=True))
    matrix = weights.column_stochastic(graph)
    weights.check_mixing_matrix(matrix, "column")
    np.testing.assert_array_equal(weights.column_stochastic(graph, sparse=True).toarray(), matrix)
    assert weights.is_connected(matrix) == nx.is_strongly_connected(graph)
    links = nx.to_numpy_array(graph, nodelist=range(n)) > 0
    np.testing.assert_array_equal((matrix > 0) & ~np.eye(n, dtype=bool), links.T)  # row i: whom i receives from


def test_sender_weights_on_undirected_and_exponential_graphs():
    np.testing.assert_allclose(
        weights.column_stochastic(graphs.ring(6)), weights.metropolis(graphs.ring(6)), atol=1e-15
    )
    for n in (4, 6, 8, 16):
        matrix = weights.column_stochastic(graphs.exponential(n))
        weights.check_mixing_matrix(matrix)
        assert slem(matrix) == pytest.approx(1 - 2 / (1 + np.ceil(np.log2(n))), abs=1e-12)


def test_user_labels_do_not_matter():
    grid = nx.grid_2d_graph(3, 4)
    np.testing.assert_array_equal(weights.metropolis(grid), weights.metropolis(graphs.grid(3, 4)))


def test_best_constant_closed_form():
    """(l_n - l_2) / (l_n + l_2), and nodes of high degree with negative self-weights."""
    matrix = weights.best_constant(graphs.star(6))
    assert slem(matrix) == pytest.approx(5 / 7, abs=1e-12)
    assert matrix[0, 0] < 0


@pytest.mark.parametrize("spec", ["ring:100000", "torus:250x400", "random_regular:4,100000,0"])
def test_large_sparse_weights_take_seconds(spec):
    start = time.perf_counter()
    matrix = weights.metropolis(graphs.parse(spec), sparse=True)
    weights.check_mixing_matrix(matrix)
    assert weights.is_connected(matrix)
    assert matrix.nnz == 100_000 * (3 if spec.startswith("ring") else 5)
    assert matrix.data.min() > 0
    assert sp.issparse(weights.lazy(matrix))
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize("spec", ["ring:301", "social_network", "expander:300", "binary_tree:300", "complete:20"])
@pytest.mark.parametrize("matrix_free", [True, False])
def test_extreme_eigenvalues(spec, matrix_free, monkeypatch):
    matrix = weights.metropolis(graphs.parse(spec), sparse=True)
    spectrum = np.linalg.eigvalsh(matrix.toarray())
    monkeypatch.setattr(weights, "DENSE_LIMIT", 0 if matrix_free and len(spectrum) > 100 else 2000)
    assert weights.second_eigenvalue(matrix) == pytest.approx(spectrum[-2], abs=1e-9)
    assert weights.smallest_eigenvalue(matrix) == pytest.approx(spectrum[0], abs=1e-9)


def test_extreme_eigenvalues_where_lanczos_stalls():
    n = 4001
    matrix = weights.metropolis(graphs.ring(n), sparse=True)
    assert 1 - weights.second_eigenvalue(matrix) == pytest.approx(2 / 3 * (1 - np.cos(2 * np.pi / n)), rel=1e-4)
    assert weights.smallest_eigenvalue(matrix) == pytest.approx((1 - 2 * np.cos(np.pi / n)) / 3, abs=1e-10)


def test_eigenvalues_of_tiny_matrices():
    assert weights.second_eigenvalue(np.ones((1, 1))) == 0
    assert weights.smallest_eigenvalue(np.ones((1, 1))) == 1
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert weights.second_eigenvalue(swap) == weights.smallest_eigenvalue(swap) == pytest.approx(-1)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, sp.csr_array, sp.coo_matrix, np.ndarray.tolist])
def test_matrices_of_all_kinds_are_checked(kind):
    good, bad = np.full((2, 2), 0.5), np.array([[0.5, 0.5], [0.4, 0.5]])
    weights.check_mixing_matrix(kind(good))
    assert weights.is_connected(kind(good))
    with pytest.raises(ValueError, match=r"every row must sum to one, row 1 sums to 0.9"):
        weights.check_mixing_matrix(kind(bad))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: weights.check_mixing_matrix(np.ones((2, 3)) / 3), r"must be square, \[n, n\] .* got shape \(2, 3\)"),
        (lambda: weights.check_mixing_matrix(np.ones(3)), r"got shape \(3,\)"),
        (lambda: weights.check_mixing_matrix(np.zeros((0, 0))), r"got shape \(0, 0\)"),
        (lambda: weights.check_mixing_matrix(np.full((2, 2), np.nan)), r"entries must be finite"),
        (lambda: weights.check_mixing_matrix(np.eye(2) + 0j), r"entries must be real numbers, got dtype complex128"),
        (lambda: weights.check_mixing_matrix([["a"]]), r"entries must be real numbers"),
        (lambda: weights.check_mixing_matrix(np.eye(2), "both"), r"'doubly', 'row' or 'column', got 'both'"),
        (
            lambda: weights.check_mixing_matrix(np.array([[1, 1], [0, 0]])),
            r"every row must sum to one, row 0 sums to 2. .* or pass stochastic='column'",
        ),
        (
            lambda: weights.check_mixing_matrix(np.array([[1, 0], [1, 0]]), "column"),
            r"every column must sum to one, column 0 sums to 2. Build W with adozoo.weights.metropolis\(graph\).$",
        ),
        (
            lambda: weights.metropolis(graphs.directed_ring(3)),
            r"metropolis: graph must be undirected.*column_stochastic",
        ),
        (lambda: weights.best_constant(graphs.disconnected(3)), r"best_constant: graph must be connected, got 3 comp"),
        (lambda: weights.fastest(graphs.disconnected(2)), r"fastest: graph must be connected, got 2 components"),
        (lambda: weights.metropolis(nx.Graph([(0, 0)])), r"self-loop at node 0"),
        (lambda: weights.lazy(np.ones((2, 3))), r"lazy: .* must be square"),
        (
            lambda: weights.second_eigenvalue(weights.column_stochastic(graphs.directed_ring(3))),
            r"second_eigenvalue: W must be symmetric, max \|W - W'\| is 0.5.* theory.spectral_gap",
        ),
        (lambda: weights.smallest_eigenvalue(2 * np.eye(2)), r"row 0 sums to 2"),
    ],
)
def test_misuse_is_explained(use, message):
    with pytest.raises(ValueError, match=message):
        use()
