r"""Mixings: x <- W x over the node axis, as the one door through which synchronous methods communicate.

A mixing is a pytree, callable on stacked pytrees: `mix(tree, step)` returns (W x)_i = \sum_j W_ij x_j for every leaf,
in the leaf's dtype (bfloat16 and float16 leaves are summed in float32). The structure of W decides how it is computed:

=========  ==============================================  =======================================================
method     for                                             cost of one application to [n, d]
=========  ==============================================  =======================================================
rolls      circulants over a product of cyclic groups      k n d, with k shifts: ring, torus, hypercube, exponential
table      bounded degree                                  k n d, a gather over a padded table of k neighbours
sparse     irregular degree, large n                       one segment sum over the edges
dense      small n, or dense W                             n^2 d, one matrix product
mean       W = 11'/n                                       n d
=========  ==============================================  =======================================================

Time-varying mixings are in `adozoo.schedules`, faults in `adozoo.channel`, device meshes in `adozoo.placement`: all of
them are mixings again.
"""

from typing import Any

import jax
import networkx as nx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array

from adozoo import weights as _weights
from adozoo._checks import check_choice
from adozoo._mixings import Dense, Mean, Mixing, Rolls, Sparse, Table
from adozoo._structure import cyclic_shifts, neighbor_table

__all__ = ["Dense", "Mean", "Mixing", "Rolls", "Sparse", "Table", "exact_mean", "mixing", "power"]

METHODS = ("auto", "rolls", "table", "sparse", "dense", "mean")


