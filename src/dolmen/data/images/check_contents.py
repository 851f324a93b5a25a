"""What a set of pictures consists of, and what is wrong with it: one small function a subject."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dolmen.data.images.check_view import CheckedImages, pictures, size_range
from dolmen.data.wording import MAX_ITEMS, choose, listed
from dolmen.types import Finding

FEW = 10  # training pictures of a class; with fewer, chance decides what is learnt
IMBALANCE = 10  # times
LONG = 3  # times as long as wide, or as wide as long
TINY = 8  # pixels a side
CHUNK = 65_536  # pictures; bounds the memory
BLANK = 2  # grey levels between the darkest and the brightest pixel of each channel


def files(data: CheckedImages) -> Iterator[Finding]:
    """Find what is left out: unreadable, unlabelled, not a picture."""
    problems, images = data.decoded.problems, data.images
    if problems:
        first, num = min(problems), len(problems)
        yield Finding(
            code="unreadable-pictures",
            level="warning",
            message=f"{pictures(num)} {choose(num, 'is', 'are')} unreadable and left out: repair"
            f" or delete {choose(num, 'it', 'them')} (first: {images.names[first]}, {problems[first]}).",
            count=num,
            items=tuple(f"{images.names[i]}: {problems[i]}" for i in sorted(problems)[:MAX_ITEMS]),
        )
    unlabelled = [i for i in np.flatnonzero(images.labels < 0).tolist() if i not in problems]
    if unlabelled:
        num = len(unlabelled)
        yield Finding(
            code="unlabelled-pictures",
            level="warning",
            message=f"{pictures(num)} {choose(num, 'has', 'have')} no label and can't be"
            f" used: give {choose(num, 'it', 'each')} one.",
            count=num,
            items=data.named(unlabelled),
        )
    if images.skipped:
        num = len(images.skipped)
        yield Finding(
            code="skipped-files",
            level="info",
            message=f"{num:,} file{choose(num, '', 's')} of the source {choose(num, 'is', 'are')}"
            " left out: check that none of them should be a picture of a class.",
            count=num,
            items=tuple(f"{s.name}: {s.reason}" for s in images.skipped[:MAX_ITEMS]),
        )


def classes(data: CheckedImages) -> Iterator[Finding]:
    """Find classes that are absent, everywhere or from a split."""
    counts = data.counts()
    train = counts.get("train", {})
    in_train = [c for c, n in train.items() if n]
    if not len(data.used):
        yield Finding(
            code="no-pictures",
            level="error",
            message="No picture can be used: bring readable pictures, such as a folder per class.",
        )
    elif not train:
        yield Finding(
            code="no-training-pictures",
            level="error",
            message=f"None of the {len(data.used):,} pictures is for training: move some into train.",
        )
    elif len(in_train) == 1:
        yield Finding(
            code="one-class",
            level="error",
            message=f"All training pictures are of the class {in_train[0]}: bring pictures of at least one"
            " other class.",
            items=tuple(in_train),
        )
    anywhere = {c for of_split in counts.values() for c, n in of_split.items() if n}
    yield from _absent("empty-class", "anywhere: add some, or remove the class", data, anywhere)
    for split, of_split in counts.items():
        here = {c for c, n in of_split.items() if n} | (set(data.images.classes) - anywhere)
        what = "so that it can be learnt" if split == "train" else "so that it can be measured"
        yield from _absent("class-missing-from-split", f"in {split}: move some there {what}", data, here)
    if "train" in counts and "test" not in counts:
        yield Finding(
            code="no-test-split",
            level="info",
            message="Nothing is set apart as test: evaluate the model on other data than these.",
        )


def _absent(code: str, where: str, data: CheckedImages, present: set[str]) -> Iterator[Finding]:
    missing = [c for c in data.images.classes if c not in present]
    if missing and len(data.used):
        yield Finding(
            code=code,
            level="warning",
            message=f"{choose(len(missing), 'Class', 'Classes')} {listed(missing)}"
            f" {choose(len(missing), 'has', 'have')} no usable picture {where}.",
            count=len(missing),
            items=tuple(missing[:MAX_ITEMS]),
        )


def balance(data: CheckedImages) -> Iterator[Finding]:
    """Find classes with few pictures, and with far fewer than others."""
    train = {c: n for c, n in data.counts().get("train", {}).items() if n}
    few = sorted((c for c, n in train.items() if n < FEW), key=lambda c: train[c])
    if few:
        yield Finding(
            code="few-examples",
            level="warning",
            message=f"{len(few):,} class{choose(len(few), '', 'es')} {choose(len(few), 'has', 'have')}"
            f" fewer than {FEW} training pictures ({listed([f'{c} {train[c]}' for c in few])}):"
            " bring more, or join classes.",
            count=len(few),
            items=tuple(f"{c}: {train[c]}" for c in few[:MAX_ITEMS]),
        )
    if train and max(train.values()) > IMBALANCE * min(train.values()):
        most, least = max(train, key=lambda c: train[c]), min(train, key=lambda c: train[c])
        yield Finding(
            code="imbalance",
            level="warning",
            message=f"{most} has {train[most]:,} training pictures and {least} {train[least]:,}"
            f" ({train[most] / train[least]:.0f} times fewer): judge by the figures of each class, not by"
            " accuracy alone.",
            count=len(train),
            items=(f"{most}: {train[most]}", f"{least}: {train[least]}"),
        )


def shapes(data: CheckedImages) -> Iterator[Finding]:
    """Find mixed, tiny and very long pictures."""
    sizes = data.decoded.sizes[data.used]
    if not len(sizes):
        return
    height, width = data.decoded.pixels.shape[1:3]
    distinct = np.unique(sizes, axis=0)
    if len(distinct) > 1:
        yield Finding(
            code="mixed-sizes",
            level="info",
            message=f"The pictures come in {len(distinct):,} sizes, {size_range(sizes)}:"
            f" all are brought to {height} x {width}.",
            count=len(distinct),
        )
    least = min(TINY, height, width)
    tiny = data.used[sizes.min(axis=1) < least]
    if num := len(tiny):
        yield Finding(
            code="tiny-pictures",
            level="warning",
            message=f"{pictures(num)} {choose(num, 'is', 'are')} less than {least} pixels high or wide:"
            " look whether that is a thumbnail or an icon.",
            count=num,
            items=data.named(tiny),
        )
    long = data.used[sizes.max(axis=1) > LONG * np.maximum(sizes.min(axis=1), 1)]
    if num := len(long):
        yield Finding(
            code="long-pictures",
            level="warning",
            message=f"{pictures(num)} {choose(num, 'is', 'are')} more than {LONG} times as long as wide"
            " (or as wide as long): look at what cropping leaves, or pad instead.",
            count=num,
            items=data.named(long),
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
            message=f"{pictures(num_grey)} {choose(num_grey, 'is', 'are')} grey and {num_colour:,}"
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
    for note, noted in sorted(by_note.items(), key=lambda item: -len(item[1])):
        num = len(noted)
        yield Finding(
            code="converted-pictures",
            level="info",
            message=f"{pictures(num)} {choose(num, 'was', 'were')} converted while reading ({note}):"
            f" look at {data.named(noted)[0]} to see whether that is right.",
            count=num,
            items=data.named(noted),
        )


def blank(data: CheckedImages) -> Iterator[Finding]:
    """Find pictures of one colour."""
    flat = np.zeros(len(data.used), np.bool_)
    for start in range(0, len(flat), CHUNK):
        thumbnails = data.decoded.thumbnails[data.used[start : start + CHUNK]]
        flat[start : start + CHUNK] = np.ptp(thumbnails, axis=(1, 2)) <= BLANK
    pixels = data.decoded.pixels
    found = [i for i in data.used[flat].tolist() if np.ptp(pixels[i], axis=(0, 1)).max() <= BLANK]
    if found:
        yield Finding(
            code="blank-pictures",
            level="warning",
            message=f"{pictures(len(found))} {choose(len(found), 'is', 'are')} of one colour and"
            f" {choose(len(found), 'shows', 'show')} nothing: delete {choose(len(found), 'it', 'them')}.",
            count=len(found),
            items=data.named(found),
        )
