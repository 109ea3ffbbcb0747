r"""What a run of a method shows, and what its linearisation says of that very run.

`predict` reads rate and limit off the implementation, `observe` runs it and fits the rate of its errors, the distances
sqrt((1/n) \sum_i ||x_i - z_i||^2) to the method's own limit z (to the optimum, where there is no limit).
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int, PyTree

import adozoo
from theory.linear import DRIFT, LARGE, Linearization, exact_rate, linearize_steps
from theory.matrix_free import fixed_point
from theory.mean_square import MeanSquareRate, mean_square_rate
from theory.measure import FittedRate, fit_rate
from theory.step_map import StepMap

DIGITS = 20.0
"""Runs are long enough for errors to shrink by this many digits, had they not reached the rounding floor before."""
GROWTH = 30.0
"""Runs that diverge are stopped when errors have grown by this many digits."""
SHORTEST, LONGEST = 64, 50_000
"""The fewest and the most steps that are chosen automatically (periods, where a schedule repeats)."""
BLIND = 2000
"""Steps of a run of which theory says no rate."""
FLOOR = 1e6
"""Errors within this factor of the rounding floor are not fitted: there they are right to a millionth."""
RUNS = 64
"""How many runs under a random mixing are averaged."""
SAME_POINT = 1e-7
"""Params closer than this, relative to one plus their size, are the same point."""
NO_POINT = 1e-6
"""A defect of the fixed point above this, relative to it, says that there is none."""


@dataclass(frozen=True)
class Prediction:
    """What is read off the implementation before it runs.

    Attributes:
      rate: the exact rate; NaN where there is none.
      limit: where the method converges to, stacked params; None where there is no such point.
      fixed_point: the same with the state, as one vector.
      drift: by how much a period moves what the method should conserve; 0 for a sound method.
      linear: the linearisation, where a dense one fits.
      mean_square: for random mixings, whose `rate` is that of the root mean squared error.
      reason: why something is missing, in words.
    """

    rate: float
    limit: PyTree | None = None
    fixed_point: Float[np.ndarray, " N"] | None = None
    drift: float = 0.0
    linear: Linearization | None = field(default=None, repr=False)
    mean_square: MeanSquareRate | None = field(default=None, repr=False)
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Observation:
    """A measured run.

    Attributes:
      steps: after how many steps the records were taken, [t].
      errors: the distance to the limit, [t]; under a random mixing the root mean square over `RUNS` runs.
      distances: the distance to the optimum, [t].
      fit: the rate fitted to `errors`.
      window_rate: what the linearisation says of the fitted window of this run, NaN where it cannot be followed. It
        differs from the exact rate where the slowest mode does not rule the window alone.
      affine: whether the steps are affine, so that the linearisation holds far from the limit, too.
      settled: under a random mixing, the mean squared error of the last third of the run, and its standard error.
    """

    steps: Int[np.ndarray, " t"]
    errors: Float[np.ndarray, " t"]
    distances: Float[np.ndarray, " t"]
    fit: FittedRate
    window_rate: float
    affine: bool = True
    settled: tuple[float, float] = (np.nan, np.nan)


def distance(params: PyTree, target: PyTree) -> float:
    r"""sqrt((1/n) \sum_i ||x_i - y_i||^2) between stacked params.

    Args:
      params: x, leaves [n, ...].
      target: y, leaves [n, ...].

    Example:
      >>> theory.observation.distance(np.array([[3.0], [0.0]]), np.array([[0.0], [1.0]]))
      2.23606797749979
    """
    n = adozoo.nodes.node_count(params)
    return float(jnp.linalg.norm(ravel_pytree(params)[0] - ravel_pytree(target)[0]) / np.sqrt(n))


def norm(params: PyTree) -> float:
    r"""sqrt((1/n) \sum_i ||x_i||^2) of stacked params.

    Example:
      >>> theory.observation.norm(np.array([[3.0], [1.0]]))
      2.23606797749979
    """
    return distance(params, jax.tree.map(np.zeros_like, params))


def generic_start(problem: Any, equal: bool, seed: int = 0) -> PyTree:
    """Random stacked params that excite all modes, as far from the optimum as zero is (or 1, where zero is optimal).

    Args:
      problem: a problem of `adozoo.problems`.
      equal: whether all nodes start at one point. Else modes in which nodes disagree are excited at once, and also
        where nodes have nothing to disagree about.
      seed: seed of the draw.

    Example:
      >>> problem = adozoo.problems.random_quadratic(3, 2)
      >>> theory.observation.generic_start(problem, equal=True).shape
      (3, 2)
    """
    flat, unravel = ravel_pytree(problem.optimum)
    optimum = np.asarray(flat)
    draw = np.random.default_rng(seed).normal(size=(1 if equal else problem.n, optimum.size))
    draw *= (float(np.linalg.norm(optimum)) or 1.0) / np.sqrt(np.mean(np.sum(draw**2, axis=1)))
    return jax.vmap(unravel)(jnp.asarray(np.broadcast_to(optimum + draw, (problem.n, optimum.size))))


def place(steps: StepMap, equal: bool | None = None, seed: int = 0) -> tuple[PyTree, Prediction]:
    """Choose the start, and predict the run from there; inside `jax.enable_x64(True)`.

    Nodes start apart, unless what the method conserves depends on where they start (as the differences between nodes do
    under an exact average of gradients): then its limit would, too. Where no dense linearisation fits, nobody looks.

    Args:
      steps: the step map, whose start is set.
      equal: whether all nodes start at one point; None: decide.
      seed: seed of the start.

    Returns:
      The start's params, and the prediction.
    """
    params = generic_start(steps.problem, bool(equal), seed)
    neutral = steps.start
    steps.start = steps.begin(ravel_pytree(params)[0])
    found = predict(steps)
    if equal is None and found.linear is not None:
        moved = np.asarray(steps.start - neutral)
        basis = found.linear.basis
        if np.linalg.norm(moved - basis @ (basis.T @ moved)) > DRIFT * np.linalg.norm(moved):
            steps.start = neutral
            return place(steps, True, seed)
    return params, found


def predict(steps: StepMap) -> Prediction:
    """Rate and limit from `steps.start`, read off the implementation; inside `jax.enable_x64(True)`."""
    try:
        if is_random(steps.mix):
            found = mean_square_rate(steps.factory, steps.problem, steps.mix)
            return Prediction(found.rate, found.params, mean_square=found)
        if steps.size <= LARGE:
            linear = linearize_steps(steps)
            z, residual, drift, rate = linear.fixed_point, linear.residual, linear.drift, linear.rate
            params, drifts = linear.params, linear.drifts
        else:
            linear, rate = None, exact_rate(steps.factory, steps.problem, steps.mix)
            z, residual = fixed_point(steps)
            drifts = residual > NO_POINT * (1 + np.linalg.norm(z))
            params, drift = steps.answer(z), residual
    except ValueError as error:  # and LinAlgError, which is one
        return Prediction(np.nan, reason=str(error))
    if drifts:
        return Prediction(rate, None, None, drift, linear, reason="a quantity that the method should conserve drifts")
    if not residual <= NO_POINT * (1 + np.linalg.norm(z)):
        return Prediction(np.nan, reason="Newton's method found no fixed point to linearise at")
    return Prediction(rate, params, z, 0.0, linear)


def needed(rate: float, period: int = 1) -> int:
    """How many steps show a rate: past burn-in, down to the rounding floor (or up, for a run that diverges).

    Args:
      rate: the exact rate; NaN if it is not known.
      period: the result is a multiple of it.

    Example:
      >>> theory.observation.needed(0.9), theory.observation.needed(0.9999)
      (438, 50000)
    """
    shortest, longest = SHORTEST * period, LONGEST * period
    if np.isnan(rate):
        count = BLIND
    elif rate <= 0:
        count = shortest
    else:
        exponent = abs(np.log(rate))
        digits = DIGITS if rate < 1 else GROWTH
        count = digits * np.log(10) / exponent if exponent > 1e-12 else BLIND
    return int(np.ceil(np.clip(count, shortest, longest) / period)) * period


def observe(steps: StepMap, start: PyTree, found: Prediction, count: int | None = None) -> Observation:
    """Run the method with `adozoo.simulate` and fit its rate; inside `jax.enable_x64(True)`.

    Args:
      steps: the step map that `found` was read from.
      start: stacked params to start from.
      found: the prediction.
      count: how many steps; chosen by the rate if None.
    """
    period = 1 if np.isnan(found.rate) or found.mean_square is not None else steps.period
    count = needed(found.rate, period) if count is None else max(count // period, 1) * period
    optimum = ravel_pytree(adozoo.replicate(steps.problem.optimum, steps.problem.n))[0]
    targets = [optimum if found.limit is None else ravel_pytree(found.limit)[0], optimum]
    scale = np.sqrt(steps.problem.n)

    def metric(params: PyTree) -> Any:
        point = ravel_pytree(params)[0]
        return jnp.stack([jnp.linalg.norm(point - target) for target in targets]) / scale

    def run(mix: Any) -> Any:
        tx = steps.build(mix)
        return adozoo.simulate(tx, gradient(steps), start, count, metrics=metric, every=period)[2]

    if found.mean_square is None and not is_random(steps.mix):
        # The mixing is a constant, no argument: methods on links must know its graph.
        errors, distances = np.asarray(jax.jit(lambda: run(steps.mix))()).T
        settled = (np.nan, np.nan)
    else:
        squares = np.asarray(jax.jit(jax.vmap(lambda key: run(_drawn_anew(steps.mix, key))))(jnp.arange(RUNS))) ** 2
        errors, distances = np.sqrt(squares.mean(axis=0)).T
        late = squares[:, -max(count // 3, 1) :, 0].mean(axis=1)
        settled = float(late.mean()), float(late.std(ddof=1) / np.sqrt(RUNS))
    fit = fit_rate(errors, every=period, floor=FLOOR)
    window, affine = (np.nan, True) if found.fixed_point is None else follow(steps, start, found, fit)
    return Observation(period * np.arange(1, len(errors) + 1), errors, distances, fit, window, affine, settled)


def is_random(mix: adozoo.Mixing) -> bool:
    """Whether a mixing draws its weights anew in each step.

    Example:
      >>> theory.observation.is_random(adozoo.exact_mean(3))
      False
    """
    return mix.varying and getattr(mix, "period", None) is None


def _drawn_anew(mix: adozoo.Mixing, number: Any) -> adozoo.Mixing:
    """The same random mixing with other keys."""

    def other(leaf: Any) -> Any:
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.fold_in(leaf, number)
        return leaf

    return jax.tree.map(other, mix)


def gradient(steps: StepMap) -> Any:
    """The exact gradient of the step map's problem, as `adozoo.simulate` wants it."""
    return lambda params, step, key: steps.problem.gradient(params, 0, None)


