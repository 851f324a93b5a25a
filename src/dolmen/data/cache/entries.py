"""A folder of cache entries: columns in .npy files, written row by row, published whole, deleted when old.

<folder>/<key>/NAME.npy ...  entry.json       an entry; entry.json is written last and says what it holds
<folder>/<key>/NAME.npy  NAME.spans.npy       a ragged column: its items, and where each row begins and ends
<folder>/<key>.XXXX.partial/                  one that is being written, or that a killed process left
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from dolmen.data.cache.columns import Column, ColumnFile, RaggedColumn, RaggedFile, read_column, read_ragged
from dolmen.data.ragged import Ragged

MAX_CACHE_BYTES = 20_000_000_000
ABANDONED_S = 24 * 3600.0  # nobody writes to one entry for a day without a write in between
PARTIAL = ".partial"


Columns = Mapping[str, Column | RaggedColumn]
"""By name."""


class Entry(NamedTuple):
    """An entry that is open.

    Attributes:
        arrays: the columns whose rows have one shape, memory-mapped (copy on write).
        ragged: the others.
        facts: what ``publish`` was given beside the columns.
    """

    arrays: dict[str, NDArray[Any]]
    ragged: dict[str, Ragged]
    facts: dict[str, Any]


class EntryWriter:
    """Writes an entry under a temporary name; use it in a ``with``, then ``publish`` it inside.

    Rows may come in any order; a row that never comes is zeros. Leaving the ``with`` removes what was not
    published, whatever the reason for leaving.
    """

    def __init__(self, entry: Path, columns: Columns):
        self.entry = entry
        self.folder = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", suffix=PARTIAL, dir=entry.parent))
        self._files: dict[str, ColumnFile] = {}
        self._ragged: dict[str, RaggedFile] = {}
        self._columns = columns

    def __enter__(self) -> Self:
        try:
            for name, column in self._columns.items():
                path = self.folder / f"{name}.npy"
                if isinstance(column, Column):
                    self._files[name] = ColumnFile(path, column)
                else:
                    self._ragged[name] = RaggedFile(path, column)
            for file in self._all_files:
                file.prepare()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    @property
    def _all_files(self) -> list[ColumnFile | RaggedFile]:
        return [*self._files.values(), *self._ragged.values()]

    @property
    def num_bytes(self) -> int:
        """The bytes that it takes on disk, of ragged columns so far."""
        return sum(file.num_bytes for file in self._all_files)

    def write(self, name: str, indices: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Write ``rows[j]`` as row ``indices[j]`` of the column."""
        self._files[name].write(indices, rows)

    def append(self, name: str, row: int, items: NDArray[Any]) -> None:
        """Append (n, ...) items to a row of a ragged column; the pieces of a row come one after the other."""
        self._ragged[name].append(row, items)

    def publish(self, facts: dict[str, Any], is_valid: Callable[[], bool]) -> None:
        """Give the entry its name; a valid one that another process has put there meanwhile stays.

        Args:
            facts: what ``open_entry`` gives back beside the columns: JSON-able.
            is_valid: whether what stands under the name is good; a damaged one is replaced.
        """
        for file in self._all_files:
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
        self, error_class: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._all_files:
            file.abandon()
        shutil.rmtree(self.folder, ignore_errors=True)


def open_entry(entry: Path, columns: Columns) -> Entry | None:
    """Open an entry, or return None where none is or a damaged one."""
    arrays: dict[str, NDArray[Any]] = {}
    ragged: dict[str, Ragged] = {}
    try:
        facts = json.loads((entry / "entry.json").read_bytes())
        for name, column in columns.items():
            path = entry / f"{name}.npy"
            if isinstance(column, Column):
                arrays[name] = read_column(path, column)
            else:
                ragged[name] = read_ragged(path, column)
        os.utime(entry / "entry.json")  # used now, so that `prune` takes others first
    except (OSError, ValueError, EOFError):
        return None
    return Entry(arrays, ragged, facts) if isinstance(facts, dict) else None


def prune(folder: Path, *, max_bytes: int = MAX_CACHE_BYTES, keep: Path | None = None) -> None:
    """Delete the least recently used entries until the others take at most ``max_bytes``, and old leftovers.

    Args:
        folder: holds the entries.
        max_bytes: what may stay.
        keep: an entry that stays in any case.
    """
    entries: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process may be deleting the same one
            if path.name.endswith(PARTIAL):
                newest = max(p.stat().st_mtime for p in (path, *path.iterdir()))
                if time.time() - newest > ABANDONED_S:
                    shutil.rmtree(path, ignore_errors=True)
            elif (path / "entry.json").is_file():
                size = sum(p.stat().st_size for p in path.iterdir())
                entries.append(((path / "entry.json").stat().st_mtime, size, path))
    total = 0
    for _, size, path in sorted(entries, key=lambda u: (u[2] != keep, -u[0])):
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
