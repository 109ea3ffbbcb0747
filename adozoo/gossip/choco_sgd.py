r"""CHOCO-SGD: gossip with any compressor, by replicas that all neighbours share (Koloskova, Stich, Jaggi, ICML 2019).

Node i keeps \hat x_i, what its neighbours know of it, and s_i = \sum_j W_ij \hat x_j, what it knows of them, both 0 at
first. After the local step z_i = x_i + u_i,

    q_i = C(z_i - \hat x_i),    \hat x_i <- \hat x_i + q_i,    s_i <- s_i + \sum_j W_ij q_j,
    x_i <- z_i + \gamma (s_i - \hat x_i).

The compressed message is the difference to what is known already, so that it vanishes in the end, and any contraction
will do; \gamma must be small where the compressor is coarse. The mean over nodes moves by the mean of u alone.

The authors of PowerGossip gossip the params of before the local step instead, and add u after it: `overlap=True`.
"""

from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_fixed, check_number, require_params
from adozoo._message import Sized
from adozoo._optax import increment, transformation, zero_count
from adozoo.compression import Compressor, over_nodes, top_k
from adozoo.mixing import Mixing
from adozoo.parts import local_sgd_step, named
from adozoo.schedules import check_key
from adozoo.zoo import Entry, register


class ChocoState(NamedTuple):
    """The node's replica with its neighbours, the weighted sum of theirs, and the compressor's state, one a node."""

    count: Int[Array, ""]
    replica: PyTree
    neighbors: PyTree
    compressor: PyTree


def choco_sgd(
    learning_rate: Any,
    mix: Mixing,
    compressor: Compressor,
    consensus_step: Any,
    momentum: Any = 0.0,
    nesterov: bool = False,
    overlap: bool = False,
    key: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""D-SGD with compressed messages, by shared replicas.

    Update: z_i = x_i - \eta d_i;  q_i = C(z_i - \hat x_i);  \hat x_i <- \hat x_i + q_i;  x_i <- z_i + \gamma (\sum_j
    W_ij \hat x_j - \hat x_i), with d_i = g_i or a momentum direction as in `adozoo.dsgd`.

    Sent: one compressed vector over each link and step.

    Assumptions: W fixed, symmetric, doubly stochastic; E|C(v) - v|^2 <= (1 - \omega) |v|^2. Not exact under
    heterogeneity with constant \eta.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, over n nodes.
      compressor: how messages are compressed, see `adozoo.compression`.
      consensus_step: \gamma > 0. `theory.bounds.entry("choco_gossip")` has one with a proof; larger ones work better.
      momentum: \beta in [0, 1), on each node.
      nesterov: whether to use Nesterov's form.
      overlap: whether the params of before the local step are gossiped, and it is added afterwards.
      key: a typed JAX key for random compressors; by default `jax.random.key(0)`.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time for a number out of range, an untyped key, or a mixing that varies or is not symmetric.

    Example:
      >>> x = jax.random.normal(jax.random.key(1), (8, 10))
      >>> ring = adozoo.mixing(adozoo.graphs.ring(8))
      >>> tx = adozoo.choco_sgd(
      ...     0.1, ring, adozoo.compression.top_k(0.2), consensus_step=0.2
      ... )
      >>> params, _, _ = adozoo.simulate(tx, lambda x, step, key: 0 * x, x, steps=600)
      >>> bool(jnp.allclose(params, x.mean(0, keepdims=True), atol=1e-3))
      True
    """
    talk = choco_average(mix, compressor, consensus_step, overlap, key)
    return named("choco_sgd", optax.chain(*local_sgd_step("choco_sgd", learning_rate, momentum, nesterov), talk))


def choco_average(
    mix: Mixing, compressor: Compressor, consensus_step: Any, overlap: bool = False, key: Any = None
) -> optax.GradientTransformationExtraArgs:
    """CHOCO-Gossip as a part: talks where `adozoo.adapt_then_combine` would, or `combine_then_adapt` with `overlap`.

    The arguments are those of `choco_sgd`.

    Example:
      >>> everything = adozoo.compression.identity()
      >>> tx = adozoo.choco_average(adozoo.exact_mean(2), everything, consensus_step=1.0)
      >>> x = jnp.array([[0.0], [2.0]])
      >>> (x + tx.update(0 * x, tx.init(x), x)[0]).ravel()
      Array([1., 1.], dtype=float64)
    """
    check_fixed("choco_sgd", mix)
    check_number("choco_sgd", "consensus_step", consensus_step)
    key = jax.random.key(0) if key is None else key
    check_key("choco_sgd", key)
    stacked = over_nodes(compressor)

    def init(params: PyTree) -> ChocoState:
        zeros = _tree.zeros_like(params)
        return ChocoState(zero_count(), zeros, zeros, stacked.init(params, key, mix.own_nodes))

    def update(
        updates: PyTree, state: ChocoState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, ChocoState]:
        del extra
        require_params("choco_sgd", params)
        moved = params if overlap else _tree.add(params, updates)
        sent, inner = stacked.apply(_tree.sub(moved, state.replica), state.compressor)
        replica = _tree.add(state.replica, sent)
        neighbors = _tree.add(state.neighbors, mix(Sized(sent, stacked.bits(params)), state.count).value)
        pull = _tree.scale(consensus_step, _tree.sub(neighbors, replica))
        return _tree.add(updates, pull), ChocoState(increment(state.count), replica, neighbors, inner)

    return transformation(init, update)


_KEPT = top_k(0.5)

register(
    Entry(
        "choco_sgd",
        choco_sgd,
        "gossip",
        "CHOCO-SGD",
        "Koloskova, Stich, Jaggi, ICML 2019",
        frozenset({"symmetric"}),
        {"compressor": _KEPT, "consensus_step": 0.4},
        search={"consensus_step": (0.05, 0.1, 0.2, 0.4, 0.8)},
        linear=False,
        leafwise=True,
        exact=False,
        bits=lambda params, n: _KEPT.bits(params),
        unbounded=frozenset({"consensus_step"}),
    )
)
