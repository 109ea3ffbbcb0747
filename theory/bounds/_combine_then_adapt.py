r"""Exact expectations of combine-then-adapt D-SGD on noisy heterogeneous quadratics, many instances at once.

Node i has f_i(x) = a_i (x - b_i)^2 / 2 and sees the gradient s a_i (x - b_i) + s_i N(0, 1), with s of mean 1 and
variance v, so that zeta = (1 + v) L. One step is x <- W x - eta g, whose mean moves by W - eta diag(a) and whose noise
is independent from node to node: first and second moments are known after any number of steps.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from theory.bounds._laplacians import Measured, Table, columns, laplacians, logarithmic, mean_free, tiled

SMALL = (2, 3, 4, 6)
TINY = (2, 3, 4)
"""Sizes of graphs for whole runs, whose second moments are propagated as matrices of (n + 1)^2 rows."""
NODE_COORDINATES = 6


class Runs(NamedTuple):
    """A group of instances with equally many nodes; the names are those of `theory.lyapunov`."""

    rows: Int[np.ndarray, " m"]
    W: Float[np.ndarray, "m n n"]
    values: Float[np.ndarray, "m n"]
    averaging: Float[np.ndarray, "m n n"]
    norm: Float[np.ndarray, "m n n"]
    decay: Float[np.ndarray, " m"]
    neighbors: Float[np.ndarray, " m"]
    omega: Float[np.ndarray, " m"]
    beta: Float[np.ndarray, " m"]
    zeta: Float[np.ndarray, " m"]
    learning_rate: Float[np.ndarray, " m"]
    a: Float[np.ndarray, "m n"]
    b: Float[np.ndarray, "m n"]
    additive: Float[np.ndarray, "m n"]
    multiplicative: Float[np.ndarray, " m"]
    fixed: Float[np.ndarray, "m n"]

    def map(self) -> Float[np.ndarray, "m n n"]:
        """The linear part of a step, W - eta diag(a)."""
        return self.W - self.learning_rate[:, None, None] * _diagonal(self.a)

    def variance(self, x: Float[np.ndarray, "m n"]) -> Float[np.ndarray, "m n"]:
        """Variance of each node's gradient at x."""
        return self.multiplicative[:, None] * (self.a * (x - self.b)) ** 2 + self.additive**2

    @property
    def weights(self) -> Float[np.ndarray, "m n"]:
        """How much each node's noise counts in the Lyapunov function."""
        return np.einsum("mii->mi", self.norm)

    def expected(self, x: Float[np.ndarray, "m n"]) -> Float[np.ndarray, " m"]:
        """The Lyapunov function's expectation after one step from x."""
        after = np.einsum("mij,mj->mi", self.map(), x - self.fixed)
        return _quadratic(after, self.norm) + self.learning_rate**2 * np.sum(self.weights * self.variance(x), 1)

    def constants(self) -> dict[str, Float[np.ndarray, " m"]]:
        """Values of the symbols that all bounds share."""
        return {
            "learning_rate": self.learning_rate,
            "strong_convexity": self.a.min(1),
            "smoothness": self.a.max(1),
            "zeta": self.zeta,
            "effective_neighbors": self.neighbors,
            "omega": self.omega,
            "beta": self.beta,
        }


def _diagonal(values: np.ndarray) -> np.ndarray:
    return values[..., None] * np.eye(values.shape[-1])


