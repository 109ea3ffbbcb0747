"""The links of a fixed undirected graph, seen from both ends; `adozoo.exchange` builds them."""

from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Bool, PyTree
from scipy.sparse.csgraph import breadth_first_order, connected_components

from adozoo._halo import wide

register = jax.tree_util.register_dataclass
MOST_PADDING = 4
"""Rows are laid out by node where that takes at most so many times their number."""


class OnLinks(NamedTuple):
    """What a state keeps for each link: leaves [rows, ...] in the exchange's order, not one row a node."""

    value: PyTree


@partial(
    register,
    data_fields=["own", "other", "back", "slots", "weights", "faults"],
    meta_fields=["n"],
)
@dataclass(frozen=True, eq=False)
class Exchange:
    r"""Messages on the directed edges of a fixed graph: every node may tell each of its neighbours something else.

    Each undirected edge {i, j} has two rows: i's side, (i, j), and j's side, (j, i). Rows lie sorted by the node whose
    side they are. Trees of messages have leaves [rows, ...]. Three operations suffice:

        per_link(x)_(i,j) = x_i,    collect(m)_i = \sum_j m_(i,j),    swap(m)_(i,j) = m_(j,i),

    of which only the last one communicates.

    Attributes:
      own, other: [rows], the nodes at this side and at the other side of each row.
      back: [rows], the row of the other side.
      slots: [n, k], the rows of each node; `rows` where a node has fewer than k.
      weights: [rows], the weight W_ij of the mixing that the graph came from.
      n: the number of nodes.
      faults: what gets lost, (step, message, neighbors [n, k + 1]) -> arrived [n, k]; None if nothing does.
    """

    own: Any
    other: Any
    back: Any
    slots: Any
    weights: Any
    n: int
    faults: Any = None

    varying = False
    is_mean = False
    stochastic = "doubly"
    symmetric = True

    @property
    def rows(self) -> int:
        """How many rows a tree of messages has at the place where the exchange is called."""
        return len(self.own)

    @property
    def local_rows(self) -> int:
        """How many nodes have their rows at the place where the exchange is called."""
        return self.n

    @property
    def own_nodes(self) -> Array:
        """Which nodes these are."""
        return jnp.arange(self.n)

    @property
    def faulty(self) -> bool:
        """Whether messages may get lost."""
        return self.faults is not None

    def here(self, table: Any) -> Any:
        """The rows, of an array [rows of all devices, ...], that belong to the place where the exchange is called."""
        return table

    def per_link(self, tree: PyTree) -> PyTree:
        """Every node's row, once for each of its links: leaves [n, ...] -> [rows, ...].

        Raises:
          ValueError: if a leaf's leading axis is not the node axis.
        """
        for leaf in jax.tree.leaves(tree):
            if not jnp.ndim(leaf) or jnp.shape(leaf)[0] != self.local_rows:
                raise ValueError(
                    f"exchange over n = {self.n} nodes: every leaf needs a leading node axis of length "
                    f"{self.local_rows}, got a leaf of shape {jnp.shape(leaf)}. Use adozoo.replicate(params, {self.n})."
                )
        return jax.tree.map(lambda x: jnp.asarray(x)[self.own], tree)

    def collect(self, tree: PyTree) -> PyTree:
        """The sum over each node's own links: leaves [rows, ...] -> [n, ...], in the leaf's dtype."""
        self.check(tree)
        return jax.tree.map(lambda x: collect_leaf(x, self.own, self.slots, self.n, self.even), tree)

    def to_slots(self, tree: PyTree) -> PyTree:
        """Rows by node: leaves [rows, ...] -> [n, k, ...], k being the most links of a node, padded with zeros."""
        self.check(tree)
        return jax.tree.map(lambda x: slots_leaf(x, self.slots, self.n, self.even), tree)

    def from_slots(self, tree: PyTree) -> PyTree:
        """Undo `to_slots`: leaves [n, k, ...] -> [rows, ...]."""
        return jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:]))[self._places], tree)

    def swap(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        """What the other sides have put on their rows: leaves [rows, ...]; zeros where a message got lost.

        Args:
          tree: leaves [rows, ...]: row (i, j) is what i sends to j.
          step: the step count, for faults.
          message: which of the messages of one step this is, so that each is lost by itself.

        Raises:
          ValueError: if a leaf has not one row a link.
        """
        self.check(tree)
        heard = jax.tree.map(lambda x: x[self.back], tree)
        return self.lose(heard, step, message)

    def check(self, tree: PyTree) -> None:
        """Raise ValueError unless all leaves have one row a link."""
        for leaf in jax.tree.leaves(tree):
            if not jnp.ndim(leaf) or jnp.shape(leaf)[0] != self.rows:
                raise ValueError(
                    f"exchange over {self.rows} rows (two for each edge): every leaf needs a leading axis of that "
                    f"length, got a leaf of shape {jnp.shape(leaf)}. Use exchange.per_link(tree) for leaves [n, ...]."
                )

    def lose(self, heard: PyTree, step: Any, message: int) -> PyTree:
        """Zeros in the place of messages that do not arrive."""
        if not self.faulty:
            return heard
        arrived = self.arrived(step, message)
        return jax.tree.map(lambda x: jnp.where(arrived.reshape((-1,) + (1,) * (x.ndim - 1)), x, 0), heard)

    def arrived(self, step: Any = 0, message: int = 0) -> Bool[Array, " rows"]:
        """Whether the message from the other side arrives, for each row at the place where the exchange is called."""
        if not self.faulty:
            return jnp.ones(self.rows, bool)
        own, slots = np.asarray(self.own), np.asarray(self.slots)
        neighbors = np.concatenate([np.asarray(self.other), [0]])[slots]
        neighbors = np.where(slots < len(own), neighbors, np.arange(self.n)[:, None])
        table = self.faults(step, message, jnp.asarray(np.hstack([np.arange(self.n)[:, None], neighbors])))
        return self.here(table.reshape(-1)[self._places])

    @cached_property
    def _places(self) -> np.ndarray:
        """Where each row stands in the flattened table of slots; 0 for padding."""
        slots = np.asarray(self.slots)
        places = np.zeros(len(self.own), np.int64)
        real = slots < len(self.own)
        places[slots[real]] = np.flatnonzero(real)
        return places

    def links(self, step: Any = 0) -> int:
        """How many directed messages one swap sends."""
        return int((np.asarray(self.slots) < len(self.own)).sum())

    def arrays(self) -> dict[str, Any]:
        """What describes its links, by name: to build another exchange over the same ones."""
        return {field.name: getattr(self, field.name) for field in fields(Exchange)}

    def exchange(self) -> "Exchange":
        """Itself: methods take mixings and exchanges alike."""
        return self

    @cached_property
    def even(self) -> bool:
        """Whether every node has as many links, so that no row is padding."""
        return bool((np.asarray(self.slots) < len(self.own)).all())

    @property
    def bounded(self) -> bool:
        """Whether laying rows out by node, [n, k, ...], wastes little: no node has far more links than the average."""
        return np.asarray(self.slots).size <= MOST_PADDING * len(self.own)

    @property
    def is_tree(self) -> bool:
        """Whether the graph is a tree."""
        return self.links() == 2 * (self.n - 1) and connected_components(self.adjacency(), False)[0] == 1

    def adjacency(self) -> sp.csr_array:
        """The graph as a sparse matrix of ones, on the host."""
        real = np.asarray(self.slots)[np.asarray(self.slots) < len(self.own)]
        ends = np.asarray(self.own)[real], np.asarray(self.other)[real]
        return sp.csr_array((np.ones(len(real)), ends), shape=(self.n, self.n))

    def far_sizes(self) -> np.ndarray:
        """For a tree: how many nodes lie on the other side of each row; 0 for padding rows. [rows of all devices]."""
        order, parents = breadth_first_order(self.adjacency(), 0, directed=False)
        below = np.ones(self.n, np.int64)
        for node in order[:0:-1]:
            below[parents[node]] += below[node]
        own, other = np.asarray(self.own), np.asarray(self.other)
        sizes = np.where(parents[other] == own, below[other], self.n - below[own])
        return np.where(own == other, 0, sizes)


def collect_leaf(x: Array, own: Any, slots: Any, n: int, even: bool) -> Array:
    """Sums of rows by node. `own` are the nodes' places, beyond n for padding rows; `slots` their rows."""
    rows, width = x.shape[0], slots.shape[1]
    x, dtype = wide(x), x.dtype
    if even:  # every node has as many links, and rows are sorted by node
        return jnp.sum(x.reshape((n, width, *x.shape[1:])), axis=1).astype(dtype)
    if not width:
        return jnp.zeros((n, *x.shape[1:]), dtype)
    if n * width <= MOST_PADDING * rows:  # a gather; a segment sum takes twice as long
        terms = [jnp.take(x, slots[:, k], axis=0, mode="fill", fill_value=0) for k in range(width)]
        return sum(terms[1:], terms[0]).astype(dtype)
    return jax.ops.segment_sum(x, own, n, indices_are_sorted=True).astype(dtype)


def slots_leaf(x: Array, slots: Any, n: int, even: bool) -> Array:
    """Rows laid out by node, [n, k, ...]."""
    if even:
        return x.reshape((n, -1, *x.shape[1:]))
    return jnp.take(x, slots, axis=0, mode="fill", fill_value=0)


def build(matrix: sp.csr_array) -> Exchange:
    """The exchange over the graph of a mixing matrix.

    Raises:
      ValueError: if the graph is directed: a message must have a way back.
    """
    csr = sp.csr_array(matrix)
    diagonal = csr.diagonal()
    n = diagonal.size
    off = sp.csr_array(csr - sp.dia_array((diagonal[None], [0]), shape=csr.shape))
    off.eliminate_zeros()
    off.sort_indices()
    degrees = np.diff(off.indptr)
    own, other = np.repeat(np.arange(n), degrees), off.indices.astype(np.int64)
    back = np.lexsort((own, other))  # row k by (other, own) and row k by (own, other): one edge
    if not (np.array_equal(other[back], own) and np.array_equal(own[back], other)):
        raise ValueError(
            f"exchange: the graph must be undirected (messages on links go both ways), got a directed one of {n} "
            "nodes. Use an undirected graph (adozoo.graphs), or a method for directed ones "
            "(adozoo.stochastic_gradient_push)."
        )
    slots = np.full((n, int(degrees.max(initial=0))), len(own))
    slots[own, np.arange(len(own)) - np.repeat(off.indptr[:-1], degrees)] = np.arange(len(own))
    return Exchange(own, other, back, slots, off.data, n)
