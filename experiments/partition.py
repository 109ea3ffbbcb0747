r"""Who holds which sample: partitions of a labelled data set over n nodes, from i.i.d. to one class a node.

A partition is a list of n index arrays, sorted, disjoint, covering all N samples, none empty: a pure function of the
labels, the number of nodes and the seed. The two Dirichlet schemes that the literature calls by one name are apart:

- `dirichlet_per_class`: each class is dealt to the nodes in proportions q_c ~ Dir(alpha 1_n). Sizes vary.
- `dirichlet_per_client`: each node draws its own mixture of classes p_i ~ Dir(alpha p), p the overall one. Sizes equal.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Labels = Int[np.ndarray, "samples"]
Parts = list[np.ndarray]


class Stacked(NamedTuple):
    """A partitioned data set as arrays with a leading node axis; m is the size of the largest share."""

    features: Float[np.ndarray, "n m d"]  # zero where padded
    labels: Int[np.ndarray, "n m"]  # zero where padded
    weights: Float[np.ndarray, "n m"]  # n / N for samples, zero where padded


def _check_nodes(scheme: str, labels: Labels, nodes: int, per_node: int = 1) -> None:
    if isinstance(nodes, bool) or nodes < 1 or per_node < 1 or nodes * per_node > len(labels):
        raise ValueError(
            f"{scheme}: {nodes} nodes with at least {per_node} of the {len(labels)} samples each is impossible. "
            f"Use between 1 and {len(labels) // max(per_node, 1)} nodes."
        )


def _check_alpha(scheme: str, alpha: float) -> None:
    if not (np.isfinite(alpha) and alpha > 0):
        raise ValueError(f"{scheme}: alpha must be positive and finite, got {alpha}. Use 0.1 for skewed, 100 for even.")


def _sorted_by_label(labels: Labels, rng: np.random.Generator) -> np.ndarray:
    """All indices, class by class, shuffled within a class so that the order of the file plays no role."""
    shuffled = rng.permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def _tidy(owners: np.ndarray, nodes: int) -> Parts:
    return [np.flatnonzero(owners == i) for i in range(nodes)]


def _deal(indices: np.ndarray, proportions: np.ndarray) -> Parts:
    """Cut indices into contiguous shares of these proportions, rounded so that the sizes add up."""
    return np.split(indices, np.rint(np.cumsum(proportions)[:-1] * len(indices)).astype(int))


def _top_up(parts: Parts, minimum: int, rng: np.random.Generator) -> Parts:
    """Move random samples from the largest shares to those below `minimum`.

    Drawing anew until all shares are large enough, as is common, need not end for small alpha.
    """
    shares = [list(rng.permutation(part)) for part in parts]
    for share in shares:
        while len(share) < minimum:
            share.append(max(shares, key=len).pop())
    return [np.sort(np.array(share, dtype=np.int64)) for share in shares]


def iid(labels: Labels, nodes: int, seed: int = 0) -> Parts:
    """Uniformly at random, in sizes that differ by one at most.

    Example:
      >>> [len(part) for part in iid(np.zeros(7, dtype=int), 3)]
      [3, 2, 2]
    """
    _check_nodes("iid", labels, nodes)
    order = np.random.default_rng(seed).permutation(len(labels))
    return [np.sort(part) for part in np.array_split(order, nodes)]


def by_label(labels: Labels, nodes: int, seed: int = 0) -> Parts:
    """Sort by label and cut into contiguous shares whose sizes differ by one at most: the extreme of label skew.

    Example:
      >>> labels = np.array([1, 0, 1, 0])
      >>> [labels[part].tolist() for part in by_label(labels, 2)]
      [[0, 0], [1, 1]]
    """
    _check_nodes("by_label", labels, nodes)
    order = _sorted_by_label(labels, np.random.default_rng(seed))
    return [np.sort(part) for part in np.array_split(order, nodes)]


def label_shards(labels: Labels, nodes: int, shards_per_node: int = 2, seed: int = 0) -> Parts:
    """Sort by label, cut into nodes * shards_per_node contiguous shards, deal these at random: few labels a node.

    Example:
      >>> labels = np.repeat(np.arange(10), 8)
      >>> max(
      ...     len(set(labels[part]))
      ...     for part in label_shards(labels, 5, shards_per_node=2)
      ... )
      2

    References:
      McMahan et al., Communication-efficient learning of deep networks from decentralized data, 2017.
    """
    _check_nodes("label_shards", labels, nodes, shards_per_node)
    rng = np.random.default_rng(seed)
    shards = np.array_split(_sorted_by_label(labels, rng), nodes * shards_per_node)
    hands = rng.permutation(len(shards)).reshape(nodes, shards_per_node)
    return [np.sort(np.concatenate([shards[k] for k in hand])) for hand in hands]


def dirichlet_per_class(labels: Labels, nodes: int, alpha: float, seed: int = 0, minimum: int = 1) -> Parts:
    """Deal each class c to the nodes in proportions q_c ~ Dir(alpha, ..., alpha); small alpha: few nodes hold a class.

    Args:
      labels: class of each sample [N].
      nodes: number of shares.
      alpha: concentration; about iid for alpha >> 1, one node a class for alpha << 1. Sizes are uneven too.
      seed: of the draw.
      minimum: smallest share; random samples of the largest shares fill up those below it.

    Returns:
      `nodes` sorted index arrays.

    Example:
      >>> parts = dirichlet_per_class(np.repeat(np.arange(3), 20), 4, alpha=0.1)
      >>> sum(len(part) for part in parts)
      60

    References:
      Yurochkin et al., Bayesian nonparametric federated learning of neural networks, 2019.
    """
    _check_nodes("dirichlet_per_class", labels, nodes, minimum)
    _check_alpha("dirichlet_per_class", alpha)
    rng = np.random.default_rng(seed)
    owners = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        for node, share in enumerate(_deal(members, rng.dirichlet(np.full(nodes, alpha)))):
            owners[share] = node
    return _top_up(_tidy(owners, nodes), minimum, rng)


def dirichlet_per_client(labels: Labels, nodes: int, alpha: float, seed: int = 0) -> Parts:
    """Give each node its own mixture of classes p_i ~ Dir(alpha p), p the overall one, in sizes that differ by one.

    The nodes take turns to draw one sample from their mixture, without replacement; a class that has run out is left
    out of all mixtures from then on, so that the last draws follow what is left.

    Args:
      labels: class of each sample [N].
      nodes: number of shares.
      alpha: concentration: about iid for alpha >> 1, about one class a node for alpha << 1.
      seed: of the draw.

    Returns:
      `nodes` sorted index arrays.

    Example:
      >>> [
      ...     len(part)
      ...     for part in dirichlet_per_client(np.repeat(np.arange(3), 20), 4, alpha=0.1)
      ... ]
      [15, 15, 15, 15]

    References:
      Hsu, Qi and Brown, Measuring the effects of non-identical data distribution, 2019.
    """
    _check_nodes("dirichlet_per_client", labels, nodes)
    _check_alpha("dirichlet_per_client", alpha)
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    pools = [list(rng.permutation(np.flatnonzero(labels == label))) for label in classes]
    mixtures = rng.dirichlet(alpha * counts / counts.sum(), size=nodes)
    left = counts.copy()
    owners = np.empty(len(labels), dtype=np.int64)
    for turn in range(len(labels)):
        chances = mixtures[turn % nodes] * (left > 0)
        if chances.sum() <= 0:  # all of this node's classes have run out
            chances = left
        label = rng.choice(len(classes), p=chances / chances.sum())
        owners[pools[label].pop()] = turn % nodes
        left[label] -= 1
    return _tidy(owners, nodes)


def quantity_skew(labels: Labels, nodes: int, alpha: float, seed: int = 0, minimum: int = 1) -> Parts:
    """Shares of sizes ~ Dir(alpha, ..., alpha) N, each a uniform sample: nodes differ in how much, not in what.

    Example:
      >>> parts = quantity_skew(np.zeros(100, dtype=int), 4, alpha=0.5, minimum=5)
      >>> min(len(part) for part in parts) >= 5
      True
    """
    _check_nodes("quantity_skew", labels, nodes, minimum)
    _check_alpha("quantity_skew", alpha)
    rng = np.random.default_rng(seed)
    shares = _deal(rng.permutation(len(labels)), rng.dirichlet(np.full(nodes, alpha)))
    return _top_up(shares, minimum, rng)


def stack(features: Float[np.ndarray, "samples d"], labels: Labels, parts: Parts) -> Stacked:
    r"""Pad the shares to one length m and stack them, with weights that make unequal shares one average.

    With $w_{ik} = n / N$ on samples and 0 on padding, $\frac1n \sum_i \sum_k w_{ik} \ell_{ik}$ is the average loss
    over all N samples, so that node i's objective is $f_i = \sum_k w_{ik} \ell_{ik}$ and the network's is their mean.

    Args:
      features: [N, d].
      labels: [N].
      parts: n index arrays.

    Returns:
      features [n, m, d], labels [n, m], weights [n, m].

    Raises:
      ValueError: no parts, or an empty one.

    Example:
      >>> stack(
      ...     np.ones((3, 2)), np.array([0, 1, 1]), [np.array([0]), np.array([1, 2])]
      ... ).weights.round(3)
      array([[0.667, 0.   ],
             [0.667, 0.667]])
    """
    sizes = [len(part) for part in parts]
    if not sizes or min(sizes) == 0:
        raise ValueError(f"stack: every node needs a sample, got shares of sizes {sizes}. Use fewer nodes.")
    n, m = len(parts), max(sizes)
    place = np.arange(m) < np.array(sizes)[:, None]
    index = np.concatenate(parts)
    stacked = Stacked(
        np.zeros((n, m, features.shape[1]), dtype=features.dtype),
        np.zeros((n, m), dtype=labels.dtype),
        np.zeros((n, m)),
    )
    stacked.features[place] = features[index]
    stacked.labels[place] = labels[index]
    stacked.weights[place] = n / len(index)
    return stacked


def heterogeneity(labels: Labels, parts: Parts) -> float:
    r"""The mean total-variation distance of the nodes' label distributions to that of all samples, in [0, 1).

    $\frac1n \sum_i \frac12 \sum_c |p_i(c) - p(c)|$: 0 if all nodes see the same mix, 1 - 1/C for C even classes, one a
    node. Random shares of m samples have about $0.4 \sqrt{(C - 1) / m}$ by chance alone.

    Example:
      >>> labels = np.array([0, 0, 1, 1])
      >>> heterogeneity(labels, [np.array([0, 1]), np.array([2, 3])])
      0.5
    """
    classes, codes = np.unique(labels, return_inverse=True)
    overall = np.bincount(codes) / len(labels)
    local = np.stack([np.bincount(codes[part], minlength=len(classes)) / len(part) for part in parts])
    return float(np.abs(local - overall).sum(axis=1).mean() / 2)
