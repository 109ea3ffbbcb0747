"""Simulated clusters against closed forms, schedules by hand, and what no schedule may violate."""

import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy import stats

from adozoo import graphs
from experiments import gantt
from experiments.asynchronous import clocks, race
from experiments.clusters import Cluster, constant, exponential, lognormal, other_rng, shifted_exponential
from experiments.timelines import COMPUTE, EXCHANGE, WAIT, all_reduce, gossip

FAMILIES = {
    "constant": (constant(2.0), None),
    "exponential": (exponential(2.0), stats.expon(scale=2.0)),
    "shifted": (shifted_exponential(1.5, 2.0), stats.expon(loc=1.5, scale=0.5)),
    "lognormal": (lognormal(2.0, 0.4), stats.lognorm(0.4, scale=2.0 * math.exp(-0.08))),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_durations_follow_their_distribution(family):
    durations, law = FAMILIES[family]
    drawn = durations.draw(np.random.default_rng(0), 4000)
    if law is None:
        assert np.all(drawn == 2.0)
    else:
        assert law.mean() == pytest.approx(durations.mean)
        assert stats.kstest(drawn, law.cdf).pvalue > 0.01
    rng = np.random.default_rng(0)
    assert np.array_equal(np.concatenate([durations.draw(rng, size) for size in (1, 7, 3992)]), drawn)


def test_gradients_and_messages_of_a_cluster():
    factors = np.ones((3, 3))
    factors[0, 1] = factors[1, 0] = 5.0
    cluster = Cluster(3, exponential(1.0), constant(0.2), 1e6, 1e7, [1.0, 1.0, 2.0], factors).with_straggler(2, 3.0)
    plain = Cluster(3, exponential(1.0))
    times = cluster.gradient_seconds(5, seed=4)
    np.testing.assert_allclose(times, plain.gradient_seconds(5, seed=4) * [1, 1, 6], rtol=1e-15)
    assert len(np.unique(times)) == 15  # no two nodes share a stream
    assert cluster.mean_gradient_seconds == pytest.approx(8 / 3)
    stream = cluster.gradients(2, seed=4)
    assert [next(stream) for _ in range(5)] == times[:, 2].tolist()
    np.testing.assert_allclose(cluster.message_seconds(0, 1, 2, seed=0, share=0.5), 5 * (0.2 + 0.05))
    assert next(cluster.exchanges(2, 1, seed=0)) == pytest.approx(0.3)


def test_streams_do_not_depend_on_who_asks():
    cluster = Cluster(3, constant(1.0), exponential(1.0))
    assert next(cluster.exchanges(2, 1, seed=3)) == next(cluster.exchanges(1, 2, seed=3))
    firsts = [other_rng(3, *which).random() for which in ((), (0,), (0, 0), (1,), (0, 1))]
    assert len(set(firsts)) == 5


def test_the_slowest_of_n_exponentials():
    """E max = H_n, var max = sum 1/k^2: what DDP pays for its barrier where all nodes are alike."""
    n, steps = 8, 4000
    ends = all_reduce(Cluster(n, exponential(1.0)), steps).ends[:, 0]
    harmonic, variance = sum(1 / k for k in range(1, n + 1)), sum(1 / k**2 for k in range(1, n + 1))
    assert abs(ends[-1] / steps - harmonic) < 3 * math.sqrt(variance / steps)


def test_ring_all_reduce_with_constant_times():
    cluster = Cluster(5, constant(1.0), constant(0.01), 1e6, 1e7).with_straggler(3, 4.0)
    timeline = all_reduce(cluster, steps=6, period=2)
    average = 2 * 4 * 0.01 + 2 * 4 / 5 * 0.1
    steps = np.arange(1, 4)
    np.testing.assert_allclose(timeline.ends[1::2], np.tile(steps[:, None] * (8 + average), 5))
    np.testing.assert_allclose(timeline.idle, 1 - np.array([2, 2, 2, 8, 2]) / (8 + average))
    assert timeline.gradients.tolist() == [6] * 5
    assert timeline.exchanges.tolist() == [3] * 5


def test_ring_all_reduce_round_by_round():
    """A node sends to the next one and hears from the one before; it goes on when both are done."""
    cluster = Cluster(4, exponential(1.0), exponential(0.5))
    now = cluster.gradient_seconds(1, seed=6)[0].tolist()
    sent = [cluster.message_seconds(i, (i + 1) % 4, 6, seed=6) for i in range(4)]
    for k in range(6):
        now = [max(now[i] + sent[i][k], now[i - 1] + sent[i - 1][k]) for i in range(4)]
    np.testing.assert_allclose(all_reduce(cluster, 1, seed=6).ends, [now], rtol=1e-14)


def test_local_sgd_waits_for_the_slowest_sum():
    cluster = Cluster(4, lognormal(1.0, 0.8))
    times = cluster.gradient_seconds(12, seed=3)
    expected = np.cumsum(times.reshape(4, 3, 4).sum(axis=1).max(axis=1))
    np.testing.assert_allclose(all_reduce(cluster, 12, period=3, seed=3).ends[2::3], np.tile(expected[:, None], 4))


def test_gossip_waits_for_neighbours_only():
    """The recursion node by node; a late gradient reaches nodes at distance k after k steps."""
    graph, steps = graphs.path(6), 7
    cluster = Cluster(6, exponential(1.0), exponential(0.3))
    times = cluster.gradient_seconds(steps, seed=1)
    now, expected = [0.0] * 6, []
    for k in range(steps):
        ready = [now[i] + times[k, i] for i in range(6)]
        heard = [
            [ready[j] + cluster.message_seconds(j, i, steps, seed=1)[k] for j in graph.neighbors(i)] for i in range(6)
        ]
        now = [max(ready[i], *heard[i]) for i in range(6)]
        expected.append(now)
    np.testing.assert_allclose(gossip(cluster, graph, steps, seed=1).ends, expected, rtol=1e-12)

    late = gossip(Cluster(6, constant(1.0)).with_straggler(0, 9.0), graph, 3).ends
    np.testing.assert_array_equal(late[0], [9, 9, 1, 1, 1, 1])
    np.testing.assert_array_equal(late[1], [18, 18, 10, 2, 2, 2])


@pytest.mark.parametrize("seed", range(3))
def test_gossip_takes_the_largest_cycle_mean(seed):
    """(max, +) algebra: with constant times the schedule becomes periodic, at the pace of the critical cycle."""
    rng = np.random.default_rng(seed)
    links = rng.uniform(0.1, 3.0, (5, 5))
    cluster = Cluster(5, constant(1.0), constant(1.0), slowness=rng.uniform(0.5, 2, 5), link_slowness=links + links.T)
    graph = graphs.ring(5)
    arcs = nx.DiGraph()
    for i in range(5):
        arcs.add_edge(i, i, weight=cluster.slowness[i])
        for j in graph.neighbors(i):
            arcs.add_edge(j, i, weight=cluster.slowness[j] + cluster.link_slowness[i, j])
    means = [
        sum(arcs[a][b]["weight"] for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True)) / len(cycle)
        for cycle in nx.simple_cycles(arcs)
    ]
    ends, period = gossip(cluster, graph, 660).ends, 60  # a multiple of the length of every cycle
    np.testing.assert_allclose((ends[-1] - ends[-1 - period]) / period, max(means), rtol=1e-12)


