"""The figures on event-driven methods that rest on theory: graphs, exchanges, what A2CiD2 is worth."""

import jax.numpy as jnp
import numpy as np
import pytest
import references

import adozoo
import theory
from paper_figures.acid import chi_table, consensus
from paper_figures.dadao import communication_cost

CONSTANTS = references.load("asynchronous_and_accelerated")["acid"]["acid_constants"]


@pytest.mark.parametrize("n", [8, 16])
def test_the_authors_exponential_graph(n):
    """The opposite worker counts twice."""
    graph, recorded = chi_table.exponential(n), CONSTANTS[f"exponential_{n}"]
    assert graph[0][n // 2]["weight"] == 2
    assert {weight for *_, weight in graph.edges(data="weight")} == {1.0, 2.0}
    rates = adozoo.resistance.normalize_rates(graph, "node_rate")
    np.testing.assert_allclose(rates.diagonal(), 1, rtol=1e-12)
    assert theory.chi(rates) == pytest.approx((recorded["chi1"], recorded["chi2"]), rel=1e-9)


@pytest.mark.parametrize("rounds", [1, 4])
def test_the_matrix_of_adom_plus_is_what_runs_follow(rounds):
    h, condition = jnp.array([1.0, 7.0, 3.0, 5.0]), jnp.array(9.0)
    matrix = np.asarray(communication_cost.adom_plus_step(h, condition, "star:4", rounds))
    laplacian = adozoo.resistance.normalize_rates(adozoo.graphs.star(4), "largest_eigenvalue").toarray()
    mix = adozoo.mixing(np.eye(4) - laplacian)
    tx = adozoo.adom_plus(mix, 1.0, 9.0, rounds=rounds, chi=4.0 if rounds == 1 else 2.0)
    x = jnp.array([[1.0], [-2.0], [0.5], [3.0]])
    run, _, _ = adozoo.simulate(tx, lambda x, *_: h[:, None] * x, x, steps=30)
    vector = np.zeros(len(matrix))
    vector[:4] = vector[5:9] = np.ravel(x)  # params x_g, and after the step count the iterate, which starts there
    np.testing.assert_allclose((np.linalg.matrix_power(matrix, 30) @ vector)[:4], np.ravel(run), atol=1e-12)


def test_powers_are_told_from_counts():
    """On the path, MSDA's rounds are whole numbers; the power settles as it grows."""
    n = np.array([64.0, 256.0])
    counts = np.stack([n, n**1.5, n**2], axis=1)[None]
    data = communication_cost.xr.Dataset(
        {"exchanges": (("graph", "n", "algorithm"), counts)}, {"graph": ["star"], "n": n}
    )
    np.testing.assert_allclose(communication_cost.powers(data, "star"), [1, 1.5, 2])
    assert list(map(float, communication_cost.theory_powers("star"))) == [1, 1.5, 2]


@pytest.mark.parametrize(("momentum", "heterogeneity"), [(0.9, 0.0), (0.0, 0.5)])
def test_worth_is_the_rate_of_equal_distances(momentum, heterogeneity):
    rate = consensus.worth(16, momentum, heterogeneity)
    ours = consensus.distance(16, 1.0, True, momentum, heterogeneity)
    assert consensus.distance(16, rate, False, momentum, heterogeneity) == pytest.approx(ours, rel=1e-3)
    assert 1 < rate < 2


def test_on_rings_it_does_not_matter_which_worker_differs():
    """The mean over an orthonormal basis of directions, zeta^2 = 1 each."""
    directions, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))
    found = [
        theory.acid_stationary(consensus.ring(8), 0.5, True, np.sqrt(8) * one, 1.0, np.full(8, 0.1), 0.5)
        for one in directions.T
    ]
    mean = np.mean([each.consensus_distance for each in found])
    assert consensus.distance(8, 1.0, True, 0.5, 1.0, 0.1) == pytest.approx(mean, rel=1e-9)


def test_runs_settle_at_the_exact_distance():
    mean, error = consensus.measured(1.0, True, 0.9, 200.0)
    exact = consensus.distance(16, 1.0, True, 0.9)
    assert abs(mean - exact) < 4 * error
    assert error < 0.05 * exact
