r"""From which distributions tuning draws hyper-parameters, for every method of the registry.

A prior is known by its quantile function: `draw` puts a uniform number into it, `grid` the midpoints of k equal shares.
Exponents are to base 10. What a prior is written as is what reads it back (`from_text`), so that suites and registries
can hold priors as text.
"""

import abc
import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from adozoo.zoo import Entry


class Prior(abc.ABC):
    """A distribution of one hyper-parameter."""

    @abc.abstractmethod
    def quantile(self, share: float) -> Any:
        """The value below which this share of the draws lies, 0 < share < 1."""

    def draw(self, rng: np.random.Generator) -> Any:
        """One value."""
        # Uniform numbers are multiples of 2^-53 and may be 0, at which quantiles may be infinite.
        return self.quantile(max(rng.random(), 2.0**-60))

    def grid(self, k: int) -> list[Any]:
        """k values at the quantiles (i + 1/2) / k."""
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"grid: k must be a positive integer, got {k!r}. Pass the number of values.")
        return [self.quantile((i + 0.5) / k) for i in range(k)]

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else repr(value)
            for value in (getattr(self, item.name) for item in fields(self))  # type: ignore[arg-type]
        )
        return f"{type(self).__name__}({shown})"


def _check_finite(prior: Prior) -> None:
    for item in fields(prior):  # type: ignore[arg-type]
        value = getattr(prior, item.name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{type(prior).__name__}: {item.name} must be a finite number, got {value!r}.")


def _check_range(prior: Any) -> None:
    _check_finite(prior)
    if not prior.low < prior.high:
        raise ValueError(f"{prior!r}: low must be below high. Swap them, or use Fixed(value).")


@dataclass(frozen=True, repr=False)
class Uniform(Prior):
    """Uniform on [low, high).

    Example:
      >>> Uniform(0, 1).grid(2)
      [0.25, 0.75]
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_range(self)

    def quantile(self, share: float) -> float:
        return float(self.low + (self.high - self.low) * share)


@dataclass(frozen=True, repr=False)
class LogUniform(Prior):
    r"""$10^u$ with u uniform on [low, high).

    Example:
      >>> LogUniform(-3, 1).grid(2)
      [0.01, 1.0]
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_range(self)

    def quantile(self, share: float) -> float:
        return float(10 ** (self.low + (self.high - self.low) * share))


@dataclass(frozen=True, repr=False)
class Log10Normal(Prior):
    r"""$10^u$ with u Gaussian of this mean and standard deviation.

    Example:
      >>> Log10Normal(-2, 1.3).grid(1)
      [0.01]
    """

    mean: float
    deviation: float

    def __post_init__(self) -> None:
        _check_finite(self)
        if self.deviation <= 0:
            raise ValueError(f"{self!r}: deviation must be positive. Use Fixed(value) for a constant.")

    def quantile(self, share: float) -> float:
        return float(10 ** (self.mean + self.deviation * special.ndtri(share)))


@dataclass(frozen=True, repr=False)
class OneMinus(Prior):
    r"""$1 - v$ with v from another prior: decay rates that crowd at 1.

    Example:
      >>> OneMinus(LogUniform(-3, -1)).grid(1)
      [0.99]
    """

    rest: Prior

    def __post_init__(self) -> None:
        if not isinstance(self.rest, Prior):
            raise ValueError(f"OneMinus: rest must be a prior, got {self.rest!r}. Pass LogUniform(-5, -1), say.")

    def quantile(self, share: float) -> float:
        return 1.0 - self.rest.quantile(1.0 - share)

    def draw(self, rng: np.random.Generator) -> float:
        return 1.0 - self.rest.draw(rng)


@dataclass(frozen=True, repr=False)
class Choice(Prior):
    """Each of these values equally likely.

    Example:
      >>> Choice((1, 2, 4)).grid(3)
      [1, 2, 4]
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values:
            raise ValueError("Choice: values must not be empty, got (). Pass at least one value.")

    def quantile(self, share: float) -> Any:
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]


@dataclass(frozen=True, repr=False)
class Fixed(Prior):
    """Always this value.

    Example:
      >>> Fixed(0.9).grid(2)
      [0.9, 0.9]
    """

    value: Any

    def quantile(self, share: float) -> Any:
        return self.value


KINDS: dict[str, type[Prior]] = {
    kind.__name__: kind for kind in (Uniform, LogUniform, Log10Normal, OneMinus, Choice, Fixed)
}
"""The priors that `from_text` knows."""


def from_text(text: str) -> Prior:
    """A prior from what it is written as.

    Raises:
      ValueError: for anything else; it says what is known.

    Example:
      >>> from_text("OneMinus(LogUniform(-5, -1))")
      OneMinus(LogUniform(-5, -1))
      >>> from_text("Choice((1, 2, 4))").grid(3)
      [1, 2, 4]
    """

    def read(node: ast.expr) -> Any:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
            named = {str(item.arg): read(item.value) for item in node.keywords}
            return KINDS[node.func.id](*map(read, node.args), **named)
        return ast.literal_eval(node)

    try:
        prior = read(ast.parse(text.strip(), mode="eval").body)
        if not isinstance(prior, Prior):
            raise ValueError("it is no prior")
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(
            f"priors: cannot read {text!r}: {error}. Write one of {', '.join(KINDS)}, such as LogUniform(-3, 0)."
        ) from error
    return prior


class Published(NamedTuple):
    """The priors of one optimiser in the literature.

    Attributes:
      priors: by hyper-parameter; those that were constant are `Fixed`.
      evidence: "checked" where they were read in the authors' code, "recalled" where the paper says otherwise.
      note: what else is known.
    """

    priors: dict[str, Prior]
    evidence: str = "checked"
    note: str = ""


_DECAYS = {"b1": OneMinus(LogUniform(-5, -1)), "b2": OneMinus(LogUniform(-5, -1)), "eps": LogUniform(-8, 0)}
_ADAM = Log10Normal(-3.021, 1.271)
_SGD = Log10Normal(-2.454, 1.364)
_POLY = "the schedule's power is drawn from [0.5, 5.5) in the code, from [0.5, 5] in the paper as we recall it"
PUBLISHED: dict[str, Published] = {
    "sgd": Published({"learning_rate": Log10Normal(-2.096, 1.312)}),
    "sgd_momentum": Published({"learning_rate": Log10Normal(-2.379, 1.413), "momentum": Uniform(0, 1)}),
    "sgd_constant_momentum": Published({"learning_rate": Log10Normal(-2.342, 1.553), "momentum": Fixed(0.9)}),
    "sgd_constant_momentum_decay": Published(
        {"learning_rate": _SGD, "momentum": Fixed(0.9), "weight_decay": Fixed(1e-5)}
    ),
    "sgd_constant_momentum_decay_poly": Published(
        {"learning_rate": _SGD, "momentum": Fixed(0.9), "weight_decay": Fixed(1e-5), "power": Uniform(0.5, 5.5)},
        "recalled",
        _POLY,
    ),
    "sgd_momentum_decay": Published(
        {"learning_rate": Log10Normal(-2.438, 1.204), "momentum": Uniform(0, 1), "weight_decay": LogUniform(-5, -1)}
    ),
    "adagrad": Published({"learning_rate": Log10Normal(-2.005, 1.204)}),
    "adam": Published({"learning_rate": Log10Normal(-2.697, 1.421), **_DECAYS}),
    "adam_learning_rate": Published({"learning_rate": _ADAM}),
    "adam_learning_rate_epsilon": Published({"learning_rate": _ADAM, "eps": LogUniform(-10, 10)}),
    "adam_learning_rate_constant_decay": Published({"learning_rate": _ADAM, "weight_decay": Fixed(1e-5)}),
    "adam_learning_rate_decay": Published({"learning_rate": _ADAM, "weight_decay": LogUniform(-5, -1)}),
    "adam_learning_rate_constant_decay_poly": Published(
        {"learning_rate": _ADAM, "weight_decay": Fixed(1e-5), "power": Uniform(0.5, 5.5)}, "recalled", _POLY
    ),
}
"""Priors of Sivaprasad et al., 2020; log-normals were fitted to the configurations within 20 % of a search's best."""

_BY_NAME: dict[str, Prior] = {
    "momentum": Uniform(0, 1),
    "weight_decay": LogUniform(-5, -1),
    **_DECAYS,
    "strong_convexity": LogUniform(-2, -0.5),
}
"""What hyper-parameters of these names mean wherever they occur; the last one is ours."""


def from_values(values: tuple[Any, ...]) -> Prior:
    """A prior from values worth trying: log-uniform over their range where they are spread like that, else one of them.

    Spread like that: three or more positive numbers, not all integers, growing from each to the next by factors that
    agree within a factor of 1.5.

    Example:
      >>> from_values((0.01, 0.03, 0.1, 0.3))
      LogUniform(-2, -0.522879)
      >>> from_values((1, 2, 4)), from_values((0.2,)), from_values((0.1, 0.5, 0.6))
      (Choice((1, 2, 4)), Fixed(0.2), Choice((0.1, 0.5, 0.6)))
    """
    if len(values) == 1:
        return Fixed(values[0])
    if len(values) < 3 or all(isinstance(value, int) for value in values) or not all(value > 0 for value in values):
        return Choice(values)
    steps = np.diff(np.log10(sorted(values)))
    if steps.max() - steps.min() > math.log10(1.5) or steps.min() == 0:
        return Choice(values)
    return LogUniform(round(math.log10(min(values)), 6), round(math.log10(max(values)), 6))


def for_entry(entry: Entry, kind: str = "convex", overrides: Mapping[str, Prior] | None = None) -> dict[str, Prior]:
    r"""Priors for everything that is tuned of a method, from what its entry says: a new method has them by itself.

    - learning_rate, "convex": log-uniform from $10^{-2}$ to $10^{0.5}$, **in units of 1 / L** (the caller multiplies).
      For methods that are given constants this is 1 / L itself, too small or too large by such factors.
    - learning_rate, "deep": the published log-normal prior for SGD; with momentum or for Adam, that one's.
    - momentum, weight_decay, b1, b2, eps: the published ones, where the entry has them and they are not 0 (off).
    - strong_convexity, which nobody knows: log-uniform from $10^{-2}$ to $10^{-0.5}$.
    - all of `entry.search`: `from_values`, taking precedence.

    Args:
      entry: of the registry.
      kind: of the task, "convex" or "deep".
      overrides: priors that take precedence over all of this.

    Returns:
      by hyper-parameter, "learning_rate" first.

    Raises:
      ValueError: for another kind, or overrides of what the method does not have.

    Example:
      >>> for_entry(adozoo.zoo.entry("dsgd_momentum"), "deep")
      {'learning_rate': Log10Normal(-2.379, 1.413), 'momentum': Uniform(0, 1)}
      >>> for_entry(adozoo.zoo.entry("svl"))
      {'learning_rate': LogUniform(-2, 0.5), 'integral_gain': LogUniform(-1, -0.09691)}

    References:
      Sivaprasad et al., Optimizer benchmarking needs to account for hyperparameter tuning, 2020.
    """
    if kind not in ("convex", "deep"):
        raise ValueError(f'priors.for_entry: kind must be "convex" or "deep", got {kind!r}.')
    known = {"learning_rate", *entry.hyperparameters, *entry.search}
    if not known.issuperset(overrides or {}):
        raise ValueError(
            f"priors.for_entry: {entry.name} has no hyper-parameter {', '.join(sorted({*(overrides or {})} - known))}. "
            f"It has {', '.join(sorted(known))}."
        )
    priors: dict[str, Prior] = {
        name: _BY_NAME[name]
        for name, value in entry.hyperparameters.items()
        if name in _BY_NAME and isinstance(value, float) and value
    }
    like = "adam" if "b2" in priors else "sgd_momentum" if "momentum" in priors else "sgd"
    rate = LogUniform(-2, 0.5) if kind == "convex" else PUBLISHED[like].priors["learning_rate"]
    searched = {name: from_values(tuple(values)) for name, values in entry.search.items()}
    return {"learning_rate": rate, **priors, **searched, **(overrides or {})}
