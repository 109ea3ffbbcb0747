"""Effective numbers of neighbours against the authors' code, closed forms, bounds and their invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from references import load
from theory_topologies import (
    lazy,
    local_steps,
    mix,
    one_peer_exponential,
    product_torus,
    ring,
    social_network,
    topology,
)

from theory.neighbor_formulas import (
    effective_neighbors_infinite,
    local_steps_neighbors,
    one_peer_exponential_neighbors,
    spectral_dimension_lower_bound,
    spectral_gap_lower_bound,
)
from theory.neighbors import (
    decay_for_neighbors,
    effective_neighbors,
    effective_neighbors_from_eigenvalues,
    random_walk_covariance,
    variance_profile,
)
from theory.spectra import eigenvalues, spectral_gap

DATA = load("beyond_spectral_gap")


@st.composite
def symmetric_mixings(draw):
    """Convex combinations of symmetrised permutations: symmetric, doubly stochastic, irregular."""
    n = draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    weights = rng.dirichlet(np.ones(4))
    W = sum(weight * np.eye(n)[rng.permutation(n)] for weight in weights)
    return (W + W.T) / 2


decays = st.floats(0, 0.999)


@pytest.mark.parametrize("item", DATA["effective_neighbors"]["items"], ids=lambda item: f"{item['name']}-{item['n']}")
def test_authors_effective_neighbors(item):
    W = topology(item["name"], item["n"])
    profile = variance_profile(W)
    for row in item["rows"]:
        variances = profile(row["gamma"])[row["t"]]
        assert 1 / variances.mean() == pytest.approx(row["mean"], rel=1e-9)
        assert 1 / variances.max() == pytest.approx(row["worst"], rel=1e-9)
    row = item["rows"][-1]
    if W.shape[-1] <= 32:
        for mode in ("mean", "worst"):
            value = effective_neighbors(W, row["gamma"], mode, phase=row["t"])
            assert value == pytest.approx(row[mode], rel=1e-9)


@pytest.mark.parametrize("item", DATA["random_walk_covariance"]["items"], ids=lambda i: f"{i['name']}-{i['t']}")
def test_authors_covariance(item):
    W = topology(item["name"], item["n"])
    np.testing.assert_allclose(random_walk_covariance(W, item["gamma"], phase=item["t"]), item["cov"], rtol=1e-12)


def test_product_torus():
    for item in DATA["product_torus"]["items"]:
        W = product_torus(*item["shape"])
        for decay, expected in item["nW"]:
            assert effective_neighbors(W, decay) == pytest.approx(expected, rel=1e-11)


def infinite(name, decay):
    kind = name.split("_")
    if kind[2] == "regular":
        return effective_neighbors_infinite("tree", decay, degree=int(kind[1]))
    return effective_neighbors_infinite("ring" if kind[1] == "ring" else "torus", decay)


@pytest.mark.parametrize("row", DATA["infinite_graphs"]["rows"], ids=lambda row: f"{row['graph']}-{row['gamma']}")
def test_infinite_graphs(row):
    assert infinite(row["graph"], row["gamma"]) == pytest.approx(row["nW"], rel=1e-11)


@pytest.mark.parametrize("row", DATA["nW_lower_bounds"]["rows"], ids=lambda row: f"{row['kind']}-{row['gamma']}")
def test_lower_bounds(row):
    if row["kind"] == "eq11_spectral_gap":
        value = spectral_gap_lower_bound(row["n"], row["alpha"], row["gamma"])
    else:
        value = spectral_dimension_lower_bound(row["n"], row["ds"], row["cs"], row["gamma"])
    assert value == pytest.approx(row["nW_lower"], rel=1e-12)


def test_infinite_graphs_are_limits_of_finite_ones():
    angles = 2 * np.pi * np.arange(4096) / 4096
    long_ring = (1 + 2 * np.cos(angles)) / 3
    side = 2 * np.cos(angles[::16])
    torus = ((1 + side[:, None] + side[None, :]) / 5).ravel()
    for decay in (0.0, 1e-8, 0.0009, 0.0011, 0.3, 0.99):
        finite = effective_neighbors_from_eigenvalues(long_ring, decay)
        assert effective_neighbors_infinite("ring", decay) == pytest.approx(float(finite), rel=1e-12)
        finite = effective_neighbors_from_eigenvalues(torus, decay)
        assert effective_neighbors_infinite("torus", decay) == pytest.approx(float(finite), rel=1e-12)
    errors = [abs(effective_neighbors(ring(n), 0.9) - effective_neighbors_infinite("ring", 0.9)) for n in (8, 16, 32)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


def test_infinite_tree_matches_return_probabilities():
    """Moments of W on the tree by counting lazy walks that return, by distance from the start."""
    for degree in (2, 3, 5):
        distances = np.zeros(400)
        distances[0] = 1.0
        decay, total = 0.8, 0.0
        for k in range(1, 400):
            outward = np.where(np.arange(400) == 0, degree, degree - 1) * distances
            inward = distances.copy()
            inward[0] = 0.0
            distances = (distances + np.append(0.0, outward[:-1]) + np.append(inward[1:], 0.0)) / (degree + 1)
            if k % 2 == 0:
                total += decay ** (k // 2 - 1) * distances[0]
        expected = 1 / ((1 - decay) * total)
        assert effective_neighbors_infinite("tree", decay, degree) == pytest.approx(expected, rel=1e-12)


@given(symmetric_mixings(), decays, decays)
def test_range_and_monotonicity(W, decay, other):
    low, high = sorted((decay, other))
    few, many = effective_neighbors(W, low), effective_neighbors(W, high)
    assert 1 - 1e-9 <= few <= many * (1 + 1e-9) <= len(W) * (1 + 2e-9)
    worst, nodes = effective_neighbors(W, low, "worst"), effective_neighbors(W, low, "all")
    assert worst == pytest.approx(nodes.min())
    assert worst <= few * (1 + 1e-12)
    assert few == pytest.approx(1 / np.mean(1 / nodes))


@given(symmetric_mixings(), decays)
def test_stein_equation_and_eigenvalue_formula(W, decay):
    P = random_walk_covariance(W, decay)
    np.testing.assert_allclose(P, W @ (decay * P + np.eye(len(W))) @ W.T, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose((1 - decay) * np.diagonal(P), variance_profile(W)(decay)[0], rtol=1e-9)
    formula = float(effective_neighbors_from_eigenvalues(eigenvalues(W), decay))
    assert effective_neighbors(W, decay) == pytest.approx(formula, rel=1e-9)


@given(symmetric_mixings(), decays, st.integers(0, 100))
def test_relabelling_nodes_changes_nothing(W, decay, seed):
    order = np.random.default_rng(seed).permutation(len(W))
    moved = W[np.ix_(order, order)]
    assert effective_neighbors(moved, decay) == pytest.approx(effective_neighbors(W, decay), rel=1e-9)
    np.testing.assert_allclose(
        effective_neighbors(moved, decay, "all"), effective_neighbors(W, decay, "all")[order], rtol=1e-9
    )


@given(symmetric_mixings(), decays)
def test_spectral_gap_bound(W, decay):
    bound = spectral_gap_lower_bound(len(W), min(max(spectral_gap(W), 0.0), 1.0), decay)
    assert bound <= effective_neighbors(W, decay) * (1 + 1e-9)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_spectral_gap_bound_is_tight_for_partial_averaging(decay):
    assert effective_neighbors(mix(10, 0.3), decay) == pytest.approx(spectral_gap_lower_bound(10, 0.3, decay))


def test_spectral_dimension_bound_holds_for_the_infinite_ring():
    for decay in (0.0, 0.5, 0.9, 0.999):
        bound = spectral_dimension_lower_bound(np.inf, 1, 1.5, decay)
        assert bound <= effective_neighbors_infinite("ring", decay)
    assert spectral_dimension_lower_bound(100, 2, 1.0, 0.0) == pytest.approx(1 / (0.01 + 0.5))
    assert spectral_dimension_lower_bound(100, 2, 1.0, 1e-9) == pytest.approx(1 / (0.01 + 0.5))
    assert spectral_dimension_lower_bound(100, 3, 1.0, 0.0) == 0


def test_decay_zero_counts_weights():
    W = social_network()
    assert effective_neighbors(W, 0.0) == pytest.approx(32 / np.sum(W**2))
    assert effective_neighbors(lazy(ring(32)), 0.0) == pytest.approx(2.0)


def test_newest_noise_may_be_left_unaveraged():
    for W in (ring(5), one_peer_exponential(4)):
        averaged, fresh = (random_walk_covariance(W, 0.9, start_at=start) for start in (1, 0))
        np.testing.assert_allclose(fresh, 0.9 * averaged + np.eye(len(averaged)), rtol=1e-12)


def test_long_periods_equal_short_ones():
    W = one_peer_exponential(4)
    for phase in range(-1, 3):
        np.testing.assert_allclose(
            random_walk_covariance(np.concatenate([W, W]), 0.9, phase=phase),
            random_walk_covariance(W, 0.9, phase=phase),
            rtol=1e-12,
        )


@pytest.mark.parametrize("n", [2, 4, 8, 32])
def test_one_peer_exponential_formula(n):
    for decay in (0.0, 0.5, 0.99):
        for phase in range(n.bit_length() - 1):
            nodes = effective_neighbors(one_peer_exponential(n), decay, "all", phase)
            np.testing.assert_allclose(nodes, one_peer_exponential_neighbors(n, decay), rtol=1e-10)


def test_local_steps_formula():
    for phase in range(5):
        value = effective_neighbors(local_steps(6, 5), 0.7, phase=phase)
        assert value == pytest.approx(local_steps_neighbors(6, 5, 0.7, phase))


@pytest.mark.parametrize("schedule", ["one_peer_exponential", "local_steps"])
def test_schedules_symbolically(schedule):
    """The closed forms obey the Stein equation of their period, for every decay."""
    decay, n = sympy.Symbol("decay"), 4
    if schedule == "local_steps":
        matrices, formulas = local_steps(n, 3), [local_steps_neighbors(n, 3, decay, phase) for phase in range(3)]
    else:
        matrices, formulas = one_peer_exponential(n), [one_peer_exponential_neighbors(n, decay)] * 2
    exact = [
        sympy.Matrix(n, n, [sympy.nsimplify(float(entry), rational=True) for entry in W.ravel()]) for W in matrices
    ]
    # Both schedules average exactly once a period: of older noise only the consensus direction is left, with
    # the variance 1' P 1 / n = 1 / (1 - decay) that no doubly stochastic matrix changes.
    period, identity, J = len(exact), sympy.eye(n), sympy.ones(n, n) / n
    covariance = sympy.zeros(n, n)
    for W in exact:
        covariance = W * (decay * covariance + identity) * W.T
    P = covariance + decay**period / (1 - decay) * J
    for phase, formula in enumerate(formulas):
        assert sympy.simplify((1 - decay) * P[0, 0] - 1 / formula) == 0
        P = exact[phase] * (decay * P + identity) * exact[phase].T


def test_eigenvalue_formula_in_jax():
    values = jnp.asarray(eigenvalues(social_network()).copy())
    grid = jnp.array([0.0, 0.5, 0.951, 0.999])
    many = jax.jit(jax.vmap(effective_neighbors_from_eigenvalues, (None, 0)))(values, grid)
    expected = [effective_neighbors(social_network(), float(decay)) for decay in grid]
    np.testing.assert_allclose(many, expected, rtol=1e-10)
    slope = jax.grad(effective_neighbors_from_eigenvalues, 1)(values, 0.9)
    difference = (
        effective_neighbors_from_eigenvalues(values, 0.9 + 1e-6)
        - effective_neighbors_from_eigenvalues(values, 0.9 - 1e-6)
    ) / 2e-6
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


@pytest.mark.parametrize("mode", ["mean", "worst"])
@pytest.mark.parametrize("name", ["ring", "star", "one_peer_exponential"])
def test_decay_for_neighbors_inverts(name, mode):
    W = topology(name, 8)
    for decay in (0.0, 0.3, 0.95, 0.9999):
        value = effective_neighbors(W, decay, mode)
        assert decay_for_neighbors(W, value, mode) == pytest.approx(decay, abs=1e-9)


def test_published_crossings():
    """Figure 2: the one-peer exponential schedule overtakes the ring and, later, the two cliques."""
    exponential = one_peer_exponential(32)
    for name, crossing in (("ring", 0.7280), ("two_cliques", 0.9742)):
        W = topology(name, 32)
        before, after = crossing - 1e-3, crossing + 1e-3
        assert effective_neighbors(exponential, before) < effective_neighbors(W, before)
        assert effective_neighbors(exponential, after) > effective_neighbors(W, after)


@pytest.mark.parametrize("decay", [1, -0.1, float("nan")])
def test_decays_outside_the_unit_interval_are_refused(decay):
    for call in (
        lambda: effective_neighbors(np.eye(2), decay),
        lambda: random_walk_covariance(np.eye(2), decay),
        lambda: effective_neighbors_from_eigenvalues(np.ones(2), decay),
        lambda: effective_neighbors_infinite("ring", decay),
        lambda: spectral_gap_lower_bound(4, 0.5, decay),
    ):
        with pytest.raises(ValueError, match=r"decay: expected 0 <= decay < 1.*limit at 1 is n"):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: effective_neighbors(np.eye(2), 0.5, "median"), "mode: expected one of mean, worst, all"),
        (lambda: random_walk_covariance(np.eye(2), 0.5, start_at=2), "start_at: expected 0"),
        (lambda: effective_neighbors_infinite("star", 0.5), "graph: expected"),
        (lambda: effective_neighbors_infinite("tree", 0.5), "degree: needed"),
        (lambda: effective_neighbors_infinite("ring", 0.5, 2), "degree: needed"),
        (lambda: effective_neighbors_infinite("tree", 0.5, 1), "degree: expected at least 2"),
        (lambda: one_peer_exponential_neighbors(6, 0.5), "n: expected a power of two"),
        (lambda: local_steps_neighbors(6, 0, 0.5), "period: expected at least 1"),
        (lambda: spectral_gap_lower_bound(4, 1.5, 0.5), "gap: expected 0 <= gap <= 1"),
        (lambda: spectral_dimension_lower_bound(4, 0, 1, 0.5), "dimension: expected a positive number"),
        (lambda: spectral_dimension_lower_bound(4, 1, -1, 0.5), "constant: expected a positive number"),
        (lambda: decay_for_neighbors(ring(8), 2.0), r"value: expected a number of neighbours in \[3, 8\]"),
        (lambda: decay_for_neighbors(ring(8), 8.5), r"value: expected a number of neighbours in \[3, 8\]"),
        (lambda: decay_for_neighbors(ring(8), 4.0, "all"), 'mode: expected "mean" or "worst"'),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
