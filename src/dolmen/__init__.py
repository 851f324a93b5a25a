"""Dolmen: your own data in, a small CNN or RNN out; trained, measured, explained, on the computer you have.

The names below are loaded when they are first used, so that ``import dolmen`` never imports torch.

    run = dolmen.train("image-classification", "photos/", minutes=10)
    run.predict("new.jpg")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# ONNX Runtime from 1.29 on reports to Microsoft unless this is set before it is loaded, by us or by torch's exporter.
# Python runs this file before any other of ours, so here it is in time on every path.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dolmen.predictions import Classes
    from dolmen.types import CheckReport, Evaluation, Finding, UserError
    from dolmen.verbs import (
        bench,
        check,
        convert,
        doctor,
        evaluate,
        explain,
        export,
        load,
        predict,
        runs,
        sample,
        serve,
        tasks,
        train,
        watch,
    )

_HOMES = {
    **dict.fromkeys(("CheckReport", "Evaluation", "Finding", "UserError"), "dolmen.types"),
    "Classes": "dolmen.predictions",
    **dict.fromkeys(
        (
            "bench",
            "check",
            "convert",
            "doctor",
            "evaluate",
            "explain",
            "export",
            "load",
            "predict",
            "runs",
            "sample",
            "serve",
            "tasks",
            "train",
            "watch",
        ),
        "dolmen.verbs",
    ),
}
__all__ = [  # noqa: RUF022 - in the order in which a person meets them
    "check", "train", "load", "evaluate", "predict", "explain", "export", "watch", "serve",
    "sample", "bench", "tasks", "runs", "doctor", "convert",
    "CheckReport", "Classes", "Evaluation", "Finding", "UserError",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Import the module that holds ``name`` the first time it is asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dolmen' has no attribute {name!r}; it has: {', '.join(__all__)}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
