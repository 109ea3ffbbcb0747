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

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int, PyTree

from adozoo import weights as _weights
from adozoo._checks import check_choice
from adozoo._structure import cyclic_shifts, neighbor_table, roll_table

METHODS = ("auto", "rolls", "table", "sparse", "dense", "mean")
register = jax.tree_util.register_dataclass


class Mixing:
    """What all mixings share. See `adozoo.mixing` for building one, `adozoo.schedules` for time-varying ones.

    Attributes:
      n: the number of nodes.
      stochastic: "doubly", "row" or "column": which sums of W are one.
      symmetric: whether W = W' at every step.
      varying: whether W depends on the step.
      remembers: whether calls have side effects on memory outside, so that none may sit in a branch of `lax.cond`.
    """

    varying: bool = False
    remembers: bool = False

    if TYPE_CHECKING:  # plain fields of the dataclasses below; a property here would become their default

        @property
        def n(self) -> int: ...

        @property
        def stochastic(self) -> str: ...

        @property
        def symmetric(self) -> bool: ...

    @property
    def local_rows(self) -> int:
        """Rows of a leaf at the place where the mixing is called; n unless nodes are spread over devices."""
        return self.n

    @property
    def own_nodes(self) -> Int[Array, " rows"]:
        """Which nodes the rows of a leaf belong to, at the place where the mixing is called."""
        return jnp.arange(self.n)

    def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        """Apply W to every leaf.

        Args:
          tree: stacked pytree, leaves [n, ...].
          step: the step count, for time-varying mixings and faults; ignored by fixed ones.
          message: which of the messages of one step this is (0, 1, ...), so that faults and noise befall the messages
            of one step independently.

        Raises:
          ValueError: if a leaf's leading axis is not the node axis.
        """
        for leaf in jax.tree.leaves(tree):
            if not jnp.ndim(leaf) or jnp.shape(leaf)[0] != self.local_rows:
                raise ValueError(
                    f"mixing over n = {self.n} nodes: every leaf needs a leading node axis of length "
                    f"{self.local_rows}, got a leaf of shape {jnp.shape(leaf)}. Use adozoo.replicate(params, {self.n})."
                )
        fixed = self.at(step, message)
        return jax.tree.map(lambda x: _in_compute_dtype(fixed.mix_leaf, jnp.asarray(x)), tree)

    def at(self, step: Any, message: int = 0) -> "Mixing":
        """The fixed mixing that acts at one step (and message)."""
        return self

    def used_in(self, share: float) -> "Mixing":
        """This mixing, used in only a share of the steps; only what counts messages minds."""
        return self

    def mix_leaf(self, x: Array) -> Array:
        """W x for one leaf [n, ...], in a floating dtype of at least 32 bits."""
        raise TypeError(f"{type(self).__name__} has no fixed matrix; take .at(step) first.")

    def table(self) -> tuple[Any, Any]:
        """(neighbours, weights): x_i <- sum_k weights[i, k] x[neighbours[i, k]]; column 0 is the node itself.

        Both [n, k], numpy or JAX arrays (traced where the mixing is).
        """
        neighbors, weights = neighbor_table(self.matrix)
        return neighbors, jnp.asarray(weights)

    def table_at(self, step: Any, message: int = 0) -> tuple[Int[Array, "n k"], Float[Array, "n k"]]:
        """The table of the fixed mixing that acts at one step; the step may be traced."""
        neighbors, weights = self.at(step, message).table()
        return jnp.asarray(neighbors), jnp.asarray(weights)

    def links(self, step: Any = 0) -> Any:
        """How many directed messages the step sends over the network: the off-diagonal entries of W_t."""
        _, weights = self.table_at(step)
        return jnp.sum(weights[:, 1:] != 0)

    def sparse_matrix(self) -> sp.csr_array:
        """W as a SciPy sparse array in float64, on the host; for graphs too large for `.matrix`."""
        with jax.ensure_compile_time_eval():  # methods check W while they are built, perhaps inside a jit
            neighbors, weights = self.table()
        rows = np.repeat(np.arange(self.n), neighbors.shape[1])
        entries = (np.asarray(weights, np.float64).ravel(), (rows, np.asarray(neighbors).ravel()))
        return sp.csr_array(entries, shape=(self.n, self.n))

    @property
    def matrix(self) -> Float[Array, "n n"]:
        """W as a dense [n, n] array."""
        return self.mix_leaf(jnp.eye(self.n))


