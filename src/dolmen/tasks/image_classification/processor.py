"""Pictures to the input of a classifier, and its logits to classes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from dolmen.predictions import Classes
from dolmen.processors.images.image import ImageFit
from dolmen.types import Arrays


class ClassificationProcessor(ImageFit):
    """Pictures to arrays of one shape, and logits to classes.

    Attributes:
        classes: K names in the order of the logits.
        num_views: prediction averages the picture (1) and its mirror image (2), each also moved by a pixel (6).
        temperature: logits are divided by it; fitted on validation.
        positive: with two classes, the one that sensitivity speaks of.
        threshold: probability of ``positive`` at the operating point that validation chose.
        decide_by_threshold: whether the decision is taken at the threshold, not at the most probable class.
    """

    classes: tuple[str, ...] = Field(min_length=1)
    num_views: Literal[1, 2, 6] = 1
    temperature: float = Field(default=1.0, gt=0)
    positive: str | None = None
    threshold: float | None = None
    decide_by_threshold: bool = False

    @model_validator(mode="after")
    def _positive_is_a_class(self) -> ClassificationProcessor:
        if self.positive is not None and self.positive not in self.classes:
            raise ValueError(f"positive is {self.positive!r}, expected one of {', '.join(self.classes)}")
        return self

    def views(self) -> list[tuple[float, NDArray[np.int64], NDArray[np.int64]]]:
        """What prediction averages: (weight, rows, columns) to index the height and the width of pictures with.

        Moved views weigh half of the others, as in cifar10-airbench (Jordan, 2024); they fold back at the border.
        """
        rows, columns = np.arange(self.height), np.arange(self.width)
        shifts = ((0, 2.0), (-1, 1.0), (1, 1.0)) if self.num_views == 6 else ((0, 1.0),)
        mirrors = (False, True) if self.num_views > 1 else (False,)
        total = sum(weight for _, weight in shifts) * len(mirrors)
        views = []
        for move, weight in shifts:
            y, x = _fold(rows + move, self.height), _fold(columns + move, self.width)
            views += [(weight / total, y, x[::-1].copy() if mirror else x) for mirror in mirrors]
        return views

    def decode(self, outputs: Arrays) -> list[Classes]:
        """``{"logits": (N, K)}`` -> N answers, softmax of the logits over the temperature."""
        z = np.asarray(outputs["logits"], np.float64) / self.temperature
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        return [Classes(self.classes, row, self._decide(row)) for row in p]

    def _decide(self, probabilities: NDArray[np.float64]) -> str:
        if self.decide_by_threshold and self.positive is not None and self.threshold is not None:
            index = self.classes.index(self.positive)
            return self.positive if probabilities[index] >= self.threshold else self.classes[1 - index]
        return self.classes[int(probabilities.argmax())]


def _fold(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Indices just outside 0..size-1 back inside, without repeating the border."""
    return np.clip(np.where(index >= size, 2 * size - 2 - index, np.abs(index)), 0, size - 1)
