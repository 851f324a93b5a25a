from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dolmen.data.images.mirror import mirror_test


def test_digits_do_not_bear_mirroring() -> None:
    digits = load_digits()
    pixels = (digits.images * 15.9).astype(np.uint8)
    thumbnails = np.stack([np.asarray(Image.fromarray(p).resize((16, 16))) for p in pixels])
    outcome = mirror_test(thumbnails, digits.target.astype(np.int64))
    assert not outcome.keeps
    assert outcome.plain > 0.9
    assert outcome.mirrored < 0.7


@pytest.mark.parametrize("seed", range(5))
def test_pictures_that_are_as_likely_mirrored_bear_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 300)
    patterns = rng.integers(0, 256, (3, 16, 16)).astype(float)
    patterns = (patterns + patterns[:, :, ::-1]) / 2  # symmetric
    thumbnails = (patterns[labels] + rng.normal(0, 30, (300, 16, 16))).clip(0, 255).astype(np.uint8)
    outcome = mirror_test(thumbnails, labels, seed)
    assert outcome.keeps
    assert outcome.plain > 0.8
    assert mirror_test(thumbnails, labels, seed) == outcome


def test_views_that_are_mirror_images_of_each_other_do_not() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)  # left hand, right hand
    hand = rng.integers(0, 256, (16, 16)).astype(float)
    thumbnails = np.where(labels[:, None, None] == 1, hand[:, ::-1], hand) + rng.normal(0, 20, (200, 16, 16))
    outcome = mirror_test(thumbnails.clip(0, 255).astype(np.uint8), labels)
    assert not outcome.keeps
    assert outcome.mirrored < 0.1


@pytest.mark.parametrize("num", [2, 3])
def test_very_few_or_flat_pictures_give_an_answer(num: int) -> None:
    flat = np.full((num, 16, 16), 7, np.uint8)
    outcome = mirror_test(flat, np.arange(num) % 2)
    assert isinstance(outcome.keeps, bool)
    assert 0 <= outcome.plain <= 1
