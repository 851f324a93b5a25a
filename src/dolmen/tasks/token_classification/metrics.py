"""How good tags are: entity F1 as CoNLL counts it, token accuracy, with bootstrap intervals over sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.metrics.bootstrap import resampled_sums
from dolmen.metrics.shared import shared
from dolmen.types import Metric

Spans = Sequence[tuple[int, int, str]]
METRICS = {
    **shared("f1", "precision", "recall"),
    "accuracy": Metric("accuracy", "share of words with the right tag", percent=True),
}


def f1(right: float, predicted: float, gold: float) -> tuple[float, float, float]:
    """Precision, recall and F1; 0 where there is nothing to count."""
    precision, recall = right / predicted if predicted else 0.0, right / gold if gold else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


def span_counts(gold: Sequence[Spans], predicted: Sequence[Spans]) -> NDArray[np.int64]:
    """(N, 3) a sentence: spans that are right in place and label, predicted ones, gold ones."""
    return np.array(
        [[len({*g} & {*p}), len(p), len(g)] for g, p in zip(gold, predicted, strict=True)], np.int64
    ).reshape(-1, 3)


def per_label(gold: Sequence[Spans], predicted: Sequence[Spans]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each label, most frequent first."""
    right: Counter[str] = Counter()
    num_predicted: Counter[str] = Counter()
    num_gold: Counter[str] = Counter()
    for g, p in zip(gold, predicted, strict=True):
        right.update(label for *_, label in {*g} & {*p})
        num_predicted.update(label for *_, label in p)
        num_gold.update(label for *_, label in g)
    rows = []
    for label in sorted(num_gold | num_predicted, key=lambda k: (-num_gold[k], k)):
        precision, recall, score = f1(right[label], num_predicted[label], num_gold[label])
        rows.append({"label": label, "precision": precision, "recall": recall, "f1": score, "support": num_gold[label]})
    return rows


def intervals(counts: NDArray[np.int64], of: str, seed: int = 0) -> tuple[float, float]:
    """95 % interval of F1 ((N, 3) ``span_counts``) or of a share ((N, 2): right, all): sentences are drawn anew."""
    drawn = resampled_sums(counts, seed)
    if of == "f1":
        values = 2 * drawn[:, 0] / np.maximum(drawn[:, 1] + drawn[:, 2], 1)
    else:
        values = drawn[:, 0] / np.maximum(drawn[:, 1], 1)
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
