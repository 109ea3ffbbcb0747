"""PowerSGD (Vogels, Karimireddy, Jaggi, NeurIPS 2019), table 4: compressors with error feedback, at two volumes.

ResNet18 on CIFAR-10. Random entries and blocks have as many numbers as rank 7 or rank 2 would send for the same tensor,
r (a + b), and the workers draw the same places, so that indices are free. Top-K sends c/2 of each tensor's entries,
with an index of 32 bits each, where the compression c is 1/32 or 1/136. (The file of hyper-parameters that was released
with the code has these two the other way round.) Signs are packed into words, with one norm a tensor.

Deviations: only the data volumes are computed; accuracies are shown as published.
"""

from collections.abc import Sequence

import xarray as xr

from adozoo.compression import identity, low_rank, random_block, random_k, scaled_sign, top_k
from experiments import figures
from paper_figures.powersgd import _tables
from paper_figures.powersgd._shapes import CIFAR
from paper_figures.powersgd._tables import Row

IMAGES = (
    Row("none", identity(), 1023, 94.3),
    Row("rank 7", low_rank(7), 24, 94.6),
    Row("random block, medium", random_block(rank=7), 24, 93.3),
    Row("random K, medium", random_k(rank=7), 24, 94.0),
    Row("sign + norm", scaled_sign(), 32, 93.9),
    Row("top K, medium", top_k(0.5 / 32), 32, 94.4),
    Row("rank 2", low_rank(2), 8, 94.4),
    Row("random block, high", random_block(rank=2), 8, 87.8),
    Row("random K, high", random_k(rank=2), 8, 92.6),
    Row("top K, high", top_k(0.5 / 136), 8, 93.6),
)


def compute(full: bool) -> xr.Dataset:
    return _tables.computed(((CIFAR, IMAGES),))


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, _tables.draw, _tables.judge, arguments)


if __name__ == "__main__":
    main()
