"""PowerSGD (Vogels, Karimireddy, Jaggi, NeurIPS 2019), table 7: PowerSGD against Signum on language modelling.

An LSTM of three layers, 650 wide, on WikiText-2; its embedding is also its decoder and is sent once.

Deviations: only the data volumes are computed; perplexities are shown as published.
"""

from collections.abc import Sequence

import xarray as xr

from adozoo.compression import identity, low_rank, sign
from experiments import figures
from paper_figures.powersgd import _tables
from paper_figures.powersgd._shapes import LANGUAGE
from paper_figures.powersgd._tables import Row

WORDS = (
    Row("SGD", identity(), 7730, 91),
    Row("Signum", sign(), 242, 142),
    Row("rank 4", low_rank(4), 64, 91),
)


def compute(full: bool) -> xr.Dataset:
    return _tables.computed(((LANGUAGE, WORDS),))


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, _tables.draw, _tables.judge, arguments)


if __name__ == "__main__":
    main()
