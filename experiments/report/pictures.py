"""The report's pictures, as SVG to be put into a page: no fonts of their own, legible on light and dark."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

from experiments.figures import PALETTE, STYLE, panels
from experiments.ranking import pareto_front
from experiments.report.analysis import AXES, Overall, Section

SHOWN = 8
"""How many methods have a colour and a place in the legend of one picture; the others are grey."""
COLOURS = [PALETTE[name] for name in ("blue", "red", "green", "orange", "pink", "sky", "yellow", "violet", "brown")]
DASHES: list[Any] = ["-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1))]
UNITS = {"steps": "steps", "bits": "bits sent", "seconds": "simulated seconds", "joules": "joules"}


def look(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and dashes of each method: one pair for each, the same in all pictures of a report.

    Example:
      >>> look(["extra", "nids"])["nids"]["linestyle"]
      '-'
    """
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS) % len(DASHES)]}
        for i, name in enumerate(methods)
    }


def svg(figure: Figure, name: str, title: str) -> str:
    """A figure as an `<svg>` element whose ids are its own and whose text is text, in the colour of the page.

    Args:
      figure: to be drawn.
      name: goes before all ids, so that pictures on one page do not take each other's.
      title: what a screen reader says.
    """
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    found = text.getvalue()
    found = found[found.index("<svg") :]
    found = re.sub(r"<metadata>.*?</metadata>", "", found, flags=re.DOTALL)
    found = re.sub(r'\bid="', f'id="{name}-', found)
    found = re.sub(r'href="#', f'href="#{name}-', found).replace("url(#", f"url(#{name}-")
    found = re.sub(r"(fill|stroke): ?#000000", r"\1: currentColor", found)
    found = re.sub(r"font-family: ?[^;\"]+", "font-family: inherit", found)
    found = re.sub(r"font: ?([\d.]+px) [^;\"]+", r"font-size: \1", found)
    shown = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return found.replace("<svg ", f'<svg role="img" aria-label="{shown}" ', 1)


def _legend(figure: Figure, axis: Any, order: int = 1) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles[::order], labels[::order], loc="outside lower center", ncols=min(4, len(labels)))


def curves(data: xr.Dataset, part: Section, looks: dict[str, dict[str, Any]], name: str) -> str:
    """Test value of the tuned methods against steps, bits, seconds and joules, with the Pareto front of each.

    Lines are means over repeats that did not diverge, at each record. The front is that of all points of these lines:
    what no method had at a lower cost.
    """
    here = data.sel(task=part.task, cluster=part.cluster)
    logarithmic = part.better == "min"
    with mpl.rc_context(STYLE):
        figure, axes = panels(2, 2, (4.6, 3.0))
        for axis, panel in zip(AXES, axes.flat, strict=True):
            points: list[tuple[float, float]] = []
            for place, row in reversed(list(enumerate(part.rows))):  # the best on top
                cell = here.sel({"method": row.method})
                kept = cell.final_diverged.values < 0
                costs, values = (
                    _columns(cell[variable].transpose("repeat", "record").values[kept])
                    for variable in (f"final_{axis}", "final_test")
                )
                values = np.maximum(values, part.resolution)
                points += zip(costs.tolist(), values.tolist(), strict=True)
                style = {**looks[row.method], "linewidth": 1.4, "label": row.method, "zorder": 3}
                if place >= SHOWN:
                    style = {"color": "0.6", "linewidth": 0.6, "alpha": 0.6}
                panel.plot(costs, np.where(values > 0, values, np.nan) if logarithmic else values, **style)
            cost, value = np.array(points or [(np.nan, np.nan)]).T
            front = pareto_front(cost, value, part.better)
            panel.step(
                cost[front],
                value[front],
                where="post",
                color="0.5",
                linewidth=4,
                alpha=0.35,
                zorder=2,
                label="Pareto front",
            )
            panel.set_xlabel(UNITS[axis])
            if logarithmic and (value[front] > 0).any():
                panel.set_yscale("log", nonpositive="mask")
            if axis != "steps" and (cost > 0).any():
                panel.set_xscale("log", nonpositive="mask")
                _few_ticks(panel, cost[cost > 0])
        for panel in axes[:, 0]:
            panel.set_ylabel(f"test {part.metric}")
        _legend(figure, axes[0, 0], order=-1)
        return svg(figure, name, f"Test {part.metric} of the tuned methods on {part.task} against four costs")


def _few_ticks(panel: Any, costs: np.ndarray) -> None:
    """Readable numbers on a logarithmic axis, be it long or short."""
    long = costs.max() >= 100 * costs.min()
    engineering = EngFormatter(sep=" ")
    panel.xaxis.set_major_locator(LogLocator(subs=(1,) if long else (1, 2, 5)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if x < 1e4 else engineering(x)))
    panel.xaxis.set_minor_formatter(NullFormatter())


def _columns(values: np.ndarray) -> np.ndarray:
    """The mean of each column over what is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    return np.where(count > 0, np.where(finite, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def relative(summary: Overall, looks: dict[str, dict[str, Any]], name: str) -> str:
    """Relative performance S(method, k) against the budget k."""
    with mpl.rc_context(STYLE):
        figure, axis = panels(size=(5.2, 3.6))
        budgets = np.arange(1, summary.relative.shape[1] + 1)
        best = set(np.argsort(-np.nan_to_num(summary.relative[:, -1], nan=-1.0), kind="stable")[:SHOWN].tolist())
        for place, method in enumerate(summary.methods):
            style = (
                {**looks[method], "label": method}
                if place in best
                else {"color": "0.6", "linewidth": 0.6, "alpha": 0.6}
            )
            axis.plot(budgets, summary.relative[place], **style)
        axis.set(xlabel="trials of tuning", ylabel="relative performance", ylim=(0, 1.03))
        _budget_ticks(axis, len(budgets))
        _legend(figure, axis)
        return svg(figure, name, f"Relative performance against the budget, {summary.cluster}")


def wins(summary: Overall, looks: dict[str, dict[str, Any]], name: str) -> str:
    """The probability of having the best value, stacked, against the budget."""
    with mpl.rc_context(STYLE):
        figure, axis = panels(size=(5.2, 3.6))
        budgets = np.arange(1, summary.wins.shape[0] + 1)
        best = np.argsort(-summary.wins.sum(axis=0), kind="stable")[:SHOWN]
        layers = [summary.wins[:, place] for place in best]
        colours = [looks[summary.methods[place]]["color"] for place in best]
        hatches = ["///" if colour in colours[:place] else "" for place, colour in enumerate(colours)]
        labels = [summary.methods[place] for place in best]
        if len(summary.methods) > len(best):
            layers.append(1 - np.sum(layers, axis=0))
            colours.append("#999999")
            hatches.append("")
            labels.append("all others")
        # A single budget would be an area of no width.
        wide = np.repeat(budgets, 2) + np.tile([-0.5, 0.5], len(budgets))
        axis.stackplot(
            wide,
            [np.repeat(layer, 2) for layer in layers],
            labels=labels,
            colors=colours,
            hatch=hatches,
            edgecolor="white",
            linewidth=0.4,
        )
        axis.set(xlabel="trials of tuning", ylabel="win probability", ylim=(0, 1), xlim=(wide[0], wide[-1]))
        axis.grid(visible=False)
        _budget_ticks(axis, len(budgets))
        _legend(figure, axis)
        return svg(figure, name, f"Win probability against the budget, {summary.cluster}")


def _budget_ticks(axis: Any, trials: int) -> None:
    ticks = np.unique(np.linspace(1, trials, min(trials, 6)).astype(int))
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
