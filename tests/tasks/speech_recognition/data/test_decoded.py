"""Recordings decoded: what comes out of every format, what is measured, what is refused, where the samples are."""

from __future__ import annotations

import errno
import os
import re
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tasks.speech_recognition.data.recorded import RATE, in_memory, tone, wav

from dolmen.data.cache.columns import RaggedFile
from dolmen.data.sources.open import open_source
from dolmen.tasks.speech_recognition.data.decoded import DecodedRecordings, decode_recordings
from dolmen.tasks.speech_recognition.data.read import read_recordings
from dolmen.tasks.speech_recognition.data.set import Recording, Recordings
from dolmen.types import MachineError


def test_samples_stand_one_after_the_other() -> None:
    whole = np.arange(-4, 4)[:, None] / 8
    d = decode_recordings(in_memory([wav(whole), wav(whole[:3])]), RATE)
    assert d.audio.values.tolist() == [-16384, -12288, -8192, -4096, 0, 4096, 8192, 12288, -16384, -12288, -8192]
    assert d.audio.spans.tolist() == [[0, 8], [8, 11]]
    assert d.lengths.tolist() == [8, 3]
    assert d.samples(1).tolist() == [-16384, -12288, -8192]
    assert (d.rate, d.rates.tolist(), d.channels.tolist(), d.problems) == (RATE, [RATE, RATE], [1, 1], {})


@pytest.mark.parametrize(
    ("kind", "subtype", "apart"),
    [("WAV", "PCM_U8", 300), ("WAV", "PCM_24", 1), ("WAV", "FLOAT", 1), ("FLAC", None, 1), ("OGG", None, 2000),
     ("MP3", None, 2000)],
)  # fmt: skip
def test_formats(kind: str, subtype: str | None, apart: int) -> None:
    samples = tone(1, 1.0)
    d = decode_recordings(in_memory([wav(samples, kind=kind, subtype=subtype)]), RATE)
    assert d.problems == {}
    assert np.abs(d.samples(0)[:RATE].astype(int) - np.rint(samples[:, 0] * 32768)).max() <= apart


@pytest.mark.parametrize(
    ("rates", "given", "wanted"),
    [([8000] * 3, None, 8000), ([44100, 44100, 8000], None, 16000), ([11025], None, 11025), ([8000], 16000, 16000)],
)
def test_rates(rates: list[int], given: int | None, wanted: int) -> None:
    d = decode_recordings(in_memory([wav(tone(i, 0.5, r), r) for i, r in enumerate(rates)]), given)
    assert d.rate == wanted
    assert d.rates.tolist() == rates
    assert d.lengths.tolist() == [round(round(0.5 * r) * wanted / r) for r in rates]


def test_measures() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (RATE, 1))
    recordings = [
        tone(0, 1.0), np.zeros((RATE, 1)), np.clip(20 * tone(0, 1.0), -1, 1), noise,
        np.concatenate([noise, np.zeros((RATE, 1))], 1),
    ]  # fmt: skip
    d = decode_recordings(in_memory([wav(r) for r in recordings]), RATE)
    np.testing.assert_allclose(d.peaks, [np.abs(r).max() for r in recordings], atol=1e-3)
    np.testing.assert_allclose(d.rms, [np.sqrt((r.mean(1) ** 2).mean()) for r in recordings], atol=1e-3)
    assert d.clipped[2] > 0.5
    assert d.clipped[[0, 1, 3]].max() == 0
    assert d.ranges_db[0] > 15
    assert d.ranges_db[3] < 3
    assert (d.ranges_db[1], d.bands_hz[1]) == (0, 0)
    np.testing.assert_allclose(d.sides, [0, 0, 0, 0, 1], atol=1e-3)
    assert d.channels.tolist() == [1, 1, 1, 1, 2]


def test_the_band_that_is_filled() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    spectrum = np.fft.rfft(noise)
    spectrum[4000:] = 0  # nothing above 4 kHz
    d = decode_recordings(in_memory([wav(noise, 16000), wav(np.fft.irfft(spectrum), 16000)]), 16000)
    assert d.bands_hz[0] == 8000
    assert 3900 < d.bands_hz[1] < 4200


