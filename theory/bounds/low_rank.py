r"""Low rank: PowerGossip with fresh directions, and what approximations of low rank lose.

PowerGossip, derived: a round is x+ = (I - \gamma L_P) x with L_P = \sum_e w_e b_e b_e' (x) P_e, b_e = e_i - e_j and
w_e = W_ij >= 0 on edge {i, j}, and P_e the projection of the difference, x_i - x_j, onto r directions. Let it be
independent of the past with E P_e = \delta I, \delta = r / b where matrices [a, b] are multiplied from the right, r / a
from the left, and let \rho = 1 - \lambda_2, \beta = 1 - \lambda_n.

- From above: P_e <= I, so that 0 <= L_P <= L (x) I <= \beta I, and |L_P x|^2 <= \beta <x, L_P x>. Its expectation is
  \beta \delta <x, L x>, and <x, L x> >= \rho |x|^2 for mean-free x.
- From below: E x_t = (I - \gamma \delta L)^t x_0, and E|x_t|^2 >= |E x_t|^2.

A warm start has no such bound for one round: directions of the round before may be orthogonal to the difference, which
then stays as it is. What it gains is seen on matrices whose differences are of low rank.

Power iteration from a normal Q, derived: in the bases of its singular vectors, which do not change the law of Q, M is
diag(\sigma) with m = min(a, b) > r entries, and after s iterations P spans T Q, T = diag(\sigma^{2s - 1}). It catches a
share p_i = E h_i / (1 + h_i) of direction i, h_i = T_i^2 q_i' (\sum_{j != i} T_j^2 q_j q_j')^{-1} q_i. For T_i >= T_k
exchanging q_i and q_k shows that p_i >= p_k. The p_i add up to r, and Chebyshev's sum inequality gives
\sum \sigma_i^2 p_i >= (r / m) \sum \sigma_i^2.

References:
    Vogels, Karimireddy, Jaggi, "Practical low-rank communication compression in decentralized deep learning",
    NeurIPS 2020.
    Vogels, Karimireddy, Jaggi, "PowerSGD: practical low-rank gradient compression for distributed optimization",
    NeurIPS 2019.
    Wang et al., "ATOMO: communication-efficient learning via atomic sparsification", NeurIPS 2018.
"""

from functools import partial

import sympy

from theory.bounds import _low_rank as low_rank
from theory.bounds._bound import Bound, Search
from theory.bounds.compression import LOSS, dimension
from theory.bounds.symbols import lambda_2, lambda_n, symbol

diffusion_rate = symbol("diffusion_rate", r"\gamma", "share of a difference to its neighbours that a node makes up for")
projection_share = symbol("projection_share", r"\delta_P", "E P = delta I of random projections, in (0, 1]")
rank = symbol("rank", "r", "directions of a low-rank approximation")
smaller_side = symbol("smaller_side", r"\min(a, b)", "the smaller side of a matrix")
columns = symbol("columns", "b", "columns of a matrix")
captured = symbol("captured", r"|P'M|^2 / |M|^2", "share of a matrix that lies in the span of P", nonnegative=True)
atoms = symbol("atoms", "s", "expected number of atoms that are sent")

POWER_GOSSIP = "Vogels, Karimireddy, Jaggi, NeurIPS 2020"
POWER_SGD = "Vogels, Karimireddy, Jaggi, NeurIPS 2019"
FRESH = (
    "W symmetric, without negative weights between nodes",
    "directions of each edge and round independent of the past, E P = delta I, as with warm_start=False",
)
_gap, _spread = 1 - lambda_2, 1 - lambda_n
_below_limit = sympy.Lt(diffusion_rate * _spread, 2)

