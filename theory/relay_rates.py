r"""RelaySGD on quadratics, exactly: its linear rate, and the disagreement that RelaySGD/Grad is left with.

On f_j with Hessians H_j, the deviation of the stack of the last models (`theory.relay`) from its fixed point obeys

    y <- T y,    T = (W~ (x) I) (I - \gamma blkdiag(H_1, ..., H_n; 0)),

with the Hessians in the block of the newest models. T y = \lambda y says that \lambda x_i = (1/n) \sum_j
\lambda^{-\tau_ij} (I - \gamma H_j) x_j. Nothing but a direction v with \bar H v = 0, \bar H the mean of the Hessians,
has \lambda = 1: minimisers are then no single point, and how fast a run converges is said by the other eigenvalues,
among them those of W~ where all Hessians are flat, gradients are constant, and models only mix.
The eigenvalue's right vectors are x = v in the newest block and (I - \gamma H_j) v in the others; its left vectors are
l_(0,j) = (I - \gamma H_j) v and l_(k,j) = (1/n) \sum_{i : \tau_ij >= k} l_(0,i).

For small \gamma, first-order perturbation of \lambda = 1 gives \lambda = 1 - \gamma h / (1 + \bar\tau), h the
eigenvalues of \bar H. All of this is derived here.

Reference:
  Vogels et al., "RelaySum for decentralized deep learning on heterogeneous data", NeurIPS 2021 (the method).
"""

from typing import Any

import networkx as nx
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
from jaxtyping import Float

from theory.relay import Sparse, delay_matrix, learning_rate_correction, relay_matrix
from theory.subspaces import linear_operator, spectral_radius

FLAT = 1e-12
"""Eigenvalues of the mean Hessian below this, relative to the largest Hessian, count as zero."""
LARGE = 1000
"""Beyond this many dimensions T stays sparse, and Arnoldi's method is applied to its powers."""
POWERS = (16, 64, 256, 1024)
"""Which powers, the first for which Arnoldi's method converges: they set apart what lies close together near 1."""


def relay_rate(tree: nx.Graph, hessians: Any, learning_rate: float, overlap: bool = False) -> float:
    r"""RelaySGD's exact linear rate on quadratics: T's spectral radius, the eigenvalue 1 of flat directions left out.

    Args:
      tree: a networkx tree of n nodes.
      hessians: H_j, [n, d, d], symmetric.
      learning_rate: \gamma, with f_i's gradient H_i x - b_i and plain steps.
      overlap: as for `theory.delay_matrix`.

    Returns:
      The factor per step by which a run approaches its limit in the long term; above 1 it diverges.

    Raises:
      ValueError: if the Hessians do not fit the tree or are not symmetric, or Arnoldi's method does not converge.

    Example:
      >>> hessians = np.linspace(0.5, 1.5, 6)[:, None, None]
      >>> round(theory.relay_rate(adozoo.graphs.path(6), hessians, 0.2), 6)
      0.903734
    """
    stacked = _hessians(tree, hessians)
    transition = _transition(tree, stacked, learning_rate, overlap)
    right, left = _fixed(tree, stacked, learning_rate, overlap)
    # The component along the fixed directions: T - right (left' right)^-1 left' is T on all other modes.
    left = left @ np.linalg.inv(left.T @ right) if left.size else left
    if transition.shape[0] <= LARGE:
        return spectral_radius(transition.toarray() - right @ left.T)
    return _arnoldi(transition, right, left)


def relay_small_step_rate(tree: nx.Graph, hessians: Any, learning_rate: float, overlap: bool = False) -> float:
    r"""What `relay_rate` tends to as \gamma does to 0: 1 - \gamma \mu / (1 + \bar\tau) + O(\gamma^2).

    \mu is the smallest eigenvalue of the mean Hessian but zero. It is no bound: with a common Hessian and \gamma L <= 1
    rates lie between (1 - \gamma \mu)^{1 / (1 + \bar\tau)}, which is below this one, and (1 - \gamma \mu)^{1 / (1 +
    \tau)}, \tau the largest delay; on trees with a few long delays they are above this one.

    Args:
      tree: a networkx tree of n nodes.
      hessians: H_j, [n, d, d], symmetric.
      learning_rate: \gamma.
      overlap: as for `theory.delay_matrix`.

    Raises:
      ValueError: if the Hessians do not fit the tree, are not symmetric, or have mean zero.

    Example:
      >>> hessians = np.full((6, 1, 1), 0.5)
      >>> theory.relay_small_step_rate(adozoo.graphs.path(6), hessians, 0.19)
      0.955
    """
    stacked = _hessians(tree, hessians)
    curvature, _, flat = _spectrum(stacked)
    if flat.all():
        raise ValueError("relay_small_step_rate: hessians have mean zero: there is nothing to minimise. Pass others.")
    return 1 - learning_rate * float(curvature[~flat].min()) / learning_rate_correction(tree, overlap)


