from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

from dolmen.nn.convolutional.blocks import Normalise
from dolmen.nn.convolutional.classifiers import build_classifier
from dolmen.nn.convolutional.timm_backbone import timm_classifier
from dolmen.nn.losses import cross_entropy
from dolmen.nn.optimizers import classifier_optimizers
from dolmen.types import UserError

timm = pytest.importorskip("timm")


def grey(channels: int = 3) -> Normalise:
    return Normalise([127.5] * channels, [64.0] * channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:mobilenetv3_small_050"])
def test_a_timm_network_builds_and_learns(name: str, channels: int) -> None:
    torch.manual_seed(0)
    net = build_classifier(name, 4, grey(channels), 32)
    x, labels = torch.rand(8, channels, 32, 32) * 255, torch.arange(8) % 4
    before = [p.detach().clone() for p in net.parameters()]
    loss = cross_entropy(net(x), labels)
    (loss.total / loss.weight).backward()
    for optimizer in classifier_optimizers(net, lr=0.02):
        optimizer.step()
    assert sum(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)) > len(before) / 2
    features = net.eval().forward_features(x)  # type: ignore[operator]
    assert features.ndim == 4
    assert net(x).shape == (8, 4)
    torch.testing.assert_close(net.forward_head(features), net(x))  # type: ignore[operator]


def test_an_unknown_name_is_answered_with_close_ones() -> None:
    with pytest.raises(UserError, match=r"^timm has no model 'resnet81'; did you mean .*resnet18.*\? Give timm:NAME"):
        build_classifier("timm:resnet81", 4, grey(), 32)
    with pytest.raises(UserError, match=r"^timm has no model 'qqqqqqqq'; give timm:NAME with a name"):
        build_classifier("timm:qqqqqqqq", 4, grey(), 32)


def test_weights_that_cannot_be_had_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> nn.Module:
        raise ConnectionError("line one\nline two")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(UserError) as caught:
        timm_classifier("test_resnet.r160_in1k", 4, grey(), pretrained=True)
    assert str(caught.value) == (
        "the published weights of timm:test_resnet.r160_in1k can't be had (ConnectionError); connect to the internet "
        "once, or train from scratch by leaving --weights out"
    )
    with pytest.raises(UserError, match=r"^timm can't make 'test_resnet': line one; give another timm:NAME$"):
        timm_classifier("test_resnet", 4, grey(), pretrained=False)


@pytest.mark.parametrize(
    ("facts", "licence"),
    [
        ({"license": "apache-2.0", "hf_hub_id": "timm/test"}, "licence apache-2.0; from timm/test"),
        ({"url": "https://a.b/c"}, "licence not stated: ask the authors before you ship; from https://a.b/c"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_published_weights_bring_their_normalisation_and_say_their_licence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    facts: dict[str, str],
    licence: str,
    channels: int,
) -> None:
    backbone = timm.create_model("test_resnet", num_classes=4, in_chans=channels)
    backbone.pretrained_cfg = {"mean": (0.2, 0.4, 0.6), "std": (0.1, 0.2, 0.3), **facts}
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: backbone)
    net = timm_classifier("test_resnet.r160_in1k", 4, grey(channels), pretrained=True)
    out = capsys.readouterr()
    assert (out.out, out.err) == ("", f"weights of timm:test_resnet.r160_in1k: {licence}\n")
    mean, std = ([0.2, 0.4, 0.6], [0.1, 0.2, 0.3]) if channels == 3 else ([0.4], [0.2])
    torch.testing.assert_close(net.normalise.mean.flatten(), 255 * torch.tensor(mean))
    torch.testing.assert_close(net.normalise.std.flatten(), 255 * torch.tensor(std))


def test_without_timm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"^timm: networks need the timm library; type: pip install 'dolmen\[timm\]'$"):
        build_classifier("timm:test_resnet", 4, grey(), 32)
