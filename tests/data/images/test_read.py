"""Finding out which layout a person has, and a folder per class."""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dolmen.data.images.files import sort_classes
from dolmen.data.images.read import read_images, require_trainable
from dolmen.data.images.set import ImageSet
from dolmen.types import UserError

PICTURE_ENDINGS = ".bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp"


def make(folder: Path, *names: str) -> Path:
    """Files whose content is their name; a name that ends in a slash is an empty folder."""
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    return folder


def make_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "" if name.endswith("/") else name)
    return path


def rows(images: ImageSet) -> list[tuple[str, str, str]]:
    labels = [images.classes[i] for i in images.labels]
    return list(zip(images.names, labels, images.splits, strict=True))


# the files, the rows (name, class, split), what is skipped
LAYOUTS: list[tuple[str, list[str], list[tuple[str, str, str]], dict[str, str]]] = [
    ("plain", ["cat/1.jpg", "dog/1.PNG"], [("cat/1.jpg", "cat", ""), ("dog/1.PNG", "dog", "")], {}),
    (
        "splits",
        ["train/cat/1.jpg", "train/dog/1.jpg", "valid/cat/2.jpg", "test/dog/3.jpg"],
        [
            ("test/dog/3.jpg", "dog", "test"),
            ("train/cat/1.jpg", "cat", "train"),
            ("train/dog/1.jpg", "dog", "train"),
            ("valid/cat/2.jpg", "cat", "val"),
        ],
        {},
    ),
    (
        "splits in other words and cases",
        ["Training/cat/1.jpg", "VALIDATION/cat/2.jpg", "Testing/cat/3.jpg", "dev/dog/4.jpg"],
        [
            ("Testing/cat/3.jpg", "cat", "test"),
            ("Training/cat/1.jpg", "cat", "train"),
            ("VALIDATION/cat/2.jpg", "cat", "val"),
            ("dev/dog/4.jpg", "dog", "val"),
        ],
        {},
    ),
    (
        "wrapped once",
        ["pets/train/cat/1.jpg", "pets/test/dog/2.jpg"],
        [("pets/test/dog/2.jpg", "dog", "test"), ("pets/train/cat/1.jpg", "cat", "train")],
        {},
    ),
    (
        "wrapped twice, without splits",
        ["a/b/cat/1.jpg", "a/b/dog/2.jpg"],
        [("a/b/cat/1.jpg", "cat", ""), ("a/b/dog/2.jpg", "dog", "")],
        {},
    ),
    (
        "wrapped, with a picture beside",
        ["logo.png", "pets/cat/1.jpg", "pets/dog/2.jpg", "pets/sample.png"],
        [("pets/cat/1.jpg", "cat", ""), ("pets/dog/2.jpg", "dog", "")],
        {"logo.png": "not in the folder of a class", "pets/sample.png": "not in the folder of a class"},
    ),
    (
        "folders inside a class",
        ["cat/2021/1.jpg", "cat/2022/05/2.jpg", "dog/3.jpg"],
        [("cat/2021/1.jpg", "cat", ""), ("cat/2022/05/2.jpg", "cat", ""), ("dog/3.jpg", "dog", "")],
        {},
    ),
    (
        "other files",
        ["cat/1.jpg", "cat/1.json", "dog/2.jpg", "README.md", "cat/.DS_Store", "scans/3.dcm"][:5],
        [("cat/1.jpg", "cat", ""), ("dog/2.jpg", "dog", "")],
        {"cat/1.json": "not a picture", "README.md": "not a picture", "cat/.DS_Store": "hidden or system file"},
    ),
    (
        "test part without classes",
        ["train/cat/1.jpg", "train/dog/2.jpg", "test/3.jpg", "extra/cat/4.jpg"],
        [("train/cat/1.jpg", "cat", "train"), ("train/dog/2.jpg", "dog", "train")],
        {"test/3.jpg": "not in the folder of a class", "extra/cat/4.jpg": "outside train, val and test"},
    ),
    (
        "a class called train",
        ["bus/1.jpg", "car/2.jpg", "train/3.jpg"],
        [("bus/1.jpg", "bus", ""), ("car/2.jpg", "car", ""), ("train/3.jpg", "train", "")],
        {},
    ),
    (
        "numbers as classes, in their order",
        ["10/1.jpg", "9/10.jpg", "9/9.jpg"],
        [("9/9.jpg", "9", ""), ("9/10.jpg", "9", ""), ("10/1.jpg", "10", "")],
        {},
    ),
    (
        "an empty split is no class",
        ["cat/1.jpg", "dog/2.jpg", "val/"],
        [("cat/1.jpg", "cat", ""), ("dog/2.jpg", "dog", "")],
        {},
    ),
    (
        "one class is enough to look at",
        ["test/cat/1.jpg", "test/cat/2.jpg"],
        [("test/cat/1.jpg", "cat", "test"), ("test/cat/2.jpg", "cat", "test")],
        {},
    ),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("files", "expected", "skipped"), [x[1:] for x in LAYOUTS], ids=[x[0] for x in LAYOUTS])
