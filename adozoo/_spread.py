"""Mixings over several devices, as seen from one of them: the global mixing's weights, and a route for the rows."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from adozoo._exchange_spread import LocalExchange, local_exchange
from adozoo._halo import Average, Route, check_axis, concrete, route, varying
from adozoo._mixings import register
from adozoo.channel import Lossy, Noisy
from adozoo.mixing import Dense, Mean, Mixing, Table
from adozoo.schedules import Cycle, GossipEvery, Random, Wrapper


class Spread(Wrapper):
    """What mixings over several devices share: they answer for the whole network, wherever they are called."""

    @property
    def varying(self) -> bool:  # type: ignore[override]
        """Whether the mixing that is spread varies."""
        return self.base.varying

    @property
    def is_mean(self) -> bool:  # type: ignore[override]
        """Whether this is an exact average."""
        return self.base.is_mean

    def at(self, step: Any, message: int = 0) -> Mixing:
        return At(self, step, message) if self.varying else self

    def table(self) -> tuple[Any, Any]:
        return self.base.table()

    def table_at(self, step: Any, message: int = 0) -> tuple[Any, Any]:
        return self.base.table_at(step, message)

    def links(self, step: Any = 0) -> Any:
        return self.base.links(step)

    def mix_leaf(self, x: Array) -> Array:
        return self(x)

    @property
    def matrix(self) -> Float[Array, "n n"]:
        return self.base.matrix


@dataclass(frozen=True)
class At(Wrapper):
    """A time-varying mixing over several devices, held at one step. Lives within one call; never a pytree."""

    base: Mixing
    step: Any
    message: int
    varying = False

    def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        return self.base(tree, self.step, self.message)

    def table(self) -> tuple[Any, Any]:
        return self.base.table_at(self.step, self.message)

    @property
    def matrix(self) -> Float[Array, "n n"]:
        return Table(*self.table(), self.n).matrix


@partial(register, data_fields=["base", "allowed"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Only(Wrapper):
    """A mixing of which only some links are used: those of one delay."""

    base: Mixing
    allowed: Bool[np.ndarray, "n n"] | Bool[Array, "n n"]

    def at(self, step: Any, message: int = 0) -> Table:
        neighbors, weights = self.base.table_at(step, message)
        used = jnp.asarray(self.allowed)[jnp.arange(self.n)[:, None], neighbors]
        return Table(neighbors, jnp.where(used, weights, 0), self.n, self.stochastic, self.symmetric)


@partial(register, data_fields=["base"], meta_fields=["routes", "axis", "size"])
@dataclass(frozen=True, eq=False)
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
        tree = jax.tree.map(lambda x: varying(jnp.asarray(x), self.axis), tree)
        averages = all(isinstance(way, Average) for way in self.routes)
        table: tuple[Any, Any] = (None, None) if averages else self.base.table_at(step, message)

        def through(way: Route, tree: PyTree) -> PyTree:
            return jax.tree.map(lambda x: way.apply(x, *table, self.axis), tree)

        branches = [partial(through, way) for way in self.routes]
        if len(branches) == 1 or isinstance(step, int | np.integer):
            return branches[int(step) % len(branches) if len(branches) > 1 else 0](tree)
        return lax.switch(jnp.mod(step, len(branches)), branches, tree)  # the same branch on every device

    def exchange(self) -> LocalExchange:
        return local_exchange(self.base.exchange(), self.axis, self.size)

    def only(self, links: np.ndarray) -> Mixing:
        """This mixing over some links alone, given as booleans [n, n]; the weights of all others count as zero."""
        return spread(Only(self.base, links), self.axis, self.size)

    def _check(self, tree: PyTree) -> None:
        check_axis("local mixing", self.axis, self.size)
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
        means = [isinstance(member, Mean) and isinstance(mix, Mean | Cycle) for member in _members(mix)]
        base = mix if isinstance(mix, Mean) else _tabled(mix)
        routes = tuple(
            Average(size) if mean else _route(member, size) for mean, member in zip(means, _members(base), strict=True)
        )
    return Local(base, routes, axis, size)


def _members(mix: Mixing) -> tuple[Mixing, ...]:
    """The fixed graphs that a mixing goes through, in turn, below its faults."""
    if isinstance(mix, Cycle):
        return mix.mixings
    if isinstance(mix, Only):
        below = _members(mix.base)
        return tuple(Only(member, mix.allowed).at(0) if isinstance(member, Table) else member for member in below)
    return _members(mix.base) if hasattr(mix, "base") else (mix,)


def _tabled(mix: Mixing) -> Mixing:
    """The same mixing with every fixed one as a padded neighbour table, whose rows can be told apart."""
    if isinstance(mix, Cycle):
        return replace(mix, mixings=tuple(map(_tabled, mix.mixings)))
    if isinstance(mix, Lossy | GossipEvery | Noisy | Only):
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


def _route(mix: Any, size: int) -> Route:
    """The route for a table's neighbours; weights count if they are known now, and not drawn at run time."""
    neighbors = concrete(mix.neighbors)
    weights = concrete(mix.weights) if isinstance(mix, Table) else None
    if neighbors is None:
        raise ValueError(
            "placement: the graph of mix is traced, so the messages cannot be planned. Place the mixing outside of jit."
        )
    used = neighbors != np.arange(mix.n)[:, None]
    return route(neighbors, used if weights is None else used & (weights != 0), size)
