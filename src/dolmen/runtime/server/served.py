"""What the server needs of a model, and what a person may ask of one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, create_model

from dolmen.types import Prediction, UserError

NOT_SERVED = {"state"}
"""Options that name files: on a server they would name the server's files."""


class Session(Protocol):
    """One stream; for one thread at a time. Those of models that write have ``write(**options)`` as well."""

    def feed(self, chunk: Any) -> list[Prediction]:
        """Take in the next piece; what has become clear with it."""
        ...

    def finish(self) -> list[Prediction]:
        """What was held back."""
        ...

    def save(self) -> bytes:
        """All that ``restore`` needs."""
        ...

    def restore(self, saved: bytes) -> None:
        """Go on where ``save`` was called."""
        ...

    def reset(self) -> None:
        """Begin anew."""
        ...


class Model(Protocol):
    """A run or a bundle, as the server sees it."""

    @property
    def path(self) -> Path:
        """Where it came from."""
        ...

    @property
    def task_name(self) -> str:
        """What it does."""
        ...

    @property
    def processor(self) -> Any:
        """Raw input to arrays, outputs to predictions."""
        ...

    @property
    def predictor(self) -> Any:
        """How it does it; that of pictures has ``heat_map(raw) -> (label, (H, W) float32 of 0..1)``."""
        ...

    @property
    def Options(self) -> type[BaseModel]:  # noqa: N802 - it is a class
        """What can be chosen for a prediction."""
        ...

    def predict_each(
        self, inputs: Iterable[Any], *, batch_size: int = 64, **options: Any
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        """Yield ``(input, prediction)``; an input that can't be read gives its error."""
        ...

    def stream(self, *, idle_timeout_s: float | None = None) -> Session:
        """Begin a stream."""
        ...

    def describe(self) -> dict[str, Any]:
        """``{"task", "kind", "takes": "picture" or "text", "labels"}`` and more, as plain JSON values."""
        ...


Opener = Callable[[Path], Model]


@functools.cache
def options_of(kind: type[BaseModel]) -> type[BaseModel]:
    """The options that may come from outside: those of the model, but for ``NOT_SERVED``; no others are let in."""
    fields: dict[str, Any] = {n: (f.annotation, f) for n, f in kind.model_fields.items() if n not in NOT_SERVED}
    config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    return create_model(kind.__name__, __config__=config, __doc__=kind.__doc__, **fields)
