"""Verdicts: runs follow their linearisation, bounds are judged, and broken methods are found out in words."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adozoo
import theory
from theory import claims, observation, random_claims
from theory.compare import compare, compare_all
from theory.verdict import Report

LINEAR = [
    name
    for name, entry in adozoo.zoo.entries().items()
    if entry.readable and ("tree" in entry.mixings or not entry.fixed_graph)
]
RATE = 0.1
PROBLEM = adozoo.problems.random_quadratic(6, 2, strong_convexity=0.2, seed=1)
RING = adozoo.mixing(adozoo.graphs.ring(6))


def build(name, learning_rate=RATE):
    return lambda mix: adozoo.zoo.entry(name).build(learning_rate, mix)


def said(verdict, *words):
    """Whether one of the violations contains all words."""
    return any(all(word in sentence for word in words) for sentence in verdict.violations)


@pytest.fixture(scope="module")
def extra():
    return compare(build("extra"), PROBLEM, RING, name="extra", learning_rate=RATE)


@pytest.fixture(scope="module")
def diging():
    """DIGing's step map, and what is predicted of it."""
    with jax.enable_x64(True):
        steps = theory.step_map.read(build("diging"), PROBLEM, RING)
        return steps, observation.place(steps)[1]


# Runs.


def check_run(verdict):
    """The run is what its linearisation says, and ends where theory says."""
    run = verdict.observation
    assert verdict.holds, verdict.violations
    assert run.fit.rate == pytest.approx(run.window_rate, rel=1e-6)
    assert verdict["measured"].verdict == "agrees"
    assert run.errors[-1] < 1e-9 * run.errors[0]


def test_runs_follow_their_linearisation(extra):
    check_run(extra)
    for verdict, exact in zip(
        compare_all(["all_reduce_sgd", "local_dsgd"], PROBLEM, RING, RATE, certificate=False),
        (True, False),
        strict=True,
    ):
        check_run(verdict)
        assert (verdict.bias < 1e-9) == exact


@pytest.mark.slow
@pytest.mark.parametrize("name", LINEAR)
@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 10**6), nodes=st.integers(3, 9), kappa=st.floats(2, 20), step=st.floats(0.02, 0.3)
)
def test_every_linear_method_on_random_graphs(name, seed, nodes, kappa, step):
    on_trees = "tree" in adozoo.zoo.entry(name).mixings
    graph = adozoo.graphs.erdos_renyi(nodes, 0.6, seed)
    graph = adozoo.graphs.spanning_tree(graph) if on_trees else graph
    mix = adozoo.mixing(adozoo.weights.lazy(adozoo.weights.metropolis(graph)))  # D2 needs lambda_n > -1/3
    problem = adozoo.problems.random_quadratic(nodes, 2, 1 / kappa, seed=seed)
    (verdict,) = compare_all([name], problem, mix, step)
    check_run(verdict)
    certified = verdict["certified"].rate
    # Refused for those that are not exact, or send messages on links, and no others.
    assert np.isnan(certified) == (verdict.bias > 1e-7 or on_trees)
    if np.isfinite(certified):
        assert verdict["worst known"].rate <= certified + 1e-6
        assert verdict["exact"].rate <= certified + 1e-6


def test_methods_on_links_and_compressed_ones_have_no_certificate():
    """A relay's verdict stands on its exact rate; of CHOCO's not even that much can be said."""
    tree = adozoo.mixing(adozoo.graphs.path(6))
    relay = compare(build("relay_sgd", 0.3), PROBLEM, tree, name="relay_sgd", learning_rate=0.3)
    assert relay.holds
    assert relay["measured"].rate == pytest.approx(relay["exact"].rate, abs=2e-3)
    assert np.isnan(relay["certified"].rate)
    for name, reason in (("relay_sgd", "messages on the links"), ("choco_sgd", "compresses what it sends")):
        with pytest.raises(ValueError, match=reason):
            theory.worst_case_rate(build(name), strong_convexity=0.1, smoothness=1.0, sigma=0.5)


