"""Accelerated methods with primal gradients: recorded trajectories, and exact rates against the rates of theorems."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused

import adozoo
import theory
from adozoo import _gossip_matrix
from theory.subspaces import null_basis, spectral_radius

RECORDED = references.load("asynchronous_and_accelerated")
RING5 = RECORDED["base"]["deterministic_ring5"]
LAPLACIAN = adozoo.mixing(np.eye(5) - np.array(RING5["Laplacian_unit"]))
METROPOLIS = adozoo.mixing(np.array(RING5["W_metropolis"]))
CONSTANTS = {"strong_convexity": RING5["mu"], "smoothness": RING5["L"]}
SLACK = 2
"""How much faster than its theorem each method was in all examples; a constant wrong by less would go unnoticed."""


def run(tx, gradient, start, steps):
    """The evaluated params and the state after each step."""
    metrics = {"answer": lambda x: x, "state": lambda x, state: state}
    return adozoo.simulate(tx, gradient, jnp.asarray(start), steps, metrics=metrics)[2]


def quadratic(x, step=None, key=None):
    return jnp.einsum("nij,nj->ni", jnp.asarray(RING5["H"]), x) - jnp.asarray(RING5["b"])


RUNS = {
    "apapc": adozoo.apapc(LAPLACIAN, **CONSTANTS),
    "opapc": adozoo.opapc(LAPLACIAN, **CONSTANTS),
    "accgt": adozoo.acc_gt(RING5["accgt"]["step"], METROPOLIS, RING5["mu"]),
}


@pytest.mark.parametrize("name", RUNS)
def test_recorded_trajectories(name):
    trace = run(RUNS[name], quadratic, RING5["x0"], 25)
    for step, expected in RING5[name]["traj"].items():
        np.testing.assert_allclose(trace["answer"][int(step) - 1], expected, rtol=0, atol=1e-12)


def least_squares(case):
    features, labels = jnp.asarray(case["data"]), jnp.asarray(case["labels"])

    def gradient(x, step=None, key=None):
        residual = jnp.einsum("nmd,nd->nm", features, x) - labels
        return 2 * jnp.einsum("nmd,nm->nd", features, residual) / labels.shape[1]

    return gradient


def scaled(edges):
    """I - L / lambda_max(L), for the Laplacian L of a graph on five nodes."""
    incidence = np.eye(5)[[i for i, _ in edges]] - np.eye(5)[[j for _, j in edges]]
    laplacian = incidence.T @ incidence
    return adozoo.mixing(np.eye(5) - laplacian / np.linalg.eigvalsh(laplacian)[-1])


@pytest.mark.parametrize("name", ["adomplus_tv5", "adomplus_mc_tv5"])
def test_recorded_adom_plus(name):
    """The authors' code multiplies the matrices of one step the other way round: its four are ours in turn."""
    case = RECORDED["dadao"][name]
    rounds, parts = case["T_multi_consensus"], [scaled(edges) for edges in case["edges"]]
    mix = adozoo.cycle(parts if rounds == 1 else parts[::-1])
    tx = adozoo.adom_plus(mix, case["mu"], case["L"], rounds, case["chi"])
    trace = run(tx, least_squares(case), case["x0"], case["traj"][-1]["k"] + 1)
    for record in case["traj"]:
        for theirs, ours in {"Y": "dual", "Z": "consensus", "M": "feedback"}.items():
            found = getattr(trace["state"], ours)[record["k"]]
            np.testing.assert_allclose(found, record[theirs], rtol=0, atol=1e-11)
        np.testing.assert_allclose(trace["answer"][record["k"]], record["X"], rtol=0, atol=1e-11)


