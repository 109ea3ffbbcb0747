"""What befalls messages: how often, how independently, what survives it, and how they are counted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adozoo

channel, graphs = adozoo.channel, adozoo.graphs
KEY = jax.random.key(1)
STAR = adozoo.mixing(graphs.star(5))
TORUS = adozoo.mixing(graphs.torus(3, 4))
DIGRAPH = adozoo.mixing(
    np.array([[0.5, 0, 0.3, 0], [0.2, 0.4, 0, 0.5], [0.3, 0.6, 0.3, 0], [0, 0, 0.4, 0.5]]), stochastic="column"
)


def drawn(mix, count, message=0):
    """The matrices of `count` steps, [count, n, n]."""
    return np.asarray(jax.jit(jax.vmap(lambda t: mix(jnp.eye(mix.n), t, message)))(jnp.arange(count)))


def off_diagonal(W):
    return ~np.eye(len(W), dtype=bool) & (W != 0)


def correlation_bound(count):
    return 5 / np.sqrt(count)


def test_drops_are_frequent_and_independent():
    """Over links, directions of a link, steps, and the messages of a step."""
    probability, count = 0.3, 4000
    W = np.asarray(STAR.matrix)
    links = off_diagonal(W)
    lossy = channel.drops(STAR, probability, KEY, "keep")
    arrived = np.concatenate([drawn(lossy, count, message)[:, links] > 0 for message in (0, 1)], axis=1)
    # Next to them, the same links one step later.
    coins = np.concatenate([arrived[:-1], arrived[1:]], axis=1).astype(float)
    spread = np.sqrt(probability * (1 - probability))
    np.testing.assert_allclose(coins.mean(0), 1 - probability, atol=5 * spread / np.sqrt(count))
    correlations = np.corrcoef(coins.T) - np.eye(coins.shape[1])
    assert np.abs(correlations).max() < correlation_bound(count)


def test_link_failures_hit_both_directions():
    probability, count = 0.4, 3000
    W = np.asarray(TORUS.matrix)
    failing = channel.link_failures(TORUS, probability, KEY)
    matrices = drawn(failing, count)
    np.testing.assert_allclose(matrices, matrices.transpose(0, 2, 1), rtol=0, atol=1e-15)
    np.testing.assert_allclose(matrices.sum(1), 1, rtol=0, atol=1e-14)
    works = matrices[:, np.triu(off_diagonal(W))] > 0
    np.testing.assert_allclose(works.mean(0), 1 - probability, atol=5 * np.sqrt(0.24 / count))
    correlations = np.corrcoef(works.T) - np.eye(works.shape[1])
    assert np.abs(correlations).max() < correlation_bound(count)
    other_message = drawn(failing, 40, 1)
    assert (matrices[:40] != other_message).any()


@pytest.mark.parametrize("mix", [STAR, TORUS, DIGRAPH], ids=["star", "torus", "digraph"])
@pytest.mark.parametrize("lost", ["renormalize", "keep", "return"])
def test_what_a_lost_message_does(mix, lost):
    """Masks given, weights by hand; step t uses mask t modulo their number."""
    W, n = np.asarray(mix.matrix), mix.n
    kept = np.random.default_rng(0).random((3, n, n)) < 0.6
    matrices = drawn(channel.recorded_drops(mix, kept, lost), 5)
    for t in range(5):
        arrived = kept[t % 3] | np.eye(n, dtype=bool)
        expected, missing = W * arrived, W * ~arrived
        if lost == "renormalize":
            expected /= expected.sum(1, keepdims=True)
        elif lost == "keep":
            expected += np.diag(missing.sum(1))
        else:
            expected += np.diag(missing.sum(0))
        np.testing.assert_allclose(matrices[t], expected, rtol=0, atol=1e-14)
        kept_sums = {"renormalize": (1, np.ones(n)), "keep": (1, W.sum(1)), "return": (0, W.sum(0))}
        axis, sums = kept_sums[lost]
        np.testing.assert_allclose(matrices[t].sum(axis), sums, rtol=0, atol=1e-14)


def test_what_is_lost_by_default():
    kept = np.zeros((1, 4, 4), bool)
    assert channel.recorded_drops(DIGRAPH, kept).lost == "return"
    assert channel.drops(STAR, 0.1, KEY).lost == "renormalize"


def test_a_node_that_hears_nothing_and_trusts_itself_not_at_all():
    swap = adozoo.mixing(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert channel.mean_links(swap) == 2
    alone = channel.recorded_drops(swap, np.zeros((1, 2, 2), bool))
    np.testing.assert_array_equal(alone(jnp.array([1.0, 5.0])), [1, 5])


def test_nothing_lost_is_the_mixing_itself():
    for mix in (STAR, TORUS, DIGRAPH, adozoo.one_peer_exponential(4)):
        plain = drawn(mix, 3)
        for lost in ("renormalize", "keep", "return"):
            if lost == "renormalize" and mix is DIGRAPH:
                continue  # its rows do not sum to one to begin with
            np.testing.assert_allclose(drawn(channel.drops(mix, 0.0, KEY, lost), 3), plain, rtol=0, atol=1e-15)


def test_node_failures():
    up = np.random.default_rng(0).random((4, 12)) < 0.7
    matrices = drawn(channel.node_failures(TORUS, up), 6)
    W = np.asarray(TORUS.matrix)
    for t in range(6):
        both = up[t % 4][:, None] & up[t % 4]
        others = W * both * ~np.eye(12, dtype=bool)
        np.testing.assert_allclose(matrices[t], others + np.diag(1 - others.sum(1)), rtol=0, atol=1e-14)
        for i in np.flatnonzero(~up[t % 4]):
            np.testing.assert_allclose(matrices[t, i], np.eye(12)[i], rtol=0, atol=1e-15)


def test_drops_under_vmap_and_by_key():
    lossy = functools.partial(channel.drops, STAR, key=KEY)
    lanes = jax.jit(jax.vmap(lambda p: lossy(p)(jnp.eye(5), 3)))(jnp.array([0.0, 0.5, 0.9]))
    for probability, lane in zip((0.0, 0.5, 0.9), lanes, strict=True):
        np.testing.assert_allclose(lane, lossy(probability)(jnp.eye(5), 3), rtol=0, atol=1e-15)
    other = channel.drops(STAR, 0.5, jax.random.key(2))
    assert (drawn(lossy(0.5), 10) != drawn(other, 10)).any()


def test_noise():
    """Variance sigma^2 sum_{j != i} W_ij^2 for node i; independent over nodes, coordinates, leaves, steps, messages."""
    scale, count = 0.7, 4000
    W = np.asarray(STAR.matrix)
    noisy = channel.noisy(STAR, scale, KEY)
    x = {
        "a": jnp.asarray(np.random.default_rng(0).normal(size=(5, 2))),
        "b": jnp.asarray(np.random.default_rng(0).normal(size=5)),
    }
    draw = jax.jit(jax.vmap(lambda t, message: noisy(x, t, message), in_axes=(0, None)), static_argnums=1)

    def errors(message):
        heard = draw(jnp.arange(count), message)
        return np.hstack([(np.asarray(heard[k]) - np.asarray(STAR(x)[k])).reshape(count, -1) for k in x])

    samples = np.hstack([errors(0), errors(1)])
    deviation = scale * np.sqrt((W**2).sum(1) - np.diag(W) ** 2)
    expected = np.tile(np.concatenate([np.repeat(deviation, 2), deviation]), 2)
    np.testing.assert_allclose(samples.std(0), expected, rtol=5 / np.sqrt(2 * count))
    np.testing.assert_allclose(samples.mean(0) / expected, 0, atol=5 / np.sqrt(count))
    together = np.hstack([samples[:-1], samples[1:]])
    correlations = np.corrcoef(together.T) - np.eye(together.shape[1])
    assert np.abs(correlations).max() < correlation_bound(count)


# Delays, against a twin that keeps everything ever sent.


def late(W, sent, delays, t, first):
    """sum_j W_ij m_j^{t - delay_ij}, where `first` stands for all messages from before the start."""
    n = len(W)
    heard = np.zeros_like(first)
    for i in range(n):
        for j in range(n):
            when = t - (delays[i, j] if i != j else 0)
            heard[i] += W[i, j] * (sent[when][j] if when >= 0 else first[j])
    return heard


def delayed_dsgd(W, start, A, b, rate, delays, steps):
    x, sent = start, []
    for t in range(steps):
        sent.append(x - rate * np.einsum("nij,nj->ni", A, x - b))
        x = late(W, sent, delays, t, start)
    return x


def delayed_diging(W, start, A, b, rate, delays, steps):
    x, sent_x, sent_s = start, [], []
    g = np.einsum("nij,nj->ni", A, x - b)
    s = g
    for t in range(steps):
        sent_x.append(x)
        sent_s.append(s)
        x = late(W, sent_x, delays, t, start) - rate * s
        new = np.einsum("nij,nj->ni", A, x - b)
        s = late(W, sent_s, delays, t, np.zeros_like(start)) + new - g
        g = new
    return x


@pytest.mark.parametrize("delays", [0, 1, 3, "by link"])
@pytest.mark.parametrize(
    ("twin", "factory"), [(delayed_dsgd, adozoo.dsgd), (delayed_diging, adozoo.gradient_tracking)], ids=["1", "2"]
)
def test_delays(twin, factory, delays):
    """Methods with one and with two messages a step, each with a memory of its own."""
    problem = adozoo.problems.random_quadratic(5, 3, seed=1)
    start = np.random.default_rng(0).normal(size=(5, 3))
    taus = np.random.default_rng(0).integers(0, 4, (5, 5)) if delays == "by link" else delays
    tx = channel.delayed(lambda mix: factory(0.1, mix), STAR, taus)
    x, state, _ = adozoo.simulate(tx, problem.gradient, jnp.asarray(start), 9)
    A, b = np.asarray(problem.matrices), np.asarray(problem.centers)
    expected = twin(np.asarray(STAR.matrix), start, A, b, 0.1, np.broadcast_to(taus, (5, 5)), 9)
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-12)
    assert adozoo.eval_params(state, x) is x


def test_delays_over_schedules_and_lost_messages():
    """The weights are those of the step of arrival."""
    lossy = channel.drops(adozoo.cycle([STAR, adozoo.exact_mean(5)]), 0.3, KEY)
    matrices = drawn(lossy, 4)
    tx = channel.delayed(lambda mix: adozoo.dsgd(0.1, mix), lossy, 1)
    start = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    x, _, _ = adozoo.simulate(tx, lambda x, step, key: jnp.zeros_like(x), start, 4)
    expected, before = np.asarray(start), np.asarray(start)
    for W in matrices:
        own = np.diag(np.diag(W))
        expected, before = own @ expected + (W - own) @ before, expected
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-13)


# Counting.

VECTOR = jnp.zeros((8, 10), jnp.float32)


@pytest.mark.parametrize(
    ("mix", "messages"),
    [
        (adozoo.mixing(graphs.ring(8)), 16),
        (adozoo.mixing(graphs.star(8)), 14),
        (adozoo.mixing(graphs.exponential(8)), 24),
        (adozoo.one_peer_exponential(8), 8),
        (adozoo.exact_mean(8), 14),
        (adozoo.identity(8), 0),
        (adozoo.gossip_every(adozoo.mixing(graphs.ring(8)), 4), 4),
        (adozoo.cycle([adozoo.mixing(graphs.ring(8)), adozoo.exact_mean(8)]), (16 + 56) / 2),
        (adozoo.random_edge(graphs.ring(8), KEY), 2),
        (channel.drops(adozoo.mixing(graphs.ring(8)), 0.5, KEY), 16),
    ],
)
def test_messages_a_step(mix, messages):
    traffic = channel.traffic(lambda mix: adozoo.dsgd(0.1, mix), mix, VECTOR)
    assert traffic == pytest.approx((messages, messages / 8, messages * 320, messages * 40))


def test_bits_follow_from_dtypes_and_vectors():
    params = {"a": jnp.zeros((8, 3, 2), jnp.bfloat16), "b": jnp.zeros(8, jnp.float32)}
    ring = adozoo.mixing(graphs.ring(8))
    one = channel.traffic(lambda mix: adozoo.dsgd(0.1, mix), ring, params)
    assert one.bits == 16 * (6 * 16 + 32)
    two = channel.traffic(lambda mix: adozoo.gradient_tracking(0.1, mix), ring, params)
    assert two.bits == 2 * one.bits
    assert two.messages == 2 * one.messages
    assert two.vectors_per_node == 4
    push = channel.traffic(lambda mix: adozoo.stochastic_gradient_push(0.1, mix), ring, params)
    assert push.bits == 16 * (6 * 16 + 32 + 32)
    local = channel.traffic(lambda mix: adozoo.local_dsgd(0.1, mix, period=4), ring, params)
    assert (local.messages, local.bits) == (one.messages / 4, one.bits / 4)


def test_matched_pairs_send_both_ways():
    mix = adozoo.random_matching(graphs.ring(8), KEY)
    pairs = np.mean((drawn(mix, 1000) > 0).sum((1, 2)) - 8)
    assert channel.mean_links(mix) == pytest.approx(pairs)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: channel.drops(STAR, 1.0, KEY), r"drops: probability must lie in \[0, 1\), got 1.0"),
        (lambda: channel.drops(STAR, -0.1, KEY), "drops: probability"),
        (lambda: channel.drops(STAR, 0.1, 3), r"drops: key must be a typed JAX key, got 3.*jax.random.key\(seed\)"),
        (lambda: channel.drops(STAR, 0.1, KEY, "forget"), "lost must be one of.*'keep'.*'forget'"),
        (lambda: channel.recorded_drops(STAR, np.ones((5, 5), bool)), r"kept must be \[T, 5, 5\], got shape \(5, 5\)"),
        (lambda: channel.link_failures(DIGRAPH, 0.1, KEY), "link_failures: mix must be symmetric.*channel.drops"),
        (lambda: channel.node_failures(STAR, np.ones((2, 4), bool)), r"up must be \[T, 5\], got shape \(2, 4\)"),
        (lambda: channel.node_failures(DIGRAPH, np.ones((2, 4), bool)), "node_failures: mix must be symmetric"),
        (lambda: channel.noisy(STAR, -1.0, KEY), "noisy: scale"),
        (lambda: channel.delayed(lambda mix: adozoo.dsgd(0.1, mix), STAR, -1), "delays must be integers >= 0"),
        (lambda: channel.delayed(lambda mix: adozoo.dsgd(0.1, mix), STAR, 0.5), "delays must be integers >= 0.*float"),
        (lambda: channel.delayed(lambda mix: adozoo.dsgd(0.1, mix), STAR, np.ones((4, 4), int)), r"one or \[5, 5\]"),
    ],
)
def test_misuse(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_an_average_with_faults_is_no_exact_average():
    """All-reduce SGD would be wrong without saying so."""
    with pytest.raises(ValueError, match="mean must be an exact average, got a Lossy"):
        adozoo.all_reduce_sgd(0.1, channel.drops(adozoo.exact_mean(4), 0.1, KEY))


def test_late_messages_of_16_bits_are_summed_in_32():
    mix = adozoo.mixing(adozoo.graphs.ring(5))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.bfloat16)
    tx = channel.delayed(lambda mix: adozoo.adapt_then_combine(mix), mix, 0)
    updates, _ = tx.update(jnp.zeros_like(x), tx.init(x), x)
    assert updates.dtype == jnp.bfloat16
    np.testing.assert_array_equal(updates, mix(x) - x)
