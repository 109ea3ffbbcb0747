"""The tensors of the two networks of the PowerSGD paper, as shapes without values, and their steps per epoch.

Weights have the layout of PyTorch, outputs first, so that the matrix of a tensor is shape[0] x the product of the rest.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Workload(NamedTuple):
    """What is trained: its tensors, how often an epoch sends their gradients, and the quality that is measured."""

    name: str
    tensors: Any
    steps: int
    quality: str


def tensor(*shape: int) -> jax.ShapeDtypeStruct:
    """One float32 tensor."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _layer(outputs: int, inputs: int, width: int) -> dict[str, Any]:
    """A convolution without bias and the batch normalisation behind it."""
    return {"kernel": tensor(outputs, inputs, width, width), "scale": tensor(outputs), "offset": tensor(outputs)}


def _block(inputs: int, outputs: int) -> dict[str, Any]:
    """A basic residual block; where the width changes, a 1 x 1 convolution adapts the shortcut."""
    block = {"first": _layer(outputs, inputs, 3), "second": _layer(outputs, outputs, 3)}
    return block if inputs == outputs else block | {"shortcut": _layer(outputs, inputs, 1)}


def resnet18(classes: int = 10) -> dict[str, Any]:
    """ResNet-18 for images of 32 x 32 pixels: a 3 x 3 stem, then four stages of two blocks, each twice as wide."""
    stem, stages = 64, 4

    def blocks() -> Iterator[dict[str, Any]]:
        inputs = stem
        for stage in range(stages):
            outputs = stem * 2**stage
            yield from (_block(inputs, outputs), _block(outputs, outputs))
            inputs = outputs

    head = {"kernel": tensor(classes, stem * 2 ** (stages - 1)), "bias": tensor(classes)}
    return {"stem": _layer(stem, 3, 3), "blocks": list(blocks()), "head": head}


def lstm(vocabulary: int = 28_869, width: int = 650, layers: int = 3) -> dict[str, Any]:
    """A language model of LSTM layers, all as wide as the embedding, which is also the decoder's matrix (tied)."""
    gates = {"input": tensor(4 * width, width), "hidden": tensor(4 * width, width)}
    biases = {"input_bias": tensor(4 * width), "hidden_bias": tensor(4 * width)}
    return {
        "embedding": tensor(vocabulary, width),
        "layers": [gates | biases for _ in range(layers)],
        "decoder_bias": tensor(vocabulary),
    }


WORKERS, BATCH, SAMPLES = 16, 128, 50_000

CIFAR = Workload("ResNet18 on CIFAR-10", resnet18(), SAMPLES // (WORKERS * BATCH), "accuracy, %")
LANGUAGE = Workload("LSTM on WikiText-2", lstm(), 70, "perplexity")
