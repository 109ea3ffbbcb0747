r"""What a run costs: bits, simulated seconds and joules after each step, for any registered method on any cluster.

    synchronous(entry, params, mix, cluster, steps)            a node waits for those that send to it
    asynchronous(entry, params, graph, cluster, gradients)     nodes never wait; also the events that the method runs on
    within(costs, axis, budget)                                how far a budget goes

What is sent is what the method is seen to send (`adozoo.channel.traffic`), as large as these params make it. When it
arrives follows from the cluster and a seed alone, so that methods are compared under common random numbers.

Rules, each of which a comparison rests on:

- Every step costs each node one gradient. Other arithmetic takes no time.
- Messages of one step that must wait for one another (`Entry.rounds`) take one latency each, and share the step's bits.
- A method whose next params do not depend on the others' gradients of the same step (`Entry.overlaps`) sends while
  gradients are computed: node i ends step k at max(t_i + c_i, \max_j t_j + l_ji). All others send afterwards:
  max(t_i + c_i, \max_j t_j + c_j + l_ji).
- An exact average is a ring all-reduce of 2 (n - 1) rounds; where payloads do not add up (`Entry.gathers`), a ring
  all-gather of n - 1. As one member of a cycle it takes the time of messages from all to all.
- Methods that communicate in a share s of their steps do so in step k if floor((k + 1) s) > floor(k s): local steps as
  they are, and coins spread evenly.
- Lost messages were sent, and receivers know when to stop waiting: faults change neither bits nor times.
- A node that is away (`experiments.churn`) draws no power; it returns when the step before is over everywhere.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float

import adozoo
from adozoo import channel
from adozoo.events import Events
from adozoo.polynomials import Polynomial
from adozoo.relaxation import Relaxed
from adozoo.schedules import Cycle, GossipEvery
from adozoo.zoo import Entry
from experiments import churn
from experiments import energy as machines
from experiments.asynchronous import clocks
from experiments.clusters import Cluster, cluster_named
from experiments.settings import nearest
from experiments.timelines import COMPUTE, Timeline

__all__ = ["Costs", "asynchronous", "cluster_named", "synchronous", "within"]

RATE = 0.1
"""The learning rate of methods that are only watched."""


class Costs(NamedTuple):
    """Cumulative over the whole network, [steps + 1] or [marks]: at the start, and when all nodes are done with a step.

    Attributes:
      bits: sent over all links.
      seconds: since the start.
      joules: of all nodes and links.
      steps: gradients a node, on average.
    """

    bits: Float[np.ndarray, " records"]
    seconds: Float[np.ndarray, " records"]
    joules: Float[np.ndarray, " records"]
    steps: Float[np.ndarray, " records"]


def within(costs: Costs, axis: str, budget: float) -> int:
    """The last record, steps for synchronous methods, whose cost is within a budget; that of the end at most.

    Raises:
      ValueError: for an unknown axis, or a budget that is no positive number.

    Example:
      >>> costs = Costs(*np.arange(12.0).reshape(4, 3))
      >>> within(costs, "seconds", 4.5)
      1
    """
    if axis not in Costs._fields:
        raise nearest("axis of a budget", axis, Costs._fields)
    if isinstance(budget, bool) or not isinstance(budget, int | float | np.number) or not budget > 0:
        raise ValueError(f"within: a budget of {axis} must be a positive number, got {budget!r}.")
    return max(0, int(np.searchsorted(getattr(costs, axis), budget, side="right")) - 1)


def synchronous(
    entry: Entry,
    params: Any,
    mix: Any,
    cluster: Cluster,
    steps: int,
    seed: int = 0,
    energy: machines.Energy | str = "laptop",
    hyperparameters: Mapping[str, Any] | None = None,
) -> Costs:
    r"""Bits, seconds and joules of the first steps of a synchronous method; see the module for the rules.

    The times are a recursion that is linear in the algebra of (max, +). Step k has ended when all nodes have: seconds_k
    = \max_i t_i^k. Up to then nodes that have not computed have waited: joules_k = P_busy B_k + P_idle (n seconds_k -
    B_k) + e bits_k, which is what it takes to stop there.

    Args:
      entry: of the registry, or made like one of its entries.
      params: one node's params, or their shapes and dtypes.
      mix: the mixing (schedules, faults, churn and polynomials included) or exchange that the method is built with.
      cluster: where it runs; the size of messages follows from `params`, and its `message_bytes` are not used.
      steps: how many.
      seed: of the durations.
      energy: constants, or the name of a machine of `experiments.energy`.
      hyperparameters: those that differ from the entry's.

    Returns:
      `Costs`, each [steps + 1].

    Raises:
      ValueError: if the method is driven by events or does not admit the mixing, if numbers of nodes differ, or for
        steps that are not positive.

    Example:
      >>> from experiments.clusters import constant
      >>> ring = adozoo.mixing(adozoo.graphs.ring(4))
      >>> cluster = Cluster(4, constant(1.0), constant(0.25)).with_straggler(0, 2.0)
      >>> costs = synchronous(
      ...     adozoo.zoo.entry("dsgd_atc"), jnp.zeros(10), ring, cluster, 2
      ... )
      >>> costs.bits.tolist(), costs.seconds.tolist()
      ([0.0, 5120.0, 10240.0], [0.0, 2.25, 4.25])
    """
    base, rounds, stride, every = _below(mix)
    _check(entry, mix, base, cluster, steps)
    options = dict(hyperparameters or {})
    stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((mix.n, *leaf.shape), leaf.dtype), params)
    sent = channel.traffic(lambda watched: entry.build(RATE, watched, **options), mix, stacked)
    links = channel.mean_links(mix)
    share = min(1.0, sent.messages / links) if links else 1.0
    numbers = np.arange(steps)
    talks = np.diff(np.floor(np.arange(steps + 1) * share + 1e-9)) > 0
    talks &= numbers % every == every - 1
    size = sent.bits / links / share if links else 0.0  # on a link, in a step that communicates and a round of mix
    turns = rounds * entry.rounds
    if "rounds" in entry.hyperparameters:  # as many times as many as by default, and each over a graph of its own
        usual = channel.traffic(lambda watched: entry.build(RATE, watched), mix, stacked)
        turns = max(1, round(turns * sent.messages / usual.messages)) if links else turns
        stride *= turns // rounds
    present = None
    if isinstance(base, churn.Present):
        present = np.asarray(base.present)[numbers % base.period]
    compute = cluster.gradient_seconds(steps, seed) * (1.0 if present is None else present)
    if base.is_mean:
        bits = np.where(talks, size * rounds * base.links(), 0.0)
        ends = _averaging(cluster, compute, talks, turns, size * rounds * base.links(), entry, seed)
    else:
        active, counts = _links(base, steps * stride)
        which = (numbers[:, None] * stride + np.arange(turns) % stride) % len(active)
        size *= rounds / turns
        bits = np.where(talks, size * counts[which].sum(axis=1), 0.0)
        ends = _gossip(cluster, compute, talks, active, which, size, entry, seed, present)
    seconds = np.maximum.accumulate(ends.max(axis=1))
    on = np.diff(seconds, prepend=0.0) * (mix.n if present is None else present.sum(axis=1))
    totals = [np.append(0.0, np.cumsum(each)) for each in (bits, compute.sum(axis=1), on)]
    joules = machines.named(energy).joules(totals[1], totals[2] - totals[1], totals[0])
    return Costs(totals[0], np.append(0.0, seconds), joules, np.arange(steps + 1.0))


def _check(entry: Entry, mix: Any, base: Any, cluster: Cluster, steps: Any) -> None:
    if isinstance(mix, Events) or entry.mixings & {"events", "paired events"}:
        raise ValueError(f"costs: {entry.name} on {type(mix).__name__} is driven by events. Use costs.asynchronous.")
    if not isinstance(base, adozoo.Exchange) and not entry.admits(base):
        raise ValueError(
            f"costs: {entry.name} admits {', '.join(sorted(entry.mixings))} mixings, not this {type(base).__name__}."
        )
    if cluster.n != mix.n:
        raise ValueError(f"costs: the cluster has {cluster.n} nodes, the mixing {mix.n}. Make them agree.")
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"costs: steps must be a positive integer, got {steps!r}.")


def _below(mix: Any) -> tuple[Any, int, int, int]:
    """The mixing below faults, polynomials and local steps.

    Also how many of its rounds one is, over how many of its steps, and in which of its steps: each `every`-th.
    """
    rounds = stride = every = 1
    while isinstance(mix, channel.Lossy | channel.Noisy | Polynomial | Relaxed | GossipEvery):
        if isinstance(mix, Polynomial):
            rounds, stride = rounds * mix.rounds, stride * mix.steps
        if isinstance(mix, GossipEvery):
            every = math.lcm(every, mix.every)
        mix = mix.base
    return mix, rounds, stride, every


def _links(mix: Any, steps: int) -> tuple[Bool[np.ndarray, "period n n"], Float[np.ndarray, " period"]]:
    """Who hears whom at each step of a period, or of all steps where there is none: [step, to, from]; and how many."""
    if isinstance(mix, adozoo.Exchange):
        return mix.adjacency().toarray()[None] != 0, np.array([float(mix.links())])
    if isinstance(mix, Cycle) or not mix.varying:
        found = np.stack([each.sparse_matrix().toarray() != 0 for each in getattr(mix, "mixings", [mix])])
    else:
        period = min(getattr(mix, "period", None) or steps, steps)
        many, block = jax.jit(jax.vmap(mix.table_at)), min(period, 1024)
        parts = [many(start + jnp.arange(block)) for start in range(0, period, block)]
        neighbors, weights = (np.concatenate(part)[:period] for part in zip(*parts, strict=True))
        found = np.zeros((period, mix.n, mix.n), bool)
        step, to, place = np.nonzero(weights)
        found[step, to, neighbors[step, to, place]] = True
    found[:, np.arange(mix.n), np.arange(mix.n)] = False
    return found, found.sum(axis=(1, 2)).astype(float)


def _durations(cluster: Cluster, i: int, j: int, size: float, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Seconds of the messages of `size` bits from i to j, [steps, rounds]; [1, rounds] if all take equally long."""
    plain = replace(cluster, message_bytes=size / 8)
    shape = (1 if cluster.latency.fixed else shape[0], shape[1])
    return plain.message_seconds(i, j, math.prod(shape), seed).reshape(shape)


