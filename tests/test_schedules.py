"""Time-varying mixings: which matrix acts when, and how random ones are drawn."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import adozoo

graphs = adozoo.graphs
KEY = jax.random.key(0)


def drawn(mix, count):
    """The matrices of the first `count` steps, [count, n, n]."""
    return np.asarray(jax.jit(jax.vmap(lambda t: mix(jnp.eye(mix.n), t)))(jnp.arange(count)))


def test_cycle_with_python_and_traced_steps():
    parts = [adozoo.mixing(graphs.ring(6)), adozoo.mixing(graphs.star(6)), adozoo.exact_mean(6), adozoo.identity(6)]
    mix = adozoo.cycle(parts)
    assert (mix.n, mix.period, mix.varying, mix.symmetric, mix.stochastic) == (6, 4, True, True, "doubly")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))
    traced = jax.jit(lambda x, t: (mix(x, t), mix.table_at(t), mix.links(t)))
    for t in range(9):
        part = parts[t % 4]
        expected = np.asarray(part.matrix) @ np.asarray(x)
        np.testing.assert_allclose(mix(x, t), expected, rtol=0, atol=1e-14)
        mixed, (neighbors, weights), links = traced(x, t)
        np.testing.assert_allclose(mixed, expected, rtol=0, atol=1e-14)
        table = np.zeros((6, 6))
        np.add.at(table, (np.arange(6)[:, None], np.asarray(neighbors)), np.asarray(weights))
        np.testing.assert_allclose(table, part.matrix, rtol=0, atol=1e-14)
        assert int(links) == np.count_nonzero(table - np.diag(np.diag(table)))
    np.testing.assert_allclose(mix.matrices, [part.matrix for part in parts], rtol=0, atol=1e-15)


def test_cycle_of_directed_parts():
    row = adozoo.mixing(np.array([[0.9, 0.1], [0.2, 0.8]]), stochastic="row")
    column = adozoo.mixing(np.array([[0.9, 0.2], [0.1, 0.8]]), stochastic="column")
    assert adozoo.cycle([column, adozoo.exact_mean(2)]).stochastic == "column"
    assert not adozoo.cycle([column, adozoo.exact_mean(2)]).symmetric
    with pytest.raises(ValueError, match="row-stochastic with column-stochastic"):
        adozoo.cycle([row, column])


@pytest.mark.parametrize("n", [2, 4, 16])
def test_one_peer_exponential_averages_exactly(n):
    mix = adozoo.one_peer_exponential(n)
    matrices = np.asarray(mix.matrices)
    assert len(matrices) == mix.period == np.log2(n)
    for t, W in enumerate(matrices):  # i hears from i + 2^t
        np.testing.assert_array_equal(W, (np.eye(n) + np.roll(np.eye(n), 2**t, axis=1)) / 2)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(n, 3)))
    for t in range(5, 5 + mix.period):  # any run of that many steps will do
        x = mix(x, t)
    np.testing.assert_allclose(x, np.broadcast_to(x.mean(0), x.shape), rtol=0, atol=1e-15)
    assert mix.symmetric is (n == 2)
    assert adozoo.channel.mean_links(mix) == n


def test_one_peer_exponential_of_other_sizes():
    mix = adozoo.one_peer_exponential(6)
    assert mix.period == 3
    np.testing.assert_allclose(mix.matrices.sum(1), 1)
    x = jax.lax.fori_loop(0, 200, lambda t, x: mix(x, t), jnp.arange(6.0))
    np.testing.assert_allclose(x, 2.5, atol=1e-9)


def test_gossip_every():
    base = adozoo.mixing(graphs.ring(5))
    mix = adozoo.gossip_every(base, 3)
    expected = [np.eye(5), np.eye(5), base.matrix]
    np.testing.assert_allclose(drawn(mix, 7), [expected[t % 3] for t in range(7)], rtol=0, atol=1e-15)
    for t in range(4):
        np.testing.assert_allclose(mix(jnp.eye(5), t), expected[t % 3], rtol=0, atol=1e-15)
        np.testing.assert_allclose(mix.at(t).matrix, expected[t % 3], rtol=0, atol=1e-15)
        np.testing.assert_allclose(mix.at(jnp.int32(t)).matrix, expected[t % 3], rtol=0, atol=1e-15)
    assert [int(mix.links(t)) for t in range(3)] == [0, 0, 10]
    assert adozoo.channel.mean_links(mix) == pytest.approx(10 / 3)
    assert adozoo.gossip_every(adozoo.one_peer_exponential(8), 2).period == 6
    with pytest.raises(ValueError, match="gossip_every: period must be a positive integer, got 0"):
        adozoo.gossip_every(base, 0)


def test_gossip_every_over_a_schedule():
    """The schedule goes on while it is not used."""
    base = adozoo.one_peer_exponential(8)
    mix = adozoo.gossip_every(base, 2)
    matrices = drawn(mix, 6)
    for t in range(6):
        np.testing.assert_array_equal(matrices[t], base.matrices[t % 3] if t % 2 else np.eye(8))
        np.testing.assert_array_equal(mix.matrices[t], matrices[t])


def check_symmetric_doubly_stochastic(matrices, graph):
    allowed = nx.to_numpy_array(graph) + np.eye(len(graph))
    np.testing.assert_allclose(matrices, matrices.transpose(0, 2, 1), rtol=0, atol=1e-15)
    np.testing.assert_allclose(matrices.sum(1), 1, rtol=0, atol=1e-14)
    assert matrices.min() >= 0
    assert not matrices[:, allowed == 0].any()


IRREGULAR = nx.Graph([(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (3, 4), (4, 5)])


def test_random_edge_is_uniform():
    edges = IRREGULAR.number_of_edges()
    matrices = drawn(adozoo.random_edge(IRREGULAR, KEY), 7000)
    check_symmetric_doubly_stochastic(matrices, IRREGULAR)
    counts = (matrices > 0).sum(0) * (1 - np.eye(6))
    assert (counts.sum() / 2) == 7000  # one edge a step
    shares = counts[np.triu(counts) > 0] / 7000
    assert len(shares) == edges
    np.testing.assert_allclose(shares, 1 / edges, atol=5 * np.sqrt(1 / edges / 7000))
    np.testing.assert_allclose(matrices.max((1, 2)), 1)
    assert set(np.unique(matrices)) == {0, 0.5, 1}


@pytest.mark.parametrize("graph", [IRREGULAR, graphs.ring(8), graphs.star(5), graphs.torus(3, 4), graphs.complete(5)])
def test_random_matching_is_maximal(graph):
    graph = graphs.canonical(graph)
    n = graph.number_of_nodes()
    mix = adozoo.random_matching(graph, KEY)
    matrices = drawn(mix, 60)
    check_symmetric_doubly_stochastic(matrices, graph)
    np.testing.assert_allclose(matrices @ matrices, matrices, rtol=0, atol=1e-15)  # averages of pairs
    used = set()
    for W in matrices:
        pairs = {(i, j) for i, j in zip(*np.nonzero(W), strict=True) if i < j}
        assert nx.is_maximal_matching(graph, pairs)
        used |= pairs
    assert used == {tuple(sorted(edge)) for edge in graph.edges}
    assert len(np.unique(matrices, axis=0)) > 1
    assert mix.stochastic == "doubly"
    assert mix.n == n


def test_random_matching_takes_edges_in_uniform_order():
    """On a path of three edges the middle one comes first, and is alone, in a third of the draws."""
    matrices = drawn(adozoo.random_matching(graphs.path(4), KEY), 3000)
    alone = np.mean(matrices[:, 1, 2] > 0)
    assert abs(alone - 1 / 3) < 5 * np.sqrt(2 / 9 / 3000)
    assert not ((matrices[:, 1, 2] > 0) & (matrices[:, 0, 1] > 0)).any()


def test_random_subgraph():
    graph, probability = graphs.canonical(IRREGULAR), 0.3
    matrices = drawn(adozoo.random_subgraph(graph, KEY, probability), 4000)
    check_symmetric_doubly_stochastic(matrices, graph)
    present = (matrices > 0) & ~np.eye(6, dtype=bool)
    for i, j in graph.edges:
        share = present[:, i, j].mean()
        assert abs(share - probability) < 5 * np.sqrt(probability * (1 - probability) / 4000)
    # Two edges at one node appear together as often as independence says.
    both = (present[:, 0, 1] & present[:, 0, 2]).mean()
    assert abs(both - probability**2) < 5 * np.sqrt(probability**2 / 4000)
    for W, links in zip(matrices[:20], present[:20], strict=True):  # Metropolis weights on what is there
        degrees = links.sum(1)
        np.testing.assert_allclose(W[links], (1 / (1 + np.maximum(degrees[:, None], degrees)))[links], atol=1e-15)
    full = drawn(adozoo.random_subgraph(graph, KEY, 1.0), 2)
    np.testing.assert_allclose(full, [adozoo.weights.metropolis(graph)] * 2, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "draw",
    [adozoo.random_edge, adozoo.random_matching, lambda graph, key: adozoo.random_subgraph(graph, key, 0.5)],
    ids=["edge", "matching", "subgraph"],
)
def test_keys(draw):
    """One key, one sequence of graphs, whether the step is traced or not; other keys, others; vmap over keys."""
    graph = graphs.torus(3, 3)
    matrices = drawn(draw(graph, KEY), 12)
    np.testing.assert_array_equal(drawn(draw(graph, jax.random.key(0)), 12), matrices)
    np.testing.assert_allclose(draw(graph, KEY)(jnp.eye(9), 7), matrices[7], rtol=0, atol=1e-15)
    keys = jax.random.split(jax.random.key(5), 3)

    def seventh(key):
        return draw(graph, key)(jnp.eye(9), 7)

    lanes, alone = jax.jit(jax.vmap(seventh))(keys), jax.jit(seventh)
    for key, lane in zip(keys, lanes, strict=True):
        np.testing.assert_allclose(lane, alone(key), rtol=0, atol=1e-15)
    assert len(np.unique(np.round(lanes, 12), axis=0)) > 1


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: adozoo.cycle([]), "cycle: mixings must hold at least one"),
        (lambda: adozoo.cycle([adozoo.one_peer_exponential(4)]), "time-varying one. List its members"),
        (lambda: adozoo.cycle([adozoo.exact_mean(2), adozoo.exact_mean(3)]), r"same number of nodes, got \[2, 3\]"),
        (lambda: adozoo.one_peer_exponential(1), "one_peer_exponential: n must be an integer of at least 2, got 1"),
        (lambda: adozoo.random_edge(graphs.directed_ring(3), KEY), "random_edge: graph must be undirected"),
        (
            lambda: adozoo.random_matching(graphs.ring(3), jax.random.key_data(KEY)),
            r"typed JAX key.*jax.random.key\(seed\)",
        ),
        (lambda: adozoo.random_subgraph(graphs.ring(3), KEY, 0.0), r"probability must lie in \(0, 1\], got 0.0"),
        (lambda: adozoo.random_edge(graphs.disconnected(3), KEY), "not connected"),
        (lambda: adozoo.one_peer_exponential(4).matrix, r"varies with the step. Use .at\(step\).matrix"),
        (lambda: adozoo.random_edge(graphs.ring(3), KEY).matrices, r"no period; use .at\(step\).matrix"),
        (lambda: adozoo.identity(0), "identity: n must lie in"),
    ],
)
def test_misuse(build, words):
    with pytest.raises(ValueError, match=words):
        build()
