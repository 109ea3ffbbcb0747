r"""Event-driven methods with jumps of low rank: exact rates and stationary errors at the cost of Lyapunov equations.

An event at a node or a link reads a few numbers and moves along as many directions: G_e = U_e V_e' with U_e, V_e [N,
r]. Of the second moment S it then sees only the r x r matrix C_e = V_e' S V_e, so that

    M S + S M' + \sum_e r_e U_e C_e U_e' = s S,    s the rate of growth,

is a Lyapunov equation in S for given C. With X_e[C] the solution for the event e alone, s is where the matrix

    R(s): C -> (V_f' \sum_e X_e[C_e] V_f)_f

has spectral radius 1. R(s) maps families of positive semidefinite C among themselves and falls in s, so that this is
where its largest eigenvalue, which is real, crosses 1. Where it never does, errors decay as the mean does. One Schur
form of M serves for all events and all s.

The exact operator on S has N^2 unknowns: 2304 for A2CiD2 with momentum on 16 nodes. Here there is one for each number
that events read, 32. Where there are many, R(s) is applied rather than formed, at one Lyapunov equation each time.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse.linalg
from jaxtyping import Float

from theory.generator import Event, Events, GeneratorRate, _mean, _reduced

DENSE_READS = 40
"""Up to this many numbers read, R(s) is formed as a matrix."""
ROUNDING = 1e-13
"""Rates of growth are told apart if they differ by more, relative to the drift's norm."""
RANK_TOLERANCE = 1e-12
"""Singular values of a jump that are this much smaller than the largest are rounding."""


class _Reads(NamedTuple):
    """What events read: one number f' S g for every pair of columns k <= l of an event's V, times a b' + b a'.

    Attributes:
      a: r_e u_k, [p, N]; half of it where k = l.
      b: u_l, [p, N].
      f: v_k, [p, N].
      g: v_l, [p, N].
    """

    a: np.ndarray
    b: np.ndarray
    f: np.ndarray
    g: np.ndarray


class _Feedback:
    """R(s): numbers read -> what events that move by as much make be read, by Lyapunov equations of M."""

    def __init__(self, M: np.ndarray, events: Sequence[Event]) -> None:
        self.triangle, self.basis = map(np.asarray, scipy.linalg.schur(M))
        self.abscissa = float(np.linalg.eigvals(self.triangle).real.max(initial=-np.inf))
        self.trsyl: Any = scipy.linalg.get_lapack_funcs("trsyl", (M,))
        self.reads = _reads(events, len(M))
        self.count = len(self.reads.a)

    def answer(self, growth: float, source: np.ndarray) -> np.ndarray:
        """X with (M - s/2) X + X (M - s/2)' = -source."""
        shifted = self.triangle - growth / 2 * np.eye(len(self.triangle))
        solution, scale, _ = self.trsyl(shifted, shifted, -self.basis.T @ source @ self.basis, tranb="T")
        return self.basis @ (solution / scale) @ self.basis.T

    def moved(self, numbers: np.ndarray) -> np.ndarray:
        """The second moment that events add per unit of time, [N, N]."""
        half = (self.reads.a * numbers[:, None]).T @ self.reads.b
        return half + half.T

    def seen(self, S: np.ndarray) -> np.ndarray:
        """What is read of a second moment, [p]."""
        return ((self.reads.f @ S) * self.reads.g).sum(1)

    def operator(self, growth: float) -> scipy.sparse.linalg.LinearOperator:
        """R(s) on [p]."""

        def fed(numbers: np.ndarray) -> np.ndarray:
            return self.seen(self.answer(growth, self.moved(numbers.ravel())))

        options: Any = {"matvec": fed, "dtype": float}  # the stubs know of no dtype beside matvec
        return scipy.sparse.linalg.LinearOperator((self.count, self.count), **options)

    def radius(self, growth: float) -> float:
        """The spectral radius of R(s), which is an eigenvalue."""
        operator = self.operator(growth)
        if self.count <= DENSE_READS:
            return float(np.abs(np.linalg.eigvals(operator @ np.eye(self.count))).max(initial=0))
        options: Any = {"k": 1, "which": "LR", "v0": np.ones(self.count), "return_eigenvectors": False}
        return float(scipy.sparse.linalg.eigs(operator, **options).real.max())


