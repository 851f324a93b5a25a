"""Pictures to the objects in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dolmen.processors.detection import DetectionProcessor
from dolmen.runtime.network import Network
from dolmen.runtime.pictures import Pictures
from dolmen.types import Boxes, Example, Prediction, UserError


class DetectionOptions(BaseModel):
    """What can be chosen for a prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float | None = Field(
        None, ge=0, le=1, description="score from which on an object is reported (default: chosen on validation)"
    )


class DetectionPredictor(Pictures[DetectionProcessor]):
    """See the module."""

    Processor: ClassVar[type[Any]] = DetectionProcessor
    Options: ClassVar[type[BaseModel]] = DetectionOptions

    def predict(
        self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        """See ``Predictor.predict``."""
        threshold = getattr(options, "threshold", None)
        iterator = iter(inputs)
        while chunk := list(islice(iterator, batch_size)):
            examples = self.encode_all(chunk)
            found = iter(detect(self.processor, self.network, [e for e in examples if not isinstance(e, UserError)]))
            for raw, example in zip(chunk, examples, strict=True):
                if isinstance(example, UserError):
                    yield raw, example
                else:
                    yield raw, self.processor.reported(next(found), threshold)

    def one_line(self, prediction: Prediction) -> str:
        """``3 objects: car 91 % (12, 40, 310, 220), person 88 % (...)``."""
        assert isinstance(prediction, Boxes)
        if not len(prediction):
            return "nothing found"
        counts = Counter(prediction.names[i] for i in prediction.labels)
        total = ", ".join(f"{n} {name}" for name, n in counts.most_common())
        rows = [
            f"{prediction.names[label]} {score:.0%} ({', '.join(f'{v:.0f}' for v in box)})"
            for box, score, label in zip(prediction.boxes_xyxy, prediction.scores, prediction.labels, strict=True)
        ]
        return f"{total}: " + ", ".join(rows[:10]) + (f" and {len(rows) - 10} more" if len(rows) > 10 else "")

    def labels(self) -> tuple[str, ...]:
        """The classes."""
        return self.processor.classes


def detect(
    processor: DetectionProcessor, network: Network, examples: list[Example], at_once: int = 64
) -> Iterator[Boxes]:
    """The objects in encoded pictures, all scores; at most so many views go through the network together."""
    views = np.concatenate([e["images"] for e in examples]) if examples else np.zeros((0,))
    parts = [network({"images": views[i : i + at_once]}) for i in range(0, len(views), at_once)]
    outputs = {name: np.concatenate([p[name] for p in parts]) for name in ("boxes", "scores")} if parts else {}
    start = 0
    for example in examples:
        stop = start + len(example["images"])
        height, width = example["size"].tolist()
        mine = {name: value[start:stop] for name, value in outputs.items()}
        yield processor.decode_picture(mine, example["crops"], (height, width))
        start = stop
