"""Sentences with tags: CoNLL columns, CoNLL-U, and JSON Lines with spans of characters."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dolmen.data.sources.text_files import TextFile, find_text
from dolmen.tasks.token_classification.processor import Span, cut_words, spans_of, tags_of
from dolmen.types import Skipped, UserError

SUFFIXES = (
    ".conll",
    ".conllu",
    ".iob",
    ".iob2",
    ".bio",
    ".bioes",
    ".bmes",
    ".tsv",
    ".train",
    ".dev",
    ".test",
    ".jsonl",
)
CONLLU = {"upos": 3, "xpos": 4, "feats": 5}
EXAMPLE = "a word and its tag in a line, an empty line after each sentence"


@dataclass
class Sentence:
    """Words with their tags.

    Attributes:
        words: at least one.
        tags: as many, as the file has them.
        place: file and line, for messages.
        text: what the words were cut from, where that is known.
        offsets: start and end of each word in ``text``.
    """

    words: list[str]
    tags: list[str]
    place: str
    text: str | None = None
    offsets: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Tagged:
    """Sentences by split ("" where nothing tells one).

    Attributes:
        kind: "spans" where tags have prefixes of a scheme, else "labels".
        scheme: that of the files: IOB1, IOB2, BIOES, BMES, or "".
        notes: what was done to the data beyond reading.
    """

    source: str
    splits: dict[str, list[Sentence]]
    skipped: tuple[Skipped, ...]
    num_files: int
    kind: Literal["spans", "labels"]
    scheme: str
    notes: tuple[str, ...] = ()


def read_tagged(data: str, *, encoding: str, column: str | None, word_column: int | None) -> Tagged:
    """Read the sentences of a file, a folder or an archive; splits as in ``find_text``.

    Args:
        data: the file, folder or archive.
        encoding: of the files.
        column: of the tags: a number from 1, or for CoNLL-U upos, xpos or feats; None: the last one, or upos.
        word_column: of the words, from 1; None: the first one, or FORM of CoNLL-U.

    Raises:
        UserError: a line can't be read, or there is no sentence.
    """
    files = find_text(data, SUFFIXES)
    notes: list[str] = []
    splits: dict[str, list[Sentence]] = {}
    for split, parts in files.splits.items():
        splits[split] = [s for part in parts for s in _read_file(part, encoding, column, word_column)]
    everything = [s for sentences in splits.values() for s in sentences]
    if not everything:
        raise UserError(f"{data} holds no sentence; it needs {EXAMPLE}")
    if _have_positions(everything):
        for sentence in everything:
            sentence.words = [w[:-1] for w in sentence.words]
        notes.append("each word ended in a digit (its place in the segmentation), which was taken off")
    scheme = find_scheme(tag for s in everything for tag in s.tags)
    if scheme == "IOB2" and any(_is_iob1(s.tags) for s in everything):
        scheme = "IOB1"
    kind: Literal["spans", "labels"] = "spans" if scheme else "labels"
    return Tagged(data, splits, files.skipped, files.num_files, kind, scheme, tuple(notes))


def _read_file(file: TextFile, encoding: str, column: str | None, word_column: int | None) -> Iterator[Sentence]:
    name = file.name.lower().removesuffix(".xz").removesuffix(".gz").removesuffix(".bz2")
    lines = _lines(file.pieces(encoding))
    if name.endswith(".jsonl"):
        yield from _read_jsonl(file, lines)
    else:
        yield from _read_columns(file, lines, name.endswith(".conllu"), column, word_column)


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    held = ""
    for piece in pieces:
        *whole, held = (held + piece).split("\n")
        yield from whole
    if held:
        yield held


def _read_columns(
    file: TextFile, lines: Iterator[str], conllu: bool, column: str | None, word_column: int | None
) -> Iterator[Sentence]:
    words: list[str] = []
    tags: list[str] = []
    width, tabs, began = 0, False, 0
    where = f"{file.source.path / file.name}"
    for number, line in enumerate(lines, 1):
        if not line.strip():
            if words:
                yield Sentence(words, tags, f"{where}:{began}")
                words, tags = [], []
            continue
        if line.startswith("-DOCSTART-") or (
            line.startswith("#") and (conllu or (line[1:2] == " " and "\t" not in line))
        ):
            continue
        if not width:
            tabs = conllu or "\t" in line
        cells = line.split("\t") if tabs else line.split()
        if conllu and len(cells) > 1 and not cells[0].isdecimal():
            continue  # a range of words written as one ("1-2"), or an empty node ("1.1")
        width = width or len(cells)
        if len(cells) != width or width < 2:
            raise UserError(
                f"{where}:{number} has {len(cells)} column{'s' * (len(cells) != 1)}"
                + (f", the lines before it have {width}" if width != len(cells) else "")
                + f"; every line needs the same number, at least 2: {EXAMPLE}"
            )
        at, word_at = _columns(where, width, conllu, column, word_column)
        if not words:
            began = number
        words.append(cells[word_at])
        tags.append(cells[at])
        if not cells[word_at] or not cells[at]:
            raise UserError(f"{where}:{number} has an empty word or tag; it needs {EXAMPLE}")
    if words:
        yield Sentence(words, tags, f"{where}:{began}")


def _columns(where: str, width: int, conllu: bool, column: str | None, word_column: int | None) -> tuple[int, int]:
    word_at = (2 if conllu else 1) if word_column is None else word_column
    wanted = column or ("upos" if conllu else str(width))
    if wanted in CONLLU:
        if not conllu:
            raise UserError(f"--column {wanted} is of CoNLL-U, and {where} is none; give the number of a column")
        return CONLLU[wanted], word_at - 1
    if not wanted.isdecimal() or not 1 <= int(wanted) <= width or not 1 <= word_at <= width:
        raise UserError(
            f"{where} has the columns 1 to {width}; --column {wanted} or --word-column {word_at} is none of them"
        )
    return int(wanted) - 1, word_at - 1


def _read_jsonl(file: TextFile, lines: Iterator[str]) -> Iterator[Sentence]:
    where = f"{file.source.path / file.name}"
    example = '{"text": "Anna lives in Rome", "spans": [{"start": 14, "end": 18, "label": "LOC"}]}'
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if "words" in record:
                words, tags = [str(w) for w in record["words"]], [str(t) for t in record["tags"]]
                if not words or len(words) != len(tags):
                    raise UserError(f"{where}:{number} has {len(words)} words and {len(tags)} tags")
                yield Sentence(words, tags, f"{where}:{number}")
                continue
            text, spans = str(record["text"]), [_span(s) for s in record.get("spans", record.get("entities", []))]
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{where}:{number} can't be read ({error}); each line needs e.g. {example}") from None
        yield _from_spans(text, spans, f"{where}:{number}")


def _span(value: Any) -> tuple[int, int, str]:
    start, end, label = (value["start"], value["end"], value["label"]) if isinstance(value, dict) else value
    return int(start), int(end), str(label)


def _from_spans(text: str, spans: Sequence[tuple[int, int, str]], place: str) -> Sentence:
    """Cut a text into words such that spans begin and end at words."""
    edges = sorted({e for start, end, _ in spans for e in (start, end)})
    offsets = cut_words(text, edges)
    if not offsets:
        raise UserError(f"{place} has an empty text; take the line out")
    starts, ends = {s: i for i, (s, _) in enumerate(offsets)}, {e: i for i, (_, e) in enumerate(offsets)}
    word_spans = []
    for start, end, label in spans:
        inside = text[start:end]
        begin, stop = start + len(inside) - len(inside.lstrip()), end - (len(inside) - len(inside.rstrip()))
        if begin not in starts or stop not in ends or not 0 <= start < end <= len(text):
            raise UserError(f"{place} has a span {start} to {end} that is not inside its {len(text)} characters")
        word_spans.append(Span(starts[begin], ends[stop] + 1, label))
    word_spans.sort()
    for a, b in itertools.pairwise(word_spans):
        if b.start < a.stop:
            raise UserError(
                f"{place} has spans that overlap ({a.label} and {b.label}); a word can be in one only: take one out"
            )
    tags = tags_of(word_spans, len(offsets))
    return Sentence([text[s:e] for s, e in offsets], tags, place, text, offsets)


def _have_positions(sentences: Sequence[Sentence]) -> bool:
    """Whether words are single characters with a digit behind, as the Weibo corpus writes its segmentation."""
    words = [w for s in sentences[:200] for w in s.words]
    return sum(len(w) >= 2 and w[-1].isdigit() and w[-1].isascii() for w in words) > 0.99 * len(words) > 20


_PREFIXED = re.compile(r"^([BIOESMLU])-.+$")


def find_scheme(tags: Iterator[str]) -> str:
    """IOB2 (or IOB1), BIOES or BMES where tags have prefixes; "" where they are plain labels."""
    names = set(tags)
    prefixes = {m[1] for t in names if (m := _PREFIXED.match(t))}
    if not prefixes or any(t != "O" and not _PREFIXED.match(t) for t in names):
        return ""
    if prefixes <= {"B", "I"}:
        return "IOB2"
    return "BMES" if "M" in prefixes else "BILOU" if prefixes & {"L", "U"} else "BIOES"


def _is_iob1(tags: Sequence[str]) -> bool:
    """Whether a chunk begins with I, which only IOB1 allows."""
    before = "O"
    for tag in tags:
        if tag.startswith("I-") and (before == "O" or before[2:] != tag[2:]):
            return True
        before = tag
    return False


def canonical(sentence: Sentence, kind: str) -> list[str]:
    """The tags in the one scheme that networks learn here: BIOES for spans, labels as they are."""
    return tags_of(spans_of(sentence.tags), len(sentence.tags)) if kind == "spans" else sentence.tags
