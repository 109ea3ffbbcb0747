r"""Seconds instead of steps: six methods on one simulated cluster with a straggler (A2CiD2 and DADAO, section on time).

Eight nodes on a ring; a gradient takes about a second (lognormal), a message of 100 MB over 10 Gbit/s and 20 ms of
latency a tenth. Node 0 is several times as slow as the others. `experiments.timelines` and `experiments.asynchronous`
tell who computes, exchanges and waits when; the methods then run on just these events.

    DDP          exact average after every gradient, a ring all-reduce
    local SGD    the same after every fourth gradient
    D-SGD        gossip with both neighbours after every gradient
    AD-PSGD      gradients never wait; about one exchange a gradient with a neighbour that is free; gradients are stale
    A2CiD2       the same rate, but as in the authors' code a node's next gradient waits for the exchanges it owes
    DADAO        links have Poisson clocks, at the rates of its theory for gradients that take a second on all nodes

The problem is logistic regression on the breast cancer data, with exact gradients of each node's share, so that curves
differ by communication and timing alone. SGD has the step 1 / L; DADAO has its theory's constants, although a
straggler's gradients are rarer than the theory asks for. Gradients of AD-PSGD are as stale as the schedule makes them;
those of A2CiD2 and DADAO are taken where they are applied, as in their theory. Shares are drawn at random (in the
experiments of the A2CiD2 paper all workers even see all data), or sorted by label.

Asynchronous SGD has a bias that synchronous SGD has not: a node that takes more gradients pulls harder. It settles near
the minimum of \sum_i w_i f_i, where w_i is node i's share of all gradients.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr

import adozoo
from experiments import data, figures, gantt, partition
from experiments.asynchronous import clocks, race
from experiments.clusters import Cluster, lognormal
from experiments.timelines import Timeline, all_reduce, gossip

N, PERIOD, L2 = 8, 4, 0.01
STRAGGLER, FACTOR = 0, 4.0
FACTORS = (1.0, 2.0, 4.0, 8.0, 16.0)
SHARES = {"iid": "random shares", "by_label": "shares sorted by label"}
SHOWN = 24.0
"""Seconds of the Gantt picture."""
TARGET = 1e-3
"""Suboptimality whose time is compared, with random shares."""
SETTLED = 0.5
"""Of the run; after that, asynchronous SGD's suboptimality is averaged."""
RING = adozoo.graphs.ring(N)


class Method(NamedTuple):
    """Title, look, and (cluster, seconds, seed) -> timeline; `build` takes (learning rate, events or None)."""

    title: str
    look: dict[str, Any]
    schedule: Callable[[Cluster, float, int], Timeline]
    build: Callable[..., optax.GradientTransformationExtraArgs]
    graph: Any = None


def cluster(factor: float) -> Cluster:
    plain = Cluster(N, lognormal(1.0, 0.2), lognormal(0.02, 0.5), message_bytes=1e8, bandwidth=1.25e9)
    return plain.with_straggler(STRAGGLER, factor)


def enough(
    schedule: Callable[..., Timeline], cluster: Cluster, seconds: float, seed: int, multiple: int = 1
) -> Timeline:
    """As many steps as it takes to fill the time on all nodes."""
    steps = multiple * (2 + int(seconds / cluster.mean_gradient_seconds / multiple))
    timeline = schedule(cluster, steps=steps, seed=seed)
    return timeline if timeline.ends[-1].min() >= seconds else enough(schedule, cluster, 1.5 * seconds, seed, multiple)


def _gossip(cluster: Cluster, steps: int, seed: int) -> Timeline:
    return gossip(cluster, RING, steps, seed)


