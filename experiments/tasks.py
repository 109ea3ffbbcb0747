r"""What is minimised: a `Task` says where models start, what their gradients are and how they are judged.

A task is named DATA/MODEL. Two kinds of models exist:

- those of `experiments.models` (logistic, mlp, cnn, resnet20:group, char_gpt ...) on any data set that they fit, with
  minibatches, judged on held-out samples; node i's objective is the mean loss over its own share, and the network's the
  mean over nodes, each node counting the same;
- convex problems with known constants and optimum: logistic_regression:L2, least_squares:L2 and synthetic/quadratic,
  whose judge is f(x) - f* on the data they are given. Each *sample* counts the same here. Only these have the
  conjugates that dual methods ask for.

All functions are pure and take the data as an argument, so that a compiled program holds none of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

import adozoo
from adozoo.problems import Linear, Problem
from experiments import models, partition, sources, streams
from experiments.data import Dataset
from experiments.settings import Run, nearest

CONVEX = ("logistic_regression", "least_squares", "quadratic")
"""Models whose problem is known exactly."""


@dataclass(frozen=True, eq=False)
class Task:
    """A task over n nodes.

    Attributes:
      name: DATA/MODEL.
      metric: what models are judged by: accuracy, loss or suboptimality.
      better: "max" or "min".
      data: a pytree of arrays, the first argument of the functions.
      init: key -> (params, stats) of one model.
      draw: (data, key, step [n]) -> indices [n, batch] of the samples that each node's gradient is of; [n, 0] for
        exact gradients.
      gradient: (data, params, stats, drawn, step, key) -> (signals [n], gradients, stats), stacked. The signal is the
        training loss, of convex problems the squared norm of the gradient: where it is not finite, the run diverged.
      judge: (data, params, stats, part, members=0) -> {"metric": [k], "loss": [k], "ensemble": scalar} of k stacked
        models on the part "validation" or "test"; the ensemble is that of the last `members` (nan without any).
      batches: (data, count) -> [count] batches over all nodes' samples, with which statistics are recomputed; or None.
      problem: the convex problem, where there is one.
      model: the model, where it is one of `experiments.models`.
      facts: what is known of the data: their heterogeneity over nodes, sizes, constants.
    """

    name: str
    metric: str
    better: str
    data: PyTree
    init: Callable[..., Any]
    draw: Callable[..., Any]
    gradient: Callable[..., Any]
    judge: Callable[..., Any]
    batches: Callable[..., Any] | None = None
    problem: Problem | None = None
    model: models.Model | None = None
    facts: dict[str, float] = field(default_factory=dict)


SETTINGS = ("task", "nodes", "partition", "batch", "augment", "held_out", "world", "microbatch")
"""All settings that a task depends on: runs that agree in them have the same."""


def build(run: Run) -> Task:
    """The task of a run, from its `SETTINGS`.

    Raises:
      ValueError: for an unknown data set or model, or one that does not fit the other.
      MissingData: where the data set is not on this machine; it says how to get it.
    """
    data, slash, model = run.task.rpartition("/")  # a path may hold more of them
    if not slash or not data or not model:
        raise ValueError(f"task: expected DATA/MODEL, such as digits/mlp, got {run.task!r}.")
    kind = model.partition(":")[0]
    if kind in CONVEX:
        return _convex(run, data, *_number(model))
    return _deep(run, data, model)


def _number(model: str) -> tuple[str, float | None]:
    kind, colon, number = model.partition(":")
    try:
        return kind, float(number) if colon else None
    except ValueError:
        raise ValueError(f"task: {model!r} must end in a number, such as {kind}:0.01.") from None


# Networks on data sets.


def _deep(run: Run, name: str, model_name: str) -> Task:
    if not run.batch:
        raise ValueError(f"batch: {run.task} takes minibatches, got batch=0. Use 16, say.")
    split = sources.load(name)
    train = split.train
    classification = np.issubdtype(train.labels.dtype, np.integer)
    text = train.vocabulary is not None
    classes = int(train.labels.max()) + 1 if classification else 1
    if train.vocabulary is not None:
        classes = len(train.vocabulary)
    model = models.named(model_name, train.features.shape[1:], classes)
    parts = partition.by_name(run.partition, train, run.nodes, run.world)
    sizes = np.array([len(part) for part in parts])
    loss = models.cross_entropy if classification else models.squared_error
    stacked = models.stacked_gradient(model, loss, run.microbatch or None)
    augmented = _augmentation(run, train)

    def arrays(part: Dataset, limit: int = 0) -> tuple[Any, Any]:
        kept = slice(None) if not limit or limit >= len(part.labels) else _spread(len(part.labels), limit)
        return _single(part.features[kept]), _single(part.labels[kept])

    data = {
        "train": arrays(train),
        "positions": jnp.asarray(streams.table(parts)),
        "sizes": jnp.asarray(sizes, jnp.int32),
        "validation": arrays(split.validation, run.held_out),
        "test": arrays(split.test, run.held_out),
    }

    def draw(data: Any, key: Any, step: Any) -> Any:
        own = streams.shuffled(key, step, data["sizes"], run.batch)
        return jnp.take_along_axis(data["positions"], own, axis=1)

    def gradient(data: Any, params: PyTree, stats: PyTree, drawn: Any, step: Any, key: Any) -> Any:
        features, labels = data["train"]
        inputs = augmented(jax.random.fold_in(key, 0), features[drawn])
        keys = jax.random.split(jax.random.fold_in(key, 1), run.nodes)
        return stacked(params, stats, inputs, labels[drawn], keys=keys)

    def batches(data: Any, count: int) -> Any:
        features, _ = data["train"]
        rows = jnp.asarray(_spread(len(train.labels), min(count * 256, len(train.labels) // 256 * 256 or 1)))
        return features[rows].reshape(-1, min(256, len(rows)), *features.shape[1:])

    return Task(
        run.task,
        "accuracy" if classification and not text else "loss",
        "max" if classification and not text else "min",
        data,
        model.init,
        draw,
        gradient,
        _judge(model, loss, classification and not text),
        batches,
        model=model,
        facts=partition.measure(train, parts),
    )


def _single(values: np.ndarray) -> jax.Array:
    """Networks are float32, also where jax computes convex problems in float64."""
    return jnp.asarray(values, np.float32 if np.issubdtype(values.dtype, np.floating) else None)


def _spread(total: int, count: int) -> np.ndarray:
    """`count` indices at equal distances."""
    return np.linspace(0, total - 1, count).astype(np.int64)


def _augmentation(run: Run, train: Dataset) -> Callable[[Any, Any], Any]:
    if not run.augment:
        return lambda key, inputs: inputs
    if train.features.ndim != 4:
        raise ValueError(f"augment: only images are shifted and mirrored; {run.task} has none. Leave --augment out.")
    from experiments.augment import crop_and_flip

    padding = max(1, train.features.shape[1] // 8)
    flip = train.name not in ("digits", "digits_images")  # a mirrored digit is another one

    def augmented(key: Any, inputs: Any) -> Any:
        flat = inputs.reshape(-1, *inputs.shape[2:])
        return crop_and_flip(key, flat, padding, flip).reshape(inputs.shape)

    return augmented


def _judge(model: models.Model, loss: Any, accuracy: bool) -> Callable[..., dict[str, Any]]:
    """Judge k models at once, a part of the samples at a time, so that activations stay small."""

    def judge(data: Any, params: PyTree, stats: PyTree, part: str, members: int = 0) -> dict[str, Any]:
        inputs, labels = data[part]
        count = len(jax.tree.leaves(params)[0])
        total, size = len(labels), int(np.prod(inputs.shape[1:]))
        chunk = int(np.clip(2**20 // (count * size), 1, total))
        pieces = -(-total // chunk)
        index = jnp.arange(pieces * chunk).reshape(pieces, chunk)

        def piece(rows: Any) -> Any:
            counts = rows < total
            rows = jnp.minimum(rows, total - 1)
            outputs = jax.vmap(lambda p, s: model.apply(p, s, inputs[rows], False)[0])(params, stats)
            losses = jax.vmap(lambda one: loss(one, labels[rows]))(outputs)
            found = {"loss": jnp.sum(losses * counts[None], axis=1)}
            if accuracy:
                right = jnp.argmax(outputs, axis=-1) == labels[rows][None]
                found["metric"] = jnp.sum(right * counts[None], axis=1).astype(losses.dtype)
            if accuracy and members:
                together = jnp.mean(jax.nn.softmax(outputs[-members:]), axis=0)
                right = jnp.argmax(together, axis=-1) == labels[rows]
                found["ensemble"] = jnp.sum(right * counts).astype(losses.dtype)
            return found

        found = jax.tree.map(lambda x: jnp.sum(x, axis=0) / total, jax.lax.map(piece, index))
        nothing = {"ensemble": jnp.asarray(jnp.nan, found["loss"].dtype)}
        return {"metric": found["loss"]} | nothing | found

    return judge


# Convex problems.


def watched(gradients: Float[Array, "n d"], stats: PyTree) -> tuple[Array, Array, PyTree]:
    """What `Task.gradient` returns where there is no training loss at hand: squared norms as the signal."""
    return jnp.sum(gradients**2, axis=1), gradients, stats


def _convex(run: Run, name: str, kind: str, number: float | None) -> Task:
    problem, facts = _problem(run, name, kind, number)
    own_noise = kind == "quadratic"
    with jax.enable_x64(True):
        best = float(problem.optimal_value)
    components = problem.weights.shape[1] if isinstance(problem, Linear) else 0

    def init(key: Any) -> tuple[Any, Any]:
        del key
        return jnp.zeros(problem.dim, problem.optimum.dtype), {}

    def draw(data: Any, key: Any, step: Any) -> Any:
        if not run.batch or own_noise:
            return jnp.zeros((run.nodes, 0), jnp.int32)
        sizes = jnp.full((run.nodes,), components, jnp.int32)
        return streams.shuffled(key, step, sizes, run.batch)

    def gradient(problem: Any, params: Any, stats: PyTree, drawn: Any, step: Any, key: Any) -> Any:
        if drawn.shape[1]:
            found = jnp.mean(jax.vmap(partial(problem.component_gradient, params), in_axes=1)(drawn), axis=0)
        elif own_noise and run.batch:
            noise = problem.gradient_noise(key, params.shape, params.dtype) / np.sqrt(run.batch)
            found = problem.exact_gradient(params) + noise
        else:
            found = problem.exact_gradient(params)
        return watched(found, stats)

    def judge(problem: Any, params: PyTree, stats: PyTree, part: str, members: int = 0) -> dict[str, Any]:
        losses = jax.vmap(problem.loss)(params)
        return {"loss": losses, "metric": losses - best, "ensemble": jnp.asarray(jnp.nan, losses.dtype)}

    mu, smoothness = problem.constants
    facts |= {"strong_convexity": mu, "smoothness": smoothness, "heterogeneity": float(problem.heterogeneity)}
    return Task(run.task, "suboptimality", "min", problem, init, draw, gradient, judge, problem=problem, facts=facts)


def _problem(run: Run, name: str, kind: str, number: float | None) -> tuple[Problem, dict[str, float]]:
    if kind == "quadratic":
        if name != "synthetic":
            raise ValueError(f"task: a quadratic has no data; write synthetic/quadratic, got {run.task!r}.")
        found = adozoo.problems.random_quadratic(
            run.nodes, 20, strong_convexity=0.02, noise=number or 0.0, seed=run.world
        )
        return found, {}
    if name == "synthetic":
        raise nearest("task", run.task, ("synthetic/quadratic",))
    train = sources.load(name).train
    flat = np.asarray(train.features, np.float64).reshape(len(train.labels), -1)
    flat = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
    flat /= np.sqrt(np.mean(np.sum(flat**2, axis=1)))  # samples of mean squared length one
    parts = partition.by_name(run.partition, train, run.nodes, run.world)
    facts = partition.measure(train, parts)
    l2 = 0.01 if number is None else number
    if kind == "least_squares":
        targets = np.asarray(train.labels, np.float64)
        targets = (targets - targets.mean()) / targets.std()
        share = partition.stack(flat, targets, parts)
        return adozoo.problems.least_squares(share.features, share.labels, l2, share.weights), facts
    if len(np.unique(train.labels)) != 2:
        raise ValueError(f"task: {kind} takes two classes; {name} has another number. Use {name}/logistic.")
    share = partition.stack(flat, np.asarray(train.labels), parts)
    return adozoo.problems.logistic(share.features, share.labels, l2, share.weights), facts
