"""experiments.ranking: against published tables, enumeration, and the sampling that the formulas replace."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import ranking, tunability

tables = st.integers(1, 3).flatmap(
    lambda trials: st.lists(st.lists(st.integers(0, 3), min_size=trials, max_size=trials), min_size=1, max_size=3)
)


def enumerated_wins(table, k, ties):
    """P(method m wins) over all choices of k trials by each method, in rational numbers."""
    choices = [[max(chosen) for chosen in itertools.combinations(row, k)] for row in table]
    wins = [Fraction(0)] * len(table)
    outcomes = list(itertools.product(*choices))
    for best in outcomes:
        tied = [m for m, value in enumerate(best) if value == max(best)]
        for m in tied[:1] if ties == "first" else tied:
            wins[m] += Fraction(1, len(outcomes) * (1 if ties == "first" else len(tied)))
    return [float(win) for win in wins]


@pytest.mark.parametrize("ties", ["split", "first"])
@given(table=tables)
def test_win_probability_is_the_share_of_all_outcomes(ties, table):
    found = ranking.win_probability(table, ties=ties)
    for k in range(1, len(table[0]) + 1):
        np.testing.assert_allclose(found[k - 1], enumerated_wins(table, k, ties), rtol=0, atol=1e-13)


@pytest.mark.parametrize("ties", ["split", "first"])
def test_shuffles_agree_with_the_exact_win_probability(ties):
    table = np.random.default_rng(0).integers(0, 6, (7, 10)) / 6.0
    table[2, 3:] = np.nan
    exact = ranking.win_probability(table, "min", ties)
    np.testing.assert_allclose(exact.sum(axis=1), 1, atol=1e-12)
    shuffled = ranking.win_probability(table, "min", ties, shuffles=3000, seed=1)
    np.testing.assert_allclose(shuffled.sum(axis=1), 1, atol=1e-12)
    assert (np.abs(shuffled - exact) <= 4 * np.sqrt(exact * (1 - exact) / 3000) + 1e-12).all()


def test_a_method_that_always_diverges_never_wins():
    wins = ranking.win_probability([[np.nan, np.nan], [0.1, np.nan]], "max")
    np.testing.assert_allclose(wins, [[0.25, 0.75], [0, 1]])


def test_incumbent_interval_resamples_the_trials():
    """Against a bootstrap that really draws trials and estimates anew."""
    rng = np.random.default_rng(0)
    validation = rng.integers(0, 6, 15) / 6
    test = validation + 0.1 * rng.normal(size=15)
    test[4] = np.nan
    for replacement in (True, False):
        found = ranking.incumbent_interval(validation, test, "min", replacement, diverged=2.0, samples=2000)
        again = [
            tunability.expected_incumbent(validation[picks], test[picks], "min", replacement, diverged=2.0)
            for picks in rng.integers(15, size=(2000, 15))
        ]
        low, high = np.percentile(again, [2.5, 97.5], axis=0)
        np.testing.assert_allclose(found.low, low, atol=0.06)
        np.testing.assert_allclose(found.high, high, atol=0.06)
        np.testing.assert_array_equal(
            found.value, tunability.expected_incumbent(validation, test, "min", replacement, diverged=2.0)
        )
        assert (found.high - found.low > 0.01).all()


def test_bootstrap_of_a_mean_covers_as_a_normal_interval_does():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    interval = ranking.bootstrap(values, samples=4000)
    error = values.std() / np.sqrt(400)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    pair = ranking.bootstrap(np.stack([values, -values]))
    np.testing.assert_allclose(pair.low[0], -pair.high[1])


def test_ranks_and_their_uncertainty():
    np.testing.assert_array_equal(ranking.ranks([[0.3, 0.1, np.nan, np.nan]], "min"), [[2, 1, 3.5, 3.5]])
    apart = [[0.90, 0.91, 0.92], [0.10, 0.11, 0.12], [0.50, np.nan, 0.52]]
    overlapping = [[0.5, 0.7, 0.9], [0.1, 0.1, 0.1], [0.5, 0.6, 0.9]]
    overall, (first, second) = ranking.mean_ranks([apart, overlapping], ["max", "max"])
    np.testing.assert_array_equal(first.value, [1, 2, 3])
    assert (first.low[0], first.high[0]) == (1, 1)
    assert first.low[2] == 2  # the repeat that diverged is not in every sample
    assert (second.low[0], second.high[0]) == (1, 2)
    np.testing.assert_array_equal(overall.value, [1, 2.5, 2.5])
    assert (overall.low <= overall.value).all()
    assert (overall.value <= overall.high).all()


@pytest.mark.parametrize(("methods", "quantile"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_differences_have_the_published_quantiles(methods, quantile):
    """Demsar, 2006, table 5 (a), at 0.05: quantiles of three digits, divided by sqrt(2) and rounded again."""
    found = ranking.critical_difference(methods, 6) / np.sqrt(methods * (methods + 1) / 36)
    assert found == pytest.approx(quantile, abs=0.0005 / 2**0.5 + 0.0005)


def test_friedman_is_its_formula():
    table = np.array([rng.permutation(4) + 1 for rng in map(np.random.default_rng, range(6))])
    formula = 12 * 6 / (4 * 5) * ((table.mean(axis=0) - 2.5) ** 2).sum()
    assert ranking.friedman(table)[0] == pytest.approx(formula)
    assert ranking.friedman(np.ones((3, 3))) == (0.0, 1.0)
    with pytest.raises(ValueError, match="2 tasks and 3 methods"):
        ranking.friedman([[1, 2, 3]])


@given(
    points=st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, 2.0, np.nan]), st.sampled_from([0.0, 1.0, 2.0, np.nan])),
        min_size=1,
        max_size=8,
    ),
    better=st.sampled_from(["max", "min"]),
)
def test_the_pareto_front_is_what_nothing_dominates(points, better):
    cost, value = np.array(points).T
    front = ranking.pareto_front(cost, value, better)
    signed = value if better == "max" else -value

    def beaten(i):
        worse = (cost <= cost[i]) & (signed >= signed[i]) & ((cost < cost[i]) | (signed > signed[i]))
        return worse.any() or np.isnan(cost[i] + value[i])

    assert set(zip(cost[front], value[front], strict=True)) == {
        (cost[i], value[i]) for i in range(len(points)) if not beaten(i)
    }
    assert len(set(front)) == len(front)
    assert (np.diff(cost[front]) > 0).all()


def test_misuse_is_answered():
    with pytest.raises(ValueError, match="ties"):
        ranking.win_probability([[1.0]], ties="last")
    with pytest.raises(ValueError, match="repeats"):
        ranking.bootstrap([])
    with pytest.raises(ValueError, match="2 methods"):
        ranking.critical_difference(1, 3)
