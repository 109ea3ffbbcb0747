"""What all graph families share: checked sizes, edge arrays -> networkx graph, and any graph -> nodes 0..n-1."""

import operator
from typing import Any

import networkx as nx
import numpy as np


def check_size(family: str, argument: str, value: Any, low: int, remedy: str = "") -> None:
    """Raise ValueError unless `value` is an integer >= low."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise ValueError(f"{family}: {argument} must be an integer >= {low}, got {value!r}. {remedy}".rstrip())


def build(name: str, n: int, tails: Any, heads: Any, directed: bool = False) -> Any:
    """The named graph on 0..n-1 with edges (tails[k], heads[k]); in an undirected one, repeated edges collapse."""
    graph = (nx.DiGraph if directed else nx.Graph)(name=name)
    graph.add_nodes_from(range(n))
    graph.add_edges_from(zip(np.asarray(tails).tolist(), np.asarray(heads).tolist(), strict=True))
    return graph


def canonical(graph: Any) -> nx.Graph:
    """Bring any networkx graph to the form of this library: nodes 0..n-1 in order, a name, no self-loops.

    Labels that are 0..n-1 in another order are sorted and keep their meaning. Other labels (strings, tuples ...) are
    numbered in networkx' order and kept as the node attribute `label`. Attributes of nodes and edges are kept; the edge
    attribute `multiplicity` counts in the degrees of `adozoo.weights`, any other is ignored there.

    Args:
      graph: a `networkx.Graph` or `networkx.DiGraph`.

    Returns:
      A new graph of the same kind, or `graph` itself where nothing is to change.

    Raises:
      ValueError: not a networkx graph, no nodes, a multigraph, or self-loops.

    Example:
      >>> import networkx as nx
      >>> graph = adozoo.graphs.canonical(nx.Graph([("a", "b"), ("b", "c")]))
      >>> graph.edges, graph.nodes[2]
      (EdgeView([(0, 1), (1, 2)]), {'label': 'c'})
    """
    if not isinstance(graph, nx.Graph):
        raise ValueError(
            f"graph must be a networkx Graph or DiGraph, got {type(graph).__name__}. "
            "Use adozoo.graphs, or networkx.from_numpy_array(adjacency)."
        )
    n = graph.number_of_nodes()
    if n == 0:
        raise ValueError("graph has no nodes, expected at least one. Add nodes, or use adozoo.graphs.ring(n).")
    if graph.is_multigraph():
        raise ValueError(
            "graph is a multigraph, expected at most one link between two nodes. Collapse it with "
            "networkx.Graph(graph); a link that counts twice in the degree carries the edge attribute multiplicity=2."
        )
    loop = next(nx.selfloop_edges(graph), None)
    if loop is not None:
        raise ValueError(
            f"graph has a self-loop at node {loop[0]!r}, expected none: a node's weight for itself comes from the "
            "mixing weights. Remove them with graph.remove_edges_from(list(networkx.selfloop_edges(graph)))."
        )
    ordered = all(map(operator.eq, graph, range(n)))
    if ordered and "name" in graph.graph:
        return graph
    order = range(n) if ordered or all(i in graph for i in range(n)) else list(graph)
    number = {label: i for i, label in enumerate(order)}
    result = graph.__class__()
    result.graph.update({"name": "custom", **graph.graph})
    for label, i in number.items():
        result.add_node(i, **graph.nodes[label], **({} if isinstance(order, range) else {"label": label}))
    result.add_edges_from((number[u], number[v], data) for u, v, data in graph.edges(data=True))
    return result
