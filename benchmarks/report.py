"""What a workload reports, results.json, and the tables of RESULTS.md."""

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.timing import Cold, Spread

FOLDER = Path(__file__).parent
PACKAGES = ("jax", "numpy", "optax")
UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


@dataclass
class Result:
    """One workload: rows of measurements, targets that hold or fail, and what explains them."""

    title: str
    setting: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    load: float | None = None  # the machine's load average when it began; nobody else's work is about zero

    def row(self, case: str, who: str, warm: Spread | None = None, cold: Cold | None = None, **more: Any) -> None:
        """One contender in one case; `more` are columns of this workload's own, numbers or text."""
        times = {"warm": asdict(warm) if warm else None, "cold": asdict(cold) if cold else None}
        self.rows.append({"case": case, "who": who} | times | more)

    def target(
        self, what: str, measured: float | None, least: float | None = None, most: float | None = None, unit: str = "x"
    ) -> None:
        """What was promised, a ratio by default; `measured` is None where the peer is not available."""
        if measured is None:
            holds = None
        else:
            holds = (least is None or measured >= least) and (most is None or measured <= most)
        self.targets.append(
            {"what": what, "measured": measured, "least": least, "most": most, "unit": unit, "holds": holds}
        )


def seconds(value: float | None) -> str:
    """A time with three digits in the unit that suits it."""
    if value is None:
        return "-"
    unit, size = next((pair for pair in UNITS if value >= pair[1]), UNITS[-1])
    return f"{value / size:.3g} {unit}"


def text(result: Result | dict[str, Any]) -> list[str]:
    """The markdown section of one workload."""
    result = asdict(result) if isinstance(result, Result) else result
    lines = [f"## {result['title']}", "", result["setting"], "", *_rows(result["rows"])]
    if result["targets"]:
        lines += ["", *_targets(result["targets"])]
    lines += [line for note in result["notes"] for line in ("", note)]
    load = result.get("load")
    return [*lines, "", f"Load average when it began: {'not recorded' if load is None else f'{load:.1f}'}."]


def markdown(results: dict[str, Any]) -> str:
    machine, versions = results["machine"], results["versions"]
    lines = [
        "# How fast adozoo is",
        "",
        f"Measured on {machine['cores']} cores of {machine['cpu']}, {machine['system']}, with "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + ". Written by `python -m benchmarks`, not by hand.",
        "",
        "Warm is min / **median** / max of repeated calls, contenders taking turns. Cold is tracing + compiling + the",
        "first run in a fresh process, without imports; median of up to three. Ratios are of medians.",
    ]
    for result in results["workloads"].values():
        lines += ["", *text(result)]
    return "\n".join(lines) + "\n"


def _table(head: list[str], body: Iterable[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *body]]


def _rows(rows: list[dict[str, Any]]) -> list[str]:
    own = list(dict.fromkeys(name for row in rows for name in row if name not in ("case", "who", "warm", "cold")))
    first = {"total": "cold", "compile": "of it compiling"}
    parts = [part for part in first if any(row["cold"] and row["cold"][part] is not None for row in rows)]
    head = ["case", "contender", "warm", *(first[part] for part in parts), *own]
    return _table(head, ([row["case"], row["who"], *_times(row, parts), *_own(row, own)] for row in rows))


def _times(row: dict[str, Any], parts: list[str]) -> list[str]:
    warm, cold = row["warm"], row["cold"] or {}
    spread = f"{seconds(warm['minimum'])} / **{seconds(warm['median'])}** / {seconds(warm['maximum'])}" if warm else "-"
    return [spread, *(seconds(cold.get(part)) for part in parts)]


def _own(row: dict[str, Any], names: list[str]) -> list[str]:
    cells = (row.get(name, "") for name in names)
    return [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells]


def _targets(targets: list[dict[str, Any]]) -> list[str]:
    verdicts = {True: "holds", False: "**falls short**", None: "not available"}

    def cells(target: dict[str, Any]) -> list[str]:
        unit = target["unit"]
        least, most, value = target["least"], target["most"], target["measured"]
        wanted = f"at least {least:g}{unit}" if least is not None else f"at most {most:g}{unit}"
        measured = "-" if value is None else f"{value:.3g}{unit}"
        return [target["what"], wanted, measured, verdicts[target["holds"]]]

    return _table(["target", "wanted", "measured", "verdict"], map(cells, targets))


def machine() -> dict[str, Any]:
    """The machine by its cores and processor, and nothing that would name it."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        models = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].split(":")[1].strip() if models else cpu
    return {"cores": os.cpu_count(), "cpu": cpu, "system": platform.system()}


def save(new: dict[str, Result], order: list[str]) -> None:
    """Replace the workloads that ran in results.json, and write RESULTS.md from it."""
    path = FOLDER / "results.json"
    old = json.loads(path.read_text())["workloads"] if path.exists() else {}
    merged = old | {name: asdict(result) for name, result in new.items()}
    results = {
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "workloads": {name: merged[name] for name in order if name in merged},
    }
    path.write_text(json.dumps(results, indent=1) + "\n")
    (FOLDER / "RESULTS.md").write_text(markdown(results))
