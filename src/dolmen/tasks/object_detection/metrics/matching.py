"""Which objects were found: boxes matched to the truth as COCO does it, and the precision that follows from weights.

faster-coco-eval computes what is reported once. The bootstrap needs a thousand average precisions, training one at
every evaluation, and the report which box is right; for those the matching is here, for all pictures at once, and
tested against that library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.predictions import Boxes

Floats = NDArray[np.float64]

IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""Overlaps over which COCO's mAP is the mean."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""Points of the recall axis at which precision is averaged."""
MAX_BOXES_PER_CLASS = 100
"""Boxes of a picture and class that are matched, the surest ones: COCO's rule."""
NOTHING, IGNORED = -1, -2


@dataclass(frozen=True, eq=False)
class Truth:
    """What is in one picture.

    Attributes:
        boxes_xyxy: (M, 4) float64, in pixels of the picture.
        labels: (M,) int64 classes.
        crowd: (M,) bool, regions of many objects, or objects too difficult to count: neither right nor wrong.
    """

    boxes_xyxy: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Listed:
    """The boxes of all pictures one after the other.

    Attributes:
        boxes_xyxy: (M, 4) float64.
        labels: (M,) int64.
        scores: (M,) float64; of the truth 1.
        crowd: (M,) bool; of predictions False.
        picture: (M,) int64.
        place: (M,) int64, which box of its picture it is.
    """

    boxes_xyxy: Floats
    labels: NDArray[np.int64]
    scores: Floats
    crowd: NDArray[np.bool_]
    picture: NDArray[np.int64]
    place: NDArray[np.int64]


def listed(boxes: Sequence[Boxes] | Sequence[Truth]) -> Listed:
    """All boxes in one list."""
    counts = [len(b.labels) for b in boxes]
    picture = np.repeat(np.arange(len(boxes)), counts)
    place = np.arange(len(picture)) - np.repeat(np.cumsum([0, *counts])[:-1], counts)

    def joined(parts: list[Any], dtype: Any) -> NDArray[Any]:
        return np.concatenate([np.zeros(0, dtype), *(np.asarray(p).reshape(-1) for p in parts)]).astype(dtype)

    num = len(picture)
    return Listed(
        joined([b.boxes_xyxy for b in boxes], np.float64).reshape(-1, 4),
        joined([b.labels for b in boxes], np.int64),
        joined([b.scores if isinstance(b, Boxes) else np.ones(len(b.labels)) for b in boxes], np.float64),
        joined([b.crowd if isinstance(b, Truth) else np.zeros(len(b), np.bool_) for b in boxes], np.bool_).reshape(num),
        picture,
        place,
    )


