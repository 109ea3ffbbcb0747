"""Exact second moments of compressors, and of gossip and gradient descent with them, many instances at once."""

import numpy as np
from jaxtyping import Float

from theory.bounds._combine_then_adapt import SMALL, mixings
from theory.bounds._laplacians import Measured, Table, columns, logarithmic, mean_free

COORDINATES = 6
"""Vectors whose random subsets are all enumerated."""
BLOCKS = 6
COORDINATE_DIMENSION = 1 + COORDINATES
BLOCK_DIMENSION = 1 + 2 * BLOCKS


def random_subset(points: np.ndarray, scaled: bool) -> Measured:
    """E|C(v) - v|^2 / |v|^2 over all subsets of k of d = 6 coordinates, times d / k if `scaled`."""
    v = 2 * points[:, 1:] - 1
    v[np.abs(v).max(1) < 1e-3] = 1
    k = 1 + np.minimum((points[:, 0] * COORDINATES).astype(int), COORDINATES - 1)
    masks = (np.arange(2**COORDINATES)[:, None] >> np.arange(COORDINATES)) & 1
    chosen = masks.sum(1) == k[:, None]
    factor = COORDINATES / k if scaled else np.ones(len(k))
    errors = np.sum((factor[:, None, None] * masks * v[:, None] - v[:, None]) ** 2, 2)
    expected = np.sum(np.where(chosen, errors, 0), 1) / chosen.sum(1)
    return expected / np.sum(v**2, 1), {"kept": k, "dimension": np.full(len(k), COORDINATES)}


def random_block(points: np.ndarray, scaled: bool) -> Measured:
    """The same over all cyclic blocks of k consecutive coordinates."""
    v = 2 * points[:, 1:] - 1
    v[np.abs(v).max(1) < 1e-3] = 1
    k = 1 + np.minimum((points[:, 0] * COORDINATES).astype(int), COORDINATES - 1)
    start, place = np.indices((COORDINATES, COORDINATES))
    sent = (place - start) % COORDINATES < k[:, None, None]
    factor = COORDINATES / k if scaled else np.ones(len(k))
    errors = (factor[:, None, None] * sent * v[:, None] - v[:, None]) ** 2
    return errors.sum(2).mean(1) / np.sum(v**2, 1), {"kept": k, "dimension": np.full(len(k), COORDINATES)}


def _vectors(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values, multiplicities, dimension): blocks of equal entries, one to 10^4 in each, |v| = 1."""
    values = logarithmic(points[:, :BLOCKS], 1.0, 1e-4)
    counts = np.round(logarithmic(points[:, BLOCKS:], 1.0, 1e4))
    values = values / np.sqrt(np.sum(counts * values**2, 1, keepdims=True))
    return values, counts, counts.sum(1)


def top(points: np.ndarray) -> Measured:
    """|C(v) - v|^2 / |v|^2 where the k largest entries are kept."""
    values, counts, dimension = _vectors(points[:, 1:])
    k = np.maximum(1, np.floor(points[:, 0] * dimension))
    order = np.argsort(-values, 1)
    values, counts = np.take_along_axis(values, order, 1), np.take_along_axis(counts, order, 1)
    before = np.cumsum(counts, 1) - counts
    left = counts - np.clip(k[:, None] - before, 0, counts)
    return np.sum(left * values**2, 1), {"kept": k, "dimension": dimension}


def scaled_sign(points: np.ndarray) -> Measured:
    """|C(v) - v|^2 / |v|^2 for C(v) = sign(v) |v|_1 / d."""
    values, counts, dimension = _vectors(points[:, 1:])
    mean = np.sum(counts * values, 1, keepdims=True) / dimension[:, None]
    return np.sum(counts * (mean - values) ** 2, 1), {"dimension": dimension}


def qsgd(points: np.ndarray, largest: bool = False) -> Measured:
    """E|Q(v) - v|^2 / |v|^2 of random rounding of |v_i| / |v| to multiples of 1 / s: sum_i p_i (1 - p_i) / s^2.

    With `largest` |v| is the largest entry in place of the Euclidean norm.
    """
    values, counts, dimension = _vectors(points[:, 1:])
    levels = np.round(logarithmic(points[:, 0], 1.0, 1e4))
    norm = values.max(1) if largest else np.ones(len(points))
    scaled = levels[:, None] * values / norm[:, None]
    share = scaled - np.floor(scaled)
    measured = (norm / levels) ** 2 * np.sum(counts * share * (1 - share), 1)
    return measured, {"levels": levels, "dimension": dimension}


GOSSIP_DIMENSION = columns(SMALL) + 3


def choco_admissible(gap: np.ndarray, quality: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """CHOCO-Gossip's largest step size: delta omega / (16 delta + delta^2 + 4 b^2 + 2 delta b^2 - 8 delta omega)."""
    return gap * quality / (16 * gap + gap**2 + 4 * norm**2 + 2 * gap * norm**2 - 8 * gap * quality)


