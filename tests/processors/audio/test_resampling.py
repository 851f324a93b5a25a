"""Tones at another rate: what can be heard there stays, what can't is gone, in pieces as on the whole."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from dolmen.processors.audio.log_mel import Resampler, resample
from dolmen.types import UserError

Floats = NDArray[np.float32]
RATIOS = [
    (44100, 16000),
    (48000, 16000),
    (22050, 16000),
    (8000, 16000),
    (11025, 16000),
    (192000, 8000),
    (16000, 44100),
    (16001, 16000),
]


def tone(hz: float, rate: int, n: int) -> NDArray[np.float64]:
    return np.sin(2 * np.pi * hz * np.arange(n) / rate + 0.3)


def noise(n: int) -> Floats:
    return np.random.default_rng(0).uniform(-1, 1, n).astype(np.float32)


def db(x: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    return float(10 * np.log10(np.square(x).mean() / np.square(reference).mean()))


def inner(x: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Without 20 ms at either end."""
    return x[rate // 50 : -(rate // 50)]


@pytest.mark.parametrize(("rate", "wanted"), RATIOS)
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.91])
def test_a_tone_below_half_the_lower_rate_stays(rate: int, wanted: int, share: float) -> None:
    hz = share * min(rate, wanted) / 2
    resampled = resample(tone(hz, rate, rate // 2).astype(np.float32), rate, wanted)
    expected = tone(hz, wanted, len(resampled))
    error = resampled.astype(np.float64) - expected
    assert db(inner(error, wanted), inner(expected, wanted)) < -70


@pytest.mark.parametrize(("rate", "wanted"), [r for r in RATIOS if r[0] > r[1]])
@pytest.mark.parametrize("share", [1.01, 1.1, 1.3])
def test_a_tone_above_it_vanishes(rate: int, wanted: int, share: float) -> None:
    hz = share * wanted / 2
    if hz > rate / 2:
        hz = (wanted + rate) / 4
    played = tone(hz, rate, rate // 2)
    resampled = resample(played.astype(np.float32), rate, wanted).astype(np.float64)
    assert db(inner(resampled, wanted), played) < (-70 if hz > 1.005 * wanted / 2 else -60)


def test_noise_is_as_a_fourier_transform_resamples_it() -> None:
    rng, n, m = np.random.default_rng(2), 44100, 16000
    spectrum = np.zeros(n // 2 + 1, np.complex128)
    spectrum[1:7300] = rng.normal(size=7299) + 1j * rng.normal(size=7299)
    wave = np.fft.irfft(spectrum, n)
    expected = np.fft.irfft(spectrum[: m // 2 + 1], m) * (m / n)
    resampled = resample((wave * 100).astype(np.float32), n, m).astype(np.float64) / 100
    assert db(inner(resampled - expected, m), inner(expected, m)) < -70


@pytest.mark.parametrize(("rate", "wanted"), [*RATIOS, (48000, 44100), (8000, 8001)])
def test_length(rate: int, wanted: int) -> None:
    for n in (0, 1, 2, 3, 5, 40, 441, 1000, 4801):
        resampled = resample(noise(n), rate, wanted)
        assert (resampled.shape, resampled.dtype) == ((round(n * wanted / rate),), np.float32)


def test_equal_rates_change_nothing() -> None:
    samples, stream = noise(1000), Resampler(16000, 16000)
    assert np.array_equal(resample(samples, 16000, 16000), samples)
    assert np.array_equal(np.concatenate([stream.feed(samples[:300]), stream.feed(samples[300:])]), samples)
    assert len(stream.finish()) == 0
    stream.state = stream.state


@pytest.mark.parametrize(("rate", "wanted"), RATIOS)
def test_a_stream_gives_what_the_whole_gives(rate: int, wanted: int) -> None:
    rng, samples = np.random.default_rng(1), noise(rate // 5 + 7)
    whole = resample(samples, rate, wanted)
    stream = Resampler(rate, wanted)
    for sizes in ([0, 1, 3, 60], [1, 100, 441, 2000, 8000], [10**6]):
        resampled, at = [], 0
        while at < len(samples):
            size = int(rng.choice(sizes))
            resampled.append(stream.feed(samples[at : at + size]))
            at += size
        resampled.append(stream.finish())
        joined = np.concatenate(resampled)
        assert joined.shape == whole.shape
        np.testing.assert_allclose(joined, whole, rtol=0, atol=1e-6)


def test_it_waits_for_no_more_than_it_needs() -> None:
    stream, got = Resampler(48000, 16000), 0
    for i in range(100):
        got += len(stream.feed(noise(480)))
        assert (i + 1) * 160 - got <= 67 + 32
        assert len(stream.state["samples"]) <= 3 * (2 * 67 + 2 * 32)


@pytest.mark.parametrize(("rate", "wanted"), RATIOS)
def test_a_stream_goes_on_from_its_state(rate: int, wanted: int) -> None:
    samples = noise(rate // 4)
    whole = resample(samples, rate, wanted)
    for cut in (0, 1, 100, rate // 7):
        first, second = Resampler(rate, wanted), Resampler(rate, wanted)
        begun = first.feed(samples[:cut])
        second.feed(noise(500))
        second.state = first.state
        first.feed(samples)
        resampled = np.concatenate([begun, second.feed(samples[cut:]), second.finish()])
        np.testing.assert_allclose(resampled, whole, rtol=0, atol=1e-6)


def test_a_damaged_state_is_refused() -> None:
    stream = Resampler(44100, 16000)
    stream.feed(noise(5000))
    good = stream.state
    for wrong in (
        {},
        {**good, "samples": good["samples"][:-1]},
        {**good, "counts": good["counts"] + 1},
        {**good, "counts": np.array([-5])},
        {**good, "samples": good["samples"][None]},
    ):
        with pytest.raises((ValueError, KeyError, TypeError)):
            stream.state = wrong
    assert all(np.array_equal(good[k], v) for k, v in stream.state.items())


def test_memory_does_not_grow_with_the_recording() -> None:
    extra = []
    for seconds in (20, 60):
        samples = np.zeros(44100 * seconds, np.float32)
        tracemalloc.start()
        try:
            resampled = resample(samples, 44100, 16000)
            extra.append(tracemalloc.get_traced_memory()[1] - 2 * resampled.nbytes)
        finally:
            tracemalloc.stop()
    assert max(extra) < 2e7
    assert extra[1] < extra[0] + 1e6


def test_what_is_no_rate_is_refused() -> None:
    for rate, wanted in ((0, 16000), (16000, -1), (16000, 10**9), (float("nan"), 16000), (16000.5, 16000)):
        with pytest.raises(UserError, match=r"a sampling rate of .* Hz was given; it takes a whole number from"):
            resample(noise(10), rate, wanted)  # type: ignore[arg-type]
    assert len(resample(noise(480), 48000.0, 16000)) == 160  # type: ignore[arg-type]
