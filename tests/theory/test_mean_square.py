"""Mean-square rates under random mixings, against identities of randomised gossip, runs and plain numpy."""

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references
from hypothesis import given
from hypothesis import strategies as st

import adozoo
import theory
from theory import second_moment
from theory.mean_square import mean_square_rate
from theory.outcomes import enumerate_outcomes
from theory.second_moment import second_moment_rate, second_moment_stationary

KEY = jax.random.key(0)


def factory(name, learning_rate):
    return lambda mix: adozoo.zoo.entry(name).build(learning_rate, mix)


def gossip(mix):
    """x <- W x, without gradients."""
    return optax.chain(optax.scale(0.0), adozoo.combine_then_adapt(mix))


def spread_out(n):
    return adozoo.problems.quadratic(np.ones((n, 1, 1)), np.arange(float(n))[:, None])


def heterogeneous(n=5, seed=0):
    rng = np.random.default_rng(seed)
    return adozoo.problems.quadratic(rng.uniform(0.1, 1.0, size=(n, 1, 1)), rng.normal(size=(n, 1)))


@pytest.mark.parametrize(
    ("graph", "factor"),
    [
        (adozoo.graphs.complete(6), 1 - 1 / 5),
        (adozoo.graphs.ring(8), 0.93299),
        (adozoo.graphs.star(6), 0.86056),
        (adozoo.graphs.ring(5), references.load("theory_checks")["case"]["pairwise_gossip_uniform_edges"]),
    ],
    ids=["complete", "ring8", "star", "ring5"],
)
def test_pairwise_gossip(graph, factor):
    """Each outcome is a projection, so the mean's rate lambda_2(E W) bounds the factor."""
    n = graph.number_of_nodes()
    found = mean_square_rate(gossip, spread_out(n), adozoo.random_edge(graph, KEY))
    mean = (
        np.eye(n)
        - sum(np.outer(u, u) / 2 for i, j in graph.edges for u in [np.eye(n)[i] - np.eye(n)[j]])
        / graph.number_of_edges()
    )
    if isinstance(factor, dict):
        assert found.factor == pytest.approx(factor["exact_ms_factor"], abs=1e-13)
        assert found.mean_rate == pytest.approx(factor["lambda2_EW"], abs=1e-13)
    else:
        assert found.factor == pytest.approx(factor, abs=5e-6)
    assert found.mean_rate == pytest.approx(np.linalg.eigvalsh(mean)[-2], abs=1e-13)
    assert found.mean_rate**2 <= found.factor <= found.mean_rate + 1e-12
    assert found.rate == pytest.approx(np.sqrt(found.factor))
    assert (found.dimension, found.outcomes) == (n - 1, graph.number_of_edges())
    assert found.common_fixed_point < 1e-12
    assert found.node_error == 0


def test_exact_methods_that_random_gossip_breaks():
    """With one random edge a step EXTRA, NIDS and exact diffusion diverge, though they converge on average."""
    edges = adozoo.random_edge(adozoo.graphs.ring(5), KEY)
    problem = heterogeneous()
    for name, step in (("extra", 0.05), ("nids", 0.2), ("exact_diffusion", 0.05)):
        found = mean_square_rate(factory(name, step), problem, edges)
        assert found.mean_rate < 1 < found.factor
        assert found.common_fixed_point < 1e-10
        assert found.node_error == np.inf
    for name, step in (("diging", 0.05), ("aug_dgm", 0.2)):
        found = mean_square_rate(factory(name, step), problem, edges)
        assert found.factor < 0.97
        assert found.node_error == 0
        assert found.common_fixed_point < 1e-10


