"""Exact and approximate rates of D-SGD on the isotropic random quadratics of Vogels et al.

The toy problem is f(x) = |x|^2 / 2 with stochastic gradients d d'x, d ~ N(0, I), drawn independently per node and step;
its only constant is the noise level zeta = sup E|g|^2 / |x|^2 (the dimension plus 2). Adapt-then-combine D-SGD,
x_i <- sum_j w_ij (x_j - learning_rate g_j), maps the second moments C_ij = E<x_i, x_j> linearly:

    C <- W (D o C) W',   D_ij = (1 - eta)^2 for i != j,   D_ii = 1 - 2 eta + zeta eta^2.

The rate r is the relative decrease of E|x|^2 per step: E|x^t|^2 ~ (1 - r)^t, so that r <= 0 means divergence. It obeys

    r = 1 - (1 - eta)^2 - (zeta - 1) eta^2 / n_W(decay),   decay = (1 - eta)^2 / (1 - r)                         (7)

exactly where all nodes look alike. With q = 1 - r and symmetric W this is the secular equation

    (zeta - 1) eta^2 mean_i lambda_i^2 / (q - (1 - eta)^2 lambda_i^2) = 1,

whose left side strictly decreases in q: one root, for divergence too. It is solved here for x = 1 / n_W in [1/n, 1],
with q = (1 - eta)^2 + (zeta - 1) eta^2 x, which never cancels. The authors' fixed-point iteration on r can leave its
domain, and then report divergence, near the stability limit; bracketing cannot.

References:
    Vogels, Hendrikx, Jaggi, "Beyond spectral gap (extended)", 2023, Section 3, eq. (7), Figure 1.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike
from scipy.optimize import minimize_scalar, root_scalar
from scipy.sparse.linalg import LinearOperator, eigs, eigsh

from theory.matrices import MixingLike, Scalar, is_symmetric, period_matrices
from theory.neighbor_formulas import effective_neighbors_infinite
from theory.neighbors import variance_profile

_MODES = ("exact", "mean", "worst")
# Below this number of nodes a dense eigensolver on n^2 second moments is faster than Arnoldi iterations.
_DENSE = 12


@jax.jit
def secular_rate(
    eigenvalues: Float[Array, " n"] | Float[np.ndarray, " n"], learning_rate: ScalarLike, zeta: ScalarLike
) -> Float[Array, ""]:
    """Rate of D-SGD on the toy problem from the eigenvalues of a symmetric W: jit, vmap and grad in all arguments.

    Solves the secular equation, which is eq. (7) with the mean effective number of neighbours: bisection for
    x = 1 / n_W in [1/n, 1], then one Newton step, which also carries the derivative (implicit function theorem).

    Args:
        eigenvalues: [n] eigenvalues of W (moduli of eigenvalues for a normal W).
        learning_rate: scalar, may be traced.
        zeta: noise level E|g|^2 / |x|^2 >= 1, may be traced.

    Returns:
        The rate r, negative where D-SGD diverges.

    Example:
        >>> values = (1 + 2 * jnp.cos(2 * jnp.pi * jnp.arange(8) / 8)) / 3
        >>> rates = jax.vmap(secular_rate, (None, 0, None))(
        ...     values, jnp.array([0.1, 0.2]), 10.0
        ... )
        >>> [f"{rate:.4f}" for rate in rates]
        ['0.1781', '0.3014']

    References:
        Extended paper, eqs. (6) and (7).
    """
    squares = jnp.square(jnp.asarray(eigenvalues))
    missing = jnp.maximum(1 - squares, 0)
    learning_rate, zeta = jnp.asarray(learning_rate, squares.dtype), jnp.asarray(zeta, squares.dtype)
    retained, noise = jnp.square(1 - learning_rate), (zeta - 1) * jnp.square(learning_rate)
    # Without noise the equation is void, and x irrelevant: any positive level keeps it finite.
    level = jnp.where(noise > 0, noise, 1)

    def excess(x: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.mean(level * squares / (level * x + retained * missing)) - 1

    def halve(_: ScalarLike, bracket: tuple) -> tuple:
        low, high = bracket
        middle = (low + high) / 2
        above = excess(middle) > 0
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    ends = jnp.full((), 1 / squares.size, squares.dtype), jnp.ones((), squares.dtype)
    low, high = jax.lax.fori_loop(0, 60, halve, jax.lax.stop_gradient(ends))
    x = jax.lax.stop_gradient((low + high) / 2)
    slope = jax.lax.stop_gradient(jax.grad(excess)(x))
    return learning_rate * (2 - learning_rate) - noise * (x - excess(x) / slope)


class _Equation(NamedTuple):
    """Eq. (7) of one W: decay -> 1 / n_W, and the largest n_W."""

    inverse_neighbors: Callable[[float], float]
    n: float

    def rate(self, learning_rate: float, zeta: float) -> float:
        retained, noise = (1 - learning_rate) ** 2, (zeta - 1) * learning_rate**2
        if noise == 0:
            return learning_rate * (2 - learning_rate)

        def excess(x: float) -> float:
            decay = min(retained / (retained + noise * x), math.nextafter(1, 0))
            return self.inverse_neighbors(decay) / x - 1

        # Widened by more than rounding: complete and disconnected graphs have their root at an end. On infinite graphs
        # the consensus direction, of rate 1 - retained, dominates where noise spreads faster than it accumulates.
        low, high = max((1 - 1e-9) / self.n, 1e-9), 1 + 1e-9
        x = root_scalar(excess, bracket=(low, high), xtol=1e-15).root if excess(low) > 0 else 0.0
        return learning_rate * (2 - learning_rate) - noise * x


def _equation(W: MixingLike, mode: str) -> _Equation:
    if not isinstance(W, str):
        profile = variance_profile(W)
        reduce = np.max if mode == "worst" else np.mean
        return _Equation(lambda decay: float(reduce(profile(decay))), period_matrices(W).shape[1])
    tree = re.fullmatch(r"infinite (\d+)-regular tree", W)
    graph = "tree" if tree else W.removeprefix("infinite ")
    if not tree and W not in ("infinite ring", "infinite torus"):
        raise ValueError(
            f'W: expected a matrix, "infinite ring", "infinite torus" or "infinite 3-regular tree", got {W!r}; '
            "named finite graphs: pass adozoo.weights.metropolis(graph)"
        )
    degree = int(tree[1]) if tree else None
    return _Equation(lambda decay: 1 / effective_neighbors_infinite(graph, decay, degree), math.inf)


def _moment_factors(n: int, learning_rate: float, zeta: float) -> Float[np.ndarray, "n n"]:
    factors = np.full((n, n), (1 - learning_rate) ** 2)
    np.fill_diagonal(factors, 1 - 2 * learning_rate + zeta * learning_rate**2)
    return factors


def isotropic_transition_matrix(W: MixingLike, learning_rate: Scalar, zeta: Scalar) -> Float[np.ndarray, "nn nn"]:
    """The map C -> W (D o C) W' of the second moments as a matrix on row-major vectors; of a period for a schedule.

    Args:
        W: [n, n] mixing matrix, mixing or periodic schedule.
        learning_rate: step size eta.
        zeta: noise level E|g|^2 / |x|^2.

    Returns:
        [n^2, n^2] non-negative matrix.

    Raises:
        ValueError: for a negative learning rate, zeta < 1, or a W that is not doubly stochastic.

    Example:
        >>> isotropic_transition_matrix(np.eye(1), 0.1, 10.0).round(6).tolist()
        [[0.9]]

    References:
        Extended paper, Section 3; `random_quadratic_transition_matrix` of the authors' code.
    """
    learning_rate, zeta = _check(learning_rate, zeta)
    matrices = period_matrices(W)
    factors = _moment_factors(matrices.shape[1], learning_rate, zeta).ravel()
    transition = np.eye(len(factors))
    for matrix in matrices:
        transition = (np.kron(matrix, matrix) * factors) @ transition
    return transition


def _second_moment_radius(matrices: Float[np.ndarray, "p n n"], learning_rate: float, zeta: float) -> float:
    """Spectral radius of the second-moment map over a period. It preserves a cone: its Perron value is real."""
    n = matrices.shape[1]
    factors = _moment_factors(n, learning_rate, zeta)
    if n <= _DENSE:
        return float(np.abs(np.linalg.eigvals(isotropic_transition_matrix(matrices, learning_rate, zeta))).max())
    if len(matrices) == 1 and is_symmetric(matrices[0]):
        # Similar to a symmetric operator, whose extreme eigenvalue Lanczos finds fast and to full precision.
        W, root = matrices[0], np.sqrt(factors)

        def one_step(v: np.ndarray) -> np.ndarray:
            return (root * (W @ (root * v.reshape(n, n)) @ W)).ravel()

        operator = LinearOperator((n * n, n * n), one_step)
        return float(eigsh(operator, k=1, which="LA", v0=root.ravel(), return_eigenvectors=False)[0])

    def one_period(v: np.ndarray) -> np.ndarray:
        C = v.reshape(n, n)
        for W in matrices:
            C = W @ (factors * C) @ W.T
        return C.ravel()

    operator = LinearOperator((n * n, n * n), one_period)
    return float(np.abs(eigs(operator, k=1, which="LM", v0=np.ones(n * n), return_eigenvectors=False)[0]))


def _check(learning_rate: Scalar, zeta: Scalar) -> tuple[float, float]:
    if not 0 <= learning_rate < math.inf:
        raise ValueError(f"learning_rate: expected a finite number >= 0, got {learning_rate}; stable ones are below 2")
    if not 1 <= zeta < math.inf:
        raise ValueError(f"zeta: expected E|g|^2 / |x|^2 >= 1, got {zeta}; Gaussian directions have dimension + 2")
    return float(learning_rate), float(zeta)


def _rate_function(W: MixingLike, mode: str) -> Callable[[float, float], float]:
    """(learning_rate, zeta) -> rate, with the work that depends on W alone done once."""
    if mode not in _MODES:
        raise ValueError(f"mode: expected one of {', '.join(_MODES)}, got {mode!r}")
    equation = _equation(W, mode)
    if mode != "exact" or isinstance(W, str):
        return equation.rate
    matrices, profile = period_matrices(W), variance_profile(W)

    def exact(learning_rate: float, zeta: float) -> float:
        rate = equation.rate(learning_rate, zeta)
        # Where all variances agree, P is an eigenvector of the second-moment map in the interior of its cone, hence
        # the Perron one, and eq. (7) is exact.
        decay = min((1 - learning_rate) ** 2 / (1 - rate), math.nextafter(1, 0)) if rate < 1 else 0.0
        if np.ptp(variances := profile(decay)) <= 1e-11 * variances.max():
            return rate
        return 1 - _second_moment_radius(matrices, learning_rate, zeta) ** (1 / len(matrices))

    return exact


def isotropic_rate(W: MixingLike, learning_rate: Scalar, zeta: Scalar, mode: str = "exact") -> float:
    """Rate of adapt-then-combine D-SGD on isotropic random quadratics: E|x^t|^2 ~ (1 - rate)^t.

    exact: 1 - (spectral radius of the second-moment map)^(1 / period); eq. (7) where that is provably the same (all
    nodes alike), a dense or Krylov eigenvalue solver on n^2 moments otherwise. mean, worst: eq. (7) with the mean or
    worst effective number of neighbours (over nodes, and phases of a schedule). In every case tried
    worst <= exact <= mean where the method converges; this is an observation, not a theorem.

    Args:
        W: [n, n] doubly stochastic matrix, a mixing, a periodic schedule, or "infinite ring", "infinite torus",
            "infinite Q-regular tree" (where all modes agree).
        learning_rate: step size eta >= 0.
        zeta: noise level E|g|^2 / |x|^2 >= 1, e.g. dimension + 2.
        mode: "exact", "mean" or "worst".

    Returns:
        The rate, at most 1; negative means divergence.

    Raises:
        ValueError: for an unknown mode or graph, a negative learning rate, zeta < 1, or an unsuitable W.

    Example:
        >>> round(isotropic_rate(np.full((8, 8), 1 / 8), 0.1, 10.0), 6)
        0.17875
        >>> round(isotropic_rate("infinite ring", 0.1, 51.0), 4)
        0.1218

    References:
        Extended paper, eqs. (3) and (7), Figure 1.
    """
    return _rate_function(W, mode)(*_check(learning_rate, zeta))


def largest_learning_rate(W: MixingLike, zeta: Scalar, mode: str = "exact") -> float:
    """Learning rate at which D-SGD on the toy problem turns from converging to diverging: rate = 0.

    It lies between 2 / zeta (alone) and 2 n / (n + zeta - 1) (exact averaging), and satisfies
    (zeta - 1) eta / n_W((1 - eta)^2) = 2 - eta, whose root is unique below 1.

    Args:
        W: as in `isotropic_rate`.
        zeta: noise level, at least 1.
        mode: "exact", "mean" or "worst".

    Returns:
        The stability limit.

    Raises:
        ValueError: as `isotropic_rate`.

    Example:
        >>> round(largest_learning_rate(np.full((8, 8), 1 / 8), 9.0), 6)
        1.0

    References:
        Extended paper, Figure 1 and eq. (7) with r = 0.
    """
    rate, (_, zeta) = _rate_function(W, mode), _check(0.0, zeta)
    n = math.inf if isinstance(W, str) else period_matrices(W).shape[1]
    limit = 2 if n == math.inf else 2 * n / (n + zeta - 1)
    # Widened by more than rounding, since disconnected and complete graphs have their root at an end.
    bracket = (1 - 1e-6) * 2 / zeta, (1 + 1e-6) * limit
    return float(root_scalar(lambda eta: rate(eta, zeta), bracket=bracket, xtol=1e-14).root)


def best_learning_rate(W: MixingLike, zeta: Scalar, mode: str = "exact") -> tuple[float, float]:
    """Learning rate with the highest rate on the toy problem, and that rate.

    Args:
        W: as in `isotropic_rate`.
        zeta: noise level, at least 1.
        mode: "exact", "mean" or "worst".

    Returns:
        (learning_rate, rate). The optimum is flat: the learning rate is good to about 1e-7, the rate to 1e-12.

    Raises:
        ValueError: as `isotropic_rate`.

    Example:
        >>> learning_rate, rate = best_learning_rate(np.full((8, 8), 1 / 8), 9.0)
        >>> round(learning_rate, 6), round(rate, 6)
        (0.5, 0.5)

    References:
        Extended paper, Figure 1.
    """
    rate, limit = _rate_function(W, mode), largest_learning_rate(W, zeta, mode)
    found = minimize_scalar(
        lambda eta: -rate(eta, float(zeta)), bounds=(0, limit), method="bounded", options={"xatol": 1e-9 * limit}
    )
    return float(found.x), -float(found.fun)


def steps_to(rate: Scalar, factor: Scalar = 100.0) -> float:
    """Steps until E|x|^2 has fallen by a factor: ln(factor) / -ln(1 - rate).

    Args:
        rate: relative decrease per step, at most 1.
        factor: reduction wanted, at least 1.

    Returns:
        Number of steps, infinite for a rate that is not positive.

    Raises:
        ValueError: for a rate above 1 or a factor below 1.

    Example:
        >>> round(steps_to(0.1, 100), 4)
        43.7087

    References:
        Extended paper, vertical axis of Figure 1.
    """
    if not rate <= 1:
        raise ValueError(f"rate: expected at most 1, got {rate}; pass 1 - (contraction of E|x|^2 per step)")
    if not factor >= 1:
        raise ValueError(f"factor: expected at least 1, got {factor}; 100 reduces the loss to a hundredth")
    if rate <= 0:
        return math.inf
    return math.log(factor) / -math.log1p(-rate) if rate < 1 else 0.0


def expected_square_norm(
    W: MixingLike, learning_rate: Scalar, zeta: Scalar, steps: int
) -> Float[np.ndarray, "steps n"]:
    """Exact E|x_i|^2 of every node along D-SGD on the toy problem, from a common start with |x|^2 = 1.

    Args:
        W: [n, n] mixing matrix, mixing or periodic schedule (W_t acts at step t).
        learning_rate: step size eta.
        zeta: noise level E|g|^2 / |x|^2.
        steps: number of steps, at least 1.

    Returns:
        [steps, n]; row t is taken after t + 1 steps.

    Raises:
        ValueError: as `isotropic_rate`, and for steps < 1.

    Example:
        >>> expected_square_norm(np.eye(1), 0.1, 10.0, 2).round(6).tolist()
        [[0.9], [0.81]]

    References:
        Extended paper, Section 3.
    """
    learning_rate, zeta = _check(learning_rate, zeta)
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}; row 0 is taken after the first step")
    matrices = period_matrices(W)
    n = matrices.shape[1]
    factors, moments = _moment_factors(n, learning_rate, zeta), np.ones((n, n))
    rows = []
    for step in range(steps):
        matrix = matrices[step % len(matrices)]
        moments = matrix @ (factors * moments) @ matrix.T
        rows.append(np.diagonal(moments))
    return np.stack(rows)
