"""Beyond Spectral Gap as theorem objects: nothing breaks them, what is tight is, and misprinted forms do fail."""

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
import sympy
from references import load
from theory_topologies import lazy, ring, topology

import adozoo
import theory
from theory.bounds import _combine_then_adapt as dsgd
from theory.bounds import _neighbors as neighbors
from theory.bounds import beyond_spectral_gap as paper
from theory.bounds._bound import Search

DATA = load("beyond_spectral_gap")
BOUNDS = {bound.name: bound for bound in paper.BOUNDS}
TRIED = sorted(name for name, bound in BOUNDS.items() if bound.search is not None)
# The worst ratio that a search of 2000 instances reaches: less than that, and it looks in the wrong places.
REACHED = {
    "beyond_spectral_gap_theorem_6": 0.5,
    "beyond_spectral_gap_rate": 0.49,
    "beyond_spectral_gap_theorem_9": 0.7,
    "beyond_spectral_gap_theorem_9_optimum": 0.6,
    "beta_lower_bound": 0.749,
    "effective_neighbors_dimension_2": 0.99,
    "effective_neighbors_dimension_below_2": 0.98,
}


def group(size=200, overshoot=1.0, seed=0):
    points = np.random.default_rng(seed).uniform(size=(size, dsgd.THEOREM_6_DIMENSION))
    return list(dsgd.runs(points, dsgd.SMALL, True, overshoot))


@pytest.mark.parametrize("name", TRIED)
def test_nothing_breaks_it(name):
    found = BOUNDS[name].falsify(2000)
    assert not found.violated, found
    assert found.instances >= 2000
    assert found.worst_ratio >= REACHED.get(name, 0.999)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIED)
def test_ten_thousand_instances(name):
    assert not BOUNDS[name].falsify(10_000, seed=1).violated


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("fixed_point_distance", 0.5),
        ("dual_heterogeneity", 0.99),
        ("effective_neighbors_spectral_gap", 0.999),
        ("beyond_spectral_gap_corollary_7", 1.001),
        ("beta_lower_bound", 1.34),
        ("effective_neighbors_dimension_above_2", 1.01),
    ],
)
def test_what_is_tight_has_no_smaller_constant(name, scale):
    assert BOUNDS[name].falsify(2000, scale=scale).violated


def test_a_third_is_to_spare_in_beta():
    """The derivation gives (1 - decay lambda_2) / 3 where the paper has / 4."""
    assert not BOUNDS["beta_lower_bound"].falsify(2000, scale=4 / 3 * (1 - 1e-9)).violated


@pytest.mark.parametrize(("overshoot", "broken"), [(2.0, False), (4.5, True)])
def test_the_step_size_condition_counts(overshoot, broken):
    """Beyond four times the largest step size that theorem 6 grants, its inequality fails."""
    search = Search(dsgd.THEOREM_6_DIMENSION, partial(dsgd.drift, overshoot=overshoot), 1e-8)
    free = replace(BOUNDS["beyond_spectral_gap_theorem_6"], condition=sympy.true, search=search)
    assert free.falsify(2000).violated == broken


def test_the_searched_map_is_the_implemented_method():
    """Rates and fixed points of `adozoo.dsgd`, as `theory` reads them off, on instances of every size."""
    for runs in group(12):
        for k in range(min(1, len(runs.rows))):
            problem = adozoo.problems.quadratic(jnp.asarray(runs.a[k])[:, None, None], jnp.asarray(runs.b[k])[:, None])
            mix = adozoo.mixing(runs.W[k])
            eta = float(runs.learning_rate[k])
            factory = partial(adozoo.dsgd, eta, variant="cta")
            radius = np.abs(np.linalg.eigvalsh(runs.map()[k])).max()
            assert theory.exact_rate(factory, problem, mix) == pytest.approx(radius, abs=1e-9)
            # At the smallest step sizes the fixed point is badly conditioned.
            reached = theory.limit(factory, problem, mix)[:, 0]
            np.testing.assert_allclose(reached, runs.fixed[k], rtol=1e-6, atol=1e-6 * (1 + np.abs(runs.b[k]).max()))