def _gossip(
    cluster: Cluster,
    compute: np.ndarray,
    talks: np.ndarray,
    active: np.ndarray,
    which: np.ndarray,
    size: float,
    entry: Entry,
    seed: int,
    present: np.ndarray | None,
) -> Float[np.ndarray, "steps n"]:
    """When each step ends on each node that waits for its neighbours only."""
    steps, rounds = which.shape
    to, sender = np.nonzero(active.any(axis=0))
    heads, first = np.unique(to, return_index=True)
    shape = (steps, rounds)
    columns = [_durations(cluster, j, i, size, shape, seed) for i, j in zip(to.tolist(), sender.tolist(), strict=True)]
    messages = np.stack(columns, axis=-1) if columns else np.zeros((1, rounds, 0))
    silent = np.where(active[:, to, sender], 0.0, -np.inf)  # who does not send is waited for by nobody
    now, ends = np.zeros(cluster.n), np.empty((steps, cluster.n))
    for step in range(steps):
        ready = now + compute[step]
        if talks[step] and len(to):
            heard = (now if entry.overlaps else ready).copy()
            sending = messages[step % len(messages)]
            for number in range(rounds):
                arrivals = heard[sender] + sending[number] + silent[which[step, number]]
                heard[heads] = np.maximum(heard[heads], np.maximum.reduceat(arrivals, first))
            ready = np.maximum(ready, heard)
        now = ready
        if present is not None:
            now = np.where(present[step], now, now[present[step]].max())
        ends[step] = now
    return ends


