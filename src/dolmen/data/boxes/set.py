"""Pictures with boxes around the objects in them: listed, not yet decoded. Every reader of a format ends in this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.data.images.set import ImageSet
from dolmen.types import Finding, UserError


@dataclass(frozen=True, eq=False)
class BoxSet:
    """N pictures with M boxes.

    Attributes:
        images: the pictures. ``images.classes`` are the K names of objects, and ``images.labels`` is 0 for each picture
            that can be used (without a box it is background), -1 for one that can't because its annotations can't be
            read (the reason is in ``images.left_out``).
        boxes_xyxy: (M, 4) float64, left, top, right, bottom in pixels of the picture, in the order of the pictures.
            As annotated: it may be outside, turned around or without area; ``clean`` mends and counts that.
        labels: (M,) int64, indices into ``images.classes``.
        crowd: (M,) bool, regions of many objects, or objects too difficult to count: neither right nor wrong.
        first: (N + 1,) int64; the boxes of picture i are rows ``first[i]`` up to ``first[i + 1]``.
        relative: whether the boxes are shares of the picture's width and height (YOLO), until ``clean`` turns them into
            pixels.
        annotated_sizes: (N, 2) int64 height and width as the annotations say, 0 where they say nothing.
        polygons: box to its outline, (x, y, x, y ...) lists as COCO has them, where the data have one.
        num_annotation_files: files that were read for boxes.
        notes: what the reader noticed; ``clean`` hands it on with its own findings.
    """

    images: ImageSet
    boxes_xyxy: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    first: NDArray[np.int64]
    relative: bool = False
    annotated_sizes: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    polygons: dict[int, Any] = field(default_factory=dict, repr=False)
    num_annotation_files: int = 0
    notes: tuple[Finding, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, picture: int) -> slice:
        """Which boxes belong to a picture."""
        return slice(int(self.first[picture]), int(self.first[picture + 1]))

    def pictures(self) -> NDArray[np.int64]:
        """(M,) the picture of each box."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))

    def keep(self, boxes: NDArray[np.bool_]) -> BoxSet:
        """Only some of the boxes, (M,) bool; the pictures stay."""
        counts = np.bincount(self.pictures()[boxes], minlength=len(self))
        renamed = {old: new for new, old in enumerate(np.flatnonzero(boxes).tolist())}
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[boxes],
            labels=self.labels[boxes],
            crowd=self.crowd[boxes],
            first=np.concatenate([[0], np.cumsum(counts)]),
            polygons={renamed[i]: p for i, p in self.polygons.items() if i in renamed},
        )

    def replace(self, **changes: Any) -> BoxSet:
        """Return a copy with some attributes changed."""
        return replace(self, **changes)


def box_set(
    images: ImageSet,
    boxes: Sequence[Sequence[float]] | NDArray[np.float64],
    labels: Sequence[int] | NDArray[np.int64],
    pictures: Sequence[int] | NDArray[np.int64],
    crowd: Sequence[bool] | NDArray[np.bool_] | None = None,
    **more: Any,
) -> BoxSet:
    """A set from boxes in any order.

    Args:
        images: N pictures.
        boxes: M times left, top, right, bottom.
        labels: M class indices.
        pictures: M indices of pictures.
        crowd: M times whether it is one; None for nowhere.
        more: other attributes of ``BoxSet``; ``polygons`` by the position in ``boxes``.
    """
    order = np.argsort(np.asarray(pictures, np.int64), kind="stable")
    place = {int(old): new for new, old in enumerate(order)}
    polygons = {place[i]: p for i, p in more.pop("polygons", {}).items()}
    counts = np.bincount(np.asarray(pictures, np.int64), minlength=len(images))
    more.setdefault("annotated_sizes", np.zeros((len(images), 2), np.int64))
    return BoxSet(
        images,
        np.asarray(boxes, np.float64).reshape(-1, 4)[order],
        np.asarray(labels, np.int64)[order],
        np.zeros(len(order), np.bool_) if crowd is None else np.asarray(crowd, np.bool_)[order],
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        polygons=polygons,
        **more,
    )


def relabel_boxes(boxes: BoxSet, classes: tuple[str, ...]) -> BoxSet:
    """Number the classes as training did.

    Raises:
        UserError: an object is of a class that training never saw.
    """
    names = boxes.images.classes
    unknown = [c for i, c in enumerate(names) if c not in classes and (boxes.labels == i).any()]
    if unknown:
        raise UserError(
            f"{boxes.images.source} has objects of the class {unknown[0]!r}, which training never saw"
            + (f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else "")
            + f"; the model knows {', '.join(classes[:10])}{' ...' if len(classes) > 10 else ''}: "
            "rename or remove the class, or train anew with it"
        )
    index = np.array([classes.index(c) if c in classes else -1 for c in names], np.int64)
    return boxes.replace(images=boxes.images.replace(classes=classes), labels=index[boxes.labels])
