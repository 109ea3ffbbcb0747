"""Effective numbers of neighbours that need no matrix: infinite graphs, two schedules, and lower bounds.

References:
    Vogels, Hendrikx, Jaggi, "Beyond spectral gap (extended)", 2023, whose equation numbers are used here.
"""

import math
from typing import Any

from scipy.special import ellipkm1

from theory.matrices import Scalar, check_decay


def _tree_moment(degree: int, amplitude: float, leak: float) -> float:
    """Half of E[lambda^2 / (1 - decay lambda^2)] on the infinite regular tree; the other half has the amplitude's sign.

    The Green function, with its first two Taylor terms taken out in closed form: every term is positive and none is
    divided by the amplitude s = sqrt(decay), so that decay = 0 is an ordinary point. `leak` is 1 - s, kept exact.
    """
    q, s = degree, amplitude
    edge = 2 * math.sqrt(q - 1)
    # The product form of a^2 - 4 (q - 1) s^2; for the ring (q = 2) its first factor is 3 (1 - s).
    a = q + 1 - s
    root = math.sqrt((q - edge + (1 + edge) * leak) * (a + edge * s))
    return (q - 1) * (1 + 2 * q * (q + 1 + s) / (a + root)) / ((q + 1) * ((q - 2) * a + q * root))


def _torus_moment(decay: float) -> float:
    """E[lambda^2 / (1 - decay lambda^2)] on the infinite square lattice with weights 1/5."""
    if decay < 1e-3:
        # Return probabilities of the lazy lattice walk; elliptic integrals would cancel here. Truncated at 1e-16.
        returns = [
            sum(math.comb(2 * k, 2 * j) * math.comb(2 * j, j) ** 2 for j in range(k + 1)) / 25**k for k in range(1, 6)
        ]
        return sum(decay**k * value for k, value in enumerate(returns))
    total = 0.0
    root = math.sqrt(decay)
    for s, leak in ((root, (1 - decay) / (1 + root)), (-root, 1 + root)):
        # Lattice Green function: complete elliptic integral of modulus 4 s / (5 - s), complement (5 - 5 s) / (5 - s).
        complement = 5 * leak / (5 - s) if s > 0 else 1 - 4 * root / (5 + root)
        total += 2 / math.pi * float(ellipkm1(complement * (2 - complement))) / (1 - s / 5)
    return (total / 2 - 1) / decay


def effective_neighbors_infinite(graph: str, decay: Scalar, degree: int | None = None) -> float:
    """Effective number of neighbours of an infinite graph with Metropolis-Hastings weights, in closed form.

    The mean over eigenvalues becomes an integral over the spectral measure, negative eigenvalues included:
    E[lambda^2 / (1 - decay lambda^2)] is algebraic for the ring and the regular trees (Kesten-McKay) and a complete
    elliptic integral for the square lattice.

    Args:
        graph: "ring" (weights 1/3), "torus" (two-dimensional lattice, weights 1/5) or "tree" (1 / (1 + degree)).
        decay: variance kept per step, in [0, 1).
        degree: neighbours of every node of the tree, at least 2; only for "tree".

    Returns:
        n_W(decay), unbounded as the decay tends to 1.

    Raises:
        ValueError: for an unknown graph, a decay outside [0, 1), or a degree that does not fit.

    Example:
        >>> round(effective_neighbors_infinite("ring", 0.9), 6)
        6.632167
        >>> round(effective_neighbors_infinite("tree", 0.0, degree=3), 6)
        4.0

    References:
        Extended paper, eq. (8) and Figure 1; the closed forms are derived here (the paper gives none).
    """
    decay = check_decay(decay)
    if graph not in ("ring", "tree", "torus"):
        raise ValueError(
            f'graph: expected "ring", "tree" or "torus", got {graph!r}; finite graphs: effective_neighbors'
        )
    if (graph == "tree") != (degree is not None):
        raise ValueError(f'degree: needed for "tree" and for nothing else, got {degree} for {graph!r}')
    if graph == "torus":
        return 1 / ((1 - decay) * _torus_moment(decay))
    q = 2 if degree is None else degree
    if q < 2:
        raise ValueError(f"degree: expected at least 2, got {q}; degree 2 is the ring")
    s = math.sqrt(decay)
    moment = _tree_moment(q, s, (1 - decay) / (1 + s)) + _tree_moment(q, -s, 1 + s)
    return 1 / ((1 - decay) * moment)


def one_peer_exponential_neighbors(n: int, decay: Any) -> Any:
    """Effective neighbours of the one-peer exponential schedule on n = 2^d nodes: the same at every phase and node.

    1 / n_W = (1 - decay) (1 - (decay/2)^d) / (2 - decay) + decay^d / n.

    Args:
        n: number of nodes, a power of two.
        decay: number, array or sympy expression.

    Returns:
        n_W, of the kind of `decay`.

    Raises:
        ValueError: when n is not a power of two.

    Example:
        >>> round(one_peer_exponential_neighbors(8, 0.5), 6)
        2.909091

    References:
        Derived here; the schedule is that of the extended paper's Figure 2.
    """
    if n < 1 or n & (n - 1):
        raise ValueError(f"n: expected a power of two, got {n}; use effective_neighbors for other schedules")
    d = n.bit_length() - 1
    return 1 / ((1 - decay) * (1 - (decay / 2) ** d) / (2 - decay) + decay**d / n)


