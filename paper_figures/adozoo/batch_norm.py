r"""Batch normalisation over nodes: what the mean model's statistics are taken from, or what to have in its place.

A batch-normalised network holds, besides parameters, running means and variances, which no optimiser moves. Where nodes
hold different classes each gathers those of its own. Compared are four policies (`experiments.models.batch_norm`):
local (each keeps its own; the mean model gets those of all nodes' values together), gossiped (mixed after each step),
recomputed (a pass of training data through the mean model) and none needed, as group normalisation or EvoNorm-S0
replaces it. D-SGD with momentum 0.9 on a ring, eight nodes with digits (`--full`: sixteen with Fashion-MNIST), each
with shares of few classes (Dirichlet 0.1 a class) and with i.i.d. ones. Nodes are judged with their own statistics, the
mean model with those that the policy gives it, both on test samples.

The network has two 3 x 3 convolutions of 8 and 16 channels, each normalised and pooled, and a linear layer. Each
setting has its own learning rate, the one of three with the best validation accuracy of the mean model, mean over
seeds. Seeds are of starts and batches; one deal of the samples serves all of them, so that the spread shown is not that
over deals.

No figure is reproduced. The question is that of Hsieh, Phanishayee, Mutlu and Gibbons, The non-IID data quagmire of
decentralized machine learning, 2020, who find that batch normalisation fails on skewed labels, because the batches'
own statistics differ between nodes, and that group normalisation does not; recalled, not read again.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments import figures, runs, sweeps
from experiments.settings import Run

PARTITIONS = {"iid": "i.i.d. shares", "dirichlet_per_class:0.1": "shares of few classes"}
SKEWED = "dirichlet_per_class:0.1"
RATES = (0.01, 0.03, 0.1)
MARGIN = 0.01
"""Accuracies that differ by less count as equal: a claim of more fails where the seeds rule out this much."""


class Setting(NamedTuple):
    """Title, the network's norm, what becomes of its statistics, and its colour."""

    title: str
    norm: str
    policy: str
    color: str


SETTINGS = {
    "local": Setting("batch norm, statistics local", "batch", "local", "orange"),
    "gossiped": Setting("batch norm, gossiped", "batch", "gossiped", "pink"),
    "recomputed": Setting("batch norm, recomputed", "batch", "recomputed", "blue"),
    "group": Setting("group norm", "group", "replaced", "green"),
    "evo": Setting("EvoNorm-S0", "evo", "replaced", "sky"),
}
BATCH_NORM = ("local", "gossiped", "recomputed")
QUICK = Run("digits_images/cnn:8:16", "dsgd_momentum", nodes=8, steps=160, records=8)
FULL = Run("fashion_mnist/cnn:8:16", "dsgd_momentum", nodes=16, steps=800, records=8, held_out=4000)


def compute(full: bool) -> xr.Dataset:
    return measured(FULL if full else QUICK, seeds=5 if full else 4)


def measured(base: Run, seeds: int, rates: Sequence[float] = RATES) -> xr.Dataset:
    """Accuracies of the mean model and of the worst node with every setting, partition, learning rate and seed."""
    rows = []
    for setting in SETTINGS.values():
        task = f"{base.task}:{setting.norm}"
        here = [replace(base, task=task, batch_norm=setting.policy, partition=partition) for partition in PARTITIONS]
        rows.append([_lanes(run, seeds, rates) for run in here])
    axes = ("setting", "partition", "learning_rate", "seed", "step")
    names = {"accuracy": "test", "validation": "validation", "worst": "worst", "distance": "consensus_distance"}
    return xr.Dataset(
        {name: (axes, np.array([[lanes[of] for lanes in row] for row in rows])) for name, of in names.items()},
        {
            "setting": list(SETTINGS),
            "partition": list(PARTITIONS),
            "learning_rate": list(rates),
            "step": rows[0][0]["steps"][0, 0],
        },
        {"nodes": base.nodes, "task": base.task},
    )


def _lanes(run: Run, seeds: int, rates: Sequence[float]) -> dict[str, np.ndarray]:
    """Everything [rate, seed, record] of one program's lanes."""
    wanted = sweeps.grid(run, {"learning_rate": rates, "seed": range(seeds)})
    found = runs.execute(wanted)
    assert found is not None  # nothing asked it to stop early
    names = ("test", "validation", "worst", "consensus_distance", "steps")
    return {name: np.stack([one[name].values for one in found]).reshape(len(rates), seeds, -1) for name in names}


