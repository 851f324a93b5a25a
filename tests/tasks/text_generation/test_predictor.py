"""Texts that are read along and written, by units of every kind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dolmen.processors.text.tokens import Units, fit_text
from dolmen.tasks.text_generation.predictions import Reading
from dolmen.tasks.text_generation.predictor import TextPredictor, Writer
from dolmen.types import Arrays, UserError

TEXT = "she sells sea shells\nby the  sea shore\n\nthe shells she sells are sea shells\n"


class Counting:
    """A network whose logits tell the sum of all it has read: nothing may be read twice or left out."""

    def __init__(self, size: int) -> None:
        self.size, self.total = size, 0

    def __call__(self, inputs: Arrays) -> Arrays:
        raise NotImplementedError

    def steps(self) -> Counting:
        return Counting(self.size)

    def reset(self) -> None:
        self.total = 0

    @property
    def state(self) -> Arrays:
        return {"hidden": np.full((1, 1, 1), self.total, np.float32)}

    @state.setter
    def state(self, state: Arrays) -> None:
        self.total = int(state["hidden"].item())

    def read(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        logits = np.zeros((len(tokens), self.size), np.float32)
        for row, token in zip(logits, tokens, strict=True):
            self.total += int(token)
            row[self.total % self.size] = 3.0
        return logits


def counting_predictor(units: Units) -> TextPredictor:
    processor = fit_text(units, [TEXT * 30], 300 if units == "bpe" else None, 1)
    return TextPredictor(processor, Counting(len(processor)))


@pytest.mark.parametrize("units", ["characters", "words", "bpe"])
@pytest.mark.parametrize("size", [1, 3, 50, 1000])
def test_a_text_in_pieces_is_the_same_text(units: Units, size: int) -> None:
    predictor = counting_predictor(units)
    session, whole = predictor.session(None), predictor.session(None)
    pieces = [TEXT[i : i + size] for i in range(0, len(TEXT), size)]
    readings = [r for piece in pieces for r in session.feed(piece)] + session.finish()
    expected = whole.feed(TEXT) + whole.finish()
    assert [r.to_json() for r in readings] == [r.to_json() for r in expected]
    assert len(readings) == len(predictor.processor.encode_text(TEXT))
    np.testing.assert_array_equal(session.writer.steps.state["hidden"], whole.writer.steps.state["hidden"])


def test_a_reading_says_how_much_a_token_surprised() -> None:
    predictor = counting_predictor("characters")
    session, v = predictor.session(None), len(predictor.processor)
    (reading,) = session.feed("s")
    assert isinstance(reading, Reading)
    start = predictor.processor.symbols.index("\n")
    expected = predictor.processor.symbols[start % v]
    likely = math.exp(3) / (math.exp(3) + v - 1)
    assert reading.expected[0] == (expected, pytest.approx(likely))
    assert reading.bits == pytest.approx(-math.log2(likely / math.exp(3) if expected != "s" else likely))
    assert sum(p for _, p in reading.expected) <= 1


def test_a_prompt_of_any_length_reads_alike() -> None:
    processor = counting_predictor("characters").processor
    texts = [processor.encode_text(TEXT * 3)[:n] for n in (1, 2, 63, 64, 65, 128, 200)]
    for tokens in texts:
        writer, other = Writer(Counting(len(processor)), processor), Writer(Counting(len(processor)), processor)
        together = [row.copy() for row in writer.read(tokens)]
        single = [row.copy() for token in tokens for row in other.read(token[None])]
        np.testing.assert_array_equal(together, single)
        np.testing.assert_array_equal(writer.logits(), other.logits())


def written(predictor: TextPredictor, **options: Any) -> str:
    return str(next(iter(predictor.predict(["she "], predictor.Options(**options))))[1].text)  # type: ignore[union-attr]


def test_a_session_writes_what_predict_writes() -> None:
    predictor = counting_predictor("characters")
    session = predictor.session(None)
    session.feed("she ")
    assert "".join(session.write(length=30, seed=3)) == written(predictor, length=30, seed=3)
    saved = session.save()
    first = "".join(session.write(length=10, seed=4))
    session.restore(saved)
    assert "".join(session.write(length=10, seed=4)) == first


@pytest.mark.parametrize("chunk", [b"bytes", 3, None])
def test_what_is_no_text(chunk: Any) -> None:
    with pytest.raises(UserError, match=r"a piece of text was expected, not (bytes|int|NoneType)"):
        counting_predictor("characters").session(None).feed(chunk)


def test_a_session_of_another_network_is_refused() -> None:
    small, large = counting_predictor("characters").session(None), counting_predictor("words").session(None)
    large.feed("shells sea she ")
    large.writer.pending = np.array([len(small.processor) + 5])
    with pytest.raises(UserError, match="saved session of another network"):
        small.restore(large.save())


def test_a_word_without_end_is_not_kept_for_ever() -> None:
    session = counting_predictor("words").session(None)
    for _ in range(20):
        session.feed("a" * 1000)
    assert len(session.held) <= 4096
