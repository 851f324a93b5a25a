"""Every recording decoded once, at the rate of the network, into memory-mapped files that later runs reuse.

Reading happens in the calling thread, decoding in a few others (libsndfile and numpy release the GIL); only a handful
is in flight: per worker a few files as they are stored, up to 1 GiB each, and what is decoded of them.

Measured (2 cores, libsndfile 1.2): the 2,700 files of the Free Spoken Digit Dataset, 20 minutes, take 1.3 s.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolmen.data.cache.cache_dir import cache_dir
from dolmen.data.cache.columns import Column, RaggedColumn
from dolmen.data.cache.entries import Columns, Entry, EntryWriter
from dolmen.data.cache.pool import in_chunks, in_pool
from dolmen.data.cache.store import open_or_fill
from dolmen.data.ragged import Ragged
from dolmen.data.sources.open import reason_of
from dolmen.processors.audio.files import TooLongError, decode_channels
from dolmen.processors.audio.log_mel import resample
from dolmen.tasks.speech_recognition.data.set import Recordings
from dolmen.types import UserError

FORMAT = 1  # raise it when the meaning of any stored column changes
MAX_RATE = 16_000
"""In Hz; speech has little above half of it."""
MAX_RATE_SAMPLES = 50
"""Recordings that are decoded to choose a rate where none is given."""
CHUNK_RECORDINGS, CHUNK_BYTES = 16, 4_000_000
DIGEST_SIZE = 16
CLIPPING_LEVEL = 0.99
"""Samples from here on count as clipped."""
FRAME_S, SPECTRUM_SAMPLES = 0.02, 512
MAX_OUT_OF_BAND_SHARE = 1e-6
"""Share of a recording's energy that may lie above its band."""
Chunk = list[tuple[int, "bytes | OSError"]]