def test_two_nodes_that_race_by_hand():
    """Gradients of 1 s and 3 s, exchanges of 1/4 s, one a gradient; patience 0 makes the fast node wait."""
    cluster = Cluster(2, constant(1.0), constant(0.25)).with_straggler(1, 3.0)
    free = race(cluster, graphs.path(2), 6.5, poisson=False)
    assert sorted(free.events.tolist()) == sorted(
        [[0, t, 0, 0] for t in range(1, 7)] + [[0, t, 1, 1] for t in (3, 6)] + [[1, t + 0.25, 0, 1] for t in (0, 3, 6)]
    )
    tied = race(cluster, graphs.path(2), 6.5, patience=0, poisson=False)
    assert tied.events.tolist() == [
        [1, 0.25, 0, 1],
        [0, 1, 0, 0],
        [0, 2, 0, 0],
        [0, 3, 1, 1],
        [1, 3.25, 0, 1],
        [0, 4.25, 0, 0],
        [0, 6, 1, 1],
        [1, 6.25, 0, 1],
    ]
    waits = tied.what == WAIT
    assert list(zip(tied.node[waits], tied.start[waits], tied.end[waits], strict=True)) == [
        (0, 2, 3.25),
        (0, 4.25, 6.25),
    ]
    np.testing.assert_allclose(tied.idle, [3.25 / 6.5, 0])
    np.testing.assert_array_equal(free.idle, [0, 0])
    assert tied.lags.tolist() == [0, 1, 0, 1, 0, 0, 1, 0]


