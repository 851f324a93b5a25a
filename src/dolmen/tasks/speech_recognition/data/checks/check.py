"""The check of a set of recordings: its amounts, problems and leaks, with every file accounted for.

The codes of the findings are stable, their sentences are for a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from dolmen.data.checks import amounts
from dolmen.data.checks.examples import SPLITS
from dolmen.data.checks.findings import most_serious_first, notes
from dolmen.tasks.speech_recognition.data.checks import leaks, sound, texts
from dolmen.tasks.speech_recognition.data.checks.view import CheckedRecordings
from dolmen.tasks.speech_recognition.data.decoded import DecodedRecordings
from dolmen.tasks.speech_recognition.data.set import Recordings
from dolmen.tasks.speech_recognition.processors.speech import BOUNDARY, SpeechProcessor
from dolmen.types import CheckReport, Finding, Skipped
from dolmen.wording import count

MIN_RECORDINGS = 10
NO_TEXT = "nothing is left of its text"
MAX_CHARACTERS = 100


def check_recordings(
    recordings: Recordings, decoded: DecodedRecordings, processor: SpeechProcessor, *, task: str = "speech-recognition"
) -> CheckReport:
    """Check recordings whose splits are assigned.

    Args:
        recordings: the set; a recording with split "" counts as skipped.
        decoded: the same.
        processor: fitted on the training part.
        task: name in the report.
    """
    data = CheckedRecordings.of(recordings, decoded, processor)
    subjects = (_files, _amounts, *leaks.SUBJECTS, *sound.SUBJECTS, *texts.SUBJECTS)
    findings = [finding for subject in subjects for finding in subject(data)]
    return CheckReport(
        task=task,
        source=recordings.name,
        num_files=recordings.num_files,
        num_used=len(data.used),
        skipped=_skipped(data),
        counts={s: {"recordings": len(rows)} for s in reversed(SPLITS) if (rows := data.rows_of(s))},
        summary=_summary(data),
        findings=most_serious_first(findings),
    )


def _skipped(data: CheckedRecordings) -> tuple[Skipped, ...]:
    """Every file that is not used, with its reason."""
    unused = []
    for index, item in enumerate(data.recordings.items):
        reason = data.decoded.problems.get(index) or data.recordings.left_out.get(index)
        reason = reason or ("" if data.texts[index] else NO_TEXT) or ("" if item.split else "no split")
        if reason:
            unused.append(Skipped(name=item.name, reason=reason))
    return (*data.recordings.skipped, *unused)


def _summary(data: CheckedRecordings) -> dict[str, str]:
    """A few named facts about the used recordings."""
    recordings, facts = data.recordings, {"layout": data.recordings.layout}
    if recordings.read_from:
        num = len(recordings.read_from)
        more = f" and {num - 3:,} more" if num > 3 else ""
        facts["texts from"] = f"{', '.join(recordings.read_from[:3])}{more}, not counted above"
    if not len(data.used):
        return facts
    seconds = data.durations_s
    shares = ((s, float(seconds[rows].sum())) for s in reversed(SPLITS) if (rows := data.rows_of(s)))
    facts["length"] = ", ".join(f"{s} {long_time(n)}" for s, n in shares)
    low, middle, high = np.quantile(seconds[data.used], (0, 0.5, 1))
    facts["duration"] = f"{low:.2f} to {high:.2f} s, median {middle:.2f} s"
    rates = Counter(data.decoded.rates[data.used].tolist())
    native = ", ".join(f"{r:,} Hz" + (f" ({n:,})" if len(rates) > 1 else " (all)") for r, n in rates.most_common(5))
    facts["sampling rate"] = native + (
        f", used at {data.decoded.rate:,} Hz" if set(rates) != {data.decoded.rate} else ""
    )
    speakers = Counter(recordings.items[i].speaker for i in data.used)
    unknown = f", of {speakers['']:,} recordings unknown" if speakers[""] and len(speakers) > 1 else ""
    facts["speakers"] = f"{len(speakers) - ('' in speakers):,}{unknown}" if set(speakers) != {""} else "unknown"
    words = Counter(w for i in data.used for w in data.texts[i].split())
    often = ", ".join(w for w, _ in words.most_common(8))
    facts["words"] = f"{words.total():,}, {len(words):,} different; most frequent: {often}"
    characters = sorted({c for w in words for c in w})
    facts["characters"] = f"{len(characters):,}: {''.join(characters[:MAX_CHARACTERS])}"
    facts["text rules"] = data.processor.rules.sentence()
    num_units = len(data.processor.units) - 1
    spaced = " and the space" if BOUNDARY in data.processor.units and data.processor.kind == "characters" else ""
    num_units -= bool(spaced)
    names = {"words": ("word", "words"), "characters": ("character", "characters"), "bpe": ("BPE piece", "BPE pieces")}
    facts["units"] = f"{count(num_units, *names[data.processor.kind])}{spaced}"
    return facts


def long_time(seconds: float) -> str:
    """Write "12.3 s", "45.6 minutes" or "12.3 hours"."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _files(data: CheckedRecordings) -> Iterator[Finding]:
    """Find files that are left out, and pass on the notes of the reader."""
    too_long = data.decoded.too_long
    yield from amounts.unreadable(data, sorted(set(data.problems) - too_long))
    yield from amounts.problems(
        data, "long-recordings", "too long and left out: cut [it|them] into utterances", sorted(too_long)
    )
    yield from amounts.skipped(
        data.skipped, "{num} [file or row is|files and rows are] left out: check that none of them should be used"
    )
    yield from notes("note", data.recordings.notes)


def _amounts(data: CheckedRecordings) -> Iterator[Finding]:
    """Find what makes training impossible."""
    num = {split: len(data.rows_of(split)) for split in SPLITS}
    yield from amounts.none_usable(data, "readable recordings with their texts")
    if 0 < num["train"] < MIN_RECORDINGS:
        yield from amounts.too_few(data.recordings.name, data.noun, num["train"], MIN_RECORDINGS)
    elif num["train"] and not num["val"]:
        message = "Nothing is left to validate on: bring more recordings, or name some as val."
        yield Finding(code="no-validation-recordings", level="error", message=message)
    elif num["train"] and not num["test"]:
        yield amounts.NO_TEST
