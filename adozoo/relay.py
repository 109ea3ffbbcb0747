r"""RelaySum over trees: exact sums of everybody's values, each as old as its way is long (Vogels et al., NeurIPS 2021).

In step t node i has a value z_i. Along each edge of a tree it relays everything but what came from the receiver,

    m_{i -> j}^t = z_i^t + \sum_{k != j} m_{k -> i}^{t-1},  s_i^t = z_i^t + \sum_j m_{j -> i}^t = \sum_j z_j^{t-\tau_ij}

with \tau_ij = max(d_ij - 1, 0) for hop distances d_ij; with `overlap` s_i uses m^{t-1}, and \tau_ij = d_ij, so that
messages travel while the next gradient is computed. Counts c travel along, by the same recursion with z = 1: \bar n_i =
1 + \sum_j c_{j -> i} models are in the sum. What is missing (before the first messages arrive, or because messages got
lost) is filled in by one of

=============  ===================================================  ====================================================
normalization  average                                              note
=============  ===================================================  ====================================================
"initial"      (s_i + (n - \bar n_i) x^0) / n                       the linear recursion that the theory analyses
"counts"       s_i / \bar n_i                                       Algorithm 1 of the paper
"own"          (s_i + (n - \bar n_i) z_i) / n                       the authors' minimal example
"previous"     (s_i + (n - \bar n_i) x_i^t) / n                     for unreliable networks (the paper's Table 5)
=============  ===================================================  ====================================================

With "initial" the messages start as if all nodes had sent x^0 for ever: that is the same recursion, and needs no counts
as long as no message gets lost. A lost message takes all that it relays with it, and is not relayed further.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import networkx as nx
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_choice, check_number, require_params
from adozoo._optax import increment, transformation, zero_count
from adozoo.exchange import Exchange, OnLinks, exchange

NORMALIZATIONS = ("initial", "counts", "own", "previous")


class Relayed(NamedTuple):
    """One tree's messages, as last received: m_{j -> i} on row (i, j), and how many models each one sums."""

    messages: OnLinks
    counts: OnLinks | tuple[()]  # empty where every message is known to be complete
    initial: PyTree  # x^0, where lost messages are replaced by it; else empty


class RelayState(NamedTuple):
    """The relayed messages of each tree."""

    count: Int[Array, ""]
    trees: tuple[Relayed, ...]


def relay_average(
    tree: Any, normalization: str = "initial", overlap: bool = False, share: Any = None
) -> optax.GradientTransformationExtraArgs:
    r"""Talk over a tree after the local step: x_i <- the average of all z_j = x_j + u_j, each as old as its way is.

    With a `share` \kappa (RelaySum/Mix) only that part of the model is relayed: z = \kappa x + u, x <- (1 - \kappa) x +
    average(z), where \kappa x^0 fills in.

    Sent: one vector over each directed edge and step, and one integer where messages may be incomplete.

    Args:
      tree: a tree as a networkx graph, an exchange or a mixing over one (whose faults and placement are kept), or
        several such trees: coordinate c of the flattened model is relayed on tree c modulo their number.
      normalization: "initial", "counts", "own" or "previous", see above.
      overlap: whether messages travel while the next gradient is computed: one more step of delay.
      share: \kappa in (0, 1], a number or traced scalar; needs normalization "initial".

    Returns:
      A transformation of updates; `update` needs `params`. All nodes must start at the same params.

    Raises:
      ValueError: at build time if the graph is no tree, for an unknown normalization, or a share outside (0, 1].

    Example:
      >>> tx = adozoo.relay_average(adozoo.graphs.path(2))
      >>> x, u = jnp.array([[1.0], [1.0]]), jnp.array([[1.0], [-3.0]])
      >>> updates, state = tx.update(u, tx.init(x), x)
      >>> (x + updates).ravel()  # two nodes: exact averaging
      Array([0., 0.], dtype=float64)
    """
    exchanges = _trees("relay_average", tree)
    check_choice("relay_average", "normalization", normalization, NORMALIZATIONS)
    if share is not None:
        check_number("relay_average", "share", share, 0, 1 + 1e-12)
        if normalization != "initial":
            raise ValueError(
                f"relay_average: share needs normalization 'initial', got {normalization!r}. Leave one of them out."
            )

    def begin(links: Exchange, params: PyTree) -> Relayed:
        if normalization != "initial":
            return _empty(links, params, counted=True)
        sizes = links.here(links.far_sizes())
        start = params if share is None else _tree.scale(share, params)
        full = jax.tree.map(lambda x: _tree.rows(sizes, x) * x, links.per_link(start))
        if not links.faulty:
            return Relayed(OnLinks(full), (), ())
        return Relayed(OnLinks(full), OnLinks(jnp.asarray(sizes, jnp.int32)), start)

    def init(params: PyTree) -> RelayState:
        return RelayState(zero_count(), tuple(map(begin, exchanges, split(params, len(exchanges)))))

    def average(links: Exchange, now: Relayed, z: PyTree, x: PyTree, step: Any) -> tuple[PyTree, Relayed]:
        total, present, after = relay(links, now, z, step, overlap)
        if present is None:
            return _tree.scale(1 / links.n, total), after
        if normalization == "counts":
            return jax.tree.map(lambda s: s / _tree.rows(present, s), total), after
        fill = {"initial": now.initial, "own": z, "previous": x}[normalization]
        missing = links.n - present
        return jax.tree.map(lambda s, f: (s + _tree.rows(missing, s) * f) / links.n, total, fill), after

    def update(updates: PyTree, state: RelayState, params: PyTree | None = None, **extra: Any) -> Any:
        del extra
        require_params("relay_average", params)
        kept = None if share is None else 1 - jnp.asarray(share)
        moved = _tree.add(params if share is None else _tree.scale(share, params), updates)
        parts = zip(exchanges, state.trees, split(moved, len(exchanges)), split(params, len(exchanges)), strict=True)
        averages, after = zip(*(average(*part, state.count) for part in parts), strict=True)
        mixed = join(averages, params)
        new = mixed if kept is None else _tree.axpy(kept, params, mixed)
        return _tree.sub(new, params), RelayState(increment(state.count), after)

    return transformation(init, update)


