r"""The linear matrix inequalities of Sundararajan, Van Scoy and Lessard (IEEE TCNS 2020), eq. (7), solved by Clarabel.

With y and u measured from the optimum, mu-strongly convex and L-smooth objectives obey [y; u]' M_0 [y; u] >= 0, M_0 =
[[-2 mu L, L + mu], [L + mu, -2]], and graphs with ||W - J|| <= \sigma obey [z; v]' (M_1 \otimes R) [z; v] >= 0, summed
over nodes, for every R >= 0, M_1 = [[\sigma^2 - 1, 1], [1, -1]]. A rate \rho is certified by P > 0 (for the average
over nodes) and Q > 0, R >= 0 (for the disagreement) such that

    [A B_u]' P [A B_u] - \rho^2 [I 0]' P [I 0] + [C_y 0; 0 1]' M_0 [C_y 0; 0 1] <= 0                              (7a)

on the states that the average reaches, and the same in (s, u, v) with Q and the graph's term on those that a node
reaches (7b): then n \bar s' P \bar s + \sum_i (s_i - \bar s)' Q (s_i - \bar s) decays by \rho^2 a step. Gradients are
measured in units of L.

Symmetric W obey more: \sum_i z_i' S v_i = tr(S Z' (I - W) Z) = 0 for every skew-symmetric S, since Z' (I - W) Z is
symmetric. For undirected graphs R need not be symmetric, then, where it stands between z and v: R + S is found as one
matrix. Methods that mix a single vector gain nothing.
"""

import functools
import importlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from jaxtyping import Float

from theory.extraction import StateSpace

MARGIN = 1e-9
"""The least eigenvalue asked of P and Q."""


