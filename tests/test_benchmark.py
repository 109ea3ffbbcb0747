"""The benchmark end to end: a small suite, its dataset, its report; and suite files that are wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from experiments import benchmark, methods, report, runs, sweeps
from experiments.settings import from_configuration
from experiments.store import Store

SUITE = """
title = "Small"
[budget]
trials = 3
repeats = 2
lanes = 2
[run]
nodes = 4
steps = 30
records = 3
batch = 0
[[tasks]]
name = "quadratic"
task = "synthetic/quadratic"
[[tasks]]
name = "digits"
task = "digits/mlp:4"
batch = 4
held_out = 30
[[clusters]]
name = "ring"
graph = "ring"
[methods]
include = ["dsgd_atc", "relay_sgd", "ssda"]
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "small.toml").write_text(SUITE)
    suite = benchmark.load(str(folder / "small.toml"))
    return folder, suite, benchmark.execute(suite, folder)


def test_each_number_is_that_of_its_cell(done):
    folder, _, data = done
    store, stored = Store(folder / "cells"), xr.load_dataset(folder / "benchmark.nc", engine="h5netcdf")
    seen = set()
    for prefix, dims in (("", data["cell"].dims), ("final_", data["final_cell"].dims)):
        for where in np.ndindex(data[f"{prefix}cell"].shape):
            index = dict(zip(dims, where, strict=True))
            name = str(stored[f"{prefix}cell"][index].item())
            if not name:
                assert stored["reason"].isel(task=where[0], method=where[1], cluster=where[2]).item() != ""
                continue
            seen.add(name)
            cell = store.read(name)
            for metric in ("validation", "test", "steps", "bits", "seconds", "joules"):
                np.testing.assert_array_equal(stored[f"{prefix}{metric}"][index], cell[metric])
            configuration = json.loads(stored[f"{prefix}configuration"][index].item())
            assert sweeps.cell_hash(from_configuration(configuration)) == name
    assert seen == set(store.hashes())


def test_all_methods_get_equally_many_trials_and_the_same_random_numbers(done):
    _, suite, data = done
    assert data.sizes["trial"] == suite.trials == 3
    rates = {}
    for method in ("dsgd_atc", "relay_sgd"):
        row = data["configuration"].sel({"task": "digits", "method": method, "cluster": "ring"})
        rates[method] = [json.loads(text)["learning_rate"] for text in row.values]
    assert rates["dsgd_atc"] == rates["relay_sgd"]
    assert len(set(rates["dsgd_atc"])) == 3


def test_the_repeats_are_of_the_trial_with_the_best_validation(done):
    _, _, data = done
    here = data.sel({"task": "digits", "method": "dsgd_atc", "cluster": "ring"})
    best = int(np.argmax(here["validation"].max("record").values))
    wanted = json.loads(here["configuration"].values[best])
    for repeat, text in enumerate(here["final_configuration"].values):
        assert json.loads(text) == wanted | {"seed": 1 + repeat}


def test_methods_get_the_form_that_suits_them_or_a_reason(done):
    _, _, data = done
    tree = json.loads(data["configuration"].sel({"method": "relay_sgd"}).values.ravel()[0])
    assert tree["graph"] == "tree_of:ring"
    assert "dual" in data["reason"].sel({"task": "digits", "method": "ssda"}).item()
    assert data["reason"].sel({"task": "quadratic", "method": "ssda"}).item() == ""


def test_what_is_there_is_not_run_again_and_the_report_is_written(done, monkeypatch):
    folder, suite, data = done
    monkeypatch.setattr(runs, "execute", lambda *a, **k: pytest.fail("a finished cell was run again"))
    again = benchmark.execute(suite, folder)
    xr.testing.assert_equal(data, again)
    written = report.write(xr.load_dataset(folder / "benchmark.nc", engine="h5netcdf"), folder)
    assert written.html.stat().st_size > 10_000


def test_a_method_that_is_registered_joins_by_itself():
    assert benchmark.load("convex").methods == list(benchmark.zoo.entries())
    assert set(benchmark.load("deep-small").methods) <= set(methods.entries())


def test_the_form_of_a_method_follows_from_its_entry():
    base = from_configuration({"method": "d2"})
    assert benchmark.fitted(base).weights == "lazy_metropolis"
    assert benchmark.fitted(replace(base, method="extra")) == replace(base, method="extra")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[budget]", "[budgte]", "budget"),
        ("trials = 3", "trials = 0", "trials must be an integer of at least 1"),
        ("trials = 3", "trails = 3", "trials"),
        ('"dsgd_atc"', '"dsgd_act"', "dsgd_atc"),
        ("nodes = 4", "node = 4", "nodes"),
        ("nodes = 4", 'nodes = "4"', "nodes must be of type int"),
        ('[[clusters]]\nname = "ring"\ngraph = "ring"\n', "", "clusters"),
        ("lanes = 2", "lanes = ", "no TOML"),
        ('name = "digits"', 'name = "quadratic"', "a name of its own"),
    ],
)
def test_a_suite_that_is_wrong_is_refused_in_one_line(old, new, said, tmp_path):
    path = tmp_path / "suite.toml"
    assert old in SUITE
    path.write_text(SUITE.replace(old, new))
    with pytest.raises(ValueError, match=said) as caught:
        benchmark.load(str(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
