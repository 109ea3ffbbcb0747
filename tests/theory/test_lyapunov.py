"""Theorem 6 of the extended paper: constants against the reference, its inequality against exact expectations."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references import load
from theory_topologies import lazy, ring, topology

from theory.lyapunov import averaging_matrix, beta, beta_lower_bound, fixed_point, one_step, theorem6
from theory.neighbors import effective_neighbors
from theory.spectra import eigenvalues

DATA = load("beyond_spectral_gap")


@pytest.mark.parametrize("item", DATA["theorem6"]["items"], ids=lambda i: f"{i['name']}-{i['gamma']}")
def test_constants(item):
    W, decay = lazy(topology(item["name"], item["n"])), item["gamma"]
    found = theorem6(W, decay, 0.0, item["L"], item["zeta"])
    np.testing.assert_allclose(averaging_matrix(W, decay)[0], item["M_row0"], atol=1e-12)
    assert found.effective_neighbors == pytest.approx(item["nW_min"], rel=1e-10)
    assert found.omega == pytest.approx(item["omega"], rel=1e-10)
    assert found.beta == pytest.approx(item["beta_eq22"], rel=1e-10)
    assert beta(W, decay, "conference") == pytest.approx(item["beta_conf"], rel=1e-10)
    assert beta_lower_bound(eigenvalues(W)[1], decay) == pytest.approx(item["beta_eq34"], rel=1e-10)
    assert found.learning_rate_consensus == pytest.approx(item["lr_consensus"], rel=1e-10)
    assert found.learning_rate_noise == pytest.approx(item["lr_noise"], rel=1e-10)
    assert found.learning_rate == pytest.approx(item["lr_thm6"], rel=1e-10)


@pytest.mark.parametrize("item", DATA["theorem6_one_step"]["items"], ids=lambda item: item["name"])
def test_one_step(item):
    W, decay = lazy(topology(item["name"], item["n"])), item["gamma"]
    a, b, x0, sigma = (np.array(item[key]) for key in ("a", "b", "x0", "additive_sigma"))
    granted = theorem6(W, decay, a.min(), a.max(), 2 * a.max())
    assert granted.learning_rate == pytest.approx(item["eta"], rel=1e-10)
    np.testing.assert_allclose(fixed_point(W, item["eta"], a, b), item["x_star_eta"], rtol=1e-9)
    assert np.sum(a * b) / np.sum(a) == pytest.approx(item["x_star"])
    step = one_step(W, decay, item["eta"], a, b, x0, sigma, omega=item["omega"])
    assert step.lyapunov == pytest.approx(item["lyapunov0"], rel=1e-12)
    assert step.expected_lyapunov == pytest.approx(item["E_lyapunov1"], rel=1e-12)
    assert step.noise == pytest.approx(item["sigma_M_sq"], rel=1e-12)
    assert step.bound == pytest.approx(item["bound"], rel=1e-12)


def test_theorem6_on_random_problems():
    """400 heterogeneous noisy quadratics: one step never exceeds the bound."""
    rng = np.random.default_rng(0)
    mixings = [lazy(topology("ring", 8)), lazy(topology("hypercube", 8)), lazy(lazy(topology("star", 6)))]
    worst = 0.0
    for trial in range(400):
        W, decay = mixings[trial % 3], rng.uniform(0, 0.99)
        n = len(W)
        a, b, sigma = rng.uniform(0.05, 1, n), rng.normal(size=n), rng.uniform(0, 1, n)
        start = rng.normal(size=n) * rng.choice([0.1, 5.0])
        v = rng.choice([0.0, 1.0, 20.0])
        omega = rng.choice([None, rng.uniform(0.05, 1)])
        granted = theorem6(W, decay, a.min(), a.max(), (1 + v) * a.max(), omega)
        step = one_step(W, decay, granted.learning_rate, a, b, start, sigma, float(v), granted.omega)
        worst = max(worst, step.expected_lyapunov / step.bound)
        assert granted.contraction == pytest.approx(1 - granted.learning_rate * a.min())
    assert worst <= 1


def test_one_step_is_the_expectation():
    """Monte-Carlo check of the exact expectation, s in {0, 2} and Gaussian additive noise."""
    rng, W, decay, eta, omega, runs = np.random.default_rng(1), lazy(ring(5)), 0.8, 0.3, 0.4, 200_000
    a, b, x0, sigma = rng.uniform(0.2, 1, 5), rng.normal(size=5), rng.normal(size=5), rng.uniform(0, 1, 5)
    signs = 2 * rng.integers(0, 2, (runs, 5))
    gradients = signs * a * (x0 - b) + sigma * rng.normal(size=(runs, 5))
    error = W @ x0 - eta * gradients - fixed_point(W, eta, a, b)
    norm = (1 - omega) * averaging_matrix(W, decay) + omega * np.eye(5)
    measured = np.mean(np.einsum("ri,ij,rj->r", error, norm, error))
    assert measured == pytest.approx(one_step(W, decay, eta, a, b, x0, sigma, 1.0, omega).expected_lyapunov, rel=0.01)


@given(st.integers(0, 10**6), st.floats(0, 0.999))
def test_beta_is_the_largest_admissible(seed, decay):
    rng = np.random.default_rng(seed)
    W = lazy(lazy(np.eye(6)[rng.permutation(6)]))
    W = (W + W.T) / 2
    M, identity = averaging_matrix(W, decay), np.eye(6)
    for form, side in (("eq22", (identity - W) @ W), ("conference", identity - W)):
        constant = beta(W, decay, form)
        if constant < math.inf:
            least = [np.linalg.eigvalsh(side / (constant * f) - (identity - M)).min() for f in (1, 1.001)]
            assert least[0] >= -1e-10
            assert least[1] < 0
    if eigenvalues(W)[-1] >= 0.5 and eigenvalues(W)[1] < 1 - 1e-9:
        assert beta_lower_bound(eigenvalues(W)[1], decay) <= beta(W, decay) + 1e-12


def test_averaging_matrix():
    W = lazy(ring(6))
    np.testing.assert_allclose(averaging_matrix(W, 0.0), W @ W, atol=1e-14)
    np.testing.assert_allclose(averaging_matrix(W, 1 - 1e-10), np.full((6, 6), 1 / 6), atol=1e-8)
    M = averaging_matrix(W, 0.9)
    np.testing.assert_allclose(1 / np.diagonal(M), effective_neighbors(W, 0.9, "all"), rtol=1e-10)


def test_fixed_point_of_vector_problems():
    rng = np.random.default_rng(2)
    W, roots, b = lazy(ring(5)), rng.normal(size=(5, 3, 3)), rng.normal(size=(5, 3))
    A = np.einsum("nij,nkj->nik", roots, roots) + 0.1 * np.eye(3)
    x = fixed_point(W, 0.2, A, b)
    residual = 0.2 * np.einsum("nij,nj->ni", A, x - b) + x - W @ x
    np.testing.assert_allclose(residual, 0, atol=1e-12)
    near = fixed_point(W, 1e-9, A, b)
    minimum = np.linalg.solve(A.sum(0), np.einsum("nij,nj->i", A, b))
    np.testing.assert_allclose(near, np.broadcast_to(minimum, near.shape), atol=1e-6)
    same = np.broadcast_to(b[0], b.shape)
    np.testing.assert_allclose(fixed_point(W, 0.2, A, same), same, atol=1e-12)


def test_heterogeneity_at_the_fixed_point_falls_with_the_learning_rate():
    """|grad F(x*)|^2 in the pseudo-inverse of I - W is largest for small learning rates (proof of Theorem 9)."""
    rng, W = np.random.default_rng(3), lazy(ring(7))
    a, b = rng.uniform(0.1, 1, 7), rng.normal(size=7)
    pseudo = np.linalg.pinv(np.eye(7) - W)
    points = [fixed_point(W, eta, a, b) for eta in (1e-3, 1e-2, 0.1, 1.0)]
    values = [(a * (x - b)) @ pseudo @ (a * (x - b)) for x in points]
    assert np.all(np.diff(values) <= 0)
    # The same proof bounds the distance to the minimum by eta^2 (1 + kappa) |(I - W)^+ grad F(x*)|^2.
    minimum = np.sum(a * b) / np.sum(a)
    for eta, x in zip((1e-3, 1e-2, 0.1, 1.0), points, strict=True):
        bound = eta**2 * (1 + a.max() / a.min()) * np.sum((pseudo @ (a * (x - b))) ** 2)
        assert np.sum((x - minimum) ** 2) <= bound * (1 + 1e-9)


def test_corollary_7_with_the_corrected_inequality():
    """omega = 1 / n_W: the noise branch 1 / (8 zeta / n_W + 4 L) rules iff 4 beta (2 zeta / n_W + L) / n_W >= L."""
    for name in ("ring", "hypercube"):
        W = lazy(topology(name, 32))
        for decay in (0.0, 0.5, 0.9, 0.99, 0.999):
            found = theorem6(W, decay, 0.0, 1.0, 2000.0)
            n_w = found.effective_neighbors
            assert found.learning_rate_noise == pytest.approx(1 / (8 * 2000 / n_w + 4))
            noise_rules = 4 / n_w * found.beta * (2 * 2000 / n_w + 1) >= 1
            assert noise_rules == (found.learning_rate_noise <= found.learning_rate_consensus)


def test_no_gossip_needs_no_consensus():
    assert beta(np.eye(3), 0.5) == math.inf
    found = theorem6(np.eye(3), 0.5, 0.1, 1.0, 2.0)
    assert found.learning_rate_consensus == math.inf
    assert found.learning_rate == pytest.approx(1 / (4 * (2 * 2.0 + 1)))


def test_conference_form_takes_negative_eigenvalues():
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert beta(swap, 0.5, "conference") == math.inf
    assert beta(ring(32), 0.5, "conference") > 0


ONE = np.ones(8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: beta(ring(8), 0.5), r"positive eigenvalues, got -0.333333.*adozoo.weights.lazy\(W\)"),
        (lambda: theorem6(ring(8), 0.5, 0.1, 1.0, 2.0), r"adozoo.weights.lazy\(W\)"),
        (lambda: beta(np.full((3, 3), 1 / 3), 0.5), "positive eigenvalues"),
        (lambda: beta(lazy(ring(8)), 0.5, "eq23"), "form: expected one of eq22, conference"),
        (lambda: beta(lazy(ring(8)), 1.0), "decay: expected"),
        (lambda: beta_lower_bound(0.9, 1.0), "decay: expected"),
        (lambda: averaging_matrix(topology("uniring", 4), 0.5), "W: expected a symmetric matrix"),
        (lambda: theorem6(lazy(ring(8)), 0.5, 2.0, 1.0, 2.0), "strong_convexity, smoothness: expected 0 <= mu <= L"),
        (lambda: theorem6(lazy(ring(8)), 0.5, 0.1, 1.0, 0.5), "zeta: expected at least the smoothness"),
        (lambda: theorem6(lazy(ring(8)), 0.5, 0.1, 1.0, 2.0, 1.5), "omega: expected 0 <= omega <= 1"),
        (lambda: fixed_point(ring(8), 0.0, ONE, ONE), "learning_rate: expected a positive number"),
        (lambda: fixed_point(ring(8), 0.1, np.ones(7), np.ones(7)), "curvatures, minimizers: expected .* n = 8"),
        (lambda: fixed_point(ring(8), 0.1, np.ones((8, 2)), np.ones((8, 2))), "curvatures, minimizers: expected"),
        (lambda: one_step(lazy(ring(8)), 0.5, 0.1, ONE, ONE, ONE, ONE, -1.0), "multiplicative_variance"),
        (
            lambda: one_step(lazy(ring(6)), 0.5, 0.1, ONE, ONE, ONE, ONE),
            r"curvatures, minimizers, start, additive_noise: expected shape \(6,\)",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
