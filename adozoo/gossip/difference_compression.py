r"""DCD-PSGD, difference compression D-PSGD (Tang, Gan, Zhang, Zhang, Liu, NeurIPS 2018, algorithm 1).

Every node moves by the compressed difference to where D-PSGD would take it, so that its neighbours' replicas of it are
exact, and only s_i = \sum_j W_ij x_j must be kept:

    q_i = C(s_i + u_i - x_i),    x_i <- x_i + q_i,    s_i <- s_i + \sum_j W_ij q_j.

Noise of compression goes straight into the params: C must be precise (its variance small against the spectral gap) and
unbiased for the published rate.
"""

from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_fixed, require_params
from adozoo._message import Sized
from adozoo._optax import increment, transformation, zero_count
from adozoo.compression import Compressor, over_nodes, top_k
from adozoo.mixing import Mixing
from adozoo.parts import local_sgd_step, named
from adozoo.schedules import check_key
from adozoo.zoo import Entry, register


class DifferenceState(NamedTuple):
    """s, the weighted sum of what the neighbours' replicas show, and the compressor's state, one a node."""

    count: Int[Array, ""]
    neighbors: PyTree
    compressor: PyTree


def difference_compression(
    learning_rate: Any,
    mix: Mixing,
    compressor: Compressor,
    momentum: Any = 0.0,
    nesterov: bool = False,
    key: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""D-PSGD whose nodes move by compressed differences (DCD-PSGD).

    Update: q_i = C(\sum_j W_ij x_j - \eta d_i - x_i);  x_i <- x_i + q_i, with d_i = g_i or a momentum direction.

    Sent: one compressed vector over each link and step.

    Assumptions: W fixed, symmetric, doubly stochastic; all nodes start at the same params; C of small variance. Not
    exact under heterogeneity with constant \eta.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, over n nodes.
      compressor: how differences are compressed, see `adozoo.compression`.
      momentum: \beta in [0, 1), on each node.
      nesterov: whether to use Nesterov's form.
      key: a typed JAX key for random compressors; by default `jax.random.key(0)`.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time for a number out of range, an untyped key, or a mixing that varies or is not symmetric.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((4, 1, 1)), jnp.arange(4.0)[:, None]
      ... )
      >>> ring, precise = (
      ...     adozoo.mixing(adozoo.graphs.ring(4)),
      ...     adozoo.compression.qsgd(256),
      ... )
      >>> tx = adozoo.difference_compression(0.1, ring, precise)
      >>> params, _, _ = adozoo.simulate(tx, problem.gradient, problem.init(), steps=300)
      >>> bool(jnp.abs(params.mean() - 1.5) < 0.05)
      True
    """
    check_fixed("difference_compression", mix)
    key = jax.random.key(0) if key is None else key
    check_key("difference_compression", key)
    stacked = over_nodes(compressor)

    def init(params: PyTree) -> DifferenceState:  # rows of W sum to one, and all nodes start at the same params
        return DifferenceState(zero_count(), params, stacked.init(params, key, mix.own_nodes))

    def update(
        updates: PyTree, state: DifferenceState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, DifferenceState]:
        del extra
        require_params("difference_compression", params)
        sent, inner = stacked.apply(_tree.add(_tree.sub(state.neighbors, params), updates), state.compressor)
        heard = mix(Sized(sent, stacked.bits(params)), state.count).value
        return sent, DifferenceState(increment(state.count), _tree.add(state.neighbors, heard), inner)

    local = local_sgd_step("difference_compression", learning_rate, momentum, nesterov)
    return named("difference_compression", optax.chain(*local, transformation(init, update)))


_KEPT = top_k(0.5)

register(
    Entry(
        "difference_compression",
        difference_compression,
        "gossip",
        "Difference compression (DCD-PSGD)",
        "Tang et al., NeurIPS 2018",
        frozenset({"symmetric"}),
        {"compressor": _KEPT},
        linear=False,
        leafwise=True,
        exact=False,
        preserves_mean=False,
        bits=lambda params, n: _KEPT.bits(params),
        equal_start=True,
        overlaps=True,
    )
)
