r"""D-SGD, decentralised (stochastic) gradient descent, in its two forms.

Adapt-then-combine (diffusion): x_i <- \sum_j W_ij (x_j - \eta m_j). Combine-then-adapt (DGD, D-PSGD):
x_i <- \sum_j W_ij x_j - \eta m_i. Momentum stays on its node, as in the authors' training code of Vogels et al. 2022
(m <- \beta m + g from m = 0, no dampening). With constant \eta and nodes that differ, both converge to a biased point.

References: Nedic and Ozdaglar 2009 (DGD); Chen and Sayed 2012 (diffusion); Lian et al. 2017 (D-PSGD); Vogels, Hendrikx,
Jaggi, Beyond spectral gap, 2022, section 3 (ATC) and equation 19 of the extended version (CTA).
"""

from typing import Any

import optax

from adozoo._checks import check_choice, check_mixing
from adozoo.mixing import Mixing
from adozoo.parts import adapt_then_combine, combine_then_adapt, local_sgd_step, named
from adozoo.zoo import Entry, register


def dsgd(
    learning_rate: Any, mix: Mixing, variant: str = "atc", momentum: Any = 0.0, nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Decentralised SGD: every node takes a local step and averages with its neighbours.

    Update: m_i <- \beta m_i + g_i, with direction d_i = m_i, or g_i + \beta m_i (Nesterov), and
    "atc": x_i <- \sum_j W_ij (x_j - \eta d_j);   "cta": x_i <- \sum_j W_ij x_j - \eta d_i.

    Sent: one vector over each link and step.

    Assumptions: W doubly stochastic; it may be directed and may vary with the step. Not exact: for constant \eta the
    fixed point is O(\eta) from the optimum where the nodes' objectives differ.

    For any other local optimiser compose the parts:
    `optax.chain(adozoo.per_node(optax.adam(1e-3)), adozoo.adapt_then_combine(mix))`.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, over n nodes.
      variant: "atc" or "cta".
      momentum: \beta in [0, 1).
      nesterov: whether to use Nesterov's form.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time for an unknown variant, a number out of range or a mixing that is not doubly stochastic.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((4, 1, 1)), jnp.arange(4.0)[:, None]
      ... )
      >>> tx = adozoo.dsgd(0.1, adozoo.mixing(adozoo.graphs.ring(4)), variant="cta")
      >>> params, _, _ = adozoo.simulate(tx, problem.gradient, problem.init(), steps=300)
      >>> params.ravel().round(3)  # the average is right, the nodes disagree
      Array([1.335, 1.404, 1.596, 1.665], dtype=float64)
    """
    check_choice("dsgd", "variant", variant, ("atc", "cta"))
    check_mixing("dsgd", mix)
    talk = adapt_then_combine if variant == "atc" else combine_then_adapt
    return named("dsgd", optax.chain(*local_sgd_step("dsgd", learning_rate, momentum, nesterov), talk(mix)))


_ADMITS = frozenset({"symmetric", "doubly", "varying"})
_LIAN = "Lian et al., NeurIPS 2017"
_SAYED = "Chen and Sayed, IEEE TSP 2012"
_NEDIC = "Nedic and Ozdaglar, IEEE TAC 2009"
for _name, _title, _paper, _options in (
    ("dsgd_atc", "D-SGD, adapt-then-combine (diffusion)", _SAYED, {"variant": "atc"}),
    ("dsgd_cta", "D-SGD, combine-then-adapt (DGD, D-PSGD)", _NEDIC, {"variant": "cta"}),
    ("dsgd_momentum", "D-SGD with local momentum", "Vogels et al., NeurIPS 2022", {"momentum": 0.5}),
    ("dsgd_nesterov", "D-SGD with local Nesterov momentum", _LIAN, {"momentum": 0.5, "nesterov": True}),
):
    _overlaps = _options.get("variant") == "cta"
    register(Entry(_name, dsgd, "gossip", _title, _paper, _ADMITS, _options, exact=False, overlaps=_overlaps))
