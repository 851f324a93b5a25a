"""Random changes to recordings that do not change what is said: how loud, fast, noisy, where and how much of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

MAX_MASKED_S = 0.1
"""Length of a mask in time."""
MAX_SNR_DB = 45.0
"""Signal-to-noise ratio of the softest noise."""


@dataclass(frozen=True)
class Strength:
    """Strengths of the random changes.

    Attributes:
        speed: recordings are played up to this share faster or slower.
        gain_db: and up to so much louder or softer.
        silence_s: at most this much is put before, between and behind them.
        noise: share of the recordings that get noise, its colour between violet and brown.
        least_snr_db: signal-to-noise ratio of the loudest noise.
        joined: at most so many recordings are joined to one.
        longest_s: length up to which they are joined.
        warp: the frequency axis is stretched by up to this share (vocal tract length; Jaitly & Hinton, 2013).
        colour_db: a slope and a wave of up to so much each are laid over the frequencies, as another microphone would.
        bands, times: masks of up to a fifth of the frequencies, and of up to a tenth of a second (Park et al., 2019):
            of a word that is short, more than that would leave nothing.
    """

    speed: float = 0.15
    gain_db: float = 9.0
    silence_s: float = 0.3
    noise: float = 0.5
    least_snr_db: float = 8.0
    joined: int = 4
    longest_s: float = 5.0
    warp: float = 0.2
    colour_db: float = 5.0
    bands: int = 1
    times: int = 1


@dataclass(frozen=True)
class SpokenBatch:
    """A batch of recordings with their units.

    Attributes:
        audio: (B, N) -1..1, 0 behind the end.
        num_samples: (B,).
        units: (B, U), -1 behind the last.
        num_units: (B,).
        spans: (B, U, 2) samples between which each unit is said.
    """

    audio: Tensor
    num_samples: Tensor
    units: Tensor
    num_units: Tensor
    spans: Tensor

    @classmethod
    def evenly(cls, audio: Tensor, num_samples: Tensor, units: Tensor, num_units: Tensor) -> SpokenBatch:
        """A batch with spans as if all units of a recording took equally long."""
        ends = torch.arange(units.shape[1] + 1) * (num_samples / num_units.clamp(min=1))[:, None]
        return cls(audio, num_samples, units, num_units, torch.stack([ends[:, :-1], ends[:, 1:]], -1))


def vary(
    spoken: SpokenBatch, rate: int, strength: Strength, generator: torch.Generator, between: int | None
) -> SpokenBatch:
    """Play at another speed, louder or softer, join some, put silence around them and noise over all.

    Args:
        spoken: as recorded.
        rate: samples a second.
        strength: how much.
        generator: of the draws.
        between: the unit that stands between two recordings that are joined; None for none.
    """
    n = len(spoken.audio)

    def draw(low: float, high: float, size: int = n) -> Tensor:
        return torch.rand(size, generator=generator) * (high - low) + low

    factor = torch.exp2(draw(-1, 1) * math.log2(1 + strength.speed))
    audio, lengths = at_speed(spoken.audio, spoken.num_samples, factor)
    audio = audio * (10 ** (draw(-strength.gain_db, strength.gain_db) / 20))[:, None]
    groups = _groups(lengths, rate, strength, generator)
    own_spans = SpokenBatch.evenly(audio, lengths, spoken.units, spoken.num_units).spans
    rows, units, spans = [], [], []
    for group in groups:
        parts, group_units, group_spans, position = [], list[int](), list[Tensor](), 0
        for i in group:
            gap, size, number = int(draw(0, strength.silence_s, 1) * rate), int(lengths[i]), int(spoken.num_units[i])
            parts += [audio.new_zeros(gap), audio[i, :size]]
            if group_units and number and between is not None:
                group_units.append(between)
                group_spans.append(torch.tensor([[position, position + gap]]))
            group_units += spoken.units[i, :number].tolist()
            group_spans.append(own_spans[i, :number] + position + gap)
            position += gap + size
        parts.append(audio.new_zeros(int(draw(0, strength.silence_s, 1) * rate)))
        rows.append(torch.cat(parts))
        units.append(torch.tensor(group_units, dtype=torch.int64))
        spans.append(torch.cat(group_spans))
    joined = pad_sequence(rows, batch_first=True)
    num_samples = torch.tensor([len(row) for row in rows])
    joined = joined + _noise(joined, num_samples, strength, generator)
    return SpokenBatch(
        joined.clamp(-1, 1), num_samples, pad_sequence(units, batch_first=True, padding_value=-1),
        torch.tensor([len(u) for u in units]), pad_sequence(spans, batch_first=True),
    )  # fmt: skip


def flat_targets(spoken: SpokenBatch, samples_per_step: float, num_steps: int) -> Tensor:
    """(B, T) the unit of each step, 0 for none, if the units of a recording took equally long (a flat start).

    A unit stands in the second half of its span: a network that does not look ahead knows it only by then.
    """
    spans = spoken.spans / samples_per_step
    begins, ends = spans.mean(-1), spans[..., 1]
    step = torch.arange(num_steps)[None, :, None]
    is_unit = torch.arange(spoken.units.shape[1]) < spoken.num_units[:, None]
    # A span shorter than a step takes the step in which it ends.
    inside = (step >= torch.minimum(begins, ends.ceil() - 1)[:, None]) & (step < ends[:, None]) & is_unit[:, None]
    return torch.where(inside, spoken.units[:, None], 0).amax(-1)


def at_speed(audio: Tensor, num_samples: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Recordings (B, N) played ``factor`` (B,) times as fast, by linear interpolation, and their lengths."""
    lengths = (num_samples / factor).long().clamp(min=1)
    lengths = torch.where(num_samples > 0, lengths, 0)
    places = torch.arange(max(1, int(lengths.max())), dtype=torch.float32)[None] * factor[:, None]
    inside = places <= (num_samples[:, None] - 1)
    left = places.long().clamp(max=max(0, audio.shape[1] - 2))
    share = places - left
    first, second = audio.gather(1, left), F.pad(audio, (0, 1)).gather(1, left + 1)
    return (first + (second - first) * share) * inside, lengths


