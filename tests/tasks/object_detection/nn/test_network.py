from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou, roi_align

from dolmen.nn.convolutional.blocks import Normalise
from dolmen.tasks.object_detection.nn import losses as detection_losses
from dolmen.tasks.object_detection.nn.builders import build_detector
from dolmen.tasks.object_detection.nn.losses import (
    IGNORED,
    NONE,
    POSITIVE_SHARE,
    assign_anchors,
    detection_loss,
    pairwise_iou,
)
from dolmen.tasks.object_detection.nn.network import (
    BINS,
    STRIDES,
    SUPPRESSED,
    Detector,
    DetectorGraph,
    RegionProposals,
    alike_shapes,
    decode_boxes,
    grid_anchors,
    pool_regions,
)
from dolmen.types import UserError

SHAPES = (((16.0, 12.0), (20.0, 30.0)), ((50.0, 50.0),), ((90.0, 80.0),))
COUNTS = (8 * 12 * 2, 4 * 6, 2 * 3)


def detector(name: str = "edge") -> Detector:
    torch.manual_seed(0)
    return build_detector(
        name, Normalise([127.5] * 3, [64.0] * 3), anchor_shapes=SHAPES, height=64, width=96, num_classes=2,
        num_proposals=20,
    )  # fmt: skip


def batch() -> tuple[Tensor, Tensor, Tensor]:
    pixels = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255
    boxes = torch.tensor([[[10.0, 10, 30, 40], [50, 5, 90, 60]], [[0.0, 0, 0, 0], [0, 0, 0, 0]]])
    return pixels, boxes, torch.tensor([[0, 1], [NONE, NONE]])


@pytest.mark.parametrize("name", ["edge", "standard", "mobile", "resnet8"])
def test_every_detector_gives_as_many_regions_as_asked(name: str) -> None:
    model = detector(name).eval()
    with torch.no_grad():
        output = model(batch()[0])
    assert output.boxes.shape == output.proposals.shape == (2, 20, 4)
    assert output.logits.shape == (2, 20, 3)
    assert (output.boxes >= 0).all()
    assert (output.boxes <= torch.tensor([96.0, 64, 96, 64])).all()
    assert (output.boxes[..., 2:] >= output.boxes[..., :2]).all()


def test_the_edge_size_is_small() -> None:
    assert sum(p.numel() for p in detector().parameters()) < 3_000_000


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(UserError, match=r"there is no detector 'edgy'; did you mean edge\? Give one of edge, standard"):
        detector("edgy")


def test_a_batch_gives_what_its_pictures_give_alone() -> None:
    graph, images = DetectorGraph(detector().eval()), batch()[0].permute(0, 2, 3, 1).to(torch.uint8)
    with torch.no_grad():
        together = graph(images)
        alone = [torch.cat(t) for t in zip(*(graph(images[i : i + 1]) for i in range(2)), strict=True)]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


def test_pooled_regions_are_torchvisions() -> None:
    g = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 8, 12, generator=g)
    corner = torch.rand(2, 7, 2, generator=g) * torch.tensor([60.0, 30.0]) + 6
    regions = torch.cat([corner, corner + 20], 2)
    numbers = torch.arange(2.0).repeat_interleave(7)[:, None]
    rows = torch.cat([numbers, regions.view(-1, 4)], 1)
    wanted = roi_align(features, rows, BINS, 1 / 8, 1, aligned=True)
    torch.testing.assert_close(pool_regions(features, regions, 64, 96), wanted, atol=1e-5, rtol=1e-5)


def test_anchors_stand_in_the_middle_of_their_places() -> None:
    anchors = grid_anchors(SHAPES, 64, 96)
    assert len(anchors) == sum(COUNTS)
    assert anchors[0].tolist() == [4 - 8, 4 - 6, 4 + 8, 4 + 6]
    assert anchors[1].tolist() == [4 - 10, 4 - 15, 4 + 10, 4 + 15]
    assert anchors[-1].tolist() == [80 - 45, 48 - 40, 80 + 45, 48 + 40]


def test_shapes_are_alike_where_they_overlap_by_half() -> None:
    assert alike_shapes([(10, 10), (12, 9), (20, 20), (40, 10)]) == [[0, 1], [0, 1], [2], [3]]
    assert alike_shapes([(10, 10), (13, 13), (17, 17)]) == [[0, 1], [0, 1, 2], [1, 2]]


