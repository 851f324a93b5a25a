"""Every task words its findings by these; here with a noun of no task at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dolmen.data.checks.copies import exact, groups, groups_across, near, overlap
from dolmen.data.checks.examples import CheckedExamples, Noun
from dolmen.types import Skipped

TUNE = Noun("tune", "tunes", "note")


def examples(digests: list[int], splits: list[str], **changes: Any) -> CheckedExamples:
    num = len(digests)
    values: dict[str, Any] = {
        "noun": TUNE, "names": [f"{chr(97 + i)}.mid" for i in range(num)], "splits": np.array(splits, "U5"),
        "used": np.arange(num), "digests": np.array(digests, np.uint8)[:, None], "groups": [""] * num, "problems": {},
        "left_out": {}, "skipped": (Skipped(name="x", reason="y"),),
    }  # fmt: skip
    return CheckedExamples(**(values | changes))


def test_findings_of_exact_copies() -> None:
    data = examples([1, 2, 1, 2, 2, 3], ["train", "train", "test", "val", "train", ""], left_out={5: "also in test"})
    assert [(f.code, f.level, f.count, f.message, f.items) for f in exact(data)] == [
        ("copies-left-out", "warning", 1, "1 tune is in two splits to the last note and so few that the copy is left "
         "out (first: f.mid, also in test).", ("f.mid: also in test",)),
        ("exact-duplicates-across-splits", "leak", 1, "1 tune of test is also in train, to the last note: delete it "
         "from one of the two (first: c.mid = a.mid).", ("c.mid = a.mid",)),
        ("exact-duplicates-across-splits", "leak", 1, "1 tune of val is also in train, to the last note: delete it "
         "from one of the two (first: d.mid = b.mid).", ("d.mid = b.mid",)),
        ("exact-duplicates", "warning", 1, "1 tune is an exact copy of another in the same split and counts twice: "
         "delete the copy (first: b.mid = e.mid).", ("b.mid = e.mid",)),
    ]  # fmt: skip


def test_findings_of_near_copies() -> None:
    data = examples([1, 2, 3, 4], ["train", "test", "test", "train"])
    findings = list(near(data, np.array([[0, 1], [0, 2], [0, 3], [1, 3]])))
    assert [(f.code, f.count, f.items) for f in findings] == [
        ("near-duplicates-across-splits", 2, ("b.mid = d.mid", "c.mid = a.mid")),
        ("near-duplicates", 1, ("a.mid = d.mid",)),
    ]
    assert findings[0].message == (
        "2 tunes of test look almost the same as one of train: look at them, and give what belongs together one group "
        "(first: b.mid = d.mid)."
    )
    assert findings[1].message == (
        "1 tune looks almost the same as another of the same split: look whether it is worth keeping (first: a.mid = "
        "d.mid)."
    )
    assert list(near(data, np.empty((0, 2), np.int64))) == []


def test_groups_that_several_splits_hold() -> None:
    data = examples([1, 2, 3, 4, 5], ["test", "train", "val", "train", "test"], groups=["q", "q", "p", "p", ""])
    assert groups_across(data) == {"p": ["train", "val"], "q": ["train", "test"]}
    (finding,) = groups(data)
    assert finding.items == ("p in train and val", "q in train and test")
    assert finding.message == (
        "2 groups are in more than one split: keep each in one, or name no splits and let Dolmen choose them (first: "
        "p in train and val)."
    )
    assert list(groups(examples([1, 2], ["train", "test"], groups=["q", "p"]))) == []
    unused = examples([1, 2], ["train", "test"], groups=["q", "q"], used=np.array([0]))
    assert list(groups(unused)) == []


@pytest.mark.parametrize(("num", "level"), [(0, None), (1, None), (2, "warning"), (19, "warning"), (20, "leak")])
def test_overlap_is_told_by_its_share(num: int, level: str | None) -> None:
    findings = list(overlap("c", "{num} of {total} ({share:.1%})", num, 200, ["a"], at_least=0.01))
    assert [f.level for f in findings] == ([] if level is None else [level])
    assert [f.message for f in findings] == ([] if level is None else [f"{num} of 200 ({num / 200:.1%})."])


def test_nothing_overlaps_with_nothing() -> None:
    assert list(overlap("c", "{num}", 0, 0, at_least=0.01)) == []