def coloured_noise(shape: tuple[int, int], slope: Tensor, generator: torch.Generator) -> Tensor:
    """Noise (B, N) of variance 1 whose power falls with frequency as ``f ** -slope`` (B,)."""
    size = 1 << max(4, (shape[1] - 1).bit_length())
    spectrum = torch.fft.rfft(torch.randn(shape[0], size, generator=generator))
    f = torch.arange(spectrum.shape[1]).clamp(min=1).float()
    shaped: Tensor = torch.fft.irfft(spectrum * f[None] ** (-slope[:, None] / 2), n=size)[:, : shape[1]]
    return shaped / shaped.std(1, correction=0, keepdim=True).clamp(min=1e-9)


def coloured(features: Tensor, strength: Strength, generator: torch.Generator) -> Tensor:
    """Log-mel features (B, T, F) as by another microphone in another room: smooth changes over the frequencies."""
    drawn = torch.rand(3, len(features), 1, generator=generator)
    position = torch.linspace(-1, 1, features.shape[2])
    curve = (2 * drawn[0] - 1) * position + (2 * drawn[1] - 1) * torch.cos(math.pi * (position + 2 * drawn[2]))
    return features + (curve * strength.colour_db * math.log(10) / 10)[:, None]


def mask(features: Tensor, num_frames: Tensor, hop_s: float, strength: Strength, generator: torch.Generator) -> Tensor:
    """Set stretches of frequencies and of times to 0, the mean of normalised features.

    Args:
        features: (B, T, F), normalised.
        num_frames: (B,).
        hop_s: seconds from frame to frame.
        strength: how much.
        generator: of the draws.
    """
    b, t, f = features.shape
    keep = torch.ones(b, t, f, dtype=torch.bool)
    for _ in range(strength.bands):
        keep &= ~_stretch(torch.full((b,), f), f // 5, f, generator)[:, None, :]
    for _ in range(strength.times):
        keep &= ~_stretch(num_frames, max(1, int(MAX_MASKED_S / hop_s)), t, generator)[:, :, None]
    return features * keep


def _stretch(lengths: Tensor, max_width: int, size: int, generator: torch.Generator) -> Tensor:
    """(B, size) True in one random stretch, at most ``max_width`` and a fifth of the length wide."""
    drawn = torch.rand(2, len(lengths), generator=generator)
    width = drawn[0] * torch.minimum(torch.tensor(float(max_width)), lengths / 5)
    start = drawn[1] * (lengths - width)
    position = torch.arange(size)[None]
    return (position >= start.long()[:, None]) & (position < (start.long() + width.long())[:, None])


def _groups(lengths: Tensor, rate: int, strength: Strength, generator: torch.Generator) -> list[list[int]]:
    """Rows that are joined to one recording each: all rows, each once, in random order."""
    order = torch.randperm(len(lengths), generator=generator).tolist()
    sizes = torch.randint(1, strength.joined + 1, (len(order),), generator=generator).tolist()
    groups: list[list[int]] = []
    remaining, total_s = 0, 0.0
    for i, size in zip(order, sizes, strict=True):
        duration_s = float(lengths[i]) / rate + strength.silence_s / 2
        if remaining and total_s + duration_s <= strength.longest_s:
            groups[-1].append(i)
            remaining, total_s = remaining - 1, total_s + duration_s
        else:
            groups.append([i])
            remaining, total_s = size - 1, duration_s
    return groups


def _noise(audio: Tensor, num_samples: Tensor, strength: Strength, generator: torch.Generator) -> Tensor:
    """Noise for each row, also over the silence around the recordings."""
    b = len(audio)
    drawn = torch.rand(3, b, generator=generator)
    level = (audio.square().sum(1) / num_samples.clamp(min=1)).sqrt()
    snr = strength.least_snr_db + drawn[0] * (MAX_SNR_DB - strength.least_snr_db)
    amplitude = level * 10 ** (-snr / 20)
    inside = torch.arange(audio.shape[1])[None] < num_samples[:, None]
    noise, rows = torch.zeros_like(audio), torch.nonzero(drawn[1] < strength.noise)[:, 0]
    if len(rows):
        noise[rows] = coloured_noise((len(rows), audio.shape[1]), 4 * drawn[2, rows] - 2, generator)
    return noise * amplitude[:, None] * inside