def test_constants_are_those_of_the_theory_package():
    for runs in group(60):
        for k in range(min(3, len(runs.rows))):
            W, decay = runs.W[k], runs.decay[k]
            granted = theory.theorem6(W, decay, runs.a[k].min(), runs.a[k].max(), runs.zeta[k], min(1.0, runs.omega[k]))
            assert runs.beta[k] == pytest.approx(granted.beta, rel=1e-6)
            assert runs.neighbors[k] == pytest.approx(granted.effective_neighbors, rel=1e-8)
            assert runs.learning_rate[k] <= granted.learning_rate * (1 + 1e-6)
            np.testing.assert_allclose(runs.averaging[k], theory.averaging_matrix(W, decay), atol=1e-10)
            measured = neighbors.inverse_neighbors(np.linalg.eigvalsh(W)[None], np.array([decay]))[0]
            assert 1 / measured == pytest.approx(theory.effective_neighbors(W, decay), rel=1e-9)


@pytest.mark.parametrize("item", DATA["theorem6_one_step"]["items"], ids=lambda item: item["name"])
def test_one_step_as_recorded(item):
    W, decay, eta = lazy(topology(item["name"], item["n"])), np.array([item["gamma"]]), np.array([item["eta"]])
    a, b, x, additive = (np.array(item[key])[None] for key in ("a", "b", "x0", "additive_sigma"))
    M, omega = dsgd.averaging(W[None], decay), item["omega"]
    run = dsgd.Runs(
        np.array([0]),
        W[None],
        np.linalg.eigvalsh(W)[None],
        M,
        (1 - omega) * M + omega * np.eye(len(W)),
        decay,
        1 / np.einsum("mii->mi", M).max(1),
        np.array([omega]),
        dsgd.largest_beta(W[None], M),
        2 * a.max(1),
        eta,
        a,
        b,
        additive,
        np.ones(1),
        dsgd.fixed_points(W[None], eta, a, b),
    )
    np.testing.assert_allclose(run.fixed[0], item["x_star_eta"], rtol=1e-9)
    assert run.expected(x)[0] == pytest.approx(item["E_lyapunov1"], rel=1e-12)
    values = {name: value[0] for name, value in run.constants().items()}
    values |= {"lyapunov": item["lyapunov0"], "fixed_point_noise": run.variance(run.fixed).sum()}
    value, holds = BOUNDS["beyond_spectral_gap_theorem_6"].at(**values)
    assert value == pytest.approx(item["bound"] - item["lyapunov0"], rel=1e-12)
    # The recorded step size is the largest one.
    for share, granted in ((1 - 1e-9, True), (1.001, False)):
        _, holds = BOUNDS["beyond_spectral_gap_theorem_6"].at(**(values | {"learning_rate": share * item["eta"]}))
        assert bool(holds) == granted


