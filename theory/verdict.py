r"""Verdicts: what was measured of a method, what is exact, certified and proved of it, side by side.

`theory.compare` makes them. Rates are factors per step of the error itself, not squared. How tight a bound is, is told
in steps: ln(exact) / ln(bound) = k says that the bound asks for k times as many steps per digit as are taken.
"""

import importlib
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import PyTree

from theory.observation import Observation

MEASURED, EXACT, CERTIFIED, LOWER = "measured", "exact", "certified", "worst known"
THEOREM, LIKE = "theorem ", "like "
WIDTH = 118
_COLOURS = ("#0072B2", "#000000", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5E3C99")
"""Colours that the colour-blind can tell apart (Okabe and Ito, 2008)."""
_DASHES = ((0, ()), (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2, 2, 2)))


@dataclass(frozen=True)
class Claim:
    """One rate beside the others: a row of the table.

    Attributes:
      source: "measured", "exact", "certified", "worst known" (the slowest instance of the certificate's class that is
        known exactly), "theorem NAME" or "like NAME".
      rate: the factor per step of the error; inf where none is certified, NaN where there is none.
      verdict: "holds", "VIOLATED", "agrees", "OFF", "reference", "no promise" (a bound of at least 1), "same",
        "DIFFERS" or "n/a".
      tightness: how many times as many steps as are needed the claim asks for; NaN where that means nothing.
      evidence: where the number comes from; for theorems "derived", "checked" or "recalled".
      note: reference, uncertainty, or the reason why there is no number.
    """

    source: str
    rate: float
    verdict: str
    tightness: float
    evidence: str
    note: str = ""

    @property
    def steps_per_digit(self) -> float:
        """Steps that make the error ten times smaller; inf where it does not shrink."""
        return steps_per_digit(self.rate)


@dataclass
class Report:
    """A verdict in the making."""

    claims: list[Claim] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def say(self, sentence: str, holds: bool = True) -> None:
        """Add a finding, which contradicts a claim if it does not hold."""
        self.findings.append(sentence)
        if not holds:
            self.violations.append(sentence)


def steps_per_digit(rate: float) -> float:
    """Steps that divide an error by ten at this rate, ln 10 / -ln rate.

    Example:
      >>> round(theory.verdict.steps_per_digit(0.9), 6)
      21.854345
    """
    if np.isnan(rate):
        return np.nan
    return float(np.log(10) / -np.log(rate)) if 0 < rate < 1 else 0.0 if rate <= 0 else np.inf


def growth(rate: float, what: str) -> str:
    """What a rate of at least 1 means, in words.

    Args:
      rate: the factor per step.
      what: what grows: "errors".

    Example:
      >>> theory.verdict.growth(1.25, "errors")
      'Diverges: errors grow by the factor 1.25 a step.'
    """
    if rate <= 1 + 1e-9:
        return f"Does not converge: {what} of some kind stay as they are."
    return f"Diverges: {what} grow by the factor {rate:.6g} a step."


def tightness(exact: float, bound: float) -> float:
    """How many times as many steps the bound asks for: ln(exact) / ln(bound); inf for a bound of at least 1.

    Example:
      >>> round(theory.verdict.tightness(0.81, 0.9), 6)
      2.0
    """
    if np.isnan(exact) or np.isnan(bound) or exact >= 1 or exact <= 0 or bound <= 0:
        return np.nan
    return float(np.log(exact) / np.log(bound)) if bound < 1 else np.inf


