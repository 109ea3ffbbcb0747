r"""Time-varying mixings: at step t the matrix is W_t, chosen by a cycle, by a count of local steps, or at random.

All are mixings, so that any method takes them. Random ones draw from a key folded with the step: the same key gives the
same graphs, on one device or many, and a `vmap` over keys runs many draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from adozoo._checks import check_number
from adozoo._mixings import register
from adozoo.mixing import Mixing, Rolls, Table, mixing


class Varying(Mixing):
    """A mixing that depends on the step. `period` is None where it never repeats (random schedules)."""

    varying = True

    if TYPE_CHECKING:

        @property
        def period(self) -> int | None: ...

    def table(self) -> tuple[Any, Any]:
        raise TypeError(f"{type(self).__name__} varies with the step: take .at(step) first.")

    @property
    def matrix(self) -> Float[Array, "n n"]:
        raise ValueError(
            f"{type(self).__name__} has no single matrix: it varies with the step. Use .at(step).matrix, or .matrices "
            "for one period."
        )

    @property
    def matrices(self) -> Float[Array, "p n n"]:
        """The matrices of one period, in the order in which they act."""
        if self.period is None:
            raise ValueError(f"{type(self).__name__} is random and has no period; use .at(step).matrix.")
        return jnp.stack([self.at(t).matrix for t in range(self.period)])


class Wrapper(Varying):
    """A mixing around another one, `base`, whose nodes and design it shares."""

    if TYPE_CHECKING:

        @property
        def base(self) -> Mixing: ...

    @property
    def n(self) -> int:
        """The number of nodes."""
        return self.base.n

    @property
    def stochastic(self) -> str:
        """What the base mixing was designed to preserve; a fault may break it for a step."""
        return self.base.stochastic

    @property
    def symmetric(self) -> bool:
        """Whether the base mixing is symmetric."""
        return self.base.symmetric

    @property
    def fixed(self) -> bool:
        return self.base.fixed

    @property
    def local_rows(self) -> int:
        return self.base.local_rows

    @property
    def own_nodes(self) -> Int[Array, " rows"]:
        return self.base.own_nodes

    @property
    def period(self) -> int | None:
        """The base's period: 1 if it is fixed, None if it is random."""
        return getattr(self.base, "period", None) if self.base.varying else 1


@partial(register, data_fields=["mixings"], meta_fields=["n", "stochastic", "symmetric", "period"])
@dataclass(frozen=True, eq=False)
class Cycle(Varying):
    """W_t = mixings[t mod p], each kept in its own fast form; one of them is chosen by a `lax.switch` at run time."""

    mixings: tuple[Mixing, ...]
    n: int
    stochastic: str
    symmetric: bool
    period: int

    @property
    def local_rows(self) -> int:
        return self.mixings[0].local_rows

    def at(self, step: Any, message: int = 0) -> Mixing:
        if isinstance(step, int | np.integer):
            return self.mixings[int(step) % self.period]
        return _Chosen(self, step)

    def table_at(self, step: Any, message: int = 0) -> tuple[Int[Array, "n k"], Float[Array, "n k"]]:
        tables = [mix.table() for mix in self.mixings]
        width = max(neighbors.shape[1] for neighbors, _ in tables)
        own = jnp.arange(self.n)[:, None]
        neighbors = [jnp.hstack([jnp.asarray(i), jnp.repeat(own, width - i.shape[1], 1)]) for i, _ in tables]
        weights = [jnp.pad(w, ((0, 0), (0, width - w.shape[1]))) for _, w in tables]
        now = jnp.mod(step, self.period)
        return jnp.stack(neighbors)[now], jnp.stack(weights)[now]


@dataclass(frozen=True)
class _Chosen(Mixing):
    """One of a cycle's mixings, known only at run time. Lives within one call; never a pytree."""

    cycle: Cycle
    step: Array

    @property
    def n(self) -> int:  # type: ignore[override]
        return self.cycle.n

    def mix_leaf(self, x: Array) -> Array:
        branches = [mix.mix_leaf for mix in self.cycle.mixings]
        return jax.lax.switch(jnp.mod(self.step, self.cycle.period), branches, x)


