r"""Graph -> mixing matrix W: how much each node trusts itself and its neighbours.

Convention: W[i, j] is the weight with which node i receives from node j, so that x_i <- \sum_j W_ij x_j. For undirected
graphs all matrices here are symmetric with rows and columns that sum to one; for directed ones the columns do. With
`sparse=True` a function returns a `scipy.sparse.csr_array` and takes time and memory linear in the number of edges.

Degrees are sums of the edge attribute `multiplicity`, 1 where it is absent (see `adozoo.graphs.helical_torus`). Any
networkx graph is accepted; row i belongs to the i-th node of `adozoo.graphs.canonical(graph)`.
"""

from typing import Any

import networkx as nx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh, splu

from adozoo._fastest import solve_fastest
from adozoo._graph_parts import canonical

DENSE_LIMIT = 2000  # up to this n, eigenvalues come from a dense decomposition

Matrix = Float[np.ndarray, "n n"]


def _links(function: str, graph: nx.Graph) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """(n, tails [m], heads [m], degrees [n]) of an undirected graph, each edge once."""
    graph = canonical(graph)
    if graph.is_directed():
        raise ValueError(
            f"{function}: graph must be undirected, since its weights are symmetric, got a DiGraph of "
            f"{graph.number_of_nodes()} nodes. Use adozoo.weights.column_stochastic(graph), or graph.to_undirected()."
        )
    n = graph.number_of_nodes()
    edges = np.array(list(graph.edges(data="multiplicity", default=1)), dtype=np.int64).reshape(-1, 3)
    tails, heads, multiplicity = edges.T
    return n, tails, heads, np.bincount(tails, multiplicity, n) + np.bincount(heads, multiplicity, n)


def _assemble(n: int, tails: np.ndarray, heads: np.ndarray, values: np.ndarray, sparse: bool) -> Any:
    """W = I - sum over links of w_ij (e_i - e_j)(e_i - e_j)': symmetric, and each node keeps what it does not give."""
    diagonal = 1 - np.bincount(tails, values, n) - np.bincount(heads, values, n)
    node = np.arange(n)
    rows, columns = np.concatenate([node, tails, heads]), np.concatenate([node, heads, tails])
    entries = sp.coo_array((np.concatenate([diagonal, values, values]), (rows, columns)), shape=(n, n))
    return entries.tocsr() if sparse else entries.toarray()


def _require_connected(function: str, n: int, tails: np.ndarray, heads: np.ndarray) -> None:
    pattern = sp.coo_array((np.ones(len(tails)), (tails, heads)), shape=(n, n))
    parts = sp.csgraph.connected_components(pattern, directed=False, return_labels=False)
    if parts > 1:
        raise ValueError(
            f"{function}: graph must be connected, got {parts} components among {n} nodes: every choice of weights has "
            "spectral gap 0. Add edges, or use adozoo.weights.metropolis."
        )


def metropolis(graph: nx.Graph, sparse: bool = False) -> Matrix | sp.csr_array:
    r"""Metropolis-Hastings weights: each link by the larger of its two degrees, which both ends know.

    $W_{ij} = 1 / (1 + \max(d_i, d_j))$ for $i \sim j$, and $W_{ii} = 1 - \sum_{j \ne i} W_{ij} > 0$.

    Args:
      graph: undirected, connected or not; d_i counts the neighbours of node i, without itself.
      sparse: return a csr_array.

    Returns:
      W [n, n], symmetric, doubly stochastic, non-negative.

    Raises:
      ValueError: a directed graph, or what `adozoo.graphs.canonical` refuses.

    Example:
      >>> adozoo.weights.metropolis(adozoo.graphs.star(3)).round(3)
      array([[0.333, 0.333, 0.333],
             [0.333, 0.667, 0.   ],
             [0.333, 0.   , 0.667]])

    References:
      Xiao, Boyd and Lall, A scheme for robust distributed sensor fusion based on average consensus, 2005.
    """
    n, tails, heads, degrees = _links("metropolis", graph)
    return _assemble(n, tails, heads, 1 / (1 + np.maximum(degrees[tails], degrees[heads])), sparse)


