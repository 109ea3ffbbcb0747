"""Spectra of mixing matrices: exact closed forms (sympy), numerical eigenvalues and spectral gaps.

For many graph families Metropolis-Hastings weights w_ij = 1 / (1 + max(deg_i, deg_j)) put the same weight on every
edge, so that W = I - Lap / (1 + maximal degree): one Laplacian spectrum then gives the mixing spectrum. The families
where this fails (two cliques, the authors' helical torus, directed rings ...) have a closed form of their own here.

References:
    Vogels, Hendrikx, Jaggi, "Beyond spectral gap", NeurIPS 2022, and its extended version, 2023 (topologies).
    Brouwer, Haemers, "Spectra of graphs", 2012 (Laplacian spectra).
    Ying et al., "Exponential graph is provably efficient for decentralized deep training", 2021 (exponential graphs).
"""

import difflib
import functools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import numpy as np
import sympy
from jaxtyping import Float

from theory.matrices import MixingLike, Scalar, is_symmetric, period_matrices, symmetric_matrix

Spectrum: TypeAlias = list[tuple[sympy.Expr, int]]


def eigenvalues(W: MixingLike) -> Float[np.ndarray, " n"]:
    """Eigenvalues of a symmetric mixing matrix, in descending order.

    Args:
        W: [n, n] symmetric doubly stochastic matrix, or a mixing with `.matrix`.

    Returns:
        [n] float64 array, the first entry is 1.

    Raises:
        ValueError: when W is not symmetric or is a schedule.

    Example:
        >>> eigenvalues(np.full((3, 3), 1 / 3)).round(6).tolist()
        [1.0, 0.0, 0.0]
    """
    return np.linalg.eigvalsh(symmetric_matrix(W))[::-1]


def spectral_gap(W: MixingLike, kind: str = "absolute") -> float:
    """Spectral gap of a mixing matrix.

    "absolute": 1 - ||W - 11'/n||_2. For symmetric W this is 1 - max(|lambda_2|, |lambda_n|); otherwise it is one minus
    the second largest *singular* value, the worst contraction of one step. "signed": 1 - lambda_2, which ignores
    negative eigenvalues.

    For a periodic schedule the gap is that of the product W_{p-1} ... W_0, hence *per period*, not per step.

    Args:
        W: anything `period_matrices` accepts.
        kind: "absolute" or "signed" (symmetric product only).

    Returns:
        The gap, 0 for a disconnected graph and 1 for exact averaging.

    Raises:
        ValueError: for an unknown kind, a matrix that is not doubly stochastic, or "signed" without symmetry.

    Example:
        >>> ring = np.array([[1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 1]]) / 3
        >>> round(spectral_gap(ring), 6)
        0.666667
    """
    first, *rest = period_matrices(W)
    product = functools.reduce(lambda product, matrix: matrix @ product, rest, first)
    deviation = product - 1 / len(product)
    if kind == "absolute":
        return float(1 - np.linalg.norm(deviation, 2))
    if kind != "signed":
        raise ValueError(f'kind: expected "absolute" or "signed", got {kind!r}')
    if not is_symmetric(product):
        raise ValueError('kind: "signed" needs a symmetric (product of) W, got W != W\'; use kind="absolute"')
    # W - 11'/n moves the eigenvalue 1 of the consensus direction to 0; raise it out of the way instead.
    return float(1 - np.linalg.eigvalsh(deviation - 2 / len(product))[-1]) if len(product) > 1 else 1.0


def _require(condition: bool, family: str, sizes: tuple, expected: str) -> None:
    if not condition:
        raise ValueError(f"sizes: {family} needs {expected}, got {sizes}")


def _merge(pairs: Iterable[tuple[sympy.Expr | int, int]]) -> Spectrum:
    merged: dict[sympy.Expr, int] = {}
    for value, multiplicity in pairs:
        if multiplicity:
            key = sympy.sympify(value)
            merged[key] = merged.get(key, 0) + multiplicity
    return list(merged.items())


def _cosine(numerator: sympy.Expr | int, denominator: int) -> sympy.Expr:
    return sympy.cos(sympy.pi * sympy.Rational(numerator, denominator))


def _dimension(family: str, n: int) -> int:
    _require(n >= 1 and n & (n - 1) == 0, family, (n,), "a power of two")
    return n.bit_length() - 1


# Laplacian families: sizes -> (spectrum, maximal degree).


