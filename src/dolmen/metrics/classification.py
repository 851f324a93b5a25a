"""How good class probabilities are: accuracy, AUROC, calibration, operating point, with bootstrap intervals.

scikit-learn computes what is computed once. The bootstrap needs a thousand AUROCs, so that one is vectorised here
and tested against scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.metrics.bootstrap import NUM_BOOTSTRAPS

Floats = NDArray[np.float64]


def softmax(logits: NDArray[Any], temperature: float = 1.0) -> Floats:
    """Class probabilities from logits: (N, K) -> (N, K)."""
    z = np.asarray(logits, np.float64) / temperature
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)  # type: ignore[no-any-return]


def log_softmax(logits: NDArray[Any], temperature: float = 1.0) -> Floats:
    """Logarithms of the class probabilities: (N, K) -> (N, K)."""
    z = np.asarray(logits, np.float64) / temperature
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))  # type: ignore[no-any-return]


def log_loss(logits: NDArray[Any], labels: NDArray[np.int64], temperature: float = 1.0) -> float:
    """Mean negative log-likelihood, in nats."""
    return float(-log_softmax(logits, temperature)[np.arange(len(logits)), labels].mean())


def fit_temperature(logits: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """The temperature of a softmax that fits validation best (Guo et al., 2017)."""
    return fit_temperature_of(lambda t: log_softmax(logits, t), labels)


def fit_temperature_of(
    log_probabilities: Callable[[float], Floats], labels: NDArray[np.int64], tolerance: float = 1e-3
) -> float:
    """The temperature that makes validation, and one wrong answer more, most likely; between 1/20 and 20.

    Without that one, decisions that are all right would have no best temperature: the surer, the likelier. N right ones
    out of N only show that about N + 1 in N + 2 are right (Laplace's rule; Platt, 1999, smooths his targets by it), so
    so much of each example's weight goes from its label to the other classes. With N its influence vanishes.

    Args:
        log_probabilities: from a temperature to (N, K), the logarithms of the class probabilities of N examples.
        labels: (N,) the true classes.
        tolerance: of the temperature's logarithm.
    """
    from scipy.optimize import minimize_scalar

    rows, others = np.arange(len(labels)), 1 / (len(labels) + 2)

    def loss(log_t: float) -> float:
        logp = log_probabilities(math.exp(log_t))
        true = logp[rows, labels]
        wrong = (logp.sum(1) - true) / max(1, logp.shape[1] - 1)
        return float(-((1 - others) * true + others * wrong).mean())

    bounds = (-math.log(20), math.log(20))
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": tolerance}).x)


def fit_threshold(scores: Floats, positive: NDArray[np.bool_], specificity: float) -> float:
    """The smallest threshold on ``scores`` at which at least ``specificity`` of the negatives stay below it."""
    negatives = np.sort(scores[~positive])
    index = math.ceil(specificity * len(negatives)) - 1
    # Just above the negative that may be the last one below: "at least the threshold" decides positive.
    return float(np.nextafter(negatives[max(index, 0)], np.inf))


def auroc(scores: Floats, positive: NDArray[np.bool_], weights: Floats | None = None) -> Floats:
    """Area under the ROC curve, ties counted half, for many weightings of the same examples at once.

    Args:
        scores: (N,).
        positive: (N,).
        weights: (R, N) non-negative; None counts every example once.

    Returns:
        (R,) areas; nan where one side has no weight.
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])  # of runs of equal scores
    weights = weights[:, order]
    positives = np.add.reduceat(weights * positive[order], starts, axis=1)  # (R, runs)
    negatives = np.add.reduceat(weights * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, 1) - negatives / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (positives * below).sum(1) / (positives.sum(1) * negatives.sum(1))  # type: ignore[no-any-return]


def mean_auroc(probabilities: Floats, labels: NDArray[np.int64], weights: Floats | None = None) -> Floats:
    """AUROC of the second class where there are two, else the mean over classes of one against the rest: (R,)."""
    k = probabilities.shape[1]
    present = [c for c in range(k) if 0 < (labels == c).sum() < len(labels)]
    if not present:
        return np.full(1 if weights is None else len(weights), np.nan)
    if k == 2:
        present = [1]
    areas = np.stack([auroc(probabilities[:, c], labels == c, weights) for c in present])
    defined = ~np.isnan(areas)  # a bootstrap may draw no example of a class
    with np.errstate(invalid="ignore"):
        return np.where(defined, areas, 0).sum(0) / defined.sum(0)  # type: ignore[no-any-return]


def calibration(
    probabilities: Floats, labels: NDArray[np.int64], num_bins: int = 15
) -> tuple[float, list[dict[str, Any]]]:
    """Expected calibration error of the most probable classes, and the bins of their reliability diagram."""
    return reliability(probabilities.max(1), probabilities.argmax(1) == labels, num_bins)


