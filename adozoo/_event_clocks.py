"""Clocks, graphs and spans of time for `adozoo.events`: what is given, checked, and the times that are drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from adozoo.resistance import chi, rate_laplacian


def laplacians(name: str, graph: Any, dwell: float | None) -> tuple[list[Any], int]:
    """The Laplacians of one or several graphs."""
    if isinstance(graph, int | np.integer) and not isinstance(graph, bool):
        if graph < 1:
            raise ValueError(f"{name}: a number of nodes that never meet must be at least 1, got graph = {graph}.")
        return [sp.csr_array((int(graph), int(graph)))], int(graph)
    several = list(graph) if isinstance(graph, list | tuple) else [graph]
    if len(several) > 1 and not (dwell is not None and 0 < dwell < np.inf):
        raise ValueError(f"{name}: several graphs need dwell, how long each lasts, a positive time; got {dwell!r}.")
    found = [rate_laplacian(each) for each in several]
    sizes = {laplacian.shape[0] for laplacian in found}
    if len(sizes) != 1:
        raise ValueError(f"{name}: all graphs must have the same nodes, got {sorted(sizes)} of them.")
    return found, sizes.pop()


def chis(laplacians: Sequence[Any]) -> tuple[float, float]:
    """The largest constants; of nodes that never meet there are none."""
    if not laplacians[0].nnz:
        return float("nan"), float("nan")
    found = np.array([chi(laplacian) for laplacian in laplacians])
    return float(found[:, 0].max()), float(found[:, 1].max())


def span(name: str, horizon: Any, marks: Any, least: float = np.finfo(float).tiny) -> np.ndarray:
    """The marks from 0 to the horizon, both included, given as a number of equal spans or as times."""
    if isinstance(horizon, bool) or not least <= horizon < np.inf:
        raise ValueError(f"{name}: horizon must be a positive time, got {horizon!r}.")
    if isinstance(marks, int) and not isinstance(marks, bool) and marks > 0:
        return np.linspace(0.0, horizon, marks + 1)
    inner = np.asarray(marks, float)
    if inner.ndim != 1 or (inner < 0).any() or (inner > horizon).any() or (np.diff(inner) <= 0).any():
        raise ValueError(
            f"{name}: marks must be a positive number of spans, or increasing times in [0, {horizon}], got {marks!r}."
        )
    return np.concatenate([[0.0], inner[(inner > 0) & (inner < horizon)], [horizon]])


def node_rates(name: str, rates: Any, n: int) -> np.ndarray:
    """One gradient rate for each node."""
    values = np.asarray(rates, float)
    if values.shape not in ((), (n,)) or not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(
            f"{name}: gradient_rates must be a number or one for each of {n} nodes, not negative; got {rates!r}."
        )
    return np.broadcast_to(values, n)


def periods(graphs: Sequence[Any], horizon: float, dwell: float | None) -> list[tuple[float, float, Any]]:
    """When each graph holds: (from, to, Laplacian)."""
    if len(graphs) == 1 or dwell is None:
        return [(0.0, horizon, graphs[0])]
    count = int(np.ceil(horizon / dwell))
    return [(k * dwell, min((k + 1) * dwell, horizon), graphs[k % len(graphs)]) for k in range(count)]


def clock_times(draw: Any, names: np.ndarray, rates: np.ndarray, start: float, stop: float) -> tuple[Any, Any]:
    """Times and names of independent Poisson clocks: their numbers, then uniform times."""
    counts = draw.poisson(rates * (stop - start))
    which = np.repeat(names, counts)
    return start + (stop - start) * draw.random(len(which)), which
