"""Values that are computed once and kept for later runs: opened, or written as a whole and then opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dolmen.data.cache.columns import Column
from dolmen.data.cache.entries import (
    Columns,
    Entry,
    EntryWriter,
    free_bytes,
    open_entry,
    prune,
    readable_bytes,
)
from dolmen.types import MachineError

T = TypeVar("T")


def open_or_fill(
    entry: Path,
    columns: Columns,
    fill: Callable[[EntryWriter], dict[str, Any]],
    accept: Callable[[Entry], T | None],
    what: str,
) -> T:
    """Open an entry; where there is none that is accepted, write it first, under a temporary name until it is whole.

    Args:
        entry: its folder, named by a key that changes with everything that the content depends on.
        columns: that it has.
        fill: writes the rows and returns the facts, JSON-able.
        accept: returns the value of an entry; None for one that is damaged or out of date.
        what: the content, for messages: "the decoded pictures".

    Raises:
        MachineError: the disk is too full, or the folder can't be written. Nothing half-written stays.
    """
    folder = entry.parent

    def accepted() -> T | None:
        opened = open_entry(entry, columns)
        return None if opened is None else accept(opened)

    if (content := accepted()) is not None:
        return content
    needed = sum(column.num_bytes for column in columns.values() if isinstance(column, Column))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = free_bytes(folder)
        if needed > free:
            raise MachineError(
                f"{what} need {readable_bytes(needed)} and {folder} has"
                f" {readable_bytes(free)} free: set DOLMEN_CACHE to a folder on a larger disk"
            )
        with EntryWriter(entry, columns) as writer:
            try:
                writer.publish(fill(writer), is_valid=lambda: accepted() is not None)
            finally:
                needed = writer.num_bytes
            content = accepted()
        prune(folder, keep=entry)
    except OSError as error:
        raise MachineError(
            f"{what} ({readable_bytes(needed)}) can't be written to {folder}"
            f" ({error.strerror or error}): free some space or set DOLMEN_CACHE to a folder on another disk"
        ) from error
    if content is None:
        raise MachineError(f"{what} vanished from {folder} just after they were written: run it again")
    return content
