"""From the body of a request to a model's inputs."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import from_json, to_json

from dolmen.runtime.server.forms import parse_form
from dolmen.runtime.server.input_types import InputType
from dolmen.runtime.server.limits import MEBIBYTE, Limits, Refusal
from dolmen.runtime.server.served import served_options, why_not_served
from dolmen.types import UserError

MAX_INTEGER = 1 << 53
"""Integers beyond it are not the same in every reader of JSON (RFC 8259)."""
MAX_OPTION_CHARACTERS, MAX_LIST_CHARACTERS = 1000, 10_000
"""Characters of a text that is an option, and of all texts of a list that is one."""
MAX_QUOTED_CHARACTERS = 60
"""Characters of what came that are repeated in a sentence."""


@dataclass(frozen=True)
class ParsedRequest:
    """What a request asks for.

    Attributes:
        inputs: the bytes of files, or texts, or lists of words; a UserError in place of one that can't be read.
        options: of the model, checked.
    """

    inputs: list[Any]
    options: dict[str, Any]


def request_of(takes: InputType, options_type: type[BaseModel], max_inputs: int) -> type[BaseModel]:
    """The JSON that ``predict`` takes: ``{"inputs": [...], "options": {...}}``."""
    options = served_options(options_type)
    text = "base64 of the file" if takes.is_file else "a text, or the list of its words"
    item: Any = str if takes.is_file else str | Annotated[list[str], Field(min_length=1)]
    return create_model(
        f"{takes.plural}With{options.__name__}",
        __config__=ConfigDict(frozen=True, extra="forbid", strict=True),
        inputs=(list[item], Field(min_length=1, max_length=max_inputs, description=f"each is {text}")),
        options=(options, Field(default_factory=options)),
    )


def parse_json(content: bytes | str) -> Any:
    """The plain values of a JSON text.

    Raises:
        Refusal: it is no JSON: damaged, not UTF-8, too deep, NaN, or half a character.
    """
    try:
        return from_json(content, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON: {str(error)[:200]}") from None


def read_inputs(
    content_type: str,
    content: bytes,
    takes: InputType,
    options_type: type[BaseModel],
    request: type[BaseModel],
    limits: Limits,
) -> ParsedRequest:
    """Take a body apart.

    Args:
        content_type: the header.
        content: the body.
        takes: what an input of the model is.
        options_type: the options of the model.
        request: of ``request_of``.
        limits: of the server.

    Raises:
        Refusal: 400 for a damaged body, 415 for one of another type, 422 for one that says what it should not.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media == "application/json" or media.endswith("+json"):
        return _from_json(content, takes, options_type, request, limits)
    if media == "multipart/form-data":
        return _from_form(content_type, content, takes, options_type, limits)
    if takes.fits(media):
        return ParsedRequest([content if takes.is_file else _text(content, limits)], check_options({}, options_type))
    expected = f"{takes.singular} as {' or '.join(takes.media)}"
    given = f"{media[:MAX_QUOTED_CHARACTERS]!r}" if media else "nothing"
    raise Refusal(
        415, f"Content-Type says {given}; this model takes application/json, multipart/form-data, or {expected}"
    )


def _from_json(
    content: bytes, takes: InputType, options_type: type[BaseModel], request: type[BaseModel], limits: Limits
) -> ParsedRequest:
    values = parse_json(content)
    if not isinstance(values, dict):
        raise Refusal(422, 'the body must be a JSON object: {"inputs": [...], "options": {...}}')
    options = check_options(values.get("options", {}), options_type)
    try:
        request.model_validate({**values, "options": options})
    except ValidationError as error:
        raise Refusal(422, sentence(error)) from None
    if takes.is_file:
        return ParsedRequest([_file(value) for value in values["inputs"]], options)
    return ParsedRequest([_checked(value, limits) for value in values["inputs"]], options)


def _file(value: str) -> bytes | UserError:
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return UserError("this input is not base64; send the bytes of the file as base64")
    return content or UserError("this input is empty; send the bytes of the file as base64")


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


