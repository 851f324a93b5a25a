"""Batches of sequences of similar length."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

BATCHES_PER_POOL = 50
"""Batches whose sequences are sorted by length together, so that a batch has little padding and order stays random."""


class Sequences(ABC):
    """Examples of different lengths."""

    _epoch: tuple[int, int, int] | None = None
    _batches: list[NDArray[np.int64]]

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def lengths(self) -> NDArray[np.int64]:
        """(N,) length of each example."""

    def in_epoch(self, epoch: int, batch_size: int, seed: int) -> list[NDArray[np.int64]]:
        """The batches of an epoch: random, of examples of similar length."""
        if self._epoch != (epoch, batch_size, seed):
            self._epoch = epoch, batch_size, seed
            rng, lengths = np.random.default_rng([seed, epoch]), self.lengths
            order = rng.permutation(len(self))
            pools = np.array_split(order, max(1, len(order) // (BATCHES_PER_POOL * batch_size)))
            order = np.concatenate([p[np.argsort(lengths[p], kind="stable")] for p in pools])
            batches = np.array_split(order, -(-len(order) // batch_size))
            self._batches = [batches[i] for i in rng.permutation(len(batches))]
        return self._batches
