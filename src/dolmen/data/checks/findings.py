"""Findings of checks: a sentence that goes with a number, the first examples, and the most serious first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal

from dolmen.types import Finding

Level = Literal["error", "leak", "warning", "info"]

LEVELS: tuple[Level, ...] = ("error", "leak", "warning", "info")
"""The most serious first."""
MAX_ITEMS = 20
"""Examples that a finding names."""
_ONE_OR_MANY = re.compile(r"\[([^\[\]|]*)\|([^\[\]|]*)\]")


def inflect(num: int, sentence: str) -> str:
    """Choose the words that go with a number: of each ``[is|are]`` the first for 1, the second for any other.

    >>> inflect(2, "[picture is|pictures are] unreadable: repair [it|them]")
    'pictures are unreadable: repair them'
    """
    return _ONE_OR_MANY.sub(lambda words: words[1 if num == 1 else 2], sentence)


def some(
    code: str, level: Level, sentence: str, count: int, items: Iterable[str] = (), **values: Any
) -> Iterator[Finding]:
    """Yield a finding about so many examples, or none where there are none.

    Args:
        code: stable, for programs.
        level: how serious it is.
        sentence: with ``[one|many]`` for words that go with the count, and in braces ``{num}`` for the count,
            ``{first}`` for the first item, and the names of ``values``; without its full stop.
        count: how many.
        items: the first ``MAX_ITEMS`` of them are kept.
        values: what else the sentence names; a ``first`` here is put in place of the first item.
    """
    if not count:
        return
    items = tuple(islice(items, MAX_ITEMS))
    named = {"num": f"{count:,}", "first": items[0] if items else "", **values}
    yield Finding(
        code=code, level=level, message=f"{inflect(count, sentence).format(**named)}.", count=count, items=items
    )


def notes(code: str, sentences: Iterable[str]) -> Iterator[Finding]:
    """Yield the notes of a reader, each as a finding: a capital letter before, a full stop behind."""
    for note in sentences:
        yield Finding(code=code, level="info", message=f"{note[0].upper()}{note[1:]}.")


def most_serious_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort by level; findings of one level keep their order."""
    return tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level)))
