r"""Sundararajan, Van Scoy, Lessard (IEEE TCNS 2020), figure 2: certified rates of eight methods against sigma.

All objectives with condition number 10, and all graphs that change with time and have ||W_t - 11'/n|| <= sigma. Left:
the best certified rate over the step size. Right: over the step size and the amount \mu by which Laplacians are
multiplied. Lines are `theory.tune` on implementations, open markers the published points. Below, one method a panel
with the step size tuned: the band reaches from the slowest instance that is known at the same parameters (common
Hessian, graph constant or alternating) up to the certificate; dashed are other forms of the method.

What was published is not always what it is called:
 - All published points are certificates over undirected graphs (a multiplier R that is not symmetric, see theory.lmi).
   The paper's class has directed graphs as well. That matters where \mu is not 1 and two vectors are mixed: dashed on
   the right are unified DIGing and EXTRA over all graphs, and a directed ring of three is slower than the markers.
 - "DIGing" on the left has \mu = 1/2, in both of its mixings.
 - "Exact Diffusion" has a misprint of Table 1, y = x_1 - (\mu / 2) u for y = x_1 - (\mu / 2) v. Exact diffusion itself
   is certified exactly as NIDS.
 - "AugDGM" combines after adapting in x only, s <- W s + g - g_{-1}. AugDGM mixes the gradients as well.
 - "EXTRA" is the two-step recursion. Summed over time, as in the zoo, it is another algorithm where graphs change.
 - "uEXTRA" and "uDIG" are Jakovetic's unified method with B = L W and B = (L + m) / 2 I: found by trying, to fit.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

import theory
from experiments import figures
from paper_figures.distributed_iqc import _curves
from paper_figures.distributed_iqc._curves import KAPPA, PANELS, SHOWN, SMOOTHNESS, STRONG_CONVEXITY

LEFT, RIGHT = PANELS
FLOOR = (KAPPA - 1) / (KAPPA + 1)
LOOKS = {
    "SVL": ("black", "s"),
    "NIDS": ("sky", ">"),
    "ExDIFF": ("green", "d"),
    "AugDGM": ("red", "v"),
    "EXTRA": ("pink", "X"),
    "DIGing": ("orange", "^"),
    "uDIG": ("brown", "<"),
    "uEXTRA": ("violet", "P"),
}
TITLES = {
    "SVL": "SVL",
    "NIDS": "NIDS",
    "ExDIFF": "exact diffusion",
    "AugDGM": "AugDGM",
    "EXTRA": "EXTRA",
    "DIGing": "DIGing",
    "uDIG": "unified DIGing",
    "uEXTRA": "unified EXTRA",
}
# The form that was published, the other one, and where their names stand.
OTHERS = {
    "ExDIFF": ("ExDIFF", "Table 1\n(misprint)", "exact diffusion,\nequal to NIDS", (0.05, 0.885), (0.62, 0.93)),
    "AugDGM": ("AugDGM", "Table 1\n(ATC tracking)", "AugDGM itself", (0.56, 0.9), (0.06, 0.955)),
    "EXTRA": ("EXTRA", "two-step", "summed, as in the zoo", (0.0, 0.92), (0.2, 0.872)),
    "DIGing": ("DIGing", r"$\mu = 1/2$", r"$\mu = 1$", (0.45, 0.93), (0.15, 0.98)),
}
DIRECTED = tuple(name + _curves.DIRECTED for name in ("uDIG", "uEXTRA"))
AGREES = {LEFT: 1e-4, RIGHT: 1e-3}
"""How close a curve must come to the published one: where two parameters are tuned, a search may miss the best."""


def compute(full: bool) -> xr.Dataset:
    left = np.arange(20) / 20 if full else np.arange(10) / 10
    right = np.arange(10) / 10 if full else np.array([0.2, 0.5, 0.8])
    jobs = [(name, float(sigma), RIGHT) for name in (*SHOWN[RIGHT], *DIRECTED) for sigma in right]
    if not full:  # what does not converge takes longest
        jobs = [job for job in jobs if job[0] in DIRECTED or job[1] in _curves.published()[RIGHT][SHOWN[RIGHT][job[0]]]]
    jobs += [(name, float(sigma), LEFT) for name in ("SVL", *_curves.CURVES) for sigma in left]
    found = _curves.points(jobs)
    names = ["SVL", *_curves.CURVES, *DIRECTED]
    sizes = {"tuned": list(PANELS), "curve": names, "sigma": np.union1d(left, right)}
    values = np.full((len(_curves.Point._fields), *map(len, sizes.values())), np.nan)
    for (name, sigma, panel), point in found.items():
        place = PANELS.index(panel), names.index(name), int(np.searchsorted(sizes["sigma"], sigma))
        values[:, *place] = point
    fields = zip(_curves.Point._fields, values, strict=True)
    return xr.Dataset({field: (tuple(sizes), value) for field, value in fields}, sizes, {"kappa": KAPPA})


def curve(data: xr.Dataset, panel: str, name: str) -> xr.Dataset:
    """One curve, where it was computed."""
    return data.sel(tuned=panel, curve=name).dropna("sigma")


def look(name: str) -> dict[str, str]:
    colour, marker = LOOKS[name]
    return {"color": figures.PALETTE[colour], "marker": marker}


def markers(axis: Axes, panel: str, name: str, size: float = 5) -> None:
    """The published points."""
    points = _curves.published()[panel][name]
    style = look(name) | {"mfc": "white", "mew": 1.1, "ms": size, "ls": "", "zorder": 5}
    axis.plot(list(points), list(points.values()), **style)


def line(axis: Axes, here: xr.Dataset, colour: str, style: str = "-") -> None:
    """A curve as far as it converges, with dots where it was computed."""
    axis.plot(here.sigma, here.rate.where(here.rate < 1), style, marker=".", ms=3.5, color=colour, zorder=3)


def overview(axis: Axes, data: xr.Dataset, panel: str) -> None:
    """The published panel."""
    for name, shown in SHOWN[panel].items():
        line(axis, curve(data, panel, name), look(shown)["color"])
        markers(axis, panel, shown)
    for name in DIRECTED:
        line(axis, curve(data, panel, name), look(name.removesuffix(_curves.DIRECTED))["color"], "--")
    bound = np.linspace(0, 1, 201)
    axis.plot(bound, np.maximum(bound, FLOOR), ":", color="k", lw=1)
    axis.set(xlabel=r"$\sigma \geq \|W_t - J\|$", xlim=(-0.02, 1.02), ylim=(0.8, 1.004))


def single(axis: Axes, data: xr.Dataset, name: str) -> None:
    """One method, the step size tuned, as a bracket."""
    colour, other = look(name)["color"], OTHERS.get(name)
    first = next(ours for ours, shown in SHOWN[LEFT].items() if shown == name)
    for form, shade, style in [(first, colour, "-")] + ([(other[0], "0.25", "--")] if other else []):
        here = curve(data, LEFT, form)
        lower = here.lower.where(here.rate < 1)
        line(axis, here, shade, style)
        axis.plot(here.sigma, lower, color=shade, lw=0.8, zorder=2)
        axis.fill_between(here.sigma, lower, here.rate, color=shade, alpha=0.18, lw=0)
    markers(axis, LEFT, name, 4.5)
    if other:
        for text, place, shade in zip(other[1:3], other[3:], (colour, "0.25"), strict=True):
            axis.text(*place, text, color=shade, fontsize=8)
    axis.set(title=TITLES[name], ylim=(0.8, 1.004), xlim=(-0.03, 1.0))


def draw(data: xr.Dataset) -> figures.Figure:
    figure = figures.Figure(figsize=(11, 10.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    axes = top.subplots(1, 2, sharey=True)
    for axis, panel, title in zip(axes, PANELS, ("step size tuned", r"step size and $\mu$ tuned"), strict=True):
        overview(axis, data, panel)
        axis.set(title=title)
    axes[0].set(ylabel=r"certified rate $\rho$")
    handles = [axes[0].plot([], [], label=TITLES[name], **look(name), mfc="white", mew=1.1)[0] for name in LOOKS]
    handles.append(axes[0].plot([], [], "--", color="0.4", label="over directed\ngraphs as well")[0])
    handles.append(axes[0].plot([], [], ":", color="k", lw=1, label="no method\nis faster")[0])
    top.legend(handles=handles, loc="outside right center", title="lines: ours\nmarkers: published\n", alignment="left")
    axes = bottom.subplots(2, 4, sharex=True, sharey=True)
    for axis, name in zip(axes.flat, LOOKS, strict=True):
        single(axis, data, name)
    bottom.suptitle("step size tuned: certificate (thick), and slowest known instance (thin)", fontsize=9.5)
    bottom.supxlabel(r"$\sigma$", fontsize=9)
    bottom.supylabel(r"rate $\rho$", fontsize=9)
    return figure


def deviation(data: xr.Dataset, panel: str, name: str, shown: str) -> np.ndarray:
    """Ours minus published, at the points that both have."""
    here, points = curve(data, panel, name), _curves.published()[panel][shown]
    rates = [(float(here.rate.sel(sigma=s)), rate) for s, rate in points.items() if s in here.sigma]
    return np.array([ours - theirs for ours, theirs in rates])


def largest(differences: np.ndarray) -> float:
    """The largest in absolute value, with its sign."""
    return float(differences[np.abs(differences).argmax()])


def agreement(data: xr.Dataset, panel: str, names: Sequence[str], text: str) -> figures.Claim:
    found = {name: largest(deviation(data, panel, name, SHOWN[panel][name])) for name in names}
    holds = all(abs(value) <= AGREES[panel] for value in found.values())
    return figures.Claim(f"{text} (within {AGREES[panel]:g}; ours minus published)", holds, found)


def judge(data: xr.Dataset) -> list[figures.Claim]:
    left = data.sel(tuned=LEFT).dropna("sigma", how="all")
    published, rate = _curves.published(), left.rate
    diging = theory.state_space(lambda mix: _curves.CURVES["DIGing"](0.5 / SMOOTHNESS, mix))
    stuck = theory.modal.worst_instance(diging, STRONG_CONVEXITY, SMOOTHNESS, 0.0).rate
    converges = data.rate.where(data.rate < 1)
    lead = (converges - converges.sel(curve="SVL")).drop_sel(curve="SVL")
    floor = np.maximum(FLOOR, data.sigma)
    halfway = data.sel(tuned=RIGHT, sigma=0.5)
    unified = [name.removesuffix(_curves.DIRECTED) for name in DIRECTED]
    theirs = np.array([published[RIGHT][name][0.5] for name in unified])
    fields = _curves.Point._fields
    best = [_curves.Point(*(float(halfway[field].sel(curve=name)) for field in fields)) for name in unified]
    ring = np.array([_curves.on_directed_ring(name, found) for name, found in zip(unified, best, strict=True)])
    gap = (left.rate - left.lower).where(left.rate < 1).max("sigma").dropna("curve")
    at = list(published[LEFT]["EXTRA"])
    zero = {shown: published[LEFT][shown][0.0] for shown in ("DIGing", "ExDIFF", "AugDGM")}
    return [
        agreement(data, LEFT, list(SHOWN[LEFT]), "left: these forms of the methods give the published curves"),
        figures.Claim(
            "left: the curve called DIGing is DIGing (mu = 1)",
            bool(np.abs(deviation(data, LEFT, "DIGing", "DIGing")).max() <= AGREES[LEFT]),
            {
                "largest deviation, mu = 1": largest(deviation(data, LEFT, "DIGing", "DIGing")),
                "the same, mu = 1/2 in both mixings": largest(deviation(data, LEFT, "DIGing, lazy", "DIGing")),
                "sigma = 0, mu = 1": float(rate.sel(curve="DIGing", sigma=0)),
                "sigma = 0, mu = 1, step 1 / (2 L), all f_i = L x^2 / 2": stuck,
                "so the step is smaller, and the average's rate at least 1 - m / (2 L)": 1 - 0.5 / KAPPA,
            },
            {"sigma = 0, mu = 1": zero["DIGing"]},
        ),
        figures.Claim(
            "left: the curve called exact diffusion is exact diffusion",
            bool(np.abs(deviation(data, LEFT, "ExDIFF", "ExDIFF")).max() <= AGREES[LEFT]),
            {
                "largest deviation": largest(deviation(data, LEFT, "ExDIFF", "ExDIFF")),
                "the same, with the gradient in place of the disagreement in y": largest(
                    deviation(data, LEFT, "ExDIFF, Table 1", "ExDIFF")
                ),
                "exact diffusion at sigma = 0": float(rate.sel(curve="ExDIFF", sigma=0)),
            },
            {"exact diffusion at sigma = 0": zero["ExDIFF"]},
        ),
        figures.Claim(
            "exact diffusion and NIDS have the same certificate at every sigma (1e-5)",
            bool(np.abs(rate.sel(curve="ExDIFF") - rate.sel(curve="NIDS")).max() <= 1e-5),
            {"largest difference": float(np.abs(rate.sel(curve="ExDIFF") - rate.sel(curve="NIDS")).max())},
        ),
        figures.Claim(
            "left: the curve called AugDGM is AugDGM",
            bool(np.abs(deviation(data, LEFT, "AugDGM", "AugDGM")).max() <= AGREES[LEFT]),
            {
                "largest deviation": largest(deviation(data, LEFT, "AugDGM", "AugDGM")),
                "the same, gradients not mixed": largest(deviation(data, LEFT, "AugDGM, Table 1", "AugDGM")),
            },
        ),
        figures.Claim(
            "over time-varying graphs EXTRA's certificate does not depend on how it is written (1e-5)",
            bool(np.abs(rate.sel(curve="EXTRA") - rate.sel(curve="EXTRA, two-step")).max() <= 1e-5),
            {
                "sigma": at,
                "two-step": rate.sel(curve="EXTRA, two-step", sigma=at).values,
                "summed over time": rate.sel(curve="EXTRA", sigma=at).values,
            },
        ),
        agreement(data, RIGHT, list(SHOWN[RIGHT]), "right: over undirected graphs, these give the published curves"),
        figures.Claim(
            "right: what was published holds over directed graphs as well",
            bool((ring <= theirs + AGREES[RIGHT]).all()),
            {
                "methods at sigma = 0.5": unified,
                "best certificate over undirected graphs": halfway.rate.sel(curve=unified).values,
                "exact rate at its parameters on a directed ring of three": ring,
                "best certificate over all graphs": halfway.rate.sel(curve=list(DIRECTED)).values,
            },
            {"best certificate over undirected graphs": theirs},
        ),
        figures.Claim(
            "SVL is never beaten",
            bool(lead.min() >= -1e-6),
            {"smallest lead over another method": float(lead.min())},
        ),
        figures.Claim(
            "no acceleration: all rates are at least max((kappa - 1) / (kappa + 1), sigma)",
            bool((data.rate - floor).min() >= -1e-9),
            {"smallest distance": float((data.rate - floor).min())},
        ),
        figures.Claim(
            "step size tuned: the slowest known instance shows that the certificate is tight (1e-5)",
            bool(gap.max() <= 1e-5),
            {str(name): float(gap.sel(curve=name)) for name in gap.curve.values},
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
