r"""Churn: nodes leave and return, while a registered method runs on those that are there.

    presence(n, steps, away)              who is there at which step: a two-state Markov chain a node
    mixing(graph, presence)               those who are there gossip over the graph that they span; W_ii = 1 for others
    absent_stand_still(tx, presence)      what an absent node has (params, trackers, momentum) waits for its return
    method(entry, learning_rate, mix)     both together, for any entry of the registry that admits varying mixings

W_t is symmetric and doubly stochastic at every step, and acts as the identity on those who are away. So what a method
conserves by communication alone it conserves through departures and returns: the mean of params, the sum of push-sum's
numerators, and that of trackers of gradients, which equals the sum of all nodes' last gradients, those of absent nodes
included. Where params are also moved by something that sums to zero over all nodes, an integral of disagreement (SVL)
or a momentum of averages (quasi-global momentum), their mean is not kept: over those who are there it does not sum to
zero. A node that returns has its old params: it has to catch up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
from jaxtyping import Array, Bool, Int, PyTree

import adozoo
from adozoo import channel
from adozoo._optax import increment, transformation, zero_count
from adozoo.mixing import Mixing, Table
from adozoo.nodes import eval_params, register_eval_params
from adozoo.schedules import Varying
from adozoo.zoo import Entry

WEIGHTS = ("metropolis", "max_degree", "lazy", "lazy_metropolis", "lazy_max_degree")
LEAST = 2
"""Nodes that are always there."""


def presence(n: int, steps: int, away: float, seed: int = 0, absence: float = 50.0) -> Bool[np.ndarray, "steps n"]:
    r"""Who is there at which step: each node leaves and returns by itself, as a two-state Markov chain.

    P(return) = r = 1 / `absence` and P(leave) = r a / (1 - a), so that in the long run a node is away for a share a of
    the steps, for `absence` steps on average. All are there at step 0. Where fewer than two would be left, those who
    are nearest to staying stay.

    Args:
      n: nodes, at least two.
      steps: how many steps.
      away: a, in [0, 1), with P(leave) at most 1.
      seed: of the chains.
      absence: mean number of steps of an absence, at least 1.

    Returns:
      True where a node is there.

    Raises:
      ValueError: for numbers out of range.

    Example:
      >>> present = presence(16, 4000, away=0.25, seed=1)
      >>> bool(present[0].all()), bool(abs(present.mean() - 0.75) < 0.05)
      (True, True)
    """
    for name, value, least in (("n", n, LEAST), ("steps", steps, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"presence: {name} must be an integer of at least {least}, got {value!r}.")
    if not 0 <= away < 1:
        raise ValueError(f"presence: away must be a share of time in [0, 1), got {away!r}. Pass 0.1, say.")
    if not 1 <= absence < np.inf or away / (1 - away) > absence:
        raise ValueError(
            f"presence: absence must be a mean number of steps, finite, at least 1 and at least away / (1 - away) = "
            f"{away / (1 - away):g} (or nodes would have to leave before they are back), got {absence!r}. Raise it."
        )
    returns = 1 / absence
    leaves = returns * away / (1 - away)
    coins = np.random.default_rng(seed).random((steps, n))
    there = np.ones((steps, n), bool)
    for step in range(1, steps):
        margin = coins[step] - np.where(there[step - 1], leaves, 1 - returns)
        there[step] = margin >= 0
        if there[step].sum() < LEAST:
            there[step, np.argsort(-margin)[:LEAST]] = True
    return there


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["neighbors", "linked", "present", "sent"],
    meta_fields=["n", "weights"],
)
@dataclass(frozen=True, eq=False)
class Present(Varying):
    """Gossip among those who are there; weights are made of the graph that they span, anew at each step.

    Attributes:
      neighbors: the graph's table [n, k], oneself first.
      linked: [n, k - 1], False for padding.
      present: [period, n].
      sent: [period], directed messages of each step.
      n: the number of nodes.
      weights: one of `WEIGHTS`.
    """

    neighbors: Int[np.ndarray, "n k"] | Int[Array, "n k"]
    linked: Bool[np.ndarray, "n m"] | Bool[Array, "n m"]
    present: Bool[np.ndarray, "period n"] | Bool[Array, "period n"]
    sent: Int[np.ndarray, " period"] | Int[Array, " period"]
    n: int
    weights: str
    stochastic = "doubly"
    symmetric = True

    @property
    def period(self) -> int:
        """How many steps there are, before all begins again."""
        return len(self.sent)

    def at(self, step: Any, message: int = 0) -> Table:
        here = jnp.asarray(self.present)[jnp.mod(step, self.period)]
        neighbors = jnp.asarray(self.neighbors)
        others = neighbors[:, 1:]
        active = jnp.asarray(self.linked) & here[:, None] & here[others]
        degree = active.sum(axis=1)
        if self.weights.endswith("max_degree"):
            largest = jnp.full(others.shape, degree.max())
        else:
            largest = jnp.maximum(degree[:, None], degree[others])
        received = active / (1.0 + largest) / (2 if self.weights.startswith("lazy") else 1)
        own = 1 - received.sum(axis=1, keepdims=True)
        return Table(neighbors, jnp.concatenate([own, received], axis=1), self.n)

    def links(self, step: Any = 0) -> Any:
        if isinstance(step, int | np.integer):
            return int(self.sent[step % self.period])
        return jnp.asarray(self.sent)[jnp.mod(step, self.period)]


def mixing(graph: nx.Graph, presence: Any, weights: str = "metropolis") -> Present:
    r"""Gossip over the graph that those who are there span: W_ij = 1 / (1 + max(d_i, d_j)), d_i counting neighbours
    that are there; with "max_degree" the largest of all d_i; "lazy..." (I + W) / 2.

    A node that is away, or whose neighbours all are, has W_ii = 1: it keeps what it has. Nothing but `presence` is
    stored, so that thousands of steps cost as little as one.

    Args:
      graph: undirected, on nodes 0..n-1.
      presence: booleans [period, n].
      weights: one of `WEIGHTS`; a bare "lazy" is "lazy_metropolis".

    Raises:
      ValueError: for a directed graph, presence of another shape, or weights that are not made of degrees.

    Example:
      >>> mix = mixing(adozoo.graphs.ring(4), [[True, True, True, False]])
      >>> mix(jnp.array([0.0, 3.0, 6.0, 9.0])).round(6)  # a path of three, and one away
      Array([1., 3., 5., 9.], dtype=float64)
    """
    if weights not in WEIGHTS:
        raise ValueError(
            f"churn: weights must be one of {', '.join(WEIGHTS)}, got {weights!r}: others are optimised for one graph. "
            "Use metropolis."
        )
    if not isinstance(graph, nx.Graph) or graph.is_directed():
        raise ValueError(f"churn: graph must be an undirected networkx graph, got {type(graph).__name__}.")
    table, _ = adozoo.mixing(graph, method="table").table()
    neighbors = np.asarray(table)
    n = len(neighbors)
    there = np.asarray(presence, bool)
    if there.ndim != 2 or there.shape[1] != n or not len(there):
        raise ValueError(f"churn: presence must be booleans [period, {n}], got shape {there.shape}.")
    linked = neighbors[:, 1:] != np.arange(n)[:, None]
    own, place = np.nonzero(linked)
    other = neighbors[own, 1 + place]
    sent = np.array([np.count_nonzero(here[own] & here[other]) for here in there])
    return Present(neighbors, linked, there, sent, n, weights)


class StandStill(NamedTuple):
    """The step's number, and what the method below keeps."""

    count: Int[Array, ""]
    inner: PyTree


