"""The main job's data: measured rates of all methods match what the linearisation at the fixed point says."""

import pytest

import adozoo
import theory
from experiments import quickstart

EXACT = sorted(name for name, (entry, _) in quickstart.methods(quickstart.build_mixing(4)).items() if entry.exact)


@pytest.fixture(scope="module")
def job():
    return quickstart.build_problem(nodes=16, l2=0.1), quickstart.build_mixing(16)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_measured_rate_to_three_digits(job, name):
    """At the main job's shared step size the slowest mode is the average's: one mode, and its rate is read off."""
    problem, mix = job
    entry, over = quickstart.methods(mix)[name]
    step = quickstart.SHARED / problem.smoothness
    verdict = theory.compare(
        lambda mix: entry.build(step, mix), problem, over, name=name, learning_rate=step, certificate=False
    )
    assert verdict.holds
    assert verdict["measured"].rate == pytest.approx(verdict["exact"].rate, abs=5e-4)
    # Of the very window that was fitted, the linearisation says the slope to six digits.
    assert verdict.observation.window_rate == pytest.approx(verdict["measured"].rate, abs=1e-6)


@pytest.mark.parametrize(("name", "step"), [("extra", 5.66), ("nids", 8.0)])
def test_near_the_largest_steps(job, name, step):
    """Where modes crowd, no window shows the slowest one alone, but its slope is predicted all the same."""
    problem, mix = job
    entry, step = adozoo.zoo.entry(name), step / problem.smoothness
    verdict = theory.compare(
        lambda mix: entry.build(step, mix), problem, mix, name=name, learning_rate=step, certificate=False
    )
    assert verdict.holds
    assert verdict.observation.window_rate == pytest.approx(verdict["measured"].rate, abs=1e-5)
