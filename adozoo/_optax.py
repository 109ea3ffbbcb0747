"""Building optax transformations, in types that a checker follows."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


def transformation(init: Callable[..., Any], update: Callable[..., Any]) -> optax.GradientTransformationExtraArgs:
    """optax's pair of functions; our `update` calls its first argument grads where gradients are meant."""
    return optax.GradientTransformationExtraArgs(init, update)


def zero_count() -> Int[Array, ""]:
    """The step count before the first step."""
    return jnp.zeros((), jnp.int32)


def increment(count: Int[Array, ""]) -> Int[Array, ""]:
    """count + 1; it stays at its largest value instead of overflowing."""
    return jnp.asarray(optax.safe_increment(count))
