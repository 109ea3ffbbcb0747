"""Tuned parameters: published curves, closed forms, and that no neighbouring point is better."""

import numpy as np
import pytest
import references

import adozoo
import theory

pytest.importorskip("clarabel")

PUBLISHED = references.load("theory_checks")["published_TCNS2020_fig2"]["left"]


def family(name):
    entry = adozoo.zoo.entry(name)
    return lambda mix, learning_rate: entry.build(learning_rate, mix)


@pytest.mark.parametrize(
    ("curve", "name", "sigmas"),
    # What the figure calls AugDGM mixes the tracker before the gradients are added: it is atc_tracking.
    [("NIDS", "nids", (0.3, 0.5)), ("AugDGM", "atc_tracking", (0.4, 0.9))],
)
def test_published_curves(curve, name, sigmas):
    for sigma, published in PUBLISHED[curve]:
        if sigma in sigmas:
            found = theory.tune(family(name), 0.1, 1.0, sigma).certificate
            assert found.rate == pytest.approx(published, abs=2e-5)


def test_the_centralised_optimum_where_the_graph_does_not_matter():
    found = theory.tune(family("exact_diffusion"), 0.1, 1.0, 0.2)
    assert found.certificate.rate == pytest.approx(9 / 11, abs=2e-6)
    assert found.parameters["learning_rate"] == pytest.approx(20 / 11, abs=2e-4)


def test_no_neighbour_is_better():
    found = theory.tune(family("diging"), 0.1, 1.0, 0.4)
    for factor in (0.9, 0.99, 0.999, 1.001, 1.01, 1.1):
        step = found.parameters["learning_rate"] * factor
        other = theory.worst_case_rate(lambda mix, step=step: adozoo.gradient_tracking(step, mix), 0.1, 1.0, 0.4)
        assert other.rate >= found.certificate.rate - 1e-6


def test_two_parameters():
    """SVL is designed for the class: its step size and gain, tuned together, reach the published curve."""
    published = dict(PUBLISHED["SVL"])[0.8]
    ranges = {"learning_rate": (0.01, 4.0), "integral_gain": (0.01, 1.0)}
    found = theory.tune(lambda mix, **values: adozoo.svl(mix=mix, **values), 0.1, 1.0, 0.8, ranges)
    assert found.certificate.rate == pytest.approx(published, abs=1e-4)
    assert set(found.parameters) == set(ranges)


@pytest.mark.slow
def test_relaxed_mixings_are_a_parameter_like_any_other():
    """DIGing is published as improving when its mixing is relaxed as well."""
    made = lambda mix, learning_rate, amount: adozoo.gradient_tracking(learning_rate, adozoo.relaxed(mix, amount))  # noqa: E731
    found = theory.tune(made, 0.1, 1.0, 0.5, {"learning_rate": (1e-3, 2.0), "amount": (0.2, 1.2)})
    plain = theory.tune(family("diging"), 0.1, 1.0, 0.5)
    assert found.certificate.rate < plain.certificate.rate - 1e-3
    assert found.certificate.rate == pytest.approx(0.955959, abs=4e-4)  # published, both parameters optimised


def test_misuse():
    with pytest.raises(ValueError, match="range of learning_rate"):
        theory.tune(family("nids"), 0.1, 1.0, 0.3, {"learning_rate": (0.0, 1.0)})
    with pytest.raises(ValueError, match="not exact"):
        theory.tune(family("dsgd_cta"), 0.1, 1.0, 0.3)
    hopeless = theory.tune(family("atc_tracking"), 0.1, 1.0, 1.0, {"learning_rate": (1.9, 2.0)})
    assert np.isinf(hopeless.certificate.rate)
