"""Theorems as objects: what the literature (and this package) proves of a method, evaluated and put to the test.

Each module holds the bounds of one subject; `entries()` finds them all. A bound that is marked "recalled" was written
from memory: its constants may be wrong, and it says so wherever it is shown.
"""

import difflib
import functools
import importlib
import pkgutil

from theory.bounds._bound import Bound, Evaluation, Falsification, Search
from theory.bounds.facts import facts
from theory.bounds.symbols import MEANINGS

__all__ = ["MEANINGS", "Bound", "Evaluation", "Falsification", "Search", "entries", "entry", "facts", "of_method"]


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
      >>> {bound.evidence for bound in theory.bounds.entries().values()} <= {"derived", "checked", "recalled"}
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
    """The bounds that apply to a method of `adozoo.zoo` as it stands."""
    return {name: bound for name, bound in _collected().items() if method in bound.methods}
