"""The main job: every exact method, and D-SGD, on real data, with measured rates beside the rates that theory predicts.

l2-logistic regression on scikit-learn's breast cancer set, split by label over the nodes of a ring: every node sees
almost only one class, so that the nodes' own optima differ widely. Each method runs at one step size shared by all, and
at the best one of a grid for it; its exact rate is read off its implementation by `theory.linearize`.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from tqdm import tqdm

import adozoo
import theory
from adozoo.zoo import Entry
from experiments import data, partition

EDGE_WEIGHT = 0.3
"""W = I - 0.3 Laplacian has smallest eigenvalue -0.2 on even rings; D2 needs more than the -1/3 of Metropolis."""
TARGET = 1e-6
"""Methods are timed until the relative distance to the optimum, sqrt(mean ||x_i - x*||^2) / ||x*||, is below this."""
SHARED = 0.5
"""The step size shared by all, times L."""
GRID = np.geomspace(0.25, 32, 15)
"""Step sizes tried for each method, times L."""


@dataclass(frozen=True)
class Row:
    """One method at one step size: what was measured, and what theory says."""

    method: str
    title: str
    exact_method: bool
    choice: str
    learning_rate: float
    options: dict[str, float]
    vectors: float  # sent by a node in a step, on average
    bits: float  # sent by all nodes in a step
    measured: theory.FittedRate
    exact: float
    bias: float
    predicted_bias: float
    distances: np.ndarray

    @property
    def difference(self) -> float:
        """How far the measured rate is from the exact one, relatively."""
        return self.measured.rate / self.exact - 1

    @property
    def steps_to_target(self) -> int | None:
        """The first step after which the relative distance stays below the target to the end, if it does."""
        late = np.flatnonzero(~(self.distances <= TARGET))
        last = int(late[-1]) + 1 if late.size else 0
        return last + 1 if last < self.distances.size else None


def build_problem(nodes: int, l2: float) -> adozoo.problems.Linear:
    """Breast cancer, split by label over the nodes; (1/n) sum f_i is the average logistic loss of all 569 samples."""
    cancer = data.breast_cancer()
    parts = partition.by_label(cancer.labels, nodes)
    stacked = partition.stack(cancer.features, cancer.labels, parts)
    return adozoo.problems.logistic(stacked.features, stacked.labels, l2, stacked.weights)


def build_mixing(nodes: int) -> adozoo.Mixing:
    """The ring with the same weight on every edge."""
    laplacian = nx.laplacian_matrix(adozoo.graphs.ring(nodes)).toarray()
    return adozoo.mixing(np.eye(nodes) - EDGE_WEIGHT * laplacian)


def start(problem: Any) -> Any:
    """One random point for all nodes, as far from the optimum as zero is: it excites all modes, which zero may not."""
    direction = jax.random.normal(jax.random.key(0), (problem.dim,))
    size = jnp.linalg.norm(problem.optimum) / jnp.linalg.norm(direction)
    return adozoo.replicate(problem.optimum + size * direction, problem.n)


def methods(mix: adozoo.Mixing) -> dict[str, tuple[Entry, adozoo.Mixing]]:
    """Every exact first-order method of the zoo, and D-SGD in both forms, with the mixing that each runs over.

    RelaySGD, in its plain form, runs over the ring without one edge. Methods for matrices have nothing to do here;
    accelerated and event-driven ones, which are given mu and L, are compared in `paper_figures`.
    """
    tree = adozoo.mixing(adozoo.graphs.path(mix.n))
    chosen = {}
    for name, entry in adozoo.zoo.entries().items():
        if name == "relay_sgd":
            chosen[name] = (entry, tree)
        elif entry.family not in ("gossip", "averaging"):
            continue
        elif name in ("dsgd_atc", "dsgd_cta") or (entry.exact and not entry.matrices and "tree" not in entry.mixings):
            chosen[name] = (entry, mix if entry.admits(mix) else adozoo.exact_mean(mix.n))
    return chosen


def tune(entry: Entry, mix: adozoo.Mixing, problem: Any, steps: int) -> tuple[float, dict[str, float]]:
    """The best step size of the grid, with the best of the entry's own options: all lanes of one program.

    Best is the fewest steps to the target; among lanes that never reach it, the smallest final distance.
    """
    names, values = zip(*entry.search.items(), strict=True) if entry.search else ((), ())
    axes = np.meshgrid(GRID / problem.smoothness, *values, indexing="ij")
    lanes = [jnp.asarray(axis.ravel()) for axis in axes]

    def run(learning_rate: Any, *options: Any) -> Any:
        tx = entry.build(learning_rate, mix, **dict(zip(names, options, strict=True)))
        metric = problem.metrics()["distance"]
        return adozoo.simulate(tx, problem.gradient, start(problem), steps, metrics=metric, every=10)[2]

    distances = np.asarray(jax.jit(jax.vmap(run))(*lanes)) / np.linalg.norm(problem.optimum)
    distances = np.where(np.isfinite(distances), distances, np.inf)
    reached = distances[:, -1] <= TARGET
    when = np.where(reached, np.argmax(distances <= TARGET, axis=1), distances.shape[1])
    best = np.lexsort((distances[:, -1], when))[0]
    return float(lanes[0][best]), {name: float(lane[best]) for name, lane in zip(names, lanes[1:], strict=True)}


def evaluate(
    entry: Entry, mix: adozoo.Mixing, problem: Any, steps: int, choice: str, learning_rate: float, options: Any
) -> Row:
    """Run one method at one step size, fit its rate, and set the exact rate and limit beside it."""

    def factory(over: adozoo.Mixing) -> Any:
        return entry.build(learning_rate, over, **options)

    exact = theory.linearize(factory, problem, mix)
    size = float(jnp.linalg.norm(problem.optimum))

    def metrics(params: Any) -> dict[str, Any]:
        def distance(point: Any) -> Any:
            return jnp.sqrt(jnp.mean(jnp.sum((params - point) ** 2, axis=1))) / size

        return {"optimum": distance(problem.optimum[None]), "limit": distance(jnp.asarray(exact.params))}

    run = jax.jit(lambda x: adozoo.simulate(factory(mix), problem.gradient, x, steps, metrics=metrics)[2])
    trace = jax.tree.map(np.asarray, run(start(problem)))
    traffic = adozoo.channel.traffic(factory, mix, problem.init())
    bias = np.sqrt(np.mean(np.sum((exact.params - np.asarray(problem.optimum)) ** 2, axis=1))) / size
    return Row(
        entry.name,
        entry.title,
        entry.exact,
        choice,
        learning_rate,
        options,
        traffic.vectors_per_node,
        traffic.bits,
        theory.fit_rate(trace["limit"]),
        exact.rate,
        float(trace["optimum"][-1]),
        float(bias),
        trace["optimum"],
    )


def run_all(problem: Any, mix: adozoo.Mixing, steps: int) -> Iterator[Row]:
    """All methods, at the shared and at their best step size, under one progress bar."""
    chosen = methods(mix)
    with tqdm(total=3 * len(chosen), unit="run", dynamic_ncols=True) as bar:
        for name, (entry, over) in chosen.items():
            bar.set_description(f"{name:15s} tuning")
            best, options = tune(entry, over, problem, steps // 3)
            bar.update()
            for choice, learning_rate in (("shared", SHARED / problem.smoothness), ("best", best)):
                bar.set_description(f"{name:15s} {choice}")
                yield evaluate(entry, over, problem, steps, choice, learning_rate, options)
                bar.update()
        bar.set_description("done")


def table(rows: list[Row], smoothness: float) -> str:
    """The results as a Markdown table, one line a method and step size."""
    head = ["method", "step", "eta L", "vectors", "measured rate", "exact rate", "difference", "steps", "Mbit", "bias"]
    lines = []
    for row in rows:
        steps = row.steps_to_target
        unit = f"{row.measured.rate:.6f} ± {row.measured.uncertainty:.0e}"
        lines.append(
            [
                row.method,
                row.choice,
                f"{row.learning_rate * smoothness:.2f}",
                f"{row.vectors:.2f}",
                unit,
                f"{row.exact:.6f}",
                f"{100 * row.difference:+.3f} %",
                "never" if steps is None else str(steps),
                "-" if steps is None else f"{steps * row.bits / 1e6:.2f}",
                "exact" if row.exact_method else f"{row.bias:.6f} (theory {row.predicted_bias:.6f})",
            ]
        )
    widths = [max(len(cell) for cell in column) for column in zip(head, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (head, rule, *lines)
    )


def draw(rows: list[Row], path: Path) -> None:
    """Relative distance to the optimum against steps and against bits, at the shared and at the best step sizes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = sorted({row.method for row in rows})
    colours = {name: plt.get_cmap("tab20")(k) for k, name in enumerate(names)}
    styles = {name: ("-", "--", "-.", ":")[k % 4] for k, name in enumerate(names)}
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), sharey=True, layout="constrained")
    for line, choice in zip(axes, ("shared", "best"), strict=True):
        picked = [row for row in rows if row.choice == choice]
        longest = max(row.steps_to_target or 0 for row in picked) * 1.15 or picked[0].distances.size
        for axis, unit in zip(line, ("steps", "Mbit sent by all nodes"), strict=True):
            for row in picked:
                scale = 1 if unit == "steps" else row.bits / 1e6
                time_axis = np.arange(1, row.distances.size + 1) * scale
                axis.semilogy(
                    time_axis, row.distances, color=colours[row.method], linestyle=styles[row.method], label=row.method
                )
            widest = longest if unit == "steps" else longest * np.median([row.bits for row in picked]) / 1e6
            axis.set(xlim=(0, widest), ylim=(1e-8, 2), xlabel=unit)
            axis.axhline(TARGET, color="0.7", linewidth=0.8, zorder=0)
            axis.grid(alpha=0.25)
        if choice == "shared":
            said = "all exact methods coincide,\nexcept that relayed steps\ncount 1 / (1 + mean delay)"
            line[0].text(0.97, 0.76, said, transform=line[0].transAxes, ha="right", va="top", fontsize="small")
        line[0].set_ylabel(f"relative distance to the optimum\n({choice} step size)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.suptitle("l2-logistic regression, breast cancer split by label over a ring")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(nodes: int = 16, l2: float = 0.1, steps: int = 5400, output: Path = Path("outputs/quickstart")) -> list[Row]:
    """Run all methods, print the table, write it and the picture.

    Args:
        nodes: nodes of the ring.
        l2: regularisation of the logistic regression.
        steps: steps of each run; tuning runs take a third of them.
        output: folder for convergence.png and table.md.
    """
    started = time.perf_counter()
    jax.config.update("jax_enable_x64", True)
    problem, mix = build_problem(nodes, l2), build_mixing(nodes)
    print(
        f"breast cancer: 569 samples x {problem.dim} features, split by label over a ring of {nodes} nodes;\n"
        f"l2 = {l2}, L = {problem.smoothness:.3f}, mu = {problem.strong_convexity:.3f}, heterogeneity zeta^2 = "
        f"{float(problem.heterogeneity):.4f}, accuracy of the optimum {float(problem.accuracy(problem.optimum)):.3f}"
    )
    rows = list(run_all(problem, mix, steps))
    text = table(rows, problem.smoothness)
    output.mkdir(parents=True, exist_ok=True)
    (output / "table.md").write_text(text + "\n")
    draw(rows, output / "convergence.png")
    worst = max((row for row in rows if row.exact_method), key=lambda row: abs(row.difference))
    print(f"\n{text}\n")
    print(
        "vectors: sent by a node in a step. rate: factor per step, measured ± the spread of fits to shifted windows,\n"
        "and exact, from the implementation's own Jacobian. steps, Mbit: until the relative distance is below 1e-6.\n"
        f"Exact methods: measured and exact rates differ by at most {100 * abs(worst.difference):.3f} % "
        f"({worst.method}).\n"
        "D-SGD does not reach the optimum: it converges to a biased point, at the distance that theory predicts."
    )
    print(f"Picture: {output / 'convergence.png'}   Table: {output / 'table.md'}")
    print(f"{time.perf_counter() - started:.0f} s")
    return rows
