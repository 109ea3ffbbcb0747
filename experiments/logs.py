"""Where a run's metrics go while it runs: JSON lines always, the console, and the trackers that people use; a bar.

Every logger has `log(metrics, step)` and `close()`. Trackers are imported when they are asked for. When a run goes on
from a checkpoint, the JSON lines forget what was recorded after it, and nothing is recorded twice; for the trackers
each start is a run of its own (TensorBoard: a file of its own), under the name of the run's folder.
"""

import contextlib
import difflib
import importlib
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm


class Logger(Protocol):
    """Is told the metrics of a run at some of its steps."""

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Record metrics, numbers by name, after `step` steps; steps ascend."""

    def close(self) -> None:
        """Finish: everything is where it belongs when this returns."""


def _numbers(metrics: Mapping[str, Any]) -> dict[str, int | float | bool]:
    """Python's numbers out of numpy's and jax's."""
    found = {}
    for name, value in metrics.items():
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise ValueError(
                f"Logger.log: metric {name!r} must be a real number, got {array.dtype} of shape {array.shape}. "
                "Log one number a name, say the mean, and keep arrays in the run's results."
            )
        found[name] = array.item()
    return found


def _json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


class JsonLines:
    """One JSON object a record, one record a line: {"step": 10, "loss": 0.5}.

    Lines are appended and flushed one by one. JSON knows no infinities: "nan", "inf" and "-inf" are written as strings,
    and `read_lines` turns them back. A line that a kill cut short is removed when the file is opened again, and a
    record of a step that is not beyond the last one removes that step and all later ones: a run that goes on from a
    checkpoint records nothing twice.

    Args:
      path: made with its folder if it does not exist.

    Raises:
      ValueError: if an earlier line is no record.

    Example:
      >>> import tempfile
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "log.jsonl"
      >>> for steps in ((10, 20, 30), (20, 30)):  # killed, and resumed from step 10
      ...     logger = JsonLines(path)
      ...     for step in steps:
      ...         logger.log({"loss": 1 / step}, step)
      ...     logger.close()
      >>> [record["step"] for record in read_lines(path)]
      [10, 20, 30]
      >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._ends: list[tuple[int, int]] = []  # of each record: its step, and where its line ends
        if self.path.exists():
            self._ends = [(record["step"], end) for record, end in _records(self.path)]
        self._file = open(self.path, "ab")  # noqa: SIM115 (open as long as the run goes)
        self._file.truncate(self._ends[-1][1] if self._ends else 0)

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        if "step" in metrics:
            raise ValueError("JsonLines.log: a metric must not be called 'step', which each record has. Rename it.")
        record = {"step": int(step)} | {name: _json(value) for name, value in _numbers(metrics).items()}
        while self._ends and self._ends[-1][0] >= step:
            self._ends.pop()
            self._file.truncate(self._ends[-1][1] if self._ends else 0)
        self._file.write(json.dumps(record, allow_nan=False).encode("ascii") + b"\n")
        self._file.flush()
        self._ends.append((int(step), self._file.tell()))

    def close(self) -> None:
        self._file.close()


def _records(path: Path) -> list[tuple[dict[str, Any], int]]:
    """The records of a file and where their lines end, without a last line that was cut short."""
    found, end = [], 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        end += len(line)
        try:
            record = json.loads(line)
            found.append(({"step": int(record.pop("step")), **record}, end))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number} is no record of a log: {line[:60]!r}. Delete the file.") from error
    return found


def read_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a log in JSON lines, with "nan", "inf" and "-inf" as the numbers that they stand for.

    Raises:
      ValueError: if a line is no record; one that a kill cut short, at the end, is left out.
    """
    return [
        {name: float(value) if isinstance(value, str) else value for name, value in record.items()}
        for record, _ in _records(Path(path))
    ]


class Console:
    """A line a record on standard output, above the progress bar if there is one."""

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        told = "  ".join(f"{name} {value:.5g}" for name, value in _numbers(metrics).items())
        tqdm.write(f"step {step}  {told}", file=sys.stdout)

    def close(self) -> None:
        pass


