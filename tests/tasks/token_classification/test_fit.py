"""What is fitted on validation when a tagger has been trained."""

from __future__ import annotations

import numpy as np
import pytest

from dolmen.tasks.token_classification.fit import fit_outside, fit_temperature, log_marginals
from dolmen.tasks.token_classification.processor import Chain, TagProcessor


def test_what_is_taken_off_the_score_of_no_span_is_fitted() -> None:
    labels = ("O", "B-X", "I-X", "E-X", "S-X")
    processor = TagProcessor(kind="spans", words=("",), characters="", labels=labels)
    rng = np.random.default_rng(0)
    tags = np.where(rng.random(4000) < 0.2, 4, 0)
    scores = np.full((4000, 5), -9.0)
    scores[:, 0] = rng.normal(1, 0.3, 4000)
    scores[:, 4] = np.where(tags == 4, 0.4, -0.8)  # spans are known, but "O" is always likelier
    parts, gold = np.split(scores, 400), np.split(tags, 400)
    outside = fit_outside(processor, parts, gold)
    assert 0.6 < outside <= 1.5
    assert fit_outside(processor, [p - [3.0, 0, 0, 0, 0] for p in parts], gold) == 0


LABELS = ("A", "B", "C")
TRANSITIONS = np.random.default_rng(1).normal(size=(5, 3))


def tagger(transitions: np.ndarray | None) -> TagProcessor:
    rows = () if transitions is None else tuple(tuple(row) for row in transitions.tolist())
    return TagProcessor(kind="labels", words=("",), characters="", labels=LABELS, transitions=rows)


@pytest.mark.parametrize("transitions", [None, TRANSITIONS], ids=["softmax", "chain"])
def test_the_temperature_that_was_put_in_is_found(transitions: np.ndarray | None) -> None:
    rng, known = np.random.default_rng(0), 2.5
    chain = Chain(np.zeros((5, 3)) if transitions is None else transitions)
    parts = list(rng.normal(size=(400, 5, 3)) * 2)
    tags = [sampled(chain, part, rng) for part in parts]
    processor = tagger(None if transitions is None else transitions * known)
    scores = [part * known for part in parts]
    assert fit_temperature(processor, scores, tags) == pytest.approx(known, rel=0.07)
    marginals = np.exp(log_marginals(processor, scores, known))
    np.testing.assert_allclose(marginals, np.concatenate([chain.read(p).marginals() for p in parts]), atol=1e-9)


def sampled(chain: Chain, scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tags of one sentence, drawn as probable as they are."""
    paths = chain.best(scores, 243)
    weights = np.array([probability for probability, _ in paths])
    return np.array(paths[rng.choice(len(paths), p=weights / weights.sum())][1])


@pytest.mark.parametrize("transitions", [None, TRANSITIONS], ids=["softmax", "chain"])
@pytest.mark.parametrize("num", [5, 50])
def test_tags_that_are_all_right_make_no_tagger_certain(transitions: np.ndarray | None, num: int) -> None:
    tags = [np.array([0, 1, 2, 1])] * num
    scores = [np.eye(3)[t] * 40 for t in tags]
    processor = tagger(transitions)
    temperature = fit_temperature(processor, scores, tags)
    sure = np.exp(log_marginals(processor, scores, temperature)).max(1).mean()
    assert sure == pytest.approx((4 * num + 1) / (4 * num + 2), abs=0.6 / (4 * num))
