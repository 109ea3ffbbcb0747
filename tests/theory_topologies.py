"""Mixing matrices of the topologies in the reference data, written from their definitions with numpy and networkx.

They are deliberately independent of `adozoo`, so that the theory is not tested against the code it is used with.
"""

import networkx as nx
import numpy as np


def metropolis(graph):
    """w_ij = 1 / (1 + max(deg_i, deg_j)) on the edges, the rest on the diagonal; nodes in sorted order."""
    adjacency = nx.to_numpy_array(graph, nodelist=sorted(graph))
    degrees = adjacency.sum(1)
    W = adjacency / (1 + np.maximum(degrees[:, None], degrees[None, :]))
    return W + np.diag(1 - W.sum(1))


def circulant(n, weights):
    """x_i <- sum_shift weights[shift] x_{i + shift}."""
    return sum(weight * np.roll(np.eye(n), shift, axis=1) for shift, weight in weights.items())


def ring(n):
    return metropolis(nx.cycle_graph(n)) if n > 2 else np.full((n, n), 1 / n)


def helical_torus(rows, columns):
    """Node i meets i +- 1 and i +- columns; with two rows the vertical neighbours coincide, the degree stays 4."""
    if rows == 2:
        return circulant(2 * columns, {0: 2 / 5, 1: 1 / 5, -1: 1 / 5, columns: 1 / 5})
    return circulant(rows * columns, dict.fromkeys((0, 1, -1, columns, -columns), 1 / 5))


def product_torus(*sizes):
    """Cartesian product of rings; a ring of two nodes is one edge."""
    graph = nx.convert_node_labels_to_integers(nx.grid_graph(sizes, periodic=True))
    return metropolis(graph)


def binary_tree(n):
    """A heap on nodes 1 ... n - 1 with parent i // 2; node 0 is one more leaf above the root 1."""
    return metropolis(nx.Graph([(i, i // 2) for i in range(1, n)]))


def regular_tree(degree, n):
    """The first n nodes, in breadth-first order, of the tree in which every node has `degree` neighbours."""
    edges, parent, free = [], 0, degree
    for child in range(1, n):
        if free == 0:
            parent, free = parent + 1, degree - 1
        edges.append((parent, child))
        free -= 1
    return metropolis(nx.Graph(edges))


def two_cliques(n):
    half = n // 2
    graph = nx.disjoint_union(nx.complete_graph(half), nx.complete_graph(half))
    graph.add_edge(0, half)
    return metropolis(graph)


def social_network():
    return metropolis(nx.convert_node_labels_to_integers(nx.davis_southern_women_graph()))


def one_peer_exponential(n):
    return np.stack([circulant(n, {0: 0.5, 2**t: 0.5}) for t in range(n.bit_length() - 1)])


def local_steps(n, period):
    return np.stack([np.eye(n)] * (period - 1) + [np.full((n, n), 1 / n)])


def mix(n, alpha):
    return (1 - alpha) * np.eye(n) + alpha / n


def lazy(W):
    return (np.eye(len(W)) + W) / 2


_NAMED = {
    "ring": ring,
    "uniring": lambda n: circulant(n, {0: 0.5, 1: 0.5}),
    "torus": lambda sizes: helical_torus(*sizes),
    "hypercube": lambda n: metropolis(nx.convert_node_labels_to_integers(nx.hypercube_graph(n.bit_length() - 1))),
    "fully_connected": lambda n: np.full((n, n), 1 / n),
    "star": lambda n: metropolis(nx.star_graph(n - 1)),
    "chain": lambda n: metropolis(nx.path_graph(n)),
    "binary_tree": binary_tree,
    "two_cliques": two_cliques,
    "tree_maxdeg3": lambda n: regular_tree(3, n),
    "social_network": lambda n: social_network(),
    "disconnected": np.eye,
    "one_peer_exponential": one_peer_exponential,
    "local_steps_3": lambda n: local_steps(n, 3),
    "mix_0.3": lambda n: mix(n, 0.3),
}


def topology(name, n):
    """The mixing matrix, or [period, n, n] matrices, of an entry of the reference data."""
    return _NAMED[name](n)
