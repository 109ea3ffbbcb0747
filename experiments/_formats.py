"""Files that data sets come in: IDX, CIFAR's batches, LIBSVM, plain texts in an archive. What is broken is named."""

import gzip
import io
import pickle
import re
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

_BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError)
_MOST_BYTES = 8e9


def broken(path: Path, what: str, remedy: str) -> ValueError:
    """The error for a file that is there but cannot be used."""
    return ValueError(f"{path} is damaged: {what}. {remedy}")


def idx(path: Path, dims: int, remedy: str) -> np.ndarray:
    """An array of bytes in the IDX format of the MNIST family, plain or gzipped.

    Two zero bytes, one for the type (8: unsigned bytes), one for the number of dimensions, then the dimensions as
    32-bit big-endian integers, then the numbers.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except _BROKEN as error:
        raise broken(path, f"its compressed stream ends early or is wrong ({error})", remedy) from error
    header = 4 + 4 * dims
    if content[:4] != bytes([0, 0, 8, dims]) or len(content) < header:
        raise broken(path, f"it does not begin like IDX bytes of {dims} dimensions but with {content[:4]!r}", remedy)
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dims, 4))
    if len(content) - header != np.prod(shape):
        raise broken(path, f"{shape} announces {np.prod(shape)} bytes, {len(content) - header} follow", remedy)
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


class _ArraysOnly(pickle.Unpickler):
    """CIFAR's batches are pickles, which may run anything: let them build arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module.endswith("multiarray"):
            return np.zeros(0).__reduce__()[0]  # without its module, whose older name warns
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def cifar(path: Path, names: list[str], remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 32, 32, 3] of bytes and labels [N] of batches of CIFAR-10, from its archive or its unpacked folder."""
    folder = "cifar-10-batches-py"
    if path.is_dir():
        files = {name: (path / name).read_bytes() for name in names if (path / name).is_file()}
    else:
        files = members(path, rf"{folder}/({'|'.join(names)})", remedy)
    images, labels = [], []
    for name in names:
        if name not in files:
            raise broken(path, f"{name} is missing in it", remedy)
        try:
            batch = _ArraysOnly(io.BytesIO(files[name]), encoding="bytes").load()
            rows, classes = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], np.int64)
            if rows.dtype != np.uint8 or rows.shape != (len(classes), 3072) or classes.min() < 0 or classes.max() > 9:
                raise ValueError(f"{rows.dtype} of shape {rows.shape} with {classes.shape} labels")
        except Exception as error:  # a damaged pickle may raise anything
            raise broken(path, f"{name} is no batch of CIFAR-10 ({error})", remedy) from error
        images.append(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(classes)
    return np.concatenate(images), np.concatenate(labels)


def members(path: Path, pattern: str, remedy: str) -> dict[str, bytes]:
    """Files of a gzipped tar archive whose whole name fits the pattern: last part of the name -> content."""
    found = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if re.fullmatch(pattern, member.name) and (content := archive.extractfile(member)):
                    found[member.name.rpartition("/")[2]] = content.read()
    except _BROKEN as error:
        raise broken(path, f"the archive cannot be read to its end ({error})", remedy) from error
    return found


def libsvm(paths: list[Path]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Features [N, d] and targets [N] of files in LIBSVM's format, over the features of all of them."""
    from sklearn.datasets import load_svmlight_file

    read: list[Any] = []
    for path in paths:
        try:
            read.append(load_svmlight_file(str(path)))
        except (ValueError, *_BROKEN) as error:
            remedy = "Each line must be 'label index:value index:value ...', with indices that grow."
            raise broken(path, f"it is no LIBSVM file ({error})", remedy) from error
        if not read[-1][0].shape[0]:
            raise broken(path, "it holds no sample", "Choose another file.")
    width = max(features.shape[1] for features, _ in read)
    size = 8.0 * width * sum(features.shape[0] for features, _ in read)
    if size > _MOST_BYTES:
        raise ValueError(f"libsvm: {paths[0]} takes {size / 1e9:.0f} GB as a dense array. Choose fewer features.")
    for features, _ in read:
        features.resize((features.shape[0], width))
    return [(features.toarray(), targets) for features, targets in read]


def windows(texts: list[str], context: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Cut texts into windows of `context` characters, one after the other within each text.

    Returns:
      characters [N, context], the ones that follow each [N, context], the text of each window [N], and the vocabulary.
    """
    vocabulary = tuple(sorted(set("".join(texts))))
    code = np.zeros(1 + max(map(ord, vocabulary), default=0), np.int32)
    code[[ord(character) for character in vocabulary]] = np.arange(len(vocabulary))
    before, after, source = [], [], []
    for number, text in enumerate(texts):
        codes = code[np.frombuffer(text.encode("utf-32-le"), np.uint32)]
        count = max(len(codes) - 1, 0) // context
        before.append(codes[: count * context].reshape(count, context))
        after.append(codes[1 : 1 + count * context].reshape(count, context))
        source.append(np.full(count, number))
    return np.concatenate(before), np.concatenate(after), np.concatenate(source), vocabulary
