"""Schemes of tags, words cut from texts, and a CRF that decodes: all compared with brute force."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dolmen.tasks.token_classification.processor import (
    Chain,
    Span,
    TagProcessor,
    allowed,
    cut_words,
    shape,
    spans_of,
    tags_of,
)
from dolmen.types import UserError

CASES = {
    "IOB2": ("O B-PER I-PER B-PER O B-LOC", [(1, 3, "PER"), (3, 4, "PER"), (5, 6, "LOC")]),
    "IOB1": ("I-PER I-PER B-PER O I-LOC I-PER", [(0, 2, "PER"), (2, 3, "PER"), (4, 5, "LOC"), (5, 6, "PER")]),
    "BIOES": ("S-PER B-LOC I-LOC E-LOC O", [(0, 1, "PER"), (1, 4, "LOC")]),
    "BILOU": ("U-PER B-LOC I-LOC L-LOC O", [(0, 1, "PER"), (1, 4, "LOC")]),
    "BMES": ("B-ORG M-ORG E-ORG S-ORG B-ORG E-ORG", [(0, 3, "ORG"), (3, 4, "ORG"), (4, 6, "ORG")]),
    "wrong": ("O E-PER O I-LOC B-LOC I-PER", [(1, 2, "PER"), (3, 4, "LOC"), (4, 5, "LOC"), (5, 6, "PER")]),
    "with dashes": ("B-a-b I-a-b O", [(0, 2, "a-b")]),
}


@pytest.mark.parametrize("name", CASES)
def test_chunks_of_every_scheme(name: str) -> None:
    tags, wanted = CASES[name]
    assert spans_of(tags.split()) == [Span(*w) for w in wanted]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from("XY")), max_size=6))
def test_spans_come_back(parts: list[tuple[int, int, str]]) -> None:
    spans, at = [], 0
    for gap, length, label in parts:
        spans.append(Span(at + gap, at + gap + length, label))
        at += gap + length
    assert spans_of(tags_of(spans, at + 1)) == spans


def test_words_and_their_places() -> None:
    text = "Anna's cat (3.5 kg) isn't  co-op.\n"
    assert [text[s:e] for s, e in cut_words(text)] == [
        "Anna's", "cat", "(", "3", ".", "5", "kg", ")", "isn't", "co", "-", "op", ".",
    ]  # fmt: skip
    assert [text[s:e] for s, e in cut_words("abcd", [2])] == ["An", "na"]
    assert cut_words("猫 狗", characters=True) == [(0, 1), (2, 3)]


def test_shapes() -> None:
    assert [shape(w) for w in ("猫", "cat", "CAT", "Cat", "cAt", "12", "a1", "?!")] == list(range(8))


# ---- the chain, against all sequences

LABELS = ("O", "B-X", "I-X", "E-X", "S-X")


def scored(chain: Chain, emissions: np.ndarray[Any, Any]) -> dict[tuple[int, ...], float]:
    out = {}
    for path in itertools.product(range(emissions.shape[1]), repeat=len(emissions)):
        s = chain.begin[path[0]] + chain.end[path[-1]] + sum(emissions[t, k] for t, k in enumerate(path))
        out[path] = float(s + sum(chain.between[a, b] for a, b in itertools.pairwise(path)))
    return out


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("constrained", [False, True])
def test_the_chain_equals_brute_force(steps: int, constrained: bool) -> None:
    rng = np.random.default_rng(steps)
    transitions = rng.normal(0, 1, (7, 5))
    if constrained:
        between, begin, end = allowed(LABELS)
        transitions[~np.concatenate([between, begin[None], end[None]])] = -1e4
    chain, emissions = Chain(transitions), rng.normal(0, 2, (steps, 5))
    scores = scored(chain, emissions)
    total = float(np.logaddexp.reduce(list(scores.values())))
    assert chain.total(emissions) == pytest.approx(total)
    p = {path: np.exp(s - total) for path, s in scores.items()}
    ranked = [path for path in sorted(p, key=lambda k: -p[k]) if p[path] > 0][:4]
    best = chain.best(emissions, 4)
    assert [tuple(path) for _, path in best] == ranked
    assert [q for q, _ in best] == pytest.approx([p[path] for path in ranked])
    assert chain.best(emissions)[0][1] == list(ranked[0])
    lean = rng.normal(0, 2, 5)  # chosen otherwise, believed as before
    leaning = max((path for path in p if p[path] > 0), key=lambda k: scores[k] + lean[list(k)].sum())
    assert chain.best(emissions, 1, lean) == [(pytest.approx(p[leaning]), list(leaning))]
    marginals = chain.read(emissions).marginals()
    for t, k in itertools.product(range(steps), range(5)):
        assert marginals[t, k] == pytest.approx(sum(q for path, q in p.items() if path[t] == k), abs=1e-9)
    for start in range(steps - 1):
        part = list(ranked[0][start : start + 2])
        wanted = sum(q for path, q in p.items() if list(path[start : start + 2]) == part)
        assert chain.read(emissions).probability(start, part) == pytest.approx(wanted)
    if constrained:
        for path in (path for _, path in best):
            tags = [LABELS[k] for k in path]
            assert tags_of(spans_of(tags), steps) == tags


# ---- the processor


def fitted(**more: Any) -> TagProcessor:
    values: dict[str, Any] = {
        "kind": "spans",
        "words": ("", "Rome", "lives"),
        "characters": "\0Romelivs",
        "labels": LABELS,
    }
    return TagProcessor(**values | more)


def test_words_become_numbers() -> None:
    p = fitted(words=("", "rome", "Lives"))
    encoded = p.encode_words(["Rome", "rome", "lives", "x" * 40])
    assert encoded["words"].tolist() == [1, 1, 0, 0]
    assert encoded["characters"].shape == (4, 24)
    assert encoded["characters"][0, :5].tolist() == [1, 2, 3, 4, 0]
    again = TagProcessor.from_json(json.loads(json.dumps(p.to_json())))
    np.testing.assert_array_equal(again.encode("Rome lives")["words"], [1, 0])


def test_an_answer_has_places_and_probabilities() -> None:
    between, begin, end = allowed(LABELS)
    transitions = np.where(np.concatenate([between, begin[None], end[None]]), 0.0, -1e4)
    p = fitted(transitions=tuple(map(tuple, transitions.tolist())))
    emissions = np.zeros((3, 5))
    emissions[0, 0], emissions[1, 1], emissions[2, 3] = 4, 3, 3
    answer = p.answer("in New  York", emissions, n_best=3)
    assert answer.tags == ("O", "B-X", "E-X")
    (start, stop, label, text, sure), *rest = answer.spans
    assert ((start, stop), label, text, rest) == ((3, 12), "X", "New  York", [])
    assert 0.5 < sure < 1
    assert len(answer.readings) == 3
    assert answer.readings[0][0] > answer.readings[1][0] > answer.readings[2][0]
    json.dumps(answer.to_json())


def test_what_is_no_sentence() -> None:
    for raw, message in (("  ", "is empty"), (3, "not int"), ([], "is empty"), (["a", ""], "not list")):
        with pytest.raises(UserError, match=message):
            fitted().encode(raw)
