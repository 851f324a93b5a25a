"""Boxes as people annotated them, mended: in pixels, inside the picture, each once; and what had to be mended."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dolmen.data.boxes.set import BoxSet
from dolmen.data.images.check_view import pictures
from dolmen.data.wording import MAX_ITEMS, choose, listed
from dolmen.types import Finding

LARGEST = 1e9  # pixels; beyond it a coordinate is no place in a picture
TOLERANCE = 1.0  # pixels outside that rounding explains, and Pascal VOC's counting from 1
WHOLE = 0.95  # share of the picture; a box of it is often a label that somebody wrote for the picture
TINY = 3.0  # pixels a side
MANY = 1000  # boxes in a picture

Rows = NDArray[np.bool_]


def clean(boxes: BoxSet, sizes: NDArray[np.int64] | NDArray[np.int32]) -> tuple[BoxSet, tuple[Finding, ...]]:
    """Mend boxes where it is clear what is meant, and drop those that mean nothing.

    Boxes become pixels of the picture; those annotated for another size of it are scaled; corners that are turned
    around are swapped; what is outside is clipped. Dropped are boxes that are no numbers, without area, wholly
    outside, or there twice, and those of pictures that can't be opened.

    Args:
        boxes: as read.
        sizes: (N, 2) true height and width, 0 where a picture can't be opened (``Decoded.sizes``).

    Returns:
        The set, with ``relative`` False and ``said_sizes`` the true ones, and what the reader and this found.
    """
    findings = list(boxes.notes)
    sizes = sizes.astype(np.int64)
    boxes = _opened(boxes, sizes)
    had_some = np.diff(boxes.first) > 0
    boxes, found = _finite(boxes)
    findings += found
    boxes, found = _in_pixels(boxes, sizes)
    findings += found
    boxes = boxes.replace(relative=False, said_sizes=sizes, notes=())
    for step in (_turned, _without_area, _outside, _duplicates):
        boxes, found = step(boxes)
        findings += found
    return boxes, (*findings, *_remarks(boxes, had_some))


Mended = tuple[BoxSet, list[Finding]]


def _opened(boxes: BoxSet, sizes: NDArray[np.int64]) -> BoxSet:
    """Without the boxes of pictures that can't be used; what is wrong with these is said elsewhere."""
    usable = (sizes > 0).all(axis=1) & (boxes.images.labels >= 0)
    return boxes.keep(usable[boxes.pictures()])


def _finite(boxes: BoxSet) -> Mended:
    with np.errstate(invalid="ignore"):
        fine = ~_any(~(np.abs(boxes.boxes_xyxy) < LARGEST))
    found = _found(boxes, ~fine, "not-finite", "warning", "{is_} no place in numbers, and dropped: mend {it}")
    return boxes.keep(fine), found


def _in_pixels(boxes: BoxSet, sizes: NDArray[np.int64]) -> Mended:
    """Scale shares, and boxes that were annotated for another size of the picture."""
    scale = np.ones((len(boxes), 2))
    if boxes.relative:
        return _scaled(boxes, sizes[:, ::-1].astype(np.float64)), []
    said = boxes.said_sizes
    told = (said > 0).all(axis=1) & (sizes > 0).all(axis=1) & (np.abs(said - sizes) > 1).any(axis=1)
    if not told.any():
        return boxes, []
    exchanged = told & (said == sizes[:, ::-1]).all(axis=1)
    factors = sizes[:, ::-1] / np.maximum(said[:, ::-1], 1)
    rounding = 1.5 / np.maximum(np.minimum(said, sizes).min(axis=1), 1)
    same_shape = np.abs(factors[:, 0] - factors[:, 1]) <= rounding * factors.max(axis=1)
    beyond = (boxes.boxes_xyxy.reshape(-1, 2, 2) > 1.02 * said[boxes.pictures(), None, ::-1] + 1).any(axis=(1, 2))
    fits = np.bincount(boxes.pictures()[beyond], minlength=len(boxes)) == 0
    scaled = told & ~exchanged & same_shape & fits
    scale[scaled] = factors[scaled]
    findings = []
    for code, which, what in (
        ("boxes-scaled", scaled, "annotated for another size of the same picture, and the boxes were scaled to it"),
        (
            "sizes-exchanged",
            exchanged,
            "annotated with height and width exchanged: look whether the boxes fit; if the camera's turning (EXIF) "
            "came after them, draw them anew",
        ),
        (
            "sizes-contradict",
            told & ~exchanged & ~scaled,
            "annotated with another size than it has: look whether the boxes fit",
        ),
    ):
        if indices := np.flatnonzero(which).tolist():
            num = len(indices)
            items = [_said(boxes, i, sizes) for i in indices[:MAX_ITEMS]]
            what = what if num == 1 else what.replace("than it has", "than they have")
            findings.append(
                Finding(
                    code=code,
                    level="warning",
                    message=f"{pictures(num)} {choose(num, 'is', 'are')} {what} (first: {items[0]}).",
                    count=num,
                    items=tuple(items),
                )
            )
    return _scaled(boxes, scale), findings


def _said(boxes: BoxSet, picture: int, sizes: NDArray[np.int64]) -> str:
    (h, w), (height, width) = boxes.said_sizes[picture].tolist(), sizes[picture].tolist()
    return f"{boxes.images.names[picture]}: said {h} x {w}, is {height} x {width}"


def _scaled(boxes: BoxSet, scale: NDArray[np.float64]) -> BoxSet:
    """Multiply by (N, 2) factors of x and y."""
    of_box = scale[boxes.pictures()]
    polygons = {
        row: [(np.reshape(o, (-1, 2)) * of_box[row]).reshape(-1).tolist() for o in outlines]
        if (of_box[row] != 1).any()
        else outlines
        for row, outlines in boxes.polygons.items()
    }
    return boxes.replace(boxes_xyxy=boxes.boxes_xyxy * np.tile(of_box, 2), polygons=polygons)