def step_matrices(name, step, curvatures, matrices):
    """The step of each outcome on deviations (x, state) from the fixed point, written out by hand."""
    eye, hessian = np.eye(len(curvatures)), np.diag(curvatures)
    for W in matrices:
        if name == "extra":
            yield np.block([[W - step * hessian, eye], [(W - eye) / 2, eye]])
        else:  # diging: s = c + g, x <- W x - step s, c <- W s - g
            yield np.block([[W - step * hessian, -step * eye], [(W - eye) @ hessian, W]])


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("diging", lambda key: adozoo.random_edge(adozoo.graphs.ring(5), key)),
        ("extra", lambda key: adozoo.channel.link_failures(adozoo.mixing(adozoo.graphs.ring(5)), 0.2, key)),
    ],
    ids=["diging", "extra"],
)
def test_second_moments_of_runs(name, draw):
    """Runs have the second moments of the hand-written recursion, whose late factor is the one that is read off."""
    problem = heterogeneous(seed=3)
    found = mean_square_rate(factory(name, 0.2), problem, draw(KEY))
    weights, matrices = enumerate_outcomes(draw(KEY))
    steps = np.stack(list(step_matrices(name, 0.2, np.asarray(problem.matrices)[:, 0, 0], matrices[:, 0])))
    state = np.array(problem.exact_gradient(adozoo.replicate(problem.optimum, 5)))  # both trackers end at -g or a g
    state -= state.mean()  # sums to zero but for rounding, which the methods conserve
    start = np.concatenate([-np.tile(problem.optimum, 5), (state if name == "diging" else -0.2 * state).ravel()])
    away = np.eye(10)
    away[5:, 5:] -= 1 / 5  # the sum of the state is conserved: what it holds is rounding
    moment, expected, scale = np.outer(start, start), [], 1.0
    for _ in range(1000):
        moment = np.einsum("k,kij,jl,kml->im", weights, steps, moment, steps, optimize=True)
        moment = away @ moment @ away
        size = np.trace(moment)
        moment, scale = moment / size, scale * size
        expected.append(scale * np.trace(moment[:5, :5]))
    assert size == pytest.approx(found.factor, abs=1e-9)

    def run(key):
        metrics = {"square": lambda x: jnp.sum((x - problem.optimum[None]) ** 2)}
        tx = factory(name, 0.2)(draw(key))
        return adozoo.simulate(tx, problem.gradient, problem.init(), 40, metrics=metrics, every=20)[2]["square"]

    samples = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, 4000)))
    standard_error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    expected = np.array([expected[19], expected[39]])
    assert (np.abs(samples.mean(0) - expected) < 4 * standard_error).all()
    assert (standard_error < 0.05 * expected).all()


def test_one_outcome_is_the_exact_rate():
    mix = adozoo.mixing(adozoo.graphs.star(5))
    problem = heterogeneous()
    for name in ("extra", "diging", "dsgd_atc", "svl"):
        found = mean_square_rate(factory(name, 0.3), problem, [(0.25, mix), (0.75, mix)])
        rate = theory.exact_rate(factory(name, 0.3), problem, mix)
        assert (found.rate, found.mean_rate) == pytest.approx((rate, rate), abs=1e-10)
        assert found.outcomes == 1
        np.testing.assert_allclose(
            found.params, theory.limit(factory(name, 0.3), problem, mix), atol=1e-10
        )  # the limit's bias is no spread
        assert found.node_error == 0


def test_logistic_regression_is_linearised_at_the_common_fixed_point():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(4, 12, 2))
    labels = np.sign(features @ [1.0, -2.0] + rng.normal(size=(4, 12)))
    problem = adozoo.problems.logistic(features, labels, 0.3)
    found = mean_square_rate(factory("diging", 0.5), problem, [(1.0, RING)])
    assert found.rate == pytest.approx(theory.exact_rate(factory("diging", 0.5), problem, RING), abs=1e-9)
    edges = mean_square_rate(factory("diging", 0.1), problem, adozoo.random_edge(adozoo.graphs.ring(4), KEY))
    assert edges.common_fixed_point < 1e-10
    np.testing.assert_allclose(edges.params, np.tile(problem.optimum, (4, 1)), atol=1e-10)


