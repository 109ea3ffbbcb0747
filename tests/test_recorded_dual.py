"""Dual-oracle and variance-reduced methods against recorded trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

import adozoo

RECORDED = references.load("asynchronous_and_accelerated")
RING = RECORDED["base"]["deterministic_ring5"]
SAMPLED = RECORDED["base"]["stochastic_ring4"]
MSDA = RECORDED["dadao"]["msda_ring6"]
CLOSE = {"rtol": 0, "atol": 1e-9}


def from_laplacian(laplacian):
    """W = I - L, whose gossip matrix is L itself."""
    return adozoo.mixing(np.eye(len(laplacian)) - np.asarray(laplacian))


def answers(tx, gradient, start, steps):
    """The evaluated params after each step."""
    return np.asarray(adozoo.simulate(tx, gradient, jnp.asarray(start, float), steps, metrics=lambda x: x)[2])


def assert_recorded(path, recorded, first):
    """`path[k - first]` is what was recorded as number k."""
    for number, expected in recorded["traj"].items():
        np.testing.assert_allclose(path[int(number) - first], expected, **CLOSE)


def ring_problem():
    H, b = np.array(RING["H"]), np.array(RING["b"])
    return adozoo.problems.quadratic(H, np.linalg.solve(H, b[..., None])[..., 0])


@pytest.mark.parametrize("name", ["ssda", "adom"])
def test_dual_methods_on_a_ring(name):
    """Recorded from zero dual variables; gossip by the Laplacian. Number k is theta^k, the answer after k + 1 steps."""
    problem, mix = ring_problem(), from_laplacian(RING["Laplacian_unit"])
    tx = getattr(adozoo, name)(mix, RING["mu"], RING["L"])
    assert_recorded(answers(tx, problem.dual_gradient, problem.init(), 26), RING[name], 0)


def test_the_scale_of_the_gossip_matrix_does_not_matter():
    problem, laplacian = ring_problem(), np.array(RING["Laplacian_unit"])
    for factory in (adozoo.ssda, adozoo.msda, adozoo.adom):
        paths = [
            answers(
                factory(from_laplacian(c * laplacian), RING["mu"], RING["L"]), problem.dual_gradient, problem.init(), 9
            )
            for c in (1, 0.2)
        ]
        np.testing.assert_allclose(*paths, rtol=0, atol=1e-12)


def least_squares_of_msda():
    """The recorded loss is a mean of squares, without 1/2."""
    rows, labels = np.array(MSDA["data"]), np.array(MSDA["labels"])
    return adozoo.problems.least_squares(rows, labels, weights=np.full(labels.shape, 2 / labels.shape[1]))


def test_msda_of_the_authors_of_dadao():
    """Recorded: the dual variables X^k, before the step that is k."""
    problem = least_squares_of_msda()
    laplacian = np.zeros((6, 6))
    for i, j in MSDA["edges"]:
        laplacian[[i, j], [i, j]] += 1 / len(MSDA["edges"])
        laplacian[[i, j], [j, i]] -= 1 / len(MSDA["edges"])
    assert problem.constants == pytest.approx((MSDA["mu"], MSDA["L"]), rel=1e-12)
    tx = adozoo.msda(from_laplacian(laplacian), MSDA["mu"], MSDA["L"])
    x, state = problem.init(), tx.init(problem.init())
    step = jax.jit(lambda x, state: tx.update(problem.dual_gradient(x), state, x))
    duals = []
    for _ in range(max(record["k"] for record in MSDA["traj"]) + 1):
        updates, state = step(x, state)
        x = x + updates
        duals.append(x)
    for record in MSDA["traj"]:
        np.testing.assert_allclose(duals[record["k"]], record["X"], **CLOSE)
    np.testing.assert_allclose(problem.dual_gradient(x), MSDA["primal_at_end"], **CLOSE)
    np.testing.assert_allclose(problem.optimum, MSDA["x_star"], **CLOSE)


def sampled_problem(l2):
    rows, labels = np.array(SAMPLED["A"]), np.array(SAMPLED["y"])
    problem = adozoo.problems.least_squares(rows, labels, l2)
    mix = adozoo.mixing(np.array(SAMPLED["W_metropolis"]))
    return problem, mix, rows.shape[1]


def component_gradients(problem, start, components):
    """[n, components, d], at one start for all nodes."""
    at = adozoo.replicate(jnp.asarray(start), problem.n)
    found = [problem.component_gradient(at, jnp.full(problem.n, j)) for j in range(components)]
    return jnp.stack(found, axis=1)


def test_gt_saga_from_a_full_table():
    recorded = SAMPLED["gt_saga"]
    problem, mix, components = sampled_problem(0.0)
    samples = adozoo.recorded_samples(recorded["idx"], components)
    table = component_gradients(problem, SAMPLED["x0"], components)
    tx = adozoo.gt_saga(recorded["alpha"], mix, samples, table)
    start = adozoo.replicate(jnp.asarray(SAMPLED["x0"]), problem.n)
    assert_recorded(answers(tx, problem.sampled_gradient(samples), start, 30), recorded, 1)


def test_dvr_from_a_full_table():
    """Recorded from zero; gossip by the unit Laplacian over its largest eigenvalue, whatever its scale."""
    recorded = SAMPLED["dvr"]
    problem, mix, components = sampled_problem(recorded["sigma"])
    samples = adozoo.recorded_samples(recorded["idx"], components)
    coins = adozoo.recorded_coins(recorded["coins"])
    table = component_gradients(problem, np.zeros(problem.dim), components)
    tx = adozoo.dvr(mix, recorded["sigma"], problem.component_smoothness, samples, coins, table)
    assert_recorded(answers(tx, problem.sampled_gradient(samples), problem.init(), 60), recorded, 1)
    np.testing.assert_allclose(problem.optimum, recorded["x_star_regularised"], **CLOSE)
