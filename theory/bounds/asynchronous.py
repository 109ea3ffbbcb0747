r"""Event-driven methods: DADAO, A2CiD2 and pairwise averaging, whose graph counts through chi_1 and chi_2.

Lambda is the Laplacian of the expected rates, chi_1 = 1 / lambda_2(Lambda), chi_2 = max over edges of half their
effective resistance. Time runs in units of a node's mean time per gradient; rates scale as 1 / chi. Bounds on decays
are lower bounds on the exponent of a squared error, -(1/t) ln E||.||^2.

The consensus lemma of A2CiD2, derived, without gradients: dx = eta (x~ - x) dt - alpha sum_e e e' x dM_e, the same
for x~ with alpha~ and eta (x - x~). Take V = |x|^2 + b |x~|^2_{Lambda^+} on vectors that sum to zero. Its generator
is

    2 eta <x, x~ - x> - (1/2) x' Lambda x
        + b (2 eta <x~, x - x~>_{Lambda^+} - 2 alpha~ <x~, x> + alpha~^2 sum_e R_e rate_e (e'x)^2)

for alpha = 1/2. With b = 1 / chi_1 and b alpha~ = eta the terms in <x, x~> cancel, R_e <= 2 chi_2 and eta <= 1 / (2
sqrt(chi_1 chi_2)) make the last term smaller than the second, and 2 <x~, x>_{Lambda^+} <= |x~|^2_{Lambda^+} + chi_1
|x|^2 leaves -eta V. As V lies between |x|^2 and 2 |x|^2 for x~ = x, E|x|^2 <= 2 e^{-eta t} |x(0)|^2.

The continuized lemma, derived: with g = grad f(x), the flow changes f(x) - f* + mu/2 |z - x*|^2 by eta <g, z - x> +
mu eta <z - x*, x - z>, jumps by at most -|g|^2 / (2 L) - eta <g, z - x*> + |g|^2 / (2 L), for eta = sqrt(mu / L). The
sum is eta <g, x* - x> + mu eta <z - x*, x - z> <= -eta (f - f* + mu/2 |z - x*|^2) by strong convexity. With eta = 2 /
t and gamma~ = t / (2 L) the same computation shows that t^2 / (4 L) (f - f*) + |z - x*|^2 / 2 does not grow.

References:
    Nabli, Oyallon, "DADAO: decoupled accelerated decentralized asynchronous optimization", ICML 2023.
    Nabli, Belilovsky, Oyallon, "A2CiD2: accelerating asynchronous communication in decentralized deep learning",
    NeurIPS 2023.
    Even et al., "A continuized view on Nesterov acceleration for stochastic gradient descent and randomized gossip",
    NeurIPS 2021.
    Lian, Zhang, Zhang, Liu, "Asynchronous decentralized parallel stochastic gradient descent", ICML 2018.
"""

from functools import partial

import sympy

from theory.bounds import _events as events
from theory.bounds._bound import Bound, Search
from theory.bounds.symbols import (
    accuracy,
    dissimilarity,
    gradient_variance,
    heterogeneity,
    initial_distance,
    initial_gap,
    learning_rate,
    nodes,
    smoothness,
    steps,
    strong_convexity,
    symbol,
)

chi_1 = symbol("chi_1", r"\chi_1", "1 / the smallest positive eigenvalue of the Laplacian of expected rates")
chi_2 = symbol("chi_2", r"\chi_2", "half the largest effective resistance of an edge, in that Laplacian")
rate_trace = symbol(
    "rate_trace", r"\mathrm{Tr}\Lambda", "trace of that Laplacian: twice the exchanges per unit of time"
)
time = symbol("time", "t", "time, in units of a node's mean time per gradient")

DADAO = "Nabli, Oyallon, ICML 2023"
ACID = "Nabli, Belilovsky, Oyallon, NeurIPS 2023"
condition_number = smoothness / strong_convexity
joint = sympy.sqrt(chi_1 * chi_2)
CLOCKS = "independent Poisson clocks on nodes (rate 1) and edges, connected at the expected rates"
ALONE = "pairwise exchanges at independent Poisson times, no gradients"
QUADRATICS = "tried on quadratics with one coordinate a node"

_GRAPHS = (
    # Two nodes are never further apart than |e_i - e_j|^2 / lambda_2.
    Bound(
        name="chi_2_below_chi_1",
        statement="The resistance constant never exceeds the inverse of the algebraic connectivity.",
        quantity=r"\chi_2",
        expression=chi_1,
        reference=f"{DADAO}; derived here",
        evidence="derived",
        of="matrix",
        assumptions=("connected graph with positive rates",),
        search=Search(events.CHI_DIMENSION, events.smaller_chi),
    ),
    # Foster: the resistances of the edges, weighted by their rates, sum to n - 1; the rates to Tr / 2.
    Bound(
        name="chi_2_foster",
        statement="Foster's theorem bounds the resistance constant by the total rate; an identity where all edges look "
        "alike.",
        quantity=r"\chi_2",
        expression=(nodes - 1) / rate_trace,
        reference="Foster, 1949; derived here",
        evidence="derived",
        direction="lower",
        of="matrix",
        assumptions=("connected graph with positive rates",),
        search=Search(events.CHI_DIMENSION, events.smaller_chi),
    ),
)

