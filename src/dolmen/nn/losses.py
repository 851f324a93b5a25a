"""Losses. Each returns a sum and a weight, never a mean: sums add up over micro-batches and processes, means don't."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dolmen.nn.fp32 import dtype_of_products

MAX_CHUNK_LOGITS = 1 << 22
"""Logits that ``linear_cross_entropy`` holds at once."""
DRAWN_MULTIPLE = 1024
"""The number of classes that are drawn for a step is rounded up to a multiple of this."""


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


def linear_cross_entropy(
    out: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, drawn: Tensor | None = None
) -> Tensor:
    """Summed cross-entropy of softmax(out @ weight.T + bias), a part at a time, so that memory never holds all logits.

    With the vocabularies of language models the logits are by far the largest tensor, and the time goes into moving
    them. Gradients are computed on the way, so it can be differentiated once.

    With ``drawn`` the softmax's sum goes over a sample of the classes, each weighted by how unlikely it was drawn, so
    that the sum is right on average (importance sampling: Bengio & Senecal, 2003); targets are always in it.

    Args:
        out: (N, H).
        weight: (V, H).
        bias: (V,).
        targets: (N,) int64.
        drawn: (V,) the probability with which each class is drawn, one sample for the whole batch; None takes all.
    """
    result: Tensor = _LinearCrossEntropy.apply(out, weight, bias, targets, drawn)
    return result


def drawing_probabilities(counts: Tensor, number: float) -> Tensor:
    """(V,) with which probability to draw each class for ``linear_cross_entropy``.

    The more frequent the likelier, by the power 0.75 (Mikolov et al., 2013); the most frequent are always drawn.

    Args:
        counts: (V,) how often each class is a target.
        number: of classes that are drawn, on average.
    """
    shares = counts.double().clamp(min=0.5) ** 0.75
    rank = torch.arange(len(shares), dtype=torch.float64, device=shares.device)
    ordered = shares.sort(descending=True).values
    remaining = ordered.flip(0).cumsum(0).flip(0)
    # with the k most frequent always drawn, the others share what is left: the first k for which none is over 1
    scale = (number - rank) / remaining
    first = int((scale * ordered <= 1).nonzero()[0])
    return (shares * scale[first]).clamp(max=1).float()


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, drawn: Tensor | None) -> Tensor:
        device, dtype = out.device.type, dtype_of_products(out)
        kept, correction = None, None
        if drawn is not None:
            chosen = torch.rand_like(drawn) < drawn
            correction = torch.where(chosen, -drawn.log(), -torch.inf)  # a target that was not drawn is nobody else's
            chosen[targets] = True
            # Tensors of ever new sizes would tear the memory to pieces; what only fills up has no share either.
            not_chosen = (~chosen).nonzero()[:, 0]
            chosen[not_chosen[: -int(chosen.sum()) % DRAWN_MULTIPLE]] = True
            kept = chosen.nonzero()[:, 0]
            correction, targets = correction[kept], torch.searchsorted(kept, targets)
        with torch.autocast(device, enabled=False):
            x = out.to(dtype)
            w, b = (weight, bias) if kept is None else (weight[kept], bias[kept])
            w = w.to(dtype)
            total = torch.zeros((), device=out.device)
            learning = any(ctx.needs_input_grad)
            if learning:
                d_out, d_w = torch.empty_like(out), torch.zeros_like(w, dtype=torch.float32)
                d_b = torch.zeros_like(b, dtype=torch.float32)
            rows = max(1, MAX_CHUNK_LOGITS // len(w))
            for start in range(0, len(out), rows):
                part, wanted = x[start : start + rows], targets[start : start + rows, None]
                z = F.linear(part, w).float().add_(b)
                if correction is not None:
                    own = z.gather(1, wanted)
                    z = z.add_(correction).scatter_(1, wanted, own)
                log_p = F.log_softmax(z, 1)
                total -= log_p.gather(1, wanted).sum()
                if learning:
                    wrong = log_p.exp_()
                    wrong.scatter_add_(1, wanted, wrong.new_full(wanted.shape, -1.0))
                    d_b += wrong.sum(0)
                    wrong = wrong.to(dtype)
                    d_out[start : start + rows] = wrong @ w
                    d_w += wrong.T @ part
        if learning:
            ctx.save_for_backward(d_out, d_w.to(weight.dtype), d_b.to(bias.dtype), kept)
            ctx.num_classes = len(weight)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *gradients, kept = ctx.saved_tensors
        d_out, d_w, d_b = (t * gradient for t in gradients)
        if kept is not None:
            d_w, d_b = (t.new_zeros(ctx.num_classes, *t.shape[1:]).index_copy_(0, kept, t) for t in (d_w, d_b))
        return d_out, d_w, d_b, None, None
