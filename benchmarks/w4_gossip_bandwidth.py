"""W4: gossip of a million parameters a node, as a whole optax step in a scan: nothing but memory traffic."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import adozoo
from benchmarks.report import Result
from benchmarks.timing import Spread, cold, take_turns

X64 = False
DIM = 1_000_000
STEPS = {16: 40, 64: 20}
MOST = {16: 2.2, 64: 2.6}


def program(n: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """x <- x + tx.update(x): D-SGD (ATC) with the gradient of ||x||^2 / 2, which reads x and nothing else."""
    mix = adozoo.mixing(adozoo.graphs.ring(n))

    @jax.jit
    def dsgd(x: Any, learning_rate: Any) -> Any:
        tx = adozoo.dsgd(learning_rate, mix)
        return adozoo.simulate(tx, lambda x, step, key: x, x, STEPS[n])[0]

    return dsgd, (_start(n), jnp.float32(1e-3))


def _start(n: int) -> Any:
    return jax.random.normal(jax.random.key(0), (n, DIM))


def _scan(step: Callable[[Any], Any], steps: int) -> Callable[[Any], Any]:
    return jax.jit(lambda x: jax.lax.scan(lambda x, _: (step(x), None), x, None, length=steps)[0])


def run(quick: bool) -> Result:
    result = Result(
        f"W4: gossip at d = {DIM:.0e}",
        "One step of `adozoo.dsgd` (ATC, a whole optax step) on a ring, in `adozoo.simulate`'s scan, "
        "with gradient(x) = x, so that x is all there is to read; float32; the time of a call divided by its steps "
        f"({', '.join(f'{steps} at n = {n}' for n, steps in STEPS.items())}). The floor is np.copyto of x into memory "
        "that is there already: one read, one write.",
    )
    for n in (16,) if quick else (16, 64):
        function, (x, rate) = program(n)
        mix = adozoo.mixing(adozoo.graphs.ring(n))
        matrix, source = np.asarray(mix.matrix, np.float32), np.array(x)
        target, steps = np.empty_like(source), STEPS[n]
        alone, scaled = _scan(mix, steps), _scan(lambda x: rate * x, steps)  # noqa: B023, called within this pass
        contenders = {  # name -> (a call, the steps in it)
            "np.copyto": (lambda: np.copyto(target, source), 1),  # noqa: B023
            "adozoo, optax step": (lambda: jax.block_until_ready(function(x, rate)), steps),  # noqa: B023
            "adozoo, mixing alone": (lambda: jax.block_until_ready(alone(x)), steps),  # noqa: B023
            "jax, x <- c x in a scan": (lambda: jax.block_until_ready(scaled(x)), steps),  # noqa: B023
            "numpy, sgemm with W": (lambda: np.matmul(matrix, source, out=target), 1),  # noqa: B023
        }
        taken = take_turns({who: call for who, (call, _) in contenders.items()}, 3 if quick else 7)
        times = {who: Spread.of(seconds, 1 / contenders[who][1]) for who, seconds in taken.items()}
        floor = times["np.copyto"].median
        first = cold("w4_gossip_bandwidth", 1, n=n)
        for who, spread in times.items():
            rate_moved = 2 * source.nbytes / spread.median / 1e9
            more = {"times the copy": spread.median / floor, "GB/s of one read, one write": rate_moved}
            result.row(f"n = {n}", who, spread, first if who == "adozoo, optax step" else None, **more)
        ratio = times["adozoo, optax step"].median / floor
        result.target(f"n = {n}: an optax step in a scan against the copy", ratio, most=MOST[n])
    result.notes.append(NOTE)
    return result


NOTE = """\
What stands between the step and the copy. Seen in the compiled program: the whole step (gradient, descent, three rolls,
x + (W y - x)) is one fused loop and one copy. The loop reads each row three times, for itself and its neighbours, and
cannot write to where it reads, so the scan, whose carry must end where it began, copies the result back: four reads and
two writes against one and one. A step that needs no neighbours (x <- c x) has no such copy. Inferred, not measured with
counters: how many of the three reads the caches serve, at 4 MB a row, and what ordinary stores cost over the copy's.
np.copyto runs on one core, XLA's loop on all. Two steps unrolled into one loop body would save half the copies, but XLA
fuses them and computes neighbours of neighbours again, which was 1.6 to 2 times slower."""
