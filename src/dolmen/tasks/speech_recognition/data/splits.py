"""Splits of recordings: whole speakers where there are enough of them, else texts in proportion.

Splits that the data name stay, and the others are drawn by content as in ``dolmen.data.splits``: renaming files, or
listing them in another order, changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dolmen.data.sources.layout import Split
from dolmen.data.splits import (
    carve,
    check_fractions,
    default_test_fraction,
    default_val_fraction,
    drawn_units,
    join_named_split,
    without_few_copies,
)
from dolmen.tasks.speech_recognition.data.decoded import DecodedRecordings
from dolmen.tasks.speech_recognition.data.set import Recordings
from dolmen.types import UserError

MIN_SPEAKERS = 10
"""With fewer, whole speakers are too coarse a part: one that is hard to understand would decide every figure."""
MAX_SPEAKER_SHARE = 0.25
"""A speaker with more than this share of the recordings could be in training only."""
MIN_TEXT_COUNT = 10
"""A text that comes so often is in each split in proportion."""
Speakers = Literal["apart", "shared"] | None


def assign_recording_splits(
    recordings: Recordings,
    decoded: DecodedRecordings,
    *,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    speakers: Speakers = None,
) -> Recordings:
    """Return the recordings with every split filled: "train", "val" or "test", and "" for what can't be used.

    - A split that the data name is kept. Recordings without one, in data that name some, are for training, unless an
      exact copy is in "test" or "val": then they join it.
    - "val" is carved out of the training recordings where the data have none; "test" is carved out only where the data
      name no split at all.
    - What is carved out holds whole speakers, or, where there are too few of them, each text in proportion. Exact
      copies stay together.
    - Few exact copies across splits are left out of the earlier one, see ``leave_out_few_copies``.

    Args:
        recordings: with splits as the data say.
        decoded: the same.
        val_fraction: share of the training recordings; None for ``default_val_fraction``, 0 for no validation.
        test_fraction: share of all usable recordings; None for ``default_test_fraction``, 0 for no test.
        seed: another seed gives another split.
        speakers: whether a speaker stays in one split of those that are drawn; None: where ``MIN_SPEAKERS`` are
            named, and none has more than ``MAX_SPEAKER_SHARE`` of the recordings.

    Raises:
        UserError: a fraction is not in [0, 1), or speakers are to be apart and there are too few of them.
    """
    check_fractions(val_fraction, test_fraction)
    usable = np.ones(len(recordings), np.bool_)
    usable[list(decoded.problems)] = False
    given = np.array([item.split for item in recordings.items], dtype="U5")
    named = set(given.tolist()) - {""}
    draw = _Draw(recordings, decoded, usable, np.where(usable, given, ""), seed, speakers)
    for unit in drawn_units(decoded.digests, draw.no_group, usable, seed):
        join_named_split(unit, draw.splits)
    draw.splits[usable & (draw.splits == "")] = "train"
    if not named:
        draw.carve("test", test_fraction, default_test_fraction, leave=2)
    if "val" not in named:
        draw.carve("val", val_fraction, default_val_fraction, leave=1)
    filled, left_out = without_few_copies(draw.splits.tolist(), decoded.digests)
    items = tuple(replace(item, split=split) for item, split in zip(recordings.items, filled, strict=True))
    drawn: tuple[Split, ...] = tuple(s for s in ("val", "test") if s in filled and s not in named)
    return recordings.replace(
        items=items, left_out=recordings.left_out | left_out, drawn=drawn, agreed=speakers == "shared"
    )


class _Draw:
    """Splits that are being drawn."""

    def __init__(
        self, recordings: Recordings, decoded: DecodedRecordings, usable: NDArray[np.bool_], splits: NDArray[np.str_],
        seed: int, speakers: Speakers,
    ) -> None:  # fmt: skip
        self.decoded, self.usable, self.splits, self.seed, self.policy = decoded, usable, splits, seed, speakers
        self.name = recordings.name
        self.speakers = np.array([item.speaker for item in recordings.items], dtype=np.str_)
        self.no_group = np.full(len(recordings), "", dtype=np.str_)
        self.texts = _text_numbers([item.text.lower() for item in recordings.items])

    def carve(self, split: Split, fraction: float | None, default: Callable[[int], float], *, leave: int) -> None:
        """Move some of "train" to a split; training keeps at least ``leave`` speakers, or recordings of each text."""
        in_train = self.splits == "train"
        num = int(in_train.sum())
        share = default(num) if fraction is None else fraction
        if not num or not share:
            return
        apart = self._apart(in_train, leave)
        groups, labels = (self.speakers, np.zeros_like(self.texts)) if apart else (self.no_group, self.texts)
        units = drawn_units(self.decoded.digests, groups, self.usable, self.seed)
        carve(split, self.splits, units, labels, share, default, leave=leave)

    def _apart(self, in_train: NDArray[np.bool_], leave: int) -> bool:
        """Whether whole speakers are drawn."""
        counts = Counter(s for s in self.speakers[in_train].tolist() if s)
        if self.policy == "apart" and len(counts) <= leave:
            known = f"{len(counts)} speaker" + ("" if len(counts) == 1 else "s")
            raise UserError(
                f"{self.name} names {known} to draw from, and to keep them apart it takes {leave + 1} or more; "
                "type --speakers shared, or name the splits"
            )
        if self.policy is not None:
            return self.policy == "apart"
        num = int(in_train.sum())
        is_known = counts.total() > num / 2
        return is_known and len(counts) >= MIN_SPEAKERS and max(counts.values()) <= MAX_SPEAKER_SHARE * num


def _text_numbers(texts: list[str]) -> NDArray[np.int64]:
    """(N,) equal for equal texts that come often, 0 for all others."""
    often = sorted(text for text, n in Counter(texts).items() if n >= MIN_TEXT_COUNT)
    numbers = {text: i for i, text in enumerate(often, start=1)}
    return np.array([numbers.get(text, 0) for text in texts], np.int64)
