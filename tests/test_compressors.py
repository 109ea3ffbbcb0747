"""What holds for every compressor: shapes and dtypes, jit, nodes, scans, bits, zeros and scale."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compressor_cases import CASES, EACH, messages, quick, random_tree, sent, shapes

import adozoo
from adozoo import compression as c

RESNET_18 = [(64, 3, 3, 3), *[(64, 64, 3, 3)] * 4]
for width in (128, 256, 512):
    RESNET_18 += [(width, width // 2, 3, 3), *[(width, width, 3, 3)] * 3, (width, width // 2, 1, 1)]
RESNET_18 = [*RESNET_18, *[(shape[0],) for shape in RESNET_18 for _ in range(2)], (10, 512), (10,)]
KEY = jax.random.key(0)


def assert_equal(x, y, **tolerance):
    assert jax.tree.structure(x) == jax.tree.structure(y)
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), **tolerance)


def test_every_factory_is_a_case():
    others = {"Compressor", "Stacked", "inclusion_probabilities", "one_node", "over_nodes", "shapes_of"}
    assert {name for name in c.__all__ if name not in others} == {name.split(",")[0].split(" ")[0] for name in CASES}


@EACH
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=lambda dtype: dtype.__name__)
def test_shapes_and_dtypes_stay(compressor, dtype):
    """Those of trees and of states, over nodes and under a scan; an empty leaf is no exception."""
    tree = shapes(dtype, empty=(0, 3))
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(compressor.init, tree, key)
    arrived, after = jax.eval_shape(partial(sent, compressor), tree, state)
    assert (arrived, after) == (tree, state)

    stacked = jax.tree.map(lambda x: jax.ShapeDtypeStruct((3, *x.shape), x.dtype), tree)
    over = c.over_nodes(compressor)
    states = jax.eval_shape(over.init, stacked, key, jax.ShapeDtypeStruct((3,), jnp.int32))

    def scanned(trees, states):
        return jax.lax.scan(lambda carry, _: (over.apply(trees, carry)[1], None), states, length=2)[0]

    assert jax.eval_shape(scanned, stacked, states) == states
    assert jax.eval_shape(over.apply, stacked, states)[0] == stacked
    assert over.bits(stacked) == compressor.bits(tree)


@pytest.mark.parametrize("name", ["scaled_sign", "half_low_rank", "random_k, scaled", "qsgd"])
def test_nodes_are_compressed_by_themselves(name):
    """Messages of two nodes in one scan are those of each node alone, with its own key or the shared one.

    One compressor of each kind of state: none, a warm start, a shared key, a key of one's own.
    """
    compressor = CASES[name]
    trees, key, over = random_tree(1, (3, 2)), jax.random.key(3), c.over_nodes(compressor)

    @quick
    def together(trees):
        def step(states, tree):
            arrived, states = over.apply(tree, states)
            return states, arrived

        start = over.init(jax.tree.map(lambda x: x[0], trees), key, jnp.arange(2))
        return jax.lax.scan(step, start, trees)[1]

    heard = jax.tree.map(np.asarray, together(trees))
    for node in range(2):
        own = key if compressor.shared else jax.random.fold_in(key, node)
        alone = messages(compressor)({name: x[:, node] for name, x in trees.items()}, own)
        assert_equal({name: x[:, node] for name, x in heard.items()}, alone, rtol=0, atol=1e-12)


@EACH
def test_scale_does_not_matter(compressor):
    """C(s v) = s C(v) for powers of two, however small; signs without a scale are the exception."""
    tree, key = random_tree(2, (3,)), jax.random.key(5)
    small = {name: x * 2.0**-60 for name, x in tree.items()}
    scaled = jax.tree.map(np.asarray, messages(compressor)(small, key))
    factor = 1 if compressor is CASES["sign"] else 2.0**60
    expected = messages(compressor)(tree, key)
    assert_equal({name: x * factor for name, x in scaled.items()}, expected, rtol=0, atol=1e-12)


@EACH
def test_zeros_arrive_as_zeros_and_kill_nothing(compressor):
    """After a message of zeros, something of every tensor of the next ones arrives."""
    if compressor is CASES["sign"]:
        return
    tree = {name: np.ones((3, *leaf.shape)) for name, leaf in random_tree(0).items()}
    for leaf in tree.values():
        leaf[0] = 0
    arrived = jax.tree.map(np.asarray, messages(compressor)(tree, jax.random.key(0)))
    assert all((leaf[0] == 0).all() for leaf in arrived.values())
    names = ["tensor"] if compressor is CASES["global_top_k"] else arrived  # the first of ones that are all the same
    assert all((arrived[name][2] != 0).any() for name in names)


@EACH
def test_what_adds_up(compressor):
    """Payloads of nodes that share their random numbers add up to the payload of the sum, where declared."""
    if not compressor.additive:
        return
    x, y = random_tree(3), random_tree(4)

    @quick
    def run(x, y):
        state = compressor.init(x, jax.random.key(1))
        here, there = (compressor.compress(tree, state)[0] for tree in (x, y))
        total = jax.tree.map(lambda a, b: a + b if jnp.issubdtype(a.dtype, jnp.inexact) else a, here, there)
        return compressor.decompress(total, c.shapes_of(x)), sent(compressor, jax.tree.map(jnp.add, x, y), state)[0]

    assert_equal(*run(x, y), rtol=0, atol=1e-12)


# A vector of 6, a matrix [4, 3] and a tensor [2, 3, 2] of 32-bit numbers: 30 scalars, 24 of them in matrices.
BITS = {
    "identity": 32 * 30,
    "top_k": 64 * (1 + 3 + 3),
    "top_k of rank 1": 32 * 6 + 96 * (7 + 8),
    "global_top_k": 64 * 7,
    "random_k": 32 * (1 + 3 + 3),
    "random_k, scaled": 32 * 6,
    "random_k, own places": 64 * 6,
    "random_block": 32 * (6 + 7 + 8),
    "random_block, scaled": 32 * 12,
    "scaled_sign": 32 + 32 * 3,
    "sign": 32,
    "svd": 32 * (6 + 2 * 7 + 2 * 8),
    "svd, unfolded": 32 * (6 + 8 + 9),
    "low_rank": 32 * (6 + 2 * 7 + 2 * 8),
    "low_rank, fresh": 32 * (6 + 7 + 8),
    "half_low_rank": 32 * (6 + 7 + 8),
    "unbiased_low_rank": 32 * (6 + 2 * 4 + 2 * 2),
    "atomo": 32 * ((3 + 2 + 1) + (4 + 3 + 1) + (3 + 4 + 1)),
    "atomo, exact count": 64 * ((3 + 2 + 1) + (4 + 3 + 1) + (3 + 4 + 1)),
    "atomo of entries": 64 * 6,
    "atomo of entries, exact count": 64 * 6,
    "qsgd": 32 * 3 + 30 * 3,
    "qsgd, max": 32 * 3 + 30 * 3,
    "leafwise": 3 * 64,
    "by_label": (32 + 6 * 2) + 32 * (7 + 8),
}
# Here a payload's arrays have other sizes than what is sent: room for more atoms, a factor that the receiver has, bytes
# for levels, 32-bit indices.
LARGER = {"atomo", "atomo of entries", "half_low_rank", "qsgd", "qsgd, max", "by_label", "top_k of rank 1"}


@pytest.mark.parametrize("name", CASES)
def test_bits(name):
    compressor = CASES[name]
    like = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((6,), (4, 3), (2, 3, 2))]
    assert compressor.bits(like) == BITS[name]
    payload, _ = jax.eval_shape(lambda tree: compressor.compress(tree, compressor.init(tree, jax.random.key(0))), like)
    told = [leaf for leaf in jax.tree.leaves(payload) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    if compressor.shared:  # positions are known
        told = [leaf for leaf in told if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert name in LARGER or 8 * sum(leaf.size * leaf.dtype.itemsize for leaf in told) == BITS[name]


@pytest.mark.parametrize(
    ("compressor", "published"),
    [
        (c.identity(), 1023),
        (c.low_rank(1), 4.21),
        (c.low_rank(2), 7.53),
        (c.low_rank(4), 14.18),
        (c.half_low_rank(1), 2.54),
        (c.half_low_rank(2), 4.21),
        (c.random_block(rank=7), 24.16),
        (c.random_k(rank=7), 24.16),
        (c.scaled_sign(), 31.97),
        (c.sign(), 31.97),
        (c.top_k(0.5 / 32), 31.97),
        (c.top_k(0.5 / 136), 7.52),
        (c.atomo(2), 113.07),
    ],
    ids=lambda value: str(value) if isinstance(value, float | int) else "",
)
def test_data_volumes_of_powersgd(compressor, published):
    """MiB per epoch of 24 steps for a ResNet-18 on Cifar-10: PowerSGD's tables 1, 3, 4 and 6, unrounded."""
    like = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in RESNET_18]
    assert (len(like), sum(leaf.size for leaf in like)) == (62, 11_173_962)
    digits = 0 if published > 1000 else 2
    assert round(24 * compressor.bits(like) / 8 / 2**20, digits) == published


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: c.top_k(), ["top_k", "exactly one", "fraction"]),
        (lambda: c.top_k(0.1, count=2), ["top_k", "exactly one", "count=2"]),
        (lambda: c.random_k(0.0), ["random_k", "fraction", "(0, 1]", "0.0"]),
        (lambda: c.random_block(1.5), ["random_block", "fraction", "1.5"]),
        (lambda: c.global_top_k(float("nan")), ["global_top_k", "fraction", "nan"]),
        (lambda: c.top_k(count=0), ["top_k", "count", "positive", "0"]),
        (lambda: c.top_k(rank=True), ["top_k", "rank", "True"]),
        (lambda: c.top_k(0.1, index_bits=16), ["top_k", "index_bits", "16"]),
        (lambda: c.low_rank(rank=0), ["low_rank", "rank", "0"]),
        (lambda: c.low_rank(iterations=0), ["low_rank", "iterations", "0"]),
        (lambda: c.svd(axis=1), ["svd", "axis", "1"]),
        (lambda: c.atomo(0), ["atomo", "atoms", "0"]),
        (lambda: c.atomo(1, basis="fourier"), ["atomo", "basis", "'fourier'", "'spectral'"]),
        (lambda: c.qsgd(0), ["qsgd", "levels", "0"]),
        (lambda: c.qsgd(norm="l1"), ["qsgd", "norm", "'l1'", "'max'"]),
        (lambda: c.by_label({"a": c.sign()}, ["a", "b"]).bits([jnp.zeros(2)] * 2), ["by_label", "'a'", "b"]),
    ],
)
def test_misuse(build, words):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the words are the match)
        build()
    assert [word for word in words if word not in str(refused.value)] == []


