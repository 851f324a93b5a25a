"""Losses. Each returns a sum and a weight, never a mean: sums add up over micro-batches and processes, means don't."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Loss(NamedTuple):
    """A loss over part of a batch.

    Attributes:
        total: () tensor, summed over what it counts (examples, tokens, frames).
        weight: how many it counted. The engine divides the sum of the totals by the sum of the weights, once, after
            all micro-batches and all processes have spoken: accumulation equals the large batch by construction.
    """

    total: Tensor
    weight: float


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Loss:
    """Cross-entropy of softmax(logits) against classes or class probabilities.

    Args:
        logits: (B, K) float; computed in fp32 whatever they come in.
        targets: (B,) int64 classes, or (B, K) float rows that sum to 1 (mixed labels).
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al., 2016).
    """
    total = F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing, reduction="sum")
    return Loss(total, float(len(logits)))
