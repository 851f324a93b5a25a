"""Live sound: from a microphone, or from whatever writes samples to standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dolmen.processors.audio.log_mel import mono
from dolmen.types import UserError

FILE_SIGNATURES = (b"RIFF", b"fLaC", b"OggS")
"""How files of sound begin."""


def listen(source: str, rate: int, seconds: float) -> Iterator[NDArray[np.float32]]:
    """(N,) samples from -1 to 1 as they come, until the source ends.

    Args:
        source: ``microphone``, or ``-`` for 16-bit samples (little-endian, one channel) on standard input.
        rate: samples a second.
        seconds: of a piece.

    Raises:
        UserError: there is no microphone, or nothing to reach it with.
    """
    size = max(1, round(rate * seconds))
    yield from _standard_input(rate, 2 * size) if source == "-" else _microphone(rate, size)


def from_int16(content: bytes) -> NDArray[np.float32]:
    """(N,) samples from -1 to 1 of 16-bit ones, little-endian."""
    return mono(np.frombuffer(content, "<i2"))


def _standard_input(rate: int, num_bytes: int) -> Iterator[NDArray[np.float32]]:
    held = b""
    is_samples = False
    while content := sys.stdin.buffer.read1(num_bytes):  # type: ignore[union-attr]
        held += content
        if not is_samples and held[:4] in FILE_SIGNATURES:
            raise UserError(
                "standard input begins as a file of sound does, and bare 16-bit samples were expected; name the file, "
                f"or type: ffmpeg -i FILE -f s16le -ac 1 -ar {rate} - | dolmen watch ... -"
            )
        is_samples = is_samples or len(held) >= 4
        num_whole = len(held) // 2 * 2 if is_samples else 0
        if num_whole:
            yield from_int16(held[:num_whole])
        held = held[num_whole:]
    if len(held) > 1:
        yield from_int16(held[: len(held) // 2 * 2])


def _microphone(rate: int, size: int) -> Iterator[NDArray[np.float32]]:
    try:
        import sounddevice
    except ImportError:
        raise UserError("the microphone needs sounddevice; type: pip install 'dolmen[audio]'") from None
    except OSError as error:  # it is there, and the system's own library is not
        raise UserError(f"the microphone can't be reached ({error}); install PortAudio (libportaudio2)") from None
    try:
        with sounddevice.InputStream(samplerate=rate, channels=1, dtype="float32", blocksize=size) as stream:
            while True:
                samples, _ = stream.read(size)
                yield np.ascontiguousarray(samples[:, 0])
    except sounddevice.PortAudioError as error:
        raise UserError(
            f"the microphone can't be used ({error}); see python -m sounddevice for what there is"
        ) from None
