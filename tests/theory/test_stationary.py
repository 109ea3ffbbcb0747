"""Stationary errors under gradient noise, against recorded values, closed forms and runs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references

import adozoo
import theory
from theory.stationary import stationary_error, stein

LINEAR = sorted(name for name, entry in adozoo.zoo.entries().items() if entry.readable)

QUICK = ["dsgd_momentum", "extra", "local_dsgd", "svl"]


def factory(name, learning_rate, **options):
    entry = adozoo.zoo.entry(name)
    return lambda mix: entry.build(learning_rate, mix, **options)


def over(name, mix):
    entry = adozoo.zoo.entry(name)
    if "tree" in entry.mixings:
        return adozoo.mixing(adozoo.graphs.path(mix.n))
    return mix if entry.admits(mix) else adozoo.exact_mean(mix.n)


@pytest.mark.parametrize(("recorded", "name"), references.PROTOTYPE.items())
def test_recorded_stationary_errors(recorded, name):
    case = references.load("theory_checks")["case"]
    inputs = case["inputs"]
    problem = adozoo.problems.quadratic(inputs["A"], inputs["b"])
    found = stationary_error(factory(name, inputs["alpha"]), problem, adozoo.mixing(np.array(inputs["W"])), 1.0)
    assert found.node_error == pytest.approx(case["stationary_node_mse"][recorded], abs=1e-12)
    assert found.mean_error == pytest.approx(case["stationary_avg_mse"][recorded], abs=1e-12)
    assert found.rate == pytest.approx(case["rho_noise"][recorded], abs=1e-12)
    assert found.bias_node == pytest.approx(case["bias_from_x0_zero"][recorded], abs=1e-12)
    assert found.explanation == ""


def test_dgd_has_its_closed_form():
    """sum_j (eta sigma)^2 / (1 - (lambda_j - eta a)^2) / n, over the eigenvalues of W."""
    mix = adozoo.mixing(adozoo.graphs.ring(8))
    problem = adozoo.problems.quadratic(np.full((8, 1, 1), 0.7), np.zeros((8, 1)))
    values = np.linalg.eigvalsh(np.asarray(mix.matrix))
    expected = np.mean(0.04 * 2.25 / (1 - (values - 0.2 * 0.7) ** 2))
    found = stationary_error(factory("dsgd_cta", 0.2), problem, mix, 2.25)
    assert found.node_error == pytest.approx(expected, abs=1e-14)
    assert found.mean_error == pytest.approx(0.04 * 2.25 / 8 / (1 - (1 - 0.14) ** 2), abs=1e-14)


@pytest.mark.parametrize("mix", [adozoo.mixing(adozoo.graphs.ring(8)), adozoo.mixing(adozoo.graphs.directed_ring(8))])
def test_atc_divides_the_variance_by_the_effective_number_of_neighbours(mix):
    decay = (1 - 0.2) ** 2
    problem = adozoo.problems.quadratic(np.ones((8, 1, 1)), np.zeros((8, 1)))
    found = stationary_error(factory("dsgd_atc", 0.2), problem, mix, 1.0)
    alone = 0.04 / (1 - decay)
    assert alone / found.node_error == pytest.approx(theory.effective_neighbors(mix, decay), abs=1e-12)


def test_published_order_of_the_methods_on_a_ring():
    """All methods have one variance of the mean; the nodes' differ by up to 14 times."""
    problem = adozoo.problems.quadratic(np.ones((8, 1, 1)), np.zeros((8, 1)))
    lazy = adozoo.mixing(adozoo.graphs.ring(8))
    names = ["diging", "extra", "dsgd_cta", "nids", "dsgd_atc", "aug_dgm"]
    errors = [stationary_error(factory(name, 0.2), problem, lazy, 1.0) for name in names]
    np.testing.assert_allclose([found.mean_error for found in errors], 0.04 / 8 / 0.36, atol=1e-14)
    nodes = [found.node_error for found in errors]
    assert nodes == sorted(nodes, reverse=True)
    np.testing.assert_allclose(nodes, [0.2959, 0.0696, 0.0581, 0.0418, 0.0269, 0.0202], atol=5e-5)


def test_all_forms_of_the_covariance_agree():
    rng = np.random.default_rng(0)
    n, d = 5, 2
    problem = adozoo.problems.random_quadratic(n, d, seed=1)
    mix = adozoo.mixing(adozoo.graphs.ring(n))
    half = rng.normal(size=(d, d))
    each = half @ half.T
    forms = [each, np.broadcast_to(each, (n, d, d)), np.kron(np.eye(n), each)]
    found = [stationary_error(factory("extra", 0.3), problem, mix, form) for form in forms]
    for other in found[1:]:
        np.testing.assert_allclose(other.covariance, found[0].covariance, atol=1e-14)
    scalar = stationary_error(factory("extra", 0.3), problem, mix, 0.25)
    default = stationary_error(factory("extra", 0.3), adozoo.problems.random_quadratic(n, d, noise=0.5, seed=1), mix)
    assert scalar.node_error == pytest.approx(default.node_error, rel=1e-12)
    flat = scalar.covariance.reshape(n * d, n * d)
    np.testing.assert_allclose(flat, flat.T, atol=1e-15)
    assert np.linalg.eigvalsh(flat)[0] > 0
    assert scalar.node_error == pytest.approx(np.trace(flat) / n)


@pytest.mark.parametrize(
    ("noise", "message"),
    [(np.ones(3), "must be a number"), (-1.0, "positive semi-definite"), ([[1.0, 2.0], [0.0, 1.0]], "symmetric")],
)
def test_bad_covariances_are_refused(noise, message):
    problem = adozoo.problems.random_quadratic(4, 2)
    with pytest.raises(ValueError, match=message):
        stationary_error(factory("extra", 0.3), problem, adozoo.exact_mean(4), noise)


