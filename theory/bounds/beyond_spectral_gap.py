r"""Combine-then-adapt D-SGD with the topology in its Lyapunov function: theorems 6 and 9 of Vogels et al.

Setting: x_i <- sum_j w_ij x_j - eta g_i(x_i) with W symmetric positive definite, independent unbiased gradients whose
samples are convex with E[zeta_xi D_{f_xi}(x, y)] <= zeta D_f(x, y), every f_i mu-strongly convex and L-smooth. Norms
are over the stacked vector, F(x) = sum_i f_i(x_i), M = (1 - gamma) W^2 (I - gamma W^2)^{-1}, 1 / n_W = max_i M_ii,
beta is the largest with I - M <= (I - W) W / beta, and x* is the fixed point eta grad F(x*) + (I - W) x* = 0.

Theorem 6, derived. Let e = x - x*, d = grad F(x) - grad F(x*), D = D_F(x*, x), N = (1 - omega) M + omega I, so that V
= ||e||^2_N, and nu = (1 - omega) / n_W + omega >= N_ii.

1. E V(x+) = ||W e - eta d||^2_N + eta^2 E||g - grad F(x)||^2_N, and the noise of independent nodes, cocoercive sample
   by sample, is at most eta^2 nu (4 zeta D + 2 s^2) with s^2 its variance at x*.
2. ||W e - eta d||^2_N = ||W e||^2_N - 2 eta <d, W N e> + eta^2 ||d||^2_N, whose last term is at most 2 L eta^2 D. The
   three-point identity at u = x* + W N e gives <d, W N e> = D_F(u, x*) + D - D_F(u, x) >= mu / 2 ||W N e||^2 + D - L
   / 2 ||(I - W N) e||^2.
3. For 4 eta (nu zeta + L) <= 1 the terms in D sum to at most -eta D <= -eta mu / 2 ||e||^2.
4. What remains is a statement on each eigenvalue l of W, with m and N those of M and N: that eta L (1 - l N)^2 + eta
   mu (N - l^2 N^2 - 1/2) <= N (1 - l^2). Now 1 - l N = (1 - omega) (1 - m) + N (1 - l), and beta (1 - m) <= l (1 -
   l), beta <= 1/2, eta L <= beta omega, omega <= N give eta L (1 - l N)^2 <= N (1 - l) (2 l + 1 - l). That suffices
   unless N > 1/2; then put L for mu: the left side is eta L (1/2 + N - 2 l N) <= 2 eta L N (1 - l) with eta L <= 1/4.

Theorem 9, derived from it. Let y be the fixed point and x* minimise F over consensual points. As grad F(y) = -(I - W)
y / eta sums to zero over nodes, D_F(x*, y) - D_F(ybar, y) = F(x*) - F(ybar) <= 0. Hence mu / 2 ||x* - y||^2 <=
D_F(x*, y) <= D_F(ybar, y) <= L / 2 ||ybar - y||^2, where ||ybar - y|| = eta ||(I - W)^+ grad F(y)||: the distance of
the fixed point, with kappa where the paper has 1 + kappa. The noise at y is at most three times (the noise at x* + 2
(zeta + L) D_F(x*, y)), which the second form puts into theorem 6 unrolled.

References:
    Vogels, Hendrikx, Jaggi, "Beyond spectral gap (extended): the role of the topology in decentralized learning", 2023.
"""

from functools import partial

import sympy

from theory.bounds import _combine_then_adapt as dsgd
from theory.bounds import _neighbors as neighbors
from theory.bounds._bound import Bound, Search
from theory.bounds.symbols import (
    heterogeneity,
    lambda_2,
    lambda_n,
    learning_rate,
    nodes,
    sigma,
    smoothness,
    steps,
    strong_convexity,
    symbol,
)

