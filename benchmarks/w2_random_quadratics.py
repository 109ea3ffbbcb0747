"""W2: D-SGD on isotropic random quadratics, float32: so little arithmetic that random numbers decide."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import adozoo
from benchmarks.report import Result
from benchmarks.timing import Spread, cold, take_turns

X64 = False
N, DIM, STEPS, SEEDS = 32, 10, 10_000, 8
BLOCK = 100  # steps whose noise is drawn at once, by all contenders
SIZE = "log10 of the squared norm"
NUMPY_SWEEP_STEPS = 500  # of STEPS equal ones are timed
# Small enough that x stays a normal number for 10 000 steps: denormals would slow numpy down, and XLA flushes them.
RATES = np.geomspace(1e-4, 4e-3, 32).astype(np.float32)


def program(sweep: bool) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """One run, or all step sizes and seeds; lanes that share a seed share its noise."""
    mix = adozoo.mixing(adozoo.graphs.ring(N))
    if sweep:
        # Of JAX's generators the one that is fast on CPU; numpy draws by its own default, which is fast as well.
        return jax.jit(partial(lanes, mix)), (jnp.asarray(RATES), jax.random.key(0, impl="rbg"))
    problem = adozoo.problems.isotropic_quadratic(N, DIM)

    def one(learning_rate: Any, key: Any) -> Any:
        tx = adozoo.dsgd(learning_rate, mix)
        start = jnp.ones((N, DIM))
        gradient = lambda x, step, directions: problem.gradient_of(x, directions)  # noqa: E731
        return adozoo.simulate(tx, gradient, start, STEPS, key, sample=problem.sample, block=BLOCK)[0]

    return jax.jit(one), (jnp.asarray(RATES[16]), jax.random.key(0))


def lanes(mix: adozoo.Mixing, learning_rates: Any, key: Any) -> Any:
    """All runs side by side in the trailing axes, [n, d, seeds, rates].

    Beyond the node axis a step works on each number by itself, so that lanes need no vmap; last, they are contiguous.
    """

    def sample(key: Any) -> Any:
        return jax.random.normal(key, (N, DIM, SEEDS, 1))

    def gradient(x: Any, step: Any, directions: Any) -> Any:
        along = jnp.sum(directions * x, axis=1, keepdims=True)
        return directions * jax.lax.optimization_barrier(along)  # else fused, and summed again for every coordinate

    tx = adozoo.dsgd(learning_rates, mix)
    start = jnp.ones((N, DIM, SEEDS, learning_rates.size))
    x = adozoo.simulate(tx, gradient, start, STEPS, key, sample=sample, block=BLOCK)[0]
    return x.transpose(2, 3, 0, 1)


def in_numpy(rates: np.ndarray, seeds: int, steps: int) -> np.ndarray:
    """All runs as one array program on [seed, rate, n, d]."""
    rng = np.random.default_rng(0)
    x = np.ones((seeds, len(rates), N, DIM), np.float32)
    noise = np.empty((BLOCK, seeds, 1, N, DIM), np.float32)
    for step in range(steps):
        if step % BLOCK == 0:
            rng.standard_normal(dtype=np.float32, out=noise)
        directions = noise[step % BLOCK]
        along = rates[:, None] * np.einsum("slnd,smnd->sln", x, directions)
        x -= along[..., None] * directions
        x = (x + np.roll(x, 1, axis=2) + np.roll(x, -1, axis=2)) * np.float32(1 / 3)
    return x


def in_tuned_numpy(rates: np.ndarray, seeds: int, steps: int) -> np.ndarray:
    """The same on [n, d, seed, rate]: the long axes last, nothing allocated in the loop, neighbours that are slices."""
    shape = (N, DIM, seeds, len(rates))
    rng = np.random.default_rng(0)
    padded = np.ones((N + 2, *shape[1:]), np.float32)  # the ring's ends are repeated
    x, left, right = padded[1:-1], padded[:-2], padded[2:]
    noise = np.empty((BLOCK, N, DIM, seeds, 1), np.float32)
    product, mixed, along = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty((N, 1, *shape[2:]), "f4")
    for step in range(steps):
        if step % BLOCK == 0:
            rng.standard_normal(dtype=np.float32, out=noise)
        directions = noise[step % BLOCK]
        np.multiply(directions, x, out=product)
        np.sum(product, axis=1, keepdims=True, out=along)
        np.multiply(along, rates, out=along)
        np.multiply(directions, along, out=product)
        np.subtract(x, product, out=x)
        padded[0], padded[-1] = padded[-2], padded[1]
        np.add(left, right, out=mixed)
        np.add(mixed, x, out=mixed)
        np.multiply(mixed, np.float32(1 / 3), out=x)
    return x.transpose(2, 3, 0, 1).copy()


def run(quick: bool) -> Result:
    runs = f"{len(RATES)} step sizes x {SEEDS} seeds"
    result = Result(
        "W2: D-SGD on random quadratics",
        f"`adozoo.dsgd` with gradients d d'x, d ~ N(0, I), on a ring of n = {N}, d = {DIM}, {STEPS} steps, float32, "
        f"noise drawn for {BLOCK} steps at once. In the sweep ({runs}) all draw the noise once a seed and share it "
        f"between step sizes; numpy's is extrapolated from {NUMPY_SWEEP_STEPS} steps. The noise differs between "
        "programs, so that they agree in distribution only: see the mean of log10 of the squared norm at the end.",
    )
    for sweep in (False, True):
        case = runs if sweep else "one run"
        function, arguments = program(sweep)
        rates, seeds, steps = (RATES, SEEDS, NUMPY_SWEEP_STEPS) if sweep else (RATES[16:17], 1, STEPS)
        contenders = {
            "adozoo": lambda: jax.block_until_ready(function(*arguments)),  # noqa: B023, called within this pass
            "numpy, [runs, n, d]": partial(in_numpy, rates, seeds, steps),
            "numpy, tuned by hand, [n, d, runs]": partial(in_tuned_numpy, rates, seeds, steps),
        }
        taken = take_turns(contenders, 1 if quick else 3 if sweep else 11)
        own = Spread.of(taken.pop("adozoo"))
        first = cold("w2_random_quadratics", 1 if quick or sweep else 3, sweep=sweep)
        result.row(case, "adozoo", own, first, **{SIZE: _size(function(*arguments))})
        for who, seconds in taken.items():
            spread = Spread.of(seconds, STEPS / steps)
            speed = spread.median / own.median
            ratio = {"times adozoo, warm": speed, "times adozoo, cold": spread.median / first.total}
            result.row(case, who, spread, **ratio, **({} if sweep else {SIZE: _size(contenders[who]())}))
            if sweep:
                result.target(f"{case}: against {who}, warm", speed, least=3)
    return result


def _size(x: Any) -> float:
    return float(np.mean(np.log10(np.sum(np.asarray(x, float) ** 2, axis=(-2, -1)))))
