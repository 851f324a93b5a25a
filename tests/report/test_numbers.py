from __future__ import annotations

import math

import pytest

from dolmen.report.description import Description
from dolmen.report.numbers import (
    classes_text,
    duration,
    interval_text,
    loss_text,
    metric_text,
    percent,
    sentence,
)
from dolmen.types import Metric

ACCURACY, AUROC = Metric("accuracy", "", percent=True), Metric("AUROC", "")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (percent(0.9861), "98.6 %"),
        (percent(0.99999), "99.9 %"),  # not all
        (percent(1.0), "100 %"),
        (percent(1.234), "123.4 %"),  # an error rate may be
        (percent(0.0001), "under 0.1 %"),  # not none
        (percent(0.0), "0 %"),
        (metric_text(ACCURACY, 0.5), "50 %"),
        (metric_text(AUROC, 0.98765), "0.988"),
        (metric_text(AUROC, 0.9998), "0.999"),
        (metric_text(AUROC, 1.0), "1.000"),
        (metric_text(AUROC, math.nan), "–"),
        (metric_text(AUROC, None), "–"),
        (interval_text((0.9, 0.953), percentages=True), "90 to 95.3 %"),
        (interval_text([0.9, 0.95], percentages=False), "0.900 to 0.950"),
        (interval_text(None, percentages=False), ""),
        (interval_text((math.nan, 1.0), percentages=False), ""),
        (duration(4.44), "4.4 s"),
        (duration(59), "59 s"),
        (duration(600), "10 min"),
        (duration(590), "9 min 50 s"),
        (duration(7500), "2 h 5 min"),
        (Description(metrics={"macro_f1": Metric("macro F1", "")}).metric("macro_f1").title, "macro F1"),
        (Description().metric("bits_per_character").title, "bits per character"),  # of a run that describes none
        (classes_text(["cat", "dog"]), "2: cat, dog"),
        (classes_text(["cat"] * 30), "30"),
        (sentence("accuracy"), "Accuracy"),
        (sentence("mAP"), "mAP"),
    ],
)
def test_numbers_as_people_read_them(found: str, expected: str) -> None:
    assert found.replace("\u00a0", " ") == expected


def test_the_loss_of_an_older_evaluation_is_not_made_up() -> None:
    assert loss_text({"ece": 0.1, "temperature": 2.0}) == ""
    assert "0.123 with this temperature and 0.457 without it" in loss_text({"loss": 0.1234, "loss_before": 0.4567})
