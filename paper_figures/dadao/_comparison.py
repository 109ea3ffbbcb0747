"""What the two comparisons of DADAO share: data, panels of errors over costs, and claims about ratios of costs."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from experiments import figures
from paper_figures.dadao._methods import ADOM, CONSENSUS, METHODS, RECORDS, Curves, cost

TARGETS = (1e-4, 1e-8)
COSTS = ("gradients", "communications")
STYLES = {"least squares": "-", "logistic": ":"}
RIVALS = dict(zip(("the authors' chi", "the smallest chi"), zip(ADOM, CONSENSUS, strict=True), strict=True))
"""ADOM+ without and with multi-consensus, by the chi that it is given."""
SHOWN = 3
"""How many runs are drawn."""


def dataset(found: Mapping[tuple[str, str, str], Curves], runs: int) -> xr.Dataset:
    """Curves by (case, task, method) as one data set; nan where a method was not run."""
    cases, tasks = (list(dict.fromkeys(key[place] for key in found)) for place in (0, 1))
    methods = [name for name in METHODS if any(key[2] == name for key in found)]
    dims = ("case", "task", "algorithm", "run", "record")
    coords = {"case": cases, "task": tasks, "algorithm": methods}
    empty = np.full((len(cases), len(tasks), len(methods), runs, 1 + RECORDS), np.nan)
    data = xr.Dataset({name: (dims, empty.copy()) for name in Curves._fields}, coords)
    for (case, task, method), curves in found.items():
        for name, values in zip(Curves._fields, curves, strict=True):
            data[name].loc[{"case": case, "task": task, "algorithm": method}] = values
    return data


def costs(data: xr.Dataset, what: str, target: float) -> xr.DataArray:
    """What each run had spent when its error was first at most the target; nan where there is no run."""
    return xr.apply_ufunc(
        lambda error, spent: cost(error, spent, target),
        data.error,
        data[what],
        input_core_dims=[["record"], ["record"]],
        vectorize=True,
    )


def ran(data: xr.Dataset) -> xr.DataArray:
    return data.error.notnull().any("record")


def show(axis: Any, data: xr.Dataset, case: str, what: str) -> None:
    """Errors of a case over a cost: a colour for each method, a style for each task, a line for each run."""
    for name in map(str, data.algorithm.values):
        for task in map(str, data.task.values):
            runs = data.sel(case=case, task=task, algorithm=name).isel(run=slice(SHOWN))
            look = {"color": figures.PALETTE[METHODS[name][1]], "ls": STYLES[task]}
            axis.plot(runs[what].T, runs.error.T, lw=1, **look)
    reached = costs(data.sel(case=case), what, TARGETS[-1])
    axis.set(xscale="log", yscale="log", ylim=(TARGETS[-1], 10))
    axis.set_xlim(float(reached.min()) / 20, float(reached.max()) * 1.5)
    axis.set_yticks([1, 1e-2, 1e-4, 1e-6, 1e-8])
    axis.minorticks_off()


def legend(figure: figures.Figure, axis: Any, data: xr.Dataset) -> None:
    for name in map(str, data.algorithm.values):
        axis.plot([], [], color=figures.PALETTE[METHODS[name][1]], label=METHODS[name][0])
    for task in map(str, data.task.values):
        axis.plot([], [], color="0.4", ls=STYLES[task], label=task)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=int(figure.get_figwidth() / 2.2))


def spending(data: xr.Dataset, target: float) -> dict[str, Any]:
    """By case and task, each method's gradients and exchanges up to the target, means over runs."""
    spent = xr.concat([costs(data, what, target).mean("run") for what in COSTS], xr.Variable("what", list(COSTS)))
    found: dict[str, Any] = {}
    for case, task in itertools.product(map(str, data.case.values), map(str, data.task.values)):
        pairs = spent.sel(case=case, task=task).dropna("algorithm").round().astype(int)
        if pairs.size:
            names = [METHODS[str(name)][0] for name in pairs.algorithm.values]
            found[f"{case}, {task}, gradients and exchanges to {target:g}"] = dict(
                zip(names, pairs.transpose("algorithm", "what").values.tolist(), strict=True)
            )
    return found


def advantages(data: xr.Dataset, what: str, rivals: Sequence[str]) -> xr.DataArray:
    """Costs of rivals over DADAO's, [target, case, task, method, run]; nan where either was not run.

    Raises:
        ValueError: for runs that do not reach the targets.
    """
    spent = xr.concat([costs(data, what, target) for target in TARGETS], xr.Variable("target", list(TARGETS)))
    short = ran(data) & spent.isnull()
    if short.any():
        at = [{name: where[name].item() for name in ("case", "task", "algorithm", "run")} for where in _cells(short)]
        raise ValueError(f"runs end before their errors are {TARGETS[-1]:g}: {at[:4]}. Make them longer.")
    return spent.reindex(algorithm=list(rivals)) / spent.sel(algorithm="dadao", drop=True)


def _cells(mask: xr.DataArray) -> list[xr.DataArray]:
    flat = mask.stack(cell=mask.dims)
    return [flat[number] for number in np.flatnonzero(flat.values)]


def extremes(ratios: xr.DataArray) -> dict[str, Any]:
    """The smallest and the largest of all runs and targets, by case."""
    return {
        f"{METHODS[str(name)][0]} / DADAO, {case}": (round(float(row.min()), 3), round(float(row.max()), 3))
        for name in ratios.algorithm.values
        for case in map(str, ratios.case.values)
        if (row := ratios.sel(algorithm=name, case=case)).notnull().any()
    }


def never_above(data: xr.Dataset) -> figures.Claim:
    ratios = advantages(data, "communications", (*ADOM, *CONSENSUS))
    return figures.Claim(
        "DADAO never makes more exchanges than ADOM+, with or without multi-consensus, with the authors' chi or the "
        "smallest: on every graph, task and draw, to errors of 1e-4 and of 1e-8",
        bool(ratios.min() >= 1),
        {"comparisons": int(ratios.count()), "smallest ratio": float(ratios.min()), "largest": float(ratios.max())}
        | spending(data, TARGETS[0]),
    )


def a_fifth(data: xr.Dataset) -> list[figures.Claim]:
    found = {given: advantages(data, "communications", rivals) for given, rivals in RIVALS.items()}
    return [
        figures.Claim(
            f"DADAO makes at most a fifth of ADOM+'s exchanges, with or without multi-consensus, given {given}",
            bool(ratios.min() >= 5),
            extremes(ratios),
        )
        for given, ratios in found.items()
    ]


def fewer_gradients(data: xr.Dataset, but: str | None = None) -> list[figures.Claim]:
    """`but` is the case in which DADAO takes more."""
    found = {given: advantages(data, "gradients", rivals) for given, rivals in RIVALS.items()}
    where = "on every graph" if but is None else f"on every graph but {but}, and more there"
    return [
        figures.Claim(
            f"DADAO takes fewer gradients than ADOM+, with or without multi-consensus, given {given}, {where}",
            bool(ratios.drop_sel(case=but or []).min() > 1) and (but is None or bool(ratios.sel(case=but).max() < 1)),
            extremes(ratios),
        )
        for given, ratios in found.items()
    ]
