"""How recordings sound: silent, overdriven, of little bandwidth, of channels that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dolmen.tasks.speech_recognition.data.checks.view import CheckedRecordings, recordings_are, recordings_have, them
from dolmen.types import Finding

SILENT_PEAK, SILENT_RMS = 0.003, 0.0003
"""Of full scale: -50 and -70 dB."""
STEADY_DB = 3.0
"""Between quiet and loud moments; of speech it is 4 or more, even where it is cut close (FSDD, Speech Commands)."""
CLIPPED = 0.01
"""Share of samples at full scale from which on it is heard."""
NARROW = 0.6
"""Share of the band that a recording has to fill; telephone speech at 16 kHz fills half of it."""
DIFFERENT = 0.5


def loudness(data: CheckedRecordings) -> Iterator[Finding]:
    """Find recordings in which nothing can be heard, and overdriven ones."""
    d, used = data.decoded, data.used
    silent = (d.peaks[used] < SILENT_PEAK) | (d.rms[used] < SILENT_RMS)
    steady = ~silent & (d.ranges_db[used] < STEADY_DB)
    yield from _some(
        data, "silent-recordings", used[silent], "silent, and there is a text to each: record again, or delete"
    )
    yield from _some(data, "steady-recordings", used[steady], "as loud from begin to end as noise or a tone: listen to")
    yield from _some(
        data, "clipped-recordings", used[d.clipped[used] > CLIPPED],
        f"overdriven (over {CLIPPED:.0%} of the samples are at full scale): record with less gain, or delete",
    )  # fmt: skip


def _some(data: CheckedRecordings, code: str, rows: NDArray[np.int64], what: str) -> Iterator[Finding]:
    if num := len(rows):
        yield Finding(
            code=code,
            level="warning",
            message=f"{recordings_are(num)} {what} {them(num)} (first: {data.name(rows[0])}).",
            count=num,
            items=data.named(rows),
        )


def rates(data: CheckedRecordings) -> Iterator[Finding]:
    """Find a mix of sampling rates, and recordings that have less in them than their rate promises."""
    d, used = data.decoded, data.used
    native = d.rates[used]
    counts = Counter(native.tolist())
    lower, rest = used[native < d.rate], used[native >= d.rate]
    if len(lower):
        num, low = len(lower), int(native.min())
        yield Finding(
            code="low-rates",
            level="warning",
            message=f"{recordings_have(num)} a lower sampling rate than the {d.rate:,} Hz that are used (down to "
            f"{low:,} Hz), so that the upper bands of {them(num)} are empty: train with --rate {low}, or bring others.",
            count=num,
            items=data.named(lower),
        )
    elif len(counts) > 1:
        yield Finding(
            code="mixed-rates",
            level="info",
            message=f"The recordings come with {len(counts)} sampling rates, {min(counts):,} to {max(counts):,} Hz: "
            f"all are brought to {d.rate:,} Hz.",
            count=len(counts),
        )
    narrow = rest[(d.bands_hz[rest] < NARROW * d.rate / 2) & (d.rms[rest] >= SILENT_RMS)]
    if num := len(narrow):
        everything = num == len(rest)
        advice = "train with a lower --rate" if everything else "check that this does not go with the speaker or word"
        yield Finding(
            code="narrow-recordings",
            level="info" if everything else "warning",
            message=f"{recordings_have(num)} nothing above {NARROW * d.rate / 2:,.0f} Hz, as over a telephone: "
            f"{advice} (first: {data.name(narrow[0])}, {d.bands_hz[narrow[0]]:,.0f} Hz).",
            count=num,
            items=data.named(narrow),
        )


def channels(data: CheckedRecordings) -> Iterator[Finding]:
    """Find recordings whose channels hold different things; their mean is used."""
    d, used = data.decoded, data.used
    rows = used[(d.channels[used] > 1) & (d.sides[used] > DIFFERENT)]
    if num := len(rows):
        yield Finding(
            code="different-channels",
            level="warning",
            message=f"{recordings_have(num)} channels that differ, and their mean is used: give the one with the voice "
            f"(first: {data.name(rows[0])}, {d.channels[rows[0]]} channels).",
            count=num,
            items=data.named(rows),
        )


SUBJECTS = (loudness, rates, channels)