decay = symbol(
    "decay", r"\gamma", "variance kept per step in the multi-step averaging of W, in [0, 1)", nonnegative=True
)
zeta = symbol("zeta", r"\bar\zeta", "E[zeta_xi D_{f_xi}(x, y)] <= zeta D_f(x, y) for zeta_xi-smooth samples f_xi")
effective_neighbors = symbol(
    "effective_neighbors", "n_W", "effective number of neighbours of W at the decay, worst node"
)
omega = symbol("omega", r"\omega", "weight of the disagreement in the Lyapunov function, in [0, 1]", nonnegative=True)
beta = symbol("beta", r"\beta", "largest beta with I - M <= (I - W) W / beta at the decay")
lyapunov = symbol("lyapunov", r"\mathcal{L}_t", "(1 - omega) ||x - x*||^2_M + omega ||x - x*||^2 before the step")
lyapunov_start = symbol("lyapunov_start", r"\mathcal{L}_0", "the same at the start")
fixed_point_noise = symbol(
    "fixed_point_noise", r"s_\eta^2", "gradient variance, summed over nodes, at the fixed point of the step size"
)
optimum_noise = symbol("optimum_noise", "s_*^2", "gradient variance, summed over nodes, at the optimum")
fixed_point_spread = symbol("fixed_point_spread", r"D_\eta^2", "||(I - W)^+ grad F(x)||^2 at the fixed point x")
optimum_heterogeneity = symbol("optimum_heterogeneity", r"\Delta_W^2", "||grad F(x*)||^2 in the norm of (I - W)^+")
mixing_rate = symbol(
    "mixing_rate", "p", "smallest ||grad F(x)||^2_{(I - W)^+} / ||(I - W)^+ grad F(x)||^2 over fixed points x"
)
spectral_dimension = symbol("spectral_dimension", "d_s", "sigma((lambda, 1)) <= (1 - lambda)^{d_s / 2} / c_s on [0, 1]")
spectral_constant = symbol("spectral_constant", "c_s", "the constant of the spectral dimension")

PAPER = "Vogels, Hendrikx, Jaggi, Beyond spectral gap (extended), 2023"
CONVEX = (
    "every f_i mu-strongly convex and L-smooth, samples convex, unbiased and independent over nodes and steps",
    "W symmetric positive definite: make it lazy otherwise; the paper's remark that any W will do is wrong",
)
condition_number = smoothness / strong_convexity
admissible = sympy.And(
    sympy.Le(learning_rate, beta * omega / smoothness),
    sympy.Le(learning_rate, 1 / (4 * ((1 / effective_neighbors + omega) * zeta + smoothness))),
)
noise = 2 * ((1 - omega) / effective_neighbors + omega) * fixed_point_noise
forgotten = 2 * (1 - learning_rate * strong_convexity) ** steps * lyapunov_start

