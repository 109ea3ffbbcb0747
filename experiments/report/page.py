"""The report as one HTML page that needs nothing else: style, script and pictures are inside; all text is escaped."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from experiments import tunability
from experiments.ranking import Interval
from experiments.report import pictures, spreadsheet
from experiments.report.analysis import AXES, Overall, Row, Section, shown_budgets

FOLDER = Path(__file__).parent
SCHEMES = {
    "cpe": ("early", "averaged over budgets with falling weights"),
    "cpu": ("uniform", "averaged over budgets"),
    "cpl": ("late", "averaged over budgets with rising weights"),
}
"""Weightings of budgets that the table of all tasks shows, with their titles and meanings."""


class Cell(NamedTuple):
    """One field of a table: what is shown, what it is sorted by, and the ends of its interval."""

    text: str
    value: str  # all digits, in data-value
    small: str = ""
    low: str = ""
    high: str = ""


class Column(NamedTuple):
    """The head of a column: what it is called, and what it means."""

    name: str
    meaning: str
    numeric: bool = True


def shown(value: float) -> str:
    """A number as people read it: three significant digits, thousands as k, M, G, T; a dash for what is not there.

    Example:
      >>> (
      ...     shown(0.91234),
      ...     shown(1.234e9),
      ...     shown(2e-7),
      ...     shown(math.nan),
      ...     shown(math.inf),
      ...     shown(1),
      ... )
      ('0.912', '1.23 G', '2e-07', '–', '∞', '1')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    for power, letter in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power * (10 if power == 3 else 1):
            return f"{value / 10**power:#.3g}".rstrip(".") + f" {letter}"
    return f"{value:.0f}" if value == round(value) or abs(value) >= 99.95 else f"{value:#.3g}"


def _full(value: float) -> str:
    return repr(float(value))


def _number(value: float) -> Cell:
    return Cell(shown(value), _full(value))


def _interval(found: Interval, form: Callable[[float], str] = shown) -> Cell:
    value, low, high = map(float, found)
    small = "" if math.isnan(low) else f"{form(low)} – {form(high)}"
    return Cell(form(value), _full(value), small, _full(low), _full(high))


def _rank(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _section_table(part: Section) -> dict[str, Any]:
    budgets = shown_budgets(part.rows[0].trials) if part.rows else []
    columns = [
        Column("method", "name in the registry", False),
        Column("rank", "of the mean over repeats among the methods that ran; 95 % interval over seeds"),
        Column(f"final {part.metric}", "test value of the tuned method, mean over fresh seeds; 95 % interval"),
        *(
            Column(
                f"after {k} trial{'s' * (k > 1)}",
                "expected test value of the configuration with the best validation value",
            )
            for k in budgets
        ),
        *(Column(axis, f"at the end of a run: {pictures.UNITS[axis]}") for axis in AXES),
        Column("diverged", "trials of tuning that diverged"),
    ]
    return {"columns": columns, "rows": [_section_row(row, budgets, part.rows[0].rank.value) for row in part.rows]}


def _section_row(row: Row, budgets: list[int], best: float) -> dict[str, Any]:
    cells = [
        _interval(row.rank, _rank),
        _interval(row.final),
        *(_interval(Interval(*(end[k - 1] for end in row.expected))) for k in budgets),
        *(_number((row.ends or {}).get(axis, math.nan)) for axis in AXES),
        Cell(f"{row.diverged} of {row.trials}", str(row.diverged)),
    ]
    return {"method": row.method, "cells": cells, "first": row.rank.low <= best and math.isfinite(row.final.value)}


def _overall_table(total: Overall, tasks: int) -> dict[str, Any]:
    trials = total.relative.shape[1]
    budgets = shown_budgets(trials)
    columns = [
        Column("method", "name in the registry", False),
        Column("mean rank", "over tasks, of methods that ran on all of them; 95 % interval over seeds"),
        Column("tasks", f"on how many of {tasks} it ran"),
        *(
            Column(f"S, {k} trial{'s' * (k > 1)}", "relative performance: 1 is the best method on every task")
            for k in budgets
        ),
        *(Column(f"S, {word}", f"relative performance {meaning}") for word, meaning in SCHEMES.values()),
        Column(f"wins, {trials} trials", "probability of having the best value after all trials, mean over tasks"),
    ]
    rows = []
    for i, method in enumerate(total.methods):
        curve = total.relative[i]
        rank = Interval(*(float(end[i]) for end in total.ranks))
        cells = [
            _interval(rank, _rank),
            Cell(str(total.tasks[i]), str(total.tasks[i])),
            *(_number(curve[k - 1]) for k in budgets),
            *(_number(tunability.tunability(curve, scheme)) for scheme in SCHEMES),
            _number(total.wins[-1, i]),
        ]
        rows.append({"method": method, "cells": cells, "first": False})
    return {"columns": columns, "rows": rows}


def _runs_table(data: xr.Dataset) -> list[dict[str, Any]]:
    found = []
    for run in spreadsheet.runs(data):
        cells = [_number(run["validation"]), _number(run["test"]), *(_number(run[axis]) for axis in AXES)]
        found.append(run | {"cells": cells, "configuration": _pretty(run["configuration"])})
    return found


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=1, ensure_ascii=False)
    except ValueError:
        return text


