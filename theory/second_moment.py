r"""Second moments of random linear iterations z <- T_w z: their exact factor, and where noise makes them settle.

If T_w is drawn in each step with probability p_w, independently of the past, S = E[z z'] obeys
S <- \sum_w p_w T_w S T_w', a linear map that keeps positive semi-definite matrices so. By Perron and Frobenius its
spectral radius is an eigenvalue with a positive semi-definite eigenvector: the factor by which E||z||^2 shrinks in a
step, never below the squared rate of the mean, \rho(\sum_w p_w T_w)^2. What no T_w moves is split off: all happens in
\sum_w range(T_w - I).

References:
  Boyd, Ghosh, Prabhakar, Shah, Randomized gossip algorithms, IEEE Trans. Inf. Theory 2006 (gossip).
  Costa, Fragoso, Marques, Discrete-time Markov jump linear systems, 2005 (the operator).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse.linalg
from jaxtyping import Float

from theory.subspaces import linear_operator, moving_basis

DENSE_PAIRS = 400
"""Up to this many entries of a second moment all eigenvalues of its map are computed."""
STORED_PAIRS = 3000
"""Up to this many entries of a second moment its map is stored as a matrix; beyond, applied outcome by outcome."""
RANDOM_WALK = 1e-9
"""Noise that moves what all matrices conserve by more than this, relative to its size, makes it a random walk."""


class SecondMomentRate(NamedTuple):
    """How fast the second moment of z <- T_w z shrinks."""

    factor: float  # of E||z||^2 per step
    residual: float  # ||Phi(S) - factor S|| / ||S|| of the eigenvector S found
    dimension: int  # of the space that some outcome moves


def second_moment_rate(matrices: Any, probabilities: Any) -> SecondMomentRate:
    r"""The factor by which E||z||^2 shrinks in a step of z <- T_w z, for T_w drawn anew with probability p_w.

    Any random linear iteration: gossip, coordinate or compression masks, Kaczmarz. What all T_w conserve is left out:
    the second moment lives in \sum_w range(T_w - I).

    Args:
      matrices: T_w, [K, N, N].
      probabilities: p_w, [K].

    Returns:
      The factor, and the residual of the eigenvector behind it.

    Raises:
      ValueError: for shapes that do not fit, or probabilities that are negative or do not sum to one.

    Example:
      >>> n = 6  # pairwise gossip on the complete graph: 1 - 1 / (n - 1)
      >>> pairs = [
      ...     np.eye(n) - np.outer(u, u) / 2
      ...     for i in range(n)
      ...     for j in range(i)
      ...     for u in [np.eye(n)[i] - np.eye(n)[j]]
      ... ]
      >>> print(f"{theory.second_moment_rate(pairs, np.full(15, 1 / 15)).factor:.12f}")
      0.800000000000
    """
    stack, weights = _checked(matrices, probabilities)
    basis = moving_basis(stack)
    return perron([Moments(basis.T @ stack @ basis, weights)])


def second_moment_stationary(
    matrices: Any, probabilities: Any, noise: Float[np.ndarray, "N N"]
) -> Float[np.ndarray, "N N"]:
    r"""The stationary second moment of z <- T_w z + \xi, with fresh noise: S = Q + \sum_w p_w T_w S T_w'.

    Args:
      matrices: T_w, [K, N, N].
      probabilities: p_w, [K].
      noise: Q, [N, N], inside the space that some T_w moves.

    Returns:
      S, [N, N]; infinite where the second moment does not settle.

    Raises:
      ValueError: as in `second_moment_rate`, or for noise that moves what all T_w conserve.

    Example:
      >>> theory.second_moment_stationary(
      ...     [np.zeros((1, 1)), np.eye(1)], [0.5, 0.5], np.eye(1)
      ... )
      array([[2.]])
    """
    stack, weights = _checked(matrices, probabilities)
    basis = moving_basis(stack)
    inside = basis.T @ noise @ basis
    if np.abs(noise - basis @ inside @ basis.T).max(initial=0) > RANDOM_WALK * np.abs(noise).max(initial=0):
        raise ValueError(
            "second_moment_stationary: noise moves a quantity that all matrices conserve, which takes a random walk. "
            "Project it onto what they move."
        )
    moment = settled([Moments(basis.T @ stack @ basis, weights)], [inside])
    return basis @ moment @ basis.T if np.isfinite(moment).all() else np.full(stack.shape[1:], np.inf)


def _checked(matrices: Any, probabilities: Any) -> tuple[np.ndarray, np.ndarray]:
    stack, weights = np.asarray(matrices, np.float64), np.asarray(probabilities, np.float64)
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or weights.shape != stack.shape[:1]:
        raise ValueError(
            f"second_moment: expected matrices [K, N, N] and probabilities [K], got {stack.shape} and {weights.shape}."
        )
    if weights.min() < 0 or abs(weights.sum() - 1) > 1e-9:
        raise ValueError(
            f"second_moment: probabilities must be >= 0 and sum to one, got a sum of {weights.sum():.9g}. "
            "Normalise them."
        )
    return stack, weights


class Moments:
    """The map of second moments S -> sum_w p_w T_w S T_w', [r, r] -> [r, r]."""

    def __init__(self, transitions: Float[np.ndarray, "K r r"], weights: Float[np.ndarray, " K"]):
        self.transitions, self.weights = transitions, weights
        self.mean = np.tensordot(weights, transitions, 1)
        self.size = transitions.shape[1]
        self.stored = self.matrix() if self.size**2 <= STORED_PAIRS else None

    def matrix(self) -> Float[np.ndarray, "rr rr"]:
        """The map as a matrix on the entries of S."""
        flat = self.transitions.reshape(len(self.weights), -1)
        pairs = ((flat * self.weights[:, None]).T @ flat).reshape(4 * (self.size,))  # (i j, k l): sum p T_ij T_kl
        return pairs.transpose(0, 2, 1, 3).reshape(self.size**2, self.size**2)

    def __call__(self, moment: Float[np.ndarray, "r r"]) -> Float[np.ndarray, "r r"]:
        if self.stored is not None:
            return (self.stored @ moment.ravel()).reshape(moment.shape)
        return np.einsum("k,kij->ij", self.weights, self.transitions @ moment @ self.transitions.swapaxes(1, 2))


