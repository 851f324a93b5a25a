"""Networks that classify pictures, one small function a size.

Every network has ``forward_features(pixels) -> (B, F, h, w)`` and ``forward_head(features) -> (B, K)`` logits, the
names that timm uses too, so that explanations work on all of them. Softmax is applied outside, in the loss or the
processor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dolmen.nn.convolutional.blocks import BatchNorm2d, ConvNormAct, DropPath, Normalise, SqueezeExcite, dirac_, whiten_
from dolmen.types import UserError
from dolmen.wording import did_you_mean


class Classifier(nn.Module):
    """A trunk of named stages, a global pool and a fully connected layer.

    Args:
        normalise: the first layer.
        stages: name to module; applied in order.
        num_features: channels that the last stage gives.
        num_classes: K.
        pool: "max" or "avg", over all positions.
        head_scale: the logits are multiplied by it.
        dropout: before the fully connected layer.
    """

    def __init__(
        self,
        normalise: Normalise,
        stages: dict[str, nn.Module],
        num_features: int,
        num_classes: int,
        *,
        pool: str = "avg",
        head_scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.stages = nn.ModuleDict(stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(num_features, num_classes)
        self.pool, self.head_scale = pool, head_scale

    def forward_features(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) raw pixels -> (B, num_features, h, w)."""
        x: Tensor = self.normalise(pixels)
        for stage in self.stages.values():
            x = stage(x)
        return x

    def forward_head(self, features: Tensor) -> Tensor:
        """(B, num_features, h, w) -> (B, num_classes) logits."""
        pooled = features.amax((2, 3)) if self.pool == "max" else features.mean((2, 3))
        return self.head(self.dropout(pooled)) * self.head_scale  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) float, raw values 0..255 -> (B, num_classes) logits."""
        return self.forward_head(self.forward_features(pixels))


# ---- fast: the shape that holds the CIFAR-10 speed record (cifar10-airbench, Jordan 2024), for small pictures


class WhitenedStem(nn.Module):
    """A frozen convolution that whitens patches, then GELU; its bias is trained."""

    def __init__(self, in_channels: int, kernel_size: int, stride: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, kernel_size, stride)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)
        self.conv.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, width, (H - k) // stride + 1, (W - k) // stride + 1)."""
        return F.gelu(self.conv(x))


