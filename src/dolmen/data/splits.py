"""Splits for training, validation and test: deterministic, stratified by class, group-aware.

What the data say stays. What they leave open is decided by content: every *unit* (a group, a set of exact
duplicates, or a single picture) draws a number from the digest of its pixels and the seed, and units are
taken in the order of their numbers. So renaming files, or listing them in another order or on another
machine, changes nothing, and adding pictures moves few of the others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dolmen.data.images.decoded import Decoded
from dolmen.data.images.set import ImageSet
from dolmen.data.sources.layout import Split
from dolmen.types import UserError


def default_val_fraction(num_train: int) -> float:
    """Return the share of the training pictures to validate on: 10 %, of large sets 500 pictures or 2 %."""
    return min(0.1, max(500, 0.02 * num_train) / max(num_train, 1))


def default_test_fraction(num_images: int) -> float:
    """Return the share of all pictures to test on where the data name no split: more of a small set."""
    return 0.2 if num_images < 5000 else 0.1


def assign_splits(
    images: ImageSet,
    decoded: Decoded,
    *,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
) -> ImageSet:
    """Return the set with every split filled: "train", "val" or "test", and "" for what can't be used.

    - A split that the data name is kept. Pictures without one, in data that name some, are for training,
      unless their group or an exact duplicate is in "test" or "val": then they join it.
    - "val" is carved out of the training pictures where the data have none.
    - "test" is carved out only where the data name no split at all.
    - A picture that is unreadable or has no label gets "".

    A carved split takes about its fraction of each class, at least one picture of each class that has two
    (three where test and val are both carved), and never tears a group or exact duplicates apart.

    Args:
        images: the set; ``images.splits`` as the data say.
        decoded: its pictures.
        val_fraction: share of the training pictures; None for ``default_val_fraction``, 0 for no validation.
        test_fraction: share of all usable pictures; None for ``default_test_fraction``, 0 for no test.
        seed: another seed gives another split.

    Raises:
        UserError: a fraction is not in [0, 1).
    """
    check_fractions(val_fraction, test_fraction)
    usable = images.labels >= 0
    usable[list(decoded.problems)] = False
    splits = np.where(usable, np.array(images.splits, dtype="U5"), "")
    named = {str(s) for s in np.unique(np.array(images.splits, dtype="U5"))} - {""}
    units = drawn_units(decoded.digests, np.array(images.groups, dtype=np.str_), usable, seed)
    for unit in units:
        join_named_split(unit, splits)
    splits[usable & (splits == "")] = "train"
    if not named:
        carve("test", splits, units, images.labels, test_fraction, default_test_fraction, leave=2)
    if "val" not in named:
        carve("val", splits, units, images.labels, val_fraction, default_val_fraction, leave=1)
    filled: list[Split] = splits.tolist()
    return images.replace(splits=filled)


def check_fractions(val_fraction: float | None, test_fraction: float | None) -> None:
    """Refuse fractions that are not in [0, 1)."""
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if fraction is not None and not 0 <= fraction < 1:
            raise UserError(f"{name} is {fraction}, expected a share from 0 to below 1: type for example {name}=0.1.")


MAX_SHARE_LEFT_OUT = 0.02
"""Up to this share of a split, exact copies in the data before it are an accident that is mended by leaving them out.
More of them mean that the splits are wrong, which a person has to look at."""


def leave_out_few_copies(images: ImageSet, decoded: Decoded) -> ImageSet:
    """Take out of "train" (and "val") the pictures that are also in a later split, where they are few.

    The later split stays as it was given, so that figures on it compare with other people's.

    Args:
        images: with splits assigned.
        decoded: its pictures.

    Returns:
        The set, with the copies in ``left_out`` and without a split.
    """
    splits, left_out = without_few_copies(images.splits, decoded.digests)
    return images.replace(splits=splits, left_out=images.left_out | left_out)


def without_few_copies(splits: Sequence[Split], digests: NDArray[np.uint8]) -> tuple[list[Split], dict[int, str]]:
    """Return splits without the few copies, and index to reason of the copies that were left out."""
    splits, left_out = list(splits), dict[int, str]()
    keys = [row.tobytes() for row in np.ascontiguousarray(digests)]
    order: tuple[tuple[Split, tuple[Split, ...]], ...] = (("test", ("train", "val")), ("val", ("train",)))
    for later, earlier_splits in order:
        later_keys = {key for key, split in zip(keys, splits, strict=True) if split == later}
        num_later = splits.count(later)
        for earlier in earlier_splits:
            copies = [i for i, s in enumerate(splits) if s == earlier and keys[i] in later_keys]
            touched = {keys[i] for i in copies}
            affected = sum(s == later and k in touched for s, k in zip(splits, keys, strict=True))
            if 0 < affected <= MAX_SHARE_LEFT_OUT * num_later:
                for i in copies:
                    splits[i] = ""
                    left_out[i] = f"also in {later}, left out of {earlier}"
    return splits, left_out


Unit = list[int]
"""Indices of pictures that stay together."""


def unit_ids(digests: NDArray[np.uint8], groups: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return (N,) ids, equal for pictures that a chain of equal groups or equal digests connects.

    Args:
        digests: (N, D) uint8.
        groups: (N,) strings; "" is no group.
    """
    parent = list(range(len(groups)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    same_pixels = np.ascontiguousarray(digests).view(f"V{digests.shape[1]}")[:, 0]
    for keys, relevant in ((same_pixels, np.ones(len(groups), np.bool_)), (groups, groups != "")):
        indices = np.flatnonzero(relevant)
        _, first, inverse, counts = np.unique(keys[indices], return_index=True, return_inverse=True, return_counts=True)
        shared = counts[inverse] > 1
        for i, j in zip(indices[shared].tolist(), indices[first[inverse[shared]]].tolist(), strict=True):
            parent[root(i)] = root(j)
    return np.array([root(i) for i in range(len(parent))], np.int64)


def drawn_units(
    digests: NDArray[np.uint8], groups: NDArray[np.str_], usable: NDArray[np.bool_], seed: int
) -> list[Unit]:
    """Return the units of what is usable, in the order of the numbers that they drew.

    Args:
        digests: (N, D) uint8 of contents.
        groups: (N,) strings; "" is no group.
        usable: (N,) bool.
        seed: another one draws other numbers.
    """
    indices = np.flatnonzero(usable)
    ids = unit_ids(digests[indices], groups[indices])
    members: dict[int, Unit] = {}
    for index, unit in zip(indices.tolist(), ids.tolist(), strict=True):
        members.setdefault(unit, []).append(index)
    salt = hashlib.blake2b(str(seed).encode(), digest_size=16).digest()

    def drawn(unit: Unit) -> bytes:
        smallest = min(digests[i].tobytes() for i in unit)
        return hashlib.blake2b(smallest, digest_size=16, salt=salt).digest()

    return sorted(members.values(), key=drawn)


def join_named_split(unit: Unit, splits: NDArray[np.str_]) -> None:
    """Put the pictures of a unit for which the data name no split where the others of the unit are."""
    if len(unit) == 1:
        return
    named = {str(splits[i]) for i in unit}
    if "" in named:
        joined = next((s for s in ("test", "val", "train") if s in named), "")
        for i in unit:
            splits[i] = splits[i] or joined


def carve(
    split: Split,
    splits: NDArray[np.str_],
    units: list[Unit],
    labels: NDArray[np.int64],
    fraction: float | None,
    default_fraction: Callable[[int], float],
    leave: int,
) -> None:
    """Move whole units from "train" to ``split``; training keeps at least ``leave`` units of every class."""
    in_train = splits == "train"
    fraction = default_fraction(int(in_train.sum())) if fraction is None else fraction
    if fraction == 0:
        return
    available = [u for u in units if all(in_train[i] for i in u)]
    class_counts = [Counter(labels[u].tolist()) for u in available]
    num_to_take = _apportion(labels[in_train], fraction, leave)
    units_left = Counter(label for counts in class_counts for label in counts)
    untouched = {label for label, num in num_to_take.items() if num > 0}
    passed_over: list[int] = []

    def spared(counts: Counter[int]) -> bool:
        return all(units_left[label] > leave for label in counts)

    def take(position: int) -> None:
        splits[available[position]] = split
        for label, num in class_counts[position].items():
            num_to_take[label] -= num
            units_left[label] -= 1
            untouched.discard(label)

    for position, counts in enumerate(class_counts):
        closer = sum(abs(num_to_take[label]) - abs(num_to_take[label] - num) for label, num in counts.items())
        if closer > 0 and spared(counts):
            take(position)
        else:
            passed_over.append(position)
    # Where every unit of a class is larger than what is to be taken, the smallest one does the least harm.
    for position in sorted(passed_over, key=lambda p: len(available[p])) if untouched else ():
        counts = class_counts[position]
        if not untouched.isdisjoint(counts) and spared(counts):
            take(position)


def _apportion(labels: NDArray[np.int64], fraction: float, leave: int) -> dict[int, int]:
    """Return how many pictures of each class to take: in proportion, at least 1, and ``leave`` stay."""
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * fraction
    num_to_take = np.floor(exact + 1e-9).astype(np.int64)
    num_missing = round(float(exact.sum())) - int(num_to_take.sum())
    num_to_take[np.argsort(num_to_take - exact, kind="stable")[: max(num_missing, 0)]] += 1
    available = np.maximum(counts - leave, 0)
    num_to_take = np.clip(num_to_take, np.minimum(1, available), available)
    return dict(zip(classes.tolist(), num_to_take.tolist(), strict=True))
