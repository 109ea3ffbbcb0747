"""Convolutions in the form that is fast over nodes, pooling and dropout, as the networks here use them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from adozoo._checks import check_choice

Pads = Sequence[tuple[int, int]]
FORMS = ("auto", "patches", "native")


def patches(inputs: Array, window: tuple[int, int], strides: tuple[int, int], padding: Pads) -> Array:
    """What each window of a convolution sees: [b, h, w, c] -> [b, h', w', rows * columns * c]."""
    padded = jnp.pad(inputs, ((0, 0), *padding, (0, 0)))
    spans = [
        (size - length) // stride * stride + 1
        for size, length, stride in zip(padded.shape[1:3], window, strides, strict=True)
    ]
    shifted = [
        padded[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]
    return shifted[0] if len(shifted) == 1 else jnp.concatenate(shifted, axis=-1)


def convolve(inputs: Array, kernel: Array, strides: tuple[int, int], padding: Pads, **options: Any) -> Array:
    """A convolution of images [b, h, w, c] with a kernel [rows, columns, c, m], as one product of patches."""
    del options  # nnx.Conv: dilations and groups of 1, and the layout above
    seen = patches(inputs, (kernel.shape[0], kernel.shape[1]), strides, padding)
    mixed = seen.reshape(-1, seen.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return mixed.reshape(*seen.shape[:-1], -1)


def batch_last(images: Array, layer: nnx.Conv) -> Array:
    """The same for images [c, h, w, b], at a stride of 1: all that is not the product runs over whole vectors b.

    A network that keeps to this layout from end to end is a fifth faster on CPUs; to change back and forth is slower.
    """
    kernel = layer.kernel[...]
    rows, columns, _, outputs = kernel.shape
    _, height, width, _ = images.shape
    padded = jnp.pad(images, ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    seen = jnp.concatenate(shifted)
    mixed = kernel.reshape(-1, outputs).T @ seen.reshape(len(seen), -1)
    mixed = mixed.reshape(outputs, *images.shape[1:])
    return mixed if layer.bias is None else mixed + layer.bias[...].reshape(-1, 1, 1, 1)


def takes_patches(form: str) -> bool:
    """Whether convolutions of this form are products of patches here."""
    check_choice("convolution", "form", form, FORMS)
    return form == "patches" or (form == "auto" and jax.default_backend() == "cpu")


def convolution(
    channels: int, outputs: int, window: int, rngs: nnx.Rngs, strides: int = 1, form: str = "auto", bias: bool = False
) -> nnx.Conv:
    """A convolution that keeps the size (divided by strides), as fast over nodes as it can be.

    One kernel a node makes `vmap` of a convolution a grouped one, which XLA's CPU backend runs slower than a loop over
    the nodes: "patches" is a product instead, stacked over nodes a batched one. "native" is XLA's convolution; "auto"
    takes patches where JAX's default backend is a CPU.
    """
    return nnx.Conv(
        channels,
        outputs,
        (window, window),
        strides,
        # As PyTorch and the published networks pad: (w - 1) / 2 on both sides. "SAME" pads strided windows by parity.
        padding=((window // 2, window // 2),) * 2,
        use_bias=bias,
        kernel_init=nnx.initializers.he_normal(),
        conv_general_dilated=convolve if takes_patches(form) else jax.lax.conv_general_dilated,
        rngs=rngs,
    )


def max_pool(inputs: Array) -> Array:
    """The largest of each 2 x 2 pixels of [b, h, w, c] or [c, h, w, b].

    A last odd row or column is left out, a single one kept. By comparing slices: the gradient of a window reduction is
    a scatter, slow on CPUs. Ties share the gradient.
    """
    for axis in (1, 2):
        if inputs.shape[axis] > 1:
            even = inputs.shape[axis] // 2 * 2
            first, second = (jax.lax.slice_in_dim(inputs, start, even, 2, axis) for start in (0, 1))
            inputs = jnp.maximum(first, second)
    return inputs


def drop(layer: nnx.Dropout, inputs: Array, train: bool, key: Any) -> Array:
    """Dropout with the key of this call."""
    if train and layer.rate and key is None:
        raise ValueError(
            f"dropout: key must be a JAX key where training drops {layer.rate:g} of the units, got None. "
            "Hand one in a node (keys), or build the model with dropout 0.0."
        )
    return layer(inputs, deterministic=not train, rngs=key)
