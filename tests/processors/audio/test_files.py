"""Files of sound, whole and damaged."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from dolmen.processors.audio.files import SUFFIXES, TooLongError, decode, decode_channels, read_in_pieces, size_of
from dolmen.types import UserError

Floats = NDArray[np.float32]


def tone(n: int = 8000, channels: int = 1) -> Floats:
    angle = 2 * np.pi * 400 / 16000 * np.arange(n)[:, None] + np.arange(channels)
    return np.squeeze(0.5 * np.sin(angle), 1 if channels == 1 else ()).astype(np.float32)


def written(samples: Floats, form: str, subtype: str | None = None, rate: int = 16000) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=form, subtype=subtype)
    return stream.getvalue()


def piecewise(path: Path, seconds: float = 0.1) -> Floats:
    return np.concatenate([samples for samples, _ in read_in_pieces(path, seconds)])


@pytest.mark.parametrize(
    ("form", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_U8", 0.01),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 1e-7),
        ("WAV", "ULAW", 0.02),
        ("WAV", "ALAW", 0.02),
        ("WAVEX", "PCM_16", 1e-4),
        ("W64", "PCM_16", 1e-4),
        ("RF64", "PCM_16", 1e-4),
        ("FLAC", "PCM_S8", 0.01),
        ("FLAC", "PCM_16", 1e-4),
        ("FLAC", "PCM_24", 1e-6),
        ("OGG", "VORBIS", 0.1),
        ("OGG", "OPUS", 0.1),
        ("MP3", "MPEG_LAYER_III", 0.1),
        ("AIFF", "PCM_16", 1e-4),
        ("AU", "PCM_16", 1e-4),
        ("CAF", "PCM_16", 1e-4),
        ("NIST", "PCM_16", 1e-4),
    ],
)
def test_every_format_whole_and_in_pieces(form: str, subtype: str, tolerance: float, tmp_path: Path) -> None:
    content = written(tone(), form, subtype)
    sound = decode(content, "tone")
    assert (sound.rate, sound.num_channels, sound.subtype, sound.duration_s) == (16000, 1, subtype, 0.5)
    assert (sound.samples.dtype, sound.samples.shape) == (np.float32, (8000,))
    np.testing.assert_allclose(sound.samples[500:-500], tone()[500:-500], rtol=0, atol=tolerance)
    path = tmp_path / "tone.raw"  # whatever its name says
    path.write_bytes(content)
    np.testing.assert_allclose(piecewise(path), sound.samples, rtol=0, atol=1e-6)
    assert {rate for _, rate in read_in_pieces(path, 1)} == {16000}


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_become_their_mean_at_any_rate(channels: int, rate: int, tmp_path: Path) -> None:
    samples = tone(4000, channels)
    sound = decode(written(samples, "WAV", "FLOAT", rate), "tone")
    assert (sound.rate, sound.num_channels) == (rate, channels)
    np.testing.assert_allclose(sound.samples, samples if channels == 1 else samples.mean(1), rtol=0, atol=1e-6)
    path = tmp_path / "tone.wav"
    path.write_bytes(written(samples, "WAV", "FLOAT", rate))
    pieces = list(read_in_pieces(path, 0.01))
    assert all(len(piece) == round(0.01 * rate) for piece, _ in pieces[:-1])
    np.testing.assert_array_equal(np.concatenate([piece for piece, _ in pieces]), sound.samples)


@pytest.mark.parametrize(("form", "suffix"), [("FLAC", ".wav"), ("MP3", ".wav"), ("WAV", ".mp3"), ("OGG", ".flac")])
def test_what_is_inside_counts(form: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"tone{suffix}"
    path.write_bytes(written(tone(), form))
    assert len(piecewise(path)) == 8000


def cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "NAME is empty; give a recording .WAV, FLAC, OGG, MP3 or AIFF."),
        (b"zero\n", r"NAME can't be read as sound \(.+\); give WAV, FLAC, OGG, MP3 or AIFF"),
        (b"\xff\xfeb\x00a\x00d\x00" * 30, r"NAME can't be read as sound \(.+\)"),
        (bytes(4000), r"NAME can't be read as sound \(.+\)"),
        (written(tone(), "WAV")[:20], r"NAME can't be read as sound \(.+\)"),
        (written(tone(0), "WAV"), "NAME holds no sound: not one sample stands behind its header; record it again"),
        (cut(written(tone(), "FLAC"), 0.5), r"NAME is damaged \(.+\); get it anew"),
        (cut(written(tone(), "OGG"), 0.9), "NAME holds no sound"),
        (written(tone() * np.nan, "WAV", "FLOAT"), r"NAME holds samples that are no numbers \(NaN or infinite\)"),
        (written(tone() + np.float32(np.inf), "WAV", "DOUBLE"), r"NAME holds samples that are no numbers"),
        (written(tone() * 32768, "WAV", "FLOAT"), "NAME holds samples of more than 1000, expected -1 to 1"),
    ],
)
def test_what_can_not_be_read(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^" + message.replace("NAME", "this file")):
        decode(content, "this file")
    path = tmp_path / "sound.wav"
    path.write_bytes(content)
    with pytest.raises(UserError, match="^" + message.replace("NAME", r".*sound\.wav")):
        piecewise(path)


def test_a_recording_that_was_cut_off_is_read_as_far_as_it_goes() -> None:
    for form in ("WAV", "AIFF", "AU", "MP3"):
        sound = decode(cut(written(np.tile(tone(), 10), form), 0.6), "cut")
        assert 30_000 < len(sound.samples) < 55_000


def test_places_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path} is a folder; name a recording \(WAV"):
        piecewise(tmp_path)
    with pytest.raises(UserError, match=r"absent\.wav can't be read: No such file or directory; name a recording"):
        piecewise(tmp_path / "absent.wav")


def test_damaged_headers_are_errors_of_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    for form in ("WAV", "FLAC", "OGG", "AIFF", "AU", "CAF"):
        whole = written(tone(2000), form)
        for _ in range(40):
            content = bytearray(whole)
            for at in generator.integers(0, min(len(whole), 120), 6):
                content[at] = generator.integers(256)
            try:
                finite = bool(np.isfinite(decode(bytes(content), "damaged").samples).all())
            except UserError as error:
                finite = "\n" not in str(error)
            assert finite
    assert "Traceback" not in capfd.readouterr().err


def test_a_header_that_promises_much_takes_no_memory(tmp_path: Path) -> None:
    content = bytearray(written(tone(64), "WAV"))
    content[22:24] = (1024).to_bytes(2, "little")  # channels
    content[24:28] = (1 << 30).to_bytes(4, "little")  # samples a second
    content[32:34] = (2048).to_bytes(2, "little")
    content[40:44] = (0x7FFFFFFF).to_bytes(4, "little")  # bytes that follow
    content += bytes(1 << 16)
    path = tmp_path / "sound.wav"
    path.write_bytes(content)
    tracemalloc.start()
    assert len(piecewise(path, 30)) == 32
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 25


def test_memory_is_that_of_a_piece(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 16000, 1) as file:
        for _ in range(300):
            file.write(tone(16000))
    tracemalloc.start()
    assert sum(len(samples) for samples, _ in read_in_pieces(path, 1)) == 300 * 16000
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 20


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_how_much_is_in_a_file(form: str) -> None:
    content = written(tone(8000, 2), form)
    assert size_of(content, "tone") == (8000, 16000, 2)
    with pytest.raises(UserError, match="tone can't be read as sound"):
        size_of(b"nothing of the kind", "tone")


def test_all_channels_of_what_is_not_too_long() -> None:
    samples = tone(40_000, 2)
    decoded, rate = decode_channels(written(samples, "WAV", "FLOAT"), "tone", 2.5)
    np.testing.assert_array_equal(decoded, samples)
    assert rate == 16000
    with pytest.raises(TooLongError, match=r"tone is 2\.5 s long, more than 2 s; cut it into utterances"):
        decode_channels(written(samples, "WAV"), "tone", 2.0)
    with pytest.raises(UserError, match="tone holds samples that are no numbers"):
        decode_channels(written(samples * np.nan, "WAV", "FLOAT"), "tone", 9.0)


def test_suffixes_are_of_files_that_can_be_written_and_read() -> None:
    assert {".wav", ".flac", ".ogg", ".mp3", ".opus"} <= SUFFIXES
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in SUFFIXES)
