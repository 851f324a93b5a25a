"""Recordings as indexed batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dolmen.data.sequences import Sequences
from dolmen.tasks.speech_recognition.data.decoded import DecodedRecordings
from dolmen.tasks.speech_recognition.data.set import Recordings
from dolmen.tasks.speech_recognition.data.store import gathered
from dolmen.tasks.speech_recognition.processors.speech import BOUNDARY, SpeechProcessor
from dolmen.tasks.speech_recognition.processors.text_rules import normalise

PADDING = -1
"""Behind the last unit."""


class RecordingDataset(Sequences):
    """The recordings of one split, one after the other.

    Attributes:
        audio: (M,) int16 samples; memory-mapped where they are many.
        starts: (N + 1,) int64 where each recording begins in ``audio``.
        units: (L,) int64 of all texts; what training never saw is left out.
        unit_starts: (N + 1,) int64 where those of each recording begin.
        names: N names for a person.
        texts: what is said, as the data have it.
        speakers: "" where unknown.
        digests: (N, 16) uint8, equal for equal samples.
        processor: that spelled the texts.

    Args:
        recordings: the set.
        decoded: its recordings, at the processor's rate.
        rows: which of them.
        processor: spells the texts.
    """

    def __init__(
        self, recordings: Recordings, decoded: DecodedRecordings, rows: Sequence[int], processor: SpeechProcessor
    ) -> None:
        assert decoded.rate == processor.rate, f"recordings at {decoded.rate} Hz, a processor for {processor.rate}"
        items = [recordings.items[i] for i in rows]
        self.audio, self.starts = gathered(decoded.audio, decoded.starts, rows)
        self.digests = np.ascontiguousarray(decoded.digests[list(rows)])
        self.names = [item.name for item in items]
        self.texts = [item.text for item in items]
        self.speakers = [item.speaker for item in items]
        self.processor = processor
        spelled = [processor.encode_text(known_part(item.text, processor)) for item in items]
        self.units = np.array([unit for found in spelled for unit in found], np.int64)
        self.unit_starts = np.cumsum([0, *map(len, spelled)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) samples of each recording."""
        return np.diff(self.starts)

    def samples(self, index: int) -> NDArray[np.int16]:
        """(n,) of a recording."""
        return self.audio[self.starts[index] : self.starts[index + 1]]

    def batch(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """Some recordings.

        Returns:
            ``{"audio": (B, S) int16, 0 behind the end, "num_samples": (B,) int64, "units": (B, U) int64, -1 behind the
            last, "num_units": (B,) int64}``.
        """
        audio, num_samples = _padded(self.audio, self.starts, indices, 0)
        units, num_units = _padded(self.units, self.unit_starts, indices, PADDING)
        return {"audio": audio, "num_samples": num_samples, "units": units, "num_units": num_units}

    def subset(self, rows: NDArray[np.int64]) -> RecordingDataset:
        """Some of the recordings, in the given order."""
        made = object.__new__(RecordingDataset)
        made.audio, made.starts = gathered(self.audio, self.starts, rows)
        made.digests, made.processor = self.digests[rows], self.processor
        made.names, made.texts, made.speakers = (
            [values[i] for i in rows] for values in (self.names, self.texts, self.speakers)
        )
        spans = [self.units[self.unit_starts[i] : self.unit_starts[i + 1]] for i in rows]
        made.units = np.concatenate([np.zeros(0, np.int64), *spans])
        made.unit_starts = np.cumsum([0, *map(len, spans)], dtype=np.int64)
        return made


def known_part(text: str, processor: SpeechProcessor) -> str:
    """A text by the processor's rules without the words or characters that no unit stands for."""
    said = normalise(text, processor.rules)
    if processor.kind == "words":
        known = {unit.removeprefix(BOUNDARY) for unit in processor.units[1:]}
        return " ".join(word for word in said.split() if word in known)
    characters = set("".join(processor.units)) | {" "}
    return " ".join("".join(c for c in said if c in characters).split())


def share_unknown(texts: Sequence[str], processor: SpeechProcessor) -> float:
    """The share of the words of texts, by the processor's rules, of which a part is no unit: none of them is heard."""
    words = Counter(word for text in texts for word in text.split())
    strange = sum(num for word, num in words.items() if known_part(word, processor) != word)
    return strange / max(1, words.total())


def _padded(
    values: NDArray[np.int16] | NDArray[np.int64], starts: NDArray[np.int64], indices: NDArray[np.int64], padding: int
) -> tuple[Tensor, Tensor]:
    """Rows of different lengths (B, most) with the padding behind them, and their lengths (B,)."""
    begins, ends = starts[:-1][indices], starts[1:][indices]
    made = np.full((len(indices), int((ends - begins).max(initial=0))), padding, values.dtype)
    for row, begin, end in zip(made, begins.tolist(), ends.tolist(), strict=True):
        row[: end - begin] = values[begin:end]
    return torch.from_numpy(made), torch.from_numpy(ends - begins)