def follow(steps: StepMap, start: PyTree, found: Prediction, fit: FittedRate) -> tuple[float, bool]:
    """The rate of errors over a fitted window if they move as the linearisation says, and whether steps are affine.

    An affine method is followed from its start, another one from half way to the window, where it is close to its limit
    and moves as its linearisation does. NaN for an empty window, and where a method that is not affine runs away from
    its fixed point. Inside `jax.enable_x64(True)`.
    """
    counts, z_star = steps.counts(steps.period), jnp.asarray(found.fixed_point)

    def move(error: Any) -> tuple[Any, Any]:
        z = z_star
        for now in counts:
            z, error = jax.jvp(lambda z, now=now: steps.step(z, now)[0], (z,), (error,))
        return error, jnp.linalg.norm(jax.jvp(lambda z: ravel_pytree(steps.answer(z))[0], (z_star,), (error,))[1])

    step = jax.jit(move)
    away = steps.generic(2)
    moved, linear = steps.advance(z_star + away) - steps.advance(z_star), np.asarray(step(away)[0])
    affine = bool(np.linalg.norm(moved - linear) <= 1e-9 * np.linalg.norm(moved))
    first, last = fit.start // steps.period, fit.stop // steps.period
    if last - first < 2 or np.isnan(fit.rate) or not (affine or found.rate < 1):
        return np.nan, affine
    skipped = 0 if affine else first // 2
    z = steps.begin(ravel_pytree(start)[0])
    if skipped:
        run = jax.jit(lambda x: adozoo.simulate(steps.tx, gradient(steps), x, skipped * steps.period)[:2])
        z = ravel_pytree(steps.split(jax.tree.leaves(run(start)))[0])[0]
    error, sizes = z - z_star, []
    for _ in range(skipped, last):
        error, size = step(error)
        sizes.append(size)
    with np.errstate(divide="ignore"):
        logs = np.log(np.array(sizes[first - skipped :]))  # record k is taken after k + 1 periods
    if not np.isfinite(logs).all():
        return np.nan, affine
    return float(np.exp(np.polyfit(np.arange(len(logs)), logs, 1)[0] / steps.period)), affine
