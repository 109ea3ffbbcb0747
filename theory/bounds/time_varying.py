r"""What no method can beat over time-varying graphs, tried on the exact methods as they are implemented.

Over graphs that change, two realisations of one recursion are different methods, so that the step is needed in the
variables that are really kept: `REALIZATIONS` has it on a mode where all Hessians are x / \eta and W_t is the number w.
"""

from collections.abc import Callable

import numpy as np
import sympy
from jaxtyping import Float

from theory.bounds._bound import Bound, Search
from theory.bounds._laplacians import Measured, Table, logarithmic
from theory.bounds.symbols import sigma, smoothness, strong_convexity

Entries = Float[np.ndarray, "..."]
Matrix = tuple[Entries | int, Entries | int, Entries | int, Entries | int]

REALIZATIONS: dict[str, Callable[[Entries, Entries, Entries], Matrix]] = {
    "diging": lambda w, x, gain: (w - x, -1, (w - 1) * x, w),
    "atc_tracking": lambda w, x, gain: (w * (1 - x), -w, (w - 1) * x, w),
    "aug_dgm": lambda w, x, gain: (w - w**2 * x, -(w**2), (w - 1) * x, w),
    "extra": lambda w, x, gain: (w - x, 1, (w - 1) / 2, 1),
    "nids": lambda w, x, gain: ((1 - x) * (1 + w) / 2, -(1 + w) / 2, (1 - x) * (1 - w) / 2, (1 + w) / 2),
    "exact_diffusion": lambda w, x, gain: ((1 - x) * (1 + w) / 2, -(1 + w) / 2, (1 - x) * (1 - w) / 2, (1 + w) / 2),
    "d2": lambda w, x, gain: (w * (1 - x), -w, (1 - w) * (1 - x), w),
    "svl": lambda w, x, gain: (w * (1 - x) - gain * (1 - w), gain, w - 1, 1),
}
"""(eigenvalue of W, step size times curvature, integral gain) -> the rows of a step's 2 x 2 matrix on the mode."""

LONGEST = 8
"""Graphs repeat after up to this many steps."""


def step_map(method: str, w: Entries, x: Entries, gain: Entries) -> Float[np.ndarray, "... 2 2"]:
    """The step's matrix on a mode; arguments broadcast."""
    a, b, c, d = np.broadcast_arrays(*REALIZATIONS[method](w, x, gain))
    return np.stack([np.stack([a, b], -1), np.stack([c, d], -1)], -2)


def _radius(matrices: Float[np.ndarray, "... 2 2"]) -> Entries:
    half = (matrices[..., 0, 0] + matrices[..., 1, 1]) / 2
    product = matrices[..., 0, 0] * matrices[..., 1, 1] - matrices[..., 0, 1] * matrices[..., 1, 0]
    root = np.sqrt(half**2 - product + 0j)
    return np.maximum(np.abs(half + root), np.abs(half - root))


def _worst_rate(method: str, x: Float[np.ndarray, "m c"], largest: Entries, gain: Entries) -> Float[np.ndarray, " m"]:
    """The largest rate over constant graphs and all periodic sequences of the eigenvalues -sigma and sigma."""
    rate = np.abs(1 - x).max(1)
    constant = largest[:, None, None] * np.linspace(-1, 1, 9)
    rate = np.maximum(rate, _radius(step_map(method, constant, x[:, :, None], gain[:, None, None])).max((1, 2)))
    letters = step_map(method, largest[:, None, None] * np.array([-1.0, 1.0]), x[:, :, None], gain[:, None, None])
    words = letters
    for length in range(2, LONGEST + 1):
        words = (letters[:, :, :, None] @ words[:, :, None]).reshape(*x.shape, -1, 2, 2)
        rate = np.maximum(rate, _radius(words).max((1, 2)) ** (1 / length))
    return rate


def _scan(points: np.ndarray) -> Measured:
    """The worst rate found of a random exact method, of any step size and gain."""
    collected, u = Table(len(points)), points
    kind = np.minimum((u[:, 0] * len(REALIZATIONS)).astype(int), len(REALIZATIONS) - 1)
    ratio, largest = logarithmic(u[:, 1], 1.0, 1e3), 0.999 * u[:, 2]
    step, gain = logarithmic(u[:, 3], 1e-3, 2.0), np.maximum(u[:, 4], 1e-3)
    x = step[:, None] * np.stack([1 / ratio, ratio**-0.5, np.ones_like(ratio)], axis=1)
    for number, method in enumerate(REALIZATIONS):
        rows = np.flatnonzero(kind == number)
        if len(rows):
            rate = _worst_rate(method, x[rows], largest[rows], gain[rows])
            known = {"strong_convexity": 1 / ratio[rows], "smoothness": np.ones(len(rows)), "sigma": largest[rows]}
            collected.put(rows, rate, known)
    return collected.result()


mu, L = strong_convexity, smoothness

BOUNDS = (
    Bound(
        name="time_varying_lower_bound",
        statement="No method has a smaller worst-case rate over graphs that change. It says nothing of one instance: "
        "over a constant graph with sigma near 1 some methods are faster than sigma.",
        quantity=r"\rho",
        expression=sympy.Max((L - mu) / (L + mu), sigma),
        reference="Sundararajan, Van Scoy, Lessard, IEEE TCNS 2020, Proposition 8",
        evidence="checked",
        direction="lower",
        rate=True,
        of="worst case",
        assumptions=(
            "W_t doubly stochastic with ||W_t - J|| <= sigma, another one in every step",
            "linear exact methods, one gradient and one round of communication a step",
        ),
        search=Search(5, _scan),
    ),
)
