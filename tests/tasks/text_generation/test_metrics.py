"""Perplexity and bits per character."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dolmen.tasks.text_generation.metrics import intervals, metrics


def test_known_values() -> None:
    nll = np.full((3, 4), math.log(8.0))
    nll[2, 2:] = np.nan
    values = metrics(nll, tokens_per_character=0.5)
    assert values == pytest.approx({"perplexity": 8.0, "bits_per_character": 1.5, "loss": math.log(8.0)})


def test_intervals_hold_the_value_and_shrink() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for num in (100, 1600):
        nll = rng.exponential(2.0, (num, 20))
        low, high = intervals(nll, 1.0)["loss"]
        assert low < metrics(nll, 1.0)["loss"] < high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)
