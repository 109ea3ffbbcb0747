"""The fixed mixings, one class for each way of computing W x; `adozoo.mixing` chooses among them."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int, PyTree

from adozoo._exchange import Exchange, build
from adozoo._structure import neighbor_table, roll_table

register = jax.tree_util.register_dataclass


class Mixing:
    """What all mixings share. See `adozoo.mixing` for building one, `adozoo.schedules` for time-varying ones.

    Attributes:
      n: the number of nodes.
      stochastic: "doubly", "row" or "column": which sums of W are one.
      symmetric: whether W = W' at every step.
      varying: whether W depends on the step.
      is_mean: whether this is the exact average, W = 11'/n, wherever its nodes live.
      remembers: whether calls have side effects on memory outside, so that none may sit in a branch of `lax.cond`.
    """

    varying: bool = False
    remembers: bool = False
    is_mean: bool = False

    if TYPE_CHECKING:  # plain fields of the dataclasses below; a property here would become their default

        @property
        def n(self) -> int: ...

        @property
        def stochastic(self) -> str: ...

        @property
        def symmetric(self) -> bool: ...

    @property
    def fixed(self) -> bool:
        """Whether there is one matrix for all steps, up to faults around it."""
        return not self.varying

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
        return neighbor_table(self.matrix)

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

    def exchange(self) -> Exchange:
        """The links of its graph, for methods that tell every neighbour something else. See `adozoo.exchange`.

        Raises:
          ValueError: if the mixing varies with the step, or if its graph is directed or traced.
        """
        if self.varying:
            raise ValueError(
                f"exchange: messages on links need a fixed graph, got a {type(self).__name__}. Pass one fixed mixing, "
                "perhaps with faults around it (adozoo.channel)."
            )
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(self)):
            raise ValueError(
                f"exchange: the graph of this {type(self).__name__} mixing is traced, so its links are not known. "
                "Build the mixing outside of jit and vmap."
            )
        return build(self.sparse_matrix())

    @property
    def matrix(self) -> Float[Array, "n n"]:
        """W as a dense [n, n] array."""
        return self.mix_leaf(jnp.eye(self.n))


def _in_compute_dtype(mix_leaf: Any, x: Array) -> Array:
    """Sums of 16-bit leaves are taken in float32: in bfloat16 the weights themselves would not add up to one."""
    if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4:
        return mix_leaf(x.astype(jnp.float32)).astype(x.dtype)
    return mix_leaf(x)


def _columns(weight: Any, x: Array) -> Any:
    """Weights [...] given the trailing axes of x and its dtype."""
    return weight.astype(x.dtype).reshape(weight.shape + (1,) * (x.ndim - weight.ndim))


def _gather_roll(x: Array, shift: int, axis: int) -> Array:
    """jnp.roll, as a gather along any axis but the first: that one may be spread over devices."""
    if axis == 0:
        return jnp.roll(x, shift, axis)
    return jnp.take(x, (np.arange(x.shape[axis]) - shift) % x.shape[axis], axis, mode="clip")


class Around(Mixing):
    """A mixing around another one, `base`: over the same nodes, and as fixed or as varying as that is."""

    if TYPE_CHECKING:

        @property
        def base(self) -> Mixing: ...

    @property
    def n(self) -> int:
        """The number of nodes."""
        return self.base.n

    @property
    def stochastic(self) -> str:
        """The sums of the base mixing stay what they are."""
        return self.base.stochastic

    @property
    def symmetric(self) -> bool:
        """Whether the base mixing is symmetric."""
        return self.base.symmetric

    @property
    def varying(self) -> bool:  # type: ignore[override]
        """Whether the base mixing depends on the step."""
        return self.base.varying

    @property
    def remembers(self) -> bool:  # type: ignore[override]
        """Whether calls of the base mixing have side effects."""
        return self.base.remembers

    @property
    def period(self) -> int | None:
        """The base mixing's period; None if it never repeats."""
        return getattr(self.base, "period", None) if self.base.varying else 1

    @property
    def local_rows(self) -> int:
        return self.base.local_rows

    @property
    def own_nodes(self) -> Any:
        return self.base.own_nodes


