"""A language model of tokens as one of words, against the probability of the whole text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dolmen.nn.recurrent.language_model import LanguageGraph, LanguageModel
from dolmen.nn.torch_network import Graph, Input, TorchNetwork
from dolmen.processors.text.tokens import TextProcessor, Units, fit_text
from dolmen.tasks.speech_recognition.predictor.word_scorer import WordScorer
from dolmen.tasks.speech_recognition.processors.beam import PrefixBeam
from dolmen.tasks.text_generation.nn import LanguageSteps

TEXT = "she sells sea shells\nby the sea shore\nthe shells she sells are sea shells\n"
SENTENCES = ["she sells", "sea", "the shells are by the sea", "shore quick", ""]


def word_scorer(
    units: Units, text: str = TEXT, cell: str = "lstm", *, quick: bool = False
) -> tuple[TextProcessor, LanguageModel, WordScorer]:
    processor = fit_text(units, [text * 30], 300 if units == "bpe" else None, 1)
    torch.manual_seed(1)
    model = LanguageModel(len(processor), size=8, hidden=12, cell=cell).eval()
    with torch.no_grad():
        model.embedding.weight *= 6
    names = ("hidden", "cell")[: 2 if cell == "lstm" else 1]
    inputs = {"tokens": Input("int64", ("batch", "time")), **{n: Input("float32", (2, "batch", 12)) for n in names}}
    graph = Graph(
        LanguageGraph(model), inputs, ("logits", *(f"next_{n}" for n in names)), {f"next_{n}": n for n in names},
        steps=(lambda: LanguageSteps(model)) if quick else None,
    )  # fmt: skip
    return processor, model, WordScorer(processor, TorchNetwork(graph))


def log_of(scorer: Any, words: list[str]) -> float:
    state, total = scorer.start(), 0.0
    for word in words:
        state, log = scorer.step(state, word)
        assert log <= 0
        total += log
    return total + float(scorer.end(state))


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(
    ("units", "cell"), [("characters", "gru"), ("words", "gru"), ("bpe", "gru"), ("words", "lstm")]
)
def test_the_words_of_a_line_have_the_probability_of_the_line(units: Units, cell: str, quick: bool) -> None:
    processor, model, scorer = word_scorer(units, cell=cell, quick=quick)
    for sentence in [*SENTENCES, *SENTENCES]:
        tokens = torch.from_numpy(processor.encode_text(f"\n{sentence}\n").astype(np.int64))
        with torch.no_grad():
            logs = model(tokens[None])[0][0].log_softmax(-1)
        expected = logs[torch.arange(len(tokens) - 1), tokens[1:]].sum()
        assert log_of(scorer, sentence.split()) == pytest.approx(float(expected), abs=1e-3)


def test_hypotheses_do_not_disturb_each_other() -> None:
    _, _, scorer = word_scorer("characters")
    begin = scorer.start()
    (one, _), (other, _) = scorer.step(begin, "she"), scorer.step(begin, "the")
    _, first = scorer.step(one, "sells")
    scorer.step(other, "sea")
    _, again = scorer.step(scorer.step(scorer.start(), "she")[0], "sells")
    assert first == pytest.approx(again, abs=1e-5)
    assert scorer.step(begin, "she")[0] is one  # read once


def test_words_of_one_token_are_not_read_before_they_are_needed() -> None:
    _, _, scorer = word_scorer("words")
    begin = scorer.start()
    after = [scorer.step(begin, word)[0] for word in ("she", "sea", "the")]
    assert all(history.logs is None for history in after)
    scorer.step(after[0], "sells")
    assert [history.logs is None for history in after] == [False, True, True]


def test_what_is_remembered_is_that_of_one_sentence() -> None:
    _, _, scorer = word_scorer("characters")
    first = scorer.start()
    scorer.step(first, "she")
    assert first.after
    assert not scorer.start().after


def test_a_model_without_lines() -> None:
    _, _, scorer = word_scorer("characters", TEXT.replace("\n", " "))
    state, log = scorer.step(scorer.start(), "she")
    assert log < 0
    assert scorer.end(state) == 0


def test_in_a_beam() -> None:
    """What the model thinks likely wins where the sound does not decide."""
    _, _, scorer = word_scorer("characters")
    pieces = ("", "\u2581", *"aes")
    logp = np.log(
        np.array([[0.02, 0.02, 0.02, 0.02, 0.92], [0.02, 0.02, 0.02, 0.92, 0.02], [0.4, 0.02, 0.54, 0.02, 0.02]])
    )
    beam = PrefixBeam(pieces, scorer=scorer, weight=1.0)
    beam.feed(logp)
    scores = {h.units: h.score - h.acoustic for h in beam.best(16, final=True)}
    for units, score in scores.items():
        words = "".join(pieces[u] for u in units).replace("\u2581", " ").split()
        assert score == pytest.approx(log_of(scorer, words), abs=1e-4)
    assert len(scores) > 3