def test_recorded_conditions_of_adom_plus():
    """What is taken by default is no larger than the published chi, and follows their rule for multi-consensus."""
    case = RECORDED["dadao"]["adomplus_tv5"]
    mix = adozoo.cycle([scaled(edges) for edges in case["edges"]])
    low, high = _gossip_matrix.extremes("test", mix)
    assert high / low == pytest.approx(case["chi"])
    rounds = math.ceil(case["chi"] * math.log(2))
    assert rounds == RECORDED["dadao"]["adomplus_mc_tv5"]["T_multi_consensus"]
    for count, published in ((1, case["chi"]), (rounds, 2)):
        chi = 1 / (1 - _gossip_matrix.contraction("test", adozoo.multi_consensus(mix, count)) ** 2)
        assert chi < published
    pair = [adozoo.adom_plus(mix, 0.2, 5.0, count, chi=given_chi) for given_chi in (None, chi)]
    traces = [run(tx, least_squares(case), case["x0"], 5)["answer"] for tx in pair]
    np.testing.assert_allclose(*traces, rtol=0, atol=1e-13)


# Theorems, on quadratics whose nodes differ. The rate of the norm is the root of that of its square.


def instances():
    """(problem, graph, mu) with L = 1: curvatures at their ends, or matrices at random."""
    return st.tuples(st.integers(3, 6), st.integers(0, 10**6), st.floats(1.2, 200), st.booleans())


def build(instance):
    n, seed, kappa, aligned = instance
    graph = adozoo.graphs.erdos_renyi(n, 0.5, seed) if seed % 3 else adozoo.graphs.path(n)
    mu, rng = 1 / kappa, np.random.default_rng(seed)
    if not aligned:
        return adozoo.problems.random_quadratic(n, 2, strong_convexity=mu, seed=seed), graph, mu
    curvatures = np.where(rng.random(n) < 0.5, mu, 1.0)
    curvatures[0], curvatures[-1] = mu, 1.0
    return adozoo.problems.quadratic(curvatures[:, None, None], rng.normal(size=(n, 1))), graph, mu


def check(rate, squared):
    """The exact rate is below the theorem's, which is given for the squared norm, with room to spare."""
    assert rate < 1
    assert math.log(rate) <= SLACK * 0.5 * math.log(squared)


@settings(max_examples=4, deadline=None)
@given(instances())
def test_apapc_keeps_its_theorem(instance):
    problem, graph, mu = build(instance)
    mix = adozoo.mixing(graph)
    low, high = _gossip_matrix.extremes("test", mix)
    rate = theory.exact_rate(lambda mix: adozoo.apapc(mix, mu, 1.0), problem, mix)
    check(rate, 1 / (1 + min(math.sqrt(mu * low / high), low / high) / 4))


@settings(max_examples=4, deadline=None)
@given(instances())
def test_opapc_keeps_its_theorem(instance):
    """Whatever the graph."""
    problem, graph, mu = build(instance)
    rate = theory.exact_rate(lambda mix: adozoo.opapc(mix, mu, 1.0), problem, adozoo.mixing(graph))
    check(rate, 1 / (1 + min(2 * math.sqrt(mu), 1) / 16))


def visible_rate(factory, problem, mix):
    """The exact rate of everything but the mean of ADOM+'s m, which grows for ever, and which nothing depends on."""
    with jax.enable_x64(True):
        steps = theory.step_map.read(factory, problem, mix)
        transition = steps.jacobian(steps.guess)

        def mean(z):
            return jnp.ravel(steps.assemble(z, steps.fixed)[1].feedback.mean(axis=0))

        hidden = np.asarray(jax.jacfwd(mean)(jnp.zeros(steps.size))).T
    count = hidden.shape[1]
    shown = np.linalg.qr(hidden, mode="complete")[0][:, count:]
    assert np.abs(shown.T @ transition @ hidden).max() < 1e-12  # it stays hidden
    reduced = shown.T @ transition @ shown
    invariants = null_basis((reduced - np.eye(len(reduced))).T)
    assert invariants.shape[1] == count  # the sum of z
    return spectral_radius(reduced - invariants @ invariants.T) ** (1 / steps.period)


