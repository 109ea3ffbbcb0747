"""PowerSGD (Vogels, Karimireddy, Jaggi, NeurIPS 2019), table 3: data sent by PowerSGD of ranks 1, 2 and 4.

ResNet18 on CIFAR-10 and an LSTM on WikiText-2, 16 workers. A matrix of a x b numbers costs r (a + b), with one
all-reduce of P and one of Q; biases and batch normalisation are sent as they are.

Deviations: only the data volumes and the compression ratios are computed. Accuracies and perplexities are shown as
published; times per batch depend on the authors' cluster and are left out.
"""

from collections.abc import Sequence

import xarray as xr

from adozoo.compression import identity, low_rank
from experiments import figures
from paper_figures.powersgd import _tables
from paper_figures.powersgd._shapes import CIFAR, LANGUAGE
from paper_figures.powersgd._tables import Row, matrices


def compute(full: bool) -> xr.Dataset:
    rank = {r: matrices(low_rank(r)) for r in (1, 2, 4)}
    images = (
        Row("SGD", identity(), 1023, 94.3, 1),
        Row("rank 1", rank[1], 4, 93.6, 243),
        Row("rank 2", rank[2], 8, 94.4, 136),
        Row("rank 4", rank[4], 14, 94.5, 72),
    )
    language = (
        Row("SGD", identity(), 7730, 91, 1),
        Row("rank 1", rank[1], 25, 102, 310),
        Row("rank 2", rank[2], 38, 93, 203),
        Row("rank 4", rank[4], 64, 91, 120),
    )
    return _tables.computed(((CIFAR, images), (LANGUAGE, language)))


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, _tables.draw, _tables.judge, arguments)


if __name__ == "__main__":
    main()
