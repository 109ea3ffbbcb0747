r"""The report's tables in LaTeX, with the rules of booktabs: `\usepackage{booktabs}`, then `\input{tables}`."""

import math

from experiments.ranking import Interval
from experiments.report.analysis import Overall, Section, shown_budgets

_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def escape(text: str) -> str:
    r"""Text as LaTeX sets it.

    Example:
      >>> print(escape("50 % of dsgd_atc"))
      50 \% of dsgd\_atc
    """
    return "".join(_SPECIAL.get(character, character) for character in text)


def number(value: float, digits: int = 3) -> str:
    """A number in mathematics, to so many significant digits; a dash for what is not finite.

    Example:
      >>> print(number(1.234e-7), number(0.5), number(float("nan")))
      $1.23 \\cdot 10^{-7}$ $0.5$ --
    """
    if not math.isfinite(value):
        return "--"
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return f"${mantissa} \\cdot 10^{{{int(exponent)}}}$" if exponent else f"${mantissa}$"


def _interval(found: Interval) -> str:
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"


def _table(caption: str, columns: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
    ]
    lines += [" & ".join(head) + r" \\", r"\midrule", *(" & ".join(row) + r" \\" for row in rows)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _section(part: Section) -> str:
    budgets = shown_budgets(part.rows[0].trials) if part.rows else []
    head = ["method", *(f"$k = {k}$" for k in budgets), f"final {escape(part.metric)}", "rank", "diverged"]
    rows = [
        [
            escape(row.method),
            *(number(row.expected.value[k - 1]) for k in budgets),
            _interval(row.final),
            _interval(row.rank),
            f"{row.diverged} of {row.trials}",
        ]
        for row in part.rows
    ]
    caption = (
        f"{escape(part.task)} on {escape(part.cluster)}: expected test {escape(part.metric)} after $k$ trials "
        r"(selected by validation, without replacement), final value and rank with 95\,\% bootstrap intervals."
    )
    return _table(caption, "l" + "r" * (len(head) - 1), head, rows)


def _overall(total: Overall) -> str:
    trials = total.relative.shape[1]
    budgets = shown_budgets(trials)
    head = ["method", "mean rank", *(f"$S(k = {k})$" for k in budgets), f"win probability, $k = {trials}$"]
    rows = [
        [
            escape(method),
            _interval(Interval(*(float(end[i]) for end in total.ranks))),
            *(number(total.relative[i, k - 1]) for k in budgets),
            number(total.wins[-1, i]),
        ]
        for i, method in enumerate(total.methods)
    ]
    caption = f"{escape(total.cluster)}: mean ranks over tasks, relative performance, and win probability."
    return _table(caption, "l" + "r" * (len(head) - 1), head, rows)


def tables(title: str, parts: dict[str, list[Section]], totals: dict[str, Overall]) -> str:
    """All tables: for each cluster the tasks together, then each by itself.

    Args:
      title: of the benchmark, put into a comment.
      parts: the sections of each cluster.
      totals: the tasks of each cluster together.
    """
    found = ["% " + " ".join(title.split()), r"% \usepackage{booktabs}", ""]
    for cluster, sections in parts.items():
        found += [_overall(totals[cluster]), *map(_section, sections)]
    return "\n".join(found)
