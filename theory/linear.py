r"""Exact linear rates, read off the implemented transformation.

Flatten everything that changes in a step into one vector z = (params, floating-point state). On a quadratic problem
the whole step is an affine map z <- T z + c, and `jax` reads T off the code that runs; on any other problem T is the
Jacobian at the fixed point. First differences obey e_{k+1} = T e_k with e_0 in range(T - I), so the asymptotic rate is
the spectral radius of T on that subspace, or on the part of it that params can reach. The rest of the space is spanned
by conserved quantities (left null vectors of T - I, such as the sum over nodes of EXTRA's correction): they stay as
`init` set them and do not count. Where one of them drifts, there is no fixed point, and first differences never vanish.

Everything is computed in float64, whatever the caller's default is. Reference for the approach: the linear part is the
classical analysis of affine iterations; the split by range(T - I) is ours and checked against simulated runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree

import adozoo
from theory import structured
from theory.matrix_free import fixed_point, matrix_free_rate
from theory.step_map import Factory, Network, StepMap, is_float, read
from theory.subspaces import null_basis, reachable_radius, spectral_radius, unit_seeds

__all__ = ["Factory", "Linearization", "Memory", "exact_rate", "limit", "linearize", "memory", "spectral_radius"]

SMALL = 300
"""Up to this many numbers in z the dense Jacobian is faster than looking for structure."""
LARGE = 2500
"""Beyond this many numbers in z no dense Jacobian is built."""
DRIFT = 1e-9
"""A conserved quantity that moves by more than this in a period, relative to z, drifts."""


@dataclass(frozen=True)
class Linearization:
    r"""One period of a method near its fixed point: z <- z* + T (z - z*).

    Attributes:
      matrix: T, [N, N], for a whole period of steps.
      invariants: orthonormal left null vectors L of T - I, [N, m]: L' z is conserved.
      seeds: what moves z, [N, s]: samples of changes of the initial params and of the gradients.
      period: how many steps T stands for.
      fixed_point: z*, [N].
      residual: ||F(z*) - z*||, the defect of the fixed point; large where none exists.
      drift: by how much a period moves what the method should conserve, the part of F(z*) - z* outside range(T - I).
        Zero for a sound method; else z grows linearly for ever.
      params: the fixed point's evaluated params, stacked [n, ...].
    """

    matrix: Float[np.ndarray, "N N"]
    invariants: Float[np.ndarray, "N m"]
    seeds: Float[np.ndarray, "N s"]
    period: int
    fixed_point: Float[np.ndarray, " N"]
    residual: float
    drift: float
    params: PyTree

    @cached_property
    def basis(self) -> Float[np.ndarray, "N r"]:
        """An orthonormal basis V of range(T - I), the orthogonal complement of the invariants."""
        return np.linalg.qr(self.invariants, mode="complete")[0][:, self.conserved :]

    @cached_property
    def reduced(self) -> Float[np.ndarray, "r r"]:
        """T on the range of T - I, V' T V."""
        return self.basis.T @ self.matrix @ self.basis

    @property
    def conserved(self) -> int:
        """How many linear functions of (params, state) the method conserves."""
        return self.invariants.shape[1]

    @property
    def drifts(self) -> bool:
        """Whether something that the method should conserve drifts."""
        return self.drift > DRIFT * (1 + float(np.linalg.norm(self.fixed_point)))

    @cached_property
    def rate(self) -> float:
        """The asymptotic factor per step by which first differences shrink: above 1 the method diverges.

        At least 1 where a conserved quantity drifts.
        """
        away = _away(self.invariants)
        # T - L L' is T on range(T - I), and zero on its complement.
        radius = reachable_radius(self.matrix - self.invariants @ self.invariants.T, away(self.seeds))
        return max(radius, 1.0 if self.drifts else 0.0) ** (1 / self.period)


class Memory(NamedTuple):
    """What a method keeps from step to step, for each node and beyond params; step counts are left out."""

    vectors: float  # of the size of params
    scalars: float  # single numbers beside them


def linearize(factory: Factory, problem: Any, mix: Network) -> Linearization:
    r"""Read a method's affine (or linearised) step off its implementation.

    Args:
      factory: mix -> transformation; all hyper-parameters inside, as `lambda mix: adozoo.extra(0.1, mix)`.
      problem: a problem of `adozoo.problems` (noise is left out).
      mix: the mixing, fixed or periodic.

    Returns:
      The linearisation at the fixed point that the method reaches from `problem.init()`.

    Raises:
      ValueError: if the steps do not repeat (random mixings), or there are too many states for a dense Jacobian.

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
        return linearize_steps(read(factory, problem, mix))


def linearize_steps(steps: StepMap) -> Linearization:
    """`linearize`, of a step map that was read already; inside `jax.enable_x64(True)`."""
    if steps.size > 2 * LARGE:
        raise ValueError(
            f"theory.linearize: params and state hold {steps.size} numbers, too many for a dense Jacobian (at most "
            f"{2 * LARGE}). theory.exact_rate and theory.limit work without it; or take fewer nodes or dimensions."
        )
    start = np.asarray(steps.start)
    transition = steps.jacobian(steps.guess)
    invariants = null_basis((transition - np.eye(steps.size)).T)
    z = start + _away(invariants)(steps.guess - start)  # keep what init conserves
    affine = steps.is_affine(z, lambda v: transition @ v)
    z, defect = _newton(steps, z, transition, invariants, affine)
    if not affine:
        transition = steps.jacobian(z)
        invariants = null_basis((transition - np.eye(steps.size)).T)
    drift = float(np.linalg.norm(invariants.T @ defect))
    seeds = unit_seeds(*steps.seeds())
    answer = jax.tree.map(np.asarray, steps.answer(z))
    return Linearization(transition, invariants, seeds, steps.period, z, float(np.linalg.norm(defect)), drift, answer)


def _away(invariants: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The projection onto range(T - I), orthogonal to the invariants."""
    return lambda vectors: vectors - invariants @ (invariants.T @ vectors)


