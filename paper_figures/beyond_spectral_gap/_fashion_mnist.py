"""What figures 4 and 6 share on Fashion-MNIST: final losses of each topology with each learning rate.

They are trained and measured as in figure_6.py, with batches of 16 as in the paper: an MLP 784-32-10 in place of VGG-11
on CIFAR-10, which needs a GPU, without momentum or weight decay, like the 784-5000-10 that the paper's appendix trains
on Fashion-MNIST with 64 workers for 25 epochs. Workers sample from all 54000 training images; the losses of their
moving averages are those on every tenth, 5400.

--quick: 16 workers, 150 steps, learning rates a factor 2 apart. --full: 32 workers, 1000 steps, the paper's learning
rates, a factor sqrt(2) apart: hours on a CPU. Both have two seeds. Training amplifies rounding, which depends on how
many learning rates are trained together: with others on the grid, a loss can differ by 1 %.

Which loss is measured matters. With that of each worker's own model just after mixing, on its own next minibatch
(means over the last fifth of the 150 steps of 16 workers; without chain, hypercube and FC 2; a start of its own for
each group of FC k), fresh noise, averaged once, counted for more than in a moving average: Spearman's correlation of
the loss with n_W(0.951) was -0.76, and at small learning rates the star did not help.

The figure that comes first keeps the losses for the other, in fashion_mnist_quick.nc or fashion_mnist_full.nc, until
settings or code change.
"""

import inspect
from pathlib import Path

import xarray as xr

import adozoo
from experiments import figures, sources
from experiments.store import content_hash
from paper_figures.beyond_spectral_gap import _digits, figure_6

FOLDER = Path("outputs/figures/beyond_spectral_gap")
HIDDEN = 32
QUICK = figure_6.Scale(
    figure_6.QUICK,
    workers=16,
    steps=150,
    seeds=2,
    rates=tuple(2.0**k for k in range(-6, 2)),
    batch=16,
    every=10,
)
FULL = figure_6.Scale(
    figure_6.FULL,
    workers=32,
    steps=1000,
    seeds=2,
    rates=tuple(2.0 ** (k / 2) for k in range(-24, 1)),
    batch=16,
    every=10,
)


def revision(scale: figure_6.Scale) -> str:
    """Of settings and code: losses that were kept under another one are computed again."""
    code = [inspect.getsource(module) for module in (_digits, figure_6)]
    return content_hash({"scale": repr(scale), "hidden": HIDDEN, "code": code, "adozoo": adozoo.__version__})


def compute(full: bool) -> xr.Dataset:
    scale, path = (FULL, "fashion_mnist_full.nc") if full else (QUICK, "fashion_mnist_quick.nc")
    kept, wanted = FOLDER / path, revision(scale)
    if kept.is_file() and (found := figures.load(kept)).attrs["revision"] == wanted:
        return found
    images = _digits.setup(sources.load("fashion_mnist").train, HIDDEN)
    made = figure_6.measured(images, scale).assign_attrs(revision=wanted)
    figures.save(made, kept)
    return made
