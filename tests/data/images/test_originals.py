"""CIFAR-10's and MNIST's files as they are published, and pickles that mean harm."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dolmen.data.images.read import read_images
from dolmen.types import UserError

Tree = dict[str, bytes]
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def batch(num: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """(N, 3072) channel by channel, labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num, 3072), np.uint8), rng.integers(0, 10, num).tolist()


BATCHES = {**{f"data_batch_{i}": batch(3, i) for i in range(1, 6)}, "test_batch": batch(2, 9)}


def cifar_binary() -> Tree:
    tree = {
        f"cifar-10-batches-bin/{name}.bin": b"".join(bytes([y]) + row.tobytes() for row, y in zip(*b, strict=True))
        for name, b in BATCHES.items()
    }
    return tree | {
        "cifar-10-batches-bin/batches.meta.txt": "\n".join([*NAMES, ""]).encode(),
        "cifar-10-batches-bin/readme.html": b"<html>",
    }


def cifar_python() -> Tree:
    tree = {
        f"cifar-10-batches-py/{name}": pickle.dumps({b"data": rows, b"labels": labels, b"batch_label": b"x"}, 2)
        for name, (rows, labels) in BATCHES.items()
    }
    meta = {b"label_names": [n.encode() for n in NAMES], b"num_vis": 3072}
    return tree | {
        "cifar-10-batches-py/batches.meta": pickle.dumps(meta, 2),
        "cifar-10-batches-py/readme.html": b"<html>",
    }


def as_folder(place: Path, tree: Tree) -> Path:
    for name, content in tree.items():
        (place / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "d" / name).write_bytes(content)
    return place / "d"


def as_tar_gz(place: Path, tree: Tree) -> Path:
    with tarfile.open(place / "d.tar.gz", "w:gz") as archive:
        for name, content in sorted(tree.items(), reverse=True):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return place / "d.tar.gz"


def as_zip(place: Path, tree: Tree) -> Path:
    with zipfile.ZipFile(place / "d.zip", "w") as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return place / "d.zip"


stores = pytest.mark.parametrize("store", [as_folder, as_tar_gz, as_zip])


@stores
@pytest.mark.parametrize("version", [cifar_binary, cifar_python])
def test_cifar(version: Callable[[], Tree], store: Callable[[Path, Tree], Path], tmp_path: Path) -> None:
    images = read_images(store(tmp_path, version()))
    assert images.classes == NAMES
    assert list(images.splits) == ["train"] * 15 + ["test"] * 2
    assert images.labels.tolist() == [y for _, labels in BATCHES.values() for y in labels]
    assert images.names[3].startswith("data_batch_2")
    assert images.names[3].endswith("[0]")
    assert [(s.name.split("/")[-1], s.reason) for s in images.skipped] == [("readme.html", "not needed")]
    pixels = dict(images.read([16]))[16]
    assert np.array_equal(pixels, BATCHES["test_batch"][0][1].reshape(3, 32, 32).transpose(1, 2, 0))


def test_the_folder_itself_or_a_part_of_the_batches(tmp_path: Path) -> None:
    tree = {n: c for n, c in cifar_binary().items() if n.endswith(("batch_1.bin", "batch_4.bin"))}
    images = read_images(as_folder(tmp_path, tree) / "cifar-10-batches-bin")
    assert len(images) == 6
    assert images.classes == tuple("0123456789")  # without batches.meta.txt


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


DIGITS = {
    "train-images-idx3-ubyte": idx(np.arange(60).reshape(5, 3, 4)),
    "train-labels-idx1-ubyte": idx(np.array([0, 1, 2, 1, 0])),
    "t10k-images-idx3-ubyte": idx(np.arange(24).reshape(2, 3, 4)),
    "t10k-labels-idx1-ubyte": idx(np.array([2, 1])),
}


