"""The data set of one split: recordings as indexed batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dolmen.data.ragged import Ragged
from dolmen.data.sequences import Sequences
from dolmen.tasks.speech_recognition.data.decoded import DecodedRecordings
from dolmen.tasks.speech_recognition.data.set import Recordings
from dolmen.tasks.speech_recognition.processors.speech import BOUNDARY, SpeechProcessor
from dolmen.tasks.speech_recognition.processors.text_rules import normalise

PADDING = -1
"""The value behind the last unit of a row."""


class RecordingDataset(Sequences):
    """The recordings of one split.

    Attributes:
        audio: N rows of int16 samples; memory-mapped, and shared by all splits.
        units: N rows of int64 units of the texts, without words or characters that training never saw.
        names: N names for a person.
        texts: N transcripts, as the data have them.
        speakers: N names, "" where unknown.
        digests: (N, 16) uint8, equal for equal samples.
        processor: that encoded the texts.

    Args:
        recordings: the set.
        decoded: its recordings, at the processor's rate.
        rows: indices of the recordings of this split.
        processor: spells the texts.
    """

    def __init__(
        self, recordings: Recordings, decoded: DecodedRecordings, rows: Sequence[int], processor: SpeechProcessor
    ) -> None:
        assert decoded.rate == processor.rate, f"recordings at {decoded.rate} Hz, a processor for {processor.rate}"
        items = [recordings.items[i] for i in rows]
        self.audio = decoded.audio.take(rows)
        self.digests = np.ascontiguousarray(decoded.digests[list(rows)])
        self.names = [item.name for item in items]
        self.texts = [item.text for item in items]
        self.speakers = [item.speaker for item in items]
        self.processor = processor
        spelled = (processor.encode_text(spellable_part(item.text, processor)) for item in items)
        self.units = Ragged.of((np.array(units, np.int64) for units in spelled), np.int64)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) samples of each recording."""
        return self.audio.lengths

    def samples(self, index: int) -> NDArray[np.int16]:
        """(n,) of a recording."""
        return self.audio[index]

    def batch(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """A batch of some recordings.

        Returns:
            ``{"audio": (B, S) int16, 0 behind the end, "num_samples": (B,) int64, "units": (B, U) int64, -1 behind the
            last, "num_units": (B,) int64}``.
        """
        audio, num_samples = _padded(self.audio, indices, 0)
        units, num_units = _padded(self.units, indices, PADDING)
        return {"audio": audio, "num_samples": num_samples, "units": units, "num_units": num_units}

    def subset(self, rows: NDArray[np.int64]) -> RecordingDataset:
        """Some of the recordings, in the given order."""
        chosen = object.__new__(RecordingDataset)
        chosen.audio, chosen.units = self.audio.take(rows), self.units.take(rows)
        chosen.digests, chosen.processor = self.digests[rows], self.processor
        chosen.names, chosen.texts, chosen.speakers = (
            [values[i] for i in rows] for values in (self.names, self.texts, self.speakers)
        )
        return chosen


def spellable_part(text: str, processor: SpeechProcessor) -> str:
    """A normalised text without the words or characters that no unit stands for."""
    normalised = normalise(text, processor.rules)
    if processor.kind == "words":
        known = {unit.removeprefix(BOUNDARY) for unit in processor.units[1:]}
        return " ".join(word for word in normalised.split() if word in known)
    characters = set("".join(processor.units)) | {" "}
    return " ".join("".join(c for c in normalised if c in characters).split())


def share_unknown(texts: Sequence[str], processor: SpeechProcessor) -> float:
    """The share of the words of normalised texts that the units can't spell, so that none of them is ever heard."""
    words = Counter(word for text in texts for word in text.split())
    num_unknown = sum(num for word, num in words.items() if spellable_part(word, processor) != word)
    return num_unknown / max(1, words.total())


def _padded(ragged: Ragged, indices: NDArray[np.int64], padding: int) -> tuple[Tensor, Tensor]:
    """Rows of different lengths (B, L) with the padding behind them, and their lengths (B,)."""
    spans = ragged.spans[indices]
    lengths = spans[:, 1] - spans[:, 0]
    padded = np.full((len(indices), int(lengths.max(initial=0))), padding, ragged.values.dtype)
    for row, (begin, end) in zip(padded, spans.tolist(), strict=True):
        row[: end - begin] = ragged.values[begin:end]
    return torch.from_numpy(padded), torch.from_numpy(lengths)
