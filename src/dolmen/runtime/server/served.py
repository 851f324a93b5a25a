"""Who opens a model, and what may be asked of one from outside."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from dolmen.runtime.model import Model

NOT_SERVED = {"state"}
"""Options that name files: on a server they would name the server's files."""


Opener = Callable[[Path], Model]


@functools.cache
def options_of(kind: type[BaseModel]) -> type[BaseModel]:
    """The options that may come from outside: those of the model, but for ``NOT_SERVED``; no others are let in."""
    fields: dict[str, Any] = {n: (f.annotation, f) for n, f in kind.model_fields.items() if n not in NOT_SERVED}
    config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    return create_model(kind.__name__, __config__=config, __doc__=kind.__doc__, **fields)
