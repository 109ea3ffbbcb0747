"""Simulated clusters: how long gradients and messages take, node by node and link by link.

A `Cluster` is only a description. What happens on it is a pure function of the cluster and a seed: each node and each
link has a random stream of its own, so that the k-th gradient of node i takes equally long in all methods that are
compared (common random numbers). `experiments.timelines` and `experiments.asynchronous` turn it into schedules,
`experiments.costs` into the x-axes of any registered method. `cluster_named` has the clusters of suites.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.settings import nearest

_GRADIENT, _LINK, _OTHER = range(3)
"""What a random stream is for."""
_BLOCK = 256
"""Durations drawn at once."""


def _check(name: str, value: Any, low: float = 0.0, closed: bool = False) -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < low or (value == low and not closed):
        sign = ">=" if closed else ">"
        raise ValueError(f"{name} must be a finite number {sign} {low:g}, got {value!r}. Durations are in seconds.")


@dataclass(frozen=True)
class Durations:
    """A distribution of durations in seconds: made by `constant`, `exponential`, `shifted_exponential`, `lognormal`.

    Attributes:
      family: "shifted exponential" (constant where `mean` = `least`) or "lognormal".
      mean: expectation.
      least: smallest possible duration.
      spread: standard deviation of the logarithm (lognormal).
    """

    family: str
    mean: float
    least: float = 0.0
    spread: float = 0.0

    @property
    def fixed(self) -> bool:
        """Whether all durations are the same."""
        return self.spread == 0 and (self.family == "lognormal" or self.mean == self.least)

    def draw(self, rng: np.random.Generator, size: int) -> Float[np.ndarray, " size"]:
        """The next `size` durations of a stream: the same numbers, whether drawn at once or in parts."""
        if self.family == "lognormal":
            # mean = exp(location + spread^2 / 2)
            return rng.lognormal(math.log(self.mean) - self.spread**2 / 2, self.spread, size)
        return self.least + (self.mean - self.least) * rng.exponential(size=size)


def constant(seconds: float) -> Durations:
    """Always the same.

    Example:
      >>> constant(2.0).draw(np.random.default_rng(0), 3)
      array([2., 2., 2.])
    """
    _check("constant: seconds", seconds, closed=True)
    return Durations("shifted exponential", float(seconds), float(seconds))


def exponential(mean: float) -> Durations:
    """Memoryless, P(T > t) = exp(-t / mean): events one after the other are a Poisson clock of rate 1 / mean."""
    _check("exponential: mean", mean)
    return Durations("shifted exponential", float(mean))


def shifted_exponential(least: float, mean: float) -> Durations:
    """`least` seconds and an exponential rest: the usual model of a machine with a random slow-down.

    References:
      Lee, Lam, Pedarsani, Papailiopoulos, Ramchandran, Speeding up distributed machine learning using codes, 2018.
    """
    _check("shifted_exponential: least", least, closed=True)
    _check("shifted_exponential: mean", mean)
    if mean < least:
        raise ValueError(f"shifted_exponential: mean must be at least least = {least!r}, got {mean!r}. Swap them.")
    return Durations("shifted exponential", float(mean), float(least))


def lognormal(mean: float, spread: float) -> Durations:
    """exp of a Gaussian of standard deviation `spread`, with expectation `mean`: for small spreads, jitter."""
    _check("lognormal: mean", mean)
    _check("lognormal: spread", spread, closed=True)
    return Durations("lognormal", float(mean), 0.0, float(spread))


@dataclass(frozen=True, eq=False)
class Cluster:
    r"""n nodes, with the time that their gradients and messages take.

    A gradient on node i takes slowness_i C seconds, C drawn from `compute`. A message of `share` vectors from i to j
    takes link_slowness_ij (Z + share * message_bytes / bandwidth) seconds, with Z drawn from `latency`. Messages over
    different links travel at once and do not slow each other; so do the two messages of a pair that exchanges.

    Attributes:
      n: nodes.
      compute: seconds of a gradient on a node of slowness 1.
      latency: seconds before the first byte of a message arrives.
      message_bytes: size of a vector of all parameters.
      bandwidth: of a link, in bytes a second.
      slowness: factor of each node's compute times, [n]; 1 by default.
      link_slowness: factor of each link's times, symmetric [n, n]; 1 by default.

    Raises:
      ValueError: for fewer than one node, durations that are not `Durations`, or factors that are not positive or have
        another shape.

    Example:
      >>> cluster = Cluster(
      ...     4, constant(1.0), constant(0.1), message_bytes=8e6, bandwidth=1e8
      ... )
      >>> cluster.message_seconds(0, 1, 2, seed=0).round(3)
      array([0.18, 0.18])
      >>> cluster.with_straggler(2, 4.0).gradient_seconds(1, seed=0).tolist()
      [[1.0, 1.0, 4.0, 1.0]]
    """

    n: int
    compute: Durations
    latency: Durations = Durations("shifted exponential", 0.0)
    message_bytes: float = 0.0
    bandwidth: float = math.inf
    slowness: Any = None
    link_slowness: Any = None

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"Cluster: n must be a positive integer, got {self.n!r}. Pass the number of nodes.")
        for name in ("compute", "latency"):
            if not isinstance(getattr(self, name), Durations):
                raise ValueError(
                    f"Cluster: {name} must be a distribution of durations, got {getattr(self, name)!r}. Pass "
                    "constant(seconds), exponential(mean), shifted_exponential(least, mean) or lognormal(mean, spread)."
                )
        if self.compute.mean <= 0:
            raise ValueError("Cluster: compute must take time, got a mean of 0 s. Pass constant(1.0), say.")
        _check("Cluster: message_bytes", self.message_bytes, closed=True)
        if not self.bandwidth > 0:
            raise ValueError(f"Cluster: bandwidth must be > 0 bytes a second, got {self.bandwidth!r}. Use math.inf.")
        for name, shape in (("slowness", (self.n,)), ("link_slowness", (self.n, self.n))):
            given = getattr(self, name)
            factors = np.ones(shape) if given is None else np.array(given, np.float64)
            if factors.shape != shape or not (np.isfinite(factors).all() and (factors > 0).all()):
                raise ValueError(
                    f"Cluster: {name} must hold positive factors of shape {shape}, got shape {factors.shape}"
                    f"{f' with {factors.min():g}' if factors.shape == shape else ''}. Use 1 for an ordinary one."
                )
            object.__setattr__(self, name, factors)
        if not np.array_equal(self.link_slowness, self.link_slowness.T):
            raise ValueError("Cluster: link_slowness must be symmetric, got a matrix that is not. Pass (S + S') / 2.")

    def with_straggler(self, node: int, factor: float) -> "Cluster":
        """The same cluster with one node `factor` times as slow as it was."""
        _check("with_straggler: factor", factor)
        if not 0 <= node < self.n:
            raise ValueError(f"with_straggler: node must lie in 0..{self.n - 1}, got {node!r}. Pass one of the nodes.")
        slowness = self.slowness.copy()
        slowness[node] *= factor
        return replace(self, slowness=slowness)

    @property
    def mean_gradient_seconds(self) -> float:
        """Mean over the nodes of the expected duration of a gradient."""
        return float(self.compute.mean * self.slowness.mean())

    def gradient_seconds(self, steps: int, seed: int) -> Float[np.ndarray, "steps n"]:
        """How long the first `steps` gradients of each node take."""
        columns = [self.compute.draw(_rng(seed, _GRADIENT, i), steps) for i in range(self.n)]
        return np.stack(columns, axis=1) * self.slowness

    def message_seconds(self, i: int, j: int, count: int, seed: int, share: float = 1.0) -> Float[np.ndarray, " count"]:
        """How long the first `count` messages of `share` vectors from i to j take."""
        sent = share * self.message_bytes / self.bandwidth
        return self.link_slowness[i, j] * (self.latency.draw(_rng(seed, _LINK, i, j), count) + sent)

    def gradients(self, i: int, seed: int) -> Iterator[float]:
        """The durations of node i's gradients for ever: those of `gradient_seconds`."""
        return _stream(self.compute, _rng(seed, _GRADIENT, i), float(self.slowness[i]), 0.0)

    def exchanges(self, i: int, j: int, seed: int) -> Iterator[float]:
        """The durations of exchanges between i and j for ever: those of the messages from the smaller to the larger."""
        i, j = min(i, j), max(i, j)
        sent = self.message_bytes / self.bandwidth
        return _stream(self.latency, _rng(seed, _LINK, i, j), float(self.link_slowness[i, j]), sent)


