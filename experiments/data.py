"""Small real data sets that need no download: those bundled with scikit-learn, standardised, as float64 arrays."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Dataset(NamedTuple):
    """Features and integer class labels of N samples."""

    features: Float[np.ndarray, "samples features"]
    labels: Int[np.ndarray, "samples"]
    name: str
    description: str


def standardise(features: Float[np.ndarray, "samples features"]) -> Float[np.ndarray, "samples features"]:
    """Give each column mean 0 and variance 1; a constant one becomes zero and stays, so that pixels keep their place.

    Example:
      >>> standardise(np.array([[1.0, 5.0], [3.0, 5.0]]))
      array([[-1.,  0.],
             [ 1.,  0.]])
    """
    deviation = features.std(axis=0)
    centred = features - features.mean(axis=0)
    return np.where(deviation > 0, centred / np.where(deviation > 0, deviation, 1.0), 0.0)


def _load(name: str, intercept: bool, description: str) -> Dataset:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(f"{name} comes with scikit-learn: pip install 'adozoo[experiments]'.") from error
    bunch = getattr(datasets, f"load_{name}")()
    features = standardise(np.asarray(bunch.data, dtype=np.float64))
    if intercept:
        features = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    return Dataset(features, np.asarray(bunch.target, dtype=np.int64), name, description)


def breast_cancer(intercept: bool = False) -> Dataset:
    """Breast cancer Wisconsin (diagnostic): 569 samples, 30 features, labels 0 malignant (212) and 1 benign (357).

    Args:
      intercept: append a column of ones.

    Example:
      >>> breast_cancer(intercept=True).features.shape
      (569, 31)

    References:
      Street, Wolberg and Mangasarian, Nuclear feature extraction for breast tumor diagnosis, 1993.
    """
    return _load(
        "breast_cancer", intercept, "Breast cancer Wisconsin (diagnostic), standardised; 0 malignant, 1 benign"
    )


def digits(intercept: bool = False) -> Dataset:
    """Handwritten digits: 1797 samples of 8 x 8 pixels, row by row, labels 0 to 9. Three pixels are always blank: zero.

    Args:
      intercept: append a column of ones.

    Example:
      >>> digits().features.shape
      (1797, 64)

    References:
      Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI repository, 1998.
    """
    return _load("digits", intercept, "Handwritten digits of 8 x 8 pixels (test part of the UCI set), standardised")
