r"""Several rounds of gossip as one mixing: polynomials in W that average faster than a power of W does.

All are three-term recursions with K rounds, of which each is one application of the mixing below them:

    x_{k+1} = \omega_k B x_k + (1 - \omega_k) x_{k-1},    B = I + \theta (W - I),    x_{-1} = x_0,

so that averages stay what they are. They differ in their coefficients:

=================  ==========================================================  =====================================
chebyshev          \theta = 2 / (l + L), \omega_0 = 1,                         the best polynomial for a spectrum in
                   \omega_k = 2 / (2 - s r_k), r_{k+1} = s \omega_k / 2        [l, L]
fast_mix           \theta = 1, all \omega_k = 1 + e                            the best constant \omega
multi_consensus    \theta = 1, all \omega_k = 1, a new W_t in each round       W^K, or W_{tK+K-1} ... W_{tK}
=================  ==========================================================  =====================================

with l, L the smallest positive and largest eigenvalue of I - W and s = (L - l) / (L + l).

Faults, delays and devices belong below: `chebyshev(drops(mix, ...))`, `chebyshev(place(mix, mesh))`. There each round
is a message of its own, as it is for whoever counts messages.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, PyTree

from adozoo._checks import check_mixing
from adozoo._exchange import Exchange
from adozoo._gossip_matrix import extremes
from adozoo._halo import wide
from adozoo._message import Sized
from adozoo._mixings import Around, register
from adozoo.mixing import Dense, Mean, Mixing, Rolls, Sparse, Table, mixing
from adozoo.relaxation import Relaxed
from adozoo.schedules import Cycle

FIXED = Dense | Mean | Rolls | Sparse | Table

PRODUCT_LIMIT = 512
"""Up to this many nodes the polynomial of a fixed matrix is one matrix itself."""
UNROLLED = 3
"""More rounds than this are a loop, where nothing befalls messages one by one."""


@partial(register, data_fields=["base", "factors", "amount", "product"], meta_fields=["rounds", "steps"])
@dataclass(frozen=True, eq=False)
class Polynomial(Around):
    r"""A polynomial in the matrix, or the matrices, of a mixing `base`: see the module.

    Attributes:
      base: the mixing of each round.
      factors: the \omega_k, [rounds].
      amount: \theta.
      product: the same as one fixed mixing, where that is known and small.
      rounds: K.
      steps: how many steps of `base` one step goes through: 1, or K if every round has a matrix of its own.
    """

    base: Mixing
    factors: Float[Array, " rounds"] | Float[np.ndarray, " rounds"]
    amount: Any
    product: Mixing | None
    rounds: int
    steps: int = 1

    @property
    def symmetric(self) -> bool:
        """Whether the base mixing is, unless matrices that differ are multiplied."""
        return self.base.symmetric and (self.steps == 1 or not self.base.varying)

    @property
    def fixed(self) -> bool:
        return self.base.fixed

    @property
    def is_mean(self) -> bool:  # type: ignore[override]
        """Whether the base mixing is an exact average, which stays what it is."""
        return self.base.is_mean

    @property
    def period(self) -> int | None:
        """After how many steps the matrices repeat; None if they never do."""
        below = super().period
        return None if below is None else below // math.gcd(below, self.steps)

    def used_in(self, share: float) -> "Polynomial":
        return replace(self, base=self.base.used_in(share))

    def exchange(self) -> Exchange:
        raise ValueError(
            "exchange: messages on links do not go through a polynomial of W. Pass the mixing below, and let the "
            "method take more rounds if it has them."
        )

    def links(self, step: Any = 0) -> Any:
        return sum(self.base.links(step * self.steps + k % self.steps) for k in range(self.rounds))

    def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        if any(isinstance(part, Sized) for part in jax.tree.leaves(tree, is_leaf=lambda part: isinstance(part, Sized))):
            raise ValueError(
                "polynomial of a mixing: compressed messages end with their first round, since what nodes forward are "
                "sums of them. Give the method the mixing below, or one round (adozoo.relaxed)."
            )
        if self.product is not None:
            return self.product(tree, step, message)

        def one_round(k: Any, pair: tuple[PyTree, PyTree], number: int = 0) -> tuple[PyTree, PyTree]:
            current, before = pair
            mixed = self.base(current, step * self.steps + k % self.steps, number)
            return jax.tree.map(partial(self._combine, jnp.asarray(self.factors)[k]), mixed, current, before), current

        pair = (tree, tree)
        unrolled = min(self.rounds, UNROLLED) if _is_plain(self.base) else self.rounds
        for k in range(unrolled):
            pair = one_round(k, pair, message * self.rounds + k)
        if unrolled < self.rounds:
            pair = jax.lax.fori_loop(unrolled, self.rounds, one_round, pair)
        return pair[0]

    def _combine(self, factor: Any, mixed: Any, current: Any, before: Any) -> Array:
        """What a round makes of a leaf; in 32 bits at least, and sent in the leaf's dtype."""
        mixed, current, before = (jnp.asarray(x) for x in (mixed, current, before))
        new, own, old = wide(mixed), wide(current), wide(before)
        relaxed = own + jnp.asarray(self.amount, own.dtype) * (new - own)
        return (old + jnp.asarray(factor, own.dtype) * (relaxed - old)).astype(mixed.dtype)

    def at(self, step: Any, message: int = 0) -> Mixing:
        if not self.varying:
            return self
        return Dense(self(jnp.eye(self.n), step, message), self.n, self.stochastic, self.symmetric)

    def mix_leaf(self, x: Array) -> Array:
        return self(x)

    def table(self) -> tuple[Any, Any]:
        if self.product is not None or self.is_mean:
            return (self.product or self.base).table()
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((self.base, self.factors, self.amount))):
            return Dense(self.matrix, self.n).table()
        return mixing(self._multiplied(), method="table", require_connected=False).table()

    def _multiplied(self) -> Any:
        """The polynomial of a known fixed matrix, on the host: dense for few nodes, sparse for many."""
        matrix = self.base.sparse_matrix()
        eye = sp.eye_array(self.n, format="csr")
        if self.n <= PRODUCT_LIMIT:
            matrix, eye = matrix.toarray(), eye.toarray()
        relaxed = eye + float(self.amount) * (matrix - eye)
        before, current = eye, eye
        for factor in np.asarray(self.factors, np.float64):
            current, before = factor * (relaxed @ current) + (1 - factor) * before, current
        return current


