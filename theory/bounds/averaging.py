r"""Averaging alone: gossip with a fixed matrix, accelerated by momentum (FastMix), and randomised.

FastMix is x^{k+1} = (1 + r^2) W x^k - r^2 x^{k-1} from x^{-1} = x^0, with r^2 = (1 - s) / (1 + s), s = \sqrt{1 -
\sigma^2}, so that (1 + r^2) \sigma = 2 r. On an eigenvalue \lambda = \sigma \cos\theta of W the roots are r e^{\pm i
\theta}, and the start makes the k-th iterate

    p_k(\lambda) = r^k (U_k(\cos\theta) - r U_{k-1}(\cos\theta)),    U_k the Chebyshev polynomials of the second kind.

With |U_k| <= k + 1 this is at most r^k (k + 1 + k r), which \lambda = -\sigma attains: the rate is r, about 1 -
\sqrt{2 (1 - \sigma)}, but for a factor that grows with k.

Randomised gossip draws W_t anew in every step: E|W x|^2 = x' E(W'W) x on the vectors that sum to zero. Pairwise
gossip with gain g takes W = I - g e_{ij} e_{ij}' with probability p_ij; with Lap = \sum p_ij e_{ij} e_{ij}', E W = I
- g Lap and E W'W = I - 2 g (1 - g) Lap.
"""

from collections.abc import Iterator

import numpy as np
import sympy
from jaxtyping import Float

from theory.bounds._bound import Bound, Search
from theory.bounds._laplacians import Measured, Table, columns, laplacians, logarithmic, mean_free, tiled
from theory.bounds.symbols import lambda_2, lambda_n, nodes, rounds, sigma, steps, symbol

contraction = symbol("contraction", r"\lambda_2(E W'W)", "largest eigenvalue but one of E W'W", nonnegative=True)
mean_lambda_2 = symbol("mean_lambda_2", r"\lambda_2(E W)", "second largest eigenvalue of E W", real=True)

SIZES = (2, 3, 4, 6)
LONGEST = 12
"""Searches average up to this many times."""


