"""Closed lists of sentences, such as commands, and how likely each of them is by a CTC network.

The sentences become an automaton over the network's units in which common beginnings stand once; the CTC forward
algorithm runs over all of it together, so that no sentence is lost to a beam.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from dolmen.types import UserError

BLANK = 0
SPACE = "\u2581"
"""Begins a word, as in SentencePiece."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Alpha = tuple[Floats, float]
"""Probabilities of the states as shares of the greatest, and that one's logarithm."""


class Grammar:
    """A closed list of sentences, in every spelling that the units allow.

    Args:
        sentences: words with spaces between; a repeated one counts once.
        pieces: the text of each unit, "" for the blank; ``SPACE`` begins a word, and may be missing before the first.

    Attributes:
        sentences: with single spaces.
        moves: for each place in the automaton, unit -> the next place. Place 0 is the beginning.
        ends: place -> the number of the sentence that is complete there.

    Raises:
        UserError: there is no sentence, or one can't be spelled.
    """

    def __init__(self, sentences: Sequence[str], pieces: Sequence[str]) -> None:
        self.sentences = tuple(dict.fromkeys(" ".join(s.replace(SPACE, " ").split()) for s in sentences))
        if not self.sentences:
            raise UserError("a list of commands needs one sentence or more; give one in each line")
        for sentence in self.sentences:
            spell(sentence, pieces)
        self.moves, self.ends = _automaton(self.sentences, pieces)
        self._compile()

    def _compile(self) -> None:
        """States of the forward algorithm: "blank at this place" for each place, "this unit" for each move."""
        n = len(self.moves)
        moves = [(place, unit, to) for place, units in enumerate(self.moves) for unit, to in units.items()]
        into: list[list[int]] = [[] for _ in self.moves]
        for state, (_, _, to) in enumerate(moves, n):
            into[to].append(state)
        before = [[place, *into[place]] for place in range(n)]
        for state, (place, unit, _) in enumerate(moves, n):
            # A unit that follows itself needs a blank between, or the two would be one.
            before.append([state, place, *(s for s in into[place] if moves[s - n][1] != unit)])
        self._units: Ints = np.array([BLANK] * n + [unit for _, unit, _ in moves], np.int64)
        self._before = _Groups(before)
        self._ends = _Groups([[place, *into[place]] for place in self.ends])

    def start(self) -> Alpha:
        """The forward probabilities before the first frame."""
        shares = np.zeros(len(self._units))
        shares[0] = 1.0
        return shares, 0.0

    def step(self, alpha: Alpha, logp: NDArray[np.floating]) -> Alpha:
        """The forward probabilities after (T, V) log-probabilities of the next frames."""
        shares, log = alpha
        most = logp.max(1, keepdims=True).astype(np.float64)
        log += float(most.sum())
        for frame in np.exp(logp - most):
            shares = self._before.sums(shares) * frame[self._units]
            total = float(shares.max())
            if total > 0:
                shares, log = shares / total, log + math.log(total)
        return shares, log

    def read(self, alpha: Alpha) -> list[tuple[str, float]]:
        """The log-probability of each sentence, over all its spellings and alignments, if the recording ends here.

        Args:
            alpha: as ``step`` returns it.

        Returns:
            Sentences with their log-probabilities, the best first; -inf for one that is too long for the frames, and
            for one that is some 700 nats behind another beginning.
        """
        with np.errstate(divide="ignore"):
            logs = np.log(self._ends.sums(alpha[0])) + alpha[1]
        log_of = dict(zip(self.ends.values(), logs.tolist(), strict=True))
        best = sorted(log_of, key=lambda number: (-log_of[number], number))
        return [(self.sentences[number], log_of[number]) for number in best]


class _Groups:
    """Groups of states, for the sum of each group's probabilities. No group is empty."""

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        sizes = np.array([len(g) for g in groups], np.int64)
        self.states: Ints = np.array([state for g in groups for state in g], np.int64)
        self.starts: Ints = np.cumsum(sizes) - sizes

    def sums(self, values: Floats) -> Floats:
        """(G,) the sum of the values (S,) of each group's states."""
        sums: Floats = np.add.reduceat(values[self.states], self.starts)
        return sums


def spell(text: str, pieces: Sequence[str]) -> tuple[int, ...]:
    """The units of a text: as few as there can be.

    Where pieces hold the space and letters behind it, the first word has its space too; else it has none, if possible.

    Args:
        text: words with spaces between.
        pieces: the text of each unit.

    Raises:
        UserError: it has no word, or can't be spelled.
    """
    words = text.replace(SPACE, " ").split()
    if not words:
        raise UserError("a sentence without words was found; write at least one word, or remove the empty line")
    whole = SPACE + SPACE.join(words)
    units = _units_of(pieces)
    joined = any(len(piece) > 1 and piece.startswith(SPACE) for piece in units)
    for candidate in (whole, whole[1:]) if joined else (whole[1:], whole):
        spelling = _fewest(candidate, units)
        if spelling is not None:
            return spelling
    raise UserError(_spelling_problem(text, words, units))


