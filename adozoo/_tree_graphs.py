"""Families of trees (public in `adozoo.graphs`)."""

import networkx as nx
import numpy as np

from adozoo._graph_parts import build, check_size


def binary_tree(n: int) -> nx.Graph:
    """Binary tree, filled breadth first from the root 0: i ~ (i - 1) // 2, for any n. Degrees at most 3.

    `balanced_binary_tree` is the case n = 2**(height + 1) - 1; `heap_binary_tree` has an extra leaf above the root.

    Example:
      >>> list(adozoo.graphs.binary_tree(5).edges)
      [(0, 1), (0, 2), (1, 3), (1, 4)]
    """
    check_size("binary_tree", "n", n, 1)
    child = np.arange(1, n)
    return build(f"binary_tree:{n}", n, (child - 1) // 2, child)


def balanced_binary_tree(height: int) -> nx.Graph:
    """Binary tree with all leaves at depth `height` below the root 0. n = 2**(height + 1) - 1, degrees at most 3.

    Example:
      >>> adozoo.graphs.balanced_binary_tree(3).number_of_nodes()
      15
    """
    check_size("balanced_binary_tree", "height", height, 0)
    graph = binary_tree(2 ** (height + 1) - 1)
    graph.graph["name"] = f"balanced_binary_tree:{height}"
    return graph


def heap_binary_tree(n: int) -> nx.Graph:
    """The papers' binary tree: the nodes 1..n-1 are a heap, i ~ i // 2, and node 0 is a leaf above the root 1.

    Degrees at most 3. This is the tree of the code of RelaySGD and of "Beyond spectral gap".

    Example:
      >>> list(adozoo.graphs.heap_binary_tree(5).edges)
      [(0, 1), (1, 2), (1, 3), (2, 4)]
    """
    check_size("heap_binary_tree", "n", n, 1)
    child = np.arange(1, n)
    return build(f"heap_binary_tree:{n}", n, child // 2, child)


def bounded_degree_tree(n: int, degree: int) -> nx.Graph:
    """Tree in which all inner nodes have `degree` neighbours, grown breadth first from 0 and cut off at n nodes.

    Example:
      >>> list(adozoo.graphs.bounded_degree_tree(6, 3).edges)
      [(0, 1), (0, 2), (0, 3), (1, 4), (1, 5)]
    """
    check_size("bounded_degree_tree", "n", n, 1)
    check_size("bounded_degree_tree", "degree", degree, 1 if n <= 2 else 2, "Degree 2 gives a path, 3 a binary tree.")
    child = np.arange(1, n)
    parent = np.maximum(0, (child - 2) // max(degree - 1, 1))
    return build(f"bounded_degree_tree:{n},{degree}", n, parent, child)


def reversed_heap_binary_tree(n: int) -> nx.Graph:
    """`heap_binary_tree` with its nodes in reverse order: n - 1 is a leaf above the root n - 2. Degrees at most 3.

    Example:
      >>> sorted(adozoo.graphs.reversed_heap_binary_tree(5).edges)
      [(0, 2), (1, 3), (2, 3), (3, 4)]
    """
    check_size("reversed_heap_binary_tree", "n", n, 1)
    child = np.arange(1, n)
    return build(f"reversed_heap_binary_tree:{n}", n, n - 1 - child // 2, n - 1 - child)
