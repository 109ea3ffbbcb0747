"""Structure in a mixing matrix: circulants over products of cyclic groups, and padded neighbour tables."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

MAX_SHIFTS = 40  # beyond this many shifts a gather or a matrix product is faster than rolls


def neighbor_table(matrix: Any) -> tuple[np.ndarray, np.ndarray]:
    """(neighbours [n, k], weights [n, k]) of a matrix; column 0 is the node itself, padding has weight 0.

    k - 1 is the largest number of other nodes that one node receives from.
    """
    csr = sp.csr_array(matrix)
    diagonal = csr.diagonal()
    n = diagonal.size
    off = csr - sp.dia_array((diagonal[None], [0]), shape=csr.shape)
    off = sp.csr_array(off)
    off.eliminate_zeros()
    off.sort_indices()
    degrees = np.diff(off.indptr)
    width = 1 + int(degrees.max(initial=0))
    neighbors = np.repeat(np.arange(n)[:, None], width, axis=1)
    weights = np.zeros((n, width))
    weights[:, 0] = diagonal
    rows = np.repeat(np.arange(n), degrees)
    columns = 1 + np.arange(off.nnz) - np.repeat(off.indptr[:-1], degrees)
    neighbors[rows, columns] = off.indices
    weights[rows, columns] = off.data
    return neighbors, weights


def roll_table(shape: tuple[int, ...], shifts: tuple[tuple[int, ...], ...]) -> tuple[np.ndarray, np.ndarray]:
    """(neighbours [n, k], order [k]) of a circulant: column c of its table has weight number order[c] of `shifts`.

    Column 0 is the node itself, with order -1 where W has no diagonal.
    """
    own = (0,) * len(shape)
    order = [shifts.index(own) if own in shifts else -1, *(k for k, shift in enumerate(shifts) if shift != own)]
    places = np.indices(shape).reshape(len(shape), 1, -1)
    moves = np.array([own, *(shift for shift in shifts if shift != own)]).T[:, :, None]  # [axes, k, 1]
    sizes = np.array(shape)[:, None, None]
    return np.ravel_multi_index(tuple((places + moves) % sizes), shape).T, np.array(order)


def _shapes(n: int) -> Iterator[tuple[int, ...]]:
    """Groups to try: Z_n, every Z_a x Z_b with ab = n, then Z_2^k."""
    yield (n,)
    for a in range(2, int(n**0.5) + 1):
        if n % a == 0:
            yield (a, n // a)
            if a != n // a:
                yield (n // a, a)
    if n >= 8 and n & (n - 1) == 0:
        yield (2,) * (n.bit_length() - 1)


def cyclic_shifts(csr: sp.csr_array) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...], np.ndarray] | None:
    """(shape, shifts, weights) if W is a circulant over a product of cyclic groups in its node order, else None.

    W commutes with all translations iff W[i, i + s] = w(s) for every i: row 0 gives the candidates w(s), and each group
    is checked against all rows in O(edges).
    """
    counts = np.diff(csr.indptr)
    n = counts.size
    if n < 2 or counts.min() != counts.max() or not 0 < counts[0] <= MAX_SHIFTS:
        return None
    csr = csr.copy()
    csr.sort_indices()
    columns = csr.indices.reshape(n, -1)
    values = csr.data.reshape(n, -1)
    for shape in _shapes(n):
        places = np.stack(np.unravel_index(np.arange(n), shape), -1)  # [n, axes]
        moves = (places[columns] - places[:, None]) % np.array(shape)  # [n, k, axes]
        keys = np.ravel_multi_index(tuple(np.moveaxis(moves, -1, 0)), shape)
        order = np.argsort(keys, axis=1)
        keys, sorted_values = np.take_along_axis(keys, order, 1), np.take_along_axis(values, order, 1)
        if (keys == keys[0]).all() and np.abs(sorted_values - sorted_values[0]).max() <= 1e-12:
            shifts = np.stack(np.unravel_index(keys[0], shape), -1)
            return shape, tuple(tuple(int(s) for s in shift) for shift in shifts), sorted_values.mean(0)
    return None
