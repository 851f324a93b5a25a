"""Image sets made by hand, so that what is tested here does not depend on any reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pytest

from dolmen.data.images.set import ImageSet, Raw

MakeImages = Callable[..., ImageSet]


@pytest.fixture
def reads() -> Counter[int]:
    """How often each picture of a hand-made set was read."""
    return Counter()


@pytest.fixture
def make_images(reads: Counter[int]) -> MakeImages:
    def make(
        pictures: Sequence[Raw | OSError],
        labels: Sequence[int] | None = None,
        *,
        classes: Sequence[str] = ("cat", "dog"),
        names: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        **changes: object,
    ) -> ImageSet:
        num = len(pictures)

        def read(indices: Iterable[int]) -> Iterator[tuple[int, Raw | OSError]]:
            for i in indices:
                reads[i] += 1
                yield i, pictures[i]

        return ImageSet(
            source="pets",
            classes=tuple(classes),
            names=names or [f"{i}.png" for i in range(num)],
            labels=np.array([i % len(classes) for i in range(num)] if labels is None else labels, np.int64),
            splits=splits or [""] * num,
            groups=groups or [""] * num,
            read=read,
            fingerprint="f0",
        ).replace(**changes)

    return make
