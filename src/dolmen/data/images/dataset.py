"""Decoded pictures as indexed batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dolmen.data.images.decoded import Decoded
from dolmen.data.images.set import ImageSet


class ImageDataset:
    """The pictures of one split. Indexing a memory-mapped array beats worker processes at every size measured.

    Attributes:
        pixels: (N, H, W, C) uint8, memory-mapped; of all splits.
        rows: (M,) which of them are in this one.
        labels: (M,) int64.
        groups: (M,) int64, equal where the pictures belong together.
        digests: (M, 16) uint8, equal for equal pictures.
        names: M names for a person.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        groups: NDArray[np.int64],
        digests: NDArray[np.uint8],
        names: Sequence[str],
    ) -> None:
        self.pixels, self.rows, self.labels = pixels, rows, labels
        self.groups, self.digests, self.names = groups, digests, names

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """``{"images": (B, H, W, C) uint8, "labels": (B,) int64, "ids": (B,) int64}``."""
        return {
            "images": torch.from_numpy(self.pixels[self.rows[indices]]),
            "labels": torch.from_numpy(self.labels[indices]),
            "ids": torch.from_numpy(np.asarray(indices, np.int64)),
        }

    def subset(self, rows: NDArray[np.int64]) -> ImageDataset:
        """Some of the pictures, in the given order."""
        names = [self.names[i] for i in rows]
        return ImageDataset(
            self.pixels, self.rows[rows], self.labels[rows], self.groups[rows], self.digests[rows], names
        )


def group_numbers(groups: Sequence[str]) -> NDArray[np.int64]:
    """Number the groups; a picture without one ("") is a group of its own."""
    numbers: dict[str, int] = {}
    keys = (g or f"\0{i}" for i, g in enumerate(groups))
    # By first appearance, so that the numbers do not depend on what else was in the list before a subset was taken.
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def image_dataset(images: ImageSet, decoded: Decoded, rows: list[int]) -> ImageDataset:
    """Some pictures of a set, by index, as a data set."""
    return ImageDataset(
        decoded.pixels,
        np.array(rows, np.int64),
        images.labels[rows],
        group_numbers([images.groups[i] for i in rows]),
        np.ascontiguousarray(decoded.digests[rows]),
        [images.names[i] for i in rows],
    )
