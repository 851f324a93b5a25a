"""Pictures to the input of a detector, and its outputs to boxes in the picture as it came."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dolmen.predictions import Boxes
from dolmen.processors.images.image import ImageFit, Pixels, RawPicture, open_image
from dolmen.types import Arrays, Example

SCORE_FLOOR = 0.01
"""Scores below this are nothing; precision and recall are measured down to it."""
MAX_CANDIDATES_PER_VIEW = 400
"""Pairs of a region and a class that are kept of each view for suppression, those with the highest scores."""
TILE_OVERLAP = 0.2
"""Share of a tile that its neighbour has as well, so that what one cuts the other has whole."""
CUT_MARGIN_PX = 2.0
"""Pixels of the network's input from the end of a tile within which a box ends with it: the tile has cut the object."""

Floats = NDArray[np.float32]


class DetectionProcessor(BaseModel):
    """Brings pictures to the input of a detector, and its outputs to boxes in the picture as it came.

    Attributes:
        classes: K names.
        height: of the network's input in pixels, a multiple of 32.
        width: likewise.
        channels: 1 for grey, 3 for RGB.
        anchors: of each stride (8, 16, 32) the (width, height) of its anchors, in pixels of the network's input.
        tiles: how many tiles cover the longer side of a picture, beside the whole of it; 1 for the whole alone.
        nms_iou: of two boxes of a class that overlap more than this, the less sure one is dropped.
        max_detections: of one picture.
        thresholds: a class, the score from which on an object is reported; fitted on validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...] = Field(min_length=1)
    height: int = Field(gt=0, multiple_of=32)
    width: int = Field(gt=0, multiple_of=32)
    channels: Literal[1, 3]
    anchors: tuple[tuple[tuple[float, float], ...], ...] = Field(min_length=3, max_length=3)
    tiles: int = Field(default=1, ge=1, le=16)
    nms_iou: float = Field(default=0.5, gt=0, le=1)
    max_detections: int = Field(default=100, gt=0)
    thresholds: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _check_thresholds(self) -> DetectionProcessor:
        if self.thresholds and len(self.thresholds) != len(self.classes):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.classes)} classes")
        return self

    @property
    def image_fit(self) -> ImageFit:
        """Brings a picture, or a tile of one, to the network's size: the whole of it, with black beside it."""
        return ImageFit(height=self.height, width=self.width, channels=self.channels, fit="pad")

    def views(self, height: int, width: int) -> NDArray[np.int64]:
        """(V, 4) xyxy in pixels: the parts of a picture of this size that the network sees, one at a time.

        The whole of it is the first: what is larger than the tiles is whole only there.
        """
        whole = [0, 0, width, height]
        if self.tiles == 1:
            return np.array([whole], np.int64)
        # n tiles of side s with a share o of overlap cover s (1 + (n - 1)(1 - o)).
        side = max(height, width) / (1 + (self.tiles - 1) * (1 - TILE_OVERLAP))
        side_w, side_h = self._tile_shape(side)
        tiles = [
            [left, top, min(width, left + side_w), min(height, top + side_h)]
            for top in _starts(height, side_h)
            for left in _starts(width, side_w)
        ]
        return np.array([whole, *(tile for tile in tiles if tile != whole)], np.int64)

    def _tile_shape(self, side: float) -> tuple[int, int]:
        """Width and height of a tile whose longer side is ``side``, of the network's shape."""
        longer = max(self.height, self.width)
        return max(1, math.ceil(side * self.width / longer)), max(1, math.ceil(side * self.height / longer))

    def encode(self, raw: RawPicture) -> Example:
        """One picture, as a person has it, as views.

        Returns:
            ``images`` (V, height, width, channels) uint8, ``crops`` (V, 4) int64: where the views are in the picture,
            and ``size`` (2,) int64: its height and width.

        Raises:
            UnreadableImageError: it can't be used.
            OSError: its file can't be read.
        """
        pixels = open_image(raw).pixels
        crops, image_fit = self.views(*pixels.shape[:2]), self.image_fit
        return {
            "images": np.stack([image_fit.resize(crop_of(pixels, crop)) for crop in crops]),
            "crops": crops,
            "size": np.array(pixels.shape[:2], np.int64),
        }

    def placement(self, height: int, width: int) -> tuple[float, float, int, int]:
        """Where a view of this size lies in the network's input: scale of x and of y, and its left and upper border."""
        scale = min(self.height / height, self.width / width)
        inner_w, inner_h = max(1, round(width * scale)), max(1, round(height * scale))
        return inner_w / width, inner_h / height, (self.width - inner_w) // 2, (self.height - inner_h) // 2

    def to_input(self, boxes_xyxy: NDArray[np.float64], crop: NDArray[np.int64]) -> Floats:
        """(N, 4) boxes in pixels of a picture -> in pixels of the network's input, which shows the view ``crop``."""
        sx, sy, dx, dy = self.placement(int(crop[3] - crop[1]), int(crop[2] - crop[0]))
        moved = boxes_xyxy - np.tile(crop[:2], 2)
        return np.asarray(moved * [sx, sy, sx, sy] + [dx, dy, dx, dy], np.float32)

    def from_input(self, boxes_xyxy: Floats, crop: NDArray[np.int64]) -> Floats:
        """Undo ``to_input``, and cut at the borders of the view."""
        height, width = int(crop[3] - crop[1]), int(crop[2] - crop[0])
        sx, sy, dx, dy = self.placement(height, width)
        boxes = (boxes_xyxy - [dx, dy, dx, dy]) / [sx, sy, sx, sy]
        boxes = np.clip(boxes, 0, [width, height, width, height]) + np.tile(crop[:2], 2)
        return np.asarray(boxes, np.float32)

    def decode_picture(
        self, outputs: Arrays, crops: NDArray[np.int64], size: tuple[int, int], floor: float = SCORE_FLOOR
    ) -> Boxes:
        """All objects in one picture, best first.

        Args:
            outputs: of its V views: ``boxes`` (V, R, 4) in pixels of the network's input, ``scores`` (V, R, K).
            crops: (V, 4) where the views are.
            size: height and width of the picture.
            floor: what scores less is left out.
        """
        scores = np.asarray(outputs["scores"], np.float32)
        view, region, label = np.nonzero(scores >= floor)
        value = scores[view, region, label]
        order = np.argsort(-value, kind="stable")[: MAX_CANDIDATES_PER_VIEW * len(crops)]
        view, region, label, value = view[order], region[order], label[order], value[order]
        boxes = np.zeros((len(order), 4), np.float32)
        for i, crop in enumerate(crops):
            in_view = view == i
            boxes[in_view] = self.from_input(outputs["boxes"][i][region[in_view]], crop)
        usable = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1) & ~self._cut(boxes, crops[view], size)
        boxes, value, label, view = boxes[usable], value[usable], label[usable], view[usable]
        kept = suppress(boxes, label, self.nms_iou, view if len(crops) > 1 else None)[: self.max_detections]
        return Boxes(size, self.classes, boxes[kept], value[kept], label[kept].astype(np.int64))

    def _cut(self, boxes: Floats, crops: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.bool_]:
        """(N,) which boxes end where their view (N, 4) ends and the picture goes on: another view has them whole."""
        scale = np.maximum((crops[:, 2] - crops[:, 0]) / self.width, (crops[:, 3] - crops[:, 1]) / self.height)
        near = np.abs(boxes - crops) < CUT_MARGIN_PX * scale[:, None]
        return np.asarray((near & (crops != [0, 0, size[1], size[0]])).any(1))

    def reported(self, boxes: Boxes, threshold: float | None = None) -> Boxes:
        """The objects that are sure enough: by the fitted thresholds, or by one that a person gave."""
        if threshold is not None or not self.thresholds:
            return boxes[boxes.scores >= (0.5 if threshold is None else threshold)]
        return boxes[boxes.scores >= np.asarray(self.thresholds, np.float32)[boxes.labels]]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> DetectionProcessor:
        """Undo ``to_json``."""
        return cls.model_validate(values)


