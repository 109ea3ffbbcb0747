"""A small transformer that predicts the next character."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from experiments.models._checks import check_rate, check_sizes
from experiments.models._layers import drop
from experiments.models._module import Model, from_module


class _Block(nnx.Module):
    """Causal self-attention and a wide layer, each beside the identity and behind a layer normalisation."""

    def __init__(self, width: int, depth: int, heads: int, dropout: float, rngs: nnx.Rngs):
        self.heads, self.dropout = heads, nnx.Dropout(dropout)
        initial = nnx.initializers.normal(0.02)
        # What is added to the residual stream by 2 * depth layers has the variance of one.
        residual = nnx.initializers.normal(0.02 / math.sqrt(2 * depth))
        self.norm0 = nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, rngs=rngs)
        self.attend = nnx.Linear(width, 3 * width, kernel_init=initial, rngs=rngs)
        self.merge = nnx.Linear(width, width, kernel_init=residual, rngs=rngs)
        self.norm1 = nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, rngs=rngs)
        self.widen = nnx.Linear(width, 4 * width, kernel_init=initial, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, kernel_init=residual, rngs=rngs)

    def _attention(self, inputs: Array) -> Array:
        """softmax(q k' / sqrt(d), over the past) v, head by head: [b, t, width] -> [b, t, width]."""
        batch, length, width = inputs.shape
        split = self.attend(inputs).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = (split[:, :, i] for i in range(3))
        scores = jnp.einsum("bthd,bshd->bhts", query, key) / math.sqrt(width // self.heads)
        past = jnp.tril(jnp.ones((length, length), bool))[None, None]
        weights = jax.nn.softmax(jnp.where(past, scores, -jnp.inf), axis=-1)
        return self.merge(jnp.einsum("bhts,bshd->bthd", weights, value).reshape(inputs.shape))

    def __call__(self, inputs: Array, train: bool, keys: Any) -> Array:
        first, second = (None, None) if keys is None else (keys[0], keys[1])
        hidden = inputs + drop(self.dropout, self._attention(self.norm0(inputs)), train, first)
        wide = jax.nn.gelu(self.widen(self.norm1(hidden)), approximate=True)
        return hidden + drop(self.dropout, self.narrow(wide), train, second)


class _Transformer(nnx.Module):
    """Characters and places embedded, blocks, and the transposed embedding as the last layer."""

    def __init__(self, vocabulary, context, width, depth, heads, dropout, rngs: nnx.Rngs):
        initial = nnx.initializers.normal(0.02)
        self.depth, self.dropout = depth, nnx.Dropout(dropout)
        self.characters = nnx.Param(initial(rngs.params(), (vocabulary, width), jnp.float32))
        self.places = nnx.Param(initial(rngs.params(), (context, width), jnp.float32))
        for i in range(depth):
            setattr(self, f"block{i}", _Block(width, depth, heads, dropout, rngs))
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, rngs=rngs)

    def __call__(self, inputs: Array, train: bool, key: Any) -> Array:
        keys = None if key is None else jax.random.split(key, (self.depth + 1, 2))
        table = self.characters[...]
        hidden = jnp.take(table, inputs, axis=0) + self.places[...][None, : inputs.shape[1]]
        hidden = drop(self.dropout, hidden, train, None if keys is None else keys[-1, 0])
        for i in range(self.depth):
            hidden = getattr(self, f"block{i}")(hidden, train, None if keys is None else keys[i])
        return self.norm(hidden) @ table.T


def char_gpt(
    vocabulary: int, context: int = 64, width: int = 64, depth: int = 2, heads: int = 4, dropout: float = 0.0
) -> Model:
    r"""A decoder-only transformer on characters: inputs [b, t] of integers, outputs [b, t, vocabulary] of logits.

    Layer normalisation before each sublayer, GELU, learned places, and one matrix to embed and to predict:
    $12 d w^2 + 13 d w + (v + c + 2) w$ parameters for depth d, width w, vocabulary v and context c.

    Args:
      vocabulary: number of characters.
      context: the longest text [t] it takes.
      width: of the residual stream; a multiple of `heads`.
      depth: number of blocks.
      heads: of each attention.
      dropout: of what enters the residual stream; needs keys in training.

    Returns:
      The model.

    Raises:
      ValueError: for sizes below one, a width that the heads do not divide, or a dropout outside [0, 1).

    Example:
      >>> from experiments import models
      >>> model = char_gpt(65, context=32)
      >>> models.size(model) == 12 * 2 * 64**2 + 13 * 2 * 64 + (65 + 32 + 2) * 64
      True

    References:
      Radford et al., Language models are unsupervised multitask learners, 2019.
    """
    sizes = {"vocabulary": vocabulary, "context": context, "width": width, "depth": depth, "heads": heads}
    check_sizes("char_gpt", **sizes)
    check_rate("char_gpt", dropout)
    if width % heads:
        raise ValueError(f"char_gpt: width must be a multiple of heads = {heads}, got {width}. Use {heads * 16}, say.")
    return from_module(
        f"char_gpt:{width}:{depth}:{heads}:{dropout:g}",
        lambda rngs: _Transformer(vocabulary, context, width, depth, heads, dropout, rngs),
    )
