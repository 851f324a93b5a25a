"""What is in a set more than once, and what therefore leaks from one split into another: the same for every task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.data.checks.clusters import copies_across, copies_within
from dolmen.data.checks.examples import SPLITS, CheckedExamples
from dolmen.data.checks.findings import Level, some
from dolmen.types import Finding

LEAK_SHARE = 0.1
"""Share of a split that stands in train, from which on it leaks; below, by chance."""


def exact(data: CheckedExamples) -> Iterator[Finding]:
    """Find examples that are in the set twice: left out for it, across splits, and within one."""
    first = min(data.left_out, default=0)
    yield from data.some(
        "copies-left-out",
        "warning",
        "{num} [{one} is|{many} are] in two splits to the last {atom} and so few that [the copy is|the copies are] left"
        " out (first: {first}, {reason})",
        sorted(data.left_out),
        (f"{data.names[i]}: {data.left_out[i]}" for i in sorted(data.left_out)),
        first=data.names[first] if data.left_out else "",
        reason=data.left_out.get(first),
    )
    for later, earlier in combinations(SPLITS, 2):
        pairs = copies_across(data.clusters, data.splits, later, earlier)
        yield from data.some_pairs(
            "exact-duplicates-across-splits",
            "leak",
            "{num} [{one}|{many}] of {later} [is|are] also in {earlier}, to the last {atom}: delete [it|them] from one"
            " of the two (first: {first})",
            pairs,
            later=later,
            earlier=earlier,
        )
    pairs = copies_within(data.clusters, data.splits)
    yield from data.some_pairs(
        "exact-duplicates",
        "warning",
        "{num} [{one} is an exact copy|{many} are exact copies] of another in the same split and [counts|count] twice:"
        " delete [the copy|the copies] (first: {first})",
        pairs,
    )


def near(data: CheckedExamples, pairs: NDArray[np.int64]) -> Iterator[Finding]:
    """Find examples that are nearly in the set twice, across splits and within one.

    Args:
        data: the set.
        pairs: (P, 2) of used examples that are nearly the same.
    """
    sides = data.splits[pairs]
    for later, earlier in combinations(SPLITS, 2):
        forward = pairs[(sides[:, 0] == later) & (sides[:, 1] == earlier)]
        backward = pairs[(sides[:, 1] == later) & (sides[:, 0] == earlier)][:, ::-1]
        candidates = np.concatenate([forward, backward])
        firsts = np.unique(candidates[:, 0], return_index=True)[1]  # one pair for each example of `later`
        yield from data.some_pairs(
            "near-duplicates-across-splits",
            "warning",
            "{num} [{one}|{many}] of {later} [looks|look] almost the same as one of {earlier}: look at [it|them], and"
            " give what belongs together one group (first: {first})",
            candidates[firsts].tolist(),
            later=later,
            earlier=earlier,
        )
    within = pairs[sides[:, 0] == sides[:, 1]].tolist()
    yield from data.some(
        "near-duplicates",
        "info",
        "{num} [{one}|{many}] [looks|look] almost the same as another of the same split: look whether"
        " [it is|they are] worth keeping (first: {first})",
        sorted({b for _, b in within}),
        data.paired(within),
    )


def groups_across(data: CheckedExamples) -> dict[str, list[str]]:
    """Return the groups that several splits hold, in order of their name, each with its splits (train first)."""
    splits_of: dict[str, set[str]] = {}
    for i in data.used.tolist():
        if data.groups[i]:
            splits_of.setdefault(data.groups[i], set()).add(str(data.splits[i]))
    torn = sorted(group for group, splits in splits_of.items() if len(splits) > 1)
    return {group: [s for s in reversed(SPLITS) if s in splits_of[group]] for group in torn}


def groups(data: CheckedExamples) -> Iterator[Finding]:
    """Find groups that more than one split holds."""
    torn = groups_across(data)
    yield from some(
        "group-across-splits",
        "leak",
        "{num} [group is|groups are] in more than one split: keep each in one, or name no splits and let Dolmen choose"
        " them (first: {first})",
        len(torn),
        (f"{group} in {' and '.join(splits)}" for group, splits in torn.items()),
    )


def overlap(
    code: str, sentence: str, count: int, total: int, items: Iterable[str] = (), *, at_least: float, **values: Any
) -> Iterator[Finding]:
    """Find that a share of a split stands in train: some does by chance, more is worth a warning, a tenth leaks.

    Args:
        code: of the finding.
        sentence: as for ``some``, with ``{share}`` and ``{total}`` besides.
        count: examples of the split that train has as well.
        total: examples of the split.
        items: their names.
        at_least: the least share that makes a finding.
        values: what else the sentence names.
    """
    share = count / max(total, 1)
    if share >= at_least:
        level: Level = "leak" if share >= LEAK_SHARE else "warning"
        values |= {"share": share, "total": f"{total:,}"}
        yield from some(code, level, sentence, count, items, **values)