def test_local_steps_between_random_gossip():
    """Per period of 3: one gossip step. Both where the schedule and where the method itself waits."""
    edges = adozoo.random_edge(adozoo.graphs.complete(6), KEY)
    found = mean_square_rate(gossip, spread_out(6), adozoo.gossip_every(edges, 3))
    assert found.factor == pytest.approx(0.8 ** (1 / 3), abs=1e-12)
    problem = heterogeneous()
    edges = adozoo.random_edge(adozoo.graphs.ring(5), KEY)
    inside = mean_square_rate(lambda mix: adozoo.local_dsgd(0.2, mix, 3), problem, edges)
    outside = mean_square_rate(factory("dsgd_atc", 0.2), problem, adozoo.gossip_every(edges, 3))
    assert inside.factor == pytest.approx(outside.factor, abs=1e-12)
    assert inside.node_error == pytest.approx(outside.node_error, rel=1e-10)


def test_dsgd_settles_at_its_stationary_error():
    """The outcomes have no common fixed point; gradient noise adds to their spread."""
    problem = adozoo.problems.quadratic(
        np.random.default_rng(1).uniform(0.3, 1, size=(4, 1, 1)), [[0.0], [1.0], [2.0], [-1.0]], noise=0.3
    )
    graph = adozoo.graphs.ring(4)
    found = mean_square_rate(factory("dsgd_atc", 0.3), problem, adozoo.random_matching(graph, KEY), 0.09)
    assert found.common_fixed_point > 0.1
    limit = jnp.asarray(found.params)
    metrics = {"node": lambda x: jnp.sum((x - limit) ** 2) / 4, "mean": lambda x: jnp.sum((x - limit).mean(0) ** 2)}

    def run(key):
        tx = factory("dsgd_atc", 0.3)(adozoo.random_matching(graph, jax.random.fold_in(key, 1)))
        trace = adozoo.simulate(tx, problem.gradient, problem.init(), 500, key=key, metrics=metrics)[2]
        return {name: trace[name][100:].mean() for name in metrics}

    means = jax.jit(jax.vmap(run))(jax.random.split(KEY, 200))
    for name, value in (("node", found.node_error), ("mean", found.mean_error)):
        samples = np.asarray(means[name])
        standard_error = samples.std(ddof=1) / np.sqrt(samples.size)
        assert abs(samples.mean() - value) < 4 * standard_error
        assert standard_error < 0.02 * value


def choco_gossip(consensus_step):
    """Ring of 4, each node sends one of its two coordinates: matrices on (x, x^) [2, 4, 2] for all 2^4 choices."""
    W = np.asarray(adozoo.mixing(adozoo.graphs.ring(4)).matrix)
    eye = np.eye(8)
    laplacian = np.kron(W - np.eye(4), np.eye(2))
    for choice in itertools.product([0, 1], repeat=4):
        mask = np.diag(np.eye(2)[list(choice)].ravel())
        public = np.hstack([mask, eye - mask])
        yield np.vstack([np.hstack([eye, 0 * eye]) + consensus_step * laplacian @ public, public])


@pytest.mark.parametrize(("consensus_step", "factor"), [(0.0124, 0.98340), (0.3, 0.7074)])
def test_random_masks_of_choco_gossip(consensus_step, factor):
    delta, omega, beta = 2 / 3, 1 / 2, 4 / 3
    theorem = delta**2 * omega / (16 * delta + delta**2 + 4 * beta**2 + 2 * delta * beta**2 - 8 * delta * omega)
    if factor > 0.9:
        assert consensus_step == pytest.approx(theorem, abs=5e-5)
        consensus_step = theorem
    found = second_moment_rate(list(choco_gossip(consensus_step)), np.full(16, 1 / 16))
    assert found.factor == pytest.approx(factor, abs=6e-5)
    assert found.factor < 1 - delta**2 * omega / 82 + 1e-9


