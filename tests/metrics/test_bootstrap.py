"""What the bootstrap draws."""

from __future__ import annotations

import numpy as np

from dolmen.metrics.bootstrap import NUM_BOOTSTRAPS, resampled_sums


def test_one_draw_after_the_other_equals_all_together() -> None:
    values = np.random.default_rng(1).integers(0, 9, (30, 3))
    together = np.random.default_rng(7).multinomial(30, np.full(30, 1 / 30), NUM_BOOTSTRAPS) @ values
    assert np.array_equal(resampled_sums(values, 7), together)