class FastStage(nn.Module):
    """Convolution, 2x2 max pool, then two more at the halved size, whose result is added to the first one's.

    Each has batch norm and GELU.
    """

    def __init__(self, in_channels: int, out_channels: int, *, pool: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.norm1 = frozen_scale_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = frozen_scale_norm(out_channels)
        self.conv3 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm3 = frozen_scale_norm(out_channels)
        for conv in (self.conv1, self.conv2, self.conv3):
            dirac_(conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H // 2, W // 2); H and W stay without the pool."""
        x = F.gelu(self.norm1(self.pool(self.conv1(x))))
        y = F.gelu(self.norm2(self.conv2(x)))
        return F.gelu(x + self.norm3(self.conv3(y)))


def frozen_scale_norm(channels: int) -> BatchNorm2d:
    """Batch norm whose scale stays 1 (the next filters are renormalised) and that averages quickly."""
    norm = BatchNorm2d(channels, momentum=0.4)  # torch counts the share of the new value: 0.4 is "0.6" elsewhere
    assert norm.weight is not None
    norm.weight.requires_grad_(False)
    return norm


def fast(
    num_classes: int,
    normalise: Normalise,
    image_size: int,
    widths: Sequence[int] = (64, 256, 256),
) -> Classifier:
    """The fast network for small pictures: whitening stem and one stage a halving until the map is 3 to 7 wide.

    About 3 M parameters at 32 x 32. Larger pictures get a stem with a larger stride.

    Args:
        num_classes: K.
        normalise: the first layer; tells the number of channels.
        image_size: the smaller side in pixels, at least 8.
        widths: channels of the stages.
    """
    channels = normalise.mean.numel()
    stride = max(1, image_size // 48)
    kernel = 2 * stride if stride > 1 else 2
    stem_width = 2 * min(channels * kernel * kernel, 24)
    stages: dict[str, nn.Module] = {"stem": WhitenedStem(channels, kernel, stride, stem_width)}
    size, before = (image_size - kernel) // stride + 1, stem_width
    for i, width in enumerate(widths, start=1):
        pool = size >= 4
        stages[f"stage{i}"] = FastStage(before, width, pool=pool)
        size, before = size // 2 if pool else size, width
    return Classifier(normalise, stages, before, num_classes, pool="max", head_scale=1 / 9)


# ---- residual networks (He et al., 2016)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1, drop_path: float = 0.0) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, width, 3, stride=stride)
        self.conv2 = ConvNormAct(width, width, 3, act=None)
        self.shortcut = shortcut(in_channels, width, stride)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, width, ceil(H / stride), ceil(W / stride))."""
        return F.relu(self.shortcut(x) + self.drop_path(self.conv2(self.conv1(x))))


class Bottleneck(nn.Module):
    """1x1 down, 3x3 (with the stride, as torchvision does), 1x1 up to four times the width, and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1, drop_path: float = 0.0) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, width, 1)
        self.conv2 = ConvNormAct(width, width, 3, stride=stride)
        self.conv3 = ConvNormAct(width, 4 * width, 1, act=None)
        self.shortcut = shortcut(in_channels, 4 * width, stride)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, 4 * width, ceil(H / stride), ceil(W / stride))."""
        return F.relu(self.shortcut(x) + self.drop_path(self.conv3(self.conv2(self.conv1(x)))))


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Nothing where the shapes agree, else a 1x1 convolution with batch norm."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvNormAct(in_channels, out_channels, 1, stride=stride, act=None)


def resnet(
    num_classes: int,
    normalise: Normalise,
    image_size: int,
    block: type[BasicBlock] | type[Bottleneck],
    depths: Sequence[int],
    widths: Sequence[int] = (64, 128, 256, 512),
    drop_path: float = 0.0,
) -> Classifier:
    """A residual network. Pictures of 64 pixels or less get a 3x3 stem that keeps the size, others 7x7 and a max pool.

    Args:
        num_classes: K.
        normalise: the first layer; tells the number of channels.
        image_size: the smaller side in pixels.
        block: BasicBlock or Bottleneck.
        depths: blocks in each stage.
        widths: channels of each stage.
        drop_path: probability of skipping the last block's branch; earlier blocks have proportionally less.
    """
    channels = normalise.mean.numel()
    if image_size <= 64:
        stem: nn.Module = ConvNormAct(channels, widths[0], 3)
    else:
        stem = nn.Sequential(ConvNormAct(channels, widths[0], 7, stride=2), nn.MaxPool2d(3, 2, padding=1))
    stages: dict[str, nn.Module] = {"stem": stem}
    before, done = widths[0], 0
    for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        blocks = []
        for j in range(depth):
            stride = 2 if i > 0 and j == 0 else 1
            blocks.append(block(before, width, stride, drop_path * done / max(1, sum(depths) - 1)))
            before, done = width * block.expansion, done + 1
        stages[f"stage{i + 1}"] = nn.Sequential(*blocks)
    net = Classifier(normalise, stages, before, num_classes)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def resnet8(num_classes: int, normalise: Normalise, image_size: int) -> Classifier:
    """1.2 M parameters: one block a stage, three stages."""
    return resnet(num_classes, normalise, image_size, BasicBlock, (1, 1, 1), (64, 128, 256))


def resnet18(num_classes: int, normalise: Normalise, image_size: int) -> Classifier:
    """11.2 M parameters."""
    return resnet(num_classes, normalise, image_size, BasicBlock, (2, 2, 2, 2))


def resnet34(num_classes: int, normalise: Normalise, image_size: int) -> Classifier:
    """21.3 M parameters."""
    return resnet(num_classes, normalise, image_size, BasicBlock, (3, 4, 6, 3), drop_path=0.05)


def resnet50(num_classes: int, normalise: Normalise, image_size: int) -> Classifier:
    """23.5 M parameters."""
    return resnet(num_classes, normalise, image_size, Bottleneck, (3, 4, 6, 3), drop_path=0.05)


# ---- mobile: inverted residuals (Sandler et al., 2018) with squeeze-and-excite, for devices


class InvertedResidual(nn.Module):
    """1x1 up, 3x3 depthwise, squeeze-and-excite, 1x1 down; a shortcut where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expand: int = 4) -> None:
        super().__init__()
        hidden = in_channels * expand
        self.up = ConvNormAct(in_channels, hidden, 1, act=nn.Hardswish)
        self.depthwise = ConvNormAct(hidden, hidden, 3, stride=stride, groups=hidden, act=nn.Hardswish)
        self.gate = SqueezeExcite(hidden)
        self.down = ConvNormAct(hidden, out_channels, 1, act=None)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.down(self.gate(self.depthwise(self.up(x))))
        return x + y if self.residual else y


