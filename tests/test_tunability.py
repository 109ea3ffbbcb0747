"""experiments.tunability and experiments.priors: recorded values, and enumeration of all orders in rational numbers."""

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest
import references
from hypothesis import given
from hypothesis import strategies as st

import adozoo
from experiments import priors, tunability

BETTER = {"max": max, "min": min}
small = st.lists(st.integers(-3, 3), min_size=1, max_size=5)
directions = st.sampled_from(["max", "min"])


def exact(values):
    return np.array([Fraction(value, 7) for value in values], dtype=object)


def incumbent_of(order, validation, test, better):
    """The test value that a loop over the trials ends with."""
    held = order[0]
    for trial in order[1:]:
        if (validation[trial] > validation[held]) if better == "max" else (validation[trial] < validation[held]):
            held = trial
    return test[held]


def enumerated(validation, test, better, replacement):
    """The mean over all orders of k trials, in rational numbers, for each k."""
    trials, means = range(len(validation)), []
    for k in range(1, len(validation) + 1):
        orders = list(itertools.product(trials, repeat=k) if replacement else itertools.permutations(trials, k))
        means.append(sum(incumbent_of(order, validation, test, better) for order in orders) / Fraction(len(orders)))
    return means


@pytest.fixture(scope="module")
def one():
    return references.load("tunability")["one"]


def test_recorded_expectations(one):
    values = one["test"]  # the metric that the recorded estimates, as the authors' code, are made of
    with_replacement = tunability.expected_best_with_replacement(values)
    np.testing.assert_allclose(with_replacement, one["E_max_with_replacement"], rtol=0, atol=1e-9)
    without = tunability.expected_best_without_replacement(values)
    np.testing.assert_allclose(without, one["E_max_without_replacement"], rtol=0, atol=1e-9)
    recorded = references.load("tunability")["E_min_with_replacement"]
    found = tunability.expected_best_with_replacement(recorded["loss"], "min")
    np.testing.assert_allclose(found, recorded["values"], rtol=0, atol=1e-9)


def test_recorded_incumbents_and_weightings(one):
    validation, test = tunability.incumbents(one["val"], one["test"])
    np.testing.assert_allclose(validation, one["incumbent_val"], atol=1e-9)
    np.testing.assert_allclose(test, one["incumbent_test"], atol=1e-9)
    np.testing.assert_allclose(tunability.weights("cpe", 10), one["weights_CPE"], atol=1e-9)
    for scheme, name in {"cpe": "CPE", "cpu": "CPU", "cpl": "CPL", "one_shot": "one_shot", "peak": "peak"}.items():
        assert tunability.tunability(test, scheme) == pytest.approx(one[name], abs=1e-9)
    assert tunability.tunability(test, "exponential", kappa=0.1) == pytest.approx(one["kappa_0p1"], abs=1e-9)


def test_recorded_relative_performance():
    recorded = references.load("tunability")["relative"]
    tasks = {"acc1": "max", "acc2": "max", "loss1": "min"}
    values = [[[by_task[task]] for task in tasks] for by_task in recorded["perf"].values()]
    found = tunability.relative_performance(values, list(tasks.values()))
    np.testing.assert_allclose(found[:, 0], list(recorded["S"].values()), atol=1e-9)


@pytest.mark.parametrize("replacement", [True, False])
@given(pairs=st.lists(st.tuples(st.integers(-2, 2), st.integers(-3, 3)), min_size=1, max_size=5), better=directions)
def test_the_expected_incumbent_is_the_mean_over_all_orders_exactly(replacement, pairs, better):
    validation, test = (exact(column) for column in zip(*pairs, strict=True))
    found = tunability.expected_incumbent(validation, test, better, replacement)
    assert list(found) == enumerated(validation, test, better, replacement)
    floats = tunability.expected_incumbent(validation.astype(float), test.astype(float), better, replacement)
    np.testing.assert_allclose(floats, found.astype(float), rtol=0, atol=1e-14)


