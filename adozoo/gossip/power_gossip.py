r"""PowerGossip: gossip that compresses neighbours' differences by power iteration (Vogels et al., NeurIPS 2020).

On each edge {i, j}, i > j, both ends keep the same P [a, r] and Q [b, r] for every matrix-shaped tensor M [a, b]. In
turns they tell each other M v or M' v for orthonormal directions v, so that both know a projection of D = M_i - M_j:

    odd rounds:   v = orth(Q),  P <- M_i v - M_j v,    Q <- v,   \hat D = P Q' = D v v'
    even rounds:  v = orth(P),  Q <- M_i'v - M_j'v,    P <- v,   \hat D = P Q' = v v' D
    M_i <- M_i - \gamma W_ij \hat D,   M_j <- M_j + \gamma W_ij \hat D,   on all edges at once.

One round after the other this is one power iteration on D, started where the last one ended. The mean over nodes is
preserved exactly, and no replica or error memory is needed. Each round moves the params: s rounds a step are s
compressed gossip steps, and not one with a better approximation. Tensors with fewer than two dimensions are averaged
uncompressed, by W, once a step.

The authors' code draws the shared start from a seed that is the concatenation of the two ranks in decimals, which is
not unique (1|12, 11|2); here is a key folded with both nodes. There the very first step does nothing but advance the
rounds' parity, since params that are equal, as they are at first, would turn P to zeros, and for ever; here the first
step communicates, and a column of zeros gives way to the one before. Directions are orthonormal at any scale, where the
authors' are shorter by a share of 1e-8 / |D v|.

References: Vogels, Karimireddy, Jaggi, Practical low-rank communication compression in decentralized deep learning.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_choice, check_number, require_params
from adozoo._message import Sized
from adozoo._optax import increment, transformation, zero_count
from adozoo._orthogonal import alive, as_matrix, either, pick, product, rank_one_bits
from adozoo._orthogonal import directions as orth
from adozoo.exchange import Exchange, OnLinks, exchange
from adozoo.parts import named, stepping
from adozoo.schedules import check_key
from adozoo.zoo import Entry, register

ORTHOGONALIZATIONS = ("gram_schmidt", "sign")


class Directions(NamedTuple):
    """One tensor's directions at this side of each link; both sides of an edge hold the same."""

    p: Array  # [rows, a, r]
    q: Array  # [rows, b, r]


class PowerGossipState(NamedTuple):
    """The directions of each matrix-shaped tensor, in the order of params' leaves."""

    count: Int[Array, ""]
    directions: OnLinks
    since: OnLinks | tuple[()]  # the round in which a side's directions were drawn; empty if no message can get lost


