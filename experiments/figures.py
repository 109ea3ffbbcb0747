"""What all figure scripts share, so that each of them only computes, draws and judges.

A script in `paper_figures/PAPER/` hands three functions to `run`: compute(full) -> Dataset, draw(data) -> Figure and
judge(data) -> claims. `run` reads the command line, saves the data with their provenance, the picture as PNG and PDF,
and the verdict on each of the paper's claims. The look of topologies and methods is the same in all figures.
"""

import argparse
import json
import math
import platform
import shlex
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import adozoo
from experiments.sources import MissingData

ROOT = Path(__file__).parents[1]

PALETTE = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#D0B800",  # darker than the original, to be legible as a line on white
    "blue": "#0072B2",
    "red": "#D55E00",
    "pink": "#CC79A7",
    "grey": "#777777",
    "brown": "#7F4F24",
    "violet": "#5E3C99",
}
"""Colours that the colour-blind can tell apart: Okabe and Ito, 2008, and three darker ones."""

STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}
"""Matplotlib's settings for all figures."""

_TOPOLOGIES = {
    "solo": ("grey", "x"),
    "disconnected": ("grey", "x"),
    "complete": ("black", "s"),
    "ring": ("blue", "o"),
    "path": ("brown", "<"),
    "star": ("orange", "*"),
    "heap_binary_tree": ("yellow", "^"),
    "binary_tree": ("yellow", "^"),
    "one_peer_exponential": ("sky", "P"),
    "exponential": ("sky", "p"),
    "two_cliques": ("pink", "D"),
    "torus": ("green", "v"),
    "helical_torus": ("green", "v"),
    "hypercube": ("red", "h"),
    "social_network": ("violet", "X"),
}
_METHODS = {
    "all_reduce_sgd": ("black", "s"),
    "dsgd": ("blue", "o"),
    "gradient_tracking": ("orange", "^"),
    "d2": ("green", "v"),
    "relay_sgd": ("red", "P"),
    "stochastic_gradient_push": ("sky", "<"),
    "quasi_global_momentum": ("pink", "D"),
    "power_gossip": ("red", "h"),
    "power_sgd": ("yellow", "*"),
    "exact_diffusion": ("green", "d"),
    "extra": ("pink", "X"),
    "nids": ("sky", ">"),
}
_MARKERS = "osv^<>DPX*hpd"


