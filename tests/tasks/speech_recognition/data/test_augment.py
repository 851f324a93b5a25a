"""Recordings changed at random: what is said stays, and the same draws give the same."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from dolmen.tasks.speech_recognition.data.augment import SpokenBatch, Strength, at_speed, coloured_noise, mask, vary

RATE = 8000
NONE = Strength(
    speed=0.0, gain_db=0.0, silence_s=0.0, noise=0.0, joined=1, longest_s=5.0, warp=0.0, bands=0, times=0
)  # fmt: skip


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spoken(n: int = 6, seed: int = 0) -> SpokenBatch:
    """Recording i is a tone of i + 1 hundred Hz, in which unit i + 1 is said, i % 3 + 1 times."""
    lengths = torch.tensor([2000 + 500 * i for i in range(n)])
    audio, units = torch.zeros(n, int(lengths.max())), torch.full((n, 3), -1)
    for i, length in enumerate(lengths.tolist()):
        audio[i, :length] = 0.2 * torch.sin(2 * np.pi * 100 * (i + 1) / RATE * torch.arange(length))
        units[i, : i % 3 + 1] = i + 1
    return SpokenBatch.evenly(audio, lengths, units, torch.tensor([i % 3 + 1 for i in range(n)]))


def rows(s: SpokenBatch) -> list[tuple[torch.Tensor, list[int]]]:
    numbers = zip(s.num_samples.tolist(), s.num_units.tolist(), strict=True)
    return [(s.audio[i, :n], s.units[i, :u].tolist()) for i, (n, u) in enumerate(numbers)]


def test_without_any_strength_only_the_order_changes() -> None:
    varied = vary(spoken(), RATE, NONE, drawn(), None)
    by_unit = sorted(rows(varied), key=lambda row: row[1][0])
    for (audio, units), (own, own_units) in zip(by_unit, rows(spoken()), strict=True):
        torch.testing.assert_close(audio, own, rtol=0, atol=1e-6)
        assert units == own_units


@pytest.mark.parametrize("between", [None, 9])
def test_what_is_joined_has_its_units_in_the_same_order(between: int | None) -> None:
    strength = replace(NONE, joined=4, silence_s=0.2, longest_s=3.0)
    count = 0
    for seed in range(20):
        varied = vary(spoken(8), RATE, strength, drawn(seed), between)
        all_units = [unit for _, units in rows(varied) for unit in units if unit != between]
        assert sorted(all_units) == sorted(u for _, units in rows(spoken(8)) for u in units)
        for audio, units in rows(varied):
            parts = [u for i, u in enumerate(units) if u != between and (not i or units[i - 1] != u)]
            assert len(parts) <= 4
            assert units.count(9) == (len(parts) - 1 if between else 0)
            # Each tone stands where its units stand.
            spectra = torch.stft(audio, 800, 400, window=torch.hann_window(800), center=False, return_complex=True)
            loud = spectra.abs().sum(0) > 5
            heard = (spectra.abs().argmax(0)[loud] * RATE / 800 / 100).round().int().tolist()
            kept = [u for i, u in enumerate(heard) if not i or heard[i - 1] != u]
            assert kept == parts
            count += len(parts) > 1
            assert len(audio) <= (3.0 + 0.2 * 5) * RATE
    assert count > 10


def test_a_recording_in_which_nothing_is_said_leaves_no_boundary() -> None:
    silent = spoken(4)
    silent = SpokenBatch.evenly(silent.audio, silent.num_samples, silent.units, torch.tensor([0, 2, 0, 1]))
    for seed in range(10):
        varied = vary(silent, RATE, replace(NONE, joined=4), drawn(seed), 9)
        for _, units in rows(varied):
            assert not units or 9 not in (units[0], units[-1])
            assert (9, 9) not in itertools.pairwise(units)


def test_the_same_draws_give_the_same() -> None:
    first, second, third = (vary(spoken(), RATE, Strength(), drawn(seed), 9) for seed in (1, 1, 2))
    for name in ("audio", "num_samples", "units", "num_units"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert first.audio.shape != third.audio.shape or not torch.equal(first.audio, third.audio)


def test_all_together_stays_within_bounds() -> None:
    varied = vary(spoken(12), RATE, Strength(gain_db=40.0), drawn(3), None)
    assert varied.audio.abs().max() == 1  # it was far louder
    assert varied.audio.shape[1] == varied.num_samples.max()
    for row, n in zip(varied.audio, varied.num_samples.tolist(), strict=True):
        assert not row[n:].any()
    assert (varied.units >= 0).sum(1).tolist() == varied.num_units.tolist()


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_speed_moves_length_and_pitch(factor: float) -> None:
    s = spoken(3)
    audio, lengths = at_speed(s.audio, s.num_samples, torch.full((3,), factor))
    assert lengths.tolist() == [int(n / factor + 1e-6) for n in s.num_samples.tolist()]
    for i, n in enumerate(lengths.tolist()):
        expected = 0.2 * torch.sin(2 * np.pi * 100 * (i + 1) * factor / RATE * torch.arange(n))
        torch.testing.assert_close(audio[i, : n - 2], expected[: n - 2], rtol=0, atol=2e-3)
        assert not audio[i, n:].any()


@pytest.mark.parametrize("n", [1, 2])
def test_speed_of_almost_nothing(n: int) -> None:
    audio, lengths = at_speed(torch.ones(1, n), torch.tensor([n]), torch.tensor([1.1]))
    assert lengths.tolist() == [1]
    assert audio.tolist() == [[1.0]]


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_the_colour_of_noise(slope: float) -> None:
    noise = coloured_noise((4, 1 << 14), torch.full((4,), slope), drawn())
    torch.testing.assert_close(noise.std(1), torch.ones(4), rtol=1e-3, atol=0)
    power = torch.fft.rfft(noise).abs().square().mean(0)
    low, high = power[100:200].mean(), power[1600:3200].mean()
    assert float((low / high).log2()) == pytest.approx(4 * slope, abs=0.4)


def test_noise_has_the_level_that_was_drawn() -> None:
    strength = replace(NONE, noise=1.0, least_snr_db=5.0)
    clean = {units[0]: audio for audio, units in rows(vary(spoken(), RATE, NONE, drawn(), None))}
    ratios = []
    for seed in range(10):
        for audio, units in rows(vary(spoken(), RATE, strength, drawn(seed), None)):
            noise = audio - clean[units[0]]
            ratios.append(float(10 * (clean[units[0]].square().mean() / noise.square().mean()).log10()))
    # The deepest noise varies from one part of it to the next.
    assert 2 < min(ratios) < 12
    assert 38 < max(ratios) < 48


def test_masks_are_of_a_fifth_at_most() -> None:
    features, num_frames = torch.ones(200, 60, 40), torch.full((200,), 60)
    hidden = mask(features, num_frames, 0.01, replace(NONE, bands=1), drawn()) == 0
    assert torch.equal(hidden.any(1), hidden.all(1))  # whole bands
    assert 0 < hidden[:, 0].sum(1).max() <= 8
    hidden = mask(features, num_frames, 0.01, replace(NONE, times=1), drawn()) == 0
    assert torch.equal(hidden.any(2), hidden.all(2))
    assert 0 < hidden[:, :, 0].sum(1).max() <= 12
    short = mask(features, torch.full((200,), 10), 0.01, replace(NONE, times=1), drawn()) == 0
    assert short[:, :10].any()
    assert not short[:, 10:].any()
    assert torch.equal(mask(features, num_frames, 0.01, NONE, drawn()), features)


def test_masks_repeat() -> None:
    features, num_frames = torch.randn(3, 50, 20), torch.tensor([50, 40, 30])
    first, second, third = (mask(features, num_frames, 0.01, Strength(), drawn(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
