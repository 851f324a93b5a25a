"""Prefix beam search (Hannun et al., 2014): the most probable units, not the most probable path.

Many paths spell the same units, and their probabilities are summed. A language model and favoured words count while
the search runs, so that what they prefer is not lost to the beam.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dolmen.tasks.speech_recognition.processors.grammar import BLANK, SPACE, Floats, Ints, spell

QUIET_LOG = math.log(0.9999)
"""Log-probability of the blank above which nothing new is tried in a frame."""
BEAM_NATS = 20.0
"""Nats by which a prefix may fall behind the best before it is dropped."""


@dataclass(frozen=True)
class Hypothesis:
    """A candidate for the units of a recording.

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


class PrefixBeam:
    """A search that takes frames as they come; its result does not depend on how they were cut.

    Args:
        pieces: (V,) the text of each unit, "" for the blank, unit 0.
        width: number of prefixes that are kept.
        scorer: a language model over words, asked once a word is complete; at once where every unit is a word.
        weight: factor of the language model's logarithms, 0 or more.
        bonus: nats added for each word.
        hot_words: word, or words with spaces between -> nats for saying them. A part of it is lent from the first
            letter on, and taken back where the prefix goes on otherwise. Below 0, it is taken at the last letter.
        most_units: only so many units, the most probable of a frame, are tried.

    Raises:
        UserError: a hot word can't be spelled with the pieces.
        ValueError: a number is out of its range.
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
        most_units: int = 20,
    ) -> None:
        if width < 1 or most_units < 1 or not weight >= 0:
            raise ValueError("width and most_units must be 1 or more, and weight 0 or more")
        for words in hot_words:
            spell(words, pieces)
        self.width, self.most_units = width, most_units
        self._language = _Language(pieces, scorer, weight, bonus, _HotWords(hot_words))
        self._plain = scorer is None and not bonus and not hot_words
        self._alphabet: Ints = np.arange(1, len(pieces))
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
        self._language_scores = np.array([prefix.language.score for prefix in prefixes])
        self._settled = np.array([prefix.language.settled for prefix in prefixes])

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
        if frame[BLANK] > QUIET_LOG:
            self._blank, self._unit = blank, unit
            return
        units = self._most_probable(frame)
        repeated = self._last[:, None] == units
        longer = np.where(repeated, self._blank[:, None], total[:, None]) + frame[units]
        self._merge(total, unit, longer, frame, units)

        stay = np.logaddexp(blank, unit) + self._language_scores
        scores = np.concatenate([stay, self._scores(longer, units, stay).ravel()])
        kept = np.argsort(-scores, kind="stable")[: self.width]
        kept = kept[(scores[kept] > -np.inf) & (scores[kept] >= scores[kept[0]] - BEAM_NATS)]
        if not len(kept):  # the beam can't get better by being empty
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
        """(W, K) total scores of prefixes made longer; -inf for what can't be among the best."""
        base: Floats = longer + self._language_scores[:, None]
        if self._plain:
            return base
        language = self._language
        nats = np.array([language.without_scorer(prefix.language)[units] for prefix in self._prefixes])
        scores: Floats = longer + (self._settled[:, None] + nats)
        if language.scorer is None:
            return scores
        # The scorer only takes away: what is below this without it falls behind the whole present beam.
        limit = max(stay.min() if len(stay) == self.width else -np.inf, stay.max() - BEAM_NATS)
        begins = language.begins[units]
        asked = np.argwhere((scores > limit) & begins).tolist()
        scores[:, begins] = -np.inf
        for row, column in asked:
            scores[row, column] = longer[row, column] + self._extended(self._prefixes[row], int(units[column])).score
        return scores

    def _extended(self, prefix: _Prefix, unit: int) -> _LanguageState:
        if unit not in prefix.next:
            prefix.next[unit] = self._language.extend(prefix.language, unit)
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
            state = prefix.language if self._plain else self._extended(prefix, unit)
            child = _Prefix(prefix, unit, state)
            prefix.children[unit] = weakref.ref(child)
        return child

    def best(self, n: int = 1, *, final: bool = False) -> list[Hypothesis]:
        """The best hypotheses of the frames so far; the beam stays as it is.

        Args:
            n: how many; there may be fewer.
            final: the sound is over: the last word and the end of the sentence are scored too, and what was lent for
                hot words that stayed incomplete is taken back.

        Returns:
            The best first.
        """
        acoustic = np.logaddexp(self._blank, self._unit)
        language_scores = (
            np.array([self._language.finished(p.language) for p in self._prefixes]) if final else self._language_scores
        )
        scores = acoustic + language_scores
        rows = [int(row) for row in np.argsort(-scores, kind="stable")[:n] if scores[row] > -np.inf]
        return [Hypothesis(self._prefixes[r].units(), float(scores[r]), float(acoustic[r])) for r in rows]


