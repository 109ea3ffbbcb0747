r"""Local D-SGD: gossip in every k-th step only, local steps in between.

With exact averaging in place of gossip this is local SGD (FedAvg with all clients). It is D-SGD over a schedule that is
the identity except at steps t = k - 1 modulo k, so no new arithmetic is needed.

References: Stich 2019 (local SGD); Koloskova et al., A unified theory of decentralized SGD, 2020; the schedule is the
one of Vogels et al. 2022 (W_t = I except t = H - 1 modulo H).
"""

from typing import Any

import optax

from adozoo._checks import check_mixing
from adozoo.gossip.dsgd import dsgd
from adozoo.mixing import Mixing
from adozoo.parts import named
from adozoo.schedules import gossip_every
from adozoo.zoo import Entry, register


def local_dsgd(
    learning_rate: Any, mix: Mixing, period: int = 2, momentum: Any = 0.0, nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""D-SGD that gossips in every `period`-th step, and takes local steps in between.

    Update: x_i <- \sum_j W_ij (x_j - \eta d_j) in steps t = k - 1 modulo k, x_i <- x_i - \eta d_i in all others.

    Sent: one vector over each link in every `period`-th step, nothing in the others.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, over n nodes, read at the steps that communicate; `adozoo.exact_mean(n)` gives local SGD.
      period: k, the number of steps of which the last one communicates.
      momentum: \beta in [0, 1), local to each node.
      nesterov: whether to use Nesterov's form.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: for a period that is not a positive integer, or a mixing that is not doubly stochastic.

    Example:
      >>> tx = adozoo.local_dsgd(0.1, adozoo.exact_mean(2), period=2)
      >>> x = jnp.array([[0.0], [2.0]])
      >>> params, _, _ = adozoo.simulate(tx, lambda x, step, key: 0 * x, x, steps=1)
      >>> params.ravel()
      Array([0., 2.], dtype=float64)
    """
    check_mixing("local_dsgd", mix)
    return named("local_dsgd", dsgd(learning_rate, gossip_every(mix, period), "atc", momentum, nesterov))


register(
    Entry(
        "local_dsgd",
        local_dsgd,
        "gossip",
        "D-SGD, gossip every k steps",
        "Koloskova et al., ICML 2020; Stich, ICLR 2019",
        frozenset({"symmetric", "doubly"}),
        {"period": 2},
        exact=False,
        vectors=0.5,
    )
)
