"""The data of a check of recordings, as its subjects take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dolmen.data.checks.examples import CheckedExamples, Noun
from dolmen.tasks.speech_recognition.data.decoded import DecodedRecordings
from dolmen.tasks.speech_recognition.data.set import Recordings
from dolmen.tasks.speech_recognition.processors.speech import SpeechProcessor
from dolmen.tasks.speech_recognition.processors.text_rules import normalise

RECORDING = Noun("recording", "recordings", "sample")


@dataclass(frozen=True, eq=False)
class CheckedRecordings(CheckedExamples):
    """Recordings whose splits are assigned, decoded, with their texts.

    Attributes:
        recordings: the set; the groups of its examples are the speakers.
        decoded: the same.
        processor: fitted on the training part.
        texts: N of them, by the processor's rules.
    """

    recordings: Recordings
    decoded: DecodedRecordings
    processor: SpeechProcessor
    texts: Sequence[str]

    @classmethod
    def of(cls, recordings: Recordings, decoded: DecodedRecordings, processor: SpeechProcessor) -> CheckedRecordings:
        """A set, of which recordings with a split and a text are used, unless they have a problem or are a copy."""
        items = recordings.items
        texts = [normalise(item.text, processor.rules) for item in items]
        splits = np.array([item.split for item in items], dtype="U5")
        usable = (splits != "") & np.array([bool(t) for t in texts], np.bool_)
        usable[[*decoded.problems, *recordings.left_out]] = False
        return cls(
            RECORDING, [item.name for item in items], splits, np.flatnonzero(usable), decoded.digests,
            [item.speaker for item in items], decoded.problems, recordings.left_out, recordings.skipped,
            recordings, decoded, processor, texts,
        )  # fmt: skip

    @property
    def durations_s(self) -> NDArray[np.float64]:
        """(N,) seconds."""
        return self.decoded.lengths / self.decoded.rate
