"""Prefix beam search against the sums over all paths, and what language models and hot words do to it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tasks.speech_recognition.processors.ctc_paths import all_sums, distributions

from dolmen.tasks.speech_recognition.processors.beam import PrefixBeam
from dolmen.tasks.speech_recognition.processors.ctc import text_of
from dolmen.tasks.speech_recognition.processors.ngrams import NGrams
from dolmen.types import UserError

S = "\u2581"
CHARACTERS = ("", S, "a", "b")
WORDS = ("", f"{S}on", f"{S}off", f"{S}now")
PIECES = ("", f"{S}a", "b", S)
MODEL = NGrams.train(["a b", "a ab", "b a", "on off", "off now", "on on now"], 2)
HUGE = 10_000


def beamed(logp: NDArray[np.float32], pieces: tuple[str, ...], **options: Any) -> PrefixBeam:
    beam = PrefixBeam(pieces, **options)
    beam.feed(logp)
    return beam


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("t", "v"), [(1, 3), (5, 4), (6, 3)])
def test_a_wide_beam_finds_the_sums_over_all_paths(t: int, v: int, seed: int) -> None:
    logp = distributions(t, v, seed)
    sums = {units: log for units, log in all_sums(logp).items() if log > -15}
    log_of = {h.units: h.acoustic for h in beamed(logp, ("", *"xyz")[:v], width=HUGE).best(HUGE)}
    assert {units: log_of[units] for units in sums} == pytest.approx(sums, abs=1e-4)
    assert log_of.keys() >= sums.keys()
    assert max(sums, key=lambda units: sums[units]) == beamed(logp, ("", *"xyz")[:v], width=24).best()[0].units


def sentence_score(text: str, hot: dict[str, float], bonus: float, weight: float) -> float:
    """What language model, bonus and hot words say of a whole sentence."""
    words, state, total = text.split(), MODEL.start(), 0.0
    for word in words:
        state, log = MODEL.step(state, word)
        total += weight * log + bonus
    padded = f" {text} "
    times = sum(nats * sum(padded.startswith(f" {h} ", i) for i in range(len(padded))) for h, nats in hot.items())
    return total + weight * MODEL.end(state) + times


@pytest.mark.parametrize("hot", [{}, {"a": 1.5, "b a": 2.0, "ab": -3.0}, {"on": 2.0, "on now": 1.0, "off": -1.0}])
@pytest.mark.parametrize("bonus", [0.0, 0.7, -0.7])
@pytest.mark.parametrize("pieces", [CHARACTERS, WORDS, PIECES], ids=["characters", "words", "pieces"])
def test_a_wide_beam_scores_whole_sentences(pieces: tuple[str, ...], bonus: float, hot: dict[str, float]) -> None:
    hot = {h: nats for h, nats in hot.items() if ("o" in h) == (pieces is WORDS)}
    logp = distributions(5, 4, 7, sharpness=1.0)
    beam = beamed(logp, pieces, width=HUGE, scorer=MODEL, weight=0.8, bonus=bonus, hot_words=hot)
    scores = {h.units: h.score for h in beam.best(HUGE, final=True)}
    expected = {
        units: log + sentence_score(text_of(units, pieces), hot, bonus, 0.8)
        for units, log in all_sums(logp).items()
        if log > -8
    }
    assert {units: scores[units] for units in expected} == pytest.approx(expected, abs=1e-4)
    narrow = beamed(logp, pieces, width=48, scorer=MODEL, weight=0.8, bonus=bonus, hot_words=hot).best(final=True)[0]
    assert narrow.score == pytest.approx(max(expected.values()), abs=0.1)


@pytest.mark.parametrize("options", [{}, {"scorer": MODEL}, {"scorer": MODEL, "hot_words": {"ab": 3.0}, "bonus": 1}])
def test_frames_in_any_pieces(options: dict[str, Any]) -> None:
    logp = distributions(60, 4, 1)
    whole = beamed(logp, CHARACTERS, width=8, **options)
    for cuts in ((1, 7), (30, 30, 31), tuple(range(60))):
        beam = PrefixBeam(CHARACTERS, width=8, **options)
        for start, stop in itertools.pairwise((0, *cuts, 60)):
            beam.feed(logp[start:stop])
            beam.best(3)
        assert beam.best(8, final=True) == whole.best(8, final=True)
    whole.reset()
    whole.feed(logp)
    assert whole.best(8, final=True) == beam.best(8, final=True)


def near(*candidates: tuple[str, float]) -> NDArray[np.float32]:
    """Letters of which each is one of several, a step each with a blank behind it."""
    rows = []
    for step in zip(*(text for text, _ in candidates), strict=True):
        row = np.full(5, 1e-4)
        for (_, share), letter in zip(candidates, step, strict=True):
            row[" abc".index(letter) + 1] += share
        rows += [row / row.sum(), np.array([0.999, *[0.00025] * 4])]
    return np.log(np.array(rows)).astype(np.float32)


LETTERS = ("", S, "a", "b", "c")


@pytest.mark.parametrize(
    ("hot", "expected"),
    [
        ({}, "ab cb"),
        ({"cab": 3.0}, "ab cb"),  # is not there to be heard
        ({"ca": 3.0}, "ab ca"),
        ({"ab ca": 3.0}, "ab ca"),
        ({"c": 3.0}, "ab cb"),  # a part of a word is none
        ({"cb": -3.0}, "ab ca"),
        ({"cb": -3.0, "ca": -3.0}, "ab cb"),
    ],
)
def test_hot_words_are_preferred_where_they_may_have_been_said(hot: dict[str, float], expected: str) -> None:
    logp = near(("ab cb", 0.6), ("ab ca", 0.4))
    best = beamed(logp, LETTERS, hot_words=hot).best(final=True)[0]
    assert text_of(best.units, LETTERS) == expected


def test_a_language_model_decides_where_the_sound_does_not() -> None:
    model = NGrams.train(["a cab"] * 5 + ["a bab"], 2)
    logp = near(("a cab", 0.45), ("a bab", 0.55))
    assert text_of(beamed(logp, LETTERS).best()[0].units, LETTERS) == "a bab"
    assert text_of(beamed(logp, LETTERS, scorer=model).best(final=True)[0].units, LETTERS) == "a cab"
    assert text_of(beamed(logp, LETTERS, scorer=model, weight=0.0).best(final=True)[0].units, LETTERS) == "a bab"


def test_rare_units_are_not_tried() -> None:
    logp = distributions(6, 4, 2)
    hypotheses = beamed(logp, ("", *"xyz"), width=HUGE, most_units=1).best(HUGE)
    best = logp[:, 1:].argmax(1) + 1
    assert {unit for h in hypotheses for unit in h.units} <= set(best.tolist())


def test_quiet_frames_change_nothing_but_the_score() -> None:
    beam = beamed(distributions(5, 4), CHARACTERS)
    before = beam.best()[0]
    beam.feed(np.log(np.array([[0.99995, *[0.00005 / 3] * 3]] * 4)))
    after = beam.best()[0]
    assert after.units == before.units
    assert after.score == pytest.approx(before.score + 4 * math.log(0.99995), abs=1e-4)


@pytest.mark.parametrize(
    ("logp", "message"),
    [
        (np.zeros((2, 3)), r"logp must be \(T, 4\) numbers, not \(2, 3\)"),
        (np.full((2, 4), np.nan), r"logp must be \(T, 4\) numbers"),
        (np.full((2, 4), -np.inf), "a frame has no probability for anything that could come next"),
    ],
)
def test_what_are_no_distributions(logp: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrefixBeam(CHARACTERS).feed(logp)


@pytest.mark.parametrize("options", [{"width": 0}, {"most_units": 0}, {"weight": -1.0}, {"weight": math.nan}])
def test_numbers_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="width and most_units must be 1 or more, and weight 0 or more"):
        PrefixBeam(CHARACTERS, **options)


def test_a_hot_word_that_can_not_be_spelled() -> None:
    with pytest.raises(UserError, match=r"the word 'x' of 'a x' can't be spelled"):
        PrefixBeam(CHARACTERS, hot_words={"a x": 1.0})
