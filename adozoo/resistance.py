r"""Effective resistances of a graph whose links have rates, and what decides the speed of randomised gossip: chi.

The Laplacian is L = \sum_{ij} r_ij (e_i - e_j)(e_i - e_j)' over the links, with r_ij the rate at which i and j
communicate (the conductance of the link, if the graph is read as an electrical network). The effective resistance is
R_ij = (e_i - e_j)' L^+ (e_i - e_j).

Everything but the table of all pairs is sparse (`adozoo._grounded`): all links of a graph cost about as much as one
factorisation.

References:
    Klein, Randic, "Resistance distance", 1993 (effective resistances, Kirchhoff index).
    Even et al., "Continuized accelerations of deterministic and stochastic gradient descents, and of gossip
        algorithms", 2021 (resistances in accelerated gossip).
    Nabli, Oyallon, "DADAO: decoupled accelerated decentralized asynchronous optimization", 2023 (chi_1, chi_2).
"""

from typing import Any, NamedTuple, TypeAlias

import networkx as nx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, eigsh

from adozoo._grounded import GroundedLaplacian
from adozoo.graphs import canonical
from adozoo.weights import smallest_eigenvalue

# A networkx graph (edge attribute `weight` = rate), or a Laplacian [n, n]: an array or a SciPy sparse array. Not
# narrower: bad input has to reach `rate_laplacian`, whose ValueError says what was expected.
LaplacianLike: TypeAlias = Any
Scalar: TypeAlias = float | int | np.floating | np.integer
# A `scipy.sparse.csr_array`, whose stubs do not know that it has a shape.
Sparse: TypeAlias = Any

DENSE_LIMIT = 100
"""Up to this many nodes the eigenvalues of a Laplacian come from a dense decomposition."""
# Laplacians may come from float32 rates, or from I - W.
_TOLERANCE = 1e-6


class Chi(NamedTuple):
    """chi_1 = 1 / lambda_2, and chi_2 = half the largest effective resistance of a link. Units of time."""

    chi_1: float
    chi_2: float


def _graph_laplacian(graph: nx.Graph) -> Sparse:
    graph = canonical(graph)
    n = graph.number_of_nodes()
    if graph.is_directed():
        raise ValueError(f"laplacian: expected an undirected graph, got a DiGraph of {n} nodes; use to_undirected()")
    edges = np.array(list(graph.edges(data="weight", default=1.0)), dtype=np.float64).reshape(-1, 3)
    tails, heads = edges[:, :2].T.astype(np.int64)
    rates = edges[:, 2]
    if not (np.isfinite(rates).all() and (rates >= 0).all()):
        raise ValueError(f"laplacian: expected edge weights (rates) >= 0, got {rates.min()}; drop such links")
    links = sp.coo_array((rates, (tails, heads)), shape=(n, n)).tocsr()
    return _from_rates(links + links.T)


def _from_rates(rates: Sparse) -> Sparse:
    """D - R of a symmetric matrix of rates: the rows sum to zero as well as rounding allows."""
    rates.eliminate_zeros()
    return sp.csr_array(sp.diags_array(rates.sum(axis=1)) - rates)


