r"""The questions that a verdict answers, one function each: they add claims, and findings in words, to a report."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

import adozoo
from adozoo.zoo import Entry
from theory import bounds, random_claims
from theory.bounds import Bound
from theory.certificate import Certificate, worst_case_rate
from theory.matrices import period_matrices
from theory.observation import SAME_POINT, Observation, Prediction, distance, is_random, norm, place
from theory.step_map import Factory, StepMap, read
from theory.verdict import CERTIFIED, EXACT, LIKE, LOWER, MEASURED, THEOREM, Claim, Report, growth, tightness

AGREEMENT = 1e-3
"""Exponents ln(rate) that differ by less than this, relatively, agree."""
SLACK = 1e-6
"""Certificates and theorems below the exact rate by no more than this are rounding, not violations."""
SAME_RATE, SAME_CERTIFICATE, SAME_ITERATES = 1e-7, 1e-5, 1e-9
"""How closely a method must follow the one that it is said to be."""
COMPARED = 30
"""Over how many steps the iterates of two methods are compared."""
ERROR_NORMS = ("nodes", "lyapunov")
"""What a theorem must bound for its rate to be one of all nodes' errors."""


def built(entry: Entry, values: Mapping[str, Any]) -> Factory:
    """mix -> a registered method, with the learning rate and those of its hyper-parameters that are among `values`."""
    options = {name: value for name, value in values.items() if name in entry.hyperparameters}
    return lambda mix: entry.build(values["learning_rate"], mix, **options)


def convergence(report: Report, steps: StepMap, found: Prediction, exact: bool | None, entry: Entry | None) -> float:
    """Where does it converge to, if anywhere? Returns the bias."""
    if steps.mix.stochastic == "doubly" and getattr(steps.mix, "period", 1) is not None:
        try:
            period_matrices(steps.mix)
        except ValueError as error:
            report.say(f"The mixing is not the doubly stochastic one that it says it is. {error}.", holds=False)
    if found.mean_square is not None:
        return random_claims.convergence(report, steps, found, exact)
    if found.drift:
        report.say(
            f"No limit: a conserved quantity drifts, by {found.drift:.3g} in a period, so that params or state grow "
            "for ever.",
            holds=False,
        )
        return np.inf
    if found.limit is None:
        report.say(f"No exact rate. {found.reason}")
        return np.nan
    optimum = adozoo.replicate(steps.problem.optimum, steps.problem.n)
    bias, size = distance(found.limit, optimum), norm(optimum)
    if found.rate >= 1:
        report.say(growth(found.rate, "errors"))
    if bias <= SAME_POINT * (1 + size):
        report.say(f"Exact: its fixed point is the optimum, to {bias:.1e}.")
        return bias
    share = f", {100 * bias / size:.3g} % of ||x*||" if size else ""
    what = "its fixed point is" if found.rate >= 1 else "it converges to"
    registered = "" if entry is None else f" {entry.name} is registered as {'' if entry.exact else 'not '}exact."
    report.say(f"Not exact: {what} a point at distance {bias:.3g} from the optimum{share}.{registered}", not exact)
    return bias


def measured(report: Report, found: Prediction, run: Observation) -> None:
    """Does the run move as the linearisation says?

    The fitted window decides, where the linearisation can be followed through it: no window shows the asymptotic rate
    alone where the slowest modes oscillate or lie close together.
    """
    if found.mean_square is not None:
        return random_claims.measured(report, found, run)
    fit, window = run.fit, run.window_rate
    known = np.isfinite(found.rate) and not found.drift
    if np.isnan(fit.rate):
        note = f"only {fit.stop} of {run.steps[-1]} steps above the rounding floor, too few for a rate"
        report.claims.append(Claim(MEASURED, np.nan, "n/a", np.nan, "run", note))
        report.say(f"The run shows {note}.")
    elif known and found.rate >= 1 and not run.affine:
        report.claims.append(Claim(MEASURED, fit.rate, "n/a", np.nan, "run", "far from the fixed point"))
        report.say("The run leaves the neighbourhood of the fixed point, of which alone the exact rate speaks.")
    else:
        close = agree(fit.rate, found.rate) or abs(fit.rate - found.rate) <= fit.uncertainty
        right = agree(fit.rate, window) if np.isfinite(window) else close
        note = f"± {fit.uncertainty:.1g}, fitted to steps {fit.start} to {fit.stop} of {run.steps[-1]}"
        verdict = "n/a" if not known else "agrees" if right else "OFF"
        report.claims.append(Claim(MEASURED, fit.rate, verdict, np.nan, "run", note))
        if known:
            said = window if np.isfinite(window) else found.rate
            _judge_run(report, fit.rate, fit.uncertainty, said, None if close else found.rate, right)
    if np.isfinite(found.rate):
        note = "at least 1, since a conserved quantity drifts" if found.drift else ""
        report.claims.append(Claim(EXACT, found.rate, "reference", np.nan, "Jacobian", note))