def _complete(n: int) -> tuple[Spectrum, int]:
    _require(n >= 1, "complete", (n,), "n >= 1")
    return _merge([(0, 1), (n, n - 1)]), n - 1


def _ring(n: int) -> tuple[Spectrum, int]:
    _require(n >= 1, "ring", (n,), "n >= 1")
    return (_merge((2 - 2 * _cosine(2 * min(k, n - k), n), 1) for k in range(n)), 2) if n > 2 else _complete(n)


def _path(n: int) -> tuple[Spectrum, int]:
    _require(n >= 1, "path", (n,), "n >= 1")
    return _merge((2 - 2 * _cosine(k, n), 1) for k in range(n)), min(2, n - 1)


def _cartesian(family: str, factor: Callable, sizes: tuple[int, ...]) -> tuple[Spectrum, int]:
    _require(len(sizes) >= 1, family, sizes, "at least one size")
    spectrum, degree = factor(sizes[0])
    for size in sizes[1:]:
        other, other_degree = factor(size)
        spectrum = _merge((x + y, p * q) for x, p in spectrum for y, q in other)
        degree += other_degree
    return spectrum, degree


def _hypercube(n: int) -> tuple[Spectrum, int]:
    dimension = _dimension("hypercube", n)
    return _merge((2 * k, math.comb(dimension, k)) for k in range(dimension + 1)), dimension


def _complete_bipartite(p: int, q: int) -> tuple[Spectrum, int]:
    _require(min(p, q) >= 1, "complete_bipartite", (p, q), "p, q >= 1")
    return _merge([(0, 1), (p, q - 1), (q, p - 1), (p + q, 1)]), max(p, q)


def _star(n: int) -> tuple[Spectrum, int]:
    return _complete_bipartite(1, n - 1) if n > 1 else _complete(n)


def _paley(q: int) -> tuple[Spectrum, int]:
    _require(bool(sympy.isprime(q)) and q % 4 == 1, "paley", (q,), "a prime that is 1 modulo 4")
    half = (q - 1) // 2
    return _merge([(0, 1), ((q - sympy.sqrt(q)) / 2, half), ((q + sympy.sqrt(q)) / 2, half)]), half


def _binary_tree(height: int) -> tuple[Spectrum, int]:
    """Levels decouple into tridiagonal matrices; their eigenvalues are roots of an integer three-term recurrence."""
    _require(height >= 1, "balanced_binary_tree", (height,), "height >= 1")
    x = sympy.Symbol("x")
    previous, current = sympy.Integer(1), x - 1
    pairs = [(root, 2 ** (height - 1)) for root in sympy.Poly(current, x).real_roots()]
    for size in range(2, height + 2):
        is_root = size == height + 1
        previous, current = current, sympy.expand((x - (2 if is_root else 3)) * current - 2 * previous)
        copies = 1 if is_root else 2 ** (height - size)
        pairs += [(root, copies) for root in sympy.Poly(current, x).real_roots()]
    return _merge(pairs), min(3, height + 1)


# Mixing-only families: sizes -> eigenvalues, or singular values where W is not symmetric.


def _helical_torus(rows: int, columns: int) -> Spectrum:
    _require(rows >= 2 and columns >= 2, "helical_torus", (rows, columns), "rows, columns >= 2")
    n = rows * columns
    # With two rows the vertical neighbours coincide, but the authors' degree still counts both.
    own, vertical = (2, 1) if rows == 2 else (1, 2)
    indices = (min(k, n - k) for k in range(n))
    return _merge(((own + 2 * _cosine(2 * k, n) + vertical * _cosine(2 * k * columns, n)) / 5, 1) for k in indices)


