"""How far apart the nodes' shares of a data set are: in what they hold, and in how much."""

from typing import Any

import numpy as np
from scipy import stats

from experiments.data import Dataset


def heterogeneity(labels: np.ndarray, parts: list[np.ndarray]) -> float:
    r"""The mean total-variation distance of the nodes' label distributions to that of all samples, in [0, 1).

    $\frac1n \sum_i \frac12 \sum_c |p_i(c) - p(c)|$: 0 if all nodes see the same mix, 1 - 1/C for C even classes, one a
    node. Random shares are not at 0 either: see `heterogeneity_by_chance`.

    Example:
      >>> labels = np.array([0, 0, 1, 1])
      >>> heterogeneity(labels, [np.array([0, 1]), np.array([2, 3])])
      0.5
    """
    classes, codes = np.unique(labels, return_inverse=True)
    overall = np.bincount(codes) / len(labels)
    local = np.stack([np.bincount(codes[part], minlength=len(classes)) / len(part) for part in parts])
    return float(np.abs(local - overall).sum(axis=1).mean() / 2)


def heterogeneity_by_chance(labels: np.ndarray, sizes: Any) -> float:
    r"""What `heterogeneity` is expected to be where shares of these sizes are drawn uniformly: exact, no simulation.

    The count k of class c in a share of m of the N samples is hypergeometric, and with $a = \lfloor m N_c / N \rfloor +
    1$ the sum in its mean absolute deviation telescopes: $E |k - m N_c / N| = \frac2N a (N - N_c - m + a) P(k = a)$.

    Args:
      labels: class of each sample [N].
      sizes: of the n shares.

    Returns:
      $\frac1n \sum_i \frac{1}{2 m_i} \sum_c E |k - m_i N_c / N|$.

    Example:
      >>> heterogeneity_by_chance(np.array([0, 0, 1, 1]), [2, 2])
      0.1666666666666...
    """
    counts = np.unique(labels, return_counts=True)[1]
    share, total = np.asarray(sizes)[:, None], len(labels)
    above = share * counts // total + 1
    chance = stats.hypergeom.pmf(above, total, counts, share)
    deviation = 2 * above * (total - counts - share + above) * chance / total
    return float((deviation / share).sum(axis=1).mean() / 2)


def measure(dataset: Dataset, parts: list[np.ndarray]) -> dict[str, float]:
    """How far apart the nodes' shares are: what is stored with a run.

    Args:
      dataset: what was dealt.
      parts: n index arrays.

    Returns:
      `nodes`, `smallest_share`, `largest_share`; where labels are classes also `heterogeneity`,
      `heterogeneity_by_chance`, `fewest_classes`, `mean_classes` and `most_classes` a node; where groups are known,
      `mean_groups` a node.

    Example:
      >>> from experiments import data
      >>> digits = data.digits()
      >>> found = measure(digits, np.array_split(np.argsort(digits.labels), 10))
      >>> round(found["heterogeneity"], 2), round(found["heterogeneity_by_chance"], 2)
      (0.89, 0.08)
    """
    sizes = [len(part) for part in parts]
    found: dict[str, float] = {"nodes": len(parts), "smallest_share": min(sizes), "largest_share": max(sizes)}
    if dataset.has_classes:
        classes = [len(np.unique(dataset.labels[part])) for part in parts]
        found |= {
            "heterogeneity": heterogeneity(dataset.labels, parts),
            "heterogeneity_by_chance": heterogeneity_by_chance(dataset.labels, sizes),
            "fewest_classes": min(classes),
            "mean_classes": float(np.mean(classes)),
            "most_classes": max(classes),
        }
    if dataset.groups is not None:
        found["mean_groups"] = float(np.mean([len(np.unique(dataset.groups[part])) for part in parts]))
    return found
