"""The compiled program that lanes of a sweep share: how a lane starts, takes steps and is judged.

Lanes that agree in everything but their numbers (`Run.program`) are `vmap`ped. `advance` takes steps [first, last) in a
loop whose bounds are arguments, and everything random in step k is a function of the run's seed and of k alone. So
however a run is cut into pieces, the same machine code does the same things to the same numbers.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

import adozoo
from adozoo import placement
from experiments import tasks, world
from experiments.models import batch_norm
from experiments.settings import Run
from experiments.tasks import Task
from experiments.world import World

_DRAWN = 2**22  # indices that are drawn at once, over all lanes
_LONGEST = 512  # steps between two looks at the clock
_RECOMPUTED = 8  # batches from which statistics are recomputed
_KEPT = 16  # compiled programs


class Carry(NamedTuple):
    """What one lane takes from step to step."""

    params: PyTree
    state: PyTree
    stats: PyTree
    average: PyTree  # moving average of the mean model; () without one
    signal: jax.Array  # sum of the task's signal since the last record
    diverged: jax.Array  # first step whose signal was not finite; -1 so far


@dataclass(frozen=True, eq=False)
class Program:
    """The compiled functions that lanes share.

    Attributes:
      run: the settings, with those of lanes blanked.
      task, world: what is minimised, and where.
      start: (numbers, seeds) -> carry.
      advance: (carry, numbers, seeds, data, first, last, counts, factors) -> carry after steps [first, last).
      evaluate: (carry, data) -> metrics.
      longest: how many steps `advance` takes at most.
      real: the dtype of params, and of the numbers in which lanes differ.
    """

    run: Run
    task: Task
    world: World
    start: Callable[..., Carry]
    advance: Callable[..., Carry]
    evaluate: Callable[..., dict[str, Any]]
    longest: int
    real: Any


class Shared(NamedTuple):
    """What all methods on a task share, compiled once."""

    task: Task
    init: Callable[..., Any]  # seeds -> (params, stats) of one node, lane by lane
    judge: Callable[..., Any]  # (data, answers, stats, average) -> metrics, lane by lane
    params: PyTree  # shapes and dtypes of one node's

    @property
    def real(self) -> Any:
        return jax.tree.leaves(self.params)[0].dtype


_COSTLESS = ("steps", "records", "cluster", "energy", "stop_at", "stop_axis", "held_out", "evaluate")
"""Settings that change what a synchronous method's steps cost and when they are looked at, but not what they do."""


