"""Rows of different lengths in one array: samples of recordings, frames of clips, tokens of texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, eq=False)
class Ragged:
    """N rows of different lengths. Choosing some of them copies nothing, so that all splits of a set share one file.

    Attributes:
        values: (M, ...) the items of all rows, in any order of the rows; memory-mapped where they come from the cache.
        spans: (N, 2) int64, where each row begins and ends in ``values``.
    """

    values: NDArray[Any]
    spans: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: int) -> NDArray[Any]:
        begin, end = self.spans[index].tolist()
        return self.values[begin:end]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) items of each row."""
        return self.spans[:, 1] - self.spans[:, 0]

    def take(self, rows: Any) -> Ragged:
        """Some of the rows, in the given order."""
        return Ragged(self.values, np.asarray(self.spans[np.asarray(rows, np.int64)]))

    @classmethod
    def of(cls, rows: Iterable[NDArray[Any]], dtype: DTypeLike) -> Ragged:
        """Rows of numbers that are in memory, one after the other."""
        held = [np.zeros(0, dtype), *rows]
        ends = np.cumsum([len(row) for row in held], dtype=np.int64)
        return cls(np.concatenate(held), np.stack([ends[:-1], ends[1:]], 1))
