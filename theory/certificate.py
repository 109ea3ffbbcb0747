r"""Worst-case certificates of implemented methods, over all objectives and graphs of a class, as a bracket.

`worst_case_rate` reads the method's matrices off its implementation (`theory.extraction`), finds by bisection the
smallest rate that the matrix inequalities of `theory.lmi` certify, and sets beside it the worst instance that is known
exactly (`theory.modal`): lower <= truth <= rate.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from adozoo._mixings import Mixing
from theory.extraction import EXACT_TOLERANCE, Extractor, StateSpace
from theory.lmi import Inequality, inequalities
from theory.modal import Instance, worst_instance
from theory.rational import RationalSystem

TOLERANCE = 1e-7
LARGEST = 2.0
MARGINS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


@dataclass(frozen=True)
class Proof:
    r"""The outcome of checking a certificate in exact arithmetic; true if it holds.

    Attributes:
      holds: whether every inequality was verified.
      rate: the proved rate \rho, a little above the certificate's; None if nothing was proved.
      reason: what was verified, or what failed.
    """

    holds: bool
    rate: Fraction | None
    reason: str

    def __bool__(self) -> bool:
        return self.holds


@dataclass(frozen=True, eq=False)
class Certificate:
    r"""A bracket of the worst-case rate, ||x_i^t - x^*|| <= c \rho^t for all members of the class.

    Attributes:
      rate: \rho, certified up to rounding (`verify` removes that doubt); inf where none below
        `theory.certificate.LARGEST` is. At or above 1 nothing is promised but a bound on how fast errors grow.
      lower: the rate of `instance`, which no certificate can undercut.
      instance: the slowest instance known exactly.
      strong_convexity, smoothness, sigma: the class.
      system: the method's matrices.
      P, Q, R: the Lyapunov function: \sum_i decays by \rho^2 a step; None if there is none.
      undirected: whether the class has symmetric W_t only.
    """

    rate: float
    lower: float
    instance: Instance
    strong_convexity: float
    smoothness: float
    sigma: float
    system: StateSpace
    P: np.ndarray | None
    Q: np.ndarray | None
    R: np.ndarray | None
    undirected: bool = False

    @property
    def converges(self) -> bool | None:
        """True if certified, False if an instance diverges, None if the bracket leaves it open."""
        return True if self.rate < 1 else False if self.lower > 1 else None

    def verify(self) -> Proof:
        """Prove the rate in exact rational arithmetic, for the simplest fractions near the method's coefficients.

        Solutions at rates a little larger (by 1e-7, 1e-6, ... 1e-2) lie inside the cone and survive rounding; the first
        that passes is the proof.

        Example:
          >>> found = theory.worst_case_rate(lambda mix: adozoo.nids(1.0, mix), 0.1, 1.0, 0.3)
          >>> proof = found.verify()
          >>> bool(proof), round(float(proof.rate), 4)
          (True, 0.9)
        """
        if not math.isfinite(self.rate):
            return Proof(False, None, "there is no certificate to verify")
        system = RationalSystem.of(self.system, self.strong_convexity, self.smoothness, self.sigma)
        if not system.exact:
            return Proof(False, None, "with these fractions the optimum is not exactly a fixed point")
        parts = inequalities(self.system, self.strong_convexity, self.smoothness, self.sigma, self.undirected)
        for margin in MARGINS:
            rate = Fraction(math.ceil((self.rate + margin) * 10**9), 10**9)
            solutions = [part.solve(float(rate)) for part in parts]
            if all(slack > 0 for slack, _ in solutions) and system.proves(rate, *(found for _, found in solutions)):
                return Proof(True, rate, f"all pivots are positive at rate {float(rate):.9f}, in rational arithmetic")
        return Proof(False, None, f"no solution survives rounding up to rate + {MARGINS[-1]}")

    def __str__(self) -> str:
        where = "the average over nodes"
        if self.instance.eigenvalues:
            where = "eigenvalues " + ", then ".join(f"{x:.4g}" for x in self.instance.eigenvalues)
        kind = "symmetric W_t, " if self.undirected else ""
        return (
            f"worst-case rate in [{self.lower:.6f}, {self.rate:.6f}] over mu = {self.strong_convexity:g}, "
            f"L = {self.smoothness:g}, {kind}||W_t - J|| <= {self.sigma:g} (slowest known instance: curvature "
            f"{self.instance.curvature:.4g}, {where})"
        )


def worst_case_rate(
    factory: Callable[[Mixing], Any],
    strong_convexity: float,
    smoothness: float,
    sigma: float,
    equal_start: bool = False,
    tolerance: float = TOLERANCE,
    undirected: bool = False,
) -> Certificate:
    r"""Certify the worst rate of an implemented method over a class of objectives and time-varying graphs.

    The class: f_i mu-strongly convex and L-smooth (only as seen from the optimum), differing from node to node without
    limit; W_t doubly stochastic, perhaps directed and another one at every step, with ||W_t - 11'/n|| <= \sigma; any
    number of nodes and dimensions.

    Args:
      factory: mix -> transformation, with all hyper-parameters inside.
      strong_convexity: mu in (0, L].
      smoothness: L.
      sigma: the norm of W - 11'/n, in [0, 1]; that is one minus the absolute spectral gap. 0: exact averaging.
      equal_start: whether all nodes start at the same params; all-reduce methods need that.
      tolerance: of the bisection.
      undirected: whether every W_t is symmetric. Methods that mix several vectors are certified to be faster then.

    Returns:
      The certificate, a bracket [lower, rate].

    Raises:
      ValueError: if the method is not linear, changes with the step, or is not exact (its fixed point is not the
        optimum where nodes differ, so that no rate towards the optimum exists), or for constants out of range.
      ImportError: without the solver clarabel.

    Example:
      >>> found = theory.worst_case_rate(lambda mix: adozoo.nids(1.0, mix), 0.1, 1.0, 0.5)
      >>> (
      ...     round(found.lower, 5),
      ...     round(found.rate, 5),
      ... )  # the gap: graphs that change adversarially
      (0.9, 0.95971)

    References:
      Sundararajan, Van Scoy, Lessard, IEEE TCNS 2020, theorem 10.
    """
    check_class(strong_convexity, smoothness, sigma)
    system = Extractor(factory, exact_mean=sigma == 0, equal_start=equal_start)()
    check_exact(system, sigma)
    return certify(system, strong_convexity, smoothness, sigma, tolerance, undirected)


def certify(
    system: StateSpace,
    strong_convexity: float,
    smoothness: float,
    sigma: float,
    tolerance: float = TOLERANCE,
    undirected: bool = False,
) -> Certificate:
    """`worst_case_rate` for matrices that are known already."""
    mean, node = inequalities(system, strong_convexity, smoothness, sigma, undirected)
    instance = worst_instance(system, strong_convexity, smoothness, sigma)
    rate = smallest_rate(mean, instance.rate, tolerance)
    rate = smallest_rate(node, rate, tolerance) if math.isfinite(rate) else rate
    P = Q = R = None
    if math.isfinite(rate):
        P = mean.solve(rate)[1][0]
        Q, R = node.solve(rate)[1]
    constants = strong_convexity, smoothness, sigma
    return Certificate(rate, instance.rate, instance, *constants, system, P, Q, R, undirected)


def smallest_rate(inequality: Inequality, low: float, tolerance: float = TOLERANCE, high: float = LARGEST) -> float:
    """The smallest rate above `low` that the inequality certifies, by bisection; inf if that is not below `high`."""
    if inequality.attained(low + tolerance) <= low + tolerance:
        return low + tolerance
    found = inequality.attained(high) if low < high else math.inf
    if not found <= high:
        return math.inf
    high = max(found, low)
    while high - low > tolerance:
        middle = (low + high) / 2
        found = inequality.attained(middle)
        low, high = (low, max(found, low)) if found <= middle else (middle, high)
    return high


def check_class(strong_convexity: float, smoothness: float, sigma: float) -> None:
    """Raise ValueError for constants that describe no class."""
    if not 0 < strong_convexity <= smoothness < math.inf:
        raise ValueError(
            "worst_case_rate: need 0 < strong_convexity <= smoothness, got "
            f"{strong_convexity!r} and {smoothness!r}. Without strong convexity there is no linear rate."
        )
    if not 0 <= sigma <= 1:
        raise ValueError(
            f"worst_case_rate: sigma must lie in [0, 1], got {sigma!r}. It is ||W - 11'/n||, that is "
            "1 - theory.spectral_gap(W)."
        )


def check_exact(system: StateSpace, sigma: float) -> None:
    """Raise ValueError for a method whose fixed point is not the optimum."""
    average, node = system.exactness_defect(exact_mean=sigma == 0)
    if max(average, node) > EXACT_TOLERANCE:
        what = (
            "no params are a resting point of its average"
            if average > EXACT_TOLERANCE
            else "a node cannot rest at the optimum against its own gradient there"
        )
        raise ValueError(
            f"worst_case_rate: the method is not exact: {what} (defect {max(average, node):.2g}). It converges to a "
            "point that depends on how much the nodes differ, or not at all: see theory.limit and theory.exact_rate."
        )
