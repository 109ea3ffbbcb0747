"""The node axis."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adozoo

N = 4
RNG = np.random.default_rng(0)
TREE = {"matrix": jnp.asarray(RNG.normal(size=(N, 3, 2))), "vector": jnp.asarray(RNG.normal(size=(N, 5)))}


def row(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def orthogonalised(learning_rate):
    """Muon-like: of every matrix the orthogonal part, which on stacked leaves would mix the nodes."""

    def update(grads, state, params=None):
        del params

        def one(g):
            return g if g.ndim != 2 else jnp.linalg.qr(g)[0]

        return jax.tree.map(lambda g: -learning_rate * one(g), grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


INNER = {
    "clip": optax.clip_by_global_norm(1.0),
    "adam": optax.adam(0.1),
    "decay": optax.adamw(0.1, weight_decay=0.1),
    "schedule": optax.sgd(optax.exponential_decay(0.1, 1, 0.5), momentum=0.9),
    "lamb": optax.lamb(0.1),
    "orthogonal": orthogonalised(0.1),
    "finite": optax.apply_if_finite(optax.sgd(0.1), 3),
}


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_per_node_is_a_loop_over_nodes(inner):
    tx = adozoo.per_node(inner)
    stacked, state = TREE, tx.init(TREE)
    nodes = [(row(TREE, i), inner.init(row(TREE, i))) for i in range(N)]
    scale = np.array([0.1, 1, 5, 20])
    together, alone = jax.jit(tx.update), jax.jit(inner.update)
    for _ in range(3):
        grads = jax.tree.map(lambda x: x * scale.reshape(-1, *[1] * (x.ndim - 1)) + x**3, stacked)
        updates, state = together(grads, state, stacked)
        for i, (params, own) in enumerate(nodes):
            update, own = alone(row(grads, i), own, params)
            for left, right in zip(jax.tree.leaves(row(updates, i)), jax.tree.leaves(update), strict=True):
                np.testing.assert_allclose(left, right, rtol=0, atol=1e-12)
            nodes[i] = (optax.apply_updates(params, update), own)
        stacked = optax.apply_updates(stacked, updates)
    assert all(leaf.shape[0] == N for leaf in jax.tree.leaves(state))


def test_a_bad_node_is_on_its_own():
    tx = adozoo.per_node(optax.apply_if_finite(optax.sgd(1.0), 3))
    grads = jnp.array([[1.0], [np.nan], [3.0]])
    updates, _ = tx.update(grads, tx.init(grads))
    np.testing.assert_array_equal(updates, [[-1.0], [0.0], [-3.0]])


def test_per_node_hands_on_extra_arguments():
    inner = optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), lambda g, s, p=None, *, factor, **extra: (factor * g, s)
    )
    tx = optax.chain(adozoo.per_node(inner), adozoo.adapt_then_combine(adozoo.exact_mean(N)))
    x = TREE["vector"]
    updates, _ = tx.update(x, tx.init(x), x, factor=2.0)
    np.testing.assert_allclose(x + updates, np.broadcast_to(3 * np.asarray(x).mean(0), x.shape), atol=1e-14)


def test_replicate():
    stacked = adozoo.replicate({"w": np.ones((2, 3)), "b": 1.5}, 4)
    assert stacked["w"].shape == (4, 2, 3)
    np.testing.assert_array_equal(stacked["b"], [1.5] * 4)
    assert adozoo.node_count(stacked) == 4
    assert float(adozoo.consensus_distance(stacked)) == 0
    assert adozoo.replicate(jnp.ones(2, jnp.bfloat16), 3).dtype == jnp.bfloat16


def test_means_and_distances():
    flat = np.concatenate([np.asarray(leaf).reshape(N, -1) for leaf in jax.tree.leaves(TREE)], axis=1)
    distance = np.sqrt(np.mean(np.sum((flat - flat.mean(0)) ** 2, 1)))
    np.testing.assert_allclose(adozoo.consensus_distance(TREE), distance, rtol=1e-13)
    np.testing.assert_allclose(adozoo.node_mean(TREE)["vector"], np.asarray(TREE["vector"]).mean(0), rtol=1e-13)
    apart = adozoo.disagreement(TREE)
    for key, leaf in TREE.items():
        np.testing.assert_allclose(apart[key], np.asarray(leaf) - np.asarray(leaf).mean(0), atol=1e-15)


class Averaged(tuple):
    """The state of a made-up method whose answer is not its params."""

    __slots__ = ()


jax.tree_util.register_pytree_node(Averaged, lambda s: (tuple(s), None), lambda _, parts: Averaged(parts))


@adozoo.nodes.register_eval_params(Averaged)
def _(state, params):
    return 0.5 * (params + state[0])


def test_eval_params_looks_through_chains():
    averaged = optax.GradientTransformation(lambda params: Averaged((0 * params,)), lambda g, s, p=None: (g, s))
    x = TREE["vector"]
    assert adozoo.eval_params(optax.adam(0.1).init(x), x) is x
    np.testing.assert_array_equal(adozoo.eval_params(averaged.init(x), x), x / 2)
    chained = optax.chain(optax.sgd(0.1), optax.chain(averaged, optax.identity()))
    np.testing.assert_array_equal(adozoo.eval_params(chained.init(x), x), x / 2)
    late = adozoo.channel.delayed(
        lambda mix: optax.chain(averaged, adozoo.adapt_then_combine(mix)), adozoo.exact_mean(N), 1
    )
    np.testing.assert_array_equal(adozoo.eval_params(late.init(x), x), x / 2)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: adozoo.replicate(1.0, 0), "replicate: n must be a positive integer.*got 0"),
        (lambda: adozoo.replicate(1.0, True), "got True"),
        (lambda: adozoo.node_count({"a": jnp.ones(3), "b": jnp.ones(4)}), r"\(3,\), \(4,\).*adozoo.replicate"),
        (lambda: adozoo.node_count(jnp.ones(())), "adozoo.replicate"),
        (lambda: adozoo.node_count({}), "adozoo.replicate"),
    ],
)
def test_misuse(build, words):
    with pytest.raises(ValueError, match=words):
        build()
