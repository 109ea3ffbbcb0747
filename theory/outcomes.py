r"""What a random mixing can be in one step, with probabilities: random schedules and losses, enumerated exactly.

The messages of one step travel over one drawn graph (`adozoo.schedules`), but are lost independently of each other
(`adozoo.channel`), so that an outcome holds one matrix for each message of the step.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from adozoo import schedules
from adozoo.channel import Lossy, Noisy, _RandomLosses, recorded_drops
from adozoo.mixing import Dense, Mixing
from adozoo.schedules import GossipEvery, Random

MOST_OUTCOMES = 4096
"""Random mixings with more outcomes than this in a step are refused."""


class Outcomes(NamedTuple):
    """The matrices that a random mixing draws from in one step: [K] probabilities, [K, m, n, n] for m messages."""

    probabilities: Float[np.ndarray, " K"]
    matrices: Float[np.ndarray, "K m n n"]

    @property
    def mean(self) -> Float[np.ndarray, "m n n"]:
        """The expected matrix of each message."""
        return np.einsum("k,kmij->mij", self.probabilities, self.matrices)


def enumerate_outcomes(mix: Mixing, step: int = 0, messages: int = 1) -> Outcomes:
    """Everything that a mixing can be in one step, and how likely that is.

    Known are `random_edge`, `random_matching`, `random_subgraph`, `channel.drops` and `channel.link_failures`, around
    each other, under `gossip_every`, and fixed or periodic mixings, which have one outcome in each step.

    Args:
      mix: the mixing.
      step: the step.
      messages: how many messages a method sends in a step.

    Returns:
      Probabilities [K] and matrices [K, messages, n, n]; equal outcomes are merged.

    Raises:
      ValueError: if there are more than `MOST_OUTCOMES`, or the mixing has no finite set of them (noise).

    Example:
      >>> pairs = adozoo.random_edge(adozoo.graphs.path(3), jax.random.key(0))
      >>> found = theory.enumerate_outcomes(pairs)
      >>> found.probabilities, found.mean[0].round(6).tolist()[0]
      (array([0.5, 0.5]), [0.75, 0.25, 0.0])
    """
    probabilities, matrices = zip(*_enumerate(mix, step, messages), strict=True)
    return merged(np.array(probabilities), np.stack(matrices))


def distribution_period(mix: Mixing) -> int | None:
    """After how many steps the distribution of a mixing repeats; None where it is not known.

    Example:
      >>> key = jax.random.key(0)
      >>> pairs = adozoo.random_edge(adozoo.graphs.path(3), key)
      >>> theory.outcomes.distribution_period(adozoo.gossip_every(pairs, 4))
      4
    """
    if isinstance(mix, Random):
        return 1
    below = distribution_period(mix.base) if hasattr(mix, "base") else None
    if isinstance(mix, Lossy):
        recorded = getattr(mix.arrived, "kept", getattr(mix.arrived, "up", None))
        own = 1 if recorded is None else int(recorded.shape[0])
        return None if below is None else int(np.lcm(own, below))
    if isinstance(mix, GossipEvery):
        return None if below is None else int(np.lcm(mix.every, below))
    return getattr(mix, "period", None) if mix.varying else 1


def merged(probabilities: Float[np.ndarray, " K"], matrices: Float[np.ndarray, "K m n n"]) -> Outcomes:
    """Outcomes with equal matrices as one.

    Example:
      >>> theory.outcomes.merged(
      ...     np.array([0.3, 0.7]), np.ones((2, 1, 1, 1))
      ... ).probabilities
      array([1.])
    """
    kinds, places = np.unique(matrices.reshape(len(matrices), -1).round(12), axis=0, return_inverse=True)
    first = np.array([np.argmax(places == kind) for kind in range(len(kinds))])
    return Outcomes(np.bincount(places.ravel(), weights=probabilities), matrices[first])


def message_count(factory: Callable[[Mixing], optax.GradientTransformation], mix: Mixing, params: PyTree) -> int:
    """How many messages a method sends in a step, by watching it; nothing is computed.

    Example:
      >>> theory.outcomes.message_count(
      ...     lambda mix: adozoo.gradient_tracking(0.1, mix),
      ...     adozoo.exact_mean(2),
      ...     jnp.zeros((2, 1)),
      ... )
      2
    """
    sent = {0}

    @dataclass(frozen=True)
    class Watch(Mixing):
        n: int = mix.n
        stochastic: str = mix.stochastic
        symmetric: bool = mix.symmetric
        varying = True
        is_mean = mix.is_mean
        stands_for = mix

        def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
            sent.add(message)
            return tree

    def one_step(x: PyTree) -> PyTree:
        tx = optax.with_extra_args_support(factory(Watch()))
        return tx.update(x, tx.init(x), x)

    jax.eval_shape(one_step, params)
    return max(sent) + 1


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["drawn"],
    meta_fields=["n", "stochastic", "symmetric", "is_mean"],
)
@dataclass(frozen=True, eq=False)
class Drawn(Mixing):
    """One outcome, or the mean of all: the matrices of each step and message, [p, m, n, n], perhaps traced."""

    drawn: Float[Array, "p m n n"] | Float[np.ndarray, "p m n n"]
    n: int
    stochastic: str = "doubly"
    symmetric: bool = True
    is_mean: bool = False  # type: ignore[override]
    varying = True

    def at(self, step: Any, message: int = 0) -> Dense:
        matrices = jnp.asarray(self.drawn)
        matrix = matrices[jnp.mod(step, matrices.shape[0]), min(message, matrices.shape[1] - 1)]
        return Dense(matrix, self.n, self.stochastic, self.symmetric)


def _enumerate(mix: Mixing, step: int, messages: int) -> Iterator[tuple[float, np.ndarray]]:
    """(probability, matrices [m, n, n]) of each outcome, in any order, perhaps several times."""
    if isinstance(mix, GossipEvery):
        if step % mix.every == mix.every - 1:
            yield from _enumerate(mix.base, step, messages)
        else:
            yield 1.0, np.broadcast_to(np.eye(mix.n), (messages, mix.n, mix.n))
    elif isinstance(mix, Random):
        for probability, matrix in _graphs(mix):
            yield probability, np.broadcast_to(matrix, (messages, mix.n, mix.n))
    elif isinstance(mix, Lossy) and isinstance(mix.arrived, _RandomLosses):
        for probability, below in _enumerate(mix.base, step, messages):
            choices = [_losses(mix, matrix) for matrix in below]
            _check_count(int(np.prod([len(choice) for choice in choices])), mix)
            for choice in itertools.product(*choices):
                chances, matrices = zip(*choice, strict=True)
                yield probability * float(np.prod(chances)), np.stack(matrices)
    elif isinstance(mix, Lossy):
        for probability, below in _enumerate(mix.base, step, messages):
            fixed = [replace(mix, base=_dense(mix, matrix)).at(step, k).matrix for k, matrix in enumerate(below)]
            yield probability, np.stack(fixed)
    elif not isinstance(mix, Noisy) and (not mix.varying or getattr(mix, "period", None) is not None):
        yield 1.0, np.stack([np.asarray(mix.at(step, k).matrix, np.float64) for k in range(messages)])
    else:
        raise ValueError(
            f"enumerate_outcomes: a {type(mix).__name__} has no finite set of outcomes that is known. Pass them as "
            "[(probability, mixing), ...], or simulate many runs."
        )


def _check_count(count: float, mix: Mixing) -> None:
    if count > MOST_OUTCOMES:
        raise ValueError(
            f"enumerate_outcomes: this {type(mix).__name__} over n = {mix.n} nodes has {count:.3g} outcomes in a step, "
            f"more than {MOST_OUTCOMES}. Use a smaller graph, pass a sample as [(probability, mixing), ...], or "
            "simulate many runs."
        )


def _dense(mix: Mixing, matrix: np.ndarray) -> Dense:
    return Dense(matrix, mix.n, mix.stochastic, mix.symmetric)


def _losses(mix: Lossy, matrix: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """What losing some of the messages of one matrix does to it, by the channel's own rule."""
    senders = (matrix != 0) & ~np.eye(mix.n, dtype=bool)
    links = np.argwhere(np.triu(senders | senders.T) if mix.arrived.both_ways else senders)
    _check_count(2.0 ** len(links), mix)
    arrives = (np.arange(2 ** len(links))[:, None] >> np.arange(len(links)) & 1).astype(bool)
    kept = np.ones((len(arrives), mix.n, mix.n), bool)
    kept[:, links[:, 0], links[:, 1]] = arrives
    if mix.arrived.both_ways:
        kept[:, links[:, 1], links[:, 0]] = arrives

    def lose(mask: Array) -> Array:
        return recorded_drops(_dense(mix, matrix), mask[None], mix.lost).at(0).matrix

    lost = float(mix.arrived.probability)
    count = arrives.sum(1)
    chances = lost ** (len(links) - count) * (1 - lost) ** count
    return list(zip(chances.tolist(), np.asarray(jax.vmap(lose)(jnp.asarray(kept))), strict=True))


