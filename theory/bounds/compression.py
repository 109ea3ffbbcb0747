r"""Compressed messages: what compressors lose, and gossip and SGD that make up for it.

A compressor has quality omega in (0, 1] if E|C(v) - v|^2 <= (1 - omega) |v|^2.

CHOCO-Gossip, derived: x+ = x + gamma (W - I) x^, x^ += C(x - x^). Let r = x - x^ after messages have arrived, p =
gamma delta, b = ||I - W|| and V = |x - xbar|^2 + |r|^2. As x+ - x^ = r - gamma (I - W)(x - r), Young's inequality
with p / 2 and omega / 2 gives factors of

    |x - xbar|^2:  (1 - p)^2 (1 + p / 2) + (1 - omega)(1 + 2 / omega) gamma^2 b^2 <= 1 - 3 p / 2 + p^2 / 2 + p / 2
    |r|^2:         gamma^2 b^2 (1 + 2 / p) + (1 - omega)(1 + omega / 2)(1 + gamma b)^2
                   <= 1 - omega / 2 + gamma (8 - 4 omega + 2 b^2 / delta + b^2)

by 4 gamma b^2 <= delta omega and b <= 2. Both are at most 1 - p / 2 for gamma <= delta omega / D with D = 16 delta +
delta^2 + 4 b^2 + 2 delta b^2 - 8 delta omega <= 41, and then p / 2 at equality is delta^2 omega / (2 D) >= delta^2
omega / 82. The step size with delta^2 for delta in its numerator, as Theorem 2 is recalled, is too small for that
rate on graphs of small gap.

EF-SGD, derived: x~ = x - e moves by -eta g, so that E f(x~+) <= f(x~) - eta <grad f(x~), grad f(x)> + L eta^2 s^2 /
2, where the difference of the gradients costs eta L^2 |e|^2 / 2 + eta |grad f(x)|^2 / 2, and E|e|^2 <= 4 (1 - omega)
eta^2 s^2 / omega^2.

References:
    Koloskova, Stich, Jaggi, "Decentralized stochastic optimization and gossip algorithms with compressed
    communication", ICML 2019.
    Alistarh et al., "QSGD: communication-efficient SGD via gradient quantization and encoding", NeurIPS 2017.
    Stich, Cordonnier, Jaggi, "Sparsified SGD with memory", NeurIPS 2018.
    Karimireddy et al., "Error feedback fixes signSGD and other gradient compression schemes", ICML 2019.
"""

from functools import partial
from typing import Any

import sympy

from theory.bounds import _compressors as compressors
from theory.bounds._bound import Bound, Search
from theory.bounds.symbols import initial_gap, learning_rate, nodes, sigma, smoothness, steps, symbol

compression = symbol(
    "compression", r"\omega_C", "quality of a compressor, E|C(v) - v|^2 <= (1 - omega) |v|^2, in (0, 1]"
)
kept = symbol("kept", "k", "coordinates that are sent")
dimension = symbol("dimension", "d", "coordinates of a vector")
levels = symbol("levels", "s", "levels of a quantizer between 0 and 1")
laplacian_norm = symbol("laplacian_norm", r"\|I - W\|", "largest eigenvalue of I - W")
second_moment = symbol("second_moment", "G^2", "E|g|^2 of the stochastic gradient, at every step")

CHOCO = "Koloskova, Stich, Jaggi, ICML 2019"
LOSS = r"E\|C(v) - v\|^2 / \|v\|^2"
gap = 1 - sigma
largest_step = (
    gap
    * compression
    / (16 * gap + gap**2 + 4 * laplacian_norm**2 + 2 * gap * laplacian_norm**2 - 8 * gap * compression)
)


def _compressor(
    name: str,
    statement: str,
    expression: sympy.Expr,
    reference: str,
    direction: str,
    search: Search,
    condition: Any = sympy.true,
) -> Bound:
    return Bound(
        name=name,
        statement=statement,
        quantity=LOSS,
        expression=expression,
        reference=reference,
        evidence="derived",
        direction=direction,
        squared=True,
        of="message",
        condition=condition,
        search=search,
    )


