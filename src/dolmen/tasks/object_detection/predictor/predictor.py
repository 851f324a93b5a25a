"""Pictures to the objects in them."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dolmen.predictions import Boxes, Event, Tally
from dolmen.processors.images.drawing import draw_boxes
from dolmen.processors.images.image import Pixels, open_image
from dolmen.processors.video.frame import FRAME_S, Frame
from dolmen.processors.video.source import frames, of_pictures
from dolmen.processors.video.writer import VideoWriter
from dolmen.runtime.network import BATCH, MODEL, Network
from dolmen.runtime.options import Served
from dolmen.runtime.pictures import ImagePredictor
from dolmen.tasks.object_detection.predictor.session import (
    FollowSession,
    TrackOptions,
    VideoOptions,
    event_line,
    tally_lines,
)
from dolmen.tasks.object_detection.processor import DetectionProcessor
from dolmen.types import Example, Prediction, UserError


class DetectionOptions(BaseModel):
    """What can be chosen for a prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: Annotated[float | None, Served()] = Field(
        None, ge=0, le=1, description="score from which on an object is reported (default: chosen on validation)"
    )


class DetectionPredictor(ImagePredictor[DetectionProcessor]):
    """Pictures to ``Boxes``; videos to what happens in them."""

    Processor: ClassVar[type[Any]] = DetectionProcessor
    PredictionType: ClassVar[type[Prediction]] = Boxes
    StreamTypes: ClassVar[tuple[type[Prediction], ...]] = (Boxes, Event, Tally)
    source_help: ClassVar[str] = (
        "a video, a folder of pictures, or - for names of pictures on standard input, one a line"
    )
    Options: ClassVar[type[BaseModel]] = DetectionOptions
    Streaming: ClassVar[type[BaseModel]] = TrackOptions
    Watching: ClassVar[type[BaseModel]] = VideoOptions

    def expected_shapes(self) -> Mapping[str, Mapping[str, tuple[int | str, ...]]]:
        """Shapes of the input and outputs of a network that fits the processor."""
        p = self.processor
        images = (BATCH, p.height, p.width, p.channels)
        return {MODEL: {"images": images, "boxes": (BATCH, "boxes", 4), "scores": (BATCH, "boxes", len(p.classes))}}

    def predict(
        self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        """Each input with its ``Boxes``, or with the error that says why it has none."""
        threshold = getattr(options, "threshold", None)
        iterator = iter(inputs)
        while chunk := list(islice(iterator, batch_size)):
            examples = self.encode_all(chunk)
            readable = [e for e in examples if not isinstance(e, UserError)]
            predictions = detect(self.processor, self.network, readable)
            for raw, example in zip(chunk, examples, strict=True):
                if isinstance(example, UserError):
                    yield raw, example
                else:
                    yield raw, self.processor.reported(next(predictions), threshold)

    def session(self, idle_timeout_s: float | None = None, options: BaseModel | None = None) -> FollowSession:
        """Frames of a video, in which objects are followed."""
        assert options is None or isinstance(options, TrackOptions)
        return FollowSession(self, idle_timeout_s, options or TrackOptions())

    def watch(self, source: str, options: BaseModel) -> Iterator[Prediction]:
        """What happens in a video, in a folder of pictures, or in pictures whose names come on standard input."""
        assert isinstance(options, VideoOptions)
        session = self.session(None, options)
        current: list[Frame] = []  # the one whose objects are drawn next

        def remembered() -> Iterator[Frame]:
            for frame in self.pieces(source, options):
                current[:] = [frame]
                yield frame

        with VideoWriter(options.out) if options.out else contextlib.nullcontext() as writer:
            for prediction in self.follow(remembered(), session):
                if isinstance(prediction, Boxes):
                    if writer is not None:
                        writer.add(session.draw(current[0].pixels, prediction), current[0].time_s)
                    if not options.boxes:
                        continue
                yield prediction

    def pieces(self, source: str, options: BaseModel) -> Iterator[Frame]:
        """Frames of a video; pictures in a folder, or whose names come on standard input, count as such."""
        assert isinstance(options, VideoOptions)
        if source == "-":
            names = (Path(line.rstrip("\n")) for line in sys.stdin if line.strip())
            return of_pictures(names, options.every or FRAME_S)
        return frames(source, options.every)

    def format_line(self, prediction: Prediction) -> str:
        """``1 car, 1 person: car 91 % (12, 40, 310, 220), person 88 % (...)``; of a video what happened."""
        if isinstance(prediction, Event):
            return event_line(prediction)
        if isinstance(prediction, Tally):
            return tally_lines(prediction)
        assert isinstance(prediction, Boxes)
        return _listed(prediction)

    def draw(self, raw: Any, prediction: Prediction) -> Pixels:
        """The picture with the predicted boxes drawn into it."""
        assert isinstance(prediction, Boxes)
        return draw_boxes(open_image(raw).pixels, prediction)

    def labels(self) -> tuple[str, ...]:
        """The classes."""
        return self.processor.classes


def _listed(boxes: Boxes) -> str:
    if not len(boxes):
        text = "nothing found"
    else:
        counts = Counter(boxes.names[i] for i in boxes.labels)
        numbers = [""] * len(boxes) if boxes.ids is None else [f" {i}" for i in boxes.ids]
        rows = [
            f"{boxes.names[label]}{number} {score:.0%} ({', '.join(f'{v:.0f}' for v in box)})"
            for box, score, label, number in zip(boxes.boxes_xyxy, boxes.scores, boxes.labels, numbers, strict=True)
        ]
        text = ", ".join(f"{n} {name}" for name, n in counts.most_common()) + ": " + ", ".join(rows[:10])
        text += f" and {len(rows) - 10} more" if len(rows) > 10 else ""
    return text if boxes.time_s is None else f"{boxes.time_s:8.2f} s  {text}"


def detect(
    processor: DetectionProcessor, network: Network, examples: list[Example], max_views: int = 64
) -> Iterator[Boxes]:
    """The objects in encoded pictures, all scores; the network runs on ``max_views`` views or fewer at once."""
    views = np.concatenate([e["images"] for e in examples]) if examples else np.zeros((0,))
    chunks = [network({"images": views[i : i + max_views]}) for i in range(0, len(views), max_views)]
    outputs = {name: np.concatenate([p[name] for p in chunks]) for name in ("boxes", "scores")} if chunks else {}
    start = 0
    for example in examples:
        stop = start + len(example["images"])
        height, width = example["size"].tolist()
        picture_outputs = {name: value[start:stop] for name, value in outputs.items()}
        yield processor.decode_picture(picture_outputs, example["crops"], (height, width))
        start = stop