def tuned(data: xr.Dataset) -> xr.Dataset:
    """With each setting's learning rate on each partition: the best by validation at the end, what diverged last."""
    score = data.validation.isel(step=-1, drop=True).fillna(0).mean("seed")
    best = score.idxmax("learning_rate")
    kept = data.sel(learning_rate=best)
    return kept.assign(rate=best)


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axes = figures.panels(len(PARTITIONS), 2, (4.2, 2.7), sharex=True, sharey="row")
    kept = tuned(data)
    for row, (partition, title) in zip(axes, PARTITIONS.items(), strict=True):
        for axis, (key, what) in zip(row, {"accuracy": "mean model", "worst": "worst node"}.items(), strict=True):
            for (name, setting), style in zip(SETTINGS.items(), ("-", "--", "-", "-", "--"), strict=True):
                values = 100 * kept[key].sel(setting=name, partition=partition)
                color = figures.PALETTE[setting.color]
                axis.plot(data.step, values.mean("seed"), label=setting.title, color=color, ls=style)
                axis.fill_between(data.step, values.min("seed"), values.max("seed"), color=color, alpha=0.15, lw=0)
            axis.set_title(f"{what}, {title}")
        row[0].set_ylabel("test accuracy [%]")
    for axis in axes[-1]:
        axis.set_xlabel("steps")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def above(better: xr.DataArray, worse: xr.DataArray, least: float = MARGIN) -> tuple[bool | None, str]:
    """Whether one is above the other by two standard errors, paired by seed.

    It is not if two standard errors more would still be less than `least`; None: the seeds cannot tell.
    """
    gaps = (better - worse).values
    mean, error = gaps.mean(), gaps.std(ddof=1) / np.sqrt(gaps.size)
    verdict = True if mean > 2 * error else False if mean + 2 * error < least else None
    return verdict, f"{mean:.4f} +- {error:.2g}"


def judge(data: xr.Dataset) -> list[figures.Claim]:
    kept = tuned(data)
    ends = kept.isel(step=-1)
    skewed, even = ends.sel(partition=SKEWED), ends.sel(partition="iid")

    def numbers(values: xr.DataArray) -> dict[str, str]:
        rows = {SETTINGS[name].title: values.sel(setting=name) for name in map(str, values.setting.values)}
        return {title: f"{float(row.mean()):.3f} +- {float(row.std(ddof=1)):.3f}" for title, row in rows.items()}

    def compared(text: str, better: str, worse: str, key: str = "accuracy") -> figures.Claim:
        values = skewed[key]
        verdict, gap = above(values.sel(setting=better), values.sel(setting=worse))
        return figures.Claim(text, verdict, numbers(values.sel(setting=[better, worse])) | {"gap": gap})

    def as_good(text: str, name: str) -> figures.Claim:
        verdict, gap = above(skewed.accuracy.sel(setting=name) + MARGIN, skewed.accuracy.sel(setting="recomputed"), 0.0)
        shown = numbers(skewed.accuracy.sel(setting=[name, "recomputed"]))
        return figures.Claim(text, verdict, shown | {f"gap + {MARGIN}": gap})

    mixed = [above(even.accuracy.sel(setting="recomputed"), even.accuracy.sel(setting=name)) for name in BATCH_NORM[:2]]
    spread = even.accuracy.sel(setting=list(BATCH_NORM)).mean("seed")
    lost = (even.accuracy - skewed.accuracy).sel(setting=["recomputed", "group"])
    verdict, gap = above(lost.sel(setting="recomputed"), lost.sel(setting="group"))
    distances = data.distance.sel(setting=list(BATCH_NORM))
    apart = float((distances - distances.sel(setting="local")).max() / distances.max())
    return [
        compared(
            "few classes: statistics of all nodes' values together are not those of the mean model: with recomputed "
            "ones it is more accurate than with local ones",
            "recomputed",
            "local",
        ),
        compared(
            "few classes: gossiping statistics does not repair the mean model: recomputed ones are still better",
            "recomputed",
            "gossiped",
        ),
        compared(
            "few classes: but the worst node is better with gossiped ones than with its own",
            "gossiped",
            "local",
            "worst",
        ),
        as_good("few classes: group norm does without: its mean model is as accurate as with recomputed ones", "group"),
        as_good("few classes: so does EvoNorm-S0", "evo"),
        figures.Claim(
            f"i.i.d. shares: the policy makes no difference to the mean model, to {MARGIN:g}",
            bool(spread.max() - spread.min() <= MARGIN),
            numbers(even.accuracy) | {f"recomputed above {BATCH_NORM[i]}": text for i, (_, text) in enumerate(mixed)},
        ),
        figures.Claim(
            "batch norm, even with recomputed statistics, loses more accuracy to shares of few classes than group norm "
            "(Hsieh et al., 2020, for all-reduce and other methods, as recalled)",
            verdict,
            numbers(lost) | {"gap of losses": gap},
        ),
        figures.Claim(
            "training is the same under all three policies, since only the batch's statistics count in it",
            bool(apart < 1e-4),
            {"largest difference of consensus distances, relative": apart},
        ),
        figures.Claim(
            "all accuracies, and the learning rates used",
            None,
            {
                f"{key}, {title}": list(numbers(ends[key].sel(partition=partition)).values())
                for partition, title in PARTITIONS.items()
                for key in ("accuracy", "worst")
            }
            | {f"rates, {title}": kept.rate.sel(partition=name).values for name, title in PARTITIONS.items()},
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
