"""From the body of a request to a model's inputs."""

from __future__ import annotations

import base64
import binascii
import io
import math
from dataclasses import dataclass
from typing import Annotated, Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import from_json

from dolmen.processors.image import FORMATS
from dolmen.runtime.server.forms import parts_of
from dolmen.runtime.server.limits import MEBIBYTE, Limits, Refusal
from dolmen.runtime.server.served import NOT_SERVED, options_of
from dolmen.types import UserError

LARGEST_NUMBER = 1 << 53
"""Integers beyond it are not the same in every reader of JSON (RFC 8259)."""
LONGEST_OPTION = 1000
"""Characters of a text that is an option."""
SHORTENED = 60


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        inputs: the bytes of pictures, or texts, or lists of words; a UserError in place of one that can't be read.
        options: of the model, checked.
    """

    inputs: list[Any]
    options: dict[str, Any]


def request_of(takes: str, kind: type[BaseModel], max_inputs: int) -> type[BaseModel]:
    """The JSON that ``predict`` takes: ``{"inputs": [...], "options": {...}}``."""
    options = options_of(kind)
    text = "base64 of the file" if takes == "picture" else "a text, or the list of its words"
    one: Any = str if takes == "picture" else str | Annotated[list[str], Field(min_length=1)]
    return create_model(
        f"{'Pictures' if takes == 'picture' else 'Texts'}With{options.__name__}",
        __config__=ConfigDict(frozen=True, extra="forbid", strict=True),
        inputs=(list[one], Field(min_length=1, max_length=max_inputs, description=f"each is {text}")),
        options=(options, Field(default_factory=options)),
    )


def parse_json(content: bytes | str) -> Any:
    """Plain values.

    Raises:
        Refusal: it is no JSON: damaged, not UTF-8, too deep, NaN, or half a character.
    """
    try:
        return from_json(content, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON: {str(error)[:200]}") from None


def read_inputs(
    content_type: str, content: bytes, takes: str, kind: type[BaseModel], request: type[BaseModel], limits: Limits
) -> Asked:
    """Take a body apart.

    Args:
        content_type: the header.
        content: the body.
        takes: what an input of the model is: "picture" or "text".
        kind: the options of the model.
        request: of ``request_of``.
        limits: of the server.

    Raises:
        Refusal: 400 for a damaged body, 415 for one of another type, 422 for one that says what it should not.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media == "application/json" or media.endswith("+json"):
        return _from_json(content, takes, kind, request, limits)
    if media == "multipart/form-data":
        return _from_form(content_type, content, takes, kind, limits)
    if takes == "picture" and (media == "application/octet-stream" or media.startswith("image/")):
        return Asked([content], check_options({}, kind))
    if takes == "text" and media == "text/plain":
        return Asked([_text(content, limits)], check_options({}, kind))
    other = "a picture as image/* or application/octet-stream" if takes == "picture" else "a text as text/plain"
    found = f"{media[:SHORTENED]!r}" if media else "nothing"
    raise Refusal(415, f"Content-Type says {found}; this model takes application/json, multipart/form-data, or {other}")


def _from_json(content: bytes, takes: str, kind: type[BaseModel], request: type[BaseModel], limits: Limits) -> Asked:
    values = parse_json(content)
    if not isinstance(values, dict):
        raise Refusal(422, 'the body must be a JSON object: {"inputs": [...], "options": {...}}')
    options = check_options(values.get("options", {}), kind)
    try:
        request.model_validate({**values, "options": options})
    except ValidationError as error:
        raise Refusal(422, sentence(error)) from None
    if takes == "picture":
        return Asked([_picture(value) for value in values["inputs"]], options)
    return Asked([_checked(value, limits) for value in values["inputs"]], options)


def _picture(value: str) -> bytes | UserError:
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        found = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return UserError("this input is not base64; send the bytes of the picture's file as base64")
    return found or UserError("this input is empty; send the bytes of the picture's file as base64")


def _checked(value: Any, limits: Limits) -> Any:
    length = len(value) if isinstance(value, str) else sum(len(word) + 1 for word in value)
    if length > limits.max_characters:
        return UserError(
            f"a text of {length:,} characters, the most is {limits.max_characters:,}; send it in parts, or stream it"
        )
    return value


def _text(content: bytes, limits: Limits) -> Any:
    try:
        return _checked(content.decode("utf-8"), limits)
    except UnicodeDecodeError as error:
        return UserError(f"the text is not UTF-8 ({error.reason} at byte {error.start:,}); convert it")


