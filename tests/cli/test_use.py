"""Flags of the verbs that use a model: wherever they stand, they mean the same."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dolmen import verbs
from dolmen.catalogue import TASKS, load_predictor
from dolmen.cli.use import _predict_parser, _watch_parser
from dolmen.runtime.manifest import FORMAT
from dolmen.runtime.model import Model
from dolmen.runtime.predictor import Predictor
from dolmen.types import Prediction, UserError

Command = Callable[..., Any]
WORKING = [name for name, entry in TASKS.items() if entry.works]


class NothingBehind(Model):
    """A model that writes down what it is asked for, and has nothing to say."""

    def __init__(self, path: Path, task: str, asked: dict[str, Any]) -> None:
        self.path, self.task_name, self.asked = path, task, asked
        self._predictor = object.__new__(load_predictor(task))
        self._predictor.processor, self._predictor.networks = None, {}

    @property
    def predictor(self) -> Predictor[Any]:
        return self._predictor

    def predict_each(
        self, inputs: Iterable[Any], *, batch_size: int = 64, **options: Any
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        self.asked["options"] = options
        return iter(())

    def watch(self, source: str | Path, **options: Any) -> Iterator[Prediction]:
        self.asked |= {"options": options, "inputs": [source]}
        return iter(())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command line asked of a model."""
    asked: dict[str, Any] = {}

    def load(path: str, threads: int | None = None) -> Model:
        place = Path(path)
        about = place / ("bundle.json" if (place / "bundle.json").exists() else "config.json")
        asked.update(path=path, threads=threads)
        model = NothingBehind(place, json.loads(about.read_text())["task"], asked)
        monkeypatch.setattr(type(model.predictor), "expand", lambda self, given: asked.update(inputs=given) or [])
        return model

    monkeypatch.setattr(verbs, "load", load)
    return asked


def a_model(folder: Path, task: str, kind: str) -> Path:
    """A run or a bundle, as far as the command line looks into it before it reads the flags."""
    folder.mkdir()
    if kind == "bundle":
        graphs, files = {"model": {"file": "model.onnx"}}, {"model.onnx": {"sha256": "0" * 64, "bytes": 0}}
        empty: dict[str, Any] = {"processor": {}, "files": files, "evaluation": {}}
        about = {"format": FORMAT, "task": task, "made_of": "a run", "precision": "fp32", "graphs": graphs, **empty}
        (folder / "bundle.json").write_text(json.dumps(about))
        return folder
    (folder / "config.json").write_text(json.dumps({"task": task, "config": {}}))
    for name in ("processor.json", "weights.safetensors"):
        (folder / name).write_text("{}")
    return folder


def flags_of(verb: str, task: str) -> list[tuple[list[str], list[str]]]:
    """Each flag that the verb takes of this task, as words apart and with ``=``."""
    predictor = load_predictor(task)
    flags = [(["--threads", "2"], ["--threads=2"]), (["--json"], ["--json"])]
    if verb == "predict" and predictor.draws:
        flags.append((["--draw", "out"], ["--draw=out"]))
    for name, field in (predictor.Options if verb == "predict" else predictor.Watching).model_fields.items():
        flag, types = "--" + name.replace("_", "-"), {field.annotation, *typing.get_args(field.annotation)}
        if bool in types:
            flags += [([flag], [flag]), (["--no-" + flag[2:]], ["--no-" + flag[2:]])]
        else:
            flags.append(([flag, "-0.5"], [flag + "=-0.5"]))
            flags.append(([flag, "a word"], [flag + "=a word"]))
    return flags


