"""Log-mel frames against Kaldi's and librosa's; pieces against the whole."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from dolmen.processors.audio.log_mel import FeatureStream, LogMel, mono
from dolmen.types import UserError

Floats = NDArray[np.float32]

FRAMES = [0, 11, 22]
"""Of ``chirp()``: the rows of what follows."""

# kaldi-native-fbank 1.23.0: OnlineFbank, 40 bins, dither 0, else its defaults; samples times 32768.
KALDI = """
    15.6034 17.0332 18.9836 20.7823 22.2094 23.2327 23.8621 24.1104 23.7628 22.7123 20.7198 18.3732 16.7751 16.4560
    17.3924 17.6632 16.6731 17.4934 19.1161 19.1149 18.6000 18.7760 19.3950 19.6652 19.4978 19.9062 20.1906 20.1311
    20.6794 20.0561 20.7221 20.9654 21.2283 21.7207 21.8916 21.4266 21.3332 21.4119 22.1916 22.2690
    12.1603 11.3462 10.8063 13.8863 14.9662 13.7385 14.7680 16.9930 16.1525 14.8375 16.3442 16.3327 15.6819 17.2859
    16.4803 17.3537 18.0850 17.3895 18.2683 18.9366 17.4317 19.0616 19.5336 18.7758 20.1047 24.0322 27.9932 28.6939
    26.4800 21.1836 20.5837 21.3614 21.5192 21.5960 21.6036 21.5203 21.2803 21.4631 21.8516 22.2855
    12.6006 13.2287 12.7900 14.1445 14.3737 15.2885 15.7684 15.0964 15.5131 15.7983 15.3975 13.8785 16.0403 17.2923
    17.4186 16.4733 18.1974 19.0624 19.3244 19.0199 19.0810 19.5383 19.0882 19.7926 20.1706 19.9380 20.6051 20.4713
    20.8997 20.6163 20.9763 20.1583 21.3701 21.4176 22.6602 29.1768 29.5656 24.5695 22.4595 22.2935
"""

# torchaudio 2.11.0: compliance.kaldi.fbank(num_mel_bins=40, dither=0, vtln_warp=...), frame 11; samples times 32768.
KALDI_WARPED = {
    0.9: """
    12.1569 11.3209 12.0103 14.7496 14.6000 13.8679 16.6467 16.7210 14.8047 16.2310 16.4843 15.6815 17.2998 16.5222
    17.5420 18.0543 17.4622 18.5720 18.7606 17.7405 19.3716 19.3992 18.9591 20.7581 26.1159 28.6138 28.1901 24.2590
    20.9340 20.8546 21.5783 21.3731 21.7940 21.5921 21.2859 21.2396 21.8598 21.6153 21.9848 21.2467
""",
    1.1: """
    12.0656 11.5102 10.7156 12.3721 14.8425 14.4116 13.2380 15.9894 16.9630 15.4725 15.0270 16.4804 16.1074 15.7603
    17.3086 16.3530 17.2780 18.0835 17.3817 18.0761 18.9612 17.5466 18.7858 19.5424 18.8523 19.6658 22.3089 27.2561
    28.7559 27.5232 22.5513 20.8271 21.0306 21.5407 21.3843 21.7290 21.6149 21.2283 21.2183 22.5010
""",
}

# librosa 0.11.0: the logarithm of feature.melspectrogram(sr=16000, n_fft=400, hop_length=160, center=False, n_mels=40).
LIBROSA = """
    -1.6968 -1.5934 0.2764 1.5243 2.1611 2.2938 1.8073 0.6861 -1.0720 -3.2538 -5.6565 -6.6365 -7.4156 -7.4899
    -6.5111 -6.6506 -7.6157 -8.2451 -6.6734 -5.6664 -6.4729 -6.8100 -6.9419 -6.6468 -6.3794 -6.7898 -6.6281 -6.5010
    -6.8598 -6.3388 -7.2833 -6.7402 -6.6311 -6.5218 -6.1404 -6.3722 -6.8534 -7.3389 -6.4952 -6.3608
    -1.6881 -7.9533 -6.5129 -6.1154 -8.1255 -5.5057 -5.2916 -7.5274 -7.3292 -6.4812 -7.0734 -8.3167 -6.7356 -6.5787
    -8.0755 -7.2143 -6.3434 -6.9695 -7.4612 -6.5276 -6.4380 -8.2388 -6.6539 -6.3139 -7.3976 -6.4389 -3.7507 0.9057
    1.8787 -0.1787 -5.9238 -6.8050 -6.2233 -6.3285 -6.2628 -6.5964 -6.9588 -7.1564 -6.7682 -6.4493
    -1.6756 -6.3241 -6.3631 -6.3030 -5.7089 -6.5244 -6.8461 -6.9536 -6.8695 -8.3038 -9.8621 -7.6509 -6.9592 -6.2635
    -6.9876 -8.0130 -7.0678 -5.5985 -5.8774 -5.7509 -6.2120 -6.4352 -6.1017 -6.9135 -6.3285 -6.1763 -6.4930 -6.2537
    -6.3698 -6.1847 -6.7062 -6.4635 -7.4192 -6.3680 -6.5362 -1.5132 1.4741 -0.2875 -6.2282 -6.2196
