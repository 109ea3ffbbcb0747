"""Exact expectations of low-rank compression and of gossip with it, many instances at once."""

import itertools
from functools import cache

import numpy as np
from jaxtyping import Float

from theory.bounds import _compressors as compressors
from theory.bounds._combine_then_adapt import SMALL, mixings
from theory.bounds._laplacians import Measured, Table, columns, logarithmic, mean_free

BLOCKS = compressors.BLOCKS
GOSSIP_DIMENSION = columns(SMALL) + 4
LONGEST_SIDE = 100
"""Columns of the largest matrices whose random projections are tried."""
VISIBLE = 1e-6
"""Factors below this are exact averages in one round up to rounding, whose logarithms mean nothing."""


def expected_form(
    W: Float[np.ndarray, "m n n"], share: Float[np.ndarray, " m"], step: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "m n n"]:
    r"""F with E|x+ - xbar|^2 = <x, F x> for mean-free x after one round of gossip with fresh projections.

    x+ = x - \gamma \sum_e w_e b_e P_e b_e'x, with b_e = e_i - e_j, E P_e = \delta I and P_e^2 = P_e, each edge by
    itself: F = I - 2 \gamma \delta L + \gamma^2 (\delta^2 L^2 + 2 \delta (1 - \delta) \sum_e w_e^2 b_e b_e').
    """
    identity = np.eye(W.shape[1])
    laplacian, squares = identity - W, (W * (1 - identity)) ** 2
    squares = squares.sum(2)[:, :, None] * identity - squares
    delta, gamma = share[:, None, None], step[:, None, None]
    quadratic = delta**2 * laplacian @ laplacian + 2 * delta * (1 - delta) * squares
    return identity - 2 * gamma * delta * laplacian + gamma**2 * quadratic