@pytest.mark.parametrize("kind", ["run", "bundle"])
@pytest.mark.parametrize("task", WORKING)
@pytest.mark.parametrize("verb", ["predict", "watch"])
def test_flags_may_stand_anywhere(
    command: Command, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, task: str,
    kind: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    model = str(a_model(tmp_path / "model", task, kind))

    def given(*words: str) -> dict[str, Any]:
        asked.clear()
        said = command(verb, *words)
        assert (said.status, said.err) == (0, ""), words
        assert (asked["path"], asked["inputs"]) == (model, ["x"]), words
        return dict(asked)

    plain, seen = given(model, "x"), 0
    for apart, joined in flags_of(verb, task):
        behind = given(model, "x", *apart)
        seen += behind != plain
        for flag in (apart, joined):
            for words in (
                (*flag, model, "x"), (model, *flag, "x"), (model, "x", *flag), (*flag, "--", model, "x"),
                (model, *flag, "--", "x"), ("--json", *flag, "--threads", "2", model, "x"),
            ):  # fmt: skip
                with_threads = behind | ({"threads": 2} if "--json" in words[:1] and flag != ["--json"] else {})
                assert given(*words)["options"] == with_threads["options"], words
                if words[0] != "--json":
                    assert asked["threads"] == behind["threads"], words
    assert seen >= len(flags_of(verb, task)) - 2  # but for --json and --draw, which the model does not see


def test_values_of_flags_are_not_taken_for_the_model(command: Command, asked: dict[str, Any], tmp_path: Path) -> None:
    """Not even when they name one, of another task."""
    boxes = str(a_model(tmp_path / "boxes", "object-detection", "run"))
    tagger = str(a_model(tmp_path / "2", "token-classification", "run"))
    assert command("predict", "--threshold", "0.5", "--draw", tagger + "/new", boxes, "x").status == 0
    assert (asked["path"], asked["options"]) == (boxes, {"threshold": "0.5"})
    assert command("predict", "--n-best", "3", tagger, boxes, boxes).status == 0
    assert (asked["path"], asked["inputs"], asked["options"]) == (tagger, [boxes, boxes], {"n_best": "3"})
    text = str(a_model(tmp_path / "text", "text-generation", "bundle"))
    assert command("predict", "--stop", boxes, text, "x").status == 0
    assert (asked["path"], asked["options"]) == (text, {"stop": boxes})
    said = command("predict", "--draw", boxes, text, "x")
    said.is_mistake(f"{text} has not all of the flags before it; dolmen predict --help shows what can be given")


def test_help_before_the_model_lists_its_flags(command: Command, tmp_path: Path) -> None:
    model = a_model(tmp_path / "run", "token-classification", "run")
    for words in (["--help", model], [model, "-h"], ["--threads", "2", model, "x", "--help"]):
        said = command("predict", *words)
        assert (said.status, said.err) == (0, "")
        assert "--n-best" in said.out
    assert "--n-best" not in command("predict", "--help").out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--threads 2 MODEL", "the following arguments are required: inputs; .*"),
        ("--threads MODEL x", "argument --threads: .*MODEL' is no number from 1 on; .*"),
        ("--nbest 3 MODEL x", "there is no flag --nbest; did you mean --n-best. .*"),
        ("--n-best 3 gone x", "--n-best was not expected; .*"),
        ("--threads 2 gone x", "there is no run at gone; dolmen runs lists the runs that are here"),
        ("--threads 2 --n-best 3 MODEL", "the following arguments are required: inputs; .*"),
    ],
)
def test_a_mistake_before_the_model_is_one_sentence(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    a_model(tmp_path / "MODEL", "token-classification", "run")
    command("predict", *words.split()).is_mistake(sentence)


def test_a_text_that_is_too_long_for_a_file_is_no_model(
    command: Command, asked: dict[str, Any], tmp_path: Path
) -> None:
    model = str(a_model(tmp_path / "text", "text-generation", "run"))
    text = "long" * 2000
    assert command("predict", "--stop", text, model, text).status == 0
    assert (asked["path"], asked["inputs"], asked["options"]) == (model, [text], {"stop": text})


@pytest.mark.parametrize("task", WORKING)
def test_help_is_of_the_task(task: str) -> None:
    predictor = load_predictor(task)
    predict, watch = (" ".join(p(predictor).format_help().split()) for p in (_predict_parser, _watch_parser))
    assert f"inputs {predictor.inputs_help}" in predict
    assert f"source {predictor.source_help}" in watch
    assert ("--draw FOLDER" in predict) == predictor.draws
