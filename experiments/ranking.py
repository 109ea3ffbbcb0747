"""Who is better, and how sure that is: bootstrap intervals, ranks with uncertainty, Pareto fronts, win probability.

Intervals are percentile intervals of the bootstrap. Two cautions. With few repeats they are too narrow: of three
seeds, samples with replacement cannot spread as fresh seeds would. And the best of all trials has no sample that
exceeds it, so that the interval of an expected best value at full budget lies to one side of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from experiments import tunability
from experiments.tunability import quality


class Interval(NamedTuple):
    """An estimate between the ends of its interval; numbers, or arrays of one shape."""

    value: Any
    low: Any
    high: Any


def _interval(value: Any, samples: np.ndarray, level: float) -> Interval:
    """Percentiles of what is finite: a sample whose statistic is infinitely bad is as extreme as an end can be."""
    tails = 100 * np.array([(1 - level) / 2, (1 + level) / 2])
    # An order statistic, not a point between two of them: between numbers and infinity there is no such point.
    low, high = np.percentile(samples, tails, axis=0, method="nearest")
    return Interval(value, low, high)


def bootstrap(
    values: Any,
    statistic: Callable[[np.ndarray], np.ndarray] = lambda sample: sample.mean(axis=-1),
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A statistic of independent repeats, such as seeds, with its percentile bootstrap interval.

    Args:
      values: [..., repeats]; all rows are resampled with the same repeats.
      statistic: [..., repeats] -> [...]; the mean by default. It is handed [samples, ..., repeats].
      samples: of the bootstrap.
      level: of the interval.
      seed: of the samples.

    Returns:
      value, low and high, each of shape [...].

    Example:
      >>> float(bootstrap([0.25, 0.25, 1.0]).value)
      0.5

    References:
      Efron, Bootstrap methods: another look at the jackknife, 1979.
    """
    values = np.asarray(values, np.float64)
    if values.ndim == 0 or not values.shape[-1]:
        raise ValueError(f"bootstrap: values [..., repeats] are needed, got shape {values.shape}. Pass at least one.")
    picks = np.random.default_rng(seed).integers(values.shape[-1], size=(samples, values.shape[-1]))
    return _interval(statistic(values), statistic(np.moveaxis(values[..., picks], -2, 0)), level)