def rate_laplacian(laplacian: LaplacianLike) -> Sparse:
    """The validated Laplacian of a connected graph, sparse and in float64.

    Args:
        laplacian: undirected networkx graph with rates in the edge attribute `weight` (1 where it is absent; the
            attribute `multiplicity` is not read), or an [n, n] Laplacian, dense or sparse. For a symmetric mixing
            matrix W, the Laplacian is I - W.

    Returns:
        [n, n] csr_array: symmetric, off-diagonal entries -r_ij < 0, rows that sum to zero.

    Raises:
        ValueError: not square, not finite, not symmetric, rows that do not sum to zero, positive off-diagonal entries
            (negative rates), a directed or a disconnected graph.

    Example:
        >>> rate_laplacian(adozoo.graphs.path(3)).toarray().round(6).tolist()
        [[1.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 1.0]]
    """
    if isinstance(laplacian, nx.Graph):
        matrix = _graph_laplacian(laplacian)
    else:
        try:
            given: Sparse = sp.csr_array(
                laplacian if sp.issparse(laplacian) else np.atleast_2d(np.asarray(laplacian)), dtype=np.float64
            )
        except (TypeError, ValueError) as error:
            kind = type(laplacian).__name__
            raise ValueError(f"laplacian: cannot read {kind} as a graph or an [n, n] matrix; pass one") from error
        if given.shape[0] != given.shape[1] or not given.shape[0]:
            raise ValueError(f"laplacian: expected shape [n, n], got {given.shape}; pass a square matrix")
        if not np.isfinite(given.data).all():
            raise ValueError("laplacian: expected finite entries, got nan or inf; check the rates it was built from")
        scale = abs(given).max()
        slack = _TOLERANCE * scale
        if (asymmetry := abs(given - given.T).max()) > slack:
            raise ValueError(f"laplacian: expected a symmetric matrix, max |L - L'| is {asymmetry:.3g}; use (L + L')/2")
        if (drift := np.abs(given.sum(axis=1)).max()) > slack:
            raise ValueError(
                f"laplacian: expected rows that sum to zero, one is off by {drift:.3g}; of a mixing matrix W the "
                "Laplacian is I - W, of an adjacency matrix A it is diag(A 1) - A"
            )
        rates = sp.csr_array(sp.diags_array(given.diagonal()) - (given + given.T) / 2)
        if rates.nnz and (lowest := rates.data.min()) < -slack:
            raise ValueError(
                f"laplacian: expected off-diagonal entries <= 0, got {-lowest:.6g}; a rate is not negative"
            )
        rates.data[rates.data < np.finfo(float).eps * scale] = 0  # what rounding left of I - W is no link
        matrix = _from_rates(rates)
    parts = sp.csgraph.connected_components(matrix, directed=False, return_labels=False)
    if parts > 1:
        raise ValueError(
            f"laplacian: expected a connected graph, got {parts} components among {matrix.shape[0]} nodes, so that"
            " lambda_2 is 0; add links, or pass one component"
        )
    return matrix


def edge_resistances(laplacian: LaplacianLike) -> Sparse:
    r"""Effective resistances of all links, at once.

    R_ij = (e_i - e_j)' L^+ (e_i - e_j). Foster's theorem: \sum_{ij} r_ij R_ij = n - 1 over the links, and r_ij R_ij is
    the share of the spanning trees (weighted by their rates) that contain the link.

    Args:
        laplacian: what `rate_laplacian` accepts.

    Returns:
        [n, n] symmetric csr_array with R_ij at every link and nothing elsewhere.

    Raises:
        ValueError: what `rate_laplacian` refuses.

    Example:
        >>> edge_resistances(adozoo.graphs.ring(4)).toarray()[0].round(6).tolist()
        [0.0, 0.75, 0.0, 0.75]

    References:
        Foster, "The average impedance of an electrical network", 1949.
    """
    matrix = rate_laplacian(laplacian)
    n = matrix.shape[0]
    links = sp.triu(matrix, 1).tocoo()
    node = np.arange(n)
    inverse = GroundedLaplacian(matrix).inverse_entries(np.append(node, links.row), np.append(node, links.col))
    values = inverse[links.row] + inverse[links.col] - 2 * inverse[n:]
    upper = sp.coo_array((values, (links.row, links.col)), shape=(n, n)).tocsr()
    return sp.csr_array(upper + upper.T)


