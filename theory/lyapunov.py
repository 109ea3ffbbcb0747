"""Theorem 6 of Vogels et al.: a Lyapunov function for combine-then-adapt D-SGD that knows the topology.

The update is x_i <- sum_j w_ij x_j - learning_rate g_i(x_i) (eq. 19). With the multi-step averaging matrix
M = (1 - decay) sum_{k >= 1} decay^{k-1} W^{2k} and L_M = I - M the Lyapunov function is

    V(x) = |x - x*|^2_M + omega |x - x*|^2_{L_M} = (1 - omega) |x - x*|^2_M + omega |x - x*|^2                   (24)

around the fixed point of the noiseless update, eta grad F(x*) + (I - W) x* = 0, which is no consensus where the f_i
differ. Norms are over the stacked vector, F(x) = sum_i f_i(x_i).

Corollary 7 (omega = 1 / n_W) is printed with its inequality reversed: the noise branch is the smaller one when
4 beta (2 zeta / n_W + L) / n_W >= L, and equality gives the best decay.

References:
    Vogels, Hendrikx, Jaggi, "Beyond spectral gap (extended)", 2023, Section 4, eqs. (19)-(34), Theorem 6.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from theory.matrices import MixingLike, Scalar, check_decay, symmetric_matrix
from theory.neighbors import random_walk_covariance, variance_profile

_FORMS = ("eq22", "conference")


def averaging_matrix(W: MixingLike, decay: Scalar) -> Float[np.ndarray, "n n"]:
    """The multi-step averaging matrix M = (1 - decay) W^2 (I - decay W^2)^{-1}.

    It is W^2 at decay 0 and tends to 11'/n; its diagonal holds 1 / n_W of each node.

    Args:
        W: [n, n] symmetric doubly stochastic matrix or mixing.
        decay: weight kept per step, in [0, 1).

    Returns:
        [n, n] symmetric doubly stochastic matrix.

    Raises:
        ValueError: when W is not symmetric or decay is outside [0, 1).

    Example:
        >>> W = np.array([[0.75, 0.25], [0.25, 0.75]])
        >>> averaging_matrix(W, 0.0)
        array([[0.625, 0.375],
               [0.375, 0.625]])

    References:
        Extended paper, eq. (21).
    """
    return (1 - float(decay)) * random_walk_covariance(symmetric_matrix(W), decay)


def beta(W: MixingLike, decay: Scalar, form: str = "eq22") -> float:
    """The largest beta with I - M <= (I - W) W / beta: how much of M's disagreement one gossip step sees.

    beta = min over eigenvalues lambda != 1 of lambda (1 - decay lambda^2) / (1 + lambda). It is positive only for a
    positive definite W. The form "conference", I - M <= (I - W) / beta, lacks the factor lambda; the paper's remark
    that beta lies between 1 - lambda_2 and 1 is about that one.

    Args:
        W: [n, n] symmetric doubly stochastic matrix or mixing.
        decay: in [0, 1).
        form: "eq22" (Theorem 6) or "conference".

    Returns:
        beta, infinite where every eigenvalue is 1 (no gossip).

    Raises:
        ValueError: when beta <= 0, that is W is not positive definite: no learning rate is admissible then.

    Example:
        >>> W = np.array([[0.75, 0.25], [0.25, 0.75]])
        >>> round(beta(W, 0.5), 6)
        0.291667

    References:
        Extended paper, eqs. (22) and (33).
    """
    if form not in _FORMS:
        raise ValueError(f"form: expected one of {', '.join(_FORMS)}, got {form!r}")
    decay = check_decay(decay)
    values = np.linalg.eigvalsh(symmetric_matrix(W))
    values = values[values < 1 - 1e-9]
    if form == "eq22" and values.size and values.min() <= 1e-12:
        raise ValueError(
            f"W: expected positive eigenvalues, got {values.min():.6g}, for which beta <= 0 and no learning rate is "
            "admissible; make W lazy: adozoo.weights.lazy(W)"
        )
    values = values[values > -1 + 1e-9]  # at -1 the ratio is infinite, hence not the minimum
    ratios = (values if form == "eq22" else 1) * (1 - decay * values**2) / (1 + values)
    return float(ratios.min(initial=math.inf))


def beta_lower_bound(second_eigenvalue: Scalar, decay: Scalar) -> float:
    """The simpler beta = (1 - decay lambda_2) / 4, admissible where every eigenvalue of W is at least 1/2.

    One lazy step (I + W) / 2 gives that for a positive semidefinite W only; the paper says always. Take two otherwise.

    Args:
        second_eigenvalue: lambda_2 of W.
        decay: in [0, 1).

    Returns:
        A lower bound on `beta(W, decay)`.

    Raises:
        ValueError: for a decay outside [0, 1).

    Example:
        >>> round(beta_lower_bound(0.75, 0.5), 6)
        0.15625

    References:
        Extended paper, eq. (34).
    """
    return float(1 - check_decay(decay) * second_eigenvalue) / 4


@dataclass(frozen=True)
class Theorem6:
    """Learning rates and contraction that Theorem 6 grants.

    Attributes:
        learning_rate_consensus: beta omega / L, the branch that keeps nodes together.
        learning_rate_noise: 1 / (4 [(1 / n_W + omega) zeta + L]), the branch that keeps noise down.
        learning_rate: the smaller one, the largest admissible learning rate.
        contraction: 1 - learning_rate mu, the factor of the Lyapunov function per step.
        effective_neighbors: n_W(decay), of the worst node.
        omega: weight of the disagreement in the Lyapunov function.
        beta: the constant of eq. (22).
    """

    learning_rate_consensus: float
    learning_rate_noise: float
    learning_rate: float
    contraction: float
    effective_neighbors: float
    omega: float
    beta: float


def _worst_neighbors(W: MixingLike, decay: float) -> float:
    return float(1 / variance_profile(symmetric_matrix(W))(decay).max())


def _weight(omega: Scalar | None, neighbors: float) -> float:
    if omega is None:
        return 1 / neighbors
    if not 0 <= omega <= 1:
        raise ValueError(f"omega: expected 0 <= omega <= 1, got {omega}; 1 / n_W is the usual choice (None)")
    return float(omega)


def theorem6(
    W: MixingLike,
    decay: Scalar,
    strong_convexity: Scalar,
    smoothness: Scalar,
    zeta: Scalar,
    omega: Scalar | None = None,
) -> Theorem6:
    """Learning rates under which E V(x^{t+1}) <= (1 - eta mu) V(x^t) + eta^2 sigma_M^2 for combine-then-adapt D-SGD.

    eta <= min{ beta(decay) omega / L, 1 / (4 [(1 / n_W(decay) + omega) zeta + L]) },
    sigma_M^2 = 2 [(1 - omega) / n_W + omega] E|grad F_xi(x*) - grad F(x*)|^2. Any decay is allowed: the best one trades
    noise reduction (large n_W) against beta.

    Args:
        W: [n, n] symmetric positive definite doubly stochastic matrix or mixing.
        decay: in [0, 1).
        strong_convexity: mu >= 0 of every f_i.
        smoothness: L of every f_i.
        zeta: E[zeta_xi D_{f_xi}(x, y)] <= zeta D_f(x, y) for the sampled functions, zeta_xi-smooth; at least L.
        omega: weight in [0, 1], 1 / n_W by default.

    Returns:
        `Theorem6`.

    Raises:
        ValueError: when W has eigenvalues <= 0 (make it lazy) or a constant is out of range.

    Example:
        >>> W = np.array([[0.75, 0.25], [0.25, 0.75]])
        >>> round(theorem6(W, 0.5, 0.1, 1.0, 10.0).learning_rate, 6)
        0.020115

    References:
        Extended paper, Theorem 6 (eq. 25); M_ii is replaced by its maximum where nodes differ.
    """
    if not 0 <= strong_convexity <= smoothness or not 0 < smoothness < math.inf:
        raise ValueError(
            "strong_convexity, smoothness: expected 0 <= mu <= L and L > 0, "
            f"got {strong_convexity} and {smoothness}; pass the extreme curvatures of the f_i"
        )
    if not zeta >= smoothness:
        raise ValueError(f"zeta: expected at least the smoothness {smoothness}, got {zeta}; without noise they agree")
    decay = check_decay(decay)
    neighbors, constant = _worst_neighbors(W, decay), beta(W, decay)
    omega = _weight(omega, neighbors)
    consensus = constant * omega / smoothness if omega else 0.0
    noise = 1 / (4 * ((1 / neighbors + omega) * zeta + smoothness))
    learning_rate = float(min(consensus, noise))
    return Theorem6(
        learning_rate_consensus=float(consensus),
        learning_rate_noise=float(noise),
        learning_rate=learning_rate,
        contraction=float(1 - learning_rate * strong_convexity),
        effective_neighbors=neighbors,
        omega=omega,
        beta=constant,
    )


def _curvatures(curvatures: np.ndarray, minimizers: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """[n, d, d] and [n, d] from either of the two forms that `fixed_point` takes."""
    A, b = np.asarray(curvatures, np.float64), np.asarray(minimizers, np.float64)
    A, b = (A[:, None, None], b[:, None]) if A.ndim == 1 and b.ndim == 1 else (A, b)
    if b.ndim != 2 or b.shape[0] != n or A.shape != (*b.shape, b.shape[1]):
        raise ValueError(
            f"curvatures, minimizers: expected [n] and [n], or [n, d, d] and [n, d], with n = {n}; "
            f"got {np.shape(curvatures)} and {np.shape(minimizers)}"
        )
    return A, b


def fixed_point(
    W: MixingLike,
    learning_rate: Scalar,
    curvatures: Float[np.ndarray, "..."],
    minimizers: Float[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    """Fixed point of noiseless combine-then-adapt D-SGD on quadratics f_i(x) = (x - b_i)' A_i (x - b_i) / 2.

    It solves eta grad F(x) + (I - W) x = 0: the common minimum where the f_i share one, otherwise a compromise that
    tends to the minimum of F over consensual x as the learning rate tends to 0.

    Args:
        W: [n, n] symmetric doubly stochastic matrix or mixing.
        learning_rate: eta > 0.
        curvatures: [n] numbers or [n, d, d] matrices A_i.
        minimizers: [n] numbers or [n, d] vectors b_i.

    Returns:
        x*, shaped as the minimizers.

    Raises:
        ValueError: for a learning rate that is not positive or shapes that do not fit.

    Example:
        >>> W = np.full((2, 2), 0.5)
        >>> fixed_point(W, 1.0, np.ones(2), np.array([-1.0, 1.0])).round(6).tolist()
        [-0.5, 0.5]

    References:
        Extended paper, eq. (23).
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate: expected a positive number, got {learning_rate}; see theorem6(...)")
    matrix = symmetric_matrix(W)
    A, b = _curvatures(curvatures, minimizers, len(matrix))
    n, d = b.shape
    system = np.kron(np.eye(n) - matrix, np.eye(d)).reshape(n, d, n, d)
    system[np.arange(n), :, np.arange(n), :] += float(learning_rate) * A
    right = float(learning_rate) * np.einsum("nij,nj->ni", A, b)
    return np.linalg.solve(system.reshape(n * d, n * d), right.ravel()).reshape(np.shape(minimizers))