def _two_cliques(n: int) -> Spectrum:
    _require(n >= 4 and n % 2 == 0, "two_cliques", (n,), "an even n >= 4")
    m = sympy.Integer(n // 2)
    root = sympy.sqrt(m**2 + 4 * (m - 1))
    pair = [((m + sign * root) / (2 * (m + 1)), 1) for sign in (1, -1)]
    return _merge([(1, 1), (1 / (m + 1), 1), *pair, (1 / (m * (m + 1)), n - 4)])


def _mix(n: int, alpha: sympy.Expr | float) -> Spectrum:
    return _merge([(1, 1), (1 - sympy.nsimplify(alpha, rational=True), n - 1)])


def _unidirectional_ring(n: int, shift: int = 1) -> Spectrum:
    _require(n >= 1, "unidirectional_ring", (n,), "n >= 1")
    return _merge((sympy.Abs(_cosine(k * shift % n, n)), 1) for k in range(n))


def _one_peer_exponential(n: int, step: int | None = None) -> Spectrum:
    dimension = _dimension("one_peer_exponential", n)
    # A period of log2(n) steps is exactly 11'/n, whatever its single steps do.
    return _merge([(1, 1), (0, n - 1)]) if step is None else _unidirectional_ring(n, 2 ** (step % max(dimension, 1)))


def _static_exponential(n: int) -> Spectrum:
    _require(n >= 2, "static_exponential", (n,), "n >= 2")
    peers = (n - 1).bit_length()
    pairs = []
    for k in range(n):
        angles = [sympy.pi * sympy.Rational(2 * (k * 2**j % n), n) for j in range(peers)]
        real, imaginary = 1 + sum(map(sympy.cos, angles)), sum(map(sympy.sin, angles))
        pairs.append((sympy.sqrt(sympy.expand(real**2 + imaginary**2)) / (peers + 1), 1))
    return _merge(pairs)


# Name -> (sizes as the user passes them, function).
_LAPLACIANS: dict[str, tuple[str, Callable[..., tuple[Spectrum, int]]]] = {
    "complete": ("n", _complete),
    "ring": ("n", _ring),
    "path": ("n", _path),
    "star": ("n", _star),
    "hypercube": ("n", _hypercube),
    "torus": ("rows, columns, ...", lambda *sizes: _cartesian("torus", _ring, sizes)),
    "grid": ("rows, columns, ...", lambda *sizes: _cartesian("grid", _path, sizes)),
    "complete_bipartite": ("p, q", _complete_bipartite),
    "paley": ("q", _paley),
    "balanced_binary_tree": ("height", _binary_tree),
    "disconnected": ("n", lambda n: (_merge([(0, n)]), 0)),
}
_MIXINGS: dict[str, tuple[str, Callable[..., Spectrum]]] = {
    "helical_torus": ("rows, columns", _helical_torus),
    "two_cliques": ("n", _two_cliques),
    "mix": ("n, alpha", _mix),
    "unidirectional_ring": ("n", _unidirectional_ring),
    "one_peer_exponential": ("n[, step]", _one_peer_exponential),
    "static_exponential": ("n", _static_exponential),
}
_SIZES = {name: sizes for name, (sizes, _) in (_LAPLACIANS | _MIXINGS).items()}


def families() -> dict[str, str]:
    """Names of the graph families with a closed-form spectrum, and the sizes each one takes.

    Example:
        >>> families()["torus"]
        'rows, columns, ...'
    """
    return dict(_SIZES)


def family_name(family: str, known: Iterable[str]) -> str:
    """The known family that a name with spaces, dashes or capitals means; a ValueError names the nearest one.

    Example:
        >>> family_name("Complete bipartite", families())
        'complete_bipartite'
    """
    name, names = family.lower().replace(" ", "_").replace("-", "_"), sorted(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise ValueError(f"family: no closed form for {family!r}, nearest is {near!r}; known: {', '.join(names)}")
    return name


def _whole(name: str, sizes: tuple) -> tuple:
    """The sizes as Python integers, but for the weight alpha of `mix`."""
    most = math.inf if "..." in _SIZES[name] else _SIZES[name].count(",") + 1
    least = 1 if "..." in _SIZES[name] or "[" in _SIZES[name] else most
    counts = sizes[:1] if name == "mix" else sizes
    if not least <= len(sizes) <= most or any(size != int(size) for size in counts):
        raise ValueError(f"sizes: {name} takes ({_SIZES[name]}), whole numbers of nodes; got {sizes}")
    return (*map(int, counts), *sizes[len(counts) :])


def laplacian_spectrum(family: str, *sizes: int) -> Spectrum:
    """Exact spectrum of the graph Laplacian of a named family, ascending.

    Args:
        family: a name of `families()`; those with weights of their own (two cliques, directed graphs) are excluded.
        *sizes: as `families()` says; `hypercube` takes the number of nodes, `balanced_binary_tree` its height.

    Returns:
        List of (sympy expression, multiplicity); entries that are structurally equal are merged.

    Raises:
        ValueError: for an unknown family (the nearest known one is named) or unsuitable sizes.

    Example:
        >>> laplacian_spectrum("star", 5)
        [(0, 1), (1, 3), (5, 1)]
    """
    name = family_name(family, _LAPLACIANS)
    return sorted(_LAPLACIANS[name][1](*_whole(name, sizes))[0], key=lambda pair: float(pair[0]))


def spectrum(family: str, *sizes: sympy.Expr | Scalar) -> Spectrum:
    """Exact spectrum of the Metropolis-Hastings mixing matrix of a named family, descending.

    Directed families (unidirectional ring, static exponential, one step of one-peer exponential) return *singular
    values*; those matrices are normal, so these are the moduli of the eigenvalues, and their squares are what enters
    the effective number of neighbours. `one_peer_exponential` without a step describes the product over a period.

    Args:
        family: a name of `families()` other than `grid`, whose Metropolis-Hastings matrix has no closed form.
        *sizes: as `families()` says. `torus` is the product graph, `helical_torus` that of Vogels et al.'s code.

    Returns:
        List of (sympy expression, multiplicity); entries that are structurally equal are merged.

    Raises:
        ValueError: for an unknown family (the nearest known one is named) or unsuitable sizes.

    Example:
        >>> spectrum("hypercube", 8)
        [(1, 1), (1/2, 3), (0, 3), (-1/2, 1)]
    """
    name = family_name(family, _SIZES.keys() - {"grid"})
    sizes = _whole(name, sizes)
    if name in _MIXINGS:
        pairs = _MIXINGS[name][1](*sizes)
    else:
        laplacian, degree = _LAPLACIANS[name][1](*sizes)
        pairs = _merge((1 - value / sympy.Integer(degree + 1), multiplicity) for value, multiplicity in laplacian)
    return sorted(pairs, key=lambda pair: -float(pair[0]))


class SymbolicGap(NamedTuple):
    """An absolute spectral gap as a function of the number of nodes, and its leading term for many nodes."""

    gap: sympy.Expr
    asymptotic: sympy.Expr


def symbolic_gap(family: str, n: sympy.Expr | int | None = None) -> SymbolicGap:
    """Absolute spectral gap of a family with Metropolis-Hastings weights, with the number of nodes symbolic.

    Valid from three nodes on (four for two cliques and complete bipartite); `torus` is the square one, of side
    sqrt(n) >= 3, `complete_bipartite` the balanced one, `static_exponential` takes an even n.

    Args:
        family: complete, disconnected, ring, path, star, hypercube, torus, two_cliques, complete_bipartite, paley,
            unidirectional_ring or static_exponential.
        n: number of nodes; a positive symbol "n" by default.

    Returns:
        `SymbolicGap(gap, asymptotic)`: gap / asymptotic tends to 1 as n grows.

    Raises:
        ValueError: for a family without a symbolic gap; the nearest known one is named.

    Example:
        >>> symbolic_gap("ring").asymptotic
        4*pi**2/(3*n**2)
    """
    n = sympy.Symbol("n", positive=True) if n is None else sympy.sympify(n)
    pi, cos, log2 = sympy.pi, sympy.cos, sympy.log(n, 2)
    bits = sympy.ceiling(log2)
    gaps: dict[str, tuple] = {
        "complete": (1, 1),
        "disconnected": (0, 0),
        "ring": (2 * (1 - cos(2 * pi / n)) / 3, 4 * pi**2 / (3 * n**2)),
        "path": (2 * (1 - cos(pi / n)) / 3, pi**2 / (3 * n**2)),
        "star": (1 / n, 1 / n),
        "hypercube": (2 / (log2 + 1), 2 / log2 if n != 1 else 1),
        "torus": (2 * (1 - cos(2 * pi / sympy.sqrt(n))) / 5, 4 * pi**2 / (5 * n)),
        "two_cliques": ((n + 4 - sympy.sqrt(n**2 + 8 * n - 16)) / (2 * (n + 2)), 8 / n**2),
        "complete_bipartite": (4 / (n + 2), 4 / n),
        "paley": ((n - sympy.sqrt(n)) / (n + 1), 1),
        "unidirectional_ring": (1 - cos(pi / n), pi**2 / (2 * n**2)),
        "static_exponential": (2 / (1 + bits), 2 / log2 if n != 1 else 1),
    }
    return SymbolicGap(*map(sympy.sympify, gaps[family_name(family, gaps)]))
