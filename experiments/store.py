r"""Finished cells of a sweep, kept in a folder that many processes may write at once.

A *cell* is one run, known by the `content_hash` of its configuration. Cells that were computed together are written
together, as a *group*: one netCDF file with a dimension "cell", followed by one line of JSON, the file's table: which
cells it holds, the length and the checksum of what comes before. netCDF readers ignore what follows the data, so that
`xarray.open_dataset` opens the file as it is, and the table of a file is read without opening its data.

Files are numbered, 00000001.nc, 00000002.nc, ... A writer prepares its file under a temporary name, brings it to disk
and then links it to the number after the largest that it has seen, which fails if another was quicker; it then looks at
what the other wrote, leaves out the cells that exist by now, and tries the next number. So a group is there as a whole
or not at all, no lock can be left behind by a process that died, and of two that write one cell the first wins: runs
are pure functions of their configurations, so that nothing is lost. This needs a file system with hard links (local
ones, NFS).
"""

import hashlib
import io
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from experiments._files import remove_stale, seal, sync, temporary, unseal

FORMAT = 1
"""Version of the hashes and of the files: hashes of another version never agree."""

_DATA = re.compile(r"(\d{8,})\.nc")
_RESERVED = ("cell", "configuration", "attributes")


def _check_plain(value: Any, where: str) -> None:
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise ValueError(f"content_hash: {where} has the key {key!r}; keys must be strings. Pass str(key).")
            _check_plain(item, f"{where}[{key!r}]")
    elif kind is list:
        for place, item in enumerate(value):
            _check_plain(item, f"{where}[{place}]")
    elif kind is float and not math.isfinite(value):
        raise ValueError(
            f"content_hash: {where} must be finite, got {value}. Use None, or a string that says what it is."
        )
    elif value is not None and kind not in (bool, int, float, str):
        raise ValueError(
            f"content_hash: {where} must be an int, float, bool, str, None, list or dict, got a {kind.__name__}. "
            "Convert it: .item() for numpy's and jax's numbers, list(...) for tuples, str(...) for paths."
        )


def _canonical(configuration: Mapping[str, Any]) -> str:
    _check_plain(dict(configuration), "configuration")
    return json.dumps(dict(configuration), sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(configuration: Mapping[str, Any]) -> str:
    """The name of a cell: the first 24 hexadecimal digits of the SHA-256 of its configuration as canonical JSON.

    Canonical: keys sorted, no spaces, ASCII, floats by their shortest decimal form. The order of keys is irrelevant;
    1, 1.0 and True are three values, and so are 0.0 and -0.0. A version number is hashed along.

    Args:
      configuration: nested dicts and lists of int, float, bool, str and None.

    Returns:
      24 hexadecimal digits.

    Raises:
      ValueError: for other types, numpy's among them, keys that are no strings, and floats that are not finite.

    Example:
      >>> content_hash({"method": "extra", "learning_rate": 0.1})
      '5a040da8224c451831b3b02d'
      >>> content_hash({"n": 1}) == content_hash({"n": 1.0})
      False
    """
    return hashlib.sha256(f"adozoo {FORMAT} {_canonical(configuration)}".encode("ascii")).hexdigest()[:24]


class _Table(NamedTuple):
    """The last line of a file."""

    cells: list[str]
    length: int  # of the netCDF data, in bytes
    checksum: int  # CRC-32 of the netCDF data


def _known(path: Path) -> tuple[int, int, int]:
    """What tells a file from another one of its name."""
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns, status.st_size


def _corrupt(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} is damaged: {what}. Delete this file: its cells are then missing, and are run again.")


def _line(table: _Table) -> bytes:
    return b"\n" + seal({"adozoo": FORMAT, **table._asdict()})


def _table(path: Path) -> _Table:
    """Read the table from the end of a file, without its data."""
    with open(path, "rb") as file:
        size, window = file.seek(0, os.SEEK_END), 4096
        while True:
            start = max(0, size - window)
            file.seek(start)
            tail = file.read()
            begin = tail.rfind(b"\n", 0, -1)
            if begin >= 0 or start == 0:
                break
            window *= 8
    told = unseal(tail[begin + 1 :])
    if begin < 0 or told is None:
        raise _corrupt(path, "its last line is not the table of cells that it was written with")
    if told.pop("adozoo") != FORMAT:
        raise ValueError(
            f"{path} is of another format than {FORMAT}. Use another folder, or the version that wrote it."
        )
    if told["length"] != start + begin:
        raise _corrupt(path, f"it has {start + begin} bytes of data instead of {told['length']}")
    return _Table(**told)


def _attributes(data: xr.Dataset, cell: str) -> str:
    try:
        return json.dumps(data.attrs, default=lambda value: value.item())
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"Store.write: the attributes of cell {cell} must be numbers and strings, got {data.attrs!r}. "
            "Make a variable of what is an array."
        ) from error


