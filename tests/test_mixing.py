"""W x in every form that a mixing can take, and which form is chosen."""

import tracemalloc

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import adozoo

graphs, weights = adozoo.graphs, adozoo.weights
FIXED = ("rolls", "table", "sparse", "dense", "mean")


def shuffled(graph, seed=0):
    order = np.random.default_rng(seed).permutation(graph.number_of_nodes()).tolist()
    return nx.relabel_nodes(graph, dict(enumerate(order)))


def metropolis_by_hand(graph):
    """w_ij = 1 / (1 + max(d_i, d_j)); for digraphs, each sender's even shares."""
    n = graph.number_of_nodes()
    W = np.zeros((n, n))
    for i, j in graph.edges:
        if graph.is_directed():
            W[j, i] = 1 / (1 + graph.out_degree(i))
        else:
            W[i, j] = W[j, i] = 1 / (1 + max(graph.degree(i), graph.degree(j)))
    return W + np.diag(1 - W.sum(0))


# Graph, and the form that "auto" gives it.
GRAPHS = {
    "pair": (graphs.path(2), "Mean"),
    "ring": (graphs.ring(7), "Rolls"),
    "shuffled ring": (shuffled(graphs.ring(40)), "Table"),
    "torus": (graphs.torus(3, 5), "Rolls"),
    "torus with a double link": (graphs.torus(2, 5), "Rolls"),
    "hypercube": (graphs.hypercube(4), "Rolls"),
    "star": (graphs.star(6), "Dense"),
    "large star": (graphs.star(40), "Dense"),
    "path": (graphs.path(40), "Table"),
    "binary tree": (graphs.binary_tree(33), "Table"),
    "complete": (graphs.complete(5), "Mean"),
    "social network": (graphs.social_network(), "Dense"),
    "directed ring": (graphs.directed_ring(6), "Rolls"),
    "exponential": (graphs.exponential(11), "Rolls"),
    "irregular digraph": (nx.DiGraph([(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 0)]), "Dense"),
}


def kind(mix):
    return type(mix).__name__


# Compiled together: op by op, each shape would compile each op anew.
apply = jax.jit(lambda mixings, tree: [mix(tree) for mix in mixings])


