from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from dolmen.data.images import augment


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def stored(b: int = 40, h: int = 9, w: int = 12, c: int = 3) -> Tensor:
    return torch.randint(0, 256, (b, h, w, c), generator=seeded(7), dtype=torch.uint8)


def pictures(b: int = 40, h: int = 9, w: int = 12, c: int = 3) -> Tensor:
    return stored(b, h, w, c).permute(0, 3, 1, 2).float()


def one_hot(b: int = 40, k: int = 5) -> Tensor:
    return torch.eye(k)[torch.arange(b) % k]


# ---- shift and flip


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("h", "w", "pixels"), [(9, 12, 2), (8, 8, 7), (5, 6, 0), (1, 6, 2)])
def test_shift_and_flip_is_a_crop_of_the_reflected_picture(h: int, w: int, pixels: int, channels: int) -> None:
    images = stored(30, h, w, channels)
    flip = torch.arange(30) % 3 == 0
    moved = augment.shift_and_flip(images, seeded(3), pixels=pixels, flip=flip).numpy()
    offsets = torch.randint(-pixels, pixels + 1, (2, 30, 1), generator=seeded(3)).numpy()[:, :, 0]
    pad = ((pixels, pixels), (pixels, pixels), (0, 0))
    for i, image in enumerate(images.numpy()):
        padded = np.pad(image, pad, mode="reflect")
        y, x = offsets[0, i] + pixels, offsets[1, i] + pixels
        expected = padded[y : y + h, x : x + w]
        if flip[i]:  # mirrored first, then moved the other way: the same set of views
            expected = np.pad(image[:, ::-1], pad, mode="reflect")[y : y + h, x : x + w]
            mirrored = padded[:, ::-1][y : y + h, x : x + w]
            assert np.array_equal(expected, mirrored)
        assert np.array_equal(moved[i], expected), i
    assert moved.dtype == np.uint8


def test_shifts_are_spread_evenly() -> None:
    ramp = torch.arange(21, dtype=torch.uint8).repeat(21, 1)[None, :, :, None].expand(4000, -1, -1, -1)
    moved = augment.shift_and_flip(ramp, seeded(), pixels=2)
    counts = torch.bincount(moved[:, 10, 10, 0].long())[8:13]
    assert counts.sum() == 4000
    assert counts.min() > 650


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_each_picture_is_flipped_exactly_every_second_epoch(seed: int) -> None:
    ids = torch.arange(10_000)
    epochs = torch.stack([augment.alternating_flip(ids, e, seed) for e in range(6)])
    assert torch.equal(epochs[:-1], ~epochs[1:])
    assert 0.48 < float(epochs[0].float().mean()) < 0.52
    # no pattern along the order of the data: neighbours agree as often as not
    for step in (1, 2, 3, 10, 100):
        assert 0.45 < float((epochs[0][step:] == epochs[0][:-step]).float().mean()) < 0.55, step
    assert torch.equal(augment.alternating_flip(ids[5:8], 0, seed), epochs[0][5:8])  # whatever batch it is in


def test_another_seed_flips_others_first() -> None:
    ids = torch.arange(10_000)
    first, second = (augment.alternating_flip(ids, 0, seed) for seed in (0, 1))
    assert 0.4 < float((first == second).float().mean()) < 0.6


# ---- affine


def test_an_affine_change_of_nothing_is_nothing() -> None:
    images = pictures()
    same = augment.affine(images, seeded(), degrees=0, scale=0, shift=0)
    torch.testing.assert_close(same, images, atol=1e-3, rtol=0)


def test_an_affine_shift_moves_by_at_most_its_share() -> None:
    images = torch.zeros(200, 1, 32, 32)
    images[:, :, 16, 16] = 100.0
    moved = augment.affine(images, seeded(), degrees=0, scale=0, shift=0.125)
    place = moved.flatten(1).argmax(1)
    away = torch.stack([place // 32 - 16, place % 32 - 16]).abs()
    assert away.max() <= 4
    assert away[0].max() >= 3
    assert away[1].max() >= 3


def test_a_rotation_keeps_a_disc_and_turns_a_bar() -> None:
    y, x = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(33.0) - 16, indexing="ij")
    disc = (y.square() + x.square() < 100).float().expand(20, 1, -1, -1) * 255
    turned = augment.affine(disc, seeded(), degrees=40, scale=0, shift=0)
    assert float((turned - disc).abs().mean()) < 8
    bar = (y.abs() < 2).float().expand(20, 1, -1, -1) * 255
    assert float((augment.affine(bar, seeded(), degrees=40, scale=0, shift=0) - bar).abs().mean()) > 20


def test_an_affine_scale_changes_the_size_within_bounds() -> None:
    images = torch.zeros(300, 1, 32, 32)
    images[:, :, 8:24, 8:24] = 255.0  # 256 pixels
    areas = augment.affine(images, seeded(), degrees=0, scale=0.25, shift=0).sum((1, 2, 3)) / 255
    assert float(areas.min()) == pytest.approx(256 / 1.25**2, rel=0.1)
    assert float(areas.max()) == pytest.approx(256 * 1.25**2, rel=0.1)


# ---- light, colour


def test_light_and_colour_of_nothing_change_nothing_and_stay_in_bounds() -> None:
    images = pictures()
    torch.testing.assert_close(augment.light(images, seeded(), brightness=0, contrast=0), images)
    torch.testing.assert_close(augment.colour(images, seeded(), saturation=0), images)
    brighter = augment.light(images, seeded(), brightness=0.2, contrast=0)
    moved = (brighter - images).flatten(1)
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), atol=1e-2, rtol=0)  # one amount a picture
    assert float(moved.abs().max()) <= 51.01
    contrast = augment.light(images, seeded(), brightness=0, contrast=0.5)
    ratio = contrast.flatten(1).std(1) / images.flatten(1).std(1)
    assert 1 / 1.5 - 1e-3 <= float(ratio.min()) < 0.9 < 1.1 < float(ratio.max()) <= 1.5 + 1e-3
    torch.testing.assert_close(contrast.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-2, rtol=0)
    gamma = augment.light(images, seeded(), brightness=0, contrast=0, gamma=0.3)
    assert gamma.isfinite().all()
    assert float(gamma.min()) >= -0.01
    assert float(gamma.max()) <= 255.01


