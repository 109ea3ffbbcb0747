"""Random graph families, connected, and a function of their arguments and seed alone (public in `adozoo.graphs`)."""

import math
from collections.abc import Callable

import networkx as nx
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigsh
from scipy.spatial import KDTree

from adozoo._graph_parts import build, check_size

ATTEMPTS = 100  # draws before giving up on a connected graph
EXPANDER_DRAWS = 8

Edges = tuple[np.ndarray, np.ndarray]


def _is_connected(n: int, tails: np.ndarray, heads: np.ndarray) -> bool:
    """The same as `nx.is_connected`, on arrays: a hundred times faster, which matters when draws are rejected."""
    adjacency = sparse.coo_array((np.ones(len(tails), dtype=np.int8), (tails, heads)), shape=(n, n))
    return sparse.csgraph.connected_components(adjacency, directed=False, return_labels=False) == 1


def _connected_draw(family: str, draw: Callable[[np.random.Generator], Edges], n: int, seed: int, cure: str) -> Edges:
    """The first connected one of the draws that the seed gives rise to."""
    check_size(family, "seed", seed, 0)
    rng = np.random.default_rng(seed)
    for _ in range(ATTEMPTS):
        tails, heads = draw(rng)
        if _is_connected(n, tails, heads):
            return tails, heads
    raise ValueError(f"{family}: found no connected graph of n = {n} nodes in {ATTEMPTS} draws. {cure}")


def erdos_renyi(n: int, probability: float | int, seed: int = 0) -> nx.Graph:
    """Erdős-Rényi graph G(n, p) given that it is connected: each pair ~ with probability p, redrawn until connected.

    Mean degree about (n - 1) p. Connected draws are rare below p = log(n) / n.

    Example:
      >>> print(adozoo.graphs.erdos_renyi(20, 0.3, seed=0).graph["name"])
      erdos_renyi:20,0.3,0
    """
    check_size("erdos_renyi", "n", n, 1)
    threshold = math.log(n) / n
    if not 0 <= probability <= 1:
        raise ValueError(f"erdos_renyi: probability must lie in [0, 1], got {probability}. Try {2 * threshold:.2g}.")
    cure = f"Raise probability = {probability} above log(n) / n = {threshold:.2g}."
    if n > 1 and n * (1 - probability) ** (n - 1) > 20:  # expected isolated nodes: none has odds of about e^-20
        raise ValueError(f"erdos_renyi: a graph of n = {n} nodes is practically never connected. {cure}")

    def draw(rng: np.random.Generator) -> Edges:
        # Pairs are numbered along the rows of the lower triangle; drawing first how many are linked, then which,
        # costs O(edges), where a coin for each pair costs O(n^2).
        pairs = n * (n - 1) // 2
        chosen = rng.choice(pairs, rng.binomial(pairs, probability), replace=False, shuffle=False)
        row = ((1 + np.sqrt(1 + 8 * chosen.astype(float))) / 2).astype(int)
        row -= row * (row - 1) // 2 > chosen  # the square root may be off by one
        row += row * (row + 1) // 2 <= chosen
        return row, chosen - row * (row - 1) // 2

    return build(f"erdos_renyi:{n},{probability},{seed}", n, *_connected_draw("erdos_renyi", draw, n, seed, cure))


def random_geometric(n: int, radius: float | int, seed: int = 0) -> nx.Graph:
    """Random geometric graph: uniform points in the unit square, ~ within `radius`, redrawn until connected.

    Mean degree about n pi radius^2; connected draws are rare below radius = sqrt(log(n) / (pi n)). The node attribute
    `pos` keeps the points, where `networkx.draw` looks for them.

    Example:
      >>> print(adozoo.graphs.random_geometric(20, 0.4, seed=0).graph["name"])
      random_geometric:20,0.4,0
    """
    check_size("random_geometric", "n", n, 1)
    if not 0 < radius <= math.sqrt(2):
        raise ValueError(f"random_geometric: radius must lie in (0, sqrt(2)], got {radius}. Try 0.4.")
    threshold = math.sqrt(math.log(n) / (math.pi * n))
    points = np.empty((n, 2))

    def draw(rng: np.random.Generator) -> Edges:
        rng.random(out=points)
        pairs = KDTree(points).query_pairs(radius, output_type="ndarray")
        return pairs[:, 0], pairs[:, 1]

    cure = f"Raise radius = {radius} above sqrt(log(n) / (pi n)) = {threshold:.2g}."
    edges = _connected_draw("random_geometric", draw, n, seed, cure)
    graph = build(f"random_geometric:{n},{radius},{seed}", n, *edges)
    nx.set_node_attributes(graph, dict(enumerate(map(tuple, points.tolist()))), "pos")
    return graph