def _in_compute_dtype(mix_leaf: Any, x: Array) -> Array:
    """Sums of 16-bit leaves are taken in float32: in bfloat16 the weights themselves would not add up to one."""
    if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4:
        return mix_leaf(x.astype(jnp.float32)).astype(x.dtype)
    return mix_leaf(x)


def _columns(weight: Array, x: Array) -> Array:
    """Weights [...] given the trailing axes of x and its dtype."""
    return weight.astype(x.dtype).reshape(weight.shape + (1,) * (x.ndim - weight.ndim))


def _gather_roll(x: Array, shift: int, axis: int) -> Array:
    """jnp.roll, as a gather along any axis but the first: that one may be spread over devices."""
    if axis == 0:
        return jnp.roll(x, shift, axis)
    return jnp.take(x, (np.arange(x.shape[axis]) - shift) % x.shape[axis], axis, mode="clip")


@partial(register, data_fields=["weights"], meta_fields=["shape", "shifts", "n", "stochastic", "symmetric"])
@dataclass(frozen=True)
class Rolls(Mixing):
    """A circulant over the cyclic groups of `shape`: x_i <- sum_k weights[k] x_{i + shifts[k]}, indices modulo shape."""

    weights: Float[Array, " k"]
    shape: tuple[int, ...]
    shifts: tuple[tuple[int, ...], ...]
    n: int
    stochastic: str = "doubly"
    symmetric: bool = True

    def mix_leaf(self, x: Array) -> Array:
        grid = x.reshape(self.shape + x.shape[1:])
        if len(self.shape) == 1:
            return self._sum(jnp.roll, grid)
        # On CPU rolls along inner axes are not vectorised: a gather is 2-3x faster. Accelerators keep the rolls.
        on_cpu, elsewhere = partial(self._sum, _gather_roll), partial(self._sum, jnp.roll)
        return jax.lax.platform_dependent(grid, cpu=on_cpu, default=elsewhere).reshape(x.shape)

    def _sum(self, roll: Any, grid: Array) -> Array:
        """The weighted sum of all shifts, each a composition of `roll(grid, shift, axis)`."""
        terms = []
        for k, shift in enumerate(self.shifts):
            moved = grid
            for axis, s in enumerate(shift):
                moved = roll(moved, -s, axis) if s else moved
            terms.append(self.weights[k].astype(grid.dtype) * moved)
        return sum(terms[1:], terms[0])

    def table(self) -> tuple[Any, Any]:
        neighbors, order = roll_table(self.shape, self.shifts)
        return neighbors, jnp.broadcast_to(jnp.append(self.weights, 0.0)[order], neighbors.shape)


@partial(register, data_fields=["neighbors", "weights"], meta_fields=["n", "stochastic", "symmetric"])
@dataclass(frozen=True)
class Table(Mixing):
    """Bounded degree: x_i <- sum_k weights[i, k] x[neighbors[i, k]]; missing neighbours have weight 0."""

    neighbors: Int[Array, "n k"]
    weights: Float[Array, "n k"]
    n: int
    stochastic: str = "doubly"
    symmetric: bool = True

    def mix_leaf(self, x: Array) -> Array:
        terms = [_columns(self.weights[:, k], x) * x[self.neighbors[:, k]] for k in range(self.neighbors.shape[1])]
        return sum(terms[1:], terms[0])

    def table(self) -> tuple[Any, Any]:
        return self.neighbors, self.weights


@partial(register, data_fields=["receivers", "senders", "weights"], meta_fields=["n", "stochastic", "symmetric"])
@dataclass(frozen=True)
class Sparse(Mixing):
    """Any sparsity: entries (receivers, senders, weights), ordered by receiver, one segment sum."""

    receivers: Int[Array, " e"]
    senders: Int[Array, " e"]
    weights: Float[Array, " e"]
    n: int
    stochastic: str = "doubly"
    symmetric: bool = True

    def mix_leaf(self, x: Array) -> Array:
        messages = _columns(self.weights, x) * x[self.senders]
        return jax.ops.segment_sum(messages, self.receivers, self.n, indices_are_sorted=True)

    def table(self) -> tuple[Any, Any]:
        entries = (np.asarray(self.weights), (np.asarray(self.receivers), np.asarray(self.senders)))
        neighbors, weights = neighbor_table(sp.csr_array(entries, shape=(self.n, self.n)))
        return neighbors, jnp.asarray(weights)