def max_degree(graph: nx.Graph, sparse: bool = False) -> Matrix | sp.csr_array:
    r"""Maximum-degree weights: one weight for all links, safe on every graph.

    $W = I - L / (d_{\max} + 1)$ with the Laplacian L. The "+ 1" keeps $\lambda_n > -1$ on bipartite regular graphs.

    Args:
      graph: undirected, connected or not.
      sparse: return a csr_array.

    Returns:
      W [n, n], symmetric, doubly stochastic, non-negative.

    Raises:
      ValueError: a directed graph, or what `adozoo.graphs.canonical` refuses.

    Example:
      >>> adozoo.weights.max_degree(adozoo.graphs.path(3)).round(3)
      array([[0.667, 0.333, 0.   ],
             [0.333, 0.333, 0.333],
             [0.   , 0.333, 0.667]])

    References:
      Xiao and Boyd, Fast linear iterations for distributed averaging, 2004, section 4.2.
    """
    n, tails, heads, degrees = _links("max_degree", graph)
    return _assemble(n, tails, heads, np.full(len(tails), 1 / (1 + degrees.max())), sparse)


def best_constant(graph: nx.Graph) -> Matrix:
    r"""The best single weight for all links: the largest spectral gap of all $W = I - \alpha L$.

    $\alpha = 2 / (\ell_2 + \ell_n)$, with the second smallest and the largest eigenvalue of the Laplacian L of the
    simple graph, so that $\|W - J\| = (\ell_n - \ell_2) / (\ell_n + \ell_2)$. Takes a dense decomposition, O(n^3).

    Args:
      graph: undirected and connected.

    Returns:
      W [n, n], symmetric, rows and columns sum to one; nodes of high degree may have negative self-weights.

    Raises:
      ValueError: a directed or disconnected graph, or what `adozoo.graphs.canonical` refuses.

    Example:
      >>> adozoo.weights.best_constant(adozoo.graphs.star(3)).round(3)
      array([[0. , 0.5, 0.5],
             [0.5, 0.5, 0. ],
             [0.5, 0. , 0.5]])

    References:
      Xiao and Boyd, Fast linear iterations for distributed averaging, 2004, section 4.1.
    """
    n, tails, heads, _ = _links("best_constant", graph)
    _require_connected("best_constant", n, tails, heads)
    if n == 1:
        return np.ones((1, 1))
    spectrum = np.linalg.eigvalsh(np.eye(n) - _assemble(n, tails, heads, np.ones(len(tails)), sparse=False))
    return _assemble(n, tails, heads, np.full(len(tails), 2 / (spectrum[1] + spectrum[-1])), sparse=False)


def fastest(graph: nx.Graph, nonnegative: bool = True) -> Matrix:
    r"""The weights of the largest spectral gap: minimise $\|W - J\|_2$ over all symmetric W on the graph.

    A semidefinite program, $\min s$ such that $-sI \preceq W - J \preceq sI$, W 1 = 1, W_ij = 0 off the graph:
    the fastest mixing Markov chain (FMMC) if W must be non-negative, the fastest distributed linear averaging (FDLA)
    otherwise. About 1 s for n = 32 and 10 s for n = 64, growing as n^6. Needs clarabel.

    Args:
      graph: undirected and connected.
      nonnegative: demand W_ij >= 0 and W_ii >= 0.

    Returns:
      W [n, n], symmetric, with rows and columns that sum to one to rounding; \|W - J\| is optimal to about 1e-8.

    Raises:
      ValueError: a directed or disconnected graph, or what `adozoo.graphs.canonical` refuses.
      ImportError: clarabel is not installed.
      RuntimeError: the solver gave up.

    Example:
      >>> W = adozoo.weights.fastest(adozoo.graphs.path(6))
      >>> round(adozoo.weights.second_eigenvalue(W), 6)  # cos(pi / 6)
      0.866025

    References:
      Boyd, Diaconis and Xiao, Fastest mixing Markov chain on a graph, 2004.
      Xiao and Boyd, Fast linear iterations for distributed averaging, 2004.
    """
    n, tails, heads, _ = _links("fastest", graph)
    _require_connected("fastest", n, tails, heads)
    values = solve_fastest(n, tails, heads, nonnegative) if n > 1 else np.zeros(0)
    if nonnegative:  # the solver meets the bounds to its tolerance; meet them exactly, at the cost of that tolerance
        values = np.maximum(values, 0)
        values /= max(1.0, (np.bincount(tails, values, n) + np.bincount(heads, values, n)).max())
        matrix = _assemble(n, tails, heads, values, sparse=False)
        return np.where(np.abs(matrix) < 1e-15, 0.0, matrix)
    return _assemble(n, tails, heads, values, sparse=False)


