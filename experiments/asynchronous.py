r"""Asynchronous methods on a simulated cluster: nobody waits for the slowest.

    race     AD-PSGD and A2CiD2: a gradient thread and a communication thread a node, neighbours meet when both can
    clocks   DADAO: links ring at the times of Poisson clocks

Both return a `Timeline` with `events`, from which `adozoo.events.recorded` makes what the methods read.
"""

import heapq
import math
from collections.abc import Iterator
from typing import Any

import networkx as nx
import numpy as np
import scipy.sparse as sp

from adozoo.resistance import rate_laplacian
from experiments.clusters import Cluster, other_rng
from experiments.timelines import (
    COMPUTE,
    EXCHANGE,
    EXCHANGE_EVENT,
    GRADIENT_EVENT,
    WAIT,
    Log,
    Timeline,
    adjacency,
    check_horizon,
)


def race(
    cluster: Cluster,
    graph: nx.Graph,
    horizon: float,
    exchanges: float = 1.0,
    patience: float = math.inf,
    poisson: bool = True,
    seed: int = 0,
) -> Timeline:
    r"""AD-PSGD and A2CiD2: on each node a gradient thread and a communication thread race.

    With each gradient that it begins a node owes Poisson(`exchanges`) exchanges more. As long as it owes any, and takes
    part in none, it is available: it meets that of its available neighbours that has waited longest, or waits itself.
    The next gradient begins at once if at most `patience` exchanges are owed, otherwise when that is the case.

    With patience 0 the two threads wait for each other after every gradient, as in the authors' code of A2CiD2. Then
    slow nodes do slow others: on a bipartite graph both sides have the same number of exchanges.

    Args:
      cluster: the cluster.
      graph: who may meet.
      horizon: seconds to simulate.
      exchanges: per gradient of a node, in expectation.
      patience: how many owed exchanges do not keep a node from its next gradient; infinite by default: gradients never
        wait.
      poisson: False for exactly `exchanges` per gradient, on average over its gradients and rounded down.
      seed: of the durations, of the Poisson numbers, and of the order of what happens at the same instant.

    Returns:
      The timeline, with `events`, of two threads a node.

    References:
      Lian, Zhang, Zhang, Liu, Asynchronous decentralized parallel stochastic gradient descent, 2018.
      Nabli, Belilovsky, Oyallon, A2CiD2: accelerating asynchronous communication in decentralized deep learning, 2023.

    Example:
      >>> from experiments.clusters import Cluster, constant
      >>> cluster = Cluster(2, constant(1.0), constant(0.25)).with_straggler(1, 3.0)
      >>> timeline = race(cluster, nx.path_graph(2), horizon=6.0, poisson=False)
      >>> timeline.gradients.tolist(), timeline.exchanges.tolist()
      ([6, 2], [2, 2])
    """
    check_horizon("race", horizon)
    for name, value in (("exchanges", exchanges), ("patience", patience)):
        if not (isinstance(value, int | float) and value >= 0) or (name == "exchanges" and math.isinf(value)):
            raise ValueError(
                f"race: {name} must be a number >= 0, got {value!r}. Pass exchanges=1.0, patience=math.inf."
            )
    run = _Race(cluster, adjacency("race", cluster, graph), exchanges, patience, poisson, seed)
    return run.until(horizon)


class _Race:
    """The state of `race`: a heap of (end, order among equals, kind, i, j) and what each node owes."""

    def __init__(
        self, cluster: Cluster, links: Any, exchanges: float, patience: float, poisson: bool, seed: int
    ) -> None:
        n = cluster.n
        self.n, self.links, self.rate, self.patience, self.poisson = n, links, exchanges, patience, poisson
        self.durations = [cluster.gradients(i, seed) for i in range(n)]
        self.meetings: dict[tuple[int, int], Iterator[float]] = {
            (i, j): cluster.exchanges(i, j, seed) for i, j in np.argwhere(np.triu(links)).tolist()
        }
        self.quotas = [other_rng(seed, i) for i in range(n)]
        self.order = other_rng(seed)  # equal times in random order: else the same pairs would meet for ever
        self.owed, self.begun, self.idle_since = [0] * n, [0] * n, [0.0] * n
        self.computing, self.meeting = [False] * n, [False] * n
        self.available: list[int] = []  # in the order in which they became so
        self.heap: list[tuple[float, float, int, int, int]] = []
        self.log = Log()

    def push(self, end: float, kind: int, i: int, j: int) -> None:
        heapq.heappush(self.heap, (end, self.order.random(), kind, i, j))

    def begin(self, i: int, now: float) -> None:
        """Begin node i's next gradient, if it may."""
        if self.computing[i] or self.owed[i] > self.patience:
            return
        self.log.add(i, self.idle_since[i], now, WAIT)
        done, self.begun[i] = self.begun[i], self.begun[i] + 1
        more = math.floor((done + 1) * self.rate) - math.floor(done * self.rate)
        self.owed[i] += self.quotas[i].poisson(self.rate) if self.poisson else more
        end = now + next(self.durations[i])
        self.log.add(i, now, end, COMPUTE)
        self.computing[i] = True
        self.push(end, GRADIENT_EVENT, i, i)
        self.offer(i, now)

    def offer(self, i: int, now: float) -> None:
        """Let node i meet a neighbour, if it owes an exchange."""
        if not self.owed[i] or self.meeting[i] or i in self.available:
            return
        partner = next((j for j in self.available if self.links[i, j]), None)
        if partner is None:
            self.available.append(i)
            return
        self.available.remove(partner)
        pair = min(i, partner), max(i, partner)
        end = now + next(self.meetings[pair])
        self.log.add(pair, now, end, EXCHANGE)
        self.meeting[i] = self.meeting[partner] = True
        self.push(end, EXCHANGE_EVENT, *pair)

    def until(self, horizon: float) -> Timeline:
        for i in self.order.permutation(self.n).tolist():
            self.begin(i, 0.0)
        while self.heap and self.heap[0][0] <= horizon:
            now, _, kind, i, j = heapq.heappop(self.heap)
            self.log.events.append((kind, now, i, j))
            if kind == GRADIENT_EVENT:
                self.computing[i], self.idle_since[i] = False, now
                self.begin(i, now)
                continue
            for node in (i, j):
                self.meeting[node] = False
                self.owed[node] -= 1
            for node in (i, j):
                self.begin(node, now)
                self.offer(node, now)
        for i in range(self.n):
            if not self.computing[i]:
                self.log.add(i, self.idle_since[i], horizon, WAIT)
        return self.log.timeline(self.n, horizon, 2)


