"""What a run is: a `Run`, a plain record of settings, from which everything else follows.

Two runs with equal settings give the same numbers; a run's name in the store is the hash of its settings. Settings that
only scale what is computed (learning rate and real hyper-parameters, `Run.lane`, and the seed) may differ between the
lanes of one compiled program.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adozoo import zoo
from experiments import methods

SCHEDULES = ("constant", "cosine", "linear", "steps")
EVALUATIONS = ("mean", "all")
AXES = ("steps", "bits", "seconds", "joules")
"""What a run costs, is plotted against, and may be limited by."""


def nearest(what: str, given: str, known: Iterable[str]) -> ValueError:
    """The error for an unknown name: it says which known ones are nearest, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(str(given), known, n=3, cutoff=0.5) or known
    return ValueError(f"{what}: {given!r} is unknown. Did you mean {', '.join(near)}?")


@dataclass(frozen=True)
class Run:
    """The settings of one run.

    Attributes:
      task: DATA/MODEL, such as digits/mlp, fashion_mnist/cnn, breast_cancer/logistic_regression; see
        `experiments.tasks`.
      method: a name of the registry, `adozoo.zoo.entries()`, or of `experiments.methods`.
      nodes: how many.
      graph: a family of `adozoo.graphs`, such as ring or torus:4x4, or a schedule, such as one_peer_exponential.
      weights: how a mixing matrix is made of the graph.
      partition: who holds which sample, such as iid or dirichlet_per_class:0.1.
      steps: gradients of each node (on average, for asynchronous methods).
      learning_rate: the method's step size; None is 1 / L where the task knows its smoothness L.
      hyperparameters: of the method, in place of those of its entry in the registry: numbers, and for a compressor a
        text such as top_k:0.01, qsgd:4 or low_rank:2.
      batch: samples in a gradient; 0 takes all of a node's samples (convex tasks).
      schedule: what multiplies gradients over time: constant, cosine (to 0), linear (to 0), steps (x 0.1 after 50 % and
        75 %).
      warmup: share of the steps in which that factor grows linearly from 0.
      augment: shift and mirror training images at random.
      batch_norm: what becomes of batch statistics: local, gossiped or recomputed; see `experiments.models.batch_norm`.
      average: decay of a moving average of the mean model that is evaluated too; 0 for none.
      evaluate: mean (the mean model), or all (also the worst node, every node and the ensemble).
      held_out: how many held-out samples each evaluation takes, of the validation and of the test part; 0 for all.
      records: how many times the run is evaluated, at equal distances; the last time at its end.
      cluster: where it runs, such as uniform or straggler:4; see `experiments.costs`.
      energy: which machines its nodes are, in `experiments.energy`.
      drops: probability that a message is lost.
      noise: standard deviation of what is added to each number of a message.
      delay: steps that messages are late; a node's own value never is. What is waited for, and costs, stays the same.
      churn: share of the time that nodes are away.
      seed: of the start, the batches and all noise of the run.
      world: seed of the partition, the random graph, the cluster's durations and the events.
      microbatch: how many nodes' gradients are computed at once; 0 for all.
      devices: over how many devices the nodes are spread.
      stop_at: a number of an axis, bits, seconds or joules, at which the run ends if that is before its last step; see
        `stop_axis`.
      stop_axis: what `stop_at` counts.
    """

    task: str = "digits/mlp"
    method: str = "dsgd_atc"
    nodes: int = 16
    graph: str = "ring"
    weights: str = "metropolis"
    partition: str = "iid"
    steps: int = 400
    learning_rate: float | None = 0.1
    hyperparameters: Mapping[str, int | float | str] = field(default_factory=dict)
    batch: int = 16
    schedule: str = "constant"
    warmup: float = 0.0
    augment: bool = False
    batch_norm: str = "local"
    average: float = 0.0
    evaluate: str = "all"
    held_out: int = 0
    records: int = 10
    cluster: str = "uniform"
    energy: str = "laptop"
    drops: float = 0.0
    noise: float = 0.0
    delay: int = 0
    churn: float = 0.0
    seed: int = 0
    world: int = 0
    microbatch: int = 0
    devices: int = 1
    stop_at: float = 0.0
    stop_axis: str = "steps"

    def __post_init__(self) -> None:
        for name, least in (("nodes", 1), ("steps", 1), ("records", 1), ("devices", 1)):
            _check_integer(name, getattr(self, name), least)
        for name in ("batch", "held_out", "delay", "seed", "world", "microbatch"):
            _check_integer(name, getattr(self, name), 0)
        for name in ("warmup", "average", "drops", "churn"):
            _check_share(name, getattr(self, name))
        for name in ("stop_at", "noise"):
            _check_finite(name, getattr(self, name), 0.0)
        if self.noise and self.delay:
            raise ValueError(f"noise: messages are either noisy or late, got noise={self.noise!r}, delay={self.delay}.")
        if self.learning_rate is not None:
            _check_finite("learning_rate", self.learning_rate)
        if self.schedule not in SCHEDULES:
            raise nearest("schedule", self.schedule, SCHEDULES)
        if self.evaluate not in EVALUATIONS:
            raise nearest("evaluate", self.evaluate, EVALUATIONS)
        if self.stop_axis not in AXES:
            raise nearest("stop_axis", self.stop_axis, AXES)
        if self.records > self.steps:
            raise ValueError(f"records: at most one a step, got {self.records} for {self.steps} steps. Take fewer.")
        if self.nodes % self.devices:
            raise ValueError(
                f"devices: {self.nodes} nodes do not divide by {self.devices} devices. Use a divisor of the nodes."
            )
        method = methods.entry(self.method)
        for name, value in self.hyperparameters.items():
            if name not in method.hyperparameters and name not in method.search:
                known = {*method.hyperparameters, *method.search}
                if not known:
                    raise ValueError(f"hyperparameters: {self.method} has none, got {name!r}. Leave it out.")
                raise nearest(f"hyperparameters of {self.method}", name, known)
            if isinstance(value, int | float) and not math.isfinite(value):
                raise ValueError(f"hyperparameters: {name} must be finite, got {value!r}. Give a number.")
            if isinstance(value, str):
                methods.compressor(self.method, name, value)
        real = {name: float(value) for name, value in self.hyperparameters.items() if _real(method, name, value)}
        object.__setattr__(self, "hyperparameters", {**self.hyperparameters, **real})

    @property
    def entry(self) -> zoo.Entry:
        """What the registry knows of the method."""
        return methods.entry(self.method)

    @property
    def lane(self) -> dict[str, float]:
        """The numbers in which lanes of one program may differ, besides the seed."""
        real = {name: value for name, value in self.hyperparameters.items() if isinstance(value, float)}
        return real if self.learning_rate is None else {"learning_rate": float(self.learning_rate), **real}

    @property
    def shared(self) -> dict[str, Any]:
        """The hyper-parameters that all lanes of a program share: those that are not real numbers."""
        return {name: value for name, value in self.hyperparameters.items() if not isinstance(value, float)}

    @property
    def program(self) -> "Run":
        """The same settings with those of the lane blanked: runs that agree in it share one compiled program."""
        blank = {name: 0.0 if isinstance(value, float) else value for name, value in self.hyperparameters.items()}
        rate = None if self.learning_rate is None else 0.0
        return dataclasses.replace(self, learning_rate=rate, hyperparameters=blank, seed=0)

    @property
    def configuration(self) -> dict[str, Any]:
        """As plain numbers, texts and dicts: what the store hashes."""
        return dataclasses.asdict(self) | {"hyperparameters": dict(sorted(self.hyperparameters.items()))}

    @property
    def command(self) -> str:
        """The command line that runs it again."""
        parts = ["python -m experiments run"]
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            default = {} if item.name == "hyperparameters" else item.default
            if value == default:
                continue
            flag = f"--{item.name.replace('_', '-')}"
            if item.name == "hyperparameters":
                parts.append(" ".join([flag, *(f"{key} {number!r}" for key, number in value.items())]))
            elif isinstance(value, bool):
                parts.append(flag)
            else:
                parts.append(f"{flag} {value}")
        return " ".join(parts)