def test_the_fitted_rate_is_the_exact_one_where_one_mode_rules():
    problem = adozoo.problems.quadratic(np.full((4, 1, 1), 0.5), np.arange(4.0)[:, None])
    mix = adozoo.exact_mean(4)  # 1 - 0.2 * 0.5, and nothing else
    verdict = compare(build("dsgd_atc", 0.2), problem, mix, certificate=False)
    assert verdict["measured"].rate == pytest.approx(0.9, abs=1e-8)
    assert verdict["exact"].rate == pytest.approx(0.9, abs=1e-12)
    assert verdict["measured"].steps_per_digit == pytest.approx(np.log(10) / -np.log(0.9))


def test_nodes_start_apart_unless_the_limit_depends_on_it(diging):
    with jax.enable_x64(True):
        apart, _ = observation.place(diging[0])
        steps = theory.step_map.read(build("all_reduce_sgd"), PROBLEM, adozoo.exact_mean(6))
        together, found = observation.place(steps)
    assert not claims.is_equal(apart)
    assert claims.is_equal(together)
    assert observation.distance(found.limit, adozoo.replicate(PROBLEM.optimum, 6)) < 1e-12
    for start in (apart, together):  # both as far from the optimum as zero is
        away = observation.distance(start, adozoo.replicate(PROBLEM.optimum, 6))
        assert away == pytest.approx(np.linalg.norm(PROBLEM.optimum))


def test_logistic_regression_follows_its_linearisation_near_the_limit():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 8, 2)) + rng.normal(size=(5, 1, 2))
    problem = adozoo.problems.logistic(features, np.sign(features @ [1.0, -1.0] + rng.normal(size=(5, 8))), 0.2)
    verdict = compare(build("nids", 0.5), problem, adozoo.mixing(adozoo.graphs.ring(5)), name="nids", learning_rate=0.5)
    assert verdict.holds, verdict.violations
    run = verdict.observation
    assert run.fit.rate == pytest.approx(run.window_rate, rel=1e-4)
    assert verdict["theorem nids"].verdict == "holds"
    # The linearised rate is local; the certificate is for the whole class, and lies above.
    assert verdict["exact"].rate < verdict["certified"].rate


def test_periodic_schedules_and_their_refused_certificates():
    mix = adozoo.one_peer_exponential(4)
    problem = adozoo.problems.random_quadratic(4, 1, strong_convexity=0.5)
    verdict = compare(build("diging"), problem, mix, name="diging", learning_rate=RATE)
    check_run(verdict)
    assert verdict.observation.steps[0] == 2
    assert verdict["certified"].verdict == "no promise"  # a single step mixes pairs only: sigma = 1
    assert verdict["theorem diging"].verdict == "n/a"


@pytest.mark.slow
def test_large_problems_are_compared_without_a_jacobian(monkeypatch):
    monkeypatch.setattr(observation, "LARGE", 10)
    verdict = compare(build("extra"), PROBLEM, RING, certificate=False)
    check_run(verdict)
    assert verdict["exact"].rate == pytest.approx(theory.exact_rate(build("extra"), PROBLEM, RING), abs=1e-9)


def test_a_run_that_leaves_its_linearisation_is_off():
    """A step size that is halved late: no period tells, and the Jacobian knows only the first steps."""
    schedule = optax.piecewise_constant_schedule(0.2, {150: 0.5})
    verdict = compare(lambda mix: adozoo.dsgd(schedule, mix), PROBLEM, RING, steps=1200, certificate=False)
    assert not verdict.holds
    assert verdict["measured"].verdict == "OFF"
    assert said(verdict, "measured rate is off")


def test_runs_that_are_over_at_once():
    problem = adozoo.problems.quadratic(np.ones((3, 1, 1)), np.arange(3.0)[:, None])
    verdict = compare(build("dsgd_atc", 1.0), problem, adozoo.exact_mean(3), certificate=False)
    assert np.isnan(verdict["measured"].rate)
    assert any("too few for a rate" in sentence for sentence in verdict.findings)
    assert verdict.holds


def test_a_run_away_from_an_unstable_fixed_point_contradicts_nothing():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 8, 1))
    problem = adozoo.problems.logistic(features, np.sign(features[..., 0] + rng.normal(size=(3, 8))), 0.1)
    verdict = compare(build("dsgd_atc", 60.0), problem, adozoo.exact_mean(3), certificate=False)
    assert verdict["exact"].rate > 1
    assert verdict.holds, verdict.violations
    assert any("leaves the neighbourhood" in sentence for sentence in verdict.findings)


