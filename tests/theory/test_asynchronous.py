"""DADAO, A2CiD2 and averaging of pairs: exact second moments, the consensus lemma, communication costs."""

import dataclasses

import jax
import networkx as nx
import numpy as np
import pytest
import references
import scipy.linalg
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

import adozoo
import theory
from adozoo import graphs
from theory.generator import Event

RECORDED = references.load("asynchronous_and_accelerated")["theory"]
CONSTANTS = references.load("asynchronous_and_accelerated")["acid"]["acid_constants"]
BOTH = pytest.mark.parametrize("accelerated", [True, False], ids=["acid", "baseline"])


def named(record):
    return getattr(graphs, record["graph"])(record["n"])


def node_rate(graph, rate=1.0):
    return adozoo.resistance.normalize_rates(graph, "node_rate", rate)


@st.composite
def rated_graphs(draw, largest=6):
    """A random connected graph with random rates."""
    n = draw(st.integers(2, largest))
    graph = nx.Graph()
    for i in range(1, n):
        graph.add_edge(i, draw(st.integers(0, i - 1)))
    for i in range(n):
        for j in range(i):
            if draw(st.booleans()):
                graph.add_edge(i, j)
    for i, j in graph.edges:
        graph[i][j]["weight"] = draw(st.floats(0.1, 3.0))
    return graph


def test_parameters_recorded_and_traced():
    for name, recorded in CONSTANTS.items():
        if not name.startswith("cycle"):
            continue
        found = theory.acid_parameters(*theory.chi(node_rate(graphs.ring(int(name.split("_")[1])))))
        assert found.eta == pytest.approx(recorded["eta"], rel=1e-12)
        assert found.alpha_tilde == pytest.approx(recorded["alpha_tilde"], rel=1e-12)
    assert theory.acid_parameters(3.0, 0.5, accelerated=False) == (0.0, 0.5, 0.5)
    numbers = theory.dadao_parameters(2.0, 50.0, 0.3)
    traced = jax.jit(theory.dadao_parameters)(2.0, 50.0, 0.3)
    np.testing.assert_allclose(traced, numbers, rtol=1e-15)
    assert numbers.alpha * numbers.theta == pytest.approx(1 / 8, rel=1e-15)
    assert numbers.gamma_tilde**2 * 16 * 50 == pytest.approx(1.0, rel=1e-15)


@given(rated_graphs())
def test_rates_for_dadao(graph):
    chi_1, chi_2 = theory.chi(theory.dadao_rates(graph))
    assert 2 * chi_1 * chi_2 == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("record", RECORDED["dadao_second_moment"], ids=lambda record: record["graph"])
def test_recorded_dadao(record):
    laplacian = theory.dadao_rates(named(record))
    assert laplacian.trace() / 2 == pytest.approx(record["total_comm_rate"], rel=1e-12)
    found = theory.dadao_rate(laplacian, np.array(record["h"]), record["mu"], record["L"])
    assert found.second_moment == pytest.approx(record["second_moment_abscissa"], rel=1e-9)
    assert found.mean == pytest.approx(record["mean_abscissa"], rel=1e-9)


