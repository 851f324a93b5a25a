"""The mistakes among predicted boxes, each of exactly one type, after TIDE (Bolya et al., 2020)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.predictions import Boxes
from dolmen.tasks.object_detection.metrics.matching import NOTHING, Floats, Truth, match, overlaps

MISTAKES = ("classification", "localisation", "both", "duplicate", "background", "missed")
FOREGROUND, BACKGROUND = 0.5, 0.1
"""Overlap from which on a box is on an object, and up to which it is beside everything."""
MAX_WORST_PICTURES = 12
"""Pictures whose mistakes are listed one by one."""


def errors(
    predicted: Sequence[Boxes], truth: Sequence[Truth], num_classes: int, thresholds: Sequence[float]
) -> dict[str, Any]:
    """The mistakes among the boxes that reach the threshold of their class.

    A box that is no object's is of the first type that applies: ``duplicate`` (it overlaps by 0.5 or more an object of
    its class, which a surer box has taken), ``classification`` (by 0.5 or more one of another class), ``localisation``
    (by 0.1 or more one of its class), ``both`` (by 0.1 or more one of another class), or else ``background``. An object
    is ``missed`` if no box is its and none is a mistake of class or place about it. Boxes in a crowd of their class are
    no mistakes.

    Args:
        predicted: in N pictures.
        truth: of the same.
        num_classes: K.
        thresholds: K scores.

    Returns:
        ``counts`` by type, ``right`` (boxes that are an object's), ``undetected`` (objects that have no box, missed or
        not), ``per_class`` the same counts (of the predicted class; missed: of the true one), ``confused`` the
        pairs of classes that are taken for each other, most often first: ``[{"true", "said", "num"}]`` as numbers of
        classes, and ``worst``: of the pictures with the most and surest mistakes ``{"picture", "wrong": [[box, type,
        object]], "missed": [object]}`` as places in that picture's lists, the object -1 where the box is on none.
    """
    min_scores = np.asarray(thresholds, np.float32)
    kept = [np.flatnonzero(b.scores >= min_scores[b.labels]) for b in predicted]
    matches = match([b[k] for b, k in zip(predicted, kept, strict=True)], truth, num_classes, [FOREGROUND])
    boxes, objects, taken = matches.predicted, matches.truth, matches.taken[:, 0]
    is_detected = np.zeros(len(objects.labels), np.bool_)
    is_detected[taken[taken >= 0]] = True
    wrong = np.sort(matches.rows[taken == NOTHING])
    mistake = np.zeros(len(boxes.labels), np.int64)
    about = np.full(len(boxes.labels), NOTHING)
    first_object = np.searchsorted(objects.picture, np.arange(len(truth) + 1))
    first_box = np.searchsorted(boxes.picture[wrong], np.arange(len(truth) + 1))
    for i in np.unique(boxes.picture[wrong]):
        rows = wrong[first_box[i] : first_box[i + 1]]
        object_rows = np.arange(first_object[i], first_object[i + 1])
        object_rows = object_rows[~objects.crowd[object_rows]]
        iou = overlaps(boxes.boxes_xyxy[rows], objects.boxes_xyxy[object_rows])
        same = boxes.labels[rows][:, None] == objects.labels[object_rows]
        mistake[rows], nearest = _mistakes(iou, same)
        about[rows] = np.where(nearest >= 0, np.append(object_rows, NOTHING)[nearest], NOTHING)

    covered = is_detected.copy()
    covered[about[wrong][mistake[wrong] <= 1]] = True  # a mistake of class or place about an object
    missed = np.flatnonzero(~covered & ~objects.crowd)
    table = np.zeros((num_classes, len(MISTAKES)), np.int64)
    np.add.at(table, (boxes.labels[wrong], mistake[wrong]), 1)
    table[:, MISTAKES.index("missed")] = np.bincount(objects.labels[missed], minlength=num_classes)
    taken_for = Counter(
        (int(objects.labels[about[r]]), int(boxes.labels[r]))
        for r in wrong[mistake[wrong] == MISTAKES.index("classification")]
    )
    confused = [{"true": t, "said": s, "num": n} for (t, s), n in sorted(taken_for.items(), key=lambda c: (-c[1], c))]
    original_places = np.concatenate([np.zeros(0, np.int64), *kept])  # place in the picture's whole list
    worst: dict[int, dict[str, Any]] = {}
    score = np.zeros(len(truth))
    np.add.at(score, boxes.picture[wrong], boxes.scores[wrong])
    np.add.at(score, objects.picture[missed], 1.0)
    for i in np.argsort(-score, kind="stable")[:MAX_WORST_PICTURES].tolist():
        if score[i] > 0:
            worst[i] = {
                "picture": i,
                "wrong": [],
                "missed": objects.place[missed[objects.picture[missed] == i]].tolist(),
            }
    for r in wrong:
        if of_picture := worst.get(int(boxes.picture[r])):
            place = int(objects.place[about[r]]) if about[r] >= 0 else NOTHING
            of_picture["wrong"].append([int(original_places[r]), MISTAKES[mistake[r]], place])
    return {
        "counts": dict(zip(MISTAKES, table.sum(0).tolist(), strict=True)),
        "right": int((taken >= 0).sum()),
        "undetected": int((~is_detected & ~objects.crowd).sum()),
        "per_class": [dict(zip(MISTAKES, row, strict=True)) for row in table.tolist()],
        "confused": confused,
        "worst": list(worst.values()),
    }


def _mistakes(iou: Floats, same: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N,) type of each wrong box, (N,) the object that it is about or -1; from (N, M) overlaps and equal classes."""
    mistake, about = np.full(len(iou), MISTAKES.index("background")), np.full(len(iou), NOTHING)
    if not iou.shape[1]:
        return mistake, about
    rules = (
        ("both", ~same, BACKGROUND),
        ("localisation", same, BACKGROUND),
        ("classification", ~same, FOREGROUND),
        ("duplicate", same, FOREGROUND),
    )
    for name, applies, min_iou in rules:  # the last that applies stays
        iou_where_applies = np.where(applies, iou, -1.0)
        best = iou_where_applies.argmax(1)
        holds = iou_where_applies.max(1) >= min_iou
        mistake[holds], about[holds] = MISTAKES.index(name), best[holds]
    return mistake, about
