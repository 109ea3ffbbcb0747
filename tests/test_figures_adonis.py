"""The figure of four axes at tiny scale, and its prices and verdicts on made-up curves."""

import numpy as np
import pytest
import xarray as xr

from experiments import programs, runs
from experiments.store import Store
from paper_figures.adonis import four_axes

TINY = four_axes.Scale("digits/mlp:8", steps=6, target=0.2, rates=(0.01, 0.2), seeds=2, records=3, held_out=60)


def check(names, folder):
    store = Store(folder / "runs")
    data = four_axes.measured(TINY, store, names)
    assert data.test.transpose("cluster", "curve", "seed", "record").shape == (2, len(names), 2, 3)
    for cluster in four_axes.CLUSTERS:
        for name in names:
            own, run = data.sel(cluster=cluster, curve=name), four_axes.base(name, cluster, TINY)
            for axis in four_axes.AXES:
                np.testing.assert_allclose(own[axis], getattr(programs.prepare(run).world.costs, axis))
            assert own.score.values.argmax() == TINY.rates.index(float(own.best_rate))
            wanted = four_axes.grid(run, {"learning_rate": TINY.rates, "seed": [0, 1]})
            found = runs.execute(wanted)
            assert found is not None
            best = [k for k, one in enumerate(wanted) if one.learning_rate == float(own.best_rate)]
            np.testing.assert_allclose(own.test, np.stack([found[k].test for k in best]), atol=1e-6)
    assert len(four_axes.judge(data)) >= 3
    assert four_axes.draw(data).axes[0].get_legend_handles_labels()[1] == [four_axes.METHODS[n].title for n in names]
    return data


@pytest.mark.slow
def test_the_figure_is_that_of_its_runs(tmp_path):
    """What a synchronous method computes does not depend on the cluster; what it costs does."""
    data = check(["dsgd_atc"], tmp_path)
    straggler, sites = (data.sel(cluster=cluster, curve="dsgd_atc") for cluster in four_axes.CLUSTERS)
    np.testing.assert_array_equal(straggler.test, sites.test)
    np.testing.assert_allclose(straggler.bits, sites.bits)
    assert (straggler.seconds.values > 3 * 0.05 * straggler.steps.values).all()
    assert (straggler.seconds > sites.seconds).all()
    assert (straggler.joules < sites.joules).all()


@pytest.mark.slow
def test_so_is_that_of_asynchronous_and_compressed_ones(tmp_path):
    data = check(["all_reduce_sgd", "power_gossip", "asynchronous_sgd"], tmp_path)
    bits = data.bits.isel(record=-1)
    assert (bits.sel(curve="power_gossip") < bits.sel(curve="all_reduce_sgd") / 4).all()
    seconds = data.seconds.sel(cluster="straggler").isel(record=-1)
    assert seconds.sel(curve="asynchronous_sgd") < seconds.sel(curve="all_reduce_sgd") / 2


def curves(prices, target=0.4, seeds=4):
    """A dataset whose method i reaches the target after prices[cluster][axis][i] of each axis, with 1 % of scatter."""
    names, reached = list(four_axes.METHODS), 0.5
    share = np.linspace(0, 1, 11)[1:]
    scatter = 1 + 0.01 * np.linspace(-1, 1, seeds)
    # Accuracy grows linearly in the share of the run, and passes the target where that is `reached`.
    test = target * share / (reached * scatter[:, None])
    axes = {
        axis: (
            ("cluster", "curve", "record"),
            np.array([[share * price / reached for price in prices[cluster][axis]] for cluster in four_axes.CLUSTERS]),
        )
        for axis in four_axes.AXES
    }
    shape = (len(four_axes.CLUSTERS), len(names))
    return xr.Dataset(
        axes
        | {
            "test": (("cluster", "curve", "seed", "record"), np.broadcast_to(test, (*shape, *test.shape)).copy()),
            "best_rate": (("cluster", "curve"), np.full(shape, 0.1)),
            "diverged": (("cluster", "curve"), np.zeros(shape, int)),
            "score": (("cluster", "curve", "learning_rate"), np.tile([0.1, 0.3, 0.2], (*shape, 1))),
        },
        {"cluster": list(four_axes.CLUSTERS), "curve": names, "learning_rate": [0.05, 0.1, 0.2]},
        {"target": target, "task": "made up"},
    )


def ahead(**first):
    """Prices [method] by axis; the named method of each axis costs 1, the others 2."""
    return {axis: [1.0 if name == first.get(axis) else 2.0 for name in four_axes.METHODS] for axis in four_axes.AXES}


EXPECTED = {
    "straggler": ahead(steps="all_reduce_sgd", bits="choco_sgd", seconds="acid", joules="dsgd_atc"),
    "two_sites": ahead(steps="all_reduce_sgd", bits="power_gossip", seconds="local_dsgd", joules="power_gossip"),
}
OPPOSITE = {
    "straggler": ahead(steps="acid", bits="acid", seconds="choco_sgd", joules="choco_sgd"),
    "two_sites": ahead(steps="choco_sgd", bits="acid", seconds="all_reduce_sgd", joules="acid"),
}


def test_a_price_is_found_between_records():
    data = curves(EXPECTED)
    price = four_axes.price(data, "straggler", "acid", "seconds")
    np.testing.assert_allclose(price, 1 + 0.01 * np.linspace(-1, 1, 4), rtol=1e-3)
    data.test.loc[{"curve": "acid", "seed": 0}] = 0.3
    assert four_axes.price(data, "straggler", "acid", "seconds")[0] == np.inf


def test_two_prices_are_compared_seed_by_seed():
    base, near = np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.11, 0.09])
    assert four_axes.cheaper(base, base + near) is True
    assert four_axes.cheaper(base + near, base) is False
    assert four_axes.cheaper(base, base + np.array([0.1, -0.1, 0.05])) is None
    assert four_axes.cheaper(base, np.full(3, np.inf)) is True
    assert four_axes.cheaper(np.array([1.0, np.inf, 1.0]), base) is None


def test_verdicts():
    assert [claim.holds for claim in four_axes.judge(curves(EXPECTED))] == [True] * 13
    # Where all-reduce is ahead in seconds, no method that compresses is; and there is no leader on all axes here too.
    opposite = curves(OPPOSITE)
    opposite.best_rate[0, 0] = 0.2
    assert [claim.holds for claim in four_axes.judge(opposite)] == [False] * 9 + [True] * 3 + [False]
    always = ahead(**dict.fromkeys(four_axes.AXES, "acid"))
    assert [claim.holds for claim in four_axes.judge(curves(dict.fromkeys(four_axes.CLUSTERS, always)))[10:12]] == [
        False,
        False,
    ]


def test_what_differs_by_less_than_its_scatter_is_left_open():
    close = {axis: [1.0] * len(four_axes.METHODS) for axis in four_axes.AXES}
    data = curves(dict.fromkeys(four_axes.CLUSTERS, close))
    for name in four_axes.METHODS:
        data.test.loc[{"curve": name}] = data.test.sel(curve=name).roll(seed=len(name)).values
    assert {claim.holds for claim in four_axes.judge(data)[:12]} == {None}