def test_ties_go_to_the_first():
    assert messages(c.top_k(count=2))(np.array([[1.0, -1.0, 1.0]]), KEY).tolist() == [[1, -1, 0]]
    first, second = messages(c.global_top_k(count=1))((np.array([-2.0]), np.array([[2.0]])), KEY)
    assert (first, second) == (-2, 0)


def test_zero_counts_as_positive():
    assert messages(c.sign())(np.array([[0.0, -0.0, -1e-30]]), KEY).tolist() == [[1, 1, -1]]


def test_rows_of_a_flax_kernel_are_its_last_axis():
    kernel = np.random.default_rng(0).normal(size=(1, 3, 3, 2, 5))  # a message, height, width, in, out
    flax = np.asarray(messages(c.svd(rank=2, axis=-1))(kernel, KEY))
    torch = messages(c.svd(rank=2))(kernel.transpose(0, 4, 3, 1, 2), KEY)
    np.testing.assert_allclose(flax.transpose(0, 4, 3, 1, 2), torch, atol=1e-12)


def test_orthonormal_columns():
    """An independent Gram-Schmidt agrees, and neither dependent nor tiny columns make P'P exceed the identity."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(9, 4))
    expected = np.linalg.qr(matrix)[0]
    orthogonalize = quick(adozoo._orthogonal.orthogonalize)
    ours = np.asarray(orthogonalize(matrix))
    np.testing.assert_allclose(ours @ ours.T, expected @ expected.T, atol=1e-7)
    np.testing.assert_array_less(0, np.sum(ours * matrix, axis=0))  # the sign of Gram-Schmidt
    for dtype in (jnp.float32, jnp.float64):
        for scale in (1e-9, 1e-7, 1.0, 1e9):
            for low in (np.ones((9, 6)), rng.normal(size=(9, 2)) @ rng.normal(size=(2, 6)), np.eye(9)[:, [0] * 6]):
                p = np.asarray(orthogonalize(np.asarray(scale * low, dtype)), np.float64)
                assert np.linalg.eigvalsh(p.T @ p).max() < 1 + 1e-4