def frequencies(mix, samples, message=0):
    """Matrices drawn by the schedule itself, as bytes, with how often each came."""
    draw = jax.jit(jax.vmap(lambda step: mix.at(step, message).matrix))
    matrices = np.asarray(draw(jnp.arange(samples))).round(9) + 0.0
    return {kind: count / samples for kind, count in Counter(matrix.tobytes() for matrix in matrices).items()}


RING = adozoo.mixing(adozoo.graphs.ring(4))


@pytest.mark.parametrize(
    "mix",
    [
        adozoo.random_edge(adozoo.graphs.star(5), KEY),
        adozoo.random_matching(adozoo.graphs.erdos_renyi(6, 0.6, 0), KEY),
        adozoo.random_subgraph(adozoo.graphs.erdos_renyi(5, 0.5, 1), KEY, 0.4),
        adozoo.channel.link_failures(RING, 0.3, KEY),
        adozoo.channel.drops(RING, 0.3, KEY),
        adozoo.channel.drops(RING, 0.3, KEY, "keep"),
        adozoo.channel.drops(adozoo.mixing(adozoo.graphs.directed_ring(5)), 0.2, KEY, "return"),
        adozoo.channel.link_failures(adozoo.random_edge(adozoo.graphs.ring(4), KEY), 0.3, jax.random.key(1)),
    ],
    ids=["edge", "matching", "subgraph", "links", "renormalize", "keep", "return", "nested"],
)
def test_outcomes_are_what_is_drawn(mix):
    samples = 10_000
    found = enumerate_outcomes(mix)
    assert found.probabilities.sum() == pytest.approx(1, abs=1e-12)
    expected = {
        (matrix.round(9) + 0.0).tobytes(): probability
        for probability, matrix in zip(found.probabilities, found.matrices[:, 0], strict=True)
    }
    seen = frequencies(mix, samples)
    assert set(seen) <= set(expected)
    for kind, probability in expected.items():
        spread = np.sqrt(probability * (1 - probability) / samples)
        assert abs(seen.get(kind, 0) - probability) < 5 * spread + 1e-12


def test_greedy_matchings_of_a_path():
    """The middle edge comes first with probability 1/3; else both outer edges are taken."""
    found = enumerate_outcomes(adozoo.random_matching(adozoo.graphs.path(4), KEY))
    middle = found.matrices[:, 0, 1, 2] == 0.5
    assert found.probabilities[middle] == pytest.approx(1 / 3)
    assert found.probabilities[~middle] == pytest.approx(2 / 3)


def test_messages_share_graphs_but_not_losses():
    graph = adozoo.graphs.path(3)
    shared = enumerate_outcomes(adozoo.random_edge(graph, KEY), messages=2)
    assert len(shared.probabilities) == 2
    np.testing.assert_array_equal(shared.matrices[:, 0], shared.matrices[:, 1])
    lossy = enumerate_outcomes(adozoo.channel.link_failures(adozoo.mixing(graph), 0.5, KEY), messages=2)
    assert len(lossy.probabilities) == 16
    # Gradient tracking sends two messages, D-SGD one.
    problem, mix = heterogeneous(3), adozoo.channel.link_failures(adozoo.mixing(graph), 0.5, KEY)
    assert mean_square_rate(factory("diging", 0.1), problem, mix).outcomes == 16
    assert mean_square_rate(factory("dsgd_atc", 0.1), problem, mix).outcomes == 4


