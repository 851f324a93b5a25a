"""Closed lists of sentences against the sum of the probabilities of all their spellings."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tasks.speech_recognition.processors.ctc_paths import all_sums, distributions

from dolmen.tasks.speech_recognition.processors.grammar import Grammar, spell
from dolmen.types import UserError

S = "\u2581"
CASES = {
    "characters": (("", S, "a", "b"), ("a", "ab", "a b", "b b", "aa")),
    "words": (("", f"{S}on", f"{S}off"), ("on", "off on", "on on", "off")),
    "pieces": (("", f"{S}a", "a", "b", "ab", f"{S}ab"), ("aab", "ab", "a ab", "b")),
}


def texts(pieces: tuple[str, ...], units: tuple[int, ...]) -> str:
    return "".join(pieces[u] for u in units)


@pytest.mark.parametrize("name", CASES)
def test_the_likelihood_of_a_sentence_is_that_of_all_its_spellings(name: str) -> None:
    pieces, sentences = CASES[name]
    logp = distributions(4 if len(pieces) > 4 else 6, len(pieces), 3)
    sums, grammar = all_sums(logp), Grammar(sentences, pieces)
    expected = {}
    for sentence in sentences:
        spelled = (S + sentence.replace(" ", S), sentence.replace(" ", S))
        logs = [log for units, log in sums.items() if texts(pieces, units) in spelled]
        expected[sentence] = np.logaddexp.reduce(logs)
    readings = grammar.read(grammar.step(grammar.start(), logp))
    assert dict(readings) == pytest.approx(expected, abs=1e-5)
    assert [log for _, log in readings] == sorted((log for _, log in readings), reverse=True)


def test_frames_in_any_pieces() -> None:
    pieces, sentences = CASES["characters"]
    grammar, logp = Grammar(sentences, pieces), distributions(40, len(pieces), 1)
    whole = grammar.read(grammar.step(grammar.start(), logp))
    for cuts in ((1,), (3, 20), tuple(range(40))):
        alpha = grammar.start()
        for start, stop in itertools.pairwise((0, *cuts, 40)):
            alpha = grammar.step(alpha, logp[start:stop])
        assert grammar.read(alpha) == whole


def test_an_hour_does_not_underflow() -> None:
    pieces, sentences = CASES["words"]
    grammar, logp = Grammar(sentences, pieces), distributions(20_000, len(pieces), 2, sharpness=0.2)
    logs = [log for _, log in grammar.read(grammar.step(grammar.start(), logp))]
    assert np.isfinite(logs).all()
    assert max(logs) < -10_000


def test_what_is_too_long_is_impossible() -> None:
    grammar = Grammar(["on", "on on"], CASES["words"][0])
    log_of = dict(grammar.read(grammar.step(grammar.start(), distributions(2, 3))))
    assert np.isfinite(log_of["on"])
    assert log_of["on on"] == -np.inf  # a blank has to stand between
    assert dict(grammar.read(grammar.start())) == {"on": -np.inf, "on on": -np.inf}


def test_sentences_count_once_with_single_spaces() -> None:
    assert Grammar(["a  b", " a b ", "b"], CASES["characters"][0]).sentences == ("a b", "b")


@pytest.mark.parametrize(
    ("name", "text", "units"),
    [
        ("characters", "ab a", (2, 3, 1, 2)),
        ("words", "off on", (2, 1)),
        ("pieces", "aab", (1, 4)),
        ("pieces", "ab", (5,)),
        ("pieces", "bab", None),  # no piece begins a word with b, and the first may come without its space
    ],
)
def test_spelling(name: str, text: str, units: tuple[int, ...] | None) -> None:
    assert spell(text, CASES[name][0]) == (units or (3, 4))


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([], "a list of commands needs one sentence or more"),
        (["a", "  "], "a sentence without words was found"),
        (["a x"], r"the word 'x' of 'a x' can't be spelled with the units of this model \('x' is in none\); leave it"),
    ],
)
def test_what_is_no_command(sentences: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Grammar(sentences, CASES["characters"][0])


def test_words_that_can_be_spelled_and_their_sentence_can_not() -> None:
    with pytest.raises(UserError, match="'a b' can't be spelled with the units of this model; leave it out"):
        spell("a b", ("", "a", "b"))
