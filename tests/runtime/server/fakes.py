"""Models that answer at once and know nothing: a bundle is a JSON file that says which of them it is.

    {"fake": "pictures", "classes": ["dark", "light"], "batch_ms": 0, "input_ms": 0}

Each is the task's own predictor around a network that is made up, or with only its answers made up, so that what the
server asks of a model is what it will be asked of a real one.

Run as a script it serves some of them until a signal comes, as ``dolmen serve`` does.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field
from safetensors.numpy import load
from typing_extensions import TypedDict

from dolmen.catalogue import TASKS, TaskEntry
from dolmen.predictions import Boxes, Classes, HeatMap, Text
from dolmen.processors.audio.log_mel import LogMel
from dolmen.processors.text.tokens import TextProcessor
from dolmen.runtime.model import Model
from dolmen.runtime.network import Network, Steps
from dolmen.runtime.options import Served
from dolmen.runtime.pictures import area_seen
from dolmen.runtime.predictor import Predictor, Session
from dolmen.tasks.image_classification.predictor import ClassificationPredictor
from dolmen.tasks.image_classification.processor import ClassificationProcessor
from dolmen.tasks.object_detection.predictor.predictor import DetectionPredictor
from dolmen.tasks.object_detection.processor import DetectionProcessor
from dolmen.tasks.speech_recognition.predictor.predictor import SpeechPredictor
from dolmen.tasks.speech_recognition.processors.speech import BOUNDARY, SpeechProcessor
from dolmen.tasks.text_generation.predictor import GenerationOptions, TextPredictor
from dolmen.tasks.token_classification.predictions import Spans
from dolmen.tasks.token_classification.predictor import SentencePredictor
from dolmen.tasks.token_classification.processor import TagProcessor
from dolmen.types import Arrays, Prediction, UserError, described

Answers = Iterator[tuple[Any, Prediction | UserError]]


class Load:
    """How long answers take, and how many inputs were answered together.

    Args:
        values: of the fake's file.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values, self.batches = values, list[int]()

    def work(self, num_inputs: int) -> None:
        self.batches.append(num_inputs)
        time.sleep((self.values.get("batch_ms", 0) + num_inputs * self.values.get("input_ms", 0)) / 1000)


class NoNetwork(Network):
    """Of a predictor whose answers are made up."""

    def __call__(self, inputs: Arrays) -> Arrays:
        raise AssertionError("nothing is computed here")


class Brightness(Network):
    """Logits by the mean of the pixels: the first class is the darkest."""

    def __init__(self, num_classes: int) -> None:
        self.weights = np.linspace(-1, 1, num_classes)

    def __call__(self, inputs: Arrays) -> Arrays:
        bright = inputs["images"].mean((1, 2, 3)) / 127.5 - 1
        return {"logits": 4 * bright[:, None] * self.weights[None]}


class Pictures(ClassificationPredictor):
    """Dark or light, by the mean of the pixels."""

    def __init__(self, values: dict[str, Any]) -> None:
        classes = tuple(values.get("classes", ("dark", "light")))
        super().__init__(
            ClassificationProcessor(classes=classes, height=16, width=16, channels=3), Brightness(len(classes))
        )
        self.load = Load(values)

    def predict(self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64) -> Answers:
        many = list(inputs)
        self.load.work(len(many))
        for raw, found in super().predict(many, options, batch_size=batch_size):
            if self.load.values.get("fails_on_black") and not isinstance(found, UserError):
                images = self.processor.encode(raw)["images"]
                if images.max() == 0:
                    raise IndexError(f"what people sent: {images!r}")
            yield raw, found

    def explain_input(self, raw: Any) -> HeatMap:
        [(_, found)] = self.predict([raw], self.Options())
        if isinstance(found, UserError):
            raise found
        assert isinstance(found, Classes)
        y, x = np.mgrid[:12, :12]
        heat = np.exp(-((x - 7) ** 2 + (y - 4) ** 2) / 8).astype(np.float32)
        return HeatMap(found.label, heat, area_seen(raw, (16, 16), self.processor.fit))


class Objects(DetectionPredictor):
    """A square in the upper left corner, and a doubtful one in the lower right."""

    def __init__(self, values: dict[str, Any]) -> None:
        classes = tuple(values.get("classes", ("dark", "light")))
        anchors = (((8.0, 8.0),),) * 3
        super().__init__(
            DetectionProcessor(classes=classes, height=32, width=32, channels=3, anchors=anchors), NoNetwork()
        )
        self.load = Load(values)

    def predict(self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64) -> Answers:
        many = list(inputs)
        self.load.work(len(many))
        for raw, example in zip(many, self.encode_all(many), strict=True):
            if isinstance(example, UserError):
                yield raw, example
                continue
            height, width = example["size"].tolist()
            boxes = np.array([[0, 0, width / 2, height / 2], [width / 2, height / 2, width, height]], np.float32)
            scores, labels = np.array([0.9, 0.2], np.float32), np.array([1, 0])
            everything = Boxes((height, width), self.labels(), boxes, scores, labels)
            yield raw, self.processor.reported(everything, getattr(options, "threshold", None))


