"""What every task promises, whatever it is about. Each task is tried on the data that its own ``sample`` writes."""

from __future__ import annotations

import html
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ended_well
from contract.case import Case, case_of
from safetensors.numpy import load as load_arrays
from safetensors.torch import load_file

import dolmen
from dolmen.catalogue import TASKS, load_task
from dolmen.engine.evaluate import gather_outputs
from dolmen.engine.train import fit
from dolmen.report.card import text as escaped
from dolmen.report.description import read_description
from dolmen.types import UserError

WORKING = [name for name, entry in TASKS.items() if entry.works]


@pytest.fixture(scope="module", params=WORKING)
def task(request: pytest.FixtureRequest) -> str:
    """The name of a task. A module that tries another one imports all tests from here and overrides this."""
    return str(request.param)


@pytest.fixture(scope="module")
def case(task: str) -> Case:
    return case_of(task)


@pytest.fixture(scope="module")
def data(task: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dolmen.sample(task, tmp_path_factory.mktemp(task) / "sample")


@pytest.fixture(scope="module")
def run(task: str, case: Case, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return dolmen.train(task, data, tmp_path_factory.mktemp("run") / "run", epochs=2, **case.quick)


def program(case: Case, code: str, *arguments: object) -> list[str]:
    """A process of its own that runs Python code, where the task is known."""
    return [sys.executable, "-c", f"{case.setup}\n{code}", *(str(a) for a in arguments)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.thorough
def test_overfits_one_batch(task: str, case: Case, data: Path, tmp_path: Path) -> None:
    task_class = load_task(task)
    config = task_class.Config(**case.quick | {"batch_size": 16} | case.by_heart)
    prepared = task_class.prepare(config, str(data))
    few = prepared.datasets["train"].subset(np.arange(16))
    made = task_class.from_prepared(prepared).replace(datasets={"train": few, "val": few})
    model = fit(made, tmp_path, seconds=None)
    assert case.known(made.evaluate(gather_outputs(made, model, few), few).metrics)


def test_run_folder_explains_itself(task: str, run: Any) -> None:
    names = {p.name for p in run.path.iterdir()}
    assert names == {
        "config.json", "processor.json", "weights.safetensors", "seen.safetensors", "metrics.jsonl", "environment.json",
        "check.json", "evaluation.json", "description.json", "card.md", "report.html",
    }  # fmt: skip
    saved = json.loads((run.path / "config.json").read_text())
    assert saved["task"] == task
    assert set(saved["config"]) == set(run.task.Config.model_fields)
    assert run.task.headline in run.evaluation["val"]["metrics"]


def test_every_metric_is_declared_and_explained(task: str, run: Any) -> None:
    metrics = run.task.METRICS
    measured = {name for evaluation in run.evaluation.values() for name in evaluation["metrics"]}
    watched = {name for look in looks(run.path) for name in look["val"]}
    assert measured | watched | {run.task.headline, run.task.monitor} <= metrics.keys()
    report, card = ((run.path / name).read_text("utf-8") for name in ("report.html", "card.md"))
    for name in measured:
        assert metrics[name].title
        assert not metrics[name].meaning.endswith(".")
        assert f"| {metrics[name].title} |" in card
        assert f"| {metrics[name].meaning} |" in card
        assert html.escape(metrics[name].title) in report
        assert html.escape(metrics[name].meaning) in report


def test_the_card_says_what_the_model_is_for(task: str, run: Any) -> None:
    sentences, facts = run.task.intended_use(), run.task.facts()
    assert sentences
    assert facts
    card, report = ((run.path / name).read_text("utf-8") for name in ("card.md", "report.html"))
    use = card.partition("## Intended use and limits")[2].partition("##")[0]
    for sentence in sentences:
        assert sentence.endswith(".")
        assert escaped(sentence) in use
    for name, value in facts:
        assert f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" in report
    again = read_description(run.path)  # which needs no torch
    assert (again.headline, list(again.facts), list(again.intended_use)) == (run.task.headline, facts, sentences)
    assert again.metrics == dict(run.task.METRICS)


def test_loaded_run_predicts_the_same(case: Case, run: Any, data: Path) -> None:
    loaded, given = dolmen.load(run.path), case.an_input(data)
    first, second = run.predict(given).to_json(), loaded.predict(given).to_json()
    assert first == second
    assert loaded.predict([given] * 3) is not None


def test_evaluating_again_gives_the_same_figures(task: str, run: Any, data: Path) -> None:
    made = run.task
    val = made.datasets["val"]
    # Trained weights lie channels last, and convolutions of another layout differ in their last digits.
    model = dolmen.load(run.path).model.to(memory_format=torch.channels_last)
    again = made.evaluate(gather_outputs(made, model, val), val)
    assert again.metrics == run.evaluation["val"]["metrics"]


@pytest.mark.thorough
def test_the_same_seed_repeats_and_another_does_not(
    task: str, case: Case, run: Any, data: Path, tmp_path: Path
) -> None:
    again = dolmen.train(task, data, tmp_path / "again", epochs=2, **case.quick)
    other = dolmen.train(task, data, tmp_path / "other", epochs=2, seed=1, **case.quick)
    assert_same(weights(run.path), weights(again.path))
    assert any(
        not torch.equal(a, b) for a, b in zip(weights(run.path).values(), weights(other.path).values(), strict=True)
    )


def command(task: str, case: Case, data: Path, out: Path) -> list[str]:
    flags = [f for k, v in case.quick.items() for f in (f"--{k.replace('_', '-')}", str(v))]
    return ["train", task, str(data), "--out", str(out), "--epochs", "2", *flags]


MAIN = """
import sys
from dolmen.cli import main
sys.exit(main(sys.argv[1:]))
"""
SLOW_STEPS = """
import sys, time
import torch
torch.set_num_threads(1)
import dolmen.engine.train as train
train.CHECKPOINT_EVERY_S = 0.0
tell = train._Journal.notify
def slow(self, record):
    if record["event"] == "step":
        time.sleep(0.3)
    tell(self, record)
train._Journal.notify = slow
from dolmen.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.thorough
def test_killed_and_resumed_equals_uninterrupted(task: str, case: Case, run: Any, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(program(case, SLOW_STEPS, *command(task, case, data, out)))
    end = time.monotonic() + 120
    while not (out / "checkpoint" / "state.safetensors").exists():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    with pytest.raises(UserError, match=r"has not ended; go on with: dolmen train .* --resume"):
        dolmen.load(out)
    resumed = dolmen.train(task, data, out, resume=True, epochs=2, **case.quick)
    assert_same(weights(run.path), weights(resumed.path))


@pytest.mark.thorough
def test_two_processes_equal_one(task: str, case: Case, run: Any, data: Path, tmp_path: Path) -> None:
    out, script = tmp_path / "two", tmp_path / "script.py"
    script.write_text(f"{case.setup}\n{MAIN}")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *command(task, case, data, out)], env=env, capture_output=True, text=True)
    assert ended_well(done), done.stderr
    # Orthogonalised updates turn rounding in directions without gradient into whole steps, so weights may part where
    # nothing depends on them; what must agree is every loss. The engine's own test compares weights, under SGD.
    losses = [[r["loss"] for r in looks(folder)] for folder in (run.path, out)]
    assert losses[0] == pytest.approx(losses[1], rel=case.apart)


def looks(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "look"]


def test_a_batch_of_one(task: str, case: Case, data: Path, tmp_path: Path) -> None:
    task_class = load_task(task)
    prepared = task_class.prepare(task_class.Config(**case.quick | {"epochs": 1, "batch_size": 1}), str(data))
    few = prepared.datasets["train"].subset(np.arange(5))
    made = task_class.from_prepared(prepared).replace(datasets={**prepared.datasets, "train": few})
    model = fit(made, tmp_path, seconds=None)
    outputs = gather_outputs(made, model, made.datasets["val"].subset(np.arange(1)))
    assert all(np.isfinite(v).all() and len(v) >= 1 for v in outputs.values())


def test_empty_input_is_a_clear_error(task: str, run: Any, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError) as caught:
        dolmen.train(task, tmp_path / "nothing", tmp_path / "out", epochs=1)
    assert str(tmp_path / "nothing") in str(caught.value)
    assert not (tmp_path / "out").exists()
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    with pytest.raises(UserError, match="empty"):
        run.predict(empty)


@pytest.fixture(scope="module", params=[False, True], ids=["fp32", "int8"])
def bundle(request: pytest.FixtureRequest, run: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run, exported: as one file in fp32, as a folder with eight bits."""
    with pytest.MonkeyPatch.context() as patch:
        # Networks that have hardly learned answer by a hair; what eight bits may cost is tested in tests/export.
        patch.setattr("dolmen.exporting.bundle.MAX_METRIC_LOSS", 0.2)
        out = tmp_path_factory.mktemp("bundle") / ("small" if request.param else "model.dolmen")
        return dolmen.load(dolmen.export(run, out, int8=request.param))


def test_a_bundle_predicts_what_the_run_predicts(task: str, case: Case, run: Any, bundle: Any, data: Path) -> None:
    assert bundle.describe()["task"] == task
    assert bundle.describe()["labels"] == run.describe()["labels"]
    if bundle.about["precision"] == "fp32":
        mine, theirs = (close(m.predict(case.an_input(data))) for m in (run, bundle))
        assert mine == theirs
    assert bundle.about["parity"]["largest_difference"] <= 1e-4
    assert dolmen.bench(bundle, seconds=0.01)["latency_ms_p50"] > 0


def close(prediction: Any) -> Any:
    """A prediction whose numbers are rounded so that the last digit does not matter."""
    return json.loads(json.dumps(prediction.to_json()), parse_float=lambda text: round(float(text), 3))


WITHOUT_TORCH = """
import sys
for name in ("torch", "onnx", "onnxscript", "sklearn", "matplotlib", "numba", "jinja2"):
    sys.modules[name] = None
from dolmen.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_bundle_needs_no_torch(case: Case, bundle: Any, data: Path) -> None:
    arguments = ["predict", bundle.path, case.an_input(data), "--json", "--threads", "1"]
    done = subprocess.run(program(case, WITHOUT_TORCH, *arguments), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "input" in json.loads(done.stdout.splitlines()[0])


def test_without_torch_a_run_says_what_to_type(task: str, case: Case, run: Any) -> None:
    done = subprocess.run(program(case, MISSING_TORCH, run.path, task), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    verbs = ["predict", "export", "train", "bench"]
    assert done.stdout.splitlines() == [f"{verb} 2" for verb in verbs]
    line = f"dolmen: {task} needs torch here; type: pip install 'dolmen[{TASKS[task].extra}]'"
    assert done.stderr.splitlines() == [line] * len(verbs)


MISSING_TORCH = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
sys.modules["torch"] = None
from dolmen.cli import main
run, task = sys.argv[1:]
for words in (["predict", run, "x"], ["export", run], ["train", task, "x"], ["bench", run]):
    print(words[0], main(words))
"""


def test_a_changed_bundle_is_refused(task: str, bundle: Any, tmp_path: Path) -> None:
    if bundle.path.is_dir():
        copy = Path(shutil.copytree(bundle.path, tmp_path / "copy"))
        graph = copy / "model.onnx"
        graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
        with pytest.raises(UserError, match=r"model\.onnx in .* was changed after export"):
            dolmen.load(copy)
        graph.unlink()
        with pytest.raises(UserError, match=r"is damaged \(model\.onnx is missing\); export the run again"):
            dolmen.load(copy)
    else:
        content = bytearray(bundle.path.read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "copy.dolmen").write_bytes(content)
        with pytest.raises(UserError, match=r"was changed after export|is damaged"):
            dolmen.load(tmp_path / "copy.dolmen")
        (tmp_path / "half.dolmen").write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match="is damaged"):
            dolmen.load(tmp_path / "half.dolmen")


def in_mind(session: Any) -> dict[str, Any]:
    """The arrays of a saved session, rounded."""
    arrays = load_arrays(session.save())
    return {k: np.round(v.astype(np.float64), 3).tolist() for k, v in arrays.items() if k != "about"}


@pytest.mark.parametrize("kind", ["run", "bundle"])
def test_a_stream_can_be_cut_anywhere(case: Case, run: Any, bundle: Any, data: Path, kind: str) -> None:
    model = run if kind == "run" else bundle
    pieces, session = case.pieces(data), model.stream()

    def said(chunks: list[Any]) -> list[Any]:
        told = [close(p) for chunk in chunks for p in session.feed(chunk)]
        # A recogniser that has hardly learned says nothing; what it has in mind tells whether it heard the same.
        return [*told, in_mind(session)] if isinstance(pieces[0], np.ndarray) else told

    whole = said(pieces)
    assert whole
    session.reset()
    assert said(pieces) == whole
    session.reset()
    first, saved = said(pieces[:2]), session.save()
    rest = said(pieces[2:])
    if isinstance(pieces[0], np.ndarray):
        first.pop()
    assert first + rest == whole
    session = model.stream()
    session.restore(saved)
    assert said(pieces[2:]) == rest
    if not isinstance(pieces[0], Path):
        session = model.stream()
        assert said([np.concatenate(pieces) if isinstance(pieces[0], np.ndarray) else "".join(pieces)]) == whole
    for wrong in (b"", b"junk", saved[:-3]):
        with pytest.raises(UserError, match="saved session"):
            session.restore(wrong)


def test_a_stream_that_is_left_alone_ends(case: Case, run: Any, data: Path) -> None:
    session = run.stream(idle_timeout_s=1e-9)
    time.sleep(0.001)
    for _ in range(2):
        with pytest.raises(UserError, match=r"was idle for more than 1e-09 s and is over; begin a new one"):
            session.feed(case.pieces(data)[0])
    session.idle_timeout_s = None
    session.reset()
    session.feed(case.pieces(data)[0])


def test_check_and_explain(task: str, case: Case, run: Any, data: Path, tmp_path: Path) -> None:
    report = dolmen.check(task, data)
    assert report.num_files == report.num_used + len(report.skipped)
    facts = run.explain(case.an_input(data), tmp_path / "why.png")
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    json.dumps(facts)


def test_bench_measures(task: str, run: Any) -> None:
    figures = dolmen.bench(run, seconds=0.05)
    assert 0 < figures["latency_ms_p50"] <= figures["latency_ms_p99"]


def test_a_task_does_not_change_while_it_is_used(task: str, run: Any, data: Path, tmp_path: Path) -> None:
    made = run.task

    def state() -> dict[str, Any]:
        return {**vars(made), "processor": made.processor.to_json(), "datasets": dict(made.datasets)}

    before = state()
    val = made.datasets["val"]
    outputs = gather_outputs(made, run.model, val)
    evaluation = made.evaluate(outputs, val)
    calibrated = made.calibrate(run.model, outputs, val)
    dolmen.evaluate(run, data, report=tmp_path / "report")
    assert run.predictor is not None
    assert made.reopen(str(data)).keys() == made.datasets.keys()
    after = state()
    assert {k: v for k, v in after.items() if k in before} == before
    assert calibrated.processor.to_json() == made.processor.to_json()  # the same outputs give the same fit
    assert evaluation.metrics == made.evaluate(outputs, val).metrics
