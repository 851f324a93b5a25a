"""Vocabularies, and what is drawn from them."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dolmen.processors.text.tokens import TextProcessor, fit_text, split_words, whole_words
from dolmen.tasks.text_generation.processor import Sampler, Speller
from dolmen.types import UserError

TEXT = "the cat sat on the mat.\nthe dog did not.\n\nEnd\n" * 30


@pytest.mark.parametrize("units", ["characters", "words", "bpe"])
def test_a_text_comes_back(units: str) -> None:
    processor = fit_text(units, [TEXT], 300 if units == "bpe" else None, 1)  # type: ignore[arg-type]
    again = TextProcessor.from_json(json.loads(json.dumps(processor.to_json())))
    for text in (TEXT, "the cat sat", "\n\n", ""):
        tokens = again.encode_text(text)
        assert again.decode_tokens(tokens) == text
        assert tokens.dtype == np.int32


def test_bpe_spells_what_it_never_saw() -> None:
    processor = fit_text("bpe", [TEXT], 310, 1)
    assert processor.decode_tokens(processor.encode_text("Ünï\n猫  x")) == "Ünï\n猫  x"


def test_the_rest_is_unknown() -> None:
    processor = fit_text("words", ["a a a b b c"], 3, 1)
    assert processor.symbols[1:] == ("a", "b")
    assert processor.encode_text("a c z b").tolist() == [1, 0, 0, 2]
    assert fit_text("characters", ["aab"], None, 2).symbols[1:] == ("a",)


@given(st.text(alphabet="ab \n", max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_pieces_of_whole_words(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    pieces = list(whole_words(text[a:b] for a, b in itertools.pairwise(edges)))
    assert "".join(pieces) == text
    assert [w for p in pieces for w in split_words(p)] == list(split_words(text))


def test_too_little_for_bpe() -> None:
    with pytest.raises(UserError, match="BPE can't be learned"):
        fit_text("bpe", [""], 100, 1)


# ---- sampling

LOGITS = np.log(np.array([0.3, 0.35, 0.2, 0.1, 0.05]))


def test_the_unknown_token_is_never_drawn() -> None:
    sampler = Sampler()
    drawn = [sampler.draw(LOGITS) for _ in range(4000)]
    shares = np.bincount(drawn, minlength=5) / 4000
    np.testing.assert_allclose(shares, [0, 0.5, 0.2857, 0.1429, 0.0714], atol=0.03)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 2}, {1, 2}),
        ({"top_p": 0.6}, {1, 2}),
        ({"top_p": 0.01}, {1}),
        ({"temperature": 0}, {1}),
        ({}, {1, 2, 3, 4}),
    ],
)
def test_what_can_be_drawn(options: dict[str, float], kept: set[int]) -> None:
    p = Sampler(**options).probabilities(LOGITS)  # type: ignore[arg-type]
    assert set(np.flatnonzero(p)) == kept
    assert p.sum() == pytest.approx(1)


def test_temperature_and_repetition() -> None:
    cold, warm = (Sampler(temperature=t).probabilities(LOGITS)[1] for t in (0.5, 2.0))
    assert cold > 0.5 > warm
    sampler = Sampler(repetition_penalty=2.0, seed=1)
    before = sampler.probabilities(LOGITS)
    sampler.lately.append(1)
    assert sampler.probabilities(LOGITS)[1] < before[1]


def test_the_seed_decides() -> None:
    first, again, other = ([Sampler(seed=s).draw(LOGITS) for _ in range(1)] for s in (3, 3, 4))
    assert first == again
    runs = [[s.draw(LOGITS) for _ in range(50)] for s in (Sampler(seed=3), Sampler(seed=3), Sampler(seed=4))]
    assert runs[0] == runs[1] != runs[2]
    assert other is not None


@pytest.mark.parametrize("units", ["characters", "words", "bpe"])
def test_spelling_as_tokens_come(units: str) -> None:
    processor = fit_text(units, [TEXT], 300 if units == "bpe" else None, 1)  # type: ignore[arg-type]
    text = "the cat sat\nthe dog did" + ("" if units == "words" else "\n ü 猫" if units == "bpe" else "\n")
    speller = Speller(processor)
    pieces = [speller.add(int(t)) for t in processor.encode_text(text)]
    spelled = "".join([*pieces, speller.end()])
    assert spelled.replace(" \n", "\n").rstrip(" ") == text
