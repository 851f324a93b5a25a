"""What checks look at, whatever the examples are: names, splits, digests, groups, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.data.checks.clusters import Clusters, exact_duplicates
from dolmen.data.checks.findings import MAX_ITEMS, Level, some
from dolmen.types import Finding, Skipped
from dolmen.wording import count

SPLITS = ("test", "val", "train")
"""The one to take copies out of comes first."""


@dataclass(frozen=True)
class Noun:
    """What the examples of a task are called.

    Attributes:
        one: "picture".
        many: "pictures".
        atom: equal examples are equal to the last of these: "pixel".
    """

    one: str
    many: str
    atom: str

    def count(self, num: int) -> str:
        """Write "1 picture" or "1,234 pictures"."""
        return count(num, self.one, self.many)


@dataclass(frozen=True, eq=False)
class CheckedExamples:
    """N examples whose splits are assigned.

    Attributes:
        noun: what they are called.
        names: N of them.
        splits: (N,) strings, "" for one that belongs to none.
        used: (M,) indices of those that training or evaluation will see, ascending.
        digests: (N, D) uint8, equal for equal examples.
        groups: N of them: what must not be torn apart (a patient, a speaker), "" where it is unknown.
        problems: index to reason, of those that can't be used.
        left_out: index to reason, of the copies that were left out.
        skipped: files of the source that are no examples.
    """

    noun: Noun
    names: Sequence[str]
    splits: NDArray[np.str_]
    used: NDArray[np.int64]
    digests: NDArray[np.uint8]
    groups: Sequence[str]
    problems: Mapping[int, str]
    left_out: Mapping[int, str]
    skipped: tuple[Skipped, ...]

    @cached_property
    def clusters(self) -> Clusters:
        """The used examples that are equal."""
        return exact_duplicates(self.digests, self.used)

    def rows_of(self, split: str) -> list[int]:
        """Indices of the used examples of a split."""
        rows: list[int] = self.used[self.splits[self.used] == split].tolist()
        return rows

    def named(self, rows: Iterable[int]) -> tuple[str, ...]:
        """Return the names of the first examples."""
        return tuple(self.names[int(i)] for i in islice(rows, MAX_ITEMS))

    def paired(self, pairs: Iterable[Sequence[int]]) -> tuple[str, ...]:
        """Return the first pairs as "a = b"."""
        return tuple(f"{self.names[int(a)]} = {self.names[int(b)]}" for a, b in islice(pairs, MAX_ITEMS))

    def some(
        self,
        code: str,
        level: Level,
        sentence: str,
        rows: Sequence[int] | NDArray[np.int64],
        items: Iterable[str] | None = None,
        **values: Any,
    ) -> Iterator[Finding]:
        """Yield a finding about some examples, or none where there are none.

        Args:
            code: with ``{one}`` and ``{many}`` for what the examples are called.
            level: how serious it is.
            sentence: as for ``findings.some``, with ``{one}``, ``{many}`` and ``{atom}`` besides.
            rows: their indices.
            items: in place of the names.
            values: what else the sentence names.
        """
        noun = asdict(self.noun)
        items = self.named(rows) if items is None else items
        yield from some(code.format(**noun), level, sentence, len(rows), items, **noun, **values)

    def some_pairs(
        self, code: str, level: Level, sentence: str, pairs: Sequence[Sequence[int]], **values: Any
    ) -> Iterator[Finding]:
        """Yield a finding about the first examples of pairs, which it names as "a = b"."""
        yield from self.some(code, level, sentence, [a for a, _ in pairs], self.paired(pairs), **values)
