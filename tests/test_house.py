"""The rules of the house that no linter knows: size, direction of imports, docstrings, versions, clean files."""

import ast
import importlib
import inspect
import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import adozoo

ROOT = Path(__file__).parents[1]
MAX_LINES = 400
# What a package may not import. Imports point downwards only.
ABOVE = {
    "adozoo": {"theory", "experiments", "paper_figures"},
    "theory": {"experiments", "paper_figures"},
    "experiments": {"paper_figures"},
}


def modules(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of each thing that a file imports, in functions as well."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)


def public(tree: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list):
            yield node


def test_no_file_is_too_long():
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules(*ABOVE)}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_imports_point_downwards():
    wrong = [
        f"{name(path)}:{line}: {package} imports {target}"
        for package, above in ABOVE.items()
        for path in modules(package)
        for line, target in imported(path)
        if target.split(".")[0] in above
    ]
    assert wrong == []


def test_method_folders_use_only_the_modules_at_the_top():
    """A method folder never imports another one, nor the flat namespace; compressors lie below all of them."""
    top = {path.stem for path in (ROOT / "adozoo").glob("*.py")} - {"__init__"} | {"compression"}
    wrong = []
    for path in modules("adozoo"):
        _, *folders, _ = path.relative_to(ROOT).parts
        for line, target in imported(path):
            first, *rest = target.split(".")
            if folders and first == "adozoo" and (not rest or rest[0] not in {*top, folders[0]}):
                wrong.append(f"{name(path)}:{line}: imports {target}")
    assert wrong == []


def test_everything_public_has_a_docstring():
    """Every module, function and class, and every method, which may inherit it; a property may be told by its class."""
    bare = []
    for path in modules("adozoo", "theory"):
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        module = importlib.import_module(dotted)
        bare += [] if module.__doc__ else [name(path)]
        for node in public(ast.parse(path.read_text(encoding="utf-8"))):
            bare += [] if ast.get_docstring(node) else [f"{name(path)}:{node.lineno}: {node.name}"]
            for method in public(node) if isinstance(node, ast.ClassDef) else ():
                member = getattr(getattr(module, node.name), method.name)
                bare += (
                    []
                    if inspect.getdoc(member) or isinstance(member, property)
                    else [f"{name(path)}:{method.lineno}: {node.name}.{method.name}"]
                )
    assert bare == []


def test_one_version_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert adozoo.__version__ == version
    assert cited is not None
    assert cited[1].strip("\"'") == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_no_file_names_this_machine():
    """No home directory, no place of this checkout, no address of a package index in what git holds or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    # Written with a class of one letter, so that this file does not match itself.
    patterns = [r"/[h]ome/\w", r"/[U]sers/\w", r"/[r]oot/", r"[p]ypi\.\w", r"[p]ythonhosted\.", r"[f]ile:///\w"]
    patterns += [re.escape(str(place)) + r"(?!\w)" for place in (ROOT, Path.home()) if len(place.parts) > 2]
    personal = re.compile("|".join(rf"(?:{pattern})" for pattern in patterns).encode())
    found = []
    for file in map(os.fsdecode, filter(None, listed.stdout.split(b"\0"))):
        if (ROOT / file).is_file() and (match := personal.search((ROOT / file).read_bytes())):
            found.append(f"{file}: {match[0].decode(errors='replace')}")
    assert found == []


@pytest.mark.parametrize("script", [path for path in modules("paper_figures") if path.name[0] != "_"], ids=name)
def test_a_figure_script_takes_the_common_flags(script, monkeypatch, capsys):
    guards = [
        ast.unparse(node.test)
        for node in ast.parse(script.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If)
    ]
    assert "__name__ == '__main__'" in guards
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as left:  # in this process: importing jax anew for each script takes seconds
        runpy.run_path(str(script), run_name="__main__")
    assert not left.value.code
    shown = capsys.readouterr().out
    assert [flag for flag in ("--quick", "--full", "--reuse-data") if flag not in shown] == []
