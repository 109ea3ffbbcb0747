"""Beyond Spectral Gap (extended), figure 4: loss after training by learning rate and topology, on Fashion-MNIST.

The figure shows where averaging helps: a little at small learning rates, more by allowing for larger ones; and that the
star, whose spectral gap is above the ring's, neither allows for them as the ring does nor ends where it does. Marks are
at the best learning rates, bands are the range over seeds. Groups of fewer workers, FC k, are in figure 6 alone.

How the claims are measured: "small" is a quarter of the learning rate that is best for a worker on its own, on the
grid. Two thresholds are this script's own: little is less than half of the gain with each its best learning rate, and
the best learning rates rise with n_W(0.951) if Spearman's correlation is 0.5 or more. Published numbers are read off
the paper's curves, of CIFAR-10.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import xarray as xr
from matplotlib.ticker import LogLocator, NullLocator
from scipy.stats import spearmanr

from experiments import figures
from paper_figures.beyond_spectral_gap import _fashion_mnist
from paper_figures.beyond_spectral_gap.figure_6 import PAPER_DECAY, label


class Point(NamedTuple):
    """What is read off one topology's curve.

    Attributes:
      neighbors: n_W(0.951).
      rate: best learning rate.
      loss: with it.
      lone: loss with the learning rate that is best for a worker on its own.
      small: loss with a quarter of that.
    """

    neighbors: float
    rate: float
    loss: float
    lone: float
    small: float


PUBLISHED = {
    "solo": Point(1.0, 0.0055, 1.548, 1.548, 1.778),
    "star": Point(2.304, 0.0156, 1.139, 1.260, 1.669),
    "heap_binary_tree": Point(7.165, 0.0312, 0.586, 0.959, 1.586),
    "ring": Point(8.828, 0.0625, 0.519, 0.936, 1.581),
    "one_peer_exponential": Point(14.251, 0.0625, 0.335, 0.870, 1.556),
    "social_network": Point(16.313, 0.0625, 0.343, 0.882, 1.564),
    "two_cliques": Point(17.894, 0.0442, 0.318, 0.796, 1.525),
    "torus": Point(20.586, 0.0625, 0.323, 0.907, 1.6),
    "hypercube": Point(24.242, 0.0625, 0.288, 0.923, 1.609),
    "complete": Point(32.0, 0.0442, 0.216, 0.732, 1.488),
}


def networks(data: xr.Dataset) -> xr.Dataset:
    """The topologies of all workers, by their families' names, and a worker on its own."""
    everyone = f"groups:{data.attrs['workers']}"
    kept = [name for name in data.topology.values if not name.startswith("groups") or name == everyone]
    names = ["complete" if name == everyone else name.partition(":")[0] for name in kept]
    return data.sel(topology=kept).assign_coords(topology=names)


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axis = figures.panels(1, 1, (6.4, 3.9))
    here = networks(data)
    mean = here.loss.mean("seed")
    for name in here.topology.values:
        curve, look = mean.sel(topology=name), figures.topology(name)
        text = "fully connected" if name == "complete" else label(name)
        best = int(curve.argmin("learning_rate"))
        axis.plot(data.learning_rate, curve, label=text, ms=8, markevery=[best], **look)
        axis.fill_between(
            data.learning_rate,
            *(getattr(here.loss.sel(topology=name), end)("seed") for end in ("min", "max")),
            color=look["color"],
            alpha=0.12,
            lw=0,
        )
    axis.set(xlabel="learning rate", ylabel="final training loss (mean of seeds)", yscale="log")
    axis.set_xscale("log", base=2)
    low = float(mean.min())
    axis.set_ylim(0.95 * low, min(1.5 * float(mean.sel(topology="solo").isel(learning_rate=0)), 3.0))
    axis.yaxis.set(
        major_locator=LogLocator(subs=(1, 2, 3, 4, 5, 6, 8)), major_formatter="{x:g}", minor_locator=NullLocator()
    )
    figure.legend(loc="outside right center")
    return figure