@dataclass(frozen=True, eq=False)
class DecodedRecordings:
    """N recordings at one rate, with measures of the originals; one with a problem has no samples, and zeros elsewhere.

    Attributes:
        audio: N rows of int16 samples; memory-mapped.
        rate: samples a second.
        rates: (N,) int32 of the originals.
        channels: (N,) int32 of the originals; ``audio`` is their mean.
        peaks: (N,) float32 largest absolute value of any channel, 1 at full scale.
        clipped: (N,) float32 share of samples at full scale.
        rms: (N,) float32 of the mean of the channels.
        ranges_db: (N,) float32 decibels between quiet (a tenth is quieter) and loud moments (a twentieth is louder).
        bands_hz: (N,) float32 frequency above which there is next to no energy.
        sides: (N,) float32 RMS of the channels' differences from their mean, divided by the RMS of the mean.
        digests: (N, 16) uint8, equal for equal samples.
        problems: index to reason, for every recording that can't be used.
        too_long: indices of the problems that are too long, and nothing else.
    """

    audio: Ragged
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
        return len(self.audio)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) samples of each recording."""
        return self.audio.lengths

    def samples(self, index: int) -> NDArray[np.int16]:
        """(n,) of a recording."""
        return self.audio[index]


def decode_recordings(
    recordings: Recordings,
    rate: int | None,
    *,
    progress: Callable[[int, int], None] | None = None,
    longest_s: float = 60.0,
) -> DecodedRecordings:
    """Decode every recording once, or open what an earlier run decoded.

    Args:
        recordings: are read in storage order, each once.
        rate: to resample to; None for the most common one, 16,000 at most.
        progress: called with (done, total) while they are being decoded.
        longest_s: longer ones are problems, and are not held in memory.

    Raises:
        MachineError: the disk is too full, or the cache can't be written. Nothing half-written stays.
        UserError: the source stopped giving recordings (an archive that is cut off, a disk that was unplugged).
    """
    names = [item.name for item in recordings.items]
    key = (FORMAT, recordings.source.fingerprint(names), names, longest_s)
    chosen = rate if rate is not None else _most_common_rate(recordings, key, longest_s)
    return open_or_fill(
        _entry(*key, chosen), _columns(len(names)),
        lambda writer: _decode_into(writer, recordings, chosen, longest_s, progress),
        lambda entry: _reuse(entry, recordings, chosen), "the decoded recordings",
    )  # fmt: skip


def _entry(*key: Any) -> Path:
    digest = hashlib.blake2b(repr(key).encode(errors="surrogateescape"), digest_size=DIGEST_SIZE)
    return cache_dir() / "recordings" / digest.hexdigest()


def _columns(num: int) -> Columns:
    measures = {name: Column("<f4", (num,)) for name in _Measures._fields}
    return {
        "audio": RaggedColumn("<i2", num), "rates": Column("<i4", (num,)), "channels": Column("<i4", (num,)),
        "digests": Column("u1", (num, DIGEST_SIZE)), **measures,
    }  # fmt: skip


def _reuse(entry: Entry, recordings: Recordings, rate: int) -> DecodedRecordings | None:
    """Take what an entry holds unless it is damaged, or a recording that could not be opened then can be now."""
    try:
        problems = {int(i): str(reason) for i, reason in entry.facts["problems"]}
        too_long = frozenset(int(i) for i in entry.facts["too_long"])
        not_opened = [recordings.items[int(i)].name for i in entry.facts["not_opened"]]
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    if not_opened and any(not isinstance(content, OSError) for _, content in recordings.source.read(not_opened)):
        return None
    return DecodedRecordings(entry.ragged["audio"], rate, **entry.arrays, problems=problems, too_long=too_long)


def _decode_into(
    writer: EntryWriter,
    recordings: Recordings,
    rate: int,
    longest_s: float,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Decode all recordings in a small pool, write their rows, and return the facts about them."""
    num, names = len(recordings), [item.name for item in recordings.items]
    places = {name: i for i, name in enumerate(names)}
    problems: dict[int, _Problem] = {}
    files = ((places[name], content) for name, content in recordings.source.read(names))
    chunks = in_chunks(files, recordings.name, CHUNK_RECORDINGS, CHUNK_BYTES)
    decoded = np.zeros(num, np.bool_)
    for chunk in in_pool(lambda c: _decode_chunk(c, recordings, rate, longest_s), chunks):
        problems |= {i: result for i, result in chunk if isinstance(result, _Problem)}
        successes = [(i, result) for i, result in chunk if isinstance(result, _Decoded)]
        indices = np.array([i for i, _ in successes], np.int64)
        decoded[indices] = True
        for index, result in successes:
            writer.append("audio", index, result.samples)
        for name in _Measures._fields:
            writer.write(name, indices, np.array([getattr(r.measures, name) for _, r in successes], np.float32))
        writer.write("rates", indices, np.array([r.rate for _, r in successes], np.int32))
        writer.write("channels", indices, np.array([r.channels for _, r in successes], np.int32))
        digests = np.frombuffer(b"".join(r.digest for _, r in successes), np.uint8)
        writer.write("digests", indices, digests.reshape(-1, DIGEST_SIZE))
        if progress is not None:
            progress(int(decoded.sum()) + len(problems), num)
    for index in np.flatnonzero(~decoded).tolist():
        problems.setdefault(index, _Problem("missing from the source"))
    return {
        "problems": sorted((i, p.reason) for i, p in problems.items()),
        "too_long": sorted(i for i, p in problems.items() if p.is_long),
        "not_opened": sorted(i for i, p in problems.items() if p.is_closed),
    }


class _Measures(NamedTuple):
    """Measures of an original recording, as ``DecodedRecordings`` has them of all."""

    peaks: float
    clipped: float
    rms: float
    ranges_db: float
    bands_hz: float
    sides: float


class _Decoded(NamedTuple):
    samples: NDArray[np.int16]
    rate: int
    channels: int
    digest: bytes
    measures: _Measures


class _Problem(NamedTuple):
    reason: str
    is_long: bool = False
    is_closed: bool = False


