"""Run a transformation on a problem: one `lax.scan` over steps or over events, metrics computed inside."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from adozoo._events import Events
from adozoo.nodes import eval_params

Metrics = Mapping[str, Callable[..., Any]] | Callable[..., Any] | None


def simulate(
    tx: optax.GradientTransformation,
    gradient: Callable[..., PyTree],
    params: PyTree,
    steps: int,
    key: Any = None,
    metrics: Metrics = None,
    every: int = 1,
    sample: Callable[[Any], PyTree] | None = None,
    block: int = 100,
) -> tuple[PyTree, PyTree, PyTree]:
    r"""Take `steps` steps of x <- x + tx.update(gradient(x)) in one compiled scan.

    The function is pure: jit it, vmap it over step sizes, seeds or matrices, differentiate it. Nothing is drawn that
    does not depend on a vmapped input: lanes that share `key` share their noise, drawn once for all of them (common
    random numbers). Drawing inside a small step costs more than the step, hence `sample`: it is called for `block`
    steps at once.

    Args:
      tx: any transformation of stacked params; a named method, a chain of parts, an optax optimiser.
      gradient: (params, step, key) -> stacked gradients; `problem.gradient`, or your own. The key is None without
      `key`,
        else fold_in(key, step). With `sample` it is (params, step, drawn).
      params: stacked pytree, leaves [n, ...]: see `adozoo.replicate`.
      steps: how many steps to take, a Python integer.
      key: a typed JAX key, from which every step's key is folded.
      metrics: functions computed inside the run, a dict by name or one function; each is called with as many of
        (evaluated params, state, steps taken) as it takes positional arguments. The params are `eval_params` of the
        state.
      every: metrics are taken after every `every`-th step, steps // every times.
      sample: key -> one step's random numbers, drawn for `block` steps at once and handed to `gradient` as its third
        argument. Needs `key`.
      block: how many steps to draw for at once.

    Returns:
      (params, state, trace): the params and state after `steps` steps, and the metrics stacked over time. For a dict or
      None the trace is a dict that also holds "step", the number of steps taken at each record.

    Raises:
      ValueError: for a step count that is negative or not a Python integer, `every` < 1, or `sample` without `key`.

    Example:
      >>> problem = adozoo.problems.random_quadratic(8, 2)
      >>> tx = adozoo.extra(0.5, adozoo.mixing(adozoo.graphs.ring(8)))
      >>> params, state, trace = adozoo.simulate(
      ...     tx,
      ...     problem.gradient,
      ...     problem.init(),
      ...     600,
      ...     metrics=problem.metrics(),
      ...     every=300,
      ... )
      >>> trace["step"], bool(trace["suboptimality"][-1] < 1e-10)
      (Array([300, 600], dtype=int32), True)
    """
    _check(steps, every, block, key, sample)
    tx = optax.with_extra_args_support(tx)
    measure = _measure(metrics)

    def step(carry: tuple[PyTree, PyTree], now: tuple[Any, Any]) -> tuple[tuple[PyTree, PyTree], None]:
        x, state = carry
        count, drawn = now
        if sample is None and key is not None:
            drawn = jax.random.fold_in(key, count)
        updates, state = tx.update(gradient(x, count, drawn), state, x)
        return (optax.apply_updates(x, updates), state), None

    def record(carry: tuple[PyTree, PyTree], now: tuple[Any, Any]) -> tuple[tuple[PyTree, PyTree], PyTree]:
        carry, _ = jax.lax.scan(step, carry, now)
        x, state = carry
        return carry, measure(eval_params(state, x), state, now[0][-1] + 1)

    def span(carry: tuple[PyTree, PyTree], start: Any, records: int, length: int) -> tuple[Any, PyTree]:
        """`records` records of `length` steps each, from step `start`, with their random numbers drawn at once."""
        counts = start + jnp.arange(records * length, dtype=jnp.int32).reshape(records, length)
        drawn = None
        if sample is not None:
            keys = jax.vmap(jax.vmap(lambda count: jax.random.fold_in(key, count)))(counts)
            drawn = jax.vmap(jax.vmap(sample))(keys)
        return jax.lax.scan(record, carry, (counts, drawn))

    carry = (params, tx.init(params))
    records = steps // every
    group = records if sample is None else max(1, min(records, block // every))  # records that draw together
    whole = records // group if group else 0
    traces = []
    if whole:
        starts = jnp.arange(whole, dtype=jnp.int32) * (group * every)
        carry, trace = jax.lax.scan(lambda c, start: span(c, start, group, every), carry, starts)
        traces.append(jax.tree.map(lambda x: x.reshape((whole * group, *x.shape[2:])), trace))
    rest = records - whole * group
    if rest:
        carry, trace = span(carry, jnp.int32(whole * group * every), rest, every)
        traces.append(trace)
    if steps % every:
        carry, _ = span(carry, jnp.int32(records * every), 1, steps % every)
    if traces:
        trace = jax.tree.map(lambda *parts: jnp.concatenate(parts), *traces)
    else:
        shape = jax.eval_shape(lambda c: measure(eval_params(c[1], c[0]), c[1], jnp.int32(0)), carry)
        trace = jax.tree.map(lambda s: jnp.zeros((0, *s.shape), s.dtype), shape)
    params, state = carry
    return params, state, trace


def simulate_events(
    tx: optax.GradientTransformation,
    gradient: Callable[..., PyTree],
    params: PyTree,
    events: Events,
    key: Any = None,
    metrics: Metrics = None,
) -> tuple[PyTree, PyTree, PyTree]:
    """Run an event-driven method through its events, with metrics where all nodes stand at one time.

    The same steps as `simulate` takes with `events.rounds` steps; but between two marks as many as there are rounds,
    so that metrics are taken at the marks, and only there. Pure: jit it, with `events` as an argument, and other lists
    of the same padded length run without compiling; vmap it over stacked events, step sizes or starts.

    Args:
      tx: an event-driven method, made with the same events.
      gradient: (params, round, key) -> stacked gradients at params; those of nodes that take none in a round are not
        used. The key is None without `key`, else fold_in(key, round).
      params: stacked pytree, leaves [n, ...].
      events: see `adozoo.events`.
      key: a typed JAX key.
      metrics: as in `simulate`; called at every mark, the start included, with (evaluated params, state, rounds).

    Returns:
      (params, state, trace) at the end. For a dict or None the trace also holds, for each mark, "step" (rounds),
      "time", and how many "gradients" and "communications" (exchanges of a pair) there were on all nodes together.

    Example:
      >>> ring = adozoo.resistance.normalize_rates(adozoo.graphs.ring(8), "node_rate")
      >>> problem = adozoo.problems.random_quadratic(8, 2)
      >>> events = adozoo.events.poisson(ring, horizon=300.0, marks=3)
      >>> tx = adozoo.acid(optax.sgd(0.1), events)
      >>> params, state, trace = adozoo.simulate_events(
      ...     tx, problem.gradient, problem.init(), events, metrics=problem.metrics()
      ... )
      >>> trace["time"].tolist(), bool(trace["distance"][-1] < trace["distance"][0] / 2)
      ([0.0, 100.0, 200.0, 300.0], True)
    """
    tx = optax.with_extra_args_support(tx)
    measure = _measure(metrics)
    marks = jnp.asarray(events.marks)

    def step(number: Any, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        x, state = carry
        drawn = None if key is None else jax.random.fold_in(key, number)
        updates, state = tx.update(gradient(x, number, drawn), state, x)
        return optax.apply_updates(x, updates), state

    def record(carry: tuple[PyTree, PyTree], mark: tuple[Any, Any]) -> tuple[tuple[PyTree, PyTree], PyTree]:
        x, state = carry = jax.lax.fori_loop(*mark, step, carry)
        return carry, measure(eval_params(state, x), state, mark[1])

    (params, state), trace = jax.lax.scan(record, (params, tx.init(params)), (jnp.append(0, marks[:-1]), marks))
    if metrics is None or isinstance(metrics, Mapping):
        counts = {"gradients": events.gradients, "communications": events.communications}
        trace = trace | {"time": jnp.asarray(events.times)} | jax.tree.map(jnp.asarray, counts)
    return params, state, trace


def _check(steps: Any, every: Any, block: Any, key: Any, sample: Any) -> None:
    for name, value, least in (("steps", steps, 0), ("every", every, 1), ("block", block, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(
                f"simulate: {name} must be a Python integer of at least {least} (it sets the scan's length), got "
                f"{value!r}."
            )
    if sample is not None and key is None:
        raise ValueError(
            "simulate: sample draws random numbers and needs key, got key=None. Pass jax.random.key(seed)."
        )


def _measure(metrics: Metrics) -> Callable[[PyTree, PyTree, Any], PyTree]:
    """All metrics as one function of (evaluated params, state, steps taken)."""
    if metrics is None or isinstance(metrics, Mapping):
        calls = {name: _flexible(metric) for name, metric in (metrics or {}).items()}
        return lambda x, state, count: {"step": count} | {name: call(x, state, count) for name, call in calls.items()}
    return _flexible(metrics)


def _flexible(metric: Callable[..., Any]) -> Callable[[PyTree, PyTree, Any], Any]:
    """Let a metric take only the first one or two of (params, state, steps taken)."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(metric).parameters.values()
    except (TypeError, ValueError):  # some built-in callables have no signature
        return lambda x, state, count: metric(x)
    if any(p.kind == inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return metric
    takes = sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters) or 1
    return lambda *arguments: metric(*arguments[:takes])