@pytest.mark.parametrize(("rate", "period", "steps"), [(0.9, 1, 438), (0.9, 4, 440), (1.1, 1, 725), (0.0, 3, 192)])
def test_length_of_runs(rate, period, steps):
    assert observation.needed(rate, period) == steps


# Broken methods.


def tracking(now, before, learning_rate=RATE):
    """DIGing with s <- W s + now * g - before * g_before; now = before = 1 in the published method."""

    def factory(mix):
        def init(params):
            return jnp.zeros_like(params), jnp.zeros_like(params), jnp.int32(0)

        def update(grads, state, params=None, **extra):
            tracker, last, count = state
            tracker = mix(tracker, count, message=1) + now * grads - before * last
            return tracker, (tracker, grads, count + 1)

        track = optax.GradientTransformationExtraArgs(init, update)
        return optax.chain(track, adozoo.descent(learning_rate), adozoo.combine_then_adapt(mix))

    return factory


@dataclasses.dataclass(frozen=True, eq=False)
class SelfWeight(adozoo.schedules.Wrapper):
    """A mixing whose nodes give themselves a wrong weight: W + excess I."""

    base: adozoo.Mixing
    excess: float
    varying = False

    def __call__(self, tree, step=0, message=0):
        return jax.tree.map(lambda mixed, own: mixed + self.excess * own, self.base(tree, step, message), tree)


def test_gradient_tracking_written_anew_is_diging():
    verdict = compare(tracking(1, 1), PROBLEM, RING, like="diging", learning_rate=RATE)
    assert verdict.holds, verdict.violations
    assert verdict["like diging"].verdict == "same"
    assert "The same as diging in exact rate, limit, certificate and iterates." in verdict.findings


def test_a_sign_error_in_the_tracking_term_is_caught():
    verdict = compare(tracking(1, -1), PROBLEM, RING, like="diging", learning_rate=RATE)
    assert not verdict.holds
    # At a fixed point (I - W) s = 2 g_i: trackers cannot rest while gradients differ, and only g = 0 on average is left
    # undone. That the limit is wrong, and that certificates are refused, follows.
    assert said(verdict, "Not exact", "diging is registered as exact")
    assert said(verdict, "Not diging", "exact rate is", "limit is at distance", "it has no certificate")
    assert said(verdict, "iterates part from step 2 on")  # the first step has no gradient before it


def test_a_tracker_that_forgets_the_last_gradient_is_caught_by_the_registrys_word_alone():
    verdict = compare(tracking(1, 0), PROBLEM, RING, name="diging", certificate=False)
    assert said(verdict, "Not exact: it converges to a point at distance")
    assert verdict.bias > 0.01


def test_the_wrong_sign_of_all_gradients_diverges():
    verdict = compare(tracking(-1, -1), PROBLEM, RING, like="diging", learning_rate=RATE, certificate=False)
    assert any(sentence.startswith("Diverges: errors grow by the factor 1.") for sentence in verdict.findings)
    assert said(verdict, "Not diging", "iterates part from step 1 on")


@pytest.mark.parametrize(
    ("excess", "words"), [(-0.05, "it converges to a point"), (0.05, "its fixed point is a point")]
)
def test_a_wrong_self_weight_is_caught(excess, words):
    def factory(mix):
        return adozoo.gradient_tracking(RATE, SelfWeight(mix, excess))

    verdict = compare(factory, PROBLEM, RING, like="diging", learning_rate=RATE, certificate=False)
    assert not verdict.holds
    assert said(verdict, "Not exact", words)
    assert said(verdict, "Not diging", "iterates part from step 1 on")
    # W + excess I has eigenvalue 1 + excess on consensus: the mean shrinks to zero, or grows for ever.
    assert (verdict["exact"].rate > 1) == (excess > 0)


