r"""RelaySGD (Vogels et al., NeurIPS 2021), figure 2: topology and scalability.

Steps to f(mean) - f* <= 1e-6 on random least squares (d = 10), each with its own best learning rate, against the number
of workers. Left: methods that converge to the optimum, and SGP on the time-varying exponential graph, from distance
100. Right: methods that end on a plateau, which the search puts just below 1e-6, from distance 10. Above on a ring (on a
chain, for relays), below on a binary tree.

Deviations: problems are drawn with our own generator, and --quick draws 3 a point instead of 10, at fewer sizes on the
right. For n = 4, 6, 12 the paper's own problems of seed 0 are run as well, and compared one by one. D2's mixing matrix
is moved by 1e-6 towards the identity: on a ring of even length Metropolis weights have the eigenvalue -1/3, just outside
its theory. SGP's steps have two rounds each, which the paper counts as one.
Where the paper's code looks for the fastest run it notes half of the learning rate used; ours is the one used.
"""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

import adozoo
from experiments import figures
from paper_figures.relaysgd import _quadratics
from paper_figures.relaysgd._methods import METHODS, mixing

PANELS = {
    "exact": {
        "ring or chain": (
            "relay_sgd on chain",
            "d2 on ring",
            "gradient_tracking on ring",
            "push on exponential",
            "all_reduce on ring",
        ),
        "binary tree": ("relay_sgd on tree", "gradient_tracking on tree"),
    },
    "plateau": {
        "ring or chain": ("gossip on ring", "relay_sgd_grad on chain"),
        "binary tree": ("gossip on tree", "relay_sgd_grad on tree"),
    },
}
SIZES = {"exact": (6, 12, 24, 48, 96), "plateau": (4, 6, 8, 12, 16, 24, 32, 48, 64)}
QUICK_SIZES = {"exact": SIZES["exact"], "plateau": (4, 6, 12, 16, 64)}
ZETAS = {"exact": (0.01, 1.0), "plateau": (0.0, 0.01, 0.1)}
DISTANCE = {"exact": 100.0, "plateau": 10.0}
START = {"exact": 10.0, "plateau": 100.0}
PAPERS_SIZES = (4, 6, 12)
PAPERS_NAMES = {
    "RelaySum/Model": "relay_sgd",
    "RelaySum/Grad": "relay_sgd_grad",
    "Gossip": "gossip",
    "D2": "d2",
    "Gradient tracking": "gradient_tracking",
    "SGP": "push",
    "All-reduce": "all_reduce",
}
STYLES = {0.0: ":", 0.01: "-", 0.1: "--", 1.0: "--"}

PUBLISHED_SIZES = {"exact": (6, 12, 24, 48, 96), "plateau": (4, 8, 16, 32, 64)}
# Means over 10 seeds, by zeta^2.
PUBLISHED = {
    "relay_sgd on chain": dict.fromkeys(ZETAS["exact"], (21, 38, 70, 128, 243)),
    "d2 on ring": dict.fromkeys(ZETAS["exact"], (20, 42, 79, 186, 218)),
    "gradient_tracking on ring": dict.fromkeys(ZETAS["exact"], (49, 199, 699, 2534, 7756)),
    "all_reduce on ring": dict.fromkeys(ZETAS["exact"], (9, 8, 7, 6, 6)),
    "relay_sgd on tree": dict.fromkeys(ZETAS["exact"], (15, 21, 27, 33, 36)),
    "gradient_tracking on tree": dict.fromkeys(ZETAS["exact"], (156, 405, 886, 1742, 3171)),
    "push on exponential": {0.01: (108, 113, 51, 39, 22), 1.0: (1079, 1238, 617, 540, 344)},
    "gossip on ring": {0.0: (8,) * 5, 0.01: (119, 423, 903, 1201, 1272), 0.1: (396, 1460, 3257, 5489, 8208)},
    "relay_sgd_grad on chain": {
        0.0: (17, 37, 79, 163, 318),
        0.01: (86, 65, 90, 187, 381),
        0.1: (305, 305, 239, 262, 374),
    },
    "gossip on tree": {0.1: (2581, 3451, 5436, 6570, 6376)},
    "relay_sgd_grad on tree": {0.0: (13, 25, 40, 57, 74), 0.1: (228, 179, 134, 69, 86)},
}