@register_eval_params(StandStill)
def _answer(state: StandStill, params: PyTree) -> PyTree:
    return eval_params(state.inner, params)


def absent_stand_still(tx: optax.GradientTransformation, presence: Any) -> optax.GradientTransformationExtraArgs:
    """Let nothing of a node move while it is away: its gradient is zero, its params and its rows of the state stay.

    Rows of the state are those leaves whose leading axis has n rows; counts of steps, and random keys, run on.

    Args:
      tx: a method over stacked params, built with `mixing(graph, presence)`.
      presence: booleans [period, n], as the mixing has them.

    Example:
      >>> here = np.array([[True, True, False], [True, True, True]])
      >>> mix = mixing(adozoo.graphs.complete(3), here)
      >>> tx = absent_stand_still(adozoo.dsgd(0.5, mix), here)
      >>> x = jnp.array([[0.0], [2.0], [7.0]])
      >>> path = [
      ...     adozoo.simulate(tx, lambda x, step, key: 0 * x, x, steps)[0]
      ...     for steps in (1, 2)
      ... ]
      >>> [params.ravel().round(6).tolist() for params in path]
      [[1.0, 1.0, 7.0], [3.0, 3.0, 3.0]]
    """
    tx = optax.with_extra_args_support(tx)
    there = np.asarray(presence, bool)

    def keep(here: Array, new: PyTree, old: PyTree) -> PyTree:
        def one(a: Any, b: Any) -> Any:
            rows = jnp.ndim(a) and jnp.shape(a)[0] == len(here)
            if not rows or jnp.issubdtype(jnp.asarray(a).dtype, jax.dtypes.prng_key):
                return a
            return jnp.where(here.reshape((-1,) + (1,) * (jnp.ndim(a) - 1)), a, b)

        return jax.tree.map(one, new, old)

    def init(params: PyTree) -> StandStill:
        return StandStill(zero_count(), tx.init(params))

    def update(
        updates: PyTree, state: StandStill, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, StandStill]:
        here = jnp.asarray(there)[jnp.mod(state.count, len(there))]
        grads = keep(here, updates, jax.tree.map(jnp.zeros_like, updates))
        moves, inner = tx.update(grads, state.inner, params, **extra)
        moves = keep(here, moves, jax.tree.map(jnp.zeros_like, moves))
        return moves, StandStill(increment(state.count), keep(here, inner, state.inner))

    return transformation(init, update)


