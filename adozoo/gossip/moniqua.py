r"""Moniqua: quantised gossip that sends params modulo a bound on neighbours' distance (Lu and De Sa, ICML 2020).

While |x_i - x_j|_inf < \theta, the rest of x_j modulo B = 2 \theta / (1 - 2 \delta) tells i all of x_j that it does not
know: b bits make 2^b levels, \delta = 1 / (2^b - 1) apart. With mod(z) in [-B/2, B/2) and noise \xi in [0, 1) that all
nodes share,

    q_i = \delta \lfloor (mod(x_i) / B + 1/2) / \delta + \xi \rfloor - 1/2,
    \hat x_{j|i} = mod(B q_j - x_i) + x_i,        \hat x_i = B q_i - mod(x_i) + x_i,
    x_i <- x_i + \gamma \sum_j W_ij (\hat x_{j|i} - \hat x_i).

Beyond \theta the result is silently wrong by a multiple of B: choose \theta generously. Subtracting \hat x_i, the
node's own rounded value, makes what is shared of the rounding errors cancel.

The code of PowerGossip's experiments draws the shared noise but does not use it, and updates x_i between neighbours;
here all neighbours are heard at once. Where neighbours agree on each other modulo B the mean over nodes is preserved.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_number, require_params
from adozoo._message import Sized
from adozoo._optax import increment, transformation, zero_count
from adozoo.exchange import Exchange, exchange
from adozoo.parts import local_sgd_step, named
from adozoo.schedules import check_key
from adozoo.zoo import Entry, register


class MoniquaState(NamedTuple):
    """The key of the noise that all nodes share; empty where rounding is to the nearest level."""

    count: Int[Array, ""]
    key: Array | tuple[()]


def moniqua(
    learning_rate: Any,
    graph: Any,
    theta: Any,
    consensus_step: Any = 1.0,
    bits: int = 2,
    momentum: Any = 0.0,
    nesterov: bool = False,
    overlap: bool = False,
    key: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""D-SGD with messages quantised modulo a bound on the distance of neighbours.

    Update: z_i = x_i - \eta d_i;  x_i <- z_i + \gamma \sum_j W_ij (\hat z_{j|i} - \hat z_i), with d_i = g_i or a
    momentum direction as in `adozoo.dsgd`.

    Sent: b bits a coordinate over each link and step.

    Assumptions: an undirected graph, W symmetric; |z_i - z_j|_inf < \theta for all neighbours at all times. Not exact
    under heterogeneity with constant \eta.

    Args:
      learning_rate: \eta, a number, a traced scalar or a schedule step -> scalar.
      graph: a networkx graph (with Metropolis weights), a mixing over one, or an exchange.
      theta: \theta > 0, in the units of the params.
      consensus_step: \gamma > 0.
      bits: b >= 2.
      momentum: \beta in [0, 1), on each node.
      nesterov: whether to use Nesterov's form.
      overlap: whether the params of before the local step are gossiped, and it is added afterwards.
      key: a typed JAX key for stochastic rounding, with noise that all nodes share; by default to the nearest level.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time for a number out of range, an untyped key, or a graph without fixed undirected links.

    Example:
      >>> x = jnp.array([[0.0], [0.4], [0.9], [0.3]])
      >>> tx = adozoo.moniqua(0.1, adozoo.graphs.ring(4), theta=1.0, bits=8)
      >>> params, _, _ = adozoo.simulate(tx, lambda x, step, key: 0 * x, x, steps=30)
      >>> params.ravel().round(2)
      Array([0.4, 0.4, 0.4, 0.4], dtype=float64)
    """
    links = exchange(graph)
    for name, value in (("theta", theta), ("consensus_step", consensus_step)):
        check_number("moniqua", name, value)
    if isinstance(bits, bool) or not isinstance(bits, int) or bits < 2:
        raise ValueError(
            f"moniqua: bits must be an integer of at least 2 (1 / (2^b - 1) must be below 1/2), got {bits!r}."
        )
    if key is not None:
        check_key("moniqua", key)

    def init(params: PyTree) -> MoniquaState:
        del params
        return MoniquaState(zero_count(), () if key is None else key)

    def update(
        updates: PyTree, state: MoniquaState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, MoniquaState]:
        del extra
        require_params("moniqua", params)
        moved = params if overlap else _tree.add(params, updates)
        noise = _noise(state.key, state.count, moved)
        pull = modulo_gossip(links, moved, noise, theta, bits, state.count)
        after = MoniquaState(increment(state.count), state.key)
        return _tree.add(updates, _tree.scale(consensus_step, pull)), after

    local = local_sgd_step("moniqua", learning_rate, momentum, nesterov)
    return named("moniqua", optax.chain(*local, transformation(init, update)))


def modulo_gossip(links: Exchange, x: PyTree, noise: PyTree, theta: Any, bits: int, step: Any) -> PyTree:
    r"""\sum_j W_ij (\hat x_{j|i} - \hat x_i) for stacked x, with `noise` [...] in [0, 1) that all nodes share."""
    level = 1 / (2**bits - 1)
    width = 2 * jnp.asarray(theta) / (1 - 2 * level)
    size = float(sum(bits * math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(x)))

    def quantize(z: Array, xi: Array) -> Array:
        share = _centered(z / width.astype(z.dtype), 1.0) + 0.5
        return (jnp.floor(share / level + xi.astype(z.dtype)[None]) * level - 0.5).astype(z.dtype)

    codes = jax.tree.map(quantize, x, noise)
    arrived = links.arrived(step)
    heard = links.swap(Sized(links.per_link(codes), size), step).value
    weights = jnp.asarray(links.here(links.weights))

    def difference(theirs: Array, own: Array, z: Array) -> Array:
        b = width.astype(z.dtype)
        mine = own * b - _centered(z, b) + z
        apart = _centered(theirs * b - z, b) + z - mine
        spread = jnp.where(arrived, weights, 0).astype(z.dtype).reshape((-1,) + (1,) * (z.ndim - 1))
        return spread * apart

    return links.collect(jax.tree.map(difference, heard, links.per_link(codes), links.per_link(x)))


def _centered(z: Array, width: Any) -> Array:
    """Z modulo the width, in [-width / 2, width / 2)."""
    return z - width * jnp.floor(z / width + 0.5)


def _noise(key: Array | tuple[()], step: Any, x: PyTree) -> PyTree:
    """One number a coordinate, the same for all nodes: 1/2, or uniform in [0, 1)."""
    leaves, structure = jax.tree.flatten(x)
    if isinstance(key, tuple):
        return jax.tree.unflatten(structure, [jnp.full(leaf.shape[1:], 0.5, leaf.dtype) for leaf in leaves])
    keys = jax.random.split(jax.random.fold_in(key, step), len(leaves))
    draws = [jax.random.uniform(own, leaf.shape[1:], leaf.dtype) for own, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, draws)


register(
    Entry(
        "moniqua",
        moniqua,
        "gossip",
        "Moniqua",
        "Lu and De Sa, ICML 2020",
        frozenset({"symmetric"}),
        {"theta": 20.0, "consensus_step": 0.5, "bits": 8},
        search={"consensus_step": (0.1, 0.3, 1.0), "theta": (0.1, 0.3, 1.0, 3.0, 10.0)},
        linear=False,
        exact=False,
        bits=lambda params, n: float(sum(8 * math.prod(leaf.shape) for leaf in jax.tree.leaves(params))),
        fixed_graph=True,
        unbounded=frozenset({"theta", "consensus_step"}),
    )
)