@pytest.mark.parametrize(("second", "stays"), [((18.0, 15.0), False), ((40.0, 40.0), True)])
def test_of_neighbours_with_like_shapes_the_strongest_is_proposed(second: tuple[float, float], stays: bool) -> None:
    shapes = [[(16.0, 16.0), second], [(60.0, 60.0)], [(90.0, 90.0)]]
    stage = RegionProposals(4, grid_anchors(shapes, 64, 96), shapes).eval()
    bias = stage.predict[0].bias
    assert isinstance(bias, Tensor)
    with torch.no_grad():
        stage.predict[0].weight.zero_()  # type: ignore[operator]
        bias[:2] = torch.tensor([2.0, 1.0])
        output = stage([torch.zeros(1, 4, 64 // s, 96 // s) for s in STRIDES])
    first, other = output.ranks[0, 0], output.ranks[0, 1]
    assert float(first) == 2.0
    assert float(other) == pytest.approx(1.0 if stays else 1.0 - SUPPRESSED)


def test_no_change_gives_the_reference_and_a_wild_one_stays_finite() -> None:
    reference = torch.tensor([[10.0, 20, 30, 60]])
    torch.testing.assert_close(decode_boxes(torch.zeros(1, 4), reference), reference)
    assert decode_boxes(torch.full((1, 4), 1e4), reference).isfinite().all()


def test_every_object_gets_an_anchor_also_in_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    anchors = grid_anchors(SHAPES, 64, 96)
    boxes = torch.tensor([[10.0, 10, 30, 40], [50, 5, 90, 60], [70, 50, 72, 51]])
    owner, overlap = assign_anchors(anchors, COUNTS, boxes)
    assert set(owner.tolist()) == {-1, 0, 1, 2}
    assigned = owner >= 0
    torch.testing.assert_close(
        overlap[assigned], box_iou(anchors[assigned], boxes)[torch.arange(int(assigned.sum())), owner[assigned]]
    )
    monkeypatch.setattr(detection_losses, "MAX_PAIRS_PER_CHUNK", len(anchors))
    again, _ = assign_anchors(anchors, COUNTS, boxes)
    assert torch.equal(owner, again)


def test_overlap_is_torchvisions() -> None:
    a = torch.tensor([[0.0, 0, 10, 10], [5, 5, 8, 9]])
    b = torch.tensor([[5.0, 5, 15, 15], [0, 0, 1, 1]])
    torch.testing.assert_close(pairwise_iou(a[:, None], b[None]), box_iou(a, b))


def test_the_loss_adds_up_over_pictures_and_ignores_what_it_should() -> None:
    model, (pixels, boxes, labels) = detector().eval(), batch()
    whole = detection_loss(model, pixels, boxes, labels, boxes)
    parts = [
        detection_loss(model, pixels[i : i + 1], boxes[i : i + 1], labels[i : i + 1], boxes[i : i + 1]) for i in (0, 1)
    ]
    assert whole.weight == sum(p.weight for p in parts) == 3
    torch.testing.assert_close(whole.total, parts[0].total + parts[1].total, rtol=1e-4, atol=1e-4)
    crowd = detection_loss(
        model, pixels[1:], torch.tensor([[[0.0, 0, 96, 64]]]), torch.tensor([[IGNORED]]), boxes[1:, :1]
    )
    assert float(crowd.total.detach()) < float(parts[1].total.detach())


@pytest.mark.parametrize("num_classes", [1, 3, 80])
@pytest.mark.parametrize("num_proposals", [20, 100])
def test_many_regions_without_an_object_do_not_outweigh_the_objects(num_classes: int, num_proposals: int) -> None:
    """Else the first losses, and gradients, are ones that no learning rate for the rest of the training survives."""
    torch.manual_seed(0)
    model = build_detector(
        "edge", Normalise([127.5] * 3, [64.0] * 3), anchor_shapes=SHAPES, height=64, width=96, num_classes=num_classes,
        num_proposals=num_proposals,
    ).train()  # fmt: skip
    pixels, boxes, labels = batch()
    loss = detection_loss(model, pixels, boxes, labels.clamp(max=num_classes - 1), boxes)
    loss.total.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    # what a guess costs the second stage, and what the first stage and the boxes do
    assert float(loss.total.detach()) / loss.weight < math.log(num_classes + 1) / POSITIVE_SHARE + 3
    assert float(norm) / loss.weight < 20


def test_it_learns_two_pictures() -> None:
    model, (pixels, boxes, labels) = detector().train(), batch()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    for _ in range(40):
        loss = detection_loss(model, pixels, boxes, labels, boxes)
        optimizer.zero_grad()
        (loss.total / loss.weight).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.total.detach()))
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_regions_that_are_no_numbers_are_not_read_from_memory(value: float) -> None:
    """A network that has diverged proposes such; the gradient of the interpolation went wherever they point."""
    features = torch.ones(2, 4, 8, 12, requires_grad=True)
    pooled = pool_regions(features, torch.full((2, 700, 4), value), 64, 96)
    pooled.sum().backward()
    assert features.grad is not None
    assert (pooled == 1).all()
    assert float(features.grad.sum()) == pooled.numel()


def test_the_loss_of_a_network_that_has_diverged_is_no_number() -> None:
    model, (pixels, boxes, labels) = detector().train(), batch()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(math.nan)
    assert not detection_loss(model, pixels, boxes, labels, boxes).total.isfinite()
