"""Prefix beam search (Hannun et al., 2014): the most probable units, not the most probable path.

Many paths spell the same units, and their probabilities are summed. A language model, favoured words and a list of
sentences have their say while the search runs, so that what they want is not lost to the beam.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dolmen.processors.ctc_grammar import BLANK, SPACE, Floats, Grammar, Ints, spell

QUIET = math.log(0.9999)
"""Log-probability of the blank above which nothing new is tried in a frame."""


@dataclass(frozen=True)
class Hypothesis:
    """What may have been said.

    Attributes:
        units: without blanks.
        score: the total by which it ranks: acoustic, language model and bonuses.
        acoustic: log-probability of the units by CTC alone, over the alignments that the beam has seen.
    """

    units: tuple[int, ...]
    score: float
    acoustic: float


class Scorer(Protocol):
    """A language model over words. Logarithms are natural, of probabilities, so never above 0."""

    def start(self) -> Any:
        """The state at the beginning of a sentence."""

    def step(self, state: Any, word: str) -> tuple[Any, float]:
        """The state after a word, and the log of its probability."""

    def end(self, state: Any) -> float:
        """The log-probability that the sentence ends here."""


def nbest_probabilities(hypotheses: Sequence[Hypothesis]) -> list[float]:
    """How sure each is among these: the softmax of the scores."""
    if not hypotheses:
        return []
    scores = np.array([h.score for h in hypotheses])
    shares = np.exp(scores - scores.max())
    return [float(share) for share in shares / shares.sum()]


class PrefixBeam:
    """Takes frames as they come; what it finds does not depend on how they were cut.

    Args:
        pieces: (V,) the text of each unit, "" for the blank, unit 0.
        width: number of prefixes that are kept.
        scorer: a language model over words, asked once a word is complete; at once where every unit is a word.
        weight: factor of the language model's logarithms, 0 or more.
        bonus: nats added for each word.
        hot_words: word, or words with spaces between -> nats for saying them. A part of it is lent from the first
            letter on, and taken back where the prefix goes on otherwise. Below 0, it is taken at the last letter.
        grammar: only its sentences can be found. It must have the same pieces.
        most_units: only so many units, the most probable of a frame, are tried (of those in the grammar, if there is
            one).

    Raises:
        UserError: a hot word can't be spelled with the pieces.
        ValueError: a number is out of its range, or the grammar has other pieces.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        *,
        width: int = 16,
        scorer: Scorer | None = None,
        weight: float = 0.5,
        bonus: float = 0.0,
        hot_words: Mapping[str, float] = {},
        grammar: Grammar | None = None,
        most_units: int = 20,
    ) -> None:
        if width < 1 or most_units < 1 or not weight >= 0:
            raise ValueError("width and most_units must be 1 or more, and weight 0 or more")
        if grammar and grammar.pieces != tuple(pieces):
            raise ValueError("the grammar was made for other pieces")
        for words in hot_words:
            spell(words, pieces)
        self.width, self.most_units = width, most_units
        self._language = _Language(pieces, scorer, weight, bonus, _HotWords(hot_words), grammar)
        self._plain = not (scorer or bonus or hot_words or grammar)
        self._alphabet: Ints = grammar.alphabet if grammar else np.arange(1, len(pieces))
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        root = _Prefix(None, BLANK, self._language.start())
        self._set([root], np.zeros(1), np.full(1, -np.inf))

    def _set(self, prefixes: list[_Prefix], blank: Floats, unit: Floats) -> None:
        """The beam: prefixes; log-probabilities of all paths to each that end with a blank, or with its last unit."""
        self._prefixes, self._blank, self._unit = prefixes, blank, unit
        rows = {id(prefix): row for row, prefix in enumerate(prefixes)}
        self._last: Ints = np.array([prefix.unit for prefix in prefixes], np.int64)
        self._parents: Ints = np.array([rows.get(id(prefix.parent), -1) for prefix in prefixes], np.int64)
        self._said = np.array([prefix.said.score for prefix in prefixes])

    def feed(self, logp: NDArray[np.floating]) -> None:
        """Take in the next frames.

        Args:
            logp: (T, V) log-probabilities; T may be 0.

        Raises:
            ValueError: they have another shape, or are not numbers; nothing has changed.
        """
        num_units = len(self._language.parts)
        if logp.ndim != 2 or logp.shape[1] != num_units or np.isnan(logp).any():
            raise ValueError(f"logp must be (T, {num_units}) numbers, not {logp.shape}")
        for frame in logp.astype(np.float64):
            self._advance(frame)

    def _advance(self, frame: Floats) -> None:
        total = np.logaddexp(self._blank, self._unit)
        blank, unit = total + frame[BLANK], self._unit + frame[self._last]
        if frame[BLANK] > QUIET:
            self._blank, self._unit = blank, unit
            return
        units = self._most_probable(frame)
        repeated = self._last[:, None] == units
        longer = np.where(repeated, self._blank[:, None], total[:, None]) + frame[units]
        self._merge(total, unit, longer, frame, units)

        stay = np.logaddexp(blank, unit) + self._said
        scores = np.concatenate([stay, self._scores(longer, units, stay).ravel()])
        kept = np.argsort(-scores, kind="stable")[: self.width]
        kept = kept[scores[kept] > -np.inf]
        if not len(kept):  # no unit is possible at all: the beam can't get better by being empty
            raise ValueError("a frame has no probability for anything that could come next")
        blank = np.concatenate([blank, np.full(longer.size, -np.inf)])[kept]
        unit = np.concatenate([unit, longer.ravel()])[kept]
        self._set(self._chosen(kept, units), blank, unit)

    def _most_probable(self, frame: Floats) -> Ints:
        units = self._alphabet
        if len(units) > self.most_units:
            units = units[np.argpartition(-frame[units], self.most_units - 1)[: self.most_units]]
        return units

    def _merge(self, total: Floats, unit: Floats, longer: Floats, frame: Floats, units: Ints) -> None:
        """A prefix in the beam that is one unit longer than another one of the beam is reached from there as well."""
        rows = np.flatnonzero(self._parents >= 0)
        parents, last = self._parents[rows], self._last[rows]
        reached = np.where(self._last[parents] == last, self._blank[parents], total[parents]) + frame[last]
        unit[rows] = np.logaddexp(unit[rows], reached)
        columns = np.full(len(frame), -1)
        columns[units] = np.arange(len(units))
        tried = columns[last] >= 0
        longer[parents[tried], columns[last[tried]]] = -np.inf

    def _scores(self, longer: Floats, units: Ints, stay: Floats) -> Floats:
        """(W, K) total scores of prefixes made longer; -inf for what can't be among the best, or must not be said."""
        base: Floats = longer + self._said[:, None]
        if self._plain:
            return base
        # Whatever its words bring, a prefix below this falls behind all that are there already.
        limit = stay.min() - self._language.most_gain if len(stay) == self.width else -np.inf
        scores = np.full(longer.shape, -np.inf)
        for row, column in np.argwhere(base > limit).tolist():
            said = self._extended(self._prefixes[row], int(units[column]))
            if said:
                scores[row, column] = longer[row, column] + said.score
        return scores

    def _extended(self, prefix: _Prefix, unit: int) -> _Said | None:
        if unit not in prefix.next:
            prefix.next[unit] = self._language.extend(prefix.said, unit)
        return prefix.next[unit]

    def _chosen(self, kept: Ints, units: Ints) -> list[_Prefix]:
        """The prefixes of the next beam."""
        old, chosen = self._prefixes, []
        for place in kept.tolist():
            if place < len(old):
                chosen.append(old[place])
                continue
            row, column = divmod(place - len(old), len(units))
            chosen.append(self._child(old[row], int(units[column])))
        alive = set(map(id, chosen))
        for prefix in old:
            if id(prefix) not in alive:
                prefix.next.clear()
        return chosen

    def _child(self, prefix: _Prefix, unit: int) -> _Prefix:
        """One object for one prefix as long as anything holds it, or the beam would count it twice."""
        link = prefix.children.get(unit)
        child = link() if link else None
        if child is None:
            said = prefix.said if self._plain else self._extended(prefix, unit)
            if said is None:
                raise ValueError("the grammar does not allow this prefix")
            child = _Prefix(prefix, unit, said)
            prefix.children[unit] = weakref.ref(child)
        return child

    def best(self, n: int = 1, *, final: bool = False) -> list[Hypothesis]:
        """The best that were found so far. It changes nothing.

        Args:
            n: how many; there may be less.
            final: the sound is over: the last word and the end of the sentence are scored too, what was lent for hot
                words that stayed incomplete is taken back, and only complete sentences of a grammar count (none may be
                left, then).

        Returns:
            The best first.
        """
        acoustic = np.logaddexp(self._blank, self._unit)
        said = np.array([self._language.finished(p.said) for p in self._prefixes]) if final else self._said
        scores = acoustic + said
        rows = [int(row) for row in np.argsort(-scores, kind="stable")[:n] if scores[row] > -np.inf]
        return [Hypothesis(self._prefixes[r].units(), float(scores[r]), float(acoustic[r])) for r in rows]

    def save(self) -> dict[str, Any]:
        """All that ``restore`` needs to go on exactly here, as plain values. What all prefixes share is there once."""
        units = [prefix.units() for prefix in self._prefixes]
        low, high = min(units), max(units)
        n = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
        logs = ([None if math.isinf(x) else x for x in column.tolist()] for column in (self._blank, self._unit))
        blank, unit = logs
        return {"shared": list(low[:n]), "rest": [list(u[n:]) for u in units], "blank": blank, "unit": unit}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on where ``save`` was called, with the same arguments and scorer.

        Raises:
            ValueError, KeyError, TypeError: it is not what ``save`` gave here; nothing has changed.
        """
        blank, unit = (np.array([-np.inf if x is None else float(x) for x in saved[k]]) for k in ("blank", "unit"))
        if not 0 < len(saved["rest"]) == len(blank) == len(unit) <= self.width:
            raise ValueError("its prefixes are damaged, or were made with another width")
        shared = self._walk(_Prefix(None, BLANK, self._language.start()), saved["shared"])
        self._set([self._walk(shared, rest) for rest in saved["rest"]], blank, unit)

    def _walk(self, prefix: _Prefix, units: Sequence[int]) -> _Prefix:
        for unit in units:
            if not 0 < unit < len(self._language.parts):
                raise ValueError(f"there is no unit {unit}")
            prefix = self._child(prefix, int(unit))
        return prefix


class _Prefix:
    """Units from the beginning: those of the parent, and one more."""

    __slots__ = ("__weakref__", "children", "next", "parent", "said", "unit")

    def __init__(self, parent: _Prefix | None, unit: int, said: _Said) -> None:
        self.parent, self.unit, self.said = parent, unit, said
        self.children: dict[int, weakref.ref[_Prefix]] = {}
        self.next: dict[int, _Said | None] = {}

    def units(self) -> tuple[int, ...]:
        found, prefix = [], self
        while prefix.parent:
            found.append(prefix.unit)
            prefix = prefix.parent
        return tuple(reversed(found))


@dataclass(slots=True)
class _Said:
    """The words of a prefix, as far as they matter for what may follow.

    Attributes:
        word: the last one, as far as it is there; "" after a space.
        counted: the scorer has judged it.
        state: of the scorer, before the word, or behind it if it is counted.
        kept: nats that can't be lost any more.
        score: with those lent for hot words.
        hot: place among the hot words.
        place: in the grammar.
        after: state and nats behind the word, once they were asked for.
    """

    word: str
    counted: bool
    state: Any
    kept: float
    score: float
    hot: int
    place: int
    after: tuple[Any, float] | None = None


class _Language:
    """All that is known about words."""

    def __init__(
        self,
        pieces: Sequence[str],
        scorer: Scorer | None,
        weight: float,
        bonus: float,
        hot: _HotWords,
        grammar: Grammar | None,
    ) -> None:
        self.parts = [piece.split(SPACE) for piece in pieces]
        self.scorer, self.weight, self.bonus, self.hot, self.grammar = scorer, weight, bonus, hot, grammar
        self.whole_words = all(piece.startswith(SPACE) for piece in pieces[1:])
        most_words = max(map(len, self.parts))
        self.most_gain = most_words * (max(bonus, 0.0) + max(hot.ended)) + max(hot.lent) - min(hot.lent)

    def start(self) -> _Said:
        """Nothing was said; a word may begin."""
        hot = self.hot.begin
        state = self.scorer.start() if self.scorer else None
        return _Said("", False, state, 0.0, self.hot.lent[hot], hot, 0)

    def extend(self, said: _Said, unit: int) -> _Said | None:
        """What is said with one more unit; None where the grammar does not allow it."""
        place = self.grammar.moves[said.place].get(unit) if self.grammar else 0
        if place is None:
            return None
        word, counted, state, kept, hot = said.word, said.counted, said.state, said.kept, said.hot
        for number, part in enumerate(self.parts[unit]):
            if number and word:
                if not counted:
                    state, nats = (
                        self._after(said) if number == 1 and not self.parts[unit][0] else self._count(state, word)
                    )
                    kept += nats
                kept += self.hot.ended[hot]
                word, counted, hot = "", False, self.hot.begin_after(hot)
            word, hot = word + part, self.hot.read(hot, part)
        if self.whole_words and word:
            (state, nats), counted = self._count(state, word), True
            kept += nats
        return _Said(word, counted, state, kept, kept + self.hot.lent[hot], hot, place)

    def _count(self, state: Any, word: str) -> tuple[Any, float]:
        if not self.scorer:
            return None, self.bonus
        state, log = self.scorer.step(state, word)
        return state, self.weight * log + self.bonus

    def _after(self, said: _Said) -> tuple[Any, float]:
        """State and nats behind the last word: asked for by every unit that begins another."""
        if said.after is None:
            said.after = self._count(said.state, said.word)
        return said.after

    def finished(self, said: _Said) -> float:
        """Score of the whole sentence, should it end here."""
        if self.grammar and said.place not in self.grammar.ends:
            return -math.inf
        state, nats = self._after(said) if said.word and not said.counted else (said.state, 0.0)
        end = self.weight * self.scorer.end(state) if self.scorer else 0.0
        return said.kept + nats + self.hot.ended[said.hot] + end


class _HotWords:
    """Hot words as an automaton over letters (Aho & Corasick, 1975): where in which of them does a text stand?

    Attributes:
        ended: of each place, nats of the hot words that end here, if the word does.
        lent: of each place, nats while nobody knows how it goes on.
        begin: the place at the beginning of a word.
    """

    def __init__(self, hot_words: Mapping[str, float]) -> None:
        self._next: list[dict[str, int]] = [{}, {}]
        self._next[0][SPACE] = self.begin = 1
        self.ended, self.lent, self._back = [0.0, 0.0], [0.0, 0.0], [0, 0]
        for words, nats in hot_words.items():
            self._add(SPACE.join(words.replace(SPACE, " ").split()), nats)
        queue = [1]
        for place in queue:  # the nearest to the beginning first: what is behind a shorter text is known then
            for letter, to in self._next[place].items():
                back = self._back[to] = self._step(self._back[place], letter)
                self.ended[to] += self.ended[back]
                self.lent[to] = max(self.lent[to], self.lent[back])
                queue.append(to)
        self.lent = [max(e, p) if p > 0 else e for e, p in zip(self.ended, self.lent, strict=True)]

    def _add(self, text: str, nats: float) -> None:
        place = self.begin
        for number, letter in enumerate(text, 1):
            if letter not in self._next[place]:
                self._next[place][letter] = len(self._next)
                self._next.append({})
                for column in (self.ended, self.lent):
                    column.append(0.0)
                self._back.append(0)
            place = self._next[place][letter]
            self.lent[place] = max(self.lent[place], nats * number / len(text))
        self.ended[place] += nats

    def _step(self, place: int, letter: str) -> int:
        while place and letter not in self._next[place]:
            place = self._back[place]
        return self._next[place].get(letter, 0)

    def read(self, place: int, letters: str) -> int:
        """Where a text stands after these letters, which have no space."""
        for letter in letters:
            place = self._step(place, letter)
        return place

    def begin_after(self, place: int) -> int:
        """Where it stands when another word begins."""
        return self._step(place, SPACE)
