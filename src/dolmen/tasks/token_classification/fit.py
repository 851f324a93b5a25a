"""What is fitted on validation when a tagger has been trained: how sure it may be, and how easily it sees a span."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.tasks.token_classification import metrics
from dolmen.tasks.token_classification.processor import Chain, Floats, TagProcessor, spans_of


def best_paths(processor: TagProcessor, parts: list[Floats]) -> list[NDArray[np.int64]]:
    """The tags of each sentence, by number."""
    lean = processor.lean
    if not processor.transitions:
        return [(part + lean).argmax(1) for part in parts]
    chain = processor.chain
    return [np.array(chain.paths(part + lean)[0][1]) for part in parts]


def fit_outside(processor: TagProcessor, parts: list[Floats], tags: list[NDArray[np.int64]]) -> float:
    """What to take off the score of "O" for the best F1; neighbours are averaged, so that no lucky spike wins."""
    labels, every = processor.labels, max(1, len(parts) // 1000)  # enough to fit one number
    parts, gold = parts[::every], [spans_of([labels[i] for i in g]) for g in tags[::every]]
    tried, found = np.linspace(0, 1.5, 13), []
    for outside in tried:
        leaning = processor.model_copy(update={"outside": float(outside)})
        told = [spans_of([labels[i] for i in path]) for path in best_paths(leaning, parts)]
        found.append(metrics.f1(*metrics.span_counts(gold, told).sum(0))[2])
    smooth = np.convolve(np.pad(found, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    return float(tried[smooth.argmax()])


def fit_chain(parts: list[Any], tags: list[Any], transitions: NDArray[np.float64]) -> float:
    """The temperature with which the marginals make validation most likely, between 1/4 and 4."""
    from scipy.optimize import minimize_scalar

    every = max(1, len(parts) // 500)  # enough to fit one number

    def loss(log_t: float) -> float:
        t = float(np.exp(log_t))
        chain = Chain(transitions / t)
        told = [
            chain.read(e / t).marginals()[np.arange(len(g)), g]
            for e, g in zip(parts[::every], tags[::every], strict=True)
        ]
        return float(-np.log(np.maximum(np.concatenate(told), 1e-12)).mean())

    found = minimize_scalar(loss, bounds=(-np.log(4), np.log(4)), method="bounded", options={"xatol": 0.02})
    return float(np.exp(found.x))
