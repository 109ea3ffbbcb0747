r"""Quasi-global momentum, QG-DSGDm-N, in its published form (Lin, Karimireddy, Stich, Jaggi, ICML 2021, algorithm 1).

The momentum buffer is fed by how far the node really moved, gossip included, so that it points along the network's
direction rather than the node's own. Nesterov's look-ahead acts on a copy of the buffer:

    d = g + \beta (g + \beta m) = (1 + \beta) g + \beta^2 m,    x^+ = W (x - \eta d),
    m <- \beta m + (1 - \beta) (x - x^+) / \eta.

The simulator of the RelaySGD paper's code divides by 1 + \beta instead; that is another method, not this one.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_mixing, check_number
from adozoo._optax import increment, transformation, zero_count
from adozoo.mixing import Mixing
from adozoo.parts import named
from adozoo.zoo import Entry, register

SMALLEST_STEP = 1e-8
"""The buffer's division by the learning rate is guarded by this, as in the authors' code."""


class QuasiGlobalState(NamedTuple):
    """m, the quasi-global momentum buffer, stacked like params."""

    count: Int[Array, ""]
    momentum: PyTree


def quasi_global_momentum(
    learning_rate: Any, mix: Mixing, momentum: Any = 0.9
) -> optax.GradientTransformationExtraArgs:
    r"""D-SGD with quasi-global momentum: a buffer built from the params' true displacement, not from local gradients.

    Update: d = (1 + \beta) g + \beta^2 m;  x^+ = W (x - \eta d);  m <- \beta m + (1 - \beta) (x - x^+) / \eta.

    Sent: one vector over each link and step; the buffer is not communicated.

    Assumptions: W doubly stochastic, perhaps time-varying. Not exact under heterogeneity with constant \eta.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mix: the mixing, over n nodes.
      momentum: \beta in [0, 1).

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time for a number out of range or a mixing that is not doubly stochastic.

    Example:
      >>> tx = adozoo.quasi_global_momentum(0.1, adozoo.exact_mean(2), momentum=0.5)
      >>> x = jnp.array([[0.0], [2.0]])
      >>> updates, state = tx.update(jnp.ones_like(x), tx.init(x), x)
      >>> (x + updates).ravel()
      Array([0.85, 0.85], dtype=float64)
    """
    check_mixing("quasi_global_momentum", mix)
    check_number("quasi_global_momentum", "learning_rate", learning_rate)
    check_number("quasi_global_momentum", "momentum", momentum, 0, 1, closed=True)

    def init(params: PyTree) -> QuasiGlobalState:
        return QuasiGlobalState(zero_count(), _tree.zeros_like(params))

    def update(grads: PyTree, state: QuasiGlobalState, params: PyTree) -> tuple[PyTree, QuasiGlobalState]:
        step_size = jnp.asarray(_tree.schedule_value(learning_rate, state.count))
        direction = _tree.axpy(momentum * momentum, state.momentum, _tree.scale(1 + momentum, grads))
        updates = _tree.sub(mix(_tree.axpy(-step_size, direction, params), state.count), params)
        moved = (momentum - 1) / jnp.maximum(step_size, SMALLEST_STEP)  # updates = x^+ - x, hence the sign
        buffer = _tree.axpy(moved, updates, _tree.scale(momentum, state.momentum))
        return updates, QuasiGlobalState(increment(state.count), buffer)

    return named("quasi_global_momentum", transformation(init, update))


register(
    Entry(
        "quasi_global_momentum",
        quasi_global_momentum,
        "gossip",
        "Quasi-global momentum (QG-DSGDm-N)",
        "Lin, Karimireddy, Stich, Jaggi, ICML 2021",
        frozenset({"symmetric", "doubly", "varying"}),
        {"momentum": 0.5},
        exact=False,
    )
)
