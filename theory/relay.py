r"""RelaySum on trees: the delays of relayed messages, the matrix that they make of a step, and what it costs.

Nodes of a tree relay sums of what they heard to all neighbours but the one they heard it from, so that node i averages
each node's model exactly once, \tau_ij steps old: x_i^{t+1} = (1/n) \sum_j z_j^{t - \tau_ij} with z = x - \gamma g.
Messages travel one link a step. The first link costs no step unless communication overlaps with computation:

    \tau_ij = max(d_ij - 1, 0),    with overlap \tau_ij = d_ij    (d_ij the distance in the tree).

On the stack Y^t = (x^t, z^{t-1}, ..., z^{t-\tau}), \tau = max \tau_ij, a step is Y <- W~ (Y - \gamma G), with the
gradients G in the first block alone and W~ the row-stochastic matrix of the average and of the shift. W~^t tends to
1 \pi', and \pi has 1 / (1 + \bar\tau) of its mass in the first block, \bar\tau = (1/n^2) \sum_ij \tau_ij; the rest is
with the models under way. In the end a gradient moves the consensus by 1 / (1 + \bar\tau) of what it would with an
exact average, and learning rates have to be larger by that factor.

References:
  Vogels, He, Koloskova, Lin, Karimireddy, Stich, Jaggi, "RelaySum for decentralized deep learning on heterogeneous
  data", NeurIPS 2021. The Perron vector and the factor 1 + \bar\tau in closed form are derived here.
"""

from typing import Any, NamedTuple, TypeAlias

import networkx as nx
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
import sympy
from jaxtyping import Float, Int
from scipy.sparse.csgraph import shortest_path

from adozoo.graphs import canonical
from theory import spectra
from theory.graph_symbols import graph_symbols, n
from theory.subspaces import DENSE_LIMIT, spectral_radius

Sparse: TypeAlias = Any  # scipy.sparse.csr_array, whose stubs do not know its shape

ROUNDING = 1e-11
"""Relative differences below this that no longer shrink are rounding errors."""
PATIENCE = 10
"""The authors' search for m ends after this many candidates without an improvement."""


def delay_matrix(tree: nx.Graph, overlap: bool = False) -> Int[np.ndarray, "n n"]:
    r"""How many steps old what node i averages of node j is: \tau_ij = max(d_ij - 1, 0), or d_ij with overlap.

    Args:
      tree: a networkx tree.
      overlap: whether a step averages what arrived before it, while its own messages are still under way.

    Returns:
      \tau, [n, n] integers.

    Raises:
      ValueError: if the graph is no tree.

    Example:
      >>> theory.delay_matrix(adozoo.graphs.path(4))[0].tolist()
      [0, 0, 1, 2]
    """
    tree = canonical(tree)
    n = tree.number_of_nodes()
    if tree.is_directed() or not nx.is_tree(tree):
        raise ValueError(
            f"delay_matrix: tree must be an undirected tree, got {n} nodes and {tree.number_of_edges()} "
            f"{'directed ' if tree.is_directed() else ''}edges. Take adozoo.graphs.spanning_tree(graph, root)."
        )
    links = nx.to_scipy_sparse_array(tree, nodelist=range(n), dtype=np.float64, weight=None)
    distances = shortest_path(links, unweighted=True).astype(np.int64)
    return distances if overlap else np.maximum(distances - 1, 0)


def relay_matrix(tree: nx.Graph, overlap: bool = True) -> Sparse:
    r"""W~, the matrix of RelaySum's step on the stack of the last \tau + 1 models, newest first.

        W~[(0, i), (\tau_ij, j)] = 1/n,    W~[(k + 1, i), (k, i)] = 1.

    Row-stochastic, not symmetric, and of norm above 1. The literature's is the one with overlap.

    Args:
      tree: a networkx tree.
      overlap: as for `delay_matrix`.

    Returns:
      [(\tau + 1) n, (\tau + 1) n], sparse; row k n + i belongs to node i's model k steps ago.

    Example:
      >>> theory.relay_matrix(adozoo.graphs.path(2)).toarray().tolist()
      [[0.5, 0.0, 0.0, 0.5], [0.0, 0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    """
    delays = delay_matrix(tree, overlap)
    n = len(delays)
    i, j = np.indices((n, n))
    shifted = np.arange(n * int(delays.max()))
    rows = np.concatenate([i.ravel(), n + shifted])
    columns = np.concatenate([(n * delays + j).ravel(), shifted])
    weights = np.concatenate([np.full(n * n, 1 / n), np.ones(shifted.size)])
    size = n + shifted.size
    return sp.csr_array((weights, (rows, columns)), shape=(size, size))


