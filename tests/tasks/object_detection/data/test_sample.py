"""The sample of pictures with boxes: readable, clean, and the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import contents

from dolmen.processors.images.image import open_image
from dolmen.tasks.object_detection.data.clean import clean
from dolmen.tasks.object_detection.data.read import read_boxes
from dolmen.tasks.object_detection.data.sample import CLASSES, write_box_sample
from dolmen.types import UserError


def test_sample(tmp_path: Path) -> None:
    write_box_sample(tmp_path / "one")
    boxes = read_boxes(tmp_path / "one")
    sizes = np.array([open_image(raw).pixels.shape[:2] for _, raw in boxes.images.read(range(60))])
    cleaned, findings = clean(boxes, sizes)
    assert {f.code for f in findings} == {"background-pictures"}
    assert findings[0].count == 4
    assert sizes.tolist() == [[96, 96]] * 60
    assert cleaned.images.classes == CLASSES
    assert np.bincount(cleaned.labels).min() >= 30
    counts = np.diff(cleaned.first)
    assert set(counts.tolist()) == {0, 1, 2, 3, 4}
    sides = cleaned.boxes_xyxy[:, 2:] - cleaned.boxes_xyxy[:, :2]
    assert (sides.max(axis=1) >= 16).all()
    assert sides.max() <= 44
    assert [(s.name, s.reason) for s in boxes.images.skipped] == [("NOTICE.txt", "not needed")]


def test_it_is_the_same_every_time(tmp_path: Path) -> None:
    write_box_sample(tmp_path / "one")
    write_box_sample(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_it_writes_over_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(UserError, match=r"exists already and is not empty; name a new folder$"):
        write_box_sample(tmp_path)
