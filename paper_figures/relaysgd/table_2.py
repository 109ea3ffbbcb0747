"""RelaySGD (Vogels et al., NeurIPS 2021), table 2, reduced: a convolutional network over 16 workers on Fashion-MNIST.

Test accuracy of the worst worker after training, labels dealt at random or skewed (Dirichlet alpha 1, 0.1, 0.01 for
each worker, equal shares), each method with its best learning rate of a grid around the paper's. Left against alpha
(bars: standard deviation over seeds), right all workers at alpha = 0.01.

Deviations: two convolutions on Fashion-MNIST in place of VGG-11 on Cifar-10; less than one pass over the data (--full:
two) in place of 200; warm-up over 5 % of the steps, and divisions of the learning rate by 10 after 50 % and
75 %; no weight decay. A single binary tree in place of two that share the coordinates; one round of the exponential
graph a step in place of two; D2 has (W + I) / 2, as the eigenvalues of Metropolis weights on even rings reach the bound
of its theory. Learning rates are on a grid of factors of 2.5, which grows (up to twice) where the best is at its end,
and chosen by the worst worker's test accuracy with the first seed. Each of three seeds has a deal (of skewed labels), a
start and batches of its own, the same for all methods. A comparison is decided by two standard errors of the difference
paired by seed, and not testable below. All-reduce runs on random shares only: its mean gradient hardly feels who holds
what. There the mean model is judged, on all test samples; on skewed ones the worst worker, on 1000.

--quick: four methods, random shares and alpha = 0.01, 8 and 16 channels, 150 steps of 16 samples. --full: all methods
and alphas, 16 and 32 channels, 200 steps of 32 samples. Finished runs are kept in outputs/figures/relaysgd/table_2_runs
of the folder that the script is run in: what was interrupted goes on from there. Delete it to start anew.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments import figures
from experiments.settings import Run
from experiments.store import Store
from experiments.sweeps import cell_hash, complete
from paper_figures.relaysgd.heterogeneity import paired

N, MOMENTUM, CLASSES = 16, 0.9, 10
RUNS = Path("outputs/figures/relaysgd/table_2_runs")
STEPS_BETWEEN_RATES = 2.5
RANDOM, SKEWED = "random", "0.01"


class Method(NamedTuple):
    """A method as the table has it: title, look, the settings of its runs, and the middle of its learning rates."""

    title: str
    look: Mapping[str, str]
    settings: Mapping[str, object]
    middle: float
    published: tuple[float, ...] = (np.nan,) * 3  # the worst worker's accuracy in per cent for alpha = 1, 0.1, 0.01


_MOMENTUM = {"hyperparameters": {"momentum": MOMENTUM}}
METHODS = {
    "all_reduce": Method(
        "all-reduce", figures.method("all_reduce_sgd"), {"method": "all_reduce_sgd"}, 0.25, (87.0, 87.0, 87.0)
    ),
    "all_reduce_momentum": Method(
        "all-reduce, momentum",
        {"color": figures.PALETTE["grey"], "marker": "s"},
        {"method": "all_reduce_sgd_nesterov", **_MOMENTUM},
        0.04,
        (90.2, 90.2, 90.2),
    ),
    "relay_tree": Method(
        "RelaySGD, tree, momentum",
        figures.method("relay_sgd"),
        {"method": "relay_sgd_nesterov", "graph": "binary_tree", **_MOMENTUM},
        0.1,
        (90.2, 89.5, 89.1),
    ),
    "relay_chain": Method(
        "RelaySGD, chain, momentum",
        {"color": figures.PALETTE["brown"], "marker": "X"},
        {"method": "relay_sgd_nesterov", "graph": "path", **_MOMENTUM},
        0.1,
        (89.5, 89.2, 88.4),
    ),
    "relay_grad": Method(
        "RelaySGD/Grad, chain, momentum",
        {"color": figures.PALETTE["violet"], "marker": "X"},
        {"method": "relay_sgd_grad_nesterov", "graph": "path", **_MOMENTUM},
        0.04,
        (86.9, 87.8, 68.6),
    ),
    "push": Method(
        "SGP, exponential graph, momentum",
        figures.method("stochastic_gradient_push"),
        {"method": "sgp_nesterov", "graph": "one_peer_exponential", **_MOMENTUM},
        0.04,
        (89.5, 89.2, 87.5),
    ),
    "d2": Method(
        "D2, ring, momentum",
        figures.method("d2"),
        {"method": "d2_nesterov", "weights": "lazy_metropolis", **_MOMENTUM},
        0.02,
        (88.2, 88.5, 61.0),
    ),
    "quasi_global": Method(
        "quasi-global momentum, ring",
        figures.method("quasi_global_momentum"),
        {"method": "quasi_global_momentum", **_MOMENTUM},
        0.05,
        (89.5, 84.8, 63.3),
    ),
    "gossip": Method("D-SGD, ring", figures.method("dsgd"), {"method": "dsgd_atc"}, 0.25, (87.4, 79.9, 53.9)),
}
DEALS = {
    # A worker's classes are drawn by Dir(alpha, ..., alpha); `partition` counts the sum of the parameters.
    alpha: f"dirichlet_per_client:{float(alpha) * CLASSES:g}"
    for alpha in ("1", "0.1", SKEWED)
} | {RANDOM: "iid"}
ALPHAS = ("1", "0.1", SKEWED)
ANY_SHARES = ("all_reduce", "all_reduce_momentum")
"""Methods that run on random shares only."""


class Scale(NamedTuple):
    """The task, how long it is trained, on how many held-out samples it is judged, and what is compared."""

    task: str
    steps: int
    batch: int
    held_out: int
    cells: tuple[tuple[str, str], ...]  # (method, shares), the decisive ones first
    seeds: int = 3
    rates: int = 3
    further: int = 2


_DECISIVE = (
    *((name, RANDOM) for name in ("all_reduce", "gossip")),
    *((name, SKEWED) for name in ("relay_tree", "quasi_global", "gossip")),
)
_SPREAD = tuple(name for name in METHODS if name not in ANY_SHARES)
_REST = tuple(
    cell
    for cell in (("all_reduce_momentum", RANDOM), *((name, alpha) for alpha in reversed(ALPHAS) for name in _SPREAD))
    if cell not in _DECISIVE
)
QUICK = Scale("fashion_mnist/cnn:8:16", 150, 16, 1000, _DECISIVE)
FULL = Scale("fashion_mnist/cnn", 200, 32, 1000, (*_DECISIVE, *_REST))


def run(name: str, shares: str, seed: int, rate: float, scale: Scale) -> Run:
    """One run of the table; skewed labels are dealt anew for each seed."""
    return Run(
        task=scale.task,
        nodes=N,
        partition=DEALS[shares],
        steps=scale.steps,
        batch=scale.batch,
        # Small differences between mean models need many samples, for which 16 models are too many.
        held_out=0 if shares == RANDOM else scale.held_out,
        evaluate="mean" if shares == RANDOM else "all",
        learning_rate=rate,
        schedule="steps",
        warmup=0.05,
        records=1,
        seed=seed,
        world=0 if shares == RANDOM else seed,
        **METHODS[name].settings,  # type: ignore[arg-type]
    )


def rates(name: str, count: int) -> list[float]:
    """The grid of learning rates of a method."""
    return [float(METHODS[name].middle * STEPS_BETWEEN_RATES ** (k - count // 2)) for k in range(count)]


def tuned(name: str, shares: str, scale: Scale, store: Store) -> dict[float, xr.Dataset]:
    """The first seed's run by learning rate; the grid grows while its best is at an end, up to twice."""
    grid = rates(name, scale.rates)
    found = dict(zip(grid, finished([run(name, shares, 0, rate, scale) for rate in grid], store), strict=True))
    for _ in range(scale.further):
        chosen = best(found)
        if chosen not in (min(found), max(found)):
            break
        rate = chosen * STEPS_BETWEEN_RATES if chosen == max(found) else chosen / STEPS_BETWEEN_RATES
        found |= {rate: finished([run(name, shares, 0, rate, scale)], store)[0]}
    return dict(sorted(found.items()))


