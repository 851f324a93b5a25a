"""What is in a set of pictures, what is wrong with it, what would leak: every file accounted for.

The codes of the findings are stable, their sentences are for a person.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from dolmen.data.images import check_contents, check_leaks
from dolmen.data.images.check_view import CheckedImages, size_range
from dolmen.data.images.decoded import Decoded
from dolmen.data.images.set import ImageSet
from dolmen.data.report_text import report_text
from dolmen.types import CheckReport, Skipped

__all__ = ["LEVELS", "check_images", "picture_facts", "report_text", "skipped_files"]

LEVELS = ("error", "leak", "warning", "info")  # most serious first
SUBJECTS = (
    check_contents.files,
    check_contents.classes,
    check_contents.balance,
    check_leaks.exact,
    check_leaks.groups,
    check_leaks.near,
    check_contents.blank,
    check_contents.shapes,
    check_contents.colours,
)


def check_images(images: ImageSet, decoded: Decoded, *, task: str = "image-classification") -> CheckReport:
    """Check a set whose splits are assigned.

    Args:
        images: the set; a picture with split "" is counted as skipped.
        decoded: its pictures.
        task: what the report says it is for.
    """
    splits = np.array(images.splits, dtype="U5")
    usable = (splits != "") & (images.labels >= 0)
    usable[list(decoded.problems)] = False
    data = CheckedImages(images, decoded, splits, np.flatnonzero(usable))
    findings = [finding for subject in SUBJECTS for finding in subject(data)]
    return CheckReport(
        task=task,
        source=images.source,
        num_files=len(images) + len(images.skipped),
        num_used=len(data.used),
        skipped=skipped_files(images, decoded),
        counts=data.counts(),
        summary=picture_facts(data),
        findings=tuple(sorted(findings, key=lambda f: LEVELS.index(f.level))),
    )


def skipped_files(images: ImageSet, decoded: Decoded) -> tuple[Skipped, ...]:
    """Return every file that is not used, with its reason."""
    mine = []
    for index, (split, label) in enumerate(zip(images.splits, images.labels.tolist(), strict=True)):
        reason = (
            decoded.problems.get(index)
            or images.left_out.get(index)
            or ("no label" if label < 0 else "" if split else "no split")
        )
        if reason:
            mine.append(Skipped(name=images.names[index], reason=reason))
    return (*images.skipped, *mine)


def picture_facts(data: CheckedImages) -> dict[str, str]:
    """Return a few named facts about the used pictures."""
    images, sizes, channels = data.images, data.decoded.sizes[data.used], data.decoded.channels[data.used]
    facts = {"classes": f"{len(images.classes):,}"}
    if len(sizes):
        distinct, counts = np.unique(sizes, axis=0, return_counts=True)
        height, width = distinct[counts.argmax()]
        share = f"{counts.max() / len(sizes):.0%} of them, {size_range(sizes)}"
        facts["picture size"] = f"{height} x {width} ({'all' if len(distinct) == 1 else share})"
        colours = Counter("grey" if c == 1 else "colour" for c in channels.tolist())
        facts["colour"] = ", ".join(
            f"{c} ({'all' if len(colours) == 1 else f'{n:,}'})" for c, n in colours.most_common()
        )
    groups = {g for i in data.used.tolist() if (g := images.groups[i])}
    if groups:
        facts["groups"] = f"{len(groups):,}"
    if images.licence:
        facts["licence"] = images.licence
    return facts