def column_stochastic(graph: nx.Graph, sparse: bool = False) -> Matrix | sp.csr_array:
    r"""Uniform sender weights for directed graphs: node j splits what it has among itself and its out-neighbours.

    $W_{ij} = 1 / (1 + d^{out}_j)$ for $j \to i$ and for i = j: the sum over nodes is preserved, which push-sum needs.

    Args:
      graph: directed; an edge of an undirected graph counts both ways.
      sparse: return a csr_array.

    Returns:
      W [n, n], non-negative; columns sum to one, and on `directed_ring` and `exponential` so do rows.

    Raises:
      ValueError: what `adozoo.graphs.canonical` refuses.

    Example:
      >>> adozoo.weights.column_stochastic(adozoo.graphs.directed_ring(3))
      array([[0.5, 0. , 0.5],
             [0.5, 0.5, 0. ],
             [0. , 0.5, 0.5]])

    References:
      Nedic and Olshevsky, Distributed optimization over time-varying directed graphs, 2015.
    """
    graph = canonical(graph).to_directed(as_view=True)
    n = graph.number_of_nodes()
    senders, receivers = np.array(list(graph.edges), dtype=np.int64).reshape(-1, 2).T
    share = 1 / (1 + np.bincount(senders, minlength=n))
    node = np.arange(n)
    rows, columns = np.concatenate([node, receivers]), np.concatenate([node, senders])
    entries = sp.coo_array((share[columns], (rows, columns)), shape=(n, n))
    return entries.tocsr() if sparse else entries.toarray()


def lazy(matrix: Any) -> Any:
    r"""The lazy version $(I + W) / 2$: eigenvalues -1..1 move to 0..1, and 1 - lambda_2 halves.

    Args:
      matrix: W [n, n], an array or a SciPy sparse array.

    Returns:
      (I + W) / 2 [n, n], an array, or a csr_array if W was sparse.

    Raises:
      ValueError: W is not square.

    Example:
      >>> adozoo.weights.lazy([[0, 1], [1, 0]])
      array([[0.5, 0.5],
             [0.5, 0.5]])
    """
    matrix = _as_matrix(matrix, np.float64)
    _check_square("lazy", matrix)
    return (matrix + (sp.eye_array if sp.issparse(matrix) else np.eye)(matrix.shape[0])) / 2


def _as_matrix(matrix: Any, dtype: Any = None) -> Any:
    return sp.csr_array(matrix, dtype=dtype) if sp.issparse(matrix) else np.asarray(matrix, dtype=dtype)


def _check_square(function: str, matrix: Any) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(
            f"{function}: a mixing matrix must be square, [n, n] with n >= 1, got shape {tuple(matrix.shape)}. "
            "Build one from a graph with adozoo.weights.metropolis."
        )


def check_mixing_matrix(matrix: Any, stochastic: str = "doubly", tolerance: float = 1e-8) -> None:
    """Check that a matrix preserves averages: square, finite, real, rows and columns sum to one within `tolerance`.

    Negative entries are allowed, as `best_constant` has them.

    Args:
      matrix: W [n, n], an array or a SciPy sparse array.
      stochastic: which sums must be one: "doubly" (rows and columns), "row" or "column".
      tolerance: how far the sums may be off.

    Raises:
      ValueError: the first property that fails, with the row or column and its sum.

    Example:
      >>> adozoo.weights.check_mixing_matrix([[0.9, 0.1], [0.2, 0.8]], stochastic="row")
      >>> adozoo.weights.check_mixing_matrix([[0.9, 0.1], [0.2, 0.8]])
      Traceback (most recent call last):
      ...
      ValueError: mixing matrix: every column must sum to one, column 0 sums to 1.1. ...
    """
    if stochastic not in ("doubly", "row", "column"):
        raise ValueError(f"stochastic must be 'doubly', 'row' or 'column', got {stochastic!r}.")
    matrix = _as_matrix(matrix)
    _check_square("mixing matrix", matrix)
    entries = matrix.data if sp.issparse(matrix) else matrix
    if not (np.issubdtype(matrix.dtype, np.number) or matrix.dtype == bool) or np.iscomplexobj(entries):
        raise ValueError(f"mixing matrix: entries must be real numbers, got dtype {matrix.dtype}. Take its real part.")
    if not np.isfinite(entries).all():
        raise ValueError("mixing matrix: entries must be finite, got nan or inf. Check the weights it was built from.")
    for kind, axis in (("row", 1), ("column", 0)):
        sums = np.asarray(matrix.sum(axis=axis, dtype=np.float64)).ravel()
        worst = int(np.abs(sums - 1).argmax())
        if stochastic in ("doubly", kind) and abs(sums[worst] - 1) > tolerance:
            remedy = f"pass stochastic={'column' if kind == 'row' else 'row'!r}, if that is what the method needs"
            raise ValueError(
                f"mixing matrix: every {kind} must sum to one, {kind} {worst} sums to {sums[worst]:.10g}. "
                f"Build W with adozoo.weights.metropolis(graph){', or ' + remedy if stochastic == 'doubly' else ''}."
            )