def best(found: Mapping[float, xr.Dataset]) -> float:
    """The most accurate learning rate."""
    return max(found, key=lambda rate: float(found[rate].judged))


def finished(wanted: Sequence[Run], store: Store) -> list[xr.Dataset]:
    """The runs, computed where the store lacks them, with the accuracy that they are judged by: 0 if diverged."""
    complete(wanted, store)
    ends = [store.read(cell_hash(one)).isel(record=-1).fillna(0.0) for one in wanted]
    return [end.assign(judged=100 * (end.worst if "worst" in end else end.test)) for end in ends]


def compute(full: bool) -> xr.Dataset:
    return measured(FULL if full else QUICK, Store(RUNS))


def measured(scale: Scale, store: Store) -> xr.Dataset:
    """Test accuracies in per cent, of the mean model and of skewed workers, with the learning rates that were tried."""
    nodes, mean, ends, chosen = [], [], [], []
    trials = np.full((2, len(scale.cells), scale.rates + scale.further), np.nan)
    for k, (name, shares) in enumerate(scale.cells):
        tried = tuned(name, shares, scale, store)
        chosen.append(best(tried))
        trials[:, k, : len(tried)] = [*tried], [float(one.judged) for one in tried.values()]
        rest = finished([run(name, shares, seed, chosen[-1], scale) for seed in range(1, scale.seeds)], store)
        kept = [tried[chosen[-1]], *rest]
        nodes.append([100 * one.nodes.values if "nodes" in one else np.full(N, np.nan) for one in kept])
        ends.append([float(one.judged) for one in kept])
        mean.append([100 * float(one.test) for one in kept])
    names, shares = zip(*scale.cells, strict=True)
    return xr.Dataset(
        {
            "accuracy": (("cell", "seed", "node"), np.array(nodes)),
            "mean_model": (("cell", "seed"), np.array(mean)),
            "judged": (("cell", "seed"), np.array(ends)),
            "learning_rate": (("cell",), chosen),
            "tried": (("cell", "trial"), trials[0]),
            "judged_tried": (("cell", "trial"), trials[1]),
        },
        {"method": ("cell", list(names)), "shares": ("cell", list(shares))},
        {"task": scale.task, "steps": scale.steps, "batch": scale.batch, "held_out": scale.held_out},
    )


