"""Where in a picture the answer comes from."""

from __future__ import annotations

import numpy as np
import pytest

from dolmen.tasks.image_classification.predictor import COVERED_SIDE, ClassificationPredictor
from dolmen.tasks.image_classification.processor import ClassificationProcessor
from dolmen.types import Arrays, UserError


class Corner:
    """A network that looks at the upper left quarter only."""

    def __call__(self, inputs: Arrays) -> Arrays:
        light = inputs["images"][:, :12, :12].astype(np.float32).max((1, 2, 3)) / 255
        return {"logits": np.stack([4 * light - 2, 2 - 4 * light], 1)}

    def steps(self) -> None:
        raise TypeError


def test_the_heat_map_is_where_the_network_looks() -> None:
    processor = ClassificationProcessor(classes=("light", "dark"), height=24, width=24, channels=1)
    predictor = ClassificationPredictor(processor, Corner())  # type: ignore[arg-type]
    picture = np.full((24, 24), 40, np.uint8)
    picture[4:8, 4:8] = 255
    explained = predictor.explain_input(picture)
    found = explained.heat
    assert explained.label == "light"
    assert explained.area == (0, 0, 1, 1)
    assert found.shape == (COVERED_SIDE, COVERED_SIDE)
    assert found.max() == 1
    assert found[2:4, 2:4].min() == 1  # any of these covers the spot, with its neighbours
    assert found[6:, :].max() == found[:, 6:].max() == 0
    with pytest.raises(UserError, match="the picture can't be read: not a picture"):
        predictor.explain_input(b"junk")
