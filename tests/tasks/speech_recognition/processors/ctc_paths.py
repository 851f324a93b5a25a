"""Distributions, and all the paths through them."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray


def distributions(t: int, v: int, seed: int = 0, sharpness: float = 1.5) -> NDArray[np.float32]:
    z = np.random.default_rng(seed).normal(0, sharpness, (t, v))
    return (z - np.log(np.exp(z).sum(1, keepdims=True))).astype(np.float32)


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(unit for unit, _ in itertools.groupby(path) if unit)


def path_log(logp: NDArray[np.float32], path: tuple[int, ...]) -> float:
    return float(sum(logp[t, unit] for t, unit in enumerate(path)))


def all_sums(logp: NDArray[np.float32]) -> dict[tuple[int, ...], float]:
    """Units -> their log-probability, by every path there is."""
    t, v = logp.shape
    sums: dict[tuple[int, ...], float] = defaultdict(lambda: -np.inf)
    for path in itertools.product(range(v), repeat=t):
        sums[collapsed(path)] = float(np.logaddexp(sums[collapsed(path)], path_log(logp, path)))
    return dict(sums)
