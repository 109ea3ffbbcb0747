"""PowerSGD (Vogels, Karimireddy, Jaggi, NeurIPS 2019), table 1: error feedback against unbiased compression.

ResNet18 on CIFAR-10. The paper's unbiased operator of rank r is (M U) U^T with a random U that all workers draw alike,
so that a x r numbers are sent for a matrix of a x b. The published volumes are not of that: they are those of sending P
and Q in turns, r (a + b) / 2 numbers on average, which is what the released code runs under the name "unbiased rank r".
Both are in the table.

Deviations: only the data volumes are computed; accuracies are shown as published.
"""

from collections.abc import Sequence

import xarray as xr

from adozoo.compression import half_low_rank, identity, low_rank, unbiased_low_rank
from experiments import figures
from paper_figures.powersgd import _tables
from paper_figures.powersgd._shapes import CIFAR
from paper_figures.powersgd._tables import Row

IMAGES = (
    Row("SGD", identity(), 1023, 94.3),
    Row("rank 1, error feedback", low_rank(1), 4, 93.6),
    Row("rank 2, error feedback", low_rank(2), 8, 94.4),
    Row('"unbiased" rank 1, as released', half_low_rank(1), 3, 71.2),
    Row('"unbiased" rank 2, as released', half_low_rank(2), 4, 75.9),
    Row("unbiased rank 1, the operator", unbiased_low_rank(1)),
    Row("unbiased rank 2, the operator", unbiased_low_rank(2)),
)
OPERATOR = {"rank 1": (5, 3), "rank 2": (6, 4)}
"""Rows of the operator, and of the published volume for the same rank."""


def compute(full: bool) -> xr.Dataset:
    return _tables.computed(((CIFAR, IMAGES),))


def judge(data: xr.Dataset) -> list[figures.Claim]:
    operator = {rank: float(data.megabytes[row]) for rank, (row, _) in OPERATOR.items()}
    published = {rank: float(data.published_megabytes[row]) for rank, (_, row) in OPERATOR.items()}
    return [
        *_tables.judge(data),
        figures.Claim(
            "the published volumes of unbiased compression are those of the paper's operator, (M U) U^T",
            all(round(operator[rank]) == published[rank] for rank in OPERATOR),
            operator,
            published,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, _tables.draw, judge, arguments)


if __name__ == "__main__":
    main()
