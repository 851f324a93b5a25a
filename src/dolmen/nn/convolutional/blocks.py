"""The convolutional pillar: the blocks that every network here is built from.

A convolution shares its weights over all positions and connects each output only to its neighbourhood; pooling
keeps what was strongest (max) or what was there on average; a fully connected layer with softmax decides.
All of them are torch's own layers. What is ours is what torch leaves out: input normalisation inside the network
(so that no other program can get it wrong), batch norm whose statistics are those of the global batch on any
number of processes, and a first layer that whitens the pictures' patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class Normalise(nn.Module):
    """Turn stored pixel values into zero mean and unit variance a channel: ``(x - mean) / std``.

    Args:
        mean: C channel means in 0..255.
        std: C channel standard deviations in 0..255, all > 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) float, raw values 0..255 -> the same shape, of mean 0 and variance 1 a channel."""
        return (pixels - self.mean) / self.std


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; so is its gradient (torch's own differentiable one is deprecated)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _SumOverProcesses.forward(ctx, gradients[0])


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over (B, H, W) of the *global* batch (Ioffe & Szegedy, 2015).

    On one process this is ``torch.nn.BatchNorm2d``. On several, mean and variance are summed over all of them (torch
    has this for CUDA only), so that two processes compute what one process computes with the whole batch.
    With gradient accumulation the statistics are those of the micro-batch. A single value a channel has no variance:
    then the running statistics are used, where torch raises.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape and precision."""
        distributed = dist.is_initialized() and dist.get_world_size() > 1
        if self.training and not distributed and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        if not (self.training and distributed):
            return super().forward(x)
        values = x.float()
        count = torch.tensor([values.numel() / values.shape[1]], device=x.device)
        total = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count])  # (2C + 1)
        total = _SumOverProcesses.apply(total)
        mean, square, count = total[:-1].view(2, -1)[0], total[:-1].view(2, -1)[1], total[-1]
        mean, var = mean / count, square / count - (mean / count).square()
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                assert self.momentum is not None
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * count / (count - 1).clamp(min=1), self.momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        scale = (var + self.eps).rsqrt() * (1.0 if self.weight is None else self.weight)
        shift = (0.0 if self.bias is None else self.bias) - mean * scale
        out: Tensor = values * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
        return out.to(x.dtype)


class ConvNormAct(nn.Sequential):
    """Convolution, batch norm, activation.

    Shapes:
        input: (B, in_channels, H, W); output: (B, out_channels, ceil(H / stride), ceil(W / stride)).

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: odd; the picture is zero-padded by half of it.
        stride: 1 keeps the size, 2 halves it.
        groups: 1, or ``in_channels`` for a depthwise convolution.
        act: the activation class, or None for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        act: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.norm = BatchNorm2d(out_channels)
        if act is not None:
            self.act = act()


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the average of all channels (Hu et al., 2018)."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(8, channels // reduction)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        average = x.mean((2, 3), keepdim=True)  # (B, channels, 1, 1)
        gate: Tensor = self.expand(F.relu(self.reduce(average))).sigmoid()
        return x * gate


class DropPath(nn.Module):
    """Skip a residual branch for whole examples with probability ``p`` (stochastic depth, Huang et al., 2016)."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape; in training, whole examples are 0."""
        if not self.training or self.p == 0:
            return x
        keep = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * keep / (1 - self.p)

    def extra_repr(self) -> str:
        """The probability, for ``print``."""
        return f"p={self.p}"


def dirac_(conv: nn.Conv2d) -> None:
    """Start a convolution as the identity on its first ``in_channels`` outputs (in place)."""
    with torch.no_grad():
        nn.init.dirac_(conv.weight[: conv.in_channels])


def whiten_(conv: nn.Conv2d, images: Tensor, eps: float = 5e-4) -> None:
    """Set ``conv`` to the whitening filters of the images' patches, and freeze them (in place).

    The filters are the eigenvectors of the patch covariance, each divided by the root of its eigenvalue, followed by
    the same with the sign turned (Page, 2018; Jordan, 2024). Where the layer has fewer outputs than twice the patch
    size, the directions with the largest variance are kept.

    Args:
        conv: (out_channels even, in_channels, k, k); no padding.
        images: (N, in_channels, H, W) float, normalised as the network does it; a few thousand suffice.
        eps: added to the eigenvalues, so that directions which the pictures do not have are not blown up.
    """
    k = conv.kernel_size[0]
    patches = F.unfold(images.float(), k, stride=max(1, k // 2)).transpose(1, 2).flatten(0, 1)  # (P, C k k)
    covariance = patches.T.double() @ patches.double() / len(patches)
    values, vectors = torch.linalg.eigh(covariance)
    order = values.argsort(descending=True)[: conv.out_channels // 2]
    filters = (vectors[:, order] / (values[order] + eps).sqrt()).T.view(-1, conv.in_channels, k, k)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[: len(filters)] = filters.float()
        half = conv.out_channels // 2
        conv.weight[half : half + len(filters)] = -filters.float()
    conv.weight.requires_grad_(False)
