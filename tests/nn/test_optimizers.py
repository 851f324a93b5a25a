from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from dolmen.nn.convolutional.blocks import Normalise
from dolmen.nn.convolutional.classifiers import NETWORKS, build_classifier
from dolmen.nn.optimizers import (
    Muon,
    Schedule,
    classifier_optimizers,
    cosine,
    linear,
    orthogonalise,
    recurrent_optimizers,
)
from dolmen.nn.recurrent.language_model import LanguageModel


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (linear(0.1), {0: 0.01, 0.0005: 0.01, 0.05: 0.5, 0.1: 1, 0.55: 0.5, 1: 0}),
        (linear(0.2, 0.1), {0: 0.01, 0.1: 0.5, 0.2: 1, 0.6: 0.55, 1: 0.1}),
        (linear(0), {0: 1, 0.5: 0.5, 1: 0}),
        (cosine(0.1), {0: 0.01, 0.05: 0.5, 0.1: 1, 0.55: 0.5, 1: 0}),
        (cosine(0, 0.2), {0: 1, 0.5: 0.6, 1: 0.2}),
    ],
)
def test_schedules(schedule: Schedule, points: dict[float, float]) -> None:
    for progress, expected in points.items():
        assert schedule(progress) == pytest.approx(expected, abs=1e-9), progress
    values = [schedule(p / 1000) for p in range(1001)]
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)


# ---- Muon


@pytest.mark.parametrize("shape", [(64, 576), (64, 64 * 4), (300, 24), (16, 27)])
def test_orthogonalise_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    gradient = randn(*shape) * 7
    update = orthogonalise(gradient)
    values = torch.linalg.svdvals(update)
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    aligned = (u.T @ update @ v.T).diagonal()  # the directions stay as they were
    torch.testing.assert_close(aligned, values[aligned.argsort(descending=True).argsort()], rtol=1e-3, atol=1e-3)


def test_orthogonalise_under_autocast_gives_nearly_the_same() -> None:
    gradient = randn(64, 24)
    exact = orthogonalise(gradient)
    with torch.autocast("cpu", torch.bfloat16):
        update = orthogonalise(gradient)
    assert update.dtype == torch.float32
    assert (update - exact).norm() < 0.03 * exact.norm()


def test_orthogonalise_bears_a_zero_gradient_and_keeps_the_dtype() -> None:
    assert torch.equal(orthogonalise(torch.zeros(3, 5)), torch.zeros(3, 5))
    assert orthogonalise(randn(4, 6).double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("decay", "renormalise", "rows"), [(0.0, True, 8), (0.1, True, 8), (0.1, False, 8), (0.0, False, 54)]
)
def test_steps_equal_the_formula(decay: float, renormalise: bool, rows: int) -> None:
    weight = nn.Parameter(randn(rows, 3, 3, 3))
    muon = Muon([weight], lr=0.1, momentum=0.6, weight_decay=decay, renormalise=renormalise)
    expected, average = weight.detach().clone(), torch.zeros(rows, 3, 3, 3)
    rate = 0.1 * math.sqrt(2) if rows == 54 else 0.1  # a matrix of twice as many rows as columns
    for step in range(3):
        gradient = randn(rows, 3, 3, 3, seed=10 + step)
        weight.grad = gradient.clone()
        muon.step()
        average = 0.6 * average + gradient
        nesterov = gradient + 0.6 * average
        if renormalise:
            expected = expected * math.sqrt(rows) / expected.norm()
        expected = expected * (1 - 0.1 * decay) - rate * orthogonalise(nesterov.view(rows, 27)).view(rows, 3, 3, 3)
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(weight.grad, gradient)


def test_muon_leaves_parameters_without_gradient_and_calls_a_closure() -> None:
    still, moving = nn.Parameter(randn(4, 4)), nn.Parameter(randn(4, 4))
    before = still.detach().clone()
    muon = Muon([still, moving])

    def closure() -> float:
        loss = moving.square().sum()
        loss.backward()
        return float(loss.detach())

    assert muon.step(closure) == pytest.approx(float(randn(4, 4).square().sum()))
    assert torch.equal(still, before)
    assert not torch.equal(moving, randn(4, 4))


