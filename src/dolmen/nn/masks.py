"""Random masks of recurrent layers: dropout that stays from step to step, and the units that zoneout holds."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def locked_dropout(x: Tensor, rate: float, training: bool, axis: int = 0) -> Tensor:
    """Dropout with one mask along an axis: for all steps of a sequence (T, B, F), or of whole words (V, E) along 1."""
    if not training or rate == 0:
        return x
    return x * F.dropout(torch.ones_like(x.narrow(axis, 0, 1)), rate)


def random_mask(shape: tuple[int, ...], rate: float, device: torch.device) -> Tensor:
    """Bool, True at the rate, to 1/65,536: drawing is what takes time, so that each number serves four values."""
    numbers = torch.empty(-(-math.prod(shape) // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    return numbers.view(torch.int16)[: math.prod(shape)].view(shape) < rate * 2**16 - 2**15
