"""Nodes that leave and return: what methods conserve, what stands still, and D-SGD node by node in numpy."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from cases import DIM, ENTRIES, NODES, PROBLEM, START
from hypothesis import given
from hypothesis import strategies as st

import adozoo
from adozoo import channel, graphs
from experiments import churn

RING = nx.Graph([*nx.cycle_graph(NODES).edges, (0, 2)])
STEPS = 24
THERE = churn.presence(NODES, STEPS, 0.4, seed=3, absence=4.0)
MIX = churn.mixing(RING, THERE)
MOVING = {"quasi_global_momentum", "svl"}
"""Momenta and integrals sum to zero over all nodes, and so not over those who are there, and move them."""


def _one_of_each_factory():
    seen = set()
    for name in churn.takes_churn():
        entry = ENTRIES[name]
        slow = entry.factory.__name__ in seen or entry.random or entry.leafwise
        seen.add(entry.factory.__name__)
        yield pytest.param(entry, id=name, marks=[pytest.mark.slow] if slow else [])


VARYING = list(_one_of_each_factory())


def test_presence_is_the_chain_that_was_asked_for():
    there = churn.presence(64, 20000, 0.2, seed=1, absence=10.0)
    left = there[:-1] & ~there[1:]
    assert there[0].all()
    # the chain forgets with (1 - r - l) a step, which leaves (2 - r - l) / (r + l) steps for each independent one
    error = np.sqrt(0.2 * 0.8 * (2 - 0.125) / 0.125 / there.size)
    assert abs((~there).mean() - 0.2) < 4 * error
    assert (~there).sum() / left.sum() == pytest.approx(10.0, rel=0.03)
    assert left.sum() / there[:-1].sum() == pytest.approx(0.025, rel=0.03)
    assert abs(np.corrcoef(there[100:, 0], there[100:, 1])[0, 1]) < 0.1


@given(st.integers(2, 6), st.floats(0, 0.9), st.integers(0, 99))
def test_two_are_always_there(n, away, seed):
    there = churn.presence(n, 60, away, seed, absence=9.5)
    assert there.sum(axis=1).min() >= 2
    np.testing.assert_array_equal(churn.presence(n, 40, away, seed, absence=9.5), there[:40])
    assert away > 0 or there.all()


@pytest.mark.parametrize("weights", churn.WEIGHTS)
def test_weights_are_those_of_the_graph_of_who_is_there(weights):
    mix = churn.mixing(RING, THERE, weights)
    make = adozoo.weights.max_degree if weights.endswith("max_degree") else adozoo.weights.metropolis
    assert mix.period == STEPS
    for step in (0, 5, 24 + 11):
        here = np.flatnonzero(THERE[step % STEPS])
        expected = np.eye(NODES)
        expected[np.ix_(here, here)] = make(nx.convert_node_labels_to_integers(RING.subgraph(here), ordering="sorted"))
        if weights.startswith("lazy"):
            expected = (np.eye(NODES) + expected) / 2
        matrix = np.asarray(mix.at(step).matrix)
        np.testing.assert_allclose(matrix, expected, atol=1e-12)
        assert (
            mix.links(step) == mix.links(jnp.asarray(step)) == np.count_nonzero(expected - np.diag(np.diag(expected)))
        )
    sent = channel.traffic(lambda mix: adozoo.dsgd(0.1, mix), mix, jnp.zeros((NODES, DIM)))
    assert sent.messages == pytest.approx(np.mean([mix.links(step) for step in range(STEPS)]))


def by_hand(learning_rate):
    """D-SGD, adapt then combine: node by node, among those who are there."""
    x = START.copy()
    hessians, centers = np.asarray(PROBLEM.matrices), np.asarray(PROBLEM.centers)
    for here in THERE:
        sent = {i: x[i] - learning_rate * hessians[i] @ (x[i] - centers[i]) for i in range(NODES) if here[i]}
        degree = {i: sum(j in sent for j in RING.neighbors(i)) for i in sent}
        new = x.copy()
        for i in sent:
            shares = {j: 1 / (1 + max(degree[i], degree[j])) for j in RING.neighbors(i) if j in sent}
            new[i] = (1 - sum(shares.values())) * sent[i] + sum(share * sent[j] for j, share in shares.items())
        x = new
    return x


def test_dsgd_node_by_node():
    tx = churn.method(ENTRIES["dsgd_atc"], 0.2, MIX)
    params, _, _ = adozoo.simulate(tx, PROBLEM.gradient, jnp.asarray(START), STEPS)
    np.testing.assert_allclose(params, by_hand(0.2), rtol=1e-10, atol=1e-12)


def compiled(tx):
    return optax.GradientTransformationExtraArgs(tx.init, jax.jit(tx.update))


def path(tx, gradient, params=START):
    """(params, state) before the first and after each of the steps."""
    x, state = jnp.asarray(params), tx.init(jnp.asarray(params))
    found = [(x, state)]
    for step in range(STEPS):
        updates, state = tx.update(gradient(x, step), state, x)
        x = x + updates
        found.append((x, state))
    return found


@pytest.mark.parametrize("entry", VARYING)
def test_absent_nodes_stand_still_and_the_mean_is_kept(entry):
    start = np.repeat(START[:1], NODES, 0) if entry.equal_start else START
    tx = compiled(churn.method(entry, 0.05, MIX))
    found = path(tx, PROBLEM.gradient, start)
    moved = np.zeros((STEPS, NODES), bool)
    for step, ((x, old), (y, new)) in enumerate(pairwise(found)):
        moved[step] = np.abs(np.asarray(y - x)).max(axis=1) > 0
        for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
            if jnp.ndim(a) and a.shape[0] == NODES:
                np.testing.assert_array_equal(a[~THERE[step]], b[~THERE[step]])
    assert not (moved & ~THERE).any()
    assert (moved == THERE).mean() > 0.9  # a node may have nobody to hear, and no gradient of its own to follow
    still = path(tx, lambda x, step: jnp.zeros_like(x), start)
    drift = np.abs(np.asarray(still[-1][0]).mean(0) - start.mean(0)).max()
    assert bool(drift < 1e-12) is (entry.name not in MOVING)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("aug_dgm", "dsgd_momentum", "sgp") else [pytest.mark.slow])
        for name in churn.takes_churn()
    ],
)
def test_where_nobody_leaves_it_is_the_method_itself(name):
    entry, mix = ENTRIES[name], churn.mixing(RING, np.ones((3, NODES), bool))
    start = np.repeat(START[:1], NODES, 0) if entry.equal_start else START
    plain = path(compiled(entry.build(0.05, mix)), PROBLEM.gradient, start)
    guarded = path(compiled(churn.method(entry, 0.05, mix)), PROBLEM.gradient, start)
    for (x, state), (y, other) in zip(plain, guarded, strict=True):
        np.testing.assert_array_equal(x, y)
        answers = adozoo.eval_params(state, x), adozoo.eval_params(other, y)
        np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("name", ["diging", "atc_tracking"])
def test_trackers_sum_to_the_last_gradients_of_all_nodes(name):
    """s_i = c_i + g_i, with c_i in the state and g_i node i's last gradient; absent nodes' included."""
    entry, last = ENTRIES[name], np.zeros((NODES, DIM))
    found = path(compiled(churn.method(entry, 0.05, MIX)), PROBLEM.gradient)
    for step, ((x, old), (_, new)) in enumerate(pairwise(found)):
        last = np.where(THERE[step][:, None], np.asarray(PROBLEM.gradient(x, step)), last)
        (kept,) = (leaf for leaf in jax.tree.leaves(new) if jnp.shape(leaf) == (NODES, DIM))
        (before,) = (leaf for leaf in jax.tree.leaves(old) if jnp.shape(leaf) == (NODES, DIM))
        np.testing.assert_allclose((np.asarray(kept) + last).sum(0), last.sum(0), atol=1e-10)
        assert step == 0 or np.abs(np.asarray(before)).max() > 1e-3  # each of them is far from zero


def test_tracking_finds_the_optimum_in_spite_of_churn():
    """Exactness survives: D-SGD does not get there, gradient tracking does."""
    there = churn.presence(NODES, 6000, 0.3, seed=5, absence=5.0)
    mix, errors = churn.mixing(RING, there), {}
    for name in ("diging", "dsgd_atc"):
        tx = churn.method(ENTRIES[name], 0.02, mix)
        params, _, _ = adozoo.simulate(tx, PROBLEM.gradient, jnp.asarray(START), 6000)
        errors[name] = np.abs(np.asarray(params) - np.asarray(PROBLEM.optimum)).max()
    assert errors["diging"] < 1e-6 < 1e-3 < errors["dsgd_atc"]


def test_who_takes_drops():
    ring, tree = adozoo.mixing(RING), adozoo.mixing(graphs.path(4))
    assert [churn.takes_drops(ENTRIES[name], ring) for name in ("dsgd_cta", "extra", "power_gossip")] == [True] * 3
    assert churn.takes_drops(ENTRIES["relay_sgd"], tree)
    assert churn.takes_drops(ENTRIES["dsgd_atc"], MIX)
    assert not churn.takes_drops(ENTRIES["extra"], MIX)
    assert not churn.takes_drops(ENTRIES["acid"], ring)
    assert not churn.takes_drops(ENTRIES["power_sgd"], adozoo.exact_mean(4))


MISUSES = {
    "n must be an integer of at least 2": lambda: churn.presence(1, 5, 0.1),
    "steps must be": lambda: churn.presence(4, 0, 0.1),
    "away must be a share": lambda: churn.presence(4, 5, 1.0),
    "absence must be a mean number": lambda: churn.presence(4, 5, 0.9, absence=5.0),
    "weights must be one of": lambda: churn.mixing(RING, THERE, "fastest"),
    "graph must be an undirected": lambda: churn.mixing(graphs.directed_ring(5), THERE),
    r"presence must be booleans \[period, 5\]": lambda: churn.mixing(RING, THERE[:, :4]),
    "extra does not admit": lambda: churn.method(ENTRIES["extra"], 0.1, MIX),
    "one graph a step": lambda: churn.method(ENTRIES["adom_plus_multi_consensus"], 0.1, MIX),
}


@pytest.mark.parametrize("message", MISUSES)
def test_misuse(message):
    with pytest.raises(ValueError, match=message):
        MISUSES[message]()
