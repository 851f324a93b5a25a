"""What can be chosen for a prediction, and which of it the clients of a server may choose.

Each option says so itself; one that says nothing is not served. An option that names a file is of the type
``LocalPath``, and can't be served at all: it would name one of the server's files.

    class Options(BaseModel):
        n_best: Annotated[int, Served(maximum=10)] = Field(1, ge=1)
        words: Annotated[LocalPath | None, NotServed("list words as hot")] = None
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

T = TypeVar("T")


class NoOptions(BaseModel):
    """What can be chosen for a prediction where there is nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Served:
    """Marks an option that the clients of a server may choose.

    Attributes:
        maximum: of a number, where a client could otherwise keep all others waiting or fill the memory.
    """

    maximum: float | None = None


@dataclass(frozen=True)
class NotServed:
    """Tells clients what to do instead of choosing an option that is not served.

    Attributes:
        instead: what to do, as it stands behind a semicolon.
        why: where it is not that the option names a file.
    """

    instead: str
    why: str = "names a file and is not served"


@dataclass(frozen=True)
class _NamesFile:
    """Marks a text that names a file of this machine."""


LocalPath = Annotated[str, _NamesFile()]
"""The name of a file on the machine that predicts."""


def mark_of(field: FieldInfo, mark: type[T]) -> T | None:
    """The mark of this type that an option carries, if it does."""
    return next((m for m in field.metadata if isinstance(m, mark)), None)


def names_file(annotation: Any) -> bool:
    """Whether values of this type are, or hold, names of files: ``LocalPath``, or a path of ``pathlib``."""
    if isinstance(annotation, type) and issubclass(annotation, PurePath):
        return True
    parts = typing.get_args(annotation)  # of Annotated its marks, too
    return any(isinstance(part, _NamesFile) or names_file(part) for part in parts)


def is_path(field: FieldInfo) -> bool:
    """Whether an option names a file."""
    return mark_of(field, _NamesFile) is not None or names_file(field.annotation)


def check_marks(options: type[BaseModel]) -> None:
    """Look whether what is marked as served may be.

    Raises:
        TypeError: an option that names a file is marked so.
    """
    for name, field in options.model_fields.items():
        if is_path(field) and mark_of(field, Served) is not None:
            raise TypeError(
                f"{options.__name__}.{name} names a file, and clients of a server may never name one; remove Served()"
            )