def reliability(confidence: Floats, right: NDArray[np.bool_], num_bins: int = 15) -> tuple[float, list[dict[str, Any]]]:
    """Expected calibration error of decisions, and the bins of the reliability diagram.

    Args:
        confidence: (N,) how sure each was.
        right: (N,) whether it was right.
        num_bins: of equal width.

    Returns:
        The weighted mean gap between confidence and accuracy (Naeini et al., 2015), and for each bin that holds
        decisions its mean confidence, accuracy and number.
    """
    bin_of = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    bins = []
    for i in np.unique(bin_of):
        inside = bin_of == i
        bins.append(
            {
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(right[inside].mean()),
                "num": int(inside.sum()),
            }
        )
    gap = sum(b["num"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / max(1, len(right))
    return float(gap), bins


def quick_metrics(logits: NDArray[Any], labels: NDArray[np.int64]) -> dict[str, float]:
    """The metrics that training watches.

    The loss after fitting a temperature is what weights are chosen by: late in a training the network still gets better
    while it grows too sure of itself, and the sureness is taken back by the temperature in the end.
    """
    return {
        "loss": log_loss(logits, labels),
        "calibrated_loss": log_loss(logits, labels, fit_temperature(logits, labels)),
        "accuracy": float((np.argmax(logits, 1) == labels).mean()),
    }


def metrics(
    logits: NDArray[Any], labels: NDArray[np.int64], temperature: float, decided: NDArray[np.int64] | None = None
) -> dict[str, float]:
    """Every number that is reported, by its usual name.

    Args:
        logits: (N, K).
        labels: (N,).
        temperature: of the softmax.
        decided: (N,) classes, where that is not the most probable one.
    """
    from sklearn.metrics import f1_score

    p = softmax(logits, temperature)
    decided = p.argmax(1) if decided is None else decided
    k = p.shape[1]
    recalls = [float((decided[labels == c] == c).mean()) for c in np.unique(labels)]
    values = {
        "accuracy": float((decided == labels).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": float(f1_score(labels, decided, labels=np.unique(labels), average="macro", zero_division=0)),
        "auroc": float(mean_auroc(p, labels)[0]),
        "loss": log_loss(logits, labels, temperature),
        "brier": float(np.square(p - np.eye(k)[labels]).sum(1).mean()),
        "ece": calibration(p, labels)[0],
    }
    if k > 5:
        top = np.argpartition(-p, 5, 1)[:, :5]
        values["top_5_accuracy"] = float((top == labels[:, None]).any(1).mean())
    return {name: value for name, value in values.items() if not math.isnan(value)}


def intervals(
    probabilities: Floats,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    seed: int = 0,
    decided: NDArray[np.int64] | None = None,
) -> dict[str, tuple[float, float]]:
    """95 % intervals of accuracy, balanced accuracy and AUROC.

    By bootstrap; whole groups (patients, recordings) are drawn, because pictures of one group are not independent. The
    accuracy of independent pictures gets Wilson's interval, which has a width where none or all are right, too.

    Args:
        probabilities: (N, K).
        labels: (N,).
        groups: (N,) number of each example's group; every example its own where there are none.
        seed: the same data give the same interval.
        decided: (N,) classes, where that is not the most probable one.
    """
    rng = np.random.default_rng(seed)
    group_of = np.unique(groups, return_inverse=True)[1]
    num_groups = int(group_of.max()) + 1
    right = ((probabilities.argmax(1) if decided is None else decided) == labels).astype(np.float64)
    one_hot = np.eye(probabilities.shape[1])[labels]
    samples: dict[str, list[Floats]] = {"accuracy": [], "balanced_accuracy": [], "auroc": []}
    chunk = max(1, min(100, 2_000_000 // len(labels)))  # keeps the memory of the weights at 16 MB
    for start in range(0, NUM_BOOTSTRAPS, chunk):
        size = min(chunk, NUM_BOOTSTRAPS - start)
        drawn = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=size)
        weights = drawn[:, group_of].astype(np.float64)  # (R, N)
        samples["accuracy"].append(weights @ right / weights.sum(1))
        with np.errstate(invalid="ignore", divide="ignore"):
            recalls = (weights * right) @ one_hot / (weights @ one_hot)
        recalls = recalls[:, one_hot.any(0)]
        counts = np.maximum((~np.isnan(recalls)).sum(1), 1)
        samples["balanced_accuracy"].append(np.nansum(recalls, 1) / counts)
        samples["auroc"].append(mean_auroc(probabilities, labels, weights))
    result = {}
    for name, parts in samples.items():
        values = np.concatenate(parts)
        if not np.isnan(values).all():
            low, high = np.nanpercentile(values, [2.5, 97.5])
            result[name] = (float(low), float(high))
    if num_groups == len(labels):
        result["accuracy"] = wilson(int(right.sum()), len(labels))
    return result


def wilson(successes: int, total: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson, 1927), right for small numbers too."""
    if total == 0:
        return 0.0, 1.0
    z, p = 1.959964, successes / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    # Rounding must not put the bounds inside the proportion.
    return min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))


def per_class(decided: NDArray[np.int64], labels: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, Any]:
    """The confusion matrix (rows: truth) and precision, recall and F1 of each class."""
    k = len(classes)
    confusion = np.zeros((k, k), np.int64)
    np.add.at(confusion, (labels, decided), 1)
    rows = []
    for c, name in enumerate(classes):
        num_right, num_true, num_decided = confusion[c, c], confusion[c].sum(), confusion[:, c].sum()
        precision = float(num_right / num_decided) if num_decided else 0.0
        recall = float(num_right / num_true) if num_true else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        rows.append({"class": name, "num": int(num_true), "precision": precision, "recall": recall, "f1": f1})
    return {"confusion": confusion.tolist(), "per_class": rows}


def at_threshold(
    scores: Floats, labels: NDArray[np.int64], positive: int, threshold: float
) -> dict[str, tuple[float, tuple[float, float]]]:
    """Sensitivity and specificity at a threshold, each with its 95 % interval; one without examples is left out.

    Args:
        scores: (N,) probability of the positive class; positive from ``threshold`` on.
        labels: (N,).
        positive: the class's number.
        threshold: chosen elsewhere, never on these examples.
    """
    decided, true = scores >= threshold, labels == positive
    counted = {
        "sensitivity": (int((decided & true).sum()), int(true.sum())),
        "specificity": (int((~decided & ~true).sum()), int((~true).sum())),
    }
    return {name: (hits / total, wilson(hits, total)) for name, (hits, total) in counted.items() if total}