def test_colour_keeps_the_grey_of_each_pixel() -> None:
    images = pictures()
    changed = augment.colour(images, seeded(), saturation=0.5)
    torch.testing.assert_close(changed.mean(1), images.mean(1), atol=1e-2, rtol=0)
    assert not torch.equal(changed, images)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(augment.colour(grey, seeded(), saturation=0.5), grey, atol=1e-2, rtol=0)


# ---- mixing


def test_cutmix_mixes_labels_by_the_area_that_it_pastes() -> None:
    shares = []
    for seed in range(60):
        b, k = 8, 8
        images = torch.arange(b, dtype=torch.float32).view(b, 1, 1, 1).expand(b, 2, 10, 14).contiguous()
        mixed, targets = augment.cutmix(images, torch.eye(k), seeded(seed))
        torch.testing.assert_close(targets.sum(1), torch.ones(b))
        for i in range(b):
            pixels = torch.bincount(mixed[i, 0].long().flatten(), minlength=k) / 140  # who is seen, and how much of it
            torch.testing.assert_close(pixels, targets[i], atol=1e-5, rtol=0)
        assert torch.equal(mixed[:, 0], mixed[:, 1])
        shares.append(1 - float(targets.diagonal().min()))
        assert torch.equal(images[:, 0, 0, 0], torch.arange(8.0))  # what came in is left as it was
    assert min(shares) < 0.1
    assert max(shares) > 0.9


def test_mixup_blends_pictures_and_labels_by_the_same_share() -> None:
    shares = []
    for seed in range(200):
        b = 6
        images = torch.eye(b).view(b, b, 1, 1).expand(b, b, 3, 3)  # a channel a picture
        mixed, targets = augment.mixup(images, torch.eye(b), seeded(seed))
        torch.testing.assert_close(targets.sum(1), torch.ones(b))
        torch.testing.assert_close(mixed[:, :, 1, 1], targets)
        shares.append(float(targets.diagonal().min()))
        assert shares[-1] >= 0.5  # a picture stays mostly what it was
    assert np.mean(shares) == pytest.approx(0.92, abs=0.04)  # the mean of max(x, 1 - x) for Beta(0.2, 0.2)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_shares_follow_the_beta_distribution(alpha: float) -> None:
    shares = []
    for seed in range(400):
        _, targets = augment.mixup(torch.zeros(2, 1, 1, 1), torch.eye(2), seeded(seed), alpha)
        shares.append(float(targets[0].max()))
    drawn = np.random.default_rng(0).beta(alpha, alpha, 100_000)
    expected = np.maximum(drawn, 1 - drawn)
    partner_is_itself = 0.5  # of two pictures, half the permutations change nothing
    mean = partner_is_itself + (1 - partner_is_itself) * expected.mean()
    assert np.mean(shares) == pytest.approx(mean, abs=0.03)


CHANGES: dict[str, Callable[[Generator], Tensor]] = {
    "shift_and_flip": lambda g: augment.shift_and_flip(stored(), g, pixels=3),
    "affine": lambda g: augment.affine(pictures(), g, degrees=15, scale=0.2, shift=0.1, stretch=0.1),
    "light": lambda g: augment.light(pictures(), g, brightness=0.2, contrast=0.2, gamma=0.2),
    "colour": lambda g: augment.colour(pictures(), g, saturation=0.5),
    "vary": lambda g: augment.vary(pictures(h=20, w=16), g),
    "cutmix": lambda g: augment.cutmix(pictures(), one_hot(), g)[0],
    "mixup": lambda g: augment.mixup(pictures(), one_hot(), g)[1],
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_same_seed_repeats_and_nothing_else_is_drawn_from(name: str) -> None:
    torch.manual_seed(0)
    first = CHANGES[name](seeded(5))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(CHANGES[name](seeded(5)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(CHANGES[name](seeded(6)), first)