def _from_form(
    content_type: str, content: bytes, takes: InputType, options_type: type[BaseModel], limits: Limits
) -> ParsedRequest:
    inputs: list[Any] = []
    options: dict[str, Any] = {}
    for part in parse_form(content_type, content, limits.max_inputs + 1):
        value = bytes(part.content)
        if part.name == "options" and not part.is_file:
            options = parse_json(value)
        elif part.name != "inputs":
            raise Refusal(422, f"the form has a field {_short(part.name)}; its fields are inputs and options")
        elif not takes.is_file:
            inputs.append(_text(value, limits))
        elif part.is_file:
            inputs.append(value)
        else:
            raise Refusal(422, f"a field inputs holds no file; send {takes.plural.lower()} as files")
    if not inputs:
        raise Refusal(422, f"the form holds no {'file' if takes.is_file else 'text'}; send one at least")
    if len(inputs) > limits.max_inputs:
        raise Refusal(422, f"{len(inputs)} inputs in one request, the most is {limits.max_inputs}; send less at once")
    return ParsedRequest(inputs, check_options(options, options_type))


def check_options(values: Any, options_type: type[BaseModel]) -> dict[str, Any]:
    """Options that came from outside, checked and complete.

    Raises:
        Refusal: one is unknown, not allowed, or names a file.
    """
    if not isinstance(values, dict):
        raise Refusal(422, "options must be a JSON object")
    allowed = served_options(options_type)
    for name, value in values.items():
        if reason := why_not_served(options_type, name):
            raise Refusal(422, f"the option {name} {reason}")
        if name not in allowed.model_fields:
            names = ", ".join(allowed.model_fields) or "none"
            raise Refusal(422, f"there is no option {_short(name)}; the options of this model: {names}")
        _check_length(name, value)
        too_large = isinstance(value, int) and abs(value) > MAX_INTEGER
        if too_large or (isinstance(value, float) and not math.isfinite(value)):
            raise Refusal(422, f"the option {name} is a number beyond 2 to the power of 53; send a smaller one")
    try:
        return allowed.model_validate_json(to_json(values)).model_dump()  # JSON's lists are its tuples
    except ValidationError as error:
        raise Refusal(422, sentence(error, "options.")) from None


def _check_length(name: str, value: Any) -> None:
    length = len(value) if isinstance(value, str) else 0
    if length > MAX_OPTION_CHARACTERS:
        raise Refusal(422, f"the option {name} has {length:,} characters, the most is {MAX_OPTION_CHARACTERS:,}")
    if isinstance(value, list):
        length = sum(len(part) + 1 if isinstance(part, str) else 1 for part in value)
        if length > MAX_LIST_CHARACTERS:
            raise Refusal(
                422, f"the option {name} has {length:,} characters in all, the most is {MAX_LIST_CHARACTERS:,}"
            )


def sentence(error: ValidationError, prefix: str = "") -> str:
    """The first mistake in a person's words."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part)[:MAX_QUOTED_CHARACTERS] for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f'the body has a field {_short(place)}; it takes {{"inputs": [...], "options": {{...}}}}'
    if first["type"] == "missing":
        return f'the body lacks {place}; it is {{"inputs": [...], "options": {{...}}}}'
    if first["loc"][0] == "inputs" and len(first["loc"]) > 1:
        return f"inputs[{first['loc'][1]}] must be a text, or a list of words; a file is its bytes as base64"
    message = first["msg"]
    return f"{prefix}{place}: {message[0].lower()}{message[1:]}"


def _short(name: str) -> str:
    return repr(name if len(name) <= MAX_QUOTED_CHARACTERS else name[:MAX_QUOTED_CHARACTERS] + "...")


def describe_body(takes: InputType, schema: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """The request's body for OpenAPI; ``schema`` is that of the JSON."""
    file = {"type": "string", "format": "binary", "maxLength": limits.max_bytes}
    inputs = {"type": "array", "items": file, "minItems": 1} if takes.is_file else {"description": "each is a text"}
    parts = {"inputs": inputs, "options": {"description": "JSON"}}
    form = {"type": "object", "properties": parts, "required": ["inputs"], "additionalProperties": False}
    return {
        "required": True,
        "description": f"At most {limits.max_bytes / MEBIBYTE:g} MiB.",
        "content": {
            "application/json": {"schema": schema},
            "multipart/form-data": {"schema": form},
            **{media: {"schema": file if takes.is_file else {"type": "string"}} for media in takes.media},
        },
    }
