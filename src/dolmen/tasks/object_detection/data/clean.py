"""Boxes as people annotated them, mended: in pixels, inside the picture, each once; and what had to be mended."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dolmen.data.boxes.set import BoxSet
from dolmen.data.checks.findings import Level, some
from dolmen.types import Finding
from dolmen.wording import listed

MAX_COORDINATE_PX = 1e9  # pixels; beyond it a coordinate is no place in a picture
TOLERANCE_PX = 1.0  # pixels outside that rounding explains, and Pascal VOC's counting from 1
WHOLE_PICTURE_SHARE = 0.95  # share of the picture; a box of it is often a label that somebody wrote for the picture
TINY_SIDE_PX = 3.0  # pixels a side
MANY_BOXES = 1000  # boxes in a picture, from which on a person should look at it

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
        The set, with ``relative`` False and the true ``annotated_sizes``; and the reader's findings with these ones.
    """
    findings = list(boxes.notes)
    sizes = sizes.astype(np.int64)
    boxes = _without_unusable_pictures(boxes, sizes)
    had_some = np.diff(boxes.first) > 0
    boxes, notes = _drop_non_finite(boxes)
    findings += notes
    boxes, notes = _to_pixels(boxes, sizes)
    findings += notes
    boxes = boxes.replace(relative=False, annotated_sizes=sizes, notes=())
    for step in (_swap_turned, _drop_empty, _clip, _drop_duplicates):
        boxes, notes = step(boxes)
        findings += notes
    return boxes, (*findings, *_remarks(boxes, had_some))


Mended = tuple[BoxSet, list[Finding]]


def _without_unusable_pictures(boxes: BoxSet, sizes: NDArray[np.int64]) -> BoxSet:
    """Drop the boxes of pictures that can't be used; the findings about these come from another check."""
    usable = (sizes > 0).all(axis=1) & (boxes.images.labels >= 0)
    return boxes.keep(usable[boxes.pictures()])


def _drop_non_finite(boxes: BoxSet) -> Mended:
    with np.errstate(invalid="ignore"):
        finite = ~_any_column(~(np.abs(boxes.boxes_xyxy) < MAX_COORDINATE_PX))
    findings = _findings(
        boxes, ~finite, "not-finite", "warning", "[is|are] no place in numbers, and dropped: mend [it|them]"
    )
    return boxes.keep(finite), findings


def _to_pixels(boxes: BoxSet, sizes: NDArray[np.int64]) -> Mended:
    """Scale shares, and boxes that were annotated for another size of the picture."""
    scale = np.ones((len(boxes), 2))
    if boxes.relative:
        return _scaled(boxes, sizes[:, ::-1].astype(np.float64)), []
    annotated = boxes.annotated_sizes
    differs = (annotated > 0).all(axis=1) & (sizes > 0).all(axis=1) & (np.abs(annotated - sizes) > 1).any(axis=1)
    if not differs.any():
        return boxes, []
    exchanged = differs & (annotated == sizes[:, ::-1]).all(axis=1)
    factors = sizes[:, ::-1] / np.maximum(annotated[:, ::-1], 1)
    rounding = 1.5 / np.maximum(np.minimum(annotated, sizes).min(axis=1), 1)
    same_shape = np.abs(factors[:, 0] - factors[:, 1]) <= rounding * factors.max(axis=1)
    beyond = (boxes.boxes_xyxy.reshape(-1, 2, 2) > 1.02 * annotated[boxes.pictures(), None, ::-1] + 1).any(axis=(1, 2))
    fits = np.bincount(boxes.pictures()[beyond], minlength=len(boxes)) == 0
    scaled = differs & ~exchanged & same_shape & fits
    scale[scaled] = factors[scaled]
    findings: list[Finding] = []
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
            differs & ~exchanged & ~scaled,
            "annotated with another size than [it has|they have]: look whether the boxes fit",
        ),
    ):
        rows = np.flatnonzero(which).tolist()
        findings += some(
            code,
            "warning",
            f"{{num}} [picture is|pictures are] {what} (first: {{first}})",
            len(rows),
            (_sizes_text(boxes, i, sizes) for i in rows),
        )
    return _scaled(boxes, scale), findings


def _sizes_text(boxes: BoxSet, picture: int, sizes: NDArray[np.int64]) -> str:
    (h, w), (height, width) = boxes.annotated_sizes[picture].tolist(), sizes[picture].tolist()
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


def _swap_turned(boxes: BoxSet) -> Mended:
    corners = boxes.boxes_xyxy.reshape(-1, 2, 2)
    turned = _any_column(corners[:, 0] > corners[:, 1])
    findings = _findings(
        boxes,
        turned,
        "turned-around",
        "warning",
        "[is|are] turned around, and mended by exchanging sides: look at [it|them]",
    )
    return boxes.replace(boxes_xyxy=np.sort(corners, axis=1).reshape(-1, 4)), findings


