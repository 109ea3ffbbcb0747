"""The same runs against steps, bits, simulated seconds and joules: which method is ahead depends on what is counted.

Eight methods train one network over sixteen nodes with skewed labels (Dirichlet 0.3 for each class), on two clusters:

    a straggler       nodes as in one room, 1 ms and 1 Gbit/s apart, one of them four times as slow as the others; a bit
                      costs next to nothing
    two sites         the same nodes, all alike, at two sites whose links are a hundred times as slow; a bit costs what
                      it takes over the lines of an internet provider

Curves are test accuracies of the mean model, mean and standard deviation over seeds, which have starts and batches of
their own; the deal of the samples and the durations of gradients and messages are the same for all. Compared is what a
method has spent when its mean model first reaches the dashed accuracy, between two records by interpolation. What a
step costs does not depend on the learning rate, so that the best rate is the same on all axes: it is chosen of a common
grid, for each method and cluster, by the mean validation accuracy over all records and seeds. A comparison is decided
by two standard errors of the difference paired by seed, and not testable below.

PowerGossip sends products of matrices with vectors. CHOCO-SGD sends the larger half of the entries, each as 32 bits for
its value and 32 for its place: as many bits as all entries take.

All constants of clusters and machines are illustrative, see `experiments.clusters` and `experiments.energy`: other
ratios give other orders. --quick: digits, a network 64-64-10. --full: Fashion-MNIST, two convolutions. Finished runs
are kept beside the figure, in four_axes_runs: what was interrupted goes on from there. Delete that folder to start
anew.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from experiments import figures, sources
from experiments.settings import Run
from experiments.store import Store
from experiments.sweeps import complete, gather, grid

RUNS = Path("outputs/figures/adonis/four_axes_runs")
N = 16
AXES = {
    "steps": "gradients a node",
    "bits": "bits sent by all nodes",
    "seconds": "simulated seconds",
    "joules": "joules",
}


class Method(NamedTuple):
    """Title, look, the settings of its runs, and to which groups it belongs in the claims."""

    title: str
    look: Mapping[str, str]
    settings: Mapping[str, Any]
    groups: tuple[str, ...] = ()


def _look(colour: str, marker: str) -> dict[str, str]:
    return {"color": figures.PALETTE[colour], "marker": marker}


METHODS = {
    "all_reduce_sgd": Method("all-reduce SGD", _look("black", "s"), {}),
    "local_dsgd": Method(
        "local D-SGD, gossip every 4th step", _look("brown", "X"), {"hyperparameters": {"period": 4}}, ("rare",)
    ),
    "dsgd_atc": Method("D-SGD", _look("blue", "o"), {}),
    "relay_sgd": Method("RelaySGD, spanning tree", _look("red", "P"), {"graph": "tree_of:ring"}),
    "choco_sgd": Method("CHOCO-SGD, half of the entries", _look("green", "v"), {}, ("compressed",)),
    "power_gossip": Method("PowerGossip, rank 1", _look("pink", "h"), {}, ("compressed",)),
    "asynchronous_sgd": Method("asynchronous SGD", _look("sky", "<"), {}, ("asynchronous",)),
    "acid": Method("A2CiD2", _look("orange", "^"), {}, ("asynchronous",)),
}
CLUSTERS = {
    "straggler": ("a straggler", {"cluster": "straggler:4", "energy": "laptop"}),
    "two_sites": ("two sites", {"cluster": "slow_links:100", "energy": "volunteers"}),
}


class Scale(NamedTuple):
    """The task, the length of its runs, the accuracy whose price is compared, and what is tried."""

    task: str
    steps: int
    target: float
    rates: tuple[float, ...]
    seeds: int
    records: int
    held_out: int = 0


QUICK = Scale("digits/mlp", 120, 0.9, (0.4, 0.8, 1.6, 3.2), 4, 40)
FULL = Scale("fashion_mnist/cnn", 1500, 0.8, (0.05, 0.1, 0.2, 0.4, 0.8), 4, 100, 2000)


def base(name: str, cluster: str, scale: Scale) -> Run:
    """The settings of a method's runs on a cluster."""
    return Run(
        task=scale.task,
        method=name,
        nodes=N,
        partition="dirichlet_per_class:0.3",
        steps=scale.steps,
        evaluate="mean",
        held_out=scale.held_out,
        records=scale.records,
        **CLUSTERS[cluster][1],  # type: ignore[arg-type]
        **METHODS[name].settings,
    )


def compute(full: bool) -> xr.Dataset:
    return measured(FULL if full else QUICK, Store(RUNS))


