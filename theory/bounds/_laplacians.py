"""Weighted graphs out of the unit cube, for the searches: small ones with any weights, and a few large named ones."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import networkx as nx
import numpy as np
from jaxtyping import Float, Int

CONNECTED = 1e-6
"""Graphs whose second Laplacian eigenvalue is below this share of the largest one count as disconnected."""
NO_EDGE = 0.3
Measured = tuple[np.ndarray, Mapping[str, np.ndarray]]


@cache
def named_laplacians() -> tuple[Float[np.ndarray, "n n"], ...]:
    """Unit-weight Laplacians of large graphs that small ones do not resemble: long, bottle-necked, highly symmetric."""
    graphs = (
        nx.cycle_graph(24),
        nx.path_graph(16),
        nx.star_graph(15),
        nx.hypercube_graph(4),
        nx.barbell_graph(8, 0),
        nx.grid_2d_graph(4, 5),
        nx.balanced_tree(2, 3),
    )
    return tuple(np.asarray(nx.laplacian_matrix(graph).todense(), np.float64) for graph in graphs)


def columns(sizes: Sequence[int]) -> int:
    """How many coordinates `laplacians` reads for graphs of these sizes."""
    return 1 + max(sizes) * (max(sizes) - 1) // 2


def laplacians(
    points: Float[np.ndarray, "m k"], sizes: Sequence[int], named: bool = False
) -> Iterator[tuple[Int[np.ndarray, " b"], Float[np.ndarray, "b n n"]]]:
    """Groups of weighted Laplacians of equal size, each with the rows of `points` that it comes from.

    The first coordinate picks the size, the others the weights: a share NO_EDGE of each axis is no edge, so that all
    sparsity patterns occur; corners of the cube are graphs with equal weights. Disconnected graphs are left out.

    Args:
      points: the first `columns(sizes)` coordinates are read.
      sizes: numbers of nodes.
      named: whether a tenth of the points become the large named graphs.
    """
    large = named_laplacians() if named else ()
    small = 0.9 if named else 1.0
    kinds = [(size, None) for size in sizes] + [(len(laplacian), laplacian) for laplacian in large]
    share = np.minimum((points[:, 0] / small * len(sizes)).astype(int), len(sizes) - 1)
    if named:
        beyond = np.minimum(((points[:, 0] - small) / (1 - small) * len(large)).astype(int), len(large) - 1)
        share = np.where(points[:, 0] >= small, len(sizes) + beyond, share)
    for kind, (size, laplacian) in enumerate(kinds):
        rows = np.flatnonzero(share == kind)
        if laplacian is None:
            upper = np.triu_indices(size, 1)
            weights = np.zeros((len(rows), size, size))
            weights[:, *upper] = np.maximum((points[rows, 1 : 1 + len(upper[0])] - NO_EDGE) / (1 - NO_EDGE), 0)
            weights += weights.transpose(0, 2, 1)
            stack = weights.sum(2)[:, :, None] * np.eye(size) - weights
            values = np.linalg.eigvalsh(stack)
            connected = values[:, 1] > CONNECTED * np.maximum(values[:, -1], 1e-300)
            rows, stack = rows[connected], stack[connected]
        else:
            stack = np.broadcast_to(laplacian, (len(rows), size, size))
        if len(rows):
            yield rows, stack


def tiled(points: Float[np.ndarray, "m k"], size: int) -> Float[np.ndarray, "m n"]:
    """Coordinates for `size` nodes, repeated where there are more nodes than coordinates."""
    return points[:, np.arange(size) % points.shape[1]]


def mean_free(size: int) -> Float[np.ndarray, "n n-1"]:
    """An orthonormal basis of the vectors that sum to zero."""
    return np.linalg.svd(np.eye(size) - 1 / size)[0][:, : size - 1]


def logarithmic(points: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map [0, 1] to [low, high] on a logarithmic scale."""
    return low * (high / low) ** points


class Table:
    """Collects the measured groups in the order of the points; NaN where nothing was measured."""

    def __init__(self, size: int):
        self.measured, self.values = np.full(size, np.nan), {}

    def put(self, rows: np.ndarray, measured: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Enter what was measured at these points."""
        self.measured[rows] = measured
        for name, value in values.items():
            self.values.setdefault(name, np.full(len(self.measured), np.nan))[rows] = value

    def result(self) -> Measured:
        """What a search returns."""
        return self.measured, self.values
