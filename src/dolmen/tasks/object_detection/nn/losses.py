"""What a detector learns from: which anchor stands for which object, and how far off its answers are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou_loss

from dolmen.nn.losses import Loss
from dolmen.tasks.object_detection.nn.network import Detector

CANDIDATES = 9
"""Anchors a level that are near enough to an object to stand for it."""
MOST_PAIRS = 1 << 22
"""Pairs of anchor and object that are compared at once; pictures with thousands of objects take several turns."""
SAME = 0.5
"""IoU from which on a region is the object."""
POSITIVE_SHARE = 0.25
"""Share of a picture's regions that are reckoned as objects where fewer are: what Faster R-CNN (2015) draws.

Without it the first loss on the sample was up to 48 an object, and is 8 with it. After 12 epochs of blood cells at 160
pixels, which are many a picture, it changes nothing (mAP@0.5 0.796, without it 0.795; means of three seeds). A bias
towards background at the beginning bounds the first loss, too, but delays learning: 0.605 with a probability of 0.95.
"""
BOX_WEIGHT, CLASS_WEIGHT, REFINE_WEIGHT = 2.0, 1.0, 2.0
NONE, IGNORED = -1, -2
"""Labels of padding, and of regions that are neither right nor wrong (crowds, objects cut off too far)."""


def assign_anchors(anchors: Tensor, counts: tuple[int, ...], boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Which object each anchor stands for, by adaptive training sample selection (ATSS, Zhang et al., 2020).

    Of each level the anchors whose centres are nearest to the object's are candidates; those of them stand for it
    whose IoU is above the candidates' mean plus one standard deviation, and whose centre is inside it. So every
    object gets some, whatever its size, and no threshold has to be chosen.

    Args:
        anchors: (N, 4) xyxy.
        counts: how many of them are of each level.
        boxes: (M, 4) xyxy.

    Returns:
        (N,) index of the object, -1 for none; and (N,) the IoU with it.
    """
    owner = torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    best = torch.zeros(len(anchors), device=anchors.device)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    rows = max(1, MOST_PAIRS // max(1, len(anchors)))
    for start in range(0, len(boxes), rows):
        part = boxes[start : start + rows]
        middle = (part[:, :2] + part[:, 2:]) / 2
        near, offset = [], 0
        for count in counts:
            distance = (middle[:, None] - centres[None, offset : offset + count]).square().sum(2)
            near.append(distance.topk(min(CANDIDATES, count), 1, largest=False).indices + offset)
            offset += count
        candidates = torch.cat(near, 1)  # (m, L * CANDIDATES)
        overlap = pairwise_iou(part[:, None], anchors[candidates])
        enough = overlap >= overlap.mean(1, keepdim=True) + overlap.std(1, keepdim=True)
        at = centres[candidates]
        inside = ((at > part[:, None, :2]) & (at < part[:, None, 2:])).all(2)
        chosen = enough & inside
        chosen.scatter_(1, overlap.argmax(1, keepdim=True), True)  # tiny ones hold no centre: their best one then
        which, column = chosen.nonzero(as_tuple=True)
        values, places = overlap[which, column], candidates[which, column]
        order = values.argsort(dim=0, stable=True)  # the best object of an anchor is written last
        values, places, which = values[order], places[order], which[order]
        first = torch.full_like(best, -1.0).scatter_reduce_(0, places, values, "amax")
        wins = (values >= first[places]) & (values > best[places] - 1e-9)
        owner[places[wins]] = which[wins] + start
        best[places[wins]] = values[wins]
    return owner, best


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """(...) IoU of boxes (..., 4) xyxy that stand in the same places, with broadcasting."""
    top, bottom = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (bottom - top).clamp(min=0).prod(-1)
    area = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return shared / (area - shared).clamp(min=1e-6)


def quality_focal(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy against soft targets, weighted by how wrong it is (GFL, Li et al., 2020); same shape."""
    wrong = (targets - logits.detach().sigmoid()).abs().square()
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * wrong


def detection_loss(model: Detector, pixels: Tensor, boxes: Tensor, labels: Tensor, near: Tensor) -> Loss:
    """The loss of both stages over a batch.

    First stage: objectness against how well the proposed box fits its object (quality focal loss), and GIoU of the
    boxes. Second stage: cross-entropy of the class, and GIoU of the refined boxes, over the proposals and the objects
    themselves. What is ignored is no background either.

    Args:
        model: the detector.
        pixels: (B, C, H, W) float, raw values 0..255.
        boxes: (B, M, 4) xyxy in pixels of the input.
        labels: (B, M) int64 classes; NONE for padding, IGNORED for what counts neither way.
        near: (B, M, 4) boxes close to these, from which the head learns as well as from the proposals.

    Returns:
        The sum over all objects, and their number (at least one a picture).
    """
    levels = model.features(pixels)
    proposed = model.proposals(levels)
    with torch.no_grad():
        regions, _ = model.select(proposed)
        regions = torch.cat([regions, torch.where((labels >= 0)[:, :, None], model.clip(near), 0.0)], 1)
    logits, refined = model.look(levels, regions)
    anchors = model.proposals.anchors
    counts = tuple(
        level.shape[2] * level.shape[3] * n for level, n in zip(levels, model.proposals.num_shapes, strict=True)
    )
    total, weight = logits.new_zeros(()), 0.0
    for i in range(len(pixels)):
        real = labels[i] >= 0
        objects, classes, ignored = boxes[i][real], labels[i][real], boxes[i][labels[i] == IGNORED]
        owner, _ = assign_anchors(anchors, counts, objects)
        positive = owner >= 0
        target = torch.zeros_like(proposed.objectness[i])
        if len(objects):
            mine, wanted = proposed.boxes[i][positive], objects[owner[positive]]
            target[positive] = pairwise_iou(mine.detach(), wanted).clamp(0, 1)
            per_object = len(objects) / max(1, len(mine))  # ATSS gives an object about nine; each object counts once
            total = total + BOX_WEIGHT * per_object * generalized_box_iou_loss(mine, wanted, reduction="sum")
        doubtful = _covered(anchors, ignored) & ~positive
        objectness = quality_focal(proposed.objectness[i], target) * ~doubtful
        total = total + objectness.sum() * (max(1, len(objects)) / max(1, int(positive.sum())))
        total = total + _second_stage(regions[i], logits[i], refined[i], objects, classes, ignored)
        weight += max(1, len(objects))
    return Loss(total, float(weight))


def _second_stage(
    regions: Tensor, logits: Tensor, refined: Tensor, objects: Tensor, classes: Tensor, ignored: Tensor
) -> Tensor:
    """The head's loss on one picture: (R, 4) regions with their answers, (M, 4) objects."""
    there = regions[:, 2] > regions[:, 0]
    targets = torch.full((len(regions),), logits.shape[-1] - 1, dtype=torch.int64, device=logits.device)
    box = logits.new_zeros(())
    if len(objects):
        overlap, which = box_iou(regions, objects).max(1)
        same = (overlap >= SAME) & there
        targets[same] = classes[which[same]]
        share = len(objects) / max(1, int(same.sum()))
        box = share * generalized_box_iou_loss(refined[same], objects[which[same]], reduction="sum")
    counted = there & ~(_covered(regions, ignored) & (targets == logits.shape[-1] - 1))
    entropy = F.cross_entropy(logits[counted], targets[counted], reduction="sum")
    # Each object counts once, as above. But before the first stage has learnt, five regions of a hundred are objects;
    # divided by these alone, the background's loss is the largest by far, and its gradient throws the weights about.
    num_positive = int((targets != logits.shape[-1] - 1).sum())
    per_region = max(1, len(objects)) / max(1.0, num_positive, POSITIVE_SHARE * int(counted.sum()))
    return CLASS_WEIGHT * per_region * entropy + REFINE_WEIGHT * box


def _covered(boxes: Tensor, ignored: Tensor) -> Tensor:
    """(N,) which boxes lie for more than half inside a region that is ignored."""
    if not len(ignored):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    top = torch.maximum(boxes[:, None, :2], ignored[None, :, :2])
    bottom = torch.minimum(boxes[:, None, 2:], ignored[None, :, 2:])
    shared = (bottom - top).clamp(min=0).prod(2).amax(1)
    return shared > 0.5 * (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-6)