def measured(scale: Scale, store: Store, names: Sequence[str] = tuple(METHODS)) -> xr.Dataset:
    """Test accuracies and costs, [cluster, curve, seed, record], with the best learning rates and what chose them."""
    over = {"learning_rate": scale.rates, "seed": tuple(range(scale.seeds))}
    wanted = {(cluster, name): grid(base(name, cluster, scale), over) for cluster in CLUSTERS for name in names}
    complete([run for runs in wanted.values() for run in runs], store)
    clusters = []
    for cluster in CLUSTERS:
        rows = []
        for name in names:
            found = gather(wanted[cluster, name], store)
            score = found.validation.fillna(0.0).mean(("seed", "record"))
            best = score.learning_rate[int(score.argmax("learning_rate"))]
            chosen = found.sel(learning_rate=best)
            row = {axis: chosen[axis].isel(seed=0) for axis in AXES}
            row |= {"test": chosen.test.fillna(0.0), "diverged": (found.diverged >= 0).sum()}
            row |= {"best_rate": best.drop_vars("learning_rate"), "score": score}
            rows.append(
                xr.Dataset(
                    {
                        key: value.drop_vars("learning_rate", errors="ignore") if key != "score" else value
                        for key, value in row.items()
                    }
                )
            )
        clusters.append(xr.concat(rows, xr.Variable("curve", list(names))))
    data = xr.concat(clusters, xr.Variable("cluster", list(CLUSTERS)))
    return data.assign_attrs(task=scale.task, target=scale.target)


def price(data: xr.Dataset, cluster: str, name: str, axis: str) -> np.ndarray:
    """[seed], what a method has spent when it first reaches the target; inf if it never does."""
    own = data.sel(cluster=cluster, curve=name)
    costs, target = own[axis].values, float(data.attrs["target"])
    found = []
    for accuracy in own.test.transpose("seed", "record").values:
        reached = np.flatnonzero(accuracy >= target)
        if not len(reached):
            found.append(np.inf)
            continue
        k = int(reached[0])
        if k == 0:
            found.append(costs[0])
            continue
        share = (target - accuracy[k - 1]) / (accuracy[k] - accuracy[k - 1])
        found.append(costs[k - 1] + share * (costs[k] - costs[k - 1]))
    return np.array(found, float)


