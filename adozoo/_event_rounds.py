r"""Events in the order of time as rounds of gradients with levels of exchanges between them, exactly.

Two events that share no node commute, because each node's flow is applied to it alone, when something happens to it. An
event needs only what its own nodes did before. So every gradient falls into the earliest *round* that comes after its
node's last one, and every exchange into the earliest *level* of its round in which both nodes are free:

    (r, l) = the largest of what its nodes did last; then a gradient goes to (r + 1, 0), an exchange to (r, l + 1).

One round evaluates gradients once for all nodes that are due, one level is a set of disjoint pairs. A mark is a round
without gradients at which all nodes have reached the same time.
"""

from typing import Any, NamedTuple

import numpy as np

GRADIENT, EXCHANGE = 0, 1


class Rounds(NamedTuple):
    """Rounds k, and the pairs that meet between them; see `adozoo.events.Events` for the fields."""

    takes: np.ndarray
    wait: np.ndarray
    lag: np.ndarray
    order: np.ndarray
    pairs: np.ndarray
    waited: np.ndarray
    level: np.ndarray
    first: np.ndarray
    marks: np.ndarray


def rounds_of(
    kinds: np.ndarray,
    times: np.ndarray,
    nodes: np.ndarray,
    lags: np.ndarray,
    n: int,
    marks: np.ndarray,
    synchronised: bool,
) -> Rounds:
    """Sort events into rounds and levels.

    Args:
      kinds: [events], GRADIENT or EXCHANGE, in the order of `times`.
      times: [events].
      nodes: [events, 2].
      lags: [events], how many of its node's events ago a gradient is taken.
      n: the number of nodes.
      marks: [marks], increasing, from 0 on: when all nodes are to be at the same time.
      synchronised: whether the last mark lets the nodes flow; otherwise each stays at its last event.

    Returns:
      The rounds. Pairs are sorted by round and level; `level` numbers levels throughout.
    """
    round_of, level_of, since = [0] * n, [0] * n, [0.0] * n
    gradients: list[tuple[int, int, float, int, int]] = []  # round, node, wait, lag, event
    meetings: list[tuple[int, int, int, int, float, float]] = []  # round, level, i, j, waits
    flows: list[tuple[int, list[float]]] = [(0, [0.0] * n)]
    marked, upcoming = [0], 1
    columns = zip(kinds.tolist(), times.tolist(), nodes.tolist(), lags.tolist(), strict=True)

    def mark(time: float, flow: bool) -> None:
        last = max(round_of) + 1
        flows.append((last, [time - t if flow else 0.0 for t in since]))
        round_of[:], level_of[:] = [last] * n, [0] * n
        if flow:
            since[:] = [time] * n
        marked.append(last)

    for number, (kind, time, (i, j), lag) in enumerate(columns):
        while upcoming < len(marks) - 1 and marks[upcoming] < time:
            mark(marks[upcoming], True)
            upcoming += 1
        if kind == GRADIENT:
            round_of[i] += 1
            level_of[i] = 0
            gradients.append((round_of[i], i, time - since[i], lag, number))
            since[i] = time
            continue
        here = max(round_of[i], round_of[j])
        level = max((level_of[k] for k in (i, j) if round_of[k] == here), default=0)
        meetings.append((here, level, i, j, time - since[i], time - since[j]))
        round_of[i] = round_of[j] = here
        level_of[i] = level_of[j] = level + 1
        since[i] = since[j] = time
    for time in marks[upcoming:-1]:
        mark(time, True)
    mark(marks[-1], synchronised)
    return _arrays(gradients, meetings, flows, marked, n)


def _arrays(gradients: list[Any], meetings: list[Any], flows: list[Any], marked: list[int], n: int) -> Rounds:
    count = marked[-1] + 1
    takes, wait = np.zeros((count + 1, n), bool), np.zeros((count + 1, n))  # the row beyond the last is for idle steps
    lag, order = np.zeros((count + 1, n), np.int32), np.full((count + 1, n), -1, np.int32)
    if gradients:
        rounds, nodes, waits, lags, numbers = map(np.array, zip(*gradients, strict=True))
        takes[rounds, nodes] = True
        wait[rounds, nodes], lag[rounds, nodes], order[rounds, nodes] = waits, lags, numbers
    for number, waits in flows:
        wait[number] = waits
    table = np.array(meetings, float).reshape(-1, 6)
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    first = np.searchsorted(table[:, 0], np.arange(count + 2)).astype(np.int32)
    fresh = np.ones(len(table), bool)
    fresh[1:] = np.any(table[1:, :2] != table[:-1, :2], axis=1)
    level = np.cumsum(fresh) - 1
    pairs = table[:, 2:4].astype(np.int32)
    return Rounds(takes, wait, lag, order, pairs, table[:, 4:], level, first, np.array(marked, np.int32))


def level_tables(pairs: np.ndarray, waited: np.ndarray, level: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each level, everyone's partner [levels, n] (oneself if idle), and the time since one's last event."""
    count = int(level[-1]) + 1 if len(level) else 0
    partner = np.tile(np.arange(n, dtype=np.int32), (count, 1))
    waits = np.zeros((count, n))
    for side in (0, 1):
        partner[level, pairs[:, side]] = pairs[:, 1 - side]
        waits[level, pairs[:, side]] = waited[:, side]
    return partner, waits
