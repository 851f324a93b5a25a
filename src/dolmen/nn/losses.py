"""Losses. Each returns a sum and a weight, never a mean: sums add up over micro-batches and processes, means don't."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_LOGITS = 1 << 22
"""Logits that ``linear_cross_entropy`` holds at once."""


class Loss(NamedTuple):
    """A loss over part of a batch.

    Attributes:
        total: () tensor, summed over what it counts (examples, tokens, frames).
        weight: how many it counted. The engine divides the sum of the totals by the sum of the weights, once, after
            all micro-batches and all processes have spoken: accumulation equals the large batch by construction.
    """

    total: Tensor
    weight: float


def nothing(model: nn.Module) -> Loss:
    """The loss of a process that a batch left nothing for: 0, and so are its gradients."""
    return Loss(torch.stack([p.sum() for p in model.parameters()]).sum() * 0, 0.0)


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Loss:
    """Cross-entropy of softmax(logits) against classes or class probabilities.

    Args:
        logits: (B, K) float; computed in fp32 whatever they come in.
        targets: (B,) int64 classes, or (B, K) float rows that sum to 1 (mixed labels).
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al., 2016).
    """
    total = F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing, reduction="sum")
    return Loss(total, float(len(logits)))


def linear_cross_entropy(out: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy of softmax(out @ weight.T + bias), a part at a time: all logits are never there at once.

    With the vocabularies of language models the logits are by far the largest tensor, and the time goes into moving
    them. Gradients are worked out on the way, so it can be differentiated once.

    Args:
        out: (N, H).
        weight: (V, H).
        bias: (V,).
        targets: (N,) int64.
    """
    result: Tensor = _LinearCrossEntropy.apply(out, weight, bias, targets)
    return result


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        device = out.device.type
        half = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if half else out.dtype
        with torch.autocast(device, enabled=False):
            x, w = out.to(dtype), weight.to(dtype)
            total = torch.zeros((), device=out.device)
            learning = any(ctx.needs_input_grad)
            if learning:
                d_out, d_weight = torch.empty_like(out), torch.zeros_like(weight, dtype=torch.float32)
                d_bias = torch.zeros_like(bias, dtype=torch.float32)
            rows = max(1, MOST_LOGITS // len(weight))
            for start in range(0, len(out), rows):
                part, wanted = x[start : start + rows], targets[start : start + rows, None]
                log_p = F.log_softmax(F.linear(part, w).float().add_(bias), 1)
                total -= log_p.gather(1, wanted).sum()
                if learning:
                    wrong = log_p.exp_()
                    wrong.scatter_add_(1, wanted, wrong.new_full(wanted.shape, -1.0))
                    d_bias += wrong.sum(0)
                    wrong = wrong.to(dtype)
                    d_out[start : start + rows] = wrong @ w
                    d_weight += wrong.T @ part
        if learning:
            ctx.save_for_backward(d_out, d_weight.to(weight.dtype), d_bias.to(bias.dtype))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *(t * gradient for t in ctx.saved_tensors), None