_DECAYS = (
    Bound(
        name="dadao",
        statement="DADAO with nu = mu / 2 and its own parameters forgets its start at a rate that the graph does not "
        "enter, once the edges fire often enough.",
        quantity=r"-\frac{1}{t}\ln E\|X_t - X^\star\|^2",
        expression=sympy.sqrt(strong_convexity / (2 * smoothness)) / 8,
        reference=f"{DADAO}, main theorem",
        evidence="recalled",
        direction="lower",
        squared=True,
        of="nodes",
        condition=sympy.Le(2 * chi_1 * chi_2, 1),
        assumptions=(CLOCKS, QUADRATICS),
        search=Search(events.DADAO_DIMENSION, events.dadao),
    ),
    Bound(
        name="a2cid2_lyapunov",
        statement="A2CiD2 without gradients: |x - xbar|^2 + |x~ - xbar|^2 in the norm of Lambda^+ / chi_1 decays at "
        "every moment.",
        quantity=r"-\frac{d}{dt}\ln E V_t",
        expression=1 / (2 * joint),
        reference=f"{ACID}; derived here",
        evidence="derived",
        direction="lower",
        squared=True,
        of="lyapunov",
        assumptions=(ALONE, "fixed rates; eta = 1 / (2 sqrt(chi_1 chi_2)), alpha~ = sqrt(chi_1 / chi_2) / 2"),
        search=Search(events.CHI_DIMENSION, events.lyapunov_decay),
    ),
    Bound(
        name="a2cid2_consensus",
        statement="A2CiD2 without gradients: E|x - xbar|^2 <= 2 exp(-t / (2 sqrt(chi_1 chi_2))) |x_0 - xbar|^2.",
        quantity=r"-\frac{1}{t}\ln E\|x_t - \bar x\|^2",
        expression=1 / (2 * joint),
        reference=f"{ACID}; derived here",
        evidence="derived",
        direction="lower",
        squared=True,
        of="nodes",
        assumptions=(ALONE, "fixed rates; x~ = x at the start"),
        search=Search(events.GOSSIP_DIMENSION, partial(events.a2cid2_decay, accelerated=True)),
    ),
    # A meeting of i and j takes (x_i - x_j)^2 / 2 off |x - xbar|^2: its generator is -x' Lambda x / 2.
    Bound(
        name="pairwise_averaging",
        statement="Pairwise averaging at random times, the baseline of A2CiD2: "
        "E|x - xbar|^2 <= exp(-t / (2 chi_1)) |x_0 - xbar|^2.",
        quantity=r"-\frac{1}{t}\ln E\|x_t - \bar x\|^2",
        expression=1 / (2 * chi_1),
        reference=f"{ACID}; derived here",
        evidence="derived",
        direction="lower",
        squared=True,
        of="nodes",
        assumptions=(f"{ALONE}; with rates that vary, the largest chi_1",),
        search=Search(events.GOSSIP_DIMENSION, partial(events.a2cid2_decay, accelerated=False)),
    ),
    Bound(
        name="continuized_nesterov",
        statement="Nesterov's method with gradients at random times: f(x) - f* + mu |z - x*|^2 / 2 always decays.",
        quantity=r"-\frac{d}{dt}\ln E V_t",
        expression=sympy.sqrt(strong_convexity / smoothness),
        reference="Even et al., NeurIPS 2021; derived here",
        evidence="derived",
        direction="lower",
        squared=True,
        of="lyapunov",
        assumptions=("mu-strongly convex and L-smooth, exact gradients at the times of a Poisson clock of rate 1",),
        search=Search(2, events.continuized),
    ),
    Bound(
        name="continuized_nesterov_convex",
        statement="The same without strong convexity, with parameters that change with time.",
        quantity=r"E f(x_t) - f^\star",
        expression=2 * smoothness * initial_distance**2 / time**2,
        reference="Even et al., NeurIPS 2021; derived here",
        evidence="derived",
        of="function value",
        assumptions=("convex and L-smooth, exact gradients at the times of a Poisson clock of rate 1",),
        search=Search(2, events.continuized_convex),
    ),
)


