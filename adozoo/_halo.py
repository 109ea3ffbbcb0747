r"""Routes: how the rows that a device needs of other devices' nodes get to it, planned on the host from W's sparsity.

Nodes lie on devices in blocks of b = n / p consecutive rows. A route is static and hashable, and is run inside
`shard_map` or `pmap`, where a leaf is the device's own block [b, ...]:

========  ================================================  ==========================================================
route     for                                               one application moves, per device and leaf
========  ================================================  ==========================================================
Halo      sparse W: a device hears of a part of the rows    the rows that it needs, each once, in as many
                                                            `ppermute`s as the busiest device has neighbours
Rotation  W with (almost) all rows needed everywhere        p - 1 blocks, one at a time: the node axis is never gathered
Average   W = 11'/n                                         one all-reduce of one row
========  ================================================  ==========================================================
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jax import lax
from jaxtyping import Array, Bool, Int
from scipy.sparse.csgraph import maximum_bipartite_matching

Pairs = tuple[tuple[int, int], ...]


class Frozen:
    """A static array [devices, ...], equal and hashable by value, so that equal plans share one compiled program."""

    def __init__(self, values: np.ndarray):
        self.values = np.ascontiguousarray(values, np.int32)
        self._hash = hash((self.values.shape, self.values.tobytes()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return self._hash

    def here(self, axis: str) -> Any:
        """The calling device's row; a constant where all devices have the same one, as on a ring."""
        if (self.values == self.values[0]).all():
            return self.values[0]
        return jnp.asarray(self.values)[lax.axis_index(axis)]


def wide(x: Array) -> Array:
    """16-bit leaves travel as they are and are summed in float32."""
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4 else x


def varying(x: Array, axis: str) -> Array:
    """The same values, typed as ones that may differ between devices: branches must agree on that."""
    try:
        return lax.pcast(x, axis, to="varying")
    except ValueError:  # they are typed so already
        return x


def check_axis(name: str, axis: str, size: int) -> None:
    """Raise ValueError unless this runs under a mapped axis of that size."""
    try:
        found = lax.axis_size(axis)
    except NameError:
        found = None
    if found != size:
        what = "there is no such axis here" if found is None else f"it has size {found}"
        raise ValueError(
            f"{name}: axis {axis!r} must be a mapped axis of size {size}, but {what}. Call it inside jax.shard_map or "
            "jax.pmap with that axis, or use adozoo.placement.place(mix, mesh) outside."
        )


def own_rows(table: Array, size: int, axis: str) -> Array:
    """The calling device's rows of an array [n, ...] that every device holds."""
    return table.reshape((size, -1, *table.shape[1:]))[lax.axis_index(axis)]


@dataclass(frozen=True)
class Average:
    """The exact mean: over the device's rows, then one all-reduce. It adds on its way, hence travels in 32 bits."""

    size: int

    def apply(self, x: Array, neighbors: Any, weights: Any, axis: str) -> Array:
        """The mean over all nodes, in every row; the table is not needed."""
        mean = lax.pmean(jnp.mean(wide(x), axis=0, keepdims=True), axis)
        same = jnp.broadcast_to(mean.astype(x.dtype), x.shape)
        return varying(same, axis)


@dataclass(frozen=True)
class Round:
    """One `ppermute`: over `pairs` of (sender, receiver), each sends its `rows` [devices, m] (padded with row 0)."""

    pairs: Pairs
    rows: Frozen

    def send(self, x: Array, axis: str) -> Array:
        """What arrives; zeros on a device that nobody sends to in this round."""
        own = self.rows.here(axis)
        whole = isinstance(own, np.ndarray) and np.array_equal(own, np.arange(x.shape[0]))
        return lax.ppermute(x if whole else x[own], axis, self.pairs)


@dataclass(frozen=True)
class Halo:
    """Weights over the extended block [own rows; rows received in round 0; round 1 ...], `slots` [devices, b, k]."""

    size: int
    rounds: tuple[Round, ...]
    slots: Frozen

    def extend(self, x: Array, axis: str) -> Array:
        """The device's block with the rows that it receives below."""
        return jnp.concatenate([x, *(turn.send(x, axis) for turn in self.rounds)]) if self.rounds else x

    def permute(self, x: Array, axis: str) -> Array:
        """The rows that column 1 of the table names, as they are."""
        return self.extend(x, axis)[self.slots.here(axis)[:, 1]]

    def apply(self, x: Array, neighbors: Any, weights: Array, axis: str) -> Array:
        """The device's rows of W x, for weights [n, k] over the table that the route was planned for."""
        extended = wide(self.extend(x, axis))
        slots = self.slots.here(axis)
        own = own_rows(weights[:, : slots.shape[1]], self.size, axis).astype(extended.dtype)
        own = own.reshape(own.shape + (1,) * (x.ndim - 1))
        terms = [own[:, k] * extended[slots[:, k]] for k in range(slots.shape[1])]
        return sum(terms[1:], terms[0]).astype(x.dtype)


