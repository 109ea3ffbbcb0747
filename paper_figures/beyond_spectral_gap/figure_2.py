"""Beyond Spectral Gap (extended), figure 2: effective number of neighbours n_W(decay) of topologies with 32 workers.

The decay of the variance runs from 0 to 1 - 1e-4 on a logarithmic scale of 1 - decay. Metropolis weights; the curves
are the mean over workers (Definition 1). The one-peer exponential graph is a schedule of period 5, here the
implemented `adozoo.one_peer_exponential`, for which the formula in terms of eigenvalues (eq. 6) does not hold.

Deviations: none. The crossings are marked, which the paper does not.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.optimize import brentq

import adozoo
import theory
from experiments import figures

N = 32
TOPOLOGIES = ("complete", "two_cliques", "one_peer_exponential", "ring", "solo")
LABELS = dict(zip(TOPOLOGIES, ("fully connected", "two cliques", "one-peer exponential", "ring", "alone"), strict=True))
# First and last point of the published curves (decay 0 and 1 - 1e-4), and where they cross.
PUBLISHED = {
    "complete": (32, 32),
    "two_cliques": (16.05, 31.76),
    "one_peer_exponential": (2, 31.92),
    "ring": (3, 31.65),
    "solo": (1, 1),
}
CROSSINGS = {"two_cliques": 0.9742, "ring": 0.7280}
SHIFTS = {"two_cliques": (-36, 7), "ring": (9, -13)}  # of the numbers beside the crossings, in points


def mixing(name: str) -> adozoo.Mixing:
    if name == "one_peer_exponential":
        return adozoo.one_peer_exponential(N)
    return adozoo.identity(N) if name == "solo" else adozoo.mixing(adozoo.graphs.parse(f"{name}:{N}"))


def crossing(first: str, second: str) -> float:
    """The decay at which two curves cross."""

    def difference(decay: float) -> float:
        return theory.effective_neighbors(mixing(first), decay) - theory.effective_neighbors(mixing(second), decay)

    return brentq(difference, 0.1, 0.9999, xtol=1e-10)


def compute(full: bool) -> xr.Dataset:
    decays = 1 - np.logspace(0, -4, 400 if full else 100)
    curves = [[theory.effective_neighbors(mixing(name), decay) for decay in decays] for name in TOPOLOGIES]
    return xr.Dataset(
        {
            "neighbors": (("topology", "decay"), np.array(curves)),
            "gap": ("topology", [theory.spectral_gap(mixing(name)) for name in TOPOLOGIES]),
            "crossing": ("crossed", [crossing("one_peer_exponential", name) for name in CROSSINGS]),
        },
        {"topology": list(TOPOLOGIES), "decay": decays, "crossed": list(CROSSINGS)},
    )


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axis = figures.panels(size=(5.6, 3.8))
    axis.set(xscale="log", xlim=(1, 1e-4), ylim=(0, 34))
    for name in TOPOLOGIES:
        look = figures.topology(name)
        axis.plot(1 - data.decay, data.neighbors.sel(topology=name), label=LABELS[name], markevery=11, **look)
    for name, decay in zip(data.crossed.values, data.crossing.values, strict=True):
        height = theory.effective_neighbors(mixing(str(name)), decay)
        axis.plot(1 - decay, height, "o", ms=10, mfc="none", color="k", zorder=5)
        axis.annotate(f"{decay:.4f}", (1 - decay, height), SHIFTS[name], textcoords="offset points")
    for name, ends in PUBLISHED.items():
        axis.plot((1, 1e-4), ends, "x", color=figures.topology(name)["color"], ms=9, mew=2, clip_on=False, zorder=6)
    axis.plot([], [], "x", color="k", ms=8, mew=2, label="published end points")
    axis.set_xticks(1 / 10.0 ** np.arange(5), ["0", "0.9", "0.99", "0.999", "0.9999"])
    axis.set_yticks((1, 8, 16, 24, 32))
    axis.set(xlabel=r"decay $\gamma$", ylabel=r"effective number of neighbours $n_W(\gamma)$", title="32 workers")
    figure.legend(loc="outside right upper")
    return figure


def judge(data: xr.Dataset) -> list[figures.Claim]:
    ends = {name: data.neighbors.sel(topology=name).values[[0, -1]] for name in TOPOLOGIES}
    crossings = dict(zip(data.crossed.values, data.crossing.values, strict=True))
    sparse = [name for name in TOPOLOGIES if name not in ("complete", "solo")]
    order = {end: sorted(sparse, key=lambda name, end=end: -ends[name][end]) for end in (0, -1)}
    return [
        figures.Claim(
            "the curves cross: which topology averages best depends on the decay; two cliques lead at small decays",
            order[0] != order[-1] and order[0][0] == "two_cliques" != order[-1][0],
            {"best first, decay 0": order[0], "best first, decay 0.9999": order[-1]}
            | {"spectral gaps": {name: round(float(data.gap.sel(topology=name)), 4) for name in sparse}},
        ),
        figures.Claim(
            "the one-peer exponential graph overtakes two cliques and the ring at the published decays",
            all(abs(crossings[name] - value) <= 1e-4 for name, value in CROSSINGS.items()),
            crossings,
            CROSSINGS,
        ),
        figures.Claim(
            "the published end points, at decays 0 and 0.9999, are reproduced to their rounding",
            all(np.abs(ends[name] - PUBLISHED[name]).max() <= 5e-3 for name in TOPOLOGIES),
            ends,
            PUBLISHED,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