_GOSSIP = (
    Bound(
        name="power_gossip_consensus",
        statement="A round of PowerGossip with fresh directions shrinks the disagreement in expectation. With a warm "
        "start no bound holds for one round: its directions may be orthogonal to the difference.",
        quantity=r"E \|X_{t+1} - \bar X\|_F^2 / \|X_t - \bar X\|_F^2",
        expression=1 - diffusion_rate * (2 - diffusion_rate * _spread) * projection_share * _gap,
        reference=f"derived here, for the method of {POWER_GOSSIP}",
        evidence="derived",
        rate=True,
        squared=True,
        condition=_below_limit,
        assumptions=FRESH,
        search=Search(low_rank.GOSSIP_DIMENSION, low_rank.power_gossip),
    ),
    Bound(
        name="power_gossip_best_step",
        statement="The same at the diffusion rate that is best for it, 1 / (1 - lambda_n).",
        quantity=r"E \|X_{t+1} - \bar X\|_F^2 / \|X_t - \bar X\|_F^2",
        expression=1 - projection_share * _gap / _spread,
        reference=f"derived here, for the method of {POWER_GOSSIP}",
        evidence="derived",
        rate=True,
        squared=True,
        assumptions=FRESH,
        search=Search(low_rank.GOSSIP_DIMENSION, partial(low_rank.power_gossip, best=True)),
    ),
    Bound(
        name="power_gossip_mean_square_lower",
        statement="In the long run PowerGossip with fresh directions is no faster than uncompressed gossip that moves "
        "by a share delta of its diffusion rate: what is not sent is not won.",
        quantity=r"\lim_t (E \|X_t - \bar X\|_F^2)^{1/t}",
        expression=(1 - diffusion_rate * projection_share * _gap) ** 2,
        reference=f"derived here, for the method of {POWER_GOSSIP}",
        evidence="derived",
        direction="lower",
        rate=True,
        squared=True,
        assumptions=FRESH,
        search=Search(low_rank.GOSSIP_DIMENSION, partial(low_rank.power_gossip, asymptotic=True)),
    ),
)


def _approximation(
    name: str, statement: str, expression: sympy.Expr, reference: str, direction: str, search: Search
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
        search=search,
    )


_APPROXIMATIONS = (
    # The r largest of m squares are at least r / m of their sum.
    _approximation(
        "best_low_rank",
        "The best approximation of rank r, with equality at a flat spectrum.",
        1 - rank / smaller_side,
        "Eckart and Young, Psychometrika 1936; derived here",
        "upper",
        Search(low_rank.SPECTRUM_DIMENSION, low_rank.best_rank),
    ),
    _approximation(
        "fresh_power_iteration",
        "Power iteration from a fresh normal start, however short: in expectation no worse than the bound on the best "
        "approximation, with equality at a flat spectrum. It is the quality that error feedback can count on.",
        1 - rank / smaller_side,
        f"derived here, for the compressor of {POWER_SGD}",
        "upper",
        Search(low_rank.ITERATION_DIMENSION, low_rank.fresh_power_iteration),
    ),
    # M^ = P P'M is the orthogonal projection of the mean, since (1/n) sum_i M_i'P = M'P.
    _approximation(
        "power_sgd_projection",
        "PowerSGD projects the average of the nodes' matrices, whatever Q it starts from: it never loses more than all "
        "of it, and what it loses is orthogonal to what it sends.",
        1 - captured,
        f"{POWER_SGD}, algorithm 1; derived here",
        "equal",
        Search(low_rank.PROJECTION_DIMENSION, low_rank.power_sgd_projection),
    ),
    # E(U U')^2 = (1 + (b + 1) / r) I by Isserlis' theorem, and E U U' = I.
    _approximation(
        "unbiased_low_rank",
        "The unbiased (M U) U', with entries of U [b, r] from N(0, 1/r), loses more than all for every r <= b.",
        (columns + 1) / rank,
        f"{POWER_SGD}; derived here",
        "equal",
        Search(low_rank.SKETCH_DIMENSION, low_rank.unbiased_low_rank),
    ),
    # The second moment is the smallest for these probabilities: not larger than with p_i = s / m.
    _approximation(
        "atomo",
        "ATOMO's s atoms out of d, each with the probability of smallest variance; equality where all are equal.",
        dimension / atoms - 1,
        "Wang et al., NeurIPS 2018; derived here",
        "upper",
        Search(low_rank.SPECTRUM_DIMENSION, low_rank.atomo),
    ),
)

BOUNDS = (*_GOSSIP, *_APPROXIMATIONS)
