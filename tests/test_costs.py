"""What runs cost, against what is declared, other schedules of the same clusters, and recursions node by node."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import DIM, ENTRIES, MIXINGS, NODES, beginning, built, widest
from hypothesis import given
from hypothesis import strategies as st

import adozoo
from adozoo import channel, graphs
from experiments import churn, costs, energy
from experiments.asynchronous import clocks
from experiments.clusters import CLUSTERS, Cluster, cluster_named, constant, exponential, lognormal
from experiments.timelines import COMPUTE, EXCHANGE, WAIT, all_reduce, gossip

EVENTS = {"events", "paired events"}


def _heavy_ones_slow():
    for name, entry in ENTRIES.items():
        heavy = entry.random or entry.leafwise or entry.family == "accelerated"
        if not entry.mixings & EVENTS:
            yield pytest.param(entry, id=name, marks=[pytest.mark.slow] if heavy else [])


SYNCHRONOUS = list(_heavy_ones_slow())
ASYNCHRONOUS = [pytest.param(entry, id=name) for name, entry in ENTRIES.items() if entry.mixings & EVENTS]
ONE = {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32), "b": jax.ShapeDtypeStruct((4,), jnp.float32)}
VECTOR = jax.ShapeDtypeStruct((10,), jnp.float32)
MACHINE = energy.Energy(10.0, 3.0, 1e-3)
RANDOM = Cluster(5, exponential(1.0), exponential(0.3), bandwidth=1e3, slowness=[1.0, 2.0, 0.5, 1.0, 1.5])


def cost(name, mix, cluster, steps, params=VECTOR, **hyperparameters):
    return costs.synchronous(ENTRIES[name], params, mix, cluster, steps, 3, MACHINE, hyperparameters)


@pytest.mark.parametrize("entry", SYNCHRONOUS)
def test_bits_are_those_declared(entry):
    mix = MIXINGS[widest(entry)]
    found = costs.synchronous(entry, ONE, mix, Cluster(NODES, constant(1.0)), 8).bits
    declared = entry.bits(ONE, NODES) if entry.bits else 32 * (10 * entry.vectors + entry.scalars)
    assert found[0] == 0
    assert np.all(np.diff(found) >= 0)
    assert found[-1] == pytest.approx(8 * channel.mean_links(mix) * declared)


@pytest.mark.parametrize(
    ("name", "mix", "hyperparameters"),
    [
        ("dsgd_cta", adozoo.mixing(graphs.star(7)), {}),
        ("relay_sgd", adozoo.mixing(graphs.path(7)), {}),
        ("local_dsgd", adozoo.mixing(graphs.ring(7)), {"period": 4}),
        ("local_dsgd", adozoo.exact_mean(7), {"period": 6}),
        ("msda", adozoo.mixing(graphs.ring(7)), {"rounds": 5}),
        ("opapc", adozoo.mixing(graphs.path(7)), {"rounds": None}),
        ("choco_sgd", adozoo.mixing(graphs.star(7)), {"compressor": adozoo.compression.scaled_sign()}),
        ("dsgd_atc", adozoo.gossip_every(adozoo.exact_mean(7), 3), {}),
        ("aug_dgm", adozoo.polynomials.chebyshev(adozoo.mixing(graphs.ring(7)), 2), {}),
        ("extra", adozoo.polynomials.chebyshev(adozoo.exact_mean(7), 2), {}),
        ("dsgd_atc", adozoo.cycle([adozoo.exact_mean(7), adozoo.mixing(graphs.ring(7))]), {}),
        ("diging", channel.drops(adozoo.one_peer_exponential(7), 0.5, jax.random.key(0)), {}),
        ("sgp", adozoo.mixing(graphs.directed_ring(7)), {}),
    ],
)
def test_bits_are_those_counted(name, mix, hyperparameters):
    counted = channel.traffic(lambda mix: ENTRIES[name].build(0.1, mix, **hyperparameters), mix, jnp.zeros((7, 10)))
    found = cost(name, mix, cluster_named("uniform", 7), 12, jnp.zeros(10), **hyperparameters)
    assert found.bits[-1] == pytest.approx(12 * counted.bits)


def test_random_links_count_as_they_are_drawn():
    mix = adozoo.random_subgraph(graphs.ring(6), jax.random.key(5), 0.5)
    found, links = cost("dsgd_atc", mix, Cluster(6, constant(1.0)), 9).bits, jax.jit(mix.links)
    np.testing.assert_array_equal(np.diff(found), [320 * int(links(t)) for t in range(9)])
    assert len(set(np.diff(found))) > 1


@pytest.mark.parametrize("entry", SYNCHRONOUS)
def test_what_overlaps_is_known_before_the_gradients(entry):
    """Another gradient of node 2 changes the others' next params at once, unless messages may travel meanwhile."""
    rng = np.random.default_rng(0)
    tx = built(entry, 0.1, MIXINGS[widest(entry)])
    x = jnp.asarray(beginning(entry))
    state, change = tx.init(x), np.zeros((NODES, DIM))
    change[2] = rng.normal(size=DIM)

    update, largest = jax.jit(tx.update), 0.0
    for _ in range(6):
        g = jnp.asarray(rng.normal(size=x.shape))
        (updates, after), (other, _) = update(g, state, x), update(g + change, state, x)
        largest = max(largest, np.abs(np.delete(np.asarray(updates - other), 2, 0)).max())
        x, state = x + updates, after
    assert bool(largest < 1e-12) is entry.overlaps


