"""Samples at one rate to samples at another: a windowed sinc, whole or as a stream. numpy only."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.types import UserError

Floats = NDArray[np.float32]

ZERO_CROSSINGS = 64
"""Zero crossings of the resampling filter on either side."""
STOPBAND_DB = 80.0
"""Decibels by which it damps what the lower rate can't hold."""
BETA = 0.1102 * (STOPBAND_DB - 8.7)
"""Shape of its Kaiser window (Kaiser, 1974)."""
TRANSITION = (STOPBAND_DB - 8) / (2.285 * 2 * ZERO_CROSSINGS * math.pi)
"""Width of its transition band as a share of the lower rate's half; the stopband begins where that half ends."""
COLUMNS, ROWS = 32, 8
"""Output samples that stand together, and how many such blocks one matrix product gives. It gives so many always: BLAS
adds up in another order where there are more or fewer, and a stream would not give just what the whole gives."""
CHUNK_SAMPLES = 1 << 18
MIN_HZ, MAX_HZ = 1000, 768_000
SHARED_UP_TO = 50_000
"""A filter that repeats after more samples than this holds much, and is kept no longer than it is used."""


def resample(samples: Floats, rate: int, wanted: int) -> Floats:
    """The same sound at another sampling rate, by a ``Resampler``.

    Args:
        samples: (N,).
        rate: what they have, in Hz.
        wanted: what they are to have.

    Returns:
        (round(N * wanted / rate),); where the rates are equal, ``samples`` as they are.

    Raises:
        UserError: see ``Resampler``.
    """
    stream = Resampler(rate, wanted)
    samples = np.asarray(samples, np.float32)
    if rate == wanted:
        return samples
    size = max(CHUNK_SAMPLES, 8 * stream.rate // math.gcd(stream.rate, stream.wanted))
    pieces = [stream.feed(samples[i : i + size]) for i in range(0, len(samples), size)]
    return np.concatenate([*pieces, stream.finish()])


class Resampler:
    """Samples in pieces of any size to those of another rate, each as soon as what it depends on is there.

    A sinc in a Kaiser window, linear in phase and without delay: the first sample stays at time 0. What is below 0.92
    of half the lower rate passes with its level, what is above that half is gone (80 dB); before the first and after
    the last sample there are zeros. What comes out is behind what came in by the filter's half: 67 samples of the lower
    rate, and up to 32 of the output, which come together.

    Args:
        rate: of the samples that come, in Hz.
        wanted: of those that go.

    Raises:
        UserError: one of them is not a whole number from ``MIN_HZ`` to ``MAX_HZ``.
    """

    def __init__(self, rate: int, wanted: int) -> None:
        for value in (rate, wanted):
            if not MIN_HZ <= value <= MAX_HZ or value != int(value):
                raise UserError(
                    f"a sampling rate of {value} Hz was given; it takes a whole number from {MIN_HZ} to {MAX_HZ}, "
                    "e.g. 16000"
                )
        self.rate, self.wanted = int(rate), int(wanted)
        common = math.gcd(self.rate, self.wanted)
        up, down = self.wanted // common, self.rate // common
        self._filter = None if up == down else _shared(up, down) if max(up, down) <= SHARED_UP_TO else _Filter(up, down)
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.num_samples, self.num_blocks = 0, 0
        self.held = np.zeros(0 if self._filter is None else -self._filter.begin(0), np.float32)

    def feed(self, samples: Floats) -> Floats:
        """(N,) samples to (n,) of those that they complete."""
        samples = np.asarray(samples, np.float32)
        self.num_samples += len(samples)
        return samples if self._filter is None else self._advance(self._filter, samples, self.num_samples)

    def finish(self) -> Floats:
        """(n,) samples: the rest, up to ``round(N * wanted / rate)`` in all. It begins anew after it."""
        samples = np.zeros(0, np.float32)
        if self._filter is not None:
            left = round(self.num_samples * self.wanted / self.rate) - self._filter.first(self.num_blocks)
            silence = np.zeros(self._filter.reach, np.float32)
            samples = self._advance(self._filter, silence, self.num_samples + len(silence))[:left]
        self.reset()
        return samples

    def _advance(self, taps: _Filter, samples: Floats, end: int) -> Floats:
        """The samples of the blocks that are complete when ``end`` samples came."""
        done = self.num_blocks
        joined = np.concatenate([self.held, samples])
        self.num_blocks = max(done, taps.num_complete(end))
        self.held = joined[taps.begin(self.num_blocks) - taps.begin(done) :].copy()
        return taps.apply(joined, done, self.num_blocks)

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        """All that it has in mind: ``samples`` (n,) float32 and ``counts`` (1,) int64, the samples that came.

        Setting it goes on where it was read, and raises ValueError, KeyError or TypeError where it can't be one.
        """
        return {"samples": self.held.copy(), "counts": np.array([self.num_samples], np.int64)}

    @state.setter
    def state(self, state: Mapping[str, NDArray[Any]]) -> None:
        held, (num_samples,) = np.array(state["samples"], np.float32), state["counts"]
        num_samples, num_blocks, size = int(num_samples), 0, 0
        if self._filter is not None:
            num_blocks = self._filter.num_complete(num_samples)
            size = num_samples - self._filter.begin(num_blocks)
        if held.shape != (size,) or num_samples < 0:
            raise ValueError("the state of this stream is damaged")
        self.held, self.num_samples, self.num_blocks = held, num_samples, num_blocks


class _Filter:
    """The windowed sinc of a ratio, as one matrix for each block of output samples that stand next to each other.

    Where the output stands between the input repeats after a period of ``up`` output and ``down`` input samples (or
    some of these together), so the same block of all periods is one matrix product. The matrices hold about
    134 * max(up, down) numbers, and are made when they are needed.
    """

    def __init__(self, up: int, down: int) -> None:
        periods = -(-COLUMNS // up)
        self.up, self.down, self.step = up * periods, down * periods, down / up
        self.cutoff = min(1.0, up / down) * (1 - TRANSITION / 2)
        self.half = ZERO_CROSSINGS / self.cutoff
        count = -(-self.up // COLUMNS)
        self.edges = self.up * np.arange(count + 1) // count  # output samples of a period where blocks begin
        self.begins = np.ceil(self.edges[:-1] * self.step - self.half).astype(np.int64)
        self.ends = np.floor((self.edges[1:] - 1) * self.step + self.half).astype(np.int64) + 1
        self.reach = int((self.ends - self.begins).max())
        self.matrices: dict[int, Floats] = {}

    def begin(self, block: int) -> int:
        """The first input sample that a block needs; before the recording it is below 0."""
        period, place = divmod(block, len(self.begins))
        return period * self.down + int(self.begins[place])

    def first(self, block: int) -> int:
        """The first output sample of a block."""
        period, place = divmod(block, len(self.begins))
        return period * self.up + int(self.edges[place])

    def num_complete(self, num_samples: int) -> int:
        """Blocks that need no more than so many input samples."""
        return int(np.maximum((num_samples - self.ends) // self.down + 1, 0).sum())

    def apply(self, samples: Floats, start: int, stop: int) -> Floats:
        """Output samples of the blocks from ``start`` to ``stop``; ``samples`` begin where the first of them does."""
        if stop <= start:
            return np.zeros(0, np.float32)
        count, origin = len(self.begins), self.begin(start)
        first, last = start // count, (stop - 1) // count
        output = np.zeros((last + 1 - first, self.up), np.float32)
        for place in range(min(count, stop - start)):
            place = (start + place) % count
            low, high = first + (first * count + place < start), last + (last * count + place < stop)
            matrix = self._matrix(place)
            at = low * self.down + int(self.begins[place]) - origin
            rows = np.zeros((-(-(high - low) // ROWS), ROWS, len(matrix)), np.float32)
            windows = np.lib.stride_tricks.sliding_window_view(samples[at:], len(matrix))
            rows.reshape(-1, len(matrix))[: high - low] = windows[:: self.down][: high - low]
            columns = slice(self.edges[place], self.edges[place + 1])
            output[low - first : high - first, columns] = (rows @ matrix).reshape(-1, matrix.shape[1])[: high - low]
        begin = first * self.up
        return output.reshape(-1)[self.first(start) - begin : self.first(stop) - begin].copy()

    def _matrix(self, place: int) -> Floats:
        """(input samples, output samples) weights of a block; those of an output sample sum to 1."""
        if place not in self.matrices:
            times = np.arange(self.edges[place], self.edges[place + 1]) * self.step
            away = times - np.arange(self.begins[place], self.ends[place])[:, None]
            inside = np.maximum(1 - (away / self.half) ** 2, 0)
            weights = np.sinc(self.cutoff * away) * np.i0(BETA * np.sqrt(inside)) * (inside > 0)
            self.matrices[place] = (weights / weights.sum(0)).astype(np.float32)
        return self.matrices[place]


@functools.lru_cache(maxsize=4)
def _shared(up: int, down: int) -> _Filter:
    return _Filter(up, down)