@settings(max_examples=4, deadline=None)
@given(instances(), st.integers(1, 3))
def test_adom_plus_keeps_its_theorem(instance, rounds):
    """Over two graphs in turn, with the smallest admissible chi."""
    problem, graph, mu = build(instance)
    mix = adozoo.cycle([adozoo.mixing(graph), adozoo.mixing(adozoo.graphs.star(problem.n))])
    largest = max(high for _, high in _gossip_matrix.ends_by_step("test", mix))
    norm = _gossip_matrix.contraction("test", adozoo.multi_consensus(adozoo.relaxed(mix, 1 / largest), rounds))
    rate = visible_rate(lambda mix: adozoo.adom_plus(mix, mu, 1.0, rounds), problem, mix)
    check(rate, 1 - math.sqrt(mu) * (1 - norm**2) / 32)


def test_accelerated_orders():
    """Four times the condition number takes NIDS four times the steps, and OPAPC twice: on any graph as many."""
    centers = np.random.default_rng(0).normal(size=(8, 2))

    def steps_per_digit(factory, mu, graph=adozoo.graphs.ring):
        problem = adozoo.problems.quadratic(np.tile(np.diag([mu, 1.0]), (8, 1, 1)), centers)
        return math.log(10) / -math.log(theory.exact_rate(factory, problem, adozoo.mixing(graph(8))))

    def opapc(mu):
        return lambda mix: adozoo.opapc(mix, mu, 1.0)

    plain = [steps_per_digit(lambda mix: adozoo.nids(1.0, mix), mu) for mu in (1 / 1000, 1 / 4000)]
    fast = [steps_per_digit(opapc(mu), mu) for mu in (1 / 1000, 1 / 4000)]
    assert plain[1] / plain[0] == pytest.approx(4, rel=0.02)
    assert fast[1] / fast[0] == pytest.approx(2, rel=0.02)
    assert steps_per_digit(opapc(0.001), 0.001, adozoo.graphs.path) == pytest.approx(fast[0], rel=0.02)


def test_scaling_the_gossip_matrix_changes_nothing():
    problem = adozoo.problems.random_quadratic(6, 2, strong_convexity=0.1, seed=2)
    mix = adozoo.mixing(adozoo.graphs.path(6))
    methods = [
        lambda mix: adozoo.apapc(mix, 0.1, 1.0),
        lambda mix: adozoo.opapc(mix, 0.1, 1.0),
        lambda mix: adozoo.adom_plus(mix, 0.1, 1.0),
        lambda mix: adozoo.adom_plus(mix, 0.1, 1.0, 3),
    ]
    start = np.random.default_rng(0).normal(size=(6, 2))
    for build in methods:
        paths = [run(build(m), problem.gradient, start, 20)["answer"] for m in (mix, adozoo.relaxed(mix, 0.37))]
        np.testing.assert_allclose(*paths, rtol=0, atol=1e-12)


def test_too_few_rounds_widen_the_interval():
    """One round of OPAPC is APAPC over I - W, scaled to [1 - w, 1 + w]; enough rounds have the published constants."""
    problem = adozoo.problems.random_quadratic(9, 2, strong_convexity=0.1, seed=2)
    ring = adozoo.mixing(adozoo.graphs.ring(9))
    low, high = _gossip_matrix.extremes("test", ring)
    start = np.random.default_rng(0).normal(size=(9, 2))
    scaled_ring = adozoo.relaxed(ring, 2 / (low + high))
    paths = [
        run(tx, problem.gradient, start, 20)["answer"]
        for tx in (adozoo.opapc(ring, 0.1, 1.0, rounds=1), adozoo.apapc(scaled_ring, 0.1, 1.0))
    ]
    np.testing.assert_allclose(*paths, rtol=0, atol=1e-12)
    tau = math.sqrt(19 * 0.1 / 15) / 2
    polynomial = adozoo.chebyshev(ring)
    published = adozoo.apapc(polynomial, 0.1, 1.0, momentum=tau, eigenvalues=(11 / 15, 19 / 15))
    paths = [run(tx, problem.gradient, start, 20)["answer"] for tx in (adozoo.opapc(ring, 0.1, 1.0), published)]
    np.testing.assert_allclose(*paths, rtol=0, atol=1e-12)


