r"""Checkpoints of a run that may be killed at any moment, on orbax.

`folder/step-0000000120/` holds the arrays (orbax, in `arrays/`) and `checkpoint.json`: step, configuration, what each
leaf is, size and checksum of each file. It is prepared under a temporary name, brought to disk, and renamed, so that a
checkpoint is there as a whole or not at all. What else could go wrong is told, never passed over: a damaged checkpoint,
or one of another configuration, is an error that names the folder to delete, not a reason to take an older one.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from experiments import _files
from experiments.store import content_hash

FORMAT = 1
"""Version of what is written."""

_STEP = re.compile(r"step-(\d{10,})")
_PLAIN = (bool, int, float, str)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _describe(leaf: Any) -> list[Any]:
    """[kind, dtype, shape] of a leaf; of a Python number [kind, value]."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return ["jax", str(leaf.dtype), list(leaf.shape)]
    if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind not in "OSUMm":
        return ["numpy" if isinstance(leaf, np.ndarray) else "numpy scalar", str(leaf.dtype), list(leaf.shape)]
    if type(leaf) in _PLAIN:
        return ["python", type(leaf).__name__, leaf]
    raise ValueError(
        f"Checkpoints: leaves must be arrays, keys, numbers or strings, got a {type(leaf).__name__}: {leaf!r:.80}. "
        "Leave it out of the tree, or put it into the configuration."
    )


def _leaves(tree: PyTree) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _told(description: list[Any]) -> str:
    kind, dtype, rest = description
    return dtype if kind == "python" else f"{kind} {dtype}{rest}"


def _has_array(leaf: Any) -> bool:
    return type(leaf) not in _PLAIN and 0 not in leaf.shape


def _array(leaf: Any) -> Any:
    """What orbax saves of a leaf: None if there is nothing, a jax array only where other processes hold parts of it."""
    if not _has_array(leaf):
        return None
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    return leaf if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable else np.asarray(leaf)


def _target(leaf: Any) -> Any:
    """What orbax is to make of a leaf: of what `_array` saves."""
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf) if isinstance(leaf, jax.Array) else jax.eval_shape(jax.random.key_data, leaf)
    sharding = _sharding(leaf)
    if sharding is None or sharding.is_fully_addressable:
        return np.empty(leaf.shape, leaf.dtype)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _sharding(leaf: Any) -> Any:
    """On which devices a leaf was put, or None if it may go anywhere."""
    if isinstance(leaf, jax.Array):
        return leaf.sharding if leaf.committed else None
    return getattr(leaf, "sharding", None)


def _implementation(key: Any) -> Any:
    """Which random number generator a key is for; a ShapeDtypeStruct tells only when traced."""
    told = []
    jax.eval_shape(lambda traced: told.append(jax.random.key_impl(traced)), key)
    return told[0]


def _restored(leaf: Any, description: list[Any], array: Any) -> Any:
    """A leaf of the kind of the abstract `leaf`, from what orbax made of its `_target` (None: there was nothing)."""
    if description[0] == "python":
        return description[2]
    if array is None:
        array = np.empty(_target(leaf).shape, _target(leaf).dtype)
    if isinstance(leaf, np.ndarray | np.generic):
        return array if isinstance(leaf, np.ndarray) else array[()]
    if getattr(leaf, "weak_type", False) and array.ndim == 0 and jnp.asarray(0 * array.item()).dtype == leaf.dtype:
        array = array.item()  # Python's numbers are weak
    made = jnp.asarray(array)
    if _is_key(leaf):
        made = jax.random.wrap_key_data(made, impl=_implementation(leaf))
    return made if _sharding(leaf) is None else jax.device_put(made, _sharding(leaf))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax tells absl's logger a lot; what matters comes as an exception."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _orbax() -> Any:
    try:
        from orbax.checkpoint import v1
    except ImportError as error:
        raise ImportError('checkpoints are written by orbax: pip install "adozoo[experiments]".') from error
    return v1


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    keys = [key for key in {**there, **here} if json.dumps([there.get(key)]) != json.dumps([here.get(key)])]
    told = [f"{key} = {there.get(key)!r} there and {here.get(key)!r} here" for key in keys[:3]]
    return ", ".join(told + ["..."] * (len(keys) > 3))