def power_gossip(
    inner: optax.GradientTransformation,
    graph: Any,
    rank: int = 1,
    iterations: int = 1,
    key: Any = None,
    warm_start: bool = True,
    diffusion_rate: Any = 1.0,
    overlap: bool = True,
    orthogonalization: str = "gram_schmidt",
) -> optax.GradientTransformationExtraArgs:
    r"""D-PSGD whose gossip compresses the difference of two neighbours to low rank, by warm-started power iteration.

    Update: x_i <- Gossip(x)_i + u_i, with u_i what `inner` does with g_i at x_i, and Gossip s rounds of M_i <- M_i -
    \gamma \sum_j W_ij \hat D_ij on every matrix, \hat D_ij = (M_i - M_j) v v' or v v' (M_i - M_j) in turns; smaller
    tensors: x_i <- \sum_j W_ij x_j.

    Sent: over each directed edge, round and a x b matrix a r or b r numbers in turns; once a step what is uncompressed.

    Assumptions: an undirected graph; W symmetric doubly stochastic. Not exact under heterogeneity with constant step
    sizes, as D-SGD.

    Args:
      inner: what a node does alone, over stacked params: `adozoo.descent(0.1)`, `adozoo.per_node(optax.adam(1e-3))`.
      graph: a networkx graph (with Metropolis weights), a mixing over one, or an exchange; faults and placement are
        kept. After a lost message an edge stands still until both of its ends hold the same new directions.
      rank: r, the columns of P and Q; at most min(a, b) are used.
      iterations: s, the rounds a step.
      key: a typed JAX key for the first directions (and all, without warm start); by default `jax.random.key(0)`.
      warm_start: whether directions are carried over, or drawn anew in each round.
      diffusion_rate: \gamma, for matrices only; uncompressed gossip is fastest at 2 / (2 - \lambda_2 - \lambda_n).
      overlap: whether the params of before the local step are gossiped, so that both can go on at the same time; else
        x_i <- Gossip(x + u)_i.
      orthogonalization: "gram_schmidt", or "sign" for v = sign(p) / sqrt(a), of rank 1.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time for a directed, disconnected, varying or traced graph, a rank or number of iterations
        that is no positive integer, an untyped key, or an unknown orthogonalization.

    Example:
      >>> x = jax.random.normal(jax.random.key(1), (8, 20, 10))
      >>> tx = adozoo.power_gossip(adozoo.descent(0.1), adozoo.graphs.ring(8), rank=2)
      >>> params, _, _ = adozoo.simulate(tx, lambda x, step, key: 0 * x, x, steps=300)
      >>> bool(adozoo.consensus_distance(params) < 0.01 * adozoo.consensus_distance(x))
      True
    """
    talk = power_gossip_average(graph, rank, iterations, key, warm_start, diffusion_rate, overlap, orthogonalization)
    return named("power_gossip", optax.chain(optax.with_extra_args_support(inner), talk))


def power_gossip_average(
    graph: Any,
    rank: int = 1,
    iterations: int = 1,
    key: Any = None,
    warm_start: bool = True,
    diffusion_rate: Any = 1.0,
    overlap: bool = True,
    orthogonalization: str = "gram_schmidt",
) -> optax.GradientTransformationExtraArgs:
    """PowerGossip as a part: talks where `adozoo.combine_then_adapt` would, or `adapt_then_combine` without `overlap`.

    The arguments are those of `power_gossip`.

    Example:
      >>> tx = adozoo.power_gossip_average(adozoo.graphs.path(2), rank=2)
      >>> x = jnp.stack([jnp.zeros((2, 2)), jnp.array([[1.0, 2.0], [3.0, 4.0]])])
      >>> updates, state = tx.update(0 * x, tx.init(x), x)
      >>> (x + updates)[0].round(
      ...     6
      ... )  # of a 2 x 2 matrix rank 2 is all, and W averages two nodes
      Array([[0.5, 1. ],
             [1.5, 2. ]], dtype=float64)
    """
    key = jax.random.key(0) if key is None else key
    check_key("power_gossip", key)
    for name, value in (("rank", rank), ("iterations", iterations)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"power_gossip: {name} must be a positive integer, got {value!r}.")
    check_number("power_gossip", "diffusion_rate", diffusion_rate)
    check_choice("power_gossip", "orthogonalization", orthogonalization, ORTHOGONALIZATIONS)
    if orthogonalization == "sign" and rank != 1:
        raise ValueError(f"power_gossip: orthogonalization='sign' needs rank=1, got rank={rank!r}.")
    edges = _Edges(exchange(graph), rank, key, diffusion_rate, _signs if orthogonalization == "sign" else orth)
    links = edges.links

    def init(params: PyTree) -> PowerGossipState:
        matrices, _ = _take_apart(jax.tree.leaves(params))
        never = links.here(jnp.zeros(len(links.own), jnp.int32))
        since = OnLinks(never) if links.faulty else ()
        return PowerGossipState(zero_count(), OnLinks(edges.draw(matrices, never)), since)

    def update(
        updates: PyTree, state: PowerGossipState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, PowerGossipState]:
        del extra
        require_params("power_gossip", params)
        leaves, structure = jax.tree.flatten(params if overlap else _tree.add(params, updates))
        matrices, vectors = _take_apart(leaves)
        now = (state.directions.value, state.since.value if isinstance(state.since, OnLinks) else None)
        for turn in range(iterations):
            number = state.count * iterations + turn + 1
            odd = turn % 2 == 0 if iterations % 2 == 0 else number % 2 == 1
            if not warm_start:
                now = (edges.draw(matrices, links.here(jnp.full(len(links.own), number))), now[1])
            sent = ([] if turn else vectors, matrices)
            averaged, matrices, now = edges.talk(*sent, *now, odd, number, state.count, turn)
            vectors = vectors if turn else averaged
        new = jax.tree.unflatten(structure, _put_together(leaves, matrices, vectors))
        if overlap:
            new = _tree.add(new, updates)
        kept = OnLinks(now[0]), OnLinks(now[1]) if links.faulty else ()
        return _tree.sub(new, params), PowerGossipState(increment(state.count), *kept)

    return transformation(init, update)