def cycle(mixings: Sequence[Mixing]) -> Cycle:
    """Go through fixed mixings in turn: W_t = mixings[t mod p].

    Args:
      mixings: fixed mixings over the same nodes. One step's graph need not be connected
        (`adozoo.mixing(..., require_connected=False)`).

    Raises:
      ValueError: if the list is empty, a member is itself time-varying, or the numbers of nodes differ.

    Example:
      >>> mix = adozoo.cycle([adozoo.exact_mean(2), adozoo.identity(2)])
      >>> mix(jnp.array([0.0, 2.0]), 0), mix(jnp.array([0.0, 2.0]), 1)
      (Array([1., 1.], dtype=float64), Array([0., 2.], dtype=float64))
    """
    mixings = tuple(mixings)
    if not mixings:
        raise ValueError("cycle: mixings must hold at least one mixing, got none.")
    if any(mix.varying for mix in mixings):
        raise ValueError(
            "cycle: every member must be a fixed mixing, got a time-varying one. List its members instead."
        )
    sizes = {mix.n for mix in mixings}
    if len(sizes) > 1:
        raise ValueError(f"cycle: all mixings must have the same number of nodes, got {sorted(sizes)}.")
    kinds = {mix.stochastic for mix in mixings} - {"doubly"}
    if len(kinds) > 1:
        raise ValueError("cycle: cannot alternate row-stochastic with column-stochastic mixings.")
    symmetric = all(mix.symmetric for mix in mixings)
    return Cycle(mixings, mixings[0].n, kinds.pop() if kinds else "doubly", symmetric, len(mixings))


def identity(n: int) -> Rolls:
    """Every node on its own, W = I: a step without communication.

    Example:
      >>> adozoo.identity(2)(jnp.array([0.0, 2.0]))
      Array([0., 2.], dtype=float64)
    """
    check_number("identity", "n", n, 1, closed=True)
    return Rolls(jnp.ones(1), (n,), ((0,),), n)


@partial(register, data_fields=["base"], meta_fields=["every"])
@dataclass(frozen=True, eq=False)
class GossipEvery(Wrapper):
    """A mixing used at steps t = every - 1 modulo every; the identity, and silence, at all others."""

    base: Mixing
    every: int
    fixed = False

    @property
    def period(self) -> int | None:
        """The schedule's period, if the mixing below it has one."""
        inner = super().period
        return None if inner is None else math.lcm(self.every, inner)

    def _active(self, step: Any) -> Any:
        return step % self.every == self.every - 1

    def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        base = self.base.used_in(1 / self.every)
        if isinstance(step, int) or base.remembers:
            mixed = base(tree, step, message)
            return jax.tree.map(lambda new, old: jnp.where(self._active(step), new, old), mixed, tree)
        return jax.lax.cond(self._active(step), lambda x: base(x, step, message), lambda x: x, tree)

    def at(self, step: Any, message: int = 0) -> Mixing:
        if isinstance(step, int | np.integer):
            return self.base.at(step, message) if self._active(step) else identity(self.n)
        return Table(*self.table_at(step, message), self.n, self.stochastic, self.symmetric)

    def table_at(self, step: Any, message: int = 0) -> tuple[Int[Array, "n k"], Float[Array, "n k"]]:
        neighbors, weights = self.base.table_at(step, message)
        alone = jnp.zeros_like(weights).at[:, 0].set(1)
        return neighbors, jnp.where(self._active(step), weights, alone)

    def links(self, step: Any = 0) -> Any:
        return jnp.where(self._active(step), self.base.links(step), 0)


def gossip_every(mix: Mixing, period: int) -> GossipEvery:
    """Local steps: communicate in every `period`-th step only, at steps t = period - 1 modulo period.

    Example:
      >>> mix = adozoo.gossip_every(adozoo.exact_mean(2), 3)
      >>> [float(mix(jnp.array([0.0, 2.0]), t)[0]) for t in range(3)]
      [0.0, 0.0, 1.0]
    """
    if isinstance(period, bool) or not isinstance(period, int) or period < 1:
        raise ValueError(f"gossip_every: period must be a positive integer, got {period!r}.")
    return GossipEvery(mix, period)