def _averaging(
    cluster: Cluster, compute: np.ndarray, talks: np.ndarray, rounds: int, bits: float, entry: Entry, seed: int
) -> Float[np.ndarray, "steps n"]:
    """When each step ends on each node of a ring that averages exactly: matrices of (max, +), one a step."""
    n, count = cluster.n, int(talks.sum())
    turns = rounds * (n - 1) * (1 if entry.gathers else 2)
    size, shape = bits / max(1, turns * n), (count, turns)
    columns = [_durations(cluster, i, (i + 1) % n, size, shape, seed) for i in range(n)] if turns and count else []
    messages = np.stack(columns, axis=-1) if columns else np.zeros((1, 0, n))  # [average, turn, from]
    same = np.where(np.eye(n, dtype=bool), 0.0, -np.inf)
    matrix = _around(same, messages[0]) if len(messages) == 1 else None  # from when i is ready to when j is done
    now, ends, done = np.zeros(n), np.empty_like(compute), 0
    for step, seconds in enumerate(compute):
        ready = now + seconds
        if talks[step]:
            heard = now if entry.overlaps else ready
            heard = _around(heard, messages[done]) if matrix is None else (heard[:, None] + matrix).max(axis=0)
            ready, done = np.maximum(ready, heard), done + 1
        ends[step] = now = ready
    return ends


