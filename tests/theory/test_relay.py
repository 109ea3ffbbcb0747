"""RelaySum's delays, W-tilde and RelaySGD's exact rates: recorded constants, messages, simulations, the code."""

import networkx as nx
import numpy as np
import pytest
import references
from hypothesis import given, settings
from hypothesis import strategies as st

import adozoo
import theory
from adozoo import graphs
from theory import relay_rates

RECORDED = references.load("relay_theory")["values"]
FAMILIES = {"chain": graphs.path, "binary_tree": graphs.heap_binary_tree, "star": graphs.star}
BOTH = pytest.mark.parametrize("overlap", [False, True], ids=["plain", "overlap"])


def star_with_an_arm(leaves, arm):
    tree = nx.star_graph(leaves)
    nx.add_path(tree, [0, *range(leaves + 1, leaves + arm + 1)])
    return tree


@st.composite
def random_trees(draw, largest=8):
    n = draw(st.integers(2, largest))
    tree = nx.Graph()
    tree.add_nodes_from(range(n))
    tree.add_edges_from((draw(st.integers(0, i - 1)), i) for i in range(1, n))
    return tree


def messages(tree, payloads, overlap):
    """What every node sums up in each step, by messages on the links themselves; payloads [t, n]."""
    n = len(tree)
    sent = {(i, j): 0.0 for u, v in tree.edges for i, j in ((u, v), (v, u))}
    sums = []
    for z in payloads:
        now = {
            (i, j): z[i] + sum(sent[k, i] for k in tree[i] if k != j)  # all that i knows but from j itself
            for i, j in sent
        }
        heard = sent if overlap else now
        sums.append([z[i] + sum(heard[k, i] for k in tree[i]) for i in range(n)])
        sent = now
    return np.array(sums)


def simulate(tree, hessians, offsets, learning_rate, overlap, steps):
    """RelaySGD in plain numpy, gradients H x - b, from a common start; [steps + 1, n, d]."""
    distances = dict(nx.all_pairs_shortest_path_length(tree))
    n, d = offsets.shape
    models = np.broadcast_to(np.random.default_rng(5).normal(size=d), (n, d))
    history, half_steps = [models], [models] * n  # what was sent before the start counts as x^0
    for _ in range(steps):
        gradients = np.einsum("nij,nj->ni", hessians, models) - offsets
        half_steps = [models - learning_rate * gradients, *half_steps]
        delay = {(i, j): distances[i][j] if overlap else max(distances[i][j] - 1, 0) for i in tree for j in tree}
        models = np.array([np.mean([half_steps[delay[i, j]][j] for j in range(n)], axis=0) for i in range(n)])
        history.append(models)
    return np.array(history)


def quadratics(n, d, seed=0, least=0.2):
    """Hessians in [0, 1] that do not commute, and offsets."""
    rng = np.random.default_rng(seed)
    bases = np.linalg.qr(rng.normal(size=(n, d, d)))[0]
    return bases * rng.uniform(least, 1, (n, 1, d)) @ bases.transpose(0, 2, 1), rng.normal(size=(n, d))


def measured_rate(history, limit):
    """The slowest mode of a run before it reaches the level of rounding."""
    errors = history - limit
    size = np.abs(errors).reshape(len(errors), -1).max(1)
    stop = int(np.flatnonzero(size > 1e-10 * size[0])[-1])
    return theory.fit_modes(errors[max(0, stop - 120) : stop].reshape(-1, errors[0].size)[-120:])


