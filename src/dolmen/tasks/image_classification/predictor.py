"""Pictures to classes, and what an answer rests on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel

from dolmen.predictions import Classes, HeatMap
from dolmen.runtime.network import BATCH, MODEL
from dolmen.runtime.pictures import ImagePredictor, area_seen
from dolmen.tasks.image_classification.processor import ClassificationProcessor
from dolmen.types import Prediction, UserError

COVERED_SIDE = 12
"""Places along a side of a picture, each covered once to see what the answer rests on."""


class ClassificationPredictor(ImagePredictor[ClassificationProcessor]):
    """Pictures to ``Classes``."""

    Processor: ClassVar[type[Any]] = ClassificationProcessor
    PredictionType: ClassVar[type[Prediction]] = Classes
    ExplanationType: ClassVar[type[Prediction] | None] = HeatMap

    def expected_shapes(self) -> Mapping[str, Mapping[str, tuple[int | str, ...]]]:
        """The shapes of the pictures and of the logits, by network."""
        p = self.processor
        return {MODEL: {"images": (BATCH, p.height, p.width, p.channels), "logits": (BATCH, len(p.classes))}}

    def predict(
        self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        """Yield ``(picture, Classes)`` in order; one that can't be read gives its error instead."""
        del options
        iterator = iter(inputs)
        while chunk := list(islice(iterator, batch_size)):
            examples = self.encode_all(chunk)
            images = [e["images"] for e in examples if not isinstance(e, UserError)]
            answers = iter(self.processor.decode(self.network({"images": np.stack(images)})) if images else ())
            for raw, example in zip(chunk, examples, strict=True):
                yield raw, example if isinstance(example, UserError) else next(answers)

    def format_line(self, prediction: Prediction) -> str:
        """``cat 97.1 %  (dog 2.0 %, deer 0.5 %)``."""
        assert isinstance(prediction, Classes)
        others = [(n, p) for n, p in prediction.top(4) if n != prediction.label][:2]
        texts = ", ".join(f"{n} {p:.1%}" for n, p in others)
        return f"{prediction.label} {prediction.probability:.1%}" + (f"  ({texts})" if texts else "")

    def labels(self) -> tuple[str, ...]:
        """The classes."""
        return self.processor.classes

    def explain_input(self, raw: Any) -> HeatMap:
        """Measure how much the answer's probability falls where the picture is covered with its own mean.

        Zeiler & Fergus (2014). It needs no gradient, so that it works on any network, a bundle's as well.

        Returns:
            A map of (COVERED_SIDE, COVERED_SIDE), of the class that is decided for.

        Raises:
            UserError: the picture can't be read.
        """
        example = self.encode(raw)
        if isinstance(example, UserError):
            raise example
        picture = example["images"]
        height, width = picture.shape[:2]
        rows, columns = min(COVERED_SIDE, height), min(COVERED_SIDE, width)
        mean, copies = picture.mean((0, 1)).round().astype(np.uint8), [picture]
        for i in range(rows):  # each place is covered together with its neighbours, or small things would be missed
            top, bottom = max(0, (i - 1) * height // rows), min(height, (i + 2) * height // rows)
            for j in range(columns):
                left, right = max(0, (j - 1) * width // columns), min(width, (j + 2) * width // columns)
                covered = picture.copy()
                covered[top:bottom, left:right] = mean
                copies.append(covered)
        answers: list[Classes] = []
        for start in range(0, len(copies), 64):
            answers += self.processor.decode(self.network({"images": np.stack(copies[start : start + 64])}))
        label = answers[0].label
        index = answers[0].names.index(label)
        covered_p = np.array([max(a.probabilities[index], 1e-12) for a in answers[1:]])
        fall = np.log(answers[0].probabilities[index]) - np.log(covered_p)
        heat = np.maximum(fall, 0).reshape(rows, columns)
        heat = np.asarray(heat / max(float(heat.max()), 1e-6), np.float32)
        return HeatMap(label, heat, area_seen(raw, (height, width), self.processor.fit))