def effective_resistance(
    laplacian: LaplacianLike, i: int | None = None, j: int | None = None
) -> float | Float[np.ndarray, " n"] | Float[np.ndarray, "n n"]:
    """Effective resistance between two nodes, from one node to all, or between all pairs.

    R_ij = (e_i - e_j)' L^+ (e_i - e_j): the voltage between i and j when a unit current runs from i to j.

    Args:
        laplacian: what `rate_laplacian` accepts.
        i: a node 0..n-1; None for all pairs.
        j: a second node; None for all.

    Returns:
        R_ij; [n] for one node; [n, n] for none. Sparse for a pair and a row, a dense inverse, O(n^3), for all pairs.

    Raises:
        ValueError: what `rate_laplacian` refuses, a node that is not in 0..n-1, or j without i.

    Example:
        >>> round(effective_resistance(adozoo.graphs.ring(5), 0, 2), 6)  # 2 * 3 / 5
        1.2
        >>> effective_resistance(adozoo.graphs.star(4), 1).round(6).tolist()
        [1.0, 0.0, 2.0, 2.0]
    """
    matrix = rate_laplacian(laplacian)
    n = matrix.shape[0]
    for name, node in (("i", i), ("j", j)):
        if node is not None and not 0 <= node < n:
            raise ValueError(f"{name}: expected a node 0..{n - 1}, got {node}")
    if i is None:
        if j is not None:
            raise ValueError(f"i: expected a node, got None with j = {j}; resistance is symmetric, pass i = {j} alone")
        # Invert L + scale J instead of L: what that adds to L^+ is the same everywhere, and cancels in differences.
        scale = matrix.diagonal().mean() or 1.0
        inverse = np.linalg.inv(matrix.toarray() + scale / n)
        diagonal = np.diagonal(inverse)
        return np.maximum(diagonal[:, None] + diagonal - inverse - inverse.T, 0) * (1 - np.eye(n))
    grounded = GroundedLaplacian(matrix, i)
    if j is None:
        return grounded.inverse_entries(np.arange(n), np.arange(n))
    if i == j:
        return 0.0
    currents = np.zeros(n)
    currents[j], currents[i] = 1.0, -1.0
    return float(grounded.potentials(currents)[j])


def kirchhoff_index(laplacian: LaplacianLike) -> float:
    r"""Kirchhoff index: the sum of the effective resistances of all pairs of nodes.

    Kf = \sum_{i<j} R_ij = n tr L^+ = n \sum_{k>=2} 1 / lambda_k. Sparse: no dense inverse is formed.

    Args:
        laplacian: what `rate_laplacian` accepts.

    Returns:
        Kf; 0 for a single node.

    Raises:
        ValueError: what `rate_laplacian` refuses.

    Example:
        >>> round(kirchhoff_index(adozoo.graphs.path(4)), 6)  # (n^3 - n) / 6
        10.0
    """
    matrix = rate_laplacian(laplacian)
    n = matrix.shape[0]
    grounded, node = GroundedLaplacian(matrix), np.arange(n)
    # L^+ = (I - J) Z (I - J) with Z the grounded inverse.
    currents = np.ones(n)
    return float(n * grounded.inverse_entries(node, node).sum() - grounded.potentials(currents).sum())


def chi(laplacian: LaplacianLike) -> Chi:
    r"""The two constants of a communication graph that decide the speed of randomised gossip.

    $\chi_1 = 1 / \lambda_2(L) = \|L^+\|$ and $\chi_2 = \frac12 \max_{(i,j) \in E} (e_i - e_j)' L^+ (e_i - e_j)$, the
    factor 1/2 included. Plain gossip takes a time of order chi_1, accelerated gossip sqrt(chi_1 chi_2), and
    chi_2 <= chi_1 always. With a total rate r = tr(L) / 2 of communications, chi_2 >= (n - 1) / (2 r), with equality on
    edge-transitive graphs of equal rates. chi(c L) = chi(L) / c, so that the normalisation of the rates matters: see
    `normalize_rates`.

    Sparse: 10^4 nodes of a ring, grid or tree take about a second; the cost is that of factorising L.

    Args:
        laplacian: what `rate_laplacian` accepts.

    Returns:
        `Chi(chi_1, chi_2)`; both 0 for a single node, which is at consensus.

    Raises:
        ValueError: what `rate_laplacian` refuses.

    Example:
        >>> chi(adozoo.graphs.star(8))
        Chi(chi_1=1.0, chi_2=0.5)
        >>> graph = nx.Graph()
        >>> graph.add_edge(0, 1, weight=4.0)  # 4 communications per unit of time
        >>> chi(graph)
        Chi(chi_1=0.125, chi_2=0.125)

    References:
        Nabli, Oyallon, DADAO, 2023; Nabli, Belilovsky, Oyallon, A2CiD2, 2023.
    """
    matrix = rate_laplacian(laplacian)
    n = matrix.shape[0]
    if n == 1:
        return Chi(0.0, 0.0)
    return Chi(1 / algebraic_connectivity(matrix), float(edge_resistances(matrix).data.max()) / 2)