def _quadratic(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return np.einsum("mi,mij,mj->m", x, matrix, x)


def mixings(
    points: np.ndarray, sizes: tuple[int, ...], named: bool, largest: float
) -> Iterator[tuple[Int[np.ndarray, " m"], Float[np.ndarray, "m n n"]]]:
    """W = I - c Lap / lambda_max with c in (0, largest]: positive definite for largest below 1."""
    size = columns(sizes)
    for rows, laplacian in laplacians(points, sizes, named):
        top = np.linalg.eigvalsh(laplacian)[:, -1]
        share = largest * np.maximum(points[rows, size], 1e-3)
        yield rows, np.eye(laplacian.shape[1]) - (share / top)[:, None, None] * laplacian


def averaging(W: np.ndarray, decay: np.ndarray) -> np.ndarray:
    """M = (1 - decay) W^2 (I - decay W^2)^{-1} of eq. (21)."""
    squares = W @ W
    return (1 - decay)[:, None, None] * np.linalg.solve(np.eye(W.shape[1]) - decay[:, None, None] * squares, squares)


def largest_beta(W: np.ndarray, M: np.ndarray) -> np.ndarray:
    """The largest beta with I - M <= (I - W) W / beta, from the matrix inequality itself (eq. 22)."""
    identity, basis = np.eye(W.shape[1]), mean_free(W.shape[1])
    ratios = np.linalg.solve(basis.T @ (identity - M) @ basis, basis.T @ ((identity - W) @ W) @ basis)
    return np.linalg.eigvals(ratios).real.min(1)


def decays(point: np.ndarray) -> np.ndarray:
    """From 0 to 1 - 1e-4, most of it near 1."""
    return 1 - 1e-4**point


def runs(points: np.ndarray, sizes: tuple[int, ...], named: bool, overshoot: float = 1.0) -> Iterator[Runs]:
    """Instances of theorem 6, the step size up to the limit that it grants times `overshoot`."""
    rest = points[:, columns(sizes) + 1 :]
    for rows, W in mixings(points, sizes, named, largest=0.999):
        n = W.shape[1]
        u, per_node = rest[rows, :8], rest[rows, 8:].reshape(len(rows), 3, NODE_COORDINATES)
        decay = decays(u[:, 0])
        M = averaging(W, decay)
        neighbors = 1 / np.einsum("mii->mi", M).max(1)
        beta = largest_beta(W, M)
        a = logarithmic(u[:, 1:2] * tiled(per_node[:, 0], n), 1.0, 1e-4)
        a /= a.max(1, keepdims=True)
        b = 10 * u[:, 2:3] ** 2 * (2 * tiled(per_node[:, 1], n) - 1)
        additive = u[:, 3:4] * tiled(per_node[:, 2], n)
        multiplicative = 100 * u[:, 4] ** 4
        zeta = 1 + multiplicative
        omega = np.where(u[:, 5] < 0.3, 1 / neighbors, (u[:, 5] - 0.3) / 0.7)
        limit = np.minimum(beta * omega, 0.25 / ((1 / neighbors + omega) * zeta + 1))
        eta = overshoot * limit * np.maximum(u[:, 6], 1e-3) * (1 - 1e-12)
        fixed = fixed_points(W, eta, a, b)
        norm = (1 - omega)[:, None, None] * M + omega[:, None, None] * np.eye(n)
        values = np.linalg.eigvalsh(W)
        yield Runs(
            rows, W, values, M, norm, decay, neighbors, omega, beta, zeta, eta, a, b, additive, multiplicative, fixed
        )


def fixed_points(W: np.ndarray, learning_rate: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where eta grad F(x) + (I - W) x = 0."""
    curvature = learning_rate[:, None] * a
    return np.linalg.solve(np.eye(W.shape[1]) - W + _diagonal(curvature), (curvature * b)[..., None])[..., 0]


RUN_COORDINATES = 8 + 3 * NODE_COORDINATES
THEOREM_6_DIMENSION = columns(SMALL) + 1 + RUN_COORDINATES


def drift(points: np.ndarray, overshoot: float = 1.0) -> Measured:
    """E V(x^1) - V(x^0) of theorem 6, from the start that is worst without additive noise, turned and scaled."""
    collected = Table(len(points))
    for run in runs(points, SMALL, True, overshoot):
        u = points[run.rows, -RUN_COORDINATES:][:, 7]
        step, n = run.map(), run.W.shape[1]
        # E V(x^1) as a quadratic form in the error, where all b_i agree; its worst direction relative to V.
        noisy = (run.learning_rate**2 * run.multiplicative)[:, None] * run.weights * run.a**2
        form = step.transpose(0, 2, 1) @ run.norm @ step + _diagonal(noisy)
        root = np.linalg.inv(np.linalg.cholesky(run.norm))
        worst = np.linalg.eigh(root @ form @ root.transpose(0, 2, 1))[1][..., -1]
        worst = np.einsum("mji,mj->mi", root, worst)
        worst /= np.linalg.norm(worst, axis=1, keepdims=True)
        turn = tiled(points[run.rows, 1:4], n) - 0.5
        error = logarithmic(u, 1e-2, 1e3)[:, None] * (worst + 0.1 * turn * (u[:, None] > 0.5))
        before = _quadratic(error, run.norm)
        values = run.constants() | {"lyapunov": before, "fixed_point_noise": run.variance(run.fixed).sum(1)}
        # Below, the difference is rounding.
        visible = run.learning_rate * run.a.min(1) > 1e-6
        collected.put(run.rows, np.where(visible, run.expected(run.fixed + error) - before, np.nan), values)
    return collected.result()


def squared_rate(points: np.ndarray) -> Measured:
    """The squared factor per step without noise, from the symmetric matrix W - eta diag(a)."""
    collected = Table(len(points))
    for run in runs(points, SMALL, True):
        collected.put(run.rows, np.abs(np.linalg.eigvalsh(run.map())).max(1) ** 2, run.constants())
    return collected.result()


START_COORDINATES = 3 + max(TINY)
THEOREM_9_DIMENSION = columns(TINY) + 1 + RUN_COORDINATES + START_COORDINATES
LONGEST = 14
"""Runs of theorem 9 take up to 2^LONGEST steps."""


def whole_run(points: np.ndarray, overshoot: float = 1.0) -> Measured:
    """E||x^T - x*||^2_M of theorem 9 after T steps from a random start, T a power of two."""
    collected = Table(len(points))
    places = points[:, -START_COORDINATES:]
    exponent = np.round(LONGEST * places[:, 0]).astype(int)
    for run in runs(points[:, :-START_COORDINATES], TINY, False, overshoot):
        n = run.W.shape[1]
        place = places[run.rows]
        minimum = np.sum(run.a * run.b, 1) / run.a.sum(1)
        # The triangle inequality loses least where the start lies beyond the fixed point, as seen from the optimum.
        x = run.fixed + 3 * place[:, 1:2] * (run.fixed - minimum[:, None])
        x = x + (2 * place[:, 3 : 3 + n] - 1) * logarithmic(place[:, 2:3], 1e-3, 1e3)
        moments = _second_moments(run, x - run.b, exponent[run.rows])
        error = moments[:, :n, :n]  # E (x - b)(x - b)', to be centred at the minimum instead
        shift = run.b - minimum[:, None]
        mean = moments[:, :n, n]
        error = error + _outer(mean, shift) + _outer(shift, mean) + _outer(shift, shift)
        measured = np.einsum("mij,mij->m", run.averaging, error)
        # Where moments have cancelled down to rounding there is nothing to compare.
        measured[measured < 1e-10 * np.sum((x - run.b) ** 2 + run.b**2, 1)] = np.nan
        gradient = run.a * (run.fixed - run.b)
        pseudo = _pseudo_inverse(np.eye(n) - run.W)
        at_minimum = run.a * (minimum[:, None] - run.b)
        spread = np.einsum("mij,mj->mi", pseudo, gradient)
        values = run.constants() | {
            "steps": 2.0 ** exponent[run.rows],
            "lyapunov_start": _quadratic(x - run.fixed, run.norm),
            "fixed_point_noise": run.variance(run.fixed).sum(1),
            "optimum_noise": run.variance(np.broadcast_to(minimum[:, None], run.a.shape)).sum(1),
            "fixed_point_spread": np.sum(spread**2, 1),
            "optimum_heterogeneity": _quadratic(at_minimum, pseudo),
            # The theorem takes the smallest over all step sizes, which is smaller: what is tried here is stronger.
            "mixing_rate": _quadratic(gradient, pseudo) / np.maximum(np.sum(spread**2, 1), 1e-300),
        }
        values["mixing_rate"] = np.where(np.sum(spread**2, 1) > 1e-20, values["mixing_rate"], 1 - run.values[:, -2])
        collected.put(run.rows, measured, values)
    return collected.result()


def _pseudo_inverse(matrix: np.ndarray) -> np.ndarray:
    # The cut-off keeps the rounded zero eigenvalue out where the others are small too.
    return np.linalg.pinv(matrix, rcond=1e-9, hermitian=True)


def _outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left[:, :, None] * right[:, None, :]


def _second_moments(run: Runs, start: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """E z z' with z = (x - b, 1) after 2^exponent steps: a linear map of matrices, squared `exponent` times."""
    m, n = run.a.shape
    # x - b moves by (W - eta diag a)(x - b) + (W - I) b.
    affine = np.zeros((m, n + 1, n + 1))
    affine[:, :n, :n], affine[:, n, n] = run.map(), 1
    affine[:, :n, n] = np.einsum("mij,mj->mi", run.W - np.eye(n), run.b)
    operator = np.einsum("mij,mkl->mikjl", affine, affine)
    square = run.learning_rate[:, None] ** 2
    node = np.arange(n)
    operator[:, node, node, node, node] += square * run.multiplicative[:, None] * run.a**2
    operator[:, node, node, n, n] += square * run.additive**2
    operator = operator.reshape(m, (n + 1) ** 2, (n + 1) ** 2)
    z = np.concatenate([start, np.ones((m, 1))], 1)
    result = np.empty((m, n + 1, n + 1))
    for level in range(exponent.max(initial=0) + 1):
        now = exponent == level
        result[now] = (operator[now] @ _outer(z, z)[now].reshape(-1, (n + 1) ** 2, 1)).reshape(-1, n + 1, n + 1)
        operator = operator @ operator
    return result


FIXED_POINT_DIMENSION = columns(SMALL) + 1 + 2 + 2 * NODE_COORDINATES


def _heterogeneous(points: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """(rows, W, eta, a, b) with any symmetric W, b centred at the minimum of sum_i f_i."""
    rest = points[:, columns(SMALL) + 1 :]
    for rows, W in mixings(points, SMALL, True, largest=2.0):
        n = W.shape[1]
        well_connected = 1 - np.linalg.eigvalsh(W)[:, -2] > 1e-3
        rows, W = rows[well_connected], W[well_connected]
        u, per_node = rest[rows, :2], rest[rows, 2:].reshape(len(rows), 2, NODE_COORDINATES)
        a = logarithmic(u[:, 1:] * tiled(per_node[:, 0], n), 1.0, 1e-3)
        b = tiled(per_node[:, 1], n)
        b = b - np.sum(a * b, 1, keepdims=True) / a.sum(1, keepdims=True)
        differ = np.abs(b).max(1) > 1e-3
        yield rows[differ], W[differ], logarithmic(u[differ, 0], 1e-2, 1e2), a[differ], b[differ]


def fixed_point_distance(points: np.ndarray) -> Measured:
    """||x*_eta - x*||^2 of the fixed point."""
    collected = Table(len(points))
    for rows, W, eta, a, b in _heterogeneous(points):
        x = fixed_points(W, eta, a, b)
        spread = np.einsum("mij,mj->mi", _pseudo_inverse(np.eye(W.shape[1]) - W), a * (x - b))
        values = {
            "learning_rate": eta,
            "strong_convexity": a.min(1),
            "smoothness": a.max(1),
            "fixed_point_spread": np.sum(spread**2, 1),
        }
        collected.put(rows, np.sum(x**2, 1), values)
    return collected.result()


def dual_heterogeneity(points: np.ndarray) -> Measured:
    """||grad F(x*_eta)||^2 in the pseudo-inverse of I - W, beside its limit for small step sizes."""
    collected = Table(len(points))
    for rows, W, eta, a, b in _heterogeneous(points):
        pseudo = _pseudo_inverse(np.eye(W.shape[1]) - W)
        gradient = a * (fixed_points(W, eta, a, b) - b)
        collected.put(rows, _quadratic(gradient, pseudo), {"optimum_heterogeneity": _quadratic(a * b, pseudo)})
    return collected.result()