def test_everything_may_be_traced():
    """A grid of constants, and of graphs whose eigenvalues are given, in one program."""
    problem = adozoo.problems.random_quadratic(5, 2, strong_convexity=0.1, seed=2)
    mixes = [adozoo.mixing(graph(5)) for graph in (adozoo.graphs.ring, adozoo.graphs.path)]
    ends = np.array([_gossip_matrix.extremes("test", mix) for mix in mixes])
    start = np.random.default_rng(0).normal(size=(5, 2))

    def last(W, low, high, mu, L):
        tx = adozoo.apapc(adozoo.mixing(W, method="dense"), mu, L, eigenvalues=(low, high))
        return run(tx, problem.gradient, start, 10)["answer"][-1]

    matrices = jnp.stack([mix.matrix for mix in mixes])
    together = jax.jit(jax.vmap(last))(matrices, *ends.T, jnp.array([0.1, 0.05]), jnp.array([1.0, 2.0]))
    for lane, (mu, L) in enumerate([(0.1, 1.0), (0.05, 2.0)]):
        alone = run(adozoo.apapc(mixes[lane], mu, L), problem.gradient, start, 10)["answer"][-1]
        np.testing.assert_allclose(together[lane], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rounds", [1, 5])
def test_is_built_inside_a_jit_as_outside(rounds):
    """What a schedule's matrices are is known there too, on one device and on a mesh."""
    mix = adozoo.cycle([adozoo.mixing(adozoo.graphs.ring(6)), adozoo.mixing(adozoo.graphs.star(6))])
    start = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))

    def one_step(mix):
        tx = adozoo.adom_plus(mix, 0.1, 1.0, rounds)
        return lambda x: tx.update(x, tx.init(x), x)[0]

    expected = one_step(mix)(start)
    for where in (mix, adozoo.placement.place(mix, adozoo.placement.node_mesh(jax.devices()[:1]))):
        found = jax.jit(lambda x, where=where: one_step(where)(x))(start)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_misuse():
    ring, directed = adozoo.mixing(adozoo.graphs.ring(6)), adozoo.mixing(adozoo.graphs.directed_ring(6))
    for method in (adozoo.apapc, adozoo.opapc, adozoo.adom_plus):
        name = method.__name__
        assert_refused(lambda method=method: method(directed, 0.1, 1.0), name, "symmetric")
        assert_refused(lambda method=method: method(ring, 2.0, 1.0), name, "strong_convexity", "2.0", "exceed")
        assert_refused(lambda method=method: method(ring, 0.1, float("nan")), name, "smoothness", "nan")
        assert_refused(
            lambda method=method: jax.jit(lambda W: method(adozoo.mixing(W), 0.1, 1.0))(ring.matrix), "traced"
        )
    assert_refused(lambda: adozoo.apapc(ring, 0.1, 1.0, momentum=1.5), "momentum", "1.5")
    assert_refused(lambda: adozoo.apapc(ring, 0.1, 1.0, step_size=-1.0), "step_size", "-1.0")
    assert_refused(lambda: adozoo.adom_plus(ring, 0.1, 1.0, rounds=0), "rounds", "0")
    assert_refused(lambda: adozoo.adom_plus(ring, 0.1, 1.0, chi=0.5), "chi", "0.5")
    apart = adozoo.gossip_every(ring, 3)
    assert_refused(lambda: adozoo.adom_plus(apart, 0.1, 1.0, rounds=2), "connect", "Pass more rounds")
    assert_refused(lambda: adozoo.apapc(apart, 0.1, 1.0), "connected at every step", "multi_consensus")
    adozoo.adom_plus(apart, 0.1, 1.0, rounds=3)