_COMPRESSORS = (
    # Each coordinate is dropped with chance 1 - k/d.
    _compressor(
        "random_subset",
        "Sending k random coordinates as they are.",
        1 - kept / dimension,
        f"{CHOCO}; derived here",
        "equal",
        Search(compressors.COORDINATE_DIMENSION, partial(compressors.random_subset, scaled=False)),
    ),
    # Variance of a Bernoulli variable of chance k/d, times (d/k)^2.
    _compressor(
        "random_subset_unbiased",
        "Sending k random coordinates, scaled by d / k to be unbiased.",
        dimension / kept - 1,
        "Stich, Cordonnier, Jaggi, NeurIPS 2018; derived here",
        "equal",
        Search(compressors.COORDINATE_DIMENSION, partial(compressors.random_subset, scaled=True)),
    ),
    # Each coordinate is in k of the d blocks, and coordinates count one by one.
    _compressor(
        "random_block",
        "Sending k consecutive coordinates, from a random place on and round the end: no other than k random ones.",
        1 - kept / dimension,
        "Vogels, Karimireddy, Jaggi, NeurIPS 2019; derived here",
        "equal",
        Search(compressors.COORDINATE_DIMENSION, partial(compressors.random_block, scaled=False)),
    ),
    _compressor(
        "random_block_unbiased",
        "Sending k consecutive coordinates, scaled by d / k to be unbiased.",
        dimension / kept - 1,
        "Vogels, Karimireddy, Jaggi, NeurIPS 2019; derived here",
        "equal",
        Search(compressors.COORDINATE_DIMENSION, partial(compressors.random_block, scaled=True)),
    ),
    # The k largest squares are at least k/d of the sum.
    _compressor(
        "top_k",
        "Sending the k largest coordinates loses no more than random ones do on average.",
        1 - kept / dimension,
        "Stich, Cordonnier, Jaggi, NeurIPS 2018; derived here",
        "upper",
        Search(compressors.BLOCK_DIMENSION, compressors.top),
    ),
    # |v|^2 - |v|_1^2 / d, and |v|_1 >= |v|.
    _compressor(
        "scaled_sign",
        "Sending signs and the mean absolute value; exactly 1 - |v|_1^2 / (d |v|^2).",
        1 - 1 / dimension,
        "Karimireddy et al., ICML 2019; derived here",
        "upper",
        Search(compressors.BLOCK_DIMENSION, compressors.scaled_sign),
    ),
    # p (1 - p) / s^2 a coordinate, with p the distance of s |v_i| / |v| from the level below: at most 1/4, and at most
    # s |v_i| / |v|, whose sum is at most s sqrt(d).
    _compressor(
        "qsgd",
        "Stochastic rounding to s levels is unbiased and has this variance; d / (4 s^2) for d / s^2 would do.",
        sympy.Min(dimension / levels**2, sympy.sqrt(dimension) / levels),
        "Alistarh et al., NeurIPS 2017, Lemma 3.1; derived here",
        "upper",
        Search(compressors.BLOCK_DIMENSION, compressors.qsgd),
    ),
    # With x_i = s |v_i| / |v|, y = x^2 and c = s / sqrt(d) <= 1/2: f (1 - f), f = x mod 1, is below the tangent of the
    # concave sqrt(y) - y at y = c^2 for y <= 1, and beyond because of 1/4 <= (1 - c)^2 / (2 c), the tangent at 1. As
    # sum y_i = s^2 = d c^2, the tangents add up to d (c - c^2) = s sqrt(d) - s^2.
    _compressor(
        "qsgd_few_levels",
        "The same where levels are few, with equality where all entries are equal.",
        sympy.sqrt(dimension) / levels - 1,
        "derived here, for the compressor of Alistarh et al., NeurIPS 2017",
        "upper",
        Search(compressors.BLOCK_DIMENSION, compressors.qsgd),
        sympy.Ge(dimension, 4 * levels**2),
    ),
    # The entries below the largest one lose most within the lowest level: N f (1 - f) / (s^2 + N f^2) with N = d - 1,
    # at its maximum over f.
    _compressor(
        "qsgd_max_norm",
        "Stochastic rounding to s levels below the largest entry, with equality where all other entries are one and "
        "the same part of the lowest level.",
        (sympy.sqrt(1 + (dimension - 1) / levels**2) - 1) / 2,
        "derived here, for the compressor of Alistarh et al., NeurIPS 2017",
        "upper",
        Search(compressors.BLOCK_DIMENSION, partial(compressors.qsgd, largest=True)),
    ),
)

_METHODS = (
    Bound(
        name="choco_gossip",
        statement="CHOCO-Gossip shrinks |x - xbar|^2 + |x - x^|^2, in expectation, at every step.",
        quantity="E V_{t+1} / V_t",
        expression=1 - learning_rate * gap / 2,
        reference=f"{CHOCO}, proof of Theorem 2; derived here",
        evidence="derived",
        rate=True,
        squared=True,
        of="lyapunov",
        condition=sympy.Le(learning_rate, largest_step),
        assumptions=("W symmetric", "a compressor of quality omega, independent of the past"),
        search=Search(compressors.GOSSIP_DIMENSION, compressors.choco),
    ),
    Bound(
        name="choco_gossip_largest_step",
        statement="The same at the largest step size that is admitted, with delta = 1 - sigma and b = ||I - W||: "
        "delta omega / (16 delta + delta^2 + 4 b^2 + 2 delta b^2 - 8 delta omega).",
        quantity="E V_{t+1} / V_t",
        expression=1 - gap**2 * compression / 82,
        reference=f"{CHOCO}, Theorem 2; derived here, with delta in the step size where delta^2 is recalled",
        evidence="derived",
        rate=True,
        squared=True,
        of="lyapunov",
        assumptions=("W symmetric", "a compressor of quality omega, independent of the past"),
        search=Search(compressors.GOSSIP_DIMENSION, partial(compressors.choco, largest=True)),
    ),
    Bound(
        name="ef_sgd",
        statement="Average squared gradient of SGD with error feedback. It is also quoted with half the middle term, "
        "which this derivation does not give.",
        quantity=r"\frac{1}{T}\sum_t E\|\nabla f(x^t)\|^2",
        expression=2 * initial_gap / (learning_rate * steps)
        + learning_rate * smoothness * second_moment
        + 4 * learning_rate**2 * smoothness**2 * second_moment * (1 - compression) / compression**2,
        reference="Karimireddy et al., ICML 2019, Theorem II; derived here",
        evidence="derived",
        squared=True,
        of="gradient",
        assumptions=("f L-smooth", "unbiased gradients with bounded second moment", "a compressor of quality omega"),
        search=Search(compressors.FEEDBACK_DIMENSION, compressors.error_feedback),
    ),
    Bound(
        name="choco_sgd",
        statement="CHOCO-SGD on strongly convex functions: compression and graph are in the second term only.",
        quantity=r"E f(\bar x_T) - f^\star",
        expression=1 / (nodes * steps) + 1 / (steps * gap**2 * compression) ** 2,
        reference=f"{CHOCO}, abstract",
        evidence="checked",
        kind="order",
        of="function value",
        assumptions=("every f_i strongly convex and smooth, bounded gradients",),
    ),
)

BOUNDS = (*_COMPRESSORS, *_METHODS)
