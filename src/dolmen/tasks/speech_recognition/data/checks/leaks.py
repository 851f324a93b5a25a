"""What is in a set of recordings more than once, and what therefore leaks from one split into another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

from dolmen.data.images.duplicates import Clusters, copies_across, copies_within, exact_duplicates
from dolmen.data.wording import MAX_ITEMS, SPLITS, choose, listed
from dolmen.tasks.speech_recognition.data.checks.view import CheckedRecordings, recordings_are, them
from dolmen.types import Finding


def copies(data: CheckedRecordings) -> Iterator[Finding]:
    """Find recordings that are in the set twice, to the last sample: across splits, within one, with two texts."""
    if left_out := data.recordings.left_out:
        num, first = len(left_out), min(left_out)
        yield Finding(
            code="copies-left-out",
            level="warning",
            message=f"{recordings_are(num)} in two splits to the last sample and so few that"
            f" {choose(num, 'the copy is', 'the copies are')} left out (first: {data.name(first)}, {left_out[first]}).",
            count=num,
            items=tuple(f"{data.name(i)}: {left_out[i]}" for i in sorted(left_out)[:MAX_ITEMS]),
        )
    clusters = exact_duplicates(data.decoded.digests, data.used)
    yield from _across(data, clusters)
    yield from _within(data, clusters)
    yield from _two_texts(data, clusters)


def _across(data: CheckedRecordings, clusters: Clusters) -> Iterator[Finding]:
    for later, earlier in combinations(SPLITS, 2):
        pairs = copies_across(clusters, data.splits, later, earlier)
        if num := len(pairs):
            yield Finding(
                code="exact-duplicates-across-splits",
                level="leak",
                message=f"{num:,} {choose(num, 'recording', 'recordings')} of {later} {choose(num, 'is', 'are')} also "
                f"in {earlier}, to the last sample: delete {them(num)} from one of the two (first: "
                f"{data.paired(pairs)[0]}).",
                count=num,
                items=data.paired(pairs),
            )


def _within(data: CheckedRecordings, clusters: Clusters) -> Iterator[Finding]:
    pairs = copies_within(clusters, data.splits)
    if num := len(pairs):
        yield Finding(
            code="exact-duplicates",
            level="warning",
            message=f"{num:,} {choose(num, 'recording is an exact copy', 'recordings are exact copies')} of another in "
            f"the same split and {choose(num, 'counts', 'count')} twice: delete "
            f"{choose(num, 'the copy', 'the copies')} (first: {data.paired(pairs)[0]}).",
            count=num,
            items=data.paired(pairs),
        )


def _two_texts(data: CheckedRecordings, clusters: Clusters) -> Iterator[Finding]:
    pairs: list[tuple[int, int]] = []
    for first, *others in (cluster.tolist() for cluster in clusters):
        other = next((i for i in others if data.texts[i] != data.texts[first]), None)
        pairs += [] if other is None else [(first, other)]
    if num := len(pairs):
        a, b = (data.texts[i] for i in pairs[0])
        yield Finding(
            code="same-recording-two-texts",
            level="warning",
            message=f"{recordings_are(num)} in the set with two different texts: keep the right one (first: "
            f"{data.paired(pairs)[0]}, {a!r} and {b!r}).",
            count=num,
            items=data.paired(pairs),
        )


def speakers(data: CheckedRecordings) -> Iterator[Finding]:
    """Find speakers of several splits. Where the data name both splits, that leaks; else the figures have a limit."""
    of_split = {split: {data.recordings.items[i].speaker for i in data.of(split)} - {""} for split in SPLITS}
    drawn: dict[str, set[str]] = defaultdict(set)
    for later, earlier in combinations(SPLITS, 2):
        both = sorted(of_split[later] & of_split[earlier])
        if not both:
            continue
        if {later, earlier} & set(data.recordings.drawn) or data.recordings.shares_speakers:
            for speaker in both:
                drawn[speaker] |= {earlier, later}
            continue
        num = len(both)
        yield Finding(
            code="speakers-across-splits",
            level="leak",
            message=f"{num:,} {choose(num, 'speaker', 'speakers')} of {later} {choose(num, 'is', 'are')} also in "
            f"{earlier} ({_listed(both)}): keep each in one, name no splits and let Dolmen choose them, or agree to it "
            "with --speakers shared.",
            count=num,
            items=tuple(both[:MAX_ITEMS]),
        )
    if num := len(drawn):
        yield Finding(
            code="speakers-shared",
            level="warning",
            message=f"{num:,} {choose(num, 'speaker is', 'speakers are')} in more than one split "
            f"({_listed(sorted(drawn))}): the figures hold for voices that training knows, and say nothing of others.",
            count=num,
            items=tuple(
                f"{s} in {', '.join(p for p in reversed(SPLITS) if p in drawn[s])}" for s in sorted(drawn)[:MAX_ITEMS]
            ),
        )


def _listed(speakers: list[str]) -> str:
    """Names for a sentence; those of Common Voice have 128 characters."""
    return listed([s if len(s) <= 20 else f"{s[:17]}..." for s in speakers])


def texts(data: CheckedRecordings) -> Iterator[Finding]:
    """Count the texts that are also said in training; with commands they all are, and should be."""
    known = {data.texts[i] for i in data.of("train")}
    for split in ("val", "test"):
        rows = data.of(split)
        both = [i for i in rows if data.texts[i] in known]
        if both:
            yield Finding(
                code="texts-across-splits",
                level="info",
                message=f"What is said in {len(both):,} of the {len(rows):,} recordings of {split} is also said in "
                "train: the figures hold for such texts.",
                count=len(both),
                items=data.named(both),
            )


SUBJECTS = (copies, speakers, texts)