_THEOREMS = (
    Bound(
        name="beyond_spectral_gap_theorem_6",
        statement="One step shrinks a Lyapunov function that knows the topology, up to noise averaged over neighbours.",
        quantity=r"E\mathcal{L}_{t+1} - \mathcal{L}_t",
        expression=learning_rate**2 * noise - learning_rate * strong_convexity * lyapunov,
        reference=f"{PAPER}, Theorem 6",
        evidence="derived",
        squared=True,
        of="lyapunov",
        condition=admissible,
        assumptions=CONVEX,
        methods=("dsgd_cta",),
        search=Search(dsgd.THEOREM_6_DIMENSION, dsgd.drift, slack=1e-8),
    ),
    Bound(
        name="beyond_spectral_gap_rate",
        statement="What theorem 6 leaves without noise; any decay and omega that admit the step size will do.",
        quantity=r"\rho^2",
        expression=1 - learning_rate * strong_convexity,
        reference=f"{PAPER}, Theorem 6",
        evidence="derived",
        rate=True,
        squared=True,
        of="lyapunov",
        condition=admissible,
        assumptions=CONVEX,
        methods=("dsgd_cta",),
        search=Search(dsgd.THEOREM_6_DIMENSION, dsgd.squared_rate),
    ),
    Bound(
        name="beyond_spectral_gap_theorem_9",
        statement="After T steps the error, averaged over neighbours, is forgotten start + noise + bias of the fixed "
        "point. The left side is printed without its square.",
        quantity=r"E\|x^T - x^\star\|_M^2",
        expression=forgotten
        + 2 * learning_rate * noise / strong_convexity
        + 2 * learning_rate**2 * (1 + condition_number) * fixed_point_spread,
        reference=f"{PAPER}, Theorem 9 (eq. 37)",
        evidence="derived",
        squared=True,
        of="nodes",
        condition=admissible,
        assumptions=CONVEX,
        methods=("dsgd_cta",),
        search=Search(dsgd.THEOREM_9_DIMENSION, dsgd.whole_run),
    ),
    Bound(
        name="beyond_spectral_gap_theorem_9_optimum",
        statement="Theorem 9 with noise and heterogeneity taken at the optimum. The variance constant is 12: the "
        "printed 6 lacks the factor 2 of sigma_M^2, and is no consequence of the proof.",
        quantity=r"E\|x^T - x^\star\|_M^2",
        expression=forgotten
        + 12 * learning_rate * (1 / effective_neighbors + omega) * optimum_noise / strong_convexity
        + 6 * learning_rate**2 * condition_number * optimum_heterogeneity / mixing_rate,
        reference=f"{PAPER}, Theorem 9, second form",
        evidence="derived",
        squared=True,
        of="nodes",
        condition=admissible,
        assumptions=CONVEX,
        methods=("dsgd_cta",),
        search=Search(dsgd.THEOREM_9_DIMENSION, dsgd.whole_run),
    ),
    Bound(
        name="fixed_point_distance",
        statement="How far the fixed point of D-SGD is from the optimum. The paper has 1 + kappa for kappa.",
        quantity=r"\|x^\star_\eta - x^\star\|^2",
        expression=learning_rate**2 * condition_number * fixed_point_spread,
        reference=f"{PAPER}, proof of Theorem 9; constant sharpened here",
        evidence="derived",
        squared=True,
        of="nodes",
        assumptions=("every f_i mu-strongly convex and L-smooth", "W symmetric and connected"),
        methods=("dsgd_cta",),
        search=Search(dsgd.FIXED_POINT_DIMENSION, dsgd.fixed_point_distance),
    ),
    # grad F(x_eta) minimises F*(g) + eta / 2 ||g||^2_{(I - W)^+} over g that sum to zero: more weight, less norm.
    Bound(
        name="dual_heterogeneity",
        statement="The heterogeneity at the fixed point never grows with the step size; at the optimum it is largest.",
        quantity=r"\|\nabla F(x^\star_\eta)\|^2_{(I - W)^\dagger}",
        expression=optimum_heterogeneity,
        reference=f"{PAPER}, proof of Theorem 9",
        evidence="derived",
        squared=True,
        of="gradient",
        assumptions=("every f_i strongly convex and smooth", "W symmetric and connected"),
        methods=("dsgd_cta",),
        search=Search(dsgd.FIXED_POINT_DIMENSION, dsgd.dual_heterogeneity),
    ),
)

