from __future__ import annotations

import pytest

from dolmen.data.checks.findings import MAX_ITEMS, inflect, most_serious_first, notes, some
from dolmen.types import Finding


@pytest.mark.parametrize(
    ("num", "text"),
    [(1, "picture is torn, mend it"), (2, "pictures are torn, mend them"), (0, "pictures are torn, mend them")],
)
def test_words_go_with_the_number(num: int, text: str) -> None:
    assert inflect(num, "[picture is|pictures are] torn, mend [it|them]") == text


def test_a_finding_names_its_first_items_and_counts_all() -> None:
    names = (f"{i}.png" for i in range(3000))
    (finding,) = some(
        "torn", "warning", "{num} [picture is|pictures are] torn (first: {first}, {why})", 3000, names, why="x"
    )
    assert finding.message == "3,000 pictures are torn (first: 0.png, x)."
    assert (finding.code, finding.level, finding.count) == ("torn", "warning", 3000)
    assert finding.items == tuple(f"{i}.png" for i in range(MAX_ITEMS))
    assert next(names) == f"{MAX_ITEMS}.png"  # the others were never looked at


def test_names_are_not_taken_for_part_of_the_sentence() -> None:
    (finding,) = some("torn", "info", "[one|many]: {first} and {other}", 1, ["{num}[a|b].png"], other="[x|y]{z}")
    assert finding.message == "one: {num}[a|b].png and [x|y]{z}."


def test_nothing_is_no_finding() -> None:
    assert list(some("torn", "warning", "{num}, {first}", 0)) == []


def test_a_first_that_is_given_stands_in_place_of_the_first_item() -> None:
    (finding,) = some("torn", "warning", "{first}", 1, ["a: torn"], first="a")
    assert finding.message == "a."


def test_notes_become_sentences() -> None:
    assert [f.message for f in notes("note", ("one thing", "Another"))] == ["One thing.", "Another."]


def test_the_most_serious_comes_first_and_equals_keep_their_order() -> None:
    levels = ["info", "warning", "leak", "warning", "error"]
    mixed = [Finding(code=str(i), level=level, message="") for i, level in enumerate(levels)]  # type: ignore[arg-type]
    assert [f.code for f in most_serious_first(mixed)] == ["4", "2", "1", "3", "0"]
