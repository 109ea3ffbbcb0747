r"""Which exact methods survive randomised gossip? The exact mean-square factor against the step size, and runs.

Five nodes with scalar quadratics a_i (x - b_i)^2 / 2, a_i from 0.1 to 1, of different minimisers. In every step one
uniformly random edge averages its two ends. All methods keep their fixed point under every edge, so errors obey
e <- T_w e with T_w drawn anew, and E||e||^2 grows by the spectral radius of S -> E[T_w S T_w'] in a step
(`theory.mean_square_rate`): above 1 it diverges. Markers: the mean square over many simulated runs. Few of them make up
the mean, so that every four steps runs are drawn anew in proportion to the growth of their squared errors. The last
panel shows plain runs, their mean and (dotted) their geometric mean.

Gradient tracking converges at small step sizes. Methods that correct by their own past differences (EXTRA, NIDS,
exact diffusion, D2, SVL) diverge there, although the expected step contracts, and although each single edge, repeated
for ever, lets them settle. Where E||e||^2 grows, the typical run (the geometric mean over runs) may still shrink: a few
runs make up the mean.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import adozoo
import theory
from experiments import figures

N = 5
GRAPHS = {"ring:5": "ring of 5", "star:5": "star of 5", "complete:5": "complete graph of 5"}
SMALLEST, DOUBLINGS = 0.02, 6
SMALL = 0.04
"""A small step size: of the runs drawn over time, and of the single outcomes."""
TOLERANCE = 0.003
"""How closely markers must lie on the curves, where their own uncertainty is smaller."""
DRAWN = ("extra", "diging")
STEPS, EVERY = 160, 4
TYPICAL_WINDOW, LABELLED = (60, 160), 100
"""Between which steps typical runs are measured, and at which one curves are labelled."""
ROUNDS, FORGOTTEN, BATCHES = 80, 40, 8
"""Markers: rounds of EVERY steps, those left out, and parts of the others, whose spread tells the uncertainty."""
LOOKS = {
    "atc_tracking": ("blue", "-", "^"),
    "aug_dgm": ("sky", "-", "v"),
    "diging": ("violet", "-", "o"),
    "d2": ("green", "-", "s"),
    "svl": ("red", "-", "P"),
    "nids": ("orange", "-", "D"),
    "exact_diffusion": ("black", (0, (2, 2)), "x"),
    "extra": ("pink", "-", "X"),
}
"""Colour, line and marker; exact diffusion goes on top of NIDS, with which it coincides."""
TRACKING = ("atc_tracking", "aug_dgm", "diging")


def problem() -> adozoo.problems.Quadratic:
    return adozoo.problems.quadratic(jnp.linspace(0.1, 1, N).reshape(N, 1, 1), jnp.arange(float(N))[:, None])


def edges(name: str, key: Any = None) -> adozoo.Mixing:
    return adozoo.random_edge(adozoo.graphs.parse(name), jax.random.key(0) if key is None else key)


def methods() -> list[str]:
    """The exact linear ones whose factory accepts a random mixing, in the order of the legend."""
    found = []
    for name, entry in adozoo.zoo.entries().items():
        if entry.readable and entry.exact and entry.family != "accelerated":
            try:
                entry.build(0.1, edges("ring:5"))
            except ValueError:  # needs an exact average
                continue
            found.append(name)
    return sorted(found, key=lambda name: list(LOOKS).index(name) if name in LOOKS else len(LOOKS))


def look(name: str) -> dict[str, Any]:
    if name not in LOOKS:
        return figures.method(name) | {"linestyle": "-"}
    colour, line, marker = LOOKS[name]
    return {"color": figures.PALETTE[colour], "linestyle": line, "marker": marker}


def factory(name: str, step_size: Any) -> theory.linear.Factory:
    entry = adozoo.zoo.entry(name)
    return lambda mix: entry.build(step_size, mix)


def single_outcomes(name: str, graph: str) -> float:
    """The slowest exact rate of the method when one and the same edge is drawn for ever."""
    outcomes = theory.enumerate_outcomes(edges(graph)).matrices[:, 0]
    return max(
        theory.exact_rate(factory(name, SMALL), problem(), adozoo.mixing(matrix, require_connected=False))
        for matrix in outcomes
    )


def simulated(name: str, graph: str, step_sizes: np.ndarray, runs: int) -> np.ndarray:
    """(1/n) sum_i |x_i - x*|^2 of each run, [step size, run, record]."""
    target = problem()

    def run(step_size: Any, key: Any) -> Any:
        tx = factory(name, step_size)(edges(graph, key))
        gradient = lambda params, step, key: target.gradient(params, 0, None)  # noqa: E731
        error = lambda params: jnp.mean((params - target.optimum) ** 2)  # noqa: E731
        return adozoo.simulate(tx, gradient, target.init(), STEPS, metrics=error, every=EVERY)[2]

    keys = jax.random.split(jax.random.key(1), runs)
    return np.asarray(jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(jnp.asarray(step_sizes), keys))


def split(name: str, graph: str, step_sizes: np.ndarray, runs: int) -> np.ndarray:
    """The growth of the mean square in each round, [step size, round], of pairs that are drawn anew after each.

    A pair starts at two points and sees the same edges. Its difference, of params and state, moves as errors do.
    """
    target = problem()

    def size(pairs: Any) -> Any:
        gaps = [x[:, 0] - x[:, 1] for x in jax.tree.leaves(pairs) if jnp.issubdtype(x.dtype, jnp.floating)]
        return sum(jnp.sum(gap**2, axis=tuple(range(1, gap.ndim))) for gap in gaps)

    def growths(step_size: Any, key: Any) -> Any:
        def advance(key: Any, pair: Any) -> Any:
            tx = factory(name, step_size)(edges(graph, key))

            def step(one: Any) -> Any:
                updates, state = tx.update(target.gradient(one[0], 0, None), one[1], one[0])
                return optax.apply_updates(one[0], updates), state

            return jax.lax.scan(lambda pair, _: (jax.vmap(step)(pair), None), pair, None, EVERY)[0]

        def one_round(pairs: Any, key: Any) -> Any:
            draws, choice = jax.random.split(key)
            moved = jax.vmap(advance)(jax.random.split(draws, runs), pairs)
            gain = size(moved) / size(pairs)
            chosen = jax.random.categorical(choice, jnp.log(gain), shape=(runs,))
            return jax.tree.map(lambda x: x[chosen], moved), jnp.mean(gain)

        begins = jnp.stack([target.init(), jax.random.normal(jax.random.key(3), (N, 1))])
        pair = begins, jax.vmap(factory(name, step_size)(edges(graph)).init)(begins)
        pairs = jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *jnp.shape(x))), pair)
        return jax.lax.scan(one_round, pairs, jax.random.split(key, ROUNDS))[1]

    lanes = jax.jit(jax.vmap(growths, (0, None)))
    return np.asarray(lanes(jnp.asarray(step_sizes), jax.random.key(2)))


def compute(full: bool) -> xr.Dataset:
    graphs = list(GRAPHS) if full else list(GRAPHS)[:1]
    fine = np.geomspace(SMALLEST, SMALLEST * 2**DOUBLINGS, DOUBLINGS * (2 if full else 1) + 1)
    coarse = SMALLEST * 2.0 ** np.arange(1, DOUBLINGS, 1 if full else 2)
    names = methods()
    exact, runs = [], []
    for graph in graphs:
        for name in names:
            found = [theory.mean_square_rate(factory(name, float(step)), problem(), edges(graph)) for step in fine]
            exact.append([(one.factor, one.mean_rate, one.common_fixed_point) for one in found])
            errors = simulated(name, graph, coarse, 4096 if full else 1024)
            mean, typical = errors.mean(axis=1), np.exp(np.log(errors).mean(axis=1))
            first, last = (step // EVERY - 1 for step in TYPICAL_WINDOW)
            shrinks = (typical[:, last] / typical[:, first]) ** (1 / (TYPICAL_WINDOW[1] - TYPICAL_WINDOW[0]))
            logs = np.log(split(name, graph, coarse, 1024 if full else 512)[:, FORGOTTEN:]) / EVERY
            parts = np.exp(logs.reshape(len(coarse), BATCHES, -1).mean(axis=2))
            rates = np.exp(logs.mean(axis=1)), parts.std(axis=1, ddof=1) / np.sqrt(BATCHES), shrinks
            runs.append((rates, mean, typical))
    return dataset(graphs, names, fine, coarse, exact, runs)


def dataset(
    graphs: list[str], names: list[str], fine: np.ndarray, coarse: np.ndarray, exact: list[Any], runs: list[Any]
) -> xr.Dataset:
    shape, axes = (len(graphs), len(names)), ("graph", "algorithm")
    numbers = np.moveaxis(np.reshape(exact, (*shape, len(fine), 3)), -1, 0)
    keys = ("factor", "mean_rate", "common_fixed_point")
    variables: dict[str, Any] = {key: ((*axes, "step_size"), value) for key, value in zip(keys, numbers, strict=True)}
    for k, key in enumerate(("measured", "uncertainty", "typical")):
        variables[key] = ((*axes, "run_step_size"), np.reshape([row[0][k] for row in runs], (*shape, len(coarse))))
    for k, key in ((1, "mean_square"), (2, "geometric_mean")):
        curves = np.reshape([row[k] for row in runs], (*shape, len(coarse), STEPS // EVERY))
        variables[key] = ((*axes, "run_step_size", "step"), curves)
    variables["single_outcome"] = ("algorithm", [single_outcomes(name, graphs[0]) for name in names])
    coordinates = {"graph": graphs, "algorithm": names, "step_size": fine, "run_step_size": coarse}
    return xr.Dataset(variables, coordinates | {"step": np.arange(EVERY, STEPS + 1, EVERY)})


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axes = figures.panels(1, data.sizes["graph"] + 1, (4.0, 4.0))
    for axis, graph in zip(axes, data.graph.values, strict=False):
        factors(axis, data.sel(graph=graph))
        axis.set_title(GRAPHS[graph])
    axes[0].set_ylabel(r"factor of $E\|e\|^2$ per step")
    over_time(axes[-1], data.isel(graph=0))
    handles = axes[0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def factors(axis: Any, data: xr.Dataset) -> None:
    axis.axhspan(1, 2, color="0.94", lw=0)
    axis.axhline(1, color="0.4", lw=0.8)
    for name in data.algorithm.values:
        curve, style = data.sel(algorithm=name), look(name)
        marker, colour = style.pop("marker"), style["color"]
        axis.plot(curve.step_size, curve.factor, **style)
        bars = {"yerr": 2 * curve.uncertainty, "elinewidth": 1, "ls": "", "ms": 5, "zorder": 4}
        axis.errorbar(curve.run_step_size, curve.measured, fmt=marker, color=colour, label=name, **bars)
    axis.text(SMALLEST, 1.002, " diverges", va="bottom", color="0.35", fontsize=8)
    axis.set(xscale="log", ylim=(0.78, 1.52), xlabel=r"step size $\eta$ ($L$ = 1)")
    ticks = SMALLEST * 2.0 ** np.arange(DOUBLINGS + 1)
    axis.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axis.minorticks_off()


def over_time(axis: Any, data: xr.Dataset) -> None:
    for name in DRAWN:
        here = data.sel(algorithm=name).sel(run_step_size=SMALL, method="nearest")
        factor = float(here.factor.sel(step_size=SMALL, method="nearest"))
        colour, step = look(name)["color"], here.step.values
        axis.semilogy(step, here.mean_square, color=colour, lw=2.2)
        axis.semilogy(step, here.geometric_mean, color=colour, lw=1.4, ls=":")
        anchor = here.mean_square.sel(step=TYPICAL_WINDOW[0]).item()
        axis.semilogy(step, anchor * factor ** (step - TYPICAL_WINDOW[0]), color="k", lw=0.9, ls="--")
        notes = [(here.mean_square, f"{name}, both", (4, 8), "left")]
        if here.geometric_mean[-1] < 0.3 * here.mean_square[-1]:
            notes = [
                (here.mean_square, f"{name}, mean", (-8, 4), "right"),
                (here.geometric_mean, f"{name}, typical run", (4, -14), "left"),
            ]
        for curve, text, offset, side in notes:
            place = (LABELLED, curve.sel(step=LABELLED).item())
            axis.annotate(text, place, offset, textcoords="offset points", ha=side, color=colour)
    axis.set(xlabel="step", ylabel=r"$\frac{1}{n}\sum_i (x_i - x^*)^2$")
    axis.set_title(rf"{GRAPHS[str(data.graph.item())]}, $\eta$ = {SMALL}; dashed: exact factor")


def survival(curve: xr.DataArray) -> str:
    """The step sizes between which the factor is below 1, its sign changes interpolated in logarithms."""
    logs, steps = np.log(curve.values), np.log(curve.step_size.values)
    turns = np.flatnonzero(np.diff(np.sign(logs)))
    roots = steps[turns] - logs[turns] * np.diff(steps)[turns] / np.diff(logs)[turns]
    ends = [*([] if logs[0] > 0 else [steps[0]]), *roots, *([] if logs[-1] > 0 else [steps[-1]])]
    shown = [f"{end:.3g}" for end in np.exp(ends)]
    return ", ".join(f"{low} to {high}" for low, high in zip(shown[::2], shown[1::2], strict=True)) or "none"


def judge(data: xr.Dataset) -> list[figures.Claim]:
    return [who_survives(data), expectation_says_nothing(data), runs_agree(data), typical_runs(data)]


def who_survives(data: xr.Dataset) -> figures.Claim:
    small = data.factor.sel(step_size=slice(0, 1.01 * SMALL))
    others = [str(name) for name in data.algorithm.values if name not in TRACKING]
    survive = (small.sel(algorithm=list(TRACKING)) < 1).all()
    diverge = (small.sel(algorithm=others) > 1).all()
    numbers: dict[str, Any] = {"largest move of the common fixed point": float(data.common_fixed_point.max())}
    for graph in map(str, data.graph.values):
        for name in map(str, data.algorithm.values):
            curve = data.factor.sel(graph=graph, algorithm=name)
            best = curve.isel(step_size=int(curve.values.argmin()))
            numbers[f"{name}, {GRAPHS[graph]}"] = (
                f"{curve.sel(step_size=SMALL, method='nearest').item():.4f} at {SMALL}; converges for steps "
                f"{survival(curve)}; best {best.item():.4f} at {best.step_size.item():.3g}"
            )
    return figures.Claim(
        f"at step sizes up to {SMALL} tracking converges in mean square, and every other exact method diverges",
        bool(survive and diverge),
        numbers,
    )


def expectation_says_nothing(data: xr.Dataset) -> figures.Claim:
    bad = data.factor > 1
    hidden = bad & (data.mean_rate < 1)
    at_small = data.sel(step_size=SMALL, method="nearest").isel(graph=0)
    names = [str(name) for name in data.algorithm.values if name not in TRACKING]
    alone = data.single_outcome
    return figures.Claim(
        f"neither the expected step nor single outcomes show it: at step {SMALL} the mean error converges, and every "
        "edge alone lets errors settle, for those whose mean square diverges too",
        bool((at_small.mean_rate < 1).all() and (alone < 1).all() and (at_small.factor.sel(algorithm=names) > 1).all()),
        {
            "points where the mean square diverges": int(bad.sum()),
            "of these, with a mean error that converges": int(hidden.sum()),
        }
        | {
            str(name): f"mean_rate^2 {float(at_small.mean_rate.sel(algorithm=name)) ** 2:.4f}, slowest single edge^2 "
            f"{float(alone.sel(algorithm=name)) ** 2:.4f}, mean square {float(at_small.factor.sel(algorithm=name)):.4f}"
            for name in data.algorithm.values
        },
    )


def runs_agree(data: xr.Dataset) -> figures.Claim:
    exact = data.factor.sel(step_size=data.run_step_size, method="nearest").drop_vars("step_size")
    gap = abs(data.measured - exact)
    close = gap <= np.maximum(4 * data.uncertainty, TOLERANCE)
    apart = [
        f"{data.algorithm.values[m]} on {data.graph.values[g]} at {data.run_step_size.values[s]:.3g}: "
        f"{data.measured.values[g, m, s]:.4f} for {exact.values[g, m, s]:.4f}"
        for g, m, s in np.argwhere(~close.values)
    ]
    return figures.Claim(
        f"simulated mean squares change by the exact factor, to four standard errors or {TOLERANCE}",
        bool(close.all()),
        {
            "markers": close.size,
            "agree": int(close.sum()),
            "median difference": float(gap.median()),
            "largest": float(gap.max()),
            "apart": apart,
        },
    )


def typical_runs(data: xr.Dataset) -> figures.Claim:
    exact = data.factor.sel(step_size=data.run_step_size, method="nearest").drop_vars("step_size")
    split = (exact > 1) & (data.typical < 1)
    where = [
        f"{data.algorithm.values[m]} on {data.graph.values[g]} at {data.run_step_size.values[s]:.3g}: typical "
        f"{data.typical.values[g, m, s]:.3f}, mean square {exact.values[g, m, s]:.3f}"
        for g, m, s in np.argwhere(split.values)
    ]
    return figures.Claim(
        "some methods shrink in the typical run while their mean square grows", bool(split.any()), {"which": where}
    )


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
