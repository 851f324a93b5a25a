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

_FILE = "names a file and is not served;"  # it would name one of the server's
NOT_SERVED = {
    "state": f"{_FILE} save and restore a WebSocket session instead",
    "commands": f"{_FILE} list its sentences as command instead",
    "lm": f"{_FILE} list words as hot instead",
    "lm_out": f"{_FILE} write it with dolmen predict",
    "lm_order": "is of a language model, which is not served; list words as hot instead",
    "lm_weight": "is of a language model, which is not served; list words as hot instead",
}
"""Options that are not let in from outside, and why."""
MOST_SERVED = {"beam": 100, "silence_s": 60, "longest_s": 60}
"""With more of these, one client could keep all others waiting, or the memory of its stream would grow."""


Opener = Callable[[Path], Model]


@functools.cache
def options_of(kind: type[BaseModel]) -> type[BaseModel]:
    """The options that may come from outside: those of the model, but for ``NOT_SERVED``, up to ``MOST_SERVED``."""
    fields: dict[str, Any] = {
        name: (field.annotation, _bounded(name, field))
        for name, field in kind.model_fields.items()
        if name not in NOT_SERVED
    }
    config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    return create_model(kind.__name__, __config__=config, __doc__=kind.__doc__, **fields)


def _bounded(name: str, field: FieldInfo) -> FieldInfo:
    if name not in MOST_SERVED:
        return field
    found = copy.copy(field)
    found.metadata = [*(m for m in field.metadata if not isinstance(m, Le)), Le(MOST_SERVED[name])]
    return found
