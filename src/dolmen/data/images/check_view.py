"""A set of pictures as its checks see it, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dolmen.data.checks.examples import SPLITS, CheckedExamples, Noun
from dolmen.data.images.decoded import Decoded
from dolmen.data.images.set import ImageSet

PICTURE = Noun("picture", "pictures", "pixel")


@dataclass(frozen=True, eq=False)
class CheckedImages(CheckedExamples):
    """A set of pictures whose splits are assigned, and its pictures.

    Attributes:
        images: the set.
        decoded: its pictures.
    """

    images: ImageSet
    decoded: Decoded

    @classmethod
    def of(cls, images: ImageSet, decoded: Decoded) -> CheckedImages:
        """A set, of which pictures with a split and a label are used, unless they are unreadable."""
        splits = np.array(images.splits, dtype="U5")
        usable = (splits != "") & (images.labels >= 0)
        usable[list(decoded.problems)] = False
        return cls(
            PICTURE, images.names, splits, np.flatnonzero(usable), decoded.digests, images.groups, decoded.problems,
            images.left_out, images.skipped, images, decoded,
        )  # fmt: skip

    def counts(self) -> dict[str, dict[str, int]]:
        """Return {split: {class: number}} of the used pictures, for the splits that there are."""
        names = self.images.classes
        counts = {}
        for split in reversed(SPLITS):
            labels = self.images.labels[self.used[self.splits[self.used] == split]]
            if len(labels):
                counts[split] = dict(zip(names, np.bincount(labels, minlength=len(names)).tolist(), strict=True))
        return counts


def size_range(sizes: NDArray[np.int32]) -> str:
    """Write "from 20 x 30 to 4000 x 3000" (height x width, by area)."""
    area = sizes[:, 0].astype(np.int64) * sizes[:, 1]
    (h, w), (height, width) = sizes[area.argmin()], sizes[area.argmax()]
    return f"from {h} x {w} to {height} x {width}"
