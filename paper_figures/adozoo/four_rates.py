r"""Four rates of one method: measured, exact, certified, proved, for every linear method of the zoo on six graphs.

One random heterogeneous quadratic problem (16 nodes, two dimensions, mu = 0.2, L = 1), one picture row a method. All
four numbers come from the transformation that runs (`theory.compare`): the rate fitted to a run, the spectral radius of
its linearisation, the certificate over all mu-convex L-smooth functions and all time-varying graphs with
||W_t - 11'/n|| <= sigma, as a bracket from the slowest known instance to the certified rate, and the theorems whose
conditions are met. Rates are drawn as steps per digit, ln 10 / -ln rate, so that a bound twice as far right asks for
twice as many steps.

Weights are W = I + 0.6 (M - I) with Metropolis weights M, since D2 needs eigenvalues above -1/3; all methods get the
same. Step sizes: what a user of certificates would take, the one with the best certified rate for the graph's sigma
(`theory.tune`; SVL gets the step size and gain of its paper), and 1 / (2 L) where none is certified to converge.
"""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import xarray as xr

import adozoo
import theory
from experiments import figures
from theory.claims import built
from theory.verdict import CERTIFIED, EXACT, LOWER, MEASURED, THEOREM, Verdict

N, MU, SMOOTHNESS = 16, 0.2, 1.0
RELAXATION = 0.6
"""1 - 0.6 * 2 > -1/3: admits D2 on any graph."""
FALLBACK = 1 / (2 * SMOOTHNESS)
GRAPHS = {
    "complete:16": "complete",
    "hypercube:16": "hypercube",
    "ring:16": "ring",
    "helical_torus:4x4": "helical torus 4×4",
    "random": "random, 30 % of all edges",
    "star:16": "star",
}
QUICK = ("complete:16", "hypercube:16", "ring:16")
AGREEMENT = 1e-3
"""Exponents ln(rate) that differ by less than this, relatively, agree."""
SLACK = 1e-6
COLORS = {
    MEASURED: figures.PALETTE["sky"],
    EXACT: figures.PALETTE["black"],
    CERTIFIED: figures.PALETTE["orange"],
    THEOREM: figures.PALETTE["green"],
}
EVIDENCE = {"derived": "D", "checked": "s", "recalled": "o"}
"""Markers of theorems by what they rest on; recalled ones are drawn hollow."""
RATES = ("exact", "certified", "lower")
ABOVE, BELOW, LOWEST = 0.2, 0.08, 0.3
"""Where in its row each of the four is drawn, so that they do not hide each other."""
EDGE = 1.6e5
"""Where "never" is drawn, in steps per digit."""


def graph(name: str) -> nx.Graph:
    return nx.gnp_random_graph(N, 0.3, seed=2) if name == "random" else adozoo.graphs.parse(name)


def mixing(name: str) -> adozoo.Mixing:
    return adozoo.relaxed(adozoo.mixing(graph(name)), RELAXATION)


def methods() -> list[adozoo.zoo.Entry]:
    """The linear ones without constants to be given, exact ones first."""
    known = (entry for entry in adozoo.zoo.entries().values() if entry.readable and entry.family != "accelerated")
    return sorted(known, key=lambda entry: (not entry.exact, entry.name))


def tuned(entry: adozoo.zoo.Entry, sigma: float) -> tuple[dict[str, float], bool]:
    """Learning rate (and SVL's gain), and whether they are those with the best certificate."""
    if entry.name == "svl":
        found = theory.bounds.svl.tune(MU, SMOOTHNESS, sigma + SLACK)
        return {"learning_rate": found.learning_rate, "integral_gain": found.integral_gain}, True
    if entry.exact:
        best = theory.tune(
            lambda mix, learning_rate: entry.build(learning_rate, mix),
            MU,
            SMOOTHNESS,
            0.0 if entry.mixings == {"complete"} else sigma,
            equal_start=entry.equal_start,
        )
        if best.certificate.rate < 1:
            return best.parameters, True
    return {"learning_rate": FALLBACK}, False