def _stack(results: Mapping[str, xr.Dataset], configurations: Mapping[str, str]) -> xr.Dataset:
    """Put cells of one shape side by side; a coordinate that is the same in all of them is stored once."""
    cells = list(results)
    first = results[cells[0]]
    for cell, data in results.items():
        if dict(data.sizes) != dict(first.sizes) or {*data.variables} != {*first.variables}:
            raise ValueError(
                "Store.write: cells of one group must have the same variables and sizes, got "
                f"{_shape(data)} for {cell} and {_shape(first)} for {cells[0]}. Write them one by one."
            )
    variables = {}
    for name in map(str, first.variables):
        lanes = [data.variables[name] for data in results.values()]
        values = [np.asarray(lane.values) for lane in lanes]
        if name in _RESERVED or values[0].dtype.kind not in "biufU" or values[0].dtype == np.float16:
            raise ValueError(
                f"Store.write: variable {name!r} of {values[0].dtype} cannot be stored. Its name must not be one of "
                f"{_RESERVED}; cast half precision to float32, split complex numbers in two, write objects as text."
            )
        if any(lane.dims != lanes[0].dims or not _same(lane.attrs, lanes[0].attrs) for lane in lanes):
            raise ValueError(f"Store.write: variable {name!r} has other dimensions or attributes in some cells.")
        if name in first.coords and all(lane.equals(lanes[0]) for lane in lanes):
            variables[name] = (lanes[0].dims, values[0], lanes[0].attrs)
        elif name in first.dims:
            raise ValueError(
                f"Store.write: cells of one group must share the coordinate {name!r}. Write them one by one."
            )
        else:
            variables[name] = (("cell", *lanes[0].dims), np.stack(values), lanes[0].attrs)
    variables |= {
        "cell": ("cell", cells),
        "configuration": ("cell", [configurations[cell] for cell in cells]),
        "attributes": ("cell", [_attributes(results[cell], cell) for cell in cells]),
    }
    return xr.Dataset(variables).set_coords([*map(str, first.coords), "configuration", "attributes"])


def _shape(data: xr.Dataset) -> str:
    return f"{', '.join(sorted(map(str, data.variables)))} of {dict(data.sizes)}"


def _same(left: Mapping[Any, Any], right: Mapping[Any, Any]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[key], right[key]) for key in left)


