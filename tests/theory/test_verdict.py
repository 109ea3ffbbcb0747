"""Claims and verdicts: bounds are judged by the exact rate, and shown as text, JSON, dataset and picture."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest
import sympy

import adozoo
import theory
from theory import bounds, claims, observation
from theory.bounds import symbols
from theory.compare import compare
from theory.verdict import Claim, Report, steps_per_digit, tightness

RATE = 0.1
PROBLEM = adozoo.problems.random_quadratic(6, 2, strong_convexity=0.2, seed=1)
RING = adozoo.mixing(adozoo.graphs.ring(6))


def build(name):
    return lambda mix: adozoo.zoo.entry(name).build(RATE, mix)


def said(report, *words):
    """Whether one of the violations contains all words."""
    return any(all(word in sentence for word in words) for sentence in report.violations)


@pytest.fixture(scope="module")
def extra():
    return compare(build("extra"), PROBLEM, RING, name="extra", learning_rate=RATE)


@pytest.fixture(scope="module")
def diging():
    """DIGing's step map, and what is predicted of it."""
    with jax.enable_x64(True):
        steps = theory.step_map.read(build("diging"), PROBLEM, RING)
        return steps, observation.place(steps)[1]


# Judging bounds.


def theorem(expression, **options):
    return bounds.Bound(
        "made_up", "A statement.", "r", expression, "nobody, never", **{"evidence": "recalled", "rate": True} | options
    )


@pytest.fixture
def judge(monkeypatch, diging):
    """What becomes of one theorem on DIGing: a report with its claim only."""

    def judged(bound, certificate="none"):
        monkeypatch.setattr(bounds, "of_method", lambda method: {bound.name: bound})
        report = Report()
        claims.theorems(report, adozoo.zoo.entry("diging"), *diging, {"learning_rate": RATE}, certificate)
        return report

    return judged


def test_a_theorem_below_the_exact_rate_is_violated(judge):
    report = judge(theorem(1 - symbols.learning_rate * symbols.smoothness))
    (claim,) = report.claims
    assert (claim.source, claim.verdict, claim.evidence) == ("theorem made_up", "VIOLATED", "recalled")
    assert claim.rate == pytest.approx(0.9)
    assert said(report, "Theorem made_up (recalled from memory), 0.900000, is violated: the exact rate is 0.9")


def test_squared_theorems_are_compared_by_their_root_and_their_cost_in_steps(judge, diging):
    report = judge(theorem(sympy.Float(diging[1].rate), squared=True, evidence="derived"))
    (claim,) = report.claims
    assert claim.verdict == "holds"
    assert claim.rate == pytest.approx(np.sqrt(diging[1].rate))
    assert claim.tightness == pytest.approx(2)
    assert report.findings == [f"Theorem made_up, {claim.rate:.6f}, holds; it asks for 2.00 times as many steps."]


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (theorem(symbols.learning_rate / 2, condition=symbols.learning_rate < 0.01), "condition is not met"),
        (theorem(1 - 1 / symbols.steps), "needs steps"),
        (theorem(sympy.Rational(1, 2), of="gradient"), "another quantity"),
    ],
)
def test_theorems_that_do_not_apply_say_why(judge, bound, words):
    report = judge(bound)
    assert report.claims[0].verdict == "n/a"
    assert words in report.claims[0].note
    assert report.findings == []


def test_orders_are_not_compared_and_bounds_above_one_promise_nothing(judge):
    assert judge(theorem(symbols.learning_rate, kind="order")).claims == []
    (claim,) = judge(theorem(1 + symbols.learning_rate)).claims
    assert (claim.verdict, claim.tightness) == ("no promise", np.inf)


def test_equalities_and_lower_bounds(judge, diging, extra):
    exact = sympy.Float(diging[1].rate)
    assert judge(theorem(exact, direction="equal")).claims[0].verdict == "holds"
    assert said(judge(theorem(exact / 2, direction="equal")), "is violated")
    certificate = theory.worst_case_rate(build("diging"), 0.2, 1.0, 0.3)
    for shift, verdict in ((-0.1, "holds"), (0.1, "VIOLATED")):  # of the worst case, which only a certificate knows
        bound = theorem(sympy.Float(certificate.rate + shift), direction="lower")
        assert judge(bound, certificate).claims[0].verdict == verdict
    assert judge(theorem(exact, direction="lower")).claims[0].verdict == "n/a"


