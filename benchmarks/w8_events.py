"""W8: 10^5 events on 64 nodes, A2CiD2 and DADAO, against a plain event loop in NumPy and against moving rows."""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.linalg import expm

import adozoo
from benchmarks.report import Result
from benchmarks.timing import Spread, cold, take_turns

X64 = True
NODES, EVENTS = 64, 100_000
DIM, SHORT = 1000, 10
LEARNING_RATE, MU, SMOOTHNESS = 0.05, 1.0, 10.0
GRAPHS = {"ring": adozoo.graphs.ring, "star": adozoo.graphs.star, "complete": adozoo.graphs.complete}
LOOP_SHARE = 100  # the plain loop runs one of so many events
TYPES = {"float32": np.float32, "float64": np.float64}


@cache
def draw(graph: str, method: str, form: str, count: int, seed: int) -> Any:
    """About `count` events, gradients and exchanges, at the method's own rates."""
    shape = GRAPHS[graph](NODES)
    rates = adozoo.dadao_rates(shape) if method == "DADAO" else adozoo.resistance.normalize_rates(shape, "node_rate")
    return adozoo.events.poisson(rates, count / (NODES + rates.trace() / 2), seed=seed, form=form)


def events(graph: str, method: str, form: str, count: int, seed: int = 0) -> Any:
    """The same, padded alike for all seeds."""
    first = draw(graph, method, form, count, 0)
    longest = (int(1.1 * size) + 64 for size in (first.rounds, len(first.meetings)))
    return adozoo.events.pad(draw(graph, method, first.form, count, seed), *longest)


def method_run(method: str) -> Callable[..., Any]:
    """(events, x, targets) -> x; gradients are x - targets."""

    @jax.jit
    def run(events: Any, x: Any, targets: Any) -> Any:
        if method == "A2CiD2":
            tx = adozoo.acid(optax.sgd(LEARNING_RATE), events)
        else:
            tx = adozoo.dadao(events, MU, SMOOTHNESS, adozoo.dadao_parameters(MU, SMOOTHNESS, events.chi_1))
        return adozoo.simulate_events(tx, lambda x, *_: x - targets, x, events)[0]

    return run


def rows_of(drawn: Any) -> list[tuple[int, float, int, int, float]]:
    """The events one by one, in an order in which they may happen, with how long each node flowed before."""
    drawn, rows = drawn.in_levels(), []
    for number in range(drawn.rounds + 1):
        rows += [(0, drawn.wait[number, i], i, -1, 0.0) for i in np.flatnonzero(drawn.takes[number])]
        for level in range(drawn.first[number], drawn.first[number + 1]):
            partner, waited = drawn.meetings[level], drawn.waited[level]
            rows += [(1, waited[i], i, j, waited[j]) for i, j in enumerate(partner) if i < j]
    return rows


def acid_loop(rows: Any, x: np.ndarray, targets: np.ndarray, chi_1: float, chi_2: float) -> np.ndarray:
    """A2CiD2 as one would write it in NumPy."""
    eta, alpha, far = adozoo.acid_parameters(chi_1, chi_2)
    x, tilde = x.copy(), x.copy()

    def flow(i: int, time: float) -> None:
        kept = math.exp(-2 * eta * time)
        half = (0.5 - 0.5 * kept) * (tilde[i] - x[i])
        x[i] += half
        tilde[i] -= half

    for kind, time, i, j, other in rows:
        flow(i, time)
        if kind == 0:
            step = LEARNING_RATE * (x[i] - targets[i])
            x[i] -= step
            tilde[i] -= step
            continue
        flow(j, other)
        gap = x[i] - x[j]
        x[i] -= alpha * gap
        x[j] += alpha * gap
        tilde[i] -= far * gap
        tilde[j] += far * gap
    return x


def dadao_loop(rows: Any, x: np.ndarray, targets: np.ndarray, chi_1: float, chi_2: float) -> np.ndarray:
    """DADAO as in its authors' code: one matrix exponential a flow, six vectors a node in one array."""
    del chi_2
    p = adozoo.dadao_parameters(MU, SMOOTHNESS, chi_1)
    drift = np.array(
        [
            [-p.eta, p.eta, 0, 0, 0, 0],
            [p.eta_tilde, -p.eta_tilde, 0, 0, 0, 0],
            [0, 0, -p.alpha, p.alpha, 0, 0],
            [0, -p.theta * p.nu, -p.theta, 0, -p.theta, 0],
            [0, 0, 0, 0, -p.alpha, p.alpha],
            [0, 0, 0, 0, p.alpha_tilde, -p.alpha_tilde],
        ]
    )
    state = np.zeros((NODES, 6, x.shape[1]), x.dtype)
    state[:, 0] = x

    def flow(i: int, time: float) -> None:
        state[i] = expm(time * drift).astype(x.dtype) @ state[i]

    for kind, time, i, j, other in rows:
        flow(i, time)
        if kind == 0:
            residual = state[i, 0] - targets[i] - p.nu * state[i, 0] - state[i, 3]
            state[i, 0] -= p.gamma * residual
            state[i, 1] -= p.gamma_tilde * residual
            state[i, 3] += (p.delta + p.delta_tilde) * residual
            continue
        flow(j, other)
        gap = state[i, 2] + state[i, 4] - state[j, 2] - state[j, 4]
        state[i, 4] -= p.beta * gap
        state[i, 5] -= p.beta_tilde * gap
        state[j, 4] += p.beta * gap
        state[j, 5] += p.beta_tilde * gap
    return state[:, 0]


