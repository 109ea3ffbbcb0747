r"""The methods that DADAO is compared with, each run on several problems at once, with what it costs.

All start at x = 0 and are given \mu, L and the spectrum of the graph, and the authors' constants. ADOM+ needs a \chi
with \|x - G x\|^2 <= (1 - 1/\chi) \|x\|^2 for disagreement x. The authors take the largest \lambda_max / \lambda_2
of the graphs' Laplacians, about twice what is needed on most graphs, and 2 with multi-consensus, where 4/3 would do:
both these and the smallest \chi are run. The error is the mean over
nodes of |x_i - x*|^2, in units of |x*|^2. Costs are counted as by the authors: a step of a synchronous method takes a
gradient of every node, and each of its rounds an exchange over every link (of ADOM+ they hold two vectors each way, of
the others one); DADAO's events are single gradients and exchanges; an exchange of the continuized method comes with two
gradients.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

import adozoo
from paper_figures.dadao import _problems
from paper_figures.dadao._problems import Problems

LEAST = 1e-8
"""The error to which runs go."""
RECORDS = 150


class Curves(NamedTuple):
    """[runs, 1 + RECORDS] each, nan beyond the end: the error, and how many gradients and exchanges it took."""

    error: np.ndarray
    gradients: np.ndarray
    communications: np.ndarray


Run: TypeAlias = Callable[[Any, Problems, float], dict[str, Curves]]
"""(network, problems with their constants, how long) -> curves by method."""


@dataclass(frozen=True)
class Network:
    """Graphs over the same nodes, of which each lasts for a while, again and again; or one."""

    graphs: tuple[nx.Graph, ...]

    @property
    def n(self) -> int:
        return len(self.graphs[0])

    @property
    def links(self) -> np.ndarray:
        return np.array([graph.number_of_edges() for graph in self.graphs])

    def matrices(self) -> list[np.ndarray]:
        r"""W = I - Laplacian / \lambda_max, graph by graph."""
        scaled = [adozoo.resistance.normalize_rates(graph, "largest_eigenvalue").toarray() for graph in self.graphs]
        return [np.eye(self.n) - each for each in scaled]

    def mixing(self) -> Any:
        mixings = list(map(adozoo.mixing, self.matrices()))
        return mixings[0] if len(mixings) == 1 else adozoo.cycle(mixings)

    def smallest_chi(self, rounds: int) -> float:
        r"""The least \chi with \|W ... W x\|^2 <= (1 - 1/\chi) \|x\|^2 for disagreement, any `rounds` in a row."""
        matrices, norm = self.matrices(), 0.0
        for step in range(len(matrices)):
            product = np.eye(self.n) - 1 / self.n
            for number in range(rounds):
                product = matrices[(step * rounds + number) % len(matrices)] @ product
            norm = max(norm, float(np.linalg.norm(product, 2)))
        return 1 / (1 - norm**2)

    def chi(self) -> float:
        r"""The largest \lambda_max / \lambda_2."""
        return max(
            adozoo.resistance.chi(adozoo.resistance.normalize_rates(graph, "largest_eigenvalue")).chi_1
            for graph in self.graphs
        )

    def consensus_rounds(self) -> int:
        r"""\lceil \chi \ln 2 \rceil, of ADOM+ with multi-consensus."""
        return int(np.ceil(self.chi() * np.log(2) - 1e-12))

    def unit_rates(self) -> tuple[list[Any], np.ndarray]:
        """Laplacians with one exchange per unit of time, all links alike; the largest chi_1 and chi_2 of them."""
        unit = [adozoo.resistance.normalize_rates(graph, "total_rate") for graph in self.graphs]
        return unit, np.array([adozoo.resistance.chi(each) for each in unit]).max(axis=0)

    def dadao_rates(self) -> tuple[list[Any], float]:
        """Laplacians of DADAO's rates, as many exchanges on every graph, and how long each graph lasts."""
        unit, (chi_1, chi_2) = self.unit_rates()
        return [each * np.sqrt(2 * chi_1 * chi_2) for each in unit], 1 / chi_1


def squared_distance(problem: Any, params: Any) -> Any:
    optimum = problem.optimum
    return jnp.mean(jnp.sum((params - optimum[None]) ** 2, axis=1)) / jnp.sum(optimum**2)


