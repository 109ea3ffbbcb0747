"""The wall-clock figure: its runs against plain loops over the schedule, and verdicts that can turn."""

import functools

import numpy as np
import pytest
import xarray as xr

from experiments.timelines import WAIT
from paper_figures.acid import wall_clock

GRID = np.arange(0.0, 31.0)


@functools.cache
def arrays():
    """Features, signs and weights of the shares sorted by label, and the constants of the problem."""
    target = wall_clock.problem("by_label")
    return np.array(target.features), np.array(target.targets), np.array(target.weights), target.constants


def gradient(i, x):
    features, signs, weights, _ = arrays()
    slopes = -signs[i] * weights[i] / (1 + np.exp(signs[i] * (features[i] @ x)))
    return features[i].T @ slopes + wall_clock.L2 * x


def suboptimality(x):
    features, signs, weights, _ = arrays()
    best = np.array(wall_clock.problem("by_label").optimum)

    def loss(x):
        return np.sum(weights * np.log1p(np.exp(-signs * (features @ x)))) / wall_clock.N + wall_clock.L2 / 2 * x @ x

    return loss(x) - loss(best)


def run(name):
    method = wall_clock.methods()[name]
    timeline = method.schedule(wall_clock.cluster(3.0), 30.0, 1)
    return timeline, wall_clock.curves(method, "by_label", [timeline], GRID)[0]


def test_ad_psgd_by_a_loop_over_the_schedule():
    """Each gradient is taken at what its node had when it began, which is when it ended its last one."""
    timeline, found = run("ad_psgd")
    assert timeline.lags.max() >= 2
    x = np.zeros((wall_clock.N, arrays()[0].shape[2]))
    began, expected, second = x.copy(), [suboptimality(x[0])], 1
    for kind, time, i, j in [*timeline.events.tolist(), (2, 31.0, 0, 0)]:
        while second <= 30 and time > second:
            expected.append(suboptimality(x.mean(axis=0)))
            second += 1
        i, j = int(i), int(j)
        if kind == 1:
            x[i] = x[j] = (x[i] + x[j]) / 2
        elif kind == 0:
            x[i] -= gradient(i, began[i]) / arrays()[3][1]
            began[i] = x[i]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_synchronous_steps_by_a_loop():
    timeline, found = run("dsgd")
    W = np.eye(wall_clock.N) / 3
    for i in range(wall_clock.N):
        W[i, i - 1] = W[i, (i + 1) % wall_clock.N] = 1 / 3
    x, expected = np.zeros((wall_clock.N, arrays()[0].shape[2])), np.full(len(GRID), np.nan)
    expected[:] = suboptimality(x[0])
    for ended in timeline.ends.max(axis=1):
        x = W @ np.stack([x[i] - gradient(i, x[i]) / arrays()[3][1] for i in range(wall_clock.N)])
        expected[ended <= GRID] = suboptimality(x.mean(axis=0))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert len(np.unique(found)) > 5


def test_a2cid2_waits_for_exchanges_and_ad_psgd_does_not():
    methods, cluster = wall_clock.methods(), wall_clock.cluster(3.0)
    timelines = {name: methods[name].schedule(cluster, 30.0, 1) for name in ("ad_psgd", "acid")}
    assert [WAIT in timeline.what for timeline in timelines.values()] == [False, True]
    assert timelines["acid"].gradients.sum() < timelines["ad_psgd"].gradients.sum()


def test_the_reweighted_minimum():
    counts = np.arange(1, 9)
    x = np.array(wall_clock.problem("by_label", counts / counts.sum()).optimum)
    np.testing.assert_allclose(sum(counts[i] * gradient(i, x) for i in range(8)), 0, atol=1e-12)
    assert wall_clock.reweighted("by_label", counts) == pytest.approx(suboptimality(x), rel=1e-9)
    assert wall_clock.reweighted("by_label", np.full(8, 3)) == pytest.approx(0, abs=1e-12)


def test_first_below():
    curves = np.array([[1.0, 2e-3, 9e-4, 2e-3], [1.0, 1.0, 1.0, 1.0]])
    found = wall_clock.first_below(curves, np.array([0.0, 1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(found, [2.0, np.nan])


def test_enough_steps_for_all_nodes():
    for name in wall_clock.SYNCHRONOUS:
        timeline = wall_clock.methods()[name].schedule(wall_clock.cluster(1.0), 20.0, 3)
        assert timeline.ends[-1].min() >= 20


def dataset(swap=False):
    """A data set as `compute` makes it, with runs as the claims expect them; `swap` exchanges the two classes."""
    names = list(wall_clock.methods())
    factors = np.array(wall_clock.FACTORS)
    slow = np.isin(names, wall_clock.SYNCHRONOUS) != swap
    seconds = np.where(slow[:, None], 20 * factors, 20 + factors)[:, :, None]
    gradients = np.full((6, 8), 100)
    gradients[np.array(names) == "acid", 1:] = 250
    gradients[np.isin(names, ["dadao" if not swap else "dsgd", "ad_psgd"]), 1:] = 400
    idle = np.where(np.isin(names, ["all_reduce", "local_sgd", "dsgd"]), 0.7, 0.0)
    idle[names.index("acid")] = 0.5 if swap else 0.2
    errors = np.where(np.array(names) == ("dsgd" if swap else "dadao"), 1e-9, 1e-3)
    return xr.Dataset(
        {
            "suboptimality": (("algorithm", "shares", "time"), np.tile(errors[:, None, None], (1, 2, 10))),
            "seconds": (("algorithm", "factor", "seed"), seconds),
            "gradients": (("algorithm", "node"), gradients),
            "idle": (("algorithm", "node"), np.tile(idle[:, None], (1, 8))),
            "reweighted": ("shares", [2e-3, 9e-4] if swap else [1e-3, 9e-4]),
        },
        {"algorithm": names, "shares": list(wall_clock.SHARES), "factor": factors},
    )


def test_verdicts():
    assert [claim.holds for claim in wall_clock.judge(dataset())] == [True] * 6
    assert [claim.holds for claim in wall_clock.judge(dataset(swap=True))] == [False] * 6
    never = dataset().copy(deep=True)
    never.seconds[:] = np.nan
    assert [claim.holds for claim in wall_clock.judge(never)][:2] == [False, False]