def other_rng(seed: int, *which: int) -> np.random.Generator:
    """A stream that no gradient and no link uses, for what else is random in a schedule."""
    return _rng(seed, _OTHER, *which)


def _rng(seed: int, purpose: int, *which: int) -> np.random.Generator:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {seed!r}. The same seed gives the same durations.")
    # The length of `which` goes first: numpy pads short entropy with zeros, so that (1, 0) and (1,) would agree.
    return np.random.default_rng((seed, purpose, len(which), *which))


def _stream(durations: Durations, rng: np.random.Generator, factor: float, extra: float) -> Iterator[float]:
    while True:
        yield from (factor * (durations.draw(rng, _BLOCK) + extra)).tolist()


_ORDINARY = {"compute": lognormal(0.05, 0.1), "latency": constant(1e-3), "bandwidth": 1.25e8}
"""A gradient of 50 ms, give or take 10 %; 1 ms and 1 Gbit/s between nodes."""
_WEAK = {"compute": lognormal(1.0, 0.3), "latency": constant(1e-2), "bandwidth": 2.5e6}
"""A gradient of a second, give or take 30 %; 10 ms and 20 Mbit/s between nodes, as over a shared radio."""


def _spread_out(n: int, spread: float) -> Float[np.ndarray, " n"]:
    """The n quantiles of a lognormal of mean one, in an order that no graph knows of."""
    gaussian = np.array([NormalDist().inv_cdf((k + 0.5) / n) for k in range(n)])
    factors = np.exp(spread * gaussian)
    return np.random.default_rng(0).permutation(factors / factors.mean())


