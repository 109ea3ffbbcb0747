r"""Who holds which sample: partitions of a labelled data set over n nodes, from i.i.d. to one class a node.

A partition is a list of n index arrays, sorted, disjoint, covering all N samples, none empty: a pure function of the
labels, the number of nodes and the seed. The two Dirichlet schemes that the literature calls by one name are apart:

- `dirichlet_per_class`: each class is dealt to the nodes in proportions q_c ~ Dir(alpha 1_n). Sizes vary.
- `dirichlet_per_client`: each node draws its own mixture of classes p_i ~ Dir(alpha p), p the overall one. Sizes equal.

`by_name` reads a scheme from text, and `measure` says how far apart the shares are that come out.
"""

import difflib
from bisect import bisect_right
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from experiments.data import Dataset
from experiments.heterogeneity import heterogeneity as heterogeneity
from experiments.heterogeneity import measure as measure

Labels = Int[np.ndarray, "samples"]
Parts = list[np.ndarray]


class Stacked(NamedTuple):
    """A partitioned data set as arrays with a leading node axis; m is the size of the largest share."""

    features: Shaped[np.ndarray, "n m *features"]  # zero where padded
    labels: Shaped[np.ndarray, "n m *targets"]  # zero where padded
    weights: Shaped[np.ndarray, "n m"]  # n / N for samples, zero where padded


def _check_nodes(scheme: str, labels: Labels, nodes: int, per_node: int = 1) -> None:
    if isinstance(nodes, bool) or nodes < 1 or per_node < 1 or nodes * per_node > len(labels):
        raise ValueError(
            f"{scheme}: {nodes} nodes with at least {per_node} of the {len(labels)} samples each is impossible. "
            f"Use between 1 and {len(labels) // max(per_node, 1)} nodes."
        )


def _check_alpha(scheme: str, alpha: float) -> None:
    if not (np.isfinite(alpha) and alpha > 0):
        raise ValueError(f"{scheme}: alpha must be positive and finite, got {alpha}. Use 0.1 for skewed, 100 for even.")


def sorted_by_label(labels: Labels, rng: np.random.Generator) -> np.ndarray:
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


def _thresholds(chances: np.ndarray) -> list[float]:
    """Cumulative chances, which a uniform number is looked up in; empty if nothing has a chance."""
    if chances.sum() <= 0:
        return []
    cumulative = np.cumsum(chances / chances.sum())
    return (cumulative / cumulative[-1]).tolist()


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
    order = sorted_by_label(labels, np.random.default_rng(seed))
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
    shards = np.array_split(sorted_by_label(labels, rng), nodes * shards_per_node)
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
    thresholds = [_thresholds(mixture) for mixture in mixtures]
    for turn, uniform in enumerate(rng.random(len(labels))):
        node = turn % nodes
        # Where all of a node's classes have run out, it draws from what is left of the others.
        label = bisect_right(thresholds[node] or _thresholds(left), uniform)
        owners[pools[label].pop()] = node
        left[label] -= 1
        if not left[label]:
            thresholds = [_thresholds(mixture * (left > 0)) for mixture in mixtures]
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


