"""What an entry of the registry declares of its method is so. Twins and exactness are in test_conformance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import EACH, MIXINGS, NODES, START, widest

import adozoo


@EACH
def test_linear_means_affine(entry):
    """update(2 u - v) = 2 update(u) - update(v) in params, gradients and state, at any count, iff declared."""
    kind = widest(entry)
    tx = entry.build(0.1, MIXINGS[kind])
    template = (jnp.asarray(START), tx.init(jnp.asarray(START)), jnp.asarray(START))
    leaves, structure = jax.tree.flatten(template)
    rng = np.random.default_rng(4)

    def update(values):
        x, state, g = jax.tree.unflatten(structure, values)
        return jax.tree.leaves(tx.update(g, state, x))

    def affine(count):
        def point():
            return [
                jnp.full_like(leaf, count)
                if jnp.issubdtype(leaf.dtype, jnp.integer)
                else jnp.asarray(1 + rng.random(leaf.shape))
                for leaf in leaves
            ]

        u, v = point(), point()
        between = update([2 * a - b for a, b in zip(u, v, strict=True)])
        expected = [2 * a - b for a, b in zip(update(u), update(v), strict=True)]
        return all(bool(jnp.allclose(a, b, rtol=0, atol=1e-10)) for a, b in zip(between, expected, strict=True))

    assert affine(0) is affine(5) is entry.linear


@EACH
def test_declared_traffic_is_what_is_sent(entry):
    mix = MIXINGS[widest(entry)]
    params = {"w": jnp.zeros((NODES, 2, 3), jnp.float32), "b": jnp.zeros((NODES, 4), jnp.float32)}
    traffic = adozoo.channel.traffic(lambda mix: entry.build(0.1, mix), mix, params)
    links = adozoo.channel.mean_links(mix)
    assert traffic.bits == pytest.approx(links * 32 * (10 * entry.vectors + entry.scalars))
    assert traffic.bits_per_node == pytest.approx(traffic.bits / NODES)


class Disturbed(adozoo.Mixing):
    """Adds to what the k-th message of a step brings, and writes down what is sent."""

    is_mean = varying = remembers = True

    def __init__(self, base, added=()):
        self.base, self.added, self.sent = base, added, []
        self.n, self.stochastic, self.symmetric = base.n, base.stochastic, base.symmetric

    def __call__(self, tree, step=0, message=0):
        number = len(self.sent)
        self.sent.append(tree)
        heard = self.base(tree, step, message)
        if number < len(self.added):
            heard = jax.tree.map(lambda x: x + self.added[number], heard)
        return heard


@EACH
def test_declared_rounds_are_the_longest_chain_of_messages(entry):
    start, base = jnp.asarray(START), MIXINGS[widest(entry)]

    def sent(added):
        mix = Disturbed(base, added)
        tx = entry.build(0.1, mix)
        tx.update(start, tx.init(start), start)
        return [sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(message)) for message in mix.sent]

    count = len(sent(()))
    depth = [1] * count
    for k in range(count):
        tangents = [jnp.array(float(k == other)) for other in range(count)]
        _, changes = jax.jvp(sent, ([jnp.zeros(())] * count,), (tangents,))
        for later in range(k + 1, count):
            if changes[later] != 0:
                depth[later] = max(depth[later], depth[k] + 1)
    assert max(depth) == entry.rounds