@stores
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("prefix", ["", "MNIST/raw/"])
def test_mnist(store: Callable[[Path, Tree], Path], zipped: bool, prefix: str, tmp_path: Path) -> None:
    tree = {prefix + n + ".gz" * zipped: gzip.compress(c) if zipped else c for n, c in DIGITS.items()}
    images = read_images(store(tmp_path, tree))
    assert images.classes == ("0", "1", "2")
    assert images.labels.tolist() == [0, 1, 2, 1, 0, 2, 1]
    assert list(images.splits) == ["train"] * 5 + ["test"] * 2
    assert images.names[5] == "test-images[0]"
    assert images.skipped == ()
    assert np.array_equal(dict(images.read([6]))[6], np.arange(12, 24).reshape(3, 4))


def test_both_the_files_and_their_gz(tmp_path: Path) -> None:
    tree = DIGITS | {n + ".gz": gzip.compress(c) for n, c in DIGITS.items()}  # as torchvision leaves them
    images = read_images(as_folder(tmp_path, tree))
    assert len(images) == 7
    assert sorted((s.name, s.reason) for s in images.skipped) == sorted((n + ".gz", "not needed") for n in DIGITS)


def test_dots_for_dashes(tmp_path: Path) -> None:
    tree = {n.replace("-idx", ".idx"): c for n, c in DIGITS.items() if n.startswith("t10k")}
    assert list(read_images(as_folder(tmp_path, tree)).splits) == ["test"] * 2


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
SHAPES = "have pictures of (5, 3, 4) and labels of (4,), expected (N, H, W) and (N,)"
ALIKE = f"MNIST's train files in {{}} {SHAPES}; get them anew"
NO_DATA = "data_batch_1 has no data of (N, 3072) bytes, expected CIFAR-10's original file; get it anew"


def cifar(data: np.ndarray, *labels: int) -> bytes:
    return pickle.dumps({b"data": data, b"labels": list(labels)})


# the files, the sentence with {} for the folder
BAD: list[tuple[str, Tree, str]] = [
    ("labels missing", {IMAGES: DIGITS[IMAGES]}, "{} has MNIST's train files without the labels; add them"),
    ("pictures missing", {LABELS: DIGITS[LABELS]}, "{} has MNIST's train files without the images; add them"),
    ("not as many", {IMAGES: DIGITS[IMAGES], LABELS: idx(np.zeros(4))}, ALIKE),
    (
        "cut off",
        DIGITS | {IMAGES: DIGITS[IMAGES][:-1]},
        f"{IMAGES} holds 59 values and its header speaks of 60; get it anew",
    ),
    (
        "a lying header",
        DIGITS | {LABELS: b"\0\0\x08\1\xff\xff\xff\xff\0"},
        f"{LABELS} holds 1 values and its header speaks of 4294967295; get it anew",
    ),
    ("empty", DIGITS | {LABELS: b""}, f"{LABELS} is no IDX file of bytes; get it anew"),
    ("floats", DIGITS | {LABELS: b"\0\0\x0d\1\0\0\0\1\0\0\0\0"}, f"{LABELS} is no IDX file of bytes; get it anew"),
    (
        "no values",
        DIGITS | {LABELS: b"\0\0\x08\1\0\0\0\0"},
        f"{LABELS} holds 0 values and its header speaks of 0; get it anew",
    ),
    ("a broken gz", DIGITS | {LABELS: gzip.compress(DIGITS[LABELS])[:-9]}, f"{LABELS} is damaged ("),
    (
        "twice",
        DIGITS | {"b/" + LABELS: DIGITS[LABELS]},
        f"{{}} holds {LABELS} twice (b/{LABELS}, {LABELS}); give one of the folders",
    ),
    (
        "test twice",
        DIGITS | {"test-images-idx3-ubyte": DIGITS["t10k-images-idx3-ubyte"]},
        "{} holds MNIST's test images twice; give a folder with one of them",
    ),
    (
        "cifar cut off",
        {"data_batch_1.bin": b"\0" * 4000},
        "data_batch_1.bin has 4000 bytes, expected a multiple of 3073; get it anew",
    ),
    (
        "cifar empty",
        {"data_batch_1.bin": b""},
        "data_batch_1.bin has 0 bytes, expected a multiple of 3073; get it anew",
    ),
    (
        "cifar label",
        {"data_batch_1.bin": b"\x0a" + bytes(3072)},
        "data_batch_1.bin has the label 10, expected 0 to 9; get it anew",
    ),
    ("cifar-100's names are no batches", {"train": pickle.dumps({})}, "{} holds no pictures ("),
    ("no pickle", {"data_batch_1": b"hello"}, "data_batch_1 is no original file of CIFAR-10 ("),
    (
        "empty pickle",
        {"data_batch_1": b""},
        "data_batch_1 is no original file of CIFAR-10 (Ran out of input); get it anew",
    ),
    (
        "a list",
        {"data_batch_1": pickle.dumps([1])},
        "data_batch_1 is no original file of CIFAR-10 (it holds no dict); get it anew",
    ),
    ("text keys", {"data_batch_1": pickle.dumps({"data": 1})}, NO_DATA),
    ("floats in a pickle", {"data_batch_1": cifar(np.zeros((1, 3072)), 0)}, NO_DATA),
    (
        "labels in a pickle",
        {"data_batch_1": cifar(np.zeros((2, 3072), np.uint8), 0, 10)},
        "data_batch_1 has no label 0 to 9 for each of its 2 pictures; get it anew",
    ),
]


