from __future__ import annotations

import math

import pytest

from dolmen.report.numbers import (
    count,
    duration,
    interval_text,
    loss_text,
    metric_name,
    metric_text,
    percent,
    sentence,
)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (percent(0.9861), "98.6 %"),
        (percent(0.99999), "99.9 %"),  # not all
        (percent(1.0), "100 %"),
        (percent(1.234), "123.4 %"),  # an error rate may be
        (percent(0.0001), "under 0.1 %"),  # not none
        (percent(0.0), "0 %"),
        (metric_text("accuracy", 0.5), "50 %"),
        (metric_text("auroc", 0.98765), "0.988"),
        (metric_text("auroc", 0.9998), "0.999"),
        (metric_text("auroc", 1.0), "1.000"),
        (metric_text("auroc", math.nan), "–"),
        (metric_text("auroc", None), "–"),
        (interval_text("accuracy", (0.9, 0.953)), "90 to 95.3 %"),
        (interval_text("auroc", [0.9, 0.95]), "0.900 to 0.950"),
        (interval_text("auroc", None), ""),
        (interval_text("auroc", (math.nan, 1.0)), ""),
        (duration(4.44), "4.4 s"),
        (duration(59), "59 s"),
        (duration(600), "10 min"),
        (duration(590), "9 min 50 s"),
        (duration(7500), "2 h 5 min"),
        (count(1, "picture"), "1 picture"),
        (count(1797, "picture"), "1,797 pictures"),
        (count(2, "class", "classes"), "2 classes"),
        (metric_name("macro_f1"), "macro F1"),
        (metric_name("bits_per_character"), "bits per character"),
        (sentence("accuracy"), "Accuracy"),
        (sentence("mAP"), "mAP"),
    ],
)
def test_numbers_as_people_read_them(found: str, expected: str) -> None:
    assert found.replace("\u00a0", " ") == expected


def test_the_loss_of_an_older_evaluation_is_not_made_up() -> None:
    assert loss_text({"ece": 0.1, "temperature": 2.0}) == ""
    assert "0.123 with this temperature and 0.457 without it" in loss_text({"loss": 0.1234, "loss_before": 0.4567})
