"""What models take: how an input comes, what it may cost, and what a piece of a stream is."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from dolmen.processors.audio.files import size_of
from dolmen.processors.images.image import FORMATS
from dolmen.runtime.microphone import from_int16
from dolmen.runtime.server.limits import Limits
from dolmen.types import UserError

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176400, 192000)
"""In Hz, of streams: each other one would need a filter of its own."""
MAX_PIECE_S = 30.0
"""Seconds of sound that may come as one message."""
FULL_SAMPLES_PER_S = 2 * 48000
"""Samples of all channels that count as a second of sound, where a second has more than these."""
MS_PER_S = 1000


@dataclass(frozen=True)
class InputType:
    """What a model takes.

    Attributes:
        singular: what an input is called.
        plural: what inputs are called where schemas are named.
        media: types of a body that is one input.
        is_file: whether an input is the bytes of a file; else it is a text.
        stream_form: how pieces of a stream come.
        piece: a binary message of a stream -> what a session takes; given its rate, too. It raises UserError for one
            that costs too much.
        stream_rate: samples a second of a stream's messages, as the model's processor says; None of what has no rate.
        weigh: what an input costs; it raises UserError for one that costs too much.
        max_weight: what inputs that are computed together may cost.
    """

    singular: str
    plural: str
    media: tuple[str, ...]
    is_file: bool
    stream_form: str
    piece: Callable[[bytes, int | None, Limits], Any]
    weigh: Callable[[Any, Limits], int]
    max_weight: Callable[[Limits], int]
    stream_rate: Callable[[Any], int | None] = lambda processor: None

    def fits(self, media: str) -> bool:
        """Whether a body of this type is one input."""
        return any(media == m or (m.endswith("/*") and media.startswith(m[:-1])) for m in self.media)


def num_pixels(content: bytes, limits: Limits) -> int:
    """The pixels of a picture file, from its header; 1 for what is no picture, since the model says that better.

    Raises:
        UserError: they are more than ``max_pixels``: a few kilobytes of file can hold gigabytes of zeros.
    """
    large = UserError(f"the picture has more than {limits.max_pixels / 1e6:g} megapixels; send a smaller one")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            num: int = image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise large from None
    except Exception:  # Pillow's readers of headers raise anything
        return 1
    if num > limits.max_pixels:
        raise large
    return max(1, num)


def num_milliseconds(content: bytes, limits: Limits) -> int:
    """The length of a recording, from its file's header; more where a second has more samples than a recording's.

    Raises:
        UserError: they are more than ``max_seconds``, and a few kilobytes can hold hours of silence; its rate is beyond
            all of ``RATES``; or it can't be read.
    """
    frames, rate, channels = size_of(content, "the recording")
    if frames > limits.max_seconds * rate:
        raise UserError(
            f"the recording is {frames / rate:,.0f} s long, the most is {limits.max_seconds:g} s; send it in parts, or "
            "stream it"
        )
    if rate > RATES[-1]:
        raise UserError(f"the recording has {rate:,} samples a second, the most is {RATES[-1]:,}; send it at 16,000")
    if frames * channels > limits.max_seconds * FULL_SAMPLES_PER_S:
        raise UserError(
            f"the recording has {frames * channels:,} samples in {channels} channels, the most is "
            f"{limits.max_seconds * FULL_SAMPLES_PER_S:,.0f}; send one channel of it"
        )
    return max(1, round(MS_PER_S * max(frames / rate, frames * channels / FULL_SAMPLES_PER_S)))


def num_characters(text: Any, limits: Limits) -> int:
    """The characters of a text, or of the words of one."""
    del limits  # it was within them when it came
    return len(text) if isinstance(text, str) else sum(map(len, text))


def samples_of(content: bytes, rate: int) -> Any:
    """The samples in a message of a stream: 16-bit, little-endian, of one channel.

    Args:
        content: of the message.
        rate: in Hz.

    Returns:
        (N,) from -1 to 1.

    Raises:
        UserError: half a sample, or more than ``MAX_PIECE_S``.
    """
    if len(content) % 2:
        raise UserError(f"a message of {len(content):,} bytes is not one of 16-bit samples; send an even number")
    if len(content) > 2 * MAX_PIECE_S * rate:
        seconds = len(content) / 2 / rate
        raise UserError(f"a message of {seconds:,.0f} s of sound, the most is {MAX_PIECE_S:g} s; send it in parts")
    return from_int16(content)


def rate_of(value: Any) -> int:
    """The sampling rate of a stream, as it came.

    Raises:
        UserError: it is none of ``RATES``.
    """
    if type(value) is not int or value not in RATES:
        rates = ", ".join(map(str, RATES))
        raise UserError(f"rate must be one of {rates} samples a second")
    return value


def whole_picture(content: bytes, rate: int | None, limits: Limits) -> bytes:
    """The picture's file in a message of a stream.

    Raises:
        UserError: it has too many pixels.
    """
    del rate
    num_pixels(content, limits)
    return content


def samples_and_rate(content: bytes, rate: int | None, limits: Limits) -> tuple[Any, int]:
    """The samples in a message of a stream, with their rate."""
    del limits
    assert rate is not None
    return samples_of(content, rate), rate


def no_bytes(content: bytes, rate: int | None, limits: Limits) -> Any:
    """A message of a stream of texts, which come as JSON; binary ones are refused before."""
    raise NotImplementedError


INPUT_TYPES = {
    "picture": InputType(
        "a picture", "Pictures", ("image/*", "application/octet-stream"), True, "as binary messages, a file each",
        piece=whole_picture, weigh=num_pixels, max_weight=lambda limits: limits.max_pixels,
    ),
    "recording": InputType(
        "a recording", "Recordings", ("audio/*", "application/octet-stream"), True,
        "as binary messages of 16-bit samples", piece=samples_and_rate, weigh=num_milliseconds,
        max_weight=lambda limits: round(MS_PER_S * limits.max_seconds), stream_rate=lambda processor: processor.rate,
    ),
    "text": InputType(
        "a text", "Texts", ("text/plain",), False, 'as {"feed": text}', piece=no_bytes, weigh=num_characters,
        max_weight=lambda limits: limits.max_characters,
    ),
}  # fmt: skip
