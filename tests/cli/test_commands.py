"""What a person types and what comes back: text, JSON, exit statuses, and one sentence for every mistake."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK

import dolmen
from dolmen import verbs
from dolmen.catalogue import TASKS
from dolmen.cli import commands as cli
from dolmen.tasks.image_classification.task import ImageClassification
from dolmen.types import MachineError, UserError

Command = Callable[..., Any]
TASK = "image-classification"
FLAGS = [f for k, v in QUICK.items() for f in ("--" + k.replace("_", "-"), str(v))]


def an_image(sample_pictures: Path) -> Path:
    return next(iter(sorted((sample_pictures / "3").glob("*.png"))))


# ---- help


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_verbs(command: Command, words: list[str]) -> None:
    said = command(*words)
    assert said.status == 0
    assert said.err == ""
    for verb in cli.VERBS:
        assert f"dolmen {verb}" in said.out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(command: Command, verb: str) -> None:
    said = command(verb, "--help")
    assert said.status == 0
    assert said.err == ""
    assert f"dolmen {verb}" in said.out
    if verb in {"check", "train", "sample"}:
        assert f"dolmen {verb} {TASK} --help" in said.out


@pytest.mark.parametrize("verb", ["check", "train"])
def test_help_of_a_task_explains_every_choice(command: Command, verb: str) -> None:
    from dolmen.catalogue import load_task

    said = command(verb, TASK, "--help")
    assert said.status == 0
    for name, field in load_task(TASK).Config.model_fields.items():
        assert "--" + name.replace("_", "-") in said.out
        assert field.description
    assert "--no-flip" in said.out
    assert "{auto,fp32,bf16}" in said.out
    assert "--units {words,characters,bpe}" in command(verb, "speech-recognition", "--help").out


def test_version(command: Command) -> None:
    assert command("--version").out == f"dolmen {dolmen.__version__}\n"


def test_python_m_dolmen() -> None:
    done = subprocess.run([sys.executable, "-m", "dolmen", "tasks"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert TASK in done.stdout
    failed = subprocess.run([sys.executable, "-m", "dolmen", "fly"], capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == "dolmen: there is no verb 'fly'; dolmen --help lists them\n"


# ---- mistakes in the words


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("trian", r"there is no verb 'trian'; did you mean train\? dolmen --help lists them"),
        ("xyzzy", "there is no verb 'xyzzy'; dolmen --help lists them"),
        ("train", "dolmen train needs a task first, e.g.: dolmen train image-classification photos/"),
        ("check --json", "dolmen check needs a task first, e.g.: dolmen check image-classification photos/"),
        ("sample", "dolmen sample needs a task first, e.g.: dolmen sample image-classification digits/"),
        (
            "train image-clasification x",
            r"there is no task 'image-clasification'; did you mean image-classification\? dolmen tasks lists them",
        ),
        ("train xyzzy x", "there is no task 'xyzzy'; dolmen tasks lists them"),
        ("train translation x", "translation does not work yet; dolmen tasks shows what does"),
        (
            f"train {TASK}",
            f"the following arguments are required: data; dolmen train {TASK} --help shows what can be given",
        ),
        (
            f"train {TASK} x --epoch 3",
            rf"there is no flag --epoch; did you mean --epochs\? dolmen train {TASK} --help lists the flags",
        ),
        (
            f"train {TASK} x --min=3",
            rf"there is no flag --min; did you mean --minutes\? dolmen train {TASK} --help lists the flags",
        ),
        (f"train {TASK} x --zzz", f"--zzz was not expected; dolmen train {TASK} --help shows what can be given"),
        ("runs --jsn", r"there is no flag --jsn; did you mean --json\? dolmen runs --help lists the flags"),
        (f"train {TASK} x y", f"y was not expected; dolmen train {TASK} --help shows what can be given"),
        (
            f"train {TASK} x --epochs",
            f"argument --epochs: expected one argument; dolmen train {TASK} --help shows what can be given",
        ),
        ("explain r i", "the following arguments are required: --out; dolmen explain --help shows what can be given"),
        (
            "bench r --seconds soon",
            "argument --seconds: invalid float value: 'soon'; dolmen bench --help shows what can be given",
        ),
        ("bench r --seconds nan", "--seconds nan is not possible; give a number of seconds, 0 or more"),
        ("bench r --seconds -1", "--seconds -1.0 is not possible; give a number of seconds, 0 or more"),
        (
            f"train {TASK} x --epochs many",
            "epochs = 'many' is not possible: input should be a valid integer, unable to parse string as an integer; "
            f"dolmen train {TASK} --help lists the choices",
        ),
        (
            f"train {TASK} x --epochs 0",
            f"epochs = .0. is not possible: input should be greater than 0; dolmen train {TASK} --help lists the .*",
        ),
        (
            f"check {TASK} x --augment strog",
            r"augment = 'strog' is not possible: input should be 'auto', .* or 'strong'; did you mean 'strong'\? "
            f"dolmen train {TASK} --help lists the choices",
        ),
        (f"train {TASK} x --epochs 1 --minutes 1", "minutes and epochs are two budgets; give one of them"),
        (f"train {TASK} x --resume", r"--resume needs the run to go on with; add --out RUN"),
        (f"train {TASK} x --resume --out nowhere", "nowhere is no run to go on with; leave --resume out to train .*"),
        (f"train {TASK} nowhere/at/all", "there is no nowhere/at/all; check the path"),
        (f"check {TASK} nowhere/at/all", "there is no nowhere/at/all; check the path"),
        ("evaluate nowhere x", "there is no run at nowhere; dolmen runs lists the runs that are here"),
        ("predict nowhere x", "there is no run at nowhere; dolmen runs lists the runs that are here"),
        ("explain nowhere x --out p.png", "there is no run at nowhere; dolmen runs lists the runs that are here"),
        ("bench nowhere", "there is no run at nowhere; dolmen runs lists the runs that are here"),
        ("runs nowhere", "there is no folder nowhere; train something first, or name the folder that holds your runs"),
    ],
)
def test_a_mistake_is_one_sentence(command: Command, words: str, sentence: str, in_tmp_path: Path) -> None:
    command(*words.split()).is_mistake(sentence)
    assert list(in_tmp_path.iterdir()) == []


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- each verb


def test_sample(command: Command, tmp_path: Path) -> None:
    said = command("sample", TASK, tmp_path / "new")
    assert said.status == 0
    assert (
        said.out == f"wrote a sample to {tmp_path / 'new'}; next: dolmen train {TASK} {tmp_path / 'new'} --minutes 1\n"
    )
    assert len(list((tmp_path / "new").rglob("*.png"))) == 200
    command("sample", TASK, tmp_path / "new").is_mistake(".* exists already and is not empty; name a new folder")


def test_train(command: Command, sample_pictures: Path, in_tmp_path: Path) -> None:
    said = command("train", TASK, sample_pictures, *FLAGS)
    assert said.status == 0
    run = "runs/image-classification-digits-1"
    validation, test, report, use = said.out.splitlines()
    assert re.match(
        r"validation \(16 examples\): accuracy 0\.\d{4} \[0\.\d{4}, [01]\.\d{4}\]  balanced accuracy", validation
    )
    assert test.startswith("test (40 examples): accuracy ")
    assert (report, use) == (f"report: {run}/report.html", f"use it: dolmen predict {run} INPUT...")
    assert f"training {TASK} on {sample_pictures} (train 144, val 16, test 40) -> {run}" in said.err
    assert "fp32, as asked" in said.err
    assert "validation: loss" in said.err
    quiet = command("train", TASK, sample_pictures, *FLAGS, "--quiet", "--out", "named")
    assert (quiet.status, quiet.err) == (0, "")
    saved = json.loads(Path("named/config.json").read_text())
    assert (
        saved["command"]
        == f"dolmen train {TASK} {sample_pictures} --out named --epochs 1 --precision fp32 --image-size 16"
    )
    command("train", TASK, sample_pictures, "--out", "named").is_mistake(
        "named exists already; choose another --out, or add --resume to go on with it"
    )
    command("train", TASK, sample_pictures, "--out", "named", "--resume").is_mistake(
        "the training of named has ended, there is nothing to resume; train anew with another --out"
    )


def test_check(command: Command, sample_pictures: Path) -> None:
    text = command("check", TASK, sample_pictures)
    assert text.status == 0
    assert "200" in text.out
    said = command("check", TASK, sample_pictures, "--json")
    assert (said.status, said.err) == (0, "")
    found = json.loads(said.out)
    assert set(found) == {"task", "source", "num_files", "num_used", "skipped", "counts", "summary", "findings"}
    assert (found["task"], found["num_files"], found["num_used"]) == (TASK, 201, 200)
    assert [s["name"] for s in found["skipped"]] == ["NOTICE.txt"]


def test_check_converts_where_the_task_can(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    said = command("check", TASK, "photos", "--convert", "coco", "--out", "x")
    said.is_mistake(f"--convert was not expected; dolmen check {TASK} --help shows what can be given")
    with pytest.raises(UserError, match=f"^{TASK} has no other formats to convert to; leave --convert out$"):
        verbs.convert(TASK, "photos", "coco", "x")

    asked = []

    def convert(data: str, form: str, out: Path, progress: Any) -> list[str]:
        asked.append((data, form, out))
        return ["2 boxes have no area."]

    monkeypatch.setattr(ImageClassification, "convert_formats", ("voc", "coco"))
    monkeypatch.setattr(ImageClassification, "convert", convert)
    said = command("check", TASK, "photos", "--convert", "coco", "--out", "boxes")
    assert (said.status, said.err) == (0, "")
    assert said.out == f"2 boxes have no area.\nwrote boxes; next: dolmen check {TASK} boxes\n"
    said = command("check", TASK, "photos", "--convert", "voc", "--out", "boxes", "--json")
    assert json.loads(said.out) == {"out": "boxes", "notes": ["2 boxes have no area."]}
    assert asked == [("photos", "coco", Path("boxes")), ("photos", "voc", Path("boxes"))]
    for words in (["--convert", "coco"], ["--out", "boxes"]):
        said = command("check", TASK, "photos", *words)
        said.is_mistake("--convert FORMAT and --out FOLDER go together; give both, or none")
    command("check", TASK, "photos", "--convert", "x").is_mistake(".*invalid choice: 'x'.*")


def test_evaluate(command: Command, sample_run: Path, sample_pictures: Path, tmp_path: Path) -> None:
    text = command("evaluate", sample_run, sample_pictures)
    assert text.status == 0
    accuracy = r"accuracy +0\.\d{4}   95 % \[0\.\d{4}, [01]\.\d{4}\]  +share of examples decided rightly"
    assert re.search(rf"^40 examples of .*\n  {accuracy}\n", text.out)
    said = command("evaluate", sample_run, sample_pictures, "--json")
    assert (said.status, said.err, said.out.count("\n")) == (0, "", 1)
    found = json.loads(said.out)
    assert {"task", "num_examples", "metrics", "intervals", "classes", "confusion", "per_class"} <= set(found)
    assert found["num_examples"] == 40
    assert found["metrics"].keys() >= {"accuracy", "balanced_accuracy", "macro_f1", "auroc", "loss", "brier", "ece"}
    assert all(low <= found["metrics"][name] <= high for name, (low, high) in found["intervals"].items())
    report = command("evaluate", sample_run, sample_pictures, "--report", tmp_path / "new" / "report")
    assert report.status == 0
    assert "<html" in (tmp_path / "new" / "report" / "report.html").read_text()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["report"]
    again = command("evaluate", sample_run, sample_pictures, "--report", tmp_path / "new" / "report")
    again.is_mistake(".*report exists already; choose another --report")


def test_predict(command: Command, sample_run: Path, sample_pictures: Path) -> None:
    one, other = sorted((sample_pictures / "3").glob("*.png"))[:2]
    said = command("predict", sample_run, one, other)
    assert (said.status, said.err) == (0, "")
    first, second = said.out.splitlines()
    assert re.fullmatch(rf"{one}: \d \d+\.\d%  \(\d \d+\.\d%, \d \d+\.\d%\)", first)
    assert second.startswith(f"{other}: ")
    lines = command("predict", sample_run, sample_pictures / "3", "--json")
    assert (lines.status, lines.err) == (0, "")
    answers = [json.loads(line) for line in lines.out.splitlines()]
    assert len(answers) == 20
    assert [a["input"] for a in answers] == [str(p) for p in sorted((sample_pictures / "3").glob("*.png"))]
    for answer in answers:
        assert set(answer) == {"input", "label", "probability", "probabilities"}
        assert answer["probability"] == max(answer["probabilities"].values())
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_predict_goes_on_after_a_broken_picture(
    command: Command, sample_run: Path, sample_pictures: Path, tmp_path: Path
) -> None:
    for name in ("a.png", "c.png"):
        shutil.copy(an_image(sample_pictures), tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "notes.txt").write_text("no picture, and nobody asked for it")
    said = command("predict", sample_run, tmp_path)
    assert said.status == 2
    assert [line.partition(":")[0] for line in said.out.splitlines()] == [str(tmp_path / n) for n in ("a.png", "c.png")]
    assert re.fullmatch(rf"dolmen: {tmp_path / 'b.png'} can't be read: \w+ file\n", said.err)
    lines = [json.loads(line) for line in command("predict", sample_run, tmp_path, "--json").out.splitlines()]
    assert [set(line) - {"input"} for line in lines] == [
        {"label", "probability", "probabilities"},
        {"error"},
        {"label", "probability", "probabilities"},
    ]
    command("predict", sample_run, "gone.png").is_mistake("gone.png can't be read: No such file or directory")


def test_predict_of_a_folder_without_pictures(command: Command, sample_run: Path, tmp_path: Path) -> None:
    command("predict", sample_run, tmp_path).is_mistake(".* holds no pictures; name a picture, or a folder of them")


def test_explain(command: Command, sample_run: Path, sample_pictures: Path, tmp_path: Path) -> None:
    one, out = an_image(sample_pictures), tmp_path / "why.png"
    text = command("explain", sample_run, one, "--out", out)
    assert text.status == 0
    assert f"picture: {out}" in text.out.splitlines()
    said = command("explain", sample_run, one, "--out", out, "--json")
    facts = json.loads(said.out)
    assert {"input", "label", "probability", "looked_at", "picture"} <= set(facts)
    assert out.read_bytes().startswith(b"\x89PNG")
    bad = tmp_path / "why.jpg"
    command("explain", sample_run, one, "--out", bad).is_mistake(r"--out .*why\.jpg must end in \.png.*")
    command("explain", sample_run, tmp_path / "gone.png", "--out", out).is_mistake(
        ".*gone.png can't be read: No such .*"
    )


def test_bench(command: Command, sample_run: Path) -> None:
    text = command("bench", sample_run, "--seconds", "0.01")
    assert text.status == 0
    assert "latency_ms_p50" in text.out
    figures = json.loads(command("bench", sample_run, "--seconds", "0", "--json").out)
    assert {"parameters", "latency_ms_p50", "latency_ms_p99", "inputs_per_second_batch_64", "processors"} <= set(
        figures
    )


def test_tasks(command: Command) -> None:
    text = command("tasks").out.splitlines()
    assert len(text) == 1 + len(TASKS)
    assert text[1].startswith("works  image-classification  CNN")
    assert text[3].startswith("soon   face-recognition")
    found = json.loads(command("tasks", "--json").out)
    assert list(found) == list(TASKS)
    assert found[TASK]["works"] is True
    assert set(found["translation"]) == {"pillar", "brings", "headline", "works"}


def test_runs(command: Command, sample_run: Path, sample_pictures: Path, tmp_path: Path) -> None:
    for name in ("one", "two", "unfinished", "broken", "older"):
        shutil.copytree(sample_run, tmp_path / name)
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    config["config"] |= {"lr": 0.5, "seed": 7}
    (tmp_path / "two" / "config.json").write_text(json.dumps(config))
    (tmp_path / "unfinished" / "weights.safetensors").unlink()
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "older" / "config.json").write_text('{"task": "x"}')
    (tmp_path / "no run").mkdir()
    said = command("runs", tmp_path)
    assert said.status == 0
    rows = dict(zip(["broken", "older", "one", "two", "unfinished"], [""] * 5, strict=True))
    for line in said.out.splitlines()[1:]:
        rows[Path(line.split()[0]).name] = line
    assert re.search(r"\d\.\d  test: accuracy 0\.\d{4}", rows["one"])
    assert rows["unfinished"].endswith("unfinished, 100 % done; resume it with --resume")
    assert "config.json is damaged (" in rows["broken"]
    assert rows["older"].endswith("older holds unexpected values ('data')")
    assert "no run" not in said.out
    lines = [json.loads(line) for line in command("runs", tmp_path, "--json").out.splitlines()]
    assert len(lines) == 5
    by_name = {Path(line["path"]).name: line for line in lines}
    assert {"path", "task", "data", "finished", "config", "minutes", "split", "metrics", "intervals"} == set(
        by_name["one"]
    )
    assert by_name["unfinished"]["finished"] is False
    compared = command("runs", tmp_path / "one", tmp_path / "two").out
    assert "different choices:" in compared
    assert re.search(r"\n  seed +0 +7 *\n", compared + "\n")
    assert re.search(r"\n  lr +None +0\.5", compared)
    assert "image_size" not in compared
    assert "the same choices" in command("runs", tmp_path / "one", sample_run).out
    assert command("runs", tmp_path / "no run").out == "no runs here yet; dolmen train makes one\n"


# ---- what is nobody's mistake


@pytest.mark.parametrize(("said", "shown"), [("", "stopped"), ("the state is saved", "the state is saved")])
def test_ctrl_c(command: Command, monkeypatch: pytest.MonkeyPatch, said: str, shown: str) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt(*([said] if said else []))

    monkeypatch.setattr(verbs, "doctor", interrupted)
    command("doctor").is_mistake(shown, status=130)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MachineError("the disk is full"), "the disk is full"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(28, "No space left on device", "/a/b"), "No space left on device: /a/b"),
        (OSError("strange"), "strange"),
    ],
)
def test_the_machines_fault(command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(verbs, "doctor", fail)
    command("doctor").is_mistake(sentence, status=1)


def test_a_bug_of_ours_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "doctor", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


@pytest.mark.parametrize("buffering", ["", "-u"])
def test_a_reader_who_leaves_ends_it_quietly(buffering: str) -> None:
    script = f"{sys.executable} {buffering} -m dolmen tasks | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_torch_it_says_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.startswith("dolmen.tasks.image")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    command("train", TASK, "x").is_mistake(rf"{TASK} needs torch here; type: pip install 'dolmen\[train\]'")


@pytest.mark.parametrize("library", ["sklearn", "matplotlib", "jinja2"])
def test_without_a_library_it_says_so_before_an_hour_of_training(
    command: Command, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else find(name))
    command("train", TASK, "x").is_mistake(rf"{TASK} needs {library} here; type: pip install 'dolmen\[train\]'")


def test_export_and_what_reads_it(command: Command, sample_run: Path, sample_pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.dolmen"
    done = command("export", sample_run, "--out", out)
    assert done.status == 0
    assert done.out == f"use it: dolmen predict {out} INPUT...\n"
    assert "fp32: largest difference" in done.err
    assert f"{out}: " in done.err
    picture = next((sample_pictures / "3").glob("*.png"))
    assert command("predict", out, picture).out.startswith(f"{picture}: ")
    for model in (out, sample_run):
        assert command("predict", "--threads", "2", model, picture).out.startswith(f"{picture}: ")
    mine, theirs = (json.loads(command("predict", m, picture, "--json").out) for m in (out, sample_run))
    assert mine["label"] == theirs["label"]
    assert mine["probability"] == pytest.approx(theirs["probability"], abs=1e-3)
    figures = json.loads(command("bench", out, "--seconds", "0", "--json").out)
    assert {"precision", "bytes", "latency_ms_p50"} <= set(figures)
    again = command("export", sample_run, "--out", out)
    assert again.status == 2
    assert "exists already; choose another --out" in again.err
    wrong = command("predict", out, picture, "--threads", "0")
    assert wrong.status == 2
    assert "'0' is no number from 1 on" in wrong.err
    for verb in ("evaluate", "explain"):
        more = ("--out", tmp_path / "x.png") if verb == "explain" else ()
        assert "needs the run that it was made of" in command(verb, out, picture, *more).err
    assert "microphone can't be read: No such file" in command("watch", out, "microphone").err


def test_watch_reads_standard_input(sample_run: Path, sample_pictures: Path) -> None:
    names = [str(p) for p in sorted((sample_pictures / "3").glob("*.png"))[:2]]
    words = [sys.executable, "-m", "dolmen", "watch", str(sample_run), "-", "--json"]
    done = subprocess.run(words, input="\n".join([*names, ""]), capture_output=True, text=True, check=True)
    assert ["label" in json.loads(line) for line in done.stdout.splitlines()] == [True, True]
