"""Where a run takes place: the mixing or the events, the method's transformation, and what its steps cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import networkx as nx
import numpy as np
import optax

import adozoo
from adozoo import channel, graphs, placement, schedules, weights
from adozoo.problems import Linear
from adozoo.zoo import Entry
from experiments import churn, costs, energy, methods
from experiments.settings import Run, nearest
from experiments.tasks import Task

EVENT_DRIVEN = frozenset({"events", "paired events"})
SCHEDULES = {
    "one_peer_exponential": lambda n, graph, key: adozoo.one_peer_exponential(n),
    "random_matching": lambda n, graph, key: adozoo.random_matching(graph, key),
    "random_edge": lambda n, graph, key: schedules.random_edge(graph, key),
}
"""Schedules by name; those that draw links draw them of a graph: random_matching:ring, or of the complete one."""


@dataclass(frozen=True, eq=False)
class World:
    """All of a run that does not depend on its lane.

    Attributes:
      graph: the network; None for schedules.
      mix: the mixing or the events.
      build: (learning rate, hyper-parameters) -> transformation.
      stops: after how many steps, or rounds, each record is taken; not decreasing.
      costs: steps, bits, seconds and joules at each of the records.
      takes: [rounds, n], how many gradients each node took before each round, for event-driven methods.
    """

    graph: Any
    mix: Any
    build: Callable[[Any, Mapping[str, Any]], optax.GradientTransformationExtraArgs]
    stops: np.ndarray
    costs: costs.Costs
    takes: np.ndarray | None = None


def network(name: str, nodes: int, weighting: str = "metropolis", seed: int = 0) -> tuple[Any, Any]:
    """(graph, mixing) of a name: a family of graphs, a spanning tree "tree_of:ring", "cycle:ring;star", or a schedule.

    Raises:
      ValueError: for unknown names and graphs of another size.

    Example:
      >>> graph, mix = network("tree_of:ring", 6)
      >>> graph.number_of_edges(), mix.n
      (5, 6)
    """
    head, _, rest = name.partition(":")
    if head in SCHEDULES:
        base = _graph(rest or "complete", nodes)
        return None, SCHEDULES[head](nodes, base, jax.random.key(seed))
    if head == "cycle":
        parts = [network(part, nodes, weighting, seed)[1] for part in rest.split(";")]
        return None, adozoo.cycle(parts)
    graph = graphs.spanning_tree(_graph(rest, nodes)) if head == "tree_of" else _graph(name, nodes)
    if not weighting.startswith("lazy"):
        return graph, adozoo.mixing(graph, weights=weighting)
    matrix = adozoo.mixing(graph, weights=weighting.partition("_")[2] or "metropolis").matrix
    return graph, adozoo.mixing(weights.lazy(np.asarray(matrix)))


def _graph(name: str, nodes: int) -> nx.Graph:
    family = name.partition(":")[0]
    if family not in graphs.FAMILIES:
        raise nearest("graph", name, [*graphs.FAMILIES, *SCHEDULES, "tree_of", "cycle"])
    graph = graphs.parse(name if ":" in name or family == "social_network" else f"{name}:{nodes}")
    if len(graph) != nodes:
        raise ValueError(f"graph: {name} has {len(graph)} nodes, the run {nodes}. Make them agree.")
    return graph


def build(run: Run, task: Task, params: Any) -> World:
    """The world of all lanes of a program; `check` says whether the numbers of one of them fit.

    What steps cost follows from the settings that lanes share, and the entry's own values of the others.

    Args:
      run: the settings.
      task: its task.
      params: one node's params, or their shapes: they say how large messages are.

    Raises:
      ValueError: where the graph or faults do not fit the method.
    """
    entry = run.entry
    cluster = costs.cluster_named(run.cluster, run.nodes)
    table = energy.named(run.energy)
    if entry.mixings & EVENT_DRIVEN:
        return _eventful(run, task, entry, params, cluster, table)
    graph, mix = network(run.graph, run.nodes, run.weights, run.world)
    if entry.mixings == {"complete"}:
        graph, mix = nx.complete_graph(run.nodes), adozoo.exact_mean(run.nodes)
    _check_fits(run, entry, mix)
    presence = None
    if run.churn:
        if graph is None:
            raise ValueError(f"churn: nodes come and go on a fixed graph; {run.graph} is a schedule. Use ring, say.")
        presence = churn.presence(run.nodes, run.steps, run.churn, run.world)
        mix = churn.mixing(graph, presence, run.weights)
        _check_fits(run, entry, mix)
    if run.drops:
        mix = channel.drops(mix, run.drops, jax.random.key(run.world))
    if run.noise:
        mix = channel.noisy(mix, run.noise, jax.random.key(run.world))
    given = _given(entry, task, run, run.shared)
    total = costs.synchronous(entry, params, mix, cluster, run.steps, run.world, table, given)
    steps = costs.within(total, run.stop_axis, run.stop_at) if run.stop_at else run.steps
    if steps < 1:
        raise ValueError(
            f"stop_at: not one step of {run.method} fits in {run.stop_at:g} {run.stop_axis}. Allow for more."
        )
    records = min(run.records, steps)
    stops = np.rint(np.linspace(0, steps, records + 1)[1:]).astype(np.int64)
    if run.devices > 1:
        mix = placement.place(mix, placement.node_mesh(_devices(run.devices)))

    def make(learning_rate: Any, hyperparameters: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
        build = partial(entry.build, learning_rate, **_given(entry, task, run, hyperparameters))
        tx = channel.delayed(build, mix, run.delay) if run.delay else build(mix)
        return tx if presence is None else churn.absent_stand_still(tx, presence)

    return World(graph, mix, make, stops, costs.Costs(*(cost[stops] for cost in total)))


def _eventful(run: Run, task: Task, entry: Entry, params: Any, cluster: Any, table: Any) -> World:
    for name in ("drops", "noise", "delay", "churn"):
        if getattr(run, name):
            raise ValueError(f"{name}: {run.method} is driven by events, which take none. Leave --{name} out.")
    if run.devices > 1:
        raise ValueError(f"devices: {run.method} is driven by events: use one device for it.")
    graph, _ = network(run.graph, run.nodes, run.weights, run.world)
    if graph is None or graph.is_directed():
        raise ValueError(f"graph: {run.method} needs an undirected fixed graph, got {run.graph}. Use ring, say.")
    given = _given(entry, task, run, run.shared)
    events, total = costs.asynchronous(entry, params, graph, cluster, run.steps, run.world, table, run.records, given)
    kept = slice(1, None)  # the first mark is the start
    if run.stop_at:
        fits = 1 + costs.within(total, run.stop_axis, run.stop_at)  # records, the start included
        if fits < 2:
            raise ValueError(
                f"stop_at: the first record of {run.method} lies beyond {run.stop_at:g} {run.stop_axis}. Take more "
                "records, or allow for more."
            )
        kept = slice(1, fits)
    takes = np.cumsum(np.asarray(events.takes, np.int64), axis=0)
    takes = np.concatenate([np.zeros((1, run.nodes), np.int64), takes[:-1]])

    def make(learning_rate: Any, hyperparameters: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
        return entry.build(learning_rate, events, **_given(entry, task, run, hyperparameters))

    stops = np.asarray(events.marks, np.int64)[kept]
    return World(graph, events, make, stops, costs.Costs(*(np.asarray(cost)[kept] for cost in total)), takes)


def _given(entry: Entry, task: Task, run: Run, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters of a run; the constants of its problem are what a method that asks for them is told."""
    found: dict[str, Any] = {}
    if task.problem is not None and "strong_convexity" in entry.hyperparameters:
        found["strong_convexity"] = task.problem.strong_convexity
    if "components" in entry.hyperparameters:
        found |= {"components": component_count(run, task), "period": None}
    for name, value in hyperparameters.items():
        found[name] = methods.compressor(run.method, name, value) if isinstance(value, str) else value
    return found


