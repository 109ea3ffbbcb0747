"""Arithmetic on pytrees that never changes a leaf's dtype.

`optax.tree` promotes: a traced float32 step size times a bfloat16 leaf is a float32 leaf, and a scan carry that changes
its dtype does not run. Here a scalar is cast to each leaf's dtype first, so that shapes and dtypes are preserved
whatever is traced.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
ScalarOrSchedule = Any  # a number, a traced scalar, or a schedule: step -> scalar


def scale(scalar: Any, tree: PyTree) -> PyTree:
    """scalar * tree, leaf by leaf, in the leaf's dtype."""
    return jax.tree.map(lambda x: jnp.asarray(scalar).astype(x.dtype) * x, tree)


def axpy(scalar: Any, x: PyTree, y: PyTree) -> PyTree:
    """scalar * x + y, in the dtype of y's leaves."""
    return jax.tree.map(lambda a, b: jnp.asarray(scalar).astype(b.dtype) * a.astype(b.dtype) + b, x, y)


def add(*trees: PyTree) -> PyTree:
    """The sum of trees of one structure."""
    return jax.tree.map(lambda first, *rest: sum((x.astype(first.dtype) for x in rest), first), *trees)


def sub(x: PyTree, y: PyTree) -> PyTree:
    """x - y, in the dtype of x's leaves."""
    return jax.tree.map(lambda a, b: a - b.astype(a.dtype), x, y)


def zeros_like(tree: PyTree) -> PyTree:
    """Zeros of the same shapes, dtypes and shardings."""
    return jax.tree.map(jnp.zeros_like, tree)


def placed_like(tree: PyTree, params: PyTree) -> PyTree:
    """The same rows [n, ...], typed as living where the rows of params live: a scan in `shard_map` asks for that."""
    flags = jnp.zeros_like(jax.tree.leaves(params)[0], bool, (jax.tree.leaves(params)[0].shape[0],))
    return jax.tree.map(lambda x: jnp.where(flags.reshape((-1,) + (1,) * (x.ndim - 1)), x, x), tree)


def rows(values: Any, like: Any) -> Any:
    """One number a row, in the dtype of a leaf and against its trailing axes."""
    return jnp.asarray(values).astype(like.dtype).reshape((-1,) + (1,) * (like.ndim - 1))


def where(flags: Any, x: PyTree, y: PyTree) -> PyTree:
    """Of each node, its row of x if its flag is set, else of y; flags [n]."""
    return jax.tree.map(lambda a, b: jnp.where(flags.reshape((-1,) + (1,) * (jnp.ndim(a) - 1)), a, b), x, y)


def half(x: PyTree, y: PyTree) -> PyTree:
    """(x + y) / 2: what the lazy matrix (I + W) / 2 does, given x and W x."""
    return jax.tree.map(lambda a, b: 0.5 * (a + b), x, y)


def schedule_value(value: ScalarOrSchedule, count: jax.Array) -> Any:
    """The hyper-parameter at step `count`: a schedule is called, anything else is returned as it is."""
    return value(count) if callable(value) else value


Schedule = Callable[[jax.Array], jax.Array]
