"""Speech to units: a causal convolutional stem, recurrent layers, and one distribution a step (CTC).

It never looks ahead, so that a stream gives what the whole recording gives, a step at a time (Graves et al., 2006, for
the loss; Amodei et al., 2016, for convolutions before recurrent layers). With ``bidirectional`` layers it reads whole
recordings only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dolmen.nn.convolutional.blocks import BatchNorm2d
from dolmen.nn.initialisers import initialise
from dolmen.nn.losses import Loss
from dolmen.nn.recurrent.layers import CELL_CLASSES
from dolmen.nn.recurrent.state import State

KERNEL_FRAMES = 3
"""Frames that a convolution sees, none of them to come."""


class Recogniser(nn.Module):
    """A convolutional stem, recurrent layers, and a distribution over units for each step.

    Args:
        num_features: F, values in a frame.
        num_units: V, the first of them CTC's blank.
        stride: S, frames that make a step.
        channels: feature maps of the two convolutions.
        hidden: units of a recurrent layer.
        layers: number of recurrent layers.
        cell: gru, lstm or rnn.
        bidirectional: recurrent layers also read backwards; then nothing streams.
        dropout: locked, before, between and after the recurrent layers.
    """

    def __init__(
        self, num_features: int, num_units: int, *, stride: int = 4, channels: tuple[int, int] = (16, 16),
        hidden: int = 56, layers: int = 2, cell: str = "gru", bidirectional: bool = False, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stride, self.bidirectional, self.num_features = stride, bidirectional, num_features
        first, second = channels
        self.pace = 1 if stride % 2 else 2
        """Frames from one place of the first convolution to the next: sound changes little from frame to frame."""
        # Time is padded by what came before, by the caller; frequency by nothing.
        self.stem = nn.Conv2d(1, first, (KERNEL_FRAMES, 5), padding=(0, 2), stride=(self.pace, 2), bias=False)
        self.norm = BatchNorm2d(first)
        self.deep = nn.Conv2d(first, second, (KERNEL_FRAMES, 3), padding=(0, 1), bias=False)
        self.deep_norm = BatchNorm2d(second)
        self.bands = (num_features + 1) // 2
        self.recurrent = CELL_CLASSES[cell](
            second * (self.bands // 2), hidden, layers, batch_first=True, bidirectional=bidirectional,
            input_dropout=dropout, hidden_dropout=dropout, output_dropout=dropout,
        )  # fmt: skip
        self.head = nn.Linear(hidden * (2 if bidirectional else 1), num_units)
        initialise(self.recurrent)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor, State]:
        """A stream before its first step: (B, 1 or 2, F) frames, (B, C, 2, F / 2) maps, and the recurrent state."""
        like = self.head.weight
        frames = like.new_zeros(batch, KERNEL_FRAMES - self.pace, self.num_features)
        maps = like.new_zeros(batch, self.stem.out_channels, KERNEL_FRAMES - 1, self.bands)
        return frames, maps, self.recurrent.initial_state(batch)

    def features(self, frames: Tensor, before: Tensor, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, S, F) to what the recurrent layers take (B, T, C * F / 4), and the next step's frames and maps."""
        b, t, s, f = frames.shape
        x = torch.cat([before, frames.reshape(b, t * s, f)], 1)
        before = x[:, -before.shape[1] :]
        x = F.relu(self.norm(self.stem(x[:, None])))
        x = torch.cat([maps, x], 2)
        maps = x[:, :, -maps.shape[2] :]
        x = F.max_pool2d(F.relu(self.deep_norm(self.deep(x))), (s // self.pace, 2))
        return x.permute(0, 2, 1, 3).reshape(b, t, -1), before, maps

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, T, S, F) steps of normalised frames -> (B, T, V) log-probabilities, fp32.

        Args:
            frames: of S frames each, 0 behind a recording.
            lengths: (B,) steps of each recording; needed where the layers read backwards.
        """
        before, maps, state = self.initial_state(frames.shape[0])
        x, _, _ = self.features(frames, before, maps)
        out, _ = self.recurrent(x, state, lengths=lengths) if self.bidirectional else self.recurrent(x, state)
        return self.log_probabilities(out)

    def log_probabilities(self, out: Tensor) -> Tensor:
        """Outputs of the last recurrent layer to (..., V) log-probabilities, in fp32."""
        return F.log_softmax(self.head(out).float(), -1)


def ctc_loss(log_probabilities: Tensor, steps: Tensor, units: Tensor, num_units: Tensor) -> Loss:
    """Minus the log-probability of the units, over all ways to place them; summed over recordings.

    Recordings that are too short for their units weigh nothing.

    Args:
        log_probabilities: (B, T, V).
        steps: (B,) length of each recording.
        units: (B, U) from 1, any value behind the last.
        num_units: (B,).
    """
    losses = F.ctc_loss(
        log_probabilities.float().transpose(0, 1), units.clamp(min=0), steps, num_units, blank=0, reduction="none",
        zero_infinity=True,
    )  # fmt: skip
    return Loss(losses.sum(), float(num_units[losses.detach() > 0].sum()) + 1e-9)


class StreamGraph(nn.Module):
    """A recogniser whose state from step to step is plain tensors, for export."""

    def __init__(self, model: Recogniser) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, frames: Tensor, before: Tensor, maps: Tensor, hidden: Tensor, cell: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """(B, T, S, F) steps and the state of a stream -> (B, T, V) log-probabilities, and the new state.

        Args:
            frames: the steps.
            before: (B, 1 or 2, F) frames before them.
            maps: (B, C, 2, F / 2) of the first convolution.
            hidden: (L, B, H).
            cell: (L, B, H) of an LSTM.
        """
        x, before, maps = self.model.features(frames, before, maps)
        out, after = self.model.recurrent(x, State(hidden, cell))
        outputs = self.model.log_probabilities(out), before, maps, after.hidden
        return outputs if after.cell is None else (*outputs, after.cell)


class WholeGraph(nn.Module):
    """A recogniser that reads recordings as a whole, for export."""

    def __init__(self, model: Recogniser) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, S, F) steps and (B,) how many are of each recording -> (B, T, V) log-probabilities."""
        log_probabilities: Tensor = self.model(frames, lengths)
        return log_probabilities


def stacked(features: Tensor, stride: int) -> Tensor:
    """(B, N, F) frames to steps (B, ceil(N / stride), stride, F); zeros behind the last."""
    b, n, f = features.shape
    steps = -(-n // stride)
    return F.pad(features, (0, 0, 0, steps * stride - n)).reshape(b, steps, stride, f)
