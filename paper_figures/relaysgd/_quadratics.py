r"""Random least squares of the RelaySGD paper's appendix B.4, and its two searches for the best learning rate.

f(x) = (1/n) \sum_i ||A_i x - b_i||^2, and node i's "gradient" is A_i'(A_i x - b_i), half of the true one, as in the
paper's code. The singular values of each A_i go from mu to 1 in equal steps, so that the Hessian's eigenvalues are
twice their squares. zeta^2 = (1/n) \sum_i ||A_i'(A_i x* - b_i)||^2.

The searches see a run at about 1000 steps, equally spaced on a logarithmic scale, and stop it when it diverges (an
error above the first), rises while above the target, settles, or takes ten times as long as the best run so far. All
problems of a stack are searched at the same time, each with a learning rate of its own, in one compiled program.
"""

import functools
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

import adozoo
from experiments import figures

DIM = 10
SMALLEST = 0.5
"""mu, the smallest singular value: the Hessian's smallest eigenvalue is 2 mu^2."""
CHECKS = 1000
Method = Callable[[Any], optax.GradientTransformationExtraArgs]
Problem = adozoo.problems.Quadratic
Stack = tuple[Array, ...]


def least_squares(A: Any, b: Any) -> Problem:
    """The problem with matrices A [n, d, d] and targets b [n, d]; its loss is half of the paper's f."""
    A, b = np.asarray(A, np.float64), np.asarray(b, np.float64)
    curvatures = np.einsum("nji,njk->nik", A, A)
    symmetric = (curvatures + curvatures.transpose(0, 2, 1)) / 2
    return adozoo.problems.quadratic(symmetric, np.linalg.solve(A, b[..., None])[..., 0])


def common_optimum(A: np.ndarray, centers: np.ndarray) -> Float[np.ndarray, " d"]:
    """Where the sum of ||A_i (x - c_i)||^2 is smallest."""
    return np.linalg.solve(np.einsum("nji,njk->ik", A, A), np.einsum("nji,njk,nk->i", A, A, centers))


def random_least_squares(n: int, zeta2: float, distance: float, seed: int) -> Problem:
    """One draw: zeta^2 is hit exactly, and the optimum lies at `distance` from 0, where all nodes start."""
    rng = np.random.default_rng((seed, n))
    left, _, right = np.linalg.svd(rng.normal(size=(n, DIM, DIM)))
    A = np.einsum("nij,j,njk->nik", left, np.linspace(SMALLEST, 1, DIM), right)
    centers = rng.normal(size=(n, DIM))  # the nodes' own optima, moved so that the common one is 0
    centers -= common_optimum(A, centers)
    pulls = np.einsum("nji,njk,nk->ni", A, A, centers)
    centers *= np.sqrt(zeta2 / np.mean(np.sum(pulls**2, axis=1)))
    direction = rng.normal(size=DIM)
    optimum = distance * direction / np.linalg.norm(direction)
    return least_squares(A, np.einsum("nij,nj->ni", A, centers + optimum))


@functools.cache
def published() -> dict[str, Any]:
    """What the paper's authors printed, and problems that they drew."""
    return json.loads((figures.ROOT / "tests/reference/relay_figure_2.json").read_text(encoding="utf-8"))


def papers_problem(n: int, zeta2: float, distance: float) -> Problem:
    """The problem that the paper's code draws from seed 0, for n = 4, 6, 12 or 32."""
    drawn = {name: np.array(value) for name, value in published()["instances"][str(n)].items() if name != "scale"}
    scale = published()["instances"][str(n)]["scale"][f"{zeta2:g}"]
    A, centers = drawn["A"], drawn["centers"]
    centers = scale * (centers - common_optimum(A, centers)) + distance * drawn["direction"]
    return least_squares(A, np.einsum("nij,nj->ni", A, centers))


def stack(problems: Sequence[Problem]) -> Stack:
    """Matrices, minimisers and optima of problems of one shape, with a leading axis over problems."""
    return tuple(map(jnp.stack, zip(*((p.matrices, p.centers, p.optimum) for p in problems), strict=True)))