def _judge_run(
    report: Report, rate: float, uncertainty: float, said: float, asymptotic: float | None, right: bool
) -> None:
    if right:
        later = ""
        if asymptotic is not None:
            later = f" Asymptotically it is {asymptotic:.6f}: the window does not show the slowest mode alone."
        report.say(f"The measured rate, {rate:.6f}, is what the linearisation says of the same steps.{later}")
    else:
        report.say(
            f"The measured rate is off: {rate:.6f} ± {uncertainty:.1g}, where the implementation's own linearisation "
            f"says {said:.6f} of the same steps.",
            holds=False,
        )


def agree(first: float, second: float, tolerance: float = AGREEMENT) -> bool:
    """Whether two rates have the same exponent, ln(rate), up to a relative tolerance.

    Example:
      >>> theory.claims.agree(0.99, 0.990001), theory.claims.agree(0.99, 0.9901)
      (True, False)
    """
    if not (first > 0 and second > 0):
        return first == second
    exponents = np.log([first, second])
    return bool(abs(exponents[0] - exponents[1]) <= max(tolerance * abs(exponents[1]), 1e-9))


def certified(report: Report, steps: StepMap, found: Prediction, equal: bool) -> Certificate | str:
    """The worst case over the problem's class, as a bracket; or the reason why there is none."""
    outcome = certificate(steps.factory, steps, equal)
    if isinstance(outcome, str):
        report.claims.append(Claim(CERTIFIED, np.nan, "n/a", np.nan, "LMI", _first_sentence(outcome)))
        return outcome
    note = f"for all mu = {outcome.strong_convexity:.4g}, L = {outcome.smoothness:.4g}, "
    note += f"||W_t - J|| <= {outcome.sigma:.4g}"
    claim = _upper(CERTIFIED, outcome.rate, found, "LMI", note)
    report.claims.append(claim)
    _judge(report, claim, "The certified worst-case rate", found)
    bracket = "holds" if outcome.lower <= outcome.rate + SLACK else "VIOLATED"
    report.claims.append(Claim(LOWER, outcome.lower, bracket, np.nan, "instance", "the slowest known of that class"))
    if bracket == "VIOLATED":
        report.say(
            f"The certificate is wrong: an instance of its class has the rate {outcome.lower:.6f}, above the certified "
            f"{outcome.rate:.6f}.",
            holds=False,
        )
    return outcome


def certificate(factory: Factory, steps: StepMap, equal: bool) -> Certificate | str:
    """`theory.worst_case_rate` for the class of the step map's problem and mixing, or why it is refused."""
    if is_random(steps.mix):
        return "not for random mixings"
    try:
        sigma = min(bounds.facts(["sigma"], mix=steps.mix)["sigma"], 1.0)
        sigma = 0.0 if sigma < 1e-12 else sigma
        mu, smoothness = steps.problem.constants
        return worst_case_rate(factory, mu, smoothness, sigma, equal_start=equal)
    except (ValueError, ImportError) as error:
        return str(error)


def theorems(
    report: Report, entry: Entry, steps: StepMap, found: Prediction, values: Mapping[str, Any], own: Certificate | str
) -> None:
    """Every theorem on the method's rate."""
    for name, bound in bounds.of_method(entry.name).items():
        if not bound.rate or bound.kind != "bound":
            continue
        try:
            reason, rate = _applies(bound, entry, steps, values)
        except ValueError as error:  # a mixing without the eigenvalues that the theorem is written in
            reason, rate = str(error), np.nan
        if reason:
            claim = Claim(THEOREM + name, np.nan, "n/a", np.nan, bound.evidence, _first_sentence(reason))
        elif bound.direction == "upper":
            claim = _upper(THEOREM + name, rate, found, bound.evidence, bound.reference)
        elif bound.direction == "equal":
            verdict = "n/a" if np.isnan(found.rate) else "holds" if agree(rate, found.rate) else "VIOLATED"
            claim = Claim(THEOREM + name, rate, verdict, np.nan, bound.evidence, bound.reference)
        else:  # a lower bound speaks of the worst case, which only a certificate knows
            verdict = "n/a" if isinstance(own, str) else "holds" if rate <= own.rate + SLACK else "VIOLATED"
            claim = Claim(THEOREM + name, rate, verdict, np.nan, bound.evidence, bound.reference)
        report.claims.append(claim)
        recalled = " (recalled from memory)" if bound.evidence == "recalled" else ""
        _judge(report, claim, f"Theorem {name}{recalled}", found)