@partial(register, data_fields=["weights"], meta_fields=["shape", "shifts", "n", "stochastic", "symmetric"])
@dataclass(frozen=True, eq=False)
class Rolls(Mixing):
    """A circulant over cyclic groups: x_i <- sum_k weights[k] x_{i + shifts[k]}, indices modulo `shape`."""

    weights: Float[Array, " k"] | Float[np.ndarray, " k"]
    shape: tuple[int, ...]
    shifts: tuple[tuple[int, ...], ...]
    n: int
    stochastic: str = "doubly"
    symmetric: bool = True

    def mix_leaf(self, x: Array) -> Array:
        grid = x.reshape(self.shape + x.shape[1:])
        if len(self.shape) == 1:
            return self._sum(jnp.roll, grid)
        # On CPU a gather along inner axes was measured 2-3x faster than rolls. Accelerators keep the rolls.
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
        of = np if isinstance(self.weights, np.ndarray) else jnp
        return neighbors, of.broadcast_to(of.append(self.weights, 0.0)[order], neighbors.shape)


@partial(register, data_fields=["neighbors", "weights"], meta_fields=["n", "stochastic", "symmetric"])
@dataclass(frozen=True, eq=False)
class Table(Mixing):
    """Bounded degree: x_i <- sum_k weights[i, k] x[neighbors[i, k]]; missing neighbours have weight 0."""

    neighbors: Int[Array, "n k"] | Int[np.ndarray, "n k"]
    weights: Float[Array, "n k"] | Float[np.ndarray, "n k"]
    n: int
    stochastic: str = "doubly"
    symmetric: bool = True

    def mix_leaf(self, x: Array) -> Array:
        terms = [_columns(self.weights[:, k], x) * x[self.neighbors[:, k]] for k in range(self.neighbors.shape[1])]
        return sum(terms[1:], terms[0])

    def table(self) -> tuple[Any, Any]:
        return self.neighbors, self.weights


@partial(register, data_fields=["receivers", "senders", "weights"], meta_fields=["n", "stochastic", "symmetric"])
@dataclass(frozen=True, eq=False)
class Sparse(Mixing):
    """Any sparsity: entries (receivers, senders, weights), ordered by receiver, one segment sum."""

    receivers: Int[Array, " e"] | Int[np.ndarray, " e"]
    senders: Int[Array, " e"] | Int[np.ndarray, " e"]
    weights: Float[Array, " e"] | Float[np.ndarray, " e"]
    n: int
    stochastic: str = "doubly"
    symmetric: bool = True

    def mix_leaf(self, x: Array) -> Array:
        messages = _columns(self.weights, x) * x[self.senders]
        return jax.ops.segment_sum(messages, self.receivers, self.n, indices_are_sorted=True)

    def table(self) -> tuple[Any, Any]:
        entries = (np.asarray(self.weights), (np.asarray(self.receivers), np.asarray(self.senders)))
        return neighbor_table(sp.csr_array(entries, shape=(self.n, self.n)))


@partial(register, data_fields=["dense"], meta_fields=["n", "stochastic", "symmetric"])
@dataclass(frozen=True, eq=False)
class Dense(Mixing):
    """One matrix product with W, at full precision on every device."""

    dense: Float[Array, "n n"] | Float[np.ndarray, "n n"]
    n: int
    stochastic: str = "doubly"
    symmetric: bool = True

    def mix_leaf(self, x: Array) -> Array:
        rows = x.reshape(self.n, -1)
        product = jnp.matmul(self.dense.astype(x.dtype), rows, precision=jax.lax.Precision.HIGHEST)
        return product.reshape(x.shape)

    def table(self) -> tuple[Any, Any]:
        if not isinstance(self.dense, jax.core.Tracer):
            return neighbor_table(self.dense)
        nodes = np.arange(self.n)[:, None]  # which entries are zero is not known: everyone is a neighbour
        neighbors = (nodes + nodes.T) % self.n
        return neighbors, self.dense[nodes, neighbors]

    @property
    def matrix(self) -> Float[Array, "n n"]:
        return jnp.asarray(self.dense)


@partial(register, data_fields=[], meta_fields=["n"])
@dataclass(frozen=True, eq=False)
class Mean(Mixing):
    """Exact averaging, W = 11'/n: what an all-reduce computes."""

    n: int
    stochastic = "doubly"
    symmetric = True
    is_mean = True

    def mix_leaf(self, x: Array) -> Array:
        return jnp.broadcast_to(jnp.mean(x, axis=0, keepdims=True), x.shape)

    def table(self) -> tuple[Any, Any]:
        return neighbor_table(np.full((self.n, self.n), 1 / self.n))  # on the host: also while tracing

    def links(self, step: Any = 0) -> int:
        """2 (n - 1): what a bandwidth-optimal all-reduce sends, in vectors, over the whole network."""
        return 2 * (self.n - 1)
