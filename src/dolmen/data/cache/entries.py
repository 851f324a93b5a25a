"""A folder of cache entries: columns in .npy files, written row by row, published whole, deleted when old.

    <folder>/<key>/NAME.npy ...  entry.json       an entry; entry.json is written last and says what it holds
    <folder>/<key>.XXXX.partial/                  one that is being written, or that a killed process left

Rows are written to plain files, not through a memory map: on a full disk the first gives an error that can be
told in a sentence, the second kills the process (SIGBUS).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

MAX_BYTES = 20_000_000_000
ABANDONED_S = 24 * 3600.0  # nobody writes to one entry for a day without a write in between
PARTIAL = ".partial"


class Column(NamedTuple):
    """N rows of one dtype and shape."""

    dtype: DTypeLike
    shape: tuple[int, ...]  # with N first

    @property
    def num_bytes(self) -> int:
        """The bytes that the rows take on disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class EntryWriter:
    """Writes an entry under a temporary name; use it in a ``with``, then ``publish`` it inside.

    Rows may come in any order; a row that never comes is zeros. Leaving the ``with`` removes what was not
    published, whatever the reason for leaving.
    """

    def __init__(self, entry: Path, columns: dict[str, Column]):
        self.entry = entry
        self.folder = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", suffix=PARTIAL, dir=entry.parent))
        self._files: dict[str, _ColumnFile] = {}
        self._columns = columns

    def __enter__(self) -> Self:
        try:
            for name, column in self._columns.items():
                self._files[name] = _ColumnFile(self.folder / f"{name}.npy", column)
                self._files[name].prepare()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def write(self, name: str, indices: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Write ``rows[j]`` as row ``indices[j]`` of the column."""
        self._files[name].write(indices, rows)

    def publish(self, facts: dict[str, Any], is_valid: Callable[[], bool]) -> None:
        """Give the entry its name; a valid one that another process has put there meanwhile stays.

        Args:
            facts: what ``open_entry`` gives back beside the columns: JSON-able.
            is_valid: tells whether what stands under the name is good; a damaged one is replaced.
        """
        for file in self._files.values():
            file.close()
        with (self.folder / "entry.json").open("w") as stream:
            json.dump(facts, stream)
            stream.flush()
            os.fsync(stream.fileno())
        if self.entry.exists() and not is_valid():
            remove(self.entry)
        try:
            self.folder.rename(self.entry)
        except OSError:
            if not is_valid():
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.abandon()
        shutil.rmtree(self.folder, ignore_errors=True)


class _ColumnFile:
    """One .npy file whose rows arrive in any order."""

    def __init__(self, path: Path, column: Column):
        self._column = column
        self._dtype = np.dtype(column.dtype)
        self._row_bytes = column.num_bytes // max(column.shape[0], 1)
        self._start = 0
        self._stream = path.open("wb")

    def prepare(self) -> None:
        """Write the header and give the file its length, which takes no room yet."""
        shape, descr = self._column.shape, np.lib.format.dtype_to_descr(self._dtype)
        np.lib.format.write_array_header_1_0(self._stream, {"descr": descr, "fortran_order": False, "shape": shape})
        self._start = self._stream.tell()
        self._stream.truncate(self._start + self._column.num_bytes)

    def write(self, indices: NDArray[np.int64], rows: NDArray[Any]) -> None:
        runs = np.flatnonzero(np.diff(indices) != 1) + 1  # storage order is mostly our order: few seeks
        for run, block in zip(np.split(indices, runs), np.split(rows, runs), strict=True):
            if len(run):
                self._stream.seek(self._start + int(run[0]) * self._row_bytes)
                self._stream.write(np.ascontiguousarray(block, self._dtype).data)

    def close(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def abandon(self) -> None:
        with suppress(OSError):  # what is still buffered has nowhere to go on a full disk
            self._stream.close()


def open_entry(entry: Path, columns: dict[str, Column]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """Open an entry, or return None where none is or a damaged one.

    Returns:
        The columns, memory-mapped (copy on write), and the facts.
    """
    try:
        facts = json.loads((entry / "entry.json").read_bytes())
        arrays = {
            name: np.load(entry / f"{name}.npy", mmap_mode="c" if c.num_bytes else None, allow_pickle=False)
            for name, c in columns.items()
        }
        os.utime(entry / "entry.json")  # used now, so that `prune` takes others first
    except (OSError, ValueError, EOFError):
        return None
    as_expected = all(
        arrays[name].shape == c.shape and arrays[name].dtype == np.dtype(c.dtype) for name, c in columns.items()
    )
    return (arrays, facts) if as_expected and isinstance(facts, dict) else None


def prune(folder: Path, *, max_bytes: int = MAX_BYTES, keep: Path | None = None) -> None:
    """Delete the least recently used entries until the others take at most ``max_bytes``, and old leftovers.

    Args:
        folder: holds the entries.
        max_bytes: what may stay.
        keep: an entry that stays in any case.
    """
    used: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process may be deleting the same one
            if path.name.endswith(PARTIAL):
                newest = max(p.stat().st_mtime for p in (path, *path.iterdir()))
                if time.time() - newest > ABANDONED_S:
                    shutil.rmtree(path, ignore_errors=True)
            elif (path / "entry.json").is_file():
                size = sum(p.stat().st_size for p in path.iterdir())
                used.append(((path / "entry.json").stat().st_mtime, size, path))
    total = 0
    for _, size, path in sorted(used, key=lambda u: (u[2] != keep, -u[0])):
        total += size
        if total > max_bytes and path != keep:
            remove(path)


def remove(entry: Path) -> None:
    """Delete an entry so that no other process ever sees half of it."""
    aside = entry.with_name(f"{entry.name}.{os.getpid()}{PARTIAL}")
    with suppress(OSError):
        entry.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def free_bytes(folder: Path) -> int:
    """Return the room that is left on the disk of ``folder``."""
    return shutil.disk_usage(folder).free


def readable_bytes(num_bytes: int) -> str:
    """Write a size for a person: "512 bytes", "1.5 MB", "3.2 GB"."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} bytes"