def _units_of(pieces: Sequence[str]) -> dict[str, list[int]]:
    units: dict[str, list[int]] = {}
    for unit, piece in enumerate(pieces):
        if piece:
            units.setdefault(piece, []).append(unit)
    return units


def _fewest(text: str, units: dict[str, list[int]]) -> tuple[int, ...] | None:
    """The spelling of a text with the fewest units; None where there is none."""
    longest = max(map(len, units), default=0)
    # Of each position: number of units up to it, length of the last.
    steps: list[tuple[int, int] | None] = [(0, 0), *[None] * len(text)]
    for start in range(len(text)):
        before = steps[start]
        for stop in range(start + 1, min(start + longest, len(text)) + 1) if before else ():
            known = steps[stop]
            if text[start:stop] in units and before and (known is None or before[0] + 1 < known[0]):
                steps[stop] = before[0] + 1, stop - start
    spelling, stop = [], len(text)
    while stop:
        step = steps[stop]
        if step is None:
            return None
        spelling.append(units[text[stop - step[1] : stop]][0])
        stop -= step[1]
    return tuple(reversed(spelling))


def _spelling_problem(text: str, words: Iterable[str], units: dict[str, list[int]]) -> str:
    known = set("".join(units))
    if all(len(piece) > 1 and piece.startswith(SPACE) for piece in units):
        word = next(word for word in words if SPACE + word not in units)
        others = sorted(piece.removeprefix(SPACE) for piece in units)
        listed = ", ".join(others[:10]) + (" ..." if len(others) > 10 else "")
        return (
            f"{word!r} is not among the words that this model knows ({listed}); leave it out, or train with "
            "recordings of it"
        )
    for word in words:
        if _fewest(SPACE + word, units) is None and _fewest(word, units) is None:
            strange = next((repr(letter) for letter in word if letter not in known), "")
            reason = f" ({strange} is in none)" if strange else ""
            return (
                f"the word {word!r} of {text!r} can't be spelled with the units of this model{reason}; "
                "leave it out, or train with texts that have it"
            )
    return f"{text!r} can't be spelled with the units of this model; leave it out, or train with texts that have it"


def _automaton(sentences: Sequence[str], pieces: Sequence[str]) -> tuple[list[dict[int, int]], dict[int, int]]:
    """Places that lie on the way from the beginning to an end, the moves between them, and the ends."""
    letters, ends = _trie(sentences)
    units = _units_of(pieces)
    beginnings = {piece[:n] for piece in units for n in range(1, len(piece))}
    moves = [_moves_from(letters, place, units, beginnings) for place in range(len(letters))]
    moves[0] |= moves[letters[0][SPACE]]  # the first word may come without its space
    for place in reversed(range(len(moves))):  # all moves lead to later places
        moves[place] = {unit: to for unit, to in moves[place].items() if to in ends or moves[to]}
    numbers, queue = {0: 0}, [0]
    for place in queue:
        for to in moves[place].values():
            if to not in numbers:
                numbers[to] = len(queue)
                queue.append(to)
    reached = [{unit: numbers[to] for unit, to in moves[place].items()} for place in queue]
    return reached, {numbers[place]: sentence for place, sentence in ends.items()}


def _trie(sentences: Sequence[str]) -> tuple[list[dict[str, int]], dict[int, int]]:
    """A trie of the sentences' characters, and where each of them ends."""
    letters: list[dict[str, int]] = [{}]
    ends: dict[int, int] = {}
    for number, sentence in enumerate(sentences):
        place = 0
        for letter in SPACE + sentence.replace(" ", SPACE):
            if letter not in letters[place]:
                letters[place][letter] = len(letters)
                letters.append({})
            place = letters[place][letter]
        ends[place] = number
    return letters, ends


def _moves_from(
    letters: list[dict[str, int]], place: int, units: dict[str, list[int]], beginnings: set[str]
) -> dict[int, int]:
    """Unit -> the place in the trie that its piece leads to from a place."""
    moves: dict[int, int] = {}
    paths = [(place, "")]
    for node, text in paths:
        for letter, to in letters[node].items():
            piece = text + letter
            moves.update(dict.fromkeys(units.get(piece, ()), to))
            if piece in beginnings:
                paths.append((to, piece))
    return moves
