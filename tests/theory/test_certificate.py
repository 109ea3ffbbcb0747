"""Worst-case certificates: recorded values, closed forms, brackets, random members of the class, exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
import references
from hypothesis import given, settings
from hypothesis import strategies as st

import adozoo
import theory

pytest.importorskip("clarabel")

RECORDED = references.load("theory_checks")["case"]["lmi_worst_case_rate"]["values"]
EXACT = ("atc_tracking", "aug_dgm", "d2", "diging", "exact_diffusion", "extra", "nids", "svl")


def factory(name, learning_rate, **options):
    entry = adozoo.zoo.entry(name)
    return lambda mix: entry.build(learning_rate, mix, **options)


@pytest.mark.parametrize("key", RECORDED)
def test_recorded_rates(key):
    name, learning_rate = key.split("|alpha=")
    for sigma, expected in RECORDED[key].items():
        made = factory({"augdgm": "aug_dgm"}.get(name, name), float(learning_rate))
        found = theory.worst_case_rate(made, 0.1, 1.0, float(sigma))
        if expected is None:  # infeasible at 1.2, where the recorded search began
            assert found.rate > 1.2
        else:
            assert found.rate == pytest.approx(expected, abs=1e-5)
        assert found.lower <= found.rate


@pytest.mark.parametrize(("sigma", "expected"), references.load("theory_checks")["case"]["svl"].items())
def test_recorded_design_of_svl(sigma, expected):
    made = factory("svl", expected["alpha"], integral_gain=expected["beta"])
    assert theory.worst_case_rate(made, 0.1, 1.0, float(sigma)).rate == pytest.approx(expected["rho"], abs=1e-5)


@pytest.mark.parametrize("learning_rate", [0.4, 1.0, 20 / 11, 1.9])
def test_gradient_descent_is_certified_exactly(learning_rate):
    """The textbook worst case of gradient descent, max(|1 - a mu|, |1 - a L|)."""
    for made, equal in ((factory("all_reduce_sgd", learning_rate), True), (factory("dsgd_atc", learning_rate), False)):
        found = theory.worst_case_rate(made, 0.1, 1.0, 0.0, equal_start=equal)
        expected = max(abs(1 - 0.1 * learning_rate), abs(1 - learning_rate))
        assert found.rate == pytest.approx(expected, abs=3e-7)
        assert found.lower == pytest.approx(expected, abs=1e-12)


def test_unequal_starts_stay_apart_under_all_reduce():
    found = theory.worst_case_rate(factory("all_reduce_sgd", 1.0), 0.1, 1.0, 0.0)
    assert found.lower == pytest.approx(1.0, abs=1e-12)
    assert not found.converges


def test_one_step_of_diging_is_what_a_performance_estimation_finds():
    """PESTO's printed .9991 (two nodes, L = 1, mu = .1, spectrum in [-.9, .9]) squares the rate certified here."""
    recorded = references.load("theory_checks")["pesto_DIGing_rate"]
    found = theory.worst_case_rate(factory("diging", recorded["alpha"]), recorded["mu"], recorded["L"], recorded["lam"])
    assert found.rate**2 == pytest.approx(recorded["ours"], abs=1e-5)
    assert round(found.rate**2, 4) == recorded["published"]


