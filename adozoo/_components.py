"""What variance-reduced methods keep: one row a component, and the rows that the nodes here sample."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo.mixing import Mixing
from adozoo.nodes import node_count
from adozoo.samples import samples


def check_samples(factory: str, stream: Any, mix: Any) -> None:
    """Raise ValueError unless this is a stream of indices for the nodes of the mixing."""
    if not (callable(stream) and hasattr(stream, "components") and hasattr(stream, "n")):
        raise ValueError(
            f"{factory}: samples must say which component each node samples at a step, got {type(stream).__name__}. "
            "Use adozoo.samples(key, n, components) or adozoo.recorded_samples(indices)."
        )
    if stream.n != mix.n:
        raise ValueError(
            f"{factory}: samples must be for the nodes of mix, got n = {stream.n} and {mix.n}. Use adozoo.samples(key, "
            f"{mix.n}, components)."
        )


def sampled_by(stream: Any, mix: Any, step: Any) -> Int[Array, " rows"]:
    """Which component the nodes sample whose rows are here."""
    return stream(step)[mix.own_nodes]


def component_table(factory: str, stream: Any, mix: Any, params: PyTree, table: PyTree | None) -> PyTree:
    """One row a component, leaves [n, components, ...]: a given table, or zeros.

    Raises:
      ValueError: if params lack the node axis, or a given table is not one of components of params.
    """
    if node_count(params) != mix.local_rows:
        raise ValueError(
            f"{factory}: mix has n = {mix.n} nodes: every leaf of params needs a leading node axis of length "
            f"{mix.local_rows}, got {node_count(params)}. Use adozoo.replicate(params, {mix.n})."
        )
    shapes = [(x.shape[0], stream.components, *x.shape[1:]) for x in jax.tree.leaves(params)]
    if table is None:
        return jax.tree.map(lambda x: jnp.zeros_like(spread(x, stream.components)), params)
    found = [jnp.shape(x) for x in jax.tree.leaves(table)]
    if found != shapes:
        raise ValueError(
            f"{factory}: table must hold one gradient of each component for each node, leaves {shapes}, got {found}. "
            "Leave it out to begin with zeros."
        )
    return jax.tree.map(lambda old, x: jnp.asarray(old, x.dtype), table, params)


def spread(leaf: Array, components: int) -> Array:
    """The same value for each component, [n, ...] -> [n, components, ...]."""
    return jnp.repeat(leaf[:, None], components, axis=1)


def pick(table: PyTree, indices: Int[Array, " n"]) -> PyTree:
    """The sampled row of each node, leaves [n, components, ...] -> [n, ...]."""
    return jax.tree.map(lambda rows: jax.vmap(lambda own, j: own[j])(rows, indices), table)


def put(table: PyTree, indices: Int[Array, " n"], values: PyTree) -> PyTree:
    """The table with each node's sampled row replaced."""
    set_one = jax.vmap(lambda own, j, value: own.at[j].set(value.astype(own.dtype)))
    return jax.tree.map(lambda rows, value: set_one(rows, indices, value), table, values)


def with_samples(factory: Callable[..., optax.GradientTransformationExtraArgs]) -> Any:
    """The registry's form (learning_rate, mix, components, period): samples drawn from key 0, repeating after a period.

    The period lets theory read what is otherwise a random method; None for one that never repeats.
    """

    @functools.wraps(factory)
    def build(
        learning_rate: Any, mix: Mixing, components: int, period: int | None, **options: Any
    ) -> optax.GradientTransformationExtraArgs:
        stream = samples(jax.random.key(0), mix.n, components, period)
        return factory(learning_rate, mix, samples=stream, **options)

    return build