@dataclass(frozen=True)
class _Edges:
    """What the two ends of every edge do with their matrices [n, a, b]."""

    links: Exchange
    rank: int
    key: Any
    diffusion_rate: Any
    orthogonalize: Any

    def draw(self, matrices: list[Array], when: Array) -> tuple[Directions, ...]:
        """Normal directions that the ends of an edge draw alike; others for each value of `when` [rows]."""
        own, other = np.asarray(self.links.own), np.asarray(self.links.other)
        first, second = (jnp.asarray(self.links.here(choose(own, other))) for choose in (np.minimum, np.maximum))

        def directions(place: int, matrix: Array) -> Directions:
            a, b = matrix.shape[1:]

            def draw(i: Array, j: Array, t: Array) -> Directions:
                key = self.key
                for number in (i, j, t, place):
                    key = jax.random.fold_in(key, number)
                left, right = jax.random.split(key)
                r, dtype = min(self.rank, a, b), matrix.dtype
                return Directions(jax.random.normal(left, (a, r), dtype), jax.random.normal(right, (b, r), dtype))

            return jax.vmap(draw)(first, second, when)

        return tuple(directions(place, matrix) for place, matrix in enumerate(matrices))

    def talk(
        self,
        vectors: list[Array],
        matrices: list[Array],
        directions: tuple[Directions, ...],
        since: Array | None,
        odd: Any,
        number: Any,
        step: Any,
        turn: int,
    ) -> tuple[list[Array], list[Array], tuple[tuple[Directions, ...], Array | None]]:
        """One round: vectors, matrices, and (directions, since) after it. `odd` may be traced."""
        links = self.links
        asked = [self._ask(matrix, now, odd) for matrix, now in zip(matrices, directions, strict=True)]
        told = (links.per_link(vectors), [answer for _, answer in asked], since)
        heard = links.swap(Sized(told, self._bits(vectors, matrices, since, odd)), step, turn).value
        weights = jnp.asarray(links.here(links.weights))
        differences = _tree.sub(told[:2], heard[:2])
        common = None
        if since is not None:
            # Directions are common if both sides drew them in the same round and have heard of each other ever since.
            arrived = links.arrived(step, turn)
            common = arrived & (since == heard[2])
            differences = tuple(_masked(*pair) for pair in zip((arrived, common), differences, strict=True))
        averaged = _tree.sub(vectors, links.collect([_tree.rows(weights, x) * x for x in differences[0]]))
        larger = links.here(np.where(np.asarray(links.own) > np.asarray(links.other), 1, -1))
        moved, after = [], []
        for matrix, (v, _), difference, now in zip(matrices, asked, differences[1], directions, strict=True):
            a, b = matrix.shape[1:]
            pull = _tree.rows(self.diffusion_rate * weights, v) * v
            moved.append(matrix - self._outer(pick(odd, difference, pull)[:, :a], pick(odd, pull, difference)[:, :b]))
            canonical = _tree.rows(larger, difference) * difference  # the larger node's minus the smaller one's
            p, q = pick(odd, canonical, v)[:, :a], pick(odd, v, canonical)[:, :b]
            after.append(Directions(alive(p, now.p), alive(q, now.q)))
        if common is None or since is None:
            return averaged, moved, (tuple(after), None)
        since = jnp.where(common, since, number)
        anew = self.draw(matrices, since)
        kept = jax.tree.map(lambda x, y: jnp.where(common[:, None, None], x, y), tuple(after), anew)
        return averaged, moved, (kept, since)

    def _ask(self, matrix: Array, now: Directions, odd: Any) -> tuple[Array, Array]:
        """(v, M v) with v = orth(Q), or (v, M'v) with v = orth(P), of one length where `odd` is traced."""

        def right() -> tuple[Array, Array]:
            v = self.orthogonalize(now.q)
            return v, self._products(matrix, v)

        def left() -> tuple[Array, Array]:
            v = self.orthogonalize(now.p)
            return v, self._products(matrix.mT, v)

        return either(odd, right, left)

    def _products(self, matrix: Array, v: Array) -> Array:
        """Every link's M v, with its own node's M."""
        if not self.links.bounded:
            return product("eab,ebr->ear", self.links.per_link(matrix), v)
        by_node = product("nab,nkbr->nkar", matrix, self.links.to_slots(v))
        return self.links.from_slots(by_node)

    def _outer(self, left: Array, right: Array) -> Array:
        r"""\sum over each node's links of left right'."""
        if not self.links.bounded:
            return self.links.collect(product("ear,ebr->eab", left, right))
        return product("nkar,nkbr->nab", self.links.to_slots(left), self.links.to_slots(right))

    def _bits(self, vectors: list[Array], matrices: list[Array], since: Array | None, odd: Any) -> float:
        """Of one message; where `odd` is traced, the average of two rounds."""
        share = {True: (1, 0), False: (0, 1)}[odd] if isinstance(odd, bool) else (0.5, 0.5)
        bits = 0.0 if since is None else 32.0
        for x in vectors:
            bits += 8 * x.dtype.itemsize * math.prod(x.shape[1:])
        for x in matrices:
            a, b = x.shape[1:]
            bits += 8 * x.dtype.itemsize * min(self.rank, a, b) * (share[0] * a + share[1] * b)
        return bits


