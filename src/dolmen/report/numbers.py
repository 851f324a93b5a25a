"""Numbers as people read them: percentages, intervals, durations, counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dolmen.types import Metric

PERCENT_SIGN = "\u00a0%"


def metric_text(metric: Metric, value: Any) -> str:
    """A metric's value: ``98.6 %`` for shares, three digits for the rest, a dash where there is none."""
    if not isinstance(value, int | float) or math.isnan(value):
        return "–"
    return percent(value) if metric.percent else decimal(value)


def decimal(value: float) -> str:
    """Three digits; an AUROC of 0.9998 is not called 1.000."""
    return f"{min(value, 0.999) if value < 1 else value:.3f}"


def percent(value: float) -> str:
    """0.9861 -> ``98.6 %``, without a line break inside; nothing is rounded to all or to none. It may be over 100 %."""
    if 0 < value < 0.0005:
        return f"under 0.1{PERCENT_SIGN}"
    return f"{min(100 * value, 99.9) if value < 1 else 100 * value:.1f}".removesuffix(".0") + PERCENT_SIGN


def interval_text(interval: Any, *, percentages: bool) -> str:
    """A 95 % interval: ``97.9 to 99.2 %``; empty where there is none."""
    if not interval or any(math.isnan(x) for x in interval):
        return ""
    low, high = interval
    if percentages:
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


MAX_NAMES = 50
"""Classes that are named in a sentence."""


def classes_text(names: Sequence[str]) -> str:
    """How many classes there are, and their names where these are few: ``2: cat, dog``."""
    joined = ", ".join(names)
    return f"{len(names)}: {joined}" if len(joined) <= 60 else f"{len(names)}"


def sentence(text: str) -> str:
    """A text with a capital to begin a sentence with: ``accuracy`` -> ``Accuracy``, but ``mAP`` stays."""
    return text if any(c.isupper() for c in text.split(" ")[0]) else text[:1].upper() + text[1:]


def loss_text(calibration: dict[str, Any]) -> str:
    """The loss with and without the temperature, in a sentence; nothing where an older evaluation lacks it."""
    if "loss_before" not in calibration:
        return ""
    return (
        f"The loss (mean negative log-likelihood) is {calibration['loss']:.3f} with this temperature and "
        f"{calibration['loss_before']:.3f} without it."
    )