def test_recorded_failures_are_a_period():
    up = np.array([[True, True, False], [True, False, True], [True, True, True]])
    mix = adozoo.channel.node_failures(adozoo.mixing(adozoo.graphs.complete(3)), up)
    found = mean_square_rate(factory("dsgd_atc", 0.2), heterogeneous(3), mix)
    assert found.outcomes == 1
    assert found.rate == pytest.approx(theory.exact_rate(factory("dsgd_atc", 0.2), heterogeneous(3), mix), abs=1e-10)


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        (adozoo.random_subgraph(adozoo.graphs.ring(13), KEY, 0.5), r"8\.19e\+03 outcomes"),
        (adozoo.random_matching(adozoo.graphs.complete(12), KEY), "outcomes in a step"),
        (adozoo.channel.drops(adozoo.mixing(adozoo.graphs.ring(7)), 0.1, KEY), r"1\.64e\+04 outcomes"),
        (adozoo.channel.noisy(adozoo.mixing(adozoo.graphs.ring(5)), 0.1, KEY), "no finite set"),
        ([(0.5, RING), (0.6, RING)], "sum to one"),
        ([(1.0, adozoo.one_peer_exponential(4))], "fixed mixings"),
    ],
)
def test_what_cannot_be_enumerated_is_refused(mix, message):
    n = mix.n if isinstance(mix, adozoo.Mixing) else 4
    with pytest.raises(ValueError, match=message):
        mean_square_rate(factory("dsgd_atc", 0.1), heterogeneous(n), mix)


@given(seed=st.integers(0, 2**32 - 1), outcomes=st.integers(1, 4), size=st.integers(1, 4))
def test_second_moments_of_random_matrices(seed, outcomes, size):
    rng = np.random.default_rng(seed)
    matrices = rng.normal(size=(outcomes, size, size)) / 2
    weights = rng.dirichlet(np.ones(outcomes))
    found = second_moment_rate(matrices, weights)
    kron = sum(weight * np.kron(matrix, matrix) for weight, matrix in zip(weights, matrices, strict=True))
    assert found.factor == pytest.approx(np.abs(np.linalg.eigvals(kron)).max(), rel=1e-9)
    mean = np.tensordot(weights, matrices, 1)
    assert found.factor >= np.abs(np.linalg.eigvals(mean)).max() ** 2 - 1e-9
    settled = second_moment_stationary(matrices, weights, np.eye(size))
    if found.factor < 0.999:
        again = np.eye(size) + np.einsum("k,kij,jl,kml->im", weights, matrices, settled, matrices)
        np.testing.assert_allclose(settled, again, rtol=1e-8, atol=1e-10)
    elif found.factor >= 1:
        assert np.isinf(settled).all()


@pytest.mark.parametrize("stored", [10**4, 0])
def test_arnoldi_agrees_with_all_eigenvalues(monkeypatch, stored):
    problem = adozoo.problems.random_quadratic(5, 2, strong_convexity=0.3)
    edges = adozoo.random_edge(adozoo.graphs.ring(5), KEY)
    monkeypatch.setattr(second_moment, "DENSE_PAIRS", 1000)
    dense = mean_square_rate(factory("dsgd_atc", 0.2), problem, edges)
    monkeypatch.setattr(second_moment, "DENSE_PAIRS", 10)
    monkeypatch.setattr(second_moment, "STORED_PAIRS", stored)
    sparse = mean_square_rate(factory("dsgd_atc", 0.2), problem, edges)
    assert sparse.factor == pytest.approx(dense.factor, abs=1e-12)
    assert sparse.node_error == pytest.approx(dense.node_error, rel=1e-9)
    assert sparse.residual < 1e-10


def test_a_random_walk_has_no_stationary_moment():
    pair = np.array([[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(ValueError, match="random walk"):
        second_moment_stationary([pair, np.eye(2)], [0.5, 0.5], np.eye(2))
    away = np.array([[1.0, -1.0], [-1.0, 1.0]])
    np.testing.assert_allclose(second_moment_stationary([pair, np.eye(2)], [0.5, 0.5], away), 2 * away)


def test_misuse_of_plain_matrices_is_refused():
    with pytest.raises(ValueError, match="expected matrices"):
        second_moment_rate(np.eye(2), [1.0])
    with pytest.raises(ValueError, match="Normalise"):
        second_moment_rate(np.eye(2)[None], [0.5])
