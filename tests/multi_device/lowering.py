"""Every registered method lowered for CUDA and TPU, in float32: on one device, and over eight that are not there.

Prints as JSON, by place and method, for what it was lowered and what stands in the lowered module. Run with one device.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

import adozoo
from adozoo import placement

N, PLATFORMS = 16, ("cuda", "tpu")


def main() -> None:
    mesh = AbstractMesh((8,), ("nodes",), axis_types=(AxisType.Auto,))
    directed = adozoo.graphs.directed_ring(N)
    directed.add_edge(0, 5)
    given = (
        adozoo.mixing(directed),
        adozoo.mixing(adozoo.weights.lazy(adozoo.weights.metropolis(adozoo.graphs.torus(4, 4)))),
        adozoo.exact_mean(N),
        adozoo.mixing(adozoo.graphs.heap_binary_tree(N)),
        *(adozoo.events.poisson(adozoo.dadao_rates(adozoo.graphs.ring(N)), 5.0, paired=kind) for kind in (False, True)),
    )
    shapes = {"w": jax.ShapeDtypeStruct((N, 3), jnp.float32), "b": jax.ShapeDtypeStruct((N,), jnp.float32)}
    rows = jax.NamedSharding(mesh, jax.P("nodes"))
    on_mesh = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=rows), shapes)
    report: dict[str, Any] = {"one device": {}, "placed": {}}
    for name, entry in adozoo.zoo.entries().items():
        mix = next(mix for mix in given if entry.admits(mix))
        for place, params, mixing in (("one device", shapes, mix), ("placed", on_mesh, placement.place(mix, mesh))):
            tx = entry.build(0.1, mixing)

            def step(grads: Any, params: Any, tx: Any = tx) -> Any:
                return tx.update(grads, tx.init(params), params)

            exported = jax.export.export(jax.jit(step), platforms=PLATFORMS)(params, params)
            text = exported.mlir_module()
            report[place][name] = {
                "platforms": list(exported.platforms),
                "devices": exported.nr_devices,
                "doubles": text.count("f64"),
                "gathers": text.count("all_gather") + text.count("all_to_all"),
            }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