def _build(base: Mixing, factors: Any, amount: Any, steps: int = 1) -> Polynomial:
    """The polynomial; as one matrix where the base is a known, small and plain one."""
    rounds = len(factors)
    below = Polynomial(base, np.asarray(factors, np.float64), amount, None, rounds, steps if base.varying else 1)
    known = _is_plain(base) and not base.varying and not base.is_mean and base.n <= PRODUCT_LIMIT
    if not known or any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(below)):
        return below
    matrix = below._multiplied()
    scaled = matrix / matrix.sum(axis=1, keepdims=True)  # many rounds' rounding, before it is checked
    return replace(below, product=mixing(scaled, stochastic=base.stochastic, require_connected=False))


def _is_plain(mix: Mixing) -> bool:
    """Whether it does the same to every message of a step, here and unobserved."""
    return isinstance(mix, FIXED | Cycle) or (isinstance(mix, Relaxed) and _is_plain(mix.base))


def _check_rounds(function: str, rounds: Any) -> None:
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"{function}: rounds must be a positive integer, got {rounds!r}.")


def chebyshev_rounds(smallest: float, largest: float) -> int:
    r"""\lceil \sqrt{L / l} \rceil: after so many rounds disagreement has shrunk to 4/15 of what it was, or less.

    Example:
      >>> (
      ...     adozoo.polynomials.chebyshev_rounds(0.25, 1.0),
      ...     adozoo.polynomials.chebyshev_rounds(0.24, 1.0),
      ... )
      (2, 3)
    """
    return max(1, math.ceil(math.sqrt(largest / smallest) - 1e-12))  # the root may be an integer, but for rounding