def test_a_wrong_certificate_is_caught(monkeypatch, diging):
    true = theory.worst_case_rate

    def wrong(*arguments, **options):
        return dataclasses.replace(true(*arguments, **options), rate=0.5)

    monkeypatch.setattr(claims, "worst_case_rate", wrong)
    report = Report()
    claims.certified(report, *diging, equal=False)
    assert said(report, "certified worst-case rate, 0.500000, is violated: the exact rate is 0.9")
    assert said(report, "certificate is wrong")


def test_without_the_solver_the_certificate_says_what_is_missing(monkeypatch, diging):
    def missing(*arguments, **options):
        raise ImportError("worst_case_rate needs clarabel: pip install 'adozoo[solvers]'.")

    monkeypatch.setattr(claims, "worst_case_rate", missing)
    report = Report()
    claims.certified(report, *diging, equal=False)
    assert "adozoo[solvers]" in report.claims[0].note
    assert report.violations == []


# The verdict itself.


def test_the_table_has_a_line_for_every_claim(extra):
    lines = extra.table().splitlines()
    starts = [line for line in lines if not line.startswith(" ")]
    assert [line.split("  ")[0] for line in starts[2:]] == [claim.source for claim in extra.claims]
    assert max(map(len, lines)) <= 120
    column = lines[0].index("verdict")
    assert [line[column:].split("  ")[0] for line in starts[2:]] == [claim.verdict for claim in extra.claims]
    text = str(extra)
    assert text.startswith("EXTRA, learning_rate 0.1: quadratic problem of dimension 2, condition number 5, on 6 nodes")
    assert text.endswith("Verdict: all that was tested holds")


def test_certificate_and_theorem_of_extra_hold(extra):
    assert extra["certified"].rate >= extra["worst known"].rate - 1e-6
    assert extra["theorem extra_lyapunov"].verdict == "holds"
    assert extra["theorem extra_lyapunov"].tightness > 1
    with pytest.raises(KeyError, match="there are measured, exact"):
        extra["absent"]


def test_the_summary_is_json(extra):
    loaded = json.loads(json.dumps(extra.summary()))
    assert loaded["holds"] is True
    assert [claim["source"] for claim in loaded["claims"]] == [claim.source for claim in extra.claims]


def test_as_a_dataset(extra, tmp_path):
    xr = pytest.importorskip("xarray")
    data = extra.to_xarray()
    assert dict(data.sizes) == {"claim": len(extra.claims), "step": len(extra.observation.steps)}
    assert float(data["rate"].sel(claim="exact")) == extra["exact"].rate
    data.to_netcdf(tmp_path / "verdict.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "verdict.nc", engine="h5netcdf") as loaded:
        np.testing.assert_array_equal(loaded["error"], extra.observation.errors)
        assert loaded.attrs["holds"] == 1


def test_as_a_picture(extra):
    pytest.importorskip("matplotlib")
    axes = extra.plot()
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0] == "run"
    assert [label.split(":")[0] for label in labels[1:]] == [
        claim.source for claim in extra.claims if np.isfinite(claim.rate) and claim.source != "worst known"
    ]
    lines = {line.get_label().split(":")[0]: line for line in axes.get_lines()}
    exact = lines["exact"]
    (begin, end), (high, low) = exact.get_xdata(), exact.get_ydata()
    assert np.log(low / high) / (end - begin) == pytest.approx(np.log(extra["exact"].rate))
    assert axes.get_yscale() == "log"
    axes.figure.canvas.draw()


def test_optional_dependencies_are_named(extra, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"pip install 'adozoo\[experiments\]'"):
        extra.to_xarray()


@pytest.mark.parametrize(("exact", "bound", "times"), [(0.81, 0.9, 2), (0.5, 1.2, np.inf), (1.1, 0.9, np.nan)])
def test_tightness(exact, bound, times):
    assert tightness(exact, bound) == pytest.approx(times, nan_ok=True)


def test_steps_per_digit():
    assert steps_per_digit(0.1) == pytest.approx(1)
    assert steps_per_digit(1.0) == np.inf
    assert steps_per_digit(0.0) == 0
    assert np.isnan(Claim("x", np.nan, "n/a", np.nan, "").steps_per_digit)