def _unstacked(matrices: Array, centers: Array, optimum: Array) -> Problem:
    """One problem of a stack, inside `vmap`."""
    n, dim = centers.shape
    return Problem(matrices, centers, optimum, jnp.zeros(()), n, dim, (SMALLEST**2, 1.0))


def suboptimality(problem: Problem, params: Float[Array, "n d"]) -> Float[Array, ""]:
    """f(mean of the nodes) - f(x*) with the paper's f, as a quadratic form: nothing cancels."""
    offset = jnp.mean(params, axis=0) - problem.optimum
    return offset @ jnp.mean(problem.matrices, axis=0) @ offset


def check_steps(max_steps: int) -> Int[np.ndarray, " checks"]:
    """The steps at which the searches look at a run."""
    return np.unique(np.round(np.logspace(0, np.log2(max_steps), CHECKS, base=2)).astype(np.int32))[:-1]


OUT_OF_STEPS, REACHED, SLOW, UNSTABLE, SETTLED = range(5)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: why (one of the five above), after how many steps, and at which error."""

    end: int
    step: int
    error: float


@functools.partial(jax.jit, static_argnames=("method", "first"))
def _run(
    problems: Stack,
    rates: Array,
    limits: Array,
    checks: Array,
    target: Any,
    tolerance: Any,
    method: Method,
    first: bool,
) -> tuple[Array, Array, Array]:
    """Run all problems until each has ended; ends, steps and errors [lanes]. `first`: end once below the target."""

    def step(problem: Stack, rate: Array, x: Array, state: Any) -> tuple[Array, Any]:
        updates, state = method(rate).update(_unstacked(*problem).gradient(x), state, x)
        return optax.apply_updates(x, updates), state  # type: ignore[return-value]

    def advance(_: Any, carry: tuple[Array, Any]) -> tuple[Array, Any]:
        return jax.vmap(step)(problems, rates, *carry)

    def unfinished(carry: tuple[Any, ...]) -> Array:
        check, ends = carry[0], carry[3]
        return (check < checks.size) & jnp.any(ends == OUT_OF_STEPS)

    def look(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        check, params, (initial, before, last), ends, steps, errors = carry
        now = checks[check]
        past = jnp.where(check > 0, checks[check - 1], 0)
        params = jax.lax.fori_loop(0, now - past, advance, params)
        error = jax.vmap(lambda problem, x: suboptimality(_unstacked(*problem), x))(problems, params[0])
        initial = jnp.where(check == 0, error, initial)
        three = jnp.stack([before, last, error])
        level = jnp.mean(three, axis=0)
        settled = (check >= 2) & jnp.all(jnp.abs(three - level[None]) < tolerance, axis=0)
        rising = (check >= 1) & (error > last) & (error > target)
        end = jnp.where(settled, SETTLED, OUT_OF_STEPS)
        end = jnp.where(jnp.isnan(error) | (error > initial) | rising, UNSTABLE, end)
        end = jnp.where(now > limits, SLOW, end)
        if first:
            end = jnp.where(error < target, REACHED, end)
        ending = (ends == OUT_OF_STEPS) & (end != OUT_OF_STEPS)
        ends = jnp.where(ending, end, ends)
        steps = jnp.where(ending, now, steps)
        errors = jnp.where(ending, jnp.where(end == SETTLED, level, error), errors)
        return check + 1, params, (initial, last, error), ends, steps, errors

    lanes = rates.shape[0]
    x = jnp.zeros_like(problems[1])
    params = (x, jax.vmap(lambda x, rate: method(rate).init(x))(x, rates))
    zeros, none = jnp.zeros(lanes), jnp.zeros(lanes, jnp.int32)
    carry = jax.lax.while_loop(unfinished, look, (0, params, (zeros, zeros, zeros), none, none, zeros))
    return tuple(carry[3:])  # type: ignore[return-value]


Search = Generator[tuple[float, float], Outcome, tuple[float, float]]
"""Asks for runs (learning rate, longest time worth waiting), is told how each ended, returns (steps, learning rate)."""


def fastest(start: float) -> Search:
    """Reach the target as soon as possible, by halving and then bisection: `tune_fastest` of the paper's code.

    That code notes half of the best learning rate; this is the learning rate with which the steps were taken.
    """
    low, high, rate = None, 2 * start, 2 * start
    best_steps = best_rate = np.inf
    for _ in range(30):
        if low is not None:
            if high - low <= 1e-4:
                break
            rate = (low + high) / 2
        outcome = yield rate, 10 * best_steps
        if outcome.end == REACHED and outcome.step < best_steps:
            best_steps, best_rate = outcome.step, rate
            rate /= 2
        elif outcome.end == REACHED:
            low, high = min(rate, high), min(4 * rate, high)
        elif outcome.end in (UNSTABLE, SETTLED):
            high = rate if low is None else max(low, rate)
            rate /= 2
        else:
            low = min(rate, high)
    return best_steps, best_rate


def plateau(start: float, target: float) -> Search:
    """Settle within 10 % below the target, by bisection: `tune_plateau` of the paper's code."""
    low, high = None, 2 * start
    best_steps = best_rate = np.inf
    for _ in range(30):
        if low is not None and high - low <= 1e-6:
            break
        rate = high / 2 if low is None else (low + high) / 2
        outcome = yield rate, 10 * best_steps
        if outcome.end == SETTLED and outcome.error < target:
            if outcome.step < best_steps:
                best_steps, best_rate = outcome.step, rate
            if outcome.error > target / 1.1:
                break
        if outcome.end == UNSTABLE or (outcome.end == SETTLED and outcome.error > target):
            high = rate if low is None else max(low, rate)
        else:
            low = min(rate, high)
    return best_steps, best_rate


