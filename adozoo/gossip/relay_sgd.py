r"""RelaySGD: decentralised SGD that relays models over a tree (Vogels et al., NeurIPS 2021).

Where gossip averages again and again, a relay delivers every model to every node, once, after as many steps as the way
is long: x_i^{t+1} = (1/n) \sum_j (x_j + u_j)^{t - \tau_ij}. See `adozoo.relay` for the messages and for what stands in
for models that have not arrived. Its fixed points are exact whatever the nodes' objectives: there the local updates sum
to zero. Because models arrive late, each update moves the average by 1 / (1 + \bar\tau) of what it would with exact
averaging, \bar\tau being the mean delay: the learning rate must be scaled up (`theory.learning_rate_correction`).

RelaySGD/Grad relays updates instead of models. It keeps no consensus: nodes stay apart by O(learning rate * delay).

The authors' training code fills RelaySum/Mix with x^0 where its recursion asks for \kappa x^0; here it is the latter.

References: Vogels, He, Koloskova, Lin, Karimireddy, Stich, Jaggi, RelaySum for decentralized deep learning on
heterogeneous data, NeurIPS 2021, algorithm 1.
"""

from typing import Any

import optax

from adozoo.parts import named, stepping
from adozoo.relay import relay_average, relay_updates
from adozoo.zoo import Entry, register


def relay_sgd(
    inner: optax.GradientTransformation, tree: Any, normalization: str = "initial", overlap: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""RelaySGD: every node takes a local step, and averages are taken by relaying models over a tree.

    Update: z_i = x_i + u_i, with u_i what `inner` does with g_i;  x_i <- (1/n) \sum_j z_j^{t - \tau_ij}, where
    \tau_ij = max(d_ij - 1, 0), or d_ij with `overlap`, and d_ij are hop distances.

    Sent: one vector over each directed edge and step, and one integer where messages may be incomplete.

    Assumptions: the graph is a tree, and all nodes start at the same params. Exact under heterogeneity.

    Args:
      inner: what a node does alone, over stacked params: `adozoo.descent(0.1)`, `optax.sgd(0.1, momentum=0.9)`,
        `adozoo.per_node(optax.adam(1e-3))` (Relay-Adam).
      tree: a networkx tree, an exchange or a mixing over one, or several trees, as `adozoo.graphs.double_binary_trees`:
        coordinate c of the flattened model goes over tree c modulo their number.
      normalization: what stands in for models that have not arrived: "initial", "counts", "own" or "previous".
      overlap: whether messages travel while the next gradient is computed: one more step of delay.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time if the graph is no tree, or for an unknown normalization.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((4, 1, 1)), jnp.arange(4.0)[:, None]
      ... )
      >>> tx = adozoo.relay_sgd(adozoo.descent(0.5), adozoo.graphs.path(4))
      >>> params, _, _ = adozoo.simulate(tx, problem.gradient, problem.init(), steps=200)
      >>> params.ravel().round(6)
      Array([1.5, 1.5, 1.5, 1.5], dtype=float64)
    """
    relay = relay_average(tree, normalization, overlap)
    return named("relay_sgd", optax.chain(optax.with_extra_args_support(inner), relay))


def relay_sgd_grad(
    inner: optax.GradientTransformation, tree: Any, overlap: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""RelaySGD/Grad: updates instead of models are relayed over a tree.

    Update: x_i <- x_i + (1/n) \sum_j u_j^{t - \tau_ij}, with u_i what `inner` does with g_i.

    Sent: one vector over each directed edge and step.

    Assumptions: the graph is a tree, and all nodes start at the same params. Not exact: nodes stay apart by O(learning
    rate * delay * heterogeneity), and what a lost message carried is lost for ever.

    Args:
      inner: what a node does alone, as in `relay_sgd`.
      tree: a tree or several, as in `relay_sgd`.
      overlap: whether messages travel while the next gradient is computed.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time if the graph is no tree.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((4, 1, 1)), jnp.arange(4.0)[:, None]
      ... )
      >>> tx = adozoo.relay_sgd_grad(adozoo.descent(0.1), adozoo.graphs.path(4))
      >>> params, _, _ = adozoo.simulate(tx, problem.gradient, problem.init(), steps=400)
      >>> params.ravel().round(3)  # right on average, and apart
      Array([1.4, 1.5, 1.5, 1.6], dtype=float64)
    """
    return named("relay_sgd_grad", optax.chain(optax.with_extra_args_support(inner), relay_updates(tree, overlap)))


def relay_mix(
    inner: optax.GradientTransformation, tree: Any, share: Any, overlap: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""RelaySum/Mix, between RelaySGD (share 1) and RelaySGD/Grad (towards 0): a share of the model is relayed.

    Update: z_i = \kappa x_i + u_i;  x_i <- (1 - \kappa) x_i + (1/n) \sum_j z_j^{t - \tau_ij}, from z = \kappa x^0.

    Sent: one vector over each directed edge and step.

    Assumptions: the graph is a tree, and all nodes start at the same params.

    Args:
      inner: what a node does alone, as in `relay_sgd`.
      tree: a tree or several, as in `relay_sgd`.
      share: \kappa in (0, 1], a number or traced scalar.
      overlap: whether messages travel while the next gradient is computed.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time if the graph is no tree, or for a share outside (0, 1].

    Example:
      >>> tx = adozoo.relay_mix(adozoo.descent(0.1), adozoo.graphs.path(2), share=0.5)
      >>> x = jnp.array([[1.0], [1.0]])
      >>> updates, state = tx.update(jnp.array([[2.0], [0.0]]), tx.init(x), x)
      >>> (x + updates).ravel()
      Array([0.9, 0.9], dtype=float64)
    """
    relay = relay_average(tree, "initial", overlap, share)
    return named("relay_mix", optax.chain(optax.with_extra_args_support(inner), relay))


for _name, _title, _factory, _options, _exact in (
    ("relay_sgd", "RelaySGD", relay_sgd, {}, True),
    ("relay_sgd_overlap", "RelaySGD, overlapping", relay_sgd, {"overlap": True}, True),
    ("relay_sgd_grad", "RelaySGD/Grad", relay_sgd_grad, {}, False),
    ("relay_mix", "RelaySum/Mix", relay_mix, {"share": 0.5}, True),
):
    register(
        Entry(
            _name,
            stepping(_factory, "tree"),
            "gossip",
            _title,
            "Vogels et al., NeurIPS 2021",
            frozenset({"tree"}),
            _options,
            exact=_exact,
            preserves_mean=_name == "relay_sgd_grad",
            equal_start=True,
            fixed_graph=True,
            overlaps="overlap" in _options,
        )
    )