def natural(groups: np.ndarray, nodes: int, seed: int = 0) -> Parts:
    r"""Deal whole groups (authors, works, machines) to the nodes, so that the shares are about equally large.

    The groups go one after the other, the largest first, each to the node that has the fewest samples by then (longest
    processing time first): the largest share is at most 4/3 of the smallest that it can be. The seed decides between
    groups of one size and between nodes of one size.

    Args:
      groups: code of each sample's group [N].
      nodes: number of shares.
      seed: of the ties.

    Returns:
      `nodes` sorted index arrays.

    Raises:
      ValueError: there are fewer groups than nodes.

    Example:
      >>> groups = np.array([0, 0, 0, 1, 1, 2])
      >>> sorted(sorted(set(groups[part].tolist())) for part in natural(groups, 2))
      [[0], [1, 2]]

    References:
      Graham, Bounds on multiprocessing timing anomalies, 1969.
    """
    codes, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if isinstance(nodes, bool) or not 1 <= nodes <= len(codes):
        raise ValueError(
            f"natural: {len(codes)} groups cannot go whole to {nodes} nodes. Use between 1 and {len(codes)} nodes."
        )
    rng = np.random.default_rng(seed)
    shuffled, rank = rng.permutation(len(codes)), rng.permutation(nodes)
    loads = np.zeros(nodes, dtype=np.int64)
    holder = np.empty(len(codes), dtype=np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        holder[group] = np.lexsort((rank, loads))[0]
        loads[holder[group]] += sizes[group]
    return _tidy(holder[inverse], nodes)


SCHEMES = {
    "iid": iid,
    "by_label": by_label,
    "label_shards": label_shards,
    "dirichlet_per_class": dirichlet_per_class,
    "dirichlet_per_client": dirichlet_per_client,
    "quantity_skew": quantity_skew,
    "natural": natural,
}
_NUMBERS = {"label_shards": int, "dirichlet_per_class": float, "dirichlet_per_client": float, "quantity_skew": float}
"""Schemes that take a number, and of which kind."""


def by_name(text: str, dataset: Dataset, nodes: int, seed: int = 0) -> Parts:
    """A partition from its name: what a command line or a suite file says.

    Args:
      text: "iid", "by_label", "natural", "label_shards:2" (shards a node), "dirichlet_per_class:0.1",
        "dirichlet_per_client:0.1" or "quantity_skew:0.5" (alpha).
      dataset: what is dealt; where its labels are not classes but numbers or sequences, only "iid", "quantity_skew" and
        "natural" apply, and "natural" needs its groups.
      nodes: number of shares.
      seed: of the draw.

    Returns:
      `nodes` sorted index arrays.

    Raises:
      ValueError: an unknown scheme, one that does not suit the data, or a number that is missing, needless or refused.

    Example:
      >>> from experiments import data
      >>> len(by_name("dirichlet_per_class:0.1", data.digits(), 16))
      16
    """
    name, colon, number = text.partition(":")
    if name not in SCHEMES:
        near = difflib.get_close_matches(name, SCHEMES, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(SCHEMES)}."
        raise ValueError(f"partition: unknown scheme {name!r} in {text!r}. {hint}")
    arguments: list[Any] = []
    if name in _NUMBERS:
        try:
            arguments = [_NUMBERS[name](number)]
        except ValueError:
            example = "label_shards:2" if name == "label_shards" else f"{name}:0.1"
            raise ValueError(f"partition: {name!r} needs a number, got {text!r}. Write it like {example!r}.") from None
    elif colon:
        raise ValueError(f"partition: {name!r} takes no number, got {text!r}. Write it as {name!r}.")
    if name == "natural":
        if dataset.groups is None:
            raise ValueError(f"partition: {dataset.name} has no groups to deal out whole. Use 'iid', say.")
        return natural(dataset.groups, nodes, seed)
    if name in ("iid", "quantity_skew"):
        return SCHEMES[name](np.arange(len(dataset.labels)), nodes, *arguments, seed=seed)
    if not dataset.has_classes:
        raise ValueError(
            f"partition: {name!r} sorts by class, but the labels of {dataset.name} are no classes. Use 'iid', "
            "'quantity_skew:0.5' or 'natural'."
        )
    return SCHEMES[name](dataset.labels, nodes, *arguments, seed=seed)


def stack(
    features: Shaped[np.ndarray, "samples *features"], labels: Shaped[np.ndarray, "samples *targets"], parts: Parts
) -> Stacked:
    r"""Pad the shares to one length m and stack them, with weights that make unequal shares one average.

    With $w_{ik} = n / N$ on samples and 0 on padding, $\frac1n \sum_i \sum_k w_{ik} \ell_{ik}$ is the average loss
    over all N samples, so that node i's objective is $f_i = \sum_k w_{ik} \ell_{ik}$ and the network's is their mean.

    Args:
      features: [N, d], or [N, height, width, channels].
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
        np.zeros((n, m, *features.shape[1:]), dtype=features.dtype),
        np.zeros((n, m, *labels.shape[1:]), dtype=labels.dtype),
        np.zeros((n, m)),
    )
    stacked.features[place] = features[index]
    stacked.labels[place] = labels[index]
    stacked.weights[place] = n / len(index)
    return stacked
