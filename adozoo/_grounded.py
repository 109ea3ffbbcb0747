"""A sparse Laplacian with one node grounded: potentials, and single entries of the inverse, from one factorisation.

Hold the potential of one node at 0. What is left of L is an M-matrix A = L D L' (after a permutation that limits fill),
which is factorised without pivoting. Those entries of A^{-1} that lie on the pattern of its factor follow from it by
block back substitution, without the rest of the inverse, so that all links of a graph together cost about as much as
the factorisation. All terms of that recursion are non-negative: nothing cancels in it.

References:
    Erisman, Tinney, "On computing certain elements of the inverse of a sparse matrix", 1975.
    Lin et al., "SelInv - an algorithm for selected inversion of a sparse symmetric matrix", 2011 (by blocks).
"""

from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from scipy.linalg import get_lapack_funcs
from scipy.sparse.linalg import SuperLU, splu


class GroundedLaplacian:
    """The factorised Laplacian of a connected graph with one node's potential held at 0.

    Args:
        laplacian: [n, n] csr_array: symmetric, off-diagonal entries <= 0, rows that sum to zero.
        ground: the node at potential 0; by default the one with most links, which would fill the factor.

    Example:
        >>> laplacian = nx.laplacian_matrix(adozoo.graphs.path(3)).astype(float)
        >>> grounded = GroundedLaplacian(laplacian, ground=0)
        >>> grounded.potentials(np.array([-1.0, 0.0, 1.0])).round(6).tolist()
        [0.0, 1.0, 2.0]
    """

    def __init__(self, laplacian: Any, ground: int | None = None):
        n = laplacian.shape[0]
        self.ground = int(np.diff(laplacian.indptr).argmax()) if ground is None else ground
        self.others = np.delete(np.arange(n), self.ground)
        self.factor: SuperLU | None = None
        if n > 1:
            # No pivoting, which an M-matrix does not need: otherwise L and U would not be transposes.
            self.factor = splu(
                sp.csc_matrix(laplacian[self.others][:, self.others]),
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )

    def potentials(self, currents: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The solution v of L v = currents with v = 0 at the ground; the currents sum to zero."""
        result = np.zeros(len(currents))
        if self.factor is not None:
            result[self.others] = self.factor.solve(currents[self.others])
        return result

    def inverse_entries(self, tails: np.ndarray, heads: np.ndarray) -> Float[np.ndarray, " m"]:
        """Entries (tails, heads) of the inverse, 0 at the ground; each pair a link or twice one node."""
        entries = np.zeros(len(tails))
        if self.factor is None:
            return entries
        place = np.zeros(len(self.others) + 1, dtype=np.int64)
        place[self.others] = self.factor.perm_r
        inside = (tails != self.ground) & (heads != self.ground)
        first, second = place[tails[inside]], place[heads[inside]]
        entries[inside] = _selected_inverse(self.factor)[np.maximum(first, second), np.minimum(first, second)]
        return entries


def _selected_inverse(factor: SuperLU) -> Any:
    """The lower triangle of (L D L')^{-1} on the pattern of L, one supernode (columns of one pattern) after another.

    With J a supernode, S the rows below it and X = L_SJ L_JJ^{-1}: Z_SJ = -Z_SS X and
    Z_JJ = L_JJ^{-T} D_J^{-1} L_JJ^{-1} + X' Z_SS X, where Z_SS is part of what J's parent in the elimination tree has.
    """
    lower, pivots = factor.L.tocsc(), factor.U.diagonal()
    lower.sort_indices()
    starts, rows, values = lower.indptr, lower.indices, lower.data
    counts, n = np.diff(starts), len(pivots)
    parents = np.full(n, n)
    below = np.flatnonzero(counts > 1)
    parents[below] = rows[starts[below] + 1]
    joined = (parents[:-1] == np.arange(1, n)) & (counts[:-1] == counts[1:] + 1)
    firsts = np.flatnonzero(np.append(True, ~joined))
    ends = np.append(firsts[1:], n)
    owner = np.append(np.repeat(np.arange(len(firsts)), ends - firsts), -1)  # the roots' parent n belongs to none
    parent_of = owner[parents[ends - 1]]
    waiting = np.bincount(parent_of + 1, minlength=len(firsts) + 1)[1:]  # how many supernodes still need this one
    (invert_triangle,) = get_lapack_funcs(("trtri",), dtype=np.float64)
    inverse = np.empty_like(values)
    fronts: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for node in reversed(range(len(firsts))):
        first, end = firsts[node], ends[node]
        width, pattern = end - first, rows[starts[first] : starts[first + 1]]
        block = np.zeros((len(pattern), width))
        for column in range(width):
            block[column:, column] = values[starts[first + column] : starts[first + column + 1]]
        front = np.empty((len(pattern), len(pattern)))
        own = invert_triangle(block[:width], lower=1, unitdiag=1)[0]
        front[:width, :width] = (own.T / pivots[first:end]) @ own
        if len(pattern) > width:
            parent = int(parent_of[node])
            known, above = fronts[parent]
            at = np.searchsorted(known, pattern[width:])
            corner, reach = above[np.ix_(at, at)], block[width:] @ own
            side = -corner @ reach
            front[width:, width:], front[width:, :width], front[:width, width:] = corner, side, side.T
            front[:width, :width] -= reach.T @ side
            waiting[parent] -= 1
            if not waiting[parent]:
                del fronts[parent]
        for column in range(width):
            inverse[starts[first + column] : starts[first + column + 1]] = front[column:, column]
        if waiting[node]:
            fronts[node] = pattern, front
    return sp.csc_array((inverse, rows, starts), shape=(n, n))
