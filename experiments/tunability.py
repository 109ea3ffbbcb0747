r"""How good a method is after k trials of tuning: expected best values, omega-tunability, relative performance.

N configurations of a method were drawn from its priors and tried. After k trials the *incumbent* is the one with the
best validation value, and what it is worth is its test value. Three estimators of the expectation over the order of
the trials go by one name in the literature, and differ:

- `expected_best_with_replacement`: one metric both selects and counts; k trials drawn with replacement. Biased.
- `expected_best_without_replacement`: the same without replacement, the unbiased estimator for k fresh trials.
- `expected_incumbent`: validation selects, test counts; exactly, or by shuffles (`shuffled_incumbents`).

A trial that diverged is NaN (an infinitely bad value counts as such), and is worse than any other. Comparisons with
NaN are False, which in a loop over trials may crown it. What it counts as, where it is all there is, has to be said:
`diverged` is that value, and without it the expectation is infinitely bad as long as k draws may all have diverged.

Values may be Fractions (in arrays of dtype object): then the expectations are exact.

References:
  Sivaprasad, Mai, Vogels, Jaggi, Fleuret, Optimizer benchmarking needs to account for hyperparameter tuning, 2020.
  Dodge, Gururangan, Card, Schwartz, Smith, Show your work: improved reporting of experimental results, 2019.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

SCHEMES = ("cpe", "cpu", "cpl", "exponential", "one_shot", "peak")
"""Weightings of the budgets that `weights` knows."""


def quality(values: Any, better: str) -> np.ndarray:
    """The values such that larger is better and what diverged is -inf.

    Example:
      >>> quality([0.5, np.nan, 0.1], "min")
      array([-0.5, -inf, -0.1])
    """
    if better not in ("max", "min"):
        raise ValueError(f'better must be "max" or "min", got {better!r}. Accuracies are "max", losses are "min".')
    array = np.asarray(values)
    array = array if array.dtype == object else array.astype(np.float64)
    signed = array if better == "max" else -array
    return np.where((array != array) | (signed == -np.inf), -np.inf, signed)


def all_among(counts: Any, trials: int, replacement: bool) -> np.ndarray:
    r"""Probability that k draws out of N trials all fall among certain c of them, for k = 1, ..., N.

    $(c / N)^k$ with replacement, $\binom ck / \binom Nk = \prod_{j < k} (c - j) / (N - j)$ without: products of factors
    in [0, 1], so that nothing overflows.

    Args:
      counts: c, an array of any shape.
      trials: N.
      replacement: whether a trial may be drawn again.

    Returns:
      [N, *counts.shape].

    Example:
      >>> all_among([1, 2], 2, replacement=False)
      array([[0.5, 1. ],
             [0. , 1. ]])
    """
    counts = np.asarray(counts)
    drawn = np.arange(trials).reshape(-1, *[1] * counts.ndim) * (not replacement)
    return np.cumprod(np.maximum(counts - drawn, 0 * counts) / (trials - drawn), axis=0)


def _trials(name: str, *values: Any) -> None:
    shapes = [np.shape(value) for value in values]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or not shapes[0][0]:
        raise ValueError(f"{name}: one value a trial is needed, got shapes {shapes}. Pass arrays [trials].")


def selection(validation: Any, test: Any, better: str, diverged: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """By what trials are selected, larger being better, and what they count as.

    A trial diverged if either value is NaN or infinitely bad: then it is selected last (-inf) and counts as `diverged`.

    Example:
      >>> selection([0.5, np.nan], [0.4, 0.9], "max", diverged=0.1)
      (array([ 0.5, -inf]), array([0.4, 0.1]))
    """
    if np.shape(validation) != np.shape(test):
        raise ValueError(
            f"selection: one test value a validation value is needed, got shapes {np.shape(validation)} "
            f"and {np.shape(test)}."
        )
    chosen, counted = quality(validation, better), quality(test, better)
    bad = (chosen == -np.inf) | (counted == -np.inf)
    worst = -np.inf if better == "max" else np.inf
    return np.where(bad, -np.inf, chosen), np.where(bad, worst if diverged is None else diverged, np.asarray(test))


def incumbent_chances(validation: Any, better: str = "max", replacement: bool = False) -> np.ndarray:
    r"""Probability that trial i is the incumbent after k of N trials; trials that tie share it evenly.

    With F(v) the probability that k draws all have validation values no better than v (`all_among`), and m trials at v,
    each of them has $(F(v) - F(v^-)) / m$: the first of those that tie stays, and it is each of them equally often.

    Args:
      validation: validation value of each trial [N].
      better: "max" or "min".
      replacement: whether a trial may be drawn again.

    Returns:
      [N, N]: a row for each budget k = 1, ..., N, that sums to 1.

    Example:
      >>> incumbent_chances([0.1, 0.7, 0.7])
      array([[0.333, 0.333, 0.333],
             [0.   , 0.5  , 0.5  ],
             [0.   , 0.5  , 0.5  ]])
    """
    _trials("incumbent_chances", validation)
    ranked = quality(validation, better)
    _, level, size = np.unique(ranked, return_inverse=True, return_counts=True)
    if ranked.dtype == object:  # exact numbers in, exact numbers out
        from fractions import Fraction

        size = np.array([Fraction(int(m)) for m in size], dtype=object)
    within = all_among(np.cumsum(size), len(ranked), replacement)
    return (np.diff(within, axis=1, prepend=0 * within[:, :1]) / size)[:, level]


def expected_incumbent(
    validation: Any, test: Any, better: str = "max", replacement: bool = False, diverged: Any = None
) -> np.ndarray:
    r"""Expected test value of the trial with the best validation value among k of N trials, for k = 1, ..., N.

    $\sum_v (F_k(v) - F_k(v^-)) \bar t(v)$, the sum over the distinct validation values v, $\bar t(v)$ the mean test
    value of the trials that have it: the mean over all orders (over all draws, with replacement) of the trials.

    Args:
      validation: what selects, [N].
      test: what counts, [N].
      better: "max" or "min", for both.
      replacement: as in the authors' code (True), or unbiased (False).
      diverged: what a trial counts as of which either value is NaN; None for infinitely bad.

    Returns:
      [N].

    Example:
      >>> expected_incumbent([0.5, 0.8, np.nan], [0.4, 0.7, 0.1], diverged=0.1)
      array([0.4, 0.6, 0.7])
    """
    _trials("expected_incumbent", validation, test)
    chosen, values = selection(validation, test, better, diverged)
    chances = incumbent_chances(chosen, "max", replacement)
    # 0 times infinity is no contribution, not NaN.
    return (chances * np.where(chances > 0, values, 0)).sum(axis=1)


def expected_best_with_replacement(values: Any, better: str = "max", diverged: Any = None) -> np.ndarray:
    r"""$\sum_v v (F(v)^k - F(v^-)^k)$ for k = 1, ..., N, F the empirical distribution of the N values.

    The mean of infinitely many bootstrap samples of size k, and the plug-in estimator of the expected best of k fresh
    trials: too low for better = "max" (draws repeat), and below the best value even for k = N.

    Args:
      values: one a trial [N]; the same metric selects and counts.
      better: "max" or "min".
      diverged: what NaN counts as; None for infinitely bad.

    Returns:
      [N].

    Example:
      >>> expected_best_with_replacement([0.0, 1.0])
      array([0.5 , 0.75])

    References:
      Dodge et al., Show your work, 2019, equation 6.
    """
    return expected_incumbent(values, values, better, True, diverged)


def expected_best_without_replacement(values: Any, better: str = "max", diverged: Any = None) -> np.ndarray:
    r"""$\sum_i v_{(i)} \binom{i-1}{k-1} / \binom Nk$ for k = 1, ..., N, v_(1), ..., v_(N) from the worst to the best.

    The mean over all subsets of k trials: the unbiased estimator of the expected best of k fresh trials. The mean of
    the values for k = 1, the best of them for k = N.

    Args:
      values: one a trial [N]; the same metric selects and counts.
      better: "max" or "min".
      diverged: what NaN counts as; None for infinitely bad.

    Returns:
      [N].

    Example:
      >>> expected_best_without_replacement([0.0, 1.0])
      array([0.5, 1. ])
    """
    return expected_incumbent(values, values, better, False, diverged)


def incumbents(validation: Any, test: Any, better: str = "max") -> tuple[np.ndarray, np.ndarray]:
    """Validation and test value of the incumbent after each trial, in the order in which they were made.

    A later trial has to be strictly better to take over. While all trials have diverged, both are NaN.

    Args:
      validation: [..., N].
      test: [..., N].
      better: "max" or "min", for both.

    Returns:
      validation [..., N] and test [..., N].

    Example:
      >>> incumbents([0.5, np.nan, 0.8, 0.8], [0.4, 0.9, 0.7, 0.6])
      (array([0.5, 0.5, 0.8, 0.8]), array([0.4, 0.4, 0.7, 0.7]))
    """
    ranked, counted = selection(np.asarray(validation, np.float64), test, better, np.nan)
    best = np.maximum.accumulate(ranked, axis=-1)
    earlier = np.concatenate([np.full_like(best[..., :1], -np.inf), best[..., :-1]], axis=-1)
    holder = np.maximum.accumulate(np.where(ranked > earlier, np.arange(ranked.shape[-1]), 0), axis=-1)
    selected = np.where(ranked > -np.inf, validation, np.nan)
    return np.take_along_axis(selected, holder, axis=-1), np.take_along_axis(counted, holder, axis=-1)


def shuffled_incumbents(
    validation: Any, test: Any, better: str = "max", shuffles: int = 1000, replacement: bool = False, seed: int = 0
) -> np.ndarray:
    """Test value of the incumbent after each trial in random orders of the trials: the distribution behind the mean.

    Args:
      validation: [N].
      test: [N].
      better: "max" or "min".
      shuffles: how many orders.
      replacement: draw N trials with replacement, as the authors' code does, instead of permuting them.
      seed: of the orders.

    Returns:
      [shuffles, N]; NaN while all trials have diverged.

    Example:
      >>> shuffled_incumbents([0.5, 0.8], [0.4, 0.7], shuffles=4)[:, -1]
      array([0.7, 0.7, 0.7, 0.7])
    """
    _trials("shuffled_incumbents", validation, test)
    rng, trials = np.random.default_rng(seed), len(validation)
    if replacement:
        orders = rng.integers(trials, size=(shuffles, trials))
    else:
        orders = rng.permuted(np.tile(np.arange(trials), (shuffles, 1)), axis=1)
    return incumbents(np.asarray(validation)[orders], np.asarray(test)[orders], better)[1]


def weights(scheme: str, budgets: int, kappa: float = 0.1) -> np.ndarray:
    r"""How much each budget k = 1, ..., K counts in omega-tunability; nonnegative, with sum 1.

    cpe (cumulative performance, early) $\propto K + 1 - k$, cpu (uniform) $1 / K$, cpl (late) $\propto k$, exponential
    $\propto e^{-\kappa (k - 1)}$, one_shot k = 1 only, peak k = K only.

    Args:
      scheme: one of `SCHEMES`.
      budgets: K.
      kappa: of the exponential weights.

    Returns:
      [K].

    Example:
      >>> weights("cpe", 3) * 6
      array([3., 2., 1.])
    """
    if scheme not in SCHEMES:
        raise ValueError(f"weights: scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}.")
    k = np.arange(1.0, budgets + 1)
    raw = {
        "cpe": budgets + 1 - k,
        "cpu": np.ones(budgets),
        "cpl": k,
        "exponential": np.exp(-kappa * (k - 1)),
        "one_shot": k == 1,
        "peak": k == budgets,
    }[scheme]
    return raw / raw.sum()


def tunability(curve: Any, scheme: str = "cpe", kappa: float = 0.1) -> float:
    r"""omega-tunability $\sum_k \omega_k L_k$ of the values L_k expected after k trials.

    Example:
      >>> tunability([0.3, 0.6, 0.9], "cpu")
      0.6
    """
    return float(weights(scheme, len(curve), kappa) @ np.asarray(curve, np.float64))


def sharpness(curve: Any, better: str = "max", level: float = 0.95) -> float:
    """Share of the budget between reaching `level` of the curve's best value and reaching that value.

    A loss L is at level a of the best one L* if L <= L* (1 + (1 - a)).

    Example:
      >>> sharpness([0.5, 0.96, 0.98, 1.0])
      0.5
    """
    values = np.asarray(curve, np.float64)
    best = values.max() if better == "max" else values.min()
    near = values >= best * level if better == "max" else values <= best * (2 - level)
    return float(np.argmax(values == best) - np.argmax(near)) / len(values)


def relative_performance(expected: Any, better: Sequence[str], floor: float = -np.inf) -> np.ndarray:
    r"""$S(o, k)$, the mean over tasks of method o's expected value after k trials relative to the best method's.

    $E(o, k, p) / \max_{o'} E(o', k, p)$ where larger is better, $\min_{o'} E(o', k, p) / E(o, k, p)$ where smaller is:
    at most 1, which only a method that is best on all tasks has.

    Args:
      expected: values [methods, tasks, budgets]; NaN where a method does not take part: its mean is over the others.
      better: "max" or "min" for each task.
      floor: values below it count as `floor`: losses that may reach 0, such as suboptimalities, need one.

    Returns:
      [methods, budgets]; NaN for a method that takes part nowhere.

    Raises:
      ValueError: if a value is negative, or a loss 0, so that a ratio means nothing.

    Example:
      >>> relative_performance([[[0.9], [2.0]], [[0.6], [1.0]]], ["max", "min"])
      array([[0.75 ],
             [0.833]])
    """
    values = np.maximum(np.asarray(expected, np.float64), floor)
    if (values < 0).any() or any((values[:, task] == 0).any() for task, name in enumerate(better) if name == "min"):
        raise ValueError(
            f"relative_performance: values must be positive, got {np.nanmin(values):g}. Pass `floor` for losses that "
            "reach 0, and say what diverged trials count as (`diverged`) where larger is better."
        )
    ratios = np.full(values.shape, np.nan)
    for task, direction in enumerate(better):
        ranked = quality(values[:, task], direction)
        best = np.abs(ranked.max(axis=0))
        ratios[:, task] = values[:, task] / best if direction == "max" else best / values[:, task]
    there = ~np.isnan(ratios)
    return np.where(
        there.any(axis=1), np.where(there, ratios, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1), np.nan
    )
