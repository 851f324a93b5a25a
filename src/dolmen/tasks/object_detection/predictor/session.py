"""Objects in a video: followed from frame to frame, counted at lines and in zones, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dolmen.predictions import Boxes, Event, Tally
from dolmen.processors.images.counting import Journal, Line, Zone
from dolmen.processors.images.drawing import Border, draw_borders, draw_boxes
from dolmen.processors.images.image import Pixels
from dolmen.processors.images.tracking import Tracker
from dolmen.processors.video.frame import FRAME_S, Frame
from dolmen.runtime.options import LocalPath, Served
from dolmen.runtime.pictures import ImagePredictor
from dolmen.runtime.predictor import Session
from dolmen.types import Arrays, Prediction, UserError

DOUBTFUL = 1 / 3
"""Share of the score from which an object is reported, down to which a box may still be an object that is followed."""
COLOUR = "#f5f7fa"
"""The colour of lines and zones, which no class has."""


class TrackOptions(BaseModel):
    """What can be chosen for objects that are followed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: Annotated[float | None, Served()] = Field(
        None, ge=0, le=1, description="score from which on an object is followed (default: chosen on validation)"
    )
    line: Annotated[tuple[str, ...], Served()] = Field(
        (), description="x1,y1,x2,y2,NAME: count what crosses it, in pixels, or in shares of width and height"
    )
    zone: Annotated[tuple[str, ...], Served()] = Field(
        (), description="x1,y1,x2,y2,x3,y3,...,NAME: count what enters it, and how long it stays"
    )


class VideoOptions(TrackOptions):
    """What can be chosen for a video that is watched."""

    every: float | None = Field(
        None,
        gt=0,
        description="look at one frame every so many seconds (default: at each); of a folder: from picture to picture",
    )
    out: LocalPath | None = Field(None, description="write the video with what was seen drawn into it: NAME.webm")
    boxes: bool = Field(False, description="give the boxes in each frame as well, not only what happens")


class FollowSession(Session):
    """Frames one after the other. Each gives its ``Boxes`` with numbers of objects, and the ``Event`` s in it.

    A piece is a ``Frame``, or a picture in any form that ``predict`` takes, which counts as 1/25 s after the one
    before. Objects get their number when they are seen the second time. ``finish`` gives the ``Tally``.

    Args:
        predictor: of an object detector.
        idle_timeout_s: after so many seconds without a piece the session is over; None for never.
        options: the least score of an object, and the lines and zones to count at.

    Raises:
        UserError: a line or a zone is none.
    """

    def __init__(self, predictor: ImagePredictor[Any], idle_timeout_s: float | None, options: TrackOptions) -> None:
        super().__init__(idle_timeout_s)
        p = predictor.processor
        sure: float | Sequence[float] = options.threshold if options.threshold is not None else p.thresholds or 0.5
        self.predictor, self.sure = predictor, np.asarray(sure, np.float64)
        self.lines = tuple(Line.parse(text) for text in options.line)
        self.zones = tuple(Zone.parse(text) for text in options.zone)
        self.tracker, self.journal, self.time_s = self._initial_state()

    def _initial_state(self) -> tuple[Tracker, Journal, float]:
        tracker = Tracker(sure=self.sure, doubtful=self.sure * DOUBTFUL)
        return tracker, Journal(self.lines, self.zones), -FRAME_S

    def _feed(self, chunk: Any) -> list[Prediction]:
        frame = chunk if isinstance(chunk, Frame) else None
        time_s = self.time_s + FRAME_S if frame is None else frame.time_s
        all_scores = self.predictor.Options(threshold=0.0)
        prediction = next(iter(self.predictor.predict([chunk if frame is None else frame.pixels], all_scores)))[1]
        if isinstance(prediction, UserError):
            raise prediction
        assert isinstance(prediction, Boxes)
        boxes = self.tracker.update(prediction, time_s)
        self.time_s = time_s
        return [boxes, *self.journal.update(boxes, self.tracker.followed(), time_s)]

    def _finish(self) -> list[Prediction]:
        return [self.journal.tally()]

    def _reset(self) -> None:
        self.tracker, self.journal, self.time_s = self._initial_state()

    def _save(self) -> tuple[Arrays, dict[str, Any]]:
        return {}, {"tracker": self.tracker.save(), "journal": self.journal.save(), "time_s": self.time_s}

    def _restore(self, arrays: Arrays, about: dict[str, Any]) -> bool:
        tracker, journal, _ = self._initial_state()
        tracker.restore(about["tracker"])
        journal.restore(about["journal"])
        if (tracker.tracks.labels >= len(self.predictor.labels())).any():
            return False
        self.tracker, self.journal, self.time_s = tracker, journal, float(about["time_s"])
        return not arrays

    def draw(self, pixels: Pixels, boxes: Boxes) -> Pixels:
        """A frame with what was seen in it, the lines and zones, and their counts until now.

        Args:
            pixels: (H, W, 3) uint8.
            boxes: what ``feed`` gave for it.
        """
        tally = self.journal.tally()
        borders = []
        for line in self.journal.lines:
            left, right = (sum(tally.lines[line.name][side].values()) for side in ("left", "right"))
            borders.append(Border((line.begin, line.end), COLOUR, f"{line.name}: {left} to the left, {right} right"))
        for zone in self.journal.zones:
            now = tally.zones[zone.name]
            text = f"{zone.name}: {now['inside']} inside, {sum(now['entered'].values())} entered"
            borders.append(Border(zone.polygon, COLOUR, text, closed=True))
        return draw_boxes(draw_borders(pixels, borders), boxes)


def event_line(event: Event) -> str:
    """``   12.40 s  car 7 crosses gate to the left``."""
    what = {
        "appears": "appears",
        "leaves": f"leaves after {event.lasted_s or 0:.1f} s",
        "crosses-left": f"crosses {event.where} to the left",
        "crosses-right": f"crosses {event.where} to the right",
        "enters": f"enters {event.where}",
        "exits": f"exits {event.where} after {event.lasted_s or 0:.1f} s",
    }[event.kind]
    return f"{event.time_s:8.2f} s  {event.label} {event.id} {what}"


def tally_lines(tally: Tally) -> str:
    """What was counted, a line for all objects and one for each line and zone."""
    rows = [f"in all: {_counts(tally.objects)}"]
    rows += [
        f"across {name}: to the left {_counts(sides['left'])}; to the right {_counts(sides['right'])}"
        for name, sides in tally.lines.items()
    ]
    for name, zone in tally.zones.items():
        rows.append(
            f"into {name}: {_counts(zone['entered'])}; {zone['inside']} inside at the end; "
            f"{zone['stayed_s']:.1f} s in it, all together"
        )
    return "\n".join(rows)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items(), key=lambda c: -c[1])) or "nothing"