def prepare(run: Run, lanes: int = 1) -> Program:
    """Build the task and the world of a run, and the functions that run it; nothing is compiled yet.

    Functions are kept: runs that do the same steps on other clusters, for longer or from other seeds share them.

    Raises:
      ValueError: whatever in the settings does not fit.
    """
    own = {name: getattr(run, name) for name in (*tasks.SETTINGS, "evaluate", "batch_norm", "average")}
    shared = _shared(json.dumps(own), jax.config.jax_enable_x64)  # type: ignore[attr-defined]
    task, entry = shared.task, run.entry
    place = _place(json.dumps(run.program.configuration), json.dumps(own), jax.config.jax_enable_x64)  # type: ignore[attr-defined]
    world.check(run, place)
    longest = int(np.clip(_DRAWN // (lanes * run.nodes * max(run.batch, 1)), 8, _LONGEST))
    if run.devices > 1:
        start, advance = _steps(run, task, place, longest)
        return _spread(run.program, shared, place, start, advance, longest)
    eventful = bool(entry.mixings & world.EVENT_DRIVEN)
    blanked = () if eventful else _COSTLESS[run.churn > 0 :]  # who is away when depends on the number of steps
    settings = {name: value for name, value in run.program.configuration.items() if name not in blanked}
    key = json.dumps([settings, sorted(run.lane), lanes, jax.config.jax_enable_x64])  # type: ignore[attr-defined]
    if key not in _COMPILED:
        while len(_COMPILED) >= _KEPT:
            _COMPILED.pop(next(iter(_COMPILED)))
        start, advance = _steps(run, task, place, longest)
        _COMPILED[key] = (
            jax.jit(jax.vmap(start)),
            jax.jit(jax.vmap(advance, in_axes=(0, 0, 0, None, None, None, None, None)), donate_argnums=0),
            jax.jit(jax.vmap(adozoo.eval_params)),
        )
    begin, advance, answer = _COMPILED[key]

    def evaluate(carry: Carry, data: Any) -> dict[str, Any]:
        answers = answer(carry.state, carry.params)
        distances = {"consensus_distance": _distances(answers)}
        return distances | shared.judge(data, answers, carry.stats, carry.average)

    return Program(
        run.program,
        task,
        place,
        lambda numbers, seeds: begin(numbers, *shared.init(seeds)),
        advance,
        evaluate,
        longest,
        shared.real,
    )


_COMPILED: dict[str, tuple[Any, Any, Any]] = {}
_distances = jax.jit(jax.vmap(adozoo.consensus_distance))


@functools.lru_cache(maxsize=8)
def _shared(settings: str, double: bool) -> Shared:
    del double  # part of the key: tasks are built in the precision of the moment
    run = Run(**json.loads(settings))
    task, policy = tasks.build(run), batch_norm.policy(run.batch_norm)

    def init(seed: Any) -> Any:
        return task.init(jax.random.fold_in(jax.random.key(seed), 0))

    judge = functools.partial(_judge, run, task, policy)
    params = jax.eval_shape(lambda: task.init(jax.random.key(0))[0])
    return Shared(task, jax.jit(jax.vmap(init)), jax.jit(jax.vmap(judge, in_axes=(None, 0, 0, 0))), params)


@functools.lru_cache(maxsize=64)
def _place(settings: str, task_settings: str, double: bool) -> World:
    shared = _shared(task_settings, double)
    return world.build(Run(**json.loads(settings)), shared.task, shared.params)


def _judge(run: Run, task: Task, policy: Any, data: Any, answers: PyTree, stats: PyTree, average: PyTree) -> Any:
    """Metrics of the mean model, and of the moving average, the worst node, every node and the ensemble if asked."""
    mean = adozoo.node_mean(answers)
    mean_stats = stats
    if task.model is not None and task.batches is not None:
        mean_stats = policy.for_mean(task.model, mean, stats, task.batches(data, _RECOMPUTED))
    every = run.evaluate == "all"
    models = [jax.tree.map(lambda x: x[None], (mean, mean_stats))]
    if run.average:
        models.append(jax.tree.map(lambda x: x[None], (average, mean_stats)))
    if every:
        models.append((answers, stats))
    found = {}
    for part in ("validation", "test"):
        chosen = models if part == "test" else models[: 1 + bool(run.average)]  # what runs are compared by
        stacked = jax.tree.map(lambda *parts: jnp.concatenate(parts), *chosen)
        judged = task.judge(data, *stacked, part, run.nodes if every and part == "test" else 0)
        found[part] = judged["metric"][0]
        found[f"{part}_loss"] = judged["loss"][0]
        if run.average:
            found[f"average_{part}"] = judged["metric"][1]
        if every and part == "test":
            nodes = judged["metric"][-run.nodes :]
            worst = nodes.min() if task.better == "max" else nodes.max()
            found |= {"nodes": nodes, "worst": worst, "ensemble": judged["ensemble"]}
    return found


def _steps(run: Run, task: Task, place: World, longest: int) -> tuple[Callable[..., Carry], Callable[..., Carry]]:
    """How one lane starts, and how it takes steps."""
    policy = batch_norm.policy(run.batch_norm)
    eventful = bool(run.entry.mixings & world.EVENT_DRIVEN)
    drawn_of, gradient_of = _oracle(run, task)
    fixed_rate = None if run.learning_rate is not None else _natural_rate(task)

    def transformation(numbers: dict[str, Any]) -> Any:
        given = {name: value for name, value in numbers.items() if name != "learning_rate"}
        return place.build(numbers.get("learning_rate", fixed_rate), run.shared | given)

    def start(numbers: dict[str, Any], params: PyTree, stats: PyTree) -> Carry:
        average = params if run.average else ()
        params, stats = (adozoo.replicate(tree, run.nodes) for tree in (params, stats))
        state = transformation(numbers).init(params)
        return Carry(params, state, stats, average, jnp.zeros(()), jnp.int32(-1))

    def advance(
        carry: Carry, numbers: dict[str, Any], seed: Any, data: Any, first: Any, last: Any, counts: Any, factors: Any
    ) -> Carry:
        tx, key = transformation(numbers), jax.random.key(seed)
        draws, noises = jax.random.fold_in(key, 1), jax.random.fold_in(key, 2)
        drawn = jax.vmap(lambda k, count: drawn_of(data, draws, k, count))(first + jnp.arange(longest), counts)

        def step(k: Any, carried: tuple[Carry, Any]) -> tuple[Carry, Any]:
            (params, state, stats, average, total, diverged), factor = carried
            now = jax.tree.map(lambda x: x[k - first], drawn)
            signal, grads, stats = gradient_of(data, params, stats, now, k, jax.random.fold_in(noises, k))
            grads = jax.tree.map(lambda g: g * factor.astype(g.dtype), grads)
            updates, state = tx.update(grads, state, params)
            params = jax.tree.map(lambda x, u: x + u.astype(x.dtype), params, updates)
            if not eventful:
                stats = policy.after_step(stats, place.mix, k)
            if run.average:
                mean, keep = adozoo.node_mean(adozoo.eval_params(state, params)), run.average
                average = jax.tree.map(lambda a, x: a * keep + x * (1 - keep), average, mean)
            here = jnp.mean(signal).astype(total.dtype)
            diverged = jnp.where((diverged < 0) & ~jnp.isfinite(here), k.astype(jnp.int32), diverged)
            # Looked up where it multiplies, the factor would be fused into the update: twice as slow on CPUs.
            return Carry(params, state, stats, average, total + here, diverged), factors[k + 1 - first]

        return jax.lax.fori_loop(first, last, step, (carry, factors[0]))[0]

    return start, advance


def _oracle(run: Run, task: Task) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """How a step draws samples, and its gradient: of fresh ones, of the component that the method expects, or dual."""
    if run.entry.oracle == "dual":
        if task.problem is None:
            raise ValueError(
                f"method: {run.method} is dual: it takes gradients of conjugates, and {run.task} has none. Use a "
                "convex task, such as breast_cancer/logistic_regression."
            )

        def conjugate(problem: Any, params: Any, stats: Any, drawn: Any, k: Any, key: Any) -> Any:
            return tasks.watched(problem.dual_gradient(params), stats)

        return (lambda data, key, k, count: jnp.zeros(0)), conjugate
    if "components" not in run.entry.hyperparameters:
        return (lambda data, key, k, count: task.draw(data, key, count)), task.gradient
    count = world.component_count(run, task)
    if task.problem is not None and count < 2:
        raise ValueError(f"method: {run.method} samples components, which {run.task} has none of. Take another task.")
    # The registry's variance-reduced methods sample with this key.
    chosen = adozoo.samples(jax.random.key(0), run.nodes, count)
    if task.problem is None:
        batches = jax.random.key(run.world)  # component j is the j-th minibatch of a stream that all lanes share
        return (lambda data, key, k, count: task.draw(data, batches, chosen(k))), task.gradient

    def component(problem: Any, params: Any, stats: Any, drawn: Any, k: Any, key: Any) -> Any:
        return tasks.watched(problem.component_gradient(params, drawn), stats)

    return (lambda data, key, k, count: chosen(k)), component


def _natural_rate(task: Task) -> float:
    if task.problem is None:
        raise ValueError(f"learning_rate: {task.name} has no known smoothness L to take 1 / L of. Give a number.")
    return 1 / task.problem.smoothness


def _spread(run: Run, shared: Shared, place: World, start: Any, advance: Any, longest: int) -> Program:
    """The functions of a single lane whose nodes lie on several devices, perhaps of several hosts."""
    mesh = place.mix.mesh
    everywhere = jax.NamedSharding(mesh, jax.P())
    step = jax.jit(advance, donate_argnums=0)
    judge = functools.partial(_judge, run, shared.task, batch_norm.policy(run.batch_norm))

    def one(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x[0], tree)

    def begin(numbers: Any, seeds: Any) -> Carry:
        return placement.shard(jax.jit(start)(one(numbers), *one(shared.init(seeds))), mesh, run.nodes)

    def metrics(carry: Carry, data: Any) -> dict[str, Any]:
        answers = adozoo.eval_params(carry.state, carry.params)
        distance = {"consensus_distance": adozoo.consensus_distance(answers)}
        return jax.tree.map(lambda x: x[None], distance | judge(data, answers, carry.stats, carry.average))

    held = jax.tree.map(lambda x: jax.device_put(np.asarray(x), everywhere), shared.task.data)
    return Program(
        run,
        replace(shared.task, data=held),
        place,
        begin,
        lambda carry, numbers, seeds, *rest: step(carry, one(numbers), seeds[0], *rest),
        jax.jit(metrics, out_shardings=everywhere),
        longest,
        shared.real,
    )
