"""What a set of pictures consists of, and what is wrong with it: one small function a subject."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dolmen.data.checks import amounts
from dolmen.data.checks.clusters import contradictions
from dolmen.data.checks.findings import some
from dolmen.data.images.check_view import CheckedImages, size_range
from dolmen.types import Finding
from dolmen.wording import choose, count

MAX_ASPECT_RATIO = 3  # of the longer side to the shorter
TINY_SIDE_PX = 8  # below it a picture may be a thumbnail or an icon
CHUNK_PICTURES = 65_536  # bounds the memory
MAX_BLANK_RANGE = 2  # grey levels between the darkest and the brightest pixel of each channel
SKIPPED = "{num} [file|files] of the source [is|are] left out: check that none of them should be "


def files(data: CheckedImages) -> Iterator[Finding]:
    """Find what is left out: unreadable, unlabelled, not a picture."""
    yield from amounts.unreadable(data)
    yield from data.some(
        "unlabelled-pictures",
        "warning",
        "{num} [picture has|pictures have] no label and can't be used: give [it|each] one",
        [i for i in np.flatnonzero(data.images.labels < 0).tolist() if i not in data.problems],
    )
    yield from amounts.skipped(data.skipped, SKIPPED + "a picture of a class")


def classes(data: CheckedImages) -> Iterator[Finding]:
    """Find classes that are absent, everywhere or from a split."""
    counts = data.counts()
    train = counts.get("train", {})
    in_train = [c for c, n in train.items() if n]
    yield from amounts.none_usable(data, "readable pictures, such as a folder per class")
    if len(in_train) == 1:
        yield Finding(
            code="one-class",
            level="error",
            message=f"All training pictures are of the class {in_train[0]}: bring pictures of at least one"
            " other class.",
            items=tuple(in_train),
        )
    anywhere = {c for class_counts in counts.values() for c, n in class_counts.items() if n}
    unused = [c for c in data.images.classes if c not in anywhere] if len(data.used) else []
    yield from amounts.class_missing(
        unused, "no usable picture anywhere: add some, or remove the class", code="empty-class"
    )
    for split, class_counts in counts.items():
        missing = [c for c in data.images.classes if c in anywhere and not class_counts[c]]
        purpose = "so that it can be learnt" if split == "train" else "so that it can be measured"
        yield from amounts.class_missing(missing, f"no usable picture in {split}: move some there {purpose}")
    if "train" in counts and "test" not in counts:
        yield amounts.NO_TEST


def balance(data: CheckedImages) -> Iterator[Finding]:
    """Find classes with few pictures, and with far fewer than others."""
    train = data.counts().get("train", {})
    yield from amounts.few_examples(train, "pictures")
    yield from amounts.imbalance(train, "pictures", "warning", "accuracy")


def two_labels(data: CheckedImages) -> Iterator[Finding]:
    """Find pictures that are in the set twice, to the last pixel, with different labels."""
    images = data.images
    pairs = contradictions(data.clusters, lambda i: int(images.labels[i]))
    yield from data.some_pairs(
        "same-picture-two-labels",
        "warning",
        "{num} [picture is|pictures are] in the set with two different labels: keep the right one (first: {first},"
        " {labels})",
        pairs,
        labels=" and ".join(images.classes[images.labels[i]] for i in pairs[0]) if pairs else "",
    )


def shapes(data: CheckedImages) -> Iterator[Finding]:
    """Find mixed, tiny and very long pictures."""
    sizes = data.decoded.sizes[data.used]
    if not len(sizes):
        return
    height, width = data.decoded.pixels.shape[1:3]
    distinct = np.unique(sizes, axis=0)
    yield from some(
        "mixed-sizes",
        "info",
        f"The pictures come in {{num}} sizes, {size_range(sizes)}: all are brought to {height} x {width}",
        len(distinct) if len(distinct) > 1 else 0,
    )
    min_side = min(TINY_SIDE_PX, height, width)
    yield from data.some(
        "tiny-pictures",
        "warning",
        f"{{num}} [picture is|pictures are] less than {min_side} pixels high or wide: look whether that is a thumbnail"
        " or an icon",
        data.used[sizes.min(axis=1) < min_side],
    )
    yield from data.some(
        "long-pictures",
        "warning",
        f"{{num}} [picture is|pictures are] more than {MAX_ASPECT_RATIO} times as long as wide (or as wide as long):"
        " look at what cropping leaves, or pad instead",
        data.used[sizes.max(axis=1) > MAX_ASPECT_RATIO * np.maximum(sizes.min(axis=1), 1)],
    )


def colours(data: CheckedImages) -> Iterator[Finding]:
    """Find a mix of grey and colour, and what was converted while reading."""
    channels = data.decoded.channels[data.used]
    num_grey, num_colour = int((channels == 1).sum()), int((channels == 3).sum())
    if num_grey and num_colour:
        rarer = data.used[channels == (1 if num_grey <= num_colour else 3)]
        yield Finding(
            code="mixed-colour",
            level="info",
            message=f"{count(num_grey, 'picture')} {choose(num_grey, 'is', 'are')} grey and {num_colour:,}"
            f" {choose(num_colour, 'is', 'are')} in colour: check that this does not go with the class, or"
            " the model learns it.",
            count=len(rarer),
            items=data.named(rarer),
        )
    used = set(data.used.tolist())
    by_note: dict[str, list[int]] = {}
    for index, notes in sorted(data.decoded.notes.items()):
        for note in notes if index in used else ():
            by_note.setdefault(note, []).append(index)
    for note, rows in sorted(by_note.items(), key=lambda item: -len(item[1])):
        yield from data.some(
            "converted-pictures",
            "info",
            "{num} [picture was|pictures were] converted while reading ({note}): look at {first} to see whether that is"
            " right",
            rows,
            note=note,
        )


def blank(data: CheckedImages) -> Iterator[Finding]:
    """Find pictures of one colour."""
    is_flat = np.zeros(len(data.used), np.bool_)
    for start in range(0, len(is_flat), CHUNK_PICTURES):
        thumbnails = data.decoded.thumbnails[data.used[start : start + CHUNK_PICTURES]]
        is_flat[start : start + CHUNK_PICTURES] = np.ptp(thumbnails, axis=(1, 2)) <= MAX_BLANK_RANGE
    pixels = data.decoded.pixels
    yield from data.some(
        "blank-pictures",
        "warning",
        "{num} [picture is|pictures are] of one colour and [shows|show] nothing: delete [it|them]",
        [i for i in data.used[is_flat].tolist() if np.ptp(pixels[i], axis=(0, 1)).max() <= MAX_BLANK_RANGE],
    )