def test_patience_on_a_bipartite_graph():
    """Every exchange has one end on either side of an even ring: without patience both sides keep one pace."""
    cluster = Cluster(8, lognormal(1.0, 0.3), constant(0.05)).with_straggler(0, 8.0)
    tied = race(cluster, graphs.ring(8), 600.0, patience=0)
    free = race(cluster, graphs.ring(8), 600.0)
    fast = tied.gradients[2::2].max()
    assert abs(tied.gradients[::2].sum() - tied.gradients[1::2].sum()) < 0.05 * tied.gradients.sum()
    assert fast > 3 * tied.gradients[0]  # ... but the fast nodes do not fall back to the straggler's
    np.testing.assert_allclose(free.gradients / 600, 1 / cluster.slowness, rtol=0.06)
    np.testing.assert_allclose(free.idle, 0, atol=1e-12)


def test_equal_times_do_not_freeze_the_pairs():
    timeline = race(Cluster(8, constant(1.0), constant(0.1)), graphs.ring(8), 100.0, poisson=False)
    counts = [timeline.link_rates()[i][j]["weight"] * 100 for i, j in graphs.ring(8).edges]
    assert min(counts) > 20
    assert sum(counts) == pytest.approx(timeline.exchanges.sum() / 2)


def test_clocks_are_poisson():
    """Numbers in unit intervals have mean and variance of the rate; weights are rates; gradients do not wait."""
    graph = nx.Graph()
    graph.add_weighted_edges_from([(0, 1, 3.0), (1, 2, 0.5)])
    cluster, horizon = Cluster(3, exponential(0.5)).with_straggler(2, 4.0), 2000
    timeline = clocks(cluster, graph, float(horizon), seed=2)
    kinds, times, i, _ = timeline.events.T
    assert np.all(np.diff(times) >= 0)
    rates = {(1, 0): 3.0, (1, 1): 0.5, (0, 0): 2.0, (0, 1): 2.0, (0, 2): 0.5}
    for (kind, first), rate in rates.items():
        counts = np.histogram(times[(kinds == kind) & (i == first)], horizon, (0, horizon))[0]
        assert abs(counts.mean() - rate) < 4 * math.sqrt(rate / horizon)
        assert counts.var() == pytest.approx(rate, rel=0.15)
    np.testing.assert_allclose(
        times[(kinds == 0) & (i == 0)][:50], np.cumsum(cluster.gradient_seconds(50, seed=2)[:, 0]), rtol=1e-12
    )
    started = race(cluster, graph, 20.0, seed=2).events
    same = times[(kinds == 0) & (i == 0) & (times <= 20)]
    np.testing.assert_allclose(started[(started[:, 0] == 0) & (started[:, 2] == 0), 1], same, rtol=1e-12)


def test_exchanges_queue_in_the_order_of_their_rings():
    """Busy links: the k-th exchange of a single link ends as in a queue with one server (Lindley's recursion)."""
    graph = nx.Graph()
    graph.add_edge(0, 1, weight=2.0)
    free = clocks(Cluster(2, constant(1.0)), graph, 30.0, seed=5).events
    rings = free[free[:, 0] == 1, 1]
    queued = clocks(Cluster(2, constant(1.0), constant(0.4)), graph, 30.0, seed=5).events
    end, expected = 0.0, []
    for ring in rings:
        end = max(ring, end) + 0.4
        expected.append(end)
    found = queued[queued[:, 0] == 1, 1]
    np.testing.assert_allclose(found, expected[: len(found)], rtol=1e-12)
    assert len(found) > 40
    assert np.diff(found).min() >= 0.4 - 1e-12


