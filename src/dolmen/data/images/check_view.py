"""What the subjects of a check look at, and how they word what they find."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from dolmen.data.images.decoded import Decoded
from dolmen.data.images.set import ImageSet
from dolmen.data.wording import MAX_ITEMS, SPLITS, choose


@dataclass(frozen=True, eq=False)
class CheckedImages:
    """A set, its pictures and its splits.

    Attributes:
        splits: (N,) strings.
        used: (M,) indices of the pictures that training or evaluation will see, ascending.
    """

    images: ImageSet
    decoded: Decoded
    splits: NDArray[np.str_]
    used: NDArray[np.int64]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return {split: {class: number}} of the used pictures, for the splits that there are."""
        names = self.images.classes
        counts = {}
        for split in reversed(SPLITS):
            labels = self.images.labels[self.used[self.splits[self.used] == split]]
            if len(labels):
                counts[split] = dict(zip(names, np.bincount(labels, minlength=len(names)).tolist(), strict=True))
        return counts

    def named(self, indices: Iterable[int]) -> tuple[str, ...]:
        """Return the names of the first pictures."""
        return tuple(self.images.names[int(i)] for i in islice(indices, MAX_ITEMS))

    def paired(self, pairs: Iterable[Sequence[int]]) -> tuple[str, ...]:
        """Return the first pairs as "a = b"."""
        names = self.images.names
        return tuple(f"{names[int(a)]} = {names[int(b)]}" for a, b in islice(pairs, MAX_ITEMS))


def pictures(num: int) -> str:
    """Write "1 picture" or "1,234 pictures"."""
    return f"{num:,} {choose(num, 'picture', 'pictures')}"


def size_range(sizes: NDArray[np.int32]) -> str:
    """Write "from 20 x 30 to 4000 x 3000" (height x width, by area)."""
    area = sizes[:, 0].astype(np.int64) * sizes[:, 1]
    (h, w), (height, width) = sizes[area.argmin()], sizes[area.argmax()]
    return f"from {h} x {w} to {height} x {width}"