"""


def rows(text: str) -> NDArray[np.float64]:
    return np.array(text.split(), np.float64).reshape(-1, 40)


def chirp(rate: int = 16000, n: int = 4000) -> Floats:
    t = np.arange(n) / rate
    noise = np.random.default_rng(7).standard_normal(n)
    return (0.4 * np.sin(2 * np.pi * (100 * t + 12600 * t * t)) + 0.02 * noise + 0.05).astype(np.float32)


def noise(n: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).uniform(-1, 1, n).astype(np.float32)


def test_as_kaldi() -> None:
    frames = LogMel.kaldi().features(chirp())
    assert (frames.shape, frames.dtype) == ((23, 40), np.float32)
    np.testing.assert_allclose(frames[FRAMES], rows(KALDI), rtol=0, atol=2e-4)
    assert LogMel.kaldi() == LogMel()


@pytest.mark.parametrize("warp", [0.9, 1.1])
def test_warped_as_kaldi(warp: float) -> None:
    frames = LogMel.kaldi().features(chirp(), warp)
    np.testing.assert_allclose(frames[[11]], rows(KALDI_WARPED[warp]), rtol=0, atol=2e-4)


def test_as_librosa() -> None:
    frames = LogMel.librosa().features(chirp())
    assert frames.shape == (23, 40)
    np.testing.assert_allclose(frames[FRAMES], rows(LIBROSA), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("mel", "triangles"), [*itertools.product(["htk", "slaney"], ["mel", "hz"])])
def test_bands_share_each_frequency_between_two_neighbours(mel: Any, triangles: Any) -> None:
    front = LogMel(mel=mel, triangles=triangles, low_hz=100, high_hz=7000, fft=1024)
    for warp in (1.0, 0.85, 1.2):
        bank = front.bank(warp)
        hz = np.arange(513) * 16000 / 1024
        assert bank.shape == (513, 40)
        assert not bank[(hz < 100) | (hz > 7000)].any()
        peaks = bank.argmax(0)
        assert (np.diff(peaks) > 0).all()
        np.testing.assert_allclose(bank[peaks[0] + 1 : peaks[-1]].sum(1), 1, atol=1e-5)
        assert ((bank > 0).sum(1) <= 2).all()


def test_the_norm_gives_each_band_the_same_area() -> None:
    bank = LogMel.librosa(fft=4096).bank()
    np.testing.assert_allclose(bank.sum(0) * 16000 / 4096, 1, atol=0.02)


def test_windows() -> None:
    values = {kind: LogMel(window=kind).window_values() for kind in ("povey", "hann", "hamming")}
    assert {v.shape for v in values.values()} == {(400,)}
    np.testing.assert_allclose(values["povey"], np.hanning(400) ** 0.85, atol=1e-6)
    np.testing.assert_allclose(values["hamming"], np.hamming(400), atol=1e-6)
    np.testing.assert_allclose(values["hann"], np.hanning(401)[:-1], atol=1e-6)


@pytest.mark.parametrize("warp", [0.88, 1.12])
@pytest.mark.parametrize("make", [LogMel.kaldi, LogMel.librosa])
def test_a_warp_moves_a_tone(make: Any, warp: float) -> None:
    front = make(num_mels=60)
    for hz in (500, 1000, 2500):
        t = np.arange(8000) / 16000
        as_is, higher = (np.sin(2 * np.pi * f * t).astype(np.float32) for f in (hz, hz * warp))
        peak, wanted = front.features(as_is, warp).mean(0).argmax(), front.features(higher).mean(0).argmax()
        assert abs(int(peak) - int(wanted)) <= 1
        assert (peak > front.features(as_is).mean(0).argmax()) == (warp > 1)
    assert np.array_equal(front.bank(1.0), front.bank())
    assert np.array_equal(front.features(as_is, 1.0), front.features(as_is))


def test_a_warp_has_limits() -> None:
    for front, warp in ((LogMel(), 0.4), (LogMel(), 2.1), (LogMel(low_hz=3000, high_hz=4000, num_mels=10), 1.5)):
        with pytest.raises(ValueError, match="a warp of"):
            front.bank(warp)
    assert LogMel().bank(2.0).any(0).all()
    assert LogMel().bank(0.5).any(0).all()


FRONTS = [
    LogMel.kaldi(),
    LogMel.librosa(rate=8000, num_mels=20),
    LogMel.kaldi(num_mels=23, window_s=0.032, hop_s=0.032),
    LogMel(rate=11025, remove_dc=False, num_mels=30),
    LogMel(preemphasis=0.0, window="hamming"),
    LogMel.librosa(fft=1600),
]


@pytest.mark.parametrize("front", FRONTS)
def test_as_it_is_defined(front: LogMel) -> None:
    samples, bank, window = chirp(), front.bank().astype(np.float64), front.window_values()
    expected = []
    for i in range(front.num_frames(len(samples))):
        frame = samples[i * front.hop :][: front.window_size].astype(np.float64) * front.scale
        if front.remove_dc:
            frame = frame - frame.mean()
        frame = frame - front.preemphasis * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, 2 * (len(bank) - 1))) ** 2
        expected.append(np.log(np.maximum(power @ bank, front.floor)))
    np.testing.assert_allclose(front.features(samples), expected, rtol=0, atol=5e-4)


@pytest.mark.parametrize("front", FRONTS)
def test_a_stream_gives_what_the_whole_gives(front: LogMel) -> None:
    rng = np.random.default_rng(1)
    samples = noise(20_011)
    whole = front.features(samples)
    assert len(whole) == front.num_frames(len(samples))
    stream = front.stream()
    for sizes in ([0, 1, 2, 50], [1, 37, 160, 400, 401, 1600, 5000], [0, 30_000]):
        frames, at = [], 0
        while at < len(samples):
            size = int(rng.choice(sizes))
            frames.append(stream.feed(samples[at : at + size]))
            at += size
        assert stream.finish().shape == (0, front.num_mels)
        np.testing.assert_allclose(np.concatenate(frames), whole, rtol=0, atol=1e-5)


def test_a_stream_gives_frames_as_soon_as_they_are_complete() -> None:
    front, samples = LogMel(), noise(1000)
    stream = front.stream()
    came = [len(stream.feed(samples[i : i + 1])) for i in range(1000)]
    assert np.flatnonzero(came).tolist() == [399, 559, 719, 879]
    assert len(stream.state["samples"]) < 400


def test_a_stream_goes_on_from_its_state() -> None:
    front, samples = LogMel(), noise(5000)
    whole = front.features(samples)
    for cut in (0, 200, 399, 400, 3333):
        first, second = front.stream(), front.stream()
        begun = first.feed(samples[:cut])
        second.feed(noise(100, 3))
        second.state = first.state
        first.feed(samples)  # the state is a copy
        np.testing.assert_allclose(np.concatenate([begun, second.feed(samples[cut:])]), whole, rtol=0, atol=1e-5)
        assert len(second.finish()) == 0


def test_a_damaged_state_is_refused() -> None:
    stream = LogMel().stream()
    stream.feed(noise(500))
    good = stream.state
    for wrong in (
        {},
        {"samples": good["samples"]},
        {**good, "samples": np.zeros(400, np.float32)},
        {**good, "samples": np.zeros((2, 3), np.float32)},
        {**good, "counts": np.array([-1])},
        {**good, "counts": np.array([1, 2])},
    ):
        with pytest.raises((ValueError, KeyError, TypeError)):
            stream.state = wrong
    assert all(np.array_equal(good[k], v) for k, v in stream.state.items())


def test_short_recordings_are_filled_up() -> None:
    front = LogMel()
    for n in (0, 1, 100, 399, 400, 559):
        samples = noise(n)
        frames = front.features(samples)
        filled = np.pad(samples, (0, max(0, 400 - n)))
        assert np.array_equal(frames, front.features(filled))
        assert len(frames) == front.num_frames(n) == 1
        stream = front.stream()
        assert np.array_equal(np.concatenate([stream.feed(samples), stream.finish()]), frames)
        assert len(stream.feed(noise(400))) == 1  # anew
    assert front.num_frames(560) == len(front.features(noise(560))) == 2


@pytest.mark.parametrize("front", [LogMel.kaldi(), LogMel.librosa()])
def test_silence_is_the_floor(front: LogMel) -> None:
    for samples in (np.zeros(0, np.float32), np.zeros(1600, np.float32)):
        assert (front.features(samples) == np.log(np.float32(front.floor))).all()


def test_an_offset_is_not_heard() -> None:
    a, b = (LogMel().features(noise(4000) * 0.1 + offset) for offset in (np.float32(0), np.float32(0.5)))
    np.testing.assert_allclose(a, b, atol=0.02)
    assert np.abs(LogMel(remove_dc=False).features(noise(4000) * 0.1 + np.float32(0.5)) - a).max() > 1


def test_what_is_no_number_spoils_its_own_frames() -> None:
    samples = noise(16_000)
    good = LogMel().features(samples)
    samples[8000] = np.nan
    frames = LogMel().features(samples)
    hit = np.array([i * 160 <= 8000 < i * 160 + 400 for i in range(len(good))])
    assert np.isnan(frames[hit]).all()
    assert np.array_equal(frames[~hit], good[~hit])


def test_memory_does_not_grow_with_the_recording() -> None:
    extra = []
    for seconds in (20, 80):
        samples = noise(16_000 * seconds)
        tracemalloc.start()
        try:
            frames = LogMel().features(samples)
            extra.append(tracemalloc.get_traced_memory()[1] - frames.nbytes)
        finally:
            tracemalloc.stop()
    assert extra[1] < extra[0] + 1e5
    assert extra[1] < 8e6


def test_it_is_plain_json() -> None:
    front = LogMel.librosa(8000, 30, hop_s=0.0125)
    front.features(noise(1000))
    again = LogMel.model_validate(front.model_dump())
    assert again == front
    assert LogMel.model_validate_json(front.model_dump_json()) == front
    assert np.array_equal(again.features(noise(1000)), front.features(noise(1000)))
    assert isinstance(again.stream(), FeatureStream)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"num_mels": 200}, r"200 bands are too many for a transform of 512 samples at 16000 Hz: .* at \d+ Hz; give"),
        ({"high_hz": 9000.0}, "bands from 20 to 9000 Hz are not within 0 and 8000 Hz"),
        ({"low_hz": 4000.0, "high_hz": 300.0}, "bands from 4000 to 300 Hz"),
        ({"hop_s": 0.03}, "leave gaps"),
        ({"hop_s": 0.00001}, "are 400 and 0 samples at 16000 Hz"),
        ({"fft": 256}, "a transform of 256 samples was asked for; it takes an even number, and at least the 400"),
        ({"fft": 511}, "a transform of 511 samples"),
        ({"num_mels": 0}, "num_mels: "),
        ({"low_hz": float("nan")}, "low_hz: "),
        ({"mels": 3}, "mels: "),
    ],
)
def test_what_does_not_go_together_is_refused(more: dict[str, Any], message: str) -> None:
    for make in (LogMel.kaldi, LogMel.librosa):
        with pytest.raises(UserError, match=message if make == LogMel.kaldi or "from 20" not in message else "bands"):
            make(**({"fft": 512} | more))
    with pytest.raises(ValidationError):
        LogMel(**more)


def test_sizes_are_cut_off_and_not_rounded() -> None:
    assert (LogMel(rate=11025).window_size, LogMel(rate=11025).hop) == (275, 110)
    assert LogMel.librosa(rate=11025).fft == 276
    assert LogMel(rate=1000, window_s=0.029, num_mels=3).window_size == 29


def test_one_channel_of_many() -> None:
    wave = np.array([-1.0, -0.5, 0.0, 0.5])
    for dtype, scale in (("int8", 2**7), ("int16", 2**15), ("int32", 2**31)):
        assert mono((wave * scale).astype(dtype)).tolist() == wave.tolist()
    assert mono((wave * 128 + 128).astype(np.uint8)).tolist() == wave.tolist()
    for dtype in ("float16", "float32", "float64"):
        frames = mono(np.stack([wave, 0 * wave], 1).astype(dtype))
        assert (frames.tolist(), frames.dtype) == ((wave / 2).tolist(), np.float32)
    assert mono(np.array([[32767, -32768]], np.int16)).tolist() == [-0.5 / 32768]
    assert mono(np.array([-(2**31), 2**31 - 256], np.int32)).tolist() == [-1.0, 1 - 2.0**-23]
    assert mono(np.zeros((0, 2), np.int16)).shape == mono(np.zeros(0)).shape == (0,)


def test_what_is_no_sound_is_refused() -> None:
    for wrong, message in (
        (np.zeros((2, 3, 4)), "not as 2 x 3 x 4"),
        (np.zeros((5, 0)), "not as 5 x 0"),
        (np.array(1.0), "not as a single number"),
        (np.zeros(3, np.int64), "of the type int64"),
        (np.zeros(3, np.uint16), "of the type uint16"),
        (np.zeros(3, np.bool_), "of the type bool"),
        (np.zeros(3, np.complex64), "of the type complex64"),
    ):
        with pytest.raises(UserError, match=message):
            mono(wrong)
