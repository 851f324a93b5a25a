"""Checks of tagged sentences: what is in them, what is wrong with them, what would leak."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from dolmen.data.checks.amounts import too_few
from dolmen.data.checks.copies import overlap
from dolmen.data.checks.examples import Noun
from dolmen.data.checks.findings import most_serious_first, notes, some
from dolmen.tasks.token_classification.data.read import Sentence, Tagged
from dolmen.tasks.token_classification.processor import TagProcessor, spans_of, tags_of
from dolmen.types import CheckReport, Finding

SENTENCE = Noun("sentence", "sentences", "word")
MIN_SHARE = 0.005
"""Share of a split's sentences that have to stand in train, too, for a finding."""
LONG_SENTENCE_WORDS = 1000
MIN_SENTENCES = 20
Splits = Mapping[str, Sequence[Sentence]]


def check_tagged(
    tagged: Tagged, splits: Splits, tags: Mapping[str, Sequence[Sequence[str]]], processor: TagProcessor
) -> CheckReport:
    """Check sentences whose splits are known.

    Args:
        tagged: as they were read.
        splits: the sentences of each split.
        tags: their tags in the scheme that networks learn.
        processor: fitted on the training part.
    """
    findings = [
        *_too_few(splits, tagged),
        *_repeated(splits),
        *_unfit(splits, tagged),
        *_ambiguous(splits, tags, processor),
        *_unseen(tags, processor),
        *_long(splits),
    ]
    names = sorted({_name(t) for t in processor.labels if t != "O"})
    counts = {}
    for split, tags_of_split in tags.items():
        frequencies = (
            Counter(s.label for t in tags_of_split for s in spans_of(t))
            if processor.kind == "spans"
            else Counter(t for sentence in tags_of_split for t in sentence)
        )
        counts[split] = {k: frequencies[k] for k in names}
    num = {s: sum(len(sentence.words) for sentence in sentences) for s, sentences in splits.items()}
    scheme = f"{tagged.scheme}, learned as BIOES" if tagged.scheme else "none: each word has a label"
    known = set(processor.words)
    summary = {
        "sentences": ", ".join(f"{s} {len(sentences):,}" for s, sentences in splits.items()),
        "words": ", ".join(f"{s} {n:,}" for s, n in num.items()),
        "tag scheme": scheme,
        "vocabulary": f"{len(processor.words) - 1:,} words, {len(processor.characters) - 1:,} characters",
    }
    for split in ("val", "test"):
        if num.get(split):
            new = sum(w not in known and w.lower() not in known for s in splits[split] for w in s.words)
            summary[f"new words in {split}"] = f"{new / num[split]:.1%}"
    findings += notes("changed", tagged.notes)
    return CheckReport(
        task="token-classification",
        source=tagged.source,
        num_files=tagged.num_files,
        num_used=tagged.num_files - len(tagged.skipped),
        skipped=tagged.skipped,
        counts=counts,
        summary=summary,
        findings=most_serious_first(findings),
    )


def _name(tag: str) -> str:
    return tag[2:] if tag[:2] in ("B-", "I-", "E-", "S-") else tag


def _too_few(splits: Splits, tagged: Tagged) -> Iterator[Finding]:
    train = splits["train"]
    at_least = MIN_SENTENCES if splits["val"] else max(MIN_SENTENCES, len(train) + 1)  # none was left for validation
    yield from too_few(tagged.source, SENTENCE, len(train), at_least)
    if len({t for s in train for t in s.tags}) < 2:
        yield Finding(
            code="one-tag",
            level="error",
            message=f"All words of {tagged.source} have the same tag, so there is nothing to learn; is --column right?",
        )


def _repeated(splits: Splits) -> Iterator[Finding]:
    train = {tuple(s.words): s.place for s in splits["train"]}
    for split in ("val", "test"):
        sentences = splits.get(split, ())
        copies = [s for s in sentences if len(s.words) > 3 and tuple(s.words) in train]
        yield from overlap(
            "sentences-across-splits",
            f"{{num}} of the {{total}} sentences of {split} stand in train, too ({{share:.1%}}): take them out of one"
            " of the two",
            len(copies),
            len(sentences),
            (f"{s.place} = {train[tuple(s.words)]}" for s in copies),
            at_least=MIN_SHARE,
        )


def _unfit(splits: Splits, tagged: Tagged) -> Iterator[Finding]:
    """Tags that do not follow their own scheme, such as I-PER after O in IOB2, or B-PER that never ends in BIOES."""
    if tagged.scheme in ("", "IOB1"):
        return
    wrong = []
    for sentences in splits.values():
        for s in sentences:
            again = _in_scheme(tags_of(spans_of(s.tags), len(s.tags)), tagged.scheme)
            wrong += [f"{s.place}: {a} where {b} fits" for a, b in zip(s.tags, again, strict=True) if a != b]
    yield from some(
        "tags-out-of-scheme",
        "warning",
        f"{{num}} tags do not follow {tagged.scheme}; they were read as CoNLL's evaluation does",
        len(wrong),
        wrong,
    )


def _in_scheme(bioes: Sequence[str], scheme: str) -> list[str]:
    """BIOES tags in another scheme."""
    change = {
        "IOB2": {"S": "B", "E": "I"},
        "BMES": {"I": "M"},
        "BILOU": {"E": "L", "S": "U"},
    }.get(scheme, {})
    return [t if t == "O" else change.get(t[0], t[0]) + t[1:] for t in bioes]


def _ambiguous(
    splits: Splits, tags: Mapping[str, Sequence[Sequence[str]]], processor: TagProcessor
) -> Iterator[Finding]:
    """One string with several labels: often a mistake, sometimes the language."""
    if processor.kind != "spans":
        return
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for split, sentences in splits.items():
        for s, t in zip(sentences, tags[split], strict=True):
            for span in spans_of(t):
                labels[" ".join(s.words[span.start : span.stop])][span.label] += 1
    mixed = {text: c for text, c in labels.items() if len(c) > 1}
    ranked = sorted(mixed, key=lambda text: -(mixed[text].total() - mixed[text].most_common(1)[0][1]))
    yield from some(
        "one-string-several-tags",
        "info",
        f"{{num}} of {len(labels):,} span texts have several labels; look at the first ones",
        len(mixed),
        (f"{t}: " + ", ".join(f"{k} {n}" for k, n in mixed[t].most_common()) for t in ranked),
    )


def _unseen(tags: Mapping[str, Sequence[Sequence[str]]], processor: TagProcessor) -> Iterator[Finding]:
    known = set(processor.labels)
    for split in ("val", "test"):
        wrong = Counter(t for sentence in tags.get(split, ()) for t in sentence if t not in known)
        num = sum(not set(sentence) <= known for sentence in tags.get(split, ()))
        yield from some(
            "tags-never-trained",
            "warning",
            f"{{num}} sentences of {split} have tags that train never shows ({{tags}}); they are left out",
            num,
            (f"{k}: {n}" for k, n in wrong.most_common()),
            tags=", ".join(sorted(wrong)[:5]),
        )


def _long(splits: Splits) -> Iterator[Finding]:
    longest = max((s for sentences in splits.values() for s in sentences), key=lambda s: len(s.words))
    median = float(np.median([len(s.words) for s in splits["train"]] or [0]))
    if len(longest.words) >= LONG_SENTENCE_WORDS:
        yield Finding(
            code="long-sentence",
            level="warning",
            count=1,
            message=f"One sentence has {len(longest.words):,} words ({longest.place}), the median {median:.0f}: is an "
            "empty line missing between sentences?",
        )
