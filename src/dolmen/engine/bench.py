"""How fast a model predicts on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from dolmen.engine import hardware
from dolmen.engine.planner import synchronise
from dolmen.tasks.task import Task


def measure(task: Task[Any], model: nn.Module, seconds: float) -> dict[str, Any]:
    """Latency of one example and throughput of batches, the network alone, in fp32.

    Args:
        task: of a loaded run.
        model: in evaluation mode.
        seconds: how long each of the two is repeated.
    """
    device = next(model.parameters()).device
    example = task.blank_example()
    one = {k: torch.from_numpy(v[None]).to(device) for k, v in example.items()}
    many = {k: torch.from_numpy(np.repeat(v[None], 64, 0)).to(device) for k, v in example.items()}
    with torch.inference_mode():
        single = _times(lambda: task.outputs(model, one), device, seconds)
        batch = _times(lambda: task.outputs(model, many), device, seconds)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "latency_ms_p50": round(float(np.percentile(single, 50)) * 1e3, 3),
        "latency_ms_p99": round(float(np.percentile(single, 99)) * 1e3, 3),
        "examples_per_second_batch_64": round(64 / float(np.median(batch)), 1),
        "repeats": len(single),
        **{k: v for k, v in hardware.describe().items() if k in {"torch", "cpu", "num_threads", "device"}},
    }


def _times(call: Callable[[], Any], device: torch.device, seconds: float) -> list[float]:
    """Repeat a call for so many seconds (5 times at least) after 2 to warm up."""
    for _ in range(2):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return times
