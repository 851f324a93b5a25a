"""Metrics that several tasks report, each declared once; a task's ``METRICS`` picks those that it reports."""

from __future__ import annotations

from dolmen.types import Metric

SHARED: dict[str, Metric] = {
    "accuracy": Metric("accuracy", "share of examples decided rightly", percent=True),
    "balanced_accuracy": Metric(
        "balanced accuracy", "mean over the classes of the share decided rightly", percent=True
    ),
    "macro_f1": Metric("macro F1", "mean over the classes of F1"),
    "auroc": Metric("AUROC", "chance that a positive example ranks above a negative one"),
    "loss": Metric("loss", "mean negative log-likelihood, in nats", better="min"),
    "calibrated_loss": Metric("calibrated loss", "the loss after fitting a temperature", better="min"),
    "brier": Metric("Brier score", "mean squared distance of the probabilities from the truth", better="min"),
    "ece": Metric("ECE", "mean gap between the probability given and the share that was right", better="min"),
    "top_5_accuracy": Metric(
        "top-5 accuracy", "share in which the truth is among the five most probable classes", percent=True
    ),
    "sensitivity": Metric("sensitivity", "share of the positive examples found, at the operating point", percent=True),
    "specificity": Metric(
        "specificity", "share of the negative examples left alone, at the operating point", percent=True
    ),
    "precision": Metric("precision", "share of what was found that is right", percent=True),
    "recall": Metric("recall", "share of what is there that was found", percent=True),
    "f1": Metric("F1", "harmonic mean of precision and recall"),
}


def shared(*names: str) -> dict[str, Metric]:
    """Some of the shared metrics by name, in the given order."""
    return {name: SHARED[name] for name in names}
