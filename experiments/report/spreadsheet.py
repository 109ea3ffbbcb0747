"""The report as comma-separated values, with all digits: an empty field is what does not exist."""

import csv
import io
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from experiments.report.analysis import AXES, Section, last, scores, shown_budgets


def _text(rows: Iterable[dict[str, Any]]) -> str:
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _field(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def _field(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else repr(float(value))
    return value


def runs(data: xr.Dataset) -> list[dict[str, Any]]:
    """Every run that was made, trials and repeats, as a dict of plain values: score, costs, and how to make it again.

    Args:
      data: a benchmark's dataset.
    """
    found = []
    for kind, prefix, dimension in (("trial", "", "trial"), ("repeat", "final_", "repeat")):
        for task in data.task.values:
            for cluster in data.cluster.values:
                for method in data.method.values:
                    cell = data.sel({"task": task, "cluster": cluster, "method": method})
                    cell = cell.transpose("trial", "repeat", "record", missing_dims="ignore")
                    found += _of_cell(cell, kind, prefix, dimension)
    return found


def _of_cell(cell: xr.Dataset, kind: str, prefix: str, dimension: str) -> list[dict[str, Any]]:
    if not cell.sizes.get(dimension, 0):
        return []
    diverged = cell[f"{prefix}diverged"].values
    validation, test, record = scores(
        cell[f"{prefix}validation"].values, cell[f"{prefix}test"].values, diverged, str(cell.better.values)
    )
    worst = (
        cell[f"{prefix}worst"].values
        if f"{prefix}worst" in cell
        else np.full((len(test), cell.sizes["record"]), np.nan)
    )
    ends = {axis: last(cell[f"{prefix}{axis}"].values) for axis in AXES}
    return [
        {
            "kind": kind,
            "task": str(cell.task.values),
            "cluster": str(cell.cluster.values),
            "method": str(cell.method.values),
            "number": number,
            "validation": validation[number],
            "test": test[number],
            "worst_node": worst[number, record[number]] if np.isfinite(test[number]) else np.nan,
            **{axis: values[number] for axis, values in ends.items()},
            "diverged_at": int(diverged[number]) if diverged[number] >= 0 else "",
            "cell": str(name),
            "configuration": str(cell[f"{prefix}configuration"].values[number]),
            "rerun": str(cell[f"{prefix}rerun"].values[number]),
        }
        for number, name in enumerate(cell[f"{prefix}cell"].values)
        if str(name)
    ]


def trials(data: xr.Dataset) -> str:
    """`runs` as CSV: a row a run."""
    return _text(runs(data))


def summary(sections: list[Section]) -> str:
    """A row a method, task and cluster: all estimators at the budgets shown, final values, ranks, costs.

    Args:
      sections: of all tasks and clusters.
    """
    rows: list[dict[str, Any]] = []
    for part in sections:
        for row in [*part.rows, *part.left_out]:
            line: dict[str, Any] = {
                "task": part.task,
                "cluster": part.cluster,
                "method": row.method,
                "metric": part.metric,
                "better": part.better,
                "not_applicable": row.reason,
                "trials": row.trials,
                "trials_diverged": row.diverged,
            }
            if not row.reason:
                line |= _ends("final_test", row.final) | _ends("rank", row.rank) | (row.ends or {})
                for k in shown_budgets(row.trials):
                    at = [end[k - 1] for end in row.expected]
                    line |= _ends(f"incumbent_without_replacement_at_{k}", at)
                    for name, curve in (row.estimators or {}).items():
                        line[f"{name.replace(' ', '_')}_at_{k}"] = curve[k - 1]
            rows.append(line)
    return _text(rows)


def _ends(name: str, interval: Any) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(float, interval), strict=True))
