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
    MOST,
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

AT = 0.5
"""Overlap from which on an object counts as found where one number is asked for."""
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Areas in square pixels that COCO calls so."""
FEWEST = 5
"""Objects from which on a class gets a threshold of its own."""
UNFITTED = 0.5
"""The threshold where there is nothing to fit one on."""


def average_precision(
    found: Sequence[Boxes], truth: Sequence[Truth], num_classes: int
) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """Average precision by COCO's rules, computed by faster-coco-eval.

    Precision is averaged over 101 recalls, 10 overlaps (0.5 to 0.95) and the classes that have an object; what lies in
    a crowd is ignored, and of each picture and class the 100 surest boxes count.

    Args:
        found: in N pictures.
        truth: of the same.
        num_classes: K.

    Returns:
        ``map, map_50, map_75, recall_100`` and, where there are objects of such a size, ``map_small, map_medium,
        map_large``; without any object, nothing. And for each class ``ap`` and ``ap_50`` (None where it has no object)
        and ``num``, its objects.
    """
    there = listed(truth)
    num = np.bincount(there.labels[~there.crowd], minlength=num_classes)
    per_class: dict[str, list[Any]] = {"ap": [None] * num_classes, "ap_50": [None] * num_classes, "num": num.tolist()}
    if not num.any():
        return {}, per_class
    evaluation = _coco(listed(found), there, len(truth), num_classes)
    # (10 overlaps, 101 recalls, K, all and three sizes) and (10, K, ...); -1 where there is no object
    precision, recall = evaluation["precision"][..., -1], evaluation["recall"][..., -1]

    def mean(values: NDArray[Any]) -> float | None:
        return float(values[values > -1].mean()) if (values > -1).any() else None

    values = {
        "map": mean(precision[..., 0]),
        "map_50": mean(precision[0, ..., 0]),
        "map_75": mean(precision[5, ..., 0]),
        **{f"map_{name}": mean(precision[..., i]) for i, name in enumerate(SIZES, 1)},
        f"recall_{MOST}": mean(recall[..., 0]),
    }
    per_class["ap"] = [mean(precision[:, :, k, 0]) for k in range(num_classes)]
    per_class["ap_50"] = [mean(precision[0, :, k, 0]) for k in range(num_classes)]
    return {name: value for name, value in values.items() if value is not None}, per_class


def _coco(found: Listed, there: Listed, num_pictures: int, num_classes: int) -> dict[str, NDArray[Any]]:
    """What faster-coco-eval accumulates."""
    from faster_coco_eval import COCO, COCOeval_faster

    def data(boxes: Listed) -> COCO:
        wide = boxes.boxes_xyxy.copy()
        wide[:, 2:] -= wide[:, :2]
        # Numbers begin with 1: the library takes 0 for "not matched".
        columns = (wide.tolist(), boxes.picture.tolist(), boxes.labels.tolist(), areas(boxes.boxes_xyxy).tolist(),
                   boxes.crowd.astype(int).tolist(), boxes.scores.tolist())  # fmt: skip
        annotations = [
            {"id": i, "bbox": box, "image_id": picture, "category_id": label, "area": area, "iscrowd": crowd,
             "score": score}
            for i, (box, picture, label, area, crowd, score) in enumerate(zip(*columns, strict=True), 1)
        ]  # fmt: skip
        made = COCO(print_function=_silent)
        made.dataset = {
            "images": [{"id": i} for i in range(num_pictures)],
            "categories": [{"id": k} for k in range(num_classes)],
            "annotations": annotations,
        }
        made.createIndex()
        return made

    evaluation = COCOeval_faster(data(there), data(found), "bbox", print_function=_silent)
    evaluation.evaluate()
    evaluation.accumulate()
    return dict(evaluation.eval)


def _silent(*_: object) -> None:
    """What the library says about its progress."""


def quick(found: Sequence[Boxes], truth: Sequence[Truth], num_classes: int) -> dict[str, float]:
    """``map`` and ``map_50``, equal to those of ``average_precision``; 0 where there is no object. For every look."""
    matches = match(found, truth, num_classes)
    ap = weighted_precision(matches, np.ones((len(truth), 1)))[matches.num() > 0, :, 0]
    return {"map": float(ap.mean()), "map_50": float(ap[:, 0].mean())} if ap.size else {"map": 0.0, "map_50": 0.0}


def intervals(
    found: Sequence[Boxes], truth: Sequence[Truth], num_classes: int, groups: NDArray[np.int64], seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of mAP and mAP@0.5 by bootstrap over groups of pictures; nothing where there is no object.

    Pictures that are drawn twice lift average precision a little; over many classes, whose mean hardly varies, the
    value itself would come to lie below its interval. So the interval is moved until its median is the value: it says
    how much the value varies among sets of this size.

    Args:
        found: in N pictures.
        truth: of the same.
        num_classes: K.
        groups: (N,) number of each picture's group (a patient, a film); every picture its own where there are none.
        seed: the same data give the same interval.
    """
    matches = match(found, truth, num_classes)
    if not matches.num().any():
        return {}
    group_of = np.unique(groups, return_inverse=True)[1].reshape(-1)
    num_groups = int(group_of.max()) + 1
    rng, shares = np.random.default_rng(seed), np.full(num_groups, 1 / num_groups)
    samples = []
    chunk = max(1, min(100, 2_000_000 // len(matches.truth.labels)))  # keeps the memory of the sums at 16 MB each
    for start in range(0, NUM_BOOTSTRAPS, chunk):
        drawn = rng.multinomial(num_groups, shares, size=min(chunk, NUM_BOOTSTRAPS - start))
        ap = weighted_precision(matches, drawn[:, group_of].T.astype(np.float64))  # (K, T, R)
        there = ~np.isnan(ap)  # a bootstrap may draw no object of a class
        with np.errstate(invalid="ignore", divide="ignore"):
            each = np.where(there, ap, 0).sum(0) / there.sum(0)
        samples.append(np.stack([each.mean(0), each[0]]))
    values = np.concatenate(samples, 1)
    ap = weighted_precision(matches, np.ones((len(truth), 1)))[matches.num() > 0, :, 0]
    low, middle, high = np.nanpercentile(values, [2.5, 50, 97.5], axis=1)
    low, high = (np.clip(bound - middle + [ap.mean(), ap[:, 0].mean()], 0, 1) for bound in (low, high))
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(("map", "map_50"))}


def fit_thresholds(found: Sequence[Boxes], truth: Sequence[Truth], num_classes: int) -> tuple[float, ...]:
    """The score of each class from which on its F1 at an overlap of 0.5 is best; chosen on validation.

    It lies half-way between the least score that is let in and the best that is left out. A class with fewer than
    ``FEWEST`` objects, or none found, gets the one that is best for all classes together.
    """
    matches = match(found, truth, num_classes, [AT])
    scores, taken = matches.found.scores[matches.rows], matches.taken[:, 0]
    counts, num = taken != IGNORED, matches.num()
    together = _best_threshold(scores[counts], taken[counts] >= 0, int(num.sum()))
    overall = UNFITTED if together is None else together
    thresholds = []
    for k in range(num_classes):
        mine = np.zeros(len(scores), np.bool_)
        mine[matches.of(k)] = True
        mine &= counts
        own = _best_threshold(scores[mine], taken[mine] >= 0, int(num[k])) if num[k] >= FEWEST else None
        thresholds.append(overall if own is None else own)
    return tuple(thresholds)


def _best_threshold(scores: Floats, right: NDArray[np.bool_], num: int) -> float | None:
    """The threshold with the best F1, the highest of several; None where nothing is right."""
    if not right.any():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    last = np.r_[np.flatnonzero(np.diff(scores)), len(scores) - 1]  # of runs of equal scores
    f1 = 2 * np.cumsum(right)[last] / (last + 1 + num)
    best = int(last[int(f1.argmax())])
    if best + 1 == len(scores):
        return float(scores[best])
    between = float((scores[best] + scores[best + 1]) / 2)
    # Scores are float32 and are compared as such.
    return between if np.float32(between) > scores[best + 1] else float(scores[best])


def _shares(right: int, said: int, num: int) -> dict[str, float]:
    return {
        "precision": right / said if said else 0.0,
        "recall": right / num if num else 0.0,
        "f1": 2 * right / (said + num) if said + num else 0.0,
    }


def _let_in(matches: Matches, thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """(D,) which boxes reach the threshold of their class, compared as float32 as in prediction."""
    boxes = matches.found
    least = np.asarray(thresholds or [UNFITTED] * matches.num_classes, np.float32)
    return np.asarray(boxes.scores.astype(np.float32) >= least[boxes.labels])[matches.rows]


def at_thresholds(
    found: Sequence[Boxes], truth: Sequence[Truth], thresholds: Sequence[float]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """How good the boxes are that reach the threshold of their class, at an overlap of 0.5.

    Returns:
        ``precision, recall, f1`` of all boxes, and a list with the same of each class.
    """
    return _operating(match(found, truth, len(thresholds), [AT]), thresholds)


def _operating(matches: Matches, thresholds: Sequence[float]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    taken, num = matches.taken[:, 0], matches.num()
    said = _let_in(matches, thresholds) & (taken != IGNORED)
    counts = []
    for k in range(matches.num_classes):
        rows = matches.of(k)
        counts.append((int((said[rows] & (taken[rows] >= 0)).sum()), int(said[rows].sum()), int(num[k])))
    right, all_said, there = np.sum(counts, axis=0, dtype=np.int64).reshape(3).tolist()
    return _shares(right, all_said, there), [_shares(*c) for c in counts]


def precision_recall(
    found: Sequence[Boxes], truth: Sequence[Truth], num_classes: int, most: int = 101
) -> list[dict[str, list[float]]]:
    """For each class precision and recall at an overlap of 0.5 as the threshold falls, at most ``most`` points.

    Returns:
        K times ``{"recall", "precision", "score"}``, lists of one length, empty where the class has no object.
    """
    return _curves(match(found, truth, num_classes, [AT]), most)


def _curves(matches: Matches, most: int = 101) -> list[dict[str, list[float]]]:
    curves: list[dict[str, list[float]]] = []
    num = matches.num()
    for k in range(matches.num_classes):
        rows = matches.of(k)
        taken = matches.taken[rows, 0]
        counts = taken != IGNORED
        hit, scores = taken[counts] >= 0, matches.found.scores[matches.rows[rows]][counts]
        if not num[k] or not len(hit):
            curves.append({"recall": [], "precision": [], "score": []})
            continue
        last = np.r_[np.flatnonzero(np.diff(scores)), len(scores) - 1]  # a threshold can't cut between equal scores
        right = np.cumsum(hit)[last]
        # Where recall stays, precision only falls: the ends of such a stretch are enough.
        ends = np.flatnonzero(np.r_[True, np.diff(right) > 0] | np.r_[np.diff(right) > 0, True])
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, most).round().astype(int))]
        curves.append(
            {
                "recall": (right[ends] / num[k]).round(5).tolist(),
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
    for boxes, there in zip(proposals, truth, strict=True):
        objects = np.asarray(there.boxes_xyxy, np.float64)[~there.crowd]
        best.append(overlaps(np.asarray(boxes, np.float64).reshape(-1, 4), objects).max(0, initial=0.0))
    covered = np.concatenate([np.zeros(0), *best])
    if not len(covered):
        return {}
    return {f"rpn_recall_{round(100 * t)}": float((covered >= t).mean()) for t in (0.5, 0.7)}


def evaluation_tables(
    found: Sequence[Boxes], truth: Sequence[Truth], names: Sequence[str], thresholds: Sequence[float]
) -> tuple[dict[str, float], dict[str, Any]]:
    """All that an evaluation says of boxes, without the intervals.

    Args:
        found: in N pictures, down to low scores.
        truth: of the same.
        names: K classes.
        thresholds: K scores from which on an object is reported; chosen elsewhere, never on these pictures.

    Returns:
        The metrics of ``average_precision`` with ``precision, recall, f1`` at the thresholds; and the tables
        ``classes``, ``per_class``, ``curves`` (of each class), ``operating_point``, ``sizes``, ``errors``.
    """
    thresholds = tuple(thresholds) or (UNFITTED,) * len(names)
    metrics, ap = average_precision(found, truth, len(names))
    matches = match(found, truth, len(names), [AT])
    point, each = _operating(matches, thresholds)
    columns = zip(names, ap["num"], ap["ap"], ap["ap_50"], thresholds, each, strict=True)
    rows = [
        {"class": name, "num": num, "ap": mine, "ap_50": mine_50, **shares, "threshold": float(threshold)}
        for name, num, mine, mine_50, threshold, shares in columns
    ]
    if metrics:
        metrics |= point
    tables = {
        "classes": list(names),
        "per_class": rows,
        "curves": _curves(matches),
        "operating_point": {"iou": AT, **point},
        "sizes": _sizes(matches, thresholds, metrics),
        "errors": errors(found, truth, len(names), thresholds),
    }
    return metrics, tables


def _sizes(matches: Matches, thresholds: Sequence[float], metrics: dict[str, float]) -> list[dict[str, Any]]:
    """For each size that has objects: how many there are, mAP, and the share found at the thresholds."""
    area, counts = areas(matches.truth.boxes_xyxy), ~matches.truth.crowd
    taken = matches.taken[_let_in(matches, thresholds), 0]
    hit = np.zeros(len(area), np.bool_)
    hit[taken[taken >= 0]] = True
    rows = []
    for name, (low, high) in SIZES.items():
        inside = counts & (area >= low) & (area < high)
        if inside.any():
            share = float(hit[inside].mean())
            rows.append({"size": name, "num": int(inside.sum()), "map": metrics.get(f"map_{name}"), "recall": share})
    return rows
