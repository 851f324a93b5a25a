"""What the subjects of a check of recordings look at, and how they word what they find."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from dolmen.data.wording import MAX_ITEMS, choose
from dolmen.tasks.speech_recognition.data.decoded import DecodedRecordings
from dolmen.tasks.speech_recognition.data.set import Recordings
from dolmen.tasks.speech_recognition.processors.speech import SpeechProcessor


@dataclass(frozen=True, eq=False)
class CheckedRecordings:
    """Recordings, decoded, with their splits and their texts.

    Attributes:
        processor: fitted on the training part.
        splits: (N,) strings.
        texts: N of them, by the processor's rules.
        used: (M,) indices of the recordings that training or evaluation will see, ascending.
    """

    recordings: Recordings
    decoded: DecodedRecordings
    processor: SpeechProcessor
    splits: NDArray[np.str_]
    texts: Sequence[str]
    used: NDArray[np.int64]

    @property
    def durations_s(self) -> NDArray[np.float64]:
        """(N,) seconds."""
        return self.decoded.lengths / self.decoded.rate

    def of(self, split: str) -> list[int]:
        """Indices of the used recordings of a split."""
        found: list[int] = self.used[self.splits[self.used] == split].tolist()
        return found

    def name(self, index: int) -> str:
        """The name of a recording."""
        return self.recordings.items[int(index)].name

    def named(self, indices: Iterable[int]) -> tuple[str, ...]:
        """Return the names of the first recordings."""
        return tuple(self.name(i) for i in islice(indices, MAX_ITEMS))

    def paired(self, pairs: Iterable[Sequence[int]]) -> tuple[str, ...]:
        """Return the first pairs as "a = b"."""
        return tuple(f"{self.name(a)} = {self.name(b)}" for a, b in islice(pairs, MAX_ITEMS))


def recordings_of(num: int) -> str:
    """Write "1 recording" or "1,234 recordings"."""
    return f"{num:,} {choose(num, 'recording', 'recordings')}"


def recordings_are(num: int) -> str:
    """Write "1 recording is" or "1,234 recordings are"."""
    return f"{num:,} {choose(num, 'recording is', 'recordings are')}"


def recordings_have(num: int) -> str:
    """Write "1 recording has" or "1,234 recordings have"."""
    return f"{num:,} {choose(num, 'recording has', 'recordings have')}"


def them(num: int) -> str:
    """Write "it" or "them"."""
    return choose(num, "it", "them")