def test_gossip_takes_as_long_as_its_timeline():
    graph = graphs.star(5)
    timeline = gossip(Cluster(5, RANDOM.compute, RANDOM.latency, 40.0, 1e3, RANDOM.slowness), graph, 30, seed=3)
    found = cost("dsgd_atc", adozoo.mixing(graph), RANDOM, 30)
    np.testing.assert_allclose(found.seconds[1:], timeline.ends.max(axis=1), rtol=1e-12)
    assert found.seconds[0] == 0
    busy = np.cumsum(RANDOM.gradient_seconds(30, 3).sum(axis=1))
    expected = 10 * busy + 3 * (5 * found.seconds[1:] - busy) + 1e-3 * found.bits[1:]
    np.testing.assert_allclose(found.joules, [0, *expected], rtol=1e-12)


@pytest.mark.parametrize("period", [1, 3])
@pytest.mark.parametrize("latency", [exponential(0.3), constant(0.3)])
def test_averages_take_as_long_as_their_timeline(period, latency):
    cluster = Cluster(5, RANDOM.compute, latency, 40.0, 1e3, RANDOM.slowness)
    timeline = all_reduce(cluster, 12, period, seed=3)
    found = cost("local_dsgd", adozoo.exact_mean(5), cluster, 12, period=period)
    np.testing.assert_allclose(found.seconds[1:], np.maximum.accumulate(timeline.ends.max(axis=1)), rtol=1e-12)


@pytest.mark.parametrize("name", ["all_reduce_sgd", "power_sgd", "ef_top_k"])
def test_averages_in_closed_form(name):
    """One all-reduce of a vector; two, of its factors; an all-gather, of which nobody adds anything up."""
    n, one = 4, {"w": jax.ShapeDtypeStruct((6, 8), jnp.float32)}
    bits = ENTRIES[name].bits(one, n) if ENTRIES[name].bits else 32 * 48
    rounds, size = {
        "all_reduce_sgd": (2 * (n - 1), bits / n),
        "power_sgd": (4 * (n - 1), bits / 2 / n),
        "ef_top_k": (n - 1, 2 * bits / n),
    }[name]
    found = cost(name, adozoo.exact_mean(n), Cluster(n, constant(1.0), constant(0.1), bandwidth=1e3), 3, one)
    np.testing.assert_allclose(found.seconds, np.arange(4) * (1 + rounds * (0.1 + size / 8e3)), rtol=1e-12)


