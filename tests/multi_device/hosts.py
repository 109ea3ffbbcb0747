"""One of several processes that keep checkpoints of one run together: arguments are its number and the folder.

The address of the first and how many there are come from the environment.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from adozoo import placement
from experiments.checkpoints import Checkpoints
from experiments.engine import initialise_hosts


def main(host: str, folder: str) -> None:
    found = initialise_hosts(host=int(host))
    mesh = placement.node_mesh()
    start = {"x": placement.shard(jnp.zeros((8, 3)), mesh), "key": jax.random.key(0), "step": np.int64(0)}
    checkpoints, configuration = Checkpoints(folder), {"seed": 0}
    before = checkpoints.latest(start, configuration)
    for step in (1, 2, 3):
        x = placement.shard(step + jnp.arange(24.0).reshape(8, 3), mesh)
        checkpoints.save(step, {"x": x, "key": jax.random.key(step), "step": np.int64(step)}, configuration)
    step, tree = checkpoints.latest(start, configuration)
    same = all(
        np.array_equal(shard.data, (3 + np.arange(24.0).reshape(8, 3))[shard.index])
        for shard in tree["x"].addressable_shards
    )
    report = {
        "found": found,
        "before": before,
        "step": step,
        "same": same and tree["x"].sharding == start["x"].sharding and int(tree["step"]) == 3,
        "key": jax.random.key_data(tree["key"]).tolist(),
        "steps": checkpoints.steps(),
    }
    print(json.dumps(report), flush=True)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