def from_configuration(configuration: Mapping[str, Any]) -> Run:
    """The run of these settings, as `Run.configuration` gives them or a file says; others than its own are refused.

    Example:
      >>> from_configuration({"nodes": 4}) == Run(nodes=4)
      True
    """
    known = {item.name: item for item in dataclasses.fields(Run)}
    for name, value in configuration.items():
        if name not in known:
            raise nearest("settings", name, known)
        wanted = type(Run.__dataclass_fields__[name].default)
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            continue
        if name not in ("hyperparameters", "learning_rate") and type(value) is not wanted:
            raise ValueError(f"settings: {name} must be of type {wanted.__name__}, got {value!r}. See --help.")
    real = [name for name, value in configuration.items() if name == "learning_rate" or known[name].type is float]
    fixed: dict[str, Any] = {name: float(configuration[name]) for name in real if configuration[name] is not None}
    return Run(**{**configuration, **fixed})


def _real(method: zoo.Entry, name: str, value: Any) -> bool:
    """Whether a hyper-parameter is a real number, written as an integer or not: then lanes may differ in it."""
    return type(value) is float or (type(value) is int and type(method.hyperparameters.get(name, 0.0)) is float)


def _check_integer(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")


def _check_share(name: str, value: Any) -> None:
    _check_finite(name, value, 0.0)
    if value >= 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value!r}. It is a share.")


def _check_finite(name: str, value: Any, least: float = -math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        bound = "" if least == -math.inf else f" of at least {least:g}"
        raise ValueError(f"{name} must be a finite number{bound}, got {value!r}.")