def test_a_mixing_that_is_not_doubly_stochastic_is_caught():
    neighbors, weights = RING.table()
    weights = np.asarray(weights) + 0.02 * (np.arange(3) == 0)  # column 0 is the node itself
    table = adozoo._mixings.Table(jnp.asarray(neighbors), jnp.asarray(weights), 6)
    verdict = compare(build("extra"), PROBLEM, table, name="extra", learning_rate=RATE)
    assert said(verdict, "mixing is not the doubly stochastic one", "off by up to 0.02")
    assert said(verdict, "Not exact")


def test_what_drifts_has_no_limit():
    drift = optax.GradientTransformation(
        lambda params: optax.EmptyState(), lambda grads, state, params=None: (jnp.ones_like(grads), state)
    )
    verdict = compare(lambda mix: drift, PROBLEM, RING)
    assert said(verdict, "No limit: a conserved quantity drifts")
    assert verdict.bias == np.inf
    assert verdict.limit is None
    assert verdict["exact"].rate >= 1


EDGES = adozoo.random_edge(adozoo.graphs.ring(4), jax.random.key(0))
SMALL = adozoo.problems.random_quadratic(4, 1, strong_convexity=0.5, seed=2)


def test_random_gossip_is_compared_in_mean_square():
    verdict = compare(build("diging"), SMALL, EDGES, name="diging", learning_rate=RATE)
    assert verdict.holds, verdict.violations
    exact = theory.mean_square.mean_square_rate(build("diging"), SMALL, EDGES)
    assert verdict["exact"].rate == pytest.approx(exact.rate)
    # Not above, and with 64 runs not much below either.
    assert verdict["measured"].rate == pytest.approx(exact.rate, abs=0.2 * (1 - exact.rate))
    assert verdict.bias < 1e-9
    assert any("every outcome of the mixing keeps the optimum fixed" in sentence for sentence in verdict.findings)


def test_under_random_gossip_biased_methods_settle_at_the_exact_level():
    verdict = compare(build("dsgd_atc"), SMALL, EDGES, name="dsgd_atc")
    exact = theory.mean_square.mean_square_rate(build("dsgd_atc"), SMALL, EDGES).node_error
    level, error = verdict.observation.settled
    assert verdict.holds, verdict.violations
    assert 0 < error < 0.1 * level
    assert abs(level - exact) < 5 * error


def test_mean_square_claims_can_fail():
    moments = theory.mean_square.MeanSquareRate(0.81, 0.8, 0.0, 0.0, 0.0, None, 1, 2, 0.0)
    settling = dataclasses.replace(moments, node_error=1.0)
    steps, errors = np.arange(1, 101), 0.95 ** np.arange(100.0)
    run = observation.Observation(steps, errors, errors, theory.fit_rate(errors), np.nan, True, (1.5, 0.01))
    for found, words in ((moments, "above the exact mean-square rate 0.9"), (settling, "which is off")):
        report = Report()
        random_claims.measured(report, observation.Prediction(found.rate, mean_square=found), run)
        assert said(report, words)
        assert report.claims[0].verdict == "OFF"
    divergent, report = dataclasses.replace(moments, factor=1.44), Report()
    with jax.enable_x64(True):
        step_map = theory.step_map.read(build("extra"), SMALL, adozoo.exact_mean(4))
        limit = adozoo.replicate(SMALL.optimum, 4)
        random_claims.convergence(report, step_map, observation.Prediction(1.2, limit, mean_square=divergent), True)
    assert report.findings[0].startswith("Diverges: root mean squared errors grow by the factor 1.2 a step.")
    assert report.violations == []


def test_random_mixings_with_too_many_outcomes_have_no_exact_rate():
    mix = adozoo.channel.drops(RING, 0.1, jax.random.key(0))
    with jax.enable_x64(True):
        steps = theory.step_map.read(build("diging"), PROBLEM, mix)
        _, found = observation.place(steps)
        report = Report()
        assert np.isnan(claims.convergence(report, steps, found, True, None))
    assert np.isnan(found.rate)
    assert "outcomes in a step" in report.findings[0]
    assert report.violations == []


def test_errors():
    with pytest.raises(ValueError, match=r"Did you mean .*extra"):
        compare(build("extra"), PROBLEM, RING, name="extr")
    with pytest.raises(ValueError, match="needs learning_rate"):
        compare(build("extra"), PROBLEM, RING, like="extra")