def _from_form(content_type: str, content: bytes, takes: str, kind: type[BaseModel], limits: Limits) -> Asked:
    inputs: list[Any] = []
    options: dict[str, Any] = {}
    for part in parts_of(content_type, content, limits.max_inputs + 1):
        found = bytes(part.content)
        if part.name == "options" and not part.is_file:
            options = parse_json(found)
        elif part.name != "inputs":
            raise Refusal(422, f"the form has a field {_short(part.name)}; its fields are inputs and options")
        elif takes == "text":
            inputs.append(_text(found, limits))
        elif part.is_file:
            inputs.append(found)
        else:
            raise Refusal(422, "a field inputs holds no file; send pictures as files")
    if not inputs:
        raise Refusal(422, f"the form holds no {'file' if takes == 'picture' else 'text'}; send one at least")
    if len(inputs) > limits.max_inputs:
        raise Refusal(422, f"{len(inputs)} inputs in one request, the most is {limits.max_inputs}; send less at once")
    return Asked(inputs, check_options(options, kind))


def check_options(values: Any, kind: type[BaseModel]) -> dict[str, Any]:
    """Options that came from outside, checked and complete.

    Raises:
        Refusal: one is unknown, not allowed, or names a file.
    """
    if not isinstance(values, dict):
        raise Refusal(422, "options must be a JSON object")
    allowed = options_of(kind)
    for name, value in values.items():
        if name in NOT_SERVED and name in kind.model_fields:
            raise Refusal(
                422, f"the option {name} names a file and is not served; save and restore a WebSocket session instead"
            )
        if name not in allowed.model_fields:
            listed = ", ".join(allowed.model_fields) or "none"
            raise Refusal(422, f"there is no option {_short(name)}; the options of this model: {listed}")
        if isinstance(value, str) and len(value) > LONGEST_OPTION:
            raise Refusal(422, f"the option {name} has {len(value):,} characters, the most is {LONGEST_OPTION:,}")
        wide = isinstance(value, int) and abs(value) > LARGEST_NUMBER
        if wide or (isinstance(value, float) and not math.isfinite(value)):
            raise Refusal(422, f"the option {name} is a number beyond 2 to the power of 53; send a smaller one")
    try:
        return allowed.model_validate(values).model_dump()
    except ValidationError as error:
        raise Refusal(422, sentence(error, "options.")) from None


def sentence(error: ValidationError, before: str = "") -> str:
    """The first mistake in a person's words."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part)[:SHORTENED] for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f'the body has a field {_short(place)}; it takes {{"inputs": [...], "options": {{...}}}}'
    if first["type"] == "missing":
        return f'the body lacks {place}; it is {{"inputs": [...], "options": {{...}}}}'
    if first["loc"][0] == "inputs" and len(first["loc"]) > 1:
        return f"inputs[{first['loc'][1]}] must be a text, or a list of words; a picture is its file's bytes as base64"
    message = first["msg"]
    return f"{before}{place}: {message[0].lower()}{message[1:]}"


def _short(name: str) -> str:
    return repr(name if len(name) <= SHORTENED else name[:SHORTENED] + "...")


def weigher(takes: str, limits: Limits) -> tuple[Any, int]:
    """What an input costs (pixels, or characters), and how much may be worked off together."""
    if takes == "picture":
        return lambda raw: num_pixels(raw, limits.max_pixels), limits.max_pixels
    return lambda raw: len(raw) if isinstance(raw, str) else sum(map(len, raw)), limits.max_characters


def num_pixels(content: bytes, most: int) -> int:
    """Of a picture file, from its header; 1 of what is no picture, for the model says that better.

    Raises:
        UserError: they are more than ``most``: a few kilobytes of file can hold gigabytes of zeros.
    """
    large = UserError(f"the picture has more than {most / 1e6:g} megapixels; send a smaller one")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            found: int = image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise large from None
    except Exception:  # Pillow's readers of headers raise anything
        return 1
    if found > most:
        raise large
    return max(1, found)


def describe_body(takes: str, schema: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """The request's body for OpenAPI; ``schema`` is that of the JSON."""
    file = {"type": "string", "format": "binary", "maxLength": limits.max_bytes}
    inputs = (
        {"type": "array", "items": file, "minItems": 1} if takes == "picture" else {"description": "each is a text"}
    )
    parts = {"inputs": inputs, "options": {"description": "JSON"}}
    form = {"type": "object", "properties": parts, "required": ["inputs"], "additionalProperties": False}
    raw = {"application/octet-stream": {"schema": file}, "image/*": {"schema": file}}
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "required": True,
        "description": f"At most {limits.max_bytes / MEBIBYTE:g} MiB.",
        "content": {
            "application/json": {"schema": schema},
            "multipart/form-data": {"schema": form},
            **(raw if takes == "picture" else text),
        },
    }
