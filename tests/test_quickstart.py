"""The main job: its parts on a small ring, and the whole of it (slow)."""

import numpy as np
import pytest

import adozoo
import theory
from experiments import quickstart


@pytest.fixture(scope="module")
def small():
    return quickstart.build_problem(nodes=4, l2=0.5), quickstart.build_mixing(4)


def test_the_problem_holds_all_samples_split_by_label(small):
    problem, mix = small
    assert problem.dim == 30
    assert int((np.asarray(problem.weights) > 0).sum()) == 569
    labels = [set(np.unique(row[weight > 0])) for row, weight in zip(problem.targets, problem.weights, strict=True)]
    assert sum(len(seen) == 1 for seen in labels) >= 3  # one node at most sees both classes
    assert float(problem.heterogeneity) > 0.005
    assert np.linalg.eigvalsh(np.asarray(mix.matrix))[0] > -1 / 3


def test_every_exact_method_takes_part(small):
    chosen = quickstart.methods(small[1])
    known = adozoo.zoo.entries()
    left_out = {name for name, entry in known.items() if entry.matrices or "tree" in entry.mixings} - {"relay_sgd"}
    left_out |= {name for name, entry in known.items() if entry.family in ("accelerated", "asynchronous")}
    assert set(chosen) >= {name for name, entry in known.items() if entry.exact} - left_out
    assert all(entry.admits(mix) for entry, mix in chosen.values())


def test_one_method_from_tuning_to_table(small, tmp_path):
    problem, mix = small
    entry = adozoo.zoo.entry("extra")
    best, options = quickstart.tune(entry, mix, problem, 200)
    assert options == {}
    assert np.isclose(best * problem.smoothness, quickstart.GRID).any()
    exact = quickstart.evaluate(entry, mix, problem, 900, "best", best, options)
    biased = quickstart.evaluate(
        adozoo.zoo.entry("dsgd_atc"), mix, problem, 900, "shared", 0.5 / problem.smoothness, {}
    )
    assert abs(exact.difference) < 0.01
    assert exact.steps_to_target < 300
    assert exact.bits == 8 * 30 * 64  # two neighbours each, 30 doubles
    assert biased.steps_to_target is None
    assert biased.bias == pytest.approx(biased.predicted_bias, rel=1e-6)
    text = quickstart.table([exact, biased], problem.smoothness)
    assert "never" in text
    assert len({line.count("|") for line in text.splitlines()}) == 1
    quickstart.draw([exact, biased], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_a_run_that_diverges_never_reaches_the_target():
    fit = theory.FittedRate(1.1, 0.0, 0, 1)
    row = quickstart.Row("m", "M", True, "best", 1.0, {}, 2.0, 64.0, fit, 1.1, 0.0, 0.0, np.array([1e-7, np.nan]))
    assert row.steps_to_target is None


@pytest.mark.slow
def test_measured_rates_are_the_exact_ones(tmp_path):
    rows = quickstart.main(output=tmp_path)
    for row in rows:
        if row.exact_method:
            assert abs(row.difference) < 0.01, row.method
            assert row.bias < 1e-9, row.method
        else:
            assert row.bias == pytest.approx(row.predicted_bias, rel=1e-3), row.method
    assert (tmp_path / "convergence.png").exists()
    assert (tmp_path / "table.md").read_text().count("\n") == len(rows) + 2
