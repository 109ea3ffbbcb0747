"""The effective number of neighbours n_W(decay) of a mixing: how much averaging does for noise that is soon forgotten.

Every node runs y <- sqrt(decay) y + noise; mixing adds z <- W (sqrt(decay) z + noise). The stationary covariance P of
z solves the Stein equation P = W (decay P + I) W', and n_W is the factor by which mixing reduces the variance:

    n_W(decay) = n / ((1 - decay) tr P),          P = sum_{k >= 1} decay^{k-1} W^k (W^k)'.

It runs from 1 (no help) to n (exact averaging), never decreases in the decay, and is finite for infinite graphs.

References:
    Vogels, Hendrikx, Jaggi, "Beyond spectral gap: the role of the topology in decentralized learning", NeurIPS 2022.
    Vogels, Hendrikx, Jaggi, "Beyond spectral gap (extended)", 2023, whose equation numbers are used here.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike
from scipy.optimize import root_scalar

from theory.matrices import MixingLike, Scalar, check_decay, is_symmetric, period_matrices

_MODES = ("mean", "worst", "all")


def _covariance(matrices: Float[np.ndarray, "p n n"], decay: float) -> Float[np.ndarray, "n n"]:
    """Solve the Stein equation of one period by doubling: all terms are positive semidefinite, so nothing cancels.

    The consensus direction, which never forgets but by the decay, is exact: W^k = J + (W - J)^k with J = 11'/n.
    """
    n = matrices.shape[1]
    covariance, transition = np.zeros((n, n)), np.eye(n)
    for matrix in matrices - 1 / n:
        covariance = matrix @ (decay * covariance + np.eye(n)) @ matrix.T
        transition = matrix @ transition
    factor = decay ** len(matrices)
    while factor > 1e-18:
        covariance = covariance + factor * transition @ covariance @ transition.T
        transition, factor = transition @ transition, factor * factor
    return covariance + 1 / (n * (1 - decay))


def random_walk_covariance(W: MixingLike, decay: Scalar, start_at: int = 1, phase: int = 0) -> Float[np.ndarray, "n n"]:
    """Stationary covariance of the decaying random walk z <- W (sqrt(decay) z + noise), unit noise on every node.

    P = sum_{k >= 1} decay^{k-1} W^k (W^k)'. For a periodic schedule P depends on the phase t: it is the covariance of
    the state just *before* W_t is applied, hence just after W_{t-1} (the convention of the authors' code, whose
    docstring says otherwise).

    Args:
        W: [n, n] doubly stochastic matrix, symmetric or not, a mixing, or a periodic schedule.
        decay: variance kept per step, in [0, 1).
        start_at: 1 averages fresh noise once; 0 adds the newest, not yet averaged noise: decay P + I.
        phase: step t modulo the period.

    Returns:
        [n, n] covariance.

    Raises:
        ValueError: for a decay outside [0, 1), another start_at, or a W that is not doubly stochastic.

    Example:
        >>> random_walk_covariance(np.full((2, 2), 0.5), 0.5)
        array([[1., 1.],
               [1., 1.]])

    References:
        Extended paper, Definition 1; for symmetric W, (1 - decay) P is the matrix M of eq. (21).
    """
    if start_at not in (0, 1):
        raise ValueError(f"start_at: expected 0 (fresh noise as it comes) or 1 (averaged once), got {start_at}")
    matrices, decay = period_matrices(W), check_decay(decay)
    covariance = _covariance(np.roll(matrices, -(phase % len(matrices)), axis=0), decay)
    return covariance if start_at == 1 else decay * covariance + np.eye(len(covariance))


def variance_profile(W: MixingLike) -> Callable[[float], Float[np.ndarray, "p n"]]:
    """Relative variances (1 - decay) P_ii of every phase and node, as a function of the decay that is cheap to call.

    A fixed symmetric W is diagonalised once; anything else solves the Stein equation at each call.

    Args:
        W: mixing matrix, mixing or periodic schedule.

    Returns:
        A function from a decay in [0, 1) to a [period, n] array, whose inverse is the effective number of neighbours.

    Example:
        >>> variance_profile(np.full((2, 2), 0.5))(0.9).round(6).tolist()
        [[0.5, 0.5]]
    """
    matrices = period_matrices(W)
    n = matrices.shape[1]
    if len(matrices) == 1 and is_symmetric(matrices[0]):
        values, vectors = np.linalg.eigh(matrices[0])
        squares, weights = np.square(values), np.square(vectors)
        # (1 - decay) + decay (1 - lambda^2) instead of 1 - decay lambda^2, which cancels as the decay tends to 1.
        missing = np.maximum(1 - squares, 0)
        return lambda decay: (weights @ ((1 - decay) * squares / ((1 - decay) + decay * missing)))[None]

    def profile(decay: float) -> Float[np.ndarray, "p n"]:
        covariance = _covariance(matrices, decay)
        rows = []
        for matrix in matrices:
            rows.append((1 - decay) * np.diagonal(covariance))
            covariance = matrix @ (decay * covariance + np.eye(n)) @ matrix.T
        return np.stack(rows)

    return profile


def effective_neighbors(
    W: MixingLike, decay: Scalar, mode: str = "mean", phase: int = 0
) -> float | Float[np.ndarray, " n"]:
    """Effective number of neighbours n_W(decay) of a mixing matrix or periodic schedule.

    mean: n / ((1 - decay) tr P), Definition 1; worst: 1 / ((1 - decay) max_i P_ii); all: 1 / ((1 - decay) P_ii). They
    agree where all nodes look alike, and differ much on stars and trees.

    Args:
        W: [n, n] doubly stochastic matrix, symmetric or not, a mixing, or a periodic schedule.
        decay: variance kept per step, in [0, 1).
        mode: "mean", "worst" or "all".
        phase: step modulo the period, as in `random_walk_covariance`.

    Returns:
        A number in [1, n], or an [n] array for "all" (there single nodes may lie outside).

    Raises:
        ValueError: for an unknown mode, a decay outside [0, 1) or a W that is not doubly stochastic.

    Example:
        >>> ring = np.array([[1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 1]]) / 3
        >>> (
        ...     round(effective_neighbors(ring, 0.0), 6),
        ...     round(effective_neighbors(ring, 0.9), 6),
        ... )
        (3.0, 3.857143)

    References:
        Extended paper, Definition 1 and Proposition 2 (eq. 6).
    """
    if mode not in _MODES:
        raise ValueError(f"mode: expected one of {', '.join(_MODES)}, got {mode!r}")
    rows = variance_profile(W)(check_decay(decay))
    variances = rows[phase % len(rows)]
    if mode == "all":
        return 1 / variances
    return float(1 / (variances.mean() if mode == "mean" else variances.max()))


def effective_neighbors_from_eigenvalues(
    eigenvalues: Float[Array, " n"] | Float[np.ndarray, " n"], decay: ScalarLike
) -> Float[Array, ""]:
    """Effective number of neighbours from the eigenvalues of a symmetric W: jit, grad and vmap in the decay.

    1 / n_W(decay) = (1 - decay) mean_i lambda_i^2 / (1 - decay lambda_i^2), which needs no regularity of the graph. For
    a normal W (circulant, directed) pass the moduli of the eigenvalues.

    Args:
        eigenvalues: [n], in float64 for decays near 1.
        decay: scalar in [0, 1), may be traced and is then not checked.

    Returns:
        Scalar array.

    Raises:
        ValueError: for a decay outside [0, 1) that is a Python number.

    Example:
        >>> import jax
        >>> values = jnp.array([1.0, 1 / 3, 1 / 3, -1 / 3])
        >>> print(f"{effective_neighbors_from_eigenvalues(values, 0.9):.4f}")
        3.8571
        >>> print(f"{jax.grad(effective_neighbors_from_eigenvalues, 1)(values, 0.5):.4f}")
        0.9600

    References:
        Extended paper, Proposition 2 (eq. 6).
    """
    if isinstance(decay, float | int):
        check_decay(decay)
    squares = jnp.square(jnp.asarray(eigenvalues))
    missing = jnp.maximum(1 - squares, 0)
    return 1 / jnp.mean((1 - decay) * squares / ((1 - decay) + decay * missing))


def decay_for_neighbors(W: MixingLike, value: Scalar, mode: str = "mean", phase: int = 0) -> float:
    """The decay at which a mixing has a given effective number of neighbours: the inverse of `effective_neighbors`.

    Args:
        W: mixing matrix, mixing or periodic schedule.
        value: effective number of neighbours, from that at decay 0 up to, and excluding, its limit at decay 1.
        mode: "mean" or "worst".
        phase: step modulo the period.

    Returns:
        The decay, found by bracketing on a logarithmic scale of 1 - decay.

    Raises:
        ValueError: for a value out of reach, naming the reachable range, or another mode.

    Example:
        >>> ring = np.array([[1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 1]]) / 3
        >>> round(decay_for_neighbors(ring, 3.857142857142857), 6)
        0.9
    """
    if mode not in ("mean", "worst"):
        raise ValueError(f'mode: expected "mean" or "worst", got {mode!r}')
    profile = variance_profile(W)

    def excess(exponent: float) -> float:
        rows = profile(-math.expm1(-exponent))
        variances = rows[phase % len(rows)]
        return float(1 / (variances.mean() if mode == "mean" else variances.max()) - value)

    low, high = 0.0, 30.0  # 1 - decay from 1 down to 1e-13
    if excess(low) > 1e-12 * value or excess(high) < 0:
        reach = f"[{excess(low) + value:.6g}, {excess(high) + value:.6g}]"
        raise ValueError(f"value: expected a number of neighbours in {reach}, got {value}; choose one inside")
    return 0.0 if excess(low) >= 0 else -math.expm1(-root_scalar(excess, bracket=(low, high), xtol=1e-14).root)
