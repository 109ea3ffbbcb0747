"""Conjugate and component gradients, their streams, and the rates and refusals of the methods that take them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adozoo
import theory

BOUNDS = theory.bounds.entries()
RNG = np.random.default_rng(5)
ROWS = RNG.normal(size=(4, 7, 3)) * [0.3, 1.0, 3.0]
LABELS = np.sign(RNG.normal(size=(4, 7)))
SHARES = RNG.uniform(0, 0.5, size=(4, 7))
PROBLEMS = {
    "quadratic": adozoo.problems.random_quadratic(4, 3, strong_convexity=0.05),
    "isotropic": adozoo.problems.isotropic_quadratic(4, 3),
    "least_squares": adozoo.problems.least_squares(ROWS, LABELS, 0.01, SHARES),
    "logistic": adozoo.problems.logistic(ROWS, LABELS, 0.01, SHARES),
    "separated": adozoo.problems.logistic(ROWS, np.ones((4, 7)), 1e-3),
}
SAMPLED = ("least_squares", "logistic")
DUAL_GRADIENT = jax.jit(lambda problem, dual: problem.dual_gradient(dual))


@pytest.mark.parametrize("name", PROBLEMS)
@settings(max_examples=10)
@given(scale=st.floats(-3, 2), seed=st.integers(0, 1000))
def test_the_gradient_at_the_conjugates_gradient_is_the_dual_point(name, scale, seed):
    problem = PROBLEMS[name]
    dual = jnp.asarray(10**scale * np.random.default_rng(seed).normal(size=(4, 3)))
    primal = DUAL_GRADIENT(problem, dual)
    np.testing.assert_allclose(problem.exact_gradient(primal), dual, rtol=0, atol=1e-12 * max(1, 10**scale))


@pytest.mark.parametrize("name", ["quadratic", "logistic"])
def test_the_derivative_of_a_conjugates_gradient_is_the_inverse_hessian(name):
    problem, dual = PROBLEMS[name], jnp.asarray(RNG.normal(size=(4, 3)))
    hessian = jax.jacfwd(problem.exact_gradient)(DUAL_GRADIENT(problem, dual))
    for differentiate in (jax.jacfwd, jax.jacrev):
        jacobian = jax.jit(differentiate(problem.dual_gradient))(dual)
        for i in range(4):
            np.testing.assert_allclose(jacobian[i, :, i] @ hessian[i, :, i], np.eye(3), rtol=0, atol=1e-9)
            assert not jacobian[i, :, i - 1].any()


def test_single_precision_dual_points_are_solved_to_single_precision():
    with jax.enable_x64(False):
        problem = adozoo.problems.logistic(ROWS, LABELS, 0.1)
        dual = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
        primal = DUAL_GRADIENT(problem, dual)
        assert primal.dtype == jnp.float32
        np.testing.assert_allclose(problem.exact_gradient(primal), dual, rtol=0, atol=2e-5)


def test_objectives_without_strong_convexity_have_no_dual_gradient():
    flat = adozoo.problems.least_squares(ROWS[:, :2], LABELS[:, :2])  # two samples a node, three coordinates
    with pytest.raises(ValueError, match=r"strongly convex.*mu = 0.*l2 > 0"):
        flat.dual_gradient(flat.init())


@pytest.mark.parametrize("name", SAMPLED)
def test_components_average_to_the_gradient_and_have_their_smoothness(name):
    problem, components = PROBLEMS[name], LABELS.shape[1]
    params = jnp.asarray(RNG.normal(size=(4, 3)))
    each = [problem.component_gradient(params, jnp.full(4, j)) for j in range(components)]
    np.testing.assert_allclose(np.mean(each, 0), problem.exact_gradient(params), rtol=0, atol=1e-13)
    # A logistic component bends most where its score is zero.
    for j in range(components):
        bend = jax.jacfwd(lambda x, j=j: problem.component_gradient(x, jnp.full(4, j)))(jnp.zeros((4, 3)))
        largest = [np.linalg.eigvalsh(bend[i, :, i])[-1] for i in range(4)]
        np.testing.assert_allclose(problem.component_smoothness[:, j], largest, rtol=1e-12)


def test_a_sampled_gradient_takes_the_streams_components():
    problem, stream = PROBLEMS["logistic"], adozoo.samples(jax.random.key(3), 4, 7)
    params = jnp.asarray(RNG.normal(size=(4, 3)))
    for step in range(3):
        expected = [problem.component_gradient(params, jnp.full(4, j))[i] for i, j in enumerate(np.array(stream(step)))]
        np.testing.assert_array_equal(problem.sampled_gradient(stream)(params, step, None), jnp.stack(expected))


def test_streams():
    stream, short = adozoo.samples(jax.random.key(0), 3, 5), adozoo.samples(jax.random.key(0), 3, 5, period=4)
    drawn = np.array(jax.vmap(stream)(jnp.arange(3000)))
    share = np.stack([np.bincount(column, minlength=5) for column in drawn.T]) / 3000
    np.testing.assert_allclose(share, 0.2, atol=4 * np.sqrt(0.2 * 0.8 / 3000))
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 4 / np.sqrt(3000)
    np.testing.assert_array_equal(jax.vmap(short)(jnp.arange(8)), np.tile(drawn[:4], (2, 1)))
    heads = np.array(jax.vmap(adozoo.coins(jax.random.key(0), 0.3))(jnp.arange(3000)))
    assert abs(heads.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 3000)
    recorded = adozoo.recorded_coins([True, False, False])
    assert [bool(recorded(t)) for t in range(4)] == [True, False, False, True]
    assert recorded.probability == pytest.approx(1 / 3)


def network(seed, nodes=6):
    graph = adozoo.graphs.erdos_renyi(nodes, 0.5, seed)
    return adozoo.mixing(graph, weights=("metropolis", "max_degree")[seed % 2])


def dual_of(problem):
    """The conjugates of quadratics are quadratics: its gradients are the problem's dual gradients."""
    A, b = np.asarray(problem.matrices), np.asarray(problem.centers)
    return adozoo.problems.quadratic(np.linalg.inv(A), -np.einsum("nij,nj->ni", A, b))


