r"""What a verdict says of a method under a random mixing, where the exact rate is that of the root mean squared error.

An average over finitely many runs misses the rare slow ones that rule the mean square, so that a measured rate may
lie below the exact one, but not above. Where the outcomes of the mixing do not share a fixed point, errors settle at a
level instead, which is compared with the exact stationary error.
"""

import numpy as np

import adozoo
from theory.mean_square import COMMON, MeanSquareRate
from theory.observation import RUNS, SAME_POINT, Observation, Prediction, distance, norm
from theory.step_map import StepMap
from theory.verdict import EXACT, MEASURED, Claim, Report, growth

SLOWER = 0.02
"""Averages over runs may be slower than the exact rate by this part of the exponent, by chance."""
DEVIATIONS = 5
"""A settled error is off if it is this many standard errors from the exact one."""


def convergence(report: Report, steps: StepMap, found: Prediction, exact: bool | None) -> float:
    """Where does it converge to, in mean square? Returns the bias of the mean's fixed point."""
    moments = found.mean_square
    assert moments is not None
    optimum = adozoo.replicate(steps.problem.optimum, steps.problem.n)
    bias, size = distance(found.limit, optimum), norm(optimum)
    there = bias <= SAME_POINT * (1 + size)
    if moments.factor >= 1:
        mean = "converges" if moments.mean_rate < 1 - 1e-9 else "does not converge either"
        report.say(f"{growth(moments.rate, 'root mean squared errors')} Their mean {mean}, at {moments.mean_rate:.6g}.")
    if there and settles_at_zero(moments, size):
        report.say(f"Exact: every outcome of the mixing keeps the optimum fixed, to {bias:.1e}.")
        return bias
    where = "the optimum" if there else f"a point at distance {bias:.3g} from the optimum"
    level = ""
    if moments.factor < 1:
        level = f", and errors settle at {np.sqrt(moments.node_error):.3g} (root mean square)"
        if np.isinf(moments.node_error):
            level = ", and errors spread for ever: the outcomes move what none of them lets decay"
    report.say(f"Not exact: on average its fixed point is {where}{level}.", not exact)
    return bias


def settles_at_zero(moments: MeanSquareRate, size: float) -> bool:
    """Whether all outcomes of the mixing share one fixed point."""
    return moments.common_fixed_point <= 1e3 * COMMON * (1 + size)


def measured(report: Report, found: Prediction, run: Observation) -> None:
    """Do averages over runs shrink no more slowly than the mean square, and settle where it does?"""
    moments, fit = found.mean_square, run.fit
    assert moments is not None
    about = f"root mean square; the mean's rate is {moments.mean_rate:.6f}"
    exact = Claim(EXACT, moments.rate, "reference", np.nan, "second moments", about)
    note = f"± {fit.uncertainty:.1g}, root mean square of {RUNS} runs of {run.steps[-1]} steps"
    if moments.factor < 1 and 0 < moments.node_error < np.inf:
        level, error = run.settled
        right = abs(level - moments.node_error) <= DEVIATIONS * error
        report.claims += [Claim(MEASURED, np.nan, "agrees" if right else "OFF", np.nan, "run", "errors settle"), exact]
        found_out = f"{level:.6g} ± {error:.1g}, exactly it is {moments.node_error:.6g}"
        wrong = "" if right else ", which is off"
        report.say(f"The mean squared error settles at {found_out}{wrong}.", right)
        return
    if np.isnan(fit.rate) or (np.isinf(moments.node_error) and moments.factor < 1):
        report.claims += [Claim(MEASURED, fit.rate, "n/a", np.nan, "run", note), exact]
        return
    slower = np.log(fit.rate) - np.log(moments.rate)
    right = slower <= max(3 * fit.uncertainty, SLOWER * abs(np.log(moments.rate)))
    report.claims += [Claim(MEASURED, fit.rate, "agrees" if right else "OFF", np.nan, "run", note), exact]
    if right:
        report.say(
            f"The measured rate, {fit.rate:.6f}, is not above that of the exact mean square, {moments.rate:.6f}; below "
            "it may lie, since few runs miss the rare slow ones."
        )
    else:
        report.say(
            f"The measured rate is off: {fit.rate:.6f} ± {fit.uncertainty:.1g}, above the exact mean-square rate "
            f"{moments.rate:.6f}.",
            holds=False,
        )
