"""What a detector learns from: which anchor stands for which object, and how far off its outputs are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou_loss

from dolmen.nn.losses import Loss
from dolmen.tasks.object_detection.nn.network import Detector

CANDIDATES_PER_LEVEL = 9
"""Anchors a level that are near enough to an object to stand for it."""
MAX_PAIRS_PER_CHUNK = 1 << 22
"""Pairs of anchor and object that are compared at once; thousands of objects are compared in chunks."""
SAME_OBJECT_IOU = 0.5
"""IoU from which on a region is the object."""
POSITIVE_SHARE = 0.25
"""Share of a picture's regions that are reckoned as objects where fewer are: what Faster R-CNN (2015) draws.

Without it the first loss on the sample was up to 48 an object, and is 8 with it. After 12 epochs of blood cells at 160
pixels, which are many a picture, it changes nothing (mAP@0.5 0.796, without it 0.795; means of three seeds). A bias
towards background at the beginning bounds the first loss, too, but rare classes come late: 0.605 with a probability of
0.95, of platelets 0.04 instead of 0.66.
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
    objects_per_chunk = max(1, MAX_PAIRS_PER_CHUNK // max(1, len(anchors)))
    for start in range(0, len(boxes), objects_per_chunk):
        chunk = boxes[start : start + objects_per_chunk]
        object_centres = (chunk[:, :2] + chunk[:, 2:]) / 2
        nearest, offset = [], 0
        for count in counts:
            distance = (object_centres[:, None] - centres[None, offset : offset + count]).square().sum(2)
            nearest.append(distance.topk(min(CANDIDATES_PER_LEVEL, count), 1, largest=False).indices + offset)
            offset += count
        candidates = torch.cat(nearest, 1)  # (m, L * CANDIDATES_PER_LEVEL)
        overlap = pairwise_iou(chunk[:, None], anchors[candidates])
        close = overlap >= overlap.mean(1, keepdim=True) + overlap.std(1, keepdim=True)
        candidate_centres = centres[candidates]
        inside = ((candidate_centres > chunk[:, None, :2]) & (candidate_centres < chunk[:, None, 2:])).all(2)
        chosen = close & inside
        chosen.scatter_(1, overlap.argmax(1, keepdim=True), True)  # tiny ones hold no centre: their best one then
        object_index, column = chosen.nonzero(as_tuple=True)
        ious, anchor_index = overlap[object_index, column], candidates[object_index, column]
        order = ious.argsort(dim=0, stable=True)  # the best object of an anchor is written last
        ious, anchor_index, object_index = ious[order], anchor_index[order], object_index[order]
        best_of_chunk = torch.full_like(best, -1.0).scatter_reduce_(0, anchor_index, ious, "amax")
        wins = (ious >= best_of_chunk[anchor_index]) & (ious > best[anchor_index] - 1e-9)
        owner[anchor_index[wins]] = object_index[wins] + start
        best[anchor_index[wins]] = ious[wins]
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
    logits, refined = model.apply_head(levels, regions)
    anchors = model.proposals.anchors
    counts = tuple(
        level.shape[2] * level.shape[3] * n for level, n in zip(levels, model.proposals.num_shapes, strict=True)
    )
    total, num_objects = logits.new_zeros(()), 0.0
    for i in range(len(pixels)):
        real = labels[i] >= 0
        objects, classes, ignored = boxes[i][real], labels[i][real], boxes[i][labels[i] == IGNORED]
        owner, _ = assign_anchors(anchors, counts, objects)
        positive = owner >= 0
        fit = torch.zeros_like(proposed.objectness[i])
        if len(objects):
            predicted, matched = proposed.boxes[i][positive], objects[owner[positive]]
            fit[positive] = pairwise_iou(predicted.detach(), matched).clamp(0, 1)
            # ATSS gives an object about nine anchors; each object counts once.
            per_object = len(objects) / max(1, len(predicted))
            total = total + BOX_WEIGHT * per_object * generalized_box_iou_loss(predicted, matched, reduction="sum")
        ignored_anchors = _covered(anchors, ignored) & ~positive
        objectness = quality_focal(proposed.objectness[i], fit) * ~ignored_anchors
        total = total + objectness.sum() * (max(1, len(objects)) / max(1, int(positive.sum())))
        total = total + _second_stage(regions[i], logits[i], refined[i], objects, classes, ignored)
        num_objects += max(1, len(objects))
    return Loss(total, float(num_objects))


def _second_stage(
    regions: Tensor, logits: Tensor, refined: Tensor, objects: Tensor, classes: Tensor, ignored: Tensor
) -> Tensor:
    """The head's loss on one picture: (R, 4) regions with their outputs, (M, 4) objects."""
    is_region = regions[:, 2] > regions[:, 0]
    targets = torch.full((len(regions),), logits.shape[-1] - 1, dtype=torch.int64, device=logits.device)
    box_loss = logits.new_zeros(())
    if len(objects):
        overlap, object_index = box_iou(regions, objects).max(1)
        is_object = (overlap >= SAME_OBJECT_IOU) & is_region
        targets[is_object] = classes[object_index[is_object]]
        per_object = len(objects) / max(1, int(is_object.sum()))
        box_loss = per_object * generalized_box_iou_loss(
            refined[is_object], objects[object_index[is_object]], reduction="sum"
        )
    counted = is_region & ~(_covered(regions, ignored) & (targets == logits.shape[-1] - 1))
    entropy = F.cross_entropy(logits[counted], targets[counted], reduction="sum")
    # Each object counts once, as above. But before the first stage has learnt, five regions of a hundred are objects;
    # divided by these alone, the background's loss is the largest by far, and its gradient throws the weights about.
    num_positive = int((targets != logits.shape[-1] - 1).sum())
    per_region = max(1, len(objects)) / max(1.0, num_positive, POSITIVE_SHARE * int(counted.sum()))
    return CLASS_WEIGHT * per_region * entropy + REFINE_WEIGHT * box_loss


def _covered(boxes: Tensor, ignored: Tensor) -> Tensor:
    """(N,) which boxes lie for more than half inside a region that is ignored."""
    if not len(ignored):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    top = torch.maximum(boxes[:, None, :2], ignored[None, :, :2])
    bottom = torch.minimum(boxes[:, None, 2:], ignored[None, :, 2:])
    shared = (bottom - top).clamp(min=0).prod(2).amax(1)
    return shared > 0.5 * (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-6)
