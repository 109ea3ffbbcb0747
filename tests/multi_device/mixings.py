"""Schedules, faults and dtypes under placement, against one device; and which collectives each mixing is lowered to.

Prints as JSON: `distances` by case, `collectives` by mixing (how many of each in the compiled program), `checks`.
Run with 8 (fake) devices; the argument "quick" leaves out what is made of the same parts as something else.
"""

import json
import re
import sys
from collections import Counter
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

import adozoo
from adozoo import channel, graphs, placement

DEVICES, N, STEPS = 8, 16, 4
KEY = jax.random.key(3)
ROWS = jax.P("nodes")
LOWERED = (
    "ring",
    "torus",
    "hypercube",
    "exponential",
    "star",
    "tree",
    "dense",
    "identity",
    "mean",
    "one peer",
    "every",
)
LATE = ("one peer", "drops", "tree", "mean")
SLOW = (
    *("regular", "power", "every, cycle", "edge", "matching, complete", "drops, mean", "drops, matching"),
    *("recorded", "nodes", "noise, every"),
)


def mixings() -> dict[str, adozoo.Mixing]:
    ring = adozoo.mixing(graphs.ring(N))
    directed = graphs.directed_ring(N)
    directed.add_edges_from([(0, 9), (4, 13)])
    push = adozoo.mixing(directed)
    peers = adozoo.one_peer_exponential(N)
    tree = adozoo.mixing(graphs.binary_tree(N))
    regular = nx.random_regular_graph(3, N, seed=1)
    draw = np.random.default_rng(0)
    dense = adozoo.weights.lazy(adozoo.mixing(graphs.complete(N)).matrix)
    return {
        "ring": ring,
        "torus": adozoo.mixing(graphs.torus(4, 4)),
        "hypercube": adozoo.mixing(graphs.hypercube(N)),
        "exponential": adozoo.mixing(graphs.exponential(N)),
        "star": adozoo.mixing(graphs.star(N)),
        "tree": tree,
        "regular": adozoo.mixing(regular, method="sparse"),
        "dense": adozoo.mixing(dense, method="dense"),
        "identity": adozoo.identity(N),
        "mean": adozoo.exact_mean(N),
        "directed": push,
        "power": adozoo.power(ring, 3),
        "one peer": peers,
        "cycle": adozoo.cycle([adozoo.exact_mean(N), ring, tree, adozoo.identity(N)]),
        "every": adozoo.gossip_every(ring, 2),
        "every, cycle": adozoo.gossip_every(peers, 2),
        "edge": adozoo.random_edge(regular, KEY),
        "matching": adozoo.random_matching(regular, KEY),
        "matching, complete": adozoo.random_matching(graphs.complete(N), KEY),
        "subgraph": adozoo.random_subgraph(regular, KEY, 0.5),
        "drops": channel.drops(ring, 0.3, KEY),
        "drops, push": channel.drops(push, 0.3, KEY),
        "drops, one peer": channel.drops(peers, 0.3, KEY),
        "drops, mean": channel.drops(adozoo.exact_mean(N), 0.3, KEY),
        "drops, matching": channel.drops(adozoo.random_matching(regular, KEY), 0.3, KEY),
        "recorded": channel.recorded_drops(tree, draw.random((2, N, N)) < 0.5),
        "links": channel.link_failures(tree, 0.3, KEY),
        "nodes": channel.node_failures(ring, draw.random((3, N)) < 0.7),
        "noise": channel.noisy(ring, 0.1, KEY),
        "noise, every": channel.noisy(adozoo.gossip_every(peers, 2), 0.1, KEY),
        "every, noise, drops": adozoo.gossip_every(channel.noisy(channel.drops(ring, 0.3, KEY), 0.1, KEY), 2),
    }


def distance(x: Any, y: Any) -> float:
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    return max(float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max()) for a, b in pairs)


def collectives(function: Any, *arguments: Any) -> dict[str, int]:
    """How many of each collective the compiled program holds."""
    text = jax.jit(function).lower(*arguments).compile().as_text()
    names = "all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute|collective-broadcast"
    return dict(Counter(re.findall(rf" ({names})(?:-start)?\(", text)))


