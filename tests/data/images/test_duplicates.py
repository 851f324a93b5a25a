"""Duplicates: copies are found however they were saved, look-alikes are left alone, work stays linear."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dolmen.data.checks.clusters import exact_duplicates
from dolmen.data.images import duplicates
from dolmen.data.images.appearance import appearance, difference_hashes
from dolmen.data.images.decoded import Decoded
from dolmen.data.images.duplicates import near_duplicates


def decoded(pictures: Sequence[np.ndarray]) -> Decoded:
    """Describe pictures (H, W, C) without going through files."""
    looks = [appearance(p) for p in pictures]
    n = len(pictures)
    return Decoded(
        pixels=np.zeros((n, 1, 1, 1), np.uint8),
        digests=np.array([np.frombuffer(a.digest, np.uint8) for a in looks]).reshape(-1, 16),
        hashes=difference_hashes(np.array([a.miniature for a in looks]).reshape(-1, 8, 9)),
        thumbnails=np.array([a.thumbnail for a in looks]).reshape(-1, 16, 16),
        sizes=np.array([p.shape[:2] for p in pictures], np.int32).reshape(-1, 2),
        channels=np.array([p.shape[2] for p in pictures], np.uint8),
        problems={},
        notes={},
    )


def near(d: Decoded, splits: Sequence[str] | None = None) -> list[list[int]]:
    n = len(d.digests)
    return near_duplicates(d, np.arange(n), np.array(splits or ["train"] * n)).tolist()


def scene(seed: int, size: int = 64) -> np.ndarray:
    """A smooth random picture: a photograph as far as hashes can tell."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def save(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    return save


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg 90": jpeg(90),
    "jpeg 50": jpeg(50),
    "half the size": lambda image: image.resize((32, 32)),
    "twice the size": lambda image: image.resize((128, 128)),
    "another shape": lambda image: image.resize((80, 50)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.85),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.15),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
def test_changed_copies_are_found(change):
    originals = [scene(i) for i in range(40)]
    copies = [np.asarray(change(Image.fromarray(p))) for p in originals]
    pairs = near(decoded(originals + copies))
    assert all(b == a + 40 for a, b in pairs)
    assert len(pairs) >= 38


def test_different_pictures_are_left_alone():
    assert near(decoded([scene(i) for i in range(300)])) == []


def test_blank_pictures_match_nothing():
    rng = np.random.default_rng(0)
    blank = [np.full((32, 32, 3), value, np.uint8) for value in range(0, 250, 10)]
    noisy = [(120 + rng.integers(0, 3, (32, 32, 3))).astype(np.uint8) for _ in range(30)]
    assert near(decoded(blank + noisy)) == []


def test_exact_duplicates_are_no_near_duplicates():
    assert near(decoded([scene(0), scene(0), scene(1)])) == []


def test_the_same_shapes_at_another_contrast_are_another_picture():
    strong = scene(0)
    weak = np.asarray(ImageEnhance.Contrast(Image.fromarray(strong)).enhance(0.4))
    assert near(decoded([strong, weak])) == []


def test_small_pictures_need_to_agree_better():
    big = scene(0, 32).astype(np.int16)
    other = np.clip(big + np.random.default_rng(0).normal(0, 7, (4, 4, 1)).repeat(8, 0).repeat(8, 1), 0, 255)
    pair = [big.astype(np.uint8), other.astype(np.uint8)]
    d = decoded(pair)
    d.hashes[1] = d.hashes[0]  # this is about the thumbnails
    correlation = np.corrcoef(d.thumbnails.reshape(2, -1).astype(float))[0, 1]
    assert duplicates.MIN_CORRELATION < correlation < duplicates.MIN_CORRELATION_SMALL
    assert near(d) == [[0, 1]]
    d.sizes[1] = (8, 8)
    assert near(d) == []


def test_every_pair_within_the_distance_is_a_candidate():
    """The pigeonhole, tried out: 4 changed bits anywhere leave two bands whole."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 2000, dtype=np.uint64) * np.uint64(2)
    changed = hashes.copy()
    for i in range(len(hashes)):
        for bit in rng.choice(64, duplicates.MAX_BITS, replace=False):
            changed[i] ^= np.uint64(1) << np.uint64(bit)
    both = np.concatenate([hashes, changed])
    sketch = rng.normal(size=(4000, 16)).astype(np.float32)
    candidates = {tuple(sorted(p)) for pairs in duplicates._candidates(both, sketch) for p in pairs.tolist()}
    assert {(i, i + 2000) for i in range(2000)} <= candidates


def random_set(num: int, hashes: np.ndarray, thumbnails: np.ndarray) -> Decoded:
    rng = np.random.default_rng(1)
    return Decoded(
        pixels=np.zeros((num, 1, 1, 1), np.uint8),
        digests=rng.integers(0, 256, (num, 16), np.uint8),
        hashes=hashes,
        thumbnails=thumbnails,
        sizes=np.full((num, 2), 32, np.int32),
        channels=np.ones(num, np.uint8),
        problems={},
        notes={},
    )


def count_candidates(hashes: np.ndarray, num: int) -> int:
    sketch = np.random.default_rng(0).normal(size=(num, 16)).astype(np.float32)
    return sum(len(pairs) for pairs in duplicates._candidates(hashes, sketch))


def test_random_hashes_give_hardly_any_work():
    rng = np.random.default_rng(0)
    assert count_candidates(rng.integers(0, 2**63, 100_000, dtype=np.uint64), 100_000) < 100


def test_equal_hashes_give_linear_work():
    for num in (1_000, 10_000):
        assert count_candidates(np.zeros(num, np.uint64), num) <= 15 * duplicates.WINDOW * num


def test_a_hundred_thousand_random_pictures():
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 256, (100_000, 16, 16), np.uint8)
    d = random_set(100_000, rng.integers(0, 2**63, 100_000, dtype=np.uint64), thumbnails)
    assert near(d) == []


def test_thousands_of_look_alikes_are_listed_with_some_of_each_split():
    rng = np.random.default_rng(0)
    frames = (scene(0, 16)[None, :, :, 0] * 0.9 + rng.integers(0, 4, (2000, 16, 16))).astype(np.uint8)
    splits = ["train", "test"] * 1000
    pairs = np.array(near(random_set(2000, np.zeros(2000, np.uint64), frames), splits))
    assert len(pairs) < 2000 * 5 * duplicates.MAX_PARTNERS
    assert set(pairs.ravel().tolist()) == set(range(2000))
    assert (pairs[:, 0] % 2 != pairs[:, 1] % 2).sum() > 2000


def test_no_pictures():
    assert near(decoded([])) == []


def test_digits_are_not_called_duplicates():
    datasets = pytest.importorskip("sklearn.datasets")
    digits = [(p * 255 / 16).astype(np.uint8)[:, :, None] for p in datasets.load_digits().images]
    assert len(near(decoded(digits))) <= 3


@pytest.mark.shared_data
def test_chest_x_rays_look_alike_and_are_not_called_duplicates(shared_data):
    arrays = np.load(shared_data / "vision" / "pneumoniamnist" / "pneumoniamnist.npz")
    d = decoded([p[:, :, None] for p in (*arrays["train_images"], *arrays["val_images"])])
    assert len(near(d)) <= 5
    assert len(exact_duplicates(d.digests, np.arange(len(d.digests)))) == 24
