"""A2CiD2 on digits at tiny scale: deals, lanes that run side by side as they do alone, verdicts that can turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import adozoo
from paper_figures.acid import digits

TINY = digits.Sizes(n=4, share=30, batch=4, time=12, records=3, seeds=2)


@pytest.mark.parametrize("shares", digits.SHARES)
def test_digits_are_dealt_in_equal_shares(shares):
    mine, test = digits.deal(shares, 1, digits.QUICK)
    assert mine.shape == (16, 90)
    assert sorted([*mine.ravel(), *test]) == list(range(1797))


def test_skewed_shares_have_few_classes():
    labels = digits.data.digits().labels
    largest = {
        shares: np.mean([np.bincount(labels[part]).max() / 90 for part in digits.deal(shares, 0, digits.QUICK)[0]])
        for shares in digits.SHARES
    }
    assert largest["random"] < 0.25
    assert largest["skewed"] > 0.5


def test_the_network_and_its_learning_rate():
    params = digits.initial(jax.random.key(0))
    features = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    hidden = np.maximum(features @ np.array(params[0]["weights"]), 0)
    np.testing.assert_allclose(
        digits.logits(params, jnp.asarray(features)), hidden @ np.array(params[1]["weights"]), rtol=1e-5
    )
    rate = digits.schedule(200)
    np.testing.assert_allclose([rate(99), rate(101), rate(149), rate(151)], [0.05, 0.005, 0.005, 0.0005], rtol=1e-6)


@pytest.mark.slow
def test_lanes_run_as_they_do_alone():
    """The second seed of skewed shares at rate 2, without stacking and without traced constants."""
    data = digits.measured(TINY)
    task = jax.tree.map(lambda x: x[3], digits.tasks(TINY))
    events = digits.events(2.0, [1], TINY)[0]
    gradient, metrics = digits.parts(task, TINY)
    for name, accelerated in (("acid 2", True), ("baseline 2", False)):
        tx = adozoo.acid(digits.optimiser(TINY), events, accelerated)
        trace = adozoo.simulate_events(tx, gradient, task.start, events, task.key, metrics)[2]
        for key in ("spread", "loss", "own_accuracy"):
            lane = data[key].sel(curve=name, shares="skewed", seed=1)
            np.testing.assert_allclose(lane, trace[key][1:], rtol=1e-3, atol=1e-6)
    assert data.spread.sel(curve="all-reduce").max() < 1e-10
    assert data.spread.sel(curve="baseline 1").min() > 1e-4
    assert (data.loss.isel(time=-1) < data.loss.isel(time=0)).all()


def dataset(spreads, losses, accuracies):
    """Three seeds with a little scatter, the same at all times."""
    scatter = np.array([0.99, 1.0, 1.01])
    axes = ("curve", "shares", "seed", "time")

    def table(values):
        return axes, np.array([*values, values[0]])[:, None, None, None] * scatter[:, None] * np.ones((5, 2, 3, 10))

    return xr.Dataset(
        {
            "spread": table(spreads),
            "loss": table(losses),
            "own_accuracy": table(accuracies),
            "accuracy": table(accuracies),
        },
        {"curve": [*digits.CURVES, digits.REFERENCE], "shares": list(digits.SHARES), "time": np.arange(1.0, 11.0)},
    )


def test_verdicts():
    """In the order baseline 1, baseline 2, A2CiD2 1, A2CiD2 2."""
    helps = dataset([1.0, 0.45, 0.5, 0.2], [0.1, 0.08, 0.07, 0.06], [0.8, 0.85, 0.9, 0.95])
    assert [claim.holds for claim in digits.judge(helps)] == [True] * 10
    hurts = dataset([0.5, 0.2, 1.0, 0.4], [0.07, 0.06, 0.1, 0.09], [0.9, 0.95, 0.8, 0.85])
    assert [claim.holds for claim in digits.judge(hurts)] == [False] * 10
    alike = dataset([1.0, 0.5, 1.0, 0.5], [0.1, 0.1, 0.1, 0.1], [0.9, 0.9, 0.9, 0.9])
    alike.loss[2] = alike.loss[0].roll(seed=1)
    alike.own_accuracy[2] = alike.own_accuracy[0].roll(seed=1)
    assert [claim.holds for claim in digits.judge(alike)] == [False, False, None, True, None] * 2
