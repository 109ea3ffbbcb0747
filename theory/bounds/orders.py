"""Orders of magnitude: how many steps, or how small an error, up to constants that the theorems do not give.

Their values compare one instance with another under the same theorem. They are never set beside a measurement.
"""

from typing import Any

import sympy

from theory.bounds._bound import Bound
from theory.bounds.accelerated import gossip_condition
from theory.bounds.symbols import (
    accuracy,
    gradient_variance,
    heterogeneity,
    initial_distance,
    initial_gap,
    nodes,
    smoothness,
    steps,
    strong_convexity,
    symbol,
)

consensus_rate = symbol("consensus_rate", "p", "E||X W - mean||^2 <= (1 - p) ||X - mean||^2 over local_steps steps")
local_steps = symbol("local_steps", r"\tau", "steps from one round of communication to the next")
variance_growth = symbol(
    "variance_growth", "M", "gradient variance is at most sigma_g^2 + M ||grad f||^2", nonnegative=True
)
dissimilarity_growth = symbol(
    "dissimilarity_growth", "P", "heterogeneity is at most zeta^2 + P ||grad f||^2", nonnegative=True
)
delay = symbol("delay", r"\Delta", "time of one round of communication over that of one gradient", nonnegative=True)
participants = symbol("participants", "S", "clients that take part in a round")
client_dissimilarity = symbol(
    "client_dissimilarity", "G", "(1/n) sum_i ||grad f_i(x)||^2 <= G^2 + 2 L B^2 (f(x) - f*)", nonnegative=True
)
client_growth = symbol("client_growth", "B", "(1/n) sum_i ||grad f_i(x)||^2 <= G^2 + 2 L B^2 (f(x) - f*)")

mu, L, n, p, tau, eps = strong_convexity, smoothness, nodes, consensus_rate, local_steps, accuracy
_sqrt, _log = sympy.sqrt, sympy.log
_kappa, _deviation, _zeta = L / mu, sympy.sqrt(gradient_variance), sympy.sqrt(heterogeneity)
_NOISE = _zeta * tau + _deviation * _sqrt(p * tau)

_KOLOSKOVA = "Koloskova, Loizou, Boreiri, Jaggi, Stich, ICML 2020, Theorem 2"
_SCAMAN = "Scaman, Bach, Bubeck, Lee, Massoulie, ICML 2017"
_KARIMIREDDY = "Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, ICML 2020"
_GOSSIP = (
    "mixings drawn from any distribution that satisfies the definition of p",
    "f_i L-smooth",
    "unbiased gradients",
)
_LOCAL = ("local_dsgd", "dsgd_atc")


def _order(
    name: str,
    statement: str,
    quantity: str,
    expression: Any,
    reference: str,
    methods: tuple[str, ...] = (),
    *,
    of: str,
    assumptions: tuple[str, ...],
    direction: str = "upper",
) -> Bound:
    return Bound(
        name=name,
        statement=statement,
        quantity=quantity,
        expression=expression,
        reference=reference,
        evidence="recalled",
        kind="order",
        direction=direction,
        of=of,
        assumptions=assumptions,
        methods=methods,
    )


