"""What a check of recordings finds, and what it says: each kind of trouble once, and none where there is none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks.speech_recognition.data.recorded import RATE, a_processor, a_set

from dolmen.data.report_text import report_text
from dolmen.tasks.speech_recognition.data.checks.check import check_recordings, long_time
from dolmen.tasks.speech_recognition.data.checks.texts import too_short
from dolmen.tasks.speech_recognition.data.decoded import decode_recordings
from dolmen.tasks.speech_recognition.data.read import read_recordings
from dolmen.tasks.speech_recognition.data.splits import assign_recording_splits
from dolmen.types import CheckReport, Finding, Skipped

N = 40
TEXTS = [("go left", "stop now", "up", "down again")[i % 4] for i in range(N)]
SPLITS = ["train"] * 24 + ["val"] * 8 + ["test"] * 8
SPEAKERS = [f"s{i // 4}" for i in range(N)]
SECONDS = [len(t) / 8 for t in TEXTS]
USUAL = {"texts-across-splits"}


def check(
    kind: str = "characters", stride: int = 4, changes: dict[str, Any] | None = None, **given: Any
) -> CheckReport:
    arguments = {"splits": SPLITS, "speakers": SPEAKERS, "seconds": SECONDS, **given}
    recordings, decoded = a_set(arguments.pop("texts", TEXTS), **arguments)
    recordings = recordings.replace(**(changes or {}))
    return check_recordings(recordings, decoded, a_processor(recordings, kind, stride))


def put(values: list[Any], at: dict[int, Any]) -> list[Any]:
    return [at.get(i, v) for i, v in enumerate(values)]


def flat(value: float, at: dict[int, float]) -> list[float]:
    return put([value] * N, at)


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    report = check()
    assert {f.code: f.level for f in report.findings} == {"texts-across-splits": "info"}
    assert (report.num_files, report.num_used, report.skipped) == (N, N, ())
    assert report.counts == {"train": {"recordings": 24}, "val": {"recordings": 8}, "test": {"recordings": 8}}


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "unreadable-recordings": ({"problems": [3]}, "warning",
        r"1 recording is unreadable and left out: repair or delete it \(first: 3\.wav, can't be read as sound\)\."),
    "silent-recordings": ({"peaks": flat(0.5, {2: 0.0, 9: 0.001})}, "warning",
        r"2 recordings are silent, and there is a text to each: record again, or delete them \(first: 2\.wav\)\."),
    "steady-recordings": ({"ranges_db": flat(20, {2: 1})}, "warning",
        r"1 recording is as loud from begin to end as noise or a tone: listen to it \(first: 2\.wav\)\."),
    "clipped-recordings": ({"clipped": flat(0, {2: 0.1})}, "warning",
        r"1 recording is overdriven \(over 1% of the samples are at full scale\): record with less gain, or delete it"),
    "low-rates": ({"rates": flat(RATE, {2: 6000, 3: 4000})}, "warning",
        r"2 recordings have a lower sampling rate than the 8,000 Hz that are used \(down to 4,000 Hz\), so that the "
        r"upper bands of them are empty: train with --rate 4000, or bring others\."),
    "mixed-rates": ({"rates": flat(RATE, {2: 16000, 3: 44100})}, "info",
        r"The recordings come with 3 sampling rates, 8,000 to 44,100 Hz: all are brought to 8,000 Hz\."),
    "narrow-recordings": ({"bands_hz": flat(4000, {2: 1900})}, "warning",
        r"1 recording has nothing above 2,400 Hz, as over a telephone: check that this does not go with the speaker or "
        r"word \(first: 2\.wav, 1,900 Hz\)\."),
    "different-channels": ({"channels": flat(2, {}), "sides": flat(0.1, {2: 0.9})}, "warning",
        r"1 recording has channels that differ, and their mean is used: give the one with the voice \(first: 2\.wav"),
    "short-for-text": ({"seconds": put(SECONDS, {2: 0.04, 3: 0.2})}, "warning",
        r"2 recordings are very short for the text: listen whether it is the right one \(first: 2\.wav, 0\.0 s for '"),
    "long-for-text": ({"seconds": put(SECONDS, {2: 9})}, "warning",
        r"1 recording is very long for the text: listen whether it is the right one \(first: 2\.wav, 9\.0 s for '"),
    "exact-duplicates": ({"contents": put(list(range(N)), {4: 0})}, "warning",
        r"1 recording is an exact copy of another in the same split and counts twice: delete the copy \(first: 0\.wav "
        r"= 4\.wav\)\."),
    "exact-duplicates-across-splits": ({"contents": put(list(range(N)), {32: 0, 36: 4})}, "leak",
        r"2 recordings of test are also in train, to the last sample: delete them from one of the two \(first: 32\.wav "
        r"= 0\.wav\)\."),
    "same-recording-two-texts": ({"contents": put(list(range(N)), {1: 0})}, "warning",
        r"1 recording is in the set with two different texts: keep the right one \(first: 0\.wav = 1\.wav, 'go left' "
        r"and 'stop now'\)\."),
    "copies-left-out": ({"changes": {"left_out": {5: "also in test, left out of train"}}}, "warning",
        r"1 recording is in two splits to the last sample and so few that the copy is left out \(first: 5\.wav, "),
    "speakers-across-splits": ({"speakers": put(SPEAKERS, {39: "s0", 38: "s1"})}, "leak",
        r"2 speakers of test are also in train \(s0, s1\): keep each in one, name no splits and let Dolmen choose "
        r"them, or agree to it with --speakers shared\."),
    "one-text": ({"texts": ["up"] * N}, "warning",
        r"All recordings of train say the same \('up'\), so a network learns to hear it in everything: bring "),
    "empty-texts": ({"texts": put(TEXTS, {3: "[noise] ...", 7: "!"})}, "warning",
        r"2 recordings are left out because nothing is left of the text \(first: 3\.wav, '\[noise\] \.\.\.'\): write "),
    "characters-never-trained": ({"texts": put(TEXTS, {39: "éh", 30: "up"})}, "warning",
        r"1 recording of test has characters that train never shows \(h, é\), and no model can write them: move some "),
    "rare-characters": ({"texts": put(TEXTS, {3: "down again q"})}, "info",
        r"1 of the 15 characters of train is there fewer than 5 times \(q\): hardly learned, or a slip of the pen\."),
    "no-training-recordings": ({"splits": ["test"] * N}, "error",
        r"None of the 40 recordings is for training: move some into train\."),
    "too-few": ({"splits": ["train"] * 9 + ["test"] * 31}, "error",
        r"s has 9 recordings to train on, which is too few to learn from; bring 10 or more \(some hundreds are "),
    "no-validation-recordings": ({"splits": ["train"] * 24 + ["test"] * 16}, "error",
        r"Nothing is left to validate on: bring more recordings, or name some as val\."),
    "no-test-split": ({"splits": ["train"] * 24 + ["val"] * 16}, "info",
        r"Nothing is set apart as test: evaluate the model on other data than these\."),
    "no-recordings": ({"problems": list(range(N))}, "error",
        r"No recording can be used: bring readable recordings with their texts\."),
    "skipped-files": ({"changes": {"skipped": (Skipped(name="a", reason="not a recording"),)}}, "info",
        r"1 file or row is left out: check that none of them should be used\."),
    "note": ({"changes": {"notes": ("numbers are odd",)}}, "info", r"Numbers are odd\."),
}  # fmt: skip


@pytest.mark.parametrize("code", CASES)
def test_what_is_wrong_is_found(code: str) -> None:
    given, level, pattern = CASES[code]
    report = check(**given)
    findings = [f for f in report.findings if f.code == code]
    assert [f.level for f in findings] == [level]
    assert re.match(pattern, findings[0].message), findings[0].message
    assert report.num_files == report.num_used + len(report.skipped)
    assert report_text(report)  # it can be shown


def test_one_trouble_is_not_taken_for_another() -> None:
    allowed = {
        "same-recording-two-texts": {"exact-duplicates"}, "empty-texts": {"rare-characters"},
    }  # fmt: skip
    split_cases = {"no-training-recordings", "too-few", "no-validation-recordings", "no-test-split", "no-recordings"}
    for code in CASES.keys() - split_cases:
        codes = {f.code for f in check(**CASES[code][0]).findings}
        assert codes <= {code} | USUAL | allowed.get(code, set()), code


def test_words_that_training_never_shows() -> None:
    report = check("words", texts=put(TEXTS, {39: "go right", 30: "up"}))
    by_code = {f.code: f for f in report.findings}
    assert by_code["words-never-trained"].message == (
        "1 recording of test has words that train never shows (right), and no model can write them: move some into "
        "train."
    )
    assert by_code["words-never-trained"].items == ("right: 1",)


def speakers_of(**given: Any) -> list[Finding]:
    return [f for f in check(speakers=[f"s{i % 3}" for i in range(N)], **given).findings if "speakers" in f.code]


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        ({}, ["leak"] * 3),
        ({"changes": {"drawn": ("val", "test")}}, ["warning"]),
        ({"changes": {"drawn": ("val",)}}, ["leak", "warning"]),
        ({"layout": "Free Spoken Digit Dataset"}, ["warning"]),
        ({"layout": "yesno"}, ["warning"]),
    ],
    ids=["named", "drawn", "val drawn", "fsdd", "yesno"],
)
def test_speakers_that_are_shared_leak_where_the_data_say_so(given: dict[str, Any], levels: list[str]) -> None:
    findings = speakers_of(**given)
    assert [f.level for f in findings] == levels
    if levels == ["warning"]:
        assert findings[0].message == (
            "3 speakers are in more than one split (s0, s1, s2): the figures hold for voices that training knows, and "
            "say nothing of others."
        )
        assert findings[0].items == tuple(f"s{i} in train, val, test" for i in range(3))


def test_who_agrees_to_shared_speakers_is_warned_only() -> None:
    report = check(speakers=put(SPEAKERS, {39: "s0"}), changes={"agreed": True})
    levels = {f.code: f.level for f in report.findings if f.code.startswith("speakers")}
    assert levels == {"speakers-shared": "warning"}


def test_where_no_text_fits_nothing_can_be_learned() -> None:
    texts, fit = ["down again and again"] * N, [2.5] * N
    levels = [
        [f.level for f in check(texts=texts, seconds=seconds, stride=8).findings if f.code == "too-short-for-text"]
        for seconds in (fit, put(fit, {2: 0.01}), [0.01] * 24 + fit[24:])
    ]
    assert levels == [[], ["warning"], ["error"]]


def test_long_names_of_speakers_are_cut() -> None:
    report = check(speakers=put(SPEAKERS, {0: "f" * 128, 39: "f" * 128}))
    message = next(f.message for f in report.findings if f.code == "speakers-across-splits")
    assert f"({'f' * 17}...)" in message


@pytest.mark.parametrize(
    ("units", "steps", "short"), [((1, 2, 3), 3, False), ((1, 2, 3), 2, True), ((1, 1), 2, True), ((1, 1), 3, False),
                                  ((), 0, False)]
)  # fmt: skip
def test_steps_that_ctc_needs(units: tuple[int, ...], steps: int, short: bool) -> None:
    assert too_short(np.array([800]), [units], lambda num: np.full_like(num, steps)).tolist() == [short]


def test_recordings_with_too_few_steps() -> None:
    messages = {f.code: f.message for f in check(stride=8, seconds=put(SECONDS, {1: 0.21})).findings}
    assert messages["too-short-for-text"] == (
        "1 recording has more characters than steps and can't be learned (first: 1.wav, 0.21 s): train with a smaller "
        "--stride, or look whether the text is right."
    )


def test_long_recordings_are_told_apart() -> None:
    recordings, decoded = a_set(TEXTS, splits=SPLITS, problems=[3])
    object.__setattr__(decoded, "too_long", frozenset({3}))
    object.__setattr__(decoded, "problems", {3: "is 61.0 s long, more than 60 s"})
    report = check_recordings(recordings, decoded, a_processor(recordings))
    assert report.findings[0].message == (
        "1 recording is too long and left out: cut it into utterances (first: 3.wav, is 61.0 s long, more than 60 s)."
    )
    assert [f.code for f in report.findings if f.level == "warning"] == ["long-recordings"]
    assert report.skipped == (Skipped(name="3.wav", reason="is 61.0 s long, more than 60 s"),)


def test_summary() -> None:
    report = check(changes={"read_from": ("text", "wav.scp")})
    assert report.summary == {
        "layout": "a list", "texts from": "text, wav.scp, not counted above",
        "length": "train 20.2 s, val 6.8 s, test 6.8 s", "duration": "0.25 to 1.25 s, median 0.94 s",
        "sampling rate": "8,000 Hz (all)", "speakers": "10",
        "words": "70, 7 different; most frequent: go, left, stop, now, up, down, again",
        "characters": "14: adefgilnopstuw", "text rules": report.summary["text rules"],
        "units": "14 characters and the space",
    }  # fmt: skip
    assert [long_time(s) for s in (5, 119.9, 120, 7199, 7200)] == [
        "5.0 s", "119.9 s", "2.0 minutes", "120.0 minutes", "2.0 hours",
    ]  # fmt: skip


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ("fsdd", {"speakers-shared": 6}),
        ("yesno", {"speakers-shared": 1}),
        ("speech-commands-subset", {"exact-duplicates": 2, "clipped-recordings": 2, "narrow-recordings": 6}),
        ("speechocean762-subset", {}),
    ],
)
def test_real_sets(shared_data: Path, data: str, wanted: dict[str, int]) -> None:
    recordings = read_recordings(str(shared_data / "speech" / data))
    decoded = decode_recordings(recordings, 8000 if data in ("fsdd", "yesno") else 16000)
    recordings = assign_recording_splits(recordings, decoded)
    report = check_recordings(recordings, decoded, a_processor(recordings, rate=decoded.rate))
    assert {f.code: f.count for f in report.findings if f.level != "info"} == wanted
    assert report.num_files == report.num_used + len(report.skipped)
