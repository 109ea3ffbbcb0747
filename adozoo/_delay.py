"""Delayed messages: a method wrapped so that its state remembers what was sent."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from adozoo._exchange import Exchange
from adozoo._optax import transformation
from adozoo.nodes import _eval_params, register_eval_params
from adozoo.schedules import Wrapper


class DelayedState(NamedTuple):
    """The method's state, and the last values of each of its messages, newest first: leaves [delays + 1, n, ...]."""

    inner: PyTree
    sent: tuple[PyTree, ...]


@dataclass(frozen=True)
class _Memory(Wrapper):
    """Stands in for the mixing during one update: hands out delayed messages and notes in `sent` what was sent."""

    base: Any
    delays: np.ndarray
    longest: int
    before: tuple[PyTree, ...] | None
    sent: dict[int, PyTree] = field(default_factory=dict)
    remembers = True

    def __call__(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        past = self.remember(tree, message)
        if hasattr(self.base, "only"):  # placed on devices: the links of each delay carry their message, each once
            parts = [
                self.base.only(self.delays == late)(jax.tree.map(lambda old, late=late: old[late], past), step, message)
                for late in map(int, np.unique(self.delays))
            ]
            return jax.tree.map(lambda *terms: sum(terms[1:], terms[0]), *parts)
        neighbors, weights = self.base.table_at(step, message)
        late = jnp.asarray(self.delays)[jnp.arange(self.n)[:, None], neighbors]

        def receive(x: Array, history: Array) -> Array:
            wide = jnp.promote_types(x.dtype, jnp.float32)  # 16-bit leaves are summed in 32 bits, as without delay
            spread = weights.astype(wide).reshape(weights.shape + (1,) * (x.ndim - 1))
            return jnp.sum(spread * history[late, neighbors], axis=1).astype(x.dtype)

        return jax.tree.map(receive, tree, past)

    def remember(self, tree: PyTree, message: int) -> PyTree:
        """The last values of a message, newest first, this one included; they are noted in `sent`."""
        if self.before is None:  # before the first step: every link holds this message already
            past = jax.tree.map(lambda x: jnp.repeat(x[None], self.longest + 1, axis=0), tree)
        else:
            past = jax.tree.map(lambda x, old: jnp.concatenate([x[None], old[:-1]]), tree, self.before[message])
        self.sent[message] = past
        return past

    def exchange(self) -> Exchange:
        found = self.base.exchange()
        return _LateExchange(**found.arrays(), base=found, memory=self)


@dataclass(frozen=True, eq=False, kw_only=True)
class _LateExchange(Exchange):
    """Sends on each link what it would have sent a delay ago. Lives within one update; never a pytree."""

    base: Exchange
    memory: _Memory

    @property
    def rows(self) -> int:
        return self.base.rows

    @property
    def local_rows(self) -> int:
        return self.base.local_rows

    def here(self, table: Any) -> Any:
        return self.base.here(table)

    def per_link(self, tree: PyTree) -> PyTree:
        return self.base.per_link(tree)

    def collect(self, tree: PyTree) -> PyTree:
        return self.base.collect(tree)

    def to_slots(self, tree: PyTree) -> PyTree:
        return self.base.to_slots(tree)

    def from_slots(self, tree: PyTree) -> PyTree:
        return self.base.from_slots(tree)

    def swap(self, tree: PyTree, step: Any = 0, message: int = 0) -> PyTree:
        past = self.memory.remember(tree, message)
        late = self.here(self.memory.delays[np.asarray(self.other), np.asarray(self.own)])
        due = jax.tree.map(lambda old: old[late, jnp.arange(self.rows)], past)
        return self.base.swap(due, step, message)


def delayed(
    factory: Callable[[Any], optax.GradientTransformation], mix: Any, delays: Any
) -> optax.GradientTransformationExtraArgs:
    r"""Any method over links with delays: node i receives \sum_j W_ij m_j^{t - \tau_ij}, with m_j^t what j sent at t.

    A delay needs memory, which a mixing does not have; so this wraps the method: its state gains the last messages.
    Before the first step the links hold what the method would send at the start with zero gradients.

    Args:
      factory: mix -> transformation, as `lambda mix: adozoo.dsgd(0.1, mix)`.
      mix: any mixing without memory, or an exchange.
      delays: \tau, in steps: one number for all links, or [n, n] integers with delays[i, j] for the link from j to i.
        A node's own value is never late.

    Returns:
      The transformation over stacked pytrees.

    Raises:
      ValueError: for negative or non-integer delays, or a shape that does not fit.

    Example:
      >>> tx = adozoo.channel.delayed(
      ...     lambda mix: adozoo.dsgd(0.1, mix), adozoo.exact_mean(2), 1
      ... )
      >>> x = jnp.array([[0.0], [2.0]])
      >>> params, _, _ = adozoo.simulate(tx, lambda x, step, key: 0 * x, x, steps=1)
      >>> params.ravel()  # the first message is the initial params, as without delay
      Array([1., 1.], dtype=float64)
    """
    table = np.asarray(delays)
    if not np.issubdtype(table.dtype, np.integer) or table.min() < 0 or table.shape not in ((), (mix.n, mix.n)):
        raise ValueError(
            f"delayed: delays must be integers >= 0, one or [{mix.n}, {mix.n}], got {table.dtype} of shape "
            f"{table.shape}."
        )
    if mix.local_rows != mix.n and not hasattr(mix, "only"):
        raise ValueError(
            f"delayed: messages of a placed {type(mix).__name__} cannot be delayed. Pass the mixing below, and let the "
            "factory add what is around it."
        )
    table = np.broadcast_to(table, (mix.n, mix.n)).copy()
    np.fill_diagonal(table, 0)
    longest = int(table.max())

    def run(sent: Any, inner: PyTree, grads: PyTree, params: PyTree, extra: dict[str, Any]) -> Any:
        memory = _Memory(mix, table, longest, sent)
        updates, inner = optax.with_extra_args_support(factory(memory)).update(grads, inner, params, **extra)
        return updates, DelayedState(inner, tuple(memory.sent[k] for k in sorted(memory.sent)))

    def init(params: PyTree) -> DelayedState:
        inner = factory(mix).init(params)
        _, first = run(None, inner, jax.tree.map(jnp.zeros_like, params), params, {})
        return DelayedState(inner, first.sent)

    def update(grads: PyTree, state: DelayedState, params: PyTree | None = None, **extra: Any) -> Any:
        return run(state.sent, state.inner, grads, params, extra)

    return transformation(init, update)


@register_eval_params(DelayedState)
def _(state: DelayedState, params: PyTree) -> PyTree:
    return _eval_params(state.inner, params)
