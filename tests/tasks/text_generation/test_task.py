"""Text generation from end to end on small texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dolmen
from dolmen.engine.evaluate import gather_outputs
from dolmen.nn.recurrent.language_model import LanguageModel
from dolmen.processors.text.tokens import fit_text
from dolmen.tasks.text_generation.data.windows import TextDataset
from dolmen.tasks.text_generation.task import TextGeneration, TextGenerationConfig, _nll
from dolmen.types import UserError

TEXT = "she sells sea shells. " * 200
SMALL: dict[str, Any] = {"hidden": 24, "layers": 1, "length": 32, "batch_size": 8, "precision": "fp32", "threads": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dolmen.verbs.Run:  # type: ignore[name-defined]
    folder = tmp_path_factory.mktemp("text")
    (folder / "sea.txt").write_text(TEXT)
    return dolmen.train("text-generation", folder / "sea.txt", folder / "run", epochs=12, lr=0.02, **SMALL)


def test_it_learns_and_writes(run: Any) -> None:
    assert run.evaluation["test"]["metrics"]["bits_per_character"] < 0.6
    text = run.predict("she sells", temperature=0, length=40)
    assert text.prompt + text.text == ("she sells sea shells. " * 4)[: 9 + 40]


def test_a_sample_of_the_vocabulary_teaches_the_same(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dolmen.tasks.text_generation.task.DRAWN_SHARE", 0.7)  # a quarter of a dozen says little
    (tmp_path / "sea.txt").write_text(TEXT)
    options = SMALL | {"softmax": "sampled", "epochs": 12, "lr": 0.02}
    sampled = dolmen.train("text-generation", tmp_path / "sea.txt", tmp_path / "run", **options)
    assert run.task.config.softmax == "full"  # so few tokens are not worth a sample
    assert sampled.evaluation["test"]["metrics"]["bits_per_character"] < 0.8
    assert sampled.evaluation["test"]["metrics"] != run.evaluation["test"]["metrics"]


def test_options_of_writing(run: Any, tmp_path: Path) -> None:
    def write(**options: Any) -> str:
        return str(run.predict("she ", length=30, **options).text)

    assert write(seed=1, temperature=3.0) == write(seed=1, temperature=3.0)
    assert write(seed=1, temperature=3.0) != write(seed=2, temperature=3.0)
    assert write(temperature=0, stop="shells") == "sells sea "
    with pytest.raises(UserError, match="did you mean 'temperature'"):
        write(temprature=1)
    with pytest.raises(UserError, match="top_p = 2"):
        write(top_p=2)


def test_a_saved_state_goes_on_as_if_nothing_had_been(run: Any, tmp_path: Path) -> None:
    whole = run.predict("she ", temperature=0, length=40).text
    state = tmp_path / "state"
    first = run.predict("she ", temperature=0, length=15, state=str(state)).text
    rest = run.predict("", temperature=0, length=25, state=str(state)).text
    assert first + rest == whole
    (tmp_path / "broken").write_bytes(b"no state")
    with pytest.raises(UserError, match="broken: this is no saved session"):
        run.predict("", state=str(tmp_path / "broken"))


def test_steps_equal_the_network(run: Any) -> None:
    processor, model = run.task.processor, run.model
    steps = run.network.steps()
    tokens = processor.encode_text("she sells sea")
    several = np.concatenate([steps.read(tokens[:1]), steps.read(tokens[1:])])
    with torch.no_grad():
        logits, _, state = model(torch.from_numpy(tokens.astype(np.int64))[None])
    np.testing.assert_allclose(several, logits[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(steps.state["hidden"], state.hidden.numpy(), atol=1e-5)


def untrained(
    config: dict[str, Any], tokens: np.ndarray[Any, Any]
) -> tuple[TextGeneration, LanguageModel, TextDataset]:
    data = TextDataset(tokens, 16, len(tokens))
    processor = fit_text("characters", ["abcdefgh"], None, 1)
    task = TextGeneration(TextGenerationConfig(**SMALL | config), processor, {"train": data})
    torch.manual_seed(0)
    return task, task.build_model().eval(), data


@pytest.mark.parametrize("num", [2, 16, 17, 18, 200, 16 * 40 + 1, 16 * 41 + 5])
def test_the_state_is_carried_through_the_text(num: int) -> None:
    tokens = np.random.default_rng(0).integers(1, 9, num).astype(np.uint8)
    task, model, data = untrained({}, tokens)
    nll = gather_outputs(task, model, data, batch_size=64)["nll"]
    assert np.isfinite(nll).sum() == num - 1 == data.num_targets
    with torch.no_grad():
        whole, _ = _nll(model, torch.from_numpy(tokens.astype(np.int64))[None], None)
    # A stream begins with the state after the window before it, so what was earlier is out of its sight.
    gap = np.abs(nll[np.isfinite(nll)] - whole[0].numpy())
    assert gap.max() < 0.1
    assert gap.mean() < 1e-2
    quick = gather_outputs(task, model, data, batch_size=7, quick=True)["nll"]
    np.testing.assert_allclose(quick[np.isfinite(quick)], nll[np.isfinite(nll)], atol=0.1)


def test_training_carries_the_state_of_each_stream() -> None:
    tokens = np.random.default_rng(0).integers(1, 9, 400).astype(np.uint8)
    task, model, _ = untrained({"dropout": 0.0}, tokens)
    model.train()
    loss = task.objectives(model)[0].loss
    batches = [task.training_batch(i, 4)[1] for i in range(3)]
    totals = [float(loss(b).total.detach()) for b in batches]
    joined = torch.cat([b["tokens"][:, :-1] for b in batches] + [batches[-1]["tokens"][:, -1:]], 1)
    with torch.no_grad():
        nll, _ = _nll(model, joined, None)
    assert sum(totals) == pytest.approx(float(nll.sum()), rel=1e-4)
    assert task.carried["hidden"].shape == (1, 4, 24)
    part = {k: v[2:] for k, v in batches[0].items()}  # a part of the streams, as a micro-batch or another process has
    float(loss(part).total.detach())


@pytest.mark.parametrize("config", [
    {"cell": "gru"}, {"cell": "rnn"}, {"tied": False}, {"size": 10}, {"units": "words"},
    {"units": "bpe", "vocabulary": 300},
    {"embedding_dropout": 0.1, "weight_drop": 0.2, "activation_penalty": 2.0, "change_penalty": 1.0, "dropout": 0.2},
], ids=str)  # fmt: skip
def test_every_choice_trains_and_writes(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    run = dolmen.train("text-generation", tmp_path / "t.txt", tmp_path / "run", epochs=1, **SMALL | config)
    assert len(run.predict("she sells", length=5).text) >= 1
    assert (tmp_path / "run" / "report.html").read_text().count("<section") >= 5
    facts = dolmen.load(tmp_path / "run").explain("she sells sea shells", tmp_path / "why.png")
    assert facts["bits_per_token"] > 0


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "latin": (lambda p: (p / "t.txt").write_bytes("Süß ".encode("latin-1") * 100), "is not text in utf-8"),
    "short": (lambda p: (p / "t.txt").write_text("ab"), "too short to train on"),
    "empty": (lambda p: (p / "t.txt").write_text(""), "holds no text: it is empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_data(name: str, tmp_path: Path) -> None:
    make, message = WRONG[name]
    make(tmp_path)
    with pytest.raises(UserError, match=message):
        dolmen.train("text-generation", tmp_path / "t.txt", tmp_path / "run", epochs=1, **SMALL)
    assert not (tmp_path / "run").exists()


def test_wrong_encoding_name_and_split(run: Any, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    with pytest.raises(UserError, match="there is no encoding 'utf-99'"):
        dolmen.check("text-generation", tmp_path / "t.txt", encoding="utf-99")
    (tmp_path / "train.txt").write_text(TEXT)
    (tmp_path / "t.txt").unlink()
    with pytest.raises(UserError, match="has no test part; it has train, val"):
        run.evaluate(tmp_path, split="test")


def test_what_was_trained_on_is_not_measured_on(run: Any) -> None:
    saved = json.loads((run.path / "config.json").read_text())
    evaluation = run.evaluate(saved["data"])
    assert evaluation.num_examples < 4
    assert evaluation.metrics["bits_per_character"] < 1
