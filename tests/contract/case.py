"""What the contract suite has to know of a task to try it: ``tests/tasks/NAME/cases.py`` says it, as ``CASE``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dolmen.catalogue import TASKS


@dataclass(frozen=True)
class Case:
    """One task's values for the tests that every task passes.

    Attributes:
        quick: choices that make the task small enough for a test.
        by_heart: further ones with which a network learns a few examples by heart.
        known: whether it has, from its metrics.
        an_input: from the folder that ``sample`` wrote to an input for ``predict``.
        pieces: from the same folder to an input in pieces, as a stream gets it: paths of pictures, pieces of a text,
            or (N,) float32 samples.
        apart: largest relative difference of the losses of one process and of two.
        representative: the long tests run in ``make test`` for it, and not only in ``make test-slow``; one CNN and one
            RNN suffice there.
        setup: code that each process of its own runs first; for a task that is in the catalogue of the tests only.
    """

    quick: dict[str, Any]
    by_heart: dict[str, Any]
    known: Callable[[dict[str, float]], bool]
    an_input: Callable[[Path], Path]
    pieces: Callable[[Path], list[Any]]
    apart: float = 1e-2
    representative: bool = False
    setup: str = ""


def case_of(task: str) -> Case:
    """The case of a task: tests/tasks/NAME/cases.py, or ``cases`` in its own folder where it is no part of Dolmen."""
    folder = TASKS[task].package.removeprefix("dolmen.")
    case: Case = importlib.import_module(f"{folder}.cases").CASE
    return case


def first(folder: Path, pattern: str) -> Path:
    """The first file below a folder, by its path."""
    return min(p for p in folder.rglob(pattern) if "LICENSE" not in p.name)


def cut(text: str) -> list[str]:
    """A text in pieces that end anywhere."""
    return [text[i : i + 7] for i in range(0, len(text), 7)]


LINES = "Anna went to Rome.\nShe met Ben there.\n"
