"""Rows of lists: .csv, .tsv and .jsonl. What a row means is for who reads it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

from dolmen.types import UserError

LIST_SUFFIXES = {".csv", ".tsv", ".jsonl"}

Row = dict[str, Any]


def csv_rows(
    text: str,
    where: str,
    check_header: Callable[[list[str]], object],
    *,
    tabs: bool,
    strict: bool = False,
    quoting: bool = True,
) -> Iterator[tuple[int, Row | str]]:
    """Read rows below a header; some offices write semicolons for commas.

    Args:
        text: of the list.
        where: what it is called, for messages.
        check_header: refuses another table before the first row is read.
        tabs: whether cells are parted by tabs.
        strict: whether a quote in the wrong place is an error.
        quoting: whether quotes mean anything.

    Yields:
        The line and its row; in place of a row that has another length than the header, what is wrong with it.

    Raises:
        UserError: a line can't be read.
    """
    header = text.partition("\n")[0]
    comma = "\t" if tabs else ";" if ";" in header and "," not in header else ","
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=comma,
        strict=strict,
        quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
    )
    try:
        columns = next((row for row in reader if row), [])
        check_header(columns)
        for row in reader:
            if len(row) == len(columns):
                yield reader.line_num, dict(zip(columns, row, strict=True))
            elif row:
                cells = "1 cell" if len(row) == 1 else f"{len(row)} cells"
                yield reader.line_num, f"has {cells}, expected {len(columns)} as in the header"
    except csv.Error as error:
        raise UserError(f"{where} line {reader.line_num} can't be read as CSV ({error}); mend the line") from None


def jsonl_rows(text: str) -> Iterator[tuple[int, Row | str]]:
    """Read an object a line.

    Yields:
        The line's number and its object; in place of what is none, what is wrong with it.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield number, row if isinstance(row, dict) else "is no JSON object"
