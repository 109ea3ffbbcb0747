"""Unbiased compressors: closed-form second moments against enumeration and quadrature, and both against many draws."""

import itertools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from compressor_cases import CASES, quick, sent
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adozoo import compression as c

DRAWS = 100_000
SIGMAS = 5
SHAPE = (2, 3, 2)
RNG = np.random.default_rng(7)
# Entries of very different sizes, with a zero and a tie among them.
HARD = np.round(RNG.normal(size=SHAPE) * 10 ** RNG.uniform(-2, 1, SHAPE), 3)
HARD[0, 0, 0], HARD[1, 2, 1] = 0, HARD[1, 2, 0]
RANDOM = [name for name, case in CASES.items() if case.second_moment and name != "identity"]
UNBIASED = [name for name in RANDOM if CASES[name].unbiased]


def second_moment(compressor, v):
    return float(compressor.second_moment(jnp.asarray(v)))


@pytest.mark.parametrize("name", RANDOM)
def test_draws(name):
    """The mean error is zero in every coordinate if unbiased; the mean squared error is the closed form: 5 sigma."""
    compressor = CASES[name]

    @quick
    def errors(v, key):
        state = compressor.init(v, key)
        one = jax.vmap(lambda key: sent(compressor, v, jax.tree.map(lambda _: key, state))[0])
        return one(jax.random.split(key, DRAWS)) - v[None]

    error = np.asarray(errors(HARD, jax.random.key(11))).reshape(DRAWS, -1)
    spread = error.std(axis=0) / math.sqrt(DRAWS)
    if compressor.unbiased:
        assert (np.abs(error.mean(axis=0)) <= SIGMAS * spread + 1e-12).all()
    squared = (error**2).sum(axis=1)
    margin = SIGMAS * squared.std() / math.sqrt(DRAWS) + 1e-12
    assert squared.mean() == pytest.approx(second_moment(compressor, HARD), abs=margin, rel=1e-12)


def water_filling(sizes, total):
    """min(1, c sizes) that add up to `total`, by bisection over c."""
    low, high = 0.0, total / sizes.min()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(1, middle * sizes).sum() < total else (low, middle)
    return np.minimum(1, high * sizes)


def independent_subsets(probabilities):
    """All subsets as 0-1 vectors, and the probability of each when every element is drawn by itself."""
    for subset in itertools.product((0, 1), repeat=len(probabilities)):
        b = np.array(subset)
        yield b, np.where(b, probabilities, 1 - probabilities).prod()


@pytest.mark.parametrize("basis", ["spectral", "entries"])
def test_atoms_by_enumeration(basis):
    matrix = RNG.normal(size=(4, 3)) if basis == "spectral" else RNG.normal(size=8)
    if basis == "spectral":
        u, sizes, vt = np.linalg.svd(matrix, full_matrices=False)
        atoms = np.einsum("ai,ib->iab", u, vt)
    else:
        sizes, atoms = np.abs(matrix), np.diag(np.sign(matrix))
    p = water_filling(sizes, 2)
    mean, moment = 0, 0
    for b, probability in independent_subsets(p):
        arrived = np.tensordot(b / p * sizes, atoms, 1)
        mean, moment = mean + probability * arrived, moment + probability * ((arrived - matrix) ** 2).sum()
    np.testing.assert_allclose(mean, matrix, atol=1e-12)
    assert second_moment(c.atomo(2, basis), matrix) == pytest.approx(moment, rel=1e-12)


def test_rejection_until_the_count_fits_is_biased():
    """What ATOMO's published code does, with the paper's probabilities or its own: E b_i / p_i is far from 1."""
    sizes = np.array([5.0, 2.0, 1.0, 0.5])
    for p, factors in (
        (water_filling(sizes, 2), [1, 1.228, 0.737, 0.614]),
        (np.minimum(1, 2 * sizes / sizes.sum()), [1, 1.420, 0.983, 0.852]),
    ):
        fitting = [(b, probability) for b, probability in independent_subsets(p) if b.sum() == 2]
        inclusion = sum(b * probability for b, probability in fitting) / sum(probability for _, probability in fitting)
        np.testing.assert_allclose(inclusion / p, factors, atol=5e-4)
    # Those of systematic sampling, exactly: the start is uniform, and what it hits changes at the ends of atoms.
    p = np.asarray(c.inclusion_probabilities(jnp.asarray(sizes), 2))
    ends = np.cumsum(p)
    breaks = np.unique(np.concatenate([[0, 1], ends % 1]).round(12))
    hits = [np.searchsorted(ends, middle + np.arange(2), side="right") for middle in (breaks[1:] + breaks[:-1]) / 2]
    inclusion = sum(width * np.isin(np.arange(4), hit) for width, hit in zip(np.diff(breaks), hits, strict=True))
    np.testing.assert_allclose(inclusion, p, atol=1e-12)


