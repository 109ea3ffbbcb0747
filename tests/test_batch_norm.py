"""Batch-norm statistics over nodes: pooled by the law of total variance, gossiped, recomputed exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused

import adozoo
from experiments import models
from experiments.models import batch_norm, norms


def of_values(values):
    """Stacked statistics of what each node has seen, [n, m, channels]."""
    return {"layer": {"mean": jnp.asarray(values.mean(1)), "var": jnp.asarray(values.var(1))}}


def shares(seed, shift):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, 50, 3)) + shift * rng.normal(size=(4, 1, 3))


@given(seed=st.integers(0, 10**6), shift=st.floats(0, 100))
def test_pooled_statistics_are_those_of_all_values(seed, shift):
    values = shares(seed, shift)
    got = batch_norm.pooled(of_values(values))["layer"]
    np.testing.assert_allclose(got["mean"], values.mean((0, 1)), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(got["var"], values.var((0, 1)), rtol=1e-10)


def test_the_average_of_variances_is_wrong_by_the_variance_of_the_means():
    """Nearly right for nodes that see the same; far too small for those that do not."""
    for shift, ratio in ((0.0, (0.9, 1.0)), (10.0, (0.0, 0.1))):
        values = shares(0, shift)
        stats = of_values(values)["layer"]
        average, right = stats["var"].mean(0), values.var((0, 1))
        np.testing.assert_allclose(right - average, np.asarray(stats["mean"]).var(0), rtol=1e-9)
        assert ratio[0] < (average / right).min() <= (average / right).max() <= ratio[1]


@given(seed=st.integers(0, 10**6), shift=st.floats(0, 100))
def test_gossip_keeps_the_pooled_statistics_and_contracts_to_them(seed, shift):
    stats = of_values(shares(seed, shift))
    mix, gossiped = adozoo.mixing(adozoo.graphs.ring(4)), batch_norm.policy("gossiped")
    target = batch_norm.pooled(stats)["layer"]
    after = stats
    for step in range(30):
        after = gossiped.after_step(after, mix, step)
        kept = batch_norm.pooled(after)["layer"]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8), kept, target)
        assert float(after["layer"]["var"].min()) >= 0
    for name in ("mean", "var"):
        spread = np.abs(after["layer"][name] - target[name][None]).max()
        np.testing.assert_allclose(spread, 0, atol=1e-7 * (1 + shift) ** 2)


class Network(nnx.Module):
    """Two normalised layers."""

    def __init__(self, rngs):
        self.first, self.second = (norms.BatchNorm(3, rngs) for _ in range(2))

    def __call__(self, inputs, train, key):
        return self.second(self.first(inputs, train), train, activate=False)


@pytest.fixture(scope="module")
def network():
    """The model, and params and stats drawn so that no scale is 1 and no bias 0."""
    model = models.from_module("network", Network)
    rng = np.random.default_rng(0)
    return model, *jax.tree.map(
        lambda leaf: rng.uniform(1, 2, leaf.shape), jax.eval_shape(model.init, jax.random.key(0))
    )


def test_recomputed_statistics_are_those_of_the_data(network):
    """The first layer's of all samples, exactly; the second's of what it sees, batch by batch, computed by hand."""
    model, params, stats = network
    batches = np.random.default_rng(0).normal(loc=2.0, size=(5, 16, 3)) * np.arange(1, 6).reshape(5, 1, 1)
    recompute = jax.jit(lambda stats, batches: batch_norm.recompute(model, params, stats, batches))
    got = recompute(stats, batches)
    layer = params["first"]["norm"]
    normal = (batches - batches.mean(1, keepdims=True)) / np.sqrt(batches.var(1, keepdims=True) + 1e-5)
    seen = {"first": batches, "second": np.maximum(normal * layer["scale"] + layer["bias"], 0)}
    for name, values in seen.items():
        np.testing.assert_allclose(got[name]["norm"]["mean"], values.mean((0, 1)), rtol=1e-12)
        np.testing.assert_allclose(got[name]["norm"]["var"], values.var((0, 1)), rtol=1e-11)
    again = recompute(jax.tree.map(lambda leaf: leaf * 7 + 3, stats), batches[::-1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12), got, again)


def test_policies_over_nodes(network):
    model, params, stats = network
    rng = np.random.default_rng(0)
    stacked = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(1, 2, (3, *leaf.shape))), stats)
    batches = rng.normal(size=(2, 8, 3))
    mix = adozoo.mixing(adozoo.graphs.ring(3))
    local, gossiped, recomputed, replaced = map(batch_norm.policy, batch_norm.POLICIES)
    for kept in (local, recomputed):
        jax.tree.map(np.testing.assert_array_equal, kept.after_step(stacked, mix, 0), stacked)
    for mean in (local, gossiped):
        got = mean.for_mean(model, params, stacked, None)
        jax.tree.map(np.testing.assert_array_equal, got, batch_norm.pooled(stacked))
    got = recomputed.for_mean(model, params, stacked, batches)
    np.testing.assert_allclose(got["first"]["norm"]["var"], batches.var((0, 1)), rtol=1e-12)
    assert jax.tree.map(jnp.shape, got) == jax.tree.map(jnp.shape, stats)

    assert_refused(lambda: replaced.for_mean(model, params, stacked, None), "replaced", "norm='group'")
    assert_refused(lambda: recomputed.for_mean(model, params, stacked, None), "batches", "None")
    assert_refused(lambda: batch_norm.policy("gossip"), "'gossip'", "'gossiped'")
    for each in (local, gossiped, recomputed, replaced):
        assert each.after_step({}, mix, 0) == {}
        assert each.for_mean(models.logistic(3, 2), {}, {}, batches) == {}


def test_gossip_survives_faults_of_its_own():
    """Statistics travel in a message of their own: the links that fail for params are not those that fail for them."""
    mix = adozoo.channel.drops(adozoo.mixing(adozoo.graphs.ring(6)), 0.5, jax.random.key(0))
    stats = of_values(np.random.default_rng(0).normal(size=(6, 10, 3)))
    ours = batch_norm.policy("gossiped").after_step(stats, mix, 3)["layer"]["mean"]
    assert (np.asarray(ours) != np.asarray(mix(stats["layer"]["mean"], 3, 0))).any()
    np.testing.assert_array_equal(ours, mix(stats["layer"]["mean"], 3, batch_norm.MESSAGE))
