"""What goes wrong with boxes, each mistake of exactly one kind, after TIDE (Bolya et al., 2020)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.predictions import Boxes
from dolmen.tasks.object_detection.metrics.matching import NOTHING, Floats, Truth, match, overlaps

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
FOREGROUND, BACKGROUND = 0.5, 0.1
"""Overlap from which on a box is on an object, and up to which it is beside everything."""
PICTURES = 12
"""Pictures whose mistakes are told one by one."""


def errors(
    found: Sequence[Boxes], truth: Sequence[Truth], num_classes: int, thresholds: Sequence[float]
) -> dict[str, Any]:
    """The mistakes among the boxes that reach the threshold of their class.

    A box that is no object's is of the first kind that holds: ``duplicate`` (it overlaps by 0.5 or more an object of
    its class, which a surer box has taken), ``classification`` (by 0.5 or more one of another class), ``localisation``
    (by 0.1 or more one of its class), ``both`` (by 0.1 or more one of another class), or else ``background``. An object
    is ``missed`` if no box is its and none is a mistake of class or place about it. Boxes in a crowd of their class are
    no mistakes.

    Args:
        found: in N pictures.
        truth: of the same.
        num_classes: K.
        thresholds: K scores.

    Returns:
        ``counts`` by kind, ``right`` (boxes that are an object's), ``undetected`` (objects that have no box, missed or
        not), ``per_class`` the same counts (of the class that was said; missed: of the true one), ``confused`` the
        pairs of classes that are taken for each other, most often first: ``[{"true", "said", "num"}]`` as numbers of
        classes, and ``worst``: of the pictures with the most and surest mistakes ``{"picture", "wrong": [[box, kind,
        object]], "missed": [object]}`` as places in that picture's lists, the object -1 where the box is on none.
    """
    least = np.asarray(thresholds, np.float32)
    kept = [np.flatnonzero(b.scores >= least[b.labels]) for b in found]
    matches = match([b[k] for b, k in zip(found, kept, strict=True)], truth, num_classes, [FOREGROUND])
    boxes, there, taken = matches.found, matches.truth, matches.taken[:, 0]
    is_found = np.zeros(len(there.labels), np.bool_)
    is_found[taken[taken >= 0]] = True
    wrong = np.sort(matches.rows[taken == NOTHING])
    kind = np.zeros(len(boxes.labels), np.int64)
    about = np.full(len(boxes.labels), NOTHING)
    objects_of = np.searchsorted(there.picture, np.arange(len(truth) + 1))
    boxes_of = np.searchsorted(boxes.picture[wrong], np.arange(len(truth) + 1))
    for i in np.unique(boxes.picture[wrong]):
        rows = wrong[boxes_of[i] : boxes_of[i + 1]]
        objects = np.arange(objects_of[i], objects_of[i + 1])
        objects = objects[~there.crowd[objects]]
        iou = overlaps(boxes.boxes_xyxy[rows], there.boxes_xyxy[objects])
        same = boxes.labels[rows][:, None] == there.labels[objects]
        kind[rows], at = _kinds(iou, same)
        about[rows] = np.where(at >= 0, np.append(objects, NOTHING)[at], NOTHING)

    covered = is_found.copy()
    covered[about[wrong][kind[wrong] <= 1]] = True  # a mistake of class or place about an object
    missed = np.flatnonzero(~covered & ~there.crowd)
    table = np.zeros((num_classes, len(KINDS)), np.int64)
    np.add.at(table, (boxes.labels[wrong], kind[wrong]), 1)
    table[:, KINDS.index("missed")] = np.bincount(there.labels[missed], minlength=num_classes)
    taken_for = Counter(
        (int(there.labels[about[r]]), int(boxes.labels[r])) for r in wrong[kind[wrong] == KINDS.index("classification")]
    )
    confused = [{"true": t, "said": s, "num": n} for (t, s), n in sorted(taken_for.items(), key=lambda c: (-c[1], c))]
    originals = np.concatenate([np.zeros(0, np.int64), *kept])  # place in the picture's whole list
    told: dict[int, dict[str, Any]] = {}
    score = np.zeros(len(truth))
    np.add.at(score, boxes.picture[wrong], boxes.scores[wrong])
    np.add.at(score, there.picture[missed], 1.0)
    for i in np.argsort(-score, kind="stable")[:PICTURES].tolist():
        if score[i] > 0:
            told[i] = {"picture": i, "wrong": [], "missed": there.place[missed[there.picture[missed] == i]].tolist()}
    for r in wrong:
        if mine := told.get(int(boxes.picture[r])):
            place = int(there.place[about[r]]) if about[r] >= 0 else NOTHING
            mine["wrong"].append([int(originals[r]), KINDS[kind[r]], place])
    return {
        "counts": dict(zip(KINDS, table.sum(0).tolist(), strict=True)),
        "right": int((taken >= 0).sum()),
        "undetected": int((~is_found & ~there.crowd).sum()),
        "per_class": [dict(zip(KINDS, row, strict=True)) for row in table.tolist()],
        "confused": confused,
        "worst": list(told.values()),
    }


def _kinds(iou: Floats, same: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N,) kind of each wrong box, (N,) the object that it is about or -1; from (N, M) overlaps and equal classes."""
    kind, about = np.full(len(iou), KINDS.index("background")), np.full(len(iou), NOTHING)
    if not iou.shape[1]:
        return kind, about
    rules = (("both", ~same, BACKGROUND), ("localisation", same, BACKGROUND), ("classification", ~same, FOREGROUND),
             ("duplicate", same, FOREGROUND))  # fmt: skip
    for name, which, least in rules:  # the last that holds stays
        value = np.where(which, iou, -1.0)
        best = value.argmax(1)
        holds = value.max(1) >= least
        kind[holds], about[holds] = KINDS.index(name), best[holds]
    return kind, about