def _drop_empty(boxes: BoxSet) -> Mended:
    empty = _any_column(boxes.boxes_xyxy[:, 2:] <= boxes.boxes_xyxy[:, :2])
    return boxes.keep(~empty), _findings(
        boxes, empty, "zero-size", "warning", "[has|have] no area, and [is|are] dropped: mend [it|them]"
    )


def _clip(boxes: BoxSet) -> Mended:
    sides = np.tile(boxes.annotated_sizes[boxes.pictures(), ::-1], 2).astype(np.float64)
    clipped = np.clip(boxes.boxes_xyxy, 0, sides)
    outside = _any_column(clipped[:, 2:] <= clipped[:, :2])
    partly = _any_column(np.abs(clipped - boxes.boxes_xyxy) > TOLERANCE_PX) & ~outside
    findings = [
        *_findings(
            boxes, outside, "outside", "warning", "[is|are] outside of the picture, and dropped: mend [it|them]"
        ),
        *_findings(
            boxes, partly, "partly-outside", "warning", "[is|are] partly outside, and clipped: look at [it|them]"
        ),
    ]
    return boxes.replace(boxes_xyxy=clipped).keep(~outside), findings


def _drop_duplicates(boxes: BoxSet) -> Mended:
    positions = np.column_stack([boxes.pictures(), boxes.boxes_xyxy])
    keys = np.column_stack([positions, boxes.labels, boxes.crowd])
    is_first = np.zeros(len(keys), np.bool_)
    is_first[np.unique(keys, axis=0, return_index=True)[1]] = True
    findings = _findings(
        boxes, ~is_first, "duplicate-boxes", "warning", "[is|are] there before, and dropped: delete [it|them]"
    )
    boxes, positions = boxes.keep(is_first), positions[is_first]
    _, inverse, counts = np.unique(positions, axis=0, return_inverse=True, return_counts=True)
    shared = counts[inverse.reshape(-1)] > 1
    findings += _findings(
        boxes, shared, "same-box-two-classes", "warning", "[is|are] exactly where another is: delete the wrong one"
    )
    return boxes, findings


def _remarks(boxes: BoxSet, had_some: NDArray[np.bool_]) -> list[Finding]:
    """What is no mistake and good to know."""
    sizes = boxes.annotated_sizes[boxes.pictures()]
    sides = boxes.boxes_xyxy[:, 2:] - boxes.boxes_xyxy[:, :2]
    whole = sides.prod(axis=1) >= WHOLE_PICTURE_SHARE * sizes.prod(axis=1)
    tiny = _any_column(sides < TINY_SIDE_PX)
    findings = [
        *_findings(
            boxes, whole & ~boxes.crowd, "whole-picture", "info", "[is|are] nearly the whole picture: look at [it|them]"
        ),
        *_findings(
            boxes,
            tiny,
            "tiny-boxes",
            "info",
            f"[is|are] less than {TINY_SIDE_PX:g} pixels wide or high: look at [it|them]",
        ),
        *_findings(
            boxes,
            boxes.crowd,
            "crowd",
            "info",
            "[is|are] marked as a crowd or as difficult, and neither learnt nor measured by",
        ),
    ]
    counts = np.diff(boxes.first)
    usable = (boxes.images.labels >= 0) & (boxes.annotated_sizes > 0).all(axis=1)
    for code, level, rows, message in (
        ("many-boxes", "info", counts > MANY_BOXES, f"[has|have] more than {MANY_BOXES:,} boxes"),
        (
            "emptied-pictures",
            "warning",
            usable & had_some & (counts == 0),
            "[has|have] lost all of [its|their] boxes and [counts|count] as background: mend [it|them]",
        ),
        (
            "background-pictures",
            "info",
            usable & ~had_some,
            "[has|have] no boxes and [counts|count] as background: check that [it|they] really [shows|show] none of the"
            " objects",
        ),
    ):
        names = [boxes.images.names[i] for i in np.flatnonzero(rows).tolist()]
        findings += some(
            code,
            "warning" if level == "warning" else "info",
            f"{{num}} [picture|pictures] {message} ({{names}})",
            len(names),
            names,
            names=listed(names, 2),
        )
    return findings


def _any_column(which: Rows) -> Rows:
    """Whether any of the columns is true."""
    any_column: Rows = np.logical_or.reduce(which, axis=1)
    return any_column


def _findings(boxes: BoxSet, which: Rows, code: str, level: Level, what: str) -> list[Finding]:
    """A finding about some boxes, if there are any; ``what`` follows their number."""
    rows, picture = np.flatnonzero(which), boxes.pictures()
    items = (
        f"{boxes.images.names[picture[i]]}: {boxes.images.classes[boxes.labels[i]]} "
        + " ".join(f"{v:.5g}" for v in boxes.boxes_xyxy[i])
        for i in rows.tolist()
    )
    return list(some(code, level, f"{{num}} [box|boxes] {what} (first: {{first}})", len(rows), items))
