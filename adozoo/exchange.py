r"""Exchanges: messages on directed edges, for methods that tell every neighbour something else.

A mixing tells all neighbours the same, and sums what arrives. Where a message belongs to one edge (relayed sums, the
difference between two neighbours, pairwise gossip) a method works on the graph's links instead. Each node i holds one
row a neighbour j, its side (i, j) of the edge:

    links = adozoo.exchange(adozoo.graphs.path(4))
    m = links.per_link(x)                    # [n, ...] -> [rows, ...]: x_i for each of i's links
    heard = links.swap(m, step)              # what j put on its side: the only communication
    total = links.collect(heard)             # [rows, ...] -> [n, ...]: sum over i's links

Faults of `adozoo.channel` (drops, recorded_drops, link_failures, node_failures), delays and the counting of bits wrap
exchanges as they wrap mixings, with the same coins: one key loses the same messages in gossip and in a relay. A method
that is given a mixing takes its links, faults and placement along.

On a mesh (`adozoo.placement.place`) the rows of a node lie on its device, and a swap is as many collective-permutes as
an edge colouring of the devices' graph has colours.
"""

from typing import Any

from adozoo._exchange import Exchange, OnLinks
from adozoo.mixing import Mixing, mixing

__all__ = ["Exchange", "OnLinks", "exchange"]


def exchange(graph_or_mixing: Any, weights: str = "metropolis") -> Exchange:
    """The links of an undirected graph.

    Args:
      graph_or_mixing: a networkx graph on nodes 0 ... n - 1, a symmetric mixing matrix, a mixing (whose faults and
        placement it keeps), or an exchange, which is returned as it is.
      weights: how to weigh the edges of a graph, for methods that use weights; see `adozoo.mixing`.

    Returns:
      An exchange: `.n`, `.per_link(tree)`, `.swap(tree, step)`, `.collect(tree)`.

    Raises:
      ValueError: for a directed or disconnected graph, one that varies with the step, or a traced matrix.

    Example:
      >>> links = adozoo.exchange(adozoo.graphs.path(3))
      >>> links.own, links.other
      (array([0, 1, 1, 2]), array([1, 0, 2, 1]))
      >>> links.collect(links.swap(links.per_link(jnp.array([1.0, 10.0, 100.0]))))
      Array([ 10., 101.,  10.], dtype=float64)
    """
    if isinstance(graph_or_mixing, Exchange | Mixing):
        return graph_or_mixing.exchange()
    return mixing(graph_or_mixing, weights).exchange()
