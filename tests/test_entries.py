"""What an entry of the registry declares of its method is so. Twins and exactness are in test_conformance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import EACH, EACH_FACTORY, MIXINGS, NODES, START, built, widest
from event_cases import EVENTS

import adozoo


def is_number(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.number)


@EACH_FACTORY
def test_linear_means_affine(entry):
    """update(2 u - v) = 2 update(u) - update(v) in params, gradients and state, at any count, iff declared."""
    kind = widest(entry)
    tx = built(entry, 0.1, MIXINGS[kind])
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
                else leaf
                if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or leaf.dtype == bool
                else jnp.asarray(rng.normal(size=leaf.shape))
                for leaf in leaves
            ]

        u, v = point(), point()
        between = update([2 * a - b if is_number(a) else a for a, b in zip(u, v, strict=True)])
        pairs = [pair for pair in zip(between, update(u), update(v), strict=True) if is_number(pair[0])]
        return all(bool(jnp.allclose(a, 2 * b - c, rtol=0, atol=1e-10)) for a, b, c in pairs)

    assert affine(0) is affine(5) is entry.linear


@EACH
def test_declared_traffic_is_what_is_sent(entry):
    mix = MIXINGS[widest(entry)]
    params = {"w": jnp.zeros((NODES, 2, 3), jnp.float32), "b": jnp.zeros((NODES, 4), jnp.float32)}
    traffic = adozoo.channel.traffic(lambda mix: entry.build(0.1, mix), mix, params)
    links = adozoo.channel.mean_links(mix)
    one_node = {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32), "b": jax.ShapeDtypeStruct((4,), jnp.float32)}
    declared = entry.bits(one_node, NODES) if entry.bits else 32 * (10 * entry.vectors + entry.scalars)
    assert traffic.bits == pytest.approx(links * declared)
    assert traffic.bits_per_node == pytest.approx(traffic.bits / NODES)


class Disturbed(adozoo.Mixing):
    """Adds to what the k-th message of a step brings, and writes down what is sent."""

    is_mean = varying = remembers = fixed = True

    def __init__(self, base, added=()):
        self.base, self.added, self.sent = base, added, []
        self.n, self.stochastic, self.symmetric = base.n, base.stochastic, base.symmetric

    def __call__(self, tree, step=0, message=0):
        number = len(self.sent)
        self.sent.append(tree)
        heard = tree if self.base in EVENTS.values() else self.base(tree, step, message)
        if number < len(self.added):
            heard = jax.tree.map(lambda x: x + self.added[number], heard)
        return heard

    def exchange(self):
        return DisturbedExchange(self)


class DisturbedExchange(adozoo.Exchange):
    """The same over links."""

    def __init__(self, mix):
        super().__init__(**mix.base.exchange().arrays())
        object.__setattr__(self, "mix", mix)

    def swap(self, tree, step=0, message=0):
        number = len(self.mix.sent)
        self.mix.sent.append(tree)
        heard = super().swap(tree, step, message)
        if number < len(self.mix.added):
            heard = jax.tree.map(lambda x: x + self.mix.added[number], heard)
        return heard


@EACH_FACTORY
def test_declared_rounds_are_the_longest_chain_of_messages(entry):
    start, base = jnp.asarray(START), MIXINGS[widest(entry)]

    first = built(entry, 0.1, base)
    _, state = first.update(start, first.init(start), start)  # some methods have nothing to say in their first step

    def sent(added):
        mix = Disturbed(base, added)
        watched = base.heard_by(mix) if base in EVENTS.values() else mix
        built(entry, 0.1, watched).update(start, state, start)
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
