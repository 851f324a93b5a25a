"""Fits on validation of a trained tagger: how sure it may be, how easily it sees a span; and its calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.metrics import classification
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
    """The offset to take off the score of "O" for the best F1; neighbours are averaged, so that no lucky spike wins."""
    labels, every = processor.labels, max(1, len(parts) // 1000)  # enough to fit one number
    parts, gold = parts[::every], [spans_of([labels[i] for i in g]) for g in tags[::every]]
    candidates, scores = np.linspace(0, 1.5, 13), []
    for outside in candidates:
        leaning = processor.model_copy(update={"outside": float(outside)})
        predicted = [spans_of([labels[i] for i in path]) for path in best_paths(leaning, parts)]
        scores.append(metrics.f1(*metrics.span_counts(gold, predicted).sum(0))[2])
    smooth = np.convolve(np.pad(scores, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    return float(candidates[smooth.argmax()])


def fit_temperature(processor: TagProcessor, parts: list[Floats], tags: list[NDArray[np.int64]]) -> float:
    """The temperature with which the probabilities of single tags fit validation best.

    Args:
        processor: whose transitions, if any, go with the scores.
        parts: (T, K) scores of each sentence, as the network gives them.
        tags: (T,) of each sentence.
    """
    every = max(1, len(parts) // 500) if processor.transitions else 1  # a chain takes long, and is fitted by fewer
    parts, true = parts[::every], np.concatenate(tags[::every])
    return classification.fit_temperature_of(lambda t: log_marginals(processor, parts, t), true, tolerance=0.02)


def log_marginals(processor: TagProcessor, parts: list[Floats], temperature: float) -> Floats:
    """Logarithms of the probability of each tag for each word, (words, K), from scores as the network gives them."""
    if not processor.transitions:
        return classification.log_softmax(np.concatenate(parts), temperature)
    chain = Chain(np.array(processor.transitions) / temperature)
    marginals: Floats = np.concatenate([chain.read(e / temperature).marginals() for e in parts])
    return np.log(np.maximum(marginals, 1e-12))


def calibration(
    processor: TagProcessor, parts: list[Floats], paths: list[NDArray[np.int64]], gold: list[NDArray[np.int64]]
) -> dict[str, Any]:
    """How far confidences are from the truth: of spans, or of single tags.

    Args:
        processor: fitted; decodes.
        parts: (T, K) scores of each sentence, over the temperature.
        paths: (T,) the tags that were decoded.
        gold: (T,) the right ones.
    """
    names, chain = processor.labels, processor.chain
    confidences: list[float] = []
    right: list[bool] = []
    for scores, path, tags in zip(parts, paths, gold, strict=True):
        lattice = chain.read(scores)
        if processor.kind == "spans":
            gold_spans = set(spans_of([names[i] for i in tags]))
            for span in spans_of([names[i] for i in path]):
                confidences.append(lattice.probability(span.start, path[span.start : span.stop].tolist()))
                right.append(span in gold_spans)
        else:
            confidences += lattice.marginals()[np.arange(len(path)), path].tolist()
            right += (path == tags).tolist()
    ece, bins = classification.reliability(np.array(confidences), np.array(right, bool))
    raw, labels = [part * processor.temperature for part in parts], np.concatenate(gold)
    after, before = (
        float(-log_marginals(processor, raw, t)[np.arange(len(labels)), labels].mean())
        for t in (processor.temperature, 1.0)
    )
    return {
        "ece": ece, "loss": after, "loss_before": before, "temperature": processor.temperature,
        "outside": processor.outside, "bins": bins,
    }  # fmt: skip
