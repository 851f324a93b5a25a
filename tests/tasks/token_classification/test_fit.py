"""What is fitted on validation when a tagger has been trained."""

from __future__ import annotations

import numpy as np

from dolmen.tasks.token_classification.fit import fit_outside
from dolmen.tasks.token_classification.processor import TagProcessor


def test_what_is_taken_off_the_score_of_no_span_is_fitted() -> None:
    labels = ("O", "B-X", "I-X", "E-X", "S-X")
    processor = TagProcessor(kind="spans", words=("",), characters="", labels=labels)
    rng = np.random.default_rng(0)
    tags = np.where(rng.random(4000) < 0.2, 4, 0)
    scores = np.full((4000, 5), -9.0)
    scores[:, 0] = rng.normal(1, 0.3, 4000)
    scores[:, 4] = np.where(tags == 4, 0.4, -0.8)  # spans are known, but "O" is always likelier
    parts, gold = np.split(scores, 400), np.split(tags, 400)
    outside = fit_outside(processor, parts, gold)
    assert 0.6 < outside <= 1.5
    assert fit_outside(processor, [p - [3.0, 0, 0, 0, 0] for p in parts], gold) == 0