def check_applies(mix, mixed, tree, W):
    """`mixed` is W x on leaves of every rank, and `mix` says the same in all its other forms."""
    n = len(W)
    np.testing.assert_allclose(mix.sparse_matrix().toarray(), W, rtol=0, atol=1e-14)
    for rank, leaf in mixed.items():
        np.testing.assert_allclose(leaf, np.tensordot(W, tree[rank], 1), rtol=0, atol=1e-13)
    neighbors, shares = map(np.asarray, mix.table())
    np.testing.assert_array_equal(neighbors[:, 0], np.arange(n))
    rebuilt = np.zeros((n, n))
    np.add.at(rebuilt, (np.arange(n)[:, None], neighbors), shares)
    np.testing.assert_allclose(rebuilt, W, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", GRAPHS)
def test_all_forms_are_the_same_matrix(name):
    graph, chosen = GRAPHS[name]
    ordered = graphs.canonical(graph)
    W = metropolis_by_hand(ordered)
    directed = graph.is_directed()
    circulant = chosen in ("Rolls", "Mean")
    mix = adozoo.mixing(graph)
    assert kind(mix) == chosen
    assert mix.n == len(W)
    assert mix.symmetric is bool(np.allclose(W, W.T))
    assert mix.stochastic == ("doubly" if np.allclose(W.sum(1), 1) else "column")
    assert not mix.varying
    forms = []
    for method in FIXED:
        if (method == "mean" and chosen != "Mean") or (method == "rolls" and not circulant):
            with pytest.raises(ValueError, match=f"method='{method}'"):
                adozoo.mixing(graph, method=method)
        else:
            forms.append(adozoo.mixing(graph, method=method))
            assert kind(forms[-1]).lower() == method
    assert len(forms) >= 3
    tree = {rank: np.random.default_rng(0).normal(size=(mix.n, *range(2, rank + 1))) for rank in (1, 2, 3, 4)}
    for form, mixed in zip(forms, apply(forms, tree), strict=True):
        check_applies(form, mixed, tree, W)
    again = adozoo.mixing(W, stochastic="column" if directed else "doubly")
    assert kind(again) == chosen


@pytest.mark.parametrize("shape", [(6,), (2, 4), (2, 2, 2)])
def test_circulants_without_a_diagonal(shape):
    """Nodes that keep nothing for themselves: column 0 of the table is the node all the same, with weight 0."""
    n = int(np.prod(shape))
    units = np.eye(n).reshape(*shape, n)
    rolled = [np.roll(units, s, axis).reshape(n, n) for axis in range(len(shape)) for s in (1, -1)]
    W = sum(rolled) / len(rolled)
    mix = adozoo.mixing(W, method="rolls")
    x = np.random.default_rng(0).normal(size=(n, 2))
    check_applies(mix, {2: apply([mix], x)[0]}, {2: x}, W)
    assert int(mix.links()) == np.count_nonzero(W)


@pytest.mark.parametrize("name", ["max_degree", "best_constant", "fastest"])
def test_weights_by_name(name):
    graph = graphs.star(5)
    np.testing.assert_allclose(adozoo.mixing(graph, weights=name).matrix, getattr(weights, name)(graph), atol=1e-12)


def test_the_matrix_of_a_mixing():
    for graph in (graphs.ring(5), graphs.star(5), graphs.complete(3)):
        np.testing.assert_allclose(adozoo.mixing(graph).matrix, weights.metropolis(graph), rtol=0, atol=1e-15)


def test_links_are_directed_messages():
    for graph, links in (
        (graphs.ring(5), 10),
        (graphs.star(5), 8),
        (graphs.directed_ring(4), 4),
        (graphs.complete(4), 12),
    ):
        for method in ("table", "sparse", "dense"):
            assert int(adozoo.mixing(graph, method=method).links()) == links
    assert adozoo.exact_mean(4).links() == 6  # an all-reduce, 2 (n - 1) / n vectors a node


def test_one_node():
    mix = adozoo.mixing(np.ones((1, 1)))
    np.testing.assert_array_equal(mix(jnp.array([[1.0, 2.0]])), [[1.0, 2.0]])
    assert int(adozoo.exact_mean(1).links()) == 0


@st.composite
def doubly_stochastic(draw):
    """Symmetric, a convex sum of the identity and of symmetrised permutations; connected through a ring."""
    n = draw(st.integers(2, 9))
    permutations = [np.roll(np.arange(n), 1), *draw(st.lists(st.permutations(range(n)), max_size=3))]
    shares = np.array([draw(st.floats(0.05, 1)) for _ in range(len(permutations) + 1)])
    shares /= shares.sum()
    W = shares[0] * np.eye(n)
    for share, p in zip(shares[1:], permutations, strict=True):
        P = np.eye(n)[list(p)]
        W += share * (P + P.T) / 2
    return W


@given(doubly_stochastic())
def test_random_matrices(W):
    x = np.random.default_rng(0).normal(size=(len(W), 2))
    forms = [adozoo.mixing(W, method=method) for method in ("auto", "table", "sparse", "dense")]
    for mix, mixed in zip(forms, apply(forms, x), strict=True):
        np.testing.assert_allclose(mixed, W @ x, rtol=0, atol=1e-12)
        np.testing.assert_allclose(np.mean(mixed, 0), x.mean(0), rtol=0, atol=1e-13)
        assert mix.symmetric
        assert mix.stochastic == "doubly"
    np.testing.assert_allclose(adozoo.mixing(sp.csr_array(W)).sparse_matrix().toarray(), W, rtol=0, atol=1e-14)


def test_direction():
    """W[i, j] weighs what i receives from j: on a directed ring 0 -> 1 -> 2 the value moves ahead."""
    mix = adozoo.mixing(graphs.directed_ring(3))
    np.testing.assert_allclose(mix(jnp.array([1.0, 0.0, 0.0])), [0.5, 0.5, 0.0])


def test_power():
    for mix in (adozoo.mixing(graphs.ring(9)), adozoo.mixing(graphs.star(5)), adozoo.exact_mean(4)):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(mix.n, 3)))
        one_by_one = x
        for rounds in range(1, 6):
            one_by_one = mix(one_by_one)
            power = adozoo.power(mix, rounds)
            np.testing.assert_allclose(power(x), one_by_one, rtol=0, atol=1e-13)
            assert power.symmetric
    for rounds in (0, -1, True):
        with pytest.raises(ValueError, match="rounds must be a positive integer"):
            adozoo.power(adozoo.exact_mean(2), rounds)
    with pytest.raises(ValueError, match="mix must be fixed"):
        adozoo.power(adozoo.one_peer_exponential(4), 2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtypes_are_kept_and_halves_summed_in_single(dtype):
    graph = graphs.exponential(16)
    x = jnp.asarray(1 + np.random.default_rng(0).random((16, 8)), dtype)
    exact = metropolis_by_hand(graph) @ np.asarray(x, np.float64)
    for method in ("rolls", "table", "sparse", "dense"):
        (mixed,) = apply([adozoo.mixing(graph, method=method)], x)
        assert mixed.dtype == dtype
        # One rounding of the result: the sum itself was taken in at least 32 bits.
        ulp = float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(np.asarray(mixed, np.float64), exact, rtol=max(0.51 * ulp, 4e-7), atol=0)
    ones = jnp.ones((16, 2), dtype)
    np.testing.assert_array_equal(adozoo.mixing(graphs.ring(16))(ones), ones)


def test_mixings_are_pytrees():
    """They travel through jit and vmap as arguments; a second one of the same form does not recompile."""
    once = jax.jit(lambda mix, x: mix(x))
    x = jnp.arange(5.0)
    for share in (0.2, 0.3):
        W = (1 - 2 * share) * np.eye(5) + share * (np.roll(np.eye(5), 1, 0) + np.roll(np.eye(5), -1, 0))
        np.testing.assert_allclose(once(adozoo.mixing(W), x), W @ np.arange(5.0), atol=1e-14)
    assert once._cache_size() == 1
    matrices = jnp.stack([jnp.eye(3), jnp.full((3, 3), 1 / 3)])
    both = jax.vmap(lambda W: adozoo.mixing(W)(jnp.array([0.0, 0.0, 3.0])))(matrices)
    np.testing.assert_allclose(both, [[0, 0, 3], [1, 1, 1]], atol=1e-15)
    nothing_kept = jnp.zeros((1, 3, 3), bool)
    alone = jax.vmap(lambda W: adozoo.channel.recorded_drops(adozoo.mixing(W), nothing_kept).at(0).matrix)(matrices)
    np.testing.assert_array_equal(alone, [np.eye(3)] * 2)


def test_methods_are_built_under_jit():
    """A method looks at its matrix when it is built; that must work while something else is traced."""
    for graph in (graphs.ring(5), graphs.star(5), graphs.complete(5)):
        before = adozoo.mixing(graph)
        built = jax.jit(lambda lr, mix=before: adozoo.d2(lr, mix).init(jnp.zeros((5, 1))).residual)
        assert built(0.1).shape == (5, 1)
        built = jax.jit(lambda lr, graph=graph: adozoo.d2(lr, adozoo.mixing(graph)).init(jnp.zeros((5, 1))).residual)
        assert built(0.1).shape == (5, 1)
    with pytest.raises(ValueError, match="smallest eigenvalue"):
        jax.jit(lambda lr: adozoo.d2(lr, adozoo.mixing(graphs.ring(4))).init(jnp.zeros((4, 1))))(0.1)


@pytest.mark.parametrize(
    ("graph", "chosen"),
    [
        (lambda n: graphs.ring(n), "Rolls"),
        (lambda n: graphs.torus(250, n // 250), "Rolls"),
        (lambda n: graphs.random_regular(4, n), "Table"),
    ],
    ids=["ring", "torus", "random regular"],
)
def test_large_graphs_never_meet_a_dense_matrix(graph, chosen):
    n = 20_000  # 3.2 GB as a dense matrix
    graph = graph(n)
    tracemalloc.start()
    mix = adozoo.mixing(graph)
    mixed = mix(jnp.arange(float(n)))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kind(mix) == chosen
    assert most < 2e8
    node = 7777
    heard = [node, *graph[node]]
    assert float(mixed[node]) == pytest.approx(sum(heard) / len(heard))
    assert float(mixed.mean()) == pytest.approx((n - 1) / 2)


@pytest.mark.slow
def test_a_hundred_thousand_nodes():
    n = 100_000
    for graph in (graphs.ring(n), graphs.torus(250, 400), graphs.random_regular(4, n)):
        assert float(adozoo.mixing(graph)(jnp.arange(float(n))).mean()) == pytest.approx((n - 1) / 2)


LOPSIDED = np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: adozoo.mixing(np.ones((2, 3))), r"square.*\(2, 3\).*metropolis"),
        (lambda: adozoo.mixing(np.full((2, 2), np.nan)), "finite"),
        (lambda: adozoo.mixing(LOPSIDED), "every column must sum to one, column 0 sums to 1.1.*metropolis"),
        (lambda: adozoo.mixing(LOPSIDED, stochastic="column"), "every column"),
        (lambda: adozoo.mixing(LOPSIDED.T), "every row must sum to one, row 0 sums to 1.1"),
        (lambda: adozoo.mixing(np.eye(2)), "not connected.*Add edges.*require_connected=False"),
        (lambda: adozoo.mixing(graphs.disconnected(3)), "not connected"),
        (lambda: adozoo.mixing(graphs.ring(4), weights="metro"), "weights must be one of.*'metropolis'.*'metro'"),
        (lambda: adozoo.mixing(graphs.ring(4), method="roll"), "method must be one of.*'rolls'.*'roll'"),
        (lambda: adozoo.mixing(graphs.ring(4), stochastic="both"), "stochastic must be one of"),
        (lambda: adozoo.exact_mean(0), "exact_mean: n must be a positive integer.*0"),
        (
            lambda: adozoo.mixing(graphs.ring(4))(jnp.zeros((5, 2))),
            r"leading node axis of length 4.*\(5, 2\).*replicate",
        ),
        (lambda: adozoo.mixing(graphs.ring(4))({"a": jnp.zeros(4), "b": 1.0}), r"shape \(\).*replicate\(params, 4\)"),
        (
            lambda: jax.jit(lambda W: adozoo.mixing(W, method="rolls").dense)(jnp.eye(2)),
            "traced matrix.*'dense'.*'rolls'",
        ),
    ],
)
def test_misuse(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_one_step_of_a_schedule_need_not_connect():
    np.testing.assert_array_equal(adozoo.mixing(np.eye(3), require_connected=False).matrix, np.eye(3))
    assert adozoo.mixing(LOPSIDED, stochastic="row").stochastic == "row"
    mix = adozoo.mixing(LOPSIDED, stochastic="row")
    assert adozoo.mixing(mix) is mix


@pytest.mark.parametrize("graph", [adozoo.graphs.ring(7), adozoo.graphs.star(6)])
def test_a_matrix_in_single_precision_gets_its_sums_back(graph):
    exact = adozoo.weights.metropolis(graph)
    mix = adozoo.mixing(exact.astype(np.float32))
    assert mix.stochastic == "doubly"
    np.testing.assert_allclose(np.asarray(mix.matrix).sum(axis=1), 1, atol=1e-15)
    np.testing.assert_allclose(mix.matrix, exact, atol=1e-6)
    with pytest.raises(ValueError, match="must sum to one"):
        adozoo.mixing((1.001 * exact).astype(np.float32))