def _draw_regular(degree: int, n: int, rng: np.random.Generator) -> Edges:
    pairs = np.array(list(nx.random_regular_graph(degree, n, seed=int(rng.integers(2**32))).edges)).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _check_regular(family: str, degree: int, n: int) -> None:
    check_size(family, "n", n, 1)
    check_size(family, "degree", degree, 0)
    if degree >= n or degree * n % 2:
        raise ValueError(
            f"{family}: a simple graph of n = {n} nodes of one degree needs degree < n and n * degree even, "
            f"got degree = {degree}. Use an even degree below n."
        )


def random_regular(degree: int, n: int, seed: int = 0) -> nx.Graph:
    """Random regular graph, asymptotically uniform over the connected ones; every node has `degree` neighbours.

    Example:
      >>> set(dict(adozoo.graphs.random_regular(3, 10, seed=0).degree).values())
      {3}

    Reference: Steger and Wormald, Generating random regular graphs quickly, 1999.
    """
    _check_regular("random_regular", degree, n)
    cure = f"Use degree >= 3 (got {degree}), or ring(n) for degree 2."
    edges = _connected_draw("random_regular", lambda rng: _draw_regular(degree, n, rng), n, seed, cure)
    return build(f"random_regular:{degree},{n},{seed}", n, *edges)


def _regular_slem(degree: int, n: int, edges: Edges) -> float:
    """||W - J|| of the Metropolis weights W = (I + A) / (degree + 1) of a regular graph."""
    adjacency = sparse.coo_array((np.ones(len(edges[0])), edges), shape=(n, n)).tocsr()
    weights = (adjacency + adjacency.T + sparse.eye_array(n)) / (degree + 1)
    if n <= 500:
        return float(np.linalg.norm(weights.toarray() - 1 / n, 2))
    operator = LinearOperator((n, n), matvec=lambda x: weights @ x - x.mean(), dtype=np.float64)  # type: ignore
    start = np.random.default_rng(0).normal(size=n)
    # Draws are ranked, not measured: two digits beyond their spread are enough.
    return float(abs(eigsh(operator, k=1, which="LM", v0=start, tol=1e-4, return_eigenvectors=False)[0]))


def expander(n: int, degree: int = 4, seed: int = 0) -> nx.Graph:
    """Sparse graph that mixes fast: of 8 connected random regular graphs, that of the largest spectral gap.

    A random regular graph is nearly Ramanujan: its adjacency matrix has |lambda| <= 2 sqrt(degree - 1) + o(1) beside
    `degree` itself, the least that any sequence of such graphs can reach. So the gap of the Metropolis weights stays
    above a constant as n grows. Every node has `degree` neighbours.

    Example:
      >>> set(dict(adozoo.graphs.expander(64).degree).values())
      {4}

    Reference: Friedman, A proof of Alon's second eigenvalue conjecture, 2003.
    """
    _check_regular("expander", degree, n)
    check_size("expander", "degree", degree, min(3, n - 1), "With degree 2 only rings are connected.")
    check_size("expander", "seed", seed, 0)
    cure = "Raise degree."
    draws = [
        _connected_draw("expander", lambda rng: _draw_regular(degree, n, rng), n, EXPANDER_DRAWS * seed + k, cure)
        for k in range(EXPANDER_DRAWS)
    ]
    best = min(draws, key=lambda edges: _regular_slem(degree, n, edges))
    return build(f"expander:{n},{degree},{seed}", n, *best)
