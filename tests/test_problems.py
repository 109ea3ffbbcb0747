"""Objectives against their gradients, optima against zero, constants against samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adozoo

problems = adozoo.problems
RNG = np.random.default_rng(5)
FEATURES, TARGETS = RNG.normal(size=(4, 7, 3)), RNG.normal(size=(4, 7))
LABELS = np.where(RNG.random((4, 7)) < 0.4, -1, 1)
SHARES = RNG.random((4, 7))
BALL = RNG.normal(size=(4, 3, 3))

PROBLEMS = {
    "quadratic": problems.quadratic(np.einsum("nij,nkj->nik", BALL, BALL), RNG.normal(size=(4, 3))),
    "random quadratic": problems.random_quadratic(4, 3, 0.2, 2.0, heterogeneity=3.0),
    "isotropic": problems.isotropic_quadratic(4, 3),
    "logistic": problems.logistic(FEATURES, LABELS, 0.1),
    "weighted logistic": problems.logistic(FEATURES, LABELS, 0.1, SHARES),
    "least squares": problems.least_squares(FEATURES, TARGETS),
    "weighted ridge": problems.least_squares(FEATURES, TARGETS, 0.3, SHARES),
}
EACH = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


@EACH
def test_gradients_are_those_of_the_losses(problem):
    points = jnp.asarray(np.random.default_rng(0).normal(size=(problem.n, problem.dim)))
    jacobians = jax.vmap(jax.jacobian(problem.local_loss))(points)  # [point, objective, d]
    own = jacobians[jnp.arange(problem.n), jnp.arange(problem.n)]
    np.testing.assert_allclose(problem.exact_gradient(points), own, rtol=0, atol=1e-12)
    np.testing.assert_allclose(problem.gradient(points), own, rtol=0, atol=1e-12)
    x = points[0]
    np.testing.assert_allclose(problem.loss(x), np.mean(problem.local_loss(x)), rtol=1e-14)


@EACH
def test_the_optimum(problem):
    there = adozoo.replicate(problem.optimum, problem.n)
    pulls = np.asarray(problem.exact_gradient(there))
    assert np.linalg.norm(pulls.mean(0)) < 1e-12
    assert float(problem.heterogeneity) == pytest.approx(np.mean(np.sum(pulls**2, 1)), abs=1e-15)
    assert float(problem.optimal_value) == pytest.approx(float(problem.loss(problem.optimum)))
    for nearby in np.random.default_rng(0).normal(size=(5, problem.dim)):
        assert problem.loss(problem.optimum + 0.1 * nearby) >= problem.optimal_value
    metrics = problem.metrics()
    assert abs(float(metrics["suboptimality"](there))) < 1e-14
    assert float(metrics["distance"](there)) == 0
    assert float(metrics["consensus_distance"](there)) < 1e-15
    assert problem.init().shape == (problem.n, problem.dim)


@EACH
def test_constants_hold_for_every_node(problem):
    """mu ||x - y||^2 <= <g_i(x) - g_i(y), x - y> and ||g_i(x) - g_i(y)|| <= L ||x - y||, and both are nearly met."""
    mu, L = problem.strong_convexity, problem.smoothness
    hessians = jax.jit(lambda x: jax.hessian(problem.local_loss)(x))
    spectra = np.array(
        [
            np.linalg.eigvalsh(hessians(scale * x))
            for scale in (0, 0.5, 3)
            for x in np.random.default_rng(0).normal(size=(4, problem.dim))
        ]
    )
    assert mu - 1e-9 <= spectra.min()
    assert spectra.max() <= L + 1e-9
    assert spectra.max() > 0.6 * L
    assert spectra.min() < 3 * mu + 1e-9


@pytest.mark.parametrize("heterogeneity", [0.0, 0.25, 4.0])
def test_the_dials_of_random_quadratics(heterogeneity):
    problem = problems.random_quadratic(5, 4, 0.3, 1.7, heterogeneity, seed=9)
    np.testing.assert_allclose(problem.heterogeneity, heterogeneity, rtol=1e-10, atol=1e-20)
    np.testing.assert_allclose(np.linalg.eigvalsh(problem.matrices), [np.linspace(0.3, 1.7, 4)] * 5, rtol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(problem.optimum), 1, rtol=1e-10)
    same = problems.random_quadratic(5, 4, 0.3, 1.7, heterogeneity, seed=9)
    np.testing.assert_array_equal(same.centers, problem.centers)
    assert (problems.random_quadratic(5, 4, seed=10).centers != problem.centers).all()


def test_additive_noise():
    problem = problems.random_quadratic(5, 4, noise=0.3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)))
    draws = jax.vmap(lambda key: problem.gradient(x, 0, key))(jax.random.split(jax.random.key(0), 4000))
    errors = (np.asarray(draws) - np.asarray(problem.exact_gradient(x))).reshape(4000, -1)
    np.testing.assert_allclose(errors.std(0), 0.3, rtol=5 / np.sqrt(8000))
    np.testing.assert_allclose(errors.mean(0), 0, atol=0.3 * 5 / np.sqrt(4000))
    assert np.abs(np.corrcoef(errors.T) - np.eye(20)).max() < 5 / np.sqrt(4000)
    np.testing.assert_array_equal(problem.gradient(x, 0, jax.random.key(1)), problem.gradient(x, 7, jax.random.key(1)))


@pytest.mark.parametrize(("dim", "batch"), [(3, 1), (2, 4)])
def test_the_noise_of_isotropic_quadratics(dim, batch):
    """E g = x and E ||g||^2 = zeta ||x||^2, with zeta = (d + 1 + b) / b."""
    problem = problems.isotropic_quadratic(3, dim, batch)
    assert problem.zeta == (dim + 1 + batch) / batch
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, dim)))
    count = 40_000
    draws = np.asarray(jax.vmap(lambda key: problem.gradient(x, 0, key))(jax.random.split(jax.random.key(2), count)))
    squares = (draws**2).sum(2)
    error = 5 * squares.std(0) / np.sqrt(count)
    assert (np.abs(squares.mean(0) - problem.zeta * np.sum(np.asarray(x) ** 2, 1)) < error).all()
    np.testing.assert_allclose(draws.mean(0), x, atol=5 * draws.std(0).max() / np.sqrt(count))
    drawn = problem.sample(jax.random.key(1))
    np.testing.assert_array_equal(problem.gradient_of(x, drawn), problem.gradient(x, 0, jax.random.key(1)))


@pytest.mark.parametrize("build", [problems.logistic, problems.least_squares])
def test_padding_changes_nothing(build):
    """Nodes with fewer samples, padded with anything at weight 0, and each sample weighed by hand."""
    targets = LABELS if build is problems.logistic else TARGETS
    counts = [7, 4, 6, 1]
    weights = np.array([[1 / m] * m + [0.0] * (7 - m) for m in counts])
    padded = build(FEATURES, targets, 0.2, weights)
    other = np.where(weights[..., None] > 0, FEATURES, 100.0)
    again = build(other, targets, 0.2, weights)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    np.testing.assert_allclose(again.exact_gradient(x), padded.exact_gradient(x), rtol=0, atol=1e-13)
    np.testing.assert_allclose(again.optimum, padded.optimum, rtol=0, atol=1e-12)
    np.testing.assert_allclose(again.constants, padded.constants, rtol=1e-12)
    for i, m in enumerate(counts):
        alone = build(FEATURES[i : i + 1, :m], targets[i : i + 1, :m], 0.2)
        np.testing.assert_allclose(padded.exact_gradient(x)[i], alone.exact_gradient(x[i : i + 1])[0], atol=1e-13)
        np.testing.assert_allclose(padded.local_loss(x[0])[i], alone.loss(x[0]), atol=1e-13)


def test_labels():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    signs, bits = problems.logistic(FEATURES, LABELS, 0.1), problems.logistic(FEATURES, (LABELS + 1) // 2, 0.1)
    np.testing.assert_array_equal(bits.exact_gradient(x), signs.exact_gradient(x))
    right = np.sign(FEATURES @ np.asarray(x[0])) == LABELS
    assert float(signs.accuracy(x[0])) == pytest.approx(right.mean())


def test_separable_data_have_an_optimum_too():
    """Newton must be damped where the logistic loss is nearly linear."""
    far = problems.logistic(1000 * np.abs(FEATURES), np.ones((4, 7), int), 1e-3)
    pulls = far.exact_gradient(adozoo.replicate(far.optimum, 4))
    assert np.linalg.norm(np.mean(pulls, 0)) < 1e-12


def test_problems_are_pytrees():
    """They go through jit as arguments, and keep their constants."""
    for problem in PROBLEMS.values():
        passed = jax.jit(lambda p: p)(problem)
        assert passed.constants == problem.constants
        value = jax.jit(lambda p, x: p.loss(x))(problem, problem.optimum)
        np.testing.assert_allclose(value, problem.optimal_value, rtol=1e-13, atol=1e-15)


EYE = np.stack([np.eye(2)] * 3)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: problems.quadratic(EYE, np.ones((2, 2))), r"expected A \[n, d, d\] and b \[n, d\], got \(3, 2, 2\)"),
        (
            lambda: problems.quadratic(EYE + np.triu(np.ones((2, 2)), 1), np.ones((3, 2))),
            r"symmetric. Pass \(A \+ A'\) / 2",
        ),
        (
            lambda: problems.quadratic(EYE * np.array([1.0, 0.0]), np.ones((3, 2))),
            "positive definite.*no unique optimum",
        ),
        (lambda: problems.quadratic(-EYE, np.ones((3, 2))), "positive"),
        (lambda: problems.random_quadratic(3, 2, 2.0, 1.0), "0 < strong_convexity <= smoothness, got 2.0 and 1.0"),
        (lambda: problems.random_quadratic(3, 2, heterogeneity=-1.0), "heterogeneity=-1.0"),
        (lambda: problems.random_quadratic(1, 2), "0 for n = 1"),
        (lambda: problems.isotropic_quadratic(0, 2), "n must be a positive integer, got 0"),
        (lambda: problems.logistic(FEATURES, LABELS, 0.0), "l2 must be positive, got 0.0"),
        (lambda: problems.logistic(FEATURES, 2 * LABELS, 0.1), r"labels must be in.*-2"),
        (lambda: problems.logistic(FEATURES[0], LABELS, 0.1), r"expected features \[n, m, d\]"),
        (lambda: problems.logistic(FEATURES, LABELS, 0.1, -SHARES), "weights must be non-negative"),
        (lambda: problems.least_squares(np.ones((2, 3, 2)), np.ones((2, 3))), "optimum undetermined. Pass l2 > 0"),
    ],
)
def test_misuse(build, words):
    with pytest.raises(ValueError, match=words):
        build()