def test_units_do_not_matter():
    """Objectives times 1000 and step sizes divided by it: the same iterates, so the same certificate."""
    plain = theory.worst_case_rate(factory("nids", 1.0), 0.1, 1.0, 0.6)
    scaled = theory.worst_case_rate(factory("nids", 1e-3), 100.0, 1000.0, 0.6)
    assert scaled.rate == pytest.approx(plain.rate, abs=1e-6)
    assert scaled.lower == pytest.approx(plain.lower, abs=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_a_wider_class_is_not_easier(name):
    rates = [theory.worst_case_rate(factory(name, 0.3), 0.1, 1.0, sigma).rate for sigma in (0.0, 0.2, 0.4)]
    assert np.all(np.diff(rates) >= -3e-7)
    assert theory.worst_case_rate(factory(name, 0.3), 0.05, 1.0, 0.2).rate >= rates[1] - 3e-7


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=2)
@given(seed=st.integers(0, 10_000), step=st.floats(0.05, 0.6))
def test_members_of_the_class_are_not_slower(name, seed, step):
    """Random weights of norm sigma, heterogeneous quadratics with extreme curvatures: exact rates are no worse."""
    rng = np.random.default_rng(seed)
    n, sigma = int(rng.integers(2, 6)), 0.3
    noise, center = rng.normal(size=(n, n)), np.eye(n) - 1 / n
    noise = center @ (noise + noise.T) @ center
    matrix = 1 / n + sigma * noise / np.linalg.norm(noise, 2)
    mix = adozoo.mixing(matrix, require_connected=False, method="dense")
    problem = adozoo.problems.quadratic(
        np.array([np.diag(rng.choice([0.1, 1.0, rng.uniform(0.1, 1)], size=2)) for _ in range(n)]),
        rng.normal(size=(n, 2)),
    )
    certificate = theory.worst_case_rate(factory(name, step), 0.1, 1.0, sigma)
    assert theory.exact_rate(factory(name, step), problem, mix) <= certificate.rate + 1e-9


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("sigma", [0.0, 0.3, 0.7])
def test_the_lower_bound_is_a_run(name, sigma):
    """The instance behind `lower`, simulated through the implementation on two nodes."""
    found = theory.worst_case_rate(factory(name, 0.4), 0.1, 1.0, sigma)
    assert found.lower <= found.rate * (1 + 1e-12)
    if not found.instance.eigenvalues or name == "d2":
        return
    mixes = []
    for eigenvalue in found.instance.eigenvalues:
        share = (1 - eigenvalue) / 2
        mixes.append(adozoo.mixing(np.array([[1 - share, share], [share, 1 - share]]), require_connected=False))
    problem = adozoo.problems.quadratic(found.instance.curvature * np.ones((2, 1, 1)), np.array([[0.0], [1.0]]))
    entry = adozoo.zoo.entry(name)
    if len(mixes) > 1 and "varying" not in entry.mixings:
        return
    mix = mixes[0] if len(mixes) == 1 else adozoo.cycle(mixes)
    assert theory.exact_rate(factory(name, 0.4), problem, mix) == pytest.approx(found.lower, abs=1e-8)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("sigma", [0.0, 0.3, 0.6])
def test_proofs_in_rational_arithmetic(name, sigma):
    found = theory.worst_case_rate(factory(name, 0.35), 0.1, 1.0, sigma)
    proof = found.verify()
    assert proof
    assert isinstance(proof.rate, Fraction)
    assert found.rate < proof.rate <= found.rate + 2e-4


def test_no_proof_of_a_rate_that_is_too_good():
    """The exact check is not fooled by a certificate that claims more than its matrices show."""
    found = theory.worst_case_rate(factory("nids", 1.0), 0.1, 1.0, 0.5)
    parts = theory.lmi.inequalities(found.system, 0.1, 1.0, 0.5)
    system = theory.rational.RationalSystem.of(found.system, 0.1, 1.0, 0.5)
    good = [part.solve(found.rate + 1e-5)[1] for part in parts]
    assert system.proves(Fraction(found.rate + 1e-5), *good)
    assert not system.proves(Fraction(found.rate - 1e-3), *good)
    assert not system.proves(Fraction(found.rate + 1e-5), good[0], [-good[1][0], good[1][1]])
    assert not system.proves(Fraction(found.rate + 1e-5), good[0], [good[1][0], -good[1][1]])


def test_solutions_that_only_the_solver_believes_in_are_found_out():
    """With integral gain .05 a mode decays by .95 a step whatever the graph; a tiny Q hides that within tolerance."""
    found = theory.worst_case_rate(factory("svl", 20 / 11, integral_gain=0.05), 0.1, 1.0, 0.0)
    node = theory.lmi.inequalities(found.system, 0.1, 1.0, 0.0)[1]
    assert node.solve(0.83)[0] > -1e-8  # the solver calls it feasible
    assert node.attained(0.83) > 0.949


def test_methods_without_a_certificate_say_why():
    with pytest.raises(ValueError, match="not exact: a node cannot rest"):
        theory.worst_case_rate(factory("dsgd_cta", 0.1), 0.1, 1.0, 0.3)
    with pytest.raises(ValueError, match="not linear"):
        theory.worst_case_rate(factory("sgp", 0.1), 0.1, 1.0, 0.3)


@pytest.mark.parametrize(
    "constants", [(0.0, 1.0, 0.3), (2.0, 1.0, 0.3), (0.1, 1.0, 1.5), (0.1, 1.0, -0.1), (0.1, math.inf, 0)]
)
def test_misuse(constants):
    with pytest.raises(ValueError, match="worst_case_rate: "):
        theory.worst_case_rate(factory("nids", 1.0), *constants)


def test_says_what_it_found():
    found = theory.worst_case_rate(factory("diging", 0.3), 0.1, 1.0, 0.5)
    assert found.converges is False
    assert found.instance.eigenvalues == (-0.5,)
    assert "[1.337386, 1.337387]" in str(found)
    assert "eigenvalues -0.5" in str(found)
    hopeless = theory.worst_case_rate(factory("atc_tracking", 1.9), 0.1, 1.0, 1.0)
    assert math.isinf(hopeless.rate)
    assert hopeless.P is None
    assert not hopeless.verify()
    assert "no certificate" in hopeless.verify().reason
