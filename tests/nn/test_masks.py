import pytest
import torch

from dolmen.nn.masks import locked_dropout, random_mask


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.97, 1.0])
def test_a_mask_is_true_at_its_rate(rate: float) -> None:
    torch.manual_seed(0)
    mask = random_mask((101, 33, 77), rate, torch.device("cpu"))
    assert mask.shape == (101, 33, 77)
    assert mask.dtype == torch.bool
    n = mask.numel()
    assert abs(mask.sum().item() - n * rate) <= 5 * (n * rate * (1 - rate)) ** 0.5
    places = mask.flatten()[: n - n % 4].view(-1, 4).double().mean(0)  # the four that come from one number
    assert (places - rate).abs().max() < 0.01


def test_neighbours_in_a_mask_are_independent() -> None:
    torch.manual_seed(0)
    mask = random_mask((100_000,), 0.5, torch.device("cpu")).double() - 0.5
    for apart in (1, 2, 3, 4):
        assert abs((mask[apart:] * mask[:-apart]).mean()) * 4 < 0.02


def test_locked_dropout_keeps_its_mask_over_the_steps() -> None:
    torch.manual_seed(0)
    x = torch.ones(6, 3, 50)
    y = locked_dropout(x, 0.4, training=True)
    assert torch.equal(y, y[:1].expand_as(y))
    assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.6)]
    assert locked_dropout(x, 0.4, training=False) is x
