"""Runs of DGD on scalar quadratics a_i (x - b_i)^2 / 2 over weighted graphs, many at once, for the searches."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from theory.bounds._laplacians import Measured, Table, columns, laplacians, logarithmic, tiled

SIZES, COORDINATES, LONGEST = (2, 3, 4, 6), 6, 64
DIMENSION = columns(SIZES) + 5 + 3 * COORDINATES
FOREVER = 1e15
"""Stands for the number of steps to the limit."""
CURVED = 1e-3
"""The average objective has at least this share of L as its curvature."""


class Runs(NamedTuple):
    """A group of instances with equally many nodes, started at 0; `u` holds coordinates that are still free."""

    rows: Int[np.ndarray, " m"]
    u: Float[np.ndarray, "m k"]
    W: Float[np.ndarray, "m n n"]
    eigenvalues: Float[np.ndarray, "m n"]
    a: Float[np.ndarray, "m n"]
    b: Float[np.ndarray, "m n"]
    noise: Float[np.ndarray, "m n"]
    strong_convexity: Float[np.ndarray, " m"]
    smoothness: Float[np.ndarray, " m"]

    @property
    def nodes(self) -> int:
        """Number of nodes n."""
        return self.a.shape[1]

    @property
    def sigma(self) -> Float[np.ndarray, " m"]:
        """||W - 11'/n||."""
        return np.abs(self.eigenvalues[:, :-1]).max(1)

    @property
    def optimum(self) -> Float[np.ndarray, " m"]:
        """The minimum of sum_i f_i."""
        return np.sum(self.a * self.b, 1) / self.a.sum(1)

    def step(self, x: Float[np.ndarray, "m n"], learning_rate: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m n"]:
        """W x - eta g(x)."""
        return np.einsum("mij,mj->mi", self.W, x) - learning_rate[:, None] * self.a * (x - self.b)

    def limit(self, learning_rate: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m n"]:
        """Where the step stays."""
        scaled, identity = learning_rate[:, None] * self.a, np.eye(self.nodes)
        return np.linalg.solve(identity - self.W + scaled[:, :, None] * identity, (scaled * self.b)[..., None])[..., 0]

    def constants(self) -> dict[str, Float[np.ndarray, " m"]]:
        """Values of the symbols that the bounds share."""
        return {
            "strong_convexity": self.strong_convexity,
            "smoothness": self.smoothness,
            "lambda_n": self.eigenvalues[:, 0],
            "sigma": self.sigma,
            "nodes": np.full(len(self.rows), float(self.nodes)),
            "initial_distance": np.abs(self.optimum),
        }


def runs(points: np.ndarray, convex: bool = True) -> Iterator[Runs]:
    """Groups of instances with curvatures from mu to L, or from -L to L where only the average has to be convex."""
    for rows, laplacian in laplacians(points, SIZES, named=True):
        n, u = laplacian.shape[1], points[rows, columns(SIZES) :]
        nodal = u[:, 5:].reshape(len(u), 3, COORDINATES)
        top = np.linalg.eigvalsh(laplacian)[:, -1]
        W = np.eye(n) - (1.999 * np.maximum(u[:, 0], 1e-3) / top)[:, None, None] * laplacian
        smoothness = logarithmic(u[:, 1], 0.1, 10.0)
        strong_convexity = smoothness / logarithmic(u[:, 2], 1.0, 1e3)
        low = (strong_convexity if convex else -smoothness)[:, None]
        a = low + (smoothness[:, None] - low) * tiled(nodal[:, 0], n)
        b = 2 * tiled(nodal[:, 1], n) - 1
        kept = a.mean(1) >= CURVED * smoothness
        fields = rows, u, W, np.linalg.eigvalsh(W), a, b, 2 * tiled(nodal[:, 2], n), strong_convexity, smoothness
        yield Runs(*(field[kept] for field in fields))


def _share(run: Runs) -> np.ndarray:
    return np.maximum(run.u[:, 3], 1e-3)


def _gradient_bound(run: Runs) -> np.ndarray:
    return np.sqrt(run.smoothness * np.sum(run.a * run.b**2, 1))


def _disagreement(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x - x.mean(1, keepdims=True), axis=1)


def consensus(points: np.ndarray) -> Measured:
    """The largest ||x - mean|| over a run and its limit."""
    collected = Table(len(points))
    for run in runs(points):
        step = _share(run) * (1 + run.eigenvalues[:, 0]) / run.smoothness
        x, largest = np.zeros_like(run.a), _disagreement(run.limit(step))
        for _ in range(LONGEST):
            x = run.step(x, step)
            largest = np.maximum(largest, _disagreement(x))
        known = run.constants() | {"learning_rate": step, "gradient_bound": _gradient_bound(run)}
        collected.put(run.rows, largest, known)
    return collected.result()


def neighborhood(points: np.ndarray) -> Measured:
    """|mean of x^T - x*| after some steps, or in the limit."""
    collected = Table(len(points))
    for run in runs(points):
        limit = np.minimum((1 + run.eigenvalues[:, 0]) / run.smoothness, 2 / (run.smoothness + run.strong_convexity))
        step = _share(run) * limit
        count = np.where(run.u[:, 4] < 0.3, FOREVER, np.round(LONGEST * run.u[:, 4]))
        x, result = np.zeros_like(run.a), np.abs(run.limit(step).mean(1) - run.optimum)
        for number in range(LONGEST + 1):
            result = np.where(count == number, np.abs(x.mean(1) - run.optimum), result)
            x = run.step(x, step)
        known = run.constants() | {"learning_rate": step, "gradient_bound": _gradient_bound(run), "steps": count}
        collected.put(run.rows, result, known)
    return collected.result()


def average_gradient(points: np.ndarray) -> Measured:
    """(1/T) sum_t E|grad f(mean x^t)|^2 with noise, exactly: the mean moves by a step, the covariance is linear too.

    The dissimilarity is the largest one along the run, where the proof needs it: on quadratics that are not alike it
    has no finite supremum.
    """
    collected = Table(len(points))
    for run in runs(points, convex=False):
        step = _share(run) * (1 - run.sigma) / (6 * run.smoothness * np.sqrt(run.nodes)) * (1 - 1e-9)
        count = 1 + np.round((LONGEST - 1) * run.u[:, 4]).astype(int)
        identity, curvature, linear = np.eye(run.nodes), run.a.mean(1), run.a * run.b
        matrix = run.W - (step[:, None] * run.a)[:, :, None] * identity
        added = ((step[:, None] * run.noise) ** 2)[:, :, None] * identity
        apart = run.a - curvature[:, None]
        x, covariance = np.zeros_like(run.a), np.zeros_like(run.W)
        total, unlike, result, seen = (np.zeros(len(step)) for _ in range(4))
        for number in range(1, LONGEST + 1):
            mean, variance = x.mean(1), covariance.mean((1, 2))
            total = total + curvature**2 * ((mean - run.optimum) ** 2 + variance)
            offset = apart * mean[:, None] - (linear - linear.mean(1, keepdims=True))
            unlike = np.maximum(unlike, np.mean(offset**2 + apart**2 * variance[:, None], axis=1))
            now = count == number
            result, seen = np.where(now, total / number, result), np.where(now, unlike, seen)
            x, covariance = run.step(x, step), matrix @ covariance @ matrix.transpose(0, 2, 1) + added
        known = run.constants() | {
            "learning_rate": step,
            "steps": count.astype(float),
            "initial_gap": curvature * run.optimum**2 / 2,
            "gradient_variance": np.max(run.noise**2, axis=1),
            "dissimilarity": seen,
        }
        collected.put(run.rows, result, known)
    return collected.result()


def common_hessian(points: np.ndarray) -> dict[str, Float[np.ndarray, " m"]]:
    """Constants of noisy quadratics with a common Hessian `curvature` and a start at distance `start`."""
    smoothness, start = logarithmic(points[:, 2], 0.1, 10), logarithmic(points[:, 3], 1e-2, 1e2)
    curvature = smoothness * logarithmic(1 - points[:, 4], 1e-6, 1.0)
    return {
        "nodes": 2.0 + np.round(14 * points[:, 0]),
        "sigma": 0.99 * points[:, 1],
        "smoothness": smoothness,
        "gradient_variance": logarithmic(points[:, 5], 1e-2, 1e2),
        "dissimilarity": 10 * points[:, 6] ** 3,
        "initial_gap": curvature * start**2 / 2,
        "curvature": curvature,
        "start": start,
    }


def average_gradient_of(known: dict[str, np.ndarray], step: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(1/T) sum_t E|grad f(mean x^t)|^2 over a common Hessian, where the mean does not see the network."""
    decay = -2 * np.log1p(-step * known["curvature"])
    stationary = step**2 * known["gradient_variance"] / known["nodes"] / -np.expm1(-decay)
    start = (known["start"] ** 2 - stationary) * np.expm1(-decay * count) / (count * np.expm1(-decay))
    return known["curvature"] ** 2 * (stationary + start)
