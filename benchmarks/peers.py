"""Peers that need a Python or a licence of their own: each in a virtual environment under .cache/bench-peers.

decent-bench is AGPL-3.0: it is run as a program of its own and compared with. Nothing of it is copied or imported here.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import ROOT

DECENT_BENCH = "decent-bench 0.3.0"
HOW_TO_GET = "not available: needs Python 3.13 (as python3.13 on the PATH, or from pyenv) and a package index"
DRIVER = Path(__file__).with_name("decent_bench_driver.py")


def _python_3_13() -> str | None:
    versions = sorted(Path.home().glob(".pyenv/versions/3.13*/bin/python"))
    return shutil.which("python3.13") or (str(versions[-1]) if versions else None)


def decent_bench_python() -> Path | None:
    """The interpreter that has decent-bench 0.3.0, installed on first use; None where that cannot be done."""
    home = ROOT / ".cache" / "bench-peers" / DECENT_BENCH.replace(" ", "-")
    python = home / "bin" / "python"
    if (home / ".installed").exists():
        return python
    if (base := _python_3_13()) is None:
        return None
    print(f"(installing {DECENT_BENCH}, once)", end=" ", flush=True)
    # jinja2 is not among its dependencies, though it imports it.
    install = [python, "-m", "pip", "install", "-q", DECENT_BENCH.replace(" ", "=="), "jinja2"]
    for command in ([base, "-m", "venv", home], install):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
    (home / ".installed").touch()
    return python


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
