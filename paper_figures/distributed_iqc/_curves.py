r"""The methods of Sundararajan, Van Scoy, Lessard (IEEE TCNS 2020), figure 2, as they were analysed and as they are.

Everything goes through `theory.tune`, which reads the matrices off optax-style transformations: those of the zoo, and
below the forms of the paper's Table 1 that are other algorithms once the graph changes, or that nobody would run.
`amount` is the paper's \mu, by which every Laplacian is multiplied: W becomes I + amount (W - I).
"""

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import minimize_scalar

import adozoo
import theory

STRONG_CONVEXITY, SMOOTHNESS = 0.1, 1.0
KAPPA = SMOOTHNESS / STRONG_CONVEXITY
STEPS = {"learning_rate": (1e-3, 4.0)}
AMOUNTS = (0.2, 2.0)
BOTH = {"learning_rate": (0.03, 2.2), "amount": AMOUNTS}
CLOSE = 1.3
"""The factor around the best parameters of a first search in which a second one looks: the valleys are sharp."""


class Memory(NamedTuple):
    """Two numbers a coordinate that a method keeps beside its params."""

    first: Any
    second: Any


def zeros(params: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, params)


def two_step_extra(learning_rate: Any, mix: adozoo.Mixing) -> optax.GradientTransformation:
    r"""EXTRA as published: x^{t+2} = (I + W) x^{t+1} - (I + W) / 2 x^t - \eta (g^{t+1} - g^t).

    W is that of step t + 1 in both places. State: x and g of the step before, from x^{-1} = x^0 and g^{-1} = 0.
    """

    def update(grads: Any, state: Memory, params: Any = None) -> tuple[Any, Memory]:
        sent = params - state.first / 2
        moved = params - state.first - (sent - mix(sent)) - learning_rate * (grads - state.second)
        return moved, Memory(params, grads)

    return optax.GradientTransformation(lambda params: Memory(params, zeros(params)), update)


def unified(learning_rate: Any, mix: adozoo.Mixing, weight: float, mixed: bool) -> optax.GradientTransformation:
    r"""Jakovetic's unified method, IEEE TSIPN 2019: x <- W x - \eta (g + u), u <- u - (I - W)(g + u - B x).

    B = b I, or b W if `mixed`. B = 0 is DIGing, B = W / \eta a form of EXTRA.
    """

    def update(grads: Any, state: Memory, params: Any = None) -> tuple[Any, Memory]:
        averaged, tracked = mix(params), grads + state.first
        sent = tracked - weight * (averaged if mixed else params)
        return averaged - params - learning_rate * tracked, Memory(state.first - sent + mix(sent), state.second)

    return optax.GradientTransformation(lambda params: Memory(zeros(params), ()), update)


def uncombined_diffusion(learning_rate: Any, mix: adozoo.Mixing) -> optax.GradientTransformation:
    r"""Exact diffusion that takes its gradient before combining: at \phi instead of x = (\phi + W \phi) / 2.

    \psi = x - \eta g(\phi), \phi <- \psi + x - \psi_{-1}. Params are \phi.

    Table 1 prints y = x_1 - (\mu / 2) u where exact diffusion has y = x_1 - (\mu / 2) v: the gradient u = \nabla f(y)
    in place of the disagreement v. Then y = prox(x_1) and u = \nabla M(x_1), where M is the Moreau envelope of f with
    parameter \mu / 2, of which all that is known is the class of `envelope`. What was analysed is this method on M.
    """

    def update(grads: Any, state: Memory, params: Any = None) -> tuple[Any, Memory]:
        combined = (params + mix(params)) / 2
        adapted = combined - learning_rate * grads
        return adapted + combined - state.first - params, Memory(adapted, state.second)

    return optax.GradientTransformation(lambda params: Memory(params, ()), update)


def envelope(amount: float) -> tuple[float, float]:
    """Strong convexity and smoothness of the Moreau envelope of f with parameter amount / 2."""
    return tuple(bound / (1 + bound * amount / 2) for bound in (STRONG_CONVEXITY, SMOOTHNESS))  # type: ignore[return-value]


CURVES: dict[str, Callable[[Any, adozoo.Mixing], Any]] = {
    "NIDS": adozoo.nids,
    "ExDIFF": adozoo.exact_diffusion,
    "ExDIFF, Table 1": uncombined_diffusion,
    "AugDGM": functools.partial(adozoo.gradient_tracking, variant="aug_dgm"),
    "AugDGM, Table 1": functools.partial(adozoo.gradient_tracking, variant="atc"),
    "EXTRA": adozoo.extra,
    "EXTRA, two-step": two_step_extra,
    "DIGing": adozoo.gradient_tracking,
    "DIGing, lazy": lambda step, mix: adozoo.gradient_tracking(step, adozoo.relaxed(mix, 0.5)),
    "uDIG": functools.partial(unified, weight=(STRONG_CONVEXITY + SMOOTHNESS) / 2, mixed=False),
    "uEXTRA": functools.partial(unified, weight=SMOOTHNESS, mixed=True),
}
"""Curve -> (learning_rate, mix) -> transformation. SVL has its parameters in closed form."""

