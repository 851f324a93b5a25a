from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.checks.test_copies import TUNE, examples

from dolmen.data.checks import amounts
from dolmen.types import Skipped


def test_unreadable_examples_are_named_with_their_reason() -> None:
    data = examples([1, 2, 3], ["train"] * 3, problems={2: "torn", 1: "empty"})
    (finding,) = amounts.unreadable(data)
    assert (finding.code, finding.level, finding.count) == ("unreadable-tunes", "warning", 2)
    assert finding.message == ("2 tunes are unreadable and left out: repair or delete them (first: b.mid, empty).")
    assert finding.items == ("b.mid: empty", "c.mid: torn")
    (one,) = amounts.unreadable(data, [2])
    assert one.message == "1 tune is unreadable and left out: repair or delete it (first: c.mid, torn)."
    assert list(amounts.unreadable(examples([1], ["train"]))) == []


def test_skipped_files() -> None:
    (finding,) = amounts.skipped([Skipped(name="a", reason="b")], "{num} [file is|files are] left out")
    assert (finding.message, finding.items, finding.level) == ("1 file is left out.", ("a: b",), "info")


@pytest.mark.parametrize(
    ("used", "splits", "code", "message"),
    [
        ([], ["train"] * 3, "no-tunes", "No tune can be used: bring tunes."),
        ([0, 1, 2], ["val"] * 3, "no-training-tunes", "None of the 3 tunes is for training: move some into train."),
    ],
)
def test_none_usable(used: Any, splits: Any, code: str, message: str) -> None:
    (finding,) = amounts.none_usable(examples([1, 2, 3], splits, used=np.array(used, np.int64)), "tunes")
    assert (finding.code, finding.level, finding.message) == (code, "error", message)


def test_enough_is_no_finding() -> None:
    assert list(amounts.none_usable(examples([1], ["train"]), "tunes")) == []
    assert list(amounts.too_few("set", TUNE, 5, 5)) == []
    assert list(amounts.few_examples({"a": 10, "b": 0}, "tunes")) == []
    assert list(amounts.imbalance({"a": 100, "b": 10, "c": 0}, "tunes", "info", "accuracy")) == []
    assert list(amounts.imbalance({}, "tunes", "info", "accuracy")) == []
    assert list(amounts.class_missing([], "no tune")) == []


def test_too_few() -> None:
    (finding,) = amounts.too_few("set", TUNE, 1, 5)
    assert finding.message == (
        "set has 1 tune to train on, which is too few to learn from; bring 5 or more (some hundreds are a start)."
    )


def test_few_examples_and_imbalance() -> None:
    (few,) = amounts.few_examples({"a": 101, "b": 9, "c": 2, "d": 0}, "tunes")
    assert few.message == "2 classes have fewer than 10 training tunes (c 2, b 9): bring more, or join classes."
    assert few.items == ("c: 2", "b: 9")
    (finding,) = amounts.imbalance({"a": 101, "b": 9, "c": 2, "d": 0}, "tunes", "info", "accuracy")
    assert finding.message == (
        "a has 101 training tunes and c 2 (50 times fewer): judge by the figures of each class, not by accuracy alone."
    )
    assert (finding.level, finding.count, finding.items) == ("info", 3, ("a: 101", "c: 2"))


def test_classes_that_are_missing() -> None:
    (finding,) = amounts.class_missing(["a", "b"], "no tune in val: move some there so that [it|they] can be heard")
    assert finding.message == "Classes a, b have no tune in val: move some there so that they can be heard."
    assert (finding.code, finding.level, finding.items) == ("class-missing-from-split", "warning", ("a", "b"))