def methods() -> dict[str, Method]:
    mean, mix = adozoo.exact_mean(N), adozoo.mixing(RING)
    nominal, fast = adozoo.resistance.normalize_rates(RING, "node_rate", 1.0), adozoo.dadao_rates(RING)
    look, palette = figures.method, figures.PALETTE
    return {
        "all_reduce": Method(
            "DDP",
            look("all_reduce_sgd"),
            partial(enough, all_reduce),
            lambda problem, events: adozoo.all_reduce_sgd(1 / problem.smoothness, mean),
        ),
        "local_sgd": Method(
            f"local SGD, H = {PERIOD}",
            {"color": palette["grey"], "marker": "D"},
            partial(enough, partial(all_reduce, period=PERIOD), multiple=PERIOD),
            lambda problem, events: adozoo.local_dsgd(1 / problem.smoothness, mean, PERIOD),
        ),
        "dsgd": Method(
            "D-SGD",
            look("dsgd"),
            partial(enough, _gossip),
            lambda problem, events: adozoo.dsgd(1 / problem.smoothness, mix),
        ),
        "ad_psgd": Method(
            "AD-PSGD",
            {"color": palette["orange"], "marker": "^"},
            lambda cluster, seconds, seed: race(cluster, RING, seconds, seed=seed),
            lambda problem, events: adozoo.ad_psgd(optax.sgd(1 / problem.smoothness), events),
            nominal,
        ),
        "acid": Method(
            "A2CiD2",
            {"color": palette["red"], "marker": "P"},
            lambda cluster, seconds, seed: race(cluster, RING, seconds, patience=0.0, seed=seed),
            lambda problem, events: adozoo.acid(optax.sgd(1 / problem.smoothness), events),
            nominal,
        ),
        "dadao": Method(
            "DADAO",
            {"color": palette["green"], "marker": "v"},
            lambda cluster, seconds, seed: clocks(cluster, fast, seconds, seed),
            lambda problem, events: adozoo.dadao(events, problem.strong_convexity, problem.smoothness),
            fast,
        ),
    }


def problem(shares: str, node_weights: Any = None) -> adozoo.problems.Linear:
    """Logistic regression over eight shares; with `node_weights`, of sum w_i f_i."""
    cancer = data.breast_cancer(intercept=True)
    parts = {"iid": partition.iid, "by_label": partition.by_label}[shares](cancer.labels, N)
    scale = np.sqrt(np.mean(np.sum(cancer.features**2, axis=1)))
    stacked = partition.stack(cancer.features / scale, cancer.labels, parts)
    factors = 1.0 if node_weights is None else N * node_weights[:, None]
    return adozoo.problems.logistic(stacked.features, stacked.labels, L2, factors * stacked.weights)


def synchronous(method: Method, target: Any, timelines: Sequence[Timeline], grid: np.ndarray) -> np.ndarray:
    """Suboptimality at each second of `grid`: that after the last step that all nodes have ended, [timeline, time]."""
    steps = max(len(timeline.ends) for timeline in timelines)
    run = jax.jit(
        lambda x: adozoo.simulate(method.build(target, None), target.gradient, x, steps, None, target.metrics())
    )
    trace = np.asarray(run(target.init())[2]["suboptimality"])
    curve = np.append(float(target.loss(target.init()[0]) - target.optimal_value), trace)
    done = [np.searchsorted(timeline.ends.max(axis=1), grid, side="right") for timeline in timelines]
    return np.stack([curve[steps] for steps in done])


def asynchronous(method: Method, target: Any, timelines: Sequence[Timeline], grid: np.ndarray) -> np.ndarray:
    """The same for events, with all nodes brought to each second of `grid`."""
    events = [
        adozoo.events.recorded(one.events, N, method.graph, float(grid[-1]), marks=grid[1:-1], lags=one.lags)
        for one in timelines
    ]

    def run(events: Any) -> Any:
        tx = method.build(target, events)
        return adozoo.simulate_events(tx, target.gradient, target.init(), events, None, target.metrics())[2]

    return np.asarray(jax.jit(jax.vmap(run))(adozoo.events.stack(events))["suboptimality"])


def curves(method: Method, shares: str, timelines: Sequence[Timeline], grid: np.ndarray) -> np.ndarray:
    """Suboptimality of the mean over nodes, [timeline, time]."""
    target = problem(shares)
    cut = [timeline.until(float(grid[-1])) for timeline in timelines]
    return (synchronous if method.graph is None else asynchronous)(method, target, cut, grid)