def _take_apart(leaves: list[Array]) -> tuple[list[Array], list[Array]]:
    """The leaves [n, a, ...] as matrices [n, a, b], and the others as they are."""
    return [jax.vmap(as_matrix)(leaf) for leaf in leaves if leaf.ndim >= 3], [leaf for leaf in leaves if leaf.ndim < 3]


def _put_together(like: list[Array], matrices: list[Array], vectors: list[Array]) -> list[Array]:
    """Undo `_take_apart`."""
    left, right = iter(matrices), iter(vectors)
    return [next(left).reshape(leaf.shape) if leaf.ndim >= 3 else next(right) for leaf in like]


def _signs(p: Array) -> Array:
    """A direction of equal entries: sign(p) / sqrt(a)."""
    return jnp.sign(p) / jnp.sqrt(jnp.asarray(p.shape[-2], p.dtype))


def _masked(keep: Array, trees: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.where(keep.reshape((-1,) + (1,) * (x.ndim - 1)), x, 0), trees)


register(
    Entry(
        "power_gossip",
        stepping(power_gossip, "graph"),
        "gossip",
        "PowerGossip",
        "Vogels, Karimireddy, Jaggi, NeurIPS 2020",
        frozenset({"symmetric"}),
        {"rank": 1},
        linear=False,
        leafwise=True,
        exact=False,
        bits=lambda params, n: rank_one_bits(params, 0.5),  # of rank 1, and one round a step
        random=True,
        fixed_graph=True,
        matrices=True,
        overlaps=True,
    )
)
