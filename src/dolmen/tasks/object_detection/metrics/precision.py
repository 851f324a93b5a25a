"""How good boxes are: average precision as COCO has it, thresholds, precision and recall, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.metrics.bootstrap import NUM_BOOTSTRAPS
from dolmen.predictions import Boxes
from dolmen.tasks.object_detection.metrics.errors import errors
from dolmen.tasks.object_detection.metrics.matching import (
    IGNORED,
    MAX_BOXES_PER_CLASS,
    Floats,
    Listed,
    Matches,
    Truth,
    areas,
    listed,
    match,
    overlaps,
    weighted_precision,
)

__all__ = [
    "Truth",
    "at_thresholds",
    "average_precision",
    "errors",
    "evaluation_tables",
    "fit_thresholds",
    "intervals",
    "precision_recall",
    "proposal_recall",
    "quick",
]

MATCH_IOU = 0.5
"""Overlap from which on an object counts as found where one number is asked for."""
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Areas in square pixels that COCO calls so."""
MIN_OBJECTS = 5
"""Objects from which on a class gets a threshold of its own."""
DEFAULT_THRESHOLD = 0.5
"""The threshold where there is nothing to fit one on."""


def average_precision(
    predicted: Sequence[Boxes], truth: Sequence[Truth], num_classes: int
) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """Average precision by COCO's rules, computed by faster-coco-eval.

    Precision is averaged over 101 recalls, 10 overlaps (0.5 to 0.95) and the classes that have an object; what lies in
    a crowd is ignored, and of each picture and class the 100 surest boxes count.

    Args:
        predicted: in N pictures.
        truth: of the same.
        num_classes: K.

    Returns:
        ``map, map_50, map_75, recall_100`` and, where there are objects of such a size, ``map_small, map_medium,
        map_large``; without any object, nothing. And for each class ``ap`` and ``ap_50`` (None where it has no object)
        and ``num``, its objects.
    """
    objects = listed(truth)
    num_objects = np.bincount(objects.labels[~objects.crowd], minlength=num_classes)
    per_class: dict[str, list[Any]] = {
        "ap": [None] * num_classes,
        "ap_50": [None] * num_classes,
        "num": num_objects.tolist(),
    }
    if not num_objects.any():
        return {}, per_class
    evaluation = _coco(listed(predicted), objects, len(truth), num_classes)
    # (10 overlaps, 101 recalls, K, all and three sizes) and (10, K, ...); -1 where there is no object
    precision, recall = evaluation["precision"][..., -1], evaluation["recall"][..., -1]

    def mean(values: NDArray[Any]) -> float | None:
        return float(values[values > -1].mean()) if (values > -1).any() else None

    values = {
        "map": mean(precision[..., 0]),
        "map_50": mean(precision[0, ..., 0]),
        "map_75": mean(precision[5, ..., 0]),
        **{f"map_{name}": mean(precision[..., i]) for i, name in enumerate(SIZES, 1)},
        f"recall_{MAX_BOXES_PER_CLASS}": mean(recall[..., 0]),
    }
    per_class["ap"] = [mean(precision[:, :, k, 0]) for k in range(num_classes)]
    per_class["ap_50"] = [mean(precision[0, :, k, 0]) for k in range(num_classes)]
    return {name: value for name, value in values.items() if value is not None}, per_class


def _coco(predicted: Listed, objects: Listed, num_pictures: int, num_classes: int) -> dict[str, NDArray[Any]]:
    """What faster-coco-eval accumulates."""
    from faster_coco_eval import COCO, COCOeval_faster

    def data(boxes: Listed) -> COCO:
        boxes_xywh = boxes.boxes_xyxy.copy()
        boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
        # Numbers begin with 1: the library takes 0 for "not matched".
        columns = (
            boxes_xywh.tolist(),
            boxes.picture.tolist(),
            boxes.labels.tolist(),
            areas(boxes.boxes_xyxy).tolist(),
            boxes.crowd.astype(int).tolist(),
            boxes.scores.tolist(),
        )
        annotations = [
            {
                "id": i,
                "bbox": box,
                "image_id": picture,
                "category_id": label,
                "area": area,
                "iscrowd": crowd,
                "score": score,
            }
            for i, (box, picture, label, area, crowd, score) in enumerate(zip(*columns, strict=True), 1)
        ]
        coco = COCO(print_function=_silent)
        coco.dataset = {
            "images": [{"id": i} for i in range(num_pictures)],
            "categories": [{"id": k} for k in range(num_classes)],
            "annotations": annotations,
        }
        coco.createIndex()
        return coco

    evaluation = COCOeval_faster(data(objects), data(predicted), "bbox", print_function=_silent)
    evaluation.evaluate()
    evaluation.accumulate()
    return dict(evaluation.eval)


