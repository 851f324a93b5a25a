from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dolmen.nn.convolutional.blocks import BatchNorm2d, ConvNormAct, DropPath, Normalise, SqueezeExcite, dirac_, whiten_


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_normalise_brings_each_channel_to_zero_mean_and_unit_variance() -> None:
    pixels = torch.rand(8, 3, 5, 7, generator=torch.Generator().manual_seed(0)) * 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    out = Normalise(mean.tolist(), std.tolist())(pixels)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(3))
    assert set(Normalise([0.0], [1.0]).state_dict()) == {"mean", "std"}  # it travels with the weights


# ---- batch norm


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_torchs_on_one_process(affine: bool) -> None:
    ours, theirs = BatchNorm2d(4, affine=affine), nn.BatchNorm2d(4, affine=affine)
    for seed in range(3):
        x = randn(6, 4, 5, 5, seed=seed) * 3 + 1
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        torch.testing.assert_close(ours(a), theirs(b), rtol=0, atol=0)
        ours(a).square().sum().backward()
        theirs(b).square().sum().backward()
        assert torch.equal(a.grad, b.grad)
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.state_dict().items())
    x = randn(2, 4, 3, 3)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_one_value_a_channel_uses_the_running_statistics_where_torch_raises() -> None:
    norm, x = BatchNorm2d(3), randn(1, 3, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value"):
        nn.BatchNorm2d(3)(x)
    norm(randn(8, 3, 4, 4, seed=1) * 2 + 5)
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    given = x.requires_grad_()
    trained = norm(given)
    trained.sum().backward()
    assert given.grad is not None
    assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())  # one value teaches nothing
    assert torch.equal(trained, norm.eval()(x))


@pytest.mark.parametrize(("momentum", "affine"), [(0.1, True), (0.4, False)])
def test_summed_over_processes_it_is_the_norm_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch, momentum: float, affine: bool
) -> None:
    """The path for several processes, on one that pretends: its sums are those of the whole batch."""
    import torch.distributed as dist

    ours = BatchNorm2d(3, momentum=momentum, affine=affine)
    theirs = nn.BatchNorm2d(3, momentum=momentum, affine=affine)
    x = randn(6, 3, 4, 4) * 2 + 3
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = theirs(b)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda total: None)
    out = ours(a)
    weight = randn(6, 3, 4, 4, seed=1)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-4, atol=1e-5)


# ---- first filters


def smooth_pictures(channels: int) -> Tensor:
    """Pictures whose neighbours are alike, as in photographs, with channels that are alike too."""
    pictures = F.avg_pool2d(randn(400, channels, 22, 22), 3, 1)
    return (pictures + 0.5 * pictures.mean(1, keepdim=True)) * 3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_whitened_responses_have_the_identity_as_covariance(channels: int, kernel: int) -> None:
    kept = min(channels * kernel * kernel, 12)
    conv, pictures = nn.Conv2d(channels, 2 * kept, kernel, bias=False), smooth_pictures(channels)
    whiten_(conv, pictures)
    responses = conv(pictures).transpose(0, 1).flatten(1)  # (2 kept, positions)
    covariance = responses @ responses.T / responses.shape[1]
    torch.testing.assert_close(covariance[:kept, :kept], torch.eye(kept), atol=0.08, rtol=0)
    assert torch.equal(conv.weight[kept:], -conv.weight[:kept])
    assert not conv.weight.requires_grad


def test_whitening_keeps_the_directions_with_the_largest_variance() -> None:
    pictures = smooth_pictures(1)
    few, all_ = nn.Conv2d(1, 4, 3, bias=False), nn.Conv2d(1, 18, 3, bias=False)
    whiten_(few, pictures)
    whiten_(all_, pictures)
    assert torch.equal(few.weight[:2], all_.weight[:2])
    assert all_.weight[0].norm() < all_.weight[8].norm()  # the strongest direction is turned down the most


def test_whitening_leaves_outputs_without_a_direction_at_zero_and_bears_flat_pictures() -> None:
    wide = nn.Conv2d(1, 12, 2, bias=False)
    whiten_(wide, smooth_pictures(1))
    assert wide.weight.flatten(1).norm(dim=1).gt(0).tolist() == [True] * 4 + [False] * 2 + [True] * 4 + [False] * 2
    flat = nn.Conv2d(3, 24, 2, bias=False)
    whiten_(flat, torch.zeros(10, 3, 8, 8))
    assert flat.weight.isfinite().all()
    assert flat.weight.abs().max() <= 1 / 5e-4**0.5


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_dirac_passes_its_input_through(kernel: int) -> None:
    conv = nn.Conv2d(3, 5, kernel, padding=kernel // 2, bias=False)
    rest = conv.weight[3:].clone()
    dirac_(conv)
    x = randn(2, 3, 6, 6)
    torch.testing.assert_close(conv(x)[:, :3], x)
    assert torch.equal(conv.weight[3:], rest)
    narrow = nn.Conv2d(5, 3, 3, padding=1, bias=False)
    dirac_(narrow)
    x = randn(2, 5, 6, 6)
    torch.testing.assert_close(narrow(x), x[:, :3])


# ---- blocks


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("size", [7, 8])
def test_convolution_block_keeps_or_halves_the_size(stride: int, kernel: int, size: int) -> None:
    block = ConvNormAct(4, 8, kernel, stride=stride, groups=4)
    expected = -(-size // stride)
    out = block(randn(2, 4, size, size))
    assert out.shape == (2, 8, expected, expected)
    assert (out >= 0).all()
    assert ConvNormAct(4, 8, act=None)(randn(2, 4, 5, 5)).min() < 0


def test_squeeze_excite_scales_whole_channels_by_a_gate() -> None:
    x = randn(2, 16, 3, 5)
    gate = SqueezeExcite(16)(x) / x
    assert gate.shape == x.shape
    assert ((gate > 0) & (gate < 1)).all()
    torch.testing.assert_close(gate, gate[:, :, :1, :1].expand_as(gate))


def test_drop_path_drops_whole_examples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop, x = DropPath(0.3), torch.ones(4000, 2, 1, 1)
    out = drop(x)
    assert out[:, 0].unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert torch.equal(out[:, 0], out[:, 1])
    assert float(out.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(x), x)
    assert torch.equal(DropPath(0.0)(x), x)
    assert repr(drop) == "DropPath(p=0.3)"