def _graphs(mix: Random) -> Iterator[tuple[float, np.ndarray]]:
    """The matrices of a random schedule."""
    table = {
        schedules._draw_edge: _one_edge,
        schedules._draw_matching: _matchings,
        schedules._draw_subgraph: _subgraphs,
    }
    if mix.draw not in table:
        raise ValueError(
            "enumerate_outcomes: this random schedule's distribution is not known. Pass its outcomes as "
            "[(probability, mixing), ...]."
        )
    neighbors, numbers = np.asarray(mix.neighbors), np.asarray(mix.edges)
    receivers = np.broadcast_to(np.arange(mix.n)[:, None], neighbors.shape)
    used = (numbers < numbers.max()) & (receivers < neighbors)
    edges = np.stack([receivers[used], neighbors[used]], axis=1)
    for probability, chosen in table[mix.draw](edges, mix):
        yield probability, _weights(edges[list(chosen)], mix)


def _weights(chosen: np.ndarray, mix: Random) -> np.ndarray:
    """Metropolis weights on the chosen edges of a subgraph; pairs of a matching average."""
    ends = chosen.T
    matrix = np.zeros((mix.n, mix.n))
    if chosen.size:
        degrees = np.bincount(chosen.ravel(), minlength=mix.n)
        matrix[ends[0], ends[1]] = matrix[ends[1], ends[0]] = 1 / (1 + np.maximum(*degrees[ends]))
    return matrix + np.diag(1 - matrix.sum(1))


