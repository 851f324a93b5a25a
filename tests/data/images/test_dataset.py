from __future__ import annotations

import numpy as np
import torch

from dolmen.data.images.dataset import ImageDataset, group_numbers


def dataset() -> ImageDataset:
    pixels = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8)
    rows = np.array([9, 1, 5, 3])
    digests = rows[:, None] * np.ones((1, 16), np.uint8)
    return ImageDataset(pixels, rows, np.array([0, 1, 0, 1]), np.array([2, 2, 0, 1]), digests, ["i", "b", "f", "d"])


def test_a_batch_holds_what_was_asked_for_in_that_order() -> None:
    batch = dataset().batch(np.array([2, 0, 2]))
    assert batch["images"].shape == (3, 2, 3, 1)
    assert batch["images"].dtype == torch.uint8
    assert batch["images"][:, 0, 0, 0].tolist() == [5, 9, 5]
    assert batch["labels"].tolist() == [0, 0, 0]
    assert batch["ids"].tolist() == [2, 0, 2]
    assert len(dataset()) == 4


def test_a_batch_is_its_own_memory() -> None:
    data = dataset()
    data.batch(np.array([0, 1]))["images"].fill_(77)
    data.batch(np.array([0, 1]))["labels"].fill_(7)
    assert data.pixels.max() == 9
    assert data.labels.max() == 1


def test_a_subset_has_its_own_order_and_shares_the_pixels() -> None:
    few = dataset().subset(np.array([3, 0]))
    assert (len(few), few.names, few.labels.tolist(), few.groups.tolist()) == (2, ["d", "i"], [1, 0], [1, 2])
    assert few.digests[:, 0].tolist() == [3, 9]
    assert few.batch(np.array([0, 1]))["images"][:, 0, 0, 0].tolist() == [3, 9]
    assert few.pixels is not None
    again = few.subset(np.array([1]))
    assert again.names == ["i"]
    assert len(again.subset(np.array([], np.int64))) == 0


def test_groups_are_numbered_and_a_picture_without_one_is_alone() -> None:
    numbers = group_numbers(["b", "", "a", "b", ""])
    assert numbers[0] == numbers[3]
    assert len(set(numbers.tolist())) == 4
    assert group_numbers([]).tolist() == []
    assert group_numbers(["", "0", ""]).dtype == np.int64
    assert len(set(group_numbers(["", "0", ""]).tolist())) == 3
