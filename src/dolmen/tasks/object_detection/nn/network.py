"""A light two-stage detector: backbone, feature pyramid, region proposal network, and a head that looks at each region.

The shape is Faster R-CNN's (Ren et al., 2015) with a feature pyramid (Lin et al., 2017), made small as in ThunderNet
(Qin et al., 2019). Proposals are the strongest local maxima of the objectness maps, always equally many: that needs no
non-maximum suppression inside the network, so that it exports with any batch size and can't stumble over a picture
without objects. What overlaps in the end is suppressed by the processor, outside the network.

Boxes inside the network are in pixels of its input. B pictures, N anchors, K proposals, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dolmen.nn.convolutional.blocks import ConvNormAct, Normalise

STRIDES = (8, 16, 32)
BINS = 7
"""Cells along a side of a region that the head looks at."""
MAX_LOG_SCALE = math.log(1000.0 / 16)
"""Widths and heights grow at most so much from an anchor, in the logarithm: an early network must not overflow."""
SUPPRESSED = 20.0
"""What a place that is no local maximum loses of its objectness (a logit); it keeps its rank among its like."""
ALIKE_IOU = 0.5
"""IoU from which on two anchor shapes of a level stand for the same objects."""


class DetectorOutput(NamedTuple):
    """The output of a detector for B pictures.

    Attributes:
        boxes: (B, K, 4) xyxy.
        logits: (B, K, C + 1), the last class is background.
        proposals: (B, K, 4) xyxy, the regions that the head classified.
        objectness: (B, K) logits of the proposals.
    """

    boxes: Tensor
    logits: Tensor
    proposals: Tensor
    objectness: Tensor


class ProposalOutput(NamedTuple):
    """The output of the region proposal network at every anchor.

    Attributes:
        objectness: (B, N) logits.
        boxes: (B, N, 4) xyxy.
        ranks: (B, N) objectness, less ``SUPPRESSED`` where a neighbour of a like anchor shape is stronger.
    """

    objectness: Tensor
    boxes: Tensor
    ranks: Tensor


def decode_boxes(deltas: Tensor, references: Tensor) -> Tensor:
    """Boxes from their differences to references, as a network predicts them.

    Args:
        deltas: (..., 4): shift of the centre in widths and heights, logarithm of the change of width and height.
        references: (..., 4) xyxy.

    Returns:
        (..., 4) xyxy, fp32.
    """
    deltas, references = deltas.float(), references.float()
    size = (references[..., 2:] - references[..., :2]).clamp(min=1.0)
    centre = references[..., :2] + 0.5 * (references[..., 2:] - references[..., :2])
    centre = centre + deltas[..., :2] * size
    half = 0.5 * size * deltas[..., 2:].clamp(max=MAX_LOG_SCALE).exp()
    return torch.cat([centre - half, centre + half], -1)


def grid_anchors(shapes: Sequence[Sequence[Sequence[float]]], height: int, width: int) -> Tensor:
    """Anchors at every place of every level.

    Args:
        shapes: a list a level of (width, height) in pixels.
        height: of the network's input, a multiple of 32.
        width: likewise.

    Returns:
        (N, 4) xyxy, level by level, row by row, place by place, shape by shape.
    """
    levels = []
    for stride, sizes in zip(STRIDES, shapes, strict=True):
        y = (torch.arange(height // stride) + 0.5) * stride
        x = (torch.arange(width // stride) + 0.5) * stride
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[:, :, None]  # (h, w, 1, 2)
        half = torch.tensor(sizes).view(1, 1, -1, 2) / 2
        levels.append(torch.cat([centres - half, centres + half], -1).view(-1, 4))
    return torch.cat(levels)


def alike_shapes(sizes: Sequence[Sequence[float]]) -> list[list[int]]:
    """For each of the (width, height) of a level, which of them, itself included, have nearly the same shape."""
    areas = [w * h for w, h in sizes]
    shared = [[min(a[0], b[0]) * min(a[1], b[1]) for b in sizes] for a in sizes]
    return [
        [j for j in range(len(sizes)) if shared[i][j] >= ALIKE_IOU * (areas[i] + areas[j] - shared[i][j])]
        for i in range(len(sizes))
    ]


def pool_regions(features: Tensor, regions: Tensor, height: int, width: int) -> Tensor:
    """The features in the middle of each of BINS x BINS cells of a region.

    This is RoIAlign (He et al., 2017) with one sample a cell, as an interpolation on a grid, which is several times as
    fast in both directions as torchvision's operator on a CPU (140 regions of 16 pictures: 23 ms against 114 ms).

    Args:
        features: (B, F, h, w).
        regions: (B, R, 4) xyxy in pixels of the input.
        height: of the input.
        width: likewise.

    Returns:
        (B R, F, BINS, BINS), fp32.
    """
    b, r = regions.shape[0], regions.shape[1]
    regions = regions.nan_to_num()  # the gradient of the interpolation reads and writes where these point
    cells = (torch.arange(BINS, device=regions.device, dtype=torch.float32) + 0.5) / BINS
    x = regions[..., 0:1] + (regions[..., 2:3] - regions[..., 0:1]) * cells  # (B, R, BINS)
    y = regions[..., 1:2] + (regions[..., 3:4] - regions[..., 1:2]) * cells
    x = (2 / width * x - 1)[:, :, None, :].expand(-1, -1, BINS, -1)
    y = (2 / height * y - 1)[:, :, :, None].expand(-1, -1, -1, BINS)
    grid = torch.stack([x, y], -1).view(b, r * BINS, BINS, 2)
    with torch.autocast(features.device.type, enabled=False):
        pooled = F.grid_sample(features.float(), grid, padding_mode="border", align_corners=False)
    return pooled.view(b, -1, r, BINS, BINS).transpose(1, 2).reshape(b * r, -1, BINS, BINS)


class FeaturePyramid(nn.Module):
    """Feature pyramid: coarse maps are added to finer ones, and each level is smoothed (Lin et al., 2017).

    Args:
        channels: C_i.
        width: channels of all levels.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvNormAct(c, width, 1, act=None) for c in channels)
        self.smooth = nn.ModuleList(ConvNormAct(width, width) for _ in channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """One (B, C_i, H / stride, W / stride) a stride -> the same with ``width`` channels."""
        levels = [lateral(f) for lateral, f in zip(self.lateral, features, strict=True)]
        for i in range(len(levels) - 2, -1, -1):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], scale_factor=2.0, mode="nearest")
        return [smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)]


