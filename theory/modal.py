r"""Lower bounds on worst-case rates: instances so simple that their rates are known exactly.

All nodes have the Hessian a, and W has the eigenvalue \lambda on one disagreement mode: then the method is one small
matrix T(a, \lambda), or a product of two of them where the graph alternates. Every instance is a member of the class
that a certificate speaks for, so the largest of their rates is a lower bound on the truth.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from theory.extraction import StateSpace

CURVATURES, EIGENVALUES, ZOOMS = 9, 17, 6


class Instance(NamedTuple):
    """A bad instance: every f_i has the curvature `curvature`, and W takes the `eigenvalues` on a mode in turn.

    An empty tuple of eigenvalues says that the average over nodes is what is slow.
    """

    rate: float
    curvature: float
    eigenvalues: tuple[float, ...]


def worst_instance(system: StateSpace, strong_convexity: float, smoothness: float, sigma: float) -> Instance:
    """The slowest instance among common Hessians and graphs that are constant or alternate between two.

    Grids over a in [mu, L] and lambda in [-sigma, sigma], zoomed in on around the best point.

    Args:
      system: the method's matrices.
      strong_convexity: mu.
      smoothness: L.
      sigma: the largest ||W - J||.

    Example:
      >>> system = theory.state_space(lambda mix: adozoo.extra(0.5, mix))
      >>> found = theory.modal.worst_instance(system, 0.1, 1.0, 0.3)
      >>> round(found.rate, 6), found.eigenvalues  # the average's 1 - learning_rate * mu
      (0.95, ())
    """
    node = system.averaged if sigma == 0 else system
    curvatures = np.linspace(strong_convexity, smoothness, CURVATURES)
    rates = _radius(_within(system.mean_basis, system.mode(curvatures, 1.0)))
    best = Instance(float(rates.max()), float(curvatures[rates.argmax()]), ())
    for period in (1, 2):
        found = _scan(node, strong_convexity, smoothness, sigma, period)
        best = max(best, found, key=lambda one: one.rate * (1 + 1e-12 * (one is best)))
    return best


def quick_lower_bounds(
    system: StateSpace, strong_convexity: float, smoothness: float, sigma: float
) -> tuple[float, float]:
    """The rates of the average and of a disagreement mode at the ends of the ranges: a cheap lower bound on each."""
    node = system.averaged if sigma == 0 else system
    ends = np.array([strong_convexity, smoothness])
    average = _radius(_within(system.mean_basis, system.mode(ends, 1.0)))
    modes = node.mode(ends[:, None], np.array([-sigma, 0.0, sigma]))
    return float(average.max()), float(_radius(_within(node.disagreement_basis, modes)).max())


def _scan(system: StateSpace, low: float, high: float, sigma: float, period: int) -> Instance:
    lower, upper = np.array([low] + [-sigma] * period), np.array([high] + [sigma] * period)
    best, width = Instance(-1.0, high, ()), upper - lower
    start, stop = lower, upper
    for _ in range(ZOOMS):
        a = np.linspace(start[0], stop[0], CURVATURES)
        grids = np.meshgrid(a, *(np.linspace(start[k], stop[k], EIGENVALUES) for k in range(1, period + 1)))
        product = _within(system.disagreement_basis, system.mode(grids[0], grids[1]))
        for eigenvalue in grids[2:]:
            product = _within(system.disagreement_basis, system.mode(grids[0], eigenvalue)) @ product
        rates = _radius(product) ** (1 / period)
        where = np.unravel_index(rates.argmax(), rates.shape)
        if rates[where] > best.rate:
            best = Instance(float(rates[where]), float(grids[0][where]), tuple(float(g[where]) for g in grids[1:]))
        width = width / 5
        centre = np.array([best.curvature, *best.eigenvalues])
        start, stop = np.maximum(lower, centre - width), np.minimum(upper, centre + width)
    return best


def _within(basis: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """T on an invariant subspace that depends on no instance."""
    return basis.T @ matrices @ basis


def _radius(matrices: Float[np.ndarray, "... k k"]) -> Float[np.ndarray, "..."]:
    return np.abs(np.linalg.eigvals(matrices)).max(-1, initial=0.0)
