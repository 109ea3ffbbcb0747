"""Where jobs run: in this process, in processes of this machine, or on as many machines as a dask scheduler knows.

A job leaves its results in a `Store`, which takes each cell once, and nothing comes back but whether it failed. So a
job may be run twice, and a machine may be lost at any time: its jobs are run again elsewhere.

Why dask.distributed: it is maintained and widely used; one interface serves processes of one machine, machines over SSH
(`dask ssh`), and queue systems (dask-jobqueue), each known by its scheduler's address; jobs of a lost worker are given
to others without being asked, and a job that kills its workers is given up after the fourth. Ray would do as much and
needs a cluster of its own; multiprocessing's pools break as a whole when one process dies.

Workers have one thread each, so that jax's CPU client does not use more cores than there are workers. Workers on other
machines are started by the user, with one thread each and the checkout as their folder:

    dask scheduler                                                      # prints its address
    NPROC=1 dask worker tcp://HOST:8786 --nthreads 1 --nworkers 8       # on each machine
"""

import contextlib
import difflib
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

ENGINES = ("here", "processes", "dask")

_ONE_THREAD = {"NPROC": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""For the environment of a worker before it imports jax: XLA's thread pool on CPU has NPROC threads."""

Work = Callable[[Any], None]
Progress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Job:
    """Something to do.

    Attributes:
      name: by which a failure is reported.
      payload: what `work` is called with: plain data, to be sent to other machines.
    """

    name: str
    payload: Any


class Failures(RuntimeError):
    """Some jobs failed, the others are done.

    Attributes:
      errors: what was raised, by the job's name.
    """

    def __init__(self, errors: Mapping[str, BaseException], total: int) -> None:
        told = [f"  {name}: {type(error).__name__}: {error}" for name, error in errors.items()]
        super().__init__("\n".join([f"{len(errors)} of {total} jobs failed, the others are done:", *told]))
        self.errors = dict(errors)


def execute(
    jobs: Sequence[Job],
    work: Work,
    engine: str = "here",
    workers: int = 1,
    address: str | None = None,
    progress: Progress = None,
) -> None:
    """Do all jobs, in any order.

    Args:
      jobs: with distinct names.
      work: a function of a module, called with each job's payload, under this process's `jax_enable_x64`.
      engine: "here", one after the other in this process; "processes", in new processes of this machine; "dask", by the
        scheduler at `address`, or in new processes if there is none.
      workers: how many new processes.
      address: of a dask scheduler, tcp://HOST:PORT.
      progress: called with (how many jobs are done, how many there are) after each.

    Raises:
      Failures: after all jobs are done, if some raised an error, or killed four workers.
      ValueError: for another engine, fewer than one worker, or jobs of one name.
      ImportError: if an engine but "here" is asked for and dask is not installed.
      ConnectionError: if there is no scheduler at the address.

    Example:
      >>> done = []
      >>> execute([Job("one", 1), Job("two", 2)], done.append)
      >>> done
      [1, 2]
      >>> execute([Job("good", "3"), Job("bad", "x")], int)
      Traceback (most recent call last):
      experiments.engine.Failures: 1 of 2 jobs failed, the others are done:
        bad: ValueError: invalid literal for int() with base 10: 'x'
    """
    if engine not in ENGINES:
        near = difflib.get_close_matches(engine, ENGINES, n=1, cutoff=0.0)[0]
        raise ValueError(f"execute: engine must be one of {', '.join(ENGINES)}, got {engine!r}. Did you mean {near}?")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"execute: workers must be an integer >= 1, got {workers!r}. Use the number of cores.")
    if len({job.name for job in jobs}) < len(jobs):
        raise ValueError(
            f"execute: jobs must have distinct names, got {sorted(job.name for job in jobs)}. Number them."
        )
    errors: dict[str, BaseException] = {}
    ended = _here(jobs, work) if engine == "here" else _dask(jobs, work, workers, address if engine == "dask" else None)
    with contextlib.closing(ended):
        for done, (job, error) in enumerate(ended, 1):
            if error is not None:
                errors[job.name] = error
            if progress is not None:
                progress(done, len(jobs))
    if errors:
        raise Failures(errors, len(jobs)) from next(iter(errors.values()))


Ended = Iterator[tuple[Job, BaseException | None]]


def _here(jobs: Sequence[Job], work: Work) -> Any:
    for job in jobs:
        try:
            work(job.payload)
        except Exception as error:
            yield job, error
        else:
            yield job, None


