"""What a problem and a mixing tell of the constants that bounds are written in."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from theory.matrices import period_matrices
from theory.spectra import eigenvalues, spectral_gap

_OF_PROBLEM: dict[str, Callable[[Any], float]] = {
    "strong_convexity": lambda problem: problem.strong_convexity,
    "smoothness": lambda problem: problem.smoothness,
    "heterogeneity": lambda problem: problem.heterogeneity,
}
_OF_MIXING: dict[str, Callable[[Any], float]] = {
    "nodes": lambda mix: len(period_matrices(mix)[0]),
    "lambda_2": lambda mix: eigenvalues(mix)[1],
    "lambda_n": lambda mix: eigenvalues(mix)[-1],
    "sigma": lambda mix: 1 - spectral_gap(mix),
}


def facts(
    wanted: Sequence[str], problem: Any = None, mix: Any = None, given: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """The constants out of `wanted` that the problem and the mixing tell and that are not given.

    Args:
      wanted: names of symbols.
      problem: a problem of `adozoo.problems`, or None.
      mix: a mixing or a matrix, or None.
      given: constants that need not be computed.

    Example:
      >>> mix = adozoo.mixing(adozoo.graphs.ring(4))
      >>> round(theory.bounds.facts(["lambda_n", "steps"], mix=mix)["lambda_n"], 6)
      -0.333333
    """
    told = {}
    for name in wanted:
        if name in (given or {}):
            continue
        if problem is not None and name in _OF_PROBLEM:
            told[name] = float(_OF_PROBLEM[name](problem))
        elif mix is not None and name in _OF_MIXING:
            told[name] = float(np.real(_OF_MIXING[name](mix)))
    return told
