r"""Events: gradients and pairwise exchanges at the times of clocks, as event-driven methods run on them.

Each node takes gradients at the times of its own clock, and each link {i, j} has a clock at whose times i and j
exchange one message each way. With independent Poisson clocks of rates 1 (nodes) and \lambda_ij (links) everything that
theory asks of the network is in the Laplacian \Lambda = \sum_ij \lambda_ij (e_i - e_j)(e_i - e_j)': exchanges happen at
rate tr \Lambda / 2, and \chi_1, \chi_2 (`adozoo.resistance.chi`) set the speed. Three normalisations are in use; a
graph's links carry their rates as the attribute `weight`, and `adozoo.resistance.normalize_rates` sets them:

    "node_rate"    every node is in `rate` exchanges per unit of time        (A2CiD2)
    "total_rate"   the network makes `rate` exchanges per unit of time       (DADAO: \sqrt{2 \chi_1 \chi_2} of rate 1)
    as they are    every link without `weight` has rate 1

Events are drawn on the host and sorted into rounds of gradients with levels of disjoint pairs between them: exactly
what happened, since a node's flow between its events is its own affair. `Events` is a pytree: pass it to a jitted
function, and lists of one padded length (`pad`, `stack`) run without compiling anew, or side by side under `vmap`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from adozoo._event_clocks import chis, clock_times, laplacians, node_rates, periods, span
from adozoo._event_rounds import EXCHANGE, GRADIENT, level_tables, rounds_of
from adozoo._events import Events
from adozoo.resistance import edge_resistances

__all__ = ["EXCHANGE", "GRADIENT", "Events", "deterministic", "lags", "pad", "poisson", "recorded", "stack"]

FORMS = ("auto", "levels", "pairs")
BUSY = 0.25
"""Levels are used where at least this share of all nodes meets in one, on average."""


def poisson(
    graph: Any,
    horizon: float,
    gradient_rates: Any = 1.0,
    seed: int = 0,
    marks: Any = 1,
    dwell: float | None = None,
    stale: bool = False,
    paired: bool = False,
    form: str = "auto",
) -> Events:
    r"""Independent Poisson clocks on all nodes and links, up to a time.

    Args:
      graph: a connected networkx graph whose links have their rates as `weight` (1 where absent), or its Laplacian
        [n, n]; a list of such graphs, each of which lasts for `dwell`, again and again; or a number of nodes that never
        meet.
      horizon: when it ends, in units of time; with gradient rate 1 that is how many gradients a node takes on average.
      gradient_rates: of each node, a number or [n]; 0 for a node that takes none.
      seed: of NumPy's generator.
      marks: when all nodes are synchronised besides the start and the end: a number of equal spans, or the times.
      dwell: how long each of several graphs lasts.
      stale: whether a node begins to compute a gradient when it has applied its last one (`lags`), or in no time.
      paired: whether gradients are taken by both nodes of an exchange, at its time, instead of at clocks of their own.
      form: "levels" (many disjoint pairs at once), "pairs" (one after another, the better where links are few or
        busy) or "auto".

    Returns:
      The events.

    Raises:
      ValueError: for a graph that is not connected or directed, rates that are negative, a horizon that is not
        positive, marks out of range, or several graphs without `dwell`.

    Example:
      >>> ring = adozoo.resistance.normalize_rates(adozoo.graphs.ring(16), "node_rate")
      >>> events = adozoo.events.poisson(ring, horizon=100.0)
      >>> events.n, round(events.chi_1, 3), round(events.chi_2, 4)
      (16, 13.137, 0.9375)
      >>> [
      ...     abs(int(count[-1]) - mean) < 5 * mean**0.5
      ...     for count, mean in ((events.gradients, 1600), (events.communications, 800))
      ... ]
      [True, True]
    """
    graphs, n = laplacians("poisson", graph, dwell)
    ends, gradient_rates = span("poisson", horizon, marks), node_rates("poisson", gradient_rates, n)
    draw = np.random.default_rng(seed)
    parts = [clock_times(draw, np.arange(n), gradient_rates * (not paired), 0.0, horizon)]
    codes = [np.stack([np.full(len(parts[0][0]), GRADIENT), parts[0][1], np.full(len(parts[0][0]), -1)], axis=1)]
    for start, stop, links in periods([sp.triu(laplacian, 1).tocoo() for laplacian in graphs], horizon, dwell):
        times, which = clock_times(draw, np.arange(links.nnz), -links.data, start, stop)
        parts.append((times, which))
        codes.append(np.stack([np.full(len(times), EXCHANGE), links.row[which], links.col[which]], axis=1))
    times = np.concatenate([times for times, _ in parts])
    order = np.argsort(times, kind="stable")
    rows = np.concatenate(codes)[order]
    times = times[order]
    if paired:
        rows, times = _with_gradients(rows), np.repeat(times, 3)
    since = lags(rows, n) if stale else None
    return _build(rows, times, n, graphs, ends, form, since, paired=paired)


def deterministic(
    graph: Any, horizon: float, gradient_rates: Any = 1.0, phases: Any = 0.0, marks: Any = 1, form: str = "auto"
) -> Events:
    """Clocks that tick evenly: node i at (phase + 1, phase + 2, ...) / rate_i, and each link likewise.

    Events of one time happen in the order gradients (by node), exchanges (by link).

    Args:
      graph: as in `poisson`, one only.
      horizon: when it ends.
      gradient_rates: of each node, a number or [n].
      phases: in [0, 1), a number or one for each node and, after those, each link (sorted).
      marks: as in `poisson`.
      form: as in `poisson`.

    Raises:
      ValueError: as `poisson`; for phases out of range or of another length.

    Example:
      >>> events = adozoo.events.deterministic(
      ...     adozoo.graphs.complete(2), 3.0, gradient_rates=[1.0, 2.0]
      ... )
      >>> events.gradients.tolist(), events.communications.tolist()
      ([0, 9], [0, 3])
    """
    graphs, n = laplacians("deterministic", graph, None)
    ends, gradient_rates = span("deterministic", horizon, marks), node_rates("deterministic", gradient_rates, n)
    links = sp.triu(graphs[0], 1).tocoo()
    rates = np.concatenate([gradient_rates, -links.data])
    phases = np.asarray(phases, float)
    if phases.ndim > 1 or (phases.ndim and len(phases) != len(rates)) or not ((phases >= 0) & (phases < 1)).all():
        raise ValueError(
            f"deterministic: phases must be a number in [0, 1) or {len(rates)} of them ({n} nodes, {links.nnz} links), "
            f"got shape {phases.shape} between {phases.min()} and {phases.max()}."
        )
    ticks = np.floor(horizon * rates - phases + 1e-9).astype(np.int64).clip(0)
    clock = np.repeat(np.arange(len(rates)), ticks)
    count = np.arange(ticks.sum()) - np.repeat(np.cumsum(ticks) - ticks, ticks)
    times = np.minimum((count + 1 + np.broadcast_to(phases, rates.shape)[clock]) / rates[clock], horizon)
    rows = np.concatenate(
        [
            np.stack([np.full(n, GRADIENT), np.arange(n), np.full(n, -1)], axis=1),
            np.stack([np.full(links.nnz, EXCHANGE), links.row, links.col], axis=1),
        ]
    )
    order = np.lexsort((clock, times))
    return _build(rows[clock][order], times[order], n, graphs, ends, form)


def recorded(
    events: Any,
    n: int,
    graph: Any = None,
    horizon: float | None = None,
    marks: Any = 1,
    lags: Any = None,
    paired: bool = False,
    synchronised: bool = True,
    form: str = "auto",
) -> Events:
    """Events that were written down: rows (kind, time, i, j), kind 0 a gradient of i, kind 1 an exchange of i and j.

    Args:
      events: [events, 4], by increasing time; those of one time happen in their order. j of a gradient is ignored.
      n: the number of nodes.
      graph: as in `poisson`, for chi_1 and chi_2; without it methods that need them must be given them.
      horizon: when it ends, by default with the last event.
      marks: as in `poisson`.
      lags: [events]: how many of its own events ago the node began to compute a gradient; 0 by default.
      paired: whether both nodes of each exchange take a gradient at its time; the rows hold exchanges only.
      synchronised: whether all nodes flow to the horizon at the end, or each stays where its last event left it.
      form: as in `poisson`.

    Raises:
      ValueError: for rows of another shape, kinds or nodes out of range, times that decrease or lie outside of
        [0, horizon], or lags that reach back before the start.

    Example:
      >>> events = adozoo.events.recorded([(0, 0.5, 1, -1), (1, 0.7, 0, 1)], n=2)
      >>> events.takes.tolist()  # a mark, the gradient, a mark; and a row for steps beyond the end
      [[False, False], [False, True], [False, False], [False, False]]
    """
    rows = np.asarray(events, float).reshape(-1, 4) if np.size(events) == 0 else np.asarray(events, float)
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise ValueError(f"recorded: events must be rows (kind, time, i, j), got shape {rows.shape}. Pass [events, 4].")
    codes, times = rows[:, [0, 2, 3]].astype(np.int64), rows[:, 1]
    horizon = float(times[-1] if len(times) else 0.0) if horizon is None else float(horizon)
    meeting = codes[:, 0] == EXCHANGE
    inside = (codes[:, 1] >= 0) & (codes[:, 1] < n) & (~meeting | ((codes[:, 2] >= 0) & (codes[:, 2] < n)))
    good = np.isin(codes[:, 0], (GRADIENT, EXCHANGE)) & inside & ~(meeting & (codes[:, 1] == codes[:, 2]))
    if not good.all():
        bad = rows[np.flatnonzero(~good)[0]].tolist()
        raise ValueError(
            f"recorded: events must be (0, time, node, -1) or (1, time, node, another node), nodes in 0..{n - 1}, got "
            f"{bad}. Relabel the nodes, or correct the row."
        )
    if not (np.diff(times, prepend=0) >= 0).all() or (len(times) and times[-1] > horizon):
        raise ValueError(
            f"recorded: times must not decrease and must lie in [0, {horizon}] (horizon), got "
            f"{times.min()} to {times.max()}. Sort the rows by time, or raise horizon."
        )
    if paired:
        if lags is not None or not meeting.all():
            raise ValueError("recorded: paired=True takes rows of exchanges only, and no lags. Leave out gradients.")
        codes, times = _with_gradients(codes), np.repeat(times, 3)
    lags = np.zeros(len(codes), np.int64) if lags is None else np.asarray(lags, np.int64)
    _check_lags(codes, lags, n)
    graphs, nodes = laplacians("recorded", n if graph is None else graph, 1.0)
    if nodes != n:
        raise ValueError(f"recorded: graph must have n = {n} nodes, got {nodes}. Pass the graph of these events.")
    ends = span("recorded", horizon, marks, least=0.0)
    return _build(codes, times, n, graphs, ends, form, lags, synchronised, paired)


def lags(rows: Any, n: int) -> np.ndarray:
    """How stale each gradient is that a node begins to compute when it has applied its last one.

    Args:
      rows: [events, 3 or 4], (kind, i, j) or (kind, time, i, j), by increasing time.
      n: the number of nodes.

    Returns:
      [events]: how many exchanges the node has been in since its last gradient; 0 for exchanges.

    Example:
      >>> adozoo.events.lags(
      ...     [(1, 0.1, 0, 1), (1, 0.2, 1, 2), (0, 0.3, 1, -1), (0, 0.4, 1, -1)], 3
      ... )
      array([0, 0, 2, 0])
    """
    codes = np.asarray(rows, float)[:, [0, -2, -1]].astype(np.int64)
    since, found = [0] * n, np.zeros(len(codes), np.int64)
    for number, (kind, i, j) in enumerate(codes.tolist()):
        if kind == GRADIENT:
            found[number], since[i] = since[i], 0
        else:
            since[i] += 1
            since[j] += 1
    return found


def pad(events: Events, rounds: int, meetings: int) -> Events:
    """The same events in arrays of given lengths, so that several lists share one compiled program.

    Args:
      events: the events.
      rounds: at least `events.rounds`.
      meetings: at least the length of `events.meetings`: levels, or pairs.

    Raises:
      ValueError: if the events are longer.

    Example:
      >>> events = adozoo.events.recorded([(0, 0.5, 1, -1)], n=2)
      >>> adozoo.events.pad(events, rounds=8, meetings=4).takes.shape
      (9, 2)
    """
    more, further = rounds - events.rounds, meetings - len(events.meetings)
    if more < 0 or further < 0:
        raise ValueError(
            f"pad: the events have {events.rounds} rounds and {len(events.meetings)} meetings, more than rounds = "
            f"{rounds} or meetings = {meetings}. Raise these: mean + 6 sqrt(mean) is rarely exceeded."
        )

    def longer(x: Any, by: int, mode: Any) -> Any:
        return np.pad(np.asarray(x), ((0, by), *((0, 0),) * (np.ndim(x) - 1)), mode=mode)

    # Steps beyond the last round use the last row of all, which does nothing; so do the padded ones.
    tables = {name: longer(getattr(events, name), more, "edge") for name in ("takes", "wait", "lag", "order", "first")}
    empty = {name: longer(getattr(events, name), further, "constant") for name in ("meetings", "waited")}
    return replace(events, **tables, **empty)


def stack(many: Sequence[Events]) -> Events:
    """Several events lists, padded to one length, along a leading axis to `vmap` over.

    Args:
      many: events of as many nodes and marks; forms may differ.

    Raises:
      ValueError: if there are none, or numbers of nodes or marks differ.

    Example:
      >>> ring = adozoo.graphs.ring(4)
      >>> seeds = adozoo.events.stack(
      ...     [adozoo.events.poisson(ring, 5.0, seed=k) for k in range(3)]
      ... )
      >>> jax.vmap(lambda events: events.communications[-1])(seeds).shape
      (3,)
    """
    sizes = {(events.n, len(events.marks)) for events in many}
    if len(sizes) != 1:
        raise ValueError(
            f"stack: events must have one number of nodes and of marks, got {sorted(sizes)}. Draw all with one graph "
            "and the same marks."
        )
    if len({events.form for events in many}) > 1:
        many = [events.in_levels() for events in many]
    rounds, meetings = (max(sizes) for sizes in zip(*((e.rounds, len(e.meetings)) for e in many), strict=True))
    staleness = max(events.staleness for events in many)
    padded = [replace(pad(events, rounds, meetings), staleness=staleness) for events in many]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *padded)


def _check_lags(codes: np.ndarray, lags: np.ndarray, n: int) -> None:
    if lags.shape != (len(codes),) or (lags < 0).any():
        raise ValueError(f"recorded: lags must be {len(codes)} numbers, none negative, got shape {lags.shape}.")
    if not lags.any():
        return
    seen = np.zeros(n, np.int64)
    for number, ((kind, i, j), lag) in enumerate(zip(codes.tolist(), lags.tolist(), strict=True)):
        if kind == GRADIENT and lag > seen[i]:
            raise ValueError(
                f"recorded: lags[{number}] = {lag} reaches back before the start: node {i} had {seen[i]} events. Lower "
                "it."
            )
        seen[i] += 1
        if kind == EXCHANGE:
            seen[j] += 1


def _build(
    codes: np.ndarray,
    times: np.ndarray,
    n: int,
    graphs: Sequence[Any],
    marks: np.ndarray,
    form: str,
    lags: np.ndarray | None = None,
    synchronised: bool = True,
    paired: bool = False,
) -> Events:
    if form not in FORMS:
        raise ValueError(f"events: form must be one of {', '.join(map(repr, FORMS))}, got {form!r}.")
    lags = np.zeros(len(codes), np.int64) if lags is None else lags
    nodes = codes[:, 1:].clip(0)
    sorted_ = rounds_of(codes[:, 0], times, nodes, lags, n, marks, synchronised)
    levels = int(sorted_.level[-1]) + 1 if len(sorted_.level) else 0
    if form == "auto":
        form = "levels" if 2 * len(sorted_.pairs) >= BUSY * n * levels else "pairs"
    meetings, waited, first = sorted_.pairs, sorted_.waited, sorted_.first
    if form == "levels":
        meetings, waited = level_tables(sorted_.pairs, sorted_.waited, sorted_.level, n)
        first = np.append(sorted_.level, levels)[sorted_.first].astype(np.int32)
    before = np.searchsorted(times, marks, "right")
    before[0], before[-1] = 0, len(times)
    chi_1, chi_2 = chis(graphs)
    counts = [np.append(0, np.cumsum(codes[:, 0] == kind))[before] for kind in (GRADIENT, EXCHANGE)]
    return Events(
        sorted_.takes,
        sorted_.wait,
        sorted_.lag,
        sorted_.order,
        meetings,
        waited,
        first,
        sorted_.marks,
        marks,
        counts[0],
        counts[1],
        chi_1,
        chi_2,
        n=n,
        form=form,
        staleness=int(lags.max(initial=0)),
        paired=paired,
        resistances=edge_resistances(graphs[0]).toarray() if paired and graphs[0].nnz else None,
    )


def _with_gradients(codes: np.ndarray) -> np.ndarray:
    """Before each exchange, a gradient of each of its nodes."""
    rows = np.repeat(codes, 3, axis=0)
    for side in (0, 1):
        rows[side::3] = np.stack([np.full(len(codes), GRADIENT), codes[:, 1 + side], np.full(len(codes), -1)], axis=1)
    return rows
