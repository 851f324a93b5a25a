"""Series in words to arrays, logits to trends."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from dolmen.types import UserError
from trends.predictions import Trend


class SeriesProcessor(BaseModel):
    """Numbers between spaces to steps of one feature, and logits to the most probable trend."""

    model_config = ConfigDict(frozen=True)

    classes: tuple[str, ...]
    mean: float
    std: float

    def encode(self, text: str) -> NDArray[np.float32]:
        """A series to (T, 1) steps.

        Raises:
            UserError: a word is no number, or there is none.
        """
        if not text.split():
            raise UserError("the series is empty; give numbers with spaces between them, such as 0.1 0.3 0.5")
        try:
            values = np.array([float(word) for word in text.split()], np.float32)
        except ValueError as error:
            raise UserError(f"a series is numbers with spaces between them ({error})") from None
        return ((values - self.mean) / self.std)[:, None]

    def decode(self, logits: NDArray[np.float32], num_values: int) -> Trend:
        """(K,) logits to the most probable trend."""
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        best = int(shares.argmax())
        return Trend(self.classes[best], float(shares[best]), num_values)

    def to_json(self) -> dict[str, Any]:
        """Everything needed to make it again."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Undo ``to_json``."""
        return cls.model_validate(values)
