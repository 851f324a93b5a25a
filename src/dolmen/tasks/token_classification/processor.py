"""Words to numbers, and scores of tags to tags, spans and how sure they are; numpy only.

A linear-chain CRF gives each sequence of tags a score: emissions of its tags plus transitions between neighbours. What
is asked of it here (best sequences, marginals, the probability of a span) is exact, in log space.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from dolmen.tasks.token_classification.predictions import Spans
from dolmen.types import UserError

Floats = NDArray[np.float64]
UNKNOWN, PADDING = 0, 0
LONGEST_WORD = 24
"""Characters of a word that are looked at: the first half and the last one of a longer word."""
SHAPES = 8
FORBIDDEN = -1e4


class Span(NamedTuple):
    """Words ``start`` to ``stop`` (exclusive) together have a label."""

    start: int
    stop: int
    label: str


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The chunks of a sequence, in any of IOB1, IOB2, BIOES, BILOU and BMES, as CoNLL's evaluation script counts them.

    Tags that fit no scheme begin a chunk where the script begins one (Tjong Kim Sang & Buchholz, 2000).
    """
    spans: list[Span] = []
    start, before, label = -1, "O", ""
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        begins = prefix != "O" and (prefix in "BSU" or before in "OESLU" or name != label)
        ends = before != "O" and (before in "ESLU" or prefix in "OBSU" or name != label)
        if ends and start >= 0:
            spans.append(Span(start, i, label))
            start = -1
        if begins:
            start = i
        before, label = (prefix, name) if prefix != "O" else ("O", "")
    return spans


def tags_of(spans: Iterable[Span], num_words: int) -> list[str]:
    """BIOES tags of spans."""
    tags = ["O"] * num_words
    for start, stop, label in spans:
        if stop - start == 1:
            tags[start] = f"S-{label}"
            continue
        tags[start:stop] = [f"B-{label}", *[f"I-{label}"] * (stop - start - 2), f"E-{label}"]
    return tags


