r"""What becomes of batch-norm statistics over nodes: they are no parameters, and no optimiser moves them.

Node i gathers the mean $\mu_i$ and variance $v_i$ of what its own layers see. The mean model needs one pair. The mean
of the means is right for nodes of equal weight; of variances it is not: by the law of total variance, the variance of
all nodes' values together is

$$v = \frac1n \sum_i v_i + \frac1n \sum_i (\mu_i - \bar\mu)^2,$$

and the second term is what heterogeneous shares are about. What is linear, and may be mixed, is the second moment
$v_i + \mu_i^2$. All this describes the layers of the nodes' own models; those of the mean model see other values, for
which only "recomputed" passes data through it.

A pair is a dict that holds "mean" and "var", anywhere in the stats; other leaves are averaged or mixed as they are.
"""

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from experiments.models._module import Model

MESSAGE = 1
"""Params travel in a step's message 0, statistics in one that faults befall anew."""


def _over_pairs(function: Callable[[Array, Array], tuple[Array, Array]], stats: PyTree) -> PyTree:
    """Each (mean, var) replaced by what `function` makes of it."""
    if not isinstance(stats, dict):
        return stats
    if {"mean", "var"} <= stats.keys():
        mean, var = function(stats["mean"], stats["var"])
        return {**stats, "mean": mean, "var": var}
    return {name: _over_pairs(function, branch) for name, branch in stats.items()}


def _second_moments(stats: PyTree) -> PyTree:
    return _over_pairs(lambda mean, var: (mean, var + mean**2), stats)


def _variances(moments: PyTree) -> PyTree:
    """Back again; rounding and negative mixing weights could make a variance negative."""
    return _over_pairs(lambda mean, second: (mean, jnp.maximum(second - mean**2, 0)), moments)


def pooled(stats: PyTree) -> PyTree:
    """The statistics of all nodes' values together, by the law of total variance.

    Args:
      stats: stacked, leaves [n, ...].

    Returns:
      One model's.

    Example:
      >>> pooled({"mean": jnp.array([[0.0], [2.0]]), "var": jnp.array([[1.0], [1.0]])})
      {'mean': Array([1.], dtype=float64), 'var': Array([2.], dtype=float64)}
    """
    # Centred rather than by second moments: nothing cancels.
    together = _over_pairs(lambda mean, var: (mean, var + (mean - mean.mean(0, keepdims=True)) ** 2), stats)
    return jax.tree.map(lambda leaf: leaf.mean(0), together)


def batch_statistics(model: Model, params: PyTree, stats: PyTree, inputs: Array) -> PyTree:
    r"""The statistics of one batch itself: an update $s \leftarrow m s + (1 - m) b$ from $s = 0$, divided by $1 - m$.

    Args:
      model: the network, with its momentum m.
      params: one model's.
      stats: of the right structure; their values play no role.
      inputs: one batch.

    Returns:
      Statistics, the layers behind the first with their inputs normalised by this batch.
    """
    _, update = model.apply(params, jax.tree.map(jnp.zeros_like, stats), inputs, True)
    return jax.tree.map(lambda leaf: leaf / (1 - model.momentum), update)


def recompute(model: Model, params: PyTree, stats: PyTree, batches: Array) -> PyTree:
    """The statistics of one pass over `batches` with one model, exactly: no moving average, no dependence on order.

    Args:
      model: the network.
      params: one model's, as the mean of all nodes'.
      stats: of the right structure; their values play no role.
      batches: inputs [k, b, ...] in batches of one size. They pass one after the other.

    Returns:
      One model's stats: means, and variances by the law of total variance. For a first layer those of all k b samples.

    References:
      Izmailov et al., Averaging weights leads to wider optima and better generalization, 2018, section 3.2.
    """
    if not jax.tree.leaves(stats):
        return stats
    return pooled(jax.lax.map(lambda inputs: batch_statistics(model, params, stats, inputs), batches))


class Policy(NamedTuple):
    """What becomes of the statistics.

    Attributes:
      name: as in `policy`.
      after_step: (stats, mix, step) -> stats, stacked, called after each step with the run's mixing.
      for_mean: (model, mean_params, stats, batches) -> one model's stats, from the nodes' stacked ones; `batches` are
        training inputs [k, b, ...], which only "recomputed" reads.
    """

    name: str
    after_step: Callable[[PyTree, Any, Any], PyTree]
    for_mean: Callable[[Model, PyTree, PyTree, Array | None], PyTree]


def _keep(stats: PyTree, mix: Any, step: Any) -> PyTree:
    return stats


def _gossip(stats: PyTree, mix: Any, step: Any) -> PyTree:
    return _variances(mix(_second_moments(stats), step, MESSAGE)) if jax.tree.leaves(stats) else stats


def _pool(model: Model, mean_params: PyTree, stats: PyTree, batches: Array | None) -> PyTree:
    return pooled(stats)


def _pass(model: Model, mean_params: PyTree, stats: PyTree, batches: Array | None) -> PyTree:
    if batches is None:
        raise ValueError(
            "recomputed: batches must be training inputs [k, b, ...], got None. Hand some in, or use policy('local')."
        )
    return recompute(model, mean_params, jax.tree.map(lambda leaf: leaf[0], stats), batches)


def _nothing(stats: PyTree) -> PyTree:
    if jax.tree.leaves(stats):
        raise ValueError(
            f"replaced: the model must have no batch statistics, got {len(jax.tree.leaves(stats))} arrays of them. "
            "Build it with norm='group' or norm='evo', or use policy('local')."
        )
    return stats


POLICIES = {
    "local": Policy("local", _keep, _pool),
    "gossiped": Policy("gossiped", _gossip, _pool),
    "recomputed": Policy("recomputed", _keep, _pass),
    "replaced": Policy(
        "replaced", lambda stats, mix, step: _nothing(stats), lambda model, params, stats, batches: _nothing(stats)
    ),
}


def policy(name: str) -> Policy:
    """A policy by its name.

    - "local": each node keeps its own statistics; the mean model takes those of all nodes together (`pooled`).
    - "gossiped": after each step nodes mix them, means and second moments, so that consensus is on the pooled ones.
    - "recomputed": each node keeps its own; the mean model is given its own by a pass over data (`recompute`).
    - "replaced": there are none, because the network has group normalisation or EvoNorm; refuses those that have.

    Raises:
      ValueError: for an unknown name; the nearest known one is named.

    Example:
      >>> stats = {"mean": jnp.array([[0.0], [2.0]]), "var": jnp.array([[1.0], [1.0]])}
      >>> policy("gossiped").after_step(stats, adozoo.exact_mean(2), 0)["var"]
      Array([[2.],
             [2.]], dtype=float64)
    """
    if name not in POLICIES:
        near = difflib.get_close_matches(name, POLICIES, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(POLICIES)}."
        raise ValueError(f"policy: there is no batch-norm policy {name!r}. {hint}")
    return POLICIES[name]
