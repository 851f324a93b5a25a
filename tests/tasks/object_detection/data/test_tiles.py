"""Tiles of pictures: which boxes are where, and pixels that are read once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks.object_detection.data.boxed import png

from dolmen.data.boxes.set import BoxSet, box_set
from dolmen.data.images.decoded import decode_all
from dolmen.processors.images.image import ImageFit, open_image
from dolmen.tasks.object_detection.data.tiles import tile_boxes

SIZES = np.array([[40, 60], [20, 20], [0, 0]], np.int64)


def halves(height: int, width: int) -> Any:
    """A picture that is wider than high in two halves, any other as it is."""
    if width <= height:
        return np.array([[0, 0, width, height]])
    return np.array([[0, 0, width // 2, height], [width // 2, 0, width, height]])


def boxed(make_images: Any, *annotated: Any, crowd: bool = False) -> BoxSet:
    images = make_images([png(40, 60, 1), png(20, 20, 2), b"no picture"], [0, 0, 0], splits=["train", "val", "train"])
    return box_set(
        images, [f[:4] for f in annotated], [1] * len(annotated), [0] * len(annotated), [crowd] * len(annotated)
    )


PLACES = [
    ("left", (1, 2, 10, 12), [(0, (1, 2, 10, 12), False)]),
    ("right", (31, 2, 40, 12), [(1, (1, 2, 10, 12), False)]),
    ("half in each", (20, 0, 40, 10), [(0, (20, 0, 30, 10), False), (1, (0, 0, 10, 10), False)]),
    ("a third in one", (10, 0, 40, 10), [(0, (10, 0, 30, 10), False), (1, (0, 0, 10, 10), True)]),
    ("a sliver in one", (0, 0, 31, 5), [(0, (0, 0, 30, 5), False)]),
    ("exactly 40 %", (24, 0, 34, 10), [(0, (24, 0, 30, 10), False), (1, (0, 0, 4, 10), False)]),
    ("at the border", (10, 0, 30, 10), [(0, (10, 0, 30, 10), False)]),
]


@pytest.mark.parametrize(("box", "expected"), [p[1:] for p in PLACES], ids=[p[0] for p in PLACES])
@pytest.mark.parametrize("crowd", [False, True])
def test_where_a_box_belongs(make_images: Any, box: Any, expected: Any, crowd: bool) -> None:
    tiles, of_tile, places = tile_boxes(boxed(make_images, box, crowd=crowd), SIZES, halves)
    assert of_tile.tolist() == [0, 0, 1, 2]
    assert places.tolist() == [[0, 0, 30, 40], [30, 0, 60, 40], [0, 0, 20, 20], [0, 0, 0, 0]]
    assert [
        (tile, tuple(b), c)
        for tile, b, c in zip(tiles.pictures().tolist(), tiles.boxes_xyxy.tolist(), tiles.crowd.tolist(), strict=True)
    ] == [(tile, tuple(map(float, b)), c or crowd) for tile, b, c in expected]
    assert tiles.labels.tolist() == [1] * len(expected)
    assert tiles.annotated_sizes.tolist() == [[40, 30], [40, 30], [20, 20], [0, 0]]


def test_an_object_larger_than_a_tile_is_nothing_to_learn_there(make_images: Any) -> None:
    def strips(height: int, width: int) -> Any:
        return np.array([[x, 0, x + 1, height] for x in range(width)])

    tiles, *_ = tile_boxes(boxed(make_images, (0, 0, 60, 40)), SIZES, strips)
    assert tiles.crowd.tolist() == [True] * 60


def test_what_is_too_small_in_the_whole_picture_is_learned_in_its_tiles(make_images: Any) -> None:
    def views(height: int, width: int) -> Any:
        return np.array([[0, 0, width, height], *halves(height, width)]) if width > height else halves(height, width)

    tiles, *_ = tile_boxes(boxed(make_images, (1, 2, 5, 6), (1, 2, 25, 26)), SIZES, views, min_share=0.01)
    assert tiles.pictures().tolist() == [0, 0, 1, 1]
    assert tiles.crowd.tolist() == [True, False, False, False]  # 16 of 2,400 pixels; 16 of 1,200 are enough in a tile
    alone, *_ = tile_boxes(
        boxed(make_images, (1, 2, 5, 6)), SIZES, lambda h, w: np.array([[0, 0, w, h]]), min_share=0.1
    )
    assert alone.crowd.tolist() == [False]  # no other view has it


def test_tiles_are_pictures(make_images: Any, reads: Counter[int], tmp_path: Path) -> None:
    boxes = boxed(make_images, (1, 2, 10, 12))
    tiles, _, places = tile_boxes(boxes, SIZES, halves)
    images = tiles.images
    assert images.names == [
        "0.png [0, 0, 30, 40]",
        "0.png [30, 0, 60, 40]",
        "1.png [0, 0, 20, 20]",
        "2.png [0, 0, 0, 0]",
    ]
    assert images.splits == ["train", "train", "val", "train"]
    assert images.groups == ["0.png", "0.png", "1.png", "2.png"]
    whole = open_image(png(40, 60, 1)).pixels
    contents = dict(images.read([1, 0, 3]))
    assert reads == {0: 1, 2: 1}
    np.testing.assert_array_equal(contents[0], whole[:, :30])
    np.testing.assert_array_equal(contents[1], whole[:, 30:])
    assert contents[3] == b"no picture"
    decoded = decode_all(images, ImageFit(height=8, width=8, channels=3), cache=tmp_path)
    assert decoded.problems == {3: "not a picture"}
    assert decoded.sizes.tolist() == (places[:, [3, 2]] - places[:, [1, 0]]).tolist()


def test_grey_pictures_and_lost_ones(make_images: Any) -> None:
    grey = np.arange(2400, dtype=np.uint8).reshape(40, 60)
    boxes = boxed(make_images)
    images = make_images([grey, FileNotFoundError("gone"), b""], [0, 0, 0])
    tiles, *_ = tile_boxes(boxes.replace(images=images), SIZES, halves)
    contents = dict(tiles.images.read(range(4)))
    np.testing.assert_array_equal(contents[1], grey[:, 30:])
    assert isinstance(contents[2], FileNotFoundError)


def test_the_fingerprint_follows_the_tiling(make_images: Any) -> None:
    boxes = boxed(make_images)
    one, two, three = (
        tile_boxes(boxes, SIZES, views)[0].images.fingerprint
        for views in (halves, lambda h, w: np.array([[0, 0, w, h]]), halves)
    )
    assert one == three != two != boxes.images.fingerprint


def test_no_pictures(make_images: Any) -> None:
    boxes = box_set(make_images([], []), [], [], [])
    tiles, of_tile, places = tile_boxes(boxes, np.zeros((0, 2), np.int64), halves)
    assert (len(tiles), of_tile.shape, places.shape) == (0, (0,), (0, 4))


def test_what_was_left_out_stays_left_out(make_images: Any) -> None:
    boxes = boxed(make_images)
    images = boxes.images.replace(labels=np.array([-1, 0, 0]), left_out={0: "why"})
    tiles, *_ = tile_boxes(boxes.replace(images=images), SIZES, halves)
    assert tiles.images.labels.tolist() == [-1, -1, 0, 0]
    assert tiles.images.left_out == {0: "why", 1: "why"}
