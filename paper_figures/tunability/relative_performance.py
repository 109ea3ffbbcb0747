r"""Optimiser benchmarks with the cost of tuning (Sivaprasad et al., ICML 2020), reduced: who is best after k trials?

Seven optimisers, each with 30 random configurations (`--full`: 100) from its published prior, on four small tasks: a
random quadratic (20 dimensions, condition number 50, gradient noise), logistic regression and a network 64-32-10 on
digits, a network 30-32-2 on breast cancer. Left: relative performance S(o, k), the mean over tasks of the expected test
value of the incumbent after k trials, relative to the best optimiser's (bands, of two: 95 % of bootstrap samples of the
trials). Middle: the probability that an optimiser has the best test value of all when each has had k trials, mean over
tasks. Right: omega-tunability of S, by the weights of the budgets.

As in the paper trials are drawn at random, validation selects, and test counts. What differs: a trial is judged where
its validation value is best (the authors' code takes the best test value of any epoch), trials are drawn without
replacement (theirs with), and four tasks of seconds stand in for nine of hours, with constant learning rates, 200
steps and batches of 32. What diverged counts as a guess at random, of the quadratic as the start; the quadratic's
suboptimality is measured in that of the start, and below 1 % of it counts as 1 %. The priors were fitted to the
paper's tasks, not to these. The paper's numbers could not be recovered from its figures; its claims are as recalled.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from experiments import figures, priors, ranking, runs, sweeps, tasks, tunability
from experiments.priors import Fixed, Prior
from experiments.settings import Run

EARLY = 4
"""Budgets up to this one are low."""
FLOOR = 0.01
COMPARED = ("adam_lr", "sgd_mw")
"""The two that the paper compares, and whose bands are drawn."""
SCHEMES = {"one_shot": "k = 1", "cpe": "early", "cpu": "uniform", "cpl": "late", "peak": "k = K"}
TASKS = ("synthetic/quadratic:1.0", "digits/logistic", "digits/mlp:32", "breast_cancer/mlp:32")
SGD = "mean_sgd_momentum_decay"


class Optimiser(NamedTuple):
    """Title, method, which published priors it has, and its colour."""

    title: str
    method: str
    prior: str
    color: str


OPTIMISERS = {
    "adam_lr": Optimiser("Adam, learning rate only", "mean_adam", "adam_learning_rate", "red"),
    "adam": Optimiser("Adam, all four", "mean_adam", "adam", "orange"),
    "sgd_mw": Optimiser("SGD, momentum and decay tuned", SGD, "sgd_momentum_decay", "blue"),
    "sgd_m": Optimiser("SGD, momentum tuned", SGD, "sgd_momentum", "sky"),
    "sgd_mc": Optimiser("SGD, momentum 0.9", SGD, "sgd_constant_momentum", "green"),
    "sgd": Optimiser("SGD", SGD, "sgd", "grey"),
    "adagrad": Optimiser("Adagrad", "mean_adagrad", "adagrad", "yellow"),
}


def compute(full: bool) -> xr.Dataset:
    return measured(TASKS, trials=100 if full else 30, steps=200)


def searched(name: str) -> dict[str, Prior]:
    """Priors of everything that an optimiser has: what it does not tune is fixed, so that relatives share a program."""
    one = OPTIMISERS[name]
    off: dict[str, Prior] = {"momentum": Fixed(0.0), "weight_decay": Fixed(0.0)} if one.method == SGD else {}
    if one.method == "mean_adam":
        off = {"b1": Fixed(0.9), "b2": Fixed(0.999), "eps": Fixed(1e-8)}
    return {**off, **priors.PUBLISHED[one.prior].priors}


def base(task: str, name: str, steps: int, records: int = 10) -> Run:
    """A run on one node, or two where the task needs them: exact averages make them one."""
    nodes = 2 if task.startswith("synthetic") else 1
    return Run(task, OPTIMISERS[name].method, nodes=nodes, steps=steps, batch=32, evaluate="mean", records=records)


def measured(names: Sequence[str], trials: int, steps: int) -> xr.Dataset:
    """Validation and test value of each trial, where its validation value is best, and what chance or the start has."""
    found = np.empty((2, len(OPTIMISERS), len(names), trials))
    guess, better = [], []
    for j, task in enumerate(names):
        for i, name in enumerate(OPTIMISERS):
            wanted = sweeps.random(base(task, name, steps), searched(name), trials, seed=len(OPTIMISERS) * j + i)
            with jax.enable_x64(False):  # params are in single precision, and so must be what multiplies them
                lanes = runs.execute(wanted)
            assert lanes is not None  # nothing asked it to stop early
            better.append(lanes[0].attrs["better"])
            found[:, i, j] = np.array([best_record(one) for one in lanes]).T
        guess.append(_guess(task, base(task, next(iter(OPTIMISERS)), steps)))
        if better[-1] == "min":  # in units of the start, which is also the worst that counts
            found[:, :, j] = np.minimum(found[:, :, j] / guess[-1], 1.0)
            guess[-1] = 1.0
    axes = ("optimiser", "task", "trial")
    return xr.Dataset(
        {
            "validation": (axes, found[0]),
            "test": (axes, found[1]),
            "guess": ("task", guess),
            "better": ("task", better[:: len(OPTIMISERS)]),
        },
        {"optimiser": list(OPTIMISERS), "task": list(names)},
    )


def best_record(lane: xr.Dataset) -> tuple[float, float]:
    """Validation and test value where the former is best; NaN if the run diverged."""
    if lane.attrs["diverged"] >= 0:
        return np.nan, np.nan
    best = int(tunability.quality(lane.validation.values, lane.attrs["better"]).argmax())
    return float(lane.validation[best]), float(lane.test[best])


def _guess(name: str, run: Run) -> float:
    """What a guess at random scores: a class, or the quadratic's start."""
    task = tasks.build(run)
    if task.problem is not None:
        start = np.zeros((1, task.problem.dim))
        return float(task.judge(task.data, start, {}, "test")["metric"][0])
    return 1 / (int(np.max(task.data["train"][1])) + 1)


