"""Data, partitions, models, sweeps and reports around `adozoo` and `theory`; run from a checkout, not the wheel."""
