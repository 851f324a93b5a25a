"""The check of a set: every file is accounted for, every finding has its code, level and sentence."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from dolmen.data.images.checks import check_images
from dolmen.data.images.decoded import decode_all
from dolmen.data.report_text import report_text
from dolmen.data.splits import assign_splits
from dolmen.processors.images.image import ImageFit
from dolmen.types import CheckReport, Finding, Skipped

IMAGE_FIT = ImageFit(height=16, width=16, channels=3)


def scene(seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def brighter(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels * 0.9 + 8, 0, 255).astype(np.uint8)


@pytest.fixture
def check(make_images, tmp_path):
    """Check a set of good pictures after some changes: {index: picture}, or attributes of the set."""

    def run(pictures=None, *, num=24, notes=None, assign=False, **changes) -> CheckReport:
        changes.setdefault("labels", [i % len(changes.get("classes", "ab")) for i in range(num)])
        if not assign:
            changes.setdefault("splits", ["train"] * (num - 8) + ["val"] * 4 + ["test"] * 4)
        all_pictures = [(pictures or {}).get(i, scene(i)) for i in range(num)]
        images = make_images(all_pictures, changes.pop("labels"), **changes)
        decoded = decode_all(images, IMAGE_FIT, cache=tmp_path / "cache")
        decoded.notes.update(notes or {})
        return check_images(assign_splits(images, decoded), decoded)

    return run


FEW = "2 classes have fewer than 10 training pictures (cat 8, dog 8): bring more, or join classes."


def test_a_good_set_is_silent(check):
    report = check(num=40)
    assert report.findings == ()
    assert (report.num_files, report.num_used, report.skipped) == (40, 40, ())
    assert report.counts == {
        "train": {"cat": 16, "dog": 16},
        "val": {"cat": 2, "dog": 2},
        "test": {"cat": 2, "dog": 2},
    }
    assert report.summary == {"classes": "2", "picture size": "32 x 32 (all)", "colour": "colour (all)"}
    assert report.task == "image-classification"


CASES: list[tuple[str, dict, str, str, str, int, tuple[str, ...]]] = [
    (
        "unreadable",
        {"pictures": {3: b"", 5: b"xx"}},
        "unreadable-pictures",
        "warning",
        r"2 pictures are unreadable and left out: repair or delete them \(first: 3\.png, .*empty.*\)\.",
        2,
        (),
    ),
    (
        "unlabelled",
        {"labels": [-1, *[0, 1] * 20][:24]},
        "unlabelled-pictures",
        "warning",
        r"1 picture has no label and can't be used: give it one\.",
        1,
        ("0.png",),
    ),
    (
        "other files",
        {"skipped": (Skipped(name="notes.txt", reason="not a picture"),)},
        "skipped-files",
        "info",
        r"1 file of the source is left out: check that none of them should be a picture of a class\.",
        1,
        ("notes.txt: not a picture",),
    ),
    (
        "nothing",
        {"num": 8, "pictures": dict.fromkeys(range(8), b"")},
        "no-pictures",
        "error",
        r"No picture can be used: bring readable pictures, such as a folder per class\.",
        0,
        (),
    ),
    (
        "no training",
        {"splits": ["test"] * 24},
        "no-training-pictures",
        "error",
        r"None of the 24 pictures is for training: move some into train\.",
        0,
        (),
    ),
    (
        "one class",
        {"labels": [0] * 24},
        "one-class",
        "error",
        r"All training pictures are of the class cat: bring pictures of at least one other class\.",
        0,
        ("cat",),
    ),
    (
        "empty class",
        {"labels": [0, 1] * 12, "classes": ("cat", "dog", "eel", "fox")},
        "empty-class",
        "warning",
        r"Classes eel, fox have no usable picture anywhere: add some, or remove the class\.",
        2,
        ("eel", "fox"),
    ),
    (
        "class not in val",
        {"labels": [*[0, 1] * 8, 0, 0, 0, 0, 0, 1, 0, 1]},
        "class-missing-from-split",
        "warning",
        r"Class dog has no usable picture in val: move some there so that it can be measured\.",
        1,
        ("dog",),
    ),
    (
        "class not in train",
        {"labels": [*[0] * 16, 0, 1, 0, 1, 0, 1, 0, 1]},
        "class-missing-from-split",
        "warning",
        r"Class dog has no usable picture in train: move some there so that it can be learnt\.",
        1,
        ("dog",),
    ),
    (
        "no test",
        {"splits": ["train"] * 20 + ["val"] * 4},
        "no-test-split",
        "info",
        r"Nothing is set apart as test: evaluate the model on other data than these\.",
        0,
        (),
    ),
    ("few", {}, "few-examples", "warning", re.escape(FEW), 2, ("cat: 8", "dog: 8")),
    (
        "imbalance",
        {"labels": [*[0] * 15, 1, 0, 1, 0, 1, 0, 1, 0, 1]},
        "imbalance",
        "warning",
        r"cat has 15 training pictures and dog 1 \(15 times fewer\): judge by the figures of each class, not"
        r" by accuracy alone\.",
        2,
        ("cat: 15", "dog: 1"),
    ),
    (
        "sizes",
        {"pictures": {0: scene(0, 20, 40), 1: scene(1, 100, 90)}},
        "mixed-sizes",
        "info",
        r"The pictures come in 3 sizes, from 20 x 40 to 100 x 90: all are brought to 16 x 16\.",
        3,
        (),
    ),
    (
        "tiny",
        {"pictures": {0: scene(0, 7, 7)}},
        "tiny-pictures",
        "warning",
        r"1 picture is less than 8 pixels high or wide: look whether that is a thumbnail or an icon\.",
        1,
        ("0.png",),
    ),
    (
        "long",
        {"pictures": {0: scene(0, 20, 70), 1: scene(1, 200, 20)}},
        "long-pictures",
        "warning",
        r"2 pictures are more than 3 times as long as wide \(or as wide as long\): look at what cropping"
        r" leaves, or pad instead\.",
        2,
        ("0.png", "1.png"),
    ),
    (
        "grey",
        {"pictures": {4: scene(4)[:, :, :1]}},
        "mixed-colour",
        "info",
        r"1 picture is grey and 23 are in colour: check that this does not go with the class, or the model"
        r" learns it\.",
        1,
        ("4.png",),
    ),
    (
        "converted",
        {"notes": {1: ("CMYK: converted",), 2: ("CMYK: converted",)}},
        "converted-pictures",
        "info",
        r"2 pictures were converted while reading \(CMYK: converted\): look at 1\.png to see whether that is"
        r" right\.",
        2,
        ("1.png", "2.png"),
    ),
    (
        "blank",
        {"pictures": {1: np.full((32, 32, 3), 7, np.uint8), 2: np.full((32, 32, 3), 9, np.uint8)}},
        "blank-pictures",
        "warning",
        r"2 pictures are of one colour and show nothing: delete them\.",
        2,
        ("1.png", "2.png"),
    ),
    (
        "copies in test",
        {"pictures": {20: scene(0), 22: scene(2)}},
        "exact-duplicates-across-splits",
        "leak",
        r"2 pictures of test are also in train, to the last pixel: delete them from one of the two"
        r" \(first: 20\.png = 0\.png\)\.",
        2,
        ("20.png = 0.png", "22.png = 2.png"),
    ),
    (
        "copy in val",
        {"pictures": {16: scene(0)}},
        "exact-duplicates-across-splits",
        "leak",
        r"1 picture of val is also in train, to the last pixel: delete it from one of the two"
        r" \(first: 16\.png = 0\.png\)\.",
        1,
        ("16.png = 0.png",),
    ),
    (
        "copies within",
        {"pictures": {2: scene(0), 4: scene(0)}},
        "exact-duplicates",
        "warning",
        r"2 pictures are exact copies of another in the same split and count twice: delete the copies"
        r" \(first: 0\.png = 2\.png\)\.",
        2,
        ("0.png = 2.png", "0.png = 4.png"),
    ),
    (
        "two labels",
        {"pictures": {3: scene(0)}},
        "same-picture-two-labels",
        "warning",
        r"1 picture is in the set with two different labels: keep the right one"
        r" \(first: 0\.png = 3\.png, cat and dog\)\.",
        1,
        ("0.png = 3.png",),
    ),
    (
        "nearly in test",
        {"pictures": {20: brighter(scene(0)), 22: brighter(scene(0)) + 1}},
        "near-duplicates-across-splits",
        "warning",
        r"2 pictures of test look almost the same as one of train: look at them, and give what belongs"
        r" together one group \(first: 20\.png = 0\.png\)\.",
        2,
        ("20.png = 0.png", "22.png = 0.png"),
    ),
    (
        "nearly within",
        {"pictures": {2: brighter(scene(0))}},
        "near-duplicates",
        "info",
        r"1 picture looks almost the same as another of the same split: look whether it is worth keeping"
        r" \(first: 0\.png = 2\.png\)\.",
        1,
        ("0.png = 2.png",),
    ),
    (
        "torn group",
        {"groups": ["ann"] + [""] * 19 + ["ann"] + [""] * 3},
        "group-across-splits",
        "leak",
        r"1 group is in more than one split: keep each in one, or name no splits and let Dolmen choose them"
        r" \(first: ann in train and test\)\.",
        1,
        ("ann in train and test",),
    ),
]


@pytest.mark.parametrize(
    ("changes", "code", "level", "message", "count", "items"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_findings(check, changes, code, level, message, count, items):
    report = check(**changes)
    finding = next(f for f in report.findings if f.code == code)
    assert re.fullmatch(message, finding.message), finding.message
    assert (finding.level, finding.count) == (level, count)
    if items:
        assert finding.items == items
    others = {f.code for f in report.findings} - {code}
    if level in ("leak", "info"):
        assert others <= {"few-examples"}, "one cause, one finding"


def test_every_file_is_accounted_for(check):
    report = check(
        {3: b"", 4: OSError(5, "Input/output error")},
        labels=[-1, *[0, 1] * 20][:24],
        skipped=(Skipped(name="a.txt", reason="not a picture"),),
    )
    assert report.num_files == 25
    assert report.num_used == 21 == report.num_files - len(report.skipped)
    assert {s.name: s.reason for s in report.skipped if s.name != "3.png"} == {
        "a.txt": "not a picture",
        "0.png": "no label",
        "4.png": "can't be opened: Input/output error",
    }
    assert sum(sum(of_split.values()) for of_split in report.counts.values()) == report.num_used


def test_the_most_serious_comes_first(check):
    report = check({3: b"", 20: scene(0)}, labels=[0] * 24, notes={1: ("EXIF: rotated",)})
    levels = [f.level for f in report.findings]
    assert levels == sorted(levels, key=("error", "leak", "warning", "info").index)
    assert {"error", "leak", "warning", "info"} == set(levels)


def test_splits_that_dolmen_chooses_never_leak(check):
    pictures = {i: scene(i % 10) for i in range(60)}
    report = check(pictures, num=60, assign=True, labels=[i % 10 % 2 for i in range(60)])
    assert report.leaks == ()
    assert report.counts.keys() == {"train", "val", "test"}


def test_items_are_few(check):
    report = check({i: scene(0) for i in range(0, 60, 2)}, num=60, labels=[0, 1] * 30)
    finding = next(f for f in report.findings if f.code == "exact-duplicates")
    assert finding.count == 25 + 1 + 1
    assert len(finding.items) == 20


REPORT = CheckReport(
    task="image-classification",
    source="pets.zip",
    num_files=1_240,
    num_used=1_237,
    skipped=(
        Skipped(name="readme.txt", reason="not a picture"),
        Skipped(name="cat/1.jpg", reason="truncated"),
        Skipped(name="cat/2.jpg", reason="truncated"),
    ),
    counts={"train": {"cat": 1_000, "dog": 7}, "val": {"cat": 110, "dog": 0}, "test": {"cat": 118, "dog": 2}},
    summary={"classes": "2", "picture size": "32 x 32 (all)"},
    findings=(
        Finding(
            code="exact-duplicates-across-splits",
            level="leak",
            message="5 pictures of test are also in train, to the last pixel: delete them from one of the two"
            " (first: a = b).",
            count=5,
            items=("a = b", "c = d", "e = f", "g = h", "i = j"),
        ),
        Finding(code="mixed-colour", level="info", message="7 pictures are grey.", count=7, items=("a", "b")),
    ),
)
TEXT = """\
pets.zip
1,240 files: 1,237 used, 3 skipped

