r"""Exact linear rates, read off the implemented transformation.

Flatten everything that changes in a step into one vector z = (params, floating-point state). On a quadratic problem
the whole step is an affine map z <- T z + c, and `jax` reads T off the code that runs; on any other problem T is the
Jacobian at the fixed point. First differences obey e_{k+1} = T e_k with e_0 in range(T - I), so the asymptotic rate is
the spectral radius of T on that subspace. The rest of the space is spanned by conserved quantities (left null vectors
of T - I, such as the sum over nodes of EXTRA's correction): they stay as `init` set them and do not count.

Everything is computed in float64, whatever the caller's default is. Reference for the approach: the linear part is the
classical analysis of affine iterations; the split by range(T - I) is ours and checked against simulated runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg
import scipy.sparse.linalg
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, PyTree

import adozoo

RANK_TOLERANCE = 1e-10
"""Singular directions of T - I below this, relative to the largest one, count as conserved."""
DENSE_LIMIT = 250
"""Up to this many dimensions all eigenvalues are computed; beyond, only the largest ones, by Arnoldi's method."""
SQUARINGS = 8
"""Arnoldi's method is applied to the 2^SQUARINGS-th power."""
LONGEST_PERIOD = 64
"""Schedules that repeat after more steps than this are refused."""

Factory = Callable[[adozoo.Mixing], optax.GradientTransformation]


@dataclass(frozen=True)
class Linearization:
    r"""One period of a method near its fixed point: z <- z* + T (z - z*).

    Attributes:
      matrix: T, [N, N], for a whole period of steps.
      basis: an orthonormal basis V of range(T - I), [N, N - m], with m conserved quantities.
      period: how many steps T stands for.
      fixed_point: z*, [N].
      residual: ||F(z*) - z*||, the defect of the fixed point; large where none exists (drift of a conserved quantity).
      params: the fixed point's evaluated params, stacked [n, ...].
    """

    matrix: Float[np.ndarray, "N N"]
    basis: Float[np.ndarray, "N r"]
    period: int
    fixed_point: Float[np.ndarray, " N"]
    residual: float
    params: PyTree

    @property
    def reduced(self) -> Float[np.ndarray, "r r"]:
        """T on the range of T - I, V' T V."""
        return self.basis.T @ self.matrix @ self.basis

    @property
    def conserved(self) -> int:
        """How many linear functions of (params, state) the method conserves."""
        return self.matrix.shape[0] - self.basis.shape[1]

    @property
    def rate(self) -> float:
        """The asymptotic factor per step by which the error shrinks (above 1: diverges)."""
        return spectral_radius(self.reduced) ** (1 / self.period)


def spectral_radius(matrix: Float[np.ndarray, "r r"]) -> float:
    r"""The largest modulus of an eigenvalue, \rho(M).

    Large matrices: Arnoldi's method on M^{256}, since \rho(M)^{256} = \rho(M^{256}) and eight squarings set apart what
    slow methods have close together near 1; all eigenvalues where it does not converge.

    Example:
      >>> theory.linear.spectral_radius(np.array([[0.0, 1.0], [-0.25, 0.0]]))
      0.5
    """
    size = matrix.shape[0]
    if size == 0:
        return 0.0
    if size > DENSE_LIMIT:
        power, log_scale = matrix, 0.0  # matrix^(2^k) = exp(log_scale) * power
        for _ in range(SQUARINGS):
            norm = np.linalg.norm(power)
            if not np.isfinite(norm) or norm == 0:
                break
            power, log_scale = (power / norm) @ (power / norm), 2 * (log_scale + np.log(norm))
        else:
            try:
                start = np.random.default_rng(0).normal(size=size)
                top = scipy.sparse.linalg.eigs(power, k=4, ncv=120, v0=start, return_eigenvectors=False, tol=1e-13)
                return float(np.exp((np.log(np.abs(top).max()) + log_scale) / 2**SQUARINGS))
            except scipy.sparse.linalg.ArpackNoConvergence:
                pass
    return float(np.abs(np.linalg.eigvals(matrix)).max())


