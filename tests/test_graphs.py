"""adozoo.graphs: definitions, recorded topologies, closed-form Laplacian spectra, connectivity, seeds and misuse."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adozoo import graphs


def laplacian_spectrum(graph):
    return np.linalg.eigvalsh(nx.laplacian_matrix(graph).toarray().astype(float))


def test_ring_spectrum():
    for n in (3, 6, 7):
        expected = np.sort(2 - 2 * np.cos(2 * np.pi * np.arange(n) / n))
        np.testing.assert_allclose(laplacian_spectrum(graphs.ring(n)), expected, atol=1e-12)


def test_path_spectrum():
    for n in (1, 2, 6):
        expected = 2 - 2 * np.cos(np.pi * np.arange(n) / n)
        np.testing.assert_allclose(laplacian_spectrum(graphs.path(n)), expected, atol=1e-12)


def test_grid_and_torus_are_products():
    """The spectrum of a product of graphs holds all sums of an eigenvalue of one and an eigenvalue of the other."""
    for product, factor in ((graphs.grid, graphs.path), (graphs.torus, graphs.ring)):
        for rows, columns in ((1, 4), (2, 4), (3, 4), (3, 5)):
            sums = np.add.outer(laplacian_spectrum(factor(rows)), laplacian_spectrum(factor(columns)))
            actual = laplacian_spectrum(product(rows, columns))
            np.testing.assert_allclose(actual, np.sort(sums.ravel()), atol=1e-12)


def test_helical_torus_spectrum():
    k = np.arange(12)
    expected = np.sort(4 - 2 * np.cos(2 * np.pi * k / 12) - 2 * np.cos(2 * np.pi * k * 4 / 12))
    np.testing.assert_allclose(laplacian_spectrum(graphs.helical_torus(3, 4)), expected, atol=1e-12)


def test_the_two_tori_differ_by_the_wrap_of_their_rows():
    different = set(graphs.torus(4, 8).edges) ^ set(graphs.helical_torus(4, 8).edges)
    assert all({edge[0] % 8, edge[1] % 8} == {0, 7} for edge in different)
    assert len(different) == 8


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (graphs.star(6), [0, 1, 1, 1, 1, 6]),
        (graphs.complete(4), [0, 4, 4, 4]),
        (graphs.disconnected(3), [0, 0, 0]),
        (graphs.hypercube(8), [0, 2, 2, 2, 4, 4, 4, 6]),
        (graphs.complete_bipartite(3, 4), [0, 3, 3, 3, 4, 4, 7]),
        (graphs.paley(5), [0, *[(5 - 5**0.5) / 2] * 2, *[(5 + 5**0.5) / 2] * 2]),
        (graphs.paley(13), [0, *[(13 - 13**0.5) / 2] * 6, *[(13 + 13**0.5) / 2] * 6]),
    ],
)
def test_closed_form_spectra(graph, expected):
    np.testing.assert_allclose(laplacian_spectrum(graph), expected, atol=1e-12)


@pytest.mark.parametrize(("height", "expected"), [(2, 0.26795), (3, 0.09679), (5, 0.018126)])
def test_algebraic_connectivity_of_binary_trees(height, expected):
    assert laplacian_spectrum(graphs.balanced_binary_tree(height))[1] == pytest.approx(expected, abs=1e-5)


def test_families_that_networkx_has_too():
    pairs = [
        (graphs.balanced_binary_tree(3), nx.balanced_tree(2, 3)),
        (graphs.binary_tree(7), nx.full_rary_tree(2, 7)),
        (graphs.barbell(4, 2), nx.barbell_graph(4, 2)),
        (graphs.barbell(4, 0), nx.barbell_graph(4, 0)),
        (graphs.bounded_degree_tree(9, 2), nx.Graph(zip((0, 0, *range(1, 7)), range(1, 9), strict=True))),
    ]
    for graph, expected in pairs:
        assert nx.utils.graphs_equal(nx.Graph(graph.edges), nx.Graph(expected.edges))


@given(st.integers(1, 60))
def test_trees_are_trees(n):
    trees = [graphs.path(n), graphs.star(n), graphs.binary_tree(n), graphs.heap_binary_tree(n)]
    trees += [graphs.bounded_degree_tree(n, degree) for degree in (2, 3, 4)]
    assert all(nx.is_tree(tree) and list(tree) == list(range(n)) for tree in trees)
    assert max(dict(graphs.bounded_degree_tree(n, 4).degree).values()) <= 4
    assert max(dict(graphs.heap_binary_tree(n).degree).values()) <= 3


def test_heap_binary_tree_is_the_binary_tree_below_a_leaf():
    heap = graphs.heap_binary_tree(8)
    assert heap.degree[0] == 1
    below = nx.relabel_nodes(heap.subgraph(range(1, 8)), lambda i: i - 1)
    assert set(below.edges) == set(graphs.binary_tree(7).edges)


@given(st.integers(2, 70))
def test_exponential_graph(n):
    graph = graphs.exponential(n)
    assert graph.is_directed()
    assert set(dict(graph.out_degree).values()) == set(dict(graph.in_degree).values()) == {int(np.ceil(np.log2(n)))}
    assert nx.is_strongly_connected(graph)


def test_social_network():
    graph = graphs.social_network()
    assert list(graph) == list(range(32))
    assert nx.is_bipartite(graph)
    assert (graph.number_of_edges(), max(dict(graph.degree).values())) == (89, 14)
    assert graph.nodes[0]["label"] == "Evelyn Jefferson"


RANDOM = {
    "erdos_renyi": lambda seed: graphs.erdos_renyi(30, 0.15, seed),
    "random_geometric": lambda seed: graphs.random_geometric(30, 0.35, seed),
    "random_regular": lambda seed: graphs.random_regular(3, 30, seed),
    "expander": lambda seed: graphs.expander(30, 4, seed),
}


@pytest.mark.parametrize("draw", RANDOM.values(), ids=RANDOM)
def test_random_graphs_are_connected_and_follow_their_seed(draw):
    assert all(nx.is_connected(draw(seed)) for seed in range(5))
    assert set(draw(1).edges) == set(draw(1).edges)
    assert set(draw(1).edges) != set(draw(2).edges)


def test_erdos_renyi_links_every_pair_alike():
    """Far above the threshold rejections are rare, so that each of the 15 pairs is linked in a share p of the draws."""
    counts = sum(nx.to_numpy_array(graphs.erdos_renyi(6, 0.8, seed), nodelist=range(6)) for seed in range(600))
    shares = counts[np.triu_indices(6, 1)] / 600
    assert np.abs(shares - 0.8).max() < 4 * np.sqrt(0.8 * 0.2 / 600)


def test_random_geometric_links_what_is_near():
    graph = graphs.random_geometric(40, 0.3, 3)
    points = np.array([graph.nodes[i]["pos"] for i in range(40)])
    near = np.linalg.norm(points[:, None] - points, axis=-1) <= 0.3
    np.testing.assert_array_equal(nx.to_numpy_array(graph, nodelist=range(40)), near & ~np.eye(40, dtype=bool))


def test_expander_beats_the_typical_random_regular_graph():
    def gap(graph):
        spectrum = laplacian_spectrum(graph)
        return 1 - np.abs(1 - spectrum[1:] / 5).max()

    typical = np.median([gap(graphs.random_regular(4, 40, seed)) for seed in range(9)])
    assert gap(graphs.expander(40)) > typical
    assert gap(graphs.expander(1000)) > 1 - (1 + 2 * 3**0.5) / 5 - 0.03  # the Ramanujan bound, for weights (I + A) / 5


SPECS = [
    "ring:5",
    "path:4",
    "star:1",
    "complete:3",
    "disconnected:2",
    "grid:2x3",
    "torus:3x4",
    "helical_torus:2x4",
    "hypercube:8",
    "binary_tree:6",
    "balanced_binary_tree:2",
    "heap_binary_tree:7",
    "reversed_heap_binary_tree:7",
    "bounded_degree_tree:7,3",
    "two_cliques:6",
    "barbell:3,1",
    "complete_bipartite:2,3",
    "paley:13",
    "directed_ring:4",
    "exponential:6",
    "social_network",
    "erdos_renyi:12,0.5,1",
    "random_geometric:12,0.6,1",
    "random_regular:3,8,1",
    "expander:12,4,1",
]


@pytest.mark.parametrize("spec", SPECS)
def test_every_graph_carries_the_name_that_parse_reads(spec):
    graph = graphs.parse(spec)
    assert graph.graph["name"] == spec
    assert list(graph) == list(range(graph.number_of_nodes()))
    assert nx.number_of_selfloops(graph) == 0
    assert graphs.canonical(graph) is graph


def test_every_family_is_tried():
    assert {spec.partition(":")[0] for spec in SPECS} == set(graphs.FAMILIES)


def test_canonical_numbers_labels_in_order():
    graph = graphs.canonical(nx.Graph([("b", "a"), ("a", (1, 2))]))
    assert list(graph.edges) == [(0, 1), (1, 2)]
    assert [graph.nodes[i]["label"] for i in graph] == ["b", "a", (1, 2)]


def test_canonical_keeps_integers_attributes_direction_and_the_argument():
    given_graph = nx.DiGraph(name="mine")
    given_graph.add_edge(2, 0, multiplicity=2)
    given_graph.add_edge(0, 1)
    graph = graphs.canonical(given_graph)
    assert list(graph) == [0, 1, 2]
    assert graph.is_directed()
    assert graph.edges[2, 0] == {"multiplicity": 2}
    assert graph.graph["name"] == "mine"
    assert list(given_graph) == [2, 0, 1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: graphs.ring(0), r"ring: n must be an integer >= 1, got 0"),
        (lambda: graphs.ring(True), r"ring: n must be an integer >= 1, got True"),
        (lambda: graphs.torus(3, -1), r"torus: columns must be an integer >= 1, got -1"),
        (lambda: graphs.helical_torus(1, 4), r"helical_torus: rows .* Use ring\(columns\)"),
        (lambda: graphs.hypercube(6), r"hypercube: n must be a power of two .*got 6. Pass 4 or 8"),
        (lambda: graphs.two_cliques(7), r"two_cliques: n must be even, got 7. Use 6 or 8"),
        (lambda: graphs.paley(15), r"paley: q must be a prime with q = 1 mod 4, got 15"),
        (lambda: graphs.bounded_degree_tree(5, 1), r"bounded_degree_tree: degree must be an integer >= 2, got 1"),
        (lambda: graphs.erdos_renyi(10, 1.5), r"erdos_renyi: probability must lie in \[0, 1\], got 1.5"),
        (
            lambda: graphs.erdos_renyi(1000, 0.001),
            r"practically never connected. Raise probability = 0.001 above .*0.0069",
        ),
        (lambda: graphs.erdos_renyi(5, 0.01), r"no connected graph of n = 5 nodes in 100 draws. Raise probability"),
        (lambda: graphs.erdos_renyi(5, 0.5, -1), r"erdos_renyi: seed must be an integer >= 0, got -1"),
        (lambda: graphs.random_geometric(50, 0.01), r"random_geometric: found no connected .* Raise radius = 0.01"),
        (lambda: graphs.random_geometric(50, 0), r"radius must lie in"),
        (lambda: graphs.random_regular(3, 7), r"needs degree < n and n \* degree even, got degree = 3"),
        (lambda: graphs.random_regular(1, 10), r"Use degree >= 3 \(got 1\), or ring\(n\)"),
        (lambda: graphs.expander(10, 2), r"expander: degree must be an integer >= 3, got 2"),
        (lambda: graphs.parse("trous:4x8"), r"unknown graph family 'trous' .* Did you mean 'torus'\?"),
        (lambda: graphs.parse("zzz:4"), r"unknown graph family 'zzz' .* Choose one of balanced_binary_tree, "),
        (lambda: graphs.parse("torus:4"), r"'torus:4' does not fit torus\(rows: int, columns: int\)"),
        (lambda: graphs.parse("ring:many"), r"'ring:many' does not fit ring\(n: int\)"),
        (lambda: graphs.parse("ring:4.5"), r"'ring:4.5' does not fit ring\(n: int\)"),
        (lambda: graphs.parse("social_network:3"), r"does not fit social_network\(\): too many positional arguments"),
        (lambda: graphs.canonical(nx.Graph()), r"no nodes"),
        (lambda: graphs.canonical(np.eye(3)), r"must be a networkx Graph or DiGraph, got ndarray"),
        (lambda: graphs.canonical(nx.MultiGraph([(0, 1), (0, 1)])), r"multigraph"),
        (lambda: graphs.canonical(nx.Graph([(0, 1), (1, 1)])), r"self-loop at node 1"),
    ],
)
def test_misuse_is_explained(build, message):
    with pytest.raises(ValueError, match=message):
        build()
