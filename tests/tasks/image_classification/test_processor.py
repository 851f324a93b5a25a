from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dolmen.tasks.image_classification.processor import ClassificationProcessor

NAMES = ("cat", "dog")


def processor(**changes: Any) -> ClassificationProcessor:
    return ClassificationProcessor(**({"classes": NAMES, "height": 8, "width": 8, "channels": 3} | changes))


def test_decode_is_a_softmax() -> None:
    (answer,) = processor().decode({"logits": np.array([[np.log(3.0), 0.0]], np.float32)})
    assert answer.names == NAMES
    assert answer.label == "cat"
    assert answer.probabilities == pytest.approx([0.75, 0.25])


def test_decode_is_stable_for_huge_logits() -> None:
    (answer,) = processor().decode({"logits": np.array([[3e38, -3e38]], np.float32)})
    assert answer.probabilities.tolist() == [1.0, 0.0]


def test_temperature_divides_the_logits() -> None:
    (answer,) = processor(temperature=2.0).decode({"logits": np.array([[2 * np.log(3.0), 0.0]])})
    assert answer.probabilities == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize(
    ("decide", "logits", "label"),
    [
        (True, [1.0, 0.0], "dog"),  # P(dog) = 0.27 reaches the threshold
        (True, [3.0, 0.0], "cat"),  # P(dog) = 0.05 does not
        (False, [1.0, 0.0], "cat"),
        (False, [0.0, 1.0], "dog"),
    ],
)
def test_threshold_decides_where_it_was_asked_to(decide: bool, logits: list[float], label: str) -> None:
    chosen = processor(positive="dog", threshold=0.2, decide_by_threshold=decide)
    assert chosen.decode({"logits": np.array([logits])})[0].label == label


def test_json_round_trip() -> None:
    before = processor(fit="pad", num_views=2, temperature=1.5, positive="dog", threshold=0.3)
    assert ClassificationProcessor.from_json(before.to_json()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hieght": 3}, "Extra inputs are not permitted"),
        ({"height": 0}, "greater than 0"),
        ({"channels": 4}, "Input should be 1 or 3"),
        ({"fit": "zoom"}, "'crop', 'pad' or 'stretch'"),
        ({"temperature": 0}, "greater than 0"),
        ({"positive": "bird"}, "positive is 'bird', expected one of cat, dog"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClassificationProcessor.from_json(processor().to_json() | change)


def test_a_processor_of_a_saved_run_opens() -> None:
    """All on one level, in any order: so runs and bundles have it that were saved before size and classes parted."""
    saved = (
        '{"classes": ["cat", "dog"], "height": 32, "width": 24, "channels": 3, "fit": "pad", "num_views": 2,'
        ' "temperature": 1.5, "positive": "dog", "threshold": 0.3, "decide_by_threshold": true}'
    )
    opened = ClassificationProcessor.from_json(json.loads(saved))
    assert opened.to_json() == json.loads(saved)
    assert opened.encode(np.zeros((40, 50, 3), np.uint8))["images"].shape == (32, 24, 3)
    assert opened.decode({"logits": np.array([[1.0, 0.0]])})[0].label == "dog"


@pytest.mark.parametrize(("num_views", "moves"), [(1, 1), (2, 1), (6, 3)])
def test_views_weigh_one_together_and_stay_inside(num_views: Any, moves: int) -> None:
    views = processor(height=4, width=5, num_views=num_views).views()
    assert len(views) == num_views
    assert sum(weight for weight, _, _ in views) == pytest.approx(1)
    assert all(rows.min() >= 0 and rows.max() < 4 and columns.min() >= 0 and columns.max() < 5
               for _, rows, columns in views)  # fmt: skip
    assert len({tuple(rows) for _, rows, _ in views}) == moves
    assert len({tuple(columns) for _, _, columns in views}) == num_views
