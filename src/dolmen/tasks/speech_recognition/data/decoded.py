"""Every recording decoded once, at the rate of the network, one after the other in one array.

Reading happens in the calling thread, decoding in a few others (libsndfile and numpy release the GIL); only a handful
is in flight: per worker a few files as they are stored, up to 1 GiB each, and what is decoded of them.

Measured (2 cores, libsndfile 1.2): the 2,700 files of the Free Spoken Digit Dataset, 20 minutes, take 1.3 s.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolmen.data.cache.cache_dir import cache_dir
from dolmen.data.cache.entries import readable_bytes
from dolmen.data.cache.pool import in_pool
from dolmen.data.sources.open import reason_of
from dolmen.processors.audio.files import TooLongError, decode_channels
from dolmen.processors.audio.log_mel import resample
from dolmen.tasks.speech_recognition.data.set import Recordings
from dolmen.tasks.speech_recognition.data.store import Pile
from dolmen.types import MachineError, UserError

MOST_RATE = 16_000
"""Speech has little above half of it."""
PEEKED = 50
"""Recordings whose rate is looked at where none is given."""
CHUNK_RECORDINGS, CHUNK_BYTES = 16, 4_000_000
DIGEST_SIZE = 16
FULL_SCALE = 0.99
"""Samples from here on count as clipped."""
FRAME_S, SPECTRUM = 0.02, 512
OUTSIDE = 1e-6
"""Share of the energy that may lie above the band that a recording fills."""
Chunk = list[tuple[int, "bytes | OSError"]]


@dataclass(frozen=True, eq=False)
class DecodedRecordings:
    """N recordings at one rate, and what they were like before. A problem has no samples, and zeros elsewhere.

    Attributes:
        audio: (M,) int16 samples, one recording after the other.
        starts: (N + 1,) int64 where each begins in ``audio``.
        rate: samples a second.
        rates: (N,) int32 that they came with.
        channels: (N,) int32 that they came with; ``audio`` is their mean.
        peaks: (N,) float32 largest absolute value of any channel, 1 at full scale.
        clipped: (N,) float32 share of samples at full scale.
        rms: (N,) float32 of the mean of the channels.
        ranges_db: (N,) float32 between quiet (a tenth is quieter) and loud moments (a twentieth is louder).
        bands_hz: (N,) float32 the frequency above which there is nothing.
        sides: (N,) float32 how much the channels differ: RMS of that by RMS of their mean.
        digests: (N, 16) uint8, equal for equal samples.
        problems: index to reason, for every recording that can't be used.
        too_long: which of the problems are only too long.
    """

    audio: NDArray[np.int16]
    starts: NDArray[np.int64]
    rate: int
    rates: NDArray[np.int32]
    channels: NDArray[np.int32]
    peaks: NDArray[np.float32]
    clipped: NDArray[np.float32]
    rms: NDArray[np.float32]
    ranges_db: NDArray[np.float32]
    bands_hz: NDArray[np.float32]
    sides: NDArray[np.float32]
    digests: NDArray[np.uint8]
    problems: dict[int, str]
    too_long: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) samples of each recording."""
        return np.diff(self.starts)

    def samples(self, index: int) -> NDArray[np.int16]:
        """(n,) of a recording."""
        return self.audio[self.starts[index] : self.starts[index + 1]]


def decode_recordings(
    recordings: Recordings,
    rate: int | None,
    *,
    progress: Callable[[int, int], None] | None = None,
    longest_s: float = 60.0,
) -> DecodedRecordings:
    """Decode every recording, once.

    Args:
        recordings: are read in storage order, each once.
        rate: that they are brought to; None for the one that most of them have, 16,000 at most.
        progress: called with (done, total) while they are being decoded.
        longest_s: longer ones are problems, and are not held in memory.

    Raises:
        MachineError: the temporary file can't be written.
        UserError: the source stopped giving recordings (an archive that is cut off, a disk that was unplugged).
    """
    wanted = rate if rate is not None else min(_most_common_rate(recordings, longest_s), MOST_RATE)
    num = len(recordings)
    heard: dict[int, _Heard] = {}
    problems: dict[int, str] = {}
    too_long: set[int] = set()
    with Pile() as pile:
        try:
            for done in in_pool(lambda c: _decode_chunk(c, recordings, wanted, longest_s), _chunks(recordings)):
                for index, found in done:
                    if isinstance(found, _Problem):
                        problems[index] = found.reason
                        too_long |= {index} if found.is_long else set()
                    else:
                        pile.add(index, found.samples)
                        heard[index] = found.facts
                if progress is not None:
                    progress(len(heard) + len(problems), num)
            audio, starts = pile.in_order(num)
        except OSError as error:
            raise MachineError(
                f"The decoded recordings ({readable_bytes(pile.num_bytes)}) can't be written to {cache_dir()}"
                f" ({error.strerror or error}): free some space or set DOLMEN_CACHE to a folder on another disk."
            ) from error
    problems |= {i: "missing from the source" for i in range(num) if i not in heard and i not in problems}
    nothing = _Heard(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, bytes(DIGEST_SIZE))
    rows = [heard.get(i, nothing) for i in range(num)]
    columns: dict[str, Any] = {
        name: np.array([getattr(row, name) for row in rows], np.int32 if name in ("rates", "channels") else np.float32)
        for name in _Heard._fields[:-1]
    }
    digests = np.frombuffer(b"".join(row.digest for row in rows), np.uint8).reshape(-1, DIGEST_SIZE)
    return DecodedRecordings(audio, starts, wanted, **columns, digests=digests, problems=problems,
                             too_long=frozenset(too_long))  # fmt: skip


