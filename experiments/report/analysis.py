"""What the report says in numbers: from a benchmark's dataset to a `Section` per task, an `Overall` per cluster.

Conventions, which the report repeats to its reader:

- The score of a trial is its best validation value over all records, and the test value *at that record* is what
  counts. (The published protocol's code takes the test metric's own best over time.)
- A trial that diverged is the worst of all, whatever it had reached before. Where it must count as a number, that is
  the worst finite test score of any method on this task and cluster.
- A suboptimality f - f* below zero is rounding, and so is one of the same size above: the size of the most negative one
  found on a task is the `resolution`, to which all smaller ones are raised. They tie.
- A tuned method is the configuration that won, run anew with other seeds: its mean over these repeats is ranked.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from experiments import ranking, tunability
from experiments.ranking import Interval

AXES = ("steps", "bits", "seconds", "joules")
"""What a run costs."""
FLOOR = 1e-12
"""Losses below it count as it in relative performances, so that a method that reached 0 does not make all others 0."""
_VALUES = ("validation", "test", "final_validation", "final_test")
NOTHING = Interval(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Row:
    """One method on one task and cluster.

    Attributes:
      method: its name.
      reason: why it does not apply; "" if it ran.
      expected: expected test value of the incumbent, without replacement, at all budgets 1, ..., K.
      estimators: the other estimators of that, by name, at all budgets.
      scores: test value of each trial, NaN where it diverged.
      finals: test value of each repeat of the tuned method, NaN where it diverged.
      final: their mean.
      rank: among the methods that ran.
      ends: steps, bits, seconds and joules at the end of a repeat, on average.
      diverged: how many trials diverged.
      trials: how many there were.
    """

    method: str
    reason: str
    expected: Interval = NOTHING
    estimators: dict[str, np.ndarray] | None = None
    scores: np.ndarray | None = None
    finals: np.ndarray | None = None
    final: Interval = NOTHING
    rank: Interval = NOTHING
    ends: dict[str, float] | None = None
    diverged: int = 0
    trials: int = 0


@dataclass(frozen=True)
class Section:
    """One task on one cluster.

    Attributes:
      task, cluster, metric, better: as in the dataset.
      worst: what a diverged trial counts as.
      resolution: suboptimalities below it are raised to it; -inf where nothing is.
      rows: methods that ran, best rank first.
      left_out: those that do not apply.
    """

    task: str
    cluster: str
    metric: str
    better: str
    worst: float
    resolution: float
    rows: list[Row]
    left_out: list[Row]


@dataclass(frozen=True)
class Overall:
    """All tasks on one cluster.

    Attributes:
      cluster: its name.
      methods: those that ran on any task, best first.
      ranks: mean rank over tasks, each [methods]; NaN for methods that did not run on all of them.
      relative: relative performance S(method, k), [methods, budgets].
      wins: win probability, mean over tasks, [budgets, methods].
      tasks: on how many tasks each method ran.
      friedman: statistic and p-value, or None for too few tasks or methods.
      critical: Nemenyi's critical difference of mean ranks, likewise.
    """

    cluster: str
    methods: list[str]
    ranks: Interval
    relative: np.ndarray
    wins: np.ndarray
    tasks: np.ndarray
    friedman: tuple[float, float] | None
    critical: float | None


def shown_budgets(trials: int) -> list[int]:
    """1, 4, 16 and all.

    Example:
      >>> shown_budgets(8), shown_budgets(100)
      ([1, 4, 8], [1, 4, 16, 100])
    """
    return [k for k in (1, 4, 16) if k < trials] + [trials]


def scores(validation: Any, test: Any, diverged: Any, better: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best validation value of each run, the test value at that record, and which record it is.

    Args:
      validation: [runs, records], NaN after the end.
      test: [runs, records].
      diverged: step at which a run diverged, -1 if never, [runs].
      better: "max" or "min".

    Returns:
      validation [runs] and test [runs], NaN for runs that diverged or have no value at all; the record [runs].

    Example:
      >>> scores([[0.3, 0.5], [0.9, 0.1]], [[0.4, 0.2], [0.8, 0.7]], [-1, 7], "max")
      (array([0.5, nan]), array([0.2, nan]), array([1, 0]))
    """
    validation, test = np.asarray(validation, np.float64), np.asarray(test, np.float64)
    ranked, _ = tunability.selection(validation, test, better)
    record = ranked.argmax(axis=1)
    lost = (np.asarray(diverged) >= 0) | (ranked.max(axis=1) == -np.inf)
    chosen = [
        np.where(lost, np.nan, np.take_along_axis(array, record[:, None], 1)[:, 0]) for array in (validation, test)
    ]
    return chosen[0], chosen[1], record


def last(values: Any) -> np.ndarray:
    """The last finite value of each row; NaN if there is none.

    Example:
      >>> last([[1.0, 2.0, np.nan], [np.nan, np.nan, np.nan]])
      array([ 2., nan])
    """
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    end = values.shape[1] - 1 - finite[:, ::-1].argmax(axis=1)
    return np.where(finite.any(axis=1), np.take_along_axis(values, end[:, None], 1)[:, 0], np.nan)


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else np.nan