def incumbent_interval(
    validation: Any,
    test: Any,
    better: str = "max",
    replacement: bool = False,
    diverged: float | None = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """`tunability.expected_incumbent` at every budget, with its bootstrap interval over the trials.

    A bootstrap sample of N trials is a table of how often each of them occurs, so that all samples are one computation.

    Args:
      validation: what selects, [N].
      test: what counts, [N].
      better: "max" or "min".
      replacement: which of the two estimators.
      diverged: what a diverged trial counts as.
      samples: of the bootstrap.
      level: of the interval.
      seed: of the samples.

    Returns:
      value, low and high, each [N], for budgets 1, ..., N.

    Example:
      >>> interval = incumbent_interval([0.5, 0.8, 0.6], [0.4, 0.7, 0.7])
      >>> interval.value, interval.high
      (array([0.6, 0.7, 0.7]), array([0.7, 0.7, 0.7]))
    """
    value = tunability.expected_incumbent(validation, test, better, replacement, diverged)
    chosen, values = tunability.selection(validation, test, better, diverged)
    trials = len(values)
    levels, group = np.unique(chosen, return_inverse=True)
    member = group[:, None] == np.arange(len(levels))
    counts = np.random.default_rng(seed).multinomial(trials, np.full(trials, 1 / trials), size=samples)
    sizes = counts @ member
    sums = np.stack([(counts * np.where(counts > 0, values, 0))[:, column].sum(axis=1) for column in member.T], axis=1)
    means = sums / np.maximum(sizes, 1)
    among = np.cumsum(sizes, axis=1)
    within, expected = np.ones(among.shape), np.empty((trials, samples))
    for k in range(trials):  # one budget at a time: all at once are too many numbers for a thousand trials
        within = within * (among / trials if replacement else np.maximum(among - k, 0) / (trials - k))
        chances = np.diff(within, axis=1, prepend=0.0)
        expected[k] = (chances * np.where(chances > 0, means, 0)).sum(axis=1)
    return _interval(value, expected.T, level)


def ranks(values: Any, better: str = "max") -> np.ndarray:
    """1 for the best; methods that tie share their mean rank, and what diverged (NaN) shares the last ones.

    Args:
      values: [..., methods].
      better: "max" or "min".

    Returns:
      [..., methods].

    Example:
      >>> ranks([0.9, np.nan, 0.7, 0.9])
      array([1.5, 4. , 3. , 1.5])
    """
    return stats.rankdata(-quality(values, better).astype(np.float64), axis=-1)


def mean_ranks(
    finals: list[Any], better: list[str], samples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[Interval, list[Interval]]:
    """Ranks of methods by their mean over repeats, on each task and on average over tasks, with their uncertainty.

    In each bootstrap sample every method's repeats on every task are drawn anew, with replacement and independently of
    the others', the means are ranked, and the ranks averaged over tasks: an interval of ranks says how far the order
    depends on the seeds, not how it would change with other tasks (`critical_difference` asks that).

    Args:
      finals: one array [methods, repeats] a task. NaN: this repeat diverged, and a mean with it is the worst.
      better: "max" or "min" for each task.
      samples: of the bootstrap.
      level: of the intervals.
      seed: of the samples.

    Returns:
      mean ranks over tasks, and ranks per task: value, low and high, each [methods].

    Example:
      >>> overall, per_task = mean_ranks([[[0.9, 0.8], [0.5, 0.6]]], ["max"])
      >>> overall.value, overall.low, overall.high
      (array([1., 2.]), array([1., 2.]), array([1., 2.]))
    """
    rng = np.random.default_rng(seed)
    values, drawn = [], []
    for task, direction in zip(finals, better, strict=True):
        repeats = np.asarray(task, np.float64)
        picks = rng.integers(repeats.shape[1], size=(samples, *repeats.shape))
        sampled = np.take_along_axis(repeats[None], picks, axis=2)
        values.append(ranks(repeats.mean(axis=1), direction))
        drawn.append(ranks(sampled.mean(axis=2), direction))
    per_task = [_interval(value, sample, level) for value, sample in zip(values, drawn, strict=True)]
    return _interval(np.mean(values, axis=0), np.mean(drawn, axis=0), level), per_task


def friedman(task_ranks: Any) -> tuple[float, float]:
    r"""Friedman's test of whether methods differ at all, from their ranks on each task.

    $\chi^2 = 12 T / (M (M + 1)) \sum_m (\bar r_m - (M + 1) / 2)^2$ for T tasks and M methods, corrected for ties.

    Args:
      task_ranks: [tasks, methods], at least 2 tasks and 3 methods.

    Returns:
      statistic and p-value (by the chi-squared distribution with M - 1 degrees, which few tasks only roughly follow).

    Example:
      >>> friedman([[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]])[0]
      8.0

    References:
      Demsar, Statistical comparisons of classifiers over multiple data sets, 2006.
    """
    table = np.asarray(task_ranks, np.float64)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 3:
        raise ValueError(f"friedman: ranks of at least 2 tasks and 3 methods are needed, got shape {table.shape}.")
    if (table == table[:, :1]).all():
        return 0.0, 1.0  # all tie everywhere: the correction for ties would divide by 0
    found = stats.friedmanchisquare(*table.T)
    return float(found.statistic), float(found.pvalue)


def critical_difference(methods: int, tasks: int, level: float = 0.95) -> float:
    r"""Nemenyi's critical difference: mean ranks over tasks that differ by less are not told apart.

    $q \sqrt{M (M + 1) / (6 T)}$, q the quantile of the studentised range of M methods, divided by $\sqrt 2$.

    Args:
      methods: M, at least 2.
      tasks: T.
      level: of confidence.

    Returns:
      a difference of mean ranks.

    Example:
      >>> critical_difference(4, 14)
      1.25

    References:
      Demsar, Statistical comparisons of classifiers over multiple data sets, 2006, table 5.
    """
    if methods < 2 or tasks < 1:
        raise ValueError(f"critical_difference: 2 methods and 1 task at least, got {methods} and {tasks}.")
    quantile = stats.studentized_range.ppf(level, methods, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6 * tasks)))


