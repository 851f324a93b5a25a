"""The front end of ``processors.audio`` on torch, for many recordings at once; the same numbers to a few digits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dolmen.types import Arrays


class LogMelFrames(nn.Module):
    """Samples (B, N) to log-mel energies (B, T, F).

    Args:
        arrays: ``window`` (W,) and ``banks`` (K, W' / 2 + 1, F), the first of them without any warp.
        hop: samples from frame to frame.
        preemphasis, scale, floor, remove_dc: as in ``LogMel``.
    """

    window: Tensor
    banks: Tensor

    def __init__(
        self, arrays: Arrays, *, hop: int, preemphasis: float, scale: float, floor: float, remove_dc: bool
    ) -> None:
        super().__init__()
        self.hop, self.preemphasis, self.scale, self.floor, self.remove_dc = hop, preemphasis, scale, floor, remove_dc
        for name in ("window", "banks"):
            self.register_buffer(name, torch.from_numpy(arrays[name]).float(), persistent=False)

    def num_frames(self, num_samples: Any) -> Any:
        """Frames of recordings of so many samples."""
        return (num_samples - len(self.window)).clamp(min=0) // self.hop + 1

    def forward(self, audio: Tensor, banks: Tensor | None = None) -> Tensor:
        """(B, N) samples in -1..1 -> (B, T, F) log-mel energies.

        Args:
            audio: a recording a row.
            banks: (B,) which bank each recording takes; None for the first.
        """
        size = len(self.window)
        audio = F.pad(audio, (0, max(0, size - audio.shape[1])))
        x = audio.unfold(1, size, self.hop) * self.scale
        if self.remove_dc:
            x = x - x.mean(-1, keepdim=True)
        if self.preemphasis:
            x = x - self.preemphasis * torch.cat([x[..., :1], x[..., :-1]], -1)
        num_bins = self.banks.shape[1]
        spectrum = torch.fft.rfft(x * self.window, n=2 * (num_bins - 1))
        power = spectrum.real.square() + spectrum.imag.square()
        energy = power @ self.banks[0] if banks is None else torch.bmm(power, self.banks[banks])
        return energy.clamp(min=self.floor).log()


def below_level(features: Tensor, *, least: float, span: float, release: float) -> Tensor:
    """Frames (B, T, F) by how far they are below the level, as ``Level.relative`` gives them of one recording.

    Args:
        features: nats of energy.
        least: the level never falls below it.
        span: nats below the level at which sound is cut off.
        release: nats that the level falls by from frame to frame.
    """
    loudest = features.amax(2)
    fallen = torch.arange(1, features.shape[1] + 1, device=features.device) * release
    level = (torch.cummax(loudest + fallen, 1).values - fallen).clamp(min=least)
    return (features - level[:, :, None]).clamp(min=-span)
