"""N-gram language models over words: trained with interpolated modified Kneser-Ney smoothing, or read from ARPA files.

Both are kept as ARPA has them (Chen & Goodman, 1999): the log-probability of each n-gram, and the weight with which the
shorter context is asked for words that never followed this one.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from dolmen.types import UserError

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
NEVER = -99.0
"""log10 that stands for probability 0 in ARPA files."""

Words = tuple[str, ...]
Table = dict[Words, tuple[float, float]]
"""n-gram -> natural logs of its probability and of its back-off weight."""


class NGrams:
    """A language model over words, as ``PrefixBeam`` takes it: its state is the last words.

    Args:
        tables: n-grams by their length, from 1.

    Attributes:
        order: length of the longest n-grams.
    """

    def __init__(self, tables: list[Table]) -> None:
        self._tables, self.order = tables, len(tables)

    @classmethod
    def train(cls, sentences: Iterable[str], order: int = 3, min_count: int = 1) -> NGrams:
        """Learn from sentences. Time and memory grow linearly with their words.

        Args:
            sentences: words with spaces between.
            order: length of the longest n-grams.
            min_count: rarer words become ``UNKNOWN``.

        Raises:
            UserError: there is no word, or a number is below 1.
        """
        if order < 1 or min_count < 1:
            raise UserError(f"order and min_count must be 1 or more, not {order} and {min_count}")
        lines = [words for words in map(_words, sentences) if words]
        if not lines:
            raise UserError("a language model can't be trained without words; give sentences, one in each line")
        counts = Counter(word for words in lines for word in words)
        known = {word for word, n in counts.items() if n >= min_count}
        lines = [[BEGIN, *(w if w in known else UNKNOWN for w in words), END] for words in lines]
        return cls(_kneser_ney(_adjusted_counts(lines, order), len(known | {UNKNOWN, END})))

    @classmethod
    def read_arpa(cls, source: Path | str) -> NGrams:
        """Read a model in the ARPA format, as SRILM and KenLM write it.

        Args:
            source: a file, packed with gzip or not; or the text of one.

        Raises:
            UserError: it is damaged; the sentence names the line.
            OSError: the file can't be read.
        """
        if isinstance(source, str) and "\n" in source:
            return cls(_read(iter(source.split("\n")), "the text"))
        path = Path(source)
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        try:
            with gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8") as lines:
                return cls(_read((line.rstrip("\r\n") for line in lines), str(path)))
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path} is no ARPA file in UTF-8 ({error}); write it again") from None

    def to_arpa(self) -> str:
        """The model as an ARPA file's text, to be written as UTF-8."""
        sections = ["\\data\\", *(f"ngram {n}={len(table)}" for n, table in enumerate(self._tables, 1))]
        for n, table in enumerate(self._tables, 1):
            sections += ["", f"\\{n}-grams:"]
            for words in sorted(table):
                log, weight = (f"{value / math.log(10):.7g}" for value in table[words])
                sections.append("\t".join([log, " ".join(words), *([weight] if table[words][1] else [])]))
        return "\n".join([*sections, "", "\\end\\", ""])

    @property
    def words(self) -> Iterator[str]:
        """The known words, without the marks."""
        return (word for (word,) in self._tables[0] if word in self)

    def __contains__(self, word: object) -> bool:
        """Whether a word is known; the marks of beginning, end and unknown words are none."""
        return word not in (BEGIN, END, UNKNOWN) and (word,) in self._tables[0]

    def start(self) -> Words:
        """The state at the beginning of a sentence."""
        return (BEGIN,)[: self.order - 1]

    def step(self, state: Words, word: str) -> tuple[Words, float]:
        """The state after a word, and the natural log of its probability. What is not known is ``UNKNOWN``."""
        word = word if word in self else UNKNOWN
        following = (*state, word)
        return following[max(0, len(following) - self.order + 1) :], self._log(state, word)

    def end(self, state: Words) -> float:
        """Natural log of the probability that the sentence ends."""
        return self._log(state, END)

    def _log(self, context: Words, word: str) -> float:
        """Natural log of a word's probability; that of ``NEVER`` for unknown words if the model has none for them."""
        weights = 0.0
        while True:
            entry = self._tables[len(context)].get((*context, word))
            if entry:
                return weights + entry[0]
            if not context:
                return weights + NEVER * math.log(10)
            weights += self._tables[len(context) - 1].get(context, (0.0, 0.0))[1]
            context = context[1:]

    def perplexity(self, sentences: Iterable[str]) -> float:
        """How many words the model wavers between, on average: over all words, unknown ones too, and sentences' ends.

        Raises:
            UserError: there is no word.
        """
        total, number = 0.0, 0
        for words in filter(None, map(_words, sentences)):
            state = self.start()
            for word in words:
                state, log = self.step(state, word)
                total += log
            total += self.end(state)
            number += len(words) + 1
        if not number:
            raise UserError("perplexity needs one sentence or more; no word was found")
        return math.exp(min(-total / number, 700.0))


def _words(sentence: str) -> list[str]:
    return [word for word in sentence.split() if word not in (BEGIN, END)]


