"""Exact rates and limits, against recorded values, closed forms and runs."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references

import adozoo
import theory

LINEAR = sorted(name for name, entry in adozoo.zoo.entries().items() if entry.readable)


def factory(name, learning_rate, **options):
    entry = adozoo.zoo.entry(name)
    return lambda mix: entry.build(learning_rate, mix, **options)


def over(name, mix):
    entry = adozoo.zoo.entry(name)
    if "tree" in entry.mixings:
        return adozoo.mixing(adozoo.graphs.heap_binary_tree(mix.n))
    return mix if entry.admits(mix) else adozoo.exact_mean(mix.n)


def bias(problem, params):
    return np.sqrt(np.mean(np.sum((params - np.asarray(problem.optimum)) ** 2, axis=1)))


@pytest.mark.parametrize(("recorded", "name"), references.PROTOTYPE.items())
def test_recorded_rates_and_biases(recorded, name):
    case = references.load("theory_checks")["case"]
    inputs = case["inputs"]
    problem = adozoo.problems.quadratic(inputs["A"], inputs["b"])
    found = theory.linearize(factory(name, inputs["alpha"]), problem, adozoo.mixing(np.array(inputs["W"])))
    assert found.rate == pytest.approx(case["rate"][recorded], abs=1e-12)
    assert bias(problem, found.params) == pytest.approx(case["bias_from_x0_zero"][recorded], abs=1e-12)
    assert found.residual < 1e-13


def modal_roots(name, x, lam):
    """The roots of the modal polynomial for Hessian a I, with x = learning rate * a and an eigenvalue lam != 1 of W."""
    half = (1 + lam) / 2
    return np.roots(
        {
            "dsgd_cta": [1, x - lam],
            "dsgd_atc": [1, -lam * (1 - x)],
            "diging": [1, x - 2 * lam, lam**2 - x],
            "atc_tracking": [1, -2 * lam + lam * x, lam**2 - lam * x],
            "aug_dgm": [1, lam**2 * x - 2 * lam, lam**2 * (1 - x)],
            "extra": [1, x - 1 - lam, half - x],
            "nids": [1, -half * (2 - x), half * (1 - x)],
            "exact_diffusion": [1, -half * (2 - x), half * (1 - x)],
            "d2": [1, -lam * (2 - x), lam * (1 - x)],
        }[name]
    )


@pytest.mark.parametrize(
    "name", ["dsgd_cta", "dsgd_atc", "diging", "atc_tracking", "aug_dgm", "extra", "nids", "exact_diffusion", "d2"]
)
@pytest.mark.parametrize("x", [0.1, 0.35])
def test_common_hessian_has_the_modal_rate(name, x):
    mix = adozoo.mixing(adozoo.graphs.erdos_renyi(9, 0.4, 3), weights="max_degree")  # lambda_n > -1/3, for D2
    eigenvalues = np.linalg.eigvalsh(np.asarray(mix.matrix))[:-1]
    expected = max([1 - x, *(np.abs(modal_roots(name, x, lam)).max() for lam in eigenvalues)])
    problem = adozoo.problems.quadratic(2 * np.ones((9, 1, 1)), np.random.default_rng(0).normal(size=(9, 1)))
    assert theory.exact_rate(factory(name, x / 2), problem, mix) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("dsgd_cta", lambda low: 1 + low),
        ("diging", lambda low: (1 + low) ** 2 / 2),
        ("aug_dgm", lambda low: min(2, (1 + low) ** 2 / (2 * low**2))),
        ("extra", lambda low: (5 + 3 * low) / 4),
        ("nids", lambda low: 2),
        ("exact_diffusion", lambda low: 2),
    ],
)
def test_largest_stable_steps(name, limit):
    mix = adozoo.mixing(adozoo.graphs.ring(8))
    edge = limit(-1 / 3)
    problem = adozoo.problems.quadratic(np.ones((8, 1, 1)), np.arange(8.0)[:, None])
    assert theory.exact_rate(factory(name, edge * (1 - 1e-6)), problem, mix) < 1
    assert theory.exact_rate(factory(name, edge * (1 + 1e-6)), problem, mix) > 1


@pytest.mark.parametrize("name", LINEAR)
def test_a_run_converges_at_the_exact_rate_to_the_exact_limit(name):
    problem = adozoo.problems.random_quadratic(7, 2, strong_convexity=0.3, heterogeneity=1.0, seed=4)
    mix = over(name, adozoo.mixing(adozoo.graphs.ring(7)))
    step = 0.3 if theory.exact_rate(factory(name, 0.3), problem, mix) < 1 else 0.1
    found = theory.linearize(factory(name, step), problem, mix)
    metrics = {"distance": lambda params: jnp.linalg.norm(params - jnp.asarray(found.params))}
    tx = factory(name, step)(mix)
    every = found.period
    _, _, trace = adozoo.simulate(tx, problem.gradient, problem.init(), 240 * every, metrics=metrics, every=every)
    distance = np.asarray(trace["distance"])
    assert distance[-1] < 2e-3 * distance[0]
    fit = theory.fit_rate(distance, every=every)
    assert abs(fit.rate - found.rate) < max(3e-3, fit.uncertainty)  # complex modes oscillate within the fit's window
    assert (bias(problem, found.params) < 1e-10) == adozoo.zoo.entry(name).exact


def test_large_and_small_spectral_radii_agree():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(300, 300)))[0]
    eigenvalues = np.append(rng.uniform(-0.99, 0.99, 298), [0.9991, -0.999])
    matrix = basis @ np.diag(eigenvalues) @ basis.T
    assert theory.linear.spectral_radius(matrix) == pytest.approx(0.9991, abs=1e-11)
    assert theory.linear.spectral_radius(3 * matrix) == pytest.approx(3 * 0.9991, abs=1e-10)
    assert theory.linear.spectral_radius(np.zeros((300, 300))) == 0


@pytest.mark.parametrize(
    ("mix", "period"),
    [
        (adozoo.one_peer_exponential(8), 3),
        (adozoo.gossip_every(adozoo.mixing(adozoo.graphs.ring(8)), 4), 4),
        (adozoo.cycle([adozoo.mixing(adozoo.graphs.ring(8)), adozoo.mixing(adozoo.graphs.star(8))]), 2),
    ],
)
def test_periodic_schedules(mix, period):
    problem = adozoo.problems.quadratic(np.ones((8, 1, 1)), np.arange(8.0)[:, None])
    found = theory.linearize(factory("dsgd_atc", 0.2), problem, mix)
    product = np.eye(8)
    for step in range(period):
        product = np.asarray(mix.at(step).matrix) @ product
    assert found.period == period
    assert found.rate == pytest.approx(np.abs(np.linalg.eigvals(0.8**period * product)).max() ** (1 / period), abs=1e-9)


def path_weights(n):
    """A path, whose second eigenvalue lies close to 1, and nodes with one common Hessian."""
    mix = adozoo.mixing(adozoo.graphs.path(n))
    problem = adozoo.problems.quadratic(np.ones((n, 1, 1)), np.arange(float(n))[:, None])
    return mix, problem, np.linalg.eigvalsh(np.asarray(mix.matrix))[-2]


@pytest.mark.parametrize("name", ["sgp", "sgp_overlap"])
def test_push_sum_weights_that_stay_put_do_not_count(name):
    """Over a doubly stochastic matrix the weights never leave 1, and SGP is D-SGD: lambda_2 is not its rate."""
    mix, problem, second = path_weights(12)
    twin = {"sgp": "dsgd_atc", "sgp_overlap": "dsgd_cta"}[name]
    rate = theory.exact_rate(factory(name, 0.5), problem, mix)
    assert rate == pytest.approx(theory.exact_rate(factory(twin, 0.5), problem, mix), abs=1e-12)
    assert rate < 0.85 < 0.97 < second


def test_push_sum_weights_that_move_count():
    """Over a column-stochastic one they settle at its rate, and the params with them, as a run shows."""
    digraph = adozoo.graphs.directed_ring(9)
    digraph.add_edge(0, 4)
    mix = adozoo.mixing(digraph)
    problem = adozoo.problems.quadratic(np.ones((9, 1, 1)), np.arange(9.0)[:, None])
    found = theory.linearize(factory("sgp", 0.5), problem, mix)
    sizes = np.sort(np.abs(np.linalg.eigvals(np.asarray(mix.matrix))))
    assert found.rate == pytest.approx(sizes[-2], abs=1e-9)
    metrics = {"distance": lambda params: jnp.linalg.norm(params - jnp.asarray(found.params))}
    _, _, trace = adozoo.simulate(factory("sgp", 0.5)(mix), problem.gradient, problem.init(), 400, metrics=metrics)
    fit = theory.fit_rate(np.asarray(trace["distance"]))
    assert abs(fit.rate - found.rate) < max(3e-3, fit.uncertainty)


def test_state_that_nothing_reaches_does_not_count():
    """A slow average of the params is state like any other; one of nothing stays at zero."""

    def averaged(share):
        def update(grads, state, params=None):
            return -0.5 * grads, 0.99 * state + share * params

        return lambda mix: optax.GradientTransformation(jnp.zeros_like, update)

    problem = adozoo.problems.quadratic(np.ones((3, 1, 1)), np.arange(3.0)[:, None])
    assert theory.exact_rate(averaged(0.01), problem, adozoo.exact_mean(3)) == pytest.approx(0.99, abs=1e-12)
    assert theory.exact_rate(averaged(0.0), problem, adozoo.exact_mean(3)) == pytest.approx(0.5, abs=1e-12)


def test_random_schedules_are_refused():
    problem = adozoo.problems.random_quadratic(6, 1)
    mix = adozoo.random_matching(adozoo.graphs.ring(6), jax.random.key(0))
    with pytest.raises(ValueError, match="do not repeat within 64 steps"):
        theory.exact_rate(factory("dsgd_atc", 0.1), problem, mix)


def test_a_drifting_method_has_no_limit():
    drift = optax.GradientTransformation(
        lambda params: optax.EmptyState(), lambda grads, state, params=None: (jnp.ones_like(grads), state)
    )
    problem = adozoo.problems.random_quadratic(3, 1)
    with pytest.raises(ValueError, match="no fixed point"):
        theory.limit(lambda mix: drift, problem, adozoo.exact_mean(3))
    found = theory.linearize(lambda mix: drift, problem, adozoo.exact_mean(3))
    assert found.drifts
    assert found.drift == pytest.approx(np.sqrt(3))  # every node moves by 1 in a step
    assert (found.rate, found.conserved) == (1, 3)


def test_a_double_integrator_has_no_limit_and_rate_one():
    """Undamped momentum without forces: 1 is an eigenvalue of T, but no mode that anything conserves."""
    coast = optax.GradientTransformation(
        jnp.zeros_like, lambda grads, state, params=None: (state - grads, state - grads)
    )
    flat = adozoo.problems.quadratic([[[1.0]], [[0.0]]], np.zeros((2, 1)))
    found = theory.linearize(lambda mix: coast, flat, adozoo.exact_mean(2))
    assert found.rate == pytest.approx(1, abs=1e-7)


def test_logistic_regression_is_linearised_at_its_own_fixed_point():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(6, 12, 3))
    labels = np.sign(features @ [1.0, -2.0, 0.5] + rng.normal(size=(6, 12)))
    problem = adozoo.problems.logistic(features, labels, 0.2)
    mix = adozoo.mixing(adozoo.graphs.ring(6))
    for name in ("extra", "dsgd_atc"):
        found = theory.linearize(factory(name, 0.8), problem, mix)
        params, _, trace = adozoo.simulate(
            factory(name, 0.8)(mix), problem.gradient, problem.init(), 400, metrics=lambda x: x
        )
        np.testing.assert_allclose(params, found.params, atol=1e-11)
        fit = theory.fit_rate(np.linalg.norm(np.asarray(trace) - found.params, axis=(1, 2)))
        assert abs(fit.rate - found.rate) < max(2e-3, fit.uncertainty)


def test_single_precision_callers_get_double_precision_rates():
    names = ["extra", "diging", "dsgd_atc"]
    problem = adozoo.problems.random_quadratic(7, 2, seed=1)
    expected = [theory.exact_rate(factory(name, 0.3), problem, adozoo.mixing(adozoo.graphs.ring(7))) for name in names]
    with jax.enable_x64(False):
        problem = adozoo.problems.random_quadratic(7, 2, seed=1)
        mix = adozoo.mixing(adozoo.graphs.ring(7))
        assert problem.init().dtype == mix(problem.init()).dtype == jnp.float32
        for name, rate in zip(names, expected, strict=True):
            assert theory.exact_rate(factory(name, 0.3), problem, mix) == pytest.approx(rate, abs=1e-7)


def test_weights_rounded_to_single_precision_are_refused():
    problem = adozoo.problems.random_quadratic(7, 2)
    mix = adozoo.mixing(adozoo.graphs.ring(7))
    mix = dataclasses.replace(mix, weights=np.asarray(mix.weights, np.float32))
    with pytest.raises(ValueError, match="rounded to single precision"):
        theory.exact_rate(factory("extra", 0.3), problem, mix)


@pytest.mark.parametrize(
    ("name", "vectors", "scalars"),
    [("dsgd_atc", 0, 0), ("dsgd_momentum", 1, 0), ("diging", 1, 0), ("extra", 1, 0), ("svl", 2, 0), ("sgp", 0, 1)],
)
def test_memory(name, vectors, scalars):
    problem, mix = adozoo.problems.random_quadratic(6, 4), adozoo.mixing(adozoo.graphs.ring(6))
    assert theory.linear.memory(factory(name, 0.1), problem, mix) == (vectors, scalars)


def test_memory_of_pytrees_delays_and_counters():
    mix = adozoo.mixing(adozoo.graphs.ring(6))
    params = {"w": jnp.zeros((6, 3, 2)), "b": jnp.zeros((6, 2))}
    assert theory.linear.memory(lambda mix: adozoo.per_node(optax.adam(0.1)), params, mix) == (2, 0)
    late = theory.linear.memory(lambda mix: adozoo.channel.delayed(factory("extra", 0.1), mix, 2), params, mix)
    assert late == (1 + 3, 0)
    rate = theory.linear.memory(lambda mix: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1), params, mix)
    assert rate == (0, pytest.approx(1 / 6))  # one number for all nodes


@pytest.mark.parametrize("size", [40, 300])
@pytest.mark.parametrize("count", [0, 1, 30])
def test_null_spaces_of_small_and_large_matrices(size, count):
    rng = np.random.default_rng(size + count)
    left, right = (np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(2))
    sizes = np.append(np.geomspace(1, 1e-7, size - count), np.zeros(count))
    matrix = (left * sizes) @ right.T
    found = theory.subspaces.null_basis(matrix)
    assert found.shape == (size, count)
    np.testing.assert_allclose(found.T @ found, np.eye(count), atol=1e-12)
    np.testing.assert_allclose(matrix @ found, 0, atol=1e-14)
    np.testing.assert_allclose(right.T[: size - count] @ found, 0, atol=1e-7)  # rounding over the smallest size


def test_most_of_a_large_state_may_be_conserved():
    """All-reduce never touches what the nodes disagree on."""
    problem = adozoo.problems.random_quadratic(60, 5, strong_convexity=0.3, seed=1)
    found = theory.linearize(factory("all_reduce_sgd", 0.5), problem, adozoo.exact_mean(60))
    mean = np.mean(problem.matrices, axis=0)
    assert found.conserved == 59 * 5
    assert found.rate == pytest.approx(1 - 0.5 * np.linalg.eigvalsh(mean)[0], abs=1e-12)


@pytest.mark.slow
def test_1536_states_take_less_than_two_seconds():
    problem = adozoo.problems.random_quadratic(96, 8, seed=0)
    mix = adozoo.mixing(adozoo.graphs.erdos_renyi(96, 0.2, 0))
    times = []
    for _ in range(3):  # compiling anew each time; the least disturbed one counts
        started = time.perf_counter()
        rate = theory.exact_rate(factory("diging", 0.1), problem, mix)
        times.append(time.perf_counter() - started)
        assert 0.9 < rate < 1
    assert min(times) < 2
