"""Checkpoints: bit by bit what was saved, whole or not at all, and every mishap told in one line."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from refusals import assert_refused

import adozoo
from adozoo import placement
from experiments.checkpoints import Checkpoints

HERE = {"method": "extra", "seed": 3}


class State(NamedTuple):
    empty: Any
    none: Any
    count: Any
    keys: Any
    rest: Any


def whole_tree():
    """Everything that a run may keep."""
    bits = np.array([np.nan, -0.0, np.inf, 5e-324, 1 / 3])
    params = {"w": jnp.asarray(bits), "h": jnp.asarray(bits, jnp.bfloat16), "f": jnp.asarray(bits, jnp.float32)}
    tx = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.adamw)(learning_rate=0.1), optax.trace(0.9))
    keys = {name: jax.random.split(jax.random.key(5, impl=name), 3) for name in ("threefry2x32", "rbg", "unsafe_rbg")}
    rest = (
        np.float32(0.1),
        np.int64(2**62),
        np.arange(3, dtype=np.int8),
        np.array(True),
        jnp.zeros((0, 3)),
        np.zeros((2, 0), np.float32),
        jnp.asarray([True, False]),
        jnp.asarray(1 + 2j),
        jnp.asarray(2.5),  # weakly typed
        jax.device_put(jnp.ones(2), jax.devices()[0]),
        *(7, 2**70, 0.1, float("-inf"), True, "adam"),
    )
    return {"params": params, "opt": tx.init(params), "state": State((), None, jnp.int32(4), keys, rest)}


def plain(leaf):
    return (
        jax.random.key_data(leaf)
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf
    )


def assert_same(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert type(left) is type(right)
        for name in ("dtype", "weak_type", "committed", "sharding"):
            assert getattr(left, name, None) == getattr(right, name, None), (name, left)
        if hasattr(left, "dtype"):
            assert np.shape(left) == np.shape(right)
            assert np.asarray(plain(left)).tobytes() == np.asarray(plain(right)).tobytes()
        else:
            assert left == right


def test_a_round_trip_is_bitwise(tmp_path, capfd):
    tree = whole_tree()
    Checkpoints(tmp_path).save(7, tree, HERE)
    step, restored = Checkpoints(tmp_path).latest(tree, HERE)
    assert step == 7
    assert_same(restored, tree)
    assert capfd.readouterr() == ("", "")


def test_abstract_leaves_and_trees_without_arrays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = {"x": jnp.arange(4.0), "key": jax.random.key(1), "scalar": jnp.float32(3)}
    Checkpoints("relative").save(1, tree, HERE)
    abstract = jax.eval_shape(lambda: tree)
    assert_same(Checkpoints("relative").latest(abstract, HERE)[1], tree)
    for number, empty in enumerate([(), {"a": None}, optax.EmptyState(), {"steps": 3}]):
        checkpoints = Checkpoints(f"empty {number}")
        checkpoints.save(0, empty, HERE)
        assert checkpoints.latest(empty, HERE) == (0, empty)


def test_the_last_ones_are_kept_and_one_of_a_step_stays(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest(jnp.zeros(2), HERE) is None
    for step in (1, 2, 30):
        checkpoints.save(step, jnp.full(2, 1.0 * step), HERE)
    checkpoints.save(30, jnp.zeros(2), HERE)
    assert checkpoints.steps() == [2, 30]
    assert checkpoints.latest(jnp.zeros(2), HERE)[1].tolist() == [30.0, 30.0]
    assert len(os.listdir(tmp_path)) == 2
    checkpoints.clear()
    assert os.listdir(tmp_path) == []


def test_a_method_goes_on_as_if_it_had_not_been_interrupted(tmp_path):
    problem = adozoo.problems.random_quadratic(8, 3)
    tx = adozoo.zoo.entry("diging").build(0.1, adozoo.mixing(adozoo.graphs.ring(8)))

    @jax.jit
    def advance(carry):
        def step(carry, _):
            x, state, key = carry
            key, now = jax.random.split(key)
            updates, state = tx.update(problem.gradient(x, 0, None) + 0.1 * jax.random.normal(now, x.shape), state, x)
            return (optax.apply_updates(x, updates), state, key), None

        return jax.lax.scan(step, carry, length=5)[0]

    start = (problem.init(), tx.init(problem.init()), jax.random.key(0))
    there = advance(start)
    Checkpoints(tmp_path).save(5, there, HERE)
    assert_same(advance(Checkpoints(tmp_path).latest(start, HERE)[1]), advance(there))


def test_what_does_not_fit_is_told(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    tree = {"w": jnp.ones(3), "n": 2, "key": jax.random.key(0)}
    checkpoints.save(5, tree, HERE)
    path = str(tmp_path / "step-0000000005")
    for other, told in [
        ({**HERE, "seed": 4}, "seed = 3 there and 4 here"),
        ({"method": "extra"}, "seed = 3 there and None here"),
        ({**HERE, "seed": 3.0}, "seed = 3 there and 3.0 here"),
    ]:
        assert_refused(lambda other=other: checkpoints.latest(tree, other), path, told, "--fresh")
        assert_refused(lambda other=other: checkpoints.save(5, tree, other), path, told, "--fresh")
    for changed, told in [
        ({"w": jnp.ones(4)}, "['w'] is jax float64[3] there and jax float64[4] here"),
        ({"w": jnp.ones(3, jnp.float32)}, "jax float32[3] here"),
        ({"w": np.ones(3)}, "numpy float64[3] here"),
        ({"n": 2.0}, "['n'] is int there and float here"),
        ({"key": jax.random.key(0, impl="rbg")}, "key<rbg>"),
        ({"more": 1}, "['more'] is absent there and int here"),
    ]:
        assert_refused(lambda changed=changed: checkpoints.latest({**tree, **changed}, HERE), path, told, "--fresh")
    with jax.enable_x64(False):
        assert_refused(lambda: checkpoints.latest(tree, HERE), path, "JAX_ENABLE_X64=1")
    assert_refused(lambda: checkpoints.save(6, {"a": object()}, HERE), "object", "Leave it out")
    assert_refused(lambda: checkpoints.save(6, {"a": np.array(["text"])}, HERE), "ndarray")
    assert_refused(lambda: checkpoints.save(-1, tree, HERE), "-1")
    assert_refused(lambda: Checkpoints(tmp_path, keep=0), "keep", "0")
    assert checkpoints.latest(tree, HERE)[0] == 5


@pytest.mark.parametrize("damage", ["cut short", "a bit", "deleted"])
def test_damage_to_any_file_is_told(tmp_path, damage):
    """Never an older checkpoint instead, unless the user deletes the damaged one."""
    checkpoints = Checkpoints(tmp_path / "run")
    tree = {"w": jnp.arange(300.0), "key": jax.random.key(0)}
    checkpoints.save(1, tree, HERE)
    checkpoints.save(2, tree, HERE)
    last = tmp_path / "run" / "step-0000000002"
    names = [path.relative_to(last) for path in last.rglob("*") if path.is_file()]
    assert len(names) > 4
    shutil.copytree(last, tmp_path / "copy")
    for name in names:
        data = bytearray((last / name).read_bytes())
        if damage == "deleted":
            (last / name).unlink()
        elif data:
            (last / name).write_bytes(data[:-1] if damage == "cut short" else bytes([data[0] ^ 1]) + data[1:])
        else:  # an empty file
            (last / name).write_bytes(b"x")
        with pytest.raises(ValueError, match="damaged") as told:
            checkpoints.latest(tree, HERE)
        said = str(told.value)
        assert "\n" not in said
        assert str(last) in said
        assert str(name) in said
        assert "Delete this folder to go on from step 1" in said
        shutil.rmtree(last)
        assert checkpoints.latest(tree, HERE)[0] == 1
        shutil.copytree(tmp_path / "copy", last)
    assert checkpoints.latest(tree, HERE)[0] == 2


_SAVE_FOR_EVER = """
import sys
import jax.numpy as jnp
from experiments.checkpoints import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
found = checkpoints.latest({"x": jnp.zeros((40, 40))}, {"a": 1})
step, tree = found or (0, {"x": jnp.zeros((40, 40))})
assert (tree["x"] == step).all()
while True:
    step, tree = step + 1, {"x": tree["x"] + 1}
    checkpoints.save(step, tree, {"a": 1})
    print(step, flush=True)
