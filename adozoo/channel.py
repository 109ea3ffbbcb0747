r"""What befalls messages: drops, link and node failures, noise, delays, and counting them.

Faults wrap a mixing and are mixings again, so that every method meets them through the one door. What a lost message
does to the weights decides which invariant survives:

=============  ===============================================================  ==================================
lost=          the receiver's step                                              preserved
=============  ===============================================================  ==================================
"renormalize"  divides by the weights that arrived (its own included)           rows sum to one
"keep"         uses its own value in place of the lost one                      rows; the mean too if links fail both ways
"return"       nothing; the sender keeps what it could not deliver              columns: the sum over nodes (push-sum)
=============  ===============================================================  ==================================

Every fault is drawn from a key folded with the step and the message's number within the step, so that two messages of a
step are lost independently, and runs with one key agree.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from adozoo._checks import check_choice, check_number
from adozoo._optax import transformation
from adozoo._traffic import Traffic, mean_links, traffic
from adozoo.mixing import Mixing, Table, register
from adozoo.nodes import _eval_params, register_eval_params
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
@dataclass(frozen=True)
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


@partial(register, data_fields=["key", "probability"], meta_fields=["both_ways"])
@dataclass(frozen=True)
class _RandomLosses:
    key: Array
    probability: Any
    both_ways: bool

    def __call__(self, step: Any, message: int, neighbors: Array) -> Array:
        n = neighbors.shape[0]
        nodes = jnp.arange(n)[:, None]
        other = neighbors[:, 1:]
        key = jax.random.fold_in(jax.random.fold_in(self.key, step), message)
        link = nodes * n + other
        if self.both_ways:  # both ends of a link see one coin
            link = jnp.minimum(nodes, other) * n + jnp.maximum(nodes, other)
        keys = jax.vmap(lambda code: jax.random.fold_in(key, code))(link.ravel())
        coins = jax.vmap(jax.random.uniform)(keys).reshape(link.shape)
        return coins >= self.probability


@partial(register, data_fields=["kept"], meta_fields=[])
@dataclass(frozen=True)
class _RecordedLosses:
    kept: Array

    def __call__(self, step: Any, message: int, neighbors: Array) -> Array:
        mask = self.kept[jnp.mod(step, self.kept.shape[0])]
        return mask[jnp.arange(mask.shape[0])[:, None], neighbors[:, 1:]]


@partial(register, data_fields=["up"], meta_fields=[])
@dataclass(frozen=True)
class _NodesUp:
    up: Array

    def __call__(self, step: Any, message: int, neighbors: Array) -> Array:
        up = self.up[jnp.mod(step, self.up.shape[0])]
        return up[:, None] & up[neighbors[:, 1:]]


def drops(mix: Mixing, probability: Any, key: Any, lost: str | None = None) -> Lossy:
    """Lose every directed message independently with `probability`.

    Args:
      mix: any mixing.
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


def recorded_drops(mix: Mixing, kept: Any, lost: str | None = None) -> Lossy:
    """Lose recorded messages: at step t (modulo T) node i receives from j iff kept[t, i, j].

    Args:
      mix: any mixing.
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


def link_failures(mix: Mixing, probability: Any, key: Any) -> Lossy:
    """Every undirected link fails in a step with `probability`, both ways at once; each end keeps its own value instead.

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
    return _lossy("link_failures", mix, _RandomLosses(key, jnp.asarray(probability), True), "keep")


def node_failures(mix: Mixing, up: Any) -> Lossy:
    """Nodes that are down neither send nor receive: all their links fail, both ways; they keep their own value.

    Their own local steps go on (the gradient is the caller's); mask the gradient too for nodes that are switched off.

    Args:
      mix: a symmetric mixing.
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
    return _lossy("node_failures", mix, _NodesUp(up), "keep")


def _lossy(name: str, mix: Mixing, arrived: Any, lost: str | None) -> Lossy:
    if hasattr(mix, "only") or mix.local_rows != mix.n:
        raise ValueError(
            f"{name}: mix is placed on devices already, where messages cannot be told apart any more. Place "
            f"the faulty mixing instead: adozoo.placement.place(adozoo.channel.{name}(mix, ...), mesh)."
        )
    if lost is None:
        lost = "return" if mix.stochastic == "column" else "renormalize"
    check_choice(name, "lost", lost, LOST)
    return Lossy(mix, arrived, lost)


@partial(register, data_fields=["base", "scale", "key"], meta_fields=[])
@dataclass(frozen=True)
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
        return self.base.at(step, message)


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


class DelayedState(NamedTuple):
    """The method's state, and for each of its messages the last values sent, newest first: leaves [delays + 1, n, ...]."""

    inner: PyTree
    sent: tuple[PyTree, ...]


