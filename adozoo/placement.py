r"""Placement: where the nodes live. One device, a device mesh, one node a device under `pmap`, or many processes.

Nodes lie on p devices in blocks of n / p consecutive rows of the leading axis. Only the mixing knows: a factory that is
given a placed mixing is the same method, spread over devices.

    mesh = adozoo.placement.node_mesh()                                # all devices (of all processes)
    mix = adozoo.placement.place(adozoo.mixing(adozoo.graphs.ring(16)), mesh)
    tx = adozoo.dsgd(0.1, mix)
    params = adozoo.placement.shard(params, mesh)                      # rows on their devices
    state = adozoo.placement.init(tx, params)                          # `jax.jit(tx.init)` would put it on one device
    updates, state = jax.jit(tx.update)(grads, state, params)          # params, grads, state: all stay sharded

What goes over the wire in one application, from each device, for each leaf:

=================================  =====================================================================================
mixing                             cost
=================================  =====================================================================================
sparse (ring, torus, hypercube,    the rows that other devices' nodes listen to, each once for each such device, in as
trees, exponential, random ...)    many collective-permutes as the busiest device has neighbouring devices (ring: 2)
dense                              p - 1 blocks, passed round one by one: nobody ever holds the full node axis
exact mean                         one all-reduce of one row
schedule (`cycle`)                 what the member of that step costs
drawn weights, faults              what the base graph costs: messages are masked where they arrive
exchange (relay, PowerGossip)      each message once, in as many `ppermute`s as the busiest device has neighbours
=================================  =====================================================================================

Leaves of 16 bits travel in 16 bits and are summed in 32 (the all-reduce sums on its way, hence travels in 32). Weights
and neighbour tables are held by every device, and random weights drawn by every device from the same key.

Inside `jax.shard_map` or `jax.pmap`, where leaves are the device's own blocks, use `local`. One node a device by
`pmap`:

    mix = adozoo.placement.local(adozoo.mixing(adozoo.graphs.ring(8)), "nodes", 8)
    tx = adozoo.dsgd(0.1, mix)
    params = adozoo.placement.split(params, 8)                         # [8, ...] -> [8, 1, ...]
    state = jax.pmap(tx.init, axis_name="nodes")(params)
    updates, state = jax.pmap(tx.update, axis_name="nodes")(grads, state, params)

Over several processes call `jax.distributed.initialize` first; everything above stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree

from adozoo._events import Events, placed_events
from adozoo._exchange import Exchange, OnLinks
from adozoo._exchange_spread import PlacedExchange, local_exchange, placed_exchange
from adozoo._mixings import register
from adozoo._spread import Local, Spread, spread
from adozoo.channel import DelayedState
from adozoo.mixing import Mixing


def node_mesh(devices: Sequence[Any] | None = None, axis: str = "nodes") -> Mesh:
    """A mesh of one axis for nodes, over the given devices (by default all, of all processes).

    Args:
      devices: the devices, in the order in which they get their nodes.
      axis: the axis' name.

    Returns:
      The mesh, with an Auto axis: on `jax.make_mesh`'s default, Explicit, a roll or gather over the node axis raises.

    Example:
      >>> adozoo.placement.node_mesh(jax.devices()[:1]).shape["nodes"]
      1
    """
    devices = jax.devices() if devices is None else list(devices)
    return jax.make_mesh((len(devices),), (axis,), axis_types=(AxisType.Auto,), devices=devices)


def specs(tree: PyTree, n: int, axis: str = "nodes") -> PyTree:
    """How each leaf of params or a state lies on the mesh: by its rows if it has one for each node, else replicated.

    Args:
      tree: params, a state, or their shapes.
      n: the number of nodes.
      axis: the mesh axis of the nodes.

    Example:
      >>> adozoo.placement.specs((jnp.zeros((4, 3)), jnp.zeros(())), 4)
      (P('nodes',), P())
    """

    def spec(leaf: Any) -> PartitionSpec:
        return PartitionSpec(axis) if jnp.ndim(leaf) and jnp.shape(leaf)[0] == n else PartitionSpec()

    def part(node: Any) -> Any:
        if isinstance(node, OnLinks):  # as many rows on every device
            return jax.tree.map(lambda leaf: PartitionSpec(axis), node)
        if not isinstance(node, DelayedState):
            return spec(node)
        history = jax.tree.map(lambda leaf: PartitionSpec(None, axis), node.sent)  # [delays + 1, n, ...]
        return DelayedState(specs(node.inner, n, axis), history)

    return jax.tree.map(part, tree, is_leaf=lambda node: isinstance(node, DelayedState | OnLinks))


def shard(tree: PyTree, mesh: Mesh, n: int | None = None, axis: str | None = None) -> PyTree:
    """Put rows of stacked leaves on their nodes' devices, and everything else (scalars, keys) on all devices.

    With several processes each of them calls this with the same values, and keeps what its own devices hold.

    Args:
      tree: params, gradients, data or a state; leaves [n, ...] are stacked.
      mesh: the mesh, see `node_mesh`.
      n: the number of nodes; by default the leading axis that all non-scalar leaves share.
      axis: the mesh axis of the nodes, if the mesh has others as well.

    Returns:
      The same values on the mesh.

    Raises:
      ValueError: if n does not divide by the number of devices, or cannot be told from the leaves.

    Example:
      >>> mesh = adozoo.placement.node_mesh(jax.devices()[:1])
      >>> adozoo.placement.shard(jnp.zeros((4, 3)), mesh).sharding.spec
      P('nodes',)
    """
    axis = _node_axis("shard", mesh, axis)
    if n is None:
        sizes = {jnp.shape(leaf)[0] for leaf in jax.tree.leaves(tree) if jnp.ndim(leaf)}
        if len(sizes) != 1:
            raise ValueError(
                f"shard: cannot tell the node axis from leaves with leading axes {sorted(sizes)}. Pass n, the number "
                "of nodes."
            )
        n = sizes.pop()
    _check_divides("shard", n, mesh.shape[axis], axis)
    return jax.tree.map(lambda leaf, spec: _put(leaf, NamedSharding(mesh, spec)), tree, specs(tree, n, axis))


def init(tx: Any, params: PyTree) -> PyTree:
    """`tx.init(params)` for params on a mesh, with the state's stacked leaves sharded like them.

    Args:
      tx: an optax transformation.
      params: stacked pytree as `shard` returns it.

    Raises:
      ValueError: if the params are not on a mesh.

    Example:
      >>> params = adozoo.placement.shard(
      ...     jnp.zeros((4, 3)), adozoo.placement.node_mesh(jax.devices()[:1])
      ... )
      >>> adozoo.placement.init(optax.adam(0.1), params)[0].mu.sharding.spec
      P('nodes',)
    """
    leaf = jax.tree.leaves(params)[0]
    sharding = getattr(leaf, "sharding", None)
    if not isinstance(sharding, NamedSharding) or not len(sharding.spec) or not isinstance(sharding.spec[0], str):
        raise ValueError(
            f"placement.init: params must be sharded over nodes, got a first leaf with sharding {sharding}. Call "
            "adozoo.placement.shard(params, mesh) first."
        )
    places = specs(jax.eval_shape(tx.init, params), leaf.shape[0], sharding.spec[0])
    places = jax.tree.map(partial(NamedSharding, sharding.mesh), places)
    return jax.jit(tx.init, out_shardings=places)(params)


def split(tree: PyTree, size: int) -> PyTree:
    """Blocks for `size` devices under `pmap`: leaves [n, ...] become [size, n / size, ...].

    Raises:
      ValueError: if a leaf's leading axis does not divide by `size`.

    Example:
      >>> adozoo.placement.split(jnp.zeros((8, 3)), 4).shape
      (4, 2, 3)
    """
    for leaf in jax.tree.leaves(tree):
        _check_divides("split", jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0, size)
    return jax.tree.map(lambda x: jnp.reshape(x, (size, -1, *jnp.shape(x)[1:])), tree)


def join(tree: PyTree) -> PyTree:
    """Undo `split`: leaves [size, n / size, ...] become [n, ...].

    Example:
      >>> adozoo.placement.join(jnp.zeros((4, 2, 3))).shape
      (8, 3)
    """
    return jax.tree.map(lambda x: jnp.reshape(x, (-1, *jnp.shape(x)[2:])), tree)


def local(mix: Any, axis_name: str, size: int) -> Any:
    """The same mixing or exchange inside `jax.shard_map` or `jax.pmap`, where leaves are blocks of n / size rows.

    Device k of the axis holds nodes k n / size, ..., (k + 1) n / size - 1. The result answers `n`, `matrix` and so on
    for the whole network; only what it is called with is local.

    Args:
      mix: any mixing, schedule or fault model, or an exchange.
      axis_name: the mapped axis.
      size: how many devices that axis has; n must divide by it.

    Returns:
      A mixing over blocks; `local_rows` is their length.

    Raises:
      ValueError: if n does not divide by `size`, or if the mixing's graph is traced (build it outside of `jit`).

    Example:
      >>> mesh = adozoo.placement.node_mesh(jax.devices()[:1])
      >>> mix = adozoo.placement.local(adozoo.exact_mean(2), "nodes", 1)
      >>> jax.shard_map(
      ...     mix, mesh=mesh, in_specs=jax.P("nodes"), out_specs=jax.P("nodes")
      ... )(jnp.array([0.0, 2.0]))
      Array([1., 1.], dtype=float64)
    """
    _check_divides("local", mix.n, size, axis_name)
    if isinstance(mix, Exchange):
        return local_exchange(mix, axis_name, size)
    if isinstance(mix, Events):
        return placed_events(mix, lambda partners: spread(partners, axis_name, size))
    return spread(mix, axis_name, size)


@partial(register, data_fields=["base"], meta_fields=["mesh", "axis"])
@dataclass(frozen=True, eq=False)
class Placed(Spread):
    """A mixing over leaves that are sharded over a mesh. See `place`."""

    base: Mixing
    mesh: Mesh | AbstractMesh
    axis: str

    @property
    def local_rows(self) -> int:
        return self.n

    @property
    def own_nodes(self) -> Int[Array, " n"]:
        return jnp.arange(self.n)

    def exchange(self) -> PlacedExchange:
        if not isinstance(self.base, Local):
            raise ValueError(
                f"exchange: messages on links need a fixed graph, got a placed {type(self.base).__name__}. Place one "
                "fixed mixing, perhaps with faults around it (adozoo.channel)."
            )
        return placed_exchange(self.base.base.exchange(), self.mesh, self.axis)

    def only(self, links: np.ndarray) -> "Placed":
        """This mixing over some links alone, given as booleans [n, n]; the weights of all others count as zero."""
        if not isinstance(self.base, Local):
            raise ValueError(
                f"delayed: messages of a placed {type(self.base).__name__} cannot be delayed. Let the factory add it: "
                "adozoo.channel.delayed(lambda mix: adozoo.local_dsgd(0.1, mix, 2), placed, delays)."
            )
        return replace(self, base=self.base.only(links))

    def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        for leaf in jax.tree.leaves(tree):
            if not jnp.ndim(leaf) or jnp.shape(leaf)[0] != self.n:
                raise ValueError(
                    f"placed mixing over n = {self.n} nodes: every leaf needs a leading node axis of length {self.n}, "
                    f"got a leaf of shape {jnp.shape(leaf)}. Use adozoo.replicate(params, {self.n}); inside shard_map "
                    "or pmap use adozoo.placement.local."
                )
        return _over_mesh(self.base, tree, jnp.asarray(step), self.mesh, self.axis, message)


@partial(jax.jit, static_argnames=("mesh", "axis", "message"))  # so that calls outside of jit are compiled once
def _over_mesh(base: Mixing, tree: PyTree, step: Array, mesh: Any, axis: str, message: int) -> PyTree:
    rows, everywhere = PartitionSpec(axis), PartitionSpec()
    run = jax.shard_map(
        lambda base, tree, step: base(tree, step, message),
        mesh=mesh,
        in_specs=(everywhere, rows, everywhere),
        out_specs=rows,
        axis_names={axis},
    )
    return run(base, tree, step)


def place(mix: Any, mesh: Mesh | AbstractMesh, axis: str | None = None) -> Any:
    """The same for leaves sharded over a mesh: messages go by collective-permutes, and the sharding stays.

    Works under jit, vmap (over step sizes, say), scan, grad, and over several processes.

    Args:
      mix: any mixing, schedule or fault model, or an exchange.
      mesh: the mesh; abstract to lower for devices that are not there.
      axis: the mesh axis of the nodes, if the mesh has others as well (those are left to the compiler).

    Returns:
      A mixing; n / devices nodes live on each device.

    Raises:
      ValueError: if n does not divide by the number of devices.

    Example:
      >>> mesh = adozoo.placement.node_mesh(jax.devices()[:1])
      >>> mix = adozoo.placement.place(adozoo.mixing(adozoo.graphs.ring(4)), mesh)
      >>> mix(adozoo.placement.shard(jnp.array([3.0, 0.0, 0.0, 0.0]), mesh)).round(6)
      Array([1., 1., 0., 1.], dtype=float64)
    """
    axis = _node_axis("place", mesh, axis)
    _check_divides("place", mix.n, mesh.shape[axis], axis)
    if isinstance(mix, Exchange):
        return placed_exchange(mix, mesh, axis)
    if isinstance(mix, Events):
        return placed_events(mix, lambda partners: Placed(local(partners, axis, mesh.shape[axis]), mesh, axis))
    return Placed(local(mix, axis, mesh.shape[axis]), mesh, axis)


def _node_axis(name: str, mesh: Mesh | AbstractMesh, axis: str | None) -> str:
    axis = axis or (mesh.axis_names[0] if len(mesh.axis_names) == 1 else "nodes")
    if axis not in mesh.axis_names:
        raise ValueError(f"{name}: mesh has axes {mesh.axis_names}, none is {axis!r}. Pass axis, the one of the nodes.")
    return axis


def _check_divides(name: str, n: int, size: int, axis: str = "nodes") -> None:
    if n < 1 or n % size:
        best = max(k for k in range(1, size + 1) if n % k == 0)
        raise ValueError(
            f"{name}: n = {n} nodes do not spread evenly over the {size} devices of axis {axis!r}. Use {best} of them, "
            f"adozoo.placement.node_mesh(jax.devices()[:{best}]), or a number of nodes that is a multiple of {size}."
        )


def _put(leaf: Any, sharding: NamedSharding) -> Any:
    """Onto the mesh, every process keeping what its own devices hold."""
    if jax.process_count() == 1 or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key):
        data = _put(jax.random.key_data(leaf), NamedSharding(sharding.mesh, PartitionSpec()))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])
