"""How fast a model predicts on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dolmen.runtime.model import Model

BATCH_SIZE = 64


def measure(model: Model, seconds: float) -> dict[str, Any]:
    """Latency of one input and throughput of batches, from what a person has to a prediction; of streams a step.

    Args:
        model: a run or a bundle.
        seconds: how long each is repeated.
    """
    predictor = model.predictor
    example = predictor.example()
    single_s = _repeat(lambda: _predict_all(model, [example]), seconds)
    batch_s = _repeat(lambda: _predict_all(model, [example] * BATCH_SIZE), seconds)
    figures = {
        "latency_ms_p50": round(float(np.percentile(single_s, 50)) * 1e3, 3),
        "latency_ms_p99": round(float(np.percentile(single_s, 99)) * 1e3, 3),
        "inputs_per_second_batch_64": round(BATCH_SIZE / float(np.median(batch_s)), 1),
        "repeats": len(single_s),
    }
    if predictor.is_stateful:
        steps, step = predictor.network.steps(), predictor.step()
        figures["step_us_p50"] = round(float(np.median(_repeat(lambda: steps.read(step), seconds))) * 1e6, 1)
    about = {k: v for k, v in model.describe().items() if k in {"kind", "precision", "parameters", "bytes"}}
    return {**about, **figures, "processors": os.cpu_count()}


def _predict_all(model: Model, inputs: list[Any]) -> None:
    for _, prediction in model.predict_each(inputs, **model.predictor.briefly):
        getattr(prediction, "text", None)  # a text is written while it is read


def _repeat(call: Callable[[], Any], seconds: float) -> list[float]:
    """The seconds that each call takes, repeated for so long (5 times at least) after 2 calls to warm up."""
    for _ in range(2):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times