def allowed(labels: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Which BIOES tags may follow each other (K, K; from, to), begin a sentence (K) and end it (K)."""

    def opens(tag: str) -> bool:
        return tag[0] in "OBS" and (tag == "O" or tag[1] == "-")

    def closes(tag: str) -> bool:
        return tag[0] in "OES" and (tag == "O" or tag[1] == "-")

    pairs = np.array(
        [[opens(b) if closes(a) else b[:2] in ("I-", "E-") and a[2:] == b[2:] for b in labels] for a in labels]
    )
    return pairs, np.array([opens(t) for t in labels]), np.array([closes(t) for t in labels])


_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)?|[^\w\s]|_")


def cut_words(text: str, edges: Sequence[int] = (), *, characters: bool = False) -> list[tuple[int, int]]:
    """Start and end of each word: letters and digits together, each other sign alone.

    Args:
        text: of any length.
        edges: places where a word has to end.
        characters: each character is a word, as in Chinese.
    """
    offsets = []
    for m in _WORD.finditer(text) if not characters else re.finditer(r"\S", text):
        cuts = [m.start(), *(e for e in edges if m.start() < e < m.end()), m.end()]
        offsets += list(itertools.pairwise(cuts))
    return offsets


def shape(word: str) -> int:
    """How a word is written, 0 to 7: other, lower, UPPER, Capital, miXed, digits, with digits, signs."""
    if word.isdigit():
        return 5
    if any(c.isdigit() for c in word):
        return 6
    if not any(c.isalnum() for c in word):
        return 7
    if word.islower():
        return 1
    if word.isupper():
        return 2 if len(word) > 1 else 3
    if word[:1].isupper() and word[1:].islower():
        return 3
    return 4 if any(c.isupper() for c in word) else 0


class Encoder(BaseModel):
    """A language model of characters that reads the sentence before the tagger does.

    Attributes:
        size, hidden, layers, cell, mogrifier: of the network.
        num_tokens: of its vocabulary.
        numbers: in its vocabulary, of each of the processor's characters.
        space, start: what stands between words (None: nothing) and before the sentence, in its vocabulary.
    """

    model_config = ConfigDict(frozen=True)

    size: int
    hidden: int
    layers: int
    cell: str
    mogrifier: int
    num_tokens: int
    numbers: tuple[int, ...]
    space: int | None
    start: int


class TagProcessor(BaseModel):
    """Vocabularies of words, characters and tags, and the CRF's transitions.

    Attributes:
        kind: "spans" (tags are BIOES) or "labels".
        words: by number; 0 is any other.
        characters: by number; 0 is none or any other.
        labels: the K tags.
        units: what a word is where a text comes unsplit: "words" or "characters".
        temperature: scores are divided by it; fitted on validation.
        transitions: (K + 2, K) from tag to tag; row K: from the beginning; row K + 1: to the end. Empty without a CRF.
        encoder: the language model that reads along, if there is one.
        encoding: of text files.
        outside: subtracted from the score of "O" where tags are chosen; fitted on validation for the best F1. Rare
            spans are seldom the most probable, and leaving all of those out is not what F1 asks for.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["spans", "labels"]
    words: tuple[str, ...]
    characters: str
    labels: tuple[str, ...]
    units: Literal["words", "characters"] = "words"
    temperature: float = 1.0
    transitions: tuple[tuple[float, ...], ...] = ()
    encoder: Encoder | None = None
    outside: float = 0.0
    encoding: str = "utf-8"

    @functools.cached_property
    def _words(self) -> dict[str, int]:
        return {w: i for i, w in enumerate(self.words) if i}

    @functools.cached_property
    def _characters(self) -> dict[str, int]:
        return {c: i for i, c in enumerate(self.characters) if i}

    @property
    def chain(self) -> Chain:
        """The chain that decodes."""  # no cached property: a copy with another temperature would take it along
        return _chain(self.transitions, len(self.labels), self.temperature)

    @property
    def lean(self) -> Floats:
        """(K,) added to the scores where tags are chosen."""
        return np.array([-self.outside if label == "O" else 0.0 for label in self.labels])

    def word(self, word: str) -> int:
        """The number of a word: its own, that of its lower case, or 0."""
        number = self._words.get(word)
        return self._words.get(word.lower(), UNKNOWN) if number is None else number

    def spelling(self, word: str) -> NDArray[np.int64]:
        """(LONGEST_WORD,) numbers of its characters."""
        if len(word) > LONGEST_WORD:
            word = word[: LONGEST_WORD // 2] + word[-LONGEST_WORD // 2 :]
        out = np.zeros(LONGEST_WORD, np.int64)
        out[: len(word)] = [self._characters.get(c, 0) for c in word]
        return out

    def encode_words(self, words: Sequence[str]) -> dict[str, NDArray[Any]]:
        """``{"words": (T,), "characters": (T, LONGEST_WORD), "shapes": (T,)}`` int64; see also ``reading``."""
        encoded = {
            "words": np.array([self.word(w) for w in words], np.int64),
            "characters": np.stack([self.spelling(w) for w in words]),
            "shapes": np.array([shape(w) for w in words], np.int64),
        }
        return encoded | self.reading(encoded["characters"])

    def reading(self, characters: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """Input of the language model that reads along: ``{"reading": (S,), "ends": (T,)}``, each word's last place.

        Args:
            characters: (T, LONGEST_WORD), 0 behind a word.
        """
        if self.encoder is None:
            return {}
        numbers, between = np.array(self.encoder.numbers), [] if self.encoder.space is None else [self.encoder.space]
        read, ends = [self.encoder.start], []
        for word in characters:
            read += numbers[word[word > 0]].tolist()
            ends.append(len(read) - 1)
            read += between
        return {"reading": np.array(read, np.int64), "ends": np.array(ends, np.int64)}

    def cut(self, raw: Any) -> tuple[str, list[tuple[int, int]]]:
        """The text and its words' places, from a text or from words.

        Raises:
            UserError: it is empty, or neither.
        """
        if isinstance(raw, str):
            text, offsets = raw, cut_words(raw, characters=self.units == "characters")
        elif isinstance(raw, list | tuple) and all(isinstance(w, str) and w for w in raw):
            text, offsets, at = " ".join(raw), [], 0
            for word in raw:
                offsets.append((at, at + len(word)))
                at += len(word) + 1
        else:
            raise UserError(f"a sentence was expected (a text, or a list of words), not {type(raw).__name__}")
        if not offsets:
            raise UserError("the sentence is empty; give one with at least a word")
        return text, offsets

    def encode(self, raw: Any) -> dict[str, NDArray[Any]]:
        """Encode a sentence, a text or a list of words, as ``encode_words`` does."""
        text, offsets = self.cut(raw)
        return self.encode_words([text[s:e] for s, e in offsets])

    def answer(self, raw: Any, emissions: NDArray[Any], n_best: int = 1) -> Spans:
        """The prediction for one sentence.

        Args:
            raw: as given to ``encode``.
            emissions: (T, K) of the network.
            n_best: so many readings of the whole sentence, the most probable first.
        """
        text, offsets = self.cut(raw)
        scores = np.asarray(emissions, np.float64) / self.temperature
        chain = self.chain
        lattice = chain.read(scores)
        readings = chain.best(scores, n_best, self.lean, lattice.total)
        first = readings[0][1]
        marginals = lattice.marginals()
        tags = tuple(self.labels[i] for i in first)
        spans = []
        if self.kind == "spans":
            for start, stop, label in spans_of(tags):
                p = lattice.probability(start, first[start:stop])
                place = offsets[start][0], offsets[stop - 1][1]
                spans.append((*place, label, text[place[0] : place[1]], p))
        return Spans(
            text=text,
            words=tuple(text[s:e] for s, e in offsets),
            offsets=tuple(offsets),
            tags=tags,
            confidences=tuple(float(marginals[t, k]) for t, k in enumerate(first)),
            spans=tuple(spans),
            readings=tuple((float(p), tuple(self.labels[i] for i in path)) for p, path in readings),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TagProcessor:
        """Undo ``to_json``."""
        return cls.model_validate(values)


@functools.lru_cache(maxsize=8)
def _chain(transitions: tuple[tuple[float, ...], ...], num_labels: int, temperature: float) -> Chain:
    scores = np.array(transitions or np.zeros((num_labels + 2, num_labels)), np.float64)
    return Chain(scores / temperature)


class Chain:
    """A linear-chain CRF with given transitions; all in log space.

    Args:
        transitions: (K + 2, K): from tag to tag, from the beginning, to the end.
    """

    def __init__(self, transitions: Floats) -> None:
        self.between, self.begin, self.end = transitions[:-2], transitions[-2], transitions[-1]

    def best(
        self, emissions: Floats, n: int = 1, lean: Floats | float = 0.0, total: float | None = None
    ) -> list[tuple[float, list[int]]]:
        """The n best sequences of tags, with their probabilities.

        Args:
            emissions: (T, K).
            n: how many; fewer come back where fewer exist.
            lean: (K) added to the emissions where sequences are chosen, not where they get their probabilities.
            total: what ``total`` gives for the emissions, where it is known already.
        """
        total, out = self.total(emissions) if total is None else total, []
        for score, path in self.paths(emissions + lean, n):
            own = score - float(np.broadcast_to(lean, emissions.shape[1:])[path].sum())
            out.append((math.exp(min(0.0, own - total)), path))
        return out

    def paths(self, emissions: Floats, n: int = 1) -> list[tuple[float, list[int]]]:
        """The n best sequences of tags (N-best Viterbi), with their scores; see ``best``."""
        steps, k = emissions.shape
        scores = (self.begin + emissions[0])[:, None]  # (K, up to n) best scores that end in each tag
        back: list[NDArray[np.int64]] = []
        for t in range(1, steps):
            width = scores.shape[1]
            joined = (scores[:, :, None] + self.between[:, None, :]).reshape(k * width, k)  # from (tag, rank)
            keep = min(n, k * width)
            order = joined.argmax(0)[None] if keep == 1 else np.argsort(-joined, axis=0, kind="stable")[:keep]
            scores = (np.take_along_axis(joined, order, 0) + emissions[t]).T
            back.append(order.T)  # (K, keep): the place in ``joined``, i.e. tag * width + rank
        final = (scores + self.end[:, None]).ravel()
        out = []
        for place in np.argsort(-final, kind="stable")[:n]:
            if final[place] < FORBIDDEN / 2:
                continue
            tag, rank = divmod(int(place), scores.shape[1])
            path = [tag]
            for t in range(len(back) - 1, -1, -1):
                width = 1 if t == 0 else back[t - 1].shape[1]
                tag, rank = divmod(int(back[t][tag, rank]), width)
                path.append(tag)
            out.append((float(final[place]), path[::-1]))
        return out or [(-math.inf, [int(e) for e in emissions.argmax(1)])]

    def forward(self, emissions: Floats) -> Floats:
        """(T, K) log of the summed weights of all beginnings that end in each tag."""
        out = np.empty_like(emissions)
        out[0] = self.begin + emissions[0]
        for t in range(1, len(emissions)):
            out[t] = _log_sum_exp(out[t - 1][:, None] + self.between) + emissions[t]
        return out

    def backward(self, emissions: Floats) -> Floats:
        """(T, K) log of the summed weights of all endings after each tag."""
        out = np.empty_like(emissions)
        out[-1] = self.end
        for t in range(len(emissions) - 2, -1, -1):
            out[t] = _log_sum_exp((self.between + emissions[t + 1] + out[t + 1]).T)
        return out

    def total(self, emissions: Floats) -> float:
        """Log of the summed weight of all sequences."""
        return float(_log_sum_exp((self.forward(emissions)[-1] + self.end)[:, None])[0])

    def read(self, emissions: Floats) -> Lattice:
        """All sequences of a sentence together, to ask for probabilities."""
        return Lattice(self, emissions)


class Lattice:
    """All sequences of tags of one sentence; reading it takes time once, asking is quick.

    Args:
        chain: the transitions.
        emissions: (T, K).
    """

    def __init__(self, chain: Chain, emissions: Floats) -> None:
        self.chain, self.emissions = chain, emissions
        self.ahead, self.behind = chain.forward(emissions), chain.backward(emissions)
        self.total = float(_log_sum_exp((self.ahead[-1] + chain.end)[:, None])[0])

    def marginals(self) -> Floats:
        """(T, K) probability of each tag at each place, given the sentence."""
        log_weights = self.ahead + self.behind
        p: Floats = np.exp(log_weights - log_weights.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        return p

    def probability(self, start: int, tags: Sequence[int]) -> float:
        """How probable exactly these tags are from ``start`` on; with BIOES, that exactly this span is one."""
        score = self.ahead[start, tags[0]]
        for t, (a, b) in enumerate(itertools.pairwise(tags), start + 1):
            score += self.chain.between[a, b] + self.emissions[t, b]
        score += self.behind[start + len(tags) - 1, tags[-1]]
        return float(math.exp(min(0.0, score - self.total)))


def _log_sum_exp(values: Floats) -> Floats:
    """Logarithm of the sum of exponentials over the first axis."""
    top = values.max(0)
    return np.asarray(top + np.log(np.exp(values - top).sum(0)), np.float64)