def rate(verdict: Verdict, source: str) -> float:
    """The rate of a source; NaN where the verdict has no such row."""
    return next((claim.rate for claim in verdict.claims if claim.source == source), np.nan)


def _numbers(claim: Any) -> tuple[Any, ...]:
    return claim.rate, claim.evidence, claim.verdict, claim.note


def compute(full: bool) -> xr.Dataset:
    names = list(GRAPHS if full else QUICK)
    problem = adozoo.problems.random_quadratic(N, 2, MU, SMOOTHNESS)
    cells, theorems, violations = [], [], []
    for name in names:
        mix = mixing(name)
        sigma = 1 - theory.spectral_gap(mix)
        for entry in methods():
            values, best = tuned(entry, sigma)
            verdict = theory.compare(
                built(entry, values),
                problem,
                adozoo.exact_mean(N) if entry.mixings == {"complete"} else mix,
                name=entry.name,
                learning_rate=values["learning_rate"],
                parameters={**entry.hyperparameters, **values},
            )
            fit = verdict.observation.fit
            sources = {source: rate(verdict, source) for source in (MEASURED, EXACT, CERTIFIED, LOWER)}
            reason = next((claim.note for claim in verdict.claims if claim.source == CERTIFIED), "")
            rest = (fit.uncertainty, verdict.observation.window_rate, values["learning_rate"], best, sigma)
            cells.append((*sources.values(), *rest, reason if np.isnan(sources[CERTIFIED]) else ""))
            violations += [f"{entry.name} on {name}: {text}" for text in verdict.violations]
            theorems += [
                (name, entry.name, claim.source.removeprefix(THEOREM), *_numbers(claim))
                for claim in verdict.claims
                if claim.source.startswith(THEOREM)
            ]
    return dataset(names, cells, theorems, violations)


def dataset(
    names: list[str], cells: list[tuple[Any, ...]], theorems: list[tuple[Any, ...]], violations: list[str]
) -> xr.Dataset:
    """One cell a (graph, method), one row a theorem that speaks of a cell."""
    keys = ("measured", "exact", "certified", "lower", "uncertainty", "window_rate", "learning_rate", "tuned", "sigma")
    shape = (len(names), len(methods()))
    cell = {
        key: (("graph", "algorithm"), np.reshape([float(row[k]) for row in cells], shape)) for k, key in enumerate(keys)
    }
    cell["no_certificate"] = (("graph", "algorithm"), np.reshape([row[-1] for row in cells], shape))
    columns = ("of_graph", "of_method", "theorem_name", "theorem_rate", "evidence", "theorem_verdict", "about")
    row = {key: ("theorem", list(column)) for key, column in zip(columns, zip(*theorems, strict=True), strict=True)}
    return xr.Dataset(
        cell | row,
        {"graph": names, "algorithm": [entry.name for entry in methods()]},
        {"violations": json.dumps(violations)},
    )


def steps_per_digit(rates: Any) -> np.ndarray:
    return np.vectorize(theory.verdict.steps_per_digit, otypes=[float])(rates)


