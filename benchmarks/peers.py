"""Peers, installed under .cache/bench-peers on first use: they are no dependencies of this project.

decent-bench is AGPL-3.0 and needs another Python: it is run as a program of its own, in a virtual environment, and
compared with. Nothing of it is copied or imported here. PEPit is MIT and shares this process, as its dependencies do.
PyTorch is BSD-3-Clause; it has a process of its own, with threads of its own, which waits while others take their turn.
decent-dp is MIT; it has a process a node.
"""

import importlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.timing import ROOT

DECENT_BENCH = "decent-bench 0.3.0"
HOW_TO_GET = "not available: needs Python 3.13 (as python3.13 on the PATH, or from pyenv) and a package index"
PEPIT = "PEPit 0.5.1"
HOW_TO_GET_PEPIT = "not available: needs a package index, and cvxpy and pandas in this environment"
DRIVER = Path(__file__).with_name("decent_bench_driver.py")
TORCH = "torch 2.13.0"
HOW_TO_GET_TORCH = "not available: needs a package index"
TORCH_DRIVER = Path(__file__).with_name("torch_driver.py")
DECENT_DP = "decent-dp 0.2.3"
DECENT_DP_DRIVER = Path(__file__).with_name("decent_dp_driver.py")


def _home(peer: str) -> Path:
    return ROOT / ".cache" / "bench-peers" / peer.replace(" ", "-")


def _install(peer: str, *commands: list[Any]) -> bool:
    """Whether the commands that install a peer succeed; they are run once."""
    home = _home(peer)
    if (home / ".installed").exists():
        return True
    print(f"(installing {peer}, once)", end=" ", flush=True)
    for command in commands:
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return False
    (home / ".installed").touch()
    return True


def _python_3_13() -> str | None:
    versions = sorted(Path.home().glob(".pyenv/versions/3.13*/bin/python"))
    return shutil.which("python3.13") or (str(versions[-1]) if versions else None)


def decent_bench_python() -> Path | None:
    """The interpreter that has decent-bench 0.3.0, installed on first use; None where that cannot be done."""
    if (base := _python_3_13()) is None:
        return None
    home = _home(DECENT_BENCH)
    python = home / "bin" / "python"
    # jinja2 is not among its dependencies, though it imports it.
    install = [python, "-m", "pip", "install", "-q", DECENT_BENCH.replace(" ", "=="), "jinja2"]
    return python if _install(DECENT_BENCH, [base, "-m", "venv", home], install) else None


def decent_bench_dgd(repeats: int, **case: Any) -> tuple[list[float], np.ndarray] | None:
    """(seconds of each run, last iterates [n, d]) of decent-bench's DGD; None where it is not available."""
    python = decent_bench_python()
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "case.npz", repeats=repeats, **case)
        done = subprocess.run([python, DRIVER, folder], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{DECENT_BENCH} failed:\n{done.stderr}")
        result = np.load(Path(folder) / "result.npz")
        return result["seconds"].tolist(), result["x"]


def pepit() -> Any | None:
    """The module PEPit 0.5.1, installed on first use without its dependencies; None where that cannot be done."""
    home, requirement = _home(PEPIT), PEPIT.replace(" ", "==")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", home, requirement]
    if not _install(PEPIT, pip):
        return None
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))  # before any other version of it
    try:
        importlib.import_module("PEPit.functions")
        return importlib.import_module("PEPit")
    except ImportError:
        return None


def torch_python() -> Path | None:
    """The interpreter that has PyTorch 2.13.0, installed on first use; None where that cannot be done."""
    home = _home(TORCH)
    python = home / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", TORCH.replace(" ", "=="), "numpy"]
    return python if _install(TORCH, [sys.executable, "-m", "venv", home], install) else None


class Torch(NamedTuple):
    """A running driver, such as `benchmarks.torch_driver`."""

    run: Callable[[str, int], float]  # takes a method's steps with so many threads, and returns the seconds they took
    finish: Callable[[], dict[str, np.ndarray]]  # ends the process, and returns the last iterates by name


@contextmanager
def torch_steps(driver: Path = TORCH_DRIVER, **case: Any) -> Iterator[Torch | None]:
    """PyTorch in a process that waits for its turn; None where it is not available."""
    python = torch_python()
    if python is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "case.npz", **case)
        errors = Path(folder) / "errors"
        with errors.open("w") as stderr:
            command, pipe = [python, driver, folder], subprocess.PIPE
            process = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=stderr, text=True)

        def run(method: str, threads: int) -> float:
            print(method, threads, file=process.stdin, flush=True)
            answer = process.stdout.readline() if process.stdout else ""
            if not answer:
                raise RuntimeError(f"{TORCH} failed:\n{errors.read_text()}")
            return float(answer)

        def finish() -> dict[str, np.ndarray]:
            process.communicate()
            return dict(np.load(Path(folder) / "result.npz"))

        try:
            yield Torch(run, finish)
        finally:
            process.kill()
            process.wait()


def decent_dp(nodes: int, **case: Any) -> tuple[float, dict[str, np.ndarray]] | None:
    """(seconds from start to end of all processes, what process 0 left behind); None where it is not available."""
    home = _home(DECENT_DP)
    python = home / "bin" / "python"
    # numpy is not among its dependencies, though it needs it.
    wanted = [TORCH.replace(" ", "=="), DECENT_DP.replace(" ", "=="), "numpy"]
    if not _install(DECENT_DP, [sys.executable, "-m", "venv", home], [python, "-m", "pip", "install", "-q", *wanted]):
        return None
    launch = [python, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nodes}", DECENT_DP_DRIVER]
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "case.npz", **case)
        before = time.perf_counter()
        done = subprocess.run([*launch, folder], cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - before
        if done.returncode:
            raise RuntimeError(f"{DECENT_DP} failed:\n{done.stderr[-2000:]}")
        return seconds, dict(np.load(Path(folder) / "result.npz"))
