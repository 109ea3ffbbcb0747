"""The documents' code runs, and prints what they say it prints.

Each ```python block of a document runs in order in one namespace. Where a ```text output block comes next, it is what
the code since the last such block prints; as in a doctest, `...` stands for anything and white space is free.
"""

import contextlib
import doctest
import io
import re
from pathlib import Path

import pytest

import adozoo
import theory

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
FENCE = re.compile(r"^```(python|text output)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_document(path: Path) -> int:
    """Run a document's blocks, compare their output, and return how many python blocks ran."""
    document = path.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": path.stem}
    printed = io.StringIO()
    blocks = 0
    for fence in FENCE.finditer(document):
        kind, text = fence.groups()
        line = document.count("\n", 0, fence.start(2))
        if kind == "python":
            blocks += 1
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * line + text, path, "exec"), namespace)  # tracebacks point into the document
        else:
            got, printed = printed.getvalue(), io.StringIO()
            if not doctest.OutputChecker().check_output(text, got, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE):
                pytest.fail(f"{path.name}:{line}: expected\n{text}but the blocks above printed\n{got}", pytrace=False)
    return blocks


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_code_of_a_document_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A document may register a method, which the tests after it must not see.
    monkeypatch.setattr(adozoo.zoo, "_ENTRIES", dict(adozoo.zoo.entries()))
    assert run_document(ROOT / name) > 0, f"{name} shows no python block"


def test_output_that_differs_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint('x =', 1 / 3)\n```\n\n```text output\nx = 0.333...\n```\n")
    assert run_document(page) == 1
    page.write_text(page.read_text().replace("0.333", "0.334"))
    with pytest.raises(pytest.fail.Exception, match=r"page.md:5: expected\nx = 0.334"):
        run_document(page)


def test_readme_names_both_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make quickstart" in text
    assert "make test" in text


def test_readme_lists_every_method_as_it_is_registered():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, entry in adozoo.zoo.entries().items():
        row = next((line for line in text.splitlines() if line.startswith(f"| `{name}` |")), "")
        exact = f"| {'yes' if entry.exact else 'no'} | {entry.vectors:g} "
        assert all(part in row for part in (entry.factory.__name__, entry.title, entry.paper, exact)), name


def test_theorems_are_all_listed():
    """docs/theorems.md is written by `python -m theory bounds --falsify 10000 --markdown docs/theorems.md`."""
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| (derived|checked|recalled) \| ([\d.]+|-) \|", (ROOT / "docs/theorems.md").read_text(), re.M
    )
    known = theory.bounds.entries()
    assert {name: evidence for name, evidence, _ in rows} == {name: bound.evidence for name, bound in known.items()}
    for name, evidence, ratio in rows:
        assert (ratio == "-") == (known[name].search is None)
        assert evidence == "recalled" or ratio == "-" or float(ratio) <= 1 + 1e-6
