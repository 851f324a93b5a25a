"""Columns of a cache entry, each an .npy file that is written row by row.

Rows are written to plain files, not through a memory map: on a full disk the first gives an error that can be
reported in a sentence, the second kills the process (SIGBUS).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dolmen.data.ragged import Ragged


class Column(NamedTuple):
    """N rows of one dtype and shape."""

    dtype: DTypeLike
    shape: tuple[int, ...]  # with N first

    @property
    def num_bytes(self) -> int:
        """The bytes that the rows take on disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class RaggedColumn(NamedTuple):
    """N rows of different lengths.

    Attributes:
        dtype: of the items.
        num_rows: N.
        item_shape: of one item: () for samples, (H, W, C) for frames.
    """

    dtype: DTypeLike
    num_rows: int
    item_shape: tuple[int, ...] = ()


class ColumnFile:
    """An .npy file whose rows arrive in any order; a row that never comes is zeros."""

    def __init__(self, path: Path, column: Column):
        self._column = column
        self._dtype = np.dtype(column.dtype)
        self._row_bytes = column.num_bytes // max(column.shape[0], 1)
        self._start = 0
        self._stream = path.open("wb")

    @property
    def num_bytes(self) -> int:
        """The bytes that the rows take in the end."""
        return self._column.num_bytes

    def prepare(self) -> None:
        """Write the header and give the file its length, which takes no room yet."""
        self._start = _write_header(self._stream, self._dtype, self._column.shape)
        self._stream.truncate(self._start + self._column.num_bytes)

    def write(self, indices: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Write ``rows[j]`` as row ``indices[j]``."""
        runs = np.flatnonzero(np.diff(indices) != 1) + 1  # storage order is mostly our order: few seeks
        for run, block in zip(np.split(indices, runs), np.split(rows, runs), strict=True):
            if len(run):
                self._stream.seek(self._start + int(run[0]) * self._row_bytes)
                self._stream.write(np.ascontiguousarray(block, self._dtype).data)

    def close(self) -> None:
        """Put everything on the disk."""
        _close(self._stream)

    def abandon(self) -> None:
        """Close the file, whatever becomes of it."""
        with suppress(OSError):  # what is still buffered has nowhere to go on a full disk
            self._stream.close()


class RaggedFile:
    """The items of rows of different lengths as they arrive, and where each row begins and ends.

    A row may be appended in several pieces, so that a long one is never held whole; its pieces come one after the
    other, without those of another row between them. A row that never comes is empty.
    """

    def __init__(self, path: Path, column: RaggedColumn):
        self._column, self._path = column, path
        self._dtype = np.dtype(column.dtype)
        self._spans = np.zeros((column.num_rows, 2), np.int64)
        self._num_items, self._start, self._last_row = 0, 0, -1
        self._stream = path.open("wb")

    @property
    def num_bytes(self) -> int:
        """The bytes of what was appended so far."""
        return self._num_items * int(np.prod(self._column.item_shape, dtype=np.int64)) * self._dtype.itemsize

    def prepare(self) -> None:
        """Write a header, which is written again when the number of items is known."""
        self._start = _write_header(self._stream, self._dtype, (0, *self._column.item_shape))

    def append(self, row: int, items: NDArray[Any]) -> None:
        """Append (n, ...) items to a row.

        Raises:
            ValueError: another row was begun after it, or the items have another shape.
        """
        if items.shape[1:] != self._column.item_shape:
            raise ValueError(f"items of shape {items.shape[1:]}, expected {self._column.item_shape}")
        if row != self._last_row:
            if self._spans[row].any():
                raise ValueError(f"row {row} goes on after another was begun")
            self._spans[row], self._last_row = self._num_items, row
        self._stream.write(np.ascontiguousarray(items, self._dtype).data)
        self._num_items += len(items)
        self._spans[row, 1] = self._num_items

    def close(self) -> None:
        """Put everything on the disk, with the true number of items in the header."""
        self._stream.seek(0)
        start = _write_header(self._stream, self._dtype, (self._num_items, *self._column.item_shape))
        assert start == self._start, "numpy leaves room in a header for a longer first axis"
        _close(self._stream)
        with spans_path(self._path).open("wb") as stream:
            np.save(stream, self._spans, allow_pickle=False)
            stream.flush()
            os.fsync(stream.fileno())

    def abandon(self) -> None:
        """Close the file, whatever becomes of it."""
        with suppress(OSError):
            self._stream.close()


def read_column(path: Path, column: Column) -> NDArray[Any]:
    """Open a column, memory-mapped (copy on write).

    Raises:
        OSError, EOFError: it can't be read.
        ValueError: it is damaged or another one.
    """
    array = _load(path, column.num_bytes)
    if array.shape != column.shape or array.dtype != np.dtype(column.dtype):
        raise ValueError("another column")
    return array


def read_ragged(path: Path, column: RaggedColumn) -> Ragged:
    """Open a ragged column, its items memory-mapped (copy on write); raises what ``read_column`` raises."""
    spans = np.load(spans_path(path), allow_pickle=False)
    if spans.shape != (column.num_rows, 2) or spans.dtype != np.int64:
        raise ValueError("another column")
    num_items = int(spans.max(initial=0))
    values = _load(path, num_items)
    if values.shape != (num_items, *column.item_shape) or values.dtype != np.dtype(column.dtype):
        raise ValueError("another column")
    if (spans[:, 0] < 0).any() or (spans[:, 0] > spans[:, 1]).any():
        raise ValueError("rows that end before they begin")
    return Ragged(values, spans)


def spans_path(path: Path) -> Path:
    """The file that says where the rows of a ragged column are."""
    return path.with_suffix(".spans.npy")


def _write_header(stream: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Write an .npy header and return its length, which is the same for any length of the first axis."""
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.tell()


def _load(path: Path, size: int) -> NDArray[Any]:
    """An .npy file; one without items can't be mapped."""
    array: NDArray[Any] = np.load(path, mmap_mode="c" if size else None, allow_pickle=False)
    return array


def _close(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())
    stream.close()