@st.composite
def runs(draw, kind):
    """A timeline on a random cluster and graph."""
    n = draw(st.integers(2, 6))
    graph = nx.gnp_random_graph(n, 0.5, seed=draw(st.integers(0, 99)))
    compute = draw(st.sampled_from([constant(1.0), exponential(1.0), lognormal(1.0, 0.5)]))
    latency = draw(st.sampled_from([constant(0.0), constant(0.3), exponential(0.4)]))
    slowness = draw(st.lists(st.floats(0.3, 5.0), min_size=n, max_size=n))
    cluster, seed = Cluster(n, compute, latency, slowness=slowness), draw(st.integers(0, 99))
    if kind == "race":
        rate, patience = draw(st.floats(0, 3)), draw(st.sampled_from([0, 2, math.inf]))
        return race(cluster, graph, 15.0, rate, patience, draw(st.booleans()), seed), graph
    if kind == "clocks":
        graph.add_edges_from(nx.path_graph(n).edges)  # theirs has to be connected
        return clocks(cluster, graph, 15.0, seed), graph
    if kind == "gossip":
        return gossip(cluster, graph, 9, seed), graph
    return all_reduce(cluster, 9, draw(st.integers(1, 4)), seed), graph


@pytest.mark.parametrize("kind", ["race", "clocks", "all_reduce", "gossip"])
@given(st.data())
def test_nobody_does_two_things_at_once(kind, data):
    timeline, graph = data.draw(runs(kind))
    assert np.all(timeline.end >= timeline.start)
    lanes = [(COMPUTE, WAIT), (EXCHANGE,)] if timeline.threads == 2 else [(COMPUTE, WAIT, EXCHANGE)]
    for node in range(timeline.n):
        for lane in lanes:
            mine = (timeline.node == node) & np.isin(timeline.what, lane)
            start, end = timeline.start[mine], timeline.end[mine]
            order = np.lexsort((end, start))
            assert np.all(start[order][1:] >= end[order][:-1] - 1e-12)
            if COMPUTE in lane:  # computing or waiting at every instant
                spans = np.minimum(end, timeline.horizon) - np.minimum(start, timeline.horizon)
                busy = timeline.horizon if timeline.threads == 2 else timeline.ends[-1, node]
                assert spans.sum() == pytest.approx(busy)
    kinds, times, i, j = timeline.events.T
    for node in range(timeline.n) if timeline.threads == 2 else ():
        for kind, what in ((0, COMPUTE), (1, EXCHANGE)):
            mine = (kinds == kind) & ((i == node) | (j == node))
            ended = timeline.end[(timeline.node == node) & (timeline.what == what)]
            np.testing.assert_array_equal(np.sort(times[mine]), np.sort(ended[ended <= timeline.horizon]))
    assert all(graph.has_edge(a, b) for kind, _, a, b in timeline.events if kind == 1)


@given(st.integers(0, 50), st.sampled_from([0, 1, math.inf]))
def test_no_more_exchanges_than_are_owed(seed, patience):
    cluster = Cluster(5, exponential(1.0), exponential(0.2)).with_straggler(0, 3.0)
    timeline = race(cluster, graphs.ring(5), 25.0, 2.0, patience, poisson=False, seed=seed)
    begun = np.bincount(timeline.node[timeline.what == COMPUTE], minlength=5)
    assert np.all(timeline.exchanges <= 2 * begun)
    if patience == 0:
        assert np.all(timeline.exchanges >= 2 * (begun - 1))
    again = race(cluster, graphs.ring(5), 25.0, 2.0, patience, poisson=False, seed=seed)
    assert np.array_equal(again.events, timeline.events)
    other = race(cluster, graphs.ring(5), 25.0, 2.0, patience, poisson=False, seed=seed + 1)
    assert not np.array_equal(other.events[:5], timeline.events[:5])