class _StepMap:
    """z -> z after one step at count t, for a method on a problem: floats vary, integers and keys follow the count."""

    def __init__(self, factory: Factory, problem: Any, mix: adozoo.Mixing):
        self.tx = optax.with_extra_args_support(factory(mix))
        self.problem = problem
        params = problem.init()
        start = (params, self.tx.init(params))
        leaves, self.structure = jax.tree.flatten(start)
        self.moving = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
        self.start, self.unravel = ravel_pytree([x for x, moves in zip(leaves, self.moving, strict=True) if moves])
        self.fixed = [x for x, moves in zip(leaves, self.moving, strict=True) if not moves]
        self.one_step = jax.jit(self.step)
        self.one_jacobian = jax.jit(jax.jacfwd(lambda z, fixed: self.step(z, fixed)[0]))
        self.period = self.find_period()

    def assemble(self, z: Any, fixed: list[Any]) -> tuple[PyTree, PyTree]:
        floats, others = iter(self.unravel(z)), iter(fixed)
        return jax.tree.unflatten(self.structure, [next(floats) if moves else next(others) for moves in self.moving])

    def step(self, z: Any, fixed: list[Any]) -> tuple[Any, list[Any]]:
        params, state = self.assemble(z, fixed)
        updates, state = self.tx.update(self.problem.gradient(params, 0, None), state, params)
        leaves = jax.tree.leaves((optax.apply_updates(params, updates), state))
        after = [x for x, moves in zip(leaves, self.moving, strict=True) if moves]
        return ravel_pytree(after)[0], [x for x, moves in zip(leaves, self.moving, strict=True) if not moves]

    def counts(self, steps: int) -> list[list[Any]]:
        """The integers and keys of the state before each of the first steps."""
        counts = [self.fixed]
        for _ in range(steps - 1):
            counts.append(self.one_step(self.start, counts[-1])[1])
        return counts

    def find_period(self) -> int:
        """The smallest p such that the step at count t + p does what the one at t does, seen on a generic point."""
        generic = jnp.asarray(np.random.default_rng(0).normal(size=self.start.size))
        images = np.stack([np.asarray(self.one_step(generic, now)[0]) for now in self.counts(2 * LONGEST_PERIOD)])
        scale = 1e-12 * (1 + np.abs(images).max())
        for p in range(1, LONGEST_PERIOD + 1):
            if np.abs(images[p:] - images[:-p]).max() <= scale:
                return p
        raise ValueError(
            f"theory: the method's steps do not repeat within {LONGEST_PERIOD} steps (a random schedule, drops, or a "
            "decaying step size), so that it has no linear rate. Fix the mixing, e.g. mix.at(step)."
        )

    def advance(self, z: Any) -> np.ndarray:
        """z after one period."""
        for now in self.counts(self.period):
            z, _ = self.one_step(z, now)
        return np.asarray(z)

    def jacobian(self, z: Any) -> np.ndarray:
        """T of one period, the product of its steps' Jacobians."""
        product = np.eye(self.start.size)
        for now in self.counts(self.period):
            product = np.asarray(self.one_jacobian(z, now)) @ product if self.period > 1 else self.one_jacobian(z, now)
            z, _ = self.one_step(z, now)
        return np.asarray(product)


def linearize(factory: Factory, problem: Any, mix: adozoo.Mixing) -> Linearization:
    r"""Read a method's affine (or linearised) step off its implementation.

    Args:
      factory: mix -> transformation; all hyper-parameters inside, as `lambda mix: adozoo.extra(0.1, mix)`.
      problem: a problem of `adozoo.problems` (noise is left out).
      mix: the mixing, fixed or periodic.

    Returns:
      The linearisation at the fixed point that the method reaches from `problem.init()`.

    Raises:
      ValueError: if the steps do not repeat (random mixings), or no fixed point was found.

    Example:
      >>> problem = adozoo.problems.random_quadratic(5, 2)
      >>> found = theory.linearize(
      ...     lambda mix: adozoo.extra(0.5, mix),
      ...     problem,
      ...     adozoo.mixing(adozoo.graphs.ring(5)),
      ... )
      >>> (
      ...     found.conserved,
      ...     found.residual < 1e-12,
      ... )  # the sum of the correction, in each of two coordinates
      (2, True)
    """
    with jax.enable_x64(True):
        problem, mix = jax.tree.map(_double, (problem, mix))
        _check_precision(mix)
        steps = _StepMap(factory, problem, mix)
        optimum = adozoo.replicate(problem.optimum, problem.n)
        guess = ravel_pytree([x for x in jax.tree.leaves((optimum, steps.tx.init(optimum))) if _moves(x)])[0]
        matrix = steps.jacobian(guess)
        basis = _range(matrix - np.eye(len(matrix)))
        start = np.asarray(steps.start)
        z = start + basis @ (basis.T @ (np.asarray(guess) - start))  # keep what init conserves
        z, matrix, residual = _newton(steps, z, matrix, basis)
        params, state = steps.assemble(jnp.asarray(z), steps.fixed)
        answer = jax.tree.map(np.asarray, adozoo.eval_params(state, params))
    return Linearization(matrix, basis, steps.period, z, residual, answer)


