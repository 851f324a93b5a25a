"""A set of pictures with labels: listed, not yet decoded. Every reader of a format ends in one of these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.data.sources.layout import Split
from dolmen.types import Skipped, UserError

Raw = bytes | NDArray[np.uint8]
"""A picture as it is stored: the bytes of its file, or an (H, W) or (H, W, 3) uint8 array."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """N labelled pictures.

    Attributes:
        source: what the person typed.
        classes: the K class names; a label is an index into them.
        names: N names by which a person would find each picture ("train/cat/1.jpg", "train_images[17]").
        labels: (N,) int64, -1 where the data give no label.
        splits: N times "train", "val", "test", or "" where the data say nothing.
        groups: N names of what must not be torn apart (patient, recording), "" where the data say nothing.
        read: ``read(indices)`` yields ``(index, raw)`` for each index once, in the order that is cheapest for
            the storage. A picture whose bytes can't be read yields an ``OSError`` instance in place of ``raw``.
        fingerprint: hex digest that changes when any file's name, size or modification time changes.
        skipped: files of the source that are no pictures of the set, each with its reason.
        left_out: index to reason, for pictures that could be used and are not.
        licence: of a named public set, else "".
    """

    source: str
    classes: tuple[str, ...]
    names: Sequence[str]
    labels: NDArray[np.int64]
    splits: Sequence[Split]
    groups: Sequence[str]
    read: Callable[[Iterable[int]], Iterator[tuple[int, Raw | OSError]]] = field(repr=False)
    fingerprint: str
    skipped: tuple[Skipped, ...] = ()
    left_out: dict[int, str] = field(default_factory=dict)
    licence: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def replace(self, **changes: Any) -> ImageSet:
        """Return a copy with some attributes changed."""
        return replace(self, **changes)


def relabel(images: ImageSet, classes: tuple[str, ...]) -> ImageSet:
    """Number the classes as training did."""
    unknown = [c for i, c in enumerate(images.classes) if c not in classes and (images.labels == i).any()]
    if unknown:
        raise UserError(
            f"{images.source} has the class {unknown[0]!r}, which training never saw"
            + (f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else "")
            + f"; the model knows {', '.join(classes[:10])}{' ...' if len(classes) > 10 else ''}: "
            "rename or remove the class, or train anew with it"
        )
    index = np.array([classes.index(c) if c in classes else -1 for c in images.classes] + [-1], np.int64)
    return images.replace(classes=classes, labels=index[images.labels])