def choco(points: np.ndarray, largest: bool = False) -> Measured:
    """The worst factor in one step of E|x - xbar|^2 + E|x - x^|^2 in CHOCO-Gossip, over all compressors and starts.

    With r = x - x^ once messages have arrived, x+ = x - gamma (I - W)(x - r) and the next r is what compression leaves
    of x+ - x + r, whose expected square is at most, and for random subsets just, 1 - omega of it. Each eigenvector of W
    moves by itself.
    """
    collected = Table(len(points))
    for rows, W in mixings(points, SMALL, True, largest=1.999):
        u = points[rows, columns(SMALL) + 1 :]
        values = np.linalg.eigvalsh(W)[:, :-1]
        gap = 1 - np.maximum(values[:, -1], -values[:, 0])
        norm = 1 - values[:, 0]
        quality = logarithmic(u[:, 0], 1.0, 1e-3)
        share = np.ones(len(rows)) if largest else np.maximum(u[:, 1], 1e-2)
        step = choco_admissible(gap, quality, norm) * share * (1 - 1e-12)
        known = {"sigma": 1 - gap, "compression": quality, "laplacian_norm": norm, "learning_rate": step}
        collected.put(rows, choco_factor(1 - values, step, quality), known)
    return collected.result()


def choco_factor(
    laplacian: Float[np.ndarray, "m k"], step: Float[np.ndarray, " m"], quality: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """The same from the eigenvalues of I - W, without 0, whose factor is 1 - omega."""
    moved = step[:, None] * laplacian
    left = np.broadcast_to(np.sqrt(1 - quality)[:, None], moved.shape)
    rows = [[1 - moved, moved], [-left * moved, left * (1 + moved)]]
    blocks = np.stack([np.stack(row, -1) for row in rows], -2)
    return np.maximum(np.linalg.norm(blocks, 2, axis=(2, 3)).max(1) ** 2, 1 - quality)


def choco_mean_square_factor(W: Float[np.ndarray, "n n"], step: float, quality: float) -> float:
    """The asymptotic factor of E|x - xbar|^2 with random subsets of k = omega d coordinates, exactly.

    Coordinates move alike and nodes choose independently, so that E s s' of one coordinate's s = (x - xbar, x - x^)
    obeys a linear recursion of its own, where x - x^ of a node is left with chance 1 - omega.
    """
    n = len(W)
    basis, laplacian = mean_free(n), np.eye(n) - W
    pulled = step * laplacian
    move = np.block([[basis.T @ (np.eye(n) - pulled) @ basis, basis.T @ pulled], [-pulled @ basis, np.eye(n) + pulled]])
    size = 2 * n - 1
    keep = np.concatenate([np.ones(n - 1), np.full(n, 1 - quality)])
    moments = np.multiply.outer(keep, keep)
    moments[np.arange(n - 1, size), np.arange(n - 1, size)] = 1 - quality
    operator = np.kron(move, move) * moments.ravel()
    return float(np.abs(np.linalg.eigvals(operator)).max())


MODES = 3
LONGEST = 200
FEEDBACK_DIMENSION = 4 + 3 * MODES


def error_feedback(points: np.ndarray) -> Measured:
    """The average of E|grad f(x_t)|^2 over t = 0 ... T under SGD with error feedback and random subsets, exactly.

    f = sum_c h_c x_c^2 / 2 with additive noise. The bound's E|g|^2 is the largest one on the way.
    """
    quality = logarithmic(points[:, 0], 1.0, 1e-2)
    eta = logarithmic(points[:, 1], 4.0, 1e-3)
    horizon = np.round(logarithmic(points[:, 2], 1, LONGEST)).astype(int)
    size = logarithmic(points[:, 3], 1e-3, 1e3)[:, None]
    modes = points[:, 4:].reshape(-1, 3, MODES)
    h, noise = modes[:, 0] / modes[:, 0].max(1, keepdims=True).clip(1e-3), modes[:, 1]
    h[h.max(1) < 1] = 1
    xx = (size * modes[:, 2]) ** 2
    gap = np.sum(h * xx, 1) / 2
    xe, ee = np.zeros_like(xx), np.zeros_like(xx)
    omega, step = quality[:, None], eta[:, None]
    gradients, largest, average = np.zeros(len(eta)), np.zeros(len(eta)), np.full(len(eta), np.nan)
    for t in range(LONGEST + 1):
        squares = h**2 * xx
        gradients += squares.sum(1)
        largest = np.where(t <= horizon, np.maximum(largest, np.sum(squares + noise**2, 1)), largest)
        average = np.where(t == horizon, gradients / (t + 1), average)
        # p = eta g + e goes through with chance omega: x -= p, else e = p.
        pp = step**2 * (squares + noise**2) + 2 * step * h * xe + ee
        xp = step * h * xx + xe
        xx, xe, ee = xx - 2 * omega * xp + omega * pp, (1 - omega) * xp, (1 - omega) * pp
        xx, xe, ee = (np.clip(moment, -1e200, 1e200) for moment in (xx, xe, ee))
    known = {
        "initial_gap": gap,
        "learning_rate": eta,
        "steps": horizon + 1,
        "smoothness": np.ones(len(eta)),
        "second_moment": largest,
        "compression": quality,
    }
    return np.where(average < 1e100, average, np.nan), known