def clocks(cluster: Cluster, graph: Any, horizon: float, seed: int = 0, paired: bool = False) -> Timeline:
    """DADAO: links ring at the times of Poisson clocks, while gradients are computed one after the other.

    An exchange whose ends are busy waits until all that rang before it at either end has been done: no node is in two
    exchanges at once. With messages that take no time and `exponential` compute times all clocks are Poisson's, as in
    the theory. Links that ring more often than they can be served fall behind.

    Args:
      cluster: the cluster.
      graph: connected, with the rates of links in exchanges a second as the edge attribute `weight` (1 where it is
        absent); or its Laplacian.
      horizon: seconds to simulate.
      seed: of the durations and of the clocks.
      paired: whether gradients are taken by both nodes of an exchange, before their messages, and at no other time
        (the continuized family).

    Returns:
      The timeline, with `events`, of two threads a node; of one, and with exchanges as the only events, if `paired`.

    References:
      Nabli, Oyallon, DADAO: decoupled accelerated decentralized asynchronous optimization, 2023.

    Example:
      >>> from experiments.clusters import Cluster, constant
      >>> timeline = clocks(Cluster(3, constant(0.5)), nx.path_graph(3), horizon=2.0)
      >>> timeline.gradients.tolist()
      [4, 4, 4]
    """
    check_horizon("clocks", horizon)
    laplacian = rate_laplacian(graph)
    if laplacian.shape[0] != cluster.n:
        raise ValueError(
            f"clocks: graph must have the cluster's {cluster.n} nodes, got {laplacian.shape[0]}. Pass one of as many."
        )
    upper = sp.triu(laplacian, 1).tocoo()
    links = list(zip(upper.row.tolist(), upper.col.tolist(), strict=True))
    log, rings = Log(), []
    for (i, j), rate in zip(links, (-upper.data).tolist(), strict=True):
        rng = other_rng(seed, i, j)
        count = rng.poisson(rate * horizon)  # given their number, the rings are independent and uniform
        rings += [(time, i, j) for time in rng.uniform(0, horizon, count).tolist()]
    meetings = {(i, j): cluster.exchanges(i, j, seed) for i, j in links}
    gradients = [cluster.gradients(i, seed) for i in range(cluster.n)]
    free = [0.0] * cluster.n
    for time, i, j in sorted(rings):
        sent = start = max(time, free[i], free[j])
        if paired:
            computed = [start + next(gradients[node]) for node in (i, j)]
            sent = max(computed)
            log.add((i, j), [free[i], free[j]], start, WAIT)
            log.add((i, j), start, computed, COMPUTE)
            log.add((i, j), computed, sent, WAIT)
        free[i] = free[j] = sent + next(meetings[i, j])
        log.add((i, j), sent, free[i], EXCHANGE)
        log.events.append((EXCHANGE_EVENT, free[i], i, j))
    if paired:
        for i in range(cluster.n):
            log.add(i, free[i], max(free[i], horizon), WAIT)
        return log.timeline(cluster.n, horizon, 1)
    for i in range(cluster.n):
        now = 0.0
        for seconds in gradients[i]:
            log.add(i, now, now + seconds, COMPUTE)
            now += seconds
            if now > horizon:
                break
            log.events.append((GRADIENT_EVENT, now, i, i))
    return log.timeline(cluster.n, horizon, 2)