def pareto_front(cost: Any, value: Any, better: str = "max") -> np.ndarray:
    """Positions of the points that no other point beats: none is as cheap and better, or as good and cheaper.

    Args:
      cost: [points], the smaller the better.
      value: [points]; where cost or value is NaN, the point is left out.
      better: "max" or "min", for the values.

    Returns:
      positions, in the order of rising cost (and rising quality); of equal points the first.

    Example:
      >>> pareto_front([1, 2, 3, 2], [0.5, 0.7, 0.6, 0.6])
      array([0, 1])
    """
    cost = np.asarray(cost, np.float64)
    ranked = np.where(np.isnan(cost), -np.inf, quality(value, better).astype(np.float64))
    order = np.lexsort((-ranked, np.where(np.isnan(cost), np.inf, cost)))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], ranked[order][:-1]]))
    return order[ranked[order] > best]


def win_probability(
    values: Any, better: str = "max", ties: str = "split", shuffles: int | None = None, seed: int = 0
) -> np.ndarray:
    r"""Probability that method m has the best of all values when each method has had k of its N trials.

    Each method draws k of its own trials without replacement, independently of the others. With $G_j$ the distribution
    function of method j's best value after k trials and $g_j$ its jumps, methods that tie share the win evenly when

    $$P_m = \sum_v g_m(v) \int_0^1 \prod_{j \neq m} (G_j(v^-) + t g_j(v)) \, dt,$$

    the integral being E[1 / (1 + number of others at v); none is better], which Gauss's rule has exactly. If the first
    in the list wins, as in the authors' code, $P_m = \sum_v g_m(v) \prod_{j < m} G_j(v^-) \prod_{j > m}
    G_j(v)$. The sum over methods is 1. Where all draws of all methods diverged they tie.

    Args:
      values: one a trial [methods, N], of the metric that counts: for the authors, test, ignoring validation.
      better: "max" or "min".
      ties: "split", or "first" in the list.
      shuffles: estimate from that many random orders, the published procedure; None for the exact value.
      seed: of the orders.

    Returns:
      [N, methods], a row for each k.

    Example:
      >>> win_probability([[1.0, 0.0], [0.5, 0.5]])
      array([[0.5, 0.5],
             [1. , 0. ]])

    References:
      Sivaprasad et al., Optimizer benchmarking needs to account for hyperparameter tuning, 2020, figures 1 and 6.
    """
    ranked = quality(values, better).astype(np.float64)
    if ranked.ndim != 2 or not ranked.size or ties not in ("split", "first"):
        raise ValueError(
            f'win_probability: values [methods, trials] and ties "split" or "first" are needed, got shape '
            f"{ranked.shape} and {ties!r}."
        )
    if shuffles is not None:
        return _shuffled_wins(ranked, ties, shuffles, np.random.default_rng(seed))
    methods, trials = ranked.shape
    levels = np.unique(ranked)
    counts = np.stack([np.searchsorted(np.sort(row), levels, side="right") for row in ranked])
    nodes, sizes = np.polynomial.legendre.leggauss((methods + 1) // 2)
    rule = list(zip((nodes + 1) / 2, sizes / 2, strict=True))
    within = np.ones(counts.shape)
    wins = np.empty((trials, methods))
    for k in range(trials):
        within = within * np.maximum(counts - k, 0) / (trials - k)
        below = np.concatenate([np.zeros((methods, 1)), within[:, :-1]], axis=1)
        if ties == "first":
            others = _product_of_others(below, within)
        else:
            others = sum(size * _product_of_others(*[below + t * (within - below)] * 2) for t, size in rule)
        wins[k] = ((within - below) * others).sum(axis=1)
    return wins


def _product_of_others(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """In row m, the product of the rows of `before` above it and the rows of `after` below it."""
    ones = np.ones((1, before.shape[1]))
    above = np.cumprod(np.concatenate([ones, before[:-1]]), axis=0)
    return above * np.cumprod(np.concatenate([ones, after[:0:-1]]), axis=0)[::-1]


def _shuffled_wins(ranked: np.ndarray, ties: str, shuffles: int, rng: np.random.Generator) -> np.ndarray:
    wins = np.zeros(ranked.shape[::-1])
    for _ in range(shuffles):
        best = np.maximum.accumulate(rng.permuted(ranked, axis=1), axis=1).T
        tied = best == best.max(axis=1, keepdims=True)
        first = np.arange(tied.shape[1]) == tied.argmax(axis=1)[:, None]
        wins += first if ties == "first" else tied / tied.sum(axis=1, keepdims=True)
    return wins / shuffles