def areas(boxes_xyxy: Floats) -> Floats:
    """(N,) areas of (N, 4) boxes."""
    return np.asarray((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clip(0).prod(1), np.float64)


def overlap(predicted: Floats, truth: Floats, crowd: NDArray[np.bool_] | None = None) -> Floats:
    """(N,) intersection over union of boxes pair by pair, both (N, 4); in a crowd, over the predicted box's area."""
    low, high = np.maximum(predicted[:, :2], truth[:, :2]), np.minimum(predicted[:, 2:], truth[:, 2:])
    shared, area = (high - low).clip(0).prod(1), areas(predicted)
    divisor = area + areas(truth) - shared
    if crowd is not None:
        divisor = np.where(crowd, area, divisor)
    return _divided(shared, divisor)


def overlaps(predicted: Floats, truth: Floats) -> Floats:
    """(N, M) intersection over union of each of (N, 4) with each of (M, 4) boxes."""
    low = np.maximum(predicted[:, None, :2], truth[None, :, :2])
    high = np.minimum(predicted[:, None, 2:], truth[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    return _divided(shared, areas(predicted)[:, None] + areas(truth)[None] - shared)


def _divided(shared: Floats, divisor: Floats) -> Floats:
    return np.asarray(np.divide(shared, divisor, out=np.zeros_like(shared), where=divisor > 0), np.float64)


@dataclass(frozen=True, eq=False)
class Matches:
    """Predicted boxes, each class by itself and the surest first, with the object that each box is.

    Attributes:
        rows: (D,) int64, which box of ``predicted`` it is; ordered by class, then score.
        taken: (D, T) int64, at each overlap the row of the object in ``truth``, or NOTHING, or IGNORED: in a crowd.
        predicted: the boxes.
        truth: the objects.
        edges: (K + 1,) int64; class k has the rows from ``edges[k]`` up to ``edges[k + 1]``.
        num_pictures: N.
    """

    rows: NDArray[np.int64]
    taken: NDArray[np.int64]
    predicted: Listed
    truth: Listed
    edges: NDArray[np.int64]
    num_pictures: int

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.edges) - 1

    def of(self, label: int) -> slice:
        """The rows of a class."""
        return slice(int(self.edges[label]), int(self.edges[label + 1]))

    def num_objects(self) -> NDArray[np.int64]:
        """(K,) objects that count."""
        return np.bincount(self.truth.labels[~self.truth.crowd], minlength=self.num_classes)


def match(
    predicted: Sequence[Boxes], truth: Sequence[Truth], num_classes: int, ious: Sequence[float] = IOUS
) -> Matches:
    """Match boxes to objects as COCO does.

    The surest box comes first and takes the object of its class that it covers best, if that is covered enough; a box
    that has none left but lies in a crowd is ignored. The i-th surest boxes of every picture and class are matched
    together, so that the loop has a hundred turns at most.

    Args:
        predicted: of N pictures.
        truth: of the same.
        num_classes: K.
        ious: T overlaps from which on an object counts as found.
    """
    assert len(predicted) == len(truth)
    boxes, objects = listed(predicted), listed(truth)
    cell, object_cell = boxes.picture * num_classes + boxes.labels, objects.picture * num_classes + objects.labels
    order = np.lexsort((-boxes.scores, cell))
    rank = np.arange(len(order)) - np.searchsorted(cell[order], cell[order])
    order, rank = order[rank < MAX_BOXES_PER_CLASS], rank[rank < MAX_BOXES_PER_CLASS]
    by_cell = np.lexsort((objects.crowd, object_cell))
    pair, candidate, iou = _pairs(boxes, objects, cell[order], order, object_cell, by_cell, min(ious))

    taken = np.full((len(order), len(ious)), NOTHING, np.int64)
    free = np.ones((len(objects.labels), len(ious)), np.bool_)
    min_iou = np.array(ious)
    by_rank = np.argsort(rank[pair], kind="stable")
    turns = np.searchsorted(rank[pair][by_rank], np.arange(MAX_BOXES_PER_CLASS + 1))
    for start, stop in pairwise(turns.tolist()):
        if start == stop:
            continue
        turn = by_rank[start:stop]
        box, object_row, crowd = pair[turn], candidate[turn], objects.crowd[candidate[turn]]
        starts = np.flatnonzero(np.r_[True, np.diff(box) > 0])
        # A crowd is the last choice, and may be chosen again.
        preference = iou[turn, None] - 2.0 * crowd[:, None]
        preference = np.where((free[object_row] | crowd[:, None]) & (iou[turn, None] >= min_iou), preference, -np.inf)
        best = np.maximum.reduceat(preference, starts)
        is_best = (preference == np.repeat(best, np.diff([*starts, len(turn)]), axis=0)) & (preference > -np.inf)
        best_pair = np.maximum.reduceat(np.where(is_best, np.arange(len(turn))[:, None], -1), starts)
        row, level = np.nonzero(best_pair >= 0)
        chosen = best_pair[row, level]
        taken[box[starts][row], level] = np.where(crowd[chosen], IGNORED, object_row[chosen])
        free[object_row[chosen], level] = False
    by_class = np.lexsort((-boxes.scores[order], boxes.labels[order]))  # stable: pictures stay in order
    rows = order[by_class]
    edges = np.searchsorted(boxes.labels[rows], np.arange(num_classes + 1))
    return Matches(rows, taken[by_class], boxes, objects, edges.astype(np.int64), len(predicted))


def _pairs(
    boxes: Listed,
    objects: Listed,
    cell: NDArray[np.int64],
    order: NDArray[np.int64],
    object_cell: NDArray[np.int64],
    by_cell: NDArray[np.int64],
    min_iou: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """All pairs of a box (its position in ``order``) and an object of its class that overlap enough, with how much."""
    ordered = object_cell[by_cell]
    low, high = np.searchsorted(ordered, cell), np.searchsorted(ordered, cell, side="right")
    num_candidates = high - low
    pair = np.repeat(np.arange(len(order)), num_candidates)
    first = low - (np.cumsum(num_candidates) - num_candidates)  # less the pairs of the boxes before
    candidate = by_cell[np.arange(len(pair)) + np.repeat(first, num_candidates)]
    iou = overlap(boxes.boxes_xyxy[order[pair]], objects.boxes_xyxy[candidate], objects.crowd[candidate])
    close = iou >= min_iou
    return pair[close], candidate[close], iou[close]


def weighted_precision(matches: Matches, weights: Floats, levels: Sequence[int] | None = None) -> Floats:
    """Average precision of each class for many weightings of the same pictures at once.

    Args:
        matches: of N pictures.
        weights: (N, R) how often each picture counts.
        levels: which of the T overlaps; None for all.

    Returns:
        (K, T, R) in 0..1; nan where a class has no object.
    """
    from scipy.sparse import csr_array

    truth, chosen = matches.truth, range(matches.taken.shape[1]) if levels is None else levels
    result = np.full((matches.num_classes, len(chosen), weights.shape[1]), np.nan)
    counts = np.zeros((matches.num_classes, matches.num_pictures))
    np.add.at(counts, (truth.labels[~truth.crowd], truth.picture[~truth.crowd]), 1)
    for k in np.flatnonzero(counts.any(1)).tolist():
        total = csr_array(counts[k : k + 1]) @ weights  # (1, R)
        picture = matches.predicted.picture[matches.rows[matches.of(k)]]
        for t, level in enumerate(chosen):
            taken = matches.taken[matches.of(k), level]
            hit, wrong = taken >= 0, taken == NOTHING
            right = np.cumsum(weights[picture[hit]], axis=0)  # (J, R) after each object found
            # Precision is highest at an object found, so only how much was wrong before each of them matters.
            before = np.cumsum(hit)[wrong]
            early = before < len(right)
            ones = np.ones(int(early.sum()))
            steps = csr_array((ones, (before[early], picture[wrong][early])), shape=(len(right), matches.num_pictures))
            result[k, t] = _area(right, np.cumsum(steps @ weights, axis=0), total)
    return result


def _area(right: Floats, wrong: Floats, total: Floats) -> Floats:
    """(R,) mean precision at 101 recalls from cumulative (J, R) weights of what is right and wrong."""
    if not len(right):
        return np.where(total[0] > 0, 0.0, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right / total
        precision = np.nan_to_num(right / (right + wrong))
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = np.searchsorted(RECALLS, recall.ravel(), side="right").reshape(recall.shape)
    steps = np.diff(reached, axis=0, prepend=0)
    return np.where(total[0] > 0, (precision * steps).sum(0) / len(RECALLS), np.nan)
