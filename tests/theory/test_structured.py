"""Rates from structure, and without a Jacobian, against dense ones and closed forms."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adozoo
import theory
from theory import linear, matrix_free
from theory.matrix_free import matrix_free_rate
from theory.structured import common_hessian, joint_modes, structured_rate

LINEAR = [
    name
    for name, entry in adozoo.zoo.entries().items()
    if entry.readable and ("tree" in entry.mixings or not entry.fixed_graph)
]
NODES = 12
GRAPHS = adozoo.graphs
RINGS = [adozoo.mixing(GRAPHS.ring(NODES)), adozoo.exact_mean(NODES), adozoo.identity(NODES)]
MIXINGS = {
    "ring": RINGS[0],
    "torus": adozoo.mixing(GRAPHS.torus(3, 4)),
    "directed": adozoo.mixing(GRAPHS.directed_ring(NODES)),
    "mean": adozoo.exact_mean(NODES),
    "irregular": adozoo.mixing(GRAPHS.erdos_renyi(NODES, 0.4, 0)),
    "one_peer": adozoo.one_peer_exponential(NODES),
    "cycle": adozoo.cycle(RINGS),
    "every": adozoo.gossip_every(adozoo.mixing(GRAPHS.star(NODES)), 3),
}


def factory(name, learning_rate):
    return lambda mix: adozoo.zoo.entry(name).build(learning_rate, mix)


def common(n, seed=0):
    """One Hessian, which is not diagonal, and minimisers that differ."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    hessian = basis @ np.diag([0.3, 1.0]) @ basis.T
    return adozoo.problems.quadratic(np.broadcast_to((hessian + hessian.T) / 2, (n, 2, 2)), rng.normal(size=(n, 2)))


# Every method over an irregular graph, one of them over all kinds.
PAIRS = [
    (name, kind)
    for name in LINEAR
    for kind, mix in MIXINGS.items()
    if adozoo.zoo.entry(name).admits(mix)
    and (kind == "irregular" or name == "diging" or (name, kind) in (("all_reduce_sgd", "mean"), ("extra", "ring")))
]


@pytest.mark.parametrize(("name", "kind"), PAIRS, ids=[f"{name}-{kind}" for name, kind in PAIRS])
def test_blocks_have_the_dense_rate(name, kind):
    problem = common(NODES)
    found = structured_rate(factory(name, 0.25), problem, MIXINGS[kind])
    assert found == pytest.approx(theory.linearize(factory(name, 0.25), problem, MIXINGS[kind]).rate, abs=1e-9)


@pytest.mark.parametrize("kind", MIXINGS)
def test_modes_diagonalise_every_step(kind):
    mix = MIXINGS[kind]
    eigenvalues, transform = joint_modes(mix)
    period = getattr(mix, "period", 1)
    assert eigenvalues.shape == (period, NODES)
    x = np.random.default_rng(0).normal(size=(NODES, 3))
    assert np.linalg.norm(transform(x)) == pytest.approx(np.linalg.norm(x))
    for step in range(period):
        moved = np.asarray(mix(jnp.asarray(x), step))
        np.testing.assert_allclose(transform(moved), eigenvalues[step][:, None] * transform(x), atol=1e-13)


def test_what_has_no_common_modes():
    rng = np.random.default_rng(0)
    lopsided = 0.5 * np.eye(6) + 0.25 * np.eye(6)[rng.permutation(6)] + 0.25 * np.eye(6)[[1, 2, 3, 4, 5, 0]]
    assert joint_modes(adozoo.mixing(lopsided)) is None
    star, ring = adozoo.mixing(GRAPHS.star(6)), adozoo.mixing(GRAPHS.ring(6))
    assert joint_modes(adozoo.cycle([star, ring])) is None
    assert joint_modes(adozoo.random_edge(GRAPHS.ring(6), jax.random.key(0))) is None
    assert common_hessian(adozoo.problems.random_quadratic(4, 2)) is None


@pytest.mark.parametrize("name", ["sgp", "own_steps"])
def test_methods_that_are_no_polynomials_in_the_mixing_are_refused(name):
    """Push-sum keeps weights beside params; step sizes of its own for each node do not commute with W."""

    def own_steps(mix):
        sizes = -0.3 * jnp.linspace(0.5, 1.0, mix.n)[:, None]
        scale = optax.GradientTransformation(
            lambda params: optax.EmptyState(), lambda grads, state, params=None: (sizes * grads, state)
        )
        return optax.chain(scale, adozoo.combine_then_adapt(mix))

    chosen = own_steps if name == "own_steps" else factory(name, 0.3)
    problem = common(NODES)
    with pytest.raises(ValueError, match="needs a linear method"):
        structured_rate(chosen, problem, MIXINGS["ring"])
    assert theory.exact_rate(chosen, problem, MIXINGS["ring"]) < 1


