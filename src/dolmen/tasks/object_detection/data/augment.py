"""Random changes to batches of pictures with boxes, as tensor operations. Boxes are (B, M, 4) xyxy, labels (B, M).

All functions draw from the generator that they are given and from nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from dolmen.tasks.object_detection.data.dataset import IGNORED, PADDING

VISIBLE = 0.3
"""Share of an object that has to be left in the picture; of less nobody can tell what it is."""
SMALLEST = 2.0
"""Pixels that its sides have to have."""


class Boxed(NamedTuple):
    """A batch: ``images`` (B, C, H, W) float, ``boxes`` (B, M, 4), ``labels`` (B, M)."""

    images: Tensor
    boxes: Tensor
    labels: Tensor


Window = tuple[int, int, int, int]
"""Left, top, width and height of a part of the canvas, in pixels."""


def scale_and_crop(
    batch: Boxed, generator: Generator, *, zoom: tuple[float, float], stretch: float, flips: Sequence[bool]
) -> Boxed:
    """Scale each picture, stretch it a little, maybe mirror it, and show a random part of it.

    Args:
        batch: what is to be changed.
        generator: for everything.
        zoom: smallest and largest factor.
        stretch: largest relative change of width against height.
        flips: whether left and right, and whether up and down may be exchanged.
    """
    height, width = batch.images.shape[2:]
    return compact(_placed(batch, generator, (0, 0, width, height), zoom, stretch, flips))


def mosaic(
    batch: Boxed,
    generator: Generator,
    number: int,
    *,
    zoom: tuple[float, float],
    stretch: float,
    flips: Sequence[bool],
) -> Boxed:
    """Make pictures of parts of four of the batch (Bochkovskiy et al., 2020), each changed as by ``scale_and_crop``.

    The four meet in one point, the same for all.

    Args:
        batch: B pictures, what is to be changed.
        generator: for everything.
        number: of pictures that are made, 1..B.
        zoom: see ``scale_and_crop``.
        stretch: likewise.
        flips: likewise.
    """
    b, _, height, width = batch.images.shape
    x, y = ((0.3 + 0.4 * torch.rand(2, generator=generator)) * torch.tensor([width, height])).round().int().tolist()
    windows = ((0, 0, x, y), (x, 0, width - x, y), (0, y, x, height - y), (x, y, width - x, height - y))
    parts = []
    for window in windows:
        order = torch.randperm(b, generator=generator)[:number].to(batch.images.device)
        parts.append(_placed(Boxed(*(t[order] for t in batch)), generator, window, zoom, stretch, flips))
    rows = [torch.cat([parts[i].images, parts[i + 1].images], 3) for i in (0, 2)]
    return compact(
        Boxed(torch.cat(rows, 2), torch.cat([p.boxes for p in parts], 1), torch.cat([p.labels for p in parts], 1))
    )


def _placed(
    batch: Boxed, g: Generator, window: Window, zoom: tuple[float, float], stretch: float, flips: Sequence[bool]
) -> Boxed:
    """A part of each picture, drawn into a window of the canvas; what lies beyond the picture is black.

    A pixel at x of the picture comes to ``scale * x + shift`` of the canvas, mirrored ones to
    ``scale * (width - x) + shift``.
    """
    images, boxes, labels = batch
    b, channels, height, width = images.shape
    u = torch.rand(6, b, generator=g)
    factor = torch.exp(math.log(zoom[0]) + u[0] * math.log(zoom[1] / zoom[0]))
    ratio = torch.exp((u[1] * 2 - 1) * math.log1p(stretch) / 2)
    mirrored = torch.stack([(u[4] < 0.5) & bool(flips[0]), (u[5] < 0.5) & bool(flips[1])], 1)  # (B, 2)
    size = torch.tensor([float(width), float(height)])
    origin, extent = torch.tensor(window[:2]).float(), torch.tensor(window[2:]).float()
    scale = torch.stack([factor * ratio, factor / ratio], 1)  # (B, 2)
    # The picture covers the window where it is larger, and lies inside it where it is smaller.
    shift = origin + u[2:4].T * (extent - scale * size)
    sign = 1.0 - 2.0 * mirrored
    slope = sign * extent / (scale * size)
    offset = sign * (2 * (origin + extent / 2 - shift) / (scale * size) - 1)
    zero = torch.zeros(b)
    theta = torch.stack(
        [torch.stack([slope[:, 0], zero, offset[:, 0]], 1), torch.stack([zero, slope[:, 1], offset[:, 1]], 1)], 1
    ).to(images.device)
    grid = F.affine_grid(theta, [b, channels, window[3], window[2]], align_corners=False)
    drawn = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)

    scale, shift, flipped, size, origin, extent = (
        t.to(boxes.device) for t in (scale, shift, mirrored, size, origin, extent)
    )
    corners = boxes.view(b, -1, 2, 2)  # (B, M, corner, axis)
    turned = size - corners.flip(2)
    corners = torch.where(flipped[:, None, None], turned, corners) * scale[:, None, None] + shift[:, None, None]
    before = (corners[:, :, 1] - corners[:, :, 0]).prod(2)
    corners = torch.minimum(torch.maximum(corners, origin), origin + extent)
    sides = corners[:, :, 1] - corners[:, :, 0]
    seen = sides.prod(2) / before.clamp(min=1e-6)
    there = labels != PADDING
    good = there & (seen >= VISIBLE) & (sides >= SMALLEST).all(2)
    rest = there & ~good & (sides > 0).all(2)
    labels = torch.where(good, labels, torch.where(rest, IGNORED, PADDING))
    return Boxed(drawn, corners.reshape(b, -1, 4), labels)


def compact(batch: Boxed) -> Boxed:
    """Drop the padding that no picture needs."""
    there = batch.labels != PADDING
    most = max(1, int(there.sum(1).max()))
    order = (~there).to(torch.int8).argsort(dim=1, stable=True)[:, :most]
    boxes = batch.boxes.gather(1, order[:, :, None].expand(-1, -1, 4))
    labels = batch.labels.gather(1, order)
    return Boxed(batch.images, boxes, torch.where(there.gather(1, order), labels, PADDING))


def joined(*batches: Boxed) -> Boxed:
    """One batch of the pictures of several."""
    most = max(batch.labels.shape[1] for batch in batches)

    def padded(batch: Boxed) -> Boxed:
        more = most - batch.labels.shape[1]
        boxes = F.pad(batch.boxes, (0, 0, 0, more))
        return Boxed(batch.images, boxes, F.pad(batch.labels, (0, more), value=PADDING))

    return Boxed(*(torch.cat(pair) for pair in zip(*map(padded, batches), strict=True)))


def paste_objects(batch: Boxed, objects: Sequence[tuple[Tensor, int]], generator: Generator, *, share: float) -> Boxed:
    """Paste objects into pictures, where they cover none of those that are there (Ghiasi et al., 2021).

    They come with the background inside their boxes, and fade into the picture at the border.

    Args:
        batch: what is to be changed.
        objects: a (C, h, w) float picture of an object, and its class; they are used in this order.
        generator: for the places.
        share: of the pictures that get one.
    """
    images, boxes, labels = batch.images.clone(), batch.boxes, batch.labels
    b, _, height, width = images.shape
    lucky = torch.rand(b, generator=generator) < share
    places = torch.rand(b, 2, generator=generator)
    more_boxes, more_labels = boxes.new_zeros(b, 1, 4), labels.new_full((b, 1), PADDING)
    for i, (patch, label) in zip(lucky.nonzero()[:, 0].tolist(), objects, strict=False):
        h, w = patch.shape[1:]
        if h >= height or w >= width:
            continue
        x, y = (places[i] * torch.tensor([width - w, height - h])).int().tolist()
        box = boxes.new_tensor([x, y, x + w, y + h])
        there = boxes[i][labels[i] != PADDING]
        top, bottom = torch.maximum(there[:, :2], box[:2]), torch.minimum(there[:, 2:], box[2:])
        if len(there) and float(((bottom - top).clamp(min=0).prod(1) / box.new_tensor(float(w * h))).max()) > 0.1:
            continue
        alpha = _fading(h)[:, None] * _fading(w)[None]
        part = images[i, :, y : y + h, x : x + w]
        images[i, :, y : y + h, x : x + w] = part + (patch.to(part.device) - part) * alpha.to(part.device)
        more_boxes[i, 0], more_labels[i, 0] = box, label
    return compact(Boxed(images, torch.cat([boxes, more_boxes], 1), torch.cat([labels, more_labels], 1)))


def _fading(length: int) -> Tensor:
    """1 inside, falling to 0 over the outer eighth on both sides."""
    at = (torch.arange(length) + 0.5) / length
    return (8 * torch.minimum(at, 1 - at)).clamp(max=1)


def jittered(boxes: Tensor, generator: Generator, *, share: float = 0.1) -> Tensor:
    """(B, M, 4) boxes whose sides are moved by up to a share of their size: what good proposals look like."""
    size = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
    return boxes + size * share * (2 * torch.rand(boxes.shape, generator=generator) - 1).to(boxes.device)