def first_below(curve: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The first time of `grid` at which each curve is at most TARGET; nan if never."""
    below = curve <= TARGET
    return np.where(below.any(-1), grid[below.argmax(-1)], np.nan)


def compute(full: bool) -> xr.Dataset:
    seeds, grid = 10 if full else 2, np.arange(0.0, 601.0 if full else 301.0)
    rows: dict[str, list[Any]] = {key: [] for key in ("curves", "seconds", "gradients", "idle", "threads", "intervals")}
    for number, method in enumerate(methods().values()):
        timelines = {
            (factor, seed): method.schedule(cluster(factor), grid[-1], seed)
            for factor in FACTORS
            for seed in range(seeds)
        }
        even = dict(zip(timelines, curves(method, "iid", [*timelines.values()], grid), strict=True))
        one = timelines[FACTOR, 0].until(grid[-1])
        rows["curves"].append([even[FACTOR, 0], curves(method, "by_label", [one], grid)[0]])
        rows["seconds"].append(np.reshape([first_below(curve, grid) for curve in even.values()], (len(FACTORS), seeds)))
        for key in ("gradients", "idle", "threads"):
            rows[key].append(getattr(one, key))
        kept = one.start < SHOWN
        columns = [getattr(one, key)[kept] for key in ("node", "start", "end", "what")]
        rows["intervals"].append(np.stack([np.full(kept.sum(), number), *columns], axis=1))
    names = list(methods())
    gradients = rows["gradients"][names.index("ad_psgd")]
    return xr.Dataset(
        {
            "suboptimality": (("algorithm", "shares", "time"), np.array(rows["curves"])),
            "seconds": (("algorithm", "factor", "seed"), np.array(rows["seconds"])),
            "gradients": (("algorithm", "node"), np.array(rows["gradients"])),
            "idle": (("algorithm", "node"), np.array(rows["idle"])),
            "threads": ("algorithm", rows["threads"]),
            "intervals": (("interval", "column"), np.concatenate(rows["intervals"])),
            "reweighted": ("shares", [reweighted(shares, gradients) for shares in SHARES]),
        },
        {
            "algorithm": names,
            "shares": list(SHARES),
            "time": grid,
            "factor": list(FACTORS),
            "column": ["algorithm", "node", "start", "end", "what"],
        },
    )


def reweighted(shares: str, gradients: np.ndarray) -> float:
    """f - f* at the minimum of sum w_i f_i, with w_i node i's share of all gradients."""
    target = problem(shares)
    optimum = problem(shares, gradients / gradients.sum()).optimum
    return float(target.loss(optimum) - target.optimal_value)


def shown(data: xr.Dataset) -> dict[str, Timeline]:
    """The beginnings of the timelines, as far as the picture shows them."""
    found = {}
    for number, name in enumerate(data.algorithm.values):
        _, node, start, end, what = data.intervals.values[data.intervals.values[:, 0] == number].T
        threads = int(data.threads.sel(algorithm=name))
        parts = node.astype(int), start, end, what.astype(int)
        found[methods()[str(name)].title] = Timeline(N, SHOWN, *parts, threads, np.empty((0, N)), np.empty((0, 4)))
    return found


def draw(data: xr.Dataset) -> figures.Figure:
    names = [str(name) for name in data.algorithm.values]
    figure = figures.Figure(figsize=(10.5, 8.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.15, 1))
    gantt.column(left.subplots(len(names), 1, sharex=True), shown(data), SHOWN, [STRAGGLER])
    left.suptitle(f"node {STRAGGLER} is {FACTOR:g} times as slow", fontsize=9.5)
    left.legend(handles=gantt.handles(), loc="outside lower center", ncols=3)
    axes = right.subplots(len(SHARES) + 1, 1)
    for name in names:
        method = methods()[name]
        for axis, shares in zip(axes, SHARES, strict=False):
            curve = data.suboptimality.sel(algorithm=name, shares=shares)
            every = len(data.time) // 8
            axis.semilogy(data.time, curve, label=method.title, markevery=every, **method.look)
        spread = data.seconds.sel(algorithm=name)
        axes[-1].loglog(data.factor, spread.mean("seed"), label=method.title, **method.look)
    for axis, (shares, title) in zip(axes, SHARES.items(), strict=False):
        level = float(data.reweighted.sel(shares=shares))
        axis.axhline(level, color="0.4", lw=0.8, ls="--")
        axis.text(
            0.99 * data.time[-1], 1.3 * level, "reweighted minimum", ha="right", va="bottom", color="0.3", fontsize=8
        )
        lowest = max(1e-10, 0.5 * float(data.suboptimality.sel(shares=shares).min()))
        axis.set(title=title, xlabel="seconds", ylabel="suboptimality", ylim=(lowest, 1), xlim=(0, data.time[-1]))
    last = axes[-1]
    last.set_xticks(FACTORS, [f"{factor:g}" for factor in FACTORS])
    ticks = [tick for tick in (10, 20, 50, 100, 200, 500) if tick <= data.time[-1]]
    last.set_yticks(ticks, list(map(str, ticks)))
    last.minorticks_off()
    last.set(xlabel="how many times as slow node 0 is", ylabel="seconds")
    last.set_title(f"{SHARES['iid']}: time to a suboptimality of {TARGET:g}")
    right.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def judge(data: xr.Dataset) -> list[figures.Claim]:
    return [waits(data), does_not_wait(data), counts(data), rendezvous(data), settles(data), exact(data)]


SYNCHRONOUS, ASYNCHRONOUS = ("all_reduce", "local_sgd", "dsgd"), ("ad_psgd", "acid", "dadao")


def title(name: str) -> str:
    return methods()[name].title


def growth(data: xr.Dataset, name: str) -> float:
    """How many times as long it takes with the slowest straggler as without one."""
    seconds = data.seconds.sel(algorithm=name).mean("seed", skipna=False)
    return float(seconds[-1] / seconds[0])


def times(data: xr.Dataset, names: Sequence[str]) -> dict[str, Any]:
    reached = data.seconds.mean("seed", skipna=False)
    return {f"{title(name)}, seconds for factors {FACTORS}": reached.sel(algorithm=name).values for name in names} | {
        f"{title(name)}, ratio": growth(data, name) for name in names
    }


def waits(data: xr.Dataset) -> figures.Claim:
    slower = FACTORS[-1] / FACTORS[0]
    return figures.Claim(
        f"a node {slower:g} times as slow makes synchronous methods at least {slower / 2:g} times as slow",
        all(growth(data, name) >= slower / 2 for name in SYNCHRONOUS),
        times(data, SYNCHRONOUS),
    )


def does_not_wait(data: xr.Dataset) -> figures.Claim:
    slower = FACTORS[-1] / FACTORS[0]
    return figures.Claim(
        f"the time of asynchronous methods is not set by the slowest node: {slower:g} times as slow, it makes them at "
        f"most {slower / 4:g} times as slow",
        all(growth(data, name) <= slower / 4 for name in ASYNCHRONOUS),
        times(data, ASYNCHRONOUS),
    )


def counts(data: xr.Dataset) -> figures.Claim:
    slowest, fastest = data.gradients.min("node"), data.gradients.max("node")
    ratio = fastest / slowest
    free = ratio.sel(algorithm=["ad_psgd", "dadao"])
    return figures.Claim(
        "gradients by the slowest and the fastest node: about equal in synchronous methods, about in the ratio of "
        "their speeds in AD-PSGD and DADAO, in between in A2CiD2",
        bool(
            (ratio.sel(algorithm=list(SYNCHRONOUS)) < 1.15).all()
            and (abs(free / FACTOR - 1) < 0.25).all()
            and 1.5 < ratio.sel(algorithm="acid") < free.min()
        ),
        {
            title(name): f"{int(slowest.sel(algorithm=name))} and {int(fastest.sel(algorithm=name))}"
            for name in map(str, data.algorithm.values)
        },
    )


def rendezvous(data: xr.Dataset) -> figures.Claim:
    fast = data.idle.isel(node=[i for i in range(N) if i != STRAGGLER]).mean("node")
    acid = data.gradients.sel(algorithm="acid").values
    return figures.Claim(
        "where gradients wait for owed exchanges, fast nodes wait too, since both sides of an even ring exchange "
        "equally often, but for less than half of what they wait in DDP",
        bool(0.02 < fast.sel(algorithm="acid") < 0.5 * fast.sel(algorithm="all_reduce")),
        {
            f"{title(name)}, idle share of fast nodes": float(fast.sel(algorithm=name))
            for name in map(str, fast.algorithm.values)
        }
        | {"A2CiD2, gradients of even and of odd nodes": [int(acid[::2].sum()), int(acid[1::2].sum())]},
    )


def settled(data: xr.Dataset, name: str) -> np.ndarray:
    late = data.suboptimality.sel(algorithm=name).isel(time=slice(int(SETTLED * data.time.size), None))
    return late.mean("time").values


def settles(data: xr.Dataset) -> figures.Claim:
    expected = data.reweighted.values
    found = settled(data, "ad_psgd")
    return figures.Claim(
        "asynchronous SGD settles where losses weighted by the numbers of gradients are least, and not at the optimum: "
        "within a third of its suboptimality",
        bool(np.all(np.abs(found / expected - 1) < 1 / 3)),
        {
            "suboptimality of the reweighted minimum, random shares and sorted": expected,
            "AD-PSGD": found,
            "A2CiD2": settled(data, "acid"),
        },
    )


def exact(data: xr.Dataset) -> figures.Claim:
    last = data.suboptimality.isel(time=-1)
    others = [name for name in map(str, data.algorithm.values) if name != "dadao"]
    return figures.Claim(
        "DADAO needs no equal clocks to be exact: at the end it is ten times closer to the optimal value than any "
        "other method, for random and for sorted shares",
        bool((last.sel(algorithm="dadao") < 0.1 * last.sel(algorithm=others).min("algorithm")).all()),
        {title(name): last.sel(algorithm=name).values for name in map(str, data.algorithm.values)},
    )


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
