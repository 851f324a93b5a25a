"""The metrics that a detector's report shows: what they are called and what they mean."""

from __future__ import annotations

from dolmen.metrics.shared import shared
from dolmen.types import Metric

METRICS = {
    "map": Metric(
        "mAP", "mean over classes and overlaps (0.5 to 0.95) of the precision, averaged over recall; COCO's measure"
    ),
    "map_50": Metric("mAP@0.5", "the same where an overlap of half is enough"),
    "map_75": Metric("mAP@0.75", "the same for boxes that fit well"),
    "map_small": Metric("mAP of small objects", "the same of objects under 32 × 32 pixels"),
    "map_medium": Metric("mAP of medium objects", "the same of objects of 32 × 32 to 96 × 96 pixels"),
    "map_large": Metric("mAP of large objects", "the same of objects over 96 × 96 pixels"),
    "recall_100": Metric(
        "recall@100", "share found by the 100 surest boxes of a class, over the same overlaps", percent=True
    ),
    **shared("precision", "recall", "f1"),
    "rpn_recall_50": Metric("proposal recall@0.5", "share of objects that a proposal covers by half", percent=True),
    "rpn_recall_70": Metric(
        "proposal recall@0.7", "share of objects that a proposal covers well, by 0.7", percent=True
    ),
}
