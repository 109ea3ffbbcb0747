"""PowerSGD (Vogels, Karimireddy, Jaggi, NeurIPS 2019), table 6: PowerSGD against Spectral Atomo and Signum.

ResNet18 on CIFAR-10. Atomo sends two singular triples of each tensor, s (a + b + 1) numbers, of matrices that its code
makes nearly square: a convolution of width w is [outputs inputs / 2, 2 w^2], a vector of d entries [d / 2, 2]. Signum
sends one bit a parameter.

Deviations: only the data volumes are computed; accuracies are shown as published.
"""

from collections.abc import Sequence

import xarray as xr

from adozoo.compression import atomo, identity, low_rank, sign
from experiments import figures
from paper_figures.powersgd import _tables
from paper_figures.powersgd._shapes import CIFAR
from paper_figures.powersgd._tables import Row

IMAGES = (
    Row("SGD", identity(), 1023, 94.3),
    Row("Atomo, rank 2", atomo(2, exact_count=True), 113, 92.6),
    Row("Signum", sign(), 32, 93.6),
    Row("rank 2", low_rank(2), 8, 94.4),
)


def compute(full: bool) -> xr.Dataset:
    return _tables.computed(((CIFAR, IMAGES),))


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, _tables.draw, _tables.judge, arguments)


if __name__ == "__main__":
    main()