def relay_grad_bias(
    tree: nx.Graph, gradients: Any, learning_rate: float, overlap: bool = False
) -> Float[np.ndarray, "n ..."]:
    r"""How far from their mean the models of RelaySGD/Grad stay, given the gradients at which they come to rest.

    Its models are x_i^t = x^0 - (\gamma / n) \sum_j \sum_{s < t - \tau_ij} g_j^s, and two of them differ by the latest
    gradients alone, the ones that only one of them has heard of: where these have settled,

        x_i - x_k = (\gamma / n) \sum_j (\tau_ij - \tau_kj) g_j.

    Args:
      tree: a networkx tree of n nodes.
      gradients: g_j, [n, ...], at rest; they sum to zero there.
      learning_rate: \gamma.
      overlap: as for `theory.delay_matrix`.

    Returns:
      x_i minus the mean of all x_k, [n, ...].

    Raises:
      ValueError: if the gradients do not fit the tree.

    Example:
      >>> theory.relay_grad_bias(
      ...     adozoo.graphs.path(4), np.array([1.0, 0.0, 0.0, -1.0]), 0.4
      ... ).round(6).tolist()
      [-0.2, -0.1, 0.1, 0.2]
    """
    delays = delay_matrix(tree, overlap)
    given = np.asarray(gradients, np.float64)
    if given.ndim < 1 or len(given) != len(delays):
        raise ValueError(
            f"relay_grad_bias: gradients must be [n, ...] with n = {len(delays)}, the nodes of the tree, got shape "
            f"{given.shape}. Stack one gradient for each node."
        )
    return learning_rate / len(delays) * np.tensordot(delays - delays.mean(axis=0), given, axes=1)


def _hessians(tree: nx.Graph, hessians: Any) -> np.ndarray:
    stacked, n = np.asarray(hessians, np.float64), len(tree)
    if stacked.ndim != 3 or stacked.shape[0] != n or stacked.shape[1] != stacked.shape[2] or not stacked.size:
        raise ValueError(
            f"relay_rate: hessians must be [n, d, d] with n = {n}, the nodes of the tree, got shape {stacked.shape}. "
            "Stack one for each node."
        )
    if not np.allclose(stacked, stacked.transpose(0, 2, 1), rtol=0, atol=1e-9 * np.abs(stacked).max()):
        raise ValueError("relay_rate: hessians must be finite and symmetric, got H != H'. Pass (H + H') / 2.")
    return stacked


def _spectrum(hessians: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of the mean Hessian, and which of them are flat."""
    curvature, directions = np.linalg.eigh(hessians.mean(axis=0))
    return curvature, directions, np.abs(curvature) <= FLAT * np.abs(hessians).max()


def _transition(tree: nx.Graph, hessians: np.ndarray, learning_rate: float, overlap: bool) -> Sparse:
    dim = hessians.shape[1]
    W = relay_matrix(tree, overlap)
    older = W.shape[0] - len(hessians)
    steps = [sp.csr_array(np.eye(dim) - learning_rate * hessian) for hessian in hessians]
    blocks = sp.block_diag([*steps, sp.eye_array(older * dim)] if older else steps, format="csr")
    return sp.csr_array(sp.kron(W, sp.eye_array(dim), format="csr") @ blocks)


def _fixed(
    tree: nx.Graph, hessians: np.ndarray, learning_rate: float, overlap: bool
) -> tuple[Float[np.ndarray, "N f"], Float[np.ndarray, "N f"]]:
    """Right and left eigenvectors of T to the eigenvalue 1."""
    _, directions, flat = _spectrum(hessians)
    v = directions[:, flat]
    moved = v - learning_rate * hessians @ v  # [n, d, f]
    delays = delay_matrix(tree, overlap)
    lags = np.arange(1, delays.max() + 1)[:, None, None]
    right = [np.broadcast_to(v, moved.shape)[None], np.broadcast_to(moved, (len(lags), *moved.shape))]
    left = [moved[None], np.einsum("kij,idf->kjdf", delays >= lags, moved) / len(delays)]
    shape = ((len(lags) + 1) * hessians.shape[0] * hessians.shape[1], v.shape[1])
    return np.concatenate(right).reshape(shape), np.concatenate(left).reshape(shape)


def _arnoldi(transition: Sparse, right: np.ndarray, left: np.ndarray) -> float:
    """The spectral radius of T - right left' from that of its powers."""
    size = transition.shape[0]
    start = np.random.default_rng(0).normal(size=size)

    def power(vector: np.ndarray, count: int) -> np.ndarray:
        vector = vector - right @ (left.T @ vector)
        for _ in range(count):
            vector = transition @ vector
        return vector - right @ (left.T @ vector)

    for count in POWERS:
        operator = linear_operator(size, lambda vector, count=count: power(vector, count))
        try:
            values = scipy.sparse.linalg.eigs(
                operator, k=4, ncv=40, v0=start, tol=1e-12, maxiter=8, return_eigenvectors=False
            )
        except scipy.sparse.linalg.ArpackError:
            continue
        return float(np.abs(values).max() ** (1 / count))
    raise ValueError(
        f"relay_rate: Arnoldi's method did not converge on the {size} numbers that the tree and the Hessians make. "
        "Pass fewer nodes or coordinates, one eigenvalue of a common Hessian at a time for example."
    )
