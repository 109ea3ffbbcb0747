"""What the commands share: their common options, and the form of their answers."""

import ast
import difflib
import inspect
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from tyro.conf import Positional, arg

import adozoo
from adozoo.zoo import Entry

Method = Annotated[Positional[str], arg(metavar="METHOD")]
"""A method's name, as the first argument."""
Settings = Annotated[
    tuple[str, ...], arg(name="set", metavar="NAME=VALUE [...]", help_behavior_hint="(default: the registry's)")
]
"""Hyper-parameters."""
Weights = Literal["metropolis", "max_degree", "best_constant", "fastest"]
"""How neighbours are weighted: names of `adozoo.weights`."""
WIDTH = 22


class Reply(NamedTuple):
    """What a command prints, and whether what it tested holds."""

    text: str
    holds: bool = True


def reply(data: Mapping[str, Any], text: str, as_json: bool, holds: bool = True) -> Reply:
    r"""The answer of a command, as text or as JSON.

    Example:
      >>> theory.cli.options.reply(
      ...     {"rate": np.float64(0.5), "never": np.inf}, "", True
      ... ).text
      '{\n  "rate": 0.5,\n  "never": null\n}'
    """
    return Reply(json.dumps(plain(data), indent=2) if as_json else text, holds)


def plain(value: Any) -> Any:
    """A value made of what JSON knows; numbers that are not finite become None.

    Example:
      >>> theory.cli.options.plain({"a": np.array([1.0, np.nan])})
      {'a': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value if value is None else str(value)


def listing(pairs: Iterable[tuple[str, str]]) -> str:
    """Lines "name    value", aligned.

    Example:
      >>> print(theory.cli.options.listing([("rate", "0.5")]))
      rate                   0.5
    """
    return "\n".join(f"{name:{WIDTH}s} {value}".rstrip() for name, value in pairs)


@dataclass(frozen=True)
class Network:
    """The graph, and how neighbours are weighted."""

    graph: Annotated[str, arg(metavar="GRAPH")] = "ring:16"
    """A family with its sizes: ring:16, torus:4x8, star:10, hypercube:32, erdos_renyi:20,0.3,0, social_network ..."""
    weights: Weights = "metropolis"
    """How neighbours are weighted; best_constant and fastest have the best spectral gaps."""
    lazy: bool = False
    """Take (I + W) / 2 instead of W: no negative eigenvalues, as D2 and some theorems need."""

    def mixing(self, entry: Entry | None = None) -> adozoo.Mixing:
        """The mixing; the exact average for a method that admits nothing else."""
        graph = adozoo.graphs.parse(self.graph)
        if entry is not None and entry.mixings == {"complete"}:
            return adozoo.exact_mean(graph.number_of_nodes())
        mix = adozoo.mixing(graph, weights=self.weights)
        return adozoo.mixing(adozoo.weights.lazy(mix.matrix), stochastic=mix.stochastic) if self.lazy else mix


@dataclass(frozen=True)
class Instance:
    """The problem: one function for each node, L-smooth with L = 1, and mu-strongly convex with mu = 1 / kappa."""

    problem: Literal["quadratic", "common", "logistic"] = "quadratic"
    """Random quadratics, quadratics that share one Hessian (then thousands of nodes are no trouble), or l2-regularised
    logistic regression on random data."""
    dim: int = 4
    """Dimension."""
    kappa: float = 10.0
    """Condition number L / mu."""
    heterogeneity: float = 1.0
    """How much nodes differ: (1/n) sum_i ||grad f_i(x*)||^2 (logistic: the spread of the nodes' data)."""
    seed: int = 0
    """Seed of the random problem."""

    def build(self, nodes: int) -> Any:
        """The problem over this many nodes."""
        if not 1 < self.kappa < math.inf:
            raise ValueError(f"--kappa: need a condition number L / mu above 1, got {self.kappa:g}.")
        if self.dim < 1:
            raise ValueError(f"--dim: need a dimension of at least 1, got {self.dim}.")
        if self.heterogeneity < 0:
            raise ValueError(f"--heterogeneity: need a number of at least 0, got {self.heterogeneity:g}.")
        if self.problem == "quadratic":
            return adozoo.problems.random_quadratic(
                nodes, self.dim, 1 / self.kappa, 1.0, heterogeneity=self.heterogeneity, seed=self.seed
            )
        rng = np.random.default_rng(self.seed)
        if self.problem == "common":
            curvatures = np.linspace(1 / self.kappa, 1.0, self.dim)
            pulls = rng.normal(size=(nodes, self.dim))
            pulls -= pulls.mean(axis=0)
            pulls *= np.sqrt(self.heterogeneity / max(np.mean(np.sum(pulls**2, axis=1)), 1e-300))
            optimum = rng.normal(size=self.dim)
            hessians = np.broadcast_to(np.diag(curvatures), (nodes, self.dim, self.dim))
            built = adozoo.problems.quadratic(hessians, optimum / np.linalg.norm(optimum) - pulls / curvatures)
            return replace(built, constants=(1 / self.kappa, 1.0))  # in one dimension, too
        features = rng.normal(size=(nodes, 4 * self.dim, self.dim))
        features += self.heterogeneity * rng.normal(size=(nodes, 1, self.dim))
        labels = np.sign(features @ rng.normal(size=self.dim) + rng.normal(size=features.shape[:2]))
        # L = l2 + max_i lambda_max(A_i' A_i / m) / 4 = 1.
        top = np.linalg.eigvalsh(np.einsum("nmi,nmj->nij", features, features) / features.shape[1]).max() / 4
        features *= np.sqrt((1 - 1 / self.kappa) / top)
        return adozoo.problems.logistic(features, labels, 1 / self.kappa)


def hyperparameters(entry: Entry, settings: Sequence[str]) -> dict[str, Any]:
    """The values of --set NAME=VALUE, for the hyper-parameters that a method has.

    Raises:
      ValueError: for a setting without "=", or a name that the method does not know; it says the nearest one.

    Example:
      >>> theory.cli.options.hyperparameters(
      ...     adozoo.zoo.entry("svl"), ["integral_gain=0.4"]
      ... )
      {'integral_gain': 0.4}
    """
    known = [name for name in inspect.signature(entry.factory).parameters if name not in ("learning_rate", "mix")]
    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set: expected NAME=VALUE, got {setting!r}.")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(known) or 'none'}."
            raise ValueError(f"--set: {entry.name} has no hyper-parameter {name!r}. {hint}")
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values


def rate_words(rate: float) -> str:
    """A rate with what it means in steps.

    Example:
      >>> theory.cli.options.rate_words(0.9)
      '0.900000000 a step, 21.85 steps a digit'
    """
    if not math.isfinite(rate):
        return "none"
    if rate >= 1:
        return f"{rate:.9f} a step: does not converge"
    return f"{rate:.9f} a step" + (f", {math.log(10) / -math.log(rate):.4g} steps a digit" if rate > 0 else "")
