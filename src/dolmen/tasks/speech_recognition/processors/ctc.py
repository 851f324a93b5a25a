"""CTC decoding: the text of units, when each of them came, and how sure it is (Graves et al., 2006).

Blank is unit 0. A unit's text is its piece; a piece that begins with ``SPACE`` begins a word.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dolmen.tasks.speech_recognition.processors.grammar import BLANK, SPACE, Floats, Ints, spell

__all__ = [
    "BLANK",
    "SPACE",
    "force_align",
    "greedy",
    "log_probability",
    "spell",
    "text_of",
    "words_of",
]

STAY, AFTER_BLANK, AFTER_UNIT = 0, 1, 2


def greedy(logp: NDArray[np.floating]) -> tuple[int, ...]:
    """(T, V) log-probabilities -> the units of the best path: repeats merged, blanks dropped."""
    best, begins = _best_path(logp)
    return tuple(best[begins].tolist())


def _best_path(logp: NDArray[np.floating]) -> tuple[Ints, NDArray[np.bool_]]:
    """(T,) the most probable unit of each frame, and (T,) whether one begins there that is no blank."""
    best = logp.argmax(1)
    begins = best != BLANK
    begins[1:] &= best[1:] != best[:-1]
    return best, begins


def text_of(units: Sequence[int], pieces: Sequence[str]) -> str:
    """The text of units, words with single spaces between."""
    return " ".join("".join(pieces[unit] for unit in units).replace(SPACE, " ").split())


def log_probability(logp: NDArray[np.floating], units: Sequence[int]) -> float:
    """Log-probability of units over all their alignments: the CTC forward algorithm.

    Args:
        logp: (T, V) log-probabilities.
        units: U units without blanks.

    Returns:
        The natural logarithm; -inf if T frames are too few.

    Raises:
        ValueError: a unit is the blank, or not in V.
    """
    labels, skips = _labels(logp, units)
    blank, unit = np.full(len(labels) + 1, -np.inf), np.full(len(labels), -np.inf)
    blank[0] = 0.0
    for frame in logp.astype(np.float64):
        moved = np.logaddexp(unit, blank[:-1])
        moved[1:] = np.where(skips, np.logaddexp(moved[1:], unit[:-1]), moved[1:])
        blank[1:] = np.logaddexp(blank[1:], unit)
        blank, unit = blank + frame[BLANK], moved + frame[labels]
    return float(np.logaddexp(blank[-1], unit[-1]) if len(labels) else blank[-1])


def force_align(logp: NDArray[np.floating], units: Sequence[int]) -> tuple[Ints, Ints, Floats]:
    """First frame, last frame and confidence of each unit in the most probable alignment (Viterbi).

    It takes T * U time and T * (U + 1) bytes; for the units of the best path, whose alignment that path is, T time.

    Args:
        logp: (T, V) log-probabilities.
        units: U units without blanks.

    Returns:
        (U,) the first frame and (U,) the last frame of each unit, inclusive: those in which the alignment has the unit
        and not a blank; CTC networks keep a unit for few frames, so that a sound often goes on after its last one. (U,)
        confidence, 0 to 1: the mean over these frames of the unit's probability.

    Raises:
        ValueError: the units can't be aligned with T frames, or are none of V.
    """
    labels, skips = _labels(logp, units)
    num_frames, n = len(logp), len(labels)
    needed = n + int((~skips).sum())
    if needed > num_frames:
        raise ValueError(f"{n} units need {needed} frames or more, not {num_frames}")
    best, begins = _best_path(logp)
    if np.array_equal(best[begins], labels):
        owners = np.where(best == BLANK, -1, begins.cumsum() - 1)
    else:
        owners = _viterbi(logp, labels, skips)
    frames = np.flatnonzero(owners >= 0)
    owned = owners[frames]
    first = frames[np.searchsorted(owned, np.arange(n))]
    last = frames[np.searchsorted(owned, np.arange(n), "right") - 1]
    sums = np.bincount(owned, np.exp(logp[frames, labels[owned]].astype(np.float64)), minlength=n)
    return first, last, np.minimum(sums / (last - first + 1), 1.0)


def _viterbi(logp: NDArray[np.floating], labels: Ints, skips: NDArray[np.bool_]) -> Ints:
    """(T,) the number of the unit that each frame belongs to, -1 for blanks."""
    n = len(labels)
    moves = np.zeros((len(logp), n + 1), np.uint8)
    blank, unit = np.full(n + 1, -np.inf), np.full(n, -np.inf)
    blank[0] = 0.0
    for t in range(len(logp)):
        frame = logp[t].astype(np.float64)
        best, origin = unit.copy(), np.full(n, STAY, np.uint8)
        for span, candidates, move in ((slice(0, n), blank[:-1], AFTER_BLANK), (slice(1, n), unit[:-1], AFTER_UNIT)):
            better = candidates > best[span]
            if move == AFTER_UNIT:
                better &= skips
            best[span][better], origin[span][better] = candidates[better], move
        from_unit = unit > blank[1:]
        moves[t, :n] = origin << 1
        moves[t, 1:] |= from_unit
        blank[1:] = np.where(from_unit, unit, blank[1:])
        blank, unit = blank + frame[BLANK], best + frame[labels]
    if max(blank[-1], unit[-1] if n else -np.inf) == -np.inf:
        raise ValueError("the units have probability 0")
    in_unit = bool(n) and unit[-1] >= blank[-1]
    return _trace(moves, n - 1 if in_unit else n, in_unit)


def _trace(moves: NDArray[np.uint8], at: int, in_unit: bool) -> Ints:
    """(T,) the unit of each frame, traced back from the end of an alignment."""
    owners = np.full(len(moves), -1, np.int64)
    for t in reversed(range(len(moves))):
        move = int(moves[t, at])
        if in_unit:
            owners[t] = at
            in_unit, at = move >> 1 != AFTER_BLANK, at - (move >> 1 == AFTER_UNIT)
        elif move & 1:
            in_unit, at = True, at - 1
    return owners


def words_of(
    logp: NDArray[np.floating], units: Sequence[int], pieces: Sequence[str]
) -> list[tuple[str, int, int, float]]:
    """The words of units with their frames and confidence.

    Args:
        logp: (T, V) log-probabilities.
        units: as ``force_align`` takes them.
        pieces: (V,) the text of each unit.

    Returns:
        Word, first frame, last frame (inclusive), confidence: that of its least sure unit, since one wrong unit makes a
        wrong word. A space that is a unit by itself belongs to no word.

    Raises:
        ValueError: as ``force_align``.
    """
    words: list[tuple[str, int, int, float]] = []
    open_word = False
    columns = (column.tolist() for column in force_align(logp, units))
    for unit, first, last, confidence in zip(units, *columns, strict=True):
        for number, part in enumerate(pieces[unit].split(SPACE)):
            open_word = open_word and not number
            if part and open_word:
                word, begin, _, least = words.pop()
                words.append((word + part, begin, last, min(least, confidence)))
            elif part:
                words.append((part, first, last, confidence))
                open_word = True
    return words


def _labels(logp: NDArray[np.floating], units: Sequence[int]) -> tuple[Ints, NDArray[np.bool_]]:
    """(U,) units, and (U - 1,) whether a unit may follow the one before without a blank."""
    labels = np.array(units, np.int64)
    if logp.ndim != 2 or labels.ndim != 1:
        raise ValueError(f"logp must be (T, V) and units (U,), not {logp.shape} and {labels.shape}")
    if len(labels) and not (labels.min() > BLANK and labels.max() < logp.shape[1]):
        raise ValueError(f"units must be 1 to {logp.shape[1] - 1}")
    return labels, labels[1:] != labels[:-1]