def _silent(*_: object) -> None:
    """Swallow what the library prints about its progress."""


def quick(predicted: Sequence[Boxes], truth: Sequence[Truth], num_classes: int) -> dict[str, float]:
    """``map`` and ``map_50``, equal to those of ``average_precision``; 0 where there is no object.

    Fast enough for every evaluation during training.
    """
    matches = match(predicted, truth, num_classes)
    ap = weighted_precision(matches, np.ones((len(truth), 1)))[matches.num_objects() > 0, :, 0]
    return {"map": float(ap.mean()), "map_50": float(ap[:, 0].mean())} if ap.size else {"map": 0.0, "map_50": 0.0}


def intervals(
    predicted: Sequence[Boxes], truth: Sequence[Truth], num_classes: int, groups: NDArray[np.int64], seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of mAP and mAP@0.5 by bootstrap over groups of pictures; nothing where there is no object.

    Pictures that are drawn twice lift average precision a little; over many classes, whose mean hardly varies, the
    value itself would come to lie below its interval. So the interval is moved until its median is the value: it says
    how much the value varies among sets of this size.

    Args:
        predicted: in N pictures.
        truth: of the same.
        num_classes: K.
        groups: (N,) number of each picture's group (a patient, a film); every picture its own where there are none.
        seed: the same data give the same interval.
    """
    matches = match(predicted, truth, num_classes)
    if not matches.num_objects().any():
        return {}
    group_of = np.unique(groups, return_inverse=True)[1].reshape(-1)
    num_groups = int(group_of.max()) + 1
    rng, shares = np.random.default_rng(seed), np.full(num_groups, 1 / num_groups)
    samples = []
    chunk = max(1, min(100, 2_000_000 // len(matches.truth.labels)))  # keeps the memory of the sums at 16 MB each
    for start in range(0, NUM_BOOTSTRAPS, chunk):
        drawn = rng.multinomial(num_groups, shares, size=min(chunk, NUM_BOOTSTRAPS - start))
        ap = weighted_precision(matches, drawn[:, group_of].T.astype(np.float64))  # (K, T, R)
        has_objects = ~np.isnan(ap)  # a bootstrap may draw no object of a class
        with np.errstate(invalid="ignore", divide="ignore"):
            per_iou = np.where(has_objects, ap, 0).sum(0) / has_objects.sum(0)
        samples.append(np.stack([per_iou.mean(0), per_iou[0]]))
    values = np.concatenate(samples, 1)
    ap = weighted_precision(matches, np.ones((len(truth), 1)))[matches.num_objects() > 0, :, 0]
    low, middle, high = np.nanpercentile(values, [2.5, 50, 97.5], axis=1)
    low, high = (np.clip(bound - middle + [ap.mean(), ap[:, 0].mean()], 0, 1) for bound in (low, high))
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(("map", "map_50"))}


def fit_thresholds(predicted: Sequence[Boxes], truth: Sequence[Truth], num_classes: int) -> tuple[float, ...]:
    """The score of each class from which on its F1 at an overlap of 0.5 is best; chosen on validation.

    It lies half-way between the least score above it and the best one below it. A class with fewer than
    ``MIN_OBJECTS`` objects, or none found, gets the one that is best for all classes together.
    """
    matches = match(predicted, truth, num_classes, [MATCH_IOU])
    scores, taken = matches.predicted.scores[matches.rows], matches.taken[:, 0]
    counted, num_objects = taken != IGNORED, matches.num_objects()
    common = _best_threshold(scores[counted], taken[counted] >= 0, int(num_objects.sum()))
    overall = DEFAULT_THRESHOLD if common is None else common
    thresholds = []
    for k in range(num_classes):
        of_class = np.zeros(len(scores), np.bool_)
        of_class[matches.of(k)] = True
        of_class &= counted
        best = None
        if num_objects[k] >= MIN_OBJECTS:
            best = _best_threshold(scores[of_class], taken[of_class] >= 0, int(num_objects[k]))
        thresholds.append(overall if best is None else best)
    return tuple(thresholds)


def _best_threshold(scores: Floats, right: NDArray[np.bool_], num_objects: int) -> float | None:
    """The threshold with the best F1, the highest of several; None where nothing is right."""
    if not right.any():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    last = np.r_[np.flatnonzero(np.diff(scores)), len(scores) - 1]  # of runs of equal scores
    f1 = 2 * np.cumsum(right)[last] / (last + 1 + num_objects)
    best = int(last[int(f1.argmax())])
    if best + 1 == len(scores):
        return float(scores[best])
    between = float((scores[best] + scores[best + 1]) / 2)
    # Scores are float32 and are compared as such.
    return between if np.float32(between) > scores[best + 1] else float(scores[best])


def _shares(num_right: int, num_reported: int, num_objects: int) -> dict[str, float]:
    return {
        "precision": num_right / num_reported if num_reported else 0.0,
        "recall": num_right / num_objects if num_objects else 0.0,
        "f1": 2 * num_right / (num_reported + num_objects) if num_reported + num_objects else 0.0,
    }


def _above_threshold(matches: Matches, thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """(D,) which boxes reach the threshold of their class, compared as float32 as in prediction."""
    boxes = matches.predicted
    min_scores = np.asarray(thresholds or [DEFAULT_THRESHOLD] * matches.num_classes, np.float32)
    return np.asarray(boxes.scores.astype(np.float32) >= min_scores[boxes.labels])[matches.rows]


def at_thresholds(
    predicted: Sequence[Boxes], truth: Sequence[Truth], thresholds: Sequence[float]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """How good the boxes are that reach the threshold of their class, at an overlap of 0.5.

    Returns:
        ``precision, recall, f1`` of all boxes, and a list with the same of each class.
    """
    return _operating(match(predicted, truth, len(thresholds), [MATCH_IOU]), thresholds)


def _operating(matches: Matches, thresholds: Sequence[float]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    taken, objects_per_class = matches.taken[:, 0], matches.num_objects()
    reported = _above_threshold(matches, thresholds) & (taken != IGNORED)
    counts = []
    for k in range(matches.num_classes):
        rows = matches.of(k)
        counts.append(
            (int((reported[rows] & (taken[rows] >= 0)).sum()), int(reported[rows].sum()), int(objects_per_class[k]))
        )
    num_right, num_reported, num_objects = np.sum(counts, axis=0, dtype=np.int64).reshape(3).tolist()
    return _shares(num_right, num_reported, num_objects), [_shares(*c) for c in counts]


def precision_recall(
    predicted: Sequence[Boxes], truth: Sequence[Truth], num_classes: int, max_points: int = 101
) -> list[dict[str, list[float]]]:
    """For each class precision and recall at an overlap of 0.5 as the threshold falls, at most ``max_points`` points.

    Returns:
        K times ``{"recall", "precision", "score"}``, lists of one length, empty where the class has no object.
    """
    return _curves(match(predicted, truth, num_classes, [MATCH_IOU]), max_points)


def _curves(matches: Matches, max_points: int = 101) -> list[dict[str, list[float]]]:
    curves: list[dict[str, list[float]]] = []
    num_objects = matches.num_objects()
    for k in range(matches.num_classes):
        rows = matches.of(k)
        taken = matches.taken[rows, 0]
        counted = taken != IGNORED
        hit, scores = taken[counted] >= 0, matches.predicted.scores[matches.rows[rows]][counted]
        if not num_objects[k] or not len(hit):
            curves.append({"recall": [], "precision": [], "score": []})
            continue
        last = np.r_[np.flatnonzero(np.diff(scores)), len(scores) - 1]  # a threshold can't cut between equal scores
        right = np.cumsum(hit)[last]
        # Where recall stays, precision only falls: the ends of such a stretch are enough.
        ends = np.flatnonzero(np.r_[True, np.diff(right) > 0] | np.r_[np.diff(right) > 0, True])
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, max_points).round().astype(int))]
        curves.append(
            {
                "recall": (right[ends] / num_objects[k]).round(5).tolist(),
                "precision": (right[ends] / (last[ends] + 1)).round(5).tolist(),
                "score": scores[last[ends]].round(5).tolist(),
            }
        )
    return curves


def proposal_recall(proposals: Sequence[NDArray[Any]], truth: Sequence[Truth]) -> dict[str, float]:
    """The share of objects that a proposal covers by 0.5 and by 0.7; nothing where there is no object.

    Args:
        proposals: of N pictures, each (K, 4), xyxy in pixels of the picture.
        truth: of the same.
    """
    best = []
    for boxes, picture_truth in zip(proposals, truth, strict=True):
        objects = np.asarray(picture_truth.boxes_xyxy, np.float64)[~picture_truth.crowd]
        best.append(overlaps(np.asarray(boxes, np.float64).reshape(-1, 4), objects).max(0, initial=0.0))
    covered = np.concatenate([np.zeros(0), *best])
    if not len(covered):
        return {}
    return {f"rpn_recall_{round(100 * t)}": float((covered >= t).mean()) for t in (0.5, 0.7)}


def evaluation_tables(
    predicted: Sequence[Boxes], truth: Sequence[Truth], names: Sequence[str], thresholds: Sequence[float]
) -> tuple[dict[str, float], dict[str, Any]]:
    """All metrics and tables of an evaluation of boxes, without the intervals.

    Args:
        predicted: in N pictures, down to low scores.
        truth: of the same.
        names: K classes.
        thresholds: K scores from which on an object is reported; chosen elsewhere, never on these pictures.

    Returns:
        The metrics of ``average_precision`` with ``precision, recall, f1`` at the thresholds; and the tables
        ``classes``, ``per_class``, ``curves`` (of each class), ``operating_point``, ``sizes``, ``errors``.
    """
    thresholds = tuple(thresholds) or (DEFAULT_THRESHOLD,) * len(names)
    metrics, per_class = average_precision(predicted, truth, len(names))
    matches = match(predicted, truth, len(names), [MATCH_IOU])
    point, class_shares = _operating(matches, thresholds)
    columns = zip(names, per_class["num"], per_class["ap"], per_class["ap_50"], thresholds, class_shares, strict=True)
    rows = [
        {"class": name, "num": num, "ap": ap, "ap_50": ap_50, **shares, "threshold": float(threshold)}
        for name, num, ap, ap_50, threshold, shares in columns
    ]
    if metrics:
        metrics |= point
    tables = {
        "classes": list(names),
        "per_class": rows,
        "curves": _curves(matches),
        "operating_point": {"iou": MATCH_IOU, **point},
        "sizes": _sizes(matches, thresholds, metrics),
        "errors": errors(predicted, truth, len(names), thresholds),
    }
    return metrics, tables


def _sizes(matches: Matches, thresholds: Sequence[float], metrics: dict[str, float]) -> list[dict[str, Any]]:
    """For each size that has objects: how many there are, mAP, and the share found at the thresholds."""
    area, counted = areas(matches.truth.boxes_xyxy), ~matches.truth.crowd
    taken = matches.taken[_above_threshold(matches, thresholds), 0]
    hit = np.zeros(len(area), np.bool_)
    hit[taken[taken >= 0]] = True
    rows = []
    for name, (low, high) in SIZES.items():
        inside = counted & (area >= low) & (area < high)
        if inside.any():
            share = float(hit[inside].mean())
            rows.append({"size": name, "num": int(inside.sum()), "map": metrics.get(f"map_{name}"), "recall": share})
    return rows
