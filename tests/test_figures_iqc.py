"""The figures of Sundararajan, Van Scoy, Lessard 2020: published points, and the forms of the methods behind them."""

import functools

import numpy as np
import pytest
import references

import adozoo
import theory
from paper_figures.distributed_iqc import _curves, figure_1

pytest.importorskip("clarabel")

LEFT, RIGHT = _curves.PANELS


def test_the_published_points_are_the_recorded_ones():
    recorded = references.load("theory_checks")["published_TCNS2020_fig2"]
    for panel, side in ((LEFT, "left"), (RIGHT, "right")):
        below_one = {name: {s: rate for s, rate in points if rate < 1} for name, points in recorded[side].items()}
        assert _curves.published()[panel] == below_one
        assert sorted(_curves.SHOWN[panel].values()) == sorted(recorded[side])


@pytest.mark.parametrize("curve", _curves.SHOWN[LEFT])
def test_left_points(curve):
    published = _curves.published()[LEFT][_curves.SHOWN[LEFT][curve]]
    assert _curves.point(curve, 0.2, LEFT).rate == pytest.approx(published[0.2], abs=2e-5)


@pytest.mark.parametrize(
    ("curve", "sigma", "step", "amount"),
    [
        ("uDIG", 0.5, 0.940944, 0.430849),
        ("uEXTRA", 0.1, 1.497106, 0.250681),
        ("uEXTRA", 0.8, 0.254291, 0.360494),
        ("AugDGM, Table 1", 0.4, 1.110558, 1.005522),
        ("DIGing", 0.9, 0.048310, 0.650915),
    ],
)
def test_right_points_are_certificates_over_undirected_graphs(curve, sigma, step, amount):
    published = _curves.published()[RIGHT][_curves.SHOWN[RIGHT][curve]][sigma]

    def made(mix):
        return _curves.CURVES[curve](step, adozoo.relaxed(mix, amount))

    constants = _curves.STRONG_CONVEXITY, _curves.SMOOTHNESS, sigma
    assert theory.worst_case_rate(made, *constants, undirected=True).rate == pytest.approx(published, abs=1e-5)
    assert theory.worst_case_rate(made, *constants).rate > published + 2e-4


def test_a_directed_ring_is_slower_than_what_was_published():
    """The eigenvalues of (I + P) / 2 on a ring of three are (1 + omega) / 2, omega^3 = 1: the 2 x 2 modes by hand."""
    step, amount, curvature, weight = 0.94094, 0.43085, 0.1, 0.55
    best = _curves.Point(0.905909, 0.0, step, amount)
    radii = []
    for root in np.exp(2j * np.pi * np.arange(3) / 3):
        gap = amount * (1 - (1 + root) / 2)
        # x <- (1 - gap) x - step (a x + u),  u <- u - gap (a x + u - b x); on the average u stays 0
        mode = [[1 - gap - step * curvature, -step], [-gap * (curvature - weight), 1 - gap]]
        radii.append(np.abs(np.linalg.eigvals(mode)).max() if gap else 1 - step * curvature)
    assert _curves.on_directed_ring("uDIG", best) == pytest.approx(max(radii), abs=1e-9)
    assert max(radii) > 0.9275 > 0.92 > _curves.published()[RIGHT]["uDIG"][0.5]


@pytest.mark.parametrize("curvature", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("eigenvalue", [-0.4, 0.0, 0.7, 1.0])
def test_the_misprint_of_table_1_is_exact_diffusion_on_moreau_envelopes(curvature, eigenvalue):
    """The printed form, y = x_1 - (amount / 2) u with u = a y, in plain numpy."""
    step, amount = 0.8, 0.6
    u = np.array([curvature / (1 + curvature * amount / 2), 0.0])  # from (x_1, x_2)
    v = np.array([1 - eigenvalue, 0.0])
    printed = np.array([[2.0, -1.0], [1.0, 0.0]]) - step * np.array([u, u]) - amount * np.array([v, v / 2])
    system = theory.state_space(lambda mix: _curves.uncombined_diffusion(step, adozoo.relaxed(mix, amount)))
    found = system.mode(u[0], eigenvalue)
    assert np.sort_complex(np.linalg.eigvals(found)) == pytest.approx(np.sort_complex(np.linalg.eigvals(printed)))
    low, high = _curves.envelope(amount)
    assert low <= u[0] <= high


def problem_and_ring():
    rng = np.random.default_rng(0)
    return adozoo.problems.quadratic(rng.uniform(0.1, 1, (5, 1, 1)), rng.normal(size=(5, 1))), adozoo.graphs.ring(5)


def test_two_steps_of_extra_are_the_zoos_on_a_constant_graph_only():
    problem, graph = problem_and_ring()
    mix, lazy = adozoo.mixing(graph), adozoo.relaxed(adozoo.mixing(graph), 0.4)
    both = [functools.partial(form, 0.7) for form in (_curves.two_step_extra, adozoo.extra)]
    two_step, summed = (theory.exact_rate(form, problem, mix) for form in both)
    assert two_step == pytest.approx(summed, abs=1e-9)
    changing = adozoo.cycle([mix, lazy])
    x, y = (adozoo.simulate(form(changing), problem.gradient, problem.init(), steps=50)[0] for form in both)
    assert np.abs(x - y).max() > 1e-6


def test_the_unified_method_contains_diging_and_extra():
    problem, graph = problem_and_ring()
    mix = adozoo.mixing(graph)
    forms = (lambda mix: _curves.unified(0.1, mix, 0.0, False), functools.partial(adozoo.gradient_tracking, 0.1))
    x, y = (adozoo.simulate(form(mix), problem.gradient, problem.init(), steps=40)[0] for form in forms)
    np.testing.assert_allclose(x, y, atol=1e-12)
    lazy = adozoo.relaxed(mix, 0.5)
    inside = theory.exact_rate(lambda mix: _curves.unified(0.4, mix, 1 / 0.4, True), problem, lazy)
    assert inside == pytest.approx(theory.exact_rate(functools.partial(adozoo.extra, 0.4), problem, mix), abs=1e-9)


@pytest.mark.parametrize("kappa", figure_1.KAPPAS[1:])
def test_the_graph_costs_nothing_up_to_the_kink(kappa):
    end, floor = figure_1.kink(kappa), figure_1.centralised(kappa)
    assert figure_1.closed_form(kappa, end * (1 - 1e-6)) == pytest.approx(floor, abs=1e-12)
    assert figure_1.closed_form(kappa, end * 1.001) > floor + 1e-6


def test_svls_design_is_not_the_best_for_nearly_equal_objectives():
    """Proved in rational arithmetic: a step and gain beat the closed form at kappa = 3/2."""
    found = theory.worst_case_rate(lambda mix: adozoo.svl(0.668, mix, 0.577), 2 / 3, 1.0, 0.5).verify()
    assert found
    assert found.rate < figure_1.closed_form(1.5, 0.5) - 1e-3
