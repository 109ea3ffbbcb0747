"""Relaxed mixing: W_theta = I + theta (W - I), in every form that a mixing is used in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adozoo

GRAPHS = {
    "rolls": adozoo.graphs.ring(7),
    "table": adozoo.graphs.path(6),
    "mean": adozoo.graphs.complete(4),
    "dense": adozoo.graphs.erdos_renyi(6, 0.6, 1),
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("amount", [0.3, 0.5, 1.0, 1.4])
def test_is_the_relaxed_matrix(graph, amount):
    base = adozoo.mixing(graph)
    relaxed = adozoo.relaxed(base, amount)
    expected = np.eye(base.n) + amount * (np.asarray(base.matrix) - np.eye(base.n))
    x = np.random.default_rng(0).normal(size=(base.n, 3))
    np.testing.assert_allclose(relaxed(x), expected @ x, atol=1e-14)
    np.testing.assert_allclose(relaxed.matrix, expected, atol=1e-15)
    np.testing.assert_allclose(relaxed.sparse_matrix().toarray(), expected, atol=1e-15)
    assert relaxed.links() == base.links()


def test_schedules_stay_schedules():
    base = adozoo.one_peer_exponential(8)
    relaxed = adozoo.relaxed(base, 0.5)
    assert relaxed.varying
    assert relaxed.period == 3
    x = np.random.default_rng(0).normal(size=(8, 2))
    for step in range(4):
        expected = (np.eye(8) + np.asarray(base.at(step).matrix)) / 2
        np.testing.assert_allclose(relaxed(x, step), expected @ x, atol=1e-14)
        np.testing.assert_allclose(jax.jit(relaxed)(x, step), expected @ x, atol=1e-14)


def test_the_amount_may_be_traced():
    base = adozoo.mixing(adozoo.graphs.ring(5))
    x = np.arange(5.0)
    rows = jax.vmap(lambda amount: adozoo.relaxed(base, amount)(x))(jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(rows[1], base(x), atol=1e-15)
    np.testing.assert_allclose(rows[0], (base(x) + x) / 2, atol=1e-15)


def test_traffic_and_delays_go_through_it():
    """Whoever watches or delays the messages of the mixing below does so for the relaxed one."""
    base, x = adozoo.mixing(adozoo.graphs.ring(5)), jnp.ones((5, 3))

    def lazy(mix):
        return adozoo.dsgd(0.1, adozoo.relaxed(mix, 0.5))

    assert adozoo.channel.traffic(lazy, base, x) == adozoo.channel.traffic(lambda mix: adozoo.dsgd(0.1, mix), base, x)
    late = adozoo.channel.delayed(lazy, base, 0)
    start = jnp.arange(15.0).reshape(5, 3)
    runs = [adozoo.simulate(tx, lambda x, step, key: 0 * x, start, 4)[0] for tx in (late, lazy(base))]
    np.testing.assert_allclose(*runs, atol=1e-13)


def test_faults_go_around_it():
    base = adozoo.relaxed(adozoo.mixing(adozoo.graphs.ring(5)), 0.5)
    lossy = adozoo.channel.recorded_drops(base, np.zeros((1, 5, 5)), "keep")
    x = np.arange(5.0)
    np.testing.assert_allclose(lossy(x, 0), x)


@pytest.mark.parametrize("amount", [0, -0.5, 2.5, float("nan"), "lazy"])
def test_refuses_other_amounts(amount):
    with pytest.raises(ValueError, match="amount"):
        adozoo.relaxed(adozoo.exact_mean(3), amount)
