"""The server's own replies; those that hold predictions are described by the prediction types themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Reply(BaseModel):
    """Nothing is sent that is not described."""

    model_config = ConfigDict(extra="forbid")


class Problem(Reply):
    """Why there is no answer."""

    error: str = Field(description="one sentence: what was found, what was expected, what to do")


class LimitsReply(Reply):
    """What one request may hold."""

    max_bytes: int = Field(description="bytes of a body")
    max_inputs: int = Field(description="inputs")
    max_pixels: int = Field(description="pixels of a picture")
    max_seconds: float = Field(description="seconds of a recording")
    max_characters: int = Field(description="characters of a text")


class ModelReply(Reply):
    """A model that is served."""

    name: str = Field(description="as in the address")
    task: str = Field(description="as dolmen tasks lists it")
    does: str = Field(description="what it does, as a sentence goes on after its name")
    takes: str = Field(description="picture, recording or text")
    media: list[str] = Field(description="types of a body that is one input")
    kind: str = Field(description="run or bundle")
    precision: str = Field(description="of its weights")
    labels: list[str] = Field(description="what it can answer, where that is a list of names")
    explains: bool = Field(description="whether it has /explain")
    streams: bool = Field(description="whether it takes input piece by piece, over /stream")
    options: dict[str, Any] = Field(description="JSON schema of the options")
    stream_options: dict[str, Any] = Field(description="JSON schema of the options that a session begins with")
    panel: str | None = Field(description="module of the page that shows this task; null where it has none")
    version: int = Field(description="1, and one more each time that the model was loaded again")
    limits: LimitsReply = Field(description="what one request may hold")


class ModelsReply(Reply):
    """All models that are served."""

    models: list[ModelReply] = Field(description="in the order in which they were given")


class HealthReply(Reply):
    """Whether the server is there, or ready."""

    status: str = Field(description="ok, or ready")
