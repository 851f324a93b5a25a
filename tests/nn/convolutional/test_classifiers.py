from __future__ import annotations

import re

import pytest
import torch
import torchvision
from torch import Tensor, nn

from dolmen.nn.convolutional.blocks import Normalise
from dolmen.nn.convolutional.classifiers import (
    NETWORKS,
    Classifier,
    WhitenedStem,
    build_classifier,
    initialise_from_data,
    resnet18,
    resnet50,
)
from dolmen.types import UserError


def plain(channels: int = 3) -> Normalise:
    return Normalise([127.5] * channels, [64.0] * channels)


def pixels(num: int, channels: int, size: int) -> Tensor:
    return torch.rand(num, channels, size, size, generator=torch.Generator().manual_seed(0)) * 255


@pytest.mark.parametrize(("channels", "num_classes"), [(1, 2), (3, 2), (1, 10), (3, 10)])
@pytest.mark.parametrize("size", [8, 28, 32, 64, 160])
@pytest.mark.parametrize("name", NETWORKS)
def test_shapes(name: str, size: int, channels: int, num_classes: int) -> None:
    with torch.device("meta"):  # shapes without arithmetic
        net = build_classifier(name, num_classes, plain(channels), size)
        for height, width in ((size, size), (size, size + 5)):
            features = net.forward_features(torch.empty(2, channels, height, width))  # type: ignore[operator]
            assert features.ndim == 4
            assert min(features.shape[2:]) >= 1
            assert net.forward_head(features).shape == (2, num_classes)  # type: ignore[operator]
        assert net(torch.empty(1, channels, size, size)).shape == (1, num_classes)


@pytest.mark.parametrize("name", NETWORKS)
def test_as_many_parameters_as_the_docstring_says(name: str) -> None:
    match = re.search(r"([\d.]+) M parameters", NETWORKS[name].__doc__ or "")
    assert match, f"{name} does not say how many parameters it has"
    with torch.device("meta"):
        num = sum(p.numel() for p in build_classifier(name, 10, plain(), 32).parameters())
    digits = len(match[1].partition(".")[2])
    assert f"{num / 1e6:.{digits}f}" == match[1]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_reaches_every_trainable_parameter(name: str, channels: int) -> None:
    torch.manual_seed(0)
    net = build_classifier(name, 3, plain(channels), 32)
    initialise_from_data(net, pixels(50, channels, 32))
    net(pixels(4, channels, 32)).logsumexp(1).sum().backward()
    silent = [
        n
        for n, p in net.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.isfinite().all() or not p.grad.any())
    ]
    assert silent == []
    assert all(p.grad is None for p in net.parameters() if not p.requires_grad)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_single_small_picture_trains(name: str) -> None:
    net = build_classifier(name, 2, plain(1), 8).train()
    net(pixels(1, 1, 8)).sum().backward()


def test_the_stem_whitens_what_the_network_sees() -> None:
    net, pictures = build_classifier("fast", 10, plain(), 32), pixels(200, 3, 32)
    initialise_from_data(net, pictures)
    assert isinstance(net, Classifier)
    stem = net.stages["stem"]
    assert isinstance(stem, WhitenedStem)
    seen = stem.conv(net.normalise(pictures)).transpose(0, 1).flatten(1)
    kept = len(seen) // 2
    torch.testing.assert_close(seen[:kept] @ seen[:kept].T / seen.shape[1], torch.eye(kept), atol=0.05, rtol=0)
    assert not stem.conv.weight.requires_grad
    other = nn.Linear(2, 2)
    before = other.weight.clone()
    initialise_from_data(other, pictures)
    assert torch.equal(other.weight, before)


# ---- the same as torchvision


def from_torchvision(theirs: nn.Module) -> dict[str, Tensor]:
    """A state dict of torchvision's ResNet under our names."""
    renamed = {}
    for name, value in theirs.state_dict().items():
        name = re.sub(r"^conv1\.", "stages.stem.0.conv.", name)
        name = re.sub(r"^bn1\.", "stages.stem.0.norm.", name)
        name = re.sub(r"^layer(\d)\.", r"stages.stage\1.", name)
        name = re.sub(r"(stage\d\.\d+)\.conv(\d)\.", r"\1.conv\2.conv.", name)
        name = re.sub(r"(stage\d\.\d+)\.bn(\d)\.", r"\1.conv\2.norm.", name)
        name = name.replace("downsample.0.", "shortcut.conv.").replace("downsample.1.", "shortcut.norm.")
        renamed[re.sub(r"^fc\.", "head.", name)] = value
    return renamed


@pytest.mark.parametrize(("ours", "theirs"), [(resnet18, "resnet18"), (resnet50, "resnet50")])
def test_our_resnets_compute_what_torchvisions_compute(ours: object, theirs: str) -> None:
    torch.manual_seed(0)
    known = torchvision.models.get_model(theirs, weights=None, num_classes=7)
    for module in known.modules():  # so that every number of the norms matters
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    network = NETWORKS[theirs](7, plain(), 160)
    missing = network.load_state_dict(from_torchvision(known), strict=False)
    assert set(missing.missing_keys) == {"normalise.mean", "normalise.std"}
    assert missing.unexpected_keys == []
    x = pixels(2, 3, 160)
    with torch.no_grad():
        expected = known.eval()((x - 127.5) / 64)
        torch.testing.assert_close(network.eval()(x), expected, rtol=1e-4, atol=1e-4)
        if ours is resnet18:  # the deeper ones skip blocks while training
            torch.testing.assert_close(network.train()(x), known.train()((x - 127.5) / 64), rtol=1e-3, atol=1e-3)


# ---- messages


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        (
            "resnet81",
            False,
            r"^there is no network 'resnet81'; did you mean resnet8\? Give one of fast, .*mobile, or timm:NAME$",
        ),
        ("xyz", False, r"^there is no network 'xyz'; give one of fast, .*mobile, or timm:NAME$"),
        ("resnet18", True, "^resnet18 has no published weights; give --model timm:NAME, or leave --weights out$"),
    ],
)
def test_a_network_that_cannot_be_had_says_what_can(name: str, pretrained: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_classifier(name, 10, plain(), 32, pretrained=pretrained)
