"""One of several processes that run some methods together: arguments are the port, the process and their number.

Every process compares the rows that its own devices hold with the run on one device, and prints the distances as JSON.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

import adozoo
from adozoo import placement

N, STEPS = 8, 10
METHODS = ("dsgd_momentum", "diging", "extra", "sgp", "all_reduce_sgd", "local_dsgd", "relay_sgd", "power_gossip")


def main(port: str, process: str, processes: str) -> None:
    jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(process))
    mesh = placement.node_mesh()
    directed = adozoo.graphs.directed_ring(N)
    directed.add_edge(0, 5)
    ring = adozoo.mixing(adozoo.graphs.ring(N))
    draw = np.random.default_rng(0)
    data = (draw.normal(size=(N, 3)), 1 + draw.random((N, 3)), draw.normal(size=(N, 3)))

    def run(name: str, mix: adozoo.Mixing):
        tx = adozoo.zoo.entry(name).build(0.05, mix)

        def steps(x, scale, target):
            return adozoo.simulate(tx, lambda x, step, key: scale * (x - target), x, STEPS)[:2]

        return tx, jax.jit(steps)

    report = {"devices": [len(jax.local_devices()), len(jax.devices())], "distances": {}, "own rows": True}
    given = (adozoo.mixing(directed), ring, adozoo.exact_mean(N), adozoo.mixing(adozoo.graphs.heap_binary_tree(N)))
    for name in METHODS:
        entry = adozoo.zoo.entry(name)
        mix = next(m for m in given if entry.admits(m))
        expected = np.asarray(run(name, mix)[1](*map(jnp.asarray, data))[0])
        tx, steps = run(name, placement.place(mix, mesh))
        shared = placement.shard(data, mesh)
        params, state = steps(*shared)
        report["distances"][name] = max(
            float(np.abs(np.asarray(shard.data) - expected[shard.index]).max()) for shard in params.addressable_shards
        )
        started = placement.init(tx, shared[0])
        report["own rows"] &= all(
            leaf.sharding.shard_shape(leaf.shape)[0] == leaf.shape[0] // len(jax.devices())
            for leaf in jax.tree.leaves((params, state, started))
            if leaf.ndim
        )
    key = placement.shard((jax.random.key(0), jnp.zeros(N)), mesh)[0]  # keys go to all processes
    report["key"] = bool(
        np.all(np.asarray(jax.random.key_data(key)) == np.asarray(jax.random.key_data(jax.random.key(0))))
    )
    print(json.dumps(report), flush=True)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
