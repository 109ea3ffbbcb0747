"""Spectral quantities of many mixings at once, for the searches of bounds on effective numbers of neighbours."""

import numpy as np

from theory.bounds._combine_then_adapt import SMALL, averaging, decays, largest_beta, mixings
from theory.bounds._laplacians import Measured, Table, columns, logarithmic

GAP_DIMENSION = columns(SMALL) + 2


def inverse_neighbors(values: np.ndarray, decay: np.ndarray) -> np.ndarray:
    """1 / n_W(decay) from the eigenvalues of W (eq. 6)."""
    squares = values**2
    # (1 - decay) + decay (1 - lambda^2) is 1 - decay lambda^2 without cancellation as the decay tends to 1.
    share = (1 - decay)[:, None] / ((1 - decay)[:, None] + decay[:, None] * np.maximum(1 - squares, 0))
    return np.mean(squares * share, 1)


def spectral_gap(points: np.ndarray) -> Measured:
    """1 / n_W of mixings with positive and negative eigenvalues."""
    collected = Table(len(points))
    for rows, W in mixings(points, SMALL, True, largest=2.0):
        values = np.linalg.eigvalsh(W)
        decay = decays(points[rows, GAP_DIMENSION - 1])
        n = np.full(len(rows), values.shape[1])
        sigma = np.maximum(values[:, -2], -values[:, 0])
        collected.put(rows, inverse_neighbors(values, decay), {"nodes": n, "sigma": sigma, "decay": decay})
    return collected.result()


def admissible_beta(points: np.ndarray) -> Measured:
    """The largest beta of mixings whose eigenvalues are at least 1/2."""
    collected = Table(len(points))
    for rows, W in mixings(points, SMALL, True, largest=0.5):
        decay = decays(points[rows, GAP_DIMENSION - 1])
        values = np.linalg.eigvalsh(W)
        known = {"decay": decay, "lambda_2": values[:, -2], "lambda_n": values[:, 0] + 1e-14}
        collected.put(rows, largest_beta(W, averaging(W, decay)), known)
    return collected.result()


def largest_step(points: np.ndarray) -> Measured:
    """The largest step size that theorem 6 admits with omega = 1 / n_W."""
    collected = Table(len(points))
    for rows, W in mixings(points, SMALL, True, largest=0.999):
        M = averaging(W, decays(points[rows, GAP_DIMENSION - 1]))
        neighbors, beta = 1 / np.einsum("mii->mi", M).max(1), largest_beta(W, M)
        zeta = logarithmic(points[rows, GAP_DIMENSION], 1.0, 1e4)
        known = {
            "effective_neighbors": neighbors,
            "beta": beta,
            "zeta": zeta,
            "smoothness": np.ones(len(rows)),
        }
        collected.put(rows, np.minimum(beta / neighbors, 0.25 / (2 * zeta / neighbors + 1)), known)
    return collected.result()


ATOMS = 8
DIMENSION_DIMENSION = 4 + ATOMS


def spectral_dimension(points: np.ndarray, low: float, high: float) -> Measured:
    """n_W of spectra between 0 and 1 with d_s in [low, high] and the largest c_s that they allow.

    The eigenvalues 1 - lambda_k = (k / (n - 1))^{2 / d} saturate the power law; eight factors disturb them in blocks.
    """
    nodes = np.round(logarithmic(points[:, 0], 2, 400)).astype(int)
    dimension = low + (high - low) * points[:, 1]
    decay = decays(points[:, 2])
    collected = Table(len(points))
    for size in np.unique(nodes):
        rows = np.flatnonzero(nodes == size)
        rank = np.arange(1, size)
        exponent = (2 / dimension[rows])[:, None]
        block = np.arange(size - 1) * ATOMS // (size - 1)
        share = logarithmic(points[rows, 3][:, None] * points[rows, 4:][:, block], 1.0, 1e-3)
        missing = np.sort(np.minimum((rank / (size - 1)) ** exponent * share, 1), 1)
        # sigma((lambda, 1)) <= (1 - lambda)^{d/2} / c just below each positive eigenvalue, where the measure counts it.
        ratios = missing ** (dimension[rows] / 2)[:, None] * size / rank
        constant = np.min(np.where(missing < 1, ratios, np.inf), 1)
        values = np.concatenate([np.ones((len(rows), 1)), 1 - missing], 1)
        known = {
            "nodes": np.full(len(rows), size),
            "decay": decay[rows],
            "spectral_dimension": dimension[rows],
            "spectral_constant": constant,
        }
        measured = np.where(np.isfinite(constant), 1 / inverse_neighbors(values, decay[rows]), np.nan)
        collected.put(rows, measured, known)
    return collected.result()