BOUNDS = (
    _order(
        "unified_nonconvex",
        "Steps of decentralised (local) SGD until (1/T) sum E||grad f||^2 <= epsilon.",
        r"T",
        L
        * initial_gap
        * (
            gradient_variance / (n * eps**2)
            + (_zeta * tau * _sqrt(variance_growth + 1) + _deviation * _sqrt(p * tau))
            / (p * eps ** sympy.Rational(3, 2))
            + tau * _sqrt((dissimilarity_growth + 1) * (variance_growth + 1)) / (p * eps)
        ),
        _KOLOSKOVA,
        _LOCAL,
        assumptions=_GOSSIP,
        of="gradient",
    ),
    _order(
        "unified_convex",
        "Steps of decentralised (local) SGD until the average gap E f - f* is at most epsilon.",
        r"T",
        initial_distance**2
        * (
            gradient_variance / (n * eps**2)
            + _sqrt(L) * _NOISE / (p * eps ** sympy.Rational(3, 2))
            + L * tau / (p * eps)
        ),
        _KOLOSKOVA,
        _LOCAL,
        assumptions=(*_GOSSIP, "f_i convex"),
        of="gap",
    ),
    _order(
        "unified_strongly_convex",
        "Steps of decentralised (local) SGD until the weighted average gap is at most epsilon, up to logarithms.",
        r"T",
        gradient_variance / (mu * n * eps)
        + _sqrt(L) * _NOISE / (mu * p * _sqrt(eps))
        + L * tau / (mu * p) * _log(1 / eps),
        _KOLOSKOVA,
        _LOCAL,
        assumptions=(*_GOSSIP, "f_i strongly convex"),
        of="gap",
    ),
    _order(
        "extra_ergodic",
        "EXTRA's squared first-order optimality residuals, on average over steps, for convex objectives.",
        r"\frac1T\sum_{t<T}\|x^{t+1} - x^t\|^2",
        1 / steps,
        "Shi, Ling, Wu, Yin, SIAM J. Optim. 2015, Theorem 3.5 (step size below (1 + lambda_n) / L)",
        ("extra",),
        of="nodes",
        assumptions=("f_i convex and L-smooth, W symmetric",),
    ),
    _order(
        "d2_stochastic",
        "D2's average squared gradient: heterogeneity does not enter the leading term.",
        r"\frac1T\sum_{t<T}E\|\nabla f(\bar x^t)\|^2",
        _deviation / _sqrt(n * steps),
        "Tang, Lian, Yan, Zhang, Liu, ICML 2018, Corollary 1 (leading term)",
        ("d2",),
        of="gradient",
        assumptions=("lambda_n > -1/3", "f_i L-smooth"),
    ),
    _order(
        "sgp_nonconvex",
        "Stochastic gradient push with step size sqrt(n / T): a linear speed-up in the number of nodes.",
        r"\frac1T\sum_{t<T}E\|\nabla f(\bar x^t)\|^2",
        1 / _sqrt(n * steps),
        "Assran, Loizou, Ballas, Rabbat, ICML 2019, Theorem 1",
        ("sgp",),
        of="gradient",
        assumptions=("column stochastic, connected over bounded windows", "f_i L-smooth", "T large"),
    ),
    _order(
        "local_sgd",
        "Local SGD while rounds are at most O(sqrt(T / n)) steps apart: as if it communicated in every step.",
        r"E f(\hat x^T) - f^*",
        gradient_variance / (mu * n * steps),
        "Stich, ICLR 2019, Theorem 2.2 and Corollary 2.3",
        ("local_dsgd",),
        of="gap",
        assumptions=("exact averaging", "strongly convex", "bounded gradients", "tau = O(sqrt(T / n))"),
    ),
    _order(
        "fedavg",
        "Rounds of FedAvg with tau local steps: a drift of the clients that more local steps do not remove.",
        r"R",
        gradient_variance / (mu * participants * tau * eps)
        + _sqrt(L) * client_dissimilarity / (mu * _sqrt(eps))
        + client_growth**2 * L / mu * _log(1 / eps),
        f"{_KARIMIREDDY}, Theorem I",
        of="gap",
        assumptions=("strongly convex", "all clients, or a uniformly drawn share"),
    ),
    _order(
        "scaffold",
        "Rounds of SCAFFOLD with tau local steps: no term for how much the clients differ.",
        r"R",
        gradient_variance / (mu * participants * tau * eps) + (L / mu + n / participants) * _log(1 / eps),
        f"{_KARIMIREDDY}, Theorem III",
        of="gap",
        assumptions=("strongly convex", "a uniformly drawn share of the clients"),
    ),
    _order(
        "ssda_time",
        "Time of SSDA in units of one gradient.",
        r"t",
        _sqrt(_kappa * gossip_condition) * (1 + delay) * _log(1 / eps),
        f"{_SCAMAN}, Theorem 3",
        assumptions=("a fixed graph", "gradients of the conjugates"),
        of="nodes",
    ),
    _order(
        "msda_time",
        "Time of MSDA in units of one gradient: optimal over fixed graphs.",
        r"t",
        _sqrt(_kappa) * (1 + delay * _sqrt(gossip_condition)) * _log(1 / eps),
        f"{_SCAMAN}, Theorem 4",
        assumptions=("a fixed graph", "gradients of the conjugates"),
        of="nodes",
    ),
    _order(
        "fixed_graph_lower_bound",
        "No method that gossips over a fixed graph is faster than this.",
        r"t",
        _sqrt(_kappa) * (1 + delay * _sqrt(gossip_condition)) * _log(1 / eps),
        f"{_SCAMAN}, Theorem 2",
        direction="lower",
        assumptions=("some graph and some functions of these conditions",),
        of="nodes",
    ),
)
