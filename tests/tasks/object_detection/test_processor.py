from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from dolmen.tasks.object_detection.processor import DetectionProcessor, overlaps, suppress

ANCHORS = (((8.0, 8.0),), ((16.0, 16.0),), ((32.0, 32.0),))


def processor(**more: object) -> DetectionProcessor:
    values = {"classes": ("cat", "dog"), "height": 64, "width": 96, "channels": 3, "anchors": ANCHORS}
    return DetectionProcessor.model_validate(values | more)


@pytest.mark.parametrize("size", [(48, 64), (640, 480), (64, 96), (7, 300)])
def test_boxes_come_back_where_they_were(size: tuple[int, int]) -> None:
    p, (height, width) = processor(), size
    boxes = np.array([[0, 0, width, height], [1, 2, width / 2, height / 3 + 2]], np.float64)
    crop = np.array([0, 0, width, height])
    there = p.to_input(boxes, crop)
    assert (there >= -1e-3).all()
    assert (there <= [96.001, 64.001, 96.001, 64.001]).all()
    np.testing.assert_allclose(p.from_input(there, crop), boxes, atol=width * 1e-4)


@pytest.mark.parametrize(("size", "tiles"), [((1000, 1500), 2), ((1500, 1000), 3), ((100, 2000), 4), ((5, 5), 3)])
def test_tiles_cover_the_picture(size: tuple[int, int], tiles: int) -> None:
    seen = np.zeros(size, np.int64)
    whole, *others = processor(tiles=tiles).views(*size).tolist()
    assert whole == [0, 0, size[1], size[0]]
    for left, top, right, bottom in others or [whole]:
        assert right > left
        assert bottom > top
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1


def test_encoding_shows_the_whole_picture_or_its_tiles() -> None:
    pixels = np.zeros((300, 400, 3), np.uint8)
    whole, cut = processor().encode(pixels), processor(tiles=2).encode(pixels)
    assert whole["images"].shape == (1, 64, 96, 3)
    assert whole["crops"].tolist() == [[0, 0, 400, 300]]
    assert cut["images"].shape[0] == len(cut["crops"]) > 1
    assert cut["size"].tolist() == [300, 400]


def answer(boxes: list[list[float]], scores: list[list[float]]) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {"boxes": np.array([boxes], np.float32), "scores": np.array([scores], np.float32)}


def test_what_overlaps_is_dropped_within_a_class_only() -> None:
    box, near, far = [0.0, 0, 40, 40], [2.0, 0, 42, 40], [50.0, 10, 90, 60]
    outputs = answer([box, near, far], [[0.9, 0.8], [0.7, 0.0], [0.0, 0.6]])
    prediction = processor().decode_picture(outputs, np.array([[0, 0, 96, 64]]), (64, 96))
    assert prediction.labels.tolist() == [0, 1, 1]
    assert prediction.scores.tolist() == pytest.approx([0.9, 0.8, 0.6])
    assert prediction.to_json()["labels"] == ["cat", "dog", "dog"]


def test_nothing_and_very_much_are_answers_too() -> None:
    crops = np.array([[0, 0, 96, 64]])
    none = processor().decode_picture(answer([[0, 0, 9, 9]], [[0.0, 0.0]]), crops, (64, 96))
    assert len(none) == 0
    assert none.to_json()["boxes_xyxy"] == []
    rng = np.random.default_rng(0)
    corner = rng.random((1000, 2)) * 50
    many = answer(np.concatenate([corner, corner + 3], 1).tolist(), rng.random((1000, 2)).tolist())
    assert len(processor().decode_picture(many, crops, (64, 96))) <= 100


def test_an_object_that_a_tile_cut_is_not_counted_twice() -> None:
    boxes = np.array([[0, 0, 40, 40], [0, 0, 15, 40]], np.float32)
    assert suppress(boxes, np.zeros(2), 0.5).tolist() == [0, 1]
    assert suppress(boxes, np.zeros(2), 0.5, np.array([0, 1])).tolist() == [0]
    assert suppress(boxes, np.zeros(2), 0.5, np.array([1, 1])).tolist() == [0, 1]  # one person before another
    assert overlaps(boxes)[0, 1] == pytest.approx(15 / 40)


def test_what_a_tile_cuts_is_found_in_another_view() -> None:
    """A train along the picture: its halves are surer than the whole of it, and are not reported."""
    p = processor(tiles=2)
    crops = np.array([[0, 0, 160, 64], [0, 0, 96, 64], [64, 0, 160, 64]])
    whole, left, right = ([0.0, 8, 96, 30], [10.0, 10, 96, 40], [0.0, 10, 86, 40])
    boxes = np.array([[b, [20.0, 20, 30, 30]] for b in (whole, left, right)], np.float32)
    scores = np.array([[[0.5, 0], [0, 0.6]], [[0.9, 0], [0, 0]], [[0.9, 0], [0, 0]]], np.float32)
    prediction = p.decode_picture({"boxes": boxes, "scores": scores}, crops, (64, 160))
    assert prediction.labels.tolist() == [1, 0]
    assert prediction.boxes_xyxy[1, [0, 2]].tolist() == [0, 160]
    # Where the picture ends as well, nothing was cut.
    one = p.decode_picture({"boxes": boxes[1:2, :1], "scores": scores[1:2, :1]}, crops[1:2], (64, 96))
    assert len(one) == 1


def test_thresholds_decide_what_is_reported() -> None:
    crops = np.array([[0, 0, 96, 64]])
    outputs = answer([[0, 0, 20, 20], [40, 0, 60, 20]], [[0.6, 0.0], [0.0, 0.4]])
    p = processor(thresholds=(0.7, 0.3))
    prediction = p.decode_picture(outputs, crops, (64, 96))
    assert p.reported(prediction).labels.tolist() == [1]
    assert p.reported(prediction, 0.0).labels.tolist() == [0, 1]
    assert DetectionProcessor.from_json(p.to_json()) == p


@pytest.mark.parametrize("wrong", [{"thresholds": (0.5,)}, {"height": 65}, {"anchors": ANCHORS[:2]}])
def test_what_does_not_fit_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        processor(**wrong)
