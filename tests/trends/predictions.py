"""Which way a series goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from dolmen.types import described


@described
class TrendJson(TypedDict):
    """Which way a series goes."""

    label: Annotated[str, Field(description="the most probable trend")]
    probability: Annotated[float, Field(ge=0, le=1, description="of that trend")]
    num_values: Annotated[int, Field(description="how many values were read so far")]


@dataclass(frozen=True)
class Trend:
    """Which way a series goes, after so many values."""

    label: str
    probability: float
    num_values: int

    def to_json(self) -> TrendJson:
        """Return ``{"label", "probability", "num_values"}``."""
        return {"label": self.label, "probability": round(self.probability, 6), "num_values": self.num_values}
