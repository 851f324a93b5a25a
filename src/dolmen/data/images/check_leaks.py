"""What is in a set of pictures more than once, and what therefore leaks from one split into another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from dolmen.data.images.check_view import CheckedImages, pictures
from dolmen.data.images.duplicates import Clusters, copies_across, copies_within, exact_duplicates, near_duplicates
from dolmen.data.wording import MAX_ITEMS, SPLITS, choose
from dolmen.types import Finding


def exact(data: CheckedImages) -> Iterator[Finding]:
    """Find pictures that are in the set twice: across splits, within one, with two labels."""
    yield from _left_out(data)
    clusters = exact_duplicates(data.decoded.digests, data.used)
    yield from _exact_across(data, clusters)
    yield from _exact_within(data, clusters)
    yield from _two_labels(data, clusters)


def _left_out(data: CheckedImages) -> Iterator[Finding]:
    if left_out := data.images.left_out:
        num = len(left_out)
        first = min(left_out)
        yield Finding(
            code="copies-left-out",
            level="warning",
            message=f"{pictures(num)} {choose(num, 'is', 'are')} in two splits to the last pixel and so few that"
            f" {choose(num, 'the copy is', 'the copies are')} left out (first: {data.images.names[first]},"
            f" {left_out[first]}).",
            count=num,
            items=tuple(f"{data.images.names[i]}: {left_out[i]}" for i in sorted(left_out)[:MAX_ITEMS]),
        )


def _exact_across(data: CheckedImages, clusters: Clusters) -> Iterator[Finding]:
    for later, earlier in combinations(SPLITS, 2):
        pairs = copies_across(clusters, data.splits, later, earlier)
        if num := len(pairs):
            yield Finding(
                code="exact-duplicates-across-splits",
                level="leak",
                message=f"{pictures(num)} of {later} {choose(num, 'is', 'are')} also in {earlier}, to the"
                f" last pixel: delete {choose(num, 'it', 'them')} from one of the two"
                f" (first: {data.paired(pairs)[0]}).",
                count=num,
                items=data.paired(pairs),
            )


def _exact_within(data: CheckedImages, clusters: Clusters) -> Iterator[Finding]:
    copies = copies_within(clusters, data.splits)
    if copies:
        num = len(copies)
        yield Finding(
            code="exact-duplicates",
            level="warning",
            message=f"{pictures(num)} {choose(num, 'is an exact copy', 'are exact copies')} of another in the"
            f" same split and {choose(num, 'counts', 'count')} twice: delete"
            f" {choose(num, 'the copy', 'the copies')} (first: {data.paired(copies)[0]}).",
            count=num,
            items=data.paired(copies),
        )


def _two_labels(data: CheckedImages, clusters: Clusters) -> Iterator[Finding]:
    labels = data.images.labels
    torn = [(int(c[0]), int(c[(labels[c] != labels[c[0]]).argmax()])) for c in clusters]
    torn = [(a, b) for a, b in torn if a != b]
    if torn:
        a, b = (data.images.classes[labels[i]] for i in torn[0])
        yield Finding(
            code="same-picture-two-labels",
            level="warning",
            message=f"{pictures(len(torn))} {choose(len(torn), 'is', 'are')} in the set with two different"
            f" labels: keep the right one (first: {data.paired(torn)[0]}, {a} and {b}).",
            count=len(torn),
            items=data.paired(torn),
        )


def near(data: CheckedImages) -> Iterator[Finding]:
    """Find pictures that are nearly in the set twice: across splits, and within one."""
    pairs = near_duplicates(data.decoded, data.used, data.splits)
    sides = data.splits[pairs]
    for later, earlier in combinations(SPLITS, 2):
        forward = pairs[(sides[:, 0] == later) & (sides[:, 1] == earlier)]
        backward = pairs[(sides[:, 1] == later) & (sides[:, 0] == earlier)][:, ::-1]
        both = np.concatenate([forward, backward])
        each = both[np.unique(both[:, 0], return_index=True)[1]].tolist()  # one pair a picture of `later`
        if each:
            num = len(each)
            yield Finding(
                code="near-duplicates-across-splits",
                level="warning",
                message=f"{pictures(num)} of {later} {choose(num, 'looks', 'look')} almost the same as one of"
                f" {earlier}: look at {choose(num, 'it', 'them')}, and give what belongs together one group"
                f" (first: {data.paired(each)[0]}).",
                count=num,
                items=data.paired(each),
            )
    within = pairs[sides[:, 0] == sides[:, 1]].tolist()
    if within:
        num = len({b for _, b in within})
        yield Finding(
            code="near-duplicates",
            level="info",
            message=f"{pictures(num)} {choose(num, 'looks', 'look')} almost the same as another of the same"
            f" split: look whether {choose(num, 'it is', 'they are')} worth keeping"
            f" (first: {data.paired(within)[0]}).",
            count=num,
            items=data.paired(within),
        )


def groups(data: CheckedImages) -> Iterator[Finding]:
    """Find groups that more than one split holds."""
    splits_of: dict[str, set[str]] = {}
    for i in data.used.tolist():
        if data.images.groups[i]:
            splits_of.setdefault(data.images.groups[i], set()).add(str(data.splits[i]))
    torn = sorted(group for group, splits in splits_of.items() if len(splits) > 1)
    if torn:
        num = len(torn)
        items = tuple(
            f"{group} in {' and '.join(s for s in reversed(SPLITS) if s in splits_of[group])}"
            for group in torn[:MAX_ITEMS]
        )
        yield Finding(
            code="group-across-splits",
            level="leak",
            message=f"{num:,} {choose(num, 'group is', 'groups are')} in more than one split: keep each in"
            f" one, or name no splits and let Dolmen choose them (first: {items[0]}).",
            count=num,
            items=items,
        )