@pytest.mark.parametrize(("tree", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_messages(tree: Tree, message: str, tmp_path: Path) -> None:
    data = as_folder(tmp_path, tree)
    with pytest.raises(UserError) as caught:
        read_images(data)
    assert str(caught.value).startswith(message.replace("{}", str(data)))
    assert message.endswith("(") or str(caught.value) == message.replace("{}", str(data))


class Call:
    """An object whose pickle calls something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "arguments", "asked"),
    [
        (os.system, ("touch harm",), "posix.system"),
        (subprocess.run, (["touch", "harm"],), "(subprocess|commands).run"),
        (eval, ("open('harm', 'w')",), "eval"),
        (np.load, ("data_batch_2",), "numpy.load"),
        (getattr, (np, "load"), "getattr"),
    ],
)
def test_a_pickle_that_means_harm_is_refused(
    function: Any,
    arguments: tuple[Any, ...],
    asked: str,
    protocol: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    content = Call(function, *arguments) if function is not getattr else Call(getattr, Call(dict), "update")
    data = as_folder(tmp_path, {"data_batch_1": pickle.dumps({b"data": content}, protocol)})
    with pytest.raises(
        UserError, match=rf"^data_batch_1 is no original file of CIFAR-10 \(it asks for .*{asked}\); get it anew"
    ):
        read_images(data)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch harm'\ntR.",  # by hand, protocol 0
        b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.tofile\x93.",  # a dotted name behind an allowed one
        b"\x82\x01.",  # an extension code
        b"P42\n.",  # a persistent id
        pickle.dumps(pytest.raises),
    ],
)
def test_other_ways_into_a_pickle_are_refused(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = as_folder(tmp_path, {"data_batch_1": content})
    with pytest.raises(UserError, match=r"^data_batch_1 is no original file of CIFAR-10 \(.*\); get it anew$"):
        read_images(data)
    assert not (tmp_path / "harm").exists()


def test_the_original_pickles_are_of_an_old_numpy(tmp_path: Path) -> None:
    """They name ``numpy.core``, which newer ones call ``numpy._core``; their bytes are texts of Python 2."""
    rows, labels = BATCHES["data_batch_1"]
    content = pickle.dumps({b"data": rows, b"labels": labels}, 2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core.multiarray" in content
    assert len(read_images(as_folder(tmp_path, {"data_batch_1": content}))) == 3


def test_a_member_that_cannot_be_read(tmp_path: Path) -> None:
    path = as_zip(tmp_path, cifar_binary())
    content = bytearray(path.read_bytes())
    content[content.index(b"airplane")] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(
        UserError, match=r"batches.meta.txt in .*d.zip can't be read \(damaged in the archive \(Bad CRC"
    ):
        read_images(path)