def _breakable(name: str) -> Markup:
    """A name that narrow columns may break after an underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def _about(data: xr.Dataset) -> list[tuple[str, str]]:
    """What was run, by whom, on what, as far as the dataset says."""
    attrs = {str(name): str(value) for name, value in data.attrs.items()}
    amount = float(attrs.get("budget", 0) or 0)
    axis = attrs.get("budget_axis", "steps")
    found = [
        (
            "Budget of tuning",
            f"{data.sizes['trial']} trials a method, task and cluster; {data.sizes['repeat']} repeats",
        ),
        ("Budget of a run", f"{shown(amount)} {axis}" if amount else f"as many {axis} as the suite says"),
    ]
    for name, key in (("Command", "command"), ("Date", "date"), ("Machine", "machine"), ("Revision", "git")):
        found += [(name, attrs[key])] if attrs.get(key) else []
    try:
        versions = json.loads(attrs.get("versions", "")).items()
        found.append(("Versions", ", ".join(f"{name} {version}" for name, version in versions)))
    except (ValueError, AttributeError):
        found += [("Versions", attrs["versions"])] if attrs.get("versions") else []
    return found


def render(data: xr.Dataset, parts: dict[str, list[Section]], totals: dict[str, Overall]) -> str:
    """The page.

    Args:
      data: a benchmark's dataset.
      parts: the sections of each cluster.
      totals: the tasks of each cluster together.
    """
    first = next(iter(totals.values()))
    names = [*first.methods, *(str(name) for name in data.method.values if str(name) not in first.methods)]
    looks = pictures.look(names)
    clusters = []
    for c, (cluster, sections) in enumerate(parts.items()):
        total = totals[cluster]
        clusters.append(
            {
                "name": cluster,
                "total": total,
                "table": _overall_table(total, len(sections)),
                "relative": Markup(pictures.relative(total, looks, f"c{c}s")) if total.methods else "",
                "wins": Markup(pictures.wins(total, looks, f"c{c}w")) if total.methods else "",
                "sections": [
                    {
                        "part": part,
                        "table": _section_table(part),
                        "worst": shown(part.worst),
                        "picture": Markup(pictures.curves(data, part, looks, f"c{c}t{t}")) if part.rows else "",
                    }
                    for t, part in enumerate(sections)
                ],
            }
        )
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "breakable": _breakable}
    return environment.get_template("template.html").render(
        title=str(data.attrs.get("title", "Benchmark")),
        about=str(data.attrs.get("about", "")),
        facts=_about(data),
        suite=str(data.attrs.get("suite", "")),
        clusters=clusters,
        runs=_runs_table(data),
        axes=AXES,
        shown_methods=pictures.SHOWN,
        style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        script=Markup((FOLDER / "script.js").read_text(encoding="utf-8")),
    )
