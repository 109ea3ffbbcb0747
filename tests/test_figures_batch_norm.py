"""Batch normalisation over nodes at tiny scale: what runs, learning rates by validation, and verdicts that can turn."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from paper_figures.adozoo import batch_norm as figure

NAMES = [*figure.SETTINGS]


def dataset(means, worst=None, rates=(0.1,), scatter=0.002):
    """From accuracies {partition: [setting]}, with a little scatter over four seeds; the same at all times."""
    scatter = scatter * np.array([-1.0, 1.0, -0.5, 0.5])
    shape = (len(NAMES), len(figure.PARTITIONS), len(rates), 4, 2)

    def table(values):
        mean = np.array([values[name] for name in figure.PARTITIONS]).T
        own = np.random.default_rng(0).permuted(np.tile(scatter, (*mean.shape, 1)), axis=2)
        return ("setting", "partition", "learning_rate", "seed", "step"), (
            (mean[:, :, None] + own)[:, :, None, :, None] * np.ones(shape)
        )

    tables = {"accuracy": table(means), "validation": table(means), "worst": table(worst or means)}
    tables["distance"] = table(means)[0], np.ones(shape)
    axes = {"setting": NAMES, "partition": [*figure.PARTITIONS], "learning_rate": list(rates), "step": [1, 2]}
    return xr.Dataset(tables, axes)


def accuracies(even, skewed):
    return dict(zip(figure.PARTITIONS, (even, skewed), strict=True))


def test_verdicts():
    """In the order local, gossiped, recomputed, group, evo."""
    found = figure.judge(
        dataset(
            accuracies([0.95, 0.95, 0.95, 0.95, 0.95], [0.5, 0.55, 0.8, 0.9, 0.9]),
            accuracies([0.95] * 5, [0.3, 0.5, 0.3, 0.8, 0.8]),
        )
    )
    assert [claim.holds for claim in found] == [True] * 8 + [None]
    found = figure.judge(
        dataset(
            accuracies([0.9, 0.95, 0.95, 0.95, 0.95], [0.9, 0.95, 0.8, 0.7, 0.7]),
            accuracies([0.95] * 5, [0.8, 0.5, 0.3, 0.8, 0.8]),
        )
    )
    assert [claim.holds for claim in found] == [False] * 7 + [True, None]
    alike = dataset(accuracies([0.9] * 5, [0.9] * 5))
    assert [claim.holds for claim in figure.judge(alike)][:3] == [False] * 3  # whatever there is, it is below 1 %
    noisy = dataset(accuracies([0.9] * 5, [0.9] * 5), scatter=0.05)
    assert [claim.holds for claim in figure.judge(noisy)][:3] == [None] * 3
    alike.distance[1] = 2.0
    assert figure.judge(alike)[7].holds is False


def test_each_setting_has_its_own_learning_rate_by_validation():
    data = dataset(accuracies([0.9] * 5, [0.9] * 5), rates=(0.01, 0.1))
    data.validation[:, 0, 1] += 0.05  # i.i.d.: the larger rate
    data.validation[2, 0, 1] = np.nan  # which diverges for one of them
    data.accuracy[:, :, 1] = 0.7  # test values play no role
    kept = figure.tuned(data)
    assert kept.rate[:, 0].values.tolist() == [0.1, 0.1, 0.01, 0.1, 0.1]
    assert kept.accuracy[0, 0].values == pytest.approx(0.7 * np.ones((4, 2)))
    assert kept.accuracy[2, 0].values.mean() == pytest.approx(0.9)


@pytest.mark.slow
def test_tiny_run():
    """Statistics do not act on training, and act on the mean model unless a pass recomputes them."""
    data = figure.measured(replace(figure.QUICK, nodes=4, steps=20, records=2), seeds=2, rates=(0.1,))
    distances = data.distance.sel(setting=list(figure.BATCH_NORM))
    np.testing.assert_allclose(distances, distances[[0] * 3], rtol=1e-4)
    assert float(distances.min()) > 0
    skewed = data.accuracy.sel(partition=figure.SKEWED)
    assert (skewed.sel(setting="local") != skewed.sel(setting="recomputed")).any()
    assert data.sizes == {"setting": 5, "partition": 2, "learning_rate": 1, "seed": 2, "step": 2}
    figure.draw(data)