def _adjusted_counts(lines: list[list[str]], order: int) -> list[Counter[Words]]:
    """By length: how often an n-gram came; for the shorter ones, after how many different words it did.

    Nothing stands before the beginning of a sentence, so n-grams that begin there keep how often they came.
    """
    longest: Counter[Words] = Counter()
    beginnings: list[Counter[Words]] = [Counter() for _ in range(order)]
    for words in lines:
        longest.update(zip(*(words[i:] for i in range(order)), strict=False))
        for n in range(2, order):
            beginnings[n - 1].update([tuple(words[:n])] if len(words) >= n else [])
    longest.pop((BEGIN,), None)
    counts = [longest]
    for n in range(order - 1, 0, -1):
        shorter = Counter(words[1:] for words in counts[0])
        counts.insert(0, shorter + beginnings[n - 1])
    return counts


def _kneser_ney(counts: list[Counter[Words]], num_words: int) -> list[Table]:
    """Probabilities of n-grams from the shortest to the longest, each mixed with that of the shorter context."""
    probabilities: list[dict[Words, float]] = []
    weights: list[dict[Words, float]] = []  # of contexts, by their length
    for level in counts:
        discounts = _discounts(level)
        totals: Counter[Words] = Counter()
        freed: dict[Words, float] = {}
        for words, count in level.items():
            context = words[:-1]
            totals[context] += count
            freed[context] = freed.get(context, 0.0) + discounts[min(count, 3)]
        weight = {context: mass / totals[context] for context, mass in freed.items()}
        smoothed = {}
        for words, count in level.items():
            context = words[:-1]
            shorter = probabilities[-1][words[1:]] if probabilities else 1 / num_words
            smoothed[words] = (count - discounts[min(count, 3)]) / totals[context] + weight[context] * shorter
        if not probabilities:
            smoothed.setdefault((UNKNOWN,), weight[()] / num_words)
        probabilities.append(smoothed)
        weights.append(weight)
    return _tables(probabilities, [*weights[1:], {}])


def _tables(probabilities: list[dict[Words, float]], weights: list[dict[Words, float]]) -> list[Table]:
    tables: list[Table] = []
    for level, weight in zip(probabilities, weights, strict=True):
        logs = {words: math.log(p) for words, p in level.items()}
        tables.append({words: (log, math.log(weight.get(words, 1.0))) for words, log in logs.items()})
    tables[0][BEGIN,] = NEVER * math.log(10), math.log(weights[0].get((BEGIN,), 1.0))
    return tables


def _discounts(counts: Mapping[Words, int]) -> tuple[float, float, float, float]:
    """The discounts of counts of 0, 1, 2, and 3 or more."""
    num_with_count = Counter(counts.values())
    n1, n2, n3, n4 = (num_with_count[k] for k in (1, 2, 3, 4))
    if n1 and n2 and n3:
        share = n1 / (n1 + 2 * n2)
        discounts = (0.0, 1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3)
        if all(0 < d < k for k, d in enumerate(discounts) if k):
            return discounts
    return 0.0, 0.5, 1.0, 1.5  # counts of a small or artificial text do not allow the estimate


def _read(lines: Iterator[str], name: str) -> list[Table]:
    """The tables of an ARPA file, line by line."""
    sizes: list[int] = []
    tables: list[Table] = []
    inside, n = False, 0  # n: the length of the section's n-grams, 0 in the header
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not inside:
            inside = text == "\\data\\"
        elif text == "\\end\\":
            _check_size(sizes, tables, f"{name}, line {number}")
            if not tables or len(tables) < len(sizes):
                raise _damaged(f"{name}, line {number}", f"{len(tables)} of {len(sizes)} sections")
            return tables
        elif section := re.fullmatch(r"\\(\d+)-grams:", text):
            _check_size(sizes, tables, f"{name}, line {number}")
            n = int(section[1])
            if n != len(tables) + 1 or n > len(sizes):
                raise _damaged(f"{name}, line {number}", repr(text))
            tables.append({})
        elif text and not n:
            size = re.fullmatch(r"ngram\s+(\d+)\s*=\s*(\d+)", text)
            if not size or int(size[1]) != len(sizes) + 1:
                raise _damaged(f"{name}, line {number}", repr(text))
            sizes.append(int(size[2]))
        elif text:
            words, logs = _entry(text, n, f"{name}, line {number}")
            tables[-1][words] = logs
    raise UserError(f"{name} has no \\{'end' if inside else 'data'}\\, as ARPA files have; is it complete?")


def _entry(text: str, n: int, place: str) -> tuple[Words, tuple[float, float]]:
    fields = re.split(r"[ \t]+", text)
    if len(fields) not in (n + 1, n + 2):
        raise _damaged(place, f"{text!r} where a log, {n} words and perhaps another log were expected")
    try:
        logs = float(fields[0]), float(fields[n + 1]) if len(fields) > n + 1 else 0.0
    except ValueError:
        raise _damaged(place, f"{text!r} where a log, {n} words and perhaps another log were expected") from None
    if not logs[0] < 0.01 or not logs[1] < math.inf:
        raise _damaged(place, f"{text!r}, whose logs are none of probabilities")
    words = tuple(UNKNOWN if word == "<UNK>" else word for word in fields[1 : n + 1])
    log, weight = (max(value, NEVER) * math.log(10) for value in logs)
    return words, (log, weight)


def _check_size(sizes: list[int], tables: list[Table], place: str) -> None:
    if tables and len(tables[-1]) != sizes[len(tables) - 1]:
        n = len(tables)
        raise _damaged(place, f"{len(tables[-1])} {n}-grams before it where {sizes[n - 1]} were announced")


def _damaged(place: str, content: str) -> UserError:
    return UserError(f"{place} of the ARPA file is damaged: it has {content}; write or download it again")
