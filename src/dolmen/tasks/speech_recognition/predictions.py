"""Words with their times, and transcripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from dolmen.types import described


@described
class WordJson(TypedDict):
    """A word that was heard, and when, in seconds from the beginning."""

    text: Annotated[str, Field(description="the word")]
    start_s: Annotated[float, Field(description="from where on it is heard")]
    end_s: Annotated[float, Field(description="until where it is")]
    confidence: Annotated[float, Field(ge=0, le=1, description="how surely it was this word")]


@dataclass(frozen=True)
class Word:
    """A word that was heard.

    Attributes:
        text: the word.
        start_s: from where on the network names it, in seconds from the beginning of the recording or stream. One that
            names whole words does so once it has heard them: about where the word ends.
        end_s: until where it does.
        confidence: 0..1, how surely it was this word.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float

    def to_json(self) -> WordJson:
        """Return ``{"text", "start_s", "end_s", "confidence"}``."""
        return {
            "text": self.text,
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "confidence": round(self.confidence, 6),
        }


@described
class AlternativeJson(TypedDict):
    """A reading of what was said."""

    text: Annotated[str, Field(description="what may have been said")]
    probability: Annotated[float, Field(ge=0, le=1, description="of this reading among those that are given")]


@described
class TranscriptJson(TypedDict):
    """What was said in a recording, or in a stretch of a stream."""

    text: Annotated[str, Field(description="all words; empty where nothing was said")]
    confidence: Annotated[float, Field(ge=0, le=1, description="how surely all of it is right")]
    start_s: Annotated[float, Field(description="where it begins, in seconds")]
    end_s: Annotated[float, Field(description="where it ends, in seconds")]
    final: Annotated[bool, Field(description="false while a stretch goes on, and what is said of it may change")]
    words: Annotated[list[WordJson], Field(description="with their times")]
    rejected: NotRequired[Annotated[bool, Field(description="true where it was none of the commands")]]
    alternatives: NotRequired[
        Annotated[list[AlternativeJson], Field(description="most probable first, where n_best is more than 1")]
    ]


@dataclass(frozen=True, eq=False)
class Transcript:
    """What was said in a recording, or in a stretch of a stream.

    Attributes:
        text: all words; empty where none is heard, or none of the allowed sentences.
        words: with their times.
        confidence: 0..1, how surely all of it is right; where unsure words are left out, how surely the others
            are, and 0 where none is left.
        start_s: where the stretch begins, in seconds.
        end_s: where it ends.
        final: False while the stretch goes on, and its transcript may change.
        rejected: True where a list of commands is given, and this is none of them.
        alternatives: (text, probability) of the most probable readings, this one first; probabilities sum to 1.
    """

    text: str
    words: tuple[Word, ...]
    confidence: float
    start_s: float
    end_s: float
    final: bool = True
    rejected: bool = False
    alternatives: tuple[tuple[str, float], ...] = ()

    def to_json(self) -> TranscriptJson:
        """Return text, words, confidence, start and end, and alternatives where there are some."""
        values: TranscriptJson = {
            "text": self.text,
            "confidence": round(self.confidence, 6),
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "final": self.final,
            "words": [word.to_json() for word in self.words],
        }
        if self.rejected:
            values["rejected"] = True
        if len(self.alternatives) > 1:
            values["alternatives"] = [{"text": text, "probability": round(p, 6)} for text, p in self.alternatives]
        return values
