"""Relative performance after tuning, at tiny scale: estimators against plain counts, and verdicts that can turn."""

import itertools

import numpy as np
import pytest
import xarray as xr

from experiments.settings import Run
from paper_figures.tunability import relative_performance as figure

NAMES = [*figure.OPTIMISERS]


def dataset(test, better=("max",), guess=(0.5,)):
    """From test values [optimisers, tasks, trials]; validation is the same."""
    axes = ("optimiser", "task", "trial")
    values = np.asarray(test, np.float64)
    tables = {"validation": (axes, values), "test": (axes, values.copy())}
    tasks = {"guess": ("task", list(guess)), "better": ("task", list(better))}
    return xr.Dataset(tables | tasks, {"optimiser": NAMES, "task": [f"task {j}" for j in range(values.shape[1])]})


def drawn(means, scatter=0.01):
    rng = np.random.default_rng(0)
    return np.asarray(means)[:, None, :] + scatter * rng.uniform(-1, 1, (len(NAMES), 1, len(means[0])))


def test_expectation_and_relative_performance_are_means_over_all_orders():
    rng = np.random.default_rng(1)
    data = dataset(rng.uniform(0.1, 1, (7, 2, 4)), ("max", "min"), (0.1, 1.0))
    data.validation[:] = rng.uniform(0.1, 1, data.test.shape)
    data.test[2, 0, 1] = np.nan
    scores, tests = data.validation.values, data.test.values
    value = np.zeros((7, 2, 4))
    for i, j, order in itertools.product(range(7), range(2), itertools.permutations(range(4))):
        best = None
        for k, trial in enumerate(order):
            score = scores[i, j, trial] * (1 if j == 0 else -1)
            test = tests[i, j, trial]
            if np.isnan(test):
                score, test = -np.inf, (0.1, 1.0)[j]
            if best is None or score > best[0]:
                best = score, test
            value[i, j, k] += best[1] / 24
    np.testing.assert_allclose(figure.expected(data), value, rtol=1e-12)
    ratios = (value[:, 0] / value[:, 0].max(0) + value[:, 1].min(0) / value[:, 1]) / 2
    np.testing.assert_allclose(figure.relative(data), ratios, rtol=1e-12)


def test_win_probabilities_are_means_over_tasks():
    data = dataset(np.arange(7)[:, None, None] + np.zeros((7, 2, 3)), ("max", "min"), (0.0, 0.0))
    expected = np.zeros((3, 7))
    expected[:, [0, 6]] = 0.5  # the last is best where larger is better, the first where smaller is
    np.testing.assert_allclose(figure.wins(data), expected)


def test_bootstrap_samples_are_of_each_optimisers_own_trials():
    data = dataset(np.arange(1.0, 8)[:, None, None] + np.zeros((7, 1, 3)))
    np.testing.assert_allclose(figure.resampled(data, 3), np.arange(1.0, 8)[None, :, None] / 7 * np.ones((3, 7, 3)))


def test_every_optimiser_searches_what_its_published_prior_says():
    rates = {name: figure.searched(name)["learning_rate"] for name in NAMES}
    assert all(repr(rate).startswith("Log10Normal") for rate in rates.values())
    assert rates["adam_lr"] != rates["adam"]
    fixed = {n: {k for k, p in figure.searched(n).items() if isinstance(p, figure.Fixed)} for n in NAMES}
    assert fixed == {
        "adam_lr": {"b1", "b2", "eps"},
        "adam": set(),
        "sgd_mw": set(),
        "sgd_m": {"weight_decay"},
        "sgd_mc": {"momentum", "weight_decay"},
        "sgd": {"momentum", "weight_decay"},
        "adagrad": set(),
    }
    sgds = [figure.base("digits/mlp", name, 10) for name in NAMES if name.startswith("sgd")]
    assert len({run.program.method for run in sgds}) == 1


def test_trials_are_judged_where_validation_is_best():
    lane = xr.Dataset({"validation": ("record", [0.2, 0.9, 0.5]), "test": ("record", [0.1, 0.6, 0.8])})
    assert figure.best_record(lane.assign_attrs(better="max", diverged=-1)) == (0.9, 0.6)
    assert figure.best_record(lane.assign_attrs(better="min", diverged=-1)) == (0.2, 0.1)
    assert np.isnan(figure.best_record(lane.assign_attrs(better="min", diverged=3))).all()


def test_a_guess_at_random():
    assert figure._guess("wine/mlp:4", Run("wine/mlp:4", nodes=1)) == pytest.approx(1 / 3)


def test_verdicts():
    """In the order of OPTIMISERS; differences beyond, below and within the scatter of the trials."""
    flat = np.ones(30)
    late = np.array([0.9, 0.5, 0.6, 0.5, 0.5, 0.5, 0.5])[:, None] * flat
    rng = np.random.default_rng(2)
    late[2] = np.where(rng.permutation(30) < 6, 0.9, 0.3)  # SGD finds a good one in time
    claims = figure.judge(dataset(drawn(late)))
    assert [claim.holds for claim in claims] == [True] * 7 + [None]
    reverse = np.array([0.5, 0.8, 0.9, 0.5, 0.5, 0.5, 0.5])[:, None] * flat
    claims = figure.judge(dataset(drawn(reverse)))
    assert [claim.holds for claim in claims[:2]] == [False, False]
    assert [claim.holds for claim in claims[3:5]] == [False, False]
    claims = figure.judge(dataset(drawn(0.9 * np.ones((7, 30)))))
    assert claims[1].holds is None
    assert claims[3].holds is None


def test_estimators_may_disagree():
    """Validation that says the opposite of test: who selects decides who is best."""
    values = 0.5 * np.ones((7, 1, 8))
    values[0, 0] = np.linspace(0.1, 0.9, 8)
    data = dataset(values)
    data.validation[0, 0] = data.validation[0, 0, ::-1].values
    assert figure.judge(data)[5].holds is False


@pytest.mark.slow
def test_tiny_search():
    data = figure.measured(("synthetic/quadratic:1.0", "wine/mlp:4"), trials=4, steps=20)
    assert data.test.shape == (7, 2, 4)
    assert [str(value) for value in data.better.values] == ["min", "max"]
    assert float(data.test[:, 0].max()) <= 1.0
    assert float(data.test[:, 0].min()) < 0.9
    assert len(np.unique(data.test[:, 1])) > 3
    figure.draw(data)
