r"""PowerGossip (Vogels, Karimireddy, Jaggi, NeurIPS 2020): warm start against random directions.

Eight workers on a ring average matrices, as in consensus.py. PowerGossip looks at the difference of two neighbours
along directions that it kept from the last round (warm start, power iteration), or along fresh random ones. Where the
differences are of low rank the former finds them; where all singular values are alike there is nothing to find.

One round from random directions, v uniform, removes a share r/b of each edge's difference on average. Then for \gamma <
2 / (1 - \lambda_n)

    E \sum_i |X_i - \bar X|^2 <= (1 - \gamma (2 - \gamma (1 - \lambda_n)) (1 - \lambda_2) r/b) \sum_i |X_i - \bar X|^2

after it (and with r/a, where v multiplies from the left). For warm starts there is no such bound for one step.

Deviations: in place of the paper's faces, which would have to be downloaded, smooth random images of low rank and
corners of two photographs. The paper has curves and no numbers to compare with.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

import theory
from experiments import figures
from paper_figures.powergossip import _consensus
from paper_figures.powergossip._consensus import DIFFUSION_RATE, power_gossip

STYLES = {
    "uncompressed": {"color": figures.PALETTE["black"], "ls": ":"},
    "warm, rank 1": {"color": figures.PALETTE["red"]},
    "warm, rank 2": {"color": figures.PALETTE["orange"], "ls": "--"},
    "random, rank 1": {"color": figures.PALETTE["blue"]},
}
METHODS = {
    "warm, rank 1": power_gossip(1),
    "warm, rank 2": power_gossip(2),
    "random, rank 1": power_gossip(1, warm_start=False),
}
LEVELS = (1e-2, 1e-4)
SHOWN = 50
"""Singular values."""
COLOURS = ("grey", "red", "green")
SHORT = 20
"""Steps of two rounds each, to be compared with twice as many of one round."""


def bound(shape: Sequence[int]) -> float:
    """The factor of one round from random directions of rank 1, at most."""
    eigenvalues = np.sort(theory.eigenvalues(_consensus.MIX))
    smallest, second = eigenvalues[0], eigenvalues[-2]
    return float(1 - DIFFUSION_RATE * (2 - DIFFUSION_RATE * (1 - smallest)) * (1 - second) / max(shape))


def two_rounds(data: str, seeds: Sequence[int]) -> float:
    """How far s = 2 is from s = 1 in twice the steps, relatively: with warm start and without."""
    apart = []
    for warm_start in (True, False):
        once = _consensus.run(power_gossip(warm_start=warm_start), data, 2 * SHORT, seeds).errors[:, 1::2]
        twice = _consensus.run(power_gossip(rounds=2, warm_start=warm_start), data, SHORT, seeds).errors
        apart.append(np.abs(once / twice - 1).max())
    return float(max(apart))


def curves(data: str, steps: int, seeds: Sequence[int]) -> dict[str, _consensus.Run]:
    """All curves of a panel, as far as `steps` rounds of rank 1 in bits, at most."""
    found = {"uncompressed": _consensus.uncompressed(data, max(steps // 20, 1), seeds)}
    for name, method in METHODS.items():
        found[name] = _consensus.run(method, data, steps if name.endswith("1") else steps // 2, seeds)
    return found


def compute(full: bool) -> xr.Dataset:
    seeds = range(10 if full else 2)
    steps = {data: 5000 if full else 2300 if data == "white noise" else 1300 for data in _consensus.STARTS}
    sets = {data: curves(data, steps[data], seeds) for data in steps}
    errors = np.full((len(sets), len(STYLES), len(seeds), max(steps.values())), np.nan)  # nan: not run as far
    spectra = []
    for i, (data, found) in enumerate(sets.items()):
        for j, curve in enumerate(found.values()):
            errors[i, j, :, : curve.errors.shape[1]] = curve.errors
        start = np.asarray(_consensus.start(data, seeds), float)
        values = np.linalg.svd(start[:, 0] - start[:, 1], compute_uv=False)
        spectra.append(np.median(values / np.sqrt((values**2).sum(1, keepdims=True)), 0)[:SHOWN])
    shapes = [_consensus.start(data, seeds[:1]).shape[2:] for data in sets]
    return xr.Dataset(
        {
            "error": (("start", "algorithm", "seed", "step"), errors),
            "bits": (("start", "algorithm"), np.array([[run.bits for run in runs.values()] for runs in sets.values()])),
            "spectrum": (("start", "index"), np.array(spectra)),
            "bound": ("start", [bound(shape) for shape in shapes]),
            "two_rounds": two_rounds("photographs", seeds),
        },
        {
            "start": list(sets),
            "algorithm": list(STYLES),
            "seed": list(seeds),
            "step": 1 + np.arange(errors.shape[-1]),
            "index": 1 + np.arange(SHOWN),
        },
    )


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axes = figures.panels(2, 2, (3.9, 2.8))
    for axis, name in zip(axes.flat, data.start.values, strict=False):
        for method, style in STYLES.items():
            here = data.sel(start=name, algorithm=method)
            sent = np.arange(len(here.step) + 1) * float(here.bits) / 1e6
            errors = np.pad(here.error.values, ((0, 0), (1, 0)), constant_values=1.0)
            axis.plot(sent, np.median(errors, 0), label=method, **style)
            axis.fill_between(sent, errors.min(0), errors.max(0), color=style["color"], alpha=0.15, lw=0)
        longest = data.sel(start=name, algorithm="random, rank 1")
        shown = int(longest.error.isel(seed=0).count()) * float(longest.bits) / 1e6
        axis.set(yscale="log", ylim=(1e-6, 1.5), xlim=(0, shown), title=name, xlabel="Mbit sent by each worker")
    for axis in axes[:, 0]:
        axis.set_ylabel("disagreement / at the start")
    last = axes[1, 1]
    for name, colour in zip(data.start.values, COLOURS, strict=True):
        last.plot(data.index, data.spectrum.sel(start=name), label=name, color=figures.PALETTE[colour])
    last.set(yscale="log", title="singular values of $X_0 - X_1$", xlabel="index", ylim=(1e-3, 1.5))
    last.set_ylabel("over the Frobenius norm")
    last.legend(loc="upper right")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _megabits(data: xr.Dataset, name: str, method: str, level: float) -> float:
    """Median over seeds of what a worker sends until the error is below a level."""
    here = data.sel(start=name, algorithm=method)
    steps = [_consensus.first_below(errors, level) for errors in here.error.values]
    return float(np.median(steps)) * float(here.bits) / 1e6


def judge(data: xr.Dataset) -> list[figures.Claim]:
    sent = {
        name: {f"{method}, to {level:g}": _megabits(data, name, method, level) for level in LEVELS for method in STYLES}
        for name in data.start.values.tolist()
    }
    structured = [name for name in sent if name != "white noise"]
    others = ("random, rank 1", "uncompressed")
    gains = {
        name: {
            f"{other}, to {level:g}": sent[name][f"{other}, to {level:g}"] / sent[name][f"warm, rank 1, to {level:g}"]
            for level in LEVELS
            for other in others
        }
        for name in sent
    }
    ranks = {
        f"{name}, to {level:g}": sent[name][f"warm, rank 2, to {level:g}"] / sent[name][f"warm, rank 1, to {level:g}"]
        for name in sent
        for level in LEVELS
    }
    noise = gains["white noise"]
    neutral = {method: _megabits(data, "white noise", method, 1e-6) for method in STYLES}
    random = data.error.sel(algorithm="random, rank 1")
    measured = ((random.isel(step=200) / random.isel(step=0)) ** (1 / 200)).max("seed").values
    return [
        figures.Claim(
            "on matrices with structure, warm start needs less than a fifth of the bits of random directions, and of "
            "uncompressed gossip, to get to 1e-2",
            all(gains[name][f"{other}, to 0.01"] > 5 for name in structured for other in others),
            {f"{name}: times the bits, {other}": gain for name in structured for other, gain in gains[name].items()},
        ),
        figures.Claim(
            "on white noise warm start gains a little over random directions: between 1.1 and 2 times",
            all(1.1 < noise[f"random, rank 1, to {level:g}"] < 2 for level in LEVELS),
            {f"to {level:g}": noise[f"random, rank 1, to {level:g}"] for level in LEVELS},
        ),
        figures.Claim(
            "on white noise PowerGossip with warm start sends as much as uncompressed gossip, to get to 1e-6 (5 %)",
            abs(neutral["warm, rank 1"] / neutral["uncompressed"] - 1) < 0.05,
            {f"{method}, Mbit": value for method, value in neutral.items()},
        ),
        figures.Claim(
            "a higher rank gains nothing: with warm start, rank 2 needs as many bits as rank 1, or more (1 %)",
            min(ranks.values()) > 0.99,
            ranks,
        ),
        figures.Claim(
            "two rounds a step are two steps of one round, without gradients (float32)",
            float(data.two_rounds) < 1e-2,
            {"largest relative difference": float(data.two_rounds)},
        ),
        figures.Claim(
            "random directions contract at least as the bound for one step says (mean factor over 200 steps)",
            bool((measured <= data.bound.values).all()),
            {f"{name}: measured, bound": (float(measured[i]), float(data.bound[i])) for i, name in enumerate(sent)},
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
