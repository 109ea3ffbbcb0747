"""Beyond Spectral Gap (extended), figure 6, on Fashion-MNIST: final loss against n_W(0.951) and the spectral gap.

The losses are those of figure 4, each topology at its best learning rate; the picture, the claims and the published
numbers, of CIFAR-10, are those of figure_6.py.
"""

from collections.abc import Sequence

from experiments import figures
from paper_figures.beyond_spectral_gap import _fashion_mnist, figure_6


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    description = f"{__doc__}\n{_fashion_mnist.__doc__}"
    return figures.run(__file__, description, _fashion_mnist.compute, figure_6.draw, figure_6.judge, arguments)


if __name__ == "__main__":
    main()
