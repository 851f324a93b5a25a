"""Splits of recordings: what the data say stays, speakers and copies are not torn apart, the order is no matter."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks.speech_recognition.data.recorded import a_set

from dolmen.tasks.speech_recognition.data.decoded import DecodedRecordings, decode_recordings
from dolmen.tasks.speech_recognition.data.read import Recordings, read_recordings
from dolmen.tasks.speech_recognition.data.splits import assign_recording_splits
from dolmen.types import UserError


def split(dataset: tuple[Recordings, DecodedRecordings], **arguments: Any) -> list[str]:
    return [item.split for item in assign_recording_splits(*dataset, **arguments).items]


def together(values: list[str], splits: list[str]) -> bool:
    """Whether each value is in one split only."""
    return len(set(zip(values, splits, strict=True))) == len(set(values))


MANY = [f"s{i % 20}" for i in range(400)]
FEW = [f"s{i % 6}" for i in range(400)]
ONE_MOSTLY = ["s0" if i % 2 else f"s{i}" for i in range(400)]
UNKNOWN = [f"s{i % 20}" if i % 3 == 0 else "" for i in range(400)]
WORDS = [f"w{i // 40}" for i in range(400)]


@pytest.mark.parametrize(
    ("speakers", "how", "apart"),
    [(MANY, None, True), (MANY, "shared", False), (FEW, None, False), (FEW, "apart", True), (ONE_MOSTLY, None, False),
     (UNKNOWN, None, False)],
)  # fmt: skip
def test_speakers_stay_together_where_they_are_enough(speakers: list[str], how: Any, apart: bool) -> None:
    dataset = a_set(WORDS, speakers=speakers)
    splits = split(dataset, speakers=how)
    assert together(speakers, splits) == apart
    counts = Counter(splits)
    assert 60 <= counts["test"] <= 100
    assert 16 <= counts["val"] <= 70


def test_texts_are_in_proportion() -> None:
    dataset = a_set(WORDS, speakers=FEW)
    table = Counter(zip(WORDS, split(dataset), strict=True))
    assert {table[w, "test"] for w in WORDS} == {8}
    assert {table[w, "val"] for w in WORDS} <= {3, 4}


def test_texts_that_differ_are_no_classes() -> None:
    counts = Counter(split(a_set([f"text {i}" for i in range(400)])))
    assert counts == {"test": 80, "val": 32, "train": 288}


def test_named_splits_stay() -> None:
    named = ["train"] * 60 + ["test"] * 20 + ["val"] * 20
    dataset = a_set(WORDS[:100], splits=named)
    assert split(dataset) == named
    assert assign_recording_splits(*dataset).drawn == ()


def test_what_names_no_split_is_for_training_and_val_is_drawn_from_it() -> None:
    named = ["test" if i % 10 < 1 else "" for i in range(400)]
    assigned = assign_recording_splits(*a_set(WORDS, splits=named, speakers=FEW))
    assert [n for n, item in zip(named, assigned.items, strict=True) if item.split == "test"] == ["test"] * 40
    assert Counter(item.split for item in assigned.items) == {"test": 40, "val": 36, "train": 324}
    assert assigned.drawn == ("val",)


def test_copies_stay_together_and_join_a_named_split() -> None:
    contents = [i // 2 for i in range(400)]
    splits = split(a_set(WORDS, contents=contents))
    assert together([str(c) for c in contents], splits)
    named = ["test" if i in (0, 2) else "" for i in range(400)]
    splits = split(a_set(WORDS, contents=contents, splits=named))
    assert [i for i, s in enumerate(splits) if s == "test"] == [0, 1, 2, 3]


def test_few_copies_in_named_splits_are_left_out_of_the_earlier_one() -> None:
    named = ["train"] * 200 + ["val"] * 100 + ["test"] * 100
    contents = list(range(400))
    contents[300] = 5
    assigned = assign_recording_splits(*a_set(WORDS, splits=named, contents=contents))
    assert assigned.left_out == {5: "also in test, left out of train"}
    assert assigned.items[5].split == ""
    contents[301:320] = range(19)
    assert assign_recording_splits(*a_set(WORDS, splits=named, contents=contents)).left_out == {}


def test_what_can_not_be_used_has_no_split() -> None:
    splits = split(a_set(WORDS, problems=[3, 4]))
    assert [i for i, s in enumerate(splits) if not s] == [3, 4]
    assert split(a_set(WORDS[:4], splits=["train", "test", "test", "test"], problems=[1]))[1] == ""


def test_the_order_is_no_matter_and_the_seed_is() -> None:
    order = np.random.default_rng(0).permutation(400)
    plain = split(a_set(WORDS, speakers=MANY))
    shuffled = a_set([WORDS[i] for i in order], speakers=[MANY[i] for i in order], contents=order.tolist())
    assert split(shuffled) == [plain[i] for i in order]
    assert split(a_set(WORDS, speakers=MANY), seed=1) != plain


def test_fractions() -> None:
    dataset = a_set(WORDS)
    assert Counter(split(dataset, test_fraction=0.5, val_fraction=0.5)) == {"test": 200, "val": 100, "train": 100}
    assert set(split(dataset, test_fraction=0, val_fraction=0)) == {"train"}
    with pytest.raises(UserError, match=r"val_fraction is 1, expected a share from 0 to below 1"):
        split(dataset, val_fraction=1)


@pytest.mark.parametrize(("num", "message"), [(1, "s names 1 speaker"), (2, "s names 2 speakers")])
def test_too_few_speakers_to_keep_apart(num: int, message: str) -> None:
    dataset = a_set(WORDS, speakers=[f"s{i % num}" for i in range(400)])
    with pytest.raises(
        UserError, match=rf"^{message} to draw from, and to keep them apart it takes 3 or more; type --sp"
    ):
        split(dataset, speakers="apart")


@pytest.mark.shared_data
def test_real_speakers_are_apart(shared_data: Path) -> None:
    recordings = read_recordings(str(shared_data / "speech/speech-commands-subset"))
    decoded = decode_recordings(recordings, None)
    assigned = assign_recording_splits(recordings, decoded)
    assert together([r.speaker for r in recordings.items], [r.split for r in assigned.items])
    assert Counter(r.split for r in assigned.items) == {"train": 288, "val": 32, "test": 80}