def exact_mean(n: int) -> Mean:
    """The exact average over n nodes, x_i <- (1/n) sum_j x_j, as a mixing (an all-reduce).

    Example:
      >>> adozoo.exact_mean(3)(jnp.array([0.0, 3.0, 6.0]))
      Array([3., 3., 3.], dtype=float64)
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"exact_mean: n must be a positive integer (the number of nodes), got {n!r}.")
    return Mean(n)


def mixing(
    graph_or_matrix: Any,
    weights: str = "metropolis",
    method: str = "auto",
    stochastic: str = "doubly",
    require_connected: bool = True,
) -> Mixing:
    r"""Turn a graph or a mixing matrix into a fast linear operator over the node axis.

    Convention: W_ij is the weight with which node i receives from node j, so that x_i <- \sum_j W_ij x_j.

    Args:
      graph_or_matrix: a networkx graph (see `adozoo.graphs`), an [n, n] array (numpy, JAX, possibly traced) or a SciPy
        sparse array. A directed networkx graph gets uniform column-stochastic weights.
      weights: for graphs: "metropolis", "max_degree", "best_constant", "fastest" (functions of `adozoo.weights`).
      method: how to compute it: "auto", "rolls", "table", "sparse", "dense" or "mean"; "auto" decides by structure.
      stochastic: what to demand of a matrix: "doubly" (rows and columns sum to one), "row" or "column".
      require_connected: refuse a graph that is not (strongly) connected, on which no method reaches consensus.

    Returns:
      A mixing: a pytree with `.n`, `.matrix`, callable as mix(tree, step=0).

    Raises:
      ValueError: a matrix that is not square, finite or stochastic as asked, a disconnected graph, or a `method` whose
        structure the matrix does not have.

    Example:
      >>> mix = adozoo.mixing(adozoo.graphs.ring(4))
      >>> type(mix).__name__, mix.n
      ('Rolls', 4)
      >>> mix(jnp.array([3.0, 0.0, 0.0, 0.0])).round(6)
      Array([1., 1., 0., 1.], dtype=float64)

    References:
      Xiao and Boyd, Fast linear iterations for distributed averaging, 2004 (weights).
    """
    check_choice("mixing", "method", method, METHODS)
    check_choice("mixing", "stochastic", stochastic, ("doubly", "row", "column"))
    if isinstance(graph_or_matrix, Mixing):
        return graph_or_matrix
    if isinstance(graph_or_matrix, nx.Graph):
        matrix, stochastic = _weigh(graph_or_matrix, weights, stochastic)
    elif isinstance(graph_or_matrix, jax.core.Tracer):
        return _traced(graph_or_matrix, method, stochastic)
    else:
        matrix = graph_or_matrix if sp.issparse(graph_or_matrix) else _in_double(graph_or_matrix, stochastic)
    stochastic = _weights.check_mixing_matrix(matrix, stochastic) or stochastic
    if require_connected and not _weights.is_connected(matrix):
        raise ValueError(
            f"mixing: the graph of the {matrix.shape[0]} x {matrix.shape[0]} matrix is not connected, so the nodes can "
            "never agree. Add edges, or pass require_connected=False (one step of a schedule, or nodes on their own)."
        )
    with jax.ensure_compile_time_eval():  # a known matrix stays known inside a jit, where methods will check it
        return _build(matrix, method, stochastic)


def _weigh(graph: nx.Graph, weights: str, stochastic: str) -> tuple[Any, str]:
    large = graph.number_of_nodes() > 1000
    if graph.is_directed():
        return _weights.column_stochastic(graph, sparse=large), "column"
    check_choice("mixing", "weights", weights, ("metropolis", "max_degree", "best_constant", "fastest"))
    weigh = getattr(_weights, weights)
    if large and weights in ("metropolis", "max_degree"):
        return weigh(graph, sparse=True), stochastic
    return weigh(graph), stochastic


def _in_double(array: Any, stochastic: str) -> np.ndarray:
    """The matrix in float64. One that comes in single precision gets sums of one back, from its diagonal."""
    matrix = np.asarray(array, np.float64)
    single = np.asarray(array).dtype.itemsize < 8 and matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    if single and (stochastic != "doubly" or np.array_equal(matrix, matrix.T)):
        missing = 1 - matrix.sum(axis=0 if stochastic == "column" else 1)
        if np.abs(missing).max() < 1e-5:  # rounding; more than that is for the check to refuse
            return matrix + np.diag(missing)
    return matrix


def _traced(matrix: Array, method: str, stochastic: str) -> Mixing:
    """A matrix without values (under vmap over matrices): nothing about it can be checked, or exploited."""
    if method not in ("auto", "dense"):
        raise ValueError(
            f"mixing: a traced matrix has no structure to exploit; method must be 'dense', got {method!r}."
        )
    return Dense(matrix, matrix.shape[0], stochastic, True)


def _build(matrix: Any, method: str, stochastic: str) -> Mixing:
    """Weights stay float64 arrays of the host, and are cast to each leaf's dtype when used: theory needs them exact."""
    n = matrix.shape[0]
    csr = sp.csr_array(matrix)
    csr.eliminate_zeros()
    symmetric = bool(abs(csr - csr.T).max() <= 1e-12) if csr.nnz else True
    if csr.nnz and abs(csr.sum(axis=1) - 1).max() <= 1e-8 and abs(csr.sum(axis=0) - 1).max() <= 1e-8:
        stochastic = "doubly"
    flags = {"n": n, "stochastic": stochastic, "symmetric": symmetric}
    uniform = csr.nnz == n * n and np.ptp(csr.data) <= 1e-15
    if method == "mean" or (method == "auto" and uniform):
        if not uniform:
            raise ValueError("mixing: method='mean' needs every entry of W to be 1/n. Use method='auto'.")
        return Mean(n)
    degree = int(np.diff(csr.indptr).max())
    if method == "auto" and degree > max(16, n // 2) and n <= 2048:
        method = "dense"
    if method in ("auto", "rolls"):
        found = cyclic_shifts(csr)
        if found is not None:
            shape, shifts, values = found
            return Rolls(values, shape, shifts, **flags)
        if method == "rolls":
            raise ValueError(
                "mixing: method='rolls' needs a circulant over a product of cyclic groups (ring, torus, hypercube "
                f"...); this {n} x {n} matrix is not one in its node order. Use method='auto'."
            )
    if method == "auto":
        average = csr.nnz / n
        method = "dense" if n <= 32 else "table" if degree <= 4 * average else "dense" if n <= 512 else "sparse"
    if method == "dense":
        return Dense(csr.toarray(), **flags)
    if method == "sparse":
        receivers = np.repeat(np.arange(n), np.diff(csr.indptr))
        return Sparse(receivers, csr.indices, csr.data, **flags)
    return Table(*neighbor_table(csr), **flags)


def power(mix: Mixing, rounds: int) -> Mixing:
    """`rounds` applications of a fixed mixing as one: a product with W^rounds, never an unrolled loop.

    Example:
      >>> mix = adozoo.power(adozoo.mixing(adozoo.graphs.ring(5)), 3)
      >>> bool(
      ...     jnp.allclose(
      ...         mix.matrix,
      ...         jnp.linalg.matrix_power(adozoo.mixing(adozoo.graphs.ring(5)).matrix, 3),
      ...     )
      ... )
      True
    """
    if mix.varying:
        raise ValueError("power: mix must be fixed; for a schedule, step through it with one round a step.")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"power: rounds must be a positive integer, got {rounds!r}.")
    return _build(_matrix_power(mix.sparse_matrix(), rounds), "auto", mix.stochastic)


def _matrix_power(matrix: sp.csr_array, exponent: int) -> sp.csr_array:
    result: sp.csr_array | None = None
    while exponent:
        if exponent & 1:
            result = matrix if result is None else result @ matrix
        matrix, exponent = matrix @ matrix, exponent >> 1
    return result  # type: ignore[return-value]
