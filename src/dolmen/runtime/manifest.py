"""What ``bundle.json`` may say, in one place: what export writes and what is read, in both formats."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dolmen.runtime.network import MODEL, ArraySpec
from dolmen.types import UserError

FORMAT: Final = 2
"""2: several graphs by name; 1: one, which is called "model"."""
MAX_FILE_BYTES = 1 << 31
"""No ONNX file is larger."""

Name = Annotated[str, Field(min_length=1, max_length=200)]


class GraphEntry(BaseModel):
    """A graph of a bundle.

    Attributes:
        file: in which it is.
        opset: of ONNX.
        inputs: by name, in their order; None in format 1.
        outputs: by name, in their order; None in format 1.
        states: output by the input that it becomes at the next call.
        dequantise_at_load: weights of eight bits become fp32 when it is opened, and not at every call.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    file: Name
    opset: int | None = None
    inputs: dict[Name, ArraySpec] | None = None
    outputs: dict[Name, ArraySpec] | None = None
    states: dict[Name, Name] = {}
    dequantise_at_load: bool = False


class FileEntry(BaseModel):
    """A file of a bundle.

    Attributes:
        sha256: of its content, hexadecimal.
        bytes: its size.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=MAX_FILE_BYTES)


class Manifest(BaseModel):
    """The content of ``bundle.json``.

    Attributes:
        format: ``FORMAT``.
        dolmen: the version that wrote it.
        task: what the bundle does.
        made_of: name of the run.
        precision: of the graphs' weights.
        graphs: by name.
        processor: as the task's processor reads it.
        files: all others of the bundle, by name.
        evaluation: metrics by split; None for what is not finite.
        parity: how the graphs were compared with the run.
        licences: what is in it, and under which terms.
    """

    model_config = ConfigDict(strict=True)

    format: Literal[2]
    dolmen: str = ""
    task: Name
    made_of: str
    precision: Literal["fp32", "int8"]
    graphs: dict[Name, GraphEntry] = Field(min_length=1)
    processor: dict[str, Any]
    files: dict[Name, FileEntry]
    evaluation: dict[str, dict[str, Any]]
    parity: dict[str, Any] = {}
    licences: list[dict[str, Any]] = []

    def to_json(self) -> dict[str, Any]:
        """What is written: one graph in format 1, which every version of Dolmen reads; several in format 2."""
        values = self.model_dump()
        if list(self.graphs) != [MODEL]:
            return values
        entry = values.pop("graphs")[MODEL]
        entry["widen"] = entry.pop("dequantise_at_load")
        return values | {"format": 1, "graph": entry}

    @model_validator(mode="after")
    def _files_are_there(self) -> Self:
        wanted = {entry.file for entry in self.graphs.values()}
        if wanted != set(self.files):
            raise ValueError(f"its graphs are in {', '.join(sorted(wanted))}, and its files {', '.join(self.files)}")
        if outside := [name for name in self.files if PurePath(name).name != name or "\\" in name]:
            raise ValueError(f"it names a file outside of it, {outside[0]}")
        return self


class UnreadableManifestError(ValueError):
    """``bundle.json`` is damaged; the message says in which place."""


def read_manifest(content: bytes, path: Any) -> Manifest:
    """Read ``bundle.json``.

    Args:
        content: of the file.
        path: of the bundle, for the message.

    Raises:
        UserError: it is of a newer format.
        UnreadableManifestError: it is damaged.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, numbers too long, too deep
        raise UnreadableManifestError(first_line(error)) from None
    if isinstance(values, dict) and isinstance(values.get("format"), int) and not 1 <= values["format"] <= FORMAT:
        raise UserError(
            f"{path} is a bundle of format {values['format']}, and this version of Dolmen reads 1 to {FORMAT}; "
            "upgrade it (pip install -U dolmen), or export the run again"
        )
    try:
        # By way of JSON, in which a list may stand for a tuple, and nothing else is converted.
        return Manifest.model_validate_json(json.dumps(_upgraded(values)))
    except (ValidationError, RecursionError) as error:
        raise UnreadableManifestError(_reason(error)) from None


def _upgraded(values: Any) -> Any:
    """Format 1 as format 2: it has one graph, whose ``dequantise_at_load`` is called ``widen``."""
    if not isinstance(values, dict) or values.get("format") != 1 or isinstance(values["format"], bool):
        return values
    entry = values.get("graph")
    if isinstance(entry, dict):
        entry = {("dequantise_at_load" if k == "widen" else k): v for k, v in entry.items()}
    others = {k: v for k, v in values.items() if k not in ("format", "graph")}
    return {"format": FORMAT, "graphs": {MODEL: entry} if "graph" in values else {}, **others}


def _reason(error: ValidationError | RecursionError) -> str:
    """The first thing that is wrong, and where."""
    if not isinstance(error, ValidationError):
        return first_line(error)
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    reason = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
    return f"{place} {reason}" if first["type"] == "missing" else f"{place}: {reason}" if place else reason


def first_line(error: BaseException) -> str:
    """The first line of an error's text; its name where it has none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
