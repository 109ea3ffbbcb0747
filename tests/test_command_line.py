"""The command line; and that whatever does not fit is one line, another exit code, and nothing written."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

from experiments import command_line
from experiments.settings import Run

ROOT = Path(__file__).parents[1]
TINY = "--nodes 4 --steps 8 --records 2 --batch 4 --held-out 20 --task digits/mlp:4 --quiet".split()  # noqa: SIM905


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))  # chosen already
    yield
    jax.config.update("jax_enable_x64", True)


def refused(capsys, *words):
    """The one line on standard error; nothing may have been written."""
    assert command_line.main([*words]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert not list(Path().iterdir())
    return errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--method", "dsgd_act"], "dsgd_atc"),
        (["run", "--method", "relay_sgd", "--graph", "ring"], "tree_of:ring"),
        (["run", "--method", "d2", "--nodes", "6"], "smallest eigenvalue"),
        (["run", "--nodes", "6", "--devices", "4"], "do not divide by 4 devices"),
        (["run", "--devices", "16"], "16 wanted"),
        (["run", "--task", "cifar10/resnet20:batch"], "python -m experiments fetch cifar10"),
        (["run", "--task", "digits/mlpp"], "mlp"),
        (["run", "--graph", "rink"], "ring"),
        (["run", "--partition", "dirichlet_per_clas:1"], "dirichlet_per_class"),
        (["sweep", "--over", "learningrate=0.1,0.2"], "learning_rate"),
        (["sweep", "--over", "learning_rate=log:0.1,x,3"], "numbers apart by commas"),
        (["benchmark", "convexx"], "convex"),
        (["benchmark", "missing.toml"], "there is no file"),
        (["report", "nowhere"], "Run python -m experiments benchmark first"),
        (["resume", "nowhere"], "no run, sweep or benchmark"),
        (["list", "method"], "methods"),
        (["fetch", "fashion_mnits"], "fashion_mnist"),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(words, said, capsys, monkeypatch):
    monkeypatch.setenv("ADOZOO_DATA", os.devnull)
    assert said in refused(capsys, *words)


def test_an_option_that_does_not_exist_is_answered_by_the_nearest():
    words = [sys.executable, "-m", "experiments", "run", "--metod", "extra"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 2
    assert "--method" in found.stderr


def test_a_run_leaves_its_result_a_log_and_its_settings_and_is_found_again(capsys):
    assert command_line.main(["run", *TINY, "--out", "here"]) == 0
    data = xr.load_dataset("here/result.nc", engine="h5netcdf")
    assert data.sizes["record"] == 2
    assert json.loads(Path("here/settings.json").read_text())["nodes"] == 4
    lines = [json.loads(line) for line in Path("here/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8]
    assert lines[-1]["validation"] == float(data["validation"][-1])
    assert sorted(path.name for path in Path("here").iterdir()) == ["log.jsonl", "result.nc", "settings.json"]
    assert command_line.main(["run", *TINY, "--out", "here"]) == 0
    assert command_line.main(["resume", "here"]) == 0
    assert capsys.readouterr().out.count("finished before") == 2
    assert command_line.main(["run", *TINY, "--out", "here", "--seed", "5"]) == 2
    assert "holds another run" in capsys.readouterr().err


def test_a_checkpoint_that_is_damaged_is_named(capsys, monkeypatch):
    from experiments import runs

    execute = runs.execute
    monkeypatch.setattr(runs, "execute", lambda *a, **k: execute(*a, **k, stop_after=4))
    with pytest.raises(AssertionError):
        command_line.main(["run", *TINY, "--out", "here"])
    monkeypatch.setattr(runs, "execute", execute)
    head = next(Path("here/checkpoints").glob("step-*/checkpoint.json"))
    head.write_bytes(head.read_bytes()[:-20])
    capsys.readouterr()
    assert command_line.main(["run", *TINY, "--out", "here"]) == 2
    errors = capsys.readouterr().err
    assert "checkpoint.json" in errors
    assert "--fresh" in errors
    assert errors.count("\n") == 1
    assert command_line.main(["run", *TINY, "--out", "here", "--fresh"]) == 0


def test_a_sweep_says_the_best_and_is_found_again(capsys):
    words = ["sweep", *TINY[:-1], "--over", "learning_rate=log:0.01,1,3", "--seeds", "2", "--out", "swept"]
    assert command_line.main(words) == 0
    said = capsys.readouterr().out
    assert "best validation accuracy" in said
    assert "6 runs" in said
    data = xr.load_dataset("swept/sweep.nc", engine="h5netcdf")
    assert dict(data.sizes) == {"learning_rate": 3, "seed": 2, "record": 2, "node": 4}
    Path("swept/sweep.nc").unlink()
    for _ in range(2):
        assert command_line.main(["resume", "swept"]) == 0
        assert json.loads(Path("swept/command.json").read_text()) == words
    assert xr.load_dataset("swept/sweep.nc", engine="h5netcdf").identical(data)


def test_everything_that_is_listed_can_be_run(capsys):
    for what in ("methods", "tasks", "graphs", "partitions", "clusters", "energies", "suites"):
        assert command_line.main(["list", what]) == 0
        assert len(capsys.readouterr().out.splitlines()) >= 2


def test_the_command_of_a_run_runs_it():
    run = Run(task="digits/mlp:4", nodes=4, steps=8, records=2, batch=4, held_out=20, hyperparameters={"momentum": 0.5},
              method="dsgd_momentum")  # fmt: skip
    words = run.command.split()[3:]
    assert command_line.main([*words, "--quiet", "--out", "there"]) == 0
    assert json.loads(Path("there/settings.json").read_text()) == run.configuration


@pytest.mark.slow
def test_a_run_over_two_hosts_is_the_run_on_one():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    words = [sys.executable, "-m", "experiments", "run", *TINY, "--out", "both", "--devices", "2", "--hosts", "2"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    hosts = [
        subprocess.Popen(
            [*words, "--coordinator", address, "--host", str(host)], env=environment, stdout=subprocess.DEVNULL
        )
        for host in range(2)
    ]
    assert [host.wait(300) for host in hosts] == [0, 0]
    assert command_line.main(["run", *TINY, "--out", "one"]) == 0
    both, one = (xr.load_dataset(f"{name}/result.nc", engine="h5netcdf") for name in ("both", "one"))
    for name in one:
        np.testing.assert_allclose(both[name], one[name], rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_a_run_over_devices_is_the_run_on_one():
    words = [sys.executable, "-m", "experiments", "run", *TINY, "--out", "spread", "--devices", "4"]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    subprocess.run(words, env=os.environ | flags, check=True)
    assert command_line.main(["run", *TINY, "--out", "one"]) == 0
    spread, one = (xr.load_dataset(f"{name}/result.nc", engine="h5netcdf") for name in ("spread", "one"))
    for name in one:
        np.testing.assert_allclose(spread[name], one[name], rtol=1e-4, err_msg=name)
