"""What is said in recordings: too much or too little for their length, or what training never shows."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dolmen.data.wording import MAX_ITEMS, choose, listed
from dolmen.tasks.speech_recognition.data.checks.view import CheckedRecordings, recordings_are, recordings_have
from dolmen.tasks.speech_recognition.data.dataset import known_part
from dolmen.types import Finding

TIMES = 5.0
"""Seconds a character, of the median, from which on a text and its recording hardly belong together."""
SLACK_S = 1.0
"""Silence around what is said, that short recordings may have beyond that."""
RARE = 5
"""A character that training shows less often is hardly learned."""


def empty(data: CheckedRecordings) -> Iterator[Finding]:
    """Find texts of which the rules leave nothing."""
    rows = [i for i, text in enumerate(data.texts) if not text and i not in data.decoded.problems]
    if num := len(rows):
        first = data.recordings.items[rows[0]]
        yield Finding(
            code="empty-texts",
            level="warning",
            message=f"{recordings_are(num)} left out because nothing is left of the text (first: {first.name}, "
            f"{first.text[:40]!r}): write what is said, or delete {choose(num, 'it', 'them')}.",
            count=num,
            items=data.named(rows),
        )


def speed(data: CheckedRecordings) -> Iterator[Finding]:
    """Find recordings that are much longer or shorter than others with as much text."""
    if not len(data.used):
        return
    characters = np.array([len(data.texts[i]) for i in data.used])
    seconds = data.durations_s[data.used]
    usual = float(np.median(seconds / characters)) * characters
    for code, odd, what in (
        ("short-for-text", seconds * TIMES < usual, "short"),
        ("long-for-text", seconds > TIMES * usual + SLACK_S, "long"),
    ):
        rows = data.used[odd]
        if num := len(rows):
            yield Finding(
                code=code,
                level="warning",
                message=f"{recordings_are(num)} very {what} for the text: listen whether it is the right one (first: "
                f"{data.name(rows[0])}, {data.durations_s[rows[0]]:.1f} s for {data.texts[rows[0]][:40]!r}).",
                count=num,
                items=data.named(rows),
            )


def steps(data: CheckedRecordings) -> Iterator[Finding]:
    """Find recordings with more units in their text than the network takes steps."""
    units = [data.processor.encode_text(known_part(data.texts[i], data.processor)) for i in data.used]
    impossible = too_short(data.decoded.lengths[data.used], units, data.processor.num_steps)
    rows = data.used[impossible]
    if num := len(rows):
        yield Finding(
            code="too-short-for-text",
            level="error" if set(data.of("train")) <= set(rows.tolist()) else "warning",
            message=f"{recordings_have(num)} more {data.processor.kind} than steps and can't be learned (first: "
            f"{data.name(rows[0])}, {data.durations_s[rows[0]]:.2f} s): train with a smaller --stride, or look whether "
            "the text is right.",
            count=num,
            items=data.named(rows),
        )


def too_short(
    num_samples: NDArray[np.int64],
    units: Sequence[Sequence[int]],
    num_steps: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> NDArray[np.bool_]:
    """(N,) whether a recording has fewer steps than CTC needs: one a unit, and one between two that are equal.

    Args:
        num_samples: (N,) of the recordings.
        units: N texts.
        num_steps: of recordings of so many samples.
    """
    needed = [len(u) + sum(a == b for a, b in itertools.pairwise(u)) for u in units]
    return num_steps(num_samples) < np.array(needed, np.int64)


def unseen(data: CheckedRecordings) -> Iterator[Finding]:
    """Find characters, or words where words are learned, that training never shows, or hardly."""
    of_words = data.processor.kind == "words"

    def parts(index: int) -> list[str]:
        text = data.texts[index]
        return text.split() if of_words else list(text.replace(" ", ""))

    shown = Counter(part for i in data.of("train") for part in parts(i))
    what = "words" if of_words else "characters"
    for split in ("val", "test"):
        wrong = Counter(part for i in data.of(split) for part in parts(i) if part not in shown)
        if wrong:
            num = sum(any(part in wrong for part in parts(i)) for i in data.of(split))
            yield Finding(
                code=f"{what}-never-trained",
                level="warning",
                message=f"{num:,} {choose(num, 'recording', 'recordings')} of {split} {choose(num, 'has', 'have')} "
                f"{what} that train never shows ({listed(sorted(wrong))}), and no model can write them: move some into "
                "train.",
                count=num,
                items=tuple(f"{part}: {n}" for part, n in wrong.most_common(MAX_ITEMS)),
            )
    rare = {part: n for part, n in shown.items() if n < RARE}
    if rare:
        yield Finding(
            code=f"rare-{what}",
            level="info",
            message=f"{len(rare):,} of the {len(shown):,} {what} of train {choose(len(rare), 'is', 'are')} there fewer "
            f"than {RARE} times ({listed(sorted(rare))}): hardly learned, or a slip of the pen.",
            count=len(rare),
            items=tuple(f"{part}: {n}" for part, n in sorted(rare.items())[:MAX_ITEMS]),
        )


def sameness(data: CheckedRecordings) -> Iterator[Finding]:
    """Find that nothing can be told apart, because all say the same."""
    train = {data.texts[i] for i in data.of("train")}
    if len(train) == 1:
        yield Finding(
            code="one-text",
            level="warning",
            message=f"All recordings of train say the same ({next(iter(train))[:40]!r}), so a network learns to hear "
            "it in everything: bring recordings of other words, or such without it as --negatives.",
        )


SUBJECTS = (empty, speed, steps, unseen, sameness)