class  train  val  test    all
------------------------------
cat    1,000  110   118  1,228
dog        7    0     2      9
------------------------------
all    1,007  110   120  1,237

classes       2
picture size  32 x 32 (all)

LEAK     5 pictures of test are also in train, to the last pixel: delete them
         from one of the two (first: a = b).
         c = d
         e = f
         g = h
         ... and 1 more

INFO     7 pictures are grey.

skipped
  2  truncated: cat/1.jpg, ...
  1  not a picture: readme.txt

Training refuses these data, because they leak, unless told --allow-leaks.
"""


def test_the_text_as_it_looks():
    assert report_text(REPORT) == TEXT


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ([], "Ready to train."),
        (["info"], "Ready to train."),
        (["warning"], "Ready to train, with 1 warning."),
        (["warning", "warning"], "Ready to train, with 2 warnings."),
        (["leak"], "Training refuses these data, because they leak, unless told --allow-leaks."),
        (["error", "leak"], "Training is not possible with these data."),
    ],
)
def test_the_verdict(levels, verdict):
    findings = tuple(Finding(code="c", level=level, message="m") for level in levels)
    assert report_text(REPORT.model_copy(update={"findings": findings})).splitlines()[-1] == verdict


def test_the_text_stays_within_80_columns():
    long = "a very long name " * 20
    report = REPORT.model_copy(
        update={
            "counts": {s: {f"{i} {long}": i for i in range(1000)} for s in ("train", "val", "test")},
            "summary": {"licence": long},
            "findings": (Finding(code="c", level="warning", message=long, count=50, items=(long,) * 20),),
            "skipped": (Skipped(name=long, reason=long),),
        }
    )
    lines = report_text(report).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("... 981 more") for line in lines)


def test_the_text_of_an_empty_set():
    text = report_text(CheckReport(task="image-classification", source="pets", num_files=0, num_used=0))
    assert text == "pets\n0 files: 0 used, 0 skipped\n\nReady to train.\n"