def _around(times: Float[np.ndarray, "*rows n"], messages: Float[np.ndarray, "turns n"]) -> np.ndarray:
    """When each node of a ring has sent and heard in every turn."""
    before = np.arange(-1, messages.shape[1] - 1)
    for message in messages:
        sent = times + message
        times = np.maximum(sent, sent[..., before])
    return times


def asynchronous(
    entry: Entry,
    params: Any,
    graph: Any,
    cluster: Cluster,
    gradients: float,
    seed: int = 0,
    energy: machines.Energy | str = "laptop",
    marks: Any = 100,
    hyperparameters: Mapping[str, Any] | None = None,
) -> tuple[Events, Costs]:
    r"""What happens to an event-driven method on a cluster: its events, and what they cost up to each mark.

    Nodes compute one gradient after the other; links ring at the times of Poisson clocks and are served in order
    (`experiments.asynchronous.clocks`). The unit of time is that in which nodes take one gradient each, on average;
    `events.times` are in this unit, `Costs.seconds` in seconds. Rates are those that the method's theory asks for
    (`Entry.rates`), or such that each node is in one exchange per unit. Methods that take gradients at exchanges have
    links of rate 1 / (2 d_max D_ij) a second, D_ij being a gradient of the slower end and a message: so no node is busy
    for more than half of the time. Gradients carry the staleness that they had.

    Args:
      entry: of the registry, one that takes events.
      params: one node's params, or their shapes and dtypes.
      graph: connected and undirected; links' `weight`, where there is one, says in which proportion they are used.
      cluster: where it runs; its `message_bytes` are not used.
      gradients: of a node, on average.
      seed: of durations and clocks.
      energy: as in `synchronous`.
      marks: when to measure besides the start and the end: a number of equal spans, or the times.
      hyperparameters: those that differ from the entry's.

    Returns:
      The events, to build the method with, and `Costs` at `events.times`, without exchanges that are under way there.

    Raises:
      ValueError: for a synchronous method, or what `clocks` and `adozoo.events.recorded` refuse.

    Example:
      >>> from experiments.clusters import constant
      >>> entry, ring = adozoo.zoo.entry("acid"), adozoo.graphs.ring(4)
      >>> cluster = Cluster(4, constant(0.5)).with_straggler(0, 2.0)
      >>> events, costs = asynchronous(entry, jnp.zeros(10), ring, cluster, 7, marks=2)
      >>> costs.seconds.tolist(), costs.steps.tolist()
      ([0.0, 2.0, 4.0], [0.0, 3.5, 7.0])
    """
    paired = "paired events" in entry.mixings
    if not (paired or "events" in entry.mixings):
        raise ValueError(f"costs: {entry.name} is not driven by events. Use costs.synchronous.")
    if isinstance(gradients, bool) or not isinstance(gradients, int | float) or not 0 < gradients < math.inf:
        raise ValueError(f"costs: gradients must be a positive number (a node, on average), got {gradients!r}.")
    options, n = dict(hyperparameters or {}), cluster.n
    stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((n, *leaf.shape), leaf.dtype), params)
    rates = (entry.rates or (lambda laplacian: adozoo.resistance.normalize_rates(laplacian, "node_rate")))(graph)
    if rates.shape[0] != n:
        raise ValueError(f"costs: the cluster has {n} nodes, the graph {rates.shape[0]}. Make them agree.")
    size = _message_bits(entry, stacked, rates, paired, options)
    cluster = replace(cluster, message_bytes=size / 8)
    unit = n / float((1 / (cluster.compute.mean * cluster.slowness)).sum())
    if paired:
        rates, unit = _paired_rates(cluster, rates)
    horizon = float(gradients) * unit
    timeline = clocks(cluster, sp.csr_array(rates / unit), horizon, seed, paired)
    rows, lags = timeline.events.copy(), None if paired else timeline.lags
    rows[:, 1] = np.minimum(rows[:, 1] / unit, gradients)
    events = adozoo.events.recorded(rows, n, rates, float(gradients), marks, lags, paired)
    seconds = np.asarray(events.times) * unit
    bits = 2 * size * np.asarray(events.communications, float)
    busy = _busy(timeline, seconds)
    joules = machines.named(energy).joules(busy, n * seconds - busy, bits)
    return events, Costs(bits, seconds, joules, np.asarray(events.gradients) / n)


