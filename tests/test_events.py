"""The event engine: rounds and levels equal one event after another; clocks, padding, vmap; what methods conserve."""

import functools

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused

import adozoo

DIM = 2


@st.composite
def records(draw):
    """A connected graph with rates, and events on it: bursts, ties in time and idle nodes included."""
    n = draw(st.sampled_from([2, 3, 6]))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    graph = nx.relabel_nodes(nx.random_labeled_tree(n, seed=int(rng.integers(10**6))), dict(enumerate(range(n))))
    graph.add_edges_from((int(i), int(j)) for i, j in rng.integers(0, n, (n, 2)) if i != j)
    for _, _, data in graph.edges(data=True):
        data["weight"] = float(rng.uniform(0.1, 3))
    links = np.array(graph.edges)
    rows, time = [], 0.0
    for _ in range(draw(st.integers(0, 40))):
        time += draw(st.sampled_from([0.0, 0.01, 0.3, 2.0]))
        if rng.random() < 0.4:
            rows.append((0, time, int(rng.integers(n)), -1))
        else:
            rows.append((1, time, *map(int, links[rng.integers(len(links))])))
    horizon = time + draw(st.sampled_from([0.01, 0.5]))
    return graph, rows, horizon, np.sort(rng.uniform(0, horizon, 2))


def padded(events):
    return adozoo.events.pad(events, 64, 48)


@functools.partial(jax.jit, static_argnames="accelerated")
def acid(events, start, targets, accelerated=True):
    tx = adozoo.acid(optax.sgd(0.1, momentum=0.5), events, accelerated)
    x, state, _ = adozoo.simulate_events(tx, lambda x, *_: x - targets, start, events)
    return jnp.stack([x, state.tilde])


def one_by_one(graph, rows, horizon, start, targets):
    """A2CiD2 with heavy-ball, every node moved on at every event."""
    eta, _, far = adozoo.acid_parameters(*adozoo.resistance.chi(graph))
    x, tilde, buffer, now = start.copy(), start.copy(), np.zeros_like(start), 0.0

    def move(time):
        kept = np.exp(-2 * eta * (time - now))
        mean, half = (x + tilde) / 2, (x - tilde) / 2
        return mean + kept * half, mean - kept * half

    for kind, time, i, j in rows:
        x, tilde = move(time)
        now = time
        if kind == 0:
            buffer[i] = 0.5 * buffer[i] + x[i] - targets[i]
            x[i] -= 0.1 * buffer[i]
            tilde[i] -= 0.1 * buffer[i]
        else:
            gap = x[i] - x[j]
            x[i], x[j] = x[i] - gap / 2, x[j] + gap / 2
            tilde[i], tilde[j] = tilde[i] - far * gap, tilde[j] + far * gap
    return np.stack(move(horizon))


@given(records(), st.sampled_from(["levels", "pairs"]))
def test_rounds_and_levels_equal_one_event_after_another(record, form):
    graph, rows, horizon, marks = record
    n = len(graph)
    rng = np.random.default_rng(0)
    start, targets = rng.normal(size=(2, n, DIM))
    events = adozoo.events.recorded(rows, n, graph, horizon, marks, form=form)
    expected = one_by_one(graph, rows, horizon, start, targets)
    for same in (events, events.in_levels(), padded(events).in_levels()):
        np.testing.assert_allclose(acid(padded(same), start, targets), expected, rtol=0, atol=1e-12)


@given(records())
def test_every_event_happens_once_and_nobody_is_in_two_places(record):
    graph, rows, horizon, marks = record
    n = len(graph)
    events = adozoo.events.recorded(rows, n, graph, horizon, marks, form="levels")
    kinds = np.array([kind for kind, *_ in rows], int)
    assert events.takes.sum() == events.gradients[-1] == (kinds == 0).sum()
    assert (np.sort(events.order[events.takes]) == np.flatnonzero(kinds == 0)).all()
    everyone = np.arange(n)
    pairs = 0
    for partner in events.meetings:
        assert (partner[partner] == everyone).all()
        pairs += (partner != everyone).sum() // 2
    assert pairs == events.communications[-1] == (kinds == 1).sum()
    assert not events.takes[events.marks].any()
    assert events.wait.sum() + events.waited.sum() == pytest.approx(n * horizon)  # each node lives through all of time
    assert (np.diff(events.marks) > 0).all()
    assert events.first[-1] == len(events.meetings)