DIRECTED = ", directed"
"""The end of a curve's name if graphs need not be undirected. Methods that mix one vector do not notice."""
PANELS = ("step size", "step size and amount")
"""What is tuned in the left and in the right panel."""
_BOTH = {name: name.partition(",")[0] for name in ("SVL", "NIDS", "ExDIFF, Table 1", "AugDGM, Table 1")}
_BOTH |= {name: name.partition(",")[0] for name in ("EXTRA, two-step", "uDIG", "uEXTRA")}
SHOWN = {PANELS[0]: _BOTH | {"DIGing, lazy": "DIGing"}, PANELS[1]: _BOTH | {"DIGing": "DIGing"}}
"""Panel -> our curve -> the published one that it stands for."""


@functools.cache
def published() -> dict[str, dict[str, dict[float, float]]]:
    """Panel -> published curve -> sigma -> rate, where the paper found convergence (rates below 1)."""
    text = (Path(__file__).parent / "published.json").read_text(encoding="utf-8")
    panels = zip(PANELS, ("left", "right"), strict=True)
    return {
        panel: {name: {s: rate for s, rate in points if rate < 1} for name, points in json.loads(text)[side].items()}
        for panel, side in panels
    }


class Point(NamedTuple):
    """The best certified rate, the slowest instance known at the same parameters, and these parameters."""

    rate: float
    lower: float
    learning_rate: float
    amount: float


def point(curve: str, sigma: float, panel: str) -> Point:
    """One point of a curve."""
    if curve == "SVL":
        best = theory.bounds.svl.tune(STRONG_CONVEXITY, SMOOTHNESS, sigma)
        made = functools.partial(adozoo.svl, best.learning_rate, integral_gain=best.integral_gain)
        found = theory.worst_case_rate(made, STRONG_CONVEXITY, SMOOTHNESS, sigma)
        return Point(found.rate, found.lower, best.learning_rate, 1.0)
    made, undirected = CURVES[curve.removesuffix(DIRECTED)], not curve.endswith(DIRECTED)
    misprint = curve == "ExDIFF, Table 1"

    def fixed(amount: float) -> Point:
        tuned = theory.tune(
            lambda mix, learning_rate: made(learning_rate, adozoo.relaxed(mix, amount)),
            *(envelope(amount) if misprint else (STRONG_CONVEXITY, SMOOTHNESS)),
            *(sigma, STEPS),
            undirected=undirected,
        )
        return Point(tuned.certificate.rate, tuned.certificate.lower, tuned.parameters["learning_rate"], amount)

    if panel == PANELS[0]:
        return fixed(1.0)
    if misprint:  # its class depends on the amount, which is therefore tuned on the outside
        bounds = (math.log(AMOUNTS[0]), math.log(AMOUNTS[1]))
        found = minimize_scalar(
            lambda x: fixed(math.exp(x)).rate, bounds=bounds, method="bounded", options={"xatol": 1e-3}
        )
        return fixed(math.exp(found.x))
    ranges = BOTH
    for _ in range(2):
        tuned = theory.tune(
            lambda mix, learning_rate, amount: made(learning_rate, adozoo.relaxed(mix, amount)),
            *(STRONG_CONVEXITY, SMOOTHNESS, sigma, ranges),
            undirected=undirected,
        )
        ranges = {name: (value / CLOSE, min(value * CLOSE, 2.0)) for name, value in tuned.parameters.items()}
    return Point(tuned.certificate.rate, tuned.certificate.lower, **tuned.parameters)


def on_directed_ring(curve: str, best: Point) -> float:
    """The exact rate with f_i = m (x - b_i)^2 / 2 on a directed ring of three, W = (I + P) / 2, ||W - J|| = 1/2."""
    mix = adozoo.relaxed(adozoo.mixing((np.eye(3) + np.roll(np.eye(3), 1, 0)) / 2), best.amount)
    problem = adozoo.problems.quadratic(np.full((3, 1, 1), STRONG_CONVEXITY), np.arange(3.0)[:, None])
    return theory.exact_rate(functools.partial(CURVES[curve], best.learning_rate), problem, mix)


def points(jobs: Iterable[tuple[str, float, str]]) -> Mapping[tuple[str, float, str], Point]:
    """All points (curve, sigma, panel), on all cores. Processes are spawned: JAX's threads do not survive a fork."""
    jobs = list(jobs)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return dict(zip(jobs, pool.map(point, *zip(*jobs, strict=True)), strict=True))