def _through(moments: Sequence[Moments], moment: np.ndarray) -> np.ndarray:
    for step in moments:
        moment = step(moment)
    return moment


def _period_matrix(moments: Sequence[Moments]) -> np.ndarray:
    """The matrix of a whole period's map."""
    product = np.eye(moments[0].size ** 2)
    for step in moments:
        product = step.matrix() @ product
    return product


def perron(moments: Sequence[Moments]) -> SecondMomentRate:
    """The largest eigenvalue of a period's map: out of all where it is small, by Arnoldi's method from S = I elsewhere.

    Example:
      >>> halve = theory.second_moment.Moments(np.full((1, 2, 2), 0.25), np.ones(1))
      >>> print(f"{theory.second_moment.perron([halve]).factor:.6f}")
      0.250000
    """
    size = moments[0].size
    if not size:
        return SecondMomentRate(0.0, 0.0, 0)

    def apply(flat: np.ndarray) -> np.ndarray:
        return _through(moments, flat.reshape(size, size)).ravel()

    start = np.eye(size).ravel()
    if size**2 <= DENSE_PAIRS:
        values, vectors = np.linalg.eig(_period_matrix(moments))
    elif not apply(start).any():
        return SecondMomentRate(0.0, 0.0, size)
    else:
        operator = linear_operator(size**2, apply)
        values, vectors = scipy.sparse.linalg.eigs(operator, k=2, v0=start, ncv=40, tol=1e-13, maxiter=500)
    top = int(np.argmax(np.abs(values)))
    vector = vectors[:, top]
    image = apply(vector.real) + 1j * apply(vector.imag)
    residual = np.linalg.norm(image - values[top] * vector) / np.linalg.norm(vector)
    return SecondMomentRate(float(np.abs(values[top])), float(residual), size)


def settled(moments: Sequence[Moments], noises: Sequence[np.ndarray]) -> np.ndarray:
    """S = Phi(S) + Q of a period, given the noise of each of its steps; infinite where the factor is not below 1."""
    size = moments[0].size
    if perron(moments).factor >= 1:
        return np.full((size, size), np.inf)
    total = np.zeros((size, size))
    for step, noise in zip(moments, noises, strict=True):
        total = step(total) + noise
    if size**2 <= STORED_PAIRS:
        return np.linalg.solve(np.eye(size**2) - _period_matrix(moments), total.ravel()).reshape(size, size)
    operator = linear_operator(size**2, lambda s: s - _through(moments, s.reshape(size, size)).ravel())
    solution, failed = scipy.sparse.linalg.gmres(operator, total.ravel(), rtol=1e-12, restart=100, maxiter=50)
    if failed:
        raise ValueError(
            f"second_moment: the stationary one, of {size}^2 entries, was not solved for to 1e-12: the factor is too "
            "close to 1. Use a smaller problem, or simulate many runs."
        )
    return solution.reshape(size, size)
