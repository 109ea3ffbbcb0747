"""Named graph families, as networkx graphs on the nodes 0..n-1.

Every family returns a simple `networkx.Graph` without self-loops (`exponential` and `directed_ring`: a `DiGraph`,
whose edge j -> i means that j sends to i). `graph.graph["name"]` holds the call in the notation of `parse`, such as
"torus:4x8". Sizes are Python integers; a bad one raises a ValueError that says what would do. Building takes time and
memory linear in the number of edges. The weights of the links are the business of `adozoo.weights`.
"""

import difflib
import inspect
import math
import re
from collections.abc import Callable

import networkx as nx
import numpy as np

from adozoo._graph_parts import build, canonical, check_size
from adozoo._random_graphs import erdos_renyi, expander, random_geometric, random_regular
from adozoo._tree_graphs import (
    balanced_binary_tree,
    binary_tree,
    bounded_degree_tree,
    heap_binary_tree,
    reversed_heap_binary_tree,
)


def path(n: int) -> nx.Graph:
    """Path (chain): i ~ i + 1. Degrees 2, at the ends 1.

    Example:
      >>> list(adozoo.graphs.path(4).edges)
      [(0, 1), (1, 2), (2, 3)]
    """
    check_size("path", "n", n, 1)
    return build(f"path:{n}", n, np.arange(n - 1), np.arange(1, n))


def ring(n: int) -> nx.Graph:
    """Cycle: i ~ i ± 1 mod n. Degree 2 (n = 2 is a single edge, n = 1 a single node).

    Example:
      >>> sorted(adozoo.graphs.ring(5)[0])
      [1, 4]
    """
    check_size("ring", "n", n, 1)
    tails = np.arange(n if n > 1 else 0)
    return build(f"ring:{n}", n, tails, (tails + 1) % n)


def star(n: int) -> nx.Graph:
    """Star: the hub 0 ~ each of the n - 1 leaves. Degrees n - 1 and 1.

    Example:
      >>> dict(adozoo.graphs.star(4).degree)
      {0: 3, 1: 1, 2: 1, 3: 1}
    """
    check_size("star", "n", n, 1)
    return build(f"star:{n}", n, np.zeros(n - 1, dtype=int), np.arange(1, n))


def complete(n: int) -> nx.Graph:
    """Complete graph: everyone ~ everyone. Degree n - 1.

    Example:
      >>> adozoo.graphs.complete(5).number_of_edges()
      10
    """
    check_size("complete", "n", n, 1)
    return build(f"complete:{n}", n, *np.triu_indices(n, 1))


def disconnected(n: int) -> nx.Graph:
    """No edge at all: every node on its own. Degree 0.

    Example:
      >>> adozoo.graphs.disconnected(3).number_of_edges()
      0
    """
    check_size("disconnected", "n", n, 1)
    return build(f"disconnected:{n}", n, [], [])


def grid(rows: int, columns: int) -> nx.Graph:
    """Grid, node r * columns + c at (r, c): the product of two paths. n = rows * columns, degrees 2 to 4.

    Example:
      >>> sorted(adozoo.graphs.grid(3, 3)[4])
      [1, 3, 5, 7]
    """
    check_size("grid", "rows", rows, 1)
    check_size("grid", "columns", columns, 1)
    node = np.arange(rows * columns).reshape(rows, columns)
    tails = np.concatenate([node[:, :-1].ravel(), node[:-1].ravel()])
    heads = np.concatenate([node[:, 1:].ravel(), node[1:].ravel()])
    return build(f"grid:{rows}x{columns}", rows * columns, tails, heads)


