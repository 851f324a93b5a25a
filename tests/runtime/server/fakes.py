"""Models that answer at once and know nothing: a bundle is a JSON file that says which of them it is.

    {"fake": "pictures", "classes": ["dark", "light"], "batch_ms": 0, "input_ms": 0}

Run as a script it serves some of them until a signal comes, as ``dolmen serve`` does.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from dolmen.predictions import Boxes, Classes, Text
from dolmen.processors.audio.log_mel import LogMel
from dolmen.processors.images.image import ImageProcessor, UnreadableImageError
from dolmen.runtime.model import Model
from dolmen.tasks.speech_recognition.predictor.predictor import SpeechPredictor
from dolmen.tasks.speech_recognition.processors.speech import BOUNDARY, SpeechProcessor
from dolmen.tasks.token_classification.predictions import Spans
from dolmen.types import Arrays, Prediction, UserError


class NoOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaggingOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    n_best: int = Field(1, ge=1, le=100, description="so many readings of each sentence")


class GenerationOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    length: int = Field(400, ge=1, description="tokens to write (default 400)")
    temperature: float = Field(0.8, ge=0, description="below 1 bolder, above 1 more varied")
    stop: str | None = Field(None, description="end before this text")
    seed: int = Field(0, ge=0, description="of the choices")
    state: str | None = Field(None, description="a file: go on from the state in it")


class Fake:
    """What all of them have."""

    task_name = takes = ""
    Options: type[BaseModel] = NoOptions
    Streaming: type[BaseModel] = NoOptions
    labels: tuple[str, ...] = ()
    processor: Any = None

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path, self.values, self.predictor = path, values, self
        self.batches: list[int] = []

    def work(self, num_inputs: int) -> None:
        self.batches.append(num_inputs)
        time.sleep((self.values.get("batch_ms", 0) + num_inputs * self.values.get("input_ms", 0)) / 1000)

    def describe(self) -> dict[str, Any]:
        facts = {"task": self.task_name, "kind": "bundle", "takes": self.takes, "precision": "fp32"}
        return facts | {"labels": list(self.labels)}


class Pictures(Fake):
    """Dark or light, by the mean of the pixels."""

    task_name, takes = "image-classification", "picture"

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        super().__init__(path, values)
        self.labels = tuple(values.get("classes", ("dark", "light")))
        self.processor = ImageProcessor(classes=self.labels, height=16, width=16, channels=3)
        self.weights = np.linspace(-1, 1, len(self.labels))

    def network(self, inputs: Arrays) -> Arrays:
        bright = inputs["images"].mean((1, 2, 3)) / 127.5 - 1
        return {"logits": 4 * bright[:, None] * self.weights[None]}

    def predict_each(
        self, inputs: Iterable[Any], *, batch_size: int = 64
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        many = list(inputs)
        self.work(len(many))
        for raw in many:
            try:
                images = self.processor.encode(raw)["images"][None]
            except UnreadableImageError as error:
                yield raw, UserError(f"the picture can't be read: {error}")
                continue
            if images.max() == 0 and self.values.get("fails_on_black"):
                raise IndexError(f"what people sent: {images!r}")
            yield raw, self.processor.decode(self.network({"images": images}))[0]

    def heat_map(self, raw: Any) -> tuple[str, NDArray[np.float32]]:
        [(_, found)] = self.predict_each([raw])
        if isinstance(found, UserError):
            raise found
        assert isinstance(found, Classes)
        y, x = np.mgrid[:12, :12]
        return found.label, np.exp(-((x - 7) ** 2 + (y - 4) ** 2) / 8).astype(np.float32)

    def stream(self, *, idle_timeout_s: float | None = None) -> Any:
        return PictureSession(self)


class BoxOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    threshold: float | None = Field(None, ge=0, le=1, description="score from which on an object is reported")


class Objects(Pictures):
    """A square in the upper left corner, and a doubtful one in the lower right."""

    task_name, Options = "object-detection", BoxOptions
    heat_map: Any = None

    def predict_each(
        self, inputs: Iterable[Any], *, batch_size: int = 64, threshold: float | None = None
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        for raw, found in super().predict_each(inputs, batch_size=batch_size):
            if isinstance(found, UserError):
                yield raw, found
                continue
            width, height = Image.open(io.BytesIO(raw)).size
            boxes = np.array([[0, 0, width / 2, height / 2], [width / 2, height / 2, width, height]], np.float32)
            every = Boxes((height, width), self.labels, boxes, np.array([0.9, 0.2], np.float32), np.array([1, 0]))
            yield raw, every[every.scores >= (0.5 if threshold is None else threshold)]


class PictureSession:
    def __init__(self, model: Pictures) -> None:
        self.model = model

    def feed(self, chunk: Any) -> list[Prediction]:
        [(_, found)] = self.model.predict_each([chunk])
        if isinstance(found, UserError):
            raise found
        return [found]

    def finish(self) -> list[Prediction]:
        return []

    def reset(self) -> None:
        pass

    def save(self) -> bytes:
        return b"pictures"

    def restore(self, saved: bytes) -> None:
        if saved != b"pictures":
            raise UserError("this is no saved session; save one anew")


class Sentences(Fake):
    """Words with a capital are names, numbers are dates."""

    task_name, takes, Options = "token-classification", "text", TaggingOptions
    labels = ("PER", "DATE")

    def predict_each(
        self, inputs: Iterable[Any], *, batch_size: int = 64, n_best: int = 1
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        many = list(inputs)
        self.work(len(many))
        for raw in many:
            text = raw if isinstance(raw, str) else " ".join(raw)
            yield raw, self.tagged(text, n_best) if text.strip() else UserError("the sentence is empty; give one")

    def tagged(self, text: str, n_best: int) -> Spans:
        found = list(re.finditer(r"\S+", text))
        tags = tuple("PER" if w[0][0].isupper() else "DATE" if w[0][0].isdigit() else "O" for w in found)
        sure = tuple(0.5 + 0.49 * (len(w[0]) % 7) / 6 for w in found)
        spans = tuple((w.start(), w.end(), t, w[0], p) for w, t, p in zip(found, tags, sure, strict=True) if t != "O")
        offsets = tuple(w.span() for w in found)
        return Spans(text, tuple(w[0] for w in found), offsets, tags, sure, spans, ((0.5, tags),) * n_best)

    def stream(self, *, idle_timeout_s: float | None = None) -> Any:
        return LineSession(self)


class LineSession:
    def __init__(self, model: Sentences) -> None:
        self.model, self.held = model, ""

    def feed(self, chunk: str) -> list[Prediction]:
        *lines, self.held = (self.held + chunk).split("\n")
        return [self.model.tagged(line, 1) for line in lines if line.strip()]

    def finish(self) -> list[Prediction]:
        return self.feed("\n")

    def reset(self) -> None:
        self.held = ""

    def save(self) -> bytes:
        return self.held.encode()

    def restore(self, saved: bytes) -> None:
        self.held = saved.decode()


class Texts(Fake):
    """Counts: the text goes on with number after number."""

    task_name, takes, Options = "text-generation", "text", GenerationOptions

    def predict_each(
        self, inputs: Iterable[Any], *, batch_size: int = 64, **options: Any
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        for raw in inputs:
            if isinstance(raw, str):
                yield raw, Text(raw, self.pieces(**options))
            else:
                yield raw, UserError(f"a text to begin with was expected, not {type(raw).__name__}")

    def pieces(self, *, length: int = 400, seed: int = 0, **_: Any) -> Iterator[str]:
        assert "state" not in _
        for number in itertools.islice(itertools.count(seed), min(length, self.values.get("most", length))):
            time.sleep(self.values.get("input_ms", 0) / 1000)
            yield f" {number}"

    def stream(self, *, idle_timeout_s: float | None = None) -> Any:
        return TextSession(self)


class TextSession(LineSession):
    def write(self, **options: Any) -> Iterator[str]:
        for piece in self.model.pieces(**options):  # type: ignore[attr-defined]
            self.held += piece
            yield piece

    def feed(self, chunk: str) -> list[Prediction]:
        self.held += chunk
        return []


class YesNo:
    """A network of log-mel frames: a low sound is "yes", surely; a high one is "no", less surely."""

    def __init__(self) -> None:
        self.state: Arrays = {}

    def __call__(self, inputs: Arrays) -> Arrays:
        return {"log_probabilities": np.stack([self.read(frames) for frames in inputs["frames"]])}

    def steps(self) -> YesNo:
        return self

    def reset(self) -> None:
        pass

    def read(self, steps: NDArray[Any]) -> NDArray[np.float32]:
        bands = steps.mean(1)
        loud, high = bands.max(1) > -2, bands.argmax(1) > bands.shape[1] // 2
        chosen = np.where(loud, 1 + high, 0)
        return np.log(np.array([[0.98, 0.01, 0.01], [0.02, 0.97, 0.01], [0.2, 0.2, 0.6]], np.float32))[chosen]


class Recordings(Model):
    """Yes or no, by the pitch of a sound; all around the network is what serves real ones."""

    task_name, kind = "speech-recognition", "bundle"

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        front = LogMel(rate=values.get("rate", 8000))
        units = ("", BOUNDARY + "yes", BOUNDARY + "no")
        processor = SpeechProcessor(kind="words", units=units, front=front, streams=values.get("streams", True))
        self._predictor = SpeechPredictor(processor, YesNo())

    @property
    def predictor(self) -> SpeechPredictor:
        return self._predictor


def sound(
    *pitches_hz: float,
    rate: int = 8000,
    each_s: float = 0.4,
    gap_s: float = 0.8,
    format: str = "WAV",
    channels: int = 1,
) -> bytes:
    """A recording of tones, with a silence behind each."""
    times = np.arange(round(each_s * rate)) / rate
    parts = [np.zeros(round(gap_s * rate) // 2)]
    for pitch in pitches_hz:
        parts += [0.3 * np.sin(2 * np.pi * pitch * times), np.zeros(round(gap_s * rate))]
    file = io.BytesIO()
    soundfile.write(file, np.tile(np.concatenate(parts)[:, None], (1, channels)), rate, format=format)
    return file.getvalue()


KINDS = {"pictures": Pictures, "recordings": Recordings, "objects": Objects, "sentences": Sentences, "texts": Texts}


def open_fake(path: Path) -> Any:
    """A fake by its file."""
    try:
        values = json.loads(path.read_text())
        return KINDS[values["fake"]](path, values)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is no bundle: {type(error).__name__}") from None


def write_fake(folder: Path, fake: str, name: str = "", **values: Any) -> Path:
    """A bundle, written in one go."""
    path = folder / f"{name or fake}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"fake": fake, **values}))
    temporary.replace(path)
    return path


def png(shade: int = 200, size: tuple[int, int] = (20, 10), format: str = "PNG") -> bytes:
    """A picture of one shade."""
    file = io.BytesIO()
    Image.new("RGB", size, (shade,) * 3).save(file, format)
    return file.getvalue()


if __name__ == "__main__":
    from dolmen.runtime.server.serve import named, serve

    given = json.loads(sys.argv[1])
    serve(named(sys.argv[2:]), open_model=open_fake, announce=lambda text: print(text, flush=True), **given)