def cell(data: xr.Dataset, name: str, shares: str) -> xr.Dataset | None:
    """What was measured of a method on these shares, if it was run on them."""
    found = np.flatnonzero((data.method.values == name) & (data.shares.values == shares))
    return data.isel(cell=int(found[0])) if len(found) else None


def judged(data: xr.Dataset, name: str, shares: str) -> np.ndarray:
    """[seed], the worst worker's accuracy; of random shares the mean model's."""
    found = cell(data, name, shares)
    assert found is not None
    return found.judged.values


def places(data: xr.Dataset, name: str, deals: Sequence[str], kind: Sequence[str]) -> list[int]:
    """Where on the axis of all deals those of a kind are on which a method was run."""
    return [k for k, shares in enumerate(deals) if shares in kind and cell(data, name, shares) is not None]


def draw(data: xr.Dataset) -> figures.Figure:
    figure, (left, right) = figures.panels(1, 2, (4.2, 3.5))
    deals = [shares for shares in (RANDOM, *ALPHAS) if shares in data.shares.values]
    present, drawn = [name for name in METHODS if name in data.method.values], set()
    for name, shift in zip(present, np.linspace(-0.2, 0.2, len(present)), strict=True):
        method = METHODS[name]
        # The mean model on random shares is another quantity than the worst worker on skewed ones: no line joins them.
        for kind in ((RANDOM,), ALPHAS):
            own = {place: judged(data, name, deals[place]) for place in places(data, name, deals, kind)}
            if own:
                ends = np.array(list(own.values()))
                options = dict(method.look) | {"label": None if name in drawn else method.title}
                left.errorbar(np.array([*own]) + shift, ends.mean(1), ends.std(1, ddof=1), capsize=2, lw=1.1, **options)
                drawn.add(name)
        skewed = cell(data, name, SKEWED)
        if skewed is not None:
            ordered = np.sort(skewed.accuracy.values, axis=1)
            right.plot(1 + np.arange(data.node.size), ordered.mean(0), **method.look)
            right.fill_between(
                1 + np.arange(data.node.size),
                ordered.min(0),
                ordered.max(0),
                color=method.look["color"],
                alpha=0.15,
                lw=0,
            )
    titles = {RANDOM: "random shares,\nmean model"}
    left.set_xticks(range(len(deals)), [titles.get(shares, shares) for shares in deals])
    left.set(xlabel=r"Dirichlet $\alpha$ of the labels", ylabel="test accuracy [%]", title="the worst worker")
    right.set(xlabel="workers, worst to best", title=rf"all workers, $\alpha$ = {SKEWED}")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def shown(values: np.ndarray) -> str:
    return f"{values.mean():.1f} +- {values.std(ddof=1):.1f}"


def above(pairs: Sequence[tuple[np.ndarray, np.ndarray]], margin: float = 0.0) -> bool | None:
    """Whether the first of each pair is above the second less the margin, by two standard errors; None: open."""
    gaps = [paired(better - worse + margin) for better, worse in pairs]
    if any(mean <= -2 * error for mean, error in gaps):
        return False
    return True if all(mean >= 2 * error for mean, error in gaps) else None


