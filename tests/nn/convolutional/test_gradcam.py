"""Grad-CAM on networks whose right answer is known, and on networks of every shape."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dolmen.nn.convolutional.blocks import Normalise
from dolmen.nn.convolutional.classifiers import NETWORKS, fast, resnet8
from dolmen.nn.convolutional.gradcam import default_layer, feature_maps, first_filters, grad_cam, randomisation_check
from dolmen.types import UserError


class Spots(nn.Module):
    """Class 0 asks how much red there is, class 1 how much green: one can say where it must look."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(4, 3).view(4, 3, 1, 1))
            self.head.weight.copy_(torch.tensor([[1.0, -1, 0, 0], [-1.0, 1, 0, 0]]))

    def forward_features(self, pixels: Tensor) -> Tensor:
        return self.act(self.conv(pixels))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.forward_features(pixels).mean((2, 3)))


class Transformer(nn.Module):
    """Patches to tokens, as timm's ViT: a map at the start, none at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 12, 4, 4)
        self.head = nn.Linear(12, 2)

    def forward_features(self, pixels: Tensor) -> Tensor:
        return self.patch_embed(pixels).flatten(2).transpose(1, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.forward_features(pixels).mean(1))


def picture() -> Tensor:
    """Red in the upper left corner, green in the lower right one."""
    pixels = torch.zeros(2, 3, 8, 8)
    pixels[:, 0, :3, :3] = 255
    pixels[:, 1, 5:, 5:] = 255
    return pixels


def network(name: str = "resnet8", classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name](classes, Normalise([120.0] * 3, [60.0] * 3), 32)


@pytest.mark.parametrize("layer", ["conv", "act"])
def test_it_looks_where_the_class_is(layer: str) -> None:
    cam = grad_cam(Spots(), picture(), torch.tensor([0, 1]), layer)
    assert cam.shape == (2, 8, 8)
    assert cam.dtype == torch.float32
    red, green = cam
    assert red[:3, :3].min() == 1
    assert red[3:].max() == 0
    assert green[5:, 5:].min() == 1
    assert green[:5].max() == 0


def test_nothing_speaks_for_the_class() -> None:
    cam = grad_cam(Spots(), torch.zeros(1, 3, 8, 8), torch.tensor([0]), "act")
    assert cam.max() == 0


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [
        ("fast", (32, 32), "stages.stage2"),  # maps of 31, 15, 7 and 3
        ("fast", (8, 8), "stages.stage3"),  # 7 and 3: a third of the side is enough
        ("resnet18", (32, 32), "stages.stage3"),  # 32, 32, 16, 8 and 4
        ("resnet8", (64, 48), "stages.stage3"),
        ("mobile", (32, 32), "stages.stage2"),
    ],
)
def test_the_default_layer_is_the_last_that_is_fine_enough(name: str, size: tuple[int, int], layer: str) -> None:
    model = NETWORKS[name](3, Normalise([120.0] * 3, [60.0] * 3), min(size))
    pixels = torch.rand(2, 3, *size) * 255
    assert default_layer(model, pixels) == layer
    cam = grad_cam(model, pixels, torch.tensor([0, 2]))
    assert cam.shape == (2, *size)
    assert cam.min() >= 0
    assert cam.max() <= 1


def test_a_network_without_forward_features_works() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 36, 2))
    assert grad_cam(net, torch.rand(2, 1, 8, 8) * 255, torch.tensor([0, 1])).shape == (2, 8, 8)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_model_is_left_as_it_was(context: type) -> None:
    model = network("fast").train()
    model.stages["stem"].eval()  # a mode of its own, which must survive
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    with context():
        pixels, classes = torch.rand(2, 3, 32, 32) * 255, torch.tensor([0, 1])
        grad_cam(model, pixels, classes)
        randomisation_check(model, pixels, classes)
        feature_maps(model, pixels)
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_one_picture_gives_the_same_map_as_in_a_batch() -> None:
    model, pixels, classes = network(), torch.rand(3, 3, 32, 32) * 255, torch.tensor([0, 1, 2])
    torch.testing.assert_close(grad_cam(model, pixels, classes)[:1], grad_cam(model, pixels[:1], classes[:1]))


def test_maps_change_when_the_weights_do() -> None:
    model, pixels, classes = network(), torch.rand(4, 3, 32, 32) * 255, torch.tensor([0, 1, 2, 0])
    value = randomisation_check(model, pixels, classes)
    assert 0 <= value < 0.4
    assert value == randomisation_check(model, pixels, classes)


def test_maps_that_only_show_the_picture_are_found_out() -> None:
    class Edges(Spots):  # a fixed filter: whatever the weights are, the map is the picture's brightness
        def forward_features(self, pixels: Tensor) -> Tensor:
            return self.act(pixels.mean(1, keepdim=True).repeat(1, 4, 1, 1))

        def forward(self, pixels: Tensor) -> Tensor:
            return self.forward_features(pixels).mean((2, 3)) @ self.head.weight.T.abs()

    assert randomisation_check(Edges(), torch.rand(3, 3, 8, 8) * 255, torch.tensor([0, 1, 0])) > 0.99


def test_feature_maps_of_our_networks_are_their_stages() -> None:
    maps = feature_maps(network("resnet8"), torch.rand(2, 3, 32, 32) * 255, max_channels=5)
    assert {k: tuple(v.shape) for k, v in maps.items()} == {
        "stem": (2, 5, 32, 32),
        "stage1": (2, 5, 32, 32),
        "stage2": (2, 5, 16, 16),
        "stage3": (2, 5, 8, 8),
    }
    spread = maps["stage2"].flatten(2).std(2).mean(0)
    assert (spread.diff() <= 1e-6).all()  # those that differ most from place to place come first


def test_feature_maps_of_others_are_one_for_each_size() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", num_classes=2)
    maps = feature_maps(model, torch.rand(1, 3, 64, 64) * 255)
    assert {k: v.shape[-1] for k, v in maps.items()} == {
        "act1": 32, "layer1": 16, "layer2": 8, "layer3": 4, "layer4": 2
    }  # fmt: skip


def test_first_filters() -> None:
    filters = first_filters(resnet8(3, Normalise([120.0], [60.0]), 32))
    assert filters is not None
    assert filters.shape == (64, 1, 3, 3)
    stem = fast(3, Normalise([120.0] * 3, [60.0] * 3), 32)
    filters = first_filters(stem)
    assert filters is not None
    filters[:] = 0  # a copy
    assert np.abs(stem.stages["stem"].conv.weight.detach().numpy()).max() > 0
    assert first_filters(Spots()) is None
    assert first_filters(nn.Linear(2, 2)) is None


@pytest.mark.parametrize("ask", [grad_cam, randomisation_check, lambda m, x, c: feature_maps(m, x)])
def test_a_transformer_is_refused(ask: object) -> None:
    with pytest.raises(UserError) as caught:
        ask(Transformer(), torch.rand(2, 3, 16, 16), torch.tensor([0, 1]))  # type: ignore[operator]
    assert str(caught.value) == (
        "this network ends in features of shape (1, 16, 12), not in a map (B, F, h, w) over the picture, so "
        "there is no place to point at: explain a convolutional network, for example one trained with "
        "--model resnet18"
    )


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "stages.stage9",
            "the network has no layer 'stages.stage9'; its outermost ones are normalise, stages, dropout, head",
        ),
        (
            "head",
            "the layer 'head' gives no map (B, F, h, w) over the picture; layers that give one: "
            "stages.stage1, stages.stage2, stages.stage3",
        ),
    ],
)  # fmt: skip
def test_a_wrong_layer_is_named(layer: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        grad_cam(network(), torch.rand(1, 3, 32, 32), torch.tensor([0]), layer)
    assert str(caught.value) == message
