"""An ImageSet whose pictures are files: what the readers of folders, archives and lists end in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from dolmen.data.images.set import ImageSet, Raw
from dolmen.data.sources.layout import Split
from dolmen.data.sources.open import Source, natural
from dolmen.types import Skipped


@dataclass
class Listing:
    """The pictures of a source, one row each, and the files that are none."""

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def add(self, name: str, label: str, split: Split = "", group: str = "") -> None:
        """Add a picture."""
        self.names.append(name)
        self.labels.append(label)
        self.splits.append(split)
        self.groups.append(group)

    def skip(self, name: str, reason: str) -> None:
        """Add a file that is not used."""
        self.skipped.append(Skipped(name=name, reason=reason))


def images_of_files(source: Source, name: str, listing: Listing) -> ImageSet:
    """An ImageSet whose pictures are the files of a source that a listing names."""
    names = listing.names
    classes = sort_classes(set(listing.labels))
    number = {c: i for i, c in enumerate(classes)}
    position = {n: i for i, n in enumerate(names)}

    def read(indices: Iterable[int]) -> Iterator[tuple[int, Raw | OSError]]:
        for file, content in source.read([names[i] for i in indices]):
            yield position[file], content

    return ImageSet(
        source=name,
        classes=tuple(classes),
        names=names,
        labels=np.array([number[label] for label in listing.labels], np.int64),
        splits=listing.splits,
        groups=listing.groups,
        read=read,
        fingerprint=source.fingerprint(names),
        skipped=tuple(listing.skipped),
    )


def sort_classes(names: Iterable[str]) -> list[str]:
    """Order class names: as numbers where all of them are numbers, else naturally ("class 2" before "class 10")."""
    names = list(names)
    try:
        return sorted(names, key=lambda n: (float(n), n))
    except ValueError:
        return sorted(names, key=natural)
