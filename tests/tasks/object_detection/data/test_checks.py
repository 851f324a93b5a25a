"""What cleaning mends and drops, each with its sentence; what the check reports; every file accounted for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks.object_detection.data.boxed import TREES, coco, picture, png, write, xml, yolo

from dolmen.data.boxes.set import BoxSet, box_set
from dolmen.data.images.decoded import Decoded, decode_all
from dolmen.data.splits import assign_splits
from dolmen.processors.images.image import ImageFit
from dolmen.tasks.object_detection.data.checks import check_boxes, clean, stratum
from dolmen.tasks.object_detection.data.read import read_boxes
from dolmen.types import CheckReport, Finding

NAN, INF = float("nan"), float("inf")
HEIGHT, WIDTH = 40, 60


def boxed(make_images: Any, *annotated: tuple[Any, ...], num: int = 1, **more: Any) -> BoxSet:
    """Pictures of 40 x 60; each box is left, top, right, bottom, and maybe label, picture, crowd."""
    rows = [(*f[:4], *(f[4:] + (0, 0, False)[len(f) - 4 :])) for f in annotated]
    images = make_images([b""] * num, [0] * num)
    return box_set(
        images, [r[:4] for r in rows], [r[4] for r in rows], [r[5] for r in rows], [r[6] for r in rows], **more
    )


def sized(boxes: BoxSet) -> np.ndarray[Any, Any]:
    return np.array([[HEIGHT, WIDTH]] * len(boxes), np.int32)


def messages_of(findings: tuple[Finding, ...]) -> dict[str, str]:
    return {f.code: f.message for f in findings}


GOOD = (1, 2, 11, 22)
CASES: list[tuple[str, list[Any], list[Any], dict[str, str]]] = [
    ("nothing", [GOOD], [GOOD], {}),
    ("to the edge", [(0, 0, 30, 40)], [(0, 0, 30, 40)], {}),
    ("rounded", [(-0.4, 3, 20, 40.9)], [(0, 3, 20, 40)], {}),
    (
        "zero",
        [(5, 5, 5, 9), GOOD, (7, 7, 7, 7)],
        [GOOD],
        {"zero-size": "2 boxes have no area, and are dropped: mend them (first: 0.png: cat 5 5 5 9)."},
    ),
    (
        "turned",
        [(11, 22, 1, 2)],
        [GOOD],
        {
            "turned-around": "1 box is turned around, and mended by exchanging sides: look at it "
            "(first: 0.png: cat 11 22 1 2)."
        },
    ),
    (
        "turned upside down",
        [(1, 22, 11, 2)],
        [GOOD],
        {
            "turned-around": "1 box is turned around, and mended by exchanging sides: look at it "
            "(first: 0.png: cat 1 22 11 2)."
        },
    ),
    (
        "outside",
        [(70, 5, 80, 9), (1, -9, 5, 0), GOOD],
        [GOOD],
        {"outside": "2 boxes are outside of the picture, and dropped: mend them (first: 0.png: cat 70 5 80 9)."},
    ),
    (
        "partly outside",
        [(50, -5, 80, 9)],
        [(50, 0, 60, 9)],
        {"partly-outside": "1 box is partly outside, and clipped: look at it (first: 0.png: cat 50 -5 80 9)."},
    ),
    (
        "no numbers",
        [(NAN, 1, 2, 3), (1, 1, INF, 3), (1, 1, 1e300, 3), GOOD],
        [GOOD],
        {"not-finite": "3 boxes are no place in numbers, and dropped: mend them (first: 0.png: cat nan 1 2 3)."},
    ),
    (
        "twice",
        [GOOD, GOOD, GOOD],
        [GOOD],
        {"duplicate-boxes": "2 boxes are there before, and dropped: delete them (first: 0.png: cat 1 2 11 22)."},
    ),
    (
        "two classes",
        [GOOD, (*GOOD, 1)],
        [GOOD, GOOD],
        {
            "same-box-two-classes": "2 boxes are exactly where another is: delete the wrong one "
            "(first: 0.png: cat 1 2 11 22)."
        },
    ),
    (
        "whole",
        [(1, 0, 60, 40)],
        [(1, 0, 60, 40)],
        {"whole-picture": "1 box is nearly the whole picture: look at it (first: 0.png: cat 1 0 60 40)."},
    ),
    (
        "tiny",
        [(1, 1, 20, 3.5)],
        [(1, 1, 20, 3.5)],
        {"tiny-boxes": "1 box is less than 3 pixels wide or high: look at it (first: 0.png: cat 1 1 20 3.5)."},
    ),
    (
        "crowd",
        [(*GOOD, 0, 0, True)],
        [GOOD],
        {
            "crowd": "1 box is marked as a crowd or as difficult, and neither learnt nor measured by "
            "(first: 0.png: cat 1 2 11 22)."
        },
    ),
    (
        "emptied",
        [(5, 5, 5, 5)],
        [],
        {
            "zero-size": "1 box has no area, and is dropped: mend it (first: 0.png: cat 5 5 5 5).",
            "emptied-pictures": "1 picture has lost all of its boxes and counts as background: mend it (0.png).",
        },
    ),
    (
        "background",
        [],
        [],
        {
            "background-pictures": "1 picture has no boxes and counts as background: check that it really shows none "
            "of the objects (0.png)."
        },
    ),
]


@pytest.mark.parametrize(("annotated", "expected", "messages"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_clean(make_images: Any, annotated: list[Any], expected: list[Any], messages: dict[str, str]) -> None:
    boxes = boxed(make_images, *annotated)
    cleaned, findings = clean(boxes, sized(boxes))
    assert cleaned.boxes_xyxy.tolist() == [list(map(float, e[:4])) for e in expected]
    assert messages_of(findings) == messages
    assert not cleaned.relative
    assert cleaned.notes == ()
    again, remarks = clean(cleaned, sized(boxes))
    np.testing.assert_array_equal(again.boxes_xyxy, cleaned.boxes_xyxy)
    assert all(f.level == "info" or f.code == "same-box-two-classes" for f in remarks)


def test_shares_become_pixels(make_images: Any) -> None:
    polygons = {1: [[0.1, 0.1, 0.5, 0.1, 0.5, 0.25]]}
    boxes = boxed(make_images, (0, 0.25, 0.5, 1), (0.1, 0.1, 0.5, 0.25, 0, 1), num=2, polygons=polygons, relative=True)
    cleaned, findings = clean(boxes, np.array([[40, 60], [20, 10]], np.int32))
    np.testing.assert_allclose(cleaned.boxes_xyxy, [[0, 10, 30, 40], [1, 2, 5, 5]])
    np.testing.assert_allclose(cleaned.polygons[1], [[1, 2, 5, 2, 5, 5]])
    assert findings == ()


SIZES: list[tuple[str, tuple[int, int], Any, Any, dict[str, str]]] = [
    ("nothing said", (0, 0), GOOD, GOOD, {}),
    ("a rounded size", (41, 60), GOOD, GOOD, {}),
    (
        "half the size",
        (20, 30),
        (1, 2, 11, 15),
        (2, 4, 22, 30),
        {
            "boxes-scaled": "1 picture is annotated for another size of the same picture, and the boxes were scaled "
            "to it (first: 0.png: said 20 x 30, is 40 x 60)."
        },
    ),
    (
        "half the size, boxes for the whole",
        (20, 30),
        (1, 2, 50, 22),
        (1, 2, 50, 22),
        {
            "sizes-contradict": "1 picture is annotated with another size than it has: look whether the boxes fit "
            "(first: 0.png: said 20 x 30, is 40 x 60)."
        },
    ),
    (
        "exchanged",
        (60, 40),
        GOOD,
        GOOD,
        {
            "sizes-exchanged": "1 picture is annotated with height and width exchanged: look whether the boxes fit; if "
            "the camera's turning (EXIF) came after them, draw them anew (first: 0.png: said 60 x 40, is 40 x 60)."
        },
    ),
    (
        "another shape",
        (100, 100),
        GOOD,
        GOOD,
        {
            "sizes-contradict": "1 picture is annotated with another size than it has: look whether the boxes fit "
            "(first: 0.png: said 100 x 100, is 40 x 60)."
        },
    ),
]


@pytest.mark.parametrize(
    ("annotated_size", "box", "expected", "messages"), [s[1:] for s in SIZES], ids=[s[0] for s in SIZES]
)
def test_sizes_that_contradict(
    make_images: Any, annotated_size: tuple[int, int], box: Any, expected: Any, messages: dict[str, str]
) -> None:
    boxes = boxed(make_images, box, annotated_sizes=np.array([annotated_size], np.int64))
    cleaned, findings = clean(boxes, sized(boxes))
    assert cleaned.boxes_xyxy.tolist() == [list(map(float, expected))]
    assert messages_of(findings) == messages
    assert cleaned.annotated_sizes.tolist() == [[HEIGHT, WIDTH]]


def test_boxes_of_pictures_that_cannot_be_opened_go_quietly(make_images: Any) -> None:
    boxes = boxed(make_images, GOOD, (*GOOD, 1, 1), num=2)
    cleaned, findings = clean(boxes, np.array([[0, 0], [HEIGHT, WIDTH]], np.int32))
    assert cleaned.pictures().tolist() == [1]
    assert cleaned.labels.tolist() == [1]
    assert findings == ()


def test_many_boxes(make_images: Any) -> None:
    rows = [(i % 50, i // 50 / 10, i % 50 + 9.5, i // 50 / 10 + 5) for i in range(10_000)]
    boxes = boxed(make_images, *rows)
    cleaned, findings = clean(boxes, sized(boxes))
    assert len(cleaned.labels) == 10_000
    assert messages_of(findings) == {"many-boxes": "1 picture has more than 1,000 boxes (0.png)."}


def test_a_finding_names_the_first_twenty(make_images: Any) -> None:
    boxes = boxed(make_images, *[(i, 5, i, 9) for i in range(30)])
    (finding, emptied) = clean(boxes, sized(boxes))[1]
    assert (finding.count, len(finding.items), emptied.code) == (30, 20, "emptied-pictures")


# ---- stratum


def test_stratum(make_images: Any) -> None:
    rows = [(*GOOD, 0, 0), (*GOOD, 1, 0), (*GOOD, 0, 1), (*GOOD, 1, 3, True)]
    boxes = boxed(make_images, *rows, num=5)
    boxes = boxes.replace(images=boxes.images.replace(labels=np.array([0, 0, 0, 0, -1])))
    assert stratum(boxes).tolist() == [1, 0, 2, 2, -1]


def test_the_only_picture_of_a_class_stays_in_training(make_images: Any, tmp_path: Path) -> None:
    num, classes = 100, tuple(f"c{i}" for i in range(30))
    rows = [(*GOOD, 0, i) for i in range(num)] + [(*GOOD, i, i) for i in range(1, 30)]
    images = make_images([png(8, 8, i) for i in range(num)], [0] * num, classes=classes)
    boxes = box_set(images, [f[:4] for f in rows], [f[4] for f in rows], [f[5] for f in rows])
    split = assign_splits(images.replace(labels=stratum(boxes)), decode(boxes, tmp_path))
    assert set(split.splits[1:30]) == {"train"}
    assert split.splits.count("test") >= 10


def test_many_rare_classes_do_not_make_validation_large(make_images: Any, tmp_path: Path) -> None:
    num, classes = 100, tuple(f"c{i}" for i in range(60))
    rows = [(*GOOD, 0, i) for i in range(num)] + [(*GOOD, i % 60, i) for i in range(num)]
    images = make_images([png(8, 8, i) for i in range(num)], [0] * num, classes=classes)
    boxes = box_set(images, [f[:4] for f in rows], [f[4] for f in rows], [f[5] for f in rows])
    split = assign_splits(images.replace(labels=stratum(boxes)), decode(boxes, tmp_path), test_fraction=0)
    assert 8 <= split.splits.count("val") <= 14


# ---- the report


def decode(boxes: BoxSet, tmp_path: Path) -> Decoded:
    processor = ImageFit(height=32, width=32, channels=3)
    return decode_all(boxes.images, processor, cache=tmp_path / "cache")


def report(data: Path, tmp_path: Path) -> CheckReport:
    boxes = read_boxes(data)
    decoded = decode(boxes, tmp_path)
    cleaned, findings = clean(boxes, decoded.sizes)
    images = assign_splits(cleaned.images.replace(labels=stratum(cleaned)), decoded)
    checked = check_boxes(cleaned.replace(images=images.replace(labels=cleaned.images.labels)), decoded, findings)
    assert checked.num_files == checked.num_used + len(checked.skipped)
    return checked


@pytest.mark.parametrize("layout", ["voc", "coco", "yolo"])
def test_report_of_a_good_set(layout: str, tmp_path: Path) -> None:
    checked = report(write(TREES[layout], tmp_path / "data"), tmp_path)
    assert checked.task == "object-detection"
    assert checked.counts == {
        "train": {"bird": 0, "cat": 2, "dog": 1},
        "val": {"bird": 1, "cat": 0, "dog": 2},
        "test": {"bird": 0, "cat": 1, "dog": 0},
    }
    assert checked.summary["boxes per picture"] == "1.4 on average, at most 3"
    assert checked.summary["box size"].startswith("median 26 x 20 px, ")
    assert checked.summary["background pictures"] == "1"
    assert checked.summary["annotation files"].endswith(" read, not counted above")
    assert checked.num_used == 5
    codes = {f.code for f in checked.findings if f.level != "info"}
    assert codes == {"class-missing-from-split", "few-examples"}
    assert not checked.errors


def test_every_file_is_accounted_for(tmp_path: Path) -> None:
    tree = {
        "a1.png": picture("a1"),
        "a1.xml": xml("a1"),
        "a2.png": picture("a2"),
        "a2.xml": "<annotation>",
        "b1.png": b"no picture",
        "b1.xml": xml("b2"),
        "b2.png": picture("b2"),
        "lost.xml": xml("a1").replace("a1.png", "gone.png"),
        "notes.md": "",
        ".hidden": "",
    }
    checked = report(write(tree, tmp_path / "data"), tmp_path)
    assert {s.name: s.reason for s in checked.skipped} == {
        "a2.png": "its annotations can't be read: no XML (no element found: line 1, column 12)",
        "b1.png": "not a picture",
        "b2.png": "no annotation file",
        "lost.xml": "no picture of this name",
        "notes.md": "not needed",
        ".hidden": "hidden or system file",
    }
    assert checked.num_used == 1
    by_code = {f.code: f.message for f in checked.findings}
    assert by_code["unreadable-annotations"].startswith(
        "The annotations of 1 picture can't be read, and it is left out"
    )
    assert by_code["unreadable-pictures"].startswith("1 picture is unreadable and left out")
    assert by_code["skipped-files"] == ("4 files of the source are left out: check that none of them should be used.")
    assert "unlabelled-pictures" not in by_code
    assert "copies-left-out" not in by_code


def test_leaks_and_contradicting_copies(tmp_path: Path) -> None:
    tree = {
        "annotations/instances_train.json": coco(["a1", "a2"]),
        "annotations/instances_val.json": coco(["b2"]),
        "train/a1.png": picture("a1"),
        "train/a2.png": picture("a1"),
        "val/b2.png": picture("a1"),
    }
    by_code = {f.code: f for f in report(write(tree, tmp_path / "data"), tmp_path).findings}
    assert by_code["exact-duplicates-across-splits"].level == "leak"
    assert by_code["same-picture-other-boxes"].items == ("train/a1.png = train/a2.png",)
    assert "same-picture-two-labels" not in by_code


ERRORS: list[tuple[str, dict[str, Any], str]] = [
    (
        "no picture opens",
        {"a1.png": b"x", "a1.xml": xml("a1")},
        "No picture can be used: bring readable pictures with boxes around the objects.",
    ),
    (
        "nothing to train on",
        {"test/a1.png": picture("a1"), "test/a1.xml": xml("a1")},
        "None of the 1 pictures is for training: move some into train.",
    ),
    (
        "no boxes to train on",
        {
            "train/b1.png": picture("b1"),
            "train/b1.xml": xml("b1"),
            "val/a1.png": picture("a1"),
            "val/a1.xml": xml("a1"),
        },
        "None of the training pictures has a box: draw boxes around the objects, or move pictures into train.",
    ),
]


@pytest.mark.parametrize(("tree", "message"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS])
def test_errors(tree: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert [f.message for f in report(write(tree, tmp_path / "data"), tmp_path).errors] == [message]


def test_labels_in_pixels_of_nobody(tmp_path: Path) -> None:
    """A few wrong lines of YOLO are dropped by name."""
    tree = {
        "images/a1.png": picture("a1"),
        "images/a2.png": picture("a2"),
        "labels/a1.txt": yolo("a1") + "0 30 20 5 5\n",
        "labels/a2.txt": yolo("a2"),
    }
    by_code = {f.code: f for f in report(write(tree, tmp_path / "data"), tmp_path).findings}
    assert by_code["outside"].count == 1


# ---- real data


@pytest.mark.shared_data
def test_blood_cells_lose_two_boxes_without_area(shared_data: Path, tmp_path: Path) -> None:
    checked = report(shared_data / "vision/bccd-voc", tmp_path)
    (zero,) = [f for f in checked.findings if f.code == "zero-size"]
    assert [i.split(":")[0][-9:] for i in zero.items] == ["00338.jpg", "00343.jpg"]
    assert {s: sum(c.values()) for s, c in checked.counts.items()} == {"train": 2804, "val": 1137}
    assert checked.num_used == 292


@pytest.mark.shared_data
def test_coco128_accounts_for_everything(shared_data: Path, tmp_path: Path) -> None:
    checked = report(shared_data / "vision/coco128", tmp_path)
    by_code = {f.code: f for f in checked.findings}
    assert by_code["crowd"].count == 10
    assert by_code["background-pictures"].items == (
        "images/train2017/000000000250.jpg",
        "images/train2017/000000000508.jpg",
    )
    assert sum(sum(c.values()) for c in checked.counts.values()) == 929
    assert checked.num_used == 128
    assert Counter(s.reason for s in checked.skipped) == {"not needed": 130}