def mobile(num_classes: int, normalise: Normalise, image_size: int) -> Classifier:
    """The size for edge devices: 0.36 M parameters."""
    channels = normalise.mean.numel()
    stages: dict[str, nn.Module] = {
        "stem": ConvNormAct(channels, 16, 3, stride=1 if image_size <= 64 else 2, act=nn.Hardswish)
    }
    before = 16
    for i, (width, depth, stride) in enumerate(((24, 2, 2), (40, 3, 2), (80, 3, 2)), start=1):
        blocks = []
        for j in range(depth):
            blocks.append(InvertedResidual(before, width, stride if j == 0 else 1))
            before = width
        stages[f"stage{i}"] = nn.Sequential(*blocks)
    stages["last"] = ConvNormAct(before, 320, 1, act=nn.Hardswish)
    return Classifier(normalise, stages, 320, num_classes, dropout=0.1)


NETWORKS = {
    "fast": fast,
    "resnet8": resnet8,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "mobile": mobile,
}


@torch.no_grad()
def initialise_from_data(net: nn.Module, pixels: Tensor) -> None:
    """Set what a network learns from the pictures before the first step (the whitening filters), in place.

    Args:
        net: any network; those without a whitening stem are left alone.
        pixels: (N, C, H, W) raw training pictures; 2,000 are plenty.
    """
    if isinstance(net, Classifier):
        for module in net.modules():
            if isinstance(module, WhitenedStem):
                whiten_(module.conv, net.normalise(pixels.float()))


def build_classifier(
    name: str, num_classes: int, normalise: Normalise, image_size: int, *, pretrained: bool = False
) -> nn.Module:
    """Make a network by its name.

    Args:
        name: a key of ``NETWORKS``, or ``timm:NAME`` for a backbone of the timm library.
        num_classes: K.
        normalise: the first layer; tells the number of channels.
        image_size: the smaller side in pixels.
        pretrained: start from published weights (timm only).

    Raises:
        UserError: the name is unknown, or the weights can't be had.
    """
    if name.startswith("timm:"):
        from dolmen.nn.convolutional.timm_backbone import timm_classifier

        return timm_classifier(name.removeprefix("timm:"), num_classes, normalise, pretrained=pretrained)
    if name not in NETWORKS:
        hint = did_you_mean(name, NETWORKS)
        raise UserError(
            f"there is no network {name!r}; {hint}{'Give' if hint else 'give'} one of "
            f"{', '.join(NETWORKS)}, or timm:NAME"
        )
    if pretrained:
        raise UserError(f"{name} has no published weights; give --model timm:NAME, or leave --weights out")
    return NETWORKS[name](num_classes, normalise, image_size)


class ViewAverage(nn.Module):
    """The weighted mean of a classifier's logits over several views of each picture.

    Args:
        model: a classifier.
        views: (weight, rows, columns), the indices that make the view; the weights sum to 1.
    """

    def __init__(self, model: nn.Module, views: Sequence[tuple[float, NDArray[np.int64], NDArray[np.int64]]]) -> None:
        super().__init__()
        self.model, self.weights = model, [weight for weight, _, _ in views]
        device = next(model.parameters()).device
        self.places = [tuple(torch.from_numpy(i).to(device) for i in view[1:]) for view in views]

    def forward(self, images: Tensor) -> Tensor:
        """(B, H, W, C) uint8, as stored -> (B, K) float logits."""
        # A graph holds the network once, and gives it all views as one batch.
        if len(self.weights) > 1 and torch.compiler.is_exporting():
            batch = torch.cat([self._view(images, rows, columns) for rows, columns in self.places])
            logits = self.model(batch).view(len(self.places), images.shape[0], -1)
            mean: Tensor = (logits * torch.tensor(self.weights)[:, None, None]).sum(0)
            return mean
        weighted = [
            self.model(self._view(images, rows, columns)).float() * weight
            for weight, (rows, columns) in zip(self.weights, self.places, strict=True)
        ]
        return torch.stack(weighted).sum(0)

    def _view(self, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        if len(self.weights) > 1:
            images = images.index_select(1, rows).index_select(2, columns)
        return images.permute(0, 3, 1, 2).float()