def _check_precision(mix: adozoo.Mixing) -> None:
    """Weights rounded to single precision make what a method conserves drift, which would be taken for its rate."""
    probe = jnp.asarray(np.random.default_rng(0).normal(size=mix.n))
    for step in range(getattr(mix, "period", 1) or 0):
        mixed = mix(probe, step)
        defect = 0.0 if mix.stochastic == "row" else abs(float(jnp.sum(mixed) - jnp.sum(probe)))
        if 1e-11 < defect < 1e-4:
            raise ValueError(
                f"theory: the weights of mix do not sum to one in double precision (the sum over nodes moves by "
                f"{defect:.1e}): they were rounded to single precision. Build the mixing from a float64 matrix."
            )


def _double(leaf: Any) -> Any:
    return leaf.astype(jnp.float64) if _moves(leaf) else leaf


def _moves(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _range(matrix: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the range, by QR with column pivoting."""
    q, r = map(np.asarray, scipy.linalg.qr(matrix, mode="economic", pivoting=True)[:2])
    diagonal = np.abs(np.diagonal(r))
    return q[:, : int(np.sum(diagonal > RANK_TOLERANCE * max(diagonal[0], 1e-300)))]


def _newton(steps: _StepMap, z: np.ndarray, matrix: np.ndarray, basis: np.ndarray) -> Any:
    """Newton's method for F(z) = z inside z_0 + range(T - I); one step where F is affine."""
    defect = steps.advance(z) - z
    for _ in range(50):
        size = np.linalg.norm(defect)
        if size <= 1e-14 * (1 + np.linalg.norm(z)):
            break
        reduced = np.eye(basis.shape[1]) - basis.T @ matrix @ basis
        direction = basis @ np.linalg.solve(reduced, basis.T @ defect)
        length = 1.0
        while length > 1e-6:
            trial = z + length * direction
            moved = steps.advance(trial) - trial
            if np.linalg.norm(moved) < size:
                break
            length /= 2
        else:
            break  # as good as rounding allows, or no fixed point: the residual tells
        z, defect = trial, moved
        matrix = steps.jacobian(z)
    return z, matrix, float(np.linalg.norm(defect))


def exact_rate(factory: Factory, problem: Any, mix: adozoo.Mixing) -> float:
    r"""The exact linear rate of the implemented method: lim sup ||z^t - z*||^{1/t}.

    Exact on quadratics; asymptotic (the local rate at the fixed point) on any other smooth problem. Above 1 the method
    diverges.

    Args:
      factory: mix -> transformation, as `lambda mix: adozoo.extra(0.1, mix)`.
      problem: a problem of `adozoo.problems`.
      mix: the mixing, fixed or periodic (then per step, the period-th root of the period's factor).

    Returns:
      The factor per step.

    Raises:
      ValueError: if the method's steps do not repeat.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((4, 1, 1)), jnp.arange(4.0)[:, None]
      ... )
      >>> mix = adozoo.mixing(adozoo.graphs.ring(4))
      >>> round(theory.exact_rate(lambda mix: adozoo.dsgd(0.25, mix), problem, mix), 12)
      0.75
    """
    return linearize(factory, problem, mix).rate


def limit(factory: Factory, problem: Any, mix: adozoo.Mixing) -> PyTree:
    r"""Where the method converges to from `problem.init()`: stacked params [n, ...].

    Its distance to the optimum is the method's bias: zero for exact methods, O(learning rate) for D-SGD on nodes that
    differ. For a periodic schedule, the point at the start of a period.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((2, 1, 1)), jnp.array([[0.0], [2.0]])
      ... )
      >>> theory.limit(
      ...     lambda mix: adozoo.dsgd(0.5, mix, "cta"), problem, adozoo.exact_mean(2)
      ... ).ravel().round(9)
      array([0.66666667, 1.33333333])

    Raises:
      ValueError: if there is no fixed point (a conserved quantity drifts).
    """
    found = linearize(factory, problem, mix)
    if found.residual > 1e-6 * (1 + np.linalg.norm(found.fixed_point)):
        raise ValueError(
            f"theory.limit: the method has no fixed point here (defect {found.residual:.2e}): a quantity that it "
            "should conserve drifts. Check that the mixing is one that the method admits."
        )
    return found.params
