"""Checks of a text: what is in it, what is wrong with it, what would leak."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from dolmen.data.checks.copies import overlap
from dolmen.data.checks.findings import most_serious_first, some
from dolmen.data.sources.text_files import TextFiles
from dolmen.processors.text.tokens import TextProcessor
from dolmen.tasks.text_generation.data.windows import Stretch, Tokens
from dolmen.types import CheckReport, Finding

LONG_LINE_CHARACTERS = 60
"""Characters from which on a line is unlikely to be in two texts by chance."""
MIN_SHARE = 0.01
"""Share of a split's long lines that have to stand in train, too, for a finding."""
MIN_TOKENS = 768
HUGE_LINE_CHARACTERS = 1_000_000
MAX_UNKNOWN = 0.02
"""Share of the tokens that may be unknown."""


def check_text(
    files: TextFiles,
    stretches: Mapping[str, Stretch],
    tokens: Mapping[str, Tokens],
    sizes: Mapping[str, int],
    processor: TextProcessor,
) -> CheckReport:
    """Check a text whose splits are known.

    Args:
        files: all of them.
        stretches: the text of each split.
        tokens: of what the files hold, by the splits that their names tell.
        sizes: tokens of each split.
        processor: the vocabulary.
    """
    lines = {split: _Lines(stretch) for split, stretch in stretches.items()}
    findings = [*_short(files, tokens), *_copies(lines), *_unknown(tokens), *_odd(lines, processor)]
    num = {split: stretch.num_characters for split, stretch in stretches.items()}
    symbols = ", ".join(repr(s)[1:-1] if s.strip() else repr(s) for s in processor.symbols[1:9])
    return CheckReport(
        task="text-generation",
        source=files.source,
        num_files=files.num_files,
        num_used=files.num_files - len(files.skipped),
        skipped=files.skipped,
        counts={split: {"tokens": num} for split, num in sizes.items()},
        summary={
            "characters": ", ".join(f"{split} {n:,}" for split, n in num.items()),
            "vocabulary": f"{len(processor):,} {processor.units}; most frequent: {symbols}",
            "longest line": f"{max(line.longest for line in lines.values()):,} characters",
        },
        findings=most_serious_first(findings),
    )


class _Lines:
    """The lines of a text: a hash of each long one, and what is odd about them."""

    def __init__(self, stretch: Stretch) -> None:
        hashes: list[NDArray[np.int64]] = []
        self.longest, self.num_nul = 0, 0
        for lines in _lines(stretch.pieces()):
            self.longest = max(self.longest, max(map(len, lines), default=0))
            self.num_nul += sum(line.count("\0") for line in lines)
            long = [s for line in lines if len(s := line.strip()) >= LONG_LINE_CHARACTERS]
            hashes.append(np.array([hash(s) for s in long], np.int64))
        self.hashes = np.unique(np.concatenate(hashes)) if hashes else np.zeros(0, np.int64)


def _lines(pieces: Iterator[str]) -> Iterator[list[str]]:
    """The lines of a text, those of a piece together; a line is at most a few pieces long in memory."""
    held = ""
    for piece in pieces:
        *whole, held = (held + piece).split("\n")
        yield whole
    yield [held]


def _short(files: TextFiles, tokens: Mapping[str, Tokens]) -> Iterator[Finding]:
    for split, t in tokens.items():
        if len(t.numbers) < (MIN_TOKENS if split == "train" else 2):
            yield Finding(
                code="too-short",
                level="error",
                count=len(t.numbers),
                message=f"The {split} part of {files.source} has {len(t.numbers)} tokens, which is too short to "
                f"{'train on' if split == 'train' else 'measure on'}; bring more text (100,000 characters, say).",
            )


def _copies(lines: Mapping[str, _Lines]) -> Iterator[Finding]:
    train = lines["train"].hashes
    for split in ("val", "test"):
        if split not in lines or not len(lines[split].hashes):
            continue
        yield from overlap(
            "lines-across-splits",
            f"{{share:.0%}} of the different long lines of {split} ({{num}}) stand in train, too: what is measured on "
            f"{split} is partly what was learnt by heart; take them out of one of the two",
            len(np.intersect1d(lines[split].hashes, train, assume_unique=True)),
            len(lines[split].hashes),
            at_least=MIN_SHARE,
        )


def _unknown(tokens: Mapping[str, Tokens]) -> Iterator[Finding]:
    for split, t in tokens.items():
        share = t.num_unknown / max(1, len(t.numbers))
        yield from some(
            "unknown-tokens",
            "warning",
            f"{share:.1%} of the tokens of {split} are not in the vocabulary and count as one unknown token, which"
            " makes figures look better than they are; try --units bpe or a larger --vocabulary",
            t.num_unknown if share > MAX_UNKNOWN else 0,
        )


def _odd(lines: Mapping[str, _Lines], processor: TextProcessor) -> Iterator[Finding]:
    longest = max(line.longest for line in lines.values())
    if longest >= HUGE_LINE_CHARACTERS:
        yield Finding(
            code="long-line",
            level="info",
            count=1,
            message=f"One line has {longest:,} characters; it is used as it is.",
        )
    if num := sum(line.num_nul for line in lines.values()):
        yield Finding(
            code="nul-characters",
            level="warning",
            count=num,
            message=f"{num:,} characters are NUL: perhaps this is no text, or text in UTF-16; try --encoding utf-16.",
        )
    if processor.units == "characters" and len(processor) < 4:
        yield Finding(
            code="few-symbols",
            level="warning",
            count=len(processor) - 1,
            message=f"The text consists of {len(processor) - 1} different characters only; is it the right file?",
        )