def _acid(name: str, who: str, chi: sympy.Expr) -> tuple[Bound, ...]:
    """The four orders of proposition 3.6 and table 2 for one way of communicating."""
    noisy = gradient_variance + heterogeneity * (1 + chi)
    noisy_nonconvex = gradient_variance + dissimilarity * (1 + chi)
    common = {"evidence": "recalled", "kind": "order", "squared": True}
    convex = (CLOCKS, "every f_i mu-strongly convex and L-smooth", "all nodes start from one point")
    nonconvex = (CLOCKS, "every f_i L-smooth", "all nodes start from one point")
    return (
        Bound(
            name=f"{name}_strongly_convex",
            statement=f"Error of the mean under {who}. There is no speed-up with n in the noise term.",
            quantity=r"E\|\bar x_t - x^\star\|^2",
            expression=initial_distance**2 * sympy.exp(-strong_convexity * time / (16 * smoothness * (1 + chi)))
            + noisy / (strong_convexity**2 * time),
            reference=f"{ACID}, Proposition 3.6",
            of="mean",
            condition=sympy.Le(learning_rate, 1 / (16 * smoothness * (1 + chi))),
            assumptions=(*convex, "logarithms dropped"),
            **common,
        ),
        Bound(
            name=f"{name}_nonconvex",
            statement=f"Average squared gradient at the mean under {who}.",
            quantity=r"\frac{1}{t}\int_0^t E\|\nabla f(\bar x_s)\|^2 ds",
            expression=smoothness * (1 + chi) * initial_gap / time
            + sympy.sqrt(smoothness * initial_gap * noisy_nonconvex / time),
            reference=f"{ACID}, Proposition 3.6",
            of="gradient",
            assumptions=nonconvex,
            **common,
        ),
        Bound(
            name=f"{name}_time_strongly_convex",
            statement=f"Time to an accuracy under {who}.",
            quantity="t",
            expression=(gradient_variance + chi * heterogeneity) / (strong_convexity**2 * accuracy)
            + condition_number * chi,
            reference=f"{ACID}, Table 2",
            of="mean",
            assumptions=(*convex, "logarithms dropped"),
            **common,
        ),
        Bound(
            name=f"{name}_time_nonconvex",
            statement=f"Time to an accuracy of the average squared gradient under {who}.",
            quantity="t",
            expression=smoothness * (gradient_variance + chi * dissimilarity) / accuracy**2
            + smoothness * chi / accuracy,
            reference=f"{ACID}, Table 2",
            of="gradient",
            assumptions=nonconvex,
            **common,
        ),
    )


_ORDERS = (
    Bound(
        name="dadao_gradients",
        statement="Gradients that DADAO takes, on all nodes together, to an accuracy.",
        quantity=r"\#\text{gradients}",
        expression=nodes * sympy.sqrt(condition_number) * sympy.log(1 / accuracy),
        reference=f"{DADAO}, main theorem",
        evidence="recalled",
        kind="order",
        squared=True,
        assumptions=(CLOCKS,),
    ),
    Bound(
        name="dadao_communications",
        statement="Exchanges on all edges that DADAO takes to an accuracy; the scale of Lambda cancels.",
        quantity=r"\#\text{exchanges}",
        expression=rate_trace * joint * sympy.sqrt(condition_number) * sympy.log(1 / accuracy),
        reference=f"{DADAO}, main theorem",
        evidence="recalled",
        kind="order",
        squared=True,
        assumptions=(CLOCKS,),
    ),
    *_acid("a2cid2", "A2CiD2", joint),
    *_acid("asynchronous_baseline", "asynchronous pairwise averaging of SGD", chi_1),
    Bound(
        name="ad_psgd",
        statement="Average squared gradient of AD-PSGD after T updates of one node each, T large.",
        quantity=r"\frac{1}{T}\sum_t E\|\nabla f(\bar x_t)\|^2",
        expression=smoothness * initial_gap / steps
        + (initial_gap + smoothness) * sympy.sqrt((gradient_variance + dissimilarity) / steps),
        reference="Lian et al., ICML 2018, Corollary 2",
        evidence="recalled",
        kind="order",
        squared=True,
        of="gradient",
        assumptions=(
            "bounded delays, random pairs that mix well",
            "T beyond a bound that depends on delays and mixing",
        ),
    ),
    Bound(
        name="ad_psgd_time_nonconvex",
        statement="Time of AD-PSGD to an accuracy of the average squared gradient, as quoted for comparison.",
        quantity="t",
        expression=smoothness * (gradient_variance + dissimilarity) / accuracy**2
        + nodes * smoothness * chi_1 / accuracy,
        reference=f"{ACID}, Table 2",
        evidence="recalled",
        kind="order",
        squared=True,
        of="gradient",
        assumptions=(CLOCKS, "every f_i L-smooth"),
    ),
)

BOUNDS = (*_GRAPHS, *_DECAYS, *_ORDERS)
