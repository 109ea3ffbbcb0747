"""Sweeps: each cell once, found again, the same however often killed; one dataset with named dimensions."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import runs, sweeps
from experiments.settings import Run
from experiments.store import Store

ROOT = Path(__file__).parents[1]
BASE = Run(task="synthetic/quadratic", method="dsgd_momentum", nodes=4, steps=20, records=2, batch=0)
KILLED = """
import jax, sys
jax.config.update("jax_enable_x64", True)
from experiments import sweeps
from experiments.settings import Run
from experiments.store import Store
base = Run(task="digits/mlp:8", nodes=4, steps=600, records=3, batch=4, held_out=20)
wanted = sweeps.grid(base, {"method": ["dsgd_atc", "diging"], "learning_rate": [0.02, 0.05, 0.1, 0.2]})
store = Store(sys.argv[1])
from experiments import engine
for group in sweeps.plan(wanted, store, 2, save_every=0.0):
    sweeps.work(group)
sweeps.gather(wanted, store).to_netcdf(sys.argv[1] + "/sweep.nc", engine="h5netcdf")
"""


def test_finished_cells_are_found_and_not_run_again(tmp_path, monkeypatch):
    store = Store(tmp_path)
    wanted = sweeps.grid(BASE, {"learning_rate": [0.1, 0.2], "momentum": [0.0, 0.5]})
    first = sweeps.sweep(wanted, store, lanes=2)
    monkeypatch.setattr(runs, "execute", lambda *a, **k: pytest.fail("a finished cell was run again"))
    again = sweeps.sweep(wanted, Store(tmp_path), lanes=2)
    assert first.identical(again)
    assert sweeps.plan(wanted, store) == []


def test_groups_are_those_of_the_whole_sweep_whatever_is_there(tmp_path):
    store = Store(tmp_path)
    wanted = sweeps.grid(BASE, {"learning_rate": [0.1, 0.2, 0.3, 0.4, 0.5]})
    groups = sweeps.plan(wanted, store, lanes=2)
    assert [len(group.cells) for group in groups] == [2, 2, 1]
    assert {group.lanes for group in groups} == {2}
    sweeps.work(groups[1])
    assert sweeps.plan(wanted, store, lanes=2) == [groups[0], groups[2]]


def test_runs_that_share_no_program_lie_in_different_groups(tmp_path):
    wanted = sweeps.grid(BASE, {"graph": ["ring", "star"], "seed": [0, 1]})
    groups = sweeps.plan(wanted, Store(tmp_path))
    assert [{cell["graph"] for cell in group.cells} for group in groups] == [{"ring"}, {"star"}]


def test_a_sweep_is_one_dataset_with_a_dimension_for_what_differs(tmp_path):
    store = Store(tmp_path)
    wanted = sweeps.grid(BASE, {"learning_rate": [0.1, 0.2], "graph": ["ring", "star"]})
    data = sweeps.sweep(wanted, store)
    assert dict(data.sizes) == {"graph": 2, "learning_rate": 2, "record": 2, "node": 4}
    one = runs.execute([replace(BASE, learning_rate=0.2, graph="star")])[0]
    np.testing.assert_allclose(data["test"].sel(graph="star", learning_rate=0.2), one["test"], rtol=1e-9)
    uneven = sweeps.gather(wanted[:3], store)
    assert uneven.sizes["cell"] == 3
    assert sorted(uneven.learning_rate.values) == [0.1, 0.1, 0.2]


def test_lanes_are_sized_to_memory():
    assert sweeps.lanes_that_fit(BASE, 32) == 32
    large = Run(task="digits/mlp:4096:4096", nodes=64, batch=64)
    few = sweeps.lanes_that_fit(large, 32)
    assert 1 <= few < 32
    assert sweeps.lanes_that_fit(large, 32, share=1e-6) == 1


def _killed_sweep(folder, kills, rng, longest):
    """The sweep of KILLED, killed at random moments and started again until it ends; how often that was."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        if done < kills:
            time.sleep(rng.uniform(0.3, 0.9) * longest)
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        if process.returncode == 0:
            return done
        assert process.returncode == -signal.SIGKILL, errors
        done += 1


@pytest.mark.slow
def test_a_sweep_that_is_killed_at_twenty_random_moments_equals_one_that_was_not(tmp_path):
    rng = np.random.default_rng(0)
    began = time.monotonic()
    _killed_sweep(tmp_path / "whole", 0, rng, 0)
    longest = time.monotonic() - began
    whole, kills, folders = Store(tmp_path / "whole"), 0, 0
    assert len(whole.hashes()) == 8
    while kills < 20:  # a sweep that ended is compared, and the next one begins anew
        folder = tmp_path / f"killed{folders}"
        kills, folders = kills + _killed_sweep(folder, 20 - kills, rng, longest), folders + 1
        killed = Store(folder)
        assert sorted(killed.hashes()) == sorted(whole.hashes())  # each once: a store has no cell twice
        for name in whole.hashes():
            assert whole.read(name).identical(killed.read(name)), name
        assert not list((folder / "unfinished").iterdir())
