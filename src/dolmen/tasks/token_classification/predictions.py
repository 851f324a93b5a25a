"""Sentences with their tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from dolmen.types import described


@described
class SpanJson(TypedDict):
    """A span of a sentence."""

    start: Annotated[int, Field(description="where it begins, in characters")]
    end: Annotated[int, Field(description="where it ends, in characters")]
    label: Annotated[str, Field(description="what it is")]
    text: Annotated[str, Field(description="its characters")]
    confidence: Annotated[float, Field(ge=0, le=1, description="how surely exactly this is a span")]


@described
class TokenJson(TypedDict):
    """A word with its tag."""

    start: Annotated[int, Field(description="where it begins, in characters")]
    end: Annotated[int, Field(description="where it ends, in characters")]
    text: Annotated[str, Field(description="the word")]
    tag: Annotated[str, Field(description="in the most probable reading of the whole sentence")]
    confidence: Annotated[float, Field(ge=0, le=1, description="probability of the tag")]


@described
class SentenceReadingJson(TypedDict):
    """A reading of a whole sentence."""

    probability: Annotated[float, Field(ge=0, le=1, description="of all tags together")]
    tags: Annotated[list[str], Field(description="one a word")]


@described
class SpansJson(TypedDict):
    """A sentence with its tags."""

    text: Annotated[str, Field(description="the sentence; of words that came alone, joined by spaces")]
    spans: Annotated[list[SpanJson], Field(description="what it names, from its beginning to its end")]
    tokens: Annotated[list[TokenJson], Field(description="all words")]
    readings: NotRequired[
        Annotated[list[SentenceReadingJson], Field(description="most probable first, where n_best is more than 1")]
    ]


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

    def to_json(self) -> SpansJson:
        """Return text, spans, tokens and readings as plain JSON values."""
        values: SpansJson = {
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
            values["readings"] = [{"probability": round(p, 6), "tags": list(tags)} for p, tags in self.readings]
        return values
