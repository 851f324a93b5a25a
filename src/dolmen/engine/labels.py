"""Which labels look wrong: every example is judged by a network that did not train on it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.engine.evaluate import gather_outputs
from dolmen.engine.train import fit
from dolmen.tasks.task import AnyTask, Task
from dolmen.types import Finding

NUM_FOLDS = 4


def find_suspect_labels(task: AnyTask, seconds: float, say: Callable[[str], None]) -> Finding:
    """Train on all folds but one, judge that one, in turn; name the labels that the judges doubt most.

    Args:
        task: prepared; its training examples are judged.
        seconds: for all folds together.
        say: called with a line on how far it is.
    """
    train = task.datasets["train"]
    if type(task).suspects is Task.suspects:  # it says so, before anything is trained
        return task.suspects({}, train)
    folds = np.random.default_rng(task.config.seed).permutation(len(train)) % NUM_FOLDS
    outputs: dict[str, NDArray[Any]] = {}
    for fold in range(NUM_FOLDS):
        inside, outside = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        fold_task = task.replace(datasets={"train": train.subset(outside), "val": train.subset(inside)})
        end = time.monotonic() + seconds / NUM_FOLDS
        say(f"judging labels, part {fold + 1} of {NUM_FOLDS}")
        with tempfile.TemporaryDirectory() as folder:
            model = fit(fold_task, Path(folder), seconds=lambda end=end: end - time.monotonic())  # type: ignore[misc]
        for name, values in gather_outputs(fold_task, model, fold_task.datasets["val"]).items():
            outputs.setdefault(name, np.zeros((len(train), *values.shape[1:]), values.dtype))[inside] = values
    return task.suspects(outputs, train)