def tune(
    method: Method,
    problems: Stack,
    exact: bool = True,
    start: float = 10.0,
    max_steps: int = 20_000,
    target: float = 1e-6,
) -> tuple[Float[np.ndarray, " lanes"], Float[np.ndarray, " lanes"]]:
    """Steps to the target and the learning rate that takes them, for each problem of the stack; inf where none does.

    Args:
      method: learning rate -> transformation; the same function is compiled once.
      problems: a stack of them.
      exact: whether the method converges to the optimum (`fastest`), or to a plateau (`plateau`).
      start: the learning rate from which the search goes down.
      max_steps: how long a run may take.
      target: the suboptimality to reach.
    """
    lanes = len(problems[0])
    searches: list[Search] = [fastest(start) if exact else plateau(start, target) for _ in range(lanes)]
    asked = [next(search) for search in searches]
    found: list[tuple[float, float] | None] = [None] * lanes
    tolerance, checks = target / (10 if exact else 100), jnp.asarray(check_steps(max_steps))
    while None in found:
        rates, limits = np.array(asked).T
        limits = np.where([answer is None for answer in found], limits, -1)  # searches that are done wait for no run
        runs = _run(problems, rates, limits, checks, target, tolerance, method=method, first=exact)
        for lane, run in enumerate(zip(*map(np.asarray, runs), strict=True)):
            if found[lane] is None:
                try:
                    asked[lane] = searches[lane].send(Outcome(*run))
                except StopIteration as answer:
                    found[lane] = answer.value
    best = np.array(found)
    return best[:, 0], best[:, 1]


def curve(
    method: Method, problem: Problem, rate: float, steps: int, noise: Float[Array, "steps n d"] | None = None
) -> Float[Array, " times"]:
    """Suboptimality at the start and after each step of one run, with this noise on the gradients."""

    def gradient(params: Array, step: Any, key: Any) -> Array:
        del key
        return problem.gradient(params) + (0 if noise is None else noise[step])

    x, metrics = problem.init(), {"error": functools.partial(suboptimality, problem)}
    trace = adozoo.simulate(method(rate), gradient, x, steps, metrics=metrics)[2]
    return jnp.concatenate([suboptimality(problem, x)[None], trace["error"]])
