"""Boxes in a list: .csv, .tsv or .jsonl, a row a box."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dolmen.data.boxes.files import Box, BoxListing, number
from dolmen.data.boxes.set import BoxSet
from dolmen.data.images.lists import ListedSource, locate, read_text
from dolmen.data.sources.layout import SPLIT_WORDS
from dolmen.data.sources.list_rows import Row, csv_rows, jsonl_rows
from dolmen.data.sources.open import printable
from dolmen.types import UserError

COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "image", "image_path", "image_name", "img"),
    "label": ("label", "class", "category", "name", "class_name", "label_name"),
    "split": ("split", "set", "subset"),
    "group": ("group", "patient", "patient_id", "recording", "subject"),
}
CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))
SIDES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("bbox_x", "bbox_y", "bbox_width", "bbox_height"))
SIZES = (("image_height", "image_width"), ("img_height", "img_width"), ("height", "width"))
"""What the columns may be called, in any case."""

EXAMPLE = "path,xmin,ymin,xmax,ymax,label"


def read_box_list(path: Path, name: str) -> BoxSet:
    """A row a box: the picture's path, four sides, a label, and maybe split, group and size of the picture.

    A row with a path and nothing else is a picture without objects. Paths count from the folder of the list.

    Raises:
        UserError: the list can't be read, or has no such columns, or no row that can be used.
    """
    rows = list(_rows(path))
    columns = _Columns(path, list(dict.fromkeys(str(k) for _, row in rows for k in row or ())))
    listing_names: dict[str, str | None] = {}
    rows_with_files = []
    for line, row in rows:
        file = columns.text(row, "path") if row is not None else ""
        if file and file not in listing_names:
            name_in_folder = locate(path.parent, file)
            listing_names[file] = name_in_folder if os.path.isfile(path.parent / name_in_folder) else None
        rows_with_files.append((line, row, file))
    listing = BoxListing(ListedSource(path.parent, sorted({n for n in listing_names.values() if n})), name)
    listing.used.add(path.name)
    missing: set[str] = set()
    for line, row, file in rows_with_files:
        where = f"{path.name}:{line}"
        if row is None or not file:
            listing.note(
                "unreadable-boxes", f"{where} is no row with a path" if row is None else f"{where} has no path"
            )
            continue
        located_name = listing_names[file]
        if located_name is None:
            if file not in missing:
                listing.note("missing-pictures", file)
                listing.files.skip(printable(file), "listed but not there")
            missing.add(file)
            continue
        _read_row(listing, columns, where, located_name, row)
    return listing.done(expected=f"expected paths that count from {path.parent}")


def _read_row(listing: BoxListing, columns: _Columns, where: str, file: str, row: Row) -> None:
    split = columns.text(row, "split").lower()
    if split and split not in SPLIT_WORDS:
        listing.note("unreadable-boxes", f"{where} has the split {split!r}, expected train, val or test")
        return
    picture = listing.picture(file, SPLIT_WORDS.get(split, ""), columns.text(row, "group"))
    if columns.size is not None:
        listing.annotated_size(picture, *(row.get(c) for c in columns.size))
    if all(str(row.get(c) or "").strip() in ("", "nan", "None") for c in columns.sides) and not any(
        row.get(c) == 0 for c in columns.sides
    ):
        return  # a picture without objects
    box, label = columns.box(row), columns.text(row, "label")
    if box is None:
        listing.note("unreadable-boxes", f"{where} has no four numbers as {', '.join(columns.sides)}")
    elif not label:
        listing.note("unreadable-boxes", f"{where} has no label")
    else:
        listing.box(picture, box, label)


class _Columns:
    """The columns of a list by what they hold: path, label, split, group, sides and size."""

    def __init__(self, path: Path, header: list[str]) -> None:
        by_lower = {k.strip().lower(): k for k in reversed(header)}
        self._named = {c: next((by_lower[w] for w in words if w in by_lower), None) for c, words in COLUMNS.items()}
        corners = next((c for c in CORNERS if by_lower.keys() >= set(c)), None)
        sides = corners or next((s for s in SIDES if by_lower.keys() >= set(s)), None)
        if sides is None or self._named["path"] is None or self._named["label"] is None:
            columns = ", ".join(" ".join(k.split())[:40] for k in header[:12]) or "(none)"
            raise UserError(
                f"{path} has the columns {columns}, expected {EXAMPLE} "
                "(or x,y,width,height), and if you like split and group; name the columns so"
            )
        self.sides = tuple(by_lower[s] for s in sides)
        self._is_corners = corners is not None
        size = next((s for s in SIZES if by_lower.keys() >= set(s) and not set(s) & set(sides)), None)
        self.size = None if size is None else tuple(by_lower[s] for s in size)

    def text(self, row: Row, what: str) -> str:
        """A cell as text."""
        column = self._named[what]
        value = row.get(column) if column else None
        return "" if value is None or isinstance(value, list | dict) else printable(str(value).strip())

    def box(self, row: Row) -> Box | None:
        """The four sides as left, top, right and bottom."""
        a, b, c, d = (number(row.get(s)) for s in self.sides)
        if a is None or b is None or c is None or d is None:
            return None
        return (a, b, c, d) if self._is_corners else (a, b, a + c, b + d)


def _rows(path: Path) -> Iterator[tuple[int, Row | None]]:
    """``(line number, row)``, None for a row of another length, or a line that is no object."""
    text = read_text(path)
    rows = (
        jsonl_rows(text)
        if path.suffix.lower() == ".jsonl"
        else csv_rows(text, str(path), lambda c: _Columns(path, c), tabs=path.suffix.lower() == ".tsv")
    )
    for line, row in rows:
        yield line, None if isinstance(row, str) else row
