"""Large pictures as several smaller ones, with the boxes that are in each."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from dolmen.data.boxes.set import BoxSet, box_set
from dolmen.data.images.set import ImageSet, Raw
from dolmen.processors.images.image import UnreadableImageError, open_image

MIN_OBJECT_SHARE = 0.4  # share of an object's area; with less of it in a tile nobody could say what it is,
MIN_VISIBLE_SHARE = 0.05  # and with less than this nobody would notice it

Ints = NDArray[np.int64]


def tile_boxes(
    boxes: BoxSet, sizes: NDArray[np.int64], views: Callable[[int, int], Ints], min_share: float = 0.0
) -> tuple[BoxSet, Ints, Ints]:
    """Cut every picture into tiles.

    An object belongs to a tile where at least 40 % of its area is inside, and is clipped to it. Where 5 % of it or
    more is inside, or it covers 5 % of the tile, it becomes a ``crowd`` there: neither right nor wrong. Elsewhere it
    is not there. Where the first tile is the whole picture, what is too small to be recognised is a ``crowd`` in it.

    Args:
        boxes: as ``clean`` gives them.
        sizes: (N, 2) height and width of the pictures, 0 where one can't be opened: it stays one "tile".
        views: height and width to (V, 4) left, top, right, bottom of the tiles, in pixels and inside the picture.
        min_share: share of the first of several tiles that an object has to cover to be recognised there.

    Returns:
        A set whose pictures are the T tiles, those of a picture one after the other; (T,) the picture of each; (T, 4)
        its place in that. Its ``images.read`` opens each picture once for all of its tiles that are asked for in a
        row, and holds one picture at a time. Tiles of a picture are a group, so that no split tears them apart.
    """
    crops = [views(int(h), int(w)) if h > 0 and w > 0 else np.zeros((1, 4), np.int64) for h, w in sizes]
    of_tile = np.repeat(np.arange(len(crops)), [len(c) for c in crops])
    places = np.concatenate([*crops, np.empty((0, 4), np.int64)]).astype(np.int64)
    first = np.concatenate([[0], np.cumsum([len(c) for c in crops])])
    rows, tiles, boxes_in_tiles, crowd = [], [], [], []
    for picture in np.flatnonzero(np.diff(boxes.first)).tolist():
        box_rows = boxes.rows(picture)
        tile, box, clipped, is_part = _inside(
            places[first[picture] : first[picture + 1]], boxes.boxes_xyxy[box_rows], min_share
        )
        tiles.append(first[picture] + tile)
        rows.append(box_rows.start + box)
        boxes_in_tiles.append(clipped)
        crowd.append(is_part)
    row = np.concatenate([*rows, np.empty(0, np.int64)])
    tiled = box_set(
        _images(boxes.images, of_tile, places),
        np.concatenate([*boxes_in_tiles, np.empty((0, 4))]),
        boxes.labels[row],
        np.concatenate([*tiles, np.empty(0, np.int64)]),
        np.concatenate([*crowd, np.empty(0, np.bool_)]) | boxes.crowd[row],
        annotated_sizes=places[:, [3, 2]] - places[:, [1, 0]],
        num_annotation_files=boxes.num_annotation_files,
        notes=boxes.notes,
    )
    return tiled, of_tile, places


def _inside(
    crops: Ints, boxes_xyxy: NDArray[np.float64], min_share: float
) -> tuple[Ints, Ints, NDArray[np.float64], NDArray[np.bool_]]:
    """Which boxes are in which tiles: (P,) tile, (P,) box, (P, 4) clipped and in the tile's pixels, (P,) a mere part.

    Args:
        crops: (V, 4) of one picture.
        boxes_xyxy: (M, 4) of the same.
        min_share: share of the first of several tiles that an object has to cover to be recognised there.
    """
    low = np.maximum(crops[:, None, :2], boxes_xyxy[None, :, :2])
    high = np.minimum(crops[:, None, 2:], boxes_xyxy[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)  # (V, M)
    areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)
    of_tile = (crops[:, 2:] - crops[:, :2]).prod(axis=1)
    inside = shared / np.maximum(areas, 1e-9)
    covered = shared / np.maximum(of_tile, 1)[:, None]
    tile, box = np.argwhere(np.maximum(inside, covered) >= MIN_VISIBLE_SHARE).astype(np.int64).T
    origin = np.tile(crops[tile, :2], 2)
    clipped = np.concatenate([low[tile, box], high[tile, box]], axis=1).astype(np.float64) - origin
    too_small = (tile == 0) & (len(crops) > 1) & (covered[tile, box] < min_share)
    return tile, box, clipped, np.less(inside[tile, box], MIN_OBJECT_SHARE) | too_small


def _images(images: ImageSet, of_tile: Ints, places: Ints) -> ImageSet:
    digest = hashlib.blake2b(images.fingerprint.encode(), digest_size=16)
    digest.update(of_tile.astype("<i8").tobytes() + places.astype("<i8").tobytes())
    pictures = of_tile.tolist()

    def read(indices: Iterable[int]) -> Iterator[tuple[int, Raw | OSError]]:
        tiles_of: dict[int, list[int]] = {}
        for tile in indices:
            tiles_of.setdefault(pictures[tile], []).append(tile)
        for picture, raw in images.read(list(tiles_of)):
            yield from _cut(raw, tiles_of[picture], places)

    return images.replace(
        names=[f"{images.names[p]} [{x1}, {y1}, {x2}, {y2}]" for p, (x1, y1, x2, y2) in _pairs(pictures, places)],
        labels=images.labels[of_tile],
        splits=[images.splits[p] for p in pictures],
        groups=[images.groups[p] or images.names[p] for p in pictures],
        read=read,
        fingerprint=digest.hexdigest(),
        left_out={tile: images.left_out[p] for tile, p in enumerate(pictures) if p in images.left_out},
    )


def _pairs(pictures: list[int], places: Ints) -> Iterator[tuple[int, list[int]]]:
    return zip(pictures, places.tolist(), strict=True)


def _cut(raw: Raw | OSError, tiles: list[int], places: Ints) -> Iterator[tuple[int, Raw | OSError]]:
    """Yield the tiles of a picture; what can't be opened is handed on as it is, so that its reader can say why."""
    pixels = None
    if not isinstance(raw, OSError):
        with contextlib.suppress(UnreadableImageError):
            pixels = open_image(raw).pixels
    for tile in tiles:
        left, top, right, bottom = places[tile].tolist()
        if pixels is None or right <= left:
            yield tile, raw
        else:
            crop = pixels[top:bottom, left:right]
            yield tile, np.ascontiguousarray(crop[:, :, 0] if crop.shape[2] == 1 else crop)