def test_layouts(files: list[str], expected: Any, skipped: dict[str, str], packed: bool, tmp_path: Path) -> None:
    data = make_zip(tmp_path / "data.zip", *files) if packed else make(tmp_path / "data", *files)
    images = read_images(data)
    assert rows(images) == expected
    assert {s.name: s.reason for s in images.skipped} == skipped
    assert images.classes == tuple(dict.fromkeys(sorted((c for _, c, _ in expected), key=lambda c: (len(c), c))))
    assert list(images.groups) == [""] * len(expected)
    assert images.source == str(data)
    assert images.licence == ""
    assert dict(images.read(range(len(images)))) == {i: n.encode() for i, (n, _, _) in enumerate(expected)}


def test_reading_some_in_any_order(tmp_path: Path) -> None:
    images = read_images(make(tmp_path / "d", *(f"{c}/{i}.jpg" for c in "ab" for i in range(5))))
    assert dict(images.read([7, 2])) == {7: b"b/2.jpg", 2: b"a/2.jpg"}
    assert list(images.read([])) == []


def test_a_picture_that_vanishes_is_an_error_in_its_place(tmp_path: Path) -> None:
    images = read_images(make(tmp_path / "d", "a/1.jpg", "b/1.jpg"))
    (tmp_path / "d/a/1.jpg").unlink()
    contents = dict(images.read([0, 1]))
    assert isinstance(contents[0], FileNotFoundError)
    assert contents[1] == b"b/1.jpg"


def test_the_fingerprint_follows_the_pictures_and_nothing_else(tmp_path: Path) -> None:
    data = make(tmp_path / "d", "a/1.jpg", "b/1.jpg", "notes.txt")
    before = read_images(data).fingerprint
    (data / "notes.txt").write_text("changed")
    assert read_images(data).fingerprint == before
    os.utime(data / "a/1.jpg", ns=(0, 1))
    touched = read_images(data).fingerprint
    (data / "a/1.jpg").rename(data / "a/2.jpg")
    renamed = read_images(data).fingerprint
    (data / "b/1.jpg").write_text("longer than it was")
    assert len({before, touched, renamed, read_images(data).fingerprint}) == 4


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["dog", "cat"], ["cat", "dog"]),
        (["10", "9", "1"], ["1", "9", "10"]),
        (["0.5", "0.25", "-1"], ["-1", "0.25", "0.5"]),
        (["class 10", "class 9"], ["class 9", "class 10"]),
        (["1", "01"], ["01", "1"]),
        ([], []),
    ],
)
def test_order_of_classes(names: list[str], ordered: list[str]) -> None:
    assert sort_classes(names) == sort_classes(names[::-1]) == ordered


# ---- every sentence

NO_PICTURES = f"{{}} holds no pictures ({PICTURE_ENDINGS}), expected a folder of them per class"

# what is there, what is typed (None: the folder itself), the sentence with {} for the folder
MESSAGES: list[tuple[str, list[str], str | None, str]] = [
    ("empty folder", ["notes/"], None, NO_PICTURES),
    ("no pictures", ["a/1.txt"], None, NO_PICTURES),
    (
        "pictures without folders",
        ["1.jpg", "2.jpg"],
        None,
        "the pictures of {} are not in folders named after their class; make it {}/cat/1.jpg, {}/dog/2.jpg, "
        "or give a .csv list with the columns path and label",
    ),
    (
        "pictures without folders, and a list",
        ["1.jpg", "2.jpg", "labels.csv"],
        None,
        "the pictures of {} are not in folders named after their class; make it {}/cat/1.jpg, {}/dog/2.jpg, "
        "or give the list: {}/labels.csv",
    ),
    (
        "splits without classes",
        ["train/1.jpg", "test/2.jpg"],
        None,
        "the pictures of {}/test are not in folders named after their class; make it {}/test/cat/1.jpg, "
        "{}/test/dog/2.jpg, or give a .csv list with the columns path and label",
    ),
    (
        "empty class",
        ["cat/1.jpg", "dog/"],
        None,
        "the class folder 'dog' of {} holds no pictures; put some in, or remove it",
    ),
    (
        "a class of hidden files",
        ["cat/1.jpg", "dog/.DS_Store"],
        None,
        "the class folder 'dog' of {} holds no pictures; put some in, or remove it",
    ),
    (
        "empty classes",
        ["cat/1.jpg", "dog/", "bird/x.txt"],
        None,
        "the class folders 'bird', 'dog' of {} hold no pictures; put some in, or remove them",
    ),
    (
        "many empty classes",
        ["cat/1.jpg", *(f"{i}/" for i in range(12))],
        None,
        "the class folders '0', '1', '2', '3', '4' ... of {} hold no pictures; put some in, or remove them",
    ),
    (
        "empty class in a split",
        ["train/cat/1.jpg", "train/dog/"],
        None,
        "the class folder 'train/dog' of {} holds no pictures; put some in, or remove it",
    ),
    (
        "empty class, wrapped",
        ["pets/train/cat/1.jpg", "pets/train/dog/"],
        None,
        "the class folder 'pets/train/dog' of {} holds no pictures; put some in, or remove it",
    ),
    ("one picture", ["1.jpg"], "1.jpg", "{}/1.jpg is one picture, expected a folder of them with a folder per class"),
    (
        "another file",
        ["a.docx"],
        "a.docx",
        "{}/a.docx is no data set that Dolmen knows; give a folder per class, an archive of one (.zip, .tar), "
        "a .csv or .jsonl list, or a .npz",
    ),
    ("a typing error", ["flowers/"], "flwers", "there is no {}/flwers; did you mean {}/flowers?"),
    ("nothing like it", ["flowers/"], "xyz.csv", "there is no {}/xyz.csv; check the path"),
    ("a public set below a folder", ["x/"], "cifar10", "there is no {}/cifar10; check the path"),
]


