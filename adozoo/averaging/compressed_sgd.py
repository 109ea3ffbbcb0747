r"""SGD with compressed gradients and error feedback, for any compressor: EF-SGD, EF-signSGD, top-k, QSGD, ATOMO ...

Every node compresses its gradient together with what it has not sent so far, and keeps what is lost:

    \Delta_i = g_i + e_i,   \hat\Delta_i = C(\Delta_i),   e_i <- \Delta_i - \hat\Delta_i,   d = 1/n \sum_i \hat\Delta_i.

Weight decay and momentum come after, as `inner`. Where compressed gradients cannot be added up (top-k, signs) all nodes
get all of them: every payload passes n - 1 links instead of the 2 (n - 1) / n of an all-reduce.

`error_feedback` is the same for one node, as a transformation to chain with any other.

References: Seide et al., Interspeech 2014; Stich, Cordonnier, Jaggi, NeurIPS 2018; Karimireddy et al., ICML 2019 (error
feedback); Alistarh et al., NeurIPS 2017 (QSGD); Wang et al., NeurIPS 2018 (ATOMO): the latter two without feedback.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from adozoo import _tree
from adozoo._checks import check_mean
from adozoo._message import Sized
from adozoo._optax import increment, transformation, zero_count
from adozoo.compression import Compressor, over_nodes, qsgd, scaled_sign, top_k
from adozoo.mixing import Mixing, exact_mean
from adozoo.nodes import node_count
from adozoo.parts import named, stepping
from adozoo.schedules import check_key
from adozoo.zoo import Entry, register


class FeedbackState(NamedTuple):
    """The errors e, stacked like params (empty without feedback), and the compressor's state, one a node."""

    count: Int[Array, ""]
    error: PyTree
    compressor: PyTree


def compressed_sgd(
    inner: optax.GradientTransformation,
    compressor: Compressor,
    mean: Mixing | None = None,
    feedback: bool = True,
    key: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""All-reduce SGD with compressed gradients.

    Update: d = (1/n) \sum_i C(g_i + e_i);  e_i <- g_i + e_i - C(g_i + e_i);  x_i <- x_i + u, with u what `inner` does
    with d.

    Sent: one compressed message, to all.

    Assumptions: all nodes start at the same params. With feedback any compressor of loss below 1 will do; without it
    the compressor should be unbiased.

    Args:
      inner: what becomes of the average, over stacked params: `adozoo.descent(0.1)`.
      compressor: how messages are compressed, see `adozoo.compression`.
      mean: the exact average, `adozoo.exact_mean(n)`, possibly placed on devices; by default over all nodes of params.
      feedback: whether errors are fed back.
      key: a typed JAX key for random compressors; by default `jax.random.key(0)`.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: at build time if `mean` is not an exact average, or for an untyped key.

    Example:
      >>> target = jnp.array([[0.0, 4.0], [2.0, 0.0]])
      >>> tx = adozoo.compressed_sgd(adozoo.descent(0.02), adozoo.compression.top_k(0.5))
      >>> x = jnp.zeros((2, 2))
      >>> params, _, _ = adozoo.simulate(
      ...     tx, lambda x, step, key: x - target, x, steps=900
      ... )
      >>> params.round(0)  # near the optimum; it oscillates by O(learning rate)
      Array([[1., 2.],
             [1., 2.]], dtype=float64)
    """
    if mean is not None:
        check_mean("compressed_sgd", mean, "adozoo.choco_sgd")
    feed = _feedback(compressor, key, feedback, mean)
    stacked = over_nodes(compressor)

    def update(updates: PyTree, state: FeedbackState, params: PyTree | None = None, **extra: Any) -> tuple[PyTree, Any]:
        del extra
        average = exact_mean(node_count(updates)) if mean is None else mean
        sent, after = feed.update(updates, state, params)
        bits = stacked.bits(updates) * (1 if compressor.additive else average.n / 2)
        return average(Sized(sent, bits), state.count).value, after

    average = transformation(feed.init, update)
    return named("compressed_sgd", optax.chain(average, optax.with_extra_args_support(inner)))


def error_feedback(
    compressor: Compressor, key: Any = None, feedback: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""Replace each node's update by its compression, and add what got lost to the next one: u_i <- C(u_i + e_i).

    Nothing is sent here; what follows in a chain sends it.

    Args:
      compressor: how updates are compressed, each node's by itself.
      key: a typed JAX key for random compressors; by default `jax.random.key(0)`.
      feedback: whether there are errors at all: else u_i <- C(u_i).

    Example:
      >>> tx = adozoo.error_feedback(adozoo.compression.top_k(0.5))
      >>> u = jnp.array([[1.0, 3.0]])
      >>> first, state = tx.update(u, tx.init(u))
      >>> first, tx.update(0 * u, state)[0]
      (Array([[0., 3.]], dtype=float64), Array([[1., 0.]], dtype=float64))
    """
    return _feedback(compressor, key, feedback, None)


def _feedback(
    compressor: Compressor, key: Any, feedback: bool, mean: Mixing | None
) -> optax.GradientTransformationExtraArgs:
    """`error_feedback`, for the nodes that have their rows where `mean` is called."""
    key = jax.random.key(0) if key is None else key
    check_key("error_feedback", key)
    stacked = over_nodes(compressor)

    def init(params: PyTree) -> FeedbackState:
        error = _tree.zeros_like(params) if feedback else ()
        nodes = jnp.arange(node_count(params)) if mean is None else mean.own_nodes
        return FeedbackState(zero_count(), error, stacked.init(params, key, nodes))

    def update(
        updates: PyTree, state: FeedbackState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, FeedbackState]:
        del params, extra
        meant = _tree.add(updates, state.error) if feedback else updates
        sent, inner = stacked.apply(meant, state.compressor)
        error = _tree.sub(meant, sent) if feedback else ()
        return sent, FeedbackState(increment(state.count), error, inner)

    return transformation(init, update)


def _gathered(compressor: Compressor) -> Any:
    """The bits of an all-gather, spread over the links of an all-reduce."""
    return lambda params, n: compressor.bits(params) * n / 2


_FEEDBACK = "Karimireddy et al., ICML 2019"
for _name, _title, _paper, _compressor, _feeds in (
    ("ef_sign_sgd", "EF-signSGD", _FEEDBACK, scaled_sign(), True),
    ("ef_top_k", "Top-k SGD with error feedback", "Stich, Cordonnier, Jaggi, NeurIPS 2018", top_k(0.5), True),
    ("qsgd", "QSGD", "Alistarh et al., NeurIPS 2017", qsgd(levels=4), False),
):
    register(
        Entry(
            _name,
            stepping(compressed_sgd, "mean"),
            "averaging",
            _title,
            _paper,
            frozenset({"complete"}),
            {"compressor": _compressor, "feedback": _feeds},
            linear=False,
            leafwise=True,
            exact=False,
            bits=_gathered(_compressor),
            random=_name == "qsgd",
            equal_start=True,
            gathers=not _compressor.additive,
        )
    )
