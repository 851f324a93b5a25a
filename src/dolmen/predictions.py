"""Answers that several tasks give, or that several floors read; each is also what the server sends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import TypedDict

from dolmen.types import described

Share = Annotated[float, Field(ge=0, le=1)]


@described
class ClassesJson(TypedDict):
    """Which class an input is of."""

    label: Annotated[str, Field(description="the class that is decided for")]
    probability: Annotated[Share, Field(description="of that class, calibrated on the validation split")]
    probabilities: Annotated[dict[str, Share], Field(description="of each class; they sum to 1")]


@dataclass(frozen=True, eq=False)
class Classes:
    """The answer to "which class is it?" for one input.

    Attributes:
        names: the K class names, in the order of ``probabilities``.
        probabilities: (K,) float, sums to 1, calibrated on the validation split.
        label: the decided class. It is the most probable one, or, for two classes with an operating
            threshold, the positive class where its probability reaches that threshold.
    """

    names: tuple[str, ...]
    probabilities: NDArray[np.floating[Any]]
    label: str

    @property
    def probability(self) -> float:
        """The probability of the decided class."""
        return float(self.probabilities[self.names.index(self.label)])

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the ``k`` most probable classes with their probabilities, most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.names[i], float(self.probabilities[i])) for i in order]

    def to_json(self) -> ClassesJson:
        """Return ``{"label", "probability", "probabilities": {class: p}}``."""
        return {
            "label": self.label,
            "probability": round(self.probability, 6),
            "probabilities": {n: round(float(p), 6) for n, p in zip(self.names, self.probabilities, strict=True)},
        }


MAX_HEAT_MAP_SIDE = 64
"""Places along a side of a heat map as it is sent."""


@described
class HeatMapJson(TypedDict):
    """Where in a picture lies what an answer rests on."""

    label: Annotated[str, Field(description="the class that is decided for")]
    heat_map: Annotated[
        list[list[Share]], Field(description="rows from the top, 0 (nothing) to 1 (the place that matters most)")
    ]
    area: Annotated[
        list[float],
        Field(
            min_length=4,
            max_length=4,
            description="what it covers: left, top, right, bottom, as parts of the upright picture's width and height",
        ),
    ]


@dataclass(frozen=True, eq=False)
class HeatMap:
    """What an answer to a picture rests on.

    Attributes:
        label: the class that is decided for.
        heat: (H, W) float, 0 (nothing) to 1 (the place that matters most).
        area: what it covers: left, top, right, bottom, as parts of the upright picture's width and height.
    """

    label: str
    heat: NDArray[np.floating[Any]]
    area: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    def to_json(self) -> HeatMapJson:
        """Return ``{"label", "heat_map", "area"}``; a place takes the largest value of those that it covers."""
        rows, columns = (-(-side // MAX_HEAT_MAP_SIDE) for side in self.heat.shape)
        height, width = -(-self.heat.shape[0] // rows), -(-self.heat.shape[1] // columns)
        padded = np.zeros((height * rows, width * columns), np.float64)
        padded[: self.heat.shape[0], : self.heat.shape[1]] = np.nan_to_num(self.heat)
        small = np.clip(padded.reshape(height, rows, width, columns).max((1, 3)), 0, 1)
        return {
            "label": self.label,
            "heat_map": [[round(float(v), 3) for v in row] for row in small],
            "area": [round(v, 4) for v in self.area],
        }


@described
class BoxesJson(TypedDict):
    """The objects in a picture, best first; entry i of each list is of object i."""

    height: Annotated[int, Field(ge=0, description="of the upright picture, in pixels")]
    width: Annotated[int, Field(ge=0, description="of the upright picture, in pixels")]
    boxes_xyxy: Annotated[
        list[Annotated[list[float], Field(min_length=4, max_length=4)]],
        Field(description="left, top, right, bottom in pixels of the upright picture"),
    ]
    labels: Annotated[list[str], Field(description="the class of each object")]
    scores: Annotated[list[Share], Field(description="how surely each is an object of its class")]
    ids: NotRequired[
        Annotated[list[int], Field(description="in a stream: numbers of objects, the same from frame to frame")]
    ]
    time_s: NotRequired[Annotated[float, Field(description="in a stream: seconds from its beginning")]]


@dataclass(frozen=True, eq=False)
class Boxes:
    """The objects found in one picture, best first. It indexes like an array: ``boxes[boxes.scores > 0.5]``.

    Attributes:
        size: height and width of the picture as it came, in pixels.
        names: the K class names.
        boxes_xyxy: (N, 4) float32, left, top, right, bottom in pixels of that picture; the origin is its upper left
            corner, and a box that covers it is (0, 0, width, height).
        scores: (N,) float32 from 0 to 1, how surely it is an object of its class.
        labels: (N,) int64, indices into ``names``.
        ids: (N,) int64, in a video the number of the object, the same from frame to frame; None where nothing is
            followed.
        time_s: in a video, seconds from its beginning; None elsewhere.
    """

    size: tuple[int, int]
    names: tuple[str, ...]
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64] | None = None
    time_s: float | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Any) -> Boxes:
        """Return some of the objects: a slice, a mask (N,) bool, or indices (M,) int."""
        ids = None if self.ids is None else self.ids[index]
        boxes_xyxy, scores, labels = self.boxes_xyxy[index], self.scores[index], self.labels[index]
        return Boxes(self.size, self.names, boxes_xyxy, scores, labels, ids, self.time_s)

    def to_json(self) -> BoxesJson:
        """Return ``{"height", "width", "boxes_xyxy", "labels", "scores"}``; in a video ``ids`` and ``time_s``, too."""
        values: BoxesJson = {
            "height": self.size[0],
            "width": self.size[1],
            "boxes_xyxy": [[round(float(v), 2) for v in box] for box in self.boxes_xyxy],
            "labels": [self.names[i] for i in self.labels],
            "scores": [round(float(s), 6) for s in self.scores],
        }
        if self.ids is not None:
            values["ids"] = self.ids.tolist()
        if self.time_s is not None:
            values["time_s"] = round(self.time_s, 4)
        return values


EventName = Literal["appears", "leaves", "crosses-left", "crosses-right", "enters", "exits"]


@described
class EventJson(TypedDict):
    """Something that an object did in a video."""

    time_s: Annotated[float, Field(description="when, in seconds from the beginning")]
    event: Annotated[EventName, Field(description="what it did; left and right as seen from a line's begin to its end")]
    id: Annotated[int, Field(description="the number of the object, as in ids")]
    label: Annotated[str, Field(description="its class")]
    where: NotRequired[Annotated[str, Field(description="the name of the line or zone")]]
    lasted_s: NotRequired[Annotated[float, Field(description="how long it was there, or in the zone")]]


@dataclass(frozen=True)
class Event:
    """Something that an object did that is followed in a video.

    Attributes:
        time_s: when, in seconds from the beginning.
        kind: what it did. Left and right of a line are those of someone who looks from its begin to its end.
        id: the number of the object, as in ``Boxes.ids``.
        label: its class.
        where: the name of the line or zone; empty of one that appears or leaves.
        lasted_s: how long one that leaves was there, or one that exits was in the zone; None of the others.
    """

    time_s: float
    kind: EventName
    id: int
    label: str
    where: str = ""
    lasted_s: float | None = None

    def to_json(self) -> EventJson:
        """Return ``{"time_s", "event", "id", "label"}``, and ``where`` and ``lasted_s`` where there are some."""
        values: EventJson = {
            "time_s": round(self.time_s, 4), "event": self.kind, "id": self.id, "label": self.label,
        }  # fmt: skip
        if self.where:
            values["where"] = self.where
        if self.lasted_s is not None:
            values["lasted_s"] = round(self.lasted_s, 4)
        return values


@described
class SidesJson(TypedDict):
    """What crossed a line."""

    left: Annotated[dict[str, int], Field(description="to the left: objects of each class")]
    right: Annotated[dict[str, int], Field(description="to the right: objects of each class")]


@described
class ZoneJson(TypedDict):
    """What was in a zone."""

    entered: Annotated[dict[str, int], Field(description="objects of each class that entered")]
    inside: Annotated[int, Field(description="objects that are inside now")]
    stayed_s: Annotated[float, Field(description="seconds inside, of all together")]


@described
class TallyJson(TypedDict):
    """What was counted in a video until now."""

    objects: Annotated[dict[str, int], Field(description="objects of each class")]
    lines: Annotated[dict[str, SidesJson], Field(description="of each line, by name")]
    zones: Annotated[dict[str, ZoneJson], Field(description="of each zone, by name")]


@dataclass(frozen=True)
class Tally:
    """What was counted in a video until now.

    Attributes:
        objects: how many there were of each class.
        lines: name -> ``{"left": {class: n}, "right": {class: n}}``: what crossed to that side.
        zones: name -> ``{"entered": {class: n}, "inside": n, "stayed_s": seconds of all together}``.
    """

    objects: dict[str, int]
    lines: dict[str, SidesJson] = field(default_factory=dict)
    zones: dict[str, ZoneJson] = field(default_factory=dict)

    def to_json(self) -> TallyJson:
        """Return ``{"objects", "lines", "zones"}``."""
        return {"objects": self.objects, "lines": self.lines, "zones": self.zones}


@described
class TextJson(TypedDict):
    """A text and how it goes on."""

    prompt: Annotated[str, Field(description="how it begins")]
    text: Annotated[str, Field(description="how it goes on")]


@dataclass(eq=False)
class Text:
    """A text that goes on from a prompt. It is written while it is read: ``pieces`` yields it bit by bit, once.

    Attributes:
        prompt: how it begins.
        pieces: the rest, in pieces of a token or so.
    """

    prompt: str
    pieces: Iterator[str] = field(repr=False)
    _text: str | None = None

    @property
    def text(self) -> str:
        """All of the rest."""
        if self._text is None:
            self._text = "".join(self.pieces)
        return self._text

    def to_json(self) -> TextJson:
        """Return ``{"prompt", "text"}``."""
        return {"prompt": self.prompt, "text": self.text}
