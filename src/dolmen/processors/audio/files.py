"""Files of sound to samples of one channel: whole from bytes, or piece by piece from a disk."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dolmen.types import UserError

SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".sph"}
)
"""Endings of files that are read: what libsndfile knows and people have. What is inside counts, not the name."""
FORMATS = "WAV, FLAC, OGG, MP3 or AIFF"
LOUDEST = 1e3
"""Samples of floats may be over 1 a little; beyond this they are no sound."""
MAX_BLOCK_SAMPLES = 1 << 22
"""Samples that are decoded together at most, those of all channels counted."""


class TooLongError(UserError):
    """A recording is longer than was asked for."""


@dataclass(frozen=True, eq=False)
class Sound:
    """A recording.

    Attributes:
        samples: (N,) -1..1, the mean of its channels.
        rate: samples a second.
        num_channels: that it came with.
        subtype: how its samples are stored, as libsndfile calls it: "PCM_16", "PCM_U8", "MPEG_LAYER_III" ...
    """

    samples: NDArray[np.float32]
    rate: int
    num_channels: int
    subtype: str

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate


def decode(content: bytes, name: str) -> Sound:
    """Decode the bytes of a file to one channel.

    Args:
        content: of the file.
        name: for messages.

    Raises:
        UserError: they are no sound, there is not a sample in them, or some are no numbers.
    """
    with _opened(io.BytesIO(content), name) as file:
        pieces = [_mono(piece, name) for piece in _blocks(file, MAX_BLOCK_SAMPLES, name)]
        return Sound(np.concatenate(pieces), file.samplerate, file.channels, file.subtype)


def size_of(content: bytes, name: str) -> tuple[int, int, int]:
    """The size of the sound in a file's bytes, by its header: ``decode`` gives no more than that.

    Returns:
        samples of each channel, their rate, and channels.

    Raises:
        UserError: they are no sound, or the header does not say it.
    """
    with _opened(io.BytesIO(content), name) as file:
        if file.frames >= 1 << 62:
            raise UserError(f"{name} does not say how long it is; write it anew, e.g. as WAV")
        return file.frames, file.samplerate, file.channels


def decode_channels(content: bytes, name: str, longest_s: float) -> tuple[NDArray[np.float32], int]:
    """Decode the bytes of a file, with all its channels.

    Args:
        content: of the file.
        name: for messages.
        longest_s: what is longer is not decoded any further.

    Returns:
        (N, C) samples -1..1, and their rate.

    Raises:
        UserError: as ``decode``; a ``TooLongError`` where it is longer.
    """
    with _opened(io.BytesIO(content), name) as file:
        pieces, max_samples = list[NDArray[np.float32]](), longest_s * file.samplerate
        for piece in _blocks(file, 1 << 18, name):
            _mono(piece, name)
            pieces.append(piece)
            if sum(map(len, pieces)) > max_samples:
                seconds = max(file.frames, sum(map(len, pieces))) / file.samplerate
                raise TooLongError(
                    f"{name} is {seconds:,.1f} s long, more than {longest_s:g} s; cut it into utterances"
                )
        return np.concatenate(pieces), file.samplerate


def read_in_pieces(path: Path, seconds: float) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Read a file piece by piece: hours take no more memory than a piece.

    Args:
        path: of the file.
        seconds: of a piece.

    Yields:
        (N,) samples -1..1, the mean of its channels, and their rate.

    Raises:
        UserError: it can't be read; at once, or when the damage is reached.
    """
    try:
        stream = path.open("rb")
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a recording ({FORMATS})") from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}; name a recording ({FORMATS})") from None
    with stream, _opened(stream, str(path)) as file:
        for piece in _blocks(file, max(1, round(seconds * file.samplerate)), str(path)):
            yield _mono(piece, str(path)), file.samplerate


@contextlib.contextmanager
def _opened(stream: BinaryIO, name: str) -> Iterator[Any]:
    try:
        import soundfile
    except ImportError:
        raise UserError("recordings need soundfile; type: pip install soundfile") from None
    except OSError as error:  # its library is not on this system
        raise UserError(f"recordings need libsndfile ({error}); install it, e.g. apt install libsndfile1") from None
    start = stream.read(64)
    stream.seek(0)
    if not start:
        raise UserError(f"{name} is empty; give a recording ({FORMATS})")
    try:
        file = soundfile.SoundFile(_Nameless(stream))
    except (soundfile.LibsndfileError, TypeError) as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise UserError(f"{name} can't be read as sound ({reason}); give {FORMATS}") from None
    # After each piece, soundfile goes to where it is already, and MP3 loses the sound around that place by it.
    file.seekable = lambda: False
    with file:
        yield file


class _Nameless:
    """A stream of bytes, for a reader that would believe the ending of a file's name."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.read, self.tell = stream, stream.read, stream.tell
        self.readinto = stream.readinto  # type: ignore[attr-defined]
        self.write = None

    def seek(self, offset: int, whence: int) -> None:
        """Go to a position; one outside the stream, as in damaged headers, changes nothing; the reader sees that."""
        with contextlib.suppress(ValueError, OSError):
            self.stream.seek(offset, whence)


def _blocks(file: Any, size: int, name: str) -> Iterator[NDArray[np.float32]]:
    """Yield (N, channels) of up to ``size`` frames; what a header promises and the file lacks is not waited for."""
    import soundfile

    size = max(1, min(size, MAX_BLOCK_SAMPLES // file.channels, file.frames))
    empty = True
    while True:
        try:
            piece: NDArray[np.float32] = file.read(size, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise UserError(f"{name} is damaged ({str(error.error_string).rstrip('.')}); get it anew") from None
        if not len(piece):
            break
        empty = False
        yield piece
    if empty:
        raise UserError(f"{name} holds no sound: not one sample stands behind its header; record it again")


def _mono(piece: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    samples: NDArray[np.float32] = piece[:, 0] if piece.shape[1] == 1 else piece.mean(1)
    if not np.isfinite(samples).all():
        raise UserError(f"{name} holds samples that are no numbers (NaN or infinite); write it anew")
    if np.abs(samples).max(initial=0) > LOUDEST:
        raise UserError(f"{name} holds samples of more than {LOUDEST:g}, expected -1 to 1; write it anew")
    return np.ascontiguousarray(samples)