@given(values=small, better=directions)
def test_estimators_of_one_metric_satisfy_their_identities_exactly(values, better):
    values = exact(values)
    unbiased = tunability.expected_best_without_replacement(values, better)
    plug_in = tunability.expected_best_with_replacement(values, better)
    assert unbiased[0] == plug_in[0] == sum(values) / Fraction(len(values))
    assert unbiased[-1] == BETTER[better](values)
    for curve in (unbiased, plug_in):
        assert all(BETTER[better](pair) == pair[1] for pair in itertools.pairwise(curve))
    assert all(BETTER[better](pair) == pair[0] for pair in zip(unbiased, plug_in, strict=True))


def test_a_thousand_trials_agree_with_rational_arithmetic():
    trials = 1000
    values = np.sort(np.random.default_rng(0).normal(size=trials))
    found = tunability.expected_best_without_replacement(values)
    for k in (1, 2, 37, 500, 999, 1000):
        terms = (Fraction(v) * comb(i, k - 1) for i, v in enumerate(values))
        assert found[k - 1] == pytest.approx(float(sum(terms) / comb(trials, k)), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("replacement", [True, False])
def test_shuffles_converge_to_the_exact_expectation(replacement):
    rng = np.random.default_rng(3)
    validation = rng.integers(0, 5, 12) / 5  # with ties
    test = validation + rng.normal(size=12)
    shuffled = tunability.shuffled_incumbents(validation, test, "max", 4000, replacement, seed=1)
    expected = tunability.expected_incumbent(validation, test, "max", replacement)
    deviation = shuffled.std(axis=0) / np.sqrt(len(shuffled))
    assert (np.abs(shuffled.mean(axis=0) - expected) <= 4 * deviation + 1e-12).all()
    other = tunability.expected_incumbent(validation, test, "max", not replacement)
    assert (np.abs(shuffled.mean(axis=0) - other) > 4 * deviation).any()


@pytest.mark.parametrize("better", ["max", "min"])
def test_what_diverged_is_never_the_best(better):
    worst = -np.inf if better == "max" else np.inf
    for bad in (np.nan, worst):
        validation, test = tunability.incumbents([bad, 0.3, bad, 0.2, 0.4], [0.9, 0.5, 0.1, 0.6, 0.7], better)
        np.testing.assert_array_equal(test, [np.nan, 0.5, 0.5, *((0.5, 0.7) if better == "max" else (0.6, 0.6))])
        assert np.isnan(validation[0])
    values = [np.nan, 0.3, np.nan, 0.4]
    unbiased = tunability.expected_best_without_replacement(values, better)
    np.testing.assert_array_equal(unbiased[:2], worst)  # both of two trials may have diverged
    assert np.isfinite(unbiased[2:]).all()
    assert (tunability.expected_best_with_replacement(values, better) == worst).all()
    counted = tunability.expected_best_without_replacement(values, better, diverged=0.1 if better == "max" else 0.9)
    filled = np.nan_to_num(values, nan=0.1 if better == "max" else 0.9)
    np.testing.assert_allclose(counted, tunability.expected_best_without_replacement(filled, better), atol=1e-15)


def test_a_trial_of_which_only_the_test_value_diverged_is_not_selected():
    assert tunability.expected_incumbent([0.9, 0.5], [np.nan, 0.4])[-1] == 0.4


@pytest.mark.parametrize("scheme", tunability.SCHEMES)
def test_weights_are_a_distribution(scheme):
    weights = tunability.weights(scheme, 30, kappa=0.01)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    mirrored = {"cpe": "cpl", "cpl": "cpe", "one_shot": "peak", "peak": "one_shot"}.get(scheme, scheme)
    np.testing.assert_allclose(weights[::-1], tunability.weights(mirrored, 30, kappa=-0.01))


def test_relative_performance_leaves_out_who_does_not_take_part():
    values = np.array([[[0.8], [0.5]], [[np.nan], [1.0]], [[np.nan], [np.nan]]])
    np.testing.assert_allclose(tunability.relative_performance(values, ["max", "max"])[:, 0], [0.75, 1.0, np.nan])
    with pytest.raises(ValueError, match=r"must be positive, got -0\.5"):
        tunability.relative_performance([[[-0.5]]], ["max"])
    assert tunability.relative_performance([[[0.0]], [[1e-3]]], ["min"], floor=1e-6)[:, 0].tolist() == [1.0, 1e-3]


def test_sharpness_of_losses_and_accuracies():
    accuracies = [0.5, 0.9, 0.96, 0.98, 1.0]
    assert tunability.sharpness(accuracies) == pytest.approx(2 / 5)
    assert tunability.sharpness([2.0, 1.04, 1.0, 1.0], "min") == pytest.approx(1 / 4)
    assert tunability.sharpness([1.0, 1.0]) == 0


def test_misuse_is_answered():
    with pytest.raises(ValueError, match='"max" or "min"'):
        tunability.expected_best_with_replacement([1.0], "largest")
    with pytest.raises(ValueError, match="one test value"):
        tunability.incumbents([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="one value a trial"):
        tunability.expected_incumbent([], [])
    with pytest.raises(ValueError, match="scheme must be"):
        tunability.weights("early", 3)


# Priors.
KINDS = [
    priors.Uniform(-1, 2),
    priors.LogUniform(-3, 0),
    priors.Log10Normal(-2.0, 1.3),
    priors.OneMinus(priors.LogUniform(-5, -1)),
    priors.Choice((1, "a", 0.5)),
    priors.Fixed(0.9),
]


@pytest.mark.parametrize("prior", KINDS, ids=repr)
def test_priors_read_back_and_draw_what_their_quantiles_say(prior):
    assert priors.from_text(repr(prior)) == prior
    assert eval(repr(prior), dict(priors.KINDS)) == prior
    drawn = [prior.draw(np.random.default_rng(seed)) for seed in range(400)]
    if isinstance(prior, priors.Choice):
        assert {drawn.count(value) > 100 for value in prior.values} == {True}
        assert prior.grid(3) == list(prior.values)
        return
    grid = prior.grid(9)
    assert grid == sorted(grid)
    # Between the 17 % and 83 % quantiles lie two thirds of the draws; 4 standard errors of 400 are 0.095.
    inside = np.mean([prior.quantile(1 / 6) <= value <= prior.quantile(5 / 6) for value in drawn])
    assert inside == pytest.approx(1 if isinstance(prior, priors.Fixed) else 2 / 3, abs=0.095)


def test_log_normals_have_the_published_moments():
    prior = priors.PUBLISHED["adam"].priors["learning_rate"]
    rng = np.random.default_rng(0)
    logs = np.log10([prior.draw(rng) for _ in range(4000)])
    assert logs.mean() == pytest.approx(-2.697, abs=4 * 1.421 / np.sqrt(4000))
    assert logs.std() == pytest.approx(1.421, rel=0.05)


@pytest.mark.parametrize(
    "text",
    ["LogUniform(1, 0)", "Uniform(0)", "Normal(0, 1)", "Log10Normal(0, -1)", "0.5", "Choice(())", "Uniform(a, 1)"],
)
def test_bad_priors_are_refused(text):
    with pytest.raises(ValueError, match="cannot read"):
        priors.from_text(text)


@pytest.mark.parametrize("kind", ["convex", "deep"])
def test_every_registered_method_has_priors_for_all_that_is_tuned(kind):
    rng = np.random.default_rng(0)
    for name, entry in adozoo.zoo.entries().items():
        found = priors.for_entry(entry, kind)
        assert (
            set(entry.search) | {"learning_rate"}
            <= set(found)
            <= {*entry.hyperparameters, *entry.search, "learning_rate"}
        )
        for hyperparameter, values in entry.search.items():
            grid = found[hyperparameter].grid(50)
            assert min(values) * (1 - 1e-9) <= min(grid) <= max(grid) <= max(values) * (1 + 1e-9), name
        assert all(np.isfinite(prior.draw(rng)) for prior in found.values())


def test_a_new_method_has_priors_by_itself_and_overrides_win():
    entry = adozoo.zoo.Entry(
        "new",
        adozoo.dsgd,
        "gossip",
        "",
        "",
        frozenset({"symmetric"}),
        {"momentum": 0.9, "rounds": 2},
        {"rounds": (1, 2)},
    )
    found = priors.for_entry(entry, "deep", {"momentum": priors.Fixed(0.5)})
    assert found["learning_rate"] == priors.PUBLISHED["sgd_momentum"].priors["learning_rate"]
    assert found["momentum"] == priors.Fixed(0.5)
    assert found["rounds"] == priors.Choice((1, 2))
    with pytest.raises(ValueError, match="no hyper-parameter beta"):
        priors.for_entry(entry, "deep", {"beta": priors.Fixed(1)})