def expected(data: xr.Dataset, replacement: bool = False, own: bool = False) -> np.ndarray:
    """E(o, p, k), [optimisers, tasks, budgets]; with `own`, test values select themselves."""
    tests = data.test.values
    rows = tests if own else data.validation.values
    judged = [*zip(map(str, data.better.values), map(float, data.guess.values), strict=True)]
    return np.array(
        [
            [
                tunability.expected_incumbent(rows[i, j], tests[i, j], better, replacement, guess)
                for j, (better, guess) in enumerate(judged)
            ]
            for i in range(len(rows))
        ]
    )


def relative(data: xr.Dataset, **estimator: bool) -> np.ndarray:
    """S(o, k), [optimisers, budgets]."""
    return tunability.relative_performance(expected(data, **estimator), [*map(str, data.better.values)], FLOOR)


def resampled(data: xr.Dataset, samples: int = 200) -> np.ndarray:
    """S(o, k) of bootstrap samples of each optimiser's trials on each task, [samples, optimisers, budgets]."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(samples):
        picks = data.test.copy(data=rng.integers(data.trial.size, size=data.test.shape))
        sample = {
            name: data[name].copy(data=np.take_along_axis(data[name].values, picks.values, axis=2))
            for name in ("validation", "test")
        }
        found.append(relative(data.assign(sample)))
    return np.array(found)


def wins(data: xr.Dataset, **how: int) -> np.ndarray:
    """Win probabilities, mean over tasks, [budgets, optimisers]."""
    each = [
        ranking.win_probability(data.test[:, j], str(better), **how)  # type: ignore[arg-type]
        for j, better in enumerate(data.better.values)
    ]
    return np.mean(each, axis=0)


def draw(data: xr.Dataset) -> figures.Figure:
    figure, (left, middle, right) = figures.panels(1, 3, (4.0, 3.6))
    budgets = 1 + np.arange(data.trial.size)
    curves, chances = relative(data), wins(data)
    low, high = np.percentile(resampled(data), [2.5, 97.5], axis=0)
    colors = [figures.PALETTE[one.color] for one in OPTIMISERS.values()]
    for i, (name, one) in enumerate(OPTIMISERS.items()):
        left.plot(budgets, curves[i], color=colors[i], label=one.title)
        if name in COMPARED:
            left.fill_between(budgets, low[i], high[i], color=colors[i], alpha=0.15, lw=0)
    left.set(xscale="log", xlabel="trials k", ylabel="S(o, k)", title="relative performance")
    middle.stackplot(budgets, chances.T, colors=colors, alpha=0.85)
    middle.set(xscale="log", xlabel="trials k", ylabel="probability of being best", ylim=(0, 1), xlim=(1, budgets[-1]))
    middle.set_title("win probability")
    middle.grid(visible=False)
    table = np.array([[tunability.tunability(curve, scheme) for scheme in SCHEMES] for curve in curves])
    right.imshow(table, cmap="Greys", vmin=table.min() - 0.1, vmax=1.3, aspect="auto")
    for (i, j), value in np.ndenumerate(table):
        best = "bold" if value == table[:, j].max() else "normal"
        right.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=8, fontweight=best)
    right.set_xticks(range(len(SCHEMES)), [*SCHEMES.values()])
    right.set_yticks(range(len(OPTIMISERS)), [one.title for one in OPTIMISERS.values()])
    right.set_title(r"$\omega$-tunability of S, weights")
    right.grid(visible=False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def judge(data: xr.Dataset) -> list[figures.Claim]:
    place = {name: i for i, name in enumerate(OPTIMISERS)}
    curves, samples, chances = relative(data), resampled(data), wins(data)

    def early(values: np.ndarray) -> np.ndarray:
        return values[..., :EARLY].mean(-1)

    def compared(text: str, value: float, sampled: np.ndarray, **more: float) -> figures.Claim:
        """Whether a difference is positive: by its 95 % interval, open where that has 0 inside."""
        low, high = np.percentile(sampled, [2.5, 97.5])
        verdict = True if low > 0 else False if high < 0 else None
        return figures.Claim(text, verdict, {"difference": value, "95 % interval": [low, high]} | more)

    def gap(values: np.ndarray, one: str, other: str) -> np.ndarray:
        return values[..., place[one], :] - values[..., place[other], :]

    alone = {str(data.task[j].item()): relative(data.isel(task=[j])) for j in range(data.task.size)}
    by_task = {f"on {task} alone": float(early(gap(values, *COMPARED))) for task, values in alone.items()}
    others = [i for name, i in place.items() if name != "adam_lr"]
    lead = [early(v)[..., place["adam_lr"]] - early(v)[..., others].max(-1) for v in (curves, samples)]
    closing = [abs(early(gap(v, *COMPARED))) - abs(gap(v, *COMPARED)[..., -1]) for v in (curves, samples)]
    first = chances[:EARLY].mean(0)
    titles = [one.title for one in OPTIMISERS.values()]
    estimates = {
        "validation selects, without replacement": curves,
        "validation selects, with replacement": relative(data, replacement=True),
        "test selects, without replacement": relative(data, own=True),
        "test selects, with replacement": relative(data, replacement=True, own=True),
    }
    best = np.array([values.argmax(0) for values in estimates.values()])
    shuffled = wins(data, shuffles=1000)
    return [
        compared(
            f"Adam with only its learning rate tuned is the best after up to {EARLY} trials", float(lead[0]), lead[1]
        ),
        compared(
            f"it is better than SGD with momentum and decay tuned after up to {EARLY} trials",
            float(early(gap(curves, *COMPARED))),
            early(gap(samples, *COMPARED)),
            **by_task,
        ),
        compared("that gap is smaller after all trials", float(closing[0]), closing[1]),
        compared(
            f"tuning all four of Adam's hyper-parameters is worse than tuning one, after up to {EARLY} trials",
            float(early(gap(curves, "adam_lr", "adam"))),
            early(gap(samples, "adam_lr", "adam")),
        ),
        figures.Claim(
            f"Adam with only its learning rate tuned most probably wins after up to {EARLY} trials",
            bool(first.argmax() == place["adam_lr"]),
            dict(zip(titles, first, strict=True)),
        ),
        figures.Claim(
            "which estimator is used (who selects, with or without replacement) does not change who is best",
            bool((best == best[0]).all()),
            {f"best by k, {name}": _stretches(row, titles) for name, row in zip(estimates, best, strict=True)}
            | {
                f"largest difference to the first, {name}": float(abs(values - curves).max())
                for name, values in [*estimates.items()][1:]
            },
        ),
        figures.Claim(
            "a thousand random orders give the win probabilities, to 0.03",
            bool(abs(shuffled - chances).max() <= 0.03),
            {"largest difference to the exact ones": float(abs(shuffled - chances).max())},
        ),
        figures.Claim(
            "omega-tunability of S (" + ", ".join(SCHEMES.values()) + "); the paper's are of other tasks",
            None,
            {
                title: [tunability.tunability(curve, scheme) for scheme in SCHEMES]
                for title, curve in zip(titles, curves, strict=True)
            }
            | {
                f"expected test value after all trials, {task}": expected(data)[:, j, -1]
                for j, task in enumerate(map(str, data.task.values))
            }
            | {f"diverged, {title}": float(np.isnan(data.test[i]).mean()) for i, title in enumerate(titles)},
        ),
    ]


def _stretches(row: np.ndarray, titles: Sequence[str]) -> str:
    """Which of them is at which budgets, as text."""
    starts = [0, *(np.flatnonzero(np.diff(row)) + 1)]
    return ", ".join(f"from {start + 1}: {titles[row[start]]}" for start in starts)


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
