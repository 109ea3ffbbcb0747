"""What methods that relay or compress must keep: sums, means, counts, and the methods that they are in the limit."""

import functools

import jax
import networkx as nx
import numpy as np
import optax
import pytest
from compressor_cases import quick

import adozoo
from adozoo import compression as c
from adozoo.relay import NORMALIZATIONS, relay_average

MATRICES = [(3, 2, 2), (4, 6), (6, 2), (1, 5), (3, 3)]


def normal(seed, *rows, matrix=(5, 3, 2)):
    """Random leaves with leading axes `rows`: a matrix, perhaps as a tensor of more dimensions, and a vector."""
    rng = np.random.default_rng(seed)
    shapes = {"matrix": matrix, "vector": (5,)}
    return {name: rng.normal(size=(*rows, *shape)) for name, shape in shapes.items()}


def run(tx, x, given, metrics=lambda x: x):
    """The trace of a run whose gradients are given in advance, leaves [T, n, ...]."""
    steps = len(jax.tree.leaves(given)[0])

    def trace(x, given):
        def gradient(x, step, key):
            return jax.tree.map(lambda g: g[step], given)

        return adozoo.simulate(tx, gradient, x, steps, metrics=metrics)[2]

    return jax.tree.map(np.asarray, quick(trace)(x, given))


def replicated(x, n):
    """One node's params on n nodes."""
    return jax.tree.map(lambda leaf: np.repeat(leaf, n, 0), x)


def still(x, steps):
    """No gradients."""
    return jax.tree.map(lambda leaf: np.zeros((steps, *leaf.shape)), x)


def assert_close(found, expected, atol):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


