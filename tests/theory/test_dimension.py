"""Spectral dimension: lattices, power laws, the largest constant, and the bound that rests on it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import adozoo
from adozoo import graphs, weights
from theory.dimension import spectral_dimension
from theory.neighbor_formulas import spectral_dimension_lower_bound
from theory.neighbors import effective_neighbors, effective_neighbors_from_eigenvalues
from theory.spectra import eigenvalues


def lattice(*sides):
    """Eigenvalues of the torus with these sides and equal weights, from cosines."""
    values = np.zeros(1)
    for side in sides:
        values = np.add.outer(values, 2 - 2 * np.cos(2 * np.pi * np.arange(side) / side)).ravel()
    return 1 - values / (2 * len(sides) + 1)


@pytest.mark.parametrize(
    ("sides", "tolerance"),
    [((100,), 2e-3), ((2000,), 1e-3), ((32, 32), 0.05), ((120, 120), 0.03), ((12, 12, 12), 0.2), ((30, 30, 30), 0.15)],
)
def test_lattices(sides, tolerance):
    found = spectral_dimension(lattice(*sides))
    assert found.dimension == pytest.approx(len(sides), abs=tolerance)
    assert found.standard_error < tolerance * 2
    assert 3 <= found.fitted <= max(0.05 * np.prod(sides), 40)


def test_nearer_to_one_the_estimate_is_nearer():
    errors = [abs(spectral_dimension(lattice(50, 50, 50), fraction=part).dimension - 3) for part in (0.2, 0.05, 0.01)]
    assert errors[2] < 0.05 < errors[1] < errors[0]


def test_constant_of_the_ring():
    """c_s tends to 3/2: sigma((lambda, 1)) / sqrt(1 - lambda) is largest at lambda = 0, where a third is left."""
    assert spectral_dimension(lattice(30_000), 1).constant == pytest.approx(1.5, abs=1e-4)
    assert spectral_dimension(lattice(3000), 1).constant >= 1.5


@pytest.mark.parametrize("dimension", [1.0, 1.5, 2.0, 3.0, 5.0])
def test_power_laws_are_recovered(dimension):
    """1 - lambda_k = (k / (n - 1))^(2 / d): sigma((lambda, 1)) is (1 - lambda)^(d / 2), but for the steps."""
    n = 4001
    values = 1 - (np.arange(n) / (n - 1)) ** (2 / dimension)
    found = spectral_dimension(values, fraction=1)
    assert found.fitted == n - 1
    assert found.dimension == pytest.approx(dimension, rel=5e-3)
    assert spectral_dimension(values, dimension).constant == pytest.approx(n / (n - 1), rel=1e-8)


random_matrices = st.builds(
    lambda n, probability, seed: weights.lazy(weights.metropolis(graphs.erdos_renyi(n, probability, seed))),
    st.integers(5, 25),
    st.floats(0.2, 0.8),
    st.integers(0, 10**6),
).filter(weights.is_connected)


@given(random_matrices, st.floats(0.3, 6), st.just(0.0) | st.floats(1e-6, 0.999999))
def test_the_constant_makes_the_bound_true(W, dimension, decay):
    found = spectral_dimension(W, dimension)
    assert (found.dimension, found.standard_error, found.fitted) == (dimension, 0, 0)
    bound = spectral_dimension_lower_bound(len(W), dimension, found.constant, decay)
    assert bound <= effective_neighbors(W, decay) * (1 + 1e-9)


@given(random_matrices, st.floats(0.3, 6), st.floats(0, 1, exclude_max=True))
def test_the_constant_is_the_largest(W, dimension, level):
    constant = spectral_dimension(W, dimension).constant
    values = eigenvalues(W)[1:]
    share = (values > level).mean() * (len(W) - 1) / len(W)
    assert share <= (1 - level) ** (dimension / 2) / constant * (1 + 1e-9)
    positive = values[values > 1e-9]  # just below an eigenvalue, it is attained
    ratios = [(values >= value - 1e-12).sum() / len(W) / (1 - value) ** (dimension / 2) for value in positive]
    assert max(ratios) == pytest.approx(1 / constant, rel=1e-6)


@pytest.mark.parametrize("sides", [(400,), (40, 40), (12, 12, 12)])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.99, 0.999])
def test_the_bound_on_lattices(sides, decay):
    """It holds with the fitted and with the true dimension, and with the latter it has the right order."""
    values = (1 + lattice(*sides)) / 2
    exact = effective_neighbors_from_eigenvalues(values, decay)
    for dimension in (None, len(sides)):
        found = spectral_dimension(values, dimension)
        bound = spectral_dimension_lower_bound(len(values), found.dimension, found.constant, decay)
        assert bound <= exact * (1 + 1e-12)
    assert bound > exact / 10 or decay == 0


def test_a_matrix_a_mixing_and_its_eigenvalues_agree():
    graph = graphs.torus(9, 11)
    W = weights.metropolis(graph)
    found = spectral_dimension(W)
    assert spectral_dimension(eigenvalues(W)) == found
    assert spectral_dimension(adozoo.mixing(graph)).dimension == pytest.approx(found.dimension, abs=1e-6)
    assert found.dimension == pytest.approx(spectral_dimension(lattice(9, 11)).dimension, abs=1e-9)


def test_no_positive_eigenvalue_needs_no_constant():
    assert math.isinf(spectral_dimension(np.full((4, 4), 0.25), 2).constant)
    assert math.isinf(spectral_dimension(np.ones((1, 1)), 1).constant)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: spectral_dimension(np.eye(3)), r"expected a connected graph, got a second eigenvalue of 1"),
        (lambda: spectral_dimension(lattice(9), fraction=0), r"fraction: expected 0 < fraction <= 1, got 0"),
        (lambda: spectral_dimension(lattice(9), 0), r"dimension: expected a positive number, got 0"),
        (lambda: spectral_dimension(np.full((5, 5), 0.2)), r"at least 3 distinct eigenvalues below 1, got 1"),
        (lambda: spectral_dimension(np.ones((1, 1))), r"at least 3 distinct eigenvalues below 1, got a single node"),
        (lambda: spectral_dimension(np.array([2.0, 0.0])), r"the n eigenvalues of a mixing matrix, in \[-1, 1\]"),
        (lambda: spectral_dimension(weights.column_stochastic(graphs.exponential(6))), r"expected a symmetric matrix"),
    ],
)
def test_misuse_is_explained(use, message):
    with pytest.raises(ValueError, match=message):
        use()