class _Heard(NamedTuple):
    """What a recording was like; see ``DecodedRecordings``."""

    rates: int
    channels: int
    peaks: float
    clipped: float
    rms: float
    ranges_db: float
    bands_hz: float
    sides: float
    digest: bytes


class _Found(NamedTuple):
    samples: NDArray[np.int16]
    facts: _Heard


class _Problem(NamedTuple):
    reason: str
    is_long: bool = False


def _most_common_rate(recordings: Recordings, longest_s: float) -> int:
    """The rate of most of some recordings; they are spread evenly."""
    names = [item.name for item in recordings.items]
    rates: Counter[int] = Counter()
    for name, content in recordings.source.read(names[:: -(-len(names) // PEEKED) or 1]):
        if isinstance(content, bytes):
            try:
                rates[decode_channels(content, name, longest_s)[1]] += 1
            except UserError:
                continue
    return rates.most_common(1)[0][0] if rates else MOST_RATE


def _chunks(recordings: Recordings) -> Iterator[Chunk]:
    """Read the recordings in storage order, some at a time."""
    places = {item.name: i for i, item in enumerate(recordings.items)}
    chunk: Chunk = []
    num_bytes = 0
    files = iter(recordings.source.read(list(places)))
    while True:
        try:
            name, content = next(files)
        except StopIteration:
            break
        except OSError as error:
            raise UserError(
                f"{recordings.name} could not be read to its end ({error.strerror or error}): check that it is "
                "complete and try again."
            ) from error
        chunk.append((places[name], content))
        num_bytes += len(content) if isinstance(content, bytes) else 0
        if len(chunk) >= CHUNK_RECORDINGS or num_bytes >= CHUNK_BYTES:
            yield chunk
            chunk, num_bytes = [], 0
    if chunk:
        yield chunk


def _decode_chunk(
    chunk: Chunk, recordings: Recordings, rate: int, longest_s: float
) -> list[tuple[int, _Found | _Problem]]:
    found: list[tuple[int, _Found | _Problem]] = []
    for index, content in chunk:
        name = recordings.items[index].name
        if isinstance(content, OSError):
            found.append((index, _Problem(f"can't be opened: {reason_of(content)}")))
            continue
        try:
            found.append((index, _hear(*decode_channels(content, name, longest_s), rate)))
        except UserError as error:  # its sentence names the file, and says what to do with this one
            reason = str(error).removeprefix(f"{name} ").partition(";")[0]
            found.append((index, _Problem(reason, isinstance(error, TooLongError))))
    return found


def _hear(channels: NDArray[np.float32], native: int, rate: int) -> _Found:
    """Samples (N, C) to those at the rate, and what they are like."""
    mean = channels.mean(1)
    samples = to_int16(resample(np.ascontiguousarray(mean), native, rate))
    loud, rms = np.abs(channels), float(np.sqrt(np.square(mean, dtype=np.float64).mean()))
    differ = float(np.sqrt(np.square(channels - mean[:, None], dtype=np.float64).mean()))
    facts = _Heard(
        rates=native, channels=channels.shape[1], peaks=float(loud.max()), clipped=float((loud >= FULL_SCALE).mean()),
        rms=rms, ranges_db=_range_db(mean, native), bands_hz=_band_hz(mean, native),
        sides=differ / rms if rms else float(differ > 0),
        digest=hashlib.blake2b(samples.tobytes(), digest_size=DIGEST_SIZE).digest(),
    )  # fmt: skip
    return _Found(samples, facts)


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """(N,) of -1..1 as 16-bit numbers."""
    found: NDArray[np.int16] = np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype(np.int16)
    return found


def _range_db(samples: NDArray[np.float32], rate: int) -> float:
    """Between quiet and loud frames."""
    size = max(1, round(FRAME_S * rate))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    if not len(frames):
        return 0.0
    db = 10 * np.log10(np.square(frames).mean(1) + 1e-10)
    quiet, loud = np.quantile(db, (0.1, 0.95))
    return float(loud - quiet)


def _band_hz(samples: NDArray[np.float32], rate: int) -> float:
    """The frequency above which there is nothing, by the mean of spectra."""
    num = max(1, len(samples) // SPECTRUM)
    filled = np.resize(np.pad(samples, (0, max(0, SPECTRUM - len(samples)))), (num, SPECTRUM))
    power = np.square(np.abs(np.fft.rfft(filled * np.hanning(SPECTRUM).astype(np.float32)))).mean(0)
    above = np.cumsum(power[::-1])[::-1]
    if above[0] <= 0:
        return 0.0
    return float((above > OUTSIDE * above[0]).sum() / len(power) * rate / 2)
