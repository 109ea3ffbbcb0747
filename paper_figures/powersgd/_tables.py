"""The tables of the PowerSGD paper: data volumes recomputed from shapes, beside the published ones.

An epoch's volume is (bits of one worker's message) x (steps) / 8 / 2^20: what the paper calls MB are mebibytes. The
published numbers are quoted from memory of the paper, not read off its text again; the volumes computed here agree with
all of them. Published accuracies, perplexities and ratios stand beside them; the first two are not reproduced here.
"""

from collections.abc import Sequence
from math import isnan, nan
from typing import NamedTuple

import numpy as np
import xarray as xr

from adozoo.compression import Compressor, identity
from experiments import figures
from paper_figures.powersgd._shapes import Workload


class Row(NamedTuple):
    """A method in a table: what it sends, and what was published of it (nan: nothing).

    Attributes:
      name: the method.
      compressor: applied to one worker's gradient.
      volume: data per epoch in MB.
      quality: test accuracy in percent, or perplexity.
      ratio: SGD's volume over this one.
    """

    name: str
    compressor: Compressor
    volume: float = nan
    quality: float = nan
    ratio: float = nan


def megabytes(workload: Workload, compressor: Compressor) -> float:
    """MiB that one worker sends in an epoch."""
    return compressor.bits(workload.tensors) * workload.steps / 8 / 2**20


def computed(workloads: Sequence[tuple[Workload, Sequence[Row]]]) -> xr.Dataset:
    """All rows of a table, of one workload after the other."""
    entries = [(workload, row) for workload, rows in workloads for row in rows]
    exact = {workload.name: megabytes(workload, identity()) for workload, _ in workloads}
    volumes = np.array([megabytes(workload, row.compressor) for workload, row in entries])
    return xr.Dataset(
        {
            "workload": ("row", [workload.name for workload, _ in entries]),
            "method": ("row", [row.name for _, row in entries]),
            "measure": ("row", [workload.quality for workload, _ in entries]),
            "megabytes": ("row", volumes),
            "ratio": ("row", np.array([exact[workload.name] for workload, _ in entries]) / volumes),
            "published_megabytes": ("row", [row.volume for _, row in entries]),
            "published_ratio": ("row", [row.ratio for _, row in entries]),
            "published_quality": ("row", [row.quality for _, row in entries]),
        }
    )


def parts(data: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """The rows of each workload."""
    names = list(dict.fromkeys(data.workload.values.tolist()))
    return [(name, data.isel(row=np.flatnonzero(data.workload.values == name))) for name in names]


def _columns(rows: xr.Dataset) -> list[tuple[str, list[str]]]:
    """Titles and cells of the numbers beside the bars."""

    def cells(name: str, form: str) -> list[str]:
        return ["–" if isnan(value) else format(value, form) for value in rows[name].values.tolist()]

    unit = str(rows.measure.values[0])
    ratios = [("compression", cells("ratio", ".1f")), ("published", cells("published_ratio", ".0f"))]
    return [
        ("MB per epoch", cells("megabytes", ",.2f")),
        ("published", cells("published_megabytes", ",.0f")),
        *(ratios if np.isfinite(rows.published_ratio).any() else []),
        (f"published\n{unit}", cells("published_quality", ".1f" if "%" in unit else ".0f")),
    ]


def draw(data: xr.Dataset) -> figures.Figure:
    """Bars of data volume on a logarithmic scale, the published volumes as crosses, the numbers to the right."""
    tables = parts(data)
    heights = [len(rows.row) + 1 for _, rows in tables]
    figure = figures.Figure(figsize=(10.2, 0.75 * len(tables) + 0.26 * sum(heights)), layout="constrained")
    columns = len(_columns(data))
    axes = figure.subplots(len(tables), 2, squeeze=False, height_ratios=heights, width_ratios=(5, columns))
    for (axis, table), (name, rows) in zip(axes, tables, strict=True):
        places = np.arange(len(rows.row))
        axis.barh(places, rows.megabytes, height=0.62, color=figures.PALETTE["sky"], label="from the tensors' shapes")
        known = np.flatnonzero(~np.isnan(rows.published_megabytes.values))
        axis.plot(rows.published_megabytes[known], known, "kx", ms=6, mew=1.5, ls="", label="published", clip_on=False)
        axis.set_xscale("log")
        axis.set(xlim=(0.4 * float(rows.megabytes.min()), 1.6 * float(rows.megabytes.max())))
        axis.set_yticks(places, rows.method.values)
        axis.grid(visible=False, axis="y")
        axis.set_title(name, loc="left")
        table.axis("off")
        for place, (title, cells) in enumerate(_columns(rows)):
            right = (place + 0.95) / columns
            table.text(right, -0.8, title, ha="right", va="bottom", fontsize=8, color="0.35")
            for height, cell in enumerate(cells):
                table.text(right, height, cell, ha="right", va="center", fontsize=8.5)
        for side in (axis, table):
            side.set_ylim(places[-1] + 0.6, -0.6)
    axes[-1, 0].set_xlabel("data sent per worker and epoch, MB = $2^{20}$ bytes")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return figure


def judge(data: xr.Dataset) -> list[figures.Claim]:
    """The volumes and ratios of every row against the published ones, which are whole numbers."""
    claims = []
    for name, rows in parts(data):
        for column, text in (("megabytes", "data per epoch, in MB"), ("ratio", "compression ratio")):
            published, found = rows[f"published_{column}"].values, rows[column].values
            known = np.flatnonzero(~np.isnan(published))
            if not len(known):
                continue
            methods = rows.method.values[known].tolist()
            claims.append(
                figures.Claim(
                    f"{name}: {text}, computed from the tensors' shapes, is the published one in every row, rounded",
                    bool((np.round(found[known]) == published[known]).all()),
                    dict(zip(methods, found[known].tolist(), strict=True)),
                    dict(zip(methods, published[known].tolist(), strict=True)),
                )
            )
        qualities = dict(zip(rows.method.values.tolist(), rows.published_quality.values.tolist(), strict=True))
        claims.append(
            figures.Claim(
                f"{name}: {rows.measure.values[0]} as published (days of training on GPUs; not reproduced)",
                None,
                published={method: quality for method, quality in qualities.items() if not isnan(quality)},
            )
        )
    return claims