def _newton(
    steps: StepMap, z: np.ndarray, matrix: np.ndarray, invariants: np.ndarray, affine: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method for F(z) = z inside z_0 + range(T - I): the point and F(z) - z; one step where F is affine."""
    defect = steps.advance(z) - z
    for _ in range(50):
        size = np.linalg.norm(defect)
        if size <= 1e-14 * (1 + np.linalg.norm(z)):
            break
        inside = np.eye(z.size) - matrix + invariants @ invariants.T  # I - T on range(T - I)
        try:
            direction = np.linalg.solve(inside, _away(invariants)(defect))
        except np.linalg.LinAlgError:
            break  # a mode that grows linearly: no fixed point
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
        if not affine:
            matrix = steps.jacobian(z)
    return z, defect


def exact_rate(factory: Factory, problem: Any, mix: Network) -> float:
    r"""The exact linear rate of the implemented method: lim sup ||z^{t+1} - z^t||^{1/t}, over generic starts.

    Exact on quadratics; asymptotic (the local rate at the fixed point) on any other smooth problem. Above 1 the method
    diverges. Structure is used where there is some: nodes with a common Hessian over a symmetric or
    translation-invariant W decouple into one small block for each mode (`theory.structured_rate`); where a dense
    Jacobian would not fit, Arnoldi's method is applied to Jacobian-vector products (`theory.matrix_free_rate`).

    Args:
      factory: mix -> transformation, as `lambda mix: adozoo.extra(0.1, mix)`.
      problem: a problem of `adozoo.problems`.
      mix: the mixing, fixed or periodic (then per step, the period-th root of the period's factor).

    Returns:
      The factor per step; at least 1 where something that the method should conserve drifts.

    Raises:
      ValueError: if the method's steps do not repeat, or Arnoldi's method does not converge.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((4, 1, 1)), jnp.arange(4.0)[:, None]
      ... )
      >>> mix = adozoo.mixing(adozoo.graphs.ring(4))
      >>> round(theory.exact_rate(lambda mix: adozoo.dsgd(0.25, mix), problem, mix), 12)
      0.75
    """
    with jax.enable_x64(True):
        steps = read(factory, problem, mix)
        if steps.size > SMALL and (found := structured.modal_rate(steps)) is not None:
            return found
        if steps.size <= LARGE:
            return linearize_steps(steps).rate
    return matrix_free_rate(factory, problem, mix).rate


def limit(factory: Factory, problem: Any, mix: Network) -> PyTree:
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
    with jax.enable_x64(True):
        steps = read(factory, problem, mix)
        if steps.size <= LARGE:
            found = linearize_steps(steps)
            z, residual, params = found.fixed_point, found.residual, found.params
        else:
            z, residual = fixed_point(steps)
            params = jax.tree.map(np.asarray, steps.answer(z))
    if residual > 1e-6 * (1 + np.linalg.norm(z)):
        raise ValueError(
            f"theory.limit: the method has no fixed point here (defect {residual:.2e}): a quantity that it "
            "should conserve drifts. Check that the mixing is one that the method admits."
        )
    return params


def memory(factory: Factory, problem: Any, mix: adozoo.Mixing) -> Memory:
    """What the method keeps in its state, for each node: vectors of the size of params, and single numbers.

    Counted from the shapes of `init`'s floating-point arrays; nothing is computed. Params themselves, step counts and
    keys are left out.

    Args:
      factory: mix -> transformation.
      problem: a problem of `adozoo.problems`, or stacked params (or their shapes).
      mix: the mixing, over n nodes.

    Example:
      >>> problem = adozoo.problems.random_quadratic(4, 3)
      >>> ring = adozoo.mixing(adozoo.graphs.ring(4))
      >>> theory.memory(lambda mix: adozoo.svl(0.1, mix), problem, ring)
      Memory(vectors=2.0, scalars=0.0)
      >>> theory.memory(
      ...     lambda mix: adozoo.stochastic_gradient_push(0.1, mix), problem, ring
      ... )
      Memory(vectors=0.0, scalars=1.0)
    """
    params = jax.eval_shape(problem.init) if hasattr(problem, "init") else problem
    state = jax.eval_shape(factory(mix).init, params)
    shapes = {leaf.shape for leaf in jax.tree.leaves(params)}
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    kept = [leaf for leaf in jax.tree.leaves(state) if is_float(leaf)]
    like_params = [leaf.size for leaf in kept if any(leaf.shape[-len(shape) :] == shape for shape in shapes)]
    rest = sum(leaf.size for leaf in kept) - sum(like_params)
    return Memory(sum(like_params) / size, rest / mix.n)