class RegionProposals(nn.Module):
    """Region proposal network: objectness and box at each anchor, the same convolution on every pyramid level.

    Args:
        width: channels of the levels.
        anchors: (N, 4) xyxy, from ``grid_anchors``.
        shapes: a list a level of the (width, height) that the anchors have.
    """

    anchors: Tensor

    def __init__(self, width: int, anchors: Tensor, shapes: Sequence[Sequence[Sequence[float]]]) -> None:
        super().__init__()
        num_shapes = [len(sizes) for sizes in shapes]
        self.conv = ConvNormAct(width, width)
        self.predict = nn.ModuleList(nn.Conv2d(width, 5 * n, 1) for n in num_shapes)
        self.num_shapes = tuple(num_shapes)
        self.alike = [alike_shapes(sizes) for sizes in shapes]
        self.register_buffer("anchors", anchors, persistent=False)
        for conv, n in zip(self.predict, num_shapes, strict=True):
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)
            nn.init.constant_(conv.bias[:n], math.log(0.01 / 0.99))  # nearly all places are background

    def forward(self, levels: Sequence[Tensor]) -> ProposalOutput:
        """One (B, width, H / stride, W / stride) a stride -> ``ProposalOutput`` at all N anchors."""
        objectness, deltas, ranks = [], [], []
        for level, predict, n, alike in zip(levels, self.predict, self.num_shapes, self.alike, strict=True):
            out = predict(self.conv(level)).float()  # (B, 5 n, h, w)
            score = out[:, :n]
            strongest = F.max_pool2d(torch.stack([score[:, like].amax(1) for like in alike], 1), 3, 1, 1)
            rank = torch.where(score < strongest, score - SUPPRESSED, score)
            objectness.append(score.permute(0, 2, 3, 1).flatten(1))
            ranks.append(rank.permute(0, 2, 3, 1).flatten(1))
            b, _, h, w = out.shape
            deltas.append(out[:, n:].view(b, n, 4, h, w).permute(0, 3, 4, 1, 2).reshape(b, -1, 4))
        boxes = decode_boxes(torch.cat(deltas, 1), self.anchors)
        return ProposalOutput(torch.cat(objectness, 1), boxes, torch.cat(ranks, 1))


