"""SVL's rate in closed form: against recorded and published values, the matrix inequalities, and the implementation."""

import math

import numpy as np
import pytest
import references
import sympy
from hypothesis import given
from hypothesis import strategies as st

import adozoo
import theory
from theory import bounds
from theory.bounds import averaging, svl, time_varying

MU, L = 0.1, 1.0


def opening(rate, ratio):
    return 1 + rate - ratio * (1 - rate)


@pytest.mark.parametrize("sigma", ["0.1", "0.3", "0.6"])
def test_recorded_parameters(sigma):
    recorded = references.load("theory_checks")["case"]["svl"][sigma]
    found = svl.tune(MU, L, float(sigma))
    assert found.rate == pytest.approx(recorded["rho"], abs=1e-11)
    assert found.learning_rate == pytest.approx(recorded["alpha"], abs=1e-10)
    assert found.integral_gain == pytest.approx(recorded["beta"], abs=1e-11)


@pytest.mark.parametrize("panel", ["left", "right"])
def test_published_curve(panel):
    """Figure 2 of the paper, read off its vector paths to about 4e-6; at sigma = 1 there is no rate."""
    for sigma, rate in references.load("theory_checks")["published_TCNS2020_fig2"][panel]["SVL"][:-1]:
        assert svl.tune(MU, L, sigma).rate == pytest.approx(rate, abs=1e-5)


def test_the_proof_is_an_identity():
    """The decrease of the Lyapunov function is -c (p + .. s + .. y)^2, and on the average -c' (p - rho y)^2."""
    rate, beta, h, p, s, x, y = sympy.symbols("rho beta h p s x y")
    d = 2 * beta * rate**2 - h * (1 - rate**2)
    e = d + beta * h
    q, m = (2 * rate**2 - h) / d, 2 * rate**2 / e
    last = e + h * rate**2 + h * rate - 2 * rate**3 - 2 * rate**2
    r = -(rate**2) * (beta + rate - 1) * last / ((beta + rate**2 - 1) * e)

    def lyapunov(a, b):
        return q * a**2 - 2 * a * b + b**2

    sector = (p - (h - rate) * y) * (rate * y - p)
    decrease = lyapunov(p + beta * s, s) - rate**2 * lyapunov(x, s + x - y) + m * sector
    decrease += rate**2 * (q - 1) * x**2 - r * y**2  # r sigma^2 = rho^2 (q - 1)
    form = sympy.hessian(sympy.expand(decrease), (p, s, y, x)) / 2
    assert [sympy.cancel(entry) for entry in form[3, :]] == [0, 0, 0, 0]
    for rows in ((0, 1), (0, 2)):
        for columns in ((0, 1), (0, 2)):  # rank one: every minor through the first row and column
            assert sympy.cancel(form.extract(rows, columns).det()) == 0
    assert sympy.cancel(form[0, 0] + h**2 * (beta + rate**2 - 1) / (d * e)) == 0  # -c
    average = m * (1 - h / (2 * rate)) * (p**2 - rate**2 * y**2) + m * sector + m * h * (p - rate * y) ** 2 / (2 * rate)
    assert sympy.cancel(average) == 0


@given(st.floats(1.05, 200), st.floats(0.01, 0.97))
def test_tuned_parameters_are_certified_and_the_best_of_their_kind(ratio, sigma):
    found = svl.tune(1.0, ratio, sigma)
    assert svl.admitted(*found[1:], 1.0, ratio) >= sigma * (1 - 1e-9)
    assert found.rate >= max((ratio - 1) / (ratio + 1), sigma) * (1 - 1e-12)  # proposition 8
    assert found.learning_rate == pytest.approx(1 - found.rate)
    if found.rate > (ratio - 1) / (ratio + 1) * (1 + 1e-9):
        faster = found.rate - 1e-4 * (1 - found.rate)
        gains = np.linspace(1e-3, 1, 2000)
        rates = np.full_like(gains, faster)
        admitted = svl.multipliers(rates, gains, opening(rates, ratio)).sigma
        assert np.nanmax(admitted) < sigma