def random_graph(seed):
    """Connected, of 3 to 7 nodes, and a random number of links."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 8))
    graph = nx.random_labeled_tree(n, seed=seed)
    graph.add_edges_from((i, j) for i in range(n) for j in range(i) if rng.random() < 0.3)
    return graph


def apart(path):
    """The largest deviation from the mean over nodes at each step, of leaves [T, n, ...]."""
    return np.max([np.ptp(leaf, axis=1).reshape(len(leaf), -1).max(1) for leaf in jax.tree.leaves(path)], axis=0)


# PowerSGD


@pytest.mark.parametrize("options", [{}, {"warm_start": False}, {"variant": "package"}], ids=str)
def test_many_workers_of_power_sgd_are_one_with_the_average_gradient(options):
    inner = optax.chain(optax.add_decayed_weights(0.01), adozoo.post_momentum(0.9), adozoo.descent(0.05))
    options = {"minimum_compression": 0.5, **options}
    tx = adozoo.power_sgd(inner, rank=2, **options)
    given, x = normal(0, 30, 5), normal(1, 1)
    # Singular values apart from each other: between equal ones power iteration amplifies rounding.
    spectrum = 2 * np.eye(5, 6) * 0.5 ** np.arange(6)
    given["matrix"] = 0.2 * given["matrix"] + spectrum.reshape(5, 3, 2)
    many = run(tx, replicated(x, 5), given)
    one = run(tx, x, jax.tree.map(lambda g: g.mean(1, keepdims=True), given))
    assert_close(many, jax.tree.map(lambda leaf: np.repeat(leaf, 5, 1), one), 1e-12)
    assert all(np.abs(one[name][-1] - x[name]).max() > 0.1 for name in x)


@pytest.mark.parametrize("options", [{}, {"warm_start": False}, {"variant": "package"}], ids=str)
def test_power_sgd_outlives_a_zero_gradient(options):
    """Three steps of zeros, then a constant gradient, which arrives in full: matrices of rank one."""
    tx = adozoo.power_sgd(adozoo.descent(1.0), rank=1, minimum_compression=0.0, **options)
    gradient = np.outer(np.arange(1.0, 5.0), np.arange(-2.0, 4.0))
    given = np.concatenate([np.zeros((3, 2, 4, 6)), np.broadcast_to(gradient, (40, 2, 4, 6))])
    path = run(tx, np.zeros((2, 4, 6)), given)
    assert not path[:3].any()
    np.testing.assert_allclose(path[-1] - path[-21], [-20 * gradient] * 2, rtol=0, atol=1e-8)


# Means


MEANS = {
    "power_gossip": lambda graph: adozoo.power_gossip(adozoo.descent(0.1), graph, rank=2),
    "power_gossip, three rounds": lambda graph: adozoo.power_gossip(
        adozoo.descent(0.1), graph, iterations=3, diffusion_rate=1.3, overlap=False
    ),
    "power_gossip, fresh": lambda graph: adozoo.power_gossip(adozoo.descent(0.1), graph, rank=3, warm_start=False),
    "power_gossip, signs": lambda graph: adozoo.power_gossip(adozoo.descent(0.1), graph, orthogonalization="sign"),
    "choco, top": lambda graph: adozoo.choco_sgd(0.1, adozoo.mixing(graph), c.top_k(0.3), 0.2),
    "choco, low rank": lambda graph: adozoo.choco_sgd(0.1, adozoo.mixing(graph), c.low_rank(1), 0.2, overlap=True),
    "choco, random": lambda graph: adozoo.choco_sgd(0.1, adozoo.mixing(graph), c.random_k(0.3, shared=False), 0.2),
    "deep_squeeze, sign": lambda graph: adozoo.deep_squeeze(0.1, adozoo.mixing(graph), c.scaled_sign(), 0.1),
    "deep_squeeze, rounding": lambda graph: adozoo.deep_squeeze(
        0.1, adozoo.mixing(graph), c.qsgd(4), 0.1, overlap=True
    ),
    "deep_squeeze, block": lambda graph: adozoo.deep_squeeze(0.1, adozoo.mixing(graph), c.random_block(0.5), 0.1),
}


@pytest.mark.parametrize("name", MEANS)
def test_the_mean_moves_by_the_mean_update_alone(name):
    seed = list(MEANS).index(name)
    graph = random_graph(seed)
    matrix = MATRICES[seed % len(MATRICES)]
    x, given = normal(seed, len(graph), matrix=matrix), normal(100 + seed, 12, len(graph), matrix=matrix)
    path = run(MEANS[name](graph), x, given)
    means = jax.tree.map(lambda start, g: start.mean(0) - 0.1 * np.cumsum(g.mean(1), 0), x, given)
    assert_close(jax.tree.map(lambda leaf: leaf.mean(1), path), means, 1e-12)
    assert apart(path)[-1] > 1e-3


# Relays


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_counts_reach_all_nodes_after_the_diameter(seed, overlap):
    n = 3 + 2 * seed
    tree = nx.random_labeled_tree(n, seed=seed)
    distances = nx.floyd_warshall_numpy(tree, nodelist=range(n))
    diameter = int(distances.max())
    links = adozoo.exchange(tree)
    tx = relay_average(tree, "counts", overlap)

    def present(x, state):
        return 1 + links.collect(state.trees[0].counts.value)

    counts = run(tx, np.zeros((n, 2)), np.zeros((diameter + 2, n, 2)), present)
    if overlap:  # one step later: the sums are of what the step before has received
        counts = np.concatenate([np.ones_like(counts[:1]), counts[:-1]])
    reach = np.arange(diameter + 2)[:, None, None] + (not overlap)
    within = np.sum(distances <= reach, axis=2)
    np.testing.assert_array_equal(counts, within)
    full = diameter - (not overlap)
    assert (counts[full:] == n).all()
    assert not (counts[full - 1] == n).all()


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_relay_of_two_is_an_all_reduce(normalization):
    x, given = np.ones((2, 3)), normal(0, 20, 2, matrix=(3,))["matrix"]
    relayed = run(adozoo.relay_sgd(adozoo.descent(0.3), adozoo.graphs.path(2), normalization), x, given)
    reduced = run(adozoo.all_reduce_sgd(0.3, adozoo.exact_mean(2)), x, given)
    np.testing.assert_allclose(relayed, reduced, rtol=0, atol=1e-15)


def test_normalizations_share_one_map_once_counts_are_full():
    """x_i = (1/n) sum_j z_j, each as late as its way is long, from the first full count on; but from other states."""
    tree = nx.random_labeled_tree(7, seed=3)
    delays = np.maximum(nx.floyd_warshall_numpy(tree, nodelist=range(7)).astype(int) - 1, 0)
    full, steps = delays.max(), 15
    given, x = np.random.default_rng(0).normal(size=(steps, 7, 3)), np.ones((7, 3))
    paths = {}
    for normalization in NORMALIZATIONS:
        path = run(adozoo.relay_sgd(adozoo.descent(0.3), tree, normalization), x, given)
        z = np.concatenate([x[None], path[:-1]]) - 0.3 * given
        late = np.array([z[t - delays, np.arange(7)].mean(1) for t in range(full, steps)])
        np.testing.assert_allclose(path[full:], late, rtol=0, atol=1e-13)
        paths[normalization] = path
    for normalization in NORMALIZATIONS[1:]:
        assert np.abs(paths[normalization] - paths["initial"])[-1].max() > 1e-3


def test_two_trees_relay_every_other_coordinate_of_the_flattened_model():
    """Every second number of all, not of each leaf: the first one has 15."""
    pair = adozoo.graphs.double_binary_trees(6)
    given, x = normal(0, 12, 6, matrix=(5, 3)), replicated(normal(1, 1, matrix=(5, 3)), 6)

    def flat(tree, rows):
        return np.concatenate([leaf.reshape(*leaf.shape[:rows], -1) for leaf in jax.tree.leaves(tree)], -1)

    together = flat(run(adozoo.relay_sgd(adozoo.descent(0.1), pair, "counts"), x, given), 2)
    for k, tree in enumerate(pair):
        alone = run(
            adozoo.relay_sgd(adozoo.descent(0.1), tree, "counts"), flat(x, 1)[:, k::2], flat(given, 2)[..., k::2]
        )
        np.testing.assert_allclose(together[..., k::2], alone, rtol=0, atol=1e-14)


# PowerGossip from nothing, and over lossy links


@pytest.mark.parametrize("options", [{}, {"iterations": 2, "rank": 3}, {"orthogonalization": "sign"}], ids=str)
def test_power_gossip_outlives_equal_params(options):
    """Three steps without any difference, one that makes all differ, and none again."""
    x, kick = replicated(normal(0, 1), 5), still(normal(0, 5), 200)
    for name, leaf in normal(1, 5).items():
        kick[name][3] = leaf
    path = run(adozoo.power_gossip(adozoo.descent(1.0), adozoo.graphs.ring(5), **options), x, kick)
    assert_close(jax.tree.map(lambda leaf: leaf[:3] - leaf[:1], path), still(x, 3), 1e-15)
    distance = apart(path)
    assert distance[3] > 1
    assert distance[-1] < 0.02 * distance[3]


def lossy(graph, kept, **options):
    links = adozoo.channel.recorded_drops(adozoo.exchange(graph), kept)
    return adozoo.power_gossip(adozoo.descent(1.0), links, **options)


def test_an_edge_stands_still_until_both_ends_hold_the_same_new_directions():
    """At step 2 node 0 hears nothing: node 1 alone moves; at step 3 neither does; then both, and the mean is kept."""
    kept = np.ones((60, 2, 2), bool)
    kept[2, 0, 1] = False
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    path = run(lossy(adozoo.graphs.path(2), kept), x, still(x, 60))
    moves = np.abs(np.diff(path, axis=0)).max((2, 3)) > 1e-9  # row t: of step t + 1
    np.testing.assert_array_equal(moves[:5], [[True, True], [False, True], [False, False], [True, True], [True, True]])
    means = path.mean(1)
    np.testing.assert_allclose(means[:2], np.stack([x.mean(0)] * 2), rtol=0, atol=1e-14)
    drift = (path[2, 1] - path[1, 1]) / 2
    np.testing.assert_allclose(means[2:], np.stack([means[1] + drift] * 58), rtol=0, atol=1e-14)
    assert apart(path)[-1] < 1e-6


@pytest.mark.parametrize("warm_start", [True, False])
def test_power_gossip_converges_over_lossy_links(warm_start):
    """One in ten messages is lost for 600 steps; the mean moves at steps with one-sided losses and at no others."""
    graph, steps = adozoo.graphs.ring(5), 600
    kept = np.random.default_rng(0).random((steps, 5, 5)) > 0.1
    x = np.random.default_rng(1).normal(size=(5, 3, 3))
    path = run(lossy(graph, kept, rank=2, warm_start=warm_start), x, still(x, steps))
    one_sided = np.array([any(keep[i, j] != keep[j, i] for i, j in graph.edges) for keep in kept])
    before = np.concatenate([x[None], path[:-1]])
    moves = np.abs(path.mean(1) - before.mean(1)).max((1, 2))
    assert moves[~one_sided].max() < 1e-14
    assert moves[one_sided].max() > 1e-3
    assert apart(path)[-1] < 1e-6


# Limits


@pytest.mark.parametrize("overlap", [True, False])
def test_full_rank_power_gossip_is_gossip(overlap):
    """Square matrices: all directions are sent, whichever side they multiply."""
    graph = random_graph(1)
    x, given = normal(0, len(graph), matrix=(4, 2, 2)), normal(1, 10, len(graph), matrix=(4, 2, 2))
    talk = (adozoo.combine_then_adapt if overlap else adozoo.adapt_then_combine)(adozoo.mixing(graph))
    plain = run(optax.chain(adozoo.descent(0.1), talk), x, given)
    full = run(adozoo.power_gossip(adozoo.descent(0.1), graph, rank=4, overlap=overlap), x, given)
    assert_close(full, plain, 1e-10)


def test_full_rank_power_gossip_of_two_nodes_is_gossip_from_the_second_round_on():
    """[2, 5]: two directions of five do not catch all from the right at first, but from the left, and ever after."""
    graph, x = adozoo.graphs.path(2), normal(0, 2, matrix=(2, 5))["matrix"]
    path = run(adozoo.power_gossip(adozoo.descent(0.1), graph, rank=2, diffusion_rate=0.5), x, still(x, 6))
    distance = path[:, 1] - path[:, 0]
    assert np.abs(distance[0] - 0.5 * (x[1] - x[0])).max() > 0.1
    for step in range(1, 6):
        np.testing.assert_allclose(distance[step], 0.5 * distance[step - 1], rtol=0, atol=1e-10)


def relaxed(graph, share):
    """(1 - share) I + share W."""
    W = np.asarray(adozoo.mixing(graph)(np.eye(len(graph))))
    return adozoo.mixing((1 - share) * np.eye(len(W)) + share * W)


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize("method", [adozoo.choco_sgd, adozoo.deep_squeeze])
def test_without_compression_it_is_gossip_with_relaxed_weights(method, share):
    graph = random_graph(2)
    x, given = normal(0, len(graph)), normal(1, 15, len(graph))
    exact = run(method(0.1, adozoo.mixing(graph), c.identity(), share, momentum=0.5), x, given)
    assert_close(exact, run(adozoo.dsgd(0.1, relaxed(graph, share), momentum=0.5), x, given), 1e-12)


@functools.cache
def moniqua_error(bits):
    """The largest deviation from D-SGD after each step, for params within theta = 8 of each other."""
    graph = adozoo.graphs.ring(5)
    x, given = normal(0, 5), normal(1, 20, 5)
    plain = run(adozoo.dsgd(0.1, adozoo.mixing(graph)), x, given)
    assert apart(plain).max() < 8
    rounded = run(adozoo.moniqua(0.1, graph, theta=8.0, bits=bits), x, given)
    errors = [np.abs(one - plain[name]).reshape(20, -1).max(1) for name, one in rounded.items()]
    return np.max(errors, axis=0)


@pytest.mark.parametrize("bits", [8, 12, 20])
def test_moniqua_is_gossip_up_to_its_levels(bits):
    """Each step adds the levels' spacing at most, half of it at each end of a link; and W does not amplify."""
    level = 1 / (2**bits - 1)
    spacing = level * 2 * 8.0 / (1 - 2 * level)
    off_diagonal = 2 / 3
    assert (moniqua_error(bits) <= off_diagonal * spacing * np.arange(1, 21) * (1 + 1e-9)).all()
    assert moniqua_error(bits)[0] > 0.1 * spacing
