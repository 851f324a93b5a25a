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

MIN_VISIBLE_SHARE = 0.3
"""Share of an object that has to be left in the picture to be learnt; with less of it nobody knows what it is."""
MIN_SIDE_PX = 2.0
"""Pixels that each of its sides has to have left."""


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
    num_pictures: int,
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
        num_pictures: pictures to return, 1..B.
        zoom: smallest and largest factor.
        stretch: largest relative change of width against height.
        flips: whether left and right, and whether up and down may be exchanged.
    """
    b, _, height, width = batch.images.shape
    x, y = ((0.3 + 0.4 * torch.rand(2, generator=generator)) * torch.tensor([width, height])).round().int().tolist()
    windows = ((0, 0, x, y), (x, 0, width - x, y), (0, y, x, height - y), (x, y, width - x, height - y))
    parts = []
    for window in windows:
        order = torch.randperm(b, generator=generator)[:num_pictures].to(batch.images.device)
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
    opposite = size - corners.flip(2)
    corners = torch.where(flipped[:, None, None], opposite, corners) * scale[:, None, None] + shift[:, None, None]
    full_area = (corners[:, :, 1] - corners[:, :, 0]).prod(2)
    corners = torch.minimum(torch.maximum(corners, origin), origin + extent)
    sides = corners[:, :, 1] - corners[:, :, 0]
    visible_share = sides.prod(2) / full_area.clamp(min=1e-6)
    is_box = labels != PADDING
    visible = is_box & (visible_share >= MIN_VISIBLE_SHARE) & (sides >= MIN_SIDE_PX).all(2)
    cut_off = is_box & ~visible & (sides > 0).all(2)
    labels = torch.where(visible, labels, torch.where(cut_off, IGNORED, PADDING))
    return Boxed(drawn, corners.reshape(b, -1, 4), labels)


def compact(batch: Boxed) -> Boxed:
    """Drop the padding that no picture needs."""
    is_box = batch.labels != PADDING
    max_boxes = max(1, int(is_box.sum(1).max()))
    order = (~is_box).to(torch.int8).argsort(dim=1, stable=True)[:, :max_boxes]
    boxes = batch.boxes.gather(1, order[:, :, None].expand(-1, -1, 4))
    labels = batch.labels.gather(1, order)
    return Boxed(batch.images, boxes, torch.where(is_box.gather(1, order), labels, PADDING))


def joined(*batches: Boxed) -> Boxed:
    """One batch of the pictures of several."""
    max_boxes = max(batch.labels.shape[1] for batch in batches)

    def padded(batch: Boxed) -> Boxed:
        padding = max_boxes - batch.labels.shape[1]
        boxes = F.pad(batch.boxes, (0, 0, 0, padding))
        return Boxed(batch.images, boxes, F.pad(batch.labels, (0, padding), value=PADDING))

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
    gets_object = torch.rand(b, generator=generator) < share
    places = torch.rand(b, 2, generator=generator)
    pasted_boxes, pasted_labels = boxes.new_zeros(b, 1, 4), labels.new_full((b, 1), PADDING)
    for i, (patch, label) in zip(gets_object.nonzero()[:, 0].tolist(), objects, strict=False):
        h, w = patch.shape[1:]
        if h >= height or w >= width:
            continue
        x, y = (places[i] * torch.tensor([width - w, height - h])).int().tolist()
        box = boxes.new_tensor([x, y, x + w, y + h])
        present = boxes[i][labels[i] != PADDING]
        top, bottom = torch.maximum(present[:, :2], box[:2]), torch.minimum(present[:, 2:], box[2:])
        if len(present) and float(((bottom - top).clamp(min=0).prod(1) / box.new_tensor(float(w * h))).max()) > 0.1:
            continue
        alpha = _fading(h)[:, None] * _fading(w)[None]
        region = images[i, :, y : y + h, x : x + w]
        images[i, :, y : y + h, x : x + w] = region + (patch.to(region.device) - region) * alpha.to(region.device)
        pasted_boxes[i, 0], pasted_labels[i, 0] = box, label
    return compact(Boxed(images, torch.cat([boxes, pasted_boxes], 1), torch.cat([labels, pasted_labels], 1)))


def _fading(length: int) -> Tensor:
    """1 inside, falling to 0 over the outer eighth on both sides."""
    position = (torch.arange(length) + 0.5) / length
    return (8 * torch.minimum(position, 1 - position)).clamp(max=1)


def jittered(boxes: Tensor, generator: Generator, *, share: float = 0.1) -> Tensor:
    """(B, M, 4) boxes whose sides are moved by up to a share of their size: what good proposals look like."""
    size = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
    return boxes + size * share * (2 * torch.rand(boxes.shape, generator=generator) - 1).to(boxes.device)