@dataclass(frozen=True)
class _Memory(Wrapper):
    """Stands in for the mixing during one update: hands out delayed messages and notes in `sent` what was sent."""

    base: Mixing
    delays: np.ndarray
    longest: int
    before: tuple[PyTree, ...] | None
    sent: dict[int, PyTree] = field(default_factory=dict)
    remembers = True

    def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        if self.before is None:  # before the first step: every link holds this message already
            past = jax.tree.map(lambda x: jnp.repeat(x[None], self.longest + 1, axis=0), tree)
        else:
            past = jax.tree.map(lambda x, old: jnp.concatenate([x[None], old[:-1]]), tree, self.before[message])
        self.sent[message] = past
        if hasattr(self.base, "only"):  # placed on devices: the links of each delay carry their message, each once
            parts = [
                self.base.only(self.delays == late)(jax.tree.map(lambda old, late=late: old[late], past), step, message)
                for late in map(int, np.unique(self.delays))
            ]
            return jax.tree.map(lambda *terms: sum(terms[1:], terms[0]), *parts)
        neighbors, weights = self.base.table_at(step, message)
        late = jnp.asarray(self.delays)[jnp.arange(self.n)[:, None], neighbors]

        def receive(x: Array, history: Array) -> Array:
            spread = weights.astype(x.dtype).reshape(weights.shape + (1,) * (x.ndim - 1))
            return jnp.sum(spread * history[late, neighbors], axis=1)

        return jax.tree.map(receive, tree, past)


def delayed(
    factory: Callable[[Mixing], optax.GradientTransformation], mix: Mixing, delays: Any
) -> optax.GradientTransformationExtraArgs:
    r"""Any method over links with delays: node i receives \sum_j W_ij m_j^{t - \tau_ij}, where m_j^t is what j sent at t.

    A delay needs memory, which a mixing does not have; so this wraps the method: its state gains the last messages.
    Before the first step the links hold what the method would send at the start with zero gradients.

    Args:
      factory: mix -> transformation, as `lambda mix: adozoo.dsgd(0.1, mix)`.
      mix: any mixing without memory.
      delays: \tau, in steps: one number for all links, or [n, n] integers with delays[i, j] for the link from j to i.
        A node's own value is never late.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: for negative or non-integer delays, or a shape that does not fit.

    Example:
      >>> tx = adozoo.channel.delayed(
      ...     lambda mix: adozoo.dsgd(0.1, mix), adozoo.exact_mean(2), 1
      ... )
      >>> x = jnp.array([[0.0], [2.0]])
      >>> params, _, _ = adozoo.simulate(tx, lambda x, step, key: 0 * x, x, steps=1)
      >>> params.ravel()  # the first message is the initial params, as without delay
      Array([1., 1.], dtype=float64)
    """
    table = np.asarray(delays)
    if not np.issubdtype(table.dtype, np.integer) or table.min() < 0 or table.shape not in ((), (mix.n, mix.n)):
        raise ValueError(
            f"delayed: delays must be integers >= 0, one or [{mix.n}, {mix.n}], got {table.dtype} of shape {table.shape}."
        )
    if mix.local_rows != mix.n and not hasattr(mix, "only"):
        raise ValueError(
            f"delayed: messages of a placed {type(mix).__name__} cannot be delayed. Pass the mixing below, and let the "
            "factory add what is around it."
        )
    table = np.broadcast_to(table, (mix.n, mix.n)).copy()
    np.fill_diagonal(table, 0)
    longest = int(table.max())

    def run(sent: Any, inner: PyTree, grads: PyTree, params: PyTree, extra: dict[str, Any]) -> Any:
        memory = _Memory(mix, table, longest, sent)
        updates, inner = optax.with_extra_args_support(factory(memory)).update(grads, inner, params, **extra)
        return updates, DelayedState(inner, tuple(memory.sent[k] for k in sorted(memory.sent)))

    def init(params: PyTree) -> DelayedState:
        inner = factory(mix).init(params)
        _, first = run(None, inner, jax.tree.map(jnp.zeros_like, params), params, {})
        return DelayedState(inner, first.sent)

    def update(grads: PyTree, state: DelayedState, params: PyTree | None = None, **extra: Any) -> Any:
        return run(state.sent, state.inner, grads, params, extra)

    return transformation(init, update)


@register_eval_params(DelayedState)
def _(state: DelayedState, params: PyTree) -> PyTree:
    return _eval_params(state.inner, params)
