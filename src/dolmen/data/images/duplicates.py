"""Pictures that are in a set twice without being equal: saved again, resized, a little brighter.

Near duplicates are found without comparing all pairs. Two difference hashes that differ in at most 4 of 64
bits agree in at least 2 of 6 bands (pigeonhole), so that sorting by each of the 15 pairs of bands brings them
together; a pair counts when its 16 x 16 thumbnails then correlate. In a bucket of any size each picture is
compared with the next ``WINDOW`` only, which keeps the work linear when thousands share a hash (frames of a
video, digits).

How the thresholds were chosen: all 72 million pairs of 12,000 CIFAR-10 pictures and all 14 million pairs of
5,232 PneumoniaMNIST pictures were compared, and the closest were looked at. In CIFAR-10 all 9 pairs from
0.98 up are the same photograph; the first wrong pair (a pink field, a grey sea) comes at 0.974. The hashes
bring 6 of the 9 together (the other 3 differ in 5 to 7 bits). Among the look-alike chest X-rays 2 pairs
reach 0.98 without being equal (of the same diagnosis), 52 would reach 0.96. Saved again as JPEG of quality
50 or at half the size, 95 % of 500 pictures of either set stay above 0.987. Digits of 8 x 8 pixels are all
outline: 198 pairs reach 0.98, one reaches 0.995; hence the rule for small pictures. Mirrored and cropped
copies are not found.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from dolmen.data.checks.clusters import digest_ids
from dolmen.data.images.decoded import Decoded

MAX_BITS = 4
BAND_BITS = (11, 11, 11, 11, 10, 10)  # 6 bands, so that 2 stay whole when 4 bits change
WINDOW = 16
MAX_PARTNERS = 8
MIN_CORRELATION = 0.98
SMALL_SIDE_PX, MIN_CORRELATION_SMALL = 16, 0.995  # a picture of fewer pixels a side shows too little to be sure sooner
MIN_CONTRAST = 3.0  # grey levels of standard deviation; below it a thumbnail is noise, and all noise looks alike
MAX_CONTRAST_RATIO = 1.5
CHUNK_PAIRS = 16_384  # bounds the memory that comparing thumbnails takes


def near_duplicates(decoded: Decoded, indices: NDArray[np.int64], splits: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the (P, 2) pairs of pictures that look the same without being equal, the smaller index first.

    Of exact duplicates only the first is compared; pictures of one colour match nothing. A picture with very
    many near duplicates is listed with ``MAX_PARTNERS`` or more of them in its split and as many outside.

    Args:
        decoded: all pictures.
        indices: (M,) the pictures to look at.
        splits: (N,) the split of each of all pictures.
    """
    if not len(indices):
        return np.empty((0, 2), np.int64)
    indices = np.sort(indices)
    kept = indices[np.unique(digest_ids(decoded.digests[indices]), return_index=True)[1]]
    thumbnails = _Thumbnails(decoded, kept)
    side = np.unique(splits[kept], return_inverse=True)[1]
    partners = np.zeros((len(kept), 2), np.int64)  # how many there are in the same split, and in others
    near = [np.empty((0, 2), np.int64)]
    for pairs in _candidates(decoded.hashes[kept], thumbnails.sketch):
        across = (side[pairs[:, 0]] != side[pairs[:, 1]]).astype(np.int64)
        below_limit = (partners[pairs, across[:, None]] < MAX_PARTNERS).any(axis=1)
        pairs, across = pairs[below_limit], across[below_limit]
        is_near = thumbnails.agree(pairs)
        near.append(pairs[is_near])
        np.add.at(partners, (pairs[is_near], across[is_near][:, None]), 1)
    return np.unique(np.sort(kept[np.concatenate(near)], axis=1), axis=0)


def _candidates(hashes: NDArray[np.uint64], sketch: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
    """Yield (P, 2) pairs whose hashes differ in at most ``MAX_BITS`` bits, some of them more than once.

    In each bucket the pictures are sorted by one number of the sketch, another one in each round, so that in
    a bucket larger than the window a picture still stands near those that look like it.
    """
    starts = np.cumsum((0, *BAND_BITS))[:-1].astype(np.uint64)
    masks = [np.uint64((1 << bits) - 1) << start for bits, start in zip(BAND_BITS, starts, strict=True)]
    for table, (a, b) in enumerate(combinations(masks, 2)):
        keys = hashes & (a | b)
        order = np.lexsort((sketch[:, table % sketch.shape[1]], keys))
        keys = keys[order]
        left = np.arange(len(order))
        for offset in range(1, WINDOW + 1):
            left = left[left < len(order) - offset]
            left = left[keys[left] == keys[left + offset]]
            if not len(left):
                break
            pairs = np.stack([order[left], order[left + offset]], axis=1)
            pairs = pairs[np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]) <= MAX_BITS]
            yield from np.array_split(pairs, len(pairs) // CHUNK_PAIRS + 1)


class _Thumbnails:
    """The thumbnails of M pictures, and whether two of them show the same.

    Attributes:
        sketch: (M, 16) float32, 4 x 4 block means of the normalised thumbnails, scaled so that the squared
            distance of two sketches is never more than that of the thumbnails, 2 (1 - correlation).
    """

    def __init__(self, decoded: Decoded, indices: NDArray[np.int64]):
        self._pixels = decoded.thumbnails
        self._indices = indices
        self._min_correlation = np.where(
            decoded.sizes[indices].min(axis=1) < SMALL_SIDE_PX, MIN_CORRELATION_SMALL, MIN_CORRELATION
        )
        self._contrast = np.empty(len(indices), np.float32)
        self.sketch = np.empty((len(indices), 16), np.float32)
        for start in range(0, len(indices), CHUNK_PAIRS):
            part = slice(start, start + CHUNK_PAIRS)
            values = self._pixels[indices[part]].reshape(-1, 4, 4, 4, 4).astype(np.float32)
            values -= values.mean(axis=(1, 2, 3, 4), keepdims=True)
            self._contrast[part] = np.sqrt(np.square(values).mean(axis=(1, 2, 3, 4)))
            blocks = values.mean(axis=(2, 4)).reshape(-1, 16)
            self.sketch[part] = blocks / (4 * np.maximum(self._contrast[part], MIN_CONTRAST)[:, None])

    def agree(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (P,) for (P, 2) positions: alike in contrast and correlated."""
        a, b = pairs.T
        min_correlation = np.maximum(self._min_correlation[a], self._min_correlation[b])
        lower, higher = np.sort(self._contrast[pairs], axis=1).T
        similar: NDArray[np.bool_] = (lower >= MIN_CONTRAST) & (higher <= MAX_CONTRAST_RATIO * lower)
        similar &= np.square(self.sketch[a] - self.sketch[b]).sum(axis=1) <= 2 * (1 - min_correlation) + 1e-5
        candidates = np.flatnonzero(similar)  # the sketch has settled nearly all of the others
        x, y = (self._pixels[self._indices[p[candidates]]].astype(np.float32) for p in (a, b))
        x -= x.mean(axis=(1, 2), keepdims=True)
        y -= y.mean(axis=(1, 2), keepdims=True)
        correlation = (x * y).mean(axis=(1, 2)) / (self._contrast[a[candidates]] * self._contrast[b[candidates]])
        similar[candidates] = correlation >= min_correlation[candidates]
        return similar