@dataclass(frozen=True)
class OneStep:
    """One step of combine-then-adapt D-SGD measured by the Lyapunov function of Theorem 6.

    Attributes:
        lyapunov: V(x^0).
        expected_lyapunov: E V(x^1), exactly.
        bound: (1 - eta mu) V(x^0) + eta^2 sigma_M^2.
        noise: sigma_M^2.
    """

    lyapunov: float
    expected_lyapunov: float
    bound: float
    noise: float


def one_step(
    W: MixingLike,
    decay: Scalar,
    learning_rate: Scalar,
    curvatures: Float[np.ndarray, " n"],
    minimizers: Float[np.ndarray, " n"],
    start: Float[np.ndarray, " n"],
    additive_noise: Float[np.ndarray, " n"],
    multiplicative_variance: Scalar = 1.0,
    omega: Scalar | None = None,
) -> OneStep:
    """Both sides of Theorem 6 after one step on noisy, heterogeneous scalar quadratics f_i(x) = a_i (x - b_i)^2 / 2.

    The stochastic gradient is s a_i (x - b_i) + sigma_i N(0, 1), independent per node, with s >= 0 of mean 1 and
    variance v (s in {0, 2} with equal chance has v = 1), so that zeta = (1 + v) L. The expectation is exact: the mean
    of x^1 moves by the noiseless update, and its covariance is diagonal.

    Args:
        W: [n, n] symmetric doubly stochastic matrix or mixing.
        decay: in [0, 1).
        learning_rate: eta > 0; the bound is Theorem 6 where it is at most `theorem6(...).learning_rate`.
        curvatures: [n] positive numbers a_i.
        minimizers: [n] numbers b_i.
        start: [n] numbers x^0.
        additive_noise: [n] standard deviations sigma_i.
        multiplicative_variance: v >= 0.
        omega: weight in [0, 1], 1 / n_W by default.

    Returns:
        `OneStep`.

    Raises:
        ValueError: for arguments out of range or shapes that do not fit.

    Example:
        >>> W, one = np.array([[0.75, 0.25], [0.25, 0.75]]), np.ones(2)
        >>> step = one_step(W, 0.5, 0.05, one, 0 * one, one, 0 * one)
        >>> round(step.expected_lyapunov, 6), round(step.bound, 6)
        (1.809082, 1.9)

    References:
        Extended paper, Theorem 6 with eqs. (19), (24).
    """
    if not multiplicative_variance >= 0:
        raise ValueError(f"multiplicative_variance: expected at least 0, got {multiplicative_variance}; 0 is no noise")
    matrix, decay = symmetric_matrix(W), check_decay(decay)
    n = len(matrix)
    if not np.shape(curvatures) == np.shape(minimizers) == np.shape(start) == np.shape(additive_noise) == (n,):
        raise ValueError(f"curvatures, minimizers, start, additive_noise: expected shape ({n},), as W has {n} nodes")
    center = fixed_point(matrix, learning_rate, curvatures, minimizers)
    neighbors = _worst_neighbors(matrix, decay)
    omega = _weight(omega, neighbors)
    norm = (1 - omega) * averaging_matrix(matrix, decay) + omega * np.eye(n)
    eta = float(learning_rate)

    def gradient_variance(x: np.ndarray) -> np.ndarray:
        return multiplicative_variance * (curvatures * (x - minimizers)) ** 2 + additive_noise**2

    error = start - center
    mean_error = matrix @ start - eta * curvatures * (start - minimizers) - center
    lyapunov = float(error @ norm @ error)
    expected = mean_error @ norm @ mean_error + eta**2 * np.diagonal(norm) @ gradient_variance(start)
    noise = float(2 * ((1 - omega) / neighbors + omega) * gradient_variance(center).sum())
    bound = (1 - eta * float(np.min(curvatures))) * lyapunov + eta**2 * noise
    return OneStep(lyapunov, float(expected), float(bound), noise)