@given(random_trees(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_messages_arrive_after_the_delays(tree, overlap):
    delays = theory.delay_matrix(tree, overlap)
    payloads = np.random.default_rng(0).normal(size=(12, len(tree)))
    found = messages(tree, payloads, overlap)
    for t, i in np.ndindex(found.shape):
        present = [payloads[t - delays[i, j], j] for j in tree if delays[i, j] <= t]
        assert found[t, i] == pytest.approx(sum(present), abs=1e-12)


@given(random_trees(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_perron_vector(tree, overlap):
    W, perron = theory.relay_matrix(tree, overlap), theory.relay_perron(tree, overlap)
    assert W.sum(axis=1) == pytest.approx(1, abs=1e-14)
    assert perron.sum() == pytest.approx(1, abs=1e-14)
    assert perron @ W == pytest.approx(perron, abs=1e-14)
    assert np.linalg.matrix_power(W.toarray(), 2**13) == pytest.approx(np.tile(perron, (len(perron), 1)), abs=1e-9)
    share = perron[: len(tree)].sum()
    assert share == pytest.approx(1 / theory.learning_rate_correction(tree, overlap), abs=1e-14)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_constants(name):
    """To the ten digits that are recorded."""
    family, n = name.split("-")
    tree, expected = FAMILIES[family](int(n)), RECORDED[name]
    found = theory.relay_constants(tree)
    assert (found.tau, found.m) == (expected["tau"], expected["m"])
    assert [found.lambda_2, found.p, found.rho] == pytest.approx([expected[k] for k in ("lam2", "p", "rho")], rel=6e-10)
    assert np.linalg.norm(theory.relay_matrix(tree).toarray(), 2) == pytest.approx(expected["specnorm"], rel=6e-10)
    assert theory.learning_rate_correction(tree) == pytest.approx(expected["corr_nonoverlap"], rel=6e-10)
    assert theory.learning_rate_correction(tree, overlap=True) == pytest.approx(expected["corr_overlap"], rel=6e-10)


@pytest.mark.parametrize(("family", "rho"), [("chain", 296.20), ("binary_tree", 205.64), ("star", 95.859)])
def test_constants_of_thirty_two_nodes(family, rho):
    """Computed by Lanczos' method; the numbers are those of the authors' code, to the digits noted."""
    assert theory.relay_constants(FAMILIES[family](32)).rho == pytest.approx(rho, rel=2e-5)


@BOTH
def test_constants_by_definition(overlap):
    """(1 - p)^{2m} = ||W~^m - W~^inf||^2 / ||W~ - W~^inf||^2; the two rules of the figure change nothing here."""
    for tree in (tree for n in range(3, 8) for tree in nx.nonisomorphic_trees(n)):
        W, limit = theory.relay_matrix(tree, overlap).toarray(), theory.relay_perron(tree, overlap)
        norms = [np.linalg.norm(np.linalg.matrix_power(W, m) - limit, 2) for m in range(1, 31)]
        p = 1 - (np.array(norms[1:]) ** 2 / norms[0] ** 2) ** (1 / (2 * np.arange(2, 31)))
        rho = np.where(p > 0, np.arange(2, 31) / p, np.inf)
        for filtered in (True, False):
            found = theory.relay_constants(tree, overlap, filtered=filtered)
            assert found.rho == pytest.approx(rho.min(), rel=1e-9)
            assert found.m == 2 + rho.argmin()
        assert found.lambda_2 == pytest.approx(np.sort(np.abs(np.linalg.eigvals(W)))[-2], abs=1e-7)


def test_two_nodes_without_overlap_average_exactly():
    assert theory.relay_constants(graphs.path(2), overlap=False) == (0, 0.0, 1, 1.0, 1.0)


@given(random_trees(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_correction_is_what_an_impulse_shows(tree, overlap):
    correction = theory.learning_rate_correction(tree, overlap)
    assert correction == pytest.approx(1 + theory.mean_delay(tree, overlap), abs=1e-15)
    assert theory.impulse_response(tree, overlap) == pytest.approx(correction, rel=1e-12)


@pytest.mark.parametrize("n", [2, 10, 40, 80])
def test_impulses_on_larger_trees(n):
    for build in FAMILIES.values():
        assert theory.impulse_response(build(n)) == pytest.approx(theory.learning_rate_correction(build(n)), rel=1e-12)


def test_agreement_of_the_models_does_not_end_an_impulse():
    """With overlap all models are 1/n after a step, which is not their limit: a factor of n in place of 3.625."""
    tree = graphs.path(8)
    impulse = np.ones((1, 8))
    after = messages(tree, impulse, overlap=True)[0] / 8
    assert after == pytest.approx(1 / 8)
    assert theory.impulse_response(tree, overlap=True) == pytest.approx(3.625, rel=1e-12)


@BOTH
@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("path", (3, 6, 11)),
        ("star", (3, 6, 11)),
        ("heap_binary_tree", (4, 8, 16, 64)),
        ("balanced_binary_tree", (2, 3, 5)),  # heights
    ],
)
def test_mean_delays_in_closed_form(family, sizes, overlap):
    formula = theory.mean_delay_formula(family, overlap)
    for size in sizes:
        tree = graphs.FAMILIES[family](size)
        value = float(formula.subs(dict.fromkeys(formula.free_symbols, len(tree))))
        assert value == pytest.approx(theory.mean_delay(tree, overlap), rel=1e-12)


TREES = {
    "path": graphs.path(6),
    "star": graphs.star(7),
    "heap": graphs.heap_binary_tree(8),
    "arm": star_with_an_arm(3, 3),
}


@BOTH
@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("learning_rate", [0.6, 1.0])
def test_the_rate_of_a_plain_simulation(name, overlap, learning_rate):
    tree = TREES[name]
    hessians, offsets = quadratics(len(tree), 2)
    optimum = np.linalg.solve(hessians.sum(0), offsets.sum(0))
    fitted = measured_rate(simulate(tree, hessians, offsets, learning_rate, overlap, 600), optimum)
    assert theory.relay_rate(tree, hessians, learning_rate, overlap) == pytest.approx(fitted.rate, abs=1e-6)


@BOTH
def test_a_step_size_beyond_the_limit_diverges(overlap):
    tree = graphs.path(6)
    hessians, offsets = quadratics(6, 2)
    rate = theory.relay_rate(tree, hessians, 6.0, overlap)
    errors = np.abs(simulate(tree, hessians, offsets, 6.0, overlap, 300)).max((1, 2))
    assert rate > 1.1
    assert (errors[300] / errors[200]) ** 0.01 == pytest.approx(rate, rel=0.01)


@BOTH
@pytest.mark.parametrize("name", TREES)
def test_the_rate_of_the_implementation(name, overlap):
    tree = TREES[name]
    hessians, offsets = quadratics(len(tree), 2, seed=1)
    problem = adozoo.problems.quadratic(hessians, np.linalg.solve(hessians, offsets[..., None])[..., 0])
    found = theory.exact_rate(
        lambda mix: adozoo.relay_sgd(adozoo.descent(0.7), mix, overlap=overlap), problem, adozoo.mixing(tree)
    )
    assert theory.relay_rate(tree, hessians, 0.7, overlap) == pytest.approx(found, abs=1e-9)


@BOTH
def test_a_run_of_the_implementation(overlap):
    tree = graphs.heap_binary_tree(6)
    problem = adozoo.problems.random_quadratic(6, 2, strong_convexity=0.3)
    tx = adozoo.relay_sgd(adozoo.descent(0.8), tree, overlap=overlap)
    _, _, history = adozoo.simulate(
        tx, problem.gradient, problem.init(), steps=200, metrics={"x": lambda params: params}
    )
    fitted = measured_rate(np.asarray(history["x"], np.float64), np.asarray(problem.optimum))
    rate = theory.relay_rate(tree, problem.matrices, 0.8, overlap)
    assert rate == pytest.approx(fitted.rate, abs=1e-6)


@BOTH
def test_arnoldi_finds_the_dense_rate(overlap, monkeypatch):
    hessians = quadratics(20, 2)[0]
    for tree in (graphs.path(20), graphs.star(20), graphs.heap_binary_tree(20)):
        dense = theory.relay_rate(tree, hessians, 0.5, overlap)
        with monkeypatch.context() as patch:
            patch.setattr(relay_rates, "LARGE", 10)
            assert theory.relay_rate(tree, hessians, 0.5, overlap) == pytest.approx(dense, abs=1e-10)


@BOTH
def test_flat_directions_of_the_mean_do_not_count(overlap):
    """Single Hessians curve where their mean is flat: the run converges, to a point that depends on its start."""
    tree = graphs.path(5)
    rng = np.random.default_rng(2)
    uneven = 0.1 * rng.normal(size=(5, 2, 2))
    uneven = uneven + uneven.transpose(0, 2, 1)
    hessians = np.diag([0.7, 0.0]) + uneven - uneven.mean(0)
    offsets = rng.normal(size=(5, 2))
    offsets[:, 1] -= offsets[:, 1].mean()
    history = simulate(tree, hessians, offsets, 0.5, overlap, 900)
    fitted = measured_rate(history[:400], history[-1])
    assert theory.relay_rate(tree, hessians, 0.5, overlap) == pytest.approx(fitted.rate, abs=1e-6)


@BOTH
def test_where_all_are_flat_models_only_mix(overlap):
    tree = graphs.path(6)
    curved = np.full((6, 1, 1), 0.9)
    flat = np.zeros((6, 2, 2))
    flat[:, :1, :1] = curved
    mixing = theory.relay_constants(tree, overlap).lambda_2
    expected = max(theory.relay_rate(tree, curved, 1.0, overlap), mixing)
    assert theory.relay_rate(tree, flat, 1.0, overlap) == pytest.approx(expected, abs=1e-10)
    assert theory.relay_rate(tree, 0 * curved, 1.0, overlap) == pytest.approx(mixing, abs=1e-10)


@BOTH
def test_small_steps(overlap):
    tree = graphs.heap_binary_tree(7)
    hessians = quadratics(7, 3)[0]
    steps = (0.04, 0.02, 0.01)
    exact = np.array([theory.relay_rate(tree, hessians, step, overlap) for step in steps])
    errors = np.abs(exact - [theory.relay_small_step_rate(tree, hessians, step, overlap) for step in steps])
    assert errors[0] < 1e-4
    assert errors[:-1] / errors[1:] == pytest.approx(4, rel=0.1)  # second order


@BOTH
def test_the_small_step_rate_bounds_nothing(overlap):
    for tree, sign in ((graphs.path(31), -1), (star_with_an_arm(40, 22), 1)):
        common = np.ones((len(tree), 1, 1))
        gap = theory.relay_rate(tree, common, 0.05, overlap) - theory.relay_small_step_rate(tree, common, 0.05, overlap)
        assert sign * gap > 1e-6


@BOTH
def test_the_disagreement_of_relaysgd_grad(overlap):
    """A run of the implementation comes to rest where its own gradients say."""
    tree = TREES["arm"]
    n = len(tree)
    problem = adozoo.problems.random_quadratic(n, 2, strong_convexity=0.3)
    tx = adozoo.relay_sgd_grad(adozoo.descent(0.1), tree, overlap=overlap)
    params, _, _ = adozoo.simulate(tx, problem.gradient, problem.init(), steps=3000)
    gradients = np.asarray(problem.exact_gradient(params))
    assert np.abs(gradients.mean(0)).max() < 1e-10
    bias = theory.relay_grad_bias(tree, gradients, 0.1, overlap)
    models = np.asarray(params)
    assert np.abs(bias).max() > 0.01
    assert models - models.mean(0) == pytest.approx(bias, abs=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.delay_matrix(graphs.ring(4)), r"must be an undirected tree, got 4 nodes and 4 edges"),
        (lambda: theory.relay_matrix(graphs.directed_ring(3)), r"got 3 nodes and 3 directed edges. Take adozoo.graphs"),
        (lambda: theory.mean_delay(graphs.disconnected(2)), r"got 2 nodes and 0 edges"),
        (lambda: theory.mean_delay_formula("paths"), r"path"),
        (lambda: theory.relay_constants(graphs.path(1)), r"at least 2 nodes and largest >= 2, got 1 nodes"),
        (lambda: theory.relay_constants(graphs.path(4), largest=2), r"no m <= largest = 2 contracts"),
        (lambda: theory.relay_rate(graphs.path(3), np.ones((2, 1, 1)), 0.1), r"\[n, d, d\] with n = 3.*\(2, 1, 1\)"),
        (lambda: theory.relay_rate(graphs.path(2), np.triu(np.ones((2, 2, 2))), 0.1), r"symmetric, got H != H'"),
        (lambda: theory.relay_small_step_rate(graphs.path(2), np.zeros((2, 1, 1)), 0.1), r"nothing to minimise"),
        (lambda: theory.relay_grad_bias(graphs.path(2), np.ones(3), 0.1), r"n = 2, .*got shape \(3,\)"),
    ],
)
def test_misuse_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("form", ["graph", "exchange", "mixing"])
def test_theory_takes_trees_in_any_form(form):
    """A graph, its exchange, and a mixing over it: one rate, read off the implementation."""
    tree, problem = adozoo.graphs.heap_binary_tree(5), adozoo.problems.random_quadratic(5, 2)
    network = {"graph": tree, "exchange": adozoo.exchange(tree), "mixing": adozoo.mixing(tree)}[form]
    rate = theory.exact_rate(lambda links: adozoo.relay_sgd(adozoo.descent(0.4), links), problem, network)
    hessians = np.asarray(problem.matrices)
    assert rate == pytest.approx(theory.relay_rate(tree, hessians, 0.4), abs=1e-9)
