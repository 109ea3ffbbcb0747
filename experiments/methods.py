"""The methods that experiments know: those of the registry, some of these with momentum, and single optimisers.

Single optimisers take averaged gradients: they are not decentralised methods. They are what tuning studies compare, and
what a method's inner optimiser is chosen from: every node takes the mean gradient, and the same step as all others.
"""

import difflib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optax

import adozoo
from adozoo import compression, zoo
from adozoo.compression import Compressor


def _averaged(make: Callable[..., optax.GradientTransformation]) -> Callable[..., Any]:
    """The registry's form (learning_rate, mix, ...) of an optax optimiser that takes the mean gradient."""

    def build(learning_rate: Any, mix: Any, **options: Any) -> optax.GradientTransformationExtraArgs:
        return optax.chain(adozoo.average_gradients(mix), adozoo.per_node(make(learning_rate, **options)))

    return build


def _sgd(learning_rate: Any, momentum: Any, weight_decay: Any) -> optax.GradientTransformation:
    """With PyTorch's momentum, and weight decay added to the gradient."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.trace(momentum), optax.scale_by_learning_rate(learning_rate)
    )


def _adam(learning_rate: Any, b1: Any, b2: Any, eps: Any) -> optax.GradientTransformation:
    return optax.adam(learning_rate, b1, b2, eps)


def _adagrad(learning_rate: Any) -> optax.GradientTransformation:
    return optax.adagrad(learning_rate, initial_accumulator_value=0.0, eps=1e-10)


def _entry(name: str, make: Any, title: str, paper: str, **hyperparameters: float) -> zoo.Entry:
    return zoo.Entry(
        name,
        _averaged(make),
        "averaging",
        title,
        paper,
        frozenset({"complete"}),
        hyperparameters,
        linear=False,
        equal_start=True,
    )


OPTIMISERS = {
    entry.name: entry
    for entry in (
        _entry("mean_sgd", _sgd, "SGD", "Robbins, Monro, 1951", momentum=0.0, weight_decay=0.0),
        _entry("mean_sgd_momentum", _sgd, "SGD with momentum", "Polyak, 1964", momentum=0.9, weight_decay=0.0),
        _entry(
            "mean_sgd_momentum_decay",
            _sgd,
            "SGD with momentum and weight decay",
            "Krogh, Hertz, 1991",
            momentum=0.9,
            weight_decay=1e-5,
        ),
        _entry("mean_adagrad", _adagrad, "Adagrad", "Duchi, Hazan, Singer, 2011"),
        _entry("mean_adam", _adam, "Adam", "Kingma, Ba, 2015", b1=0.9, b2=0.999, eps=1e-8),
    )
}
"""Optimisers with averaged gradients, by name."""


def _nesterov(base: zoo.Entry) -> zoo.Entry:
    """A registered method on Nesterov's directions, d = g + b m, m <- b m + g: each node has a buffer of its own."""

    def build(learning_rate: Any, mix: Any, momentum: Any, **options: Any) -> optax.GradientTransformationExtraArgs:
        local = adozoo.momentum(momentum, nesterov=True)
        return optax.chain(local, optax.with_extra_args_support(base.factory(learning_rate, mix, **options)))

    return replace(
        base,
        name=f"{base.name}_nesterov",
        factory=build,
        title=f"{base.title}, local Nesterov momentum",
        hyperparameters={**base.hyperparameters, "momentum": 0.9},
    )


WITH_MOMENTUM = {
    entry.name: entry
    for entry in map(
        _nesterov, map(zoo.entry, ("all_reduce_sgd", "relay_sgd", "relay_sgd_grad", "d2", "exact_diffusion", "sgp"))
    )
}
"""Methods of the registry with local Nesterov momentum, as they are used in deep learning, by name."""


COMPRESSORS = (
    *("atomo", "global_top_k", "half_low_rank", "identity", "low_rank", "qsgd", "random_block", "random_k"),
    *("scaled_sign", "sign", "svd", "top_k", "unbiased_low_rank"),
)
"""What a compressor may be called, in `adozoo.compression`."""


def entries() -> dict[str, zoo.Entry]:
    """Everything that can be run, by name.

    Example:
      >>> "relay_sgd" in entries(), "mean_adam" in entries()
      (True, True)
    """
    return zoo.entries() | WITH_MOMENTUM | OPTIMISERS


def compressor(method: str, name: str, text: str) -> Compressor:
    """The compressor that a text names, "family:number", for a hyper-parameter that takes one.

    Args:
      method, name: whose hyper-parameter it is.
      text: such as top_k:0.01 (a share of the entries), qsgd:4 (levels), low_rank:2 (rank) or scaled_sign.

    Raises:
      ValueError: for a hyper-parameter that takes no compressor, an unknown family, or what it refuses.

    Example:
      >>> compressor("choco_sgd", "compressor", "top_k:0.25").bits({"w": jnp.zeros(8)})
      192.0
    """
    if not isinstance(entry(method).hyperparameters.get(name), Compressor):
        raise ValueError(f"hyperparameters: {name} of {method} must be a number, got {text!r}.")
    family, colon, number = text.partition(":")
    if family not in COMPRESSORS:
        near = difflib.get_close_matches(family, COMPRESSORS, n=1, cutoff=0.0)[0]
        raise ValueError(f"hyperparameters: no compressor is called {family!r}. Did you mean {near}?")
    make = getattr(compression, family)
    try:
        return make(*([float(number) if "." in number else int(number)] if colon else []))
    except (TypeError, ValueError) as error:
        raise ValueError(f"hyperparameters: {text!r} is no compressor: {error} Write it like top_k:0.1.") from None


def entry(name: str) -> zoo.Entry:
    """One method by its name.

    Raises:
      ValueError: for an unknown name; it says the nearest known ones.

    Example:
      >>> entry("mean_adam").title
      'Adam'
    """
    own = WITH_MOMENTUM | OPTIMISERS
    return own[name] if name in own else zoo.entry(name)