def test_equal_samples_have_equal_digests() -> None:
    a, b = ((32000 * tone(i)).astype(np.int16) for i in range(2))
    d = decode_recordings(in_memory([wav(a), wav(a, kind="FLAC"), wav(b), wav(np.repeat(a, 2, 1))]), RATE)
    keys = [row.tobytes() for row in d.digests]
    assert keys[0] == keys[1] == keys[3] != keys[2]


PROBLEMS = {
    "no sound": (b"RIFF, or so", "can't be read as sound"),
    "empty": (b"", "is empty"),
    "no sample": (wav(np.zeros((0, 1))), "holds no sound"),
    "no number": (wav(np.array([[0.0], [np.nan]]), subtype="FLOAT"), r"holds samples that are no numbers"),
    "not there": (FileNotFoundError(errno.ENOENT, "No such file"), "can't be opened: No such file"),
    "long": (wav(tone(0, 2.5)), r"is 2\.5 s long, more than 2 s"),
}


def test_what_can_not_be_used_is_told_and_the_others_go_on() -> None:
    contents = [wav(tone(0)), *(content for content, _ in PROBLEMS.values()), wav(tone(1))]
    seen: list[tuple[int, int]] = []
    d = decode_recordings(in_memory(contents), RATE, longest_s=2, progress=lambda *a: seen.append(a))
    assert list(d.problems) == list(range(1, 1 + len(PROBLEMS)))
    for reason, (_, pattern) in zip(d.problems.values(), PROBLEMS.values(), strict=True):
        assert re.match(pattern, reason), reason
        assert ";" not in reason
    assert d.too_long == {6}
    assert d.lengths.tolist() == [4000, 0, 0, 0, 0, 0, 0, 4000]
    assert seen[-1] == (8, 8)


