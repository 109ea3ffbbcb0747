r"""What a theorem is here: an expression, where it holds, who proved it, how sure we are, and a way to break it.

A `Bound` says `quantity <= expression` (or >=, or =) in terms of named symbols (`theory.bounds.symbols`). It can be
evaluated on a problem and a mixing, printed in LaTeX, and put to the test: `falsify` searches the unit cube, onto which
the bound's own `Search` maps random and adversarial instances, for one whose measured quantity breaks the bound.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import sympy
from jaxtyping import Bool, Float

from theory.bounds.facts import facts
from theory.bounds.symbols import LATEX, MEANINGS

KINDS = ("bound", "order")
EVIDENCE = ("derived", "checked", "recalled")
DIRECTIONS = {"upper": r"\le", "lower": r"\ge", "equal": "="}
SLACK = 1e-9
"""Ratios up to 1 + SLACK are rounding, not violations."""
SURVIVORS = 32
"""How many of the worst instances are varied further in the adversarial part of a search."""


class Search(NamedTuple):
    """How to try a bound: `measure` maps points of the unit cube, [m, dimension], to instances.

    It returns the measured quantity of each instance, [m], and the values of the bound's symbols, each [m]. Faces of
    the cube should be extreme instances: they are tried on purpose. An instance that cannot be measured is NaN. Ratios
    up to 1 + slack are rounding.
    """

    dimension: int
    measure: Callable[[np.ndarray], tuple[np.ndarray, Mapping[str, np.ndarray]]]
    slack: float = SLACK


class Evaluation(NamedTuple):
    """A bound's value on one instance.

    Attributes:
      value: the expression's value, in the units of the bound's quantity.
      rate: the same as a factor per step of the error itself (not squared), for bounds on rates; NaN for others.
      holds: whether the conditions on step size and constants are met; without them the value promises nothing.
      evidence: the bound's; a "recalled" one may have wrong constants.
      values: what was put in for the symbols.
    """

    value: float
    rate: float
    holds: bool
    evidence: str
    values: dict[str, float]


class Falsification(NamedTuple):
    """The outcome of a search for a violation.

    Attributes:
      worst_ratio: the largest measured / bound (bound / measured for lower bounds, whichever is larger for identities;
        the other way round where both are negative). Of rates, which are all close to 1, it is the promised decay per
        step over the measured one, log bound / log measured: 1 is tight, 0.1 is ten times too cautious.
      violated: whether that exceeds one by more than rounding.
      instances: how many instances met the conditions and were measured.
      measured: the worst instance's measured quantity.
      bound: what the bound says of it.
      values: its symbols.
      point: its place in the unit cube.
    """

    worst_ratio: float
    violated: bool
    instances: int
    measured: float
    bound: float
    values: dict[str, float]
    point: Float[np.ndarray, " k"]


@dataclass(frozen=True, eq=False)
class Bound:
    r"""A theorem as an object.

    Attributes:
      name: the name in `theory.bounds.entries()`.
      statement: what it says, in a sentence.
      quantity: what is bounded, as LaTeX (the left-hand side).
      expression: the right-hand side; its free symbols are those of `theory.bounds.symbols`.
      reference: paper and theorem number.
      evidence: "derived" (here, with a proof or from first principles), "checked" (against the source, or exact
        computation) or "recalled" (from memory; the constants may be wrong).
      kind: "bound" (non-asymptotic, constants count) or "order" (never compare its constant to a measurement).
      direction: "upper", "lower" or "equal".
      rate: whether the quantity is a factor per step.
      squared: whether the quantity is of a squared norm.
      of: what the norm is of: "nodes", "mean", "lyapunov", "gradient", "matrix" ...
      condition: where the bound holds, in the same symbols (step size and constants).
      assumptions: what else it needs, in words.
      methods: names in `adozoo.zoo` to which it applies as it stands.
      search: how to try to break it; None where nothing can be measured.
    """

    name: str
    statement: str
    quantity: str
    expression: sympy.Expr
    reference: str
    evidence: str
    kind: str = "bound"
    direction: str = "upper"
    rate: bool = False
    squared: bool = False
    of: str = "nodes"
    condition: Any = sympy.true
    assumptions: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    search: Search | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, value, known in (
            ("kind", self.kind, KINDS),
            ("evidence", self.evidence, EVIDENCE),
            ("direction", self.direction, tuple(DIRECTIONS)),
        ):
            if value not in known:
                raise ValueError(f"Bound {self.name}: {name} must be one of {known}, got {value!r}.")
        unknown = [name for name in self.symbols if name not in MEANINGS]
        if unknown:
            raise ValueError(
                f"Bound {self.name}: {', '.join(unknown)} has no meaning on record. Define it with symbols.symbol(...)."
            )

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The names of the symbols that have to be known, sorted."""
        free = self.expression.free_symbols | getattr(self.condition, "free_symbols", set())
        return tuple(sorted(str(symbol) for symbol in free))

    def at(self, **values: Any) -> tuple[Float[np.ndarray, "..."], Bool[np.ndarray, "..."]]:
        """(value, whether the conditions hold) for numbers or arrays in place of the symbols.

        Raises:
          ValueError: if a symbol has no value.
        """
        missing = [name for name in self.symbols if name not in values]
        if missing:
            raise ValueError(
                f"bound {self.name}: no value for {', '.join(missing)}. It needs {', '.join(self.symbols)}; pass what "
                "the problem and the mixing do not tell by name."
            )
        arrays = np.broadcast_arrays(*(np.asarray(values[name], np.float64) for name in self.symbols))
        with np.errstate(all="ignore"):
            value, holds = self._compiled(*arrays)
        shape = arrays[0].shape if arrays else ()
        return np.broadcast_to(np.asarray(value, np.float64), shape), np.broadcast_to(np.asarray(holds, bool), shape)

    @cached_property
    def _compiled(self) -> Callable[..., tuple[Any, Any]]:
        both = [_without_assumptions(self.expression), _without_assumptions(sympy.sympify(self.condition))]
        return sympy.lambdify([sympy.Symbol(name) for name in self.symbols], both)

    def evaluate(self, problem: Any = None, mix: Any = None, **values: Any) -> Evaluation:
        """The bound on one instance; what the problem and the mixing tell need not be passed.

        Args:
          problem: a problem of `adozoo.problems`, for L, mu, zeta ...
          mix: a mixing or mixing matrix, for its eigenvalues.
          **values: the remaining symbols by name (`learning_rate=0.1`); they override what is told.

        Raises:
          ValueError: if a symbol has no value.

        Example:
          >>> bound = theory.bounds.entry("nids")
          >>> problem = adozoo.problems.random_quadratic(8, 2)
          >>> mix = adozoo.mixing(adozoo.graphs.ring(8))
          >>> found = bound.evaluate(problem, mix, learning_rate=1.0)
          >>> found.holds, round(found.rate, 6)
          (True, 0.949931)
        """
        known = {**facts(self.symbols, problem, mix, values), **values}
        value, holds = self.at(**{name: known[name] for name in self.symbols if name in known})
        number = float(value)
        rate = (np.sqrt(number) if self.squared else number) if self.rate else np.nan
        return Evaluation(
            number, float(rate), bool(holds), self.evidence, {name: float(known[name]) for name in self.symbols}
        )

    def latex(self) -> str:
        r"""The bound as LaTeX, with the condition under which it holds.

        Example:
          >>> theory.bounds.entry("d2_stability").latex()
          '\\lambda_n \\ge - \\frac{1}{3}'
        """
        body = f"{self.quantity} {DIRECTIONS[self.direction]} {_latex(self.expression)}"
        if self.kind == "order":
            order = r"\Omega" if self.direction == "lower" else "O"
            body = f"{self.quantity} = {order}\\left({_latex(self.expression)}\\right)"
        if self.condition == sympy.true:
            return body
        return f"{body} \\quad\\text{{if }} {_latex(self.condition)}"

    def __str__(self) -> str:
        kind = "order of magnitude, " if self.kind == "order" else ""
        return f"{self.name} ({kind}{self.evidence}): {self.statement} [{self.reference}]"

    def falsify(self, instances: int = 10_000, seed: int = 0, scale: float = 1.0) -> Falsification:
        """Search for an instance that breaks the bound.

        Half of the instances are random (a part of them on faces of the cube, where instances are extreme); the other
        half varies the worst ones found so far, with steps that shrink.

        Args:
          instances: how many to measure.
          seed: seed of the search.
          scale: multiplies the bound; 0.5 asks whether half of it would still hold (is it tight?); for lower bounds
            take 2. Of rates it divides the promised decay, log bound.

        Returns:
          The worst instance found.

        Raises:
          ValueError: for orders, whose constants mean nothing, and for bounds without a search.
        """
        if self.kind == "order" or self.search is None:
            raise ValueError(f"bound {self.name}: an order, or without a way to measure it, cannot be falsified.")
        if instances < 1:
            raise ValueError(f"bound {self.name}: instances must be positive, got {instances!r}.")
        rng, size = np.random.default_rng(seed), self.search.dimension
        pool: list[_Tried] = []
        measured, drawn = 0, 0
        chunk = max(1, min(1000, instances // 10))
        while measured < instances and drawn < 50 * instances:
            random = 2 * measured < instances or not pool
            points = rng.uniform(size=(chunk, size))
            if random:
                faces = rng.uniform(size=points.shape) < rng.choice([0.0, 0.3, 0.8], size=(chunk, 1))
                points = np.where(faces, np.round(points), points)
            else:
                parents = np.stack([pool[k].point for k in rng.integers(len(pool), size=chunk)])
                width = 10.0 ** rng.uniform(-4, -0.5, size=(chunk, 1))
                moved = rng.uniform(size=points.shape) < rng.choice([0.2, 1.0], size=(chunk, 1))
                points = np.clip(parents + moved * width * rng.normal(size=points.shape), 0, 1)
            drawn += chunk
            met, found = self._try(points, scale)
            measured += met
            pool = sorted(pool + found, key=lambda one: -one.ratio)[:SURVIVORS]
        if not pool:
            raise ValueError(f"bound {self.name}: no instance met the conditions; its search does not fit it.")
        worst = pool[0]
        violated = worst.ratio > 1 + self.search.slack
        return Falsification(worst.ratio, violated, measured, worst.measured, worst.bound, worst.values, worst.point)

    def _try(self, points: np.ndarray, scale: float) -> tuple[int, list["_Tried"]]:
        """How many of the points are instances that meet the conditions, and the worst ones of them."""
        assert self.search is not None
        measured, values = self.search.measure(points)
        bound, holds = self.at(**{name: values[name] for name in self.symbols})
        bound = np.broadcast_to(bound, measured.shape)
        ratio, bound = self._compare(measured, bound, scale)
        valid = np.flatnonzero(np.broadcast_to(holds, measured.shape) & ~np.isnan(ratio))
        worst = valid[np.argsort(-ratio[valid], kind="stable")[:SURVIVORS]]
        table = {name: np.broadcast_to(values[name], measured.shape) for name in self.symbols}
        return len(valid), [
            _Tried(
                float(ratio[k]),
                float(measured[k]),
                float(bound[k]),
                {name: float(column[k]) for name, column in table.items()},
                points[k],
            )
            for k in worst
        ]

    def _compare(self, measured: np.ndarray, bound: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """(ratio, bound times scale), where a ratio above 1 + slack is a violation."""
        assert self.search is not None
        if self.rate:
            with np.errstate(divide="ignore"):
                measured, promised = -np.log(measured), -np.log(bound) / scale
            # Decays are differences from 1: the slack belongs to the factor, not to its logarithm.
            over = _excess(promised, measured + self.search.slack)
            under = _excess(measured, promised + self.search.slack)
            bound = np.exp(-promised)
        else:
            bound = scale * bound
            over, under = _excess(measured, bound), _excess(bound, measured)
        return {"upper": over, "lower": under, "equal": np.maximum(over, under)}[self.direction], bound


class _Tried(NamedTuple):
    ratio: float
    measured: float
    bound: float
    values: dict[str, float]
    point: np.ndarray


def _excess(small: np.ndarray, large: np.ndarray) -> np.ndarray:
    """By which factor small <= large fails, above 1 where it does, whatever the signs; NaN where it cannot be said."""
    with np.errstate(divide="ignore", invalid="ignore"):
        same_sign = np.where(large >= 0, small / large, large / small)
    return np.where((large < 0) & (small >= 0), np.inf, same_sign)


def _latex(expression: Any) -> str:
    names = {symbol: LATEX.get(str(symbol), str(symbol)) for symbol in expression.free_symbols}
    return sympy.latex(expression, symbol_names=names, order="rev-lex")  # 1 - x, not -x + 1


def _without_assumptions(expression: Any) -> Any:
    """The same expression in plain symbols, whose names are all that counts when numbers are put in."""
    return expression.xreplace({symbol: sympy.Symbol(str(symbol)) for symbol in expression.free_symbols})
