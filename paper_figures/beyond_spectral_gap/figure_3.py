r"""Beyond Spectral Gap (extended), figure 3: largest learning rate of the theory against n_W, along the decay.

32 workers, L = 1, zeta = 2000. Large decays count many neighbours, which reduces the noise (rising branch), but let the
workers drift apart (falling branch): the best decay lies in between, and the largest learning rate is a peak.

Left: the curves that fit the published ones, which are not eq. (25) of the text but, it seems, the bound of the
conference version: \eta = min(1 / ([(1 - w) / n + w] zeta + (1 + w) L), (1 - decay lambda_2) w / L) with w = 1 / n and
1 / n = mean_i (1 - decay) lambda_i / (1 - decay lambda_i), for W = (I + A / degree) / 2.
Right: eq. (25) of theorem 6 as printed, with w = 1 / n_W and lazy Metropolis weights (without laziness beta < 0, and
it admits no learning rate at all). On the hypercube its falling branch is never the lower one: there is no peak.

Deviations: the left formula and its W are inferred from the picture; the torus is the code's helical one (4 x 8). The
crosses are the published peaks, in both panels.
"""

from collections.abc import Sequence
from functools import cache

import networkx as nx
import numpy as np
import xarray as xr
from scipy.optimize import minimize_scalar

import adozoo
import theory
from experiments import figures

SMOOTHNESS, ZETA = 1.0, 2000.0
TOPOLOGIES = ("ring:32", "helical_torus:4x8", "hypercube:32")
LABELS = dict(zip(TOPOLOGIES, ("ring", "torus 4×8", "hypercube"), strict=True))
# Peaks (n_W, learning rate) read off the vector paths of the published figure.
PUBLISHED = dict(zip(TOPOLOGIES, ((9.458, 0.0024891), (18.461, 0.0047199), (28.368, 0.0071658)), strict=True))
FINEST = 11.5
"""Decays run up to 1 - exp(-11.5), about 1 - 1e-5."""


@cache
def weights(name: str) -> np.ndarray:
    return adozoo.weights.lazy(adozoo.weights.metropolis(adozoo.graphs.parse(name)))


@cache
def walk_eigenvalues(name: str) -> np.ndarray:
    """Descending eigenvalues of (I + A / degree) / 2."""
    graph = adozoo.graphs.parse(name)
    adjacency = nx.to_numpy_array(graph, nodelist=range(graph.number_of_nodes()), weight=None)
    return theory.eigenvalues((np.eye(len(adjacency)) + adjacency / adjacency[0].sum()) / 2)


def fitted(name: str, decay: float) -> tuple[float, float]:
    """(n, learning rate) of the bound that fits the published curves."""
    values = walk_eigenvalues(name)
    omega = np.mean((1 - decay) * values / (1 - decay * values))
    noise = 1 / ((omega * (1 - omega) + omega) * ZETA + (1 + omega) * SMOOTHNESS)
    return 1 / omega, min(noise, (1 - decay * values[1]) * omega / SMOOTHNESS)


def printed(name: str, decay: float) -> tuple[float, float]:
    """(n_W, learning rate) of eq. (25)."""
    bound = theory.theorem6(weights(name), decay, 0.0, SMOOTHNESS, ZETA)
    return bound.effective_neighbors, bound.learning_rate


FORMS = {"fitted": fitted, "eq. 25": printed}


def peak(form: str, name: str) -> tuple[float, float]:
    """(n_W, learning rate) at the decay of the largest learning rate."""
    found = minimize_scalar(
        lambda exponent: -FORMS[form](name, -np.expm1(-exponent))[1],
        bounds=(0, FINEST),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return FORMS[form](name, -np.expm1(-found.x))


def compute(full: bool) -> xr.Dataset:
    decays = -np.expm1(-np.linspace(0, FINEST, 1000 if full else 250))
    curves = [[[form(name, decay) for decay in decays] for name in TOPOLOGIES] for form in FORMS.values()]
    neighbors, rates = np.moveaxis(np.array(curves), -1, 0)
    axes = ("form", "topology", "decay")
    peaks = (("form", "topology", "coordinate"), [[peak(form, name) for name in TOPOLOGIES] for form in FORMS])
    return xr.Dataset(
        {"neighbors": (axes, neighbors), "learning_rate": (axes, rates), "peak": peaks},
        {
            "form": list(FORMS),
            "topology": list(TOPOLOGIES),
            "decay": decays,
            "coordinate": ["neighbors", "learning_rate"],
        },
    )


def peaks(data: xr.Dataset, form: str) -> dict[str, np.ndarray]:
    return {name: data.peak.sel(form=form, topology=name).values for name in TOPOLOGIES}


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axes = figures.panels(1, 2, (4.2, 3.5), sharey=True)
    for axis, form in zip(axes, FORMS, strict=True):
        for name in TOPOLOGIES:
            curve, look = data.sel(form=form, topology=name), figures.topology(name)
            axis.plot(curve.neighbors, 1e3 * curve.learning_rate, color=look["color"], label=LABELS[name])
            top, published = peaks(data, form)[name], PUBLISHED[name]
            axis.plot(top[0], 1e3 * top[1], marker=look["marker"], color=look["color"], ms=7, mec="k", mew=0.6)
            axis.plot(published[0], 1e3 * published[1], "x", color="k", ms=9, mew=1.6, zorder=5)
        axis.plot([], [], "x", color="k", ms=8, mew=1.6, label="published peak")
        axis.set(xlim=(0, 33), ylim=(0, 8), xlabel=r"effective number of neighbours $n_W(\gamma)$")
    axes[0].set(title="fitted to the published curves", ylabel=r"largest learning rate ($\times 10^{-3}$)")
    axes[1].set(title="eq. (25) as printed, lazy Metropolis weights")
    axes[0].legend(loc="upper left")
    return figure


def judge(data: xr.Dataset) -> list[figures.Claim]:
    claims = []
    for form in FORMS:
        top = peaks(data, form)
        rates = data.learning_rate.sel(form=form).values
        turns = [int((np.diff(np.sign(np.diff(row))) != 0).sum()) for row in rates]
        interior = [0 < row.argmax() < len(row) - 1 for row in rates]
        ordered = all(np.diff([top[name][k] for name in TOPOLOGIES]).min() > 0 for k in (0, 1))
        claims.append(
            figures.Claim(
                f"{form}: each curve has a single interior peak, and n_W and the learning rate at the peak are ordered "
                "ring < torus < hypercube",
                turns == [1, 1, 1] and all(interior) and ordered,
                {"turning points": turns} | {LABELS[name]: top[name] for name in TOPOLOGIES},
            )
        )
    for form, tolerance in (("eq. 25", 0.02), ("fitted", 0.01)):
        top = peaks(data, form)
        error = max(np.abs(np.divide(top[name], PUBLISHED[name]) - 1).max() for name in TOPOLOGIES)
        claims.append(
            figures.Claim(
                f"{form}: gives the published peaks, to {tolerance:.0%}",
                bool(error <= tolerance),
                {LABELS[name]: top[name] for name in TOPOLOGIES} | {"largest relative error": error},
                {LABELS[name]: PUBLISHED[name] for name in TOPOLOGIES},
            )
        )
    return claims


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
