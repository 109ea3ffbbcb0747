"""Every registered method on one device, sharded over 8, in blocks under shard_map, and one node a device under pmap.

Prints as JSON, for each number of nodes and place, how far each method's params are from the run on one device, and
which leaves of params and states left the mesh. Run with 8 (fake) devices; arguments are numbers of nodes.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import adozoo
from adozoo import placement

DEVICES, STEPS, DIM, LEARNING_RATE = 8, 10, 3, 0.05


def choices(n: int) -> list[adozoo.Mixing]:
    """Mixings from the most to the least demanding; a method gets the first that its theory admits."""
    directed = adozoo.graphs.directed_ring(n)
    directed.add_edges_from([(0, n // 2), (1, n - 2)])
    ring = adozoo.mixing(adozoo.weights.lazy(adozoo.weights.metropolis(adozoo.graphs.ring(n))))
    hard = adozoo.mixing(directed) if n == DEVICES else adozoo.one_peer_exponential(n)
    rates = adozoo.dadao_rates(adozoo.graphs.ring(n))
    clocks = [adozoo.events.poisson(rates, 5.0, paired=paired) for paired in (False, True)]
    return [hard, ring, adozoo.exact_mean(n), adozoo.mixing(adozoo.graphs.heap_binary_tree(n)), *clocks]


def chosen(n: int) -> dict[str, adozoo.zoo.Entry]:
    """With as many nodes as devices one variant of each factory, else all methods."""
    known = adozoo.zoo.entries()
    if n != DEVICES:
        return known
    first = {entry.factory.__name__: name for name, entry in reversed(known.items())}
    return {name: known[name] for name in sorted(first.values())}


def runs(spread: Callable[[adozoo.Mixing], adozoo.Mixing], n: int) -> Callable[..., Any]:
    """(params, hessians, targets) -> by method, the params and state after a few steps; compiled as one program."""
    given = choices(n)
    mixings = {name: next(mix for mix in given if entry.admits(mix)) for name, entry in chosen(n).items()}

    def run(params: Any, hessians: Any, targets: Any) -> Any:
        def gradient(x: Any, step: Any, key: Any) -> Any:
            return {
                "matrix": jnp.einsum("nij,njk->nik", hessians, x["matrix"] - targets[:, :, None]),
                "bias": x["bias"] - targets[:, 0],
            }

        results = {}
        for name, entry in chosen(n).items():
            tx = entry.build(LEARNING_RATE, spread(mixings[name]))
            flat = 0.1 if entry.oracle == "dual" else 1.0  # gradients of conjugates bend by 1 / mu at most
            scaled = lambda x, step, key, flat=flat: jax.tree.map(lambda g: flat * g, gradient(x, step, key))  # noqa: E731
            results[name] = adozoo.simulate(tx, scaled, params, STEPS)[:2]
        return results

    return run


def distances(results: Any, expected: Any) -> dict[str, float]:
    return {
        name: max(
            float(np.abs(np.asarray(x) - np.asarray(y)).max())
            for x, y in zip(jax.tree.leaves(results[name][0]), jax.tree.leaves(expected[name][0]), strict=True)
        )
        for name in expected
    }


def strays(results: Any, n: int) -> list[str]:
    """Leaves with rows, for nodes or for links, that are not spread by rows over the mesh."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(results):
        of_links = any(getattr(key, "name", "") in ("messages", "directions", "since") for key in path)
        rows = leaf.shape[0] if leaf.ndim else 0
        if rows and ((rows != n and not of_links) or leaf.sharding.shard_shape(leaf.shape)[0] != rows // DEVICES):
            found.append(jax.tree_util.keystr(path))
    return found


def started(params: Any, mesh: Any) -> Any:
    """All methods' states as `placement.init` lays them out, and after one step."""
    n = len(params["bias"])
    given = choices(n)
    results = {}
    for name, entry in chosen(n).items():
        mix = next(mix for mix in given if entry.admits(mix))
        tx = entry.build(LEARNING_RATE, placement.place(mix, mesh))
        state = placement.init(tx, params)
        results[name] = (state, jax.jit(tx.update)(params, state, params))
    return results


def main(*sizes: str) -> None:
    mesh = placement.node_mesh()
    rows = jax.P("nodes")
    report: dict[str, Any] = {"devices": len(jax.devices())}
    for n in map(int, sizes):
        draw = np.random.default_rng(n)
        roots = draw.normal(size=(n, DIM, DIM))
        params = {"matrix": draw.normal(size=(n, DIM, 2)), "bias": draw.normal(size=n)}
        data = (
            jax.tree.map(jnp.asarray, params),
            jnp.asarray(roots @ roots.swapaxes(1, 2)),
            jnp.asarray(draw.normal(size=(n, DIM))),
        )
        expected = jax.jit(runs(lambda mix: mix, n))(*data)
        report[f"moved {n}"] = distances(expected, dict.fromkeys(expected, data))

        placed = runs(lambda mix: placement.place(mix, mesh), n)
        results = jax.jit(placed)(*placement.shard(data, mesh))
        report[f"placed {n}"] = distances(results, expected)
        report[f"strays {n}"] = strays(results, n)
        if n == DEVICES:
            report["strays of init"] = strays(started(placement.shard(data[0], mesh), mesh), n)

        def block(*data: Any, n: int = n) -> Any:  # the params only: how a state lies is the caller's to say
            results = runs(lambda mix: placement.local(mix, "nodes", DEVICES), n)(*data)
            return {name: (params,) for name, (params, _) in results.items()}

        mapped = jax.shard_map(block, mesh=mesh, in_specs=(rows, rows, rows), out_specs=rows)
        report[f"shard_map {n}"] = distances(jax.jit(mapped)(*data), expected)
        if n == DEVICES:
            results = placement.join(jax.pmap(block, axis_name="nodes")(*placement.split(data, DEVICES)))
            report[f"pmap {n}"] = distances(results, expected)
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
