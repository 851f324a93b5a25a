"""Tagged sentences in parts: long ones cut, a share drawn for another split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dolmen.tasks.token_classification.data.read import Sentence

LONGEST = 256
"""Words of a training sentence; longer ones are cut."""


def cut_long(sentence: Sentence, tags: list[str]) -> Iterator[tuple[Sentence, list[str]]]:
    """A sentence in parts of at most ``LONGEST`` words, cut where no span is cut."""
    start = 0
    while len(tags) - start > LONGEST:
        stop = start + LONGEST
        while stop > start + 1 and tags[stop][:2] in ("I-", "E-"):
            stop -= 1
        if stop == start + 1:
            stop = start + LONGEST
            while stop < len(tags) and tags[stop][:2] in ("I-", "E-"):
                stop += 1
        yield Sentence(sentence.words[start:stop], tags[start:stop], sentence.place), tags[start:stop]
        start = stop
    if start < len(tags):
        yield Sentence(sentence.words[start:], tags[start:], sentence.place), tags[start:]


def draw_share(sentences: list[Sentence], fraction: float, seed: int) -> tuple[list[Sentence], list[Sentence]]:
    """Part off a share of the sentences at random; equal ones stay together."""
    places: dict[tuple[str, ...], list[int]] = {}
    for i, s in enumerate(sentences):
        places.setdefault(tuple(s.words), []).append(i)
    groups = list(places.values())
    chosen: set[int] = set()
    for g in np.random.default_rng(seed).permutation(len(groups)):
        if len(chosen) >= max(1, round(len(sentences) * fraction)):
            break
        if len(chosen) + len(groups[g]) < len(sentences):
            chosen.update(groups[g])
    return [s for i, s in enumerate(sentences) if i not in chosen], [sentences[i] for i in sorted(chosen)]