def one_peer_exponential(n: int) -> Cycle:
    r"""One-peer exponential graph: at step t node i averages with the node 2^{t mod d} ahead, d = \lceil\log_2 n\rceil.

    x_i <- (x_i + x_{i + 2^{t mod d}}) / 2, indices modulo n: one message a node and step. Each W_t is doubly stochastic
    but not symmetric; for n = 2^d, W_{d-1} ... W_0 = 11'/n exactly.

    Example:
      >>> mix = adozoo.one_peer_exponential(4)
      >>> mix(mix(jnp.array([4.0, 0.0, 0.0, 0.0]), 0), 1)
      Array([1., 1., 1., 1.], dtype=float64)

    References:
      Assran et al., Stochastic gradient push, 2019; Ying et al., Exponential graph is provably efficient, 2021.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 2:
        raise ValueError(f"one_peer_exponential: n must be an integer of at least 2, got {n!r}.")
    rounds = (n - 1).bit_length()
    halves = jnp.full(2, 0.5)
    return cycle([Rolls(halves, (n,), ((0,), (2**k % n,)), n, "doubly", n == 2) for k in range(rounds)])


@partial(register, data_fields=["neighbors", "edges", "key"], meta_fields=["n", "draw", "probability"])
@dataclass(frozen=True, eq=False)
class Random(Varying):
    """Weights drawn anew at each step on the edges of a base graph. Symmetric and doubly stochastic at every step.

    `neighbors` [n, k] is the base graph's table and `edges` [n, k] the undirected edge behind each entry (the number of
    edges where there is none), so that both ends of an edge see the same draw.
    """

    neighbors: Int[Array, "n k"] | Int[np.ndarray, "n k"]
    edges: Int[Array, "n k"] | Int[np.ndarray, "n k"]
    key: Array
    n: int
    draw: Any
    probability: float = 1.0
    stochastic = "doubly"
    symmetric = True
    period = None

    def at(self, step: Any, message: int = 0) -> Table:
        """All messages of one step travel over the same drawn graph."""
        return Table(self.neighbors, self.draw(self, jax.random.fold_in(self.key, step)), self.n)


def _base(name: str, graph: Any) -> tuple[Int[Array, "n k"], Int[Array, "n k"], int, int]:
    if isinstance(graph, nx.Graph) and graph.is_directed():
        raise ValueError(f"{name}: graph must be undirected, got a directed one. Pairs exchange both ways.")
    base = mixing(graph)
    with jax.ensure_compile_time_eval():  # the graph is known, even where the key is being traced
        neighbors, weights = map(np.asarray, base.table())
    if not base.symmetric:
        raise ValueError(f"{name}: the base mixing must be symmetric (an undirected graph).")
    present = weights[:, 1:] != 0
    low = np.minimum(neighbors, np.arange(base.n)[:, None])[:, 1:]
    high = np.maximum(neighbors, np.arange(base.n)[:, None])[:, 1:]
    codes, index = np.unique((low * base.n + high)[present], return_inverse=True)
    edges = np.full(neighbors.shape, len(codes))
    edges[:, 1:][present] = index
    return jnp.asarray(neighbors), jnp.asarray(edges), base.n, len(codes)


def _with_self(others: Float[Array, "n m"]) -> Float[Array, "n k"]:
    """Prepend the weight that a node keeps for itself."""
    return jnp.concatenate([1 - others.sum(axis=1, keepdims=True), others], axis=1)


def _draw_edge(mix: Random, key: Array) -> Float[Array, "n k"]:
    chosen = jax.random.randint(key, (), 0, mix.edges.max())
    return _with_self(0.5 * (mix.edges[:, 1:] == chosen))


def _draw_matching(mix: Random, key: Array) -> Float[Array, "n k"]:
    """A maximal matching, greedy in a uniformly random order of the edges, by repeatedly taking local minima."""
    order = jax.random.uniform(key, (mix.edges.size + 1,))
    priority = jnp.where(mix.edges == mix.edges.max(), jnp.inf, order[mix.edges])[:, 1:]
    neighbors = mix.neighbors[:, 1:]

    def unfinished(carry: tuple[Array, Array]) -> Array:
        return jnp.isfinite(carry[1]).any()

    def take_minima(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, left = carry
        smallest = left.min(axis=1)
        minima = jnp.isfinite(left) & (left == smallest[:, None]) & (left == smallest[neighbors])
        chosen = chosen | minima
        taken = chosen.any(axis=1)
        return chosen, jnp.where(taken[:, None] | taken[neighbors], jnp.inf, left)

    chosen, _ = jax.lax.while_loop(unfinished, take_minima, (jnp.zeros(priority.shape, bool), priority))
    return _with_self(0.5 * chosen)


def _draw_subgraph(mix: Random, key: Array) -> Float[Array, "n k"]:
    present = mix.edges[:, 1:] != mix.edges.max()
    coins = jax.random.uniform(key, (mix.edges.size + 1,)) < mix.probability
    active = present & coins[mix.edges[:, 1:]]
    degree = active.sum(axis=1)
    return _with_self(active / (1.0 + jnp.maximum(degree[:, None], degree[mix.neighbors[:, 1:]])))


def random_edge(graph: Any, key: Array) -> Random:
    """One uniformly random edge a step; its two ends average: randomised pairwise gossip.

    Args:
      graph: an undirected networkx graph (or symmetric mixing), connected.
      key: a typed JAX key; step t uses fold_in(key, t).

    Example:
      >>> mix = adozoo.random_edge(adozoo.graphs.complete(2), jax.random.key(0))
      >>> mix(jnp.array([0.0, 2.0]), 5)
      Array([1., 1.], dtype=float64)

    References:
      Boyd, Ghosh, Prabhakar, Shah, Randomized gossip algorithms, 2006.
    """
    return _random("random_edge", graph, key, _draw_edge)


def random_matching(graph: Any, key: Array) -> Random:
    """A random maximal matching a step; matched pairs average, unmatched nodes keep their value.

    Edges are taken greedily in a uniformly random order, until no edge has two free ends.

    Args:
      graph: an undirected networkx graph (or symmetric mixing), connected.
      key: a typed JAX key; step t uses fold_in(key, t).

    Example:
      >>> mix = adozoo.random_matching(adozoo.graphs.ring(4), jax.random.key(0))
      >>> sorted(mix(jnp.array([0.0, 0.0, 4.0, 4.0]), 1).tolist()) in (
      ...     [0.0, 0.0, 4.0, 4.0],
      ...     [2.0, 2.0, 2.0, 2.0],
      ... )
      True
    """
    return _random("random_matching", graph, key, _draw_matching)


def random_subgraph(graph: Any, key: Array, probability: float) -> Random:
    """Each edge of the base graph is present with `probability`, anew each step; Metropolis weights on what is present.

    Args:
      graph: an undirected networkx graph (or symmetric mixing), connected.
      key: a typed JAX key; step t uses fold_in(key, t).
      probability: in (0, 1]: the chance that an edge is present in a step.

    Example:
      >>> mix = adozoo.random_subgraph(adozoo.graphs.ring(3), jax.random.key(0), 1.0)
      >>> mix(jnp.array([0.0, 3.0, 6.0]), 0).round(6)
      Array([3., 3., 3.], dtype=float64)
    """
    if not 0 < probability <= 1:
        raise ValueError(f"random_subgraph: probability must lie in (0, 1], got {probability!r}.")
    return _random("random_subgraph", graph, key, _draw_subgraph, float(probability))


def _random(name: str, graph: Any, key: Array, draw: Any, probability: float = 1.0) -> Random:
    check_key(name, key)
    neighbors, edges, n, _ = _base(name, graph)
    return Random(neighbors, edges, key, n, draw, probability)


def check_key(name: str, key: Any) -> None:
    """Raise ValueError unless `key` is a typed JAX key."""
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise ValueError(f"{name}: key must be a typed JAX key, got {key!r:.60}. Use jax.random.key(seed).")