def component_count(run: Run, task: Task) -> int:
    """Into how many components a variance-reduced method cuts each node's objective: samples, or minibatches."""
    if "components" in run.hyperparameters:
        return int(run.hyperparameters["components"])
    if task.problem is not None:
        return int(task.problem.weights.shape[1]) if isinstance(task.problem, Linear) else 1
    return int(np.clip(np.asarray(task.data["sizes"]).mean() / run.batch, 2, 16))


def _check_fits(run: Run, entry: Entry, mix: Any) -> None:
    if entry.admits(mix):
        return
    kinds = ", ".join(sorted(entry.mixings))
    remedy = f"Use --graph tree_of:{run.graph}." if "tree" in entry.mixings else "Choose another graph or method."
    what = "with nodes that come and go" if run.churn else run.graph
    raise ValueError(f"graph: {run.method} runs on {kinds} mixings, which {what} is not. {remedy}")


def check(run: Run, place: World) -> None:
    """Build the transformation once, outside of all tracing, so that what does not fit is said before anything runs.

    Raises:
      ValueError: what the method's factory refuses: its hyper-parameters, or the mixing with them.
    """
    try:
        place.build(0.1 if run.learning_rate is None else run.learning_rate, run.hyperparameters)
    except ValueError as error:
        raise ValueError(f"method: {run.method} cannot be built on {run.graph}: {error}") from None


def _devices(count: int) -> list[Any]:
    found = jax.devices()
    if len(found) < count:
        raise ValueError(
            f"devices: {count} wanted, {len(found)} found. On a CPU, set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count}."
        )
    return found[:count]
