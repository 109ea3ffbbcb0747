"""Mixing: the cost of one application against the number of edges, up to 100 000 nodes."""

import math
from typing import Any

import jax
import networkx as nx
import numpy as np

import adozoo
from benchmarks.report import Result
from benchmarks.timing import Spread, take_turns

X64 = False
DIM = 32
WORK = 2e7  # numbers written in a call


def _torus(n: int) -> nx.Graph:
    rows = max(divisor for divisor in range(1, math.isqrt(n) + 1) if n % divisor == 0)
    return adozoo.graphs.torus(rows, n // rows)


GRAPHS = {
    "ring": adozoo.graphs.ring,
    "torus": _torus,
    "random regular, degree 4": lambda n: adozoo.graphs.random_regular(4, n, seed=0),
}


def run(quick: bool) -> Result:
    result = Result(
        "Mixing: cost against the number of edges",
        f"One application of `adozoo.mixing` to [n, {DIM}] float32 inside a scan; edges are the non-zeros of W: "
        "directed links and self-loops.",
    )
    for name, graph in GRAPHS.items():
        sizes = (100, 1000, 10_000) if quick else (100, 1000, 10_000, 100_000)
        mixings = {n: adozoo.mixing(graph(n)) for n in sizes}
        steps = {n: max(10, int(WORK / (n * DIM))) for n in sizes}
        calls = {str(n): _call(mix, steps[n]) for n, mix in mixings.items()}
        times = take_turns(calls, 3 if quick else 9)
        spreads = {n: Spread.of(times[str(n)], 1 / steps[n]) for n in sizes}
        edges = {n: mixings[n].sparse_matrix().nnz for n in sizes}
        for n in sizes:
            per_edge = spreads[n].median / edges[n] * 1e9
            more = {"method": type(mixings[n]).__name__, "edges": edges[n], "ns an edge": per_edge}
            result.row(f"{name}, n = {n}", "adozoo", spreads[n], **more)
        large = [n for n in sizes if n >= 1000]  # below, the scan's own cost shows
        exponent = np.polyfit(np.log([edges[n] for n in large]), np.log([spreads[n].median for n in large]), 1)[0]
        result.target(f"{name}: exponent of time in edges, n >= 1000", float(exponent), most=1.15, unit="")
    result.notes.append(NOTE)
    return result


def _call(mix: Any, steps: int) -> Any:
    x = jax.random.normal(jax.random.key(0), (mix.n, DIM))
    scan = jax.jit(lambda x: jax.lax.scan(lambda x, _: (mix(x), None), x, None, length=steps)[0])
    return lambda: jax.block_until_ready(scan(x))


NOTE = """\
An exponent above 1 is a step in the cost of an edge, where the arrays outgrow a cache: [1000, 32] is 128 kB and
[100000, 32] is 13 MB. The ring, with the least arithmetic a number, shows it most. That caches are
the cause is inferred from the sizes, not measured with counters."""
