"""What a language model says of a text that it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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

    def to_json(self) -> dict[str, Any]:
        """Return ``{"text", "bits", "expected": [{"text", "probability"}]}``."""
        expected = [{"text": text, "probability": round(p, 6)} for text, p in self.expected]
        return {"text": self.text, "bits": round(self.bits, 4), "expected": expected}
