"""What the jobs of test_engine do in their workers: a module of its own, so that workers import little."""

import os
import time
from pathlib import Path

import numpy as np
import xarray as xr

from experiments.store import Store, content_hash


def leave_a_cell(payload):
    """Note the attempt, take a while, and store a cell."""
    folder, number, seconds = payload
    Path(folder, f"attempt-{number}-{os.getpid()}-{time.monotonic_ns()}").touch()
    time.sleep(seconds)
    one = {"number": number}
    cell = content_hash(one)
    Store(Path(folder, "cells")).write({cell: xr.Dataset({"loss": ("step", number + np.zeros(2))})}, {cell: one})


def fail_if_odd(payload):
    if payload % 2:
        raise ValueError(f"odd: {payload}")


def die(payload):
    os._exit(9)


def tell(folder):
    """The worker's precision and environment, into a file."""
    import jax.numpy as jnp

    told = f"{jnp.zeros(()).dtype} {os.environ.get('NPROC')} {os.environ.get('OMP_NUM_THREADS')} {os.getpid()}"
    Path(folder, f"told-{time.monotonic_ns()}").write_text(told)