def cheaper(one: np.ndarray, other: np.ndarray) -> bool | None:
    """Whether the first price is below the second, by two standard errors of the difference paired by seed."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        better, worse = np.sum(one < other), np.sum(one > other)
        return True if better == len(one) else False if worse == len(one) else None
    gap = other - one
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    return True if gap.mean() > 2 * error else False if gap.mean() < -2 * error else None


def leads(data: xr.Dataset, cluster: str, axis: str, group: Sequence[str]) -> bool | None:
    """Whether the best of a group is cheaper than all methods outside of it."""
    prices = {str(name): price(data, cluster, str(name), axis) for name in data.curve.values}
    best = min(group, key=lambda name: float(np.mean(prices[name])))
    verdicts = [cheaper(prices[best], prices[name]) for name in prices if name not in group]
    if False in verdicts:
        return False
    return None if None in verdicts else True


def leader(data: xr.Dataset, cluster: str, axis: str) -> str:
    """The method of the least mean price."""
    return min(map(str, data.curve.values), key=lambda name: float(np.mean(price(data, cluster, name, axis))))


def draw(data: xr.Dataset) -> figures.Figure:
    figure, rows = figures.panels(len(CLUSTERS), len(AXES), (3.1, 2.8), sharey=True, squeeze=False)
    every = max(1, data.record.size // 6)
    for cluster, row in zip(CLUSTERS, rows, strict=True):
        for (axis, label), panel in zip(AXES.items(), row, strict=True):
            for number, name in enumerate(map(str, data.curve.values)):
                method = METHODS[name]
                own = data.sel(cluster=cluster, curve=name)
                own = own.isel(record=own[axis].values > 0)  # local steps send nothing at first
                mean, spread = 100 * own.test.mean("seed").values, 100 * own.test.std("seed", ddof=1).values
                style: dict[str, Any] = {"markevery": (number % every, every), "label": method.title, **method.look}
                panel.plot(own[axis], mean, lw=1.3, **style)
                edges = (mean - spread, mean + spread)
                panel.fill_between(own[axis], *edges, color=method.look["color"], alpha=0.12, lw=0)
            panel.axhline(100 * data.attrs["target"], color="0.3", lw=0.9, ls="--")
            panel.set_xscale("log")
            best = leader(data, cluster, axis)
            if np.isfinite(price(data, cluster, best, axis)).all():
                panel.set_title(f"first: {METHODS[best].title.partition(',')[0]}", fontsize=8.5, color="0.25")
            panel.set_xlabel(label)
        row[0].set_ylabel(f"{CLUSTERS[cluster][0]}\ntest accuracy [%]")
    top, low = float(data.test.max()), float(data.test.isel(record=slice(1, None)).mean("seed").min())
    rows[0][0].set_ylim(100 * max(low - 0.02, 2 * data.attrs["target"] - 1.15), 100 * top + 0.5)
    figure.legend(*rows[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def shown(values: np.ndarray) -> str:
    """Mean and standard deviation of prices."""
    if not np.isfinite(values).all():
        return f"not reached in {int(np.sum(~np.isfinite(values)))} of {len(values)} seeds"
    return f"{values.mean():.3g} +- {values.std(ddof=1):.2g}"


def judge(data: xr.Dataset) -> list[figures.Claim]:
    names = list(map(str, data.curve.values))

    def prices(cluster: str, axis: str) -> dict[str, str]:
        return {f"{METHODS[name].title}, {axis}": shown(price(data, cluster, name, axis)) for name in names}

    def claim(
        text: str, cluster: str, axis: str, group: str | Sequence[str], wanted: bool = True
    ) -> list[figures.Claim]:
        members = [
            name for name in names if (group in METHODS[name].groups if isinstance(group, str) else name in group)
        ]
        if not members:
            return []
        found = leads(data, cluster, axis, members)
        holds = None if found is None else found is wanted
        return [figures.Claim(f"{CLUSTERS[cluster][0]}: {text}", holds, prices(cluster, axis))]

    claims = [
        *claim("an asynchronous method is ahead in seconds", "straggler", "seconds", "asynchronous"),
        *claim("none is ahead in steps", "straggler", "steps", "asynchronous", False),
        *claim("a method that compresses is ahead in bits", "straggler", "bits", "compressed"),
        *claim("none is ahead in seconds, as messages are fast", "straggler", "seconds", "compressed", False),
        *claim("none is ahead in joules, as bits cost little", "straggler", "joules", "compressed", False),
        *claim("all-reduce is ahead in steps", "two_sites", "steps", ["all_reduce_sgd"]),
        *claim(
            "it is not ahead in seconds, as each of its rounds waits", "two_sites", "seconds", ["all_reduce_sgd"], False
        ),
        *claim("a method that compresses is ahead in bits", "two_sites", "bits", "compressed"),
        *claim("one is ahead in joules, as bits are dear", "two_sites", "joules", "compressed"),
        *claim(
            "none is ahead in seconds, as latency weighs more than bandwidth",
            "two_sites",
            "seconds",
            "compressed",
            False,
        ),
    ]
    for cluster, (title, _) in CLUSTERS.items():
        first = {axis: leader(data, cluster, axis) for axis in AXES}
        everywhere = {name: [leads(data, cluster, axis, [name]) for axis in AXES] for name in names}
        # A method that may be first on an axis is at least not behind there.
        possible = [name for name, verdicts in everywhere.items() if False not in verdicts]
        surely = [name for name, verdicts in everywhere.items() if all(verdicts)]
        claims.append(
            figures.Claim(
                f"{title}: no method is ahead on all four axes",
                False if surely else None if possible else True,
                {
                    f"least {axis}": f"{METHODS[name].title}: {shown(price(data, cluster, name, axis))}"
                    for axis, name in first.items()
                },
            )
        )
    return [*claims, tuning(data)]


def tuning(data: xr.Dataset) -> figures.Claim:
    """The grids: a best rate at the end of its grid might be better beyond."""
    numbers: dict[str, Any] = {}
    ends = []
    for cluster in CLUSTERS:
        for name in map(str, data.curve.values):
            own = data.sel(cluster=cluster, curve=name)
            scores = dict(zip(own.learning_rate.values.tolist(), own.score.values.round(3).tolist(), strict=True))
            label = f"{CLUSTERS[cluster][0]}, {METHODS[name].title}"
            numbers[label] = scores | {"runs that diverged": int(own.diverged)}
            best = float(own.best_rate)
            ends += [label] if best in (min(scores), max(scores)) else []
    return figures.Claim("no best learning rate lies at an end of the grid", not ends, numbers | {"at an end": ends})


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    try:
        return figures.run(__file__, __doc__, compute, draw, judge, arguments)
    except sources.MissingData as missing:
        print(missing, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
