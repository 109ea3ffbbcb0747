r"""RelaySGD (Vogels et al., NeurIPS 2021), appendix figure 5: what a tree costs, rho = m / p against its size.

(1 - p)^m = ||W~^m - W~^inf|| / ||W~ - W~^inf|| for the matrix W~ of a step with overlap (largest delay = diameter),
and m is the one that makes rho least. Right, for comparison, how long the last of the deviation takes to fade:
1 / (1 - |lambda_2|^2). Crosses are what the authors' code gives. All is exact; --full does the same.
"""

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

import theory
from experiments import figures
from paper_figures.relaysgd._methods import GRAPHS

TREES = {"chain": "path", "tree": "heap_binary_tree", "star": "star"}
LABELS = {"chain": "chain", "tree": "binary tree", "star": "star"}
SIZES = (2, 3, 4, 5, 6, 8, 12, 16, 24, 32)
PUBLISHED_32 = {"chain": 296.20, "tree": 205.64, "star": 95.859}


def published() -> dict[str, dict[int, float]]:
    """rho by tree and size, from the authors' code."""
    path = figures.ROOT / "tests/reference/relay_theory.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["values"]
    found: dict[str, dict[int, float]] = {tree: {} for tree in TREES}
    for name, row in rows.items():
        tree, _, n = name.rpartition("-")
        found["tree" if tree == "binary_tree" else tree][int(n)] = row["rho"]
    return {tree: found[tree] | {32: PUBLISHED_32[tree]} for tree in TREES}


def compute(full: bool) -> xr.Dataset:
    del full  # the paper's sizes are quick
    return constants(SIZES)


def constants(sizes: Sequence[int]) -> xr.Dataset:
    """Largest delay, |lambda_2|, m, p and rho of each tree and size."""
    found = np.array([[theory.relay_constants(GRAPHS[tree](n)) for n in sizes] for tree in TREES], float)
    names = theory.RelayConstants._fields
    values = {name: (("tree", "n"), found[:, :, k]) for k, name in enumerate(names)}
    return xr.Dataset(values, {"tree": list(TREES), "n": list(sizes)})


def draw(data: xr.Dataset) -> figures.Figure:
    figure, (left, right) = figures.panels(1, 2, (3.8, 3.2))
    for tree, family in TREES.items():
        here, look = data.sel(tree=tree), figures.topology(family)
        left.plot(here.n, here.rho, label=LABELS[tree], **look)
        right.plot(here.n, 1 / (1 - here.lambda_2**2), **look)
        papers = published()[tree]
        left.plot(papers.keys(), papers.values(), "x", color="black", ms=8, mew=1, zorder=5)
    left.plot([], [], "x", color="black", ms=8, mew=1, label="the authors' code")
    for axis, label in ((left, r"$\rho = m / p$"), (right, r"$1 / (1 - |\lambda_2|^2)$")):
        axis.set(xscale="log", yscale="log", xlabel="workers", ylabel=label)
        ticks = [int(n) for n in data.n if int(n) not in (3, 5, 6, 12, 24)]
        axis.set_xticks(ticks, [str(n) for n in ticks])
        axis.minorticks_off()
    right.set_yticks((2, 5, 10, 20), ("2", "5", "10", "20"))
    left.legend()
    return figure


def judge(data: xr.Dataset) -> list[figures.Claim]:
    ours, papers, apart = {}, {}, []
    for tree, rows in published().items():
        for n in sorted(set(rows) & set(data.n.values.tolist())):
            ours[f"{LABELS[tree]}, n = {n}"] = float(data.rho.sel(tree=tree, n=n))
            papers[f"{LABELS[tree]}, n = {n}"] = rows[n]
            # five digits are known at n = 32, ten elsewhere
            apart.append(abs(ours[f"{LABELS[tree]}, n = {n}"] / rows[n] - 1) / (2e-5 if n == 32 else 1e-8))
    large = data.sel(n=[n for n in data.n.values if n >= 4])
    powers = {tree: float(np.polyfit(np.log(large.n), np.log(large.rho.sel(tree=tree)), 1)[0]) for tree in TREES}
    ordered = (large.rho.sel(tree="star") <= large.rho.sel(tree="tree") * (1 + 1e-9)) & (
        large.rho.sel(tree="tree") <= large.rho.sel(tree="chain")
    )
    return [
        figures.Claim(
            "rho is what the authors' code gives, to all digits known",
            bool(max(apart) <= 1),
            ours,
            papers,
        ),
        figures.Claim(
            "at every size from 4 the chain has the largest rho, and the star the smallest",
            bool(ordered.all()),
            {f"{LABELS[tree]}, n = {int(data.n[-1])}": float(data.rho.sel(tree=tree)[-1]) for tree in TREES},
        ),
        figures.Claim(
            "rho grows linearly on the chain (a power of n between 0.9 and 1.1; from n = 4)",
            0.9 <= powers["chain"] <= 1.1,
            {LABELS[tree] + ", power": power for tree, power in powers.items()},
        ),
        figures.Claim(
            "on the binary tree it grows more slowly, as the diameter does (a power below 0.9; an expectation of ours)",
            powers["tree"] < 0.9,
            {"power": powers["tree"], "largest delays": data.tau.sel(tree="tree").values},
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
