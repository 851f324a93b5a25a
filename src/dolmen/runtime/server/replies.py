"""The replies as OpenAPI describes them; what is sent is ``to_json()`` of the prediction types."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Reply(BaseModel):
    """Nothing is sent that is not described."""

    model_config = ConfigDict(extra="forbid")


class Problem(Reply):
    """Why there is no answer."""

    error: str = Field(description="one sentence: what was found, what was expected, what to do")


class ClassesReply(Reply):
    """Which class it is."""

    label: str
    probability: float = Field(ge=0, le=1)
    probabilities: dict[str, float]


class BoxesReply(Reply):
    """The objects in a picture, best first; the lists are as long as there are objects."""

    height: int = Field(ge=1, description="of the upright picture, in pixels")
    width: int = Field(ge=1)
    boxes_xyxy: list[Annotated[list[float], Field(min_length=4, max_length=4)]] = Field(
        description="left, top, right, bottom in pixels; the origin is the picture's upper left corner"
    )
    labels: list[str]
    scores: list[Annotated[float, Field(ge=0, le=1)]]


class SpanReply(Reply):
    """A span of a sentence; ``start`` and ``end`` count characters."""

    start: int
    end: int
    label: str
    text: str
    confidence: float


class TokenReply(Reply):
    """A word with its tag."""

    start: int
    end: int
    text: str
    tag: str
    confidence: float


class WholeReply(Reply):
    """A reading of a whole sentence."""

    probability: float
    tags: list[str]


class SpansReply(Reply):
    """A sentence with its tags."""

    text: str
    spans: list[SpanReply]
    tokens: list[TokenReply]
    readings: list[WholeReply] = Field(default=[], description="where n_best is more than 1")


class TextReply(Reply):
    """A text and how it goes on."""

    prompt: str
    text: str


class WordReply(Reply):
    """A word that was heard, and when, in seconds from the beginning."""

    text: str
    start_s: float
    end_s: float
    confidence: float


class ReadingReply(Reply):
    """What may have been said."""

    text: str
    probability: float


class TranscriptReply(Reply):
    """What was said in a recording, or in a stretch of a stream."""

    text: str
    confidence: float = Field(ge=0, le=1)
    start_s: float
    end_s: float
    final: bool = Field(description="false while a stretch goes on, and what is said of it may change")
    words: list[WordReply]
    rejected: bool = Field(default=False, description="whether it was none of the commands")
    alternatives: list[ReadingReply] = Field(default=[], description="where n_best is more than 1")


class OtherReply(BaseModel):
    """Of a task that this version of the server knows nothing more about."""


PREDICTIONS: dict[str, type[BaseModel]] = {
    "image-classification": ClassesReply,
    "object-detection": BoxesReply,
    "token-classification": SpansReply,
    "text-generation": TextReply,
    "speech-recognition": TranscriptReply,
}


class HeatMapReply(Reply):
    """What an answer rests on."""

    label: str
    heat_map: list[list[float]] = Field(description="rows from the top, 0 (nothing) to 1 (the place that matters most)")
    area: list[float] = Field(
        min_length=4, max_length=4,
        description="what it covers: left, top, right, bottom, as parts of the upright picture's width and height",
    )  # fmt: skip


class LimitsReply(Reply):
    """What one request may hold."""

    max_bytes: int
    max_inputs: int
    max_pixels: int
    max_seconds: float
    max_characters: int


class ModelReply(Reply):
    """A model that is served."""

    name: str
    task: str
    takes: str = Field(description="picture, recording or text")
    kind: str = Field(description="run or bundle")
    precision: str | None = None
    labels: list[str] = []
    explains: bool = Field(description="whether it has /explain")
    streams: bool = Field(description="whether it takes input piece by piece, over /stream")
    options: dict[str, Any] = Field(description="JSON schema of the options")
    stream_options: dict[str, Any] = Field(description="JSON schema of the options that a session begins with")
    version: int = Field(description="1, and one more each time that the model was loaded again")
    limits: LimitsReply


class ModelsReply(Reply):
    """All models that are served."""

    models: list[ModelReply]


class HealthReply(Reply):
    """Whether the server is there, or ready."""

    status: str


def predictions_of(task: str, name: str) -> dict[str, Any]:
    """JSON schema of what ``predict`` replies."""
    one = PREDICTIONS.get(task, OtherReply).__name__
    each = {"anyOf": [{"$ref": f"#/components/schemas/{one}"}, {"$ref": "#/components/schemas/Problem"}]}
    return {
        "type": "object",
        "properties": {"model": {"const": name}, "predictions": {"type": "array", "items": each, "minItems": 1}},
        "required": ["model", "predictions"],
        "additionalProperties": False,
    }
