r"""What a compressor is, and how compressors of single tensors become compressors of pytrees.

A compressor C maps one node's pytree to a payload that takes few bits, and back. Two numbers judge it, for tensors of
given shapes: its worst expected loss, sup_v E|C(v) - v|^2 / |v|^2, and its bits. A compressor with a loss of at most
1 - omega < 1 is a contraction of quality omega; an unbiased one, E C(v) = v, may lose more than all of |v|^2.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from adozoo._tree import placed_like


class Compressor(NamedTuple):
    """Functions over one node's pytree, and what is known of them. `over_nodes` applies them to stacked pytrees.

    Attributes:
      init: (tree, key) -> state. What is kept between messages: a key, a warm start. `tree` may be shapes alone.
      compress: (tree, state) -> (payload, state). The payload is a pytree of arrays: what is sent, and what all nodes
        know without being told, such as positions drawn from a shared key.
      decompress: (payload, like) -> tree, with the shapes and dtypes of `like`.
      bits: like -> bits of one message, by the shapes and dtypes of `like`.
      loss: like -> sup E|C(v) - v|^2 / |v|^2 over trees v of these shapes and all states; None where it is infinite.
      unbiased: whether E C(v) = v.
      additive: whether payloads can be added up by an all-reduce: the sum of their floating-point numbers, with the
        other numbers (the same in all nodes), is the payload of the sum.
      shared: whether all nodes draw the same random numbers.
      second_moment: v -> E|C(v) - v|^2 over the random numbers of one message; None where no closed form is known.
    """

    init: Callable[[PyTree, Array], PyTree]
    compress: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
    decompress: Callable[[PyTree, PyTree], PyTree]
    bits: Callable[[PyTree], float]
    loss: Callable[[PyTree], float] | None = None
    unbiased: bool = False
    additive: bool = False
    shared: bool = False
    second_moment: Callable[[PyTree], Array] | None = None


def scalar_bits(like: Any) -> int:
    """The bits of one number of a tensor."""
    return 8 * jnp.dtype(like.dtype).itemsize


def shapes_of(tree: PyTree) -> PyTree:
    """The shapes and dtypes of a pytree, as `jax.ShapeDtypeStruct`s."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), tree)


def check_count(factory: str, name: str, value: Any) -> None:
    """Raise ValueError if `value` is not a positive integer: it decides over shapes, so that it cannot be traced."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{factory}: {name} must be a positive Python integer, got {value!r}. Pass 1 or more.")


def wide(x: Array) -> Array:
    """At least 32 bits to compute in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def identity() -> Compressor:
    """Sends everything as it is.

    Example:
      >>> adozoo.compression.identity().bits(jnp.zeros((2, 3), jnp.float32))
      192.0
    """
    return Compressor(
        init=lambda tree, key: (),
        compress=lambda tree, state: (tree, state),
        decompress=lambda payload, like: payload,
        bits=lambda like: float(sum(scalar_bits(leaf) * leaf.size for leaf in jax.tree.leaves(like))),
        loss=lambda like: 0.0,
        unbiased=True,
        additive=True,
        second_moment=lambda tree: jnp.zeros(()),
    )


def or_whole(compressor: Compressor, whole: Callable[[PyTree], bool]) -> Compressor:
    """A compressor, except for what goes uncompressed: where `whole`, a function of shapes, says so."""
    plain = identity()

    def of(like: PyTree) -> Any:
        return plain if whole(like) else compressor

    return compressor._replace(
        init=lambda tree, key: of(tree).init(tree, key),
        compress=lambda tree, state: of(tree).compress(tree, state),
        decompress=lambda payload, like: of(like).decompress(payload, like),
        bits=lambda like: of(like).bits(like),
        loss=compressor.loss and (lambda like: of(like).loss(like)),
        second_moment=compressor.second_moment and (lambda tree: of(tree).second_moment(tree)),
    )


def leafwise(tensor: Compressor) -> Compressor:
    """Apply a compressor of single tensors to every leaf of a pytree, each with a state and random numbers of its own.

    The loss of the whole is the largest one of its leaves: |C(v) - v|^2 is a sum over leaves.
    """
    return by_label({"every": tensor}, lambda tree: jax.tree.map(lambda leaf: "every", tree))


