"""Sound to what networks read: one channel, one sampling rate, log-mel frames; whole or as a stream. numpy only.

Nothing here looks for values that are no numbers (NaN, infinite): they spoil the frames that they fall into, and what
is near them at another rate. Who takes sound from outside refuses them before it comes here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dolmen.processors.audio.resampling import Resampler, resample
from dolmen.types import UserError

__all__ = ["FeatureStream", "LogMel", "Resampler", "mono", "resample"]

Floats = NDArray[np.float32]

CHUNK_FRAMES = 256
"""Frames that are computed together: their spectra fit into a processor's cache."""
ROWS = 8
"""Frames that one matrix product takes, always: BLAS adds up in another order where there are more or fewer."""

FULL_SCALE = {"int8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31, "uint8": 2.0**7}


class LogMel(BaseModel):
    """Logarithms of the energy in bands of equal width on the mel scale, from frame to frame.

    A frame covers ``window_size`` samples and begins ``hop`` after the one before; there is none that reaches over the
    end ("snip edges", ``center=False``). Fractions of a sample in ``window_s`` and ``hop_s`` are cut off.

    Attributes:
        rate: samples a second.
        num_mels: F, how many bands.
        window_s: length of a frame, in seconds.
        hop_s: from frame to frame; at most ``window_s``.
        low_hz: where the first band begins.
        high_hz: where the last one ends; None for half the rate.
        window: "hann" is periodic, as librosa's; "povey" (a symmetric Hann window to the power of 0.85) and "hamming"
            are symmetric, as Kaldi's.
        mel: the scale of HTK and Kaldi, or of Slaney's Auditory Toolbox.
        triangles: whether the slopes of the bands are straight over mels (Kaldi) or over Hz (librosa).
        slaney_norm: each band is divided by half its width in Hz.
        preemphasis: the share of the sample before that is taken off each sample.
        remove_dc: take the mean off each frame, before ``preemphasis``.
        scale: samples are multiplied by it; Kaldi's are 16-bit numbers.
        floor: least energy.
        fft: samples that are transformed, even; frames are filled up with zeros. None: the next power of two.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rate: int = Field(16000, ge=1)
    num_mels: int = Field(40, ge=1)
    window_s: float = Field(0.025, gt=0)
    hop_s: float = Field(0.010, gt=0)
    low_hz: float = Field(20.0, ge=0)
    high_hz: float | None = Field(None, gt=0)
    window: Literal["povey", "hann", "hamming"] = "povey"
    mel: Literal["htk", "slaney"] = "htk"
    triangles: Literal["mel", "hz"] = "mel"
    slaney_norm: bool = False
    preemphasis: float = Field(0.97, ge=0, le=1)
    remove_dc: bool = True
    scale: float = Field(32768.0, gt=0)
    floor: float = Field(1.1920929e-07, gt=0)
    fft: int | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window_size < 2 or self.hop < 1:
            raise ValueError(
                f"windows of {self.window_s:g} s every {self.hop_s:g} s are {self.window_size} and {self.hop} samples "
                f"at {self.rate} Hz; a window needs 2, and the way to the next one 1"
            )
        if self.hop > self.window_size:
            raise ValueError(
                f"windows of {self.window_s:g} s every {self.hop_s:g} s leave gaps; give hop_s of at most window_s"
            )
        if self.low_hz >= self._high_hz or self._high_hz > self.rate / 2:
            raise ValueError(
                f"bands from {self.low_hz:g} to {self._high_hz:g} Hz are not within 0 and {self.rate / 2:g} Hz, half "
                "the sampling rate; give others as low_hz and high_hz"
            )
        if self._fft < self.window_size or self._fft % 2:
            raise ValueError(
                f"a transform of {self._fft} samples was asked for; it takes an even number, and at least the "
                f"{self.window_size} of a window"
            )
        filled = self.bank().any(0)
        if not filled.all():
            at = int(filled.argmin())
            raise ValueError(
                f"{self.num_mels} bands are too many for a transform of {self._fft} samples at {self.rate} Hz: none of "
                f"its frequencies falls into the band at {self._edges_hz(1.0)[at + 1]:.0f} Hz; give fewer bands, or a "
                "larger fft"
            )
        return self

    @classmethod
    def kaldi(cls, rate: int = 16000, num_mels: int = 40, **more: Any) -> Self:
        """The features of Kaldi's compute-fbank-feats without dither.

        Args:
            rate: samples a second.
            num_mels: how many bands.
            more: other attributes.

        Raises:
            UserError: they don't go together.
        """
        return cls._validated({"rate": rate, "num_mels": num_mels, **more})

    @classmethod
    def librosa(cls, rate: int = 16000, num_mels: int = 40, **more: Any) -> Self:
        """The logarithm of librosa's ``feature.melspectrogram`` with ``center=False`` and ``n_fft`` of a window.

        With an ``fft`` above the window librosa puts the window into the middle of it; here it stands at the beginning.
        The numbers are the same, of frames that begin half of the difference earlier.

        Args:
            rate: samples a second.
            num_mels: how many bands.
            more: other attributes.

        Raises:
            UserError: they don't go together.
        """
        size = _whole(rate * more.get("window_s", 0.025))
        values = {
            "low_hz": 0.0, "window": "hann", "mel": "slaney", "triangles": "hz", "slaney_norm": True,
            "preemphasis": 0.0, "remove_dc": False, "scale": 1.0, "floor": 1e-10, "fft": size + size % 2,
        }  # fmt: skip
        return cls._validated({"rate": rate, "num_mels": num_mels, **values, **more})

    @classmethod
    def _validated(cls, values: dict[str, Any]) -> Self:
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ")
            raise UserError(f"{where}: {message}" if where else message) from None

    @property
    def window_size(self) -> int:
        """Samples of a frame."""
        return _whole(self.rate * self.window_s)

    @property
    def hop(self) -> int:
        """Samples from the beginning of a frame to that of the next."""
        return _whole(self.rate * self.hop_s)

    @property
    def _fft(self) -> int:
        return 1 << (self.window_size - 1).bit_length() if self.fft is None else self.fft

    @property
    def _high_hz(self) -> float:
        return self.rate / 2 if self.high_hz is None else self.high_hz

    def num_frames(self, num_samples: int) -> int:
        """Frames of a recording of so many samples; what is shorter than a window is filled up to one with zeros."""
        return 1 + max(0, num_samples - self.window_size) // self.hop

    def window_values(self) -> Floats:
        """(W,) what the samples of a frame are multiplied by."""
        n = self.window_size
        turn = 2 * np.pi * np.arange(n) / (n if self.window == "hann" else n - 1)
        if self.window == "hamming":
            return (0.54 - 0.46 * np.cos(turn)).astype(np.float32)
        hann = np.maximum(0.5 - 0.5 * np.cos(turn), 0)
        return (hann if self.window == "hann" else hann**0.85).astype(np.float32)

    def bank(self, warp: float = 1.0) -> Floats:
        """(fft // 2 + 1, F) weights of the frequencies of a spectrum in each band.

        Args:
            warp: the bands are moved as if the speaker's vocal tract were so many times shorter: what was at f Hz is
                found where f * ``warp`` was. Towards both ends of the range it moves less, and the ends stay (the
                piecewise linear warp of Kaldi's VTLN, with its default cutoffs where the range is 20 Hz to half of
                3 kHz or more).

        Raises:
            ValueError: ``warp`` is not within 0.5 and 2, or too large for a narrow range.
        """
        edges = self._edges_hz(warp)
        hz = np.arange(self._fft // 2 + 1, dtype=np.float64) * self.rate / self._fft
        at, ends = (hz, edges) if self.triangles == "hz" else (_mel(hz, self.mel), _mel(edges, self.mel))
        left, centre, right = ends[:-2], ends[1:-1], ends[2:]
        rise, fall = (at[:, None] - left) / (centre - left), (right - at[:, None]) / (right - centre)
        weights = np.maximum(np.minimum(rise, fall), 0)
        if self.slaney_norm:
            weights *= 2 / (edges[2:] - edges[:-2])
        return weights.astype(np.float32)

    def _edges_hz(self, warp: float) -> NDArray[np.float64]:
        """(F + 2,) where bands begin, culminate and end: each begins at the middle of the one before."""
        low, high = self.low_hz, self._high_hz
        mels = _mel(np.array([low, high]), self.mel)
        edges = _hz(np.linspace(mels[0], mels[1], self.num_mels + 2), self.mel)
        if warp == 1:
            return edges
        first, last = low + min(80.0, (high - low) / 20), high - min(500.0, (high - low) / 3)
        first, last = first * max(1.0, warp), last * min(1.0, warp)
        if not 0.5 <= warp <= 2 or first >= last:
            raise ValueError(f"a warp of {warp:g} is not possible between {low:g} and {high:g} Hz")
        return np.interp(edges, [low, first, last, high], [low, first / warp, last / warp, high])

    def features(self, samples: Floats, warp: float = 1.0) -> Floats:
        """(T, F) natural logarithms of a whole recording; beyond them, memory does not grow with its length.

        Args:
            samples: (N,) from -1 to 1, at ``rate``; of none at all there is one frame of silence.
            warp: see ``bank``.

        Raises:
            ValueError: see ``bank``.
        """
        samples = np.asarray(samples, np.float32)
        missing = self.window_size - len(samples)
        if missing > 0:
            samples = np.pad(samples, (0, missing))
        return self._frames(samples, None if warp == 1 else self.bank(warp))

    def stream(self) -> FeatureStream:
        """The same of samples that come in pieces."""
        return FeatureStream(self)

    def _frames(self, samples: Floats, bank: Floats | None = None) -> Floats:
        """(T, F) of the frames that (N,) samples complete, N at least a window; without a warp unless in ``bank``."""
        window, usual = _tables(self)
        num_frames = self.num_frames(len(samples))
        energies = np.empty((num_frames, self.num_mels), np.float32)
        for start in range(0, num_frames, CHUNK_FRAMES):
            stop = min(num_frames, start + CHUNK_FRAMES)
            piece = samples[start * self.hop : (stop - 1) * self.hop + self.window_size]
            energies[start:stop] = self._energies(piece, window, usual if bank is None else bank)
        np.maximum(energies, np.float32(self.floor), out=energies)
        return np.log(energies, out=energies)

    def _energies(self, samples: Floats, window: Floats, bank: Floats) -> Floats:
        """(T, F) energies of the bands."""
        num_frames = self.num_frames(len(samples))
        share = np.float32(self.preemphasis)
        scaled = samples * np.float32(self.scale)
        emphasised = scaled.copy()
        emphasised[1:] -= share * scaled[:-1]
        cut = np.lib.stride_tricks.sliding_window_view
        raw, frames = (cut(x, self.window_size)[:: self.hop] for x in (scaled, emphasised))
        # The mean is taken off first by definition; that it passes the filter alike saves a pass over all frames.
        complement = np.float32(1) - share
        means = complement * raw.mean(1, keepdims=True) if self.remove_dc else np.zeros((num_frames, 1), np.float32)
        frames = frames - means
        # In each frame for itself: its first sample has none before it.
        frames[:, 0] = complement * raw[:, 0] - means[:, 0]
        frames *= window
        spectrum = np.fft.rfft(frames, n=self._fft)
        parts = np.square(spectrum.view(np.float32)).reshape(num_frames, len(bank), 2)
        power = np.zeros((-(-num_frames // ROWS) * ROWS, len(bank)), np.float32)
        np.add(parts[:, :, 0], parts[:, :, 1], out=power[:num_frames])
        energies: Floats = (power.reshape(-1, ROWS, len(bank)) @ bank).reshape(-1, bank.shape[1])
        return energies[:num_frames]


@functools.lru_cache(maxsize=16)
def _tables(front: LogMel) -> tuple[Floats, Floats]:
    """Window and bank. They are not kept in the model: two models whose dictionaries hold arrays can't be compared."""
    return front.window_values(), front.bank()


class FeatureStream:
    """Samples in pieces of any size to the frames that they complete: those of ``LogMel.features`` on the whole.

    It holds less than a window of samples.

    Args:
        front: what is computed.
    """

    def __init__(self, front: LogMel) -> None:
        self.front = front
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.held, self.num_frames = np.zeros(0, np.float32), 0

    def feed(self, samples: Floats) -> Floats:
        """(N,) samples to (t, F) frames."""
        front = self.front
        self.held = np.concatenate([self.held, np.asarray(samples, np.float32)])
        if len(self.held) < front.window_size:
            return np.zeros((0, front.num_mels), np.float32)
        frames = front._frames(self.held)
        self.held = self.held[len(frames) * front.hop :].copy()
        self.num_frames += len(frames)
        return frames

    def finish(self) -> Floats:
        """(1, F) if no frame came yet: the recording filled up with zeros; else (0, F). It begins anew after it."""
        samples, short = self.held, not self.num_frames
        self.reset()
        return self.front.features(samples) if short else np.zeros((0, self.front.num_mels), np.float32)

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        """All that it has in mind: ``samples`` (n,) float32 and ``counts`` (1,) int64, the frames so far.

        Setting it goes on where it was read, and raises ValueError, KeyError or TypeError where it can't be one.
        """
        return {"samples": self.held.copy(), "counts": np.array([self.num_frames], np.int64)}

    @state.setter
    def state(self, state: Mapping[str, NDArray[Any]]) -> None:
        held, (num_frames,) = np.array(state["samples"], np.float32), state["counts"]
        if held.ndim != 1 or len(held) >= self.front.window_size or num_frames < 0:
            raise ValueError("the state of this stream is damaged")
        self.held, self.num_frames = held, int(num_frames)


def mono(samples: NDArray[Any]) -> Floats:
    """The mean of all channels.

    Args:
        samples: (N,), or (N, channels): floats are taken as they are; int8, int16 and int32 are divided by their full
            scale (24 bits in 32 stand in the upper ones, as readers of WAV files put them); of uint8, 128 is silence.

    Returns:
        (N,) from -1 to 1.

    Raises:
        UserError: they have another shape or type.
    """
    dtype = samples.dtype.name
    if samples.ndim not in (1, 2) or 0 in samples.shape[1:]:
        shape = " x ".join(map(str, samples.shape)) or "a single number"
        raise UserError(f"samples were expected as (N,) or (N, channels), not as {shape}")
    if samples.dtype.kind != "f" and dtype not in FULL_SCALE:
        raise UserError(
            f"samples of the type {dtype} were given; give floats from -1 to 1, or int8, int16, int32 or uint8"
        )
    values: Floats = samples.astype(np.float32)
    if dtype == "uint8":
        values -= 128
    if dtype in FULL_SCALE:
        values /= np.float32(FULL_SCALE[dtype])
    return values if values.ndim == 1 else values.mean(1)


def _whole(value: float) -> int:
    """Cut off the fraction; a little below a whole number is that number (0.029 * 1000 is 29.0 less a rounding)."""
    return int(value + 1e-6)


def _mel(hz: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    """Frequencies on a mel scale."""
    if scale == "htk":
        return 1127 * np.log1p(hz / 700)
    # 200 / 3 Hz each up to 1 kHz, then 27 of them for a factor of 6.4 (Slaney, 1998).
    return np.where(hz < 1000, 0.015 * hz, 15 + 27 / math.log(6.4) * np.log(np.maximum(hz, 1000) / 1000))


def _hz(mels: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    """Undo ``_mel``."""
    if scale == "htk":
        return 700 * np.expm1(mels / 1127)
    return np.where(mels < 15, mels / 0.015, 1000 * np.exp((mels - 15) * (math.log(6.4) / 27)))
