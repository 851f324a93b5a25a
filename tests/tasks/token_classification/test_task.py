"""Token classification from end to end on small sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dolmen
from dolmen.types import UserError

NAMES, PLACES = ("Anna", "Bob", "Carla", "Dora", "Emil", "Fred"), ("Rome", "Paris", "New York", "Bonn", "Los Angeles")
SMALL: dict[str, Any] = {
    "hidden": 24, "word_size": 24, "filters": 16, "batch_size": 16, "lr": 0.01, "precision": "fp32", "threads": 1,
}  # fmt: skip


def text(kind: str, num: int = 150) -> str:
    rng = np.random.default_rng(0)
    out = []
    for _ in range(num):
        name, place = rng.choice(NAMES), rng.choice(PLACES).split()
        words = [name, "went" if rng.random() < 0.5 else "travels", "to", *place, "."]
        spans = ["B-PER", "O", "O", "B-LOC", *["I-LOC"] * (len(place) - 1), "O"]
        labels = ["PROPN", "VERB", "ADP", *["PROPN"] * len(place), "PUNCT"]
        rows = zip(words, spans if kind == "spans" else labels, strict=True)
        out.append("".join(f"{w} {t}\n" for w, t in rows))
    return "\n".join(out)


@pytest.fixture(scope="module", params=["spans", "labels"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tags")
    (folder / "a.conll").write_text(text(request.param))
    return dolmen.train(
        "token-classification", folder / "a.conll", folder / "run", epochs=12, allow_leaks=True, **SMALL
    )


def test_it_learns(run: Any) -> None:
    spans = run.task.processor.kind == "spans"
    assert run.evaluation["val"]["metrics"]["f1" if spans else "accuracy"] > 0.95
    answer = run.predict("Dora went to Los Angeles.", n_best=2)
    if spans:
        spans = [(s["text"], s["label"]) for s in answer.to_json()["spans"]]
        assert spans == [("Dora", "PER"), ("Los Angeles", "LOC")]
        assert all(s["confidence"] > 0.5 for s in answer.to_json()["spans"])
        assert len(answer.readings) == 2
        assert "Los Angeles [LOC" in run.predictor.format_line(answer)
    else:
        assert answer.tags == ("PROPN", "VERB", "ADP", "PROPN", "PROPN", "PUNCT")
        assert run.predictor.format_line(answer).startswith("Dora/PROPN went/VERB")
    assert run.predict([["Dora", "went"]])[0].words == ("Dora", "went")
    page = (run.path / "report.html").read_text()
    table = run.evaluation["test"]["calibration"] if "test" in run.evaluation else run.evaluation["val"]["calibration"]
    assert 0 < table["loss"] < 10
    assert table["loss_before"] > 0
    assert "The loss (mean negative log-likelihood) is" in (run.path / "report.html").read_text(encoding="utf-8")
    for title in ("Label by label", "Mistakes to look at", "Can one believe its confidences?"):
        assert title in page


def test_a_loaded_run_answers_the_same(run: Any, tmp_path: Path) -> None:
    loaded = dolmen.load(run.path)
    many = ["Emil travels to Bonn.", "Bob!", "in New York Fred went to Paris and to Rome and to Bonn"]
    together = [a.to_json() for a in loaded.predict(many)]
    for sentence, got in zip(many, together, strict=True):
        alone = run.predict(sentence).to_json()
        assert [t["tag"] for t in alone["tokens"]] == [t["tag"] for t in got["tokens"]]
        assert [t["confidence"] for t in alone["tokens"]] == pytest.approx(
            [t["confidence"] for t in got["tokens"]], abs=1e-5
        )
    facts = loaded.explain("Emil travels to Bonn.", tmp_path / "why.png")
    assert (tmp_path / "why.png").stat().st_size > 5000
    json.dumps(facts)


def test_evaluation_elsewhere(run: Any, tmp_path: Path) -> None:
    kind = run.task.processor.kind
    (tmp_path / "b.conll").write_text(text(kind).replace("Anna", "Zoe"))
    assert run.evaluate(tmp_path / "b.conll").metrics["accuracy"] > 0.8
    (tmp_path / "c.conll").write_text("Anna B-NEW\n" if kind == "spans" else "Anna NEW\n")
    with pytest.raises(UserError, match=r"c\.conll:1 has the tag '(S-)?NEW', which training never saw"):
        run.evaluate(tmp_path / "c.conll")


def test_vectors_are_used(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(text("spans"))
    (tmp_path / "v.txt").write_text("rome 1 2 3\nParis 4 5 6\nunused 7 8 9\n")
    run = dolmen.train(
        "token-classification", tmp_path / "a.conll", tmp_path / "run", epochs=1, allow_leaks=True,
        vectors=str(tmp_path / "v.txt"), **SMALL,
    )  # fmt: skip
    assert run.model.words.weight.shape[1] == 3
    (tmp_path / "v.txt").unlink()
    assert dolmen.load(run.path).predict("Anna went to Rome.").tags


def test_an_encoder_reads_along(tmp_path: Path) -> None:
    lines = [" ".join(row.split(" ")[0] for row in s.splitlines()) for s in text("spans").split("\n\n")]
    (tmp_path / "plain.txt").write_text("\n".join(lines))
    (tmp_path / "a.conll").write_text(text("spans"))
    language = dolmen.train(
        "text-generation", tmp_path / "plain.txt", tmp_path / "language", epochs=1, hidden=12, allow_leaks=True,
        length=16, precision="fp32", threads=1,
    )  # fmt: skip
    run = dolmen.train(
        "token-classification", tmp_path / "a.conll", tmp_path / "run", epochs=2, allow_leaks=True,
        encoder=str(language.path), **SMALL,
    )  # fmt: skip
    kept, before = run.model.reader.state_dict(), language.model.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in kept.items() if k != "numbers")  # as it was
    prediction = run.predict("Anna went to Rome.").to_json()
    (tmp_path / "language").rename(tmp_path / "gone")
    assert dolmen.load(run.path).predict("Anna went to Rome.").to_json() == prediction
    sentences = [["Anna", "went", "to", "Rome", "."], ["x" * 40, "\u2603", "Ben"], ["Rome"]]
    bundle = dolmen.load(dolmen.export(run, tmp_path / "b.dolmen"))
    for mine, theirs in zip(run.predict(sentences), bundle.predict(sentences), strict=True):
        assert mine.tags == theirs.tags
        assert mine.confidences == pytest.approx(theirs.confidences, abs=1e-4)
    # What training works out from the characters is what prediction is given.
    batch = run.task.datasets["train"].batch(np.arange(5))
    outside = run.task.network_outputs(run.predictor.networks, {k: v.numpy() for k, v in batch.items()})["emissions"]
    with torch.no_grad():
        inside = run.task.outputs(run.model, batch)["emissions"].numpy()
    np.testing.assert_allclose(outside, inside, atol=1e-4)
    with pytest.raises(UserError, match=r"is a model of token-classification; it has to be one of text-generation"):
        dolmen.train(
            "token-classification", tmp_path / "a.conll", tmp_path / "r", epochs=1, encoder=str(run.path), **SMALL
        )


def test_a_sentence_of_ten_thousand_words(run: Any) -> None:
    answer = run.predict([["Anna", "went", "to", "Rome"] * 2500])[0]
    assert len(answer.tags) == 10_000