"""


def _kill_often(folder, times):
    rng, told = np.random.default_rng(1), 0
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "JAX_ENABLE_X64": "1"}
    for _ in range(times):
        command = [sys.executable, "-c", _SAVE_FOR_EVER, folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as writer:
            told = int(writer.stdout.readline())
            time.sleep(0.3 * rng.random())
            writer.kill()
            rest, errors = writer.communicate()
        assert errors == b""
        told = max([told, *map(int, rest.split(b"\n")[:-1])])
        checkpoints = Checkpoints(folder)
        step, tree = checkpoints.latest({"x": jnp.zeros((40, 40))}, {"a": 1})
        assert step >= told  # durable before it was told
        assert np.all(tree["x"] == step)
        assert len(checkpoints.steps()) <= 3  # one more than are kept if killed before it was deleted
    return step


def test_killed_at_a_random_time(tmp_path):
    assert _kill_often(tmp_path, 1) >= 1


@pytest.mark.slow
def test_killed_at_many_random_times(tmp_path):
    assert _kill_often(tmp_path, 8) > 8


def test_arrays_go_back_to_their_devices(tmp_path):
    mesh = placement.node_mesh()
    tree = placement.shard({"x": jnp.arange(8.0).reshape(8, 1)}, mesh)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, tree, HERE)
    assert_same(checkpoints.latest(tree, HERE)[1], tree)
