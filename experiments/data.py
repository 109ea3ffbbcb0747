"""What a data set is, and the small real ones that come with scikit-learn: they need no download."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped


class Dataset(NamedTuple):
    """N samples: their features, what is to be predicted of each, and where it is known, from whom they are."""

    features: Shaped[np.ndarray, "samples *features"]
    labels: Shaped[np.ndarray, "samples *targets"]  # integer classes or characters, or float targets of a regression
    name: str
    description: str
    groups: np.ndarray | None = None  # integer code of each sample's source: the natural shares
    vocabulary: tuple[str, ...] | None = None  # of text: the character that each integer stands for

    @property
    def has_classes(self) -> bool:
        """Whether labels are classes, one a sample: neither numbers of a regression nor sequences."""
        return self.labels.ndim == 1 and bool(np.issubdtype(self.labels.dtype, np.integer))


Scale = tuple[np.ndarray, np.ndarray]
"""Mean and standard deviation of each column or channel; the deviation is infinite where all values are the same."""


def scale(features: Float[np.ndarray, "samples *features"]) -> Scale:
    """Mean and standard deviation of each column [N, d], or of each channel of images [N, height, width, channels].

    Example:
      >>> mean, deviation = scale(np.array([[1.0, 5.0], [3.0, 5.0]]))
      >>> mean.tolist(), deviation.tolist()
      ([2.0, 5.0], [1.0, inf])
    """
    axes = tuple(range(features.ndim - 1))
    # Sums in double precision: over millions of pixels, single precision loses digits of the mean.
    mean = features.mean(axis=axes, dtype=np.float64)
    deviation = np.sqrt(np.square(features - mean.astype(features.dtype)).mean(axis=axes, dtype=np.float64))
    return mean, np.where(features.max(axis=axes) > features.min(axis=axes), deviation, np.inf)


def standardise(
    features: Float[np.ndarray, "samples *features"], by: Scale | None = None
) -> Float[np.ndarray, "samples *features"]:
    r"""Give each column, or each channel of images, mean 0 and variance 1: $(x - m) / s$.

    A constant one becomes zero and stays, so that pixels keep their place.

    Args:
      features: [N, d], or images [N, height, width, channels].
      by: m and s of other samples, such as those of the training part; by default of these.

    Returns:
      The features, standardised, in their own precision.

    Example:
      >>> standardise(np.array([[1.0, 5.0], [3.0, 5.0]]))
      array([[-1.,  0.],
             [ 1.,  0.]])
    """
    mean, deviation = scale(features) if by is None else by
    centred = features - mean.astype(features.dtype)
    centred /= deviation.astype(features.dtype)
    return centred


_DESCRIPTIONS = {
    "breast_cancer": "Breast cancer Wisconsin (diagnostic), standardised; 0 malignant, 1 benign",
    "digits": "Handwritten digits of 8 x 8 pixels (test part of the UCI set), standardised",
    "wine": "Wine recognition: 13 chemical measurements of wines from three growers, standardised",
    "iris": "Iris plants: four lengths of three species' flowers, standardised",
    "diabetes": "Diabetes: 10 measurements, standardised, and the disease's progression after a year (regression)",
}


def bundled(name: str) -> Dataset:
    """A set as scikit-learn has it, not standardised: "breast_cancer", "digits", "wine", "iris" or "diabetes".

    Raises:
      ImportError: scikit-learn is not installed.
      ValueError: for another name.

    Example:
      >>> wine = bundled("wine")
      >>> wine.features.shape, np.bincount(wine.labels).tolist()
      ((178, 13), [59, 71, 48])
    """
    if name not in _DESCRIPTIONS:
        raise ValueError(f"bundled: no set is called {name!r}. Choose one of {', '.join(_DESCRIPTIONS)}.")
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(f"{name} comes with scikit-learn: pip install 'adozoo[experiments]'.") from error
    bunch = getattr(datasets, f"load_{name}")()
    dtype = np.float64 if name == "diabetes" else np.int64
    return Dataset(
        np.asarray(bunch.data, dtype=np.float64), np.asarray(bunch.target, dtype=dtype), name, _DESCRIPTIONS[name]
    )


def _standardised(name: str, intercept: bool) -> Dataset:
    raw = bundled(name)
    features = standardise(raw.features)
    if intercept:
        features = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    return raw._replace(features=features)


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
    return _standardised("breast_cancer", intercept)


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
    return _standardised("digits", intercept)
