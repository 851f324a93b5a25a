"""Pictures with boxes as a reader of files adds them, one by one, and a record of what it could not use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from dolmen.data.boxes.set import BoxSet, box_set
from dolmen.data.checks.findings import Level, some
from dolmen.data.images.files import Listing, images_of_files, sort_classes
from dolmen.data.sources.layout import SPLIT_WORDS, Split
from dolmen.data.sources.open import Source, printable
from dolmen.processors.images.image import PICTURE_SUFFIXES
from dolmen.types import Finding, UserError
from dolmen.wording import listed

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

NOTES: dict[str, tuple[Level, str, str]] = {
    "unreadable-annotations": (
        "warning",
        "The annotations of 1 picture can't be read, and it is left out: mend or delete them",
        "The annotations of {num} pictures can't be read, and these are left out: mend or delete them",
    ),
    "unreadable-boxes": (
        "warning",
        "1 box can't be read and is left out: mend or delete its line",
        "{num} boxes can't be read and are left out: mend or delete their lines",
    ),
    "unknown-class": (
        "warning",
        "1 box is of a class that the data do not name, and is left out: name the class, or mend the box",
        "{num} boxes are of classes that the data do not name, and are left out: name the classes, or mend the boxes",
    ),
    "boxes-without-picture": (
        "warning",
        "1 annotation belongs to no picture of the data: add the picture, or delete it",
        "{num} annotations belong to no picture of the data: add the pictures, or delete them",
    ),
    "missing-pictures": (
        "warning",
        "1 picture is listed and is not there: add it, or take it out of the list",
        "{num} pictures are listed and are not there: add them, or take them out of the lists",
    ),
    "two-annotations": (
        "warning",
        "1 picture has a second annotation file, which is not used: delete the wrong one",
        "{num} second annotation files for a picture are not used: delete the wrong ones",
    ),
    "in-two-splits": (
        "warning",
        "1 picture is listed in two splits and is kept in the later one: take it out of one of them",
        "{num} pictures are listed in two splits and are kept in the later one: take them out of one of them",
    ),
    "split-not-there": (
        "warning",
        "1 part that the data name is not there: bring it, or take its line out",
        "{num} parts that the data name are not there: bring them, or take their lines out",
    ),
    "train-is-val": (
        "warning",
        "1 file names the same pictures for train and val, which measures nothing: both count as not split",
        "{num} files name the same pictures for train and val, which measures nothing: both count as not split",
    ),
    "unannotated-part": (
        "warning",
        "1 list of pictures has no boxes at all, and its pictures are left out: give the one that has them",
        "{num} lists of pictures have no boxes at all, and their pictures are left out: give the ones that have them",
    ),
    "same-class-twice": (
        "warning",
        "1 class is listed under several numbers, which count as one: give each its own name",
        "{num} classes are listed under several numbers, which count as one: give each its own name",
    ),
    "unused-classes": (
        "info",
        "1 class that the data name has no box anywhere and is left out",
        "{num} classes that the data name have no box anywhere and are left out",
    ),
}
"""What a reader may notice: how serious it is, and the sentence for one and for several."""
SPLIT_ORDER: tuple[Split, ...] = ("", "train", "val", "test")


class BoxListing:
    """Pictures and boxes of a source, collected by a reader.

    Attributes:
        source: where the files are.
        name: what the person typed.
        used: annotation files that were read; whatever is neither in here, nor a picture of the set, nor skipped
            already, is skipped in the end.
    """

    def __init__(self, source: Source, name: str) -> None:
        self.source, self.name = source, name
        self.files = Listing(skipped=list(source.skipped))
        self.used: set[str] = set()
        self._pictures: dict[str, int] = {}
        self._boxes: list[Box] = []
        self._labels: list[str] = []
        self._picture_of_box: list[int] = []
        self._crowd: list[bool] = []
        self._polygons: dict[int, Any] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._unusable: dict[int, str] = {}
        self._notes: dict[str, list[str]] = {}

    def __contains__(self, file: str) -> bool:
        return file in self._pictures

    @property
    def num_boxes(self) -> int:
        """How many boxes there are so far."""
        return len(self._boxes)

    def picture(self, file: str, split: Split = "", group: str = "") -> int:
        """Add a picture, or find it again; return its number."""
        index = self._pictures.get(file)
        if index is None:
            index = self._pictures[file] = len(self._pictures)
            self.files.add(file, "", split, group)
            return index
        known_split = self.files.splits[index]
        if known_split != split:
            if known_split and split:
                self.note("in-two-splits", f"{file}: {known_split} and {split}")
            self.files.splits[index] = max(known_split, split, key=SPLIT_ORDER.index)
        return index

    def annotated_size(self, picture: int, height: Any, width: Any) -> None:
        """Remember the size that the annotations give a picture, if they do."""
        sides = (number(height), number(width))
        if all(s is not None and 1 <= s < 1e6 for s in sides):
            self._sizes[picture] = (int(sides[0] or 0), int(sides[1] or 0))

    def box(self, picture: int, box: Box, label: str, crowd: bool = False, polygon: Any = None) -> None:
        """Add a box."""
        if polygon is not None:
            self._polygons[len(self._boxes)] = polygon
        self._boxes.append(box)
        self._labels.append(label)
        self._picture_of_box.append(picture)
        self._crowd.append(crowd)

    def unusable(self, picture: int, annotation: str, reason: str) -> None:
        """Leave a picture out because nobody knows what is in it."""
        if picture not in self._unusable:
            self._unusable[picture] = f"its annotations can't be read: {reason}"
            self.note("unreadable-annotations", f"{annotation}: {reason}")

    def note(self, code: str, item: str) -> None:
        """Remember one case of something in ``NOTES``."""
        self._notes.setdefault(code, []).append(printable(item))

    def done(
        self,
        classes: Sequence[str] | None = None,
        *,
        relative: bool = False,
        not_listed: str = "not in the annotations",
        expected: str,
    ) -> BoxSet:
        """Return the set of all that was added.

        Args:
            classes: in the order that the data give them; None sorts those that there are.
            relative: the boxes are shares of width and height.
            not_listed: why pictures of the source that were not added are left out.
            expected: for the sentence that says that there are no pictures: what should have been where.

        Raises:
            UserError: there is no picture, or none has a box.
        """
        names = self.files.names
        if not names:
            missing = self._notes.get("missing-pictures", self._notes.get("boxes-without-picture", []))
            first = f" (first: {missing[0]} is not there)" if missing else ""
            raise UserError(f"{self.name} has annotations and no picture that they belong to{first}, {expected}")
        if not self._boxes:
            why = next((f" ({items[0]})" for c, items in self._notes.items() if NOTES[c][0] == "warning"), "")
            raise UserError(
                f"{self.name} has {len(names):,} picture{'s' * (len(names) > 1)} and no box that can be read{why}; "
                "draw boxes around the objects, or mend the annotations"
            )
        used_classes = set(self._labels)
        named = list(dict.fromkeys(sort_classes(used_classes) if classes is None else classes))
        kept = [c for c in named if c in used_classes]
        for unused in [c for c in named if c not in used_classes]:
            self.note("unused-classes", unused)
        self._skip_unused_files(not_listed)
        return self._sorted(kept, relative)

    def _skip_unused_files(self, not_listed: str) -> None:
        accounted_for = {*self._pictures, *self.used, *(s.name for s in self.files.skipped)}
        for file in self.source.files:
            if file.name not in accounted_for:
                self.files.skip(file.name, not_listed if is_picture(file.name) else "not needed")

    def _sorted(self, classes: list[str], relative: bool) -> BoxSet:
        """The set, its pictures in the order of the source."""
        place = {f.name: i for i, f in enumerate(self.source.files)}
        order = sorted(range(len(self._pictures)), key=lambda i: place[self.files.names[i]])
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        files = self.files
        listing = Listing(
            [files.names[i] for i in order],
            [""] * len(order),
            [files.splits[i] for i in order],
            [files.groups[i] for i in order],
            files.skipped,
        )
        images = images_of_files(self.source, self.name, listing)
        labels = np.zeros(len(order), np.int64)
        labels[rank[list(self._unusable)]] = -1
        annotated_sizes = np.zeros((len(order), 2), np.int64)
        if self._sizes:
            annotated_sizes[rank[list(self._sizes)]] = list(self._sizes.values())
        index = {c: i for i, c in enumerate(classes)}
        return box_set(
            images.replace(
                classes=tuple(classes),
                labels=labels,
                left_out={int(rank[i]): reason for i, reason in sorted(self._unusable.items())},
            ),
            self._boxes,
            [index[label] for label in self._labels],
            rank[self._picture_of_box],
            self._crowd,
            polygons=self._polygons,
            relative=relative,
            annotated_sizes=annotated_sizes,
            num_annotation_files=len(self.used),
            notes=self._findings(),
        )

    def _findings(self) -> tuple[Finding, ...]:
        findings: list[Finding] = []
        for code, items in self._notes.items():
            level, singular, plural = NOTES[code]
            ending = ": {names}" if code == "unused-classes" else " (first: {first})"
            findings += some(code, level, f"[{singular}|{plural}]{ending}", len(items), items, names=listed(items))
        return tuple(findings)


class PictureFinder:
    """Finds the picture that an annotation means, also where its path describes another machine."""

    def __init__(self, source: Source) -> None:
        self.names = [f.name for f in source.files if is_picture(f.name)]
        self._all = set(self.names)
        # Where the last path that began elsewhere led to: the next one mostly leads there, too.
        self._outer: dict[Split, str] = {}
        self._by_base: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in self.names:
            base = name.rpartition("/")[2]
            self._by_base.setdefault(base.lower(), []).append(name)
            self._by_stem.setdefault(base.rpartition(".")[0].lower(), []).append(name)

    def find(self, file: str, folders: Iterable[str] = (), split: Split = "") -> str | None:
        """Return the name in the source of the picture that an annotation calls ``file``.

        Args:
            file: with slashes of any kind; only its last parts need to be right.
            folders: where to look first.
            split: a picture in the folder of another split is another one.
        """
        parts = [p for p in file.replace("\\", "/").split("/") if p not in ("", ".", "..")]
        if not parts:
            return None
        folders = [*folders, *([self._outer[split]] if split in self._outer else [])]
        for tail in dict.fromkeys(("/".join(parts), parts[-1])):
            for folder in folders:
                if (place := f"{folder}/{tail}" if folder else tail) in self._all:
                    return place
        closest = _closest(self._by_base.get(parts[-1].lower(), []), parts, split)
        if closest is not None and closest.endswith("/" + "/".join(parts)):
            self._outer[split] = closest[: -len("/".join(parts)) - 1]
        return closest

    def with_stem(self, path: str, folders: Iterable[str] = (), split: Split = "") -> str | None:
        """Return the picture whose name without its ending is that of ``path`` (a name without its ending)."""
        parts = path.split("/")
        same = self._by_stem.get(parts[-1].lower(), [])
        by_folder = {name.rpartition("/")[0]: name for name in reversed(same)}
        for folder in folders:
            if folder in by_folder:
                return by_folder[folder]
        return _closest(same, [*parts[:-1], same[0].rpartition("/")[2]] if same else parts, split)


def _closest(names: list[str], parts: list[str], split: Split) -> str | None:
    """The one of several names that shares the most last parts, if there is one such."""
    if split:
        names = [n for n in names if split_of(n) in ("", split)]
    if len(names) <= 1:
        return names[0] if names else None
    shared = [_num_shared(n.split("/"), parts) for n in names]
    best = [n for n, s in zip(names, shared, strict=True) if s == max(shared)]
    of_split = [n for n in best if split and split_of(n) == split] or best
    return of_split[0] if len(of_split) == 1 else None


def _num_shared(a: list[str], b: list[str]) -> int:
    num = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x.lower() != y.lower():
            break
        num += 1
    return num


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES


def split_of(name: str) -> Split:
    """The split that a folder of a path names (``train2017`` names train), the outermost first."""
    for part in name.split("/")[:-1]:
        if split := split_word(part):
            return split
    return ""


def split_word(text: str) -> Split:
    """The split that a name speaks of ("instances_train2017", "valid"), or ""."""
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in SPLIT_WORDS:
            return SPLIT_WORDS[word]
    return ""


def number(value: Any) -> float | None:
    """A number that somebody wrote, or None; "nan" and "inf" are numbers here, ``clean`` reports them."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def numbers(values: Iterable[Any]) -> list[float] | None:
    """The values as numbers, or None where one is no number."""
    floats = [number(v) for v in values]
    return None if any(v is None for v in floats) else [v for v in floats if v is not None]