@pytest.mark.parametrize(("files", "typed", "message"), [m[1:] for m in MESSAGES], ids=[m[0] for m in MESSAGES])
def test_messages(files: list[str], typed: str | None, message: str, tmp_path: Path) -> None:
    data = make(tmp_path / "data", *files)
    with pytest.raises(UserError) as caught:
        read_images(data / typed if typed else data)
    assert str(caught.value) == message.replace("{}", str(data))


SETS = "digits, cifar10, mnist, fashion-mnist, pneumoniamnist, breastmnist, bloodmnist"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "the data have no name; give a folder, an archive, a list, or the name of a public set"),
        ("CIFAR-10", "there is no CIFAR-10; check the path; there is a public set called cifar10"),
        ("fashion_mnist", "there is no fashion_mnist; check the path; there is a public set called fashion-mnist"),
        ("Digits", "there is no Digits; check the path; there is a public set called digits"),
        ("imagenet", f"there is no imagenet; check the path; public sets are: {SETS}"),
        ("pets.zip", "there is no pets.zip; check the path"),
    ],
)
def test_names_that_are_no_set(typed: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        read_images(typed)


def test_a_folder_called_as_an_embedded_set_is_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "digits", "cat/1.jpg", "dog/1.jpg")
    assert read_images("digits").classes == ("cat", "dog")


def labelled(make_images: Any, *labels: int, classes: tuple[str, ...] = ("cat", "dog")) -> ImageSet:
    images: ImageSet = make_images([b""] * len(labels), labels, classes=classes)
    return images


def test_trainable(make_images: Any) -> None:
    require_trainable(labelled(make_images, 0, 0, 1, 1, -1))


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (
            (0, 0, 0),
            ("cat",),
            "pets has pictures of one class only (cat), expected two or more; "
            "put the pictures of each class into a folder of their own",
        ),
        (
            (1, 1, -1),
            ("cat", "dog"),
            "pets has pictures of one class only (dog), expected two or more; "
            "put the pictures of each class into a folder of their own",
        ),
        (
            (0, 0, 1),
            ("cat", "dog"),
            "the class 'dog' of pets has one picture, expected two or more: "
            "one to learn from and one to measure with; add pictures, or remove the class",
        ),
        (
            (0, 0, 1, 1),
            ("cat", "dog", "bird"),
            "the class 'bird' of pets has no picture, expected two or more: "
            "one to learn from and one to measure with; add pictures, or remove the class",
        ),
    ],
)
def test_not_trainable(make_images: Any, labels: tuple[int, ...], classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        require_trainable(labelled(make_images, *labels, classes=classes))
    assert str(caught.value) == message


# ---- real data


@pytest.mark.shared_data
def test_the_cifar_subset_in_its_archive(shared_data: Path) -> None:
    images = read_images(shared_data / "vision/cifar10-subset/cifar10.tar")
    assert Counter(images.splits) == {"train": 10_000, "test": 2_000}
    assert Counter(images.labels.tolist()) == dict.fromkeys(range(10), 1_200)
    assert images.classes[0] == "airplane"
    assert images.skipped == ()
    assert all(isinstance(raw, bytes) and raw[:2] == b"\xff\xd8" for _, raw in images.read(range(0, 12_000, 500)))


@pytest.mark.shared_data
def test_pneumoniamnist(shared_data: Path) -> None:
    images = read_images(shared_data / "vision/pneumoniamnist/pneumoniamnist.npz")
    assert Counter(images.splits) == {"train": 4_708, "val": 524}
    assert np.bincount(images.labels).tolist() == [1_349, 3_883]
    require_trainable(images)


@pytest.mark.shared_data
def test_faces_in_folders(shared_data: Path) -> None:
    images = read_images(shared_data / "vision/orl-faces")
    assert len(images) + len(images.skipped) == sum(len(f) for _, _, f in os.walk(shared_data / "vision/orl-faces"))
    assert images.classes[:3] == ("s1", "s3", "s4")
