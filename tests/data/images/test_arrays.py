"""Pictures in arrays: .npz with MedMNIST's keys, and scikit-learn's digits."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.data.images.read import read_images
from dolmen.types import UserError


def pictures(num: int, *shape: int) -> np.ndarray:
    return np.arange(num * int(np.prod(shape)), dtype=np.uint32).reshape(num, *shape).astype(np.uint8)


def write(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_medmnist_layout(tmp_path: Path) -> None:
    train, val, test = pictures(4, 3, 3), pictures(2, 3, 3), pictures(1, 3, 3)
    path = write(
        tmp_path / "d.npz",
        train_images=train,
        train_labels=np.array([[0], [1], [2], [1]], np.uint8),
        val_images=val,
        val_labels=np.array([[2], [0]]),
        test_images=test,
        test_labels=np.array([1]),
    )
    images = read_images(path)
    assert images.classes == ("0", "1", "2")
    assert images.labels.tolist() == [0, 1, 2, 1, 2, 0, 1]
    assert list(images.splits) == ["train"] * 4 + ["val"] * 2 + ["test"]
    assert list(images.names) == [
        *(f"train_images[{i}]" for i in range(4)),
        "val_images[0]",
        "val_images[1]",
        "test_images[0]",
    ]
    assert images.skipped == ()
    raws = dict(images.read([6, 0, 5]))
    assert list(raws) == [6, 0, 5]
    assert np.array_equal(raws[6], test[0])
    assert np.array_equal(raws[0], train[0])
    assert np.array_equal(raws[5], val[1])


@pytest.mark.parametrize("key", ["classes", "class_names"])
@pytest.mark.parametrize("names", [np.array(["cat", "dog", "none"]), np.array([b"cat", b"dog", b"none"])])
def test_names_of_classes(key: str, names: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "d.npz", train_images=pictures(2, 2, 2), train_labels=[0, 1], extra=[1], **{key: names})
    images = read_images(path)
    assert images.classes == ("cat", "dog", "none")
    assert [(s.name, s.reason) for s in images.skipped] == [("extra", "an array that no split uses")]


def test_colour_and_grey_with_an_axis(tmp_path: Path) -> None:
    for i, shape in enumerate([(4, 5, 3), (4, 5, 1)]):
        path = write(tmp_path / f"{i}.npz", test_images=pictures(2, *shape), test_labels=[0, 1])
        assert [raw.shape for _, raw in read_images(path).read([0, 1])] == [shape] * 2  # type: ignore[union-attr]


def test_the_fingerprint_follows_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "d.npz", train_images=pictures(2, 2, 2), train_labels=[0, 1])
    before = read_images(path).fingerprint
    assert read_images(path).fingerprint == before
    os.utime(path, ns=(0, 1))
    assert read_images(path).fingerprint != before


GOOD = {"train_images": pictures(2, 2, 2), "train_labels": np.array([0, 1])}

# what is other than good (None: left out), the sentence with {} for the file
BAD: list[tuple[str, dict[str, Any], str]] = [
    (
        "other keys",
        {"train_images": None, "train_labels": None, "x": [1], "y": [2]},
        "{} has the keys x, y; expected train_images and train_labels, and if you like the same for val and test",
    ),
    (
        "no arrays",
        {"train_images": None, "train_labels": None},
        "{} has the keys (none); expected train_images and train_labels, and if you like the same for val and test",
    ),
    ("no labels", {"train_labels": None}, "{} has train_images and no train_labels; add them"),
    (
        "floats",
        {"train_images": np.zeros((2, 2, 2))},
        "train_images of {} is float64 (2, 2, 2), expected uint8 of (N, H, W) or (N, H, W, 3); convert it",
    ),
    (
        "channels first",
        {"train_images": pictures(2, 3, 8, 8)},
        "train_images of {} is uint8 (2, 3, 8, 8), expected uint8 of (N, H, W) or (N, H, W, 3); convert it",
    ),
    (
        "volumes",
        {"train_images": pictures(2, 4, 4, 4)},
        "train_images of {} is uint8 (2, 4, 4, 4), expected uint8 of (N, H, W) or (N, H, W, 3); convert it",
    ),
    (
        "flat",
        {"train_images": pictures(2, 784)},
        "train_images of {} is uint8 (2, 784), expected uint8 of (N, H, W) or (N, H, W, 3); convert it",
    ),
    (
        "no pixels",
        {"train_images": pictures(2, 0, 4)},
        "train_images of {} has pictures without pixels (2, 0, 4); write them anew",
    ),
    (
        "several labels",
        {"train_labels": np.zeros((2, 14), int)},
        "train_labels of {} has several labels a picture (2, 14), expected one, (N,) or (N, 1); choose one of them",
    ),
    ("too few labels", {"train_labels": [0]}, "{} has 2 train_images and 1 train_labels, expected as many; add some"),
    (
        "labels of floats",
        {"train_labels": [0.0, 1.0]},
        "train_labels of {} are not whole numbers from 0; number the classes 0, 1, 2 ...",
    ),
    (
        "labels below 0",
        {"train_labels": [-1, 0]},
        "train_labels of {} are not whole numbers from 0; number the classes 0, 1, 2 ...",
    ),
    (
        "labels of a million",
        {"train_labels": [0, 10**6]},
        "train_labels of {} are not whole numbers from 0; number the classes 0, 1, 2 ...",
    ),
    (
        "no pictures",
        {"train_images": pictures(0, 2, 2), "train_labels": np.zeros(0, int)},
        "{} holds no pictures; write some to train_images",
    ),
    ("too few names", {"classes": ["a"]}, "{} names 1 classes and has labels up to 1; name all of them"),
    ("names twice", {"classes": ["a", "a"]}, "{} gives two classes the same name (a, a); give each its own"),
    ("a table of names", {"classes": [["a"], ["b"]]}, "the class names of {} are <U1 (2, 1), expected texts of (K,)"),
]


@pytest.mark.parametrize(("changes", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_messages(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "d.npz", **{k: v for k, v in (GOOD | changes).items() if v is not None})
    with pytest.raises(UserError) as caught:
        read_images(path)
    assert str(caught.value) == message.replace("{}", str(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "No data left in file"),
        (b"PK\x03\x04", "File is not a zip file"),
        (b"hello", "This file contains pickled (object) data"),
    ],
)
def test_no_npz_at_all(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_images(tmp_path / "d.npz")
    assert str(caught.value).startswith(f"{tmp_path}/d.npz is damaged or holds Python objects ({reason}")
    assert str(caught.value).endswith("); write it anew with numpy.savez")


class Harm:
    """Something that a pickle would run."""

    def __reduce__(self) -> Any:
        return (os.mkdir, ("harm",))


def test_python_objects_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "d.npz", train_images=np.array([Harm()], object), train_labels=[0])
    with pytest.raises(UserError, match=r"is damaged or holds Python objects \(Object arrays cannot be loaded"):
        read_images(path)
    assert not (tmp_path / "harm").exists()


@settings(max_examples=40, deadline=None)
@given(
    num=st.integers(0, 5),
    shape=st.lists(st.integers(0, 4), max_size=4),
    dtype=st.sampled_from(["u1", "u2", "f4", "?"]),
    label_shape=st.lists(st.integers(0, 5), max_size=3),
    split=st.sampled_from(["train", "val", "test"]),
)
def test_any_shapes_are_read_or_refused(
    num: int, shape: list[int], dtype: str, label_shape: list[int], split: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    images, labels = np.zeros([num, *shape], dtype), np.zeros(label_shape, int)
    path = write(tmp_path_factory.mktemp("npz") / "d.npz", **{f"{split}_images": images, f"{split}_labels": labels})
    good = dtype == "u1" and num and all(shape) and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)))
    if good and label_shape in ([num], [num, 1]):
        shapes = [np.shape(raw) for _, raw in read_images(path).read(range(num))]  # type: ignore[arg-type]
        assert shapes == [tuple(shape)] * num
    else:
        with pytest.raises(UserError):
            read_images(path)


# ---- digits


def test_digits() -> None:
    images = read_images("digits")
    assert len(images) == 1797
    assert images.classes == tuple("0123456789")
    assert images.licence == "CC BY 4.0 (UCI, via scikit-learn)"
    assert set(images.splits) == {""}
    first = dict(images.read([0]))[0]
    assert isinstance(first, np.ndarray)
    assert first.shape == (8, 8)
    stack = np.stack([raw for _, raw in images.read(range(1797))])  # type: ignore[misc]
    assert stack.dtype == np.uint8
    assert (stack.min(), stack.max()) == (0, 255)
    assert len(np.unique(stack)) == 17


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"^the digits come with scikit-learn; type: pip install 'dolmen\[train\]'$"):
        read_images("digits")
