"""Gantt pictures of timelines: who computes, exchanges and waits when."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Patch

from experiments.figures import PALETTE
from experiments.timelines import COMPUTE, EXCHANGE, WAIT, Timeline

LOOKS: dict[int, dict[str, Any]] = {
    COMPUTE: {"facecolor": PALETTE["blue"], "edgecolor": "white", "linewidth": 0.6},
    EXCHANGE: {"facecolor": PALETTE["orange"], "edgecolor": "white", "linewidth": 0.3},
    WAIT: {"facecolor": "0.88", "edgecolor": "white", "linewidth": 0.0},
}
"""Faces and edges of what a node does; white edges tell one gradient from the next."""
TITLES = {COMPUTE: "gradient", EXCHANGE: "exchange", WAIT: "waiting"}


def bars(timeline: Timeline, node: int, what: int, seconds: float) -> list[tuple[float, float]]:
    """(start, length) of one node's intervals of one kind, cut at `seconds`.

    Example:
      >>> from experiments.clusters import Cluster, constant
      >>> from experiments.timelines import all_reduce
      >>> bars(all_reduce(Cluster(2, constant(1.0)), 3), 1, COMPUTE, 2.5)
      [(0.0, 1.0), (1.0, 1.0), (2.0, 0.5)]
    """
    kept = (timeline.node == node) & (timeline.what == what) & (timeline.start < seconds)
    starts, ends = timeline.start[kept], np.minimum(timeline.end[kept], seconds)
    return [(start, length) for start, length in zip(starts.tolist(), (ends - starts).tolist(), strict=True) if length]


def draw(axis: Any, timeline: Timeline, seconds: float, title: str = "", stragglers: Sequence[int] = ()) -> None:
    """One timeline on one axis, a row a node; where a node does two things at once, its exchanges run below.

    Args:
      axis: a matplotlib axis.
      timeline: of at least `seconds` seconds.
      seconds: how much to show.
      title: of the panel.
      stragglers: nodes whose numbers are set in bold.

    Raises:
      ValueError: for a timeline that ends earlier.
    """
    if not 0 < seconds <= timeline.horizon:
        raise ValueError(f"draw: seconds must lie in (0, {timeline.horizon:g}], got {seconds!r}. Simulate for longer.")
    full = timeline.threads == 1
    heights = {COMPUTE: 0.84 if full else 0.5, EXCHANGE: 0.84 if full else 0.3}
    heights[WAIT] = heights[COMPUTE]
    for node in range(timeline.n):
        for what in (WAIT, COMPUTE, EXCHANGE):
            low = node - 0.42 if full or what != EXCHANGE else node + 0.12
            axis.broken_barh(bars(timeline, node, what, seconds), (low, heights[what]), **LOOKS[what])
    axis.set(xlim=(0, seconds), ylim=(timeline.n - 0.5, -0.5), title=title, ylabel="node")
    axis.set_yticks(range(timeline.n), [str(node) for node in range(timeline.n)])
    for label in axis.get_yticklabels():
        label.set_fontweight("bold" if int(label.get_text()) in stragglers else "normal")
    axis.grid(visible=False)
    axis.tick_params(axis="y", length=0)


def column(axes: Sequence[Any], timelines: Mapping[str, Timeline], seconds: float, stragglers: Sequence[int]) -> None:
    """One panel a method, by title, on one axis of time."""
    for axis, (title, timeline) in zip(axes, timelines.items(), strict=True):
        draw(axis, timeline, seconds, title, stragglers)
        axis.tick_params(labelbottom=axis is axes[-1])
    axes[-1].set_xlabel("seconds")


def handles() -> list[Patch]:
    """For a legend."""
    return [Patch(label=TITLES[what], **(LOOKS[what] | {"edgecolor": "none"})) for what in (COMPUTE, EXCHANGE, WAIT)]