def torus(rows: int, columns: int) -> nx.Graph:
    """Torus: a grid wrapped within its rows and columns, the product of two rings. n = rows * columns, degree 4.

    A side of length 2 gives one edge (degree 3), a side of length 1 none. Not the graph that the code of "Beyond
    spectral gap" calls a torus: that one is `helical_torus`.

    Example:
      >>> sorted(adozoo.graphs.torus(3, 4)[3])
      [0, 2, 7, 11]
    """
    check_size("torus", "rows", rows, 1)
    check_size("torus", "columns", columns, 1)
    node = np.arange(rows * columns).reshape(rows, columns)
    tails, heads = [], []
    for axis, length in enumerate((rows, columns)):
        if length > 1:
            tails.append(node.ravel())
            heads.append(np.roll(node, -1, axis).ravel())
    empty = np.arange(0)
    return build(
        f"torus:{rows}x{columns}", rows * columns, np.concatenate([empty, *tails]), np.concatenate([empty, *heads])
    )


def helical_torus(rows: int, columns: int) -> nx.Graph:
    """The "torus" of the code of "Beyond spectral gap": i ~ i ± 1 and i ± columns mod n, n = rows * columns. Degree 4.

    Leaving a row on its right enters the next row. With rows = 2 both vertical neighbours of i are one node, which the
    authors count twice in the degree but link with one weight: such an edge carries the attribute `multiplicity` 2,
    and the degrees of `adozoo.weights` are sums of multiplicities, so that Metropolis weights are the authors' 1/5.

    Example:
      >>> sorted(adozoo.graphs.helical_torus(3, 4)[3])
      [2, 4, 7, 11]

    Reference: Vogels, Hendrikx and Jaggi, Beyond spectral gap, 2022 (topologies.py of the authors).
    """
    check_size("helical_torus", "rows", rows, 2, "Use ring(columns) for a single row.")
    check_size("helical_torus", "columns", columns, 2, "Use ring(rows) for a single column.")
    n = rows * columns
    node = np.arange(n)
    name = f"helical_torus:{rows}x{columns}"
    graph = build(name, n, np.tile(node, 2), np.concatenate([(node + 1) % n, (node + columns) % n]))
    if rows == 2:
        graph.add_edges_from(zip(range(columns), range(columns, n), strict=True), multiplicity=2)
    return graph


def hypercube(n: int) -> nx.Graph:
    """Hypercube on n = 2**d nodes: i ~ i xor 2^k for k < d. Degree d.

    Example:
      >>> sorted(adozoo.graphs.hypercube(8)[5])
      [1, 4, 7]
    """
    check_size("hypercube", "n", n, 1)
    if n & (n - 1):
        raise ValueError(
            f"hypercube: n must be a power of two (the number of nodes, not the dimension), got {n}. "
            f"Pass {2 ** (n.bit_length() - 1)} or {2 ** n.bit_length()}."
        )
    node = np.arange(n)
    bits = [2**k for k in range(n.bit_length() - 1)]
    tails = np.concatenate([node[:0], *(node[node & bit == 0] for bit in bits)])
    heads = np.concatenate([node[:0], *(node[node & bit > 0] for bit in bits)])
    return build(f"hypercube:{n}", n, tails, heads)