@dataclass(frozen=True)
class Rotation:
    """Blocks go round the devices; each adds its share of W times the block that passes: two blocks of memory."""

    size: int

    def apply(self, x: Array, neighbors: Array, weights: Array, axis: str) -> Array:
        """The device's rows of W x, for a table (neighbors, weights) [n, k] that may be drawn at run time."""
        b, n = x.shape[0], self.size * x.shape[0]
        dtype = wide(x).dtype
        own = own_rows(weights, self.size, axis).astype(dtype)
        w = jnp.zeros((b, n), dtype).at[jnp.arange(b)[:, None], own_rows(neighbors, self.size, axis)].add(own)
        w = w.reshape(b, self.size, b)
        place = lax.axis_index(axis)

        def share(block: Array, owner: Any) -> Array:
            part = lax.dynamic_index_in_dim(w, owner, axis=1, keepdims=False)
            return jnp.matmul(part, wide(block), precision=lax.Precision.HIGHEST)

        def hop(carry: tuple[Array, Array], ahead: Array) -> tuple[tuple[Array, Array], None]:
            block, total = carry
            block = lax.ppermute(block, axis, [(source, (source - 1) % self.size) for source in range(self.size)])
            return (block, total + share(block, (place + ahead) % self.size)), None

        rows = x.reshape(b, -1)
        (_, total), _ = lax.scan(hop, (rows, share(rows, place)), jnp.arange(1, self.size))
        return total.astype(x.dtype).reshape(x.shape)


Route = Average | Halo | Rotation


def route(neighbors: Int[np.ndarray, "n k"], used: Bool[np.ndarray, "n k"], size: int) -> Halo | Rotation:
    """Plan the cheapest route for a table whose entries `used` may carry weight, over `size` devices."""
    plan = halo(neighbors, used, size)
    received = sum(turn.rows.values.shape[1] for turn in plan.rounds)
    n = neighbors.shape[0]
    return Rotation(size) if size > 3 and 4 * received > 3 * (n - n // size) else plan


def halo(neighbors: Int[np.ndarray, "n k"], used: Bool[np.ndarray, "n k"], size: int) -> Halo:
    """Plan a halo exchange for such a table: only rows that are needed move, each once for each device."""
    n = neighbors.shape[0]
    b = n // size
    blocks = np.where(used, neighbors, np.arange(n)[:, None]).reshape(size, b, -1)
    needed: dict[tuple[int, int], np.ndarray] = {}  # (sender, receiver) -> global rows
    for receiver, block in enumerate(blocks):
        rows = np.unique(block)
        for sender in np.unique(rows // b):
            if sender != receiver:
                needed[int(sender), receiver] = rows[rows // b == sender]
    rounds = _rounds(list(needed), size)
    lengths = [max(len(needed[pair]) for pair in pairs) for pairs in rounds]
    sends = []
    places = [[(receiver * b + np.arange(b), 0)] for receiver in range(size)]  # receiver -> (rows, their first slot)
    start = b
    for pairs, length in zip(rounds, lengths, strict=True):
        send = np.zeros((size, length), np.int64)
        for sender, receiver in pairs:
            rows = needed[sender, receiver]
            send[sender, : len(rows)] = rows - sender * b
            places[receiver].append((rows, start))
        idle = sorted(set(range(size)) - {sender for sender, _ in pairs})
        send[idle] = send[pairs[0][0]]  # nobody hears them; like the others, for one constant instead of a table
        sends.append(send)
        start += length
    slots = np.zeros(blocks.shape, np.int64)
    where = np.zeros(n, np.int64)
    for receiver, parts in enumerate(places):
        for rows, first in parts:
            where[rows] = first + np.arange(len(rows))
        slots[receiver] = where[blocks[receiver]]
    turns = (Round(tuple(sorted(pairs)), Frozen(send)) for pairs, send in zip(rounds, sends, strict=True))
    return Halo(size, tuple(turns), Frozen(slots))


def _rounds(pairs: list[tuple[int, int]], size: int) -> list[list[tuple[int, int]]]:
    """Split (sender, receiver) pairs into partial permutations, as few as the busiest device has senders or receivers.

    By offset (receiver - sender) where that needs no more of them, as on rings and toruses, whose devices then all do
    the same; else by an edge colouring of the bipartite graph of senders and receivers (Koenig): it is padded to a
    regular multigraph, from which perfect matchings are taken one by one.
    """
    if not pairs:
        return []
    real = np.zeros((size, size), bool)
    real[tuple(np.array(pairs).T)] = True
    sent, heard = real.sum(1), real.sum(0)
    degree = int(max(sent.max(), heard.max()))
    offsets: dict[int, list[tuple[int, int]]] = {}
    for sender, receiver in sorted(pairs):
        offsets.setdefault((receiver - sender) % size, []).append((sender, receiver))
    if len(offsets) == degree:
        return [offsets[offset] for offset in sorted(offsets)]
    count = real.astype(np.int64)
    np.add.at(count, (np.repeat(np.arange(size), degree - sent), np.repeat(np.arange(size), degree - heard)), 1)
    rounds = []
    for _ in range(degree):
        receivers = maximum_bipartite_matching(sp.csr_array(count), perm_type="column")
        matched = list(enumerate(map(int, receivers)))
        count[np.arange(size), receivers] -= 1
        rounds.append([pair for pair in matched if real[pair]])
        real[np.arange(size), receivers] = False
    return [pairs for pairs in rounds if pairs]


def concrete(array: Any) -> np.ndarray | None:
    """The array's values, or None where it is traced."""
    return None if isinstance(array, jax.core.Tracer) else np.asarray(array)
