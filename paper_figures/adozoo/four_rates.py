r"""Four rates of one method: measured, exact, certified, proved, for every linear method of the zoo on six graphs.

One random heterogeneous quadratic problem (16 nodes, two dimensions, mu = 0.2, L = 1), one picture row a method. All
four numbers come from the transformation that runs (`theory.compare`): the rate fitted to a run, the spectral radius of
its linearisation, the certificate over all mu-convex L-smooth functions and all time-varying graphs with
||W_t - 11'/n|| <= sigma, as a bracket from the slowest known instance to the certified rate, and the theorems whose
conditions are met. Rates are drawn as steps per digit, ln 10 / -ln rate, so that a bound twice as far right asks for
twice as many steps.

Weights are W = I + 0.6 (M - I) with Metropolis weights M, since D2 needs eigenvalues above -1/3; all methods get the
same. Step sizes: what a user of certificates would take, the one with the best certified rate for the graph's sigma
(`theory.tune`), and 1 / (2 L) where no step size is certified to converge. Which is which, the data set says.
"""

import json
from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import xarray as xr

import adozoo
import theory
from experiments import figures
from theory.compare import compare_all
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
"""Markers of theorems: derived here, checked numerically, recalled (drawn hollow)."""
EDGE = 1.6e5
"""Where "never" is drawn, in steps per digit."""


def graph(name: str) -> nx.Graph:
    return nx.gnp_random_graph(N, 0.3, seed=2) if name == "random" else adozoo.graphs.parse(name)


def mixing(name: str) -> adozoo.Mixing:
    return adozoo.relaxed(adozoo.mixing(graph(name)), RELAXATION)


def methods() -> list[adozoo.zoo.Entry]:
    """The linear ones, exact ones first."""
    known = (entry for entry in adozoo.zoo.entries().values() if entry.linear)
    return sorted(known, key=lambda entry: (not entry.exact, entry.name))


def step_size(entry: adozoo.zoo.Entry, sigma: float) -> tuple[float, bool]:
    """The step size, and whether it is the one with the best certificate."""
    if not entry.exact:
        return FALLBACK, False
    tuned = theory.tune(
        lambda mix, learning_rate: entry.build(learning_rate, mix),
        MU,
        SMOOTHNESS,
        0.0 if entry.mixings == {"complete"} else sigma,
        equal_start=entry.equal_start,
    )
    return (tuned.parameters["learning_rate"], True) if tuned.certificate.rate < 1 else (FALLBACK, False)


def rate(verdict: Verdict, source: str) -> float:
    """The rate of a source; NaN where the verdict has no such row."""
    return next((claim.rate for claim in verdict.claims if claim.source == source), np.nan)


