r"""A2CiD2: asynchronous SGD over random pairs, with accelerated communication (Nabli et al., NeurIPS 2023).

Each node has two vectors, x and x~, that are drawn to each other while nothing happens. N_i counts node i's gradients,
M_ij the exchanges over a link:

    dx_i  = \eta (x~_i - x_i) dt + u_i dN_i - \alpha  \sum_j (x_i - x_j) dM_ij,
    dx~_i = \eta (x_i - x~_i) dt + u_i dN_i - \alpha~ \sum_j (x_i - x_j) dM_ij,

with u_i what the inner optimiser makes of node i's gradient at x_i, \eta = 1 / (2 \sqrt{\chi_1 \chi_2}), \alpha = 1/2,
\alpha~ = \sqrt{\chi_1 / \chi_2} / 2. The flow over a time t is known: with e = e^{-2 \eta t}, x becomes
((1 + e) x + (1 - e) x~) / 2, and x~ likewise. \eta = 0 and \alpha~ = \alpha is the baseline, plain pairwise averaging.

The authors' code differs: each side of a pair moves its own copy on and subtracts from it what the other one sent
before it did so, which is not antisymmetric, so that the mean drifts (`variant="authors"`). In the paper's algorithm
gradients and differences are read before the flow (`variant="unflowed"`). Their first step only fills the momentum
buffer, and a complete graph is refused; neither is so here.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_choice, check_events, check_number
from adozoo._optax import increment, transformation, zero_count
from adozoo.asynchronous._parameters import AcidParameters, acid_parameters
from adozoo.nodes import per_node
from adozoo.parts import named, stepping
from adozoo.zoo import Entry, register

VARIANTS = ("sde", "unflowed", "authors")


class AcidState(NamedTuple):
    """x~, stacked like params, and the inner optimiser's state, which is each node's own. Neither is communicated."""

    count: Int[Array, ""]
    tilde: PyTree
    inner: PyTree


def acid(
    inner: optax.GradientTransformation,
    events: Any,
    accelerated: bool = True,
    parameters: AcidParameters | None = None,
    variant: str = "sde",
) -> optax.GradientTransformationExtraArgs:
    r"""A2CiD2: asynchronous SGD whose pairwise averaging is accelerated by a second, local copy of the params.

    Update: x and x~ get the same local step at a gradient; an exchange moves x_i by -\alpha (x_i - x_j) and x~_i by
    -\alpha~ (x_i - x_j); in between they relax towards each other at rate \eta.

    Sent: x, one vector each way in an exchange; x~ never.

    Assumptions: Poisson clocks over a graph that is connected on average. All nodes start at x~ = x; the mean of x
    moves by local steps alone, seen at marks. Not exact under heterogeneity with a constant step size. What it gains
    over the baseline shows with momentum or heterogeneous data; white noise alone is hardly damped any more.

    Args:
      inner: what one node does alone: any optax transformation of one node's params. It runs for each node by itself,
        and stands still where a node takes no gradient: no `adozoo.per_node` around it.
      events: whose gradients count and who meets, see `adozoo.events`; it carries chi_1 and chi_2.
      accelerated: False for the baseline, \eta = 0 and \alpha~ = \alpha = 1/2, with which x~ = x.
      parameters: `AcidParameters`(eta, alpha, alpha_tilde) instead of those; may be traced.
      variant: "sde", or what is read before the flow: "unflowed" or "authors" (see above), for comparison.

    Returns:
      The transformation over stacked pytrees. Step k belongs to round k of the events; params are x, each node at the
      time of its next gradient (all at one time at marks).

    Raises:
      ValueError: at build time for events without chi_1 and chi_2 (unless `parameters` are given), or an unknown
        variant; at trace time for a wrong node axis.

    Example:
      >>> events = adozoo.events.recorded([(0, 0.5, 0, -1), (1, 1.0, 0, 1)], n=2)
      >>> tx = adozoo.acid(optax.sgd(0.5), events, accelerated=False)
      >>> x = jnp.array([[0.0], [2.0]])
      >>> adozoo.simulate_events(tx, lambda x, *_: jnp.ones_like(x), x, events)[0].ravel()
      Array([0.75, 0.75], dtype=float64)

    References:
      Nabli, Belilovsky, Oyallon, "A2CiD2: accelerating asynchronous communication in decentralized deep learning",
      NeurIPS 2023, equations 4 and 5.
    """
    check_events("acid", events)
    check_choice("acid", "variant", variant, VARIANTS)
    if parameters is None and accelerated:
        check_events("acid", events, constants=True)
        parameters = acid_parameters(events.chi_1, events.chi_2)
    eta, alpha, alpha_tilde = parameters or acid_parameters(1.0, 1.0, accelerated=False)
    check_number("acid", "eta", eta, closed=True)
    late = variant != "sde"  # whether gradients are taken before the flow
    local = per_node(inner)

    def flow(pair: tuple[PyTree, PyTree], time: Any) -> tuple[PyTree, PyTree]:
        kept = jnp.exp(-2 * eta * time)
        near, far = (1 + kept) / 2, (1 - kept) / 2
        x, tilde = pair

        def mixed(a: Array, b: Array) -> Array:
            return _tree.rows(near, a) * a + _tree.rows(far, a) * b

        return jax.tree.map(mixed, x, tilde), jax.tree.map(mixed, tilde, x)

    def encounter(pair: Any, waited: Any, others: Any, own: Any, other: Any) -> tuple[PyTree, PyTree]:
        before, (x, tilde) = pair[0], flow(pair, waited)
        mine = before if variant == "unflowed" else x
        gap = _tree.sub(mine, others(x if variant == "sde" else before))
        return _tree.axpy(-alpha, gap, x), _tree.axpy(-alpha_tilde, gap, tilde)

    def init(params: PyTree) -> AcidState:
        events.check(params)
        return AcidState(zero_count(), params, _tree.placed_like(local.init(params), params))

    def update(grads: PyTree, state: AcidState, params: PyTree) -> tuple[PyTree, AcidState]:
        takes = events.row(events.takes, state.count)
        steps, inner_state = local.update(grads, state.inner, params)
        inner_state = _tree.where(takes, inner_state, state.inner)
        pair = params, state.tilde
        if late:
            pair = flow(pair, jnp.where(takes, events.row(events.wait, state.count), 0))
        pair = tuple(_tree.where(takes, _tree.add(x, steps), x) for x in pair)
        pair = events.meet(state.count, pair, encounter)
        wait = events.row(events.wait, state.count + 1)
        if late:
            wait = jnp.where(events.row(events.takes, state.count + 1), 0, wait)
        x, tilde = flow(pair, wait)
        return _tree.sub(x, params), AcidState(increment(state.count), tilde, inner_state)

    return named("acid", transformation(init, update))


def accelerated_gossip(events: Any, accelerated: bool = True) -> optax.GradientTransformationExtraArgs:
    r"""Accelerated randomised gossip: A2CiD2 without gradients, averaging the params' start values.

    Update: that of `adozoo.acid` with u = 0. E|x_t - \bar x|^2 <= 2 e^{-t / (2 \sqrt{\chi_1 \chi_2})} |x_0 - \bar x|^2;
    plain randomised gossip (`accelerated=False`): e^{-t / (2 \chi_1)}.

    Sent: x, one vector each way in an exchange.

    Args:
      events: exchanges, e.g. `adozoo.events.poisson(graph, horizon, gradient_rates=0)`.
      accelerated: False for plain randomised gossip, x_i, x_j <- (x_i + x_j) / 2.

    Returns:
      The transformation over stacked pytrees; gradients are not looked at.

    Raises:
      ValueError: at build time for events without chi_1 and chi_2.

    Example:
      >>> events = adozoo.events.poisson(
      ...     adozoo.graphs.complete(4), 40.0, gradient_rates=0
      ... )
      >>> tx = adozoo.accelerated_gossip(events)
      >>> x = jnp.arange(4.0)[:, None]
      >>> adozoo.simulate_events(tx, lambda x, *_: x, x, events)[0].ravel().round(6)
      Array([1.5, 1.5, 1.5, 1.5], dtype=float64)

    References:
      Even et al., NeurIPS 2021, section 5; the rates: Nabli, Belilovsky, Oyallon, NeurIPS 2023.
    """
    return acid(optax.set_to_zero(), events, accelerated)


for _name, _title, _accelerated in (
    ("acid", "A2CiD2", True),
    ("asynchronous_sgd", "Asynchronous SGD with pairwise averaging, the baseline of A2CiD2", False),
):
    register(
        Entry(
            _name,
            stepping(acid, "events"),
            "asynchronous",
            _title,
            "Nabli, Belilovsky, Oyallon, NeurIPS 2023",
            frozenset({"events"}),
            {"accelerated": _accelerated},
            exact=False,
            preserves_mean=False,
            fixed_graph=True,
        )
    )