def _most_common_rate(recordings: Recordings, key: tuple[Any, ...], longest_s: float) -> int:
    """The most common rate of some recordings, spread evenly; it is cached, since it takes decoding."""

    def count_rates(writer: EntryWriter) -> dict[str, Any]:
        del writer
        names = [item.name for item in recordings.items]
        rates: Counter[int] = Counter()
        for name, content in recordings.source.read(names[:: -(-len(names) // MAX_RATE_SAMPLES) or 1]):
            if isinstance(content, bytes):
                try:
                    rates[decode_channels(content, name, longest_s)[1]] += 1
                except UserError:
                    continue
        return {"rate": min(rates.most_common(1)[0][0], MAX_RATE) if rates else MAX_RATE}

    def reuse(entry: Entry) -> int | None:
        rate = entry.facts.get("rate")
        return rate if isinstance(rate, int) and rate > 0 else None

    return open_or_fill(_entry(*key, "rate"), {}, count_rates, reuse, "the rate of the recordings")


def _decode_chunk(
    chunk: Chunk, recordings: Recordings, rate: int, longest_s: float
) -> list[tuple[int, _Decoded | _Problem]]:
    results: list[tuple[int, _Decoded | _Problem]] = []
    for index, content in chunk:
        name = recordings.items[index].name
        if isinstance(content, OSError):
            results.append((index, _Problem(f"can't be opened: {reason_of(content)}", is_closed=True)))
            continue
        try:
            results.append((index, _resample_and_measure(*decode_channels(content, name, longest_s), rate)))
        except UserError as error:  # its sentence names the file, and says what to do with this one
            reason = str(error).removeprefix(f"{name} ").partition(";")[0]
            results.append((index, _Problem(reason, isinstance(error, TooLongError))))
    return results


def _resample_and_measure(channels: NDArray[np.float32], own_rate: int, rate: int) -> _Decoded:
    """Resample (N, C) samples to the rate, and measure them."""
    mean = channels.mean(1)
    samples = to_int16(resample(np.ascontiguousarray(mean), own_rate, rate))
    magnitudes, rms = np.abs(channels), float(np.sqrt(np.square(mean, dtype=np.float64).mean()))
    side_rms = float(np.sqrt(np.square(channels - mean[:, None], dtype=np.float64).mean()))
    measures = _Measures(
        peaks=float(magnitudes.max()), clipped=float((magnitudes >= CLIPPING_LEVEL).mean()), rms=rms,
        ranges_db=_range_db(mean, own_rate), bands_hz=_band_hz(mean, own_rate),
        sides=side_rms / rms if rms else float(side_rms > 0),
    )  # fmt: skip
    digest = hashlib.blake2b(samples.tobytes(), digest_size=DIGEST_SIZE).digest()
    return _Decoded(samples, own_rate, channels.shape[1], digest, measures)


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """(N,) of -1..1 as 16-bit numbers."""
    whole: NDArray[np.int16] = np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype(np.int16)
    return whole


def _range_db(samples: NDArray[np.float32], rate: int) -> float:
    """Decibels between quiet and loud frames."""
    size = max(1, round(FRAME_S * rate))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    if not len(frames):
        return 0.0
    db = 10 * np.log10(np.square(frames).mean(1) + 1e-10)
    quiet, loud = np.quantile(db, (0.1, 0.95))
    return float(loud - quiet)


def _band_hz(samples: NDArray[np.float32], rate: int) -> float:
    """The frequency above which there is next to no energy, by the mean of spectra."""
    num = max(1, len(samples) // SPECTRUM_SAMPLES)
    filled = np.resize(np.pad(samples, (0, max(0, SPECTRUM_SAMPLES - len(samples)))), (num, SPECTRUM_SAMPLES))
    power = np.square(np.abs(np.fft.rfft(filled * np.hanning(SPECTRUM_SAMPLES).astype(np.float32)))).mean(0)
    above = np.cumsum(power[::-1])[::-1]
    if above[0] <= 0:
        return 0.0
    return float((above > MAX_OUT_OF_BAND_SHARE * above[0]).sum() / len(power) * rate / 2)