class Sentences(SentencePredictor):
    """Words with a capital are names, numbers are dates."""

    def __init__(self, values: dict[str, Any]) -> None:
        tags = ("O", *(f"{part}-{label}" for label in ("PER", "DATE") for part in "BIES"))
        super().__init__(TagProcessor(kind="spans", words=("",), characters="\0", labels=tags), NoNetwork())
        self.load = Load(values)

    def predict(self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64) -> Answers:
        many = list(inputs)
        self.load.work(len(many))
        for raw in many:
            text = raw if isinstance(raw, str) else " ".join(raw)
            empty = UserError("the sentence is empty; give one")
            yield raw, self.tagged(text, getattr(options, "n_best", 1)) if text.strip() else empty

    def tagged(self, text: str, n_best: int) -> Spans:
        found = list(re.finditer(r"\S+", text))
        tags = tuple("PER" if w[0][0].isupper() else "DATE" if w[0][0].isdigit() else "O" for w in found)
        sure = tuple(0.5 + 0.49 * (len(w[0]) % 7) / 6 for w in found)
        spans = tuple((w.start(), w.end(), t, w[0], p) for w, t, p in zip(found, tags, sure, strict=True) if t != "O")
        offsets = tuple(w.span() for w in found)
        return Spans(text, tuple(w[0] for w in found), offsets, tags, sure, spans, ((0.5, tags),) * n_best)


class EndlessOptions(GenerationOptions):
    """Those of the task, but for texts that are longer than any test waits for."""

    length: Annotated[int, Served()] = Field(400, ge=1, description="tokens to write (default 400)")


class Texts(TextPredictor):
    """Counts: the text goes on with number after number."""

    Options = EndlessOptions

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(TextProcessor(units="characters", symbols=("", "a")), NoNetwork())
        self.load = Load(values)

    def predict(self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64) -> Answers:
        for raw in inputs:
            if isinstance(raw, str):
                yield raw, Text(raw, self.counted(options))
            else:
                yield raw, UserError(f"a text to begin with was expected, not {type(raw).__name__}")

    def counted(self, options: BaseModel) -> Iterator[str]:
        assert isinstance(options, EndlessOptions)
        assert options.state is None
        most = self.load.values.get("most", options.length)
        pause_s = self.load.values.get("input_ms", 0) / 1000
        for number in itertools.islice(itertools.count(options.seed), min(options.length, most)):
            if pause_s:  # without one, a sleep would still hand the processor to others
                time.sleep(pause_s)
            yield f" {number}"

    def session(self, idle_timeout_s: float | None = None, options: BaseModel | None = None) -> Session:  # type: ignore[override]
        return CountingSession(self, idle_timeout_s)


class CountingSession(Session):
    """Keeps what it reads and writes."""

    def __init__(self, predictor: Texts, idle_timeout_s: float | None) -> None:
        super().__init__(idle_timeout_s)
        self.predictor, self.held = predictor, ""

    def write(self, **options: Any) -> Iterator[str]:
        for piece in self.predictor.counted(EndlessOptions(**options)):
            self.held += piece
            yield piece

    def _feed(self, chunk: Any) -> list[Prediction]:
        self.held += chunk
        return []

    def _reset(self) -> None:
        self.held = ""

    def _save(self) -> tuple[Arrays, dict[str, Any]]:
        return {}, {"held": self.held}

    def _restore(self, arrays: Arrays, about: dict[str, Any]) -> bool:
        self.held = about["held"]
        return not arrays


class YesNo(Network, Steps):
    """A network of log-mel frames: a low sound is "yes", surely; a high one is "no", less surely."""

    def __call__(self, inputs: Arrays) -> Arrays:
        return {"log_probabilities": np.stack([self.read(frames) for frames in inputs["frames"]])}

    def steps(self) -> YesNo:
        return self

    @property
    def state(self) -> Arrays:
        return {}

    @state.setter
    def state(self, state: Arrays) -> None:
        assert not state

    def reset(self) -> None:
        pass

    def read(self, steps: NDArray[Any]) -> NDArray[np.float32]:
        bands = steps.mean(1)
        loud, high = bands.max(1) > -2, bands.argmax(1) > bands.shape[1] // 2
        chosen = np.where(loud, 1 + high, 0)
        return np.log(np.array([[0.98, 0.01, 0.01], [0.02, 0.97, 0.01], [0.2, 0.2, 0.6]], np.float32))[chosen]