def _finals(cell: xr.Dataset, better: str, tuned: float) -> np.ndarray:
    """The score of each repeat; where a suite asks for none, that of the tuned trial stands in."""
    if not cell.sizes.get("repeat", 0):
        return np.array([tuned])
    return scores(cell.final_validation.values, cell.final_test.values, cell.final_diverged.values, better)[1]


def resolution(data: xr.Dataset, task: str, cluster: str) -> float:
    """Size of the rounding errors of f - f* on this task; -inf for other metrics, and where there is no sign of them.

    Args:
      data: a benchmark's dataset.
      task: one of its tasks.
      cluster: one of its clusters.
    """
    here = data.sel(task=task, cluster=cluster)
    if str(here.metric.values) != "suboptimality":
        return -np.inf
    values = np.concatenate([here[name].values.ravel() for name in _VALUES])
    lowest = values[np.isfinite(values)].min(initial=0.0)
    return float(-lowest) if lowest < 0 else -np.inf


def section(data: xr.Dataset, task: str, cluster: str) -> Section:
    """All that is said of one task on one cluster.

    Args:
      data: a benchmark's dataset.
      task: one of its tasks.
      cluster: one of its clusters.
    """
    here = data.sel(task=task, cluster=cluster).transpose("method", "trial", "repeat", "record", missing_dims="ignore")
    better, least = str(here.better.values), resolution(data, task, cluster)
    here = here.assign({name: here[name].clip(min=least) for name in _VALUES})
    names = [str(name) for name in here.method.values]
    left_out = [Row(name, str(why)) for name, why in zip(names, here.reason.values, strict=True) if str(why)]
    running = [name for name in names if name not in {row.method for row in left_out}]
    tried = {
        name: scores(cell.validation.values, cell.test.values, cell.diverged.values, better)[:2]
        for name in running
        for cell in [here.sel({"method": name})]
    }
    finite = np.concatenate([test[np.isfinite(test)] for _, test in tried.values()] or [np.empty(0)])
    worst = float(finite.min() if better == "max" else finite.max()) if finite.size else np.nan
    rows = []
    for name in running:
        cell, (validation, test) = here.sel({"method": name}), tried[name]
        rows.append(
            Row(
                name,
                "",
                ranking.incumbent_interval(validation, test, better, diverged=worst),
                {
                    "incumbent with replacement": tunability.expected_incumbent(validation, test, better, True, worst),
                    "best with replacement": tunability.expected_best_with_replacement(test, better, worst),
                    "best without replacement": tunability.expected_best_without_replacement(test, better, worst),
                },
                test,
                finals := _finals(cell, better, float(tunability.incumbents(validation, test, better)[1][-1])),
                ranking.bootstrap(finals),
                ends={
                    axis: _mean(last(cell[f"final_{axis}"].values)) if cell.sizes["repeat"] else np.nan for axis in AXES
                },
                diverged=int(np.isnan(test).sum()),
                trials=len(test),
            )
        )
    if rows:
        ranks = ranking.mean_ranks([[row.finals for row in rows]], [better])[1][0]
        rows = [replace(row, rank=Interval(*(end[i] for end in ranks))) for i, row in enumerate(rows)]
    order = sorted(rows, key=lambda row: (row.rank.value, row.method))
    return Section(task, cluster, str(here.metric.values), better, worst, least, order, left_out)


def overall(sections: list[Section]) -> Overall:
    """All tasks on one cluster together; see `Overall`.

    Args:
      sections: one a task, of one cluster.
    """
    by_task = [{row.method: row for row in part.rows} for part in sections]
    names = sorted(set().union(*by_task))
    complete = [name for name in names if all(name in rows for rows in by_task)]
    better = [part.better for part in sections]
    trials = max((row.trials for rows in by_task for row in rows.values()), default=1)
    expected = np.full((len(names), len(sections), trials), np.nan)
    wins = np.zeros((trials, len(names)))
    for place, rows in enumerate(by_task):
        there = [i for i, name in enumerate(names) if name in rows]
        if not there:
            continue
        for i in there:
            expected[i, place] = rows[names[i]].expected.value
        values = np.stack([rows[names[i]].scores for i in there])  # type: ignore[arg-type]
        wins[:, there] += ranking.win_probability(values, better[place]) / len(sections)
    ranks = Interval(*(np.full(len(names), np.nan) for _ in range(3)))
    test, critical = None, None
    if complete:
        found, per_task = ranking.mean_ranks([[rows[name].finals for name in complete] for rows in by_task], better)
        for whole, part in zip(ranks, found, strict=True):
            whole[[names.index(name) for name in complete]] = part
        if len(sections) > 1 and len(complete) > 2:
            test = ranking.friedman([task.value for task in per_task])
            critical = ranking.critical_difference(len(complete), len(sections))
    relative = tunability.relative_performance(expected, better, FLOOR)
    tasks = np.array([sum(name in rows for rows in by_task) for name in names])
    order = sorted(range(len(names)), key=lambda i: (np.isnan(ranks.value[i]), ranks.value[i], -relative[i, -1]))
    return Overall(
        sections[0].cluster,
        [names[i] for i in order],
        Interval(*(end[order] for end in ranks)),
        relative[order],
        wins[:, order],
        tasks[order],
        test,
        critical,
    )
