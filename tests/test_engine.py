"""Engines: every job once in the store whatever happens to the workers, failures told by name, several hosts."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import engine_jobs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import assert_refused

from experiments.engine import Failures, Job, execute, initialise_hosts
from experiments.store import Store, content_hash

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def address():
    """Of a scheduler with two worker processes, as a user would have started it."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster.scheduler_address


def assert_each_once(folder, count):
    store = Store(folder / "cells")
    wanted = [content_hash({"number": number}) for number in range(count)]
    assert store.missing(wanted) == []
    assert sorted(store.hashes()) == sorted(wanted)
    assert len(os.listdir(store.folder)) == count
    assert all(np.all(store.read(cell).loss == number) for number, cell in enumerate(wanted))


def attempts(folder):
    """(number, process) of each."""
    return [tuple(map(int, path.name.split("-")[1:3])) for path in folder.glob("attempt-*")]


def test_jobs_here(tmp_path):
    told = []
    jobs = [Job(f"cell {number}", (str(tmp_path), number, 0)) for number in range(3)]
    execute(jobs, engine_jobs.leave_a_cell, progress=lambda *numbers: told.append(numbers))
    assert_each_once(tmp_path, 3)
    assert told == [(1, 3), (2, 3), (3, 3)]
    execute([], engine_jobs.leave_a_cell)


def test_a_job_that_fails_is_named_and_the_others_go_on(address):
    for engine in ("here", "dask"):
        done = []
        with pytest.raises(Failures) as failed:
            execute(
                [Job(f"job {number}", number) for number in range(4)],
                engine_jobs.fail_if_odd,
                engine=engine,
                address=address,
                progress=lambda now, total, done=done: done.append(now),
            )
        assert done == [1, 2, 3, 4]
        assert {name: str(error) for name, error in failed.value.errors.items()} == {
            "job 1": "odd: 1",
            "job 3": "odd: 3",
        }
        assert "2 of 4 jobs failed" in str(failed.value)
        assert "job 3: ValueError: odd: 3" in str(failed.value)


def test_a_killed_worker_loses_nothing_and_doubles_nothing(tmp_path, address):
    count, killed = 8, []

    def kill_one():
        while not killed:
            if len(found := attempts(tmp_path)) >= 3:  # one is done, two are under way
                killed.append(found[-1][1])
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    jobs = [Job(f"cell {number}", (str(tmp_path), number, 0.3)) for number in range(count)]
    execute(jobs, engine_jobs.leave_a_cell, engine="dask", address=address)
    killer.join()
    assert_each_once(tmp_path, count)
    tried = attempts(tmp_path)
    assert count < len(tried) <= count + 2  # what was under way there was begun again, what was done was not
    assert max(tried.count((number, killed[0])) for number in range(count)) == 1


def test_processes_of_this_machine(tmp_path):
    """In this process's precision, with one thread, in a process of their own."""
    execute([Job("tell", str(tmp_path))], engine_jobs.tell, engine="processes", workers=4)
    (told,) = tmp_path.glob("told-*")
    assert told.read_text().split()[:3] == ["float64", "1", "1"]
    assert int(told.read_text().split()[3]) != os.getpid()


@pytest.mark.slow
def test_the_precision_is_that_of_the_asking_process(tmp_path, address):
    with jax.enable_x64(False):
        execute([Job("tell", str(tmp_path))], engine_jobs.tell, engine="dask", address=address)
    (told,) = tmp_path.glob("told-*")
    assert told.read_text().startswith("float32")


@pytest.mark.slow
def test_a_job_that_kills_its_workers_is_given_up(tmp_path, address):
    with pytest.raises(Failures, match="1 of 1 jobs failed") as failed:
        execute([Job("deadly", 0)], engine_jobs.die, engine="dask", address=address)
    assert type(failed.value.errors["deadly"]).__name__ == "KilledWorker"
    jobs = [Job(f"cell {number}", (str(tmp_path), number, 0)) for number in range(3)]
    execute(jobs, engine_jobs.leave_a_cell, engine="dask", address=address)
    assert_each_once(tmp_path, 3)


def test_what_is_refused(monkeypatch):
    jobs = [Job("a", 0)]
    assert_refused(lambda: execute(jobs, print, engine="proceses"), "'proceses'", "Did you mean processes?")
    assert_refused(lambda: execute(jobs, print, workers=0), "workers", "0")
    assert_refused(lambda: execute([*jobs, *jobs], print), "distinct names", "'a'")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r'pip install "adozoo\[cluster\]"'):
        execute(jobs, print, engine="processes")


def test_hosts_that_cannot_be_found(monkeypatch):
    monkeypatch.setenv("ADOZOO_HOSTS", "many")
    assert_refused(initialise_hosts, "hosts", "'many'", "ADOZOO_HOSTS")
    monkeypatch.setenv("ADOZOO_HOSTS", "3")
    assert_refused(lambda: initialise_hosts(host=3), "0..2", "3")
    assert_refused(lambda: initialise_hosts(hosts=0), "hosts", ">= 1")
    jnp.zeros(())
    with pytest.raises(RuntimeError, match="before any JAX calls"):
        initialise_hosts("127.0.0.1:1234", host=1)
    asked = []

    def initialise(*arguments):
        asked.append(arguments)
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialise)
    assert_refused(initialise_hosts, "coordinator None, hosts 3, host None", "should be defined", "ADOZOO_COORDINATOR")
    monkeypatch.setenv("ADOZOO_COORDINATOR", "first:1234")
    assert_refused(lambda: initialise_hosts(hosts=4, host=2), "first:1234")
    assert asked == [(None, 3, None), ("first:1234", 4, 2)]  # arguments go before the environment


@pytest.mark.slow
def test_two_hosts_keep_checkpoints_of_one_run_together(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": str(ROOT),
        "ADOZOO_COORDINATOR": f"127.0.0.1:{port}",
        "ADOZOO_HOSTS": "2",
    }
    script = Path(__file__).parent / "multi_device" / "hosts.py"
    both = [
        subprocess.Popen(
            [sys.executable, script, str(host), tmp_path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for host in range(2)
    ]
    for host, process in enumerate(both):
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert json.loads(out.splitlines()[-1]) == {
            "found": [host, 2],
            "before": None,
            "step": 3,
            "same": True,
            "key": [0, 3],
            "steps": [2, 3],
        }
    assert len(os.listdir(tmp_path)) == 2
