"""Normalisation of transcripts: the same rules for learned texts, references, hot words and commands."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from pydantic import BaseModel, ConfigDict

APOSTROPHES = "'’ʼ`´"
DASHES = "-‐‑‒–—"
JOINERS = "\u200d\u200c"
"""Letters of Indian and Arabic scripts are spelled with them."""
TAG = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]|\([^\s()]+\)")
"""One word in brackets."""


class TextRules(BaseModel):
    """Rules by which a transcript is normalised before it is learned, or compared with what is heard.

    It is brought to Unicode's composed form (NFC), each stretch of white space becomes one space, and what can't be
    printed goes.

    Attributes:
        case: letters that become small, great, or stay.
        punctuation: whether signs that are no letters, marks or digits stay. If not, an apostrophe or a dash inside of
            a word does ("don't", "co-pilot").
        tags: whether ``<unk>``, ``[noise]`` and ``(laughter)``, which say what is no word, stay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: Literal["lower", "upper", "keep"] = "lower"
    punctuation: bool = False
    tags: bool = False

    def sentence(self) -> str:
        """The rules in words, for a person."""
        letters = {"lower": "small letters", "upper": "great letters", "keep": "letters as they are"}[self.case]
        return ", ".join(
            (
                letters,
                "punctuation kept" if self.punctuation else "no punctuation",
                *(() if self.tags else ("no <tags>, [tags] and (tags)",)),
            )
        )


def normalise(text: str, rules: TextRules) -> str:
    """A transcript by the rules; "" where nothing is left. What is normalised stays as it is if it is done again."""
    # First, for what can't be seen must neither part a word nor keep a letter from its accent.
    text = unicodedata.normalize("NFC", "".join(c for c in text if c.isspace() or _printable(c)))
    if not rules.tags:
        text = TAG.sub(" ", text)
    if rules.case != "keep":
        text = text.lower() if rules.case == "lower" else text.upper()
        text = unicodedata.normalize("NFC", text)  # the small form of a letter may come in two parts
    if not rules.punctuation:
        text = _without_punctuation(text)
    return " ".join(text.split())


def _printable(character: str) -> bool:
    return character in JOINERS or unicodedata.category(character)[0] != "C"


def _without_punctuation(text: str) -> str:
    kept: list[str] = []
    for i, c in enumerate(text):
        category = unicodedata.category(c)
        inside = 0 < i < len(text) - 1 and text[i - 1].isalnum() and text[i + 1].isalnum()
        if category[0] in "LMN" or c.isspace() or c in JOINERS:
            kept.append(c)
        elif inside and c in APOSTROPHES:
            kept.append("'")
        elif inside and c in DASHES:
            kept.append("-")
        else:
            kept.append(" ")
    return "".join(kept)