def two_cliques(n: int) -> nx.Graph:
    """Two complete graphs of n / 2 nodes, joined by the one edge 0 ~ n / 2. Degrees n / 2 - 1, at the bridge n / 2.

    Example:
      >>> sorted(adozoo.graphs.two_cliques(6)[0])
      [1, 2, 3]
    """
    check_size("two_cliques", "n", n, 2)
    if n % 2:
        raise ValueError(f"two_cliques: n must be even, got {n}. Use {n - 1} or {n + 1}.")
    first, second = np.triu_indices(n // 2, 1)
    tails, heads = np.concatenate([[0], first, first + n // 2]), np.concatenate([[n // 2], second, second + n // 2])
    return build(f"two_cliques:{n}", n, tails, heads)


def barbell(clique: int, path: int) -> nx.Graph:
    """Two complete graphs of `clique` nodes, joined by a path of `path` further nodes. n = 2 * clique + path.

    The nodes are numbered from one end to the other.

    Example:
      >>> sorted(adozoo.graphs.barbell(3, 1)[3])
      [2, 4]
    """
    check_size("barbell", "clique", clique, 1)
    check_size("barbell", "path", path, 0)
    first, second = np.triu_indices(clique, 1)
    line = np.arange(clique - 1, clique + path)
    tails = np.concatenate([first, line, first + clique + path])
    heads = np.concatenate([second, line + 1, second + clique + path])
    return build(f"barbell:{clique},{path}", 2 * clique + path, tails, heads)


def complete_bipartite(p: int, q: int) -> nx.Graph:
    """Complete bipartite graph K_{p,q}: each of 0..p-1 ~ each of p..p+q-1. n = p + q, degrees q and p.

    Example:
      >>> adozoo.graphs.complete_bipartite(3, 4).number_of_edges()
      12
    """
    check_size("complete_bipartite", "p", p, 1)
    check_size("complete_bipartite", "q", q, 1)
    tails, heads = np.repeat(np.arange(p), q), np.tile(np.arange(p, p + q), p)
    return build(f"complete_bipartite:{p},{q}", p + q, tails, heads)


def paley(q: int) -> nx.Graph:
    """Paley graph of a prime q = 1 mod 4: i ~ j if i - j is a non-zero square mod q. n = q, degree (q - 1) / 2.

    Example:
      >>> sorted(adozoo.graphs.paley(13)[0])
      [1, 3, 4, 9, 10, 12]
    """
    check_size("paley", "q", q, 5)
    if q % 4 != 1 or any(q % k == 0 for k in range(2, math.isqrt(q) + 1)):
        raise ValueError(f"paley: q must be a prime with q = 1 mod 4, got {q}. Use 5, 13, 17, 29, 37, 41, 53, 61 ...")
    squares = np.unique(np.arange(1, q) ** 2 % q)
    tails = np.repeat(np.arange(q), len(squares))
    return build(f"paley:{q}", q, tails, (tails + np.tile(squares, q)) % q)


def directed_ring(n: int) -> nx.DiGraph:
    """Directed cycle: i -> i + 1 mod n. In- and out-degree 1.

    Example:
      >>> list(adozoo.graphs.directed_ring(3).edges)
      [(0, 1), (1, 2), (2, 0)]
    """
    check_size("directed_ring", "n", n, 1)
    tails = np.arange(n if n > 1 else 0)
    return build(f"directed_ring:{n}", n, tails, (tails + 1) % n, directed=True)


def exponential(n: int) -> nx.DiGraph:
    """Static exponential graph, directed: i -> i + 2^k mod n for all 2^k < n. In- and out-degree ceil(log2 n).

    Example:
      >>> list(adozoo.graphs.exponential(6).successors(5))
      [0, 1, 3]

    Reference: Ying et al., Exponential graph is provably efficient for decentralized deep training, 2021.
    """
    check_size("exponential", "n", n, 1)
    hops = 2 ** np.arange((n - 1).bit_length())
    tails = np.repeat(np.arange(n), len(hops))
    return build(f"exponential:{n}", n, tails, (tails + np.tile(hops, n)) % n, directed=True)


def social_network() -> nx.Graph:
    """The Davis southern women graph: 18 women ~ the 14 events they attended, numbered in networkx' order. n = 32.

    89 edges, degrees 1 to 14; the node attribute `label` keeps the names.

    Example:
      >>> print(adozoo.graphs.social_network())
      Graph named 'social_network' with 32 nodes and 89 edges

    Reference: Davis, Gardner and Gardner, Deep South, 1941.
    """
    graph = canonical(nx.davis_southern_women_graph())
    graph.graph = {"name": "social_network"}
    return graph


def double_binary_trees(n: int) -> tuple[nx.Graph, nx.Graph]:
    """`heap_binary_tree(n)` and `reversed_heap_binary_tree(n)`: an inner node of one is a leaf of the other.

    An odd n has one exception, (n - 1) / 2. With half of a message on each tree, no node sends more than two messages
    a step: the inner nodes 1..(n - 1) // 2 of the first tree are leaves of the second, and their degrees add up to 4
    at most.

    Example:
      >>> first, second = adozoo.graphs.double_binary_trees(8)
      >>> [first.degree[i] + second.degree[i] for i in range(8)]
      [2, 4, 4, 4, 4, 4, 4, 2]

    Reference: Sanders, Speck and Träff, Two-tree algorithms for full bandwidth broadcast, reduction and scan, 2009.
    """
    return heap_binary_tree(n), reversed_heap_binary_tree(n)


def spanning_tree(graph: nx.Graph, root: int = 0) -> nx.Graph:
    """The spanning tree of shortest paths from a root, of several the one that is first in lexicographic order.

    Those paths form a tree: what precedes the last node of such a path is the path to the node before it.

    Args:
      graph: a connected graph on 0..n-1, undirected.
      root: the node whose distances are kept.

    Returns:
      A tree on the same nodes, whose depth is the eccentricity of the root. The attribute `name` of the graph is
      "spanning_tree(<name>, <root>)".

    Raises:
      ValueError: for a directed or disconnected graph, or a root that is not in it.

    Example:
      >>> adozoo.graphs.spanning_tree(adozoo.graphs.ring(5), root=2).edges
      EdgeView([(0, 1), (1, 2), (2, 3), (3, 4)])
    """
    graph = canonical(graph)
    n = len(graph)
    if graph.is_directed():
        raise ValueError("spanning_tree: graph must be undirected, got a DiGraph. Pass graph.to_undirected().")
    if root not in graph:
        raise ValueError(f"spanning_tree: root must be one of the nodes 0..{n - 1}, got {root!r}.")
    # Breadth first with sorted neighbours meets the nodes of a level in the order of their paths.
    edges = list(nx.bfs_edges(graph, root, sort_neighbors=sorted))
    if len(edges) < n - 1:
        raise ValueError(
            f"spanning_tree: graph must be connected, but {n - 1 - len(edges)} of its {n} nodes cannot be reached from "
            f"{root}. Take a component: graph.subgraph(networkx.node_connected_component(graph, {root}))."
        )
    name = f"spanning_tree({graph.graph['name']}, {root})"
    return build(name, n, [u for u, _ in edges], [v for _, v in edges])


FAMILIES: dict[str, Callable[..., nx.Graph]] = {
    family.__name__: family
    for family in (
        *(path, ring, star, complete, disconnected, grid, torus, helical_torus, hypercube),
        *(binary_tree, balanced_binary_tree, heap_binary_tree, reversed_heap_binary_tree, bounded_degree_tree),
        *(two_cliques, barbell, complete_bipartite, paley, directed_ring, exponential, social_network),
        *(erdos_renyi, random_geometric, random_regular, expander),
    )
}


def parse(spec: str) -> nx.Graph:
    """The graph that a string names, as command lines give it: "family:arguments", arguments apart by "," or "x".

    `parse(graph.graph["name"])` builds the graphs of this module again.

    Args:
      spec: such as "ring:32", "torus:4x8", "erdos_renyi:20,0.3,0" or "social_network".

    Returns:
      The graph.

    Raises:
      ValueError: an unknown family, an argument that is no number, a wrong count of them, or what the family refuses.

    Example:
      >>> print(adozoo.graphs.parse("torus:4x8"))
      Graph named 'torus:4x8' with 32 nodes and 64 edges
    """
    name, _, text = spec.partition(":")
    if name not in FAMILIES:
        near = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(sorted(FAMILIES))}."
        raise ValueError(f"parse: unknown graph family {name!r} in {spec!r}. {hint}")
    family = FAMILIES[name]
    signature = inspect.signature(family)
    try:
        parts = signature.bind(*filter(None, re.split("[,x]", text))).arguments
        arguments = {key: (int if signature.parameters[key].annotation is int else float)(parts[key]) for key in parts}
    except (TypeError, ValueError) as error:
        expected = f"{name}({', '.join(map(str, signature.parameters.values()))})"
        raise ValueError(f"parse: {spec!r} does not fit {expected}: {error}. Write it like 'torus:4x8'.") from None
    return family(**arguments)