@dataclass(frozen=True, eq=False)
class Verdict:
    """What `theory.compare` found.

    Attributes:
      title: the method, the problem and the mixing, in a line.
      claims: measured, exact, certified and theorem rates, with a verdict on each.
      findings: what was found, in sentences.
      violations: those of the findings that contradict a claim.
      bias: the distance of the method's limit to the optimum; inf without a limit, NaN where it is not known.
      limit: where the method converges to, stacked params; None where there is no such point.
      observation: the measured run.
    """

    title: str
    claims: tuple[Claim, ...]
    findings: tuple[str, ...]
    violations: tuple[str, ...]
    bias: float
    limit: PyTree | None = field(repr=False)
    observation: Observation = field(repr=False)

    @property
    def holds(self) -> bool:
        """Whether nothing that is claimed of the method is contradicted."""
        return not self.violations

    def __getitem__(self, source: str) -> Claim:
        """The claim of a source, as verdict["exact"]."""
        for claim in self.claims:
            if claim.source == source:
                return claim
        known = ", ".join(claim.source for claim in self.claims)
        raise KeyError(f"no claim {source!r}; there are {known}")

    def table(self) -> str:
        """One line a claim, aligned, as plain text."""
        head = ["source", "rate", "steps/digit", "verdict", "asks for", "evidence", "about"]
        rows = [head] + [
            [
                claim.source,
                _number(claim.rate, ".6f", "none"),
                _number(claim.steps_per_digit, ".4g", "never"),
                claim.verdict,
                f"{claim.tightness:.2f} x" if np.isfinite(claim.tightness) else "",
                claim.evidence,
                claim.note,
            ]
            for claim in self.claims
        ]
        widths = [max(len(row[k]) for row in rows) for k in range(len(head) - 1)]
        rows.insert(1, ["-" * width for width in widths] + ["-----"])
        notes = sum(widths) + 2 * len(widths)
        return "\n".join(_wrapped(row, widths, notes) for row in rows)

    def __str__(self) -> str:
        lines = [
            textwrap.fill(f"{'!' if finding in self.violations else '-'} {finding}", WIDTH, subsequent_indent="  ")
            for finding in self.findings
        ]
        answer = "all that was tested holds" if self.holds else "CONTRADICTED, see the lines marked with !"
        return "\n".join([self.title, "", self.table(), "", *lines, "", f"Verdict: {answer}"])

    def summary(self) -> dict[str, Any]:
        """The verdict as numbers and strings only, ready for JSON; what is not finite becomes None."""
        claims = [
            {
                "source": claim.source,
                "rate": _finite(claim.rate),
                "steps_per_digit": _finite(claim.steps_per_digit),
                "verdict": claim.verdict,
                "tightness": _finite(claim.tightness),
                "evidence": claim.evidence,
                "note": claim.note,
            }
            for claim in self.claims
        ]
        return {
            "title": self.title,
            "holds": self.holds,
            "bias": _finite(self.bias),
            "claims": claims,
            "findings": list(self.findings),
            "violations": list(self.violations),
        }

    def to_xarray(self) -> Any:
        """The verdict as an `xarray.Dataset`: rates along "claim", the run along "step".

        Raises:
          ImportError: without xarray.
        """
        xr = optional("xarray", "to_xarray", "experiments")
        run, claims = self.observation, self.claims
        columns = {name: ("claim", [getattr(claim, name) for claim in claims]) for name in _COLUMNS}
        curves = {"error": ("step", run.errors), "distance_to_optimum": ("step", run.distances)}
        attributes = {
            "title": self.title,
            "holds": int(self.holds),  # netCDF has no booleans
            "bias": self.bias,
            "window_rate": run.window_rate,
            "settled": np.array(run.settled),
            **{f"fit_{name}": value for name, value in run.fit._asdict().items()},
            "findings": json.dumps(self.findings),
        }
        names = [claim.source for claim in claims]
        return xr.Dataset(columns | curves, {"claim": names, "step": run.steps}, attributes)

    def plot(self, ax: Any = None) -> Any:
        """Draw the run's errors on a logarithmic scale, and the slopes that are claimed of it.

        Every slope starts where the fitted window does, at the height of the run there: a bound that holds runs above
        the run's tail.

        Args:
          ax: matplotlib axes; new ones by default.

        Returns:
          The axes.

        Raises:
          ImportError: without matplotlib.
        """
        if ax is None:
            optional("matplotlib", "plot", "cli")
            from matplotlib.figure import Figure  # a figure of its own, without pyplot's global state

            ax = Figure(figsize=(6.4, 4.2), layout="constrained").subplots()
        run, fit = self.observation, self.observation.fit
        heights = np.where(np.isfinite(run.errors) & (run.errors > 0), run.errors, np.nan)
        ax.semilogy(run.steps, heights, color="0.75", linewidth=6, solid_capstyle="butt", label="run")
        first = min(int(np.searchsorted(run.steps, fit.start)), len(run.steps) - 1)
        shown = [claim for claim in self.claims if claim.source != LOWER and claim.rate > 0 and claim.rate < np.inf]
        for k, claim in enumerate(shown):
            fitted = claim.source == MEASURED  # drawn where it was fitted
            time = np.array([run.steps[first], fit.stop if fitted else run.steps[-1]])
            slope = np.exp(np.clip(np.log(claim.rate) * (time - time[0]), -690, 690))
            drawn = np.full(2, np.nan) if claim.verdict == "no promise" else heights[first] * slope
            words = {"no promise": " (no promise)"}.get(claim.verdict, " (recalled)" * (claim.evidence == "recalled"))
            ax.semilogy(
                time,
                drawn,
                color=_COLOURS[k % len(_COLOURS)],
                linestyle=_DASHES[k % len(_DASHES)],
                linewidth=3 if fitted else 1.6,
                label=f"{claim.source}: {claim.rate:.5g}{words}",
            )
        ax.set_ylim(np.nanmin(heights) / 10, np.nanmax(heights) * 10)
        ax.set_xlim(0, run.steps[-1])
        ax.set_xlabel("step")
        ax.set_ylabel("distance to the " + ("optimum" if self.limit is None else "method's limit"))
        ax.set_title(textwrap.fill(self.title, 70), fontsize="medium")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize="small", title="factor per step", title_fontsize="small")
        return ax


_COLUMNS = ("rate", "steps_per_digit", "tightness", "verdict", "evidence", "note")


def optional(module: str, function: str, extra: str) -> Any:
    """Import an optional dependency, or say which extra brings it.

    Example:
      >>> theory.verdict.optional("json", "plot", "experiments").dumps([1])
      '[1]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{function} needs {module}: pip install 'adozoo[{extra}]'.") from error


def _wrapped(row: Sequence[str], widths: Sequence[int], notes: int) -> str:
    """A row, its last cell broken into lines under each other."""
    cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
    lines = textwrap.wrap(row[-1], max(WIDTH - notes, 30)) or [""]
    return "\n".join([f"{cells}  {lines[0]}".rstrip(), *(" " * notes + line for line in lines[1:])])


def _number(value: float, style: str, infinite: str) -> str:
    return "-" if np.isnan(value) else infinite if np.isinf(value) else format(value, style)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
