"""Who opens a model, and what may be asked of one from outside."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from annotated_types import Le
from pydantic import BaseModel, ConfigDict, create_model
from pydantic.fields import FieldInfo

from dolmen.runtime.model import Model
from dolmen.runtime.options import NotServed, Served, check_marks, is_path, mark_of

Opener = Callable[[Path], Model]


@functools.cache
def served_options(options: type[BaseModel]) -> type[BaseModel]:
    """The options of a model that may come from outside: those marked as ``Served``, up to its maximum.

    Raises:
        TypeError: an option that names a file is marked so.
    """
    check_marks(options)
    fields: dict[str, Any] = {
        name: (field.annotation, _bounded(field, mark))
        for name, field in options.model_fields.items()
        if (mark := mark_of(field, Served)) is not None
    }
    config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    return create_model(options.__name__, __config__=config, __doc__=options.__doc__, **fields)


def why_not_served(options: type[BaseModel], name: str) -> str | None:
    """Why an option that the model has is not served, and what to do instead; None for all other names."""
    field = options.model_fields.get(name)
    if field is None or mark_of(field, Served) is not None:
        return None
    mark = mark_of(field, NotServed)
    if mark is not None:
        return f"{mark.why}; {mark.instead}"
    names = ", ".join(served_options(options).model_fields) or "none"
    return f"{'names a file and ' if is_path(field) else ''}is not served; the options of this model: {names}"


def _bounded(field: FieldInfo, mark: Served) -> FieldInfo:
    bounded = copy.copy(field)
    bounded.metadata = [m for m in field.metadata if not isinstance(m, Served)]
    if mark.maximum is not None:
        bounded.metadata = [*(m for m in bounded.metadata if not isinstance(m, Le)), Le(mark.maximum)]
    return bounded
