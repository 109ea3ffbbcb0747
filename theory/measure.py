"""The linear rate of a run, fitted to its errors, with an uncertainty."""

from typing import Any, NamedTuple

import numpy as np

WINDOWS = 9
"""The spread of the slopes over this many windows, each three quarters of what is fitted, is the uncertainty."""
FEWEST = 6
"""A rate is not fitted to fewer records than this."""


class FittedRate(NamedTuple):
    """A measured linear rate: error ~ rate**step over steps start <= step < stop."""

    rate: float
    uncertainty: float  # of the rate: the spread of fits to shifted windows
    start: int
    stop: int


def fit_rate(errors: Any, every: int = 1, floor: float = 1e3) -> FittedRate:
    r"""Fit error_t ~ C rate^t to the late, still converging part of a run.

    The floor is found first: errors within a factor `floor` of the smallest one that the run settles at are rounding,
    and the fit stops before them. Burn-in is skipped by fitting only the last third of what is left: there the slowest
    mode rules. The rate is the least-squares slope of log error; its uncertainty is the spread of the slopes of windows
    shifted within the fitted part, which modes that oscillate and modes that still decay both widen.

    Args:
      errors: positive errors of records 0, 1, ..., such as distances to the limit; array [t].
      every: steps between two records.
      floor: how far above the final level an error must lie to count as converging, where the run has settled.

    Returns:
      The rate per step with its uncertainty, and the window in steps. A rate above 1 says divergence; NaN, that fewer
      than `FEWEST` records are left (the run was over before it could be measured).

    Raises:
      ValueError: if errors are not one-dimensional, or `every` < 1.

    Example:
      >>> fit = theory.fit_rate(0.9 ** np.arange(200.0))
      >>> round(fit.rate, 9), fit.uncertainty < 1e-9
      (0.9, True)
    """
    values = np.asarray(errors, np.float64)
    if values.ndim != 1 or every < 1:
        raise ValueError(f"fit_rate: errors must be [t] and every >= 1, got shape {values.shape} and every={every!r}.")
    finite = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    stop = int(finite[0]) if finite.size else values.size
    values = values[:stop]
    if stop:
        tail = np.median(values[-max(1, stop // 10) :])
        settled = (
            stop > 32 and tail <= 1e-9 * values.max() and np.ptp(np.log(values[-max(2, stop // 10) :])) < np.log(1e3)
        )
        above = np.flatnonzero(values > floor * values.min()) if settled else np.arange(stop)
        stop = int(above[-1]) + 1 if above.size else 0
    start = 2 * stop // 3
    if stop - start < FEWEST:
        return FittedRate(np.nan, np.nan, start * every, stop * every)
    logs = np.log(values[start:stop])
    length = 3 * logs.size // 4
    shifts = np.linspace(0, logs.size - length, WINDOWS).astype(int)
    slopes = [_slope(logs[shift : shift + length]) for shift in shifts]
    rate = float(np.exp(_slope(logs) / every))
    return FittedRate(rate, float(rate * np.ptp(slopes) / every), start * every, stop * every)


def _slope(logs: np.ndarray) -> float:
    time = np.arange(logs.size) - (logs.size - 1) / 2
    return float(time @ logs / (time @ time))


def fit_modes(snapshots: Any, every: int = 1, noise: float = 1e-13) -> FittedRate:
    r"""The slowest mode in a late stretch of a run, by the matrix pencil method.

    Near its limit a run is a sum of modes, x_t - x^* = \sum_k \mu_k^t a_k. Vectors tell them apart where their norms
    only show a mixture that oscillates or still settles. The Hankel matrix of the snapshots has the rank of the modes
    that rise above the noise, and its shift has their \mu_k as eigenvalues.

    Args:
      snapshots: x_t - x^*, or a few projections of it, at equally spaced steps: [t, k] with t >= 8, all above rounding.
      every: steps between two snapshots.
      noise: the size of rounding errors, relative to the first snapshot.

    Returns:
      The largest |\mu_k| per step among the modes that matter (a share above 1e-5 of the largest), and how much it
      changes if modes below a hundred times the noise are left out.

    Raises:
      ValueError: for fewer than 8 snapshots, or snapshots that are not finite.

    Example:
      >>> t = np.arange(40)[:, None]
      >>> two = (
      ...     0.9**t * np.cos(t + np.arange(3)) + 0.85**t
      ... )  # oscillates, and settles slowly
      >>> fit = theory.fit_modes(two)
      >>> round(fit.rate, 9), fit.uncertainty < 1e-8
      (0.9, True)

    References:
      Hua and Sarkar, Matrix pencil method for estimating parameters of exponentially damped sinusoids, 1990.
    """
    values = np.asarray(snapshots, np.float64)
    if values.ndim != 2 or len(values) < 8 or not np.isfinite(values).all() or not values[0].any():
        raise ValueError(
            f"fit_modes: snapshots must be [t >= 8, k], finite and not zero, got shape {values.shape}. Take an earlier "
            "or longer stretch of the run."
        )
    values = values / np.abs(values[0]).max()
    rate, coarse = (_slowest_mode(values, cut) ** (1 / every) for cut in (noise, 100 * noise))
    return FittedRate(rate, abs(rate - coarse), 0, every * len(values))


def _slowest_mode(values: np.ndarray, cut: float) -> float:
    lags, length = len(values) // 2, len(values) - len(values) // 2
    hankel = np.stack([values[lag : lag + length].ravel() for lag in range(lags + 1)])
    left, singular, right = np.linalg.svd(hankel[:-1], full_matrices=False)
    kept = singular > cut * singular[0]
    left, singular, right = left[:, kept], singular[kept], right[kept]
    modes = np.linalg.eigvals((left.T @ hankel[1:] @ right.T) / singular)
    powers = modes[None, :] ** np.arange(len(values))[:, None]
    shares = np.abs(np.linalg.lstsq(powers, values.astype(complex), rcond=None)[0]).max(axis=1)
    return float(np.abs(modes[shares > 1e-5 * shares.max()]).max())
