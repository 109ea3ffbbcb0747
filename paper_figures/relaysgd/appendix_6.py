r"""RelaySGD (Vogels et al., NeurIPS 2021), appendix figure 6: by how much delays shorten a step.

All workers have the gradient -1 in the first step, and none later. With exact averages they would all move by the
learning rate; with RelaySGD they agree on less in the end, and the quotient is the factor by which learning rates
should be larger. Measured by running the method, without and with overlap (communication while the next gradient is
computed); lines are 1 + mean delay, and dashed the paper's rule of thumb, half of the largest delay. --full has all of
the paper's sizes.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import adozoo
import theory
from experiments import figures
from paper_figures.relaysgd._methods import GRAPHS
from paper_figures.relaysgd.appendix_5 import LABELS, TREES

SIZES = (2, 5, *range(10, 81, 5))
QUICK_SIZES = (2, 5, 10, 20, 40, 80)
BLOCK, LONGEST, SETTLED = 1000, 1_000_000, 1e-12
OVERLAPS = (False, True)
VARIANTS = ("without overlap", "with overlap")


@partial(jax.jit, static_argnames=("tree", "n", "overlap"))
def response(tree: str, n: int, overlap: bool) -> tuple[jax.Array, jax.Array]:
    """Where the workers settle after the impulse, [n], and after how many steps.

    That they agree is not enough: with overlap they do after one step, while the impulse is still under way. They also
    have to stay where they are for a block of steps.
    """
    tx = adozoo.relay_sgd(adozoo.descent(1.0), GRAPHS[tree](n), overlap=overlap)

    def step(_: Any, carry: tuple[jax.Array, Any], gradient: float = 0.0) -> tuple[jax.Array, Any]:
        x, state = carry
        updates, state = tx.update(jnp.full_like(x, gradient), state, x)
        return optax.apply_updates(x, updates), state  # type: ignore[return-value]

    def moving(carry: tuple) -> jax.Array:
        blocks, before, (x, _) = carry
        change = jnp.maximum(jnp.ptp(x), jnp.max(jnp.abs(x - before))) / jnp.mean(x)
        return (blocks < LONGEST // BLOCK) & ((blocks == 0) | (change > SETTLED))

    def block(carry: tuple) -> tuple:
        blocks, _, now = carry
        return blocks + 1, now[0], jax.lax.fori_loop(0, BLOCK, step, now)

    x = jnp.zeros((n, 1))
    blocks, _, (x, _) = jax.lax.while_loop(moving, block, (0, x, step(0, (x, tx.init(x)), gradient=-1.0)))
    return x[:, 0], blocks * BLOCK


def compute(full: bool) -> xr.Dataset:
    return factors(SIZES if full else QUICK_SIZES)


def factors(sizes: Sequence[int]) -> xr.Dataset:
    """Measured and exact factors, how far the workers are apart in the end, the rule of thumb, and the steps taken."""
    cells = []
    for overlap in OVERLAPS:
        for tree in TREES:
            for n in sizes:
                graph, (ends, steps) = GRAPHS[tree](n), map(np.asarray, response(tree, n, overlap))
                exact, delays = theory.learning_rate_correction(graph, overlap), theory.delay_matrix(graph, overlap)
                cells.append((1 / ends.mean(), exact, np.ptp(ends) / ends.mean(), delays.max() / 2, steps))
    found = np.array(cells).reshape(len(OVERLAPS), len(TREES), len(sizes), 5)
    names = ("measured", "exact", "spread", "rule", "steps")
    return xr.Dataset(
        {name: (("variant", "tree", "n"), found[..., k]) for k, name in enumerate(names)},
        {"variant": list(VARIANTS), "tree": list(TREES), "n": list(sizes)},
    )


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axes = figures.panels(1, 2, (3.6, 3.2), sharey=True)
    for axis, variant in zip(axes, VARIANTS, strict=True):
        for tree, family in TREES.items():
            here, look = data.sel(variant=variant, tree=tree), figures.topology(family)
            axis.plot(here.n, here.measured, ls="", **look)
            axis.plot(here.n, here.exact, color=look["color"])
            axis.plot(here.n, here.rule, "--", color=look["color"], lw=1)
        axis.set(xlabel="workers", title=variant)
    axes[0].set_ylabel("learning-rate correction")
    for tree, family in TREES.items():
        axes[0].plot([], [], label=LABELS[tree], **figures.topology(family))
    for label, style in (("measured", "o"), (r"$1 + \bar\tau$", "-"), (r"rule of thumb, $\tau_{\max} / 2$", "--")):
        axes[0].plot([], [], style, color="0.4", label=label)
    axes[0].legend()
    return figure


def judge(data: xr.Dataset) -> list[figures.Claim]:
    apart = abs(data.measured / data.exact - 1)
    ratio = (data.rule / data.exact).sel(n=[n for n in data.n.values if n >= 10])
    bounds = {
        f"{LABELS[tree]}, {variant}": (float(ratio.sel(sel).min()), float(ratio.sel(sel).max()))
        for tree in TREES
        for variant in VARIANTS
        for sel in ({"tree": tree, "variant": variant},)
    }
    last = int(data.n[-1])
    return [
        figures.Claim(
            "the correction measured is 1 + mean delay, to 1e-12, on all trees, sizes and both variants",
            bool(apart.max() <= 1e-12 and data.spread.max() <= 1e-11),
            {"largest relative difference": float(apart.max()), "largest spread of workers": float(data.spread.max())}
            | {"most steps to settle": int(data.steps.max())}
            | {
                f"{LABELS[tree]}, n = {last}: {', '.join(VARIANTS)}": data.measured.sel(n=last, tree=tree).values
                for tree in TREES
            },
        ),
        figures.Claim(
            "the rule of thumb, half of the largest delay, is right to a factor of 2 on chains and binary trees "
            "(n >= 10)",
            bool((ratio.sel(tree=["chain", "tree"]) <= 2).all() and (ratio.sel(tree=["chain", "tree"]) >= 0.5).all()),
            {f"rule / exact, {name}": found for name, found in bounds.items() if not name.startswith("star")},
        ),
        figures.Claim(
            "so it is on stars",
            bool((ratio.sel(tree="star") <= 2).all() and (ratio.sel(tree="star") >= 0.5).all()),
            {f"rule / exact, {name}": found for name, found in bounds.items() if name.startswith("star")},
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
