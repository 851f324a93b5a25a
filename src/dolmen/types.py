"""What flows between the rooms of the house: examples, batches, predictions, findings, evaluations, errors.

Nothing here imports anything of ours, and nothing here imports torch: the same types are used in training,
in prediction, by the server and on a device that has only numpy.

An *example* is one thing a person brought, as named numpy arrays: ``{"images": (H, W, C) uint8}``.
A *batch* is the same names with a leading batch axis; during training the values are torch tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Example = dict[str, NDArray[Any]]
Arrays = dict[str, NDArray[Any]]


class UserError(ValueError):
    """A person's arguments or data are wrong: one sentence says what was found, what was expected, what to type.

    The command line prints the sentence and leaves with status 2; it never shows a traceback for this.
    """


class MachineError(RuntimeError):
    """The work failed through no fault of the arguments (disk full, loss diverged): one sentence, status 1."""


class Prediction(Protocol):
    """One answer to one input."""

    def to_json(self) -> dict[str, Any]:
        """Return the answer as plain JSON values."""
        ...


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


@dataclass(frozen=True, eq=False)
class Spans:
    """A sentence with its tags.

    Attributes:
        text: the sentence; of words that came alone, joined by spaces.
        words: T of them.
        offsets: start and end of each word in ``text``.
        tags: of the words, in the most probable reading of the whole sentence.
        confidences: probability of each tag.
        spans: (start, end, label, text, probability that exactly this is a span) with offsets in ``text``.
        readings: (probability, tags) of whole sentences, the most probable first.
    """

    text: str
    words: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]
    confidences: tuple[float, ...]
    spans: tuple[tuple[int, int, str, str, float], ...]
    readings: tuple[tuple[float, tuple[str, ...]], ...]

    def to_json(self) -> dict[str, Any]:
        """Return text, spans, tokens and readings as plain JSON values."""
        found: dict[str, Any] = {
            "text": self.text,
            "spans": [
                {"start": s, "end": e, "label": label, "text": text, "confidence": round(p, 6)}
                for s, e, label, text, p in self.spans
            ],
            "tokens": [
                {"start": s, "end": e, "text": word, "tag": tag, "confidence": round(p, 6)}
                for (s, e), word, tag, p in zip(self.offsets, self.words, self.tags, self.confidences, strict=True)
            ],
        }
        if len(self.readings) > 1:
            found["readings"] = [{"probability": round(p, 6), "tags": list(tags)} for p, tags in self.readings]
        return found


@dataclass(frozen=True)
class Word:
    """A word that was heard.

    Attributes:
        text: the word.
        start_s: from where on the network names it, in seconds from the beginning of the recording or stream. One that
            names whole words does so once it has heard them: about where the word ends.
        end_s: until where it does.
        confidence: 0..1, how surely it was this word.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float

    def to_json(self) -> dict[str, Any]:
        """Return ``{"text", "start_s", "end_s", "confidence"}``."""
        return {
            "text": self.text,
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "confidence": round(self.confidence, 6),
        }


@dataclass(frozen=True, eq=False)
class Transcript:
    """What was said in a recording, or in a stretch of a stream.

    Attributes:
        text: all words; empty where nothing was said, or nothing of what may be said.
        words: with their times.
        confidence: 0..1, how surely all of it is right; where unsure words are left out, how surely the others
            are, and 0 where none is left.
        start_s: where the stretch begins, in seconds.
        end_s: where it ends.
        final: False while the stretch goes on, and what is said of it may change.
        rejected: True where only some sentences may be said, and this was none of them.
        alternatives: (text, probability) of the most probable readings, this one first; probabilities sum to 1.
    """

    text: str
    words: tuple[Word, ...]
    confidence: float
    start_s: float
    end_s: float
    final: bool = True
    rejected: bool = False
    alternatives: tuple[tuple[str, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return text, words, confidence, start and end, and alternatives where there are some."""
        found: dict[str, Any] = {
            "text": self.text,
            "confidence": round(self.confidence, 6),
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "final": self.final,
            "words": [word.to_json() for word in self.words],
        }
        if self.rejected:
            found["rejected"] = True
        if len(self.alternatives) > 1:
            found["alternatives"] = [{"text": text, "probability": round(p, 6)} for text, p in self.alternatives]
        return found


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


class Skipped(BaseModel):
    """A file that is in the data and is not used, with the reason in a few words."""

    model_config = ConfigDict(frozen=True)

    name: str
    reason: str


class Finding(BaseModel):
    """One thing that ``check`` noticed.

    Attributes:
        code: short stable name, e.g. ``exact-duplicates-across-splits``.
        level: ``leak`` makes ``train`` refuse (until told ``--allow-leaks``), ``error`` makes it stop, ``warning``
            is shown, ``info`` is written down.
        message: one sentence for a person: what was found, and what to do.
        count: how many there are in all.
        items: the first ones, by name (at most 20 are kept; of suspect labels all), each a file name, a pair
            "a = b", or for a label "name: labelled a, looks like b".
    """

    model_config = ConfigDict(frozen=True)

    code: str
    level: Literal["leak", "error", "warning", "info"]
    message: str
    count: int = 0
    items: tuple[str, ...] = ()


class CheckReport(BaseModel):
    """What is in the data, what is wrong with it, what would leak. The same type for every task.

    Attributes:
        num_files: everything that the source holds; always ``num_used + len(skipped)``.
        num_used: examples that training or evaluation will see.
        skipped: every other file, with its reason.
        counts: ``{split: {class: number}}`` of the used examples (splits as they will be used).
        summary: a few named facts, e.g. ``{"picture size": "32 x 32 (all)"}``.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    source: str
    num_files: int
    num_used: int
    skipped: tuple[Skipped, ...] = ()
    counts: dict[str, dict[str, int]] = {}
    summary: dict[str, str] = {}
    findings: tuple[Finding, ...] = ()

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """The findings for which training refuses."""
        return tuple(f for f in self.findings if f.level == "leak")

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make training impossible."""
        return tuple(f for f in self.findings if f.level == "error")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good a model is on a data set.

    Attributes:
        metrics: name (the field's, snake case) to number.
        intervals: metric name to its 95 % interval.
        tables: small JSON-able extras, e.g. ``{"confusion": [[...]], "per_class": [...]}``.
        arrays: per-example arrays that the report draws from (``labels (N,)``, ``probabilities (N, K)``,
            ``indices (N,)`` into the data set).
    """

    task: str
    num_examples: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``evaluate --json`` prints (without the per-example arrays)."""
        return {
            "task": self.task,
            "num_examples": self.num_examples,
            "metrics": self.metrics,
            "intervals": {k: list(v) for k, v in self.intervals.items()},
            **self.tables,
        }


@dataclass(frozen=True)
class Section:
    """A part of the report that only this task has.

    Attributes:
        title: heading.
        html: trusted HTML, self-contained (pictures as data URIs).
        lead: one or two sentences under the heading: what is to be seen here.
    """

    title: str
    html: str
    lead: str = ""
