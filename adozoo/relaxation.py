r"""Relaxed mixing: how much of the network's average a node takes over, as a parameter of its own."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from adozoo._checks import check_number
from adozoo._halo import wide
from adozoo._mixings import Around, register
from adozoo.mixing import Mixing


@partial(register, data_fields=["base", "amount"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Relaxed(Around):
    r"""W_\theta = I + \theta (W - I) around a mixing `base`, which keeps its own fast form."""

    base: Mixing
    amount: Any

    def used_in(self, share: float) -> "Relaxed":
        return replace(self, base=self.base.used_in(share))

    def at(self, step: Any, message: int = 0) -> "Relaxed":
        return replace(self, base=self.base.at(step, message))

    def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        return jax.tree.map(self._between, tree, self.base(tree, step, message))

    def mix_leaf(self, x: Array) -> Array:
        return self._between(x, self.base.mix_leaf(x))

    def _between(self, x: Any, mixed: Any) -> Array:
        own, other = wide(jnp.asarray(x)), wide(mixed)
        return (own + jnp.asarray(self.amount, own.dtype) * (other - own)).astype(mixed.dtype)

    def _relax(self, table: tuple[Any, Any]) -> tuple[Any, Any]:
        neighbors, weights = table
        own = np.eye(1, weights.shape[1])  # column 0 is the node itself
        return neighbors, own + self.amount * (weights - own)

    def table(self) -> tuple[Any, Any]:
        return self._relax(self.base.table())

    def table_at(self, step: Any, message: int = 0) -> tuple[Any, Any]:
        return self._relax(self.base.table_at(step, message))

    def links(self, step: Any = 0) -> Any:
        return self.base.links(step)


def relaxed(mix: Mixing, amount: Any) -> Relaxed:
    r"""Move only a part of the way to the network's average: W_\theta = I + \theta (W - I).

    The eigenvalues become 1 + \theta (\lambda - 1): \theta = 1/2 is the lazy walk, which has no negative ones; a
    \theta above 1 over-relaxes, as the best constant edge weights do. What is sent does not change.

    Args:
      mix: the mixing, fixed or time-varying.
      amount: \theta in (0, 2], a number or a traced scalar.

    Returns:
      A mixing.

    Raises:
      ValueError: for an amount out of range.

    Example:
      >>> lazy = adozoo.relaxed(adozoo.exact_mean(2), 0.5)
      >>> lazy(jnp.array([0.0, 4.0]))
      Array([1., 3.], dtype=float64)
    """
    check_number("relaxed", "amount", amount, 0, 2 + 1e-12)
    return Relaxed(mix, amount)
