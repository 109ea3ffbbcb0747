"""The communication object of event-driven methods; `adozoo.events` builds it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PyTree

from adozoo._event_rounds import level_tables
from adozoo._mixings import register
from adozoo.mixing import Mixing, Table
from adozoo.schedules import Random

Encounter = Callable[[PyTree, Any, Callable[[PyTree], PyTree], Any, Any], PyTree]
"""(rows of the state, time since each row's last event, others, own nodes, their partners) -> rows of the state.

`others(message)` is what the partners' messages are; a row without partner hears itself.
"""


@partial(
    register,
    data_fields=[
        "takes",
        "wait",
        "lag",
        "order",
        "meetings",
        "waited",
        "first",
        "marks",
        "times",
        "gradients",
        "communications",
        "chi_1",
        "chi_2",
        "resistances",
        "link",
    ],
    meta_fields=["n", "form", "staleness", "paired", "hear"],
)
@dataclass(frozen=True, eq=False)
class Events:
    r"""Who takes a gradient and who meets whom, in rounds; the one door of event-driven methods.

    Step k of a method takes the gradients of round k, lets pairs meet, and moves each node to the time of its gradient
    in round k + 1 (`wait`). A round without gradients in which all nodes reach one time is a *mark*: the first and the
    last round are. Steps beyond the last round do nothing.

    Attributes:
      takes: [rounds + 1, n], whose gradient counts.
      wait: [rounds + 1, n], how long nodes flow before the round, from what last happened to them.
      lag: [rounds + 1, n], how many of its own events ago a node began to compute its gradient.
      order: [rounds + 1, n], the gradient's place in the record of events; -1 where there is none.
      meetings: in form "levels" everyone's partner [levels, n], oneself if idle; in form "pairs" [meetings, 2].
      waited: as meetings: how long each flows before the meeting.
      first: [rounds + 2], where the meetings after each round begin.
      marks: [marks], the rounds that are marks.
      times: [marks], when they are.
      gradients, communications: [marks], how many gradients and meetings there were up to each mark.
      chi_1, chi_2: what `adozoo.resistance.chi` says of the rates; the largest where rates change; nan if unknown.
      n: the number of nodes.
      form: "levels" or "pairs".
      staleness: the largest lag.
      paired: whether both nodes of every meeting take a gradient at its time.
      resistances: for paired events, the effective resistance [n, n] of each link; zero elsewhere.
    """

    takes: Any
    wait: Any
    lag: Any
    order: Any
    meetings: Any
    waited: Any
    first: Any
    marks: Any
    times: Any
    gradients: Any
    communications: Any
    chi_1: Any
    chi_2: Any
    n: int
    form: str
    staleness: int = 0
    paired: bool = False
    resistances: Any = None
    link: Any = None
    hear: Any = None

    varying = True
    is_mean = False
    symmetric = True
    stochastic = "doubly"

    @property
    def rounds(self) -> int:
        """How many rounds there are, padding included."""
        return np.shape(self.takes)[-2] - 1

    @property
    def local_rows(self) -> int:
        """Rows of a leaf at the place where the events are used; n unless inside `shard_map` or `pmap`."""
        return self.n if self.link is None else self.link.local_rows

    def row(self, table: Any, round_: Any) -> Array:
        """A round's row of `takes`, `wait`, `lag` or `order`, of the nodes that live here."""
        row = jnp.asarray(table)[jnp.minimum(round_, self.rounds)]
        return row if self.local_rows == self.n else row[self.link.own_nodes]

    def meet(self, round_: Any, state: PyTree, encounter: Encounter) -> PyTree:
        """Let pairs meet, level after level, between round `round_` and the next one.

        Args:
          round_: the step's number.
          state: what the nodes have, leaves [n, ...].
          encounter: what happens to rows of it, see `Encounter`.
        """
        self.check(state)
        if self.hear is not None:
            everyone = jnp.arange(self.n)
            return encounter(state, jnp.zeros(self.n), self.hear, everyone, everyone)
        if not len(self.meetings):  # there is no row that a loop's body could be traced with
            return state
        first = jnp.asarray(self.first)
        here = jnp.minimum(round_, self.rounds)
        step = self._level if self.form == "levels" else self._pair
        return lax.fori_loop(first[here], first[here + 1], partial(step, encounter), state)

    def check(self, tree: PyTree) -> None:
        """Raise ValueError unless every leaf has one row for each node that lives here."""
        for leaf in jax.tree.leaves(tree):
            if not jnp.ndim(leaf) or jnp.shape(leaf)[0] != self.local_rows:
                raise ValueError(
                    f"events of n = {self.n} nodes: every leaf needs a leading node axis of length {self.local_rows}, "
                    f"got a leaf of shape {jnp.shape(leaf)}. Use adozoo.replicate(params, {self.local_rows})."
                )

    def _level(self, encounter: Encounter, number: Array, state: PyTree) -> PyTree:
        partner, waited = jnp.asarray(self.meetings)[number], jnp.asarray(self.waited)[number]
        if self.link is None:
            own = jnp.arange(self.n)
            return encounter(state, waited, lambda tree: jax.tree.map(lambda x: x[partner], tree), own, partner)
        own = self.link.own_nodes
        if self.local_rows != self.n:
            partner, waited = partner[own], waited[own]
        return encounter(state, waited, lambda tree: self.link(tree, number), own, partner)

    def _pair(self, encounter: Encounter, number: Array, state: PyTree) -> PyTree:
        both, waited = jnp.asarray(self.meetings)[number], jnp.asarray(self.waited)[number]

        def read(x: Array) -> Array:
            return jnp.concatenate([lax.dynamic_slice_in_dim(x, both[k], 1) for k in (0, 1)])

        def write(x: Array, rows: Array) -> Array:
            for k in (0, 1):
                x = lax.dynamic_update_slice_in_dim(x, rows[k : k + 1], both[k], 0)
            return x

        def others(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda rows: rows[::-1], tree)

        return jax.tree.map(write, state, encounter(jax.tree.map(read, state), waited, others, both, both[::-1]))

    def in_levels(self) -> "Events":
        """The same events in the form "levels": many disjoint pairs at once."""
        if self.form == "levels":
            return self
        if isinstance(self.meetings, jax.core.Tracer):
            raise ValueError(
                "events: traced pairs cannot be sorted into levels. Draw the events with form='levels', or place them "
                "outside of jit."
            )
        ends, here = np.asarray(self.first), 0
        pairs, waits = (np.asarray(table)[: ends[-1]] for table in (self.meetings, self.waited))  # without padding
        busy, level, fresh = np.full(self.n, -1), np.zeros(len(pairs), np.int64), 0
        for number, (i, j) in enumerate(pairs.tolist()):  # pairs of one level follow one another
            if number >= ends[here + 1] or busy[i] == fresh or busy[j] == fresh:
                here, fresh = int(np.searchsorted(ends, number, "right")) - 1, fresh + (number > 0)
            busy[i] = busy[j] = level[number] = fresh
        partner, waited = level_tables(pairs, waits, level, self.n)
        first = np.append(level, len(partner))[ends].astype(np.int32)
        return replace(self, meetings=partner, waited=waited, first=first, form="levels")

    def mean_links(self) -> float:
        """Directed messages in a step over the whole network, on average."""
        return 2 * float(np.asarray(self.communications)[-1]) / max(1, int(np.asarray(self.marks)[-1]))

    def heard_by(self, hear: Callable[[PyTree], PyTree]) -> "Events":
        """These events for watching a method: all meet at once, and hear what `hear` makes of all messages."""
        return replace(self, hear=hear)

    def neighbors(self) -> np.ndarray:
        """Everyone's possible partners [n, k], padded with oneself; oneself first."""
        table = np.asarray(self.in_levels().meetings)
        met = np.zeros((self.n, self.n), bool)
        met[np.broadcast_to(np.arange(self.n), table.shape), table] = True
        np.fill_diagonal(met, False)
        width = int(met.sum(1).max(initial=0))
        found = np.tile(np.arange(self.n)[:, None], (1, width + 1))
        for i, others in enumerate(met):
            found[i, 1 : 1 + others.sum()] = np.flatnonzero(others)
        return found

    def partners(self) -> "Partners":
        """Levels as a mixing whose step is a level's number: what placement plans the messages by."""
        neighbors = self.neighbors()
        unused = np.zeros(neighbors.shape, np.int32)
        return Partners(neighbors, unused, jax.random.key(0), self.n, None, partner=self.meetings)


@partial(register, data_fields=["neighbors", "edges", "key", "partner"], meta_fields=["n", "draw", "probability"])
@dataclass(frozen=True, eq=False)
class Partners(Random):
    """W of level t: the permutation that swaps each pair. `neighbors` are known on the host, to plan messages by."""

    partner: Any = None

    def at(self, step: Any, message: int = 0) -> Table:
        partner = jnp.asarray(self.partner)[step]
        weights = jnp.asarray(jnp.asarray(self.neighbors) == partner[:, None], float)
        alone = jnp.arange(self.n) == partner  # whom padding repeats
        weights = jnp.where(alone[:, None], jnp.zeros_like(weights).at[:, 0].set(1), weights)
        return Table(jnp.asarray(self.neighbors), weights, self.n)


def placed_events(events: Events, spread: Callable[[Mixing], Any]) -> Events:
    """The same events for nodes that live on several devices; `spread` places a mixing."""
    if events.link is not None:
        raise ValueError("placement: the events are placed already. Pass the ones that they were made from.")
    events = events.in_levels()
    return replace(events, link=spread(events.partners()))