def compute(full: bool) -> xr.Dataset:
    names = list(GRAPHS if full else QUICK)
    problem = adozoo.problems.random_quadratic(N, 2, MU, SMOOTHNESS)
    cells, theorems, violations = [], [], []
    for name in names:
        mix = mixing(name)
        sigma = 1 - theory.spectral_gap(mix)
        for entry in methods():
            step, tuned = step_size(entry, sigma)
            verdict = compare_all([entry.name], problem, mix, step)[0]
            fit = verdict.observation.fit
            sources = {source: rate(verdict, source) for source in (MEASURED, EXACT, CERTIFIED, LOWER)}
            reason = next((claim.note for claim in verdict.claims if claim.source == CERTIFIED), "")
            rest = (fit.uncertainty, verdict.observation.window_rate, step, tuned, sigma)
            cells.append((*sources.values(), *rest, reason if np.isnan(sources[CERTIFIED]) else ""))
            violations += [f"{entry.name} on {name}: {text}" for text in verdict.violations]
            theorems += [
                (name, entry.name, claim.source.removeprefix(THEOREM), claim.rate, claim.evidence, claim.verdict)
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
        key: (("graph", "method"), np.reshape([float(row[k]) for row in cells], shape)) for k, key in enumerate(keys)
    }
    cell["no_certificate"] = (("graph", "method"), np.reshape([row[-1] for row in cells], shape))
    columns = ("of_graph", "of_method", "theorem_name", "theorem_rate", "evidence", "theorem_verdict")
    row = {key: ("theorem", list(column)) for key, column in zip(columns, zip(*theorems, strict=True), strict=True)}
    return xr.Dataset(
        cell | row,
        {"graph": names, "method": [entry.name for entry in methods()]},
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
        axis.set_yticks(range(data.sizes["method"]), data.method.values)
    axes[0, 0].set(xscale="log", xlim=(3, 1.4 * EDGE), ylim=(data.sizes["method"] - 0.4, -0.6))
    for axis in axes[-1]:
        axis.set_xlabel("steps per digit")
        axis.set_xticks([10, 100, 1e3, 1e4, EDGE], ["10", "100", "10³", "10⁴", "never"])
        axis.minorticks_off()
    legend(figure)
    return figure


def panel(axis: Any, data: xr.Dataset, name: str) -> None:
    here = data.sel(graph=name)
    axis.axvspan(EDGE / 1.6, EDGE * 1.4, color="0.93", lw=0)
    for place, of in enumerate(data.method.values):
        cell = here.sel(method=of)
        low, high = np.minimum(steps_per_digit([cell.lower, cell.certified]), EDGE)
        if np.isfinite(high):
            axis.plot([low, high], [place, place], color=COLORS[CERTIFIED], lw=3.5, solid_capstyle="butt", zorder=2)
            axis.plot(high, place, ">" if high == EDGE else "|", color=COLORS[CERTIFIED], ms=6, mew=2.5, zorder=2)
        measured, uncertainty = float(cell.measured), float(cell.uncertainty)
        ends = steps_per_digit([measured - uncertainty, measured, min(measured + uncertainty, 1 - 1e-9)])
        spread = [[ends[1] - ends[0]], [ends[2] - ends[1]]]
        axis.errorbar(ends[1], place, xerr=spread, fmt="o", color=COLORS[MEASURED], ms=7, elinewidth=1.5, zorder=3)
        axis.plot(steps_per_digit(cell.exact), place, "|", color=COLORS[EXACT], ms=11, mew=1.5, zorder=5)
    told = data.isel(theorem=np.flatnonzero((data.of_graph == name) & np.isfinite(data.theorem_rate)))
    for of, value, evidence in zip(told.of_method.values, told.theorem_rate.values, told.evidence.values, strict=True):
        filled = COLORS[THEOREM] if evidence != "recalled" else "white"
        place, style = list(data.method.values).index(of), {"mec": COLORS[THEOREM], "mfc": filled}
        axis.plot(min(steps_per_digit(value), EDGE), place, EVIDENCE[evidence], ms=5, ls="", zorder=4, **style)
    axis.set_title(f"{GRAPHS[name]}, $\\sigma$ = {float(here.sigma[0]):.3g}")


def legend(figure: figures.Figure) -> None:
    axis = figure.axes[0]
    handles = [
        axis.plot([], [], "o", color=COLORS[MEASURED], ms=7, label="measured")[0],
        axis.plot([], [], "|", color=COLORS[EXACT], ms=11, mew=1.5, label="exact")[0],
        axis.plot([], [], color=COLORS[CERTIFIED], lw=3.5, label="certificate, from slowest known instance to bound")[0],
    ]
    for evidence, marker in EVIDENCE.items():
        filled = COLORS[THEOREM] if evidence != "recalled" else "white"
        style = {"mec": COLORS[THEOREM], "mfc": filled}
        handles += axis.plot([], [], marker, ls="", ms=5, label=f"theorem, {evidence}", **style)
    figure.legend(handles=handles, loc="outside lower center", ncols=6)


def judge(data: xr.Dataset) -> list[figures.Claim]:
    return [measured_is_exact(data), run_moves_as_linearised(data), *certificates_hold(data), *theorems_hold(data)]


def exponent_gap(data: xr.Dataset, other: str) -> xr.DataArray:
    """Relative difference of ln(rate), measured and another."""
    return abs(np.log(data.measured) / np.log(data[other]) - 1)


def cell_names(data: xr.Dataset, where: xr.DataArray) -> list[str]:
    pairs = np.argwhere(where.transpose("graph", "method").values)
    return [f"{data.method.values[m]} on {data.graph.values[g]}" for g, m in pairs]


def measured_is_exact(data: xr.Dataset) -> figures.Claim:
    gap = exponent_gap(data, "exact")
    close = (abs(data.measured - data.exact) <= data.uncertainty) | (gap <= AGREEMENT)
    return figures.Claim(
        "the measured rate is the exact one within the fit's uncertainty, everywhere",
        bool(close.all()),
        {
            "pairs of method and graph": close.size,
            "agree": int(close.sum()),
            "median relative difference of ln(rate)": float(gap.median()),
            "largest": float(gap.max()),
            "apart (the window does not show the slowest mode alone)": cell_names(data, ~close),
        },
    )


def run_moves_as_linearised(data: xr.Dataset) -> figures.Claim:
    gap = exponent_gap(data, "window_rate")
    return figures.Claim(
        "followed over the fitted steps themselves, the linearisation gives the measured rate, everywhere",
        bool((gap <= AGREEMENT).all()),
        {"largest relative difference of ln(rate)": float(gap.max())},
    )


def certificates_hold(data: xr.Dataset) -> list[figures.Claim]:
    ratio = data.certified - data.exact
    promised = data.certified < 1
    tight = (np.log(data.exact) / np.log(data.certified)).where(promised)
    bracket = (data.certified - data.lower).where(promised)
    has = np.isfinite(data.certified)
    # Methods are named with the graphs on which some step size is certified to converge.
    reach = {str(of): int(promised.sel(method=of).sum()) for of in data.method.values if has.sel(method=of).any()}
    reasons = {
        str(of): str(data.no_certificate.sel(method=of).values[0]).removeprefix("worst_case_rate: ")
        for of in data.method.values
        if not has.sel(method=of).any()
    }
    inexact = [entry.name for entry in methods() if not entry.exact]
    return [
        figures.Claim(
            "no certified rate lies below the exact one, and no known instance above its certificate",
            bool((ratio.where(has, 0) >= -SLACK).all() and (data.lower - data.certified).where(has, 0).max() <= SLACK),
            {
                "certificates": int(has.sum()),
                "that promise convergence": int(promised.sum()),
                "steps they ask for, as a multiple of the exact number (smallest, median, largest)": [
                    float(tight.min()),
                    float(tight.median()),
                    float(tight.max()),
                ],
                "widest bracket among them": float(bracket.max()),
            },
        ),
        figures.Claim(
            "the methods without certificates are the inexact ones, and every exact one is certified to converge on "
            "some graph",
            sorted(reasons) == sorted(inexact) and min(reach.values()) > 0,
            {"graphs with a promise": "; ".join(f"{of} {count}" for of, count in reach.items())} | reasons,
        ),
    ]


def theorems_hold(data: xr.Dataset) -> list[figures.Claim]:
    claims = []
    exact = np.array(
        [
            data.exact.sel(graph=g, method=m).item()
            for g, m in zip(data.of_graph.values, data.of_method.values, strict=True)
        ]
    )
    found, evidence, verdict = data.theorem_rate.values, data.evidence.values, data.theorem_verdict.values
    speaks = np.isfinite(found)
    for kinds in (("derived", "checked"), ("recalled",)):
        among = speaks & np.isin(evidence, kinds)
        bound = among & (found < 1)
        tight = np.log(exact[bound]) / np.log(found[bound])
        bad = among & (verdict == "VIOLATED")
        name = " or ".join(kinds)
        claims.append(
            figures.Claim(
                f"no theorem that is {name} is violated",
                bool(not bad.any()) if among.any() else None,
                {
                    "stated": int(np.isin(evidence, kinds).sum()),
                    "of these, with their conditions met": int(among.sum()),
                    "steps they ask for, as a multiple of the exact number (smallest, median, largest)": [
                        float(tight.min()),
                        float(np.median(tight)),
                        float(tight.max()),
                    ]
                    if tight.size
                    else [],
                    "violated": sorted(set(data.theorem_name.values[bad])),
                },
            )
        )
    spoken = {str(of) for of in data.of_method.values[speaks]}
    claims.append(
        figures.Claim(
            "every method has a theorem whose condition is met somewhere",
            all(of in spoken for of in data.method.values),
            {"without": [str(of) for of in data.method.values if of not in spoken]},
        )
    )
    return claims


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