def _look(name: str, known: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    if name in known:
        colour, marker = known[name]
        return {"color": PALETTE[colour], "marker": marker}
    # The same for one name in every figure and session, whatever else is drawn: `hash` differs between sessions.
    number = zlib.crc32(name.encode())
    return {
        "color": list(PALETTE.values())[number % len(PALETTE)],
        "marker": _MARKERS[number // 16 % len(_MARKERS)],
    }


def topology(name: str) -> dict[str, str]:
    """Colour and marker of a topology, by the name of its family: "ring", and "ring:32" alike."""
    return _look(name.partition(":")[0], _TOPOLOGIES)


def method(name: str) -> dict[str, str]:
    """Colour and marker of a method, by its name in the zoo."""
    return _look(name, _METHODS)


def panels(rows: int = 1, columns: int = 1, size: tuple[float, float] = (4.2, 3.4), **options: Any) -> tuple[Any, Any]:
    """A figure and its axes, each panel of `size` inches; options go to `Figure.subplots`."""
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, and whether it holds here (None: cannot be tested at this scale).

    Attributes:
        text: the claim, in a sentence.
        holds: the verdict.
        numbers: what was found, by name.
        published: what the paper has under the same names, where known.
    """

    text: str
    holds: bool | None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return {True: "holds", False: "fails", None: "not testable at this scale"}[self.holds]


def _plain(value: Any) -> Any:
    """Numbers as JSON has them: no arrays, no infinities."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray | list | tuple):
        return "(" + ", ".join(_shown(item) for item in value) + ")"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def verdict_table(claims: Sequence[Claim]) -> str:
    """The claims, one after the other: verdict, text, and below it the numbers with the published ones in brackets."""
    lines = []
    for claim in claims:
        lines.append(f"[{claim.verdict}] {claim.text}")
        names = [*claim.numbers, *(name for name in claim.published if name not in claim.numbers)]
        for name in names:
            found = _shown(claim.numbers[name]) if name in claim.numbers else "-"
            paper = f"   (published {_shown(claim.published[name])})" if name in claim.published else ""
            lines.append(f"    {name}: {found}{paper}")
    return "\n".join(lines)


def revision() -> str:
    """The checkout's git revision, "-dirty" if files differ from it; "unknown" where there is no git."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def provenance(scale: str, seconds: float) -> dict[str, Any]:
    """Where a data set comes from, as attributes of a netCDF file."""
    return {
        "command_line": shlex.join(sys.argv),
        "scale": scale,
        "adozoo": adozoo.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "git_revision": revision(),
        "x64": int(jax.config.jax_enable_x64),  # type: ignore[attr-defined]
        "seconds": round(seconds, 1),
    }


def save(data: xr.Dataset, path: Path) -> None:
    """Write a data set as netCDF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.to_netcdf(path, engine="h5netcdf")


def load(path: Path) -> xr.Dataset:
    """Read what `save` wrote, into memory."""
    return xr.load_dataset(path, engine="h5netcdf")


def _record(claims: Sequence[Claim], data: xr.Dataset, figure: str, path: Path) -> None:
    """Enter a figure's verdicts into the file that all figures of the folder share."""
    verdicts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    verdicts[figure] = {
        "scale": data.attrs["scale"],
        "git_revision": data.attrs["git_revision"],
        "claims": [
            {
                "text": claim.text,
                "verdict": claim.verdict,
                "numbers": _plain(claim.numbers),
                "published": _plain(claim.published),
            }
            for claim in claims
        ],
    }
    text = json.dumps(dict(sorted(verdicts.items())), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _parser(script: Path, description: str) -> argparse.ArgumentParser:
    output = Path("outputs/figures") / script.parent.name
    parser = argparse.ArgumentParser(
        prog=f"python paper_figures/{script.parent.name}/{script.name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--quick", action="store_true", help="seconds to two minutes on two cores (default)")
    scale.add_argument("--full", action="store_true", help="the paper's scale, or the largest that a CPU can do")
    parser.add_argument("--reuse-data", action="store_true", help="redraw and judge again from the saved data")
    parser.add_argument(
        "--output", type=Path, default=output, metavar="FOLDER", help=f"for data, pictures, verdicts (default {output})"
    )
    return parser


def _reuse(parser: argparse.ArgumentParser, path: Path, wanted: str | None) -> xr.Dataset:
    if not path.is_file():
        parser.error(f"--reuse-data: there is no {path} yet; run without it first")
    data = load(path)
    if wanted not in (None, data.attrs["scale"]):
        parser.error(f"--reuse-data: {path} holds data of --{data.attrs['scale']}, not of --{wanted}")
    return data


def run(
    script: str,
    description: str | None,
    compute: Callable[[bool], xr.Dataset],
    draw: Callable[[xr.Dataset], Figure],
    judge: Callable[[xr.Dataset], Sequence[Claim]],
    arguments: Sequence[str] | None = None,
) -> list[Claim]:
    """Be the `main` of a figure script.

    Writes NAME.nc, .png, .pdf and the entry NAME of verdicts.json into the output folder, and prints the verdicts.
    A claim that fails is a result, not an error of the script: the exit status stays 0. It is 2 where a data set is
    missing; how to get it is all that is printed.

    Args:
        script: the script's `__file__`, paper_figures/PAPER/NAME.py.
        description: the script's `__doc__`, shown by --help.
        compute: full -> all numbers behind the figure.
        draw: data -> the figure, drawn under `STYLE`.
        judge: data -> the paper's claims with verdicts.
        arguments: command line, `sys.argv` by default.

    Returns:
        The claims.
    """
    path = Path(script)
    parser = _parser(path, description or "")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    target = options.output / path.stem
    if options.reuse_data:
        wanted = "full" if options.full else "quick" if options.quick else None
        data = _reuse(parser, target.with_suffix(".nc"), wanted)
    else:
        started = time.perf_counter()
        try:
            data = compute(options.full)
        except MissingData as missing:
            parser.exit(2, f"{missing}\n")
        scale = "full" if options.full else "quick"
        data = data.assign_attrs(provenance(scale, time.perf_counter() - started))
        save(data, target.with_suffix(".nc"))
    with mpl.rc_context(STYLE):
        figure = draw(data)
        for suffix in (".png", ".pdf"):
            figure.savefig(target.with_suffix(suffix))
    claims = list(judge(data))
    _record(claims, data, path.stem, options.output / "verdicts.json")
    title = f"{path.parent.name} {path.stem}, {data.attrs['scale']} scale"
    print(f"{title}\n{'-' * len(title)}\n{verdict_table(claims)}\n")
    print(f"{target}.png, .pdf, .nc; computed in {data.attrs['seconds']:.0f} s")
    return claims