@given(records(), st.integers(0, 10**6))
def test_what_a2cid2_conserves(record, seed):
    """Means of x and x~ agree and move by gradients only; x~ = x for the baseline; exchanges alone contract V."""
    graph, rows, horizon, marks = record
    n = len(graph)
    start = np.random.default_rng(seed).normal(size=(n, DIM))
    still = [row for row in rows if row[0] == 1]
    events = padded(adozoo.events.recorded(still, n, graph, horizon, marks))
    x, tilde = acid(events, start, start * 0)
    np.testing.assert_allclose(x.mean(0), start.mean(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(tilde.mean(0), start.mean(0), rtol=0, atol=1e-12)
    driven = padded(adozoo.events.recorded(rows, n, graph, horizon, marks))
    x, tilde = acid(driven, start, start[::-1])
    np.testing.assert_allclose(x.mean(0), tilde.mean(0), rtol=0, atol=1e-12)
    x, tilde = acid(driven, start, start[::-1], accelerated=False)
    np.testing.assert_allclose(x, tilde, rtol=0, atol=1e-15)


@jax.jit
def dadao(events, start, curvatures, condition):
    tx = adozoo.dadao(events, 1.0, condition, adozoo.dadao_parameters(1.0, condition, 1.0))
    _, state, _ = adozoo.simulate_events(tx, lambda x, *_: curvatures * (x - start[::-1]), start, events)
    return state.z, state.z_tilde


@given(records(), st.floats(1, 1e4), st.integers(0, 10**6))
def test_what_dadao_conserves(record, condition, seed):
    """z and z~ sum to zero when all nodes are at one time."""
    graph, rows, horizon, marks = record
    n = len(graph)
    rng = np.random.default_rng(seed)
    start, curvatures = rng.normal(size=(n, DIM)), rng.uniform(1, condition, (n, 1))
    events = padded(adozoo.events.recorded(rows, n, graph, horizon, marks, form="levels"))
    for z in dadao(events, start, curvatures, condition):
        np.testing.assert_allclose(z.sum(0) / max(1.0, float(jnp.abs(z).max())), 0, atol=1e-12)


def test_dadao_rests_at_the_optimum():
    problem = adozoo.problems.random_quadratic(4, DIM, strong_convexity=0.5)
    events = adozoo.events.poisson(adozoo.dadao_rates(adozoo.graphs.ring(4)), 20.0)
    tx = adozoo.dadao(events, 0.5, 1.0)
    x = adozoo.replicate(problem.optimum, 4)
    y = problem.exact_gradient(x) - 0.25 * x  # nu = mu / 2
    z = -y - 0.25 * x
    state = tx.init(x)._replace(x_tilde=x, y=y, y_tilde=y, z=z, z_tilde=z)
    np.testing.assert_allclose(z.sum(0), 0, atol=1e-12)
    update = jax.jit(tx.update)
    for _ in range(8):
        updates, state = update(problem.exact_gradient(x), state, x)
        np.testing.assert_allclose(updates, 0, atol=1e-12)
        x = optax.apply_updates(x, updates)


def test_clocks_have_their_rates():
    """Counts of 2000 units of time within five standard deviations; each graph of a cycle while it lasts."""
    path, star = adozoo.graphs.path(4), adozoo.graphs.star(4)
    path.edges[1, 2]["weight"] = 3.0
    events = adozoo.events.poisson([path, star], 2000.0, gradient_rates=[1, 0.5, 2, 0], dwell=5.0, form="pairs")
    counts = np.bincount(np.nonzero(events.takes)[1], minlength=4)
    for count, mean in zip(counts, (2000, 1000, 4000, 0), strict=True):
        assert abs(count - mean) <= 5 * mean**0.5
    links = {frozenset(link): 1000.0 for link in path.edges} | {frozenset((1, 2)): 3000.0}
    for link in star.edges:
        links[frozenset(link)] = links.get(frozenset(link), 0.0) + 1000
    met = [frozenset(pair) for pair in events.meetings.tolist()]
    assert set(met) == set(links)
    for link, mean in links.items():
        assert abs(met.count(link) - mean) <= 5 * mean**0.5
    assert (events.chi_1, events.chi_2) == pytest.approx(np.max([adozoo.resistance.chi(g) for g in (path, star)], 0))


def test_deterministic_clocks():
    graph = adozoo.graphs.path(3)
    graph.edges[0, 1]["weight"] = 2.0
    phases = [0, 0, 0, 0.5, 0]
    events = adozoo.events.deterministic(graph, 2.0, [1.0, 0.5, 0.0], phases, form="pairs")
    assert events.takes.sum(0).tolist() == [2, 1, 0]  # at 1 and 2; at 2; never
    met = np.sort(events.meetings, axis=1).tolist()
    assert sorted(met) == [[0, 1]] * 3 + [[1, 2]] * 2  # at .75, 1.25, 1.75; at 1 and 2
    assert events.waited.sum() + events.wait.sum() == pytest.approx(6)


def test_lists_of_one_length_share_a_program_and_run_side_by_side():
    ring = adozoo.resistance.normalize_rates(adozoo.graphs.ring(6), "node_rate")
    many = [adozoo.events.poisson(ring, 8.0, seed=seed, marks=2) for seed in range(4)]
    start, targets = np.random.default_rng(1).normal(size=(2, 6, DIM))
    together = jax.vmap(acid, (0, None, None))(adozoo.events.stack(many), start, targets)
    run = jax.jit(acid)
    for events, found in zip(many, together, strict=True):
        np.testing.assert_allclose(run(padded(events.in_levels()), start, targets), found, rtol=0, atol=1e-12)
    assert run._cache_size() == 1


def test_inner_optimisers_stand_still_where_no_gradient_is_taken():
    """Adam's counts are those of each node's own gradients; padded steps change nothing."""
    events = adozoo.events.recorded([(0, 0.1, 0, -1), (0, 0.2, 0, -1), (0, 0.3, 1, -1)], 3, adozoo.graphs.path(3))
    events = padded(events)
    tx = adozoo.acid(optax.adam(0.1), events)
    x = jnp.ones((3, DIM))
    x, state, _ = adozoo.simulate(tx, lambda x, *_: x, x, events.rounds + 7)
    assert state.inner[0].count.tolist() == [2, 1, 0]
    assert bool((x[2] == 1).all())


def test_traffic_counts_exchanges():
    ring = adozoo.graphs.ring(6)
    events = adozoo.events.poisson(ring, 8.0)
    found = adozoo.channel.traffic(
        lambda events: adozoo.dadao(events, 1.0, 2.0, adozoo.dadao_parameters(1.0, 2.0, 1.0)), events, jnp.zeros((6, 5))
    )
    assert found.bits * int(events.marks[-1]) == pytest.approx(2 * int(events.communications[-1]) * 5 * 64)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: adozoo.events.poisson(adozoo.graphs.ring(4), 0.0), ["horizon", "0.0", "positive"]),
        (lambda: adozoo.events.poisson(adozoo.graphs.ring(4), 2.0, marks=[1.0, 3.0]), ["marks", "[0, 2.0]"]),
        (
            lambda: adozoo.events.poisson(adozoo.graphs.ring(4), 2.0, gradient_rates=[1, 2]),
            ["gradient_rates", "4 nodes"],
        ),
        (lambda: adozoo.events.poisson([adozoo.graphs.ring(4)] * 2, 2.0), ["dwell", "None"]),
        (lambda: adozoo.events.poisson(adozoo.graphs.ring(4), 2.0, form="fast"), ["form", "'fast'"]),
        (lambda: adozoo.events.recorded([(1, 0.5, 0, 0)], 2), ["events must be", "[1.0, 0.5, 0.0, 0.0]"]),
        (lambda: adozoo.events.recorded([(0, 0.5, 0, -1), (0, 0.4, 0, -1)], 2), ["times", "Sort"]),
        (lambda: adozoo.events.recorded([(0, float("nan"), 0, -1)], 2), ["times", "nan"]),
        (lambda: adozoo.events.recorded([], 2, adozoo.graphs.ring(3)), ["graph", "n = 2", "3"]),
        (lambda: adozoo.events.recorded([(0, 0.5, 0, -1)], 2, lags=[1]), ["lags[0] = 1", "node 0"]),
        (lambda: adozoo.events.recorded([(0, 0.5, 0, -1)], 2, paired=True), ["paired", "exchanges"]),
        (lambda: adozoo.events.pad(adozoo.events.recorded([(0, 0.5, 0, -1)], 2), 1, 0), ["rounds = 1", "Raise"]),
        (lambda: adozoo.events.stack([]), ["number of nodes"]),
        (lambda: adozoo.acid(optax.sgd(0.1), adozoo.events.recorded([], 2)), ["chi_1", "graph=", "nan"]),
        (
            lambda: adozoo.dadao(adozoo.events.poisson(adozoo.graphs.path(5), 1.0), 1.0, 2.0),
            ["2 chi_1 chi_2 <= 1", "dadao_rates"],
        ),
        (lambda: adozoo.continuized_dual(adozoo.events.poisson(adozoo.graphs.path(5), 1.0), 1.0, 2.0), ["paired=True"]),
    ],
)
def test_misuse(call, words):
    assert_refused(call, *words)