def method(
    entry: Entry, learning_rate: Any, mix: Present, **hyperparameters: Any
) -> optax.GradientTransformationExtraArgs:
    """A registered method among nodes that leave and return.

    Args:
      entry: from `adozoo.zoo`.
      learning_rate: its first argument.
      mix: `mixing(graph, presence)`.
      **hyperparameters: as `Entry.build` takes them.

    Raises:
      ValueError: if the method's theory does not admit mixings that vary with the step.

    Example:
      >>> mix = mixing(adozoo.graphs.ring(4), presence(4, 9, 0.3))
      >>> tx = method(adozoo.zoo.entry("diging"), 0.1, mix)
      >>> tx.init(jnp.zeros((4, 2))).count
      Array(0, dtype=int32)
    """
    if not _leaves_and_returns(entry):
        raise ValueError(
            f"churn: {entry.name} does not admit mixings that vary with the step, one graph a step (it admits "
            f"{', '.join(sorted(entry.mixings))}), so no node may leave. Use one that does: {', '.join(takes_churn())}."
        )
    return absent_stand_still(entry.build(learning_rate, mix, **hyperparameters), mix.present)


def takes_churn() -> Sequence[str]:
    """The registered methods whose nodes may leave and return.

    Example:
      >>> "dsgd_atc" in takes_churn(), "extra" in takes_churn()
      (True, False)
    """
    return [name for name, entry in adozoo.zoo.entries().items() if _leaves_and_returns(entry)]


def _leaves_and_returns(entry: Entry) -> bool:
    """Whether it admits a new graph at each step, and takes one a step: with several rounds it asks for several."""
    return "varying" in entry.mixings and "rounds" not in entry.hyperparameters


def takes_drops(entry: Entry, mix: Mixing) -> bool:
    """Whether a method can be built over `adozoo.channel.drops(mix, ...)`: whether its messages may get lost.

    Exact averages cannot lose messages, and events have none to lose; other methods say so when they are built.

    Args:
      entry: from `adozoo.zoo`.
      mix: a mixing that the method admits.

    Example:
      >>> ring = adozoo.mixing(adozoo.graphs.ring(4))
      >>> takes_drops(adozoo.zoo.entry("dsgd_atc"), ring)
      True
      >>> takes_drops(adozoo.zoo.entry("all_reduce_sgd"), adozoo.exact_mean(4))
      False
    """
    if entry.mixings & {"events", "paired events"} or not entry.admits(mix):
        return False
    try:
        entry.build(0.1, channel.drops(mix, 0.1, jax.random.key(0)))
    except ValueError:
        return False
    return True