def test_a_timeline_is_cut():
    cluster = Cluster(4, lognormal(1.0, 0.4), constant(0.1))
    long, short = (race(cluster, graphs.ring(4), seconds, seed=7) for seconds in (20.0, 8.0))
    cut = long.until(8.0)
    assert np.array_equal(cut.events, short.events)
    assert np.array_equal(cut.gradients, short.gradients)
    np.testing.assert_allclose(cut.idle, short.idle, atol=1e-12)
    steps = gossip(cluster, graphs.ring(4), 20)
    assert np.all(steps.until(8.0).ends <= 8)
    assert np.any(steps.ends[len(steps.until(8.0).ends)] > 8)


def test_a_gantt_picture_shows_all_intervals():
    cluster = Cluster(3, constant(1.0), constant(0.5)).with_straggler(1, 2.0)
    timelines = {"all-reduce": all_reduce(cluster, 4), "race": race(cluster, graphs.path(3), 12.0)}
    for timeline in timelines.values():
        for node in range(3):
            computed = sum(length for _, length in gantt.bars(timeline, node, COMPUTE, 5.5))
            assert computed == pytest.approx(5.5 * (1 - timeline.until(5.5).idle[node]))
    figure = Figure()
    axes = figure.subplots(2, 1)
    gantt.column(axes, timelines, 5.5, stragglers=[1])
    for axis, (title, timeline) in zip(axes, timelines.items(), strict=True):
        drawn = sum(len(bars.get_paths()) for bars in axis.collections)
        kept = (timeline.start < 5.5) & (timeline.end > timeline.start)
        assert drawn == kept.sum()
        assert axis.get_title() == title
        assert [label.get_fontweight() for label in axis.get_yticklabels()] == ["normal", "bold", "normal"]
    assert [patch.get_label() for patch in gantt.handles()] == ["gradient", "exchange", "waiting"]


RING, FOUR = graphs.ring(4), Cluster(4, constant(1.0))
MISUSES = {
    "n must be a positive integer": lambda: Cluster(0, constant(1.0)),
    "compute must be a distribution": lambda: Cluster(2, 1.0),
    "compute must take time": lambda: Cluster(2, constant(0.0)),
    "bandwidth must be > 0": lambda: Cluster(2, constant(1.0), bandwidth=0.0),
    "message_bytes must be": lambda: Cluster(2, constant(1.0), message_bytes=-1.0),
    "slowness must hold positive factors": lambda: Cluster(2, constant(1.0), slowness=[1.0, 0.0]),
    "link_slowness must hold": lambda: Cluster(2, constant(1.0), link_slowness=np.ones(2)),
    "link_slowness must be symmetric": lambda: Cluster(2, constant(1.0), link_slowness=[[1.0, 2.0], [3.0, 1.0]]),
    "exponential: mean": lambda: exponential(0.0),
    "lognormal: spread": lambda: lognormal(1.0, math.inf),
    "mean must be at least least": lambda: shifted_exponential(2.0, 1.0),
    "node must lie in 0..3": lambda: FOUR.with_straggler(4, 2.0),
    "with_straggler: factor": lambda: FOUR.with_straggler(0, -1.0),
    "seed must be an integer": lambda: FOUR.gradient_seconds(1, -1),
    "steps must be a positive integer": lambda: all_reduce(FOUR, 0),
    "period must be a positive integer": lambda: all_reduce(FOUR, 4, period=1.5),
    "cluster's 4 nodes": lambda: gossip(FOUR, graphs.ring(5), 3),
    "a directed": lambda: race(FOUR, nx.DiGraph(RING), 3.0),
    "clocks: graph must have": lambda: clocks(FOUR, graphs.ring(5), 3.0),
    "horizon must be a positive": lambda: clocks(FOUR, RING, math.inf),
    "exchanges must be a number": lambda: race(FOUR, RING, 3.0, exchanges=-1.0),
    "expected edge weights": lambda: clocks(Cluster(2, constant(1.0)), nx.Graph([(0, 1, {"weight": -1.0})]), 1.0),
    "until: horizon": lambda: all_reduce(FOUR, 4).until(5.0),
    "seconds must lie in": lambda: gantt.draw(None, all_reduce(FOUR, 4), 5.0),
}


@pytest.mark.parametrize("message", MISUSES)
def test_misuse(message):
    with pytest.raises(ValueError, match=message):
        MISUSES[message]()
