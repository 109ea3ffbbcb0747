"""Networks as pure functions of dict pytrees: of one node's params, vmapped over all nodes' (`stacked_gradient`)."""

import difflib
import inspect
import math
from collections.abc import Callable

from experiments.models import batch_norm, norms
from experiments.models._module import Model, from_module, size
from experiments.models.losses import accuracy, cross_entropy, squared_error
from experiments.models.stacking import objective, stacked_gradient
from experiments.models.text import char_gpt
from experiments.models.vision import cnn, logistic, mlp, resnet18, resnet20, vgg11

__all__ = [
    "Model",
    "accuracy",
    "batch_norm",
    "char_gpt",
    "cnn",
    "cross_entropy",
    "from_module",
    "logistic",
    "mlp",
    "named",
    "norms",
    "objective",
    "resnet18",
    "resnet20",
    "size",
    "squared_error",
    "stacked_gradient",
    "vgg11",
]

FAMILIES: dict[str, Callable[..., Model]] = {
    "logistic": logistic,
    "mlp": mlp,
    "cnn": cnn,
    "vgg11": vgg11,
    "resnet20": resnet20,
    "resnet18": resnet18,
    "char_gpt": char_gpt,
}


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def named(spec: str, shape: tuple[int, ...], classes: int) -> Model:
    """Build a model from text, a family and its options in their order: what command lines and suite files take.

    Args:
      spec: such as "logistic", "mlp:64:32" (hidden units), "cnn:16:32" (channels, then norm), "vgg11:0.5" (width),
        "resnet20:group" (norm, then width), or "char_gpt:64:2:4" (width, depth, heads, then dropout).
      shape: of one sample: an image (rows, columns, channels), a vector (features,), a text (context,).
      classes: number of outputs; for texts the vocabulary.

    Returns:
      The model.

    Raises:
      ValueError: for an unknown family (the nearest one is named), or options that do not fit it.

    Example:
      >>> named("resnet20:group", (32, 32, 3), 10).name
      'resnet20:group:16'
    """
    family, *texts = spec.split(":")
    if family not in FAMILIES:
        near = difflib.get_close_matches(family, FAMILIES, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(FAMILIES)}."
        raise ValueError(f"named: unknown model {family!r} in {spec!r}. {hint}")
    options = [_number(text) for text in texts]
    build = FAMILIES[family]
    try:
        if family in ("logistic", "mlp"):
            return build(math.prod(shape), classes, *([options] if options else []))
        if family == "char_gpt":
            return build(classes, *shape, *options)
        if family == "cnn":
            norm = [options.pop()] if options and isinstance(options[-1], str) else []
            return build(shape, classes, options or (16, 32), *norm)
        return build(shape, classes, *options)
    except TypeError as error:
        expected = f"{family}({', '.join(map(str, inspect.signature(build).parameters.values()))})"
        raise ValueError(f"named: {spec!r} does not fit {expected}: {error}. Write it like 'resnet20:group'.") from None
