r"""Set what an implemented method does beside what is exact, certified and proved of it.

`compare` runs the method, fits its rate, and asks four questions of it: Does the run move as the linearisation of the
implementation says? Does it end at the optimum? Are the certificate and the theorems above the exact rate, and by how
much? Is it the method that it is said to be? Whatever is contradicted is said in words.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax

import adozoo
from theory import claims
from theory.observation import observe, place
from theory.step_map import Factory, StepMap, read
from theory.verdict import Report, Verdict


def compare(
    factory: Factory,
    problem: Any,
    mix: adozoo.Mixing,
    *,
    steps: int | None = None,
    name: str | None = None,
    like: str | None = None,
    learning_rate: float | None = None,
    parameters: Mapping[str, Any] | None = None,
    exact: bool | None = None,
    equal_start: bool | None = None,
    certificate: bool = True,
    seed: int = 0,
) -> Verdict:
    r"""Measure a method's rate, and judge by it what is claimed of the method.

    The run (float64, exact gradients) starts at a random point that excites all modes and is long enough to reach the
    rounding floor. Its rate is fitted to the distances to the method's own limit, and must be the exact rate, or what
    the linearisation says of the same window of the same run: where the slowest modes are close to each other or
    oscillate, no window shows the asymptotic rate alone. Certificates and theorems must not lie below the exact rate.
    Under a random mixing the exact rate is that of the root mean squared error, and many runs are averaged.

    Args:
      factory: mix -> transformation, all hyper-parameters inside, as `lambda mix: adozoo.extra(0.1, mix)`.
      problem: a problem of `adozoo.problems`; where it is not quadratic, all is said of the linearisation at the limit.
      mix: the mixing.
      steps: how many steps to run; chosen by the exact rate if None.
      name: the method's name in `adozoo.zoo`: its theorems are tried, and that it is exact if the registry says so.
      like: a name in `adozoo.zoo`: is this the same method? Compared are exact rate, limit, certificate and iterates.
        Needs `learning_rate`. Is `name` too, if that is None.
      learning_rate: the step size inside `factory`, for theorems and for `like`.
      parameters: further constants by name: hyper-parameters, symbols of theorems.
      exact: whether the method claims to converge to the optimum; None: if the registry says so of `name`, over this
        kind of mixing.
      equal_start: whether all nodes must start at one point; None: the registry's word, or only where the limit
        depends on the start.
      certificate: whether to certify a worst case, for the problem's mu and L and the largest ||W_t - 11'/n||.
      seed: seed of the start.

    Returns:
      The verdict: print it, or see `.holds`, `.findings`, `.table()`, `.plot()`, `.to_xarray()`.

    Raises:
      ValueError: for an unknown name, or `like` without `learning_rate`.

    Example:
      >>> problem = adozoo.problems.random_quadratic(6, 2, strong_convexity=0.3)
      >>> mix = adozoo.mixing(adozoo.graphs.ring(6))
      >>> verdict = theory.compare(
      ...     lambda mix: adozoo.extra(0.5, mix),
      ...     problem,
      ...     mix,
      ...     name="extra",
      ...     learning_rate=0.5,
      ... )
      >>> verdict.holds, verdict["exact"].rate < verdict["certified"].rate
      (True, True)
    """
    name = like if name is None else name
    entry = None if name is None else adozoo.zoo.entry(name)
    twin = None if like is None else adozoo.zoo.entry(like)
    if twin is not None and learning_rate is None:
        raise ValueError(f"compare: like={like!r} needs learning_rate, the step size inside factory, to build {like}.")
    if equal_start is None and entry is not None:
        equal_start = entry.equal_start or None
    if exact is None and entry is not None:
        exact = entry.exact and entry.admits(mix)
    values = dict(parameters or {}) | ({} if learning_rate is None else {"learning_rate": learning_rate})
    report = Report()
    with jax.enable_x64(True):
        step_map = read(factory, problem, mix)
        start, found = place(step_map, equal_start, seed)
        run = observe(step_map, start, found, steps)
        bias = claims.convergence(report, step_map, found, exact, entry)
        claims.measured(report, found, run)
        own = claims.certified(report, step_map, found, claims.is_equal(start)) if certificate else None
        if entry is not None:
            claims.theorems(report, entry, step_map, found, values, own or "not asked for")
        if twin is not None:
            claims.likeness(report, twin, step_map, found, start, values, own)
    subject = f"A method said to be {like}" if like else entry.title if entry else _name(factory)
    told = "".join(f", {key} {value:g}" for key, value in values.items() if isinstance(value, int | float))
    title = f"{subject}{told}: {_where(step_map)}"
    claimed, findings, violations = tuple(report.claims), tuple(report.findings), tuple(report.violations)
    return Verdict(title, claimed, findings, violations, bias, found.limit, run)


def compare_all(
    names: Iterable[str], problem: Any, mix: adozoo.Mixing, learning_rate: float, **options: Any
) -> list[Verdict]:
    """`compare`, of several registered methods at one step size, with the registry's hyper-parameters.

    Args:
      names: names in `adozoo.zoo`.
      problem: a problem of `adozoo.problems`.
      mix: the mixing; methods that need an exact average get that over the same nodes.
      learning_rate: the step size of all.
      **options: as for `compare`.

    Returns:
      One verdict a method, in order.

    Raises:
      ValueError: for an unknown name, or a mixing that a method refuses.

    Example:
      >>> problem = adozoo.problems.random_quadratic(6, 2, strong_convexity=0.3)
      >>> mix = adozoo.mixing(adozoo.graphs.ring(6))
      >>> verdicts = theory.compare_all(
      ...     ["diging", "dsgd_atc"], problem, mix, 0.1, certificate=False
      ... )
      >>> [verdict.bias < 1e-9 for verdict in verdicts]
      [True, False]
    """
    verdicts = []
    for name in names:
        entry = adozoo.zoo.entry(name)
        over = adozoo.exact_mean(mix.n) if entry.mixings == {"complete"} else mix
        factory = claims.built(entry, {"learning_rate": learning_rate})
        verdicts.append(compare(factory, problem, over, name=name, learning_rate=learning_rate, **options))
    return verdicts


def _name(factory: Factory) -> str:
    name = getattr(factory, "__name__", "<")
    return "A method" if name.startswith("<") else name


def _where(steps: StepMap) -> str:
    """The problem and the mixing, in a few words."""
    problem, mix = steps.problem, steps.mix
    mu, smoothness = problem.constants
    condition = f"condition number {smoothness / mu:.4g}" if mu else "not strongly convex"
    kinds = f"{type(problem).__name__.lower()} problem of dimension {problem.dim}, {condition}"
    return f"{kinds}, on {mix.n} nodes"
