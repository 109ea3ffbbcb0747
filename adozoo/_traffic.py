"""Counting what a method sends, by watching it use its mixing."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from adozoo._events import Events
from adozoo._exchange import Exchange
from adozoo._message import message_bits
from adozoo.mixing import Mixing


class Traffic(NamedTuple):
    """What one step of a method sends over the whole network, averaged over a period of the mixing."""

    messages: float  # directed messages, over all links
    vectors_per_node: float  # param-sized vectors that a node sends, on average
    bits: float  # over all links
    bits_per_node: float  # that a node sends, on average

    def meter(self) -> Callable[[PyTree, PyTree, Any], Any]:
        """A metric for `adozoo.simulate`: the bits that all nodes together have sent so far.

        Example:
          >>> mix = adozoo.exact_mean(2)
          >>> x = jnp.zeros((2, 1))
          >>> sent = adozoo.channel.traffic(lambda mix: adozoo.dsgd(0.1, mix), mix, x)
          >>> metrics = {"bits": sent.meter()}
          >>> adozoo.simulate(
          ...     adozoo.dsgd(0.1, mix), lambda x, step, key: x, x, 3, metrics=metrics
          ... )[2]["bits"]
          Array([128., 256., 384.], dtype=float64)
        """
        return lambda params, state, steps: steps * jnp.asarray(self.bits, float)


def traffic(factory: Callable[[Any], optax.GradientTransformation], mix: Any, params: PyTree) -> Traffic:
    """Count what one step sends, by watching the method use its mixing; nothing is computed.

    For time-varying mixings with a period the average over it is taken; for random ones over the first 1000 steps. An
    exact mean counts as a bandwidth-optimal all-reduce: 2 (n - 1) / n vectors a node. Compressed messages count by
    their compressor's accounting.

    Args:
      factory: mix -> transformation.
      mix: the mixing, or the exchange or events of methods that take those.
      params: stacked params (or their shapes): bits follow from their shapes and dtypes.

    Example:
      >>> mix = adozoo.mixing(adozoo.graphs.ring(8))
      >>> adozoo.channel.traffic(
      ...     lambda mix: adozoo.dsgd(0.1, mix), mix, jnp.zeros((8, 10), jnp.float32)
      ... )
      Traffic(messages=16.0, vectors_per_node=2.0, bits=5120.0, bits_per_node=640.0)
    """
    sent: list[tuple[float, float]] = []  # of each message: directed links, bits on one link

    class WatchedExchange(Exchange):
        def swap(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
            sent.append((self.links(), message_bits(tree, self.rows)))
            return tree

    @dataclass(frozen=True)
    class Watch(Mixing):
        n: int
        stochastic: str
        symmetric: bool
        share: float = 1.0
        varying = True
        fixed = True
        is_mean = True
        stands_for = mix

        def used_in(self, share: float) -> Mixing:
            return replace(self, share=self.share * share)

        def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
            sent.append((self.share * links, message_bits(tree, mix.n)))
            return tree

        def exchange(self) -> Exchange:
            return WatchedExchange(**mix.exchange().arrays())

    def hear(tree: PyTree) -> PyTree:
        sent.append((links, message_bits(tree, mix.n)))
        return tree

    def one_step(x: PyTree) -> PyTree:
        watched = mix.heard_by(hear) if isinstance(mix, Events) else Watch(mix.n, mix.stochastic, mix.symmetric)
        tx = optax.with_extra_args_support(factory(watched))
        return tx.update(x, tx.init(x), x)

    links = mean_links(mix)
    jax.eval_shape(one_step, params)
    bits = sum(used * size for used, size in sent)
    return Traffic(sum(used for used, _ in sent), bits / message_bits(params, mix.n) / mix.n, bits, bits / mix.n)


def mean_links(mix: Any) -> float:
    """Directed messages over the network in a step, averaged over the period (random mixings: over 1000 steps).

    Example:
      >>> adozoo.channel.mean_links(adozoo.one_peer_exponential(8))
      8.0
    """
    if isinstance(mix, Events):
        return mix.mean_links()
    if not mix.varying:
        return float(mix.links(0))
    period = getattr(mix, "period", None) or getattr(getattr(mix, "base", None), "period", None)
    if period is not None:
        return float(np.mean([float(mix.links(t)) for t in range(period)]))
    return float(jnp.mean(jax.lax.map(lambda t: jnp.asarray(mix.links(t), float), jnp.arange(1000))))