def test_where_the_network_is_free():
    """Up to (sqrt(1 + rho) - sqrt(1 - rho)) / 2 the rate is that of gradient descent on one node."""
    rate = 9 / 11
    limit = (math.sqrt(1 + rate) - math.sqrt(1 - rate)) / 2
    at = svl.tune(MU, L, limit)
    assert at.rate == pytest.approx(rate, abs=1e-12)
    assert at.integral_gain == pytest.approx(math.sqrt(1 - rate**2), abs=1e-12)
    assert svl.admitted(2 / (MU + L), at.integral_gain, MU, L) == pytest.approx(limit, abs=1e-12)
    assert svl.tune(MU, L, limit + 1e-6).rate > rate + 1e-8
    assert svl.tune(MU, L, 0.0).rate == pytest.approx(rate)


@pytest.mark.parametrize("sigma", [0.3, 0.6])
def test_the_matrix_inequality_of_the_implementation_agrees(sigma):
    pytest.importorskip("clarabel")
    found = svl.tune(MU, L, sigma)
    certificate = theory.worst_case_rate(
        lambda mix: adozoo.svl(found.learning_rate, mix, found.integral_gain), MU, L, sigma
    )
    assert certificate.rate == pytest.approx(found.rate, abs=1e-5)


def test_evaluate_on_an_instance():
    problem = adozoo.problems.random_quadratic(6, 2, strong_convexity=0.2, seed=3)
    mix = adozoo.mixing(adozoo.graphs.complete_bipartite(3, 3))
    sigma = 1 - theory.spectral_gap(mix)
    tuned = svl.tune(0.2, 1.0, sigma)
    given = {"learning_rate": tuned.learning_rate, "integral_gain": tuned.integral_gain}
    found = bounds.rates("svl", problem, mix, **given)["svl"]
    assert found.holds
    assert found.rate == pytest.approx(tuned.rate)
    exact = theory.exact_rate(lambda mix: adozoo.svl(mix=mix, **given), problem, mix)
    assert exact <= found.rate * (1 + 1e-9)
    assert not bounds.rates("svl", problem, mix, learning_rate=1.9, integral_gain=0.9)["svl"].holds
    assert bounds.rates("svl", problem, mix, learning_rate=1.0) == {}


def test_the_searched_step_is_the_implemented_one():
    n = 4
    rng = np.random.default_rng(2)
    basis = np.concatenate([np.full((n, 1), 0.5), averaging.mean_free(n)], axis=1)
    inner = 0.5 * np.linalg.qr(rng.normal(size=(n - 1, n - 1)))[0]  # W is not symmetric
    W = 1 / n + basis[:, 1:] @ inner @ basis[:, 1:].T
    curvature = rng.uniform(0.2, 1.5, n)
    step = time_varying.svl_map(inner[None], (basis.T * curvature @ basis)[None], np.array([0.4]), np.array([0.6]))
    problem = adozoo.problems.quadratic(curvature[:, None, None], rng.normal(size=(n, 1)))
    exact = theory.exact_rate(lambda mix: adozoo.svl(0.4, mix, 0.6), problem, adozoo.mixing(W))
    assert np.abs(np.linalg.eigvals(step[0])).max() == pytest.approx(exact, abs=1e-9)


def test_no_violation_and_none_to_spare():
    for name in ("svl", "multi_consensus"):
        bound = bounds.entry(name)
        found = bound.falsify(2_000)
        assert not found.violated
        assert found.worst_ratio > 0.99999
        assert bound.falsify(200, scale=0.9).violated


def test_multi_consensus_by_hand():
    """kappa = 10, sigma = 0.9: eight rounds per gradient, 0.9^8 = 0.430 <= 0.461."""
    given = {"learning_rate": 2 / 1.1 * (1 - 1e-12), "strong_convexity": MU, "smoothness": L, "sigma": 0.9}
    found = [bounds.entry("multi_consensus").evaluate(**given, rounds=rounds) for rounds in (7, 8)]
    assert [one.holds for one in found] == [False, True]
    assert found[1].rate == pytest.approx(9 / 11)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0, 0.5), "strong_convexity"),
        ((2.0, 1.0, 0.5), "strong_convexity"),
        ((0.1, 1.0, 1.0), "sigma must lie"),
        ((0.1, 1.0, -0.1), "sigma must lie"),
        ((1e-6, 1.0, 1 - 1e-15), "Mix several times"),
    ],
)
def test_misuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        svl.tune(*arguments)


def test_what_proves_nothing_admits_nothing():
    assert svl.admitted(20.0, 0.5, MU, L) == 0.0  # beyond 1 / mu
    assert svl.admitted(1.0, 0.01, MU, L) == 0.0  # too small a gain
