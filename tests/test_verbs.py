"""The verbs on data, configurations, disks and folders that are not as they should be; and going on after a stop."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import QUICK, contents
from safetensors.numpy import load_file

import dolmen
from dolmen import training
from dolmen.data.images.dataset import ImageDataset
from dolmen.engine.train import Interrupted
from dolmen.tasks.image_classification.processor import ClassificationProcessor
from dolmen.tasks.image_classification.task import ImageClassification, ImageClassificationConfig
from dolmen.types import MachineError, UserError

Command = Callable[..., Any]
TASK = "image-classification"
FLAGS = [f for k, v in QUICK.items() for f in ("--" + k.replace("_", "-"), str(v))]


def same_weights(a: Path, b: Path) -> bool:
    first, second = (load_file(p / "weights.safetensors") for p in (a, b))
    return first.keys() == second.keys() and all(np.array_equal(first[k], second[k]) for k in first)


def some(pictures: Path, folder: Path, classes: str, num: int, start: int = 0) -> None:
    """Copy a few pictures of a few classes."""
    for c in classes:
        (folder / c).mkdir(parents=True, exist_ok=True)
        for p in sorted((pictures / c).glob("*.png"))[start : start + num]:
            shutil.copy(p, folder / c / p.name)


# ---- configuration


def test_a_file_of_choices_and_flags_that_win_over_it(
    sample_pictures: Path, sample_run: Path, tmp_path: Path, command: Command
) -> None:
    file = tmp_path / "choices.json"
    file.write_text(json.dumps({"minutes": 5, "image_size": 24, "precision": "fp32"}))
    run = dolmen.train(TASK, sample_pictures, tmp_path / "a", config=file, epochs=1, image_size=16)
    assert (run.task.config.epochs, run.task.config.minutes, run.task.config.image_size) == (1, None, 16)
    # the configuration of another run serves as well, and repeats it
    dolmen.train(TASK, sample_pictures, tmp_path / "b", config=sample_run / "config.json")
    assert same_weights(tmp_path / "b", sample_run)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b'{"imag_size": 16}',
            rf"{TASK} has no choice 'imag_size'; did you mean 'image_size'\? dolmen train {TASK} --help lists them",
        ),
        (b'{"zzz": 16}', f"{TASK} has no choice 'zzz'; dolmen train {TASK} --help lists them"),
        (
            b'{"image_size": [1]}',
            rf"image_size = \[1\] is not possible: input should be a valid integer; dolmen train {TASK} --help .*",
        ),
        (
            b'{"fit": "corp"}',
            r"fit = 'corp' is not possible: input should be .*; did you mean 'crop'\? dolmen train .*",
        ),
        (b'{"epochs": 1, "minutes": 1}', "minutes and epochs are two budgets; give one of them"),
        (b"{minutes: 1}", r'.*c\.json is not JSON \(.*\); write choices as in \{"minutes": 10\}'),
        (b"\xff\xfe", r".*c\.json is not JSON \(.*\); write choices as in .*"),
        (b"[1, 2]", r".*c\.json holds no JSON object; write choices as in .*"),
        (b'{"config": 3}', r".*c\.json holds no JSON object; write choices as in .*"),
        (None, r".*c\.json can't be read: No such file or directory; name a JSON file such as \{\"minutes\": 10\}"),
    ],
)
def test_a_file_of_choices_that_is_wrong(
    content: bytes | None, sentence: str, tmp_path: Path, command: Command
) -> None:
    file = tmp_path / "c.json"
    if content is not None:
        file.write_bytes(content)
    command("train", TASK, "digits", "--config", file, "--out", tmp_path / "out").is_mistake(sentence)
    assert not (tmp_path / "out").exists()


def test_a_choice_that_does_not_exist_in_the_api() -> None:
    with pytest.raises(UserError, match=r"has no choice 'epoch'; did you mean 'epochs'\?"):
        dolmen.train(TASK, "digits", epoch=3)


# ---- data that can't be trained on


def empty(folder: Path, pictures: Path) -> None:
    folder.mkdir()


def empty_class(folder: Path, pictures: Path) -> None:
    some(pictures, folder, "01", 3)
    (folder / "7").mkdir()


def one_class(folder: Path, pictures: Path) -> None:
    some(pictures, folder, "3", 5)


def lonely_picture(folder: Path, pictures: Path) -> None:
    some(pictures, folder, "01", 3)
    some(pictures, folder, "2", 1)


def unreadable_only(folder: Path, pictures: Path) -> None:
    for c in "ab":
        (folder / c).mkdir(parents=True)
        for i in range(4):
            (folder / c / f"{i}.png").write_bytes(b"no picture at all %d" % i)


def no_classes(folder: Path, pictures: Path) -> None:
    some(pictures, folder, "3", 5)
    for p in (folder / "3").iterdir():
        p.rename(folder / p.name)
    (folder / "3").rmdir()


def one_class_in_training(folder: Path, pictures: Path) -> None:
    some(pictures, folder / "train", "0", 6)
    some(pictures, folder / "val", "01", 3, start=10)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (empty, r".*set (holds|is).*"),
        (empty_class, r"the class folder '7' of .*set holds no pictures; put some in, or remove it"),
        (one_class, r".*set has pictures of one class only \(3\), expected two or more; put the pictures .*"),
        (lonely_picture, r"the class '2' of .*set has one picture, expected two or more: .*"),
        (
            unreadable_only,
            r"none of the 8 pictures of .*set that were tried can be read \(a/0\.png: not a picture\); bring some .*",
        ),
        (no_classes, r"the pictures of .*set are not in folders named after their class; make it .*"),
        (
            one_class_in_training,
            r"all training pictures are of the class 0: bring pictures of at least one other class",
        ),
    ],
)
def test_data_that_nothing_can_be_learned_from(
    make: Callable[[Path, Path], None], sentence: str, tmp_path: Path, sample_pictures: Path, command: Command
) -> None:
    make(tmp_path / "set", sample_pictures)
    command("train", TASK, tmp_path / "set", *FLAGS, "--out", tmp_path / "out").is_mistake(sentence)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("classes", "choices", "sentence"),
    [
        (
            "012",
            {"positive": "1"},
            "--positive and --specificity speak of two classes, and the data have 3; leave them .*",
        ),
        ("012", {"specificity": 0.9}, "--positive and --specificity speak of two classes, and the data have 3; .*"),
        ("01", {"positive": "7"}, "--positive 7 is no class of the data; give 0 or 1"),
    ],
)
def test_an_operating_point_that_the_data_do_not_have(
    classes: str, choices: dict[str, Any], sentence: str, tmp_path: Path, sample_pictures: Path, command: Command
) -> None:
    some(sample_pictures, tmp_path / "set", classes, 8)
    flags = [f for k, v in choices.items() for f in ("--" + k, v)]
    command("train", TASK, tmp_path / "set", *FLAGS, *flags, "--out", tmp_path / "out").is_mistake(sentence)


def test_two_classes_are_decided_at_the_specificity_that_was_asked_for(tmp_path: Path, sample_pictures: Path) -> None:
    some(sample_pictures, tmp_path / "set", "38", 20)
    run = dolmen.train(TASK, tmp_path / "set", tmp_path / "out", **QUICK, positive="3", specificity=0.75)
    found = run.evaluation["val"]
    assert found["operating_point"]["positive"] == "3"
    assert found["metrics"]["specificity"] >= 0.75
    assert dolmen.load(run.path).task.processor.decide_by_threshold


# ---- leaks


def copied_across(folder: Path, pictures: Path) -> None:
    some(pictures, folder / "train", "01", 12)
    some(pictures, folder / "val", "01", 6, start=6)  # all of them are in train


def torn_group(folder: Path, pictures: Path) -> None:
    folder.mkdir()
    with (folder / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split", "patient"])
        for c in "01":
            for i, p in enumerate(sorted((pictures / c).glob("*.png"))[:12]):
                rows.writerow([p, c, "val" if i >= 8 else "train", f"patient {c}{i % 5}"])


@pytest.mark.parametrize(
    ("make", "name", "sentence"),
    [
        (copied_across, "set", r".* (is|are) .*train.* Train anyway with --allow-leaks; dolmen check .* shows all"),
        (torn_group, "set/list.csv", r"\d+ groups are in more than one split: .* Train anyway with --allow-leaks; .*"),
    ],
)
def test_a_leak_stops_the_training_until_told_otherwise(
    make: Callable[[Path, Path], None],
    name: str,
    sentence: str,
    tmp_path: Path,
    sample_pictures: Path,
    command: Command,
) -> None:
    make(tmp_path / "set", sample_pictures)
    checked = command("check", TASK, tmp_path / name, "--json")
    assert checked.status == 2
    assert "leak" in {f["level"] for f in json.loads(checked.out)["findings"]}
    words = ["train", TASK, tmp_path / name, *FLAGS, "--out", tmp_path / "out"]
    command(*words).is_mistake(sentence)
    assert not (tmp_path / "out").exists()
    assert command(*words, "--allow-leaks").status == 0
    assert (tmp_path / "out" / "weights.safetensors").is_file()


def test_a_warning_is_shown_and_training_goes_on(tmp_path: Path, sample_pictures: Path, command: Command) -> None:
    some(sample_pictures, tmp_path / "set", "01", 12)
    twin = next((tmp_path / "set" / "0").iterdir())
    shutil.copy(twin, twin.with_name("twin.png"))
    said = command("train", TASK, tmp_path / "set", *FLAGS, "--out", tmp_path / "out")
    assert said.status == 0
    assert "  warning: 1 picture is an exact copy of another in the same split" in said.err


# ---- evaluate on other data


def test_evaluate_with_fewer_classes(tmp_path: Path, sample_pictures: Path, sample_run: Path) -> None:
    some(sample_pictures, tmp_path / "set", "38", 20)
    (tmp_path / "set").rename(tmp_path / "few")
    found = dolmen.evaluate(sample_run, tmp_path / "few")
    assert 0 < found.num_examples < 40  # what training used is left out
    truth = np.array(found.tables["confusion"]).sum(1)
    assert set(np.flatnonzero(truth)) == {3, 8}


def test_evaluate_with_a_class_that_training_never_saw(
    tmp_path: Path, sample_pictures: Path, sample_run: Path, command: Command
) -> None:
    some(sample_pictures, tmp_path / "set", "01", 3)
    for name in ("cat", "dog"):
        shutil.copytree(tmp_path / "set" / "0", tmp_path / "set" / name)
    command("evaluate", sample_run, tmp_path / "set", "--json").is_mistake(
        r".*set has the class 'cat', which training never saw \(and 1 more\); the model knows 0, 1, .*, 9: "
        "rename or remove the class, or train anew with it"
    )


def test_evaluate_on_what_is_not_there(
    tmp_path: Path, sample_pictures: Path, sample_run: Path, command: Command
) -> None:
    command("evaluate", sample_run, sample_pictures, "--split", "val").is_mistake(
        ".* has no val part; it has no splits: leave --split out"
    )
    some(sample_pictures, tmp_path / "set" / "train", "01", 3)
    some(sample_pictures, tmp_path / "set" / "test", "01", 3, start=5)
    command("evaluate", sample_run, tmp_path / "set", "--split", "val").is_mistake(
        ".* has no val part; it has test, train"
    )
    unreadable_only(tmp_path / "bad", sample_pictures)
    for old, new in (("a", "0"), ("b", "1")):
        (tmp_path / "bad" / old).rename(tmp_path / "bad" / new)
    command("evaluate", sample_run, tmp_path / "bad").is_mistake(
        r".*bad holds no readable, labelled picture to evaluate on \(0/0\.png: not a picture\); give one that does"
    )
    command("evaluate", sample_run, tmp_path / "gone").is_mistake("there is no .*gone; check the path")


def test_evaluate_on_what_training_used(
    tmp_path: Path, sample_pictures: Path, sample_run: Path, command: Command
) -> None:
    seen = {d.tobytes() for d in load_file(sample_run / "seen.safetensors")["digests"]}
    run = dolmen.load(sample_run)
    all_ = run.task.open(str(sample_pictures))
    assert isinstance(all_, ImageDataset)
    for name, digest in zip(all_.names, all_.digests, strict=True):
        if digest.tobytes() in seen:
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sample_pictures / name, tmp_path / "set" / name)
    command("evaluate", sample_run, tmp_path / "set").is_mistake(
        r"all 160 examples of .*set were used in training .*first; evaluate on others, or on a part of them by name, "
        "--split train"
    )


# ---- check --labels


def test_check_labels_trains_judges(sample_pictures: Path, tmp_path: Path) -> None:
    some(sample_pictures, tmp_path / "set", "01", 12)
    report = dolmen.check(TASK, tmp_path / "set", labels=True, minutes=0.02, image_size=16, precision="fp32")
    assert report.findings[-1].code == "suspect-labels"
    one_class_in_training(tmp_path / "bad", sample_pictures)
    with pytest.raises(UserError, match=r"^all training pictures are of the class 0: bring .* one other class$"):
        dolmen.check(TASK, tmp_path / "bad", labels=True, minutes=0.02, image_size=16)


def test_suspect_labels_are_named() -> None:
    processor = ClassificationProcessor(classes=("cat", "dog"), height=8, width=8, channels=1, fit="crop")
    task = ImageClassification(ImageClassificationConfig(), processor)
    labels = np.array([0, 0, 0, 1, 1, 1])
    names = [f"{i}.png" for i in range(6)]
    rows = np.arange(6)
    data = ImageDataset(np.zeros((6, 8, 8, 1), np.uint8), rows, labels, rows, np.zeros((6, 16), np.uint8), names)
    logits = np.array([[3, 0], [3, 0], [0, 4], [0, 3], [0, 3], [0, 3]], float)
    found = task.suspects({"logits": logits}, data)
    assert (found.code, found.level, found.count) == ("suspect-labels", "warning", 1)
    assert found.items == ("2.png: labelled cat, looks like dog",)
    assert found.message.startswith("1 of 6 labels look")
    assert "never trained on them; look at them, most doubtful first." in found.message
    none = task.suspects({"logits": np.eye(2)[labels] * 3}, data)
    assert (none.level, none.count) == ("info", 0)
    assert none.message == "None of 6 labels looks wrong to networks that never trained on them."


# ---- stopped, resumed


def stopped(*_: Any, **__: Any) -> Any:
    raise Interrupted("stopped at step 0 of 9; the state is saved")


@pytest.fixture
def unfinished(sample_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Path:
    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", stopped)
        said = command("train", TASK, sample_pictures, *FLAGS, "--out", tmp_path / "run")
    assert said.status == 130
    assert said.err.endswith("dolmen: stopped at step 0 of 9; the state is saved\n")
    return tmp_path / "run"


def test_resume_needs_no_choices_again(
    unfinished: Path, sample_pictures: Path, sample_run: Path, command: Command
) -> None:
    """Not the budget either, and it starts from the beginning where nothing was saved yet."""
    command("predict", unfinished, "x.png").is_mistake(
        f"the training of .* has not ended; go on with: dolmen train {TASK} .* --epochs 1 .* --resume"
    )
    assert command("train", TASK, sample_pictures, "--out", unfinished, "--resume").status == 0
    assert same_weights(unfinished, sample_run)


def test_resume_with_other_words_is_refused(
    unfinished: Path, sample_pictures: Path, tmp_path: Path, command: Command
) -> None:
    words = ["train", TASK, sample_pictures, "--out", unfinished, "--resume"]
    before = contents(unfinished)
    command(*words, "--epochs", "3").is_mistake(
        ".*run was started with epochs = 1, not 3; resume it with the same choices"
    )
    command(*words, "--minutes", "3").is_mistake(".*run was started with minutes = None, not 3.0; resume it with .*")
    some(sample_pictures, tmp_path / "other", "01", 12)
    command("train", TASK, tmp_path / "other", "--out", unfinished, "--resume").is_mistake(
        "the data .*other have changed since .*run was started; train anew with another --out"
    )
    assert contents(unfinished) == before
    config = unfinished / "config.json"
    config.write_text(config.read_text().replace(f'"{TASK}"', '"translation"'))
    command(*words).is_mistake(
        f".*run is a run of translation, not of {TASK}; resume it with: dolmen train .* --resume"
    )
    config.write_text('{"task": "image-classification"}')
    command(*words).is_mistake(r".*config\.json is damaged or of another version \(.*\); train anew with another --out")


def test_tensorboard_that_is_not_there_is_missed_at_once(
    sample_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    command("train", TASK, sample_pictures, *FLAGS, "--out", tmp_path / "run", "--tensorboard").is_mistake(
        r"--tensorboard needs the tensorboard library; type: pip install 'dolmen\[tensorboard\]'"
    )
    assert not (tmp_path / "run").exists()


# ---- a training that diverges


def test_a_learning_rate_that_no_training_survives(
    command: Callable[..., Any], sample_pictures: Path, tmp_path: Path
) -> None:
    flags = ("--image-size", 16, "--precision", "fp32", "--threads", 1, "--epochs", 1, "--lr", 1e30)
    said = command("train", TASK, sample_pictures, "--out", tmp_path / "run", *flags)
    lines = said.err.splitlines()
    assert len([line for line in lines if line.startswith("  warning: training diverged, the ")]) == 2
    said.is_mistake(
        r"the (loss|gradient of the loss|weights) became -?(nan|inf) at step \d+ of \d+, after 2 returns to an earlier "
        r"state \(learning rate 6\.25e\+28 by now, fp32\): train again with a smaller rate, --lr 1\.6e\+28, or with "
        r"--clip-norm 1, or with --precision fp32",
        status=1,
    )
    assert not (tmp_path / "run" / "weights.safetensors").exists()


# ---- a full disk


def full_for(*names: str) -> Callable[..., None]:
    """An ``os.replace`` whose disk has no room for these files."""
    replace = os.replace

    def instead(source: Any, target: Any) -> None:
        if Path(target).name in names:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    return instead


@pytest.mark.parametrize("name", ["config.json", "check.json", "seen.safetensors"])
@pytest.mark.parametrize("there_before", [False, True])
def test_a_folder_that_cannot_be_opened_whole_is_taken_away_again(
    name: str,
    there_before: bool,
    sample_pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
) -> None:
    if there_before:
        (tmp_path / "run").mkdir()
    monkeypatch.setattr(os, "replace", full_for(name))
    command("train", TASK, sample_pictures, *FLAGS, "--out", tmp_path / "run").is_mistake(
        rf".*{name} \(0\.0 MB\) can't be written: No space left on device; make room, or choose another --out", status=1
    )
    assert list(tmp_path.rglob("*.*")) == []


@pytest.mark.parametrize("name", ["evaluation.json", "report.html", "card.md", "weights.safetensors"])
def test_a_disk_that_is_full_in_the_end_loses_nothing(
    name: str,
    sample_pictures: Path,
    sample_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_for(name))
        command("train", TASK, sample_pictures, *FLAGS, "--out", out).is_mistake(
            rf".*{name} .*can't be written: No space left on device; make room, .*", status=1
        )
    assert not (out / name).exists()
    assert not [p for p in out.rglob("*") if p.name.startswith(".")]
    assert (out / "checkpoint" / "state.safetensors").is_file()
    with pytest.raises(UserError, match="has not ended; go on with"):
        dolmen.load(out)
    assert command("train", TASK, sample_pictures, "--out", out, "--resume").status == 0
    assert same_weights(out, sample_run)
    assert not (out / "checkpoint").exists()


def test_a_full_disk_leaves_no_half_of_a_report_or_explanation(
    sample_pictures: Path, sample_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setattr(os, "replace", full_for("report.html", "why.png"))
    one = next((sample_pictures / "3").glob("*.png"))
    command("explain", sample_run, one, "--out", tmp_path / "why.png").is_mistake(
        r".*why\.png \(0\.\d MB\) can't be written: No space left on device; make room, or choose another --out",
        status=1,
    )
    command("evaluate", sample_run, sample_pictures, "--report", tmp_path / "report").is_mistake(
        r".*report\.html \(\d\.\d MB\) can't be written: No space left on device; make room, .*", status=1
    )
    assert list(tmp_path.iterdir()) == []


def test_a_cache_without_room_is_said(sample_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dolmen.data.cache import store

    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "free_bytes", lambda _: 10)
    with pytest.raises(MachineError, match=r"^the decoded pictures need .* on a larger disk$"):
        dolmen.train(TASK, sample_pictures, tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_a_model_opens_others_that_its_options_name(sample_run: Path) -> None:
    opened = dolmen.load(sample_run).predictor.open_model
    assert opened is not None
    assert opened(sample_run).task_name == TASK