def test_long_recordings_take_no_memory() -> None:
    content = wav(np.zeros((600 * RATE, 1)), kind="FLAC")
    recordings = in_memory([content])
    decode_recordings(in_memory([wav(tone(0))]), RATE)  # imports and filters
    tracemalloc.start()
    d = decode_recordings(recordings, RATE, longest_s=5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert d.problems == {0: "is 600.0 s long, more than 5 s"}
    assert peak < 8_000_000  # all of it is 19 MB as floats


def same(a: DecodedRecordings, b: DecodedRecordings) -> None:
    for name in ("rates", "channels", "peaks", "clipped", "rms", "ranges_db", "bands_hz", "sides", "digests"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (a.rate, a.problems, a.too_long, len(a)) == (b.rate, b.problems, b.too_long, len(b))
    for i in range(len(a)):
        np.testing.assert_array_equal(a.samples(i), b.samples(i))


@pytest.mark.parametrize("order", [range(40), range(39, -1, -1)], ids=["forwards", "backwards"])
def test_the_order_of_the_storage_changes_nothing(order: range) -> None:
    contents: list[bytes | OSError] = [wav(tone(i, 0.1 + 0.01 * i)) for i in range(40)]
    contents[7] = OSError("gone")
    first = decode_recordings(in_memory(contents), RATE)
    second = decode_recordings(in_memory(contents, list(order)), RATE)
    same(second, first)
    assert isinstance(second.audio.values, np.memmap)
    rows = [9, 7, 3, 39]
    chosen = second.audio.take(rows)
    assert [chosen[i].tolist() for i in range(4)] == [first.samples(i).tolist() for i in rows]


def reads_of(recordings: Recordings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are read from now on."""
    names: list[str] = []
    read = recordings.source.read

    def count(wanted: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        for name, content in read(wanted):
            names.append(name)
            yield name, content

    monkeypatch.setattr(recordings.source, "read", count)
    return names


@pytest.mark.parametrize("rate", [None, RATE])
def test_a_second_run_reads_no_recording(rate: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = in_memory([wav(tone(0)), b"no sound", wav(tone(1, 3.0)), wav(tone(2))])
    first = decode_recordings(recordings, rate, longest_s=2)
    names = reads_of(recordings, monkeypatch)
    same(decode_recordings(recordings, rate, longest_s=2), first)
    assert decode_recordings(recordings, RATE, longest_s=2).audio.values.filename == first.audio.values.filename  # type: ignore[attr-defined]
    assert names == []
    for changed in ({"rate": 16000}, {"longest_s": 4}):
        decode_recordings(recordings, **({"rate": rate, "longest_s": 2} | changed))  # type: ignore[arg-type]
        assert names
        names.clear()


def test_another_size_or_time_of_a_file_is_another_set(tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / "a.wav").write_bytes(wav(tone(seed)))
        os.utime(tmp_path / "a.wav", (seed, seed))
        d = decode_recordings(Recordings(open_source(tmp_path), "s", (Recording("a.wav", "a"),), (), "a list"), RATE)
        np.testing.assert_allclose(d.samples(0), 32768 * tone(seed)[:, 0], atol=1)


def test_a_recording_that_could_not_be_opened_is_tried_again() -> None:
    recordings = in_memory([wav(tone(0)), PermissionError(errno.EACCES, "Permission denied")])
    assert decode_recordings(recordings, RATE).problems == {1: "can't be opened: Permission denied"}
    recordings.source.contents["1.wav"] = wav(tone(1))  # type: ignore[attr-defined]
    assert decode_recordings(recordings, RATE).problems == {}


def cut_off(entry: Path) -> None:
    with (entry / "audio.npy").open("r+b") as file:
        file.truncate(200)


@pytest.mark.parametrize(
    "damage",
    [
        cut_off,
        lambda entry: (entry / "audio.spans.npy").unlink(),
        lambda entry: np.save(entry / "audio.spans.npy", np.array([[0, 4000], [8000, 4000]])),
        lambda entry: np.save(entry / "audio.spans.npy", np.array([[0, 4000], [-1, 8000]])),
        lambda entry: np.save(entry / "audio.npy", np.zeros(8000)),
        lambda entry: (entry / "entry.json").write_text('{"problems": [], "too_long": [], "not_opened": [9]}'),
        lambda entry: (entry / "entry.json").write_text("{}"),
    ],
)
def test_a_damaged_entry_is_rebuilt(
    damage: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path))
    recordings = in_memory([wav(tone(0)), wav(tone(1))])
    decode_recordings(recordings, RATE)
    (entry,) = (tmp_path / "recordings").iterdir()
    damage(entry)
    d = decode_recordings(recordings, RATE)
    for i in range(2):
        np.testing.assert_allclose(d.samples(i), 32768 * tone(i)[:, 0], atol=1)
    assert [e.name for e in (tmp_path / "recordings").iterdir()] == [entry.name]


def test_a_full_disk_is_told_and_leaves_nothing_half_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path))
    monkeypatch.setattr(RaggedFile, "close", full)
    sentence = (
        r"^the decoded recordings \(8\.0 kB\) can't be written to .*recordings \(No space left on device\): free some "
        "space or set DOLMEN_CACHE to a folder on another disk$"
    )
    with pytest.raises(MachineError, match=sentence):
        decode_recordings(in_memory([wav(tone(0))]), RATE)
    assert list((tmp_path / "recordings").iterdir()) == []


def test_memory_stays_flat_when_the_set_grows_tenfold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # what is in flight grows with the number of threads
    one = wav(tone(0, 1.0))  # 16 kB

    def peak(num: int) -> int:
        recordings = in_memory([one] * num)
        tracemalloc.start()
        try:
            assert decode_recordings(recordings, RATE).lengths.sum() == num * RATE
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(50)  # imports and filters
    small, large = peak(300), peak(3000)
    assert large - small < 6_000_000 < 2700 * 16_000 / 7


def test_what_never_comes_is_missing() -> None:
    d = decode_recordings(in_memory([wav(tone(0)), wav(tone(1))], order=[1]), RATE)
    assert d.problems == {0: "missing from the source"}


@pytest.mark.shared_data
def test_real_recordings(shared_data: Path) -> None:
    recordings = read_recordings(str(shared_data / "speech/speech-commands-subset/wavs.tar.xz"))
    d = decode_recordings(recordings, None)
    assert (d.rate, d.problems, len(d)) == (16000, {}, 400)
    assert (d.lengths == 16000).all()
