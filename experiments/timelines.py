r"""When what happens on a simulated cluster: a `Timeline`, and those of synchronous methods.

    all_reduce   DDP, and local SGD with a period: the average waits for the slowest
    gossip       synchronous gossip: a node waits for its neighbours only

`experiments.asynchronous` has the others.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float, Int

from adozoo.graphs import canonical
from experiments.clusters import Cluster

COMPUTE, EXCHANGE, WAIT = range(3)
GRADIENT_EVENT, EXCHANGE_EVENT = 0, 1


@dataclass(frozen=True, eq=False)
class Timeline:
    """What the nodes of a cluster do from time 0 to `horizon`, in seconds.

    Attributes:
      n: nodes.
      horizon: end of the record. Intervals may reach beyond it: what is under way then.
      node, start, end, what: the intervals; `what` is COMPUTE, EXCHANGE or WAIT.
      threads: 1 where a node does one thing at a time, 2 where it computes (or waits to) and exchanges at once.
      ends: when each step ends on each node (synchronous methods; no rows otherwise).
      events: rows (kind, time, i, j), ordered in time, as `adozoo.events.recorded` reads them: a gradient (kind 0) and
        an exchange (kind 1) take effect when they end. No rows for synchronous methods.
    """

    n: int
    horizon: float
    node: Int[np.ndarray, " intervals"]
    start: Float[np.ndarray, " intervals"]
    end: Float[np.ndarray, " intervals"]
    what: Int[np.ndarray, " intervals"]
    threads: int
    ends: Float[np.ndarray, "steps n"]
    events: Float[np.ndarray, "events 4"]

    def _done(self, what: int) -> Bool[np.ndarray, " intervals"]:
        return (self.what == what) & (self.end <= self.horizon)

    @property
    def gradients(self) -> Int[np.ndarray, " n"]:
        """How many gradients each node has finished by the horizon."""
        return np.bincount(self.node[self._done(COMPUTE)], minlength=self.n)

    @property
    def exchanges(self) -> Int[np.ndarray, " n"]:
        """How many exchanges each node has finished by the horizon; an all-reduce or a round of gossip counts once."""
        return np.bincount(self.node[self._done(EXCHANGE)], minlength=self.n)

    @property
    def idle(self) -> Float[np.ndarray, " n"]:
        """The share of the time up to the horizon in which each node computes nothing."""
        mine = self.what == COMPUTE
        spans = np.minimum(self.end, self.horizon) - np.minimum(self.start, self.horizon)
        return 1 - np.bincount(self.node[mine], spans[mine], minlength=self.n) / self.horizon

    @property
    def lags(self) -> Int[np.ndarray, " events"]:
        """Staleness: how many exchanges of its own node each gradient missed since it was begun; 0 for exchanges."""
        kinds, times, first, second = self.events.T
        found = np.zeros(len(self.events), np.int64)
        for node in range(self.n):
            mine = np.flatnonzero((kinds == GRADIENT_EVENT) & (first == node))
            met = times[(kinds == EXCHANGE_EVENT) & ((first == node) | (second == node))]
            begun = np.sort(self.start[(self.node == node) & (self.what == COMPUTE)])[: len(mine)]
            missed = np.searchsorted(met, times[mine]) - np.searchsorted(met, begun, side="right")
            found[mine] = np.maximum(missed, 0)  # of a gradient that takes no time, neither before nor after
        return found

    def until(self, horizon: float) -> "Timeline":
        """The same record, cut at an earlier horizon."""
        if not 0 < horizon <= self.horizon:
            raise ValueError(f"until: horizon must lie in (0, {self.horizon:g}], got {horizon!r}. Simulate for longer.")
        kept = self.start < horizon
        intervals = {name: getattr(self, name)[kept] for name in ("node", "start", "end", "what")}
        ends, events = self.ends[(self.ends <= horizon).all(axis=1)], self.events[self.events[:, 1] <= horizon]
        return replace(self, horizon=horizon, ends=ends, events=events, **intervals)

    def link_rates(self) -> nx.Graph:
        """The exchanges that links had, a second, as the edge attribute `weight`; links without any are absent."""
        graph = nx.empty_graph(self.n)
        for kind, _, i, j in self.events:
            if kind == EXCHANGE_EVENT:
                rate = graph.get_edge_data(int(i), int(j), {"weight": 0.0})["weight"]
                graph.add_edge(int(i), int(j), weight=rate + 1 / self.horizon)
        return graph


class Log:
    """Intervals and events, as they are found, in any order."""

    def __init__(self) -> None:
        self.intervals: list[tuple[int, float, float, int]] = []
        self.events: list[tuple[int, float, int, int]] = []

    def add(self, nodes: Any, starts: Any, ends: Any, what: int) -> None:
        """Enter intervals, one or many; waits without duration are left out."""
        columns = np.broadcast_arrays(nodes, starts, ends)
        found = zip(*(column.ravel().tolist() for column in columns), strict=True)
        self.intervals += [(node, start, end, what) for node, start, end in found if what != WAIT or end > start]

    def timeline(self, n: int, horizon: float, threads: int, ends: Any = None) -> Timeline:
        """All that was begun by the horizon, in order of time."""
        kept = sorted((row for row in self.intervals if row[1] < horizon), key=lambda row: (row[1], row[0], row[3]))
        node, start, end, what = (np.array(column) for column in zip(*kept, strict=True))
        rows = sorted((row for row in self.events if row[1] <= horizon), key=lambda row: row[1])
        events = np.array(rows, np.float64).reshape(-1, 4)
        ends = np.empty((0, n)) if ends is None else ends
        return Timeline(n, float(horizon), node, start, end, what, threads, ends, events)


def _check_steps(name: str, **values: Any) -> None:
    for argument, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: {argument} must be a positive integer, got {value!r}. Pass 1 or more.")


def check_horizon(name: str, horizon: Any) -> None:
    """Raise ValueError unless the horizon is a positive, finite time."""
    if not (isinstance(horizon, int | float) and 0 < horizon < math.inf):
        raise ValueError(f"{name}: horizon must be a positive, finite number of seconds, got {horizon!r}.")


def adjacency(name: str, cluster: Cluster, graph: nx.Graph) -> Bool[np.ndarray, "n n"]:
    """Which nodes of the cluster are neighbours, [n, n]."""
    if graph.number_of_nodes() != cluster.n or graph.is_directed():
        raise ValueError(
            f"{name}: graph must be undirected and have the cluster's {cluster.n} nodes, got "
            f"{'a directed' if graph.is_directed() else 'an undirected'} one of {graph.number_of_nodes()}. Pass one of "
            "adozoo.graphs."
        )
    matrix = np.zeros((cluster.n, cluster.n), bool)
    for i, j in canonical(graph).edges:
        matrix[i, j] = matrix[j, i] = i != j
    return matrix


def all_reduce(cluster: Cluster, steps: int, period: int = 1, seed: int = 0) -> Timeline:
    r"""Steps with an exact average after each `period`-th one: DDP for 1, local SGD for more.

    The average is a ring all-reduce, 2 (n - 1) rounds in which every node passes 1/n of the vector on. Node i is ready
    for the next round as soon as it has sent and received: t_i <- max(t_i + l_{i,i+1}, t_{i-1} + l_{i-1,i}). With
    constant times it ends, on all nodes, 2 (n - 1) (latency + message_bytes / (n bandwidth)) seconds after the slowest
    gradient.

    Args:
      cluster: the cluster; the ring goes through its nodes in order.
      steps: gradients of each node.
      period: H, steps from one average to the next.
      seed: of the durations.

    Returns:
      The timeline, with `ends`; EXCHANGE is the time of an average after the slowest node's gradient.

    Example:
      >>> from experiments.clusters import Cluster, constant
      >>> cluster = Cluster(4, constant(1.0), constant(0.1)).with_straggler(0, 3.0)
      >>> all_reduce(cluster, steps=2).ends.max(axis=1).round(6).tolist()
      [3.6, 7.2]
    """
    _check_steps("all_reduce", steps=steps, period=period)
    n, log = cluster.n, Log()
    times, nodes = cluster.gradient_seconds(steps, seed), np.arange(n)
    rounds, averages = 2 * (n - 1), steps // period
    messages = np.zeros((averages * rounds, n))
    for i in range(n) if rounds else ():
        messages[:, i] = cluster.message_seconds(i, (i + 1) % n, averages * rounds, seed, share=1 / n)
    messages = messages.reshape(averages, rounds, n)
    now, ends = np.zeros(n), np.empty((steps, n))
    for step in range(steps):
        ready = now + times[step]
        log.add(nodes, now, ready, COMPUTE)
        now = ready
        if (step + 1) % period == 0:
            for message in messages[step // period]:
                sent = now + message
                now = np.maximum(sent, np.roll(sent, 1))
            log.add(nodes, ready, ready.max(), WAIT)
            log.add(nodes, ready.max(), now, EXCHANGE)
        ends[step] = now
    return log.timeline(n, float(ends[-1].max()), 1, ends)


def gossip(cluster: Cluster, graph: nx.Graph, steps: int, seed: int = 0) -> Timeline:
    r"""Synchronous gossip: node i ends step k when the messages of all its neighbours have arrived.

    t_i^{k+1} = max(t_i^k + c_i^k, \max_{j ~ i} t_j^k + c_j^k + l_ji^k), with gradients c and messages l. It is linear
    in the algebra of (max, +): with constant times a step takes, in the long run, the largest mean weight of a cycle of
    the graph with arcs j -> i of weight c_j + l_ji and loops of weight c_i.

    Args:
      cluster: the cluster.
      graph: undirected, on its nodes.
      steps: gradients of each node.
      seed: of the durations.

    Returns:
      The timeline, with `ends`; EXCHANGE is a node's wait for a message that is under way.

    References:
      Baccelli, Cohen, Olsder, Quadrat, Synchronization and linearity, 1992.

    Example:
      >>> from experiments.clusters import Cluster, constant
      >>> cluster = Cluster(4, constant(1.0)).with_straggler(0, 3.0)
      >>> gossip(cluster, nx.path_graph(4), steps=3).ends.tolist()
      [[3.0, 3.0, 1.0, 1.0], [6.0, 6.0, 4.0, 2.0], [9.0, 9.0, 7.0, 5.0]]
    """
    _check_steps("gossip", steps=steps)
    n, log, links = cluster.n, Log(), adjacency("gossip", cluster, graph)
    times, nodes = cluster.gradient_seconds(steps, seed), np.arange(n)
    messages = np.full((steps, n, n), -np.inf)  # [step, to, from]
    messages[:, nodes, nodes] = 0.0
    for i, j in np.argwhere(links):
        messages[:, i, j] = cluster.message_seconds(int(j), int(i), steps, seed)
    now, ends = np.zeros(n), np.empty((steps, n))
    for step in range(steps):
        ready = now + times[step]
        arrivals = ready + messages[step]
        last = arrivals.argmax(axis=1)
        log.add(nodes, now, ready, COMPUTE)
        now = arrivals[nodes, last]
        sent = np.maximum(ready, ready[last])
        log.add(nodes, ready, sent, WAIT)
        log.add(nodes, sent, now, EXCHANGE)
        ends[step] = now
    return log.timeline(n, float(ends[-1].max()), 1, ends)
