"""RelaySGD (Vogels et al., NeurIPS 2021), table 2 and figure 4, reduced: heterogeneous data in training a network.

Test accuracy of the worst of 16 workers, whose labels are skewed more and more (Dirichlet alpha 1, 0.1, 0.01), each
method with its best learning rate for each alpha. Left against alpha (bars: standard deviation over seeds), right
during training at alpha = 0.01.

Deviations: a small deep network on digits in place of VGG-11 on Cifar-10 (see _digits.py: its depth was chosen so that
labels matter at all), 200 steps with batches of 16 (400 with --full) in place of 200 epochs, and no weight decay.
Learning rates are on a grid of factors of two, and chosen by the worst worker's test accuracy, mean over seeds. Five
seeds (10 with --full; the paper has 3), each with a split, a deal, a start and batches of its own, the same for all
methods. A comparison is decided by two standard errors of the difference, and not testable below. The published numbers
are for Cifar-10 and shown as context: differences are far smaller here.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from experiments import figures
from paper_figures.relaysgd import _digits

ALPHAS = (1.0, 0.1, 0.01)
# The least learning rate of each grid.
LEAST = {
    "all_reduce": 0.025,
    "relay_trees": 0.1,
    "relay_chain": 0.2,
    "relay_plain": 0.4,
    "push": 0.025,
    "d2_momentum": 0.025,
    "d2": 0.1,
    "quasi_global": 0.025,
    "gossip": 0.1,
}
# Table 2: the worst worker's accuracy on Cifar-10 in per cent, for alpha = 1, 0.1, 0.01; all-reduce knows no alpha.
PUBLISHED = {
    "all_reduce": (90.2, 90.2, 90.2),
    "relay_trees": (90.2, 89.5, 89.1),
    "relay_chain": (89.5, 89.2, 88.4),
    "relay_plain": (87.4, 86.9, 84.6),
    "push": (89.5, 89.2, 87.5),
    "d2_momentum": (88.2, 88.5, 61.0),
    "d2": (87.2, 84.0, 38.2),
    "quasi_global": (89.5, 84.8, 63.3),
    "gossip": (87.4, 79.9, 53.9),
}
RELAYS = ("relay_trees", "relay_chain")


def compute(full: bool) -> xr.Dataset:
    sizes = _digits.Sizes(400, 16, 20) if full else _digits.Sizes(200, 16, 10)
    return measured([*LEAST], sizes, seeds=10 if full else 5, tried=6 if full else 4)


def measured(methods: Sequence[str], sizes: _digits.Sizes, seeds: int, tried: int) -> xr.Dataset:
    """The workers' worst and mean accuracies in per cent, with the best learning rates."""
    pairs = [(alpha, seed) for alpha in ALPHAS for seed in range(seeds)]
    deals = [_digits.deal(*pair) for pair in pairs]
    worst, mean, best = [], [], []
    for name in methods:
        rates = LEAST[name] * 2.0 ** (np.arange(tried) - (tried - 4) // 2)
        found = _digits.accuracies(_digits.methods()[name], rates, deals, [seed for _, seed in pairs], sizes)
        found = 100 * found.reshape(len(ALPHAS), seeds, *found.shape[1:])
        chosen = found[:, :, :, -1].min(-1).mean(1).argmax(1)
        kept = np.stack([found[i, :, k] for i, k in enumerate(chosen)])
        worst.append(kept.min(-1))
        mean.append(kept.mean(-1))
        best.append(rates[chosen])
    return xr.Dataset(
        {
            "worst": (("algorithm", "alpha", "seed", "step"), np.array(worst)),
            "mean": (("algorithm", "alpha", "seed", "step"), np.array(mean)),
            "learning_rate": (("algorithm", "alpha"), np.array(best)),
            "skew": (("alpha", "seed"), np.reshape([_digits.skew(dealt) for dealt in deals], (len(ALPHAS), seeds))),
        },
        {
            "algorithm": list(methods),
            "alpha": list(ALPHAS),
            "step": sizes.steps // sizes.records * (1 + np.arange(sizes.records)),
        },
    )


def draw(data: xr.Dataset) -> figures.Figure:
    figure, (left, right) = figures.panels(1, 2, (4.0, 3.5))
    places = np.arange(len(ALPHAS))
    shifts = np.linspace(-0.2, 0.2, data.algorithm.size)
    for name, shift in zip(data.algorithm.values, shifts, strict=True):
        method = _digits.methods()[str(name)]
        ends = data.worst.sel(algorithm=name).isel(step=-1)
        left.errorbar(places + shift, ends.mean("seed"), ends.std("seed", ddof=1), capsize=2, lw=1.1, **method.look)
        course = data.worst.sel(algorithm=name, alpha=ALPHAS[-1]).mean("seed")
        right.plot(data.step, course, label=method.title, markevery=2, **method.look)
    left.set_xticks(places, [f"{alpha:g}" for alpha in ALPHAS])
    left.set(xlabel=r"Dirichlet $\alpha$ of the labels", ylabel="worst worker's test accuracy [%]")
    left.set_title("after training")
    right.set(xlabel="steps", title=rf"during training, $\alpha$ = {ALPHAS[-1]:g}", ylim=(60, 100))
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    return figure


def paired(differences: np.ndarray) -> tuple[float, float]:
    """Mean and standard error."""
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(differences.size))