def draw(data: xr.Dataset) -> figures.Figure:
    columns = 3
    rows = -(-data.sizes["graph"] // columns)
    figure, axes = figures.panels(rows, columns, (3.9, 4.1), sharex=True, sharey=True, squeeze=False)
    for axis, name in zip(axes.ravel(), data.graph.values, strict=True):
        panel(axis, data, name)
    for axis in axes[:, 0]:
        axis.set_yticks(range(data.sizes["algorithm"]), data.algorithm.values)
    axes[0, 0].set(xscale="log", xlim=(1.2, 1.6 * EDGE), ylim=(data.sizes["algorithm"] - 0.4, -0.6))
    for axis in axes[-1]:
        axis.set_xlabel("steps per digit")
        axis.set_xticks([10, 100, 1e3, 1e4, EDGE], ["10", "100", "10³", "10⁴", "never"])
        axis.minorticks_off()
    handles = [
        axes[0, 0].plot([], [], "o", color=COLORS[MEASURED], ms=6, label="measured")[0],
        axes[0, 0].plot([], [], "|", color=COLORS[EXACT], ms=10, mew=1.5, label="exact")[0],
        axes[0, 0].plot(
            [], [], "-", color=COLORS[CERTIFIED], lw=3, label="certificate: slowest known instance to bound"
        )[0],
        axes[0, 0].plot([], [], ">", color=COLORS[CERTIFIED], ms=6, label="no promise")[0],
        axes[0, 0].plot([], [], "X", color=COLORS[CERTIFIED], ms=6, label="an instance diverges")[0],
    ]
    for evidence in sorted(set(data.evidence.values[np.isfinite(data.theorem_rate.values)])):
        handles += axes[0, 0].plot([], [], ls="", label=f"theorem ({evidence})", **theorem_look(evidence))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def theorem_look(evidence: str) -> dict[str, Any]:
    filled = "white" if evidence == "recalled" else COLORS[THEOREM]
    return {"marker": EVIDENCE[evidence], "mec": COLORS[THEOREM], "mfc": filled, "ms": 5}


def panel(axis: Any, data: xr.Dataset, name: str) -> None:
    """A row a method: above measured and exact, below the certificate, at the bottom theorems."""
    here = data.sel(graph=name)
    axis.axvspan(EDGE / 1.6, EDGE * 1.6, color="0.93", lw=0)
    for row, of in enumerate(data.algorithm.values):
        cell = {key: here[key].sel(algorithm=of).item() for key in ("measured", "uncertainty", *RATES)}
        low, high = np.minimum(steps_per_digit([cell["lower"], cell["certified"]]), EDGE)
        if np.isfinite(high):
            axis.plot([low, high], [row + BELOW] * 2, color=COLORS[CERTIFIED], lw=3, solid_capstyle="butt", zorder=2)
            marker = "|" if high < EDGE else ">" if low < EDGE else "X"
            axis.plot(high, row + BELOW, marker, color=COLORS[CERTIFIED], ms=6, mew=3 if marker == "|" else 0.5)
        slowest = min(cell["measured"] + cell["uncertainty"], 1 - 1e-9)
        fast, middle, slow = steps_per_digit([cell["measured"] - cell["uncertainty"], cell["measured"], slowest])
        spread = [[middle - fast], [slow - middle]]
        axis.errorbar(middle, row - ABOVE, xerr=spread, fmt="o", color=COLORS[MEASURED], ms=6, elinewidth=1.5)
        axis.plot(steps_per_digit(cell["exact"]), row - ABOVE, "|", color=COLORS[EXACT], ms=10, mew=1.5, zorder=5)
    told = data.isel(theorem=np.flatnonzero((data.of_graph == name) & np.isfinite(data.theorem_rate)))
    for of, value, evidence in zip(told.of_method.values, told.theorem_rate.values, told.evidence.values, strict=True):
        row = list(data.algorithm.values).index(of)
        axis.plot(min(steps_per_digit(value), EDGE), row + LOWEST, zorder=4, **theorem_look(evidence))
    axis.set_title(f"{GRAPHS[name]}, $\\sigma$ = {here.sigma.values[0]:.3g}")


MULTIPLE = "steps they ask for, as a multiple of the exact number (smallest, median, largest)"


def spread(values: np.ndarray) -> list[float]:
    return [float(of(values)) for of in (np.nanmin, np.nanmedian, np.nanmax)]


def judge(data: xr.Dataset) -> list[figures.Claim]:
    return [measured_is_exact(data), run_moves_as_linearised(data), *certificates_hold(data), *theorems_hold(data)]


def exponent_gap(data: xr.Dataset, other: str) -> xr.DataArray:
    """Relative difference of ln(rate), measured and another."""
    return abs(np.log(data.measured) / np.log(data[other]) - 1)


def cell_names(data: xr.Dataset, where: xr.DataArray) -> list[str]:
    pairs = np.argwhere(where.transpose("graph", "algorithm").values)
    return [f"{data.algorithm.values[m]} on {data.graph.values[g]}" for g, m in pairs]


def measured_is_exact(data: xr.Dataset) -> figures.Claim:
    gap, fitted = exponent_gap(data, "exact"), np.isfinite(data.measured)
    close = (abs(data.measured - data.exact) <= data.uncertainty) | (gap <= AGREEMENT)
    return figures.Claim(
        "the measured rate is the exact one within the fit's uncertainty, everywhere",
        bool(close.where(fitted, True).all()),
        {
            "pairs of method and graph": close.size,
            "agree": int(close.sum()),
            "over before a rate could be fitted": cell_names(data, ~fitted),
            "median relative difference of ln(rate)": float(gap.median()),
            "largest": float(gap.max()),
            "apart (the fitted steps do not show the slowest mode alone)": cell_names(data, ~close & fitted),
        },
    )


def run_moves_as_linearised(data: xr.Dataset) -> figures.Claim:
    gap = exponent_gap(data, "window_rate")
    return figures.Claim(
        "followed over the fitted steps themselves, the linearisation gives the measured rate, everywhere",
        bool(gap.max() <= AGREEMENT),
        {"pairs of method and graph": int(gap.count()), "largest relative difference of ln(rate)": float(gap.max())},
    )


def certificates_hold(data: xr.Dataset) -> list[figures.Claim]:
    ratio = data.certified - data.exact
    promised = data.certified < 1
    tight = (np.log(data.exact) / np.log(data.certified)).where(promised)
    bracket = (data.certified - data.lower).where(promised)
    has = np.isfinite(data.certified)
    reach = {
        str(of): int(promised.sel(algorithm=of).sum()) for of in data.algorithm.values if has.sel(algorithm=of).any()
    }
    reasons: dict[str, list[str]] = {}
    for of in data.algorithm.values[~has.any("graph").values]:
        said = str(data.no_certificate.sel(algorithm=of).values[0]).split(": ")[-1].partition(" (defect")[0]
        reasons.setdefault(said, []).append(str(of))
    inexact = [entry.name for entry in methods() if not entry.exact]
    return [
        figures.Claim(
            "no certified rate lies below the exact one, and no known instance above its certificate",
            bool((ratio.where(has, 0) >= -SLACK).all() and (data.lower - data.certified).where(has, 0).max() <= SLACK),
            {
                "certificates": int(has.sum()),
                "that promise convergence": int(promised.sum()),
                MULTIPLE: spread(tight.values),
                "widest bracket among them": float(bracket.max()),
            },
        ),
        figures.Claim(
            "the methods without certificates are the inexact ones, and every exact one is certified to converge on "
            "some graph",
            set(itertools.chain(*reasons.values())) == set(inexact) and min(reach.values()) > 0,
            {"graphs with a promise": "; ".join(f"{of} {count}" for of, count in reach.items())} | reasons,
        ),
    ]


def theorems_hold(data: xr.Dataset) -> list[figures.Claim]:
    places = {"graph": data.of_graph, "algorithm": data.of_method}
    exact, found = data.exact.sel(places).values, data.theorem_rate.values
    names, evidence, speaks = data.theorem_name.values, data.evidence.values, np.isfinite(found)
    bad = speaks & (data.theorem_verdict.values == "VIOLATED")
    tight = np.log(exact) / np.log(np.where(found < 1, found, np.nan))
    numbers: dict[str, Any] = {}
    for kind in sorted(set(evidence)):
        of_kind = evidence == kind
        numbers[f"{kind}: stated, conditions met, violated"] = [int((of_kind & x).sum()) for x in (True, speaks, bad)]
    numbers[MULTIPLE] = spread(tight)
    numbers["median by theorem"] = "; ".join(
        f"{name} {np.nanmedian(tight[names == name]):.2f}" for name in sorted(set(names[np.isfinite(tight)]))
    )
    silent = {
        of: sorted(set(data.about.values[data.of_method.values == of])) or "no theorem on its rate is known here"
        for of in map(str, data.algorithm.values)
        if not (speaks & (data.of_method.values == of)).any()
    }
    return [
        figures.Claim("no theorem whose conditions are met is violated", not bad.any(), numbers),
        figures.Claim("every method has a theorem whose conditions are met on some graph", not silent, silent),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