def test_a_problem_without_noise_needs_a_covariance():
    with pytest.raises(ValueError, match="adds no noise"):
        stationary_error(factory("extra", 0.3), adozoo.problems.random_quadratic(4, 2), adozoo.exact_mean(4))


def test_an_unstable_method_has_an_infinite_error():
    problem = adozoo.problems.random_quadratic(5, 2)
    found = stationary_error(factory("extra", 3.0), problem, adozoo.mixing(adozoo.graphs.ring(5)), 1.0)
    assert np.isinf([found.node_error, found.mean_error, found.node_mse]).all()
    assert found.rate > 1
    assert "not stable" in found.explanation


def test_a_conserved_quantity_that_noise_moves_takes_a_random_walk():
    """The state sums g - x, which is zero on f = x^2 / 2 but for the noise."""
    flat = adozoo.problems.quadratic(np.ones((3, 1, 1)), np.zeros((3, 1)))
    walk = optax.GradientTransformation(
        lambda params: jnp.zeros_like(params),
        lambda grads, state, params=None: (-0.1 * grads, state + grads - params),
    )
    found = stationary_error(lambda mix: walk, flat, adozoo.exact_mean(3), 1.0)
    assert np.isinf(found.node_error)
    assert "random walk" in found.explanation


def test_periodic_schedules_settle_to_their_own_stein_equation():
    mixes = [adozoo.mixing(adozoo.graphs.ring(6)), adozoo.mixing(adozoo.graphs.star(6))]
    problem = adozoo.problems.random_quadratic(6, 2, strong_convexity=0.3, seed=2)
    found = stationary_error(factory("dsgd_atc", 0.4), problem, adozoo.cycle(mixes), 1.0)
    blocks = np.zeros((12, 12))
    for i, matrix in enumerate(np.asarray(problem.matrices)):
        blocks[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = matrix
    steps = [np.kron(np.asarray(mix.matrix), np.eye(2)) for mix in mixes]
    covariance = np.zeros((12, 12))
    for t in range(400):
        local = np.eye(12) - 0.4 * blocks
        covariance = steps[t % 2] @ (local @ covariance @ local.T + 0.16 * np.eye(12)) @ steps[t % 2].T
    np.testing.assert_allclose(found.covariance.reshape(12, 12), covariance, atol=1e-13)
    assert found.rate < 1


@pytest.mark.parametrize("name", QUICK + [pytest.param(n, marks=pytest.mark.slow) for n in LINEAR if n not in QUICK])
def test_runs_with_noise_agree(name):
    """Many nodes' worth of runs at once: the mean over runs and time lies within its confidence interval."""
    problem = adozoo.problems.random_quadratic(5, 2, strong_convexity=0.5, heterogeneity=1.0, noise=0.4, seed=4)
    mix = over(name, adozoo.mixing(adozoo.graphs.ring(5)))
    found = stationary_error(factory(name, 0.25), problem, mix)
    limit = jnp.asarray(theory.limit(factory(name, 0.25), problem, mix))
    period = 2 if name == "local_dsgd" else 1
    metrics = {
        "node": lambda x: jnp.sum((x - limit) ** 2) / 5,
        "mean": lambda x: jnp.sum((x - limit).mean(0) ** 2),
        "optimum": lambda x: jnp.sum((x - problem.optimum[None]) ** 2) / 5,
    }

    def run(key):
        trace = adozoo.simulate(
            factory(name, 0.25)(mix), problem.gradient, problem.init(), 700, key=key, metrics=metrics, every=period
        )[2]
        return {metric: trace[metric][150:].mean() for metric in metrics}

    means = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 256))
    expected = {"node": found.node_error, "mean": found.mean_error, "optimum": found.node_mse}
    for metric, value in expected.items():
        samples = np.asarray(means[metric])
        standard_error = samples.std(ddof=1) / np.sqrt(samples.size)
        assert abs(samples.mean() - value) < 4 * standard_error, metric
        assert standard_error < 0.02 * value, metric


def test_logistic_regression_to_first_order_in_the_noise():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(4, 12, 2))
    labels = np.sign(features @ [1.0, -2.0] + rng.normal(size=(4, 12)))
    problem = adozoo.problems.logistic(features, labels, 0.3, noise=0.02)
    mix = adozoo.mixing(adozoo.graphs.ring(4))
    found = stationary_error(factory("extra", 0.8), problem, mix)
    limit = jnp.asarray(theory.limit(factory("extra", 0.8), problem, mix))

    def run(key):
        metric = {"node": lambda x: jnp.sum((x - limit) ** 2) / 4}
        tx = factory("extra", 0.8)(mix)
        return adozoo.simulate(tx, problem.gradient, problem.init(), 900, key=key, metrics=metric)[2]["node"][300:]

    samples = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), 256))).mean(1)
    standard_error = samples.std(ddof=1) / 16
    assert abs(samples.mean() - found.node_error) < 4 * standard_error
    assert standard_error < 0.02 * found.node_error


def test_stein_keeps_its_digits_next_to_instability():
    gap = 1e-9
    assert stein(np.array([[1 - gap]]), np.eye(1))[0, 0] == pytest.approx(1 / (gap * (2 - gap)), rel=1e-6)
    rng = np.random.default_rng(0)
    transition = rng.normal(size=(6, 6))
    transition *= 0.99 / np.abs(np.linalg.eigvals(transition)).max()
    covariance = stein(transition, np.eye(6))
    np.testing.assert_allclose(covariance, transition @ covariance @ transition.T + np.eye(6), rtol=1e-12)