def crop_of(pixels: Pixels, crop: NDArray[np.int64]) -> Pixels:
    """The part of a picture (H, W, C) that lies in ``crop``, xyxy."""
    left, top, right, bottom = crop.tolist()
    return pixels[top:bottom, left:right]


def _starts(length: int, side: int) -> list[int]:
    """Where tiles of a side begin that cover a length, evenly, with the overlap or more."""
    if side >= length:
        return [0]
    number = math.ceil((length - side) / (side * (1 - TILE_OVERLAP)) - 1e-9) + 1
    return [round(i * (length - side) / (number - 1)) for i in range(number)]


def overlaps(boxes: Floats, *, parts: bool = False) -> Floats:
    """(N, N) intersection over union of boxes (N, 4); with ``parts``, over the smaller of the two instead."""
    top = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    bottom = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(bottom - top, 0, None).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    over = np.minimum(area[:, None], area[None]) if parts else area[:, None] + area[None] - shared
    return np.asarray(shared / np.maximum(over, 1e-9), np.float32)


def suppress(
    boxes: Floats, labels: NDArray[Any], max_iou: float, views: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Non-maximum suppression within each class: which boxes stay.

    Args:
        boxes: (N, 4) xyxy, best first.
        labels: (N,) classes.
        max_iou: overlap from which on the less sure of two is dropped.
        views: (N,) the view that each was seen in; also dropped is a box that another one, seen in another view, holds
            nearly all of: a part of an object that a tile cut.

    Returns:
        (M,) indices, ascending.
    """
    stays = np.ones(len(boxes), np.bool_)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        overlapping = overlaps(boxes[rows]) > max_iou
        if views is not None:
            other_view = views[rows][:, None] != views[rows]
            overlapping |= other_view & (overlaps(boxes[rows], parts=True) > max(max_iou, 0.7))
        alive = np.ones(len(rows), np.bool_)
        for i in np.flatnonzero(overlapping.sum(1) > 1):
            if alive[i]:
                alive[i + 1 :] &= ~overlapping[i, i + 1 :]
        stays[rows] = alive
    return np.flatnonzero(stays)