def _tracker(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'the logger needs {package}: pip install "{package}".') from error


class TensorBoard:
    """Event files in `folder`/tensorboard, one a start: tensorboard --logdir FOLDER."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        self._writer = _tracker("tensorboard.summary", "tensorboard").Writer(str(folder / "tensorboard"))

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        for name, value in _numbers(metrics).items():
            self._writer.add_scalar(name, value, int(step))

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases in project "adozoo", or of the environment's WANDB_PROJECT."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        self._run = _tracker("wandb", "wandb").init(
            project=os.environ.get("WANDB_PROJECT", "adozoo"),
            name=folder.name,
            dir=str(folder),
            config=dict(configuration),
        )

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        self._run.log(_numbers(metrics), step=int(step))

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run of Trackio in project "adozoo": trackio show --project adozoo."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        self._run = _tracker("trackio", "trackio").init(project="adozoo", name=folder.name, config=dict(configuration))

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        self._run.log(_numbers(metrics), step=int(step))

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of MLflow in experiment "adozoo", at the tracking server that MLflow is configured for."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        self._mlflow = _tracker("mlflow", "mlflow")
        self._mlflow.set_experiment("adozoo")
        self._mlflow.start_run(run_name=folder.name)
        self._mlflow.log_params(dict(configuration))

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        self._mlflow.log_metrics(_numbers(metrics), step=int(step))

    def close(self) -> None:
        self._mlflow.end_run()


_NAMED = {
    "jsonl": lambda folder, configuration: JsonLines(folder / "log.jsonl"),
    "console": lambda folder, configuration: Console(),
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
    "mlflow": MLflow,
}


class Several:
    """Loggers that are told the same."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = tuple(loggers)

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        for logger in self.loggers:
            logger.log(metrics, step)

    def close(self) -> None:
        for logger in self.loggers:
            logger.close()


def open_loggers(names: Sequence[str], folder: str | os.PathLike[str], configuration: Mapping[str, Any]) -> Several:
    """The loggers of these names, and JSON lines in `folder`/log.jsonl in any case.

    Args:
      names: of "console", "tensorboard", "wandb", "trackio", "mlflow".
      folder: of the run; its last part is the run's name.
      configuration: of the run, for the trackers.

    Raises:
      ValueError: for another name.
      ImportError: if a tracker is not installed: with the command that installs it.

    Example:
      >>> open_loggers(["tensorbord"], "outputs", {})
      Traceback (most recent call last):
      ValueError: open_loggers: no logger is called 'tensorbord'. Did you mean tensorboard? There are jsonl, ...
    """
    for name in names:
        if name not in _NAMED:
            near = difflib.get_close_matches(name, _NAMED, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"open_loggers: no logger is called {name!r}. Did you mean {near}? There are {', '.join(_NAMED)}."
            )
    with contextlib.ExitStack() as opened:  # closes what is open if the next one is not installed
        loggers: list[Logger] = []
        for name in dict.fromkeys(("jsonl", *names)):
            loggers.append(_NAMED[name](Path(folder), configuration))
            opened.callback(loggers[-1].close)
        opened.pop_all()
    return Several(loggers)


def progress(total: int, description: str, quiet: bool = False) -> tqdm:
    """A bar on standard error with steps a second and the time left; silent if `quiet` or if that is no terminal.

    Call its `update(steps)` with the steps just taken, and `close()`.

    Example:
      >>> with progress(100, "extra on a ring", quiet=True) as bar:
      ...     shown = bar.update(10)
      >>> bar.disable
      True
    """
    silent = quiet or not sys.stderr.isatty()
    return tqdm(total=total, desc=description, unit="step", disable=silent, file=sys.stderr, dynamic_ncols=True)


def count(done: int, total: int) -> None:
    """Say on standard error how many jobs are done: in one line on a terminal, else in a line each."""
    end = "\r" if sys.stderr.isatty() and done < total else "\n"
    print(f"{done} of {total} done", end=end, file=sys.stderr, flush=True)
