"""Labels that look wrong, judged by a model that has not seen them: confident learning."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def suspect_labels(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return the indices of the examples whose label looks wrong, the most suspicious first.

    An example is suspect when it belongs confidently to another class: its probability of that class reaches
    what the examples labelled so have on average, and no class that it reaches in this way is more probable.
    A model that is unsure of a whole class therefore accuses nobody in it.

    Args:
        probabilities: (N, K), rows sum to 1, out of fold: from a model that was not trained on the example.
        labels: (N,) integers in [0, K), as the data give them.

    Raises:
        ValueError: the shapes don't match, a label is outside [0, K), or a probability is not a number.

    Source: C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
    Journal of Artificial Intelligence Research 70, 2021 (the confident joint, ranked by margin).

    >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.95, 0.05]])
    >>> suspect_labels(probabilities, np.array([0, 0, 1, 1, 1]))
    array([4])
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"probabilities are {probabilities.shape} and labels {labels.shape}, expected (N, K) and (N,)."
        )
    num, num_classes = probabilities.shape
    if num == 0:
        return np.empty(0, np.int64)
    if labels.min() < 0 or labels.max() >= num_classes:
        wrong = int(labels[(labels < 0) | (labels >= num_classes)][0])
        raise ValueError(f"label {wrong} is outside [0, {num_classes}): leave unlabelled examples out.")
    if not np.isfinite(probabilities).all():
        raise ValueError("some probabilities are not numbers: the model that gave them diverged.")
    rows = np.arange(num)
    own = probabilities[rows, labels]
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, weights=own, minlength=num_classes)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    confident = reached.argmax(axis=1)
    suspects = np.flatnonzero((reached[rows, confident] >= 0) & (confident != labels))
    margins = own[suspects] - reached[suspects, confident[suspects]]
    return suspects[np.argsort(margins, kind="stable")].astype(np.int64)