def test_muon_goes_on_from_its_state_dict() -> None:
    first = nn.Parameter(randn(6, 2, 3, 3))
    muon = Muon([first])
    for step in range(2):
        first.grad = randn(6, 2, 3, 3, seed=step)
        muon.step()
    second = nn.Parameter(first.detach().clone())
    resumed = Muon([second])
    resumed.load_state_dict(copy.deepcopy(muon.state_dict()))
    for weight, optimizer in ((first, muon), (second, resumed)):
        weight.grad = randn(6, 2, 3, 3, seed=9)
        optimizer.step()
    assert torch.equal(first, second)


# ---- which optimiser trains what


@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize("name", [*NETWORKS, "timm:test_resnet", "timm:test_vit"])
def test_every_trainable_parameter_is_trained_exactly_once(name: str, pretrained: bool) -> None:
    net = build_classifier(name, 3, Normalise([127.5] * 3, [64.0] * 3), 160)
    optimizers = classifier_optimizers(net, pretrained=pretrained)
    trained = [id(p) for o in optimizers for g in o.param_groups for p in g["params"]]
    assert len(trained) == len(set(trained))
    assert set(trained) == {id(p) for p in net.parameters() if p.requires_grad}


def test_a_parameter_of_any_number_of_axes_is_trained() -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv1d(2, 2, 3), nn.Linear(2, 2))
    optimizers = classifier_optimizers(net)
    assert sum(len(g["params"]) for o in optimizers for g in o.param_groups) == len(list(net.parameters()))


def test_filters_that_no_norm_follows_are_trained_like_dense_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    muon, sgd = classifier_optimizers(model, outputs=[model[3]])
    trained = {id(p) for group in muon.param_groups for p in group["params"]}
    assert trained == {id(model[0].weight)}
    dense = {id(p) for p in sgd.param_groups[1]["params"]}
    assert dense == {id(model[3].weight)}


def test_from_scratch_biases_and_norms_do_not_decay() -> None:
    net = build_classifier("resnet8", 3, Normalise([0.0], [1.0]), 32)
    muon, sgd = classifier_optimizers(net, lr=0.1, weight_decay=0.01)
    assert isinstance(muon, Muon)
    assert (muon.param_groups[0]["lr"], muon.param_groups[0]["weight_decay"]) == (0.1, 0.01)
    for group in sgd.param_groups:
        axes = {p.ndim for p in group["params"]}
        assert group["weight_decay"] == (0.0 if axes == {1} else 0.01)


def test_published_weights_move_less_the_earlier_they_are_and_wait_for_the_head() -> None:
    net = build_classifier("resnet8", 3, Normalise([0.0], [1.0]), 32)
    (adam,) = classifier_optimizers(net, lr=1e-3, pretrained=True)
    by_parameter = {id(p): g for g in adam.param_groups for p in g["params"]}
    groups = [by_parameter[id(p)] for p in net.parameters()]
    rates = [g["lr"] for g in groups]
    assert rates == sorted(rates)
    assert rates[-1] == 1e-3
    assert min(rates) >= 1e-5
    assert [g["starts_at"] for g in groups] == [0.1] * (len(groups) - 2) + [0.0, 0.0]
    for p in net.parameters():
        assert by_parameter[id(p)]["weight_decay"] == (0.05 if p.ndim > 1 else 0.0)


def test_recurrent_networks_train_every_parameter_once_and_leave_frozen_ones() -> None:
    model = LanguageModel(11, size=6, hidden=7)
    model.bias.requires_grad_(False)
    muon, adamw = recurrent_optimizers(model, model.layers, lr=0.1, matrices=3, weight_decay=0.2)
    assert muon.param_groups[0]["lr"] == pytest.approx(0.3)
    assert {id(p) for p in muon.param_groups[0]["params"]} == {
        id(p) for n, p in model.layers.named_parameters() if "weight" in n
    }
    assert [g["weight_decay"] for g in adamw.param_groups] == [0.2, 0.0]
    taken = [id(p) for o in (muon, adamw) for g in o.param_groups for p in g["params"]]
    assert sorted(taken) == sorted(id(p) for n, p in model.named_parameters() if n != "bias")
