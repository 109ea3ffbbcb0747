r"""Signum with majority vote: one bit a coordinate each way (Bernstein et al., ICML 2018 and ICLR 2019).

    m_i <- \beta m_i + (1 - \beta) g_i,    d = sign(\sum_i sign(m_i)),    x <- x - \eta d.

A tie of the votes moves nothing. There is no error feedback, hence no convergence in general.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_mean, check_number
from adozoo._message import Sized
from adozoo._optax import increment, transformation, zero_count
from adozoo.compression import one_node
from adozoo.mixing import Mixing
from adozoo.nodes import node_count
from adozoo.parts import descent, named
from adozoo.zoo import Entry, register


class SignumState(NamedTuple):
    """m, the momentum of each node, stacked like params."""

    count: Int[Array, ""]
    momentum: PyTree


def signum(learning_rate: Any, mean: Mixing, momentum: Any = 0.9) -> optax.GradientTransformationExtraArgs:
    r"""Sign descent along the nodes' majority, with momentum on each node.

    Update: m_i <- \beta m_i + (1 - \beta) g_i;  x_i <- x_i - \eta sign(\sum_j sign(m_j)).

    Sent: one bit a coordinate, in words of 32.

    Assumptions: all nodes start at the same params. The step size must decay for convergence.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      mean: exact averaging, `adozoo.exact_mean(n)`, possibly placed on devices: it counts the votes.
      momentum: \beta in [0, 1).

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: if `mean` is not an exact average, or a number is out of its range.

    Example:
      >>> tx = adozoo.signum(0.5, adozoo.exact_mean(3), momentum=0.0)
      >>> g = jnp.array([[1.0, 2.0], [3.0, -4.0], [-5.0, -6.0]])
      >>> tx.update(g, tx.init(g), g)[0][0]
      Array([-0.5,  0.5], dtype=float64)
    """
    check_mean("signum", mean, "adozoo.choco_sgd with adozoo.compression.scaled_sign()")
    check_number("signum", "learning_rate", learning_rate)
    check_number("signum", "momentum", momentum, 0, 1, closed=True)

    def update(
        grads: PyTree, state: SignumState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, SignumState]:
        del params, extra
        node_count(grads)  # which raises where there is no node axis
        buffer = _tree.axpy(momentum, state.momentum, _tree.scale(1 - jnp.asarray(momentum), grads))
        ballots = jax.tree.map(jnp.sign, buffer)
        votes = mean(Sized(ballots, _bits(one_node(grads), mean.n)), state.count).value
        return jax.tree.map(jnp.sign, votes), SignumState(increment(state.count), buffer)

    vote = transformation(lambda params: SignumState(zero_count(), _tree.zeros_like(params)), update)
    return named("signum", optax.chain(vote, descent(learning_rate)))


def _bits(params: PyTree, n: int) -> float:
    """One bit a coordinate, in words of 32."""
    del n
    return 32.0 * math.ceil(sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) / 32)


register(
    Entry(
        "signum",
        signum,
        "averaging",
        "Signum with majority vote",
        "Bernstein et al., ICLR 2019",
        frozenset({"complete"}),
        {"momentum": 0.5},
        linear=False,
        exact=False,
        bits=_bits,
        equal_start=True,
    )
)
