"""Losses and accuracy of each sample: functions of (outputs [b, ...], labels) that return [b]."""

import jax
import jax.numpy as jnp
from jaxtyping import Array


def _per_sample(values: Array) -> Array:
    """The mean over all axes but the first: the characters of a text."""
    return values.reshape(len(values), -1).mean(axis=1)


def _check(name: str, expected: tuple[int, ...], outputs: Array, labels: Array) -> None:
    if labels.shape != expected:
        raise ValueError(
            f"{name}: labels of outputs {outputs.shape} must have shape {expected}, got {labels.shape}. "
            "Hand in one label a prediction."
        )


def cross_entropy(outputs: Array, labels: Array) -> Array:
    r"""Softmax cross-entropy, $\log \sum_c \exp z_c - z_y$, averaged over the places of a text.

    The right logit is taken by comparing and adding: indexing would be a scatter in the gradient.

    Args:
      outputs: logits [b, ..., classes].
      labels: integers [b, ...].

    Returns:
      [b].

    Example:
      >>> cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3])).round(4)
      Array([1.3863, 1.3863], dtype=float64)
    """
    _check("cross_entropy", outputs.shape[:-1], outputs, labels)
    classes = jnp.arange(outputs.shape[-1]).reshape((1,) * labels.ndim + (-1,))
    right = jnp.where(labels[..., None] == classes, outputs, 0).sum(axis=-1)
    return _per_sample(jax.nn.logsumexp(outputs, axis=-1) - right)


def squared_error(outputs: Array, labels: Array) -> Array:
    r"""Half the squared distance, $\frac12 \lVert z - y \rVert^2$.

    Args:
      outputs: [b, ...]; [b, 1] for labels [b].
      labels: numbers, of the outputs' shape.

    Returns:
      [b].

    Example:
      >>> squared_error(jnp.array([[3.0], [1.0]]), jnp.array([1.0, 1.0]))
      Array([2., 0.], dtype=float64)
    """
    if outputs.ndim == labels.ndim + 1 and outputs.shape[-1] == 1:
        outputs = outputs[..., 0]
    _check("squared_error", outputs.shape, outputs, labels)
    return 0.5 * jnp.square(outputs - labels).reshape(len(outputs), -1).sum(axis=1)


def accuracy(outputs: Array, labels: Array) -> Array:
    """The share of right predictions: 0 or 1, or for texts the share of right characters.

    Example:
      >>> accuracy(jnp.array([[0.0, 2.0], [1.0, 0.0]]), jnp.array([1, 1]))
      Array([1., 0.], dtype=float64)
    """
    _check("accuracy", outputs.shape[:-1], outputs, labels)
    return _per_sample((outputs.argmax(axis=-1) == labels).astype(outputs.dtype))
