"""Where stretches of speech end, and what is said in them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dolmen.tasks.speech_recognition.predictions import Transcript
from dolmen.tasks.speech_recognition.processors.ctc import log_probability
from dolmen.tasks.speech_recognition.processors.grammar import Grammar
from dolmen.tasks.speech_recognition.processors.ngrams import NGrams
from dolmen.tasks.speech_recognition.processors.transcribing import Decoding, Transcriber

S = "\u2581"
UNITS = ("", S, "o", "n", "f")
STEP_S = 0.04
QUIET = 15
"""Steps of silence that end a stretch by default."""


def spoken(text: str, sure: float = 0.9) -> NDArray[np.float32]:
    """A step for each character; a dot is a step of silence, as sure as the others."""
    logp = np.full((len(text), len(UNITS)), math.log((1 - sure) / (len(UNITS) - 1)), np.float32)
    logp[range(len(text)), [". onf".index(c) for c in text]] = math.log(sure)
    return logp


def transcribed(logp: NDArray[np.float32], cuts: tuple[int, ...] = (), **options: Any) -> list[Transcript]:
    heard = Transcriber(UNITS, STEP_S, Decoding(**options))
    transcripts = []
    for start, stop in itertools.pairwise((0, *cuts, len(logp))):
        transcripts += heard.feed(logp[start:stop])
    return transcripts + heard.finish()


MODEL = NGrams.train(["on", "off on"], 2)
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "threshold": {"threshold": 0.5},
    "beam": {"width": 8, "n_best": 3},
    "model": {"width": 8, "scorer": MODEL, "hot": {"on": 1.0}, "bonus": 0.1},
    "grammar": {"grammar": Grammar(["on", "off", "off on"], UNITS), "n_best": 2},
}
LONG = spoken("." * 40 + "o.n" + "." * 20 + "of.f on" + "." * 14 + " onn" + "." * 500 + "on" + "." * 3)


def test_a_stretch_has_its_words_and_times() -> None:
    (transcript,) = transcribed(spoken("..o.nn. f...", 0.9), silence_s=10)
    assert (transcript.text, transcript.final, transcript.rejected, transcript.alternatives) == (
        "on f",
        True,
        False,
        (),
    )
    assert (transcript.start_s, transcript.end_s) == (0, pytest.approx(12 * STEP_S))
    assert [w.text for w in transcript.words] == ["on", "f"]
    assert [(w.start_s, w.end_s) for w in transcript.words] == [
        pytest.approx((2 * STEP_S, 6 * STEP_S)), pytest.approx((8 * STEP_S, 9 * STEP_S)),
    ]  # fmt: skip
    assert [w.confidence for w in transcript.words] == pytest.approx([0.9, 0.9])
    assert transcript.confidence == pytest.approx(math.exp(log_probability(spoken("..o.nn. f..."), (2, 3, 1, 4))))


def test_silence_ends_a_stretch_and_the_next_begins_with_some_of_it() -> None:
    transcripts = transcribed(spoken("." * 100 + "on" + "." * 100 + "off" + "." * 3))
    assert [t.text for t in transcripts] == ["on", "of"]  # two units without a blank between are one
    first, second = transcripts
    assert first.start_s == pytest.approx((100 - QUIET) * STEP_S)
    assert first.end_s == pytest.approx((102 + QUIET) * STEP_S)
    assert second.start_s == pytest.approx((202 - QUIET) * STEP_S)
    assert second.words[0].start_s == pytest.approx(202 * STEP_S)


@pytest.mark.parametrize("gap", [QUIET - 1, QUIET])
def test_how_long_a_silence_has_to_be(gap: int) -> None:
    transcripts = transcribed(spoken("on" + "." * gap + " on"))
    assert [t.text for t in transcripts] == (["on on"] if gap < QUIET else ["on", "on"])


def test_nothing_said_gives_nothing() -> None:
    assert transcribed(spoken("." * 2000)) == []
    assert transcribed(spoken("")) == []
    heard = Transcriber(UNITS, STEP_S, Decoding())
    heard.feed(spoken("." * 2000))
    assert sum(map(len, heard.parts)) == QUIET  # what was forgotten takes no memory
    assert (heard.partial(), heard.finish()) == (None, [])


@pytest.mark.parametrize("text", ["on." * 200, "." * 700 + "on." * 200])
def test_what_is_too_long_ends_at_a_blank(text: str) -> None:
    transcripts = transcribed(spoken(text), longest_s=2.0)
    assert "".join(t.text for t in transcripts) == "on" * 200
    assert all(0.04 < t.end_s - t.start_s <= 2.0 + QUIET * STEP_S + 0.1 for t in transcripts)
    assert all(a.end_s == pytest.approx(b.start_s) for a, b in itertools.pairwise(transcripts))


def test_speech_without_a_blank_ends_somewhere() -> None:
    heard = Transcriber(UNITS, STEP_S, Decoding(longest_s=2.0))
    transcripts = heard.feed(spoken("no" * 1000))
    assert [round(t.end_s - t.start_s, 6) for t in transcripts] == [4.0] * 20


@pytest.mark.parametrize("kind", KINDS)
def test_stretches_depend_on_the_distributions_alone(kind: str) -> None:
    whole = transcribed(LONG, **KINDS[kind])
    assert len(whole) == 3
    assert whole[1].text == "off on on" or kind == "grammar"
    generator = np.random.default_rng(0)
    for cuts in (tuple(range(1, len(LONG))), tuple(range(7, len(LONG), 7)), (50, 50, 51), *(
        tuple(np.sort(generator.integers(0, len(LONG), 9)).tolist()) for _ in range(10)
    )):  # fmt: skip
        assert [t.to_json() for t in transcribed(LONG, cuts, **KINDS[kind])] == [t.to_json() for t in whole]


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_from_what_was_saved(kind: str) -> None:
    how = Decoding(**KINDS[kind])
    for cut in range(0, len(LONG), 13):
        first, second = Transcriber(UNITS, STEP_S, how), Transcriber(UNITS, STEP_S, how)
        before = first.feed(LONG[:cut])
        first.partial()
        second.restore(*first.save())
        assert second.partial() is None  # nothing else than before
        transcripts = before + second.feed(LONG[cut:]) + second.finish()
        assert [t.to_json() for t in transcripts] == [t.to_json() for t in transcribed(LONG, **KINDS[kind])]


@pytest.mark.parametrize(
    "change",
    [
        {"heard_logp": np.zeros((3, 4), np.float32)},
        {"heard_logp": np.zeros(5, np.float32)},
        {"heard_logp": np.full((3, 5), np.nan, np.float32)},
    ],
)
def test_what_is_no_state(change: dict[str, NDArray[Any]]) -> None:
    heard = Transcriber(UNITS, STEP_S, Decoding())
    arrays, about = heard.save()
    with pytest.raises(ValueError, match="the distributions of this stream are damaged, or another network's"):
        heard.restore(arrays | change, about)


@pytest.mark.parametrize("kind", ["greedy", "beam", "model"])
def test_partial_results_grow_into_the_final_one(kind: str) -> None:
    heard = Transcriber(UNITS, STEP_S, Decoding(**KINDS[kind]))
    texts, final = [], []
    for row in spoken("..on.. off" + "." * 20, 0.97):
        final += heard.feed(row[None])
        now = heard.partial()
        if now is not None:
            assert not now.final
            assert now.confidence == pytest.approx(math.prod(w.confidence for w in now.words))
            texts.append(now.text)
    assert texts[:2] == ["o", "on"]
    assert len(texts) <= 5
    assert final[0].text == "on of"
    assert texts[-1] == "on of"


def test_times_are_counted_from_where_a_stream_begins() -> None:
    heard = Transcriber(UNITS, STEP_S, Decoding())
    heard.reset(start_s=10.01)
    heard.feed(spoken("." * 30 + "on"))
    (transcript,) = heard.finish()
    assert transcript.words[0].start_s == pytest.approx(10.01 + 30 * STEP_S)
    assert heard.feed(spoken("." * 20)) == []
    assert heard.begin == 32 + 20 - QUIET


def test_words_that_are_not_sure_are_left_out() -> None:
    logp = np.concatenate([spoken("on..", 0.9), spoken(" of.f..", 0.6)])
    assert transcribed(logp)[0].text == "on off"
    (transcript,) = transcribed(logp, threshold=0.7)
    assert (transcript.text, [w.text for w in transcript.words]) == ("on", ["on"])
    assert transcribed(logp, threshold=0.95)[0].text == ""


def test_readings_with_their_shares() -> None:
    logp = spoken("on..", 0.9)
    logp[1, [3, 4]] = np.log([0.5, 0.44])
    (transcript,) = transcribed(logp, width=16, n_best=3)
    texts, shares = zip(*transcript.alternatives, strict=True)
    assert texts[:2] == ("on", "of")
    assert len(texts) <= 3
    assert sum(shares) == pytest.approx(1)
    assert shares[0] / shares[1] == pytest.approx(0.5 / 0.44, rel=0.05)
    assert transcript.text == "on"


COMMANDS = {"grammar": Grammar(["on", "off on"], UNITS)}


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("on....", {}, "on"),
        ("of.f on..", {}, "off on"),
        ("oo.n..", {}, "on"),
        ("nofnofnof..", {}, None),
        ("o.f...", {}, "on"),  # near enough
        ("o.f...", {"reject": 0.5}, None),
        ("on....", {"threshold": 0.95}, None),
        ("on....", {"threshold": 0.85}, "on"),
    ],
)
def test_commands_and_what_is_none(text: str, options: dict[str, Any], expected: str | None) -> None:
    (transcript,) = transcribed(spoken(text), **COMMANDS, **options)
    assert transcript.rejected == (expected is None)
    assert transcript.text == (expected or "")
    assert [w.text for w in transcript.words] == (expected or "").split()
    assert (transcript.confidence > 0) == (expected is not None)


def test_commands_have_probabilities() -> None:
    logp = spoken("on....")
    (transcript,) = transcribed(logp, **COMMANDS, n_best=2)
    assert [text for text, _ in transcript.alternatives] == ["on", "off on"]
    assert sum(share for _, share in transcript.alternatives) == pytest.approx(1)
    assert transcript.confidence == pytest.approx(transcript.alternatives[0][1], rel=1e-3)
    assert transcribed(logp, **COMMANDS)[0].alternatives == ()
