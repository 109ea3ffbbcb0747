"""Messages on links: what arrives where, what gets lost, what is late, and what it costs."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import adozoo
from adozoo import channel, placement
from adozoo._message import Sized

GRAPHS = {
    "ring": adozoo.graphs.ring(6),
    "star": adozoo.graphs.star(40),  # its rows by node would mostly be padding
    "tree": adozoo.graphs.heap_binary_tree(9),
    "social": adozoo.graphs.social_network(),
    "alone": nx.empty_graph(1),
}


def random_graph(seed, n):
    draw = nx.gnp_random_graph(n, 0.3, seed=seed)
    draw.add_edges_from(nx.path_graph(n).edges)
    return nx.relabel_nodes(draw, dict(enumerate(np.random.default_rng(seed).permutation(n).tolist())))


def assert_moves_messages(graph):
    n = graph.number_of_nodes()
    links = adozoo.exchange(graph)
    rng = np.random.default_rng(0)
    x = {"w": jnp.asarray(rng.normal(size=(n, 2, 2))), "b": jnp.asarray(rng.normal(size=n))}
    assert links.rows == 2 * graph.number_of_edges() == links.links()
    sides = list(zip(links.own.tolist(), links.other.tolist(), strict=True))
    assert sides == sorted((i, j) for edge in graph.edges for i, j in (edge, edge[::-1]))
    own = links.per_link(x)
    heard = links.swap(own)
    for row, (i, j) in enumerate(sides):
        for leaf, mine, theirs in zip(*map(jax.tree.leaves, (x, own, heard)), strict=True):
            np.testing.assert_array_equal(mine[row], leaf[i])
            np.testing.assert_array_equal(theirs[row], leaf[j])
    total = links.collect(heard)
    by_node = links.to_slots(heard)
    for i in range(n):
        for leaf, sums, slots in zip(*map(jax.tree.leaves, (x, total, by_node)), strict=True):
            expected = sum((leaf[j] for j in graph.neighbors(i)), start=jnp.zeros(leaf.shape[1:]))
            np.testing.assert_allclose(sums[i], expected, atol=1e-13)
            np.testing.assert_allclose(slots[i].sum(0), expected, atol=1e-13)
    back = links.from_slots(by_node)
    assert all(bool((a == b).all()) for a, b in zip(*map(jax.tree.leaves, (back, heard)), strict=True))


@pytest.mark.parametrize("name", GRAPHS)
def test_messages_arrive_where_they_should(name):
    assert_moves_messages(GRAPHS[name])


@given(seed=st.integers(0, 10**6), n=st.integers(2, 12))
def test_messages_arrive_on_any_graph(seed, n):
    assert_moves_messages(random_graph(seed, n))


@given(seed=st.integers(0, 10**6), n=st.integers(2, 20))
def test_trees_know_what_lies_behind_each_link(seed, n):
    tree = nx.random_labeled_tree(n, seed=seed)
    links = adozoo.exchange(tree)
    assert links.is_tree
    for own, other, size in zip(links.own, links.other, links.far_sizes(), strict=True):
        cut = tree.copy()
        cut.remove_edge(int(own), int(other))
        assert size == len(nx.node_connected_component(cut, int(other)))
    assert not adozoo.exchange(adozoo.graphs.ring(n + 3)).is_tree


def test_weights_are_those_of_the_mixing():
    W = np.array([[0.5, 0.3, 0.2], [0.3, 0.7, 0.0], [0.2, 0.0, 0.8]])
    links = adozoo.exchange(W)
    np.testing.assert_allclose(links.weights, [0.3, 0.2, 0.3, 0.2])
    assert adozoo.exchange(links) is links


@pytest.mark.parametrize("fault", ["drops", "recorded", "links", "nodes", "both"])
def test_the_same_messages_get_lost_as_in_gossip(fault):
    """A mixing that keeps its own value for lost ones shows which ones arrived."""
    n, key = 6, jax.random.key(3)
    kept = np.random.default_rng(1).random((4, n, n)) < 0.6

    def faulty(mix):
        lost = {} if isinstance(mix, adozoo.Exchange) else {"lost": "keep"}
        return {
            "drops": lambda: channel.drops(mix, 0.4, key, **lost),
            "recorded": lambda: channel.recorded_drops(mix, kept, **lost),
            "links": lambda: channel.link_failures(mix, 0.4, key),
            "nodes": lambda: channel.node_failures(mix, kept[0]),
            "both": lambda: channel.drops(channel.recorded_drops(mix, kept, **lost), 0.3, key, **lost),
        }[fault]()

    mix = adozoo.mixing(random_graph(5, n))
    for links in (faulty(adozoo.exchange(mix)), adozoo.exchange(faulty(mix))):
        assert links.faulty
        for step in range(3):
            for message in range(2):
                W = np.asarray(faulty(mix).at(step, message).matrix)
                arrived = np.asarray(links.arrived(step, message))
                np.testing.assert_array_equal(arrived, W[links.own, links.other] > 1e-12)
                heard = links.swap(links.per_link(jnp.arange(1.0, n + 1)), step, message)
                np.testing.assert_array_equal(heard, np.where(arrived, links.other + 1.0, 0))
        assert 0 < arrived.mean() < 1


def test_late_messages_are_those_of_before():
    """Under `delayed` every link hands over what was put on it as many steps ago as it is late."""
    links = adozoo.exchange(adozoo.graphs.path(3))
    delays = np.array([[0, 2, 0], [1, 0, 0], [0, 3, 0]])  # [receiver, sender]
    seen = []
    tx = channel.delayed(adozoo.relay_updates, links, delays)
    u = [jnp.full((3, 1), 10.0**t) for t in range(5)]
    state = tx.init(0 * u[0])
    for step in u:
        out, state = tx.update(step, state, step)
        seen.append(np.asarray(out).ravel() * 3)
    # Node 1 hears node 0 one step late, node 2 at once; node 0 hears node 1 two steps late, and node 2 through it.
    assert seen[4][1] == u[4][0, 0] + u[3][0, 0] + u[4][0, 0]
    assert seen[4][0] == u[4][0, 0] + u[2][0, 0] + u[1][0, 0]


def test_bits_are_counted_on_links():
    links, x = adozoo.exchange(adozoo.graphs.star(5)), jnp.zeros((5, 3), jnp.float32)
    sent = channel.traffic(lambda links: adozoo.relay_sgd(adozoo.descent(0.1), links), links, x)
    assert sent == channel.Traffic(messages=8, vectors_per_node=1.6, bits=8 * 96, bits_per_node=8 * 96 / 5)
    lossy = channel.drops(links, 0.1, jax.random.key(0))
    counted = channel.traffic(lambda links: adozoo.relay_sgd(adozoo.descent(0.1), links), lossy, x)
    assert counted.bits == sent.bits + 8 * 32  # counts travel along
    message = Sized(links.per_link(x), 7.0)
    assert (
        channel.traffic(
            lambda mix: adozoo.compressed_sgd(adozoo.descent(0.1), adozoo.compression.sign(), mix),
            adozoo.exact_mean(4),
            jnp.zeros((4, 40), jnp.float32),
        ).bits
        == 4 * 3 * 64
    )
    assert links.swap(message).bits == 7.0


def test_an_exchange_needs_fixed_undirected_links():
    directed = adozoo.mixing(adozoo.graphs.directed_ring(4))
    varying = adozoo.one_peer_exponential(4)
    links = adozoo.exchange(adozoo.graphs.ring(4))
    mesh = placement.node_mesh(jax.devices()[:1])
    cases = [
        (lambda: adozoo.exchange(directed), "directed"),
        (lambda: adozoo.exchange(varying), "fixed graph, got a Cycle"),
        (lambda: adozoo.exchange(nx.empty_graph(3)), "not connected"),
        (lambda: jax.jit(lambda W: adozoo.exchange(W).rows)(jnp.eye(3)), "traced"),
        (lambda: links.per_link(jnp.zeros(5)), r"leading node axis of length 4, got a leaf of shape \(5,\)"),
        (lambda: links.swap(jnp.zeros(4)), r"8 rows .* got a leaf of shape \(4,\)"),
        (lambda: channel.drops(links, 0.1, jax.random.key(0), "keep"), "Leave `lost` out"),
        (lambda: channel.drops(placement.place(links, mesh), 0.1, jax.random.key(0)), "placed on devices already"),
        (lambda: placement.place(placement.place(links, mesh), mesh), "placed already"),
        (lambda: adozoo.relay_sgd(adozoo.descent(0.1), links), r"tree must be a tree .* 4 nodes with 4 edges"),
        (
            lambda: adozoo.relay_sgd(adozoo.descent(0.1), [adozoo.graphs.path(3), adozoo.graphs.path(4)]),
            "the same nodes, got 3 and 4",
        ),
        (lambda: adozoo.relay_mix(adozoo.descent(0.1), adozoo.graphs.path(3), 1.5), r"share must lie in"),
        (
            lambda: adozoo.choco_sgd(
                0.1, adozoo.cycle([adozoo.mixing(np.eye(2) * 0.5 + 0.25)] * 2), adozoo.compression.sign(), 0.1
            ),
            "must be fixed",
        ),
    ]
    for act, message in cases:
        with pytest.raises(ValueError, match=message):
            act()