def by_label(tensors: Mapping[str, Compressor], labels: PyTree | Callable[[PyTree], PyTree]) -> Compressor:
    """One compressor a tensor, chosen by a label, as `optax.multi_transform` chooses transformations.

    If one of them draws the same random numbers at all nodes, then so do all.

    Args:
      tensors: compressors of single tensors, by label.
      labels: a pytree of labels in the structure of one node's params, or a function from it (or its shapes) to that.

    Raises:
      ValueError: for a label without a compressor.

    Example:
      >>> kernels = adozoo.compression.by_label(
      ...     {
      ...         "kernel": adozoo.compression.top_k(0.1),
      ...         "rest": adozoo.compression.identity(),
      ...     },
      ...     lambda tree: jax.tree.map(
      ...         lambda x: "kernel" if x.ndim >= 2 else "rest", tree
      ...     ),
      ... )
      >>> kernels.bits(
      ...     {"b": jnp.zeros(5, jnp.float32), "w": jnp.zeros((5, 4), jnp.float32)}
      ... )
      288.0
    """

    def assigned(tree: PyTree) -> list[Compressor]:
        names = jax.tree.leaves(labels(tree) if callable(labels) else labels)
        unknown = sorted({str(name) for name in names if name not in tensors})
        if unknown or len(names) != len(jax.tree.leaves(tree)):
            raise ValueError(
                f"by_label: labels must name one of {sorted(tensors)} for each of the {len(jax.tree.leaves(tree))} "
                f"leaves, got {len(names)} labels, unknown among them: {unknown}. Add compressors for these labels."
            )
        return [tensors[name] for name in names]

    def init(tree: PyTree, key: Array) -> PyTree:
        leaves = jax.tree.leaves(tree)
        return tuple(
            tensor.init(leaf, jax.random.fold_in(key, place))
            for place, (tensor, leaf) in enumerate(zip(assigned(tree), leaves, strict=True))
        )

    def compress(tree: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        pairs = zip(assigned(tree), jax.tree.leaves(tree), state, strict=True)
        sent = [tensor.compress(leaf, own) for tensor, leaf, own in pairs]
        return tuple(payload for payload, _ in sent), tuple(after for _, after in sent)

    def decompress(payload: PyTree, like: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(like)
        parts = zip(assigned(like), payload, leaves, strict=True)
        return jax.tree.unflatten(structure, [tensor.decompress(sent, leaf) for tensor, sent, leaf in parts])

    def bits(like: PyTree) -> float:
        leaves = jax.tree.leaves(like)
        return float(sum(tensor.bits(leaf) for tensor, leaf in zip(assigned(like), leaves, strict=True)))

    def loss(like: PyTree) -> float:
        pairs = zip(assigned(like), jax.tree.leaves(like), strict=True)
        return max((tensor.loss(leaf) for tensor, leaf in pairs if tensor.loss), default=0.0)

    def second_moment(tree: PyTree) -> Array:
        pairs = zip(assigned(tree), jax.tree.leaves(tree), strict=True)
        return sum((tensor.second_moment(leaf) for tensor, leaf in pairs if tensor.second_moment), jnp.zeros(()))

    known = tensors.values()
    return Compressor(
        init,
        compress,
        decompress,
        bits,
        loss if all(tensor.loss for tensor in known) else None,
        unbiased=all(tensor.unbiased for tensor in known),
        additive=all(tensor.additive for tensor in known),
        shared=any(tensor.shared for tensor in known),
        second_moment=second_moment if all(tensor.second_moment for tensor in known) else None,
    )


class Stacked(NamedTuple):
    """A compressor over stacked pytrees: every node compresses its own row. Built by `over_nodes`.

    Attributes:
      init: (params, key, nodes) -> states, for stacked params whose rows belong to `nodes`.
      apply: (tree, states) -> (what the receivers have after decompressing, states).
      bits: params -> bits of one node's message.
    """

    init: Callable[[PyTree, Array, Array], PyTree]
    apply: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
    bits: Callable[[PyTree], float]


def one_node(tree: PyTree) -> PyTree:
    """The shapes of one node's part of a stacked pytree."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x)[1:], jnp.result_type(x)), tree)


def over_nodes(compressor: Compressor) -> Stacked:
    """Apply a compressor to each node's row by itself; node i draws from fold_in(key, i), or all from `key` if shared.

    Example:
      >>> top = adozoo.compression.over_nodes(adozoo.compression.top_k(0.5))
      >>> x = jnp.array([[1.0, -3.0], [2.0, 1.0]])
      >>> top.apply(x, top.init(x, jax.random.key(0), jnp.arange(2)))[0]
      Array([[ 0., -3.],
             [ 2.,  0.]], dtype=float64)
    """

    def init(params: PyTree, key: Array, nodes: Array) -> PyTree:
        for leaf in jax.tree.leaves(params):
            if not jnp.ndim(leaf) or jnp.shape(leaf)[0] != nodes.shape[0]:
                raise ValueError(
                    f"compression over {nodes.shape[0]} nodes: every leaf needs a leading node axis of that length, "
                    f"got a leaf of shape {jnp.shape(leaf)}. Use adozoo.replicate(params, {nodes.shape[0]})."
                )
        if compressor.shared:
            states = jax.vmap(lambda own: compressor.init(own, key))(params)
        else:
            states = jax.vmap(lambda own, node: compressor.init(own, jax.random.fold_in(key, node)))(params, nodes)
        return placed_like(states, params)

    def one(tree: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        payload, state = compressor.compress(tree, state)
        return compressor.decompress(payload, shapes_of(tree)), state

    def apply(tree: PyTree, states: PyTree) -> tuple[PyTree, PyTree]:
        return jax.vmap(one)(tree, states)

    return Stacked(init, apply, lambda params: compressor.bits(one_node(params)))