class Recordings(SpeechPredictor):
    """Yes or no, by the pitch of a sound; all around the network is what serves real ones."""

    def __init__(self, values: dict[str, Any]) -> None:
        front = LogMel(rate=values.get("rate", 8000))
        units = ("", BOUNDARY + "yes", BOUNDARY + "no")
        streams = values.get("streams", True)
        super().__init__(SpeechProcessor(kind="words", units=units, front=front, streams=streams), YesNo())
        self.load = Load(values)


@described
class LengthJson(TypedDict):
    """How long a text is."""

    length: Annotated[int, Field(ge=0, description="in characters")]


@dataclass(frozen=True)
class Length:
    length: int

    def to_json(self) -> LengthJson:
        return {"length": self.length}


class LengthOptions(BaseModel):
    factor: Annotated[int, Served()] = Field(1, ge=1, description="that the length is multiplied by")


class Lengths(Predictor[None]):
    """A task of somebody else's package: all that a predictor must have, and nothing more."""

    takes, PredictionType, Options = "text", Length, LengthOptions

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(None, NoNetwork())
        sys.path.append(values.get("path", "."))
        TASKS["text-length"] = TaskEntry("", "", "", values.get("package", "json"), does="says how long a text is")

    def predict(self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64) -> Answers:
        assert isinstance(options, LengthOptions)
        for raw in inputs:
            yield raw, Length(options.factor * len(raw))

    def example(self) -> Any:
        return "a text"

    def session(self, idle_timeout_s: float | None = None, options: BaseModel | None = None) -> Session:
        return LengthSession(idle_timeout_s)

    def pieces(self, source: str, options: BaseModel) -> Iterator[Any]:
        yield source


class LengthSession(Session):
    """The length of all that came."""

    num_characters = 0

    def _feed(self, chunk: Any) -> list[Prediction]:
        self.num_characters += len(chunk)
        return [Length(self.num_characters)]

    def _reset(self) -> None:
        self.num_characters = 0

    def _save(self) -> tuple[Arrays, dict[str, Any]]:
        return {}, {"num_characters": self.num_characters}

    def _restore(self, arrays: Arrays, about: dict[str, Any]) -> bool:
        self.num_characters = about["num_characters"]
        return not arrays


FAKES: dict[str, tuple[str, type[Predictor[Any]]]] = {
    "pictures": ("image-classification", Pictures),
    "recordings": ("speech-recognition", Recordings),
    "objects": ("object-detection", Objects),
    "sentences": ("token-classification", Sentences),
    "texts": ("text-generation", Texts),
    "lengths": ("text-length", Lengths),
}


class FakeModel(Model):
    """A bundle with a fake in it."""

    kind = "bundle"

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self.task_name, fake = FAKES[values["fake"]]
        self._predictor: Any = fake(values)  # type: ignore[arg-type, call-arg]

    @property
    def predictor(self) -> Predictor[Any]:
        return self._predictor  # type: ignore[no-any-return]

    @property
    def batches(self) -> list[int]:
        """How many inputs were answered together, each time."""
        return self._predictor.load.batches  # type: ignore[no-any-return]


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


def open_fake(path: Path) -> FakeModel:
    """A fake by its file."""
    try:
        return FakeModel(path, json.loads(path.read_text()))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is no bundle: {type(error).__name__}") from None


def write_fake(folder: Path, fake: str, name: str = "", **values: Any) -> Path:
    """A bundle, written in one go."""
    path = folder / f"{name or fake}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"fake": fake, **values}))
    temporary.replace(path)
    return path


def held_in(saved: str) -> str:
    """The text in a saved session of the fakes, as the server sends it."""
    return str(json.loads(load(base64.b64decode(saved))["about"].tobytes())["held"])


def png(shade: int = 200, size: tuple[int, int] = (20, 10), format: str = "PNG") -> bytes:
    """A picture of one shade."""
    file = io.BytesIO()
    Image.new("RGB", size, (shade,) * 3).save(file, format)
    return file.getvalue()


if __name__ == "__main__":
    from dolmen.runtime.server.serve import named, serve

    given = json.loads(sys.argv[1])
    serve(named(sys.argv[2:]), open_model=open_fake, announce=lambda text: print(text, flush=True), **given)
