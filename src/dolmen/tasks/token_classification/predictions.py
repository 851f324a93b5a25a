"""Sentences with their tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Spans:
    """A sentence with its tags.

    Attributes:
        text: the sentence; of words that came alone, joined by spaces.
        words: T of them.
        offsets: start and end of each word in ``text``.
        tags: of the words, in the most probable reading of the whole sentence.
        confidences: probability of each tag.
        spans: (start, end, label, text, probability that exactly this is a span) with offsets in ``text``.
        readings: (probability, tags) of whole sentences, the most probable first.
    """

    text: str
    words: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]
    confidences: tuple[float, ...]
    spans: tuple[tuple[int, int, str, str, float], ...]
    readings: tuple[tuple[float, tuple[str, ...]], ...]

    def to_json(self) -> dict[str, Any]:
        """Return text, spans, tokens and readings as plain JSON values."""
        found: dict[str, Any] = {
            "text": self.text,
            "spans": [
                {"start": s, "end": e, "label": label, "text": text, "confidence": round(p, 6)}
                for s, e, label, text, p in self.spans
            ],
            "tokens": [
                {"start": s, "end": e, "text": word, "tag": tag, "confidence": round(p, 6)}
                for (s, e), word, tag, p in zip(self.offsets, self.words, self.tags, self.confidences, strict=True)
            ],
        }
        if len(self.readings) > 1:
            found["readings"] = [{"probability": round(p, 6), "tags": list(tags)} for p, tags in self.readings]
        return found
