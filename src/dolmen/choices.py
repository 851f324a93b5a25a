"""Choices that a person made, checked."""

from __future__ import annotations

import difflib
import typing
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dolmen.types import UserError

M = TypeVar("M", bound=BaseModel)


def validated(kind: type[M], values: dict[str, Any], owner: str, help_: str) -> M:
    """Choices that a person made, checked.

    Args:
        kind: what can be chosen.
        values: by name.
        owner: whose choices they are, for the message.
        help_: what to type to see them.

    Raises:
        UserError: a name is unknown or a value is not allowed: the first mistake as a sentence.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, kind.model_fields, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        raise UserError(f"{owner} has no choice {key!r}{hint} {help_} lists them")
    said = first["msg"][0].lower() + first["msg"][1:]
    hint = f"{help_} lists the choices"
    if first["type"] == "literal_error":
        allowed = typing.get_args(kind.model_fields[key].annotation)
        close = difflib.get_close_matches(str(first["input"]), map(str, allowed), 1)
        hint = (f"did you mean {close[0]!r}? " if close else "") + hint
    raise UserError(f"{key} = {first['input']!r} is not possible: {said}; {hint}")
