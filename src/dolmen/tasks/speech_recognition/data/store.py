"""Where the samples of recordings are: in memory, or, where they are many, in a temporary file that is memory-mapped.

The file has no name and is gone with the last array that shows it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from dolmen.data.cache.cache_dir import cache_dir
from dolmen.data.cache.entries import readable_bytes
from dolmen.types import MachineError

IN_MEMORY = 1 << 30
"""Bytes of samples that are held in memory; 9 hours at 16 kHz."""


class Pile:
    """Samples of recordings as they come, in any order; in memory until they are too many, then in a file.

    Use it in a ``with``.
    """

    def __init__(self) -> None:
        self.num_bytes = 0
        self._held: dict[int, NDArray[np.int16]] = {}
        self._file: IO[bytes] | None = None
        self._places: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()  # what is mapped stays

    def add(self, index: int, samples: NDArray[np.int16]) -> None:
        """Add a recording."""
        start = self.num_bytes // 2
        self._places[index] = start, start + len(samples)
        self.num_bytes += samples.nbytes
        if self._file is None and self.num_bytes <= IN_MEMORY:
            self._held[index] = samples
            return
        if self._file is None:
            self._file = _temporary_file()
            for held in self._held.values():
                self._file.write(held.data)
            self._held = {}
        self._file.write(samples.data)

    def in_order(self, num: int) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
        """(M,) samples in the order of the indices, and (num + 1,) where each begins."""
        sizes = [b - a for a, b in (self._places.get(i, (0, 0)) for i in range(num))]
        starts = np.cumsum([0, *sizes], dtype=np.int64)
        if self._file is None:
            audio = np.empty(int(starts[-1]), np.int16)
            for index in sorted(self._held):
                audio[starts[index] : starts[index + 1]] = self._held.pop(index)
            return audio, starts
        self._file.flush()
        piled = np.memmap(self._file, np.int16, "r", shape=(self.num_bytes // 2,))
        if list(self._places) == sorted(self._places):
            return piled, starts
        ordered = (piled[a:b] for _, (a, b) in sorted(self._places.items()))
        return _written(ordered, int(starts[-1])), starts


def gathered(
    audio: NDArray[np.int16], starts: NDArray[np.int64], rows: Sequence[int] | NDArray[np.int64]
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Some recordings, in the given order, one after the other; a temporary file where they are too many for memory.

    Args:
        audio: (M,) samples.
        starts: (N + 1,) where each recording begins.
        rows: (n,) which.
    """
    rows = np.asarray(rows, np.int64)
    if np.array_equal(rows, np.arange(len(starts) - 1)):
        return audio, starts
    new = np.concatenate([np.zeros(1, np.int64), np.cumsum((starts[1:] - starts[:-1])[rows])])
    parts = (audio[starts[i] : starts[i + 1]] for i in rows.tolist())
    if 2 * int(new[-1]) > IN_MEMORY:
        try:
            return _written(parts, int(new[-1])), new
        except OSError as error:
            raise MachineError(
                f"A part of the recordings ({readable_bytes(2 * int(new[-1]))}) can't be written to {cache_dir()}"
                f" ({error.strerror or error}): free some space or set DOLMEN_CACHE to a folder on another disk."
            ) from error
    found = np.empty(int(new[-1]), np.int16)
    for start, end, part in zip(new[:-1].tolist(), new[1:].tolist(), parts, strict=True):
        found[start:end] = part
    return found, new


def _written(parts: Iterator[NDArray[np.int16]], num: int) -> NDArray[np.int16]:
    with _temporary_file() as file:
        for part in parts:
            file.write(np.ascontiguousarray(part).data)
        file.flush()
        return np.memmap(file, np.int16, "r", shape=(num,))


def _temporary_file() -> Any:
    """A file without a name beside the cache: what is usually meant for such files may be memory."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=cache_dir())
