"""What a problem and a mixing tell of the constants that bounds are written in."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from theory.matrices import period_matrices
from theory.outcomes import enumerate_outcomes
from theory.spectra import eigenvalues, spectral_gap

_OF_PROBLEM: dict[str, Callable[[Any], Any]] = {
    "strong_convexity": lambda problem: problem.strong_convexity,
    "smoothness": lambda problem: problem.smoothness,
    "heterogeneity": lambda problem: problem.heterogeneity,
    "gradient_variance": lambda problem: problem.dim * problem.noise**2,
    "initial_gap": lambda problem: problem.loss(_start(problem)) - problem.optimal_value,
    "initial_distance": lambda problem: np.linalg.norm(np.asarray(_start(problem) - problem.optimum)),
    # With 0 in place of min f_i, which none of the problems' objectives goes below: exact for quadratics.
    "gradient_bound": lambda problem: np.sqrt(
        2 * problem.smoothness * np.sum(np.asarray(problem.local_loss(_start(problem))))
    ),
}
_OF_MIXING: dict[str, Callable[[Any], Any]] = {
    "nodes": lambda mix: len(period_matrices(mix)[0]),
    "lambda_2": lambda mix: eigenvalues(mix)[1],
    "lambda_n": lambda mix: eigenvalues(mix)[-1],
    "sigma": lambda mix: max(1 - spectral_gap(matrix) for matrix in period_matrices(mix)),
    "gossip_condition": lambda mix: (1 - eigenvalues(mix)[-1]) / (1 - eigenvalues(mix)[1]),
    "contraction": lambda mix: _contraction(mix),
    "consensus_rate": lambda mix: 1 - _contraction(mix),
}
_DERIVED: dict[str, tuple[tuple[str, ...], Callable[..., float]]] = {}


def derive(name: str, needs: tuple[str, ...], function: Callable[..., float]) -> None:
    """Let a symbol be computed from others (which need not be symbols of any bound) where they are all known.

    Args:
      name: the symbol.
      needs: what it is computed from: symbols that the problem or the mixing tell, or names that the user gives.
      function: their values, in this order -> the symbol's value.
    """
    _DERIVED[name] = (needs, function)


def _start(problem: Any) -> Any:
    """The common start of all nodes, [d]."""
    return problem.init()[0]


def _contraction(mix: Any) -> float:
    """lambda_2(E W'W), of the worst step of a period; E over the outcomes of a random mixing."""
    if getattr(mix, "period", 1) is None:
        found = enumerate_outcomes(mix)
        moment = np.einsum("k,kji,kjl->il", found.probabilities, *2 * (found.matrices[:, 0],))
        return float(np.linalg.eigvalsh(moment - 1 / len(moment))[-1])
    return max(1 - spectral_gap(matrix) for matrix in period_matrices(mix)) ** 2


def facts(
    wanted: Sequence[str], problem: Any = None, mix: Any = None, given: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """The constants out of `wanted` that the problem and the mixing tell and that are not given.

    Args:
      wanted: names of symbols.
      problem: a problem of `adozoo.problems`, or None.
      mix: a mixing or a matrix, or None. Of a periodic schedule, `sigma` and `consensus_rate` are of its worst step; of
        a random one `contraction` and `consensus_rate` are known.
      given: constants that need not be computed; others may be computed from them.

    Returns:
      name -> value, without the names that nobody tells (step sizes, numbers of steps, accuracies ...).

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
        elif name in _DERIVED:
            needs, function = _DERIVED[name]
            known = {**facts(needs, problem, mix, given), **(given or {})}
            if set(needs) <= set(known):
                told[name] = float(function(*(known[need] for need in needs)))
    return told