def _applies(bound: Bound, entry: Entry, steps: StepMap, values: Mapping[str, Any]) -> tuple[str, float]:
    """Why a theorem says nothing here (else ""), and its rate."""
    only_mean = bound.of == "mean" and entry.mixings == {"complete"}  # there, all nodes are their mean
    if bound.direction == "upper" and bound.of not in ERROR_NORMS and not only_mean:
        return f"bounds another quantity: {bound.of}", np.nan
    if not entry.admits(steps.mix):
        return f"the theory of {entry.name} does not cover this mixing", np.nan
    known = bounds.facts(bound.symbols, steps.problem, steps.mix, values) | dict(values)
    if missing := [symbol for symbol in bound.symbols if symbol not in known]:
        return f"needs {', '.join(missing)}", np.nan
    evaluation = bound.evaluate(**{symbol: known[symbol] for symbol in bound.symbols})
    if evaluation.holds:
        return "", evaluation.rate
    spaced = re.sub(r"(?<!\*)([*/])(?!\*)", r" \1 ", str(bound.condition))  # so that long ones can be broken
    return f"its condition is not met: {spaced}", np.nan


def _upper(source: str, rate: float, found: Prediction, evidence: str, note: str) -> Claim:
    """An upper bound beside the exact rate."""
    verdict = "no promise" if rate >= 1 else "holds"
    if found.rate > rate + SLACK:
        verdict = "VIOLATED"
    elif np.isnan(found.rate):
        verdict = "n/a"
    return Claim(source, rate, verdict, tightness(found.rate, rate), evidence, note)


def _judge(report: Report, claim: Claim, what: str, found: Prediction) -> None:
    if claim.verdict == "VIOLATED":
        report.say(f"{what}, {claim.rate:.6f}, is violated: the exact rate is {found.rate:.6f}.", holds=False)
    elif claim.verdict == "holds" and np.isfinite(claim.tightness):
        report.say(f"{what}, {claim.rate:.6f}, holds; it asks for {claim.tightness:.2f} times as many steps.")


def likeness(
    report: Report,
    twin: Entry,
    steps: StepMap,
    found: Prediction,
    start: PyTree,
    values: Mapping[str, Any],
    own: Certificate | str | None,
) -> None:
    """Is this the registered method, by exact rate, limit, certificate (unless `own` is None) and iterates?"""
    other = read(built(twin, values), steps.problem, steps.mix)
    equal = is_equal(start)
    _, theirs = place(other, equal)
    same, different = [], []

    def tell(alike: bool, what: str, difference: str) -> None:
        (same if alike else different).append(what if alike else difference)

    alike = agree(found.rate, theirs.rate, SAME_RATE) or bool(np.isnan(found.rate) and np.isnan(theirs.rate))
    tell(alike, "exact rate", f"its exact rate is {found.rate:.6f} instead of {theirs.rate:.6f}")
    verdict = "same" if alike else "DIFFERS"
    report.claims.append(Claim(LIKE + twin.name, theirs.rate, verdict, np.nan, "Jacobian", "what is registered"))
    if found.limit is not None and theirs.limit is not None:
        apart = distance(found.limit, theirs.limit)
        tell(apart <= SAME_POINT * (1 + norm(theirs.limit)), "limit", f"its limit is at distance {apart:.3g}")
    elif found.limit is not None or theirs.limit is not None:
        tell(False, "", f"{'it' if found.limit is None else twin.name} has no limit")
    if own is not None:
        registered = certificate(built(twin, values), steps, equal)
        if not isinstance(own, str) and not isinstance(registered, str):
            close = own.rate == registered.rate or abs(own.rate - registered.rate) <= SAME_CERTIFICATE
            tell(close, "certificate", f"its certificate is {own.rate:.6f} instead of {registered.rate:.6f}")
        elif not (isinstance(own, str) and isinstance(registered, str)):
            tell(False, "", f"{'it' if isinstance(own, str) else twin.name} has no certificate")
    step, apart = _parting(steps, other, start)
    tell(step is None, "iterates", f"its iterates part from step {step} on, by {apart:.2g}")
    if different:
        report.say(f"Not {twin.name}: {'; '.join(different)}.", holds=False)
    else:
        report.say(f"The same as {twin.name} in {', '.join(same[:-1])} and {same[-1]}.")


def is_equal(start: PyTree) -> bool:
    """Whether all nodes start at one point."""
    return all(bool(np.all(np.asarray(leaf) == np.asarray(leaf)[:1])) for leaf in jax.tree.leaves(start))


def _parting(steps: StepMap, other: StepMap, start: PyTree) -> tuple[int | None, float]:
    """The first step after which the evaluated params of two methods differ, and by how much."""
    flat = ravel_pytree(start)[0]
    mine, theirs = (steps.begin(flat), steps.fixed), (other.begin(flat), other.fixed)
    for step in range(1, COMPARED + 1):
        mine, theirs = steps.one_step(*mine), other.one_step(*theirs)
        first, second = steps.answer(mine[0]), other.answer(theirs[0])
        apart = distance(first, second)
        if not apart <= SAME_ITERATES * (1 + norm(second)):
            return step, apart
    return None, 0.0


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].removesuffix(".")