def test_rounding_by_enumeration():
    v = np.array([0.7, -2.0, 0.0, 1.1, 0.3])
    for norm, length in (("l2", np.linalg.norm(v)), ("max", 2.0)):
        place = 3 * np.abs(v) / length
        mean, moment = 0, 0
        for b, probability in independent_subsets(place % 1):
            arrived = length * np.sign(v) * (np.floor(place) + b) / 3
            mean, moment = mean + probability * arrived, moment + probability * ((arrived - v) ** 2).sum()
        np.testing.assert_allclose(mean, v, atol=1e-12)
        assert second_moment(c.qsgd(3, norm), v) == pytest.approx(moment, rel=1e-12)


def test_entries_by_enumeration():
    v, k = RNG.normal(size=6), 2
    subsets = [np.isin(np.arange(6), places) for places in itertools.combinations(range(6), k)]
    blocks = [np.isin(np.arange(6), (start + np.arange(k)) % 6) for start in range(6)]
    for factory, masks in ((c.random_k, subsets), (c.random_block, blocks)):
        for scaled, factor in ((True, 3), (False, 1)):
            moment = np.mean([((factor * mask * v - v) ** 2).sum() for mask in masks])
            assert second_moment(factory(count=k, scaled=scaled), v) == pytest.approx(moment, rel=1e-12)


def test_random_projection_by_quadrature():
    """E|M U U' - M|^2 over a Gaussian 3 x 2 matrix U, exact for polynomials of degree five in each entry."""
    m, r = RNG.normal(size=(4, 3)), 2
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = weights / weights.sum()
    places = np.array(list(itertools.product(range(3), repeat=6)))
    u = nodes[places].reshape(-1, 3, r) / math.sqrt(r)
    error = np.einsum("ab,kbr,kcr->kac", m, u, u) - m
    moment = weights[places].prod(axis=1) @ (error**2).sum(axis=(1, 2))
    assert second_moment(c.unbiased_low_rank(r), m) == pytest.approx(moment, rel=1e-12)


@pytest.mark.parametrize("case", references.load("relay_compressors")["atomo_waterfill"], ids=str)
def test_recorded_probabilities(case):
    p = c.inclusion_probabilities(jnp.array(case["singular_values"], float), case["s"])
    np.testing.assert_allclose(p, case["p"], atol=1e-9)


PROBABILITIES = {total: quick(lambda x, total=total: c.inclusion_probabilities(x, total)) for total in (1, 3, 6, 9)}


@hypothesis.given(
    arrays(float, 6, elements=st.one_of(st.just(0.0), st.floats(1e-9, 1e9))), st.sampled_from([1, 3, 6, 9])
)
def test_probabilities(sizes, total):
    """They add up, rise with size, are one for all that is at least the water level, and proportional below."""
    sizes = np.sort(sizes)[::-1]
    p = np.asarray(PROBABILITIES[total](sizes))
    assert p.sum() == pytest.approx(min(total, 6))
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p) <= 1e-12).all()
    below = (p < 1) & (sizes > 0)
    if below.any():
        level = p[below] / sizes[below]
        np.testing.assert_allclose(level, level[0], rtol=1e-9)
        assert (sizes[p >= 1] * level[0] >= 1 - 1e-9).all()


HARDER = {name: quick(lambda v, case=CASES[name]: (case.second_moment(v), jnp.sum(v**2))) for name in UNBIASED}


@pytest.mark.parametrize("name", UNBIASED)
@hypothesis.given(arrays(float, SHAPE, elements=st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.floats(-1e6, 1e6))))
def test_loss_is_never_exceeded(name, v):
    moment, square = HARDER[name](v)
    assert moment <= CASES[name].loss(jnp.zeros(SHAPE)) * square * (1 + 1e-12) + 1e-300


FLAT = np.ones(16)
ODD = np.array([5.0, 3.0, 1.0, 1.0])  # half-way between the levels of 6 = |v|: 3 |v_j| / 6 = 2.5, 1.5, 0.5, 0.5


@pytest.mark.parametrize(
    ("compressor", "v"),
    [
        (c.random_k(count=3, scaled=True), HARD),
        (c.random_k(count=3), HARD),
        (c.random_block(fraction=0.5, scaled=True), HARD),
        (c.unbiased_low_rank(1), HARD),
        (c.atomo(2), np.eye(5)[:4]),
        (c.atomo(2, exact_count=True), np.eye(5)[:4]),
        (c.atomo(3, basis="entries"), FLAT),
        (c.qsgd(1), FLAT),
        (c.qsgd(2), FLAT),
        (c.qsgd(3), ODD),
        (c.qsgd(2, norm="max"), np.where(np.arange(16) > 0, 1 / (1 + math.sqrt(1 + 15 / 4)), 2.0)),
    ],
)
def test_loss_is_attained(compressor, v):
    loss = compressor.loss(jax.ShapeDtypeStruct(v.shape, float))
    assert second_moment(compressor, v) == pytest.approx(loss * (v**2).sum(), rel=1e-12)
