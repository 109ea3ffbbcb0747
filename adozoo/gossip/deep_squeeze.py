r"""DeepSqueeze: gossip with any compressor and error compensation, without replicas (Tang et al., 2019).

With the local step z_i = x_i + u_i and the error e_i, 0 at first, node i sends q_i = C(v_i), v_i = z_i + e_i:

    e_i <- v_i - q_i,    x_i <- z_i + \gamma (\sum_j W_ij q_j - q_i).

No memory of neighbours is needed, so that W may vary. Params are compressed, no differences: \gamma must be small.
The mean over nodes moves by the mean of u alone.

The authors of PowerGossip gossip the params of before the local step instead, and add u after it: `overlap=True`.
"""

from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_mixing, check_number, require_params
from adozoo._message import Sized
from adozoo._optax import increment, transformation, zero_count
from adozoo.compression import Compressor, over_nodes, top_k
from adozoo.mixing import Mixing
from adozoo.parts import local_sgd_step, named
from adozoo.schedules import check_key
from adozoo.zoo import Entry, register


class DeepSqueezeState(NamedTuple):
    """e, what compression has lost, stacked like params, and the compressor's state, one a node."""

    count: Int[Array, ""]
    error: PyTree
    compressor: PyTree


def deep_squeeze(
    learning_rate: Any,
    mix: Mixing,
    compressor: Compressor,
    consensus_step: Any,
    momentum: Any = 0.0,
    nesterov: bool = False,
    overlap: bool = False,
    key: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""D-SGD with compressed messages and error compensation.

    Update: z_i = x_i - \eta d_i;  v_i = z_i + e_i;  e_i <- v_i - C(v_i);  x_i <- z_i + \gamma (\sum_j W_ij C(v_j) -
    C(v_i)), with d_i = g_i or a momentum direction as in `adozoo.dsgd`.

    Sent: one compressed vector over each link and step.

    Assumptions: W doubly stochastic, perhaps directed or time-varying; E|C(v) - v|^2 <= (1 - \omega) |v|^2. Not exact
    under heterogeneity with constant \eta.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, over n nodes.
      compressor: how messages are compressed, see `adozoo.compression`.
      consensus_step: \gamma > 0.
      momentum: \beta in [0, 1), on each node.
      nesterov: whether to use Nesterov's form.
      overlap: whether the params of before the local step are gossiped, and it is added afterwards.
      key: a typed JAX key for random compressors; by default `jax.random.key(0)`.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time for a number out of range, an untyped key, or a mixing that is not doubly stochastic.

    Example:
      >>> x = jax.random.normal(jax.random.key(1), (8, 10))
      >>> ring = adozoo.mixing(adozoo.graphs.ring(8))
      >>> tx = adozoo.deep_squeeze(
      ...     0.1, ring, adozoo.compression.scaled_sign(), consensus_step=0.05
      ... )
      >>> params, _, _ = adozoo.simulate(tx, lambda x, step, key: 0 * x, x, steps=600)
      >>> bool(adozoo.consensus_distance(params) < 0.2 * adozoo.consensus_distance(x))
      True
    """
    check_mixing("deep_squeeze", mix)
    check_number("deep_squeeze", "consensus_step", consensus_step)
    key = jax.random.key(0) if key is None else key
    check_key("deep_squeeze", key)
    stacked = over_nodes(compressor)

    def init(params: PyTree) -> DeepSqueezeState:
        return DeepSqueezeState(zero_count(), _tree.zeros_like(params), stacked.init(params, key, mix.own_nodes))

    def update(
        updates: PyTree, state: DeepSqueezeState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, DeepSqueezeState]:
        del extra
        require_params("deep_squeeze", params)
        meant = _tree.add(params if overlap else _tree.add(params, updates), state.error)
        sent, inner = stacked.apply(meant, state.compressor)
        heard = mix(Sized(sent, stacked.bits(params)), state.count).value
        pull = _tree.scale(consensus_step, _tree.sub(heard, sent))
        return _tree.add(updates, pull), DeepSqueezeState(increment(state.count), _tree.sub(meant, sent), inner)

    local = local_sgd_step("deep_squeeze", learning_rate, momentum, nesterov)
    return named("deep_squeeze", optax.chain(*local, transformation(init, update)))


_KEPT = top_k(0.5)

register(
    Entry(
        "deep_squeeze",
        deep_squeeze,
        "gossip",
        "DeepSqueeze",
        "Tang et al., 2019",
        frozenset({"symmetric", "doubly", "varying"}),
        {"compressor": _KEPT, "consensus_step": 0.2},
        search={"consensus_step": (0.01, 0.03, 0.1, 0.3)},
        linear=False,
        leafwise=True,
        exact=False,
        bits=lambda params, n: _KEPT.bits(params),
        unbounded=frozenset({"consensus_step"}),
    )
)
