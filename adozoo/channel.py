r"""What befalls messages: drops, link and node failures, noise, delays, and counting them.

Faults wrap a mixing and are mixings again, so that every method meets them through the one door. What a lost message
does to the weights decides which invariant survives:

=============  ===============================================================  ======================================
lost=          the receiver's step                                              preserved
=============  ===============================================================  ======================================
"renormalize"  divides by the weights that arrived (its own included)           rows sum to one
"keep"         uses its own value in place of the lost one                      rows; the mean if links fail both ways
"return"       nothing; the sender keeps what it could not deliver              columns: the sum over nodes (push-sum)
=============  ===============================================================  ======================================

Every fault is drawn from a key folded with the step and the message's number within the step, so that two messages of a
step are lost independently, and runs with one key agree.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from adozoo._checks import check_choice, check_number
from adozoo._delay import DelayedState, delayed
from adozoo._exchange import Exchange
from adozoo._mixings import register
from adozoo._traffic import Traffic, mean_links, traffic
from adozoo.mixing import Mixing, Table
from adozoo.schedules import Wrapper, check_key

__all__ = [
    "DelayedState",
    "Traffic",
    "delayed",
    "drops",
    "link_failures",
    "mean_links",
    "node_failures",
    "noisy",
    "recorded_drops",
    "traffic",
]

LOST = ("renormalize", "keep", "return")


@partial(register, data_fields=["base", "arrived"], meta_fields=["lost"])
@dataclass(frozen=True, eq=False)
class Lossy(Wrapper):
    """A mixing some of whose messages do not arrive. `arrived(step, message, neighbors)` -> [n, k - 1] booleans."""

    base: Mixing
    arrived: Any
    lost: str

    @property
    def period(self) -> None:
        """Random losses never repeat."""
        return None

    def at(self, step: Any, message: int = 0) -> Table:
        neighbors, weights = self.base.table_at(step, message)
        arrived = self.arrived(step, message, neighbors)
        own, others = weights[:, 0], weights[:, 1:]
        received = jnp.where(arrived, others, 0)
        missing = others - received
        if self.lost == "renormalize":
            total = own + received.sum(axis=1)
            alone = total <= 0  # nothing arrived and no weight on itself: the node keeps its value
            own = jnp.where(alone, 1.0, own / jnp.where(alone, 1.0, total))
            received = received / jnp.where(alone, 1.0, total)[:, None]
        elif self.lost == "keep":
            own = own + missing.sum(axis=1)
        else:
            own = own + jnp.zeros_like(own).at[neighbors[:, 1:]].add(missing)
        return Table(neighbors, jnp.concatenate([own[:, None], received], axis=1), self.n, self.stochastic, False)

    def links(self, step: Any = 0) -> Any:
        return self.base.links(step)  # a lost message was sent

    def exchange(self) -> Exchange:
        return _lossy_exchange(self.base.exchange(), self.arrived)


@partial(register, data_fields=["first", "second"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class _Both:
    """Arrives what two faults let through."""

    first: Any
    second: Any

    def __call__(self, step: Any, message: int, neighbors: Array) -> Array:
        return self.first(step, message, neighbors) & self.second(step, message, neighbors)


@partial(register, data_fields=["key", "probability"], meta_fields=["both_ways"])
@dataclass(frozen=True, eq=False)
class _RandomLosses:
    key: Array
    probability: Any
    both_ways: bool

    def __call__(self, step: Any, message: int, neighbors: Array) -> Array:
        n = neighbors.shape[0]
        nodes = jnp.arange(n)[:, None]
        other = neighbors[:, 1:]
        key = jax.random.fold_in(jax.random.fold_in(self.key, step), message)
        first, second = jnp.broadcast_arrays(nodes, other)
        if self.both_ways:  # both ends of a link see one coin
            first, second = jnp.minimum(first, second), jnp.maximum(first, second)

        def coin(i: Array, j: Array) -> Array:
            return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, i), j))

        coins = jax.vmap(coin)(first.ravel(), second.ravel()).reshape(other.shape)
        return coins >= self.probability


@partial(register, data_fields=["kept"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class _RecordedLosses:
    kept: Array

    def __call__(self, step: Any, message: int, neighbors: Array) -> Array:
        mask = self.kept[jnp.mod(step, self.kept.shape[0])]
        return mask[jnp.arange(mask.shape[0])[:, None], neighbors[:, 1:]]


@partial(register, data_fields=["up"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class _NodesUp:
    up: Array

    def __call__(self, step: Any, message: int, neighbors: Array) -> Array:
        up = self.up[jnp.mod(step, self.up.shape[0])]
        return up[:, None] & up[neighbors[:, 1:]]


def drops(mix: Any, probability: Any, key: Any, lost: str | None = None) -> Any:
    """Lose every directed message independently with `probability`.

    Args:
      mix: any mixing, or an exchange (of which `lost` is None: its methods decide).
      probability: in [0, 1), may be traced.
      key: a typed JAX key.
      lost: "renormalize", "keep" or "return" (see the table above); by default "return" for column-stochastic mixings
        (push-sum) and "renormalize" for all others.

    Raises:
      ValueError: for a probability outside [0, 1), an untyped key, an unknown `lost`.

    Example:
      >>> mix = adozoo.channel.drops(
      ...     adozoo.mixing(adozoo.graphs.ring(4)), 0.5, jax.random.key(0)
      ... )
      >>> mix(jnp.ones(4), step=3).round(12)  # rows still sum to one
      Array([1., 1., 1., 1.], dtype=float64)
    """
    check_number("drops", "probability", probability, 0, 1, closed=True)
    check_key("drops", key)
    return _lossy("drops", mix, _RandomLosses(key, jnp.asarray(probability), False), lost)


def recorded_drops(mix: Any, kept: Any, lost: str | None = None) -> Any:
    """Lose recorded messages: at step t (modulo T) node i receives from j iff kept[t, i, j].

    Args:
      mix: any mixing, or an exchange.
      kept: booleans [T, n, n].
      lost: as in `drops`.

    Example:
      >>> mix = adozoo.channel.recorded_drops(
      ...     adozoo.exact_mean(2), jnp.zeros((1, 2, 2), bool)
      ... )
      >>> mix(jnp.array([0.0, 2.0]))
      Array([0., 2.], dtype=float64)
    """
    mask = jnp.asarray(kept, bool)
    if mask.ndim != 3 or mask.shape[1:] != (mix.n, mix.n):
        raise ValueError(f"recorded_drops: kept must be [T, {mix.n}, {mix.n}], got shape {mask.shape}.")
    return _lossy("recorded_drops", mix, _RecordedLosses(mask), lost)


def link_failures(mix: Any, probability: Any, key: Any) -> Any:
    """Every undirected link fails with `probability` in a step, both ways; each end keeps its own value instead.

    A symmetric doubly stochastic mixing stays so, and the mean over nodes is preserved.

    Example:
      >>> mix = adozoo.channel.link_failures(
      ...     adozoo.mixing(adozoo.graphs.ring(4)), 0.5, jax.random.key(0)
      ... )
      >>> round(float(mix(jnp.arange(4.0), step=1).mean()), 12)
      1.5
    """
    check_number("link_failures", "probability", probability, 0, 1, closed=True)
    check_key("link_failures", key)
    if not mix.symmetric:
        raise ValueError("link_failures: mix must be symmetric (links work both ways); use adozoo.channel.drops.")
    return _lossy("link_failures", mix, _RandomLosses(key, jnp.asarray(probability), True), _both_ways(mix))


def node_failures(mix: Any, up: Any) -> Any:
    """Nodes that are down neither send nor receive: all their links fail, both ways; they keep their own value.

    Their own local steps go on (the gradient is the caller's); mask the gradient too for nodes that are switched off.

    Args:
      mix: a symmetric mixing, or an exchange.
      up: booleans [T, n]: whether node i is up at step t (modulo T).

    Example:
      >>> mix = adozoo.channel.node_failures(
      ...     adozoo.exact_mean(3), jnp.array([[True, True, False]])
      ... )
      >>> mix(jnp.array([0.0, 3.0, 9.0])).round(6)
      Array([1., 2., 9.], dtype=float64)
    """
    up = jnp.asarray(up, bool)
    if up.ndim != 2 or up.shape[1] != mix.n:
        raise ValueError(f"node_failures: up must be [T, {mix.n}], got shape {up.shape}.")
    if not mix.symmetric:
        raise ValueError("node_failures: mix must be symmetric (links work both ways); use recorded_drops.")
    return _lossy("node_failures", mix, _NodesUp(up), _both_ways(mix))


def _both_ways(mix: Any) -> str | None:
    """What a mixing does where links fail on both sides; an exchange has no weights to lose."""
    return None if isinstance(mix, Exchange) else "keep"


def _lossy_exchange(exchange: Exchange, arrived: Any) -> Exchange:
    return replace(exchange, faults=arrived if exchange.faults is None else _Both(exchange.faults, arrived))


def _lossy(name: str, mix: Any, arrived: Any, lost: str | None) -> Any:
    if hasattr(mix, "only") or hasattr(mix, "plan") or mix.local_rows != mix.n:
        raise ValueError(
            f"{name}: mix is placed on devices already, where messages cannot be told apart any more. Place "
            f"the faulty mixing instead: adozoo.placement.place(adozoo.channel.{name}(mix, ...), mesh)."
        )
    if isinstance(mix, Exchange):
        if lost is not None:
            raise ValueError(
                f"{name}: lost={lost!r} says what a lost message does to a mixing's weights; over an exchange the "
                "method itself decides. Leave `lost` out."
            )
        return _lossy_exchange(mix, arrived)
    if lost is None:
        lost = "return" if mix.stochastic == "column" else "renormalize"
    check_choice(name, "lost", lost, LOST)
    return Lossy(mix, arrived, lost)


@partial(register, data_fields=["base", "scale", "key"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Noisy(Wrapper):
    r"""Additive noise on every message: node i receives \sum_j W_ij (x_j + \xi_ij), with its own x_i undisturbed.

    The \xi_ij are independent normals, so that what arrives is W x plus one normal of variance \sigma^2 \sum_{j != i}
    W_ij^2 for each node and coordinate: one draw a node instead of one a link, with the same distribution.
    """

    base: Mixing
    scale: Any
    key: Array

    def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        mixed = self.base(tree, step, message)
        _, weights = self.base.table_at(step, message)
        nodes = self.own_nodes
        spread = self.scale * jnp.sqrt(jnp.sum(weights[:, 1:] ** 2, axis=1))[nodes]
        key = jax.random.fold_in(jax.random.fold_in(self.key, step), message)
        leaves, structure = jax.tree.flatten(mixed)
        noisy = []
        for place, leaf in enumerate(leaves):
            keys = jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, place)))(nodes)
            draw = jax.vmap(lambda own, leaf=leaf: jax.random.normal(own, leaf.shape[1:], leaf.dtype))(keys)
            noisy.append(leaf + spread.astype(leaf.dtype).reshape((-1,) + (1,) * (leaf.ndim - 1)) * draw)
        return jax.tree.unflatten(structure, noisy)

    def at(self, step: Any, message: int = 0) -> Mixing:
        raise ValueError(
            "channel: noise has no mixing matrix, so no fault or delay can go around it. Put the noise outside: "
            "noisy(drops(mix, ...), ...)."
        )

    def links(self, step: Any = 0) -> Any:
        return self.base.links(step)


def noisy(mix: Mixing, scale: Any, key: Any) -> Noisy:
    r"""Add independent N(0, scale^2) noise to every coordinate of every message.

    Example:
      >>> mix = adozoo.channel.noisy(
      ...     adozoo.mixing(adozoo.graphs.ring(4)), 0.0, jax.random.key(0)
      ... )
      >>> mix(jnp.ones(4)).round(12)
      Array([1., 1., 1., 1.], dtype=float64)
    """
    check_number("noisy", "scale", scale, 0, closed=True)
    check_key("noisy", key)
    return Noisy(mix, scale, key)
