"""Which component each node samples, and when nodes communicate: random streams that method and problem share.

A stream is a function of the step. Given both to a variance-reduced method and to `problem.sampled_gradient`, it lets
the method know which component a gradient is of, without drawing it itself:

    samples = adozoo.samples(jax.random.key(0), n=16, components=100)
    tx = adozoo.gt_saga(0.1, mix, samples)
    adozoo.simulate(tx, problem.sampled_gradient(samples), problem.init(), 1000)
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from adozoo._checks import check_number
from adozoo._mixings import register
from adozoo.schedules import check_key


@partial(register, data_fields=["key"], meta_fields=["n", "components", "period"])
@dataclass(frozen=True, eq=False)
class Samples:
    """Uniform and independent component indices: step -> [n] integers below `components`."""

    key: Array
    n: int
    components: int
    period: int | None

    def __call__(self, step: Any) -> Int[Array, " n"]:
        return jax.random.randint(_key_at(self, step), (self.n,), 0, self.components)


@partial(register, data_fields=["indices"], meta_fields=["n", "components"])
@dataclass(frozen=True, eq=False)
class RecordedSamples:
    """Component indices [steps, n], in turn and again from the beginning."""

    indices: Int[Array, "steps n"]
    n: int
    components: int

    def __call__(self, step: Any) -> Int[Array, " n"]:
        return self.indices[jnp.mod(step, self.indices.shape[0])]


@partial(register, data_fields=["key", "probability"], meta_fields=["period"])
@dataclass(frozen=True, eq=False)
class Coins:
    """Independent coins, one a step for all nodes: step -> whether it shows heads, which it does with `probability`."""

    key: Array
    probability: Any
    period: int | None

    def __call__(self, step: Any) -> Bool[Array, ""]:
        return jax.random.bernoulli(_key_at(self, step), self.probability)


@partial(register, data_fields=["heads"], meta_fields=["probability"])
@dataclass(frozen=True, eq=False)
class RecordedCoins:
    """Coins [steps], in turn and again from the beginning; their `probability` is how often they show heads."""

    heads: Bool[Array, " steps"]
    probability: float

    def __call__(self, step: Any) -> Bool[Array, ""]:
        return self.heads[jnp.mod(step, self.heads.shape[0])]


def samples(key: Any, n: int, components: int, period: int | None = None) -> Samples:
    """Component indices, uniform and independent over nodes and steps, as a function of the step.

    Args:
      key: a typed JAX key; step t uses fold_in(key, t).
      n: nodes.
      components: how many components a node's objective has.
      period: repeat the first `period` steps for ever, as theory needs it that looks for a period; by default never.

    Returns:
      step -> [n] indices, with attributes `n` and `components`.

    Raises:
      ValueError: for an untyped key, or numbers that are not positive integers.

    Example:
      >>> stream = adozoo.samples(jax.random.key(0), n=3, components=5)
      >>> stream(0).shape, bool((stream(7) < 5).all())
      ((3,), True)
    """
    check_key("samples", key)
    _check_counts("samples", n=n, components=components, **({} if period is None else {"period": period}))
    return Samples(key, n, components, period)


def recorded_samples(indices: Any, components: int | None = None) -> RecordedSamples:
    """Component indices as recorded, from the beginning again after the last.

    Args:
      indices: [steps, n] integers >= 0.
      components: how many components there are; by default one more than the largest index.

    Raises:
      ValueError: for another shape, indices that are no integers, or one that is out of range.

    Example:
      >>> adozoo.recorded_samples([[0, 1], [2, 0]])(3)
      Array([2, 0], dtype=int...)
    """
    table = np.asarray(indices)
    if table.ndim != 2 or not table.size or not np.issubdtype(table.dtype, np.integer):
        raise ValueError(
            f"recorded_samples: indices must be integers [steps, n], got {table.dtype} of shape {table.shape}."
        )
    components = int(table.max()) + 1 if components is None else components
    _check_counts("recorded_samples", components=components)
    if table.min() < 0 or table.max() >= components:
        raise ValueError(
            f"recorded_samples: indices must lie in [0, {components}), got {table.min()} to {table.max()}. Pass "
            "components, the number of components of a node."
        )
    return RecordedSamples(jnp.asarray(table), table.shape[1], components)


def coins(key: Any, probability: Any, period: int | None = None) -> Coins:
    """Whether the nodes communicate in a step: one coin for all of them, independent over steps.

    Args:
      key: a typed JAX key; step t uses fold_in(key, t).
      probability: of heads (to communicate), in (0, 1).
      period: repeat the first `period` steps for ever; by default never.

    Raises:
      ValueError: for an untyped key, a probability outside (0, 1), or a period that is no positive integer.

    Example:
      >>> bool(adozoo.coins(jax.random.key(0), 0.5)(3)) in (True, False)
      True
    """
    check_key("coins", key)
    check_number("coins", "probability", probability, 0, 1)
    _check_counts("coins", **({} if period is None else {"period": period}))
    return Coins(key, probability, period)


def recorded_coins(heads: Any) -> RecordedCoins:
    """Coins as recorded, from the beginning again after the last.

    Args:
      heads: [steps], booleans or 0 and 1.

    Raises:
      ValueError: for another shape.

    Example:
      >>> bool(adozoo.recorded_coins([0, 1])(3))
      True
    """
    table = np.asarray(heads, bool)
    if table.ndim != 1 or not table.size:
        raise ValueError(f"recorded_coins: heads must be booleans [steps], got shape {table.shape}.")
    return RecordedCoins(jnp.asarray(table), float(table.mean()))


def _key_at(stream: Samples | Coins, step: Any) -> Array:
    return jax.random.fold_in(stream.key, step if stream.period is None else jnp.mod(step, stream.period))


def _check_counts(name: str, **counts: Any) -> None:
    for argument, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: {argument} must be a positive integer, got {value!r}.")
