"""The sample of recordings: readable, clean, the same every time, and there is something in it to learn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import contents
from tasks.speech_recognition.data.recorded import a_processor

from dolmen.tasks.speech_recognition.data.checks.check import check_recordings
from dolmen.tasks.speech_recognition.data.decoded import decode_recordings
from dolmen.tasks.speech_recognition.data.read import read_recordings
from dolmen.tasks.speech_recognition.data.sample import RATE, VOICES, WORDS, write_recordings_sample
from dolmen.tasks.speech_recognition.data.splits import assign_recording_splits
from dolmen.types import UserError


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "one"
    write_recordings_sample(folder)
    return folder


def test_sample(sample: Path) -> None:
    recordings = read_recordings(str(sample))
    decoded = decode_recordings(recordings, None)
    assert (decoded.rate, decoded.problems, len(decoded)) == (RATE, {}, 120)
    assert Counter(item.split for item in recordings.items) == {"train": 90, "val": 15, "test": 15}
    assert {item.speaker for item in recordings.items} == set(VOICES)
    assert {w for item in recordings.items for w in item.text.split()} == set(WORDS)
    seconds = decoded.lengths / RATE
    assert 0.4 < seconds.min() < seconds.max() < 2.3
    recordings = assign_recording_splits(recordings, decoded)
    report = check_recordings(recordings, decoded, a_processor(recordings, "words"))
    assert {f.level for f in report.findings} == {"info"}
    assert [(s.name, s.reason) for s in report.skipped] == [("NOTICE.txt", "not a recording")]


def test_the_words_can_be_told_from_each_other(sample: Path) -> None:
    """A new voice's single words by the nearest of the other voices, in the spectra of their first and last third."""
    recordings = read_recordings(str(sample))
    decoded = decode_recordings(recordings, None)
    single = [i for i, item in enumerate(recordings.items) if " " not in item.text]

    def look(index: int) -> np.ndarray:
        samples = decoded.samples(index).astype(float)
        loud = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max())
        thirds = np.array_split(samples[loud[0] : loud[-1]], 3)
        bands = [np.array_split(np.abs(np.fft.rfft(t * np.hanning(len(t)))) ** 2, 20) for t in (thirds[0], thirds[2])]
        logs = np.log([[b.mean() for b in band] for band in bands])
        return np.concatenate([row - row.mean() for row in logs])

    looks, texts = np.array([look(i) for i in single]), [recordings.items[i].text for i in single]
    speakers = [recordings.items[i].speaker for i in single]
    right = 0
    for i, own in enumerate(looks):
        others = [j for j in range(len(single)) if speakers[j] != speakers[i]]
        right += texts[min(others, key=lambda j: float(np.square(looks[j] - own).sum()))] == texts[i]
    assert right >= 0.9 * len(single)


def test_it_is_the_same_every_time(sample: Path, tmp_path: Path) -> None:
    write_recordings_sample(tmp_path / "two")
    assert contents(sample) == contents(tmp_path / "two")


def test_it_writes_over_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(UserError, match=r"exists already and is not empty; name a new folder$"):
        write_recordings_sample(tmp_path)