class Checkpoints:
    """The checkpoints of one run in a folder, the last `keep` of them.

    One run writes to the folder, from one process or from all processes of `jax.distributed`, which then share the
    folder and call the same methods.

    Args:
      folder: made if it does not exist.
      keep: how many of the last checkpoints are kept.

    Raises:
      ValueError: for `keep` < 1.

    Example:
      >>> import tempfile
      >>> folder = tempfile.TemporaryDirectory()
      >>> tx = optax.adam(0.1)
      >>> x = {"w": jnp.ones(3)}
      >>> start = (x, tx.init(x), jax.random.key(0))
      >>> checkpoints = Checkpoints(folder.name)
      >>> checkpoints.latest(start, {"seed": 0}) is None
      True
      >>> checkpoints.save(20, start, {"seed": 0})
      >>> step, (params, state, key) = checkpoints.latest(start, {"seed": 0})
      >>> step, params["w"], type(state[0]).__name__
      (20, Array([1., 1., 1.], dtype=float64), 'ScaleByAdamState')
      >>> folder.cleanup()
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ValueError(f"Checkpoints: keep must be an integer >= 1, got {keep!r}. 2 survives a damaged file.")
        self.folder = Path(folder).absolute()  # orbax writes elsewhere, and in silence, if it is relative
        self.keep = keep
        self.folder.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            _files.remove_stale(self.folder)

    def steps(self) -> list[int]:
        """The steps of which there is a complete checkpoint, ascending."""
        return sorted(int(match[1]) for name in os.listdir(self.folder) if (match := _STEP.fullmatch(name)))

    def clear(self) -> None:
        """Delete all checkpoints, to begin anew."""
        for step in self.steps():
            self._remove(step)

    def save(self, step: int, tree: PyTree, configuration: Mapping[str, Any]) -> None:
        """Save a tree; when this returns, it is on disk, and older checkpoints than the last `keep` are deleted.

        A checkpoint of this step and this configuration that exists already is left as it is: runs are pure functions
        of their configurations.

        Args:
          step: steps taken so far.
          tree: of jax arrays (on any devices), typed keys, numpy arrays and scalars, Python numbers and strings, in
            any containers that jax knows; with whatever the run needs to go on as if it had not been interrupted.
          configuration: of the run, as for `content_hash`.

        Raises:
          ValueError: for a negative step, a leaf of another type, or a checkpoint of this step that is of another
            configuration.
        """
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
            raise ValueError(f"Checkpoints.save: step must be an integer >= 0, got {step!r}. Pass the steps taken.")
        content_hash(configuration)  # refuses what could not be compared later
        leaves = _leaves(tree)
        head = {
            "adozoo": FORMAT,
            "step": int(step),
            "x64": bool(jax.config.jax_enable_x64),  # type: ignore[attr-defined]
            "configuration": dict(configuration),
            "leaves": {name: _describe(leaf) for name, leaf in leaves.items()},
        }
        final = self._path(int(step))
        if final.exists():
            self._check_configuration(final, self._head(final), configuration)
            return
        arrays = {name: array for name, leaf in leaves.items() if (array := _array(leaf)) is not None}
        draft = self._draft()
        try:
            if arrays:
                with _quiet():
                    _orbax().save(draft / "arrays", arrays)
            if jax.process_index() == 0:
                files = {path.relative_to(draft).as_posix(): path for path in draft.rglob("*") if path.is_file()}
                head["files"] = {name: _checksum(path) for name, path in files.items()}
                (draft / "checkpoint.json").write_bytes(_files.seal(head))
                for path in (draft, *draft.rglob("*")):
                    _files.sync(path)
                draft.rename(final)
                _files.sync(self.folder)
                for old in self.steps()[: -self.keep]:
                    self._remove(old)
        finally:
            if jax.process_index() == 0:
                shutil.rmtree(draft, ignore_errors=True)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"checkpoint {step}")

    def latest(self, abstract_tree: PyTree, configuration: Mapping[str, Any]) -> tuple[int, PyTree] | None:
        """The last complete checkpoint, bit by bit as it was saved.

        Args:
          abstract_tree: a tree of the same structure, shapes, types and devices as was saved, say the one that the
            run starts with; `jax.ShapeDtypeStruct` stands for jax arrays.
          configuration: of the run.

        Returns:
          (step, tree), or None if there is none. Weak types of scalars are kept.

        Raises:
          ValueError: if the last checkpoint is damaged, or was saved by a run of another configuration, in another
            precision, or with another tree: in one line, with its path and the remedy.
        """
        steps = self.steps()
        if not steps:
            return None
        path = self._path(steps[-1])
        head = self._head(path)
        self._check_configuration(path, head, configuration)
        x64 = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
        if head["x64"] != x64:
            raise ValueError(
                f"{path} was saved with jax_enable_x64 = {head['x64']}, and it is {x64} here. "
                f"Set JAX_ENABLE_X64={int(head['x64'])}, or start anew with --fresh."
            )
        leaves = _leaves(abstract_tree)
        self._check_leaves(path, head["leaves"], {name: _describe(leaf) for name, leaf in leaves.items()})
        for name, expected in head["files"].items():
            found = _checksum(path / name) if (path / name).is_file() else None
            if found != expected:
                what = "is missing" if found is None else "is not as it was written"
                raise self._damaged(path, f"{name} {what}")
        targets = {name: _target(leaf) for name, leaf in leaves.items() if _has_array(leaf)}
        arrays: dict[str, Any] = {}
        if targets:
            try:
                with _quiet():
                    arrays = _orbax().load(path / "arrays", targets)
            except Exception as error:
                raise self._damaged(path, str(error).splitlines()[0]) from error
        restored = [_restored(leaf, head["leaves"][name], arrays.get(name)) for name, leaf in leaves.items()]
        return head["step"], jax.tree.unflatten(jax.tree.structure(abstract_tree), restored)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:010d}"

    def _draft(self) -> Path:
        """A folder to write to, the same in all processes."""
        draft = _files.temporary(self.folder)
        if jax.process_index() == 0:
            draft.mkdir()
        if jax.process_count() > 1:
            name = np.frombuffer(draft.name.encode().ljust(255), np.uint8)
            draft = self.folder / bytes(multihost_utils.broadcast_one_to_all(name)).decode().rstrip()
        return draft

    def _remove(self, step: int) -> None:
        """Take a checkpoint away at once, then delete its files."""
        away = _files.temporary(self.folder)
        with contextlib.suppress(FileNotFoundError):
            self._path(step).rename(away)
        shutil.rmtree(away, ignore_errors=True)

    def _damaged(self, path: Path, what: str) -> ValueError:
        before = [step for step in self.steps() if self._path(step) != path]
        instead = f"go on from step {before[-1]}" if before else "start anew"
        return ValueError(f"{path} is damaged: {what}. Delete this folder to {instead}, or start anew with --fresh.")

    def _head(self, path: Path) -> dict[str, Any]:
        file = path / "checkpoint.json"
        head = _files.unseal(file.read_bytes()) if file.is_file() else None
        if head is None:
            raise self._damaged(path, f"checkpoint.json is {'not as it was written' if file.is_file() else 'missing'}")
        if head["adozoo"] != FORMAT:
            raise ValueError(f"{path} is of another format than {FORMAT}. Delete this folder, or give --fresh.")
        return head

    def _check_configuration(self, path: Path, head: Mapping[str, Any], configuration: Mapping[str, Any]) -> None:
        if content_hash(head["configuration"]) != content_hash(configuration):
            raise ValueError(
                f"{path} is of another configuration: {_differences(head['configuration'], configuration)}. "
                "Use another folder, or start anew with --fresh."
            )

    def _check_leaves(self, path: Path, there: Mapping[str, list[Any]], here: Mapping[str, list[Any]]) -> None:
        for name in {**there, **here}:
            left, right = (_told(one[name]) if name in one else "absent" for one in (there, here))
            if left != right:
                raise ValueError(
                    f"{path} was saved with another tree: {name or 'the leaf'} is {left} there and {right} here. "
                    "Run the version that saved it, or start anew with --fresh."
                )


def _checksum(path: Path) -> list[int]:
    """Size and CRC-32 of a file."""
    data = path.read_bytes()
    return [len(data), zlib.crc32(data)]
