r"""Invariant subspaces and spectral radii: which modes of a linear map a method can reach, and the slowest of them.

The map z <- T z + c of a method conserves some quantities (left null vectors of T - I), which stay as `init` set them,
and may keep state that no params can reach. Neither may count in a rate. Dropping eigenvalues near 1 by hand would drop
slow modes with them, and a Krylov basis started outside range(T - I) picks conserved directions up by rounding. So the
range of T - I comes first, and Krylov spaces are grown inside it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from jaxtyping import Float, Inexact

RANK_TOLERANCE = 1e-10
"""Directions of a matrix below this, relative to the largest one, count as zero."""
DENSE_LIMIT = 250
"""Up to this many dimensions all eigenvalues are computed; beyond, only the largest ones, by Arnoldi's method."""
SQUARINGS = (4, 6, 8)
"""Arnoldi's method is applied to the 2^s-th power, for the first s in this list for which it converges."""
NUDGE = 1e-13
"""By how much a singular matrix is changed so that it can be inverted."""
EXCITED = 1e-7
"""A mode counts as excited where it makes up this much of the error."""
ROUNDING = 1e-14
"""What seeds of size 1 may hold of a mode that they do not excite."""


def range_basis(matrix: Float[np.ndarray, "N k"], floor: float = 0.0) -> Float[np.ndarray, "N r"]:
    """An orthonormal basis of the range of a matrix, by QR with column pivoting.

    Args:
      matrix: any matrix, [N, k].
      floor: directions below this size count as zero too, whatever the largest one is.

    Returns:
      The basis, [N, r].

    Example:
      >>> theory.subspaces.range_basis(np.ones((3, 2))).shape
      (3, 1)
    """
    if not matrix.size:
        return np.zeros((matrix.shape[0], 0))
    q, r = map(np.asarray, scipy.linalg.qr(matrix, mode="economic", pivoting=True, check_finite=False)[:2])
    sizes = np.abs(np.diagonal(r))
    return q[:, : int(np.sum(sizes > max(RANK_TOLERANCE * sizes[0], floor, 1e-300)))]


