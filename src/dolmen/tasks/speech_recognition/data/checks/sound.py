"""How recordings sound: silent, overdriven, of little bandwidth, of channels that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dolmen.data.checks.findings import some
from dolmen.tasks.speech_recognition.data.checks.view import CheckedRecordings
from dolmen.types import Finding

MAX_SILENT_PEAK, MAX_SILENT_RMS = 0.003, 0.0003
"""Shares of full scale: -50 and -70 dB."""
MIN_RANGE_DB = 3.0
"""Range between quiet and loud moments; speech has 4 or more, even where it is cut close (FSDD, Speech Commands)."""
MAX_CLIPPED_SHARE = 0.01
"""Share of samples at full scale from which on it is heard."""
MIN_BAND_SHARE = 0.6
"""Share of the band that a recording has to fill; telephone speech at 16 kHz fills half of it."""
MAX_SIDE_SHARE = 0.5
"""RMS of the channels' differences by that of their mean, above which they differ."""


def loudness(data: CheckedRecordings) -> Iterator[Finding]:
    """Find recordings in which nothing can be heard, and overdriven ones."""
    d, used = data.decoded, data.used
    silent = (d.peaks[used] < MAX_SILENT_PEAK) | (d.rms[used] < MAX_SILENT_RMS)
    steady = ~silent & (d.ranges_db[used] < MIN_RANGE_DB)
    yield from _some(
        data, "silent-recordings", used[silent], "silent, and there is a text to each: record again, or delete"
    )
    yield from _some(data, "steady-recordings", used[steady], "as loud from begin to end as noise or a tone: listen to")
    yield from _some(
        data, "clipped-recordings", used[d.clipped[used] > MAX_CLIPPED_SHARE],
        f"overdriven (over {MAX_CLIPPED_SHARE:.0%} of the samples are at full scale): record with less gain, or delete",
    )  # fmt: skip


def _some(data: CheckedRecordings, code: str, rows: NDArray[np.int64], what: str) -> Iterator[Finding]:
    yield from data.some(
        code, "warning", f"{{num}} [recording is|recordings are] {what} [it|them] (first: {{first}})", rows
    )


def rates(data: CheckedRecordings) -> Iterator[Finding]:
    """Find a mix of sampling rates, and recordings that have less in them than their rate promises."""
    d, used = data.decoded, data.used
    native = d.rates[used]
    counts = Counter(native.tolist())
    lower, normal = used[native < d.rate], used[native >= d.rate]
    lowest = int(native.min()) if len(used) else 0
    yield from data.some(
        "low-rates",
        "warning",
        f"{{num}} [recording has|recordings have] a lower sampling rate than the {d.rate:,} Hz that are used (down to "
        f"{lowest:,} Hz), so that the upper bands of [it|them] are empty: train with --rate {lowest}, or bring others",
        lower,
    )
    if len(counts) > 1 and not len(lower):
        yield from some(
            "mixed-rates",
            "info",
            f"The recordings come with {{num}} sampling rates, {min(counts):,} to {max(counts):,} Hz: all are brought "
            f"to {d.rate:,} Hz",
            len(counts),
        )
    limit_hz = MIN_BAND_SHARE * d.rate / 2
    narrow = normal[(d.bands_hz[normal] < limit_hz) & (d.rms[normal] >= MAX_SILENT_RMS)]
    everything = len(narrow) == len(normal)
    advice = "train with a lower --rate" if everything else "check that this does not go with the speaker or word"
    yield from data.some(
        "narrow-recordings",
        "info" if everything else "warning",
        f"{{num}} [recording has|recordings have] nothing above {limit_hz:,.0f} Hz, as over a telephone: "
        f"{advice} (first: {{first}}, {{band:,.0f}} Hz)",
        narrow,
        band=d.bands_hz[narrow[0]] if len(narrow) else 0,
    )


def channels(data: CheckedRecordings) -> Iterator[Finding]:
    """Find recordings whose channels hold different things; their mean is used."""
    d, used = data.decoded, data.used
    rows = used[(d.channels[used] > 1) & (d.sides[used] > MAX_SIDE_SHARE)]
    yield from data.some(
        "different-channels",
        "warning",
        "{num} [recording has|recordings have] channels that differ, and their mean is used: give the one with the"
        " voice (first: {first}, {channels} channels)",
        rows,
        channels=d.channels[rows[0]] if len(rows) else 0,
    )


SUBJECTS = (loudness, rates, channels)
