"""The framework of theorems as objects: evaluation, LaTeX, evidence, and a search that finds planted violations."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy

import adozoo
import theory
from theory import bounds
from theory.bounds import Bound, Search
from theory.bounds.symbols import sigma, steps, symbol

ENTRIES = bounds.entries()
TRIED = sorted(name for name, bound in ENTRIES.items() if bound.kind == "bound" and bound.search is not None)
PROVED = [name for name in TRIED if ENTRIES[name].evidence != "recalled"]


def planted(measure, dimension=3, **fields):
    """A bound of ours, to be broken."""
    known = {
        "name": "planted",
        "statement": "A test.",
        "quantity": "q",
        "expression": sympy.Integer(1),
        "reference": "none",
        "evidence": "recalled",
    }
    return Bound(**{**known, **fields}, search=Search(dimension, measure))


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_every_entry_is_complete(name):
    bound = ENTRIES[name]
    assert bound.name == name
    assert bound.statement[0].isupper() or bound.statement[0].isdigit()
    assert bound.statement.endswith((".", ")"))
    assert bound.reference
    assert set(bound.methods) <= set(adozoo.zoo.entries())
    assert bound.quantity in bound.latex()
    assert bound.evidence in str(bound)
    if bound.kind == "order":
        assert "order of magnitude" in str(bound)
        assert bound.search is None
    for symbol_name in bound.symbols:
        assert bounds.MEANINGS[symbol_name]


@pytest.mark.parametrize("name", PROVED)
def test_no_violation_of_what_is_derived_or_checked(name):
    found = ENTRIES[name].falsify(300)
    assert found.instances >= 300
    assert not found.violated, found
    assert found.worst_ratio > 0.01  # a bound that no instance comes near has not been tried


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_no_violation_over_ten_thousand_instances(seed):
    rows = bounds.falsify_all(10_000, seed)
    assert [row.name for row in rows] == sorted(ENTRIES)
    tried = [row for row in rows if row.instances]
    assert {row.name for row in tried} == set(TRIED)
    assert [row for row in tried if row.evidence != "recalled" and (row.violated or row.instances < 10_000)] == []


def test_falsify_finds_a_violation_in_a_corner_of_the_cube():
    target = np.array([0.83, 0.21, 0.58])

    def measure(points):  # above 1 only within 0.03 of the target: 1e-4 of the cube
        return 1.0009 - np.sum((points - target) ** 2, axis=1), {}

    bound = planted(measure)
    found = bound.falsify(2_000)
    assert found.violated
    assert found.worst_ratio == pytest.approx(1.0009, abs=1e-5)
    np.testing.assert_allclose(found.point, target, atol=0.01)
    again = bound.falsify(2_000)
    assert again.worst_ratio == found.worst_ratio
    np.testing.assert_array_equal(again.point, found.point)


def test_faces_are_tried():
    bound = planted(lambda points: (np.where((points == 1).all(1), 2.0, 0.5), {}))
    assert bound.falsify(500).worst_ratio == 2.0


def test_only_instances_that_meet_the_conditions_count():
    def measure(points):
        return np.where(points[:, 0] > 0.5, 10.0, points[:, 0]), {"sigma": points[:, 0]}

    found = planted(measure, condition=sigma < 0.5).falsify(1_000)
    assert not found.violated
    assert found.values["sigma"] < 0.5
    assert planted(measure, expression=sympy.Integer(1) + 0 * sigma).falsify(1_000).violated
    with pytest.raises(ValueError, match="no instance met the conditions"):
        planted(measure, condition=sigma > 2).falsify(100)


def test_what_cannot_be_measured_is_left_out_and_what_diverges_is_not():
    nan = planted(lambda points: (np.where(points[:, 0] > 0.1, np.nan, 0.5), {}))
    assert nan.falsify(200).worst_ratio == 0.5
    infinite = planted(lambda points: (np.where(points[:, 0] > 0.9, np.inf, 0.5), {}))
    assert infinite.falsify(200).violated


@pytest.mark.parametrize(
    ("direction", "expression", "measured", "ratio"),
    [
        ("upper", 2, 1.0, 0.5),
        ("upper", 2, 3.0, 1.5),
        ("upper", 2, -1.0, -0.5),
        ("upper", -2, -4.0, 0.5),
        ("upper", -2, -1.0, 2.0),
        ("upper", -2, 1.0, math.inf),
        ("lower", 2, 4.0, 0.5),
        ("lower", 2, 1.0, 2.0),
        ("lower", 2, -1.0, math.inf),
        ("lower", -2, -1.0, 0.5),
        ("lower", -2, -4.0, 2.0),
        ("lower", -2, 1.0, -2.0),
        ("equal", 2, 1.0, 2.0),
        ("equal", 2, 4.0, 2.0),
    ],
)
def test_ratios_of_either_sign(direction, expression, measured, ratio):
    bound = planted(
        lambda points: (np.full(len(points), measured), {}), expression=sympy.Integer(expression), direction=direction
    )
    assert bound.falsify(20).worst_ratio == pytest.approx(ratio)
    assert bound.falsify(20).violated == (ratio > 1)


def test_rates_compare_decays():
    def tried(measured, promised, scale=1.0, **fields):
        bound = planted(
            lambda points: (np.full(len(points), measured), {}), expression=sympy.Float(promised), rate=True, **fields
        )
        return bound.falsify(20, scale=scale)

    assert tried(0.99, 0.999).worst_ratio == pytest.approx(math.log(0.999) / math.log(0.99), rel=1e-6)
    assert tried(0.999, 0.99).violated
    assert tried(1.01, 0.99).worst_ratio == math.inf
    assert not tried(0.99, 1.01).violated
    assert not tried(0.81, 0.81).violated
    assert tried(0.81, 0.81, scale=0.5).worst_ratio == pytest.approx(2)
    assert tried(0.99, 0.999, direction="lower").violated
    assert tried(0.999, 0.99, direction="lower").worst_ratio == pytest.approx(0.1, rel=0.02)


def test_a_halved_constant_is_found_where_the_bound_is_tight():
    for name in ("nids_lyapunov", "extra_lyapunov", "dgd", "gradient_descent_convex", "dgd_consensus", "fastmix"):
        assert ENTRIES[name].falsify(200, scale=0.5).violated, name


def test_orders_and_what_has_no_search_refuse():
    with pytest.raises(ValueError, match="cannot be falsified"):
        bounds.entry("scaffold").falsify()
    with pytest.raises(ValueError, match="cannot be falsified"):
        dataclasses.replace(bounds.entry("nids"), search=None).falsify()
    with pytest.raises(ValueError, match="instances must be positive"):
        bounds.entry("nids").falsify(0)


def test_evaluate_by_hand():
    bound = bounds.entry("nids")
    given = {"learning_rate": 0.5, "strong_convexity": 0.2, "smoothness": 1.0, "lambda_2": 0.7}
    found = bound.evaluate(**given)
    assert found.value == pytest.approx(max(1 - 1.5 * 0.2 * 0.5, 1 - 0.3 / 2))
    assert found.rate == pytest.approx(math.sqrt(found.value))
    assert found.holds
    assert found.evidence == "derived"
    assert found.values == given
    assert not bound.evaluate(**{**given, "learning_rate": 2.1}).holds
    assert math.isnan(
        bounds.entry("dgd_consensus")
        .evaluate(learning_rate=0.1, gradient_bound=1.0, sigma=0.5, smoothness=1.0, lambda_n=0.0)
        .rate
    )


def test_missing_symbols_are_named():
    with pytest.raises(ValueError, match="no value for learning_rate"):
        bounds.entry("nids").evaluate(strong_convexity=0.1, smoothness=1.0, lambda_2=0.5)
    with pytest.raises(ValueError, match="no value for lambda_2"):
        bounds.entry("nids").evaluate(adozoo.problems.random_quadratic(4, 2), learning_rate=0.5)


def test_arrays_in_place_of_symbols():
    value, holds = bounds.entry("gradient_descent").at(
        learning_rate=np.array([0.5, 1.5, 2.5]), strong_convexity=0.1, smoothness=1.0
    )
    np.testing.assert_allclose(value, [0.95, 0.85, 1.5])
    np.testing.assert_array_equal(holds, [True, True, False])


def test_latex():
    body = r"\sup_t \|x^t - \bar x^t\| \le \frac{D \eta}{1 - \sigma}"
    condition = r"\quad\text{if } \eta L \leq 1 + \lambda_n \wedge \sigma < 1"
    assert bounds.entry("dgd_consensus").latex() == f"{body} {condition}"
    assert r"= O\left(" in bounds.entry("scaffold").latex()
    assert r"= \Omega\left(" in bounds.entry("fixed_graph_lower_bound").latex()


def test_names_are_unique_and_near_ones_are_offered():
    with pytest.raises(ValueError, match=r"Did you mean nids"):
        bounds.entry("nid")
    assert set(bounds.of_method("extra")) >= {"extra_lyapunov", "extra_step_limit", "extra_large_steps"}
    assert bounds.of_method("nothing") == {}


def test_a_symbol_has_one_meaning_and_a_bound_only_known_symbols():
    assert symbol("steps", "T", bounds.MEANINGS["steps"]) == steps
    with pytest.raises(ValueError, match="already means"):
        symbol("steps", "T", "something else")
    with pytest.raises(ValueError, match="has no meaning on record"):
        planted(None, expression=sympy.Symbol("unheard_of"))
    with pytest.raises(ValueError, match="evidence must be one of"):
        planted(None, evidence="believed")


def test_facts_of_a_problem():
    problem = adozoo.problems.quadratic(jnp.array([[[1.0]], [[3.0]]]), jnp.array([[2.0], [-1.0]]), noise=0.5)
    found = bounds.facts(
        ["initial_gap", "initial_distance", "gradient_bound", "gradient_variance", "heterogeneity", "smoothness"],
        problem,
    )
    optimum = -1 / 4
    local = [0.5 * (0 - 2.0) ** 2, 1.5 * (0 + 1.0) ** 2]
    at_optimum = (0.5 * (optimum - 2) ** 2 + 1.5 * (optimum + 1) ** 2) / 2
    assert found["initial_distance"] == pytest.approx(0.25)
    assert found["initial_gap"] == pytest.approx(sum(local) / 2 - at_optimum)
    assert found["gradient_bound"] == pytest.approx(math.sqrt(2 * 3 * sum(local)))
    assert found["gradient_variance"] == pytest.approx(0.25)
    assert found["heterogeneity"] == pytest.approx(((optimum - 2) ** 2 + 9 * (optimum + 1) ** 2) / 2)


def test_facts_of_a_mixing():
    ring = adozoo.mixing(adozoo.graphs.ring(5))
    names = ["lambda_2", "lambda_n", "sigma", "nodes", "gossip_condition", "contraction", "consensus_rate"]
    found = bounds.facts([*names, "steps"], mix=ring)
    second, last = (1 + 2 * math.cos(2 * math.pi / 5)) / 3, (1 + 2 * math.cos(4 * math.pi / 5)) / 3
    assert found == pytest.approx(
        {
            "lambda_2": second,
            "lambda_n": last,
            "sigma": second,
            "nodes": 5,
            "gossip_condition": (1 - last) / (1 - second),
            "contraction": second**2,
            "consensus_rate": 1 - second**2,
        }
    )
    assert "sigma" not in bounds.facts(["sigma"], mix=ring, given={"sigma": 0.1})
    lazy = adozoo.mixing(adozoo.weights.lazy(ring.matrix))
    varying = bounds.facts(["sigma"], mix=adozoo.cycle([ring, lazy]))  # its worst step, not the product of a period
    assert varying["sigma"] == pytest.approx((1 + second) / 2)
    pairs = adozoo.random_edge(adozoo.graphs.ring(5), jax.random.key(0))
    random = bounds.facts(["contraction", "consensus_rate"], mix=pairs)  # lambda_2(I - Lap / (2 |E|))
    assert random["contraction"] == pytest.approx(1 - (2 - 2 * math.cos(2 * math.pi / 5)) / 10)
    assert random["consensus_rate"] == pytest.approx(1 - random["contraction"])


def test_rates_of_a_method_hold_for_the_implementation():
    problem = adozoo.problems.random_quadratic(6, 2, seed=1)
    mix = adozoo.mixing(adozoo.weights.lazy(adozoo.mixing(adozoo.graphs.ring(6)).matrix))
    for name in ("dsgd_cta", "extra", "aug_dgm", "nids"):
        entry = adozoo.zoo.entry(name)
        exact = theory.exact_rate(lambda mix, entry=entry: entry.build(0.15, mix), problem, mix)
        found = {key: one for key, one in bounds.rates(name, problem, mix, learning_rate=0.15).items() if one.holds}
        assert found, name
        for one in found.values():
            assert exact <= one.rate * (1 + 1e-9)
            assert one.rate < 1
    assert bounds.rates("nids", problem, mix) == {}  # without a step size nothing can be said
