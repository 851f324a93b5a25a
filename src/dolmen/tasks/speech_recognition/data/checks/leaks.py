"""Leaks from one split of recordings into another beside copies: texts and speakers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from dolmen.data.checks.clusters import contradictions
from dolmen.data.checks.copies import exact, groups_across
from dolmen.data.checks.examples import SPLITS
from dolmen.data.checks.findings import some
from dolmen.tasks.speech_recognition.data.checks.view import CheckedRecordings
from dolmen.types import Finding
from dolmen.wording import listed


def two_texts(data: CheckedRecordings) -> Iterator[Finding]:
    """Find recordings that are in the set twice, to the last sample, with different texts."""
    pairs = contradictions(data.clusters, lambda i: data.texts[i])
    yield from data.some_pairs(
        "same-recording-two-texts",
        "warning",
        "{num} [recording is|recordings are] in the set with two different texts: keep the right one (first: {first},"
        " {texts})",
        pairs,
        texts=" and ".join(repr(data.texts[i]) for i in pairs[0]) if pairs else "",
    )


def speakers(data: CheckedRecordings) -> Iterator[Finding]:
    """Find speakers of several splits. Where the data name both splits, that leaks; else the figures have a limit."""
    splits_of = groups_across(data)
    drawn: dict[str, set[str]] = {}
    for later, earlier in combinations(SPLITS, 2):
        shared = [speaker for speaker, splits in splits_of.items() if {later, earlier} <= set(splits)]
        if {later, earlier} & set(data.recordings.drawn) or data.recordings.shares_speakers:
            for speaker in shared:
                drawn.setdefault(speaker, set()).update((earlier, later))
            continue
        yield from some(
            "speakers-across-splits",
            "leak",
            f"{{num}} [speaker|speakers] of {later} [is|are] also in {earlier} ({{names}}): keep each in one, name no "
            "splits and let Dolmen choose them, or agree to it with --speakers shared",
            len(shared),
            shared,
            names=_listed(shared),
        )
    yield from some(
        "speakers-shared",
        "warning",
        "{num} [speaker is|speakers are] in more than one split ({names}): the figures hold for voices that training"
        " knows, and say nothing of others",
        len(drawn),
        (f"{s} in {', '.join(p for p in reversed(SPLITS) if p in drawn[s])}" for s in sorted(drawn)),
        names=_listed(sorted(drawn)),
    )


def _listed(speakers: list[str]) -> str:
    """Names for a sentence; those of Common Voice have 128 characters."""
    return listed([s if len(s) <= 20 else f"{s[:17]}..." for s in speakers])


def texts(data: CheckedRecordings) -> Iterator[Finding]:
    """Count the texts that are also said in training; with commands they all are, and should be."""
    known = {data.texts[i] for i in data.rows_of("train")}
    for split in ("val", "test"):
        rows = data.rows_of(split)
        yield from data.some(
            "texts-across-splits",
            "info",
            f"What is said in {{num}} of the {len(rows):,} recordings of {split} is also said in train: the figures"
            " hold for such texts",
            [i for i in rows if data.texts[i] in known],
        )


SUBJECTS = (exact, two_texts, speakers, texts)