def by_hand(cluster, links, rounds, size, overlaps, steps, seed):
    """t_i = max(own gradient, messages), node by node; links(k, turn) are pairs (from, to)."""
    compute = cluster.gradient_seconds(steps, seed)
    sized = Cluster(cluster.n, cluster.compute, cluster.latency, size / 8, cluster.bandwidth)
    seconds, now = [0.0], [0.0] * cluster.n
    for k in range(steps):
        ready = [now[i] + compute[k, i] for i in range(cluster.n)]
        heard = list(now if overlaps else ready)
        for turn in range(rounds):
            late = list(heard)
            for j, i in links(k, turn):
                message = sized.message_seconds(j, i, steps * rounds, seed)[k * rounds + turn]
                late[i] = max(late[i], heard[j] + message)
            heard = late
        now = [max(a, b) for a, b in zip(ready, heard, strict=True)]
        seconds.append(max(seconds[-1], *now))
    return seconds


@pytest.mark.parametrize(("name", "rounds", "vectors"), [("sgp_overlap", 1, 1.1), ("sgp", 1, 1.1), ("aug_dgm", 2, 2)])
def test_times_node_by_node_over_directed_graphs_that_vary(name, rounds, vectors):
    mix = adozoo.one_peer_exponential(5)
    size = 320 * vectors / rounds

    def links(k, turn):
        return [((i + 2 ** (k % 3)) % 5, i) for i in range(5)]

    expected = by_hand(RANDOM, links, rounds, size, name == "sgp_overlap", 14, 3)
    np.testing.assert_allclose(cost(name, mix, RANDOM, 14).seconds, expected, rtol=1e-12)


def test_rounds_that_have_graphs_of_their_own():
    """Multi-consensus with four rounds a step goes through four graphs of a schedule."""
    parts = [adozoo.mixing(graph) for graph in (graphs.ring(5), graphs.star(5), graphs.path(5))]
    arcs = [
        [*graph.edges, *((j, i) for i, j in graph.edges)] for graph in map(graphs.parse, ("ring:5", "star:5", "path:5"))
    ]
    found = cost("adom_plus_multi_consensus", adozoo.cycle(parts), RANDOM, 6, rounds=4)
    expected = by_hand(RANDOM, lambda k, turn: arcs[(4 * k + turn) % 3], 4, 2 * 320, True, 6, 3)
    np.testing.assert_allclose(found.seconds, expected, rtol=1e-12)
    sent = [2 * 320 * sum(len(arcs[(4 * k + turn) % 3]) for turn in range(4)) for k in range(6)]
    np.testing.assert_allclose(np.diff(found.bits), sent)


def test_messages_hide_behind_gradients():
    cluster, ring = Cluster(6, constant(1.0), constant(0.7)), adozoo.mixing(graphs.ring(6))
    assert cost("dsgd_cta", ring, cluster, 10).seconds[-1] == pytest.approx(10)
    assert cost("dsgd_atc", ring, cluster, 10).seconds[-1] == pytest.approx(17)


def test_absent_nodes_are_waited_for_by_nobody_and_draw_no_power():
    there = np.array([[True] * 4, [False, True, True, True], [False, True, True, True], [True] * 4])
    mix = churn.mixing(graphs.ring(4), there)
    found = cost("dsgd_atc", mix, Cluster(4, constant(1.0), constant(0.5)).with_straggler(0, 8.0), 4)
    # step 0: node 0 makes its neighbours wait until 8.5, not node 2, who is done with step 1 a second later ...
    np.testing.assert_allclose(found.seconds, [0, 8.5, 10, 11.5, 20.0])
    np.testing.assert_allclose(np.diff(found.bits), [8 * 320, 4 * 320, 4 * 320, 8 * 320])
    busy, on = np.array([11, 3, 3, 11]), np.array([4 * 8.5, 3 * 1.5, 3 * 1.5, 4 * 8.5])
    np.testing.assert_allclose(np.diff(found.joules), 10 * busy + 3 * (on - busy) + 1e-3 * np.diff(found.bits))