def test_second_moments_after_many_steps():
    """Squaring the operator of second moments agrees with steps taken one by one."""
    runs = group(60, seed=3)[1]
    m, n = runs.a.shape
    x = np.random.default_rng(4).normal(size=(m, n))
    mean, covariance = x - runs.b, np.zeros((m, n, n))
    for _ in range(8):
        noise = runs.multiplicative[:, None] * runs.a**2 * (mean**2 + np.einsum("mii->mi", covariance))
        covariance = runs.map() @ covariance @ runs.map().transpose(0, 2, 1)
        covariance += runs.learning_rate[:, None, None] ** 2 * (noise + runs.additive**2)[:, :, None] * np.eye(n)
        pull = np.einsum("mij,mj->mi", runs.W - np.eye(n), runs.b)
        mean = np.einsum("mij,mj->mi", runs.map(), mean) + pull
    found = dsgd._second_moments(runs, x - runs.b, np.full(m, 3))
    np.testing.assert_allclose(found[:, :n, :n], covariance + mean[:, :, None] * mean[:, None], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[:, :n, n], mean, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("row", DATA["nW_lower_bounds"]["rows"], ids=lambda row: f"{row['kind'][:7]}-{row['gamma']}")
def test_recorded_bounds_on_effective_neighbors(row):
    if "alpha" in row:
        value, _ = BOUNDS["effective_neighbors_spectral_gap"].at(
            nodes=row["n"], sigma=1 - row["alpha"], decay=row["gamma"]
        )
        assert 1 / value == pytest.approx(row["nW_lower"], rel=1e-12)
        return
    found = {}
    for name in ("above_2", "2", "below_2"):
        value, holds = BOUNDS[f"effective_neighbors_dimension_{name}"].at(
            nodes=row["n"], spectral_dimension=row["ds"], spectral_constant=row["cs"], decay=row["gamma"]
        )
        found[bool(holds)] = float(value)
    assert found[True] == pytest.approx(row["nW_lower"], rel=1e-9)
    direct = theory.spectral_dimension_lower_bound(row["n"], row["ds"], row["cs"], row["gamma"])
    assert found[True] == pytest.approx(direct, rel=1e-9)


def test_last_step_of_the_proof_of_theorem_6():
    """The inequality on one eigenvalue of W, for all gamma, omega, eta L and eta mu that the theorem admits."""
    u = np.random.default_rng(0).uniform(size=(6, 400_000))
    # Half of the draws put the free parameters on the edges of what is admitted.
    u = np.where(np.random.default_rng(1).uniform(size=u.shape) < 0.3, np.round(u), u)
    lam, gamma, omega = 1 - 1e-5 ** u[0] * (1 - 1e-9), 1 - 1e-5 ** u[1], u[2]
    m = (1 - gamma) * lam**2 / (1 - gamma * lam**2)
    N = (1 - omega) * m + omega
    beta = lam * (1 - lam) / (1 - m)
    assert np.all(beta <= 0.5 + 1e-9)
    step = np.minimum(beta * omega, 0.25) * u[3]
    left = step * (1 - lam * N) ** 2 + step * u[4] * (N - lam**2 * N**2 - 0.5)
    assert np.all(left <= N * (1 - lam**2) * (1 + 1e-9))


def test_integrals_of_the_proof_on_spectral_dimensions():
    """The closed forms behind eqs. (14), (15), (17), by sympy."""
    lam, m, gamma = sympy.symbols("lambda m gamma", positive=True)
    beyond = sympy.integrate((1 - lam) ** (m - 2) * lam / 2, (lam, 0, 1), conds="none")
    assert sympy.simplify(sympy.gammasimp(beyond) - 1 / (2 * m * (m - 1))) == 0
    equal = sympy.log(1 - gamma * lam**2) / (-2 * gamma)
    assert sympy.simplify(sympy.diff(equal, lam) - lam / (1 - gamma * lam**2)) == 0
    assert sympy.simplify(equal.subs(lam, 1) - equal.subs(lam, 0) + sympy.log(1 - gamma) / (2 * gamma)) == 0
    share = 1 / m + 1 / (2 * (1 - m))
    assert sympy.simplify(share - (2 - m) / (2 * m * (1 - m))) == 0
    # What is left of the printed constant 1 / (m^2 (1 - m)) is positive for m < 1.
    spare = sympy.factor(1 / (m**2 * (1 - m)) - share)
    assert all(spare.subs(m, value) > 0 for value in (0.01, 0.5, 0.99))


def test_corollary_7_as_printed_fails():
    bound = BOUNDS["beyond_spectral_gap_corollary_7"]
    assert replace(bound, condition=sympy.Not(bound.condition)).falsify(2000).violated


def test_theorem_9_as_printed_lacks_a_square():
    """Without its square the left side is of another dimension: small problems break it."""
    bound = BOUNDS["beyond_spectral_gap_theorem_9"]

    def printed(points):
        measured, values = dsgd.whole_run(points)
        squares = ("lyapunov_start", "fixed_point_noise", "fixed_point_spread")
        return 1e-3 * np.sqrt(measured), {k: v * (1e-6 if k in squares else 1) for k, v in values.items()}

    assert replace(bound, search=Search(dsgd.THEOREM_9_DIMENSION, printed)).falsify(1000).violated


def test_negative_eigenvalues_break_the_bounds_by_dimension():
    """Half of the spectrum at -1: it does not count in c_s, but in n_W."""
    values = np.concatenate([np.ones(1), -np.ones(1), np.full(98, 0.1)])
    measured = 1 / neighbors.inverse_neighbors(values[None], np.array([0.999]))[0]
    value, holds = BOUNDS["effective_neighbors_dimension_above_2"].at(
        nodes=100, decay=0.999, spectral_dimension=3, spectral_constant=0.9**1.5 * 100 / 98
    )
    assert bool(holds)
    assert measured < value


def test_beta_lower_bound_needs_its_condition():
    W = lazy(ring(32))
    assert theory.eigenvalues(W)[-1] < 0.5
    small = 0.02 * np.eye(2) + 0.98 * np.full((2, 2), 0.5)
    value, holds = BOUNDS["beta_lower_bound"].at(decay=0.5, lambda_2=0.02, lambda_n=0.02)
    assert not bool(holds)
    assert theory.beta(small, 0.5) < value
    for decay in (0.0, 0.9):
        value, holds = BOUNDS["beta_lower_bound"].at(decay=decay, lambda_2=0.9, lambda_n=0.5)
        assert bool(holds)
        assert value == pytest.approx(theory.beta_lower_bound(0.9, decay))


def test_the_comparison_as_printed_makes_poor_graphs_fast():
    values = {"optimum_noise": 0.0, "strong_convexity": 1.0, "steps": 100.0, "nodes": 8.0, "smoothness": 1.0}
    values |= {"heterogeneity": 0.0, "zeta": 10.0}
    bound = BOUNDS["beyond_spectral_gap_comparison"]
    good, poor = (float(bound.at(lambda_2=lambda_2, **values)[0]) for lambda_2 in (0.5, 0.9))
    assert good < poor
    gap = 1 - paper.lambda_2
    printed = replace(bound, expression=bound.expression.subs(gap, 1 / gap))
    assert float(printed.at(lambda_2=0.9, **values)[0]) < float(printed.at(lambda_2=0.5, **values)[0])


def test_corollary_8_is_an_eighth_of_neighbors_over_zeta():
    values = {"spectral_constant": 1.5, "spectral_dimension": 3.0, "zeta": 2000.0, "smoothness": 2.0}
    value, holds = BOUNDS["beyond_spectral_gap_corollary_8"].at(**values)
    n_w = (1.5 * 1.0 * 2000 / 2) ** (1 / 3)
    assert value == pytest.approx(n_w / (8 * 2000))
    assert bool(holds)
    assert not BOUNDS["beyond_spectral_gap_corollary_8"].at(**(values | {"spectral_dimension": 2.0}))[1]


def test_the_residual_is_superlinear_in_the_step_size():
    bound = BOUNDS["beyond_spectral_gap_residual"]
    values = {"spectral_constant": 1.0, "spectral_dimension": 4.0, "smoothness": 1.0, "strong_convexity": 0.1}
    small, large = (bound.at(learning_rate=eta, optimum_noise=1.0, **values)[0] for eta in (0.01, 0.04))
    assert large / small == pytest.approx(8)
    # Eq. (38) with eta = 1 / (mu T) is the n_small of corollary 10.
    n_small = float(
        paper.small_step_neighbors.subs(
            {
                paper.spectral_constant: 1,
                paper.spectral_dimension: 4,
                paper.strong_convexity: 0.1,
                paper.steps: 1000,
                paper.smoothness: 1,
                paper.nodes: 10**6,
            }
        )
    )
    assert 1 / n_small == pytest.approx(np.sqrt(8 * (1 / (0.1 * 1000)) / 2))


@pytest.mark.parametrize("name", sorted(set(BOUNDS) - set(TRIED)))
def test_orders_are_not_measured(name):
    assert BOUNDS[name].kind == "order"
    assert "O\\left(" in BOUNDS[name].latex()
    with pytest.raises(ValueError, match="cannot be falsified"):
        BOUNDS[name].falsify(10)


def test_rate_beside_the_implementation():
    """`evaluate` on a mixing and a problem, set beside the exact rate."""
    mix = adozoo.mixing(lazy(ring(8)))
    problem = adozoo.problems.random_quadratic(8, 1, strong_convexity=0.2)
    granted = theory.theorem6(mix, 0.5, 0.2, 1.0, 1.0)
    found = BOUNDS["beyond_spectral_gap_rate"].evaluate(
        problem,
        mix,
        learning_rate=granted.learning_rate * (1 - 1e-12),
        effective_neighbors=granted.effective_neighbors,
        omega=granted.omega,
        beta=granted.beta,
        zeta=1.0,
    )
    exact = theory.exact_rate(partial(adozoo.dsgd, granted.learning_rate, variant="cta"), problem, mix)
    assert found.holds
    assert exact <= found.rate < 1
