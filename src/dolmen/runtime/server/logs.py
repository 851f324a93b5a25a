"""One JSON object a line on standard error. What people send, and what the model answers, is never in it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("dolmen.server")


class JsonLines(logging.Formatter):
    """A record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, event and its fields; of an exception its type and place, for its message may hold a payload."""
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        fields = getattr(record, "fields", None)
        if fields is None:
            values |= {"event": record.name, "message": record.getMessage()[:500]}
        else:
            values |= {"event": record.getMessage(), **fields}
        if record.exc_info and record.exc_info[1] is not None:
            values |= where(record.exc_info[1])
        return json.dumps(values, ensure_ascii=False, default=str)


def where(error: BaseException) -> dict[str, Any]:
    """The type of an exception and the lines that it came through, without its message."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return {
        "exception": type(error).__name__,
        "frames": [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames],
    }


def say(event: str, /, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event with its fields; those that are None are left out."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, event, extra={"fields": {k: v for k, v in fields.items() if v is not None}})


def fail(event: str, error: BaseException, /, **fields: Any) -> None:
    """Log that something went wrong that should not."""
    say(event, level=logging.ERROR, **fields, **where(error))


def configure(level: int = logging.INFO) -> None:
    """Send our lines and uvicorn's to standard error, in one form."""
    lines = logging.StreamHandler()
    lines.setFormatter(JsonLines())
    for name, min_level in (("dolmen.server", level), ("uvicorn", max(level, logging.WARNING))):
        logger = logging.getLogger(name)
        logger.handlers[:] = [lines]
        logger.setLevel(min_level)
        logger.propagate = False
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it would tell what people sent


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Send our lines, and nothing else, to standard error.

    Decoders of sound write about each damaged frame of a file into file descriptor 2, past all of Python. Meanwhile it
    leads nowhere, and what Python writes goes where it led.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere, os.fdopen(kept, "w", buffering=1, errors="backslashreplace") as errors:
        os.dup2(nowhere.fileno(), 2)
        try:
            with contextlib.redirect_stderr(errors):
                configure()
                yield
        finally:
            os.dup2(kept, 2)
            configure()
