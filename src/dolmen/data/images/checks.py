"""What is in a set of pictures, what is wrong with it, what would leak: every file accounted for.

The codes of the findings are stable, their sentences are for a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from dolmen.data.checks import copies
from dolmen.data.checks.findings import most_serious_first
from dolmen.data.images import check_contents
from dolmen.data.images.check_view import CheckedImages, size_range
from dolmen.data.images.decoded import Decoded
from dolmen.data.images.duplicates import near_duplicates
from dolmen.data.images.set import ImageSet
from dolmen.types import CheckReport, Finding, Skipped


def near(data: CheckedImages) -> Iterator[Finding]:
    """Find pictures that look almost the same."""
    yield from copies.near(data, near_duplicates(data.decoded, data.used, data.splits))


SUBJECTS: tuple[Callable[[CheckedImages], Iterator[Finding]], ...] = (
    check_contents.files,
    check_contents.classes,
    check_contents.balance,
    copies.exact,
    check_contents.two_labels,
    copies.groups,
    near,
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
    data = CheckedImages.of(images, decoded)
    findings = [finding for subject in SUBJECTS for finding in subject(data)]
    return CheckReport(
        task=task,
        source=images.source,
        num_files=len(images) + len(images.skipped),
        num_used=len(data.used),
        skipped=skipped_files(images, decoded),
        counts=data.counts(),
        summary=picture_facts(data),
        findings=most_serious_first(findings),
    )


def skipped_files(images: ImageSet, decoded: Decoded) -> tuple[Skipped, ...]:
    """Return every file that is not used, with its reason."""
    unused = []
    for index, (split, label) in enumerate(zip(images.splits, images.labels.tolist(), strict=True)):
        reason = (
            decoded.problems.get(index)
            or images.left_out.get(index)
            or ("no label" if label < 0 else "" if split else "no split")
        )
        if reason:
            unused.append(Skipped(name=images.names[index], reason=reason))
    return (*images.skipped, *unused)


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
