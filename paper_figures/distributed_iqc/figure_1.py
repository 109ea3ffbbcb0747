r"""Sundararajan, Van Scoy, Lessard (IEEE TCNS 2020), figure 1: the certified rate of SVL against sigma.

Curves: the rate over all objectives of condition number \kappa and all graphs with ||W_t - 11'/n|| <= sigma, with the
step size and gain of the paper's design, in closed form (`theory.bounds.svl`). Dots: the matrix inequality, solved for
`adozoo.svl` with these parameters. Crosses: step size and gain found by `theory.tune`, which knows no closed form; for
small \kappa they are slightly better than the design, which has \rho = 1 - \eta m.
For \kappa = \infty the limit: (\kappa - 1) / (\kappa + 1), which no method beats, goes to 1.

Deviations: the numbers of the published figure are not known, so that its exact points are compared only. SVL has four
parameters in the paper, of which \gamma = 1 + \beta and \delta = 1 are fixed here as in its Algorithm 2.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

import adozoo
import theory
from experiments import figures

KAPPAS = (1.0, 3 / 2, 7 / 3, 4.0, 9.0)
NAMES = ("1", "3/2", "7/3", "4", "9")
LARGE = 1e6
"""The condition number that stands for infinity."""
COLOURS = ("sky", "green", "orange", "red", "blue")


def centralised(kappa: np.ndarray | float) -> np.ndarray | float:
    """The rate of gradient descent on one node."""
    return (kappa - 1) / (kappa + 1)


def kink(kappa: np.ndarray | float) -> np.ndarray:
    r"""The largest sigma at which the graph costs nothing: \sigma^2 = (1 - \sqrt{1 - \rho^2}) / 2."""
    return np.sqrt((1 - np.sqrt(1 - centralised(kappa) ** 2)) / 2)


def closed_form(kappa: float, sigma: float) -> float:
    return theory.bounds.svl.tune(1 / kappa, 1.0, sigma).rate


def certified(kappa: float, sigma: float) -> tuple[float, float]:
    """(slowest known instance, certificate) at the parameters of the closed form."""
    best = theory.bounds.svl.tune(1 / kappa, 1.0, sigma)
    found = theory.worst_case_rate(
        lambda mix: adozoo.svl(best.learning_rate, mix, best.integral_gain), 1 / kappa, 1.0, sigma
    )
    return found.lower, found.rate


def searched(kappa: float, sigma: float) -> tuple[float, float, float]:
    """The best certificate that a search over step size and gain finds, and where."""
    ranges = {"learning_rate": (0.03, 3.0), "integral_gain": (0.03, 1.0)}
    found = theory.tune(lambda mix, **values: adozoo.svl(mix=mix, **values), 1 / kappa, 1.0, sigma, ranges)
    return found.certificate.rate, found.parameters["learning_rate"], found.parameters["integral_gain"]


def compute(full: bool) -> xr.Dataset:
    sigmas = np.linspace(0, 0.99, 100)
    checked, tried = (sigmas[5::5], sigmas[10:91:10]) if full else (sigmas[10:91:20], sigmas[[30, 50, 70]])
    search = np.array([[searched(kappa, sigma) for sigma in tried] for kappa in KAPPAS])
    brackets = np.array([[certified(kappa, sigma) for sigma in checked] for kappa in KAPPAS])
    return xr.Dataset(
        {
            "rate": (("kappa", "sigma"), [[closed_form(kappa, sigma) for sigma in sigmas] for kappa in KAPPAS]),
            "limit": ("sigma", [closed_form(LARGE, sigma) for sigma in sigmas]),
            "lower": (("kappa", "checked"), brackets[..., 0]),
            "certificate": (("kappa", "checked"), brackets[..., 1]),
            "searched": (("kappa", "tried"), search[..., 0]),
            "learning_rate": (("kappa", "tried"), search[..., 1]),
            "integral_gain": (("kappa", "tried"), search[..., 2]),
        },
        {"kappa": list(KAPPAS), "sigma": sigmas, "checked": checked, "tried": tried},
    )


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axis = figures.panels(1, 1, (6.4, 4.6))
    for kappa, name, colour in zip(KAPPAS, NAMES, COLOURS, strict=True):
        here, shade = data.sel(kappa=kappa), figures.PALETTE[colour]
        axis.plot([*here.sigma, 1], [*here.rate, 1], color=shade)
        axis.plot(here.checked, here.certificate, "o", ms=4, color=shade)
        axis.plot(here.tried, here.searched, "x", ms=7, mew=1.4, color="k", zorder=4)
        place = (0.02, centralised(kappa) + 0.015) if kappa > 1 else (0.25, 0.2)
        axis.text(*place, rf"$\kappa = {name}$", color=shade)
    axis.plot([0, 1], [1, 1], color="k")
    axis.text(0.02, 0.955, r"$\kappa = \infty$")
    bends = np.geomspace(1, 1e5, 200)
    axis.plot(kink(bends), centralised(bends), ":", color="0.4", lw=1.2, label="the graph costs nothing up to here")
    axis.plot([], [], color="0.4", label="closed form")
    axis.plot([], [], "o", ms=4, color="0.4", label="matrix inequality, for adozoo.svl")
    axis.plot([], [], "x", ms=7, mew=1.4, color="k", label="theory.tune")
    axis.set(xlabel=r"$\sigma \geq \|W_t - J\|$", ylabel=r"certified rate $\rho$", xlim=(0, 1), ylim=(0, 1.03))
    axis.legend(loc="lower right")
    return figure


def judge(data: xr.Dataset) -> list[figures.Claim]:
    bound = np.maximum(centralised(data.kappa), data.sigma)
    free = data.rate <= centralised(data.kappa) + 1e-12
    last = free.sigma.where(free).max("sigma").values[1:]
    ends, width = kink(np.array(KAPPAS[1:])), float(data.sigma[1] - data.sigma[0])
    beyond = data.sel(kappa=list(KAPPAS[1:]))
    excess = beyond.certificate - beyond.rate.sel(sigma=data.checked)
    search = data.searched - data.rate.sel(sigma=data.tried)
    here = data.isel(search.where(search.kappa > 1).argmin(("kappa", "tried")))
    kappa, sigma, step, gain = (float(here[name]) for name in ("kappa", "tried", "learning_rate", "integral_gain"))
    proof = theory.worst_case_rate(lambda mix: adozoo.svl(step, mix, gain), 1 / kappa, 1.0, sigma).verify()
    return [
        figures.Claim(
            "rho = (kappa - 1) / (kappa + 1), that of gradient descent on one node, for small sigma: up to sigma^2 = "
            "(1 - sqrt(1 - rho^2)) / 2, to the grid's step",
            bool(((last <= ends) & (ends < last + width)).all()),
            {"kappa": KAPPAS[1:], "last sigma on the grid": last, "end": ends},
        ),
        figures.Claim(
            "rho = sigma for kappa = 1 (1e-6)",
            bool(np.abs(data.rate.sel(kappa=1) - data.sigma).max() <= 1e-6),
            {"largest difference": float(np.abs(data.rate.sel(kappa=1) - data.sigma).max())},
        ),
        figures.Claim(
            "rho goes to 1 with kappa, for every sigma",
            bool((data.limit >= centralised(LARGE)).all() and (data.limit < 1).all()),
            {"kappa": LARGE, "1 - rho, smallest, largest": (float(1 - data.limit.max()), float(1 - data.limit.min()))},
        ),
        figures.Claim(
            "rho is at least max((kappa - 1) / (kappa + 1), sigma), which no method can beat",
            bool((data.rate >= bound - 1e-12).all()),
            {"largest excess over the bound": float((data.rate - bound).max())},
        ),
        figures.Claim(
            "rho increases with sigma and with kappa",
            bool((data.rate.diff("sigma") >= -1e-12).all() and (data.rate.diff("kappa") >= -1e-6).all()),
        ),
        figures.Claim(
            "the closed form is what the matrix inequality certifies for adozoo.svl (kappa > 1; 1e-6)",
            bool((np.abs(excess) <= 1e-6).all()),
            {
                "points": excess.size,
                "largest difference": float(np.abs(excess).max()),
                "the same for kappa = 1, where the inequality has no interior": float(
                    (data.certificate - data.rate.sel(sigma=data.checked)).sel(kappa=1).max()
                ),
            },
        ),
        figures.Claim(
            "the certificate is tight: an instance is as slow (1e-6)",
            bool((np.abs(data.lower - data.rate.sel(sigma=data.checked)) <= 1e-6).all()),
            {"largest difference": float(np.abs(data.lower - data.rate.sel(sigma=data.checked)).max())},
        ),
        figures.Claim(
            "no step size and gain are better than those of the closed form (kappa > 1; 1e-5)",
            bool(search.sel(kappa=list(KAPPAS[1:])).min() >= -1e-5),
            {
                "kappa": KAPPAS[1:],
                "lowest found by a search, minus closed form": search.min("tried").values[1:],
                "highest (how far the search may miss the best)": search.max("tried").values[1:],
                "example (kappa, sigma, step size, gain)": (kappa, sigma, step, gain),
                "its rate, proved in rational arithmetic": float(proof.rate) if proof.rate else "not proved",
                "closed form there": closed_form(kappa, sigma),
            },
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
