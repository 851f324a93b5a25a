"""Choices that a person made, checked."""

from __future__ import annotations

import typing
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dolmen.types import UserError
from dolmen.wording import did_you_mean

ChoicesT = TypeVar("ChoicesT", bound=BaseModel)


def validated(choices_type: type[ChoicesT], values: dict[str, Any], owner: str, help_: str) -> ChoicesT:
    """The choices that a person made, as the type that checks them.

    Args:
        choices_type: what can be chosen.
        values: what was chosen, by name.
        owner: whose choices they are, for the message.
        help_: what to type to see them.

    Raises:
        UserError: a name is unknown or a value is not allowed: the first mistake as a sentence.
    """
    try:
        return choices_type.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        hint = did_you_mean(key, choices_type.model_fields, show=repr)
        raise UserError(f"{owner} has no choice {key!r}; {hint}{help_} lists them")
    reason = first["msg"][0].lower() + first["msg"][1:]
    hint = ""
    if first["type"] == "literal_error":
        allowed = typing.get_args(choices_type.model_fields[key].annotation)
        hint = did_you_mean(str(first["input"]), map(str, allowed), show=repr)
    raise UserError(f"{key} = {first['input']!r} is not possible: {reason}; {hint}{help_} lists the choices")
