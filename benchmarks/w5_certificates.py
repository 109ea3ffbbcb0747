"""W5: worst cases and exact rates read off implementations, gradient descent's beside PEPit's, which can do it too."""

import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import clarabel  # noqa: F401, here so that no first call imports it
import jax
import jax.numpy as jnp
import numpy as np

import adozoo
import theory
from benchmarks import peers
from benchmarks.report import Result
from benchmarks.timing import Cold, Spread, cold, take_turns

X64 = True
MU, SMOOTHNESS = 0.1, 1.0
STEP_SIZE, STEPS = 1.5, (1, 5, 20)
SIGMAS = (0.3, 0.5)
# Step sizes at which the certified rate is below one for both sigmas.
METHODS = {"diging": 0.1, "extra": 0.8, "nids": 1.0, "exact_diffusion": 1.0, "svl": 1.0}
DIM, NODES, MANY_NODES = 8, 64, 10_000
RATE = "rate a step"
READ, KNOWN, PROVED = "read and certified", "certified, matrices known", "proved in rationals"


class Estimate(NamedTuple):
    """What PEPit finds: the largest ||x_n - x*||^2 / ||x_0 - x*||^2, and what the solver says of its work."""

    value: float
    seconds: float
    status: str


def certificate() -> theory.Certificate:
    """The worst case of gradient descent."""
    method = lambda mix: adozoo.all_reduce_sgd(STEP_SIZE, mix)  # noqa: E731
    return theory.worst_case_rate(method, MU, SMOOTHNESS, 0.0, equal_start=True)


