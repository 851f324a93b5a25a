"""What the bootstrap draws: sums over examples that are drawn anew (Efron, 1979)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BOOTSTRAPS = 1000


def resampled_sums(values: NDArray[Any], seed: int) -> NDArray[Any]:
    """(NUM_BOOTSTRAPS, K) sums of (N, K) values over N examples drawn with replacement.

    They are drawn one after the other: together, they would be the largest thing in memory.
    """
    rng, shares = np.random.default_rng(seed), np.full(len(values), 1 / len(values))
    return np.stack([rng.multinomial(len(values), shares) @ values for _ in range(NUM_BOOTSTRAPS)])
