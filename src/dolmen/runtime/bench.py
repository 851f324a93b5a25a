"""How fast a model predicts on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dolmen.runtime.model import Model


def measure(model: Model, seconds: float) -> dict[str, Any]:
    """Latency of one input and throughput of batches, from what a person has to a prediction; of streams a step.

    Args:
        model: a run or a bundle.
        seconds: how long each is repeated.
    """
    predictor = model.predictor
    one = predictor.example()
    single = _times(lambda: _worked_off(model, [one]), seconds)
    many = _times(lambda: _worked_off(model, [one] * 64), seconds)
    found = {
        "latency_ms_p50": round(float(np.percentile(single, 50)) * 1e3, 3),
        "latency_ms_p99": round(float(np.percentile(single, 99)) * 1e3, 3),
        "inputs_per_second_batch_64": round(64 / float(np.median(many)), 1),
        "repeats": len(single),
    }
    if predictor.is_stateful:
        steps, step = predictor.network.steps(), predictor.step()
        found["step_us_p50"] = round(float(np.median(_times(lambda: steps.read(step), seconds))) * 1e6, 1)
    about = {k: v for k, v in model.describe().items() if k in {"kind", "precision", "parameters", "bytes"}}
    return {**about, **found, "processors": os.cpu_count()}


def _worked_off(model: Model, inputs: list[Any]) -> None:
    for _, prediction in model.predict_each(inputs, **model.predictor.briefly):
        getattr(prediction, "text", None)  # a text is written while it is read


def _times(call: Callable[[], Any], seconds: float) -> list[float]:
    """Repeat a call for so many seconds (5 times at least) after 2 to warm up."""
    for _ in range(2):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times
