r"""Event-driven methods: exact decay and stationary error of linear flows with Poisson jumps.

Between events the error obeys s' = A s; event e happens at rate r_e and jumps s <- s + G_e s + \xi_e, with E \xi_e = 0
and E \xi_e \xi_e' = Q_e. The mean obeys m' = M m with M = A + \sum_e r_e G_e, and the second moment S = E s s'

    dS/dt = M S + S M' + \sum_e r_e (G_e S G_e' + Q_e).

The right-hand side maps positive semidefinite matrices among themselves (it is the generator of a semigroup that does),
so that its slowest mode is real: E ||s||^2 decays exactly like e^{-2 a t}, with 2 a its spectral abscissa.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import scipy.sparse.linalg
from jaxtyping import Float

DENSE_STATES = 40
"""Up to this many states the operator on symmetric matrices is formed and all its eigenvalues are computed."""


class Event(NamedTuple):
    """What happens at one Poisson clock.

    Attributes:
      rate: events per unit of time.
      jump: G, [N, N]: s <- s + G s.
      noise: Q, [N, N], the covariance that an event adds; None for none.
    """

    rate: float
    jump: Float[np.ndarray, "N N"]
    noise: Float[np.ndarray, "N N"] | None = None


Events: TypeAlias = Sequence[Event | tuple[Any, ...]]
"""Events, or tuples that make some."""


class GeneratorRate(NamedTuple):
    """Exponents per unit of time; negative where errors decay.

    Attributes:
      second_moment: of E ||s||^2.
      mean: of ||E s||, the expected error; second_moment >= 2 mean.
    """

    second_moment: float
    mean: float


def generator_rate(
    drift: Float[np.ndarray, "rows columns"], events: Events, basis: Float[np.ndarray, "rows k"] | None = None
) -> GeneratorRate:
    r"""The exact exponents with which the second moment and the mean of the error grow.

    Args:
      drift: A, square.
      events: the clocks; (rate, jump) pairs will do.
      basis: an orthonormal basis [N, k] of the states that count, which A and all G_e must leave invariant, such as the
        deviations from the mean; all by default.

    Returns:
      The spectral abscissae of the generator of the second moment and of M.

    Raises:
      ValueError: for shapes that do not fit, rates that are not positive, or a basis that is not invariant.

    Example:
      >>> pair = np.array([[-0.5, 0.5], [0.5, -0.5]])  # two nodes average at rate 1
      >>> away = np.array([[1.0], [-1.0]]) / np.sqrt(2)
      >>> theory.generator_rate(
      ...     np.zeros((2, 2)), [(1.0, pair)], away
      ... )  # one event ends it
      GeneratorRate(second_moment=-1.0, mean=-1.0)
    """
    inner, reduced = _reduced("generator_rate", drift, events, basis)
    mean = float(np.linalg.eigvals(_mean(inner, reduced)).real.max())
    size = len(inner)
    if size <= DENSE_STATES:
        values = np.linalg.eigvals(_on_symmetric(inner, reduced))
        return GeneratorRate(float(values.real.max()), mean)
    start = np.eye(size).ravel()
    options: Any = {"k": 1, "which": "LR", "v0": start, "return_eigenvectors": False, "ncv": 60, "maxiter": 5000}
    top = scipy.sparse.linalg.eigs(_operator(inner, reduced), **options)
    return GeneratorRate(float(top.real.max()), mean)


def generator_stationary(
    drift: Float[np.ndarray, "rows columns"], events: Events, basis: Float[np.ndarray, "rows k"] | None = None
) -> Float[np.ndarray, "N N"]:
    r"""The stationary second moment E s s' under the events' noise.

    Solves M S + S M' + \sum_e r_e (G_e S G_e' + Q_e) = 0.

    Args:
      drift: A, square.
      events: the clocks, with their noise.
      basis: as in `generator_rate`; noise outside of it is left out.

    Returns:
      S, [N, N]; all entries inf if the second moment has no limit.

    Example:
      >>> halve = theory.generator.Event(1.0, np.array([[-0.5]]), np.array([[3.0]]))
      >>> theory.generator_stationary(np.zeros((1, 1)), [halve])  # S = S / 4 + 3
      array([[4.]])
    """
    inner, reduced = _reduced("generator_stationary", drift, events, basis)
    whole = np.eye(len(drift)) if basis is None else np.asarray(basis)
    if generator_rate(inner, reduced).second_moment >= 0:
        return np.full((len(drift), len(drift)), np.inf)
    size = len(inner)
    noise = np.zeros((size, size))
    for event in reduced:
        if event.noise is not None:
            noise = noise + event.rate * event.noise
    if size <= DENSE_STATES:
        rows, columns = np.triu_indices(size)
        entries = np.linalg.solve(_on_symmetric(inner, reduced), -noise[rows, columns])
        S = np.zeros((size, size))
        S[rows, columns] = S[columns, rows] = entries
        return whole @ S @ whole.T
    solution, stopped = scipy.sparse.linalg.gmres(
        _operator(inner, reduced), -noise.ravel(), rtol=1e-11, restart=100, maxiter=500
    )
    if stopped:
        raise ValueError(f"generator_stationary: GMRES did not converge on {size} states. Pass a smaller basis.")
    S = solution.reshape(size, size)
    return whole @ ((S + S.T) / 2) @ whole.T


def _reduced(name: str, drift: Any, events: Any, basis: Any) -> tuple[np.ndarray, list[Event]]:
    """Drift and events in the coordinates of the basis, checked."""
    drift = np.asarray(drift, np.float64)
    if drift.ndim != 2 or drift.shape[0] != drift.shape[1]:
        raise ValueError(f"{name}: drift must be a square matrix, got shape {drift.shape}.")
    V = np.eye(len(drift)) if basis is None else np.asarray(basis, np.float64)
    if V.ndim != 2 or len(V) != len(drift) or np.abs(V.T @ V - np.eye(V.shape[1])).max() > 1e-9:
        raise ValueError(f"{name}: basis must be [{len(drift)}, k] with orthonormal columns, got shape {V.shape}.")
    found = []
    for number, event in enumerate(events):
        event = Event(*event)
        if np.shape(event.jump) != drift.shape or not event.rate > 0:
            raise ValueError(
                f"{name}: events[{number}] must be (rate > 0, jump of shape {drift.shape}), got rate "
                f"{event.rate!r} and shape {np.shape(event.jump)}. Leave out events that never happen."
            )
        noise = None if event.noise is None else V.T @ np.asarray(event.noise) @ V
        found.append(Event(float(event.rate), _inside(name, V, np.asarray(event.jump)), noise))
    return _inside(name, V, drift), found


def _inside(name: str, V: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    image = matrix @ V
    inner = V.T @ image
    if np.abs(image - V @ inner).max(initial=0) > 1e-9 * max(1.0, np.abs(matrix).max()):
        raise ValueError(f"{name}: basis must be invariant under the drift and every jump; its image leaves it.")
    return inner


def _mean(drift: np.ndarray, events: Sequence[Event]) -> np.ndarray:
    return drift + sum((event.rate * event.jump for event in events), np.zeros_like(drift))


def _operator(drift: np.ndarray, events: Sequence[Event]) -> scipy.sparse.linalg.LinearOperator:
    """S -> M S + S M' + sum r G S G' on matrices as vectors."""
    M, size = _mean(drift, events), len(drift)

    def moved(vector: np.ndarray) -> np.ndarray:
        S = vector.reshape(size, size)
        return (M @ S + S @ M.T + sum((e.rate * e.jump @ S @ e.jump.T for e in events), np.zeros_like(M))).ravel()

    options: Any = {"matvec": moved, "dtype": float}  # the stubs know of no dtype beside matvec
    return scipy.sparse.linalg.LinearOperator((size**2, size**2), **options)


def _on_symmetric(drift: np.ndarray, events: Sequence[Event]) -> np.ndarray:
    """The same as a matrix on the upper triangles of symmetric matrices."""
    rows, columns = np.triu_indices(len(drift))
    basis = np.zeros((len(rows), len(drift), len(drift)))
    number = np.arange(len(rows))
    basis[number, rows, columns] = basis[number, columns, rows] = 1.0
    M = _mean(drift, events)
    image = M @ basis + basis @ M.T
    for event in events:
        image += event.rate * event.jump @ basis @ event.jump.T
    return image[:, rows, columns].T
