"""The part of the data to evaluate on."""

from __future__ import annotations

import pytest

from dolmen.data.sources.layout import choose_split
from dolmen.types import UserError

ORDER = ("test", "val", "", "train")


@pytest.mark.parametrize(
    ("split", "available", "chosen"),
    [
        (None, ["train", "val", "test"], "test"),
        (None, ["train", "val"], "val"),
        (None, ["", "train"], ""),
        (None, ["train"], "train"),
        (None, [], None),
        ("train", ["train", "val", "test"], "train"),
    ],
)
def test_the_part_to_evaluate_on(split: str | None, available: list[str], chosen: str | None) -> None:
    assert choose_split("data", split, available, ORDER) == chosen


@pytest.mark.parametrize(
    ("available", "has"),
    [(["train", "val"], "train, val"), ([""], "no splits: leave --split out"), ([], "no splits: leave --split out")],
)
def test_a_part_that_is_not_there(available: list[str], has: str) -> None:
    with pytest.raises(UserError) as caught:
        choose_split("data", "test", available, ORDER)
    assert str(caught.value) == f"data has no test part; it has {has}"
