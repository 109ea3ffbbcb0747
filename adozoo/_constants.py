"""Methods that are given the constants mu and L of a problem, in the registry's form."""

import functools
from collections.abc import Callable
from numbers import Real
from typing import Any

import optax

from adozoo._checks import check_number


def by_smoothness(factory: Callable[..., optax.GradientTransformationExtraArgs]) -> Any:
    """The registry's form (learning_rate, mix, ...) of a factory (mix, ..., smoothness=L): the learning rate is 1 / L.

    Args:
      factory: (mix, **options, smoothness) -> transformation; L may be a number, a traced scalar or a schedule.
    """

    @functools.wraps(factory)
    def build(learning_rate: Any, mix: Any, **options: Any) -> optax.GradientTransformationExtraArgs:
        check_number(factory.__name__, "learning_rate", learning_rate)
        smoothness = (lambda count: 1 / learning_rate(count)) if callable(learning_rate) else 1 / learning_rate
        return factory(mix, smoothness=smoothness, **options)

    return build


def check_constants(factory: str, strong_convexity: Any, smoothness: Any) -> None:
    """Raise ValueError if mu or L is a Python number that cannot be one, or mu > L."""
    check_number(factory, "strong_convexity", strong_convexity)
    check_number(factory, "smoothness", smoothness)
    if isinstance(strong_convexity, Real) and isinstance(smoothness, Real) and strong_convexity > smoothness:
        raise ValueError(
            f"{factory}: strong_convexity must not exceed smoothness, got mu = {strong_convexity!r} and L = "
            f"{smoothness!r}. Pass mu <= L with mu |d|^2 <= d' (Hessian of every f_i) d <= L |d|^2."
        )