@dataclass(frozen=True)
class Inequality:
    r"""One matrix inequality, X(\rho) = constant + \sum_k z_k (after_k - \rho^2 before_k) <= 0, in z = (P, R).

    Attributes:
      after, before: [variables, s, s]; those beyond P and the symmetric part of R are the skew-symmetric part of R.
      constant: [s, s].
      sizes: the sizes of P (or Q), which has to be definite, and of R; either may be 0.
    """

    after: Float[np.ndarray, "k s s"]
    before: Float[np.ndarray, "k s s"]
    constant: Float[np.ndarray, "s s"]
    sizes: tuple[int, int]

    @cached_property
    def _program(self) -> tuple[Any, sp.csc_matrix, np.ndarray, np.ndarray, np.ndarray, list[Any]]:
        """Clarabel's module, constraint matrix (its pattern), entries without and times rate^2, bounds and cones."""
        clarabel = _solver()
        count, size = len(self.after), len(self.constant)
        triangle = size * (size + 1) // 2
        cones = [clarabel.PSDTriangleConeT(k) for k in (size, *self.sizes) if k]
        cones.append(clarabel.NonnegativeConeT(1))
        total = triangle + sum(k * (k + 1) // 2 for k in self.sizes) + 1
        fixed, squared = np.zeros((total, count + 1)), np.zeros((total, count + 1))
        fixed[:triangle, :count] = _triangle(self.after).T
        squared[:triangle, :count] = -_triangle(self.before).T
        fixed[:triangle, count] = _triangle(np.eye(size))
        bounds = np.concatenate([-_triangle(self.constant), np.zeros(total - triangle - 1), [1.0]])
        row, column = triangle, 0
        for number, k in enumerate(self.sizes):
            for basis in symmetric_basis(k):
                fixed[row : row + k * (k + 1) // 2, column] = -_triangle(basis)
                column += 1
            if number == 0:
                bounds[row : row + k * (k + 1) // 2] = -MARGIN * _triangle(np.eye(k))
            row += k * (k + 1) // 2
        fixed[row, count] = 1.0
        pattern = sp.csc_matrix((fixed != 0) | (squared != 0), dtype=float)
        places = pattern.indices, np.repeat(np.arange(count + 1), np.diff(pattern.indptr))
        return clarabel, pattern, fixed[places], squared[places], bounds, cones

    def solve(self, rate: float) -> tuple[float, list[np.ndarray]]:
        """The largest t <= 1 with X(rate) <= -t I, and the matrices that reach it; t = -inf where none do."""
        clarabel, pattern, fixed, squared, bounds, cones = self._program
        constraints = sp.csc_matrix((fixed + rate**2 * squared, pattern.indices, pattern.indptr), pattern.shape)
        cost = np.append(np.zeros(len(self.after)), -1.0)
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        nothing = sp.csc_matrix((cost.size, cost.size))
        solution = clarabel.DefaultSolver(nothing, cost, constraints, bounds, cones, settings).solve()
        known = (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved)
        if solution.status not in known:
            return -np.inf, []
        entries, matrices = np.array(solution.x), []
        column = 0
        for k in self.sizes:
            matrices.append(np.tensordot(entries[column : column + k * (k + 1) // 2], symmetric_basis(k), 1))
            column += k * (k + 1) // 2
        skew = entries[column:-1]
        if len(skew):
            matrices[-1] = matrices[-1] + np.tensordot(skew, skew_basis(self.sizes[-1]), 1)
        return float(entries[-1]), matrices

    def attained(self, rate: float) -> float:
        """The rate that the solution found at `rate` certifies: at most `rate` where the inequality is feasible.

        For given P and R the inequality is checked anew, eliminating the inputs: what is left, S <= rho^2 P on the
        states, is an eigenvalue problem. Thus a solver that meets an infeasible inequality to its tolerance, with a
        tiny P, is found out.
        """
        matrices = self.solve(rate)[1]
        return self.certifies(*matrices) if matrices else np.inf

    def certifies(self, P: Float[np.ndarray, "p p"], R: Float[np.ndarray, "r r"]) -> float:
        """The smallest rate at which these matrices satisfy the inequality; inf where none does."""
        size = len(P)
        columns, rows = np.tril_indices(len(R), -1)
        entries = np.concatenate([_entries(P), _entries((R + R.T) / 2), ((R - R.T) / 2)[rows, columns]])
        whole = self.constant + np.tensordot(entries[: len(self.after)], self.after, 1)
        inputs = whole[size:, size:]
        if np.linalg.eigvalsh(inputs)[-1] >= 0 or (len(R) and np.linalg.eigvalsh(R + R.T)[0] < 0):
            return np.inf
        if not size:
            return 0.0
        if np.linalg.eigvalsh(P)[0] <= 0:
            return np.inf
        states = whole[:size, :size] - whole[:size, size:] @ np.linalg.solve(inputs, whole[size:, :size])
        return float(np.sqrt(max(scipy.linalg.eigvalsh(states, P)[-1], 0.0)))


def inequalities(
    system: StateSpace, strong_convexity: float, smoothness: float, sigma: float, undirected: bool = False
) -> tuple[Inequality, Inequality]:
    """(7a) in P, and (7b) in (Q, R), in the orthonormal bases of what the average and a node can reach.

    Args:
      system: the method's matrices.
      strong_convexity: mu.
      smoothness: L.
      sigma: the largest ||W - J||.
      undirected: whether every W is symmetric, so that R need not be.
    """
    node = system.averaged if sigma == 0 else system
    ratio = strong_convexity / smoothness
    M_0 = np.array([[-2 * ratio, 1 + ratio], [1 + ratio, -2]])
    found = []
    for part, basis, channels in ((system, system.mean_basis, 0), (node, node.disagreement_basis, len(node.C_z))):
        size = basis.shape[1]
        A, C_y, C_z = basis.T @ part.A @ basis, part.C_y @ basis, (part.C_z @ basis)[:channels]
        B = basis.T @ np.hstack([smoothness * part.B_u, part.B_v[:, :channels]])
        after, before = np.hstack([A, B]), np.eye(size, size + 1 + channels)
        outer = np.zeros((2, size + 1 + channels))
        outer[0, :size], outer[1, size] = C_y, 1.0
        messages = np.zeros((2 * channels, size + 1 + channels))
        messages[:channels] = np.hstack([C_z, smoothness * part.D_zu[:channels], part.D_zv[:channels, :channels]])
        messages[channels:, size + 1 :] = np.eye(channels)
        P, R = symmetric_basis(size), symmetric_basis(channels)
        if undirected:
            R = np.concatenate([R, skew_basis(channels)])
        graph = np.array([messages.T @ _between(E, sigma) @ messages for E in R])
        graph = graph.reshape(len(R), *outer.T.shape[:1] * 2)
        moved, kept = np.concatenate([after.T @ P @ after, graph]), before.T @ P @ before
        kept = np.concatenate([kept, np.zeros_like(graph)])
        found.append(Inequality(moved, kept, outer.T @ M_0 @ outer, (size, channels)))
    return found[0], found[1]


@functools.cache
def symmetric_basis(size: int) -> Float[np.ndarray, "k size size"]:
    """The symmetric matrices with a single one (or pair of ones), in the order of the upper triangle by columns."""
    basis = []
    for j in range(size):
        for i in range(j + 1):
            basis.append(np.zeros((size, size)))
            basis[-1][i, j] = basis[-1][j, i] = 1.0
    return np.stack(basis) if basis else np.zeros((0, size, size))


@functools.cache
def skew_basis(size: int) -> Float[np.ndarray, "k size size"]:
    """The skew-symmetric matrices with a single pair (1, -1), in the order of the strict upper triangle by columns."""
    strict = [E for E in symmetric_basis(size) if not E.diagonal().any()]
    return np.stack([np.triu(E) - np.tril(E) for E in strict]) if strict else np.zeros((0, size, size))


def _between(R: np.ndarray, sigma: float) -> np.ndarray:
    r"""The graph's form in (z, v): M_1 \otimes R, whose skew-symmetric part only stands between z and v."""
    even = (R + R.T) / 2
    return np.block([[(sigma**2 - 1) * even, R], [R.T, -even]])


@functools.cache
def _upper(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the upper triangle by columns, and Clarabel's weights of its entries."""
    columns, rows = np.tril_indices(size)
    return rows, columns, np.where(rows == columns, 1.0, np.sqrt(2))


def _entries(matrix: np.ndarray) -> np.ndarray:
    """The coefficients of a symmetric matrix in `symmetric_basis`."""
    rows, columns, _ = _upper(len(matrix))
    return matrix[rows, columns]


def _triangle(matrix: np.ndarray) -> np.ndarray:
    """Clarabel's vectors of symmetric matrices [..., s, s]: upper triangles by columns, sqrt(2) off the diagonal."""
    rows, columns, weights = _upper(matrix.shape[-1])
    return matrix[..., rows, columns] * weights


def _solver() -> Any:
    try:
        return importlib.import_module("clarabel")  # its classes are compiled: no types to be seen
    except ImportError as error:
        raise ImportError("certificates need the solver clarabel: pip install 'adozoo[solvers]'.") from error
