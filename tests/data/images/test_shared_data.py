"""Real sets, read as people would give them: what they hold is known from their notices."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dolmen.data.images.decoded import decode_all
from dolmen.data.images.read import read_images, require_trainable
from dolmen.processors.images.image import ImageFit, open_image
from dolmen.types import UserError

pytestmark = pytest.mark.shared_data
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def test_cifar10(shared_data: Path, tmp_path: Path) -> None:
    images = read_images(shared_data / "vision/cifar10-subset/cifar10.tar")
    require_trainable(images)
    assert images.classes == CIFAR10
    assert Counter(images.splits) == {"train": 10_000, "test": 2_000}
    for split, num in (("train", 1000), ("test", 200)):
        here = images.labels[np.array(images.splits) == split]
        assert np.bincount(here).tolist() == [num] * 10
    assert images.skipped == ()
    assert all(n.split("/")[2] == images.classes[k] for n, k in zip(images.names, images.labels, strict=True))
    processor = ImageFit(height=32, width=32, channels=3)
    decoded = decode_all(images, processor, cache=tmp_path)
    assert (decoded.problems, decoded.notes) == ({}, {})
    assert (decoded.sizes == 32).all()
    index, raw = next(iter(images.read([7])))
    np.testing.assert_array_equal(decoded.pixels[index], open_image(raw).pixels)


def test_pneumoniamnist(shared_data: Path) -> None:
    images = read_images(shared_data / "vision/pneumoniamnist/pneumoniamnist.npz")
    require_trainable(images)
    assert images.classes == ("0", "1")
    assert Counter(zip(images.splits, images.labels.tolist(), strict=True)) == {
        ("train", 0): 1214,
        ("train", 1): 3494,
        ("val", 0): 135,
        ("val", 1): 389,
    }
    assert all(open_image(raw).pixels.shape == (28, 28, 1) for _, raw in images.read(range(100)))


def test_the_folder_around_an_npz_names_it(shared_data: Path) -> None:
    folder = shared_data / "vision/pneumoniamnist"
    with pytest.raises(UserError) as caught:
        read_images(folder)
    assert str(caught.value).endswith(f"expected a folder of them per class; or give {folder / 'pneumoniamnist.npz'}")


def test_busi_without_its_masks(shared_data: Path) -> None:
    images = read_images(shared_data / "vision/busi")
    require_trainable(images)
    assert images.classes == ("benign", "malignant", "normal")
    assert np.bincount(images.labels).tolist() == [350, 168, 106]
    reasons = Counter(s.reason.split(" of ")[0] for s in images.skipped)
    assert reasons == {"the mask": 638, "not a picture": 1}


def test_orl_faces(shared_data: Path) -> None:
    images = read_images(shared_data / "vision/orl-faces")
    require_trainable(images)
    assert len(images.classes) == 32
    assert images.classes[:3] == ("s1", "s3", "s4")  # as numbers: s2 is not here, s10 comes later
    assert np.bincount(images.labels).tolist() == [10] * 32
    assert all(open_image(raw).pixels.shape == (112, 92, 1) for _, raw in images.read(range(0, 320, 32)))


@pytest.mark.parametrize("other", ["coco128", "chase-db1", "london-jamcam-clips", "bccd-voc"])
def test_sets_for_other_jobs_are_refused_in_one_sentence(other: str, shared_data: Path) -> None:
    with pytest.raises(UserError) as caught:
        require_trainable(read_images(shared_data / "vision" / other))
    assert str(shared_data / "vision" / other) in str(caught.value)
    assert "\n" not in str(caught.value)
