"""What can be used of a set, and whether it is enough: the same for every task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dolmen.data.checks.examples import CheckedExamples, Noun
from dolmen.data.checks.findings import Level, some
from dolmen.types import Finding, Skipped
from dolmen.wording import listed

MIN_PER_CLASS = 10
"""Training examples of a class; with fewer, chance decides what is learnt."""
MAX_RATIO = 10
"""Ratio of the most frequent class to the rarest from which on a set is out of balance."""
NO_TEST = Finding(
    code="no-test-split",
    level="info",
    message="Nothing is set apart as test: evaluate the model on other data than these.",
)


def unreadable(data: CheckedExamples, rows: Sequence[int] | None = None) -> Iterator[Finding]:
    """Find examples that can't be read; ``rows`` for only some of the problems."""
    yield from problems(
        data,
        "unreadable-{many}",
        "unreadable and left out: repair or delete [it|them]",
        sorted(data.problems) if rows is None else rows,
    )


def problems(data: CheckedExamples, code: str, what: str, rows: Sequence[int]) -> Iterator[Finding]:
    """Find examples with a problem, each with its reason.

    Args:
        data: the set.
        code: as for ``CheckedExamples.some``.
        what: follows "is" or "are".
        rows: which.
    """
    yield from data.some(
        code,
        "warning",
        f"{{num}} [{{one}} is|{{many}} are] {what} (first: {{first}}, {{reason}})",
        rows,
        (f"{data.names[i]}: {data.problems[i]}" for i in rows),
        first=data.names[rows[0]] if rows else "",
        reason=data.problems[rows[0]] if rows else "",
    )


def skipped(files: Sequence[Skipped], sentence: str) -> Iterator[Finding]:
    """Find files of the source that are no examples; the sentence as for ``findings.some``."""
    yield from some("skipped-files", "info", sentence, len(files), (f"{s.name}: {s.reason}" for s in files))


def none_usable(data: CheckedExamples, bring: str) -> Iterator[Finding]:
    """Find that nothing can be used, or nothing is for training.

    Args:
        data: the set.
        bring: what the person is to bring.
    """
    one, many = data.noun.one, data.noun.many
    if not len(data.used):
        message = f"No {one} can be used: bring {bring}."
        yield Finding(code=f"no-{many}", level="error", message=message)
    elif not data.rows_of("train"):
        message = f"None of the {len(data.used):,} {many} is for training: move some into train."
        yield Finding(code=f"no-training-{many}", level="error", message=message)


def too_few(source: str, noun: Noun, num: int, at_least: int) -> Iterator[Finding]:
    """Find that training has too few examples to learn anything from."""
    if num < at_least:
        yield Finding(
            code="too-few",
            level="error",
            message=f"{source} has {noun.count(num)} to train on, which is too few to learn from; bring {at_least} or"
            " more (some hundreds are a start).",
            count=num,
        )


def few_examples(train: Mapping[str, int], many: str) -> Iterator[Finding]:
    """Find classes that training shows, and shows too seldom.

    Args:
        train: {class: number}.
        many: what is counted: "pictures", "objects".
    """
    rare = sorted((c for c, n in train.items() if 0 < n < MIN_PER_CLASS), key=lambda c: train[c])
    yield from some(
        "few-examples",
        "warning",
        f"{{num}} [class has|classes have] fewer than {MIN_PER_CLASS} training {many} ({{counts}}): bring more, or join"
        " classes",
        len(rare),
        (f"{c}: {train[c]}" for c in rare),
        counts=listed([f"{c} {train[c]}" for c in rare]),
    )


def imbalance(train: Mapping[str, int], many: str, level: Level, mean: str) -> Iterator[Finding]:
    """Find that training shows one class far more often than another.

    Args:
        train: {class: number}; classes without any are no part of it.
        many: what is counted.
        level: how serious that is for the task.
        mean: the figure that hides it: "accuracy".
    """
    present = {c: n for c, n in train.items() if n}
    if present and max(present.values()) > MAX_RATIO * min(present.values()):
        commonest, rarest = max(present, key=lambda c: present[c]), min(present, key=lambda c: present[c])
        yield Finding(
            code="imbalance",
            level=level,
            message=f"{commonest} has {present[commonest]:,} training {many} and {rarest} {present[rarest]:,}"
            f" ({present[commonest] / present[rarest]:.0f} times fewer): judge by the figures of each class, not by"
            f" {mean} alone.",
            count=len(present),
            items=(f"{commonest}: {present[commonest]}", f"{rarest}: {present[rarest]}"),
        )


def class_missing(
    missing: Sequence[str], where: str, *, code: str = "class-missing-from-split", level: Level = "warning"
) -> Iterator[Finding]:
    """Find classes without an example somewhere; ``where`` follows "has" or "have", as for ``findings.some``."""
    yield from some(
        code, level, f"[Class|Classes] {{classes}} [has|have] {where}", len(missing), missing, classes=listed(missing)
    )
