"""Answers that several tasks give, or that several floors read; each is also what the server sends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


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

    def to_json(self) -> dict[str, Any]:
        """Return ``{"label", "probability", "probabilities": {class: p}}``."""
        return {
            "label": self.label,
            "probability": round(self.probability, 6),
            "probabilities": {n: round(float(p), 6) for n, p in zip(self.names, self.probabilities, strict=True)},
        }


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
        some = self.boxes_xyxy[index], self.scores[index], self.labels[index], ids
        return Boxes(self.size, self.names, *some, self.time_s)

    def to_json(self) -> dict[str, Any]:
        """Return ``{"height", "width", "boxes_xyxy", "labels", "scores"}``; in a video ``ids`` and ``time_s``, too."""
        found: dict[str, Any] = {
            "height": self.size[0],
            "width": self.size[1],
            "boxes_xyxy": [[round(float(v), 2) for v in box] for box in self.boxes_xyxy],
            "labels": [self.names[i] for i in self.labels],
            "scores": [round(float(s), 6) for s in self.scores],
        }
        if self.ids is not None:
            found["ids"] = self.ids.tolist()
        if self.time_s is not None:
            found["time_s"] = round(self.time_s, 4)
        return found


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
    kind: Literal["appears", "leaves", "crosses-left", "crosses-right", "enters", "exits"]
    id: int
    label: str
    where: str = ""
    lasted_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return ``{"time_s", "event", "id", "label"}``, and ``where`` and ``lasted_s`` where there are some."""
        found: dict[str, Any] = {
            "time_s": round(self.time_s, 4), "event": self.kind, "id": self.id, "label": self.label,
        }  # fmt: skip
        if self.where:
            found["where"] = self.where
        if self.lasted_s is not None:
            found["lasted_s"] = round(self.lasted_s, 4)
        return found


@dataclass(frozen=True)
class Tally:
    """What was counted in a video until now.

    Attributes:
        objects: how many there were of each class.
        lines: name -> ``{"left": {class: n}, "right": {class: n}}``: what crossed to that side.
        zones: name -> ``{"entered": {class: n}, "inside": n, "stayed_s": seconds of all together}``.
    """

    objects: dict[str, int]
    lines: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    zones: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return ``{"objects", "lines", "zones"}``."""
        return {"objects": self.objects, "lines": self.lines, "zones": self.zones}


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

    def to_json(self) -> dict[str, Any]:
        """Return ``{"prompt", "text"}``."""
        return {"prompt": self.prompt, "text": self.text}
