"""Placement: one device, a mesh, shard_map, pmap and several processes give the same numbers, by neighbours' messages.

What needs several devices is a script in `multi_device`, run with fake ones in a process of its own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import adozoo
from adozoo import _halo, channel, placement

SCRIPTS = Path(__file__).parent / "multi_device"
METHODS = sorted(adozoo.zoo.entries())
# One of each factory; the first by name.
VARIANTS = sorted({e.factory.__name__: name for name, e in reversed(adozoo.zoo.entries().items())}.values())
MOVES = "collective-permute"


def start(script: str, *arguments: Any, devices: int = 8, x64: bool = True) -> subprocess.Popen[str]:
    """The script in a process with fake devices, where warnings are errors as they are here."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    settings = {
        "JAX_ENABLE_X64": str(int(x64)),
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(SCRIPTS.parents[1]),
        "XLA_FLAGS": flags,
    }
    command = [sys.executable, "-W", "error", str(SCRIPTS / script), *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=os.environ | settings, text=True, **streams)


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it printed, and its errors, once it has ended."""
    try:
        return process.communicate(timeout=600)
    finally:
        process.kill()


def read(process: subprocess.Popen[str], printed: str, errors: str) -> Any:
    """The JSON in the last line of what it printed."""
    assert process.returncode == 0, errors[-3000:]
    return json.loads(printed.splitlines()[-1])


def report(script: str, *arguments: Any, **options: Any) -> Any:
    """What the script reports.

    On a loaded machine XLA's emulation of several devices by threads aborts now and then, when a thread enters the next
    rendezvous of a loop before all have left the last one. Such an abort says nothing about us: up to three tries.
    """
    for _ in range(3):
        process = start(script, *arguments, **options)
        printed, errors = finish(process)
        if process.returncode != -signal.SIGABRT or "rendezvous.h" not in errors:
            break
    return read(process, printed, errors)


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 16])
def test_every_method_is_the_same_wherever_its_nodes_live(n):
    found = report("methods.py", n)
    assert found["devices"] == 8
    assert min(found[f"moved {n}"].values()) > 0.1  # they were not just equal by standing still
    for place in ("placed", "shard_map", "pmap")[: 3 if n == 8 else 2]:
        distances = found[f"{place} {n}"]
        assert sorted(distances) == (VARIANTS if n == 8 else METHODS)
        assert {name: far for name, far in distances.items() if not far <= 1e-12} == {}, place
    assert found[f"strays {n}"] == []
    assert found.get("strays of init", []) == []


@pytest.mark.parametrize("scale", ["quick", pytest.param("full", marks=pytest.mark.slow)])
def test_every_mixing_is_the_same_and_moves_only_what_is_needed(scale):
    found = report("mixings.py", scale)
    assert {case: far for case, far in found["distances"].items() if not far <= 1e-12} == {}
    assert [check for check, holds in found["checks"].items() if not holds] == []
    assert "shard: n = 17 nodes do not spread evenly over the 8 devices" in found["uneven"]
    moves = found["collectives"]  # params have two leaves; 16 nodes lie on 8 devices
    assert moves["ring"] == moves["every"] == {MOVES: 2 * 2}
    assert moves["torus"] == moves["hypercube"] == moves["exponential"] == {MOVES: 2 * 3}
    assert moves["one peer"] == {MOVES: 2 * 4}  # one in each of four branches, of which a step runs one
    assert set(moves["tree"]) == set(moves["star"]) == set(moves["delayed ring"]) == {MOVES}
    assert moves["dense"] == {MOVES: 2}  # in a loop over the devices
    assert set(moves["mean"]) == {"all-reduce"}
    assert moves["identity"] == {}
    assert moves["links of a chain"] == moves["links of a ring"] == moves["relay"] == {MOVES: 2 * 2}
    assert moves["links of a star"] == {MOVES: 2 * 7}  # as many as the centre's device has neighbours


def test_two_processes_with_two_devices_each_are_one_network():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [start("processes.py", port, process, 2, devices=2) for process in range(2)]
    for process in both:
        found = read(process, *finish(process))
        assert found["devices"] == [2, 4]
        assert {"dsgd_momentum", "diging", "extra", "sgp", "all_reduce_sgd"} <= set(found["distances"])
        assert {name: far for name, far in found["distances"].items() if not far <= 1e-12} == {}
        assert found["own rows"]
        assert found["key"]


def test_every_method_lowers_for_cuda_and_tpu():
    found = report("lowering.py", devices=1, x64=False)
    for place, devices in (("one device", 1), ("placed", 8)):
        assert sorted(found[place]) == METHODS
        expected = {"platforms": ["cuda", "tpu"], "devices": devices, "doubles": 0, "gathers": 0}
        assert [name for name, lowered in found[place].items() if lowered != expected] == []


@given(
    data=st.data(),
    size=st.integers(1, 6),
    rows=st.integers(1, 3),
    degree=st.integers(1, 4),
)
def test_a_route_delivers_every_row_in_as_few_rounds_as_can_be(data, size, rows, degree):
    """Replays the plan on the host: each slot must hold the row that the table names."""
    n = size * rows
    neighbors = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=n * degree, max_size=n * degree)))
    neighbors = np.hstack([np.arange(n)[:, None], neighbors.reshape(n, degree)])
    plan = _halo.route(neighbors, neighbors != np.arange(n)[:, None], size)
    listens = {(int(j) // rows, i // rows) for i in range(n) for j in neighbors[i]}
    pairs = {(sender, receiver) for sender, receiver in listens if sender != receiver}
    if isinstance(plan, _halo.Rotation):
        assert size > 3
        return
    assert sorted(pair for turn in plan.rounds for pair in turn.pairs) == sorted(pairs)
    busiest = max((sum(pair[end] == device for pair in pairs) for end in (0, 1) for device in range(size)), default=0)
    assert len(plan.rounds) == busiest
    for device in range(size):
        held = [device * rows + np.arange(rows)]
        for turn in plan.rounds:
            senders = [sender for sender, receiver in turn.pairs if receiver == device]
            assert len({sender for sender, _ in turn.pairs}) == len(turn.pairs)
            sent = (
                turn.rows.values[senders[0]] + senders[0] * rows if senders else np.full(turn.rows.values.shape[1], -1)
            )
            held.append(sent)
        own = neighbors[device * rows : (device + 1) * rows]
        np.testing.assert_array_equal(np.concatenate(held)[plan.slots.values[device]], own)


def test_equal_plans_share_a_compiled_program():
    mesh = placement.node_mesh(jax.devices()[:1])
    traces = []

    @jax.jit
    def step(mix, x):
        traces.append(1)
        return mix(x)

    for lazy in (0.3, 0.6):  # other weights, same graph
        matrix = (1 - lazy) * np.eye(6) + lazy * np.asarray(adozoo.mixing(adozoo.graphs.ring(6)).matrix)
        step(placement.place(adozoo.mixing(matrix), mesh), jnp.ones(6))
    assert len(traces) == 1


def test_a_placed_mixing_answers_for_the_network():
    mesh = placement.node_mesh(jax.devices()[:1])
    digraph = adozoo.graphs.directed_ring(4)
    digraph.add_edge(0, 2)
    for mix in (adozoo.mixing(adozoo.graphs.ring(4)), adozoo.mixing(digraph), adozoo.exact_mean(4)):
        placed = placement.place(mix, mesh)
        assert (placed.n, placed.stochastic, placed.symmetric) == (mix.n, mix.stochastic, mix.symmetric)
        assert (placed.varying, placed.links()) == (False, mix.links())
        np.testing.assert_allclose(placed.matrix, mix.matrix, atol=1e-15)
        np.testing.assert_allclose(placed.sparse_matrix().toarray(), mix.matrix, atol=1e-15)
        names = [name for name, entry in adozoo.zoo.entries().items() if entry.admits(mix)]
        assert names == [name for name, entry in adozoo.zoo.entries().items() if entry.admits(placed)]
    peers = adozoo.gossip_every(adozoo.one_peer_exponential(4), 2)
    placed = placement.place(peers, mesh)
    assert (placed.varying, placed.period) == (True, peers.period)
    np.testing.assert_allclose(placed.matrices, peers.matrices)
    x = jnp.arange(4.0)
    np.testing.assert_allclose(placed.at(3)(x), peers(x, 3))
    cycle = adozoo.cycle([placement.place(adozoo.mixing(adozoo.graphs.ring(4)), mesh)])
    np.testing.assert_allclose(cycle(x, 0), adozoo.mixing(adozoo.graphs.ring(4))(x))


def test_init_keeps_what_belongs_to_all_nodes_in_one_piece():
    params = placement.shard({"w": jnp.ones((4, 4))}, placement.node_mesh(jax.devices()[:1]))
    state = placement.init(adozoo.per_node(optax.adam(0.1)), params)
    assert {leaf.sharding.spec for leaf in jax.tree.leaves(state)} == {jax.P("nodes")}
    state = placement.init(optax.adam(0.1), params)
    assert state[0].count.sharding.spec == jax.P()
    key = placement.shard(jax.random.key(0), params["w"].sharding.mesh, n=4)
    assert key.sharding.spec == jax.P()


def misuses() -> dict[str, tuple[Any, str]]:
    mesh = placement.node_mesh(jax.devices()[:1])
    four = jax.sharding.AbstractMesh((4,), ("nodes",))
    ring = adozoo.mixing(adozoo.graphs.ring(6))
    here = placement.local(ring, "nodes", 1)

    def inside(mix: Any, x: Any) -> Any:
        return jax.shard_map(mix, mesh=mesh, in_specs=jax.P(), out_specs=jax.P())(x)

    return {
        "place": (lambda: placement.place(ring, four), r"n = 6 nodes .* over the 4 devices .* Use 3 of them"),
        "local": (lambda: placement.local(ring, "nodes", 4), r"local: n = 6 nodes .* multiple of 4"),
        "split": (lambda: placement.split(jnp.ones(6), 4), r"split: n = 6 nodes"),
        "axis": (lambda: placement.place(ring, mesh, "rows"), r"none is 'rows'. Pass axis"),
        "no n": (lambda: placement.shard((jnp.ones(6), jnp.ones(3)), mesh), r"leading axes \[3, 6\]. Pass n"),
        "twice": (lambda: placement.place(placement.place(ring, mesh), mesh), "placed already"),
        "not sharded": (lambda: placement.init(optax.adam(0.1), jnp.ones(6)), "must be sharded over nodes"),
        "wrong rows": (lambda: placement.place(ring, mesh)(jnp.ones(5)), r"n = 6 nodes: .* got a leaf of shape \(5,\)"),
        "wrong block": (lambda: inside(here, jnp.ones(5)), r"leading axis of length 6, got one of shape \(5,\)"),
        "no axis": (lambda: here(jnp.ones(6)), "there is no such axis here"),
        "other size": (lambda: inside(placement.local(ring, "nodes", 2), jnp.ones(3)), "size 2, but it has size 1"),
        "drops outside": (
            lambda: channel.drops(placement.place(ring, mesh), 0.1, jax.random.key(0)),
            r"place\(adozoo.channel.drops\(mix, ...\), mesh\)",
        ),
        "delayed every": (
            lambda: adozoo.simulate(
                channel.delayed(
                    lambda mix: adozoo.dsgd(0.1, mix), placement.place(adozoo.gossip_every(ring, 2), mesh), 1
                ),
                lambda x, step, key: x,
                jnp.ones(6),
                1,
            ),
            "messages of a placed GossipEvery cannot be delayed",
        ),
    }


@pytest.mark.parametrize("case", misuses())
def test_misuse_says_what_to_do(case):
    act, message = misuses()[case]
    with pytest.raises(ValueError, match=message):
        act()
