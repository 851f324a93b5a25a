"""What is in a set of pictures with boxes, what is wrong with it, what would leak: every file accounted for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dolmen.data.boxes.set import BoxSet
from dolmen.data.checks import amounts, copies
from dolmen.data.checks.clusters import contradictions
from dolmen.data.checks.examples import SPLITS
from dolmen.data.checks.findings import most_serious_first
from dolmen.data.images import check_contents
from dolmen.data.images.check_view import CheckedImages
from dolmen.data.images.checks import near, picture_facts, skipped_files
from dolmen.data.images.decoded import Decoded
from dolmen.tasks.object_detection.data.clean import clean
from dolmen.types import CheckReport, Finding

__all__ = ["check_boxes", "clean", "stratum"]

MIN_PICTURES_PER_CLASS, PICTURES_PER_STRATUM = 10, 20
Counts = dict[str, dict[str, int]]


def stratum(boxes: BoxSet) -> NDArray[np.int64]:
    """Return one class for each picture, to spread classes evenly over splits by.

    A validation split takes at least one picture of each stratum, so that with a stratum for each of very many rare
    classes it would take most of a small set. Classes in fewer than ``MIN_PICTURES_PER_CLASS`` pictures therefore count
    only as long as there is not more than one stratum in ``PICTURES_PER_STRATUM`` pictures (three at least). A class in
    one picture alone is always a stratum, because that keeps the picture in training.

    Returns:
        (N,) of the classes in it that count, the one that the fewest pictures show; K (one more than the classes) of a
        picture with none of them, -1 of one that can't be used. As ``labels`` of ``images`` they are what
        ``assign_splits`` stratifies by.
    """
    num_classes = len(boxes.images.classes)
    counted = ~boxes.crowd
    picture_classes = np.unique(np.column_stack([boxes.pictures()[counted], boxes.labels[counted]]), axis=0)
    counts = np.bincount(picture_classes[:, 1], minlength=num_classes)
    common_first = np.argsort(-counts, kind="stable")
    num_strata = max(int((counts >= MIN_PICTURES_PER_CLASS).sum()), 3, len(boxes) // PICTURES_PER_STRATUM)
    chosen = common_first[:num_strata][::-1]  # from the rarest that counts to the most common
    order = np.concatenate([np.setdiff1d(np.flatnonzero(counts == 1), chosen), chosen])
    rank = np.full(num_classes, len(order))
    rank[order] = np.arange(len(order))
    rarest = np.full(len(boxes), len(order))
    np.minimum.at(rarest, picture_classes[:, 0], rank[picture_classes[:, 1]])
    strata = np.append(order, num_classes)[rarest]
    return np.where(boxes.images.labels >= 0, strata, -1)


def check_boxes(
    boxes: BoxSet, decoded: Decoded, findings: Sequence[Finding] = (), *, task: str = "object-detection"
) -> CheckReport:
    """Check a set whose boxes are clean and whose splits are assigned.

    Args:
        boxes: the set; a picture with split "" is counted as skipped.
        decoded: its pictures.
        findings: those of ``clean``.
        task: what the report says it is for.
    """
    usable_labels = np.minimum(boxes.images.labels, 0)
    left_out = {i: r for i, r in boxes.images.left_out.items() if usable_labels[i] >= 0}
    images = boxes.images.replace(labels=usable_labels, left_out=left_out)
    data = CheckedImages.of(images, decoded)
    counts = _counts(boxes, data)
    train = counts.get("train", {})
    all_findings = [
        *findings,
        *amounts.unreadable(data),
        *amounts.skipped(data.skipped, check_contents.SKIPPED + "used"),
        *_classes(data, counts),
        *amounts.few_examples(train, "objects"),
        *amounts.imbalance(train, "objects", "info", "the mean"),
        *copies.exact(data),
        *_other_boxes(boxes, data),
        *copies.groups(data),
        *near(data),
        *check_contents.blank(data),
        *(f for f in check_contents.shapes(data) if f.code != "long-pictures"),  # it speaks of cropping
        *check_contents.colours(data),
    ]
    return CheckReport(
        task=task,
        source=images.source,
        num_files=len(images) + len(images.skipped),
        num_used=len(data.used),
        skipped=skipped_files(boxes.images, decoded),
        counts=counts,
        summary=_summary(boxes, data),
        findings=most_serious_first(all_findings),
    )


def _counts(boxes: BoxSet, data: CheckedImages) -> Counts:
    """Return {split: {class: number of objects}} of the used pictures; crowds are not counted."""
    names = boxes.images.classes
    used = np.zeros(len(boxes), np.bool_)
    used[data.used] = True
    of_box = boxes.pictures()
    counts = {}
    for split in reversed(SPLITS):
        inside = used & (data.splits == split)
        if inside.any():
            labels = boxes.labels[inside[of_box] & ~boxes.crowd]
            counts[split] = dict(zip(names, np.bincount(labels, minlength=len(names)).tolist(), strict=True))
    return counts


def _summary(boxes: BoxSet, data: CheckedImages) -> dict[str, str]:
    """Return a few named facts about the used pictures and their boxes."""
    facts = picture_facts(data)
    per_picture = np.diff(boxes.first)[data.used]
    if not len(per_picture):
        return facts
    facts["boxes per picture"] = f"{per_picture.mean():.1f} on average, at most {per_picture.max():,}"
    used = np.isin(boxes.pictures(), data.used) & ~boxes.crowd
    if used.any():
        sides = (boxes.boxes_xyxy[:, 2:] - boxes.boxes_xyxy[:, :2])[used]
        area_share = sides.prod(axis=1) / data.decoded.sizes[boxes.pictures()[used]].astype(np.float64).prod(axis=1)
        width, height = np.median(sides, axis=0)
        facts["box size"] = f"median {height:.0f} x {width:.0f} px, {np.median(area_share):.2%} of the picture"
    facts["background pictures"] = f"{int((per_picture == 0).sum()):,}"
    if boxes.num_annotation_files:
        facts["annotation files"] = f"{boxes.num_annotation_files:,} read, not counted above"
    return facts


# ---- subjects


def _classes(data: CheckedImages, counts: Counts) -> Iterator[Finding]:
    """Find what makes training impossible, and classes that a split does not show."""
    train = counts.get("train")
    yield from amounts.none_usable(data, "readable pictures with boxes around the objects")
    if train is not None and not any(train.values()):
        message = "None of the training pictures has a box: draw boxes around the objects, or move pictures into train."
        yield Finding(code="no-training-boxes", level="error", message=message)
    for split, class_counts in counts.items():
        missing = [c for c, n in class_counts.items() if not n] if any(class_counts.values()) else []
        is_train = split == "train"
        purpose = f"[it|they] can be {'learnt' if is_train else 'measured'}"
        yield from amounts.class_missing(
            missing, f"no object in {split}: move some there so that {purpose}", level="warning" if is_train else "info"
        )
    if train is not None and "test" not in counts:
        yield amounts.NO_TEST


def _other_boxes(boxes: BoxSet, data: CheckedImages) -> Iterator[Finding]:
    """Find pictures that are in the set twice, to the last pixel, with different boxes."""

    def content(picture: int) -> bytes:
        rows = boxes.rows(picture)
        numbers = np.column_stack([boxes.labels[rows], boxes.crowd[rows], boxes.boxes_xyxy[rows].round(1)])
        return numbers[np.lexsort(numbers.T)].tobytes()

    pairs = contradictions(data.clusters, content)
    yield from data.some_pairs(
        "same-picture-other-boxes",
        "warning",
        "{num} [picture is|pictures are] in the set twice with different boxes: keep the right ones (first: {first})",
        pairs,
    )
