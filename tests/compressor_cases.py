"""Every compressor of the namespace, with arguments that leave something out of small tensors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adozoo import compression as c

CASES = {
    "identity": c.identity(),
    "top_k": c.top_k(fraction=0.3),
    "top_k of rank 1": c.top_k(rank=1, index_bits=64),
    "global_top_k": c.global_top_k(count=7),
    "random_k": c.random_k(fraction=0.3),
    "random_k, scaled": c.random_k(count=2, scaled=True),
    "random_k, own places": c.random_k(count=2, scaled=True, shared=False),
    "random_block": c.random_block(rank=1),
    "random_block, scaled": c.random_block(count=4, scaled=True),
    "scaled_sign": c.scaled_sign(),
    "sign": c.sign(),
    "svd": c.svd(rank=2),
    "svd, unfolded": c.svd(rank=1, folded=False, axis=-1),
    "low_rank": c.low_rank(rank=2),
    "low_rank, fresh": c.low_rank(rank=1, warm_start=False, axis=-1),
    "half_low_rank": c.half_low_rank(rank=2),
    "unbiased_low_rank": c.unbiased_low_rank(rank=2),
    "atomo": c.atomo(1),
    "atomo, exact count": c.atomo(2, exact_count=True),
    "atomo of entries": c.atomo(2, basis="entries"),
    "atomo of entries, exact count": c.atomo(2, basis="entries", exact_count=True),
    "qsgd": c.qsgd(levels=2),
    "qsgd, max": c.qsgd(levels=3, norm="max"),
    "leafwise": c.leafwise(c.scaled_sign()),
    "by_label": c.by_label(
        {"matrix": c.low_rank(rank=1), "rest": c.qsgd()},
        lambda tree: jax.tree.map(lambda x: "matrix" if len(x.shape) > 1 else "rest", tree),
    ),
}
EACH = pytest.mark.parametrize("compressor", CASES.values(), ids=list(CASES))


def shapes(dtype=jnp.float64, **more):
    """Leaves of every number of dimensions."""
    every = {"conv": (3, 2, 2, 1), "matrix": (4, 3), "scalar": (), "tensor": (2, 3, 2), "vector": (5,), **more}
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in every.items()}


def random_tree(seed, rows=()):
    """Two Gaussian leaves, with leading axes `rows`."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(*rows, *shape)) for name, shape in {"tensor": (2, 3, 2), "vector": (5,)}.items()}


def quick(function):
    """Compiled in a hurry: what runs on a few numbers need not run fast."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def sent(compressor, tree, state):
    """What arrives of a tree, and the state after."""
    payload, state = compressor.compress(tree, state)
    return compressor.decompress(payload, c.shapes_of(tree)), state


@functools.cache
def messages(compressor):
    """(trees, key) -> what arrives of a sequence of trees, stacked along a leading axis, from one node."""

    def run(trees, key):
        def step(state, tree):
            arrived, state = sent(compressor, tree, state)
            return state, arrived

        return jax.lax.scan(step, compressor.init(jax.tree.map(lambda x: x[0], trees), key), trees)[1]

    return quick(run)