def relay_perron(tree: nx.Graph, overlap: bool = True) -> Float[np.ndarray, " N"]:
    r"""The left Perron vector of W~, in closed form; W~^t tends to 1 \pi'.

        \pi_(0,j) = 1 / (n (1 + \bar\tau)),    \pi_(k,j) = #{i : \tau_ij >= k} / (n^2 (1 + \bar\tau)),

    which solves \pi_(k,j) = \pi_(k+1,j) + (1/n) \sum_{i : \tau_ij = k} \pi_(0,i), the columns of \pi' W~ = \pi'.

    Args:
      tree: a networkx tree.
      overlap: as for `delay_matrix`.

    Returns:
      \pi, [(\tau + 1) n], in the order of `relay_matrix`; its sum is 1.

    Example:
      >>> theory.relay_perron(adozoo.graphs.path(2)).round(6).tolist()
      [0.333333, 0.333333, 0.166667, 0.166667]
    """
    delays = delay_matrix(tree, overlap)
    waiting = (delays >= np.arange(delays.max() + 1)[:, None, None]).mean(axis=1)  # of lag k and node j; 1 at lag 0
    return (waiting / waiting.sum()).ravel()


def mean_delay(tree: nx.Graph, overlap: bool = False) -> float:
    r"""\bar\tau = (1/n^2) \sum_ij \tau_ij, the mean over all pairs, a node with itself included.

    Args:
      tree: a networkx tree.
      overlap: as for `delay_matrix`.

    Example:
      >>> (
      ...     theory.mean_delay(adozoo.graphs.path(4)),
      ...     theory.mean_delay(adozoo.graphs.path(4), overlap=True),
      ... )
      (0.5, 1.25)
    """
    return float(delay_matrix(tree, overlap).mean())


def mean_delay_formula(family: str, overlap: bool = False) -> sympy.Expr:
    r"""\bar\tau of a family of trees as a function of the number of nodes n.

    On a tree distances are resistances, so that \sum_ij d_ij is twice the Kirchhoff index; links that cost no step take
    1 - 1/n off the mean. For the heap with n = 2^k nodes, a link above 2^h - 1 nodes parts (2^h - 1)(n - 2^h + 1)
    pairs: with the n - 1 pairs of node 0, n (n + 2)(k - 1) - 2 n^2 + 4 n + 1 in all.

    Args:
      family: path, star, balanced_binary_tree (n = 2^(height + 1) - 1) or heap_binary_tree (n a power of two); n >= 3.
      overlap: as for `delay_matrix`.

    Returns:
      The mean delay in the symbol "n".

    Raises:
      ValueError: for another family; the nearest known one is named.

    Example:
      >>> theory.mean_delay_formula("path", overlap=True)
      (n - 1)*(n + 1)/(3*n)
      >>> theory.mean_delay_formula("star")
      (n - 2)*(n - 1)/n**2
    """
    families = ("path", "star", "balanced_binary_tree", "heap_binary_tree")
    name = spectra.family_name(family, families)
    if name == "heap_binary_tree":
        pairs = n * (n + 2) * (sympy.log(n, 2) - 1) - 2 * n**2 + 4 * n + 1
    else:
        pairs = sympy.sympify(graph_symbols(name).kirchhoff_index)
    mean = 2 * pairs / n**2 - (0 if overlap else 1 - 1 / n)
    return sympy.factor(mean) if mean.is_rational_function(n) else mean


def learning_rate_correction(tree: nx.Graph, overlap: bool = False) -> float:
    r"""1 + \bar\tau: by how much RelaySGD's learning rate should exceed that of an average without delays.

    A gradient enters \pi' Y with the weights \pi_(0,j) = 1 / (n (1 + \bar\tau)) in place of 1/n. Exact for small
    learning rates and for the effect of a single gradient; the paper's rule of thumb is \tau / 2.

    Args:
      tree: a networkx tree.
      overlap: as for `delay_matrix`.

    Example:
      >>> theory.learning_rate_correction(adozoo.graphs.heap_binary_tree(32))
      4.783203125
    """
    return 1 + mean_delay(tree, overlap)


