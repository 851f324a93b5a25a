"""Detectors by name: which trunk, and how wide what stands on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dolmen.nn.convolutional.blocks import ConvNormAct, Normalise
from dolmen.nn.convolutional.classifiers import NETWORKS, BasicBlock, Classifier, build_classifier
from dolmen.tasks.object_detection.nn.network import STRIDES, Detector
from dolmen.types import UserError
from dolmen.wording import did_you_mean

DETECTORS = ("edge", "standard", *(name for name in NETWORKS if name != "fast"))
"""``fast`` is for small pictures and has no map of stride 8."""


class Trunk(nn.Module):
    """The stages of a network, tapped where the map has a stride of 8, 16 and 32; what is missing is added on top.

    Args:
        stages: applied in order.
        in_channels: C.
    """

    def __init__(self, stages: Sequence[nn.Module], in_channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        strides, widths = self._measure(in_channels)
        taps = {stride: i for i, stride in enumerate(strides)}  # the last stage of each stride
        while max(strides) < STRIDES[-1]:
            self.stages.append(ConvNormAct(widths[-1], widths[-1], 3, stride=2))
            strides, widths = [*strides, 2 * strides[-1]], [*widths, widths[-1]]
            taps[strides[-1]] = len(strides) - 1
        self.taps = tuple(taps[s] for s in STRIDES)
        self.channels = tuple(widths[i] for i in self.taps)

    @torch.no_grad()
    def _measure(self, in_channels: int) -> tuple[list[int], list[int]]:
        """The stride and the channels after each stage."""
        training = self.training
        self.eval()
        x = torch.zeros(1, in_channels, 64, 64)
        strides, widths = [], []
        for stage in self.stages:
            x = stage(x)
            strides.append(64 // x.shape[2])
            widths.append(x.shape[1])
        self.train(training)
        return strides, widths

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) -> (B, channels[i], H / stride, W / stride) for the strides 8, 16 and 32."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return [features[i] for i in self.taps]


def edge_trunk(in_channels: int, widths: Sequence[int] = (24, 48, 96, 160, 224)) -> Trunk:
    """Residual stages at strides 2 to 32, 1.9 M parameters."""
    stem, *stage_widths = widths
    stages: list[nn.Module] = [ConvNormAct(in_channels, stem, 3, stride=2)]
    in_width = stem
    for width, depth in zip(stage_widths, (1, 2, 2, 1), strict=True):
        blocks = [BasicBlock(in_width if j == 0 else width, width, 2 if j == 0 else 1) for j in range(depth)]
        stages.append(nn.Sequential(*blocks))
        in_width = width
    for module in nn.ModuleList(stages).modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return Trunk(stages, in_channels)


def build_detector(
    name: str,
    normalise: Normalise,
    *,
    anchor_shapes: Sequence[Sequence[Sequence[float]]],
    height: int,
    width: int,
    num_classes: int,
    num_proposals: int,
    pretrained: bool = False,
) -> Detector:
    """Make a detector by its name.

    Args:
        name: "edge" (2.6 M parameters), "standard" (ResNet-18 with wider layers on it), a network of image
            classification, or ``timm:NAME``.
        normalise: the first layer; tells the number of channels.
        anchor_shapes: a list a level of (width, height) in pixels.
        height: of the input, a multiple of 32.
        width: likewise.
        num_classes: C.
        num_proposals: K.
        pretrained: start from published weights (timm only).

    Raises:
        UserError: the name is unknown, or the weights can't be had.
    """
    if not name.startswith("timm:") and name not in DETECTORS:
        hint = did_you_mean(name, DETECTORS)
        raise UserError(
            f"there is no detector {name!r}; {hint}{'Give' if hint else 'give'} one of "
            f"{', '.join(DETECTORS)}, or timm:NAME"
        )
    if pretrained and not name.startswith("timm:"):
        raise UserError(f"{name} has no published weights; give --model timm:NAME, or leave --weights out")
    in_channels = normalise.mean.numel()
    trunk: Any
    if name == "edge":
        trunk = edge_trunk(in_channels)
    elif name.startswith("timm:"):
        from dolmen.nn.convolutional.timm_backbone import timm_trunk

        trunk = timm_trunk(name.removeprefix("timm:"), normalise, STRIDES, pretrained=pretrained)
    else:
        classifier = build_classifier("resnet18" if name == "standard" else name, 1, normalise, 320)
        assert isinstance(classifier, Classifier)
        trunk = Trunk(list(classifier.stages.values()), in_channels)
    large = name == "standard"
    return Detector(
        normalise, trunk, trunk.channels, anchor_shapes=anchor_shapes, height=height, width=width,
        num_classes=num_classes, pyramid=128 if large else 64, hidden=256 if large else 128,
        num_proposals=num_proposals,
    )  # fmt: skip