def gossip_condition(*mixings):
    spectra = [np.linalg.eigvalsh(np.eye(mix.n) - np.asarray(mix.matrix)) for mix in mixings]
    return max(spectrum[-1] for spectrum in spectra) / min(spectrum[1] for spectrum in spectra)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", ["ssda", "msda"])
def test_exact_rates_of_dual_methods_are_never_above_their_theorems(method, seed):
    kappa, mix = (3.0, 30.0, 300.0)[seed], network(seed)
    problem = adozoo.problems.random_quadratic(6, 2, 1 / kappa, 1.0, seed=seed)
    np.testing.assert_allclose(
        dual_of(problem).gradient(problem.matrices[:, 0]), problem.dual_gradient(problem.matrices[:, 0]), atol=1e-12
    )
    rate = theory.exact_rate(lambda mix: getattr(adozoo, method)(mix, 1 / kappa, 1.0), dual_of(problem), mix)
    chi = gossip_condition(mix)
    known = {"strong_convexity": 1 / kappa, "smoothness": 1.0, "gossip_condition": chi}
    if method == "msda":
        known["rounds"] = int(np.sqrt(chi))
    bound, _ = BOUNDS[f"{method}_rate"].at(**known)
    assert rate**2 <= bound < 1


def test_nodes_with_one_hessian_have_the_rate_of_nesterovs_method():
    """The slowest mode, the flattest of A in the flattest of G, sits at 1 - sqrt(q) exactly: a double root."""
    mix, hessian = network(1), np.diag([0.04, 0.3, 1.0])
    problem = adozoo.problems.quadratic(np.tile(hessian, (6, 1, 1)), RNG.normal(size=(6, 3)))
    rate = theory.exact_rate(lambda mix: adozoo.ssda(mix, 0.04, 1.0), dual_of(problem), mix)
    assert rate == pytest.approx(1 - np.sqrt(0.04 / gossip_condition(mix)), abs=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_the_exact_rate_of_adom_over_two_graphs_is_never_above_the_theorem(seed):
    """Of what determines the answer: everything without its mean over nodes, from where nothing leads out."""
    kappa, mixings = (4.0, 100.0)[seed], [network(seed), network(seed + 10)]
    problem = dual_of(adozoo.problems.random_quadratic(6, 2, 1 / kappa, 1.0, seed=seed))
    with jax.enable_x64(True):
        factory = lambda mix: adozoo.adom(mix, 1 / kappa, 1.0)  # noqa: E731
        steps = theory.step_map.read(factory, problem, adozoo.cycle(mixings))
        assert steps.period == 2
        matrix = steps.jacobian(steps.start)
    free = np.linalg.svd(np.eye(6) - 1 / 6)[0][:, :5]
    basis = np.kron(np.eye(3), np.kron(free, np.eye(2)))  # params, z, m; the answer is read by nobody
    inside = matrix[: len(basis), : len(basis)]
    np.testing.assert_allclose(inside[:24] @ basis[:, :20], basis[:24] @ (basis[:24].T @ inside[:24] @ basis[:, :20]))
    squared = np.abs(np.linalg.eigvals(basis.T @ inside @ basis)).max()  # of two steps: the square of one step's
    known = {"strong_convexity": 1 / kappa, "smoothness": 1.0, "gossip_condition": gossip_condition(*mixings)}
    bound, _ = BOUNDS["adom_rate"].at(**known)
    assert 0.5 < squared <= bound


def test_adom_solves_over_graphs_that_take_turns():
    problem = adozoo.problems.random_quadratic(6, 2, strong_convexity=0.3, heterogeneity=4.0, seed=1)
    mix = adozoo.cycle([network(seed) for seed in range(3)])
    tx = adozoo.adom(mix, 0.3, 1.0)
    dual, state, _ = adozoo.simulate(tx, problem.dual_gradient, problem.init(), 4000)
    answer = adozoo.eval_params(state, dual)
    np.testing.assert_allclose(answer, np.tile(problem.optimum, (6, 1)), rtol=0, atol=1e-10)


def test_msda_takes_whole_roots_as_they_are():
    """On the hypercube of 16 nodes the root is 2, but for rounding; on a complete graph it is 1."""
    problem = adozoo.problems.random_quadratic(16, 2, strong_convexity=0.3)

    def run(graph, **options):
        tx = adozoo.msda(adozoo.mixing(graph), 0.3, 1.0, **options)
        return adozoo.simulate(tx, problem.dual_gradient, problem.init(), 5)[0]

    cube, complete = adozoo.graphs.hypercube(16), adozoo.graphs.complete(16)
    np.testing.assert_array_equal(run(cube), run(cube, rounds=2))
    assert not np.allclose(run(cube), run(cube, rounds=1))
    single = adozoo.simulate(adozoo.ssda(adozoo.exact_mean(16), 0.3, 1.0), problem.dual_gradient, problem.init(), 5)[0]
    np.testing.assert_allclose(run(complete), single, rtol=0, atol=1e-12)


def test_a_dual_start_that_does_not_sum_to_zero_tilts_the_problem():
    """The answer then minimises sum_i f_i(x) - <s, x>, as is said."""
    problem = adozoo.problems.random_quadratic(6, 2, strong_convexity=0.3)
    start = jnp.asarray(RNG.normal(size=(6, 2)))
    tx = adozoo.ssda(network(0), 0.3, 1.0)
    dual, state, _ = adozoo.simulate(tx, problem.dual_gradient, start, 500)
    total = problem.exact_gradient(adozoo.eval_params(state, dual)).sum(0)
    np.testing.assert_allclose(total, start.sum(0), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("method", ["gt_saga", "dvr"])
def test_variance_reduced_methods_end_at_the_optimum(method, name):
    """From one sample a node and step. D-SGD with the same samples stays away."""
    data = (ROWS, LABELS, 0.5)
    problem = getattr(adozoo.problems, name)(*data)
    stream, mix = adozoo.samples(jax.random.key(0), 4, 7), network(0, 4)
    if method == "dvr":
        tx = adozoo.dvr(mix, 0.5, problem.component_smoothness, stream, adozoo.coins(jax.random.key(1), 0.4))
    else:
        tx = adozoo.gt_saga(0.01, mix, stream)
    gradient = problem.sampled_gradient(stream)

    def distance(tx):
        metrics = problem.metrics()["distance"]
        return float(adozoo.simulate(tx, gradient, problem.init(), 8000, metrics=metrics, every=8000)[2][-1])

    assert distance(tx) < 1e-9
    assert distance(adozoo.dsgd(0.01, mix)) > 1e-3


@pytest.mark.parametrize("method", ["gt_saga", "dvr"])
def test_theory_reads_methods_whose_samples_repeat(method):
    """The exact rate over a period of samples, against the last stretch of a run above rounding."""
    entry, period = adozoo.zoo.entry(method), 16
    factory = lambda mix: entry.build(0.2, mix, period=period)  # noqa: E731
    problem = adozoo.problems.random_quadratic(4, 2, strong_convexity=0.3, heterogeneity=2.0, seed=3)
    found = theory.linearize(factory, problem, network(0, 4))
    assert found.period == period
    metric = problem.metrics()["distance"]
    tx = factory(network(0, 4))
    away = np.asarray(adozoo.simulate(tx, problem.gradient, problem.init(), 4800, metrics=metric, every=period)[2])
    begin, end = np.argmax(away < 1e-4), np.argmax(away < 1e-12)
    assert 0 < begin < end
    assert (away[end] / away[begin]) ** (1 / (period * (end - begin))) == pytest.approx(found.rate, abs=2e-3)


STREAM = adozoo.samples(jax.random.key(0), 6, 3)
NETWORK = network(0)
REFUSED = {
    "mu above L": (lambda: adozoo.ssda(NETWORK, 2.0, 1.0), r"ssda: strong_convexity .*2\.0"),
    "a step of zero": (lambda: adozoo.ssda(NETWORK, 0.1, 1.0, step_size=0.0), "ssda: step_size must"),
    "momentum of one": (lambda: adozoo.msda(NETWORK, 0.1, 1.0, momentum=1.0), "msda: momentum must"),
    "no rounds": (lambda: adozoo.msda(NETWORK, 0.1, 1.0, rounds=0), "rounds must be a positive integer, got 0"),
    "a schedule": (lambda: adozoo.ssda(adozoo.gossip_every(NETWORK, 2), 0.1, 1.0), "ssda: mix must be fixed"),
    "apart at times": (lambda: adozoo.adom(adozoo.gossip_every(NETWORK, 2), 0.1, 1.0), "adom: .*connected"),
    "no stream": (lambda: adozoo.gt_saga(0.1, NETWORK, [0] * 6), "gt_saga: samples must .*got list"),
    "other nodes": (lambda: adozoo.gt_saga(0.1, network(0, 5), STREAM), "gt_saga: samples must .*n = 6 and 5"),
    "no coins": (lambda: adozoo.dvr(NETWORK, 0.1, 1.0, STREAM, 0.5), "dvr: coins must .*got float"),
    "a sure coin": (lambda: adozoo.coins(jax.random.key(0), 1.0), "coins: probability must"),
    "an untyped key": (lambda: adozoo.samples(0, 3, 2), "samples: key must be a typed JAX key"),
    "no component": (lambda: adozoo.samples(jax.random.key(0), 3, 0), "samples: components must .*got 0"),
    "an index too large": (lambda: adozoo.recorded_samples([[3]], 3), r"must lie in \[0, 3\), got 3 to 3"),
    "fractions": (lambda: adozoo.recorded_samples([[0.5]]), "indices must be integers"),
    "a matrix of coins": (lambda: adozoo.recorded_coins([[1]]), r"recorded_coins: .*shape \(1, 1\)"),
    "a table of one": (
        lambda: adozoo.gt_saga(0.1, NETWORK, STREAM, jnp.zeros((6, 1, 2))).init(jnp.zeros((6, 2))),
        r"table must .*\(6, 3, 2\).*got.*\(6, 1, 2\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        call()
