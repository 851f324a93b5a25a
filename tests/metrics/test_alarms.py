"""Misses and false alarms counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dolmen.metrics.alarms import MAX_POINTS, alarm_curve, threshold_for

FOUND, FALSE = np.array([0.9, 0.5, 0.8]), np.array([0.6, 0.2])


def test_the_curve() -> None:
    curve = alarm_curve(FOUND, 4, FALSE, 0.5)
    assert curve["thresholds"] == pytest.approx([0, 0.2, 0.5, 0.6, 0.6, 0.8, 0.9])
    assert curve["misses"] == [0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 0.75]
    assert curve["alarms_per_hour"] == [4, 4, 2, 2, 0, 0, 0]


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rng = np.random.default_rng(0)
    curve = alarm_curve(rng.random(5000), 5000, rng.random(5000), 10)
    assert len(curve["misses"]) == MAX_POINTS
    assert (curve["misses"][0], curve["alarms_per_hour"][0]) == (0, 500)
    assert curve["misses"][-1] > 0.99
    assert curve["alarms_per_hour"][-1] == 0
    assert all(np.diff(curve["misses"]) >= 0)
    assert all(np.diff(curve["alarms_per_hour"]) <= 0)


@pytest.mark.parametrize(("num_said", "hours"), [(0, 1.0), (2, 1.0), (4, 0.0)])
def test_no_basis(num_said: int, hours: float) -> None:
    with pytest.raises(ValueError, match=f"3 of {num_said} words in {hours:g} hours are no basis for a curve"):
        alarm_curve(FOUND, num_said, FALSE, hours)


@pytest.mark.parametrize(
    ("most", "threshold", "misses", "alarms"),
    [(4, 0.0, 0.25, 4), (2, 0.2, 0.25, 2), (3.9, 0.2, 0.25, 2), (1, 0.6, 0.5, 0), (0, 0.6, 0.5, 0)],
)
def test_the_threshold_for_so_many_alarms(most: float, threshold: float, misses: float, alarms: float) -> None:
    found = threshold_for(FOUND, 4, FALSE, 0.5, most)
    assert found == {"threshold": pytest.approx(threshold), "misses": misses, "alarms_per_hour": alarms}
    assert found["threshold"] > threshold or not threshold