def points(here: xr.Dataset) -> dict[str, Point]:
    """The same of what was measured, by topology; means over seeds."""
    mean = here.loss.mean("seed")
    best = mean.learning_rate[mean.argmin("learning_rate")]
    lone = float(best.sel(topology="solo"))
    columns = (
        here.neighbors.sel(decay=PAPER_DECAY),
        best,
        mean.min("learning_rate"),
        mean.sel(learning_rate=lone),
        mean.sel(learning_rate=lone / 4, method="nearest"),
    )
    rows = zip(*(column.values.tolist() for column in columns), strict=True)
    return {str(name): Point(*row) for name, row in zip(here.topology.values, rows, strict=True)}


def shares(found: Mapping[str, Point], names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """How much of the gain over a lone worker, with each its best learning rate, comes at that worker's: (a quarter
    of its best one, its best one)."""
    solo = found["solo"]
    return {
        f"{label(name)}: share at a quarter, at all of a lone worker's best": (
            (solo.small - found[name].small) / (solo.loss - found[name].loss),
            (solo.lone - found[name].lone) / (solo.loss - found[name].loss),
        )
        for name in names
        if name in found
    }


def correlation(found: Mapping[str, Point]) -> float:
    """Spearman's, of n_W and best learning rates; 0 where these are all the same."""
    neighbors, rates, *_ = zip(*found.values(), strict=True)
    return float(spearmanr(neighbors, rates).statistic) if len(set(rates)) > 1 else 0.0


def judge(data: xr.Dataset) -> list[figures.Claim]:
    here = networks(data)
    found = points(here)
    solo, star, ring = (found[name] for name in ("solo", "star", "ring"))
    others = [name for name in found if name != "solo"]
    each = here.loss.sel(learning_rate=slice(0.99 * solo.rate / 4, solo.rate))
    gains = each.sel(topology="solo") - each.sel(topology=others)
    least = gains.isel(learning_rate=gains.mean("seed").argmin("learning_rate"))
    of_gains = shares(found, others)
    at_ends = [point.rate for point in found.values() if point.rate in data.learning_rate.values[[0, -1]]]
    return [
        figures.Claim(
            "averaging helps at small learning rates too: each topology's loss is below that of a worker on its own, "
            "from a quarter of the latter's best learning rate up to it",
            bool((least.mean("seed") > 0).all()),
            {"a lone worker's best learning rate": solo.rate}
            | {f"{label(name)}: least gain, by seed": least.sel(topology=name).values for name in others},
        ),
        figures.Claim(
            "but little: at a quarter of a lone worker's best learning rate, averaging gains less than half of what it "
            "gains with each its best one",
            all(found[name].loss < solo.loss for name in others) and all(small < 0.5 for small, _ in of_gains.values()),
            of_gains,
            shares(PUBLISHED, others),
        ),
        figures.Claim(
            "each topology's best learning rate is above that of a worker on its own, and its loss below",
            all(found[name].rate > solo.rate and found[name].loss < solo.loss for name in others),
            {f"{label(name)}: best learning rate, loss": point[1:3] for name, point in found.items()}
            | {"best learning rates at an end of the grid": len(at_ends)},
            {f"{label(name)}: best learning rate, loss": PUBLISHED[name][1:3] for name in found if name in PUBLISHED},
        ),
        figures.Claim(
            "the star has a larger gap than the ring, but a smaller best learning rate and a higher loss",
            bool(here.gap.sel(topology="star") > here.gap.sel(topology="ring"))
            and star.rate < ring.rate
            and star.loss > ring.loss,
            {
                "gaps": here.gap.sel(topology=["star", "ring"]).values,
                "best learning rates": (star.rate, ring.rate),
                "losses": (star.loss, ring.loss),
            },
            {"gaps": (0.0313, 0.0128), "best learning rates": (0.0156, 0.0625), "losses": (1.139, 0.519)},
        ),
        figures.Claim(
            f"best learning rates rise with n_W({PAPER_DECAY}): Spearman >= 0.5",
            correlation(found) >= 0.5,
            {"Spearman": correlation(found)},
            {"Spearman": correlation(PUBLISHED)},
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    description = f"{__doc__}\n{_fashion_mnist.__doc__}"
    return figures.run(__file__, description, _fashion_mnist.compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
