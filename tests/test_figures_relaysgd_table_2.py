"""RelaySGD's table 2 at tiny scale, on digits, and its verdicts on made-up accuracies."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import adozoo
from experiments import methods, runs, sources
from experiments.store import Store
from paper_figures.relaysgd import heterogeneity, table_2

TINY = table_2.Scale(
    "digits/mlp:8",
    steps=4,
    batch=8,
    held_out=60,
    cells=(("relay_tree", table_2.SKEWED),),
    seeds=2,
    rates=2,
    further=0,
)


@pytest.mark.slow
def test_the_table_is_that_of_its_runs(tmp_path):
    store = Store(tmp_path / "runs")
    data = table_2.measured(TINY, store)
    assert data.accuracy.shape == (1, 2, 16)
    here, (name, shares) = data.isel(cell=0), TINY.cells[0]
    assert here.tried.values.tolist() == table_2.rates(name, 2)
    assert float(here.learning_rate) == here.tried.values[int(here.judged_tried.values.argmax())]
    assert float(here.judged_tried.max()) == pytest.approx(float(here.accuracy.isel(seed=0).min()), abs=1e-4)
    again = runs.execute([table_2.run(name, shares, 1, float(here.learning_rate), TINY)])
    assert again is not None
    np.testing.assert_allclose(here.accuracy.isel(seed=1), 100 * again[0].nodes.isel(record=-1), atol=1e-3)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    xr.testing.assert_equal(table_2.measured(TINY, store), data)
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}


def test_settings_are_the_papers():
    for ours, theirs in {"relay_tree": "relay_trees", "d2": "d2_momentum", "all_reduce_momentum": "all_reduce"}.items():
        assert table_2.METHODS[ours].published == heterogeneity.PUBLISHED[theirs]
    for name in ("relay_chain", "push", "quasi_global", "gossip"):
        assert table_2.METHODS[name].published == heterogeneity.PUBLISHED[name]
    # `partition` takes the sum of the ten parameters of Dir(alpha, ..., alpha).
    assert table_2.DEALS == {
        "1": "dirichlet_per_client:10",
        "0.1": "dirichlet_per_client:1",
        "0.01": "dirichlet_per_client:0.1",
        "random": "iid",
    }
    assert table_2.rates("gossip", 3) == pytest.approx([0.1, 0.25, 0.625])
    for scale in (table_2.QUICK, table_2.FULL):
        assert len(set(scale.cells)) == len(scale.cells)
        for name, shares in scale.cells:  # settings that do not fit would be refused
            assert table_2.run(name, shares, 2, 0.1, scale).world == (0 if shares == table_2.RANDOM else 2)
    assert {name for name, _ in table_2.FULL.cells} == set(table_2.METHODS)


def test_the_grid_grows_where_its_best_is_at_an_end(monkeypatch, tmp_path):
    """Accuracies that peak at a given learning rate, in place of training."""
    asked = []

    def peaked(wanted, store):
        asked.extend(run.learning_rate for run in wanted)
        return [xr.Dataset({"judged": -abs(np.log(run.learning_rate / peak))}) for run in wanted]

    monkeypatch.setattr(table_2, "finished", peaked)
    start = table_2.rates("gossip", 3)
    for peak, added in ((start[1], []), (start[2] * 2.5, [start[2] * 2.5, start[2] * 6.25]), (1e-9, [0.04, 0.016])):
        asked.clear()
        found = table_2.tuned("gossip", table_2.SKEWED, table_2.QUICK, Store(tmp_path))
        assert asked == pytest.approx([*start, *added])
        assert list(found) == sorted(asked)
        assert table_2.best(found) == min(asked, key=lambda rate: abs(np.log(rate / peak)))


def test_methods_with_local_nesterov_momentum():
    """D2, x <- W (x + u + c), c <- x^+ - x - u, on directions u = -eta (g + b m), m <- b m + g, in numpy."""
    n, rate, decay = 5, 0.1, 0.7
    mix = adozoo.mixing(adozoo.graphs.ring(n))
    tx = methods.entry("d2_nesterov").build(rate, mix, momentum=decay)
    centres = np.random.default_rng(0).normal(size=(n, 3))
    found, _, _ = adozoo.simulate(tx, lambda x, step, key: x - centres, jnp.zeros((n, 3)), steps=6)
    x, m, c = np.zeros((3, n, 3))
    for _ in range(6):
        g = x - centres
        m = decay * m + g
        u = -rate * (g + decay * m)
        following = np.asarray(mix.matrix) @ (x + u + c)
        x, c = following, following - x - u
    np.testing.assert_allclose(found, x, atol=1e-12)
    entry = methods.entry("relay_sgd_nesterov")
    assert entry.mixings == {"tree"}
    assert entry.hyperparameters["momentum"] == 0.9


def made_up(**accuracies: list[float]) -> xr.Dataset:
    """All workers alike; names are method__shares, values those of three seeds."""
    cells = [tuple(name.split("__")) for name in accuracies]
    shares = {"random": "random", "a1": "1", "a01": "0.1", "a001": "0.01"}
    values = np.array(list(accuracies.values()))
    grid = np.ones((len(cells), 2))
    return xr.Dataset(
        {
            "accuracy": (("cell", "seed", "node"), np.repeat(values[:, :, None], 16, axis=2)),
            "mean_model": (("cell", "seed"), values),
            "judged": (("cell", "seed"), values),
            "learning_rate": (("cell",), grid[:, 0]),
            "tried": (("cell", "trial"), grid),
            "judged_tried": (("cell", "trial"), grid),
        },
        {"method": ("cell", [name for name, _ in cells]), "shares": ("cell", [shares[key] for _, key in cells])},
        {"task": "digits/mlp", "steps": 4},
    )


def test_verdicts():
    base = {"all_reduce__random": [85.0, 85.2, 85.1], "gossip__random": [84.9, 85.0, 84.9]}
    skewed = {
        "relay_tree__a001": [80.0, 81.0, 79.0],
        "quasi_global__a001": [70.0, 71.5, 69.0],
        "gossip__a001": [50.0, 55.0, 45.0],
    }
    data = made_up(**base, **skewed)
    verdicts = [claim.holds for claim in table_2.judge(data)]
    assert verdicts == [True, True, True, None]
    swapped = made_up(**base, **{**skewed, "quasi_global__a001": [40.0, 42.0, 38.0]})
    assert [claim.holds for claim in table_2.judge(swapped)][1] is False
    noisy = made_up(**base, **{**skewed, "quasi_global__a001": [81.0, 60.0, 78.0]})
    assert [claim.holds for claim in table_2.judge(noisy)][1] is None
    behind = made_up(**{**base, "gossip__random": [83.0, 83.1, 83.0]}, **skewed)
    assert table_2.judge(behind)[0].holds is False
    with_more = made_up(
        **base,
        **skewed,
        relay_chain__a001=[60.0, 61.0, 59.0],
        d2__a001=[70.0, 70.0, 70.0],
        **{f"{name}__{alpha}": [84.0, 84.5, 85.0] for name in ("relay_tree", "gossip") for alpha in ("a1", "a01")},
    )
    claims = {claim.text: claim for claim in table_2.judge(with_more)}
    assert claims["alpha = 0.01: RelaySGD is above D2"].holds is False
    lost = next(claim for text, claim in claims.items() if "loses more than twice" in text)
    assert lost.holds
    assert lost.published == pytest.approx({"RelaySGD, tree, momentum": 1.1, "D-SGD, ring": 33.5})
    figure = table_2.draw(data)
    left, right = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        table_2.METHODS[name].title for name in ("all_reduce", "relay_tree", "quasi_global", "gossip")
    ]
    assert len(right.lines) == 3
    assert [label.get_text() for label in left.get_xticklabels()] == ["random shares,\nmean model", "0.01"]


def test_where_the_data_are_missing(monkeypatch, capsys, tmp_path):
    def without(full):
        raise sources.MissingData("fashion_mnist: get it so and so")

    monkeypatch.setattr(table_2, "compute", without)
    with pytest.raises(SystemExit) as left:
        table_2.main(["--output", str(tmp_path)])
    assert left.value.code == 2
    assert capsys.readouterr().err == "fashion_mnist: get it so and so\n"
