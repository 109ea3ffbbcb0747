"""Exchanges over several devices: each holds its nodes' rows; a swap moves those whose other side lives elsewhere."""

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jaxtyping import Array, PyTree

from adozoo._exchange import Exchange, collect_leaf, register, slots_leaf
from adozoo._halo import Halo, check_axis, halo, own_rows, varying

DATA = ["own", "other", "back", "slots", "weights", "faults"]


@partial(register, data_fields=DATA, meta_fields=["n", "route", "axis", "size"])
@dataclass(frozen=True, eq=False)
class LocalExchange(Exchange):
    """An exchange inside `shard_map` or `pmap`, where leaves are a device's own block of nodes or of their rows.

    Its arrays describe all devices: each has as many rows as the one with the most links, those it lacks being padding
    whose two sides are one node.
    """

    route: Halo = field(kw_only=True)
    axis: str = field(kw_only=True)
    size: int = field(kw_only=True)

    @property
    def rows(self) -> int:
        return len(self.own) // self.size

    @property
    def local_rows(self) -> int:
        return self.n // self.size

    @property
    def own_nodes(self) -> Array:
        return lax.axis_index(self.axis) * self.local_rows + jnp.arange(self.local_rows)

    def here(self, table: Any) -> Any:
        return own_rows(jnp.asarray(table), self.size, self.axis)

    def per_link(self, tree: PyTree) -> PyTree:
        self._check_place(tree, self.local_rows)
        places = self.here(self._local_own[0])
        return jax.tree.map(lambda x: varying(jnp.asarray(x), self.axis)[places], tree)

    def collect(self, tree: PyTree) -> PyTree:
        self._check_place(tree, self.rows)
        own, slots = self.here(self._local_own[1]), self.here(self._local_slots)
        return jax.tree.map(lambda x: collect_leaf(varying(x, self.axis), own, slots, self.local_rows, self.even), tree)

    def to_slots(self, tree: PyTree) -> PyTree:
        self._check_place(tree, self.rows)
        slots = self.here(self._local_slots)
        return jax.tree.map(lambda x: slots_leaf(varying(x, self.axis), slots, self.local_rows, self.even), tree)

    def from_slots(self, tree: PyTree) -> PyTree:
        self._check_place(tree, self.local_rows)
        places = self.here(self._places % (self.local_rows * np.shape(self.slots)[1]))
        return jax.tree.map(lambda x: varying(x, self.axis).reshape((-1, *x.shape[2:]))[places], tree)

    def swap(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        self._check_place(tree, self.rows)

        def move(x: Array) -> Array:
            heard = self.route.permute(varying(x, self.axis), self.axis)
            if self.even:
                return heard
            real = self.here(self._real).reshape((-1,) + (1,) * (x.ndim - 1))
            return jnp.where(real, heard, 0)

        return self.lose(jax.tree.map(move, tree), step, message)

    @cached_property
    def _real(self) -> np.ndarray:
        """Which rows are no padding."""
        return np.asarray(self.own) != np.asarray(self.other)

    @cached_property
    def _local_own(self) -> tuple[np.ndarray, np.ndarray]:
        """Each row's node as a place in its device's block; in the second one padding lies beyond the block."""
        places = np.asarray(self.own) % self.local_rows
        return places, np.where(self._real, places, self.local_rows)

    @cached_property
    def _local_slots(self) -> np.ndarray:
        """Each node's rows as places in its device's block of rows; padding lies beyond the block."""
        slots = np.asarray(self.slots)
        return np.where(slots < len(self.own), slots % self.rows, self.rows)

    def _check_place(self, tree: PyTree, rows: int) -> None:
        check_axis("local exchange", self.axis, self.size)
        for leaf in jax.tree.leaves(tree):
            if not jnp.ndim(leaf) or jnp.shape(leaf)[0] != rows:
                raise ValueError(
                    f"local exchange: n = {self.n} nodes over the {self.size} devices of axis {self.axis!r}. Here "
                    f"every leaf needs a leading axis of length {rows}, got one of shape {jnp.shape(leaf)}. Give "
                    f"shard_map in_specs=jax.P({self.axis!r}), or pmap adozoo.placement.split(tree, {self.size})."
                )


def local_exchange(exchange: Exchange, axis: str, size: int) -> LocalExchange:
    """The same exchange with its rows laid out by devices, and a route for its swaps; n divides by `size`."""
    if isinstance(exchange, LocalExchange | PlacedExchange):
        raise ValueError("placement: the exchange is placed already. Pass the one that it was made from.")
    block, own = exchange.n // size, np.asarray(exchange.own)
    device = own // block
    counts = np.bincount(device, minlength=size)
    most = int(counts.max(initial=0))
    places = np.concatenate([np.arange(count) + most * k for k, count in enumerate(counts)])  # old row -> new row
    total = most * size

    def lay(values: Any, padding: np.ndarray) -> np.ndarray:
        laid = padding.copy()
        laid[places] = values
        return laid

    first = np.repeat(np.arange(size) * block, most)
    back = lay(places[np.asarray(exchange.back)], np.arange(total))
    slots = np.concatenate([places, [total]])[np.asarray(exchange.slots)]
    neighbors = np.stack([np.arange(total), back], axis=1)
    return LocalExchange(
        lay(own, first),
        lay(exchange.other, first),
        back,
        slots,
        lay(exchange.weights, np.zeros(total)),
        exchange.n,
        exchange.faults,
        route=halo(neighbors, neighbors != neighbors[:, :1], size),
        axis=axis,
        size=size,
    )


@partial(register, data_fields=DATA, meta_fields=["n", "plan", "mesh"])
@dataclass(frozen=True, eq=False)
class PlacedExchange(Exchange):
    """An exchange over leaves that are sharded over a mesh, nodes and rows alike. See `adozoo.placement.place`."""

    plan: LocalExchange = field(kw_only=True)
    mesh: Mesh | AbstractMesh = field(kw_only=True)

    def per_link(self, tree: PyTree) -> PyTree:
        return self._run("per_link", tree)

    def collect(self, tree: PyTree) -> PyTree:
        return self._run("collect", tree)

    def to_slots(self, tree: PyTree) -> PyTree:
        return self._run("to_slots", tree)

    def from_slots(self, tree: PyTree) -> PyTree:
        return self._run("from_slots", tree)

    def swap(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        self.check(tree)
        return self._run("swap", tree, step, message)

    def _run(self, operation: str, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        return _over_mesh(self.faults, tree, jnp.asarray(step), self.plan, self.mesh, operation, message)


@partial(jax.jit, static_argnames=("plan", "mesh", "operation", "message"))  # compiled once outside of jit, too
def _over_mesh(
    faults: Any, tree: PyTree, step: Array, plan: LocalExchange, mesh: Any, operation: str, message: int
) -> PyTree:
    rows, everywhere = PartitionSpec(plan.axis), PartitionSpec()

    def inside(faults: Any, tree: PyTree, step: Array) -> PyTree:
        if operation == "swap":
            return replace(plan, faults=faults).swap(tree, step, message)
        return getattr(plan, operation)(tree)

    run = jax.shard_map(
        inside, mesh=mesh, in_specs=(everywhere, rows, everywhere), out_specs=rows, axis_names={plan.axis}
    )
    return run(faults, tree, step)


def placed_exchange(exchange: Exchange, mesh: Any, axis: str) -> PlacedExchange:
    """The same exchange for leaves that are sharded over a mesh; n divides by its devices."""
    plan = local_exchange(exchange, axis, mesh.shape[axis])
    return PlacedExchange(**plan.arrays(), plan=replace(plan, faults=None), mesh=mesh)
