"""Random trees and RelaySum on many of them at once, for the searches of bounds on RelaySGD."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from theory.bounds._laplacians import Measured, Table, tiled

SIZES = (2, 3, 4, 6, 8)
TREE_DIMENSION = 1 + max(SIZES)
"""Coordinates that `trees` reads: the size, the parents, and whether communication overlaps."""
SETTLED = 1e-13
RESPONSE_DIMENSION = TREE_DIMENSION + 1
RATE_DIMENSION = TREE_DIMENSION + 9
DISAGREEMENT_DIMENSION = TREE_DIMENSION + 8


def trees(
    points: Float[np.ndarray, "m k"],
) -> Iterator[tuple[Int[np.ndarray, " b"], Int[np.ndarray, "b n n"], Int[np.ndarray, "b n n"]]]:
    """Groups of random trees of equal size: rows of `points`, distances, and delays with or without overlap.

    Node i hangs on one of the nodes before it: corners of the cube are paths and stars, all shapes in between occur.
    """
    kind = np.minimum((points[:, 0] * len(SIZES)).astype(int), len(SIZES) - 1)
    for number, n in enumerate(SIZES):
        rows = np.flatnonzero(kind == number)
        distances = np.zeros((len(rows), n, n), int)
        every = np.arange(len(rows))
        for node in range(1, n):
            parent = np.minimum((points[rows, node] * node).astype(int), node - 1)
            known = distances[every, parent, :node] + 1
            distances[:, node, :node] = distances[:, :node, node] = known
        hidden = (points[rows, max(SIZES)] < 0.5)[:, None, None]
        if len(rows):
            yield rows, distances, np.where(hidden, np.maximum(distances - 1, 0), distances)


def relayed(stack: Float[np.ndarray, "b lags n"], delays: Int[np.ndarray, "b n n"]) -> Float[np.ndarray, "b n"]:
    """The average that each node takes of the models that have come to it, from the stack of past ones."""
    trial, _, node = np.indices(delays.shape)
    return stack[trial, delays, node].mean(axis=2)


def response(points: np.ndarray) -> Measured:
    """How far all models move in the end, after one unit gradient on one node."""
    collected = Table(len(points))
    for rows, _, delays in trees(points):
        n = delays.shape[1]
        node = np.minimum((points[rows, -1] * n).astype(int), n - 1)
        stack = np.zeros((len(rows), n, n))
        stack[np.arange(len(rows)), 0, node] = 1.0
        while (np.ptp(stack, axis=(1, 2)) > SETTLED * stack.max(axis=(1, 2))).any():
            stack = np.concatenate([relayed(stack, delays)[:, None], stack[:, :-1]], axis=1)
        known = {"nodes": np.full(len(rows), float(n)), "mean_delay": delays.mean(axis=(1, 2))}
        collected.put(rows, stack.mean(axis=(1, 2)), known)
    return collected.result()


def transitions(
    factors: Float[np.ndarray, "b n"], delays: Int[np.ndarray, "b n n"]
) -> Float[np.ndarray, "b size size"]:
    """RelaySGD's linear map for scalar f_j, on the stack of the last n models; factors are 1 - learning_rate h_j."""
    trials, n = factors.shape
    W = np.zeros((trials, n * n, n * n))
    trial, i, j = np.indices(delays.shape)
    W[trial, i, n * delays + j] = 1 / n
    shifted = np.arange(n * (n - 1))
    W[:, n + shifted, shifted] = 1
    W[:, :, :n] *= factors[:, None, :]
    return W


def rates(points: np.ndarray, common: bool) -> Measured:
    """RelaySGD's rate for scalar quadratics with learning_rate h_j in [0, 1], of one curvature or several.

    Left out are two nodes without delay, which are gradient descent and meet all bounds with equality.
    """
    collected = Table(len(points))
    for rows, _, delays in trees(points):
        n, rest = delays.shape[1], points[rows, TREE_DIMENSION:]
        # Small steps and large ones: curvatures from 0 to the largest, L, and steps up to 1 / L.
        largest = 0.999 * 10.0 ** (-3 * rest[:, :1])
        shares = np.ones((len(rows), n)) if common else tiled(rest[:, 1:], n)
        shares[:, 0] = 1.0  # any node may be the first one of a tree
        steps = largest * shares
        measured = np.abs(np.linalg.eigvals(transitions(1 - steps, delays))).max(axis=1)
        measured[delays.max(axis=(1, 2)) == 0] = np.nan
        known = {
            "learning_rate": largest[:, 0],
            "smoothness": np.ones(len(rows)),
            "strong_convexity": shares.min(axis=1),
            "mean_curvature": shares.mean(axis=1),
            "mean_delay": delays.mean(axis=(1, 2)),
            "longest_delay": delays.max(axis=(1, 2)).astype(float),
        }
        collected.put(rows, measured, known)
    return collected.result()


def disagreement(points: np.ndarray) -> Measured:
    """RelaySGD/Grad at rest: how far apart two nodes are, for the pair farthest apart per link between them."""
    collected = Table(len(points))
    for rows, distances, delays in trees(points):
        n = delays.shape[1]
        gradients = 2 * tiled(points[rows, TREE_DIMENSION:], n) - 1
        gradients -= gradients.mean(axis=1, keepdims=True)
        models, stack = np.zeros((len(rows), n)), np.zeros((len(rows), n, n))
        for _ in range(n):
            stack = np.concatenate([-gradients[:, None], stack[:, :-1]], axis=1)
            models = models + relayed(stack, delays)
        apart = np.abs(models[:, :, None] - models[:, None, :])
        pair = (apart / np.maximum(distances, 1)).reshape(len(rows), -1).argmax(axis=1)
        every = np.arange(len(rows))
        known = {
            "learning_rate": np.ones(len(rows)),
            "hops": distances.reshape(len(rows), -1)[every, pair].astype(float),
            "mean_gradient": np.abs(gradients).mean(axis=1),
        }
        measured = np.where(known["mean_gradient"] > 1e-9, apart.reshape(len(rows), -1)[every, pair], np.nan)
        collected.put(rows, measured, known)
    return collected.result()