def algebraic_connectivity(laplacian: LaplacianLike) -> float:
    """The second smallest eigenvalue lambda_2 of a Laplacian, positive on connected graphs.

    Dense up to 100 nodes; beyond, Lanczos on L^+, applied by the factor of the grounded Laplacian.

    Args:
        laplacian: what `rate_laplacian` accepts, with at least two nodes.

    Returns:
        lambda_2.

    Raises:
        ValueError: what `rate_laplacian` refuses, or a single node.

    Example:
        >>> round(algebraic_connectivity(adozoo.graphs.complete(5)), 6)
        5.0

    References:
        Fiedler, "Algebraic connectivity of graphs", 1973.
    """
    matrix = rate_laplacian(laplacian)
    n = matrix.shape[0]
    if n == 1:
        raise ValueError("laplacian: expected at least two nodes, got 1: a single node has no second eigenvalue")
    if n <= DENSE_LIMIT:
        return float(np.linalg.eigvalsh(matrix.toarray())[1])
    grounded = GroundedLaplacian(matrix)

    def pseudoinverse(currents: np.ndarray) -> np.ndarray:
        potentials = grounded.potentials(currents - currents.mean())
        return potentials - potentials.mean()

    operator = LinearOperator((n, n), matvec=pseudoinverse, dtype=np.float64)  # type: ignore
    start = np.random.default_rng(0).normal(size=n)
    return float(1 / eigsh(operator, k=1, which="LA", v0=start, tol=1e-12, return_eigenvectors=False)[0])


def normalize_rates(laplacian: LaplacianLike, normalization: str, rate: Scalar = 1.0) -> Sparse:
    r"""Bring the rates of a graph to one of the normalisations in which chi is quoted.

    - "total_rate": the rates of all links sum to `rate`, $L \cdot \mathrm{rate} / \sum r_{ij}$; the unit of time is
      that of `1 / rate` communications in the whole network (DADAO).
    - "node_rate": on average each node is in `rate` communications per unit of time,
      $r_{ij} \mapsto \mathrm{rate} \, r_{ij} (1/d_i + 1/d_j) / 2$ with $d_i = \sum_j r_{ij}$: every node
      begins rate / 2 of them, with a neighbour drawn in proportion to r_ij. On regular graphs that is
      rate (I - A / d) (A2CiD2).
    - "largest_eigenvalue": $L \cdot \mathrm{rate} / \lambda_n(L)$, the gossip matrix of synchronous methods.

    Args:
        laplacian: what `rate_laplacian` accepts.
        normalization: "total_rate", "node_rate" or "largest_eigenvalue".
        rate: what the named quantity becomes.

    Returns:
        [n, n] csr_array, the Laplacian of the new rates.

    Raises:
        ValueError: what `rate_laplacian` refuses, an unknown normalisation, or a rate that is not positive.

    Example:
        >>> ring = adozoo.graphs.ring(16)
        >>> [round(value, 4) for value in chi(normalize_rates(ring, "node_rate"))]
        [13.1371, 0.9375]

    References:
        The code of DADAO (Nabli, Oyallon, 2023), of A2CiD2 (Nabli, Belilovsky, Oyallon, 2023) and of ADOM+
        (Kovalev et al., 2021), one each.
    """
    matrix = rate_laplacian(laplacian)
    if not (rate > 0 and np.isfinite(rate)):
        raise ValueError(f"rate: expected a positive number, got {rate}; without communication there is no consensus")
    degrees = matrix.diagonal()
    if normalization == "node_rate":
        links = sp.csr_array(sp.diags_array(degrees) - matrix)
        shares = sp.diags_array(1 / np.maximum(degrees, np.finfo(float).tiny)) @ links
        return _from_rates(sp.csr_array((shares + shares.T) * (rate / 2)))
    if normalization == "total_rate":
        present = degrees.sum() / 2
    elif normalization == "largest_eigenvalue":
        step = degrees.max() or 1.0
        present = step * (1 - smallest_eigenvalue(sp.eye_array(len(degrees)) - matrix / step))
    else:
        names = '"total_rate", "node_rate" or "largest_eigenvalue"'
        raise ValueError(f"normalization: expected {names}, got {normalization!r}")
    return sp.csr_array(matrix * (rate / (present or 1.0)))