def synchronous(
    factory: Callable[..., Any],
    network: Network,
    problems: Problems,
    steps: int,
    rounds: int = 1,
    dual: bool = False,
    others: Sequence[jax.Array] = (),
) -> Curves:
    """Runs of factory(mu, L, *others), with `rounds` rounds of gossip a step; one program for all."""
    every = -(-steps // RECORDS)
    records = -(-steps // every)

    @jax.jit
    @jax.vmap
    def run(leaves: Any, *constants: Any) -> Any:
        problem = problems.rebuild(leaves)
        gradient = problem.dual_gradient if dual else problem.gradient
        metrics = {"error": partial(squared_distance, problem)}
        tx = factory(*constants)
        return adozoo.simulate(tx, gradient, problem.init(), records * every, metrics=metrics, every=every)[2]

    found = np.asarray(run(*problems.cases, *others)["error"])
    taken = np.arange(records + 1) * every
    used = np.append(0, np.resize(network.links, taken[-1] * rounds).cumsum())
    curves = Curves(*(np.full((len(found), 1 + RECORDS), np.nan) for _ in range(3)))
    curves.error[:, : records + 1] = np.insert(found, 0, 1, axis=1)
    curves.gradients[:, : records + 1] = taken * network.n
    curves.communications[:, : records + 1] = used[taken * rounds]
    return curves


def event_driven(
    factory: Callable[..., Any], lists: Sequence[adozoo.events.Events], problems: Problems, dual: bool = False
) -> Curves:
    """Runs of factory(events, mu, L), each with its own events; one program for all.

    One run after the other: side by side, each round would last as long as the run with the most exchanges in it.
    """

    def run(case: Any) -> Any:
        events, leaves, mu, L = case
        problem = problems.rebuild(leaves)

        def error(params: Any, state: Any) -> Any:
            return squared_distance(problem, problem.dual_gradient(state.z) if dual else params)

        gradient = problem.dual_gradient if dual else problem.gradient
        tx = factory(events, mu, L)
        return adozoo.simulate_events(tx, gradient, problem.init(), events, metrics={"error": error})[2]

    trace = jax.jit(partial(jax.lax.map, run))((adozoo.events.stack(lists), *problems.cases))
    return Curves(*(np.asarray(trace[name], float) for name in Curves._fields))


@lru_cache(maxsize=1)
def dadao_events(network: Network, horizon: float, runs: int) -> list[adozoo.events.Events]:
    rates, dwell = network.dadao_rates()
    return [adozoo.events.poisson(rates, horizon, seed=seed, marks=RECORDS, dwell=dwell) for seed in range(runs)]


# The factors of `efolds` below were found to be enough for the slowest runs; one that falls short is an error, not a
# verdict (`_comparison.advantages`).


def dadao(network: Network, problems: Problems, efolds: float) -> dict[str, Curves]:
    events = dadao_events(network, 8.5 * efolds, problems.runs)
    return {"dadao": event_driven(adozoo.dadao, events, problems)}


def continuized(network: Network, problems: Problems, efolds: float) -> dict[str, Curves]:
    (rates,), (chi_1, chi_2) = network.unit_rates()
    horizon = 1.3 * np.sqrt(2 * chi_1 * chi_2) * efolds
    seeds = range(problems.runs)
    lists = [adozoo.events.poisson(rates, horizon, seed=seed, marks=RECORDS, paired=True) for seed in seeds]
    return {"continuized": event_driven(adozoo.continuized_dual, lists, problems, dual=True)}


def msda(network: Network, problems: Problems, efolds: float) -> dict[str, Curves]:
    rounds = int(np.sqrt(network.chi()) + 1e-12)
    factory = partial(adozoo.msda, network.mixing(), rounds=rounds)
    return {"msda": synchronous(factory, network, problems, int(np.ceil(1.2 * efolds)), rounds, dual=True)}


def adom_plus(network: Network, problems: Problems, efolds: float, rounds: int = 1) -> dict[str, Curves]:
    r"""With the authors' \chi and with the smallest, side by side in one program."""
    mix, runs = network.mixing(), problems.runs
    authors = 2.0 if rounds > 1 else network.chi()
    chi = jnp.repeat(jnp.array([authors, network.smallest_chi(rounds)]), runs)

    def factory(mu: Any, L: Any, chi: Any) -> Any:
        return adozoo.adom_plus(mix, mu, L, rounds=rounds, chi=chi)

    steps = int(np.ceil(7.5 * authors * efolds))
    both = synchronous(factory, network, problems.twice(), steps, rounds, others=[chi])
    names = ADOM if rounds == 1 else CONSENSUS
    return {names[0]: Curves(*(each[:runs] for each in both)), names[1]: Curves(*(each[runs:] for each in both))}


def adom_plus_multi_consensus(network: Network, problems: Problems, efolds: float) -> dict[str, Curves]:
    rounds = network.consensus_rounds()
    return adom_plus(network, problems, efolds, rounds) if rounds > 1 else {}


ADOM = ("adom_plus", "adom_plus_smallest_chi")
CONSENSUS = ("adom_plus_multi_consensus", "adom_plus_multi_consensus_smallest_chi")
METHODS = {
    "dadao": ("DADAO", "red"),
    "adom_plus": ("ADOM+", "sky"),
    "adom_plus_smallest_chi": ("ADOM+, smallest chi", "violet"),
    "adom_plus_multi_consensus": ("ADOM+, multi-consensus", "orange"),
    "adom_plus_multi_consensus_smallest_chi": ("ADOM+, multi-consensus, smallest chi", "brown"),
    "msda": ("MSDA (dual)", "blue"),
    "continuized": ("continuized (dual)", "green"),
}
"""Titles and colours."""
PRIMAL = (dadao, adom_plus, adom_plus_multi_consensus)
DUAL = (msda, continuized)


def compare(network: Network, wanted: Mapping[str, Sequence[Run]], runs: int) -> dict[tuple[str, str], Curves]:
    r"""By task and method, what is wanted of each task; run k draws its problem and its events with seed k.

    All go on for \sqrt{L / \mu} ln(1 / LEAST), with the worst of the problems, times a factor of each method.
    """
    problems = {
        task: _problems.stack([_problems.TASKS[task](network.n, seed) for seed in range(runs)]) for task in wanted
    }
    condition = max(float((each.smoothness / each.strong_convexity).max()) for each in problems.values())
    efolds = float(np.sqrt(condition) * np.log(1 / LEAST))
    return {
        (task, name): curves
        for task, methods in wanted.items()
        for run in methods
        for name, curves in run(network, problems[task], efolds).items()
    }


def cost(error: np.ndarray, spent: np.ndarray, target: float) -> float:
    """What had been spent when the error was first at most the target, between records by the error's logarithm."""
    below = np.flatnonzero(error <= target)  # nan is not
    if not len(below):
        return np.nan
    first = below[0]
    if first == 0:
        return float(spent[0])
    high, low = np.log(error[first - 1 : first + 1])
    return float(np.interp(np.log(target), [low, high], [spent[first], spent[first - 1]]))
