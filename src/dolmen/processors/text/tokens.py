"""Text to numbers and back: characters, words, or pieces of words (BPE). numpy only, but for BPE's own library."""

from __future__ import annotations

import base64
import functools
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from dolmen.types import UserError

UNKNOWN, END_OF_LINE = "\ufffd", "\n"
MAX_CHARACTERS, MAX_WORDS = 8_000, 50_000
"""Sizes of vocabularies where none is asked for."""
Units = Literal["characters", "words", "bpe"]


class TextProcessor(BaseModel):
    """A vocabulary. What it does not hold becomes ``UNKNOWN``, number 0.

    Attributes:
        units: what a token is. Words are what stands between spaces, and each line feed.
        symbols: the tokens by number (of BPE: as its library writes them).
        bpe: the sentencepiece model, base64; "" for the others.
    """

    model_config = ConfigDict(frozen=True)

    units: Units
    symbols: tuple[str, ...]
    bpe: str = ""

    def __len__(self) -> int:
        return len(self.symbols)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    @functools.cached_property
    def _table(self) -> NDArray[np.int32]:
        """Number by code point, of characters."""
        table = np.zeros(0x110000, np.int32)
        for number, symbol in enumerate(self.symbols):
            table[ord(symbol)] = number
        table[ord(UNKNOWN)] = 0
        return table

    @functools.cached_property
    def _pieces(self) -> Any:
        return _sentencepiece().SentencePieceProcessor(model_proto=base64.b64decode(self.bpe))

    def encode_text(self, text: str) -> NDArray[np.int32]:
        """(N,) tokens of a text."""
        if self.units == "characters":
            points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
            return self._table[points]
        if self.units == "words":
            get = self._numbers.get
            return np.array([get(word, 0) for word in split_words(text)], np.int32)
        pieces: list[int] = []
        for number, line in enumerate(text.split("\n")):
            pieces += [self._numbers[END_OF_LINE]] if number else []
            pieces += self._pieces.encode(line) if line else []
        return np.array(pieces, np.int32)

    def decode_tokens(self, tokens: Iterable[int]) -> str:
        """The text of tokens. Words are joined by spaces, except around line feeds."""
        numbers = [int(t) for t in tokens]
        if self.units == "characters":
            return "".join(self.symbols[t] for t in numbers)
        if self.units == "words":
            return re.sub(" ?\n ?", "\n", " ".join(self.symbols[t] for t in numbers))
        lines: list[list[int]] = [[]]
        for t in numbers:
            if self.symbols[t] == END_OF_LINE:
                lines.append([])
            else:
                lines[-1].append(t)
        return "\n".join(self._pieces.decode(line) for line in lines)

    def show(self, token: int) -> str:
        """A token as it stands in a text, for a person: with the space before it, where its spelling says so."""
        symbol = self.symbols[token]
        if self.units == "words":
            return symbol if symbol == END_OF_LINE else symbol + " "
        return symbol.replace("\u2581", " ") if self.units == "bpe" else symbol

    def encode(self, raw: Any) -> dict[str, NDArray[Any]]:
        """``{"tokens": (N,) int64}`` of a text.

        Raises:
            UserError: it is no text.
        """
        if not isinstance(raw, str):
            raise UserError(f"a text was expected, not {type(raw).__name__}")
        return {"tokens": self.encode_text(raw).astype(np.int64)}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TextProcessor:
        """Undo ``to_json``."""
        return cls.model_validate(values)


def split_words(text: str) -> Iterator[str]:
    """Yield the words between spaces, and each line feed by itself."""
    for number, line in enumerate(text.split("\n")):
        if number:
            yield END_OF_LINE
        yield from line.split()


def whole_words(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in pieces that end where a line or a word does, so that none is cut in two."""
    held = ""
    for piece in pieces:
        held += piece
        cut = max(held.rfind("\n"), held.rfind(" ")) + 1
        if cut:
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


def fit_text(units: Units, pieces: Iterable[str], num_symbols: int | None, min_count: int) -> TextProcessor:
    """Take a vocabulary from a text.

    Args:
        units: what a token is.
        pieces: of the training text.
        num_symbols: the most frequent are kept; None for a number that suits the units.
        min_count: rarer characters and words are left out.

    Raises:
        UserError: the text is too small for BPE, or its library is missing.
    """
    if units == "bpe":
        return _fit_bpe(whole_words(pieces), num_symbols or 4_000)
    counts: Counter[str] = Counter()
    for piece in pieces if units == "characters" else whole_words(pieces):
        counts.update(piece if units == "characters" else split_words(piece))
    counts.pop(UNKNOWN, None)
    max_symbols = num_symbols or (MAX_CHARACTERS if units == "characters" else MAX_WORDS)
    frequent = sorted(((s, n) for s, n in counts.items() if n >= min_count), key=lambda item: (-item[1], item[0]))
    return TextProcessor(units=units, symbols=(UNKNOWN, *(s for s, _ in frequent[: max_symbols - 1])))


def _fit_bpe(pieces: Iterable[str], num_symbols: int) -> TextProcessor:
    library, model = _sentencepiece(), io.BytesIO()
    lines = (line for piece in pieces for line in piece.split("\n") if line)
    try:
        library.SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=model, model_type="bpe", vocab_size=num_symbols - 1,
            normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False,
            character_coverage=1.0, byte_fallback=True, unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1,
            hard_vocab_limit=False, max_sentence_length=1 << 20, minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].rpartition("] ")[2] or str(error)
        raise UserError(
            f"BPE can't be learned from this text ({reason}); try --vocabulary 500, or --units characters"
        ) from None
    proto = model.getvalue()
    pieces_of = library.SentencePieceProcessor(model_proto=proto)
    symbols = [pieces_of.id_to_piece(i) for i in range(pieces_of.get_piece_size())]
    symbols[0] = UNKNOWN
    return TextProcessor(units="bpe", symbols=(*symbols, END_OF_LINE), bpe=base64.b64encode(proto).decode())


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise UserError("--units bpe needs sentencepiece; type: pip install sentencepiece") from None
    return sentencepiece
