"""What is in a set of recordings, what is wrong with it, what would leak: every file accounted for.

The codes of the findings are stable, their sentences are for a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from dolmen.data.wording import MAX_ITEMS, SPLITS, choose
from dolmen.tasks.speech_recognition.data.checks import leaks as recordings_check_leaks
from dolmen.tasks.speech_recognition.data.checks import sound as recordings_check_sound
from dolmen.tasks.speech_recognition.data.checks import texts as recordings_check_texts
from dolmen.tasks.speech_recognition.data.checks.view import CheckedRecordings, recordings_are, recordings_of, them
from dolmen.tasks.speech_recognition.data.decoded import DecodedRecordings
from dolmen.tasks.speech_recognition.data.set import Recordings
from dolmen.tasks.speech_recognition.processors.speech import BOUNDARY, SpeechProcessor
from dolmen.tasks.speech_recognition.processors.text_rules import normalise
from dolmen.types import CheckReport, Finding, Skipped

LEVELS = ("error", "leak", "warning", "info")  # most serious first
FEW_RECORDINGS = 10
NO_TEXT = "nothing is left of its text"
SHOWN_CHARACTERS = 100


def check_recordings(
    recordings: Recordings, decoded: DecodedRecordings, processor: SpeechProcessor, *, task: str = "speech-recognition"
) -> CheckReport:
    """Check recordings whose splits are assigned.

    Args:
        recordings: one with split "" is counted as skipped.
        decoded: the same.
        processor: fitted on the training part.
        task: what the report says it is for.
    """
    texts = [normalise(item.text, processor.rules) for item in recordings.items]
    splits = np.array([item.split for item in recordings.items], dtype="U5")
    usable = (splits != "") & np.array([bool(t) for t in texts], np.bool_)
    usable[[*decoded.problems, *recordings.left_out]] = False
    data = CheckedRecordings(recordings, decoded, processor, splits, texts, np.flatnonzero(usable))
    subjects = (
        _files, _amounts, *recordings_check_leaks.SUBJECTS, *recordings_check_sound.SUBJECTS,
        *recordings_check_texts.SUBJECTS,
    )  # fmt: skip
    findings = [finding for subject in subjects for finding in subject(data)]
    return CheckReport(
        task=task,
        source=recordings.name,
        num_files=recordings.num_files,
        num_used=len(data.used),
        skipped=_skipped(data),
        counts={s: {"recordings": len(rows)} for s in reversed(SPLITS) if (rows := data.of(s))},
        summary=_summary(data),
        findings=tuple(sorted(findings, key=lambda f: LEVELS.index(f.level))),
    )


def _skipped(data: CheckedRecordings) -> tuple[Skipped, ...]:
    """Every file that is not used, with its reason."""
    mine = []
    for index, item in enumerate(data.recordings.items):
        reason = data.decoded.problems.get(index) or data.recordings.left_out.get(index)
        reason = reason or ("" if data.texts[index] else NO_TEXT) or ("" if item.split else "no split")
        if reason:
            mine.append(Skipped(name=item.name, reason=reason))
    return (*data.recordings.skipped, *mine)


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
    shares = ((s, float(seconds[rows].sum())) for s in reversed(SPLITS) if (rows := data.of(s)))
    facts["length"] = ", ".join(f"{s} {long_time(n)}" for s, n in shares)
    low, middle, high = np.quantile(seconds[data.used], (0, 0.5, 1))
    facts["duration"] = f"{low:.2f} to {high:.2f} s, median {middle:.2f} s"
    rates = Counter(data.decoded.rates[data.used].tolist())
    said = ", ".join(f"{r:,} Hz" + (f" ({n:,})" if len(rates) > 1 else " (all)") for r, n in rates.most_common(5))
    facts["sampling rate"] = said + (f", used at {data.decoded.rate:,} Hz" if set(rates) != {data.decoded.rate} else "")
    speakers = Counter(recordings.items[i].speaker for i in data.used)
    unknown = f", of {speakers['']:,} recordings unknown" if speakers[""] and len(speakers) > 1 else ""
    facts["speakers"] = f"{len(speakers) - ('' in speakers):,}{unknown}" if set(speakers) != {""} else "unknown"
    words = Counter(w for i in data.used for w in data.texts[i].split())
    often = ", ".join(w for w, _ in words.most_common(8))
    facts["words"] = f"{words.total():,}, {len(words):,} different; most frequent: {often}"
    characters = sorted({c for w in words for c in w})
    facts["characters"] = f"{len(characters):,}: {''.join(characters[:SHOWN_CHARACTERS])}"
    facts["text rules"] = data.processor.rules.sentence()
    num_units = len(data.processor.units) - 1
    spaced = " and the space" if BOUNDARY in data.processor.units and data.processor.kind == "characters" else ""
    num_units -= bool(spaced)
    kinds = {"words": ("word", "words"), "characters": ("character", "characters"), "bpe": ("BPE piece", "BPE pieces")}
    facts["units"] = f"{num_units:,} {choose(num_units, *kinds[data.processor.kind])}{spaced}"
    return facts


def long_time(seconds: float) -> str:
    """Write "12.3 s", "45.6 minutes" or "12.3 hours"."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _files(data: CheckedRecordings) -> Iterator[Finding]:
    """Find what is left out, and what the reader had to say."""
    problems, too_long = data.decoded.problems, data.decoded.too_long
    for code, rows, what in (
        ("unreadable-recordings", sorted(set(problems) - too_long), "unreadable and left out: repair or delete {}"),
        ("long-recordings", sorted(too_long), "too long and left out: cut {} into utterances"),
    ):
        if rows:
            num = len(rows)
            what = what.format(them(num))
            yield Finding(
                code=code,
                level="warning",
                message=f"{recordings_are(num)} {what} (first: {data.name(rows[0])}, {problems[rows[0]]}).",
                count=num,
                items=tuple(f"{data.name(i)}: {problems[i]}" for i in rows[:MAX_ITEMS]),
            )
    if skipped := data.recordings.skipped:
        num = len(skipped)
        yield Finding(
            code="skipped-files",
            level="info",
            message=f"{num:,} {choose(num, 'file or row is', 'files and rows are')} left out: check that none of them "
            "should be used.",
            count=num,
            items=tuple(f"{s.name}: {s.reason}" for s in skipped[:MAX_ITEMS]),
        )
    for note in data.recordings.notes:
        yield Finding(code="note", level="info", message=f"{note[0].upper()}{note[1:]}.")


def _amounts(data: CheckedRecordings) -> Iterator[Finding]:
    """Find what makes training impossible."""
    num = {split: len(data.of(split)) for split in SPLITS}
    if not len(data.used):
        message = "No recording can be used: bring readable recordings with their texts."
        yield Finding(code="no-recordings", level="error", message=message)
    elif not num["train"]:
        message = f"None of the {len(data.used):,} recordings is for training: move some into train."
        yield Finding(code="no-training-recordings", level="error", message=message)
    elif num["train"] < FEW_RECORDINGS:
        yield Finding(
            code="too-few",
            level="error",
            message=f"{data.recordings.name} has {recordings_of(num['train'])} to train on, which is too few to learn "
            f"from; bring {FEW_RECORDINGS} or more (some hundreds are a start).",
            count=num["train"],
        )
    elif not num["val"]:
        message = "Nothing is left to validate on: bring more recordings, or name some as val."
        yield Finding(code="no-validation-recordings", level="error", message=message)
    elif not num["test"]:
        message = "Nothing is set apart as test: evaluate the model on other data than these."
        yield Finding(code="no-test-split", level="info", message=message)