def low_rank_rate(
    drift: Float[np.ndarray, "rows columns"], events: Events, basis: Float[np.ndarray, "rows k"] | None = None
) -> GeneratorRate:
    """`theory.generator_rate` for events that read few numbers each; the fewer, the faster.

    Args:
      drift: A, square.
      events: the clocks; (rate, jump) pairs will do.
      basis: an orthonormal basis [N, k] of the states that count; all by default.

    Returns:
      The same exponents.

    Raises:
      ValueError: what `theory.generator_rate` refuses.

    Example:
      >>> pair = np.array([[-0.5, 0.5], [0.5, -0.5]])
      >>> away = np.array([[1.0], [-1.0]]) / np.sqrt(2)
      >>> found = theory.low_rank_rate(np.zeros((2, 2)), [(1.0, pair)], away)
      >>> round(found.second_moment, 9), round(found.mean, 9)
      (-1.0, -1.0)
    """
    inner, reduced = _reduced("low_rank_rate", drift, events, basis)
    feedback = _Feedback(_mean(inner, reduced), reduced)
    low = 2 * feedback.abscissa
    scale = max(1e-300, float(np.linalg.norm(feedback.triangle, 2)))

    def excess(growth: float) -> float:
        # Nearly a straight line: it is one where a single mode counts.
        return 1 / max(1e-300, feedback.radius(growth)) - 1

    if excess(low + ROUNDING * scale) >= 0:
        return GeneratorRate(low, low / 2)
    bottom, width = low + ROUNDING * scale, 1e-6 * scale
    while excess(low + width) < 0:
        bottom, width = low + width, 10 * width
    top: Any = scipy.optimize.brentq(excess, bottom, low + width, xtol=1e-15 * scale, rtol=1e-14)
    return GeneratorRate(float(top), low / 2)


def low_rank_stationary(
    drift: Float[np.ndarray, "rows columns"], events: Events, basis: Float[np.ndarray, "rows k"] | None = None
) -> Float[np.ndarray, "N N"]:
    """`theory.generator_stationary` for events that read few numbers each.

    Args:
      drift: A, square.
      events: the clocks, with their noise.
      basis: as in `low_rank_rate`; noise outside of it is left out.

    Returns:
      S, [N, N]; all entries inf if the second moment has no limit.

    Raises:
      ValueError: what `theory.generator_stationary` refuses.

    Example:
      >>> halve = theory.generator.Event(1.0, np.array([[-0.5]]), np.array([[3.0]]))
      >>> theory.low_rank_stationary(np.zeros((1, 1)), [halve]).round(9)
      array([[4.]])
    """
    inner, reduced = _reduced("low_rank_stationary", drift, events, basis)
    whole = np.eye(len(drift)) if basis is None else np.asarray(basis)
    feedback = _Feedback(_mean(inner, reduced), reduced)
    if feedback.abscissa >= 0 or feedback.radius(0.0) >= 1:
        return np.full((len(drift), len(drift)), np.inf)
    noise = sum((e.rate * e.noise for e in reduced if e.noise is not None), np.zeros_like(inner))
    alone = feedback.seen(feedback.answer(0.0, noise))
    operator = feedback.operator(0.0)
    if feedback.count <= DENSE_READS:
        numbers = np.linalg.solve(np.eye(feedback.count) - operator @ np.eye(feedback.count), alone)
    else:
        identity = scipy.sparse.linalg.aslinearoperator(scipy.sparse.eye_array(feedback.count))
        numbers, stopped = scipy.sparse.linalg.gmres(identity - operator, alone, rtol=1e-12, restart=100, maxiter=50)
        if stopped:
            raise ValueError(
                f"low_rank_stationary: GMRES did not converge on {feedback.count} reads. Pass a smaller basis."
            )
    S = feedback.answer(0.0, noise + feedback.moved(numbers))
    return whole @ ((S + S.T) / 2) @ whole.T


def _reads(events: Sequence[Event], size: int) -> _Reads:
    """The factors of all jumps, by singular values."""
    rows: list[list[np.ndarray]] = [[], [], [], []]
    for rate, jump, _ in events:
        left, values, right = np.linalg.svd(jump)
        rank = int((values > RANK_TOLERANCE * values.max(initial=0)).sum())
        for k in range(rank):
            for j in range(k, rank):
                weight = rate * values[k] * values[j] * (0.5 if j == k else 1.0)
                for row, vector in zip(rows, (weight * left[:, k], left[:, j], right[k], right[j]), strict=True):
                    row.append(vector)
    return _Reads(*(np.reshape(row, (-1, size)) for row in rows))
