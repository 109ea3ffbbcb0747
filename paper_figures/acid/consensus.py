r"""A2CiD2 (Nabli, Belilovsky, Oyallon, NeurIPS 2023): does it have the effect of twice as many exchanges?

Workers on a ring, in one exchange per unit of time each, take SGD steps with momentum on gradients with white noise
(sigma = 1) that may differ between workers (zeta). What A2CiD2 is worth: how many times more exchanges plain averaging
of pairs needs for the same stationary consensus distance E|x - xbar|^2; 1 is no gain, 2 the claim. Curves are exact. On
rings it does not matter how heterogeneity is distributed, only zeta.

First panel: white noise alone, over the momentum (the paper trains with 0.9). Second: over heterogeneity, 16 workers,
without curvature, so that nothing stops workers from drifting apart but exchanges. Third: heterogeneity 1 and momentum
0.9, over the curvature of all workers' functions times the effective learning rate gamma / (1 - b); exchanges matter
less and less. Last: consensus distances, exact (lines) and of runs of the methods, event by event (markers: means over
time and runs, two standard errors). --full has 64 workers as well, and longer runs.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
import xarray as xr

import adozoo
import theory
from experiments import figures

SIZES, LARGE = (8, 16, 32), 64
N, MOMENTUM = 16, 0.9
MOMENTA = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
HETEROGENEITY = (0.0, 0.03, 0.1, 0.2, 0.5, 1.0, 3.0)
CURVATURES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
VARIANTS = {"A2CiD2": (1.0, True), "averaging": (1.0, False), "averaging, twice as often": (2.0, False)}
LOOKS = {"A2CiD2": ("red", "o"), "averaging": ("blue", "s"), "averaging, twice as often": ("sky", "^")}
RUN_MOMENTA = (0.0, 0.5, 0.9)
RUNS, COORDINATES, SETTLED, SPAN, MARKS = 8, 64, 200.0, 400.0, 100
CLOSE = 0.25
"""How far from twice as many exchanges counts as twice as many."""


def ring(n: int, rate: float = 1.0) -> Any:
    return adozoo.resistance.normalize_rates(adozoo.graphs.ring(n), "node_rate", rate)


def distance(
    n: int, rate: float, accelerated: bool, momentum: float, heterogeneity: float = 0.0, curvature: float = 0.0
) -> float:
    """The stationary consensus distance, in units of (gamma sigma / (1 - b))^2.

    All heterogeneity at one worker is, on a ring, as good as spread over all.
    """
    gradients = heterogeneity * np.sqrt(n) * np.eye(n)[0]
    curvatures = np.full(n, curvature) if curvature else None
    found = theory.acid_stationary(
        ring(n, rate), momentum, accelerated, gradients, 1.0, curvatures, learning_rate=1 - momentum
    )
    return found.consensus_distance


def worth(n: int, momentum: float, heterogeneity: float = 0.0, curvature: float = 0.0) -> float:
    """The rate of exchanges at which plain averaging is as good as A2CiD2 at rate 1."""
    options = (momentum, heterogeneity, curvature)
    target = np.log(distance(n, 1.0, True, *options))

    def excess(log_rate: float) -> float:
        return np.log(distance(n, float(np.exp(log_rate)), False, *options)) - target

    return float(np.exp(scipy.optimize.brentq(excess, np.log(0.5), np.log(20.0), xtol=1e-4)))


@partial(jax.jit, static_argnames=("accelerated", "momentum"))
def runs(events: Any, keys: jax.Array, accelerated: bool, momentum: float) -> jax.Array:
    """Consensus distances at the marks, [runs, marks], with white noise; gamma = 1 - b."""

    def run(one: Any, key: jax.Array) -> jax.Array:
        def noise(x: jax.Array, _: Any, drawn: Any) -> jax.Array:
            return jax.random.normal(drawn, x.shape)

        def spread(x: jax.Array) -> jax.Array:
            return jnp.mean((x - x.mean(0, keepdims=True)) ** 2)

        tx = adozoo.acid(optax.sgd(1 - momentum, momentum or None), one, accelerated=accelerated)
        start = jnp.zeros((N, COORDINATES))
        return adozoo.simulate_events(tx, noise, start, one, key, {"distance": spread})[2]["distance"]

    return jax.vmap(run)(events, keys)


def measured(rate: float, accelerated: bool, momentum: float, span: float) -> tuple[float, float]:
    """Mean over marks after settling and over runs, and its standard error, of runs with their own events."""
    marks = np.linspace(SETTLED, SETTLED + span, MARKS)
    lists = [adozoo.events.poisson(ring(N, rate), SETTLED + span, seed=seed, marks=marks) for seed in range(RUNS)]
    found = np.asarray(
        runs(adozoo.events.stack(lists), jax.random.split(jax.random.key(1), RUNS), accelerated, momentum)
    )
    means = found[:, -MARKS:].mean(1)
    return means.mean(), means.std(ddof=1) / np.sqrt(RUNS)


def compute(full: bool) -> xr.Dataset:
    sizes = (*SIZES, LARGE) if full else SIZES
    span = 4 * SPAN if full else SPAN
    exact = [[distance(N, *each, momentum) for each in VARIANTS.values()] for momentum in MOMENTA]
    simulated = [[measured(*each, momentum, span) for each in VARIANTS.values()] for momentum in RUN_MOMENTA]
    return xr.Dataset(
        {
            "of_momentum": (("n", "momentum"), [[worth(n, b) for b in MOMENTA] for n in sizes]),
            "of_heterogeneity": (
                ("run_momentum", "heterogeneity"),
                [[worth(N, b, zeta) for zeta in HETEROGENEITY] for b in RUN_MOMENTA],
            ),
            "of_curvature": ("curvature", [worth(N, MOMENTUM, 1.0, curvature) for curvature in CURVATURES]),
            "exact": (("momentum", "variant"), exact),
            "simulated": (("run_momentum", "variant", "what"), simulated),
        },
        {
            "n": list(sizes),
            "momentum": list(MOMENTA),
            "heterogeneity": list(HETEROGENEITY),
            "curvature": list(CURVATURES),
            "variant": list(VARIANTS),
            "run_momentum": list(RUN_MOMENTA),
            "what": ["mean", "standard_error"],
        },
    )


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axes = figures.panels(1, 4, (3.1, 3.2))
    for n, colour in zip(data.n.values, ("sky", "blue", "violet", "black"), strict=False):
        axes[0].plot(
            data.momentum, data.of_momentum.sel(n=n), "o-", color=figures.PALETTE[colour], label=f"{n} workers"
        )
    for b, colour in zip(data.run_momentum.values, ("grey", "orange", "red"), strict=True):
        curve = data.of_heterogeneity.sel(run_momentum=b)
        axes[1].plot(data.heterogeneity, curve, "o-", color=figures.PALETTE[colour], label=f"momentum {b:g}")
    axes[2].plot(data.curvature, data.of_curvature, "o-", color=figures.PALETTE["red"])
    for axis, smallest in ((axes[1], 0.03), (axes[2], 0.001)):
        axis.set_xscale("symlog", linthresh=smallest)
    axes[1].set_xticks([0, 0.03, 0.1, 0.3, 1, 3], ["0", "0.03", "0.1", "0.3", "1", "3"])
    axes[2].set_xticks([0, 0.001, 0.01, 0.1], ["0", "0.001", "0.01", "0.1"])
    top = max(5.0, 1.2 * float(data.of_momentum.max()))
    titles = ("white noise", f"heterogeneity, {N} workers", rf"curvature, $\zeta = \sigma$, momentum {MOMENTUM}")
    labels = ("momentum $b$", r"heterogeneity $\zeta / \sigma$", r"$\gamma h / (1 - b)$")
    for axis, title, label in zip(axes, titles, labels, strict=False):
        axis.axhline(2, color="0.4", lw=0.8, ls="--")
        axis.axhline(1, color="0.4", lw=0.8)
        axis.set(title=title, xlabel=label, yscale="log", ylim=(0.8, top))
        axis.set_yticks([1, 2, 4], ["1", "2", "4"])
        axis.minorticks_off()
    axes[0].set_ylabel("worth so many times the exchanges")
    for name, (colour, marker) in LOOKS.items():
        look = {"color": figures.PALETTE[colour]}
        axes[3].plot(data.momentum, data.exact.sel(variant=name), label=name, **look)
        runs = data.simulated.sel(variant=name)
        error = 2 * runs.sel(what="standard_error")
        axes[3].errorbar(data.run_momentum, runs.sel(what="mean"), error, fmt=marker, ms=5, **look)
    axes[3].set(title=f"white noise, {N} workers", xlabel="momentum $b$", yscale="log")
    axes[3].set_ylabel(r"$E\|x - \bar x\|^2 / n$, in $(\gamma \sigma / (1 - b))^2$")
    for axis in (axes[0], axes[1], axes[3]):
        axis.legend(fontsize=7)
    return figure


def judge(data: xr.Dataset) -> list[figures.Claim]:
    white = data.of_momentum.sel(n=N)
    usual = float(white.sel(momentum=MOMENTUM))
    drift = data.of_heterogeneity.sel(run_momentum=0.0)
    exact = data.exact.sel(momentum=data.run_momentum).drop_vars("momentum")
    away = abs(data.simulated.sel(what="mean") - exact) / data.simulated.sel(what="standard_error")
    apart = abs(data.simulated.sel(what="mean") / exact - 1)
    largest = int(data.n[-1])
    return [
        figures.Claim(
            f"with momentum {MOMENTUM}, as in the paper's experiments, A2CiD2 has the effect of twice the exchanges on "
            f"white noise (within {CLOSE:.0%}, {N} workers)",
            bool(abs(usual / 2 - 1) < CLOSE),
            {f"worth, {n} workers": float(data.of_momentum.sel(n=n, momentum=MOMENTUM)) for n in data.n.values}
            | {name: float(data.exact.sel(momentum=MOMENTUM, variant=name)) for name in VARIANTS},
        ),
        figures.Claim(
            "it has with white noise and no momentum",
            bool((data.of_momentum.sel(momentum=0.0) >= 2 * (1 - CLOSE)).all()),
            {f"worth, {n} workers": float(data.of_momentum.sel(n=n, momentum=0.0)) for n in data.n.values},
        ),
        figures.Claim(
            "without momentum, heterogeneity brings it about: worth more than twice the exchanges where zeta = sigma",
            bool(drift.sel(heterogeneity=1.0) >= 2),
            {f"worth, zeta = {zeta:g} sigma": float(drift.sel(heterogeneity=zeta)) for zeta in HETEROGENEITY},
        ),
        figures.Claim(
            f"what it is worth grows with momentum and with the ring (momentum {MOMENTUM})",
            bool(
                (data.of_momentum.diff("momentum") > 0).all()
                and (data.of_momentum.sel(momentum=MOMENTUM).diff("n") > 0).all()
            ),
            {f"worth, {largest} workers, momentum {MOMENTA}": data.of_momentum.sel(n=largest).values},
        ),
        figures.Claim(
            f"curvature of the functions takes the gain away, from gamma h / (1 - b) = 0.01 on (zeta = sigma, momentum "
            f"{MOMENTUM})",
            bool((data.of_curvature.sel(curvature=slice(0.01, None)).diff("curvature") < 0).all()),
            {f"worth at gamma h / (1 - b) = {h:g}": float(data.of_curvature.sel(curvature=h)) for h in CURVATURES},
        ),
        figures.Claim(
            "runs of the methods, event by event, settle at the exact consensus distances, to four standard errors",
            bool((away < 4).all()),
            {
                "runs": RUNS * away.size,
                "largest difference in standard errors": float(away.max()),
                "largest relative difference": float(apart.max()),
            },
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