def in_pepit(pepit: Any, steps: int) -> Estimate:
    """The same as a performance estimation problem over `steps` steps."""
    problem = pepit.PEP()
    objective = problem.declare_function(pepit.functions.SmoothStronglyConvexFunction, mu=MU, L=SMOOTHNESS)
    optimum, start = objective.stationary_point(), problem.set_initial_point()
    problem.set_initial_condition((start - optimum) ** 2 <= 1)
    x = start
    for _ in range(steps):
        x = x - STEP_SIZE * objective.gradient(x)
    problem.set_performance_metric((x - optimum) ** 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an inaccurate solution, which the status tells as well
        value = problem.solve(wrapper="cvxpy", solver="CLARABEL", verbose=0)  # the dual's: an upper bound
    solved = problem.wrapper.prob
    return Estimate(float(value), solved.solver_stats.solve_time, solved.status)


def method(name: str, mix: adozoo.Mixing, learning_rate: Any = None) -> Any:
    return adozoo.zoo.entry(name).build(METHODS[name] if learning_rate is None else learning_rate, mix)


def tuned(name: str) -> theory.Tuned:
    return theory.tune(partial(method, name), MU, SMOOTHNESS, SIGMAS[-1])


def instance(n: int, one_hessian: bool) -> tuple[Any, adozoo.Mixing]:
    """A ring of nodes whose quadratics differ, perhaps in their optima only."""
    mix = adozoo.mixing(adozoo.graphs.ring(n))
    if not one_hessian:
        return adozoo.problems.random_quadratic(n, DIM, MU, SMOOTHNESS), mix
    hessian = np.diag(np.linspace(MU, SMOOTHNESS, DIM))
    optima = np.random.default_rng(0).normal(size=(n, DIM))
    return adozoo.problems.quadratic(np.broadcast_to(hessian, (n, DIM, DIM)), optima), mix


def program(call: str, **case: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A call and its arguments; none is one compiled program."""
    if call == "exact_rate":
        return theory.exact_rate, (partial(method, case["name"]), *instance(case["n"], case["one_hessian"]))
    if call == "in_pepit":
        return in_pepit, (peers.pepit(), case["steps"])
    return (tuned, (case["name"],)) if call == "tuned" else (certificate, ())


def first_call(quick: bool, call: str, **case: Any) -> Cold:
    return cold("w5_certificates", 1 if quick else 3, call=call, **case)


def run(quick: bool) -> Result:
    result = Result(
        "W5: worst cases and exact rates",
        f"float64, one process, {MU:g}-strongly convex and {SMOOTHNESS:g}-smooth objectives. Gradient descent with "
        f"step size {STEP_SIZE:g}: {peers.PEPIT} is told the method in its own language and bounds ||x_n - x*||^2 "
        f"after n steps, of which the 2n-th root is shown as its rate, through cvxpy {version('cvxpy')}; adozoo reads "
        f"the implementation and certifies a rate for every n. Both call Clarabel {version('clarabel')}. Ratios are "
        "to what adozoo takes to read and certify, and to its certificate alone; the difference is of PEPit's bound "
        "from the certified rate's 2n-th power, relative to it. Methods over graphs: all graphs with "
        f"||W - J|| <= sigma. Exact rates: rings, quadratics with d = {DIM}. Each call that reads an implementation "
        "traces and compiles it anew, warm as well.",
    )
    _gradient_descent(result, quick)
    _certificates(result, quick)
    _tuned(result, quick)
    _exact_rates(result, quick)
    result.notes.append(NOTE)
    return result


def _gradient_descent(result: Result, quick: bool) -> None:
    pepit, found = peers.pepit(), certificate()
    own = {
        READ: (certificate, found.rate),
        KNOWN: (partial(theory.certify, found.system, MU, SMOOTHNESS, 0.0), found.rate),
        PROVED: (found.verify, _proved(found)),
    }
    theirs = {steps: partial(in_pepit, pepit, steps) for steps in STEPS if pepit}
    turns = {who: call for who, (call, _) in own.items()} | theirs
    times = {who: Spread.of(taken) for who, taken in take_turns(turns, 3 if quick else 11).items()}
    first = first_call(quick, "certificate")
    for who, (_, rate) in own.items():
        start = first if who == READ else None
        result.row("gradient descent, any n", f"adozoo, {who}", times[who], start, **{RATE: _digits(rate)})
    for steps, call in theirs.items():
        estimate, spread, start = call(), times[steps], first_call(quick, "in_pepit", steps=steps)
        apart = abs(estimate.value / found.rate ** (2 * steps) - 1)
        if apart > 1e-4:
            raise RuntimeError(f"W5: PEPit's worst case after {steps} steps is not adozoo's: {apart:.3g} apart.")
        more = {
            RATE: _digits(estimate.value ** (0.5 / steps)),
            "times adozoo, warm": spread.median / times[READ].median,
            "times adozoo, cold": start.total / first.total,
            "times the certificate": spread.median / times[KNOWN].median,
            "difference": apart,
            "in the solver, ms": estimate.seconds * 1e3,
            "its status": estimate.status,
        }
        result.row(f"gradient descent, n = {steps}", peers.PEPIT, spread, start, **more)
    if not theirs:
        result.row("gradient descent", f"{peers.PEPIT} ({peers.HOW_TO_GET_PEPIT})")


def _certificates(result: Result, quick: bool) -> None:
    turns: dict[tuple[str, str], Callable[[], Any]] = {}
    rates: dict[tuple[str, str], float] = {}
    for name in METHODS:
        read = partial(theory.state_space, partial(method, name))
        turns[name, "matrices read"], system = read, read()
        for sigma in SIGMAS:
            case = f"{name}, sigma = {sigma}"
            turns[case, KNOWN] = partial(theory.certify, system, MU, SMOOTHNESS, sigma)
            found = turns[case, KNOWN]()
            turns[case, PROVED] = found.verify
            rates[case, KNOWN], rates[case, PROVED] = found.rate, _proved(found)
    times = {turn: Spread.of(taken) for turn, taken in take_turns(turns, 3 if quick else 11).items()}
    for (case, what), spread in times.items():
        rate = {RATE: _digits(rates[case, what])} if (case, what) in rates else {}
        result.row(case, f"adozoo, {what}", spread, **rate)
    slowest = max(spread.median for (_, what), spread in times.items() if what == KNOWN)
    result.target("the slowest certificate, matrices known", slowest * 1e3, most=100, unit=" ms")


def _tuned(result: Result, quick: bool) -> None:
    calls = {name: partial(tuned, name) for name in (("diging", "svl") if quick else METHODS)}
    times = {name: Spread.of(taken) for name, taken in take_turns(calls, 1 if quick else 5).items()}
    for name, spread in times.items():
        parameters, found = tuned(name)
        who = f"adozoo, tuned to step size {parameters['learning_rate']:.4g}"
        start = first_call(quick, "tuned", name=name)
        result.row(f"{name}, sigma = {SIGMAS[-1]}", who, spread, start, **{RATE: _digits(found.rate)})
    slowest = max(spread.median for spread in times.values())
    result.target("the slowest tuned step size, reading included", slowest, most=1, unit=" s")


def _exact_rates(result: Result, quick: bool) -> None:
    for n, one_hessian, names, most in (
        (NODES, False, ("svl",), 2),
        (MANY_NODES, True, ("extra",) if quick else ("diging", "extra", "svl"), 10),
    ):
        cases = {name: {"name": name, "n": n, "one_hessian": one_hessian} for name in names}
        programs = {name: program("exact_rate", **case) for name, case in cases.items()}
        calls = {name: partial(function, *arguments) for name, (function, arguments) in programs.items()}
        times = {name: Spread.of(taken) for name, taken in take_turns(calls, 1 if quick else 5).items()}
        nodes = f"n = {n}, {'one Hessian' if one_hessian else 'Hessians that differ'}"
        for name, spread in times.items():
            who = f"adozoo, exact rate of {_states(*programs[name][1])} states"
            start = first_call(quick, "exact_rate", **cases[name])
            result.row(f"{name}, {nodes}", who, spread, start, **{RATE: _digits(calls[name]())})
        slowest = max(spread.median for spread in times.values())
        result.target(f"the slowest exact rate, {nodes}", slowest, most=most, unit=" s")


def _proved(found: theory.Certificate) -> float:
    proof = found.verify()
    if proof.rate is None:
        raise RuntimeError(f"W5: the certificate {found} is not proved: {proof.reason}.")
    return float(proof.rate)


def _states(factory: Callable[[adozoo.Mixing], Any], problem: Any, mix: adozoo.Mixing) -> int:
    params = problem.init()
    leaves = jax.tree.leaves((params, factory(mix).init(params)))
    return sum(leaf.size for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating))


def _digits(rate: float) -> str:
    return f"{rate:.9f}"


NOTE = """\
PEPit's bound for one step bounds n steps by its n-th power, for gradient descent without loss: that row answers the
same question as adozoo's. Reading an implementation is tracing and compiling it, which costs more than writing down one
step in PEPit; the certificate itself costs less. PEPit's problem grows with n, adozoo's does not."""
