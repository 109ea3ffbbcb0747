"""The report of a benchmark: one self-contained HTML page, CSV files, and LaTeX tables.

analysis.py       what is said, in numbers
pictures.py       what is drawn, as SVG
page.py           the page; template.html, style.css and script.js are put into it
spreadsheet.py    trials.csv, a row a run, and summary.csv, a row a method, task and cluster
latex.py          tables with booktabs' rules
"""

import os
from pathlib import Path
from typing import NamedTuple

import xarray as xr

from experiments.report import analysis, latex, page, spreadsheet


class Paths(NamedTuple):
    """Where a report is."""

    html: Path
    csv: Path  # a row a trial or repeat
    summary: Path  # a row a method, task and cluster
    latex: Path


_REQUIRED = (
    *("validation", "test", "worst", *analysis.AXES, "diverged", "configuration", "cell", "rerun"),
    *("final_validation", "final_test", *(f"final_{axis}" for axis in analysis.AXES), "final_diverged"),
    *("final_configuration", "final_cell", "final_rerun", "reason", "metric", "better"),
)


def write(data: xr.Dataset, folder: Path) -> Paths:
    """Write report.html, trials.csv, summary.csv and tables.tex; all of them are made before the first is written.

    Args:
      data: a benchmark's dataset, with dimensions task, method, cluster, trial, repeat, record.
      folder: made if it is not there.

    Returns:
      the files' paths.

    Raises:
      ValueError: if the dataset lacks what the report is made of.
    """
    missing = [name for name in _REQUIRED if name not in data.variables]
    if missing:
        raise ValueError(f"report: the dataset has no {', '.join(missing)}. Pass what a benchmark has stored.")
    parts = {
        cluster: [analysis.section(data, str(task), cluster) for task in data.task.values]
        for cluster in map(str, data.cluster.values)
    }
    totals = {cluster: analysis.overall(sections) for cluster, sections in parts.items()}
    sections = [part for group in parts.values() for part in group]
    texts = {
        "report.html": page.render(data, parts, totals),
        "trials.csv": spreadsheet.trials(data),
        "summary.csv": spreadsheet.summary(sections),
        "tables.tex": latex.tables(str(data.attrs.get("title", "Benchmark")), parts, totals),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        draft = folder / f".{name}.part"
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, folder / name)
    return Paths(*(folder / name for name in texts))
