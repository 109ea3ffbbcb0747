"""PowerSGD (Vogels, Karimireddy, Jaggi, NeurIPS 2019), table 3: data sent by PowerSGD of ranks 1, 2 and 4.

ResNet18 on CIFAR-10 and an LSTM on WikiText-2, 16 workers. A matrix of a x b numbers costs r (a + b), an all-reduce of
P and one of Q; biases and batch normalisation go as they are.

Deviations: only data volumes and compression ratios are computed. Accuracies and perplexities are shown as published;
times per batch are those of the authors' cluster and are left out.
"""

from collections.abc import Sequence

import xarray as xr

from adozoo.compression import identity, low_rank
from experiments import figures
from paper_figures.powersgd import _tables
from paper_figures.powersgd._shapes import CIFAR, LANGUAGE
from paper_figures.powersgd._tables import Row

IMAGES = (
    Row("SGD", identity(), 1023, 94.3, 1),
    Row("rank 1", low_rank(1), 4, 93.6, 243),
    Row("rank 2", low_rank(2), 8, 94.4, 136),
    Row("rank 4", low_rank(4), 14, 94.5, 72),
)
WORDS = (
    Row("SGD", identity(), 7730, 91, 1),
    Row("rank 1", low_rank(1), 25, 102, 310),
    Row("rank 2", low_rank(2), 38, 93, 203),
    Row("rank 4", low_rank(4), 64, 91, 120),
)


def compute(full: bool) -> xr.Dataset:
    return _tables.computed(((CIFAR, IMAGES), (LANGUAGE, WORDS)))


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, _tables.draw, _tables.judge, arguments)


if __name__ == "__main__":
    main()