@pytest.mark.parametrize("entry", ASYNCHRONOUS)
def test_costs_and_events_are_those_of_one_timeline(entry):
    cluster = Cluster(6, lognormal(0.5, 0.2), exponential(0.01), bandwidth=1e4).with_straggler(1, 3.0)
    ring, times = graphs.ring(6), [0.0, 3.0, 7.5, 12.0]
    events, found = costs.asynchronous(entry, VECTOR, ring, cluster, 12.0, 3, MACHINE, times[1:-1])
    np.testing.assert_allclose(events.times, times)
    np.testing.assert_array_equal(found.bits, 2 * 320 * np.asarray(events.communications))
    np.testing.assert_allclose(found.steps * 6, events.gradients)
    unit = found.seconds[-1] / 12
    np.testing.assert_allclose(found.seconds, unit * np.array(times))
    if events.paired:
        np.testing.assert_allclose(found.steps, 2 * np.asarray(events.communications) / 6)
        assert found.steps[-1] == pytest.approx(12, rel=0.35)
    else:
        taken = np.cumsum(cluster.gradient_seconds(200, 3), axis=0)
        counts = [(taken <= time + 1e-12).sum() for time in found.seconds]
        np.testing.assert_array_equal(events.gradients, counts)  # the gradients of synchronous methods
        assert unit == pytest.approx(6 / (5 / 0.5 + 1 / 1.5))
        busy = 6 * found.seconds
        np.testing.assert_allclose(found.joules, 10 * busy + 1e-3 * found.bits)
    tx = entry.build(0.1, events)
    params, _, trace = adozoo.simulate_events(tx, lambda x, *_: x, jnp.ones((6, 10)), events)
    assert bool(jnp.isfinite(params).all())
    np.testing.assert_array_equal(trace["gradients"], events.gradients)


def test_paired_events_keep_one_thread_and_half_of_the_time():
    cluster = Cluster(5, lognormal(1.0, 0.3), exponential(0.1)).with_straggler(0, 5.0)
    entry, graph = ENTRIES["continuized_dual"], graphs.star(5)
    events, found = costs.asynchronous(entry, VECTOR, graph, cluster, 400.0, energy=energy.Energy(1.0, 0.0, 0.0))
    assert events.chi_1 > 0
    share = found.joules[-1] / found.seconds[-1] / 5  # busy seconds of all seconds
    gradient = np.array([5.0, 1, 1, 1, 1])
    rate = 1 / (2 * 4 * (5.0 + 0.1))  # each link's, a second; the hub, the straggler, has four of them
    assert share == pytest.approx(rate * sum(gradient[0] + gradient[1:]) / 5, rel=0.1)
    assert found.steps[-1] == pytest.approx(400, rel=0.1)
    timeline = clocks(cluster, graph, 60.0, 2, paired=True)
    for node in range(5):
        mine = np.isin(timeline.what, (COMPUTE, WAIT, EXCHANGE)) & (timeline.node == node)
        order = np.lexsort((timeline.end[mine], timeline.start[mine]))
        start, end = timeline.start[mine][order], timeline.end[mine][order]
        np.testing.assert_allclose(start[1:], end[:-1], atol=1e-12)  # never two things at once, and never nothing
    assert np.all(timeline.events[:, 0] == 1)


@given(st.floats(1e-3, 50.0), st.sampled_from(costs.Costs._fields))
def test_a_budget_is_not_exceeded_and_used_up(budget, axis):
    rises = np.random.default_rng(1).random((4, 20))
    found = costs.Costs(*(np.append(0.0, np.cumsum(rise)) for rise in rises))
    values, k = getattr(found, axis), costs.within(found, axis, budget)
    assert values[k] <= budget
    assert k == 20 or values[k + 1] > budget