def _two_sites(n: int, factor: float) -> Float[np.ndarray, "n n"]:
    """Links between the first and the second half of the nodes are `factor` times as slow as within."""
    site = np.arange(n) >= (n + 1) // 2
    return np.where(site[:, None] == site, 1.0, factor)


CLUSTERS: dict[str, tuple[float | None, Callable[[int, float], dict[str, Any]]]] = {
    "uniform": (None, lambda n, _: _ORDINARY),
    "straggler": (4.0, lambda n, factor: _ORDINARY | {"slowness": [factor] + [1.0] * (n - 1)}),
    "heterogeneous": (0.5, lambda n, spread: _ORDINARY | {"slowness": _spread_out(n, spread)}),
    "slow_links": (10.0, lambda n, factor: _ORDINARY | {"link_slowness": _two_sites(n, factor)}),
    "weak": (None, lambda n, _: _WEAK | {"slowness": _spread_out(n, 0.5)}),
}
"""Name -> (the number that it takes after a colon, by default this one; what makes the `Cluster` what it is).

All constants are illustrative: what matters is the ratio of a gradient's time to a message's.
"""


def cluster_named(name: str, n: int, message_bytes: float = 0.0) -> Cluster:
    """A cluster by its name, as suites and command lines give it.

    ===================  ==========================================================================================
    uniform              all nodes alike: a gradient takes about 50 ms, links have 1 ms and 1 Gbit/s
    straggler:4          the same, but node 0 is so many times as slow
    heterogeneous:0.5    the same, with slowness spread as a lognormal of this deviation and mean one
    slow_links:10        the same, at two sites, between which links are so many times as slow
    weak                 a second a gradient, slowness spread by 0.5, links of 10 ms and 20 Mbit/s
    ===================  ==========================================================================================

    Args:
      name: one of these.
      n: how many nodes.
      message_bytes: size of a vector of all parameters.

    Raises:
      ValueError: for an unknown name (it says the nearest known ones), or a number that does not fit.

    Example:
      >>> cluster_named("straggler:8", 4).slowness.tolist()
      [8.0, 1.0, 1.0, 1.0]
    """
    family, _, given = name.partition(":")
    if family not in CLUSTERS:
        raise nearest("cluster", name, CLUSTERS)
    number, settings = CLUSTERS[family]
    if given and number is None:
        raise ValueError(f"cluster: {family} takes no number, got {name!r}. Leave out :{given}.")
    try:
        number = float(given) if given else number
    except ValueError:
        raise ValueError(f"cluster: {name!r} needs a number after the colon. Write {family}:{number:g}, say.") from None
    if number is not None:
        _check(f"cluster: the number of {family}", number)
    return Cluster(n, message_bytes=message_bytes, **settings(n, 0.0 if number is None else number))