class RegionHead(nn.Module):
    """The second stage: class and refined box of each region.

    Args:
        width: channels of the features.
        hidden: units of the two fully connected layers.
        num_classes: C.
    """

    def __init__(self, width: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width * BINS * BINS, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.classify = nn.Linear(hidden, num_classes + 1)
        self.refine = nn.Linear(hidden, 4)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.normal_(self.refine.weight, std=0.001)
        nn.init.zeros_(self.classify.bias)
        nn.init.zeros_(self.refine.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, width, BINS, BINS) -> (R, C + 1) logits and (R, 4) deltas, the same for all classes."""
        x = F.relu(self.fc1(features.flatten(1)))
        x = F.relu(self.fc2(x))
        return self.classify(x), self.refine(x)


class Detector(nn.Module):
    """Backbone, feature pyramid, region proposals, and a head that looks at each of them.

    Args:
        normalise: the first layer.
        backbone: (B, C, H, W) to three maps, of strides 8, 16 and 32.
        channels: of these maps.
        anchor_shapes: a list a level of (width, height) in pixels.
        height: of the input, a multiple of 32.
        width: likewise.
        num_classes: C.
        pyramid: channels of the feature pyramid.
        hidden: units of the head.
        num_proposals: K.
    """

    def __init__(
        self,
        normalise: Normalise,
        backbone: nn.Module,
        channels: Sequence[int],
        *,
        anchor_shapes: Sequence[Sequence[Sequence[float]]],
        height: int,
        width: int,
        num_classes: int,
        pyramid: int,
        hidden: int,
        num_proposals: int,
    ) -> None:
        super().__init__()
        anchors = grid_anchors(anchor_shapes, height, width)
        self.normalise, self.backbone = normalise, backbone
        self.pyramid = FeaturePyramid(channels, pyramid)
        self.proposals = RegionProposals(pyramid, anchors, anchor_shapes)
        self.head = RegionHead(pyramid, hidden, num_classes)
        self.height, self.width = height, width
        self.num_proposals = min(num_proposals, len(anchors))

    def features(self, pixels: Tensor) -> list[Tensor]:
        """(B, C, H, W) raw pixels -> the pyramid, a map a stride."""
        levels: list[Tensor] = self.pyramid(self.backbone(self.normalise(pixels)))
        return levels

    def select(self, proposed: ProposalOutput) -> tuple[Tensor, Tensor]:
        """The K strongest local maxima: (B, K, 4) boxes inside the picture and (B, K) objectness, in anchor order."""
        chosen = proposed.ranks.topk(self.num_proposals, 1).indices
        chosen = chosen.sort(1).values  # by place, so that a last digit can't change what stands where
        boxes = proposed.boxes.gather(1, chosen[:, :, None].expand(-1, -1, 4))
        return self.clip(boxes), proposed.objectness.gather(1, chosen)

    def clip(self, boxes: Tensor) -> Tensor:
        """(..., 4) xyxy, cut at the borders of the picture."""
        limit = torch.tensor([self.width, self.height, self.width, self.height], dtype=boxes.dtype, device=boxes.device)
        return torch.minimum(boxes.clamp(min=0.0), limit)

    def apply_head(self, levels: Sequence[Tensor], regions: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the head to (B, R, 4) regions: (B, R, C + 1) logits and (B, R, 4) refined boxes."""
        b, r = regions.shape[0], regions.shape[1]
        pooled = pool_regions(levels[0], regions, self.height, self.width)
        logits, deltas = self.head(pooled)
        return logits.view(b, r, -1).float(), self.clip(decode_boxes(deltas.view(b, r, 4), regions))

    def forward(self, pixels: Tensor) -> DetectorOutput:
        """(B, C, H, W) float, raw values 0..255, H and W as the anchors were made for -> ``DetectorOutput``."""
        levels = self.features(pixels)
        regions, objectness = self.select(self.proposals(levels))
        logits, boxes = self.apply_head(levels, regions)
        return DetectorOutput(boxes, logits, regions, objectness)


class DetectorGraph(nn.Module):
    """The exported graph: stored pictures to boxes and scores."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) uint8, as stored -> (B, K, 4) boxes and (B, K, C) scores in 0..1."""
        output = self.model(images.permute(0, 3, 1, 2).float())
        return output.boxes, scores_of(output)


def scores_of(output: DetectorOutput) -> Tensor:
    """(B, K, C) how surely each region is an object of each class: the head's probability and the proposal's, joined.

    The proposal's says how well its box fits, the head's what it is; the geometric mean ranks better than either.
    """
    classes = output.logits.softmax(-1)[..., :-1]
    return (classes * output.objectness.sigmoid()[..., None]).clamp(min=1e-12).sqrt()
