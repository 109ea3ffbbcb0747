"""What the RelaySGD paper's appendix figures 7, 8 and 10 share: 32 workers, tuned runs on the paper's own problem.

The learning rate is tuned without noise. The paper's code then runs with what its search notes, which is half of the
best learning rate where it looks for the fastest run; so do we.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr

from experiments import figures
from paper_figures.relaysgd import _quadratics
from paper_figures.relaysgd._methods import METHODS, on

N = 32
DISTANCE = 1.0
TARGET = 1e-6
PLATEAU = ("gossip", "relay_sgd_grad")


def split(curve: str) -> tuple[str, str]:
    """ "method on topology" in two."""
    method, _, topology = curve.partition(" on ")
    return method, topology


def tuned(curves: Sequence[str], zetas: Sequence[float]) -> xr.Dataset:
    """Steps to 1e-6 without noise, the learning rate used, and the one that the paper's code notes."""
    problems = _quadratics.stack([_quadratics.papers_problem(N, zeta2, DISTANCE) for zeta2 in zetas])
    found = []
    for method, topology in map(split, curves):
        exact = method not in PLATEAU
        result = _quadratics.tune(
            on(method, topology, N), problems, exact, max_steps=10_000 if exact else 70_000, target=TARGET
        )
        found.append([*result, result[1] / (2 if exact else 1)])
    names = ("steps", "learning_rate", "noted_rate")
    values = dict(zip(names, np.moveaxis(np.array(found), 1, 0), strict=True))
    return xr.Dataset(
        {name: (("curve", "zeta2"), value) for name, value in values.items()},
        {"curve": list(curves), "zeta2": list(zetas)},
    )


def errors(curve: str, zeta2: float, rate: float, steps: int, noise: np.ndarray | None = None) -> np.ndarray:
    """Suboptimality at the start and after each step, [steps + 1]; [runs, steps + 1] with noise [runs, steps, n, d]."""
    problem = _quadratics.papers_problem(N, zeta2, DISTANCE)
    run = functools.partial(_quadratics.curve, on(*split(curve), N), problem, rate, steps)
    return np.asarray(jax.jit(run)() if noise is None else jax.jit(jax.vmap(run))(noise))


def runs(data: xr.Dataset, lengths: Sequence[int]) -> xr.Dataset:
    """Add the noiseless runs with the noted learning rates, as long as the paper shows them."""
    found = np.full((*data.noted_rate.shape, max(lengths) + 1), np.nan)
    for i, curve in enumerate(data.curve.values):
        for j, (zeta2, steps) in enumerate(zip(data.zeta2.values, lengths, strict=True)):
            rate = float(data.noted_rate[i, j])
            found[i, j, : steps + 1] = errors(str(curve), float(zeta2), rate, steps)
    return data.assign(error=(("curve", "zeta2", "step"), found))


def draw(data: xr.Dataset, limits: tuple[float, float]) -> figures.Figure:
    """One panel for each zeta^2: suboptimality against steps."""
    figure, axes = figures.panels(1, data.zeta2.size, (3.3, 3.0), sharey=True)
    for axis, zeta2 in zip(axes, data.zeta2.values, strict=True):
        here = data.sel(zeta2=zeta2)
        last = int(here.step.where(here.error.notnull().any("curve")).max())
        for curve in data.curve.values:
            method = METHODS[split(str(curve))[0]]
            line = here.error.sel(curve=curve).values[: last + 1]
            shown = line >= limits[0] / 10
            axis.plot(
                np.flatnonzero(shown), line[shown], label=method.title, markevery=max(last // 8, 1), **method.look
            )
        axis.axhline(TARGET, color="0.5", lw=0.8, ls=":")
        axis.set(yscale="log", ylim=limits, xlim=(0, last), xlabel="steps", title=rf"$\zeta^2 = {zeta2:g}$")
    axes[0].set_ylabel(r"$f(\bar x) - f^\star$")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    return figure


def tuning_claim(data: xr.Dataset, published: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> figures.Claim:
    """Steps and noted learning rates of each curve beside the published ones, to the digits given."""
    found: dict[str, Any] = {}
    papers: dict[str, Any] = {}
    equal = True
    for curve, (steps, rates) in published.items():
        here = data.sel(curve=curve)
        equal &= np.array_equal(here.steps, steps) and np.allclose(here.noted_rate, rates, rtol=1e-3)
        found |= {f"{curve}, steps": here.steps.values, f"{curve}, rate": here.noted_rate.values}
        papers |= {f"{curve}, steps": steps, f"{curve}, rate": rates}
    text = "steps to 1e-6 without noise, and the learning rates noted, are the published ones"
    return figures.Claim(text, bool(equal), found, papers)


def errors_claim(data: xr.Dataset, published: Mapping[tuple[str, float, int], float]) -> figures.Claim:
    """The suboptimality that the paper's notebook prints at the end of runs."""
    found = {at: float(data.error.sel(curve=at[0], zeta2=at[1])[at[2]]) for at in published}
    off = {at: abs(found[at] / value - 1) for at, value in published.items()}
    name = "{}, zeta^2 = {:g}, step {}".format
    return figures.Claim(
        "errors at the end of the paper's runs are the printed ones (relative difference 1e-4)",
        max(off.values()) <= 1e-4,
        {name(*at): value for at, value in found.items()} | {"largest relative difference": max(off.values())},
        {name(*at): value for at, value in published.items()},
    )