def move_rows(x: np.ndarray, orders: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Two rows an event, as fast as NumPy moves them: all nodes' rows at once, in a new order."""
    for order in orders:
        np.take(x, order, axis=0, out=out)
    return out


LOOPS = {"A2CiD2": acid_loop, "DADAO": dadao_loop}


def data(kind: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, targets = rng.normal(size=(2, NODES, size)).astype(TYPES[kind])
    return x, targets


def program(method: str, graph: str, form: str, kind: str, size: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    x, targets = map(jnp.asarray, data(kind, size))
    return method_run(method), (jax.tree.map(jnp.asarray, events(graph, method, form, EVENTS)), x, targets)


def run(quick: bool) -> Result:
    result = Result(
        f"W8: {EVENTS} events on {NODES} nodes",
        "A whole run of `adozoo.simulate_events`, event lists as arguments, d numbers a node. The plain loop does the "
        "same events one by one in NumPy (DADAO with `scipy.linalg.expm` a flow, as its authors' code), timed on "
        f"one in {LOOP_SHARE} of them and scaled. Rows moved: two rows an event by `numpy.take`, all nodes' at once.",
    )
    repeats = 2 if quick else 3
    cases = [(method, graph, size) for graph in ("ring", "complete") for size in (DIM, SHORT) for method in LOOPS]
    for method, graph, size in cases[:2] if quick else [*cases, ("A2CiD2", "star", DIM)]:
        for kind in TYPES if size == DIM else ("float32",):
            _compare(result, method, graph, kind, size, repeats, quick)
    result.notes.append(NOTE)
    return result


def _compare(result: Result, method: str, graph: str, kind: str, size: int, repeats: int, quick: bool) -> None:
    case = f"{method}, {graph}, d = {size}, {kind}"
    x, targets = data(kind, size)
    short = rows_of(events(graph, method, "levels", EVENTS // LOOP_SHARE))
    drawn = events(graph, method, "auto", EVENTS)
    scale = int(drawn.gradients[-1] + drawn.communications[-1])
    orders = np.random.default_rng(1).permuted(np.tile(np.arange(NODES), (2 * scale // NODES, 1)), axis=1)
    calls: dict[str, Any] = {}
    for form in ("levels", "pairs"):
        function, arguments = program(method, graph, form, kind, size)
        calls[form] = partial(_call, function, arguments)
    loop = partial(LOOPS[method], short, x, targets, drawn.chi_1, drawn.chi_2)
    calls["numpy loop"] = loop
    calls["rows moved by numpy"] = partial(move_rows, x, orders, np.empty_like(x))
    shares = {"numpy loop": scale / len(short)}
    times = {name: Spread.of(taken, shares.get(name, 1.0)) for name, taken in take_turns(calls, repeats).items()}
    ours = times[drawn.form].median
    for name, spread in times.items():
        who = f"adozoo, {name}" + (" (chosen)" if name == drawn.form else "") if name in ("levels", "pairs") else name
        timed = name == drawn.form and kind == "float32" and not quick
        first = (
            cold("w8_events", repeats=1, method=method, graph=graph, form=name, kind=kind, size=size) if timed else None
        )
        result.row(case, who, spread, first, **{"us an event": 1e6 * spread.median / scale})
    result.target(f"{case}: time against rows moved by numpy", ours / times["rows moved by numpy"].median, most=20)
    result.target(f"{case}: faster than the plain loop", times["numpy loop"].median / ours, least=20)
    function, arguments = program(method, graph, drawn.form, kind, size)
    for seed in (0, 1):
        lists = jax.tree.map(jnp.asarray, events(graph, method, drawn.form, EVENTS, seed))
        jax.block_until_ready(function(lists, *arguments[1:]))
    compiled = function._cache_size()  # pyrefly: ignore[missing-attribute]
    result.target(f"{case}: programs compiled for two lists of one length", compiled, most=1, unit="")


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return jax.block_until_ready(function(*arguments))


NOTE = """\
What decides. With d = 1000 an event of A2CiD2 reads and writes 16 kB in float32, and takes little more than that: a
loop in NumPy that works in place, as here, has few calls to pay for such rows, and 20 times less than it would be out
of reach. In the form "levels" all 64 nodes are read and written for the few that meet, which pays off under `vmap` and
on accelerators. The plain loop of DADAO pays for one `scipy.linalg.expm` a flow, which here is written out."""
