"""The front end on torch gives what the one in numpy gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dolmen.processors.audio.log_mel import LogMel
from dolmen.tasks.speech_recognition.nn.log_mel import LogMelFrames, below_level
from dolmen.tasks.speech_recognition.processors.level import Level

FRONTS = {
    "kaldi": LogMel.kaldi(),
    "librosa": LogMel.librosa(),
    "8 kHz": LogMel(rate=8000, num_mels=24),
    "no mean": LogMel(remove_dc=False),
    "no preemphasis": LogMel(preemphasis=0.0),
    "other hop": LogMel(rate=8000, num_mels=20, window_s=0.032, hop_s=0.016, window="hamming", high_hz=3500.0),
}


def on_torch(front: LogMel, warps: tuple[float, ...] = (1.0,)) -> LogMelFrames:
    arrays = {"window": front.window_values(), "banks": np.stack([front.bank(warp) for warp in warps])}
    return LogMelFrames(
        arrays, hop=front.hop, preemphasis=front.preemphasis, scale=front.scale, floor=front.floor,
        remove_dc=front.remove_dc,
    )  # fmt: skip


def sound(n: int, seed: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    tones = 0.3 * np.sin(np.arange(n) * generator.uniform(0.05, 1.5)) + 0.1
    return (tones + generator.normal(0, 0.01, n)).astype(np.float32)


@pytest.mark.parametrize("name", FRONTS)
def test_the_same_frames(name: str) -> None:
    front = FRONTS[name]
    for n in (front.window_size, front.window_size + front.hop - 1, 9000):
        samples = np.stack([sound(n, seed) for seed in range(3)])
        log_mels = on_torch(front)(torch.from_numpy(samples)).numpy()
        expected = np.stack([front.features(row) for row in samples])
        assert log_mels.shape == expected.shape
        np.testing.assert_allclose(log_mels, expected, rtol=0, atol=2e-3)


def test_silence_is_the_floor() -> None:
    front = FRONTS["kaldi"]
    log_mels = on_torch(front)(torch.zeros(1, 4000)).numpy()
    np.testing.assert_allclose(log_mels, front.features(np.zeros(4000, np.float32))[None], rtol=1e-6)


def test_what_is_shorter_than_a_window_is_filled_up() -> None:
    front = FRONTS["kaldi"]
    log_mels = on_torch(front)(torch.from_numpy(sound(100)[None])).numpy()
    np.testing.assert_allclose(log_mels[0], front.features(sound(100)), rtol=0, atol=2e-3)


def test_each_recording_takes_its_bank() -> None:
    front, warps = FRONTS["kaldi"], (1.0, 0.9, 1.1)
    samples = np.stack([sound(4000, seed) for seed in range(4)])
    chosen = torch.tensor([2, 0, 1, 2])
    log_mels = on_torch(front, warps)(torch.from_numpy(samples), chosen).numpy()
    for row, heard, bank in zip(samples, log_mels, chosen.tolist(), strict=True):
        np.testing.assert_allclose(heard, front.features(row, warps[bank]), rtol=0, atol=2e-3)
    assert not np.allclose(log_mels[0], front.features(samples[0]), atol=0.1)


def test_number_of_frames() -> None:
    front = FRONTS["8 kHz"]
    numbers = [0, 1, 199, 200, 279, 280, 4000]
    num_frames = on_torch(front).num_frames(torch.tensor(numbers))
    assert num_frames.tolist() == [front.num_frames(n) for n in numbers]


def test_nothing_of_it_is_saved() -> None:
    state: dict[str, Any] = on_torch(FRONTS["kaldi"]).state_dict()
    assert not state


@pytest.mark.parametrize("level", [Level(), Level(least=12.0, span=3.0, release=0.3)])
def test_the_same_below_the_level(level: Level) -> None:
    heard = np.random.default_rng(0).uniform(5, 20, (3, 40, 6)).astype(np.float32)
    relative = below_level(torch.from_numpy(heard), **level.model_dump()).numpy()
    for one, mine in zip(heard, relative, strict=True):
        np.testing.assert_allclose(mine, level.relative(one, level.least)[0], atol=2e-5)