class Store:
    """The finished cells in a folder, each known by the `content_hash` of its configuration.

    Reading asks the folder anew each time, so that cells which other processes write are seen. Half-written files of
    processes that died are ignored, and removed when they are stale (`remove_stale`).

    Args:
      folder: made if it does not exist.

    Raises:
      ValueError: by every method, if a file of the folder is damaged: with its path and the remedy.

    Example:
      >>> import tempfile
      >>> configurations = [{"method": "extra", "seed": seed} for seed in range(3)]
      >>> cells = {content_hash(one): one for one in configurations}
      >>> done = {cell: xr.Dataset({"loss": ("step", np.ones(5))}) for cell in cells}
      >>> folder = tempfile.TemporaryDirectory()
      >>> store = Store(folder.name)
      >>> len(store.write(done, cells)), store.missing(cells)
      (3, [])
      >>> store.write(done, cells)  # they are there: the first ones stay
      []
      >>> store.read(content_hash({"method": "extra", "seed": 2})).loss.values
      array([1., 1., 1., 1., 1.])
      >>> folder.cleanup()
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).absolute()  # jobs may be done in other folders
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale(self.folder)
        self._tables: dict[int, tuple[tuple[int, int, int], _Table]] = {}  # by number, with what the file is known by
        self._places: dict[str, tuple[int, int]] = {}  # number of the file, position in it
        self._loaded: tuple[Any, xr.Dataset] | None = None  # the file read last, and what it is known by

    def hashes(self) -> list[str]:
        """All cells, in the order in which their files were written."""
        self._refresh()
        return list(self._places)

    def has(self, cell: str) -> bool:
        """Whether the cell is finished."""
        return not self.missing([cell])

    def missing(self, cells: Iterable[str]) -> list[str]:
        """Those of the cells that are not finished, in the order given."""
        self._refresh()
        return [cell for cell in cells if cell not in self._places]

    def read(self, cell: str) -> xr.Dataset:
        """The results of a cell as they were written, in memory; text may have become wider.

        The file read last is kept, so that cells of one group are best read one after the other, as `hashes` has them.

        Raises:
          ValueError: if there is no such cell, or its file is damaged.
        """
        lane = self._lane(cell)
        return lane.drop_vars(_RESERVED).assign_attrs(json.loads(str(lane.attributes.values)))

    def configuration(self, cell: str) -> dict[str, Any]:
        """The configuration that a cell was written with; its `content_hash` is the cell.

        Raises:
          ValueError: if there is no such cell, or its file is damaged.
        """
        return json.loads(str(self._lane(cell).configuration.values))

    def write(self, results: Mapping[str, xr.Dataset], configurations: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Write a group of finished cells: all of them or, if the process is killed meanwhile, none.

        Cells that exist already are left as they are. When this returns, the group is on disk.

        Args:
          results: one Dataset a cell, all with the same variables, sizes and dimension coordinates; bool, integers,
            float32, float64 and text, with attributes that JSON can hold.
          configurations: of the cells, by the same names.

        Returns:
          The cells that were written: those that did not exist.

        Raises:
          ValueError: for a cell that is not the hash of its configuration, or results that cannot be stored.
        """
        texts = {}
        for cell in results:
            if cell not in configurations or content_hash(configurations[cell]) != cell:
                raise ValueError(f"Store.write: {cell!r} is not the hash of its configuration. Use content_hash.")
            texts[cell] = _canonical(configurations[cell])
        draft, drafted = temporary(self.folder), None
        try:
            while new := self.missing(results):
                if new != drafted:
                    data = bytes(_stack({cell: results[cell] for cell in new}, texts).to_netcdf(engine="h5netcdf"))
                    draft.write_bytes(data + _line(_Table(new, len(data), zlib.crc32(data))))
                    sync(draft)
                    drafted = new
                try:
                    os.link(draft, self._path(max(self._tables, default=0) + 1))
                except FileExistsError:  # another process was quicker
                    continue
                sync(self.folder)
                return new
            return []
        finally:
            draft.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.nc"

    def _refresh(self) -> None:
        """Read the tables of files that are new; of cells that are in two files, the first counts."""
        with os.scandir(self.folder) as entries:
            numbers = {int(match[1]) for entry in entries if (match := _DATA.fullmatch(entry.name))}
        # A folder that is read while files are added may show a later one without an earlier one.
        unseen = {*range(1, max(numbers, default=0))} - numbers
        tables = {}
        for number in sorted(numbers | unseen):
            path = self._path(number)
            try:
                known = _known(path)
                before = self._tables.get(number)
                tables[number] = before if before and before[0] == known else (known, _table(path))
            except FileNotFoundError:  # deleted
                continue
        self._tables, self._places = tables, {}
        for number, (_, table) in tables.items():
            for position, cell in enumerate(table.cells):
                self._places.setdefault(cell, (number, position))

    def _lane(self, cell: str) -> xr.Dataset:
        number, _ = self._places.get(cell, (0, 0))
        if number == 0 or not self._path(number).exists() or _known(self._path(number)) != self._tables[number][0]:
            self._refresh()
        if cell not in self._places:
            raise ValueError(f"{self.folder} holds no cell {cell!r}, only {len(self._places)} others. Run it first.")
        number, position = self._places[cell]
        known = (number, *self._tables[number][0])
        if self._loaded is None or self._loaded[0] != known:
            self._loaded = known, self._load(number)
        return self._loaded[1].isel(cell=position).copy(deep=True)  # whoever changes it changes a copy

    def _load(self, number: int) -> xr.Dataset:
        path, table = self._path(number), self._tables[number][1]
        data = path.read_bytes()[: table.length]
        if zlib.crc32(data) != table.checksum:
            raise _corrupt(path, "its data do not have the checksum that they were written with")
        return xr.load_dataset(io.BytesIO(data), engine="h5netcdf")
