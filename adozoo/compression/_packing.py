"""All leaves of a pytree as one vector, and back: for compressors that look at the whole model at once."""

import math
from itertools import accumulate

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


def total_size(like: PyTree) -> int:
    """The number of scalars of a pytree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(like))


def pack(tree: PyTree) -> Array:
    """The leaves in their order, flattened, in the dtype to which they promote."""
    leaves = jax.tree.leaves(tree)
    dtype = jnp.result_type(*leaves) if leaves else jnp.zeros(()).dtype
    return jnp.concatenate([jnp.zeros(0, dtype), *(jnp.ravel(leaf).astype(dtype) for leaf in leaves)])


def unpack(vector: Array, like: PyTree) -> PyTree:
    """The pytree of the shapes and dtypes of `like` whose `pack` is this vector."""
    leaves, structure = jax.tree.flatten(like)
    ends = accumulate(math.prod(leaf.shape) for leaf in leaves)
    parts = [
        vector[end - math.prod(leaf.shape) : end].reshape(leaf.shape).astype(leaf.dtype)
        for leaf, end in zip(leaves, ends, strict=True)
    ]
    return jax.tree.unflatten(structure, parts)
