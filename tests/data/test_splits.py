"""Splits: what the data say stays, nothing is torn apart, fractions are met, the order is no matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.data.images.decoded import Decoded
from dolmen.data.images.set import ImageSet
from dolmen.data.splits import (
    assign_splits,
    default_test_fraction,
    default_val_fraction,
    leave_out_few_copies,
)
from dolmen.types import UserError


def a_set(
    labels: Sequence[int],
    *,
    splits: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    contents: Sequence[int] | None = None,
    problems: Sequence[int] = (),
) -> tuple[ImageSet, Decoded]:
    """Pictures with equal ``contents`` are exact duplicates."""
    n = len(labels)
    ids = np.arange(n) if contents is None else np.array(contents)
    digests = np.array([np.random.default_rng(i).integers(0, 256, 16, np.uint8) for i in ids]).reshape(-1, 16)
    images = ImageSet(
        source="s",
        classes=tuple("abcdefgh"),
        names=[f"{i}.png" for i in range(n)],
        labels=np.array(labels, np.int64),
        splits=splits or [""] * n,
        groups=groups or [""] * n,
        read=lambda indices: iter(()),
        fingerprint="f",
    )
    blank = np.zeros((n, 1, 1, 1), np.uint8)
    decoded = Decoded(
        pixels=blank,
        digests=digests.astype(np.uint8),
        hashes=np.zeros(n, np.uint64),
        thumbnails=blank,
        sizes=np.ones((n, 2), np.int32),
        channels=np.ones(n, np.uint8),
        problems=dict.fromkeys(problems, "truncated"),
        notes={},
    )
    return images, decoded


def split(images: ImageSet, decoded: Decoded, **arguments: object) -> list[str]:
    return list(assign_splits(images, decoded, **arguments).splits)


def per_class(labels: Sequence[int], splits: Sequence[str], name: str) -> Counter[int]:
    return Counter(label for label, s in zip(labels, splits, strict=True) if s == name)


@pytest.mark.parametrize(
    ("num_train", "fraction"),
    [(0, 0.1), (100, 0.1), (5_000, 0.1), (10_000, 0.05), (25_000, 0.02), (50_000, 0.02), (1_000_000, 0.02)],
)
def test_default_val_fraction(num_train, fraction):
    assert default_val_fraction(num_train) == pytest.approx(fraction)


@pytest.mark.parametrize(("num_images", "fraction"), [(10, 0.2), (4_999, 0.2), (5_000, 0.1), (70_000, 0.1)])
def test_default_test_fraction(num_images, fraction):
    assert default_test_fraction(num_images) == fraction


@pytest.mark.parametrize(
    ("given_splits", "expected"),
    [
        ([""] * 100, {"test": 20, "val": 8, "train": 72}),
        (["train"] * 100, {"val": 10, "train": 90}),
        (["train"] * 80 + ["test"] * 20, {"train": 72, "val": 8, "test": 20}),
        (["train"] * 80 + ["val"] * 20, {"train": 80, "val": 20}),
        (["train"] * 60 + ["val"] * 20 + ["test"] * 20, {"train": 60, "val": 20, "test": 20}),
        ([""] * 80 + ["test"] * 20, {"train": 72, "val": 8, "test": 20}),
        (["test"] * 100, {"test": 100}),
    ],
    ids=["nothing", "train", "train test", "train val", "all three", "rest test", "test only"],
)
def test_what_the_data_say_stays(given_splits, expected):
    images, decoded = a_set([i % 2 for i in range(100)], splits=given_splits)
    filled = split(images, decoded)
    assert Counter(filled) == expected
    assert all(after == before or before in ("", "train") for before, after in zip(given_splits, filled, strict=True))


def test_what_cannot_be_used_gets_no_split():
    images, decoded = a_set([-1, *[0, 1] * 20], splits=["test", *["train"] * 40], problems=[3])
    filled = split(images, decoded)
    assert [i for i, s in enumerate(filled) if s == ""] == [0, 3]


def test_a_duplicate_or_group_member_without_split_joins_the_named_one():
    images, decoded = a_set(
        [0] * 6,
        splits=["test", "", "", "val", "", "train"],
        groups=["", "", "patient 1", "patient 1", "", ""],
        contents=[7, 7, 1, 2, 3, 4],
    )
    assert split(images, decoded) == ["test", "test", "val", "val", "train", "train"]


@pytest.mark.parametrize(
    ("counts", "val", "test"),
    [
        ({0: 50, 1: 1}, {0: 4}, {0: 10}),
        ({0: 50, 1: 2}, {0: 4, 1: 1}, {0: 10}),
        ({0: 50, 1: 3}, {0: 4, 1: 1}, {0: 10, 1: 1}),
        ({0: 50, 1: 10}, {0: 4, 1: 1}, {0: 10, 1: 2}),
        ({0: 1, 1: 1}, {}, {}),
    ],
    ids=str,
)
def test_small_classes_get_their_example_and_training_keeps_one(counts, val, test):
    labels = [label for label, n in counts.items() for _ in range(n)]
    filled = split(*a_set(labels))
    assert per_class(labels, filled, "val") == val
    assert per_class(labels, filled, "test") == test
    assert set(per_class(labels, filled, "train")) == set(counts)


def test_a_fraction_of_zero_carves_nothing():
    assert set(split(*a_set([0, 1] * 20), val_fraction=0, test_fraction=0)) == {"train"}


def test_a_large_fraction_leaves_training_one_of_each_class():
    filled = split(*a_set([0, 0, 1, 1]), val_fraction=0.99, test_fraction=0)
    assert per_class([0, 0, 1, 1], filled, "train") == {0: 1, 1: 1}


def test_groups_that_are_larger_than_the_share():
    labels = [0, 1] * 200
    groups = [f"patient {i // 40}" for i in range(400)]  # 10 patients with 40 pictures each; 5 % is 20
    filled = split(*a_set(labels, groups=groups), val_fraction=0.05, test_fraction=0)
    assert Counter(filled) == {"train": 360, "val": 40}


@pytest.mark.parametrize("name", ["val_fraction", "test_fraction"])
@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_a_wrong_fraction(name, value):
    with pytest.raises(UserError) as caught:
        split(*a_set([0, 1]), **{name: value})
    assert str(caught.value) == (f"{name} is {value}, expected a share from 0 to below 1: type for example {name}=0.1.")


def test_an_empty_set():
    assert split(*a_set([])) == []


def test_another_seed_gives_another_split():
    images, decoded = a_set([i % 3 for i in range(200)])
    assert split(images, decoded, seed=0) == split(images, decoded, seed=0)
    assert split(images, decoded, seed=0) != split(images, decoded, seed=1)


def test_adding_pictures_moves_few_of_the_others():
    before = split(*a_set([i % 2 for i in range(1000)]), test_fraction=0, val_fraction=0.1)
    after = split(*a_set([i % 2 for i in range(1100)]), test_fraction=0, val_fraction=0.1)
    assert sum(a != b for a, b in zip(before, after[:1000], strict=True)) < 30


def test_many_pictures_are_no_trouble():
    """A million pairwise comparisons a picture would not end; nothing here is timed."""
    n = 30_000
    filled = split(*a_set([0] * n, groups=[f"g{i // 3}" for i in range(n)], contents=[i % 97 for i in range(n)]))
    assert len(filled) == n


pictures = st.lists(
    st.tuples(
        st.integers(0, 3),  # class
        st.sampled_from(["", "", "", "p", "q", "r", "s", "t"]),  # group
        st.integers(0, 300),  # content
    ),
    max_size=120,
)


def torn(filled: Sequence[str], keys: Sequence[object]) -> bool:
    of_key: dict[object, set[str]] = {}
    for s, key in zip(filled, keys, strict=True):
        of_key.setdefault(key, set()).add(s)
    return any(len(s) > 1 for key, s in of_key.items() if key != "")


@settings(max_examples=150, deadline=None)
@given(pictures, st.integers(0, 5), st.floats(0, 0.5), st.floats(0, 0.4), st.randoms(use_true_random=False))
def test_splits_hold_for_any_set(rows, seed, val_fraction, test_fraction, random):
    labels, groups, contents = ([r[i] for r in rows] for i in range(3))
    arguments = {"seed": seed, "val_fraction": val_fraction, "test_fraction": test_fraction}
    filled = split(*a_set(labels, groups=groups, contents=contents), **arguments)
    assert set(filled) <= {"train", "val", "test"}
    assert not torn(filled, groups)
    assert not torn(filled, contents)
    assert set(per_class(labels, filled, "train")) == set(labels)
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = [rows[i] for i in order]
    again = split(
        *a_set([r[0] for r in shuffled], groups=[r[1] for r in shuffled], contents=[r[2] for r in shuffled]),
        **arguments,
    )
    assert again == [filled[i] for i in order]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=300),
    st.integers(1, 6),
    st.floats(0.05, 0.5),
    st.integers(0, 3),
)
def test_counts_are_close_to_the_fraction(labels, group_size, fraction, seed):
    groups = [f"{label}-{i // group_size}" if group_size > 1 else "" for i, label in enumerate(labels)]
    filled = split(*a_set(labels, groups=groups), val_fraction=fraction, test_fraction=0, seed=seed)
    taken = per_class(labels, filled, "val")
    for label, total in Counter(labels).items():
        assert abs(taken[label] - fraction * total) <= group_size + 1


def test_a_few_exact_copies_are_left_out_of_the_earlier_split() -> None:
    contents = list(range(300))
    contents[0] = contents[250]  # one picture of 100 in test is also in train
    splits = ["train"] * 150 + ["val"] * 50 + ["test"] * 100
    images, decoded = a_set([0, 1] * 150, splits=splits, contents=contents)
    kept = leave_out_few_copies(images, decoded)
    assert kept.left_out == {0: "also in test, left out of train"}
    assert kept.splits[0] == ""
    assert list(kept.splits[1:]) == splits[1:]


def test_many_exact_copies_are_left_for_a_person_to_look_at() -> None:
    contents = list(range(300))
    contents[:3] = contents[250:253]  # three of 100 in test
    splits = ["train"] * 200 + ["test"] * 100
    images, decoded = a_set([0, 1] * 150, splits=splits, contents=contents)
    assert leave_out_few_copies(images, decoded).left_out == {}
