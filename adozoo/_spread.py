"""Mixings over several devices, as seen from one of them: the global mixing's weights, and a route for the rows."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from adozoo._halo import Average, Route, concrete, route
from adozoo.channel import Lossy, Noisy
from adozoo.mixing import Dense, Mean, Mixing, Table, register
from adozoo.schedules import Cycle, GossipEvery, Random


class Spread(Mixing):
    """What mixings over several devices share: they answer for the whole network, wherever they are called."""

    base: Mixing
    n = property(lambda self: self.base.n)
    stochastic = property(lambda self: self.base.stochastic)
    symmetric = property(lambda self: self.base.symmetric)
    varying = property(lambda self: self.base.varying)
    period = property(lambda self: getattr(self.base, "period", None))
    is_mean = property(lambda self: getattr(self.base, "is_mean", isinstance(self.base, Mean)))

    def at(self, step: Any, message: int = 0) -> Mixing:
        return At(self, step, message) if self.varying else self

    def table(self) -> tuple[Any, Any]:
        return self.base.table()

    def table_at(self, step: Any, message: int = 0) -> tuple[Any, Any]:
        return self.base.table_at(step, message)

    def links(self, step: Any = 0) -> Any:
        return self.base.links(step)

    @property
    def matrix(self) -> Float[Array, "n n"]:
        neighbors, weights = map(jnp.asarray, self.table())
        return jnp.zeros((self.n, self.n), weights.dtype).at[jnp.arange(self.n)[:, None], neighbors].add(weights)

    @property
    def matrices(self) -> Float[Array, "p n n"]:
        """The matrices of one period of a schedule."""
        return self.base.matrices


@dataclass(frozen=True)
class At(Spread):
    """A time-varying mixing over several devices, held at one step. Lives within one call; never a pytree."""

    base: Mixing
    step: Any
    message: int
    varying = False
    local_rows = property(lambda self: self.base.local_rows)

    def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        return self.base(tree, self.step, self.message)

    def table(self) -> tuple[Any, Any]:
        return self.base.table_at(self.step, self.message)


@partial(register, data_fields=["base"], meta_fields=["routes", "axis", "size"])
@dataclass(frozen=True)
class Local(Spread):
    """A mixing where leaves are a device's own block of rows: see `adozoo.placement.local`.

    `base` is the global mixing with its tables; `routes` hold one static plan for each member of its schedule.
    """

    base: Mixing
    routes: tuple[Route, ...]
    axis: str
    size: int

    @property
    def local_rows(self) -> int:
        return self.n // self.size

    @property
    def own_nodes(self) -> Int[Array, " rows"]:
        return lax.axis_index(self.axis) * self.local_rows + jnp.arange(self.local_rows)

    def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        self._check(tree)
        averages = all(isinstance(way, Average) for way in self.routes)
        table = (None, None) if averages else self.base.table_at(step, message)

        def through(way: Route, tree: PyTree) -> PyTree:
            return jax.tree.map(lambda x: way.apply(jnp.asarray(x), *table, self.axis), tree)

        branches = [partial(through, way) for way in self.routes]
        if len(branches) == 1 or isinstance(step, int | np.integer):
            return branches[int(step) % len(branches) if len(branches) > 1 else 0](tree)
        return lax.switch(jnp.mod(step, len(branches)), branches, tree)  # the same branch on every device

    def _check(self, tree: PyTree) -> None:
        try:
            size = lax.axis_size(self.axis)
        except NameError:
            size = None
        if size != self.size:
            found = "there is no such axis here" if size is None else f"it has size {size}"
            raise ValueError(
                f"local mixing: axis {self.axis!r} must be a mapped axis of size {self.size}, but {found}. Call it "
                "inside jax.shard_map or jax.pmap with that axis, or use adozoo.placement.place(mix, mesh) outside."
            )
        for leaf in jax.tree.leaves(tree):
            if not jnp.ndim(leaf) or jnp.shape(leaf)[0] != self.local_rows:
                raise ValueError(
                    f"local mixing: n = {self.n} nodes over the {self.size} devices of axis {self.axis!r}. Inside, "
                    f"every leaf needs a leading axis of length {self.local_rows}, got one of shape {jnp.shape(leaf)}. "
                    f"Give shard_map in_specs=jax.P({self.axis!r}), or pmap adozoo.placement.split(tree, {self.size})."
                )


def spread(mix: Mixing, axis: str, size: int) -> Mixing:
    """`adozoo.placement.local`, once n is known to divide by `size`."""
    if isinstance(mix, Spread):
        raise ValueError("placement: mix is placed already. Pass the mixing that it was made from.")
    if isinstance(mix, GossipEvery | Noisy):
        return replace(mix, base=spread(mix.base, axis, size))
    with jax.ensure_compile_time_eval():
        means = [isinstance(member, Mean) and not isinstance(mix, Lossy) for member in _members(mix)]
        base = mix if isinstance(mix, Mean) else _tabled(mix)
        routes = tuple(
            Average(size) if mean else _route(member, size) for mean, member in zip(means, _members(base), strict=True)
        )
    return Local(base, routes, axis, size)


def _members(mix: Mixing) -> tuple[Mixing, ...]:
    """The fixed graphs that a mixing goes through, in turn, below its faults."""
    if isinstance(mix, Cycle):
        return mix.mixings
    return _members(mix.base) if hasattr(mix, "base") else (mix,)


def _tabled(mix: Mixing) -> Mixing:
    """The same mixing with every fixed one as a padded neighbour table, whose rows can be told apart."""
    if isinstance(mix, Cycle):
        return replace(mix, mixings=tuple(map(_tabled, mix.mixings)))
    if isinstance(mix, Lossy | GossipEvery | Noisy):
        return replace(mix, base=_tabled(mix.base))
    if isinstance(mix, Random):
        return mix
    if mix.varying:
        raise ValueError(
            f"placement: cannot plan the messages of a {type(mix).__name__}. What can be placed: fixed mixings, "
            "adozoo.cycle, gossip_every, the random schedules, and the faults of adozoo.channel over them."
        )
    if isinstance(mix, Dense) and concrete(mix.dense) is None:  # a full table, its own column first
        neighbors = (np.arange(mix.n)[:, None] + np.arange(mix.n)) % mix.n
        weights = jnp.take_along_axis(mix.dense, neighbors, axis=1)
    else:
        neighbors, weights = mix.table()
    return Table(jnp.asarray(neighbors), jnp.asarray(weights), mix.n, mix.stochastic, mix.symmetric)


def _route(mix: Mixing, size: int) -> Route:
    neighbors, weights = concrete(mix.neighbors), concrete(getattr(mix, "weights", None))
    if neighbors is None:
        raise ValueError(
            "placement: the graph of mix is traced, so the messages cannot be planned. Place the mixing outside of jit."
        )
    used = neighbors != np.arange(mix.n)[:, None]
    if weights is not None and weights.dtype != object:  # not traced, nor drawn at run time
        used &= weights != 0
    return route(neighbors, used, size)