_STEP_SIZES = (
    # With omega = 1 / n_W the other branch, beta / (n_W L), is the larger one exactly under the condition.
    Bound(
        name="beyond_spectral_gap_corollary_7",
        statement="The largest step size of theorem 6 where noise limits it, omega = 1 / n_W. The condition is printed "
        "with its inequality reversed; equality gives the best decay.",
        quantity=r"\eta_{\max}",
        expression=1 / (8 * zeta / effective_neighbors + 4 * smoothness),
        reference=f"{PAPER}, Corollary 7 (eq. 31)",
        evidence="derived",
        direction="equal",
        of="step size",
        condition=sympy.Ge(4 * beta * (2 * zeta / effective_neighbors + smoothness) / effective_neighbors, smoothness),
        assumptions=CONVEX,
        methods=("dsgd_cta",),
        search=Search(neighbors.GAP_DIMENSION + 1, neighbors.largest_step),
    ),
    # beta = min over lambda != 1 of lambda (1 - gamma lambda^2) / (1 + lambda). From 1/2 on lambda / (1 + lambda) is at
    # least 1/3, and 1 - gamma lambda^2 >= 1 - gamma lambda_2.
    Bound(
        name="beta_lower_bound",
        statement="A beta that is admissible in theorem 6 where no eigenvalue of W is below 1/2; 3 for 4 would do.",
        quantity=r"\beta",
        expression=(1 - decay * lambda_2) / 4,
        reference=f"{PAPER}, eq. (34)",
        evidence="derived",
        direction="lower",
        of="matrix",
        condition=sympy.Ge(lambda_n, sympy.Rational(1, 2)),
        assumptions=("W symmetric; one lazy step gives the condition only for a positive semidefinite W",),
        search=Search(neighbors.GAP_DIMENSION, neighbors.admissible_beta),
    ),
    Bound(
        name="beyond_spectral_gap_corollary_8",
        statement="The best step size on a graph of spectral dimension above 2, n_W / (8 zeta).",
        quantity=r"\eta",
        expression=sympy.cbrt(spectral_constant * (spectral_dimension - 2) / (zeta**2 * smoothness)) / 8,
        reference=f"{PAPER}, Corollary 8",
        evidence="checked",
        kind="order",
        of="step size",
        condition=sympy.Gt(spectral_dimension, 2),
        assumptions=(*CONVEX, "eigenvalues of W at least 1/2, zeta much larger than L, 1/n neglected"),
        methods=("dsgd_cta",),
    ),
)

averaged = 1 / nodes + (nodes - 1) / nodes * (1 - decay) * sigma**2 / (1 - decay * sigma**2)
many = (1 - decay) / (decay * (spectral_dimension - 2) * spectral_constant)
two = -(1 - decay) * sympy.log(1 - decay) / (2 * decay * spectral_constant)
few = 4 * (1 - decay) ** (spectral_dimension / 2) / (spectral_dimension * (2 - spectral_dimension) * spectral_constant)


def _by_dimension(name: str, excess: sympy.Expr, where: sympy.Basic, low: float, high: float, equation: int) -> Bound:
    # 1 / n_W = 1/n + (1 - gamma) int h d sigma with h = l^2 / (1 - gamma l^2), increasing from h(0) = 0. By parts, with
    # sigma((l, 1)) <= (1 - l)^m / c and back, int h d sigma <= (m / c) int (1 - l)^{m - 1} h(l) dl, where m = d_s / 2.
    # m > 1: h <= l / (2 (1 - l)), the integral is at most 1 / (2 m (m - 1)).
    # m = 1: l^2 <= l, the integral is at most -ln(1 - gamma) / (2 gamma).
    # m < 1: h <= 1 / (1 - gamma) where 1 - l <= 1 - gamma, else h <= 1 / (2 (1 - l)); the sum is at most
    # (1 - gamma)^{m - 1} (2 - m) / (2 m (1 - m)), which is less than (1 - gamma)^{m - 1} / (m^2 (1 - m)).
    return Bound(
        name=name,
        statement="Many neighbours count on a graph of high spectral dimension, whatever its gap.",
        quantity=r"n_W(\gamma)",
        expression=1 / (1 / nodes + excess),
        reference=f"{PAPER}, eq. ({equation}); derived here, as eq. (13) lacks a factor d_s / 2",
        evidence="derived",
        direction="lower",
        of="matrix",
        condition=sympy.And(where, sympy.Gt(decay, 0)),
        assumptions=("W symmetric without negative eigenvalues",),
        search=Search(neighbors.DIMENSION_DIMENSION, partial(neighbors.spectral_dimension, low=low, high=high)),
    )


