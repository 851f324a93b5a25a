"""Live sound from standard input and from a microphone that is made up."""

from __future__ import annotations

import builtins
import io
import sys
import types
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tasks.speech_recognition.predictor.scripted import predictor_of

from dolmen.runtime.microphone import from_int16, listen
from dolmen.tasks.speech_recognition.predictor.predictor import StreamOptions
from dolmen.types import UserError

SAMPLES = np.random.default_rng(0).integers(-32768, 32767, 1000).astype("<i2")


class Dripping(io.RawIOBase):
    """Standard input that gives what comes in pieces of a size, whatever is asked for."""

    def __init__(self, content: bytes, size: int) -> None:
        self.stream, self.size = io.BytesIO(content), size

    def read1(self, size: int) -> bytes:
        return self.stream.read(min(size, self.size))


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Any:
    def pipe(content: bytes, size: int) -> None:
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=Dripping(content, size)))

    return pipe


@pytest.mark.parametrize("size", [1, 3, 4, 160, 10_000])
@pytest.mark.parametrize("tail", [b"", b"\x01"])
def test_samples_on_standard_input_come_whole_however_they_drip(piped: Any, size: int, tail: bytes) -> None:
    piped(SAMPLES.tobytes() + tail, size)
    pieces = list(listen("-", 8000, 0.01))
    assert max(map(len, pieces)) <= 82
    found = np.concatenate(pieces)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, SAMPLES / np.float32(32768))


@pytest.mark.parametrize(("content", "expected"), [(b"", []), (b"\x01", []), (b"\x00\x40", [0.5])])
def test_almost_nothing_on_standard_input(piped: Any, content: bytes, expected: list[float]) -> None:
    piped(content, 100)
    assert [x for piece in listen("-", 8000, 0.1) for x in piece.tolist()] == expected


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("begin", [b"RIFF", b"fLaC", b"OggS"])
def test_a_file_on_standard_input_is_no_bare_samples(piped: Any, begin: bytes, size: int) -> None:
    piped(begin + bytes(1000), size)
    message = r"begins as a file of sound does.*ffmpeg -i FILE -f s16le -ac 1 -ar 8000 - \| dolmen watch \.\.\. -"
    with pytest.raises(UserError, match=message):
        list(listen("-", 8000, 0.1))


def test_standard_input_is_watched(piped: Any) -> None:
    predictor = predictor_of("." * 10 + "on" + "." * 20 + "race")
    piped(bytes(2 * 320 * 40), 999)
    assert [p.to_json()["text"] for p in predictor.watch("-", StreamOptions())] == ["on", "race"]


class Microphone:
    """What sounddevice opens: so many pieces, then it is unplugged."""

    def __init__(self, **options: Any) -> None:
        assert options == {"samplerate": 8000, "channels": 1, "dtype": "float32", "blocksize": 800}
        self.left = 3

    def __enter__(self) -> Microphone:
        return self

    def __exit__(self, *error: object) -> None: ...

    def read(self, size: int) -> tuple[NDArray[np.float32], bool]:
        if not self.left:
            raise PortAudioError("Device unavailable")
        self.left -= 1
        return np.full((size, 1), 0.25, np.float32), False


class PortAudioError(Exception): ...


def test_a_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up = types.SimpleNamespace(InputStream=Microphone, PortAudioError=PortAudioError)
    monkeypatch.setitem(sys.modules, "sounddevice", made_up)
    source = listen("microphone", 8000, 0.1)
    for _ in range(3):
        piece = next(source)
        assert (piece.shape, piece.dtype, float(piece[0])) == ((800,), np.float32, 0.25)
    message = r"the microphone can't be used \(Device unavailable\); see python -m sounddevice for what there is"
    with pytest.raises(UserError, match=message):
        next(source)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError(), r"the microphone needs sounddevice; type: pip install 'dolmen\[audio\]'"),
        (
            OSError("PortAudio library not found"),
            r"can't be reached \(PortAudio library not found\); install PortAudio",
        ),
    ],
)
def test_nothing_to_reach_a_microphone_with(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *args: Any, **more: Any) -> Any:
        if name == "sounddevice":
            raise error
        return real(name, *args, **more)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(UserError, match=message):
        next(listen("microphone", 8000, 0.1))


def test_16_bits() -> None:
    np.testing.assert_array_equal(from_int16(b"\x00\x80\x00\x00\xff\x7f"), np.float32([-1, 0, 32767 / 32768]))
