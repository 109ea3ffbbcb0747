r"""The step size (and further parameters) with the best certificate.

Most candidates cost a single feasibility problem: one that does not certify a better rate than the best so far is
dropped, and only improvements are bisected. A grid in the logarithms of the parameters finds the right region, and an
evolution strategy that learns the direction of improving steps goes down from there: worst-case rates have sharp
valleys, along which simplex and pattern searches get stuck.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from theory.certificate import LARGEST, TOLERANCE, Certificate, certify, check_class, check_exact, smallest_rate
from theory.extraction import EXACT_TOLERANCE, Extractor
from theory.lmi import inequalities
from theory.modal import quick_lower_bounds

GRID = (33, 15, 9)
"""Points of the first scan along each axis, for one, two, three and more parameters."""
FINEST = 1e-6
"""A descent stops when its steps are this small a part of a parameter's (logarithmic) range."""
TRIALS = 400
"""A descent stops after this many trials a parameter."""
WIDTHS = (0.03, 0.1, 0.01, 0.03, 0.003)
"""First steps of the descents, each from where the last one ended; one parameter needs only the first."""
TARGET = 2 / 11
"""The share of successful trials at which a descent keeps its step size."""


Improves: TypeAlias = Callable[[np.ndarray, float], float]
"""(place in the unit cube, best rate so far) -> the rate there if it is better, else inf."""


class Tuned(NamedTuple):
    """The best parameters found, by name, and the certificate that they have."""

    parameters: dict[str, float]
    certificate: Certificate


class _Objective:
    """The certified rate at a point, asked only as far as it beats the best one so far."""

    def __init__(self, extract: Extractor, constants: tuple[float, float, float], undirected: bool):
        self.extract, self.constants, self.undirected = extract, constants, undirected

    def improves(self, point: np.ndarray, best: float) -> float:
        """The rate at this point if it is below `best` by more than the tolerance, else inf."""
        system = self.extract(tuple(point))
        if max(system.exactness_defect(self.constants[2] == 0)) > EXACT_TOLERANCE:
            return math.inf
        aim, rate = best - 2 * TOLERANCE, 0.0
        lower = quick_lower_bounds(system, *self.constants)
        if max(lower) >= aim:
            return math.inf
        for part, low in zip(inequalities(system, *self.constants, self.undirected), lower, strict=True):
            low = max(low, rate)
            # Feasible at the aim? Most candidates are not, and one question shows it.
            rate = smallest_rate(part, low, TOLERANCE, aim) if part.attained(aim) <= aim else math.inf
            if not rate < aim:
                return math.inf
        return rate


def tune(
    method: Callable[..., Any],
    strong_convexity: float,
    smoothness: float,
    sigma: float,
    parameters: Mapping[str, tuple[float, float]] | None = None,
    equal_start: bool = False,
    undirected: bool = False,
) -> Tuned:
    r"""Find the parameters of a method with the smallest certified worst-case rate.

    Args:
      method: (mix, **parameters) -> transformation, as `lambda mix, learning_rate: adozoo.extra(learning_rate, mix)`;
        the parameters may be traced.
      strong_convexity: mu.
      smoothness: L.
      sigma: the largest ||W - 11'/n||.
      parameters: the positive range of each parameter, by name; learning_rate in
        [1e-4 / L, 4 / L] by default. Searched in logarithms.
      equal_start: whether all nodes start at the same params.
      undirected: whether every W_t is symmetric.

    Returns:
      The best parameters and their certificate. If no point has a certified rate below `theory.certificate.LARGEST`,
      the certificate's rate is inf and the parameters are the middle of their ranges.

    Raises:
      ValueError: as `theory.worst_case_rate`, or for a range that is empty or not positive.

    Example:
      >>> found = theory.tune(
      ...     lambda mix, learning_rate: adozoo.nids(learning_rate, mix), 0.1, 1.0, 0.4
      ... )
      >>> round(found.certificate.rate, 4), round(found.parameters["learning_rate"], 2)
      (0.8667, 1.82)
    """
    check_class(strong_convexity, smoothness, sigma)
    ranges = dict(parameters or {"learning_rate": (1e-4 / smoothness, 4 / smoothness)})
    for name, (low, high) in ranges.items():
        if not 0 < low < high < math.inf:
            raise ValueError(f"tune: the range of {name} must be 0 < low < high, got ({low!r}, {high!r}).")
    names = list(ranges)
    lows, highs = np.log(np.array(list(ranges.values()))).T
    middle = tuple(float(x) for x in np.exp((lows + highs) / 2))

    def ordered(mix: Any, *values: Any) -> Any:
        return method(mix, **dict(zip(names, values, strict=True)))

    extract = Extractor(ordered, middle, exact_mean=sigma == 0, equal_start=equal_start)
    check_exact(extract(middle), sigma)
    objective = _Objective(extract, (strong_convexity, smoothness, sigma), undirected)

    def improves(place: np.ndarray, best: float) -> float:
        return objective.improves(np.exp(lows + place * (highs - lows)), best)

    place, rate = _scan(improves, len(names))
    rng = np.random.default_rng(0)
    for width in WIDTHS[: 1 if len(names) == 1 else None]:
        if place is not None:
            place, rate = _descend(improves, place, rate, width, rng)
    values = tuple(float(x) for x in np.exp(lows + place * (highs - lows))) if place is not None else middle
    certificate = certify(extract(values), strong_convexity, smoothness, sigma, undirected=undirected)
    return Tuned(dict(zip(names, values, strict=True)), certificate)


def _scan(improves: Improves, size: int) -> tuple[np.ndarray | None, float]:
    """The best point of a grid in the unit cube, in a random order: a good value found early saves bisections."""
    best, rate = None, LARGEST
    axes = np.meshgrid(*[np.linspace(0, 1, GRID[min(size, len(GRID)) - 1])] * size)
    for place in np.random.default_rng(0).permutation(np.stack([axis.ravel() for axis in axes], axis=1)):
        found = improves(place, rate)
        if found < rate:
            best, rate = place, found
    return best, rate


def _descend(
    improves: Improves,
    place: np.ndarray,
    rate: float,
    width: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """The (1+1)-CMA-ES (Igel, Suttorp, Hansen 2006): one Gaussian trial at a time, shaped by those that improved."""
    size = len(place)
    shape, path, success = np.eye(size), np.zeros(size), TARGET
    damping, memory, learned = 1 + size / 2, 2 / (size + 2), 2 / (size**2 + 6)
    for _ in range(TRIALS * size):
        if width * np.sqrt(np.linalg.eigvalsh(shape)[-1]) < FINEST:
            break
        direction = np.linalg.cholesky(shape) @ rng.normal(size=size)
        trial = np.clip(place + width * direction, 0, 1)
        found = improves(trial, rate)
        success = (1 - 1 / 12) * success + (found < rate) / 12
        width *= np.exp((success - TARGET) / (damping * (1 - TARGET)))
        if found < rate:
            place, rate = trial, found
            path = (1 - memory) * path + np.sqrt(memory * (2 - memory)) * direction
            shape = (1 - learned) * shape + learned * np.outer(path, path)
    return place, rate
