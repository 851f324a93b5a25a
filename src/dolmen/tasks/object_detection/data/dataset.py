"""Pictures with boxes as indexed batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dolmen.data.boxes.set import BoxSet
from dolmen.data.images.dataset import group_numbers
from dolmen.data.images.decoded import Decoded
from dolmen.tasks.object_detection.processor import DetectionProcessor

PADDING, IGNORED = -1, -2
"""Labels of no box at all, and of one that counts neither way."""
MAX_THUMBNAILS = 2000


class BoxDataset:
    """The views (whole pictures, or tiles of them) of one split. The views of a picture are neighbours.

    Attributes:
        pixels: (T, H, W, C) uint8, memory-mapped; of all splits.
        rows: (N,) which of them are in this one.
        boxes: N arrays (M_i, 4) float32 xyxy, in pixels of the network's input.
        labels: N arrays (M_i,) int64; IGNORED for crowds.
        picture: (N,) int64, the picture of each view, counted within this split from 0.
        crops: (N, 4) int64, where in its picture each view is.
        sizes: (P, 2) height and width of the pictures.
        truth: of the P pictures: boxes (M, 4) float64 in their own pixels, labels (M,), crowd (M,) bool.
        names: of the P pictures.
        groups: (P,) int64, equal where pictures belong together.
        digests: (N, 16) uint8, equal for equal views.
        processor: which brought the views to the network's size.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        rows: NDArray[np.int64],
        boxes: Sequence[NDArray[np.float32]],
        labels: Sequence[NDArray[np.int64]],
        picture: NDArray[np.int64],
        crops: NDArray[np.int64],
        sizes: NDArray[np.int64],
        truth: Sequence[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]],
        names: Sequence[str],
        groups: NDArray[np.int64],
        digests: NDArray[np.uint8],
        processor: DetectionProcessor,
    ) -> None:
        self.pixels, self.rows, self.boxes, self.labels = pixels, rows, boxes, labels
        self.picture, self.crops, self.sizes, self.truth = picture, crops, sizes, truth
        self.names, self.groups, self.digests = names, groups, digests
        self.processor = processor
        self._places: dict[int, list[tuple[int, int]]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """``{"images": (B, H, W, C) uint8, "boxes": (B, M, 4) float32, "labels": (B, M) int64, "ids": (B,) int64}``.

        M is the number of boxes of the view with the most; the others are padded with the label PADDING.
        """
        max_boxes = max((len(self.labels[i]) for i in indices), default=0)
        boxes = np.zeros((len(indices), max(1, max_boxes), 4), np.float32)
        labels = np.full((len(indices), max(1, max_boxes)), PADDING, np.int64)
        for row, i in enumerate(indices):
            boxes[row, : len(self.boxes[i])] = self.boxes[i]
            labels[row, : len(self.labels[i])] = self.labels[i]
        return {
            "images": torch.from_numpy(self.pixels[self.rows[indices]]),
            "boxes": torch.from_numpy(boxes),
            "labels": torch.from_numpy(labels),
            "ids": torch.from_numpy(np.asarray(indices, np.int64)),
        }

    def of_class(self, label: int) -> list[tuple[int, int]]:
        """The objects of a class, as (view, which of its boxes)."""
        if label not in self._places:
            self._places[label] = [
                (i, j) for i, n in enumerate(self.labels) for j in np.flatnonzero(n == label).tolist()
            ]
        return self._places[label]

    def picture_of(self, number: int) -> NDArray[np.uint8]:
        """(H, W, C) a picture, put together of its views, at the scale at which the network sees it."""
        height, width = self.sizes[number].tolist()
        views = np.flatnonzero(self.picture == number)
        views = views[1:] if len(views) > 1 else views  # beside tiles, the whole is the first, and the coarsest
        crop = self.crops[views[0]]
        sx, sy, *_ = self.processor.placement(int(crop[3] - crop[1]), int(crop[2] - crop[0]))
        canvas = np.zeros((max(1, round(height * sy)), max(1, round(width * sx)), self.pixels.shape[3]), np.uint8)
        for i in views:
            crop = self.crops[i]
            _, _, dx, dy = self.processor.placement(int(crop[3] - crop[1]), int(crop[2] - crop[0]))
            left, top = round(int(crop[0]) * sx), round(int(crop[1]) * sy)
            w = min(round(int(crop[2] - crop[0]) * sx), canvas.shape[1] - left)
            h = min(round(int(crop[3] - crop[1]) * sy), canvas.shape[0] - top)
            canvas[top : top + h, left : left + w] = self.pixels[self.rows[i], dy : dy + h, dx : dx + w]
        return canvas

    def thumbnails(self, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Up to 2,000 objects as (n, 16, 16) grey pictures, with their (n,) classes."""
        places = [(i, j) for i, n in enumerate(self.labels) for j in np.flatnonzero(n >= 0).tolist()]
        order = np.random.default_rng(seed).permutation(len(places))[:MAX_THUMBNAILS]
        pictures, labels = [], []
        for i, j in sorted(places[o] for o in order):
            left, top, right, bottom = self.boxes[i][j].round().astype(int).tolist()
            patch = self.pixels[self.rows[i], max(0, top) : bottom, max(0, left) : right].mean(2)
            if min(patch.shape) >= 4:
                thumbnail = Image.fromarray(patch.astype(np.uint8)).resize((16, 16), Image.Resampling.BOX)
                pictures.append(np.asarray(thumbnail))
                labels.append(int(self.labels[i][j]))
        return np.array(pictures, np.uint8).reshape(-1, 16, 16), np.array(labels, np.int64)

    def subset(self, rows: NDArray[np.int64]) -> BoxDataset:
        """Some of the views, in the given order; their pictures are counted anew."""
        pictures, picture = np.unique(self.picture[rows], return_inverse=True)
        return BoxDataset(
            self.pixels, self.rows[rows], [self.boxes[i] for i in rows], [self.labels[i] for i in rows],
            picture.astype(np.int64), self.crops[rows], self.sizes[pictures], [self.truth[i] for i in pictures],
            [self.names[i] for i in pictures], self.groups[pictures], self.digests[rows], self.processor,
        )  # fmt: skip


def box_dataset(
    pictures: BoxSet,
    sizes: NDArray[np.int64],
    chosen: NDArray[np.int64],
    views: BoxSet,
    picture: NDArray[np.int64],
    crops: NDArray[np.int64],
    decoded: Decoded,
    processor: DetectionProcessor,
) -> BoxDataset:
    """Some pictures of a set, with their views, as a data set.

    Args:
        pictures: the set, cleaned.
        sizes: (N, 2) height and width of its pictures.
        chosen: which of the pictures.
        views: the set of all views; the same as ``pictures`` where they are seen whole.
        picture: (T,) the picture of each view.
        crops: (T, 4) where it is.
        decoded: the views.
        processor: which decoded them.
    """
    number = {int(p): i for i, p in enumerate(chosen)}
    rows = np.array([t for t in np.flatnonzero(np.isin(picture, chosen)) if t not in decoded.problems], np.int64)
    boxes, labels = [], []
    for t in rows:
        at = views.rows(int(t))
        origin = crops[t] - np.array([crops[t][0], crops[t][1], crops[t][0], crops[t][1]])
        boxes.append(processor.to_input(views.boxes_xyxy[at], origin))
        labels.append(np.where(views.crowd[at], IGNORED, views.labels[at]).astype(np.int64))
    truth = []
    for p in chosen:
        at = pictures.rows(int(p))
        truth.append((pictures.boxes_xyxy[at], pictures.labels[at], pictures.crowd[at]))
    return BoxDataset(
        decoded.pixels, rows, boxes, labels, np.array([number[int(picture[t])] for t in rows], np.int64), crops[rows],
        sizes[chosen], truth, [pictures.images.names[p] for p in chosen],
        group_numbers([pictures.images.groups[p] for p in chosen]), np.ascontiguousarray(decoded.digests[rows]),
        processor,
    )  # fmt: skip
