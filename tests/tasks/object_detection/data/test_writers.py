"""Sets go from every format to every other and come back the same; nothing is left behind where it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks.object_detection.data.boxed import EXPECTED, TREES, coco, picture, plain, write, xml

from dolmen.data.boxes.set import box_set
from dolmen.tasks.object_detection.data.clean import clean
from dolmen.tasks.object_detection.data.read import read_boxes
from dolmen.tasks.object_detection.data.writers import FORMS, convert_boxes, write_boxes
from dolmen.types import UserError


@pytest.mark.parametrize("target", FORMS)
@pytest.mark.parametrize("layout", ["voc", "coco", "yolo"])
def test_every_pair(layout: str, target: str, tmp_path: Path) -> None:
    source = write(TREES[layout], tmp_path / "data")
    assert convert_boxes(source, target, tmp_path / "out") == []
    again = read_boxes(tmp_path / "out")
    assert plain(again) == EXPECTED
    assert again.relative == (target == "yolo")
    assert again.images.skipped == ()
    assert again.notes == ()
    assert dict(again.images.read(range(5))) == {
        i: picture(n.rpartition("/")[2][:2]) for i, n in enumerate(again.images.names)
    }


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
def test_numbers_survive_two_conversions(make_images: Any, first: str, second: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    corners = np.sort(generator.uniform(0, 40, (200, 2, 2)), axis=1).reshape(-1, 4)
    images = make_images([picture("c1"), picture("a1")], [0, 0], classes=("b", "a"), names=["a1.png", "c1.png"])
    boxes = box_set(images, corners, generator.integers(0, 2, 200), np.repeat([0, 1], 100))
    sizes = np.array([[40, 40], [40, 60]])
    write_boxes(boxes, sizes, tmp_path / "one", first)  # type: ignore[arg-type]
    convert_boxes(tmp_path / "one", second, tmp_path / "two")
    again, _ = clean(read_boxes(tmp_path / "two"), sizes)
    np.testing.assert_allclose(again.boxes_xyxy, boxes.boxes_xyxy, rtol=0, atol=1e-6)
    names = np.array(again.images.classes)
    assert names[again.labels].tolist() == np.array(boxes.images.classes)[boxes.labels].tolist()


def crowded(folder: Path) -> Path:
    content = coco(["a1", "a2"])
    content["annotations"][0] |= {"iscrowd": 1, "segmentation": [[3, 4, 20, 4, 20, 30]]}
    return write({"a.json": content, "a1.png": picture("a1"), "a2.png": picture("a2")}, folder)


LOST = {
    "coco": [],
    "voc": ["1 outline is not written: VOC has no place for them."],
    "yolo": [
        "1 crowd or difficult box is not written: YOLO has no place for them.",
        "1 outline is not written: YOLO has no place for them.",
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_crowds_and_outlines(form: str, tmp_path: Path) -> None:
    assert convert_boxes(crowded(tmp_path / "data"), form, tmp_path / "out") == LOST[form]
    again = read_boxes(tmp_path / "out")
    assert again.crowd.tolist() == ([False] * 2 if form == "yolo" else [True, False, False])
    assert again.polygons == ({0: [[3, 4, 20, 4, 20, 30]]} if form == "coco" else {})


def test_sets_without_splits_stay_so(tmp_path: Path) -> None:
    source = write({"a1.png": picture("a1"), "a1.xml": xml("a1")}, tmp_path / "data")
    for form in FORMS:
        convert_boxes(source, form, tmp_path / form)
        assert plain(read_boxes(tmp_path / form)) == {"a1": ("", EXPECTED["a1"][1])}


def test_same_names_in_several_folders(tmp_path: Path) -> None:
    tree = {f"{f}/a1.{s}": content for f in ("x", "y/z") for s, content in (("png", picture("a1")), ("xml", xml("a1")))}
    for form in FORMS:
        convert_boxes(write(tree, tmp_path / "data"), form, tmp_path / form)
        boxes = read_boxes(tmp_path / form)
        assert [n.rpartition("/")[2] for n in boxes.images.names] == ["x_a1.png", "y_z_a1.png"]
        assert len(boxes.labels) == 4


STRANGE = ("a: b", "no", "<&>\"'", "1", "läufer 🐈", "del\x7fete", "#x")


@pytest.mark.parametrize("form", FORMS)
def test_strange_class_names(make_images: Any, form: str, tmp_path: Path) -> None:
    images = make_images([picture("a1")], [0], classes=STRANGE, names=["photo 1.png"])
    boxes = box_set(images.replace(splits=["val"]), [(1, i, 9, 20) for i in range(7)], range(7), [0] * 7)
    write_boxes(boxes, np.array([[40, 60]]), tmp_path / "out", form)  # type: ignore[arg-type]
    again = read_boxes(tmp_path / "out")
    assert [again.images.classes[i] for i in again.labels] == list(STRANGE)
    assert again.images.names[0].endswith("/photo 1.png")
    assert again.images.splits == ["val"]


def test_what_is_mended_is_said(tmp_path: Path) -> None:
    tree = {
        "a1.png": picture("a1"),
        "a1.xml": xml("a1", [("cat", (5, 5, 5, 5)), ("cat", (1, 2, 3, 9))]),
        "a2.png": b"nothing",
        "a2.xml": xml("a2"),
    }
    calls: list[tuple[str, int, int]] = []
    sentences = convert_boxes(write(tree, tmp_path / "data"), "coco", tmp_path / "out", lambda *t: calls.append(t))
    assert sentences == [
        "1 box has no area, and is dropped: mend it (first: a1.png: cat 5 5 5 5).",
        "1 picture is unreadable and left out (first: a2.png, not a picture).",
    ]
    assert calls == [("opening pictures", 1, 2), ("opening pictures", 2, 2)]
    assert plain(read_boxes(tmp_path / "out")) == {"a1": ("", [("cat", (1, 2, 3, 9), False)])}


def test_arrays_are_written_as_pictures(make_images: Any, tmp_path: Path) -> None:
    grey = np.arange(600, dtype=np.uint8).reshape(20, 30)
    images = make_images([grey, np.stack([grey] * 3, axis=2)], [0, 0], names=["a.jpg [0, 0, 30, 20]", "b[1]"])
    boxes = box_set(images, [(1, 2, 3, 4)], [0], [0])
    write_boxes(boxes, np.array([[20, 30]] * 2), tmp_path / "out", "voc")
    assert convert_boxes(tmp_path / "out", "coco", tmp_path / "again") == []
    content = json.loads((tmp_path / "again/annotations/instances_all.json").read_text())
    assert [(i["file_name"], i["height"], i["width"]) for i in content["images"]] == [
        ("a.jpg [0, 0, 30, 20].png", 20, 30),
        ("b[1].png", 20, 30),
    ]


def test_mistakes(tmp_path: Path) -> None:
    source = write(TREES["voc"], tmp_path / "data")
    with pytest.raises(UserError, match=r"^there is no format 'x'; give one of voc, coco, yolo$"):
        convert_boxes(source, "x", tmp_path / "out")
    with pytest.raises(UserError, match=r"data exists already and is not empty; name a new folder$"):
        convert_boxes(source, "coco", source)
    empty = write({"a1.png": b"", "a1.xml": xml("a1")}, tmp_path / "empty")
    with pytest.raises(UserError, match=r"empty has no picture that can be read; bring readable ones$"):
        convert_boxes(empty, "coco", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_picture_that_vanishes_leaves_nothing_behind(make_images: Any, tmp_path: Path) -> None:
    images = make_images([picture("a1"), FileNotFoundError("gone")], [0, 0])
    with pytest.raises(UserError, match=r"^1.png can't be read any more \(gone\); try again$"):
        write_boxes(box_set(images, [(1, 2, 3, 4)], [0], [0]), np.array([[40, 60]] * 2), tmp_path / "out", "coco")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.shared_data
@pytest.mark.parametrize("form", FORMS)
def test_coco128_round(form: str, shared_data: Path, tmp_path: Path) -> None:
    boxes = read_boxes(shared_data / "vision/coco128")
    sizes = boxes.annotated_sizes
    cleaned, _ = clean(boxes, sizes)
    write_boxes(cleaned, sizes, tmp_path / "out", form)  # type: ignore[arg-type]
    again, _ = clean(read_boxes(tmp_path / "out"), sizes)
    kept = cleaned.keep(~cleaned.crowd) if form == "yolo" else cleaned
    np.testing.assert_allclose(again.boxes_xyxy, kept.boxes_xyxy, rtol=0, atol=1e-6)
    assert [again.images.classes[i] for i in again.labels] == [kept.images.classes[i] for i in kept.labels]
    assert again.crowd.tolist() == kept.crowd.tolist()
    assert again.polygons == (kept.polygons if form == "coco" else {})