def local_steps_neighbors(n: int, period: int, decay: Any, phase: int = 0) -> Any:
    """Effective neighbours of local steps: W_t = I, but exact averaging at the last step of each period.

    1 / n_W = decay^t / n + 1 - decay^t with t steps since the average, t = phase modulo period.

    Args:
        n: number of nodes.
        period: steps from one average to the next, at least 1.
        decay: number, array or sympy expression.
        phase: step modulo the period, as in `random_walk_covariance`.

    Returns:
        n_W, of the kind of `decay`.

    Raises:
        ValueError: for a period below 1.

    Example:
        >>> (
        ...     local_steps_neighbors(4, 3, 0.9),
        ...     round(local_steps_neighbors(4, 3, 0.9, phase=1), 6),
        ... )
        (4.0, 3.076923)

    References:
        Derived here; local steps as a periodic schedule are in the authors' code.
    """
    if period < 1:
        raise ValueError(f"period: expected at least 1, got {period}; 1 averages at every step")
    kept = decay ** (phase % period)
    return 1 / (kept / n + 1 - kept)


def spectral_gap_lower_bound(n: Scalar, gap: Scalar, decay: Scalar) -> float:
    """Lower bound on n_W(decay) from the absolute spectral gap alone; tight for W = (1 - gap) I + gap 11'/n.

    1 / n_W <= 1/n + (1 - 1/n) (1 - decay) (1 - gap)^2 / (1 - decay (1 - gap)^2).

    Args:
        n: number of nodes, may be infinite.
        gap: 1 - max_{i >= 2} |lambda_i|, in [0, 1].
        decay: variance kept per step, in [0, 1).

    Returns:
        The bound.

    Raises:
        ValueError: for a gap outside [0, 1] or a decay outside [0, 1).

    Example:
        >>> round(spectral_gap_lower_bound(32, 0.1, 0.9), 6)
        3.117182

    References:
        Extended paper, eq. (11).
    """
    decay = check_decay(decay)
    if not 0 <= gap <= 1:
        raise ValueError(f"gap: expected 0 <= gap <= 1, got {gap}; use theory.spectral_gap(W)")
    square = (1 - gap) ** 2
    return float(1 / (1 / n + (1 - 1 / n) * (1 - decay) * square / (1 - decay * square)))


def spectral_dimension_lower_bound(n: Scalar, dimension: Scalar, constant: Scalar, decay: Scalar) -> float:
    """Lower bound on n_W(decay) from the spectral dimension d_s of the graph and its constant c_s.

    The spectral measure obeys sigma((lambda, 1)) <= (1 - lambda)^{d_s / 2} / c_s, the atom 1/n at 1 excluded. Then

        d_s > 2:  1 / n_W <= 1/n + (1 - decay) / (decay (d_s - 2) c_s)
        d_s = 2:  1 / n_W <= 1/n - (1 - decay) ln(1 - decay) / (2 decay c_s)
        d_s < 2:  1 / n_W <= 1/n + 4 (1 - decay)^{d_s / 2} / (d_s (2 - d_s) c_s).

    Negative eigenvalues are ignored by the paper's argument: make W lazy where they matter.

    Args:
        n: number of nodes, may be infinite.
        dimension: spectral dimension d_s > 0 (the infinite ring has 1, a d-dimensional lattice d).
        constant: c_s > 0 (3/2 for the infinite ring, lambda in [0, 1]).
        decay: variance kept per step, in [0, 1).

    Returns:
        The bound; 0, which says nothing, at decay 0 for d_s > 2.

    Raises:
        ValueError: for a dimension or constant that is not positive, or a decay outside [0, 1).

    Example:
        >>> round(spectral_dimension_lower_bound(1000, 3, 1, 0.9), 6)
        8.919722

    References:
        Extended paper, Definition 3 and eqs. (14), (15), (17).
    """
    decay = check_decay(decay)
    for name, value in (("dimension", dimension), ("constant", constant)):
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value}; the infinite ring has 1 and 1.5")
    if dimension < 2:
        excess = 4 * (1 - decay) ** (dimension / 2) / (dimension * (2 - dimension) * constant)
    elif decay == 0:
        excess = 1 / (2 * constant) if dimension == 2 else math.inf
    elif dimension == 2:
        excess = -(1 - decay) * math.log1p(-decay) / (2 * decay * constant)
    else:
        excess = (1 - decay) / (decay * (dimension - 2) * constant)
    return float(1 / (1 / n + excess))
