"""Lists of pictures with their labels: .csv, .tsv and .jsonl."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from dolmen.data.images.files import Listing, images_of_files
from dolmen.data.images.set import ImageSet
from dolmen.data.sources.layout import SPLIT_WORDS
from dolmen.data.sources.list_rows import LIST_SUFFIXES, Row, csv_rows, jsonl_rows
from dolmen.data.sources.open import File, Source, printable, read_file, reason_of
from dolmen.types import UserError

__all__ = ["LIST_SUFFIXES", "ListedSource", "locate", "read_list", "read_text"]

COLUMNS = {
    "path": ("path", "file", "filename", "image"),
    "label": ("label", "class", "category"),
    "split": ("split", "set", "subset"),
    "group": ("group", "patient", "patient_id", "recording", "subject"),
}
"""What the columns may be called, in any case."""


def read_list(path: Path, name: str) -> ImageSet:
    """A row a picture: path, label, and maybe split and group; paths count from the folder of the list.

    Raises:
        UserError: the list can't be read; the sentence names the line.
    """
    listing = Listing()
    seen: set[str] = set()
    columns: dict[str, str | None] = {}
    for line, row in _rows(path):
        columns = columns or _find_columns(path, list(row))
        file, label, split, group = (_cell(path, line, row, columns[c]) for c in ("path", "label", "split", "group"))
        if not file:
            raise UserError(f"{path} line {line} has no {columns['path']}; fill it in, or remove the line")
        if split and split.lower() not in SPLIT_WORDS:
            raise UserError(f"{path} line {line} has the split {split!r}; expected train, val or test")
        file = locate(path.parent, file)
        if file in seen:
            listing.skip(file, f"listed again in line {line}")
        elif not os.path.isfile(path.parent / file):
            listing.skip(file, "listed but not there")
        elif not label:
            listing.skip(file, "no label")
        else:
            listing.add(file, label, SPLIT_WORDS.get(split.lower(), ""), group)
        seen.add(file)
    if not listing.names:
        first = f" (the first is {listing.skipped[0].name}: {listing.skipped[0].reason})" if listing.skipped else ""
        raise UserError(
            f"{path} lists no picture that is there and has a label{first}; expected a row for each, "
            f"with its path counted from {path.parent}"
        )
    return images_of_files(ListedSource(path.parent, listing.names), name, listing)


class ListedSource(Source):
    """Files that a list names, wherever they are."""

    def __init__(self, path: Path, names: list[str]) -> None:
        super().__init__(path, [])
        stats = [(n, (path / n).stat()) for n in names]
        self.files = [File(n, s.st_size, s.st_mtime_ns) for n, s in stats]

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """Yield ``(name, content)`` for each name, in the order that is cheapest for the storage."""
        for name in names:
            yield name, read_file(self.path / name)


def locate(folder: Path, file: str) -> str:
    """One spelling for each file; a list from Windows has backslashes."""
    if "\\" in file and not os.path.isfile(folder / file):
        file = file.replace("\\", "/")
    return os.path.normpath(file)


def _cell(path: Path, line: int, row: Row, column: str | None) -> str:
    value = row.get(column) if column else None
    if isinstance(value, list | dict):
        raise UserError(f"{path} line {line} has several values as {column}, expected one: a text or a number")
    text = "" if value is None else str(value).strip()
    if printable(text) != text:
        raise UserError(f"{path} line {line} has {text!r} as {column}, which is no Unicode text; write it anew")
    return text


def _find_columns(path: Path, header: list[str]) -> dict[str, str | None]:
    by_lower = {str(k).strip().lower(): k for k in reversed(header)}
    columns_of = {c: next((by_lower[w] for w in words if w in by_lower), None) for c, words in COLUMNS.items()}
    for needed in ("path", "label"):
        if columns_of[needed] is None:
            raise UserError(
                f"{path} has the columns {', '.join(header) or '(none)'} and none called {needed!r}; "
                "expected path and label, and if you like split and group"
            )
    return columns_of


def read_text(path: Path) -> str:
    """The text of a list.

    Raises:
        UserError: it can't be read, or is not UTF-8.
    """
    content = read_file(path)
    if isinstance(content, OSError):
        raise UserError(f"{path} can't be read ({reason_of(content)}); make it readable for you")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path} line {line} is not UTF-8 (byte {error.start}); save the list as UTF-8") from None


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """``(line number, row)``; the first bad one is refused."""
    text = read_text(path)
    is_jsonl = path.suffix.lower() == ".jsonl"
    rows = (
        jsonl_rows(text)
        if is_jsonl
        else csv_rows(
            text, str(path), lambda c: _find_columns(path, c), tabs=path.suffix.lower() == ".tsv", strict=True
        )
    )
    for line, row in rows:
        if isinstance(row, str):
            example = ', expected one such as {"path": "1.jpg", "label": "cat"}' if is_jsonl else ""
            raise UserError(f"{path} line {line} {row}{example}")
        yield line, row
