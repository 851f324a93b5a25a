"""Losses, and the golden ones: what small networks lost in 20 steps when this was written.

A change of arithmetic shows here. If it was meant, record anew: DOLMEN_RECORD_GOLDEN=1 pytest tests/nn/test_losses.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dolmen.nn.convolutional import classifiers
from dolmen.nn.convolutional.blocks import Normalise
from dolmen.nn.losses import cross_entropy, drawing_probabilities, linear_cross_entropy
from dolmen.nn.optimizers import classifier_optimizers, linear

GOLDEN = Path(__file__).parent.parent / "golden" / "losses.json"
NUM_STEPS = 20


@pytest.mark.parametrize("most", [1 << 22, 40, 1])
def test_linear_cross_entropy_in_parts_equals_the_whole(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dolmen.nn.losses.MAX_CHUNK_LOGITS", most)
    g = torch.Generator().manual_seed(0)
    tensors = [torch.randn(s, generator=g, requires_grad=True) for s in ((7, 5), (13, 5), (13,))]
    targets = torch.tensor([0, 12, 3, 3, 5, 1, 0])
    loss = linear_cross_entropy(tensors[0], tensors[1], tensors[2], targets)
    wanted = F.cross_entropy(F.linear(*tensors), targets, reduction="sum")
    torch.testing.assert_close(loss, wanted)
    for actual, right in zip(
        torch.autograd.grad(3 * loss, tensors), torch.autograd.grad(3 * wanted, tensors), strict=True
    ):
        torch.testing.assert_close(actual, right)
    with torch.autocast("cpu", torch.bfloat16):
        half = linear_cross_entropy(tensors[0], tensors[1], tensors[2], targets)
    assert float(half.detach()) == pytest.approx(float(wanted.detach()), rel=0.01)


def test_a_sampled_softmax_is_the_whole_one_where_all_is_drawn() -> None:
    g = torch.Generator().manual_seed(0)
    tensors = [torch.randn(s, generator=g, requires_grad=True) for s in ((7, 5), (13, 5), (13,))]
    targets = torch.tensor([0, 12, 3, 3, 5, 1, 0])
    loss = linear_cross_entropy(tensors[0], tensors[1], tensors[2], targets, torch.ones(13))
    wanted = F.cross_entropy(F.linear(*tensors), targets, reduction="sum")
    torch.testing.assert_close(loss, wanted)
    for actual, right in zip(torch.autograd.grad(loss, tensors), torch.autograd.grad(wanted, tensors), strict=True):
        torch.testing.assert_close(actual, right)


def test_a_sampled_softmax_is_right_on_average() -> None:
    """The sum over the classes is; its logarithm nearly, where many are drawn."""
    torch.manual_seed(0)
    out, weight, bias = torch.randn(50, 8) / 2, torch.randn(2000, 8) / 2, torch.randn(2000) / 2
    targets = torch.randint(2000, (50,))
    drawn = drawing_probabilities(torch.arange(2000), 500)
    leaves = [t.requires_grad_() for t in (out, weight, bias)]
    whole = torch.autograd.grad(linear_cross_entropy(out, weight, bias, targets), leaves)
    rounds = [torch.autograd.grad(linear_cross_entropy(out, weight, bias, targets, drawn), leaves) for _ in range(300)]
    for one, many in zip(whole, zip(*rounds, strict=True), strict=True):
        mean = torch.stack(many).mean(0)
        assert float((mean - one).norm() / one.norm()) < 0.05
    with torch.no_grad():
        losses = torch.stack([linear_cross_entropy(out, weight, bias, targets, drawn) for _ in range(300)])
        right = linear_cross_entropy(out, weight, bias, targets)
    assert float(losses.mean()) == pytest.approx(float(right), rel=0.002)


@pytest.mark.parametrize("number", [1.0, 10.0, 250.0, 1000.0])
def test_drawing_probabilities_add_up_and_follow_the_counts(number: float) -> None:
    counts = 10_000 // torch.arange(1, 1001)
    values = drawing_probabilities(counts, number)
    assert float(values.sum()) == pytest.approx(number, rel=1e-4)
    assert ((values > 0) & (values <= 1)).all()
    assert (values.diff() <= 0).all()
    assert drawing_probabilities(torch.zeros(4), 2).tolist() == pytest.approx([0.5] * 4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_a_sum_and_how_many_it_counts(smoothing: float) -> None:
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 1])
    loss = cross_entropy(logits, labels, smoothing)
    mixed = cross_entropy(logits, F.one_hot(labels, 4).float(), smoothing)
    target = F.one_hot(labels, 4) * (1 - smoothing) + smoothing / 4
    by_hand = -(target * logits.log_softmax(1)).sum()
    torch.testing.assert_close(loss.total, by_hand)
    torch.testing.assert_close(mixed.total, by_hand)
    assert loss.weight == mixed.weight == 6.0
    parts = [cross_entropy(logits[i : i + 2], labels[i : i + 2], smoothing) for i in (0, 2, 4)]
    torch.testing.assert_close(sum(p.total for p in parts), loss.total)


def test_cross_entropy_is_computed_in_fp32_whatever_the_logits_come_in() -> None:
    logits = torch.tensor([[300.0, -300.0]], dtype=torch.bfloat16)
    loss = cross_entropy(logits, torch.tensor([1]))
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == pytest.approx(600, abs=2)


def fast(normalise: Normalise) -> nn.Module:
    return classifiers.fast(4, normalise, 16, widths=(8, 16, 16))


def residual(normalise: Normalise) -> nn.Module:
    return classifiers.resnet(4, normalise, 16, classifiers.BasicBlock, (1, 1), (8, 16))


def bottleneck(normalise: Normalise) -> nn.Module:
    return classifiers.resnet(4, normalise, 16, classifiers.Bottleneck, (1, 1), (8, 8))


def inverted(normalise: Normalise) -> nn.Module:
    stages: dict[str, nn.Module] = {
        "stem": classifiers.ConvNormAct(3, 8),
        "stage1": classifiers.InvertedResidual(8, 8, 1),
        "stage2": classifiers.InvertedResidual(8, 16, 2),
    }
    return classifiers.Classifier(normalise, stages, 16, 4)


def losses(build: Callable[[Normalise], nn.Module], pretrained: bool) -> list[float]:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 4, 64))
    patterns = rng.uniform(60, 190, (4, 3, 16, 16))
    pixels = torch.from_numpy((patterns[labels] + rng.normal(0, 40, (64, 3, 16, 16))).clip(0, 255)).float()
    torch.manual_seed(0)
    net = build(Normalise([125.0] * 3, [60.0] * 3)).train()
    classifiers.initialise_from_data(net, pixels)
    # NumPy draws the weights: its streams are the same everywhere
    for p in net.parameters():
        if p.requires_grad and p.ndim > 1:
            p.data = torch.from_numpy(rng.normal(0, (2 / p[0].numel()) ** 0.5, p.shape)).float()
    optimizers = classifier_optimizers(net, lr=0.02 if not pretrained else 1e-2, pretrained=pretrained)
    schedule, seen = linear(), []
    for step in range(NUM_STEPS):
        for optimizer in optimizers:
            optimizer.zero_grad()
        part = slice(step % 2 * 32, step % 2 * 32 + 32)
        loss = cross_entropy(net(pixels[part]), labels[part], 0.1)
        (loss.total / loss.weight).backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * schedule(step / NUM_STEPS)
            optimizer.step()
        seen.append(round(loss.total.item() / loss.weight, 5))
    return seen


@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize("build", [fast, residual, bottleneck, inverted])
def test_golden_losses(build: Callable[[Normalise], nn.Module], pretrained: bool) -> None:
    name = f"{build.__name__}-{'adamw' if pretrained else 'muon'}"
    values = losses(build, pretrained)
    assert values[-1] < 0.9 * values[0]
    if os.environ.get("DOLMEN_RECORD_GOLDEN"):
        known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.write_text(json.dumps(dict(sorted((known | {name: values}).items())), indent=1) + "\n")
    assert values == pytest.approx(json.loads(GOLDEN.read_text())[name], abs=1e-3)