def chebyshev_width(smallest: float, largest: float, rounds: int) -> float:
    r"""1 / T_K((L + l) / (L - l)): how much disagreement K rounds of Chebyshev's polynomial leave, at most.

    Example:
      >>> adozoo.polynomials.chebyshev_width(1 / 3, 1.0, 2)  # 1 / T_2(2)
      0.14285714285714...
    """
    ratio = math.sqrt(smallest / largest)
    root = (1 - ratio) / (1 + ratio)
    return 2 * root**rounds / (1 + root ** (2 * rounds))


def chebyshev(mix: Mixing, rounds: int | None = None, eigenvalues: tuple[float, float] | None = None) -> Polynomial:
    r"""Chebyshev acceleration: K rounds whose common polynomial is as small as possible on the spectrum of W.

    W' = I - P_K(I - W) = T_K(c (I - \theta (I - W))) / T_K(c) with Chebyshev's polynomial T_K, \theta = 2 / (l + L) and
    c = (L + l) / (L - l). All eigenvalues of P_K but the zero lie in [1 - w, 1 + w], w = 1 / T_K(c) <= 4/15 for the
    default K = \lceil\sqrt{L / l}\rceil: this is the P_K of MSDA and of OPAPC, which are one polynomial, and the best
    linear gossip of K rounds if only l and L are known. Scaling I - W does not change it. With l = L (exact averaging)
    W' = 11'/n.

    Sent: K times what the mixing sends, one round after the other. W' has negative entries.

    Args:
      mix: a symmetric, doubly stochastic mixing; the polynomial of a time-varying one is that of each step's matrix.
      rounds: K, by default \lceil\sqrt{L / l}\rceil.
      eigenvalues: (l, L), the smallest positive and the largest eigenvalue of I - W (bounds on them will do); by
        default they are computed, over all steps of a schedule.

    Returns:
      A mixing, symmetric and doubly stochastic.

    Raises:
      ValueError: for a mixing that is not symmetric, a number of rounds below 1, or unknown eigenvalues.

    Example:
      >>> mix = adozoo.mixing(adozoo.graphs.ring(16))
      >>> fast, slow = adozoo.chebyshev(mix, 6), adozoo.power(mix, 6)
      >>> [
      ...     round(adozoo.weights.second_eigenvalue(m.sparse_matrix()), 3)
      ...     for m in (fast, slow)
      ... ]
      [0.185, 0.732]

    References:
      Scaman, Bach, Bubeck, Lee, Massoulie, Optimal algorithms for smooth and strongly convex distributed optimization
      in networks, ICML 2017; Golub, Varga, Chebyshev semi-iterative methods, 1961 (the recursion).
    """
    check_mixing("chebyshev", mix, symmetric=True)
    smallest, largest = _ends("chebyshev", mix, eigenvalues)
    rounds = chebyshev_rounds(smallest, largest) if rounds is None else rounds
    _check_rounds("chebyshev", rounds)
    spread = (largest - smallest) / (largest + smallest)
    factors, ratio = [1.0], spread  # ratio: r_k = T_{k-1}(c) / T_k(c)
    for _ in range(rounds - 1):
        factors.append(2 / (2 - spread * ratio))
        ratio = spread * factors[-1] / 2
    return _build(mix, factors, 2 / (smallest + largest))


