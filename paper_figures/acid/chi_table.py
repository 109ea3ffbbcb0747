r"""A2CiD2 (Nabli, Belilovsky, Oyallon, NeurIPS 2023), its table of topologies: chi_1, chi_2 and what they promise.

Every worker is in one exchange per unit of time on average, the time of one gradient. Pairwise averaging takes a time
of order chi_1 to agree, A2CiD2 one of order sqrt(chi_1 chi_2). Left: both, over the number of workers, on rings, on the
authors' exponential graphs (neighbours at distances 2^k on both sides, the opposite worker counted twice) and on
complete graphs. Right: the exact exponents with which consensus errors decay without gradients, beside the bounds (thin
lines). --full has the exact decays of 64 workers as well.
"""

from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import xarray as xr

import adozoo
import theory
from experiments import figures

SIZES, QUICK = (4, 8, 16, 32, 64), 32
PUBLISHED = {"ring": (13, 1), "exponential": (2, 1), "complete": (1, 1)}
"""chi_1 and chi_2 of 16 workers, rounded."""
ALGORITHMS = ("A2CiD2", "pairwise averaging")
NAMES = ("chi_1", "chi_2")


def exponential(n: int) -> nx.Graph:
    """Workers at distances 1, 2, 4, ... on both sides; the opposite one is on both, and has twice the rate."""
    graph = nx.Graph()
    for worker in range(n):
        for k in range(n.bit_length() - 1):
            other = (worker + 2**k) % n
            both = graph.get_edge_data(worker, other, {"weight": 0.0})["weight"]
            graph.add_edge(worker, other, weight=both + 1.0)
    return graph


GRAPHS: dict[str, Any] = {
    "ring": adozoo.graphs.ring,
    "exponential": exponential,
    "complete": adozoo.graphs.complete,
}


def compute(full: bool) -> xr.Dataset:
    sizes, axes = SIZES, ("topology", "n")
    constants, decays = np.empty((3, len(sizes), 2)), np.full((3, len(sizes), 2), np.nan)
    for row, build in enumerate(GRAPHS.values()):
        for column, n in enumerate(sizes):
            rates = adozoo.resistance.normalize_rates(build(n), "node_rate")
            constants[row, column] = theory.chi(rates)
            if n <= QUICK or full:
                decays[row, column] = [
                    -theory.acid_rate(rates, accelerated).second_moment for accelerated in (True, False)
                ]
    return xr.Dataset(
        {"chi": ((*axes, "constant"), constants), "decay": ((*axes, "algorithm"), decays)},
        {"topology": list(GRAPHS), "n": list(sizes), "constant": list(NAMES), "algorithm": list(ALGORITHMS)},
    )


def joint(data: xr.Dataset) -> xr.DataArray:
    """sqrt(chi_1 chi_2)."""
    return np.sqrt(data.chi.prod("constant"))


def bounds(data: xr.Dataset) -> xr.DataArray:
    """1 / (2 sqrt(chi_1 chi_2)) and 1 / (2 chi_1), the exponents that are proved."""
    times = xr.concat([joint(data), data.chi.sel(constant="chi_1", drop=True)], "algorithm")
    return (1 / (2 * times)).assign_coords(algorithm=list(ALGORITHMS))


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axes = figures.panels(1, 2, (4.0, 3.4))
    promised = bounds(data)
    for name in map(str, data.topology.values):
        here, look = data.sel(topology=name), figures.topology(name)
        axes[0].plot(here.n, here.chi.sel(constant="chi_1"), label=rf"{name}, $\chi_1$", ls="--", **look)
        axes[0].plot(here.n, joint(here), label=rf"{name}, $\sqrt{{\chi_1 \chi_2}}$", **look)
        for method, style in zip(ALGORITHMS, ("-", "--"), strict=True):
            axes[1].plot(here.n, here.decay.sel(algorithm=method), ls=style, label=f"{name}, {method}", **look)
            axes[1].plot(here.n, promised.sel(topology=name, algorithm=method), ls=style, lw=0.7, color=look["color"])
    for axis in axes:
        axis.set(xscale="log", yscale="log", xlabel="workers")
        axis.set_xticks(data.n.values, [str(n) for n in data.n.values])
        axis.minorticks_off()
        axis.legend(fontsize=7, handlelength=3.5)
    axes[0].set(ylabel="time, in gradients of a worker", title="what decides the time to agree")
    axes[1].set(ylabel=r"exponent of $E\|x - \bar x\|^2$", title="exact decay; thin: proved bound")
    return figure


def judge(data: xr.Dataset) -> list[figures.Claim]:
    sixteen = {name: data.chi.sel(n=16, topology=name).values for name in GRAPHS}
    decay = data.decay.dropna("n")
    gain = decay.sel(algorithm=ALGORITHMS[0]) / decay.sel(algorithm=ALGORITHMS[1])
    ring = data.sel(topology="ring", n=list(SIZES))
    advantage = (ring.chi.sel(constant="chi_1") / joint(ring)).values
    ratio = decay / bounds(data)
    growing = gain.sel(topology="ring").values
    return [
        figures.Claim(
            "chi_1 and chi_2 of 16 workers, rounded, are the paper's",
            all(tuple(np.round(found)) == PUBLISHED[name] for name, found in sixteen.items()),
            sixteen,
            PUBLISHED,
        ),
        figures.Claim(
            "consensus decays no slower than proved, everywhere",
            bool((ratio >= 1 - 1e-9).all()),
            {
                f"{method}, {name}: decay / bound, smallest and largest": (
                    float(ratio.sel(topology=name, algorithm=method).min()),
                    float(ratio.sel(topology=name, algorithm=method).max()),
                )
                for name in GRAPHS
                for method in ALGORITHMS
            },
        ),
        figures.Claim(
            "A2CiD2 gains nothing on the complete graph, and on no graph here does it lose",
            bool(abs(gain.sel(topology="complete") - 1).max() < 1e-9 and (gain >= 1 - 1e-9).all()),
            {f"decay of A2CiD2 / averaging, {name}": gain.sel(topology=name).values for name in GRAPHS},
        ),
        figures.Claim(
            "on rings the promised advantage doubles with the number of workers from 16 on (within 5 %), and the exact "
            "one grows with it",
            bool((abs(advantage[3:] / advantage[2:-1] / 2 - 1) < 0.05).all() and (np.diff(growing) > 0).all()),
            {"sqrt(chi_1 / chi_2), n = 4 to 64": advantage, "exact decays' ratio": growing},
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
