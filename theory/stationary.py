r"""The stationary error of an implemented method under gradient noise, from the Stein equation of its own step.

With noise xi_t ~ (0, Q), drawn anew in every step and added to the gradients, z <- z* + T (z - z*) + B xi, where both
Jacobians are read off the step. The covariance of z settles at the solution of S = T S T' + B Q B', on the space that
the noise reaches: the smallest one that holds range(B Q^{1/2}) and is invariant under T. On quadratics this is exact;
on other problems, where z* is the fixed point without noise, it is the first order in Q.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

import adozoo
from theory.linear import Linearization, linearize_steps
from theory.step_map import Factory, read
from theory.subspaces import reachable_basis, spectral_radius, unit_seeds

RANDOM_WALK = 1e-9
"""Noise that moves a conserved quantity by more than this, relative to all that it moves, makes it a random walk."""


@dataclass(frozen=True)
class StationaryError:
    r"""How far a method stays from its limit, and from the optimum, under gradient noise.

    Mean squared errors, summed over coordinates; for a periodic schedule, at the start of a period. The distance to the
    optimum splits into bias and variance: E||x_i - x*||^2, averaged over nodes, is bias_node^2 + node_error.

    Attributes:
      node_error: (1/n) \sum_i E||x_i - x_i^*||^2, with x^* the limit without noise; infinite where there is no
        stationary error.
      mean_error: E||\bar x - \bar x^*||^2.
      bias_node: \sqrt{(1/n) \sum_i ||x_i^* - x^{opt}||^2}, the distance of the limit from the optimum.
      bias_mean: ||\bar x^* - x^{opt}||.
      covariance: of the evaluated params, [n, d, n, d].
      state_covariance: of z = (params, floating-point state), [N, N].
      rate: the factor per step by which the slowest mode that the noise reaches is forgotten; not below 1 where the
        errors are infinite.
      explanation: why the errors are infinite; empty where they are not.
    """

    node_error: float
    mean_error: float
    bias_node: float
    bias_mean: float
    covariance: Float[np.ndarray, "n d n d"]
    state_covariance: Float[np.ndarray, "N N"]
    rate: float
    explanation: str = ""

    @property
    def node_mse(self) -> float:
        """(1/n) sum_i E||x_i - x_opt||^2: squared bias and variance together."""
        return self.bias_node**2 + self.node_error

    @property
    def mean_mse(self) -> float:
        """E||xbar - x_opt||^2: squared bias and variance together."""
        return self.bias_mean**2 + self.mean_error


def stationary_error(
    factory: Factory, problem: Any, mix: adozoo.Mixing, noise_covariance: Any = None
) -> StationaryError:
    r"""The stationary error of the implemented method under additive gradient noise, from its Stein equation.

    Args:
      factory: mix -> transformation, as `lambda mix: adozoo.extra(0.1, mix)`.
      problem: a problem of `adozoo.problems` with params [n, d].
      mix: the mixing, fixed or periodic.
      noise_covariance: of the gradient noise of one step. A number \sigma^2 (independent nodes and coordinates), [d, d]
        (independent nodes), [n, d, d] (one a node), or [n d, n d]; by default \sigma^2 = problem.noise^2.

    Returns:
      Variance and bias of nodes and of their mean. Infinite errors come with an explanation.

    Raises:
      ValueError: for a covariance of another shape, not symmetric or not positive semi-definite; if the steps do not
        repeat.

    Example:
      >>> problem = adozoo.problems.quadratic(jnp.ones((4, 1, 1)), jnp.zeros((4, 1)))
      >>> found = theory.stationary_error(
      ...     lambda mix: adozoo.dsgd(0.5, mix), problem, adozoo.exact_mean(4), 1.0
      ... )
      >>> print(f"{found.mean_error:.6f}")  # eta^2 sigma^2 / n / (1 - (1 - eta)^2) = 1/12
      0.083333
    """
    with jax.enable_x64(True):
        steps = read(factory, problem, mix)
        shape = problem.init().shape
        root = covariance_root(noise_covariance, shape, problem)
        limit = linearize_steps(steps)
        phases = steps.phases(limit.fixed_point)
        readout = steps.answer_jacobian(limit.fixed_point)
    return _settle(limit, phases, root, readout, np.asarray(problem.optimum, np.float64))


def covariance_root(noise: Any, shape: tuple[int, ...], problem: Any = None) -> Float[np.ndarray, "nd nd"]:
    """A square root of the covariance of all gradients of a step, from any of the forms of `stationary_error`.

    Example:
      >>> theory.stationary.covariance_root(4.0, (2, 1))
      array([[2., 0.],
             [0., 2.]])
    """
    n, d = shape
    if noise is None:
        noise = float(problem.noise) ** 2
        if noise == 0:
            raise ValueError("stationary_error: the problem adds no noise to gradients; pass noise_covariance.")
    given = np.asarray(noise, np.float64)
    forms = {(): lambda q: q * np.eye(n * d), (d, d): lambda q: np.kron(np.eye(n), q), (n * d, n * d): lambda q: q}
    if given.shape == (n, d, d):
        full = np.zeros((n, d, n, d))
        full[np.arange(n), :, np.arange(n)] = given
        full = full.reshape(n * d, n * d)
    elif given.shape in forms:
        full = forms[given.shape](given)
    else:
        raise ValueError(
            f"stationary_error: noise_covariance must be a number, [{d}, {d}], [{n}, {d}, {d}] or [{n * d}, {n * d}], "
            f"got shape {given.shape}."
        )
    values, vectors = np.linalg.eigh(full)
    size = max(float(np.abs(values).max()), 1e-300)
    if not np.abs(full - full.T).max() <= 1e-10 * size or not values[0] >= -1e-10 * size:
        raise ValueError(
            "stationary_error: noise_covariance must be symmetric and positive semi-definite, got smallest eigenvalue "
            f"{values[0]:.3g}. Pass a covariance, such as the square of a standard deviation."
        )
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def stein(transition: Float[np.ndarray, "r r"], noise: Float[np.ndarray, "r r"]) -> Float[np.ndarray, "r r"]:
    r"""S = T S T' + Q, for a spectral radius below 1: \sum_k T^k Q T'^k by doubling.

    Every term is positive semi-definite, so that nothing cancels, however slow the slowest mode is.

    Example:
      >>> theory.stationary.stein(np.array([[0.5]]), np.array([[3.0]]))
      array([[4.]])
    """
    covariance, power = noise, transition
    for _ in range(60):  # 2^60 steps
        more = power @ covariance @ power.T
        covariance, power = covariance + more, power @ power
        if np.abs(more).max(initial=0) <= 1e-17 * np.abs(covariance).max(initial=0):
            break
    return covariance


def period_noise(phases: list[tuple[np.ndarray, np.ndarray]], root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T of a whole period, and what the noise of each of its steps has become at its end, side by side: [N, p k].

    Example:
      >>> half, one = np.array([[0.5]]), np.array([[1.0]])
      >>> theory.stationary.period_noise([(half, one), (half, one)], one)[1]
      array([[0.5, 1. ]])
    """
    transition, injected = phases[0][0], [phases[0][1] @ root]
    for now, injection in phases[1:]:
        transition = now @ transition
        injected = [now @ before for before in injected] + [injection @ root]
    return transition, np.hstack(injected)


