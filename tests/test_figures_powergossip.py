"""The figures of PowerGossip (Vogels, Karimireddy, Jaggi 2020): the ring, the matrices, single steps and their bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paper_figures.powergossip import _consensus, consensus, warm_start

pytest.importorskip("sklearn")

W = (np.eye(8) + np.roll(np.eye(8), 1, 0) + np.roll(np.eye(8), -1, 0)) / 3


def scattered(x):
    return np.sum((x - x.mean(0)) ** 2)


def test_the_rings_best_diffusion_rate():
    assert pytest.approx(2 / (1 - 0.8047378541 + 4 / 3), rel=1e-9) == _consensus.DIFFUSION_RATE
    assert pytest.approx(1.3083906, abs=5e-8) == _consensus.DIFFUSION_RATE
    relaxed = np.eye(8) - _consensus.DIFFUSION_RATE * (np.eye(8) - W) - 1 / 8
    assert np.linalg.norm(relaxed, 2) == pytest.approx(1 - 0.25548, abs=1e-5)


@pytest.mark.parametrize(("data", "level", "steps"), [("white noise", 1e-6, 22), ("smooth images", 1e-2, 7)])
def test_uncompressed_gossip(data, level, steps):
    run = _consensus.uncompressed(data, 24)
    x = np.asarray(_consensus.start(data, (0,))[0], float)
    assert run.bits == 2 * 32 * x[0].size
    mixed = np.eye(8) - _consensus.DIFFUSION_RATE * (np.eye(8) - W)
    expected = [scattered(np.einsum("ij,jab->iab", np.linalg.matrix_power(mixed, t), x)) for t in range(25)]
    np.testing.assert_allclose(run.errors[0], np.array(expected[1:]) / expected[0], rtol=1e-3)
    assert _consensus.first_below(run.errors[0], level) == steps


def test_warm_start_finds_low_rank_differences():
    run = _consensus.run(_consensus.power_gossip(), "smooth images", 40, (0, 1))
    assert run.bits == 2 * 32 * 64
    reached = [_consensus.first_below(errors, 1e-2) for errors in run.errors]
    assert max(reached) <= 25
    assert 5 * max(reached) * run.bits < 7 * 2 * 32 * 64**2


def test_starts():
    photographs = _consensus.photographs(0)
    assert photographs.shape == (8, 64, 64)
    assert (photographs.mean(), photographs.std()) == pytest.approx((0, 1), abs=1e-12)
    others = _consensus.photographs(1)
    assert not np.array_equal(photographs, others)
    assert sorted(photographs.sum((1, 2))) == pytest.approx(sorted(others.sum((1, 2))))
    values = np.linalg.svd(_consensus.smooth_images(0)[0], compute_uv=False)
    assert values[0] > 50 * values[6]
    assert values[6] < 2.1 * _consensus.NOISE * 64**0.5


def test_first_below():
    assert _consensus.first_below(np.array([0.5, 0.09, 0.2]), 0.1) == 2
    assert _consensus.first_below(np.array([0.5, np.nan]), 0.1) == np.inf


def test_the_bound_for_random_directions():
    """In expectation, from a start in the slowest mode."""
    mode = np.cos(2 * np.pi * np.arange(8) / 8)
    x = jnp.asarray(mode[:, None, None] * np.outer([1, 0, 0, 0], [0, 1, 0, 0]), jnp.float32)
    method = _consensus.power_gossip(warm_start=False)
    one = jax.jit(jax.vmap(lambda key: _consensus.errors(method(_consensus.MIX, key), x, 1)[0]))
    ratios = one(jax.random.split(jax.random.key(0), 2000))
    bound = warm_start.bound((4, 4))
    assert ratios.mean() <= bound < 1
    # Of D, D v v' is a quarter on average: what the first moment alone would do.
    first, rate = 1 - 0.8047378541, _consensus.DIFFUSION_RATE
    assert ratios.mean() >= 1 - 2 * rate * first / 4 - 0.01
    assert bound == pytest.approx(1 - rate * (2 - rate * 4 / 3) * first / 4, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "bits"), [("CHOCO, sign", 4096 + 32), ("CHOCO, top k", 32 * 96), ("Moniqua, 2 bits", 8192)]
)
def test_tuning_takes_the_lowest_error(name, bits):
    steps, thetas = np.array([0.01, 0.1, 1e4]), np.array([3.0, 4.0])
    best = consensus.tune(name, "smooth images", 20 * 2 * bits, steps, thetas)
    assert (best.run.bits, best.run.errors.shape) == (2 * bits, (1, 20))
    assert best.run.errors[0, -1] == best.ends.min() == best.ends[list(steps).index(best.consensus_step)]
    assert best.ends[-1] > 1 > best.ends.min()
    assert (best.least >= best.run.bits / 1e6).all()
    assert np.isnan(best.theta) == (name != "Moniqua, 2 bits")
