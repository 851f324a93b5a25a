"""Apply a network to a whole data set, on one process or many."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from dolmen.engine import distributed
from dolmen.engine.planner import autocast
from dolmen.tasks.task import AnyTask, Dataset
from dolmen.types import Arrays

MAX_BATCH_BYTES = 1 << 23
"""Bytes of stored examples that go through the network together; what it makes of them is many times as much."""


def gather_outputs(
    task: AnyTask,
    model: nn.Module,
    dataset: Dataset,
    *,
    precision: str = "fp32",
    batch_size: int | None = None,
    quick: bool = False,
) -> Arrays:
    """Return the outputs for all examples in order, as numpy arrays with the leading axis ``len(dataset)``.

    Args:
        task: knows how to apply the network.
        model: in evaluation mode.
        dataset: what to apply it to; each process takes a stretch of it.
        precision: fp32 for figures that are reported, whatever training used.
        batch_size: examples at once; by their size if not given.
        quick: by one pass of the network, as while it trains.
    """
    device = next(model.parameters()).device
    rows = np.array_split(np.arange(len(dataset)), distributed.world())[distributed.rank()]
    apply = task.quick_outputs if quick else task.outputs
    if batch_size is None:
        example_bytes = sum(v.nbytes for v in dataset.batch(np.arange(min(1, len(dataset)))).values())
        batch_size = int(np.clip(MAX_BATCH_BYTES // max(1, example_bytes), 1, 256))
    parts: dict[str, list[Any]] = {}
    with torch.inference_mode(), autocast(precision, device):
        for start in range(0, len(rows), batch_size):
            stored = dataset.batch(rows[start : start + batch_size])
            outputs = apply(model, {k: v.to(device) for k, v in stored.items()})
            for name, value in outputs.items():
                parts.setdefault(name, []).append(value.float().cpu().numpy())
    gathered = distributed.gather({k: np.concatenate(v) for k, v in parts.items()})
    return {k: np.concatenate([outputs[k] for outputs in gathered if k in outputs]) for k in gathered[0]}
