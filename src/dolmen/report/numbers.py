"""Numbers as people read them: percentages, intervals, durations, counts."""

from __future__ import annotations

import math
from typing import Any

PERCENT_SIGN = "\u00a0%"
PERCENT = {
    "accuracy",
    "balanced_accuracy",
    "top_5_accuracy",
    "sensitivity",
    "specificity",
    "precision",
    "recall",
    "recall_100",
    "rpn_recall_50",
    "rpn_recall_70",
    "wer",
    "cer",
    "exact",
    "substitutions",
    "deletions",
    "insertions",
    "oov",
    "misses",
}
NAMES = {
    "auroc": "AUROC",
    "ece": "ECE",
    "macro_f1": "macro F1",
    "f1": "F1",
    "top_5_accuracy": "top-5 accuracy",
    "brier": "Brier score",
    "map": "mAP",
    "map_50": "mAP@0.5",
    "map_75": "mAP@0.75",
    "map_small": "mAP of small objects",
    "map_medium": "mAP of medium objects",
    "map_large": "mAP of large objects",
    "recall_100": "recall@100",
    "rpn_recall_50": "proposal recall@0.5",
    "rpn_recall_70": "proposal recall@0.7",
    "wer": "WER",
    "cer": "CER",
    "eer": "EER",
    "iou": "IoU",
    "oov": "OOV",
    "bleu": "BLEU",
    "chrf": "chrF",
    "loss_in_windows": "loss in windows",
}
WHAT = {
    "accuracy": "share of examples decided rightly",
    "balanced_accuracy": "mean over the classes of the share decided rightly",
    "macro_f1": "mean over the classes of F1",
    "auroc": "chance that a positive example ranks above a negative one",
    "precision": "share of what was found that is right",
    "recall": "share of what is there that was found",
    "f1": "harmonic mean of precision and recall",
    "map": "mean over classes and overlaps (0.5 to 0.95) of the precision, averaged over recall; COCO's measure",
    "map_50": "the same where an overlap of half is enough",
    "map_75": "the same for boxes that fit well",
    "map_small": "the same of objects under 32 × 32 pixels",
    "map_medium": "the same of objects of 32 × 32 to 96 × 96 pixels",
    "map_large": "the same of objects over 96 × 96 pixels",
    "recall_100": "share found by the 100 surest boxes of a class, over the same overlaps",
    "rpn_recall_50": "share of objects that a proposal covers by half",
    "rpn_recall_70": "share of objects that a proposal covers well, by 0.7",
    "loss": "mean negative log-likelihood, in nats",
    "perplexity": "how many tokens it hesitates between, on average: e to the loss",
    "bits_per_character": "bits that a character takes when the model compresses the text",
    "loss_in_windows": "the loss where each window begins with an empty memory",
    "ece": "mean gap between the probability given and the share that was right",
    "brier": "mean squared distance of the probabilities from the truth",
    "top_5_accuracy": "share in which the truth is among the five most probable classes",
    "sensitivity": "share of the positive examples found, at the operating point",
    "specificity": "share of the negative examples left alone, at the operating point",
    "wer": "words taken for others, left out or put in, for each word that was said",
    "cer": "the same of characters, with the spaces between words",
    "exact": "share of utterances without a wrong word",
    "substitutions": "words taken for others, for each word that was said",
    "deletions": "words left out, for each word that was said",
    "insertions": "words put in that were not said, for each word that was",
    "oov": "share of the words said that the model can't write: training never showed them",
    "threshold": "words less sure than this are left out",
    "misses": "share of the words said that are not heard with that threshold",
    "false_alarms_per_hour": "words heard with that threshold where none of them is said",
}


def metric_name(name: str) -> str:
    """The metric's name as it is written in prose: ``macro_f1`` -> ``macro F1``."""
    return NAMES.get(name, name.replace("_", " "))


def metric_text(name: str, value: Any) -> str:
    """A metric's value: ``98.6 %`` for shares, three digits for the rest, a dash where there is none."""
    if not isinstance(value, int | float) or math.isnan(value):
        return "–"
    return percent(value) if name in PERCENT else decimal(value)


def decimal(value: float) -> str:
    """Three digits; an AUROC of 0.9998 is not called 1.000."""
    return f"{min(value, 0.999) if value < 1 else value:.3f}"


def percent(value: float) -> str:
    """0.9861 -> ``98.6 %``, without a line break inside; nothing is rounded to all or to none. It may be over 100 %."""
    if 0 < value < 0.0005:
        return f"under 0.1{PERCENT_SIGN}"
    return f"{min(100 * value, 99.9) if value < 1 else 100 * value:.1f}".removesuffix(".0") + PERCENT_SIGN


def interval_text(name: str, interval: Any) -> str:
    """A 95 % interval: ``97.9 to 99.2 %``; empty where there is none."""
    if not interval or any(math.isnan(x) for x in interval):
        return ""
    low, high = interval
    if name in PERCENT:
        return f"{percent(low).removesuffix(PERCENT_SIGN)} to {percent(high)}"
    return f"{decimal(low)} to {decimal(high)}"


def duration(seconds: float) -> str:
    """A length of time: ``42 s``, ``9 min 50 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def sentence(text: str) -> str:
    """The same with a capital to begin a sentence with: ``accuracy`` -> ``Accuracy``, but ``mAP`` stays."""
    return text if any(c.isupper() for c in text.split(" ")[0]) else text[:1].upper() + text[1:]


def loss_text(calibration: dict[str, Any]) -> str:
    """The loss with and without the temperature, in a sentence; nothing where an older evaluation lacks it."""
    if "loss_before" not in calibration:
        return ""
    return (
        f"The loss (mean negative log-likelihood) is {calibration['loss']:.3f} with this temperature and "
        f"{calibration['loss_before']:.3f} without it."
    )