def judge(data: xr.Dataset) -> list[figures.Claim]:
    seeds = data.seed.size
    present = set(zip(data.method.values, data.shares.values, strict=True))

    def compared(text: str, shares: str, pairs: Sequence[tuple[str, str]], margin: float = 0.0) -> list[figures.Claim]:
        """A claim on what is judged, if all of its methods were run."""
        names = list(dict.fromkeys(name for pair in pairs for name in pair))
        if any((name, shares) not in present for name in names):
            return []
        values = {name: judged(data, name, shares) for name in names}
        gaps = {
            f"gap of {METHODS[a].title} to {METHODS[b].title}": "{:.1f} +- {:.1f}".format(
                *paired(values[a] - values[b])
            )
            for a, b in pairs
        }
        each = sum(all(values[a][k] > values[b][k] - margin for a, b in pairs) for k in range(seeds))
        place = -1 if shares == RANDOM else ALPHAS.index(shares)
        return [
            figures.Claim(
                text,
                above([(values[a], values[b]) for a, b in pairs], margin),
                {METHODS[name].title: shown(values[name]) for name in names}
                | gaps
                | {"seeds in which it holds": f"{each} of {seeds}"},
                {METHODS[name].title: METHODS[name].published[place] for name in names} if place >= 0 else {},
            )
        ]

    claims = [
        *compared(
            "random shares: the mean model of D-SGD on the ring is at most 1 % below that of all-reduce",
            RANDOM,
            [("gossip", "all_reduce")],
            1.0,
        ),
        *compared(
            "alpha = 0.01: the worst worker's accuracy is highest with RelaySGD, then with quasi-global momentum, and "
            "lowest with D-SGD",
            SKEWED,
            [("relay_tree", "quasi_global"), ("quasi_global", "gossip")],
        ),
        *compared("alpha = 0.01: RelaySGD on the tree is above D-SGD", SKEWED, [("relay_tree", "gossip")]),
        *compared(
            "alpha = 0.01: so is RelaySGD on the chain above both of them",
            SKEWED,
            [("relay_chain", "quasi_global"), ("relay_chain", "gossip")],
        ),
        *compared("alpha = 0.01: RelaySGD is above D2", SKEWED, [("relay_tree", "d2"), ("relay_chain", "d2")]),
        *compared("alpha = 0.01: RelaySGD is above SGP", SKEWED, [("relay_tree", "push"), ("relay_chain", "push")]),
        *compared(
            "alpha = 0.01: on the chain, relaying models is above relaying updates (RelaySGD/Grad)",
            SKEWED,
            [("relay_chain", "relay_grad")],
        ),
    ]
    if all((name, shares) in present for name in ("relay_tree", "gossip") for shares in ALPHAS):
        lost = {name: judged(data, name, "1") - judged(data, name, SKEWED) for name in ("relay_tree", "gossip")}
        claims.append(
            figures.Claim(
                "from alpha = 1 to 0.01 D-SGD loses more than twice what RelaySGD loses",
                above([(lost["gossip"], 2 * lost["relay_tree"])]),
                {METHODS[name].title: shown(values) for name, values in lost.items()},
                {METHODS[name].title: METHODS[name].published[0] - METHODS[name].published[-1] for name in lost},
            )
        )
    return [*claims, context(data)]


def context(data: xr.Dataset) -> figures.Claim:
    """All of the table, with what Cifar-10 has in its place."""
    found: dict[str, object] = {}
    published: dict[str, object] = {}
    for k in range(data.sizes["cell"]):
        here = data.isel(cell=k)
        name, shares = str(here.method.values), str(here.shares.values)
        label = f"{METHODS[name].title}, {'random shares' if shares == RANDOM else f'alpha = {shares}'}"
        found[label] = shown(here.judged.values)
        if shares != RANDOM:
            found[f"{label}: mean model"] = shown(here.mean_model.values)
        found[f"{label}: by learning rate"] = {
            f"{rate:.3g}": round(value, 1)
            for rate, value in zip(here.tried.values.tolist(), here.judged_tried.values.tolist(), strict=True)
            if np.isfinite(rate)
        }
        if shares != RANDOM:
            published[label] = METHODS[name].published[ALPHAS.index(shares)]
        elif name in ANY_SHARES:
            published[label] = METHODS[name].published[0]
    return figures.Claim(
        f"the published accuracies are those of Cifar-10; ours are of {data.attrs['task']} after "
        f"{data.attrs['steps']} steps",
        None,
        found,
        published,
    )


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
