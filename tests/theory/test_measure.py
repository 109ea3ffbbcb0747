"""Fitting a rate to a run's errors."""

import numpy as np
import pytest

import theory


def test_one_mode():
    fit = theory.fit_rate(3 * 0.97 ** np.arange(400.0))
    assert fit.rate == pytest.approx(0.97, abs=1e-12)
    assert fit.uncertainty < 1e-12


def test_the_floor_is_left_out():
    rng = np.random.default_rng(0)
    fit = theory.fit_rate(0.9 ** np.arange(1000.0) + 1e-15 * rng.uniform(0.5, 2, 1000))
    assert fit.stop < 340
    assert abs(fit.rate - 0.9) < 1e-3


def test_a_fast_mode_is_burn_in_and_an_oscillation_is_uncertainty():
    t = np.arange(600.0)
    assert theory.fit_rate(100 * 0.8**t + 0.97**t).rate == pytest.approx(0.97, abs=1e-6)
    fit = theory.fit_rate(0.97**t * (1.5 + np.cos(0.3 * t)))
    assert abs(fit.rate - 0.97) < fit.uncertainty < 0.01


def test_records_several_steps_apart():
    assert theory.fit_rate(0.95 ** np.arange(0, 500, 5.0), every=5).rate == pytest.approx(0.95, abs=1e-12)


def test_divergence_and_runs_that_say_nothing():
    assert theory.fit_rate(1.1 ** np.arange(200.0)).rate == pytest.approx(1.1)
    assert theory.fit_rate(np.append(2.0 ** np.arange(1000.0), [np.inf, np.nan])).rate == pytest.approx(2)
    assert np.isnan(theory.fit_rate(0.5 ** np.arange(10.0)).rate)
    assert np.isnan(theory.fit_rate(np.array([])).rate)


def test_errors():
    with pytest.raises(ValueError, match=r"errors must be \[t\]"):
        theory.fit_rate(np.ones((2, 2)))
