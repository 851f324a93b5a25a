"""Rows of lists: what is a row, what is none, and where it stands."""

from __future__ import annotations

from typing import Any

import pytest

from dolmen.data.sources.list_rows import csv_rows, jsonl_rows
from dolmen.types import UserError

GOOD = [
    ("a,b\n1,2\n\n3,4\n", {}, [(2, {"a": "1", "b": "2"}), (4, {"a": "3", "b": "4"})]),
    ("a;b\n1;2\n", {}, [(2, {"a": "1", "b": "2"})]),
    ("a;b,c\n1,2\n", {}, [(2, {"a;b": "1", "c": "2"})]),
    ("a\tb\n1,\t2\n", {"tabs": True}, [(2, {"a": "1,", "b": "2"})]),
    ('a,b\n"1,\n1",2\n', {}, [(3, {"a": "1,\n1", "b": "2"})]),
    ('a\tb\n"1\t2\n', {"tabs": True, "quoting": False}, [(2, {"a": '"1', "b": "2"})]),
    ("a,b\n1\n1,2,3\n", {}, [(2, "has 1 cell, expected 2 as in the header"),
                             (3, "has 3 cells, expected 2 as in the header")]),
    ("\na,b\n", {}, []),
    ("", {}, []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "how", "wanted"), GOOD)
def test_csv(text: str, how: dict[str, Any], wanted: list[Any]) -> None:
    seen: list[list[str]] = []
    assert list(csv_rows(text, "l.csv", seen.append, **{"tabs": False, **how})) == wanted
    assert len(seen) == 1


def test_a_header_is_refused_before_the_first_row() -> None:
    def refuse(header: list[str]) -> None:
        raise UserError(f"not {header}")

    with pytest.raises(UserError, match=r"not \['a', 'b'\]"):
        next(csv_rows('a,b\n"1"2,3\n', "l.csv", refuse, tabs=False, strict=True))


def test_what_is_no_csv_is_told_with_its_line() -> None:
    with pytest.raises(UserError, match=r"^l\.csv line 3 can't be read as CSV \(.*\); mend the line$"):
        list(csv_rows('a,b\n1,2\n"1"2,3\n', "l.csv", list, tabs=False, strict=True))


def test_jsonl() -> None:
    deep = "[" * 100_000
    rows = list(jsonl_rows(f'{{"a": 1}}\n\n[1]\n{{\n{deep}\n{{"b": "\u2028"}}'))
    none = "is no JSON object"
    assert rows == [(1, {"a": 1}), (3, none), (4, none), (5, none), (6, {"b": "\u2028"})]
