r"""Normalisation layers, each with the activation that follows it, since EvoNorm is both in one."""

import difflib

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

EPSILON = 1e-5
MOMENTUM = 0.9
"""The share of the old statistics that a training step keeps, in all networks here."""
GROUP = 8
"""Channels in a group, of group normalisation and of EvoNorm: 2 groups in ResNet-20's first stage, 64 in ResNet-18's
last. The published networks are wider and count groups (32)."""


def _groups(features: int) -> int:
    return max(1, features // GROUP) if features % GROUP == 0 else 1


def _group_deviation(inputs: Array, groups: int) -> Array:
    """The deviation of each sample's group of channels, broadcast to [b, h, w, c]."""
    parts = inputs.reshape(*inputs.shape[:-1], groups, -1)
    axes = (*range(1, inputs.ndim - 1), parts.ndim - 1)
    deviation = jnp.sqrt(parts.var(axis=axes, keepdims=True) + EPSILON)
    return jnp.broadcast_to(deviation, parts.shape).reshape(inputs.shape)


class BatchNorm(nnx.Module):
    r"""Batch normalisation, then ReLU: $\gamma (x - \mu) / \sqrt{v + \epsilon} + \beta$ a channel.

    In training $\mu, v$ are the batch's, and the stats move by $\mu_r \leftarrow .9 \mu_r + .1 \mu$, the same for
    $v_r$, with the variance that divides by the number of values; otherwise they are the gathered ones.

    References:
      Ioffe and Szegedy, Batch normalization, 2015.
    """

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(features, momentum=MOMENTUM, epsilon=EPSILON, use_fast_variance=False, rngs=rngs)

    def __call__(self, inputs: Array, train: bool, activate: bool = True) -> Array:
        outputs = self.norm(inputs, use_running_average=not train)
        return jax.nn.relu(outputs) if activate else outputs


class GroupNorm(nnx.Module):
    """Group normalisation, then ReLU: each sample by the mean and variance of each group of its channels.

    References:
      Wu and He, Group normalization, 2018.
    """

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.norm = nnx.GroupNorm(
            features, num_groups=_groups(features), epsilon=EPSILON, use_fast_variance=False, rngs=rngs
        )

    def __call__(self, inputs: Array, train: bool, activate: bool = True) -> Array:
        outputs = self.norm(inputs)
        return jax.nn.relu(outputs) if activate else outputs


class EvoNorm(nnx.Module):
    r"""EvoNorm-S0, normalisation and activation in one: $\gamma x \sigma(v x) / \sqrt{s^2 + \epsilon} + \beta$.

    $s^2$ is the variance over each sample's group of channels, $\sigma$ the logistic function; $\gamma, \beta, v$ are
    per channel. Where no activation is wanted, the gate $\sigma(v x)$ is left out.

    References:
      Liu, Brock, Simonyan and Le, Evolving normalization-activation layers, 2020, table 1.
    """

    def __init__(self, features: int, rngs: nnx.Rngs, gated: bool = True):
        self.scale = nnx.Param(jnp.ones(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        if gated:
            self.gate = nnx.Param(jnp.ones(features, jnp.float32))
        self.groups = _groups(features)

    def __call__(self, inputs: Array, train: bool, activate: bool = True) -> Array:
        shape = (1,) * (inputs.ndim - 1) + (-1,)
        scale, bias = self.scale[...].reshape(shape), self.bias[...].reshape(shape)
        outputs = inputs / _group_deviation(inputs, self.groups)
        if activate:
            outputs = outputs * jax.nn.sigmoid(self.gate[...].reshape(shape) * inputs)
        return scale * outputs + bias


NORMS = {"batch": BatchNorm, "group": GroupNorm, "evo": EvoNorm}


def check_norm(model: str, norm: str) -> None:
    """Raise ValueError for a kind of normalisation that there is not; the nearest one is named."""
    if norm not in NORMS:
        near = difflib.get_close_matches(norm, NORMS, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(NORMS)}."
        raise ValueError(f"{model}: there is no norm {norm!r}. {hint}")


def layer(norm: str, features: int, rngs: nnx.Rngs, activated: bool = True) -> nnx.Module:
    """A layer that is called as layer(inputs, train, activate); `activated` says whether it ever will be."""
    if norm == "evo":
        return EvoNorm(features, rngs, gated=activated)
    return NORMS[norm](features, rngs)
