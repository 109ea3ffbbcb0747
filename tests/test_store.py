"""The store of finished cells: names, round trips, groups as a whole or not at all, many processes at once, damage."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused

from experiments import _files
from experiments import store as module
from experiments.store import Store, content_hash

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def group(seeds, name="extra", length=4, **more):
    """Cells of one group with their configurations: what a cell holds tells which it is."""
    configurations = {content_hash(one): one for one in ({"method": name, "seed": seed} for seed in seeds)}
    results = {
        cell: xr.Dataset(
            {"loss": ("step", one["seed"] + np.arange(length) / 7), **more},
            coords={"step": 10 * np.arange(length), "seed": one["seed"]},
            attrs={"seconds": one["seed"] / 2},
        )
        for cell, one in configurations.items()
    }
    return results, configurations


def test_a_name_is_the_hash_of_the_canonical_text():
    text = 'adozoo 1 {"a":[1,1.0,true,null],"b":{"c":"\\u00e9","d":-0.0}}'
    given = {"b": {"d": -0.0, "c": "é"}, "a": [1, 1.0, True, None]}
    assert content_hash(given) == hashlib.sha256(text.encode()).hexdigest()[:24]
    different = [{"a": value} for value in (1, 1.0, True, "1", [1], None, 0, 0.0, -0.0, False, {}, [])]
    assert len({content_hash(one) for one in different}) == len(different)


@given(st.dictionaries(st.text(max_size=3), PLAIN, max_size=4))
def test_a_name_does_not_depend_on_the_order_of_keys_nor_on_a_trip_through_json(configuration):
    turned = dict(reversed(configuration.items()))
    assert content_hash(turned) == content_hash(configuration) == content_hash(json.loads(json.dumps(configuration)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), ("configuration['x'][0]", "finite")),
        (np.float64(1.0), ("float64", ".item()")),
        (np.int64(1), ("int64",)),
        ((1, 2), ("tuple", "list")),
        ({1: 2}, ("1", "strings")),
        (Path("a"), ("str(...)",)),
    ],
)
def test_what_has_no_name(value, words):
    assert_refused(lambda: content_hash({"x": [value]}), *words)


def test_a_round_trip_keeps_values_types_and_attributes(tmp_path):
    odd = np.array([np.nan, -0.0, np.inf, 5e-324])
    results, configurations = group(
        range(3),
        odd=("step", odd),
        half=("step", np.arange(4, dtype=np.float32), {"units": "bits"}),
        device=("step", jnp.arange(4)),
        text=((), "diverged"),
        flags=("step", np.array([True, False, True, True])),
        whole=((), 2**62),
        empty=("none", np.zeros(0)),
    )
    store = Store(tmp_path)
    assert store.write(results, configurations) == list(results) == store.hashes()
    again = Store(tmp_path)
    for cell, data in results.items():
        assert again.has(cell)
        assert again.configuration(cell) == configurations[cell]
        read = again.read(cell)
        assert read.identical(data)
        assert {name: read[name].dtype for name in read.variables} == {
            name: data[name].dtype for name in data.variables
        }
        assert read.odd.values.tobytes() == odd.tobytes()
        read.loss[0] = 77.0
        assert again.read(cell).identical(data)
    # The file is netCDF to others as well, all lanes side by side.
    with xr.open_dataset(tmp_path / "00000001.nc", engine="h5netcdf") as whole:
        assert whole.loss.dims == ("cell", "step")
        assert whole.step.dims == ("step",)


def test_groups_of_different_lengths_and_a_cell_that_exists(tmp_path):
    store = Store(tmp_path)
    short, first = group([0, 1])
    long, second = group([1, 2], length=9)
    store.write(short, first)
    new = store.write(long, second)
    assert new == [list(second)[1]]
    assert store.read(next(iter(second))).sizes["step"] == 4  # the first stays
    assert store.read(new[0]).sizes["step"] == 9
    assert store.missing([*second, "f" * 24]) == ["f" * 24]
    assert len(store.hashes()) == 3


def test_what_cannot_be_written(tmp_path):
    store = Store(tmp_path)
    results, configurations = group([0, 1])
    one, two = results
    assert_refused(lambda: store.write(results, {one: {"a": 1}, two: configurations[two]}), one, "content_hash")
    assert_refused(lambda: store.write({one: results[one], two: results[two].isel(step=[0])}, configurations), "step")
    bad = {"complex": np.ones(4) * 1j, "brain": jnp.ones(4, jnp.bfloat16), "half": np.ones(4, np.float16)}
    for name, values in bad.items():
        wrong = {one: results[one].assign({name: ("step", values)})}
        assert_refused(lambda wrong=wrong: store.write(wrong, configurations), repr(name), "cast")
    shifted = {one: results[one], two: results[two].assign_coords(step=np.arange(4))}
    assert_refused(lambda: store.write(shifted, configurations), "'step'", "one by one")
    noted = {one: results[one].assign_attrs(array=np.ones(2))}
    assert_refused(lambda: store.write(noted, configurations), "attributes", one)
    assert_refused(lambda: store.read(one), one, "Run it first")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("damage", ["cut short", "a bit of the data", "a bit of the table", "emptied"])
def test_damage_is_told_and_deleting_the_file_helps(tmp_path, damage):
    store = Store(tmp_path)
    results, configurations = group([0, 1])
    store.write(results, configurations)
    store.write(*group([5]))
    path = tmp_path / "00000001.nc"
    data = bytearray(path.read_bytes())
    if damage == "a bit of the data":
        data[len(data) // 3] ^= 4
    elif damage == "a bit of the table":
        data[-40] ^= 1
    path.write_bytes(data[: {"cut short": 3000, "emptied": 0}.get(damage, len(data))])
    cell = next(iter(results))
    for reader in (store, Store(tmp_path)):
        assert_refused(lambda reader=reader: reader.read(cell), str(path), "Delete")
    path.unlink()
    assert store.missing(results) == list(results)
    assert store.write(results, configurations) == list(results)
    assert store.read(cell).identical(results[cell])


def test_left_overs_are_ignored_and_removed_when_stale(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    mine, dead = _files.temporary(tmp_path), _files.temporary(tmp_path)
    dead = dead.with_name(dead.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-"))
    elsewhere = mine.with_name(".temporary-another-host-1-0123456789abcdef")
    ages = {mine: 0, dead: 0, elsewhere: 3600}
    for path, age in ages.items():
        path.write_bytes(b"half a gro")
        os.utime(path, (time.time() - age,) * 2)
    assert Store(tmp_path).hashes() == []
    assert set(tmp_path.iterdir()) == {mine, dead, elsewhere}  # none was left for long enough
    os.utime(dead, (time.time() - 3600,) * 2)
    os.utime(elsewhere, (time.time() - 90000,) * 2)
    Store(tmp_path)
    assert set(tmp_path.iterdir()) == {mine}


_WRITE_GROUPS = """
import sys, time
from pathlib import Path
import numpy as np
import xarray as xr
from experiments.store import Store, content_hash
folder, writer = Path(sys.argv[1]), int(sys.argv[2])
store = Store(folder / "cells")
xr.Dataset({"loss": ("step", np.ones(3))}).to_netcdf(engine="h5netcdf")  # imports what takes long
(folder / f"ready {writer}").touch()
while len(list(folder.glob("ready *"))) < 2:
    time.sleep(0.001)
