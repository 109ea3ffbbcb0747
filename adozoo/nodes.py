r"""The node axis: stacked pytrees in which every leaf has one row per node.

Row i of every leaf belongs to node i. These functions are the only ones, besides the communication objects of
`adozoo.mixing`, that look across that axis; a method uses the communication objects alone.
"""

from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from adozoo._optax import transformation


def node_count(tree: PyTree) -> int:
    """The length of the node axis, after checking that all leaves agree.

    Raises:
      ValueError: if the tree has no leaves, a leaf is a scalar, or the leaves' leading axes differ.

    Example:
      >>> adozoo.nodes.node_count({"w": jnp.zeros((4, 3)), "b": jnp.zeros(4)})
      4
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    sizes = {shape[0] if shape else None for shape in shapes}
    if len(sizes) != 1 or None in sizes:
        raise ValueError(
            f"expected a stacked pytree whose leaves share one leading node axis, got leaves of shapes {shapes}. "
            "Use adozoo.replicate(params, n) to give every leaf that axis."
        )
    return sizes.pop()  # type: ignore[return-value]


def replicate(params: PyTree, n: int) -> PyTree:
    """Give every leaf a leading node axis of length n, each node holding the same values.

    Args:
      params: any pytree of arrays or numbers; a leaf of shape [...] becomes [n, ...].
      n: the number of nodes.

    Returns:
      The stacked pytree.

    Raises:
      ValueError: if n is not a positive integer.

    Example:
      >>> adozoo.replicate({"w": jnp.ones(3)}, 4)["w"].shape
      (4, 3)
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"replicate: n must be a positive integer (the number of nodes), got {n!r}.")
    return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x), (n, *jnp.shape(x))), params)


def node_mean(tree: PyTree) -> PyTree:
    r"""The average over nodes, \bar x = (1/n) \sum_i x_i; the node axis is dropped.

    Example:
      >>> adozoo.node_mean(jnp.array([[0.0, 2.0], [4.0, 6.0]]))
      Array([2., 4.], dtype=float64)
    """
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), tree)


def disagreement(tree: PyTree) -> PyTree:
    r"""What each node has beyond the average: x_i - \bar x, with the node axis kept.

    Example:
      >>> adozoo.disagreement(jnp.array([1.0, 3.0]))
      Array([-1.,  1.], dtype=float64)
    """
    return jax.tree.map(lambda x: x - jnp.mean(x, axis=0, keepdims=True), tree)


def consensus_distance(tree: PyTree) -> Float[Array, ""]:
    r"""The consensus distance \sqrt{ (1/n) \sum_i \| x_i - \bar x \|^2 }, over all leaves together.

    Example:
      >>> float(
      ...     adozoo.consensus_distance(
      ...         {"a": jnp.array([1.0, 3.0]), "b": jnp.array([[0.0], [0.0]])}
      ...     )
      ... )
      1.0
    """
    n = node_count(tree)
    squares = [jnp.sum(jnp.square(x)) for x in jax.tree.leaves(disagreement(tree))]
    return jnp.sqrt(sum(squares[1:], squares[0]) / n)


def per_node(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Apply any optax transformation to each node by itself.

    On stacked leaves many transformations do not mean what they mean on one node: a global-norm clip would take the
    norm over all nodes, lamb and muon would see one tensor more, apply_if_finite would freeze every node for one node's
    NaN. Here `init` and `update` are vmapped over the node axis, so that node i runs its own copy. Nothing is sent.

    Args:
      tx: the transformation that one node would run on its own params.

    Returns:
      A transformation over stacked pytrees. Every leaf of its state has a leading node axis (a step count becomes one
      count a node). Extra arguments of `update` are handed to every node as they are.

    Example:
      >>> tx = adozoo.per_node(optax.clip_by_global_norm(1.0))
      >>> grads = jnp.array([[3.0, 4.0], [0.3, 0.4]])
      >>> tx.update(grads, tx.init(grads))[0].round(3)
      Array([[0.6, 0.8],
             [0.3, 0.4]], dtype=float64)
    """
    tx = optax.with_extra_args_support(tx)

    def init(params: PyTree) -> PyTree:
        return jax.vmap(tx.init)(params)

    def update(grads: PyTree, state: PyTree, params: PyTree | None = None, **extra: Any) -> tuple[PyTree, PyTree]:
        def one(g: PyTree, s: PyTree, p: PyTree | None) -> tuple[PyTree, PyTree]:
            return tx.update(g, s, p, **extra)

        return jax.vmap(one, in_axes=(0, 0, None if params is None else 0))(grads, state, params)

    return transformation(init, update)


@singledispatch
def _eval_params(state: Any, params: PyTree) -> PyTree:
    if type(state) is tuple:  # the state of optax.chain: one state a part, the last one decides last
        for part in state:
            params = _eval_params(part, params)
    return params


register_eval_params = _eval_params.register
"""Decorator, given a state's type: how a method's answer is read off its state, where that is not `params` itself."""


def eval_params(state: PyTree, params: PyTree) -> PyTree:
    """The method's answer: the stacked params at which it should be evaluated.

    Gradients are taken at `params`. A method that answers at another point registers how to get it from its state
    (`adozoo.nodes.register_eval_params`); the rest, and any optax transformation, answer at `params`. Chains are looked
    through.

    Example:
      >>> tx = optax.chain(
      ...     adozoo.per_node(optax.adam(0.1)),
      ...     adozoo.adapt_then_combine(adozoo.exact_mean(2)),
      ... )
      >>> x = jnp.ones((2, 3))
      >>> adozoo.eval_params(tx.init(x), x) is x
      True
    """
    return _eval_params(state, params)