def _turned(boxes: BoxSet) -> Mended:
    corners = boxes.boxes_xyxy.reshape(-1, 2, 2)
    turned = _any(corners[:, 0] > corners[:, 1])
    found = _found(
        boxes, turned, "turned-around", "warning", "{is_} turned around, and mended by exchanging sides: look at {it}"
    )
    return boxes.replace(boxes_xyxy=np.sort(corners, axis=1).reshape(-1, 4)), found


def _without_area(boxes: BoxSet) -> Mended:
    empty = _any(boxes.boxes_xyxy[:, 2:] <= boxes.boxes_xyxy[:, :2])
    return boxes.keep(~empty), _found(
        boxes, empty, "zero-size", "warning", "{has} no area, and {is_} dropped: mend {it}"
    )


def _outside(boxes: BoxSet) -> Mended:
    sides = np.tile(boxes.said_sizes[boxes.pictures(), ::-1], 2).astype(np.float64)
    clipped = np.clip(boxes.boxes_xyxy, 0, sides)
    outside = _any(clipped[:, 2:] <= clipped[:, :2])
    partly = _any(np.abs(clipped - boxes.boxes_xyxy) > TOLERANCE) & ~outside
    findings = [
        *_found(boxes, outside, "outside", "warning", "{is_} outside of the picture, and dropped: mend {it}"),
        *_found(boxes, partly, "partly-outside", "warning", "{is_} partly outside, and clipped: look at {it}"),
    ]
    return boxes.replace(boxes_xyxy=clipped).keep(~outside), findings


def _duplicates(boxes: BoxSet) -> Mended:
    places = np.column_stack([boxes.pictures(), boxes.boxes_xyxy])
    kinds = np.column_stack([places, boxes.labels, boxes.crowd])
    once = np.zeros(len(kinds), np.bool_)
    once[np.unique(kinds, axis=0, return_index=True)[1]] = True
    found = _found(boxes, ~once, "duplicate-boxes", "warning", "{is_} there before, and dropped: delete {it}")
    boxes, places = boxes.keep(once), places[once]
    _, inverse, counts = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    several = counts[inverse.reshape(-1)] > 1
    found += _found(
        boxes, several, "same-box-two-classes", "warning", "{is_} exactly where another is: delete the wrong one"
    )
    return boxes, found


def _remarks(boxes: BoxSet, had_some: NDArray[np.bool_]) -> list[Finding]:
    """What is no mistake and good to know."""
    sizes = boxes.said_sizes[boxes.pictures()]
    sides = boxes.boxes_xyxy[:, 2:] - boxes.boxes_xyxy[:, :2]
    whole = sides.prod(axis=1) >= WHOLE * sizes.prod(axis=1)
    tiny = _any(sides < TINY)
    findings = [
        *_found(boxes, whole & ~boxes.crowd, "whole-picture", "info", "{is_} nearly the whole picture: look at {it}"),
        *_found(boxes, tiny, "tiny-boxes", "info", f"{{is_}} less than {TINY:g} pixels wide or high: look at {{it}}"),
        *_found(
            boxes,
            boxes.crowd,
            "crowd",
            "info",
            "{is_} marked as a crowd or as difficult, and neither learnt nor measured by",
        ),
    ]
    counts = np.diff(boxes.first)
    usable = (boxes.images.labels >= 0) & (boxes.said_sizes > 0).all(axis=1)
    for code, level, which, one, many in (
        ("many-boxes", "info", counts > MANY, f"has more than {MANY:,} boxes", f"have more than {MANY:,} boxes"),
        (
            "emptied-pictures", "warning", usable & had_some & (counts == 0),
            "has lost all of its boxes and counts as background: mend it",
            "have lost all of their boxes and count as background: mend them",
        ),
        (
            "background-pictures", "info", usable & ~had_some,
            "has no boxes and counts as background: check that it really shows none of the objects",
            "have no boxes and count as background: check that they really show none of the objects",
        ),
    ):  # fmt: skip
        if indices := np.flatnonzero(which).tolist():
            names = [boxes.images.names[i] for i in indices]
            findings.append(
                Finding(
                    code=code,
                    level="warning" if level == "warning" else "info",
                    message=f"{pictures(len(names))} {choose(len(names), one, many)} ({listed(names, 2)}).",
                    count=len(names),
                    items=tuple(names[:MAX_ITEMS]),
                )
            )
    return findings


def _any(which: Rows) -> Rows:
    """Whether any of the columns is true."""
    found: Rows = np.logical_or.reduce(which, axis=1)
    return found


def _found(boxes: BoxSet, which: Rows, code: str, level: Literal["warning", "info"], what: str) -> list[Finding]:
    """A finding about some boxes, if there are any; ``what`` follows their number."""
    rows = np.flatnonzero(which)
    if not len(rows):
        return []
    num, of = len(rows), boxes.pictures()
    items = tuple(
        f"{boxes.images.names[of[i]]}: {boxes.images.classes[boxes.labels[i]]} "
        + " ".join(f"{v:.5g}" for v in boxes.boxes_xyxy[i])
        for i in rows[:MAX_ITEMS].tolist()
    )
    words = {"is_": "is", "has": "has", "it": "it"} if num == 1 else {"is_": "are", "has": "have", "it": "them"}
    message = f"{num:,} {choose(num, 'box', 'boxes')} {what.format(**words)} (first: {items[0]})."
    return [Finding(code=code, level=level, message=message, count=num, items=items)]