def fast_mix(mix: Mixing, rounds: int) -> Polynomial:
    r"""Accelerated averaging with constant weights (FastMix): x_{k+1} = (1 + e) W x_k - e x_{k-1}, from x_{-1} = x_0.

    e = (1 - \sqrt{1 - \sigma^2}) / (1 + \sqrt{1 - \sigma^2}) with \sigma the largest |eigenvalue| of W on disagreement,
    which shrinks like (1 - \sqrt{1 - \sigma})^K, up to a constant. `chebyshev` shrinks it further in as many rounds.

    Sent: K times what the mixing sends, one round after the other.

    Args:
      mix: a symmetric, doubly stochastic mixing with \sigma < 1; of a time-varying one the worst \sigma counts.
      rounds: K.

    Returns:
      A mixing, symmetric and doubly stochastic.

    Raises:
      ValueError: for a mixing that is not symmetric or has \sigma >= 1, a number of rounds below 1, or unknown
        eigenvalues.

    Example:
      >>> mix = adozoo.fast_mix(adozoo.mixing(adozoo.graphs.ring(8)), 6)
      >>> mix(jnp.eye(8)[0]).round(
      ...     3
      ... ).sum()  # the mean of what the nodes have is preserved
      Array(1., dtype=float64)

    References:
      Liu, Morse, Accelerated linear iterations for distributed averaging, Annual Reviews in Control, 2011; Ye, Luo,
      Zhou, Zhang, Multi-consensus decentralized accelerated gradient descent, JMLR 2023.
    """
    check_mixing("fast_mix", mix, symmetric=True)
    _check_rounds("fast_mix", rounds)
    smallest, largest = _ends("fast_mix", mix, None)
    modulus = max(abs(1 - smallest), abs(1 - largest))
    if modulus >= 1:
        raise ValueError(
            f"fast_mix: the eigenvalues of W on disagreement must lie in (-1, 1), got one of {1 - largest:.6g} "
            f"(n = {mix.n}). Use adozoo.relaxed(mix, 0.5), or adozoo.chebyshev, which scales by itself."
        )
    root = math.sqrt(1 - modulus**2)
    return _build(mix, [1 + (1 - root) / (1 + root)] * rounds, 1.0)


def multi_consensus(mix: Mixing, rounds: int) -> Polynomial:
    r"""Several plain rounds a step: at step t, W_{tK + K - 1} ... W_{tK + 1} W_{tK}, or W^K for a fixed W.

    Over a schedule it goes through K of its steps at a time, so that graphs that connect the nodes only together may do
    so within one step of a method. Products of matrices that differ are not symmetric.

    Sent: K times what the mixing sends, one round after the other.

    Args:
      mix: any mixing.
      rounds: K.

    Returns:
      A mixing, stochastic as `mix` is.

    Raises:
      ValueError: for a number of rounds below 1.

    Example:
      >>> peers = adozoo.one_peer_exponential(4)
      >>> mix = adozoo.multi_consensus(peers, 2)
      >>> mix(jnp.array([4.0, 0.0, 0.0, 0.0]))
      Array([1., 1., 1., 1.], dtype=float64)
      >>> mix.period, adozoo.channel.mean_links(mix) / adozoo.channel.mean_links(peers)
      (1, 2.0)

    References:
      Kovalev, Gasanov, Gasnikov, Richtarik, Lower bounds and optimal algorithms for smooth and strongly convex
      decentralized optimization over time-varying networks, NeurIPS 2021.
    """
    check_mixing("multi_consensus", mix, ("doubly", "row", "column"))
    _check_rounds("multi_consensus", rounds)
    return _build(mix, [1.0] * rounds, 1.0, rounds)


def _ends(function: str, mix: Mixing, eigenvalues: tuple[float, float] | None) -> tuple[float, float]:
    smallest, largest = extremes(function, mix) if eigenvalues is None else eigenvalues
    if not 0 < smallest <= largest < math.inf:
        raise ValueError(
            f"{function}: eigenvalues must be (smallest positive, largest) of I - W with 0 < smallest <= largest, got "
            f"{eigenvalues!r}. Leave them out to have them computed."
        )
    return smallest, largest
