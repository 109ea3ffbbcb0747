"""Gradients of one network on every node."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from experiments.models._module import Model

Loss = Callable[[Array, Array], Array]


def objective(model: Model, loss: Loss, l2: float = 0.0) -> Callable[..., tuple[Array, PyTree]]:
    r"""One node's training objective, $f(x) = \sum_k w_k \ell(x; \xi_k) + \frac{\lambda}{2} \lVert x \rVert^2$.

    Args:
      model: the network.
      loss: (outputs, labels) -> losses [b], as in `experiments.models.losses`.
      l2: the coefficient $\lambda$; all params count, biases too.

    Returns:
      (params, stats, inputs, labels, weights=None, key=None) -> (value, stats), with weights 1 / b by default.
    """

    def value(
        params: PyTree, stats: PyTree, inputs: Array, labels: Array, weights: Array | None = None, key: Any = None
    ) -> tuple[Array, PyTree]:
        outputs, gathered = model.apply(params, stats, inputs, True, key)
        losses = loss(outputs, labels)
        total = losses.mean() if weights is None else jnp.vdot(weights.astype(losses.dtype), losses)
        if l2:
            total = total + (l2 / 2) * optax.tree.norm(params, squared=True)
        return total, gathered

    return value


def stacked_gradient(
    model: Model, loss: Loss, microbatch: int | None = None, l2: float = 0.0
) -> Callable[..., tuple[Array, PyTree, PyTree]]:
    r"""Every node's loss, gradient and batch statistics, each at its own params on its own batch.

    Args:
      model: the network.
      loss: (outputs, labels) -> losses [b], as in `experiments.models.losses`.
      microbatch: at most so many nodes at a time, the groups one after the other, so that activations take the memory
        of so many; all at once by default. Numbers agree to rounding.
      l2: adds $\frac{\lambda}{2} \lVert x \rVert^2$ to each node's loss.

    Returns:
      gradient(params, stats, inputs, labels, weights=None, keys=None) -> (losses [n], gradients, stats), with
      everything stacked: params and stats leaves [n, ...], inputs [n, b, ...], labels [n, b] (texts: [n, b, t]),
      weights [n, b] of the samples (1 / b by default; zeros for padding), keys [n] for dropout.

    Raises:
      ValueError: for a microbatch below one.

    Example:
      >>> from experiments import models
      >>> model = models.mlp(4, 3)
      >>> params, stats = adozoo.replicate(model.init(jax.random.key(0)), 2)
      >>> gradient = stacked_gradient(model, models.cross_entropy)
      >>> losses, gradients, _ = gradient(
      ...     params, stats, jnp.ones((2, 5, 4)), jnp.zeros((2, 5), int)
      ... )
      >>> losses.shape, gradients["linear0"]["kernel"].shape
      ((2,), (2, 4, 64))
    """
    if microbatch is not None and (isinstance(microbatch, bool) or not isinstance(microbatch, int) or microbatch < 1):
        raise ValueError(
            f"stacked_gradient: microbatch must be a whole number of nodes >= 1, got {microbatch!r}. "
            "Pass None for all nodes at once."
        )
    one = jax.value_and_grad(objective(model, loss, l2), has_aux=True)

    def gradient(
        params: PyTree,
        stats: PyTree,
        inputs: Array,
        labels: Array,
        weights: Array | None = None,
        keys: Any = None,
    ) -> tuple[Array, PyTree, PyTree]:
        nodes = (params, stats, inputs, labels, weights, keys)
        if microbatch is None or microbatch >= len(inputs):
            (losses, gathered), gradients = jax.vmap(one)(*nodes)
        else:
            (losses, gathered), gradients = jax.lax.map(lambda node: one(*node), nodes, batch_size=microbatch)
        return losses, gradients, gathered

    return gradient
