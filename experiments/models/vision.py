"""Networks that classify vectors and images [b, rows, columns, channels], each as a `Model` of pure functions."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array

from experiments.models import norms
from experiments.models._checks import check_classes, check_rate, check_shape, check_sizes
from experiments.models._layers import batch_last, convolution, drop, max_pool, takes_patches
from experiments.models._module import Model, from_module


class _Dense(nnx.Module):
    """Linear layers with ReLU between them; inputs are flattened."""

    def __init__(self, sizes: Sequence[int], rngs: nnx.Rngs):
        self.depth = len(sizes) - 1
        for i in range(self.depth):
            # He's variance where ReLU follows, LeCun's for the outputs.
            initial = nnx.initializers.he_normal() if i + 1 < self.depth else nnx.initializers.lecun_normal()
            setattr(self, f"linear{i}", nnx.Linear(sizes[i], sizes[i + 1], kernel_init=initial, rngs=rngs))

    def __call__(self, inputs: Array, train: bool, key: Any) -> Array:
        hidden = inputs.reshape(len(inputs), -1)
        for i in range(self.depth):
            hidden = getattr(self, f"linear{i}")(hidden if i == 0 else jax.nn.relu(hidden))
        return hidden


def logistic(features: int, classes: int) -> Model:
    """Multinomial logistic regression: outputs x W + b, one a class; the only convex one of these models.

    Args:
      features: entries of a sample; images are flattened.
      classes: number of outputs.

    Example:
      >>> params, _ = logistic(64, 10).init(jax.random.key(0))
      >>> jax.tree.map(jnp.shape, params)
      {'linear0': {'bias': (10,), 'kernel': (64, 10)}}
    """
    check_sizes("logistic", features=features)
    check_classes("logistic", classes)
    return from_module("logistic", lambda rngs: _Dense((features, classes), rngs))


def mlp(features: int, classes: int, hidden: Sequence[int] = (64,)) -> Model:
    """Fully connected layers with ReLU between them.

    Args:
      features: entries of a sample; images are flattened.
      classes: number of outputs.
      hidden: units of each hidden layer.

    Example:
      >>> from experiments import models
      >>> models.size(mlp(64, 10))
      4810
    """
    check_sizes("mlp", features=features, **{f"hidden[{i}]": width for i, width in enumerate(hidden)})
    check_classes("mlp", classes)
    name = ":".join(["mlp", *map(str, hidden)])
    return from_module(name, lambda rngs: _Dense((features, *hidden, classes), rngs))


class _Convolutions(nnx.Module):
    """3 x 3 convolutions, each halved by max pooling where `pooled`, with ReLU; dropout, and one linear layer.

    ReLU comes after pooling: the same numbers for a quarter of the work. With a norm, it and its activation come first.
    """

    def __init__(self, shape, classes, channels, pooled, dropout, form, rngs: nnx.Rngs, norm=""):
        self.shape, self.pooled, self.norm = shape, tuple(pooled), norm
        self.batch_last = takes_patches(form) and not norm  # norms want channels last
        rows, columns, width = shape
        for i, (outputs, halve) in enumerate(zip(channels, pooled, strict=True)):
            setattr(self, f"convolution{i}", convolution(width, outputs, 3, rngs, form=form, bias=not norm))
            if norm:
                setattr(self, f"norm{i}", norms.layer(norm, outputs, rngs))
            width = outputs
            if halve:
                rows, columns = max(1, rows // 2), max(1, columns // 2)
        self.dropout = nnx.Dropout(dropout)
        self.head = nnx.Linear(rows * columns * width, classes, rngs=rngs)

    def __call__(self, inputs: Array, train: bool, key: Any) -> Array:
        hidden = inputs.reshape(-1, *self.shape)
        hidden = hidden.transpose(3, 1, 2, 0) if self.batch_last else hidden
        for i, halve in enumerate(self.pooled):
            layer = getattr(self, f"convolution{i}")
            hidden = batch_last(hidden, layer) if self.batch_last else layer(hidden)
            if self.norm:
                hidden = getattr(self, f"norm{i}")(hidden, train)
            hidden = max_pool(hidden) if halve else hidden
            hidden = hidden if self.norm else jax.nn.relu(hidden)
        hidden = hidden.transpose(3, 1, 2, 0) if self.batch_last else hidden
        return self.head(drop(self.dropout, hidden.reshape(len(hidden), -1), train, key))


def cnn(
    shape: tuple[int, int, int],
    classes: int,
    channels: Sequence[int] = (16, 32),
    norm: str = "",
    convolution: str = "auto",
) -> Model:
    """A small convolutional network: 3 x 3 convolutions, each with 2 x 2 max pooling and ReLU, and a linear layer.

    Args:
      shape: rows, columns and channels of an image; flat samples are shaped to it.
      classes: number of outputs.
      channels: of each convolution.
      norm: "batch", "group" or "evo", after each convolution, which then has no bias; "" for none.
      convolution: "patches" (a product), "native" (XLA's), or "auto": patches where the default backend is a CPU.

    Example:
      >>> from experiments import models
      >>> models.size(cnn((8, 8, 1), 10)), models.size(cnn((8, 8, 1), 10, norm="batch"))
      (6090, 6138)
    """
    check_shape("cnn", shape)
    check_sizes("cnn", **{f"channels[{i}]": width for i, width in enumerate(channels)})
    check_classes("cnn", classes)
    if norm:
        norms.check_norm("cnn", norm)
    name, pooled = ":".join(["cnn", *map(str, channels), *([norm] if norm else [])]), (True,) * len(channels)
    return from_module(name, lambda rngs: _Convolutions(shape, classes, channels, pooled, 0.0, convolution, rngs, norm))


def vgg11(
    shape: tuple[int, int, int], classes: int, width: float = 1.0, dropout: float = 0.0, convolution: str = "auto"
) -> Model:
    """VGG-11 without normalisation, as it is used on small images: eight convolutions and one linear layer.

    Args:
      shape: rows, columns and channels of an image. Five poolings halve it, but never below one pixel.
      classes: number of outputs.
      width: factor of the published numbers of channels, 64 to 512.
      dropout: before the linear layer; needs keys.
      convolution: "patches" (a product), "native" (XLA's), or "auto": patches where the default backend is a CPU.

    Example:
      >>> from experiments import models
      >>> models.size(vgg11((32, 32, 3), 10))
      9225610

    References:
      Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition, 2015, table 1, A.
    """
    check_shape("vgg11", shape)
    check_sizes("vgg11", width=round(64 * width))
    check_classes("vgg11", classes)
    check_rate("vgg11", dropout)
    channels = [round(width * count) for count in (64, 128, 256, 256, 512, 512, 512, 512)]
    pooled = (True, True, False, True, False, True, False, True)
    name = f"vgg11:{width:g}:{dropout:g}"
    return from_module(name, lambda rngs: _Convolutions(shape, classes, channels, pooled, dropout, convolution, rngs))


class _Block(nnx.Module):
    """Two 3 x 3 convolutions beside a shortcut: a 1 x 1 convolution where size or channels change."""

    def __init__(self, channels, outputs, strides, norm, projected, form, rngs: nnx.Rngs):
        self.strides, self.widen = strides, outputs - channels
        self.convolution0 = convolution(channels, outputs, 3, rngs, strides, form)
        self.norm0 = norms.layer(norm, outputs, rngs)
        self.convolution1 = convolution(outputs, outputs, 3, rngs, form=form)
        self.norm1 = norms.layer(norm, outputs, rngs, activated=False)
        self.projected = projected and (strides > 1 or channels != outputs)
        if self.projected:
            self.shortcut = convolution(channels, outputs, 1, rngs, strides, form)
            self.shortcut_norm = norms.layer(norm, outputs, rngs, activated=False)

    def __call__(self, inputs: Array, train: bool) -> Array:
        hidden = self.norm0(self.convolution0(inputs), train)
        hidden = self.norm1(self.convolution1(hidden), train, activate=False)
        if self.projected:
            kept = self.shortcut_norm(self.shortcut(inputs), train, activate=False)
        else:
            low, zero = self.widen // 2, inputs.dtype.type(0)
            kept = inputs[:, :: self.strides, :: self.strides]
            kept = jax.lax.pad(kept, zero, [(0, 0, 0)] * 3 + [(low, self.widen - low, 0)])
        return jax.nn.relu(hidden + kept)


class _ResNet(nnx.Module):
    """A 3 x 3 convolution, stages of blocks (each but the first halves the image), the mean over pixels, and a head."""

    def __init__(self, shape, classes, norm, stages, depth, projected, form, rngs: nnx.Rngs):
        self.shape, channels = shape, stages[0]
        self.stem = convolution(shape[2], channels, 3, rngs, form=form)
        self.stem_norm = norms.layer(norm, channels, rngs)
        self.blocks = tuple(f"stage{i}_block{j}" for i in range(len(stages)) for j in range(depth))
        for i, outputs in enumerate(stages):
            for j in range(depth):
                strides = 2 if i > 0 and j == 0 else 1
                setattr(self, f"stage{i}_block{j}", _Block(channels, outputs, strides, norm, projected, form, rngs))
                channels = outputs
        self.head = nnx.Linear(channels, classes, rngs=rngs)

    def __call__(self, inputs: Array, train: bool, key: Any) -> Array:
        hidden = self.stem_norm(self.stem(inputs.reshape(-1, *self.shape)), train)
        for block in self.blocks:
            hidden = getattr(self, block)(hidden, train)
        return self.head(hidden.mean((1, 2)))


def resnet20(
    shape: tuple[int, int, int],
    classes: int,
    norm: str = "batch",
    width: int = 16,
    shortcut: str = "projection",
    convolution: str = "auto",
) -> Model:
    """ResNet-20 for small images: three stages of three blocks with `width`, 2 `width` and 4 `width` channels.

    Args:
      shape: rows, columns and channels of an image.
      classes: number of outputs.
      norm: "batch", "group" or "evo": see `experiments.models.norms`.
      width: channels of the first stage; 16 is the published network.
      shortcut: "projection" (a normalised 1 x 1 convolution where the channels change, 272 474 parameters on CIFAR-10)
        or "identity" (padded with zeros, option A of the paper, 269 722).
      convolution: "patches" (a product), "native" (XLA's), or "auto": patches where the default backend is a CPU.

    Example:
      >>> from experiments import models
      >>> models.size(resnet20((32, 32, 3), 10, shortcut="identity"))
      269722

    References:
      He, Zhang, Ren and Sun, Deep residual learning for image recognition, 2016, section 4.2.
    """
    if shortcut not in ("projection", "identity"):
        raise ValueError(
            f"resnet20: shortcut must be 'projection' or 'identity', got {shortcut!r}. Choose one of them."
        )
    stages, projected = (width, 2 * width, 4 * width), shortcut == "projection"
    name = f"resnet20:{norm}:{width}" + ("" if projected else ":identity")
    return _resnet("resnet20", name, shape, classes, norm, stages, 3, projected, convolution)


def resnet18(
    shape: tuple[int, int, int], classes: int, norm: str = "batch", width: int = 64, convolution: str = "auto"
) -> Model:
    """ResNet-18 with the stem for small images (3 x 3, no pooling): four stages of two blocks.

    Args:
      shape: rows, columns and channels of an image.
      classes: number of outputs.
      norm: "batch", "group" or "evo": see `experiments.models.norms`.
      width: channels of the first stage, doubled by each further one.
      convolution: "patches" (a product), "native" (XLA's), or "auto": patches where the default backend is a CPU.

    Example:
      >>> from experiments import models
      >>> models.size(resnet18((32, 32, 3), 10))
      11173962

    References:
      He, Zhang, Ren and Sun, Deep residual learning for image recognition, 2016, table 1.
    """
    stages = tuple(width * 2**i for i in range(4))
    return _resnet("resnet18", f"resnet18:{norm}:{width}", shape, classes, norm, stages, 2, True, convolution)


def _resnet(family, name, shape, classes, norm, stages, depth, projected, form) -> Model:
    check_shape(family, shape)
    check_sizes(family, width=stages[0])
    check_classes(family, classes)
    norms.check_norm(family, norm)
    return from_module(name, lambda rngs: _ResNet(shape, classes, norm, stages, depth, projected, form, rngs))