def tuned(curve: str, kind: str, n: int, zeta2: float, draws: int) -> np.ndarray:
    """(steps, learning rate) on the paper's problem, nan where it is not known, and on ours: [2, 1 + draws]."""
    key, _, topology = curve.partition(" on ")
    ours = [_quadratics.random_least_squares(n, zeta2, DISTANCE[kind], seed) for seed in range(draws)]
    papers = [_quadratics.papers_problem(n, zeta2, DISTANCE[kind])] if n in PAPERS_SIZES else []
    problems, exact = _quadratics.stack(papers + ours), kind == "exact" or zeta2 == 0
    found = _quadratics.tune(METHODS[key].on(topology, n), problems, exact, START[kind])
    return np.hstack([np.full((2, 1 - len(papers)), np.nan), found])


def compute(full: bool) -> xr.Dataset:
    draws, sizes = (10, SIZES) if full else (3, QUICK_SIZES)
    data = xr.Dataset(coords={"draw": ["paper's", *map(str, range(draws))]})
    for kind, panels in PANELS.items():
        curves = [curve for panel in panels.values() for curve in panel]
        found = np.array(
            [[[tuned(curve, kind, n, zeta2, draws) for n in sizes[kind]] for zeta2 in ZETAS[kind]] for curve in curves]
        )
        names = tuple(f"{kind}_{name}" for name in ("curve", "zeta2", "n"))
        coords = dict(zip(names, (curves, list(ZETAS[kind]), list(sizes[kind])), strict=True))
        for index, name in enumerate(("steps", "learning_rate")):
            array = xr.DataArray(found[..., index, :], dims=(*names, "draw"), coords=coords)
            data[f"{kind}_{name}"] = array
    return data


def means(data: xr.Dataset, kind: str, curve: str, zeta2: float) -> dict[int, float]:
    """n -> mean number of steps over our draws."""
    chosen = data[f"{kind}_steps"].isel(draw=slice(1, None)).sel({f"{kind}_curve": curve, f"{kind}_zeta2": zeta2})
    return {int(n): float(value) for n, value in zip(data[f"{kind}_n"], chosen.mean("draw"), strict=True)}


def published(kind: str, curve: str, zeta2: float) -> dict[int, float]:
    return dict(zip(PUBLISHED_SIZES[kind], PUBLISHED[curve].get(zeta2, ()), strict=False))


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axes = figures.panels(2, 2, (4.4, 3.1), sharex="col", sharey="col")
    for column, (kind, panels) in zip(axes.T, PANELS.items(), strict=True):
        for axis, (topology, curves) in zip(column, panels.items(), strict=True):
            for curve in curves:
                look = METHODS[curve.partition(" on ")[0]].look
                for zeta2 in ZETAS[kind]:
                    ours, papers = means(data, kind, curve, zeta2), published(kind, curve, zeta2)
                    hollow = {"mfc": "white"} if zeta2 > 0.01 else {}
                    axis.plot(*zip(*ours.items(), strict=True), STYLES[zeta2], **look, **hollow)
                    axis.plot(papers.keys(), papers.values(), "x", color="k", ms=6, mew=1, zorder=5)
            axis.set(xscale="log", yscale="log", title=f"{'to the optimum' if kind == 'exact' else kind}, {topology}")
            axis.set_xticks(data[f"{kind}_n"].values, [str(n) for n in data[f"{kind}_n"].values])
            axis.minorticks_off()
        column[-1].set_xlabel("workers")
    for axis in axes[:, 0]:
        axis.set_ylabel(r"steps to $10^{-6}$")
    for method in METHODS.values():
        axes[0, 0].plot([], [], label=method.title, **method.look)
    for label, style, face in (("0", ":", "0.4"), ("0.01", "-", "0.4"), ("0.1 (right), 1 (left)", "--", "white")):
        axes[0, 0].plot([], [], "o" + style, color="0.4", mfc=face, label=rf"$\zeta^2$ = {label}")
    axes[0, 0].plot([], [], "x", color="k", label="published means")
    figure.legend(loc="outside right upper")
    return figure