class _Prefix:
    """Units from the beginning: those of the parent, and one more."""

    __slots__ = ("__weakref__", "children", "language", "next", "parent", "unit")

    def __init__(self, parent: _Prefix | None, unit: int, language: _LanguageState) -> None:
        self.parent, self.unit, self.language = parent, unit, language
        self.children: dict[int, weakref.ref[_Prefix]] = {}
        self.next: dict[int, _LanguageState] = {}

    def units(self) -> tuple[int, ...]:
        """All units, from the beginning."""
        units, prefix = [], self
        while prefix.parent:
            units.append(prefix.unit)
            prefix = prefix.parent
        return tuple(reversed(units))


@dataclass(slots=True)
class _LanguageState:
    """The words of a prefix, as far as they matter for what may follow.

    Attributes:
        word: the last one, as far as it is spelled; "" after a space.
        counted: whether the scorer has judged it.
        scorer_state: before the word, or behind it if it is counted.
        settled: nats that can't be lost any more.
        score: ``settled`` with the nats lent for hot words.
        hot: place among the hot words.
        after: scorer's state and nats behind the word, once they were asked for.
    """

    word: str
    counted: bool
    scorer_state: Any
    settled: float
    score: float
    hot: int
    after: tuple[Any, float] | None = None


class _Language:
    """The scores of words: language model, bonuses and hot words."""

    def __init__(
        self, pieces: Sequence[str], scorer: Scorer | None, weight: float, bonus: float, hot: _HotWords
    ) -> None:
        self.pieces = pieces
        self.parts = [piece.split(SPACE) for piece in pieces]
        self.scorer, self.weight, self.bonus, self.hot = scorer, weight, bonus, hot
        self.begins = np.array([len(parts) > 1 for parts in self.parts])
        self.whole_words = all(piece.startswith(SPACE) for piece in pieces[1:])
        self._nats: dict[tuple[int, bool], Floats] = {}

    def start(self) -> _LanguageState:
        """The state before any unit; a word may begin."""
        hot = self.hot.begin
        state = None if self.scorer is None else self.scorer.start()
        return _LanguageState("", False, state, 0.0, self.hot.lent[hot], hot)

    def extend(self, state: _LanguageState, unit: int) -> _LanguageState:
        """The state after one more unit."""
        word, counted, scorer_state = state.word, state.counted, state.scorer_state
        settled, hot = state.settled, state.hot
        for number, part in enumerate(self.parts[unit]):
            if number and word:
                if not counted:
                    is_last_word = number == 1 and not self.parts[unit][0]
                    scorer_state, nats = self._after(state) if is_last_word else self._count(scorer_state, word)
                    settled += nats
                settled += self.hot.ended[hot]
                word, counted, hot = "", False, self.hot.begin_after(hot)
            word, hot = word + part, self.hot.read(hot, part)
        if self.whole_words and word:
            (scorer_state, nats), counted = self._count(scorer_state, word), True
            settled += nats
        return _LanguageState(word, counted, scorer_state, settled, settled + self.hot.lent[hot], hot)

    def without_scorer(self, state: _LanguageState) -> Floats:
        """(V,) nats of hot words and bonuses on top of those that are settled, after each unit."""
        key = state.hot, bool(state.word)
        if key not in self._nats:
            silent = _Language(self.pieces, None, self.weight, self.bonus, self.hot)
            start = _LanguageState("x" if state.word else "", self.whole_words, None, 0.0, 0.0, state.hot)
            self._nats[key] = np.array([silent.extend(start, unit).score for unit in range(len(self.parts))])
        return self._nats[key]

    def _count(self, state: Any, word: str) -> tuple[Any, float]:
        if self.scorer is None:
            return None, self.bonus
        state, log = self.scorer.step(state, word)
        return state, self.weight * log + self.bonus

    def _after(self, state: _LanguageState) -> tuple[Any, float]:
        """State and nats behind the last word: asked for by every unit that begins another."""
        if state.after is None:
            state.after = self._count(state.scorer_state, state.word)
        return state.after

    def finished(self, state: _LanguageState) -> float:
        """Score of the whole sentence if it ends here."""
        pending = state.word and not state.counted
        scorer_state, nats = self._after(state) if pending else (state.scorer_state, 0.0)
        end = 0.0 if self.scorer is None else self.weight * self.scorer.end(scorer_state)
        return state.settled + nats + self.hot.ended[state.hot] + end


class _HotWords:
    """Hot words as an automaton over letters (Aho & Corasick, 1975); a place is a position in one or more of them.

    Attributes:
        ended: for each place, nats of the hot words that end there, if the word does.
        lent: for each place, nats while it is open how the text goes on.
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
        """The place after these letters, which have no space."""
        for letter in letters:
            place = self._step(place, letter)
        return place

    def begin_after(self, place: int) -> int:
        """The place when another word begins."""
        return self._step(place, SPACE)