def _run(work: Work, payload: Any, x64: bool) -> None:
    """In a worker: its jax was imported without the configuration of the process that asks.

    And xarray, in a dask worker, would ask the scheduler for a lock for each file; files of a `Store` need none.
    """
    import dask

    with jax.enable_x64(x64), dask.config.set(scheduler="synchronous"):
        work(payload)


def _dask(jobs: Sequence[Job], work: Work, workers: int, address: str | None) -> Any:
    try:
        import dask
        import distributed
    except ImportError as error:
        raise ImportError('jobs in other processes are run by dask: pip install "adozoo[cluster]".') from error
    if not jobs:
        return
    with contextlib.ExitStack() as stack:
        # A worker that compiles for minutes does not answer meanwhile, and is alive all the same.
        stack.enter_context(dask.config.set({"distributed.scheduler.worker-ttl": None}))
        scheduler: Any = address
        if address is None:
            scheduler = distributed.LocalCluster(
                n_workers=min(workers, len(jobs)),
                threads_per_worker=1,
                processes=True,
                memory_limit=0,  # none: what jax holds is not dask's to count
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                env=_ONE_THREAD,
            )
            stack.enter_context(scheduler)
        try:
            client = stack.enter_context(distributed.Client(scheduler, set_as_default=False))
        except OSError as error:
            raise ConnectionError(
                f"no dask scheduler answers at {address}. Start one with `dask scheduler`, or leave out the address."
            ) from error
        x64, token = bool(jax.config.jax_enable_x64), secrets.token_hex(4)  # type: ignore[attr-defined]
        futures = {
            client.submit(_run, work, job.payload, x64, key=f"{job.name} {token}", pure=False): job for job in jobs
        }
        for future in distributed.as_completed(list(futures), loop=client.loop):
            error = future.exception() if future.status == "error" else None
            if future.status not in ("finished", "error"):
                error = RuntimeError(f"{future.status}: the scheduler went away")
            future.release()  # or else it would be done again if the worker that did it is lost
            yield futures.pop(future), error


def initialise_hosts(
    coordinator: str | None = None, hosts: int | None = None, host: int | None = None
) -> tuple[int, int]:
    """Make this process one of several that hold the nodes of one run together, by `jax.distributed.initialize`.

    Called once, before anything is computed. What is not given is taken from the environment (ADOZOO_COORDINATOR,
    ADOZOO_HOSTS, ADOZOO_HOST), and what is not there either is found by jax under SLURM, Open MPI, Kubernetes and
    on TPU pods.

    Args:
      coordinator: HOST:PORT of process 0, free on its machine and reachable from all.
      hosts: how many processes.
      host: number of this one, from 0.

    Returns:
      (number of this process, how many there are).

    Raises:
      ValueError: if what is not given cannot be found, or does not fit.
      RuntimeError: if jax has computed something already, or the processes do not find each other.

    Example:
      >>> initialise_hosts("127.0.0.1:1234", hosts=2, host=2)
      Traceback (most recent call last):
      ValueError: initialise_hosts: host must lie in 0..1, got 2. The first process is number 0.
    """
    coordinator = coordinator or os.environ.get("ADOZOO_COORDINATOR")
    hosts = _number("hosts", hosts, "ADOZOO_HOSTS")
    host = _number("host", host, "ADOZOO_HOST")
    if hosts is not None and hosts < 1:
        raise ValueError(f"initialise_hosts: hosts must be >= 1, got {hosts}. Pass the number of processes.")
    if host is not None and hosts is not None and not 0 <= host < hosts:
        raise ValueError(
            f"initialise_hosts: host must lie in 0..{hosts - 1}, got {host}. The first process is number 0."
        )
    try:
        jax.distributed.initialize(coordinator, hosts, host)
    except ValueError as error:
        raise ValueError(
            f"initialise_hosts: got coordinator {coordinator}, hosts {hosts}, host {host}, and the rest cannot be "
            f"found ({error}). Give all three, or set ADOZOO_COORDINATOR, ADOZOO_HOSTS and ADOZOO_HOST."
        ) from error
    return jax.process_index(), jax.process_count()


def _number(name: str, given: int | None, variable: str) -> int | None:
    text = os.environ.get(variable) if given is None else str(given)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"initialise_hosts: {name} must be an integer, got {text!r}. See {variable}.") from None
