"""May a picture be mirrored without changing its class? Asked of the data instead of the person."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_LOST_LIKENESS = 0.02
"""Correlation with the nearest neighbour that mirror images may lack."""
MAX_QUERIES, MAX_REFERENCES, NEIGHBOURS = 1000, 5000, 5


class MirrorTest(NamedTuple):
    """The outcome of ``mirror_test``.

    Attributes:
        keeps: whether mirroring left to right keeps the class, as far as the data tell.
        plain: share of pictures whose nearest neighbours among the others have their class.
        mirrored: the same after mirroring the picture.
    """

    keeps: bool
    plain: float
    mirrored: float


def mirror_test(
    thumbnails: NDArray[np.uint8], labels: NDArray[np.int64], seed: int = 0, *, same_appearance: bool = False
) -> MirrorTest:
    """Compare how well the nearest neighbours classify pictures and their mirror images.

    Digits, letters and left/right views lose most of their neighbours when mirrored; cats and lungs do not.

    Args:
        thumbnails: (N, 16, 16) uint8 of training pictures.
        labels: (N,) int64.
        seed: of the sample that is compared (at most 1,000 against 5,000).
        same_appearance: mirror images must also be as like their nearest neighbours as the pictures are: of objects of
            one class alone, upright people for example, no class would tell that they don't stand on their heads.
    """
    order = np.random.default_rng(seed).permutation(len(labels))[:MAX_REFERENCES]
    references, reference_labels = _unit(thumbnails[order]), labels[order]
    queries = order[:MAX_QUERIES]
    agreement, best_likeness = {}, {}
    for name, pictures in (("plain", thumbnails[queries]), ("mirrored", thumbnails[queries][:, :, ::-1])):
        likeness = _unit(pictures) @ references.T  # (Q, R)
        likeness[np.arange(len(queries)), np.arange(len(queries))] = -np.inf  # not with itself
        neighbours = reference_labels[np.argsort(-likeness, 1)[:, : min(NEIGHBOURS, len(order) - 1)]]  # (Q, 5)
        best_likeness[name] = likeness.max(1)
        agreement[name] = (neighbours == labels[queries][:, None]).mean(1)
    plain, mirrored = float(agreement["plain"].mean()), float(agreement["mirrored"].mean())
    noise = 2 * float((agreement["plain"] - agreement["mirrored"]).std()) / max(1, len(queries)) ** 0.5
    keeps = plain - mirrored <= 0.1 * plain + noise
    if same_appearance:
        lost_likeness = best_likeness["plain"] - best_likeness["mirrored"]
        keeps &= float(lost_likeness.mean()) <= MAX_LOST_LIKENESS
    return MirrorTest(bool(keeps), plain, mirrored)


def _unit(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Each picture as a vector of mean 0 and length 1: (N, 256)."""
    x = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    x -= x.mean(1, keepdims=True)
    return x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-6)  # type: ignore[no-any-return]
