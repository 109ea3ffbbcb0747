"""python -m theory bounds: the theorems as objects."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from tyro.conf import Positional, arg

import adozoo
from theory import bounds as collection
from theory.bounds import Bound, Trial
from theory.cli import options
from theory.cli.options import Reply

Trials: TypeAlias = Mapping[str, Trial] | None
"""The outcomes of searches by name, where there were any."""


def bounds(
    names: Annotated[Positional[tuple[str, ...]], arg(metavar="[NAME ...]", help_behavior_hint="")] = (),
    method: Annotated[str | None, arg(metavar="METHOD")] = None,
    falsify: Annotated[int | None, arg(metavar="N")] = None,
    seed: int = 0,
    latex: bool = False,
    markdown: Annotated[Path | None, arg(metavar="FILE")] = None,
    json: bool = False,
) -> Reply:
    """The theorems that are known here: list them, show some in full, try to break them.

    Each has evidence: derived (proved here), checked (against the source, or by exact computation) or recalled (from
    memory: its constants may be wrong). With --falsify, N random and adversarial instances are measured; a worst ratio
    of measured to bound above 1 is a violation, and then the exit status is 1. Orders have no constants to break.

    For example:

        python -m theory bounds
        python -m theory bounds nids extra_lyapunov
        python -m theory bounds --method diging --falsify 10000
        python -m theory bounds --falsify 10000 --markdown docs/theorems.md

    Args:
      names: theorems to show in full; none for the list.
      method: only those on this method of adozoo.zoo.
      falsify: try to break each on N instances.
      seed: seed of the searches.
      latex: print the formulas as LaTeX, one a line.
      markdown: write a table of them into this file.
      json: print JSON.
    """
    chosen = _chosen(names, method)
    trials = None if falsify is None else {row.name: row for row in _tried(chosen, falsify, seed)}
    holds = trials is None or not any(row.violated for row in trials.values())
    if latex and not json:
        text = "\n".join(bound.latex() for bound in chosen)
    elif names:
        text = "\n\n".join(_shown(bound, trials) for bound in chosen)
    else:
        text = _table(chosen, trials)
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(table_in_markdown(chosen, trials), encoding="utf-8")
        text = f"{text}\n\nWritten: {markdown}"
    data = {"bounds": [_data(bound, trials) for bound in chosen]}
    return options.reply(data, text, json, holds)


def _chosen(names: Sequence[str], method: str | None) -> list[Bound]:
    known = collection.entries()
    if method is not None:
        known = collection.of_method(adozoo.zoo.entry(method).name)
        for name in names:
            if name not in known:
                collection.entry(name)  # an unknown name is refused there
                raise ValueError(f"bounds: {name!r} is no theorem on {method}. There are {', '.join(known) or 'none'}.")
    return [collection.entry(name) for name in names] or list(known.values())


def _tried(chosen: Sequence[Bound], instances: int, seed: int) -> list[Trial]:
    if instances < 1:
        raise ValueError(f"--falsify: need a positive number of instances, got {instances}.")
    return collection.falsify_all(instances, seed, [bound.name for bound in chosen])


def _trial_words(row: Trial | None) -> str:
    if row is None:
        return ""
    if not row.instances:
        return "cannot be measured" if row.kind == "bound" else "an order"
    return f"{row.worst_ratio:.6f} of {row.instances}" + (" VIOLATED" if row.violated else "")


def _table(chosen: Sequence[Bound], trials: Trials) -> str:
    head = ["name", "evidence", "kind", "methods", "reference"]
    rows = [
        [bound.name, bound.evidence, bound.kind, ", ".join(bound.methods) or "-", textwrap.shorten(bound.reference, 60)]
        for bound in chosen
    ]
    if trials is not None:
        head = ["name", "evidence", "kind", "worst ratio of instances"]
        rows = [[*row[:3], _trial_words(trials[row[0]])] for row in rows]
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    rule = ["-" * width for width in widths]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, rule, *rows)
    ]
    return "\n".join(lines) + "\n\nOne in full:  python -m theory bounds NAME"


def _shown(bound: Bound, trials: Trials) -> str:
    relation = {"upper": "<=", "lower": ">=", "equal": "="}[bound.direction]
    value = f"O({bound.expression})" if bound.kind == "order" else str(bound.expression)
    bounded = f"{'squared ' * bound.squared}{'factor per step, ' * bound.rate}of: {bound.of}"
    pairs = [
        ("theorem", bound.name),
        ("says", bound.statement),
        ("bound", f"{relation} {value}   [{bounded}]"),
        ("LaTeX", bound.latex()),
        ("if", str(bound.condition)),
        ("assumes", "; ".join(bound.assumptions)),
        ("methods", ", ".join(bound.methods)),
        ("evidence", bound.evidence + (": the constants may be wrong" if bound.evidence == "recalled" else "")),
        ("reference", bound.reference),
        *((f"  {name}", collection.MEANINGS.get(name, "")) for name in bound.symbols),
    ]
    if trials is not None:
        pairs.append(("worst ratio", _trial_words(trials[bound.name])))
    fill = textwrap.TextWrapper(
        118, subsequent_indent=" " * (options.WIDTH + 1), break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(fill.fill(f"{name:{options.WIDTH}s} {text}") for name, text in pairs if text)


def _data(bound: Bound, trials: Trials) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": bound.name,
        "statement": bound.statement,
        "latex": bound.latex(),
        "expression": str(bound.expression),
        "condition": str(bound.condition),
        "symbols": {name: collection.MEANINGS.get(name, "") for name in bound.symbols},
        "kind": bound.kind,
        "direction": bound.direction,
        "rate": bound.rate,
        "squared": bound.squared,
        "of": bound.of,
        "assumptions": bound.assumptions,
        "methods": bound.methods,
        "evidence": bound.evidence,
        "reference": bound.reference,
    }
    if trials is not None:
        row = trials[bound.name]
        tried = {"worst_ratio": row.worst_ratio, "instances": row.instances, "violated": row.violated}
        data["falsification"] = tried
    return data


def table_in_markdown(chosen: Sequence[Bound], trials: Trials = None) -> str:
    r"""The theorems as a Markdown document: a row each, with formula, evidence and the outcome of the search.

    Example:
      >>> table_in_markdown([theory.bounds.entry("d2_stability")]).splitlines()[-1]
      '| `d2_stability` | $\\lambda_n \\ge - \\frac{1}{3}$ | ...
    """
    head = ["name", "bound", "evidence", "methods", "reference"]
    lines = [
        "# Theorems",
        "",
        "Evidence: *derived* here, *checked* against the source or by exact computation, or *recalled* from memory, so",
        "that constants may be wrong. Orders are marked O, and never compared with measurements.",
    ]
    if trials is not None:
        head.insert(3, "worst ratio")
        most = max((row.instances for row in trials.values()), default=0)
        lines += [
            "",
            f"Worst ratio: the largest measured / bound (bound / measured for lower bounds) over up to {most} random",
            "and adversarial instances. Above 1 it is a violation; at 1 the bound is tight.",
        ]
    lines += ["", f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for bound in chosen:
        formula = bound.latex().replace(r"\|", r"\Vert ").replace("|", r"\vert ")  # a bar would end the cell
        cells = [f"`{bound.name}`", f"${formula}$", bound.evidence, ", ".join(bound.methods), bound.reference]
        if trials is not None:
            cells.insert(3, _ratio(trials[bound.name]))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _ratio(row: Trial) -> str:
    if np.isnan(row.worst_ratio):
        return "-"
    return f"{row.worst_ratio:.6f}" + (" **violated**" if row.violated else "")