def test_costs_are_functions_of_cluster_and_seed():
    ring = adozoo.mixing(graphs.ring(5))
    first, again = (cost("dsgd_atc", ring, RANDOM, 9) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = costs.synchronous(ENTRIES["dsgd_atc"], VECTOR, ring, RANDOM, 9, 4, MACHINE)
    assert not np.allclose(first.seconds[1:], other.seconds[1:])
    np.testing.assert_array_equal(first.bits, other.bits)


@pytest.mark.parametrize("family", CLUSTERS)
def test_named_clusters(family):
    cluster, plain = cluster_named(family, 8, 1e6), cluster_named("uniform", 8)
    assert (cluster.n, cluster.message_bytes) == (8, 1e6)
    slow = cluster.gradient_seconds(400, 0).mean(axis=0) / plain.gradient_seconds(400, 0).mean(axis=0)
    spread = np.log(cluster.slowness).std()
    expected = {
        "uniform": slow == pytest.approx(np.ones(8)),
        "straggler": slow == pytest.approx([4, *[1] * 7]),
        "heterogeneous": 0.4 < spread < 0.5 and cluster.slowness.mean() == pytest.approx(1),
        "slow_links": cluster.link_slowness[0].tolist() == [1.0] * 4 + [10.0] * 4,
        "weak": 15 < slow.mean() < 25 and cluster.bandwidth < plain.bandwidth / 10,
    }
    assert expected[family]
    assert cluster.latency.fixed


def test_fixed_durations_are_known():
    for durations, fixed in ((constant(0.0), True), (lognormal(1.0, 0.0), True), (exponential(1.0), False)):
        drawn = durations.draw(np.random.default_rng(0), 9)
        assert durations.fixed is fixed is bool(np.ptp(drawn) == 0)


def test_machines():
    assert energy.named(MACHINE) is MACHINE
    assert energy.MACHINES["volunteers"].joules_per_bit == pytest.approx(2.7e-5)
    for machine in energy.MACHINES.values():
        assert machine.source


RING, PLAIN = adozoo.mixing(graphs.ring(4)), Cluster(4, constant(1.0))
COSTS = costs.Costs(*np.arange(8.0).reshape(4, 2))
MISUSES = {
    "extra admits symmetric": lambda: cost("extra", adozoo.mixing(graphs.directed_ring(4)), PLAIN, 3),
    "Use costs.asynchronous": lambda: cost("acid", RING, PLAIN, 3),
    "Use costs.synchronous": lambda: costs.asynchronous(ENTRIES["extra"], VECTOR, graphs.ring(4), PLAIN, 3),
    "the cluster has 4 nodes, the mixing 5": lambda: cost("extra", adozoo.mixing(graphs.ring(5)), PLAIN, 3),
    "the cluster has 4 nodes, the graph 5": lambda: costs.asynchronous(
        ENTRIES["acid"], VECTOR, graphs.ring(5), PLAIN, 3
    ),
    "steps must be a positive": lambda: cost("extra", RING, PLAIN, 0),
    "gradients must be a positive": lambda: costs.asynchronous(
        ENTRIES["acid"], VECTOR, graphs.ring(4), PLAIN, math.inf
    ),
    "'second' is unknown. Did you mean seconds": lambda: costs.within(COSTS, "second", 1.0),
    "a budget of bits must be a positive number, got nan": lambda: costs.within(COSTS, "bits", math.nan),
    "'strangler:4' is unknown. Did you mean straggler": lambda: cluster_named("strangler:4", 4),
    "uniform takes no number": lambda: cluster_named("uniform:3", 4),
    "needs a number after the colon": lambda: cluster_named("straggler:much", 4),
    "the number of straggler must be a finite": lambda: cluster_named("straggler:-1", 4),
    "'labtop' is unknown. Did you mean laptop": lambda: energy.named("labtop"),
    "idle_watts must be at most": lambda: energy.Energy(1.0, 2.0, 0.0),
    "joules_per_bit must be": lambda: energy.Energy(1.0, 1.0, -1.0),
}


@pytest.mark.parametrize("message", MISUSES)
def test_misuse(message):
    with pytest.raises(ValueError, match=message):
        MISUSES[message]()
