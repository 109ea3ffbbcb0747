"""What every factory checks when it is built: Python numbers only, since traced hyper-parameters have no value yet."""

import math
from numbers import Real
from typing import Any


def check_number(
    factory: str, name: str, value: Any, low: float = 0.0, high: float = math.inf, closed: bool = False
) -> None:
    """Raise ValueError if a Python number lies outside (low, high), or outside [low, high) where `closed`."""
    if isinstance(value, bool | str) or value is None:
        raise ValueError(f"{factory}: {name} must be a number, a traced scalar or a schedule, got {value!r}.")
    if not isinstance(value, Real):
        return  # a schedule, or an array that may be traced
    number = float(value)
    above = low <= number if closed else low < number
    if not (above and number < high and math.isfinite(number)):
        interval = f"{'[' if closed else '('}{low:g}, {high:g})"
        raise ValueError(f"{factory}: {name} must lie in {interval}, got {value!r}. Pass a finite number inside it.")


def check_choice(factory: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError if `value` is not one of `choices`."""
    if value not in choices:
        raise ValueError(f"{factory}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def check_no_extra(factory: str, extra: dict[str, Any]) -> None:
    """Raise ValueError on extra arguments of `update`: a misspelt one must not be swallowed."""
    if extra:
        raise ValueError(
            f"{factory}.update takes no extra arguments, got {', '.join(sorted(extra))}. Remove them, or compose the "
            "parts (adozoo.per_node, adozoo.adapt_then_combine, ...) with optax.chain, which passes them on."
        )


def require_params(factory: str, params: Any) -> None:
    """Raise ValueError if `update` was called without params."""
    if params is None:
        raise ValueError(
            f"{factory}.update needs `params` (got None): the update moves every node towards a mixture of its "
            "neighbours' params. Call tx.update(grads, state, params)."
        )


def check_mixing(factory: str, mix: Any, stochastic: tuple[str, ...] = ("doubly",), symmetric: bool = False) -> None:
    """Raise ValueError if `mix` is no mixing, or lacks a property that the method's fixed point rests on."""
    if not all(hasattr(mix, name) for name in ("__call__", "n", "stochastic", "symmetric")):
        raise ValueError(
            f"{factory}: mix must be a mixing, got {type(mix).__name__}. Build one with "
            "adozoo.mixing(graph_or_matrix), adozoo.exact_mean(n) or a schedule such as adozoo.cycle([...])."
        )
    if mix.stochastic not in stochastic:
        need = " or ".join(stochastic)
        raise ValueError(
            f"{factory}: mix must be {need} stochastic, got a {mix.stochastic}-stochastic one (n = {mix.n}). "
            "Use undirected weights (adozoo.weights.metropolis), or a method for directed graphs "
            "(adozoo.stochastic_gradient_push)."
        )
    if symmetric and not mix.symmetric:
        raise ValueError(
            f"{factory}: mix must be symmetric (the method's dual variable lives in the range of I - W), got a "
            f"non-symmetric mixing of n = {mix.n} nodes. Use an undirected graph, or adozoo.gradient_tracking."
        )


def check_mean(factory: str, mean: Any, instead: str) -> None:
    """Raise ValueError if `mean` is no exact average; `instead` names the method for other mixings."""
    check_mixing(factory, mean)
    if not mean.is_mean:
        raise ValueError(
            f"{factory}: mean must be an exact average, got a {type(mean).__name__} mixing. "
            f"Pass adozoo.exact_mean({mean.n}); for gossip over a graph use {instead}."
        )


def check_fixed(factory: str, mix: Any) -> None:
    """Raise ValueError unless W is symmetric and fixed, so that weighted sums of what neighbours have can be kept."""
    check_mixing(factory, mix, symmetric=True)
    if not getattr(mix, "fixed", True):
        raise ValueError(
            f"{factory}: mix must be fixed (sums of the neighbours' replicas are kept up to date), got a "
            f"{type(mix).__name__} that varies with the step. Use one mixing, or adozoo.deep_squeeze."
        )


def check_events(factory: str, events: Any, constants: bool = False, paired: bool = False) -> None:
    """Raise ValueError if `events` are no events, or lack what the method needs of them."""
    if not all(hasattr(events, name) for name in ("takes", "meet", "n")):
        raise ValueError(
            f"{factory}: events must be events, got {type(events).__name__}. Draw them with "
            "adozoo.events.poisson(graph, horizon), or pass adozoo.events.recorded(rows, n)."
        )
    if events.paired != paired:
        kind = "at exchanges, by both nodes" if paired else "at clocks of the nodes' own"
        raise ValueError(
            f"{factory}: events must have gradients {kind}, got others. Use adozoo.events.poisson(graph, horizon, "
            f"paired={paired})."
        )
    if constants and isinstance(events.chi_1, float) and not (events.chi_1 > 0 and events.chi_2 > 0):
        raise ValueError(
            f"{factory}: events must carry chi_1 and chi_2 of their rates, got {events.chi_1} and {events.chi_2}. Pass "
            "graph=... to adozoo.events.recorded, or parameters to the method."
        )