def _one_edge(edges: np.ndarray, mix: Random) -> Iterator[tuple[float, tuple[int, ...]]]:
    _check_count(len(edges), mix)
    yield from ((1 / len(edges), (edge,)) for edge in range(len(edges)))


def _subgraphs(edges: np.ndarray, mix: Random) -> Iterator[tuple[float, tuple[int, ...]]]:
    _check_count(2.0 ** len(edges), mix)
    for size in range(len(edges) + 1):
        chance = mix.probability**size * (1 - mix.probability) ** (len(edges) - size)
        yield from ((chance, chosen) for chosen in itertools.combinations(range(len(edges)), size))


def _matchings(edges: np.ndarray, mix: Random) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Greedy in a uniformly random order: the next edge is uniform among those with two free ends.

    So the distribution over partial matchings is carried on, edge by edge, until no edge is left.
    """
    partial_matchings: dict[frozenset[int], float] = {frozenset(): 1.0}
    while partial_matchings:
        longer: dict[frozenset[int], float] = {}
        for matching, probability in partial_matchings.items():
            taken = edges[list(matching)].ravel()
            free = np.flatnonzero(~np.isin(edges, taken).any(axis=1))
            if not free.size:
                yield probability, tuple(matching)
            for edge in free.tolist():
                key = matching | {edge}
                longer[key] = longer.get(key, 0.0) + probability / free.size
        _check_count(len(longer), mix)
        partial_matchings = longer