def main(scale: str) -> None:
    mesh = placement.node_mesh()
    draw = np.random.default_rng(1)
    x = {"a": jnp.asarray(draw.normal(size=(N, 3))), "b": jnp.asarray(draw.normal(size=N))}
    on_mesh = placement.shard(x, mesh)
    given = {name: mix for name, mix in mixings().items() if scale != "quick" or name not in SLOW}
    placed = {name: placement.place(mix, mesh) for name, mix in given.items()}
    report: dict[str, Any] = {"distances": {}, "collectives": {}, "checks": {}}

    @partial(jax.jit, static_argnames="which")
    def everywhere(x: Any, t: Any, which: str) -> Any:
        return {name: mix(x, t, message=1) for name, mix in (placed if which == "placed" else given).items()}

    results = [everywhere(on_mesh, t, "placed") for t in range(STEPS)]
    expected = [everywhere(x, t, "given") for t in range(STEPS)]
    for name in given:
        pairs = zip(results, expected, strict=True)
        report["distances"][name] = max(distance(result[name], one[name]) for result, one in pairs)
    report["checks"]["rows stay"] = all(
        leaf.sharding.shard_shape(leaf.shape)[0] == N // DEVICES for leaf in jax.tree.leaves(results)
    )

    state = placement.init(adozoo.dsgd(0.1, placed["ring"]), on_mesh)
    for name in LOWERED:
        report["collectives"][name] = collectives(adozoo.dsgd(0.1, placed[name]).update, on_mesh, state, on_mesh)

    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), x)
    for name in ("ring", "dense", "mean"):
        before, after = jax.jit(given[name].__call__)(half, 1), jax.jit(placed[name].__call__)(half, 1)
        report["distances"][f"bfloat16: {name}"] = distance(before, after)
        report["checks"][f"bfloat16 {name}"] = all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(after))
    wire = jax.jit(placed["ring"].__call__).lower(placement.shard(half, mesh)).as_text()
    sent = re.findall(r"collective_permute.*?-> tensor<\w*?(bf16|f32|f64)>", wire)
    report["checks"]["16 bits on the wire"] = len(sent) == 4 and set(sent) == {"bf16"}

    def run(mix: adozoo.Mixing) -> Any:
        def loss(rate: Any) -> Any:
            tx = adozoo.dsgd(rate, mix, momentum=0.5)
            params, _, _ = adozoo.simulate(tx, lambda p, step, key: jax.tree.map(jnp.tanh, p), x, STEPS)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

        return jax.vmap(jax.value_and_grad(loss))

    rates = jnp.array([0.05, 0.1, 0.2])
    for name in ("dense", "one peer"):
        report["distances"][f"vmap, grad: {name}"] = distance(
            jax.jit(run(given[name]))(rates), jax.jit(run(placed[name]))(rates)
        )

    matrices = jnp.stack([given["ring"].matrix, given["tree"].matrix])
    traced = jax.jit(jax.vmap(lambda w: placement.place(adozoo.mixing(w), mesh)(x)))(matrices)
    report["distances"]["traced matrices"] = distance(traced, jax.vmap(lambda w: adozoo.mixing(w)(x))(matrices))

    grid = jax.make_mesh((4, 2), ("nodes", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    spread = jax.device_put(jnp.ones((N, 4)) * jnp.arange(N)[:, None], jax.NamedSharding(grid, jax.P("nodes", "model")))
    mixed = jax.jit(placement.place(given["torus"], grid).__call__)(spread)
    report["distances"]["second mesh axis"] = distance(mixed, given["torus"](np.asarray(spread)))
    report["checks"]["second mesh axis stays"] = mixed.sharding.shard_shape(mixed.shape) == (N // 4, 2)

    try:
        placement.shard(jnp.ones(N + 1), mesh)
    except ValueError as error:
        report["uneven"] = str(error)

    delays = np.random.default_rng(2).integers(0, 3, (N, N))

    def late(mix: adozoo.Mixing) -> Any:
        tx = channel.delayed(lambda mix: adozoo.gradient_tracking(0.1, mix), mix, delays)
        return lambda x: adozoo.simulate(tx, lambda p, step, key: jax.tree.map(jnp.tanh, p), x, STEPS)[0]

    for name in LATE[: 2 if scale == "quick" else None]:
        before = jax.jit(late(given[name]))(x)
        report["distances"][f"delayed: {name}"] = distance(jax.jit(late(placed[name]))(on_mesh), before)
    ring = placement.local(given["ring"], "nodes", DEVICES)
    inside = jax.shard_map(late(ring), mesh=mesh, in_specs=ROWS, out_specs=ROWS)
    report["distances"]["delayed: shard_map"] = distance(jax.jit(inside)(on_mesh), jax.jit(late(given["ring"]))(x))
    tx = channel.delayed(lambda mix: adozoo.dsgd(0.1, mix), placed["ring"], delays)
    state = placement.init(tx, on_mesh)
    report["collectives"]["delayed ring"] = collectives(tx.update, on_mesh, state, on_mesh)
    report["checks"]["history by rows"] = all(
        leaf.sharding.shard_shape(leaf.shape)[1] == N // DEVICES
        for history in (state.sent, jax.jit(tx.update)(on_mesh, state, on_mesh)[1].sent)
        for leaf in jax.tree.leaves(history)
    )

    for name, graph in (
        ("chain", adozoo.graphs.path(N)),
        ("ring", adozoo.graphs.ring(N)),
        ("star", adozoo.graphs.star(N)),
    ):
        links = adozoo.channel.drops(adozoo.exchange(graph), 0.3, jax.random.key(2))
        spread = placement.place(links, mesh)

        def told(links: Any, x: Any, t: Any) -> Any:
            own = links.per_link(x)
            doubled = links.from_slots(jax.tree.map(lambda leaf: 2 * leaf, links.to_slots(own)))
            return links.collect((links.swap(own, t), links.swap(doubled, t, message=1)))

        pairs = [(jax.jit(partial(told, spread))(on_mesh, t), jax.jit(partial(told, links))(x, t)) for t in range(3)]
        report["distances"][f"links of a {name}"] = max(distance(*pair) for pair in pairs)
        plain = placement.place(adozoo.exchange(graph), mesh)
        state = placement.init(adozoo.relay_sgd(adozoo.descent(0.1), plain), on_mesh) if name == "chain" else None
        if state is not None:
            update = adozoo.relay_sgd(adozoo.descent(0.1), plain).update
            report["collectives"]["relay"] = collectives(update, on_mesh, state, on_mesh)
        swap = collectives(lambda x, plain=plain: plain.swap(plain.per_link(x)), on_mesh)
        report["collectives"][f"links of a {name}"] = swap
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
