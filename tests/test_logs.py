"""Loggers: nothing twice, nothing that is not JSON, and what trackers are called with."""

import io
import json
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
from refusals import assert_refused

from experiments import logs
from experiments.logs import Console, JsonLines, open_loggers, read_lines


def test_records_are_valid_json_and_come_back(tmp_path):
    path = tmp_path / "run" / "log.jsonl"
    logger = JsonLines(path)
    given = {"a": float("nan"), "b": -np.inf, "c": jnp.float32(0.5), "d": np.int64(2**53 + 1), "e": 0.1, "f": True}
    logger.log(given, np.int32(3))
    assert path.read_bytes().endswith(b"\n")  # flushed at once

    def refuse(constant):
        raise AssertionError(constant)

    told = json.loads(path.read_text(), parse_constant=refuse)
    assert told == {"step": 3, "a": "nan", "b": "-inf", "c": 0.5, "d": 2**53 + 1, "e": 0.1, "f": True}
    (record,) = read_lines(path)
    assert np.isnan(record.pop("a"))
    assert record == {"step": 3, "b": -np.inf, "c": 0.5, "d": 2**53 + 1, "e": 0.1, "f": True}
    assert_refused(lambda: logger.log({"step": 1.0}, 4), "step", "Rename")
    assert_refused(lambda: logger.log({"x": np.ones(2)}, 4), "'x'", "(2,)", "mean")
    assert_refused(lambda: logger.log({"x": "text"}, 4), "'x'")
    assert len(read_lines(path)) == 1
    logger.close()


@pytest.mark.parametrize("checkpoint", range(6))
@pytest.mark.parametrize("torn", [b"", b'{"step": 6, "lo', b'{"step": 6}'])
def test_a_resumed_run_records_what_an_uninterrupted_one_does(tmp_path, checkpoint, torn):
    path = tmp_path / "log.jsonl"
    logger = JsonLines(path)
    for step in range(1, 6):
        logger.log({"loss": step / 3, "run": 0}, step)
    logger.close()
    path.write_bytes(path.read_bytes() + torn)  # killed while it wrote
    logger = JsonLines(path)
    for step in range(checkpoint + 1, 9):
        logger.log({"loss": step / 3, "run": 1}, step)
    logger.close()
    expected = [{"step": step, "loss": step / 3, "run": int(step > checkpoint)} for step in range(1, 9)]
    assert read_lines(path) == expected


def test_a_file_that_is_no_log(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n[2]\n{"step": 3}\n')
    assert_refused(lambda: JsonLines(path), str(path), "line 2", "[2]")
    assert len(path.read_text()) > 20  # left as it was


def test_console(capsys):
    Console().log({"loss": 1 / 3, "accuracy": jnp.float32(0.5)}, 20)
    assert capsys.readouterr().out == "step 20  loss 0.33333  accuracy 0.5\n"


class Recorder(types.ModuleType):
    """Stands for a tracker: notes each call, and returns itself."""

    def __init__(self, name, calls):
        super().__init__(name)
        self.calls = calls

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            return self

        return call


def test_what_trackers_are_called_with(tmp_path, monkeypatch):
    calls = {name: [] for name in ("tensorboard", "wandb", "trackio", "mlflow")}
    for name, noted in calls.items():
        monkeypatch.setitem(sys.modules, name, Recorder(name, noted))
    monkeypatch.setitem(sys.modules, "tensorboard.summary", Recorder("tensorboard.summary", calls["tensorboard"]))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    folder, configuration = tmp_path / "name", {"seed": 1}
    logger = open_loggers([*calls, "wandb"], folder, configuration)
    logger.log({"loss": np.float32(0.5), "bits": 3}, np.int64(7))
    logger.close()
    metrics = {"loss": 0.5, "bits": 3}
    assert calls == {
        "tensorboard": [
            ("Writer", (str(folder / "tensorboard"),), {}),
            ("add_scalar", ("loss", 0.5, 7), {}),
            ("add_scalar", ("bits", 3, 7), {}),
            ("close", (), {}),
        ],
        "wandb": [
            ("init", (), {"project": "adozoo", "name": "name", "dir": str(folder), "config": configuration}),
            ("log", (metrics,), {"step": 7}),
            ("finish", (), {}),
        ],
        "trackio": [
            ("init", (), {"project": "adozoo", "name": "name", "config": configuration}),
            ("log", (metrics,), {"step": 7}),
            ("finish", (), {}),
        ],
        "mlflow": [
            ("set_experiment", ("adozoo",), {}),
            ("start_run", (), {"run_name": "name"}),
            ("log_params", (configuration,), {}),
            ("log_metrics", (metrics,), {"step": 7}),
            ("end_run", (), {}),
        ],
    }
    assert read_lines(folder / "log.jsonl") == [{"step": 7, **metrics}]


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow", "tensorboard"])
def test_a_tracker_that_is_not_installed(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary" if name == "tensorboard" else name, None)
    with pytest.raises(ImportError, match=f'pip install "{name}"'):
        open_loggers([name], tmp_path, {})


def test_an_unknown_logger(tmp_path):
    assert_refused(lambda: open_loggers(["wndb"], tmp_path, {}), "'wndb'", "Did you mean wandb?")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "quiet", "shown"), [(Terminal, False, True), (Terminal, True, False), (io.StringIO, False, False)]
)
def test_the_bar_shows_on_a_terminal_only(stream, quiet, shown, monkeypatch):
    screen = stream()
    monkeypatch.setattr(sys, "stderr", screen)
    with logs.progress(40, "extra", quiet) as bar:
        bar.update(10)
        bar.refresh()
    assert ("extra" in screen.getvalue() and "10/40" in screen.getvalue() and "step/s" in screen.getvalue()) == shown
    assert bool(screen.getvalue()) == shown


@pytest.mark.parametrize(
    ("stream", "shown"), [(Terminal, "1 of 2 done\r2 of 2 done\n"), (io.StringIO, "1 of 2 done\n2 of 2 done\n")]
)
def test_jobs_are_counted(stream, shown, monkeypatch):
    screen = stream()
    monkeypatch.setattr(sys, "stderr", screen)
    logs.count(1, 2)
    logs.count(2, 2)
    assert screen.getvalue() == shown
