"""What a sweep searches, as a command line says it.

    name=1,2,3                      these values
    name=log:LOW,HIGH,COUNT         a grid, in equal factors; linear: in equal steps
    name=log:LOW,HIGH               with trials: random, log-uniform; uniform: uniform

With trials and nothing else, what is tuned of a method is drawn from its priors.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from experiments import priors, sweeps
from experiments.settings import Run, nearest


def cells(base: Run, over: tuple[str, ...], trials: int, seeds: int) -> list[Run]:
    """The runs of a sweep.

    Args:
      base: the settings that all share.
      over: texts name=values, see the module.
      trials: how many random draws; 0 for a grid.
      seeds: how many seeds each combination gets.

    Raises:
      ValueError: for a text that says no values, or names no setting.

    Example:
      >>> len(cells(Run(), ("learning_rate=log:0.01,1,3", "graph=ring,star"), 0, 2))
      12
    """
    choices: dict[str, Any] = {}
    random: dict[str, Any] = {}
    for text in over:
        name, equals, rest = text.partition("=")
        known = {*Run.__dataclass_fields__, *base.entry.hyperparameters, *base.entry.search}
        if not equals or not rest:
            raise ValueError(f"over: expected name=values, such as learning_rate=0.1,0.2, got {text!r}.")
        if name not in known:
            raise nearest("over", name, known)
        kind, colon, numbers = rest.partition(":")
        if colon and kind in ("log", "linear", "uniform"):
            found = _numbers(text, numbers)
            if trials:
                random[name] = priors.LogUniform(*np.log10(found)) if kind == "log" else priors.Uniform(*found)
            else:
                choices[name] = _spaced(text, kind, found)
        else:
            choices[name] = [_value(base, name, word) for word in rest.split(",")]
    if trials and not random and not choices:
        random = priors.for_entry(base.entry, "deep")
    drawn = sweeps.random(base, random, trials, base.world) if trials else [base]
    found = [run for one in drawn for run in sweeps.grid(one, choices)]
    return [replace(run, seed=run.seed + number) for run in found for number in range(seeds)]


def _numbers(text: str, numbers: str) -> list[float]:
    try:
        return [float(word) for word in numbers.split(",")]
    except ValueError:
        raise ValueError(
            f"over: {text!r} must hold numbers apart by commas, such as learning_rate=log:0.01,1,5."
        ) from None


def _spaced(text: str, kind: str, found: list[float]) -> list[float]:
    if kind == "uniform" or len(found) != 3 or found[2] < 1 or found[2] != int(found[2]):
        raise ValueError(f"over: a grid is name=log:LOW,HIGH,COUNT or name=linear:..., got {text!r}. Or give --trials.")
    space = np.geomspace if kind == "log" else np.linspace
    return [float(value) for value in space(found[0], found[1], int(found[2]))]


def _value(base: Run, name: str, word: str) -> Any:
    """A word as a value of the type that the setting, or the hyper-parameter, has."""
    like = getattr(base, name) if name in Run.__dataclass_fields__ else base.entry.hyperparameters.get(name, 0.0)
    kind = float if like is None or name == "learning_rate" else type(like)
    try:
        return {"true": True, "false": False}[word.lower()] if kind is bool else kind(word)
    except (KeyError, ValueError):
        raise ValueError(f"over: {name} takes a {kind.__name__}, got {word!r}.") from None