for start in range(0, 24, 4)[:: 1 - 2 * writer]:  # towards each other
    cells = {content_hash(one): one for one in ({"seed": seed} for seed in range(start, start + 6))}
    losses = {cell: ("step", one["seed"] + np.zeros(3)) for cell, one in cells.items()}
    store.write({cell: xr.Dataset({"loss": loss, "writer": writer}) for cell, loss in losses.items()}, cells)
"""


def _start(script, *arguments):
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})


def test_processes_that_write_at_once_lose_nothing_and_double_nothing(tmp_path):
    writers = [_start(_WRITE_GROUPS, tmp_path, writer) for writer in range(2)]
    assert [(writer.communicate(), writer.returncode)[1] for writer in writers] == [0, 0]
    wanted = {content_hash(one): one for one in ({"seed": seed} for seed in range(26))}
    store = Store(tmp_path / "cells")
    assert store.missing(wanted) == []
    tables = [table for _, table in store._tables.values()]
    assert sorted(cell for table in tables for cell in table.cells) == sorted(wanted)  # each in one file only
    for cell, configuration in wanted.items():
        assert store.configuration(cell) == configuration
        assert np.all(store.read(cell).loss == configuration["seed"])
    assert {store.read(cell).writer.item() for cell in wanted} == {0, 1}  # they did write at once
    assert sorted(os.listdir(store.folder)) == [f"{number + 1:08d}.nc" for number in range(len(tables))]


_WRITE_FOR_EVER = """
import itertools, sys
import test_store
from experiments.store import Store
store = Store(sys.argv[1])
for start in itertools.count(0, 3):
    store.write(*test_store.group(range(start, start + 3)))
    print(start, flush=True)
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_whole_groups_only(tmp_path):
    rng, before = np.random.default_rng(0), 0
    for _ in range(8):
        with _start(_WRITE_FOR_EVER, tmp_path) as writer:
            assert writer.stdout.readline() == b"0\n"
            time.sleep(0.5 * rng.random())
            writer.kill()
        cells = Store(tmp_path).hashes()
        assert len(cells) % 3 == 0
        assert len(cells) >= before
        before = len(cells)
    assert before >= 9
    store, (results, configurations) = Store(tmp_path), group(range(before))
    assert store.hashes() == list(configurations)
    assert all(store.read(cell).identical(data) for cell, data in results.items())


def test_many_cells_in_files_of_their_own(tmp_path):
    for number in range(1_000):
        table = module._Table([f"{number:024x}"], 0, 0)
        (tmp_path / f"{number + 1:08d}.nc").write_bytes(module._line(table))
    store = Store(tmp_path)
    assert len(store.missing([f"{number:024x}" for number in range(900, 1_050)])) == 50