@partial(register, data_fields=["dense"], meta_fields=["n", "stochastic", "symmetric"])
@dataclass(frozen=True)
class Dense(Mixing):
    """One matrix product with W, at full precision on every device."""

    dense: Float[Array, "n n"]
    n: int
    stochastic: str = "doubly"
    symmetric: bool = True

    def mix_leaf(self, x: Array) -> Array:
        rows = x.reshape(self.n, -1)
        product = jnp.matmul(self.dense.astype(x.dtype), rows, precision=jax.lax.Precision.HIGHEST)
        return product.reshape(x.shape)

    def table(self) -> tuple[Int[np.ndarray, "n k"], Float[Array, "n k"]]:
        if not isinstance(self.dense, jax.core.Tracer):
            return super().table()
        nodes = np.arange(self.n)[:, None]  # which entries are zero is not known: everyone is a neighbour
        neighbors = (nodes + nodes.T) % self.n
        return neighbors, self.dense[nodes, neighbors]

    @property
    def matrix(self) -> Float[Array, "n n"]:
        return self.dense


@partial(register, data_fields=[], meta_fields=["n"])
@dataclass(frozen=True)
class Mean(Mixing):
    """Exact averaging, W = 11'/n: what an all-reduce computes."""

    n: int
    stochastic = "doubly"
    symmetric = True

    def mix_leaf(self, x: Array) -> Array:
        return jnp.broadcast_to(jnp.mean(x, axis=0, keepdims=True), x.shape)

    def table(self) -> tuple[Any, Any]:
        return neighbor_table(np.full((self.n, self.n), 1 / self.n))  # on the host: also while tracing

    def links(self, step: Any = 0) -> int:
        """2 (n - 1): what a bandwidth-optimal all-reduce sends, in vectors, over the whole network."""
        return 2 * (self.n - 1)


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
        matrix = graph_or_matrix if sp.issparse(graph_or_matrix) else np.asarray(graph_or_matrix, dtype=np.float64)
    stochastic = _weights.check_mixing_matrix(matrix, stochastic) or stochastic
    if require_connected and not _weights.is_connected(matrix):
        raise ValueError(
            f"mixing: the graph of the {matrix.shape[0]} x {matrix.shape[0]} matrix is not connected, so the nodes can "
            "never agree. Add edges, or pass require_connected=False (for one step of a schedule, or nodes on their own)."
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


def _traced(matrix: Array, method: str, stochastic: str) -> Mixing:
    """A matrix without values (under vmap over matrices): nothing about it can be checked, or exploited."""
    if method not in ("auto", "dense"):
        raise ValueError(
            f"mixing: a traced matrix has no structure to exploit; method must be 'dense', got {method!r}."
        )
    return Dense(matrix, matrix.shape[0], stochastic, True)


def _build(matrix: Any, method: str, stochastic: str) -> Mixing:
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
            return Rolls(jnp.asarray(values), shape, shifts, **flags)
        if method == "rolls":
            raise ValueError(
                f"mixing: method='rolls' needs a circulant over a product of cyclic groups (ring, torus, hypercube ...); "
                f"this {n} x {n} matrix is not one in its node order. Use method='auto'."
            )
    if method == "auto":
        average = csr.nnz / n
        method = "dense" if n <= 32 else "table" if degree <= 4 * average else "dense" if n <= 512 else "sparse"
    if method == "dense":
        return Dense(jnp.asarray(csr.toarray()), **flags)
    if method == "sparse":
        receivers = np.repeat(np.arange(n), np.diff(csr.indptr))
        return Sparse(jnp.asarray(receivers), jnp.asarray(csr.indices), jnp.asarray(csr.data), **flags)
    neighbors, values = neighbor_table(csr)
    return Table(jnp.asarray(neighbors), jnp.asarray(values), **flags)


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