def judge(data: xr.Dataset) -> list[figures.Claim]:
    ends = {str(name): data.worst.sel(algorithm=name).isel(step=-1).values for name in data.algorithm.values}
    last = {name: values[-1] for name, values in ends.items()}  # [seed] at the smallest alpha
    lost = {name: values[0] - values[-1] for name, values in ends.items()}
    seeds = data.seed.size
    titles = {name: _digits.methods()[name].title for name in ends}
    papers_lost = {titles[name]: PUBLISHED[name][0] - PUBLISHED[name][-1] for name in ends}

    def shown(values: np.ndarray) -> str:
        return f"{values.mean():.1f} +- {values.std(ddof=1):.1f}"

    def gap(better: str, worse: str) -> str:
        """The mean difference, paired by seed, and its standard error."""
        return "{:.1f} +- {:.1f}".format(*paired(last[better] - last[worse]))

    def compared(text: str, pairs: Sequence[tuple[str, str]], margin: float = 0.0) -> figures.Claim:
        """The first of each pair is above the second, less `margin`: by two standard errors, or it remains open."""
        gaps = [paired(last[better] - last[worse] + margin) for better, worse in pairs]
        holds = True if all(mean >= 2 * error for mean, error in gaps) else None
        if any(mean <= -2 * error for mean, error in gaps):
            holds = False
        each = sum(all(last[a][k] > last[b][k] - margin for a, b in pairs) for k in range(seeds))
        names = list(dict.fromkeys(name for pair in pairs for name in pair))
        return figures.Claim(
            f"at alpha = 0.01 {text}",
            holds,
            {titles[name]: shown(last[name]) for name in names}
            | {f"gap of {titles[better]} to {titles[worse]}": gap(better, worse) for better, worse in pairs}
            | {"seeds in which it holds": f"{each} of {seeds}"},
            {titles[name]: PUBLISHED[name][-1] for name in names},
        )

    def relays_above(text: str, other: str, margin: float = 0.0) -> figures.Claim:
        return compared(f"RelaySGD {text}", [(one, other) for one in RELAYS], margin)

    return [
        compared(
            "the worst worker's accuracy is highest with RelaySGD (on trees and on the chain), then with quasi-global "
            "momentum, and lowest with D-SGD",
            [*((one, "quasi_global") for one in RELAYS), ("quasi_global", "gossip")],
        ),
        figures.Claim(
            "from alpha = 1 to 0.01 RelaySGD with momentum loses at most 1.5 %",
            bool(max(lost[name].mean() for name in RELAYS) <= 1.5),
            {titles[name]: shown(lost[name]) for name in RELAYS},
            {titles[name]: papers_lost[titles[name]] for name in RELAYS},
        ),
        figures.Claim(
            "D-SGD loses more than twice as much, and more than 2 %",
            bool(lost["gossip"].mean() > max(2.0, 2 * max(lost[name].mean() for name in RELAYS))),
            {titles["gossip"]: shown(lost["gossip"])},
            {titles["gossip"]: papers_lost[titles["gossip"]]},
        ),
        figures.Claim(
            "so does quasi-global momentum",
            bool(lost["quasi_global"].mean() > max(2.0, 2 * max(lost[name].mean() for name in RELAYS))),
            {titles["quasi_global"]: shown(lost["quasi_global"])},
            {titles["quasi_global"]: papers_lost[titles["quasi_global"]]},
        ),
        relays_above("is above D2 on the ring", "d2"),
        relays_above("is above D2 with momentum on the ring", "d2_momentum"),
        relays_above("is above SGP", "push"),
        relays_above("is at most 2 % below all-reduce", "all_reduce", 2.0),
        compared(
            "without momentum, RelaySGD on trees is above D2 and D-SGD too",
            [("relay_plain", "d2"), ("relay_plain", "gossip")],
        ),
        figures.Claim(
            "the drop to 61 % (with momentum) and 38 % (without) of D2 at alpha = 0.01",
            None,
            {titles[name]: [shown(values) for values in ends[name]] for name in ("d2_momentum", "d2")},
            {titles[name]: PUBLISHED[name] for name in ("d2_momentum", "d2")},
        ),
        figures.Claim(
            "accuracies on Cifar-10, alpha = 1, 0.1, 0.01; ours on digits, with the learning rates used",
            None,
            {titles[name]: [shown(values) for values in ends[name]] for name in ends}
            | {f"{titles[name]}, learning rates": data.learning_rate.sel(algorithm=name).values for name in ends}
            | {"total variation of labels": data.skew.mean("seed").values},
            {titles[name]: PUBLISHED[name] for name in ends},
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
