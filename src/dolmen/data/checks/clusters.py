"""Examples that are equal, by their digests: which, across splits, within one, and with different answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Clusters = list[NDArray[np.int64]]
"""Each holds the indices of examples that are equal."""
Pairs = list[tuple[int, int]]


def digest_ids(digests: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return (N,) numbers, equal for equal rows of (N, D)."""
    rows = np.ascontiguousarray(digests).view(f"V{digests.shape[1]}")[:, 0]
    return np.unique(rows, return_inverse=True)[1].astype(np.int64)


def exact_duplicates(digests: NDArray[np.uint8], indices: NDArray[np.int64]) -> Clusters:
    """Return the clusters (two or more) of equal examples, each sorted, in order of their first.

    Args:
        digests: (N, D) uint8 of all examples.
        indices: (M,) the examples to look at.
    """
    if not len(indices):
        return []
    indices = np.sort(indices)
    ids = digest_ids(digests[indices])
    order = np.argsort(ids, kind="stable")
    clusters = np.split(indices[order], np.flatnonzero(np.diff(ids[order])) + 1)
    return sorted((c for c in clusters if len(c) > 1), key=lambda c: int(c[0]))


def copies_across(clusters: Clusters, splits: NDArray[np.str_], later: str, earlier: str) -> Pairs:
    """Each example of ``later`` that is also in ``earlier``, with the first of its like there, in order.

    Args:
        clusters: of ``exact_duplicates``.
        splits: (N,) the split of each example.
        later: a split.
        earlier: another one.
    """
    pairs: Pairs = []
    for cluster in clusters:
        first = cluster[splits[cluster] == earlier][:1].tolist()
        pairs += [(i, first[0]) for i in cluster[splits[cluster] == later].tolist() if first]
    return sorted(pairs)


def copies_within(clusters: Clusters, splits: NDArray[np.str_]) -> Pairs:
    """The first example of each cluster and split with each other one there, in order."""
    pairs: Pairs = []
    for cluster in clusters:
        for split in np.unique(splits[cluster]):
            members: list[int] = cluster[splits[cluster] == split].tolist()
            pairs += [(members[0], i) for i in members[1:]]
    return sorted(pairs)


def contradictions(clusters: Clusters, answer: Callable[[int], Any]) -> Pairs:
    """The first of each cluster with the next one that has another answer (label, text, boxes)."""
    pairs: Pairs = []
    for first, *others in (cluster.tolist() for cluster in clusters):
        expected = answer(first)
        other = next((i for i in others if answer(i) != expected), None)
        pairs += [] if other is None else [(first, other)]
    return pairs
