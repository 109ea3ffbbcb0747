"""The command line: python -m theory spectrum, rate, certify, compare, tune, bounds.

Each command is a function that returns what is to be printed; its signature is its options, its docstring its help.
`main` knows the commands, answers typos with the nearest names and turns errors into one line.
"""

import difflib
import importlib
import inspect
import sys
from collections.abc import Sequence

import jax

COMMANDS = {
    "spectrum": ("graph", "a graph in numbers: spectral gap, mixing time, effective neighbours, chi"),
    "rate": ("methods", "the exact linear rate, limit, bias and memory of a method on a problem"),
    "certify": ("worst_case", "the certified worst-case rate of a method over all objectives and changing graphs"),
    "compare": ("methods", "run a method, and set its measured rate beside exact, certified and theorem rates"),
    "tune": ("worst_case", "the step size (and hyper-parameters) with the best certificate"),
    "bounds": ("theorems", "the theorems: list them, show one, try to break them"),
}
"""Name -> the module of this folder that holds it, and what it does."""

OVERVIEW = """\
usage: python -m theory COMMAND [options]

What is known of decentralised optimisation methods, set beside what their implementations do.

commands:
{commands}

examples:
  python -m theory spectrum torus:8x8
  python -m theory rate extra --graph ring:16 --learning-rate 0.3
  python -m theory certify nids --learning-rate 1 --kappa 10 --sigma 0.3 --verify
  python -m theory compare diging --graph hypercube:16 --learning-rate 0.1 --plot diging.png
  python -m theory tune svl --kappa 10 --sigma 0.5
  python -m theory bounds --method extra

Every command explains its options:  python -m theory rate --help
Methods are named as in adozoo.zoo:
{methods}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    r"""Run one command, and print what it finds.

    Args:
      arguments: the command line without the program's name; `sys.argv` by default.

    Returns:
      The exit status: 0, or 1 if a comparison contradicts what is claimed, or a theorem or proof fails, or 2 for a
      command line that cannot be carried out (the reason is printed in one line).

    Example:
      >>> theory.cli.main(["bounds", "d2_stability", "--latex"])
      \lambda_n \ge - \frac{1}{3}
      0
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    command, *rest = given
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(COMMANDS)}."
        return _refuse("", f"no command is called {command!r}. {hint}")
    try:
        tyro = importlib.import_module("tyro")
    except ImportError:
        return _refuse("", "the command line needs tyro: pip install 'adozoo[cli]'.")
    function = getattr(importlib.import_module(f"theory.cli.{COMMANDS[command][0]}"), command)
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    try:
        with jax.enable_x64(True):
            if {"-h", "--help"} & set(rest):  # tyro would join the lines
                print((inspect.getdoc(function) or "").partition("\nArgs:")[0])
            reply = tyro.cli(function, prog=f"python -m theory {command}", description="", args=rest, config=config)
    except SystemExit as stop:  # --help, or options that do not parse, of which tyro has told
        return int(stop.code or 0)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        return _refuse(command, str(error))
    print(reply.text)
    return 0 if reply.holds else 1


def overview() -> str:
    """What `python -m theory` says without a command.

    Example:
      >>> "certify" in theory.cli.overview()
      True
    """
    import textwrap

    import adozoo

    commands = "\n".join(f"  {name:9s} {what}" for name, (_, what) in COMMANDS.items())
    methods = textwrap.fill(
        ", ".join(adozoo.zoo.entries()), 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    return OVERVIEW.format(commands=commands, methods=methods)


def _refuse(command: str, reason: str) -> int:
    line = " ".join(reason.split())
    print(f"python -m theory{' ' if command else ''}{command}: {line}", file=sys.stderr)
    return 2
