r"""Compressors: what is sent instead of a pytree, how many bits that takes, and how much of it gets lost.

A `Compressor` is a record of pure functions over one node's pytree; `over_nodes` applies it to stacked pytrees,
`by_label` chooses one for each tensor. For tensors of d scalars or matrices [a, b], in numbers of the tensor's dtype
unless bits are mentioned; the loss is sup E|C(v) - v|^2 / |v|^2, exactly:

====================  ================================================  ========  ======================================
compressor            what is sent for each tensor                      unbiased  loss
====================  ================================================  ========  ======================================
`identity`            everything                                        yes       0
`top_k`               the k largest entries: k numbers, k indices       no        1 - k/d
`global_top_k`        the same, of the whole pytree                     no        1 - k/D
`random_k`            k random entries at shared places: k numbers      `scaled`  1 - k/d, or d/k - 1 if scaled
`random_block`        k consecutive entries from a shared random place  `scaled`  1 - k/d, or d/k - 1 if scaled
`scaled_sign`         d bits, 1 number                                  no        1 - 1/d
`sign`                d bits                                            no        unbounded
`svd`                 the best rank r: r (a + b) numbers                no        1 - r / min(a, b)
`low_rank`            power iteration: r (a + b) numbers                no        1 - r / min(a, b); warm start: 1
`half_low_rank`       half an iteration: r a or r b numbers, in turns   no        1
`unbiased_low_rank`   a shared random projection: r a numbers           yes       (b + 1)/r
`atomo`               s random atoms: s (a + b + 1) numbers             yes       min(a, b)/s - 1
`qsgd`                1 number, 1 + log2(s + 1) bits a scalar           yes       sqrt(d)/s - 1, or d/(4 s^2) if less
====================  ================================================  ========  ======================================

A biased compressor of loss 1 - omega < 1 is for methods with error feedback, an unbiased one for methods that average
errors out. Where no loss below 1 is possible, convergence rests on the next messages: a warm start catches up.
"""

from adozoo.compression._compressor import (
    Compressor,
    Stacked,
    by_label,
    identity,
    leafwise,
    one_node,
    over_nodes,
    shapes_of,
)
from adozoo.compression.atomo import atomo, inclusion_probabilities
from adozoo.compression.low_rank import half_low_rank, low_rank, svd, unbiased_low_rank
from adozoo.compression.quantization import qsgd
from adozoo.compression.signs import scaled_sign, sign
from adozoo.compression.sparse import global_top_k, random_block, random_k, top_k

__all__ = [
    "Compressor",
    "Stacked",
    "atomo",
    "by_label",
    "global_top_k",
    "half_low_rank",
    "identity",
    "inclusion_probabilities",
    "leafwise",
    "low_rank",
    "one_node",
    "over_nodes",
    "qsgd",
    "random_block",
    "random_k",
    "scaled_sign",
    "shapes_of",
    "sign",
    "svd",
    "top_k",
    "unbiased_low_rank",
]
