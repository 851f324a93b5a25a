"""Tagged sentences in parts."""

from __future__ import annotations

from dolmen.tasks.token_classification.data.parts import LONGEST, cut_long, draw_share
from dolmen.tasks.token_classification.data.read import Sentence


def test_long_sentences_are_cut_between_spans() -> None:
    words = [str(i) for i in range(3 * LONGEST)]
    tags = ["O"] * len(words)
    tags[LONGEST - 1 : LONGEST + 2] = ["B-X", "I-X", "E-X"]
    parts = list(cut_long(Sentence(words, tags, "here"), tags))
    assert [t for _, part_tags in parts for t in part_tags] == tags
    assert all(len(t) <= LONGEST for _, t in parts)
    assert not any(t[0][:2] in ("I-", "E-") for _, t in parts)


def test_equal_sentences_stay_together() -> None:
    sentences = [Sentence([str(i % 20)], ["O"], "") for i in range(100)]
    rest, drawn = draw_share(sentences, 0.2, 0)
    assert len(drawn) == 20
    assert not {s.words[0] for s in rest} & {s.words[0] for s in drawn}
