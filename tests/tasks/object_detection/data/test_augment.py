from __future__ import annotations

from functools import partial

import pytest
import torch

from dolmen.tasks.object_detection.data.anchors import fit_anchors, size_iou
from dolmen.tasks.object_detection.data.augment import Boxed, jittered, joined, mosaic, paste_objects, scale_and_crop
from dolmen.tasks.object_detection.data.dataset import IGNORED, PADDING


def bright(number: int = 4) -> Boxed:
    """Black pictures with one white rectangle each, and its box."""
    images, boxes = torch.zeros(number, 3, 64, 96), torch.zeros(number, 1, 4)
    for i in range(number):
        images[i, :, 20:40, 30 + i : 60 + i] = 255
        boxes[i, 0] = torch.tensor([30.0 + i, 20, 60 + i, 40])
    return Boxed(images, boxes, torch.zeros(number, 1, dtype=torch.int64))


def assert_boxes_hold_what_is_bright(batch: Boxed) -> None:
    checked = 0
    for image, boxes, labels in zip(*batch, strict=True):
        for box, label in zip(boxes, labels, strict=True):
            if label < 0:
                continue
            left, top, right, bottom = (int(v) for v in box.round())
            inside = image[0, top + 2 : bottom - 2, left + 2 : right - 2]
            if inside.numel():
                assert float(inside.min()) > 200
                checked += 1
        outside = image[0].clone()
        for box, label in zip(boxes, labels, strict=True):
            if label != PADDING:
                left, top, right, bottom = (int(v) for v in box)
                outside[max(0, top - 2) : bottom + 3, max(0, left - 2) : right + 3] = 0
        assert float(outside.max()) < 60
    assert checked


@pytest.mark.parametrize("flips", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("change", [scale_and_crop, partial(mosaic, num_pictures=3)])
def test_boxes_move_with_their_objects(change: object, flips: tuple[bool, bool]) -> None:
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        assert_boxes_hold_what_is_bright(change(bright(), g, zoom=(0.6, 1.5), stretch=0.2, flips=flips))  # type: ignore[operator]


def test_the_same_generator_changes_alike() -> None:
    a, b = (
        mosaic(bright(), torch.Generator().manual_seed(3), 3, zoom=(0.5, 1.2), stretch=0.2, flips=(True, True))
        for _ in range(2)
    )
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert len(a.images) == len(a.boxes) == len(a.labels) == 3


def test_objects_that_are_hardly_left_count_neither_way() -> None:
    labels = set()
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        labels |= set(
            scale_and_crop(bright(), g, zoom=(2.9, 3.0), stretch=0.0, flips=(False, False)).labels.flatten().tolist()
        )
    assert labels >= {0, IGNORED}


def test_pasted_objects_cover_nothing() -> None:
    patch = torch.full((3, 10, 12), 200.0)
    batch = paste_objects(bright(), [(patch, 1)] * 4, torch.Generator().manual_seed(0), share=1.0)
    added = batch.labels == 1
    assert added.any()
    for boxes, is_pasted in zip(batch.boxes, added, strict=True):
        for box in boxes[is_pasted]:
            shared = (torch.minimum(box[2:], boxes[0, 2:]) - torch.maximum(box[:2], boxes[0, :2])).clamp(min=0).prod()
            assert float(shared) <= 0.1 * 120


def test_batches_are_joined_with_padding() -> None:
    one, two = bright(1), bright(3)
    two = Boxed(two.images, two.boxes.repeat(1, 3, 1), two.labels.repeat(1, 3))
    batch = joined(one, two)
    assert batch.labels.tolist() == [[0, PADDING, PADDING], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    near = jittered(batch.boxes, torch.Generator().manual_seed(0))
    assert float((near - batch.boxes).abs().max()) <= 3.0


def test_anchors_fit_the_sizes_that_there_are() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    sizes = np.concatenate([rng.normal(s, 1, (200, 2)) for s in (20, 50, 150)])
    levels = fit_anchors(sizes, 6)
    assert len(levels) == 3
    assert all(level for level in levels)
    shapes = np.array([s for level in levels for s in level])
    assert (size_iou(sizes, shapes).max(1) > 0.7).all()
    assert all(fit_anchors(sizes[:1], 3))