def one_step_factor(
    W: Float[np.ndarray, "m n n"], share: Float[np.ndarray, " m"], step: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """The worst factor of E|x - xbar|^2 in one round, over all starts."""
    basis = mean_free(W.shape[1])
    return np.linalg.eigvalsh(basis.T @ expected_form(W, share, step) @ basis)[:, -1]


def mean_square_factor(
    W: Float[np.ndarray, "m n n"], share: Float[np.ndarray, " m"], step: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    r"""The asymptotic factor of E|x - xbar|^2.

    E x x', summed over the entries of the matrices x_i, obeys G+ = A G A + \gamma^2 \delta (1 - \delta) \sum_e w_e^2
    (b_e'G b_e) b_e b_e' with A = I - \gamma \delta L: a symmetric linear map.
    """
    n = W.shape[1]
    basis = mean_free(n)
    A = basis.T @ (np.eye(n) - (step * share)[:, None, None] * (np.eye(n) - W)) @ basis
    operator = np.einsum("mij,mkl->mikjl", A, A).reshape(len(W), (n - 1) ** 2, (n - 1) ** 2)
    i, j = np.triu_indices(n, 1)
    edges = basis[i] - basis[j]
    outer = np.einsum("ea,eb->eab", edges, edges).reshape(len(i), -1)
    weights = (step**2 * share * (1 - share))[:, None] * W[:, i, j] ** 2
    operator += np.einsum("me,ea,eb->mab", weights, outer, outer)
    return np.linalg.eigvalsh(operator)[:, -1]


def power_gossip(points: np.ndarray, best: bool = False, asymptotic: bool = False) -> Measured:
    """PowerGossip's factor with fresh directions, in one round or in the long run, up to the limit 2 / (1 - lambda_n).

    With `best` at half the limit. Graphs beyond six nodes are tried for one round only.
    """
    collected = Table(len(points))
    for rows, W in mixings(points, SMALL, not asymptotic, largest=1.999):
        u = points[rows, columns(SMALL) + 1 :]
        values = np.linalg.eigvalsh(W)
        side = np.round(logarithmic(u[:, 0], 1, LONGEST_SIDE))
        share = np.maximum(1, np.round(u[:, 1] * side)) / side
        reach = np.full(len(rows), 0.5) if best else np.maximum(u[:, 2], 1e-3)
        step = 2 / (1 - values[:, 0]) * reach * (1 - 1e-12)
        known = {
            "lambda_2": values[:, -2],
            "lambda_n": values[:, 0],
            "projection_share": share,
            "diffusion_rate": step,
        }
        factor = mean_square_factor if asymptotic else one_step_factor
        measured = factor(W, share, step)
        collected.put(rows, np.where(measured > VISIBLE, measured, np.nan), known)
    return collected.result()


SPECTRUM_DIMENSION = 1 + 2 * BLOCKS
ITERATION_DIMENSION = 2 + 2 * BLOCKS
LOG_TIMES = np.arange(-60.0, 160.0, 0.2)


def best_rank(points: np.ndarray) -> Measured:
    """What the best approximation of rank r loses: the smaller squared singular values, wherever they come from."""
    lost, known = compressors.top(points)
    return lost, {"rank": known["kept"], "smaller_side": known["dimension"]}


def caught(weights: Float[np.ndarray, "m k"], counts: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "m k"]:
    r"""E w_i z_i^2 / \sum_j w_j z_j^2 with normal z_j, where each weight occurs `counts` times.

    That is \int_0^\infty w_i / (1 + 2 t w_i) \prod_j (1 + 2 t w_j)^{-1/2} dt, and over log t the trapezoidal rule is
    exact up to rounding: the integrand is analytic in a strip of width pi, and decays on both sides.
    """
    total = weights / weights.max(1, keepdims=True)
    result = np.zeros_like(total)
    for x in LOG_TIMES:
        scaled = 2 * np.exp(x) * total
        survival = np.exp(x - 0.5 * np.sum(counts * np.log1p(scaled), 1, keepdims=True))
        result += (LOG_TIMES[1] - LOG_TIMES[0]) * survival * total / (1 + scaled)
    return result


def fresh_power_iteration(points: np.ndarray) -> Measured:
    """E|M - P P'M|^2 / |M|^2 after one to three power iterations from a normal start, for r = 1 and r = min(a, b) - 1.

    In the basis of M's singular vectors P spans diag(sigma^(2 s - 1)) Q. For r = 1 it catches direction i with a share
    of its square; for r = min(a, b) - 1 it misses a single direction, proportional to z_i / sigma_i^(2 s - 1).
    """
    sizes, counts, side = compressors._vectors(points[:, 2:])
    sizes = np.maximum(sizes, 1e-3 * sizes.max(1, keepdims=True))
    power = 2 * np.minimum((3 * points[:, 1]).astype(int), 2) + 1
    single = points[:, 0] < 0.5
    weights = sizes ** (2 * np.where(single, power, -power))[:, None]
    shares = caught(weights, counts)
    left = np.where(single[:, None], 1 - shares, shares)
    lost = np.sum(counts * sizes**2 * left, 1) / np.sum(counts * sizes**2, 1)
    return lost, {"rank": np.where(single, 1.0, side - 1), "smaller_side": side}


PROJECTION_ROWS, PROJECTION_COLUMNS, PROJECTION_WORKERS, PROJECTION_RANK = 5, 4, 3, 2
PROJECTION_DIMENSION = 1 + PROJECTION_COLUMNS * (PROJECTION_RANK + PROJECTION_WORKERS * PROJECTION_ROWS)


def power_sgd_projection(points: np.ndarray) -> Measured:
    """|Mbar - M^|^2 / |Mbar|^2 in PowerSGD's step of three workers, from any Q, good or bad."""
    m, a, b, r = len(points), PROJECTION_ROWS, PROJECTION_COLUMNS, PROJECTION_RANK
    start = 2 * points[:, 1 : 1 + b * r].reshape(m, b, r) - 1 + 1e-3 * np.eye(b, r)
    deltas = 2 * points[:, 1 + b * r :].reshape(m, PROJECTION_WORKERS, a, b) - 1
    mean = deltas.mean(1)
    # Between a start without a relation to the matrix and its own leading singular vectors, as after many steps.
    leading = np.linalg.svd(mean)[2][:, :r].transpose(0, 2, 1)
    start = (1 - points[:, 0])[:, None, None] * start + points[:, 0, None, None] * leading
    p = np.linalg.qr((deltas @ start[:, None]).mean(1))[0]
    q = (deltas.transpose(0, 1, 3, 2) @ p[:, None]).mean(1)
    size = np.sum(mean**2, (1, 2))
    lost = np.sum((mean - p @ q.transpose(0, 2, 1)) ** 2, (1, 2))
    told = np.sum((p.transpose(0, 2, 1) @ mean) ** 2, (1, 2))
    valid = size > 1e-6
    size = np.where(valid, size, 1)
    return np.where(valid & (lost > 1e-12 * size), lost / size, np.nan), {"captured": told / size}


SKETCHES = ((1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2))
"""Columns and ranks of the random projections whose moments are integrated."""
SKETCH_ROWS = 2
SKETCH_DIMENSION = 1 + SKETCH_ROWS * max(columns for columns, _ in SKETCHES)


@cache
def sketch_moment(columns: int, rank: int) -> Float[np.ndarray, "b b"]:
    """E(U U' - I)^2 with independent entries of U [b, r] from N(0, 1/r), by quadrature that is exact to degree five."""
    places, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = weights / weights.sum()
    every = np.array(list(itertools.product(range(3), repeat=columns * rank)))
    U = places[every].reshape(-1, columns, rank) / np.sqrt(rank)
    error = U @ U.transpose(0, 2, 1) - np.eye(columns)
    return np.einsum("k,kab,kbc->ac", weights[every].prod(1), error, error)


def unbiased_low_rank(points: np.ndarray) -> Measured:
    """E|M U U' - M|^2 / |M|^2."""
    kind = np.minimum((points[:, 0] * len(SKETCHES)).astype(int), len(SKETCHES) - 1)
    lost, shape = np.full(len(points), np.nan), np.array(SKETCHES, float)[kind]
    for number, (b, r) in enumerate(SKETCHES):
        rows = np.flatnonzero(kind == number)
        M = 2 * points[rows, 1 : 1 + SKETCH_ROWS * b].reshape(-1, SKETCH_ROWS, b) - 1
        M[np.abs(M).max((1, 2)) < 1e-3] = 1
        lost[rows] = np.einsum("mia,ab,mib->m", M, sketch_moment(b, r), M) / np.sum(M**2, (1, 2))
    return lost, {"columns": shape[:, 0], "rank": shape[:, 1]}


def water_filling(
    sizes: Float[np.ndarray, "m k"], counts: Float[np.ndarray, "m k"], total: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "m k"]:
    """p = min(1, c size) that add up to `total`, for sizes in decreasing order, each of which occurs `counts` times."""
    before = np.cumsum(counts, 1) - counts
    tails = np.cumsum((counts * sizes)[:, ::-1], 1)[:, ::-1]
    level = (total[:, None] - before) / tails
    first = np.argmax(level * sizes <= 1 + 1e-12, 1)
    level = np.take_along_axis(level, first[:, None], 1)
    return np.where(np.arange(sizes.shape[1]) < first[:, None], 1, np.minimum(1, level * sizes))


def atomo(points: np.ndarray) -> Measured:
    """sum_i sigma_i^2 (1 / p_i - 1) / sum_i sigma_i^2."""
    sizes, counts, dimension = compressors._vectors(points[:, 1:])
    order = np.argsort(-sizes, 1)
    sizes, counts = np.take_along_axis(sizes, order, 1), np.take_along_axis(counts, order, 1)
    atoms = np.maximum(1, np.floor(points[:, 0] * dimension))
    p = water_filling(sizes, counts, atoms)
    lost = np.sum(counts * sizes**2 * (1 / p - 1), 1)
    return np.where(atoms < dimension, lost, np.nan), {"atoms": atoms, "dimension": dimension}