def rows_reproduced(data: xr.Dataset) -> tuple[int, int, int]:
    """(rows of the paper's notebook for problems that are known, of these with equal steps, and learning rates)."""
    rows = steps = rates = 0
    for zeta2, distance, topology, algorithm, n, their_steps, noted in _quadratics.published()["rows"]:
        kind = "exact" if distance == DISTANCE["exact"] else "plateau"
        curve = f"{PAPERS_NAMES[algorithm]} on {'ring' if algorithm == 'All-reduce' else topology}"
        if n not in PAPERS_SIZES or n not in data[f"{kind}_n"]:
            continue
        run = {f"{kind}_curve": curve, f"{kind}_zeta2": zeta2, f"{kind}_n": n, "draw": "paper's"}
        halved = kind == "exact" or zeta2 == 0
        rows += 1
        steps += int(data[f"{kind}_steps"].sel(run) == their_steps)
        rates += bool(np.isclose(data[f"{kind}_learning_rate"].sel(run), noted * (2 if halved else 1), rtol=1e-8))
    return rows, steps, rates


def judge(data: xr.Dataset) -> list[figures.Claim]:
    sizes = [int(n) for n in data.exact_n]
    large, zetas = sizes[-1], ZETAS["exact"]

    def table(kind: str, curves: Sequence[str], of: Callable[..., dict[int, float]]) -> dict[str, list[float]]:
        values = {(c, z): of(kind, c, z) for c in curves for z in ZETAS[kind]}
        ns = PUBLISHED_SIZES[kind]
        return {f"{c}, zeta^2 = {z:g}": [v[n] for n in ns if n in v] for (c, z), v in values.items() if v}

    def ours(kind: str, curve: str, zeta2: float) -> dict[int, float]:
        return means(data, kind, curve, zeta2)

    exact = {(c, z): ours("exact", c, z) for c in data.exact_curve.values for z in zetas}
    relays = data.exact_steps.isel(exact_curve=[name.startswith("relay") for name in data.exact_curve.values])
    apart = abs(relays.sel(exact_zeta2=0.01) - relays.sel(exact_zeta2=1.0)).max()
    chain, tree = (np.array([exact[f"relay_sgd on {t}", 1.0][n] for n in sizes]) for t in ("chain", "tree"))
    slope = np.polyfit(sizes, chain, 1)[0]
    growth = np.polyfit(np.log2(sizes), tree, 1)
    misfit = np.abs(np.polyval(growth, np.log2(sizes)) - tree).max()
    power = np.polyfit(np.log(sizes), np.log([exact["gradient_tracking on ring", 1.0][n] for n in sizes]), 1)[0]
    converging = [c for c in data.exact_curve.values if not c.startswith(("push", "all_reduce"))]
    best = {z: min(converging, key=lambda c, z=z: exact[c, z][large]) for z in zetas}
    push = {z: np.array([exact["push on exponential", z][n] for n in sizes]) for z in zetas}
    rows, steps, rates = rows_reproduced(data)
    lowest = {n: float(adozoo.weights.smallest_eigenvalue(mixing("tree", n).matrix)) for n in sizes}
    at = int(data.plateau_n.max())
    ends = {c: [ours("plateau", c, z)[at] for z in (0.0, 0.1)] for c in data.plateau_curve.values}
    compared = [
        (ours(kind, c, z)[n] / value, f"{c}, zeta^2 = {z:g}, n = {n}")
        for kind, panels in PANELS.items()
        for c in (c for panel in panels.values() for c in panel)
        for z in ZETAS[kind]
        for n, value in published(kind, c, z).items()
        if n in data[f"{kind}_n"]
    ]
    furthest = max(compared, key=lambda pair: abs(np.log(pair[0])))
    both = [*PANELS["plateau"]["ring or chain"], *PANELS["plateau"]["binary tree"]]
    return [
        figures.Claim(
            "on the paper's own problems (n = 4, 6, 12; seed 0) steps and learning rates are the printed ones, run by run",
            rows == steps == rates,
            {"runs": rows, "equal steps": steps, "equal learning rates": rates},
        ),
        figures.Claim(
            "mean steps of methods that converge (and SGP)",
            None,
            {"n": sizes, **table("exact", list(data.exact_curve.values), ours)},
            table("exact", list(data.exact_curve.values), published),
        ),
        figures.Claim(
            "mean steps of methods that end on a plateau, at those sizes whose means are published",
            None,
            {"n": [int(n) for n in data.plateau_n if n in PUBLISHED_SIZES["plateau"]], **table("plateau", both, ours)},
            table("plateau", both, published),
        ),
        figures.Claim(
            "all means are within a factor of two of the published ones, which are of other random problems",
            bool(1 / 2 <= furthest[0] <= 2),
            {"points": len(compared), "largest ratio ours / published": furthest[0], "at": furthest[1]},
        ),
        figures.Claim(
            "RelaySGD takes as many steps for zeta^2 = 0.01 as for 1, run by run (give or take one)",
            bool(apart <= 1),
            {"largest difference over runs and sizes": float(apart)},
        ),
        figures.Claim(
            "RelaySGD's steps are linear in the number of workers on a chain, about 2.5 a worker",
            bool(2.2 <= slope <= 2.8),
            {"steps a worker": float(slope)},
            {"steps a worker": float(np.polyfit(sizes, PUBLISHED["relay_sgd on chain"][1.0][: len(sizes)], 1)[0])},
        ),
        figures.Claim(
            "RelaySGD's steps are logarithmic in the number of workers on a tree: affine in log2(n), to 2 steps",
            bool(misfit <= 2),
            {
                "steps a doubling": float(growth[0]),
                "largest misfit": float(misfit),
                "at the largest n": float(tree[-1]),
            },
            {"at the largest n": PUBLISHED["relay_sgd on tree"][1.0][-1]},
        ),
        figures.Claim(
            f"of the decentralised methods that converge, RelaySGD on the tree is the fastest at n = {large}",
            set(best.values()) == {"relay_sgd on tree"},
            {f"fastest, zeta^2 = {z:g}": name for z, name in best.items()},
        ),
        figures.Claim(
            f"RelaySGD on the tree is also faster than SGP at n = {large}, for both zeta^2",
            bool(all(tree[-1] < push[z][-1] for z in zetas)),
            {"RelaySGD": float(tree[-1]), **{f"SGP, zeta^2 = {z:g}": float(push[z][-1]) for z in zetas}},
            {"RelaySGD": 36, "SGP, zeta^2 = 0.01": 22, "SGP, zeta^2 = 1": 344},
        ),
        figures.Claim(
            "gradient tracking's steps grow about as n^2 on a ring (a power between 1.6 and 2.2)",
            bool(1.6 <= power <= 2.2),
            {"power of n": float(power)},
            {"power of n": float(np.polyfit(np.log(sizes), np.log(PUBLISHED["gradient_tracking on ring"][1.0]), 1)[0])},
        ),
        figures.Claim(
            "SGP degrades with heterogeneity: at least 5 times the steps at every n > 4 for 100 times zeta^2",
            bool((push[1.0] >= 5 * push[0.01]).all()),
            {"n": sizes, "ratio": push[1.0] / push[0.01]},
        ),
        figures.Claim(
            "D2 cannot run on the tree: an eigenvalue of the mixing matrix is below -1/3",
            any(value < -1 / 3 for value in lowest.values()),
            {f"smallest eigenvalue, n = {n}": value for n, value in lowest.items()},
        ),
        figures.Claim(
            f"RelaySGD/Grad depends little on heterogeneity where there are many workers (n = {at}; less than a factor 1.5 "
            "from zeta^2 = 0 to 0.1), D-SGD much (more than 100)",
            all(
                (high < 1.5 * low) if name.startswith("relay") else (high > 100 * low)
                for name, (low, high) in ends.items()
            ),
            {name: value for name, value in ends.items()},
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
