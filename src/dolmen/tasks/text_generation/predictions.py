"""What a language model says of a text that it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from dolmen.types import described


@described
class ExpectedJson(TypedDict):
    """A token that was thought likely."""

    text: Annotated[str, Field(description="the token")]
    probability: Annotated[float, Field(ge=0, le=1, description="of this token in this place")]


@described
class ReadingJson(TypedDict):
    """A token of a text that is read along."""

    text: Annotated[str, Field(description="the token as it stands in the text")]
    bits: Annotated[float, Field(description="how much it surprised: minus the log to base 2 of its probability")]
    expected: Annotated[list[ExpectedJson], Field(description="those thought most likely in its place")]


@dataclass(frozen=True)
class Reading:
    """A token of a text that is read along.

    Attributes:
        text: as it stands in the text.
        bits: how much it surprised: minus the logarithm to base 2 of its probability.
        expected: (text, probability) of the tokens that were thought most likely in its place.
    """

    text: str
    bits: float
    expected: tuple[tuple[str, float], ...]

    def to_json(self) -> ReadingJson:
        """Return ``{"text", "bits", "expected": [{"text", "probability"}]}``."""
        expected: list[ExpectedJson] = [{"text": text, "probability": round(p, 6)} for text, p in self.expected]
        return {"text": self.text, "bits": round(self.bits, 4), "expected": expected}