def is_connected(matrix: Any) -> bool:
    """Whether every node reaches every other along non-zero weights (strong connectivity).

    Args:
      matrix: W [n, n], an array or a SciPy sparse array.

    Example:
      >>> adozoo.weights.is_connected(
      ...     adozoo.weights.metropolis(adozoo.graphs.disconnected(2))
      ... )
      False
    """
    pattern = sp.csr_array(_as_matrix(matrix)).astype(bool)
    pattern.eliminate_zeros()
    return bool(sp.csgraph.connected_components(pattern, connection="strong", return_labels=False) == 1)


def _extreme_eigenvalue(function: str, matrix: Any, largest: bool) -> float:
    """The largest eigenvalue beside that of the consensus direction, or the smallest one, of a symmetric W."""
    check_mixing_matrix(matrix, tolerance=1e-6)  # a mixing may hold its weights in float32
    matrix = _as_matrix(matrix, np.float64)
    n = matrix.shape[0]
    asymmetry = abs(matrix - matrix.T).max()
    if asymmetry > 1e-8:
        raise ValueError(
            f"{function}: W must be symmetric, max |W - W'| is {asymmetry:.3g}. For other matrices the rate of gossip "
            "is the norm of W - J: use theory.spectral_gap(W)."
        )
    if n <= DENSE_LIMIT:
        spectrum = np.linalg.eigvalsh(matrix.toarray() if sp.issparse(matrix) else matrix)
        return float(spectrum[0] if not largest else spectrum[-2] if n > 1 else 0.0)
    csr = sp.csr_array(matrix)
    start = np.random.default_rng(0).normal(size=n)
    # W - 2J sends the consensus direction to -1, below all others.
    deflated = LinearOperator((n, n), matvec=lambda x: csr @ x - 2 * largest * x.mean(), dtype=np.float64)  # type: ignore
    options = {"k": 1, "v0": start, "tol": 1e-10, "return_eigenvectors": False}
    try:
        return float(eigsh(deflated, which="LA" if largest else "SA", ncv=64, maxiter=20, **options)[0])
    except ArpackNoConvergence:
        # Eigenvalues crowd at the end of the spectrum, so the graph has small separators (rings, grids, trees) and
        # sparse LU is cheap: invert next to the bound that all eigenvalues obey (1, or Gershgorin's below).
        radius = abs(csr).sum(axis=1) - abs(csr.diagonal())
        shift = 1 + 1e-11 if largest else (csr.diagonal() - radius).min() - 1e-11
        solve = splu(sp.csc_matrix(csr - shift * sp.eye_array(n))).solve
        inverse = LinearOperator((n, n), matvec=lambda x: solve(x - largest * x.mean()), dtype=np.float64)  # type: ignore
        return float(eigsh(csr, which="LM", sigma=shift, OPinv=inverse, **options)[0])


def second_eigenvalue(matrix: Any) -> float:
    r"""$\lambda_2$, the second largest eigenvalue of a symmetric mixing matrix (not the second largest modulus).

    Dense up to n = 2000; beyond, Lanczos, with shift and invert where it stalls. A single node is at
    consensus: its $\lambda_2$ is 0.

    Args:
      matrix: W [n, n], an array or a SciPy sparse array; symmetric, rows sum to one.

    Raises:
      ValueError: W is not a symmetric, doubly stochastic matrix.

    Example:
      >>> round(
      ...     adozoo.weights.second_eigenvalue(
      ...         adozoo.weights.metropolis(adozoo.graphs.ring(6))
      ...     ),
      ...     6,
      ... )
      0.666667
    """
    return _extreme_eigenvalue("second_eigenvalue", matrix, largest=True)


def smallest_eigenvalue(matrix: Any) -> float:
    r"""$\lambda_n$, the smallest eigenvalue of a symmetric mixing matrix; D2 needs it above -1/3.

    Dense up to n = 2000; beyond, Lanczos, with shift and invert where it stalls.

    Args:
      matrix: W [n, n], an array or a SciPy sparse array; symmetric, rows sum to one.

    Raises:
      ValueError: W is not a symmetric, doubly stochastic matrix.

    Example:
      >>> round(
      ...     adozoo.weights.smallest_eigenvalue(
      ...         adozoo.weights.metropolis(adozoo.graphs.ring(6))
      ...     ),
      ...     6,
      ... )
      -0.333333
    """
    return _extreme_eigenvalue("smallest_eigenvalue", matrix, largest=False)
