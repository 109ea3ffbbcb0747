"""Theorems as objects: what the literature (and this package) proves of a method, evaluated and put to the test.

Each module holds the bounds of one subject; `entries()` finds them all. A bound that is marked "recalled" was written
from memory: its constants may be wrong, and it says so wherever it is shown.
"""

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any, NamedTuple

from theory.bounds import averaging, dual, svl
from theory.bounds._bound import Bound, Evaluation, Falsification, Search
from theory.bounds.facts import facts
from theory.bounds.symbols import MEANINGS

__all__ = [
    "MEANINGS",
    "Bound",
    "Evaluation",
    "Falsification",
    "Search",
    "Trial",
    "averaging",
    "dual",
    "entries",
    "entry",
    "facts",
    "falsify_all",
    "of_method",
    "rates",
    "svl",
]


@functools.cache
def _collected() -> dict[str, Bound]:
    """Every module of this folder may define BOUNDS, a tuple."""
    found: dict[str, Bound] = {}
    for info in pkgutil.iter_modules(__path__):
        for bound in getattr(importlib.import_module(f"{__name__}.{info.name}"), "BOUNDS", ()):
            if bound.name in found:
                raise ValueError(f"bounds: the name {bound.name!r} is taken. Choose another one.")
            found[bound.name] = bound
    return dict(sorted(found.items()))


def entries() -> dict[str, Bound]:
    """All bounds by name, sorted.

    Example:
      >>> {bound.evidence for bound in theory.bounds.entries().values()} <= {
      ...     "derived",
      ...     "checked",
      ...     "recalled",
      ... }
      True
    """
    return dict(_collected())


def entry(name: str) -> Bound:
    """One bound by its name.

    Raises:
      ValueError: for an unknown name; it says the nearest known ones.
    """
    known = _collected()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or list(known)
        raise ValueError(f"bounds.entry: no bound is called {name!r}. Did you mean {', '.join(near)}?")
    return known[name]


def of_method(method: str) -> dict[str, Bound]:
    """The bounds that apply to a method of `adozoo.zoo` as it stands.

    Example:
      >>> sorted(theory.bounds.of_method("d2"))
      ['d2_lyapunov', 'd2_stability', 'd2_step_limit', 'd2_stochastic']
    """
    return {name: bound for name, bound in _collected().items() if method in bound.methods}


def rates(method: str, problem: Any = None, mix: Any = None, **values: Any) -> dict[str, Evaluation]:
    """What all theorems on a method's rate say of one instance, as far as their constants are known.

    Args:
      method: a name in `adozoo.zoo`.
      problem: a problem of `adozoo.problems`.
      mix: a fixed mixing, or its matrix.
      **values: what these do not tell, by name: `learning_rate`, a method's own hyper-parameters.

    Returns:
      name -> evaluation; `holds` says whether the theorem's conditions are met. Bounds with constants that neither
      problem and mixing tell nor `values` gives are left out.

    Example:
      >>> problem = adozoo.problems.random_quadratic(8, 2)
      >>> mix = adozoo.mixing(adozoo.graphs.ring(8))
      >>> found = theory.bounds.rates("extra", problem, mix, learning_rate=0.3)
      >>> {name: round(rate.rate, 4) for name, rate in found.items() if rate.holds}
      {'extra_lyapunov': 0.97}
    """
    found = {}
    for name, bound in of_method(method).items():
        if not bound.rate or bound.kind == "order":
            continue
        known = {**facts(bound.symbols, problem, mix, values), **values}
        if set(bound.symbols) <= set(known):
            found[name] = bound.evaluate(**{symbol: known[symbol] for symbol in bound.symbols})
    return found


class Trial(NamedTuple):
    """One row of the table of all bounds put to the test; orders and what cannot be measured have no worst ratio."""

    name: str
    evidence: str
    kind: str
    worst_ratio: float
    instances: int
    violated: bool


def falsify_all(instances: int = 10_000, seed: int = 0, names: Iterable[str] | None = None) -> list[Trial]:
    """Search for a violation of every bound that can be measured.

    Args:
      instances: how many each search measures.
      seed: seed of the searches.
      names: which bounds; all by default.

    Returns:
      One row a bound, by name; NaN and 0 instances for orders and bounds without a search.
    """
    rows = []
    for name in _collected() if names is None else names:
        bound = entry(name)
        if bound.kind == "order" or bound.search is None:
            rows.append(Trial(name, bound.evidence, bound.kind, float("nan"), 0, False))
            continue
        found = bound.falsify(instances, seed)
        rows.append(Trial(name, bound.evidence, bound.kind, found.worst_ratio, found.instances, bool(found.violated)))
    return rows