_NEIGHBORS = (
    # 1 / n_W averages (1 - gamma) l^2 / (1 - gamma l^2) over the eigenvalues, which grows with l^2 <= sigma^2.
    Bound(
        name="effective_neighbors_spectral_gap",
        statement="What the spectral gap alone says of the effective number of neighbours; an identity for "
        "W = sigma I + (1 - sigma) 11'/n.",
        quantity=r"1 / n_W(\gamma)",
        expression=averaged,
        reference=f"{PAPER}, eq. (11)",
        evidence="derived",
        of="matrix",
        assumptions=("W symmetric doubly stochastic; n_W averaged over nodes",),
        search=Search(neighbors.GAP_DIMENSION, neighbors.spectral_gap),
    ),
    _by_dimension("effective_neighbors_dimension_above_2", many, sympy.Gt(spectral_dimension, 2), 2.05, 8.0, 14),
    _by_dimension("effective_neighbors_dimension_2", two, sympy.Eq(spectral_dimension, 2), 2.0, 2.0, 15),
    _by_dimension("effective_neighbors_dimension_below_2", few, sympy.Lt(spectral_dimension, 2), 0.2, 1.95, 17),
)

connectivity = 1 - lambda_2
few_at_once = sympy.Min(sympy.cbrt(spectral_constant * spectral_dimension * zeta / smoothness), nodes)
small_step_neighbors = sympy.Min(
    sympy.sqrt(spectral_constant * (spectral_dimension - 2) * strong_convexity * steps / (8 * smoothness)), nodes
)

_ORDERS = (
    Bound(
        name="beyond_spectral_gap_corollary_10",
        statement="Error of the mean after T steps, with a large step size first and one of order 1 / (mu T) then. The "
        "printed n_small has c_s in its denominator and lacks mu; the one here is that of eq. (38).",
        quantity=r"E\|\bar x - x^\star\|^2",
        expression=optimum_noise / (strong_convexity**2 * steps * small_step_neighbors)
        + smoothness * optimum_heterogeneity / (strong_convexity**3 * mixing_rate * steps**2)
        + sympy.exp(-few_at_once * strong_convexity * steps / zeta),
        reference=f"{PAPER}, Corollary 10 (eqs. 46, 47)",
        evidence="checked",
        kind="order",
        squared=True,
        of="mean",
        condition=sympy.Gt(spectral_dimension, 2),
        assumptions=(*CONVEX, "logarithms dropped"),
        methods=("dsgd_cta",),
    ),
    Bound(
        name="beyond_spectral_gap_residual",
        statement="On large graphs of spectral dimension above 2 residual variance falls faster than the step size.",
        quantity=r"\lim_T E\|x^T - x^\star\|_M^2",
        expression=learning_rate ** sympy.Rational(3, 2)
        / strong_convexity
        * sympy.sqrt(smoothness / (spectral_constant * (spectral_dimension - 2)))
        * optimum_noise,
        reference=f"{PAPER}, eqs. (38), (39)",
        evidence="checked",
        kind="order",
        squared=True,
        of="nodes",
        condition=sympy.Gt(spectral_dimension, 2),
        assumptions=(*CONVEX, "infinitely many nodes, equal minimisers"),
        methods=("dsgd_cta",),
    ),
    Bound(
        name="beyond_spectral_gap_comparison",
        statement="What an analysis by the spectral gap gives instead of corollary 10. It is printed with 1 - lambda_2 "
        "in the denominator of the exponent, which would make poor graphs fast.",
        quantity=r"E\|\bar x - x^\star\|^2",
        expression=optimum_noise
        / (strong_convexity**2 * steps)
        * (1 / nodes + smoothness / (strong_convexity * connectivity * steps))
        + smoothness * heterogeneity / (strong_convexity**3 * connectivity**2 * steps**2)
        + sympy.exp(-strong_convexity * connectivity * steps / zeta),
        reference=f"{PAPER}, eq. (48), after Koloskova et al. 2020",
        evidence="checked",
        kind="order",
        squared=True,
        of="mean",
        assumptions=(*CONVEX, "logarithms dropped"),
        methods=("dsgd_atc", "dsgd_cta"),
    ),
)

BOUNDS = (*_THEOREMS, *_STEP_SIZES, *_NEIGHBORS, *_ORDERS)