def momentum(largest: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    r"""r = \sqrt{(1 - s) / (1 + s)} with s = \sqrt{1 - \sigma^2}: the square root of FastMix's momentum.

    Args:
      largest: \sigma = ||W - 11'/n|| in [0, 1).

    Returns:
      r, also the rate of FastMix.

    Example:
      >>> theory.bounds.averaging.momentum(np.array([0.8])).round(6)
      array([0.5])
    """
    root = np.sqrt(1 - largest**2)
    return np.sqrt((1 - root) / (1 + root))


def fastmix_polynomial(
    eigenvalues: Float[np.ndarray, "m n"], largest: Float[np.ndarray, " m"], count: int
) -> Float[np.ndarray, "k m n"]:
    r"""What FastMix makes of each eigenvector of W: p_0, ..., p_count at the eigenvalues.

    Args:
      eigenvalues: of W, [m, n].
      largest: the \sigma that sets the momentum, [m].
      count: steps.

    Returns:
      [count + 1, m, n].

    Example:
      >>> theory.bounds.averaging.fastmix_polynomial(
      ...     np.array([[-0.8, 1.0]]), np.array([0.8]), 2
      ... ).round(6).tolist()
      [[[1.0, 1.0]], [[-1.25, 1.0]], [[1.0, 1.0]]]
    """
    square = momentum(largest)[:, None] ** 2
    before, now = np.ones_like(eigenvalues), np.ones_like(eigenvalues)
    found = [now]
    for _ in range(count):
        before, now = now, (1 + square) * eigenvalues * now - square * before
        found.append(now)
    return np.stack(found)


def _count(points: np.ndarray) -> np.ndarray:
    return 1 + np.round((LONGEST - 1) * points).astype(int)


def _fixed(points: np.ndarray) -> Measured:
    """||W^T x|| / ||x|| for sums of zero, W doubly stochastic but not symmetric, x near the worst."""
    collected, count = Table(len(points)), _count(points[:, 0])
    kind = np.minimum((points[:, 1] * len(SIZES)).astype(int), len(SIZES) - 1)
    for number, size in enumerate(SIZES):
        rows = np.flatnonzero(kind == number)
        free = size - 1
        raw = 2 * points[rows, 4 : 4 + free**2].reshape(-1, free, free) - 1
        symmetric = (points[rows, 2] < 0.5)[:, None, None]
        raw = np.where(symmetric, (raw + raw.transpose(0, 2, 1)) / 2, raw) + 1e-6 * np.eye(free)
        norm = np.linalg.norm(raw, 2, axis=(1, 2))
        mixing = raw * (np.maximum(points[rows, 3], 0.05) / norm)[:, None, None]
        power, result = mixing, np.empty(len(rows))
        start = 2 * tiled(points[rows, -5:], free) - 1
        for step in range(1, LONGEST + 1):
            now = count[rows] == step
            worst = np.linalg.svd(power[now])[2][:, 0] + 0.2 * points[rows[now], 1:2] * start[now]
            result[now] = np.linalg.norm(np.einsum("mij,mj->mi", power[now], worst), axis=1)
            result[now] /= np.linalg.norm(worst, axis=1)
            power = power @ mixing
        values = {"sigma": np.linalg.norm(mixing, 2, axis=(1, 2)), "steps": count[rows].astype(float)}
        collected.put(rows, result, values)
    return collected.result()


def _pairwise(points: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """(rows, Lap of the probabilities, gain, start in the eigenbasis' worst direction), in node coordinates."""
    rest = points[:, columns(SIZES) :]
    for rows, laplacian in laplacians(points, SIZES, named=True):
        n, u = laplacian.shape[1], rest[rows]
        laplacian = laplacian / (np.einsum("mii->m", laplacian) / 2)[:, None, None]
        values, vectors = np.linalg.eigh(laplacian)
        other = mean_free(n) @ (2 * tiled(u[:, 3:], n - 1) - 1)[..., None]
        start = vectors[:, :, 1] + (u[:, 2] > 0.5)[:, None] * other[..., 0]
        yield rows, laplacian, 0.02 + 0.96 * u[:, 0], values[:, 1], start


def second_moments(
    laplacian: Float[np.ndarray, "m n n"], gain: Float[np.ndarray, " m"], moments: Float[np.ndarray, "m n n"]
) -> Float[np.ndarray, "m n n"]:
    """E (W x)(W x)' for pairwise gossip, from E x x': S - g (Lap S + S Lap) + g^2 sum p_ij (e' S e) e e'."""
    scale = gain[:, None, None]
    diagonal = np.einsum("mii->mi", moments)
    difference = diagonal[:, :, None] + diagonal[:, None, :] - moments - moments.transpose(0, 2, 1)
    weights = -laplacian * (1 - np.eye(laplacian.shape[1])) * difference
    spread = weights.sum(2)[:, :, None] * np.eye(laplacian.shape[1]) - weights
    return moments - scale * (laplacian @ moments + moments @ laplacian) + scale**2 * spread


def _randomized(points: np.ndarray) -> Measured:
    """E||x^T - mean||^2 / ||x^0 - mean||^2 of pairwise gossip."""
    collected, count = Table(len(points)), _count(points[:, -1])
    for rows, laplacian, gain, connectivity, start in _pairwise(points[:, :-1]):
        moments = start[:, :, None] * start[:, None, :]
        first, result = np.einsum("mii->m", moments), np.empty(len(rows))
        for step in range(1, LONGEST + 1):
            moments = second_moments(laplacian, gain, moments)
            now = count[rows] == step
            result[now] = np.einsum("mii->m", moments)[now]
        values = {
            "contraction": 1 - 2 * gain * (1 - gain) * connectivity,
            "mean_lambda_2": 1 - gain * connectivity,
            "steps": count[rows].astype(float),
        }
        # What has cancelled down to rounding says nothing.
        said = (first > 1e-6) & (result > 1e-6 * first)
        collected.put(rows, np.where(said, result / np.maximum(first, 1e-300), np.nan), values)
    return collected.result()


def _worst_start(points: np.ndarray) -> Measured:
    """The same from the eigenvector of E W."""
    points = points.copy()
    points[:, columns(SIZES) + 2] = 0
    return _randomized(points)


def _complete(points: np.ndarray) -> Measured:
    """E||x^1 - mean||^2 / ||x^0 - mean||^2 of pairwise gossip on a complete graph."""
    collected, size = Table(len(points)), 3 + np.round(17 * points[:, 0]).astype(int)
    for n in range(3, 21):
        rows = np.flatnonzero(size == n)
        start = (2 * tiled(points[rows, 1:], n - 1) - 1) @ mean_free(n).T + 1e-6 * (np.arange(n) - (n - 1) / 2)
        moments = start[:, :, None] * start[:, None, :]
        laplacian = np.broadcast_to((n * np.eye(n) - 1) * 2 / (n * (n - 1)), moments.shape)
        after = second_moments(laplacian, np.full(len(rows), 0.5), moments)
        measured = np.einsum("mii->m", after) / np.einsum("mii->m", moments)
        collected.put(rows, measured, {"nodes": np.full(len(rows), float(n))})
    return collected.result()


def _fastmix(lowest: float) -> Search:
    def measure(points: np.ndarray) -> Measured:
        largest, count = 1 - logarithmic(points[:, 0], 1e-4, 0.95), 1 + np.round(39 * points[:, 1]).astype(int)
        inner = lowest + (1 - lowest) * points[:, 2:]
        modes = largest[:, None] * np.concatenate([inner, np.ones((len(points), 1))], axis=1)
        found = np.abs(fastmix_polynomial(modes, largest, 40)).max(2)
        values = {"sigma": np.abs(modes).max(1), "lambda_2": largest, "lambda_n": modes.min(1)}
        return found[count, np.arange(len(points))], values | {"rounds": count.astype(float)}

    return Search(8, measure)


_ROOT = sympy.sqrt(1 - sigma**2)
_MOMENTUM = sympy.sqrt((1 - _ROOT) / (1 + _ROOT))
_DISTANCE = r"\|x^T - \bar x\| / \|x^0 - \bar x\|"
_SQUARED = r"E\|x^T - \bar x\|^2 / \|x^0 - \bar x\|^2"
_BOYD = "Boyd, Ghosh, Prabhakar, Shah, IEEE TIT 2006"
_INDEPENDENT = "W_t doubly stochastic, drawn independently of all before"

BOUNDS = (
    Bound(
        name="gossip_averaging",
        statement="T steps of gossip contract the disagreement by sigma^T.",
        quantity=_DISTANCE,
        expression=sigma**steps,
        reference="Xiao, Boyd, Systems and Control Letters 2004; W^T - J = (W - J)^T and norms multiply",
        evidence="derived",
        assumptions=("W doubly stochastic; equality for the right start if W is symmetric",),
        search=Search(4 + 25 + 5, _fixed),
    ),
    Bound(
        name="fastmix",
        statement="FastMix contracts the disagreement in m steps by this; some W attains it.",
        quantity=r"\|x^m - \bar x\| / \|x^0 - \bar x\|",
        expression=(1 + rounds * (1 + _MOMENTUM)) * _MOMENTUM**rounds,
        reference="Liu, Morse, Annual Reviews in Control 2011 (the recursion); the constant: derived here",
        evidence="derived",
        condition=sigma < 1,
        assumptions=("W symmetric, doubly stochastic; the momentum is set from sigma", "x^{-1} = x^0"),
        search=_fastmix(-1.0),
    ),
    Bound(
        name="fastmix_positive",
        statement="FastMix contracts the disagreement in m steps by this. Without sqrt(14) and the constant before "
        "the root it is false, as m = 1 shows.",
        quantity=r"\|x^m - \bar x\| / \|x^0 - \bar x\|",
        expression=sympy.sqrt(14) * (1 - (1 - 1 / sympy.sqrt(2)) * sympy.sqrt(1 - lambda_2)) ** rounds,
        reference="Ye, Zhang, DeEPCA, JMLR 2023, Proposition 1",
        evidence="recalled",
        condition=sympy.And(lambda_n >= 0, lambda_2 < 1),
        assumptions=("W symmetric, doubly stochastic, positive semi-definite; the momentum is set from lambda_2",),
        search=_fastmix(0.0),
    ),
    Bound(
        name="randomized_gossip",
        statement="Independent random mixings contract the expected squared disagreement by lambda_2(E W'W) a step.",
        quantity=_SQUARED,
        expression=contraction**steps,
        reference=f"{_BOYD}, section II; E|W x|^2 = x' E(W'W) x for sums of zero",
        evidence="derived",
        squared=True,
        assumptions=(_INDEPENDENT,),
        search=Search(columns(SIZES) + 9, _randomized),
    ),
    Bound(
        name="randomized_gossip_lower",
        statement="From the eigenvector of E W the expected squared disagreement does not fall faster than this.",
        quantity=_SQUARED,
        expression=mean_lambda_2 ** (2 * steps),
        reference=f"{_BOYD}; E|x|^2 >= |E x|^2",
        evidence="derived",
        direction="lower",
        squared=True,
        condition=mean_lambda_2 > 0,
        assumptions=(_INDEPENDENT, "x^0 is the eigenvector of E W for its second largest eigenvalue"),
        search=Search(columns(SIZES) + 9, _worst_start),
    ),
    Bound(
        name="pairwise_gossip_complete",
        statement="Averaging a uniformly drawn pair shrinks the expected squared disagreement by exactly this.",
        quantity=r"E\|x^{t+1} - \bar x\|^2 / \|x^t - \bar x\|^2",
        expression=1 - 1 / (nodes - 1),
        reference=f"{_BOYD}; E W'W = E W = I - (n I - 11') / (n (n - 1))",
        evidence="derived",
        direction="equal",
        rate=True,
        squared=True,
        condition=nodes > 2,
        assumptions=("complete graph, uniform pairs",),
        search=Search(9, _complete),
    ),
)