def _settle(
    limit: Linearization, phases: list[tuple[np.ndarray, np.ndarray]], root: np.ndarray, readout: np.ndarray, best: Any
) -> StationaryError:
    n, d = limit.params.shape
    bias = limit.params - best
    biases = (float(np.sqrt(np.mean(np.sum(bias**2, axis=1)))), float(np.linalg.norm(bias.mean(axis=0))))
    transition, injected = period_noise(phases, root)
    inside = limit.basis.T @ injected
    basis = reachable_basis([limit.reduced], unit_seeds(inside))
    reduced = basis.T @ limit.reduced @ basis
    rate = spectral_radius(reduced) ** (1 / limit.period)
    explanation = _instability(injected, injected - limit.basis @ inside, rate, limit.drifts)
    if explanation:
        infinite = (np.full((n, d, n, d), np.inf), np.full(transition.shape, np.inf))
        return StationaryError(np.inf, np.inf, *biases, *infinite, max(rate, 1.0), explanation)
    shocks = basis.T @ inside
    space = limit.basis @ basis
    state = space @ stein(reduced, shocks @ shocks.T) @ space.T
    node, mean, covariance = read_out(readout @ state @ readout.T, (n, d))
    return StationaryError(node, mean, *biases, covariance, state, rate)


def read_out(flat: Float[np.ndarray, "nd nd"], shape: tuple[int, int]) -> tuple[float, float, Any]:
    """(1/n) sum_i E||e_i||^2, E||mean of e||^2, and the covariance [n, d, n, d], of one over all params.

    Example:
      >>> theory.stationary.read_out(np.eye(2), (2, 1))[:2]
      (1.0, 0.5)
    """
    n, d = shape
    covariance = flat.reshape(n, d, n, d)
    return float(np.trace(flat) / n), float(np.einsum("idjd->", covariance) / n**2), covariance


def _instability(injected: np.ndarray, conserved: np.ndarray, rate: float, drifts: bool) -> str:
    """Why there is no stationary error, or nothing."""
    if drifts:
        return "without noise already, a quantity that the method should conserve drifts"
    if np.abs(conserved).max(initial=0) > RANDOM_WALK * np.abs(injected).max(initial=0):
        return "the noise moves a quantity that the method conserves, which takes a random walk"
    if rate >= 1:
        return f"a mode that the noise reaches is not stable: factor {rate:.9f} per step"
    return ""