def relay_updates(tree: Any, overlap: bool = False) -> optax.GradientTransformationExtraArgs:
    r"""Replace each node's update by the average of all updates, each as old as its way is long (RelaySum/Grad).

    Update: u_i <- (1/n) \sum_j u_j^{t - \tau_ij}. What has not arrived counts as zero, and what gets lost is lost.

    Sent: one vector over each directed edge and step.

    Args:
      tree: as in `relay_average`.
      overlap: whether messages travel while the next gradient is computed.

    Returns:
      A transformation of updates.

    Raises:
      ValueError: at build time if the graph is no tree.

    Example:
      >>> tx = adozoo.relay_updates(adozoo.graphs.path(3))
      >>> u = jnp.array([[3.0], [0.0], [0.0]])
      >>> first, state = tx.update(u, tx.init(u), u)
      >>> first.ravel(), tx.update(0 * u, state, u)[0].ravel()
      (Array([1., 1., 0.], dtype=float64), Array([0., 0., 1.], dtype=float64))
    """
    exchanges = _trees("relay_updates", tree)

    def init(params: PyTree) -> RelayState:
        parts = zip(exchanges, split(params, len(exchanges)), strict=True)
        return RelayState(zero_count(), tuple(_empty(links, part, counted=False) for links, part in parts))

    def update(updates: PyTree, state: RelayState, params: PyTree | None = None, **extra: Any) -> Any:
        del params, extra
        averages, after = [], []
        for links, now, part in zip(exchanges, state.trees, split(updates, len(exchanges)), strict=True):
            total, _, messages = relay(links, now, part, state.count, overlap)
            averages.append(_tree.scale(1 / links.n, total))
            after.append(messages)
        return join(averages, updates), RelayState(increment(state.count), tuple(after))

    return transformation(init, update)


def relay(
    links: Exchange, now: Relayed, values: PyTree, step: Any, overlap: bool = False
) -> tuple[PyTree, Array | None, Relayed]:
    """One step of RelaySum: (sums [n, ...], how many values each one holds or None for all n, what was received)."""
    counted = isinstance(now.counts, OnLinks)
    old = (now.messages.value, now.counts.value) if isinstance(now.counts, OnLinks) else (now.messages.value,)
    own = (values, jnp.ones_like(jax.tree.leaves(values)[0], jnp.int32, (links.local_rows,))) if counted else (values,)
    ahead = _tree.add(own, links.collect(old))
    sent = _tree.sub(links.per_link(ahead), old)  # all but what came from the receiver
    received = links.swap(sent, step)
    total = ahead if overlap else _tree.add(own, links.collect(received))
    after = Relayed(OnLinks(received[0]), OnLinks(received[1]) if counted else (), now.initial)
    return total[0], total[1] if counted else None, after


def split(tree: PyTree, parts: int) -> list[PyTree]:
    """The coordinates of the flattened model, dealt out in turn: part k holds k, k + parts, ... as one leaf [n, _]."""
    if parts == 1:
        return [tree]
    leaves = jax.tree.leaves(tree)
    flat = jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)
    return [flat[:, part::parts] for part in range(parts)]


def join(parts: Sequence[PyTree], like: PyTree) -> PyTree:
    """Undo `split`, in the shapes and dtypes of `like`."""
    if len(parts) == 1:
        return parts[0]
    n, longest = parts[0].shape  # the others may be shorter by one
    padded = [jnp.pad(part, ((0, 0), (0, longest - part.shape[1]))) for part in parts]
    flat = jnp.stack(padded, axis=-1).reshape(n, -1)
    leaves, structure = jax.tree.flatten(like)
    ends = [0]
    for leaf in leaves:
        ends.append(ends[-1] + leaf.size // leaf.shape[0])
    rows = [
        flat[:, a:b].reshape(leaf.shape).astype(leaf.dtype) for leaf, a, b in zip(leaves, ends, ends[1:], strict=False)
    ]
    return jax.tree.unflatten(structure, rows)


def _trees(name: str, tree: Any) -> list[Exchange]:
    """The exchanges of one tree, or of several."""
    single = isinstance(tree, nx.Graph) or hasattr(tree, "exchange") or hasattr(tree, "shape")
    found = [exchange(one) for one in ([tree] if single else tree)]
    for links in found:
        if not links.is_tree:
            raise ValueError(
                f"{name}: tree must be a tree (connected, with n - 1 edges), got a graph of {links.n} nodes with "
                f"{links.links() // 2} edges. Pass adozoo.graphs.spanning_tree(graph), or a method for any graph "
                "(adozoo.dsgd)."
            )
        if links.n != found[0].n:
            raise ValueError(f"{name}: all trees need the same nodes, got {found[0].n} and {links.n} nodes.")
    return found


def _empty(links: Exchange, params: PyTree, counted: bool) -> Relayed:
    """No message has arrived."""
    messages = _tree.zeros_like(links.per_link(params))
    counts = jnp.zeros_like(jax.tree.leaves(messages)[0], jnp.int32, (links.rows,))
    return Relayed(OnLinks(messages), OnLinks(counts) if counted else (), ())