def test_dadao_against_its_bound():
    """Largest and smallest ratio over graphs, condition numbers and curvatures, each to 1e-3."""
    bound, ratios = theory.bounds.entry("dadao"), []
    for graph in (graphs.ring(3), graphs.ring(4), graphs.star(4), graphs.complete(4), graphs.path(4)):
        n, laplacian = len(graph), theory.dadao_rates(graph)
        chi_1, chi_2 = theory.chi(laplacian)
        for condition in (1.0, 4.0, 100.0, 1e4):
            half = np.where(np.arange(n) < n // 2, 1.0, condition)
            spread = condition ** np.linspace(0, 1, n)
            promised = bound.evaluate(strong_convexity=1.0, smoothness=condition, chi_1=chi_1 * (1 - 1e-9), chi_2=chi_2)
            assert promised.holds
            for curvatures in (np.ones(n), np.full(n, condition), half, spread):
                found = theory.dadao_rate(laplacian, curvatures, 1.0, condition)
                ratios.append(-found.second_moment / promised.value)
    assert len(ratios) == 80
    assert min(ratios) == pytest.approx(1.468, abs=1e-3)
    assert max(ratios) == pytest.approx(2.000, abs=1e-3)


@BOTH
@pytest.mark.parametrize("record", RECORDED["acid_gossip"], ids=lambda record: record["graph"])
def test_recorded_gossip(record, accelerated):
    laplacian, name = node_rate(named(record)), "acid" if accelerated else "baseline"
    assert theory.chi(laplacian) == pytest.approx((record["chi1"], record["chi2"]), rel=1e-9)
    decay = -theory.acid_rate(laplacian, accelerated).second_moment
    assert decay == pytest.approx(record[f"{name}_second_moment_decay"], rel=1e-9)
    settled = theory.acid_stationary(laplacian, accelerated=accelerated)
    assert settled.variance == pytest.approx(record[f"{name}_stationary_consensus_var"], rel=1e-9)
    assert settled.bias == 0


def test_decay_over_its_bound():
    """A2CiD2's, then the baseline's, in three digits; on the complete graph both bounds are tight."""
    known = {
        ("ring", 4): (1.064, 1.219),
        ("ring", 8): (1.244, 1.830),
        ("ring", 16): (1.394, 1.980),
        ("complete", 8): (1.000, 1.000),
        ("star", 8): (1.045, 1.377),
        ("path", 8): (1.390, 1.969),
    }
    for (family, n), expected in known.items():
        laplacian = node_rate(getattr(graphs, family)(n))
        chi_1, chi_2 = theory.chi(laplacian)
        for accelerated, name, ratio in zip(
            (True, False), ("a2cid2_consensus", "pairwise_averaging"), expected, strict=True
        ):
            promised = theory.bounds.entry(name).evaluate(chi_1=chi_1, **({"chi_2": chi_2} if accelerated else {}))
            decay = -theory.acid_rate(laplacian, accelerated).second_moment
            assert decay / promised.value == pytest.approx(ratio, abs=5.1e-4)
            assert decay >= promised.value * (1 - 1e-9)


def test_recorded_momentum():
    recorded = RECORDED["acid_momentum_stationary"]["ring_8_beta0.9"]
    for name, rate, accelerated in (("acid", 1.0, True), ("base", 1.0, False), ("base_2x", 2.0, False)):
        found = theory.acid_stationary(node_rate(graphs.ring(8), rate), 0.9, accelerated)
        assert found.variance == pytest.approx(recorded[name], rel=1e-9)


def test_momentum_on_the_ring_of_sixteen():
    """A2CiD2, then the baseline at 1, 2 and 4 exchanges a node: momentum makes it worth twice the exchanges."""
    known = {
        0.0: (3.326, 3.535, 1.768, 0.884),
        0.5: (2.213, 2.928, 1.338, 0.599),
        0.9: (0.814, 1.783, 0.681, 0.244),
        0.99: (0.1175, 0.4392, 0.1252, 0.0351),
    }
    for momentum, expected in known.items():
        for (rate, accelerated), value in zip(((1, True), (1, False), (2, False), (4, False)), expected, strict=True):
            found = theory.acid_stationary(node_rate(graphs.ring(16), float(rate)), momentum, accelerated)
            assert found.variance == pytest.approx(value, abs=5.1e-4 if momentum < 0.99 else 5.1e-5)


@BOTH
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_bias_under_heterogeneity(accelerated, momentum):
    laplacian = node_rate(graphs.path(7))
    gradients = np.random.default_rng(0).normal(size=7)
    second = theory.acid_parameters(*theory.chi(laplacian), accelerated).alpha_tilde
    mean = -2 / (0.5 + second) * np.linalg.pinv(laplacian.toarray()) @ (gradients - gradients.mean())
    found = theory.acid_stationary(laplacian, momentum, accelerated, gradients, learning_rate=0.3)
    assert found.bias == pytest.approx(mean @ mean / 7, rel=1e-9)
    without_noise = theory.acid_stationary(laplacian, momentum, accelerated, gradients, noise=0.0)
    alone = theory.acid_stationary(laplacian, momentum, accelerated)
    assert found.variance == pytest.approx(without_noise.variance + alone.variance, rel=1e-9)


@settings(max_examples=8)
@given(rated_graphs(4), st.booleans(), st.sampled_from([0.0, 0.7]), st.integers(0, 1000))
def test_low_rank_solver_is_the_dense_one(graph, accelerated, momentum, seed):
    """With curvatures, gradients and momentum, where jumps have rank two."""
    rng, n = np.random.default_rng(seed), len(graph)
    system = theory.acid_events(graph, accelerated, momentum, 0.3, rng.uniform(0.1, 2, n), None, 1.0)
    quick, dense = theory.low_rank_rate(*system[:3]), theory.generator_rate(*system[:3])
    np.testing.assert_allclose(quick, dense, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(
        theory.low_rank_stationary(*system[:3]), theory.generator_stationary(*system[:3]), rtol=1e-7, atol=1e-9
    )


def test_low_rank_extremes():
    grows = [Event(1.0, np.array([[0.5]]), np.eye(1))]
    assert theory.low_rank_rate(np.zeros((1, 1)), grows).second_moment == pytest.approx(1.25, abs=1e-9)
    assert np.isinf(theory.low_rank_stationary(np.zeros((1, 1)), grows)).all()
    assert np.isinf(theory.low_rank_stationary(-0.1 * np.eye(1), [Event(1.0, np.array([[-3.0]]), np.eye(1))])).all()
    # The jump never reads the slow coordinate, which then decays like its mean.
    slow = theory.low_rank_rate(np.diag([-0.1, -1.0]), [(1.0, np.diag([0.0, -0.5]))])
    assert slow.second_moment == pytest.approx(-0.2, abs=1e-8)


@settings(max_examples=10)
@given(rated_graphs(5), st.integers(0, 1000))
def test_real_generators_obey_the_lemma(graph, seed):
    """On drawn graphs and states: the generator by matrices, the slacks, and that they add up as the proof says."""
    laplacian = adozoo.resistance.rate_laplacian(graph).toarray()
    n, rng = len(laplacian), np.random.default_rng(seed)
    x, tilde = (v - v.mean() for v in rng.normal(size=(2, n)))
    chi_1, chi_2 = theory.chi(laplacian)
    eta, _, second = theory.acid_parameters(chi_1, chi_2)
    inverse = np.linalg.pinv(laplacian)
    norm = scipy.linalg.block_diag(np.eye(n), inverse / chi_1)
    system, state = theory.acid_events(laplacian), np.concatenate([x, tilde])
    mean = system.drift + sum(event.rate * event.jump for event in system.events)
    generator = 2 * state @ norm @ mean @ state
    generator += sum(event.rate * (event.jump @ state) @ norm @ (event.jump @ state) for event in system.events)
    energy = x @ laplacian @ x
    resistances = np.asarray(theory.effective_resistance(laplacian))
    weighted = sum(-laplacian[i, j] * resistances[i, j] * (x[i] - x[j]) ** 2 for i in range(n) for j in range(i))
    names = {
        "X": x @ x, "Y_+": tilde @ inverse @ tilde, "C": x @ tilde, "C_+": x @ inverse @ tilde, "D": energy,
        "D_R": weighted, "eta": eta, "alpha_tilde": second, "b": 1 / chi_1, "chi_1": chi_1, "chi_2": chi_2,
        "S_R": 2 * chi_2 * energy - weighted, "S_lambda": chi_1 * x @ x - x @ inverse @ x,
        "S_+": (x - tilde) @ inverse @ (x - tilde),
    }  # fmt: skip

    def value(expression):
        return float(expression.subs({symbol: names[symbol.name] for symbol in expression.free_symbols}))

    lemma, scale = theory.consensus_lemma(), max(1.0, abs(generator))
    assert value(lemma.step("generator").right) == pytest.approx(generator, abs=1e-9 * scale)
    decay = lemma.step("decay")
    assert value(decay.left) == pytest.approx(generator, abs=1e-9 * scale)
    surplus = sum(np.prod([value(factor) for factor in factors]) for factors in decay.surplus)
    assert value(decay.right) - generator == pytest.approx(surplus, abs=1e-9 * scale)
    assert min(names["S_R"], names["S_lambda"], names["S_+"]) >= -1e-9 * scale
    for name in ("below", "start"):
        assert lemma.step(name).verify()


def test_the_lemma_is_proved_and_wrong_ones_are_not():
    lemma = theory.consensus_lemma()
    assert lemma.verify()
    assert lemma.bound is theory.bounds.entry("a2cid2_consensus")
    assert all(step.latex() for step in lemma.steps)
    assert "Lambda Lambda^+" in str(lemma)
    for step in lemma.steps:
        assert not dataclasses.replace(step, right=step.right + sympy.Symbol("C", real=True)).verify()
    decay = lemma.step("decay")
    assert not dataclasses.replace(decay, right=decay.right * sympy.Rational(11, 10)).verify()
    assert not dataclasses.replace(decay, surplus=((-1 * decay.surplus[0][0], *decay.surplus[0][1:]),)).verify()
    assert not dataclasses.replace(decay, relation="=").verify()
    with pytest.raises(ValueError, match="no step is called 'yung'"):
        lemma.step("yung")
    with pytest.raises(ValueError, match="no rule"):
        theory.asynchronous_proofs.over_links(sympy.Symbol("q", real=True) ** 2)


@pytest.mark.parametrize(
    ("misuse", "match"),
    [
        (lambda: theory.acid_events(graphs.ring(4), curvatures=np.ones(3)), "curvatures must have one number"),
        (lambda: theory.acid_stationary(graphs.ring(4), momentum=1.0), r"momentum must lie in \[0, 1\)"),
        (lambda: theory.acid_rate(graphs.path(1)), "two nodes"),
        (lambda: theory.dadao_rate(graphs.ring(3), np.array([1.0, 2.0, 5.0]), 1.0, 4.0), "curvatures must be"),
        (lambda: theory.dadao_parameters(2.0, 1.0, 1.0), "must not exceed smoothness"),
        (lambda: theory.acid_parameters(0.0, 1.0), "chi_1 must lie"),
        (lambda: theory.dadao_rates(graphs.path(1)), "two nodes"),
    ],
)
def test_misuse(misuse, match):
    with pytest.raises(ValueError, match=match):
        misuse()
