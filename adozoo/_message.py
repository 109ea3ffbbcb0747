"""Messages that are smaller than what they stand for: a value, and the bits in which it goes over a link."""

from dataclasses import dataclass
from functools import partial

import jax
from jaxtyping import PyTree


@partial(jax.tree_util.register_dataclass, data_fields=["value"], meta_fields=["bits"])
@dataclass(frozen=True)
class Sized:
    """A stacked message whose every row takes `bits` bits on a link, whatever its shape and dtype.

    Compressed messages travel through mixings and exchanges as the values that their receivers will have decompressed,
    in this container: whoever counts traffic reads `bits`, everybody else maps over the leaves.
    """

    value: PyTree
    bits: float


def message_bits(tree: PyTree, rows: int) -> float:
    """The bits of one row of a message of `rows` rows: by shapes and dtypes, except for what is `Sized`."""
    parts = jax.tree.leaves(tree, is_leaf=lambda part: isinstance(part, Sized))
    return sum(part.bits if isinstance(part, Sized) else 8.0 * part.dtype.itemsize * part.size / rows for part in parts)