def test_a_drift_is_seen_in_every_path():
    """The state sums gradients, which params never hear of: on nodes that differ the sums grow for ever."""

    def drifting(mix):
        def update(grads, state, params=None):
            return -0.5 * params + 0.5 * mix(params), state + grads - params

        return optax.GradientTransformation(jnp.zeros_like, update)

    problem = adozoo.problems.quadratic(np.ones((NODES, 1, 1)), np.arange(NODES, dtype=float)[:, None])
    mix = MIXINGS["ring"]
    found = theory.linearize(drifting, problem, mix)
    assert found.drifts
    assert found.drift == pytest.approx(np.linalg.norm(np.arange(12)), rel=1e-9)  # each sum moves by -b_i
    assert found.rate == 1
    assert structured_rate(drifting, problem, mix) == 1
    assert matrix_free_rate(drifting, problem, mix).rate == 1


def test_ten_thousand_nodes_on_a_ring():
    n = 10_000
    problem = common(n)
    mix = adozoo.mixing(GRAPHS.ring(n))
    started = time.perf_counter()
    rate = theory.exact_rate(factory("extra", 0.3), problem, mix)
    assert time.perf_counter() - started < 10
    lam = 1 - (2 - 2 * np.cos(2 * np.pi * np.arange(1, n) / n)) / 3
    roots = [np.abs(np.roots([1, x - 1 - lam[0], (1 + lam[0]) / 2 - x])).max() for x in (0.3 * 0.3, 0.3)]
    assert rate == pytest.approx(max(*roots, 1 - 0.09), abs=1e-12)


def test_close_to_consensus_slow_modes_are_not_taken_for_conserved_ones():
    """AugDGM's slowest mode is (1 - lambda)^2 / x away from 1, here 6e-14: far below the tolerance of a rank."""
    n = 10_000
    gap = (2 - 2 * np.cos(2 * np.pi / n)) / 3
    problem = adozoo.problems.quadratic(np.ones((n, 1, 1)), np.arange(float(n))[:, None])
    rate = theory.exact_rate(factory("aug_dgm", 0.3), problem, adozoo.mixing(GRAPHS.ring(n)))
    assert 1 - rate == pytest.approx(gap**2 / 0.3, rel=0.01)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("extra", "irregular"), ("diging", "directed"), ("dsgd_momentum", "every"), ("sgp", "one_peer"), ("nids", "ring")],
)
def test_arnoldi_finds_the_dense_rate(name, kind):
    problem = adozoo.problems.random_quadratic(NODES, 3, strong_convexity=0.1, seed=5)
    found = matrix_free_rate(factory(name, 0.2), problem, MIXINGS[kind])
    assert found.rate == pytest.approx(theory.linearize(factory(name, 0.2), problem, MIXINGS[kind]).rate, abs=1e-9)
    assert found.residual < 1e-9


@pytest.mark.parametrize("name", ["extra", "all_reduce_sgd", "d2"])
def test_arnoldi_on_many_equal_modes(name):
    """A common Hessian repeats eigenvalues, and exact averaging conserves most of what there is."""
    mix = MIXINGS["mean"] if name == "all_reduce_sgd" else MIXINGS["irregular"]
    found = matrix_free_rate(factory(name, 0.25), common(NODES), mix)
    assert found.rate == pytest.approx(theory.linearize(factory(name, 0.25), common(NODES), mix).rate, abs=1e-9)


def test_arnoldi_sees_divergence():
    problem = adozoo.problems.random_quadratic(NODES, 3, seed=5)
    found = matrix_free_rate(factory("extra", 3.0), problem, MIXINGS["ring"])
    assert found.rate == pytest.approx(theory.linearize(factory("extra", 3.0), problem, MIXINGS["ring"]).rate, abs=1e-9)
    assert found.rate > 1


def test_arnoldi_linearises_at_the_fixed_point(monkeypatch):
    rng = np.random.default_rng(2)
    features = rng.normal(size=(6, 12, 3))
    labels = np.sign(features @ [1.0, -2.0, 0.5] + rng.normal(size=(6, 12)))
    problem = adozoo.problems.logistic(features, labels, 0.2)
    mix = adozoo.mixing(GRAPHS.star(6))
    dense = theory.linearize(factory("extra", 0.8), problem, mix)
    found = matrix_free_rate(factory("extra", 0.8), problem, mix)
    assert found.rate == pytest.approx(dense.rate, abs=1e-9)
    monkeypatch.setattr(linear, "LARGE", 0)
    np.testing.assert_allclose(theory.limit(factory("extra", 0.8), problem, mix), dense.params, atol=1e-9)


def test_large_problems_without_structure_need_no_jacobian(monkeypatch):
    problem = adozoo.problems.random_quadratic(NODES, 2, strong_convexity=0.3)
    dense = theory.exact_rate(factory("diging", 0.2), problem, MIXINGS["irregular"])
    monkeypatch.setattr(linear, "LARGE", 10)
    monkeypatch.setattr(linear, "SMALL", 0)
    monkeypatch.setattr(linear, "linearize_steps", lambda steps: pytest.fail("built a Jacobian"))
    assert theory.exact_rate(factory("diging", 0.2), problem, MIXINGS["irregular"]) == pytest.approx(dense, abs=1e-9)
    monkeypatch.undo()
    monkeypatch.setattr(matrix_free, "RESTARTS", 0)
    with pytest.raises(ValueError, match="did not converge"):
        matrix_free_rate(factory("diging", 0.2), problem, MIXINGS["irregular"])
