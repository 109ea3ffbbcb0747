"""What the builders of networks check."""

from typing import Any


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_sizes(model: str, **sizes: int) -> None:
    """Raise ValueError unless all of them are whole numbers of at least one."""
    for name, value in sizes.items():
        if not (_whole(value) and value >= 1):
            raise ValueError(f"{model}: {name} must be a whole number >= 1, got {value!r}. Pass its size.")


def check_classes(model: str, classes: int) -> None:
    """Raise ValueError unless there are outputs."""
    check_sizes(model, classes=classes)


def check_shape(model: str, shape: Any) -> None:
    """Raise ValueError unless this is the shape of an image."""
    if not (isinstance(shape, tuple) and len(shape) == 3 and all(_whole(size) and size >= 1 for size in shape)):
        raise ValueError(
            f"{model}: shape must be (rows, columns, channels) of an image, got {shape!r}. "
            "Pass (8, 8, 1) for digits, or use models.mlp for vectors."
        )


def check_rate(model: str, dropout: float) -> None:
    """Raise ValueError unless this is a share in [0, 1)."""
    if isinstance(dropout, bool) or not 0 <= dropout < 1:
        raise ValueError(f"{model}: dropout must lie in [0, 1), got {dropout!r}. Pass 0.0 for none.")