def _message_bits(entry: Entry, stacked: Any, rates: Any, paired: bool, options: Mapping[str, Any]) -> float:
    """Bits of one message of an exchange."""
    i, j = np.argwhere(sp.triu(rates, 1).toarray() != 0)[0].tolist()
    one = [(1, 0.5, i, j)]
    events = adozoo.events.recorded(one, rates.shape[0], rates, 1.0, paired=paired)
    sent = channel.traffic(lambda watched: entry.build(RATE, watched, **options), events, stacked)
    return sent.bits / events.mean_links()


def _paired_rates(cluster: Cluster, laplacian: Any) -> tuple[Any, float]:
    """Rates of links in exchanges per unit, and the unit in seconds: a node is in one exchange per unit, on average."""
    links = laplacian.toarray() < 0
    gradient = cluster.compute.mean * cluster.slowness
    message = cluster.link_slowness * (cluster.latency.mean + cluster.message_bytes / cluster.bandwidth)
    takes = np.maximum(gradient[:, None], gradient) + message
    per_second = np.where(links, 1 / (2 * links.sum(axis=1).max() * takes), 0.0)
    unit = cluster.n / float(per_second.sum())
    return sp.csr_array((np.diag(per_second.sum(axis=1)) - per_second) * unit), unit


def _busy(timeline: Timeline, times: np.ndarray) -> np.ndarray:
    """Seconds that all nodes together have computed by each of the times."""
    mine = timeline.what == COMPUTE

    def passed(instants: np.ndarray) -> np.ndarray:
        """Sum over instants of min(instant, time)."""
        instants = np.sort(instants)
        before = np.searchsorted(instants, times)
        return np.append(0.0, np.cumsum(instants))[before] + (len(instants) - before) * times

    return passed(timeline.end[mine]) - passed(timeline.start[mine])