def null_basis(matrix: Float[np.ndarray, "N N"]) -> Float[np.ndarray, "N m"]:
    """An orthonormal basis of the null space of a square matrix.

    Large matrices: inverse iteration from random vectors, as many as the null space turns out to need. That is one LU
    decomposition in place of a rank-revealing one, which takes ten times as long.

    Args:
      matrix: [N, N].

    Returns:
      The basis, [N, m].

    Example:
      >>> abs(theory.subspaces.null_basis(np.diag([2.0, 0.0, 1.0])).T).round(6)
      array([[0., 1., 0.]])
    """
    size = matrix.shape[0]
    tolerance = RANK_TOLERANCE * float(np.linalg.norm(matrix, axis=0).max(initial=0))
    rng = np.random.default_rng(0)
    if size > DENSE_LIMIT and tolerance > 0:
        nudged = matrix + np.diag(NUDGE * np.abs(matrix).max() * rng.choice([-1.0, 1.0], size))
        factors = scipy.linalg.lu_factor(nudged, check_finite=False)
        for count in (size // 64, size // 16, size // 4):
            vectors = rng.normal(size=(size, count))
            for _ in range(3):
                vectors = np.linalg.qr(scipy.linalg.lu_solve(factors, vectors, check_finite=False))[0]
            _, sizes, mixtures = np.linalg.svd(matrix @ vectors, full_matrices=False)
            if sizes[0] > tolerance:  # not all of them are null vectors: there are no others
                return vectors @ mixtures[sizes <= tolerance].T
    q, r = map(np.asarray, scipy.linalg.qr(matrix.T, pivoting=True, check_finite=False)[:2])
    return q[:, int(np.sum(np.abs(np.diagonal(r)) > tolerance)) :]


def moving_basis(matrices: Sequence[np.ndarray] | Float[np.ndarray, "K N N"]) -> Float[np.ndarray, "N r"]:
    r"""An orthonormal basis of \sum_w range(T_w - I): all that some T_w moves; it is invariant under every T_w.

    Its orthogonal complement holds the quantities that all T_w conserve.

    Example:
      >>> pair = np.array([[0.5, 0.5], [0.5, 0.5]])  # averaging conserves the sum
      >>> abs(theory.subspaces.moving_basis([pair]).ravel()).round(6)
      array([0.707107, 0.707107])
    """
    moves = [matrix - np.eye(matrix.shape[0]) for matrix in matrices]
    if len(moves) == 1:
        return range_basis(moves[0])
    # The range of [M_1 ... M_K] is that of R', the triangular factor of the tall stack of the M_w'.
    triangle = np.asarray(np.linalg.qr(np.concatenate([move.T for move in moves]), mode="r"))
    return range_basis(triangle.T)


def reachable_basis(
    matrices: Sequence[np.ndarray] | Float[np.ndarray, "K N N"], seeds: Float[np.ndarray, "N s"]
) -> Float[np.ndarray, "N r"]:
    """An orthonormal basis of the smallest subspace that holds the seeds and is invariant under every matrix.

    A block Krylov space: seeds should be of size about 1, since what they reach below `RANK_TOLERANCE` counts as zero.

    Example:
      >>> shift = np.diag([1.0, 1.0], -1)
      >>> theory.subspaces.reachable_basis([shift], np.eye(3)[:, 1:2]).shape
      (3, 2)
    """
    basis = fresh = range_basis(seeds, RANK_TOLERANCE)
    floor = RANK_TOLERANCE * (1 + max(float(np.abs(matrix).max(initial=0)) for matrix in matrices))
    while fresh.shape[1] and basis.shape[1] < basis.shape[0]:
        images = np.hstack([matrix @ fresh for matrix in matrices])
        fresh = range_basis(images - basis @ (basis.conj().T @ images), floor)
        # A small remainder is normalised together with its rounding errors: make it orthogonal once more.
        fresh = np.linalg.qr(fresh - basis @ (basis.conj().T @ fresh))[0]
        basis = np.hstack([basis, fresh])
    return basis


def spectral_radius(matrix: Inexact[np.ndarray, "r r"]) -> float:
    r"""The largest modulus of an eigenvalue, \rho(M).

    Large matrices: Arnoldi's method on M^{256}, since \rho(M)^{256} = \rho(M^{256}) and eight squarings set apart what
    slow methods have close together near 1; all eigenvalues where it does not converge.

    Example:
      >>> theory.linear.spectral_radius(np.array([[0.0, 1.0], [-0.25, 0.0]]))
      0.5
    """
    if 0 < matrix.shape[0] <= DENSE_LIMIT:
        return float(np.abs(np.linalg.eigvals(matrix)).max())
    return float(np.abs(_slowest(matrix)[0]).max(initial=0))


def reachable_radius(matrix: Inexact[np.ndarray, "r r"], seeds: Inexact[np.ndarray, "r s"]) -> float:
    r"""The largest |lambda| among the modes of a matrix that the seeds excite.

    Seeds are first differences: a mode that they hold with size s makes up s / (1 - lambda) of the error itself, which
    is what counts. Left eigenvectors w' of modes that no seed excites see w' seeds = 0; the slowest mode of all is
    tried first, since it is excited most often.

    Args:
      matrix: T on range(T - I), [r, r].
      seeds: [r, s], of size about 1.

    Example:
      >>> diagonal = np.diag([0.9, 0.5])
      >>> theory.subspaces.reachable_radius(diagonal, np.array([[0.0], [1.0]]))
      0.5
    """
    if not seeds.size:
        return 0.0
    values, left = _slowest(matrix)
    if _excited(values, left, seeds).any():
        return float(np.abs(values[0]))
    values, left = map(np.asarray, scipy.linalg.eig(matrix, left=True, right=False, check_finite=False))
    return float(np.abs(values[_excited(values, left, seeds)]).max(initial=0))


def _excited(values: np.ndarray, left: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    seen = np.abs(left.conj().T @ seeds).max(axis=1, initial=0)
    return seen > np.maximum(EXCITED * np.abs(1 - values), ROUNDING)


def unit_seeds(*blocks: Inexact[np.ndarray, "N _"]) -> Inexact[np.ndarray, "N s"]:
    """Seeds of different scales, each block scaled to largest entry 1; blocks of rounding errors are left out."""
    sizes = [float(np.abs(block).max(initial=0)) for block in blocks]
    kept = [block / size for block, size in zip(blocks, sizes, strict=True) if size > 1e-13]
    return np.hstack(kept) if kept else np.zeros((blocks[0].shape[0], 0))


def linear_operator(size: int, apply: Callable[[np.ndarray], Any]) -> scipy.sparse.linalg.LinearOperator:
    """A linear map of real vectors of one size, given by what it does, for SciPy's iterative methods.

    Example:
      >>> theory.subspaces.linear_operator(2, lambda v: 3 * v) @ np.ones(2)
      array([3., 3.])
    """
    options: Any = {"matvec": lambda v: apply(np.ravel(v)), "dtype": np.float64}  # the stubs know neither
    return scipy.sparse.linalg.LinearOperator((size, size), **options)


def _slowest(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvalues of largest modulus, and their left eigenvectors."""
    if matrix.shape[0] > DENSE_LIMIT and (found := _slowest_of_many(matrix)) is not None:
        return found
    values, left = map(np.asarray, scipy.linalg.eig(matrix, left=True, right=False, check_finite=False))
    sizes = np.abs(values)
    top = sizes >= sizes.max(initial=0) * (1 - 1e-12)
    return values[top], left[:, top]


def _slowest_of_many(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The same by Arnoldi's method on the transpose of a power of the matrix, or None where that fails.

    Of the eigenvalues only the modulus is known then, and that they are no closer to 1 than it is.
    """
    power, log_scale = matrix.T, 0.0  # matrix'^(2^k) = exp(log_scale) * power
    start = np.random.default_rng(0).normal(size=matrix.shape[0])
    for squarings in range(1, SQUARINGS[-1] + 1):
        norm = np.linalg.norm(power)
        if not np.isfinite(norm) or norm == 0:
            return None
        power, log_scale = (power / norm) @ (power / norm), 2 * (log_scale + np.log(norm))
        if squarings in SQUARINGS:
            patience = None if squarings == SQUARINGS[-1] else 1
            try:
                values, vectors = scipy.sparse.linalg.eigs(power, k=4, ncv=100, v0=start, tol=1e-13, maxiter=patience)
            except scipy.sparse.linalg.ArpackError:
                continue
            sizes = np.abs(values)
            top = sizes >= sizes.max() * (1 - 1e-9)
            radius = np.exp((np.log(sizes.max()) + log_scale) / 2**squarings)
            return np.full(top.sum(), radius), vectors[:, top].conj()
    return None
