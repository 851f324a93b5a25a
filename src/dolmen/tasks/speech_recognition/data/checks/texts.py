"""The texts of recordings: too long or short for the sound, or with parts that training never shows."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dolmen.data.checks.findings import some
from dolmen.tasks.speech_recognition.data.checks.view import CheckedRecordings
from dolmen.tasks.speech_recognition.data.dataset import spellable_part
from dolmen.types import Finding
from dolmen.wording import listed

MAX_PACE_FACTOR = 5.0
"""Seconds a character, as a multiple of the median, above which text and recording hardly belong together."""
SLACK_S = 1.0
"""Silence around speech that short recordings may have beyond that."""
MIN_COUNT = 5
"""A character or word that training shows less often is hardly learned."""


def empty(data: CheckedRecordings) -> Iterator[Finding]:
    """Find texts of which the rules leave nothing."""
    rows = [i for i, text in enumerate(data.texts) if not text and i not in data.decoded.problems]
    text = data.recordings.items[rows[0]].text if rows else ""
    yield from data.some(
        "empty-texts",
        "warning",
        "{num} [recording is|recordings are] left out because nothing is left of the text (first: {first}, {text!r}):"
        " write what is said, or delete [it|them]",
        rows,
        text=text[:40],
    )


def speed(data: CheckedRecordings) -> Iterator[Finding]:
    """Find recordings that are much longer or shorter than others with as much text."""
    if not len(data.used):
        return
    characters = np.array([len(data.texts[i]) for i in data.used])
    seconds = data.durations_s[data.used]
    usual = float(np.median(seconds / characters)) * characters
    for code, is_odd, what in (
        ("short-for-text", seconds * MAX_PACE_FACTOR < usual, "short"),
        ("long-for-text", seconds > MAX_PACE_FACTOR * usual + SLACK_S, "long"),
    ):
        rows = data.used[is_odd]
        first = rows[0] if len(rows) else 0
        yield from data.some(
            code,
            "warning",
            f"{{num}} [recording is|recordings are] very {what} for the text: listen whether it is the right one"
            " (first: {first}, {seconds:.1f} s for {text!r})",
            rows,
            seconds=data.durations_s[first],
            text=data.texts[first][:40],
        )


def steps(data: CheckedRecordings) -> Iterator[Finding]:
    """Find recordings with more units in their text than the network takes steps."""
    units = [data.processor.encode_text(spellable_part(data.texts[i], data.processor)) for i in data.used]
    impossible = too_short(data.decoded.lengths[data.used], units, data.processor.num_steps)
    rows = data.used[impossible]
    yield from data.some(
        "too-short-for-text",
        "error" if set(data.rows_of("train")) <= set(rows.tolist()) else "warning",
        f"{{num}} [recording has|recordings have] more {data.processor.kind} than steps and can't be learned (first: "
        "{first}, {seconds:.2f} s): train with a smaller --stride, or look whether the text is right",
        rows,
        seconds=data.durations_s[rows[0]] if len(rows) else 0,
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

    trained = Counter(part for i in data.rows_of("train") for part in parts(i))
    nouns = "words" if of_words else "characters"
    for split in ("val", "test"):
        untrained = Counter(part for i in data.rows_of(split) for part in parts(i) if part not in trained)
        yield from some(
            f"{nouns}-never-trained",
            "warning",
            f"{{num}} [recording|recordings] of {split} [has|have] {nouns} that train never shows ({{parts}}), and no"
            " model can write them: move some into train",
            sum(any(part in untrained for part in parts(i)) for i in data.rows_of(split)),
            (f"{part}: {n}" for part, n in untrained.most_common()),
            parts=listed(sorted(untrained)),
        )
    rare = {part: n for part, n in trained.items() if n < MIN_COUNT}
    yield from some(
        f"rare-{nouns}",
        "info",
        f"{{num}} of the {len(trained):,} {nouns} of train [is|are] there fewer than {MIN_COUNT} times ({{parts}}):"
        " hardly learned, or a slip of the pen",
        len(rare),
        (f"{part}: {n}" for part, n in sorted(rare.items())),
        parts=listed(sorted(rare)),
    )


def sameness(data: CheckedRecordings) -> Iterator[Finding]:
    """Find that nothing can be told apart, because all say the same."""
    train = {data.texts[i] for i in data.rows_of("train")}
    if len(train) == 1:
        yield Finding(
            code="one-text",
            level="warning",
            message=f"All recordings of train say the same ({next(iter(train))[:40]!r}), so a network learns to hear "
            "it in everything: bring recordings of other words, or such without it as --negatives.",
        )


SUBJECTS = (empty, speed, steps, unseen, sameness)
