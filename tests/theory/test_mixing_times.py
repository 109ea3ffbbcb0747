"""Mixing times: plain powers of W, closed forms, the bounds from the gap, matrices that never mix."""

import math

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

import adozoo
from adozoo import graphs, weights
from theory.graph_symbols import graph_symbols
from theory.mixing_times import mixing_time, mixing_time_bounds, relaxation_time

DISTANCES = ("total_variation", "l2", "operator")


def distance(power, kind):
    """Straight from the definitions, row by row."""
    n = len(power)
    if kind == "total_variation":
        return max(0.5 * sum(abs(entry - 1 / n) for entry in row) for row in power)
    if kind == "l2":
        return max(math.sqrt(sum(1 / n * (entry * n - 1) ** 2 for entry in row)) for row in power)
    return np.linalg.svd(power - np.full((n, n), 1 / n), compute_uv=False)[0]


def slow_mixing_time(W, epsilon, kind):
    power, steps = np.eye(len(W)), 0
    while distance(power, kind) > epsilon * (1 + 1e-12):
        power, steps = power @ W, steps + 1
    return steps


random_matrices = st.builds(
    lambda n, probability, seed: weights.metropolis(graphs.erdos_renyi(n, probability, seed)),
    st.integers(2, 12),
    st.floats(0.3, 1),
    st.integers(0, 10**6),
).filter(weights.is_connected)


@given(random_matrices, st.floats(1e-4, 0.9), st.sampled_from(DISTANCES))
def test_against_plain_powers_and_bounds(W, epsilon, kind):
    found = mixing_time(W, epsilon, kind)
    assert found == slow_mixing_time(W, epsilon, kind)
    bounds = mixing_time_bounds(W, epsilon, kind)
    assert bounds.lower <= found <= bounds.upper
    if kind == "operator":
        assert bounds.lower == bounds.upper == found
    # The customary, weaker forms of the bounds.
    relaxation = relaxation_time(W)
    if kind == "total_variation":
        assert (relaxation - 1) * math.log(1 / (2 * epsilon)) <= found * (1 + 1e-9)
        assert found <= math.ceil(relaxation * math.log(len(W) / epsilon) * (1 + 1e-9))


@given(random_matrices, st.floats(1e-4, 0.9))
def test_distances_are_ordered(W, epsilon):
    """2 TV <= l2 and operator <= l2, so that mixing in l2 takes longest; smaller epsilon takes longer."""
    assert mixing_time(W, epsilon / 2) <= mixing_time(W, epsilon, "l2")
    assert mixing_time(W, epsilon, "operator") <= mixing_time(W, epsilon, "l2")
    for kind in DISTANCES:
        assert mixing_time(W, epsilon, kind) <= mixing_time(W, epsilon / 3, kind)


@pytest.mark.parametrize("n", [8, 16])
@pytest.mark.parametrize("kind", DISTANCES)
def test_matrices_that_are_not_symmetric(n, kind):
    W = weights.column_stochastic(graphs.exponential(n))
    assert mixing_time(W, 0.01, kind) == slow_mixing_time(W, 0.01, kind)


def test_the_complete_graph_and_a_lazy_swap():
    W = weights.metropolis(graphs.complete(6))
    assert [mixing_time(W, 1e-9, kind) for kind in DISTANCES] == [1, 1, 1]
    assert mixing_time_bounds(W, 1e-9) == (1, 1)
    assert relaxation_time(W) == pytest.approx(1)
    # Two nodes that keep 3/4: lambda_2 = 1/2 and all distances are powers of it, d(t) = 2^-t / 2.
    lazy = np.array([[0.75, 0.25], [0.25, 0.75]])
    assert mixing_time(lazy, 1 / 64) == 5
    assert mixing_time(lazy, 1 / 64, "l2") == mixing_time(lazy, 1 / 64, "operator") == 6
    assert mixing_time_bounds(lazy, 1 / 64) == (5, 5)
    assert mixing_time_bounds(lazy, 1 / 64, "l2") == (6, 6)


def test_no_step_at_all():
    assert mixing_time(np.ones((1, 1))) == 0
    assert mixing_time_bounds(np.ones((1, 1))) == (0, 0)
    assert mixing_time(weights.metropolis(graphs.ring(4)), 1.0, "operator") == 0
    assert mixing_time_bounds(weights.metropolis(graphs.ring(4)), 1.0, "operator") == (0, 0)


@pytest.mark.parametrize("W", [np.eye(3), np.array([[0.0, 1.0], [1.0, 0.0]]), np.roll(np.eye(4), 1, axis=0)])
def test_what_never_mixes(W):
    assert all(math.isinf(mixing_time(W, 0.1, kind)) for kind in DISTANCES)
    if np.array_equal(W, W.T):
        assert all(map(math.isinf, mixing_time_bounds(W, 0.1)))
        assert math.isinf(relaxation_time(W))


def test_a_long_mixing_time_and_its_order():
    """On rings t_mix grows as n^2, within the bounds of the relaxation time 3 n^2 / (4 pi^2)."""
    times = [mixing_time(adozoo.mixing(graphs.ring(n))) for n in (30, 60, 120)]
    assert times[2] == pytest.approx(4 * times[1], rel=5e-3)
    assert times[1] == pytest.approx(4 * times[0], rel=2e-2)
    # The slowest mode alone, (2 / n) cos(2 pi k / n) exp(-t / t_rel), has the total variation (2 / pi) exp(-t / t_rel).
    relaxation = 3 * 120**2 / (4 * np.pi**2)
    assert times[2] == pytest.approx(relaxation * math.log(8 / np.pi), rel=1e-2)


@pytest.mark.parametrize(
    ("family", "sizes"),
    [("ring", (9,)), ("path", (6,)), ("torus", (4, 5)), ("hypercube", (16,)), ("grid", (3, 4)), ("paley", (13,))],
)
def test_relaxation_times_in_symbols(family, sizes):
    W = weights.metropolis(graphs.FAMILIES[family](*sizes))
    assert graph_symbols(family, *sizes).evaluate()["relaxation_time"] == pytest.approx(relaxation_time(W), rel=1e-10)


def test_negative_weights():
    W = weights.best_constant(graphs.star(6))
    assert mixing_time(W, 0.1, "l2") == slow_mixing_time(W, 0.1, "l2")
    assert relaxation_time(W) == pytest.approx(float(1 / (1 - sympy.Rational(5, 7))))
    with pytest.raises(ValueError, match=r'total variation needs weights >= 0, got -0.4.*distance="l2"'):
        mixing_time(W)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda W: mixing_time(W, 0.1, "tv"), r'"total_variation", "l2" or "operator", got \'tv\''),
        (lambda W: mixing_time(W, 0.0), r"epsilon: expected a positive number, got 0"),
        (lambda W: mixing_time(np.stack([W, W])), r"expected one fixed matrix, got a schedule of period 2"),
        (lambda W: mixing_time(2 * W), r"rows and columns must sum to 1"),
        (lambda W: mixing_time_bounds(weights.column_stochastic(graphs.exponential(6))), r"expected a symmetric"),
        (lambda W: relaxation_time(np.stack([W, W])), r"got a schedule of period 2"),
    ],
)
def test_misuse_is_explained(use, message):
    with pytest.raises(ValueError, match=message):
        use(weights.metropolis(graphs.ring(4)))
