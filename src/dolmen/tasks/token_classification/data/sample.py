"""A small set of tagged sentences to try things with, made from the documentation that Python itself ships."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterator
from pathlib import Path

from dolmen.files import fills_folder
from dolmen.tasks.token_classification.processor import Span, cut_words, tags_of

NOTICE = """Sentences of Python's language reference (the module pydoc_data.topics of this Python), tagged by rules:
KEYWORD (a keyword of Python in quotes), BUILTIN (a built-in function or type in quotes), EXCEPTION and PEP.
Licence of the text: PSF License Version 2 (https://docs.python.org/3/license.html). Copyright Python Software
Foundation. The format is CoNLL's: a word and its tag in a line, an empty line after each sentence. Every tenth
sentence is in valid.conll, another tenth in test.conll, the others are in train.conll.
"""
PARTS = {"train.conll": (1, 2, 3, 4, 6, 7, 8, 9), "valid.conll": (0,), "test.conll": (5,)}
_NAME = re.compile(r'"([A-Za-z_]+)(?:\(\))?"')


@fills_folder
def write_tagged_sample(folder: Path) -> None:
    """Write train.conll, valid.conll and test.conll."""
    sentences = list(dict.fromkeys(_sentences()))
    for name, numbers in PARTS.items():
        chosen = [s for i, s in enumerate(sentences) if i % 10 in numbers]
        (folder / name).write_text("\n".join(map(_tagged, chosen)), encoding="utf-8")
    (folder / "NOTICE.txt").write_text(NOTICE, encoding="utf-8")


def _sentences() -> Iterator[str]:
    from pydoc_data.topics import topics

    for _, text in sorted(topics.items()):
        for paragraph in re.split(r"\n\s*\n", text):
            if re.search(r"^ {3}|^[*=~-]{4}|[|>]{3}", paragraph, re.MULTILINE):  # code, headings, tables
                continue
            for sentence in re.split(r"(?<=[.:;]) (?=[A-Z])", " ".join(paragraph.split())):
                if 6 <= len(cut_words(sentence)) <= 60:
                    yield sentence


def _tagged(sentence: str) -> str:
    offsets = cut_words(sentence)
    starts, ends = {s: i for i, (s, _) in enumerate(offsets)}, {e: i + 1 for i, (_, e) in enumerate(offsets)}
    names = [(m.span(1), _label(m[1])) for m in _NAME.finditer(sentence)]
    names += [(m.span(), "PEP") for m in re.finditer(r"\bPEP \d+\b", sentence)]
    spans = [Span(starts[s], ends[e], label) for (s, e), label in names if label and s in starts and e in ends]
    tags = tags_of(spans, len(offsets))
    return "".join(f"{sentence[s:e]} {tag}\n" for (s, e), tag in zip(offsets, tags, strict=True))


def _label(name: str) -> str:
    if keyword.iskeyword(name):
        return "KEYWORD"
    builtin = getattr(builtins, name, None)
    if isinstance(builtin, type) and issubclass(builtin, BaseException):
        return "EXCEPTION"
    return "BUILTIN" if builtin is not None else ""
