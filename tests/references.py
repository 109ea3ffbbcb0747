"""Recorded trajectories and published numbers, one JSON file a source in tests/reference."""

import functools
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "reference"
PROTOTYPE = {
    "dgd": "dsgd_cta",
    "dgd_atc": "dsgd_atc",
    "diging": "diging",
    "augdgm": "aug_dgm",
    "extra": "extra",
    "nids": "nids",
    "exact_diffusion": "exact_diffusion",
    "d2": "d2",
}
"""The methods of theory_checks.json, by their names there and in the registry."""


@functools.cache
def load(name: str) -> dict[str, Any]:
    """The content of tests/reference/NAME.json, read once: do not write into it. Arrays are nested lists."""
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json"))) or "none"
        raise FileNotFoundError(f"no reference {name!r} in {FOLDER}; there are: {known}")
    return json.loads(path.read_text(encoding="utf-8"))
