"""Trees of adozoo.graphs: definitions, recorded neighbours, loads of double trees, spanning trees by brute force."""

import itertools

import networkx as nx
import pytest
import references

from adozoo import graphs


def edges(graph):
    return {frozenset(edge) for edge in graph.edges}


@pytest.mark.parametrize("n", [1, 2, 3, 8, 13])
def test_binary_trees_by_definition(n):
    first, second = graphs.double_binary_trees(n)
    assert edges(first) == {frozenset((w, w // 2)) for w in range(1, n)}
    assert edges(second) == {frozenset((n - 1 - w, n - 1 - w // 2)) for w in range(1, n)}
    assert list(first) == list(second) == list(range(n))


def test_binary_trees_as_recorded():
    recorded = references.load("relay_baselines")["relay_simulator"]["neighbors"]
    for name, tree in zip(("binary_tree", "binary_tree_reverse"), graphs.double_binary_trees(6), strict=True):
        assert [sorted(tree[i]) for i in range(6)] == [sorted(neighbors) for neighbors in recorded[name]]


@pytest.mark.parametrize("n", range(2, 70))
def test_double_trees_share_the_load(n):
    """An inner node of one tree is a leaf of the other, but for the middle of an odd number; four links at most."""
    first, second = graphs.double_binary_trees(n)
    both = [i for i in range(n) if first.degree[i] > 1 and second.degree[i] > 1]
    assert both == ([(n - 1) // 2] if n % 2 else [])
    assert max(first.degree[i] + second.degree[i] for i in range(n)) <= 4


def test_a_ternary_root_is_a_bounded_degree_tree():
    """The tree whose root has three children and whose other inner nodes have two, breadth first."""
    tree = graphs.bounded_degree_tree(22, 3)
    assert sorted(tree[0]) == [1, 2, 3]
    assert [sorted(tree[i]) for i in (1, 2, 3, 4)] == [[0, 4, 5], [0, 6, 7], [0, 8, 9], [1, 10, 11]]


@pytest.mark.parametrize(
    "graph", [graphs.social_network(), graphs.torus(4, 5), graphs.erdos_renyi(14, 0.3, 1), graphs.path(6)]
)
@pytest.mark.parametrize("root", [0, 5])
def test_spanning_trees_by_brute_force(graph, root):
    """Edges of the lexicographically first of all shortest paths to each node."""
    expected = set()
    for node in set(graph) - {root}:
        path = min(nx.all_shortest_paths(graph, root, node))
        expected |= {frozenset(edge) for edge in itertools.pairwise(path)}
    tree = graphs.spanning_tree(graph, root)
    assert edges(tree) == expected
    assert nx.is_tree(tree)
    assert nx.eccentricity(tree, root) == nx.eccentricity(graph, root)


def test_spanning_trees_of_the_social_network_are_short():
    diameters = {root: nx.diameter(graphs.spanning_tree(graphs.social_network(), root)) for root in (0, 5, 20)}
    assert set(diameters.values()) <= {6, 7}


def test_labels_that_are_no_numbers():
    tree = graphs.spanning_tree(nx.Graph([("a", "b"), ("b", "c"), ("a", "c")]), 2)
    assert edges(tree) == {frozenset((2, 0)), frozenset((2, 1))}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: graphs.spanning_tree(graphs.exponential(4)), r"must be undirected, got a DiGraph. Pass graph.to_un"),
        (lambda: graphs.spanning_tree(graphs.ring(4), 4), r"root must be one of the nodes 0..3, got 4"),
        (lambda: graphs.spanning_tree(graphs.disconnected(3)), r"but 2 of its 3 nodes cannot be reached from 0"),
        (lambda: graphs.double_binary_trees(0), r"heap_binary_tree: n must be an integer >= 1, got 0"),
        (lambda: graphs.reversed_heap_binary_tree(0), r"reversed_heap_binary_tree: n must be an integer >= 1"),
    ],
)
def test_misuse_is_explained(build, message):
    with pytest.raises(ValueError, match=message):
        build()