def impulse_response(tree: nx.Graph, overlap: bool = False, tolerance: float = 1e-13) -> float:
    r"""The correction factor as a measurement: one gradient of -1 on every node in the first step, at learning rate 1.

    All models start from 0 and end at 1 / factor. As W~ only averages, the limit lies between the least and the largest
    entry of the stack at all times, and the run ends when they agree. That all *current* models agree is not enough:
    with overlap they do so after one step, by symmetry, at 1/n, while the neighbours' impulses are still under way.

    Args:
      tree: a networkx tree.
      overlap: as for `delay_matrix`.
      tolerance: to which relative accuracy all that is under way must agree.

    Returns:
      1 / limit.

    Example:
      >>> abs(theory.impulse_response(adozoo.graphs.path(8)) - 2.75) < 1e-12
      True
    """
    delays = delay_matrix(tree, overlap)
    n, lags = len(delays), int(delays.max()) + 1
    models = np.zeros((lags, n))
    models[0] = 1.0
    nodes = np.arange(n)
    spread = 1.0
    while spread > tolerance:
        for _ in range(lags):
            newest = models[delays, nodes].mean(axis=1)
            models = np.concatenate([newest[None], models[:-1]])
        before, spread = spread, float(np.ptp(models) / models.max())
        if before < ROUNDING and spread >= before:
            break  # what is left is rounding
    return float(1 / models.mean())


class RelayConstants(NamedTuple):
    r"""What RelaySGD's rates say of a tree, through \rho.

    Attributes:
      tau: the largest delay.
      lambda_2: |\lambda_2(W~)|, the second largest modulus of an eigenvalue.
      m: after how many steps the contraction is looked at.
      p: (1 - p)^m = ||W~^m - 1 \pi'|| / ||W~ - 1 \pi'||, spectral norms.
      rho: m / p, steps per unit of contraction.
    """

    tau: int
    lambda_2: float
    m: int
    p: float
    rho: float


def relay_constants(tree: nx.Graph, overlap: bool = True, largest: int = 99, filtered: bool = True) -> RelayConstants:
    r"""(\tau, |\lambda_2|, m, p, \rho) with the m that makes \rho = m / p least.

    Args:
      tree: a networkx tree of at least two nodes.
      overlap: as for `delay_matrix`.
      largest: the largest m that is tried.
      filtered: whether to choose m as the published figure does: a p of at least |\lambda_2| is not taken, and the
        search ends after ten m without an improvement. Without, \rho is the least
        over all m up to `largest`. We know of no tree on which this makes a difference.

    Returns:
      `RelayConstants`; where the average is exact (two nodes without overlap), m = p = 1.

    Raises:
      ValueError: if no m contracts; a larger `largest` does.

    Example:
      >>> theory.relay_constants(adozoo.graphs.path(4)).rho
      32.9165...
    """
    if len(tree) < 2 or largest < 2:
        raise ValueError(
            f"relay_constants: expected a tree of at least 2 nodes and largest >= 2, got {len(tree)} nodes and "
            f"largest = {largest}. One step is what longer stretches are compared with."
        )
    W = relay_matrix(tree, overlap)
    deviation = W.toarray() - relay_perron(tree, overlap)
    tau = W.shape[0] // len(tree) - 1
    lambda_2 = spectral_radius(deviation)
    first = _norm(deviation)
    if first < 1e-12:
        return RelayConstants(tau, 0.0, 1, 1.0, 1.0)
    best: tuple[float, int, float] | None = None
    failures = 0
    for m in range(2, largest + 1):
        deviation = W @ deviation  # W~ 1 = 1, so that W~ (W~^m - 1 pi') = W~^(m+1) - 1 pi'
        p = 1 - (_norm(deviation) / first) ** (1 / m)
        taken = p > 0 and not (filtered and p >= lambda_2)
        if taken and (best is None or m / p < best[0]):
            best, failures = (m / p, m, p), 0
        else:
            failures += 1
        if filtered and best is not None and failures >= PATIENCE:
            break
    if best is None:
        raise ValueError(
            f"relay_constants: no m <= largest = {largest} contracts on this tree of {len(tree)} nodes. "
            "Pass a larger one, or filtered=False."
        )
    rho, m, p = best
    return RelayConstants(tau, lambda_2, m, p, rho)


def _norm(matrix: Float[np.ndarray, "N N"]) -> float:
    """The spectral norm; of large matrices by Lanczos' method, which needs the largest singular value alone."""
    if len(matrix) <= DENSE_LIMIT:
        return float(np.linalg.norm(matrix, 2))
    start = np.random.default_rng(0).normal(size=len(matrix))
    found = scipy.sparse.linalg.svds(matrix, k=1, v0=start, tol=1e-13, return_singular_vectors=False)
    return float(np.ravel(found)[0])
